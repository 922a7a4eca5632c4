/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * protocol.h - the few things about FUSE messages that libfuse knows but does not tell (struct
 * names are those of <linux/fuse.h>).
 */
#ifndef PMFS_FUSE_PROTOCOL_H
#define PMFS_FUSE_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The number that a reply must carry. */
uint64_t protocol_unique(const void *request);

/* Must this WRITE or SETATTR clear setuid and setgid (HANDLE_KILLPRIV_V2)? */
bool protocol_kills_priv(const void *request, size_t len);
/* Must this SETXATTR of an access control list clear setgid?  Only where SETXATTR_EXT is agreed. */
bool protocol_kills_sgid(const void *request, size_t len);

/* What a libfuse may not know yet, so that we see to it. */
#define PROTOCOL_KILLPRIV_V2  1u
#define PROTOCOL_SETXATTR_EXT 2u
/* Which of these an INIT offers; 0 for other requests. */
unsigned protocol_offers(const void *request, size_t len);
/* Say yes to some of them in the answer; false: it is not an answer to INIT. */
bool protocol_take(struct iovec *iov, int count, unsigned features);
/* Give a SETXATTR of SETXATTR_EXT the form that it has without it. */
void protocol_setxattr_compat(void *request, size_t len);
/* A TMPFILE becomes a CREATE, which has the same form; true: it was one. */
bool protocol_tmpfile_to_create(void *request, size_t len);

#endif
