/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on open files, their contents, and mappings of them. */
#include "lib/diff_impl.h"

/* ------------------------------------------------------------------ operations */

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

long skipped(struct run *r)
{
	fact(r->o, "skipped", 1);
	return 0;
}

size_t length(const struct run *r)
{
	return (size_t)(r->f[F_LEN] < IO_MAX ? r->f[F_LEN] : IO_MAX);
}

void set_data(struct run *r, long n)
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

long do_open(struct run *r)
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

long do_close(struct run *r)
{
	const long rc = close(r->fd);

	r->w->fd[r->f[F_H]] = -1;
	r->fd = -1;
	return rc;
}

long do_dup(struct run *r)
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

long do_setfl(struct run *r)
{
	return fcntl(r->fd, F_SETFL, (int)r->f[F_FLAGS] | O_NONBLOCK);
}

long do_read(struct run *r)
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

long do_pread(struct run *r)
{
	int64_t off = r->f[F_OFF];
	size_t len = length(r);
	long n;

	direct_range(r->fd, &off, &len);
	n = pread(r->fd, r->w->buf, len, off);
	set_data(r, n);
	return n;
}

long do_preadv(struct run *r)
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

long do_write(struct run *r)
{
	int64_t pos = lseek(r->fd, 0, SEEK_CUR);
	size_t len = length(r);

	if ((is_direct(r->fd) && pos % PAGE) || !direct_range(r->fd, &pos, &len))
		return skipped(r);
	fill(r->w->buf, len, r->f[F_VALUE]);
	wrote(r, r->fd);
	return write(r->fd, r->w->buf, len);
}

long do_pwrite(struct run *r)
{
	int64_t off = r->f[F_OFF];
	size_t len = length(r);

	if (!direct_range(r->fd, &off, &len))
		return skipped(r);
	fill(r->w->buf, len, r->f[F_VALUE]);
	wrote(r, r->fd);
	return pwrite(r->fd, r->w->buf, len, off);
}

long do_pwritev2(struct run *r)
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

long do_lseek(struct run *r)
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

long do_ftruncate(struct run *r)
{
	truncated(r, r->fd);
	return ftruncate(r->fd, r->f[F_OFF]);
}

void through_proc(const struct run *r, char *name)
{
	snprintf(name, PATH_MAX, "/proc/self/fd/%d/%.3000s", r->at, r->path);
}

long do_truncate(struct run *r)
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

long do_fallocate(struct run *r)
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
void extents(struct world *w, struct diff_outcome *o, int fd, bool loose)
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

long do_extents(struct run *r)
{
	int64_t pos;
	struct stat st;

	if (fstat(r->fd, &st))
		return -1;
	if (!S_ISREG(st.st_mode) || (fcntl(r->fd, F_GETFL) & O_ACCMODE) == O_WRONLY ||
	    (fcntl(r->fd, F_GETFL) & (O_PATH | O_DIRECT)))
		return skipped(r);
	pos = lseek(r->fd, 0, SEEK_CUR);
	extents(r->w, r->o, r->fd, holes_are_loose(r->w, st.st_ino));
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

long do_copy(struct run *r)
{
	return move(r, step_copy);
}

long do_sendfile(struct run *r)
{
	struct stat a, b;

	/* Pages go by reference: within a file the one that is read may be the one that is written,
	 * in a fifo it may still change. */
	if (!fstat(r->fd, &a) && !fstat(r->fd2, &b) &&
	    (a.st_ino == b.st_ino || S_ISFIFO(b.st_mode)))
		return skipped(r);
	return move(r, step_sendfile);
}

long do_sync(struct run *r)
{
	return r->f[F_VALUE] & 1 ? fdatasync(r->fd) : fsync(r->fd);
}

/* ------------------------------------------------------------------ locks */

long do_flock(struct run *r)
{
	return flock(r->fd, (int)r->f[F_FLAGS] | LOCK_NB);
}

long do_lock_range(struct run *r)
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

/*
 * Taken, asked for, in the way of another open, given back: all in one operation, since whoever opens
 * the file later would have to wait for it.
 */
long do_lease(struct run *r)
{
	const int type = r->f[F_VALUE] & 1 ? F_RDLCK : F_WRLCK;
	char name[64];
	int fd;

	if (fcntl(r->fd, F_SETLEASE, type))
		return -1;
	fact(r->o, "lease", fcntl(r->fd, F_GETLEASE));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", r->fd);
	fd = open(name, (r->f[F_VALUE] & 2 ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC);
	fact(r->o, "open beside a lease", fd < 0 ? -errno : 0);
	fact(r->o, "lease after that", fcntl(r->fd, F_GETLEASE));
	if (fd >= 0)
		close(fd);
	return fcntl(r->fd, F_SETLEASE, F_UNLCK);
}

/* ------------------------------------------------------------------ mappings */

static _Thread_local sigjmp_buf no_page;
static _Thread_local volatile sig_atomic_t touching;

void on_bus(int sig)
{
	if (!touching) {
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(no_page, 1);
}

void map_drop(struct mapping *m)
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

long do_mmap(struct run *r)
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

long do_munmap(struct run *r)
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

long do_load(struct run *r)
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

long do_store(struct run *r)
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
long do_peek(struct run *r)
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

long do_msync(struct run *r)
{
	struct mapping *m = map_of(r);

	if (!m->at)
		return skipped(r);
	return msync(m->at, m->len, MS_SYNC);
}

