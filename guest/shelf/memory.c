// SPDX-License-Identifier: GPL-2.0-only
#include "memory.h"
#include "common.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct options memory_options(int argc, char **argv, const char *about)
{
	static const struct option names[] = {
		{ "size", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	const char *size = "80%", *threads = "auto";
	struct options options;
	int letter;

	while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (letter) {
		case 's':
			size = optarg;
			break;
		case 't':
			threads = optarg;
			break;
		case 'h':
			printf("%s\n\n"
			       "  --size SIZE        512MiB, or a share of the "
			       "memory (80%%)\n"
			       "  --threads N        threads that touch the "
			       "memory (auto: one per CPU)\n",
			       about);
			exit(0);
		default:
			/* getopt has printed the error. */
			exit(WRONG_USAGE);
		}
	}
	if (optind < argc)
		die(WRONG_USAGE, "%s: unexpected argument", argv[optind]);
	options.size =
		size_option("--size", size) / getpagesize() * getpagesize();
	options.threads = parse_tasks("--threads", threads);
	return options;
}

int memory_report(const struct options *options, uint64_t populate,
		  uint64_t elapsed)
{
	printf("{\"size_bytes\": %zu, \"threads\": %d, "
	       "\"populate_nanoseconds\": %" PRIu64
	       ", \"elapsed_nanoseconds\": %" PRIu64 "}\n",
	       options->size, options->threads, populate, elapsed);
	return fflush(stdout) ? FAILED : 0;
}
