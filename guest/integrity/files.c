// SPDX-License-Identifier: GPL-2.0-only
/* Read and write small files of /proc and /sys. */
#include "integrity.h"

#include <fcntl.h>
#include <stdio.h>
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

/* Of lines like "oom_kill 3" and "SwapCached:   12 kB". */
long long file_field(const char *path, const char *field)
{
	FILE *file = fopen(path, "re");
	size_t length = strlen(field);
	long long value = -1;
	char line[256];

	while (file && value < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, field, length) &&
		    strchr(": \t", line[length]) && line[length])
			value = atoll(line + length +
				      strcspn(line + length, "0123456789"));
	if (file)
		fclose(file);
	return value;
}
