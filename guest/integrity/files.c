// SPDX-License-Identifier: GPL-2.0-only
/* Read and write small files of /proc and /sys. */
#include "integrity.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool file_write(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	size_t length = strlen(text);
	bool done = file >= 0 && write(file, text, length) == (ssize_t)length;

	if (file >= 0)
		close(file);
	return done;
}

bool file_read(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, text, size - 1);

	if (file >= 0)
		close(file);
	text[length > 0 ? length : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return length >= 0;
}

long long file_number(const char *path)
{
	char text[64];

	return file_read(path, text, sizeof(text)) ? atoll(text) : -1;
}
