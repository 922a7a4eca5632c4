/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * show.h - the daemon's JSON (report.h) as text for people and for Prometheus.  Whatever is not in
 * the JSON is shown as 0 or left out, so tool and daemon need not be of one version.
 */
#ifndef PMFS_CTL_SHOW_H
#define PMFS_CTL_SHOW_H

#include <stdio.h>

#include <jansson.h>

void show_df(FILE *f, const json_t *df);
void show_status(FILE *f, const json_t *status);
void show_info(FILE *f, const json_t *info);
void show_dedup(FILE *f, const json_t *dedup);
void show_scrub(FILE *f, const json_t *scrub); /* with its findings, a line each */
void show_metrics(FILE *f, const json_t *status);
/* Counters; with an earlier status, what was added since, per second. */
void show_stats(FILE *f, const json_t *status, const json_t *earlier, double seconds);

#endif
