/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/locate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/units.h"
#include "ctl/mountinfo.h"
#include "ctl/outcome.h"

static int fail(struct located *l, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct located *l, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->text, sizeof(l->text), fmt, ap);
	va_end(ap);
	l->exit = status;
	return status;
}

#define PATIENCE_MS     10000
#define PATIENCE_MAX_MS (24 * 3600 * 1000)

/* False: $PMFS_TIMEOUT is no such time. */
static bool patience(int *ms)
{
	const char *env = getenv("PMFS_TIMEOUT");
	int64_t ns;

	*ms = PATIENCE_MS;
	if (!env)
		return true;
	if (units_parse_duration(env, &ns) || ns < 1000000 || ns / 1000000 > PATIENCE_MAX_MS)
		return false;
	*ms = (int)(ns / 1000000);
	return true;
}

int locate_patience_ms(void)
{
	int ms;

	patience(&ms);
	return ms;
}

/* Nothing is located as long as the environment makes no sense. */
static bool begin(struct located *out)
{
	int ms;

	memset(out, 0, sizeof(*out));
	if (patience(&ms))
		return true;
	fail(out, OUTCOME_USAGE, "PMFS_TIMEOUT=%s is not a time from 1ms to 1d", getenv("PMFS_TIMEOUT"));
	return false;
}

struct found {
	int id;
	bool is_there;
	dev_t dev;
	long uid;
	char dir[PATH_MAX], type[64];
};

static int match_id(void *arg, const struct mount_entry *m)
{
	struct found *f = arg;

	if (m->id != f->id)
		return 0;
	f->is_there = true;
	f->dev = m->dev;
	f->uid = m->uid;
	snprintf(f->dir, sizeof(f->dir), "%s", m->dir);
	snprintf(f->type, sizeof(f->type), "%s", m->type);
	return 1;
}

/* The kernel's number of the mount that fd is in; no filesystem is asked. */
static int mount_id(int fd)
{
	char name[64], line[256];
	int id = -1;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	f = fopen(name, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "mnt_id: %d", &id) == 1)
			break;
	}
	fclose(f);
	return id;
}

/* `.pmfs` in the mount leads to RUNTIME/files: for daemons whose runtime directory is where we do
 * not look. */
static int follow_link(const struct found *f, struct rundir_info *info)
{
	char link[PATH_MAX], target[PATH_MAX], *slash;
	ssize_t n;

	if (snprintf(link, sizeof(link), "%s/.pmfs", f->dir) >= (int)sizeof(link))
		return -ENAMETOOLONG;
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = 0;
	slash = strrchr(target, '/');
	if (!slash || strcmp(slash, "/files"))
		return -ENOENT;
	*slash = 0;
	n = rundir_read(target, info);
	/* The mount may be anybody's; only a directory that says that it is this mount's counts. */
	return n ? (int)n : info->dev == f->dev ? 0 : -ENOENT;
}

/* Is it the session of statistics itself? */
static int of_files(const struct found *f, struct rundir_info *info)
{
	char path[PATH_MAX], *slash;

	if (strcmp(f->type, MOUNT_TYPE_FILES))
		return -ENOENT;
	snprintf(path, sizeof(path), "%s", f->dir);
	slash = strrchr(path, '/');
	if (!slash || strcmp(slash, "/files"))
		return -ENOENT;
	*slash = 0;
	return rundir_read(path, info);
}

static void look(const char *path, struct located *l)
{
	struct found f = {.id = -1};
	struct rundir_info info;
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0 && errno == ENOTCONN) {
		fail(l, OUTCOME_NO_DAEMON,
		     "the daemon of %s is gone; take the mount away: fusermount3 -uz DIR", path);
		return;
	}
	if (fd < 0) {
		fail(l, (int)outcome_of_errno(-errno), "can't look at %s: %s", path,
		     strerror(errno));
		return;
	}
	f.id = mount_id(fd);
	close(fd);
	mountinfo_each(match_id, &f);
	if (!f.is_there) {
		fail(l, OUTCOME_FAILED, "can't find out which mount %s is in; is /proc mounted?",
		     path);
		return;
	}
	if (strcmp(f.type, MOUNT_TYPE) && strcmp(f.type, MOUNT_TYPE_FILES)) {
		fail(l, OUTCOME_NOT_FOUND,
		     "%s is not inside a pmfs mount (it is %s); mount one with: pmfs IMAGE DIR",
		     path, f.type);
		return;
	}
	memset(&info, 0, sizeof(info));
	if (rundir_find_dev(f.dev, f.uid, &info) && of_files(&f, &info) && follow_link(&f, &info)) {
		if (f.uid >= 0 && f.uid != (long)geteuid() && geteuid() != 0)
			fail(l, OUTCOME_NOT_PERMITTED,
			     "%s is a mount of user %ld, who does not let others in (allow_other)",
			     f.dir, f.uid);
		else
			fail(l, OUTCOME_NO_DAEMON,
			     "the daemon of %s is gone; take the mount away: fusermount3 -uz %s",
			     f.dir, f.dir);
		return;
	}
	l->uid = info.uid;
	snprintf(l->dir, sizeof(l->dir), "%s", info.dir);
	snprintf(l->rundir, sizeof(l->rundir), "%s", info.path);
}

static bool write_all(int fd, const void *buf, size_t len)
{
	const char *at = buf;
	ssize_t n;

	while (len) {
		n = write(fd, at, len);
		if (n < 0 && errno != EINTR)
			return false;
		if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
	return true;
}

/* 0: all of it came in time. */
static int read_all(int fd, void *buf, size_t len, int64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char *at = buf;
	int64_t left;
	ssize_t n;

	while (len) {
		left = (deadline_ns - units_monotonic_ns()) / 1000000;
		if (left < 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left + 1) <= 0)
			continue;
		n = read(fd, at, len);
		if (!n || (n < 0 && errno != EINTR))
			return -EPIPE;
		if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int locate_daemon_here(const char *path, struct located *out)
{
	if (begin(out))
		look(path, out);
	return out->exit;
}

int locate_daemon(const char *path, struct located *out)
{
	int fds[2], rc;
	pid_t pid;

	if (!begin(out))
		return out->exit;
	if (pipe2(fds, O_CLOEXEC))
		return fail(out, OUTCOME_FAILED, "can't make a pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0) {
		close(fds[0]);
		close(fds[1]);
		return fail(out, OUTCOME_FAILED, "can't start a process: %s", strerror(errno));
	}
	if (!pid) {
		look(path, out);
		_exit(!write_all(fds[1], out, sizeof(*out)));
	}
	close(fds[1]);
	rc = read_all(fds[0], out, sizeof(*out),
		      units_monotonic_ns() + (int64_t)locate_patience_ms() * 1000000);
	close(fds[0]);
	if (rc)
		kill(pid, SIGKILL);
	/* A request that a ring of the daemon has been given keeps even who is killed, so no waiting
	 * for that one. */
	waitpid(pid, NULL, rc ? WNOHANG : 0);
	if (rc == -ETIMEDOUT)
		return fail(out, OUTCOME_NO_DAEMON, "the daemon of %s does not answer", path);
	if (rc)
		return fail(out, OUTCOME_FAILED,
			    "can't look at %s: the process that looks has died", path);
	return out->exit;
}
