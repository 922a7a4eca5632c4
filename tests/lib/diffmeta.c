/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on names and attributes. */
#include "lib/diff_impl.h"

/* ------------------------------------------------------------------ names and attributes */

long do_mkdir(struct run *r)
{
	return mkdirat(r->at, r->path, (mode_t)r->f[F_MODE]);
}

long do_rmdir(struct run *r)
{
	return unlinkat(r->at, r->path, AT_REMOVEDIR);
}

long do_unlink(struct run *r)
{
	return unlinkat(r->at, r->path, 0);
}

long do_link(struct run *r)
{
	return linkat(r->at, r->path, r->at, r->path2, (int)r->f[F_FLAGS]);
}

long do_link_handle(struct run *r)
{
	char name[64];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", r->fd);
	return linkat(AT_FDCWD, name, r->at, r->path, AT_SYMLINK_FOLLOW);
}

long do_symlink(struct run *r)
{
	return symlinkat(r->path2, r->at, r->path);
}

long do_readlink(struct run *r)
{
	const long n = readlinkat(r->at, r->path, (char *)r->w->buf, PATH_MAX);

	set_data(r, n);
	return n;
}

/* The time of the last change of the directory that the first path is in need not be equal from now on. */
static void loosen_parent(struct run *r)
{
	char dir[PATH_MAX];
	char *end;
	int fd;

	strcpy(dir, r->path);
	end = strrchr(dir, '/');
	if (end)
		*end = '\0';
	fd = openat(r->at, end ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	loosen(&r->w->times, fd);
	close(fd);
}

long do_rename(struct run *r)
{
	const long rc = renameat2(r->at, r->path, r->at, r->path2, (unsigned)r->f[F_FLAGS]);
	const int err = errno;

	/* ext4 stamps the directory when it fails, too. */
	if (rc && (r->f[F_FLAGS] & RENAME_WHITEOUT))
		loosen_parent(r);
	errno = err;
	return rc;
}

long do_mknod(struct run *r)
{
	return mknodat(r->at, r->path, (mode_t)r->f[F_MODE], 0);
}

long do_stat(struct run *r)
{
	struct stat st;

	if (fstatat(r->at, r->path, &st, 0))
		return -1;
	attributes(r->w, r->o, &st);
	return 0;
}

long do_access(struct run *r)
{
	return faccessat(r->at, r->path, (int)r->f[F_FLAGS], AT_EACCESS);
}

long do_chmod(struct run *r)
{
	return fchmodat(r->at, r->path, (mode_t)r->f[F_MODE], 0);
}

long do_fchmod(struct run *r)
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

long do_chown(struct run *r)
{
	if (no_owner(r))
		return skipped(r);
	return fchownat(r->at, r->path, owner_of(r->f[F_VALUE]), owner_of(r->f[F_VALUE] >> 2),
			(int)r->f[F_FLAGS]);
}

long do_fchown(struct run *r)
{
	if (no_owner(r))
		return skipped(r);
	return fchown(r->fd, owner_of(r->f[F_VALUE]), owner_of(r->f[F_VALUE] >> 2));
}

/* From the end of 1901 to May 2446: what ext4 can hold with nanoseconds. */
#define TIME_FIRST INT64_C(-2147483647)
#define TIME_LAST  INT64_C(15032385534)
/* 1901 to 2020, and from 2100 on. */
#define YEARS_PAST    ((uint64_t)(1577836800 - TIME_FIRST))
#define TIME_NEXT     INT64_C(4102444800)
#define YEARS_TO_COME ((uint64_t)(TIME_LAST - TIME_NEXT))

/* Never near now. */
static struct timespec time_of(int64_t value)
{
	static const int64_t second[] = {0,	     -1,	  TIME_FIRST, 2147483647,
					 2147483648, TIME_LAST, 1000000000, 4102444800};
	static const long ns[] = {0, 1, 999999999, 123456789};
	uint64_t any = (uint64_t)value + 1;

	switch (value & 15) {
	case 14:
		return (struct timespec){0, UTIME_NOW};
	case 15:
		return (struct timespec){0, UTIME_OMIT};
	case 11:
	case 12:
	case 13:
		return (struct timespec){TIME_FIRST + (int64_t)(diff_random(&any) % YEARS_PAST), ns[value >> 4 & 3]};
	case 8:
	case 9:
	case 10:
		return (struct timespec){TIME_NEXT + (int64_t)(diff_random(&any) % YEARS_TO_COME), ns[value >> 4 & 3]};
	default:
		return (struct timespec){second[value & 7], ns[value >> 4 & 3]};
	}
}

long do_utimens(struct run *r)
{
	const struct timespec t[2] = {time_of(r->f[F_VALUE]), time_of(r->f[F_VALUE] >> 8)};

	return utimensat(r->at, r->path, t, (int)r->f[F_FLAGS]);
}

long do_futimens(struct run *r)
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

long do_setxattr(struct run *r)
{
	const size_t len = attribute_len(r);
	char name[PATH_MAX];

	through_proc(r, name);
	fill(r->w->buf, len, r->f[F_VALUE]);
	return lsetxattr(name, attribute_of(r->f[F_VALUE]), r->w->buf, len, (int)r->f[F_FLAGS]);
}

long do_fsetxattr(struct run *r)
{
	const size_t len = attribute_len(r);

	fill(r->w->buf, len, r->f[F_VALUE]);
	return fsetxattr(r->fd, attribute_of(r->f[F_VALUE]), r->w->buf, len, (int)r->f[F_FLAGS]);
}

long do_getxattr(struct run *r)
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

long do_removexattr(struct run *r)
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

long do_listxattr(struct run *r)
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

long do_setacl(struct run *r)
{
	const char *const which = r->f[F_VALUE] & 1 ? "system.posix_acl_default"
						    : "system.posix_acl_access";
	const unsigned bits = (unsigned)r->f[F_VALUE] >> 1;
	struct {
		uint32_t version;
		struct acl_entry entry[5];
	} acl = {2,
		 {{0x01, bits & 7, UINT32_MAX},
		  {0x02, bits >> 3 & 7, USER_ID},
		  {0x04, bits >> 6 & 7, UINT32_MAX},
		  {0x10, bits >> 9 & 7, UINT32_MAX},
		  {0x20, bits >> 12 & 7, UINT32_MAX}}};
	struct stat st;
	char name[PATH_MAX];

	/* Group execution would bring a setgid to light that a FUSE kernel has left (mode_of()). */
	if (!fstatat(r->at, r->path, &st, 0) && S_ISREG(st.st_mode) && !(st.st_mode & S_IXGRP))
		acl.entry[3].perm &= 6;
	through_proc(r, name);
	if (r->f[F_LEN] % 5 == 0)
		return removexattr(name, which);
	return setxattr(name, which, &acl, sizeof(acl), 0);
}

long do_getacl(struct run *r)
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

long do_list(struct run *r)
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

long do_list_handle(struct run *r)
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

long do_statfs(struct run *r)
{
	struct statvfs s;

	if (fstatvfs(r->w->top, &s))
		return -1;
	fact(r->o, "longest name", (int64_t)s.f_namemax);
	fact(r->o, "sizes make sense",
	     s.f_bsize && s.f_frsize && s.f_bfree <= s.f_blocks && s.f_bavail <= s.f_bfree);
	return 0;
}

/* ------------------------------------------------------------------ flags of chattr(1) */

/* Changes those of `mask` and leaves what else there is. */
static int change_flags(int fd, unsigned mask, unsigned flags)
{
	unsigned now = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &now))
		return -1;
	now = (now & ~mask) | flags;
	return ioctl(fd, FS_IOC_SETFLAGS, &now);
}

long do_setflags(struct run *r)
{
	static const unsigned flags[] = {0, FS_NODUMP_FL, FS_NOATIME_FL, FS_NODUMP_FL | FS_NOATIME_FL};
	const long rc = change_flags(r->fd, FS_NODUMP_FL | FS_NOATIME_FL, flags[r->f[F_VALUE] & 3]);
	const int err = errno;

	if (r->fd >= 0)
		fact(r->o, "chattr", shown_flags(r->fd));
	errno = err;
	return rc;
}

static int guarded_action(struct run *r, bool dir, int64_t which)
{
	const struct timespec set[2] = {time_of(0), time_of(1)}, now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
	char name[PATH_MAX];

	through_proc(r, name);
	switch (which % 10) {
	case 0:
		return fchmodat(r->at, r->path, 0750, 0);
	case 1:
		return fchownat(r->at, r->path, USER_ID, USER_ID, AT_SYMLINK_NOFOLLOW);
	case 2:
		return utimensat(r->at, r->path, set, 0);
	case 3:
		return utimensat(r->at, r->path, now, 0);
	case 4:
		return lsetxattr(name, "user.guarded", "x", 1, 0);
	case 5:
		return unlinkat(r->at, r->path, dir ? AT_REMOVEDIR : 0);
	case 6:
		return linkat(r->at, r->path, r->at, r->path2, 0);
	case 7:
		return renameat2(r->at, r->path, r->at, r->path2, 0);
	case 8:
		return mkdirat(r->at, r->path2, 0755);
	default:
		return unlinkat(r->at, r->path2, 0);
	}
}

/*
 * Something is tried with a file or directory that is immutable, or only for appending, as long as
 * this operation runs.
 */
long do_guarded(struct run *r)
{
	const unsigned flag = r->f[F_VALUE] & 1 ? FS_IMMUTABLE_FL : FS_APPEND_FL;
	struct stat st;
	int fd, rc;

	if (fstatat(r->at, r->path, &st, AT_SYMLINK_NOFOLLOW) || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
		return skipped(r);
	fd = openat(r->at, r->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = change_flags(fd, flag, flag);
	if (!rc) {
		rc = guarded_action(r, S_ISDIR(st.st_mode), r->f[F_VALUE] >> 1);
		/* FUSE kernels do not know of the flag: when there is another reason to refuse, they
		 * see that one first. */
		fact(r->o, "refused", rc != 0);
		rc = change_flags(fd, flag, 0);
	}
	close(fd);
	return rc;
}

/* ------------------------------------------------------------------ handles for open_by_handle_at(2) */

long do_remember(struct run *r)
{
	struct saved_handle *s = &r->w->saved[r->f[F_H2]];
	int mount, rc;

	s->h.bytes = HANDLE_BYTES;
	rc = name_to_handle_at(r->at, r->path, (struct file_handle *)&s->h, &mount, 0);
	s->set = !rc;
	return rc;
}

long do_recall(struct run *r)
{
	struct saved_handle *s = &r->w->saved[r->f[F_H2]];
	struct stat st;
	int fd;

	if (!s->set)
		return skipped(r);
	fd = open_by_handle_at(r->w->top, (struct file_handle *)&s->h, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -1;
	/* Without a name, but open somewhere: still there for some filesystems. */
	if (fstat(fd, &st) || !st.st_nlink) {
		close(fd);
		errno = ESTALE;
		return -1;
	}
	attributes(r->w, r->o, &st);
	close(fd);
	return 0;
}
