/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "ctl/wire.h"

/* For what must happen; it does at once. */
#define LONG_MS 60000

struct pair {
	int fd[2];
	struct wire w; /* reads from fd[0] */
};

static int setup(void **state)
{
	static struct pair p;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p.fd), 0);
	assert_int_equal(wire_init(&p.w, p.fd[0], WIRE_REQUEST_MAX), 0);
	*state = &p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	wire_free(&p->w);
	close(p->fd[0]);
	if (p->fd[1] >= 0)
		close(p->fd[1]);
	return 0;
}

static void put(struct pair *p, const void *data, size_t len)
{
	assert_int_equal(send(p->fd[1], data, len, 0), len);
}

static void test_wire_parse(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"1",
		"\"x\"",
		"null",
		"{",
		"{}x",
		"{\"a\":1,\"a\":2}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"b\\u0000c\"}",
		"{'a':1}",
	};
	json_t *obj;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(wire_parse(bad[i], strlen(bad[i]), &obj), -EBADMSG);
	assert_int_equal(wire_parse("{\"a\": [1, \"]}\"]}", 16, &obj), 0);
	assert_int_equal(json_array_size(json_object_get(obj, "a")), 2);
	json_decref(obj);
}

static void test_wire_depth_is_bounded(void **state)
{
	char text[8 * WIRE_DEPTH_MAX];
	json_t *obj;

	(void)state;
	for (size_t depth = 1; depth <= WIRE_DEPTH_MAX + 2; depth++) {
		size_t n = 0;

		/* Brackets in a string do not count. */
		n += (size_t)sprintf(text, "{\"[[\\\"[\":");
		for (size_t i = 1; i < depth; i++)
			text[n++] = '[';
		if (depth == 1)
			text[n++] = '0';
		for (size_t i = 1; i < depth; i++)
			text[n++] = ']';
		text[n++] = '}';
		assert_int_equal(wire_parse(text, n, &obj), depth <= WIRE_DEPTH_MAX ? 0 : -EBADMSG);
		if (depth <= WIRE_DEPTH_MAX)
			json_decref(obj);
	}
}

static void test_wire_reads_lines_in_any_pieces(void **state)
{
	static const char lines[] = "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n";
	struct pair *p = *state;
	json_t *obj;

	put(p, lines, strlen(lines));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wire_read(&p->w, LONG_MS, &obj), 0);
		assert_int_equal(json_integer_value(json_object_get(obj, "n")), i);
		json_decref(obj);
	}
	for (size_t i = 0; i < 7; i++) {
		put(p, lines + i, 1);
		assert_int_equal(wire_read(&p->w, 0, &obj), -ETIMEDOUT);
	}
	put(p, "\n", 1);
	assert_int_equal(wire_read(&p->w, LONG_MS, &obj), 0);
	json_decref(obj);
}

static void test_wire_end_and_nonsense(void **state)
{
	struct pair *p = *state;
	json_t *obj;

	put(p, "nonsense\n{\"a\":1}\n{\"half", 22);
	assert_int_equal(wire_read(&p->w, LONG_MS, &obj), -EBADMSG);
	assert_int_equal(wire_read(&p->w, LONG_MS, &obj), 0);
	json_decref(obj);
	close(p->fd[1]);
	p->fd[1] = -1;
	assert_int_equal(wire_read(&p->w, LONG_MS, &obj), -EPIPE);
}

static void test_wire_line_is_bounded(void **state)
{
	static char big[WIRE_REQUEST_MAX];
	struct pair *p = *state;
	json_t *obj;

	/* The longest that fits: with its newline exactly the limit. */
	memset(big, ' ', sizeof(big));
	memcpy(big, "{}", 2);
	big[sizeof(big) - 1] = '\n';
	put(p, big, sizeof(big));
	assert_int_equal(wire_read(&p->w, LONG_MS, &obj), 0);
	json_decref(obj);
	big[sizeof(big) - 1] = ' ';
	put(p, big, sizeof(big));
	assert_int_equal(wire_read(&p->w, LONG_MS, &obj), -EMSGSIZE);
}

static void test_wire_write(void **state)
{
	struct pair *p = *state;
	json_t *obj = json_pack("{s:s}", "text", "a\nb"), *got, *big;
	char *text;
	int rc;

	assert_int_equal(wire_write(p->fd[1], obj, LONG_MS), 0);
	assert_int_equal(wire_read(&p->w, LONG_MS, &got), 0);
	assert_true(json_equal(obj, got));
	json_decref(got);
	/* Nobody reads: it gives up, and does not wait for ever. */
	do {
		rc = wire_write(p->fd[1], obj, 0);
	} while (!rc);
	assert_int_equal(rc, -ETIMEDOUT);
	text = test_malloc(WIRE_REPLY_MAX + 1);
	memset(text, 'x', WIRE_REPLY_MAX);
	text[WIRE_REPLY_MAX] = 0;
	big = json_pack("{s:s}", "text", text);
	assert_int_equal(wire_write(p->fd[1], big, 0), -EMSGSIZE);
	test_free(text);
	json_decref(big);
	/* Nobody can read any more: an error, not a signal. */
	close(p->fd[0]);
	p->fd[0] = -1;
	assert_int_equal(wire_write(p->fd[1], obj, LONG_MS), -EPIPE);
	json_decref(obj);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire_parse),
		cmocka_unit_test(test_wire_depth_is_bounded),
		cmocka_unit_test_setup_teardown(test_wire_reads_lines_in_any_pieces, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_wire_end_and_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wire_line_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wire_write, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
