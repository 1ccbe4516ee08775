// SPDX-License-Identifier: GPL-2.0-only
/* Start the processes of a scenario, wait for them with a deadline, and leave
 * none behind. */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Time limit for the end of a process that is killed, or that has filled and
 * checked no page meanwhile, also under TCG and KASAN. */
#ifndef END_SECONDS     /* tests have a shorter one */
#define END_SECONDS 180 /* more than LONGEST_ROUND_NANOSECONDS */
#endif
#define NEIGHBOURS         2
#define PHASE_MILLISECONDS 20
/* More would only take CPU time from those who free. */
#define MOST_WATCHED_BYTES (32UL << 20)
/* Owners of churning processes start at 1, those of neighbours here. */
#define FIRST_NEIGHBOUR 1000

#define MOST_NODES 64

static pid_t neighbours[NEIGHBOURS];
/* Places in shared->pages_done: of this process, and of those that it started.
 */
static unsigned int own_place = MOST_WATCHED; /* who was started by none */
static pid_t started[MOST_WATCHED];

/* Pages that follow each other are on different nodes then. */
static void interleave_memory(void)
{
	unsigned long nodes = 0;
	char path[64];

	for (int node = 0; node < MOST_NODES; node++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d",
			 node);
		if (!access(path, F_OK))
			nodes |= 1UL << node;
	}
	syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &nodes, MOST_NODES + 1);
}

pid_t process_start(work work, const struct options *options, uint64_t owner)
{
	unsigned int place =
		atomic_fetch_add(&shared->started, 1) % MOST_WATCHED;
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		die("cannot fork: %s", strerror(errno));
	if (pid > 0) {
		started[place] = pid;
		return pid;
	}
	own_place = place;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(FAILED);
	/* Half of the processes; memory of the others is mostly local. */
	if (owner % 2)
		interleave_memory();
	work(options, owner);
	_exit(PASSED);
}

void process_kill(pid_t pid)
{
	kill(pid, SIGKILL);
}

static bool has_ended(pid_t pid, int *status)
{
	pid_t found = waitpid(pid, status, WNOHANG);

	return found == pid || (found < 0 && errno == ECHILD);
}

void process_has_done_page(void)
{
	atomic_fetch_add_explicit(&shared->pages_done[own_place], 1,
				  memory_order_relaxed);
}

static long pages_done_by(pid_t pid)
{
	for (int place = 0; place < MOST_WATCHED; place++)
		if (started[place] == pid)
			return atomic_load(&shared->pages_done[place]);
	return 0;
}

static bool wait_until(pid_t pid, int *status, uint64_t deadline)
{
	while (!has_ended(pid, status)) {
		if (now_nanoseconds() > deadline)
			return false;
		sleep_milliseconds(1);
	}
	return true;
}

/* A process that fills and checks pages has END_SECONDS more, again and again:
 * who started the program decides how long it may be slow. */
static bool wait_while_busy(pid_t pid, int *status, uint64_t deadline)
{
	long done = pages_done_by(pid);

	while (!wait_until(pid, status, deadline)) {
		long now_done = pages_done_by(pid);

		if (now_done == done)
			return false;
		done = now_done;
		deadline = now_nanoseconds() + END_SECONDS * 1000000000ULL;
	}
	return true;
}

void process_wait(pid_t pid, enum ending expected)
{
	uint64_t end = END_SECONDS * 1000000000ULL;
	uint64_t start = now_nanoseconds();
	uint64_t deadline = shared->deadline_nanoseconds;
	int status = 0;

	deadline = (deadline > start ? deadline : start) + end;
	if (!wait_while_busy(pid, &status, deadline)) {
		process_kill(pid);
		fault("process %d did not end by its deadline", pid);
		if (!wait_until(pid, &status, now_nanoseconds() + end))
			fault("process %d did not end when killed", pid);
		return;
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
	    expected != BY_ITSELF)
		return;
	if (WIFSIGNALED(status))
		fault("process %d was ended by signal %d", pid,
		      WTERMSIG(status));
	else if (expected == KILLED)
		fault("process %d ended before it was killed", pid);
	/* The fault of a process with status FAILED is recorded already. */
}

void wait_for_phase(const atomic_int *phase, int wanted)
{
	while (atomic_load(phase) != wanted && !atomic_load(&shared->stop))
		sleep_milliseconds(PHASE_MILLISECONDS);
}

long long process_resident_bytes(pid_t pid)
{
	char path[64], text[128];
	long long size, resident;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	if (!file_read(path, text, sizeof(text)) ||
	    sscanf(text, "%lld %lld", &size, &resident) != 2)
		return -1;
	return resident * (long long)PAGE_BYTES;
}

int cpu_count(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void unpin(void)
{
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);
}

static void watch_own_memory(const struct options *options, uint64_t owner)
{
	struct area area;

	area_map(&area,
		 options->size < MOST_WATCHED_BYTES ? options->size
						    : MOST_WATCHED_BYTES,
		 owner);
	area_fill(&area, true);
	while (!atomic_load(&shared->stop)) {
		area_check_all(&area);
		sleep_milliseconds(5);
	}
	area_check_all(&area);
}

void neighbours_start(const struct options *options)
{
	for (int i = 0; i < NEIGHBOURS; i++)
		neighbours[i] = process_start(watch_own_memory, options,
					      FIRST_NEIGHBOUR + i);
}

void neighbours_end(void)
{
	atomic_store(&shared->stop, true);
	for (int i = 0; i < NEIGHBOURS; i++)
		process_wait(neighbours[i], BY_ITSELF);
}

static void drop_and_refill(struct area *area)
{
	madvise(area->address, area->pages * PAGE_BYTES, MADV_DONTNEED);
	area_check_zero(area);
	madvise(area->address, area->pages * PAGE_BYTES, MADV_DONTNEED);
	area_fill(area, true);
	area_check_all(area);
}

static void churn_heap(const struct options *options, uint64_t owner,
		       uint64_t generation)
{
	struct area area = { .pages = options->size / PAGE_BYTES,
			     .owner = owner,
			     .generation = generation };

	area.address = aligned_alloc(PAGE_BYTES, options->size);
	if (!area.address)
		die("cannot allocate %zu bytes", options->size);
	area_fill(&area, false);
	area_check_all(&area);
	free(area.address);
}

void churn(const struct options *options, uint64_t owner)
{
	uint64_t random = options->seed + owner;
	struct area area;
	uint64_t round = 0;

	while (!time_is_up()) {
		area_map(&area, options->size, owner);
		area.generation = 16 * round++;
		area_fill(&area, true);
		area_check_all(&area);
		if (random_below(&random, 2) && !is_late())
			drop_and_refill(&area);
		/* In two steps, as the rest of the mapping must not change. */
		munmap(area.address, area.pages / 2 * PAGE_BYTES);
		area_check(&area, area.pages / 2, area.pages - area.pages / 2);
		area_unmap(&area);
		/* Once at least: a series may leave smaller parts to nobody. */
		if (random_below(&random, 2) || round == 1)
			churn_heap(options, owner, 16 * round++);
		atomic_fetch_add(&shared->rounds, 1);
	}
}

void processes_start(pid_t *pids, work work, const struct options *options)
{
	for (int i = 0; i < options->processes; i++)
		pids[i] = process_start(work, options, i + 1);
}

void processes_wait(const pid_t *pids, const struct options *options,
		    enum ending expected)
{
	for (int i = 0; i < options->processes; i++)
		process_wait(pids[i], expected);
}

void processes_run(work work, const struct options *options)
{
	pid_t pids[MOST_PROCESSES];

	processes_start(pids, work, options);
	processes_wait(pids, options, BY_ITSELF);
}
