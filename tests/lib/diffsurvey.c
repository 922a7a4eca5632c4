/* SPDX-License-Identifier: BSD-2-Clause */
/* What there is to see of one object or of all, and what is equal. */
#include "lib/diff_impl.h"

/* ------------------------------------------------------------------ outcomes */

void fact(struct diff_outcome *o, const char *what, int64_t value)
{
	if (o->count < DIFF_FACTS)
		o->fact[o->count++] = (struct diff_fact){what, value};
}

void text_add(struct diff_outcome *o, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf((char *)o->data + o->len, DIFF_DATA_BYTES - o->len, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < DIFF_DATA_BYTES - o->len)
		o->len += (size_t)n;
}

void text_name(struct diff_outcome *o, const char *name)
{
	unsigned run = 0;

	for (const uint8_t *at = (const uint8_t *)name; *at; at++) {
		run = at[0] == '0' ? run + 1 : 0;
		if (run > 4 && at[1] == '0')
			continue;
		text_add(o, *at > ' ' && *at < 0x7f && *at != '\\' ? "%c" : "\\%03o", *at);
	}
}

int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

bool is_loose(const struct loose *l, ino_t ino)
{
	for (unsigned i = 0; i < l->count; i++) {
		if (l->ino[i] == ino)
			return true;
	}
	return false;
}

bool holes_are_loose(const struct world *w, ino_t ino)
{
	return !(w->features & CAN_HOLES) || is_loose(&w->holes, ino);
}

void loosen(struct loose *l, int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && l->count < LOOSE_MAX && !is_loose(l, st.st_ino))
		l->ino[l->count++] = st.st_ino;
}

unsigned shown_flags(int fd)
{
	unsigned flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return 0;
	return flags & (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL);
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

void attributes(struct world *w, struct diff_outcome *o, const struct stat *st)
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

void path_facts(struct world *w, struct diff_outcome *o, int at, const char *path)
{
	struct stat st;

	if (fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW))
		fact(o, "lstat", -errno);
	else
		attributes(w, o, &st);
}

void handle_facts(struct world *w, struct diff_outcome *o, int fd)
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
		const bool loose = holes_are_loose(s->w, st->st_ino);
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
		/* It may be a fifo by now. */
		fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			text_add(s->o, "open:%d ", errno);
		else if (S_ISREG(st.st_mode))
			survey_contents(s, fd, &st);
		if (fd >= 0 && s->w && (s->w->features & CAN_FLAGS))
			text_add(s->o, "flags:%x ", shown_flags(fd));
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

