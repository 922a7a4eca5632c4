/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/mountinfo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* "\040" and the like, in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
}

static long find_uid(const char *super)
{
	const char *at = strstr(super, "user_id=");

	return at ? strtol(at + strlen("user_id="), NULL, 10) : -1;
}

/* id parent major:minor root dir options [tags ...] - type source super */
static bool parse_line(char *line, struct mount_entry *out)
{
	char *field[6], *type, *source, *super, *save = NULL, *tail;
	unsigned int major_no, minor_no;

	tail = strstr(line, " - ");
	if (!tail)
		return false;
	*tail = 0;
	tail += 3;
	for (size_t i = 0; i < 6; i++) {
		field[i] = strtok_r(i ? NULL : line, " \n", &save);
		if (!field[i])
			return false;
	}
	type = strtok_r(tail, " \n", &save);
	source = strtok_r(NULL, " \n", &save);
	super = strtok_r(NULL, " \n", &save);
	if (!type || !source || !super || sscanf(field[2], "%u:%u", &major_no, &minor_no) != 2)
		return false;
	unescape(field[3]);
	unescape(field[4]);
	unescape(source);
	*out = (struct mount_entry){
		.id = atoi(field[0]),
		.dev = makedev(major_no, minor_no),
		.root = field[3],
		.dir = field[4],
		.type = type,
		.source = source,
		.uid = find_uid(super),
	};
	return true;
}

int mountinfo_each_in(FILE *f, int (*fn)(void *arg, const struct mount_entry *m), void *arg)
{
	struct mount_entry m;
	char *line = NULL;
	size_t size = 0;
	int rc = 0;

	while (!rc && getline(&line, &size, f) >= 0) {
		if (parse_line(line, &m))
			rc = fn(arg, &m);
	}
	if (!rc && ferror(f))
		rc = -EIO;
	free(line);
	return rc;
}

int mountinfo_each(int (*fn)(void *arg, const struct mount_entry *m), void *arg)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	int rc;

	if (!f)
		return -errno;
	rc = mountinfo_each_in(f, fn, arg);
	fclose(f);
	return rc;
}

static int match_dev(void *arg, const struct mount_entry *m)
{
	return m->dev == *(dev_t *)arg;
}

bool mountinfo_has_dev(dev_t dev)
{
	return mountinfo_each(match_dev, &dev) == 1;
}

struct at {
	const char *dir, *type;
	dev_t dev;
};

static int match_dir(void *arg, const struct mount_entry *m)
{
	struct at *at = arg;

	if (!strcmp(m->dir, at->dir))
		at->dev = !at->type || !strcmp(m->type, at->type) ? m->dev : 0;
	return 0;
}

dev_t mountinfo_dev_at(const char *dir, const char *type)
{
	struct at at = {.dir = dir, .type = type};

	mountinfo_each(match_dir, &at);
	return at.dev;
}
