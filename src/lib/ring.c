/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/ring_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/map.h"

#define SPIN_FIRST_NS 20000

/* ------------------------------------------------------------------ create */

static int write_zeros(int fd, uint64_t length)
{
	static const char zeros[65536];
	uint64_t at = 0;

	while (at < length) {
		size_t n = length - at < sizeof(zeros) ? (size_t)(length - at) : sizeof(zeros);
		ssize_t done = pwrite(fd, zeros, n, (off_t)at);

		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0)
			at += (uint64_t)done;
	}
	return 0;
}

/* A store into a file that has no room behind it would be SIGBUS. */
static int back_all(int fd, uint64_t length)
{
	if (!fallocate(fd, 0, 0, (off_t)length))
		return 0;
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)
		return write_zeros(fd, length);
	return -errno;
}

static int write_header(int fd, uint64_t size, uint64_t offset, uint32_t flags)
{
	struct pmfs_ring_header h;
	const uint64_t magic = PMFS_RING_MAGIC;

	memset(&h, 0, sizeof(h));
	h.version = PMFS_RING_VERSION;
	h.flags = flags;
	h.size = size;
	h.data_offset = offset;
	/* The magic last: who opens the file meanwhile sees no ring yet. */
	if (pwrite(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) ||
	    pwrite(fd, &magic, sizeof(magic), 0) != (ssize_t)sizeof(magic))
		return errno ? -errno : -EIO;
	return 0;
}

int pmfs_ring_create(const char *path, size_t size, mode_t mode, unsigned int flags)
{
	const size_t page = map_page_bytes();
	uint64_t offset = page > PMFS_RING_HEADER_BYTES ? page : PMFS_RING_HEADER_BYTES;
	int fd, rc;

	if (!path || !size || flags & ~PMFS_RING_MULTI || size > PMFS_RING_SIZE_MAX)
		return -EINVAL;
	size = (size + page - 1) / page * page;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	rc = back_all(fd, offset + size);
	if (!rc)
		rc = write_header(fd, size, offset,
				  flags & PMFS_RING_MULTI ? PMFS_RING_F_MULTI : 0);
	if (rc)
		unlink(path);
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

/* ------------------------------------------------------------------ open */

/* U1: size and offset are taken here and nowhere else. */
static int take_geometry(struct pmfs_ring *r)
{
	const size_t page = map_page_bytes();
	struct pmfs_ring_header h;
	struct stat st;
	ssize_t n;

	if (fstat(r->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	n = pread(r->fd, &h, sizeof(h), 0);
	if (n < 0)
		return -errno;
	if (n < (ssize_t)sizeof(h) || h.magic != PMFS_RING_MAGIC)
		return -EBADMSG;
	if (h.version != PMFS_RING_VERSION || h.flags & ~PMFS_RING_F_MULTI)
		return -EOPNOTSUPP;
	if (!h.size || h.size > PMFS_RING_SIZE_MAX || h.size % PMFS_RING_HEADER_BYTES ||
	    h.data_offset < PMFS_RING_HEADER_BYTES || h.data_offset % PMFS_RING_HEADER_BYTES ||
	    h.data_offset > PMFS_RING_SIZE_MAX || (uint64_t)st.st_size < h.data_offset + h.size)
		return -EUCLEAN;
	/* Made on a machine with smaller pages. */
	if (h.size % page || h.data_offset % page)
		return -EOPNOTSUPP;
	r->size = h.size;
	r->data_offset = h.data_offset;
	r->multi = h.flags & PMFS_RING_F_MULTI;
	return 0;
}

/*
 * A file in a snapshot can be opened for writing by root, as the kernel does not ask the daemon
 * then; stores to it would be lost without a word.  Writing what is there already brings out the
 * error.
 */
static int check_writable(const struct pmfs_ring *r)
{
	const uint64_t magic = PMFS_RING_MAGIC;

	return pwrite(r->fd, &magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) ? 0 : -errno;
}

static int map_all(struct pmfs_ring *r, unsigned int flags)
{
	unsigned int map_flags = (r->writable ? PMFS_MAP_WRITE : 0) | (flags & PMFS_MAP_HUGE);
	void *base;
	int rc;

	r->shm = mmap(NULL, PMFS_RING_HEADER_BYTES, PROT_READ | (r->writable ? PROT_WRITE : 0),
		      MAP_SHARED, r->fd, 0);
	if (r->shm == MAP_FAILED) {
		r->shm = NULL;
		return -errno;
	}
	rc = pmfs_ring_map(r->fd, r->data_offset, (size_t)r->size, map_flags, &base);
	if (!rc)
		r->base = base;
	return rc;
}

/* U2, R1 */
static int load_positions(const struct pmfs_ring *r, uint64_t *head, uint64_t *tail)
{
	/* The tail first: head only grows, so that one that is loaded later is not below it.
	 * Acquire, so that it is later. */
	*tail = atomic_load_explicit(&r->shm->tail, memory_order_acquire);
	*head = atomic_load_explicit(&r->shm->head, memory_order_acquire);
	return *head % 8 || *tail % 8 ? -EUCLEAN : 0;
}

static int enter_roles(struct pmfs_ring *r, unsigned int flags)
{
	uint64_t head, tail;
	int rc = 0;

	if (flags & PMFS_RING_PRODUCER) {
		rc = ring_owner_enter(r, RING_CONSUMER_SLOT + 1,
				      r->multi ? PMFS_RING_SLOTS - 1 : RING_CONSUMER_SLOT + 1,
				      &r->p.role);
		if (rc == -EBUSY && r->multi)
			rc = -EUSERS;
	}
	if (!rc && flags & PMFS_RING_CONSUMER)
		rc = ring_owner_enter(r, RING_CONSUMER_SLOT, RING_CONSUMER_SLOT, &r->c.role);
	if (rc)
		return rc;
	rc = load_positions(r, &head, &tail);
	/* With a consumer and a producer at work the two may be from different moments. */
	if (!rc && flags & PMFS_RING_PRODUCER && flags & PMFS_RING_CONSUMER && !r->multi &&
	    head - tail > r->size)
		rc = -EUCLEAN;
	r->p.head = head;
	r->p.tail_seen = tail;
	r->c.tail = r->c.cursor = tail;
	r->c.head_seen = tail;
	return rc;
}

int pmfs_ring_open(const char *path, unsigned int flags, struct pmfs_ring **out)
{
	struct pmfs_ring *r;
	int rc;

	if (!path || !out || flags & ~(PMFS_RING_PRODUCER | PMFS_RING_CONSUMER | PMFS_MAP_HUGE))
		return -EINVAL;
	r = aligned_alloc(alignof(struct pmfs_ring), sizeof(*r));
	if (!r)
		return -ENOMEM;
	memset(r, 0, sizeof(*r));
	r->p.role.slot = r->c.role.slot = RING_SLOT_NONE;
	r->p.spin.ns = r->c.spin.ns = SPIN_FIRST_NS;
	r->can_spin = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	r->writable = flags & (PMFS_RING_PRODUCER | PMFS_RING_CONSUMER);
	r->fd = open(path, (r->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	rc = r->fd < 0 ? -errno : take_geometry(r);
	if (!rc && r->writable)
		rc = check_writable(r);
	if (!rc)
		rc = map_all(r, flags);
	if (!rc) {
		ring_self_init(r);
		rc = enter_roles(r, flags);
	}
	if (rc) {
		pmfs_ring_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

void pmfs_ring_close(struct pmfs_ring *r)
{
	if (!r)
		return;
	if (r->p.role.slot != RING_SLOT_NONE)
		pmfs_ring_cancel(r);
	if (r->fd >= 0 && r->shm) {
		ring_owner_leave(r, &r->p.role);
		ring_owner_leave(r, &r->c.role);
	}
	if (r->base)
		pmfs_ring_unmap(r->base, (size_t)r->size);
	if (r->shm)
		munmap(r->shm, PMFS_RING_HEADER_BYTES);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

/* ------------------------------------------------------------------ look */

const void *pmfs_ring_base(const struct pmfs_ring *r, size_t *size)
{
	if (size)
		*size = (size_t)r->size;
	return r->base;
}

size_t pmfs_ring_message_max(const struct pmfs_ring *r)
{
	return (size_t)r->size - sizeof(uint64_t);
}

int pmfs_ring_stat(struct pmfs_ring *r, struct pmfs_ring_info *info)
{
	uint32_t pid;
	int rc;

	memset(info, 0, sizeof(*info));
	rc = load_positions(r, &info->head, &info->tail);
	info->size = r->size;
	info->multi = r->multi;
	for (uint32_t slot = 0; slot < PMFS_RING_SLOTS; slot++) {
		if (ring_owner_look(r, slot, NULL) != PEER_ALIVE)
			continue;
		/* Relaxed: a number to show. */
		pid = atomic_load_explicit(&r->shm->slots[slot].pid, memory_order_relaxed);
		if (slot == RING_CONSUMER_SLOT) {
			info->consumer_pid = pid;
		} else {
			info->producers++;
			info->producer_pid = pid;
		}
	}
	return rc;
}

int pmfs_ring_sync(struct pmfs_ring *r)
{
	if (!r->writable)
		return -EBADF;
	if (msync(r->base, (size_t)r->size, MS_SYNC) ||
	    msync(r->shm, PMFS_RING_HEADER_BYTES, MS_SYNC) || fsync(r->fd))
		return -errno;
	return 0;
}
