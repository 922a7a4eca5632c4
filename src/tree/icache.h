/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * icache.h - inodes in memory.
 *
 *   N1  There is at most one struct inode for a (volume, number).
 *   N2  It lives while the kernel knows it (lookups > 0) or somebody holds it (holds > 0).
 *   N3  An inode without a name (nlink 0) is given back when both have come to 0 (or at unmount
 *       or the next mount: it is in the orphan directory).
 *   N4  An inode in memory counts as a user of its volume.
 *
 * Locks: the table has LOCK_ICACHE; an inode's contents its own lock (LOCK_INODE, rwlock).  Several
 * inodes are locked in the order of inode_before().
 */
#ifndef PMFS_TREE_ICACHE_H
#define PMFS_TREE_ICACHE_H

#include <time.h>

#include "tree/volume.h"

struct inode {
	struct volume *vol; /* set once */
	uint64_t ino;       /* set once */
	struct rwlock lock; /* guards all below up to the line */
	uint32_t mode;      /* 0: it has been given back (itable_free) */
	uint32_t flags, uid, gid, nlink;
	uint32_t rdev;      /* as makedev() of the host makes it */
	uint64_t size, pages, generation, parent;
	struct timespec atime, mtime, ctime, btime;
	struct ptab data, xattr;
	uint32_t xattr_size;
	uint8_t inl[PMFS_INLINE_MAX];
	bool moved; /* fs_write_at() has told of bytes that went elsewhere */
	uint32_t settling; /* fs_set_flags_cached() that fs_flags_settled() has not followed yet */
	/* ---- guarded by the icache */
	uint64_t lookups;   /* what the kernel holds */
	uint32_t holds;
	uint8_t state;
	struct inode *hash_next;
};

/* Node ids: volume id << 40 | inode number. */
#define NODE_SHIFT 40
#define NODE_VOLUME(id) ((uint64_t)(id) >> NODE_SHIFT)
#define NODE_INO(id) ((uint64_t)(id) & ((UINT64_C(1) << NODE_SHIFT) - 1))
#define NODE_ID(vol, ino) ((uint64_t)(vol) << NODE_SHIFT | (uint64_t)(ino))

struct icache;
int icache_new(struct icache **out);
void icache_free(struct icache *ic); /* drops what is left, lookups or not; volumes still there */

/*
 * Find or load; adds a hold.  Inode locks and a transaction may be held: it waits only for
 * another thread's loading of the same inode.  -ESTALE: no such volume; -ENOENT, -EBADMSG,
 * -EUCLEAN, -ENOMEM.
 */
int inode_get(struct fs *fs, uint64_t id, struct inode **out);
/*
 * A fresh one for a number of itable_alloc(); holds 1, all fields zero.  The caller fills it,
 * stores it, and only then makes its name visible.  If that fails he sets mode to 0 and puts it.
 */
int inode_new(struct fs *fs, struct volume *vol, uint64_t ino, struct inode **out);
/*
 * Give a hold back.  The last one of an inode without a name calls reclaim_inode(), so the caller
 * holds no locks and has no transaction open - unless he knows that it is not the last one.
 */
void inode_put(struct fs *fs, struct inode *in);
/* The kernel has learnt it once more (the caller has a hold), or forgets it n times (see put). */
void inode_add_lookup(struct fs *fs, struct inode *in);
void inode_forget(struct fs *fs, uint64_t id, uint64_t n);

/* The total order of inode locks: a's is taken before b's. */
bool inode_before(const struct inode *a, const struct inode *b);
void inode_lock2(struct inode *a, struct inode *b, bool write); /* b may be NULL or a */
void inode_unlock2(struct inode *a, struct inode *b);

/* Inodes in memory now. */
uint64_t icache_count(struct icache *ic);

#endif
