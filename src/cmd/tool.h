/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tool.h - what the commands that talk to a daemon have in common.
 */
#ifndef PMFS_CMD_TOOL_H
#define PMFS_CMD_TOOL_H

#include "cmd/cli.h"
#include "ctl/client.h"

/* The rest of the command line has only the common options: 0, or OUTCOME_USAGE, told. */
int tool_no_options(struct cli *cli, int argc, char **argv);

/* Connect to the daemon of dir; what goes wrong is told.  client_close() is due in any case. */
int tool_open(struct cli *cli, struct client *c, const char *dir);

/* One request, with args (stolen); its warnings, or what goes wrong, are told. */
int tool_ask(struct cli *cli, struct client *c, const char *op, json_t *args,
	     int (*line)(void *arg, const json_t *line), void *arg);

#endif
