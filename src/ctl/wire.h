/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire.h - lines of JSON over a socket, with limits on everything (doc/protocol.md).
 * Used by one thread at a time, but reading and writing may be two threads.
 */
#ifndef PMFS_CTL_WIRE_H
#define PMFS_CTL_WIRE_H

#include <stddef.h>

#include <jansson.h>

#define WIRE_REQUEST_MAX 65536u /* bytes of a line, with its newline */
#define WIRE_REPLY_MAX	 (1u << 20)
#define WIRE_DEPTH_MAX	 16u

struct wire {
	int fd; /* borrowed */
	size_t max, have;
	char *buf;
};

int wire_init(struct wire *w, int fd, size_t max);
void wire_free(struct wire *w);

/*
 * The next line, an object.  timeout_ms counts for the whole line.  -EPIPE: the other end is done;
 * -ETIMEDOUT; -EMSGSIZE: too long a line; -EBADMSG: not an object, or nested too deep; others of
 * recv(2).
 */
int wire_read(struct wire *w, int timeout_ms, json_t **out);

/* Write obj and a newline.  -ETIMEDOUT: the other end does not read; -EPIPE; -EMSGSIZE: more than
 * WIRE_REPLY_MAX; -ENOMEM. */
int wire_write(int fd, const json_t *obj, int timeout_ms);

/* What wire_read does with a line (without its newline). */
int wire_parse(const char *line, size_t len, json_t **out);

#endif
