/* SPDX-License-Identifier: GPL-2.0-only */
/* Options and output of the programs that give a lot of memory back at once. */
#ifndef LABCTL_SHELF_MEMORY_H
#define LABCTL_SHELF_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct options {
	size_t size; /* bytes, whole pages */
	int threads;
};

/* Return --size and --threads; `about` is the first line of --help. */
struct options memory_options(int argc, char **argv, const char *about);

/* Print the times of one repetition as one line of JSON. */
int memory_report(const struct options *options, uint64_t populate,
		  uint64_t elapsed);

#endif
