/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/fs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tree/fs_impl.h"
#include "tree/reclaim.h"
#include "tree/repair.h"

static void relief(void *arg)
{
	struct fs *fs = arg;

	if (fs->rc)
		reclaim_relief(fs);
}

static void map_lost(void *arg, vpn_t first, uint64_t pages, const char *why)
{
	struct fs_repair *how = arg;
	char text[256];

	snprintf(text, sizeof(text), "%llu pages from page %llu on are lost: %s", (unsigned long long)pages,
		 (unsigned long long)first, why);
	how->fixed++;
	how->said(how->arg, false, text);
}

/* Everything but the store; commits or not is the caller's choice. */
static void dismantle(struct fs *fs)
{
	if (fs->rc)
		reclaim_stop(fs);
	if (fs->ic)
		icache_free(fs->ic);
	volumes_unload(fs);
	rw_destroy(&fs->volumes_lock);
	mutex_destroy(&fs->table_lock);
	mutex_destroy(&fs->snap_lock);
	mutex_destroy(&fs->rename_lock);
	free(fs);
}

int fs_open(struct fs **out, const struct fs_config *cfg, struct store_error *err)
{
	struct store_config store = cfg->store;
	const char *what = "";
	struct fs *fs = calloc(1, sizeof(*fs));
	int rc;

	if (!fs)
		return -ENOMEM;
	mutex_init(&fs->rename_lock, LOCK_RENAME);
	mutex_init(&fs->snap_lock, LOCK_SNAP);
	rw_init(&fs->volumes_lock, LOCK_VOLUMES);
	mutex_init(&fs->table_lock, LOCK_TABLE);
	fs->root_uid = cfg->root_uid;
	fs->root_gid = cfg->root_gid;
	fs->root_mode = cfg->root_mode ? cfg->root_mode & 07777 : 0755;
	fs->read_only = store.read_only;
	if (cfg->repair) {
		store.lost = map_lost;
		store.lost_arg = cfg->repair;
	}
	store.relief = relief;
	store.relief_arg = fs;
	rc = store_open(&fs->st, &store, err);
	if (rc) {
		dismantle(fs);
		return rc;
	}
	rc = icache_new(&fs->ic);
	if (!rc && cfg->repair) {
		what = "the volume table is lost";
		rc = repair_before_load(fs, cfg->repair);
	}
	if (!rc)
		rc = volumes_load(fs, &what);
	if (!rc && cfg->repair) {
		what = "it can't be repaired";
		rc = repair_after_load(fs, cfg->repair);
	}
	if (!rc)
		rc = reclaim_start(fs, cfg->background);
	if (!rc && cfg->repair)
		rc = repair_say_paths(fs, cfg->repair);
	if (rc) {
		struct store *st = fs->st;

		snprintf(err->text, sizeof(err->text), "%s: %s", what && *what ? what : "can't be opened",
			 strerror(-rc));
		err->holder = 0;
		dismantle(fs);
		store_abandon(st);
		return rc;
	}
	*out = fs;
	return 0;
}

int fs_close(struct fs *fs)
{
	struct store *st = fs->st;

	dismantle(fs);
	return store_close(st);
}

void fs_abandon(struct fs *fs)
{
	struct store *st = fs->st;

	dismantle(fs);
	store_abandon(st);
}

struct store *fs_store(struct fs *fs)
{
	return fs->st;
}

bool fs_read_only(const struct fs *fs)
{
	return fs->read_only;
}

uint64_t fs_root(const struct fs *fs)
{
	return NODE_ID(fs->live->id, PMFS_INO_ROOT);
}

bool fs_is_snapshot_root(const struct fs *fs, uint64_t id)
{
	return NODE_INO(id) == PMFS_INO_ROOT && NODE_VOLUME(id) != fs->live->id;
}

int fs_sync(struct fs *fs)
{
	return fs->read_only ? 0 : commit_now(fs->st);
}

int fs_statfs(struct fs *fs, struct fs_statfs *out)
{
	struct store_stats st;
	uint64_t inodes_used, busy;

	store_stat(fs->st, &st);
	mutex_lock(&fs->live->lock);
	inodes_used = fs->live->inodes_used;
	mutex_unlock(&fs->live->lock);
	/* What was given up and waits for a commit is as good as free: who needs it gets it by
	 * waiting. */
	busy = st.frames.used + st.frames.kept;
	busy = busy < st.frames.limit ? busy : st.frames.limit;
	out->blocks = st.frames.limit;
	out->free = st.frames.limit - busy;
	out->available = st.frames.available + st.frames.pending;
	if (out->available > out->free)
		out->available = out->free;
	out->inodes_free = out->available * PMFS_INODES_PER_PAGE;
	out->inodes = inodes_used + out->inodes_free;
	return 0;
}

static uint64_t count_orphans(struct fs *fs)
{
	struct inode *dir;
	uint64_t n;

	if (inode_get(fs, NODE_ID(fs->live->id, PMFS_INO_ORPHANS), &dir))
		return 0;
	rw_rdlock(&dir->lock);
	n = dir->size;
	rw_unlock(&dir->lock);
	inode_put(fs, dir);
	return n;
}

void fs_stat(struct fs *fs, struct fs_stats *out)
{
	memset(out, 0, sizeof(*out));
	store_stat(fs->st, &out->store);
	out->orphans = count_orphans(fs);
	out->cached_inodes = icache_count(fs->ic);
	mutex_lock(&fs->live->lock);
	out->inodes_used = fs->live->inodes_used;
	out->data_pages = fs->live->data_pages;
	mutex_unlock(&fs->live->lock);
	out->logical_pages = out->data_pages;
	rw_rdlock(&fs->volumes_lock);
	for (const struct volume *vol = fs->volumes; vol; vol = vol->next) {
		if (atomic_load(&vol->state) == PMFS_VOL_SNAPSHOT) {
			out->snapshots++;
			out->logical_pages += vol->data_pages;
		} else if (atomic_load(&vol->state) == PMFS_VOL_DYING) {
			out->dying++;
		}
	}
	rw_unlock(&fs->volumes_lock);
}
