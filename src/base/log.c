/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/units.h"

/* Longer messages are cut; a line goes out in one write, so that threads do not mix theirs. */
#define LOG_LINE 1024

typedef void log_fn(void *arg, enum log_level level, const char *text);

static atomic_int max_level = LOG_LEVEL_INFO;
static _Atomic(const char *) name = "pmfs";
static atomic_bool to_syslog;

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static log_fn *sink;		/* guarded by sink_lock */
static void *sink_arg;		/* guarded by sink_lock */

void log_set_level(enum log_level level)
{
	atomic_store(&max_level, (int)level);
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

void log_set_name(const char *new_name)
{
	atomic_store(&name, new_name);
}

void log_to_syslog(const char *ident)
{
	openlog(ident, LOG_PID, LOG_DAEMON);
	atomic_store(&to_syslog, true);
}

void log_to_function(log_fn *fn, void *arg)
{
	pthread_mutex_lock(&sink_lock);
	sink = fn;
	sink_arg = arg;
	pthread_mutex_unlock(&sink_lock);
}

static bool give_to_sink(enum log_level level, const char *text)
{
	bool given = false;

	pthread_mutex_lock(&sink_lock);
	if (sink) {
		sink(sink_arg, level, text);
		given = true;
	}
	pthread_mutex_unlock(&sink_lock);
	return given;
}

static void emit(enum log_level level, const char *text)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

	if (give_to_sink(level, text))
		return;
	if (atomic_load(&to_syslog))
		syslog(priorities[level], "%s", text);
	else
		fprintf(stderr, "%s: %s\n", atomic_load(&name), text);
}

void log_vmsg(enum log_level level, const char *fmt, va_list ap)
{
	const int saved = errno;	/* callers log between a failure and its return */
	char text[LOG_LINE];

	if (!log_enabled(level))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	emit(level, text);
	errno = saved;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vmsg(level, fmt, ap);
	va_end(ap);
}

struct limit {
	uint64_t key_hash;	/* 0: not in use */
	uint64_t since_ns;
	uint64_t left_out;
	uint32_t printed;
};

static pthread_mutex_t limit_lock = PTHREAD_MUTEX_INITIALIZER;
static struct limit limits[32];		/* guarded by limit_lock */

/* The key's entry, or the one that has not been used for the longest time. */
static struct limit *limit_find(uint64_t key_hash)
{
	struct limit *oldest = &limits[0];

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		if (limits[i].key_hash == key_hash)
			return &limits[i];
		if (limits[i].since_ns < oldest->since_ns)
			oldest = &limits[i];
	}
	*oldest = (struct limit){ .key_hash = key_hash };
	return oldest;
}

bool log_limit_pass(const char *key, uint64_t now_ns, uint64_t *left_out)
{
	const uint64_t key_hash = hash64(key, strlen(key)) | 1;
	struct limit *l;
	bool pass;

	pthread_mutex_lock(&limit_lock);
	l = limit_find(key_hash);
	if (l->printed == 0 || now_ns - l->since_ns >= LOG_LIMIT_NS) {
		l->since_ns = now_ns;
		l->printed = 0;
	}
	pass = l->printed < LOG_LIMIT_BURST;
	if (pass) {
		l->printed++;
		*left_out = l->left_out;
		l->left_out = 0;
	} else {
		l->left_out++;
	}
	pthread_mutex_unlock(&limit_lock);
	return pass;
}

void log_limited(enum log_level level, const char *key, const char *fmt, ...)
{
	const int saved = errno;
	char text[LOG_LINE];
	uint64_t left_out;
	va_list ap;

	if (!log_enabled(level))
		return;
	if (log_limit_pass(key, (uint64_t)units_monotonic_ns(), &left_out)) {
		va_start(ap, fmt);
		vsnprintf(text, sizeof(text), fmt, ap);
		va_end(ap);
		if (left_out)
			log_msg(level, "%s (and %" PRIu64 " more like this before)", text,
				left_out);
		else
			emit(level, text);
	}
	errno = saved;
}
