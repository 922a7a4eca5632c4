/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/dir.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "tree/dir_page.h"
#include "tree/dir_walk.h"

/* New pages of one insertion, each level split and the root once more; and what a removal takes
 * out. */
#define PAGES_NEW_MAX (DIR_LEVELS + 1)
#define PAGES_GONE_MAX (2 * DIR_LEVELS)

#define ROOT_FIELDS offsetof(struct pmfs_dir_header, pages)
#define ROOT_FIELDS_END (offsetof(struct pmfs_dir_header, free_page) + sizeof(le64))

int dir_page_at(struct inode *dir, uint64_t page, const union dir_page **out)
{
	const void *p;
	vpn_t vpn;
	int rc;

	rc = ptab_get(dir_store(dir), &dir->data, page, &vpn);
	if (rc)
		return rc;
	if (vpn == VPN_NONE)
		return -EUCLEAN;
	rc = page_get(dir_store(dir), vpn, &p);
	if (rc)
		return rc;
	*out = p;
	return 0;
}

int dir_page_copy(struct inode *dir, uint64_t page, union dir_page *out)
{
	const union dir_page *pg;
	struct read_section rs;
	int rc;

	read_enter(dir_store(dir), &rs);
	rc = dir_page_at(dir, page, &pg);
	if (rc == 0)
		memcpy(out, pg, sizeof(*out));
	read_leave(dir_store(dir), &rs);
	return rc;
}

int dir_descend(struct inode *dir, uint64_t key, struct dir_path *path, const union dir_page **leaf)
{
	const union dir_page *pg;
	uint64_t page = 0;
	unsigned level = 0;
	int rc;

	path->lower = 0;
	path->upper = DIR_KEY_END;
	for (path->depth = 0;; path->depth++) {
		rc = dir_page_at(dir, page, &pg);
		if (rc == 0)
			rc = dir_head_check(pg);
		if (rc)
			return rc;
		/* Each step goes down one level, so no loop in an image can hold us. */
		if (path->depth == 0) {
			path->pages = le32_get(pg->head.pages);
			path->free_page = le64_get(pg->head.free_page);
			if (path->pages == 0)
				return -EUCLEAN;
		} else if (dir_level(pg) != level - 1) {
			return -EUCLEAN;
		}
		level = dir_level(pg);
		path->at[path->depth].page = page;
		path->at[path->depth].lower = path->lower;
		path->at[path->depth].upper = path->upper;
		if (level == 0)
			break;

		const unsigned i = dir_node_search(pg, key);

		path->at[path->depth].child = i;
		/* upper stays above key, whatever the page holds: so whoever goes on at upper gets
		 * on. */
		if (i + 1 < dir_count(pg))
			path->upper = MIN(path->upper, le64_get(pg->node.child[i + 1].key));
		if (i)
			path->lower = MAX(path->lower, le64_get(pg->node.child[i].key));
		page = le64_get(pg->node.child[i].page);
		if (page == 0 || page >= path->pages)
			return -EUCLEAN;
	}
	path->depth++;
	*leaf = pg;
	return 0;
}

int dir_leaf_copy(struct inode *dir, uint64_t key, struct dir_path *path, union dir_page *leaf)
{
	const union dir_page *pg;
	struct read_section rs;
	int rc;

	read_enter(dir_store(dir), &rs);
	rc = dir_descend(dir, key, path, &pg);
	if (rc == 0)
		memcpy(leaf, pg, sizeof(*leaf));
	read_leave(dir_store(dir), &rs);
	return rc ? rc : dir_leaf_check(leaf, path->lower, path->upper);
}

/* The node of a path at that depth, for a change. */
static int node_copy(struct inode *dir, const struct dir_path *path, unsigned depth,
		     union dir_page *out)
{
	int rc = dir_page_copy(dir, path->at[depth].page, out);

	if (rc)
		return rc;
	return dir_node_check(out, path->at[depth].lower, path->at[depth].upper, path->pages);
}

static int page_put(struct txn *tx, struct inode *dir, uint64_t page, const union dir_page *from)
{
	return ptab_write(tx, &dir->data, NULL, page, 0, from, sizeof(*from), NULL);
}

static int root_fields_put(struct txn *tx, struct inode *dir, uint64_t pages, uint64_t free_page)
{
	struct pmfs_dir_header head = { 0 };

	le32_put(&head.pages, (uint32_t)pages);
	le64_put(&head.free_page, free_page);
	return ptab_write(tx, &dir->data, NULL, 0, ROOT_FIELDS,
			  (const uint8_t *)&head + ROOT_FIELDS, ROOT_FIELDS_END - ROOT_FIELDS,
			  NULL);
}

static void entry_from(const struct dir_rec *rec, struct dir_entry *out)
{
	out->ino = rec->ino;
	out->cookie = rec->key;
	out->type = rec->type;
	out->name_len = rec->name_len;
	memcpy(out->name, rec->name, rec->name_len);
	out->name[rec->name_len] = '\0';
}

/* What a search for a name saw: the entry, or the keys of its hash that are taken. */
struct search {
	const char *name;
	size_t len;
	uint64_t first; /* of the 256 keys */
	uint64_t taken[4];
};

static int search_run(struct inode *dir, struct search *s, struct dir_entry *out)
{
	const uint64_t last = s->first | 255;
	uint64_t key = s->first;
	struct dir_path path;

	for (;;) {
		const union dir_page *pg;
		int rc = dir_descend(dir, key, &path, &pg);

		if (rc)
			return rc;
		for (unsigned i = dir_leaf_search(pg, key); i < dir_count(pg); i++) {
			struct dir_rec rec;

			if (le64_get(pg->leaf.slot[i].key) > last)
				return -ENOENT;
			rc = dir_leaf_get(pg, i, &rec);
			if (rc)
				return rc;
			bit_set(s->taken, rec.key & 255);
			if (rec.name_len != s->len || memcmp(rec.name, s->name, s->len))
				continue;
			entry_from(&rec, out);
			return 0;
		}
		if (path.upper > last)
			return -ENOENT;
		key = path.upper;
	}
}

static int search(struct inode *dir, const char *name, size_t len, struct search *s,
		  struct dir_entry *out)
{
	struct read_section rs;
	int rc;

	if (len > PMFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0)
		return -ENOENT;
	*s = (struct search){ .name = name, .len = len, .first = dir_key(name, len) };
	if (dir->data.root == VPN_NONE)
		return -ENOENT;
	read_enter(dir_store(dir), &rs);
	rc = search_run(dir, s, out);
	read_leave(dir_store(dir), &rs);
	return rc;
}

int dir_find(struct inode *dir, const char *name, size_t len, struct dir_entry *out)
{
	struct search s;

	return search(dir, name, len, &s, out);
}

/* ------------------------------------------------------------------ insertion */

/* Pages for an insertion, chosen before anything is changed. */
struct fresh {
	uint64_t pages, free_page; /* of the root, as they will be */
	uint64_t page[PAGES_NEW_MAX];
	union dir_page *contents[PAGES_NEW_MAX];
	unsigned count;
};

static int fresh_take(struct inode *dir, struct fresh *fr, union dir_page *contents, uint64_t *page)
{
	const union dir_page *pg;
	struct read_section rs;
	uint64_t next = 0;
	int rc = 0;

	*page = fr->free_page;
	if (*page) {
		read_enter(dir_store(dir), &rs);
		rc = *page < fr->pages ? dir_page_at(dir, *page, &pg) : -EUCLEAN;
		if (rc == 0 && le32_get(pg->head.magic) != PMFS_DIR_FREE)
			rc = -EUCLEAN;
		if (rc == 0)
			next = le64_get(pg->head.free_page);
		read_leave(dir_store(dir), &rs);
		if (rc)
			return rc;
		fr->free_page = next;
	} else {
		if (fr->pages >= UINT32_MAX)
			return -ENOSPC;
		*page = fr->pages++;
	}
	fr->page[fr->count] = *page;
	fr->contents[fr->count++] = contents;
	return 0;
}

/*
 * The leaf is full: divide it, and each node above that has no room for one child more.  All is
 * made up in memory first; then the new pages are written, which nothing points to yet, and then
 * the changed ones from the top down.  That way a failure on the way loses no name.
 */
static int insert_split(struct txn *tx, struct inode *dir, struct dir_path *path,
			union dir_page *leaf, const struct dir_rec *rec)
{
	union dir_page now[DIR_LEVELS], right[DIR_LEVELS], left_of_root;
	struct fresh fr = { .pages = path->pages, .free_page = path->free_page };
	unsigned d = path->depth - 1;
	uint64_t sep, page;
	int rc;

	now[d] = *leaf;
	dir_leaf_split(&now[d], &right[d], dir_leaf_search(leaf, rec->key), rec);
	sep = le64_get(right[d].leaf.slot[0].key);
	for (;;) {
		rc = fresh_take(dir, &fr, &right[d], &page);
		if (rc)
			return rc;
		if (d == 0)
			break;
		d--;
		rc = node_copy(dir, path, d, &now[d]);
		if (rc)
			return rc;
		if (dir_node_insert(&now[d], path->at[d].child + 1, sep, page))
			break;
		sep = dir_node_split(&now[d], &right[d], path->at[d].child + 1, sep, page);
	}
	if (d == 0 && fr.contents[fr.count - 1] == &right[0]) {
		const unsigned level = dir_level(&now[0]) + 1;
		uint64_t left_page;

		if (level == DIR_LEVELS)
			return -ENOSPC;
		left_of_root = now[0];
		rc = fresh_take(dir, &fr, &left_of_root, &left_page);
		if (rc)
			return rc;
		dir_page_init(&now[0], level);
		dir_node_insert(&now[0], 0, 0, left_page);
		dir_node_insert(&now[0], 1, sep, page);
	}

	for (unsigned i = 0; i < fr.count && rc == 0; i++)
		rc = page_put(tx, dir, fr.page[i], fr.contents[i]);
	if (d == 0)
		dir_root_put(&now[0], fr.pages, fr.free_page);
	else if (rc == 0)
		rc = root_fields_put(tx, dir, fr.pages, fr.free_page);
	for (; d < path->depth && rc == 0; d++)
		rc = page_put(tx, dir, path->at[d].page, &now[d]);
	return rc;
}

int dir_insert(struct txn *tx, struct inode *dir, const char *name, size_t len, uint64_t ino,
	       uint8_t type)
{
	struct dir_path path;
	struct dir_entry there;
	union dir_page leaf;
	struct search s;
	struct dir_rec rec;
	uint64_t n;
	int rc;

	rc = search(dir, name, len, &s, &there);
	if (rc == 0)
		return -EEXIST;
	if (len == 0)
		return -EINVAL;
	if (rc != -ENOENT)
		return rc;
	n = bit_find_zero(s.taken, 256, 0);
	if (n == 256)
		return -ENOSPC;
	rec = (struct dir_rec){ .key = s.first + n,
				.ino = ino,
				.type = type,
				.name_len = (uint8_t)len,
				.name = (const uint8_t *)name };

	if (dir->data.root == VPN_NONE) {
		dir_page_init(&leaf, 0);
		dir_root_put(&leaf, 1, 0);
		dir_leaf_insert(&leaf, 0, &rec);
		rc = page_put(tx, dir, 0, &leaf);
	} else {
		rc = dir_leaf_copy(dir, rec.key, &path, &leaf);
		if (rc)
			return rc;
		if (dir_leaf_insert(&leaf, dir_leaf_search(&leaf, rec.key), &rec))
			rc = page_put(tx, dir, path.at[path.depth - 1].page, &leaf);
		else
			rc = insert_split(tx, dir, &path, &leaf, &rec);
	}
	if (rc == 0)
		dir->size++;
	return rc;
}

/* ------------------------------------------------------------------ removal */

static int drop_all(struct txn *tx, struct inode *dir)
{
	uint64_t freed;
	int rc;

	do
		rc = ptab_punch(tx, &dir->data, NULL, 0, PGNO_END, UINT64_MAX, &freed);
	while (rc > 0);
	return rc;
}

/* Put pages that left the tree on the free list, or off the end of the file; root is written
 * afterwards. */
static int pages_drop(struct txn *tx, struct inode *dir, struct dir_path *path, uint64_t *gone,
		      unsigned n)
{
	union dir_page pg;
	int rc = 0;

	/* The highest first: when it is the last one of the file, its neighbour may be the last one
	 * then. */
	for (; n && rc == 0; n--) {
		unsigned high = 0;

		for (unsigned i = 1; i < n; i++) {
			if (gone[i] > gone[high])
				high = i;
		}
		if (gone[high] == path->pages - 1) {
			rc = ptab_set(tx, &dir->data, NULL, gone[high], VPN_NONE, NULL);
			path->pages--;
		} else {
			memset(&pg, 0, sizeof(pg));
			le32_put(&pg.head.magic, PMFS_DIR_FREE);
			le64_put(&pg.head.free_page, path->free_page);
			rc = page_put(tx, dir, gone[high], &pg);
			path->free_page = gone[high];
		}
		gone[high] = gone[n - 1];
	}
	return rc;
}

/* The leaf at the end of the path has no entry any more.  As in insert_split(): first all in
 * memory, then the changes. */
static int remove_leaf(struct txn *tx, struct inode *dir, struct dir_path *path)
{
	uint64_t gone[PAGES_GONE_MAX];
	unsigned n = 0, d = path->depth - 1;
	union dir_page now;
	int rc;

	for (;;) {
		if (d == 0)
			return drop_all(tx, dir);
		gone[n++] = path->at[d--].page;
		rc = node_copy(dir, path, d, &now);
		if (rc)
			return rc;
		dir_node_remove(&now, path->at[d].child);
		if (dir_count(&now))
			break;
	}
	while (d == 0 && dir_level(&now) && dir_count(&now) == 1) {
		const uint64_t child = le64_get(now.node.child[0].page);
		const unsigned level = dir_level(&now);

		for (unsigned i = 0; i < n; i++) {
			if (gone[i] == child)
				return -EUCLEAN;
		}
		rc = dir_page_copy(dir, child, &now);
		if (rc == 0)
			rc = dir_head_check(&now);
		if (rc)
			return rc;
		if (dir_level(&now) != level - 1)
			return -EUCLEAN;
		rc = dir_level(&now) ? dir_node_check(&now, 0, DIR_KEY_END, path->pages)
				     : dir_leaf_check(&now, 0, DIR_KEY_END);
		if (rc)
			return rc;
		gone[n++] = child;
	}
	rc = pages_drop(tx, dir, path, gone, n);
	if (rc)
		return rc;
	if (d == 0) {
		dir_root_put(&now, path->pages, path->free_page);
	} else {
		rc = root_fields_put(tx, dir, path->pages, path->free_page);
		if (rc)
			return rc;
	}
	return page_put(tx, dir, path->at[d].page, &now);
}

int dir_remove(struct txn *tx, struct inode *dir, const char *name, size_t len, uint64_t *ino)
{
	struct dir_path path;
	struct dir_entry there;
	union dir_page leaf;
	struct search s;
	int rc;

	rc = search(dir, name, len, &s, &there);
	if (rc == 0)
		rc = dir_leaf_copy(dir, there.cookie, &path, &leaf);
	if (rc)
		return rc;
	dir_leaf_remove(&leaf, dir_leaf_search(&leaf, there.cookie));
	if (dir_count(&leaf))
		rc = page_put(tx, dir, path.at[path.depth - 1].page, &leaf);
	else
		rc = remove_leaf(tx, dir, &path);
	if (rc)
		return rc;
	if (dir->size)
		dir->size--;
	if (ino)
		*ino = there.ino;
	return 0;
}

int dir_replace(struct txn *tx, struct inode *dir, const char *name, size_t len, uint64_t ino,
		uint8_t type)
{
	struct dir_path path;
	struct dir_entry there;
	union dir_page leaf;
	struct search s;
	int rc;

	rc = search(dir, name, len, &s, &there);
	if (rc == 0)
		rc = dir_leaf_copy(dir, there.cookie, &path, &leaf);
	if (rc)
		return rc;
	dir_leaf_replace(&leaf, dir_leaf_search(&leaf, there.cookie), ino, type);
	return page_put(tx, dir, path.at[path.depth - 1].page, &leaf);
}

/* ------------------------------------------------------------------ walks */

int dir_each(struct inode *dir, uint64_t from, int (*fn)(void *arg, const struct dir_entry *de),
	     void *arg)
{
	struct dir_path path;
	union dir_page leaf;
	int rc;

	if (dir->data.root == VPN_NONE)
		return 0;
	while (from < DIR_KEY_END) {
		rc = dir_leaf_copy(dir, from, &path, &leaf);
		if (rc)
			return rc;
		for (unsigned i = dir_leaf_search(&leaf, from); i < dir_count(&leaf); i++) {
			struct dir_entry de;
			struct dir_rec rec;

			rc = dir_leaf_get(&leaf, i, &rec);
			if (rc)
				return rc;
			entry_from(&rec, &de);
			rc = fn(arg, &de);
			if (rc)
				return rc;
		}
		from = path.upper;
	}
	return 0;
}
