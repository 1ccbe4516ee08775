/* SPDX-License-Identifier: GPL-2.0-only */
/* The command that runs for the host, with its three pipes. */
#ifndef LABCTL_COMMAND_H
#define LABCTL_COMMAND_H

#include "frame.h"

#include <sys/types.h>

/* Maximum number of bytes of the stream that the host sends ahead. */
#define WINDOW_BYTES       16384
#define LARGEST_ARGV_BYTES (1 << 20)

struct command {
	bool active; /* a request was received, its exit frame not yet sent */
	bool started;
	bool exited;
	uint8_t id[FRAME_ID_BYTES];
	pid_t pid;
	int status; /* as a shell reports it: 128 + signal */
	int input;  /* the child's standard streams, -1 when closed */
	int output;
	int errors;
	char *argv; /* words, each ended by NUL */
	size_t argv_bytes;
	size_t argv_have;
	uint8_t pending[WINDOW_BYTES]; /* stdin that the child has not taken */
	size_t pending_start;
	size_t pending_bytes;
	bool stream_ended;
	uint64_t taken_bytes;
	uint64_t told_bytes;
	size_t output_left; /* in the pipes when the child ended */
	size_t errors_left;
	uint64_t stdout_bytes;
	uint64_t stderr_bytes;
	uint64_t began_nanoseconds;
	uint64_t elapsed_nanoseconds;
};

uint64_t now_nanoseconds(void);

bool command_prepare(struct command *command, const uint8_t *id,
		     size_t argv_bytes);
/* Take a piece of the stream; false if the host overran the window. */
bool command_feed(struct command *command, const uint8_t *data, size_t length);
bool command_is_complete(const struct command *command);
/* Return 0, or the errno of a failed start. */
int command_start(struct command *command);
void command_push_input(struct command *command);
void command_kill(const struct command *command);
/* Record that the child was reaped. */
void command_reaped(struct command *command, int wait_status);
/* Close and forget everything; a running child is killed, not reaped. */
void command_forget(struct command *command);

#endif
