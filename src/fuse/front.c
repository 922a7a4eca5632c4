/* SPDX-License-Identifier: BSD-2-Clause */
/* The life of a mount: what is agreed with the kernel, the threads, the end. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "fuse/front_impl.h"
#include "fuse/protocol.h"

#define THREADS_MAX   32u /* of the classic device, unless the configuration says how many */
#define READAHEAD_KIB 1024u

_Thread_local struct request this_request;

/* ------------------------------------------------------------------ answers */

bool request_is_ring(fuse_req_t req)
{
#if FRONT_URING
	return fuse_req_is_uring(req);
#else
	(void)req;
	return false;
#endif
}

struct front *request_begin(fuse_req_t req, enum front_op op)
{
	struct front *fr = front_of(req);

	__atomic_fetch_add(&fr->ops[op].count, 1, __ATOMIC_RELAXED);
	/* Agreed is not yet done: a ring that can't be set up leaves the classic device. */
	if (atomic_load(&fr->uring_agreed) && !atomic_load(&fr->uring) && request_is_ring(req))
		atomic_store(&fr->uring, true);
	return fr;
}

void request_refuse(fuse_req_t req, int err)
{
	fuse_reply_err(req, -err);
}

void request_fail(fuse_req_t req, enum front_op op, int err)
{
	struct front *fr = front_of(req);

	if (err)
		__atomic_fetch_add(&fr->ops[op].errors, 1, __ATOMIC_RELAXED);
	if (err == -EIO || err == -EBADMSG || err == -EUCLEAN) {
		log_limited(LOG_LEVEL_ERR, fr->ops[op].name, "%s: %s", fr->ops[op].name,
			    strerror(-err));
		/* A program that reads a file knows what EIO is, and nothing of checksums. */
		err = -EIO;
	}
	fuse_reply_err(req, -err);
}

/* ---------------------------------------------------------------- what is agreed with the kernel
 */

bool conn_can(const struct fuse_conn_info *conn, uint64_t cap)
{
#if FUSE_USE_VERSION >= 317
	return (conn->capable_ext & cap) == cap;
#else
	return (conn->capable & cap) == cap;
#endif
}

bool conn_want(struct fuse_conn_info *conn, uint64_t cap, bool on)
{
	on = on && conn_can(conn, cap);
#if FUSE_USE_VERSION >= 317
	if (on)
		fuse_set_feature_flag(conn, cap);
	else
		fuse_unset_feature_flag(conn, cap);
#else
	if (on)
		conn->want |= (unsigned)cap;
	else
		conn->want &= ~(unsigned)cap;
#endif
	return on;
}

bool conn_want_common(struct fuse_conn_info *conn)
{
	static const uint64_t unwanted[] = {
		/* Would throw a file's cached pages away after each of its own writes. */
		FUSE_CAP_AUTO_INVAL_DATA,
		/* Without OPEN nobody would tell us of the O_TRUNC; this way a SETATTR comes. */
		FUSE_CAP_ATOMIC_O_TRUNC,
		/* Slower than copying. */
		FUSE_CAP_SPLICE_READ, FUSE_CAP_SPLICE_WRITE, FUSE_CAP_SPLICE_MOVE,
		/* The kernel keeps locks by itself. */
		FUSE_CAP_POSIX_LOCKS, FUSE_CAP_FLOCK_LOCKS,
	};

	for (size_t i = 0; i < ARRAY_SIZE(unwanted); i++)
		conn_want(conn, unwanted[i], false);
	if (conn->max_write > LOOP_MAX_WRITE)
		conn->max_write = LOOP_MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND;
	conn->time_gran = 1;
	return conn_want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA, true);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct front *fr = userdata;

	atomic_store(&fr->explicit_inval, conn_want_common(conn));
	/* With access control lists the umask is ours to apply: a default list takes its place. */
	atomic_store(&fr->posix_acl, conn_want(conn, FUSE_CAP_POSIX_ACL, !fr->cfg.no_xattr));
	conn_want(conn, FUSE_CAP_DONT_MASK, atomic_load(&fr->posix_acl));
	/* A node id is good as long as its inode exists, so a handle can be opened at any time. */
	conn_want(conn, FUSE_CAP_EXPORT_SUPPORT, true);
	conn_want(conn, FUSE_CAP_HANDLE_KILLPRIV, false);
	conn_want(conn, FUSE_CAP_ASYNC_READ, true);
	conn_want(conn, FUSE_CAP_ASYNC_DIO, true);
	conn_want(conn, FUSE_CAP_PARALLEL_DIROPS, true);
	conn_want(conn, FUSE_CAP_CACHE_SYMLINKS, true);
	conn_want(conn, FUSE_CAP_READDIRPLUS_AUTO, true);
	atomic_store(&fr->readdirplus, conn_want(conn, FUSE_CAP_READDIRPLUS, true));
	atomic_store(&fr->writeback, conn_want(conn, FUSE_CAP_WRITEBACK_CACHE, fr->cfg.writeback));
	atomic_store(&fr->no_open, conn_can(conn, FUSE_CAP_NO_OPEN_SUPPORT));
#if defined(HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2) && HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2
	atomic_store(&fr->killpriv_v2,
		     conn_want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2, !fault_hit("fuse.killpriv_v2")));
#endif
#if defined(HAVE_DECL_FUSE_CAP_SETXATTR_EXT) && HAVE_DECL_FUSE_CAP_SETXATTR_EXT
	/* A ring does not show us what it says. */
	atomic_store(&fr->setxattr_ext, conn_want(conn, FUSE_CAP_SETXATTR_EXT, fr->loop != NULL));
#endif
#if defined(HAVE_DECL_FUSE_CAP_PASSTHROUGH) && HAVE_DECL_FUSE_CAP_PASSTHROUGH
	/* It excludes the writeback cache and doing without OPEN: a thing of the control session.
	 */
	conn_want(conn, FUSE_CAP_PASSTHROUGH, false);
#endif
#if FRONT_URING
	atomic_store(&fr->uring_agreed,
		     conn_want(conn, FUSE_CAP_OVER_IO_URING, atomic_load(&fr->uring_wanted)));
#endif
#ifdef HAVE_STRUCT_FUSE_CONN_INFO_NO_INTERRUPT
	/* No handler can be interrupted, so nobody has to keep a list of those that might. */
	conn->no_interrupt = 1;
#endif
	atomic_store(&fr->max_write, conn->max_write);
	atomic_store(&fr->max_background, conn->max_background);
	atomic_store(&fr->max_readahead, conn->max_readahead);
	atomic_store(&fr->proto_minor, conn->proto_minor);
	atomic_store(&fr->init_done, true);
}

/* What of this libfuse does not know yet (PROTOCOL_*). */
#if defined(HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2) && HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2
#define OWN_KILLPRIV 0u
#else
#define OWN_KILLPRIV PROTOCOL_KILLPRIV_V2
#endif
#if defined(HAVE_DECL_FUSE_CAP_SETXATTR_EXT) && HAVE_DECL_FUSE_CAP_SETXATTR_EXT
#define OWN_SETXATTR 0u
#else
#define OWN_SETXATTR PROTOCOL_SETXATTR_EXT
#endif
#define OWN_FEATURES (OWN_KILLPRIV | OWN_SETXATTR)

/* Each request, before libfuse decodes it. */
static void before_request(void *arg, void *request, size_t len)
{
	struct front *fr = arg;

	this_request = (struct request){
		.unique = protocol_unique(request),
		.init = protocol_offers(request, len) & OWN_FEATURES,
	};
	if (OWN_KILLPRIV)
		this_request.kill_priv = protocol_kills_priv(request, len);
	if (atomic_load(&fr->setxattr_ext)) {
		this_request.kill_sgid = protocol_kills_sgid(request, len);
		if (OWN_SETXATTR)
			protocol_setxattr_compat(request, len);
	}
#ifndef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_TMPFILE
	this_request.tmpfile = protocol_tmpfile_to_create(request, len);
#endif
}

#if !(defined(HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2) && HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2)
/*
 * A libfuse that does not know HANDLE_KILLPRIV_V2 yet costs one GETXATTR in front of every
 * write(2).  It sends its replies through this function, so the answer to INIT can say that we do;
 * the same for SETXATTR_EXT.
 */
static ssize_t reply_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	unsigned features = this_request.init;
	struct front *fr = userdata;

	/* As with a kernel that does not have it. */
	if (features && fault_hit("fuse.killpriv_v2"))
		features &= ~PROTOCOL_KILLPRIV_V2;
	this_request.init = 0;
	if (features && protocol_take(iov, count, features)) {
		if (features & PROTOCOL_KILLPRIV_V2)
			atomic_store(&fr->killpriv_v2, true);
		if (features & PROTOCOL_SETXATTR_EXT)
			atomic_store(&fr->setxattr_ext, true);
	}
	return writev(fd, iov, count);
}

static ssize_t request_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

static int take_over_replies(struct front *fr)
{
	const struct fuse_custom_io io = {.writev = reply_writev, .read = request_read};

	return fuse_session_custom_io(fr->se, &io, fuse_session_fd(fr->se));
}
#else
static int take_over_replies(struct front *fr)
{
	(void)fr;
	return 0;
}
#endif

/* ------------------------------------------------------------------ making it */

static bool uring_possible(void)
{
#if FRONT_URING
	FILE *f = fopen("/sys/module/fuse/parameters/enable_uring", "re");
	const int c = f ? getc(f) : 'N';

	if (f)
		fclose(f);
	return c == 'Y' || c == '1';
#else
	return false;
#endif
}

/* Never one alone: while it waits for a disk, nobody would take the WRITEs that an invalidation
 * waits for. */
static unsigned threads_max(const struct front_config *cfg)
{
	if (!cfg->threads)
		return THREADS_MAX;
	return cfg->threads < 2 ? 2 : cfg->threads;
}

static bool add_option(struct fuse_args *args, bool when, const char *option)
{
	return !when || !fuse_opt_add_arg(args, option);
}

static bool add_value(struct fuse_args *args, const char *name, const char *value)
{
	char *option = mount_escape(name, value);
	const bool ok = option && !fuse_opt_add_arg(args, option);

	free(option);
	return ok;
}

static int session_new(struct front *fr)
{
	const struct front_config *cfg = &fr->cfg;
	struct fuse_lowlevel_ops ops = {.init = op_init};
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char flags[200], depth[40];
	bool ok;

	ops_meta(&ops);
	ops_dir(&ops);
	ops_file(&ops);
	snprintf(flags, sizeof(flags), "-o%s", cfg->mount_flags ? cfg->mount_flags : "");
	snprintf(depth, sizeof(depth), "-oio_uring_q_depth=%u", cfg->uring_depth);
	ok = add_option(&args, true, "pmfs") &&
	     add_option(&args, true, "-odefault_permissions,subtype=pmfs") &&
	     add_value(&args, "fsname", cfg->source) && add_option(&args, cfg->read_only, "-oro") &&
	     add_option(&args, cfg->allow_other, "-oallow_other") &&
	     add_option(&args, cfg->dev, "-odev") && add_option(&args, cfg->suid, "-osuid") &&
	     add_option(&args, cfg->mount_flags, flags) &&
	     add_option(&args, atomic_load(&fr->uring_wanted), "-oio_uring") &&
	     add_option(&args, atomic_load(&fr->uring_wanted) && cfg->uring_depth, depth);
	if (ok)
		fr->se = fuse_session_new(&args, &ops, sizeof(ops), fr);
	fuse_opt_free_args(&args);
	if (!ok)
		return -ENOMEM;
	return fr->se ? 0 : -EINVAL;
}

/* Copy what cfg points to. */
static int config_copy(struct front *fr, const struct front_config *cfg)
{
	const char *from[4] = {cfg->mountpoint, cfg->source, cfg->runtime_dir, cfg->mount_flags};
	const char **to[4] = {&fr->cfg.mountpoint, &fr->cfg.source, &fr->cfg.runtime_dir,
			      &fr->cfg.mount_flags};

	fr->cfg = *cfg;
	for (size_t i = 0; i < 4; i++) {
		if (!from[i])
			continue;
		fr->strings[i] = strdup(from[i]);
		if (!fr->strings[i])
			return -ENOMEM;
		*to[i] = fr->strings[i];
	}
	return 0;
}

static void watched_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

static int prepare(struct front *fr)
{
	static const char *const names[OP_COUNT] = {
#define X(op, name) name,
		FRONT_OPS(X)
#undef X
	};
	sigset_t set;

	for (size_t i = 0; i < OP_COUNT; i++)
		fr->ops[i].name = names[i];
	/* Blocked from here on, in all threads that come, so that one can wait for them. */
	watched_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fr->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fr->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fr->stop_event < 0 || fr->signals < 0 ? -errno : 0;
}

int front_new(struct front **out, const struct front_config *cfg, char text[256])
{
	struct front *fr = calloc(1, sizeof(*fr));
	char control_dir[4096], why[256];
	int rc;

	text[0] = '\0';
	if (!fr)
		return -ENOMEM;
	fr->stop_event = fr->signals = -1;
	rw_init(&fr->alive_lock, LOCK_MOUNT);
	fr->fs = cfg->fs;
	fr->root = fs_root(cfg->fs);
	mount_catch_messages();
	rc = config_copy(fr, cfg);
	if (rc)
		goto fail;
	rc = prepare(fr);
	if (rc)
		goto fail;
	rc = mount_check(fr->cfg.mountpoint, text);
	if (rc)
		goto fail;
	atomic_store(&fr->uring_wanted, cfg->io_uring != 0 && uring_possible());
	if (cfg->io_uring > 0 && !atomic_load(&fr->uring_wanted))
		log_warn("io_uring is not available here; using the classic device");
	rc = session_new(fr);
	if (rc) {
		snprintf(text, 256, "libfuse refuses the options of this mount");
		goto fail;
	}
	rc = mount_session(fr->se, fr->cfg.mountpoint, text);
	if (rc)
		goto fail;
	fr->mounted = true;
	fr->alive = true;
	rc = take_over_replies(fr);
	if (!rc && !atomic_load(&fr->uring_wanted))
		rc = loop_new(&fr->loop, fr->se, threads_max(cfg), before_request, fr);
	if (!rc)
		rc = notify_new(&fr->notify, fr, fr->se);
	if (!rc)
		rc = notify_new(&fr->moved, fr, fr->se);
	if (rc)
		goto fail;
	/* Before the files answer, which ask for what is served. */
	*out = fr;
	if (fr->cfg.runtime_dir) {
		snprintf(control_dir, sizeof(control_dir), "%s/files", fr->cfg.runtime_dir);
		if (control_new(&fr->control, fr, control_dir, why))
			log_warn(".pmfs will be empty: %s", why);
	}
	return 0;
fail:
	if (!text[0])
		snprintf(text, 256, "%s", strerror(-rc));
	front_free(fr);
	return rc;
}

/* ------------------------------------------------------------------ running it */

/* Things that need a mount that answers. */
static void *setup_main(void *arg)
{
	struct front *fr = arg;
	char type[64];
	struct statvfs sv;
	uint64_t dev;

	/* Waits for the answer to INIT and to this. */
	if (statvfs(fr->cfg.mountpoint, &sv) || !atomic_load(&fr->init_done) ||
	    mount_find(fr->cfg.mountpoint, &dev, type)) {
		if (!atomic_load(&fr->ended))
			log_warn("%s: the mount does not answer", fr->cfg.mountpoint);
		front_stop(fr);
		return NULL;
	}
	atomic_store(&fr->dev, dev);
	if (geteuid() == 0)
		mount_set_readahead(dev, READAHEAD_KIB);
	if (fr->cfg.io_uring > 0 && atomic_load(&fr->uring_wanted) &&
	    !atomic_load(&fr->uring_agreed))
		log_warn("the kernel does not offer io_uring; using the classic device");
	if (fr->cfg.ready)
		fr->cfg.ready(fr->cfg.ready_arg);
	return NULL;
}

/* No notification from here on. */
static void set_dead(struct front *fr)
{
	rw_wrlock(&fr->alive_lock);
	fr->alive = false;
	rw_unlock(&fr->alive_lock);
}

static void end_loop(struct front *fr)
{
	/* While requests are still served: a notification may wait for a WRITE in the queue. */
	set_dead(fr);
	if (fr->loop) {
		loop_exit(fr->loop);
		return;
	}
	fuse_session_exit(fr->se);
}

static void shut_down(struct front *fr)
{
	const uint64_t dev = atomic_load(&fr->dev);
	int rc;

	atomic_store(&fr->told_to_stop, true);
	rc = front_flush(fr);
	if (rc && rc != -ENOTCONN)
		log_warn("%s: the kernel may have kept dirty pages: %s", fr->cfg.mountpoint,
			 strerror(-rc));
	/* A mount that nobody uses ends everything by itself, with all that the kernel had. */
	if (dev && !mount_remove(fr->cfg.mountpoint, dev, false))
		return;
	if (dev && !mount_remove(fr->cfg.mountpoint, dev, true))
		log_info("%s was in use; unmounted all the same", fr->cfg.mountpoint);
	end_loop(fr);
}

static void *stopper_main(void *arg)
{
	struct front *fr = arg;
	struct pollfd fds[2] = {
		{.fd = fr->stop_event, .events = POLLIN},
		{.fd = fr->signals, .events = POLLIN},
	};
	struct signalfd_siginfo si;

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	if (atomic_load(&fr->ended))
		return NULL;
	if (read(fr->signals, &si, sizeof(si)) == sizeof(si))
		log_info("%s: unmounting on signal %u", fr->cfg.mountpoint, si.ssi_signo);
	shut_down(fr);
	return NULL;
}

static int run_session(struct front *fr)
{
	struct fuse_loop_config *config;
	int rc;

	if (fr->loop)
		return loop_run(fr->loop);
	config = fuse_loop_cfg_create();
	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(config, threads_max(&fr->cfg));
	rc = fuse_session_loop_mt(fr->se, config);
	fuse_loop_cfg_destroy(config);
	return rc > 0 ? -EIO : rc;
}

/*
 * A connection that was aborted leaves its mount behind.  After an unmount another daemon may have
 * mounted in the same place, even with the same device number; that one answers.
 */
static void remove_dead_mount(struct front *fr)
{
	const uint64_t dev = atomic_load(&fr->dev);
	uint64_t found;
	char type[64];
	struct statvfs sv;

	if (!dev || mount_find(fr->cfg.mountpoint, &found, type) || found != dev)
		return;
	/* Not stat(2), which the kernel can answer out of its cache. */
	if (statvfs(fr->cfg.mountpoint, &sv) && (errno == ENOTCONN || errno == ECONNABORTED))
		mount_remove(fr->cfg.mountpoint, dev, true);
}

int front_run(struct front *fr)
{
	pthread_t stopper, setup;
	int rc;

	rc = thread_start(&stopper, "pmfs-stopper", stopper_main, fr);
	if (rc)
		return rc;
	rc = thread_start(&setup, "pmfs-setup", setup_main, fr);
	if (!rc) {
		rc = run_session(fr);
		if (!atomic_load(&fr->init_done) && !atomic_load(&fr->told_to_stop) && !rc)
			rc = -EPROTO;
	}
	atomic_store(&fr->ended, true);
	/* Ends what still waits for the mount: setup, a flush. */
	set_dead(fr);
	fuse_session_unmount(fr->se);
	remove_dead_mount(fr);
	fr->mounted = false;
	front_stop(fr);
	thread_join(setup);
	thread_join(stopper);
	return rc;
}

void front_stop(struct front *fr)
{
	const uint64_t one = 1;

	if (write(fr->stop_event, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warn("stopping: %s", strerror(errno));
}

void front_free(struct front *fr)
{
	if (!fr)
		return;
	notify_free(fr->moved);
	notify_free(fr->notify);
	control_free(fr->control);
	if (fr->mounted)
		fuse_session_unmount(fr->se);
	if (fr->se)
		fuse_session_destroy(fr->se);
	loop_free(fr->loop);
	if (fr->stop_event >= 0)
		close(fr->stop_event);
	if (fr->signals >= 0)
		close(fr->signals);
	rw_destroy(&fr->alive_lock);
	for (size_t i = 0; i < 4; i++)
		free(fr->strings[i]);
	free(fr);
}

/* ------------------------------------------------------------------ what it is like */

void front_info(struct front *fr, struct front_info *out)
{
	struct utsname un;

	memset(out, 0, sizeof(*out));
	snprintf(out->libfuse, sizeof(out->libfuse), "%s", fuse_pkgversion());
	if (!uname(&un))
		snprintf(out->kernel, sizeof(out->kernel), "%.50s, FUSE 7.%u", un.release,
			 atomic_load(&fr->proto_minor));
	out->io_uring = atomic_load(&fr->uring);
	out->passthrough = atomic_load(&fr->passthrough);
	out->writeback = atomic_load(&fr->writeback);
	out->killpriv_v2 = atomic_load(&fr->killpriv_v2);
	out->explicit_inval = atomic_load(&fr->explicit_inval);
	out->no_open = atomic_load(&fr->no_open);
	out->readdirplus = atomic_load(&fr->readdirplus);
	out->max_write = atomic_load(&fr->max_write);
	out->max_readahead = atomic_load(&fr->max_readahead);
	out->max_background = atomic_load(&fr->max_background);
	out->threads = fr->loop ? loop_threads(fr->loop) : 0;
	out->ops = fr->ops;
	for (size_t i = 0; i < OP_COUNT; i++) {
		out->requests += __atomic_load_n(&fr->ops[i].count, __ATOMIC_RELAXED);
		out->errors += __atomic_load_n(&fr->ops[i].errors, __ATOMIC_RELAXED);
	}
}

void front_build_info(struct front_build *out)
{
	memset(out, 0, sizeof(*out));
	out->libfuse = fuse_pkgversion();
#if defined(HAVE_DECL_FUSE_PASSTHROUGH_OPEN) && HAVE_DECL_FUSE_PASSTHROUGH_OPEN
	out->passthrough = true;
#endif
	out->io_uring = FRONT_URING;
#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_STATX
	out->statx = true;
#endif
	/* Where libfuse does not have them, we do them ourselves. */
	out->killpriv_v2 = true;
	out->tmpfile = true;
}
