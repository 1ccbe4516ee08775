// SPDX-License-Identifier: GPL-2.0-only
/* Processes in small memory cgroups: OOM-killed, or just within the limit. */
#include "integrity.h"

/* Page tables, stacks, and charges cached per CPU. */
#define OVERHEAD_BYTES (8UL << 20)

static void grow_until_killed(const struct options *options, uint64_t owner)
{
	struct area area;

	group_join(owner);
	file_write("/proc/self/oom_score_adj", "1000");
	area_map(&area, 4 * options->size, owner);
	area_fill(&area, true);
}

static void run_oom(const struct options *options)
{
	pid_t pids[MOST_PROCESSES];

	groups_mount("+memory");
	neighbours_start(options);
	while (!time_is_up()) {
		for (int i = 0; i < options->processes; i++) {
			group_make(i + 1, options->size);
			pids[i] = process_start(grow_until_killed, options,
						i + 1);
		}
		for (int i = 0; i < options->processes; i++) {
			process_wait(pids[i], KILLED);
			atomic_fetch_add(&shared->oom_kills,
					 group_oom_kills(i + 1));
			group_remove(i + 1, options->size);
		}
		atomic_fetch_add(&shared->rounds, 1);
	}
	neighbours_end();
	groups_unmount();
}

const struct scenario scenario_oom = {
	"oom", "processes are OOM-killed in their cgroup", run_oom
};

static void churn_in_group(const struct options *options, uint64_t owner)
{
	group_join(owner);
	churn(options, owner);
}

static void run_memcg(const struct options *options)
{
	size_t limit = options->size + OVERHEAD_BYTES;
	pid_t pids[MOST_PROCESSES];

	groups_mount("+memory");
	neighbours_start(options);
	for (int i = 0; i < options->processes; i++) {
		group_make(i + 1, limit);
		pids[i] = process_start(churn_in_group, options, i + 1);
	}
	for (int i = 0; i < options->processes; i++) {
		process_wait(pids[i], BY_ITSELF);
		atomic_fetch_add(&shared->oom_kills, group_oom_kills(i + 1));
		group_remove(i + 1, limit);
	}
	if (atomic_load(&shared->oom_kills))
		fault("a process was OOM-killed for memory that it had freed");
	neighbours_end();
	groups_unmount();
}

const struct scenario scenario_memcg = {
	"memcg", "cgroups are just large enough, and empty afterwards",
	run_memcg
};
