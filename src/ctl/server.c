/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/server.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "ctl/ops.h"
#include "ctl/outcome.h"
#include "ctl/text.h"
#include "ctl/wire.h"

#define IDLE_MS	     30000 /* for a client's whole request */
#define WRITE_MS     10000 /* for a client to take a reply */
#define HEARTBEAT_MS 2000  /* how often one that waits hears of us */

static const char heartbeat[] = "{\"type\":\"alive\"}\n";

enum conn_state { CONN_FREE, CONN_RUNNING, CONN_DONE }; /* DONE: its thread wants to be joined */

struct conn {
	struct server *sv;
	enum conn_state state; /* guarded by sv->lock */
	int fd;		       /* guarded by sv->lock; set while RUNNING */
	uint32_t uid;
	pthread_t thread;
	struct mutex out; /* LOCK_LEAF: held for each line that is written */
	bool busy;	  /* guarded by out: a request is worked on */
};

struct server {
	struct ctl_host host;
	int listen_fd, stop_fd;
	_Atomic bool stopping;
	pthread_t listener, ticker;
	struct mutex lock; /* LOCK_CTL */
	struct conn conns[SERVER_CONNECTIONS_MAX];
};

/* ------------------------------------------------------------------ one connection */

static int conn_write(struct conn *c, json_t *line)
{
	int rc;

	mutex_lock(&c->out);
	rc = line ? wire_write(c->fd, line, WRITE_MS) : -ENOMEM;
	mutex_unlock(&c->out);
	json_decref(line);
	return rc;
}

static int conn_send(void *arg, json_t *line)
{
	return conn_write(arg, line);
}

static bool conn_given_up(void *arg)
{
	struct conn *c = arg;
	struct pollfd p = {.fd = c->fd};

	return atomic_load(&c->sv->stopping) ||
	       (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR));
}

static void set_busy(struct conn *c, bool busy)
{
	mutex_lock(&c->out);
	c->busy = busy;
	mutex_unlock(&c->out);
}

static json_t *error_reply(int status, const char *message)
{
	return json_pack("{s:b, s:{s:s, s:o, s:i}}", "ok", 0, "error", "code", outcome_code(status),
			 "message", text_json(message), "exit", status);
}

static int refuse(struct conn *c, int status, const char *text)
{
	return conn_write(c, error_reply(status, text));
}

static int answer(struct conn *c, const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	const json_t *args = json_object_get(request, "args");
	struct ops_call call = {
		.host = &c->sv->host,
		.send = conn_send,
		.given_up = conn_given_up,
		.arg = c,
	};
	json_t *empty, *reply;

	if (!op || (args && !json_is_object(args)))
		return refuse(
			c, OUTCOME_USAGE,
			"a request is an object with \"op\" (a string) and \"args\" (an object)");
	empty = json_object();
	call.args = args ? args : empty;
	call.may_change = !c->sv->host.allowed || !c->sv->host.allowed(c->sv->host.arg, c->uid);
	set_busy(c, true);
	ops_run(&call, op);
	set_busy(c, false);
	if (call.exit) {
		reply = error_reply(call.exit, call.message);
		if (reply && call.data)
			json_object_set(reply, "data", call.data);
	} else {
		reply = json_pack("{s:b, s:O}", "ok", 1, "data", call.data);
	}
	if (reply)
		json_object_set(reply, "warnings", call.warnings);
	json_decref(call.data);
	json_decref(call.warnings);
	json_decref(empty);
	return conn_write(c, reply);
}

static void *conn_main(void *arg)
{
	struct conn *c = arg;
	json_t *request;
	struct wire w;
	int rc, fd;

	rc = wire_init(&w, c->fd, WIRE_REQUEST_MAX);
	while (!rc && !atomic_load(&c->sv->stopping)) {
		rc = wire_read(&w, IDLE_MS, &request);
		if (rc == -EMSGSIZE || rc == -EBADMSG)
			refuse(c, OUTCOME_USAGE,
			       rc == -EMSGSIZE ? "the request is too long"
					       : "the request is not a JSON object on one line");
		if (rc)
			break;
		rc = answer(c, request);
		json_decref(request);
	}
	wire_free(&w);
	mutex_lock(&c->sv->lock);
	c->state = CONN_DONE;
	fd = c->fd;
	c->fd = -1;
	mutex_unlock(&c->sv->lock);
	close(fd);
	return NULL;
}

/* ------------------------------------------------------------------ listening */

static void turn_away(int fd, const char *text)
{
	json_t *reply = error_reply(OUTCOME_BUSY, text);

	if (reply)
		wire_write(fd, reply, 0);
	json_decref(reply);
	close(fd);
}

static struct conn *find_slot(struct server *sv, uint32_t uid, unsigned int *of_user)
{
	struct conn *slot = NULL;

	*of_user = 0;
	for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		struct conn *c = &sv->conns[i];

		if (c->state == CONN_RUNNING)
			*of_user += c->uid == uid;
		else if (!slot)
			slot = c;
	}
	return slot;
}

static void welcome(struct server *sv, int fd)
{
	static const char many[] = "too many requests are being worked on; try again later";
	struct ucred peer;
	socklen_t len = sizeof(peer);
	unsigned int of_user;
	struct conn *c;
	bool privileged;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len)) {
		close(fd);
		return;
	}
	privileged = peer.uid == 0 || peer.uid == geteuid();
	mutex_lock(&sv->lock);
	c = find_slot(sv, peer.uid, &of_user);
	mutex_unlock(&sv->lock);
	if (!c || (!privileged && of_user >= SERVER_CONNECTIONS_PER_USER)) {
		turn_away(fd, many);
		return;
	}
	/* Only this thread makes a slot FREE or RUNNING. */
	if (c->state == CONN_DONE)
		thread_join(c->thread);
	mutex_lock(&sv->lock);
	c->state = CONN_RUNNING;
	c->fd = fd;
	c->uid = peer.uid;
	mutex_unlock(&sv->lock);
	if (thread_start(&c->thread, "pmfs-ctl", conn_main, c)) {
		mutex_lock(&sv->lock);
		c->state = CONN_FREE;
		c->fd = -1;
		mutex_unlock(&sv->lock);
		turn_away(fd, many);
	}
}

static void *listener_main(void *arg)
{
	struct server *sv = arg;
	struct pollfd p[2] = {{.fd = sv->listen_fd, .events = POLLIN},
			      {.fd = sv->stop_fd, .events = POLLIN}};
	int fd;

	while (!atomic_load(&sv->stopping)) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (!(p[0].revents & POLLIN) || atomic_load(&sv->stopping))
			continue;
		fd = accept4(sv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			welcome(sv, fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			   errno == ENOBUFS) {
			log_limited(LOG_LEVEL_WARN, "ctl.accept", "control socket: %s",
				    strerror(errno));
			poll(&p[1], 1, 100);
		}
	}
	return NULL;
}

/* A line from here says that the daemon lives; a client that hears nothing gives up. */
static void *ticker_main(void *arg)
{
	struct server *sv = arg;
	struct pollfd p = {.fd = sv->stop_fd, .events = POLLIN};

	while (!atomic_load(&sv->stopping)) {
		if (poll(&p, 1, HEARTBEAT_MS))
			continue;
		mutex_lock(&sv->lock);
		for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
			struct conn *c = &sv->conns[i];

			/* V2: who holds `out` may be waiting for its client; that client needs no
			 * heartbeat. */
			if (c->state != CONN_RUNNING || !mutex_trylock(&c->out))
				continue;
			/* So short a line goes in whole or not at all. */
			if (c->busy)
				(void)!send(c->fd, heartbeat, sizeof(heartbeat) - 1,
					    MSG_DONTWAIT | MSG_NOSIGNAL);
			mutex_unlock(&c->out);
		}
		mutex_unlock(&sv->lock);
	}
	return NULL;
}

static int listen_in(int dirfd, bool shared)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, rc = 0;

	/* The directory's own path may be longer than an address can be. */
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/ctl", dirfd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlinkat(dirfd, "ctl", 0);
	if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) ||
	    fchmodat(dirfd, "ctl", shared ? 0666 : 0600, 0) || listen(fd, SERVER_CONNECTIONS_MAX))
		rc = -errno;
	if (rc)
		close(fd);
	return rc ? rc : fd;
}

static void free_server(struct server *sv)
{
	if (sv->listen_fd >= 0)
		close(sv->listen_fd);
	if (sv->stop_fd >= 0)
		close(sv->stop_fd);
	for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++)
		mutex_destroy(&sv->conns[i].out);
	mutex_destroy(&sv->lock);
	free(sv);
}

static void tell_stop(struct server *sv)
{
	atomic_store(&sv->stopping, true);
	eventfd_write(sv->stop_fd, 1);
}

int server_start(struct server **out, const struct ctl_host *host, int dirfd, bool shared)
{
	struct server *sv = calloc(1, sizeof(*sv));
	int rc;

	if (!sv)
		return -ENOMEM;
	sv->host = *host;
	mutex_init(&sv->lock, LOCK_CTL);
	for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		sv->conns[i].sv = sv;
		sv->conns[i].fd = -1;
		mutex_init(&sv->conns[i].out, LOCK_LEAF);
	}
	sv->listen_fd = listen_in(dirfd, shared);
	sv->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = sv->listen_fd < 0 ? sv->listen_fd : sv->stop_fd < 0 ? -errno : 0;
	if (!rc)
		rc = thread_start(&sv->ticker, "pmfs-ctl-tick", ticker_main, sv);
	if (rc) {
		free_server(sv);
		return rc;
	}
	rc = thread_start(&sv->listener, "pmfs-ctl-accept", listener_main, sv);
	if (rc) {
		tell_stop(sv);
		thread_join(sv->ticker);
		free_server(sv);
		return rc;
	}
	*out = sv;
	return 0;
}

void server_stop(struct server *sv)
{
	bool started[SERVER_CONNECTIONS_MAX];

	if (!sv)
		return;
	tell_stop(sv);
	thread_join(sv->listener);
	thread_join(sv->ticker);
	mutex_lock(&sv->lock);
	for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		struct conn *c = &sv->conns[i];

		started[i] = c->state != CONN_FREE;
		if (c->state != CONN_RUNNING)
			continue;
		/* Those that read see the end.  One that is stuck in a write has a client that does
		 * not read (V2). */
		if (mutex_trylock(&c->out)) {
			shutdown(c->fd, SHUT_RD);
			mutex_unlock(&c->out);
		} else {
			shutdown(c->fd, SHUT_RDWR);
		}
	}
	mutex_unlock(&sv->lock);
	for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		if (started[i])
			thread_join(sv->conns[i].thread);
	}
	free_server(sv);
}
