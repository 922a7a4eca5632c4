/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "tree/dir_walk.h"

struct check {
	struct inode *dir;
	void (*bad)(void *arg, const char *what);
	void *arg;
	uint64_t *seen; /* pages that the tree or the free list has led to */
	uint64_t pages, free_page, entries;
	int findings;
};

__attribute__((format(printf, 2, 3))) static void found(struct check *ck, const char *fmt, ...)
{
	char text[256], what[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(what, sizeof(what), "directory %" PRIu64 ": %s", ck->dir->ino, text);
	ck->bad(ck->arg, what);
	ck->findings++;
}

/* Damage is a finding and 1; what stops the check is an error. */
static int get(struct check *ck, uint64_t page, union dir_page *out)
{
	int rc;

	if (page >= ck->pages) {
		found(ck, "page %" PRIu64 " is behind the last one", page);
		return 1;
	}
	if (bit_test(ck->seen, page)) {
		found(ck, "page %" PRIu64 " is in use twice", page);
		return 1;
	}
	bit_set(ck->seen, page);
	rc = dir_page_copy(ck->dir, page, out);
	if (rc == -EUCLEAN || rc == -EBADMSG) {
		found(ck, "page %" PRIu64 " is %s", page, rc == -EBADMSG ? "damaged" : "missing");
		return 1;
	}
	return rc;
}

static void check_entry(struct check *ck, const struct dir_rec *rec)
{
	const char *name = (const char *)rec->name;
	struct dir_entry de;

	ck->entries++;
	if (memchr(name, '/', rec->name_len) || memchr(name, '\0', rec->name_len) ||
	    (name[0] == '.' && (rec->name_len == 1 || (rec->name_len == 2 && name[1] == '.'))))
		found(ck, "the entry with key %" PRIu64 " has a name that can't be", rec->key);
	if (dir_key(name, rec->name_len) != (rec->key & ~UINT64_C(255)))
		found(ck, "the key %" PRIu64 " does not belong to its name", rec->key);
	else if (dir_find(ck->dir, name, rec->name_len, &de) == 0 && de.cookie != rec->key)
		found(ck, "a name is there twice, with keys %" PRIu64 " and %" PRIu64, de.cookie,
		      rec->key);
	if (rec->ino < PMFS_INO_FIRST || rec->ino >> NODE_SHIFT)
		found(ck, "the entry with key %" PRIu64 " names inode %" PRIu64, rec->key,
		      rec->ino);
}

static int check_tree(struct check *ck, uint64_t page, unsigned level, uint64_t lower,
		      uint64_t upper)
{
	union dir_page pg;
	struct dir_rec rec;
	int rc;

	rc = get(ck, page, &pg);
	if (rc)
		return rc > 0 ? 0 : rc;
	if (dir_head_check(&pg) || dir_level(&pg) != level) {
		found(ck, "page %" PRIu64 " has a header that can't be", page);
		return 0;
	}
	if (page && (le32_get(pg.head.pages) || le64_get(pg.head.free_page)))
		found(ck, "page %" PRIu64 " has what only a root has", page);
	rc = level ? dir_node_check(&pg, lower, upper, ck->pages)
		   : dir_leaf_check(&pg, lower, upper);
	if (rc) {
		found(ck, "page %" PRIu64 " has entries that can't be", page);
		return 0;
	}
	if (level == 0) {
		for (unsigned i = 0; i < dir_count(&pg); i++) {
			if (dir_leaf_get(&pg, i, &rec) == 0)
				check_entry(ck, &rec);
		}
		return 0;
	}
	if (page == 0 && dir_count(&pg) == 1)
		found(ck, "the root has one child only");
	for (unsigned i = 0; i < dir_count(&pg) && rc == 0; i++) {
		const uint64_t lo = i ? le64_get(pg.node.child[i].key) : lower;
		const uint64_t hi =
			i + 1 < dir_count(&pg) ? le64_get(pg.node.child[i + 1].key) : upper;

		rc = check_tree(ck, le64_get(pg.node.child[i].page), level - 1, lo, hi);
	}
	return rc;
}

static int check_free(struct check *ck)
{
	union dir_page pg;
	int rc;

	for (uint64_t page = ck->free_page; page; page = le64_get(pg.head.free_page)) {
		rc = get(ck, page, &pg);
		if (rc)
			return rc > 0 ? 0 : rc;
		if (le32_get(pg.head.magic) != PMFS_DIR_FREE) {
			found(ck, "page %" PRIu64 " is on the free list and is not free", page);
			return 0;
		}
	}
	return 0;
}

int dir_check(struct inode *dir, void (*bad)(void *arg, const char *what), void *arg)
{
	struct check ck = { .dir = dir, .bad = bad, .arg = arg };
	uint64_t there, lost = 0;
	union dir_page root;
	unsigned level;
	int rc;

	rc = ptab_count(dir_store(dir), &dir->data, &there);
	if (rc == -EUCLEAN || rc == -EBADMSG) {
		found(&ck, "its page table is damaged");
		return ck.findings;
	}
	if (rc)
		return rc;
	if (dir->data.root == VPN_NONE) {
		if (dir->size)
			found(&ck, "it is empty and counts %" PRIu64 " entries", dir->size);
		return ck.findings;
	}
	rc = dir_page_copy(dir, 0, &root);
	if (rc == -EUCLEAN || rc == -EBADMSG || (rc == 0 && dir_head_check(&root))) {
		found(&ck, "its root is damaged");
		return ck.findings;
	}
	if (rc)
		return rc;
	ck.pages = le32_get(root.head.pages);
	ck.free_page = le64_get(root.head.free_page);
	level = dir_level(&root);
	if (ck.pages != there) {
		found(&ck, "it has %" PRIu64 " pages and says %" PRIu64, there, ck.pages);
		return ck.findings;
	}
	ck.seen = calloc(BITMAP_WORDS(ck.pages), sizeof(*ck.seen));
	if (!ck.seen)
		return -ENOMEM;
	rc = check_tree(&ck, 0, level, 0, DIR_KEY_END);
	if (rc == 0)
		rc = check_free(&ck);
	if (rc == 0 && ck.findings == 0) {
		for (uint64_t i = 0; i < ck.pages; i++)
			lost += !bit_test(ck.seen, i);
		if (lost)
			found(&ck, "nothing leads to %" PRIu64 " of its pages", lost);
		if (ck.entries != dir->size)
			found(&ck, "it has %" PRIu64 " entries and counts %" PRIu64, ck.entries,
			      dir->size);
	}
	free(ck.seen);
	return rc ? rc : ck.findings;
}
