// SPDX-License-Identifier: GPL-2.0-only
#include "size.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned long long parse_number(const char *text, char **end)
{
	unsigned long long value;

	errno = 0;
	value = strtoull(text, end, 10);
	if (!isdigit((unsigned char)text[0]) || errno)
		*end = (char *)text;
	return value;
}

static size_t share_of_memory(unsigned long long percent)
{
	size_t total = (size_t)sysconf(_SC_PHYS_PAGES) * getpagesize();

	/* Whole MiB: kernels differ in the few pages that they reserve. */
	return total / 100 * percent >> 20 << 20;
}

bool parse_size(const char *text, size_t *size)
{
	static const struct {
		const char *suffix;
		unsigned int shift;
	} units[] = { { "", 0 }, { "KiB", 10 }, { "MiB", 20 }, { "GiB", 30 } };
	unsigned long long value;
	char *end;

	value = parse_number(text, &end);
	if (end == text)
		return false;
	if (!strcmp(end, "%")) {
		*size = share_of_memory(value);
		return value && value <= 100;
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (strcmp(end, units[i].suffix))
			continue;
		*size = value << units[i].shift;
		return value <= (SIZE_MAX >> 1) >> units[i].shift;
	}
	return false;
}
