/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * progress.h - how far long work is, for who waits for it: a bar on a terminal, lines of JSON, or
 * nothing.
 */
#ifndef PMFS_CMD_PROGRESS_H
#define PMFS_CMD_PROGRESS_H

#include <stdint.h>

#include "cmd/cli.h"

struct progress {
	struct cli *cli;
	const char *what; /* "dedup" */
	enum cli_progress how;
	bool drawn;
};

/* auto: with --json lines of JSON; a bar when stderr is a terminal; else nothing. */
void progress_begin(struct progress *p, struct cli *cli, const char *what, enum cli_progress how);
/* percent 0..100; bytes_per_second and eta_seconds 0: not known.  data: what JSON gets, borrowed,
 * may be NULL. */
void progress_show(struct progress *p, double percent, uint64_t bytes_per_second,
		   uint64_t eta_seconds, const json_t *data);
/* Take the bar away. */
void progress_end(struct progress *p);

/* The bar's text for a line of `columns`, without what clears the line (tests). */
void progress_format(char *buf, size_t len, const char *what, double percent,
		     uint64_t bytes_per_second, uint64_t eta_seconds, unsigned int columns);

#endif
