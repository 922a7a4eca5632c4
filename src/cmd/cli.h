/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cli.h - what all commands have in common: options, the JSON around every answer, the one line of
 * an error, exit statuses (ctl/outcome.h).
 *
 *   C1  With --json there is one object on stdout (long work: one a line), whatever happens;
 *       without it, what people read.
 *   C2  An error is one line on stderr, with "PROG: " in front.
 */
#ifndef PMFS_CMD_CLI_H
#define PMFS_CMD_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "ctl/outcome.h"

enum cli_progress { CLI_PROGRESS_AUTO, CLI_PROGRESS_BAR, CLI_PROGRESS_JSON, CLI_PROGRESS_NONE };

struct cli {
	const char *prog;	 /* "pmfs-snap" */
	char command[64];	 /* "pmfs-snap create": what JSON calls it */
	const char *usage;	 /* of the program or of the command: the lines of -h */
	bool json, quiet, lines; /* lines: long work, its end is a line of type "summary" */
	unsigned int verbose;
	json_t *warnings;
};

struct cli_command {
	const char *name;
	/* argv[0] is the name; returns an exit status. */
	int (*run)(struct cli *cli, int argc, char **argv);
	const char *usage; /* NULL: of a later version */
};

/* Values of long options without a letter start here. */
enum { CLI_OPT_JSON = 256, CLI_OPT_FIRST };
#define CLI_SHORT "hVqv"
#define CLI_LONG                                                                        \
	{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'},          \
		{"quiet", no_argument, NULL, 'q'}, {"verbose", no_argument, NULL, 'v'}, \
	{                                                                               \
		"json", no_argument, NULL, CLI_OPT_JSON                                 \
	}

void cli_init(struct cli *cli, const char *prog, const char *usage, int argc, char **argv);
void cli_free(struct cli *cli);

/*
 * The next option of the command: a value of longs or shorts, -1 at the end (optind is then the
 * first operand), '?' when it was wrong, which has been said: return OUTCOME_USAGE.  Those of
 * CLI_LONG are dealt with here; -h and -V end the process.
 */
int cli_getopt(struct cli *cli, int argc, char **argv, const char *shorts,
	       const struct option *longs);

/* Find and run the command that argv names, after options that may stand before it. */
int cli_dispatch(struct cli *cli, const struct cli_command *table, size_t n, int argc, char **argv);

/* An error: the line, the JSON, and status is returned. */
int cli_fail(struct cli *cli, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with another word than outcome_code(status), and with data that goes along (stolen, may
 * be NULL). */
int cli_fail_data(struct cli *cli, int status, const char *code, json_t *data, const char *text);
/* A wrong use of the command: OUTCOME_USAGE. */
int cli_usage(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Something to know that is no error. */
void cli_warn(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_warn_all(struct cli *cli, const json_t *warnings); /* strings of a reply */

/*
 * Done: with --json the object around data (stolen).  Returns OUTCOME_DONE, or OUTCOME_FAILED when
 * stdout did not take it all; what was printed for people counts, too.
 */
int cli_done(struct cli *cli, json_t *data);
/* Long work: one line of this type with --json. obj is stolen. */
void cli_line(struct cli *cli, const char *type, json_t *obj);

/* "auto", "bar", "json", "none": 0 or -EINVAL. */
int cli_parse_progress(const char *text, enum cli_progress *out);

/* In -V behind the name and version. */
void cli_set_version_note(const char *note);

#endif
