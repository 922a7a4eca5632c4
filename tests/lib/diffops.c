/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/diffops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PAGE	INT64_C(4096)
#define USER_ID 1000u
#define IO_MAX	INT64_C(131072)
/* Offsets are drawn below FILE_SPAN, and now and then from FAR on, past 4 GiB. */
#define FILE_SPAN INT64_C(400000)
#define FAR	  (INT64_C(5) << 30)
/* Of a file that is longer, two pieces of this length are compared: its begin and what is at FAR. */
#define LOOK_BYTES (INT64_C(2) << 20)
#define LOOSE_MAX  1024u
#define PATH_NAMES 3u

struct mapping {
	uint8_t *at; /* NULL: not in use */
	size_t len;
	int64_t off;
	bool shared;
	bool writable;
	int fd;
};

struct loose {
	unsigned count;
	ino_t ino[LOOSE_MAX];
};

struct world {
	int top;
	unsigned features;
	int fd[DIFF_HANDLES];
	struct mapping map[DIFF_MAPS];
	struct timespec begin;
	struct loose times, holes;
	uint8_t *buf;  /* DIFF_DATA_BYTES, on a page boundary */
	uint8_t *text; /* the same, for what is put together out of `buf` */
};

/* ------------------------------------------------------------------ numbers */

uint64_t diff_random(uint64_t *state)
{
	uint64_t x = *state ? *state : UINT64_C(0x9e3779b97f4a7c15);

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

static int64_t below(uint64_t *state, int64_t n)
{
	return (int64_t)((diff_random(state) >> 11) % (uint64_t)n);
}

static bool chance(uint64_t *state, int percent)
{
	return below(state, 100) < percent;
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ byte[i]) * UINT64_C(0x100000001b3);
	return h;
}

static void fill(uint8_t *to, size_t len, int64_t value)
{
	uint64_t state = (uint64_t)value;

	if (!value) {
		memset(to, 0, len);
		return;
	}
	for (size_t i = 0; i < len; i++) {
		if (!(i & 7))
			diff_random(&state);
		to[i] = (uint8_t)(state >> (i & 7) * 8) | 1;
	}
}

/* ------------------------------------------------------------------ names */

enum {
	NAME_DIRS = 3,	 /* 1 to 3: d0 d1 d2 */
	NAME_FILES = 10, /* 4 to 10: f0 to f6 */
	NAME_LINKS = 12, /* 11 and 12: s0 s1 */
	NAME_LONG,
	NAME_TOO_LONG,
	NAME_BYTES,
	NAME_END,
};

/* `shown` is what a script has; the real ones may not fit there. */
static void name_of(unsigned n, bool shown, char name[NAME_MAX + 2])
{
	if (n <= NAME_DIRS)
		snprintf(name, NAME_MAX, "d%u", n - 1);
	else if (n <= NAME_FILES)
		snprintf(name, NAME_MAX, "f%u", n - 1 - NAME_DIRS);
	else if (n <= NAME_LINKS)
		snprintf(name, NAME_MAX, "s%u", n - 1 - NAME_FILES);
	else if (shown)
		strcpy(name, n == NAME_LONG ? "LONG" : n == NAME_TOO_LONG ? "TOOLONG" : "BYTES");
	else if (n == NAME_BYTES)
		strcpy(name, "\377\376 \t\n\201");
	else
		snprintf(name, NAME_MAX + 2, "%0*d", n == NAME_LONG ? NAME_MAX : NAME_MAX + 1, 0);
}

static void path_of(int64_t path, bool shown, char to[PATH_MAX])
{
	char name[NAME_MAX + 2];
	size_t len = 0;

	to[0] = '\0';
	for (uint64_t rest = (uint64_t)path & 0xffffff; rest; rest >>= 8) {
		name_of((unsigned)(rest & 0xff), shown, name);
		len += (size_t)snprintf(to + len, PATH_MAX - len, "%s%s", len ? "/" : "", name);
	}
}

static int64_t path_parse(const char *text)
{
	char name[NAME_MAX + 2];
	int64_t path = 0;

	for (unsigned i = 0; i < PATH_NAMES && *text; i++) {
		const size_t len = strcspn(text, "/");
		unsigned n;

		for (n = 1; n < NAME_END; n++) {
			name_of(n, true, name);
			if (strlen(name) == len && !memcmp(name, text, len))
				break;
		}
		if (n == NAME_END)
			return -1;
		path |= (int64_t)n << 8 * i;
		text += len + (text[len] == '/');
	}
	return *text ? -1 : path;
}

static int64_t draw_name(uint64_t *state, bool dir)
{
	if (chance(state, dir ? 90 : 8))
		return 1 + below(state, NAME_DIRS);
	if (chance(state, 85))
		return 1 + NAME_DIRS + below(state, NAME_FILES - NAME_DIRS);
	return 1 + NAME_FILES + below(state, NAME_END - 1 - NAME_FILES);
}

static int64_t draw_path(uint64_t *state, bool dir)
{
	const int64_t which = below(state, 100);
	const unsigned names = which < 45 ? 1 : which < 85 ? 2 : 3;
	int64_t path = 0;

	for (unsigned i = 0; i < names; i++)
		path |= draw_name(state, dir || i + 1 < names) << 8 * i;
	return path;
}

/* ------------------------------------------------------------------ outcomes */

static void fact(struct diff_outcome *o, const char *what, int64_t value)
{
	if (o->count < DIFF_FACTS)
		o->fact[o->count++] = (struct diff_fact){what, value};
}

static void text_add(struct diff_outcome *o, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void text_add(struct diff_outcome *o, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf((char *)o->data + o->len, DIFF_DATA_BYTES - o->len, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < DIFF_DATA_BYTES - o->len)
		o->len += (size_t)n;
}

/* What names look like in a line: one word, printable, the long ones cut. */
static void text_name(struct diff_outcome *o, const char *name)
{
	unsigned run = 0;

	for (const uint8_t *at = (const uint8_t *)name; *at; at++) {
		run = at[0] == '0' ? run + 1 : 0;
		if (run > 4 && at[1] == '0')
			continue;
		text_add(o, *at > ' ' && *at < 0x7f && *at != '\\' ? "%c" : "\\%03o", *at);
	}
}

static bool is_loose(const struct loose *l, ino_t ino)
{
	for (unsigned i = 0; i < l->count; i++) {
		if (l->ino[i] == ino)
			return true;
	}
	return false;
}

static void loosen(struct loose *l, int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && l->count < LOOSE_MAX && !is_loose(l, st.st_ino))
		l->ino[l->count++] = st.st_ino;
}

static bool is_now(const struct world *w, const struct timespec *t)
{
	/* The clock that files are stamped with is a tick behind. */
	return t->tv_sec >= w->begin.tv_sec - 2 && t->tv_sec < w->begin.tv_sec + 100000;
}

static int64_t time_value(const struct world *w, const struct timespec *t)
{
	/* Modulo 2^64: some of the times that are set are further away than 64 bits of nanoseconds. */
	const uint64_t ns = (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;

	return is_now(w, t) ? INT64_MAX : (int64_t)ns;
}

static bool time_is_loose(const struct world *w, const struct stat *st)
{
	/* FUSE kernels do not stamp what goes through a fifo. */
	return S_ISFIFO(st->st_mode) || is_loose(&w->times, st->st_ino);
}

/* A default access control list can leave setgid without group execution. */
static unsigned mode_of(const struct stat *st)
{
	const bool stale = S_ISREG(st->st_mode) && !(st->st_mode & S_IXGRP);

	return stale ? st->st_mode & ~(mode_t)S_ISGID : st->st_mode;
}

static void attributes(struct world *w, struct diff_outcome *o, const struct stat *st)
{
	fact(o, "mode", mode_of(st));
	fact(o, "links", (int64_t)st->st_nlink);
	fact(o, "owner", st->st_uid);
	fact(o, "group", st->st_gid);
	if (S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
		fact(o, "size", st->st_size);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		fact(o, "device", (int64_t)st->st_rdev);
	if (time_is_loose(w, st))
		o->loose_time = true;
	fact(o, "mtime", time_value(w, &st->st_mtim));
	fact(o, "ctime is now", is_now(w, &st->st_ctim));
}

static void path_facts(struct world *w, struct diff_outcome *o, int at, const char *path)
{
	struct stat st;

	if (fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW))
		fact(o, "lstat", -errno);
	else
		attributes(w, o, &st);
}

static void handle_facts(struct world *w, struct diff_outcome *o, int fd)
{
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st)) {
		fact(o, "fstat", -errno);
		return;
	}
	attributes(w, o, &st);
	if (S_ISREG(st.st_mode))
		fact(o, "position", lseek(fd, 0, SEEK_CUR));
	fact(o, "flags", fcntl(fd, F_GETFL));
}

/* ------------------------------------------------------------------ operations */

/* One operation as it runs. */
struct run {
	struct world *w;
	struct diff_outcome *o;
	const int64_t *f;
	int fd, fd2; /* of the handles; -1 when not open */
	int at;
	char path[PATH_MAX];
	char path2[PATH_MAX];
};

static bool is_direct(int fd)
{
	const int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_DIRECT);
}

/* ext4 wants sectors where others take any range.  False: an append would be none. */
static bool direct_range(int fd, int64_t *off, size_t *len)
{
	struct stat st;

	if (!is_direct(fd))
		return true;
	*off &= -PAGE;
	*len = (*len + PAGE - 1) & (size_t)-PAGE;
	return !(fcntl(fd, F_GETFL) & O_APPEND) || (!fstat(fd, &st) && st.st_size % PAGE == 0);
}

static long skipped(struct run *r)
{
	fact(r->o, "skipped", 1);
	return 0;
}

static size_t length(const struct run *r)
{
	return (size_t)(r->f[F_LEN] < IO_MAX ? r->f[F_LEN] : IO_MAX);
}

static void set_data(struct run *r, long n)
{
	if (n > 0) {
		r->o->data = r->w->buf;
		r->o->len = (size_t)n;
	}
}

static void set_handle(struct world *w, int64_t h, int fd)
{
	if (w->fd[h] >= 0)
		close(w->fd[h]);
	w->fd[h] = fd;
}

static long do_open(struct run *r)
{
	const int flags = (int)r->f[F_FLAGS] | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat st;
	int fd;

	/* A whiteout; whether the mount has devices is not the question here. */
	if (!fstatat(r->at, r->path, &st, 0) && S_ISCHR(st.st_mode))
		return skipped(r);
	fd = openat(r->at, r->path[0] ? r->path : ".", flags, (mode_t)r->f[F_MODE] & 07777);
	if (fd < 0)
		return -1;
	set_handle(r->w, r->f[F_H], fd);
	r->fd = fd;
	return 0;
}

static long do_close(struct run *r)
{
	const long rc = close(r->fd);

	r->w->fd[r->f[F_H]] = -1;
	r->fd = -1;
	return rc;
}

static long do_dup(struct run *r)
{
	const int fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return -1;
	set_handle(r->w, r->f[F_H2], fd);
	r->fd2 = fd;
	if (r->f[F_H] == r->f[F_H2])
		r->fd = fd;
	return 0;
}

static long do_setfl(struct run *r)
{
	return fcntl(r->fd, F_SETFL, (int)r->f[F_FLAGS] | O_NONBLOCK);
}

static long do_read(struct run *r)
{
	int64_t pos = lseek(r->fd, 0, SEEK_CUR);
	size_t len = length(r);
	long n;

	if (is_direct(r->fd) && pos % PAGE)
		return skipped(r);
	direct_range(r->fd, &pos, &len);
	n = read(r->fd, r->w->buf, len);
	set_data(r, n);
	return n;
}

static long do_pread(struct run *r)
{
	int64_t off = r->f[F_OFF];
	size_t len = length(r);
	long n;

	direct_range(r->fd, &off, &len);
	n = pread(r->fd, r->w->buf, len, off);
	set_data(r, n);
	return n;
}

static long do_preadv(struct run *r)
{
	const size_t len = length(r);
	const size_t first = len / 3, second = len - first;
	const struct iovec iov[2] = {{r->w->buf, first}, {r->w->buf + first, second}};
	long n;

	if (is_direct(r->fd))
		return skipped(r);
	n = preadv(r->fd, iov, 2, r->f[F_OFF]);
	set_data(r, n);
	return n;
}

static void wrote(struct run *r, int fd)
{
	if (!r->f[F_VALUE])
		loosen(&r->w->holes, fd);
}

static long do_write(struct run *r)
{
	int64_t pos = lseek(r->fd, 0, SEEK_CUR);
	size_t len = length(r);

	if ((is_direct(r->fd) && pos % PAGE) || !direct_range(r->fd, &pos, &len))
		return skipped(r);
	fill(r->w->buf, len, r->f[F_VALUE]);
	wrote(r, r->fd);
	return write(r->fd, r->w->buf, len);
}

static long do_pwrite(struct run *r)
{
	int64_t off = r->f[F_OFF];
	size_t len = length(r);

	if (!direct_range(r->fd, &off, &len))
		return skipped(r);
	fill(r->w->buf, len, r->f[F_VALUE]);
	wrote(r, r->fd);
	return pwrite(r->fd, r->w->buf, len, off);
}

static long do_pwritev2(struct run *r)
{
	const size_t len = length(r);
	const size_t first = len / 3, second = len - first;
	const struct iovec iov[2] = {{r->w->buf, first}, {r->w->buf + first, second}};

	if (is_direct(r->fd))
		return skipped(r);
	fill(r->w->buf, len, r->f[F_VALUE]);
	wrote(r, r->fd);
	return pwritev2(r->fd, iov, 2, r->f[F_OFF], (int)r->f[F_FLAGS]);
}

static long do_lseek(struct run *r)
{
	struct stat st;

	/* Where a directory can be sought to is its own affair. */
	if (!fstat(r->fd, &st) && S_ISDIR(st.st_mode))
		return skipped(r);
	return lseek(r->fd, r->f[F_OFF], (int)r->f[F_FLAGS]);
}

/* The contents of a short file may be in one piece with its inode: all of them are data. */
static void truncated(struct run *r, int fd)
{
	if (r->f[F_OFF] < PAGE && fd >= 0)
		loosen(&r->w->holes, fd);
}

static long do_ftruncate(struct run *r)
{
	truncated(r, r->fd);
	return ftruncate(r->fd, r->f[F_OFF]);
}

/* The name of a path for calls that know no "at"; PATH_MAX bytes. */
static void through_proc(const struct run *r, char *name)
{
	snprintf(name, PATH_MAX, "/proc/self/fd/%d/%.3000s", r->at, r->path);
}

static long do_truncate(struct run *r)
{
	struct stat st = {0};
	char name[PATH_MAX];

	/* Is that a change, and its time one of now?  It is for ext4. */
	if (!fstatat(r->at, r->path, &st, 0) && S_ISREG(st.st_mode) && st.st_size == r->f[F_OFF])
		return skipped(r);
	through_proc(r, name);
	if (r->f[F_OFF] < PAGE && S_ISREG(st.st_mode)) {
		const int fd = openat(r->at, r->path, O_PATH | O_CLOEXEC);

		truncated(r, fd);
		if (fd >= 0)
			close(fd);
	}
	return truncate(name, r->f[F_OFF]);
}

static long do_fallocate(struct run *r)
{
	const int mode = (int)r->f[F_FLAGS];
	int64_t off = r->f[F_OFF], len = r->f[F_LEN];

	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) {
		off &= -PAGE;
		len = (len + PAGE - 1) & -PAGE;
	}
	loosen(&r->w->holes, r->fd);
	return fallocate(r->fd, mode, off, len);
}

static bool all_zero(int fd, int64_t off, int64_t end, uint8_t *buf)
{
	while (off < end) {
		const int64_t step = end - off < IO_MAX ? end - off : IO_MAX;
		const ssize_t n = pread(fd, buf, (size_t)step, off);

		if (n <= 0)
			return n == 0;
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i])
				return false;
		}
		off += n;
	}
	return true;
}

/*
 * Adds where the data is, if that is to be equal, and that holes read as zero (the first LOOK_BYTES
 * of each), and that data and holes take turns and end at the end of the file.
 */
static void extents(struct world *w, struct diff_outcome *o, int fd, bool loose)
{
	const int64_t size = lseek(fd, 0, SEEK_END);
	int64_t at = 0, data, hole;
	uint64_t h = 1;
	bool zero = true;

	/* The kernel asks FUSE daemons for holes without giving them what is in dirty mappings. */
	if (loose)
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT);
	while (at < size) {
		data = lseek(fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			data = size;
		if (data < at || data > size) {
			fact(o, "data before what was asked for", 1);
			break;
		}
		zero = zero && all_zero(fd, at, data - at > LOOK_BYTES ? at + LOOK_BYTES : data, w->buf);
		if (data == size)
			break;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data || hole > size) {
			fact(o, "no hole after data", hole);
			break;
		}
		h = hash_bytes(h, &data, sizeof(data));
		h = hash_bytes(h, &hole, sizeof(hole));
		at = hole;
	}
	fact(o, "holes are zero", zero);
	fact(o, "data beyond the end", lseek(fd, size, SEEK_DATA) < 0 ? -errno : 0);
	if (loose)
		o->loose_holes = true;
	fact(o, "extents", (int64_t)(h & INT64_MAX));
}

static long do_extents(struct run *r)
{
	int64_t pos;
	struct stat st;

	if (fstat(r->fd, &st))
		return -1;
	if (!S_ISREG(st.st_mode) || (fcntl(r->fd, F_GETFL) & O_ACCMODE) == O_WRONLY ||
	    (fcntl(r->fd, F_GETFL) & (O_PATH | O_DIRECT)))
		return skipped(r);
	pos = lseek(r->fd, 0, SEEK_CUR);
	extents(r->w, r->o, r->fd, is_loose(&r->w->holes, st.st_ino));
	return lseek(r->fd, pos, SEEK_SET);
}

/* Until nothing is left or nothing moves: how much one call does is not promised. */
static long move(struct run *r, ssize_t (*step)(struct run *, off_t *, off_t *, size_t))
{
	off_t from = r->f[F_OFF], to = r->f[F_OFF2];
	size_t left = length(r), all = left;

	if (is_direct(r->fd) || is_direct(r->fd2))
		return skipped(r);
	loosen(&r->w->holes, r->fd2);
	while (left) {
		const ssize_t n = step(r, &from, &to, left);

		if (n < 0 && left == all)
			return -1;
		if (n < 0)
			fact(r->o, "errno after a part", errno);
		if (n <= 0)
			break;
		left -= (size_t)n;
	}
	return (long)(all - left);
}

static ssize_t step_copy(struct run *r, off_t *from, off_t *to, size_t len)
{
	return copy_file_range(r->fd, from, r->fd2, to, len, 0);
}

static ssize_t step_sendfile(struct run *r, off_t *from, off_t *to, size_t len)
{
	(void)to;
	return sendfile(r->fd2, r->fd, from, len);
}

static long do_copy(struct run *r)
{
	return move(r, step_copy);
}

static long do_sendfile(struct run *r)
{
	struct stat a, b;

	/* Pages go by reference: within a file the one that is read may be the one that is written,
	 * in a fifo it may still change. */
	if (!fstat(r->fd, &a) && !fstat(r->fd2, &b) &&
	    (a.st_ino == b.st_ino || S_ISFIFO(b.st_mode)))
		return skipped(r);
	return move(r, step_sendfile);
}

static long do_sync(struct run *r)
{
	return r->f[F_VALUE] & 1 ? fdatasync(r->fd) : fsync(r->fd);
}

/* ------------------------------------------------------------------ mappings */

static _Thread_local sigjmp_buf no_page;
static _Thread_local volatile sig_atomic_t touching;

static void on_bus(int sig)
{
	if (!touching) {
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(no_page, 1);
}

static void map_drop(struct mapping *m)
{
	if (m->at) {
		munmap(m->at, m->len);
		close(m->fd);
	}
	*m = (struct mapping){.fd = -1};
}

static struct mapping *map_of(const struct run *r)
{
	return &r->w->map[r->f[F_H2] % DIFF_MAPS];
}

static long do_mmap(struct run *r)
{
	struct mapping *m = map_of(r);
	const int64_t off = r->f[F_OFF] & -PAGE;
	const size_t len = length(r);
	const int prot = r->f[F_VALUE] & 1 ? PROT_READ | PROT_WRITE : PROT_READ;
	void *at;

	at = mmap(NULL, len, prot, (int)r->f[F_FLAGS], r->fd, off);
	if (at == MAP_FAILED)
		return -1;
	/* tmpfs fills the holes that are looked at through a mapping. */
	loosen(&r->w->holes, r->fd);
	map_drop(m);
	m->at = at;
	m->len = len;
	m->off = off;
	m->shared = r->f[F_FLAGS] & MAP_SHARED;
	m->writable = prot & PROT_WRITE;
	m->fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 3);
	return 0;
}

static long do_munmap(struct run *r)
{
	map_drop(map_of(r));
	return 0;
}

/* The part [begin, end) of the mapping that the operation means and the file has; empty if none. */
static void map_range(const struct run *r, const struct mapping *m, size_t *begin, size_t *end)
{
	struct stat st;
	int64_t limit;

	*begin = *end = 0;
	if (!m->at || fstat(m->fd, &st) || st.st_size <= m->off)
		return;
	limit = st.st_size - m->off;
	if (limit > (int64_t)m->len)
		limit = (int64_t)m->len;
	*begin = (size_t)(r->f[F_OFF] % limit);
	*end = *begin + length(r);
	if (*end > (size_t)limit)
		*end = (size_t)limit;
}

static long touch(struct run *r, struct mapping *m, size_t begin, size_t end, bool store)
{
	touching = 1;
	if (sigsetjmp(no_page, 1)) {
		touching = 0;
		errno = EFAULT;
		return -1;
	}
	if (store)
		fill(m->at + begin, end - begin, r->f[F_VALUE]);
	else
		memcpy(r->w->buf, m->at + begin, end - begin);
	touching = 0;
	return (long)(end - begin);
}

static long do_load(struct run *r)
{
	struct mapping *m = map_of(r);
	size_t begin, end;
	long n;

	map_range(r, m, &begin, &end);
	if (begin == end)
		return skipped(r);
	n = touch(r, m, begin, end, false);
	set_data(r, n);
	return n;
}

static long do_store(struct run *r)
{
	struct mapping *m = map_of(r);
	size_t begin, end;

	map_range(r, m, &begin, &end);
	if (begin == end || !m->writable)
		return skipped(r);
	if (m->shared) {
		/* tmpfs does not stamp what is stored, others stamp it when it is written back. */
		loosen(&r->w->times, m->fd);
		loosen(&r->w->holes, m->fd);
	}
	return touch(r, m, begin, end, true);
}

/* One byte anywhere in the mapping, also past the end of the file. */
static long do_peek(struct run *r)
{
	struct mapping *m = map_of(r);
	size_t at;
	long n;

	if (!m->at)
		return skipped(r);
	at = (size_t)r->f[F_OFF] % m->len;
	n = touch(r, m, at, at + 1, false);
	set_data(r, n);
	return n;
}

static long do_msync(struct run *r)
{
	struct mapping *m = map_of(r);

	if (!m->at)
		return skipped(r);
	return msync(m->at, m->len, MS_SYNC);
}

/* ------------------------------------------------------------------ names and attributes */

static long do_mkdir(struct run *r)
{
	return mkdirat(r->at, r->path, (mode_t)r->f[F_MODE]);
}

static long do_rmdir(struct run *r)
{
	return unlinkat(r->at, r->path, AT_REMOVEDIR);
}

static long do_unlink(struct run *r)
{
	return unlinkat(r->at, r->path, 0);
}

static long do_link(struct run *r)
{
	return linkat(r->at, r->path, r->at, r->path2, (int)r->f[F_FLAGS]);
}

static long do_link_handle(struct run *r)
{
	char name[64];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", r->fd);
	return linkat(AT_FDCWD, name, r->at, r->path, AT_SYMLINK_FOLLOW);
}

static long do_symlink(struct run *r)
{
	return symlinkat(r->path2, r->at, r->path);
}

static long do_readlink(struct run *r)
{
	const long n = readlinkat(r->at, r->path, (char *)r->w->buf, PATH_MAX);

	set_data(r, n);
	return n;
}

static long do_rename(struct run *r)
{
	return renameat2(r->at, r->path, r->at, r->path2, (unsigned)r->f[F_FLAGS]);
}

static long do_mknod(struct run *r)
{
	return mknodat(r->at, r->path, (mode_t)r->f[F_MODE], 0);
}

static long do_stat(struct run *r)
{
	struct stat st;

	if (fstatat(r->at, r->path, &st, 0))
		return -1;
	attributes(r->w, r->o, &st);
	return 0;
}

static long do_access(struct run *r)
{
	return faccessat(r->at, r->path, (int)r->f[F_FLAGS], AT_EACCESS);
}

static long do_chmod(struct run *r)
{
	return fchmodat(r->at, r->path, (mode_t)r->f[F_MODE], 0);
}

static long do_fchmod(struct run *r)
{
	return fchmod(r->fd, (mode_t)r->f[F_MODE]);
}

static unsigned owner_of(int64_t value)
{
	static const unsigned id[] = {0, USER_ID, 2000, UINT_MAX};

	return id[value & 3];
}

/* A change of neither owner nor group, which on some filesystems still clears setuid, or fails. */
static bool no_owner(const struct run *r)
{
	return (r->f[F_VALUE] & 15) == 15;
}

static long do_chown(struct run *r)
{
	if (no_owner(r))
		return skipped(r);
	return fchownat(r->at, r->path, owner_of(r->f[F_VALUE]), owner_of(r->f[F_VALUE] >> 2),
			(int)r->f[F_FLAGS]);
}

static long do_fchown(struct run *r)
{
	if (no_owner(r))
		return skipped(r);
	return fchown(r->fd, owner_of(r->f[F_VALUE]), owner_of(r->f[F_VALUE] >> 2));
}

/* From 1901 to 2446; never near now. */
static struct timespec time_of(int64_t value)
{
	static const int64_t second[] = {0,	     -1,	  -2147483647, 2147483647,
					 2147483648, 15032385534, 1000000000,  4102444800};
	static const long ns[] = {0, 1, 999999999, 123456789};

	switch (value & 15) {
	case 14:
		return (struct timespec){0, UTIME_NOW};
	case 15:
		return (struct timespec){0, UTIME_OMIT};
	default:
		return (struct timespec){second[value & 7], ns[value >> 4 & 3]};
	}
}

static long do_utimens(struct run *r)
{
	const struct timespec t[2] = {time_of(r->f[F_VALUE]), time_of(r->f[F_VALUE] >> 8)};

	return utimensat(r->at, r->path, t, (int)r->f[F_FLAGS]);
}

static long do_futimens(struct run *r)
{
	const struct timespec t[2] = {time_of(r->f[F_VALUE]), time_of(r->f[F_VALUE] >> 8)};

	return futimens(r->fd, t);
}

static const char *attribute_of(int64_t value)
{
	static const char *const name[] = {"user.a", "user.b", "user.a longer name than the others",
					   "trusted.t"};

	return name[value & 3];
}

static size_t attribute_len(const struct run *r)
{
	return (size_t)(r->f[F_LEN] % (r->f[F_VALUE] & 16 ? 1500 : 60));
}

static long do_setxattr(struct run *r)
{
	const size_t len = attribute_len(r);
	char name[PATH_MAX];

	through_proc(r, name);
	fill(r->w->buf, len, r->f[F_VALUE]);
	return lsetxattr(name, attribute_of(r->f[F_VALUE]), r->w->buf, len, (int)r->f[F_FLAGS]);
}

static long do_fsetxattr(struct run *r)
{
	const size_t len = attribute_len(r);

	fill(r->w->buf, len, r->f[F_VALUE]);
	return fsetxattr(r->fd, attribute_of(r->f[F_VALUE]), r->w->buf, len, (int)r->f[F_FLAGS]);
}

static long do_getxattr(struct run *r)
{
	char name[PATH_MAX];
	long n;

	through_proc(r, name);
	n = lgetxattr(name, attribute_of(r->f[F_VALUE]), r->w->buf,
		      r->f[F_LEN] & 1 ? (size_t)r->f[F_LEN] % 40 : 2000);
	if ((r->f[F_LEN] & 1 ? r->f[F_LEN] % 40 : 2000) > 0)
		set_data(r, n);
	return n;
}

static long do_removexattr(struct run *r)
{
	char name[PATH_MAX];

	through_proc(r, name);
	return lremovexattr(name, attribute_of(r->f[F_VALUE]));
}

/* The names in a list that strings end in, in order, with those of security modules left out. */
static void sorted_names(struct diff_outcome *o, char *list, size_t len)
{
	const char *name[256];
	unsigned count = 0;

	for (char *at = list; at < list + len && count < 256; at += strlen(at) + 1) {
		unsigned i = count;

		if (!strncmp(at, "security.", 9))
			continue;
		for (; i && strcmp(name[i - 1], at) > 0; i--)
			name[i] = name[i - 1];
		name[i] = at;
		count++;
	}
	for (unsigned i = 0; i < count; i++) {
		text_name(o, name[i]);
		text_add(o, "\n");
	}
}

static long do_listxattr(struct run *r)
{
	char name[PATH_MAX];
	long n;

	through_proc(r, name);
	n = llistxattr(name, (char *)r->w->buf, 4096);
	if (n < 0)
		return n;
	r->o->data = r->w->text;
	sorted_names(r->o, (char *)r->w->buf, (size_t)n);
	return 0;
}

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

static long do_setacl(struct run *r)
{
	const char *const which = r->f[F_VALUE] & 1 ? "system.posix_acl_default"
						    : "system.posix_acl_access";
	const unsigned bits = (unsigned)r->f[F_VALUE] >> 1;
	const struct {
		uint32_t version;
		struct acl_entry entry[5];
	} acl = {2,
		 {{0x01, bits & 7, UINT32_MAX},
		  {0x02, bits >> 3 & 7, USER_ID},
		  {0x04, bits >> 6 & 7, UINT32_MAX},
		  {0x10, bits >> 9 & 7, UINT32_MAX},
		  {0x20, bits >> 12 & 7, UINT32_MAX}}};
	char name[PATH_MAX];

	through_proc(r, name);
	if (r->f[F_LEN] % 5 == 0)
		return removexattr(name, which);
	return setxattr(name, which, &acl, sizeof(acl), 0);
}

static long do_getacl(struct run *r)
{
	char name[PATH_MAX];
	long n;

	through_proc(r, name);
	n = getxattr(name,
		     r->f[F_VALUE] & 1 ? "system.posix_acl_default" : "system.posix_acl_access",
		     r->w->buf, 2000);
	set_data(r, n);
	return n;
}

struct dirent64_record {
	uint64_t ino;
	int64_t off;
	uint16_t len;
	uint8_t type;
	char name[];
};

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_typed(const void *a, const void *b)
{
	/* The first byte is the type. */
	return strcmp(*(char *const *)a + 1, *(char *const *)b + 1);
}

/* Reads all of the directory with a buffer of `step` bytes: a word and a letter for each name. */
static long list(struct diff_outcome *o, int fd, size_t step)
{
	static const char letter[16] = "?pc?d?b?-?l?s???";
	union {
		struct dirent64_record rec;
		char byte[4096];
	} buf;
	char **name = NULL;
	size_t count = 0, room = 0;
	long rc = 0;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return -1;
	for (;;) {
		const long n = syscall(SYS_getdents64, fd, &buf, step);

		if (n <= 0) {
			rc = n;
			break;
		}
		for (long at = 0; at < n;) {
			const struct dirent64_record *e = (const void *)(buf.byte + at);
			char *copy;

			if (count == room) {
				room = room ? 2 * room : 32;
				name = realloc(name, room * sizeof(*name));
			}
			copy = malloc(strlen(e->name) + 2);
			if (!name || !copy)
				abort();
			copy[0] = letter[e->type & 15];
			strcpy(copy + 1, e->name);
			name[count++] = copy;
			at += e->len;
		}
	}
	if (count)
		qsort(name, count, sizeof(*name), compare_typed);
	for (size_t i = 0; i < count; i++) {
		text_name(o, name[i] + 1);
		text_add(o, " %c\n", name[i][0]);
		free(name[i]);
	}
	free(name);
	return rc;
}

static long do_list(struct run *r)
{
	const int fd = openat(r->at, r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long rc;
	int err;

	if (fd < 0)
		return -1;
	r->o->data = r->w->text;
	rc = list(r->o, fd, 300 + (size_t)(r->f[F_LEN] % 3000));
	err = errno;
	close(fd);
	errno = err;
	return rc;
}

static long do_list_handle(struct run *r)
{
	struct stat st;
	long rc;

	if (fstat(r->fd, &st))
		return -1;
	/* What is left in a removed directory that is open differs: tmpfs says nothing, others ENOENT. */
	if (!S_ISDIR(st.st_mode) || !st.st_nlink)
		return skipped(r);
	r->o->data = r->w->text;
	rc = list(r->o, r->fd, 300 + (size_t)(r->f[F_LEN] % 3000));
	/* Positions in a directory mean something different to each. */
	lseek(r->fd, 0, SEEK_SET);
	return rc;
}

static long do_statfs(struct run *r)
{
	struct statvfs s;

	if (fstatvfs(r->w->top, &s))
		return -1;
	fact(r->o, "longest name", (int64_t)s.f_namemax);
	fact(r->o, "sizes make sense",
	     s.f_bsize && s.f_frsize && s.f_bfree <= s.f_blocks && s.f_bavail <= s.f_bfree);
	return 0;
}

static long do_flock(struct run *r)
{
	return flock(r->fd, (int)r->f[F_FLAGS] | LOCK_NB);
}

static long do_lock_range(struct run *r)
{
	struct flock l = {
		.l_type = (short)(r->f[F_VALUE] % 3),
		.l_whence = SEEK_SET,
		.l_start = r->f[F_OFF] % 1000,
		.l_len = r->f[F_LEN] % 1000,
	};
	const bool ask = r->f[F_FLAGS] & 1;
	const int rc = fcntl(r->fd, ask ? F_OFD_GETLK : F_OFD_SETLK, &l);

	if (!rc && ask) {
		fact(r->o, "lock type", l.l_type);
		if (l.l_type != F_UNLCK) {
			fact(r->o, "lock start", l.l_start);
			fact(r->o, "lock length", l.l_len);
		}
	}
	return rc;
}

/* ------------------------------------------------------------------ the table */

#define B(field) (1u << (field))

static const struct kind {
	const char *name;
	int weight;
	unsigned fields; /* what is drawn */
	long (*run)(struct run *r);
} kinds[] = {
	{"open", 90, B(F_H) | B(F_AT) | B(F_PATH) | B(F_FLAGS) | B(F_MODE), do_open},
	{"close", 12, B(F_H), do_close},
	{"dup", 8, B(F_H) | B(F_H2), do_dup},
	{"setfl", 6, B(F_H) | B(F_FLAGS), do_setfl},
	{"read", 25, B(F_H) | B(F_LEN), do_read},
	{"pread", 30, B(F_H) | B(F_OFF) | B(F_LEN), do_pread},
	{"preadv", 10, B(F_H) | B(F_OFF) | B(F_LEN), do_preadv},
	{"write", 35, B(F_H) | B(F_LEN) | B(F_VALUE), do_write},
	{"pwrite", 45, B(F_H) | B(F_OFF) | B(F_LEN) | B(F_VALUE), do_pwrite},
	{"pwritev2", 12, B(F_H) | B(F_OFF) | B(F_LEN) | B(F_VALUE) | B(F_FLAGS), do_pwritev2},
	{"lseek", 15, B(F_H) | B(F_OFF) | B(F_FLAGS), do_lseek},
	{"ftruncate", 18, B(F_H) | B(F_OFF), do_ftruncate},
	{"truncate", 12, B(F_AT) | B(F_PATH) | B(F_OFF), do_truncate},
	{"fallocate", 20, B(F_H) | B(F_OFF) | B(F_LEN) | B(F_FLAGS), do_fallocate},
	{"extents", 15, B(F_H), do_extents},
	{"copy", 15, B(F_H) | B(F_H2) | B(F_OFF) | B(F_OFF2) | B(F_LEN), do_copy},
	{"sendfile", 6, B(F_H) | B(F_H2) | B(F_OFF) | B(F_LEN), do_sendfile},
	{"sync", 4, B(F_H) | B(F_VALUE), do_sync},
	{"mmap", 25, B(F_H) | B(F_H2) | B(F_OFF) | B(F_LEN) | B(F_FLAGS) | B(F_VALUE), do_mmap},
	{"munmap", 4, B(F_H2), do_munmap},
	{"load", 30, B(F_H2) | B(F_OFF) | B(F_LEN), do_load},
	{"store", 30, B(F_H2) | B(F_OFF) | B(F_LEN) | B(F_VALUE), do_store},
	{"peek", 8, B(F_H2) | B(F_OFF), do_peek},
	{"msync", 3, B(F_H2), do_msync},
	{"mkdir", 35, B(F_AT) | B(F_PATH) | B(F_MODE), do_mkdir},
	{"rmdir", 12, B(F_AT) | B(F_PATH), do_rmdir},
	{"unlink", 25, B(F_AT) | B(F_PATH), do_unlink},
	{"link", 20, B(F_AT) | B(F_PATH) | B(F_PATH2) | B(F_FLAGS), do_link},
	{"link_handle", 6, B(F_H) | B(F_AT) | B(F_PATH), do_link_handle},
	{"symlink", 15, B(F_AT) | B(F_PATH) | B(F_PATH2), do_symlink},
	{"readlink", 6, B(F_AT) | B(F_PATH), do_readlink},
	{"rename", 45, B(F_AT) | B(F_PATH) | B(F_PATH2) | B(F_FLAGS), do_rename},
	{"mknod", 8, B(F_AT) | B(F_PATH) | B(F_MODE), do_mknod},
	{"stat", 15, B(F_AT) | B(F_PATH), do_stat},
	{"access", 8, B(F_AT) | B(F_PATH) | B(F_FLAGS), do_access},
	{"chmod", 15, B(F_AT) | B(F_PATH) | B(F_MODE), do_chmod},
	{"fchmod", 6, B(F_H) | B(F_MODE), do_fchmod},
	{"chown", 12, B(F_AT) | B(F_PATH) | B(F_VALUE) | B(F_FLAGS), do_chown},
	{"fchown", 6, B(F_H) | B(F_VALUE), do_fchown},
	{"utimens", 15, B(F_AT) | B(F_PATH) | B(F_VALUE) | B(F_FLAGS), do_utimens},
	{"futimens", 6, B(F_H) | B(F_VALUE), do_futimens},
	{"setxattr", 15, B(F_AT) | B(F_PATH) | B(F_VALUE) | B(F_LEN) | B(F_FLAGS), do_setxattr},
	{"fsetxattr", 6, B(F_H) | B(F_VALUE) | B(F_LEN) | B(F_FLAGS), do_fsetxattr},
	{"getxattr", 12, B(F_AT) | B(F_PATH) | B(F_VALUE) | B(F_LEN), do_getxattr},
	{"removexattr", 8, B(F_AT) | B(F_PATH) | B(F_VALUE), do_removexattr},
	{"listxattr", 10, B(F_AT) | B(F_PATH), do_listxattr},
	{"setacl", 8, B(F_AT) | B(F_PATH) | B(F_VALUE) | B(F_LEN), do_setacl},
	{"getacl", 5, B(F_AT) | B(F_PATH) | B(F_VALUE), do_getacl},
	{"list", 15, B(F_AT) | B(F_PATH) | B(F_LEN), do_list},
	{"list_handle", 10, B(F_H) | B(F_LEN), do_list_handle},
	{"statfs", 3, 0, do_statfs},
	{"flock", 6, B(F_H) | B(F_FLAGS), do_flock},
	{"lock_range", 10, B(F_H) | B(F_OFF) | B(F_LEN) | B(F_FLAGS) | B(F_VALUE), do_lock_range},
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static const struct {
	const char *name;
	int base;
} field[DIFF_FIELDS] = {
	[F_H] = {"h", 10},	     [F_H2] = {"h2", 10},      [F_AT] = {"at", 10},
	[F_PATH] = {"path", 0},	     [F_PATH2] = {"path2", 0}, [F_OFF] = {"off", 10},
	[F_OFF2] = {"off2", 10},     [F_LEN] = {"len", 10},    [F_FLAGS] = {"flags", 8},
	[F_MODE] = {"mode", 8},	     [F_VALUE] = {"value", 10}, [F_UMASK] = {"umask", 8},
	[F_USER] = {"user", 10},
};

static const struct {
	unsigned bit;
	const char *name, *reason;
} features_known[] = {
	{CAN_ZERO_RANGE, "FALLOC_FL_ZERO_RANGE", "not in tmpfs"},
	{CAN_COLLAPSE, "FALLOC_FL_COLLAPSE_RANGE", "not in tmpfs; never reaches a FUSE daemon"},
	{CAN_INSERT, "FALLOC_FL_INSERT_RANGE", "not in tmpfs; never reaches a FUSE daemon"},
	{CAN_TMPFILE, "O_TMPFILE", "reaches a FUSE daemon since libfuse 3.17"},
	{CAN_WHITEOUT, "RENAME_WHITEOUT", "only as root"},
	{CAN_ACL, "POSIX ACLs", "a mount option of some filesystems"},
};

void diff_explain(FILE *f, unsigned features, const char *indent)
{
	for (size_t i = 0; i < sizeof(features_known) / sizeof(features_known[0]); i++) {
		if (features & features_known[i].bit)
			fprintf(f, "%s%s (%s)\n", indent, features_known[i].name,
				features_known[i].reason);
	}
}

/* ------------------------------------------------------------------ drawing */

static int64_t pick(uint64_t *state, const int *from, size_t count)
{
	return from[below(state, (int64_t)count)];
}

#define PICK(state, ...) \
	pick(state, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static int64_t draw_open_flags(uint64_t *state, unsigned features)
{
	int64_t flags = PICK(state, O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR);

	if ((features & CAN_TMPFILE) && chance(state, 4))
		return O_TMPFILE | PICK(state, O_RDWR, O_WRONLY, O_RDWR | O_EXCL);
	if (chance(state, 4))
		return PICK(state, O_PATH, O_PATH | O_NOFOLLOW, O_PATH | O_DIRECTORY);
	if (chance(state, 12))
		return O_RDONLY | O_DIRECTORY;
	flags |= chance(state, 65) ? O_CREAT : 0;
	flags |= chance(state, 10) ? O_EXCL : 0;
	flags |= chance(state, 12) ? O_TRUNC : 0;
	flags |= chance(state, 15) ? O_APPEND : 0;
	flags |= chance(state, 12) ? O_DIRECT : 0;
	flags |= chance(state, 8) ? O_NOFOLLOW : 0;
	flags |= chance(state, 3) ? PICK(state, O_SYNC, O_DSYNC) : 0;
	flags |= chance(state, 4) ? O_NOATIME : 0;
	/* O_EXCL alone means nothing that is the same everywhere. */
	return flags & O_CREAT ? flags : flags & ~(int64_t)O_EXCL;
}

static int64_t draw_fallocate(uint64_t *state, unsigned features)
{
	const int64_t which = below(state, 10);

	if (which == 0 && (features & CAN_ZERO_RANGE))
		return FALLOC_FL_ZERO_RANGE | PICK(state, 0, FALLOC_FL_KEEP_SIZE);
	if (which == 1 && (features & CAN_COLLAPSE))
		return FALLOC_FL_COLLAPSE_RANGE;
	if (which == 2 && (features & CAN_INSERT))
		return FALLOC_FL_INSERT_RANGE;
	return PICK(state, 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}

static int64_t draw_flags(uint64_t *state, long (*run)(struct run *), unsigned features)
{
	if (run == do_open)
		return draw_open_flags(state, features);
	if (run == do_fallocate)
		return draw_fallocate(state, features);
	if (run == do_setfl)
		return PICK(state, 0, O_APPEND, O_DIRECT, O_APPEND | O_DIRECT, 0);
	if (run == do_pwritev2)
		return PICK(state, 0, 0, RWF_APPEND, RWF_APPEND, RWF_DSYNC);
	if (run == do_lseek)
		return PICK(state, SEEK_SET, SEEK_CUR, SEEK_END);
	if (run == do_mmap)
		return PICK(state, MAP_SHARED, MAP_SHARED, MAP_PRIVATE);
	if (run == do_link)
		return PICK(state, 0, 0, AT_SYMLINK_FOLLOW);
	if (run == do_rename)
		return PICK(state, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE,
			    features & CAN_WHITEOUT ? RENAME_WHITEOUT : 0,
			    RENAME_NOREPLACE | RENAME_EXCHANGE);
	if (run == do_access)
		return below(state, 8);
	if (run == do_chown || run == do_utimens)
		return PICK(state, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_NOFOLLOW, 0);
	if (run == do_setxattr || run == do_fsetxattr)
		return PICK(state, 0, 0, 0, XATTR_CREATE, XATTR_REPLACE);
	if (run == do_flock)
		return PICK(state, LOCK_SH, LOCK_EX, LOCK_UN);
	return below(state, 2);
}

static int64_t draw_off(uint64_t *state)
{
	const int64_t unit = PICK(state, 1, 1, 512, PAGE);
	int64_t off;

	if (chance(state, 15))
		return below(state, 2) * PAGE;
	off = below(state, (chance(state, 50) ? FILE_SPAN / 8 : FILE_SPAN) / unit) * unit;
	return chance(state, 3) ? FAR + off / 4 : off;
}

static int64_t draw_len(uint64_t *state)
{
	switch (below(state, 6)) {
	case 0:
		return 1 + below(state, 20);
	case 1:
		return PAGE;
	case 2:
		return PAGE * (1 + below(state, 20));
	case 3:
		return 1 + below(state, IO_MAX);
	default:
		return 1 + below(state, 3 * PAGE);
	}
}

static int64_t draw_mode(uint64_t *state, long (*run)(struct run *))
{
	int64_t mode = PICK(state, 0666, 0644, 0600, 0755, 0777, 0400, 0000, 0220);

	if (run == do_mkdir)
		mode = PICK(state, 0777, 0777, 0755, 0700, 0500);
	if (chance(state, 12))
		mode |= PICK(state, S_ISUID, S_ISGID, S_ISVTX, S_ISUID | S_ISGID);
	/* FUSE kernels clear a setgid bit only where the group may execute. */
	if (mode & S_ISGID)
		mode |= S_IXGRP;
	if (run == do_mknod)
		mode |= PICK(state, S_IFIFO, S_IFIFO, S_IFSOCK, S_IFREG);
	return mode;
}

static unsigned draw_kind(uint64_t *state, unsigned features)
{
	static int all;
	int64_t at;

	if (!__atomic_load_n(&all, __ATOMIC_RELAXED)) {
		int sum = 0;

		for (unsigned i = 0; i < KINDS; i++)
			sum += kinds[i].weight;
		__atomic_store_n(&all, sum, __ATOMIC_RELAXED);
	}
	for (;;) {
		unsigned i = 0;

		at = below(state, __atomic_load_n(&all, __ATOMIC_RELAXED));
		while (at >= kinds[i].weight)
			at -= kinds[i++].weight;
		if ((kinds[i].run != do_setacl && kinds[i].run != do_getacl) ||
		    (features & CAN_ACL))
			return i;
	}
}

struct diff_op diff_draw(uint64_t *state, unsigned features)
{
	struct diff_op op = {.kind = draw_kind(state, features)};
	const struct kind *k = &kinds[op.kind];
	const bool dir = k->run == do_mkdir || k->run == do_rmdir || k->run == do_list ||
			 (k->run == do_rename && chance(state, 30));

	for (unsigned i = 0; i < DIFF_FIELDS; i++) {
		if (!(k->fields & B(i)))
			continue;
		switch ((enum diff_field)i) {
		case F_H:
		case F_H2:
			op.f[i] = below(state, DIFF_HANDLES);
			break;
		case F_AT:
			op.f[i] = chance(state, 8) ? 1 + below(state, DIFF_HANDLES) : 0;
			break;
		case F_PATH:
		case F_PATH2:
			op.f[i] = draw_path(state, dir);
			break;
		case F_OFF:
		case F_OFF2:
			op.f[i] = draw_off(state);
			break;
		case F_LEN:
			op.f[i] = draw_len(state);
			break;
		case F_FLAGS:
			op.f[i] = draw_flags(state, k->run, features);
			break;
		case F_MODE:
			op.f[i] = draw_mode(state, k->run);
			break;
		case F_VALUE:
			op.f[i] = chance(state, 5) ? 0 : 1 + below(state, 1 << 20);
			break;
		case F_UMASK:
		case F_USER:
		case DIFF_FIELDS:
			break;
		}
	}
	/* Where directories are wanted: what has been opened as one. */
	if (k->run == do_open && (op.f[F_FLAGS] & O_DIRECTORY))
		op.f[F_PATH] = chance(state, 10) ? 0 : draw_path(state, true);
	if (k->run == do_lseek && chance(state, 40))
		op.f[F_OFF] = op.f[F_OFF] % (2 * PAGE) - PAGE;
	op.f[F_UMASK] = op.f[F_MODE] & S_ISGID ? 0 : PICK(state, 022, 022, 022, 0, 077, 027);
	op.f[F_USER] = chance(state, 20);
	return op;
}

/* ------------------------------------------------------------------ text */

void diff_print(FILE *f, const struct diff_op *op)
{
	char path[PATH_MAX];

	fprintf(f, "%s", kinds[op->kind].name);
	for (unsigned i = 0; i < DIFF_FIELDS; i++) {
		const int64_t value = op->f[i];

		if (!(kinds[op->kind].fields & B(i)) && !value)
			continue;
		if (i == F_PATH || i == F_PATH2) {
			path_of(value, true, path);
			fprintf(f, " %s=%s", field[i].name, path);
		} else if (field[i].base == 8) {
			fprintf(f, " %s=0%" PRIo64, field[i].name, (uint64_t)value);
		} else {
			fprintf(f, " %s=%" PRId64, field[i].name, value);
		}
	}
	fputc('\n', f);
}

bool diff_parse(const char *line, struct diff_op *op)
{
	char copy[1024], *save = NULL, *word;

	*op = (struct diff_op){0};
	if (strlen(line) >= sizeof(copy))
		return false;
	strcpy(copy, line);
	word = strtok_r(copy, " \n", &save);
	while (word && op->kind < KINDS && strcmp(word, kinds[op->kind].name))
		op->kind++;
	if (!word || op->kind == KINDS)
		return false;
	while ((word = strtok_r(NULL, " \n", &save))) {
		char *value = strchr(word, '=');
		unsigned i = 0;

		if (!value)
			return false;
		*value++ = '\0';
		while (i < DIFF_FIELDS && strcmp(word, field[i].name))
			i++;
		if (i == DIFF_FIELDS)
			return false;
		if (i == F_PATH || i == F_PATH2)
			op->f[i] = path_parse(value);
		else
			op->f[i] = strtoll(value, NULL, 0);
		if ((i == F_PATH || i == F_PATH2) && op->f[i] < 0)
			return false;
	}
	return op->f[F_H] >= 0 && op->f[F_H] < DIFF_HANDLES && op->f[F_H2] >= 0 &&
	       op->f[F_H2] < DIFF_HANDLES && op->f[F_AT] >= 0 && op->f[F_AT] <= DIFF_HANDLES &&
	       op->f[F_OFF] >= INT64_MIN / 2 && op->f[F_LEN] >= 0;
}

/* ------------------------------------------------------------------ running */

void diff_run(struct world *w, const struct diff_op *op, struct diff_outcome *out)
{
	const struct kind *k = &kinds[op->kind];
	const bool as_user = op->f[F_USER] && geteuid() == 0;
	struct run r = {.w = w, .o = out, .f = op->f, .fd = w->fd[op->f[F_H]]};
	long rc;
	int err;

	out->count = 0;
	out->len = 0;
	out->data = w->buf;
	out->loose_time = out->loose_holes = false;
	r.fd2 = w->fd[op->f[F_H2]];
	r.at = op->f[F_AT] ? w->fd[op->f[F_AT] - 1] : w->top;
	path_of(op->f[F_PATH], false, r.path);
	path_of(op->f[F_PATH2], false, r.path2);

	umask((mode_t)op->f[F_UMASK]);
	if (as_user) {
		setfsgid(USER_ID);
		setfsuid(USER_ID);
	}
	errno = 0;
	rc = k->run(&r);
	err = rc < 0 ? errno : 0;
	if (as_user) {
		setfsuid(0);
		setfsgid(0);
	}
	umask(0);

	fact(out, "errno", err);
	fact(out, "result", rc);
	if (k->fields & B(F_PATH))
		path_facts(w, out, r.at, r.path);
	if ((k->fields & B(F_PATH2)) && k->run != do_symlink)
		path_facts(w, out, r.at, r.path2);
	if (k->fields & B(F_H))
		handle_facts(w, out, r.fd);
	if ((k->fields & B(F_H2)) && k->fields & B(F_H) && k->run != do_mmap)
		handle_facts(w, out, r.fd2);
	if (k->fields & B(F_H2) && w->map[op->f[F_H2] % DIFF_MAPS].at)
		fact(out, "mapped", (int64_t)w->map[op->f[F_H2] % DIFF_MAPS].len);
}

struct world *world_new(const char *dir, unsigned features)
{
	const struct sigaction bus = {.sa_handler = on_bus};
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->features = features;
	for (unsigned i = 0; i < DIFF_HANDLES; i++)
		w->fd[i] = -1;
	for (unsigned i = 0; i < DIFF_MAPS; i++)
		w->map[i].fd = -1;
	w->buf = aligned_alloc((size_t)PAGE, DIFF_DATA_BYTES);
	w->text = malloc(DIFF_DATA_BYTES);
	w->top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->top < 0 || !w->buf || !w->text || sigaction(SIGBUS, &bus, NULL)) {
		world_free(w);
		return NULL;
	}
	clock_gettime(CLOCK_REALTIME, &w->begin);
	return w;
}

void world_free(struct world *w)
{
	for (unsigned i = 0; i < DIFF_MAPS; i++)
		map_drop(&w->map[i]);
	for (unsigned i = 0; i < DIFF_HANDLES; i++) {
		if (w->fd[i] >= 0)
			close(w->fd[i]);
	}
	if (w->top >= 0)
		close(w->top);
	free(w->buf);
	free(w->text);
	free(w);
}

/* ------------------------------------------------------------------ surveys */

/* One that goes through a tree; `w` is NULL when times and holes are not asked for. */
struct survey {
	struct world *w;
	struct diff_outcome *o;
	uint8_t *buf;
	size_t names;
};

static uint64_t hash_range(struct survey *s, int fd, int64_t off, int64_t end, uint64_t h)
{
	while (off < end) {
		const int64_t step = end - off < IO_MAX ? end - off : IO_MAX;
		const ssize_t n = pread(fd, s->buf, (size_t)step, off);

		if (n < 0)
			text_add(s->o, "read:%d ", errno);
		if (n <= 0)
			break;
		h = hash_bytes(h, s->buf, (size_t)n);
		off += n;
	}
	return h;
}

static void survey_contents(struct survey *s, int fd, const struct stat *st)
{
	uint64_t h = hash_range(s, fd, 0, LOOK_BYTES, 1);

	if (st->st_size > LOOK_BYTES)
		h = hash_range(s, fd, FAR, FAR + LOOK_BYTES, h);
	text_add(s->o, "contents:%" PRIx64 " ", h);
	if (s->w) {
		const bool loose = is_loose(&s->w->holes, st->st_ino);
		struct diff_outcome holes = {0};

		extents(s->w, &holes, fd, loose);
		for (unsigned i = 0; i < holes.count; i++) {
			if (loose && !strcmp(holes.fact[i].what, "extents"))
				text_add(s->o, "? ");
			else
				text_add(s->o, "check%u:%" PRIx64 " ", i, holes.fact[i].value);
		}
	}
}

static void survey_xattrs(struct survey *s, const char *path)
{
	const ssize_t n = llistxattr(path, (char *)s->buf, 8192);
	char *name[64];
	unsigned count = 0;

	for (char *at = (char *)s->buf; n > 0 && at < (char *)s->buf + n && count < 64;
	     at += strlen(at) + 1) {
		if (strncmp(at, "security.", 9))
			name[count++] = at;
	}
	qsort(name, count, sizeof(name[0]), compare_strings);
	for (unsigned i = 0; i < count; i++) {
		const ssize_t len = lgetxattr(path, name[i], s->buf + 8192, 65536);

		text_name(s->o, name[i]);
		text_add(s->o, ":%zd:%" PRIx64 " ", len < 0 ? -errno : len,
			 len < 0 ? 0 : hash_bytes(1, s->buf + 8192, (size_t)len));
	}
}

static void survey_attributes(struct survey *s, const struct stat *st)
{
	text_add(s->o, "%o %ju %u:%u ", mode_of(st), (uintmax_t)st->st_nlink, st->st_uid,
		 st->st_gid);
	if (S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
		text_add(s->o, "size:%jd ", (intmax_t)st->st_size);
	if (!s->w)
		return;
	if (time_is_loose(s->w, st))
		text_add(s->o, "? ");
	else
		text_add(s->o, "mtime:%" PRId64 " ", time_value(s->w, &st->st_mtim));
}

static void survey_dir(struct survey *s, int fd, const char *path);

static void survey_name(struct survey *s, int dir, const char *name, const char *path)
{
	char through[64 + NAME_MAX], target[PATH_MAX];
	struct stat st;
	ssize_t n;
	int fd = -1;

	s->names++;
	text_name(s->o, path);
	text_add(s->o, "/");
	text_name(s->o, name);
	text_add(s->o, " ");
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW)) {
		text_add(s->o, "lstat:%d\n", errno);
		return;
	}
	survey_attributes(s, &st);
	snprintf(through, sizeof(through), "/proc/self/fd/%d/%s", dir, name);
	survey_xattrs(s, through);
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
		fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			text_add(s->o, "open:%d ", errno);
		else if (S_ISREG(st.st_mode))
			survey_contents(s, fd, &st);
	} else if (S_ISLNK(st.st_mode)) {
		n = readlinkat(dir, name, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = '\0';
		text_add(s->o, "-> ");
		text_name(s->o, target);
	}
	text_add(s->o, "\n");
	if (fd >= 0 && S_ISDIR(st.st_mode) && strlen(path) + strlen(name) + 2 < PATH_MAX) {
		snprintf(target, sizeof(target), "%.2000s/%.255s", path, name);
		survey_dir(s, fd, target);
	}
	if (fd >= 0)
		close(fd);
}

static void survey_dir(struct survey *s, int fd, const char *path)
{
	DIR *d = fdopendir(dup(fd));
	char **name = NULL;
	size_t count = 0, room = 0;
	struct dirent *e;

	if (!d) {
		text_add(s->o, "opendir:%d\n", errno);
		return;
	}
	rewinddir(d);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (count == room) {
			room = room ? 2 * room : 32;
			name = realloc(name, room * sizeof(*name));
			if (!name)
				abort();
		}
		name[count] = strdup(e->d_name);
		if (!name[count++])
			abort();
	}
	if (count)
		qsort(name, count, sizeof(*name), compare_strings);
	for (size_t i = 0; i < count; i++) {
		survey_name(s, fd, name[i], path);
		free(name[i]);
	}
	free(name);
	closedir(d);
}

size_t diff_survey(struct world *w, struct diff_outcome *out)
{
	struct survey s = {.w = w, .o = out, .buf = w->buf};
	struct stat st;

	*out = (struct diff_outcome){.data = w->text};
	survey_dir(&s, w->top, "");
	for (unsigned i = 0; i < DIFF_HANDLES; i++) {
		const int fd = w->fd[i];

		if (fd < 0)
			continue;
		text_add(out, "handle:%u ", i);
		if (fstat(fd, &st))
			text_add(out, "fstat:%d ", errno);
		else
			survey_attributes(&s, &st);
		if (S_ISREG(st.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY &&
		    !(fcntl(fd, F_GETFL) & (O_PATH | O_DIRECT)))
			text_add(out, "contents:%" PRIx64, hash_range(&s, fd, 0, LOOK_BYTES, 1));
		text_add(out, "\n");
	}
	return s.names;
}

size_t diff_survey_dir(const char *dir, struct diff_outcome *out, uint8_t *data)
{
	const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct survey s = {.o = out, .buf = malloc(DIFF_DATA_BYTES)};

	*out = (struct diff_outcome){.data = data};
	fact(out, "errno", fd < 0 ? errno : 0);
	if (fd >= 0 && s.buf) {
		survey_dir(&s, fd, "");
		close(fd);
	}
	free(s.buf);
	return s.names;
}

static bool equal_facts(const struct diff_outcome *a, const struct diff_outcome *b, char *why,
			size_t size)
{
	for (unsigned i = 0; i < a->count || i < b->count; i++) {
		const struct diff_fact *x = &a->fact[i], *y = &b->fact[i];

		if (i >= a->count || i >= b->count || strcmp(x->what, y->what)) {
			snprintf(why, size, "%s, reference %s", i < a->count ? x->what : "nothing",
				 i < b->count ? y->what : "nothing");
			return false;
		}
		if (x->value == y->value)
			continue;
		if ((a->loose_time || b->loose_time) && !strcmp(x->what, "mtime"))
			continue;
		if ((a->loose_holes || b->loose_holes) && !strcmp(x->what, "extents"))
			continue;
		snprintf(why, size, "%s: %" PRId64 " (0%" PRIo64 "), reference %" PRId64 " (0%" PRIo64 ")",
			 x->what, x->value, (uint64_t)x->value, y->value, (uint64_t)y->value);
		return false;
	}
	return true;
}

static size_t word_len(const uint8_t *at, const uint8_t *end)
{
	size_t n = 0;

	while (at + n < end && at[n] != ' ' && at[n] != '\n')
		n++;
	return n;
}

static void line_at(const struct diff_outcome *o, const uint8_t *at, int *len, const char **line)
{
	const uint8_t *begin = at, *end = at;

	while (begin > o->data && begin[-1] != '\n')
		begin--;
	while (end < o->data + o->len && *end != '\n')
		end++;
	*line = (const char *)begin;
	*len = (int)(end - begin);
}

/* A word "?" is equal to any word. */
static bool equal_text(const struct diff_outcome *a, const struct diff_outcome *b, char *why,
		       size_t size)
{
	const uint8_t *x = a->data, *y = b->data;
	const uint8_t *const xe = x + a->len, *const ye = y + b->len;
	const char *line[2];
	int len[2];

	while (x < xe && y < ye) {
		const size_t n = word_len(x, xe), m = word_len(y, ye);

		if ((n != m || memcmp(x, y, n)) && !(n == 1 && *x == '?') && !(m == 1 && *y == '?'))
			break;
		x += n;
		y += m;
		if (x < xe && y < ye && *x++ != *y++)
			break;
	}
	if (x == xe && y == ye)
		return true;
	line_at(a, x < xe ? x : xe, &len[0], &line[0]);
	line_at(b, y < ye ? y : ye, &len[1], &line[1]);
	snprintf(why, size, "\n  here      %.*s\n  reference %.*s", len[0], line[0], len[1], line[1]);
	return false;
}

bool diff_equal(const struct diff_outcome *a, const struct diff_outcome *b, char *why, size_t size)
{
	if (!equal_facts(a, b, why, size))
		return false;
	if (a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len)))
		return true;
	if (a->len && b->len && a->data[a->len - 1] == '\n' && b->data[b->len - 1] == '\n')
		return equal_text(a, b, why, size);
	for (size_t i = 0; i < a->len && i < b->len; i++) {
		if (a->data[i] != b->data[i]) {
			snprintf(why, size, "byte %zu of the data: %02x, reference %02x", i,
				 a->data[i], b->data[i]);
			return false;
		}
	}
	snprintf(why, size, "%zu bytes of data, reference %zu", a->len, b->len);
	return false;
}

/* ------------------------------------------------------------------ others */

static int remove_in(int dir, const char *name)
{
	struct dirent *e;
	int fd, rc = 0;
	DIR *d;

	if (!unlinkat(dir, name, 0))
		return 0;
	if (errno != EISDIR)
		return -errno;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (!rc && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			rc = remove_in(fd, e->d_name);
	}
	closedir(d);
	if (!rc && unlinkat(dir, name, AT_REMOVEDIR))
		rc = -errno;
	return rc;
}

int diff_remove(const char *dir)
{
	return remove_in(AT_FDCWD, dir);
}

unsigned diff_probe(const char *dir)
{
	static const struct {
		unsigned bit;
		int mode;
	} range[] = {
		{CAN_ZERO_RANGE, FALLOC_FL_ZERO_RANGE},
		{CAN_COLLAPSE, FALLOC_FL_COLLAPSE_RANGE},
		{CAN_INSERT, FALLOC_FL_INSERT_RANGE},
	};
	const struct {
		uint32_t version;
		struct acl_entry entry[3];
	} acl = {2, {{0x01, 7, UINT32_MAX}, {0x04, 5, UINT32_MAX}, {0x20, 5, UINT32_MAX}}};
	const int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned can = 0;
	int fd;

	if (top < 0)
		return 0;
	fd = openat(top, "probe", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++) {
		if (!ftruncate(fd, 8 * PAGE) && !fallocate(fd, range[i].mode, 0, PAGE))
			can |= range[i].bit;
	}
	if (!fsetxattr(fd, "system.posix_acl_access", &acl, sizeof(acl), 0))
		can |= CAN_ACL;
	if (!renameat2(top, "probe", top, "probed", RENAME_WHITEOUT))
		can |= CAN_WHITEOUT;
	unlinkat(top, "probe", 0);
	unlinkat(top, "probed", 0);
	close(fd);
	fd = openat(top, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0) {
		can |= CAN_TMPFILE;
		close(fd);
	}
	close(top);
	return can;
}
