/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pick.h - which snapshot a person means: a name, or @-1 (the newest), @-2, @2h (the newest that is
 * at least two hours old).
 */
#ifndef PMFS_CTL_PICK_H
#define PMFS_CTL_PICK_H

#include <stddef.h>
#include <stdint.h>

struct pick_entry {
	const char *name;
	int64_t created_ns;
};

/*
 * entries: in the order in which they were made.  0 and the index; -ENOENT: none that fits;
 * -EINVAL: an "@" with nothing sensible behind it.
 */
int pick_snapshot(const struct pick_entry *entries, size_t n, const char *what, int64_t now_ns,
		  size_t *index);

#endif
