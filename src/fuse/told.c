/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attributes of directories that arrive late.
 *
 * A change of a directory's names makes the kernel forget its attributes (the links, the times) when
 * the answer comes.  But an answer with older attributes, to another thread's GETATTR, LOOKUP or
 * READDIRPLUS, may be on its way and be taken in after that; and it would be believed for ever.  An
 * invalidation counts the version of the attributes up, and with that the kernel drops older answers.  It
 * is sent before the change is answered, and only when another thread than the one that makes the
 * change has been told about this directory, or is being told about any.
 *
 *   N1  A directory's attributes are read while `telling` counts the request, and whoever asked stands
 *       in `told` before that ends and before the answer goes out.
 *   N2  A change looks at `telling` first, then at `told`, after the change is in the tree.
 *
 * An invalidation of attributes alone takes no lock of a directory or a page, so a handler may send
 * it.  What is in `told` stays; two directories may share a place there, which costs a needless
 * invalidation.
 */
#include <stdatomic.h>
#include <sys/stat.h>

#include "fuse/front_impl.h"

#define MANY UINT32_MAX

static _Atomic uint32_t *place(struct front *fr, fuse_ino_t ino)
{
	return &fr->told[(uint64_t)ino * UINT64_C(0x9e3779b97f4a7c15) >> (64 - TOLD_BITS)];
}

/* 0: somebody whose number we can't see. */
static uint32_t who(fuse_req_t req)
{
	const pid_t tid = fuse_req_ctx(req)->pid;

	return tid > 0 ? (uint32_t)tid : MANY;
}

void told_begin(struct front *fr)
{
	atomic_fetch_add(&fr->telling, 1);
}

void told_about(struct front *fr, fuse_req_t req, const struct fs_attr *a)
{
	_Atomic uint32_t *at;
	const uint32_t me = who(req);
	uint32_t before = 0;

	if (!S_ISDIR(a->mode))
		return;
	at = place(fr, ino_of(fr, a->id));
	if (!atomic_compare_exchange_strong(at, &before, me) && before != me)
		atomic_store(at, MANY);
}

void told_end(struct front *fr)
{
	atomic_fetch_sub(&fr->telling, 1);
}

void told_changed(struct front *fr, fuse_req_t req, fuse_ino_t dir)
{
	uint32_t asked;

	if (!atomic_load(&fr->telling)) {
		asked = atomic_load(place(fr, dir));
		if (!asked || (asked == who(req) && asked != MANY))
			return;
	}
	/* -ENOENT: it is not in the cache. */
	fuse_lowlevel_notify_inval_inode(fr->se, dir, -1, 0);
}
