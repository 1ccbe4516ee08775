// SPDX-License-Identifier: GPL-2.0-only
/*
 * freebench: how long does it take to free memory?
 *
 * One repetition per process: map, populate, check that the memory is as
 * requested, free it while timing, wait until the kernel has all of it back,
 * print one line of JSON.
 */
#include "freebench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void die(int status, const char *format, ...)
{
	va_list arguments;

	fputs("freebench: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	/* Not exit(): a child must not flush its parent's buffered output. */
	_exit(status);
}

int main(int argc, char **argv)
{
	struct options options;
	static struct result result;

	setvbuf(stdout, NULL, _IOLBF, 0);
	options_parse(&options, argc, argv);
	check_room(&options);
	measure(&options, &result);
	report(&options, &result);
	return ferror(stdout) ? FAILED : PASSED;
}
