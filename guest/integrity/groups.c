// SPDX-License-Identifier: GPL-2.0-only
/* Cgroups of the scenarios, numbered, in a cgroup2 file system of their own. */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT                  "/run/integrity-cgroup"
#define BACK_SECONDS          30
#define LEAST_TOLERATED_BYTES (1LL << 20)

static void group_path(char *path, size_t size, uint64_t group,
		       const char *file)
{
	snprintf(path, size, ROOT "/%llu%s%s", (unsigned long long)group,
		 *file ? "/" : "", file);
}

bool group_set(uint64_t group, const char *file, const char *text)
{
	char path[128];

	group_path(path, sizeof(path), group, file);
	return file_write(path, text);
}

void groups_mount(const char *controller)
{
	mkdir(ROOT, 0700);
	if (mount("none", ROOT, "cgroup2", 0, NULL))
		skip("cgroup2 cannot be mounted: %s", strerror(errno));
	if (!groups_enable(controller)) {
		groups_unmount();
		skip("cgroup2 has no %s controller here", controller + 1);
	}
}

bool groups_enable(const char *controller)
{
	return file_write(ROOT "/cgroup.subtree_control", controller);
}

void groups_unmount(void)
{
	umount(ROOT);
}

void group_make(uint64_t group, size_t limit)
{
	char path[128], text[32];

	group_path(path, sizeof(path), group, "");
	if (mkdir(path, 0700) && errno != EEXIST)
		die("cannot make %s: %s", path, strerror(errno));
	if (!limit)
		return;
	snprintf(text, sizeof(text), "%zu", limit);
	if (!group_set(group, "memory.max", text))
		die("cannot set memory.max");
}

void group_join(uint64_t group)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	if (!group_set(group, "cgroup.procs", text))
		die("cannot join a cgroup");
}

long long group_number(uint64_t group, const char *file)
{
	char path[128];

	group_path(path, sizeof(path), group, file);
	return file_number(path);
}

long long group_field(uint64_t group, const char *file, const char *field)
{
	char path[128];

	group_path(path, sizeof(path), group, file);
	return file_field(path, field);
}

long group_oom_kills(uint64_t group)
{
	long long kills = group_field(group, "memory.events", "oom_kill");

	return kills > 0 ? kills : 0;
}

static void group_delete(uint64_t group, uint64_t deadline)
{
	char path[128];

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

/* The group is empty: all its charges must be returned. */
void group_remove(uint64_t group, size_t limit)
{
	uint64_t deadline = now_nanoseconds() + BACK_SECONDS * 1000000000ULL;
	long long tolerated = limit / 100, left;

	if (tolerated < LEAST_TOLERATED_BYTES)
		tolerated = LEAST_TOLERATED_BYTES;
	/* A lower limit drains the charges cached per CPU. */
	if (limit)
		group_set(group, "memory.max", "0");
	while ((left = group_number(group, "memory.current")) > tolerated &&
	       now_nanoseconds() < deadline)
		sleep_milliseconds(10);
	if (left > tolerated)
		fault("an empty cgroup is still charged %lld KiB", left >> 10);
	group_delete(group, deadline);
}
