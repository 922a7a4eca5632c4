/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/fsmodel.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/bits.h"
#include "tree/icache.h"
#include "tree/reclaim.h"

#define NAMES	  24u
#define NONE	  UINT32_MAX
#define PAGE	  PMFS_PAGE_SIZE
#define XATTR_MAX 5000u

/* Where the parts of a file are, and how long they get.  The second needs a table of three levels.
 */
static const uint64_t part_at[MODEL_PARTS] = {0, UINT64_C(5) << 30};
static const uint64_t part_max[MODEL_PARTS] = {40 * PAGE, 6 * PAGE};

static const char *const xattr_name[MODEL_XATTRS] = {"user.a", "user.second", "trusted.c"};
static const struct fs_cred root_cred = {0, 0};

struct blob {
	unsigned users;
	size_t len;
	uint8_t byte[];
};

/* ------------------------------------------------------------------ blobs */

static struct blob *blob_new(size_t len)
{
	struct blob *b = calloc(1, sizeof(*b) + len);

	if (!b)
		abort();
	b->users = 1;
	b->len = len;
	return b;
}

static struct blob *blob_get(struct blob *b)
{
	if (b)
		b->users++;
	return b;
}

static void blob_put(struct blob *b)
{
	if (b && !--b->users)
		free(b);
}

static size_t blob_len(const struct blob *b)
{
	return b ? b->len : 0;
}

/* ------------------------------------------------------------------ states */

static void node_clear(struct mnode *n)
{
	for (unsigned i = 0; i < MODEL_PARTS; i++)
		blob_put(n->part[i]);
	for (unsigned i = 0; i < MODEL_XATTRS; i++)
		blob_put(n->xattr[i]);
	memset(n, 0, sizeof(*n));
}

static void tree_clear(struct mtree *t)
{
	for (unsigned i = 0; i < MODEL_NODES; i++)
		node_clear(&t->node[i]);
}

/* What has no name is not in the copy, and the kernel knows nothing of it. */
static void tree_copy(struct mtree *to, const struct mtree *from)
{
	for (unsigned i = 0; i < MODEL_NODES; i++) {
		struct mnode *n = &to->node[i];

		*n = (struct mnode){0};
		if (!from->node[i].mode || !from->node[i].nlink)
			continue;
		*n = from->node[i];
		n->known = false;
		for (unsigned j = 0; j < MODEL_PARTS; j++)
			blob_get(n->part[j]);
		for (unsigned j = 0; j < MODEL_XATTRS; j++)
			blob_get(n->xattr[j]);
	}
}

static struct mtree *tree_dup(const struct mtree *from)
{
	struct mtree *t = malloc(sizeof(*t));

	if (!t)
		abort();
	tree_copy(t, from);
	return t;
}

void mstate_clear(struct mstate *s)
{
	tree_clear(&s->live);
	for (unsigned i = 0; i < s->snaps; i++) {
		tree_clear(s->snap[i].tree);
		free(s->snap[i].tree);
	}
	s->snaps = 0;
}

void mstate_copy(struct mstate *to, const struct mstate *from)
{
	tree_copy(&to->live, &from->live);
	to->snaps = from->snaps;
	for (unsigned i = 0; i < from->snaps; i++) {
		to->snap[i] = from->snap[i];
		to->snap[i].tree = tree_dup(from->snap[i].tree);
	}
}

/* ------------------------------------------------------------------ names */

/* Short ones, and some as long as they may be. */
static const char *name_of(unsigned n)
{
	static char buf[PMFS_NAME_MAX + 1];

	if (n % 8 != 7) {
		snprintf(buf, sizeof(buf), "name-%u", n);
	} else {
		memset(buf, 'a' + (int)(n / 8), sizeof(buf) - 1);
		buf[sizeof(buf) - 1] = 0;
	}
	return buf;
}

static unsigned entry_at(const struct mnode *dir, unsigned name)
{
	for (unsigned i = 0; i < dir->entries; i++)
		if (dir->entry[i].name == name)
			return i;
	return NONE;
}

static void entry_add(struct mnode *dir, unsigned name, unsigned node)
{
	dir->entry[dir->entries].name = name;
	dir->entry[dir->entries++].node = node;
}

static void entry_drop(struct mnode *dir, unsigned at)
{
	dir->entry[at] = dir->entry[--dir->entries];
}

static bool is_dir(const struct mnode *n)
{
	return S_ISDIR(n->mode);
}

/* ------------------------------------------------------------------ comparing */

__attribute__((format(printf, 3, 4))) static bool differ(char *why, size_t size, const char *fmt,
							 ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return true;
}

static bool contents_differ(struct fs *fs, uint64_t id, const struct mnode *n, char *why,
			    size_t size)
{
	static uint8_t want[48 * PAGE], got[48 * PAGE];

	for (unsigned p = 0; p < MODEL_PARTS; p++) {
		const size_t len = blob_len(n->part[p]);
		const uint64_t end = MIN(n->size, part_at[p] + part_max[p] + PAGE);
		const size_t take = end > part_at[p] ? (size_t)(end - part_at[p]) : 0;
		ssize_t rc;

		memset(want, 0, take);
		if (len)
			memcpy(want, n->part[p]->byte, len);
		rc = fs_read(fs, id, part_at[p], got, take + PAGE);
		if (rc < 0)
			return differ(why, size, "reading %" PRIx64 ": %s", id, strerror((int)-rc));
		if ((size_t)rc < take || ((size_t)rc > take && part_at[p] + (size_t)rc > n->size))
			return differ(why, size, "reading %" PRIx64 " part %u: %zd of %zu", id, p,
				      rc, take);
		for (size_t i = 0; i < take; i++)
			if (want[i] != got[i])
				return differ(why, size, "%" PRIx64 " differs at part %u + %zu", id,
					      p, i);
	}
	return false;
}

static bool xattrs_differ(struct fs *fs, uint64_t id, const struct mnode *n, char *why, size_t size)
{
	static uint8_t got[XATTR_MAX + 1];

	for (unsigned i = 0; i < MODEL_XATTRS; i++) {
		const ssize_t rc = fs_getxattr(fs, id, xattr_name[i], got, sizeof(got));

		if (!n->xattr[i]) {
			if (rc != -ENODATA)
				return differ(why, size, "%" PRIx64 " %s: %zd", id, xattr_name[i],
					      rc);
			continue;
		}
		if (rc != (ssize_t)n->xattr[i]->len || memcmp(got, n->xattr[i]->byte, (size_t)rc))
			return differ(why, size, "%" PRIx64 " %s differs: %zd", id, xattr_name[i],
				      rc);
	}
	return false;
}

static bool node_differs(struct fs *fs, uint64_t id, const struct mnode *n, char *why, size_t size)
{
	static char target[2 * PAGE];
	struct fs_attr attr;
	ssize_t len;
	int rc;

	rc = fs_getattr(fs, id, &attr);
	if (rc)
		return differ(why, size, "getattr of %" PRIx64 ": %s", id, strerror(-rc));
	if (attr.mode != n->mode || attr.nlink != n->nlink)
		return differ(why, size, "%" PRIx64 ": mode %o links %u, want %o %u", id, attr.mode,
			      attr.nlink, n->mode, n->nlink);
	if (S_ISREG(n->mode) && attr.size != n->size)
		return differ(why, size, "%" PRIx64 ": size %" PRIu64 ", want %" PRIu64, id,
			      attr.size, n->size);
	if (S_ISREG(n->mode) && contents_differ(fs, id, n, why, size))
		return true;
	if (S_ISLNK(n->mode)) {
		len = fs_readlink(fs, id, target, sizeof(target));
		if (len != (ssize_t)blob_len(n->part[0]) ||
		    memcmp(target, n->part[0]->byte, (size_t)len))
			return differ(why, size, "%" PRIx64 ": another target (%zd)", id, len);
	}
	return xattrs_differ(fs, id, n, why, size);
}

struct listing {
	unsigned entries;
};

static int count_entry(void *arg, const struct fs_dirent *de)
{
	struct listing *ls = arg;

	ls->entries += strcmp(de->name, ".") && strcmp(de->name, "..");
	return 0;
}

/* volume: id of the one whose nodes to look at; the numbers are those of the live one. */
static bool tree_differs(struct fs *fs, uint64_t volume, const struct mtree *want, char *why,
			 size_t size)
{
	struct fs_attr attr;

	for (unsigned i = 0; i < MODEL_NODES; i++) {
		const struct mnode *n = &want->node[i];
		const uint64_t id = NODE_ID(volume, NODE_INO(n->id));
		struct listing ls = {0};
		int rc;

		if (!n->mode)
			continue;
		if (node_differs(fs, id, n, why, size))
			return true;
		if (!is_dir(n) || !n->nlink)
			continue;
		for (unsigned j = 0; j < n->entries; j++) {
			const char *name = name_of(n->entry[j].name);
			const struct mnode *to = &want->node[n->entry[j].node];

			rc = fs_lookup(fs, id, name, strlen(name), &attr);
			if (rc)
				return differ(why, size, "%" PRIx64 "/%.20s: %s", id, name,
					      strerror(-rc));
			fs_forget(fs, attr.id, 1);
			if (attr.id != NODE_ID(volume, NODE_INO(to->id)))
				return differ(why, size, "%" PRIx64 "/%.20s is %" PRIx64, id, name,
					      attr.id);
		}
		rc = fs_readdir(fs, id, 0, count_entry, &ls);
		if (rc || ls.entries != n->entries)
			return differ(why, size, "%" PRIx64 " lists %u names (%d), want %u", id,
				      ls.entries, rc, n->entries);
	}
	return false;
}

static int count_snap(void *arg, const struct fs_snapshot *snap)
{
	(void)snap;
	++*(unsigned *)arg;
	return 0;
}

bool model_differs(struct fs *fs, const struct mstate *want, char *why, size_t size)
{
	struct fs_snapshot snap;
	unsigned n = 0;

	fs_snap_each(fs, count_snap, &n);
	if (n != want->snaps)
		return differ(why, size, "%u snapshots, want %u", n, want->snaps);
	if (tree_differs(fs, NODE_VOLUME(fs_root(fs)), &want->live, why, size))
		return true;
	for (unsigned i = 0; i < want->snaps; i++) {
		if (fs_snap_find(fs, want->snap[i].name, &snap) || snap.id != want->snap[i].id)
			return differ(why, size, "snapshot %s is not there", want->snap[i].name);
		if (tree_differs(fs, snap.id, want->snap[i].tree, why, size))
			return true;
	}
	return false;
}

void model_compare(struct model *m)
{
	char why[256];

	if (model_differs(m->fx->fs, &m->now, why, sizeof(why)))
		fail_msg("the filesystem and the model differ: %s", why);
}

/* ------------------------------------------------------------------ choosing */

static uint64_t below(struct model *m, uint64_t n)
{
	return fsfix_below(&m->rnd, n);
}

/* A node in use of a kind (0: any), NONE: there is none. named: only what has a name. */
static unsigned some_node(struct model *m, uint32_t kind, bool named)
{
	const unsigned from = (unsigned)below(m, MODEL_NODES);

	for (unsigned i = 0; i < MODEL_NODES; i++) {
		const unsigned at = (from + i) % MODEL_NODES;
		const struct mnode *n = &m->now.live.node[at];

		if (n->mode && (!kind || (n->mode & S_IFMT) == kind) && (!named || n->nlink))
			return at;
	}
	return NONE;
}

static unsigned free_node(const struct model *m)
{
	for (unsigned i = 1; i < MODEL_NODES; i++)
		if (!m->now.live.node[i].mode)
			return i;
	return NONE;
}

static struct mnode *node(struct model *m, unsigned at)
{
	return &m->now.live.node[at];
}

static bool failed(struct model *m, ssize_t rc)
{
	if (rc != -EIO || !m->may_fail)
		return false;
	m->failed = true;
	return true;
}

/* Was the answer that the filesystem is full, or broken, and may it be? */
static bool full(struct model *m, ssize_t rc)
{
	if (failed(m, rc))
		return true;
	if (rc != -ENOSPC || !m->may_be_full)
		return false;
	m->full++;
	return true;
}

static void expect(struct model *m, const char *what, ssize_t rc, ssize_t want)
{
	if (rc != want && !failed(m, rc))
		fail_msg("%s: %zd, want %zd", what, rc, want);
}

/* The state that the filesystem is in is durable. */
static void committed(struct model *m)
{
	if (m->failed)
		return;
	if (m->committed)
		m->committed(m->arg);
	mstate_clear(&m->durable);
	mstate_copy(&m->durable, &m->now);
}

/* ------------------------------------------------------------------ names */

/* A name of it has gone. */
static void node_unnamed(struct model *m, unsigned at)
{
	struct mnode *n = node(m, at);

	n->nlink = is_dir(n) ? 0 : n->nlink - 1;
	if (n->nlink)
		return;
	if (n->known && below(m, 3) == 0)
		return; /* somebody has it open */
	if (n->known)
		fs_forget(m->fx->fs, n->id, 1);
	node_clear(n);
}

static void op_forget(struct model *m)
{
	for (unsigned i = 1; i < MODEL_NODES; i++) {
		struct mnode *n = node(m, i);

		if (n->mode && !n->nlink && below(m, 2)) {
			fs_forget(m->fx->fs, n->id, 1);
			node_clear(n);
		}
	}
}

static struct blob *some_bytes(struct model *m, size_t len)
{
	struct blob *b = blob_new(len);

	/* Some pages are equal to others, so that there is something to merge; some are zeros. */
	for (size_t at = 0; at < len; at += PAGE) {
		const size_t k = MIN(len - at, (size_t)PAGE);
		struct fsfix_random same = {below(m, 4)};

		switch (below(m, 4)) {
		case 0:
			fsfix_fill(&same, b->byte + at, k);
			break;
		case 1:
			break;
		default:
			fsfix_fill(&m->rnd, b->byte + at, k);
		}
	}
	return b;
}

static void op_create(struct model *m)
{
	static const uint32_t kinds[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR,
					 S_IFDIR, S_IFLNK, S_IFIFO};
	const uint32_t kind = kinds[below(m, ARRAY_SIZE(kinds))];
	const unsigned d = some_node(m, S_IFDIR, true), at = free_node(m);
	const unsigned which = (unsigned)below(m, NAMES);
	struct mnode *dir = node(m, d), *n;
	const char *name = name_of(which);
	const bool there = entry_at(dir, which) != NONE;
	struct blob *target = NULL;
	struct fs_attr attr;
	int rc;

	if (at == NONE || (dir->entries == MODEL_ENTRIES && !there))
		return;
	if (kind == S_IFLNK) {
		target = blob_new(1 + below(m, 200));
		memset(target->byte, 't', target->len);
		target->byte[0] = (uint8_t)('a' + below(m, 26));
	}
	if (kind == S_IFDIR) {
		rc = fs_mkdir(m->fx->fs, dir->id, name, strlen(name), 0755, &root_cred, &attr);
	} else if (kind == S_IFLNK) {
		char text[256] = {0};

		memcpy(text, target->byte, target->len);
		rc = fs_symlink(m->fx->fs, dir->id, name, strlen(name), text, &root_cred, &attr);
	} else {
		rc = fs_mknod(m->fx->fs, dir->id, name, strlen(name), kind | 0644, 0, &root_cred,
			      &attr);
	}
	if (full(m, rc)) {
		blob_put(target);
		return;
	}
	expect(m, "create", rc, there ? -EEXIST : 0);
	if (rc) {
		blob_put(target);
		return;
	}
	n = node(m, at);
	n->mode = attr.mode;
	n->nlink = kind == S_IFDIR ? 2 : 1;
	n->id = attr.id;
	n->known = true;
	n->part[0] = target;
	if (kind == S_IFDIR) {
		n->parent = d;
		dir->nlink++;
	}
	entry_add(dir, which, at);
}

static void op_remove(struct model *m)
{
	const unsigned d = some_node(m, S_IFDIR, true);
	struct mnode *dir = node(m, d);
	const bool hit = dir->entries && below(m, 8);
	const unsigned which =
		hit ? dir->entry[below(m, dir->entries)].name : (unsigned)below(m, NAMES);
	const unsigned e = entry_at(dir, which);
	const unsigned at = e == NONE ? NONE : dir->entry[e].node;
	const char *name = name_of(which);
	const bool as_dir =
		at != NONE && (below(m, 16) ? is_dir(node(m, at)) : !is_dir(node(m, at)));
	int rc, want = 0;

	rc = as_dir ? fs_rmdir(m->fx->fs, dir->id, name, strlen(name))
		    : fs_unlink(m->fx->fs, dir->id, name, strlen(name));
	if (at == NONE)
		want = -ENOENT;
	else if (as_dir && !is_dir(node(m, at)))
		want = -ENOTDIR;
	else if (!as_dir && is_dir(node(m, at)))
		want = -EISDIR;
	else if (as_dir && node(m, at)->entries)
		want = -ENOTEMPTY;
	if (full(m, rc))
		return;
	expect(m, "remove", rc, want);
	if (rc)
		return;
	entry_drop(dir, e);
	dir->nlink -= is_dir(node(m, at));
	node_unnamed(m, at);
}

static void op_link(struct model *m)
{
	const unsigned at = some_node(m, S_IFREG, false), d = some_node(m, S_IFDIR, true);
	const unsigned which = (unsigned)below(m, NAMES);
	struct mnode *dir = node(m, d);
	const char *name = name_of(which);
	const bool there = entry_at(dir, which) != NONE;
	struct fs_attr attr;
	int rc;

	if (at == NONE || (dir->entries == MODEL_ENTRIES && !there))
		return;
	rc = fs_link(m->fx->fs, node(m, at)->id, dir->id, name, strlen(name), &attr);
	if (full(m, rc))
		return;
	expect(m, "link", rc, there ? -EEXIST : 0);
	if (rc)
		return;
	if (node(m, at)->known)
		fs_forget(m->fx->fs, attr.id, 1);
	node(m, at)->known = true;
	node(m, at)->nlink++;
	entry_add(dir, which, at);
}

/* Is a the directory b or above it? */
static bool is_above(struct model *m, unsigned a, unsigned b)
{
	while (b && b != a)
		b = node(m, b)->parent;
	return a == b;
}

static int rename_wants(struct model *m, unsigned from, unsigned src, unsigned to, unsigned dst,
			unsigned flags)
{
	const bool exchange = flags & RENAME_EXCHANGE;

	if (src == NONE || (exchange && dst == NONE))
		return -ENOENT;
	if (dst != NONE && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (src == dst)
		return 0;
	if (is_dir(node(m, src)) && is_above(m, src, to))
		return -EINVAL;
	if (exchange && is_dir(node(m, dst)) && is_above(m, dst, from))
		return -EINVAL;
	if (exchange || dst == NONE)
		return 0;
	if (is_dir(node(m, src)) && !is_dir(node(m, dst)))
		return -ENOTDIR;
	if (!is_dir(node(m, src)) && is_dir(node(m, dst)))
		return -EISDIR;
	return node(m, dst)->entries ? -ENOTEMPTY : 0;
}

/* at moves from one directory to another. */
static void moved(struct model *m, unsigned at, unsigned from, unsigned to)
{
	if (!is_dir(node(m, at)))
		return;
	node(m, from)->nlink--;
	node(m, to)->nlink++;
	node(m, at)->parent = to;
}

static void op_rename(struct model *m)
{
	static const unsigned some_flags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	const unsigned flags = some_flags[below(m, ARRAY_SIZE(some_flags))];
	const unsigned f = some_node(m, S_IFDIR, true), t = some_node(m, S_IFDIR, true);
	struct mnode *from = node(m, f), *to = node(m, t);
	const unsigned name = from->entries && below(m, 8)
				      ? from->entry[below(m, from->entries)].name
				      : (unsigned)below(m, NAMES);
	const unsigned new_name = to->entries && below(m, 2) ? to->entry[below(m, to->entries)].name
							     : (unsigned)below(m, NAMES);
	unsigned e = entry_at(from, name), ne = entry_at(to, new_name), src, dst;
	char buf[PMFS_NAME_MAX + 1];
	const char *old = strcpy(buf, name_of(name));
	int rc, want;

	src = e == NONE ? NONE : from->entry[e].node;
	dst = ne == NONE ? NONE : to->entry[ne].node;
	if (dst == NONE && to->entries == MODEL_ENTRIES && f != t)
		return;
	want = rename_wants(m, f, src, t, dst, flags);
	rc = fs_rename(m->fx->fs, from->id, old, strlen(old), to->id, name_of(new_name),
		       strlen(name_of(new_name)), flags);
	if (full(m, rc))
		return;
	/* Where several things are wrong, which one is named is not for the model to say. */
	if ((rc < 0) != (want < 0))
		fail_msg("rename flags %u: %d, want %d", flags, rc, want);
	if (rc || src == dst)
		return;
	if (flags & RENAME_EXCHANGE) {
		from->entry[e].node = dst;
		to->entry[ne].node = src;
		moved(m, src, f, t);
		moved(m, dst, t, f);
		return;
	}
	entry_drop(from, e);
	if (dst != NONE) {
		to->entry[entry_at(to, new_name)].node = src;
		to->nlink -= is_dir(node(m, dst));
		node_unnamed(m, dst);
	} else {
		entry_add(to, new_name, src);
	}
	moved(m, src, f, t);
}

/* ------------------------------------------------------------------ contents */

/* Replace len bytes of a part at off; the bytes are the caller's, NULL: zeros. */
static void part_put(struct mnode *n, unsigned p, uint64_t off, const uint8_t *buf, size_t len)
{
	const size_t old = blob_len(n->part[p]);
	struct blob *b;

	if (!len)
		return;
	b = blob_new(MAX(old, (size_t)off + len));
	if (old)
		memcpy(b->byte, n->part[p]->byte, old);
	if (buf)
		memcpy(b->byte + off, buf, len);
	else
		memset(b->byte + off, 0, len);
	blob_put(n->part[p]);
	n->part[p] = b;
}

static void node_truncate(struct mnode *n, uint64_t size)
{
	for (unsigned p = 0; p < MODEL_PARTS; p++) {
		const size_t keep =
			size > part_at[p] ? (size_t)MIN(size - part_at[p], UINT64_C(1) << 40) : 0;
		struct blob *b = NULL;

		if (keep >= blob_len(n->part[p]))
			continue;
		if (keep) {
			b = blob_new(keep);
			memcpy(b->byte, n->part[p]->byte, keep);
		}
		blob_put(n->part[p]);
		n->part[p] = b;
	}
	n->size = size;
}

/* An offset in a part, and a length from there; now and then both are whole pages. */
static uint64_t some_range(struct model *m, unsigned p, uint64_t most, size_t *len)
{
	uint64_t off = below(m, below(m, 3) ? 300 : part_max[p]);
	uint64_t n = below(m, below(m, 3) ? 200 : most);

	if (below(m, 3) == 0) {
		off = off / PAGE * PAGE;
		n = DIV_ROUND_UP(n, (uint64_t)PAGE) * PAGE;
	}
	*len = (size_t)MIN(n, part_max[p] - off);
	return off;
}

static void op_write(struct model *m)
{
	const unsigned at = some_node(m, S_IFREG, false), p = below(m, 6) == 0;
	struct mnode *n;
	struct blob *b;
	uint64_t off;
	ssize_t rc;
	size_t len;

	if (at == NONE)
		return;
	n = node(m, at);
	off = some_range(m, p, 12 * PAGE, &len);
	if (!len)
		return;
	b = some_bytes(m, len);
	rc = fs_write(m->fx->fs, n->id, part_at[p] + off, b->byte, len, 0);
	if (!full(m, rc)) {
		if (rc <= 0 || (size_t)rc > len ||
		    ((size_t)rc < len && !m->may_be_full && !m->may_fail))
			fail_msg("write of %zu: %zd", len, rc);
		part_put(n, p, off, b->byte, (size_t)rc);
		n->size = MAX(n->size, part_at[p] + off + (size_t)rc);
	}
	blob_put(b);
}

static void op_truncate(struct model *m)
{
	const unsigned at = some_node(m, S_IFREG, false);
	struct fs_setattr in = {0};
	struct fs_attr attr;
	struct mnode *n;
	size_t len;
	int rc;

	if (at == NONE)
		return;
	n = node(m, at);
	switch (below(m, 4)) {
	case 0:
		in.size = 0;
		break;
	case 1:
		in.size = part_at[1] + below(m, part_max[1]);
		break;
	default:
		in.size = some_range(m, 0, PAGE, &len);
	}
	rc = fs_setattr(m->fx->fs, n->id, FS_SET_SIZE, &in, &attr);
	if (full(m, rc))
		return;
	expect(m, "truncate", rc, 0);
	node_truncate(n, in.size);
}

/* Some of [off, off + len) of a part may be zeros now; find out which, and that it is nothing else.
 */
static void zeroed_partly(struct model *m, struct mnode *n, unsigned p, uint64_t off, size_t len)
{
	const size_t there = blob_len(n->part[p]);
	struct blob *b;

	if (off >= there)
		return;
	b = blob_new(there);
	expect(m, "read", fs_read(m->fx->fs, n->id, part_at[p], b->byte, there), (ssize_t)there);
	for (size_t i = 0; i < there; i++)
		if (b->byte[i] != n->part[p]->byte[i] && (b->byte[i] || i < off || i >= off + len))
			fail_msg("zeroing a part of a file has changed something else");
	blob_put(n->part[p]);
	n->part[p] = b;
}

static void op_fallocate(struct model *m)
{
	static const int modes[] = {0,
				    FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
				    FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
				    FALLOC_FL_ZERO_RANGE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	const int mode = modes[below(m, ARRAY_SIZE(modes))];
	const bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	const unsigned at = some_node(m, S_IFREG, false), p = below(m, 6) == 0;
	struct fs_attr attr;
	struct mnode *n;
	uint64_t off, old;
	size_t len;
	int rc;

	if (at == NONE)
		return;
	n = node(m, at);
	old = n->size;
	off = some_range(m, p, 12 * PAGE, &len);
	if (!len)
		return;
	rc = fs_fallocate(m->fx->fs, n->id, mode, part_at[p] + off, len);
	if (full(m, rc)) {
		if (m->failed)
			return;
		expect(m, "getattr", fs_getattr(m->fx->fs, n->id, &attr), 0);
		assert_in_range(attr.size, old,
				mode & FALLOC_FL_KEEP_SIZE ? old
							   : MAX(old, part_at[p] + off + len));
		n->size = attr.size;
		if (zeroes)
			zeroed_partly(m, n, p, off, len);
		return;
	}
	expect(m, "fallocate", rc, 0);
	if (zeroes && off < blob_len(n->part[p]))
		part_put(n, p, off, NULL, MIN(len, blob_len(n->part[p]) - (size_t)off));
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		n->size = MAX(n->size, part_at[p] + off + len);
}

/* Bytes of the first part, zeros behind them. */
static struct blob *node_bytes(const struct mnode *n, uint64_t off, size_t len)
{
	const size_t there = blob_len(n->part[0]);
	struct blob *b = blob_new(len);

	if (off < there)
		memcpy(b->byte, n->part[0]->byte + off, MIN(len, there - (size_t)off));
	return b;
}

/* From a file of the live volume or of a snapshot into one of the live volume; in the first parts.
 */
static void op_copy(struct model *m)
{
	const unsigned snap =
		m->now.snaps && below(m, 3) == 0 ? (unsigned)below(m, m->now.snaps) : NONE;
	const unsigned a = some_node(m, S_IFREG, true), b = some_node(m, S_IFREG, false);
	const struct mtree *tree = snap == NONE ? &m->now.live : m->now.snap[snap].tree;
	const struct mnode *from;
	struct mnode *to;
	struct blob *bytes;
	uint64_t off, to_off, id;
	size_t len, len2, n;
	ssize_t rc;

	if (a == NONE || b == NONE || !S_ISREG(tree->node[a].mode))
		return;
	from = &tree->node[a];
	to = node(m, b);
	id = snap == NONE ? from->id : NODE_ID(m->now.snap[snap].id, NODE_INO(from->id));
	off = some_range(m, 0, 20 * PAGE, &len);
	to_off = some_range(m, 0, 20 * PAGE, &len2);
	if (below(m, 2))
		to_off = to_off / PAGE * PAGE + off % PAGE;
	len = MIN(len, (size_t)(part_max[0] - MIN(to_off, part_max[0])));
	n = off < from->size ? (size_t)MIN((uint64_t)len, from->size - off) : 0;
	rc = fs_copy_range(m->fx->fs, id, off, to->id, to_off, len);
	if (full(m, rc))
		return;
	if (id == to->id && off < to_off + n && to_off < off + n) {
		expect(m, "copy onto itself", rc, -EINVAL);
		return;
	}
	if (rc < 0 || (size_t)rc > n || ((size_t)rc < n && !m->may_be_full && !m->may_fail))
		fail_msg("copy of %zu: %zd", n, rc);
	bytes = node_bytes(from, off, (size_t)rc);
	part_put(to, 0, to_off, bytes->byte, (size_t)rc);
	if (rc)
		to->size = MAX(to->size, to_off + (size_t)rc);
	blob_put(bytes);
}

static void op_xattr(struct model *m)
{
	const unsigned at = some_node(m, 0, false), x = (unsigned)below(m, MODEL_XATTRS);
	struct mnode *n = node(m, at);
	struct blob *b;
	int rc;

	if (below(m, 3) == 0) {
		rc = fs_removexattr(m->fx->fs, n->id, xattr_name[x]);
		if (full(m, rc))
			return;
		expect(m, "removexattr", rc, n->xattr[x] ? 0 : -ENODATA);
		blob_put(n->xattr[x]);
		n->xattr[x] = NULL;
		return;
	}
	b = some_bytes(m, below(m, below(m, 4) ? 100 : XATTR_MAX));
	rc = fs_setxattr(m->fx->fs, n->id, xattr_name[x], b->byte, b->len, 0);
	if (full(m, rc)) {
		blob_put(b);
		return;
	}
	expect(m, "setxattr", rc, 0);
	blob_put(n->xattr[x]);
	n->xattr[x] = b;
}

static void op_compare(struct model *m)
{
	const unsigned at = some_node(m, 0, false);
	char why[256];

	/* What was given back in the background has failed: nobody was told, but holes can't be
	 * told from damage from now on. */
	if (store_error(fs_store(m->fx->fs)) && failed(m, -EIO))
		return;
	if (node_differs(m->fx->fs, node(m, at)->id, node(m, at), why, sizeof(why)))
		fail_msg("the filesystem and the model differ: %s", why);
}

/* ------------------------------------------------------------------ snapshots and the image */

static void op_snap_create(struct model *m)
{
	const unsigned at = m->now.snaps;
	struct fs_snapshot snap;
	char name[32];
	int rc;

	if (at == MODEL_SNAPS)
		return;
	snprintf(name, sizeof(name), "snap %" PRIu64, m->snap_names++);
	rc = fs_snap_create(m->fx->fs, name, "of the model", &snap);
	if (full(m, rc))
		return;
	expect(m, "snapshot", rc, 0);
	memcpy(m->now.snap[at].name, name, sizeof(name));
	m->now.snap[at].id = snap.id;
	m->now.snap[at].tree = tree_dup(&m->now.live);
	m->now.snaps++;
	committed(m);
}

static void op_snap_delete(struct model *m)
{
	unsigned at;

	if (!m->now.snaps)
		return;
	at = (unsigned)below(m, m->now.snaps);
	expect(m, "snapshot delete", fs_snap_delete(m->fx->fs, m->now.snap[at].name), 0);
	tree_clear(m->now.snap[at].tree);
	free(m->now.snap[at].tree);
	m->now.snap[at] = m->now.snap[--m->now.snaps];
	committed(m);
}

static void op_snap_rename(struct model *m)
{
	char name[32];
	unsigned at;
	int rc;

	if (!m->now.snaps)
		return;
	at = (unsigned)below(m, m->now.snaps);
	snprintf(name, sizeof(name), "moved %" PRIu64, m->snap_names++);
	rc = fs_snap_rename(m->fx->fs, m->now.snap[at].name, name);
	if (full(m, rc))
		return;
	expect(m, "snapshot rename", rc, 0);
	memcpy(m->now.snap[at].name, name, sizeof(name));
	committed(m);
}

void model_sync(struct model *m)
{
	expect(m, "sync", fs_sync(m->fx->fs), 0);
	committed(m);
}

static void op_fsync(struct model *m)
{
	const unsigned at = some_node(m, S_IFREG, true);

	if (at == NONE)
		return;
	expect(m, "fsync", fs_fsync(m->fx->fs, node(m, at)->id, below(m, 2)), 0);
	committed(m);
}

static void op_reclaim(struct model *m)
{
	const int rc = reclaim_run(m->fx->fs);

	if (rc < 0 && !failed(m, rc))
		fail_msg("reclaim: %s", strerror(-rc));
}

static void op_dedup(struct model *m)
{
	if (!m->dedup)
		return;
	expect(m, "dedup", dedup_run(m->dedup), 0);
	/* It commits first. */
	committed(m);
}

void model_step(struct model *m)
{
	static const struct {
		unsigned share;
		void (*op)(struct model *m);
	} ops[] = {
		{200, op_create},    {130, op_remove},	  {60, op_link},      {130, op_rename},
		{220, op_write},     {60, op_truncate},	  {50, op_fallocate}, {80, op_copy},
		{60, op_xattr},	     {120, op_compare},	  {10, op_forget},    {6, op_snap_create},
		{5, op_snap_delete}, {2, op_snap_rename}, {4, model_sync},    {4, op_fsync},
		{8, op_reclaim},     {1, op_dedup},
	};
	unsigned total = 0, at;

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		total += ops[i].share;
	at = (unsigned)below(m, total);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		if (at < ops[i].share) {
			ops[i].op(m);
			return;
		}
		at -= ops[i].share;
	}
}

/* ------------------------------------------------------------------ */

static void dedup_begin(struct model *m, bool wanted)
{
	m->dedup = NULL;
	if (wanted)
		assert_int_equal(dedup_new(&m->dedup, fs_store(m->fx->fs), DEDUP_MEMORY_DEFAULT),
				 0);
}

static bool dedup_end(struct model *m)
{
	const bool was = m->dedup;

	if (was)
		dedup_free(m->dedup);
	m->dedup = NULL;
	return was;
}

void model_start(struct model *m, struct fsfix *fx, bool dedup)
{
	m->fx = fx;
	m->now.live.node[0].mode = S_IFDIR | 0755;
	m->now.live.node[0].nlink = 2;
	m->now.live.node[0].id = fx->root;
	dedup_begin(m, dedup);
	expect(m, "sync", fs_sync(fx->fs), 0);
	mstate_copy(&m->durable, &m->now);
}

void model_end(struct model *m)
{
	dedup_end(m);
	mstate_clear(&m->now);
	mstate_clear(&m->durable);
}

void model_reopen(struct model *m)
{
	const bool dedup = dedup_end(m);

	mstate_clear(&m->durable);
	mstate_copy(&m->durable, &m->now);
	fsfix_stop(m->fx);
	fsfix_start(m->fx);
	mstate_clear(&m->now);
	mstate_copy(&m->now, &m->durable);
	dedup_begin(m, dedup);
}

void model_crash(struct model *m)
{
	const bool dedup = dedup_end(m);

	fsfix_crash(m->fx);
	fsfix_start(m->fx);
	mstate_clear(&m->now);
	mstate_copy(&m->now, &m->durable);
	dedup_begin(m, dedup);
}
