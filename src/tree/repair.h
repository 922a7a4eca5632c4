/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repair.h - what the parts of the repair share.  The order:
 *
 *   rows    the volume table, so that the volumes can be opened (repair_rows.c)
 *   tables  every table once, whoever shares it: pointers that lead nowhere are taken out, records
 * that contradict themselves are put right, in place for all owners; then every count is set to
 * what was met (repair_tables.c) names   volume by volume, with counts that can be trusted:
 * directories, links, numbers (repair_names.c)
 *
 *   E1  No page number of before is given out while a repair runs (store.h), so that a pointer that
 * has not been looked at yet does not come to point at something new. E2  A pointer goes before the
 * count of what it points at does, and a new owner is written before the old one lets go: whatever
 * of it a crash leaves, nothing points at what is free that did not before.
 */
#ifndef PMFS_TREE_REPAIR_H
#define PMFS_TREE_REPAIR_H

#include "tree/check_pages.h"
#include "tree/fs_impl.h"

struct repair {
	struct fs *fs;
	struct store *st;
	struct fs_repair *how;
	vpn_t limit;	   /* page numbers of before are below it */
	uint64_t expected; /* so many pages are met, about */
	struct page_counts seen; /* per page: pointers met, and what it was met as */
	struct check_memo memo;
	uint64_t met;			/* pages */
	struct volume *vol;		/* in whose tables it is, NULL: the volume table */
	uint64_t ino;			/* 0: the inode file */
	bool again;			/* what was counted is not right any more */
	bool cut;			/* something of the inode's tables was taken out */
	uint64_t named[FS_REPAIR_INOS]; /* inodes that have lost something, for their paths */
	size_t n_named;
};

/* Something was mended, or (left) can't be. */
void repair_say(struct repair *rp, bool left, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void repair_progress(const struct repair *rp, const char *what, double done);
/* "live", "snapshot x" */
const char *repair_volume_name(const struct volume *vol, char *buf, size_t size);

int repair_rows(struct repair *rp); /* before volumes_load(); -EUCLEAN: the volume table is lost */
int repair_tables(struct repair *rp); /* after it */
int repair_names(struct repair *rp, struct volume *vol);
/* Take what can't be from a table; *keep false: of its root nothing is left.  pages (may be NULL):
 * that are in it. */
int repair_table(struct repair *rp, const struct ptab *pt, enum check_kind kind, uint64_t *pages,
		 bool *keep);
/* A new inode file: a root directory and one for orphans. */
int repair_fresh_root(struct repair *rp, struct txn *tx, struct ptab *out);
/* Forget what was met. */
void repair_reset(struct repair *rp);

/* All of it; part of fs_open(). */
int repair_before_load(struct fs *fs, struct fs_repair *how);
int repair_after_load(struct fs *fs, struct fs_repair *how);
/* What has lost something, by name; when the fs is open. */
int repair_say_paths(struct fs *fs, struct fs_repair *how);

#endif
