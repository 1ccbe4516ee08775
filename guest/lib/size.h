/* SPDX-License-Identifier: GPL-2.0-only */
/* Sizes and numbers on the command line of guest programs. */
#ifndef LABCTL_SIZE_H
#define LABCTL_SIZE_H

#include <stdbool.h>
#include <stddef.h>

/* A decimal number; `end` is `text` if it has no number or one too large. */
unsigned long long parse_number(const char *text, char **end);

/*
 * Is `text` a size in bytes or with a unit, or a share of the memory: 512MiB,
 * 80%? `size` is in bytes, and may be smaller than a page.
 */
bool parse_size(const char *text, size_t *size);

#endif
