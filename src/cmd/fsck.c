/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsck.pmfs - check an image that is not mounted.  The exit status has the bits that fsck(8)
 * expects, not those of the other commands.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cli.h"
#include "cmd/image.h"
#include "cmd/progress.h"
#include "ctl/text.h"

static const char usage_text[] =
	"usage: fsck.pmfs [-n] IMAGE     check, change nothing\n"
	"       fsck.pmfs -y IMAGE       check, and repair what can be repaired\n"
	"\n"
	"Without either it asks on a terminal, and changes nothing elsewhere.\n"
	"Exit status (bits): 0 clean; 1 damage was repaired; 4 damage is left; 8 it could\n"
	"not be checked; 16 wrong usage.\n"
	"\n"
	"      --cut-data     with -y: damaged contents become holes (zeros); otherwise they\n"
	"                     stay, and reading them is an error\n"
	"      --progress=auto|bar|json|none\n"
	"      --json         answer in JSON, a line for each finding and one at the end\n"
	"  -a, -p, -r         the same as -y\n"
	"  -q                 no lines, only the exit status\n"
	"  -v                 the engine's own messages, too\n"
	"  -h, -V             this help, the version\n";

enum {
	FSCK_CLEAN = 0,
	FSCK_REPAIRED = 1,
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

enum { OPT_CUT_DATA = CLI_OPT_FIRST, OPT_PROGRESS };

struct check {
	struct cli *cli;
	const char *path;
	json_int_t findings;
	bool repair, cut_data;
	enum cli_progress how;
	struct progress progress;
	double shown; /* percent */
};

/* state: NULL, "repaired" or "left" */
static void say(struct check *ck, const char *what, const char *state)
{
	json_t *item;

	progress_end(&ck->progress);
	if (ck->cli->json) {
		item = json_object();
		text_set(item, "finding", what);
		if (state)
			json_object_set_new(item, "state", json_string(state));
		cli_line(ck->cli, "item", item);
	} else if (!ck->cli->quiet) {
		if (state && !strcmp(state, "left"))
			fputs("NOT REPAIRED: ", stdout);
		/* One line, whatever a name in the image has in it. */
		for (; *what; what++)
			putchar((unsigned char)*what < ' ' || *what == 127 ? '?' : *what);
		putchar('\n');
	}
}

static void finding(void *arg, const char *what)
{
	struct check *ck = arg;

	ck->findings++;
	say(ck, what, NULL);
}

/* Not more often than it can be seen. */
static void show(void *arg, double percent)
{
	struct check *ck = arg;

	if (percent < ck->shown || percent >= ck->shown + 0.1) {
		ck->shown = percent;
		progress_show(&ck->progress, percent, 0, 0, NULL);
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

static int check(struct check *ck)
{
	const struct fs_config cfg = {.store = {.path = ck->path, .read_only = true}};
	struct store_error err;
	struct fs *fs;
	int rc;

	rc = image_open_fs(&fs, &cfg, &err);
	if (rc == -EROFS)
		return check_empty(ck, ck->path);
	if (rc)
		return open_failed(ck, ck->path, rc, &err);
	progress_begin(&ck->progress, ck->cli, "check", ck->how);
	rc = fs_check_shown(fs, true, finding, show, ck);
	progress_end(&ck->progress);
	fs_close(fs);
	return conclude(ck, ck->path, rc);
}

/* ------------------------------------------------------------------ repair */

static void said(void *arg, bool left, const char *what)
{
	say(arg, what, left ? "left" : "repaired");
}

static void show_step(void *arg, const char *what, double percent)
{
	struct check *ck = arg;

	ck->progress.what = what;
	show(ck, percent);
}

static bool is_damage(int rc)
{
	return rc == -EBADMSG || rc == -EUCLEAN || rc == -EIO;
}

/* Can the volumes of that slot be opened as they are? */
static int probe(struct check *ck, bool older, struct store_error *err)
{
	const struct fs_config cfg = {
		.store = {.path = ck->path, .read_only = true, .older = older}};
	struct fs *fs;
	int rc;

	rc = image_open_fs(&fs, &cfg, err);
	if (!rc)
		fs_close(fs);
	return rc;
}

static int repair_with(struct check *ck, struct fs_repair *how, bool older, struct store_error *err)
{
	struct fs_config cfg = {
		.store = {.path = ck->path, .older = older},
		.repair = how,
	};
	struct fs *fs;
	int rc;

	image_owner(&cfg);
	*how = (struct fs_repair){
		.cut_data = ck->cut_data,
		.said = said,
		.progress = show_step,
		.arg = ck,
	};
	if (older) {
		how->fixed++;
		said(ck, false,
		     "the newest state can't be used: the one before it takes its place");
	}
	rc = image_open_fs(&fs, &cfg, err);
	if (rc)
		return rc;
	rc = fs_close(fs);
	if (rc)
		snprintf(err->text, sizeof(err->text), "what was repaired could not be written: %s",
			 strerror(-rc));
	return rc;
}

static int repair(struct check *ck)
{
	struct store_error err;
	struct fs_repair how;
	bool older = false;
	json_t *data;
	char text[512];
	int rc, status;

	rc = probe(ck, false, &err);
	if (rc == -EROFS)
		return check(ck); /* there is nothing in it that could be repaired */
	if (rc && !is_damage(rc)) {
		snprintf(text, sizeof(text), "can't repair the image: %s", err.text);
		return fail(ck->cli, FSCK_ERROR, (int)outcome_of_open(rc), text);
	}
	/* A contradiction can be put right; what can't be read is lost, and the older state has it.
	 */
	if (rc && rc != -EUCLEAN)
		older = !probe(ck, true, &err);
	progress_begin(&ck->progress, ck->cli, "repair", ck->how);
	rc = repair_with(ck, &how, older, &err);
	if (is_damage(rc) && !older)
		rc = repair_with(ck, &how, true, &err);
	progress_end(&ck->progress);
	data = json_pack("{s:I, s:I}", "repaired", (json_int_t)how.fixed, "left",
			 (json_int_t)how.left);
	text_set(data, "image", ck->path);
	status = (how.fixed ? FSCK_REPAIRED : 0) | (how.left || is_damage(rc) ? FSCK_DAMAGED : 0);
	if (rc) {
		snprintf(text, sizeof(text), "the repair of %.200s stopped: %.250s", ck->path,
			 err.text);
		return cli_fail_data(ck->cli, is_damage(rc) ? status : FSCK_ERROR,
				     outcome_code((int)outcome_of_open(rc)), data, text);
	}
	if (how.left) {
		snprintf(text, sizeof(text), "%.300s is still damaged: %llu findings are left",
			 ck->path, (unsigned long long)how.left);
		return cli_fail_data(ck->cli, status, outcome_code(OUTCOME_DAMAGED), data, text);
	}
	if (!ck->cli->json && !ck->cli->quiet)
		printf(how.fixed ? "%s: repaired\n" : "%s: clean\n", ck->path);
	return cli_done(ck->cli, data) ? FSCK_ERROR : status;
}

static bool yes(const struct check *ck)
{
	char answer[16];

	printf("Repair %s? [y/N] ", ck->path);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		CLI_LONG,
		{"cut-data", no_argument, NULL, OPT_CUT_DATA},
		{"progress", required_argument, NULL, OPT_PROGRESS},
		{0},
	};
	bool no = false;
	struct check ck = {.how = CLI_PROGRESS_AUTO};
	struct cli cli;
	int opt, status = 0;

	cli_init(&cli, "fsck.pmfs", usage_text, argc, argv);
	ck.cli = &cli;
	progress_begin(&ck.progress, &cli, "check", CLI_PROGRESS_NONE);
	while ((opt = cli_getopt(&cli, argc, argv, ":" CLI_SHORT "nyapfrC::T", longs)) != -1) {
		switch (opt) {
		case 'n':
			no = true;
			break;
		case 'f': /* every check is a full one */
		case 'C': /* fsck(8) passes these two on */
		case 'T':
			break;
		case OPT_CUT_DATA:
			ck.cut_data = true;
			break;
		case OPT_PROGRESS:
			if (cli_parse_progress(optarg, &ck.how))
				status = cli_usage(&cli,
						   "--progress=%s is none of auto, bar, json, none",
						   optarg)
						 ? FSCK_USAGE
						 : 0;
			break;
		case '?':
			status = FSCK_USAGE;
			break;
		default:
			ck.repair = true;
		}
		if (status)
			break;
	}
	if (!status && ((no && ck.repair) || (ck.cut_data && !ck.repair)))
		status = fail(&cli, FSCK_USAGE, OUTCOME_USAGE,
			      no && ck.repair ? "-n and -y exclude each other"
					      : "--cut-data goes with -y");
	else if (!status && argc - optind != 1)
		status = cli_usage(&cli, argc == optind ? "IMAGE is missing"
							: "there are too many operands")
				 ? FSCK_USAGE
				 : 0;
	cli.lines = true;
	if (!cli.verbose)
		log_to_function(drop_message, NULL);
	if (!status) {
		ck.path = argv[optind];
		status = ck.repair ? repair(&ck) : check(&ck);
		if (status == FSCK_DAMAGED && !ck.repair && !no && !cli.json && !cli.quiet &&
		    isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && yes(&ck))
			status = repair(&ck);
	}
	cli_free(&cli);
	return status;
}
