// SPDX-License-Identifier: GPL-2.0-only
/* Processes free memory explicitly, by exit, and when killed. */
#include "integrity.h"

#include <sys/mman.h>
#include <unistd.h>

static void run_free(const struct options *options)
{
	neighbours_start(options);
	processes_run(churn, options);
	neighbours_end();
}

const struct scenario scenario_free = {
	"free", "munmap, madvise(DONTNEED) and free() next to neighbours",
	run_free
};

static void fill_and_end(const struct options *options, uint64_t owner)
{
	struct area area;

	area_map(&area, options->size, owner);
	area_fill(&area, true);
	area_check_all(&area);
}

static void run_exit(const struct options *options)
{
	neighbours_start(options);
	while (!time_is_up()) {
		processes_run(fill_and_end, options);
		atomic_fetch_add(&shared->rounds, 1);
	}
	neighbours_end();
}

const struct scenario scenario_exit = {
	"exit", "waves of processes fill memory and exit", run_exit
};

static void run_kill(const struct options *options)
{
	uint64_t random = options->seed;
	pid_t pids[MOST_PROCESSES];

	neighbours_start(options);
	while (!time_is_up()) {
		processes_start(pids, churn, options);
		/* Some while they populate, some while they free. */
		sleep_milliseconds(1 << random_below(&random, 12));
		for (int i = 0; i < options->processes; i++)
			process_kill(pids[i]);
		processes_wait(pids, options, EITHER);
		atomic_fetch_add(&shared->rounds, 1);
	}
	neighbours_end();
}

const struct scenario scenario_kill = {
	"kill", "processes are killed while they fill and free", run_kill
};

static void write_half_and_end(struct area *area, uint64_t owner)
{
	struct area upper = *area;
	size_t half = area->pages / 2;

	upper.address += half * WORDS_PER_PAGE;
	upper.pages -= half;
	upper.owner = owner;
	area_fill(&upper, false);
	area_check(area, 0, half);
	munmap(area->address, half * PAGE_BYTES);
	area_check_all(&upper);
	_exit(PASSED);
}

static void fork_again_and_again(const struct options *options, uint64_t owner)
{
	struct area area;

	area_map(&area, options->size, owner);
	area_fill(&area, true);
	while (!time_is_up()) {
		pid_t pid = fork();

		if (pid < 0)
			die("cannot fork");
		if (!pid)
			write_half_and_end(&area, owner + MOST_PROCESSES);
		area_check_all(&area);
		process_wait(pid, BY_ITSELF);
		area_check_all(&area);
		area_fill(&area, false);
		atomic_fetch_add(&shared->rounds, 1);
	}
}

static void run_fork(const struct options *options)
{
	neighbours_start(options);
	processes_run(fork_again_and_again, options);
	neighbours_end();
}

const struct scenario scenario_fork = {
	"fork", "children write to and unmap memory shared with parents",
	run_fork
};
