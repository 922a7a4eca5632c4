/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * region.h - the growable array of frames that everything lives in.
 *
 * Addresses for the largest region are reserved once (PROT_NONE), so a frame never moves.  The
 * backed part is mapped read-only: a stray store faults, it does not reach a frame.  Frames are
 * written through one door, region_write(): pwrite(2) for an image (stores into fresh file pages
 * run at a fifth of it) and for long runs of a memfd that have no memory yet, else stores into a
 * second, writable mapping for a memfd.  The read-only map sees either at once.
 *
 *   R1  A frame below region_frames() is backed: the host has the space, so writing it can't fail
 *       for want of it (image: fallocate; a punched frame is not backed again until region_back()).
 *   R2  region_at() of a backed frame never moves.
 *   R3  After a failed flush the region is poisoned: every later write, growth and flush returns
 *       that error.  (The kernel may have dropped the dirty pages, so a retry could report success
 *       for data that is gone.)
 *   R4  A load from a frame can fault (truncated image, I/O error of the host).  region_copy_out(),
 *       _hash, _equal and _probe turn that into -EIO (a SIGBUS handler with a jump target per
 *       thread).  At any other load the handler puts a page of zeros there, and poisons the region
 *       with -EIO before the load goes on: who used region_at() asks region_error() before it
 *       believes what it saw.  The kernel answers EFAULT to a writev from such a frame.
 *       A SIGBUS outside of every region is passed on.
 *
 * Thread safe.  Lock rank: LOCK_REGION.
 */
#ifndef PMFS_STORE_REGION_H
#define PMFS_STORE_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pmfs/format.h"

struct region;

enum region_kind { REGION_MEMFD, REGION_IMAGE };

#define REGION_READONLY 1u /* no write, no growth; locked shared */
#define REGION_CREATE 2u   /* make the file; -EEXIST when it is there */
#define REGION_NOLOCK 4u   /* tests only */

#define REGION_MAX_OPEN 64 /* regions that a process can have at a time; one more is -EMFILE */

/*
 * Open an image.  limit_frames: how far it may ever grow (addresses are reserved for that many; at
 * least what the file has).  A writer takes an exclusive lock on the file, a reader a shared one:
 * -EBUSY: another process has it; *holder (may be NULL) is that process's pid, 0 unknown.
 * -EISDIR/-ENOTBLK: not a regular file or block device.  Otherwise errors of open(2), mmap(2).
 * Where the process may not have that many addresses, the limit becomes what it may have: ask
 * region_limit().
 * A block device is a region that is as long as the device from the beginning and takes no
 * punching.
 */
int region_open_image(struct region **out, const char *path, uint64_t limit_frames, unsigned flags,
		      int *holder);
int region_open_memfd(struct region **out, uint64_t limit_frames);
void region_close(struct region *rg);

enum region_kind region_kind(const struct region *rg);
uint64_t region_frames(const struct region *rg); /* backed and mapped; atomic */
uint64_t region_limit(const struct region *rg);
uint64_t region_reserved(const struct region *rg); /* frames that have addresses; set once */
bool region_readonly(const struct region *rg);
/* Lowers or raises it within what was reserved; -ERANGE, also for less than region_frames(). */
int region_set_limit(struct region *rg, uint64_t limit_frames);
uint64_t region_host_bytes(const struct region *rg); /* what the host has given (st_blocks) */
uint64_t region_host_free(const struct region *rg);  /* what it could still give, or UINT64_MAX */

/*
 * Grow to `frames` in all (fewer than there are: nothing to do).  -ENOSPC: the limit or the host;
 * -EFBIG, -EROFS; nothing has changed then.
 */
int region_grow(struct region *rg, uint64_t frames);
/*
 * Cut off all frames from `frames` on; they must not be in use.  -EOPNOTSUPP: a device; -EROFS; the
 * poison.
 */
int region_truncate(struct region *rg, uint64_t frames);

/*
 * Windows: addresses of the region behind those of its frames, where the memory of another file (a
 * view's) can be read.  Nothing of a window is a frame: it has no number, and no map points to it.
 * The addresses are another window's only after region_window_close().
 */
struct region_window {
	struct region_window *next; /* of the region; guarded by the region's lock */
	const uint8_t *at;
	uint64_t span;		 /* bytes of addresses; set once */
	_Atomic uint64_t mapped; /* bytes of the file that can be looked at; only grows */
};
/*
 * Map the first `bytes` of fd, with addresses for at least `span` bytes.  -ENOSPC, -ENOMEM: no
 * addresses.
 */
int region_window_open(struct region *rg, int fd, uint64_t bytes, uint64_t span,
		       struct region_window **out);
/* Map so many bytes, if there are addresses: -ENOSPC.  The caller sees to it that it is one at a
 * time. */
int region_window_extend(struct region_window *win, int fd, uint64_t bytes);
void region_window_close(struct region *rg, struct region_window *win);
/*
 * Run fn(arg), which looks at frames and windows at any address and does nothing else: 0, or -EIO
 * when a load faulted (the file has become shorter, a hole in it could not be filled); fn has not
 * come to its end then.
 */
int region_look(void (*fn)(void *arg), void *arg);

/* Read-only address of a frame, which must be below region_frames(). */
const void *region_at(const struct region *rg, pfn_t pfn);

/* Copy out of a frame, -EIO when it can't be read.  off + len <= 4096 * nframes behind pfn. */
int region_copy_out(const struct region *rg, pfn_t pfn, size_t off, void *buf, size_t len);
/* XXH3-64 of a whole frame; -EIO. */
int region_hash(const struct region *rg, pfn_t pfn, uint64_t *hash);
/* Are two frames equal?  1, 0, -EIO. */
int region_equal(const struct region *rg, pfn_t a, pfn_t b);
/* Touch n frames so that a fault happens here and not elsewhere; -EIO. */
int region_probe(const struct region *rg, pfn_t pfn, uint64_t n);

/*
 * Write into backed frames; may run over the end of a frame into the next.  -EIO, -EROFS, the
 * poison.  A write that fails poisons the region with -EIO as well: half of it may be there.
 */
int region_write(struct region *rg, pfn_t pfn, size_t off, const void *buf, size_t len);
int region_copy_frame(struct region *rg, pfn_t from, pfn_t to);
int region_zero(struct region *rg, pfn_t pfn);

/* Give n frames back to the host; they read as zeros and are not backed until region_back(). */
int region_punch(struct region *rg, pfn_t pfn, uint64_t n);
/* Back n punched frames again.  -ENOSPC.  Frames that are backed keep their contents. */
int region_back(struct region *rg, pfn_t pfn, uint64_t n);
/*
 * The first run of frames in [from, end) that the host certainly has space for: [*start, *stop).
 * *start == end: there is none.
 * A host that can't tell says that it is all of them.
 */
int region_next_backed(const struct region *rg, pfn_t from, pfn_t end, pfn_t *start, pfn_t *stop);

/*
 * Have the host begin to write these frames, without waiting for it more than it makes us.  Only a
 * hint: what it says of errors is told by the next flush.
 */
void region_start_flush(const struct region *rg, pfn_t pfn, uint64_t n);
/* All that was written before the call is durable when it returns 0 (memfd: nothing to do). */
int region_flush(struct region *rg);
uint64_t region_flushes(const struct region *rg); /* how many; atomic */
uint64_t region_written(const struct region *rg); /* bytes written; atomic */
int region_error(const struct region *rg);        /* the poison, 0: none */
void region_poison(struct region *rg, int error);

/*
 * Does the file still have all the bytes that are mapped?  -EIO: it was truncated behind our back.
 */
int region_check(const struct region *rg);

/*
 * The test harness of power cuts: called under LOCK_REGION for each write and each flush that
 * succeeded.
 */
struct region_tap {
	void (*wrote)(void *arg, uint64_t byte, const void *buf, size_t len);
	void (*punched)(void *arg, uint64_t byte, uint64_t len);
	void (*flushed)(void *arg);
	void *arg;
};
void region_set_tap(struct region *rg, const struct region_tap *tap); /* NULL: none */

#endif
