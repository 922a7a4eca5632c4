/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/powercut.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/log.h"
#include "tree/reclaim.h"

#define SECTOR	512u
#define SINGLES 12u /* of many writes, so many are left out one at a time */
#define RANDOM	4u  /* random selections, and as many torn ones */
#define ONE_IN	16u

struct powercut_event {
	bool flush;
	uint64_t byte;
	size_t len;
	uint8_t *buf; /* NULL: zeros */
};

/* ------------------------------------------------------------------ the diary */

static struct powercut_event *event_new(struct powercut *pc)
{
	if (pc->n_events == pc->max_events) {
		pc->max_events = MAX(pc->max_events * 2, 256);
		pc->events = realloc(pc->events, pc->max_events * sizeof(*pc->events));
		if (!pc->events)
			abort();
	}
	pc->events[pc->n_events] = (struct powercut_event){0};
	return &pc->events[pc->n_events++];
}

static void on_write(void *arg, uint64_t byte, const void *buf, size_t len)
{
	struct powercut_event *ev = event_new(arg);

	ev->byte = byte;
	ev->len = len;
	ev->buf = malloc(len);
	if (!ev->buf)
		abort();
	memcpy(ev->buf, buf, len);
}

static void on_punch(void *arg, uint64_t byte, uint64_t len)
{
	struct powercut_event *ev = event_new(arg);

	ev->byte = byte;
	ev->len = (size_t)len;
}

static void on_flush(void *arg)
{
	event_new(arg)->flush = true;
}

static void set_tap(struct powercut *pc, bool on)
{
	pc->tap = (struct region_tap){on_write, on_punch, on_flush, pc};
	region_set_tap(store_region(fs_store(pc->fx->fs)), on ? &pc->tap : NULL);
}

/* ------------------------------------------------------------------ images */

static void put(struct powercut *pc, uint64_t byte, const void *buf, size_t len)
{
	if (pwrite(pc->fd, buf, len, (off_t)byte) != (ssize_t)len)
		fail_msg("%s: %s", pc->path, strerror(errno));
}

/* The file grows as the image does: a length that was not durable would be refused as truncated. */
static void follow_size(struct powercut *pc)
{
	struct stat st;
	size_t size;

	if (stat(pc->fx->image, &st))
		fail_msg("stat %s: %s", pc->fx->image, strerror(errno));
	size = (size_t)st.st_size;
	if (size <= pc->size)
		return;
	pc->disk = realloc(pc->disk, size);
	if (!pc->disk)
		abort();
	memset(pc->disk + pc->size, 0, size - pc->size);
	pc->size = size;
	if (ftruncate(pc->fd, st.st_size))
		fail_msg("ftruncate: %s", strerror(errno));
}

/* Put a part of a write into the file. */
static void apply(struct powercut *pc, const struct powercut_event *ev, size_t from, size_t len)
{
	static const uint8_t zeros[SECTOR];

	if (ev->buf) {
		put(pc, ev->byte + from, ev->buf + from, len);
		return;
	}
	for (size_t at = from; at < from + len; at += SECTOR)
		put(pc, ev->byte + at, zeros, MIN(from + len - at, sizeof(zeros)));
}

static void apply_torn(struct powercut *pc, const struct powercut_event *ev)
{
	for (size_t at = 0; at < ev->len; at += SECTOR)
		if (fsfix_below(&pc->rnd, 2))
			apply(pc, ev, at, MIN(ev->len - at, (size_t)SECTOR));
}

/* What the file has in the place of these writes is what is durable, again. */
static void restore(struct powercut *pc, const struct powercut_event *ev, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put(pc, ev[i].byte, pc->disk + ev[i].byte, ev[i].len);
}

static void print_finding(void *arg, const char *what)
{
	(void)arg;
	print_error("check: %s\n", what);
}

static struct fs *image_open(struct powercut *pc, bool read_only, const char *kind)
{
	struct fs_config cfg = {.store = {.path = pc->path, .read_only = read_only}};
	struct store_error err = {0};
	struct fs *fs;
	int rc;

	rc = fs_open(&fs, &cfg, &err);
	if (rc)
		fail_msg("image %" PRIu64 " (%s) can't be opened: %s (%s)", pc->images, kind,
			 strerror(-rc), err.text);
	return fs;
}

static void image_check(struct powercut *pc, struct fs *fs, const char *kind)
{
	const int rc = fs_check(fs, true, print_finding, NULL);

	if (rc)
		fail_msg("image %" PRIu64 " (%s): fs_check %d", pc->images, kind, rc);
}

/* The image is a good place to go on from. */
static void image_use(struct powercut *pc, const char *kind)
{
	static const struct fs_cred cred = {0, 0};
	struct fs *fs = image_open(pc, false, kind);
	struct fs_attr attr;
	int rc;

	while (!(rc = store_scan(fs_store(fs), UINT64_MAX)))
		;
	if (rc < 0 || reclaim_run(fs) < 0)
		fail_msg("image %" PRIu64 " (%s): scan or reclaim", pc->images, kind);
	rc = fs_mknod(fs, fs_root(fs), "after the cut", 13, S_IFREG | 0600, 0, &cred, &attr);
	if (rc || fs_write(fs, attr.id, 5000, kind, strlen(kind), 0) != (ssize_t)strlen(kind))
		fail_msg("image %" PRIu64 " (%s) can't be written to", pc->images, kind);
	image_check(pc, fs, kind);
	rc = fs_close(fs);
	if (rc)
		fail_msg("image %" PRIu64 " (%s): close: %s", pc->images, kind, strerror(-rc));
	fs = image_open(pc, true, kind);
	image_check(pc, fs, kind);
	fs_close(fs);
	if (ftruncate(pc->fd, 0) || ftruncate(pc->fd, (off_t)pc->size))
		fail_msg("ftruncate: %s", strerror(errno));
	put(pc, 0, pc->disk, pc->size);
}

static void image_verify(struct powercut *pc, const char *kind, bool acknowledged, powercut_ok *ok,
			 void *arg)
{
	char why[256] = "";
	struct fs *fs;
	bool good;

	pc->images++;
	fs = image_open(pc, true, kind);
	image_check(pc, fs, kind);
	good = ok(arg, fs, acknowledged, why, sizeof(why));
	fs_close(fs);
	if (!good)
		fail_msg("image %" PRIu64 " (%s%s): %s", pc->images, kind,
			 acknowledged ? ", acknowledged" : "", why);
	if (fsfix_below(&pc->rnd, pc->one_in) == 0)
		image_use(pc, kind);
}

static bool in_slot(const struct powercut_event *ev)
{
	return ev->byte < (uint64_t)PMFS_FIRST_FRAME * PMFS_PAGE_SIZE;
}

enum selection { NOTHING, EVERYTHING, SLOT_ONLY, NO_SLOT, ALL_BUT_ONE, AT_RANDOM, TORN };

static const char *const selection_name[] = {
	"nothing written",   "everything written", "only the slot", "all but the slot",
	"one write missing", "random writes",	   "torn writes",
};

/* The power goes with some of these n writes done. */
static void cut(struct powercut *pc, const struct powercut_event *ev, size_t n, enum selection sel,
		size_t one, powercut_ok *ok, void *arg)
{
	for (size_t i = 0; i < n; i++) {
		bool take = true;

		if (sel == NOTHING)
			take = false;
		else if (sel == SLOT_ONLY)
			take = in_slot(&ev[i]);
		else if (sel == NO_SLOT)
			take = !in_slot(&ev[i]);
		else if (sel == ALL_BUT_ONE)
			take = i != one;
		else if (sel == AT_RANDOM)
			take = fsfix_below(&pc->rnd, 2);
		if (sel == TORN)
			apply_torn(pc, &ev[i]);
		else if (take)
			apply(pc, &ev[i], 0, ev[i].len);
	}
	image_verify(pc, selection_name[sel], false, ok, arg);
	restore(pc, ev, n);
}

static void cuts_before_flush(struct powercut *pc, const struct powercut_event *ev, size_t n,
			      powercut_ok *ok, void *arg)
{
	pc->boundaries++;
	cut(pc, ev, n, NOTHING, 0, ok, arg);
	cut(pc, ev, n, EVERYTHING, 0, ok, arg);
	cut(pc, ev, n, SLOT_ONLY, 0, ok, arg);
	cut(pc, ev, n, NO_SLOT, 0, ok, arg);
	for (size_t i = 0; i < MIN(n, (size_t)SINGLES); i++)
		cut(pc, ev, n, ALL_BUT_ONE, n <= SINGLES ? i : fsfix_below(&pc->rnd, n), ok, arg);
	for (unsigned i = 0; i < RANDOM; i++) {
		cut(pc, ev, n, AT_RANDOM, 0, ok, arg);
		cut(pc, ev, n, TORN, 0, ok, arg);
	}
}

/* ------------------------------------------------------------------ */

void powercut_verify(struct powercut *pc, powercut_ok *ok, void *arg)
{
	size_t from = 0;

	follow_size(pc);
	for (size_t i = 0; i < pc->n_events; i++) {
		if (!pc->events[i].flush)
			continue;
		cuts_before_flush(pc, pc->events + from, i - from, ok, arg);
		for (; from < i; from++) {
			struct powercut_event *ev = &pc->events[from];

			apply(pc, ev, 0, ev->len);
			if (ev->buf)
				memcpy(pc->disk + ev->byte, ev->buf, ev->len);
			else
				memset(pc->disk + ev->byte, 0, ev->len);
			free(ev->buf);
		}
		from++;
	}
	image_verify(pc, "all that was flushed", true, ok, arg);
	/* What was written behind the last flush is the start of the next diary. */
	memmove(pc->events, pc->events + from, (pc->n_events - from) * sizeof(*pc->events));
	pc->n_events -= from;
}

void powercut_start(struct powercut *pc, struct fsfix *fx)
{
	int fd;

	*pc = (struct powercut){.fx = fx, .one_in = ONE_IN};
	fsfix_seed(&pc->rnd, 7);
	snprintf(pc->path, sizeof(pc->path), "%s/cut", fx->dir);
	pc->fd = open(pc->path, O_RDWR | O_CREAT | O_EXCL, 0600);
	fd = open(fx->image, O_RDONLY);
	if (pc->fd < 0 || fd < 0)
		fail_msg("open: %s", strerror(errno));
	follow_size(pc);
	if (pread(fd, pc->disk, pc->size, 0) != (ssize_t)pc->size)
		fail_msg("reading the image: %s", strerror(errno));
	close(fd);
	put(pc, 0, pc->disk, pc->size);
	set_tap(pc, true);
}

void powercut_stop(struct powercut *pc)
{
	set_tap(pc, false);
	print_message("tries: %" PRIu64 " boundaries, %" PRIu64 " images\n", pc->boundaries,
		      pc->images);
	for (size_t i = 0; i < pc->n_events; i++)
		free(pc->events[i].buf);
	free(pc->events);
	free(pc->disk);
	close(pc->fd);
	unlink(pc->path);
}
