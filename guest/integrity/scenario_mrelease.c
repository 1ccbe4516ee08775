// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process that fills its cgroup is killed and reaped by process_mrelease(),
 * as an OOM killer in user space does it. Then its memory must be there for
 * another process of the cgroup.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif
#define GROUP             1
#define OVERHEAD_BYTES    (8UL << 20)
#define WAIT_MILLISECONDS 2
#define REAP_SECONDS      60

static atomic_int *phase;
enum {
	FILLING,
	FILLED,
	REAPED
};

static void fill_and_wait(const struct options *options, uint64_t owner)
{
	struct area area;

	group_join(GROUP);
	file_write("/proc/self/oom_score_adj", "1000");
	area_map(&area, options->size, owner);
	area_fill(&area, true);
	atomic_store(phase, FILLED);
	for (;;)
		pause();
}

static void fill_half_when_reaped(const struct options *options, uint64_t owner)
{
	struct area area;

	group_join(GROUP);
	area_map(&area, options->size / 2, owner);
	while (atomic_load(phase) != REAPED)
		sleep_milliseconds(WAIT_MILLISECONDS);
	area_fill(&area, true);
	area_check_all(&area);
}

/* Reaping is refused while the victim holds its lock; then it is repeated. */
static void reap(int victim)
{
	uint64_t deadline = now_nanoseconds() + REAP_SECONDS * 1000000000ULL;

	while (syscall(SYS_process_mrelease, victim, 0)) {
		if (errno == ESRCH) /* its memory is released already */
			return;
		if (errno != EAGAIN && errno != EINTR) {
			fault("process_mrelease failed: %s", strerror(errno));
			return;
		}
		if (now_nanoseconds() > deadline) {
			fault("process_mrelease failed for %d s", REAP_SECONDS);
			return;
		}
	}
}

static void one_round(const struct options *options)
{
	size_t limit = options->size + OVERHEAD_BYTES;
	pid_t victim, heir;
	int file;

	group_make(GROUP, limit);
	atomic_store(phase, FILLING);
	victim = process_start(fill_and_wait, options, 1);
	file = syscall(SYS_pidfd_open, victim, 0);
	if (file < 0)
		die("cannot open a pidfd: %s", strerror(errno));
	heir = process_start(fill_half_when_reaped, options, 2);
	while (atomic_load(phase) == FILLING && !atomic_load(&shared->faults) &&
	       !time_is_up())
		sleep_milliseconds(WAIT_MILLISECONDS);
	process_kill(victim);
	reap(file);
	atomic_store(phase, REAPED);
	process_wait(victim, KILLED);
	process_wait(heir, EITHER);
	close(file);
	atomic_fetch_add(&shared->oom_kills, group_oom_kills(GROUP));
	atomic_fetch_add(&shared->unexpected_kills, group_oom_kills(GROUP));
	group_remove(GROUP, limit);
	atomic_fetch_add(&shared->rounds, 1);
}

static void run_mrelease(const struct options *options)
{
	if (syscall(SYS_process_mrelease, -1, 0) && errno == ENOSYS)
		skip("this kernel has no process_mrelease()");
	groups_mount("+memory");
	phase = shared_memory(PAGE_BYTES);
	neighbours_start(options);
	while (!time_is_up())
		one_round(options);
	if (atomic_load(&shared->unexpected_kills))
		fault("%ld processes were OOM-killed in %ld rounds after the "
		      "memory had been released",
		      atomic_load(&shared->unexpected_kills),
		      atomic_load(&shared->rounds));
	neighbours_end();
	groups_unmount();
}

const struct scenario scenario_mrelease = {
	"mrelease", "the memory of a killed process is released from outside",
	run_mrelease
};
