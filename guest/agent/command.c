// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

uint64_t now_nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void close_pipe(int *file)
{
	if (*file >= 0)
		close(*file);
	*file = -1;
}

bool command_prepare(struct command *command, const uint8_t *id,
		     size_t argv_bytes)
{
	if (argv_bytes == 0 || argv_bytes > LARGEST_ARGV_BYTES)
		return false;
	memset(command, 0, sizeof(*command));
	command->input = -1;
	command->output = -1;
	command->errors = -1;
	command->argv = malloc(argv_bytes);
	command->argv_bytes = argv_bytes;
	memcpy(command->id, id, FRAME_ID_BYTES);
	command->active = command->argv != NULL;
	return command->active;
}

bool command_feed(struct command *command, const uint8_t *data, size_t length)
{
	size_t words = command->argv_bytes - command->argv_have;
	size_t end;

	if (words > length)
		words = length;
	memcpy(command->argv + command->argv_have, data, words);
	command->argv_have += words;
	command->taken_bytes += words;
	data += words;
	length -= words;

	if (command->started && command->input < 0) {
		/* Nothing will read it: discard it, so that the host can go on.
		 */
		command->taken_bytes += length;
		return true;
	}
	if (length > WINDOW_BYTES - command->pending_bytes)
		return false;
	end = command->pending_start + command->pending_bytes;
	for (size_t i = 0; i < length; i++)
		command->pending[(end + i) % WINDOW_BYTES] = data[i];
	command->pending_bytes += length;
	return true;
}

bool command_is_complete(const struct command *command)
{
	return command->active && command->argv_have == command->argv_bytes;
}

static char **split_words(struct command *command)
{
	size_t count = 0, used = 0;
	char **words;

	command->argv[command->argv_bytes - 1] = '\0';
	for (size_t i = 0; i < command->argv_bytes; i++)
		count += command->argv[i] == '\0';
	words = calloc(count + 1, sizeof(*words));
	for (size_t i = 0; words && i < count; i++) {
		words[i] = command->argv + used;
		used += strlen(words[i]) + 1;
	}
	return words;
}

static int spawn(struct command *command, char **words, const int child[3])
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int error;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID |
						      POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawn_file_actions_init(&files);
	for (int i = 0; i < 3; i++)
		posix_spawn_file_actions_adddup2(&files, child[i], i);
	error = posix_spawnp(&command->pid, words[0], &files, &attributes,
			     words, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	return error;
}

int command_start(struct command *command)
{
	int pipes[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	char **words = split_words(command);
	int error = words ? 0 : ENOMEM;

	for (int i = 0; i < 3 && !error; i++)
		error = pipe2(pipes[i], O_CLOEXEC) ? errno : 0;
	command->started = true;
	command->began_nanoseconds = now_nanoseconds();
	if (!error) {
		const int child[3] = { pipes[0][0], pipes[1][1], pipes[2][1] };

		command->input = pipes[0][1];
		command->output = pipes[1][0];
		command->errors = pipes[2][0];
		pipes[0][1] = pipes[1][0] = pipes[2][0] = -1;
		fcntl(command->input, F_SETFL, O_NONBLOCK);
		fcntl(command->output, F_SETFL, O_NONBLOCK);
		fcntl(command->errors, F_SETFL, O_NONBLOCK);
		error = spawn(command, words, child);
	}
	for (int i = 0; i < 3; i++) {
		close_pipe(&pipes[i][0]);
		close_pipe(&pipes[i][1]);
	}
	free(words);
	if (error) {
		command->pid = 0;
		command->exited = true;
		command->status = error == ENOENT ? 127 : 126;
		close_pipe(&command->input);
	}
	return error;
}

void command_push_input(struct command *command)
{
	while (command->input >= 0 && command->pending_bytes) {
		size_t length = WINDOW_BYTES - command->pending_start;
		ssize_t taken;

		if (length > command->pending_bytes)
			length = command->pending_bytes;
		taken = write(command->input,
			      command->pending + command->pending_start,
			      length);
		if (taken < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (taken < 0) {
			close_pipe(&command->input);
			break;
		}
		command->pending_start += taken;
		command->pending_start %= WINDOW_BYTES;
		command->pending_bytes -= taken;
		command->taken_bytes += taken;
	}
	if (command->started && command->input < 0) {
		command->taken_bytes += command->pending_bytes;
		command->pending_bytes = 0;
	}
	if (command->stream_ended && !command->pending_bytes)
		close_pipe(&command->input);
}

void command_kill(const struct command *command)
{
	/* After its leader was reaped, the group's ID may be reused. */
	if (command->pid > 0 && !command->exited)
		kill(-command->pid, SIGKILL);
}

static size_t bytes_in(int pipe)
{
	int bytes = 0;

	return pipe >= 0 && !ioctl(pipe, FIONREAD, &bytes) ? bytes : 0;
}

void command_reaped(struct command *command, int wait_status)
{
	command->elapsed_nanoseconds =
		now_nanoseconds() - command->began_nanoseconds;
	command->exited = true;
	command->status = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status)
						   : WEXITSTATUS(wait_status);
	command->output_left = bytes_in(command->output);
	command->errors_left = bytes_in(command->errors);
	close_pipe(&command->input);
	command_push_input(command);
}

void command_forget(struct command *command)
{
	command_kill(command);
	close_pipe(&command->input);
	close_pipe(&command->output);
	close_pipe(&command->errors);
	free(command->argv);
	command->argv = NULL;
	command->active = false;
}
