/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * front_impl.h - what the modules of this layer share.  Nothing outside src/fuse includes it.
 *
 *   M1  Every request is answered exactly once, and no lock of ours is held while it is (a READ
 *       holds its file against writers: fs_read_begin()).
 *   M2  A handler never waits for the kernel: no notification, no path in the own mount, no syncfs.
 *       notify.c and flush.c do that, in other threads.
 *   M3  An entry that the kernel did not get (its reply failed) is forgotten here.
 */
#ifndef PMFS_FUSE_FRONT_IMPL_H
#define PMFS_FUSE_FRONT_IMPL_H

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#if defined(HAVE_DECL_FUSE_SET_FEATURE_FLAG) && HAVE_DECL_FUSE_SET_FEATURE_FLAG
#define FUSE_USE_VERSION 317
#else
#define FUSE_USE_VERSION 314
#endif
#include <fuse_lowlevel.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "fuse/front.h"
#include "fuse/loop.h"
#include "tree/fs.h"

#if defined(HAVE_DECL_FUSE_CAP_OVER_IO_URING) && HAVE_DECL_FUSE_CAP_OVER_IO_URING
#define FRONT_URING 1
#else
#define FRONT_URING 0
#endif

#define MAX_BACKGROUND 65535u /* below it syncfs(2) leaves dirty files behind */

/* Seconds: only this daemon changes the tree, so what the kernel knows stays true until it is told
 * otherwise. */
#define TIMEOUT_FOREVER 1e9

#define FRONT_OPS(X)                  \
	X(LOOKUP, "lookup")           \
	X(FORGET, "forget")           \
	X(GETATTR, "getattr")         \
	X(SETATTR, "setattr")         \
	X(READLINK, "readlink")       \
	X(MKNOD, "mknod")             \
	X(MKDIR, "mkdir")             \
	X(SYMLINK, "symlink")         \
	X(CREATE, "create")           \
	X(TMPFILE, "tmpfile")         \
	X(LINK, "link")               \
	X(UNLINK, "unlink")           \
	X(RMDIR, "rmdir")             \
	X(RENAME, "rename")           \
	X(OPEN, "open")               \
	X(FLUSH, "flush")             \
	X(RELEASE, "release")         \
	X(OPENDIR, "opendir")         \
	X(READDIR, "readdir")         \
	X(READDIRPLUS, "readdirplus") \
	X(READ, "read")               \
	X(WRITE, "write")             \
	X(FSYNC, "fsync")             \
	X(FALLOCATE, "fallocate")     \
	X(LSEEK, "lseek")             \
	X(COPY, "copy_file_range")    \
	X(STATFS, "statfs")           \
	X(STATX, "statx")             \
	X(GETXATTR, "getxattr")       \
	X(LISTXATTR, "listxattr")     \
	X(SETXATTR, "setxattr")       \
	X(REMOVEXATTR, "removexattr") \
	X(IOCTL, "ioctl")

enum front_op {
#define X(op, name) OP_##op,
	FRONT_OPS(X)
#undef X
	OP_COUNT
};

struct notify;
struct control;

#define TOLD_BITS 12

/*
 * Threads: front_run() is in the caller's; requests are handled by those of loop.h, or by libfuse's
 * and those of its rings; besides, `stopper` waits for signals and front_stop(), and `setup` does
 * what needs a mount that answers.
 */
struct front {
	struct front_config cfg; /* strings are copies; set once */
	struct fs *fs;		 /* set once */
	uint64_t root;		 /* node id of the live root; set once */
	struct fuse_session *se; /* set once */
	struct loop *loop;	 /* of the classic device; NULL: libfuse's loop, and its rings */
	struct notify *moved; /* for notify_moved(), which others wait for; set once */
	struct notify *notify;	 /* set once */
	struct control *control; /* NULL: none */
	char *strings[4];	 /* the copies that cfg points to */

	struct rwlock alive_lock; /* LOCK_MOUNT */
	bool alive;		  /* the session has its device; guarded by alive_lock */
	bool mounted;		  /* by front_new(), and front_run() has not taken it down */
	int stop_event;		  /* eventfd: stop, or the loop has ended */
	int signals;		  /* signalfd */
	_Atomic bool told_to_stop; /* by a signal or front_stop() */
	_Atomic bool ended;	  /* the loop has */
	_Atomic uint64_t dev;	  /* st_dev of the mount, 0: not known yet */

	/* What was agreed with the kernel; set in INIT, read by anybody later. */
	_Atomic bool init_done, writeback, killpriv_v2, explicit_inval, no_open, readdirplus,
		passthrough, setxattr_ext, posix_acl;
	_Atomic bool uring_wanted, uring_agreed, uring; /* the last: a request has come that way */
	_Atomic unsigned max_write, max_readahead, max_background, proto_minor;

	_Atomic uint64_t handed_over; /* WRITE, SETATTR and FSYNC requests that have been answered */
	_Atomic uint64_t snapdir_changed_ns;	 /* a snapshot was deleted or renamed */
	_Atomic unsigned telling;		 /* told.c: N1 */
	_Atomic uint32_t told[1u << TOLD_BITS];	 /* threads; 0: nobody, UINT32_MAX: several */
	struct front_op_count ops[OP_COUNT + 1]; /* atomic */
};

/* Of the request that this thread of the classic loop is handling. */
struct request {
	uint64_t unique;
	bool kill_priv; /* HANDLE_KILLPRIV_V2, where libfuse does not hand it through */
	bool kill_sgid; /* SETXATTR_EXT: the same */
	bool tmpfile;	/* this CREATE is a TMPFILE, where libfuse does not know that */
	unsigned init;	/* PROTOCOL_*: what this INIT offers and libfuse would not take */
};
extern _Thread_local struct request this_request;

/* ---- front.c ---- */
static inline struct front *front_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The root has node id 1 with the kernel and another one in the tree. */
static inline uint64_t node_of(const struct front *fr, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? fr->root : ino;
}

static inline fuse_ino_t ino_of(const struct front *fr, uint64_t id)
{
	return id == fr->root ? FUSE_ROOT_ID : id;
}

bool conn_can(const struct fuse_conn_info *conn, uint64_t cap);
/* Ask for it where it is offered, or say that we do without; is it on? */
bool conn_want(struct fuse_conn_info *conn, uint64_t cap, bool on);
/* What both sessions ask for.  Can pages be kept until we take them back? */
bool conn_want_common(struct fuse_conn_info *conn);

/* Begin a request: count it, and find out whether it came through a ring. */
struct front *request_begin(fuse_req_t req, enum front_op op);
bool request_is_ring(fuse_req_t req);
/* Answer it with an error (negative errno) or with success (0). */
void request_fail(fuse_req_t req, enum front_op op, int err);
/* The same for an error with a meaning that is no failure: no such name or attribute, not
 * supported. */
void request_refuse(fuse_req_t req, int err);

/* ---- ops_meta.c, ops_dir.c, ops_file.c: fill in their part of the table ---- */
void ops_meta(struct fuse_lowlevel_ops *ops);
void ops_dir(struct fuse_lowlevel_ops *ops);
void ops_file(struct fuse_lowlevel_ops *ops);

void attr_to_stat(const struct front *fr, const struct fs_attr *a, struct stat *st);
void attr_to_entry(const struct front *fr, const struct fs_attr *a, struct fuse_entry_param *e);
/* Answer with an entry that counts as one lookup. */
void reply_entry(fuse_req_t req, const struct fs_attr *a);

/* ---- ops_file.c ---- */
/*
 * Work that may take long is done where the request came in.  With rings that stalls the other
 * callers of that CPU, but only the ring's own thread may answer: libfuse 3.18.3 loses a lock when
 * another thread replies to a ring that is busy (fuse_uring_commit_sqe()).
 *
 * True when the rings have been taken down meanwhile, and the request with them: it can't be
 * answered any more.
 */
bool request_orphaned(const struct front *fr);

/* ---- ops_meta.c: FUSE_SET_ATTR_... as FS_SET_... ---- */
unsigned setattr_mask(const struct front *fr, int to_set);

/* ---- notify.c ---- */
/* For this session, which outlives it; when it is the front's own, as long as it is alive. */
int notify_new(struct notify **out, struct front *fr, struct fuse_session *se);
/* Send no more; what is queued is dropped, and what comes.  The session's requests are still
 * served. */
void notify_stop(struct notify *nt);
void notify_free(struct notify *nt); /* notify_stop() included */
/* Any thread, also a handler.  Attributes alone: off -1.  len 0: to the end. */
void notify_inval(struct notify *nt, fuse_ino_t ino, off_t off, off_t len);

/*
 * A ring log: the kernel's pages from the byte `from` on are wrong, and its idea of the end.  Called
 * while the file is still locked against readers, so that nobody sees the change before it is known
 * here.  Handlers and under LOCK_INODE.
 */
void notify_moved(struct notify *nt, fuse_ino_t ino, uint64_t from);
/* The same for a change that can't be told under the lock: hold, change, notify_moved(), release. */
void notify_hold(struct notify *nt);
void notify_release(struct notify *nt);
/*
 * After fs_set_flags_cached(): makes the kernel hand over what it has of `ino` and not written yet, and
 * then calls fs_flags_settled().  No request waits for that: with rings, one that is not answered keeps
 * a place that the WRITEs may need.  For struct front.notify.
 */
void notify_settle(struct notify *nt, fuse_ino_t ino);
/*
 * Before attributes are told: wait until the kernel has forgotten what was wrong when the call came,
 * so that nobody looks for the new end in an old page.  Not for ever, since it may need the thread
 * that waits, and shorter in that of a ring; false: it has not yet.
 */
bool notify_wait(struct notify *nt, fuse_ino_t ino, bool ring);
/* Has the kernel nothing that is wrong at this moment? */
bool notify_is_clean(struct notify *nt, fuse_ino_t ino);

/* ---- told.c: around reading attributes that a directory may have, and after a change of its names ---- */
void told_begin(struct front *fr);
void told_about(struct front *fr, fuse_req_t req, const struct fs_attr *a);
void told_end(struct front *fr);
/* Before the answer; without locks. */
void told_changed(struct front *fr, fuse_req_t req, fuse_ino_t dir);

/* ---- mount.c ---- */
/* Mount a session.  On error text says what for a person. */
int mount_session(struct fuse_session *se, const char *mountpoint, char text[256]);
/* Is something mounted there that we can mount over?  -ENOENT, -ENOTDIR, -EBUSY… with text. */
int mount_check(const char *mountpoint, char text[256]);
/* Take a mount away: 0, -EBUSY (only without lazy), -ENOENT (it is not there). */
int mount_remove(const char *mountpoint, uint64_t dev, bool lazy);
/* The device number of the topmost mount at that place, its type in type[]; -ENOENT.  Does not
 * touch the mount. */
int mount_find(const char *mountpoint, uint64_t *dev, char type[64]);
/* Commas and backslashes in an option's value. */
char *mount_escape(const char *name, const char *value);
/* Readahead of the mount, when we may set it. */
void mount_set_readahead(uint64_t dev, unsigned kib);
/* Libfuse's messages go to our log; the last one is kept for mount_session(). */
void mount_catch_messages(void);

/* ---- flush.c ---- */
/* Let the kernel hand over what it has of the session mounted at dir (device dev), whose requests
 * lp serves; rings: those of libfuse do, too.  handed_over (may be NULL): as in struct front. */
int flush_session(const char *dir, uint64_t dev, struct loop *lp, bool rings,
		  const _Atomic uint64_t *handed_over);

/* ---- control.c ---- */
/* Let the kernel hand over what it has of views. */
int control_flush(struct control *ct);
int control_new(struct control **out, struct front *fr, const char *dir, char text[256]);
void control_free(struct control *ct);

/* ---- virtual.c: `.snapshots` and `.pmfs` ---- */
#define VIRT_SNAPSHOTS 2u
#define VIRT_PMFS      3u

static inline bool is_virtual(fuse_ino_t ino)
{
	return ino > FUSE_ROOT_ID && ino < 256;
}

/* The virtual node of a name in a directory; 0: none. */
fuse_ino_t virtual_name(const struct front *fr, fuse_ino_t dir, const char *name);
/* May this name be made, removed or replaced by a user? 0, or the error.  making: a new name. */
int virtual_refuse(const struct front *fr, fuse_ino_t dir, const char *name, bool making);
void virtual_stat(struct front *fr, fuse_ino_t ino, struct stat *st);
/* The node id of `.pmfs` in the root of a snapshot: the views as they were.  0: the name is not
 * that, or there were none. */
uint64_t virtual_hidden(const struct front *fr, fuse_ino_t dir, const char *name);
/* Lookup: of a virtual name in the root, or of a snapshot below `.snapshots`. 0 or an error. */
int virtual_lookup(struct front *fr, fuse_ino_t dir, const char *name, struct fuse_entry_param *e);
/* The target of `.pmfs`, malloc'ed. */
char *virtual_link_target(const struct front *fr);
/* As fs_readdir() for `.snapshots`. */
int virtual_readdir(struct front *fr, uint64_t cookie,
		    int (*fn)(void *arg, const struct fs_dirent *de), void *arg);
/* st_ino of a virtual node: of volume 1's numbers, which no file shows. */
uint64_t virtual_st_ino(fuse_ino_t ino);

#endif
