// SPDX-License-Identifier: GPL-2.0-only
/* Processes in small memory cgroups: OOM-killed, or just within the limit. */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT         "/run/integrity-cgroup"
#define BACK_SECONDS 30
/* Page tables, stacks, and charges cached per CPU. */
#define OVERHEAD_BYTES        (8UL << 20)
#define LEAST_TOLERATED_BYTES (1LL << 20)

static void group_path(char *path, size_t size, uint64_t group,
		       const char *file)
{
	snprintf(path, size, ROOT "/%llu%s%s", (unsigned long long)group,
		 *file ? "/" : "", file);
}

static bool group_set(uint64_t group, const char *file, const char *text)
{
	char path[128];

	group_path(path, sizeof(path), group, file);
	return file_write(path, text);
}

static void mount_groups(void)
{
	mkdir(ROOT, 0700);
	if (mount("none", ROOT, "cgroup2", 0, NULL))
		skip("cgroup2 cannot be mounted: %s", strerror(errno));
	if (!file_write(ROOT "/cgroup.subtree_control", "+memory")) {
		umount(ROOT);
		skip("cgroup2 has no memory controller here");
	}
}

static void group_make(uint64_t group, size_t limit)
{
	char path[128], text[32];

	group_path(path, sizeof(path), group, "");
	if (mkdir(path, 0700) && errno != EEXIST)
		die("cannot make %s: %s", path, strerror(errno));
	snprintf(text, sizeof(text), "%zu", limit);
	if (!group_set(group, "memory.max", text))
		die("cannot set memory.max");
}

static void group_join(uint64_t group)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	if (!group_set(group, "cgroup.procs", text))
		die("cannot join a cgroup");
}

static long long group_number(uint64_t group, const char *file)
{
	char path[128];

	group_path(path, sizeof(path), group, file);
	return file_number(path);
}

static long group_oom_kills(uint64_t group)
{
	char path[128], line[128];
	long kills = 0;
	FILE *file;

	group_path(path, sizeof(path), group, "memory.events");
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "oom_kill %ld", &kills);
	if (file)
		fclose(file);
	return kills;
}

/* The group is empty: all its charges must be returned. */
static void group_remove(uint64_t group, size_t limit)
{
	uint64_t deadline = now_nanoseconds() + BACK_SECONDS * 1000000000ULL;
	long long tolerated = limit / 100, left;
	char path[128];

	if (tolerated < LEAST_TOLERATED_BYTES)
		tolerated = LEAST_TOLERATED_BYTES;
	/* A lower limit drains the charges cached per CPU. */
	group_set(group, "memory.max", "0");
	while ((left = group_number(group, "memory.current")) > tolerated &&
	       now_nanoseconds() < deadline)
		sleep_milliseconds(10);
	if (left > tolerated)
		fault("an empty cgroup is still charged %lld KiB", left >> 10);
	group_path(path, sizeof(path), group, "");
	while (rmdir(path)) {
		if (now_nanoseconds() > deadline) {
			fault("cgroup %s cannot be removed: %s", path,
			      strerror(errno));
			break;
		}
		sleep_milliseconds(10);
	}
}

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

	mount_groups();
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
	umount(ROOT);
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

	mount_groups();
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
	umount(ROOT);
}

const struct scenario scenario_memcg = {
	"memcg", "cgroups are just large enough, and empty afterwards",
	run_memcg
};
