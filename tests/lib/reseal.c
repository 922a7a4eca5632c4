/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reseal IMAGE [SLOT]: give the superblock slots (or one) the checksum that fits what stands in
 * them, so that a test can change a field and still have an intact slot.  Prints the number of the
 * slot with the higher generation.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "pmfs/format.h"

int main(int argc, char **argv)
{
	int fd = argc > 1 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	uint64_t generation[2] = {0, 0};

	for (unsigned int slot = 0; slot < 2; slot++) {
		const off_t at = (off_t)slot * PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE;
		struct pmfs_super super;

		if (fd < 0 || pread(fd, &super, sizeof(super), at) != (ssize_t)sizeof(super)) {
			perror("reseal");
			return 1;
		}
		generation[slot] = le64_get(super.generation);
		if (argc > 2 && (unsigned int)atoi(argv[2]) != slot)
			continue;
		super.checksum = le64_make(hash64(&super, offsetof(struct pmfs_super, checksum)));
		if (pwrite(fd, &super, sizeof(super), at) != (ssize_t)sizeof(super)) {
			perror("reseal");
			return 1;
		}
	}
	printf("%d\n", generation[1] > generation[0]);
	return close(fd) != 0;
}
