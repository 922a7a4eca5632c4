/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/reclaim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"
#include "tree/dir.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"

/* Of a table that goes from its end, one node per level is rewritten. */
#define PUNCH_COST  (ITABLE_COST + VOLUME_ROW_COST + 2 * PMFS_PTAB_MAX_HEIGHT)
#define UNNAME_COST (3 * ITABLE_COST + DIR_COST)
#define VOLUME_COST 56u
/* A piece of a dying volume: the way down to it, its page, a table cut in the middle, the row. */
#define PIECE_COST (3 * PMFS_PTAB_MAX_HEIGHT + VOLUME_ROW_COST)
/* What a FRAME_RECLAIM transaction can always have is 64 frames. */
static_assert(PUNCH_COST <= 64 && UNNAME_COST <= 64 && VOLUME_COST <= 64, "C2");
static_assert(PIECE_COST <= VOLUME_COST, "a step does one piece at least");

#define RETRY_MS 1000 /* a step that found no space is tried again */
/* Somebody else is at it: see that he gets on before saying that there is no space. */
#define RELIEF_WAIT_MS 20

struct reclaim {
	struct fs *fs;
	struct mutex work;   /* LOCK_RECLAIM: one at a time goes about dying volumes */
	struct mutex lock;   /* LOCK_LEAF: guards what follows */
	struct cond wake;    /* kicked or stop */
	struct cond stepped; /* steps has changed */
	bool kicked, stop;
	uint64_t steps;
	uint64_t *orphans; /* numbers of orphans of the live volume that nobody holds */
	size_t n_orphans, max_orphans;
	bool has_thread;  /* set once */
	pthread_t thread; /* set once */
};

/* ------------------------------------------------------------------ orphans */

static int orphan_push(struct reclaim *rc, uint64_t ino)
{
	int err = 0;

	mutex_lock(&rc->lock);
	if (rc->n_orphans == rc->max_orphans) {
		const size_t max = MAX(rc->max_orphans * 2, 64);
		uint64_t *more = realloc(rc->orphans, max * sizeof(*more));

		if (more) {
			rc->orphans = more;
			rc->max_orphans = max;
		} else {
			err = -ENOMEM; /* the next mount finds it in the directory */
		}
	}
	if (!err)
		rc->orphans[rc->n_orphans++] = ino;
	mutex_unlock(&rc->lock);
	return err;
}

static bool orphan_pop(struct reclaim *rc, uint64_t *ino)
{
	bool any;

	mutex_lock(&rc->lock);
	any = rc->n_orphans;
	if (any)
		*ino = rc->orphans[--rc->n_orphans];
	mutex_unlock(&rc->lock);
	return any;
}

/*
 * Let go of contents and attributes.  1: there is more to do; 0: both tables are empty; an error.
 * Nobody else has the inode, so it is not locked.
 */
static int orphan_punch(struct fs *fs, struct inode *in)
{
	uint64_t freed = 0;
	struct txn tx;
	int rc, err;

	rc = txn_begin(fs->st, &tx, FRAME_RECLAIM, PUNCH_COST);
	if (rc)
		return rc;
	rc = itable_own(&tx, in);
	if (rc)
		goto out;
	rc = ptab_punch(&tx, &in->data, NULL, 0, PGNO_END, RECLAIM_STEP, &freed);
	freed = S_ISREG(in->mode) ? MIN(freed, in->pages) : 0;
	if (!rc)
		rc = ptab_punch(&tx, &in->xattr, NULL, 0, PGNO_END, RECLAIM_STEP, NULL);
	err = itable_store_pages(&tx, in, -(int64_t)freed);
	if (err)
		rc = err;
out:
	txn_end(&tx);
	return rc;
}

/* Out of the orphan directory (locked exclusively), and the number is free again. */
static int orphan_unname(struct fs *fs, struct inode *dir, struct inode *in, const char *name)
{
	struct txn tx;
	int rc;

	rc = txn_begin(fs->st, &tx, FRAME_RECLAIM, UNNAME_COST);
	if (rc)
		return rc;
	rc = itable_own(&tx, dir);
	if (!rc)
		rc = dir_remove(&tx, dir, name, strlen(name), NULL);
	if (!rc)
		rc = itable_store(&tx, dir);
	if (!rc)
		rc = itable_free(&tx, in->vol, in->ino);
	txn_end(&tx);
	return rc;
}

/*
 * One or two steps for an orphan that nobody holds.  wait: may wait for the orphan directory's
 * lock. 0: it is gone; 1: there is more to do; -EAGAIN: without waiting it can't be done; an error.
 */
static int orphan_step(struct fs *fs, uint64_t ino, bool wait)
{
	struct inode in = {.vol = fs->live, .ino = ino};
	struct dir_entry de;
	struct inode *dir;
	char name[17];
	int rc;

	/* Whatever the image says: neither of these is ever given back, and letting go of the second
	 * below would lead here again. */
	if (ino == PMFS_INO_ROOT || ino == PMFS_INO_ORPHANS)
		return -EUCLEAN;
	snprintf(name, sizeof(name), "%016" PRIx64, ino);
	rc = inode_get(fs, NODE_ID(fs->live->id, PMFS_INO_ORPHANS), &dir);
	if (rc)
		return rc;
	rw_init(&in.lock, LOCK_INODE);
	rc = itable_load(&in);
	if (!rc && in.nlink)
		rc = -ENOENT; /* it has got a name again */
	if (!rc && (in.data.root || in.xattr.root))
		rc = orphan_punch(fs, &in);
	if (rc)
		goto out;
	if (wait) {
		rw_wrlock(&dir->lock);
	} else if (!rw_trywrlock(&dir->lock)) {
		rc = -EAGAIN;
		goto out;
	}
	/* What is not in the directory is not ours to give back. */
	rc = dir_find(dir, name, strlen(name), &de);
	if (!rc && de.ino != ino)
		rc = -EUCLEAN;
	if (!rc)
		rc = orphan_unname(fs, dir, &in, name);
	rw_unlock(&dir->lock);
out:
	rw_destroy(&in.lock);
	inode_put(fs, dir);
	return rc == -ENOENT ? 0 : rc;
}

/* After an error: is it worth trying again? */
static bool orphan_again(int rc)
{
	return rc == -EAGAIN || rc == -ENOSPC || rc == -ENOMEM;
}

void reclaim_inode(struct fs *fs, struct volume *vol, uint64_t ino)
{
	int rc;

	if (!fs->rc || fs->read_only || vol != fs->live)
		return;
	rc = orphan_step(fs, ino, true);
	if (rc > 0 || orphan_again(rc)) {
		orphan_push(fs->rc, ino);
		reclaim_kick(fs);
	} else if (rc) {
		log_limited(LOG_LEVEL_WARN, "reclaim.orphan",
			    "inode %" PRIu64 " can't be given back: %s", ino, strerror(-rc));
	}
}

static int orphan_found(void *arg, const struct dir_entry *de)
{
	return orphan_push(arg, de->ino);
}

static int orphans_load(struct reclaim *rc)
{
	struct fs *fs = rc->fs;
	struct inode *dir;
	int err;

	err = inode_get(fs, NODE_ID(fs->live->id, PMFS_INO_ORPHANS), &dir);
	if (err)
		return err;
	rw_rdlock(&dir->lock);
	err = dir_each(dir, 0, orphan_found, rc);
	rw_unlock(&dir->lock);
	inode_put(fs, dir);
	return err;
}

/* ------------------------------------------------------------------ dying volumes */

/* Where a page of the inode file is named: an entry of a node, or (node is VPN_NONE) the root. */
struct place {
	vpn_t node;
	unsigned at;
};

static int place_put(struct txn *tx, struct volume *vol, const struct place *pl, vpn_t vpn)
{
	const le64 entry = le64_make(vpn);

	if (pl->node)
		return page_write(tx, pl->node, pl->at * sizeof(entry), &entry, sizeof(entry));
	vol->inodes.root = vpn;
	if (!vpn)
		vol->inodes.height = 0;
	return 0;
}

/* The page is this volume's own and points at nothing any more. */
static int drop_own(struct txn *tx, struct volume *vol, const struct place *pl, vpn_t vpn)
{
	const int rc = place_put(tx, vol, pl, VPN_NONE);

	return rc ? rc : page_unref(tx, vpn, NULL);
}

/* 1: others have the page too, and this volume has let go of it; 0: it is its own; an error. */
static int drop_shared(struct txn *tx, struct volume *vol, const struct place *pl, vpn_t vpn)
{
	const uint32_t height = vol->inodes.height;
	uint64_t refs;
	int rc;

	rc = page_refs(tx->st, vpn, &refs);
	if (rc)
		return rc;
	if (!refs)
		return -EUCLEAN;
	if (refs == 1)
		return 0;
	/* The pointer goes before the count, so that an error between them leaves a page too many,
	 * not one too few. */
	rc = place_put(tx, vol, pl, VPN_NONE);
	if (rc)
		return rc;
	rc = ptab_unref_shared(tx, vpn);
	if (!rc) {
		/* The others have let go of it meanwhile. */
		vol->inodes.height = height;
		rc = place_put(tx, vol, pl, vpn);
	}
	return rc;
}

/* Punch one table of a record.  0, 1: out of budget, an error.  *at is what is left. */
static int drop_table(struct txn *tx, struct pmfs_ptab_root *at, uint64_t pages, uint64_t *budget)
{
	struct ptab pt = ptab_decode(at);
	int rc;

	if (!pt.root)
		return 0;
	if (!ptab_valid(&pt))
		return -EUCLEAN;
	rc = ptab_punch(tx, &pt, NULL, 0, PGNO_END, *budget, NULL);
	ptab_encode(&pt, at);
	*budget -= rc ? *budget : MIN(*budget, pages + pages / PMFS_PTAB_FANOUT + 1);
	return rc;
}

/* A page of inodes that no other volume has. */
static int drop_inodes(struct txn *tx, struct volume *vol, const struct place *pl, vpn_t vpn,
		       uint64_t *budget)
{
	struct pmfs_inode rec[PMFS_INODES_PER_PAGE];
	int rc, err;

	rc = page_read(tx->st, vpn, 0, rec, sizeof(rec));
	if (rc)
		return rc;
	for (size_t i = PMFS_INODES_PER_PAGE; i-- && !rc;) {
		rc = drop_table(tx, &rec[i].data, le64_get(rec[i].pages), budget);
		if (!rc)
			rc = drop_table(tx, &rec[i].xattr, 1, budget);
	}
	if (!rc)
		return drop_own(tx, vol, pl, vpn);
	/* The step ends here: what is left must not be given back twice. */
	err = page_write(tx, vpn, 0, rec, sizeof(rec));
	return err ? err : MIN(rc, 0);
}

/* The last piece of the inode file: a subtree that others share, a page of inodes, or an empty
 * node. */
static int drop_last(struct txn *tx, struct volume *vol, uint64_t *budget)
{
	le64 entry[PMFS_PTAB_FANOUT];
	struct place pl = {VPN_NONE, 0};
	vpn_t vpn = vol->inodes.root;
	unsigned at;
	int rc;

	for (uint32_t level = vol->inodes.height;; level--) {
		rc = drop_shared(tx, vol, &pl, vpn);
		if (rc) {
			*budget -= MIN(*budget, 1);
			return MIN(rc, 0);
		}
		if (!level)
			return drop_inodes(tx, vol, &pl, vpn, budget);
		rc = page_read(tx->st, vpn, 0, entry, sizeof(entry));
		if (rc)
			return rc;
		for (at = PMFS_PTAB_FANOUT; at && !le64_get(entry[at - 1]); at--)
			;
		if (!at) {
			*budget -= MIN(*budget, 1);
			return drop_own(tx, vol, &pl, vpn);
		}
		pl = (struct place){vpn, at - 1};
		vpn = le64_get(entry[at - 1]);
	}
}

/* One step for a dying volume.  Locks: work held.  0, or an error that will not go away by itself
 * but for lack of space. */
static int volume_step(struct fs *fs, struct volume *vol)
{
	const struct ptab before = vol->inodes;
	uint64_t budget = RECLAIM_STEP;
	struct txn tx;
	bool gone;
	int rc, err;

	rc = txn_begin(fs->st, &tx, FRAME_RECLAIM, VOLUME_COST);
	if (rc)
		return rc;
	mutex_lock(&vol->lock);
	while (!rc && vol->inodes.root && budget && tx.promised >= PIECE_COST)
		rc = drop_last(&tx, vol, &budget);
	gone = !rc && !vol->inodes.root;
	err = 0;
	if (gone)
		err = volume_erase_row(&tx, vol);
	else if (vol->inodes.root != before.root)
		err = volume_store_row(&tx, vol);
	mutex_unlock(&vol->lock);
	txn_end(&tx);
	if (gone && !err)
		volume_remove(vol);
	return rc ? rc : err;
}

/* 1: a step was done; 0: there is none to do; an error. */
static int any_volume_step(struct fs *fs)
{
	struct volume *vol = volume_next_dying(fs);
	int rc;

	if (!vol)
		return 0;
	rc = volume_step(fs, vol);
	if (rc && rc != -ENOSPC && rc != -ENOMEM && !store_error(fs->st)) {
		log_err("the pages of a deleted snapshot (volume %" PRIu64
			") can't be given back: %s",
			vol->id, strerror(-rc));
		atomic_store(&vol->stuck, true);
	}
	return rc ? rc : 1;
}

/* ------------------------------------------------------------------ who does it */

static void count_step(struct reclaim *rc)
{
	mutex_lock(&rc->lock);
	rc->steps++;
	cond_broadcast(&rc->stepped);
	mutex_unlock(&rc->lock);
}

/* 1: a step was done; 0: there is nothing to do, or not without waiting; an error. */
static int any_step(struct reclaim *rc, bool wait)
{
	struct fs *fs = rc->fs;
	uint64_t ino;
	int err;

	if (orphan_pop(rc, &ino)) {
		err = orphan_step(fs, ino, wait);
		if (err > 0 || orphan_again(err))
			orphan_push(rc, ino);
		if (err >= 0) {
			count_step(rc);
			return 1;
		}
		if (err != -EAGAIN)
			return err;
	}
	if (wait)
		mutex_lock(&rc->work);
	else if (!mutex_trylock(&rc->work))
		return 0;
	err = any_volume_step(fs);
	mutex_unlock(&rc->work);
	if (err > 0)
		count_step(rc);
	return err;
}

static bool stopping(struct reclaim *rc)
{
	bool stop;

	mutex_lock(&rc->lock);
	stop = rc->stop;
	mutex_unlock(&rc->lock);
	return stop;
}

static void *reclaim_thread(void *arg)
{
	struct reclaim *rc = arg;
	int err = 0;

	for (;;) {
		mutex_lock(&rc->lock);
		while (!rc->stop && !rc->kicked) {
			if (err != -ENOSPC && err != -ENOMEM)
				cond_wait(&rc->wake, &rc->lock);
			else if (cond_timedwait_ms(&rc->wake, &rc->lock, RETRY_MS) == -ETIMEDOUT)
				break;
		}
		rc->kicked = false;
		mutex_unlock(&rc->lock);
		do {
			if (stopping(rc))
				return NULL;
			err = any_step(rc, true);
		} while (err > 0);
	}
}

int reclaim_start(struct fs *fs, bool background)
{
	struct reclaim *rc;
	int err;

	if (fs->read_only)
		return 0;
	rc = calloc(1, sizeof(*rc));
	if (!rc)
		return -ENOMEM;
	rc->fs = fs;
	mutex_init(&rc->work, LOCK_RECLAIM);
	mutex_init(&rc->lock, LOCK_LEAF);
	cond_init(&rc->wake);
	cond_init(&rc->stepped);
	rc->kicked = true;
	fs->rc = rc;
	err = orphans_load(rc);
	if (err)
		log_err("the list of deleted files can't be read, their space is not given back: "
			"%s",
			strerror(-err));
	if (!background)
		return 0;
	err = thread_start(&rc->thread, "pmfs-reclaim", reclaim_thread, rc);
	rc->has_thread = !err;
	if (err)
		reclaim_stop(fs);
	return err;
}

void reclaim_stop(struct fs *fs)
{
	struct reclaim *rc = fs->rc;

	if (!rc)
		return;
	mutex_lock(&rc->lock);
	rc->stop = true;
	cond_signal(&rc->wake);
	mutex_unlock(&rc->lock);
	if (rc->has_thread)
		thread_join(rc->thread);
	fs->rc = NULL;
	cond_destroy(&rc->wake);
	cond_destroy(&rc->stepped);
	mutex_destroy(&rc->lock);
	mutex_destroy(&rc->work);
	free(rc->orphans);
	free(rc);
}

void reclaim_kick(struct fs *fs)
{
	struct reclaim *rc = fs->rc;

	if (!rc)
		return;
	mutex_lock(&rc->lock);
	rc->kicked = true;
	cond_signal(&rc->wake);
	mutex_unlock(&rc->lock);
}

int reclaim_step(struct fs *fs)
{
	return fs->rc ? any_step(fs->rc, true) : 0;
}

int reclaim_run(struct fs *fs)
{
	int steps = 0, err;

	while ((err = reclaim_step(fs)) > 0)
		steps++;
	return err ? err : steps;
}

static uint64_t orphans_waiting(struct reclaim *rc)
{
	uint64_t n;

	mutex_lock(&rc->lock);
	n = rc->n_orphans;
	mutex_unlock(&rc->lock);
	return n;
}

uint64_t reclaim_backlog(struct fs *fs)
{
	return (fs->rc ? orphans_waiting(fs->rc) : 0) + atomic_load(&fs->dying);
}

/*
 * Whoever runs out of space has locks of inodes and maybe the orphan directory's, so nothing here
 * waits for one.
 */
void reclaim_relief(void *arg)
{
	struct fs *fs = arg;
	struct reclaim *rc = fs->rc;
	uint64_t before;

	if (!rc)
		return;
	mutex_lock(&rc->lock);
	before = rc->steps;
	mutex_unlock(&rc->lock);
	while (any_step(rc, false) > 0)
		;
	/* What somebody still looks at does not come back by waiting. */
	if (!orphans_waiting(rc) && !volume_next_dying(fs))
		return;
	mutex_lock(&rc->lock);
	if (rc->has_thread && rc->steps == before)
		cond_timedwait_ms(&rc->stepped, &rc->lock, RELIEF_WAIT_MS);
	mutex_unlock(&rc->lock);
}
