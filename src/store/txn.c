/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/txn.h"

#include <assert.h>
#include <errno.h>

#include "store/store_impl.h"

/*
 * Commits that a transaction waits for before it gives up: what they free can be taken by others.
 * Who removes things competes with nobody but others who do, and each of these ends by giving
 * frames back.
 */
#define BEGIN_TRIES	     16
#define BEGIN_TRIES_REMOVING 4096

#define SCAN_STEP 64

/* Promise frames, with commits in between where those could free some. */
static int promise(struct store *st, enum frame_class cls, uint64_t frames)
{
	const int most = cls <= FRAME_UPKEEP ? BEGIN_TRIES : BEGIN_TRIES_REMOVING;
	bool last_chance = false;

	for (int tries = 0; tries < most; tries++) {
		bool found = false;
		int rc;

		if (region_error(st->rg))
			return -EIO;
		rc = frames ? frames_reserve(st->fr, cls, frames) : 0;
		if (rc != -EAGAIN && rc != -ENOSPC)
			return rc;
		/* After "not at all" one commit is worth a try, as is asking for what only waits to
		 * be reclaimed. */
		if (rc == -ENOSPC && last_chance)
			return rc;
		last_chance = rc == -ENOSPC;
		/* Most of an image that was just opened is free only when the scan has said so. */
		while (!store_scanned(st) && !found)
			found = store_scan(st, SCAN_STEP) != 0;
		if (st->relief && cls != FRAME_RECLAIM)
			st->relief(st->relief_arg);
		rc = commit_now(st);
		if (rc)
			return rc;
	}
	return -ENOSPC;
}

int txn_begin(struct store *st, struct txn *tx, enum frame_class cls, uint64_t frames)
{
	int rc;

	if (st->read_only)
		return -EROFS;
	rc = promise(st, cls, frames);
	if (rc)
		return rc;
	rw_rdlock(&st->txn_lock);
	tx->st = st;
	tx->promised = frames;
	tx->taken = 0;
	return 0;
}

uint64_t txn_end(struct txn *tx)
{
	struct store *st = tx->st;
	const uint64_t generation = atomic_load(&st->generation);

	if (tx->promised)
		frames_unreserve(st->fr, tx->promised);
	tx->promised = 0;
	tx->st = NULL;
	rw_unlock(&st->txn_lock);
	return generation;
}

/*
 * Read sections.  A frame that was given up is out of the page map before the generation closes, so
 * whoever enters later can't find it.  readers_wait() sends newcomers to the other phase and waits
 * for the old one to run empty.  A reader can have read the phase before the switch and count
 * itself in after the wait has seen zero: it is then later than the wait and harmless to it, but
 * the next wait must not miss it - so each wait goes through both phases.
 */
static _Atomic unsigned next_slot;

static unsigned my_slot(void)
{
	static _Thread_local unsigned slot; /* from 1 */

	if (!slot)
		slot = 1 + atomic_fetch_add(&next_slot, 1) % STORE_READER_SLOTS;
	return slot - 1;
}

void read_enter(struct store *st, struct read_section *rs)
{
	rs->slot = my_slot();
	rs->phase = atomic_load(&st->readers.phase);
	/* Sequentially consistent: what is looked up in the section is looked up after this. */
	atomic_fetch_add(&st->readers.slot[rs->slot].inside[rs->phase], 1);
}

void read_leave(struct store *st, struct read_section *rs)
{
	struct readers *r = &st->readers;

	atomic_fetch_sub(&r->slot[rs->slot].inside[rs->phase], 1);
	if (atomic_load(&r->waiting)) {
		mutex_lock(&r->lock);
		cond_broadcast(&r->left);
		mutex_unlock(&r->lock);
	}
}

void readers_init(struct readers *r)
{
	mutex_init(&r->lock, LOCK_LEAF);
	cond_init(&r->left);
}

void readers_destroy(struct readers *r)
{
	cond_destroy(&r->left);
	mutex_destroy(&r->lock);
}

void readers_wait(struct readers *r)
{
	mutex_lock(&r->lock);
	atomic_store(&r->waiting, true);
	for (int round = 0; round < 2; round++) {
		const unsigned old = atomic_load(&r->phase);

		atomic_store(&r->phase, !old);
		for (unsigned i = 0; i < STORE_READER_SLOTS; i++)
			while (atomic_load(&r->slot[i].inside[old]))
				cond_wait(&r->left, &r->lock);
	}
	atomic_store(&r->waiting, false);
	mutex_unlock(&r->lock);
}
