// SPDX-License-Identifier: GPL-2.0-only
/*
 * labstart: run a program that the kernel kills when its parent dies.
 *
 *   labstart PARENT PROGRAM [ARGUMENT...]
 *
 * It does what setpriv(1) and a shell do for labctl, on a machine that has
 * neither. If the process PARENT died before the request, the kernel would
 * never send the signal: the program is then not run.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 3) {
		fputs("usage: labstart PARENT PROGRAM [ARGUMENT...]\n", stderr);
		return 2;
	}
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) {
		perror("labstart: prctl");
		return 1;
	}
	if (getppid() != atoi(argv[1]))
		return 1;
	execvp(argv[2], argv + 2);
	fprintf(stderr, "labstart: %s: %s\n", argv[2], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}
