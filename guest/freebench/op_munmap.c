// SPDX-License-Identifier: GPL-2.0-only
/* munmap() of one anonymous mapping. */
#include "freebench.h"

#include <sys/mman.h>

static void release(struct region *region)
{
	if (munmap(region->address, region->bytes))
		die(FAILED, "munmap failed");
}

const struct operation op_munmap = {
	.name = "munmap",
	.help = "munmap() of one anonymous mapping",
	.allocate = region_map,
	.release = release,
};
