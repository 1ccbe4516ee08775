/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LABCTL_INIT_H
#define LABCTL_INIT_H

/* One line on the console; it must fit into a record of the kernel's log. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/* Say of each NUMA node which CPUs, memory and distances it has. */
void say_nodes(void);

#endif
