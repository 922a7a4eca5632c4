/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * view.h - view files: files whose contents are memory of their own while somebody uses them.
 *
 * A view is a regular file in the directory "views" of a volume's hidden directory.  When it is
 * used first, its pages are loaded into a memory file, which serves reads, writes and mappings -
 * with FUSE passthrough without us.  What has changed is written back to the pages of the file:
 * when asked for (fsync), every few seconds, for a snapshot, and at the end.
 *
 *   W1  There is at most one memory file for a view, from view_get() until the kernel has forgotten
 * the inode (view_forgotten()) and all users have put it.  A mapping pins the kernel's inode, so
 *       memory that is mapped is never another view's.
 *   W2  In that time the memory is the truth: size, times of contents and bytes are asked from it.
 *   W3  Saving compares page by page, so it writes what changed and nothing else, and a view that
 *       nobody could write to is not looked at.
 *   W4  What cannot be saved (the image is full) stays in memory and is tried again.
 *
 * Writers store while a view is saved: the copy is one of pages as they were at different moments.
 *
 * Locks: LOCK_VIEWS guards the list, LOCK_VIEW one view's size and loading; neither may be held by
 * the caller.  All calls are thread safe and return 0, a count, or a negative errno.
 */
#ifndef PMFS_VIEW_VIEW_H
#define PMFS_VIEW_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tree/fs.h"

struct views;
struct view;

struct views_config {
	struct fs *fs;
	uint64_t limit_bytes; /* memory of all views together, 0: a quarter of RAM */
	unsigned save_ms;     /* how often a thread saves what has changed, 0: never */
	bool own_fs;	      /* mem.h: a tmpfs rather than memfds, where possible */
};

/* Makes the directory "views" when the volume has none and may be written. */
int views_new(struct views **out, const struct views_config *cfg);
/* Saves all (failures are logged), and forgets them; nobody uses one any more. */
void views_free(struct views *vs);
/* Node id of the directory; 0: there is none. */
uint64_t views_dir(const struct views *vs);
/* Save all that changed.  Returns how many had changed, or the first error; the others are saved
 * all the same. */
int views_save(struct views *vs);
/* Make huge pages of a part of the memory, where it is complete and the kernel has them; the thread
 * that saves does so each time. */
void views_make_huge(struct views *vs);

struct views_stats {
	uint64_t loaded; /* views in memory */
	uint64_t used_bytes, limit_bytes;
	uint64_t saved_pages; /* written back since the start */
	bool own_fs;
};
void views_stat(struct views *vs, struct views_stats *out);

/* Find or load; adds a user.  id is a regular file that the caller has looked up.  writable: it may
 * be changed from now on. */
int view_get(struct views *vs, uint64_t id, bool writable, struct view **out);
/* The same only if it is in memory; else NULL. */
struct view *view_find(struct views *vs, uint64_t id);
void view_put(struct view *v);
/* The kernel knows the inode no more: its memory goes as soon as it has no user. */
void view_forgotten(struct views *vs, uint64_t id);

/* The memory file; set once.  The second can't be written through. */
int view_fd(const struct view *v);
int view_fd_read_only(const struct view *v);

ssize_t view_read(struct view *v, uint64_t off, void *buf, size_t len);
/* -EFBIG, -ENOSPC: the memory of all views is used up.  append: at the end; *at (may be NULL) says
 * where it went. */
ssize_t view_write(struct view *v, uint64_t off, const void *buf, size_t len);
int view_truncate(struct view *v, uint64_t size);
/* mode: 0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE with or without KEEP_SIZE. */
int view_fallocate(struct view *v, int mode, uint64_t off, uint64_t len);
int view_seek(struct view *v, uint64_t off, bool data, uint64_t *out); /* -ENXIO */
/* What is in a->size, blocks, mtime and ctime, from the memory (W2). */
int view_attr(struct view *v, struct fs_attr *a);
/* As FS_SET_ATIME, FS_SET_MTIME and their _NOW in mask. */
int view_set_times(struct view *v, unsigned mask, const struct fs_setattr *set);
/* Write what changed back to the file's pages, and in the next commit.  1: something had changed.
 */
int view_save(struct view *v);

#endif
