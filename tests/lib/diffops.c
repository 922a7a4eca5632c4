/* SPDX-License-Identifier: BSD-2-Clause */
/* Drawing, writing down, reading and running operations. */
#include "lib/diff_impl.h"

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

uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ byte[i]) * UINT64_C(0x100000001b3);
	return h;
}

void fill(uint8_t *to, size_t len, int64_t value)
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

/* ------------------------------------------------------------------ the table */

#define B(field) (1u << (field))

static const struct kind {
	const char *name;
	int weight;
	unsigned fields; /* what is drawn */
	diff_do *run;
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
	{"lease", 6, B(F_H) | B(F_VALUE), do_lease},
	{"setflags", 8, B(F_H) | B(F_VALUE), do_setflags},
	{"guarded", 8, B(F_AT) | B(F_PATH) | B(F_PATH2) | B(F_VALUE), do_guarded},
	{"remember", 8, B(F_H2) | B(F_AT) | B(F_PATH), do_remember},
	{"recall", 12, B(F_H2), do_recall},
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
	{CAN_TMPFILE, "O_TMPFILE", "not in every filesystem"},
	{CAN_WHITEOUT, "RENAME_WHITEOUT", "only as root"},
	{CAN_ACL, "POSIX ACLs", "a mount option of some filesystems"},
	{CAN_FLAGS, "chattr", "only as root; not in tmpfs before Linux 6.6"},
	{CAN_HANDLE, "open_by_handle_at", "only as root"},
	{CAN_LEASE, "F_SETLEASE", "a kernel may refuse leases on FUSE"},
	{CAN_HOLES, "SEEK_DATA, SEEK_HOLE", "not with the mount option writeback"},
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

static int64_t draw_flags(uint64_t *state, diff_do *run, unsigned features)
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

static int64_t draw_mode(uint64_t *state, diff_do *run, unsigned features)
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
		mode |= PICK(state, S_IFIFO, S_IFIFO, S_IFSOCK, S_IFREG,
			     features & CAN_WHITEOUT ? S_IFCHR : S_IFREG);
	return mode;
}

static unsigned needs(diff_do *run)
{
	if (run == do_setacl || run == do_getacl)
		return CAN_ACL;
	if (run == do_setflags || run == do_guarded)
		return CAN_FLAGS;
	if (run == do_remember || run == do_recall)
		return CAN_HANDLE;
	return run == do_lease ? CAN_LEASE : 0;
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
		if (!(needs(kinds[i].run) & ~features))
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
			op.f[i] = draw_mode(state, k->run, features);
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

static unsigned probe_more(int top, int fd)
{
	struct {
		struct file_handle h;
		uint8_t id[HANDLE_BYTES];
	} handle = {.h.handle_bytes = HANDLE_BYTES};
	unsigned flags = 0, can = 0;
	int mount, by_handle;

	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		flags |= FS_IMMUTABLE_FL;
		if (!ioctl(fd, FS_IOC_SETFLAGS, &flags)) {
			flags &= ~(unsigned)FS_IMMUTABLE_FL;
			if (!ioctl(fd, FS_IOC_SETFLAGS, &flags))
				can |= CAN_FLAGS;
		}
	}
	if (!name_to_handle_at(top, "", &handle.h, &mount, AT_EMPTY_PATH)) {
		by_handle = open_by_handle_at(top, &handle.h, O_PATH | O_CLOEXEC);
		if (by_handle >= 0) {
			can |= CAN_HANDLE;
			close(by_handle);
		}
	}
	if (!ftruncate(fd, 0) && !ftruncate(fd, 8 * PAGE) && lseek(fd, 0, SEEK_DATA) < 0)
		can |= CAN_HOLES;
	if (!fcntl(fd, F_SETLEASE, F_WRLCK)) {
		can |= CAN_LEASE;
		fcntl(fd, F_SETLEASE, F_UNLCK);
	}
	return can;
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
	can |= probe_more(top, fd);
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
