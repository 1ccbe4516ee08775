// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into a Python: once `gap_armed` is set, SIGTERM arrives in the main thread
 * right before its next call that waits, after Python has looked for signals. Its
 * handler then runs only when that call returns.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int gap_armed;

static void gap(void)
{
	if (gap_armed && getpid() == gettid()) {
		gap_armed = 0;
		raise(SIGTERM);
	}
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	if (timeout_ms)
		gap();
	return NEXT(poll)(fds, count, timeout_ms);
}

int select(int count, fd_set *in, fd_set *out, fd_set *error, struct timeval *timeout)
{
	if (!timeout || timeout->tv_sec || timeout->tv_usec)
		gap();
	return NEXT(select)(count, in, out, error, timeout);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
		    struct timespec *left)
{
	gap();
	return NEXT(clock_nanosleep)(clock, flags, time, left);
}

pid_t waitpid(pid_t pid, int *status, int options)
{
	if (!(options & WNOHANG))
		gap();
	return NEXT(waitpid)(pid, status, options);
}

int flock(int descriptor, int operation)
{
	if (!(operation & (LOCK_NB | LOCK_UN)))
		gap();
	return NEXT(flock)(descriptor, operation);
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until)
{
	gap();
	return NEXT(sem_clockwait)(semaphore, clock, until);
}
