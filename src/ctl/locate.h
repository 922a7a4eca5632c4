/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * locate.h - from a path to the daemon that serves it.
 */
#ifndef PMFS_CTL_LOCATE_H
#define PMFS_CTL_LOCATE_H

#include <sys/types.h>

#include "ctl/rundir.h"

#define LOCATE_TEXT 1024

/*
 * How long a daemon may say nothing: $PMFS_TIMEOUT, from 1 ms to a day; 10 seconds without it, or
 * when it is no time, which locating a daemon refuses.  One that works on something says so every
 * two seconds; one that has stopped makes every look at its mount wait.
 */
int locate_patience_ms(void);

struct located {
	int exit; /* enum outcome; not 0: text says why */
	char text[LOCATE_TEXT];
	uid_t uid;	    /* who runs the daemon */
	char dir[PATH_MAX]; /* the mount point */
	char rundir[PATH_MAX];
};

/* path: anything in a mount.  Looks in a process of its own, so that one that hangs can be left
 * behind.  Returns out->exit. */
int locate_daemon(const char *path, struct located *out);

/* The same in this process: for those that must not fork, and can wait for a mount that hangs.  Thread-safe. */
int locate_daemon_here(const char *path, struct located *out);

#endif
