/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * locate.h - from a path to the daemon that serves it.
 */
#ifndef PMFS_CTL_LOCATE_H
#define PMFS_CTL_LOCATE_H

#include <sys/types.h>

#include "ctl/rundir.h"

#define LOCATE_TEXT 1024
/* A daemon that does not answer makes every look at its mount wait. */
#define LOCATE_MS 10000

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
