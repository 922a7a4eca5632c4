/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsck.pmfs - check an image that is not mounted.  The exit status has the bits that fsck(8)
 * expects, not those of the other commands.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cmd/cli.h"
#include "cmd/image.h"
#include "ctl/text.h"

static const char usage_text[] =
	"usage: fsck.pmfs [-n] IMAGE     check, change nothing\n"
	"       fsck.pmfs -y IMAGE       repair (not available yet)\n"
	"\n"
	"Exit status: 0 clean; 4 damage found; 8 it could not be checked; 16 wrong usage.\n"
	"\n"
	"      --json     answer in JSON, a line for each finding and one at the end\n"
	"  -q             no lines, only the exit status\n"
	"  -v             the engine's own messages, too\n"
	"  -h, -V         this help, the version\n";

enum {
	FSCK_CLEAN = 0,
	FSCK_DAMAGED = 4,
	FSCK_ERROR = 8,
	FSCK_USAGE = 16,
};

/* The engine's own messages tell again what the findings say. */
static void drop_message(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

struct check {
	struct cli *cli;
	json_int_t findings;
};

static void finding(void *arg, const char *what)
{
	struct check *ck = arg;
	json_t *item;

	ck->findings++;
	if (ck->cli->json) {
		item = json_object();
		text_set(item, "finding", what);
		cli_line(ck->cli, "item", item);
	} else if (!ck->cli->quiet) {
		/* One line, whatever a name in the image has in it. */
		for (; *what; what++)
			putchar((unsigned char)*what < ' ' || *what == 127 ? '?' : *what);
		putchar('\n');
	}
}

static int fail(struct cli *cli, int status, int outcome, const char *text)
{
	return cli_fail_data(cli, status, outcome_code(outcome), NULL, text);
}

static json_t *summary(const struct check *ck, const char *path)
{
	json_t *data = json_pack("{s:I}", "findings", ck->findings);

	text_set(data, "image", path);
	return data;
}

/* What keeps an image from being opened is damage, too, when it is in the image. */
static int open_failed(struct check *ck, const char *path, int rc, const struct store_error *err)
{
	char text[512];

	if (outcome_of_open(rc) != OUTCOME_DAMAGED) {
		snprintf(text, sizeof(text), "can't check the image: %s", err->text);
		return fail(ck->cli, FSCK_ERROR, (int)outcome_of_open(rc), text);
	}
	finding(ck, err->text);
	snprintf(text, sizeof(text), "%s is damaged and can't be opened", path);
	return cli_fail_data(ck->cli, FSCK_DAMAGED, outcome_code(OUTCOME_DAMAGED),
			     summary(ck, path), text);
}

static int conclude(struct check *ck, const char *path, int rc)
{
	json_t *data = summary(ck, path);
	char text[512];

	if (rc < 0) {
		snprintf(text, sizeof(text), "the check of %.300s stopped: %s", path,
			 strerror(-rc));
		return cli_fail_data(ck->cli, ck->findings ? FSCK_DAMAGED : FSCK_ERROR,
				     outcome_code((int)outcome_of_open(rc)), data, text);
	}
	if (ck->findings) {
		snprintf(text, sizeof(text), "%.300s is damaged: %lld finding%s", path,
			 (long long)ck->findings, ck->findings == 1 ? "" : "s");
		return cli_fail_data(ck->cli, FSCK_DAMAGED, outcome_code(OUTCOME_DAMAGED), data,
				     text);
	}
	if (!ck->cli->json && !ck->cli->quiet)
		printf("%s: clean\n", path);
	return cli_done(ck->cli, data) ? FSCK_ERROR : FSCK_CLEAN;
}

/* An image that was made and never had a root directory: only the store can be checked. */
static int check_empty(struct check *ck, const char *path)
{
	const struct store_config cfg = {.path = path, .read_only = true};
	struct store_error err;
	struct store *st;
	int rc;

	rc = image_open_store(&st, &cfg, &err);
	if (rc)
		return open_failed(ck, path, rc, &err);
	rc = store_check(st, true, finding, ck);
	store_close(st);
	return conclude(ck, path, rc);
}

static int check(struct cli *cli, const char *path)
{
	const struct fs_config cfg = {.store = {.path = path, .read_only = true}};
	struct check ck = {.cli = cli};
	struct store_error err;
	struct fs *fs;
	int rc;

	rc = image_open_fs(&fs, &cfg, &err);
	if (rc == -EROFS)
		return check_empty(&ck, path);
	if (rc)
		return open_failed(&ck, path, rc, &err);
	rc = fs_check(fs, true, finding, &ck);
	fs_close(fs);
	return conclude(&ck, path, rc);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {CLI_LONG, {0}};
	bool repair = false;
	struct cli cli;
	int opt, status = 0;

	cli_init(&cli, "fsck.pmfs", usage_text, argc, argv);
	while ((opt = cli_getopt(&cli, argc, argv, ":" CLI_SHORT "nyapfrC::T", longs)) != -1) {
		switch (opt) {
		case 'n':
		case 'f': /* every check is a full one */
		case 'C': /* fsck(8) passes these two on */
		case 'T':
			break;
		case '?':
			status = FSCK_USAGE;
			break;
		default:
			repair = true;
		}
		if (status)
			break;
	}
	if (!status && repair)
		status = fail(&cli, FSCK_USAGE, OUTCOME_USAGE,
			      "repair is not available yet; check with: fsck.pmfs -n IMAGE");
	else if (!status && argc - optind != 1)
		status = cli_usage(&cli, argc == optind ? "IMAGE is missing"
							: "there are too many operands")
				 ? FSCK_USAGE
				 : 0;
	cli.lines = true;
	if (!cli.verbose)
		log_to_function(drop_message, NULL);
	if (!status)
		status = check(&cli, argv[optind]);
	cli_free(&cli);
	return status;
}
