/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring-producer RING: each line of standard input becomes a message.  The ring is made when it is
 * not there.  Try it with ring-consumer on the same file in another terminal:
 *
 *	ring-producer DIR/.pmfs/views/lines
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <pmfs.h>

#define RING_BYTES ((size_t)1 << 20)

static int fail(const char *what, int rc)
{
	fprintf(stderr, "ring-producer: %s: %s\n", what, strerror(-rc));
	return 1;
}

int main(int argc, char **argv)
{
	struct pmfs_ring *ring;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: ring-producer RING\n");
		return 2;
	}
	rc = pmfs_ring_create(argv[1], RING_BYTES, 0666, 0);
	if (rc && rc != -EEXIST)
		return fail("can't make the ring", rc);
	rc = pmfs_ring_open(argv[1], PMFS_RING_PRODUCER, &ring);
	if (rc)
		return fail("can't open the ring", rc);
	while ((length = getline(&line, &room, stdin)) > 0) {
		/* A consumer that was killed may come again: what it has not released is still
		 * there. */
		do
			rc = pmfs_ring_write(ring, line, (size_t)length, PMFS_FOREVER);
		while (rc == -EOWNERDEAD);
		if (rc) {
			fail("can't write", rc);
			break;
		}
	}
	free(line);
	pmfs_ring_close(ring);
	return rc ? 1 : 0;
}
