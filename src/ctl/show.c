/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/show.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "base/bits.h"
#include "base/units.h"

#define PAGE 4096u

static uint64_t number(const json_t *obj, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(obj, key));

	return n > 0 ? (uint64_t)n : 0;
}

static const char *text(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? s : "";
}

static bool is_true(const json_t *obj, const char *key)
{
	return json_is_true(json_object_get(obj, key));
}

static void row(FILE *f, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void row(FILE *f, const char *name, const char *fmt, ...)
{
	va_list ap;

	fprintf(f, "%-20s", name);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fputc('\n', f);
}

static void size_row(FILE *f, const char *name, uint64_t bytes, const char *note)
{
	char buf[UNITS_BUF];

	row(f, name, "%12s%s%s", units_format_size(buf, sizeof(buf), bytes), *note ? "  " : "",
	    note);
}

/* How a view is served, and what is weaker than the other way (doc/views.md). */
static void show_served(FILE *f, bool passthrough)
{
	static const char *const cached[] = {
		"the alias sees stores after msync(2) or fsync(2), and a write(2) soon",
		"a store beyond the memory limit works, and fsync(2) fails",
		"mappings keep only what the kernel has of them when the daemon ends",
	};

	fprintf(f, "%-15s %s\n", "served by",
		passthrough ? "passthrough: the alias sees every store at once" :
			      "the page cache of the kernel");
	if (passthrough)
		fprintf(f, "%-15s %s\n", "weaker", "msync(2) makes nothing durable; fsync(2) does");
	for (size_t i = 0; !passthrough && i < sizeof(cached) / sizeof(cached[0]); i++)
		fprintf(f, "%-15s %s\n", i ? "" : "weaker", cached[i]);
}

void show_info(FILE *f, const json_t *info)
{
	static const char *const rows[][2] = {
		{"pages", "pages"},	   {"holes", "holes"},
		{"frames", "frames"},	   {"shared pages", "shared_pages"},
		{"page table", "table_pages"},
	};
	const json_t *memory = json_object_get(info, "memory");

	fprintf(f, "%-15s %s\n", "kind", json_string_value(json_object_get(info, "kind")));
	size_row(f, "size", number(info, "size_bytes"), "");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		fprintf(f, "%-15s %llu\n", rows[i][0],
			(unsigned long long)number(info, rows[i][1]));
	if (!json_is_object(memory))
		return;
	size_row(f, "in memory", number(memory, "bytes"), "");
	show_served(f, json_is_true(json_object_get(memory, "passthrough")));
}

void show_df(FILE *f, const json_t *df)
{
	uint64_t total = number(df, "frames_total"), used = number(df, "frames_used");
	char note[64];

	size_row(f, "size", total * PAGE, "");
	snprintf(note, sizeof(note), "%.1f %%", total ? 100.0 * (double)used / (double)total : 0.0);
	size_row(f, "used", used * PAGE, note);
	size_row(f, "  pages", number(df, "frames_data") * PAGE, "contents, directories, inodes");
	size_row(f, "  map", number(df, "frames_metadata") * PAGE, "page map and superblocks");
	size_row(f, "available", number(df, "available_bytes"), "");
	size_row(f, "pending free", number(df, "pending_free_bytes"), "free after the next commit");
	size_row(f, "files", number(df, "live_bytes"), "contents of the live tree");
	size_row(f, "with snapshots", number(df, "logical_bytes"), "if each had its own copy");
	size_row(f, "shared", number(df, "shared_bytes"), "frames that several pages use");
	size_row(f, "saved by dedup", number(df, "saved_dedup_bytes"), "");
	size_row(f, "saved by packing", number(df, "saved_pack_bytes"), "");
	size_row(f, "on the host", number(df, "host_bytes"), "");
	if (json_is_false(json_object_get(df, "scanned")))
		fputs("free space is still being counted after the mount; used and shared will "
		      "change\n",
		      f);
}

void show_dedup(FILE *f, const json_t *dedup)
{
	char buf[UNITS_BUF], when[UNITS_BUF];
	const char *state = text(dedup, "state");
	bool running = !strcmp(state, "running");

	if (running || !strcmp(state, "paused"))
		row(f, "dedup", "%s, %.1f %%", state,
		    json_number_value(json_object_get(dedup, "percent")));
	else
		row(f, "dedup", "%s, %" PRIu64 " pass%s done", state, number(dedup, "full_scans"),
		    number(dedup, "full_scans") == 1 ? "" : "es");
	if (running && number(dedup, "bytes_per_second"))
		row(f, "  speed", "%s/s, %s left",
		    units_format_size(buf, sizeof(buf), number(dedup, "bytes_per_second")),
		    units_format_duration(when, sizeof(when),
					  (int64_t)number(dedup, "eta_seconds") * NS_PER_SEC));
	if (*text(dedup, "error"))
		row(f, "  last error", "%s", text(dedup, "error"));
	row(f, "  looked at", "%" PRIu64 " of %" PRIu64 " pages", number(dedup, "pages_scanned"),
	    number(dedup, "pages_total"));
	row(f, "  merged", "%" PRIu64 " pages, and %" PRIu64 " of zeros",
	    number(dedup, "pages_merged"), number(dedup, "zero_pages"));
	row(f, "  saved", "%s since the mount",
	    units_format_size(buf, sizeof(buf), number(dedup, "bytes_saved")));
	row(f, "  sharing",
	    "%" PRIu64 " pages in %" PRIu64 " frames; %" PRIu64 " unshared, %" PRIu64 " volatile",
	    number(dedup, "pages_sharing") + number(dedup, "pages_shared"),
	    number(dedup, "pages_shared"), number(dedup, "pages_unshared"),
	    number(dedup, "pages_volatile"));
}

void show_scrub(FILE *f, const json_t *scrub)
{
	const json_t *findings = json_object_get(scrub, "findings"), *item;
	uint64_t total = number(scrub, "findings_total");
	char buf[UNITS_BUF], when[UNITS_BUF];
	size_t i;

	if (!strcmp(text(scrub, "state"), "running")) {
		row(f, "scrub", "running, %.1f %%",
		    json_number_value(json_object_get(scrub, "percent")));
		row(f, "  speed", "%s/s, %s left",
		    units_format_size(buf, sizeof(buf), number(scrub, "bytes_per_second")),
		    units_format_duration(when, sizeof(when),
					  (int64_t)number(scrub, "eta_seconds") * NS_PER_SEC));
	} else {
		row(f, "scrub", "idle, %" PRIu64 " passes done", number(scrub, "passes"));
	}
	if (*text(scrub, "error"))
		row(f, "  last error", "%s", text(scrub, "error"));
	row(f, "  looked at", "%" PRIu64 " of %" PRIu64 " pages, %" PRIu64 " nodes of the page map",
	    number(scrub, "pages_scanned"), number(scrub, "pages_total"),
	    number(scrub, "nodes_scanned"));
	row(f, "  damaged", "%" PRIu64 " pages, %" PRIu64 " nodes", number(scrub, "bad_pages"),
	    number(scrub, "bad_nodes"));
	if (is_true(scrub, "structure"))
		row(f, "  structure", "%" PRIu64 " findings", number(scrub, "structure_findings"));
	json_array_foreach(findings, i, item)
	{
		/* One line, whatever a name in the image has in it. */
		for (const char *s = text(item, "finding"); *s; s++)
			fputc((unsigned char)*s < ' ' || *s == 127 ? '?' : *s, f);
		fputc('\n', f);
	}
	if (total > json_array_size(findings))
		fprintf(f, "and %" PRIu64 " more, which are in the log\n",
			total - json_array_size(findings));
}

static void show_counts(FILE *f, const char *title, const json_t *counts)
{
	const char *op;
	json_t *n;
	uint64_t total = number(counts, "total");

	row(f, title, "%" PRIu64, total);
	if (!total)
		return;
	json_object_foreach((json_t *)(uintptr_t)counts, op, n)
	{
		if (strcmp(op, "total"))
			fprintf(f, "  %-18s%12" JSON_INTEGER_FORMAT "\n", op,
				json_integer_value(n));
	}
}

void show_status(FILE *f, const json_t *status)
{
	const json_t *m = json_object_get(status, "mount"), *c = json_object_get(status, "commit");
	const json_t *ft = json_object_get(status, "features"),
		     *checks = json_object_get(status, "checks");
	char buf[UNITS_BUF];

	if (is_true(m, "failed"))
		row(f, "FAILED", "%s; it can only be read until it is unmounted and mounted again",
		    text(c, "why"));
	row(f, "mount", "%s on %s%s, process %" PRIu64, text(m, "source"), text(m, "dir"),
	    is_true(m, "read_only") ? " (read-only)" : "", number(m, "pid"));
	if (*text(m, "label"))
		row(f, "label", "%s", text(m, "label"));
	show_df(f, status);
	row(f, "inodes", "%12" PRIu64, number(status, "inodes"));
	row(f, "snapshots", "%12" PRIu64 "  %" PRIu64 " being deleted", number(status, "snapshots"),
	    number(status, "snapshots_being_deleted"));
	show_dedup(f, json_object_get(status, "dedup"));
	row(f, "commits",
	    "%" PRIu64 " (%" PRIu64 " small), generation %" PRIu64 ", %" PRIu64
	    " flushes, %s written",
	    number(c, "count"), number(c, "small"), number(c, "generation"), number(c, "flushes"),
	    units_format_size(buf, sizeof(buf), number(c, "bytes_written")));
	row(f, "not yet committed", "%s",
	    units_format_size(buf, sizeof(buf), number(c, "dirty_bytes")));
	row(f, "checksums", "%" PRIu64 " pages verified, %" PRIu64 " bad",
	    number(checks, "verified"), number(checks, "bad_pages"));
	if (number(checks, "damaged_pages"))
		row(f, "DAMAGED", "%" PRIu64 " pages; where they are: pmfs-ctl scrub %s status",
		    number(checks, "damaged_pages"), text(m, "dir"));
	if (ft)
		row(f, "features",
		    "libfuse %s, io_uring %s, passthrough %s, writeback %s, kernel %s",
		    text(ft, "libfuse"), is_true(ft, "io_uring") ? "on" : "off",
		    is_true(ft, "passthrough") ? "on" : "off",
		    is_true(ft, "writeback") ? "on" : "off", text(ft, "kernel"));
	show_counts(f, "requests", json_object_get(status, "requests"));
	show_counts(f, "errors answered", json_object_get(status, "errors"));
}

/* ------------------------------------------------------------------ rates */

static void rate_row(FILE *f, const char *name, uint64_t value, uint64_t before, bool have_before,
		     double seconds)
{
	fprintf(f, "%-24s%16" PRIu64, name, value);
	if (have_before && seconds > 0)
		fprintf(f, "%14.1f/s", value > before ? (double)(value - before) / seconds : 0.0);
	fputc('\n', f);
}

static const struct {
	const char *name, *object, *key;
} counters[] = {
	{"commits", "commit", "count"},
	{"flushes", "commit", "flushes"},
	{"bytes written", "commit", "bytes_written"},
	{"pages verified", "checks", "verified"},
	{"pages merged", "dedup", "pages_merged"},
};

void show_stats(FILE *f, const json_t *status, const json_t *earlier, double seconds)
{
	const json_t *requests = json_object_get(status, "requests"),
		     *errors = json_object_get(status, "errors");
	const char *op;
	json_t *n;

	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		rate_row(f, counters[i].name,
			 number(json_object_get(status, counters[i].object), counters[i].key),
			 number(json_object_get(earlier, counters[i].object), counters[i].key),
			 earlier, seconds);
	rate_row(f, "errors answered", number(errors, "total"),
		 number(json_object_get(earlier, "errors"), "total"), earlier, seconds);
	json_object_foreach((json_t *)(uintptr_t)requests, op, n)
	{
		rate_row(f, strcmp(op, "total") ? op : "requests", number(requests, op),
			 number(json_object_get(earlier, "requests"), op), earlier, seconds);
	}
}

/* ------------------------------------------------------------------ Prometheus */

static const struct {
	const char *object, *key, *name, *type, *help;
} metrics[] = {
	{NULL, "size_bytes", "pmfs_size_bytes", "gauge", "How far the region may grow"},
	{NULL, "available_bytes", "pmfs_available_bytes", "gauge",
	 "What ordinary writes can still take"},
	{NULL, "live_bytes", "pmfs_live_bytes", "gauge", "Contents of the files of the live tree"},
	{NULL, "logical_bytes", "pmfs_logical_bytes", "gauge",
	 "Contents of the live tree and all snapshots, each for itself"},
	{NULL, "frames_used", "pmfs_frames_used", "gauge", "Frames of 4096 bytes in use"},
	{NULL, "frames_data", "pmfs_frames_data", "gauge", "Frames that hold pages"},
	{NULL, "frames_metadata", "pmfs_frames_metadata", "gauge",
	 "Frames of the page map and the superblocks"},
	{NULL, "shared_bytes", "pmfs_shared_bytes", "gauge", "Frames that more than one page uses"},
	{NULL, "saved_dedup_bytes", "pmfs_saved_dedup_bytes", "gauge",
	 "Saved by sharing frames, and by pages of zeros without one"},
	{NULL, "pending_free_bytes", "pmfs_pending_free_bytes", "gauge",
	 "Free after the next commit"},
	{NULL, "host_bytes", "pmfs_host_bytes", "gauge", "Space that the host has given"},
	{NULL, "inodes", "pmfs_inodes", "gauge", "Inodes of the live tree"},
	{NULL, "snapshots", "pmfs_snapshots", "gauge", "Snapshots"},
	{"commit", "generation", "pmfs_generation", "gauge", "The open generation"},
	{"commit", "dirty_bytes", "pmfs_dirty_bytes", "gauge", "Written and not yet committed"},
	{"commit", "count", "pmfs_commits_total", "counter", "Commits"},
	{"commit", "flushes", "pmfs_flushes_total", "counter", "Flushes of the host's disk"},
	{"commit", "bytes_written", "pmfs_written_bytes_total", "counter",
	 "Bytes written to the region"},
	{"checks", "verified", "pmfs_pages_verified_total", "counter",
	 "Pages whose checksum was verified"},
	{"checks", "bad_pages", "pmfs_pages_bad_total", "counter",
	 "Pages whose checksum did not match"},
	{"checks", "damaged_pages", "pmfs_pages_damaged", "gauge",
	 "Pages found damaged since the last scrub began"},
	{"dedup", "pages_merged", "pmfs_dedup_pages_merged_total", "counter",
	 "Pages merged into another's frame"},
	{"dedup", "pages_shared", "pmfs_dedup_pages_shared", "gauge",
	 "Frames that several pages name"},
	{"dedup", "pages_sharing", "pmfs_dedup_pages_sharing", "gauge",
	 "Pages beyond the first of each such frame"},
	{"dedup", "pages_unshared", "pmfs_dedup_pages_unshared", "gauge",
	 "Pages looked at and found unique"},
	{"dedup", "pages_volatile", "pmfs_dedup_pages_volatile", "gauge",
	 "Pages changed too lately to be looked at"},
	{"dedup", "full_scans", "pmfs_dedup_full_scans_total", "counter", "Passes completed"},
};

static void label_value(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '\n') {
			fputs("\\n", f);
			continue;
		}
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		fputc(*s, f);
	}
	fputc('"', f);
}

static void metric_head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void by_operation(FILE *f, const char *dir, const char *name, const char *help,
			 const json_t *counts)
{
	const char *op;
	json_t *n;

	metric_head(f, name, "counter", help);
	json_object_foreach((json_t *)(uintptr_t)counts, op, n)
	{
		if (!strcmp(op, "total"))
			continue;
		fprintf(f, "%s{dir=", name);
		label_value(f, dir);
		fputs(",operation=", f);
		label_value(f, op);
		fprintf(f, "} %" JSON_INTEGER_FORMAT "\n", json_integer_value(n));
	}
}

void show_metrics(FILE *f, const json_t *status)
{
	const char *dir = text(json_object_get(status, "mount"), "dir");

	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		const json_t *obj =
			metrics[i].object ? json_object_get(status, metrics[i].object) : status;

		metric_head(f, metrics[i].name, metrics[i].type, metrics[i].help);
		fprintf(f, "%s{dir=", metrics[i].name);
		label_value(f, dir);
		fprintf(f, "} %" PRIu64 "\n", number(obj, metrics[i].key));
	}
	by_operation(f, dir, "pmfs_requests_total", "Requests of the kernel",
		     json_object_get(status, "requests"));
	by_operation(f, dir, "pmfs_errors_total", "Requests that were answered with an error",
		     json_object_get(status, "errors"));
}
