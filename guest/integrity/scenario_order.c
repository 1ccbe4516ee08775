// SPDX-License-Identifier: GPL-2.0-only
/*
 * In what order are the lists freed that a process leaves to a worker?
 *
 * A worker should begin with the oldest one, and a process that waits should
 * take back the youngest one, so that the two meet last. The order is that in
 * which marked pages become free, one in each list. A page whose memory was
 * unmapped before that of another one, and which is free after it, waited for
 * a worker. Needs one worker and short lists.
 */
#include "integrity.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define LIST_PAGES_FILE "/sys/kernel/debug/parallel_free/batch_pages"
#define WORKERS_FILE    "/sys/kernel/debug/parallel_free/max_active"
/*
 * A list with one batch: the first 8 pages are in struct mmu_gather and are not
 * left to a worker, so the mark is in the middle.
 */
#define LIST_PAGES 518
#define MOST_MARKS 256
#define PFN_BITS   ((1ULL << 55) - 1)
/* KPF_LRU, KPF_ANON and KPF_SWAPBACKED: of a page that is not free yet */
#define IN_USE_BITS    (1ULL << 5 | 1ULL << 12 | 1ULL << 14)
#define GIVING_SECONDS 60
/* The program itself, and what counters of the kernel may be wrong by. */
#define FEW_BYTES (4LL << 20)
/* Pairs of lists whose order was seen, in all rounds. */
#define ENOUGH_PAIRS 10

enum {
	FILLING,
	READY,
	GIVING_BACK,
	DONE,
};

/* One page of each list, by address. */
struct marks {
	atomic_int phase; /* of the process that frees */
	size_t count;
	uint64_t pfn[MOST_MARKS];
	long look[MOST_MARKS]; /* the first one that saw it free; 0: none */
	long unmapped; /* the first one that saw nearly nothing mapped */
};

static struct marks *marks;
static long right, wrong; /* pairs of lists, by the order of taking them back */
static long worker_right, worker_wrong; /* and by that of the worker */

static void mark_pages(const struct area *area)
{
	int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	marks->count = area->pages / LIST_PAGES;
	if (file < 0 || marks->count > MOST_MARKS)
		die("cannot mark %zu pages", marks->count);
	for (size_t i = 0; i < marks->count; i++) {
		size_t page = i * LIST_PAGES + LIST_PAGES / 2;
		uint64_t address = (uintptr_t)area->address + page * PAGE_BYTES;

		if (pread(file, &marks->pfn[i], 8, address / PAGE_BYTES * 8) !=
		    8)
			die("cannot read where a page is");
		marks->pfn[i] &= PFN_BITS;
		marks->look[i] = 0;
	}
	close(file);
}

static void give_back(const struct options *options, uint64_t owner)
{
	struct area area;

	unpin();
	area_map(&area, options->size, owner);
	area_fill(&area, true);
	mark_pages(&area);
	atomic_store(&marks->phase, READY);
	wait_for_phase(&marks->phase, GIVING_BACK);
	area_unmap(&area);
	atomic_store(&marks->phase, DONE);
}

/*
 * The youngest page first: pages that one after the other becomes free are then
 * never seen in reverse.
 */
static void look_at_all(int file, long number)
{
	uint64_t flags;

	for (size_t i = marks->count; i-- > 0;)
		if (!marks->look[i] &&
		    pread(file, &flags, 8, marks->pfn[i] * 8) == 8 &&
		    !(flags & IN_USE_BITS))
			marks->look[i] = number;
}

static void watch(pid_t pid)
{
	uint64_t deadline = now_nanoseconds() + GIVING_SECONDS * 1000000000ULL;
	int file = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	long number = 1;

	if (file < 0)
		die("cannot open /proc/kpageflags");
	marks->unmapped = 0;
	atomic_store(&marks->phase, GIVING_BACK);
	for (; atomic_load(&marks->phase) == GIVING_BACK &&
	       now_nanoseconds() < deadline;
	     number++) {
		look_at_all(file, number);
		if (!marks->unmapped && process_resident_bytes(pid) < FEW_BYTES)
			marks->unmapped = number;
	}
	look_at_all(file, number);
	close(file);
}

/*
 * When all is unmapped, the process takes lists back. What is free by then and
 * belongs to the first third, when enough may wait, was freed by the worker.
 */
static void count_pair(size_t older, size_t younger, bool slow)
{
	long first = marks->look[older], second = marks->look[younger];

	if (!first || !second || first == second)
		return;
	if (first > marks->unmapped && second > marks->unmapped && slow)
		*(second < first ? &right : &wrong) += 1;
	else if (younger < marks->count / 3 && second <= marks->unmapped)
		*(first < second ? &worker_right : &worker_wrong) += 1;
}

static void count_pairs(bool slow)
{
	for (size_t older = 0; older < marks->count; older++)
		for (size_t i = older + 1; i < marks->count; i++)
			count_pair(older, i, slow);
}

static void one_round(const struct options *options, bool slow)
{
	pid_t pid;

	atomic_store(&marks->phase, FILLING);
	pid = process_start(give_back, options, 1);
	wait_for_phase(&marks->phase, READY);
	if (slow)
		slow_workers_set(true);
	watch(pid);
	slow_workers_set(false);
	process_wait(pid, BY_ITSELF);
	if (marks->unmapped)
		count_pairs(slow);
	atomic_fetch_add(&shared->rounds, 1);
}

static void judge(void)
{
	note("pairs of lists in order: %ld of %ld taken back, %ld of %ld freed",
	     right, right + wrong, worker_right, worker_right + worker_wrong);
	if (right + wrong < ENOUGH_PAIRS ||
	    worker_right + worker_wrong < ENOUGH_PAIRS)
		skip("too few lists were left to a worker: %ld and %ld pairs",
		     right + wrong, worker_right + worker_wrong);
	/* The worker takes its part of them meanwhile. */
	if (wrong > right)
		fault("lists were taken back oldest first: %ld of %ld pairs",
		      wrong, right + wrong);
	if (worker_wrong > worker_right / 10)
		fault("a worker freed a younger list first: %ld of %ld pairs",
		      worker_wrong, worker_right + worker_wrong);
}

static void run_order(const struct options *options)
{
	if (file_number(LIST_PAGES_FILE) < 0)
		skip("this kernel leaves no lists to workers");
	if (file_number(LIST_PAGES_FILE) > LIST_PAGES ||
	    file_number(WORKERS_FILE) != 1)
		skip("needs short lists and one worker");
	marks = shared_memory(sizeof(*marks));
	slow_workers_start(options);
	for (bool slow = true; !time_is_up(); slow = !slow)
		one_round(options, slow);
	slow_workers_end();
	judge();
}

const struct scenario scenario_order = {
	"order", "workers free the oldest list first, who waits the youngest",
	run_order
};
