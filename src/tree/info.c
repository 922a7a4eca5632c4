/* SPDX-License-Identifier: BSD-2-Clause */
/* What a file is made of (fs.h). */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "tree/check_pages.h"
#include "tree/fs_impl.h"

struct walk {
	struct store *st;
	struct fs_file_info *out;
	uint64_t left; /* an image has no more pointers than this; one that was made to goes in
			* circles */
	pfn_t *pfns;
	size_t count, room;
	struct check_memo nodes; /* that can be met again: pages below them */
};

static int add_frame(struct walk *wk, pfn_t pfn)
{
	if (wk->count == wk->room) {
		const size_t room = wk->room ? wk->room * 2 : 256;
		pfn_t *more = reallocarray(wk->pfns, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		wk->pfns = more;
		wk->room = room;
	}
	wk->pfns[wk->count++] = pfn;
	return 0;
}

/* shared: what is above it has more than one owner. */
static int walk_table(struct walk *wk, vpn_t vpn, uint32_t height, bool shared)
{
	const uint64_t pages_before = wk->out->pages, nodes_before = wk->out->table_pages;
	le64 child[PMFS_PTAB_FANOUT];
	struct page_info info;
	uint64_t pages, nodes;
	int rc;

	if (!wk->left--)
		return -EUCLEAN;
	rc = page_info(wk->st, vpn, &info);
	if (rc)
		return rc;
	shared = shared || info.refs > 1;
	/* A node that is in the table twice has the same frames again. */
	if (height && info.refs > 1 && check_memo_get(&wk->nodes, vpn, &pages, &nodes)) {
		wk->out->pages += pages;
		wk->out->shared_pages += pages;
		wk->out->table_pages += nodes;
		return 0;
	}
	if (!height) {
		wk->out->pages++;
		wk->out->shared_pages += shared;
		return info.pfn == PFN_NONE ? 0 : add_frame(wk, info.pfn);
	}
	wk->out->table_pages++;
	rc = page_read(wk->st, vpn, 0, child, sizeof(child));
	for (size_t i = 0; i < PMFS_PTAB_FANOUT && !rc; i++)
		if (le64_get(child[i]))
			rc = walk_table(wk, le64_get(child[i]), height - 1, shared);
	if (!rc && info.refs > 1)
		rc = check_memo_put(&wk->nodes, vpn, wk->out->pages - pages_before,
				    wk->out->table_pages - nodes_before);
	return rc;
}

/* Has the page that an inode's record is in more than one owner?  Then all that it points at has.
 */
static int record_shared(struct inode *in, bool *shared)
{
	struct store *st = in->vol->fs->st;
	const pgno_t pgno = in->ino / PMFS_INODES_PER_PAGE;
	struct page_info info;
	uint32_t height;
	vpn_t vpn;
	le64 child;
	int rc;

	mutex_lock(&in->vol->lock);
	vpn = in->vol->inodes.root;
	height = in->vol->inodes.height;
	rc = page_info(st, vpn, &info);
	while (!rc && info.refs == 1 && height) {
		height--;
		rc = page_read(st, vpn,
			       (pgno >> (PMFS_PTAB_SHIFT * height)) % PMFS_PTAB_FANOUT *
				       sizeof(child),
			       &child, sizeof(child));
		vpn = le64_get(child);
		if (!rc)
			rc = page_info(st, vpn, &info);
	}
	mutex_unlock(&in->vol->lock);
	*shared = !rc && info.refs > 1;
	return rc;
}

static int compare(const void *a, const void *b)
{
	const pfn_t x = *(const pfn_t *)a, y = *(const pfn_t *)b;

	return (x > y) - (x < y);
}

int fs_file_info(struct fs *fs, uint64_t id, struct fs_file_info *out)
{
	struct walk wk = {.st = fs->st,
			  .out = out,
			  .left = PMFS_PTAB_FANOUT * store_pages_bound(fs->st)};
	bool shared = false;
	struct inode *in;
	int rc;

	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	*out = (struct fs_file_info){0};
	rw_rdlock(&in->lock);
	if (!in->mode)
		rc = -ESTALE;
	else if (!S_ISREG(in->mode))
		rc = -EINVAL;
	else if (in->data.root)
		rc = record_shared(in, &shared);
	if (!rc && in->data.root)
		rc = walk_table(&wk, in->data.root, in->data.height, shared);
	out->size = in->size;
	out->is_inline = in->flags & PMFS_INODE_INLINE;
	out->ring_log = in->flags & PMFS_INODE_RINGLOG;
	rw_unlock(&in->lock);
	inode_put(fs, in);
	if (!rc && wk.count) {
		qsort(wk.pfns, wk.count, sizeof(*wk.pfns), compare);
		for (size_t i = 0; i < wk.count; i++)
			out->frames += !i || wk.pfns[i] != wk.pfns[i - 1];
	}
	free(wk.pfns);
	check_memo_clear(&wk.nodes);
	return rc;
}
