/* SPDX-License-Identifier: BSD-2-Clause */
#include "pmfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/locate.h"
#include "lib/map.h"

#define SNAPSHOTS ".snapshots/"

/*
 * Is fd of a file below DIR/.snapshots of a pmfs mount?  Where it is comes from the kernel, so
 * links,
 * "..", and a working directory inside a snapshot make no difference.
 */
static int check_frozen(int fd)
{
	char link[40], path[PATH_MAX];
	struct located at;
	ssize_t n;
	size_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return -errno;
	path[n] = 0;
	if (locate_daemon_here(link, &at))
		return -ESTALE;
	len = strlen(at.dir);
	if (len == 1)
		len = 0; /* mounted on / */
	if (strncmp(path, at.dir, len) || path[len] != '/' ||
	    strncmp(path + len + 1, SNAPSHOTS, strlen(SNAPSHOTS)))
		return -ESTALE;
	return 0;
}

int pmfs_map_private(const char *path, uint64_t offset, size_t length, unsigned int flags,
		     void **address, size_t *mapped)
{
	const size_t page = map_page_bytes();
	size_t align = 0;
	struct stat st;
	void *at;
	int fd, rc = 0;

	if (!path || !address || !mapped || offset % page ||
	    flags & ~(PMFS_MAP_LIVE | PMFS_MAP_HUGE))
		return -EINVAL;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		rc = -errno;
	else if (!S_ISREG(st.st_mode) || offset >= (uint64_t)st.st_size)
		rc = -EINVAL;
	else if (!(flags & PMFS_MAP_LIVE))
		rc = check_frozen(fd);
	if (!rc && !length) {
		if ((uint64_t)st.st_size - offset > PTRDIFF_MAX)
			rc = -EFBIG;
		length = (size_t)((uint64_t)st.st_size - offset);
	}
	/* Beyond the end there is nothing but SIGBUS. */
	if (!rc && length > (uint64_t)st.st_size - offset)
		rc = -EINVAL;
	if (!rc && flags & PMFS_MAP_HUGE && length >= MAP_HUGE_BYTES)
		align = MAP_HUGE_BYTES;
	if (!rc)
		rc = map_reserve(length, align, align ? (size_t)(offset % align) : 0, &at);
	/* MAP_NORESERVE: a view may be larger than memory, as few of its pages are ever copied. */
	if (!rc && mmap(at, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
			fd, (off_t)offset) == MAP_FAILED) {
		rc = -errno;
		munmap(at, length);
	}
	close(fd);
	if (rc)
		return rc;
	if (flags & PMFS_MAP_HUGE)
		map_want_huge(at, length);
	*address = at;
	*mapped = length;
	return 0;
}

int pmfs_unmap_private(void *address, size_t mapped)
{
	if (!address || !mapped)
		return -EINVAL;
	return munmap(address, mapped) ? -errno : 0;
}
