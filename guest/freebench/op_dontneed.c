// SPDX-License-Identifier: GPL-2.0-only
/* madvise(MADV_DONTNEED) frees the pages, and keeps mapping and page tables. */
#include "freebench.h"

#include <sys/mman.h>

static void release(struct region *region)
{
	if (madvise(region->address, region->bytes, MADV_DONTNEED))
		die(FAILED, "madvise(MADV_DONTNEED) failed");
}

const struct operation op_dontneed = {
	.name = "dontneed",
	.help = "madvise(MADV_DONTNEED) of one anonymous mapping",
	.allocate = region_map,
	.release = release,
};
