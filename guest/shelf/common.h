/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs of `labctl workloads` share. */
#ifndef LABCTL_SHELF_COMMON_H
#define LABCTL_SHELF_COMMON_H

#include <stddef.h>
#include <stdint.h>

/* The exit statuses of kernel selftests, and 2 for wrong usage. */
enum {
	FAILED = 1,
	WRONG_USAGE = 2
};

#define MOST_TASKS 4096

/* End with `status` and a message. */
__attribute__((noreturn, format(printf, 2, 3))) void
die(int status, const char *format, ...);

uint64_t nanoseconds(void); /* CLOCK_MONOTONIC */

/* A size in bytes or with a unit, or a share of the memory: 512MiB, 80%. */
size_t size_option(const char *option, const char *text);

/* A number from 1 to `most`. */
int parse_count(const char *option, const char *text, int most);

/* The same, or `auto`: as many as CPUs. */
int parse_tasks(const char *option, const char *text);

/* Stay on one CPU, tasks being spread over all allowed ones. */
void pin(int task, int tasks);

void *map_anonymous(size_t bytes);

/* Write to each page, by threads that have one CPU and one slice each. */
void populate(char *address, size_t bytes, int threads);

#endif
