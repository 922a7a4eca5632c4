/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telling the kernel to forget.  An invalidation waits for pages that a WRITE in flight has locked,
 * so handlers only queue it, and a thread of its own sends it (FUSE deadlocks otherwise).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "fuse/front_impl.h"

struct note {
	struct note *next;
	fuse_ino_t ino;
	off_t off, len;
};

struct notify {
	struct front *fr;
	struct fuse_session *se;
	struct mutex lock; /* LOCK_LEAF */
	struct cond work;
	struct note *head, **tail; /* guarded by lock */
	bool ending;		   /* guarded by lock */
	bool joined;		   /* one thread */
	pthread_t thread;
};

static void note_send(const struct notify *nt, const struct note *n)
{
	struct front *fr = nt->fr;
	int rc = 0;

	rw_rdlock(&fr->alive_lock);
	if (fr->alive || nt->se != fr->se)
		rc = fuse_lowlevel_notify_inval_inode(nt->se, n->ino, n->off, n->len);
	rw_unlock(&fr->alive_lock);
	/* ENOENT: it is not in the cache. */
	if (rc && rc != -ENOENT)
		log_debug("invalidating node %llu: %s", (unsigned long long)n->ino, strerror(-rc));
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
		mutex_unlock(&nt->lock);
		note_send(nt, n);
		free(n);
		mutex_lock(&nt->lock);
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
	rc = thread_start(&nt->thread, "pmfs-notify", notify_main, nt);
	if (rc) {
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
		free(n);
	}
	cond_destroy(&nt->work);
	mutex_destroy(&nt->lock);
	free(nt);
}

void notify_inval(struct notify *nt, fuse_ino_t ino, off_t off, off_t len)
{
	struct note *n = malloc(sizeof(*n));

	if (!n) {
		log_limited(LOG_LEVEL_WARN, "notify", "no memory to invalidate a cached page");
		return;
	}
	*n = (struct note){.ino = ino, .off = off, .len = len};
	mutex_lock(&nt->lock);
	if (!nt->ending) {
		*nt->tail = n;
		nt->tail = &n->next;
		n = NULL;
		cond_signal(&nt->work);
	}
	mutex_unlock(&nt->lock);
	free(n);
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
