// SPDX-License-Identifier: GPL-2.0-only
/*
 * Read the kernel's own counts while memory is freed: the time in some of its
 * functions, or the time spent waiting for its locks. This needs kernels with
 * additional options, which are slower.
 */
#define _GNU_SOURCE
#include "freebench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TRACING                     "/sys/kernel/debug/tracing/"
#define LOCK_STAT                   "/proc/lock_stat"
#define LOCK_STAT_SWITCH            "/proc/sys/kernel/lock_stat"
#define MOST_CPUS                   1024
#define NANOSECONDS_PER_MICROSECOND 1000

/* Zapping time is that of unmap_page_range() minus the freeing inside it. */
static const char *const functions[] = { "unmap_page_range",
					 "free_pages_and_swap_cache",
					 "free_pgtables" };
#define FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

static void put_text(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	const char *rest = text;

	if (file < 0 && errno == ENOENT)
		die(SKIPPED, "--watch: this kernel has no %s", path);
	/* The function filter accepts one name per write. */
	while (*rest) {
		ssize_t taken = file < 0 ? -1 : write(file, rest, strlen(rest));

		if (taken <= 0)
			die(FAILED, "%s: cannot write '%s': %s", path, rest,
			    strerror(errno));
		rest += taken;
	}
	close(file);
}

void watch_prepare(enum watch watch)
{
	char names[128] = "";

	if (watch == WATCH_LOCKS) {
		put_text(LOCK_STAT_SWITCH, "0");
		put_text(LOCK_STAT, "0"); /* clears it */
	} else if (watch == WATCH_FUNCTIONS) {
		put_text(TRACING "function_profile_enabled", "0");
		for (size_t i = 0; i < FUNCTIONS; i++) {
			strcat(names, functions[i]);
			strcat(names, " ");
		}
		put_text(TRACING "set_ftrace_filter", names);
	}
}

static void watch_switch(enum watch watch, const char *value)
{
	if (watch == WATCH_LOCKS)
		put_text(LOCK_STAT_SWITCH, value);
	else if (watch == WATCH_FUNCTIONS)
		put_text(TRACING "function_profile_enabled", value);
}

/*
 * Call the functions once on each CPU. The profiler has a table per CPU, adds
 * an entry where a function begins, and loses the time of a call that ends on a
 * CPU without an entry because its thread migrated.
 */
static void make_entries(void)
{
	size_t length = sysconf(_SC_PAGESIZE);
	cpu_set_t own, one;

	if (sched_getaffinity(0, sizeof(own), &own))
		die(FAILED, "--watch: sched_getaffinity: %s", strerror(errno));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		void *page;

		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (!CPU_ISSET(cpu, &own) ||
		    sched_setaffinity(0, sizeof(one), &one))
			continue;
		page = mmap(NULL, length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (page == MAP_FAILED || munmap(page, length))
			die(FAILED, "--watch: mmap: %s", strerror(errno));
	}
	if (sched_setaffinity(0, sizeof(own), &own))
		die(FAILED, "--watch: sched_setaffinity: %s", strerror(errno));
}

void watch_begin(enum watch watch)
{
	watch_switch(watch, "1");
	if (watch == WATCH_FUNCTIONS)
		make_entries();
}

void watch_end(enum watch watch)
{
	watch_switch(watch, "0");
}

/* Add the calls and times of one CPU's table, one line per function. */
static void add_functions(FILE *table, uint64_t *calls, double *microseconds)
{
	char line[512], name[128];
	unsigned long long hits;
	double time;

	while (fgets(line, sizeof(line), table)) {
		if (sscanf(line, " %127s %llu %lf us", name, &hits, &time) != 3)
			continue;
		for (size_t i = 0; i < FUNCTIONS; i++) {
			if (strcmp(name, functions[i]))
				continue;
			calls[i] += hits;
			microseconds[i] += time;
		}
	}
}

static void print_functions(void)
{
	double microseconds[FUNCTIONS] = { 0 };
	uint64_t calls[FUNCTIONS] = { 0 };
	char path[96];
	FILE *table;

	for (int cpu = 0; cpu < MOST_CPUS; cpu++) {
		snprintf(path, sizeof(path), TRACING "trace_stat/function%d",
			 cpu);
		table = fopen(path, "re");
		if (!table)
			break;
		add_functions(table, calls, microseconds);
		fclose(table);
	}
	printf("\"functions\": {");
	for (size_t i = 0; i < FUNCTIONS; i++)
		printf("%s\"%s\": {\"calls\": %" PRIu64
		       ", \"nanoseconds\": %.0f}",
		       i ? ", " : "", functions[i], calls[i],
		       microseconds[i] * NANOSECONDS_PER_MICROSECOND);
	printf("}, ");
}

/*
 * A line of Documentation/locking/lockstat.rst: the class, the number of waits
 * (con-bounces, contentions), wait times (min, max, total, avg), the number of
 * acquisitions, and hold times. Times are in microseconds.
 */
static bool parse_lock(const char *line, char *name, size_t size,
		       unsigned long long *contentions, double *waited,
		       unsigned long long *taken, double *held)
{
	const char *colon = strrchr(line, ':');
	size_t length;

	if (!colon)
		return false;
	while (*line == ' ')
		line++;
	length = colon - line;
	if (length == 0 || length >= size || strpbrk(line, "\"\\"))
		return false;
	memcpy(name, line, length);
	name[length] = '\0';
	return sscanf(colon + 1,
		      " %*u %llu %*f %*f %lf %*f %*u %llu %*f %*f %lf",
		      contentions, waited, taken, held) == 4;
}

static void print_locks(void)
{
	unsigned long long contentions, taken;
	FILE *table = fopen(LOCK_STAT, "re");
	char line[1024], name[256];
	const char *separator = "";
	double waited, held;

	if (!table)
		die(FAILED, "%s: %s", LOCK_STAT, strerror(errno));
	printf("\"locks\": {");
	while (fgets(line, sizeof(line), table)) {
		if (!parse_lock(line, name, sizeof(name), &contentions, &waited,
				&taken, &held) ||
		    !contentions)
			continue;
		printf("%s\"%s\": {\"contentions\": %llu, "
		       "\"wait_nanoseconds\": %.0f, \"taken\": %llu, "
		       "\"hold_nanoseconds\": %.0f}",
		       separator, name, contentions,
		       waited * NANOSECONDS_PER_MICROSECOND, taken,
		       held * NANOSECONDS_PER_MICROSECOND);
		separator = ", ";
	}
	printf("}, ");
	fclose(table);
}

void watch_print(enum watch watch)
{
	if (watch == WATCH_LOCKS)
		print_locks();
	else if (watch == WATCH_FUNCTIONS)
		print_functions();
}
