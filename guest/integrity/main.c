// SPDX-License-Identifier: GPL-2.0-only
/*
 * integrity: does memory keep its content while other processes free theirs in
 * every possible way?
 *
 * Runs one scenario for a given time, and prints one line of JSON at the end.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_ROUND_NANOSECONDS 120000000000ULL

struct shared *shared;

static const struct scenario *const scenarios[] = {
	&scenario_free,          &scenario_exit,        &scenario_kill,
	&scenario_fork,          &scenario_stale,       &scenario_edge,
	&scenario_backlog,       &scenario_oom,         &scenario_memcg,
	&scenario_margin,        &scenario_margin_half, &scenario_margin_node,
	&scenario_margin_pinned, &scenario_mrelease,    &scenario_swap,
	&scenario_notifier,      &scenario_failslab,    &scenario_hotplug,
	&scenario_split,         &scenario_billing,     &scenario_tight,
	&scenario_order,         &scenario_huge,
};

uint64_t now_nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

bool is_late(void)
{
	return now_nanoseconds() >= shared->deadline_nanoseconds;
}

/* Not before the first round, even in a slow guest: it would test nothing. */
bool time_is_up(void)
{
	if (!is_late())
		return false;
	return atomic_load(&shared->rounds) ||
	       now_nanoseconds() >=
		       shared->deadline_nanoseconds + LONGEST_ROUND_NANOSECONDS;
}

void sleep_milliseconds(long milliseconds)
{
	struct timespec time = { milliseconds / 1000,
				 milliseconds % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/* xorshift64 (Marsaglia 2003) */
uint64_t random_below(uint64_t *state, uint64_t limit)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % limit;
}

void *private_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		die("cannot map %zu bytes", bytes);
	return memory;
}

void *shared_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("cannot map memory");
	return memory;
}

void fault(const char *format, ...)
{
	char why[sizeof(shared->why)];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	if (atomic_fetch_add(&shared->faults, 1) == 0)
		memcpy(shared->why, why, sizeof(why));
}

/* Failures are more important. */
void note(const char *format, ...)
{
	va_list arguments;

	if (atomic_load(&shared->faults))
		return;
	va_start(arguments, format);
	vsnprintf(shared->why, sizeof(shared->why), format, arguments);
	va_end(arguments);
}

static void report(const struct options *options, const char *passed,
		   const char *why)
{
	printf("{\"scenario\": \"%s\", \"seconds\": %d, \"seed\": %llu, "
	       "\"rounds\": %ld, \"pages_checked\": %ld, "
	       "\"foreign_words\": %ld, \"oom_kills\": %ld, "
	       "\"unexpected_kills\": %ld, \"faults\": %d, "
	       "\"held_back_bytes\": %ld, \"trials\": %ld, "
	       "\"trials_with_kills\": %ld, \"passed\": %s, \"why\": \"%s\"}\n",
	       options->scenario->name, options->seconds,
	       (unsigned long long)options->seed, atomic_load(&shared->rounds),
	       atomic_load(&shared->pages_checked),
	       atomic_load(&shared->foreign_words),
	       atomic_load(&shared->oom_kills),
	       atomic_load(&shared->unexpected_kills),
	       atomic_load(&shared->faults),
	       atomic_load(&shared->most_held_back),
	       atomic_load(&shared->trials),
	       atomic_load(&shared->trials_with_kills), passed, why);
	fflush(stdout);
}

static const struct options *in_use; /* for skip() */

void skip(const char *format, ...)
{
	char why[sizeof(shared->why)];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	report(in_use, "null", why);
	exit(SKIPPED);
}

void die(const char *format, ...)
{
	va_list arguments;

	fputs("integrity: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	fault("a process of the scenario failed, see stderr");
	atomic_store(&shared->stop, true); /* others may wait for it */
	_exit(FAILED);
}

__attribute__((noreturn)) static void usage(const char *wrong)
{
	if (wrong)
		fprintf(stderr, "integrity: %s\n\n", wrong);
	fputs("usage: integrity SCENARIO [--seconds N] [--size 32MiB] "
	      "[--processes N]\n"
	      "                          [--held-back 256MiB] [--trials N]\n"
	      "                          [--seed N]\n\n",
	      stderr);
	for (size_t i = 0; i < COUNT(scenarios); i++)
		fprintf(stderr, "  %-13s %s\n", scenarios[i]->name,
			scenarios[i]->help);
	fputs("\nexit status: 0 passed, 1 failed, 2 wrong usage, 4 skipped\n",
	      stderr);
	exit(WRONG_USAGE);
}

static long long number(const char *text, bool is_size)
{
	static const struct {
		const char *unit;
		long long factor;
	} units[] = { { "", 1 },
		      { "KiB", 1LL << 10 },
		      { "MiB", 1LL << 20 },
		      { "GiB", 1LL << 30 } };
	char *end;
	long long value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (end != text && !errno && value >= 0 && value < 1LL << 40)
		for (size_t i = 0; i < (is_size ? COUNT(units) : 1); i++)
			if (!strcmp(end, units[i].unit))
				return value * units[i].factor;
	usage("expected a number, or a size like 32MiB");
}

static void parse(struct options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'z' },
		{ "processes", required_argument, NULL, 'p' },
		{ "held-back", required_argument, NULL, 'h' },
		{ "trials", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		long long value;

		if (option == '?')
			usage(NULL);
		value = number(optarg, option == 'z' || option == 'h');
		if (option == 's')
			options->seconds = value;
		else if (option == 'z')
			options->size = value / PAGE_BYTES * PAGE_BYTES;
		else if (option == 'p')
			options->processes = value;
		else if (option == 'h')
			options->held_back = value;
		else if (option == 't')
			options->trials = value;
		else
			options->seed = value;
	}
	for (size_t i = 0; optind < argc && i < COUNT(scenarios); i++)
		if (!strcmp(argv[optind], scenarios[i]->name))
			options->scenario = scenarios[i];
	if (!options->scenario || optind != argc - 1)
		usage("expected one scenario");
	if (options->size < 16 * PAGE_BYTES || options->processes < 1 ||
	    options->processes > MOST_PROCESSES || options->seconds < 1 ||
	    options->seed < 1 || options->trials < 1)
		usage("a number is out of range");
}

int main(int argc, char **argv)
{
	static struct options options = { .seconds = 10,
					  .size = 32 << 20,
					  .processes = 4,
					  .held_back = 256 << 20,
					  .trials = 3,
					  .seed = 20170315 };
	bool passed;

	parse(&options, argc, argv);
	setvbuf(stderr, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		usage("no memory");
	shared->deadline_nanoseconds =
		now_nanoseconds() + options.seconds * 1000000000ULL;
	in_use = &options;
	options.scenario->run(&options);
	if (!atomic_load(&shared->rounds))
		fault("no round finished in the given time");
	passed = !atomic_load(&shared->faults);
	report(&options, passed ? "true" : "false", shared->why);
	return passed ? PASSED : FAILED;
}
