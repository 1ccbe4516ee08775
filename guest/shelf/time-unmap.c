// SPDX-License-Identifier: GPL-2.0-only
/*
 * time-unmap: how long does one munmap() of most of the memory take?
 *
 * One anonymous mapping of 80 % of the memory is touched by as many threads as
 * there are CPUs, each in its own part; then it is unmapped by one munmap().
 * This is the measurement of mmtests' workload of this name; the program was
 * written for labctl.
 */
#include "common.h"
#include "memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	struct options options = memory_options(
		argc, argv, "time-unmap: time of one munmap of touched memory");
	char *address = map_anonymous(options.size);
	uint64_t mapped, began, ended;

	mapped = nanoseconds();
	populate(address, options.size, options.threads);
	began = nanoseconds();
	if (munmap(address, options.size))
		die(FAILED, "munmap: %s", strerror(errno));
	ended = nanoseconds();
	return memory_report(&options, began - mapped, ended - began);
}
