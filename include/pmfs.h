/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pmfs.h - libpmfs: rings, alias pairs, private views and snapshots for C and C++ programs.
 *
 * For all calls: 0, a count, or a negative errno value is returned; results leave through pointers
 * and are written only on success.  Nothing prints, changes errno for the caller to read, or
 * installs a signal handler.  Handles are opaque and belong to the process that opened them, not to
 * its children after fork(2).  Sizes are bytes.  Timeouts are nanoseconds: 0 does not wait,
 * PMFS_FOREVER waits without end; -ETIMEDOUT when nothing came, -EINTR when a signal handler ran.
 *
 * Paths are those of any file: a ring, an alias pair or a private view works on whatever can be
 * mapped shared.  On a pmfs mount DIR, shared memory by name is DIR/.pmfs/views/NAME.
 */
#ifndef PMFS_PMFS_H
#define PMFS_PMFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PMFS_API __attribute__((visibility("default")))
#else
#define PMFS_API
#endif

#define PMFS_FOREVER ((int64_t)-1)

/* The version of the library that runs, such as "0.1.0". */
PMFS_API const char *pmfs_version(void);

/* What maps memory takes these; the ones that a call knows are named there. */
#define PMFS_MAP_WRITE  0x1u /* stores are allowed, and reach the file */
#define PMFS_MAP_HUGE   0x2u /* ask for huge pages; ignored where the system has none to offer */
#define PMFS_MAP_LIVE   0x4u /* pmfs_map_private: the file may change beneath */
#define PMFS_MAP_CREATE 0x8u /* pmfs_alias_open: make the file when it is not there */

/* --- rings: memory (pmfs_ring_map(3)) */

/*
 * Map size bytes of fd from offset on twice in a row: base[i] and base[i + size] are one byte for
 * i < size.  offset and size are multiples of the page size, and the file has these bytes.
 * flags: PMFS_MAP_WRITE, PMFS_MAP_HUGE.  Thread-safe.  fd may be closed afterwards.
 */
PMFS_API int pmfs_ring_map(int fd, uint64_t offset, size_t size, unsigned int flags, void **base);
PMFS_API int pmfs_ring_unmap(void *base, size_t size);

/* --- rings: messages (pmfs_ring(3)) */

struct pmfs_ring;

#define PMFS_RING_MULTI 0x100u /* pmfs_ring_create: for several producers */

#define PMFS_RING_PRODUCER 0x200u /* pmfs_ring_open: to write messages */
#define PMFS_RING_CONSUMER 0x400u /* ... to read them */

/*
 * Make a ring with room for size bytes (rounded up to whole pages; at most 2 GiB) in a new file.
 * -EEXIST when there is a file.  All of it is backed, or -ENOSPC and no file.
 */
PMFS_API int pmfs_ring_create(const char *path, size_t size, mode_t mode, unsigned int flags);

/*
 * flags: PMFS_RING_PRODUCER and PMFS_RING_CONSUMER, or neither, only to look; PMFS_MAP_HUGE.
 * -EBUSY: somebody alive has that role; -EUSERS: 55 producers are there; -EBADMSG: not a ring;
 * -EUCLEAN: its positions contradict each other; -EOPNOTSUPP: a ring of another version.
 * A role whose owner was killed is taken over.
 * One thread at a time may use a handle for producing, and one for consuming; they may be two.
 */
PMFS_API int pmfs_ring_open(const char *path, unsigned int flags, struct pmfs_ring **out);
/* Gives the roles back, and what is reserved and not committed.  NULL is fine. */
PMFS_API void pmfs_ring_close(struct pmfs_ring *ring);

/* The data, mapped twice in a row, and its size; for looking. */
PMFS_API const void *pmfs_ring_base(const struct pmfs_ring *ring, size_t *size);
PMFS_API size_t pmfs_ring_message_max(const struct pmfs_ring *ring);

/*
 * Room for a message of length bytes, 1..size - 8, in one piece and aligned to 8 bytes; valid until
 * it is committed or cancelled.  May be called again before that: the messages are then a batch.
 * -EAGAIN: no room; -EMSGSIZE: never any room; -ENOBUFS: (PMFS_RING_MULTI) more than 256 in the
 * batch; -EBUSY: (likewise) another producer was stopped while it takes its room.
 */
PMFS_API int pmfs_ring_reserve(struct pmfs_ring *ring, size_t length, void **message);
/* The message reserved last is shorter than was thought: 1..length. */
PMFS_API int pmfs_ring_trim(struct pmfs_ring *ring, size_t length);
/*
 * Publish all that is reserved, in the order it was reserved in.  -ESTALE: (PMFS_RING_MULTI) the
 * consumer took this process for dead and has skipped some of it.
 */
PMFS_API int pmfs_ring_commit(struct pmfs_ring *ring);
PMFS_API int pmfs_ring_cancel(struct pmfs_ring *ring);
/*
 * Until there is room for length bytes.  -EOWNERDEAD, once, when the consumer was killed; waiting
 * on is for the next consumer.  -EBUSY: something is reserved; commit it first.
 */
PMFS_API int pmfs_ring_wait_space(struct pmfs_ring *ring, size_t length, int64_t timeout_ns);
/* Reserve, copy, commit; waits for room. */
PMFS_API int pmfs_ring_write(struct pmfs_ring *ring, const void *message, size_t length,
			     int64_t timeout_ns);

/*
 * The next message and its length, in one piece and aligned to 8 bytes; valid until it is released.
 * May be called again before that, and gives the message after.  -EAGAIN: there is none.  Who can
 * write to the file can change the message while it is looked at.
 */
PMFS_API ssize_t pmfs_ring_peek(struct pmfs_ring *ring, const void **message);
/* All that was peeked at may be overwritten. */
PMFS_API int pmfs_ring_release(struct pmfs_ring *ring);
/* Peek from the first message that was not released again. */
PMFS_API int pmfs_ring_rewind(struct pmfs_ring *ring);
/*
 * Until pmfs_ring_peek has a message.  -EOWNERDEAD, once for each, when a producer was killed and
 * all that it had published has been peeked at; waiting on is for the next producer.
 */
PMFS_API int pmfs_ring_wait_data(struct pmfs_ring *ring, int64_t timeout_ns);
/*
 * Wait, copy one message, release; its length.  -EMSGSIZE: it is longer than room, and still there.
 * -EBUSY: something was peeked at and not released.
 */
PMFS_API ssize_t pmfs_ring_read(struct pmfs_ring *ring, void *buffer, size_t room,
				int64_t timeout_ns);
/* The consumer's way out of -EUCLEAN: whatever is in the ring is released. */
PMFS_API int pmfs_ring_discard(struct pmfs_ring *ring);

/* msync(2) and fsync(2) of all of it. */
PMFS_API int pmfs_ring_sync(struct pmfs_ring *ring);

struct pmfs_ring_info {
	uint64_t size;          /* of the data */
	uint64_t head, tail;    /* bytes ever written, and released */
	uint32_t multi;         /* several producers */
	uint32_t producers;     /* alive */
	uint32_t producer_pid;  /* of one of them, as it sees itself; 0: none */
	uint32_t consumer_pid;  /* 0: none alive */
	uint64_t reserved[8];
};
PMFS_API int pmfs_ring_stat(struct pmfs_ring *ring, struct pmfs_ring_info *info);

/* --- alias pairs (pmfs_alias(3)) */

struct pmfs_alias;

/*
 * The same memory twice: where it can be written, and where it can't, not even after mprotect(2).
 * size 0: that of the file; else the file is made longer when it is shorter (and made, with
 * PMFS_MAP_CREATE, mode 0666 less the umask).  Who gets the second address, or a descriptor of
 * DIR/.pmfs/alias/NAME when the file is DIR/.pmfs/views/NAME, can look and not change.
 * flags: PMFS_MAP_CREATE, PMFS_MAP_HUGE.
 */
PMFS_API int pmfs_alias_open(const char *path, size_t size, unsigned int flags,
			     struct pmfs_alias **out);
PMFS_API void pmfs_alias_close(struct pmfs_alias *alias);
PMFS_API void *pmfs_alias_writable(const struct pmfs_alias *alias);
PMFS_API const void *pmfs_alias_readable(const struct pmfs_alias *alias);
PMFS_API size_t pmfs_alias_size(const struct pmfs_alias *alias);
/* msync(2) and fsync(2). */
PMFS_API int pmfs_alias_sync(struct pmfs_alias *alias);

/* --- private views (pmfs_map_private(3)) */

/*
 * Map length bytes (0: up to the end) from offset on, copy-on-write: stores stay in this process,
 * and the kernel copies a page when it is first stored to.
 *
 * Pages that were not stored to follow the file.  So path must be in a snapshot,
 * DIR/.snapshots/NAME/..., which does not change; -ESTALE when it is not, unless PMFS_MAP_LIVE says
 * that this is known.  The snapshot must not be deleted before the view is unmapped.
 * flags: PMFS_MAP_LIVE, PMFS_MAP_HUGE.  *mapped is what pmfs_unmap_private() wants.
 */
PMFS_API int pmfs_map_private(const char *path, uint64_t offset, size_t length, unsigned int flags,
			      void **address, size_t *mapped);
PMFS_API int pmfs_unmap_private(void *address, size_t mapped);

/* --- snapshots (pmfs_snapshot(3)) */

/*
 * dir is any path in a mount.  -ENODEV: it is in none; -ENOTCONN: the daemon does not answer;
 * -EPERM, -ENOENT, -EEXIST, -ENOSPC, -EBUSY as their names say.  Thread-safe; each call talks to
 * the daemon.
 */

/* message may be NULL.  It has all that was written in the mount before the call. */
PMFS_API int pmfs_snapshot_create(const char *dir, const char *name, const char *message);
PMFS_API int pmfs_snapshot_delete(const char *dir, const char *name);

struct pmfs_snapshot {
	const char *name;
	const char *message;
	uint64_t id;
	uint64_t generation;
	int64_t created_ns;        /* since 1970, UTC */
	uint64_t referenced_bytes;
};
struct pmfs_snapshot_list;

/* The oldest first.  Strings live as long as the list. */
PMFS_API int pmfs_snapshot_list(const char *dir, struct pmfs_snapshot_list **out);
PMFS_API size_t pmfs_snapshot_count(const struct pmfs_snapshot_list *list);
/* NULL when there are not so many. */
PMFS_API const struct pmfs_snapshot *pmfs_snapshot_get(const struct pmfs_snapshot_list *list,
						       size_t index);
PMFS_API void pmfs_snapshot_list_free(struct pmfs_snapshot_list *list);

/* --- control (pmfs_control(3)) */

/*
 * One request to the daemon of the mount that dir is in: op and its arguments, a JSON object or
 * NULL.  *reply is a JSON text, to be freed with free(3): what the daemon says as "data", or, when
 * it refuses, its "error" (also written on failure then; NULL when there was no answer).
 */
PMFS_API int pmfs_control(const char *dir, const char *op, const char *args, char **reply);

#ifdef __cplusplus
}
#endif

#endif
