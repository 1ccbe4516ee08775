// SPDX-License-Identifier: GPL-2.0-only
/* Exit of a process: timed by its parent, from _exit() until it is reaped.
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
	.help = "exit of a child with an anonymous mapping",
	.allocate = region_map,
	.release = release,
	.by_exit = true,
};
