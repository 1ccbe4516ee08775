// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "common.h"
#include "../lib/size.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct slice {
	pthread_t thread;
	int task;
	int tasks;
	char *from;
	char *to;
};

void die(int status, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	/* Not exit(): a child must not flush its parent's buffered output. */
	_exit(status);
}

uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

size_t size_option(const char *option, const char *text)
{
	size_t size;

	if (!parse_size(text, &size) || size < (size_t)getpagesize())
		die(WRONG_USAGE,
		    "%s: %s: expected a size like 512MiB or a share like 80%%",
		    option, text);
	return size;
}

int parse_count(const char *option, const char *text, int most)
{
	unsigned long long value;
	char *end;

	value = parse_number(text, &end);
	if (end == text || *end || !value || value > (unsigned int)most)
		die(WRONG_USAGE, "%s: %s is not a number from 1 to %d", option,
		    text, most);
	return value;
}

static int allowed_cpus(cpu_set_t *allowed)
{
	if (sched_getaffinity(0, sizeof(*allowed), allowed))
		die(FAILED, "sched_getaffinity: %s", strerror(errno));
	return CPU_COUNT(allowed);
}

int parse_tasks(const char *option, const char *text)
{
	cpu_set_t allowed;

	if (!strcmp(text, "auto"))
		return allowed_cpus(&allowed);
	return parse_count(option, text, MOST_TASKS);
}

void pin(int task, int tasks)
{
	cpu_set_t allowed, own;
	int count = allowed_cpus(&allowed), wanted;

	wanted = tasks < count ? task * count / tasks : task % count;
	CPU_ZERO(&own);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && wanted-- == 0)
			CPU_SET(cpu, &own);
	if (sched_setaffinity(0, sizeof(own), &own))
		die(FAILED, "sched_setaffinity: %s", strerror(errno));
}

void *map_anonymous(size_t bytes)
{
	void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (address == MAP_FAILED)
		die(FAILED, "mmap of %zu bytes failed: %s", bytes,
		    strerror(errno));
	return address;
}

static void *touch(void *argument)
{
	struct slice *slice = argument;

	pin(slice->task, slice->tasks);
	for (char *at = slice->from; at < slice->to; at += getpagesize())
		*(volatile char *)at = 1;
	return NULL;
}

void populate(char *address, size_t bytes, int threads)
{
	size_t page = getpagesize(), pages = bytes / page;
	struct slice *slices = calloc(threads, sizeof(*slices));

	if (!slices)
		die(FAILED, "out of memory for threads");
	for (int i = 0; i < threads; i++) {
		slices[i].task = i;
		slices[i].tasks = threads;
		slices[i].from = address + pages * i / threads * page;
		slices[i].to = address + pages * (i + 1) / threads * page;
		if (pthread_create(&slices[i].thread, NULL, touch, &slices[i]))
			die(FAILED, "cannot start thread %d", i);
	}
	for (int i = 0; i < threads; i++)
		pthread_join(slices[i].thread, NULL);
	free(slices);
}
