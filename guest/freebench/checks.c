// SPDX-License-Identifier: GPL-2.0-only
/* Check that the memory is as requested. Nothing here is timed. */
#define _GNU_SOURCE
#include "freebench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_NANOSECONDS 100000000L
#define MOST_PAUSES       100

/* Pages that may be on other nodes: 1 %, and one for a partial last page */
static uint64_t tolerance(uint64_t pages)
{
	return pages / 100 + 1;
}

/* Bytes of the region that fit on the requested nodes. */
static uint64_t room_for(const struct options *options, int nodes)
{
	uint64_t per_node[MOST_NODES], least = UINT64_MAX;
	uint64_t usable = memory_nodes();

	read_free_bytes(per_node, nodes);
	if (options->placement == PLACE_NODE)
		return per_node[options->node];
	if (options->placement != PLACE_INTERLEAVE)
		return sum(per_node, nodes);
	for (int node = 0; node < nodes; node++)
		if (usable >> node & 1 && per_node[node] < least)
			least = per_node[node];
	return least * __builtin_popcountll(usable);
}

/*
 * Shrink the per-CPU lists of free pages a little, and those of other nodes
 * after a few times. Since Linux 6.7 such a list may hold an eighth of a zone,
 * and nothing shrinks it while its CPU is idle. Only root can.
 */
static void shrink_lists(void)
{
	char unused;
	int fd = open("/proc/sys/vm/stat_refresh", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while (read(fd, &unused, sizeof(unused)) < 0 && errno == EINTR)
		;
	close(fd);
}

/* Recently freed pages may be on per-CPU lists. */
void check_room(const struct options *options)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NANOSECONDS };
	int nodes = node_count();
	uint64_t room, wanted = options->size;

	if (options->placement == PLACE_NODE &&
	    !(memory_nodes() >> options->node & 1))
		die(SKIPPED, "--placement: no node %d with memory",
		    options->node);
	/* Page tables, and the kernel's own reserves. */
	for (int pauses = 0; pauses <= MOST_PAUSES; pauses++) {
		room = room_for(options, nodes);
		if (wanted + wanted / 64 <= room)
			return;
		shrink_lists();
		nanosleep(&pause, NULL);
	}
	die(SKIPPED,
	    "--size: %" PRIu64 " bytes are needed, but %" PRIu64
	    " are free after %ld seconds",
	    wanted, room, MOST_PAUSES * PAUSE_NANOSECONDS / 1000000000L);
}

/*
 * Count the region's pages on each node. numa_maps has only the start address
 * of a mapping; the region's own policy keeps it from being merged.
 */
static uint64_t count_pages(const struct region *region, struct result *result)
{
	FILE *maps = fopen("/proc/self/numa_maps", "re");
	uintptr_t from = (uintptr_t)region->address;
	uint64_t page_bytes = getpagesize();
	char line[4096];

	if (!maps)
		return 0;
	while (fgets(line, sizeof(line), maps)) {
		uintptr_t start = strtoull(line, NULL, 16);

		if (start < from || start >= from + region->bytes)
			continue;
		for (char *at = strstr(line, " N"); at;
		     at = strstr(at + 1, " N")) {
			uint64_t pages;
			int node;

			if (sscanf(at, " N%d=%" SCNu64, &node, &pages) == 2 &&
			    node < MOST_NODES)
				result->pages_per_node[node] += pages;
		}
	}
	fclose(maps);
	/* The kernel counts base pages here, also for huge pages. */
	return sum(result->pages_per_node, MOST_NODES) * page_bytes;
}

/* For a kernel without numa_maps. */
static uint64_t count_resident(const struct region *region,
			       struct result *result)
{
	size_t pages = region->bytes / getpagesize();
	unsigned char *seen = malloc(pages);

	if (!seen || mincore(region->address, region->bytes, seen))
		die(FAILED, "mincore failed: %s", strerror(errno));
	for (size_t i = 0; i < pages; i++)
		result->pages_per_node[0] += seen[i] & 1;
	free(seen);
	return result->pages_per_node[0] * getpagesize();
}

static uint64_t count_huge_bytes(const struct region *region)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	uintptr_t start, end, from = (uintptr_t)region->address;
	uint64_t kilobytes, total = 0;
	bool ours = false;
	char line[4096];

	if (!maps)
		die(SKIPPED, "--thp: no /proc/self/smaps to check it");
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) ==
		    2)
			ours = start < from + region->bytes && end > from;
		else if (ours && sscanf(line, "AnonHugePages: %" SCNu64,
					&kilobytes) == 1)
			total += kilobytes * 1024;
	}
	fclose(maps);
	return total;
}

static bool system_forbids_huge_pages(void)
{
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
	char line[128] = "[never]";

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		fclose(file);
	}
	return strstr(line, "[never]") != NULL;
}

static void check_huge_pages(const struct options *options,
			     const struct result *result)
{
	bool forbidden =
		options->thp == THP_NEVER ||
		(options->thp == THP_AS_IS && system_forbids_huge_pages());

	if (forbidden && result->huge_bytes)
		die(FAILED, "--thp: %" PRIu64 " bytes are in huge pages",
		    result->huge_bytes);
	if (options->thp == THP_ALWAYS &&
	    result->huge_bytes < options->size / 2)
		die(FAILED, "--thp: only %" PRIu64 " bytes are in huge pages",
		    result->huge_bytes);
}

/*
 * The requested number of the region's pages on each node. Return the number of
 * pages that may be on any node: those of threads on nodes without memory,
 * which the kernel places on a near node.
 */
static uint64_t expect_pages(const struct options *options, uint64_t pages,
			     int nodes, uint64_t *expected)
{
	uint64_t usable = memory_nodes(), anywhere = 0;

	switch (options->placement) {
	case PLACE_INTERLEAVE:
		for (int node = 0; node < nodes; node++)
			if (usable >> node & 1)
				expected[node] =
					pages / __builtin_popcountll(usable);
		break;
	case PLACE_NODE:
		expected[options->node] = pages;
		break;
	case PLACE_LOCAL:
		for (int i = 0; i < options->threads; i++) {
			int node = node_of_cpu(cpu_of_thread(options, i));
			uint64_t share = pages * (i + 1) / options->threads -
					 pages * i / options->threads;

			if (usable >> node & 1)
				expected[node] += share;
			else
				anywhere += share;
		}
		break;
	}
	return anywhere;
}

static void check_nodes(const struct options *options,
			const struct result *result, uint64_t pages)
{
	uint64_t expected[MOST_NODES] = { 0 };
	uint64_t anywhere =
		expect_pages(options, pages, result->nodes, expected);

	for (int node = 0; node < result->nodes; node++) {
		uint64_t found = result->pages_per_node[node];
		uint64_t wrong = expected[node] - found;

		if (found > expected[node]) {
			wrong = found - expected[node];
			wrong -= wrong < anywhere ? wrong : anywhere;
		}
		if (wrong > tolerance(pages) + 512 * !!result->huge_bytes)
			die(FAILED,
			    "--placement: node %d has %" PRIu64
			    " pages, expected %" PRIu64,
			    node, found, expected[node]);
	}
}

void check_region(const struct region *region, const struct options *options,
		  struct result *result)
{
	uint64_t populated;

	result->nodes = node_count();
	populated = count_pages(region, result);
	if (!populated && result->nodes == 1)
		populated = count_resident(region, result);
	if (populated != region->bytes)
		die(FAILED, "%" PRIu64 " bytes are populated, expected %zu",
		    populated, region->bytes);
	result->huge_bytes = count_huge_bytes(region);
	check_huge_pages(options, result);
	check_nodes(options, result, region->bytes / getpagesize());
}
