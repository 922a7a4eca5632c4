/* SPDX-License-Identifier: BSD-2-Clause */
#include "pmfs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "config.h"
#include "ctl/client.h"
#include "ctl/outcome.h"

struct pmfs_snapshot_list {
	size_t count;
	struct pmfs_snapshot *all;
	json_t *lines; /* whose strings they are */
};

const char *pmfs_version(void)
{
	return PACKAGE_VERSION;
}

static int errno_of(int outcome)
{
	switch (outcome) {
	case OUTCOME_DONE:
		return 0;
	case OUTCOME_USAGE:
		return -EINVAL;
	case OUTCOME_NOT_FOUND:
		return -ENOENT;
	case OUTCOME_EXISTS:
		return -EEXIST;
	case OUTCOME_BUSY:
		return -EBUSY;
	case OUTCOME_NO_SPACE:
		return -ENOSPC;
	case OUTCOME_NOT_PERMITTED:
		return -EPERM;
	case OUTCOME_NO_DAEMON:
		return -ENOTCONN;
	case OUTCOME_DAMAGED:
		return -EUCLEAN;
	case OUTCOME_INTERRUPTED:
		return -EINTR;
	default:
		return -EIO;
	}
}

/* Steals args.  client_close() is due in any case. */
static int ask(struct client *c, const char *dir, const char *op, json_t *args,
	       int (*line)(void *arg, const json_t *line), void *arg)
{
	struct located at;

	if (!dir || !args) {
		*c = (struct client){.fd = -1};
		json_decref(args);
		return dir ? -ENOMEM : -EINVAL;
	}
	locate_daemon_here(dir, &at);
	if (client_open_at(c, &at)) {
		json_decref(args);
		return c->exit == OUTCOME_NOT_FOUND ? -ENODEV : errno_of(c->exit);
	}
	return errno_of(client_call(c, op, args, line, arg, NULL));
}

/* ------------------------------------------------------------------ control */

static int render(const json_t *value, char **out)
{
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

	if (!text)
		return -ENOMEM;
	*out = text;
	return 0;
}

int pmfs_control(const char *dir, const char *op, const char *args, char **reply)
{
	json_t *parsed, *error;
	struct client c;
	int rc, rendered = 0;

	if (!op || !reply)
		return -EINVAL;
	*reply = NULL;
	parsed = args ? json_loads(args, JSON_REJECT_DUPLICATES, NULL) : json_object();
	if (!json_is_object(parsed)) {
		json_decref(parsed);
		return args ? -EINVAL : -ENOMEM;
	}
	rc = ask(&c, dir, op, parsed, NULL, NULL);
	if (!rc) {
		rendered = c.data ? render(c.data, reply) : -EIO;
	} else if (c.exit) {
		error = json_pack("{s:s, s:s}", "code", outcome_code(c.exit), "message", c.text);
		rendered = error ? render(error, reply) : -ENOMEM;
		json_decref(error);
	}
	client_close(&c);
	return rc ? rc : rendered;
}

/* ------------------------------------------------------------------ snapshots */

static int ask_quietly(const char *dir, const char *op, json_t *args)
{
	struct client c;
	int rc = ask(&c, dir, op, args, NULL, NULL);

	client_close(&c);
	return rc;
}

int pmfs_snapshot_create(const char *dir, const char *name, const char *message)
{
	if (!name)
		return -EINVAL;
	return ask_quietly(
		dir, "snap.create",
		json_pack("{s:s, s:s}", "name", name, "message", message ? message : ""));
}

int pmfs_snapshot_delete(const char *dir, const char *name)
{
	/* The daemon also takes "@-1" and the like, which are no names. */
	if (!name || name[0] == '@')
		return -EINVAL;
	return ask_quietly(dir, "snap.delete", json_pack("{s:[s]}", "names", name));
}

static int collect(void *arg, const json_t *line)
{
	return json_array_append(arg, (json_t *)(uintptr_t)line);
}

static uint64_t number(const json_t *line, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(line, key));

	return n > 0 ? (uint64_t)n : 0;
}

static const char *text(const json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s ? s : "";
}

/* RFC 3339 in UTC, with up to nine digits of a fraction. */
static int64_t parse_time(const char *when)
{
	struct tm tm = {0};
	const char *rest = strptime(when, "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t ns = 0, unit = 100000000;

	if (!rest)
		return 0;
	if (*rest == '.') {
		for (rest++; *rest >= '0' && *rest <= '9' && unit; rest++, unit /= 10)
			ns += (*rest - '0') * unit;
	}
	return (int64_t)timegm(&tm) * 1000000000 + ns;
}

int pmfs_snapshot_list(const char *dir, struct pmfs_snapshot_list **out)
{
	struct pmfs_snapshot_list *list;
	struct client c;
	json_t *line;
	size_t i;
	int rc;

	if (!out)
		return -EINVAL;
	list = calloc(1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	list->lines = json_array();
	rc = list->lines ? ask(&c, dir, "snap.list", json_object(), collect, list->lines) : -ENOMEM;
	if (list->lines)
		client_close(&c);
	if (!rc) {
		list->count = json_array_size(list->lines);
		list->all = calloc(list->count + 1, sizeof(*list->all));
		rc = list->all ? 0 : -ENOMEM;
	}
	if (rc) {
		pmfs_snapshot_list_free(list);
		return rc;
	}
	json_array_foreach(list->lines, i, line)
	{
		list->all[i] = (struct pmfs_snapshot){
			.name = text(line, "name"),
			.message = text(line, "message"),
			.id = number(line, "id"),
			.generation = number(line, "generation"),
			.created_ns = parse_time(text(line, "created")),
			.referenced_bytes = number(line, "referenced_bytes"),
		};
	}
	*out = list;
	return 0;
}

size_t pmfs_snapshot_count(const struct pmfs_snapshot_list *list)
{
	return list->count;
}

const struct pmfs_snapshot *pmfs_snapshot_get(const struct pmfs_snapshot_list *list, size_t index)
{
	return index < list->count ? &list->all[index] : NULL;
}

void pmfs_snapshot_list_free(struct pmfs_snapshot_list *list)
{
	if (!list)
		return;
	json_decref(list->lines);
	free(list->all);
	free(list);
}
