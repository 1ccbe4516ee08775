// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process frees nearly all memory that its cgroup or node may have, while
 * another one touches memory.
 *
 * Freed pages must be there in time: a kernel that holds them back kills one of
 * the two.
 */
#include "integrity.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WHOLE_BYTES        (900UL << 20)
#define GROUP              1
#define WAIT_MILLISECONDS  5
#define START_MILLISECONDS 30
/*
 * At least, once a process was killed: one that gets no CPU for a while may
 * free too late on any kernel: only the share of such trials counts.
 */
#define TRIALS_AFTER_KILL 24
/*
 * Left on the node, beside its watermarks and what the list of the CPU that
 * frees may keep: since Linux 6.7 an eighth of a zone.
 */
#define NODE_MARGIN_BYTES (48LL << 20)
#define LIST_DIVISOR      8
#define SHRINK_ROUNDS     40

/* What a trial needs, in the proportions of 900, 400 and 920 MiB. */
struct trial {
	size_t freed;
	size_t touched;
	size_t limit;
	int node;       /* -1: any */
	long long free; /* on the node, before */
	bool pinned; /* each process to a CPU: a series then has no workers */
};

static struct trial trial;
static atomic_int *phase;
enum {
	FILLING,
	FILLED,
	FREEING
};

static void touch(volatile char *memory, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += PAGE_BYTES)
		memory[i] = 1;
}

static void join(void)
{
	group_join(GROUP);
	file_write("/proc/self/oom_score_adj", "1000");
}

static void touch_when_freeing(const struct options *options, uint64_t owner)
{
	volatile char *memory;

	(void)options;
	(void)owner;
	join();
	if (trial.pinned)
		pin_to_cpu(1);
	memory = private_memory(trial.touched);
	while (atomic_load(phase) == FILLING)
		sleep_milliseconds(WAIT_MILLISECONDS);
	/* A sleeping process would begin too late. */
	while (atomic_load_explicit(phase, memory_order_relaxed) != FREEING)
		;
	touch(memory, trial.touched);
}

static void fill_and_free(const struct options *options, uint64_t owner)
{
	volatile char *memory;

	(void)options;
	(void)owner;
	join();
	if (trial.pinned)
		pin_to_cpu(0);
	memory = private_memory(trial.freed);
	touch(memory, trial.freed);
	atomic_store(phase, FILLED);
	sleep_milliseconds(START_MILLISECONDS);
	atomic_store(phase, FREEING);
	munmap((void *)memory, trial.freed);
}

static long long kills(void)
{
	return trial.node < 0 ? group_oom_kills(GROUP)
			      : file_field("/proc/vmstat", "oom_kill");
}

static long long on_node(int node, const char *what)
{
	char path[64], field[32];
	long long kib;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo",
		 node);
	snprintf(field, sizeof(field), "Node %d %s", node, what);
	kib = file_field(path, field);
	return kib < 0 ? -1 : kib << 10;
}

/* Nothing shrinks the list of an idle CPU but this, which takes some rounds. */
static void take_back_lists(void)
{
	char unused[8];

	for (int i = 0; i < SHRINK_ROUNDS; i++) {
		if (on_node(trial.node, "MemFree") >=
		    trial.free - NODE_MARGIN_BYTES / 4)
			return;
		file_read("/proc/sys/vm/stat_refresh", unused, sizeof(unused));
		sleep_milliseconds(WAIT_MILLISECONDS);
	}
}

static long one_trial(const struct options *options)
{
	pid_t toucher, freer;
	long long before;
	char node[16];

	if (trial.node >= 0)
		take_back_lists();
	group_make(GROUP, trial.limit);
	snprintf(node, sizeof(node), "%d", trial.node);
	if (trial.node >= 0 && !group_set(GROUP, "cpuset.mems", node))
		die("cannot set cpuset.mems");
	before = kills();
	atomic_store(phase, FILLING);
	toucher = process_start(touch_when_freeing, options, 1);
	freer = process_start(fill_and_free, options, 2);
	process_wait(freer, EITHER);
	/* It may have been killed before it let the other one begin. */
	atomic_store(phase, FREEING);
	process_wait(toucher, EITHER);
	before = kills() - before;
	group_remove(GROUP, trial.limit);
	return before;
}

static long trials_wanted(const struct options *options, bool has_killed)
{
	if (!has_killed || options->trials > TRIALS_AFTER_KILL)
		return options->trials;
	return TRIALS_AFTER_KILL;
}

static void run_trials(const struct options *options)
{
	long trials = 0, killed = 0;

	phase = shared_memory(PAGE_BYTES);
	while (!time_is_up() || trials < trials_wanted(options, killed > 0)) {
		long found = one_trial(options);

		trials = atomic_fetch_add(&shared->trials, 1) + 1;
		killed += found > 0;
		atomic_fetch_add(&shared->rounds, 1);
		atomic_fetch_add(&shared->oom_kills, found);
		atomic_fetch_add(&shared->unexpected_kills, found > 0);
	}
	atomic_store(&shared->trials_with_kills, killed);
	if (killed)
		fault("a process was OOM-killed in %ld of %ld trials, while "
		      "%zu "
		      "MiB were freed",
		      killed, trials, trial.freed >> 20);
	note("no process killed in %ld trials", trials);
}

static void run_in_group(const struct options *options, size_t freed)
{
	groups_mount("+memory");
	trial.freed = freed;
	trial.touched = freed / 9 * 4;
	trial.limit = freed + freed / 45;
	trial.node = -1;
	run_trials(options);
	groups_unmount();
}

static void run_margin(const struct options *options)
{
	run_in_group(options, WHOLE_BYTES);
}

const struct scenario scenario_margin = {
	"margin", "920 MiB for a cgroup: 900 are freed while 400 are touched",
	run_margin
};

static void run_margin_half(const struct options *options)
{
	run_in_group(options, WHOLE_BYTES / 2);
}

const struct scenario scenario_margin_half = {
	"margin-half", "the same with 460, 450 and 200 MiB", run_margin_half
};

/* As in the report that showed the fault; what is freed needs no worker. */
static void run_margin_pinned(const struct options *options)
{
	if (cpu_count() < 2)
		skip("needs 2 CPUs");
	trial.pinned = true;
	run_in_group(options, WHOLE_BYTES);
}

const struct scenario scenario_margin_pinned = {
	"margin-pinned", "as margin, each process on a CPU of its own",
	run_margin_pinned
};

static void run_margin_node(const struct options *options)
{
	long long margin;

	trial.free = -1;
	groups_mount("+memory");
	if (!groups_enable("+cpuset")) {
		groups_unmount();
		skip("cgroup2 has no cpuset controller here");
	}
	for (int node = 0; node < 64; node++)
		if (on_node(node, "MemFree") > trial.free) {
			trial.node = node;
			trial.free = on_node(node, "MemFree");
		}
	margin = NODE_MARGIN_BYTES +
		 on_node(trial.node, "MemTotal") / LIST_DIVISOR;
	if (trial.free < 3 * margin) {
		groups_unmount();
		skip("needs a node with %lld MiB of free memory",
		     3 * margin >> 20);
	}
	trial.freed = trial.free - margin;
	trial.touched = trial.freed / 9 * 4;
	trial.limit = 0;
	run_trials(options);
	groups_unmount();
}

const struct scenario scenario_margin_node = {
	"margin-node", "a cpuset of one node, nearly all of it is freed",
	run_margin_node
};
