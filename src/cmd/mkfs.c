/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mkfs.pmfs - make an empty image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cmd/cli.h"
#include "cmd/image.h"
#include "ctl/text.h"

static const char usage_text[] =
	"usage: mkfs.pmfs IMAGE [--size SIZE] [--label NAME] [--force]\n"
	"\n"
	"      --size S   how far the image may grow: 512M, 10G, 1T; by default as far as\n"
	"                 the filesystem or device that it is on\n"
	"      --label L  a name for it, 63 bytes at most\n"
	"      --force    overwrite what is there\n"
	"      --json     answer in JSON\n"
	"  -q, -v         say less, say more\n"
	"  -h, -V         this help, the version\n";

enum { OPT_SIZE = CLI_OPT_FIRST, OPT_LABEL, OPT_FORCE };

static int make(struct cli *cli, const char *path, struct store_format *how)
{
	char text[UNITS_BUF];
	struct store_error err;
	json_t *data;
	int rc;

	if (!how->limit_bytes)
		how->limit_bytes = image_default_size(path);
	rc = image_make(path, how, &err);
	if (rc == -EEXIST)
		return cli_fail(cli, OUTCOME_EXISTS,
				"%s exists and is not empty; overwrite it with --force", path);
	if (rc == -EINVAL)
		return cli_usage(cli, "can't make an image of %s: %s",
				 units_format_size(text, sizeof(text), how->limit_bytes), err.text);
	if (rc)
		return cli_fail(cli, (int)outcome_of_errno(rc), "can't make the image: %s",
				err.text);
	if (!cli->json && !cli->quiet)
		printf("%s is an empty pmfs that may grow to %s; mount it with: pmfs %s DIR\n",
		       path, units_format_size(text, sizeof(text), how->limit_bytes), path);
	data = json_pack("{s:I, s:s}", "size_bytes", (json_int_t)how->limit_bytes, "label",
			 how->label);
	text_set(data, "image", path);
	return cli_done(cli, data);
}

static int parse(struct cli *cli, int opt, struct store_format *how)
{
	switch (opt) {
	case OPT_SIZE:
		if (units_parse_size(optarg, &how->limit_bytes) || !how->limit_bytes)
			return cli_usage(cli, "%s is not a size such as 512M or 10G", optarg);
		return OUTCOME_DONE;
	case OPT_LABEL: {
		json_t *utf8 = json_string(optarg);
		bool bad = !utf8 || strlen(optarg) >= sizeof(how->label);

		json_decref(utf8);
		if (bad)
			return cli_usage(cli, "a label is UTF-8, and has %zu bytes at most",
					 sizeof(how->label) - 1);
		memset(how->label, 0, sizeof(how->label));
		memcpy(how->label, optarg, strlen(optarg));
		return OUTCOME_DONE;
	}
	case OPT_FORCE:
		how->force = true;
		return OUTCOME_DONE;
	default:
		return OUTCOME_USAGE;
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		CLI_LONG,
		{"size", required_argument, NULL, OPT_SIZE},
		{"label", required_argument, NULL, OPT_LABEL},
		{"force", no_argument, NULL, OPT_FORCE},
		{0},
	};
	struct store_format how = {0};
	struct cli cli;
	int opt, status = OUTCOME_DONE;

	cli_init(&cli, "mkfs.pmfs", usage_text, argc, argv);
	while (!status && (opt = cli_getopt(&cli, argc, argv, ":" CLI_SHORT, longs)) != -1)
		status = parse(&cli, opt, &how);
	if (!status && argc - optind != 1)
		status = cli_usage(&cli, argc == optind ? "IMAGE is missing"
							: "there are too many operands");
	if (!status)
		status = make(&cli, argv[optind], &how);
	cli_free(&cli);
	return status;
}
