/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telling the kernel to forget.  An invalidation waits for pages that a WRITE in flight has locked,
 * so handlers only queue it, and a thread of its own sends it (FUSE deadlocks otherwise).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"
#include "fuse/front_impl.h"

#define PAGE UINT64_C(4096)
/* How long a request for attributes waits for what is on its way. */
#define WAIT_MS 200u

struct note {
	struct note *next;
	fuse_ino_t ino;
	off_t off, len;
	/* With a request: a WRITE of len bytes at off, which is answered in the course of it... */
	fuse_req_t req;
	bool whole; /* ...or one of another kind, when all of the file has been forgotten */
	bool settle; /* notify_settle() */
	size_t written;
	uint64_t from;
	bool awaited; /* notify_wait() waits for it */
};

struct notify {
	struct front *fr;
	struct fuse_session *se;
	struct mutex lock; /* LOCK_LEAF */
	struct cond work;
	struct note *head, **tail;  /* guarded by lock */
	const struct note *sending; /* guarded by lock */
	_Atomic unsigned awaited;   /* notes that somebody may wait for */
	struct cond sent;	    /* one of them was */
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

static void reply(const struct notify *nt, const struct note *n)
{
	/* The rings are being taken down, and the request with them. */
	const bool gone = atomic_load(&nt->fr->uring_wanted) && fuse_session_exited(nt->se);

	if (!gone && n->whole)
		fuse_reply_err(n->req, 0);
	else if (!gone)
		fuse_reply_write(n->req, n->written);
	atomic_fetch_add(&nt->fr->handed_over, 1);
}

static void settle(const struct notify *nt, const struct note *n)
{
	struct front *fr = nt->fr;

	/* There the kernel keeps times of its own; when it can't be asked for them, they are lost. */
	if (atomic_load(&fr->writeback))
		front_flush(fr);
	fs_flags_settled(fr->fs, node_of(fr, n->ino));
}

static bool add(struct notify *nt, const struct note *what);

static void note_send(const struct notify *nt, const struct note *n)
{
	const off_t start = (off_t)ALIGN_DOWN((uint64_t)n->off, PAGE);
	const off_t end = (off_t)ALIGN_UP((uint64_t)n->off + (uint64_t)n->len, PAGE);
	struct note rest;

	if (!n->req) {
		inval(nt, n->ino, n->off, n->len);
		if (n->settle)
			settle(nt, n);
		return;
	}
	if (n->whole) {
		inval(nt, n->ino, 0, 0);
		reply(nt, n);
		return;
	}
	/* The pages of the WRITE are locked until it is answered. */
	if ((off_t)n->from < start)
		inval(nt, n->ino, (off_t)n->from, start - (off_t)n->from);
	inval(nt, n->ino, end, 0);
	rest = (struct note){.ino = n->ino, .off = start, .len = end - start, .awaited = true};
	reply(nt, n);
	add(nt->fr->notify, &rest);
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
		note_send(nt, n);
		mutex_lock(&nt->lock);
		nt->sending = NULL;
		if (n->awaited) {
			atomic_fetch_sub(&nt->awaited, 1);
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
		if (n->req)
			reply(nt, n);
		free(n);
	}
	cond_destroy(&nt->sent);
	cond_destroy(&nt->work);
	mutex_destroy(&nt->lock);
	free(nt);
}

/* False: it is not going to be sent. */
static bool add(struct notify *nt, const struct note *what)
{
	struct note *n = malloc(sizeof(*n));
	bool added = false;

	if (!n) {
		log_limited(LOG_LEVEL_WARN, "notify", "no memory to invalidate a cached page");
		return false;
	}
	*n = *what;
	mutex_lock(&nt->lock);
	if (!nt->ending) {
		*nt->tail = n;
		nt->tail = &n->next;
		if (n->awaited)
			atomic_fetch_add(&nt->awaited, 1);
		added = true;
		cond_signal(&nt->work);
	}
	mutex_unlock(&nt->lock);
	if (!added)
		free(n);
	return added;
}

void notify_inval(struct notify *nt, fuse_ino_t ino, off_t off, off_t len)
{
	const struct note n = {.ino = ino, .off = off, .len = len};

	add(nt, &n);
}

void notify_moved_write(struct notify *nt, fuse_req_t req, fuse_ino_t ino, off_t off, size_t len,
			size_t written, uint64_t from)
{
	const struct note n = {.ino = ino,
			       .off = off,
			       .len = (off_t)len,
			       .req = req,
			       .written = written,
			       .from = from,
			       .awaited = true};

	if (!add(nt, &n))
		reply(nt, &n);
}

void notify_inval_reply(struct notify *nt, fuse_req_t req, fuse_ino_t ino)
{
	const struct note n = {.ino = ino, .req = req, .whole = true};

	if (!add(nt, &n))
		reply(nt, &n);
}

void notify_settle(struct notify *nt, fuse_ino_t ino)
{
	const struct note n = {.ino = ino, .settle = true};

	if (!add(nt, &n))
		fs_flags_settled(nt->fr->fs, node_of(nt->fr, ino));
}

/* Locks: nt->lock held. */
static bool is_pending(const struct notify *nt, fuse_ino_t ino)
{
	if (nt->sending && nt->sending->awaited && nt->sending->ino == ino)
		return true;
	for (const struct note *n = nt->head; n; n = n->next)
		if (n->awaited && n->ino == ino)
			return true;
	return false;
}

void notify_wait(struct notify *nt, fuse_ino_t ino)
{
	int rc = 0;

	if (!atomic_load(&nt->awaited))
		return;
	mutex_lock(&nt->lock);
	while (!rc && !nt->ending && is_pending(nt, ino))
		rc = cond_timedwait_ms(&nt->sent, &nt->lock, WAIT_MS);
	mutex_unlock(&nt->lock);
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
