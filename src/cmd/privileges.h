/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * privileges.h - what a daemon that root has started gives up.
 */
#ifndef PMFS_CMD_PRIVILEGES_H
#define PMFS_CMD_PRIVILEGES_H

/*
 * Keep the capabilities that mounting, unmounting and opening an image need, and no other, now and
 * for whatever is executed; nothing that is executed gains any.  Capabilities belong to a thread,
 * so this comes before the first one is started.  Of an ordinary user's daemon nothing is taken: it
 * has none, and unmounts with the help of fusermount3, which is setuid.
 */
void privileges_drop(void);

/* No core dumps, and nobody but root looks into the memory, which has other users' files in it. */
void privileges_hide(void);

#endif
