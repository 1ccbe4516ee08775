// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device of the kernel's HMM test module has the process's memory mapped
 * while parts of it are freed.
 *
 * The device keeps the pages that it read until an MMU notifier asks it to
 * drop them. If that comes too early, for too small a range or not at all, it
 * reads pages that were freed.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DEVICE     "/dev/hmm_dmirror0"
#define DRIVER     "HMM_DMIRROR"
#define COPY_PAGES 256UL

/* lib/test_hmm_uapi.h of the kernel */
struct hmm_dmirror_cmd {
	uint64_t addr;
	uint64_t ptr;
	uint64_t npages;
	uint64_t cpages;
	uint64_t faults;
};
#define HMM_DMIRROR_READ _IOWR('H', 0x00, struct hmm_dmirror_cmd)

struct mirrored {
	int device;
	struct area area;
	uint64_t seed;
	atomic_bool stop;
};

static bool device_read(int device, const uint64_t *address, size_t pages,
			void *copy)
{
	struct hmm_dmirror_cmd command = { .addr = (uintptr_t)address,
					   .ptr = (uintptr_t)copy,
					   .npages = pages };

	return !ioctl(device, HMM_DMIRROR_READ, &command) &&
	       command.cpages == pages;
}

static void *read_meanwhile(void *argument)
{
	struct mirrored *mirrored = argument;
	uint64_t copy[WORDS_PER_PAGE];

	/* May fail, and may see the old or the new content. */
	while (!atomic_load(&mirrored->stop))
		device_read(mirrored->device,
			    mirrored->area.address +
				    random_below(&mirrored->seed,
						 mirrored->area.pages) *
					    WORDS_PER_PAGE,
			    1, copy);
	return NULL;
}

static void device_check(const struct mirrored *mirrored, bool is_zero)
{
	static uint64_t copy[COPY_PAGES * WORDS_PER_PAGE];
	const struct area *area = &mirrored->area;

	for (size_t first = 0; first < area->pages; first += COPY_PAGES) {
		size_t pages = area->pages - first;
		struct area zero = { .address = copy };

		if (pages > COPY_PAGES)
			pages = COPY_PAGES;
		zero.pages = pages;
		if (!device_read(mirrored->device,
				 area->address + first * WORDS_PER_PAGE, pages,
				 copy))
			die("the device cannot read: %s", strerror(errno));
		if (is_zero)
			area_check_zero(&zero);
		else
			area_check_copy(area, first, pages, copy);
	}
}

/* Where it was before, as the device knows its pages by address. */
static void map_again(struct area *area)
{
	if (mmap(area->address, area->pages * PAGE_BYTES,
		 PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		 0) != area->address)
		die("cannot map memory");
}

static void one_round(struct mirrored *mirrored, bool is_unmapped)
{
	struct area *area = &mirrored->area;
	pthread_t reader;

	area_fill(area, true);
	device_check(mirrored, false);
	atomic_store(&mirrored->stop, false);
	if (pthread_create(&reader, NULL, read_meanwhile, mirrored))
		die("cannot start a thread");
	if (is_unmapped)
		munmap(area->address, area->pages * PAGE_BYTES);
	else
		madvise(area->address, area->pages * PAGE_BYTES, MADV_DONTNEED);
	atomic_store(&mirrored->stop, true);
	pthread_join(reader, NULL);
	if (is_unmapped)
		map_again(area);
	device_check(mirrored, true);
	/* New memory for the next round, not the zero page. */
	madvise(area->address, area->pages * PAGE_BYTES, MADV_DONTNEED);
}

static void free_mirrored(const struct options *options, uint64_t owner)
{
	struct mirrored mirrored = { .seed = options->seed + owner };

	mirrored.device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (mirrored.device < 0)
		die("cannot open " DEVICE ": %s", strerror(errno));
	area_map(&mirrored.area, options->size, owner);
	for (uint64_t round = 0; !time_is_up(); round++) {
		one_round(&mirrored, round % 2 == 0);
		atomic_fetch_add(&shared->rounds, 1);
	}
	area_unmap(&mirrored.area);
	close(mirrored.device);
}

/* The driver does not make a node everywhere. */
static void make_device(void)
{
	char line[128], name[64];
	unsigned int major;
	FILE *file;

	if (!access(DEVICE, F_OK))
		return;
	file = fopen("/proc/devices", "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%u %63s", &major, name) == 2 &&
		    !strcmp(name, DRIVER))
			mknod(DEVICE, S_IFCHR | 0600, makedev(major, 0));
	if (file)
		fclose(file);
}

static void run_notifier(const struct options *options)
{
	make_device();
	if (access(DEVICE, R_OK | W_OK))
		skip("this kernel has no HMM test device");
	neighbours_start(options);
	processes_run(free_mirrored, options);
	neighbours_end();
}

const struct scenario scenario_notifier = {
	"notifier", "a device that mirrors memory sees no freed page",
	run_notifier
};
