/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * txn.h - a change of the image that is in a commit as a whole or not at all.
 *
 * A transaction holds the generation open (LOCK_TXN, shared): a commit closes the generation only
 * between transactions.  It says at its beginning how many frames it could need, and gets them or
 * an error then: in the middle of a change nothing runs out of space, so nothing has to be undone.
 *
 *   X1  Between txn_begin() and txn_end() no commit closes the generation.
 *   X2  page_new() and page_write() take frames out of the transaction's promise and can't fail for
 *       space within it.
 *   X3  A thread has at most one transaction, and waits for no other thread's transaction while it
 *       has it.
 *
 * Lock rank: LOCK_TXN.  It comes after LOCK_INODE: take inode locks first, then begin.
 */
#ifndef PMFS_STORE_TXN_H
#define PMFS_STORE_TXN_H

#include "store/frame.h"

struct store;

struct txn {
	struct store *st;
	uint64_t promised; /* frames not yet taken */
	uint64_t taken;
};

/*
 * frames: the most pages that will get a new frame.  Waits for commits where those free enough, a
 * FREEING or RECLAIM transaction for as long as others may still give frames back.
 * -ENOSPC; -EROFS: opened read-only; -EIO: the store is poisoned.  Never call it with a transaction
 * open or in a read section.
 */
int txn_begin(struct store *st, struct txn *tx, enum frame_class cls, uint64_t frames);
/* Returns the generation that holds the change, for commit_wait(). */
uint64_t txn_end(struct txn *tx);

/*
 * Read sections (store.h: F2): frames seen inside one stay as they are until it is left.  Short or
 * not, but never around a wait for a commit, nor for a lock that somebody may hold in txn_begin().
 */
struct read_section {
	unsigned slot;
	unsigned phase;
};
void read_enter(struct store *st, struct read_section *rs);
void read_leave(struct store *st, struct read_section *rs);

#endif
