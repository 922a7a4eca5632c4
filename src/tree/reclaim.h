/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reclaim.h - give back, in bounded steps, what no name leads to: orphans and deleted volumes.
 *
 *   C1  Each step is one transaction of at most RECLAIM_STEP pages, and leaves an image that a
 *       crash can stop at: the orphan directory and the dying rows say what is left to do.
 *   C2  A step takes fewer frames than FRAME_RECLAIM keeps for it, so giving back always works, on
 *       a full image too.
 *   C3  An orphan that the kernel or a walk still holds is left alone.
 */
#ifndef PMFS_TREE_RECLAIM_H
#define PMFS_TREE_RECLAIM_H

#include "tree/icache.h"

#define RECLAIM_STEP 4096u

struct reclaim;

/* Start the thread that gives back orphans found at mount and volumes that died; background =
 * false: only reclaim_run(). */
int reclaim_start(struct fs *fs, bool background);
void reclaim_stop(struct fs *fs); /* in the middle of things if need be */

/* An inode without a name whose last user has gone (called without locks).  A small one is given
 * back at once, a big one by the thread. */
void reclaim_inode(struct fs *fs, struct volume *vol, uint64_t ino);
/* Something died: wake the thread. */
void reclaim_kick(struct fs *fs);
/* Do one step of what there is to do, in the calling thread.  1: done; 0: there is nothing; an
 * error. */
int reclaim_step(struct fs *fs);
/* Do all of it.  Returns steps done or an error. */
int reclaim_run(struct fs *fs);
/* What is waiting: dying volumes and orphans being given back. */
uint64_t reclaim_backlog(struct fs *fs);
/* The store's relief callback: everything that can be given back now, is. */
void reclaim_relief(void *fs);

#endif
