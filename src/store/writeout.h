/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * writeout.h - have the host write long runs of new frames while more of them come, so that the
 * flush of a commit finds little left to wait for: its own, and that of whoever else asks for one
 * beside a stream.
 *
 *   O1  Nothing depends on it.  What was started is waited for, and its errors told, by the flush
 *       of the commit that needs the frames; what was not started is written by that flush.
 *   O2  Only runs of new contents are told here: they are not written again before they are given
 *       up.  Single pages, which may be, are left to the flush.
 *
 * Thread safe.  Lock rank: LOCK_LEAF.
 */
#ifndef PMFS_STORE_WRITEOUT_H
#define PMFS_STORE_WRITEOUT_H

#include "store/region.h"

/* Shorter runs are not worth it. */
#define WRITEOUT_RUN 16u

struct writeout;

/* Starts a thread.  -ENOMEM, -EAGAIN. */
int writeout_new(struct writeout **out, struct region *rg);
/* Ends it; what is queued is left to the next flush.  NULL: nothing. */
void writeout_free(struct writeout *wo);
/* These frames have been written.  NULL: nothing.  Never waits for the host. */
void writeout_add(struct writeout *wo, pfn_t pfn, uint64_t n);
/* Frames that the host was asked to write so far. */
uint64_t writeout_frames(const struct writeout *wo);

#endif
