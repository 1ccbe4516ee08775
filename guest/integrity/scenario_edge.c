// SPDX-License-Identifier: GPL-2.0-only
/* A part of a mapping is freed: all of that part, and no page below or above.
 */
#include "integrity.h"

#include <errno.h>
#include <sys/mman.h>

/* More than a page table maps: the ends are anywhere in one. */
#define MOST_EDGE_PAGES 700
#define PROBES          64

static bool is_mapped(const struct area *area, size_t page)
{
	unsigned char resident;

	return !mincore(area->address + page * WORDS_PER_PAGE, PAGE_BYTES,
			&resident) ||
	       errno != ENOMEM;
}

static void check_unmapped(const struct area *area, size_t first, size_t pages,
			   uint64_t *random)
{
	for (int i = 0; i < PROBES; i++) {
		size_t page = first + random_below(random, pages);

		if (i < 2)
			page = i ? first : first + pages - 1;
		if (is_mapped(area, page))
			fault("page %zu of %zu is still mapped", page - first,
			      pages);
	}
}

static void check_zero(const struct area *area, size_t first, size_t pages)
{
	struct area part = *area;

	part.address += first * WORDS_PER_PAGE;
	part.pages = pages;
	area_check_zero(&part);
}

static void one_round(struct area *area, const struct options *options,
		      uint64_t owner, uint64_t *random)
{
	size_t below = 1 + random_below(random, MOST_EDGE_PAGES);
	size_t above = 1 + random_below(random, MOST_EDGE_PAGES);
	size_t pages = options->size / PAGE_BYTES;
	uint64_t *start, generation = area->generation;

	area_map(area, (below + pages + above) * PAGE_BYTES, owner);
	area->generation = generation;
	area_fill(area, true);
	start = area->address + below * WORDS_PER_PAGE;
	/* The pages below and above in the same VMA, or in others. */
	if (random_below(random, 2)) {
		mprotect(area->address, below * PAGE_BYTES, PROT_READ);
		mprotect(start + pages * WORDS_PER_PAGE, above * PAGE_BYTES,
			 PROT_READ);
	}
	if (generation % 4 == 3) {
		madvise(start, pages * PAGE_BYTES, MADV_DONTNEED);
		check_zero(area, below, pages);
	} else {
		munmap(start, pages * PAGE_BYTES);
		check_unmapped(area, below, pages, random);
	}
	area_check(area, 0, below);
	area_check(area, below + pages, above);
	area_unmap(area);
}

static void free_parts(const struct options *options, uint64_t owner)
{
	uint64_t random = options->seed + owner;
	struct area area = { 0 };

	while (!time_is_up()) {
		one_round(&area, options, owner, &random);
		atomic_fetch_add(&shared->rounds, 1);
	}
}

static void run_edge(const struct options *options)
{
	neighbours_start(options);
	processes_run(free_parts, options);
	neighbours_end();
}

const struct scenario scenario_edge = {
	"edge", "pages below and above an unmapped range keep their content",
	run_edge
};
