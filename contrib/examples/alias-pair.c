/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alias-pair VIEW: the same memory at two addresses, one of which can only be read.  A library can
 * hand out the second and be sure that nobody changes what is there, while it goes on changing it
 * through the first without a copy.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <pmfs.h>

#define VIEW_BYTES ((size_t)1 << 16)

int main(int argc, char **argv)
{
	struct pmfs_alias *pair;
	_Atomic uint64_t *mine;
	const _Atomic uint64_t *theirs;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: alias-pair VIEW\n");
		return 2;
	}
	rc = pmfs_alias_open(argv[1], VIEW_BYTES, PMFS_MAP_CREATE, &pair);
	if (rc) {
		fprintf(stderr, "alias-pair: %s: %s\n", argv[1], strerror(-rc));
		return 1;
	}
	mine = pmfs_alias_writable(pair);
	theirs = pmfs_alias_readable(pair);
	atomic_fetch_add(mine, 1);
	printf("runs so far: %" PRIu64 "\n", atomic_load(theirs));
	if (!mprotect((void *)(uintptr_t)theirs, VIEW_BYTES, PROT_READ | PROT_WRITE)) {
		fprintf(stderr, "alias-pair: the alias became writable\n");
		return 1;
	}
	printf("making the alias writable: %s\n", strerror(errno));
	rc = pmfs_alias_sync(pair);
	pmfs_alias_close(pair);
	return rc ? 1 : 0;
}
