// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much memory is unmapped but not yet free when workers get little CPU
 * time?
 *
 * A kernel without a limit on pages left to workers then accumulates them. A
 * kernel should leave none to them while the cgroup of the process is short of
 * memory: others in it wait for these very pages.
 */
#include "integrity.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define GIVING_SECONDS 240 /* with KASAN, on a busy host */
/* Each sample is expensive in a debug kernel under TCG. */
#define LOOK_MILLISECONDS 5
/*
 * With little memory.high. A thread collects 39 MiB before it frees any, on
 * every kernel, and its helpers may collect as much together.
 */
#define GROUP       1
#define TIGHT_HIGH  "16777216"
#define TIGHT_BYTES (96UL << 20)

static bool is_tight;     /* the cgroup has more memory than its memory.high */
static size_t limit;      /* what may be unmapped but not free, in bytes */
static atomic_int *phase; /* of the process that frees */
enum {
	FILLING,
	READY,
	GIVING_BACK,
	DONE
};

static void give_back(const struct options *options, uint64_t owner)
{
	struct area area;

	/* A kernel may have no workers help a process that is bound to CPUs. */
	unpin();
	if (is_tight)
		group_join(GROUP);
	area_map(&area, options->size, owner);
	area_fill(&area, true);
	/* Only now: whoever is above it must wait when it takes memory. */
	if (is_tight && !group_set(GROUP, "memory.high", TIGHT_HIGH))
		die("cannot set memory.high");
	atomic_store(phase, READY);
	wait_for_phase(phase, GIVING_BACK);
	if (atomic_load(&shared->rounds) % 2 == 0)
		area_unmap(&area);
	else
		madvise(area.address, options->size, MADV_DONTNEED);
	atomic_store(phase, DONE);
	wait_for_phase(phase, FILLING);
}

/* Pages on per-CPU lists are free, but MemFree does not count them. */
static long long listed_bytes(void)
{
	FILE *file = fopen("/proc/zoneinfo", "re");
	long long pages = 0, count;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " count: %lld", &count) == 1)
			pages += count;
	if (file)
		fclose(file);
	return pages * (long long)PAGE_BYTES;
}

static long long free_bytes(void)
{
	struct sysinfo info;

	sysinfo(&info);
	return (long long)info.freeram * info.mem_unit;
}

/* Return the maximum that was neither mapped nor free, in bytes. */
static long long watch(pid_t pid)
{
	long long listed_before = listed_bytes();
	long long before = process_resident_bytes(pid) + free_bytes();
	long long most = 0;
	uint64_t deadline = now_nanoseconds() + GIVING_SECONDS * 1000000000ULL;

	atomic_store(phase, GIVING_BACK);
	while (atomic_load(phase) == GIVING_BACK &&
	       now_nanoseconds() < deadline) {
		/*
		 * Resident memory first: it only shrinks, so that pages freed
		 * in between make the result smaller, never larger.
		 */
		long long resident = process_resident_bytes(pid);
		long long held = before - resident - free_bytes();

		/*
		 * Read the per-CPU lists only if the result exceeds the limit
		 * without them, as that takes the lock of each zone. Read them
		 * between the two, as pages move in that order.
		 */
		if (resident >= 0 && held > (long long)limit) {
			long long listed;

			resident = process_resident_bytes(pid);
			listed = listed_bytes() - listed_before;
			held = before - resident - listed - free_bytes();
		}
		if (resident >= 0 && held > most)
			most = held;
		sleep_milliseconds(LOOK_MILLISECONDS);
	}
	return most;
}

static void one_round(const struct options *options)
{
	long long most;
	pid_t pid;

	atomic_store(phase, FILLING);
	if (is_tight)
		group_make(GROUP, 0);
	pid = process_start(give_back, options, 1);
	wait_for_phase(phase, READY);
	slow_workers_set(true);
	most = watch(pid);
	if (most > atomic_load(&shared->most_held_back))
		atomic_store(&shared->most_held_back, most);
	if (most > (long long)limit)
		fault("%lld MiB were unmapped but not free, limit %zu "
		      "MiB",
		      most >> 20, limit >> 20);
	slow_workers_set(false);
	atomic_store(phase, FILLING);
	process_wait(pid, BY_ITSELF);
	if (is_tight)
		group_remove(GROUP, 0);
	atomic_fetch_add(&shared->rounds, 1);
}

static void run_rounds(const struct options *options)
{
	phase = shared_memory(PAGE_BYTES);
	slow_workers_start(options);
	while (!time_is_up())
		one_round(options);
	slow_workers_end();
}

static void run_backlog(const struct options *options)
{
	limit = options->held_back;
	run_rounds(options);
}

const struct scenario scenario_backlog = {
	"backlog", "memory that is unmapped but not free is bounded",
	run_backlog
};

static void run_tight(const struct options *options)
{
	is_tight = true;
	limit = TIGHT_BYTES;
	groups_mount("+memory");
	run_rounds(options);
	groups_unmount();
}

const struct scenario scenario_tight = {
	"tight", "the same in a cgroup that is short of memory: a few lists",
	run_tight
};
