/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/acl.h"

#include <assert.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>
#include <sys/stat.h>

#include "pmfs/le.h"

/* As in struct posix_acl_xattr_header and _entry. */
struct acl_head {
	le32 version;
};
struct acl_entry {
	le16 tag, perm;
	le32 id;
};
static_assert(sizeof(struct acl_head) == 4 && sizeof(struct acl_entry) == 8, "the kernel's form");

#define PERMS 7u

static size_t entries(size_t len)
{
	return (len - sizeof(struct acl_head)) / sizeof(struct acl_entry);
}

/* The value has no alignment. */
static struct acl_entry entry_get(const void *acl, size_t i)
{
	struct acl_entry e;

	memcpy(&e, (const char *)acl + sizeof(struct acl_head) + i * sizeof(e), sizeof(e));
	return e;
}

static void entry_set_perm(void *acl, size_t i, uint32_t perm)
{
	struct acl_entry e = entry_get(acl, i);

	le16_put(&e.perm, (uint16_t)perm);
	memcpy((char *)acl + sizeof(struct acl_head) + i * sizeof(e), &e, sizeof(e));
}

bool acl_name(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

/* Where an entry stands in a list: the kinds of entries in their order; 0: no such kind. */
static unsigned rank(uint16_t tag)
{
	switch (tag) {
	case ACL_USER_OBJ:
		return 1;
	case ACL_USER:
		return 2;
	case ACL_GROUP_OBJ:
		return 3;
	case ACL_GROUP:
		return 4;
	case ACL_MASK:
		return 5;
	case ACL_OTHER:
		return 6;
	default:
		return 0;
	}
}

int acl_check(const void *acl, size_t len)
{
	unsigned seen[7] = {0}, last = 0;
	struct acl_head head;

	if (len < sizeof(head) || (len - sizeof(head)) % sizeof(struct acl_entry))
		return -EINVAL;
	memcpy(&head, acl, sizeof(head));
	if (le32_get(head.version) != POSIX_ACL_XATTR_VERSION)
		return -EOPNOTSUPP;
	for (size_t i = 0; i < entries(len); i++) {
		const struct acl_entry e = entry_get(acl, i);
		const unsigned r = rank(le16_get(e.tag));

		if (!r || r < last || le16_get(e.perm) & ~PERMS)
			return -EINVAL;
		last = r;
		seen[r]++;
	}
	if (seen[1] != 1 || seen[3] != 1 || seen[6] != 1 || seen[5] > 1)
		return -EINVAL;
	return (seen[2] || seen[4]) && !seen[5] ? -EINVAL : 0;
}

/* The permissions of a class of users in a mode, and where they stand in it. */
static unsigned shift_of(unsigned r)
{
	return r == 1 ? 6 : r == 6 ? 0 : 3;
}

/* Does the entry stand for a class of the mode?  The mask does for the group's when there is one.
 */
static bool in_mode(unsigned r, bool mask)
{
	return r == 1 || r == 6 || r == (mask ? 5u : 3u);
}

static bool has_mask(const void *acl, size_t len)
{
	for (size_t i = 0; i < entries(len); i++)
		if (le16_get(entry_get(acl, i).tag) == ACL_MASK)
			return true;
	return false;
}

uint32_t acl_to_mode(const void *acl, size_t len, uint32_t mode, bool *same)
{
	const bool mask = has_mask(acl, len);

	for (size_t i = 0; i < entries(len); i++) {
		const struct acl_entry e = entry_get(acl, i);
		const unsigned r = rank(le16_get(e.tag));

		if (!in_mode(r, mask))
			continue;
		mode &= ~(PERMS << shift_of(r));
		mode |= (uint32_t)le16_get(e.perm) << shift_of(r);
	}
	/* Entries for single users or groups come with a mask. */
	*same = !mask;
	return mode;
}

void acl_chmod(void *acl, size_t len, uint32_t mode)
{
	const bool mask = has_mask(acl, len);

	for (size_t i = 0; i < entries(len); i++) {
		const unsigned r = rank(le16_get(entry_get(acl, i).tag));

		if (in_mode(r, mask))
			entry_set_perm(acl, i, mode >> shift_of(r) & PERMS);
	}
}

void acl_create(void *acl, size_t len, uint32_t *mode, bool *same)
{
	const bool mask = has_mask(acl, len);

	for (size_t i = 0; i < entries(len); i++) {
		const struct acl_entry e = entry_get(acl, i);
		const unsigned r = rank(le16_get(e.tag));
		const unsigned shift = shift_of(r);

		if (!in_mode(r, mask))
			continue;
		entry_set_perm(acl, i, le16_get(e.perm) & *mode >> shift);
		*mode &= ~(PERMS << shift) | (uint32_t)le16_get(e.perm) << shift;
	}
	*same = !mask;
}
