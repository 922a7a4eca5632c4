/* SPDX-License-Identifier: BSD-2-Clause */
/* Mounting and unmounting, and saying in one line why it did not work. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "fuse/front_impl.h"

/* The last complaint of libfuse, without its "fuse: "; mounting is one thread's business. */
static char last_message[200];
static _Atomic bool keep_messages;

static void message(enum fuse_log_level level, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

static void message(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[200];
	const char *from = text;
	size_t len;

	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		return;
	len = strlen(text);
	while (len && text[len - 1] == '\n')
		text[--len] = '\0';
	if (!strncmp(from, "fuse: ", 6))
		from += 6;
	if (atomic_load(&keep_messages)) {
		snprintf(last_message, sizeof(last_message), "%s", from);
		return;
	}
	if (level <= FUSE_LOG_ERR)
		log_limited(LOG_LEVEL_WARN, "libfuse", "libfuse: %s", from);
	else
		log_debug("libfuse: %s", from);
}

void mount_catch_messages(void)
{
	fuse_set_log_func(message);
}

char *mount_escape(const char *name, const char *value)
{
	char *out = malloc(strlen(name) + 2 * strlen(value) + 4);
	char *to;

	if (!out)
		return NULL;
	to = out + sprintf(out, "-o%s=", name);
	for (; *value; value++) {
		if (*value == ',' || *value == '\\')
			*to++ = '\\';
		*to++ = *value;
	}
	*to = '\0';
	return out;
}

/* mountinfo writes space, tab, newline and backslash in octal. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

int mount_find(const char *mountpoint, uint64_t *dev, char type[64])
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int rc = -ENOENT;

	if (!f)
		return -errno;
	while (getline(&line, &size, f) > 0) {
		unsigned int major, minor;
		char *at = NULL, *dash;
		int place = 0;

		if (sscanf(line, "%*d %*d %u:%u %*s %n", &major, &minor, &place) < 2 || !place)
			continue;
		dash = strstr(line + place, " - ");
		if (!dash)
			continue;
		at = line + place;
		at[strcspn(at, " ")] = '\0';
		unescape(at);
		if (strcmp(at, mountpoint))
			continue;
		/* The last one is on top. */
		*dev = makedev(major, minor);
		sscanf(dash + 3, "%63s", type);
		rc = 0;
	}
	free(line);
	fclose(f);
	return rc;
}

static int helper_unmount(const char *mountpoint, bool lazy)
{
	int status = -1;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		const int null = open("/dev/null", O_RDWR);

		if (null >= 0) {
			dup2(null, 1);
			dup2(null, 2);
		}
		if (lazy)
			execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", mountpoint,
			       (char *)NULL);
		else
			execlp("fusermount3", "fusermount3", "-u", "-q", "--", mountpoint,
			       (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int mount_remove(const char *mountpoint, uint64_t dev, bool lazy)
{
	char type[64];
	uint64_t found;

	if (mount_find(mountpoint, &found, type) || found != dev)
		return -ENOENT;
	if (!umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
		return 0;
	if (errno != EPERM)
		return -errno;
	return helper_unmount(mountpoint, lazy);
}

int mount_check(const char *mountpoint, char text[256])
{
	char type[64] = "";
	struct stat st;
	uint64_t dev = 0;
	bool ours;

	ours = !mount_find(mountpoint, &dev, type) && !strncmp(type, "fuse.pmfs", 9);
	if (stat(mountpoint, &st) == 0) {
		if (ours) {
			snprintf(text, 256,
				 "%s: a pmfs is mounted there already; unmount it with: umount %s",
				 mountpoint, mountpoint);
			return -EBUSY;
		}
		if (!S_ISDIR(st.st_mode)) {
			snprintf(text, 256, "%s: the mount point is not a directory", mountpoint);
			return -ENOTDIR;
		}
		return 0;
	}
	if (errno == ENOTCONN) {
		snprintf(text, 256,
			 "%s: a dead mount is in the way; take it away with: fusermount3 -uz %s",
			 mountpoint, mountpoint);
		return -EBUSY;
	}
	if (errno == ENOENT)
		snprintf(text, 256, "%s: the mount point does not exist; make it with: mkdir -p %s",
			 mountpoint, mountpoint);
	else
		snprintf(text, 256, "%s: the mount point can't be used: %s", mountpoint,
			 strerror(errno));
	return -errno;
}

/* Run fuse_session_mount() with stderr in a pipe: fusermount3, which an ordinary user needs, writes
 * there. */
static int mount_quietly(struct fuse_session *se, const char *mountpoint)
{
	int fds[2], saved = -1, rc;
	ssize_t n;

	if (geteuid() == 0 || pipe2(fds, O_CLOEXEC))
		return fuse_session_mount(se, mountpoint);
	fflush(stderr);
	saved = fcntl(2, F_DUPFD_CLOEXEC, 3);
	dup2(fds[1], 2);
	rc = fuse_session_mount(se, mountpoint);
	if (saved >= 0) {
		dup2(saved, 2);
		close(saved);
	}
	close(fds[1]);
	if (rc) {
		char text[sizeof(last_message)];

		n = read(fds[0], text, sizeof(text) - 1);
		if (n > 0) {
			text[n] = '\0';
			text[strcspn(text, "\n")] = '\0';
			snprintf(last_message, sizeof(last_message), "%s", text);
		}
	}
	close(fds[0]);
	return rc;
}

int mount_session(struct fuse_session *se, const char *mountpoint, char text[256])
{
	const char *advice = "";
	int rc;

	if (access("/dev/fuse", F_OK)) {
		snprintf(text, 256,
			 "%s: can't mount: /dev/fuse is missing; load the module with: modprobe "
			 "fuse",
			 mountpoint);
		return -ENODEV;
	}
	last_message[0] = '\0';
	atomic_store(&keep_messages, true);
	errno = 0;
	rc = mount_quietly(se, mountpoint);
	atomic_store(&keep_messages, false);
	if (!rc)
		return 0;
	if (strstr(last_message, "user_allow_other"))
		advice = "; add that line to /etc/fuse.conf or mount without allow_other";
	snprintf(text, 256, "%s: can't mount: %s%s", mountpoint,
		 last_message[0] ? last_message : "libfuse gave no reason", advice);
	if (strstr(last_message, "ermi") || strstr(last_message, "allow"))
		return -EPERM;
	return -EIO;
}

void mount_set_readahead(uint64_t dev, unsigned kib)
{
	char path[80];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
	f = fopen(path, "we");
	if (!f) {
		log_debug("%s: %s", path, strerror(errno));
		return;
	}
	fprintf(f, "%u\n", kib);
	if (fclose(f))
		log_debug("%s: %s", path, strerror(errno));
}
