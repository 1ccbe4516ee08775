// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lists of huge pages that are left to workers count with all their memory, not
 * as so many pages: the limits of what may be unmapped but not free would not
 * hold.
 */
#include "integrity.h"

#include <sys/mman.h>

#define HANDOVERS_FILE  "/sys/kernel/debug/parallel_free/handovers"
#define HANDED_FILE     "/sys/kernel/debug/parallel_free/pages_handed"
#define HUGE_PAGE_BYTES (2UL << 20)
/*
 * A list with one batch has at most 518 entries, and the last list of a process
 * may be short: 9 huge pages are 4608 pages.
 */
#define LEAST_LIST_PAGES 1024
/* Of three lists, as the first one is not handed over. */
#define LEAST_HUGE_PAGES 1100

static atomic_bool *are_few;

static void give_back(const struct options *options, uint64_t owner)
{
	char *memory = private_memory(options->size);

	(void)owner;
	unpin();
	madvise(memory, options->size, MADV_HUGEPAGE);
	for (size_t i = 0; i < options->size; i += HUGE_PAGE_BYTES)
		memory[i] = 1;
	if (file_field("/proc/self/smaps_rollup", "AnonHugePages") <
	    (long long)(LEAST_HUGE_PAGES * HUGE_PAGE_BYTES >> 10))
		atomic_store(are_few, true);
	munmap(memory, options->size);
}

static void run_huge(const struct options *options)
{
	long long lists = file_number(HANDOVERS_FILE);
	long long pages = file_number(HANDED_FILE);

	if (lists < 0 || pages < 0)
		skip("this kernel leaves no lists to workers");
	if (file_field("/proc/meminfo", "MemAvailable") <
	    (long long)(options->size >> 10) * 5 / 4)
		skip("needs %zu MiB of memory", options->size * 5 / 4 >> 20);
	are_few = shared_memory(PAGE_BYTES);
	while (!time_is_up()) {
		process_wait(process_start(give_back, options, 1), BY_ITSELF);
		atomic_fetch_add(&shared->rounds, 1);
	}
	if (atomic_load(are_few))
		skip("too few huge pages");
	lists = file_number(HANDOVERS_FILE) - lists;
	pages = file_number(HANDED_FILE) - pages;
	if (pages < lists * LEAST_LIST_PAGES)
		fault("%lld lists of huge pages counted as %lld pages", lists,
		      pages);
}

const struct scenario scenario_huge = {
	"huge",
	"huge pages that are left to workers count with all their pages",
	run_huge
};
