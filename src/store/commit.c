/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a generation becomes durable.  One thread at a time leads a commit:
 *
 *   closing    LOCK_TXN exclusively, an instant: the changed entries are taken, the next
 *              generation opens
 *   writing    hashes of new pages; then either all entries that are not in the tree go into the
 *              slot (small: one flush), or new nodes are written, flushed, and the slot names them
 *              (big: two)
 *   durable    waiters return; hashes are put into the map; frames that were given up are free
 *              once the readers that could see them have left
 *
 * A failure after the closing can't be undone: the region is poisoned, and the image shows what it
 * showed before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/units.h"
#include "store/store_impl.h"

/* A timer commit with more entries than this writes the tree: the next fsync then finds a short
 * list. */
#define COMMIT_SOFT_FULL 1024u

/* Changed pages for which a commit of memory is made before its time: what they gave up is warm. */
#define COMMIT_WORTH 4096u

#define SCAN_STEP 64u

struct hook {
	int (*at_close)(struct txn *tx, void *arg);
	void *arg;
	uint64_t frames;
	int rc;
};

/* A generation that has closed. */
struct closed {
	uint64_t generation;
	struct super super;
	struct pmfs_delta *deltas;
	uint64_t count;
	int64_t began; /* ns, monotonic */
	bool empty;    /* nothing was changed: it is still the open one */
};

int store_fail(struct store *st, const char *what, int error)
{
	log_limited(LOG_LEVEL_ERR, "store.fail",
		    "%s failed (error %d): no more writes until the image is opened again", what,
		    -error);
	mutex_lock(&st->bad_lock);
	if (!st->why[0])
		snprintf(st->why, sizeof(st->why), "%s failed: %s", what, strerror(-error));
	mutex_unlock(&st->bad_lock);
	region_poison(st->rg, -EIO);
	return -EIO;
}

/* Call the hook as a transaction of the generation that is about to close. */
static void run_hook(struct store *st, struct hook *hook)
{
	struct txn tx = {.st = st, .promised = hook->frames};

	hook->rc = hook->at_close(&tx, hook->arg);
	if (tx.promised)
		frames_unreserve(st->fr, tx.promised);
}

static int close_generation(struct store *st, struct hook *hook, struct closed *cl)
{
	struct pagemap_room room;
	uint64_t kept, paths;
	int rc;

	*cl = (struct closed){.began = units_monotonic_ns()};
	rw_wrlock(&st->txn_lock);
	rc = region_error(st->rg) ? -EIO : 0;
	/* Before the hook: what it has done can't be undone. */
	if (!rc)
		rc = pagemap_capture_room(&st->pm, hook ? 2 * hook->frames : 0, &room);
	if (rc) {
		if (hook)
			frames_unreserve(st->fr, hook->frames);
		goto out;
	}
	if (hook)
		run_hook(st, hook);
	mutex_lock(&st->root_lock);
	cl->empty = !atomic_load(&st->pm.changed) && !st->root_changed;
	mutex_unlock(&st->root_lock);
	if (cl->empty)
		pagemap_capture_cancel(&room);
	else
		pagemap_capture(&st->pm, &room, &cl->deltas, &cl->count);
	frames_kept(st->fr, &kept, &paths);
	mutex_lock(&st->root_lock);
	cl->super = st->super;
	cl->super.tree = st->root;
	cl->super.kept = (uint32_t)kept;
	cl->super.kept_paths = (uint32_t)paths;
	st->root_changed = st->root_changed && cl->empty;
	mutex_unlock(&st->root_lock);
	cl->generation = atomic_load(&st->generation);
	cl->super.generation = cl->generation;
	cl->super.vpn_limit = store_vpn_limit(st);
	frames_close_generation(st->fr);
	if (!cl->empty)
		atomic_store(&st->generation, cl->generation + 1);
out:
	rw_unlock(&st->txn_lock);
	return rc;
}

/* The hash of each page that got a new frame: its checksum from now on, and what dedup goes by. */
static int hash_new(struct store *st, struct closed *cl)
{
	for (uint64_t i = 0; i < cl->count; i++) {
		struct pmfs_delta *d = &cl->deltas[i];
		uint64_t hash;
		int rc;

		if (!(le64_get(d->vpn) & PMFS_DELTA_NEW))
			continue;
		rc = region_hash(st->rg, where_pfn(le64_get(d->entry.where)), &hash);
		if (rc)
			return rc;
		le64_put(&d->entry.hash, hash);
	}
	return 0;
}

static int write_slot(struct store *st, struct closed *cl, const struct pmfs_delta *deltas,
		      uint64_t n)
{
	int rc;

	cl->super.frames = frames_high_water(st->fr);
	/* The limit can have been raised, and the space above it used, since the generation closed.
	 */
	cl->super.limit_frames = MAX(cl->super.limit_frames, cl->super.frames);
	rc = super_write(st->rg, &cl->super, deltas, (uint32_t)n);
	return rc ? rc : region_flush(st->rg);
}

static int write_small(struct store *st, struct closed *cl, struct pmfs_delta *all, uint64_t n)
{
	const struct maptree *tree = &st->pm.tree;
	int rc;

	cl->super.map_root = tree->root;
	cl->super.map_checksum = tree->checksum;
	cl->super.map_height = tree->height;
	rc = write_slot(st, cl, all, n);
	if (rc) {
		free(all);
		return rc;
	}
	pagemap_set_acc(&st->pm, all, n);
	atomic_fetch_add(&st->commits_small, 1);
	return 0;
}

/*
 * Until the scan is over, the frames of nodes that are replaced do not come back: where there are
 * few free ones, the next commits could lack them (F4).
 */
static void scan_for_space(struct store *st)
{
	struct frame_stats stats;
	int rc = 0;

	if (store_scanned(st))
		return;
	frames_stat(st->fr, &stats);
	while (!rc && stats.free < pagemap_frames(&st->pm))
		rc = store_scan(st, SCAN_STEP);
}

static int write_big(struct store *st, struct closed *cl, struct pmfs_delta *all, uint64_t n)
{
	struct maptree_update up;
	int rc;

	scan_for_space(st);
	rc = maptree_build(&st->pm.tree, st->fr, all, n, cl->super.vpn_limit, &up);
	free(all);
	if (rc)
		return rc;
	cl->super.map_root = up.root;
	cl->super.map_checksum = up.checksum;
	cl->super.map_height = up.height;
	/* S1: a slot must never name what is not there. */
	rc = region_flush(st->rg);
	if (!rc)
		rc = write_slot(st, cl, NULL, 0);
	if (!rc)
		pagemap_set_tree(&st->pm, &up);
	maptree_update_free(&up);
	return rc;
}

static int write_image(struct store *st, struct closed *cl, enum commit_why why)
{
	struct pmfs_delta *all;
	uint64_t n;

	all = pagemap_merge(&st->pm, cl->deltas, cl->count, &n);
	if (!all)
		return -ENOMEM;
	if (n > PMFS_DELTA_MAX || (why == COMMIT_TIMER && n > COMMIT_SOFT_FULL) ||
	    (why == COMMIT_FOLD && n))
		return write_big(st, cl, all, n);
	return write_small(st, cl, all, n);
}

static void note_time(struct store *st, int64_t began)
{
	const uint64_t ns = (uint64_t)(units_monotonic_ns() - began);

	atomic_store(&st->commit_ns_last, ns);
	if (ns > atomic_load(&st->commit_ns_max))
		atomic_store(&st->commit_ns_max, ns);
}

static void set_durable(struct store *st, uint64_t generation)
{
	mutex_lock(&st->commit_lock);
	atomic_store(&st->durable, generation);
	cond_broadcast(&st->commit_done);
	mutex_unlock(&st->commit_lock);
}

/* All that comes after the closing.  The caller leads. */
static int commit_finish(struct store *st, struct closed *cl, enum commit_why why)
{
	if (!cl->empty) {
		int rc = hash_new(st, cl);

		/* Memory is gone with the process: only the hashes are of use. */
		if (!rc && !st->ram)
			rc = write_image(st, cl, why);
		if (rc) {
			free(cl->deltas);
			return store_fail(st, "a commit", rc);
		}
		set_durable(st, cl->generation);
		pagemap_settle(&st->pm, cl->deltas, cl->count);
		free(cl->deltas);
		atomic_fetch_add(&st->commits, 1);
		note_time(st, cl->began);
	}
	/* F2.  Frames that an empty generation gives up were found by the scan, and left by an
	 * earlier one. */
	readers_wait(&st->readers);
	frames_release(st->fr);
	return 0;
}

/* The caller leads. */
static int commit_run(struct store *st, enum commit_why why)
{
	struct closed cl;
	int rc;

	rc = close_generation(st, NULL, &cl);
	return rc ? rc : commit_finish(st, &cl, why);
}

/* Become the leader; false: the generation became durable while waiting. */
static bool lead_begin(struct store *st, uint64_t unless_durable)
{
	bool lead = true;

	mutex_lock(&st->commit_lock);
	while (st->commit_running && lead) {
		cond_wait(&st->commit_done, &st->commit_lock);
		lead = atomic_load(&st->durable) < unless_durable;
	}
	lead = lead && atomic_load(&st->durable) < unless_durable;
	if (lead)
		st->commit_running = true;
	mutex_unlock(&st->commit_lock);
	return lead;
}

static void lead_end(struct store *st)
{
	mutex_lock(&st->commit_lock);
	st->commit_running = false;
	cond_broadcast(&st->commit_done);
	mutex_unlock(&st->commit_lock);
}

void commit_pause(struct store *st)
{
	(void)lead_begin(st, UINT64_MAX);
}

void commit_resume(struct store *st)
{
	lead_end(st);
}

int commit_lead(struct store *st, enum commit_why why)
{
	int rc;

	if (st->read_only)
		return 0;
	(void)lead_begin(st, UINT64_MAX);
	rc = commit_run(st, why);
	lead_end(st);
	return rc;
}

int commit_try(struct store *st, enum commit_why why)
{
	bool lead;
	int rc;

	mutex_lock(&st->commit_lock);
	lead = !st->commit_running;
	st->commit_running = true;
	mutex_unlock(&st->commit_lock);
	if (!lead)
		return 0;
	rc = commit_run(st, why);
	lead_end(st);
	return rc;
}

int commit_wait(struct store *st, uint64_t generation)
{
	int rc;

	if (st->read_only || !lead_begin(st, generation))
		return 0;
	rc = commit_run(st, COMMIT_ASKED);
	lead_end(st);
	return rc;
}

int store_fold(struct store *st)
{
	return commit_lead(st, COMMIT_FOLD);
}

int commit_now(struct store *st)
{
	return commit_wait(st, atomic_load(&st->generation));
}

int commit_fsync(struct store *st)
{
	const int rc = region_error(st->rg);

	if (!st->ram || !st->keeper_started)
		return commit_now(st);
	if (!rc && atomic_load(&st->pm.changed) >= COMMIT_WORTH) {
		mutex_lock(&st->keeper_lock);
		st->keeper_asked = true;
		cond_broadcast(&st->keeper_wake);
		mutex_unlock(&st->keeper_lock);
	}
	return rc;
}

/*
 * Memory needs nothing more than the closing, so a snapshot takes as long as that: hashes and
 * frames are left to the keeper, which leads from here on.  False: there is no keeper, or no memory
 * for it.
 */
static bool leave_to_keeper(struct store *st, const struct closed *cl)
{
	struct closed *left;

	if (!st->ram || !st->keeper_started || cl->empty)
		return false;
	left = malloc(sizeof(*left));
	if (!left)
		return false;
	*left = *cl;
	set_durable(st, cl->generation);
	mutex_lock(&st->keeper_lock);
	st->left = left;
	cond_broadcast(&st->keeper_wake);
	mutex_unlock(&st->keeper_lock);
	return true;
}

void commit_finish_left(struct store *st)
{
	struct closed *left;

	mutex_lock(&st->keeper_lock);
	left = st->left;
	st->left = NULL;
	mutex_unlock(&st->keeper_lock);
	if (!left)
		return;
	(void)commit_finish(st, left, COMMIT_ASKED); /* has logged, and poisoned the region */
	free(left);
	lead_end(st);
}

int commit_with(struct store *st, enum frame_class cls, uint64_t frames,
		int (*at_close)(struct txn *tx, void *arg), void *arg)
{
	struct hook hook = {.at_close = at_close, .arg = arg, .frames = frames};
	struct closed cl;
	struct txn tx;
	int rc;

	/* Have the promise before the lock: waiting for space would need a commit. */
	rc = txn_begin(st, &tx, cls, frames);
	if (rc)
		return rc;
	tx.promised = 0; /* the hook's now */
	txn_end(&tx);
	(void)lead_begin(st, UINT64_MAX);
	rc = close_generation(st, &hook, &cl);
	if (!rc && leave_to_keeper(st, &cl))
		return hook.rc;
	if (!rc)
		rc = commit_finish(st, &cl, COMMIT_ASKED);
	lead_end(st);
	return rc ? rc : hook.rc;
}
