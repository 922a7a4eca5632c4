/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loop.h - threads that read requests from a FUSE device and have libfuse decode them.
 *
 * Like libfuse's own multi-threaded loop, with two differences: a thread that is told to end is
 * woken up at any time, and loop_quiesce() can tell when all that had been read from the device at
 * some moment has been handled.
 *
 * Two threads serve a client or two; more are added, up to a limit, when they do not get on within
 * a millisecond, so handlers may block, or when they are busy all the time.  The fewer wait for
 * requests, the warmer is the one that gets the next.
 *
 * Lock rank: LOCK_LEAF.
 */
#ifndef PMFS_FUSE_LOOP_H
#define PMFS_FUSE_LOOP_H

#include <stdbool.h>
#include <stddef.h>

struct fuse_session;
struct loop;

/* The largest WRITE that a loop can take. */
#define LOOP_MAX_WRITE (1024u * 1024)

/*
 * A loop for a mounted session.  before (may be NULL) sees each request, header first, before
 * libfuse does, in the thread that is going to handle it, and may change it.
 */
int loop_new(struct loop **out, struct fuse_session *se, unsigned max_threads,
	     void (*before)(void *arg, void *request, size_t len), void *arg);
/* Serve until the file system is unmounted or loop_exit().  0, or the error that ended it.  Returns
 * when all handlers have. */
int loop_run(struct loop *lp);
/* Any thread, any number of times, before or while it runs. */
void loop_exit(struct loop *lp);
void loop_free(struct loop *lp);
unsigned loop_threads(struct loop *lp);

/*
 * Wait until every request that had been read from the device at the time of the call has been
 * answered.  Asks nothing of the device: a thread that waits for a request is woken up by a signal.
 * -ENOMEM.  Not from a handler.
 */
int loop_quiesce(struct loop *lp);

#endif
