// SPDX-License-Identifier: GPL-2.0-only
/* malloc() and free(), the way most programs free large memory. */
#include "freebench.h"

#include <stdlib.h>
#include <unistd.h>

static void allocate(struct region *region, size_t size)
{
	uintptr_t page = getpagesize();
	uintptr_t from, to;

	region->handle = malloc(size);
	if (!region->handle)
		die(FAILED, "malloc of %zu bytes failed", size);
	/*
	 * malloc uses a separate mapping for this size, with its header in the
	 * first page; the region is all pages that the caller's bytes touch.
	 */
	from = (uintptr_t)region->handle & ~(page - 1);
	to = ((uintptr_t)region->handle + size + page - 1) & ~(page - 1);
	region->address = (char *)from;
	region->bytes = to - from;
}

static void release(struct region *region)
{
	free(region->handle);
}

const struct operation op_free = {
	.name = "free",
	.help = "free() of one malloc()",
	.allocate = allocate,
	.release = release,
};
