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

bool protocol_kills_sgid(const void *request, size_t len)
{
	struct fuse_setxattr_in set;

	return arguments(request, len, FUSE_SETXATTR, &set, sizeof(set)) &&
	       (set.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID);
}

unsigned protocol_offers(const void *request, size_t len)
{
	/* Older kernels send a shorter one. */
	struct {
		uint32_t major, minor, max_readahead, flags;
	} init;

	if (!arguments(request, len, FUSE_INIT, &init, sizeof(init)))
		return 0;
	return (init.flags & FUSE_HANDLE_KILLPRIV_V2 ? PROTOCOL_KILLPRIV_V2 : 0) |
	       (init.flags & FUSE_SETXATTR_EXT ? PROTOCOL_SETXATTR_EXT : 0);
}

bool protocol_take(struct iovec *iov, int count, unsigned features)
{
	struct fuse_out_header head;
	struct fuse_init_out *init;

	if (count != 2 || iov[0].iov_len != sizeof(head) || iov[1].iov_len < sizeof(*init))
		return false;
	memcpy(&head, iov[0].iov_base, sizeof(head));
	init = iov[1].iov_base;
	if (head.error || init->major != FUSE_KERNEL_VERSION)
		return false;
	if (features & PROTOCOL_KILLPRIV_V2)
		init->flags |= FUSE_HANDLE_KILLPRIV_V2;
	if (features & PROTOCOL_SETXATTR_EXT)
		init->flags |= FUSE_SETXATTR_EXT;
	return true;
}

void protocol_setxattr_compat(void *request, size_t len)
{
	const size_t head = sizeof(struct fuse_in_header);
	struct fuse_setxattr_in set;
	char *p = request;

	/* The length that the header says is then too great, which libfuse does not mind. */
	if (arguments(request, len, FUSE_SETXATTR, &set, sizeof(set)))
		memmove(p + head + FUSE_COMPAT_SETXATTR_IN_SIZE, p + head + sizeof(set),
			len - head - sizeof(set));
}

bool protocol_tmpfile_to_create(void *request, size_t len)
{
	struct fuse_in_header head;
	struct fuse_create_in create;

	if (!arguments(request, len, FUSE_TMPFILE, &create, sizeof(create)))
		return false;
	memcpy(&head, request, sizeof(head));
	head.opcode = FUSE_CREATE;
	memcpy(request, &head, sizeof(head));
	return true;
}
