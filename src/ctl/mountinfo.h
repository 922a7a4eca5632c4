/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mountinfo.h - what is mounted, as /proc/self/mountinfo has it.
 */
#ifndef PMFS_CTL_MOUNTINFO_H
#define PMFS_CTL_MOUNTINFO_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#define MOUNT_TYPE	 "fuse.pmfs"
#define MOUNT_TYPE_FILES "fuse.pmfs-control" /* RUNTIME/files */

/* Strings have their escapes undone and live as long as the call of fn. */
struct mount_entry {
	int id;
	dev_t dev;
	const char *root; /* which directory of the filesystem is mounted: not "/" for a bind mount
			     of one below */
	const char *dir;
	const char *type;
	const char *source;
	long uid; /* FUSE: whose daemon, else -1 */
};

/* fn: not 0 ends.  Returns that, 0, or a negative errno. */
int mountinfo_each(int (*fn)(void *arg, const struct mount_entry *m), void *arg);

/* The same for an open file in that format (tests).  Lines that do not look right are skipped. */
int mountinfo_each_in(FILE *f, int (*fn)(void *arg, const struct mount_entry *m), void *arg);

/* Is some mount of this device there? */
bool mountinfo_has_dev(dev_t dev);

/* The mount that was made last at exactly this place: its device, 0 when there is none.  type may
 * be NULL: any. */
dev_t mountinfo_dev_at(const char *dir, const char *type);

#endif
