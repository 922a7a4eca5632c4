/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "ctl/mountinfo.h"
#include "ctl/text.h"

#define INFO_MAX 65536

/* ------------------------------------------------------------------ bases */

static bool format_path(char out[PATH_MAX], const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static bool format_path(char out[PATH_MAX], const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(out, PATH_MAX, fmt, ap);
	va_end(ap);
	return n > 0 && n < PATH_MAX;
}

static bool is_own_dir(const char *path, uid_t uid)
{
	struct stat st;

	return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == uid &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

#define ROOT_BASE "/run/pmfs"

/* Root of a user namespace is not the one whom /run belongs to. */
static bool is_root(void)
{
	struct stat st;

	return geteuid() == 0 && (!lstat(ROOT_BASE, &st) || !lstat("/run", &st)) && st.st_uid == 0;
}

static bool own_base(char out[PATH_MAX])
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	if (is_root())
		return format_path(out, ROOT_BASE);
	if (xdg && xdg[0] == '/' && is_own_dir(xdg, geteuid()))
		return format_path(out, "%s/pmfs", xdg);
	return format_path(out, "/tmp/pmfs-%u", (unsigned int)geteuid());
}

/* A name that is all digits. */
static bool parse_number(const char *s, unsigned long *out)
{
	char *end;

	if (*s < '1' || *s > '9')
		return false;
	errno = 0;
	*out = strtoul(s, &end, 10);
	return !*end && !errno && *out <= INT_MAX;
}

/* ------------------------------------------------------------------ one directory */

/* Is there a daemon behind it (D1)? */
static bool is_alive(int dirfd)
{
	if (!flock(dirfd, LOCK_SH | LOCK_NB)) {
		flock(dirfd, LOCK_UN);
		return false;
	}
	return errno == EWOULDBLOCK;
}

static int open_dir_at(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int decode_info(const json_t *obj, struct rundir_info *out)
{
	const char *dev = json_string_value(json_object_get(obj, "dev"));
	json_int_t pid = json_integer_value(json_object_get(obj, "pid"));
	unsigned int major_no, minor_no;

	if (!dev || sscanf(dev, "%u:%u", &major_no, &minor_no) != 2 || pid < 1 || pid > INT_MAX)
		return -EUCLEAN;
	out->pid = (pid_t)pid;
	out->dev = makedev(major_no, minor_no);
	out->read_only = json_is_true(json_object_get(obj, "read_only"));
	if (!text_get(obj, "dir", out->dir, sizeof(out->dir)) ||
	    !text_get(obj, "source", out->source, sizeof(out->source)) ||
	    !text_get(obj, "volume", out->volume, sizeof(out->volume)))
		return -EUCLEAN;
	return 0;
}

/* D2: it may be a fifo, a link, or without end. */
static int read_info_at(int dirfd, struct rundir_info *out)
{
	int fd = openat(dirfd, "info.json", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	json_t *obj;
	ssize_t n;
	char *buf;
	int rc;

	if (fd < 0)
		return -errno;
	buf = malloc(INFO_MAX);
	if (!buf) {
		close(fd);
		return -ENOMEM;
	}
	rc = -EUCLEAN;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		goto out;
	n = read(fd, buf, INFO_MAX);
	if (n <= 0 || n == INFO_MAX)
		goto out;
	obj = json_loadb(buf, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	if (obj)
		rc = decode_info(obj, out);
	json_decref(obj);
	out->uid = st.st_uid;
	out->published = st.st_mtim;
out:
	free(buf);
	close(fd);
	return rc;
}

int rundir_read(const char *path, struct rundir_info *out)
{
	int fd = open_dir_at(AT_FDCWD, path);
	int rc;

	if (fd < 0)
		return fd;
	rc = read_info_at(fd, out);
	if (!rc && !format_path(out->path, "%s", path))
		rc = -ENAMETOOLONG;
	close(fd);
	return rc;
}

/* ------------------------------------------------------------------ sweeping and making */

/* Only fusermount3 can take away what a user has mounted. */
static void unmount_lazily(const char *dir)
{
	pid_t pid;
	int fd;

	if (!mountinfo_dev_at(dir, NULL) || !umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW))
		return;
	pid = fork();
	if (!pid) {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd >= 0) {
			dup2(fd, STDOUT_FILENO);
			dup2(fd, STDERR_FILENO);
		}
		execlp("fusermount3", "fusermount3", "-u", "-z", "-q", dir, (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void remove_contents(int dirfd, const char *path)
{
	char files[PATH_MAX];

	if (format_path(files, "%s/files", path))
		unmount_lazily(files);
	unlinkat(dirfd, "info.json", 0);
	unlinkat(dirfd, "info.json.new", 0);
	unlinkat(dirfd, "ctl", 0);
	unlinkat(dirfd, "files", AT_REMOVEDIR);
	rmdir(path);
}

static void sweep(const char *base)
{
	DIR *d = opendir(base);
	struct dirent *de;
	unsigned long pid;
	char path[PATH_MAX];
	int fd;

	if (!d)
		return;
	while ((de = readdir(d)) != NULL) {
		if (!parse_number(de->d_name, &pid) ||
		    !format_path(path, "%s/%s", base, de->d_name))
			continue;
		fd = open_dir_at(dirfd(d), de->d_name);
		if (fd < 0)
			continue;
		/* Exclusively: its maker waits for the lock and then sees that it is gone. */
		if (!flock(fd, LOCK_EX | LOCK_NB))
			remove_contents(fd, path);
		close(fd);
	}
	closedir(d);
}

static int make_base(const char *base, bool shared, const char **why)
{
	mode_t mode = geteuid() == 0 ? 0755 : shared ? 0711 : 0700;

	if (mkdir(base, mode) && errno != EEXIST) {
		*why = "can't make the runtime directory";
		return -errno;
	}
	if (!is_own_dir(base, geteuid())) {
		*why = "the runtime directory belongs to somebody else, or others may write to it";
		return -EPERM;
	}
	if (shared && chmod(base, mode)) {
		*why = "can't open the runtime directory to others";
		return -errno;
	}
	return 0;
}

int rundir_create(struct rundir *rd, bool shared, const char **why)
{
	struct stat mine, there;
	int rc, fd;

	*why = "the path of the runtime directory is too long";
	rd->fd = -1;
	if (!own_base(rd->base) || !format_path(rd->path, "%s/%d", rd->base, (int)getpid()))
		return -ENAMETOOLONG;
	rc = make_base(rd->base, shared, why);
	if (rc)
		return rc;
	sweep(rd->base);
	*why = "can't make a directory in the runtime directory";
	for (;;) {
		if (mkdir(rd->path, shared ? 0755 : 0700) && errno != EEXIST)
			return -errno;
		fd = open_dir_at(AT_FDCWD, rd->path);
		if (fd == -ENOENT)
			continue;
		if (fd < 0)
			return fd;
		/* A sweeper may have taken it away between the two. */
		if (flock(fd, LOCK_EX)) {
			rc = -errno;
			close(fd);
			return rc;
		}
		if (!fstat(fd, &mine) && !lstat(rd->path, &there) && mine.st_ino == there.st_ino &&
		    mine.st_dev == there.st_dev)
			break;
		close(fd);
	}
	if (fchmod(fd, shared ? 0755 : 0700) || (mkdirat(fd, "files", 0700) && errno != EEXIST)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	rd->fd = fd;
	return 0;
}

int rundir_publish(struct rundir *rd, const struct rundir_info *info)
{
	char dev[32];
	json_t *obj;
	FILE *f;
	int fd, rc = 0;

	snprintf(dev, sizeof(dev), "%u:%u", major(info->dev), minor(info->dev));
	obj = json_pack("{s:i, s:s, s:b, s:s}", "pid", (int)getpid(), "dev", dev, "read_only",
			info->read_only, "volume", info->volume);
	if (!obj || text_set(obj, "dir", info->dir) || text_set(obj, "source", info->source)) {
		json_decref(obj);
		return -ENOMEM;
	}
	fd = openat(rd->fd, "info.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		    0644);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		json_decref(obj);
		return rc;
	}
	if (json_dumpf(obj, f, JSON_INDENT(1)))
		rc = -EIO;
	if (fputc('\n', f) == EOF)
		rc = -EIO;
	if (fclose(f))
		rc = -errno;
	if (!rc && renameat(rd->fd, "info.json.new", rd->fd, "info.json"))
		rc = -errno;
	json_decref(obj);
	return rc;
}

void rundir_remove(struct rundir *rd)
{
	if (rd->fd < 0)
		return;
	remove_contents(rd->fd, rd->path);
	close(rd->fd);
	rd->fd = -1;
}

/* ------------------------------------------------------------------ finding */

struct visit {
	int (*fn)(void *arg, const struct rundir_info *info);
	void *arg;
	unsigned long only_pid; /* 0: all */
	bool dead_too;
};

static int visit_base(const char *base, uid_t owner, struct visit *v)
{
	struct rundir_info info;
	struct dirent *de;
	unsigned long pid;
	struct stat st;
	int fd, rc = 0;
	DIR *d;

	/* D2: in /tmp anybody can have made it. */
	if (!is_own_dir(base, owner))
		return 0;
	d = opendir(base);
	if (!d)
		return 0;
	while (!rc && (de = readdir(d)) != NULL) {
		if (!parse_number(de->d_name, &pid) || (v->only_pid && pid != v->only_pid))
			continue;
		fd = open_dir_at(dirfd(d), de->d_name);
		if (fd < 0)
			continue;
		memset(&info, 0, sizeof(info));
		if (!fstat(fd, &st) && st.st_uid == owner && (v->dead_too || is_alive(fd)) &&
		    format_path(info.path, "%s/%s", base, de->d_name)) {
			if (!read_info_at(fd, &info) || v->dead_too) {
				info.pid = (pid_t)pid;
				info.uid = owner;
				rc = v->fn(v->arg, &info);
			}
		}
		close(fd);
	}
	closedir(d);
	return rc;
}

/* DIR/<prefix>UID<suffix> for all users. */
static int visit_users(const char *dir, const char *prefix, const char *suffix, struct visit *v)
{
	size_t len = strlen(prefix);
	char base[PATH_MAX];
	struct dirent *de;
	unsigned long uid;
	int rc = 0;
	DIR *d;

	d = opendir(dir);
	if (!d)
		return 0;
	while (!rc && (de = readdir(d)) != NULL) {
		if (!strncmp(de->d_name, prefix, len) && parse_number(de->d_name + len, &uid) &&
		    format_path(base, "%s/%s%s", dir, de->d_name, suffix))
			rc = visit_base(base, (uid_t)uid, v);
	}
	closedir(d);
	return rc;
}

static int visit_all(struct visit *v)
{
	char own[PATH_MAX];
	int rc;

	rc = visit_base(ROOT_BASE, 0, v);
	if (rc)
		return rc;
	if (is_root())
		rc = visit_users("/run/user", "", "/pmfs", v);
	else if (own_base(own) && strncmp(own, "/tmp/", 5))
		rc = visit_base(own, geteuid(), v);
	/* Ours, and those of others who let everybody in. */
	return rc ? rc : visit_users("/tmp", "pmfs-", "", v);
}

int rundir_each(int (*fn)(void *arg, const struct rundir_info *info), void *arg)
{
	return visit_all(&(struct visit){.fn = fn, .arg = arg});
}

struct find {
	dev_t dev;
	long uid;
	bool found;
	struct rundir_info *out;
};

static bool later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

static int match_find(void *arg, const struct rundir_info *info)
{
	struct find *f = arg;

	if (info->dev != f->dev || (f->uid >= 0 && info->uid != (uid_t)f->uid))
		return 0;
	if (!f->found || later(&info->published, &f->out->published))
		*f->out = *info;
	f->found = true;
	return 0;
}

int rundir_find_dev(dev_t dev, long uid, struct rundir_info *out)
{
	struct find f = {.dev = dev, .uid = uid, .out = out};
	int rc = rundir_each(match_find, &f);

	return rc ? rc : f.found ? 0 : -ENOENT;
}

static int take_info(void *arg, const struct rundir_info *info)
{
	*(struct rundir_info *)arg = *info;
	return 1;
}

#define PF_EXITING 4ul /* linux/sched.h; in the flags of /proc/PID/stat */

/* Killed or ending: it has a mount for a little longer, but no future. */
static bool is_ending(pid_t pid)
{
	unsigned long long pending;
	unsigned long flags = 0;
	char line[1024], *at;
	bool ending = true;
	FILE *f;

	snprintf(line, sizeof(line), "/proc/%d/stat", (int)pid);
	f = fopen(line, "re");
	if (!f)
		return true;
	/* The name, in parentheses, may hold anything. */
	if (fgets(line, sizeof(line), f) && (at = strrchr(line, ')')) != NULL &&
	    sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) == 1)
		ending = flags & PF_EXITING;
	fclose(f);
	snprintf(line, sizeof(line), "/proc/%d/status", (int)pid);
	f = ending ? NULL : fopen(line, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if ((sscanf(line, "SigPnd: %llx", &pending) == 1 ||
		     sscanf(line, "ShdPnd: %llx", &pending) == 1) &&
		    pending & (1ull << (SIGKILL - 1)))
			ending = true;
	}
	if (f)
		fclose(f);
	return ending;
}

struct by_source {
	const char *source;
	pid_t pid;
};

static int match_source(void *arg, const struct rundir_info *info)
{
	struct by_source *by = arg;
	const int fd = open_dir_at(AT_FDCWD, info->path);

	if (fd < 0)
		return 0;
	if (!strcmp(info->source, by->source) && is_alive(fd))
		by->pid = info->pid;
	close(fd);
	return by->pid != 0;
}

pid_t rundir_by_source(const char *source)
{
	struct by_source by = {.source = source};
	struct visit v = {.fn = match_source, .arg = &by, .dead_too = true};

	(void)visit_all(&v);
	return by.pid;
}

enum rundir_holder rundir_holder(pid_t pid, struct rundir_info *out)
{
	struct visit v = {
		.fn = take_info, .arg = out, .only_pid = (unsigned long)pid, .dead_too = true};
	int fd;
	bool alive;

	memset(out, 0, sizeof(*out));
	if (pid <= 0 || visit_all(&v) != 1)
		return HOLDER_STRANGER;
	fd = open_dir_at(AT_FDCWD, out->path);
	alive = fd >= 0 && is_alive(fd);
	if (fd >= 0)
		close(fd);
	/* The kernel gives the locks of a dead process back one by one. */
	if (!alive || is_ending(pid) || !out->dir[0] || !mountinfo_has_dev(out->dev))
		return HOLDER_LEAVING;
	return HOLDER_MOUNTED;
}
