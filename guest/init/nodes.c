// SPDX-License-Identifier: GPL-2.0-only
/*
 * Print the topology that the kernel sees: one line per online NUMA node with
 * its online CPUs, memory and distances, and one line with the number of
 * sockets, cores and threads. The host compares it with the
 * requested topology. A kernel without NUMA has one node.
 *
 * Memory is the present memory of /proc/zoneinfo. Unlike MemTotal it includes
 * the kernel's reservations, so it can be compared closely.
 */
#include "init.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NODES        "/sys/devices/system/node"
#define CPU          "/sys/devices/system/cpu"
#define CPUS         CPU "/online"
#define MOST_NODES   1024 /* CONFIG_NODES_SHIFT is at most 10 */
#define LOCAL        "10"
#define BYTES_A_KIB  1024
#define LONGEST_LINE 8192
#define LONGEST_ROW  700
#define LONGEST_CPUS 128
#define LONGEST_PATH 128

static unsigned long long present_pages[MOST_NODES];

static void read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");

	line[0] = '\0';
	if (!file)
		return;
	if (!fgets(line, size, file))
		line[0] = '\0';
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
}

static void read_present_pages(void)
{
	FILE *file = fopen("/proc/zoneinfo", "re");
	char line[LONGEST_PATH];
	unsigned long long pages;
	int node = -1;

	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Node %d, zone", &node) == 1)
			continue;
		if (node >= 0 && node < MOST_NODES &&
		    sscanf(line, " present %llu", &pages) == 1)
			present_pages[node] += pages;
	}
	fclose(file);
}

/* "10 21 21 21" as "10,21*3": lines stay short, however many nodes there are */
static void pack_row(const char *row, char *packed, size_t size)
{
	long value, last = -1;
	size_t used = 0, repeats = 0;
	char *end;

	packed[0] = '\0';
	for (;; row = end) {
		value = strtol(row, &end, 10);
		if (end != row && value == last) {
			repeats++;
			continue;
		}
		if (repeats > 1 && used < size)
			used += snprintf(packed + used, size - used, "*%zu",
					 repeats);
		if (end == row)
			break;
		if (used < size)
			used += snprintf(packed + used, size - used, "%s%ld",
					 used ? "," : "", value);
		last = value;
		repeats = 1;
	}
}

static void say_node(int node, const char *cpus, const char *row)
{
	unsigned long long page_kib = sysconf(_SC_PAGESIZE) / BYTES_A_KIB;
	char packed[LONGEST_ROW];

	pack_row(row, packed, sizeof(packed));
	say("node %d cpus=%s memory_kib=%llu distances=%s", node, cpus,
	    present_pages[node] * page_kib, packed);
}

static void say_numa_node(int node)
{
	char path[LONGEST_PATH], cpus[LONGEST_CPUS], row[LONGEST_LINE];

	snprintf(path, sizeof(path), NODES "/node%d/cpulist", node);
	read_line(path, cpus, sizeof(cpus));
	snprintf(path, sizeof(path), NODES "/node%d/distance", node);
	read_line(path, row, sizeof(row));
	say_node(node, cpus, row);
}

/* Whether a CPU is the first of those that share its socket or core. */
static bool is_first(long cpu, const char *siblings)
{
	char path[LONGEST_PATH], cpus[LONGEST_CPUS];

	snprintf(path, sizeof(path), CPU "/cpu%ld/topology/%s", cpu, siblings);
	read_line(path, cpus, sizeof(cpus));
	return cpus[0] && strtol(cpus, NULL, 10) == cpu;
}

static void say_packages(void)
{
	char online[LONGEST_LINE], *at = online;
	size_t sockets = 0, cores = 0, threads = 0;
	long first, last;

	read_line(CPUS, online, sizeof(online));
	while (*at >= '0' && *at <= '9') {
		first = last = strtol(at, &at, 10);
		if (*at == '-')
			last = strtol(at + 1, &at, 10);
		for (; first <= last; first++) {
			sockets += is_first(first, "core_siblings_list");
			cores += is_first(first, "thread_siblings_list");
			threads++;
		}
		at += *at == ',';
	}
	say("cpus sockets=%zu cores=%zu threads=%zu", sockets, cores, threads);
}

static void say_numa_nodes(void)
{
	char online[LONGEST_LINE], cpus[LONGEST_CPUS], *at = online;
	long first, last;

	read_present_pages();
	read_line(NODES "/online", online, sizeof(online));
	if (!online[0]) {
		read_line(CPUS, cpus, sizeof(cpus));
		say_node(0, cpus, LOCAL);
		return;
	}
	/* a list of ranges: 0-3,5 */
	while (*at) {
		first = last = strtol(at, &at, 10);
		if (*at == '-')
			last = strtol(at + 1, &at, 10);
		for (; first <= last && first < MOST_NODES; first++)
			say_numa_node(first);
		if (*at != ',')
			break;
		at++;
	}
}

void say_nodes(void)
{
	say_numa_nodes();
	say_packages();
}
