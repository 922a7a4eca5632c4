/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/units.h"
#include "ctl/outcome.h"

/* How often *stop is looked at. */
#define SLICE_MS 200

static int fail(struct client *c, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct client *c, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->text, sizeof(c->text), fmt, ap);
	va_end(ap);
	c->exit = status;
	return status;
}

static int silent(struct client *c)
{
	return fail(c, OUTCOME_NO_DAEMON, "the daemon of %s does not answer", c->dir);
}

static int connect_to(struct client *c, const struct located *l)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int64_t deadline = units_monotonic_ns() + (int64_t)locate_patience_ms() * 1000000;
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int dir, rc;

	dir = open(l->rundir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	/* The directory's own path may be longer than an address can be. */
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/ctl", dir);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = c->fd < 0 ? -errno : 0;
	while (!rc && connect(c->fd, (const struct sockaddr *)&sa, sizeof(sa))) {
		rc = errno == EINTR ? 0 : -errno;
		/* Its queue is full. */
		if (rc == -EAGAIN && units_monotonic_ns() < deadline) {
			poll(NULL, 0, 20);
			rc = 0;
		}
	}
	close(dir);
	/* Who owns the directory is who must answer. */
	if (!rc && (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.uid != l->uid))
		rc = -EPERM;
	return rc;
}

int client_open(struct client *c, const char *path)
{
	struct located l;

	locate_daemon(path, &l);
	return client_open_at(c, &l);
}

int client_open_at(struct client *c, const struct located *at)
{
	int rc;

	*c = (struct client){.fd = -1};
	if (at->exit)
		return fail(c, at->exit, "%s", at->text);
	snprintf(c->dir, sizeof(c->dir), "%s", at->dir);
	rc = connect_to(c, at);
	if (rc == -EACCES || rc == -EPERM)
		return fail(c, OUTCOME_NOT_PERMITTED,
			    "can't talk to the daemon of %s: only root and user %u may", c->dir,
			    (unsigned int)at->uid);
	if (rc == -EAGAIN)
		return silent(c);
	if (!rc)
		rc = wire_init(&c->wire, c->fd, WIRE_REPLY_MAX);
	if (rc)
		return fail(c, OUTCOME_NO_DAEMON, "can't talk to the daemon of %s: %s", c->dir,
			    strerror(-rc));
	return 0;
}

static void forget(struct client *c)
{
	json_decref(c->data);
	json_decref(c->warnings);
	c->data = c->warnings = NULL;
	c->exit = 0;
	c->text[0] = 0;
}

void client_close(struct client *c)
{
	forget(c);
	wire_free(&c->wire);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/* The line that ends it. */
static int take_reply(struct client *c, const json_t *reply)
{
	const json_t *error = json_object_get(reply, "error");
	const char *message = json_string_value(json_object_get(error, "message"));
	json_int_t status = json_integer_value(json_object_get(error, "exit"));

	c->data = json_incref(json_object_get(reply, "data"));
	c->warnings = json_incref(json_object_get(reply, "warnings"));
	if (json_is_true(json_object_get(reply, "ok")))
		return 0;
	return fail(c, status > 0 && status < 256 ? (int)status : OUTCOME_FAILED, "%s",
		    message ? message : "it failed, without a word");
}

static int wait_reply(struct client *c, int (*line)(void *arg, const json_t *line), void *arg,
		      const volatile int *stop)
{
	int waited = 0, rc;
	const char *type;
	json_t *obj;

	for (;;) {
		rc = wire_read(&c->wire, SLICE_MS, &obj);
		if (stop && *stop) {
			if (!rc)
				json_decref(obj);
			return fail(c, OUTCOME_INTERRUPTED, "interrupted");
		}
		if (rc == -ETIMEDOUT) {
			waited += SLICE_MS;
			if (waited >= locate_patience_ms())
				return silent(c);
			continue;
		}
		if (rc == -EPIPE)
			return fail(c, OUTCOME_NO_DAEMON, "the daemon of %s has ended", c->dir);
		if (rc)
			return fail(c, OUTCOME_NO_DAEMON, "can't understand the daemon of %s: %s",
				    c->dir, strerror(-rc));
		waited = 0;
		type = json_string_value(json_object_get(obj, "type"));
		if (!type)
			rc = take_reply(c, obj);
		else if (line && strcmp(type, "alive") && line(arg, obj))
			rc = fail(c, OUTCOME_INTERRUPTED, "interrupted");
		json_decref(obj);
		if (!type || rc)
			return c->exit;
	}
}

int client_call(struct client *c, const char *op, json_t *args,
		int (*line)(void *arg, const json_t *line), void *arg, const volatile int *stop)
{
	json_t *request = json_pack("{s:s, s:o}", "op", op, "args", args ? args : json_object());
	int rc;

	forget(c);
	rc = request ? wire_write(c->fd, request, locate_patience_ms()) : -ENOMEM;
	json_decref(request);
	if (rc == -ETIMEDOUT)
		return silent(c);
	/* A daemon that turns us away has closed already, but has said why. */
	if (rc && rc != -EPIPE && rc != -ECONNRESET)
		return fail(c, OUTCOME_FAILED, "can't ask the daemon of %s: %s", c->dir,
			    strerror(-rc));
	return wait_reply(c, line, arg, stop);
}
