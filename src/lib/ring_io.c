/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The orders of the atomics.  Between one producer and the consumer two positions are all there is:
 *
 *   head   stored after the records before it were written; who loads it with acquire sees them
 *   tail   stored after the messages before it were read; who loads it with acquire may write there
 *
 * Both stores are sequentially consistent, which includes release, because of the sleepers: who
 * moves a position and then looks whether somebody sleeps, and who says that it sleeps and then
 * looks at the position, must not both see the old value.  Only one order of all four accesses
 * rules that out.
 */
#include "lib/ring_impl.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define SPIN_MIN_NS 1000
#define SPIN_MAX_NS 50000
#define SPIN_STEP   16u
/* How often the owner of a BUSY record is looked at by who only peeks. */
#define BUSY_CHECK_NS 5000000

static uint64_t record_of(const struct pmfs_ring *r, uint64_t length, unsigned int state)
{
	return PMFS_RING_RECORD(length, state, r->p.role.slot, r->p.role.epoch);
}

/* ------------------------------------------------------------------ producer */

/* Is there room for need bytes after head?  U2, R1. */
static int room_for(struct pmfs_ring *r, uint64_t head, uint64_t need)
{
	uint64_t used = head - r->p.tail_seen;

	if (used <= r->size && r->size - used >= need)
		return 0;
	/* Acquire: what the consumer has read before it released this is not changed before. */
	r->p.tail_seen = atomic_load_explicit(&r->shm->tail, memory_order_acquire);
	used = head - r->p.tail_seen;
	if (used > r->size || r->p.tail_seen % 8)
		return -EUCLEAN;
	return r->size - used >= need ? 0 : -EAGAIN;
}

static int check_length(const struct pmfs_ring *r, size_t length)
{
	if (r->p.role.slot == RING_SLOT_NONE)
		return -EBADF;
	if (!length)
		return -EINVAL;
	return length > r->size - sizeof(uint64_t) ? -EMSGSIZE : 0;
}

static int claim(struct pmfs_ring *r, size_t length, uint64_t *at)
{
	uint64_t head, need = PMFS_RING_STRIDE(length);
	int rc;

	if (r->p.pending == RING_BATCH_MAX)
		return -ENOBUFS;
	rc = ring_claim_lock(r);
	if (rc)
		return rc;
	/* Relaxed: the lock orders it after the store of who had the lock before. */
	head = atomic_load_explicit(&r->shm->head, memory_order_relaxed);
	rc = head % 8 ? -EUCLEAN : room_for(r, head, need);
	if (!rc) {
		/* Relaxed, as the next store is a release: who sees head sees that this is BUSY.  A
		 * death between the two leaves head as it was. */
		atomic_store_explicit(ring_record(r, head), record_of(r, length, PMFS_RING_BUSY),
				      memory_order_relaxed);
		atomic_store_explicit(&r->shm->head, head + need, memory_order_release);
		*at = head;
	}
	ring_claim_unlock(r);
	if (!rc)
		r->p.records[r->p.pending] = head;
	return rc;
}

int pmfs_ring_reserve(struct pmfs_ring *r, size_t length, void **message)
{
	uint64_t at;
	int rc = check_length(r, length);

	if (rc)
		return rc;
	if (r->multi) {
		rc = claim(r, length, &at);
	} else {
		at = r->p.head;
		rc = room_for(r, at, PMFS_RING_STRIDE(length));
	}
	if (rc)
		return rc;
	if (!r->multi) {
		/* Relaxed: nobody looks there before head has moved. */
		atomic_store_explicit(ring_record(r, at), record_of(r, length, PMFS_RING_DONE),
				      memory_order_relaxed);
		r->p.head = at + PMFS_RING_STRIDE(length);
	}
	r->p.pending++;
	r->p.last = at;
	r->p.last_length = length;
	*message = (uint8_t *)ring_record(r, at) + sizeof(uint64_t);
	return 0;
}

/*
 * The rest of a record that gets shorter is a record of its own, which the consumer skips; it is
 * there before the consumer can come to it, as the first is still BUSY.
 */
static int trim_claimed(struct pmfs_ring *r, size_t length)
{
	uint64_t was = record_of(r, r->p.last_length, PMFS_RING_BUSY);
	uint64_t now = PMFS_RING_STRIDE(length), rest = PMFS_RING_STRIDE(r->p.last_length) - now;

	if (rest)
		atomic_store_explicit(ring_record(r, r->p.last + now),
				      record_of(r, rest - sizeof(uint64_t), PMFS_RING_SKIP),
				      memory_order_relaxed);
	/* Release, for the record that the new length leads to. */
	if (!atomic_compare_exchange_strong_explicit(ring_record(r, r->p.last), &was,
						     record_of(r, length, PMFS_RING_BUSY),
						     memory_order_release, memory_order_relaxed))
		return -ESTALE;
	return 0;
}

int pmfs_ring_trim(struct pmfs_ring *r, size_t length)
{
	int rc = check_length(r, length);

	if (rc)
		return rc;
	if (!r->p.pending || length > r->p.last_length)
		return -EINVAL;
	if (r->multi) {
		rc = trim_claimed(r, length);
		if (rc)
			return rc;
	} else {
		/* Relaxed as in pmfs_ring_reserve(). */
		atomic_store_explicit(ring_record(r, r->p.last),
				      record_of(r, length, PMFS_RING_DONE), memory_order_relaxed);
		r->p.head = r->p.last + PMFS_RING_STRIDE(length);
	}
	r->p.last_length = length;
	return 0;
}

/* Turn all records of the batch from BUSY into state. */
static int settle(struct pmfs_ring *r, unsigned int state)
{
	int rc = 0;

	for (uint32_t i = 0; i < r->p.pending; i++) {
		_Atomic uint64_t *record = ring_record(r, r->p.records[i]);
		uint64_t was = atomic_load_explicit(record, memory_order_relaxed);
		uint64_t length = PMFS_RING_RECORD_LENGTH(was);

		/* Not a plain store: it may be a SKIP by now, and what follows somebody else's.
		 * Sequentially consistent: release for the message, and the order with data_wait.
		 */
		if (was != record_of(r, length, PMFS_RING_BUSY) ||
		    !atomic_compare_exchange_strong_explicit(
			    record, &was, record_of(r, length, state), memory_order_seq_cst,
			    memory_order_relaxed))
			rc = -ESTALE;
	}
	return rc;
}

static void wake_consumer(struct pmfs_ring *r)
{
	/* Sequentially consistent: see the top.  The exchange needs no order: it only makes that
	 * one of several wakes. */
	if (atomic_load_explicit(&r->shm->data_wait, memory_order_seq_cst) &&
	    atomic_exchange_explicit(&r->shm->data_wait, 0, memory_order_relaxed))
		ring_futex_wake(&r->shm->data_wait, INT_MAX);
}

int pmfs_ring_commit(struct pmfs_ring *r)
{
	int rc = 0;

	if (r->p.role.slot == RING_SLOT_NONE)
		return -EBADF;
	if (!r->p.pending)
		return 0;
	if (r->multi)
		rc = settle(r, PMFS_RING_DONE);
	else
		atomic_store_explicit(&r->shm->head, r->p.head, memory_order_seq_cst);
	r->p.pending = 0;
	wake_consumer(r);
	return rc;
}

int pmfs_ring_cancel(struct pmfs_ring *r)
{
	if (r->p.role.slot == RING_SLOT_NONE)
		return -EBADF;
	if (!r->p.pending)
		return 0;
	if (r->multi) {
		settle(r, PMFS_RING_SKIP);
		wake_consumer(r);
	} else {
		/* Relaxed: it is our own store. */
		r->p.head = atomic_load_explicit(&r->shm->head, memory_order_relaxed);
	}
	r->p.pending = 0;
	return 0;
}

/* ------------------------------------------------------------------ consumer */

/* A BUSY record: 0 when it has become a SKIP because its owner is dead. */
static int skip_dead(struct pmfs_ring *r, uint64_t at, uint64_t record)
{
	uint32_t slot = PMFS_RING_RECORD_SLOT(record);
	uint64_t skip = PMFS_RING_RECORD(PMFS_RING_RECORD_LENGTH(record), PMFS_RING_SKIP, slot,
					 PMFS_RING_RECORD_EPOCH(record));
	int64_t now;

	if (!r->multi || slot == RING_CONSUMER_SLOT || slot >= PMFS_RING_SLOTS)
		return -EUCLEAN;
	now = ring_now_ns();
	if (now - r->c.checked_ns < BUSY_CHECK_NS)
		return -EAGAIN;
	r->c.checked_ns = now;
	if (ring_owner_lives(r, slot, PMFS_RING_RECORD_EPOCH(record), 16))
		return -EAGAIN;
	/* It fails when the owner has committed just before it died.  Acquire, for that message and
	 * for what trim_claimed() has written. */
	atomic_compare_exchange_strong_explicit(ring_record(r, at), &record, skip,
						memory_order_acquire, memory_order_acquire);
	/* It may have left more of them: only looking at those who live is not done all the time. */
	r->c.checked_ns = 0;
	return 0;
}

/*
 * The message at or after the cursor; SKIPs before it are passed.  0, -EAGAIN, -EUCLEAN.  U2: what
 * it says lies between cursor and head, and head no further than size after it.
 */
static int next_message(struct pmfs_ring *r, uint64_t *length)
{
	uint64_t at, avail, record, step;
	int rc;

	for (;;) {
		at = r->c.cursor;
		if (r->c.head_seen == at)
			/* Sequentially consistent: acquire, and the order with data_wait. */
			r->c.head_seen = atomic_load_explicit(&r->shm->head, memory_order_seq_cst);
		avail = r->c.head_seen - at;
		if (!avail)
			return -EAGAIN;
		if (avail % 8 || r->c.head_seen - r->c.tail > r->size) {
			r->c.head_seen = at; /* look again next time */
			return -EUCLEAN;
		}
		/* Likewise: with MULTI it is this word that says that the message is there. */
		record = atomic_load_explicit(ring_record(r, at), memory_order_seq_cst);
		step = PMFS_RING_STRIDE(PMFS_RING_RECORD_LENGTH(record));
		if (step > avail)
			return -EUCLEAN;
		switch (PMFS_RING_RECORD_STATE(record)) {
		case PMFS_RING_DONE:
			*length = PMFS_RING_RECORD_LENGTH(record);
			return *length ? 0 : -EUCLEAN;
		case PMFS_RING_BUSY:
			rc = skip_dead(r, at, record);
			if (rc)
				return rc;
			break;
		case PMFS_RING_SKIP:
			r->c.cursor += step;
			break;
		default:
			return -EUCLEAN;
		}
	}
}

ssize_t pmfs_ring_peek(struct pmfs_ring *r, const void **message)
{
	uint64_t length;
	int rc;

	if (r->c.role.slot == RING_SLOT_NONE)
		return -EBADF;
	rc = next_message(r, &length);
	/* Nothing but SKIPs: nobody will release them. */
	if (rc == -EAGAIN && !r->c.peeked && r->c.cursor != r->c.tail)
		pmfs_ring_release(r);
	if (rc)
		return rc;
	*message = (const uint8_t *)ring_record(r, r->c.cursor) + sizeof(uint64_t);
	r->c.cursor += PMFS_RING_STRIDE(length);
	r->c.peeked++;
	return (ssize_t)length;
}

/* Producers want to sleep until it is worth while, or there is nothing more to come. */
static void wake_producers(struct pmfs_ring *r)
{
	uint64_t want;

	/* Sequentially consistent: see the top. */
	if (!atomic_load_explicit(&r->shm->space_wait, memory_order_seq_cst))
		return;
	/* Relaxed, both: a wrong value makes a sleeper wait for its next look, not longer. */
	want = atomic_load_explicit(&r->shm->space_want, memory_order_relaxed);
	if ((int64_t)(r->c.tail - want) < 0 &&
	    r->c.tail != atomic_load_explicit(&r->shm->head, memory_order_relaxed))
		return;
	if (atomic_exchange_explicit(&r->shm->space_wait, 0, memory_order_relaxed))
		ring_futex_wake(&r->shm->space_wait, INT_MAX);
}

int pmfs_ring_release(struct pmfs_ring *r)
{
	if (r->c.role.slot == RING_SLOT_NONE)
		return -EBADF;
	if (r->c.cursor == r->c.tail)
		return 0;
	r->c.tail = r->c.cursor;
	r->c.peeked = 0;
	/* Sequentially consistent: see the top. */
	atomic_store_explicit(&r->shm->tail, r->c.tail, memory_order_seq_cst);
	wake_producers(r);
	return 0;
}

int pmfs_ring_rewind(struct pmfs_ring *r)
{
	if (r->c.role.slot == RING_SLOT_NONE)
		return -EBADF;
	r->c.cursor = r->c.tail;
	r->c.peeked = 0;
	return 0;
}

int pmfs_ring_discard(struct pmfs_ring *r)
{
	uint64_t head;

	if (r->c.role.slot == RING_SLOT_NONE)
		return -EBADF;
	/* Relaxed: nothing that lies before it is looked at. */
	head = atomic_load_explicit(&r->shm->head, memory_order_relaxed);
	if (head % 8)
		return -EUCLEAN;
	r->c.head_seen = r->c.cursor = head;
	return pmfs_ring_release(r);
}

/* ------------------------------------------------------------------ waiting */

/* What the two waits differ in. */
struct wait {
	struct ring_spin *spin;
	_Atomic uint32_t *word;
	/* 0: there is what is waited for; -EAGAIN: not yet; others end the wait. */
	int (*probe)(struct pmfs_ring *r, const struct wait *w);
	void (*before_sleep)(struct pmfs_ring *r, const struct wait *w);
	uint32_t first_peer, last_peer; /* slots of the other side */
	uint64_t need;
	int64_t *checked_ns; /* NULL or when a probe has looked for dead owners */
};

/* -EAGAIN when it did not help.  It adapts: sides that answer at once are worth waiting for. */
static int spin_for(struct pmfs_ring *r, const struct wait *w)
{
	int64_t end = ring_now_ns() + w->spin->ns;
	int rc;

	do {
		for (unsigned int i = 0; i < SPIN_STEP; i++) {
			rc = w->probe(r, w);
			if (rc != -EAGAIN) {
				w->spin->ns = w->spin->ns * 2 < SPIN_MAX_NS ? w->spin->ns * 2
									    : SPIN_MAX_NS;
				return rc;
			}
			ring_relax();
		}
	} while (ring_now_ns() < end);
	w->spin->ns = w->spin->ns / 2 > SPIN_MIN_NS ? w->spin->ns / 2 : SPIN_MIN_NS;
	return -EAGAIN;
}

/*
 * -EOWNERDEAD when somebody of the other side is dead and nobody has said so yet.  What the dead
 * one had done before, and what others have done behind room that it had taken, is found first.
 */
static int look_for_dead(struct pmfs_ring *r, const struct wait *w)
{
	uint64_t word;
	int rc;

	if (w->checked_ns) {
		*w->checked_ns = 0;
		rc = w->probe(r, w);
		if (rc != -EAGAIN)
			return rc;
	}
	for (uint32_t slot = w->first_peer; slot <= w->last_peer; slot++) {
		if (ring_owner_look(r, slot, &word) != PEER_DEAD)
			continue;
		if (w->checked_ns)
			*w->checked_ns = 0;
		rc = w->probe(r, w);
		if (rc != -EAGAIN)
			return rc;
		if (ring_owner_bury(r, slot, word))
			return -EOWNERDEAD;
	}
	return -EAGAIN;
}

static int wait_for(struct pmfs_ring *r, const struct wait *w, int64_t timeout_ns)
{
	int64_t end = 0, left;
	int rc = w->probe(r, w);

	if (rc != -EAGAIN)
		return rc;
	if (timeout_ns > 0)
		end = ring_now_ns() + (timeout_ns < INT64_MAX / 2 ? timeout_ns : INT64_MAX / 2);
	if (timeout_ns && r->can_spin) {
		rc = spin_for(r, w);
		if (rc != -EAGAIN)
			return rc;
	}
	for (;;) {
		left = timeout_ns < 0 ? RING_SLICE_NS : timeout_ns ? end - ring_now_ns() : 0;
		if (left <= 0) {
			rc = look_for_dead(r, w);
			return rc == -EAGAIN ? -ETIMEDOUT : rc;
		}
		if (w->before_sleep)
			w->before_sleep(r, w);
		/* Sequentially consistent: see the top. */
		atomic_store_explicit(w->word, 1, memory_order_seq_cst);
		rc = w->probe(r, w);
		if (rc != -EAGAIN)
			return rc;
		rc = ring_futex_wait(w->word, 1, left < RING_SLICE_NS ? left : RING_SLICE_NS);
		if (rc == -EINTR)
			return rc;
		if (rc == -ETIMEDOUT)
			rc = look_for_dead(r, w);
		else
			rc = w->probe(r, w);
		if (rc != -EAGAIN)
			return rc;
	}
}

static int probe_data(struct pmfs_ring *r, const struct wait *w)
{
	uint64_t length;
	int rc = next_message(r, &length);

	(void)w;
	if (rc == -EAGAIN && !r->c.peeked && r->c.cursor != r->c.tail)
		pmfs_ring_release(r);
	return rc;
}

int pmfs_ring_wait_data(struct pmfs_ring *r, int64_t timeout_ns)
{
	const struct wait w = {
		.spin = &r->c.spin,
		.word = &r->shm->data_wait,
		.probe = probe_data,
		.first_peer = RING_CONSUMER_SLOT + 1,
		.last_peer = r->multi ? PMFS_RING_SLOTS - 1 : RING_CONSUMER_SLOT + 1,
		.checked_ns = &r->c.checked_ns,
	};

	return r->c.role.slot == RING_SLOT_NONE ? -EBADF : wait_for(r, &w, timeout_ns);
}

static uint64_t head_now(const struct pmfs_ring *r)
{
	/* Relaxed: others may move it at once anyway. */
	return r->multi ? atomic_load_explicit(&r->shm->head, memory_order_relaxed) : r->p.head;
}

static int probe_space(struct pmfs_ring *r, const struct wait *w)
{
	uint64_t tail, used;

	/* The tail first: of one loaded after head, head could be further away than it ever was.
	 * Sequentially consistent: acquire, and the order with space_wait. */
	tail = atomic_load_explicit(&r->shm->tail, memory_order_seq_cst);
	used = head_now(r) - tail;
	/* With several producers the two may be from different moments. */
	if (used > r->size)
		return r->multi ? -EAGAIN : -EUCLEAN;
	return r->size - used >= w->need ? 0 : -EAGAIN;
}

static void say_want(struct pmfs_ring *r, const struct wait *w)
{
	/* A quarter at once saves most of the wake-ups. */
	uint64_t goal = w->need > r->size / 4 ? w->need : r->size / 4;

	/* Relaxed: see wake_producers(). */
	atomic_store_explicit(&r->shm->space_want, head_now(r) + goal - r->size,
			      memory_order_relaxed);
}

int pmfs_ring_wait_space(struct pmfs_ring *r, size_t length, int64_t timeout_ns)
{
	const struct wait w = {
		.spin = &r->p.spin,
		.word = &r->shm->space_wait,
		.probe = probe_space,
		.before_sleep = say_want,
		.first_peer = RING_CONSUMER_SLOT,
		.last_peer = RING_CONSUMER_SLOT,
		.need = PMFS_RING_STRIDE(length),
	};
	int rc = check_length(r, length);

	if (rc)
		return rc;
	return r->p.pending ? -EBUSY : wait_for(r, &w, timeout_ns);
}

/* ------------------------------------------------------------------ copying */

int pmfs_ring_write(struct pmfs_ring *r, const void *message, size_t length, int64_t timeout_ns)
{
	int64_t end = timeout_ns > 0 ? ring_now_ns() + timeout_ns : 0;
	void *at;
	int rc;

	if (r->p.pending)
		return -EBUSY;
	while ((rc = pmfs_ring_reserve(r, length, &at)) == -EAGAIN) {
		if (timeout_ns > 0)
			timeout_ns = end - ring_now_ns() > 0 ? end - ring_now_ns() : 0;
		rc = pmfs_ring_wait_space(r, length, timeout_ns);
		if (rc)
			return rc;
	}
	if (rc)
		return rc;
	memcpy(at, message, length);
	return pmfs_ring_commit(r);
}

ssize_t pmfs_ring_read(struct pmfs_ring *r, void *buffer, size_t room, int64_t timeout_ns)
{
	const void *message;
	ssize_t length;
	int rc;

	if (r->c.peeked)
		return -EBUSY;
	rc = pmfs_ring_wait_data(r, timeout_ns);
	if (rc)
		return rc;
	length = pmfs_ring_peek(r, &message);
	if (length < 0)
		return length;
	if ((size_t)length > room) {
		pmfs_ring_rewind(r);
		return -EMSGSIZE;
	}
	memcpy(buffer, message, (size_t)length);
	pmfs_ring_release(r);
	return length;
}
