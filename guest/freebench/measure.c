// SPDX-License-Identifier: GPL-2.0-only
/* Run one repetition. */
#define _GNU_SOURCE
#include "freebench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Stop waiting for memory after this time, or if none came back for that. */
#define BACK_NANOSECONDS  5000000000ULL
#define STILL_NANOSECONDS 1000000000ULL
#define LOOK_NANOSECONDS  1000000
/*
 * Memory is back when every node has 99 % of the region's memory there free
 * again. The kernel itself may take some memory meanwhile, hence a minimum
 * tolerance.
 */
#define LEAST_MISSING_BYTES (4ULL << 20)

/* Free memory of the nodes, without and with that on per-CPU lists. */
struct free_memory {
	uint64_t bytes[MOST_NODES];
	uint64_t with_lists[MOST_NODES];
};

/* Results of the child of op exit, on a page shared with its parent. */
struct news {
	struct result result;
	uint64_t cpu_before;
	uint64_t busy_before;
};

static void prepare(const struct options *options, struct region *region,
		    struct result *result)
{
	uint64_t began;

	options->operation->allocate(region, options->size);
	region_place(region, options);
	began = clock_nanoseconds(CLOCK_MONOTONIC);
	region_populate(region, options);
	result->populate_nanoseconds =
		clock_nanoseconds(CLOCK_MONOTONIC) - began;
	check_region(region, options, result);
	read_vmstat(&result->vmstat_before);
}

static bool are_back(const struct result *result, const uint64_t *before,
		     const uint64_t *now)
{
	for (int node = 0; node < result->nodes; node++) {
		uint64_t held = result->pages_per_node[node] * getpagesize();
		uint64_t missing = held / 100;

		if (missing < LEAST_MISSING_BYTES)
			missing = LEAST_MISSING_BYTES;
		if (now[node] + missing < before[node])
			return false;
	}
	return true;
}

static void read_with_lists(struct free_memory *memory, int nodes)
{
	memcpy(memory->with_lists, memory->bytes, sizeof(memory->bytes));
	add_listed_bytes(memory->with_lists, nodes);
}

/*
 * Reading the per-CPU lists takes the locks of all zones, which the threads
 * under test need: read them only if they can make the difference.
 */
static bool is_back(const struct result *result,
		    const struct free_memory *before, struct free_memory *now)
{
	if (are_back(result, before->with_lists, now->bytes))
		return true;
	read_with_lists(now, result->nodes);
	return are_back(result, before->with_lists, now->with_lists);
}

static void wait_for_memory(struct result *result,
			    const struct free_memory *before)
{
	const struct timespec pause = { .tv_nsec = LOOK_NANOSECONDS };
	uint64_t most = 0, moved_at = 0, elapsed;
	struct free_memory now;

	read_free_bytes(now.bytes, result->nodes);
	result->free_before = sum(before->bytes, result->nodes);
	result->free_right_after = sum(now.bytes, result->nodes);
	for (;;) {
		uint64_t total;

		result->came_back = is_back(result, before, &now);
		elapsed = clock_nanoseconds(CLOCK_MONOTONIC) -
			  result->began_nanoseconds;
		if (result->came_back || elapsed > BACK_NANOSECONDS)
			break;
		total = sum(now.with_lists, result->nodes);
		if (total > most) {
			most = total;
			moved_at = elapsed;
		}
		if (elapsed - moved_at > STILL_NANOSECONDS)
			break;
		nanosleep(&pause, NULL);
		read_free_bytes(now.bytes, result->nodes);
	}
	result->memory_back_nanoseconds = elapsed;
	result->free_settled = sum(now.bytes, result->nodes);
}

/* CPU time of all CPUs since `busy`, without that of this program. */
static uint64_t others_since(uint64_t busy, uint64_t own)
{
	uint64_t used = busy_nanoseconds() - busy;

	return used > own ? used - own : 0;
}

static void measure_here(const struct options *options, struct result *result,
			 const struct free_memory *free_before)
{
	struct region region;
	uint64_t cpu, own, busy;

	prepare(options, &region, result);
	watch_begin(options->watch);
	busy = busy_nanoseconds();
	own = clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
	cpu = clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
	result->began_nanoseconds = clock_nanoseconds(CLOCK_MONOTONIC);
	options->operation->release(&region);
	result->ended_nanoseconds = clock_nanoseconds(CLOCK_MONOTONIC);
	result->cpu_nanoseconds =
		clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
	watch_end(options->watch);
	wait_for_memory(result, free_before);
	own = clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own;
	result->other_cpu_nanoseconds = others_since(busy, own);
	if (region.handle && region_is_mapped(&region))
		die(FAILED, "free() did not unmap the memory");
}

static uint64_t cpu_of(const struct rusage *usage)
{
	return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) *
		       1000000000ULL +
	       (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1000ULL;
}

__attribute__((noreturn)) static void
be_the_child(const struct options *options, struct news *news)
{
	struct region region;

	prepare(options, &region, &news->result);
	watch_begin(options->watch);
	news->busy_before = busy_nanoseconds();
	news->cpu_before = clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
	news->result.began_nanoseconds = clock_nanoseconds(CLOCK_MONOTONIC);
	options->operation->release(&region);
	_exit(FAILED);
}

static void measure_child(const struct options *options, struct result *result,
			  const struct free_memory *free_before)
{
	struct news *news = mmap(NULL, sizeof(*news), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t ended, own;
	struct rusage usage;
	int status;
	pid_t child;

	if (news == MAP_FAILED)
		die(FAILED, "mmap failed: %s", strerror(errno));
	child = fork();
	if (child < 0)
		die(FAILED, "fork failed: %s", strerror(errno));
	if (child == 0)
		be_the_child(options, news);
	own = clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
	if (wait4(child, &status, 0, &usage) != child)
		die(FAILED, "wait4 failed: %s", strerror(errno));
	ended = clock_nanoseconds(CLOCK_MONOTONIC);
	watch_end(options->watch);
	if (WIFSIGNALED(status))
		die(FAILED, "the child died of signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		_exit(WEXITSTATUS(status)); /* it has printed the reason */
	*result = news->result;
	result->ended_nanoseconds = ended;
	result->cpu_nanoseconds = cpu_of(&usage) > news->cpu_before
					  ? cpu_of(&usage) - news->cpu_before
					  : 0;
	wait_for_memory(result, free_before);
	own = clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own;
	result->other_cpu_nanoseconds =
		others_since(news->busy_before, own + result->cpu_nanoseconds);
}

void measure(const struct options *options, struct result *result)
{
	struct free_memory free_before;

	watch_prepare(options->watch);
	read_free_bytes(free_before.bytes, node_count());
	read_with_lists(&free_before, node_count());
	if (options->operation->by_exit)
		measure_child(options, result, &free_before);
	else
		measure_here(options, result, &free_before);
	read_vmstat(&result->vmstat_after);
}
