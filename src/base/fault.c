/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/fault.h"

#ifdef PMFS_FAULTS

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/lock.h"
#include "base/log.h"

#define NAME_MAX_LEN 47

struct point {
	char name[NAME_MAX_LEN + 1];	/* empty: not in use */
	uint64_t hits;
	uint64_t fail_at;		/* number of the hit that fails; 0: nothing is armed */
	bool forever;
	int err;
};

/*
 * Not a struct mutex: a hit may come from under any lock, LOCK_LEAF included, and nothing is
 * called under this one.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct point points[128];	/* guarded by lock */
static atomic_bool active;

/* The point called name, made if it is not there; NULL when there is no room for one. */
static struct point *point_get(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		if (!points[i].name[0]) {
			strcpy(points[i].name, name);
			return &points[i];
		}
		if (!strcmp(points[i].name, name))
			return &points[i];
	}
	return NULL;
}

int fault_hit(const char *name)
{
	struct point *p;
	int rc = 0;

	if (!atomic_load_explicit(&active, memory_order_relaxed))
		return 0;
	if (strlen(name) > NAME_MAX_LEN)
		return 0;
	pthread_mutex_lock(&lock);
	p = point_get(name);
	if (p) {
		p->hits++;
		if (p->fail_at && p->hits >= p->fail_at) {
			rc = -p->err;
			if (!p->forever)
				p->fail_at = 0;
		}
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

static int arm(const char *name, uint64_t nth, int err, bool forever)
{
	struct point *p;
	int rc = 0;

	if (!nth || err < 1 || !name[0] || strlen(name) > NAME_MAX_LEN)
		return -EINVAL;
	pthread_mutex_lock(&lock);
	p = point_get(name);
	if (p && checked_add(p->hits, nth, &p->fail_at)) {
		p->err = err;
		p->forever = forever;
	} else {
		rc = p ? -EINVAL : -ENOSPC;
	}
	pthread_mutex_unlock(&lock);
	atomic_store(&active, true);
	return rc;
}

int fault_arm(const char *name, uint64_t nth, int err)
{
	return arm(name, nth, err, false);
}

int fault_arm_forever(const char *name, uint64_t nth, int err)
{
	return arm(name, nth, err, true);
}

uint64_t fault_count(const char *name)
{
	uint64_t hits = 0;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(points) && points[i].name[0]; i++)
		if (!strcmp(points[i].name, name))
			hits = points[i].hits;
	pthread_mutex_unlock(&lock);
	return hits;
}

void fault_reset(void)
{
	pthread_mutex_lock(&lock);
	memset(points, 0, sizeof(points));
	pthread_mutex_unlock(&lock);
	atomic_store(&active, true);
}

/* A positive errno, or 0 when text is none. */
static int errno_parse(const char *text)
{
	char *end;
	long n;

	for (int err = 1; err < 200; err++) {
		const char *known = strerrorname_np(err);

		if (known && !strcmp(known, text))
			return err;
	}
	n = strtol(text, &end, 10);
	return *end || n < 1 || n > 4095 ? 0 : (int)n;
}

/* Arms one "name:nth[+]:errno", which is taken apart in place. */
static int arm_text(char *text)
{
	char *nth_text, *err_text, *end;
	unsigned long long nth;
	bool forever = false;

	nth_text = strchr(text, ':');
	if (!nth_text)
		return -EINVAL;
	*nth_text++ = '\0';
	err_text = strchr(nth_text, ':');
	if (!err_text)
		return -EINVAL;
	*err_text++ = '\0';
	errno = 0;
	nth = strtoull(nth_text, &end, 10);
	if (*end == '+') {
		forever = true;
		end++;
	}
	if (*end || end == nth_text || nth_text[0] == '-' || errno)
		return -EINVAL;
	return arm(text, nth, errno_parse(err_text), forever);
}

int fault_init_env(void)
{
	const char *env = getenv("PMFS_FAULTS");
	char *copy, *one, *save = NULL;
	int rc = 0;

	if (!env)
		return 0;
	copy = strdup(env);
	if (!copy)
		return -ENOMEM;
	for (one = strtok_r(copy, ",", &save); one && !rc; one = strtok_r(NULL, ",", &save))
		rc = arm_text(one);
	if (rc)
		log_err("PMFS_FAULTS=%s: not of the form name:nth[+]:errno,...", env);
	free(copy);
	return rc;
}

#endif
