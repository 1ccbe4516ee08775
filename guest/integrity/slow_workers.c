// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel workers that get little CPU time: unbound workers are confined to the
 * last CPU, which is kept busy on demand.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <stdio.h>
#include <unistd.h>

#define UNBOUND_CPUS      "/sys/devices/virtual/workqueue/cpumask"
#define BUSY_PROCESSES    4
#define BUSY_NICE         -5
#define WAIT_MILLISECONDS 20

static pid_t busy[BUSY_PROCESSES];
static char cpus_before[64];
static atomic_bool *is_slow;

static void keep_busy(const struct options *options, uint64_t cpu)
{
	(void)options;
	pin_to_cpu(cpu);
	if (nice(BUSY_NICE) == -1)
		fputs("cannot raise the priority\n", stderr);
	while (!atomic_load_explicit(&shared->stop, memory_order_relaxed))
		/* The host has few cores. */
		if (!atomic_load_explicit(is_slow, memory_order_relaxed))
			sleep_milliseconds(WAIT_MILLISECONDS);
}

void slow_workers_start(const struct options *options)
{
	int cpu = cpu_count() - 1;
	char last[64];

	if (cpu < 2 || cpu > 31)
		skip("needs 3 to 32 CPUs");
	if (!file_read(UNBOUND_CPUS, cpus_before, sizeof(cpus_before)))
		skip(UNBOUND_CPUS " cannot be read");
	is_slow = shared_memory(PAGE_BYTES);
	snprintf(last, sizeof(last), "%x", 1u << cpu);
	if (!file_write(UNBOUND_CPUS, last))
		skip(UNBOUND_CPUS " cannot be written");
	for (int i = 0; i < BUSY_PROCESSES; i++)
		busy[i] = process_start(keep_busy, options, cpu);
	pin_to_cpu(1);
}

/* Returns when the workers' CPU is busy, or soon will not be. */
void slow_workers_set(bool slow)
{
	atomic_store(is_slow, slow);
	if (slow)
		sleep_milliseconds(2 * WAIT_MILLISECONDS);
}

void slow_workers_end(void)
{
	atomic_store(&shared->stop, true);
	for (int i = 0; i < BUSY_PROCESSES; i++)
		process_wait(busy[i], BY_ITSELF);
	if (!file_write(UNBOUND_CPUS, cpus_before))
		fault(UNBOUND_CPUS " cannot be restored");
}
