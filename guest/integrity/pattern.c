// SPDX-License-Identifier: GPL-2.0-only
/* The content of a page: unique by page, process and generation. */
#include "integrity.h"

#include <stdio.h>
#include <sys/mman.h>

#define REPORTED_DIFFERENCES 20

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
	value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
	return value ^ (value >> 31);
}

static uint64_t first_word(const struct area *area, size_t page)
{
	return mix((area->owner << 48) ^ (area->generation << 28) ^ page);
}

static uint64_t *page_of(const struct area *area, size_t page)
{
	return area->address + page * WORDS_PER_PAGE;
}

void area_map(struct area *area, size_t bytes, uint64_t owner)
{
	area->pages = bytes / PAGE_BYTES;
	area->owner = owner;
	area->generation = 0;
	area->address = private_memory(bytes);
}

void area_unmap(struct area *area)
{
	munmap(area->address, area->pages * PAGE_BYTES);
	area->address = NULL;
}

static void report_word(const struct area *area, size_t page, size_t word,
			uint64_t expected, uint64_t found)
{
	if (atomic_fetch_add(&shared->foreign_words, 1) < REPORTED_DIFFERENCES)
		fprintf(stderr,
			"process %llu generation %llu page %zu word %zu: "
			"got %016llx, expected %016llx\n",
			(unsigned long long)area->owner,
			(unsigned long long)area->generation, page, word,
			(unsigned long long)found,
			(unsigned long long)expected);
	fault("wrong page content");
}

void area_fill(struct area *area, bool is_new)
{
	area->generation++;
	for (size_t page = 0; page < area->pages; page++) {
		uint64_t *words = page_of(area, page);
		uint64_t value = first_word(area, page);

		/* Only a write brings a page of its own; then it can be read.
		 */
		*(volatile uint64_t *)words = value;
		for (size_t i = 1; is_new && i < WORDS_PER_PAGE; i++)
			if (words[i])
				report_word(area, page, i, 0, words[i]);
		for (size_t i = 1; i < WORDS_PER_PAGE; i++)
			words[i] = value + i;
		process_has_done_page();
	}
}

void area_check_copy(const struct area *area, size_t first, size_t pages,
		     const void *copy)
{
	const volatile uint64_t *words = copy;

	for (size_t page = first; page < first + pages; page++) {
		uint64_t value = first_word(area, page);

		for (size_t i = 0; i < WORDS_PER_PAGE; i++) {
			uint64_t found = *words++;

			if (found != value + i)
				report_word(area, page, i, value + i, found);
		}
		process_has_done_page();
	}
	atomic_fetch_add(&shared->pages_checked, pages);
}

void area_check(const struct area *area, size_t first, size_t pages)
{
	area_check_copy(area, first, pages, page_of(area, first));
}

void area_check_all(const struct area *area)
{
	area_check(area, 0, area->pages);
}

void area_check_zero(const struct area *area)
{
	for (size_t page = 0; page < area->pages; page++) {
		uint64_t found = *(volatile uint64_t *)page_of(area, page);

		if (found)
			report_word(area, page, 0, 0, found);
	}
}
