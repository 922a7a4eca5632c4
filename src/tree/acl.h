/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * acl.h - POSIX access control lists: what a filesystem has to do with them.
 *
 * The kernel checks them; they are stored as the extended attributes system.posix_acl_access and
 * system.posix_acl_default, in the kernel's form (struct acl_head and entries of
 * <linux/posix_acl_xattr.h>). Ours is the link with the mode:
 *
 *   A1  The permission bits of the mode are those of the access list's owner, mask (group without a
 *       mask) and others entries: a new list changes the mode, a new mode the list.
 *   A2  A list that says no more than the mode is not stored.
 *   A3  What is made in a directory with a default list gets it as its access list, limited by the
 *       mode that was asked for (and by no umask); a directory gets it as its default list, too.
 *
 * Pure functions on values: no locks, nothing is stored here.
 */
#ifndef PMFS_TREE_ACL_H
#define PMFS_TREE_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* One of the two names above? */
bool acl_name(const char *name);
/* Is it a list that may be stored, entries in their order?  -EINVAL; -EOPNOTSUPP: another version.
 */
int acl_check(const void *acl, size_t len);
/*
 * The following take a list that acl_check() lets pass.
 */
/* A1: the mode with the permissions of the list.  *same: the list says no more than that (A2). */
uint32_t acl_to_mode(const void *acl, size_t len, uint32_t mode, bool *same);
/* A1: change the list to the permissions of the mode. */
void acl_chmod(void *acl, size_t len, uint32_t mode);
/* A3: turn a default list into the access list of something new, and *mode into its mode.
 * *same as above. */
void acl_create(void *acl, size_t len, uint32_t *mode, bool *same);

#endif
