// SPDX-License-Identifier: GPL-2.0-only
/* The end of a process: timed by its parent, from _exit() until it is reaped.
 */
#include "freebench.h"

#include <unistd.h>

static void release(struct region *region)
{
	(void)region;
	_exit(PASSED);
}

const struct operation op_exit = {
	.name = "exit",
	.help = "the end of a child that has an anonymous mapping",
	.allocate = region_map,
	.release = release,
	.by_exit = true,
};
