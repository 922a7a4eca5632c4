/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "config.h"
#include "ctl/text.h"

static const char *version_note = "";

void cli_set_version_note(const char *note)
{
	version_note = note;
}

void cli_init(struct cli *cli, const char *prog, const char *usage, int argc, char **argv)
{
	*cli = (struct cli){.prog = prog, .usage = usage, .warnings = json_array()};
	snprintf(cli->command, sizeof(cli->command), "%s", prog);
	/* So that also an error in an earlier option is told in JSON (C1). */
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--json"))
			cli->json = true;
	}
	opterr = 0;
}

void cli_free(struct cli *cli)
{
	json_decref(cli->warnings);
	cli->warnings = NULL;
}

static void print_json(json_t *obj)
{
	if (!obj || json_dumpf(obj, stdout, JSON_COMPACT))
		fputs("{\"schema\":\"pmfs/"
		      "1\",\"ok\":false,\"error\":{\"code\":\"failed\",\"message\":\"out of "
		      "memory\"}}",
		      stdout);
	putchar('\n');
	fflush(stdout);
	json_decref(obj);
}

static json_t *envelope(struct cli *cli, bool ok)
{
	json_t *obj =
		json_pack("{s:s, s:s, s:b}", "schema", "pmfs/1", "command", cli->command, "ok", ok);

	if (obj && cli->lines)
		json_object_set_new(obj, "type", json_string("summary"));
	return obj;
}

int cli_fail_data(struct cli *cli, int status, const char *code, json_t *data, const char *text)
{
	json_t *obj;

	fflush(stdout);
	fprintf(stderr, "%s: %s\n", cli->prog, text);
	if (cli->json) {
		obj = envelope(cli, false);
		if (data)
			json_object_set_new(obj, "data", data);
		json_object_set_new(
			obj, "error",
			json_pack("{s:s, s:o}", "code", code, "message", text_json(text)));
		json_object_set(obj, "warnings", cli->warnings);
		print_json(obj);
	} else {
		json_decref(data);
	}
	return status;
}

/* One line: control characters, which a name may have in it, are told as '?'. */
static void format_line(char *buf, size_t len, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
static void format_line(char *buf, size_t len, const char *fmt, va_list ap)
{
	vsnprintf(buf, len, fmt, ap);
	for (; *buf; buf++) {
		if ((unsigned char)*buf < ' ' || *buf == 127)
			*buf = '?';
	}
}

int cli_fail(struct cli *cli, int status, const char *fmt, ...)
{
	char text[8192];
	va_list ap;

	va_start(ap, fmt);
	format_line(text, sizeof(text), fmt, ap);
	va_end(ap);
	return cli_fail_data(cli, status, outcome_code(status), NULL, text);
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	char text[8192], line[8300];
	va_list ap;

	va_start(ap, fmt);
	format_line(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "%s; see %s --help", text, cli->prog);
	return cli_fail_data(cli, OUTCOME_USAGE, outcome_code(OUTCOME_USAGE), NULL, line);
}

static void warn_text(struct cli *cli, const char *text)
{
	fflush(stdout);
	if (!cli->quiet)
		fprintf(stderr, "%s: %s\n", cli->prog, text);
	json_array_append_new(cli->warnings, text_json(text));
}

void cli_warn(struct cli *cli, const char *fmt, ...)
{
	char text[8192];
	va_list ap;

	va_start(ap, fmt);
	format_line(text, sizeof(text), fmt, ap);
	va_end(ap);
	warn_text(cli, text);
}

void cli_warn_all(struct cli *cli, const json_t *warnings)
{
	const json_t *w;
	size_t i;

	json_array_foreach(warnings, i, w)
	{
		if (json_is_string(w))
			warn_text(cli, json_string_value(w));
	}
}

int cli_done(struct cli *cli, json_t *data)
{
	json_t *obj;

	if (cli->json) {
		obj = envelope(cli, true);
		json_object_set_new(obj, "data", data ? data : json_object());
		json_object_set(obj, "warnings", cli->warnings);
		print_json(obj);
	} else {
		json_decref(data);
	}
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "%s: can't write to standard output: %s\n", cli->prog,
			strerror(errno));
		return OUTCOME_FAILED;
	}
	return OUTCOME_DONE;
}

void cli_line(struct cli *cli, const char *type, json_t *obj)
{
	if (cli->json && obj) {
		json_object_set_new(obj, "type", json_string(type));
		print_json(json_incref(obj));
	}
	json_decref(obj);
}

static void print_version(const struct cli *cli)
{
	printf("%s %s%s\n", cli->prog, PACKAGE_VERSION, version_note);
}

static void wrong_option(struct cli *cli, char **argv, int c)
{
	/* optopt is the letter, or 0 for a long option that is unknown, or the value of one that
	 * lacks its argument. */
	const char *what = c == ':' ? "needs a value" : "is not known here, or takes no value";

	if (optopt && optopt < 256 && (optind < 2 || strncmp(argv[optind - 1], "--", 2)))
		cli_usage(cli, "the option -%c %s", optopt, what);
	else
		cli_usage(cli, "the option %s %s", argv[optind - 1], what);
}

int cli_getopt(struct cli *cli, int argc, char **argv, const char *shorts,
	       const struct option *longs)
{
	int c;

	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(cli->usage, stdout);
			exit(fflush(stdout) ? OUTCOME_FAILED : OUTCOME_DONE);
		case 'V':
			print_version(cli);
			exit(fflush(stdout) ? OUTCOME_FAILED : OUTCOME_DONE);
		case 'q':
			cli->quiet = true;
			break;
		case 'v':
			cli->verbose++;
			break;
		case CLI_OPT_JSON:
			cli->json = true;
			break;
		case '?':
		case ':':
			wrong_option(cli, argv, c);
			return '?';
		default:
			return c;
		}
	}
	return -1;
}

int cli_dispatch(struct cli *cli, const struct cli_command *table, size_t n, int argc, char **argv)
{
	static const struct option longs[] = {CLI_LONG, {0}};
	const char *name;

	/* "+": the command's own options come behind its name. */
	if (cli_getopt(cli, argc, argv, "+:" CLI_SHORT, longs) != -1)
		return OUTCOME_USAGE;
	if (optind == argc)
		return cli_usage(cli, "no command is given");
	name = argv[optind];
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, name))
			continue;
		snprintf(cli->command, sizeof(cli->command), "%s %s", cli->prog, name);
		if (!table[i].usage)
			return cli_usage(cli, "%s is not available yet", name);
		cli->usage = table[i].usage;
		argc -= optind;
		argv += optind;
		optind = 0; /* GNU getopt: start over */
		return table[i].run(cli, argc, argv);
	}
	return cli_usage(cli, "there is no command %s", name);
}

int cli_parse_progress(const char *text, enum cli_progress *out)
{
	static const char *const names[] = {"auto", "bar", "json", "none"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(names[i], text)) {
			*out = (enum cli_progress)i;
			return 0;
		}
	}
	return -EINVAL;
}
