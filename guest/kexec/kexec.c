// SPDX-License-Identifier: GPL-2.0-only
/*
 * labkexec: boot another kernel on this host.
 *
 *   labkexec load KERNEL INITRD COMMAND-LINE   INITRD may be "" for none
 *   labkexec start                             the loaded kernel, at once
 *   labkexec reboot                            by way of the firmware, at once
 *
 * It needs CONFIG_KEXEC_FILE of the running kernel and no library of the
 * host. `start` and `reboot` first write out what is dirty and make all file
 * systems read-only, for nobody unmounts them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SETTLE_SECONDS 2

static int usage(void)
{
	fputs("usage: labkexec load KERNEL INITRD COMMAND-LINE\n"
	      "       labkexec start | reboot\n",
	      stderr);
	return 2;
}

static int failed(const char *what)
{
	fprintf(stderr, "labkexec: %s: %s\n", what, strerror(errno));
	return 1;
}

static int load(const char *kernel, const char *initrd, const char *line)
{
	unsigned long flags = *initrd ? 0 : KEXEC_FILE_NO_INITRAMFS;
	int kernel_file, initrd_file = -1;

	kernel_file = open(kernel, O_RDONLY | O_CLOEXEC);
	if (kernel_file < 0)
		return failed(kernel);
	if (*initrd) {
		initrd_file = open(initrd, O_RDONLY | O_CLOEXEC);
		if (initrd_file < 0)
			return failed(initrd);
	}
	if (syscall(SYS_kexec_file_load, kernel_file, initrd_file,
		    strlen(line) + 1, line, flags))
		return failed(
			"the running kernel rejects the kernel or initrd");
	return 0;
}

static void make_read_only(void)
{
	int trigger;

	sync();
	trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	if (trigger >= 0 && write(trigger, "u", 1) == 1)
		sleep(SETTLE_SECONDS);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (!strcmp(verb, "load") && argc == 5)
		return load(argv[2], argv[3], argv[4]);
	if (argc != 2)
		return usage();
	if (!strcmp(verb, "start")) {
		make_read_only();
		reboot(LINUX_REBOOT_CMD_KEXEC);
		return failed("cannot start the loaded kernel");
	}
	if (!strcmp(verb, "reboot")) {
		make_read_only();
		reboot(RB_AUTOBOOT);
		return failed("cannot reboot");
	}
	return usage();
}
