/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rundir.h - the runtime directory: where a daemon can be found by its process number.
 *
 *   /run/pmfs/PID/                  root's daemons
 *   $XDG_RUNTIME_DIR/pmfs/PID/      a user's, also root's of a user namespace, or where that is not set
 *   /tmp/pmfs-UID/PID/
 *       ctl          the control socket
 *       files/       mount point of the session that serves statistics
 *       info.json    what is mounted where; there from the moment the mount answers
 *
 *   D1  The daemon holds a flock on PID/ for as long as it lives, so a directory without one is
 *       a dead daemon's.
 *   D2  Directories of a base are made, changed and swept only by the owner of that base; who
 *       reads them as another user (root) trusts nothing in them.
 *   D3  info.json is renamed into place, so who sees it sees all of it.
 */
#ifndef PMFS_CTL_RUNDIR_H
#define PMFS_CTL_RUNDIR_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

struct rundir {
	char path[PATH_MAX];
	char base[PATH_MAX];
	int fd; /* locked (D1) */
};

struct rundir_info {
	pid_t pid;
	uid_t uid; /* who owns the directory */
	dev_t dev; /* of the mount */
	bool read_only;
	struct timespec published; /* when the rest was written down last; not published itself */
	char path[PATH_MAX]; /* the runtime directory */
	char dir[PATH_MAX];  /* the mount point */
	char source[PATH_MAX];
	char volume[256];
};

/*
 * Make this process' directory, after those of dead daemons of the same user have been swept.
 * shared: other users may get at the socket and at files/.  *why says what was wrong, in words
 * (static).
 */
int rundir_create(struct rundir *rd, bool shared, const char **why);
/* Of info dir, dev, read_only, source and volume are used. */
int rundir_publish(struct rundir *rd, const struct rundir_info *info);
/* Unmounts files/ if need be, and removes the directory. */
void rundir_remove(struct rundir *rd);

/* All daemons that live, have a mount and may be seen by the caller.  fn: not 0 ends. */
int rundir_each(int (*fn)(void *arg, const struct rundir_info *info), void *arg);
/* The one with this device; uid: whose daemon it is, -1 unknown.  -ENOENT.  The newest one: a daemon
 * that hangs may outlive its mount, whose device number the kernel gives to the next. */
int rundir_find_dev(dev_t dev, long uid, struct rundir_info *out);
/* Read the info.json below path.  -ENOENT, -EUCLEAN. */
int rundir_read(const char *path, struct rundir_info *out);

/* Who holds an image, and is it about to let go? */
enum rundir_holder {
	HOLDER_STRANGER, /* no pmfs daemon that we can see: mkfs, fsck, another program */
	HOLDER_MOUNTED,	 /* a daemon with a mount: *out is filled in */
	HOLDER_LEAVING,	 /* a daemon that has no mount: on its way out, or just starting */
	HOLDER_KINDS
};
/* The pid of a daemon whose image that is, whether it has a mount or not any more; 0: none that we
 * can see. */
pid_t rundir_by_source(const char *source);
enum rundir_holder rundir_holder(pid_t pid, struct rundir_info *out);

#endif
