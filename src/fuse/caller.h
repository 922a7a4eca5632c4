/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * caller.h - what may the process do that a request comes from?  The kernel checks permissions;
 * this is for the few places where it leaves one to the file system.  Costs a look into /proc.
 */
#ifndef PMFS_FUSE_CALLER_H
#define PMFS_FUSE_CALLER_H

#include "fuse/front_impl.h"

/*
 * Has it this capability (CAP_*), in our user namespace?  A process that can't be seen from here
 * (gone, or of another pid namespace) has none unless it is root.
 */
bool caller_capable(fuse_req_t req, unsigned cap);
/* Is it in this group? */
bool caller_in_group(fuse_req_t req, uint32_t gid);

#endif
