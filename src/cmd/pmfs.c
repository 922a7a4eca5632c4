/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pmfs - mount an image or a RAM region, and serve it; list what is mounted; doctor.
 *
 * The process that was started waits until the daemon, its child, says through a pipe that the
 * mount answers requests, or has told why it can't.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/units.h"
#include "cmd/cli.h"
#include "cmd/doctor.h"
#include "cmd/image.h"
#include "cmd/mountopt.h"
#include "cmd/privileges.h"
#include "ctl/mountinfo.h"
#include "ctl/report.h"
#include "ctl/rundir.h"
#include "ctl/server.h"
#include "ctl/text.h"
#include "fuse/front.h"
#include "share/dedup.h"
#include "share/scrub.h"
#include "view/view.h"

static const char usage_text[] =
	"usage: pmfs IMAGE DIR [-o OPTION,...] [-f] [--create [--size SIZE]]\n"
	"       pmfs ram DIR [-o size=SIZE,...] [-f]\n"
	"       pmfs                 list what is mounted\n"
	"       pmfs doctor [DIR]    what works here, and what is missing\n"
	"\n"
	"Mounts an image, or a tree that lives in memory, on a directory.\n"
	"\n"
	"  -o OPTION,...  ro, size=SIZE, commit=SECONDS, allow_other, io_uring=auto|off,\n"
	"                 threads=N, snapdir=hidden|visible, writeback, noxattr, and the\n"
	"                 usual ones of mount(8)\n"
	"  -f             stay in the foreground\n"
	"      --create   make the image if it does not exist\n"
	"      --size S   how far a new image may grow: 512M, 10G, 1T\n"
	"      --json     answer in JSON\n"
	"  -q, -v         say less, say more\n"
	"  -h, -V         this help, the version\n"
	"See pmfs(1), pmfs-snap(1) and pmfs-ctl(1).\n";

enum { OPT_CREATE = CLI_OPT_FIRST, OPT_SIZE };

struct daemon {
	struct cli *cli;
	struct mountopt mo;
	bool ram, create, foreground;
	uint64_t size;	       /* of a new image, 0: default */
	char source[PATH_MAX]; /* "ram", or an absolute path */
	char dir[PATH_MAX];    /* absolute */
	struct rundir rundir;
	struct fs *fs;
	struct dedup *dedup;
	struct views *views;
	struct scrub *scrub;
	struct front *front;
	struct server *server;
	struct ctl_host host;
	int status_pipe;      /* -1: nobody waits */
	_Atomic bool serving; /* the mount has answered */
};

/* ------------------------------------------------------------------ what the front and the server
 * call */

static int host_flush(void *arg)
{
	struct daemon *d = arg;
	int rc = front_flush(d->front);

	/* Views are pages of the tree only when they have been saved. */
	if (!rc)
		rc = views_save(d->views);
	return rc < 0 ? rc : 0;
}

static void host_snapshot_gone(void *arg, const char *name, uint64_t root_id)
{
	front_snapshot_gone(((struct daemon *)arg)->front, name, root_id);
}

static bool host_passthrough(void *arg)
{
	struct front_info info;

	front_info(((struct daemon *)arg)->front, &info);
	return info.passthrough;
}

static int host_allowed(void *arg, uint32_t uid)
{
	(void)arg;
	return uid == 0 || uid == geteuid() ? 0 : -EPERM;
}

static int host_report(void *arg, json_t *into)
{
	struct daemon *d = arg;
	struct front_info info;
	json_t *features, *requests, *errors;

	front_info(d->front, &info);
	features = json_pack("{s:b, s:b, s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:I, s:I, s:I, s:I}",
			     "passthrough", info.passthrough, "io_uring", info.io_uring, "libfuse",
			     info.libfuse, "kernel", info.kernel, "writeback", info.writeback,
			     "killpriv_v2", info.killpriv_v2, "explicit_inval", info.explicit_inval,
			     "no_open", info.no_open, "readdirplus", info.readdirplus, "max_write",
			     (json_int_t)info.max_write, "max_readahead",
			     (json_int_t)info.max_readahead, "max_background",
			     (json_int_t)info.max_background, "threads", (json_int_t)info.threads);
	requests = json_object();
	errors = json_object();
	if (!features || !requests || !errors) {
		json_decref(features);
		json_decref(requests);
		json_decref(errors);
		return -ENOMEM;
	}
	json_object_set_new(requests, "total", json_integer((json_int_t)info.requests));
	json_object_set_new(errors, "total", json_integer((json_int_t)info.errors));
	for (const struct front_op_count *op = info.ops; op && op->name; op++) {
		uint64_t count = __atomic_load_n(&op->count, __ATOMIC_RELAXED);
		uint64_t failed = __atomic_load_n(&op->errors, __ATOMIC_RELAXED);

		if (count)
			json_object_set_new(requests, op->name, json_integer((json_int_t)count));
		if (failed)
			json_object_set_new(errors, op->name, json_integer((json_int_t)failed));
	}
	json_object_set_new(into, "features", features);
	json_object_set_new(into, "requests", requests);
	json_object_set_new(into, "errors", errors);
	return 0;
}

static char *front_file(void *arg, const char *name)
{
	return report_file(&((struct daemon *)arg)->host, name);
}

/* ------------------------------------------------------------------ going to the background */

/* Tell who waits how it went; false when nobody does any more. */
static bool tell_parent(struct daemon *d, int status)
{
	unsigned char byte = (unsigned char)status;
	bool told = true;

	if (d->status_pipe >= 0) {
		told = write(d->status_pipe, &byte, 1) == 1;
		close(d->status_pipe);
		d->status_pipe = -1;
	}
	return told;
}

static void detach(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_to_syslog("pmfs");
	if (fd < 0)
		return;
	for (int to = 0; to <= 2; to++)
		dup2(fd, to);
	if (fd > 2)
		close(fd);
}

static void on_ready(void *arg)
{
	struct daemon *d = arg;
	struct rundir_info info = {.read_only = d->mo.read_only, .volume = "live"};
	int rc;

	info.dev = mountinfo_dev_at(d->dir, MOUNT_TYPE);
	memcpy(info.dir, d->dir, sizeof(info.dir));
	memcpy(info.source, d->source, sizeof(info.source));
	rc = rundir_publish(&d->rundir, &info);
	if (rc)
		log_warn("%s will not find this mount: can't write %s/info.json: %s", "pmfs-snap",
			 d->rundir.path, strerror(-rc));
	privileges_hide();
	atomic_store(&d->serving, true);
	if (d->foreground) {
		log_info("%s is mounted on %s", d->source, d->dir);
	} else if (tell_parent(d, OUTCOME_DONE)) {
		detach();
		log_info("%s is mounted on %s", d->source, d->dir);
	} else {
		/* Whoever started us was interrupted. */
		front_stop(d->front);
	}
}

/* ------------------------------------------------------------------ messages while it opens */

#define HELD_MAX 16

/*
 * What the engine says while an image is opened is told when that worked.  When it did not, the one
 * line of the error says it all.
 */
static struct {
	size_t count; /* these are guarded by the log's own lock as long as hold_message() is set */
	enum log_level level[HELD_MAX];
	char text[HELD_MAX][512];
} held;

static void hold_message(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	if (held.count == HELD_MAX)
		return;
	held.level[held.count] = level;
	snprintf(held.text[held.count++], sizeof(held.text[0]), "%s", text);
}

static void release_messages(bool tell)
{
	log_to_function(NULL, NULL);
	for (size_t i = 0; tell && i < held.count; i++)
		log_msg(held.level[i], "%s", held.text[i]);
	held.count = 0;
}

/* ------------------------------------------------------------------ serving */

static int open_fs(struct daemon *d)
{
	struct fs_config cfg = {
		.store =
			{
				.path = d->ram ? NULL : d->source,
				.limit_bytes = d->mo.size,
				.read_only = d->mo.read_only,
				.commit_ms = d->mo.commit_ms,
				.background = true,
			},
		.background = true,
	};
	struct store_format how = {.limit_bytes = d->size};
	struct store_error err;
	struct stat st;
	int rc;

	image_owner(&cfg);
	if (d->ram && !cfg.store.limit_bytes)
		cfg.store.limit_bytes = image_default_ram();
	if (d->create && stat(d->source, &st) && errno == ENOENT) {
		if (!how.limit_bytes)
			how.limit_bytes = d->mo.size ? d->mo.size : image_default_size(d->source);
		rc = image_make(d->source, &how, &err);
		if (rc && rc != -EEXIST)
			return cli_fail(d->cli, (int)outcome_of_open(rc),
					"can't make the image: %s", err.text);
	}
	rc = image_open_fs(&d->fs, &cfg, &err);
	if (!rc)
		return OUTCOME_DONE;
	if (rc == -ENOENT)
		return cli_fail(d->cli, OUTCOME_NOT_FOUND,
				"there is no image %s; make it with --create or mkfs.pmfs",
				d->source);
	if ((rc == -EROFS || rc == -EACCES) && !d->mo.read_only)
		return cli_fail(d->cli, OUTCOME_NOT_PERMITTED,
				"can't mount it for writing: %s; try -o ro", err.text);
	return cli_fail(d->cli, (int)outcome_of_open(rc), "can't mount it: %s", err.text);
}

static int start_views(struct daemon *d)
{
	const struct views_config cfg = {
		.fs = d->fs,
		.limit_bytes = d->mo.views,
		.save_ms = d->mo.commit_ms,
		.own_fs = !d->mo.no_passthrough,
	};

	return views_new(&d->views, &cfg);
}

static int mount_outcome(int rc)
{
	switch (-rc) {
	case ENODEV:
	case ENXIO:
		return OUTCOME_FAILED;
	case ENOTCONN:
		return OUTCOME_BUSY;
	case EINVAL:
	case EOPNOTSUPP:
		return OUTCOME_FAILED;
	default:
		return (int)outcome_of_errno(rc);
	}
}

static int run_front(struct daemon *d)
{
	struct front_config cfg = {
		.fs = d->fs,
		.mountpoint = d->dir,
		.source = d->source,
		.runtime_dir = d->rundir.path,
		.read_only = d->mo.read_only,
		.allow_other = d->mo.allow_other,
		.dev = d->mo.dev,
		.suid = d->mo.suid,
		.snapdir_visible = d->mo.snapdir_visible,
		.writeback = d->mo.writeback,
		.no_xattr = d->mo.no_xattr,
		.io_uring = d->mo.io_uring,
		.threads = d->mo.threads,
		.mount_flags = d->mo.flags[0] ? d->mo.flags : NULL,
		.file = front_file,
		.file_arg = d,
		.views = d->views,
		.passthrough = !d->mo.no_passthrough,
		.ready = on_ready,
		.ready_arg = d,
	};
	char text[256] = "";
	int rc;

	/* The files below .pmfs show it as soon as they are mounted. */
	d->host = (struct ctl_host){
		.fs = d->fs,
		.dedup = d->dedup,
		.views = d->views,
		.scrub = d->scrub,
		.mountpoint = d->dir,
		.source = d->source,
		.arg = d,
		.flush = host_flush,
		.snapshot_gone = host_snapshot_gone,
		.report = host_report,
		.passthrough = host_passthrough,
		.allowed = host_allowed,
	};
	rc = front_new(&d->front, &cfg, text);
	if (rc && *text)
		return cli_fail(d->cli, mount_outcome(rc), "%s", text);
	if (rc)
		return cli_fail(d->cli, mount_outcome(rc), "can't mount on %s: %s", d->dir,
				strerror(-rc));
	rc = server_start(&d->server, &d->host, d->rundir.fd, d->mo.allow_other);
	if (rc)
		return cli_fail(d->cli, OUTCOME_FAILED, "can't listen in %s: %s", d->rundir.path,
				strerror(-rc));
	rc = front_run(d->front);
	if (rc && !atomic_load(&d->serving))
		return cli_fail(d->cli, mount_outcome(rc), "can't mount %s on %s: %s", d->source,
				d->dir, strerror(-rc));
	if (rc) {
		log_err("serving %s ended: %s", d->dir, strerror(-rc));
		return OUTCOME_FAILED;
	}
	return OUTCOME_DONE;
}

static int close_fs(struct daemon *d, int status)
{
	int rc = d->fs ? fs_close(d->fs) : 0;

	if (!rc)
		return status;
	log_err("%s: what was written last may be lost: %s", d->source, strerror(-rc));
	return status ? status : (int)outcome_of_errno(rc);
}

/* The daemon's whole life; an exit status. */
static int serve(struct daemon *d)
{
	const char *why;
	int rc, status;

	d->rundir.fd = -1;
	signal(SIGPIPE, SIG_IGN);
	privileges_drop();
	rc = rundir_create(&d->rundir, d->mo.allow_other, &why);
	if (rc)
		return cli_fail(d->cli, (int)outcome_of_errno(rc), "%s %s: %s", why, d->rundir.path,
				strerror(-rc));
	log_to_function(hold_message, NULL);
	status = open_fs(d);
	release_messages(!status || d->cli->verbose);
	if (!status) {
		rc = dedup_new(&d->dedup, fs_store(d->fs), DEDUP_MEMORY_DEFAULT);
		if (!rc)
			rc = start_views(d);
		if (!rc)
			rc = scrub_new(&d->scrub, d->fs);
		status = rc ? cli_fail(d->cli, (int)outcome_of_errno(rc), "can't start: %s",
				       strerror(-rc))
			    : run_front(d);
	}
	/* From here on it only ends; a second signal must not cut the last commit short. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	server_stop(d->server);
	if (d->front)
		front_free(d->front);
	views_free(d->views);
	scrub_free(d->scrub);
	if (d->dedup)
		dedup_free(d->dedup);
	status = close_fs(d, status);
	if (atomic_load(&d->serving))
		log_info("%s is no longer mounted on %s", d->source, d->dir);
	rundir_remove(&d->rundir);
	return status;
}

static json_t *mount_json(const char *dir, const char *source, pid_t pid, const char *volume,
			  bool read_only)
{
	json_t *m = json_object();

	/* In the order in which people read them. */
	if (!text_set(m, "dir", dir) && !text_set(m, "source", source) &&
	    !json_object_set_new(m, "pid", json_integer(pid)) &&
	    !json_object_set_new(m, "volume", json_string(volume)) &&
	    !json_object_set_new(m, "read_only", json_boolean(read_only)))
		return m;
	json_decref(m);
	return NULL;
}

/* The process that was started: how did it go? */
static int wait_for_daemon(struct daemon *d, int fd, pid_t pid)
{
	unsigned char status;
	int how;
	ssize_t n;

	do {
		n = read(fd, &status, 1);
	} while (n < 0 && errno == EINTR);
	close(fd);
	if (n == 1 && status == OUTCOME_DONE)
		return cli_done(d->cli,
				mount_json(d->dir, d->source, pid, "live", d->mo.read_only));
	if (n == 1)
		return status; /* it has said why */
	if (waitpid(pid, &how, 0) == pid && WIFSIGNALED(how))
		return cli_fail(d->cli, OUTCOME_FAILED,
				"can't mount %s: the daemon was killed by signal %d", d->source,
				WTERMSIG(how));
	return cli_fail(d->cli, OUTCOME_FAILED, "can't mount %s: the daemon ended without a word",
			d->source);
}

/*
 * Close what was inherited behind stderr, but for fd, which has a new number then: a lock or a pipe
 * of the caller's must not stay open for as long as the mount lasts.
 */
static int keep_only(int fd)
{
	const int first = STDERR_FILENO + 1;

	if (fd != first)
		dup3(fd, first, O_CLOEXEC);
	close_range((unsigned int)first + 1, ~0u, 0);
	return first;
}

static int start(struct daemon *d)
{
	int fds[2], status;
	pid_t pid;

	d->status_pipe = -1;
	if (d->foreground)
		return serve(d);
	if (pipe2(fds, O_CLOEXEC))
		return cli_fail(d->cli, OUTCOME_FAILED, "can't make a pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		return cli_fail(d->cli, OUTCOME_FAILED, "can't start the daemon: %s",
				strerror(errno));
	if (pid) {
		close(fds[1]);
		return wait_for_daemon(d, fds[0], pid);
	}
	d->status_pipe = keep_only(fds[1]);
	setsid();
	if (chdir("/"))
		log_warn("can't change to /: %s", strerror(errno));
	status = serve(d);
	if (!atomic_load(&d->serving) && !status)
		status = cli_fail(d->cli, OUTCOME_FAILED, "%s was unmounted before it could answer",
				  d->dir);
	tell_parent(d, status);
	return status;
}

/* ------------------------------------------------------------------ the command line */

static int find_image(struct daemon *d, const char *arg)
{
	char copy[PATH_MAX], parent[PATH_MAX], *name;

	if (!strcmp(arg, "ram")) {
		d->ram = true;
		strcpy(d->source, "ram");
		return OUTCOME_DONE;
	}
	if (realpath(arg, d->source))
		return OUTCOME_DONE;
	if (errno != ENOENT || !d->create)
		return cli_fail(d->cli, (int)outcome_of_errno(-errno),
				errno == ENOENT
					? "there is no image %s; make it with --create or mkfs.pmfs"
					: "can't open the image %s: %m",
				arg);
	if (strlen(arg) >= sizeof(copy))
		return cli_fail(d->cli, OUTCOME_USAGE, "the image's path is too long");
	strcpy(copy, arg);
	if (!realpath(dirname(copy), parent))
		return cli_fail(d->cli, (int)outcome_of_errno(-errno),
				"can't make the image %s: %m", arg);
	strcpy(copy, arg);
	name = basename(copy);
	if (snprintf(d->source, sizeof(d->source), "%s/%s", strcmp(parent, "/") ? parent : "",
		     name) >= PATH_MAX)
		return cli_fail(d->cli, OUTCOME_USAGE, "the image's path is too long");
	return OUTCOME_DONE;
}

static int find_dir(struct daemon *d, const char *arg)
{
	struct rundir_info info;
	struct stat st;
	dev_t dev;

	if (!realpath(arg, d->dir) || stat(d->dir, &st)) {
		if (errno == ENOENT)
			return cli_fail(d->cli, OUTCOME_NOT_FOUND,
					"there is no directory %s to mount on; make it first", arg);
		if (errno == ENOTCONN)
			return cli_fail(d->cli, OUTCOME_BUSY,
					"%s is still the mount of a daemon that is gone; take it "
					"away: fusermount3 -uz %s",
					arg, arg);
		return cli_fail(d->cli, (int)outcome_of_errno(-errno), "can't mount on %s: %m",
				arg);
	}
	if (!S_ISDIR(st.st_mode))
		return cli_fail(d->cli, OUTCOME_NOT_FOUND,
				"can't mount on %s: it is not a directory", arg);
	if (geteuid() && access(d->dir, W_OK))
		return cli_fail(
			d->cli, OUTCOME_NOT_PERMITTED,
			"can't mount on %s: only who may write to it, or root, may mount there",
			arg);
	dev = mountinfo_dev_at(d->dir, MOUNT_TYPE);
	/* The kernel may know the attributes of a dead mount's root for ever. */
	if (dev && rundir_find_dev(dev, -1, &info))
		return cli_fail(d->cli, OUTCOME_BUSY,
				"%s is still the mount of a daemon that is gone; take it away: "
				"fusermount3 -uz %s",
				arg, arg);
	if (dev)
		return cli_fail(d->cli, OUTCOME_BUSY,
				"there is a pmfs mounted on %s already; unmount it first, or "
				"choose another directory",
				arg);
	return OUTCOME_DONE;
}

static int check_device(struct daemon *d)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		return OUTCOME_DONE;
	}
	if (errno == EACCES || errno == EPERM)
		return cli_fail(d->cli, OUTCOME_NOT_PERMITTED,
				"can't open /dev/fuse: %m; pmfs doctor says what to change");
	return cli_fail(d->cli, OUTCOME_FAILED,
			"can't open /dev/fuse: %m; is the module there? try: modprobe fuse");
}

static int mount_command(struct daemon *d, char **operands)
{
	int status = find_image(d, operands[0]);

	if (!status && d->ram && (d->create || d->mo.read_only))
		status = cli_usage(d->cli, "a RAM region is always new: %s makes no sense with it",
				   d->create ? "--create" : "ro");
	if (!status)
		status = find_dir(d, operands[1]);
	if (!status)
		status = check_device(d);
	return status ? status : start(d);
}

/* ------------------------------------------------------------------ the list */

struct list {
	json_t *mounts;
	size_t count;
	dev_t *devs; /* of the live ones */
};

static int list_one(void *arg, const struct rundir_info *info)
{
	struct list *list = arg;
	dev_t *devs = realloc(list->devs, (list->count + 1) * sizeof(*devs));
	json_t *m = mount_json(info->dir, info->source, info->pid, info->volume, info->read_only);

	if (!devs || !m) {
		json_decref(m);
		return -ENOMEM;
	}
	list->devs = devs;
	devs[list->count++] = info->dev;
	return json_array_append_new(list->mounts, m) ? -ENOMEM : 0;
}

struct dead {
	struct cli *cli;
	const struct list *list;
};

/* Only the caller's own: the runtime directories of others may be closed to us. */
static int warn_dead(void *arg, const struct mount_entry *m)
{
	const struct dead *dead = arg;

	if (strcmp(m->type, MOUNT_TYPE))
		return 0;
	for (size_t i = 0; i < dead->list->count; i++) {
		if (dead->list->devs[i] == m->dev)
			return 0;
	}
	if (m->uid == (long)geteuid())
		cli_warn(dead->cli,
			 "%s is mounted, but its daemon is gone; take it away: fusermount3 -uz %s",
			 m->dir, m->dir);
	return 0;
}

static int list_command(struct cli *cli)
{
	struct list list = {.mounts = json_array()};
	struct dead dead = {.cli = cli, .list = &list};
	const json_t *m;
	size_t i;
	int rc = list.mounts ? rundir_each(list_one, &list) : -ENOMEM;

	if (!rc)
		mountinfo_each(warn_dead, &dead);
	free(list.devs);
	if (rc) {
		json_decref(list.mounts);
		return cli_fail(cli, OUTCOME_FAILED, "can't list what is mounted: %s",
				strerror(-rc));
	}
	if (!cli->json && !cli->quiet && json_array_size(list.mounts)) {
		printf("%-7s  %-4s  %-8s  %-32s  %s\n", "PID", "MODE", "VOLUME", "DIRECTORY",
		       "SOURCE");
		json_array_foreach(list.mounts, i, m)
		{
			printf("%-7lld  %-4s  %-8s  %-32s  %s\n",
			       json_integer_value(json_object_get(m, "pid")),
			       json_is_true(json_object_get(m, "read_only")) ? "ro" : "rw",
			       json_string_value(json_object_get(m, "volume")),
			       json_string_value(json_object_get(m, "dir")),
			       json_string_value(json_object_get(m, "source")));
		}
	}
	return cli_done(cli, json_pack("{s:o}", "mounts", list.mounts));
}

/* ------------------------------------------------------------------ */

static void set_version_note(void)
{
	static char note[256];
	struct front_build build;

	front_build_info(&build);
	snprintf(note, sizeof(note),
		 ", libfuse %s (io_uring %s, passthrough %s, O_TMPFILE %s, statx %s, killpriv v2 "
		 "%s)",
		 build.libfuse, build.io_uring ? "yes" : "no", build.passthrough ? "yes" : "no",
		 build.tmpfile ? "yes" : "no", build.statx ? "yes" : "no",
		 build.killpriv_v2 ? "yes" : "no");
	cli_set_version_note(note);
}

static int parse_option(struct daemon *d, int c, bool helper)
{
	char why[160];
	int rc;

	switch (c) {
	case 'o':
		rc = mountopt_parse(&d->mo, optarg, geteuid() == 0, why, sizeof(why));
		if (rc == -EPERM)
			return cli_fail(d->cli, OUTCOME_NOT_PERMITTED, "%s", why);
		return rc ? cli_usage(d->cli, "%s", why) : OUTCOME_DONE;
	case 'f':
		/* To mount(8)'s helpers it means: only look whether it would work. */
		d->foreground = true;
		return OUTCOME_DONE;
	case 't':
	case 's':
	case 'n':
		return helper ? OUTCOME_DONE
			      : cli_usage(d->cli, "the option -%c is not known here", c);
	case OPT_CREATE:
		d->create = true;
		return OUTCOME_DONE;
	default:
		if (units_parse_size(optarg, &d->size) || !d->size)
			return cli_usage(d->cli, "%s is not a size such as 512M or 10G", optarg);
		return OUTCOME_DONE;
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		CLI_LONG,
		{"create", no_argument, NULL, OPT_CREATE},
		{"size", required_argument, NULL, OPT_SIZE},
		{"foreground", no_argument, NULL, 'f'},
		{0},
	};
	/* mount(8) calls us under this name: SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE] */
	const char *slash = strrchr(argv[0], '/');
	bool helper = !strcmp(slash ? slash + 1 : argv[0], "mount.fuse.pmfs");
	static struct daemon d;
	struct cli cli;
	int c, status = OUTCOME_DONE, left;

	cli_init(&cli, "pmfs", usage_text, argc, argv);
	set_version_note();
	d.cli = &cli;
	mountopt_init(&d.mo);
	if (fault_init_env())
		return cli_usage(&cli, "PMFS_FAULTS can't be understood");
	while (!status && (c = cli_getopt(&cli, argc, argv, ":" CLI_SHORT "o:ft:sn", longs)) != -1)
		status = c == '?' ? OUTCOME_USAGE : parse_option(&d, c, helper);
	if (status)
		goto out;
	log_set_level(cli.quiet			     ? LOG_LEVEL_ERR
		      : cli.verbose > 1		     ? LOG_LEVEL_DEBUG
		      : cli.verbose || !d.foreground ? LOG_LEVEL_INFO
						     : LOG_LEVEL_WARN);
	left = argc - optind;
	if (d.size && !d.create)
		status = cli_usage(&cli,
				   "--size goes with --create; the option size= limits a mount");
	else if (helper && d.foreground)
		status = OUTCOME_DONE;
	else if (left >= 1 && left <= 2 && !strcmp(argv[optind], "doctor")) {
		snprintf(cli.command, sizeof(cli.command), "pmfs doctor");
		status = doctor_run(&cli, left == 2 ? argv[optind + 1] : NULL);
	} else if (left == 0) {
		status = list_command(&cli);
	} else if (left == 1) {
		status = cli_usage(&cli, "%s: where to? a directory to mount on is missing",
				   argv[optind]);
	} else if (left == 2) {
		status = mount_command(&d, argv + optind);
	} else {
		status = cli_usage(&cli, "%s is too much", argv[optind + 2]);
	}
out:
	cli_free(&cli);
	return status;
}
