// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory is swapped out to compressed memory and read again by two processes,
 * so that it is in the swap cache when it is freed.
 *
 * Afterwards neither the swap cache nor the swap space may hold it.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#define DEVICE "/dev/zram0"
#define BLOCK  "/sys/block/zram0/"
/* With less than half of it in use, what is read stays in the swap cache. */
#define SHARE_IN_USE 8
#define BACK_SECONDS 30
/* Slots that are kept per CPU, and pages that somebody had locked. */
#define TOLERATED_KIB 8192

/* union swap_header of the kernel; the signature is at the end of the page. */
struct swap_header {
	char boot[1024];
	uint32_t version;
	uint32_t last_page;
	uint32_t bad_pages;
	char rest[PAGE_BYTES - 1024 - 3 * sizeof(uint32_t) - 10];
	char signature[10];
};

static void make_swap(size_t bytes)
{
	static struct swap_header header = { .version = 1 };
	int device;
	char text[32];

	snprintf(text, sizeof(text), "%zu", bytes);
	file_write(BLOCK "reset", "1");
	if (!file_write(BLOCK "disksize", text))
		skip("this kernel has no zram");
	header.last_page = bytes / PAGE_BYTES - 1;
	memcpy(header.signature, "SWAPSPACE2", sizeof(header.signature));
	device = open(DEVICE, O_WRONLY | O_CLOEXEC);
	if (device < 0 ||
	    write(device, &header, sizeof(header)) != sizeof(header) ||
	    fsync(device) || close(device))
		die("cannot write to " DEVICE ": %s", strerror(errno));
	if (swapon(DEVICE, 0))
		die("cannot swap to " DEVICE ": %s", strerror(errno));
}

static long long meminfo(const char *field)
{
	return file_field("/proc/meminfo", field);
}

static long long used_kib(void)
{
	return meminfo("SwapTotal") - meminfo("SwapFree");
}

static void read_half_and_end(struct area *area)
{
	size_t half = area->pages / 2;

	area_check(area, half, area->pages - half);
	munmap(area->address, half * PAGE_BYTES);
	area_check(area, half, area->pages - half);
	_exit(PASSED);
}

static void swap_and_free(const struct options *options, uint64_t owner)
{
	struct area area;
	uint64_t generation = 0;
	pid_t child;

	while (!time_is_up()) {
		area_map(&area, options->size, owner);
		area.generation = generation++;
		area_fill(&area, true);
		madvise(area.address, options->size, MADV_PAGEOUT);
		child = fork();
		if (child < 0)
			die("cannot fork");
		if (!child)
			read_half_and_end(&area);
		area_check_all(&area);
		process_wait(child, BY_ITSELF);
		munmap(area.address, area.pages / 2 * PAGE_BYTES);
		area_check(&area, area.pages / 2, area.pages - area.pages / 2);
		area_unmap(&area);
		atomic_fetch_add(&shared->rounds, 1);
	}
}

static void watch_swap_cache(const struct options *options, uint64_t owner)
{
	(void)options;
	(void)owner;
	while (!atomic_load(&shared->stop)) {
		long kib = meminfo("SwapCached");

		if (kib > atomic_load(&shared->most_swap_cached_kib))
			atomic_store(&shared->most_swap_cached_kib, kib);
		sleep_milliseconds(20);
	}
}

static void check_empty(void)
{
	uint64_t deadline = now_nanoseconds() + BACK_SECONDS * 1000000000ULL;
	long long cached, used;

	while ((cached = meminfo("SwapCached")) > TOLERATED_KIB ||
	       (used = used_kib()) > TOLERATED_KIB) {
		if (now_nanoseconds() > deadline) {
			fault("all processes have ended, but %lld KiB are in "
			      "the swap cache and %lld KiB in swap space",
			      cached, used_kib());
			return;
		}
		sleep_milliseconds(50);
	}
}

static void run_swap(const struct options *options)
{
	long long before = file_field("/proc/vmstat", "pswpout");
	pid_t watcher;

	if (access(BLOCK "disksize", W_OK))
		skip("this kernel has no zram");
	make_swap(SHARE_IN_USE * options->size * options->processes);
	watcher = process_start(watch_swap_cache, options, 0);
	neighbours_start(options);
	processes_run(swap_and_free, options);
	neighbours_end();
	process_wait(watcher, BY_ITSELF);
	check_empty();
	before = file_field("/proc/vmstat", "pswpout") - before;
	if (before <= 0)
		fault("nothing was swapped out");
	if (swapoff(DEVICE))
		fault("swapoff failed: %s", strerror(errno));
	file_write(BLOCK "reset", "1");
	note("%lld MiB swapped out, up to %ld MiB in the swap cache",
	     before >> 8, atomic_load(&shared->most_swap_cached_kib) >> 10);
}

const struct scenario scenario_swap = {
	"swap", "memory is swapped out, read by two processes, and freed",
	run_swap
};
