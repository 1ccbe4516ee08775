// SPDX-License-Identifier: GPL-2.0-only
/*
 * exit-free: how long does a process that has most of the memory take to exit?
 *
 * A child touches 80 % of the memory by as many threads as there are CPUs. Its
 * parent kills it, and measures the time until it is gone. This is the
 * measurement of lkp's job of this name; the program was written for labctl.
 */
#include "common.h"
#include "memory.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void eat(const struct options *options, int ready)
{
	populate(map_anonymous(options->size), options->size, options->threads);
	if (write(ready, "", 1) != 1)
		die(FAILED, "write: %s", strerror(errno));
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct options options = memory_options(
		argc, argv, "exit-free: time of the exit of a large process");
	uint64_t forked, began, ended;
	int ready[2], status;
	char byte;
	pid_t child;

	if (pipe(ready))
		die(FAILED, "pipe: %s", strerror(errno));
	forked = nanoseconds();
	child = fork();
	if (child < 0)
		die(FAILED, "fork: %s", strerror(errno));
	if (!child) {
		close(ready[0]);
		eat(&options, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		die(FAILED, "the process with the memory ended early");
	began = nanoseconds();
	kill(child, SIGKILL);
	if (waitpid(child, &status, 0) != child)
		die(FAILED, "waitpid: %s", strerror(errno));
	ended = nanoseconds();
	return memory_report(&options, began - forked, ended - began);
}
