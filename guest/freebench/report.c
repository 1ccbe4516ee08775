// SPDX-License-Identifier: GPL-2.0-only
/* Print one repetition as one line of JSON. */
#include "freebench.h"

#include <inttypes.h>
#include <stdio.h>

static const char *placement_name(const struct options *options)
{
	static char name[32];

	if (options->placement == PLACE_LOCAL)
		return "local";
	if (options->placement == PLACE_INTERLEAVE)
		return "interleave";
	snprintf(name, sizeof(name), "node:%d", options->node);
	return name;
}

static const char *thp_name(enum thp thp)
{
	static const char *const names[] = { [THP_AS_IS] = "as-is",
					     [THP_NEVER] = "never",
					     [THP_ALWAYS] = "always" };

	return names[thp];
}

static void print_number(const char *name, uint64_t value)
{
	printf("\"%s\": %" PRIu64 ", ", name, value);
}

static void print_vmstat(const struct vmstat *before,
			 const struct vmstat *after)
{
#define DELTA(field) (int64_t)(after->field - before->field)
	printf("\"vmstat\": {\"pgfree\": %" PRId64 ", \"pgfault\": %" PRId64
	       ", \"pgalloc\": %" PRId64 ", \"numa_hit\": %" PRId64
	       ", \"numa_miss\": %" PRId64 ", \"numa_foreign\": %" PRId64
	       ", \"thp_fault_alloc\": %" PRId64 "}, ",
	       DELTA(pgfree), DELTA(pgfault), DELTA(pgalloc), DELTA(numa_hit),
	       DELTA(numa_miss), DELTA(numa_foreign), DELTA(thp_fault_alloc));
#undef DELTA
}

void report(const struct options *options, const struct result *result)
{
	printf("{\"op\": \"%s\", \"placement\": \"%s\", \"thp\": \"%s\", ",
	       options->operation->name, placement_name(options),
	       thp_name(options->thp));
	print_number("size_bytes", options->size);
	print_number("threads", options->threads);
	print_number("elapsed_nanoseconds",
		     result->ended_nanoseconds - result->began_nanoseconds);
	print_number("cpu_nanoseconds", result->cpu_nanoseconds);
	print_number("other_cpu_nanoseconds", result->other_cpu_nanoseconds);
	print_number("populate_nanoseconds", result->populate_nanoseconds);
	if (result->came_back)
		print_number("memory_back_nanoseconds",
			     result->memory_back_nanoseconds);
	else
		printf("\"memory_back_nanoseconds\": null, ");
	print_number("huge_bytes", result->huge_bytes);
	printf("\"pages_per_node\": [");
	for (int node = 0; node < result->nodes; node++)
		printf("%s%" PRIu64, node ? ", " : "",
		       result->pages_per_node[node]);
	printf("], ");
	print_vmstat(&result->vmstat_before, &result->vmstat_after);
	printf("\"memfree_bytes\": {\"before\": %" PRIu64
	       ", \"right_after\": %" PRIu64 ", \"settled\": %" PRIu64 "}, ",
	       result->free_before, result->free_right_after,
	       result->free_settled);
	watch_print(options->watch);
	printf("\"checks\": \"ok\"}\n");
}
