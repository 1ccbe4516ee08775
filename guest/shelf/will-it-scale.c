// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page_fault and brk forms of will-it-scale: how many operations per second
 * do N tasks do together?
 *
 * Each task repeats one operation on its own CPU and counts; the main process
 * reads the counters after a second of warm-up and at the end. The operations
 * follow the descriptions of will-it-scale's; the program was written for
 * labctl.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARMUP_NANOSECONDS 1000000000ULL
#define MOST_SECONDS       3600

/* One cache line, so that tasks do not share it. */
struct counter {
	_Alignas(128) volatile uint64_t done;
};

struct task {
	pthread_t thread;
	pid_t process;
	int number;
	struct counter *counter;
};

struct test {
	const char *name;
	const char *help;
	bool has_file; /* of the size of the mapping */
	void (*step)(int file, struct counter *counter);
};

static struct {
	const struct test *test;
	size_t size; /* bytes per task */
	int tasks;
	int seconds;
	bool threads;
} options;

static void fault(int file, int flags, struct counter *counter)
{
	char *address = mmap(NULL, options.size, PROT_READ | PROT_WRITE, flags,
			     file, 0);

	if (address == MAP_FAILED)
		die(FAILED, "mmap of %zu bytes failed: %s", options.size,
		    strerror(errno));
	for (size_t at = 0; at < options.size; at += getpagesize()) {
		*(volatile char *)(address + at) = 1;
		counter->done++;
	}
	if (munmap(address, options.size))
		die(FAILED, "munmap: %s", strerror(errno));
}

static void page_fault1(int file, struct counter *counter)
{
	fault(file, MAP_PRIVATE | MAP_ANONYMOUS, counter);
}

static void page_fault2(int file, struct counter *counter)
{
	fault(file, MAP_PRIVATE, counter);
}

static void page_fault3(int file, struct counter *counter)
{
	fault(file, MAP_SHARED, counter);
}

static void brk1(int file, struct counter *counter)
{
	char *end = sbrk(0);

	(void)file;
	if (brk(end + getpagesize()) || brk(end))
		die(FAILED, "brk: %s", strerror(errno));
	counter->done += 2;
}

static const struct test tests[] = {
	{ "page_fault1", "write to each page of anonymous memory, unmap it",
	  false, page_fault1 },
	{ "page_fault2", "the same in a private mapping of a file", true,
	  page_fault2 },
	{ "page_fault3", "the same in a shared mapping of a file", true,
	  page_fault3 },
	{ "brk1", "grow and shrink the heap by a page", false, brk1 },
};

static int new_file(void)
{
	int file = memfd_create("will-it-scale", MFD_CLOEXEC);

	if (file < 0 || posix_fallocate(file, 0, options.size))
		die(FAILED, "no file of %zu bytes in memory", options.size);
	return file;
}

__attribute__((noreturn)) static void *work(void *argument)
{
	const struct task *task = argument;
	int file;

	pin(task->number, options.tasks);
	file = options.test->has_file ? new_file() : -1;
	for (;;)
		options.test->step(file, task->counter);
}

static void start(struct task *task)
{
	pid_t parent = getpid();

	if (options.threads) {
		if (pthread_create(&task->thread, NULL, work, task))
			die(FAILED, "cannot start thread %d", task->number);
		return;
	}
	task->process = fork();
	if (task->process < 0)
		die(FAILED, "fork: %s", strerror(errno));
	if (task->process)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(FAILED);
	work(task);
}

static void sleep_until(uint64_t then)
{
	for (uint64_t now = nanoseconds(); now < then; now = nanoseconds())
		usleep((then - now) / 1000 + 1);
}

static void stop(const struct task *task)
{
	int status;

	if (waitpid(task->process, &status, WNOHANG))
		die(FAILED, "task %d ended early", task->number);
	kill(task->process, SIGKILL);
	waitpid(task->process, &status, 0);
}

static int measure(struct task *tasks)
{
	uint64_t began, ended, *before = calloc(options.tasks, sizeof(*before));
	double rate, total = 0, least = 0, most = 0;

	if (!before)
		die(FAILED, "out of memory");
	sleep_until(nanoseconds() + WARMUP_NANOSECONDS);
	began = nanoseconds();
	for (int i = 0; i < options.tasks; i++)
		before[i] = tasks[i].counter->done;
	sleep_until(began + options.seconds * 1000000000ULL);
	ended = nanoseconds();
	for (int i = 0; i < options.tasks; i++) {
		rate = (tasks[i].counter->done - before[i]) * 1e9 /
		       (ended - began);
		total += rate;
		least = i && least < rate ? least : rate;
		most = most > rate ? most : rate;
	}
	for (int i = 0; i < options.tasks && !options.threads; i++)
		stop(&tasks[i]);
	printf("{\"test\": \"%s\", \"tasks\": %d, \"size_bytes\": %zu, "
	       "\"rate\": %.1f, \"least_rate\": %.1f, \"most_rate\": %.1f}\n",
	       options.test->name, options.tasks, options.size, total, least,
	       most);
	return fflush(stdout) ? FAILED : 0;
}

static void help(void)
{
	puts("will-it-scale: operations per second of N tasks\n");
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		printf("  --test %-12s %s\n", tests[i].name, tests[i].help);
	puts("  --tasks N           auto: one per CPU\n"
	     "  --mode MODE         processes or threads\n"
	     "  --size SIZE         of all mappings: 512MiB, or a share of "
	     "the\n"
	     "                      memory (10%)\n"
	     "  --seconds N         time of measuring, after 1 s of warm-up");
}

static const struct test *parse_test(const char *text)
{
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		if (!strcmp(tests[i].name, text))
			return &tests[i];
	die(WRONG_USAGE,
	    "--test: %s: expected page_fault1, page_fault2, page_fault3 or "
	    "brk1",
	    text);
}

static bool parse_mode(const char *text)
{
	if (strcmp(text, "processes") && strcmp(text, "threads"))
		die(WRONG_USAGE, "--mode: %s: expected processes or threads",
		    text);
	return !strcmp(text, "threads");
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "test", required_argument, NULL, 'e' },
		{ "tasks", required_argument, NULL, 't' },
		{ "mode", required_argument, NULL, 'm' },
		{ "size", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	const char *tasks = "auto", *size = "10%";
	int letter;

	options.test = &tests[0];
	options.seconds = 5;
	while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (letter) {
		case 'e':
			options.test = parse_test(optarg);
			break;
		case 't':
			tasks = optarg;
			break;
		case 'm':
			options.threads = parse_mode(optarg);
			break;
		case 's':
			size = optarg;
			break;
		case 'n':
			options.seconds =
				parse_count("--seconds", optarg, MOST_SECONDS);
			break;
		case 'h':
			help();
			exit(0);
		default:
			/* getopt has printed the error. */
			exit(WRONG_USAGE);
		}
	}
	if (optind < argc)
		die(WRONG_USAGE, "%s: unexpected argument", argv[optind]);
	options.tasks = parse_tasks("--tasks", tasks);
	options.size = size_option("--size", size) / options.tasks /
		       getpagesize() * getpagesize();
	if (!options.size)
		die(WRONG_USAGE, "--size: %s is less than a page per task",
		    size);
}

int main(int argc, char **argv)
{
	struct counter *counters;
	struct task *tasks;

	parse(argc, argv);
	tasks = calloc(options.tasks, sizeof(*tasks));
	counters =
		mmap(NULL, options.tasks * sizeof(*counters),
		     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!tasks || counters == MAP_FAILED)
		die(FAILED, "out of memory for %d tasks", options.tasks);
	for (int i = 0; i < options.tasks; i++) {
		tasks[i].number = i;
		tasks[i].counter = &counters[i];
		start(&tasks[i]);
	}
	/* The exit ends threads. */
	return measure(tasks);
}
