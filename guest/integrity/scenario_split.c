// SPDX-License-Identifier: GPL-2.0-only
/*
 * Huge pages are freed that are mapped page by page, since one page of each was
 * freed before. The kernel then frees many pages with one entry of a list.
 */
#include "integrity.h"

#include <sys/mman.h>

#define PAGES_PER_HUGE_PAGE 512

static void free_one_of_each(const struct area *area, uint64_t *random)
{
	for (size_t first = 0; first < area->pages;
	     first += PAGES_PER_HUGE_PAGE) {
		size_t left = area->pages - first;
		size_t pages =
			left < PAGES_PER_HUGE_PAGE ? left : PAGES_PER_HUGE_PAGE;
		size_t hole = first + random_below(random, pages);
		struct area one = *area;

		one.address += hole * WORDS_PER_PAGE;
		one.pages = 1;
		madvise(one.address, PAGE_BYTES, MADV_DONTNEED);
		area_check_zero(&one);
		area_check(area, first, hole - first);
		area_check(area, hole + 1, first + pages - hole - 1);
	}
}

static void free_in_two_steps(const struct options *options, uint64_t owner)
{
	uint64_t random = options->seed + owner;
	struct area area = { 0 };

	while (!time_is_up()) {
		uint64_t generation = area.generation;

		area_map(&area, options->size, owner);
		area.generation = generation;
		madvise(area.address, options->size, MADV_HUGEPAGE);
		area_fill(&area, true);
		free_one_of_each(&area, &random);
		area_unmap(&area);
		atomic_fetch_add(&shared->rounds, 1);
	}
}

static void run_split(const struct options *options)
{
	neighbours_start(options);
	processes_run(free_in_two_steps, options);
	neighbours_end();
}

const struct scenario scenario_split = {
	"split", "huge pages of which one page each was freed before", run_split
};
