/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/ops.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "config.h"
#include "ctl/outcome.h"
#include "ctl/pick.h"
#include "ctl/report.h"
#include "ctl/text.h"
#include "share/dedup.h"
#include "share/scrub.h"
#include "tree/fs.h"
#include "view/view.h"

#define PROGRESS_MS 250
/* How many names "…-2", "…-3" are tried when one of the default form is taken. */
#define UNIQUE_TRIES 1000u
#define NAMES_MAX    1024u

static int call_fail(struct ops_call *call, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int call_fail(struct ops_call *call, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(call->message, sizeof(call->message), fmt, ap);
	va_end(ap);
	call->exit = status;
	return status;
}

/* A negative errno of the engine, for "can't WHAT". */
static int call_errno(struct ops_call *call, int rc, const char *what)
{
	switch (-rc) {
	case EROFS:
		return call_fail(call, OUTCOME_NOT_PERMITTED, "can't %s: %s is mounted read-only",
				 what, call->host->mountpoint);
	case ENOSPC:
		return call_fail(
			call, OUTCOME_NO_SPACE,
			"can't %s: there is no space left on %s; delete files or snapshots", what,
			call->host->mountpoint);
	case EBADMSG:
	case EUCLEAN:
		return call_fail(
			call, OUTCOME_DAMAGED,
			"can't %s: the image is damaged; unmount it and run: fsck.pmfs -n %s", what,
			call->host->source);
	default:
		return call_fail(call, (int)outcome_of_errno(rc), "can't %s: %s", what,
				 strerror(-rc));
	}
}

static int need_right(struct ops_call *call, const char *what)
{
	if (call->may_change)
		return 0;
	return call_fail(call, OUTCOME_NOT_PERMITTED,
			 "can't %s on %s: only root and who mounted it may", what,
			 call->host->mountpoint);
}

/* NULL when it is not there; *wrong when it is no string. */
static const char *arg_string(const struct ops_call *call, const char *key, bool *wrong)
{
	const json_t *v = json_object_get(call->args, key);

	if (v && !json_is_string(v) && !json_is_null(v))
		*wrong = true;
	return json_string_value(v);
}

static bool arg_bool(const struct ops_call *call, const char *key)
{
	return json_is_true(json_object_get(call->args, key));
}

/* ------------------------------------------------------------------ snapshots */

static json_t *snap_json(const struct fs_snapshot *s)
{
	char created[UNITS_BUF];

	units_format_rfc3339(created, sizeof(created), (int64_t)s->created_ns);
	return json_pack("{s:s, s:I, s:s, s:I, s:s, s:b, s:I, s:I}", "name", s->name, "id",
			 (json_int_t)s->id, "created", created, "generation",
			 (json_int_t)s->generation, "message", s->message, "held", 0, "inodes",
			 (json_int_t)s->inodes, "referenced_bytes",
			 (json_int_t)(s->data_pages << PMFS_PAGE_SHIFT));
}

struct snaps {
	struct fs_snapshot *all;
	size_t count, room;
};

static int collect_snap(void *arg, const struct fs_snapshot *snap)
{
	struct snaps *s = arg;

	if (s->count == s->room) {
		size_t room = s->room ? s->room * 2 : 64;
		struct fs_snapshot *all = reallocarray(s->all, room, sizeof(*all));

		if (!all)
			return -ENOMEM;
		s->all = all;
		s->room = room;
	}
	s->all[s->count++] = *snap;
	return 0;
}

static int collect_snaps(struct ops_call *call, struct snaps *s)
{
	*s = (struct snaps){0};
	return fs_snap_each(call->host->fs, collect_snap, s);
}

/* A name or @-1 and the like, out of those in s.  0, or what to answer, with words in message. */
static int resolve(const struct snaps *s, const char *what, const char *dir, size_t *index,
		   char *message, size_t len)
{
	struct pick_entry *entries = calloc(s->count + 1, sizeof(*entries));
	int rc = -ENOMEM;

	if (entries) {
		for (size_t i = 0; i < s->count; i++)
			entries[i] =
				(struct pick_entry){s->all[i].name, (int64_t)s->all[i].created_ns};
		rc = pick_snapshot(entries, s->count, what, units_now_ns(), index);
		free(entries);
	}
	if (!rc)
		return 0;
	if (rc == -EINVAL)
		snprintf(message, len,
			 "%s names no snapshot; what goes is a name, @-1 (the newest), or @2h (two "
			 "hours old)",
			 what);
	else if (rc == -ENOENT && !strcmp(what, "live"))
		snprintf(message, len, "live is the writable tree at %s, not a snapshot", dir);
	else if (rc == -ENOENT)
		snprintf(message, len,
			 "there is no snapshot %s in %s; these there are: pmfs-snap list %s", what,
			 dir, dir);
	else
		snprintf(message, len, "can't look for snapshot %s: %s", what, strerror(-rc));
	return (int)outcome_of_errno(rc);
}

/* The one that the argument "name" means. */
static int find_one(struct ops_call *call, const char *key, struct fs_snapshot *out)
{
	bool wrong = false;
	const char *name = arg_string(call, key, &wrong);
	struct snaps s;
	size_t i = 0;
	int rc;

	if (!name)
		return call_fail(call, OUTCOME_USAGE, "no snapshot is named");
	rc = collect_snaps(call, &s);
	if (rc)
		call_errno(call, rc, "list the snapshots");
	else
		call->exit = resolve(&s, name, call->host->mountpoint, &i, call->message,
				     sizeof(call->message));
	if (!call->exit)
		*out = s.all[i];
	free(s.all);
	return call->exit;
}

static int name_fail(struct ops_call *call, int rc, const char *what, const char *name)
{
	char doing[400];

	switch (-rc) {
	case EEXIST:
		return call_fail(call, OUTCOME_EXISTS,
				 "can't %s %s: there is a snapshot of that name in %s", what, name,
				 call->host->mountpoint);
	case EINVAL:
		return call_fail(
			call, OUTCOME_USAGE,
			"can't %s \"%s\": a name is not empty, has no '/' or control characters, "
			"does not start with '@' or '-', and is not live, . or ..",
			what, name);
	case ENAMETOOLONG:
		return call_fail(call, OUTCOME_USAGE,
				 "can't %s: a name has at most %u bytes, a message %u", what,
				 PMFS_VOL_NAME_MAX, PMFS_VOL_MESSAGE_MAX);
	case EMFILE:
		return call_fail(
			call, OUTCOME_NO_SPACE,
			"can't %s %s: this image has had as many snapshots as it can number", what,
			name);
	default:
		snprintf(doing, sizeof(doing), "%s %s", what, name);
		return call_errno(call, rc, doing);
	}
}

static int op_snap_create(struct ops_call *call)
{
	bool wrong = false, unique = arg_bool(call, "unique");
	const char *name = arg_string(call, "name", &wrong);
	const char *message = arg_string(call, "message", &wrong);
	char numbered[PMFS_VOL_NAME_MAX + 1];
	struct fs_snapshot snap;
	int rc;

	if (wrong || !name)
		return call_fail(call, OUTCOME_USAGE, "a snapshot needs a name");
	if (need_right(call, "make a snapshot"))
		return call->exit;
	if (message && strlen(message) > PMFS_VOL_MESSAGE_MAX)
		return name_fail(call, -ENAMETOOLONG, "make snapshot", name);
	/* Before anything waits for the kernel. */
	if (!unique && !fs_snap_find(call->host->fs, name, &snap))
		return name_fail(call, -EEXIST, "make snapshot", name);
	rc = call->host->flush(call->host->arg);
	if (rc)
		return call_errno(
			call, rc,
			"make a snapshot: the kernel does not hand over what is in its cache");
	rc = fs_snap_create(call->host->fs, name, message ? message : "", &snap);
	for (unsigned int i = 2; rc == -EEXIST && unique && i < UNIQUE_TRIES; i++) {
		if (snprintf(numbered, sizeof(numbered), "%s-%u", name, i) >= (int)sizeof(numbered))
			break;
		rc = fs_snap_create(call->host->fs, numbered, message ? message : "", &snap);
	}
	if (rc)
		return name_fail(call, rc, "make snapshot", name);
	call->data = snap_json(&snap);
	return 0;
}

static int add_space(struct ops_call *call, const struct fs_snapshot *snap, json_t *obj)
{
	uint64_t pages;
	int rc = fs_snap_exclusive(call->host->fs, snap->name, &pages);

	if (!rc)
		json_object_set_new(obj, "exclusive_bytes",
				    json_integer((json_int_t)(pages << PMFS_PAGE_SHIFT)));
	return rc;
}

static int op_snap_list(struct ops_call *call)
{
	struct snaps s;
	json_t *line;
	int rc = collect_snaps(call, &s);

	for (size_t i = 0; !rc && i < s.count; i++) {
		line = snap_json(&s.all[i]);
		if (line && arg_bool(call, "space"))
			rc = add_space(call, &s.all[i], line);
		if (rc == -ENOENT) {
			rc = 0; /* deleted meanwhile */
			json_decref(line);
			continue;
		}
		if (!line || json_object_set_new(line, "type", json_string("item")))
			rc = -ENOMEM;
		if (rc)
			json_decref(line);
		else
			rc = call->send(call->arg, line);
	}
	free(s.all);
	if (rc)
		return call_errno(call, rc, "list the snapshots");
	call->data = json_object();
	return 0;
}

static int op_snap_show(struct ops_call *call)
{
	struct fs_snapshot snap;
	int rc;

	if (find_one(call, "name", &snap))
		return call->exit;
	call->data = snap_json(&snap);
	rc = call->data ? add_space(call, &snap, call->data) : -ENOMEM;
	if (rc)
		return call_errno(call, rc, "show the snapshot");
	return 0;
}

static int delete_one(struct ops_call *call, const struct fs_snapshot *snap, bool dry_run)
{
	uint64_t pages = 0;
	char doing[400];
	int rc = dry_run ? fs_snap_exclusive(call->host->fs, snap->name, &pages)
			 : fs_snap_delete(call->host->fs, snap->name);

	if (rc == -ENOENT)
		return call_fail(call, OUTCOME_NOT_FOUND, "snapshot %s is gone already",
				 snap->name);
	if (rc) {
		snprintf(doing, sizeof(doing), "%s snapshot %s", dry_run ? "look into" : "delete",
			 snap->name);
		return call_errno(call, rc, doing);
	}
	if (!dry_run && call->host->snapshot_gone)
		call->host->snapshot_gone(call->host->arg, snap->name, snap->root);
	call->send(call->arg, json_pack("{s:s, s:s}", "type", "item", "name", snap->name));
	if (dry_run) {
		json_int_t sum =
			json_integer_value(json_object_get(call->data, "would_free_bytes"));
		json_t *each = json_object_get(call->data, "snapshots");

		json_array_append_new(each,
				      json_pack("{s:s, s:I}", "name", snap->name, "exclusive_bytes",
						(json_int_t)(pages << PMFS_PAGE_SHIFT)));
		json_object_set_new(call->data, "would_free_bytes",
				    json_integer(sum + (json_int_t)(pages << PMFS_PAGE_SHIFT)));
	} else {
		json_array_append_new(json_object_get(call->data, "deleted"),
				      json_string(snap->name));
	}
	return 0;
}

static int op_snap_delete(struct ops_call *call)
{
	const json_t *names = json_object_get(call->args, "names"), *name;
	bool dry_run = arg_bool(call, "dry_run");
	size_t i, at, done = 0, failed = 0, n = json_array_size(names);
	int first_exit = 0;
	char first[sizeof(call->message)];
	struct fs_snapshot *picked;
	struct snaps s;
	int rc;

	if (!n || n > NAMES_MAX)
		return call_fail(call, OUTCOME_USAGE, "from one to %u snapshots can be named",
				 NAMES_MAX);
	if (!dry_run && need_right(call, "delete a snapshot"))
		return call->exit;
	call->data =
		dry_run ? json_pack("{s:[], s:I}", "snapshots", "would_free_bytes", (json_int_t)0)
			: json_pack("{s:[]}", "deleted");
	picked = calloc(n, sizeof(*picked));
	rc = collect_snaps(call, &s);
	if (!picked || !call->data || rc) {
		free(picked);
		free(s.all);
		return call_errno(call, rc ? rc : -ENOMEM, "list the snapshots");
	}
	/* All are found before one goes, or @-1 @-2 would not mean what it says. */
	json_array_foreach(names, i, name)
	{
		call->exit = 0;
		if (!json_is_string(name))
			call_fail(call, OUTCOME_USAGE, "the names of snapshots are strings");
		else
			call->exit = resolve(&s, json_string_value(name), call->host->mountpoint,
					     &at, call->message, sizeof(call->message));
		for (size_t j = 0; !call->exit && j < i - failed; j++) {
			if (!strcmp(picked[j].name, s.all[at].name))
				call_fail(call, OUTCOME_USAGE, "snapshot %s is named twice",
					  s.all[at].name);
		}
		if (!call->exit) {
			picked[i - failed] = s.all[at];
			continue;
		}
		if (!failed++) {
			first_exit = call->exit;
			memcpy(first, call->message, sizeof(first));
		}
	}
	free(s.all);
	n -= failed;
	for (i = 0; i < n; i++) {
		call->exit = 0;
		if (!delete_one(call, &picked[i], dry_run))
			done++;
		else if (!failed++) {
			first_exit = call->exit;
			memcpy(first, call->message, sizeof(first));
		}
	}
	free(picked);
	if (dry_run && done > 1)
		json_array_append_new(
			call->warnings,
			json_string("what only the named snapshots share among themselves would be "
				    "freed, too, and is not counted"));
	call->exit = !failed ? OUTCOME_DONE : done ? OUTCOME_PARTIAL : first_exit;
	if (failed)
		memcpy(call->message, first, sizeof(first));
	return call->exit;
}

static int op_snap_rename(struct ops_call *call)
{
	bool wrong = false;
	const char *to = arg_string(call, "new", &wrong);
	struct fs_snapshot snap;
	int rc;

	if (wrong || !to)
		return call_fail(call, OUTCOME_USAGE, "a new name is needed");
	if (need_right(call, "rename a snapshot") || find_one(call, "old", &snap))
		return call->exit;
	rc = fs_snap_rename(call->host->fs, snap.name, to);
	if (rc == -ENOENT)
		return call_fail(call, OUTCOME_NOT_FOUND, "snapshot %s is gone already", snap.name);
	if (rc)
		return name_fail(call, rc, "rename a snapshot to", to);
	if (call->host->snapshot_gone)
		call->host->snapshot_gone(call->host->arg, snap.name, snap.root);
	call->data = json_pack("{s:s, s:s, s:I}", "old", snap.name, "name", to, "id",
			       (json_int_t)snap.id);
	return 0;
}

/* ------------------------------------------------------------------ the rest */

static int op_ping(struct ops_call *call)
{
	call->data =
		json_pack("{s:I, s:s}", "pid", (json_int_t)getpid(), "version", PACKAGE_VERSION);
	if (text_set(call->data, "dir", call->host->mountpoint) ||
	    text_set(call->data, "source", call->host->source))
		return call_errno(call, -ENOMEM, "answer");
	return 0;
}

static int op_status(struct ops_call *call)
{
	call->data = report_status(call->host);
	return 0;
}

static int op_df(struct ops_call *call)
{
	call->data = report_df(call->host);
	return 0;
}

static int op_sync(struct ops_call *call)
{
	int rc;

	if (fs_read_only(call->host->fs))
		return call_errno(call, -EROFS, "commit");
	rc = call->host->flush(call->host->arg);
	if (!rc)
		rc = fs_sync(call->host->fs);
	if (rc)
		return call_errno(call, rc, "commit");
	call->data = json_pack("{s:I}", "generation",
			       (json_int_t)store_durable(fs_store(call->host->fs)));
	return 0;
}

static json_t *memory_json(struct ops_call *call, uint64_t id, uint64_t *size)
{
	const struct ctl_host *host = call->host;
	struct fs_attr a = {0};
	struct view *v;
	json_t *obj;

	v = host->views ? view_find(host->views, id) : NULL;
	if (!v)
		return json_null();
	view_attr(v, &a);
	view_put(v);
	*size = a.size;
	obj = json_pack("{s:I, s:b}", "bytes", (json_int_t)(a.blocks * 512), "passthrough",
			host->passthrough && host->passthrough(host->arg));
	return obj ? obj : json_null();
}

static int op_file_info(struct ops_call *call)
{
	const uint64_t ino = (uint64_t)json_integer_value(json_object_get(call->args, "ino"));
	const uint64_t root = fs_root(call->host->fs);
	const bool files = arg_bool(call, "files");
	/* stat(2) shows numbers of the live tree without their volume, and aliases with a bit. */
	const bool alias = files && (ino & UINT64_C(1) << 62);
	const uint64_t number = alias ? ino & ~(UINT64_C(1) << 62) : ino;
	const uint64_t id = FS_INO(number) == number ? root - FS_INO(root) + number : number;
	struct fs_file_info info;
	json_t *memory = NULL;
	uint64_t size, whole;
	int rc;

	if (!json_is_integer(json_object_get(call->args, "ino")))
		return call_fail(call, OUTCOME_USAGE, "no file is named");
	if (files && number >> 61)
		return call_fail(call, OUTCOME_FAILED, "this file is made when it is read");
	rc = fs_file_info(call->host->fs, id, &info);
	if (rc == -EINVAL)
		return call_fail(call, OUTCOME_FAILED, "it is no regular file");
	if (rc)
		return call_errno(call, rc, "look at the file");
	size = info.size;
	if (files)
		memory = memory_json(call, id, &size);
	whole = DIV_ROUND_UP(info.size, PMFS_PAGE_SIZE);
	call->data = json_pack(
		"{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:o}", "kind",
		alias ? "alias" : files ? "view" : info.ring_log ? "ring-log" : "file", "size_bytes",
		(json_int_t)size, "pages", (json_int_t)info.pages, "holes",
		(json_int_t)(whole > info.pages && !info.is_inline ? whole - info.pages : 0), "frames",
		(json_int_t)info.frames, "shared_pages", (json_int_t)info.shared_pages,
		"table_pages", (json_int_t)info.table_pages, "inline", info.is_inline, "memory",
		memory ? memory : json_null());
	return 0;
}

static int op_dedup_start(struct ops_call *call)
{
	int rc;

	if (need_right(call, "start dedup"))
		return call->exit;
	rc = dedup_start(call->host->dedup);
	if (rc == -EALREADY)
		return call_fail(
			call, OUTCOME_BUSY,
			"dedup is running on %s already; wait for it: pmfs-ctl dedup %s wait",
			call->host->mountpoint, call->host->mountpoint);
	if (rc)
		return call_errno(call, rc, "start dedup");
	call->data = report_dedup(call->host);
	return 0;
}

static int op_dedup_status(struct ops_call *call)
{
	call->data = report_dedup(call->host);
	return 0;
}

static int op_dedup_pause(struct ops_call *call, bool pause)
{
	int rc;

	if (need_right(call, pause ? "pause dedup" : "resume dedup"))
		return call->exit;
	rc = dedup_pause(call->host->dedup, pause);
	if (rc == -ESRCH)
		return call_fail(call, OUTCOME_NOT_FOUND,
				 "dedup is not running on %s; start it: pmfs-ctl dedup %s start",
				 call->host->mountpoint, call->host->mountpoint);
	if (rc)
		return call_errno(call, rc, pause ? "pause dedup" : "resume dedup");
	call->data = report_dedup(call->host);
	return 0;
}

static int op_dedup_pause_on(struct ops_call *call)
{
	return op_dedup_pause(call, true);
}

static int op_dedup_pause_off(struct ops_call *call)
{
	return op_dedup_pause(call, false);
}

static int op_dedup_wait(struct ops_call *call)
{
	json_t *line;
	int rc;

	while ((rc = dedup_wait(call->host->dedup, PROGRESS_MS)) == -ETIMEDOUT) {
		if (call->given_up(call->arg))
			return call_fail(call, OUTCOME_INTERRUPTED, "nobody waits any more");
		line = report_dedup(call->host);
		if (!line)
			return call_errno(call, -ENOMEM, "tell how far dedup is");
		json_object_set_new(line, "type", json_string("progress"));
		if (call->send(call->arg, line))
			return call_fail(call, OUTCOME_INTERRUPTED, "nobody waits any more");
	}
	if (rc)
		return call_errno(call, rc, "finish dedup");
	call->data = report_dedup(call->host);
	return 0;
}

static int op_scrub_start(struct ops_call *call)
{
	json_t *rate = json_object_get(call->args, "rate");
	int rc;

	if (need_right(call, "start a scrub"))
		return call->exit;
	if (rate && (!json_is_integer(rate) || json_integer_value(rate) < 0))
		return call_fail(call, OUTCOME_USAGE, "a rate is a number of bytes per second");
	rc = scrub_start(call->host->scrub, arg_bool(call, "structure"),
			 (uint64_t)json_integer_value(rate));
	if (rc == -EALREADY)
		return call_fail(
			call, OUTCOME_BUSY,
			"a scrub is running on %s already; wait for it: pmfs-ctl scrub %s wait",
			call->host->mountpoint, call->host->mountpoint);
	if (rc)
		return call_errno(call, rc, "start a scrub");
	call->data = report_scrub(call->host);
	return 0;
}

static int op_scrub_status(struct ops_call *call)
{
	call->data = report_scrub(call->host);
	return 0;
}

static int op_scrub_stop(struct ops_call *call)
{
	if (need_right(call, "stop the scrub"))
		return call->exit;
	if (scrub_stop(call->host->scrub))
		return call_fail(call, OUTCOME_NOT_FOUND,
				 "no scrub is running on %s; start it: pmfs-ctl scrub %s start",
				 call->host->mountpoint, call->host->mountpoint);
	call->data = report_scrub(call->host);
	return 0;
}

static int op_scrub_wait(struct ops_call *call)
{
	struct scrub_stats st;
	json_t *line;
	int rc;

	while ((rc = scrub_wait(call->host->scrub, PROGRESS_MS)) == -ETIMEDOUT) {
		scrub_stat(call->host->scrub, &st);
		line = report_scrub_of(&st);
		if (line)
			json_object_set_new(line, "type", json_string("progress"));
		if (!line || call->given_up(call->arg) || call->send(call->arg, line))
			return call_fail(call, OUTCOME_INTERRUPTED, "nobody waits any more");
	}
	if (rc)
		return call_errno(call, rc, "finish the scrub");
	call->data = report_scrub(call->host);
	scrub_stat(call->host->scrub, &st);
	if (st.bad_pages || st.bad_nodes || st.structure_findings)
		return call_fail(call, OUTCOME_DAMAGED,
				 "%s is damaged: %llu pages, %llu nodes of the page map, %llu findings in "
				 "its structure; unmount it and run: fsck.pmfs -y %s",
				 call->host->source, (unsigned long long)st.bad_pages,
				 (unsigned long long)st.bad_nodes,
				 (unsigned long long)st.structure_findings, call->host->source);
	return 0;
}

int ops_run(struct ops_call *call, const char *op)
{
	static const struct {
		const char *name;
		int (*run)(struct ops_call *call);
	} ops[] = {
		{"dedup.pause", op_dedup_pause_on},
		{"dedup.resume", op_dedup_pause_off},
		{"dedup.start", op_dedup_start},
		{"dedup.status", op_dedup_status},
		{"dedup.wait", op_dedup_wait},
		{"df", op_df},
		{"file.info", op_file_info},
		{"ping", op_ping},
		{"scrub.start", op_scrub_start},
		{"scrub.status", op_scrub_status},
		{"scrub.stop", op_scrub_stop},
		{"scrub.wait", op_scrub_wait},
		{"snap.create", op_snap_create},
		{"snap.delete", op_snap_delete},
		{"snap.list", op_snap_list},
		{"snap.rename", op_snap_rename},
		{"snap.show", op_snap_show},
		{"status", op_status},
		{"sync", op_sync},
	};

	call->exit = 0;
	call->data = NULL;
	call->message[0] = 0;
	call->warnings = json_array();
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		if (strcmp(ops[i].name, op))
			continue;
		ops[i].run(call);
		if (!call->exit && !call->data)
			call_fail(call, OUTCOME_FAILED, "%s: out of memory", op);
		return call->exit;
	}
	return call_fail(
		call, OUTCOME_FAILED,
		"this daemon (pmfs %s) does not know the request %.64s; is it older than the tool?",
		PACKAGE_VERSION, op);
}
