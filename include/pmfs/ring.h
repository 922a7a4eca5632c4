/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring.h - what a ring's file looks like, for programs that read one without libpmfs and for those
 * that copy one.  Programs that use rings include <pmfs.h> instead.
 *
 * A ring is a file: one header of 4,096 bytes, zeros up to data_offset, then `size` bytes of data.
 * Numbers are in the byte order of the machine; a ring of another order has another magic.
 *
 * A position is a number of bytes since the ring was made; it only grows, and what it names is at
 * data_offset + position % size.  Records lie in [tail, head), each at a multiple of 8: a header of
 * 8 bytes (PMFS_RING_RECORD), its message, and up to 7 bytes without a meaning.  A record may go
 * over the end of the data to the beginning; its header never does.
 *
 *   R1  tail <= head <= tail + size, and both are multiples of 8.
 *   R2  [tail, head) is made of whole records, one after the other.
 *   R3  Who writes records writes only to [head, tail + size); who reads moves only tail.
 *   R4  A record that is PMFS_RING_DONE is not changed until tail has passed it.
 *   R5  Without PMFS_RING_F_MULTI each record in [tail, head) is DONE: head moves when the message
 *       is there.  With it, head moves when the room is taken (under claim_lock), the record is
 *       BUSY until its message is there, and SKIP when it is given up.
 *
 * The file needs no recovery: a writer that dies leaves room after head that nobody knows of, or a
 * BUSY record whose writer is not alive, which the reader turns into a SKIP.
 */
#ifndef PMFS_RING_H
#define PMFS_RING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PMFS_RING_MAGIC        UINT64_C(0x676e697273666d70) /* "pmfsring", little endian */
#define PMFS_RING_VERSION      1u
#define PMFS_RING_HEADER_BYTES 4096u
#define PMFS_RING_SLOTS        56u /* of owners: 0 is the reader's, the others writers' */
#define PMFS_RING_SIZE_MAX     (UINT64_C(1) << 31) /* bytes of data */

#define PMFS_RING_F_MULTI 1u /* several writers */

/* The owner of a slot.  LIVE says nothing about a process that was killed: see there. */
enum pmfs_ring_owner_state {
	PMFS_RING_FREE = 0,
	PMFS_RING_ENTERING = 1, /* somebody fills in the fields */
	PMFS_RING_LIVE = 2,
};

struct pmfs_ring_slot {
	uint64_t state;       /*  0  pmfs_ring_owner_state | epoch << 32, which each owner raises */
	uint32_t pid;         /*  8 */
	uint32_t reserved1;   /* 12 */
	uint64_t start;       /* 16  when pid was started: field 22 of /proc/PID/stat; 0 unknown */
	uint64_t boot;        /* 24  of the boot id: its first 16 digits */
	uint64_t pidns;       /* 32  inode number of the pid namespace that pid is from */
	uint64_t reserved2[3];
};

/* What different processes write lies in different cache lines. */
struct pmfs_ring_header {
	uint64_t magic;         /*   0  stored last when a ring is made */
	uint32_t version;       /*   8 */
	uint32_t flags;         /*  12  PMFS_RING_F_* */
	uint64_t size;          /*  16  bytes of data, a multiple of the page size */
	uint64_t data_offset;   /*  24  likewise */
	uint64_t reserved1[4];
	uint64_t head;          /*  64  position; writers' */
	uint32_t claim_lock;    /*  72  0, or slot + 1 | epoch & 0x7fff << 16 | waiters << 31 */
	uint32_t reserved2[13];
	uint64_t tail;          /* 128  position; the reader's */
	uint64_t reserved3[7];
	uint32_t data_wait;     /* 192  futex: 1 when the reader sleeps */
	uint32_t reserved4[15];
	uint32_t space_wait;    /* 256  futex: 1 when writers sleep */
	uint32_t reserved5;
	uint64_t space_want;    /* 264  the tail they wait for */
	uint64_t reserved6[6];
	uint8_t reserved7[192];
	struct pmfs_ring_slot slots[PMFS_RING_SLOTS]; /* 512 */
};

/* The 8 bytes before a message. */
enum pmfs_ring_record_state {
	PMFS_RING_BUSY = 1,
	PMFS_RING_DONE = 2,
	PMFS_RING_SKIP = 3,
};
#define PMFS_RING_RECORD(length, state, slot, epoch) \
	((uint64_t)(uint32_t)(length) | (uint64_t)(state) << 32 | (uint64_t)((slot)&0xffu) << 40 | \
	 (uint64_t)((epoch)&0xffffu) << 48)
#define PMFS_RING_RECORD_LENGTH(r) ((uint32_t)(r))
#define PMFS_RING_RECORD_STATE(r)  ((unsigned int)((r) >> 32) & 0xffu)
#define PMFS_RING_RECORD_SLOT(r)   ((unsigned int)((r) >> 40) & 0xffu)
#define PMFS_RING_RECORD_EPOCH(r)  ((unsigned int)((r) >> 48))
/* How far it is from a record to the next. */
#define PMFS_RING_STRIDE(length) (((uint64_t)(length) + 15u) & ~UINT64_C(7))

/*
 * To copy a ring that is in use (a snapshot, a backup) so that the copy holds whole messages in
 * order, whatever writers and the reader do meanwhile:
 *
 *	uint64_t done = pmfs_ring_copy_begin(file, length);
 *	... copy all of the file ...
 *	pmfs_ring_copy_end(file, copy, length, done);
 *
 * `file` is the ring in memory, `length` its bytes.  The copy has the messages that were published
 * when it was begun and not yet released when it was finished: those nobody may have changed in
 * between (R4).  Nobody owns it.  Both calls do nothing with a file that is no ring, and neither
 * looks beyond `length`, whatever is in the file.  `copy` is aligned to 8 bytes and not shared.
 */
static inline int pmfs_ring_looks_right(const struct pmfs_ring_header *h, size_t length)
{
	uint64_t size, offset;

	if (length < sizeof(*h) ||
	    __atomic_load_n(&h->magic, __ATOMIC_ACQUIRE) != PMFS_RING_MAGIC ||
	    h->version != PMFS_RING_VERSION)
		return 0;
	size = __atomic_load_n(&h->size, __ATOMIC_RELAXED);
	offset = __atomic_load_n(&h->data_offset, __ATOMIC_RELAXED);
	return offset >= PMFS_RING_HEADER_BYTES && offset % PMFS_RING_HEADER_BYTES == 0 && size &&
	       size % PMFS_RING_HEADER_BYTES == 0 && size <= PMFS_RING_SIZE_MAX &&
	       offset <= length && size <= length - offset;
}

/* The position up to which records are DONE or SKIP. */
static inline uint64_t pmfs_ring_copy_begin(const void *file, size_t length)
{
	const struct pmfs_ring_header *h = (const struct pmfs_ring_header *)file;
	uint64_t at, head, size, offset, record, step;
	const uint64_t *word;

	if (!pmfs_ring_looks_right(h, length))
		return 0;
	size = __atomic_load_n(&h->size, __ATOMIC_RELAXED);
	offset = __atomic_load_n(&h->data_offset, __ATOMIC_RELAXED);
	/* Read again: the file may be written to by anybody. */
	if (!size || size % 8 || offset % 8 || offset > length || size > length - offset)
		return 0;
	at = __atomic_load_n(&h->tail, __ATOMIC_ACQUIRE);
	head = __atomic_load_n(&h->head, __ATOMIC_ACQUIRE);
	if (at % 8 || head % 8 || head - at > size)
		return at;
	while (at != head) {
		word = (const uint64_t *)(const void *)((const char *)file + offset + at % size);
		record = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		step = PMFS_RING_STRIDE(PMFS_RING_RECORD_LENGTH(record));
		if (PMFS_RING_RECORD_STATE(record) != PMFS_RING_DONE &&
		    PMFS_RING_RECORD_STATE(record) != PMFS_RING_SKIP)
			break;
		if (step > head - at)
			break;
		at += step;
	}
	return at;
}

static inline void pmfs_ring_copy_end(const void *file, void *copy, size_t length, uint64_t done)
{
	const struct pmfs_ring_header *h = (const struct pmfs_ring_header *)file;
	struct pmfs_ring_header *c = (struct pmfs_ring_header *)copy;
	unsigned int i;

	if (!pmfs_ring_looks_right(c, length))
		return;
	/* The copying comes before this load, as the reader's loads before its store. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	c->tail = __atomic_load_n(&h->tail, __ATOMIC_RELAXED);
	/* The reader has passed all that was there at the beginning. */
	c->head = done - c->tail > c->size ? c->tail : done;
	c->claim_lock = c->data_wait = c->space_wait = 0;
	c->space_want = 0;
	for (i = 0; i < PMFS_RING_SLOTS; i++)
		c->slots[i].state = (c->slots[i].state >> 32) << 32;
}

#ifdef __cplusplus
}
#endif

#endif
