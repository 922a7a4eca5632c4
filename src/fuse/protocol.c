/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuse/protocol.h"

#include <string.h>

#include <linux/fuse.h>

uint64_t protocol_unique(const void *request)
{
	struct fuse_in_header head;

	memcpy(&head, request, sizeof(head));
	return head.unique;
}

/* The arguments behind the header, if it is that opcode and they are all there. */
static bool arguments(const void *request, size_t len, uint32_t opcode, void *out, size_t size)
{
	struct fuse_in_header head;

	memcpy(&head, request, sizeof(head));
	if (head.opcode != opcode || len < sizeof(head) + size)
		return false;
	memcpy(out, (const char *)request + sizeof(head), size);
	return true;
}

bool protocol_kills_priv(const void *request, size_t len)
{
	struct fuse_write_in write;
	struct fuse_setattr_in set;

	if (arguments(request, len, FUSE_WRITE, &write, sizeof(write)))
		return write.write_flags & FUSE_WRITE_KILL_SUIDGID;
	if (arguments(request, len, FUSE_SETATTR, &set, sizeof(set)))
		return set.valid & FATTR_KILL_SUIDGID;
	return false;
}

bool protocol_offers_killpriv(const void *request, size_t len)
{
	/* Older kernels send a shorter one. */
	struct {
		uint32_t major, minor, max_readahead, flags;
	} init;

	return arguments(request, len, FUSE_INIT, &init, sizeof(init)) &&
	       (init.flags & FUSE_HANDLE_KILLPRIV_V2);
}

bool protocol_take_killpriv(struct iovec *iov, int count)
{
	struct fuse_out_header head;
	struct fuse_init_out *init;

	if (count != 2 || iov[0].iov_len != sizeof(head) || iov[1].iov_len < sizeof(*init))
		return false;
	memcpy(&head, iov[0].iov_base, sizeof(head));
	init = iov[1].iov_base;
	if (head.error || init->major != FUSE_KERNEL_VERSION)
		return false;
	init->flags |= FUSE_HANDLE_KILLPRIV_V2;
	return true;
}
