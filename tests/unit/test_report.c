/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "ctl/report.h"
#include "ctl/show.h"
#include "share/dedup.h"
#include "tree/fs.h"

static const struct fs_stats example = {
	.store =
		{
			.frames = {.used = 1064,
				   .free = 10,
				   .pending = 5,
				   .shared = 7,
				   .sharing = 100,
				   .total = 2000,
				   .limit = 4096,
				   .available = 3000,
				   .scanned = true},
			.pages = 1120,
			.holes = 20,
			.host_bytes = 1 << 23,
		},
	.inodes_used = 12,
	.data_pages = 600,
	.logical_pages = 1500,
	.snapshots = 2,
};

static uint64_t number(const json_t *obj, const char *key)
{
	const json_t *n = json_object_get(obj, key);

	assert_true(json_is_integer(n));
	return (uint64_t)json_integer_value(n);
}

static void test_report_df(void **state)
{
	static const char *const promised[] = {
		"logical_bytes",    "frames_total",	  "frames_used",
		"frames_data",	    "frames_metadata",	  "saved_dedup_bytes",
		"saved_pack_bytes", "pending_free_bytes", "host_bytes",
	};
	json_t *df = report_df_of(&example);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(promised); i++)
		assert_true(json_is_integer(json_object_get(df, promised[i])));
	assert_int_equal(number(df, "frames_total"), 4096);
	assert_int_equal(number(df, "frames_used"), 1064);
	assert_int_equal(number(df, "frames_data"), 1000);
	assert_int_equal(number(df, "frames_metadata"), 64);
	assert_int_equal(number(df, "saved_dedup_bytes"), 120 * 4096);
	assert_int_equal(number(df, "logical_bytes"), 1500 * 4096);
	assert_int_equal(number(df, "pending_free_bytes"), 5 * 4096);
	assert_int_equal(number(df, "available_bytes"), 3000 * 4096);
	json_decref(df);
}

/* While frames are still being counted after a mount the numbers do not fit together; none may wrap
 * around. */
static void test_report_df_before_the_scan(void **state)
{
	struct fs_stats st = example;
	json_t *df;

	(void)state;
	st.store.frames.used = 3;
	st.store.frames.sharing = 5000;
	st.store.frames.scanned = false;
	df = report_df_of(&st);
	assert_int_equal(number(df, "frames_data"), 0);
	assert_int_equal(number(df, "frames_metadata"), 3);
	assert_true(json_is_false(json_object_get(df, "scanned")));
	json_decref(df);
}

static void test_report_dedup(void **state)
{
	static const char *const promised[] = {
		"pages_scanned",  "pages_merged", "bytes_saved",   "bytes_per_second",
		"eta_seconds",	  "pages_shared", "pages_sharing", "pages_unshared",
		"pages_volatile", "full_scans",
	};
	struct dedup_stats st = {.state = DEDUP_PAUSED,
				 .percent = 12.5,
				 .pages_merged = 3,
				 .started_ns = UINT64_C(1790000000000000000)};
	json_t *obj = report_dedup_of(&st);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(promised); i++)
		assert_true(json_is_integer(json_object_get(obj, promised[i])));
	assert_string_equal(json_string_value(json_object_get(obj, "state")), "paused");
	assert_true(json_number_value(json_object_get(obj, "percent")) == 12.5);
	assert_string_equal(json_string_value(json_object_get(obj, "started")),
			    "2026-09-21T14:13:20Z");
	assert_true(json_is_null(json_object_get(obj, "finished")));
	assert_true(json_is_null(json_object_get(obj, "error")));
	json_decref(obj);
}

/* What show_x() prints; the caller's to free. */
static char *shown(void (*show)(FILE *f, const json_t *obj), const json_t *obj)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	show(f, obj);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void test_report_shown_to_people(void **state)
{
	json_t *df = report_df_of(&example);
	char *text = shown(show_df, df);

	(void)state;
	assert_non_null(strstr(text, "16.0 MiB"));
	assert_non_null(strstr(text, "26.0 %"));
	free(text);
	json_decref(df);
	/* A daemon of another version may leave anything out. */
	df = json_object();
	free(shown(show_df, df));
	free(shown(show_status, df));
	free(shown(show_dedup, df));
	free(shown(show_metrics, df));
	json_decref(df);
}

static void test_report_metrics(void **state)
{
	json_t *status = report_df_of(&example);
	char *text, *line, *save = NULL;
	unsigned int values = 0;

	(void)state;
	json_object_set_new(status, "mount", json_pack("{s:s}", "dir", "/mnt/\"odd\"\\\nname"));
	json_object_set_new(status, "requests", json_pack("{s:i, s:i}", "total", 9, "write", 9));
	text = shown(show_metrics, status);
	assert_non_null(
		strstr(text, "\npmfs_frames_used{dir=\"/mnt/\\\"odd\\\"\\\\\\nname\"} 1064\n"));
	assert_non_null(strstr(text, ",operation=\"write\"} 9\n"));
	assert_null(strstr(text, "operation=\"total\""));
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(line, "# HELP pmfs_", 12) || !strncmp(line, "# TYPE pmfs_", 12))
			continue;
		assert_int_equal(strncmp(line, "pmfs_", 5), 0);
		assert_non_null(strstr(line, "} "));
		values++;
	}
	assert_true(values > 20);
	free(text);
	json_decref(status);
}

static void test_report_stats_rates(void **state)
{
	json_t *before = json_pack("{s:{s:i,s:i}}", "requests", "total", 10, "read", 10);
	json_t *after = json_pack("{s:{s:i,s:i}}", "requests", "total", 40, "read", 40);
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	assert_non_null(f);
	show_stats(f, after, before, 2.0);
	fclose(f);
	assert_non_null(strstr(text, "15.0/s"));
	free(text);
	json_decref(before);
	json_decref(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_report_df),
		cmocka_unit_test(test_report_df_before_the_scan),
		cmocka_unit_test(test_report_dedup),
		cmocka_unit_test(test_report_shown_to_people),
		cmocka_unit_test(test_report_metrics),
		cmocka_unit_test(test_report_stats_rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
