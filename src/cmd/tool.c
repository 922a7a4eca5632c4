/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/tool.h"

int tool_no_options(struct cli *cli, int argc, char **argv)
{
	static const struct option longs[] = {CLI_LONG, {0}};

	return cli_getopt(cli, argc, argv, ":" CLI_SHORT, longs) == -1 ? OUTCOME_DONE
								       : OUTCOME_USAGE;
}

int tool_open(struct cli *cli, struct client *c, const char *dir)
{
	int status = client_open(c, dir);

	if (status)
		cli_fail(cli, status, "%s", c->text);
	return status;
}

int tool_ask(struct cli *cli, struct client *c, const char *op, json_t *args,
	     int (*line)(void *arg, const json_t *line), void *arg)
{
	if (client_call(c, op, args, line, arg, NULL))
		return cli_fail(cli, c->exit, "%s", c->text);
	cli_warn_all(cli, c->warnings);
	return OUTCOME_DONE;
}
