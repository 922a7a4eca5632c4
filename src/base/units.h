/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * units.h - sizes, times and durations, between what people type and read and what is computed.
 * Sizes are bytes and their units powers of 1024; times are nanoseconds since 1970 in UTC;
 * durations are nanoseconds.  The format functions write a string that ends in NUL, cut to fit,
 * and return buf.  UNITS_BUF bytes are enough for all of them.
 */
#ifndef PMFS_BASE_UNITS_H
#define PMFS_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#define UNITS_BUF 48

#define NS_PER_SEC INT64_C(1000000000)

/*
 * "4096", "64K", "10G", "1T", also "64KiB", "512B", "1.5M"; either case.
 * -EINVAL when it is no size, -ERANGE when it does not fit; *bytes is then untouched.
 */
int units_parse_size(const char *text, uint64_t *bytes);

/* "512 B", "1.5 MiB". */
char *units_format_size(char *buf, size_t len, uint64_t bytes);

/*
 * The shortest text that units_parse_size turns into exactly this size: "64K", "4097".
 */
char *units_format_size_exact(char *buf, size_t len, uint64_t bytes);

/* "90", "90s", "15m", "2h", "3d", "1w", "250ms"; a bare number is seconds.  Errors as above. */
int units_parse_duration(const char *text, int64_t *ns);

/* "0.4 ms", "12 s", "3 min 5 s", "2 h 10 min", "3 d 4 h". */
char *units_format_duration(char *buf, size_t len, int64_t ns);

/* "2025-03-01T12:30:05Z"; with a fraction when there is one: "2025-03-01T12:30:05.25Z". */
char *units_format_rfc3339(char *buf, size_t len, int64_t ns);

/* "2025-03-01 13:30:05" in the time zone of the process. */
char *units_format_local(char *buf, size_t len, int64_t ns);

/* The time of day, and the time since some fixed moment that no clock change touches. */
int64_t units_now_ns(void);
int64_t units_monotonic_ns(void);

#endif
