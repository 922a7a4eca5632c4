/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/bits.h"

static const char size_letters[] = "KMGTPE";

/*
 * A decimal number with an optional fraction: *whole, and the fraction in units of 10^-9.
 * Further digits of the fraction are read and dropped.  Returns where it ends, or NULL when there
 * is no number, or with *range set when it does not fit.
 */
static const char *parse_number(const char *text, uint64_t *whole, uint64_t *nano, bool *range)
{
	uint64_t scale = 100000000;
	const char *p = text;

	*whole = 0;
	*nano = 0;
	*range = false;
	for (; isdigit((unsigned char)*p); p++) {
		uint64_t next;

		if (!checked_mul(*whole, 10, &next) ||
		    !checked_add(next, (uint64_t)(*p - '0'), whole)) {
			*range = true;
			return NULL;
		}
	}
	if (p == text)
		return NULL;
	if (*p != '.')
		return p;
	if (!isdigit((unsigned char)*++p))
		return NULL;
	for (; isdigit((unsigned char)*p); p++, scale /= 10)
		*nano += (uint64_t)(*p - '0') * scale;
	return p;
}

/* The binary exponent of a unit such as "", "B", "K", "KB", "KiB"; -1 when it is none. */
static int unit_shift(const char *unit)
{
	const char *letter;
	int shift;

	if (!*unit || !strcasecmp(unit, "b"))
		return 0;
	letter = strchr(size_letters, toupper((unsigned char)*unit));
	if (!letter)
		return -1;
	shift = 10 * (int)(letter - size_letters + 1);
	unit++;
	return !*unit || !strcasecmp(unit, "b") || !strcasecmp(unit, "ib") ? shift : -1;
}

int units_parse_size(const char *text, uint64_t *bytes)
{
	uint64_t whole, nano, r;
	bool range;
	int shift;
	const char *unit = parse_number(text, &whole, &nano, &range);

	if (!unit)
		return range ? -ERANGE : -EINVAL;
	shift = unit_shift(unit);
	if (shift < 0 || (shift == 0 && nano))
		return -EINVAL;
	if (!checked_mul(whole, UINT64_C(1) << shift, &r) ||
	    !checked_add(r, (uint64_t)(((unsigned __int128)nano << shift) / 1000000000), &r))
		return -ERANGE;
	*bytes = r;
	return 0;
}

char *units_format_size(char *buf, size_t len, uint64_t bytes)
{
	unsigned int unit = 0;
	uint64_t tenths;

	if (bytes < 1024) {
		snprintf(buf, len, "%" PRIu64 " B", bytes);
		return buf;
	}
	while (unit < 6 && bytes >> (10 * (unit + 1)))
		unit++;
	tenths = (uint64_t)((((unsigned __int128)bytes * 10) + (UINT64_C(1) << (10 * unit - 1))) >>
			    (10 * unit));
	/* Rounding may reach the next unit: 1048575 bytes are 1.0 MiB, not 1024.0 KiB. */
	if (tenths >= 10240 && unit < 6) {
		tenths = 10;
		unit++;
	}
	snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " %ciB", tenths / 10, tenths % 10,
		 size_letters[unit - 1]);
	return buf;
}

char *units_format_size_exact(char *buf, size_t len, uint64_t bytes)
{
	unsigned int unit = 0;

	while (bytes && unit < 6 && IS_ALIGNED(bytes, UINT64_C(1) << (10 * (unit + 1))))
		unit++;
	if (unit)
		snprintf(buf, len, "%" PRIu64 "%c", bytes >> (10 * unit), size_letters[unit - 1]);
	else
		snprintf(buf, len, "%" PRIu64, bytes);
	return buf;
}

int units_parse_duration(const char *text, int64_t *ns)
{
	static const struct { const char *unit; int64_t ns; } units[] = {
		{ "", NS_PER_SEC }, { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 },
		{ "s", NS_PER_SEC }, { "m", 60 * NS_PER_SEC }, { "h", 3600 * NS_PER_SEC },
		{ "d", 86400 * NS_PER_SEC }, { "w", 7 * 86400 * NS_PER_SEC },
	};
	uint64_t whole, nano, r;
	bool range;
	const char *unit = parse_number(text, &whole, &nano, &range);

	if (!unit)
		return range ? -ERANGE : -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		const uint64_t each = (uint64_t)units[i].ns;

		if (strcmp(unit, units[i].unit) != 0)
			continue;
		if (!checked_mul(whole, each, &r) ||
		    !checked_add(r, (uint64_t)((unsigned __int128)nano * each / 1000000000), &r) ||
		    r > INT64_MAX)
			return -ERANGE;
		*ns = (int64_t)r;
		return 0;
	}
	return -EINVAL;
}

char *units_format_duration(char *buf, size_t len, int64_t ns)
{
	const char *sign = ns < 0 ? "-" : "";
	const uint64_t abs_ns = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
	const uint64_t s = abs_ns / (uint64_t)NS_PER_SEC;

	if (abs_ns < 1000)
		snprintf(buf, len, "%s%" PRIu64 " ns", sign, abs_ns);
	else if (abs_ns < 100000)
		snprintf(buf, len, "%s%" PRIu64 ".%" PRIu64 " us", sign, abs_ns / 1000,
			 abs_ns % 1000 / 100);
	else if (abs_ns < 1000000000)
		snprintf(buf, len, "%s%" PRIu64 ".%" PRIu64 " ms", sign, abs_ns / 1000000,
			 abs_ns % 1000000 / 100000);
	else if (s < 10)
		snprintf(buf, len, "%s%" PRIu64 ".%" PRIu64 " s", sign, s,
			 abs_ns % 1000000000 / 100000000);
	else if (s < 60)
		snprintf(buf, len, "%s%" PRIu64 " s", sign, s);
	else if (s < 3600)
		snprintf(buf, len, "%s%" PRIu64 " min %" PRIu64 " s", sign, s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, len, "%s%" PRIu64 " h %" PRIu64 " min", sign, s / 3600,
			 s % 3600 / 60);
	else
		snprintf(buf, len, "%s%" PRIu64 " d %" PRIu64 " h", sign, s / 86400,
			 s % 86400 / 3600);
	return buf;
}

/* Nanoseconds to whole seconds, downwards also before 1970, and the rest, 0..999999999. */
static time_t split_ns(int64_t ns, int64_t *rest)
{
	int64_t s = ns / NS_PER_SEC;

	*rest = ns % NS_PER_SEC;
	if (*rest < 0) {
		*rest += NS_PER_SEC;
		s--;
	}
	return (time_t)s;
}

char *units_format_rfc3339(char *buf, size_t len, int64_t ns)
{
	char fraction[16] = "";
	struct tm tm;
	int64_t rest;
	const time_t s = split_ns(ns, &rest);

	gmtime_r(&s, &tm);
	if (rest) {
		int n = snprintf(fraction, sizeof(fraction), ".%09" PRId64, rest);

		while (n > 0 && fraction[n - 1] == '0')
			fraction[--n] = '\0';
	}
	snprintf(buf, len, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", tm.tm_year + 1900, tm.tm_mon + 1,
		 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, fraction);
	return buf;
}

char *units_format_local(char *buf, size_t len, int64_t ns)
{
	struct tm tm;
	int64_t rest;
	const time_t s = split_ns(ns, &rest);

	localtime_r(&s, &tm);
	snprintf(buf, len, "%04d-%02d-%02d %02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1,
		 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	return buf;
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

int64_t units_now_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

int64_t units_monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}
