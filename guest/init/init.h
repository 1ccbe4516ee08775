/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LABCTL_INIT_H
#define LABCTL_INIT_H

/* Print one line to the console; it must fit into a record of the kernel log.
 */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/*
 * Print the CPUs, memory and distances of each NUMA node, and the number of
 * sockets, cores and threads.
 */
void say_nodes(void);

#endif
