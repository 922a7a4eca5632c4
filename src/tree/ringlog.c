/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ring logs: files with the attribute user.pmfs.ringlog, a size that they never pass.
 *
 * A write that would pass it first cuts a quarter of that size (or what is needed) off the
 * beginning: the pointers to the pages that stay move down into a new page table, in one
 * transaction with the new size and the attribute user.pmfs.ringlog.cut, which counts all bytes
 * that were ever cut off.  So neither a reader of the file, nor a snapshot, nor a crash finds a
 * half of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/units.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/xattr.h"

#define PAGE	   PMFS_PAGE_SIZE
#define MOVE_PAGES 512u
/* What a removal may take on a full image (frame.h). */
#define FREEING_COST 96u
#define NUMBER_MAX   31u /* digits and letters of a size */

int ringlog_parse(const void *value, size_t len, uint64_t *limit)
{
	char text[NUMBER_MAX + 1];
	uint64_t n;

	/* What programs set may come with its zero. */
	if (len && !((const char *)value)[len - 1])
		len--;
	if (!len || len > NUMBER_MAX)
		return -EINVAL;
	memcpy(text, value, len);
	text[len] = '\0';
	if (strlen(text) != len || units_parse_size(text, &n) || n < FS_RINGLOG_MIN ||
	    n > FS_RINGLOG_MAX)
		return -EINVAL;
	*limit = n;
	return 0;
}

static int limit_of(struct inode *in, uint64_t *limit)
{
	char value[NUMBER_MAX + 1];
	const ssize_t n = xattr_get(in, FS_RINGLOG, value, sizeof(value));

	if (n < 0)
		return n == -ENODATA || n == -ERANGE ? -EUCLEAN : (int)n;
	return ringlog_parse(value, (size_t)n, limit) ? -EUCLEAN : 0;
}

int ringlog_room(struct inode *in, uint64_t end)
{
	uint64_t limit;
	int rc;

	if (!(in->flags & PMFS_INODE_RINGLOG))
		return 0;
	rc = limit_of(in, &limit);
	return rc ? rc : end > limit ? -EFBIG : 0;
}

/* How much was ever cut off, and bytes more, as a text: its length. */
static int count_text(struct inode *in, uint64_t bytes, char text[NUMBER_MAX + 1])
{
	char count[NUMBER_MAX + 1] = "";
	const ssize_t n = xattr_get(in, FS_RINGLOG_CUT, count, sizeof(count) - 1);

	if (n < 0 && n != -ENODATA)
		return (int)n;
	return snprintf(text, NUMBER_MAX + 1, "%llu",
			strtoull(count, NULL, 10) + (unsigned long long)bytes);
}

/* Count what is cut off. */
static int add_to_count(struct txn *tx, struct inode *in, uint64_t bytes)
{
	char text[NUMBER_MAX + 1];
	const int len = count_text(in, bytes, text);

	return len < 0 ? len : xattr_set(tx, in, FS_RINGLOG_CUT, text, (size_t)len, 0);
}

ssize_t ringlog_end(struct inode *in, void *buf, size_t size)
{
	char text[NUMBER_MAX + 1];
	int len;

	if (!(in->flags & PMFS_INODE_RINGLOG))
		return -ENODATA;
	len = count_text(in, in->size, text);
	if (len > 0 && size && (size_t)len > size)
		return -ERANGE;
	if (len > 0 && size)
		memcpy(buf, text, (size_t)len);
	return len;
}

/* Let the new table point at n pages that the old one has from `from` on. */
static int move_pages(struct txn *tx, const struct ptab *old, struct ptab *fresh, pgno_t from,
		      pgno_t to, uint64_t n, uint64_t *moved)
{
	vpn_t vpns[MOVE_PAGES];
	struct read_section rs;
	int rc, set = 0;

	read_enter(tx->st, &rs);
	rc = ptab_get_run(tx->st, old, from, n, vpns);
	read_leave(tx->st, &rs);
	for (uint64_t i = 0, run, reffed; !rc && i < n; i += run) {
		for (run = 1; i + run < n && !vpns[i + run] == !vpns[i]; run++)
			;
		if (!vpns[i])
			continue;
		for (reffed = 0; !rc && reffed < run; reffed++)
			rc = page_ref(tx, vpns[i + reffed]);
		if (rc)
			reffed--;
		for (uint64_t done = 0, had; done < reffed; done += (uint64_t)set) {
			if (!rc) {
				set = ptab_set_run(tx, fresh, to + i + done, reffed - done,
						   vpns + i + done, &had);
				if (set < 0)
					rc = set;
				else
					*moved += (uint64_t)set;
			}
			if (rc) {
				page_unref(tx, vpns[i + done], NULL);
				set = 1;
			}
		}
	}
	return rc;
}

/*
 * Cut so many bytes off the beginning, whole pages or everything, and count `gone`.  Locks:
 * exclusive, no transaction.
 */
static int cut(struct fs *fs, struct inode *in, uint64_t bytes, uint64_t gone)
{
	const pgno_t first = bytes / PAGE, last = DIV_ROUND_UP(in->size, PAGE);
	const uint64_t stay = bytes < in->size ? last - first : 0;
	const uint64_t cost = ptab_cost(stay) - stay + PTAB_PUNCH_COST + XATTR_COST + ITABLE_COST;
	struct ptab fresh = {0}, old;
	uint64_t moved = 0;
	struct txn tx;
	int rc, rc2;

	in->moved = true;
	rc = file_trim(fs, in);
	if (!rc)
		rc = txn_begin(fs->st, &tx, cost <= FREEING_COST ? FRAME_FREEING : FRAME_NORMAL,
			       cost);
	if (rc)
		return rc;
	rc = itable_own(&tx, in);
	if (!rc)
		rc = add_to_count(&tx, in, gone);
	for (uint64_t i = 0; !rc && i < stay; i += MOVE_PAGES)
		rc = move_pages(&tx, &in->data, &fresh, first + i, i,
				MIN(stay - i, (uint64_t)MOVE_PAGES), &moved);
	if (rc) {
		ptab_punch(&tx, &fresh, NULL, 0, PGNO_END, UINT64_MAX, NULL);
		moved = in->pages;
	} else {
		old = in->data;
		in->data = fresh;
		in->size = stay ? in->size - bytes : 0;
		in->flags &= ~PMFS_INODE_INLINE;
		memset(in->inl, 0, sizeof(in->inl));
		now(&in->mtime);
		in->ctime = in->mtime;
		rc = ptab_punch(&tx, &old, NULL, 0, PGNO_END, UINT64_MAX, NULL);
	}
	rc2 = itable_store_pages(&tx, in, (int64_t)moved - (int64_t)in->pages);
	txn_end(&tx);
	return rc ? rc : rc2;
}

int ringlog_fit(struct fs *fs, struct inode *in, uint64_t limit)
{
	const uint64_t bytes = in->size > limit ? ALIGN_UP(in->size - limit, (uint64_t)PAGE) : 0;

	return bytes ? cut(fs, in, bytes, bytes) : 0;
}

ssize_t ringlog_write(struct fs *fs, struct inode *in, uint64_t off, const uint8_t *buf, size_t len,
		      unsigned flags, struct fs_written *out)
{
	const bool page = flags & FS_WRITE_CACHED;
	const size_t whole = len;
	uint64_t limit, bytes;
	ssize_t n;
	int rc;

	rc = limit_of(in, &limit);
	if (rc)
		return rc;
	flags &= FS_WRITE_KILL_PRIV;
	if (page) {
		/* A mapping's page: by the time it comes, its place may have been cut off. */
		if (off >= in->size)
			return (ssize_t)len;
		len = MIN(len, in->size - off);
	} else if (out->append || off > in->size) {
		off = in->size;
	}
	if (len > limit / 2) {
		/* Too much to cut for: it is all that stays. */
		if (off + len > limit) {
			const size_t skip = len > limit ? len - limit : 0;

			rc = cut(fs, in, in->size, in->size + skip);
			if (rc)
				return rc;
			out->cut = true;
			buf += skip;
			len -= skip;
			off = 0;
		}
	} else if (off + len > limit) {
		bytes = MAX(ALIGN_UP(off + len - limit, (uint64_t)PAGE),
			    ALIGN_UP(limit / 4, (uint64_t)PAGE));
		rc = cut(fs, in, bytes, bytes);
		if (rc)
			return rc;
		out->cut = true;
		off -= bytes;
	}
	out->at = off;
	n = file_write(fs, in, off, buf, len, flags);
	return n == (ssize_t)len ? (ssize_t)whole : n;
}
