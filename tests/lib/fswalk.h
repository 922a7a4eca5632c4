/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fswalk.h - use of a filesystem that may be damaged in any way.
 */
#ifndef PMFS_TESTS_FSWALK_H
#define PMFS_TESTS_FSWALK_H

#include "lib/fsfix.h"

/*
 * Look at names, contents, attributes and snapshots, then change, add and remove some of all of
 * them, and commit.  Whatever fails is no matter.  One at a time.
 */
void fswalk_use(struct fs *fs, struct fsfix_random *random);

#endif
