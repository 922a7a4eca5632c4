/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/itable.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/fs_impl.h"

#define NSEC 1000000000u
#define PER_PAGE PMFS_INODES_PER_PAGE
#define RDEV_MINOR_BITS 20

static pgno_t page_of(uint64_t ino)
{
	return ino / PER_PAGE;
}

static size_t offset_of(uint64_t ino)
{
	return ino % PER_PAGE * PMFS_INODE_SIZE;
}

/* ------------------------------------------------------------------ records */

static int time_decode(le64 sec, le32 nsec, struct timespec *out)
{
	if (le32_get(nsec) >= NSEC)
		return -EUCLEAN;
	out->tv_sec = (time_t)le64_get(sec);
	out->tv_nsec = (long)le32_get(nsec);
	return 0;
}

static void time_encode(const struct timespec *in, le64 *sec, le32 *nsec)
{
	le64_put(sec, (uint64_t)in->tv_sec);
	le32_put(nsec, (uint32_t)in->tv_nsec);
}

static bool kind_valid(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

/* What has to hold inside of one record, whatever else is in the image. */
static bool inode_valid(const struct inode *in)
{
	if (!kind_valid(in->mode) || in->mode & ~(S_IFMT | 07777u))
		return false;
	if (in->flags &
	    ~(PMFS_INODE_INLINE | PMFS_INODE_STALE | PMFS_INODE_RINGLOG | PMFS_INODE_USER))
		return false;
	if (!ptab_valid(&in->data) || !ptab_valid(&in->xattr))
		return false;
	if (in->xattr_size > PMFS_XATTR_TOTAL_MAX)
		return false;
	if (in->flags & PMFS_INODE_INLINE) {
		if (in->data.root || in->size > PMFS_INLINE_MAX)
			return false;
		if (!S_ISREG(in->mode) && !S_ISLNK(in->mode))
			return false;
		return mem_is_zero(in->inl + in->size, PMFS_INLINE_MAX - in->size);
	}
	if (S_ISREG(in->mode))
		return in->size <= PMFS_MAX_FILE_SIZE;
	return !(in->flags & (PMFS_INODE_STALE | PMFS_INODE_RINGLOG));
}

int inode_decode(const struct pmfs_inode *rec, struct inode *in)
{
	const uint32_t rdev = le32_get(rec->rdev);

	in->mode = le32_get(rec->mode);
	in->flags = le32_get(rec->flags);
	in->uid = le32_get(rec->uid);
	in->gid = le32_get(rec->gid);
	in->nlink = le32_get(rec->nlink);
	in->rdev = (uint32_t)makedev(rdev >> RDEV_MINOR_BITS,
				     rdev & ((1u << RDEV_MINOR_BITS) - 1));
	in->size = le64_get(rec->size);
	in->pages = le64_get(rec->pages);
	in->generation = le64_get(rec->generation);
	in->parent = le64_get(rec->parent);
	in->data = ptab_decode(&rec->data);
	in->xattr = ptab_decode(&rec->xattr);
	in->xattr_size = le32_get(rec->xattr_size);
	memcpy(in->inl, rec->inl, sizeof(in->inl));
	if (!in->mode)
		return -ENOENT;
	if (time_decode(rec->atime_sec, rec->atime_nsec, &in->atime) ||
	    time_decode(rec->mtime_sec, rec->mtime_nsec, &in->mtime) ||
	    time_decode(rec->ctime_sec, rec->ctime_nsec, &in->ctime) ||
	    time_decode(rec->btime_sec, rec->btime_nsec, &in->btime))
		return -EUCLEAN;
	return inode_valid(in) ? 0 : -EUCLEAN;
}

void inode_encode(const struct inode *in, struct pmfs_inode *rec)
{
	memset(rec, 0, sizeof(*rec));
	le32_put(&rec->mode, in->mode);
	le32_put(&rec->flags, in->flags);
	le32_put(&rec->uid, in->uid);
	le32_put(&rec->gid, in->gid);
	le32_put(&rec->nlink, in->nlink);
	le32_put(&rec->rdev, (uint32_t)(major(in->rdev) << RDEV_MINOR_BITS | minor(in->rdev)));
	le64_put(&rec->size, in->size);
	le64_put(&rec->pages, in->pages);
	le64_put(&rec->generation, in->generation);
	time_encode(&in->atime, &rec->atime_sec, &rec->atime_nsec);
	time_encode(&in->mtime, &rec->mtime_sec, &rec->mtime_nsec);
	time_encode(&in->ctime, &rec->ctime_sec, &rec->ctime_nsec);
	time_encode(&in->btime, &rec->btime_sec, &rec->btime_nsec);
	le64_put(&rec->parent, in->parent);
	ptab_encode(&in->data, &rec->data);
	ptab_encode(&in->xattr, &rec->xattr);
	le32_put(&rec->xattr_size, in->xattr_size);
	if (in->flags & PMFS_INODE_INLINE)
		memcpy(rec->inl, in->inl, sizeof(rec->inl));
}

/* ------------------------------------------------------------------ pages of records */

/* I2 */
static int records_copied(struct txn *tx, vpn_t page, void *arg)
{
	struct pmfs_inode recs[PER_PAGE];
	vpn_t got[2 * PER_PAGE];
	unsigned n = 0;
	int rc;

	(void)arg;
	rc = page_read(tx->st, page, 0, recs, sizeof(recs));
	for (unsigned i = 0; !rc && i < 2 * PER_PAGE; i++) {
		const struct pmfs_inode *rec = &recs[i / 2];
		const vpn_t root = le64_get(i % 2 ? rec->xattr.vpn : rec->data.vpn);

		if (!rec->mode.raw || !root)
			continue;
		rc = page_ref(tx, root);
		if (!rc)
			got[n++] = root;
	}
	if (rc)
		while (n)
			page_unref(tx, got[--n], NULL);
	return rc;
}

static int records_dropped(struct txn *tx, vpn_t page, void *arg)
{
	struct pmfs_inode recs[PER_PAGE];
	int rc;

	(void)arg;
	rc = page_read(tx->st, page, 0, recs, sizeof(recs));
	for (unsigned i = 0; !rc && i < 2 * PER_PAGE; i++) {
		const struct pmfs_inode *rec = &recs[i / 2];
		struct ptab pt = ptab_decode(i % 2 ? &rec->xattr : &rec->data);

		if (rec->mode.raw)
			rc = ptab_punch(tx, &pt, NULL, 0, PGNO_END, UINT64_MAX, NULL);
	}
	return rc;
}

const struct ptab_ops itable_ops = { .copied = records_copied, .dropped = records_dropped };

/* Locks: vol->lock held. */
static int read_record(struct volume *vol, uint64_t ino, struct pmfs_inode *rec)
{
	struct store *st = vol->fs->st;
	struct read_section rs;
	vpn_t vpn;
	int rc;

	read_enter(st, &rs);
	rc = ptab_get(st, &vol->inodes, page_of(ino), &vpn);
	if (!rc && vpn)
		rc = page_read(st, vpn, offset_of(ino), rec, sizeof(*rec));
	read_leave(st, &rs);
	if (!rc && !vpn)
		memset(rec, 0, sizeof(*rec));
	return rc;
}

static bool same(const struct ptab *a, const struct ptab *b)
{
	return a->root == b->root && a->height == b->height;
}

int itable_load(struct inode *in)
{
	struct volume *vol = in->vol;
	struct pmfs_inode rec;
	int rc;

	mutex_lock(&vol->lock);
	rc = in->ino && in->ino < vol->next_ino ? read_record(vol, in->ino, &rec) : -ENOENT;
	mutex_unlock(&vol->lock);
	return rc ? rc : inode_decode(&rec, in);
}

int itable_own(struct txn *tx, struct inode *in)
{
	struct volume *vol = in->vol;
	struct ptab before;
	vpn_t vpn;
	int rc;

	mutex_lock(&vol->lock);
	before = vol->inodes;
	rc = ptab_own(tx, &vol->inodes, &itable_ops, page_of(in->ino), &vpn, NULL);
	if (!rc && !same(&before, &vol->inodes))
		rc = volume_store_row(tx, vol);
	mutex_unlock(&vol->lock);
	return rc;
}

int itable_store_pages(struct txn *tx, struct inode *in, int64_t delta)
{
	struct volume *vol = in->vol;
	struct pmfs_inode rec;
	struct ptab before;
	int rc;

	in->pages += (uint64_t)delta;
	inode_encode(in, &rec);
	mutex_lock(&vol->lock);
	vol->data_pages += (uint64_t)delta;
	before = vol->inodes;
	rc = ptab_write(tx, &vol->inodes, &itable_ops, page_of(in->ino), offset_of(in->ino), &rec,
			sizeof(rec), NULL);
	if (!rc && (delta || !same(&before, &vol->inodes)))
		rc = volume_store_row(tx, vol);
	mutex_unlock(&vol->lock);
	return rc;
}

int itable_store(struct txn *tx, struct inode *in)
{
	return itable_store_pages(tx, in, 0);
}

/* ------------------------------------------------------------------ numbers */

int itable_alloc(struct txn *tx, struct volume *vol, uint64_t *ino, uint64_t *generation)
{
	struct pmfs_inode rec;
	uint64_t got, next_free, next_ino;
	int rc = 0;

	mutex_lock(&vol->lock);
	got = vol->free_ino;
	next_free = got;
	next_ino = vol->next_ino;
	if (got) {
		rc = read_record(vol, got, &rec);
		next_free = le64_get(rec.parent);
		if (!rc && (rec.mode.raw || next_free >= next_ino || next_free == got))
			rc = -EUCLEAN;
	} else {
		memset(&rec, 0, sizeof(rec));
		got = next_ino++;
		if (got >= ITABLE_INO_MAX)
			rc = -ENOSPC;
	}
	if (!rc) {
		vol->free_ino = next_free;
		vol->next_ino = next_ino;
		vol->inodes_used++;
		rc = volume_store_row(tx, vol);
		*ino = got;
		*generation = le64_get(rec.generation) + 1;
	}
	mutex_unlock(&vol->lock);
	return rc;
}

int itable_free(struct txn *tx, struct volume *vol, uint64_t ino)
{
	struct pmfs_inode rec;
	le64 generation;
	int rc;

	mutex_lock(&vol->lock);
	rc = ino && ino < vol->next_ino ? read_record(vol, ino, &rec) : -EUCLEAN;
	if (!rc && !rec.mode.raw)
		rc = -EUCLEAN;
	if (!rc) {
		generation = rec.generation;
		memset(&rec, 0, sizeof(rec));
		rec.generation = generation;
		le64_put(&rec.parent, vol->free_ino);
		rc = ptab_write(tx, &vol->inodes, &itable_ops, page_of(ino), offset_of(ino), &rec,
				sizeof(rec), NULL);
	}
	if (!rc) {
		vol->free_ino = ino;
		vol->inodes_used--;
		rc = volume_store_row(tx, vol);
	}
	mutex_unlock(&vol->lock);
	return rc;
}
