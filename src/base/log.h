/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log.h - messages of the daemon and the tools.
 * They go to stderr, one line each with "pmfs: " in front (or the name that was set), until
 * log_to_syslog() sends them there.  All functions may be called by any thread; the ones that
 * set something are meant for start-up.  The message has no newline at its end.
 */
#ifndef PMFS_BASE_LOG_H
#define PMFS_BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERR,		/* something was lost or refused that should not have been */
	LOG_LEVEL_WARN,		/* works, but not as asked for */
	LOG_LEVEL_INFO,		/* the default: what an administrator wants to see */
	LOG_LEVEL_DEBUG,
};

/* Messages above this level are dropped. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* The word before the colon on stderr.  name is not copied and must stay. */
void log_set_name(const char *name);

/* From now on to syslog, facility daemon.  ident is not copied and must stay. */
void log_to_syslog(const char *ident);

/* From now on to fn (a test, or a collector); NULL goes back to stderr. */
void log_to_function(void (*fn)(void *arg, enum log_level level, const char *text), void *arg);

void log_vmsg(enum log_level level, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...) log_msg(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)							\
	do {								\
		if (log_enabled(LOG_LEVEL_DEBUG))			\
			log_msg(LOG_LEVEL_DEBUG, __VA_ARGS__);		\
	} while (0)

/*
 * For messages that a broken image or a full disk would repeat without end: per key (a string
 * that names the kind of message) LOG_LIMIT_BURST of them in LOG_LIMIT_NS are printed; the first
 * one after that says how many were left out.
 */
#define LOG_LIMIT_BURST 5
#define LOG_LIMIT_NS (UINT64_C(60) * 1000 * 1000 * 1000)
void log_limited(enum log_level level, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * The decision behind log_limited: may a message of this key be printed at now_ns (a monotonic
 * time)?  If so, *left_out is how many were not since the last one that was.
 */
bool log_limit_pass(const char *key, uint64_t now_ns, uint64_t *left_out);

#endif
