/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/map.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pmfs.h"

size_t map_page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

int map_reserve(size_t length, size_t align, size_t phase, void **address)
{
	size_t page = map_page_bytes(), slack = align > page ? align : 0, skip;
	uint8_t *at;

	if (length > PTRDIFF_MAX - slack)
		return -ENOMEM;
	at = mmap(NULL, length + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		  0);
	if (at == MAP_FAILED)
		return -errno;
	if (slack) {
		skip = (phase - (uintptr_t)at) & (align - 1);
		if (skip)
			munmap(at, skip);
		munmap(at + skip + length, slack - skip);
		at += skip;
	}
	*address = at;
	return 0;
}

void map_want_huge(void *address, size_t length)
{
	madvise(address, length, MADV_HUGEPAGE);
}

int pmfs_ring_map(int fd, uint64_t offset, size_t size, unsigned int flags, void **base)
{
	const size_t page = map_page_bytes();
	int prot = PROT_READ | (flags & PMFS_MAP_WRITE ? PROT_WRITE : 0), rc;
	/* Both mappings can have huge pages only if both begin where the file has the beginning of
	 * one. */
	size_t align = flags & PMFS_MAP_HUGE && size % MAP_HUGE_BYTES == 0 ? MAP_HUGE_BYTES : 0;
	void *span;

	if (flags & ~(PMFS_MAP_WRITE | PMFS_MAP_HUGE) || !size || size % page || offset % page ||
	    size > PTRDIFF_MAX / 2 || offset > (uint64_t)INT64_MAX - size)
		return -EINVAL;
	rc = map_reserve(2 * size, align, align ? (size_t)(offset % align) : 0, &span);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < 2; i++) {
		if (mmap((uint8_t *)span + i * size, size, prot, MAP_SHARED | MAP_FIXED, fd,
			 (off_t)offset) == MAP_FAILED) {
			rc = -errno;
			munmap(span, 2 * size);
			return rc;
		}
	}
	if (flags & PMFS_MAP_HUGE)
		map_want_huge(span, 2 * size);
	*base = span;
	return 0;
}

int pmfs_ring_unmap(void *base, size_t size)
{
	if (!base || !size || size > PTRDIFF_MAX / 2 || (uintptr_t)base % map_page_bytes() ||
	    size % map_page_bytes())
		return -EINVAL;
	return munmap(base, 2 * size) ? -errno : 0;
}
