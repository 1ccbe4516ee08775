// SPDX-License-Identifier: GPL-2.0-only
/* Memory is freed while allocations fail, and while CPUs go offline and online.
 */
#include "integrity.h"

#include <stdio.h>

#define FAULTS  "/sys/kernel/debug/"
#define PERCENT "30"

/* Only for processes that ask for it, and only non-blocking allocations. */
static const struct {
	const char *path;
	const char *text;
	const char *afterwards;
} settings[] = {
	{ FAULTS "failslab/task-filter", "Y", NULL },
	{ FAULTS "failslab/ignore-gfp-wait", "Y", NULL },
	{ FAULTS "failslab/verbose", "0", NULL },
	{ FAULTS "failslab/times", "-1", NULL },
	{ FAULTS "failslab/probability", PERCENT, "0" },
	{ FAULTS "fail_page_alloc/task-filter", "Y", NULL },
	{ FAULTS "fail_page_alloc/ignore-gfp-wait", "Y", NULL },
	{ FAULTS "fail_page_alloc/ignore-gfp-highmem", "Y", NULL },
	{ FAULTS "fail_page_alloc/min-order", "0", NULL },
	{ FAULTS "fail_page_alloc/verbose", "0", NULL },
	{ FAULTS "fail_page_alloc/times", "-1", NULL },
	{ FAULTS "fail_page_alloc/probability", PERCENT, "0" },
};

static void churn_with_faults(const struct options *options, uint64_t owner)
{
	if (!file_write("/proc/self/make-it-fail", "1"))
		die("cannot enable failing allocations");
	churn(options, owner);
}

static void run_failslab(const struct options *options)
{
	if (file_number(FAULTS "failslab/probability") < 0)
		skip("this kernel has no fault injection");
	for (size_t i = 0; i < COUNT(settings); i++)
		if (!file_write(settings[i].path, settings[i].text))
			die("cannot write %s", settings[i].path);
	neighbours_start(options);
	processes_run(churn_with_faults, options);
	for (size_t i = 0; i < COUNT(settings); i++)
		if (settings[i].afterwards)
			file_write(settings[i].path, settings[i].afterwards);
	neighbours_end();
}

const struct scenario scenario_failslab = {
	"failslab", "non-blocking allocations fail at random", run_failslab
};

static bool set_online(int cpu, bool online)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online",
		 cpu);
	return file_write(path, online ? "1" : "0");
}

static void run_hotplug(const struct options *options)
{
	uint64_t random = options->seed;
	int cpus = cpu_count();
	pid_t pids[MOST_PROCESSES];

	if (cpus < 2)
		skip("needs two CPUs");
	if (!set_online(cpus - 1, false))
		skip("CPUs cannot be taken offline here");
	set_online(cpus - 1, true);
	neighbours_start(options);
	processes_start(pids, churn, options);
	while (!time_is_up()) {
		int cpu = 1 + random_below(&random, cpus - 1);

		if (!set_online(cpu, false) || !set_online(cpu, true))
			fault("CPU %d did not go offline and online", cpu);
	}
	processes_wait(pids, options, BY_ITSELF);
	neighbours_end();
}

const struct scenario scenario_hotplug = {
	"hotplug", "CPUs go offline and online meanwhile", run_hotplug
};
