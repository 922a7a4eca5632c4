/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control.h - what the two modules of the control session share: control.c (the session, and files
 * with texts) and control_views.c (the directories `views` and `alias`).
 *
 * Node ids: the root 1, texts from 2 on, the two directories; a view has the inode number of its
 * file with CONTROL_VIEW_BIT, its alias that with CONTROL_ALIAS_BIT.  They are two inodes to the
 * kernel: one can be written, and each has a backing file of its own.
 *
 *   D1  An inode is opened in one way at a time, with passthrough or through the page cache.
 *   D2  An alias through the page cache has pages of its own: who writes through the view makes the
 * kernel forget them.
 *   D3  With passthrough, who opened a view with O_SYNC or O_DSYNC reads and writes through us, or
 *       the kernel would be content with the memory; his mappings are the same as everybody's.
 */
#ifndef PMFS_FUSE_CONTROL_H
#define PMFS_FUSE_CONTROL_H

#include "fuse/front_impl.h"
#include "view/view.h"

#define CONTROL_VIEWS	  ((fuse_ino_t)16)
#define CONTROL_ALIAS	  ((fuse_ino_t)17)
#define CONTROL_VIEW_BIT  (UINT64_C(1) << 62)
#define CONTROL_ALIAS_BIT (UINT64_C(1) << 63)

/* One way to see a view. */
struct side {
	uint64_t lookups;
	uint32_t opens;
	int backing; /* registered with the kernel, > 0; 0: opens go through the page cache */
};

/* A view that the kernel knows. */
struct node {
	struct node *next;
	uint64_t id;
	struct side view, alias;
	uint64_t idle_ms;	      /* since when nothing has it open; on the monotonic clock */
	char name[PMFS_NAME_MAX + 1]; /* the last that is known */
};

struct control {
	struct front *fr;
	struct fuse_session *se;
	struct loop *loop;
	struct views *views; /* NULL: none */
	struct notify *notify;
	pthread_t thread, sweeper;
	char *dir;
	uint64_t dev;
	bool mounted, running, sweeping;
	_Atomic bool passthrough;

	struct mutex lock;  /* LOCK_LEAF */
	struct cond wake;   /* `ending` was set */
	struct node *nodes; /* guarded by lock */
	bool ending;	    /* guarded by lock */
};

static inline bool control_is_view(fuse_ino_t ino)
{
	return ino & (CONTROL_VIEW_BIT | CONTROL_ALIAS_BIT);
}

static inline bool control_is_alias(fuse_ino_t ino)
{
	return ino & CONTROL_ALIAS_BIT;
}

/* What stat(2) says; views have their file's number, and aliases that with another bit. */
static inline uint64_t control_st_ino(fuse_ino_t ino)
{
	return ino | UINT64_C(1) << 61;
}

static inline bool control_is_dir(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID || ino == CONTROL_VIEWS || ino == CONTROL_ALIAS;
}

/* Fills in the operations that only views have. */
void views_ops(struct fuse_lowlevel_ops *ops);
/* The parts of operations that texts have, too. */
void views_lookup(fuse_req_t req, fuse_ino_t dir, const char *name);
void views_getattr(fuse_req_t req, fuse_ino_t ino);
void views_readdir(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off);
void views_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void views_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi);
void views_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* Of the directories. */
int views_dir_stat(struct control *ct, fuse_ino_t ino, struct stat *st);
/* Make the kernel forget views that nobody has opened for a while; in a thread of its own. */
void *views_sweep(void *arg);
/* The session has ended: forget everything. */
void views_drop(struct control *ct);

#endif
