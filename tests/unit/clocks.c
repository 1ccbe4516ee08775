// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into a Python: CLOCK_REALTIME and CLOCK_BOOTTIME are ahead by the two numbers
 * of seconds in the file CLOCKS, which another program may change at any time.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
	long ahead[2] = {0, 0};
	int status = syscall(SYS_clock_gettime, clock, now);
	FILE *file;

	if (clock != CLOCK_REALTIME && clock != CLOCK_BOOTTIME)
		return status;
	file = fopen(getenv("CLOCKS"), "r");
	if (file) {
		if (fscanf(file, "%ld %ld", &ahead[0], &ahead[1]) != 2)
			abort();
		fclose(file);
	}
	now->tv_sec += ahead[clock == CLOCK_BOOTTIME];
	return status;
}
