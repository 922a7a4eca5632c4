/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "config.h"
#include "ctl/show.h"
#include "ctl/text.h"
#include "share/dedup.h"
#include "share/scrub.h"
#include "tree/fs.h"

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *pages(uint64_t n)
{
	return number(n << PMFS_PAGE_SHIFT);
}

/* Set many at once; NULL when one could not be made. */
struct field {
	const char *key;
	json_t *value;
};

static json_t *object_of(const struct field *fields, size_t n)
{
	json_t *obj = json_object();
	int rc = obj ? 0 : -1;

	for (size_t i = 0; i < n; i++)
		rc |= json_object_set_new(obj, fields[i].key, fields[i].value);
	if (!rc)
		return obj;
	json_decref(obj);
	return NULL;
}
#define OBJECT(...)                                    \
	object_of((const struct field[]){__VA_ARGS__}, \
		  sizeof((const struct field[]){__VA_ARGS__}) / sizeof(struct field))

json_t *report_df_of(const struct fs_stats *st)
{
	const struct frame_stats *fr = &st->store.frames;
	/* Each page that is no hole has one frame, but for those that share another page's. */
	uint64_t holders = st->store.pages - st->store.holes;
	uint64_t data = holders > fr->sharing ? holders - fr->sharing : 0;

	return OBJECT({"size_bytes", pages(fr->limit)}, {"available_bytes", pages(fr->available)},
		      {"live_bytes", pages(st->data_pages)},
		      {"logical_bytes", pages(st->logical_pages)},
		      {"frames_total", number(fr->limit)}, {"frames_used", number(fr->used)},
		      {"frames_data", number(data)},
		      {"frames_metadata", number(fr->used > data ? fr->used - data : 0)},
		      {"frames_free", number(fr->free)}, {"frames_region", number(fr->total)},
		      {"shared_bytes", pages(fr->shared)},
		      {"saved_dedup_bytes", pages(fr->sharing + st->store.holes)},
		      {"saved_pack_bytes", number(0)}, {"pending_free_bytes", pages(fr->pending)},
		      {"host_bytes", number(st->store.host_bytes)},
		      {"inodes", number(st->inodes_used)}, {"snapshots", number(st->snapshots)},
		      {"snapshots_being_deleted", number(st->dying)},
		      {"scanned", json_boolean(fr->scanned)});
}

json_t *report_df(const struct ctl_host *host)
{
	struct fs_stats st;

	fs_stat(host->fs, &st);
	return report_df_of(&st);
}

static json_t *time_or_null(uint64_t ns)
{
	char buf[UNITS_BUF];

	return ns ? json_string(units_format_rfc3339(buf, sizeof(buf), (int64_t)ns)) : json_null();
}

json_t *report_dedup_of(const struct dedup_stats *st)
{
	static const char *const states[] = {
		[DEDUP_IDLE] = "idle",
		[DEDUP_RUNNING] = "running",
		[DEDUP_PAUSED] = "paused",
	};

	return OBJECT(
		{"state", json_string(states[st->state])},
		{"error", st->error ? json_string(strerror(-st->error)) : json_null()},
		{"percent", json_real(st->percent)}, {"pages_total", number(st->pages_total)},
		{"pages_scanned", number(st->pages_scanned)},
		{"pages_merged", number(st->pages_merged)}, {"zero_pages", number(st->zero_pages)},
		{"collisions", number(st->collisions)}, {"bytes_saved", number(st->bytes_saved)},
		{"bytes_per_second", number(st->bytes_per_second)},
		{"eta_seconds", number(st->eta_seconds)},
		{"pages_shared", number(st->pages_shared)},
		{"pages_sharing", number(st->pages_sharing)},
		{"pages_unshared", number(st->pages_unshared)},
		{"pages_volatile", number(st->pages_volatile)},
		{"full_scans", number(st->full_scans)}, {"started", time_or_null(st->started_ns)},
		{"finished", time_or_null(st->finished_ns)});
}

json_t *report_dedup(const struct ctl_host *host)
{
	struct dedup_stats st;

	dedup_stat(host->dedup, &st);
	return report_dedup_of(&st);
}

json_t *report_scrub_of(const struct scrub_stats *st)
{
	return OBJECT({"state", json_string(st->state == SCRUB_RUNNING ? "running" : "idle")},
		      {"structure", json_boolean(st->structure)},
		      {"error", st->error ? json_string(strerror(-st->error)) : json_null()},
		      {"percent", json_real(st->percent)}, {"pages_total", number(st->pages_total)},
		      {"pages_scanned", number(st->pages_scanned)},
		      {"pages_dirty", number(st->pages_dirty)},
		      {"nodes_scanned", number(st->nodes_scanned)},
		      {"bad_pages", number(st->bad_pages)}, {"bad_nodes", number(st->bad_nodes)},
		      {"structure_findings", number(st->structure_findings)},
		      {"bytes_per_second", number(st->bytes_per_second)},
		      {"eta_seconds", number(st->eta_seconds)}, {"rate", number(st->rate)},
		      {"passes", number(st->passes)}, {"findings_total", number(st->findings)},
		      {"started", time_or_null(st->started_ns)},
		      {"finished", time_or_null(st->finished_ns)});
}

static int add_finding(void *arg, const char *text)
{
	json_t *item = json_object();

	if (!item || text_set(item, "finding", text)) {
		json_decref(item);
		return -ENOMEM;
	}
	return json_array_append_new(arg, item);
}

json_t *report_scrub(const struct ctl_host *host)
{
	struct scrub_stats st;
	json_t *all, *findings = json_array();

	scrub_stat(host->scrub, &st);
	all = report_scrub_of(&st);
	if (all && findings && !scrub_each_finding(host->scrub, add_finding, findings) &&
	    !json_object_set_new(all, "findings", findings))
		return all;
	json_decref(all);
	return NULL;
}

static json_t *report_checks(const struct ctl_host *host, const struct store_stats *st)
{
	struct scrub_stats sc = {0};

	if (host->scrub)
		scrub_stat(host->scrub, &sc);
	return OBJECT({"verified", number(st->verified)}, {"bad_pages", number(st->bad_pages)},
		      {"damaged_pages", number(st->damaged_pages)},
		      {"scrub", report_scrub_of(&sc)});
}

static json_t *report_commit(const struct ctl_host *host, const struct store_stats *st)
{
	struct store *store = fs_store(host->fs);
	int error = store_error(store);
	char why[200];

	store_why(store, why, sizeof(why));
	return OBJECT({"generation", number(store_generation(store))},
		      {"durable", number(store_durable(store))}, {"count", number(st->commits)},
		      {"small", number(st->commits_small)}, {"flushes", number(st->flushes)},
		      {"bytes_written", number(st->written_bytes)},
		      {"dirty_bytes", pages(st->dirty_pages)},
		      {"last_ns", number(st->commit_ns_last)},
		      {"max_ns", number(st->commit_ns_max)},
		      {"error", error ? json_string(strerror(-error)) : json_null()},
		      {"why", error ? json_string(why) : json_null()});
}

static json_t *report_mount(const struct ctl_host *host)
{
	struct store *store = fs_store(host->fs);
	const uint8_t *id = store_uuid(store);
	char uuid[40], *at = uuid, created[UNITS_BUF];
	json_t *m;

	for (int i = 0; i < 16; i++)
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			      id[i]);
	units_format_rfc3339(created, sizeof(created), (int64_t)store_created_ns(store));
	m = OBJECT({"pid", number((uint64_t)getpid())}, {"volume", json_string("live")},
		   {"read_only", json_boolean(fs_read_only(host->fs))},
		   {"failed", json_boolean(store_error(store) != 0)}, {"uuid", json_string(uuid)},
		   {"created", json_string(created)}, {"version", json_string(PACKAGE_VERSION)});
	if (m && !text_set(m, "dir", host->mountpoint) && !text_set(m, "source", host->source) &&
	    !text_set(m, "label", store_label(store)))
		return m;
	json_decref(m);
	return NULL;
}

json_t *report_status(const struct ctl_host *host)
{
	struct fs_stats st;
	json_t *all, *more;
	int rc;

	fs_stat(host->fs, &st);
	all = report_df_of(&st);
	more = OBJECT({"mount", report_mount(host)}, {"commit", report_commit(host, &st.store)},
		      {"dedup", report_dedup(host)}, {"checks", report_checks(host, &st.store)},
		      {"memory", OBJECT({"cached_inodes", number(st.cached_inodes)},
					{"orphans", number(st.orphans)})});
	rc = all && more ? json_object_update(all, more) : -1;
	if (!rc && host->report)
		rc = host->report(host->arg, all);
	json_decref(more);
	if (!rc)
		return all;
	json_decref(all);
	return NULL;
}

char *report_file(const struct ctl_host *host, const char *name)
{
	json_t *status = report_status(host);
	char *text = NULL;
	size_t len;
	FILE *f;

	if (!status)
		return NULL;
	f = open_memstream(&text, &len);
	if (f) {
		if (!strcmp(name, "stats"))
			show_status(f, status);
		else if (!strcmp(name, "metrics"))
			show_metrics(f, status);
		else if (!strcmp(name, "stats.json") && !json_dumpf(status, f, JSON_INDENT(2)))
			fputc('\n', f);
		if (fclose(f) || !len) {
			free(text);
			text = NULL;
		}
	}
	json_decref(status);
	return text;
}
