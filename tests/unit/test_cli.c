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
#include <unistd.h>

#include "base/bits.h"
#include "cmd/cli.h"
#include "cmd/progress.h"
#include "ctl/outcome.h"

/* What a function prints on stdout and stderr. */
struct capture {
	int saved[2];
	FILE *file[2];
	char text[2][4096];
};

static void capture_begin(struct capture *c)
{
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		c->saved[i] = dup(i + 1);
		c->file[i] = tmpfile();
		assert_non_null(c->file[i]);
		dup2(fileno(c->file[i]), i + 1);
	}
}

static void capture_end(struct capture *c)
{
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		size_t n;

		dup2(c->saved[i], i + 1);
		close(c->saved[i]);
		rewind(c->file[i]);
		n = fread(c->text[i], 1, sizeof(c->text[i]) - 1, c->file[i]);
		c->text[i][n] = 0;
		fclose(c->file[i]);
	}
}

static size_t lines(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static json_t *parse(const char *text)
{
	json_t *obj = json_loads(text, 0, NULL);

	assert_non_null(obj);
	assert_string_equal(json_string_value(json_object_get(obj, "schema")), "pmfs/1");
	return obj;
}

static void test_cli_error_is_one_line(void **state)
{
	char *argv[] = {(char[]){"prog"}, NULL};
	struct capture c;
	struct cli cli;
	int status;

	(void)state;
	cli_init(&cli, "prog", "usage\n", 1, argv);
	capture_begin(&c);
	status = cli_fail(&cli, OUTCOME_NOT_FOUND, "there is no %s", "a\nb\033[31m");
	capture_end(&c);
	cli_free(&cli);
	assert_int_equal(status, OUTCOME_NOT_FOUND);
	assert_string_equal(c.text[0], "");
	assert_string_equal(c.text[1], "prog: there is no a?b?[31m\n");
}

static void test_cli_error_in_json(void **state)
{
	char *argv[] = {(char[]){"prog"}, (char[]){"--json"}, NULL};
	struct capture c;
	struct cli cli;
	json_t *obj;

	(void)state;
	cli_init(&cli, "prog", "usage\n", 2, argv);
	assert_true(cli.json);
	capture_begin(&c);
	cli_warn(&cli, "mind %s", "the gap");
	cli_fail(&cli, OUTCOME_BUSY, "it is \"busy\": \xff");
	capture_end(&c);
	cli_free(&cli);
	assert_int_equal(lines(c.text[0]), 1);
	assert_int_equal(lines(c.text[1]), 2);
	obj = parse(c.text[0]);
	assert_true(json_is_false(json_object_get(obj, "ok")));
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(obj, "error"), "code")), "busy");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(obj, "error"), "message")),
		"it is \"busy\": ?");
	assert_string_equal(json_string_value(json_array_get(json_object_get(obj, "warnings"), 0)),
			    "mind the gap");
	json_decref(obj);
}

static void test_cli_done_in_json(void **state)
{
	char *argv[] = {(char[]){"prog"}, (char[]){"--json"}, NULL};
	struct capture c;
	struct cli cli;
	json_t *obj;
	int status;

	(void)state;
	cli_init(&cli, "prog", "usage\n", 2, argv);
	cli.lines = true;
	capture_begin(&c);
	cli_line(&cli, "item", json_pack("{s:i}", "n", 1));
	status = cli_done(&cli, json_pack("{s:i}", "n", 2));
	capture_end(&c);
	cli_free(&cli);
	assert_int_equal(status, 0);
	assert_int_equal(lines(c.text[0]), 2);
	assert_string_equal(c.text[1], "");
	obj = parse(strchr(c.text[0], '\n') + 1);
	assert_string_equal(json_string_value(json_object_get(obj, "type")), "summary");
	assert_string_equal(json_string_value(json_object_get(obj, "command")), "prog");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(obj, "data"), "n")), 2);
	assert_true(json_is_array(json_object_get(obj, "warnings")));
	json_decref(obj);
}

static int ran;

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option longs[] = {
		CLI_LONG, {"value", required_argument, NULL, 'x'}, {0}};
	int opt;

	ran = 0;
	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT "x:", longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		ran += atoi(optarg);
	}
	ran += 100 * (argc - optind);
	return 0;
}

/* Status of a command line of words with blanks between them. */
static int dispatch(const char *line, struct capture *c)
{
	static const struct cli_command table[] = {{"run", run, "usage\n"}, {"later", NULL, NULL}};
	char copy[128], *argv[16] = {NULL}, *save = NULL;
	struct cli cli;
	int argc = 0, status;

	snprintf(copy, sizeof(copy), "prog %s", line);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	optind = 0;
	cli_init(&cli, "prog", "usage\n", argc, argv);
	capture_begin(c);
	status = cli_dispatch(&cli, table, ARRAY_SIZE(table), argc, argv);
	capture_end(c);
	cli_free(&cli);
	return status;
}

static void test_cli_dispatch(void **state)
{
	static const char *const bad[] = {
		"",	  "other",	  "later",	 "--other",
		"-Z",	  "run -x",	  "run --value", "run --other",
		"run -Z", "run --json=1", "-x 1 run",
	};
	struct capture c;

	(void)state;
	assert_int_equal(dispatch("run", &c), 0);
	assert_int_equal(ran, 0);
	assert_int_equal(dispatch("-q run -x 3 a --value=4 b -v", &c), 0);
	assert_int_equal(ran, 207);
	assert_int_equal(dispatch("run -- -x", &c), 0);
	assert_int_equal(ran, 100);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(dispatch(bad[i], &c), OUTCOME_USAGE);
		assert_string_equal(c.text[0], "");
		assert_int_equal(lines(c.text[1]), 1);
		assert_non_null(strstr(c.text[1], "--help"));
	}
	assert_int_equal(dispatch("later", &c), OUTCOME_USAGE);
	assert_non_null(strstr(c.text[1], "not available yet"));
	assert_int_equal(dispatch("run --other --json", &c), OUTCOME_USAGE);
	json_decref(parse(c.text[0]));
}

static void test_cli_outcomes(void **state)
{
	static const struct {
		int err;
		enum outcome outcome;
	} map[] = {
		{0, OUTCOME_DONE},
		{-ENOENT, OUTCOME_NOT_FOUND},
		{-EEXIST, OUTCOME_EXISTS},
		{-EBUSY, OUTCOME_BUSY},
		{-ENOSPC, OUTCOME_NO_SPACE},
		{-EACCES, OUTCOME_NOT_PERMITTED},
		{-EROFS, OUTCOME_NOT_PERMITTED},
		{-EMEDIUMTYPE, OUTCOME_NOT_PMFS},
		{-EOPNOTSUPP, OUTCOME_NOT_PMFS},
		{-EBADMSG, OUTCOME_DAMAGED},
		{-EUCLEAN, OUTCOME_DAMAGED},
		{-ETIMEDOUT, OUTCOME_NO_DAEMON},
		{-EIO, OUTCOME_FAILED},
		{-ENOMEM, OUTCOME_FAILED},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		assert_int_equal(outcome_of_errno(map[i].err), map[i].outcome);
	assert_int_equal(outcome_of_open(-EIO), OUTCOME_DAMAGED);
	assert_int_equal(outcome_of_open(-ENOENT), OUTCOME_NOT_FOUND);
	assert_string_equal(outcome_code(5), "not-found");
	assert_string_equal(outcome_code(13), "no-daemon");
	assert_string_equal(outcome_code(130), "interrupted");
	assert_string_equal(outcome_code(77), "failed");
}

static void test_cli_progress(void **state)
{
	enum cli_progress how;
	char buf[256];

	(void)state;
	assert_int_equal(cli_parse_progress("bar", &how), 0);
	assert_int_equal(how, CLI_PROGRESS_BAR);
	assert_int_equal(cli_parse_progress("", &how), -EINVAL);
	assert_int_equal(cli_parse_progress("BAR", &how), -EINVAL);
	progress_format(buf, sizeof(buf), "dedup", 50, 1 << 20, 3, 80);
	assert_true(strlen(buf) < 80);
	assert_non_null(strstr(buf, " 50.0 % [####"));
	assert_non_null(strstr(buf, "1.0 MiB/s"));
	assert_non_null(strstr(buf, "ETA 3"));
	progress_format(buf, sizeof(buf), "dedup", 1000, 0, UINT64_MAX, 0);
	assert_non_null(strstr(buf, "100.0 % [##########]"));
	progress_format(buf, sizeof(buf), "dedup", -1, 0, 0, 500);
	assert_non_null(strstr(buf, "  0.0 % [   "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cli_error_is_one_line),
		cmocka_unit_test(test_cli_error_in_json),
		cmocka_unit_test(test_cli_done_in_json),
		cmocka_unit_test(test_cli_dispatch),
		cmocka_unit_test(test_cli_outcomes),
		cmocka_unit_test(test_cli_progress),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
