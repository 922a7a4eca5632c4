/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telling the kernel to forget.  An invalidation waits for pages that a WRITE or READ in flight has
 * locked, so handlers only queue it, and a thread of its own sends it (FUSE deadlocks otherwise).
 *
 * Nobody answers a request here.  A WRITE of a ring log that went elsewhere could be answered when
 * the kernel has forgotten what is wrong, but that would be from another thread than the one that
 * has the request.  With rings this is not possible: libfuse 3.18.3 lets the thread of a ring submit
 * its queue without a lock, so an entry that another thread is filling in is sent half finished, and
 * it never gives back the lock when it finds the queue full (fuse_uring_commit_sqe()).  Nor can
 * the ring's own thread wait: the READ that has locked a page may stand behind in its queue, and
 * what it has answered is not sent before all that came at once has been handled.  So the answer
 * goes first.  Who asks for attributes waits for the rest where that is possible, and the number of
 * bytes that were cut off is told only at a moment at which there is nothing left to forget.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"
#include "fuse/front_impl.h"

/*
 * How long a request waits for what is on its way.  In a ring's thread only for what goes well: it
 * stalls all callers of a CPU, and may be waited for itself.
 */
#define WAIT_MS	     1000u
#define WAIT_RING_MS 2u

struct note {
	struct note *next;
	fuse_ino_t ino;
	off_t off, len;
	bool settle;	 /* notify_settle() */
	uint64_t number; /* from 1, in the order in which they are sent */
	bool moved;	 /* notify_wait() waits for it */
};

struct notify {
	struct front *fr;
	struct fuse_session *se;
	struct mutex lock; /* LOCK_LEAF */
	struct cond work;
	struct note *head, **tail;  /* guarded by lock */
	const struct note *sending; /* guarded by lock */
	uint64_t added;		    /* number of the last note; guarded by lock */
	_Atomic unsigned moved;	    /* holds, and notes with `moved`: changed under lock */
	unsigned holds;		    /* notify_hold(); guarded by lock */
	struct cond sent;	    /* `moved` has become smaller, or `ending` was set */
	bool ending;		    /* guarded by lock */
	bool joined;		    /* one thread */
	pthread_t thread;
};

static void inval(const struct notify *nt, fuse_ino_t ino, off_t off, off_t len)
{
	struct front *fr = nt->fr;
	int rc = 0;

	rw_rdlock(&fr->alive_lock);
	if (fr->alive || nt->se != fr->se)
		rc = fuse_lowlevel_notify_inval_inode(nt->se, ino, off, len);
	rw_unlock(&fr->alive_lock);
	/* ENOENT: it is not in the cache. */
	if (rc && rc != -ENOENT)
		log_debug("invalidating node %llu: %s", (unsigned long long)ino, strerror(-rc));
}

static void settle(const struct notify *nt, const struct note *n)
{
	struct front *fr = nt->fr;

	/* There the kernel keeps times of its own; when it can't be asked for them, they are lost. */
	if (atomic_load(&fr->writeback))
		front_flush(fr);
	fs_flags_settled(fr->fs, node_of(fr, n->ino));
}

static void *notify_main(void *arg)
{
	struct notify *nt = arg;

	mutex_lock(&nt->lock);
	while (!nt->ending) {
		struct note *n = nt->head;

		if (!n) {
			cond_wait(&nt->work, &nt->lock);
			continue;
		}
		nt->head = n->next;
		if (!nt->head)
			nt->tail = &nt->head;
		nt->sending = n;
		mutex_unlock(&nt->lock);
		inval(nt, n->ino, n->off, n->len);
		if (n->settle)
			settle(nt, n);
		mutex_lock(&nt->lock);
		nt->sending = NULL;
		if (n->moved) {
			atomic_fetch_sub(&nt->moved, 1);
			cond_broadcast(&nt->sent);
		}
		free(n);
	}
	mutex_unlock(&nt->lock);
	return NULL;
}

int notify_new(struct notify **out, struct front *fr, struct fuse_session *se)
{
	struct notify *nt = calloc(1, sizeof(*nt));
	int rc;

	if (!nt)
		return -ENOMEM;
	nt->fr = fr;
	nt->se = se;
	nt->tail = &nt->head;
	mutex_init(&nt->lock, LOCK_LEAF);
	cond_init(&nt->work);
	cond_init(&nt->sent);
	rc = thread_start(&nt->thread, "pmfs-notify", notify_main, nt);
	if (rc) {
		cond_destroy(&nt->sent);
		cond_destroy(&nt->work);
		mutex_destroy(&nt->lock);
		free(nt);
		return rc;
	}
	*out = nt;
	return 0;
}

void notify_stop(struct notify *nt)
{
	if (!nt || nt->joined)
		return;
	mutex_lock(&nt->lock);
	nt->ending = true;
	cond_signal(&nt->work);
	cond_broadcast(&nt->sent);
	mutex_unlock(&nt->lock);
	thread_join(nt->thread);
	nt->joined = true;
}

void notify_free(struct notify *nt)
{
	struct note *n;

	if (!nt)
		return;
	notify_stop(nt);
	while ((n = nt->head)) {
		nt->head = n->next;
		free(n);
	}
	cond_destroy(&nt->sent);
	cond_destroy(&nt->work);
	mutex_destroy(&nt->lock);
	free(nt);
}

/* Locks: nt->lock held.  Takes n. */
static void add_locked(struct notify *nt, struct note *n)
{
	if (nt->ending) {
		free(n);
		return;
	}
	n->number = ++nt->added;
	*nt->tail = n;
	nt->tail = &n->next;
	if (n->moved)
		atomic_fetch_add(&nt->moved, 1);
	cond_signal(&nt->work);
}

static struct note *note_new(fuse_ino_t ino, off_t off, off_t len)
{
	struct note *n = calloc(1, sizeof(*n));

	if (!n) {
		log_limited(LOG_LEVEL_WARN, "notify", "no memory to invalidate a cached page");
		return NULL;
	}
	n->ino = ino;
	n->off = off;
	n->len = len;
	return n;
}

void notify_inval(struct notify *nt, fuse_ino_t ino, off_t off, off_t len)
{
	struct note *n = note_new(ino, off, len);

	if (!n)
		return;
	mutex_lock(&nt->lock);
	add_locked(nt, n);
	mutex_unlock(&nt->lock);
}

void notify_moved(struct notify *nt, fuse_ino_t ino, uint64_t from)
{
	struct note *fresh = note_new(ino, (off_t)from, 0), *n;

	mutex_lock(&nt->lock);
	/* Who appends without a pause must not be ahead of it by more than one. */
	for (n = nt->head; n && !(n->moved && n->ino == ino); n = n->next)
		;
	if (n) {
		n->off = MIN(n->off, (off_t)from);
	} else if (fresh) {
		fresh->moved = true;
		add_locked(nt, fresh);
		fresh = NULL;
	}
	mutex_unlock(&nt->lock);
	free(fresh);
}

void notify_hold(struct notify *nt)
{
	mutex_lock(&nt->lock);
	nt->holds++;
	atomic_fetch_add(&nt->moved, 1);
	mutex_unlock(&nt->lock);
}

void notify_release(struct notify *nt)
{
	mutex_lock(&nt->lock);
	nt->holds--;
	atomic_fetch_sub(&nt->moved, 1);
	cond_broadcast(&nt->sent);
	mutex_unlock(&nt->lock);
}

/* The last note that somebody who asks for this file waits for; 0: none.  Locks: nt->lock held. */
static uint64_t last_moved_locked(const struct notify *nt, fuse_ino_t ino)
{
	uint64_t last = 0;

	if (nt->sending && nt->sending->moved && nt->sending->ino == ino)
		last = nt->sending->number;
	for (const struct note *n = nt->head; n; n = n->next)
		if (n->moved && n->ino == ino)
			last = n->number;
	return last;
}

void notify_settle(struct notify *nt, fuse_ino_t ino)
{
	struct note *n = note_new(ino, 0, 0);
	bool added = false;

	mutex_lock(&nt->lock);
	if (n && !nt->ending) {
		n->settle = added = true;
		add_locked(nt, n);
	} else {
		free(n);
	}
	mutex_unlock(&nt->lock);
	if (!added)
		fs_flags_settled(nt->fr->fs, node_of(nt->fr, ino));
}

/* Locks: nt->lock held. */
static bool is_sent_locked(const struct notify *nt, uint64_t number)
{
	const struct note *first = nt->sending ? nt->sending : nt->head;

	return !first || first->number > number;
}

bool notify_wait(struct notify *nt, fuse_ino_t ino, bool ring)
{
	uint64_t last;
	bool done;
	int rc = 0;

	if (!atomic_load(&nt->moved))
		return true;
	mutex_lock(&nt->lock);
	while (!rc && !nt->ending && nt->holds)
		rc = cond_timedwait_ms(&nt->sent, &nt->lock, ring ? WAIT_RING_MS : WAIT_MS);
	/* Not for those that come meanwhile: there may always be one. */
	last = last_moved_locked(nt, ino);
	while (!rc && !nt->ending && !is_sent_locked(nt, last))
		rc = cond_timedwait_ms(&nt->sent, &nt->lock, ring ? WAIT_RING_MS : WAIT_MS);
	done = nt->ending || (!nt->holds && is_sent_locked(nt, last));
	mutex_unlock(&nt->lock);
	return done;
}

bool notify_is_clean(struct notify *nt, fuse_ino_t ino)
{
	bool clean;

	if (!atomic_load(&nt->moved))
		return true;
	mutex_lock(&nt->lock);
	clean = nt->ending || (!nt->holds && !last_moved_locked(nt, ino));
	mutex_unlock(&nt->lock);
	return clean;
}

void front_snapshot_gone(struct front *fr, const char *name, uint64_t root_id)
{
	struct timespec ts;
	int rc = 0;

	/* Who has something of it open keeps that, as with an unlinked file; by name it is gone. */
	(void)root_id;
	clock_gettime(CLOCK_REALTIME, &ts);
	atomic_store(&fr->snapdir_changed_ns,
		     (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
	rw_rdlock(&fr->alive_lock);
	if (fr->alive) {
		/* The entry takes all that is cached below it along. */
		rc = fuse_lowlevel_notify_inval_entry(fr->se, VIRT_SNAPSHOTS, name, strlen(name));
		fuse_lowlevel_notify_inval_inode(fr->se, VIRT_SNAPSHOTS, 0, 0);
	}
	rw_unlock(&fr->alive_lock);
	if (rc && rc != -ENOENT)
		log_debug("forgetting snapshot %s: %s", name, strerror(-rc));
}
