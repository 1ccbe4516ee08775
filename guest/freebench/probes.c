// SPDX-License-Identifier: GPL-2.0-only
/* Read time, memory and nodes from the kernel. */
#define _GNU_SOURCE
#include "freebench.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_nanoseconds(int clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

uint64_t sum(const uint64_t *values, int count)
{
	uint64_t total = 0;

	for (int i = 0; i < count; i++)
		total += values[i];
	return total;
}

/* Read the start of a file in /proc or /sys; false if it does not exist. */
static bool read_text(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t got;

	if (file < 0)
		return false;
	while ((got = read(file, text + used, size - 1 - used)) > 0)
		used += got;
	close(file);
	text[used] = '\0';
	return used > 0;
}

/* Return the number after a word at the start of a line, or 0. */
static uint64_t field(const char *text, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
		if ((at == text || at[-1] == '\n') &&
		    (at[length] == ' ' || at[length] == ':'))
			return strtoull(at + length + 1, NULL, 10);
	return 0;
}

uint64_t memory_nodes(void)
{
	char text[256], *at = text;
	uint64_t found = 0;

	/* a list such as 0-3,7 */
	if (!read_text("/sys/devices/system/node/has_memory", text,
		       sizeof(text)))
		return 1;
	while (*at >= '0' && *at <= '9') {
		long first = strtol(at, &at, 10), last = first;

		if (*at == '-')
			last = strtol(at + 1, &at, 10);
		for (; first <= last && first < MOST_NODES; first++)
			found |= 1ULL << first;
		at += *at == ',';
	}
	return found ? found : 1;
}

int node_count(void)
{
	return MOST_NODES - __builtin_clzll(memory_nodes());
}

int node_of_cpu(int cpu)
{
	char path[96];

	for (int node = 0; node < MOST_NODES; node++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/cpu%d", node, cpu);
		if (!access(path, F_OK))
			return node;
	}
	return 0;
}

void read_free_bytes(uint64_t *per_node, int nodes)
{
	char path[64], text[8192];

	for (int node = 0; node < nodes; node++) {
		const char *at = NULL;

		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/meminfo", node);
		if (read_text(path, text, sizeof(text)))
			at = strstr(text, "MemFree:");
		else if (nodes == 1 &&
			 read_text("/proc/meminfo", text, sizeof(text)))
			at = strstr(text, "MemFree:");
		per_node[node] = at ? strtoull(at + 8, NULL, 10) * 1024 : 0;
	}
}

void add_listed_bytes(uint64_t *per_node, int nodes)
{
	FILE *file = fopen("/proc/zoneinfo", "re");
	uint64_t pages;
	char line[256];
	int node = -1;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Node %d, zone", &node) == 1)
			continue;
		if (node >= 0 && node < nodes &&
		    sscanf(line, " count: %" SCNu64, &pages) == 1)
			per_node[node] += pages * getpagesize();
	}
	if (file)
		fclose(file);
}

void read_vmstat(struct vmstat *vmstat)
{
	static char text[65536];

	memset(vmstat, 0, sizeof(*vmstat));
	if (!read_text("/proc/vmstat", text, sizeof(text)))
		return;
	vmstat->pgfree = field(text, "pgfree");
	vmstat->pgfault = field(text, "pgfault");
	vmstat->pgalloc =
		field(text, "pgalloc_dma") + field(text, "pgalloc_dma32") +
		field(text, "pgalloc_normal") + field(text, "pgalloc_movable");
	vmstat->numa_hit = field(text, "numa_hit");
	vmstat->numa_miss = field(text, "numa_miss");
	vmstat->numa_foreign = field(text, "numa_foreign");
	vmstat->thp_fault_alloc = field(text, "thp_fault_alloc");
}

uint64_t busy_nanoseconds(void)
{
	unsigned long long user, nice, system, idle, iowait, irq, softirq;
	static char text[65536];

	if (!read_text("/proc/stat", text, sizeof(text)) ||
	    sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice,
		   &system, &idle, &iowait, &irq, &softirq) != 7)
		return 0;
	return (user + nice + system + irq + softirq) *
	       (1000000000ULL / sysconf(_SC_CLK_TCK));
}
