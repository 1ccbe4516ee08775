// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into a Python that runs labctl. Once armed, it counts the calls with which a
 * process changes something that outlives it, and before the n-th of them kills the
 * process or one of its children, or lets that call and all later ones fail. It can also
 * record them.
 *
 * The counter is in a file that the parent maps, so that a killed process leaves it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum mode { COUNT, KILL, TEAR, FULL, READ_ONLY, RECORD, CHILD, FOLDER };
/* What a call does; decides whether it fails on a full or read-only disk. */
enum kind { OTHER, WRITES, CREATES, CHANGES };

struct shared {
	uint64_t calls;
	uint64_t failed; /* 0: the n-th call did not come */
	char what[240];
};

static struct shared unused, *shared = &unused;
static enum mode mode;
static uint64_t at;
static pid_t owner;
static int journal = -1;
static char root[4096];
static char folder_at_call[4200]; /* with mode FOLDER, once the call came */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int chaos_arm(const char *counter, const char *folder, int how, uint64_t nth, const char *log)
{
	int fd = open(counter, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, sizeof(*shared)))
		return -1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (shared == MAP_FAILED)
		return -1;
	if (*log)
		journal = fcntl(open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
				F_DUPFD_CLOEXEC, 900);
	snprintf(root, sizeof(root), "%s", folder);
	at = nth;
	owner = getpid();
	mode = how;
	return 0;
}

static void path_of(int dirfd, const char *path, char *full, size_t size)
{
	char link[40], folder[4096];
	ssize_t length;

	if (path && *path == '/') {
		snprintf(full, size, "%s", path);
		return;
	}
	if (dirfd == AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/self/cwd");
	else
		snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
	length = readlink(link, folder, sizeof(folder) - 1);
	folder[length < 0 ? 0 : length] = 0;
	if (path)
		snprintf(full, size, "%.2000s/%.2000s", folder, path);
	else
		snprintf(full, size, "%s", folder);
}

/* One line: name, flags or offset, size, two paths; then `size` bytes of data. */
static void record(const char *name, int64_t number, const char *path, const char *second,
		   const void *data, size_t size)
{
	char line[9000];
	int length = snprintf(line, sizeof(line), "%s\t%lld\t%zu\t%s\t%s\n", name,
			      (long long)number, size, path, second);

	struct iovec parts[] = { { line, length }, { (void *)data, size } };

	/* In one call, as threads may record at the same time. */
	if (writev(journal, parts, 2) != (ssize_t)(length + size))
		raise(SIGABRT);
}

#define MOST_PROCESSES 4096

/* Kill one of the processes that this one and its children started; the n-th call draws it. */
static void kill_child(const char *name, uint64_t number)
{
	static pid_t pids[MOST_PROCESSES], parents[MOST_PROCESSES], own[MOST_PROCESSES];
	static char words[MOST_PROCESSES][20];
	static int is_busy;
	int count = 0, found = 1, i, j;
	uint64_t none = 0;
	struct dirent *entry;
	DIR *proc;

	if (__atomic_exchange_n(&is_busy, 1, __ATOMIC_SEQ_CST))
		return; /* another thread does */
	proc = opendir("/proc");
	while (proc && (entry = readdir(proc)) && count < MOST_PROCESSES) {
		char path[300], state;
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		file = atoi(entry->d_name) ? fopen(path, "re") : NULL;
		if (!file)
			continue;
		if (fscanf(file, "%d (%16[^)]) %c %d", &pids[count], words[count], &state,
			   &parents[count]) == 4 && state != 'Z')
			count++;
		fclose(file);
	}
	if (proc)
		closedir(proc);
	own[0] = owner;
	for (i = 0; i < found; i++)
		for (j = 0; j < count && found < MOST_PROCESSES; j++)
			if (parents[j] == own[i])
				own[found++] = pids[j];
	if (found > 1) {
		pid_t victim = own[1 + at % (found - 1)];

		for (j = 0; j < count && pids[j] != victim; j++)
			;
		if (!kill(victim, SIGKILL) &&
		    __atomic_compare_exchange_n(&shared->failed, &none, number, 0,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			snprintf(shared->what, sizeof(shared->what), "%s of %d, at %s", words[j],
				 found - 1, name);
	}
	__atomic_store_n(&is_busy, 0, __ATOMIC_SEQ_CST);
}

/* Returns whether the call changes the names in the folder that is read-only from now on. */
static int is_in_folder(const char *full)
{
	size_t length;

	if (!*folder_at_call) {
		snprintf(folder_at_call, sizeof(folder_at_call), "%s", full);
		*strrchr(folder_at_call, '/') = 0;
	}
	length = strlen(folder_at_call);
	return !strncmp(full, folder_at_call, length) && full[length] == '/' &&
	       !strchr(full + length + 1, '/');
}

/* Returns whether the call has to fail; does not return if the process is to die. */
static int comes(const char *name, enum kind kind, int dirfd, const char *path)
{
	static const char *const names[] = { "", "write ", "create ", "change " };
	char full[4200];
	uint64_t number;

	if (mode == COUNT && shared == &unused)
		return 0;
	if (getpid() != owner)
		return 0;
	number = __atomic_add_fetch(&shared->calls, 1, __ATOMIC_SEQ_CST);
	if (mode == COUNT || mode == RECORD || number < at)
		return 0;
	if (mode == CHILD) {
		if (!shared->failed)
			kill_child(name, number);
		return 0;
	}
	path_of(dirfd, path, full, sizeof(full));
	if (mode == KILL || mode == TEAR) {
		if (number != at)
			return 0;
		snprintf(shared->what, sizeof(shared->what), "%s %.200s", name, full);
		shared->failed = number;
		if (mode == TEAR && strstr(name, "write") && kind == WRITES)
			return 1;
		kill(owner, SIGKILL);
		for (;;)
			pause();
	}
	if (kind == OTHER || (mode == FULL && kind == CHANGES) ||
	    strncmp(full, root, strlen(root)) || full[strlen(root)] != '/')
		return 0;
	if (mode == FOLDER && (kind == WRITES || !is_in_folder(full)))
		return 0;
	if (!shared->failed)
		snprintf(shared->what, sizeof(shared->what), "%s%s %.200s", names[kind], name,
			 full);
	shared->failed++;
	errno = mode == FULL ? ENOSPC : mode == FOLDER ? EACCES : EROFS;
	return 1;
}

static int is_file(int fd)
{
	struct stat info;

	return !fstat(fd, &info) && S_ISREG(info.st_mode);
}

static void note(const char *name, int dirfd, const char *path, int other, const char *second)
{
	char full[4200], full_second[4200] = "";

	if (mode != RECORD || getpid() != owner)
		return;
	path_of(dirfd, path, full, sizeof(full));
	if (second)
		path_of(other, second, full_second, sizeof(full_second));
	record(name, 0, full, full_second, NULL, 0);
}

static int opened(int dirfd, const char *path, int flags, mode_t bits)
{
	int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
	int is_new = flags & O_CREAT && faccessat(dirfd, path, F_OK, AT_SYMLINK_NOFOLLOW);
	enum kind kind = is_new ? CREATES : mode == READ_ONLY ? CREATES : OTHER;
	int fd;

	if (writes && comes("open", kind, dirfd, path))
		return -1;
	fd = NEXT(openat)(dirfd, path, flags, bits);
	if (fd >= 0 && mode == RECORD && (is_new || flags & O_TRUNC))
		note(is_new ? "create" : "truncate", dirfd, path, 0, NULL);
	return fd;
}

#define OPEN(name, ...)                                                                       \
	{                                                                                     \
		va_list arguments;                                                            \
		mode_t bits;                                                                  \
                                                                                              \
		va_start(arguments, flags);                                                   \
		bits = va_arg(arguments, mode_t);                                             \
		va_end(arguments);                                                            \
		return opened(__VA_ARGS__, path, flags, bits);                                \
	}

int open(const char *path, int flags, ...) OPEN(open, AT_FDCWD)
int open64(const char *path, int flags, ...) OPEN(open64, AT_FDCWD)
int openat(int dirfd, const char *path, int flags, ...) OPEN(openat, dirfd)
int openat64(int dirfd, const char *path, int flags, ...) OPEN(openat64, dirfd)

ssize_t write(int fd, const void *data, size_t size)
{
	off_t place = 0;
	ssize_t done;

	if (comes("write", is_file(fd) ? WRITES : OTHER, fd, NULL)) {
		if (mode != TEAR)
			return -1;
		NEXT(write)(fd, data, size / 2);
		kill(owner, SIGKILL);
	}
	if (mode != RECORD || getpid() != owner || fd == journal)
		return NEXT(write)(fd, data, size);
	if (is_file(fd))
		place = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) :
							lseek(fd, 0, SEEK_CUR);
	done = NEXT(write)(fd, data, size);
	if (done > 0) {
		char full[4200];

		path_of(fd, NULL, full, sizeof(full));
		record(fd == 1 || fd == 2 ? "said" : "write", place, full, "", data, done);
	}
	return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place)
{
	ssize_t done;

	if (comes("pwrite", is_file(fd) ? WRITES : OTHER, fd, NULL)) {
		if (mode != TEAR)
			return -1;
		NEXT(pwrite64)(fd, data, size / 2, place);
		kill(owner, SIGKILL);
	}
	done = NEXT(pwrite64)(fd, data, size, place);
	if (done > 0 && mode == RECORD && getpid() == owner) {
		char full[4200];

		path_of(fd, NULL, full, sizeof(full));
		record("write", place, full, "", data, done);
	}
	return done;
}

/* With which Python copies files. */
ssize_t sendfile64(int out, int in, off64_t *place, size_t size)
{
	char data[1 << 16];
	ssize_t done;

	if (comes("sendfile write", is_file(out) ? WRITES : OTHER, out, NULL)) {
		if (mode != TEAR)
			return -1;
		NEXT(sendfile64)(out, in, place, size / 2);
		kill(owner, SIGKILL);
	}
	if (mode != RECORD || getpid() != owner || !place || !is_file(out))
		return NEXT(sendfile64)(out, in, place, size);
	done = pread(in, data, size < sizeof(data) ? size : sizeof(data), *place);
	if (done > 0) {
		done = write(out, data, done);
		*place += done > 0 ? done : 0;
	}
	return done;
}

int symlink(const char *target, const char *path)
{
	char full[4200];
	int done;

	if (comes("symlink", CREATES, AT_FDCWD, path))
		return -1;
	done = NEXT(symlink)(target, path);
	if (!done && mode == RECORD && getpid() == owner) {
		path_of(AT_FDCWD, path, full, sizeof(full));
		record("symlink", 0, full, target, NULL, 0);
	}
	return done;
}

static int synced(const char *name, int fd, int (*next)(int))
{
	int done;

	if (comes(name, WRITES, fd, NULL))
		return -1;
	/* In the model only the order counts; the suite shall not wait for its disk. */
	done = mode == RECORD ? 0 : next(fd);
	if (mode == RECORD && getpid() == owner) {
		char full[4200];

		path_of(fd, NULL, full, sizeof(full));
		record("sync", 0, full, "", NULL, 0);
	}
	return done;
}

int fsync(int fd)
{
	return synced("fsync", fd, NEXT(fsync));
}

int fdatasync(int fd)
{
	return synced("fdatasync", fd, NEXT(fdatasync));
}

int ftruncate64(int fd, off64_t size)
{
	int done;

	if (comes("ftruncate", CHANGES, fd, NULL))
		return -1;
	done = NEXT(ftruncate64)(fd, size);
	if (!done && mode == RECORD && getpid() == owner) {
		char full[4200];

		path_of(fd, NULL, full, sizeof(full));
		record("cut", size, full, "", NULL, 0);
	}
	return done;
}

/* The rest: a call, what a disk without space or without writes does to it, its record. */
#define CALL(type, name, signature, arguments, kind, dirfd, path, second_dirfd, second)       \
	type name signature                                                                   \
	{                                                                                     \
		type done;                                                                    \
                                                                                              \
		if (comes(#name, kind, dirfd, path))                                          \
			return -1;                                                            \
		done = NEXT(name) arguments;                                                  \
		if (!done && kind != OTHER)                                                   \
			note(#name, dirfd, path, second_dirfd, second);                       \
		return done;                                                                  \
	}

CALL(int, rename, (const char *old, const char *new), (old, new), CHANGES, AT_FDCWD, old,
     AT_FDCWD, new)
CALL(int, renameat, (int from, const char *old, int to, const char *new),
     (from, old, to, new), CHANGES, from, old, to, new)
CALL(int, link, (const char *old, const char *new), (old, new), CREATES, AT_FDCWD, old,
     AT_FDCWD, new)
CALL(int, linkat, (int from, const char *old, int to, const char *new, int flags),
     (from, old, to, new, flags), CREATES, from, old, to, new)
CALL(int, mkdir, (const char *path, mode_t bits), (path, bits), CREATES, AT_FDCWD, path, 0,
     NULL)
CALL(int, mkdirat, (int dirfd, const char *path, mode_t bits), (dirfd, path, bits), CREATES,
     dirfd, path, 0, NULL)
CALL(int, unlink, (const char *path), (path), CHANGES, AT_FDCWD, path, 0, NULL)
CALL(int, unlinkat, (int dirfd, const char *path, int flags), (dirfd, path, flags), CHANGES,
     dirfd, path, 0, NULL)
CALL(int, rmdir, (const char *path), (path), CHANGES, AT_FDCWD, path, 0, NULL)
CALL(int, chmod, (const char *path, mode_t bits), (path, bits), CHANGES, AT_FDCWD, path, 0,
     NULL)
/* Between these, a process has started a program, or holds a lock or a connection. */
CALL(int, pipe2, (int ends[2], int flags), (ends, flags), OTHER, AT_FDCWD, "", 0, NULL)
CALL(int, flock, (int fd, int operation), (fd, operation), OTHER, fd, NULL, 0, NULL)
CALL(int, killpg, (pid_t group, int number), (group, number), OTHER, AT_FDCWD, "", 0, NULL)
CALL(int, connect, (int fd, const struct sockaddr *address, socklen_t size),
     (fd, address, size), OTHER, AT_FDCWD, "", 0, NULL)

ssize_t read(int fd, void *data, size_t size)
{
	struct stat info;

	/* The end of a program's start, and what a program or a guest says. */
	if (mode != COUNT || shared != &unused)
		if (!fstat(fd, &info) && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode)))
			comes("read", OTHER, fd, NULL);
	return NEXT(read)(fd, data, size);
}
