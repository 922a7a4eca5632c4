/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store_impl.h - what the parts of an open store share.  Only for page.c, txn.c, commit.c and
 * store.c.
 */
#ifndef PMFS_STORE_STORE_IMPL_H
#define PMFS_STORE_STORE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "store/pagemap.h"
#include "store/store.h"
#include "store/writeout.h"

#define STORE_PAGE_LOCKS   256u
#define STORE_READER_SLOTS 16u
#define STORE_BAD_KEPT	   256u

/* Readers that are inside a section, by the phase in which they came; one cache line each. */
struct reader_slot {
	_Atomic uint64_t inside[2];
	uint8_t pad[48];
};

struct readers {
	struct reader_slot slot[STORE_READER_SLOTS];
	_Atomic unsigned phase;
	_Atomic bool waiting; /* somebody waits for sections to be left */
	struct mutex lock;
	struct cond left;
};

struct closed;

struct store {
	struct region *rg;
	struct frames *fr;
	struct pagemap pm;
	bool read_only;
	bool ram;
	void (*relief)(void *arg);
	void *relief_arg;

	struct rwlock txn_lock; /* LOCK_TXN */
	struct mutex page_lock
		[STORE_PAGE_LOCKS]; /* LOCK_PAGE; several in the order of their addresses */
	struct readers readers;

	struct mutex root_lock; /* guards the next three; nothing is taken under it */
	struct pmfs_tree_root root;
	bool root_changed;  /* or the limit */
	struct super super; /* what the next slot says besides; set at open but for the limit */

	struct mutex commit_lock; /* LOCK_COMMIT; guards commit_running */
	struct cond commit_done;
	bool commit_running;
	_Atomic uint64_t generation; /* the open one; changed with LOCK_TXN held exclusively */
	_Atomic uint64_t durable;

	/* The keeper thread. */
	pthread_t keeper;
	bool keeper_started;
	bool keeper_stop;    /* guarded by keeper_lock, like the next */
	struct closed *left; /* RAM: a generation whose commit the keeper is to finish */
	bool keeper_asked;   /* RAM: for a commit before its time; guarded by keeper_lock */
	struct mutex keeper_lock;
	struct cond keeper_wake;
	unsigned commit_ms;
	struct writeout *wo; /* NULL: none; set once */

	_Atomic uint64_t commits, commits_small;
	_Atomic uint64_t commit_ns_last, commit_ns_max;
	_Atomic uint64_t verified, bad_pages;

	struct mutex bad_lock; /* LOCK_LEAF; guards the next six */
	vpn_t bad[STORE_BAD_KEPT]; /* pages that were found damaged, each once */
	unsigned n_bad, bad_told;  /* of these, and how many store_bad_take() has handed out */
	uint64_t bad_more;         /* found when the list was full */
	void (*bad_found)(void *arg);
	void *bad_arg;
	char why[160]; /* what poisoned the store */
	_Atomic uint64_t merged, zero_merged;
};

/* txn.c */
void readers_init(struct readers *r);
void readers_destroy(struct readers *r);
/* Wait until every section that was entered before the call has been left. */
void readers_wait(struct readers *r);

/* commit.c */
enum commit_why {
	COMMIT_ASKED,
	COMMIT_TIMER, /* nobody waits: fold the changed entries into the tree early */
	COMMIT_FOLD,  /* do that in any case */
};
int commit_lead(struct store *st, enum commit_why why);
/*
 * For the keeper: like it, but 0 when another thread leads.  That thread may wait for the keeper.
 */
int commit_try(struct store *st, enum commit_why why);
/* Finish what commit_with() has left, if anything, and stop leading. */
void commit_finish_left(struct store *st);
/* Keep others from committing, for checks. */
void commit_pause(struct store *st);
void commit_resume(struct store *st);

/* verify.c: a page was found damaged.  Any lock may be held. */
void store_note_bad(struct store *st, vpn_t vpn);

/* A write that failed in the middle of something: stop before the half of it becomes durable. */
int store_fail(struct store *st, const char *what, int error);

#endif
