/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/thread.h"
#include "ctl/server.h"
#include "ctl/wire.h"
#include "lib/fsfix.h"
#include "share/dedup.h"

/* For what must happen; it does at once. */
#define LONG_MS 60000

struct fix {
	struct fsfix fx;
	struct dedup *dedup;
	struct server *sv;
	char dir[64];
	int dirfd;
	_Atomic unsigned int flushes, gone;
	_Atomic int flush_error, may_change;
};

static int flush(void *arg)
{
	struct fix *f = arg;

	f->flushes++;
	return f->flush_error;
}

static void snapshot_gone(void *arg, const char *name, uint64_t root_id)
{
	struct fix *f = arg;

	assert_true(*name && root_id);
	f->gone++;
}

static int allowed(void *arg, uint32_t uid)
{
	(void)uid;
	return ((struct fix *)arg)->may_change ? 0 : -EPERM;
}

static int setup(void **state)
{
	struct fix *f = test_calloc(1, sizeof(*f));
	struct ctl_host host = {.mountpoint = "/mnt",
				.source = "ram",
				.arg = f,
				.flush = flush,
				.snapshot_gone = snapshot_gone,
				.allowed = allowed};

	fsfix_ram(&f->fx, 0);
	assert_int_equal(dedup_new(&f->dedup, fs_store(f->fx.fs), DEDUP_MEMORY_DEFAULT), 0);
	strcpy(f->dir, "/tmp/pmfs-test.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dirfd >= 0);
	f->may_change = 1;
	host.fs = f->fx.fs;
	host.dedup = f->dedup;
	assert_int_equal(server_start(&f->sv, &host, f->dirfd, false), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	server_stop(f->sv);
	dedup_free(f->dedup);
	fsfix_free(&f->fx);
	unlinkat(f->dirfd, "ctl", 0);
	close(f->dirfd);
	rmdir(f->dir);
	test_free(f);
	return 0;
}

static int dial(const struct fix *f)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/ctl", f->dir);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* The reply to a request on a connection of its own; lines before it are counted. */
static json_t *ask(const struct fix *f, const char *request, unsigned int *items)
{
	int fd = dial(f);
	struct wire w;
	json_t *obj;

	assert_int_equal(wire_init(&w, fd, WIRE_REPLY_MAX), 0);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	assert_int_equal(send(fd, "\n", 1, MSG_NOSIGNAL), 1);
	for (;;) {
		assert_int_equal(wire_read(&w, LONG_MS, &obj), 0);
		if (!json_object_get(obj, "type"))
			break;
		if (items && !strcmp(json_string_value(json_object_get(obj, "type")), "item"))
			++*items;
		json_decref(obj);
	}
	wire_free(&w);
	close(fd);
	return obj;
}

/* The reply is the error with this code. */
static void refused(const struct fix *f, const char *request, const char *code)
{
	json_t *obj = ask(f, request, NULL);
	const json_t *error = json_object_get(obj, "error");

	assert_true(json_is_false(json_object_get(obj, "ok")));
	assert_string_equal(json_string_value(json_object_get(error, "code")), code);
	assert_true(strlen(json_string_value(json_object_get(error, "message"))) > 0);
	assert_true(json_integer_value(json_object_get(error, "exit")) > 0);
	json_decref(obj);
}

/* It works, and this is its data. */
static json_t *data_of(const struct fix *f, const char *request)
{
	json_t *obj = ask(f, request, NULL);
	json_t *data = json_incref(json_object_get(obj, "data"));

	assert_true(json_is_true(json_object_get(obj, "ok")));
	assert_true(json_is_array(json_object_get(obj, "warnings")));
	json_decref(obj);
	return data;
}

static void works(const struct fix *f, const char *request)
{
	json_decref(data_of(f, request));
}

static void test_server_snapshots(void **state)
{
	struct fix *f = *state;
	unsigned int items = 0;
	json_t *obj;

	works(f, "{\"op\":\"snap.create\",\"args\":{\"name\":\"a\",\"message\":\"first\"}}");
	assert_int_equal(f->flushes, 1);
	refused(f, "{\"op\":\"snap.create\",\"args\":{\"name\":\"a\"}}", "exists");
	assert_int_equal(f->flushes, 1);
	obj = data_of(f, "{\"op\":\"snap.create\",\"args\":{\"name\":\"a\",\"unique\":true}}");
	assert_string_equal(json_string_value(json_object_get(obj, "name")), "a-2");
	json_decref(obj);
	json_decref(ask(f, "{\"op\":\"snap.list\",\"args\":{\"space\":true}}", &items));
	assert_int_equal(items, 2);
	obj = data_of(f, "{\"op\":\"snap.show\",\"args\":{\"name\":\"@-2\"}}");
	assert_string_equal(json_string_value(json_object_get(obj, "message")), "first");
	json_decref(obj);
	works(f, "{\"op\":\"snap.rename\",\"args\":{\"old\":\"a\",\"new\":\"b\"}}");
	assert_int_equal(f->gone, 1);
	obj = data_of(
		f,
		"{\"op\":\"snap.delete\",\"args\":{\"names\":[\"@-1\",\"@-2\"],\"dry_run\":true}}");
	assert_int_equal(json_array_size(json_object_get(obj, "snapshots")), 2);
	json_decref(obj);
	refused(f, "{\"op\":\"snap.delete\",\"args\":{\"names\":[\"b\",\"nowhere\"]}}", "partial");
	refused(f, "{\"op\":\"snap.delete\",\"args\":{\"names\":[\"b\"]}}", "not-found");
	works(f, "{\"op\":\"snap.delete\",\"args\":{\"names\":[\"a-2\"]}}");
	assert_int_equal(f->gone, 3);
	items = 0;
	json_decref(ask(f, "{\"op\":\"snap.list\"}", &items));
	assert_int_equal(items, 0);
}

static void test_server_no_snapshot_of_what_the_kernel_keeps(void **state)
{
	struct fix *f = *state;
	unsigned int items = 0;

	f->flush_error = -EIO;
	refused(f, "{\"op\":\"snap.create\",\"args\":{\"name\":\"a\"}}", "failed");
	json_decref(ask(f, "{\"op\":\"snap.list\"}", &items));
	assert_int_equal(items, 0);
}

static void test_server_who_may_only_look(void **state)
{
	static const char *const changes[] = {
		"{\"op\":\"snap.create\",\"args\":{\"name\":\"b\"}}",
		"{\"op\":\"snap.delete\",\"args\":{\"names\":[\"a\"]}}",
		"{\"op\":\"snap.rename\",\"args\":{\"old\":\"a\",\"new\":\"b\"}}",
		"{\"op\":\"dedup.start\"}",
		"{\"op\":\"dedup.pause\"}",
		"{\"op\":\"dedup.resume\"}",
	};
	struct fix *f = *state;

	works(f, "{\"op\":\"snap.create\",\"args\":{\"name\":\"a\"}}");
	f->may_change = 0;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
		refused(f, changes[i], "not-permitted");
	works(f, "{\"op\":\"snap.show\",\"args\":{\"name\":\"a\"}}");
	works(f, "{\"op\":\"snap.delete\",\"args\":{\"names\":[\"a\"],\"dry_run\":true}}");
	works(f, "{\"op\":\"status\"}");
	works(f, "{\"op\":\"df\"}");
	works(f, "{\"op\":\"dedup.status\"}");
}

static void test_server_dedup(void **state)
{
	struct fix *f = *state;
	json_t *obj;

	refused(f, "{\"op\":\"dedup.pause\"}", "not-found");
	works(f, "{\"op\":\"dedup.start\"}");
	obj = data_of(f, "{\"op\":\"dedup.wait\"}");
	assert_string_equal(json_string_value(json_object_get(obj, "state")), "idle");
	assert_int_equal(json_integer_value(json_object_get(obj, "full_scans")), 1);
	json_decref(obj);
}

static void test_server_refuses_nonsense(void **state)
{
	static const char *const bad[] = {
		"x",
		"[]",
		"{}",
		"{\"op\":7}",
		"{\"op\":\"ping\",\"args\":7}",
		"{\"op\":\"snap.create\"}",
		"{\"op\":\"snap.create\",\"args\":{\"name\":1}}",
		"{\"op\":\"snap.delete\",\"args\":{\"names\":{}}}",
		"{\"op\":\"snap.delete\",\"args\":{\"names\":[]}}",
		"{\"op\":\"snap.delete\",\"args\":{\"names\":[[]]}}",
		"{\"op\":\"snap.rename\",\"args\":{\"old\":\"x\",\"new\":null}}",
		"{\"op\":\"snap.show\"}",
	};
	struct fix *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(f, bad[i], "usage");
	refused(f, "{\"op\":\"no.such\"}", "failed");
	works(f, "{\"op\":\"ping\"}");
}

static void test_server_ends_with_clients_connected(void **state)
{
	struct fix *f = *state;
	int idle[8], stuck = dial(f);
	static const char request[] = "{\"op\":\"status\"}\n";

	for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
		idle[i] = dial(f);
	/* One that asks and asks and never reads. */
	while (send(stuck, request, strlen(request), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	works(f, "{\"op\":\"ping\"}");
	server_stop(f->sv);
	f->sv = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(idle); i++) {
		char c;

		assert_int_equal(recv(idle[i], &c, 1, 0), 0);
		close(idle[i]);
	}
	close(stuck);
}

#define ASKERS 8
#define ROUNDS 40

static void *ask_often(void *arg)
{
	const struct fix *f = arg;

	for (int i = 0; i < ROUNDS; i++) {
		works(f,
		      i % 2 ? "{\"op\":\"status\"}"
			    : "{\"op\":\"snap.create\",\"args\":{\"name\":\"x\",\"unique\":true}}");
	}
	return NULL;
}

static void test_server_many_at_once(void **state)
{
	struct fix *f = *state;
	pthread_t t[ASKERS];
	unsigned int items = 0;

	for (size_t i = 0; i < ASKERS; i++)
		assert_int_equal(thread_start(&t[i], "asker", ask_often, f), 0);
	for (size_t i = 0; i < ASKERS; i++)
		thread_join(t[i]);
	json_decref(ask(f, "{\"op\":\"snap.list\"}", &items));
	assert_int_equal(items, ASKERS * ROUNDS / 2);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_server_snapshots),
		CASE(test_server_no_snapshot_of_what_the_kernel_keeps),
		CASE(test_server_who_may_only_look),
		CASE(test_server_dedup),
		CASE(test_server_refuses_nonsense),
		CASE(test_server_ends_with_clients_connected),
		CASE(test_server_many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
