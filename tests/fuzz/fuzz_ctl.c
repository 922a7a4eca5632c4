/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lines that a client sends over the control channel, worked on as the server does it, each input
 * on a filesystem of its own; one input of sixteen goes through a socket and the server itself,
 * which must still answer afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/hash.h"
#include "ctl/ops.h"
#include "ctl/server.h"
#include "ctl/wire.h"
#include "fuzz/fuzz.h"
#include "share/dedup.h"
#include "share/scrub.h"
#include "tree/fs.h"

#define LONG_MS 60000 /* for what must happen */
#define SILENT_MS \
	300 /* how long a client of ours waits for a server that may have nothing to say */
#define LINES_MAX 40u

const char fuzz_corpus[] = "ctl";

static int flush(void *arg)
{
	(void)arg;
	return 0;
}

static int allowed(void *arg, uint32_t uid)
{
	(void)uid;
	return *(bool *)arg ? 0 : -EPERM;
}

static int take(void *arg, json_t *line)
{
	(void)arg;
	if (!line)
		fuzz_fail("an empty line was sent");
	json_decref(line);
	return 0;
}

static bool given_up(void *arg)
{
	(void)arg;
	return true;
}

/* ------------------------------------------------------------------ without a socket */

static void one_line(const struct ctl_host *host, const char *text, size_t len, bool may_change)
{
	struct ops_call call = {
		.host = host, .may_change = may_change, .send = take, .given_up = given_up};
	json_t *request, *empty = json_object();
	const json_t *args;
	const char *op;

	if (!wire_parse(text, len, &request)) {
		op = json_string_value(json_object_get(request, "op"));
		args = json_object_get(request, "args");
		call.args = args ? args : empty;
		if (op && json_is_object(call.args)) {
			if (ops_run(&call, op) != call.exit)
				fuzz_fail("%s: two exit statuses", op);
			if (call.exit ? !call.message[0] : !call.data)
				fuzz_fail("%s: exit %d, and not a word", op, call.exit);
		}
		json_decref(call.data);
		json_decref(call.warnings);
		json_decref(request);
	}
	json_decref(empty);
}

static void without_socket(const struct ctl_host *host, const uint8_t *data, size_t size,
			   bool may_change)
{
	const char *at = (const char *)data, *const end = at + size, *nl;

	for (unsigned i = 0; i < LINES_MAX && at < end; i++, at = nl + 1) {
		nl = memchr(at, '\n', (size_t)(end - at));
		if (!nl)
			nl = end;
		one_line(host, at, (size_t)(nl - at), may_change);
	}
}

/* ------------------------------------------------------------------ with one */

static int dial(const char *dir)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/ctl", dir);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&sa, sizeof(sa)))
		fuzz_fail("no connection: %s", strerror(errno));
	return fd;
}

/* Send and read, in whatever order the other end likes; stop when it has nothing to say. */
static void talk(const char *dir, const uint8_t *data, size_t size)
{
	struct pollfd p = {.fd = dial(dir), .events = POLLIN | POLLOUT};
	static char buf[65536];
	ssize_t n;

	while (poll(&p, 1, SILENT_MS) > 0) {
		if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
			n = recv(p.fd, buf, sizeof(buf), 0);
			if (!n || (n < 0 && errno != EAGAIN))
				break;
		}
		if (p.revents & POLLOUT && size) {
			n = send(p.fd, data, size, MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				break;
			data += MAX(n, 0);
			size -= (size_t)MAX(n, 0);
		}
		if (!size && p.events & POLLOUT) {
			shutdown(p.fd, SHUT_WR);
			p.events = POLLIN;
		}
	}
	close(p.fd);
}

static void must_answer(const char *dir)
{
	static const char ping[] = "{\"op\":\"ping\"}\n";
	struct wire w;
	json_t *reply;
	const int fd = dial(dir);

	if (wire_init(&w, fd, WIRE_REPLY_MAX) ||
	    send(fd, ping, sizeof(ping) - 1, MSG_NOSIGNAL) < 0 || wire_read(&w, LONG_MS, &reply))
		fuzz_fail("the server does not answer any more");
	if (!json_is_true(json_object_get(reply, "ok")))
		fuzz_fail("the server does not know its own name any more");
	json_decref(reply);
	wire_free(&w);
	close(fd);
}

static void with_socket(const struct ctl_host *host, const uint8_t *data, size_t size)
{
	char dir[] = "/tmp/pmfs-fuzz.XXXXXX";
	struct server *sv;
	int dirfd;

	if (!mkdtemp(dir))
		fuzz_fail("mkdtemp");
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0 || server_start(&sv, host, dirfd, false))
		fuzz_fail("no server");
	talk(dir, data, size);
	must_answer(dir);
	server_stop(sv);
	unlinkat(dirfd, "ctl", 0);
	close(dirfd);
	rmdir(dir);
}

/* ------------------------------------------------------------------ */

static void fill(struct fs *fs)
{
	static const struct fs_cred cred = {0, 0};
	struct fs_attr a;

	if (fs_mknod(fs, fs_root(fs), "file", 4, S_IFREG | 0644, 0, &cred, &a) ||
	    fs_write(fs, a.id, 0, "contents", 8, 0) != 8 ||
	    fs_snap_create(fs, "snap", "message", NULL))
		fuzz_fail("no filesystem");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct fs_config cfg = {.store = {.limit_bytes = 8u << 20}};
	const uint64_t pick = hash64(data, size);
	bool may_change = pick % 5 != 0;
	struct ctl_host host = {.mountpoint = "/mnt",
				.source = "ram",
				.arg = &may_change,
				.flush = flush,
				.allowed = allowed};
	struct store_error err;

	fuzz_quiet();
	if (fs_open(&host.fs, &cfg, &err) ||
	    dedup_new(&host.dedup, fs_store(host.fs), DEDUP_MEMORY_DEFAULT) ||
	    scrub_new(&host.scrub, host.fs))
		fuzz_fail("no filesystem");
	fill(host.fs);
	if (pick / 5 % 16)
		without_socket(&host, data, size, may_change);
	else
		with_socket(&host, data, size);
	scrub_free(host.scrub);
	dedup_free(host.dedup);
	fs_close(host.fs);
	return 0;
}

size_t fuzz_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max)
{
	static const char *const words[] = {"{",
					    "}",
					    "[",
					    "]",
					    ":",
					    ",",
					    "\"",
					    "\n",
					    "null",
					    "true",
					    "false",
					    "{\"op\":\"",
					    "\"args\":{",
					    "\"name\":\"",
					    "\"names\":[",
					    "\"old\":\"",
					    "\"new\":\"",
					    "\"ino\":",
					    "\"rate\":",
					    "\"structure\":true",
					    "\"dry_run\":true",
					    "\"unique\":true",
					    "\"space\":true",
					    "\"message\":\"",
					    "snap.create",
					    "snap.delete",
					    "snap.list",
					    "snap.show",
					    "snap.rename",
					    "scrub.start",
					    "scrub.wait",
					    "dedup.start",
					    "dedup.wait",
					    "file.info",
					    "\"@-1\"",
					    "@1h",
					    "live",
					    "..",
					    "\\u0000",
					    "\\ud800",
					    "1e400",
					    "18446744073709551616",
					    NULL};

	return fuzz_change_bytes(rnd, data, size, max, words);
}
