/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * surgery.h - damage done to an open filesystem behind its back, for the tests of what finds it.
 *
 * Each is one transaction that changes pages directly, so that hashes and counts of the page map
 * fit and only what was meant to be wrong is wrong.  Nothing else may run; inodes that were changed
 * must not be in use.  All of them end the test when they do not work.
 */
#ifndef PMFS_TESTS_SURGERY_H
#define PMFS_TESTS_SURGERY_H

#include "lib/fsfix.h"
#include "tree/volume.h"

struct volume *surgery_volume(struct fsfix *fx, const char *name); /* NULL: the live one */

/* An inode's record. */
void surgery_get(struct fsfix *fx, struct volume *vol, uint64_t ino, struct pmfs_inode *rec);
void surgery_put(struct fsfix *fx, struct volume *vol, uint64_t ino, const struct pmfs_inode *rec);

/* The page at pgno of a table, which must be there. */
vpn_t surgery_page(struct fsfix *fx, const struct ptab *pt, pgno_t pgno);
void surgery_read(struct fsfix *fx, vpn_t vpn, size_t off, void *buf, size_t len);
void surgery_write(struct fsfix *fx, vpn_t vpn, size_t off, const void *buf, size_t len);
void surgery_ref(struct fsfix *fx, vpn_t vpn);
void surgery_unref(struct fsfix *fx, vpn_t vpn);
vpn_t surgery_new(struct fsfix *fx, const void *contents);

/* Turn a byte of a page's frame in the image over, without anybody knowing: closes and opens. */
void surgery_rot(struct fsfix *fx, vpn_t vpn, size_t off);

#endif
