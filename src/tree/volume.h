/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * volume.h - trees: the live one, its snapshots, and those that are being given back.
 *
 * The volume table is a file of rows (struct pmfs_volume), its page table's root is in the
 * superblock.  Each row has the root of an inode file.
 *
 *   V1  A snapshot is a row that shares the live volume's inode file root: one page_ref and one
 *       row, whatever the size of the tree.
 *   V2  Rows and roots change inside transactions; a row in memory is what a commit that closed now
 *       would hold.
 *   V3  Ids are never used twice, so node ids (id << 40 | inode number) of a deleted volume mean
 *       nothing else later.
 *   V4  A dying volume has no name; reclaim.h gives its pages back in steps, each part of an
 *       ordinary commit.
 *
 * Locks: the list of volumes is guarded by fs->volumes_lock (LOCK_VOLUMES, rwlock, held for a
 * moment and with nothing taken under it); the inode file and its counters by vol->lock
 * (LOCK_ITABLE); fs->snap_lock (LOCK_SNAP) makes changes of the list one at a time, and who holds
 * it may read names without volumes_lock.  What a snapshot has in counters and roots is fixed once
 * it is in the list.
 */
#ifndef PMFS_TREE_VOLUME_H
#define PMFS_TREE_VOLUME_H

#include <stdatomic.h>

#include "base/lock.h"
#include "tree/ptab.h"

struct fs;

struct volume {
	struct fs *fs;
	uint64_t id;			  /* set once */
	uint32_t row;			  /* set once */
	_Atomic uint32_t state;		  /* PMFS_VOL_*; changed under snap_lock and volumes_lock */
	uint64_t generation;		  /* set once */
	uint64_t created_ns;		  /* set once */
	char name[PMFS_VOL_NAME_MAX + 1]; /* changed under snap_lock and volumes_lock */
	char message[PMFS_VOL_MESSAGE_MAX + 1]; /* as name */

	struct mutex lock;				      /* LOCK_ITABLE */
	struct ptab inodes;				      /* guarded by lock */
	uint64_t next_ino, free_ino, inodes_used, data_pages; /* guarded by lock */

	_Atomic uint64_t hidden; /* number of the hidden directory, 0: none; is set once */
	_Atomic bool stuck; /* the reclaimer has met damage */
	/* Cached inodes and running walks; a dying volume is reclaimed at 0. */
	_Atomic uint32_t users;
	struct volume *hash_next, *name_next; /* guarded by volumes_lock */
	struct volume *next, *prev; /* guarded by volumes_lock */
};

#define VOLUME_ROW_COST 4u /* frames that changing one row can take */

static inline bool volume_writable(const struct volume *vol)
{
	return atomic_load(&vol->state) == PMFS_VOL_LIVE;
}

/* Read the table; make the first volume when there is none (not read-only).  -EUCLEAN… with *what
 * for a person. */
int volumes_load(struct fs *fs, const char **what);
void volumes_unload(struct fs *fs);

/* Write the row of a volume whose roots or counters changed.  Locks: vol->lock held. */
int volume_store_row(struct txn *tx, struct volume *vol);

/* By id or name; adds a user.  NULL: none (a dying one is not found).  volume_put() is the
 * opposite. */
struct volume *volume_get(struct fs *fs, uint64_t id);
struct volume *volume_get_by_name(struct fs *fs, const char *name);
/* Wakes the reclaimer when the last user of a dying volume goes. */
void volume_put(struct volume *vol);

/* ---- for repair */

/* Zero terminated and padded? */
bool volume_text_valid(const uint8_t *text, size_t size);
/* A row that is in use: NULL, or what is wrong with it.  vol is new. */
const char *volume_row_decode(const struct pmfs_volume *rec, uint64_t next_volume, struct volume *vol);

/* ---- for snapshot.c, reclaim.c and check.c */

/* A volume in memory that is in no list yet; NULL: no memory. */
struct volume *volume_new(struct fs *fs);
void volume_free(struct volume *vol);
/* Give it the next id and a row, and let it share the live volume's tree.  tx: of the closing
 * generation.  Locks: snap_lock held. */
int volume_fork(struct txn *tx, struct volume *vol);
/* Put it into the list.  Locks: snap_lock held. */
void volume_add(struct volume *vol);
/* Write its row with another state, name and message than it has in memory.  Locks: snap_lock,
 * vol->lock held. */
int volume_store_as(struct txn *tx, struct volume *vol, uint32_t state, const char *name,
		    const char *message);
/*
 * Hold the live volume as it is at one moment: a volume that is born dying, so that nobody sees it and a crash leaves nothing that would not be
 * given back.  volume_put() lets go of it.  Errors of fs_snap_create().
 */
int volume_pin(struct fs *fs, struct volume **out);
/* Free the row of a dying volume whose inode file is gone. */
int volume_erase_row(struct txn *tx, struct volume *vol);
/* In memory: what its row says by now.  message "": none any more; else it stays.  Locks: snap_lock
 * held, or a repair. */
void volume_become(struct volume *vol, uint32_t state, const char *name, const char *message);
/* Take an erased one out of the list and free it. */
void volume_remove(struct volume *vol);
/* A dying volume without users that is not stuck, NULL: none.  Only the reclaimer ends it. */
struct volume *volume_next_dying(struct fs *fs);
/* The first volume with an id above `after`, dying ones included; adds a user.  NULL: no more. */
struct volume *volume_next(struct fs *fs, uint64_t after);

#endif
