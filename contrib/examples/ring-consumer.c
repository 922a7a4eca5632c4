/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring-consumer RING [COUNT]: print messages, COUNT of them or without end, in batches and without
 * copying: what is written to standard output is the shared memory itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <pmfs.h>

static int fail(const char *what, int rc)
{
	fprintf(stderr, "ring-consumer: %s: %s\n", what, strerror(-rc));
	return 1;
}

int main(int argc, char **argv)
{
	unsigned long left = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	struct pmfs_ring *ring;
	const void *message;
	ssize_t length;
	int rc;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: ring-consumer RING [COUNT]\n");
		return 2;
	}
	rc = pmfs_ring_open(argv[1], PMFS_RING_CONSUMER, &ring);
	if (rc)
		return fail("can't open the ring", rc);
	for (;;) {
		rc = pmfs_ring_wait_data(ring, PMFS_FOREVER);
		if (rc == -EOWNERDEAD) {
			fprintf(stderr,
				"ring-consumer: the producer was killed; waiting for the next\n");
			continue;
		}
		if (rc)
			break;
		while ((length = pmfs_ring_peek(ring, &message)) > 0) {
			fwrite(message, 1, (size_t)length, stdout);
			if (left && !--left)
				break;
		}
		/* Only what has arrived is released: after a crash the rest comes again. */
		if (fflush(stdout)) {
			rc = -errno;
			break;
		}
		pmfs_ring_release(ring);
		if (argc == 3 && !left)
			break;
	}
	pmfs_ring_close(ring);
	return rc ? fail("can't read", rc) : 0;
}
