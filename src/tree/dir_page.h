/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dir_page.h - one page of a directory's B+ tree: checks, searches and changes of a copy in memory.
 *
 * Nothing here reads or writes an image or takes a lock.  A page that came from an image goes
 * through dir_head_check() before anything else looks at it, and through dir_leaf_check() or
 * dir_node_check() before it is changed or walked.
 */
#ifndef PMFS_TREE_DIR_PAGE_H
#define PMFS_TREE_DIR_PAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "pmfs/format.h"

#define DIR_SLOTS 254u             /* of a node or a leaf */
#define DIR_LEVELS 4u              /* of the highest tree: at least 2^25 names, 2^29 in practice */
#define DIR_KEY_END (UINT64_C(1) << 63)
#define DIR_RECORD_MAX (offsetof(struct pmfs_dir_record, name) + PMFS_NAME_MAX)

union dir_page {
	uint8_t bytes[PMFS_PAGE_SIZE];
	struct pmfs_dir_header head;
	struct {
		struct pmfs_dir_header head;
		struct pmfs_dir_slot slot[DIR_SLOTS];
	} leaf;
	struct {
		struct pmfs_dir_header head;
		struct pmfs_dir_child child[DIR_SLOTS];
	} node;
};
static_assert(sizeof(union dir_page) == PMFS_PAGE_SIZE, "a page");

/* A name as it stands in a leaf.  name is not terminated and points into the page. */
struct dir_rec {
	uint64_t key, ino;
	const uint8_t *name;
	uint8_t name_len, type;
};

/* The first of the 256 keys that a name can have. */
uint64_t dir_key(const char *name, size_t len);

static inline unsigned dir_count(const union dir_page *pg)
{
	return le16_get(pg->head.count);
}

static inline unsigned dir_level(const union dir_page *pg)
{
	return le16_get(pg->head.level);
}

/* Magic, level and count: enough to search the page without leaving it.  -EUCLEAN. */
int dir_head_check(const union dir_page *pg);
/* All of a leaf whose keys must lie in [lower, upper). -EUCLEAN. */
int dir_leaf_check(const union dir_page *pg, uint64_t lower, uint64_t upper);
/* All of a node of a directory of that many pages. -EUCLEAN. */
int dir_node_check(const union dir_page *pg, uint64_t lower, uint64_t upper, uint64_t pages);

/* The first entry with a key >= key; the count when there is none. */
unsigned dir_leaf_search(const union dir_page *pg, uint64_t key);
/* The child that holds key. */
unsigned dir_node_search(const union dir_page *pg, uint64_t key);
/* Entry i of a leaf. -EUCLEAN: its record is not inside the page. */
int dir_leaf_get(const union dir_page *pg, unsigned i, struct dir_rec *out);

/* An empty page of that level. */
void dir_page_init(union dir_page *pg, unsigned level);
/* The fields that only page 0 has. */
void dir_root_put(union dir_page *pg, uint64_t pages, uint64_t free_page);

/* Put an entry before entry `at`.  False: the leaf is too full, and unchanged. */
bool dir_leaf_insert(union dir_page *pg, unsigned at, const struct dir_rec *rec);
/* As it, when it did not fit: what was in pg and the new entry are divided between pg and right,
 * which both become new. */
void dir_leaf_split(union dir_page *pg, union dir_page *right, unsigned at,
		    const struct dir_rec *rec);
void dir_leaf_remove(union dir_page *pg, unsigned at);
/* Let entry `at` name another inode. */
void dir_leaf_replace(union dir_page *pg, unsigned at, uint64_t ino, uint8_t type);

/* The same for the child of a node.  dir_node_split() returns the key that divides the halves. */
bool dir_node_insert(union dir_page *pg, unsigned at, uint64_t key, uint64_t page);
uint64_t dir_node_split(union dir_page *pg, union dir_page *right, unsigned at, uint64_t key,
			uint64_t page);
void dir_node_remove(union dir_page *pg, unsigned at);

#ifdef PMFS_FAULTS
/* Tests take bits out of the hash here, so that names collide. */
extern uint64_t dir_test_hash_mask;
#endif

#endif
