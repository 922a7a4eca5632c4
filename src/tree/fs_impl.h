/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_impl.h - what the modules of this layer share of struct fs.  Only src/tree includes it.
 */
#ifndef PMFS_TREE_FS_IMPL_H
#define PMFS_TREE_FS_IMPL_H

#include "base/bits.h"
#include "base/lock.h"
#include "tree/fs.h"
#include "tree/icache.h"
#include "tree/volume.h"

struct reclaim;

#define VOLUME_BUCKETS 4096u

struct fs {
	struct store *st;   /* set once */
	struct icache *ic;  /* set once */
	struct reclaim *rc; /* set once */
	bool read_only;	    /* set once */

	uint32_t root_uid, root_gid, root_mode; /* set once */

	struct mutex rename_lock; /* LOCK_RENAME: no directory moves to another parent without it */
	struct mutex snap_lock;	  /* LOCK_SNAP: one change of the list of volumes at a time */
	struct rwlock volumes_lock; /* LOCK_VOLUMES */
	/* Guarded by volumes_lock, up to `dying`. */
	struct volume *volumes, *last;		/* in the order of their ids */
	struct volume *by_id[VOLUME_BUCKETS];	/* chained by hash_next */
	struct volume *by_name[VOLUME_BUCKETS]; /* snapshots; chained by name_next */
	uint64_t rows_used[BITMAP_WORDS(PMFS_VOL_ROWS_MAX)]; /* bitmap: rows of volumes in the list */
	_Atomic uint64_t dying;		/* volumes in the list; may be read without the lock */
	_Atomic uint64_t volume_steps;	/* volumes that were looked at to find or place one; for tests */
	struct volume *live;	    /* set once */
	struct mutex table_lock; /* LOCK_TABLE, after LOCK_ITABLE: guards `table` and its pages */
	struct ptab table;	 /* the volume table; guarded by table_lock */
	uint32_t rows;		 /* guarded by table_lock */
	uint64_t next_volume;	 /* guarded by table_lock */
};

/* ---- attr.c: shared by file.c and name.c ---- */
void now(struct timespec *ts);				      /* CLOCK_REALTIME */
void inode_attr(const struct inode *in, struct fs_attr *out); /* lock held, shared is enough */
/* Do its flags allow a change (adding: of a kind that append-only allows)?  0 or -EPERM; lock
 * held. */
int inode_changeable(const struct inode *in, bool adding);
/* Find and hold an inode that may be changed.  -EROFS: a snapshot, or the fs is read-only. */
int inode_get_writable(struct fs *fs, uint64_t id, struct inode **out);
/* Clear setuid, setgid and security.capability (not of directories). Own and store are the
 * caller's; cost: its frames. */
int inode_kill_priv(struct txn *tx, struct inode *in);
uint64_t inode_kill_cost(struct inode *in);
/* ---- check.c: fs_check(), which tells of each finding in a volume which one that is ---- */
struct check_how {
	bool data;
	bool ends; /* look behind the ends of files, which data does, too */
	void (*bad)(void *arg, const char *what);
	void (*of_volume)(void *arg, struct volume *vol);  /* may be NULL */
	void (*progress)(void *arg, double percent);       /* may be NULL */
};
int check_by_volume(struct fs *fs, const struct check_how *how, void *arg);
/* ---- owner.c: a path of each of these inodes of the live volume, where one is found ---- */
int fs_find_paths(struct fs *fs, const uint64_t *inos, size_t n, void (*fn)(void *arg, uint64_t ino, const char *path), void *arg);
/* ---- file.c ---- */
/* Finish a truncation that a crash or a full image cut short (PMFS_INODE_STALE). Lock held
 * exclusively, no transaction open. */
int file_trim(struct fs *fs, struct inode *in);
/*
 * Write into a regular file.  Returns bytes.  flags: FS_WRITE_KILL_PRIV.  Locks: exclusive, no
 * transaction.
 */
ssize_t file_write(struct fs *fs, struct inode *in, uint64_t off, const uint8_t *buf, size_t len,
		   unsigned flags);
/* ---- ringlog.c; locks as file_write() */
ssize_t ringlog_write(struct fs *fs, struct inode *in, uint64_t off, const uint8_t *buf, size_t len,
		      unsigned flags, struct fs_written *out);
/* May a file reach to this byte?  -EFBIG. */
int ringlog_room(struct inode *in, uint64_t end);
/* The value of FS_RINGLOG_END, as xattr_get() would; in->lock held, shared at least. */
ssize_t ringlog_end(struct inode *in, void *buf, size_t size);
/* Cut off what is too much for this limit. */
int ringlog_fit(struct fs *fs, struct inode *in, uint64_t limit);
/* The value of the attribute.  -EINVAL. */
int ringlog_parse(const void *value, size_t len, uint64_t *limit);
/* ---- file.c */
/* Set the size of a regular file (lock held exclusively, no transaction open: big truncations take
 * several). */
int file_set_size(struct fs *fs, struct inode *in, uint64_t size);
/* Write a symlink's target or read it: inline when it fits, else one page. tx open, lock held. */
int file_set_contents(struct txn *tx, struct inode *in, const void *buf, size_t len);
ssize_t file_get_contents(struct inode *in, void *buf, size_t size);
#define FILE_CONTENTS_COST 12u

#endif
