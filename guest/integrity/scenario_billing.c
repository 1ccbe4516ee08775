// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much of the CPU time of freeing is billed outside the cgroup of the
 * process that frees, without and with a cpu.max? A result, no failure.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <stdio.h>
#include <unistd.h>

#define GROUP 1
/* Half of a CPU, in periods of 20 ms. */
#define CPU_MAX           "10000 20000"
#define WAIT_MILLISECONDS 5
#define TICK_MICROSECONDS 10000 /* USER_HZ is 100 */
#define LEAST_ROUNDS      3

static atomic_int *phase;
enum {
	FILLING,
	FILLED,
	FREEING
};

static void fill_and_end(const struct options *options, uint64_t owner)
{
	struct area area;

	area_map(&area, options->size, owner);
	area_fill(&area, true);
	group_join(GROUP);
	atomic_store(phase, FILLED);
	while (atomic_load(phase) != FREEING)
		sleep_milliseconds(WAIT_MILLISECONDS);
}

/* The CPU time of everything in the guest, but not of waiting or stolen. */
static long long all_microseconds(void)
{
	long long user, nice, system, idle, waiting, irq, softirq;
	FILE *file = fopen("/proc/stat", "re");
	int found = 0;

	if (file) {
		found = fscanf(file, "cpu %lld %lld %lld %lld %lld %lld %lld",
			       &user, &nice, &system, &idle, &waiting, &irq,
			       &softirq);
		fclose(file);
	}
	return found == 7 ? (user + nice + system + irq + softirq) *
				    TICK_MICROSECONDS
			  : 0;
}

struct times {
	long long own;
	long long all;
	long long elapsed;
};

/* Ticks and the group's time differ a little. */
static long long percent_outside(const struct times *times)
{
	return times->all > times->own && times->own > 0
		       ? 100 * (times->all - times->own) / times->all
		       : 0;
}

static long long percent_of_cpu(const struct times *times)
{
	long long used = times->all > times->own ? times->all : times->own;

	return times->elapsed > 0 ? 100 * used / times->elapsed : 0;
}

static void one_round(const struct options *options, bool is_limited,
		      struct times *times)
{
	long long own, all;
	uint64_t start;
	pid_t pid;

	group_make(GROUP, 0);
	if (is_limited && !group_set(GROUP, "cpu.max", CPU_MAX))
		die("cannot set cpu.max");
	atomic_store(phase, FILLING);
	pid = process_start(fill_and_end, options, 1);
	while (atomic_load(phase) != FILLED && !atomic_load(&shared->faults))
		sleep_milliseconds(WAIT_MILLISECONDS);
	own = group_field(GROUP, "cpu.stat", "usage_usec");
	all = all_microseconds();
	start = now_nanoseconds();
	atomic_store(phase, FREEING);
	process_wait(pid, BY_ITSELF);
	times->elapsed += (now_nanoseconds() - start) / 1000;
	times->own += group_field(GROUP, "cpu.stat", "usage_usec") - own;
	times->all += all_microseconds() - all;
	group_remove(GROUP, 0);
	atomic_fetch_add(&shared->rounds, 1);
}

static void run_billing(const struct options *options)
{
	struct times free = { 0 }, limited = { 0 };
	long rounds = 0;

	groups_mount("+memory");
	if (!groups_enable("+cpu")) {
		groups_unmount();
		skip("cgroup2 has no cpu controller here");
	}
	phase = shared_memory(PAGE_BYTES);
	for (; !time_is_up() || rounds < LEAST_ROUNDS; rounds++)
		one_round(options, rounds % 2, rounds % 2 ? &limited : &free);
	groups_unmount();
	note("%lld %% of the CPU time outside the cgroup, %lld %% with "
	     "cpu.max; "
	     "it used %lld %% of a CPU, %lld %% with a cpu.max of 50 %%",
	     percent_outside(&free), percent_outside(&limited),
	     percent_of_cpu(&free), percent_of_cpu(&limited));
}

const struct scenario scenario_billing = {
	"billing", "CPU time of freeing that is billed outside the cgroup",
	run_billing
};
