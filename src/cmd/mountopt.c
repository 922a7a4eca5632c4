/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/mountopt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/units.h"

/* What mount(8) and fstab use among themselves, and what is always so. */
static const char *const ignored[] = {
	"rw",	  "auto",     "noauto",	  "user",   "nouser",	  "users",
	"owner",  "group",    "defaults", "nofail", "_netdev",	  "default_permissions",
	"async",  "relatime", "silent",	  "loud",   "nolazytime", "noiversion",
	"nomand",
};

/* The pairs of flags that go to the kernel as they are: an option, and what takes it back. */
static const struct {
	const char *on, *off;
} flags[] = {
	{"noexec", "exec"}, {"noatime", "atime"}, {"nodiratime", "diratime"},
	{"sync", "async"},  {"dirsync", "async"},
};

/* Of later versions. */
static const char *const later[] = {
	"private",     "snapshot", "volume",	"dedup",      "dedup_mem",   "busy_poll",
	"remount",     "bind",	   "rbind",	"lazytime",   "iversion",    "mand",
	"strictatime", "context",  "fscontext", "defcontext", "rootcontext", "allow_root",
};

static bool is_in(const char *const *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(list[i], name))
			return true;
	}
	return false;
}

void mountopt_init(struct mountopt *mo)
{
	*mo = (struct mountopt){.io_uring = -1, .commit_ms = MOUNTOPT_COMMIT_SECONDS * 1000};
}

static void flag_remove(struct mountopt *mo, const char *name)
{
	size_t len = strlen(name);
	char *at = mo->flags;

	while (*at) {
		size_t n = strcspn(at, ",");
		size_t whole = n + (at[n] == ',');

		if (n == len && !memcmp(at, name, n))
			memmove(at, at + whole, strlen(at + whole) + 1);
		else
			at += whole;
	}
	len = strlen(mo->flags);
	if (len && mo->flags[len - 1] == ',')
		mo->flags[len - 1] = 0;
}

static void flag_add(struct mountopt *mo, const char *name)
{
	size_t len;

	flag_remove(mo, name);
	len = strlen(mo->flags);
	snprintf(mo->flags + len, sizeof(mo->flags) - len, "%s%s", len ? "," : "", name);
}

static bool take_flag(struct mountopt *mo, const char *name)
{
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		if (!strcmp(flags[i].on, name)) {
			flag_add(mo, name);
			return true;
		}
		if (!strcmp(flags[i].off, name)) {
			flag_remove(mo, flags[i].on);
			known = true;
		}
	}
	return known;
}

/* name=value */
static int take_value(struct mountopt *mo, const char *name, const char *value, char *why,
		      size_t len)
{
	uint64_t n;
	char *end;

	if (!strcmp(name, "size")) {
		if (units_parse_size(value, &n) || !n) {
			snprintf(why, len, "size=%s is not a size such as 512M or 10G", value);
			return -EINVAL;
		}
		mo->size = n;
		return 0;
	}
	if (!strcmp(name, "commit") || !strcmp(name, "threads")) {
		bool commit = *name == 'c';
		uint64_t max = commit ? 86400 : MOUNTOPT_THREADS_MAX;

		errno = 0;
		n = strtoull(value, &end, 10);
		if (*value < '0' || *value > '9' || *end || errno || !n || n > max) {
			snprintf(why, len, "%s=%s is not a number from 1 to %llu%s", name, value,
				 (unsigned long long)max, commit ? " (seconds)" : "");
			return -EINVAL;
		}
		if (commit)
			mo->commit_ms = (unsigned int)n * 1000;
		else
			mo->threads = (unsigned int)n;
		return 0;
	}
	if (!strcmp(name, "snapdir")) {
		if (strcmp(value, "hidden") && strcmp(value, "visible")) {
			snprintf(why, len, "snapdir=%s is neither hidden nor visible", value);
			return -EINVAL;
		}
		mo->snapdir_visible = *value == 'v';
		return 0;
	}
	if (!strcmp(name, "views")) {
		if (units_parse_size(value, &n) || !n) {
			snprintf(why, len, "views=%s is not a size such as 64M or 2G", value);
			return -EINVAL;
		}
		mo->views = n;
		return 0;
	}
	if (!strcmp(name, "passthrough")) {
		if (strcmp(value, "auto") && strcmp(value, "off")) {
			snprintf(why, len, "passthrough=%s is neither auto nor off", value);
			return -EINVAL;
		}
		mo->no_passthrough = *value == 'o';
		return 0;
	}
	if (!strcmp(name, "io_uring")) {
		if (strcmp(value, "auto") && strcmp(value, "off")) {
			snprintf(why, len, "io_uring=%s is neither auto nor off", value);
			return -EINVAL;
		}
		mo->io_uring = *value == 'a' ? -1 : 0;
		return 0;
	}
	/* mount(8) says so of who may unmount; the others are names that it has dealt with. */
	if (!strcmp(name, "user") || !strcmp(name, "comment") || !strcmp(name, "fsname") ||
	    !strcmp(name, "subtype"))
		return 0;
	snprintf(why, len, "there is no mount option %s=", name);
	return -EINVAL;
}

static int take_word(struct mountopt *mo, const char *name, bool root, char *why, size_t len)
{
	if (!strcmp(name, "ro")) {
		mo->read_only = true;
	} else if (!strcmp(name, "rw")) {
		mo->read_only = false;
	} else if (!strcmp(name, "allow_other")) {
		mo->allow_other = true;
	} else if (!strcmp(name, "dev") || !strcmp(name, "suid")) {
		if (!root) {
			snprintf(why, len, "only root may mount with the option %s", name);
			return -EPERM;
		}
		*(*name == 'd' ? &mo->dev : &mo->suid) = true;
	} else if (!strcmp(name, "nodev")) {
		mo->dev = false;
	} else if (!strcmp(name, "nosuid")) {
		mo->suid = false;
	} else if (!strcmp(name, "writeback")) {
		mo->writeback = true;
	} else if (!strcmp(name, "noxattr")) {
		mo->no_xattr = true;
	} else if (!take_flag(mo, name) && !is_in(ignored, ARRAY_SIZE(ignored), name)) {
		if (!strcmp(name, "size") || !strcmp(name, "commit") || !strcmp(name, "threads") ||
		    !strcmp(name, "snapdir") || !strcmp(name, "io_uring") || !strcmp(name, "views") ||
		    !strcmp(name, "passthrough"))
			snprintf(why, len, "the mount option %s needs a value: %s=...", name, name);
		else
			snprintf(why, len, "there is no mount option %s", name);
		return -EINVAL;
	}
	return 0;
}

static int take(struct mountopt *mo, char *option, bool root, char *why, size_t len)
{
	char *value = strchr(option, '=');

	if (!*option || !strncmp(option, "x-", 2) || !strncmp(option, "X-", 2))
		return 0;
	if (value)
		*value++ = 0;
	if (is_in(later, ARRAY_SIZE(later), option)) {
		snprintf(why, len, "the mount option %s is not available yet", option);
		return -EOPNOTSUPP;
	}
	return value ? take_value(mo, option, value, why, len)
		     : take_word(mo, option, root, why, len);
}

int mountopt_parse(struct mountopt *mo, const char *arg, bool root, char *why, size_t why_len)
{
	char *option = malloc(strlen(arg) + 1);
	size_t n = 0;
	int rc = 0;

	snprintf(why, why_len, "out of memory");
	if (!option)
		return -ENOMEM;
	for (const char *at = arg; !rc; at++) {
		if (*at == '\\' && (at[1] == ',' || at[1] == '\\')) {
			option[n++] = *++at;
		} else if (*at && *at != ',') {
			option[n++] = *at;
		} else {
			option[n] = 0;
			n = 0;
			rc = take(mo, option, root, why, why_len);
			if (!*at)
				break;
		}
	}
	free(option);
	return rc;
}
