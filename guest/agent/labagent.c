// SPDX-License-Identifier: GPL-2.0-only
/*
 * labagent: runs one command at a time for the host at the other end of a
 * terminal (see frame.h for the protocol).
 *
 * It waits only in poll(), and never without limit: neither for a host that
 * stopped reading, nor for a child that cannot be killed. A new request kills
 * the previous command, as its client is gone.
 */
#define _GNU_SOURCE
#include "command.h"
#include "port.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define BEAT_NANOSECONDS 1000000000ULL
/* Time limit for the end of a killed command before the next one starts. */
#define DYING_NANOSECONDS   10000000000ULL
#define TELL_TAKEN_BYTES    (WINDOW_BYTES / 4)
#define NANOS_A_MILLISECOND 1000000

static struct port port;
static struct frame_reader reader;
static struct command command;
static pid_t dying;
static uint64_t dying_until;
static uint64_t next_beat;

static void forget_command(void)
{
	if (!command.active)
		return;
	if (command.pid > 0 && !command.exited) {
		dying = command.pid;
		dying_until = now_nanoseconds() + DYING_NANOSECONDS;
	}
	command_forget(&command);
}

static void send_exit(void)
{
	uint8_t payload[28];

	frame_put_u32(payload, command.status);
	frame_put_u64(payload + 4, command.stdout_bytes);
	frame_put_u64(payload + 12, command.stderr_bytes);
	frame_put_u64(payload + 20, command.elapsed_nanoseconds);
	port_send(&port, FRAME_EXIT, command.id, payload, sizeof(payload));
	command_forget(&command);
}

static void start_command(void)
{
	char message[256];
	int error = command_start(&command);

	port_send(&port, FRAME_STARTED, command.id, NULL, 0);
	if (!error)
		return;
	snprintf(message, sizeof(message), "labagent: %.180s: %s\n",
		 command.argv, strerror(error));
	command.stderr_bytes += strlen(message);
	port_send(&port, FRAME_STDERR, command.id, message, strlen(message));
}

static void handle(const struct frame *frame)
{
	bool mine = command.active &&
		    !memcmp(frame->id, command.id, FRAME_ID_BYTES);
	bool good = true;

	switch (frame->type) {
	case FRAME_HELLO:
		forget_command();
		port_drop(&port);
		port_send(&port, FRAME_WELCOME, frame->id, NULL, 0);
		break;
	case FRAME_RUN:
		forget_command();
		good = frame->length == 4 &&
		       command_prepare(&command, frame->id,
				       frame_get_u32(frame->payload));
		next_beat = now_nanoseconds() + BEAT_NANOSECONDS;
		break;
	case FRAME_STREAM:
		if (mine)
			good = command_feed(&command, frame->payload,
					    frame->length);
		break;
	case FRAME_END_OF_STREAM:
		if (mine)
			command.stream_ended = true;
		break;
	case FRAME_KILL:
		if (mine)
			command_kill(&command);
		break;
	default:
		/* An echo of our own frames, or a type of a newer version. */
		break;
	}
	if (!good)
		port_send(&port, FRAME_DAMAGED, frame->id, NULL, 0);
}

/* Return -1 when the other end of the line is closed. */
static int read_port(void)
{
	static const uint8_t nobody[FRAME_ID_BYTES];
	uint8_t bytes[4096];
	struct frame frame;
	ssize_t length = read(port.file, bytes, sizeof(bytes));

	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	if (length == 0)
		return -1;
	for (ssize_t i = 0; i < length; i++) {
		switch (frame_take(&reader, bytes[i], &frame)) {
		case FRAME_GOOD:
			handle(&frame);
			break;
		case FRAME_BAD:
			port_send(&port, FRAME_DAMAGED, nobody, NULL, 0);
			break;
		case FRAME_NOTHING:
			break;
		}
	}
	return 0;
}

static void reap(int signals)
{
	struct signalfd_siginfo ignored;
	int status;
	pid_t pid;

	while (read(signals, &ignored, sizeof(ignored)) > 0)
		;
	for (;;) {
		siginfo_t child = { .si_pid = 0 };

		if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) ||
		    child.si_pid == 0)
			return;
		/* While the leader is a zombie, the group's ID is not reused.
		 */
		if (command.active && child.si_pid == command.pid)
			command_kill(&command);
		pid = waitpid(child.si_pid, &status, 0);
		if (pid == dying)
			dying = 0;
		if (command.active && pid == command.pid)
			command_reaped(&command, status);
	}
}

/*
 * Forward the content of a pipe. After the child's end, forward only what was
 * in the pipe then: a daemon may keep the other end open and write forever.
 */
static void pass_on(int *pipe, enum frame_type type, size_t *left,
		    uint64_t *total)
{
	static uint8_t bytes[FRAME_PAYLOAD_BYTES];
	size_t wanted = sizeof(bytes);
	ssize_t length;

	if (*pipe < 0 || !port_has_room(&port))
		return;
	if (command.exited && *left < wanted)
		wanted = *left;
	length = wanted ? read(*pipe, bytes, wanted) : 0;
	if (length > 0) {
		*total += length;
		if (command.exited)
			*left -= length;
		port_send(&port, type, command.id, bytes, length);
	} else if (length == 0 || command.exited ||
		   (errno != EAGAIN && errno != EINTR)) {
		close(*pipe);
		*pipe = -1;
	}
}

static void tell_taken(void)
{
	uint8_t payload[8];

	if (command.taken_bytes - command.told_bytes < TELL_TAKEN_BYTES)
		return;
	command.told_bytes = command.taken_bytes;
	frame_put_u64(payload, command.taken_bytes);
	port_send(&port, FRAME_TAKEN, command.id, payload, sizeof(payload));
}

static void work(void)
{
	uint64_t now = now_nanoseconds();

	if (!command.active)
		return;
	if (!command.started && command_is_complete(&command) &&
	    (!dying || now >= dying_until))
		start_command();
	command_push_input(&command);
	tell_taken();
	pass_on(&command.output, FRAME_STDOUT, &command.output_left,
		&command.stdout_bytes);
	pass_on(&command.errors, FRAME_STDERR, &command.errors_left,
		&command.stderr_bytes);
	if (command.exited && command.output < 0 && command.errors < 0) {
		send_exit();
	} else if (now >= next_beat) {
		if (port_is_idle(&port))
			port_send(&port, FRAME_BEAT, command.id, NULL, 0);
		next_beat = now + BEAT_NANOSECONDS;
	}
}

static int wait_milliseconds(void)
{
	uint64_t now = now_nanoseconds();

	if (!command.active)
		return -1;
	/* The rest in the pipes of an ended child is read without waiting. */
	if (command.exited && port_has_room(&port))
		return 0;
	return now >= next_beat ? 0
				: (next_beat - now) / NANOS_A_MILLISECOND + 1;
}

static int serve(int signals)
{
	for (;;) {
		bool room = command.active && port_has_room(&port);
		struct pollfd files[] = {
			{ .fd = port.file,
			  .events = POLLIN |
				    (port_is_idle(&port) ? 0 : POLLOUT) },
			{ .fd = signals, .events = POLLIN },
			{ .fd = room ? command.output : -1, .events = POLLIN },
			{ .fd = room ? command.errors : -1, .events = POLLIN },
			{ .fd = command.active && command.pending_bytes
					? command.input
					: -1,
			  .events = POLLOUT },
		};

		if (poll(files, sizeof(files) / sizeof(files[0]),
			 wait_milliseconds()) < 0 &&
		    errno != EINTR)
			return -1;
		if (files[1].revents)
			reap(signals);
		if (files[0].revents & (POLLIN | POLLHUP | POLLERR) &&
		    read_port())
			return -1;
		work();
		if (port_flush(&port))
			return -1;
	}
}

int main(int argc, char **argv)
{
	sigset_t children;
	int signals;

	if (argc < 2 || argc > 3) {
		fprintf(stderr,
			"usage: labagent TERMINAL [READY_DESCRIPTOR]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	signals = signalfd(-1, &children, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signals < 0 || port_open(&port, argv[1])) {
		fprintf(stderr, "labagent: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (argc == 3) {
		int ready = atoi(argv[2]);

		if (write(ready, "", 1) != 1 || close(ready))
			return 1;
	}
	serve(signals);
	forget_command();
	return 1;
}
