/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mem.h - where the memory of views comes from, and how much of it there may be.
 *
 * Root gets a tmpfs of its own that is mounted nowhere: its size is the limit, which the kernel
 * keeps also for who stores through a mapping or writes past us (passthrough).  Others get memfds,
 * whose size nobody limits; there all writes come through us, and mem_charge() counts.
 */
#ifndef PMFS_VIEW_MEM_H
#define PMFS_VIEW_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mem {
	int root;	       /* of the tmpfs; -1: memfds */
	uint64_t limit;	       /* bytes */
	_Atomic uint64_t used; /* bytes, with memfds */
};

/* limit 0: a quarter of RAM.  own_fs: use a tmpfs if that is possible. */
void mem_open(struct mem *mm, uint64_t limit, bool own_fs);
void mem_close(struct mem *mm);
/* An empty file.  Returns its descriptor or a negative errno. */
int mem_file(struct mem *mm);

/*
 * Reserve room for filling the holes of [off, off + len); the caller keeps others from changing the
 * file.  *blocks is what mem_settle() wants, to be called when the change is done.  -ENOSPC.
 */
int mem_charge(struct mem *mm, int fd, uint64_t off, uint64_t len, uint64_t *blocks);
/* The file now has what it has: take that instead of what was reserved and had before. */
void mem_settle(struct mem *mm, int fd, uint64_t blocks, uint64_t *had);

#endif
