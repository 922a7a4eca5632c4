/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report.h - what the daemon knows about itself, as JSON.  The fields are those that CLI.md's table
 * promises and are never renamed; the man page pmfs-ctl(1) says what each one means.  For people
 * show.h makes text of it.
 */
#ifndef PMFS_CTL_REPORT_H
#define PMFS_CTL_REPORT_H

#include <jansson.h>

#include "ctl/host.h"

/* NULL: no memory. */
json_t *report_df(const struct ctl_host *host);
json_t *report_dedup(const struct ctl_host *host);
json_t *report_scrub(const struct ctl_host *host); /* with its findings */
json_t *
report_status(const struct ctl_host *host); /* df, and dedup, commit, features, requests, errors */

/* "stats", "stats.json", "metrics": a malloc'ed text; NULL: no such name, or no memory. */
char *report_file(const struct ctl_host *host, const char *name);

/* The parts that need no daemon (tests). */
struct fs_stats;
struct dedup_stats;
struct scrub_stats;
json_t *report_df_of(const struct fs_stats *st);
json_t *report_dedup_of(const struct dedup_stats *st);
json_t *report_scrub_of(const struct scrub_stats *st);

#endif
