/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * file.c - contents of regular files and symlinks.
 *
 *   F1  Bytes behind the size are zeros: those of inl, those of the page that the size is in, and
 *       whole pages behind it (space reserved with FALLOC_FL_KEEP_SIZE).  So a file grows by a
 *       number.
 *   F2  With PMFS_INODE_STALE in the flags F1 does not hold for whole pages behind the size: a
 *       truncation lowers the size and zeroes the rest of its last page in its first transaction,
 *       and gives pages back in that and the next ones.  The flag goes with the last of them;
 *       file_trim() does what a crash left, before anything else happens behind the size.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"

#define PAGE PMFS_PAGE_SIZE
#define STEP_PAGES 256u           /* pages that one transaction writes */
#define SHARE_PAGES 512u          /* pages that one transaction shares */
#define PUNCH_STEP 2048u          /* pages and nodes that one transaction gives back */
#define COPY_BYTES (64 * PAGE)    /* what is copied at a time where sharing is not possible */
#define COPY_MAX (UINT64_C(2) << 30) /* of one fs_copy_range() */
#define COPY_WORK (UINT64_C(256) << 20) /* likewise: bytes copied, or shared page by page */
#define NODE_BYTES ((uint64_t)PTAB_NODE_PAGES * PAGE)
#define NODE_WORK (64u << 10) /* sharing a node is as much work as sharing so many bytes */

static const uint8_t zeros[16 * PAGE];

static pgno_t page_of(uint64_t off)
{
	return off / PAGE;
}

static uint64_t pages_touched(uint64_t off, uint64_t len)
{
	return len ? page_of(off + len - 1) - page_of(off) + 1 : 0;
}

static bool is_inline(const struct inode *in)
{
	return in->flags & PMFS_INODE_INLINE;
}

/* May a file with these contents be, or become, an inline one of this size? */
static bool fits_inline(const struct inode *in, uint64_t size)
{
	return size <= PMFS_INLINE_MAX && (is_inline(in) || (!in->size && !in->data.root));
}

static int check_regular(const struct inode *in)
{
	if (!in->mode)
		return -ESTALE;
	if (S_ISREG(in->mode))
		return 0;
	return S_ISDIR(in->mode) ? -EISDIR : -EINVAL;
}

static void touch(struct inode *in)
{
	now(&in->mtime);
	in->ctime = in->mtime;
}

/* ------------------------------------------------------------------ one change */

/* A transaction that may change the inode and what it points at. */
static int begin(struct fs *fs, struct inode *in, struct txn *tx, enum frame_class cls,
		 uint64_t frames)
{
	int rc;

	rc = txn_begin(fs->st, tx, cls, frames + ITABLE_COST);
	if (rc)
		return rc;
	rc = itable_own(tx, in);
	if (rc)
		txn_end(tx);
	return rc;
}

/* Store what has happened, also when not all of it could. */
static int finish(struct txn *tx, struct inode *in, int64_t delta, int rc)
{
	const int err = itable_store_pages(tx, in, delta);

	txn_end(tx);
	return rc ? rc : err;
}

static uint64_t move_out_cost(const struct inode *in)
{
	return is_inline(in) ? ptab_cost(1) : 0;
}

/* From the inode into a page. */
static int move_out(struct txn *tx, struct inode *in, int64_t *delta)
{
	bool added = false;
	int rc = 0;

	if (!is_inline(in))
		return 0;
	if (in->size)
		rc = ptab_write(tx, &in->data, NULL, 0, 0, in->inl, in->size, &added);
	if (rc)
		return rc;
	*delta += added;
	in->flags &= ~PMFS_INODE_INLINE;
	memset(in->inl, 0, sizeof(in->inl));
	return 0;
}

/* 1: there is a page that has been written; 0: a hole, or a page that is reserved. */
static int is_written(struct store *st, struct inode *in, pgno_t at)
{
	struct read_section rs;
	vpn_t vpn;
	int rc;

	read_enter(st, &rs);
	rc = ptab_get(st, &in->data, at, &vpn);
	if (!rc && vpn) {
		rc = page_is_kept(st, vpn);
		rc = rc < 0 ? rc : !rc;
	}
	read_leave(st, &rs);
	return rc;
}

/* Bytes of zeros where there is a page; what reads as zeros stays as it is. */
static int zero_part(struct txn *tx, struct inode *in, uint64_t off, uint64_t end)
{
	int rc;

	if (off >= end)
		return 0;
	rc = is_written(tx->st, in, page_of(off));
	if (rc <= 0)
		return rc;
	return ptab_write(tx, &in->data, NULL, page_of(off), off % PAGE, zeros, end - off, NULL);
}

/* ------------------------------------------------------------------ reading */

/* in->lock held. Stops at the end of the file. */
static ssize_t read_bytes(struct inode *in, uint64_t off, void *buf, size_t len)
{
	struct store *st = in->vol->fs->st;
	uint8_t *to = buf;
	size_t done = 0;

	if (off >= in->size)
		return 0;
	len = MIN(len, in->size - off);
	if (is_inline(in)) {
		memcpy(to, in->inl + off, len);
		return (ssize_t)len;
	}
	while (done < len) {
		vpn_t run[64];
		const uint64_t n = MIN(pages_touched(off + done, len - done), ARRAY_SIZE(run));
		struct read_section rs;
		int rc;

		read_enter(st, &rs);
		rc = ptab_get_run(st, &in->data, page_of(off + done), n, run);
		read_leave(st, &rs);
		for (uint64_t i = 0; !rc && i < n; i++) {
			const size_t at = (off + done) % PAGE;
			const size_t k = MIN(PAGE - at, len - done);

			if (run[i])
				rc = page_read(st, run[i], at, to + done, k);
			else
				memset(to + done, 0, k);
			done += k;
		}
		if (rc)
			return rc;
	}
	return (ssize_t)len;
}

ssize_t fs_read(struct fs *fs, uint64_t id, uint64_t off, void *buf, size_t len)
{
	struct inode *in;
	ssize_t n;

	n = inode_get(fs, id, &in);
	if (n)
		return n;
	rw_rdlock(&in->lock);
	n = check_regular(in);
	if (!n)
		n = read_bytes(in, off, buf, len);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return n;
}

struct pieces {
	struct iovec *iov;
	int count, max;
	const uint8_t *hole; /* where the store shows a page without a frame */
};

/* false: no room for it. */
static bool add_piece(struct pieces *ps, const uint8_t *at, size_t len)
{
	struct iovec *last = ps->count ? &ps->iov[ps->count - 1] : NULL;

	if (last && at == zeros && last->iov_base == zeros &&
	    len <= sizeof(zeros) - last->iov_len) {
		last->iov_len += len;
		return true;
	}
	if (last && (const uint8_t *)last->iov_base + last->iov_len == at) {
		last->iov_len += len;
		return true;
	}
	if (ps->count == ps->max)
		return false;
	ps->iov[ps->count].iov_base = (void *)(uintptr_t)at;
	ps->iov[ps->count].iov_len = len;
	ps->count++;
	return true;
}

/* Where byte `at` of a page can be read. */
static int locate(struct store *st, struct pieces *ps, vpn_t vpn, size_t at, const uint8_t **out)
{
	const struct iovec *last = ps->count ? &ps->iov[ps->count - 1] : NULL;
	const void *data;
	int rc;

	if (!vpn) {
		*out = zeros;
		return 0;
	}
	rc = page_get(st, vpn, &data);
	if (rc)
		return rc;
	/* The same address twice in a row: a hole more likely than two equal pages. */
	if (!ps->hole && last && last->iov_base == data && page_is_hole(st, vpn) == 1)
		ps->hole = data;
	*out = data == ps->hole ? zeros : (const uint8_t *)data + at;
	return 0;
}

static ssize_t map_bytes(struct inode *in, uint64_t off, size_t len, struct pieces *ps)
{
	struct store *st = in->vol->fs->st;
	size_t done = 0;

	if (off >= in->size || !ps->max)
		return 0;
	len = MIN(len, in->size - off);
	if (is_inline(in)) {
		add_piece(ps, in->inl + off, len);
		return (ssize_t)len;
	}
	while (done < len) {
		vpn_t run[256];
		const uint64_t n = MIN(pages_touched(off + done, len - done), ARRAY_SIZE(run));
		int rc;

		rc = ptab_get_run(st, &in->data, page_of(off + done), n, run);
		for (uint64_t i = 0; !rc && i < n; i++) {
			const size_t at = (off + done) % PAGE;
			const size_t k = MIN(PAGE - at, len - done);
			const uint8_t *p;

			rc = locate(st, ps, run[i], at, &p);
			if (rc)
				break;
			if (!add_piece(ps, p, k))
				return (ssize_t)done;
			done += k;
		}
		/* Fewer bytes would mean the end of the file to a reader. */
		if (rc)
			return rc;
	}
	return (ssize_t)len;
}

ssize_t fs_read_begin(struct fs *fs, uint64_t id, uint64_t off, size_t len, struct fs_read *rd)
{
	struct pieces ps = { .iov = rd->iov, .max = rd->max };
	ssize_t n;

	n = inode_get(fs, id, &rd->in);
	if (n)
		return n;
	rw_rdlock(&rd->in->lock);
	read_enter(fs->st, &rd->rs);
	n = check_regular(rd->in);
	if (!n)
		n = map_bytes(rd->in, off, len, &ps);
	rd->count = ps.count;
	if (n < 0)
		fs_read_end(fs, rd);
	return n;
}

void fs_read_end(struct fs *fs, struct fs_read *rd)
{
	read_leave(fs->st, &rd->rs);
	rw_unlock(&rd->in->lock);
	inode_put(fs, rd->in);
}

int fs_seek(struct fs *fs, uint64_t id, uint64_t off, bool data, uint64_t *out)
{
	struct inode *in;
	pgno_t pgno = 0;
	int rc;

	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	rw_rdlock(&in->lock);
	rc = check_regular(in);
	if (!rc && off >= in->size)
		rc = -ENXIO;
	if (rc)
		goto out;
	if (is_inline(in)) {
		*out = data ? off : in->size;
		goto out;
	}
	rc = ptab_seek(fs->st, &in->data, page_of(off), data, &pgno);
	if (rc)
		goto out;
	if (pgno >= DIV_ROUND_UP(in->size, PAGE)) {
		if (data)
			rc = -ENXIO;
		else
			*out = in->size;
	} else {
		*out = MAX(off, pgno * PAGE);
	}
out:
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

/* ------------------------------------------------------------------ shrinking and growing */

/* Give back pages behind the size until none is left.  Locks: exclusive, no transaction. */
int file_trim(struct fs *fs, struct inode *in)
{
	struct txn tx;
	uint64_t freed;
	int rc;

	while (in->flags & PMFS_INODE_STALE) {
		rc = begin(fs, in, &tx, FRAME_FREEING, PTAB_PUNCH_COST);
		if (rc)
			return rc;
		rc = ptab_punch(&tx, &in->data, NULL, DIV_ROUND_UP(in->size, PAGE), PGNO_END,
				PUNCH_STEP, &freed);
		if (!rc)
			in->flags &= ~PMFS_INODE_STALE;
		rc = finish(&tx, in, -(int64_t)freed, MIN(rc, 0));
		if (rc)
			return rc;
	}
	return 0;
}

static int shrink(struct fs *fs, struct inode *in, uint64_t size)
{
	uint64_t freed = 0;
	struct txn tx;
	int rc;

	rc = begin(fs, in, &tx, FRAME_FREEING, PTAB_PUNCH_COST + ptab_cost(1));
	if (rc)
		return rc;
	if (is_inline(in)) {
		memset(in->inl + size, 0, in->size - size);
	} else {
		rc = zero_part(&tx, in, size, ALIGN_UP(size, PAGE));
		if (rc)
			return finish(&tx, in, 0, rc);
		rc = ptab_punch(&tx, &in->data, NULL, DIV_ROUND_UP(size, PAGE), PGNO_END,
				PUNCH_STEP, &freed);
		if (rc)
			in->flags |= PMFS_INODE_STALE;
		else
			in->flags &= ~PMFS_INODE_STALE;
	}
	in->size = size;
	touch(in);
	rc = finish(&tx, in, -(int64_t)freed, MIN(rc, 0));
	/* The file has its size; F2 keeps what could not be given back now. */
	if (!rc)
		(void)file_trim(fs, in);
	return rc;
}

static int grow(struct fs *fs, struct inode *in, uint64_t size)
{
	int64_t delta = 0;
	struct txn tx;
	int rc;

	if (size > in->size) {
		rc = file_trim(fs, in);
		if (rc)
			return rc;
	}
	rc = begin(fs, in, &tx, FRAME_NORMAL, move_out_cost(in));
	if (rc)
		return rc;
	if (size && fits_inline(in, size))
		in->flags |= PMFS_INODE_INLINE;
	else if (size > PMFS_INLINE_MAX)
		rc = move_out(&tx, in, &delta);
	if (!rc) {
		in->size = size;
		touch(in);
	}
	return finish(&tx, in, delta, rc);
}

int file_set_size(struct fs *fs, struct inode *in, uint64_t size)
{
	int rc;

	rw_assert_wrheld(&in->lock);
	if (size > PMFS_MAX_FILE_SIZE)
		return -EFBIG;
	rc = ringlog_room(in, size);
	if (rc)
		return rc;
	return size < in->size ? shrink(fs, in, size) : grow(fs, in, size);
}

/* ------------------------------------------------------------------ writing */

/* buf NULL: zeros.  *done and *delta are right also after an error. */
static int put_bytes(struct txn *tx, struct inode *in, uint64_t off, const uint8_t *buf, size_t len,
		     size_t *done, int64_t *delta)
{
	while (*done < len) {
		const uint64_t at = off + *done;
		const uint8_t *from = buf ? buf + *done : zeros;
		size_t k = len - *done;
		int rc;

		if (at % PAGE || k < PAGE) {
			bool added = false;

			k = MIN(k, PAGE - at % PAGE);
			rc = ptab_write(tx, &in->data, NULL, page_of(at), at % PAGE, from, k,
					&added);
			*delta += added;
			if (!rc)
				*done += k;
		} else {
			uint64_t written, added;

			if (!buf)
				k = MIN(k, sizeof(zeros));
			rc = ptab_write_pages(tx, &in->data, page_of(at), k / PAGE, from, &written,
					      &added);
			*delta += (int64_t)added;
			*done += written * PAGE;
		}
		if (rc)
			return rc;
	}
	return 0;
}

static void put_inline(struct inode *in, uint64_t off, const uint8_t *buf, size_t len)
{
	in->flags |= PMFS_INODE_INLINE;
	if (buf)
		memcpy(in->inl + off, buf, len);
	else
		memset(in->inl + off, 0, len);
}

/*
 * Write at most STEP_PAGES pages (buf NULL: zeros) in one transaction.  Returns the bytes written.
 * cls: FRAME_KEPT for a page that was reserved, or another that has_room() names.
 * Locks: exclusive, no transaction; file_trim() is done.
 */
static ssize_t write_step(struct fs *fs, struct inode *in, uint64_t off, const uint8_t *buf,
			  size_t len, unsigned flags, enum frame_class cls)
{
	const bool into_inode = fits_inline(in, off + len);
	const bool kill = flags & FS_WRITE_KILL_PRIV;
	uint64_t cost = into_inode ? 0 : ptab_cost(pages_touched(off, len)) + move_out_cost(in);
	int64_t delta = 0;
	size_t done = 0;
	struct txn tx;
	int rc;

	if (kill)
		cost += inode_kill_cost(in);
	rc = begin(fs, in, &tx, cls, cost);
	if (rc)
		return rc;
	if (kill)
		rc = inode_kill_priv(&tx, in);
	if (!rc && into_inode) {
		put_inline(in, off, buf, len);
		done = len;
	} else if (!rc) {
		rc = move_out(&tx, in, &delta);
		if (!rc)
			rc = put_bytes(&tx, in, off, buf, len, &done, &delta);
	}
	if (done) {
		in->size = MAX(in->size, off + done);
		touch(in);
	}
	rc = finish(&tx, in, delta, rc);
	return done ? (ssize_t)done : rc;
}

/*
 * What is written at `off` of a full image has its room already: a page that was reserved, one that
 * is only this file's (what it gives up comes back with the commit), the inode.  FRAME_NORMAL: no.
 */
static enum frame_class has_room(struct fs *fs, struct inode *in, uint64_t off, size_t len)
{
	struct read_section rs;
	struct page_info info;
	vpn_t vpn = VPN_NONE;
	int rc;

	if (is_inline(in))
		return fits_inline(in, off + len) ? FRAME_UPKEEP : FRAME_NORMAL;
	read_enter(fs->st, &rs);
	rc = ptab_get(fs->st, &in->data, page_of(off), &vpn);
	read_leave(fs->st, &rs);
	if (rc || !vpn)
		return FRAME_NORMAL;
	if (page_is_kept(fs->st, vpn) == 1)
		return FRAME_KEPT;
	rc = page_info(fs->st, vpn, &info);
	if (rc || info.refs != 1 || info.pfn == PFN_NONE || page_frame_shared(fs->st, vpn))
		return FRAME_NORMAL;
	return FRAME_UPKEEP;
}

/* In as many transactions as it takes; when space is short in smaller ones. */
ssize_t file_write(struct fs *fs, struct inode *in, uint64_t off, const uint8_t *buf,
			    size_t len, unsigned flags)
{
	enum frame_class cls = FRAME_NORMAL;
	uint64_t step = STEP_PAGES;
	size_t done = 0;
	ssize_t n = 0;

	if (off + len > in->size) {
		n = file_trim(fs, in);
		if (n)
			return n;
	}
	while (done < len) {
		const uint64_t at = off + done;
		const uint64_t end = ALIGN_DOWN(at, PAGE) + step * PAGE;
		const size_t bytes = MIN(len - done, end - at);

		if (cls != FRAME_NORMAL)
			cls = has_room(fs, in, at, bytes);
		n = write_step(fs, in, at, buf ? buf + done : NULL, bytes, flags, cls);
		if (n == -ENOSPC && cls == FRAME_NORMAL) {
			/* Page by page from here on, since each may have its room or not. */
			cls = has_room(fs, in, at, MIN(bytes, PAGE - at % PAGE));
			if (cls != FRAME_NORMAL)
				step = 1;
			else if (step > 1)
				step /= 2;
			else
				break;
			continue;
		}
		if (n < 0)
			break;
		done += (size_t)n;
		flags &= ~FS_WRITE_KILL_PRIV;
	}
	return done ? (ssize_t)done : n;
}

ssize_t fs_write_at(struct fs *fs, uint64_t id, uint64_t off, const void *buf, size_t len,
		    unsigned flags, struct fs_written *how)
{
	struct inode *in;
	ssize_t n;

	if (flags & ~(FS_WRITE_KILL_PRIV | FS_WRITE_CACHED))
		return -EINVAL;
	how->at = off;
	how->cut = false;
	n = inode_get_writable(fs, id, &in);
	if (n)
		return n;
	rw_wrlock(&in->lock);
	n = check_regular(in);
	if (!n)
		n = in->settling && (flags & FS_WRITE_CACHED)
			    ? 0
			    : inode_changeable(in, off >= in->size || (flags & FS_WRITE_CACHED));
	if (!n && len && off >= PMFS_MAX_FILE_SIZE)
		n = -EFBIG;
	if (!n && len)
		len = MIN(len, PMFS_MAX_FILE_SIZE - off);
	if (!n && len && (in->flags & PMFS_INODE_RINGLOG))
		n = ringlog_write(fs, in, off, buf, len, flags, how);
	else if (!n && len)
		n = file_write(fs, in, off, buf, len, flags & FS_WRITE_KILL_PRIV);
	in->moved = in->moved || how->at != off; /* or by a cut */
	if (how->moved && in->moved)
		how->moved(how->arg, how);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return n;
}

ssize_t fs_write(struct fs *fs, uint64_t id, uint64_t off, const void *buf, size_t len,
		 unsigned flags)
{
	struct fs_written how = {0};

	return fs_write_at(fs, id, off, buf, len, flags, &how);
}

int file_set_contents(struct txn *tx, struct inode *in, const void *buf, size_t len)
{
	int rc = 0;

	if (len > PAGE)
		return -ENAMETOOLONG;
	if (len <= PMFS_INLINE_MAX)
		put_inline(in, 0, buf, len);
	else
		rc = ptab_write(tx, &in->data, NULL, 0, 0, buf, len, NULL);
	if (!rc)
		in->size = len;
	return rc;
}

ssize_t file_get_contents(struct inode *in, void *buf, size_t size)
{
	return read_bytes(in, 0, buf, size);
}

/* ------------------------------------------------------------------ fallocate */

/* The first hole in [*from, to), and its end; 1: there is none. */
static int next_hole(struct fs *fs, struct inode *in, pgno_t to, pgno_t *from, pgno_t *end)
{
	int rc;

	rc = ptab_seek(fs->st, &in->data, *from, false, from);
	if (rc)
		return rc;
	if (*from >= to)
		return 1;
	rc = ptab_seek(fs->st, &in->data, *from, true, end);
	*end = MIN(*end, to);
	return rc;
}

/* Pages that lead to n reserved ones. */
static uint64_t paths_to(uint64_t n)
{
	return ptab_cost(n) - n + ITABLE_COST;
}

/* Can the holes in [first, end) be filled?  Asks the store as if for one transaction. */
static int space_for(struct fs *fs, struct inode *in, pgno_t first, pgno_t end)
{
	uint64_t holes = 0;
	pgno_t stop;
	struct txn tx;
	int rc;

	while (!(rc = next_hole(fs, in, end, &first, &stop))) {
		holes += stop - first;
		first = stop;
	}
	if (rc < 0 || !holes)
		return MIN(rc, 0);
	rc = txn_begin(fs->st, &tx, FRAME_NORMAL, ptab_cost(holes) + paths_to(holes) + ITABLE_COST);
	if (!rc)
		txn_end(&tx);
	return rc;
}

/* All or -ENOSPC: n bytes of zeros at off. */
static int write_zeros(struct fs *fs, struct inode *in, uint64_t off, uint64_t len)
{
	while (len) {
		const ssize_t n = file_write(fs, in, off, NULL,
					       MIN(len, (uint64_t)STEP_PAGES * PAGE), 0);

		if (n < 0)
			return (int)n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* So that page 0 is no hole to be filled. */
static int leave_inode(struct fs *fs, struct inode *in)
{
	int64_t delta = 0;
	struct txn tx;
	int rc;

	if (!is_inline(in))
		return 0;
	rc = begin(fs, in, &tx, FRAME_NORMAL, move_out_cost(in));
	if (rc)
		return rc;
	rc = move_out(&tx, in, &delta);
	return finish(&tx, in, delta, rc);
}

/* Reserve up to n pages of a hole; returns how many. */
static ssize_t keep_step(struct fs *fs, struct inode *in, pgno_t at, uint64_t n)
{
	vpn_t vpns[SHARE_PAGES];
	uint64_t made = 0, set = 0, had;
	struct txn tx;
	int rc, step = 0;

	n = MIN(n, SHARE_PAGES);
	rc = begin(fs, in, &tx, FRAME_NORMAL, ptab_cost(n) + paths_to(n));
	if (rc)
		return rc;
	while (!rc && made < n) {
		rc = page_new_kept(&tx, &vpns[made]);
		made += !rc;
	}
	while (!rc && set < made) {
		step = ptab_set_run(&tx, &in->data, at + set, made - set, vpns + set, &had);
		if (step < 0)
			rc = step;
		else
			set += (uint64_t)step;
	}
	for (uint64_t i = set; i < made; i++)
		page_unref(&tx, vpns[i], NULL);
	if (set) {
		page_keep_paths(&tx, paths_to(set));
		touch(in);
	}
	rc = finish(&tx, in, (int64_t)set, rc);
	return rc ? rc : (ssize_t)set;
}

static int reserve(struct fs *fs, struct inode *in, uint64_t off, uint64_t len, bool keep)
{
	const uint64_t end = off + len;
	const pgno_t last = DIV_ROUND_UP(end, PAGE);
	pgno_t at = page_of(off), stop;
	int rc;

	if (fits_inline(in, keep ? in->size : end) && end <= PMFS_INLINE_MAX)
		return keep || end <= in->size ? 0 : grow(fs, in, end);
	rc = file_trim(fs, in);
	if (!rc)
		rc = leave_inode(fs, in);
	if (!rc)
		rc = space_for(fs, in, at, last);
	if (rc)
		return rc;
	while (!(rc = next_hole(fs, in, last, &at, &stop))) {
		while (at < stop) {
			const ssize_t n = keep_step(fs, in, at, stop - at);

			if (n < 0)
				return (int)n;
			at += (uint64_t)n;
		}
	}
	if (rc < 0)
		return rc;
	return keep || end <= in->size ? 0 : grow(fs, in, end);
}

static int punch_inline(struct fs *fs, struct inode *in, uint64_t off, uint64_t end)
{
	end = MIN(end, in->size);
	return off < end ? write_zeros(fs, in, off, end - off) : 0;
}

static int punch_hole(struct fs *fs, struct inode *in, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	uint64_t freed;
	struct txn tx;
	int rc, more;

	if (is_inline(in))
		return punch_inline(fs, in, off, end);
	/* F1: the rest of that page is zeros already. */
	if (end >= in->size)
		end = ALIGN_UP(end, PAGE);
	do {
		rc = begin(fs, in, &tx, FRAME_FREEING, 2 * ptab_cost(1) + PTAB_PUNCH_COST);
		if (rc)
			return rc;
		freed = 0;
		more = 0;
		rc = zero_part(&tx, in, off, MIN(end, ALIGN_UP(off, PAGE)));
		if (!rc && page_of(end) >= DIV_ROUND_UP(off, PAGE))
			rc = zero_part(&tx, in, ALIGN_DOWN(end, PAGE), end);
		if (!rc)
			more = ptab_punch(&tx, &in->data, NULL, DIV_ROUND_UP(off, PAGE),
					  page_of(end), PUNCH_STEP, &freed);
		off = ALIGN_UP(off, PAGE);
		end = ALIGN_DOWN(end, PAGE);
		touch(in);
		rc = finish(&tx, in, -(int64_t)freed, rc ? rc : MIN(more, 0));
	} while (!rc && more);
	return rc;
}

/* Pages in [first, end) that have been written become holes; those that are reserved stay. */
static int drop_written(struct fs *fs, struct inode *in, pgno_t first, pgno_t end)
{
	pgno_t at = first, stop;
	int rc = 0;

	while (!rc && at < end) {
		rc = ptab_seek(fs->st, &in->data, at, true, &at);
		if (rc || at >= end)
			break;
		for (stop = at; stop < end; stop++) {
			rc = is_written(fs->st, in, stop);
			if (rc <= 0)
				break;
		}
		if (rc >= 0)
			rc = stop > at ? punch_hole(fs, in, at * PAGE, (stop - at) * PAGE) : 0;
		/* That one is a hole or reserved. */
		at = stop + 1;
	}
	return rc;
}

/* As on ext4: the range is reserved, and nothing is written for it. */
static int zero_range(struct fs *fs, struct inode *in, uint64_t off, uint64_t len, bool keep)
{
	const uint64_t end = off + len, first = MIN(end, ALIGN_UP(off, PAGE));
	const uint64_t last = ALIGN_DOWN(end, PAGE);
	int rc;

	if (is_inline(in) && end <= PMFS_INLINE_MAX) {
		if (keep)
			len = off < in->size ? MIN(len, in->size - off) : 0;
		return write_zeros(fs, in, off, len);
	}
	rc = file_trim(fs, in);
	if (!rc)
		rc = leave_inode(fs, in);
	if (!rc)
		rc = space_for(fs, in, page_of(off), DIV_ROUND_UP(end, PAGE));
	if (!rc && off < first)
		rc = punch_hole(fs, in, off, first - off);
	if (!rc && first < last)
		rc = drop_written(fs, in, page_of(first), page_of(last));
	if (!rc && last >= first && last < end)
		rc = punch_hole(fs, in, last, end - last);
	return rc ? rc : reserve(fs, in, off, len, keep);
}

static int fallocate_locked(struct fs *fs, struct inode *in, int mode, uint64_t off, uint64_t len)
{
	const bool keep = mode & FALLOC_FL_KEEP_SIZE;

	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		return reserve(fs, in, off, len, keep);
	case FALLOC_FL_PUNCH_HOLE:
		return keep ? punch_hole(fs, in, off, len) : -EOPNOTSUPP;
	case FALLOC_FL_ZERO_RANGE:
		return zero_range(fs, in, off, len, keep);
	default:
		return -EOPNOTSUPP;
	}
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Times of now and nothing else. */
static int stamp(struct fs *fs, struct inode *in)
{
	struct txn tx;
	int rc;

	rc = begin(fs, in, &tx, FRAME_FREEING, 0);
	if (rc)
		return rc;
	touch(in);
	return finish(&tx, in, 0, 0);
}

int fs_fallocate(struct fs *fs, uint64_t id, int mode, uint64_t off, uint64_t len)
{
	struct timespec before;
	struct inode *in;
	int rc;

	if (!len)
		return -EINVAL;
	if (!range_fits(off, len, PMFS_MAX_FILE_SIZE))
		return -EFBIG;
	rc = inode_get_writable(fs, id, &in);
	if (rc)
		return rc;
	rw_wrlock(&in->lock);
	before = in->mtime;
	rc = check_regular(in);
	if (!rc && !(mode & FALLOC_FL_PUNCH_HOLE))
		rc = ringlog_room(in, off + len);
	if (!rc)
		rc = inode_changeable(in, !(mode & ~FALLOC_FL_KEEP_SIZE));
	if (!rc)
		rc = fallocate_locked(fs, in, mode, off, len);
	/* A change to the file for other filesystems, also where all was as it should be. */
	if (!rc && same_time(&before, &in->mtime))
		rc = stamp(fs, in);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

/* ------------------------------------------------------------------ sharing and copying */

struct copy {
	struct fs *fs;
	struct inode *from, *to;
	uint8_t *buf;  /* COPY_BYTES, made when it is needed */
	uint64_t work; /* done so far: COPY_WORK */
};

static ssize_t copy_bytes(struct copy *c, uint64_t from, uint64_t to, size_t len)
{
	ssize_t n;

	if (!c->buf)
		c->buf = malloc(COPY_BYTES);
	if (!c->buf)
		return -ENOMEM;
	n = read_bytes(c->from, from, c->buf, MIN(len, COPY_BYTES));
	if (n <= 0)
		return n;
	c->work += (uint64_t)n;
	return file_write(c->fs, c->to, to, c->buf, (size_t)n, 0);
}

/* Let the target point at the first of these pages, as many as can be had.  tx: open. */
static int share_pages(struct txn *tx, struct inode *to, pgno_t at, const vpn_t *vpns, uint64_t n,
		       uint64_t *done, int64_t *delta)
{
	uint64_t reffed = 0, had;
	int rc = 0, set;

	*done = 0;
	while (reffed < n && !rc) {
		rc = page_ref(tx, vpns[reffed]);
		if (!rc)
			reffed++;
	}
	while (*done < reffed) {
		set = ptab_set_run(tx, &to->data, at + *done, reffed - *done, vpns + *done, &had);
		if (set < 0) {
			rc = set;
			break;
		}
		*delta += set - (int64_t)had;
		*done += (uint64_t)set;
	}
	for (uint64_t i = *done; i < reffed; i++)
		page_unref(tx, vpns[i], NULL);
	return rc;
}

/*
 * Whole pages, up to n: pages are shared, holes punched.  bytes: how far the contents go, less
 * than n pages only at the end of both files.  Returns bytes.
 */
static ssize_t share_step(struct copy *c, uint64_t from, uint64_t to, uint64_t n, uint64_t bytes)
{
	struct store *st = c->fs->st;
	const pgno_t at = page_of(to);
	uint64_t run = 1, done = 0, freed = 0, shared;
	int64_t delta = 0;
	vpn_t vpns[SHARE_PAGES];
	struct read_section rs;
	struct txn tx;
	int rc;

	n = MIN(n, SHARE_PAGES);
	read_enter(st, &rs);
	rc = ptab_get_run(st, &c->from->data, page_of(from), n, vpns);
	read_leave(st, &rs);
	/* What is reserved is so for one file: the other one gets a hole. */
	for (uint64_t i = 0; i < n && !rc; i++) {
		const int kept = vpns[i] ? page_is_kept(st, vpns[i]) : 0;

		if (kept < 0)
			rc = kept;
		else if (kept)
			vpns[i] = VPN_NONE;
	}
	if (rc)
		return rc;
	while (run < n && !vpns[run] == !vpns[0])
		run++;
	rc = begin(c->fs, c->to, &tx, FRAME_NORMAL,
		   ptab_cost(run) - run + PTAB_PUNCH_COST + move_out_cost(c->to));
	if (rc)
		return rc;
	rc = move_out(&tx, c->to, &delta);
	if (!rc && vpns[0]) {
		rc = share_pages(&tx, c->to, at, vpns, run, &done, &delta);
	} else if (!rc) {
		rc = ptab_punch(&tx, &c->to->data, NULL, at, at + run, UINT64_MAX, &freed);
		delta -= (int64_t)freed;
		if (!rc)
			done = run;
	}
	shared = MIN(bytes, done * PAGE);
	if (shared) {
		c->to->size = MAX(c->to->size, to + shared);
		touch(c->to);
	}
	rc = finish(&tx, c->to, delta, rc);
	c->work += shared;
	if (shared)
		return (ssize_t)shared;
	/* The page has as many pointers as there can be. */
	return rc == -EMLINK ? copy_bytes(c, from, to, MIN(bytes, PAGE)) : rc;
}

/*
 * Whole nodes of the page table, up to n.  Returns bytes; 0: there is none, or it can't be shared.
 * What is there now goes in the same transaction, so it is one node's pages then.
 */
static ssize_t share_nodes(struct copy *c, uint64_t from, uint64_t to, uint64_t n)
{
	const pgno_t at = page_of(to);
	uint64_t freed = 0, pages = 0;
	int64_t delta = 0;
	struct txn tx;
	int rc, done = 0;

	rc = ptab_has_node(c->fs->st, &c->from->data, page_of(from));
	if (rc <= 0)
		return rc;
	n = to < c->to->size ? 1 : n;
	rc = begin(c->fs, c->to, &tx, FRAME_NORMAL,
		   ptab_cost(1) + PTAB_PUNCH_COST + move_out_cost(c->to));
	if (rc)
		return rc;
	rc = move_out(&tx, c->to, &delta);
	if (!rc)
		rc = ptab_punch(&tx, &c->to->data, NULL, at, at + n * PTAB_NODE_PAGES, UINT64_MAX,
				&freed);
	delta -= (int64_t)freed;
	if (!rc)
		done = ptab_share(&tx, &c->from->data, page_of(from), &c->to->data, at, n, &pages);
	if (done > 0) {
		delta += (int64_t)pages;
		c->to->size = MAX(c->to->size, to + (uint64_t)done * NODE_BYTES);
		touch(c->to);
		c->work += (uint64_t)done * NODE_WORK;
	}
	rc = finish(&tx, c->to, delta, rc);
	if (!rc && done < 0 && done != -EMLINK)
		rc = done;
	return rc ? rc : (ssize_t)((uint64_t)MAX(done, 0) * NODE_BYTES);
}

/* A part of the range in one step.  Returns bytes, not 0. */
static ssize_t copy_step(struct copy *c, uint64_t from, uint64_t to, uint64_t len)
{
	const bool last = from + len == c->from->size && to + len >= c->to->size;
	const uint64_t n = last ? DIV_ROUND_UP(len, PAGE) : len / PAGE;

	if (is_inline(c->from) || from % PAGE != to % PAGE)
		return copy_bytes(c, from, to, len);
	if (from % PAGE || !n)
		return copy_bytes(c, from, to, MIN(len, PAGE - from % PAGE));
	if (from % NODE_BYTES != to % NODE_BYTES)
		return share_step(c, from, to, n, len);
	/* What is reserved is told page by page; nothing of these files can become so now. */
	if (!(from % NODE_BYTES) && len >= NODE_BYTES && !page_any_kept(c->fs->st)) {
		const ssize_t done = share_nodes(c, from, to, len / NODE_BYTES);

		if (done)
			return done;
	}
	/* Up to where the next node begins. */
	len = MIN(len, NODE_BYTES - from % NODE_BYTES);
	return share_step(c, from, to, MIN(n, DIV_ROUND_UP(len, PAGE)), len);
}

static ssize_t copy_locked(struct copy *c, uint64_t from, uint64_t to, uint64_t len)
{
	uint64_t done = 0;
	ssize_t n;

	n = check_regular(c->from);
	if (!n)
		n = check_regular(c->to);
	if (!n)
		n = inode_changeable(c->to, to >= c->to->size);
	if (n)
		return n;
	if (from >= c->from->size)
		return 0;
	len = MIN(MIN(len, COPY_MAX), c->from->size - from);
	if (!range_fits(to, len, PMFS_MAX_FILE_SIZE))
		return -EFBIG;
	n = ringlog_room(c->to, to + len);
	if (n)
		return n;
	if (c->from == c->to && from < to + len && to < from + len)
		return -EINVAL;
	if (to + len > c->to->size) {
		n = file_trim(c->fs, c->to);
		if (n)
			return n;
	}
	while (done < len && c->work < COPY_WORK) {
		n = copy_step(c, from + done, to + done, len - done);
		if (n < 0)
			return done ? (ssize_t)done : n;
		done += (uint64_t)n;
	}
	return (ssize_t)done;
}

ssize_t fs_copy_range(struct fs *fs, uint64_t from, uint64_t from_off, uint64_t to, uint64_t to_off,
		      uint64_t len)
{
	struct copy c = { .fs = fs };
	ssize_t n;

	n = inode_get(fs, from, &c.from);
	if (n)
		return n;
	n = inode_get_writable(fs, to, &c.to);
	if (n) {
		inode_put(fs, c.from);
		return n;
	}
	inode_lock2(c.from, c.to, true);
	n = copy_locked(&c, from_off, to_off, len);
	inode_unlock2(c.from, c.to);
	inode_put(fs, c.to);
	inode_put(fs, c.from);
	free(c.buf);
	return n;
}

/* ------------------------------------------------------------------ durability */

int fs_fsync(struct fs *fs, uint64_t id, bool data_only)
{
	struct inode *in;
	int rc;

	/* A commit makes everything durable, names included; there is no cheaper one for data. */
	(void)data_only;
	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	inode_put(fs, in);
	return fs->read_only ? 0 : commit_fsync(fs->st);
}
