// SPDX-License-Identifier: GPL-2.0-only
/*
 * Run the QEMU of a packed lab with its own loader, libraries, modules and
 * firmware, whatever the host has. Named as QEMU is, in a folder bin beside
 * the folder qemu:
 *
 *   bin/NAME             this program
 *   qemu/ld.so           the loader
 *   qemu/lib/            shared libraries
 *   qemu/modules/        modules of QEMU
 *   qemu/firmware/       firmware and option ROMs
 *   qemu/NAME            QEMU
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OWN_WORDS 8

static char *path_of(const char *root, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/qemu/%s", root, name) < 0) {
		perror("labctl: QEMU");
		exit(1);
	}
	return path;
}

int main(int argc, char **argv)
{
	char root[PATH_MAX];
	char **words = calloc(argc + OWN_WORDS, sizeof(*words));
	ssize_t length = readlink("/proc/self/exe", root, sizeof(root) - 1);
	char *name, *slash;
	int count = 0;

	if (!words || length < 0) {
		perror("labctl: QEMU: /proc/self/exe");
		return 1;
	}
	root[length] = '\0';
	slash = strrchr(root, '/');
	name = strdup(slash + 1);
	*slash = '\0';
	slash = strrchr(root, '/');
	*slash = '\0';

	words[count++] = path_of(root, "ld.so");
	words[count++] = "--library-path";
	words[count++] = path_of(root, "lib");
	words[count++] = "--argv0";
	words[count++] = name;
	words[count++] = path_of(root, name);
	words[count++] = "-L";
	words[count++] = path_of(root, "firmware");
	for (int i = 1; i < argc; i++)
		words[count++] = argv[i];
	setenv("QEMU_MODULE_DIR", path_of(root, "modules"), 1);
	execv(words[0], words);
	fprintf(stderr, "labctl: %s: %s\n", words[0], strerror(errno));
	return 1;
}
