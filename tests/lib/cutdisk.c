/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/cutdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/reclaim.h"

#define FRAME  ((size_t)PMFS_PAGE_SIZE)
#define BYTES  (CUTDISK_FRAMES * FRAME)
#define SECTOR 512u
#define RANDOM 8u /* random selections, and as many with torn frames */

/* Either a write into one frame or a flush. */
struct cut_write {
	bool flush;
	uint32_t off, len;
	pfn_t pfn;
	uint8_t *buf; /* NULL: zeros */
};

struct cut_seen {
	uint64_t sum; /* 0: free */
	uint64_t state;
};

/* A frame that was written between two flushes. */
struct change {
	pfn_t pfn;
	bool twice; /* ... and written again: `before` is what it was in between */
	uint8_t now[FRAME], before[FRAME], torn[FRAME];
	uint64_t sum_old, sum_now, sum_before, sum_torn;
	const uint8_t *take; /* of the cut at hand; NULL: what was there */
	uint64_t sum_take;
};

/* ------------------------------------------------------------------ a clock that stands still */

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	if (id != CLOCK_REALTIME)
		return __real_clock_gettime(id, ts);
	*ts = (struct timespec){.tv_sec = 1700000000, .tv_nsec = 123456789};
	return 0;
}

/* ------------------------------------------------------------------ small things */

static void failed(struct cutdisk *cd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void failed(struct cutdisk *cd, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cd->failed(cd->arg, text);
}

/* Frames of zeros count as nothing, so that a longer file is the same image. */
static uint64_t frame_sum(pfn_t pfn, const uint8_t *bytes)
{
	return mem_is_zero(bytes, FRAME) ? 0 : hash64_seed(bytes, FRAME, pfn + 1);
}

static uint8_t *at(uint8_t *map, pfn_t pfn)
{
	return map + pfn * FRAME;
}

static void set_length(struct cut_file *f, uint64_t frames)
{
	assert_true(frames <= CUTDISK_FRAMES);
	if (ftruncate(f->fd, (off_t)(frames * FRAME)) ||
	    (frames && posix_fallocate(f->fd, 0, (off_t)(frames * FRAME))))
		fail_msg("a file of memory: %s", strerror(errno));
	f->frames = frames;
}

static uint64_t length(const struct cut_file *f)
{
	struct stat st;

	if (fstat(f->fd, &st))
		fail_msg("fstat: %s", strerror(errno));
	return (uint64_t)st.st_size / FRAME;
}

static void file_start(struct cut_file *f, const char *name)
{
	f->fd = memfd_create(name, MFD_CLOEXEC);
	if (f->fd < 0)
		fail_msg("memfd_create: %s", strerror(errno));
	snprintf(f->path, sizeof(f->path), "/proc/self/fd/%d", f->fd);
	f->map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	assert_true(f->map != MAP_FAILED);
}

static void file_stop(struct cut_file *f)
{
	munmap(f->map, BYTES);
	close(f->fd);
}

/* ------------------------------------------------------------------ what was written */

static struct cut_write *write_new(struct cutdisk *cd)
{
	if (cd->n_writes == cd->max_writes) {
		cd->max_writes = MAX(cd->max_writes * 2, 256);
		cd->writes = realloc(cd->writes, cd->max_writes * sizeof(*cd->writes));
		if (!cd->writes)
			abort();
	}
	cd->writes[cd->n_writes] = (struct cut_write){0};
	return &cd->writes[cd->n_writes++];
}

static void note(struct cutdisk *cd, uint64_t byte, const uint8_t *buf, uint64_t len)
{
	while (len) {
		struct cut_write *w = write_new(cd);

		w->pfn = byte / FRAME;
		w->off = (uint32_t)(byte % FRAME);
		w->len = (uint32_t)MIN(len, FRAME - w->off);
		if (buf) {
			w->buf = malloc(w->len);
			if (!w->buf)
				abort();
			memcpy(w->buf, buf, w->len);
			buf += w->len;
		}
		byte += w->len;
		len -= w->len;
		cd->touched[w->pfn] = true;
	}
}

static void on_write(void *arg, uint64_t byte, const void *buf, size_t len)
{
	note(arg, byte, buf, len);
}

static void on_punch(void *arg, uint64_t byte, uint64_t len)
{
	note(arg, byte, NULL, len);
}

static void on_flush(void *arg)
{
	write_new(arg)->flush = true;
}

static void put(uint8_t *frame, const struct cut_write *w)
{
	if (w->buf)
		memcpy(frame + w->off, w->buf, w->len);
	else
		memset(frame + w->off, 0, w->len);
}

/* Forget the first n. */
static void drop_writes(struct cutdisk *cd, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(cd->writes[i].buf);
	memmove(cd->writes, cd->writes + n, (cd->n_writes - n) * sizeof(*cd->writes));
	cd->n_writes -= n;
}

/* The frames that n writes change; the caller's to free. */
static struct change *changes_of(struct cutdisk *cd, const struct cut_write *w, size_t n,
				 size_t *count)
{
	struct change *all = calloc(n ? n : 1, sizeof(*all));
	size_t found = 0, k;

	assert_non_null(all);
	for (size_t i = 0; i < n; i++) {
		for (k = 0; k < found && all[k].pfn != w[i].pfn; k++)
			;
		if (k == found) {
			all[found].pfn = w[i].pfn;
			memcpy(all[found++].now, at(cd->disk, w[i].pfn), FRAME);
		} else {
			all[k].twice = true;
			memcpy(all[k].before, all[k].now, FRAME);
		}
		put(all[k].now, &w[i]);
	}
	for (k = 0; k < found; k++) {
		all[k].sum_old = frame_sum(all[k].pfn, at(cd->disk, all[k].pfn));
		all[k].sum_now = frame_sum(all[k].pfn, all[k].now);
		all[k].sum_before = all[k].twice ? frame_sum(all[k].pfn, all[k].before) : 0;
	}
	*count = found;
	return all;
}

/* ------------------------------------------------------------------ images that were looked at */

static struct cut_seen *seen_place(struct cut_seen *table, size_t size, uint64_t sum)
{
	size_t i = sum & (size - 1);

	while (table[i].sum && table[i].sum != sum)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static void seen_grow(struct cutdisk *cd)
{
	const size_t size = MAX(cd->max_seen * 2, 1u << 12);
	struct cut_seen *table = calloc(size, sizeof(*table));

	assert_non_null(table);
	for (size_t i = 0; i < cd->max_seen; i++)
		if (cd->seen[i].sum)
			*seen_place(table, size, cd->seen[i].sum) = cd->seen[i];
	free(cd->seen);
	cd->seen = table;
	cd->max_seen = size;
}

/* ------------------------------------------------------------------ looking at one */

static void print_finding(void *arg, const char *what)
{
	(void)arg;
	print_error("check: %s\n", what);
}

static struct fs *image_open(struct cutdisk *cd, bool read_only)
{
	const struct fs_config cfg = {.store = {.path = cd->cut.path, .read_only = read_only}};
	struct store_error err = {0};
	struct fs *fs;
	const int rc = fs_open(&fs, &cfg, &err);

	if (rc)
		failed(cd, "the image can't be opened: %s (%s)", strerror(-rc), err.text);
	return fs;
}

static void image_check(struct cutdisk *cd, struct fs *fs, const char *when)
{
	const int rc = fs_check(fs, true, print_finding, NULL);

	if (rc < 0)
		failed(cd, "fs_check %s: %s", when, strerror(-rc));
	if (rc)
		failed(cd, "fs_check %s: %d findings", when, rc);
}

static void rewrote(void *arg, uint64_t byte, uint64_t len)
{
	struct cutdisk *cd = arg;

	for (pfn_t pfn = byte / FRAME; pfn * FRAME < byte + len; pfn++)
		cd->rewritten[pfn] = true;
}

static void rewrote_bytes(void *arg, uint64_t byte, const void *buf, size_t len)
{
	(void)buf;
	rewrote(arg, byte, len);
}

/* The image is a good place to go on from: what is written and synced is there when it is opened
 * again. */
static void image_use(struct cutdisk *cd, struct fs *fs)
{
	static const char name[] = "after the cut";
	static const struct fs_cred cred = {0, 0};
	uint8_t out[FRAME + 100], in[sizeof(out)];
	struct fs_attr attr;
	int rc = 0;

	cd->used++;
	memset(out, 'u', sizeof(out));
	while (!rc)
		rc = store_scan(fs_store(fs), UINT64_MAX);
	if (rc < 0 || reclaim_run(fs) < 0)
		failed(cd, "the image can't be scanned, or nothing given back");
	rc = fs_mknod(fs, fs_root(fs), name, strlen(name), S_IFREG | 0600, 0, &cred, &attr);
	if (rc || fs_write(fs, attr.id, 0, out, sizeof(out), 0) != (ssize_t)sizeof(out) ||
	    fs_fsync(fs, attr.id, false))
		failed(cd, "the image can't be written to");
	image_check(cd, fs, "after writing");
	fs_abandon(fs);
	fs = image_open(cd, true);
	if (fs_lookup(fs, fs_root(fs), name, strlen(name), &attr) ||
	    fs_read(fs, attr.id, 0, in, sizeof(in)) != (ssize_t)sizeof(in) ||
	    memcmp(in, out, sizeof(in)) != 0)
		failed(cd, "what was written to the image is not there");
	fs_abandon(fs);
}

static uint64_t image_look(struct cutdisk *cd)
{
	const bool use = fsfix_below(&cd->rnd, cd->use_one_in) == 0;
	struct fs *fs = image_open(cd, !use);
	uint64_t state;

	cd->images++;
	if (use) {
		cd->cut_tap = (struct region_tap){rewrote_bytes, rewrote, NULL, cd};
		region_set_tap(store_region(fs_store(fs)), &cd->cut_tap);
	}
	image_check(cd, fs, "after the cut");
	state = cd->look(cd->arg, fs);
	if (use)
		image_use(cd, fs);
	else
		fs_abandon(fs);
	if (length(&cd->cut) != cd->cut.frames)
		set_length(&cd->cut, cd->cut.frames);
	for (pfn_t pfn = 0; pfn < CUTDISK_FRAMES; pfn++) {
		if (cd->rewritten[pfn] && pfn < cd->cut.frames)
			memcpy(at(cd->cut.map, pfn), at(cd->disk, pfn), FRAME);
		cd->rewritten[pfn] = false;
	}
	return state;
}

/* The image that these changes leave, of which each says what is there of it. */
static void cut_once(struct cutdisk *cd, struct change *ch, size_t n, const char *kind,
		     const uint64_t *states, unsigned n_states)
{
	uint64_t sum = cd->disk_sum, state;
	struct cut_seen *seen;

	cd->cuts++;
	for (size_t i = 0; i < n; i++)
		if (ch[i].take)
			sum ^= ch[i].sum_old ^ ch[i].sum_take;
	sum = sum ? sum : 1;
	if (cd->n_seen * 2 >= cd->max_seen)
		seen_grow(cd);
	seen = seen_place(cd->seen, cd->max_seen, sum);
	if (!seen->sum) {
		for (size_t i = 0; i < n; i++)
			if (ch[i].take)
				memcpy(at(cd->cut.map, ch[i].pfn), ch[i].take, FRAME);
		state = image_look(cd);
		for (size_t i = 0; i < n; i++)
			if (ch[i].take)
				memcpy(at(cd->cut.map, ch[i].pfn), at(cd->disk, ch[i].pfn), FRAME);
		*seen = (struct cut_seen){sum, state};
		cd->n_seen++;
	}
	for (unsigned i = 0; i < n_states; i++)
		if (seen->state == states[i])
			return;
	failed(cd, "%s of %zu changed frames: the image shows a state that it may not be in", kind,
	       n);
}

/* ------------------------------------------------------------------ which ones */

static void take_now(struct change *ch, bool take)
{
	ch->take = take ? ch->now : NULL;
	ch->sum_take = ch->sum_now;
}

static void take_some(struct cutdisk *cd, struct change *ch)
{
	take_now(ch, fsfix_below(&cd->rnd, 2));
	if (ch->take && ch->twice && fsfix_below(&cd->rnd, 2)) {
		ch->take = ch->before;
		ch->sum_take = ch->sum_before;
	}
}

static void take_torn(struct cutdisk *cd, struct change *ch)
{
	if (fsfix_below(&cd->rnd, 2)) {
		take_now(ch, true);
		return;
	}
	memcpy(ch->torn, at(cd->disk, ch->pfn), FRAME);
	for (size_t byte = 0; byte < FRAME; byte += SECTOR)
		if (fsfix_below(&cd->rnd, 2))
			memcpy(ch->torn + byte, ch->now + byte, SECTOR);
	ch->take = ch->torn;
	ch->sum_take = frame_sum(ch->pfn, ch->torn);
}

static bool in_slot(const struct change *ch)
{
	return ch->pfn < PMFS_FIRST_FRAME;
}

static void all_subsets(struct cutdisk *cd, struct change *ch, size_t n, const uint64_t *states,
			unsigned n_states)
{
	for (unsigned set = 0; set < 1u << n; set++) {
		for (size_t i = 0; i < n; i++)
			take_now(&ch[i], set >> i & 1);
		cut_once(cd, ch, n, "a subset", states, n_states);
	}
}

static void chosen_subsets(struct cutdisk *cd, struct change *ch, size_t n, const uint64_t *states,
			   unsigned n_states)
{
	static const char *const kind[] = {"nothing", "all", "only the slot", "all but the slot"};

	for (unsigned k = 0; k < ARRAY_SIZE(kind); k++) {
		for (size_t i = 0; i < n; i++)
			take_now(&ch[i], k < 2 ? k : in_slot(&ch[i]) == (k == 2));
		cut_once(cd, ch, n, kind[k], states, n_states);
	}
	for (size_t one = 0; one < n; one++) {
		for (size_t i = 0; i < n; i++)
			take_now(&ch[i], i != one);
		cut_once(cd, ch, n, "all but one", states, n_states);
	}
}

static void cut_boundary(struct cutdisk *cd, const struct cut_write *w, size_t n,
			 const uint64_t *states, unsigned n_states)
{
	size_t count;
	struct change *ch = changes_of(cd, w, n, &count);

	cd->boundaries++;
	if (count <= CUTDISK_ALL)
		all_subsets(cd, ch, count, states, n_states);
	else
		chosen_subsets(cd, ch, count, states, n_states);
	for (unsigned k = 0; count && k < RANDOM; k++) {
		for (size_t i = 0; i < count; i++)
			take_some(cd, &ch[i]);
		cut_once(cd, ch, count, "a random subset", states, n_states);
		for (size_t i = 0; i < count; i++)
			take_torn(cd, &ch[i]);
		cut_once(cd, ch, count, "torn frames", states, n_states);
	}
	free(ch);
}

/* These writes are durable. */
static void follow(struct cutdisk *cd, const struct cut_write *w, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t *frame = at(cd->disk, w[i].pfn);

		cd->disk_sum ^= frame_sum(w[i].pfn, frame);
		put(frame, &w[i]);
		cd->disk_sum ^= frame_sum(w[i].pfn, frame);
		put(at(cd->cut.map, w[i].pfn), &w[i]);
	}
}

/* The file is as long as the one at work: a length that was not durable would be refused. */
static void follow_length(struct cutdisk *cd)
{
	cd->run.frames = length(&cd->run);
	if (cd->run.frames > cd->cut.frames)
		set_length(&cd->cut, cd->run.frames);
}

void cutdisk_cut(struct cutdisk *cd, const uint64_t *states, unsigned n)
{
	bool flushed = false;
	size_t from = 0;

	follow_length(cd);
	for (size_t i = 0; i < cd->n_writes; i++) {
		if (!cd->writes[i].flush)
			continue;
		if (n)
			cut_boundary(cd, cd->writes + from, i - from, states, n);
		follow(cd, cd->writes + from, i - from);
		from = i + 1;
		flushed = true;
	}
	drop_writes(cd, from);
	if (n && flushed)
		cut_once(cd, NULL, 0, "all that was flushed", &states[n - 1], 1);
}

void cutdisk_cut_now(struct cutdisk *cd, uint64_t state)
{
	follow_length(cd);
	cut_boundary(cd, cd->writes, cd->n_writes, &state, 1);
}

/* ------------------------------------------------------------------ the file at work */

static void run_open(struct cutdisk *cd)
{
	const struct fs_config cfg = {.store = {.path = cd->run.path}};
	struct store_error err = {0};
	int rc = fs_open(&cd->fs, &cfg, &err);

	if (rc)
		failed(cd, "fs_open: %s (%s)", strerror(-rc), err.text);
	while (!rc)
		rc = store_scan(fs_store(cd->fs), UINT64_MAX);
	assert_int_equal(rc, 1);
	cd->tap = (struct region_tap){on_write, on_punch, on_flush, cd};
	region_set_tap(store_region(fs_store(cd->fs)), &cd->tap);
}

void cutdisk_set_base(struct cutdisk *cd)
{
	assert_int_equal(fs_close(cd->fs), 0);
	cd->fs = NULL;
	drop_writes(cd, cd->n_writes);
	set_length(&cd->run, length(&cd->run));
	set_length(&cd->cut, cd->run.frames);
	cd->base_frames = cd->run.frames;
	cd->base_sum = 0;
	for (pfn_t pfn = 0; pfn < cd->base_frames; pfn++) {
		memcpy(at(cd->base, pfn), at(cd->run.map, pfn), FRAME);
		memcpy(at(cd->cut.map, pfn), at(cd->base, pfn), FRAME);
		cd->base_sum ^= frame_sum(pfn, at(cd->base, pfn));
	}
	memcpy(cd->disk, cd->base, BYTES);
	cd->disk_sum = cd->base_sum;
	memset(cd->touched, 0, sizeof(cd->touched));
}

void cutdisk_begin(struct cutdisk *cd)
{
	if (length(&cd->run) != cd->base_frames)
		set_length(&cd->run, cd->base_frames);
	if (cd->cut.frames != cd->base_frames)
		set_length(&cd->cut, cd->base_frames);
	for (pfn_t pfn = 0; pfn < CUTDISK_FRAMES; pfn++) {
		if (!cd->touched[pfn])
			continue;
		cd->touched[pfn] = false;
		memcpy(at(cd->disk, pfn), at(cd->base, pfn), FRAME);
		if (pfn >= cd->base_frames)
			continue;
		memcpy(at(cd->run.map, pfn), at(cd->base, pfn), FRAME);
		memcpy(at(cd->cut.map, pfn), at(cd->base, pfn), FRAME);
	}
	cd->disk_sum = cd->base_sum;
	run_open(cd);
}

void cutdisk_end(struct cutdisk *cd)
{
	fs_abandon(cd->fs);
	cd->fs = NULL;
	drop_writes(cd, cd->n_writes);
}

void cutdisk_start(struct cutdisk *cd, cutdisk_look *look,
		   void (*fail)(void *arg, const char *what), void *arg)
{
	const struct store_format how = {
		.limit_bytes = BYTES,
		.uuid = "pmfs crash enum",
	};
	struct store_error err = {0};
	int rc;

	memset(cd, 0, sizeof(*cd));
	cd->look = look;
	cd->failed = fail;
	cd->arg = arg;
	cd->use_one_in = 1;
	file_start(&cd->run, "run");
	file_start(&cd->cut, "cut");
	cd->base = calloc(1, BYTES);
	cd->disk = calloc(1, BYTES);
	assert_true(cd->base && cd->disk);
	rc = store_format(cd->run.path, &how, &err);
	if (rc)
		failed(cd, "store_format: %s (%s)", strerror(-rc), err.text);
	run_open(cd);
}

void cutdisk_stop(struct cutdisk *cd)
{
	if (cd->fs)
		cutdisk_end(cd);
	free(cd->writes);
	free(cd->seen);
	free(cd->base);
	free(cd->disk);
	file_stop(&cd->run);
	file_stop(&cd->cut);
}
