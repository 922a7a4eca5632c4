/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * view_impl.h - what the modules of this layer share.  Nothing outside src/view includes it.
 */
#ifndef PMFS_VIEW_VIEW_IMPL_H
#define PMFS_VIEW_VIEW_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "store/region.h"
#include "view/mem.h"
#include "view/view.h"

struct view {
	struct views *vs;  /* set once */
	uint64_t id;	   /* set once */
	struct mutex lock; /* LOCK_VIEW: loading, saving, and all changes of size or backing that go
			      through us */
	int fd, ro_fd;	   /* set while loading */
	struct region_window *window; /* where we look at it, NULL: not yet; guarded by lock */
	uint64_t huge_next; /* where huge.c goes on; guarded by lock */
	bool changeable; /* somebody could have changed it since it was loaded (W3); guarded by lock
			  */
	uint64_t blocks; /* bytes that mem.h has counted; guarded by lock */
	/* ---- guarded by vs->lock */
	bool loaded; /* true for good; set under lock, too */
	bool forgotten;
	uint32_t users;
	uint64_t gets;
	struct view *next;
};

struct views {
	struct fs *fs; /* set once */
	struct mem mm;
	uint64_t dir;	   /* set once */
	struct mutex lock; /* LOCK_VIEWS */
	struct view *head; /* guarded by lock */
	size_t count;	   /* guarded by lock */
	_Atomic uint64_t saved_pages;
	_Atomic bool no_huge; /* the kernel has no huge pages for them */

	struct mutex saver_lock; /* LOCK_LEAF */
	struct cond wake;	 /* `ending` was set */
	bool ending;		 /* guarded by saver_lock */
	bool saving;		 /* the thread runs; set once */
	unsigned save_ms;	 /* set once */
	pthread_t saver;
};

/* ---- save.c */
/* Fill the empty memory file.  Locks: v->lock held. */
int view_load(struct view *v);
/*
 * A window onto all of the memory, where there are addresses for it: 0, or why not.  Only where
 * the memory has a page may be looked: a load from a hole would take memory, and fault when there
 * is none left.  Locks: v->lock held, so nobody makes holes.
 */
int view_open_window(struct view *v, uint64_t size);

/* ---- huge.c */
/* Make huge pages of a part of the memory; the next call goes on behind it. */
void view_make_huge(struct view *v);

#endif
