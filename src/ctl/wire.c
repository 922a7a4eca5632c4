/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/units.h"

#define NS_PER_MS 1000000

int wire_init(struct wire *w, int fd, size_t max)
{
	*w = (struct wire){.fd = fd, .max = max, .buf = malloc(max)};
	return w->buf ? 0 : -ENOMEM;
}

void wire_free(struct wire *w)
{
	free(w->buf);
	w->buf = NULL;
}

/* Before the parser recurses. */
static bool too_deep(const char *line, size_t len)
{
	bool in_string = false;
	unsigned int depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = line[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > WIRE_DEPTH_MAX)
				return true;
		} else if ((c == '}' || c == ']') && depth) {
			depth--;
		}
	}
	return false;
}

int wire_parse(const char *line, size_t len, json_t **out)
{
	json_t *obj;

	if (too_deep(line, len))
		return -EBADMSG;
	obj = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(obj)) {
		json_decref(obj);
		return -EBADMSG;
	}
	*out = obj;
	return 0;
}

/* Wait for events on fd until the deadline. */
static int wait_for(int fd, short events, int64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left_ms;
	int n;

	for (;;) {
		left_ms = (deadline_ns - units_monotonic_ns()) / NS_PER_MS;
		if (left_ms < 0)
			return -ETIMEDOUT;
		n = poll(&p, 1, (int)left_ms + 1);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int wire_read(struct wire *w, int timeout_ms, json_t **out)
{
	int64_t deadline = units_monotonic_ns() + (int64_t)timeout_ms * NS_PER_MS;
	size_t seen = 0, len;
	char *end;
	ssize_t n;
	int rc;

	while (!(end = memchr(w->buf + seen, '\n', w->have - seen))) {
		if (w->have == w->max)
			return -EMSGSIZE;
		seen = w->have;
		rc = wait_for(w->fd, POLLIN, deadline);
		if (rc)
			return rc;
		n = recv(w->fd, w->buf + w->have, w->max - w->have, MSG_DONTWAIT);
		if (!n)
			return -EPIPE;
		if (n > 0)
			w->have += (size_t)n;
		else if (errno != EINTR && errno != EAGAIN)
			return errno == ECONNRESET ? -EPIPE : -errno;
	}
	len = (size_t)(end - w->buf);
	rc = wire_parse(w->buf, len, out);
	w->have -= len + 1;
	memmove(w->buf, end + 1, w->have);
	return rc;
}

int wire_write(int fd, const json_t *obj, int timeout_ms)
{
	int64_t deadline = units_monotonic_ns() + (int64_t)timeout_ms * NS_PER_MS;
	char *text = json_dumps(obj, JSON_COMPACT);
	size_t len, at = 0;
	ssize_t n;
	int rc = 0;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n'; /* in place of the NUL */
	if (len > WIRE_REPLY_MAX)
		rc = -EMSGSIZE;
	while (!rc && at < len) {
		n = send(fd, text + at, len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			at += (size_t)n;
		else if (errno == EAGAIN)
			rc = wait_for(fd, POLLOUT, deadline);
		else if (errno != EINTR)
			rc = -errno;
	}
	free(text);
	return rc;
}
