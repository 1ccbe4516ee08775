/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LABCTL_INTEGRITY_H
#define LABCTL_INTEGRITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The exit statuses of kernel selftests, and getopt's for a wrong argument. */
enum {
	PASSED = 0,
	FAILED = 1,
	WRONG_USAGE = 2,
	SKIPPED = 4
};

#define PAGE_BYTES     4096UL
#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))
#define MOST_PROCESSES 64
#define COUNT(array)   (sizeof(array) / sizeof((array)[0]))

struct options {
	const struct scenario *scenario;
	int seconds;
	size_t size;      /* of each process, in bytes */
	int processes;    /* that give memory back */
	size_t held_back; /* bytes that may be unmapped and not yet free */
	uint64_t seed;
};

/* What all processes of a scenario share. */
struct shared {
	uint64_t deadline_nanoseconds; /* CLOCK_MONOTONIC */
	atomic_bool stop;
	atomic_long rounds;
	atomic_long pages_checked;
	atomic_long foreign_words;
	atomic_long oom_kills;
	atomic_long most_held_back; /* bytes */
	atomic_int faults;
	char why[200]; /* of the first fault */
};

struct scenario {
	const char *name;
	const char *help;
	void (*run)(const struct options *options);
};

extern struct shared *shared;

extern const struct scenario scenario_backlog;
extern const struct scenario scenario_exit;
extern const struct scenario scenario_failslab;
extern const struct scenario scenario_fork;
extern const struct scenario scenario_free;
extern const struct scenario scenario_hotplug;
extern const struct scenario scenario_kill;
extern const struct scenario scenario_memcg;
extern const struct scenario scenario_oom;
extern const struct scenario scenario_stale;

/* main.c: a fault is noted and the scenario fails; skip() ends the program */
__attribute__((format(printf, 1, 2))) void fault(const char *format, ...);
__attribute__((noreturn, format(printf, 1, 2))) void skip(const char *format,
							  ...);
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format,
							 ...);
bool time_is_up(void);
uint64_t now_nanoseconds(void);
void sleep_milliseconds(long milliseconds);
uint64_t random_below(uint64_t *state, uint64_t limit);

/* pattern.c: each process and generation has its own content for each page */
struct area {
	uint64_t *address;
	size_t pages;
	uint64_t owner;
	uint64_t generation;
};

void area_map(struct area *area, size_t bytes, uint64_t owner);
void area_unmap(struct area *area);
/* Fill with the next generation; memory that is new must have been zero. */
void area_fill(struct area *area, bool is_new);
/* Compare a part of the area; differences are faults. */
void area_check(const struct area *area, size_t first, size_t pages);
void area_check_all(const struct area *area);
/* The area was dropped by MADV_DONTNEED: it must read as zero. */
void area_check_zero(const struct area *area);

/* processes.c */
typedef void (*work)(const struct options *options, uint64_t owner);
/* Start a process that dies with its parent; its exit status says if it failed.
 */
pid_t process_start(work work, const struct options *options, uint64_t owner);
/* Wait, and fault if it does not end or ends in another way than `expected`. */
enum ending {
	BY_ITSELF,
	KILLED,
	EITHER
};
void process_wait(pid_t pid, enum ending expected);
void process_kill(pid_t pid);
void pin_to_cpu(int cpu);
int cpu_count(void);
/* Processes that hold memory and look at it again and again. */
void neighbours_start(const struct options *options);
void neighbours_end(void);
/* Map, fill, check, give back in one of several ways, until time is up. */
void churn(const struct options *options, uint64_t owner);
/* As many processes as the options ask for, owners 1 and up. */
void processes_start(pid_t *pids, work work, const struct options *options);
void processes_wait(const pid_t *pids, const struct options *options,
		    enum ending expected);
/* Start them and wait until they end by themselves. */
void processes_run(work work, const struct options *options);

/* files.c */
bool file_write(const char *path, const char *text);
bool file_read(const char *path, char *text, size_t size);
long long file_number(const char *path); /* -1 if there is none */

#endif
