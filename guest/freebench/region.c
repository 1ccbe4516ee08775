// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "freebench.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct slice {
	pthread_t thread;
	int cpu;
	char *from;
	size_t bytes;
	int error;
};

void region_map(struct region *region, size_t size)
{
	size_t page = getpagesize();

	region->bytes = (size + page - 1) / page * page;
	region->handle = NULL;
	region->address = mmap(NULL, region->bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region->address == MAP_FAILED)
		die(FAILED, "mmap of %zu bytes failed: %s", size,
		    strerror(errno));
}

bool region_is_mapped(const struct region *region)
{
	unsigned char seen;

	return !mincore(region->address, 1, &seen) ||
	       !mincore(region->address + region->bytes - 1 -
				(region->bytes - 1) % getpagesize(),
			1, &seen);
}

/*
 * Set a policy for the mapping, even for local placement: it keeps the kernel
 * from merging the mapping with others, so that its pages are counted alone.
 */
void region_place(const struct region *region, const struct options *options)
{
	unsigned long mask = 0;
	int mode = MPOL_LOCAL;
	int advice =
		options->thp == THP_NEVER ? MADV_NOHUGEPAGE : MADV_HUGEPAGE;

	if (options->placement == PLACE_INTERLEAVE) {
		mode = MPOL_INTERLEAVE;
		mask = memory_nodes();
	} else if (options->placement == PLACE_NODE) {
		mode = MPOL_BIND;
		mask = 1UL << options->node;
	}
	if (syscall(SYS_mbind, region->address, region->bytes, mode,
		    mask ? &mask : NULL, mask ? MOST_NODES + 1 : 0, 0)) {
		/* A kernel without NUMA has one node only. */
		if (errno != ENOSYS || options->placement != PLACE_LOCAL)
			die(errno == ENOSYS || errno == EINVAL ? SKIPPED
							       : FAILED,
			    "--placement: not supported by the kernel: %s",
			    strerror(errno));
	}
	if (options->thp != THP_AS_IS &&
	    madvise(region->address, region->bytes, advice) &&
	    (options->thp == THP_ALWAYS || errno != EINVAL))
		die(SKIPPED, "--thp: not supported by the kernel: %s",
		    strerror(errno));
}

int allowed_cpus(void)
{
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return 1;
	return CPU_COUNT(&allowed);
}

int cpu_of_thread(const struct options *options, int thread)
{
	int count = allowed_cpus(), wanted;
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return 0;
	wanted = options->threads < count ? thread * count / options->threads
					  : thread % count;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && wanted-- == 0)
			return cpu;
	return 0;
}

static void *populate(void *argument)
{
	struct slice *slice = argument;
	cpu_set_t own;

	CPU_ZERO(&own);
	CPU_SET(slice->cpu, &own);
	if (pthread_setaffinity_np(pthread_self(), sizeof(own), &own)) {
		slice->error = EINVAL;
		return NULL;
	}
	if (!madvise(slice->from, slice->bytes, MADV_POPULATE_WRITE))
		return NULL;
	if (errno != EINVAL) {
		slice->error = errno;
		return NULL;
	}
	for (size_t at = 0; at < slice->bytes; at += getpagesize())
		*(volatile char *)(slice->from + at) = 0;
	return NULL;
}

void region_populate(const struct region *region, const struct options *options)
{
	size_t page = getpagesize(), pages = region->bytes / page, begun = 0;
	struct slice *slices = calloc(options->threads, sizeof(*slices));

	if (!slices)
		die(FAILED, "out of memory for threads");
	for (int i = 0; i < options->threads; i++) {
		size_t end = pages * (i + 1) / options->threads;

		slices[i].cpu = cpu_of_thread(options, i);
		slices[i].from = region->address + begun * page;
		slices[i].bytes = (end - begun) * page;
		begun = end;
		if (pthread_create(&slices[i].thread, NULL, populate,
				   &slices[i]))
			die(FAILED, "--threads: cannot start thread %d", i);
	}
	for (int i = 0; i < options->threads; i++) {
		pthread_join(slices[i].thread, NULL);
		if (slices[i].error)
			die(FAILED, "populating failed: %s",
			    strerror(slices[i].error));
	}
	free(slices);
}
