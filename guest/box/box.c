// SPDX-License-Identifier: GPL-2.0-only
/*
 * labbox: run a program that may use some files only, by Landlock(7).
 *
 *   labbox [-r PATH] [-w PATH] [-p PORT] ... -- PROGRAM [ARGUMENT...]
 *
 *   -r PATH  files below PATH may be read and executed
 *   -w PATH  files below PATH may be used in every way
 *   -p PORT  the program may bind to this TCP port; 0 is one that the kernel
 *            chooses
 *
 * A PATH that does not exist is ignored. The program may not connect by TCP
 * or to abstract sockets, nor signal others, as far as the kernel of the host
 * can deny it. Without Landlock, the program runs unrestricted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From the kernel's interface, since headers may be older than the kernel. */
#define CREATE_RULESET 444
#define ADD_RULE       445
#define RESTRICT_SELF  446
#define ASK_VERSION    1

#define EXECUTE      (1ULL << 0)
#define WRITE_FILE   (1ULL << 1)
#define READ_FILE    (1ULL << 2)
#define READ_DIR     (1ULL << 3)
#define REFER        (1ULL << 13)
#define TRUNCATE     (1ULL << 14)
#define FIRST_RIGHTS ((1ULL << 13) - 1)
#define OF_FILES     (EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE)
#define READING      (EXECUTE | READ_FILE | READ_DIR)

#define BIND_TCP         (1ULL << 0)
#define CONNECT_TCP      (1ULL << 1)
#define ABSTRACT_SOCKETS (1ULL << 0)
#define SIGNALS          (1ULL << 1)

enum rule {
	BENEATH = 1,
	PORT = 2
};

struct ruleset {
	uint64_t files;
	uint64_t ports;
	uint64_t scopes;
};

struct beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

struct port {
	uint64_t allowed;
	uint64_t number;
};

static void die(const char *what, const char *of)
{
	fprintf(stderr, "labbox: %s: %s: %s\n", what, of, strerror(errno));
	exit(125);
}

static void allow_files(int ruleset, const char *path, uint64_t rights)
{
	struct beneath rule = { .allowed = rights };
	struct stat facts;

	rule.parent = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent < 0) {
		if (errno == ENOENT || errno == EACCES || errno == ENOTDIR)
			return;
		die("open", path);
	}
	if (fstat(rule.parent, &facts))
		die("stat", path);
	if (!S_ISDIR(facts.st_mode))
		rule.allowed &= OF_FILES;
	if (syscall(ADD_RULE, ruleset, BENEATH, &rule, 0))
		die("allow", path);
	close(rule.parent);
}

static void allow_port(int ruleset, const char *number)
{
	struct port rule = { .allowed = BIND_TCP,
			     .number = strtoul(number, NULL, 10) };

	if (syscall(ADD_RULE, ruleset, PORT, &rule, 0))
		die("allow port", number);
}

/* What a version of Landlock can deny. */
static struct ruleset denied(long version)
{
	struct ruleset all = { .files = FIRST_RIGHTS };

	if (version >= 2)
		all.files |= REFER;
	if (version >= 3)
		all.files |= TRUNCATE;
	if (version >= 4)
		all.ports = BIND_TCP | CONNECT_TCP;
	if (version >= 6)
		all.scopes = ABSTRACT_SOCKETS | SIGNALS;
	return all;
}

int main(int argc, char **argv)
{
	long version = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);
	struct ruleset all = denied(version);
	int ruleset = -1, option;

	if (version > 0) {
		ruleset = syscall(CREATE_RULESET, &all, sizeof(all), 0);
		if (ruleset < 0)
			die("create", "ruleset");
	}
	while ((option = getopt(argc, argv, "+r:w:p:")) != -1) {
		if (option == '?')
			return 125;
		if (ruleset < 0)
			continue;
		if (option == 'p') {
			if (all.ports)
				allow_port(ruleset, optarg);
		} else {
			allow_files(ruleset, optarg,
				    option == 'w' ? all.files : READING);
		}
	}
	if (optind >= argc) {
		fputs("usage: labbox [-r PATH] [-w PATH] [-p PORT] ... -- "
		      "PROGRAM [ARGUMENT...]\n",
		      stderr);
		return 125;
	}
	if (ruleset >= 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			die("prctl", "no new privileges");
		if (syscall(RESTRICT_SELF, ruleset, 0))
			die("restrict", argv[optind]);
		close(ruleset);
	}
	execvp(argv[optind], argv + optind);
	fprintf(stderr, "labbox: %s: %s\n", argv[optind], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}
