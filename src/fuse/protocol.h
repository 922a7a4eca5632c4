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
/* Is this an INIT that offers HANDLE_KILLPRIV_V2? */
bool protocol_offers_killpriv(const void *request, size_t len);
/* Say yes to that in the answer; false: it is not an answer to INIT. */
bool protocol_take_killpriv(struct iovec *iov, int count);

#endif
