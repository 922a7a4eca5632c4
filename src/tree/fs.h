/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs.h - a filesystem: what the FUSE front, the control channel and the tools call.  The door to
 * this layer.
 *
 * Nodes are named by id (volume << 40 | inode number).  Ids come from fs_lookup() and the calls
 * that create; each such answer counts as one lookup, and the id stays good until fs_forget() has
 * given all of them back, also when its name is removed. Permissions are the kernel's business
 * (default_permissions); what is checked here is what the kernel leaves to a filesystem. Snapshots
 * are read-only: every change there is -EROFS.
 *
 * All calls are thread safe and return 0, a count or a negative errno.  Names need not be
 * terminated and are any bytes but '/' and 0.
 */
#ifndef PMFS_TREE_FS_H
#define PMFS_TREE_FS_H

#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "store/store.h"

struct fs;

/*
 * Repair, which is a part of opening (fs_config.repair; not read-only, no store.lost): what is damaged is told and mended, in ordinary transactions,
 * so that a crash in the middle leaves an image that is no worse.  What can't be read is lost: parts of page tables become holes, pages that the page
 * map lost are gone, inodes without a name go to /lost+found.
 */
#define FS_REPAIR_INOS 64u
struct fs_repair {
	bool cut_data; /* damaged contents become holes; otherwise they stay, and stay an error to who reads them */
	/* In words; left: it could not be mended. */
	void (*said)(void *arg, bool left, const char *what);
	void (*progress)(void *arg, const char *what, double percent); /* may be NULL */
	void *arg;
	/* Out: how many of each; the first inodes that have lost something. */
	uint64_t fixed, left;
	uint64_t inos[FS_REPAIR_INOS];
	size_t n_inos;
};

struct fs_config {
	struct store_config store; /* relief is filled in here */
	struct fs_repair *repair;  /* NULL: none */
	bool background;	   /* reclaim thread */
	/* Of the root directory when the image is new; mode 0: 0755. */
	uint32_t root_uid, root_gid, root_mode;
};

int fs_open(struct fs **out, const struct fs_config *cfg, struct store_error *err);
int fs_close(struct fs *fs);	/* the error of the last commit */
void fs_abandon(struct fs *fs); /* as kill -9 would; tests */
struct store *fs_store(struct fs *fs);
bool fs_read_only(const struct fs *fs);
/* The inode number in a node id. */
#define FS_INO(id) ((uint64_t)(id) & ((UINT64_C(1) << 40) - 1))
uint64_t fs_root(const struct fs *fs); /* node id of the live root */
/*
 * Node id of the hidden directory of the volume that id is in, 0: it has none; needs no lookup.
 * No name leads there: what is in it is shown elsewhere.
 */
uint64_t fs_hidden(struct fs *fs, uint64_t id);
/* Make that of the live volume, unless it has one. */
int fs_make_hidden(struct fs *fs);
/* Is it the root of a volume that is not the live one? */
bool fs_is_snapshot_root(const struct fs *fs, uint64_t id);

struct fs_attr {
	uint64_t id;  /* node id */
	uint64_t ino; /* st_ino: the number in the live volume, the node id in a snapshot */
	uint64_t generation;
	uint32_t mode, nlink, uid, gid;
	uint32_t rdev;	       /* makedev() of the host */
	uint64_t size, blocks; /* bytes; 512-byte units */
	struct timespec atime, mtime, ctime, btime;
	uint32_t flags; /* PMFS_INODE_USER */
};

struct fs_cred {
	uint32_t uid, gid;
};

/* ------------------------------------------------------------------ names */

/* "." and ".." too; "." of anything that has a name, so that an id that was kept can be used
 * again. */
int fs_lookup(struct fs *fs, uint64_t dir, const char *name, size_t len, struct fs_attr *out);
void fs_forget(struct fs *fs, uint64_t id, uint64_t n);
/* One lookup more of a node that is known already. */
int fs_remember(struct fs *fs, uint64_t id);
/*
 * Regular files, fifos, sockets, devices by mode.  A setgid directory gives its group (and to
 * directories the bit).  A mode to create with may have FS_UMASK(mask) in it: taken from the
 * permissions unless the directory has a default access control list, which then limits them.
 */
#define FS_UMASK_SHIFT 16
#define FS_UMASK(mask) (((uint32_t)(mask) & 0777u) << FS_UMASK_SHIFT)
int fs_mknod(struct fs *fs, uint64_t dir, const char *name, size_t len, uint32_t mode,
	     uint32_t rdev, const struct fs_cred *cred, struct fs_attr *out);
int fs_mkdir(struct fs *fs, uint64_t dir, const char *name, size_t len, uint32_t mode,
	     const struct fs_cred *cred, struct fs_attr *out);
int fs_symlink(struct fs *fs, uint64_t dir, const char *name, size_t len, const char *target,
	       const struct fs_cred *cred, struct fs_attr *out);
/* nlink 0; fs_link() names it. */
int fs_tmpfile(struct fs *fs, uint64_t dir, uint32_t mode, const struct fs_cred *cred,
	       struct fs_attr *out);
/* -EMLINK at 2^32 - 2. */
int fs_link(struct fs *fs, uint64_t id, uint64_t dir, const char *name, size_t len,
	    struct fs_attr *out);
int fs_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len);
int fs_rmdir(struct fs *fs, uint64_t dir, const char *name, size_t len);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE; others -EINVAL.  Works on a full image. */
int fs_rename(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t new_dir,
	      const char *new_name, size_t new_len, unsigned flags);
/* The same without RENAME_EXCHANGE, leaving a whiteout of that owner behind: a character device 0/0
 * (RENAME_WHITEOUT, for overlayfs). */
int fs_rename_whiteout(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t new_dir,
		       const char *new_name, size_t new_len, unsigned flags,
		       const struct fs_cred *cred);
ssize_t fs_readlink(struct fs *fs, uint64_t id, char *buf, size_t size);

struct fs_dirent {
	const char *name; /* zero terminated; valid during the call */
	size_t name_len;
	uint64_t ino;  /* as st_ino */
	uint64_t id;   /* node id, for fs_getattr_dirent(); 0 for ".." of a snapshot's root */
	uint8_t type;  /* DT_* */
	uint64_t next; /* cookie to go on with after this entry */
};
/* From cookie (0: the start) on, "." and ".." first.  fn: not 0 ends the walk, and its entry was
 * not taken.  Returns 0 at the end, else what fn returned. fn runs without locks, so it may look up
 * what it is told. */
int fs_readdir(struct fs *fs, uint64_t dir, uint64_t cookie,
	       int (*fn)(void *arg, const struct fs_dirent *de), void *arg);

/* ------------------------------------------------------------------ attributes */

int fs_getattr(struct fs *fs, uint64_t id, struct fs_attr *out);

enum {
	FS_SET_MODE = 1,
	FS_SET_UID = 2,
	FS_SET_GID = 4,
	FS_SET_SIZE = 8,
	FS_SET_ATIME = 16,
	FS_SET_MTIME = 32,
	FS_SET_CTIME = 64,
	FS_SET_ATIME_NOW = 128,
	FS_SET_MTIME_NOW = 256,
	FS_SET_KILL_PRIV = 512, /* clear setuid, setgid (if group executable), capabilities along */
};
struct fs_setattr {
	uint32_t mode, uid, gid;
	uint64_t size;
	struct timespec atime, mtime, ctime;
};
/* ctime is stamped unless given; a new size stamps mtime unless given; chown kills privileges as
 * chown(2) does when FS_SET_KILL_PRIV is set. */
int fs_setattr(struct fs *fs, uint64_t id, unsigned mask, const struct fs_setattr *in,
	       struct fs_attr *out);
/*
 * Set those of PMFS_INODE_USER that are in mask.  Of an immutable file or directory nothing can be
 * changed but these; what is append-only has its contents or names added to, no other change.
 * -EPERM from all calls that would; -EINVAL: other flags; -EOPNOTSUPP: neither file nor directory.
 */
int fs_set_flags(struct fs *fs, uint64_t id, uint32_t mask, uint32_t flags);
/*
 * The same, for who has a cache in front of it: what was written before can still arrive, writes with
 * FS_WRITE_CACHED and the time of the last one, until fs_flags_settled().  That must follow each
 * call that has succeeded.
 */
int fs_set_flags_cached(struct fs *fs, uint64_t id, uint32_t mask, uint32_t flags);
void fs_flags_settled(struct fs *fs, uint64_t id);

/*
 * user., trusted., security. names and the two of access control lists (acl.h), which change the
 * mode as it does them (-EACCES: a default one of no directory; removing what is not there is no
 * error); others -EOPNOTSUPP.  Sizes and errors as xattr.h.
 */
#define FS_XATTR_KILL_SGID 0x10000 /* with the flags: a new access list clears setgid */
ssize_t fs_getxattr(struct fs *fs, uint64_t id, const char *name, void *buf, size_t size);
ssize_t fs_listxattr(struct fs *fs, uint64_t id, char *buf, size_t size);
int fs_setxattr(struct fs *fs, uint64_t id, const char *name, const void *value, size_t len,
		int flags);
int fs_removexattr(struct fs *fs, uint64_t id, const char *name);

/* ------------------------------------------------------------------ contents */

/*
 * Read without copying: pieces of the region, adjacent frames joined, holes as zeros.  Between
 * fs_read_begin() and fs_read_end() the file is locked against writers and the frames stay; reply
 * and end, nothing else.  Returns the bytes (0 at the end of the file).  max_iov pieces at most;
 * fewer bytes then.
 */
struct fs_read {
	struct inode *in;
	struct read_section rs;
	struct iovec *iov; /* given by the caller */
	int count, max;
};
ssize_t fs_read_begin(struct fs *fs, uint64_t id, uint64_t off, size_t len, struct fs_read *rd);
void fs_read_end(struct fs *fs, struct fs_read *rd);
/* The same by copying. */
ssize_t fs_read(struct fs *fs, uint64_t id, uint64_t off, void *buf, size_t len);

#define FS_WRITE_KILL_PRIV 1u
/* From a cache of whole pages: may repeat what an append-only file has already. */
#define FS_WRITE_CACHED 2u
/* All of it, or as much as fits (-ENOSPC only when nothing did).  -EFBIG. */
ssize_t fs_write(struct fs *fs, uint64_t id, uint64_t off, const void *buf, size_t len,
		 unsigned flags);
/*
 * A file with this attribute is a ring log: its value, a size as "64M", is one that the file never
 * passes.  A write that would, first cuts off the beginning; one at the end or beyond it is an
 * append.  Truncations and the like beyond it are -EFBIG.  The others are read-only: the number of
 * bytes that were ever cut off, and that and the size together, which is the number of bytes that
 * were ever in it and is not listed.
 */
#define FS_RINGLOG "user.pmfs.ringlog"
#define FS_RINGLOG_CUT "user.pmfs.ringlog.cut"
#define FS_RINGLOG_END "user.pmfs.ringlog.end"
#define FS_RINGLOG_MIN (UINT64_C(64) << 10)
#define FS_RINGLOG_MAX (UINT64_C(16) << 30)
struct fs_written {
	bool append; /* in: at the end, if it is a ring log */
	uint64_t at; /* out: where it went */
	bool cut;    /* out: the beginning was cut off */
	/*
	 * In, may be NULL: called when it went elsewhere than was asked, also when it failed after
	 * a cut, while nobody else can read the file; and from then on for each write to this file:
	 * who throws away cached pages because of one may have thrown away those of the next, and a
	 * reader then caches what was there before that.  Must not call this layer.  Locks:
	 * LOCK_INODE held.
	 */
	void (*moved)(void *arg, const struct fs_written *how);
	void *arg;
};
ssize_t fs_write_at(struct fs *fs, uint64_t id, uint64_t off, const void *buf, size_t len,
		    unsigned flags, struct fs_written *how);
/* mode: 0, FALLOC_FL_KEEP_SIZE, and PUNCH_HOLE or ZERO_RANGE with them as fallocate(2) allows.  A
 * reserved page reads as zeros, and a frame is set aside for it (page.h: P5); ZERO_RANGE reserves, too. */
int fs_fallocate(struct fs *fs, uint64_t id, int mode, uint64_t off, uint64_t len);
int fs_seek(struct fs *fs, uint64_t id, uint64_t off, bool data, uint64_t *out); /* -ENXIO */
/*
 * Shares whole nodes of page tables and whole pages, copies the rest.  One volume or from a snapshot
 * into the live one.  Overlap in one file -EINVAL.  Returns bytes: as many as can be done without
 * keeping others waiting.
 */
ssize_t fs_copy_range(struct fs *fs, uint64_t from, uint64_t from_off, uint64_t to, uint64_t to_off,
		      uint64_t len);
/* All that was done to it, and its name, is durable. */
int fs_fsync(struct fs *fs, uint64_t id, bool data_only);
int fs_sync(struct fs *fs);

/* What a regular file is made of.  Cost: its page table.  -EINVAL: another kind. */
struct fs_file_info {
	uint64_t size;
	uint64_t pages;	       /* with contents */
	uint64_t frames;       /* that hold these: fewer when some are equal, or all zeros */
	uint64_t shared_pages; /* of these, those that another file or a snapshot has, too */
	uint64_t table_pages;  /* of the page table */
	bool is_inline;	       /* the contents are in the inode */
	bool ring_log;
};
int fs_file_info(struct fs *fs, uint64_t id, struct fs_file_info *out);

struct fs_statfs {
	uint64_t blocks, free, available; /* 4 KiB; available: what ordinary writes can take */
	uint64_t inodes, inodes_free;
};
int fs_statfs(struct fs *fs, struct fs_statfs *out);

/* ------------------------------------------------------------------ snapshots */

struct fs_snapshot {
	uint64_t id, created_ns, generation;
	uint64_t inodes, data_pages;
	uint64_t root; /* node id */
	char name[PMFS_VOL_NAME_MAX + 1];
	char message[PMFS_VOL_MESSAGE_MAX + 1];
};
/* -EEXIST, -EINVAL: a bad name ("", ".", "..", "live", with '/' or a control character, not UTF-8,
 * or starting with '@' or '-'), -ENAMETOOLONG, -EMFILE: there are 2^15 volumes, or 2^24
 * have been. */
int fs_snap_create(struct fs *fs, const char *name, const char *message, struct fs_snapshot *out);
int fs_snap_find(struct fs *fs, const char *name, struct fs_snapshot *out); /* -ENOENT */
/* In the order they were made.  fn: not 0 ends.  Runs without locks. */
int fs_snap_each(struct fs *fs, int (*fn)(void *arg, const struct fs_snapshot *snap), void *arg);
/* Gone at once and for good; its pages follow in the background. */
int fs_snap_delete(struct fs *fs, const char *name);
int fs_snap_rename(struct fs *fs, const char *name, const char *new_name);
/* Like fs_lookup() of a snapshot's root: counts as one. */
int fs_snap_lookup(struct fs *fs, const char *name, struct fs_attr *out);
/* Pages and frames that only this snapshot has: what deleting it would free.  Cost: its nodes. */
int fs_snap_exclusive(struct fs *fs, const char *name, uint64_t *pages);

struct fs_stats {
	struct store_stats store;
	uint64_t inodes_used, data_pages; /* live volume */
	uint64_t logical_pages; /* data pages of all volumes, each counted for itself */
	uint64_t snapshots, dying, orphans, cached_inodes;
};
void fs_stat(struct fs *fs, struct fs_stats *out);

/*
 * Whose pages are these?  Walks all volumes, so it is for the few pages that are damaged; what
 * changes meanwhile can be missed.  A page that several files or snapshots share has a place in each
 * (FS_PLACES_MAX in all; paths are looked for in the first few volumes).
 */
#define FS_PLACES_MAX 64u
enum fs_place_kind { FS_PLACE_DATA, FS_PLACE_DIR, FS_PLACE_XATTR, FS_PLACE_INODES };
struct fs_place {
	vpn_t vpn;
	const char *volume;   /* the snapshot's name, "" the live tree */
	enum fs_place_kind kind;
	uint64_t ino;         /* whose; FS_PLACE_INODES: the first inode that is behind it */
	const char *path;     /* below the volume's root; "": not found */
	uint64_t off, len;    /* the bytes of the file, or the inodes, that are in or below the page */
};
int fs_find_pages(struct fs *fs, const vpn_t *vpns, size_t n,
		  void (*fn)(void *arg, const struct fs_place *place), void *arg);

/* Full walk: page counts, directories, link counts, sizes, free inodes, orphans.  data: hashes of
 * data pages too.  Nothing else may run. Returns the number of findings or an error that stopped
 * it. */
int fs_check(struct fs *fs, bool data, void (*bad)(void *arg, const char *what), void *arg);
/* The same, and how far it is, now and then. */
int fs_check_shown(struct fs *fs, bool data, void (*bad)(void *arg, const char *what),
		   void (*progress)(void *arg, double percent), void *arg);
/*
 * The same for an fs in use: the live volume as it is at one moment, which is held for as long as it takes (volume_pin()), and all snapshots.
 * Nobody waits for it.  What can't be told while others work: pages that nothing points at, and the counts of frames.
 * stop (may be NULL) is asked now and then with the same arg: true ends it with -ECANCELED.
 */
int fs_check_running(struct fs *fs, bool (*stop)(void *arg), void (*bad)(void *arg, const char *what), void *arg);

#endif
