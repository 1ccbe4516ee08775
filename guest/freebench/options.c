// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "../lib/size.h"
#include "freebench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_THREADS 1024

static const struct operation *const all_operations[] = { &op_free, &op_munmap,
							  &op_dontneed,
							  &op_exit, NULL };

const struct operation *const *operations(void)
{
	return all_operations;
}

static void print_help(void)
{
	puts("usage: freebench [--op OP] [--size BYTES] [--threads N]\n"
	     "                 [--placement WHERE] [--thp HOW] [--watch WHAT]\n"
	     "\n"
	     "Populates memory, frees it, and prints the times as one line of\n"
	     "JSON.\n"
	     "\n"
	     "  --op OP            timed operation (default free):");
	for (int i = 0; all_operations[i]; i++)
		printf("      %-9s %s\n", all_operations[i]->name,
		       all_operations[i]->help);
	puts("  --size BYTES       bytes, or with KiB, MiB, GiB, or a share "
	     "of\n"
	     "                     the memory: 50% (default 1GiB)\n"
	     "  --threads N        populating threads, each on its own CPU\n"
	     "                     (default: one per CPU)\n"
	     "  --placement WHERE  local (default): node of the populating\n"
	     "                     thread, or a near one if it has no memory;\n"
	     "                     interleave: all nodes with memory;\n"
	     "                     node:N: one node\n"
	     "  --thp HOW          transparent huge pages: never, always, or\n"
	     "                     as-is (default): the system's setting\n"
	     "  --watch WHAT       functions: time in kernel functions that "
	     "zap\n"
	     "                     and free; locks: time waiting for kernel\n"
	     "                     locks; nothing (default). Needs a kernel\n"
	     "                     built with support for it\n"
	     "\n"
	     "exit status: 0 measured, 1 a check failed, 2 wrong arguments,\n"
	     "4 not supported on this system");
}

static size_t size_option(const char *text)
{
	size_t size;

	if (!parse_size(text, &size))
		die(WRONG_USAGE,
		    "--size: %s: expected a size like 3GiB or 50%%", text);
	if (size < (size_t)getpagesize())
		die(WRONG_USAGE, "--size: %s is less than a page", text);
	return size;
}

static int parse_count(const char *option, const char *text, int least,
		       int most)
{
	unsigned long long value;
	char *end;

	value = parse_number(text, &end);
	if (end == text || *end || value < (unsigned long long)least ||
	    value > (unsigned long long)most)
		die(WRONG_USAGE, "%s: %s is not a number from %d to %d", option,
		    text, least, most);
	return value;
}

static const struct operation *parse_operation(const char *text)
{
	for (int i = 0; all_operations[i]; i++)
		if (!strcmp(all_operations[i]->name, text))
			return all_operations[i];
	die(WRONG_USAGE, "--op: %s: expected free, munmap, dontneed or exit",
	    text);
}

static void parse_placement(struct options *options, const char *text)
{
	if (!strcmp(text, "local")) {
		options->placement = PLACE_LOCAL;
	} else if (!strcmp(text, "interleave")) {
		options->placement = PLACE_INTERLEAVE;
	} else if (!strncmp(text, "node:", 5)) {
		options->placement = PLACE_NODE;
		options->node =
			parse_count("--placement", text + 5, 0, MOST_NODES - 1);
	} else {
		die(WRONG_USAGE,
		    "--placement: %s: expected local, interleave or node:N",
		    text);
	}
}

static enum thp parse_thp(const char *text)
{
	if (!strcmp(text, "never"))
		return THP_NEVER;
	if (!strcmp(text, "always"))
		return THP_ALWAYS;
	if (!strcmp(text, "as-is"))
		return THP_AS_IS;
	die(WRONG_USAGE, "--thp: %s: expected never, always or as-is", text);
}

static enum watch parse_watch(const char *text)
{
	if (!strcmp(text, "nothing"))
		return WATCH_NOTHING;
	if (!strcmp(text, "functions"))
		return WATCH_FUNCTIONS;
	if (!strcmp(text, "locks"))
		return WATCH_LOCKS;
	die(WRONG_USAGE, "--watch: %s: expected nothing, functions or locks",
	    text);
}

void options_parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "op", required_argument, NULL, 'o' },
		{ "size", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "placement", required_argument, NULL, 'p' },
		{ "thp", required_argument, NULL, 'h' },
		{ "watch", required_argument, NULL, 'w' },
		{ "help", no_argument, NULL, '?' + 1 },
		{ NULL, 0, NULL, 0 }
	};
	int letter;

	*options = (struct options){ .operation = &op_free,
				     .size = 1UL << 30,
				     .threads = allowed_cpus() };
	while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (letter) {
		case 'o':
			options->operation = parse_operation(optarg);
			break;
		case 's':
			options->size = size_option(optarg);
			break;
		case 't':
			options->threads = parse_count("--threads", optarg, 1,
						       MOST_THREADS);
			break;
		case 'p':
			parse_placement(options, optarg);
			break;
		case 'h':
			options->thp = parse_thp(optarg);
			break;
		case 'w':
			options->watch = parse_watch(optarg);
			break;
		case '?' + 1:
			print_help();
			exit(PASSED);
		default:
			/* getopt has printed the error. */
			exit(WRONG_USAGE);
		}
	}
	if (optind < argc)
		die(WRONG_USAGE, "%s: unexpected argument", argv[optind]);
}
