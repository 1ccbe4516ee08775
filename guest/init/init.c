// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of a guest: mounts file systems, starts the agent on the
 * command port and, if configured, an SSH server, prints one ready line to the
 * console, and then reaps children. The guest powers off when the agent ends.
 *
 * Another init may start it too (virtme-ng): then labctl's programs are in the
 * folder of argv[0].
 */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * The second serial port. On arm64 the console is a PL011, so the second port
 * is the first 16550.
 */
#ifdef __aarch64__
#define COMMAND_TTY "ttyS0"
#else
#define COMMAND_TTY "ttyS1"
#endif
#define COMMAND_PORT  "/dev/" COMMAND_TTY
#define SSH_START     "/etc/labctl/ssh-start"
#define MODULES_START "/etc/labctl/modules-start"
#define ROOTS_START   "/etc/labctl/roots-start"

static const struct {
	const char *type;
	const char *target;
} mounts[] = {
	{ "proc", "/proc" },    { "sysfs", "/sys" },
	{ "devtmpfs", "/dev" }, { "debugfs", "/sys/kernel/debug" },
	{ "tmpfs", "/tmp" },    { "tmpfs", "/run" },
};

static char program_folder[PATH_MAX] = "/bin";
static char search_path[PATH_MAX + 128] = "PATH=/bin:/sbin:/usr/bin:/usr/sbin";
static char *const environment[] = {
	search_path, "HOME=/root", "USER=root", "LC_ALL=C", NULL,
};

/*
 * Print one line to the console. It goes through the kernel log, so that other
 * output cannot split it; level 1 is printed even with `quiet`.
 */
void say(const char *format, ...)
{
	static const char prefix[] = "<1>labctl: ";
	char line[900]; /* a record of the kernel log has at most 976 bytes */
	va_list arguments;
	int log, length;

	memcpy(line, prefix, sizeof(prefix));
	va_start(arguments, format);
	length = vsnprintf(line + sizeof(prefix) - 1,
			   sizeof(line) - sizeof(prefix), format, arguments);
	va_end(arguments);
	length += sizeof(prefix) - 1;
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	/* Without a newline the kernel delays the line. */
	line[length++] = '\n';
	line[length] = '\0';

	log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (log < 0 || write(log, line, length) < 0)
		dprintf(STDERR_FILENO, "%s", line + 3);
	if (log >= 0)
		close(log);
}

static void end_guest(void)
{
	sync();
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

/* With another init, /tmp and /run are mounted already. */
static void mount_all(bool is_first)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++)
		if (!is_first && !strcmp(mounts[i].type, "tmpfs"))
			continue;
		else if (mount(mounts[i].type, mounts[i].target, mounts[i].type,
			       0, NULL) &&
			 errno != EBUSY)
			say("cannot mount %s: %s", mounts[i].target,
			    strerror(errno));
}

static void read_boot_id(char *id, size_t size)
{
	int file =
		open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, id, size - 1);

	if (file >= 0)
		close(file);
	id[length > 0 ? length : 0] = '\0';
	id[strcspn(id, "\n")] = '\0';
}

/*
 * Raise the receive interrupt at 14 of the port's 16 bytes instead of 8: input
 * is 1.7 times as fast, and an emulated port cannot overrun.
 */
static void tune_port(void)
{
	int file = open("/sys/class/tty/" COMMAND_TTY "/rx_trig_bytes",
			O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, "14", 2) != 2)
		say("cannot set the receive trigger of the command port");
	if (file >= 0)
		close(file);
}

static void find_programs(const char *self)
{
	size_t length = strlen(self);

	while (length > 1 && self[length - 1] != '/')
		length--;
	if (length < 2 || length >= sizeof(program_folder))
		return;
	memcpy(program_folder, self, length - 1);
	program_folder[length - 1] = '\0';
	snprintf(search_path, sizeof(search_path),
		 "PATH=%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
		 "/sbin:/bin",
		 program_folder);
}

/* Start the agent; return when its port is in raw mode, -1 on failure. */
static pid_t start_agent(void)
{
	char ready, number[16], program[PATH_MAX + 16];
	int pipes[2];
	pid_t pid;

	if (pipe(pipes))
		return -1;
	pid = fork();
	if (pid == 0) {
		close(pipes[0]);
		snprintf(number, sizeof(number), "%d", pipes[1]);
		snprintf(program, sizeof(program), "%s/labagent",
			 program_folder);
		execle(program, "labagent", COMMAND_PORT, number, NULL,
		       environment);
		_exit(127);
	}
	close(pipes[1]);
	if (pid > 0 && read(pipes[0], &ready, 1) != 1) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(pipes[0]);
	return pid;
}

/* Run a script with a folder as its argument, if the script exists. */
static void run_script(char *script, char *folder, const char *failure)
{
	/* execve(), as the list of execle() would end at a NULL folder. */
	char *const argv[] = { "sh", script, folder, NULL };
	int status;
	pid_t pid;

	if (access(script, F_OK))
		return;
	pid = fork();
	if (pid == 0) {
		execve("/bin/sh", argv, environment);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		say("%s", failure);
}

/*
 * Load modules, mount the roots of workloads and start the SSH server, if the
 * guest has them. With another root than the initramfs, first copy the files of
 * the workloads to their places; the kernel's modules are not needed there.
 */
static void run_scripts(bool is_first)
{
	char files[PATH_MAX + 16], ssh[PATH_MAX + 16] = SSH_START;
	char roots[PATH_MAX + 16] = ROOTS_START;
	char modules[] = MODULES_START;

	if (!is_first) {
		snprintf(files, sizeof(files), "%s/files-start",
			 program_folder);
		run_script(files, program_folder, "cannot copy the files");
		snprintf(roots, sizeof(roots), "%s/roots-start",
			 program_folder);
		snprintf(ssh, sizeof(ssh), "%s/ssh-start", program_folder);
	} else {
		run_script(modules, NULL, "cannot load the modules");
	}
	run_script(roots, NULL, "cannot mount the roots of workloads");
	run_script(ssh, is_first ? NULL : program_folder, "ssh did not start");
}

int main(int argc, char **argv)
{
	bool is_first = getpid() == 1;
	char boot_id[64];
	struct utsname kernel;
	struct timespec up;
	pid_t agent, child;
	int status;

	if (!is_first && argc > 0)
		find_programs(argv[0]);
	mount_all(is_first);
	tune_port();
	umask(022);
	agent = start_agent();
	if (agent < 0) {
		say("the agent did not start on " COMMAND_PORT);
		end_guest();
	}
	run_scripts(is_first);
	say_nodes();
	read_boot_id(boot_id, sizeof(boot_id));
	uname(&kernel);
	clock_gettime(CLOCK_BOOTTIME, &up);
	say("ready boot=%s kernel=%s uptime_milliseconds=%lld", boot_id,
	    kernel.release, (long long)up.tv_sec * 1000 + up.tv_nsec / 1000000);

	do {
		child = waitpid(-1, &status, 0);
	} while (child != agent && (child >= 0 || errno == EINTR));
	say("the agent ended with wait status %#x", status);
	end_guest();
}
