// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads read and write memory while another thread of the process frees it.
 *
 * A thread may see its old page, a new zero page, or fault. It must never see a
 * page that was freed and possibly reused, through a stale TLB entry. That
 * happens if pages are freed before the TLB flush. Every other round uses
 * munmap(), so that the threads fault.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define MOST_THREADS 16
/*
 * Enough pages for two full lists of batches (510 pages after a bundle of 8
 * each), as the first may be freed by the thread itself, or for two ranges of
 * 512. Watched are those of the second list that a worker frees first.
 */
#define AREA_PAGES    1152
#define AREA_BYTES    (AREA_PAGES * PAGE_BYTES)
#define FIRST_WATCHED (8 + 510 + 8)
#define WATCHED_PAGES 64
#define MARK 0x57a1e00000000000ULL /* none of its bytes is the poison byte */
#define NUMBER_MASK 0xffffULL

struct watched {
	uint64_t *address;
	atomic_bool stop;
};

static _Thread_local sigjmp_buf before_the_fault;

static void go_back(int signal)
{
	(void)signal;
	siglongjmp(before_the_fault, 1);
}

static bool may_go_on(const struct watched *watched)
{
	return !atomic_load_explicit(&watched->stop, memory_order_relaxed);
}

/* Every word that a thread may see is 0 or MARK + a number. */
static inline uint64_t wrong_bits(uint64_t word)
{
	return ((word ^ MARK) & ~NUMBER_MASK) & -(uint64_t)(word != 0);
}

/*
 * No branch between the reads: a CPU (of TCG) stopped in the middle continues
 * with its cached translation, and takes interrupts only afterwards.
 */
static uint64_t read_pages(const struct watched *watched)
{
	const volatile uint64_t *word = watched->address;
	uint64_t wrong = 0;

#pragma GCC unroll 64
	for (int i = 0; i < WATCHED_PAGES; i++)
		wrong |= wrong_bits(word[i * WORDS_PER_PAGE]);
	return wrong;
}

static void *reader(void *argument)
{
	const struct watched *watched = argument;

	if (sigsetjmp(before_the_fault, 0))
		sleep_milliseconds(1);
	while (may_go_on(watched)) {
		if (!read_pages(watched))
			continue;
		atomic_fetch_add(&shared->foreign_words, 1);
		fault("a thread saw a freed page");
	}
	return NULL;
}

static void *writer(void *argument)
{
	const struct watched *watched = argument;
	volatile uint64_t number = 0;

	if (sigsetjmp(before_the_fault, 0))
		sleep_milliseconds(1);
	while (may_go_on(watched)) {
		volatile uint64_t *word = watched->address;

		number = (number + 1) & NUMBER_MASK;
#pragma GCC unroll 64
		for (int i = 0; i < WATCHED_PAGES; i++)
			word[i * WORDS_PER_PAGE] = MARK + number;
	}
	return NULL;
}

static uint64_t *map(void *where)
{
	uint64_t *address = mmap(where, AREA_BYTES, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS |
					 (where ? MAP_FIXED_NOREPLACE : 0),
				 -1, 0);

	if (address == MAP_FAILED)
		die("cannot map memory");
	return address;
}

static void give_back_and_fill(uint64_t *address)
{
	for (uint64_t round = 1; !time_is_up(); round++) {
		if (round % 2) {
			madvise(address, AREA_BYTES, MADV_DONTNEED);
		} else {
			munmap(address, AREA_BYTES);
			map(address);
		}
		for (size_t page = 0; page < AREA_PAGES; page++)
			address[page * WORDS_PER_PAGE] =
				MARK + (round & NUMBER_MASK);
		atomic_fetch_add(&shared->rounds, 1);
	}
}

static void run_stale(const struct options *options)
{
	struct sigaction at_fault = { .sa_handler = go_back,
				      .sa_flags = SA_NODEFER };
	struct watched watched = { 0 };
	int threads = cpu_count() - 1;
	pthread_t ids[MOST_THREADS];
	uint64_t *address;

	(void)options;
	if (threads < 2)
		skip("needs three CPUs");
	if (threads > MOST_THREADS)
		threads = MOST_THREADS;
	sigaction(SIGSEGV, &at_fault, NULL);
	address = map(NULL);
	watched.address = address + FIRST_WATCHED * WORDS_PER_PAGE;
	/* The last thread writes, so that a freed page is also changed. */
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL,
				   i == threads - 1 ? writer : reader,
				   &watched))
			die("cannot start a thread");
	give_back_and_fill(address);
	atomic_store(&watched.stop, true);
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	munmap(address, AREA_BYTES);
}

const struct scenario scenario_stale = {
	"stale", "threads read and write memory that another one frees",
	run_stale
};
