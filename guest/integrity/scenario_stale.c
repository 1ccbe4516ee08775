// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads read and write memory that another thread of theirs gives back.
 *
 * A thread may see its old page or a new, empty one, or fault: never a page
 * that was freed, and perhaps taken by somebody else, while its CPU still had
 * the old translation. That happens if pages are freed ahead of the TLB flush.
 */
#define _GNU_SOURCE
#include "integrity.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST_THREADS 16
/* So few that their translations stay cached, spread over the whole area. */
#define WATCHED_PAGES 64
#define MARK        0x57a1e00000000000ULL /* no byte of it is that of poison */
#define NUMBER_MASK 0xffffULL

struct watched {
	uint64_t *address;
	size_t stride_words;
	atomic_bool stop;
};

/* Every word that a thread may ever see there is 0 or MARK + some number. */
static inline uint64_t wrong_bits(uint64_t word)
{
	return ((word ^ MARK) & ~NUMBER_MASK) & -(uint64_t)(word != 0);
}

/*
 * Without a branch between the reads: a CPU that was stopped in the middle goes
 * on with what it has cached, and takes its interrupts only behind.
 */
static uint64_t look(const struct watched *watched)
{
	const volatile uint64_t *word = watched->address;
	size_t stride = watched->stride_words;
	uint64_t wrong = 0;

#pragma GCC unroll 64
	for (int i = 0; i < WATCHED_PAGES; i++, word += stride)
		wrong |= wrong_bits(*word);
	return wrong;
}

static void *reader(void *argument)
{
	const struct watched *watched = argument;

	while (!atomic_load_explicit(&watched->stop, memory_order_relaxed)) {
		if (!look(watched))
			continue;
		atomic_fetch_add(&shared->foreign_words, 1);
		fault("a thread saw a page that had been freed under it");
	}
	return NULL;
}

static void *writer(void *argument)
{
	const struct watched *watched = argument;
	uint64_t number = 0;

	while (!atomic_load_explicit(&watched->stop, memory_order_relaxed)) {
		volatile uint64_t *word = watched->address;

		number = (number + 1) & NUMBER_MASK;
#pragma GCC unroll 64
		for (int i = 0; i < WATCHED_PAGES;
		     i++, word += watched->stride_words)
			*word = MARK + number;
	}
	return NULL;
}

static void fill(uint64_t *address, size_t bytes, uint64_t number)
{
	for (size_t i = 0; i < bytes / sizeof(*address); i++)
		address[i] = MARK + (number & NUMBER_MASK);
}

static void run_stale(const struct options *options)
{
	struct watched watched = { .stride_words = options->size /
						   WATCHED_PAGES / PAGE_BYTES *
						   WORDS_PER_PAGE };
	int threads =
		cpu_count() - 1 < MOST_THREADS ? cpu_count() - 1 : MOST_THREADS;
	pthread_t ids[MOST_THREADS];

	if (threads < 2)
		skip("needs three CPUs");
	watched.address = mmap(NULL, options->size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (watched.address == MAP_FAILED)
		die("cannot map memory");
	neighbours_start(options);
	fill(watched.address, options->size, 0);
	/* The last one writes, so that a freed page is also changed. */
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL,
				   i == threads - 1 ? writer : reader,
				   &watched))
			die("cannot start a thread");
	for (uint64_t round = 1; !time_is_up(); round++) {
		madvise(watched.address, options->size, MADV_DONTNEED);
		fill(watched.address, options->size, round);
		atomic_fetch_add(&shared->rounds, 1);
	}
	atomic_store(&watched.stop, true);
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	munmap(watched.address, options->size);
	neighbours_end();
}

const struct scenario scenario_stale = {
	"stale", "threads read and write what another one gives back", run_stale
};
