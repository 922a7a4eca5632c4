/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the memory of a view and the pages of its file.
 *
 * Writers do not stop for it.  For a ring (pmfs/ring.h) the copy all the same has whole messages in
 * order: its first page goes last, with the positions that the protocol of copying gives.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/log.h"
#include "pmfs/ring.h"
#include "store/store.h"
#include "view/view_impl.h"

#define PAGE	    PMFS_PAGE_SIZE
#define CHUNK_PAGES 256u
#define CHUNK	    (CHUNK_PAGES * PAGE)

/* ------------------------------------------------------------------ loading */

static int load_range(struct view *v, uint64_t off, uint64_t end, uint8_t *buf)
{
	uint64_t reserved;
	int rc;

	rc = mem_charge(&v->vs->mm, v->fd, off, end - off, &reserved);
	if (rc)
		return rc;
	while (off < end && !rc) {
		ssize_t n = fs_read(v->vs->fs, v->id, off, buf, MIN(end - off, (uint64_t)CHUNK));

		if (n > 0) {
			n = pwrite(v->fd, buf, (size_t)n, (off_t)off);
			if (n < 0)
				n = -errno;
		}
		if (n <= 0)
			rc = n ? (int)n : -EIO;
		else
			off += (uint64_t)n;
	}
	mem_settle(&v->vs->mm, v->fd, reserved, &v->blocks);
	return rc;
}

int view_load(struct view *v)
{
	struct fs *fs = v->vs->fs;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}};
	uint8_t *buf = malloc(CHUNK);
	uint64_t off = 0, end;
	struct fs_attr a;
	int rc;

	if (!buf)
		return -ENOMEM;
	rc = fs_getattr(fs, v->id, &a);
	if (!rc && !S_ISREG(a.mode))
		rc = -EINVAL;
	if (!rc && a.size > INT64_MAX)
		rc = -EFBIG;
	if (!rc && ftruncate(v->fd, (off_t)a.size))
		rc = -errno;
	while (!rc && off < a.size) {
		rc = fs_seek(fs, v->id, off, true, &off);
		if (!rc)
			rc = fs_seek(fs, v->id, off, false, &end);
		if (!rc) {
			rc = load_range(v, off, end, buf);
			off = end;
		}
	}
	if (rc == -ENXIO)
		rc = 0;
	ts[1] = a.mtime;
	if (!rc && futimens(v->fd, ts))
		rc = -errno;
	v->changeable = false;
	free(buf);
	return rc;
}

/* ------------------------------------------------------------------ saving */

struct save {
	struct view *v;
	struct fs *fs;
	uint64_t size;	     /* of the memory */
	uint64_t old_size;   /* of the file */
	const uint8_t *look; /* the memory, up to look_end; NULL: by read(2) */
	uint64_t look_end;
	uint8_t *buf; /* CHUNK bytes */
	uint64_t pages;	   /* written */
	bool changed;
};

/* Windows of small views are not worth growing. */
#define SPAN_MIN (UINT64_C(64) << 20)

static struct region *region_of(const struct view *v)
{
	return store_region(fs_store(v->vs->fs));
}

int view_open_window(struct view *v, uint64_t size)
{
	int rc;

	if (v->window && size > v->window->span) {
		region_window_close(region_of(v), v->window);
		v->window = NULL;
	}
	if (v->window)
		return region_window_extend(v->window, v->fd, size);
	rc = region_window_open(region_of(v), v->fd, size, MAX(SPAN_MIN, 2 * size), &v->window);
	return rc == -ENOSPC && size > SPAN_MIN
		       ? region_window_open(region_of(v), v->fd, size, size, &v->window)
		       : rc;
}

struct comparison {
	const uint8_t *mem; /* len bytes */
	size_t at, len;
	const struct iovec *iov; /* the file's, from `at` on; none: zeros */
	int count;
	uint64_t *differs; /* a bit per page, from mem on */
};

static void compare_some(void *arg)
{
	struct comparison *cmp = arg;
	size_t at = cmp->at;

	for (int i = 0; i < cmp->count; i++) {
		const uint8_t *with = cmp->iov[i].iov_base;

		for (size_t done = 0, k; done < cmp->iov[i].iov_len; done += k, at += k) {
			k = MIN(cmp->iov[i].iov_len - done, PAGE - at % PAGE);
			if (!bit_test(cmp->differs, at / PAGE) &&
			    memcmp(cmp->mem + at, with + done, k))
				bit_set(cmp->differs, at / PAGE);
		}
	}
	for (size_t k; !cmp->count && at < cmp->len; at += k) {
		k = MIN(cmp->len - at, PAGE - at % PAGE);
		if (!mem_is_zero(cmp->mem + at, k))
			bit_set(cmp->differs, at / PAGE);
	}
}

/* Which of the pages at mem differ from the file's?  Beyond its end it has zeros. */
static int compare(struct save *sv, uint64_t off, const uint8_t *mem, size_t len, uint64_t *differs)
{
	struct iovec iov[CHUNK_PAGES + 1];
	struct comparison cmp = {.mem = mem, .len = len, .iov = iov, .differs = differs};
	int rc = 0;

	memset(differs, 0, BITMAP_WORDS(CHUNK_PAGES) * sizeof(*differs));
	while (cmp.at < len && !rc && off + cmp.at < sv->old_size) {
		struct fs_read rd = {.iov = iov, .max = ARRAY_SIZE(iov)};
		const ssize_t n =
			fs_read_begin(sv->fs, sv->v->id, off + cmp.at, len - cmp.at, &rd);

		if (n < 0)
			return (int)n;
		cmp.count = n ? rd.count : 0;
		if (n)
			rc = region_look(compare_some, &cmp);
		fs_read_end(sv->fs, &rd);
		if (!n)
			break;
		cmp.at += (size_t)n;
	}
	cmp.count = 0;
	return rc ? rc : region_look(compare_some, &cmp);
}

struct copying {
	uint8_t *to;
	const uint8_t *from;
	size_t len;
};

static void copy_some(void *arg)
{
	const struct copying *c = arg;

	memcpy(c->to, c->from, c->len);
}

/* Write what differs of the bytes at mem, which is the buffer or in the window. */
static int put_chunk(struct save *sv, uint64_t off, const uint8_t *mem, size_t len)
{
	uint64_t differs[BITMAP_WORDS(CHUNK_PAGES)];
	const uint64_t pages = DIV_ROUND_UP(len, PAGE);
	uint64_t from, to;
	int rc = compare(sv, off, mem, len, differs);

	for (from = 0; !rc; from = to) {
		size_t at, n;
		ssize_t done = 0;

		from = bit_find_set(differs, pages, from);
		if (from >= pages)
			break;
		to = bit_find_zero(differs, pages, from);
		at = from * PAGE;
		n = MIN(to * PAGE, len) - at;
		if (mem != sv->buf) {
			struct copying c = {.to = sv->buf + at, .from = mem + at, .len = n};

			rc = region_look(copy_some, &c);
			if (rc)
				break;
		}
		while (n && done >= 0) {
			done = fs_write(sv->fs, sv->v->id, off + at, sv->buf + at, n, 0);
			if (done > 0) {
				at += (size_t)done;
				n -= (size_t)done;
			}
		}
		if (done < 0)
			rc = (int)done;
		sv->changed = true;
		sv->pages += to - from;
	}
	return rc;
}

static int save_data(struct save *sv, uint64_t off, uint64_t end)
{
	int rc = 0;

	while (off < end && !rc) {
		const uint64_t stop = MIN(end, ALIGN_DOWN(off, (uint64_t)CHUNK) + CHUNK);
		ssize_t n;

		if (stop <= sv->look_end) {
			rc = put_chunk(sv, off, sv->look + off, stop - off);
			off = stop;
			continue;
		}
		n = pread(sv->v->fd, sv->buf, stop - off, (off_t)off);

		/* Nobody but us makes it shorter. */
		if (n != (ssize_t)(stop - off))
			return n < 0 ? -errno : -EIO;
		rc = put_chunk(sv, off, sv->buf, (size_t)n);
		off = stop;
	}
	return rc;
}

/* There is no memory here: nor is there to be a page. */
static int save_hole(struct save *sv, uint64_t off, uint64_t end)
{
	uint64_t at;
	int rc;

	end = MIN(end, sv->old_size);
	if (off >= end)
		return 0;
	rc = fs_seek(sv->fs, sv->v->id, off, true, &at);
	if (rc)
		return rc == -ENXIO ? 0 : rc;
	if (at >= end)
		return 0;
	sv->changed = true;
	return fs_fallocate(sv->fs, sv->v->id, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
			    end - at);
}

static int save_range(struct save *sv, uint64_t off, uint64_t end)
{
	const int fd = sv->v->fd;
	int rc = 0;

	while (off < end && !rc) {
		off_t data = lseek(fd, (off_t)off, SEEK_DATA), hole;

		if (data < 0 && errno != ENXIO)
			return -errno;
		if (data < 0 || (uint64_t)data >= end)
			return save_hole(sv, off, end);
		if ((uint64_t)data > off)
			rc = save_hole(sv, off, (uint64_t)data);
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if (!rc)
			rc = save_data(sv, (uint64_t)data, MIN((uint64_t)hole, end));
		off = (uint64_t)hole;
	}
	return rc;
}

/* Is it a ring all of which can be looked at? */
static bool is_ring(const struct save *sv, const struct stat *st)
{
	uint64_t magic;

	return sv->size >= PMFS_RING_HEADER_BYTES && sv->size <= sv->look_end &&
	       (uint64_t)st->st_blocks * 512 >= sv->size &&
	       pread(sv->v->fd, &magic, sizeof(magic), 0) == sizeof(magic) &&
	       magic == PMFS_RING_MAGIC;
}

struct ring_copy {
	const struct save *sv;
	uint64_t done;
};

static void ring_begin(void *arg)
{
	struct ring_copy *rc = arg;

	rc->done = pmfs_ring_copy_begin(rc->sv->look, rc->sv->size);
}

static void ring_end(void *arg)
{
	const struct ring_copy *rc = arg;

	memcpy(rc->sv->buf, rc->sv->look, PMFS_RING_HEADER_BYTES);
	pmfs_ring_copy_end(rc->sv->look, rc->sv->buf, rc->sv->size, rc->done);
}

static int save_ring(struct save *sv)
{
	struct ring_copy copy = {.sv = sv};
	int rc = region_look(ring_begin, &copy);

	if (!rc)
		rc = save_range(sv, PMFS_RING_HEADER_BYTES, sv->size);
	if (!rc)
		rc = region_look(ring_end, &copy);
	return rc ? rc : put_chunk(sv, 0, sv->buf, PMFS_RING_HEADER_BYTES);
}

/* Size and times; what was written has moved these on. */
static int save_attr(struct save *sv, const struct fs_attr *was, const struct stat *st)
{
	struct fs_setattr set = {.size = sv->size, .mtime = st->st_mtim, .ctime = was->ctime};
	const bool moved = st->st_mtim.tv_sec != was->mtime.tv_sec ||
			   st->st_mtim.tv_nsec != was->mtime.tv_nsec;
	struct fs_attr now;
	int rc;

	rc = fs_getattr(sv->fs, sv->v->id, &now);
	if (!rc && now.size != sv->size) {
		sv->changed = true;
		rc = fs_setattr(sv->fs, sv->v->id, FS_SET_SIZE, &set, NULL);
	}
	if (rc || !(sv->changed || moved))
		return rc;
	sv->changed = true;
	if (set.mtime.tv_sec > set.ctime.tv_sec ||
	    (set.mtime.tv_sec == set.ctime.tv_sec && set.mtime.tv_nsec > set.ctime.tv_nsec))
		set.ctime = set.mtime;
	return fs_setattr(sv->fs, sv->v->id, FS_SET_MTIME | FS_SET_CTIME, &set, NULL);
}

static int save_locked(struct save *sv)
{
	struct fs_setattr shorter = {0};
	struct fs_attr was;
	struct stat st;
	int rc;

	rc = fs_getattr(sv->fs, sv->v->id, &was);
	/* Without a name nothing will ever be read from it again. */
	if (rc || !was.nlink)
		return rc;
	if (fstat(sv->v->fd, &st))
		return -errno;
	sv->size = (uint64_t)st.st_size;
	sv->old_size = was.size;
	if (sv->size < sv->old_size) {
		shorter.size = sv->size;
		sv->changed = true;
		rc = fs_setattr(sv->fs, sv->v->id, FS_SET_SIZE, &shorter, NULL);
		if (rc)
			return rc;
		sv->old_size = sv->size;
	}
	rc = view_open_window(sv->v, sv->size);
	if (rc) {
		log_debug("a view of %llu bytes is saved without a window: %s",
			  (unsigned long long)sv->size, strerror(-rc));
	} else {
		sv->look = sv->v->window->at;
		sv->look_end = atomic_load(&sv->v->window->mapped);
	}
	rc = is_ring(sv, &st) ? save_ring(sv) : save_range(sv, 0, sv->size);
	return rc ? rc : save_attr(sv, &was, &st);
}

int view_save(struct view *v)
{
	struct save sv = {.v = v, .fs = v->vs->fs};
	int rc = 0;

	mutex_lock(&v->lock);
	if (v->fd >= 0 && v->changeable) {
		sv.buf = malloc(CHUNK);
		rc = sv.buf ? save_locked(&sv) : -ENOMEM;
		free(sv.buf);
	}
	mutex_unlock(&v->lock);
	atomic_fetch_add(&v->vs->saved_pages, sv.pages);
	return rc ? rc : sv.changed;
}
