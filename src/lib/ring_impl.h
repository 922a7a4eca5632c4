/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring_impl.h - what the parts of the ring share: its memory (pmfs/ring.h has the rules R1 to R5),
 * who owns a role, and the handle.
 *
 * The memory is untrusted: whoever may write to the file may store anything at any time.  So
 *
 *   U1  what decides where memory is touched (size, offset) is read once, when the ring is opened;
 *   U2  a position or record from the memory is loaded once and checked before it is used;
 *   U3  no wait goes on without end because of what is in the memory, unless the caller wants that.
 *
 * What can't be defended here: a file that is cut short is SIGBUS to who maps it, and a message can
 * change while it is looked at.
 */
#ifndef PMFS_LIB_RING_IMPL_H
#define PMFS_LIB_RING_IMPL_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pmfs.h"
#include "pmfs/ring.h"

#define RING_BATCH_MAX 256u
#define RING_CONSUMER_SLOT 0u
#define RING_SLOT_NONE UINT32_MAX
/* How long a wait sleeps before it looks whether the other side is alive. */
#define RING_SLICE_NS INT64_C(20000000)

/* struct pmfs_ring_slot and struct pmfs_ring_header, for C11's atomics. */
struct ring_slot {
	_Atomic uint64_t state;
	_Atomic uint32_t pid;
	uint32_t reserved1;
	_Atomic uint64_t start;
	_Atomic uint64_t boot;
	_Atomic uint64_t pidns;
	uint64_t reserved2[3];
};

struct ring_header {
	_Atomic uint64_t magic;
	uint32_t version;
	uint32_t flags;
	uint64_t size;
	uint64_t data_offset;
	uint64_t reserved1[4];
	_Atomic uint64_t head;
	_Atomic uint32_t claim_lock;
	uint32_t reserved2[13];
	_Atomic uint64_t tail;
	uint64_t reserved3[7];
	_Atomic uint32_t data_wait;
	uint32_t reserved4[15];
	_Atomic uint32_t space_wait;
	uint32_t reserved5;
	_Atomic uint64_t space_want;
	uint64_t reserved6[6];
	uint8_t reserved7[192];
	struct ring_slot slots[PMFS_RING_SLOTS];
};

static_assert(sizeof(struct ring_header) == PMFS_RING_HEADER_BYTES, "one page");
static_assert(sizeof(struct pmfs_ring_header) == PMFS_RING_HEADER_BYTES, "one page");
#define RING_SAME(member)                                                    \
	static_assert(offsetof(struct ring_header, member) ==                \
			      offsetof(struct pmfs_ring_header, member),     \
		      #member)
RING_SAME(magic);
RING_SAME(data_offset);
RING_SAME(head);
RING_SAME(claim_lock);
RING_SAME(tail);
RING_SAME(data_wait);
RING_SAME(space_wait);
RING_SAME(space_want);
RING_SAME(slots);
static_assert(sizeof(struct ring_slot) == sizeof(struct pmfs_ring_slot), "slot");
static_assert(offsetof(struct ring_slot, pidns) == offsetof(struct pmfs_ring_slot, pidns), "slot");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "shared between processes");

/* The role that a handle has; slot is RING_SLOT_NONE without one. */
struct ring_role {
	uint32_t slot;
	uint32_t epoch;
};

/* How long it pays to look again and again before sleeping; of one thread. */
struct ring_spin {
	int64_t ns;
};

struct pmfs_ring {
	/* set once at open */
	struct ring_header *shm;
	uint8_t *base;
	uint64_t size; /* bytes of data */
	uint64_t data_offset;
	int fd;
	bool multi, writable;
	bool can_spin; /* there is more than one CPU */
	struct {
		uint32_t pid;
		uint64_t start, boot, pidns;
	} self; /* this process, as in struct pmfs_ring_slot */

	/* the producing thread's */
	alignas(64) struct {
		struct ring_role role;
		struct ring_spin spin;
		uint64_t head;      /* R3: the next record goes here (not MULTI) */
		uint64_t tail_seen; /* tail is here or further on */
		uint64_t last;      /* the record that was reserved last */
		uint64_t last_length;
		uint32_t pending;   /* records reserved and not committed */
		uint64_t records[RING_BATCH_MAX]; /* where (MULTI) */
	} p;

	/* the consuming thread's */
	alignas(64) struct {
		struct ring_role role;
		struct ring_spin spin;
		uint64_t tail;      /* the shared one; only we move it */
		uint64_t cursor;    /* the next record to look at */
		uint64_t head_seen;
		uint64_t peeked;    /* messages between tail and cursor */
		int64_t checked_ns; /* when the owner of a BUSY record was looked at last */
	} c;
};

/* ------------------------------------------------------------------ ring_owner.c */

enum ring_peer {
	PEER_NONE,  /* nobody has the role */
	PEER_ALIVE,
	PEER_DEAD,  /* was killed, or has exited without giving it back */
};

/* Fill in r->self. */
void ring_self_init(struct pmfs_ring *r);

/*
 * Take the first free slot of first..last.  -EBUSY: all are held by somebody alive.  The slot is
 * locked (F_OFD_SETLK) as long as r->fd is open, so no two handles ever have the same one.
 */
int ring_owner_enter(struct pmfs_ring *r, uint32_t first, uint32_t last, struct ring_role *role);
void ring_owner_leave(struct pmfs_ring *r, struct ring_role *role);

/* *word (may be NULL) is the state that the answer is about. */
enum ring_peer ring_owner_look(const struct pmfs_ring *r, uint32_t slot, uint64_t *word);
/* Is the owner of that slot in that epoch, of which the low `bits` bits are known, alive? */
bool ring_owner_lives(const struct pmfs_ring *r, uint32_t slot, uint32_t epoch, unsigned int bits);
/* Nobody has the role any more.  False when word is not the state now: somebody else was faster. */
bool ring_owner_bury(struct pmfs_ring *r, uint32_t slot, uint64_t word);

/*
 * The lock of PMFS_RING_F_MULTI: a lock whose owner is dead is taken from it, as it protects one
 * store (of head) and leaves nothing half done.  -EBUSY: a live owner has not let go for a second;
 * -EUCLEAN: an owner that can't be.
 */
int ring_claim_lock(struct pmfs_ring *r);
void ring_claim_unlock(struct pmfs_ring *r);

int64_t ring_now_ns(void);
/* Sleep while *word is value, at most ns.  0, -EAGAIN: it is not; -ETIMEDOUT, -EINTR. */
int ring_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t ns);
void ring_futex_wake(_Atomic uint32_t *word, int count);

static inline _Atomic uint64_t *ring_record(const struct pmfs_ring *r, uint64_t position)
{
	return (_Atomic uint64_t *)(void *)(r->base + position % r->size);
}

static inline void ring_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
