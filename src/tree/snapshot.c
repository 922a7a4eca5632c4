/* SPDX-License-Identifier: BSD-2-Clause */
/* The calls of fs.h that make, name, list and delete snapshots. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tree/fs_impl.h"
#include "tree/reclaim.h"

/* ------------------------------------------------------------------ names */

/*
 * The character at s, at most len bytes long.  Returns its bytes, 0: not UTF-8 (too long a form, a
 * surrogate, beyond U+10FFFF).
 */
static size_t utf8_next(const char *s, size_t len, uint32_t *out)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *p = (const unsigned char *)s;
	const size_t n = p[0] < 0x80		 ? 1
			 : (p[0] & 0xe0) == 0xc0 ? 2
			 : (p[0] & 0xf0) == 0xe0 ? 3
			 : (p[0] & 0xf8) == 0xf0 ? 4
						 : 0;
	uint32_t c;

	if (!n || n > len)
		return 0;
	c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*out = c;
	return n;
}

static bool utf8_valid(const char *s, bool control_allowed)
{
	size_t len = strlen(s), n;
	uint32_t c;

	for (; len; s += n, len -= n) {
		n = utf8_next(s, len, &c);
		if (!n)
			return false;
		if (!control_allowed && (c < 0x20 || (c >= 0x7f && c < 0xa0)))
			return false;
	}
	return true;
}

static int snap_name_check(const char *name)
{
	if (strlen(name) > PMFS_VOL_NAME_MAX)
		return -ENAMETOOLONG;
	if (!name[0] || name[0] == '@' || name[0] == '-' || strchr(name, '/'))
		return -EINVAL;
	if (!strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, "live"))
		return -EINVAL;
	return utf8_valid(name, false) ? 0 : -EINVAL;
}

static bool name_taken(struct fs *fs, const char *name)
{
	struct volume *vol = volume_get_by_name(fs, name);

	if (vol)
		volume_put(vol);
	return vol;
}

/* ------------------------------------------------------------------ looking at them */

/* Locks: volumes_lock, or snap_lock, for the name. */
static void describe_locked(const struct volume *vol, struct fs_snapshot *out)
{
	memset(out, 0, sizeof(*out));
	out->id = vol->id;
	out->created_ns = vol->created_ns;
	out->generation = vol->generation;
	out->inodes = vol->inodes_used;
	out->data_pages = vol->data_pages;
	out->root = NODE_ID(vol->id, PMFS_INO_ROOT);
	memcpy(out->name, vol->name, sizeof(out->name));
	memcpy(out->message, vol->message, sizeof(out->message));
}

int fs_snap_find(struct fs *fs, const char *name, struct fs_snapshot *out)
{
	struct volume *vol = volume_get_by_name(fs, name);

	if (!vol)
		return -ENOENT;
	rw_rdlock(&fs->volumes_lock);
	describe_locked(vol, out);
	rw_unlock(&fs->volumes_lock);
	volume_put(vol);
	return 0;
}

int fs_snap_each(struct fs *fs, int (*fn)(void *arg, const struct fs_snapshot *snap), void *arg)
{
	struct fs_snapshot snap;
	struct volume *vol;
	uint64_t id = 0;
	bool is_snapshot;
	int rc = 0;

	while (!rc && (vol = volume_next(fs, id))) {
		id = vol->id;
		is_snapshot = atomic_load(&vol->state) == PMFS_VOL_SNAPSHOT;
		if (is_snapshot) {
			rw_rdlock(&fs->volumes_lock);
			describe_locked(vol, &snap);
			rw_unlock(&fs->volumes_lock);
		}
		volume_put(vol);
		if (is_snapshot)
			rc = fn(arg, &snap);
	}
	return rc;
}

int fs_snap_lookup(struct fs *fs, const char *name, struct fs_attr *out)
{
	struct volume *vol = volume_get_by_name(fs, name);
	struct inode *in;
	int rc;

	if (!vol)
		return -ENOENT;
	rc = inode_get(fs, NODE_ID(vol->id, PMFS_INO_ROOT), &in);
	if (!rc) {
		inode_add_lookup(fs, in);
		rw_rdlock(&in->lock);
		inode_attr(in, out);
		rw_unlock(&in->lock);
		inode_put(fs, in);
	}
	volume_put(vol);
	return rc;
}

/* ------------------------------------------------------------------ changing them */

struct create {
	struct volume *vol;
	struct volume *added; /* set when the row was made */
};

static int create_at_close(struct txn *tx, void *arg)
{
	struct create *cr = arg;
	const int rc = volume_fork(tx, cr->vol);

	if (!rc)
		cr->added = cr->vol;
	return rc;
}

int fs_snap_create(struct fs *fs, const char *name, const char *message, struct fs_snapshot *out)
{
	struct create cr = {0};
	struct timespec ts;
	int rc = snap_name_check(name);

	if (!message)
		message = "";
	if (!rc && strlen(message) > PMFS_VOL_MESSAGE_MAX)
		rc = -ENAMETOOLONG;
	if (!rc && !utf8_valid(message, true))
		rc = -EINVAL;
	if (rc)
		return rc;
	if (fs->read_only)
		return -EROFS;
	cr.vol = volume_new(fs);
	if (!cr.vol)
		return -ENOMEM;
	atomic_init(&cr.vol->state, PMFS_VOL_SNAPSHOT);
	memcpy(cr.vol->name, name, strlen(name));
	memcpy(cr.vol->message, message, strlen(message));
	now(&ts);
	cr.vol->created_ns = (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
	mutex_lock(&fs->snap_lock);
	rc = name_taken(fs, name) ? -EEXIST : 0;
	if (!rc)
		rc = commit_with(fs->st, FRAME_NORMAL, VOLUME_ROW_COST, create_at_close, &cr);
	/* Where the commit failed after the row was made, the store takes no further change, so the
	 * list need not have what the image may or may not have. */
	if (!rc && cr.added) {
		volume_add(cr.vol);
		if (out)
			describe_locked(cr.vol, out);
		cr.vol = NULL;
	}
	mutex_unlock(&fs->snap_lock);
	volume_free(cr.vol);
	return rc;
}

int volume_pin(struct fs *fs, struct volume **out)
{
	struct create cr = {.vol = volume_new(fs)};
	int rc;

	if (!cr.vol)
		return -ENOMEM;
	atomic_init(&cr.vol->state, PMFS_VOL_DYING);
	atomic_init(&cr.vol->users, 1);
	mutex_lock(&fs->snap_lock);
	rc = commit_with(fs->st, FRAME_NORMAL, VOLUME_ROW_COST, create_at_close, &cr);
	if (!rc && cr.added) {
		volume_add(cr.vol);
		*out = cr.vol;
		cr.vol = NULL;
	}
	mutex_unlock(&fs->snap_lock);
	volume_free(cr.vol);
	return rc;
}

/* Write a snapshot's row anew and follow in memory.  Locks: snap_lock held.  *generation holds the
 * change. */
static int snap_change(struct fs *fs, struct volume *vol, uint32_t state, const char *name,
		       const char *message, uint64_t *generation)
{
	struct txn tx;
	int rc;

	/* Deleting one is the way out when there is no space left. */
	rc = txn_begin(fs->st, &tx, state == PMFS_VOL_DYING ? FRAME_RECLAIM : FRAME_NORMAL,
		       VOLUME_ROW_COST);
	if (rc)
		return rc;
	mutex_lock(&vol->lock);
	rc = volume_store_as(&tx, vol, state, name, message);
	mutex_unlock(&vol->lock);
	*generation = txn_end(&tx);
	if (rc)
		return rc;
	volume_become(vol, state, name, message);
	return 0;
}

int fs_snap_delete(struct fs *fs, const char *name)
{
	struct volume *vol;
	uint64_t generation;
	int rc = -ENOENT;

	if (fs->read_only)
		return -EROFS;
	mutex_lock(&fs->snap_lock);
	vol = volume_get_by_name(fs, name);
	if (vol) {
		rc = snap_change(fs, vol, PMFS_VOL_DYING, "", "", &generation);
		volume_put(vol);
	}
	mutex_unlock(&fs->snap_lock);
	return rc ? rc : commit_wait(fs->st, generation);
}

int fs_snap_rename(struct fs *fs, const char *name, const char *new_name)
{
	struct volume *vol;
	uint64_t generation;
	int rc = snap_name_check(new_name);

	if (rc)
		return rc;
	if (fs->read_only)
		return -EROFS;
	mutex_lock(&fs->snap_lock);
	vol = volume_get_by_name(fs, name);
	if (!vol)
		rc = -ENOENT;
	else if (name_taken(fs, new_name))
		rc = -EEXIST;
	else
		rc = snap_change(fs, vol, PMFS_VOL_SNAPSHOT, new_name, vol->message, &generation);
	if (vol)
		volume_put(vol);
	mutex_unlock(&fs->snap_lock);
	return rc ? rc : commit_wait(fs->st, generation);
}

/* ------------------------------------------------------------------ what only one has */

/*
 * A page with one pointer that is reached over pages with one pointer belongs to this snapshot
 * alone.  Nobody changes such pages, and what has more pointers is not looked into, so no lock is
 * needed.
 */
struct exclusive {
	struct store *st;
	uint64_t pages;
	uint64_t left; /* an image has no more pages than this; one that was made to goes in circles
			*/
};

static int exclusive_table(struct exclusive *ex, vpn_t vpn, uint32_t height, bool inodes);

static int exclusive_records(struct exclusive *ex, vpn_t vpn)
{
	struct pmfs_inode rec[PMFS_INODES_PER_PAGE];
	int rc = page_read(ex->st, vpn, 0, rec, sizeof(rec));

	for (size_t i = 0; i < PMFS_INODES_PER_PAGE && !rc; i++) {
		const struct ptab data = ptab_decode(&rec[i].data);
		const struct ptab xattr = ptab_decode(&rec[i].xattr);

		if (!ptab_valid(&data) || !ptab_valid(&xattr))
			rc = -EUCLEAN;
		if (!rc && data.root)
			rc = exclusive_table(ex, data.root, data.height, false);
		if (!rc && xattr.root)
			rc = exclusive_table(ex, xattr.root, xattr.height, false);
	}
	return rc;
}

static int exclusive_table(struct exclusive *ex, vpn_t vpn, uint32_t height, bool inodes)
{
	le64 child[PMFS_PTAB_FANOUT];
	struct page_info info;
	int rc;

	rc = page_info(ex->st, vpn, &info);
	if (rc || info.refs > 1)
		return rc;
	if (!ex->left--)
		return -EUCLEAN;
	if (info.pfn != PFN_NONE)
		ex->pages++;
	if (!height)
		return inodes ? exclusive_records(ex, vpn) : 0;
	rc = page_read(ex->st, vpn, 0, child, sizeof(child));
	for (size_t i = 0; i < PMFS_PTAB_FANOUT && !rc; i++)
		if (le64_get(child[i]))
			rc = exclusive_table(ex, le64_get(child[i]), height - 1, inodes);
	return rc;
}

int fs_snap_exclusive(struct fs *fs, const char *name, uint64_t *pages)
{
	struct volume *vol = volume_get_by_name(fs, name);
	struct exclusive ex = {.st = fs->st, .left = store_pages_bound(fs->st)};
	int rc;

	if (!vol)
		return -ENOENT;
	rc = exclusive_table(&ex, vol->inodes.root, vol->inodes.height, true);
	volume_put(vol);
	if (!rc)
		*pages = ex.pages;
	return rc;
}
