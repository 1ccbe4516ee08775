/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LABCTL_FREEBENCH_H
#define LABCTL_FREEBENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The exit statuses of kernel selftests, and 2 for wrong usage. */
enum {
	PASSED = 0,
	FAILED = 1,
	WRONG_USAGE = 2,
	SKIPPED = 4
};

#define MOST_NODES 64

enum placement {
	PLACE_LOCAL,
	PLACE_INTERLEAVE,
	PLACE_NODE
};

enum thp {
	THP_AS_IS,
	THP_NEVER,
	THP_ALWAYS
};

enum watch {
	WATCH_NOTHING,
	WATCH_FUNCTIONS,
	WATCH_LOCKS
};

struct options {
	const struct operation *operation;
	size_t size;
	int threads;
	enum placement placement;
	int node; /* for PLACE_NODE */
	enum thp thp;
	enum watch watch;
};

/* Memory under test, which is populated, checked and freed. */
struct region {
	char *address; /* page-aligned */
	size_t bytes;  /* whole pages */
	void *handle;  /* result of malloc, for op free */
};

struct vmstat {
	uint64_t pgfree;
	uint64_t pgfault;
	uint64_t pgalloc;
	uint64_t numa_hit;
	uint64_t numa_miss;
	uint64_t numa_foreign;
	uint64_t thp_fault_alloc;
};

/* The results of one repetition. */
struct result {
	uint64_t populate_nanoseconds;
	uint64_t began_nanoseconds; /* the operation, CLOCK_MONOTONIC */
	uint64_t ended_nanoseconds;
	uint64_t cpu_nanoseconds;
	uint64_t other_cpu_nanoseconds;
	bool came_back;
	uint64_t memory_back_nanoseconds;
	int nodes;
	uint64_t pages_per_node[MOST_NODES];
	uint64_t huge_bytes;
	uint64_t free_before;
	uint64_t free_right_after;
	uint64_t free_settled;
	struct vmstat vmstat_before;
	struct vmstat vmstat_after;
};

struct operation {
	const char *name;
	const char *help;
	/* Map the memory (without touching it); NULL for anonymous mmap. */
	void (*allocate)(struct region *region, size_t size);
	/* The timed operation; for exit it runs in the child that has the
	 * memory.
	 */
	void (*release)(struct region *region);
	/* Is the memory freed by the exit of a process? */
	bool by_exit;
};

extern const struct operation op_free;
extern const struct operation op_munmap;
extern const struct operation op_dontneed;
extern const struct operation op_exit;

/* End with `status` and a message. */
__attribute__((noreturn, format(printf, 2, 3))) void
die(int status, const char *format, ...);

/* options.c */
void options_parse(struct options *options, int argc, char **argv);
const struct operation *const *operations(void);

/* region.c */
void region_map(struct region *region, size_t size);
void region_place(const struct region *region, const struct options *options);
void region_populate(const struct region *region,
		     const struct options *options);
bool region_is_mapped(const struct region *region);
int allowed_cpus(void);
/* The CPU of a populating thread; threads are spread over all allowed CPUs. */
int cpu_of_thread(const struct options *options, int thread);

/* checks.c: fail unless the memory is as requested */
void check_room(const struct options *options);
void check_region(const struct region *region, const struct options *options,
		  struct result *result);

/* probes.c */
uint64_t clock_nanoseconds(int clock);
uint64_t memory_nodes(void); /* a bit for each node with memory */
int node_count(void);        /* the highest node with memory, plus one */
int node_of_cpu(int cpu);
void read_free_bytes(uint64_t *per_node, int nodes);
/* Free pages on per-CPU lists, which MemFree does not count. */
void add_listed_bytes(uint64_t *per_node, int nodes);
void read_vmstat(struct vmstat *vmstat);
uint64_t busy_nanoseconds(void); /* all CPUs, in ticks of 10 ms */
uint64_t sum(const uint64_t *values, int count);

/* watch.c */
void watch_prepare(enum watch watch);
void watch_begin(enum watch watch);
void watch_end(enum watch watch);
void watch_print(enum watch watch); /* as fields of the report */

/* measure.c */
void measure(const struct options *options, struct result *result);

/* report.c */
void report(const struct options *options, const struct result *result);

#endif
