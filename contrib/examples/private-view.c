/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * private-view FILE: sort the lines of a file in a snapshot, in place, without touching the file:
 *
 *	pmfs-snap create DIR now
 *	private-view DIR/.snapshots/now/names
 *
 * The kernel copies the pages that are stored to and no others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pmfs.h>

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
	char **lines, *text, *end;
	size_t length, count = 0, i;
	void *view;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: private-view FILE\n");
		return 2;
	}
	rc = pmfs_map_private(argv[1], 0, 0, 0, &view, &length);
	if (rc) {
		fprintf(stderr, "private-view: %s: %s\n", argv[1], strerror(-rc));
		return 1;
	}
	text = view;
	end = text + length;
	lines = calloc(length + 1, sizeof(*lines));
	while (lines && text < end) {
		char *stop = memchr(text, '\n', (size_t)(end - text));

		if (!stop)
			break;
		*stop = 0; /* a store that nobody else sees */
		lines[count++] = text;
		text = stop + 1;
	}
	if (lines)
		qsort(lines, count, sizeof(*lines), compare);
	for (i = 0; i < count; i++)
		puts(lines[i]);
	free(lines);
	pmfs_unmap_private(view, length);
	return 0;
}
