/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pmfs-snap - snapshots: make, list, show, delete, rename.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/units.h"
#include "cmd/tool.h"

static const char usage_text[] =
	"usage: pmfs-snap create DIR [NAME] [-m TEXT]   make one; NAME defaults to the time\n"
	"       pmfs-snap list DIR [--space]            what there is\n"
	"       pmfs-snap show DIR NAME                 all about one\n"
	"       pmfs-snap delete DIR NAME... [-n]       delete; -n: say what would be freed\n"
	"       pmfs-snap rename DIR OLD NEW            give one another name\n"
	"\n"
	"DIR is any path in a mount.  NAME may be @-1 (the newest), @-2, @2h (two hours old).\n"
	"A snapshot's files are in DIR/.snapshots/NAME.\n"
	"\n"
	"      --json     answer in JSON\n"
	"  -q, -v         say less, say more\n"
	"  -h, -V         this help, the version\n";

/* A string from the command line for a request; NULL after an error has been told. */
static json_t *text_arg(struct cli *cli, const char *what, const char *value)
{
	json_t *s = json_string(value);

	if (!s)
		cli_usage(cli, "the %s is not UTF-8", what);
	return s;
}

static const char *text(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? s : "";
}

/* ------------------------------------------------------------------ create */

static void name_of_now(char *buf, size_t len)
{
	time_t t = time(NULL);
	struct tm tm;

	localtime_r(&t, &tm);
	strftime(buf, len, "%Y-%m-%dT%H:%M:%S", &tm);
}

static int run_create(struct cli *cli, int argc, char **argv)
{
	static const struct option longs[] = {
		CLI_LONG, {"message", required_argument, NULL, 'm'}, {0}};
	const char *message = "";
	char now[32];
	struct client c;
	json_t *args, *name;
	int opt, status;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT "m:", longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		message = optarg;
	}
	argc -= optind;
	argv += optind;
	if (argc < 1 || argc > 2)
		return cli_usage(cli, argc < 1 ? "DIR is missing" : "there are too many operands");
	name_of_now(now, sizeof(now));
	name = text_arg(cli, "name", argc == 2 ? argv[1] : now);
	args = name ? json_object() : NULL;
	if (!args)
		return OUTCOME_USAGE;
	json_object_set_new(args, "name", name);
	json_object_set_new(args, "unique", json_boolean(argc == 1));
	name = text_arg(cli, "message", message);
	if (!name) {
		json_decref(args);
		return OUTCOME_USAGE;
	}
	json_object_set_new(args, "message", name);
	status = tool_open(cli, &c, argv[0]);
	if (status)
		json_decref(args);
	else
		status = tool_ask(cli, &c, "snap.create", args, NULL, NULL);
	if (!status) {
		if (!cli->json && !cli->quiet)
			printf("%s\n", text(c.data, "name"));
		status = cli_done(cli, json_incref(c.data));
	}
	client_close(&c);
	return status;
}

/* ------------------------------------------------------------------ list and show */

static int collect(void *arg, const json_t *line)
{
	json_t *copy = json_copy((json_t *)(uintptr_t)line);

	json_object_del(copy, "type");
	return json_array_append_new(arg, copy);
}

/* RFC 3339 in UTC, as the daemon has it, to local time. */
static const char *local_time(const json_t *snap, char *buf, size_t len)
{
	struct tm tm = {0};
	const char *rest = strptime(text(snap, "created"), "%Y-%m-%dT%H:%M:%S", &tm);

	if (!rest)
		return "";
	return units_format_local(buf, len, (int64_t)timegm(&tm) * NS_PER_SEC);
}

static const char *size_of(const json_t *snap, const char *key, char *buf, size_t len)
{
	const json_t *n = json_object_get(snap, key);

	return json_is_integer(n) ? units_format_size(buf, len, (uint64_t)json_integer_value(n))
				  : "";
}

static void print_list(const json_t *snaps, bool space)
{
	char when[UNITS_BUF], size[UNITS_BUF], own[UNITS_BUF];
	size_t i, width = 4;
	const json_t *s;

	json_array_foreach(snaps, i, s) width = MAX(width, strlen(text(s, "name")));
	if (!json_array_size(snaps))
		return;
	printf("%-*s  %-19s  %10s  %s%s\n", (int)width, "NAME", "TIME", "SIZE",
	       space ? " EXCLUSIVE  " : "", "MESSAGE");
	json_array_foreach(snaps, i, s)
	{
		printf("%-*s  %-19s  %10s  ", (int)width, text(s, "name"),
		       local_time(s, when, sizeof(when)),
		       size_of(s, "referenced_bytes", size, sizeof(size)));
		if (space)
			printf("%10s  ", size_of(s, "exclusive_bytes", own, sizeof(own)));
		printf("%s\n", text(s, "message"));
	}
}

static int run_list(struct cli *cli, int argc, char **argv)
{
	enum { OPT_SPACE = CLI_OPT_FIRST };
	static const struct option longs[] = {
		CLI_LONG, {"space", no_argument, NULL, OPT_SPACE}, {0}};
	json_t *snaps = NULL;
	bool space = false;
	struct client c;
	int opt, status;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT, longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		space = true;
	}
	if (argc - optind != 1)
		return cli_usage(cli,
				 argc == optind ? "DIR is missing" : "there are too many operands");
	status = tool_open(cli, &c, argv[optind]);
	if (!status) {
		snaps = json_array();
		status = tool_ask(cli, &c, "snap.list", json_pack("{s:b}", "space", space), collect,
				  snaps);
	}
	if (!status) {
		if (!cli->json && !cli->quiet)
			print_list(snaps, space);
		status = cli_done(cli, json_pack("{s:O}", "snapshots", snaps));
	}
	json_decref(snaps);
	client_close(&c);
	return status;
}

static void print_one(const json_t *s)
{
	char buf[UNITS_BUF];

	printf("name        %s\n", text(s, "name"));
	printf("created     %s\n", local_time(s, buf, sizeof(buf)));
	printf("message     %s\n", text(s, "message"));
	printf("id          %lld\n", json_integer_value(json_object_get(s, "id")));
	printf("generation  %lld\n", json_integer_value(json_object_get(s, "generation")));
	printf("held        %s\n", json_is_true(json_object_get(s, "held")) ? "yes" : "no");
	printf("inodes      %lld\n", json_integer_value(json_object_get(s, "inodes")));
	printf("size        %s\n", size_of(s, "referenced_bytes", buf, sizeof(buf)));
	printf("exclusive   %s\n", size_of(s, "exclusive_bytes", buf, sizeof(buf)));
}

static int run_show(struct cli *cli, int argc, char **argv)
{
	struct client c;
	json_t *name;
	int status = tool_no_options(cli, argc, argv);

	if (status)
		return status;
	if (argc - optind != 2)
		return cli_usage(cli, "show takes DIR and the NAME of a snapshot");
	name = text_arg(cli, "name", argv[optind + 1]);
	if (!name)
		return OUTCOME_USAGE;
	status = tool_open(cli, &c, argv[optind]);
	if (!status)
		status = tool_ask(cli, &c, "snap.show", json_pack("{s:O}", "name", name), NULL,
				  NULL);
	json_decref(name);
	if (!status) {
		if (!cli->json && !cli->quiet)
			print_one(c.data);
		status = cli_done(cli, json_incref(c.data));
	}
	client_close(&c);
	return status;
}

/* ------------------------------------------------------------------ delete and rename */

static void print_deleted(const struct cli *cli, const json_t *data, bool dry_run)
{
	const json_t *s, *list = json_object_get(data, dry_run ? "snapshots" : "deleted");
	char buf[UNITS_BUF];
	size_t i;

	if (cli->json || cli->quiet)
		return;
	json_array_foreach(list, i, s)
	{
		if (dry_run)
			printf("would delete %s and free %s\n", text(s, "name"),
			       size_of(s, "exclusive_bytes", buf, sizeof(buf)));
		else if (cli->verbose)
			printf("deleted %s\n", json_string_value(s));
	}
	if (dry_run && json_array_size(list) > 1)
		printf("%s in all\n", size_of(data, "would_free_bytes", buf, sizeof(buf)));
}

static int run_delete(struct cli *cli, int argc, char **argv)
{
	static const struct option longs[] = {CLI_LONG, {"dry-run", no_argument, NULL, 'n'}, {0}};
	json_t *names, *name;
	bool dry_run = false;
	struct client c;
	int opt, status;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT "n", longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		dry_run = true;
	}
	if (argc - optind < 2)
		return cli_usage(cli, "delete takes DIR and the NAMEs of snapshots");
	names = json_array();
	for (int i = optind + 1; i < argc; i++) {
		name = text_arg(cli, "name", argv[i]);
		if (!name) {
			json_decref(names);
			return OUTCOME_USAGE;
		}
		json_array_append_new(names, name);
	}
	status = tool_open(cli, &c, argv[optind]);
	if (!status) {
		status = client_call(&c, "snap.delete",
				     json_pack("{s:O, s:b}", "names", names, "dry_run", dry_run),
				     NULL, NULL, NULL);
		cli_warn_all(cli, c.warnings);
		print_deleted(cli, c.data, dry_run);
		if (status)
			cli_fail_data(cli, status, outcome_code(status), json_incref(c.data),
				      c.text);
		else
			status = cli_done(cli, json_incref(c.data));
	}
	json_decref(names);
	client_close(&c);
	return status;
}

static int run_rename(struct cli *cli, int argc, char **argv)
{
	json_t *from, *to;
	struct client c;
	int status = tool_no_options(cli, argc, argv);

	if (status)
		return status;
	if (argc - optind != 3)
		return cli_usage(cli, "rename takes DIR, the NAME of a snapshot and a new one");
	from = text_arg(cli, "name", argv[optind + 1]);
	if (!from)
		return OUTCOME_USAGE;
	to = text_arg(cli, "new name", argv[optind + 2]);
	if (!to) {
		json_decref(from);
		return OUTCOME_USAGE;
	}
	status = tool_open(cli, &c, argv[optind]);
	if (!status)
		status = tool_ask(cli, &c, "snap.rename",
				  json_pack("{s:O, s:O}", "old", from, "new", to), NULL, NULL);
	json_decref(from);
	json_decref(to);
	if (!status)
		status = cli_done(cli, json_incref(c.data));
	client_close(&c);
	return status;
}

int main(int argc, char **argv)
{
	static const struct cli_command table[] = {
		{"create", run_create, usage_text},
		{"list", run_list, usage_text},
		{"show", run_show, usage_text},
		{"delete", run_delete, usage_text},
		{"rename", run_rename, usage_text},
		{"diff", NULL, NULL},
		{"rollback", NULL, NULL},
		{"fork", NULL, NULL},
		{"restore", NULL, NULL},
		{"clone", NULL, NULL},
		{"mount", NULL, NULL},
		{"hold", NULL, NULL},
		{"release", NULL, NULL},
		{"send", NULL, NULL},
		{"receive", NULL, NULL},
		{"prune", NULL, NULL},
		{"run", NULL, NULL},
	};
	struct cli cli;
	int status;

	cli_init(&cli, "pmfs-snap", usage_text, argc, argv);
	status = cli_dispatch(&cli, table, ARRAY_SIZE(table), argc, argv);
	cli_free(&cli);
	return status;
}
