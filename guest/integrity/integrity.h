/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LABCTL_INTEGRITY_H
#define LABCTL_INTEGRITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The exit statuses of kernel selftests, and 2 for wrong usage. */
enum {
	PASSED = 0,
	FAILED = 1,
	WRONG_USAGE = 2,
	SKIPPED = 4
};

#define PAGE_BYTES     4096UL
#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))
#define MOST_PROCESSES 64
#define MOST_WATCHED   256 /* processes that run at the same time */
#define COUNT(array)   (sizeof(array) / sizeof((array)[0]))

struct options {
	const struct scenario *scenario;
	int seconds;
	size_t size;      /* of each process, in bytes */
	int processes;    /* that free memory */
	size_t held_back; /* bytes that may be unmapped but not yet free */
	long trials;      /* at least, of scenarios that count kills in them */
	uint64_t seed;
};

/* State shared by all processes of a scenario. */
struct shared {
	uint64_t deadline_nanoseconds; /* CLOCK_MONOTONIC */
	atomic_bool stop;
	atomic_long rounds;
	atomic_long pages_checked;
	atomic_long foreign_words;
	atomic_long oom_kills;
	atomic_long unexpected_kills;
	atomic_long trials; /* 0: the scenario has none */
	atomic_long trials_with_kills;
	atomic_long most_held_back; /* bytes */
	atomic_long most_swap_cached_kib;
	atomic_int faults;
	atomic_uint started;                      /* processes */
	atomic_long pages_done[MOST_WATCHED + 1]; /* by process, modulo */
	char why[200]; /* of the first fault, or the last note */
};

struct scenario {
	const char *name;
	const char *help;
	void (*run)(const struct options *options);
};

extern struct shared *shared;

extern const struct scenario scenario_backlog;
extern const struct scenario scenario_billing;
extern const struct scenario scenario_edge;
extern const struct scenario scenario_exit;
extern const struct scenario scenario_failslab;
extern const struct scenario scenario_fork;
extern const struct scenario scenario_free;
extern const struct scenario scenario_hotplug;
extern const struct scenario scenario_huge;
extern const struct scenario scenario_kill;
extern const struct scenario scenario_margin;
extern const struct scenario scenario_margin_half;
extern const struct scenario scenario_margin_node;
extern const struct scenario scenario_margin_pinned;
extern const struct scenario scenario_memcg;
extern const struct scenario scenario_mrelease;
extern const struct scenario scenario_notifier;
extern const struct scenario scenario_oom;
extern const struct scenario scenario_order;
extern const struct scenario scenario_split;
extern const struct scenario scenario_stale;
extern const struct scenario scenario_swap;
extern const struct scenario scenario_tight;

/* main.c: fault() records a failure of the scenario, note() a result to print;
 * skip() ends the program */
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);
__attribute__((format(printf, 1, 2))) void fault(const char *format, ...);
__attribute__((noreturn, format(printf, 1, 2))) void skip(const char *format,
							  ...);
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format,
							 ...);
bool time_is_up(void);
bool is_late(void); /* leave out of the first round what need not be in it */
uint64_t now_nanoseconds(void);
void sleep_milliseconds(long milliseconds);
uint64_t random_below(uint64_t *state, uint64_t limit);
void *private_memory(size_t bytes); /* of this process, not touched */
void *shared_memory(size_t bytes);  /* zeroed, also for later children */

/* pattern.c: page contents that differ by process, generation and page */
struct area {
	uint64_t *address;
	size_t pages;
	uint64_t owner;
	uint64_t generation;
};

void area_map(struct area *area, size_t bytes, uint64_t owner);
void area_unmap(struct area *area);
/* Fill with the next generation; new memory must be zero before. */
void area_fill(struct area *area, bool is_new);
/* Check a part of the area; differences are faults. */
void area_check(const struct area *area, size_t first, size_t pages);
void area_check_all(const struct area *area);
/* Check a copy of a part of the area. */
void area_check_copy(const struct area *area, size_t first, size_t pages,
		     const void *copy);
/* Check that the area reads as zero after MADV_DONTNEED. */
void area_check_zero(const struct area *area);

/* processes.c */
typedef void (*work)(const struct options *options, uint64_t owner);
/* Start a process that dies with its parent; its exit status is the result.
 */
pid_t process_start(work work, const struct options *options, uint64_t owner);
/* Wait for its end; fault if it does not end as `expected`. */
enum ending {
	BY_ITSELF,
	KILLED,
	EITHER
};
void process_wait(pid_t pid, enum ending expected);
/* This process has filled or checked a page: it is slow, but not stuck. */
void process_has_done_page(void);
void process_kill(pid_t pid);
long long process_resident_bytes(pid_t pid); /* -1 if it is unknown */
/* Until another process of the scenario sets it, or all are to stop. */
void wait_for_phase(const atomic_int *phase, int wanted);
void pin_to_cpu(int cpu);
void unpin(void);
int cpu_count(void);
/* Processes that hold memory and check it repeatedly. */
void neighbours_start(const struct options *options);
void neighbours_end(void);
/* Map, fill, check and free in one of several ways, until the deadline. */
void churn(const struct options *options, uint64_t owner);
/* Start the processes that the options ask for, with owners from 1. */
void processes_start(pid_t *pids, work work, const struct options *options);
void processes_wait(const pid_t *pids, const struct options *options,
		    enum ending expected);
/* Start them and wait for their normal end. */
void processes_run(work work, const struct options *options);

/* slow_workers.c: of the kernel, confined to the last CPU from start to end,
 * while the caller is bound to CPU 1; the end stops all processes */
void slow_workers_start(const struct options *options);
void slow_workers_set(bool slow);
void slow_workers_end(void);

/* files.c */
bool file_write(const char *path, const char *text);
bool file_read(const char *path, char *text, size_t size);
long long file_number(const char *path); /* -1 if it cannot be read */
long long file_field(const char *path, const char *field); /* -1 without it */

/* groups.c: cgroups by number; only one process uses them at a time */
void groups_mount(const char *controller); /* such as "+memory" */
bool groups_enable(const char *controller);
void groups_unmount(void);
void group_make(uint64_t group, size_t limit); /* in bytes; 0: none */
void group_join(uint64_t group);
void group_remove(uint64_t group, size_t limit);
bool group_set(uint64_t group, const char *file, const char *text);
long long group_number(uint64_t group, const char *file);
long long group_field(uint64_t group, const char *file, const char *field);
long group_oom_kills(uint64_t group);

#endif
