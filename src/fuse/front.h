/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * front.h - the FUSE side of the daemon: a mount that answers requests out of a struct fs.  The
 * door to this layer.
 */
#ifndef PMFS_FUSE_FRONT_H
#define PMFS_FUSE_FRONT_H

#include <stdbool.h>
#include <stdint.h>

struct fs;
struct views;
struct front;

struct front_config {
	struct fs *fs;
	const char *mountpoint; /* absolute path of a directory */
	/* What /proc/mounts shows: image path or "ram"; the type is fuse.pmfs. */
	const char *source;
	/* This mount's own directory in the runtime directory: `.pmfs` leads to files in it, the
	 * control session.  NULL: no control session. */
	const char *runtime_dir;
	bool read_only, allow_other, dev, suid, snapdir_visible, writeback, no_xattr;
	/* More of the kernel's own mount options, comma separated: "noexec,noatime,sync".  NULL:
	 * none. */
	const char *mount_flags;
	int io_uring;	      /* -1 auto, 0 off, 1 on */
	unsigned threads;     /* 0: as many as it takes */
	unsigned uring_depth; /* 0: default */
	/* From within front_new() on, when it has set *out, in any thread: a text for a file of the
	 * control session: "stats", "stats.json", "metrics"; malloc'ed.
	 * NULL: none. */
	char *(*file)(void *arg, const char *name);
	void *file_arg;
	struct views *views; /* shown in the control session; NULL: none.  It outlives the front. */
	bool passthrough;    /* use it for views where the system can */
	/* The mount answers requests now (called once, in a thread of the front). */
	void (*ready)(void *arg);
	void *ready_arg;
};

/* Mount.  On error *text (static or in the front's buffer) says what for a person: mount point
 * missing, busy, not a directory, no /dev/fuse, no permission. */
int front_new(struct front **out, const struct front_config *cfg, char text[256]);
/* Answer requests until unmounted, front_stop(), SIGTERM, SIGINT or SIGHUP.  0: a clean end. */
int front_run(struct front *fr);
void front_stop(struct front *fr); /* any thread */
void front_free(struct front *fr); /* unmounts when still mounted */

/*
 * Have the kernel hand over all dirty data of the mount (files, shared mappings), and wait until it
 * is in the tree: a snapshot made then has it.  -ENOTCONN: the mount does not answer yet, or any
 * more.  Not from a request handler, no lock held.
 */
int front_flush(struct front *fr);
/* A snapshot went away or has another name: cached names below .snapshots are forgotten. Not from a
 * request handler. */
void front_snapshot_gone(struct front *fr, const char *name, uint64_t root_id);

struct front_op_count {
	const char *name;
	uint64_t count, errors;
};
struct front_info {
	char libfuse[32], kernel[80];
	bool io_uring, passthrough, writeback, killpriv_v2, explicit_inval, no_open, readdirplus;
	unsigned max_write, max_readahead, max_background, threads;
	/* One per operation; ends with name NULL; updated atomically. */
	const struct front_op_count *ops;
	uint64_t requests, errors;
};
void front_info(struct front *fr, struct front_info *out);

/* What this build of the front can do at all, for `pmfs doctor` and -V. */
struct front_build {
	const char *libfuse; /* version linked at run time */
	bool passthrough, io_uring, tmpfile, statx, killpriv_v2;
};
void front_build_info(struct front_build *out);

#endif
