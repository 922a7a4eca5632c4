/* SPDX-License-Identifier: BSD-2-Clause */
#include "pmfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/map.h"

struct pmfs_alias {
	void *writable;
	void *readable;
	size_t size;
	int fd; /* of the writable one, for fsync */
};

/*
 * A descriptor that can only read: no mapping of it can be made writable later.  It is of the file
 * itself, not of DIR/.pmfs/alias/NAME: all mappings of one file show the same memory, whatever
 * serves it.  And not by its path, where another file could be by now.
 */
static int open_readable(int fd)
{
	char self[40];
	int ro;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	ro = open(self, O_RDONLY | O_CLOEXEC);
	return ro < 0 ? -errno : ro;
}

/* *size is what the caller wants, 0: that of the file. */
static int settle_size(int fd, size_t *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (!*size) {
		if (!st.st_size)
			return -ENODATA;
		if ((uint64_t)st.st_size > PTRDIFF_MAX)
			return -EFBIG;
		*size = (size_t)st.st_size;
		return 0;
	}
	if ((uint64_t)st.st_size >= *size)
		return 0;
	/* Backed, where the filesystem can: a store would be SIGBUS on a full one. */
	if (!fallocate(fd, 0, 0, (off_t)*size))
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return ftruncate(fd, (off_t)*size) ? -errno : 0;
}

static int map_one(int fd, size_t size, int prot, bool huge, void **out)
{
	size_t align = huge && size >= MAP_HUGE_BYTES ? MAP_HUGE_BYTES : 0;
	void *at;
	int rc = map_reserve(size, align, 0, &at);

	if (rc)
		return rc;
	if (mmap(at, size, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		rc = -errno;
		munmap(at, size);
		return rc;
	}
	if (huge)
		map_want_huge(at, size);
	*out = at;
	return 0;
}

int pmfs_alias_open(const char *path, size_t size, unsigned int flags, struct pmfs_alias **out)
{
	struct pmfs_alias *a;
	bool huge = flags & PMFS_MAP_HUGE;
	int ro = -1, rc;

	if (!path || !out || flags & ~(PMFS_MAP_CREATE | PMFS_MAP_HUGE) || size > PTRDIFF_MAX)
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->size = size;
	a->fd = open(path, O_RDWR | O_CLOEXEC | (flags & PMFS_MAP_CREATE ? O_CREAT : 0), 0666);
	rc = a->fd < 0 ? -errno : settle_size(a->fd, &a->size);
	if (!rc) {
		ro = open_readable(a->fd);
		rc = ro < 0 ? ro : 0;
	}
	if (!rc)
		rc = map_one(a->fd, a->size, PROT_READ | PROT_WRITE, huge, &a->writable);
	if (!rc)
		rc = map_one(ro, a->size, PROT_READ, huge, &a->readable);
	if (ro >= 0)
		close(ro);
	if (rc) {
		pmfs_alias_close(a);
		return rc;
	}
	*out = a;
	return 0;
}

void pmfs_alias_close(struct pmfs_alias *a)
{
	if (!a)
		return;
	if (a->readable)
		munmap(a->readable, a->size);
	if (a->writable)
		munmap(a->writable, a->size);
	if (a->fd >= 0)
		close(a->fd);
	free(a);
}

void *pmfs_alias_writable(const struct pmfs_alias *a)
{
	return a->writable;
}

const void *pmfs_alias_readable(const struct pmfs_alias *a)
{
	return a->readable;
}

size_t pmfs_alias_size(const struct pmfs_alias *a)
{
	return a->size;
}

int pmfs_alias_sync(struct pmfs_alias *a)
{
	return msync(a->writable, a->size, MS_SYNC) || fsync(a->fd) ? -errno : 0;
}
