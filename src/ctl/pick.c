/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/pick.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

static int pick_nth(size_t n, const char *digits, size_t *index)
{
	unsigned long long back;
	char *end;

	if (*digits < '1' || *digits > '9')
		return -EINVAL;
	errno = 0;
	back = strtoull(digits, &end, 10);
	if (*end)
		return -EINVAL;
	if (errno || back > n)
		return -ENOENT;
	*index = n - (size_t)back;
	return 0;
}

static int pick_age(const struct pick_entry *entries, size_t n, const char *age, int64_t now_ns,
		    size_t *index)
{
	const struct pick_entry *best = NULL;
	int64_t age_ns;

	/* A bare number would be seconds, which nobody means who writes @2. */
	if (*age < '0' || *age > '9' || !age[strcspn(age, "smhdw")] ||
	    units_parse_duration(age, &age_ns))
		return -EINVAL;
	/* The clock may have been set back between two of them, so the last that is old enough need
	 * not be the newest. */
	for (size_t i = 0; i < n; i++) {
		if (entries[i].created_ns <= now_ns - age_ns &&
		    (!best || entries[i].created_ns >= best->created_ns))
			best = &entries[i];
	}
	if (!best)
		return -ENOENT;
	*index = (size_t)(best - entries);
	return 0;
}

int pick_snapshot(const struct pick_entry *entries, size_t n, const char *what, int64_t now_ns,
		  size_t *index)
{
	if (what[0] == '@' && what[1] == '-')
		return pick_nth(n, what + 2, index);
	if (what[0] == '@')
		return pick_age(entries, n, what + 1, now_ns, index);
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(entries[i].name, what)) {
			*index = i;
			return 0;
		}
	}
	return -ENOENT;
}
