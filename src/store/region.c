/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/region.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/log.h"

/* A huge page: where the map starts, so that the kernel may use them. */
#define REGION_ALIGN (UINT64_C(2) << 20)
/* Addresses for windows, reserved when there is the first. */
#define WINDOWS_BYTES (UINT64_C(1) << 40)

/* Where a memfd has no memory yet, a write this long costs less than the faults of stores. */
#define PWRITE_MIN ((size_t)64 << 10)

struct region {
	enum region_kind kind;  /* set once at open */
	bool readonly;          /* set once at open */
	bool device;            /* a block device; set once at open */
	int fd;                 /* set once at open */
	uint8_t *base;          /* the read-only map; set once at open */
	uint8_t *door;          /* memfd: the same memory, writable; set once at open */
	void *reserved_at[2];   /* what to unmap: base and door before alignment */
	size_t reserved_bytes;  /* of each; set once at open */
	uint64_t reserved;      /* frames; set once at open */
	_Atomic(uint8_t *) windows;    /* NULL: none yet */
	void *windows_reserved;	       /* guarded by lock */
	struct region_window *window;  /* by address; guarded by lock */
	struct mutex lock; /* LOCK_REGION: size, limit, and order of writes while there is a tap */
	_Atomic uint64_t frames;
	_Atomic uint64_t limit;
	_Atomic uint64_t flushes;
	_Atomic uint64_t written;
	_Atomic uint64_t fresh; /* memfd: bytes from here on have most likely no memory yet */
	_Atomic int error;
	_Atomic(const struct region_tap *) tap;
};

static const uint8_t zero_frame[PMFS_PAGE_SIZE];

/* ------------------------------------------------------------------ loads that may fault */

/*
 * The handler runs on any thread at any load, so what it looks at is atomic or the thread's own.  A
 * region leaves the table before its addresses are unmapped.
 */
static _Atomic(struct region *) open_regions[REGION_MAX_OPEN];
/*
 * Who had the signal before us.  Changes only when somebody has taken it from us since the last
 * open (a library, a test's frame), and then into the other of the two, so that a handler that runs
 * has a whole one.
 */
static struct sigaction other_handlers[2];
static _Atomic unsigned int other_handler;
static _Thread_local sigjmp_buf *fault_jump __attribute__((tls_model("initial-exec")));

static bool region_has(const struct region *rg, uintptr_t at)
{
	uintptr_t len = (uintptr_t)(rg->reserved * PMFS_PAGE_SIZE);

	return at - (uintptr_t)rg->base < len || (rg->door && at - (uintptr_t)rg->door < len);
}

static bool windows_have(struct region *rg, uintptr_t at)
{
	const uintptr_t windows = (uintptr_t)atomic_load(&rg->windows);

	return windows && at - windows < WINDOWS_BYTES;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *other = &other_handlers[atomic_load(&other_handler)];

	if (other->sa_flags & SA_SIGINFO) {
		other->sa_sigaction(sig, info, context);
	} else if (other->sa_handler == SIG_DFL || other->sa_handler == SIG_IGN) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		/* The load runs again when we return, and ends the process as without us. */
		sigaction(sig, &dfl, NULL);
		if (info->si_code <= 0)
			raise(sig);
	} else {
		other->sa_handler(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	int saved = errno;

	for (size_t i = 0; info->si_code > 0 && i < REGION_MAX_OPEN; i++) {
		struct region *rg = atomic_load(&open_regions[i]);
		uintptr_t page = ALIGN_DOWN(at, PMFS_PAGE_SIZE);
		int clean = 0;

		if (!rg || !(region_has(rg, at) || windows_have(rg, at)))
			continue;
		if (fault_jump) {
			/* What the handler's return would restore; sigsetjmp() need not. */
			pthread_sigmask(SIG_SETMASK, &((ucontext_t *)context)->uc_sigmask, NULL);
			siglongjmp(*fault_jump, 1);
		}
		/* Only region_look() looks at a window. */
		if (windows_have(rg, at))
			break;
		/* R4.  Not mmap(): sanitizers wrap it in what a handler may not do. */
		atomic_compare_exchange_strong(&rg->error, &clean, -EIO);
		if (syscall(SYS_mmap, page, (size_t)PMFS_PAGE_SIZE, PROT_READ,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0L) == -1)
			break;
		errno = saved;
		return;
	}
	pass_on(sig, info, context);
	errno = saved;
}

static int install_handler(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct sigaction ours = { .sa_sigaction = on_sigbus }, now;
	unsigned int spare;
	int rc = 0;

	ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigemptyset(&ours.sa_mask);
	pthread_mutex_lock(&lock);
	spare = !atomic_load(&other_handler);
	if (sigaction(SIGBUS, NULL, &now))
		rc = -errno;
	if (!rc && !(now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus)) {
		other_handlers[spare] = now;
		atomic_store(&other_handler, spare);
		if (sigaction(SIGBUS, &ours, NULL))
			rc = -errno;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

static int region_register(struct region *rg)
{
	int rc = install_handler();

	for (size_t i = 0; !rc && i < REGION_MAX_OPEN; i++) {
		struct region *none = NULL;

		if (atomic_compare_exchange_strong(&open_regions[i], &none, rg))
			return 0;
	}
	return rc ? rc : -EMFILE;
}

static void region_unregister(const struct region *rg)
{
	for (size_t i = 0; i < REGION_MAX_OPEN; i++) {
		if (atomic_load(&open_regions[i]) == rg)
			atomic_store(&open_regions[i], NULL);
	}
}

enum guarded_op { GUARDED_COPY, GUARDED_HASH, GUARDED_EQUAL, GUARDED_PROBE };

/* One function with a jump target for all that touches frames. */
int region_look(void (*fn)(void *arg), void *arg)
{
	sigjmp_buf env;

	if (sigsetjmp(env, 0)) {
		fault_jump = NULL;
		return -EIO;
	}
	fault_jump = &env;
	atomic_signal_fence(memory_order_seq_cst);
	fn(arg);
	atomic_signal_fence(memory_order_seq_cst);
	fault_jump = NULL;
	return 0;
}

struct guarded {
	enum guarded_op op;
	void *to;
	const void *from, *from2;
	size_t len;
};

static void touch(void *arg)
{
	const struct guarded *g = arg;

	switch (g->op) {
	case GUARDED_COPY:
		memcpy(g->to, g->from, g->len);
		break;
	case GUARDED_HASH:
		*(uint64_t *)g->to = hash64(g->from, g->len);
		break;
	case GUARDED_EQUAL:
		*(int *)g->to = memcmp(g->from, g->from2, g->len) == 0;
		break;
	case GUARDED_PROBE:
		for (size_t at = 0; at < g->len; at += PMFS_PAGE_SIZE)
			(void)*((const volatile uint8_t *)g->from + at);
		break;
	}
}

/* to: GUARDED_COPY: the destination; GUARDED_HASH: a uint64_t; GUARDED_EQUAL: an int.  0 or -EIO. */
static int guarded(enum guarded_op op, void *to, const void *from, const void *from2, size_t len)
{
	struct guarded g = {.op = op, .to = to, .from = from, .from2 = from2, .len = len};

	return region_look(touch, &g);
}

/* ------------------------------------------------------------------ open and close */

/*
 * The process that has a lock on this file: the kernel says it beside the open file, not in
 * /proc/locks.
 */
static bool fdinfo_has_lock(const char *path, uint64_t ino)
{
	char line[256], want[32];
	bool found = false;
	FILE *f = fopen(path, "re");

	if (!f)
		return false;
	snprintf(want, sizeof(want), ":%llu ", (unsigned long long)ino);
	while (!found && fgets(line, sizeof(line), f))
		found = strncmp(line, "lock:", 5) == 0 && strstr(line, "OFDLCK") &&
			strstr(line, want);
	fclose(f);
	return found;
}

static bool process_has_lock(long pid, const struct stat *file)
{
	char path[320];
	struct dirent *de;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (de = readdir(dir))) {
		struct stat st;

		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%ld/fdinfo/%s", pid, de->d_name);
		if (!fdinfo_has_lock(path, file->st_ino))
			continue;
		snprintf(path, sizeof(path), "/proc/%ld/fd/%s", pid, de->d_name);
		found = stat(path, &st) == 0 && st.st_dev == file->st_dev &&
			st.st_ino == file->st_ino;
	}
	closedir(dir);
	return found;
}

static int find_holder(const struct stat *file)
{
	struct dirent *de;
	int holder = 0;
	DIR *dir = opendir("/proc");

	if (!dir)
		return 0;
	while (!holder && (de = readdir(dir))) {
		char *end;
		long pid = strtol(de->d_name, &end, 10);

		if (pid > 0 && *end == '\0' && process_has_lock(pid, file))
			holder = (int)pid;
	}
	closedir(dir);
	return holder;
}

static int lock_file(int fd, bool shared)
{
	struct flock lock = {
		.l_type = shared ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static int reserve_one(size_t bytes, void **at, uint8_t **aligned)
{
	*at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*at == MAP_FAILED) {
		*at = NULL;
		return -errno;
	}
	*aligned = (uint8_t *)ALIGN_UP((uintptr_t)*at, REGION_ALIGN);
	return 0;
}

static void unreserve(struct region *rg)
{
	for (size_t i = 0; i < ARRAY_SIZE(rg->reserved_at); i++) {
		if (rg->reserved_at[i])
			munmap(rg->reserved_at[i], rg->reserved_bytes);
		rg->reserved_at[i] = NULL;
	}
}

/* Addresses for `want` frames, or for as many as the process gets, but at least `least`. */
static int reserve(struct region *rg, uint64_t want, uint64_t least)
{
	for (;;) {
		int rc;

		rg->reserved = want;
		rg->reserved_bytes = (size_t)(want * PMFS_PAGE_SIZE + REGION_ALIGN);
		rc = reserve_one(rg->reserved_bytes, &rg->reserved_at[0], &rg->base);
		if (!rc && rg->kind == REGION_MEMFD)
			rc = reserve_one(rg->reserved_bytes, &rg->reserved_at[1], &rg->door);
		if (!rc)
			return 0;
		unreserve(rg);
		if (want <= least)
			return rc;
		want = MAX(want / 2, least);
	}
}

/* What was mapped is reserved addresses again. */
static int unmap_frames(uint8_t *base, uint64_t from, uint64_t to)
{
	size_t len = (size_t)((to - from) * PMFS_PAGE_SIZE);
	void *at = mmap(base + from * PMFS_PAGE_SIZE, len, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	return at == MAP_FAILED ? -errno : 0;
}

/* Map the file's [from, to) over the reservation; the kernel joins it with what is before it. */
static int map_frames(struct region *rg, uint64_t from, uint64_t to)
{
	size_t len = (size_t)((to - from) * PMFS_PAGE_SIZE);
	off_t off = (off_t)(from * PMFS_PAGE_SIZE);
	void *at = rg->base + off;

	if (!len)
		return 0;
	if (mmap(at, len, PROT_READ, MAP_SHARED | MAP_FIXED, rg->fd, off) == MAP_FAILED)
		return -errno;
	if (rg->door && mmap(rg->door + off, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			     rg->fd, off) == MAP_FAILED) {
		int rc = -errno;

		unmap_frames(rg->base, from, to);
		return rc;
	}
	return 0;
}

static int region_setup(struct region *rg, uint64_t limit, uint64_t frames)
{
	uint64_t least = MAX(frames, 1);
	int rc = reserve(rg, MIN(MAX(limit, least), PMFS_MAX_FRAMES), least);

	if (rc)
		return rc;
	atomic_init(&rg->frames, frames);
	atomic_init(&rg->limit, rg->reserved);
	rc = map_frames(rg, 0, frames);
	if (!rc)
		rc = region_register(rg);
	if (rc)
		unreserve(rg);
	return rc;
}

static struct region *region_new(enum region_kind kind)
{
	struct region *rg = calloc(1, sizeof(*rg));

	if (rg) {
		rg->kind = kind;
		rg->fd = -1;
		mutex_init(&rg->lock, LOCK_REGION);
	}
	return rg;
}

static void region_delete(struct region *rg)
{
	if (rg->fd >= 0)
		close(rg->fd);
	mutex_destroy(&rg->lock);
	free(rg);
}

static int file_bytes(struct region *rg, struct stat *st, uint64_t *bytes)
{
	if (fstat(rg->fd, st))
		return -errno;
	if (S_ISBLK(st->st_mode)) {
		rg->device = true;
		return ioctl(rg->fd, BLKGETSIZE64, bytes) ? -errno : 0;
	}
	if (!S_ISREG(st->st_mode))
		return S_ISDIR(st->st_mode) ? -EISDIR : -ENOTBLK;
	*bytes = (uint64_t)st->st_size;
	return 0;
}

int region_open_image(struct region **out, const char *path, uint64_t limit_frames, unsigned flags,
		      int *holder)
{
	struct region *rg = region_new(REGION_IMAGE);
	/*
	 * EXCL without CREAT: nobody else has the block device, a mount for instance; of no effect
	 * on a file.
	 */
	int how = flags & REGION_READONLY ? O_RDONLY : O_RDWR | O_EXCL;
	uint64_t bytes = 0;
	struct stat st;
	int rc;

	if (!rg)
		return -ENOMEM;
	if (holder)
		*holder = 0;
	if (flags & REGION_CREATE)
		how |= O_CREAT | O_EXCL;
	rg->readonly = flags & REGION_READONLY;
	/* NONBLOCK: opening a fifo must not wait for its other end. */
	rg->fd = open(path, how | O_CLOEXEC | O_NONBLOCK, 0600);
	if (rg->fd < 0) {
		rc = -errno;
		region_delete(rg);
		return rc;
	}
	rc = file_bytes(rg, &st, &bytes);
	if (!rc && !(flags & REGION_NOLOCK)) {
		rc = lock_file(rg->fd, rg->readonly);
		if (rc == -EBUSY && holder)
			*holder = find_holder(&st);
		/* The file may have grown until the lock was ours. */
		if (!rc)
			rc = file_bytes(rg, &st, &bytes);
	}
	if (!rc && bytes / PMFS_PAGE_SIZE > PMFS_MAX_FRAMES)
		rc = -EFBIG;
	if (!rc)
		rc = region_setup(rg, limit_frames, bytes / PMFS_PAGE_SIZE);
	if (rc) {
		if (flags & REGION_CREATE)
			unlink(path);
		region_delete(rg);
		return rc;
	}
	*out = rg;
	return 0;
}

int region_open_memfd(struct region **out, uint64_t limit_frames)
{
	struct region *rg = region_new(REGION_MEMFD);
	int rc;

	if (!rg)
		return -ENOMEM;
	rg->fd = memfd_create("pmfs", MFD_CLOEXEC);
	rc = rg->fd < 0 ? -errno : region_setup(rg, limit_frames, 0);
	if (rc) {
		region_delete(rg);
		return rc;
	}
	*out = rg;
	return 0;
}

void region_close(struct region *rg)
{
	if (!rg)
		return;
	region_unregister(rg);
	unreserve(rg);
	if (rg->windows_reserved)
		munmap(rg->windows_reserved, WINDOWS_BYTES + REGION_ALIGN);
	while (rg->window) {
		struct region_window *win = rg->window;

		rg->window = win->next;
		free(win);
	}
	region_delete(rg);
}

/* ------------------------------------------------------------------ windows */

static int windows_reserve(struct region *rg)
{
	uint8_t *at;
	int rc;

	if (rg->windows_reserved)
		return 0;
	rc = reserve_one(WINDOWS_BYTES + REGION_ALIGN, &rg->windows_reserved, &at);
	if (!rc)
		atomic_store(&rg->windows, at);
	return rc;
}

int region_window_open(struct region *rg, int fd, uint64_t bytes, uint64_t span,
		       struct region_window **out)
{
	struct region_window *win = calloc(1, sizeof(*win)), **at;
	uint8_t *from;
	int rc;

	if (!win)
		return -ENOMEM;
	if (MAX(bytes, span) > WINDOWS_BYTES) {
		free(win);
		return -ENOSPC;
	}
	win->span = ALIGN_UP(MAX(MAX(bytes, span), 1), REGION_ALIGN);
	mutex_lock(&rg->lock);
	rc = windows_reserve(rg);
	from = atomic_load(&rg->windows);
	/* The first gap that is large enough. */
	for (at = &rg->window; !rc && *at && (uint64_t)((*at)->at - from) < win->span;
	     at = &(*at)->next)
		from = (uint8_t *)(uintptr_t)(*at)->at + (*at)->span;
	if (!rc && !*at && (uint64_t)(from - atomic_load(&rg->windows)) + win->span > WINDOWS_BYTES)
		rc = -ENOSPC;
	if (!rc) {
		win->at = from;
		win->next = *at;
		*at = win;
	}
	mutex_unlock(&rg->lock);
	if (rc) {
		free(win);
		return rc;
	}
	rc = region_window_extend(win, fd, bytes);
	if (rc)
		region_window_close(rg, win);
	else
		*out = win;
	return rc;
}

int region_window_extend(struct region_window *win, int fd, uint64_t bytes)
{
	const uint64_t from = atomic_load(&win->mapped);
	const uint64_t to = ALIGN_UP(bytes, (uint64_t)PMFS_PAGE_SIZE);

	if (to <= from)
		return 0;
	if (to > win->span)
		return -ENOSPC;
	/* Joined by the kernel with what is before it. */
	if (mmap((uint8_t *)(uintptr_t)win->at + from, to - from, PROT_READ, MAP_SHARED | MAP_FIXED,
		 fd, (off_t)from) == MAP_FAILED)
		return -errno;
	atomic_store(&win->mapped, to);
	return 0;
}

void region_window_close(struct region *rg, struct region_window *win)
{
	struct region_window **at = &rg->window;

	mutex_lock(&rg->lock);
	while (*at != win)
		at = &(*at)->next;
	/* Where the kernel does not give them back as reserved, nobody gets these addresses. */
	if (!unmap_frames((uint8_t *)(uintptr_t)win->at, 0, win->span / PMFS_PAGE_SIZE)) {
		*at = win->next;
		free(win);
	}
	mutex_unlock(&rg->lock);
}

/* ------------------------------------------------------------------ size */

enum region_kind region_kind(const struct region *rg)
{
	return rg->kind;
}

uint64_t region_frames(const struct region *rg)
{
	return atomic_load(&rg->frames);
}

uint64_t region_limit(const struct region *rg)
{
	return atomic_load(&rg->limit);
}

uint64_t region_reserved(const struct region *rg)
{
	return rg->reserved;
}

bool region_readonly(const struct region *rg)
{
	return rg->readonly;
}

int region_set_limit(struct region *rg, uint64_t limit_frames)
{
	int rc = 0;

	mutex_lock(&rg->lock);
	if (limit_frames < atomic_load(&rg->frames) || limit_frames > rg->reserved)
		rc = -ERANGE;
	else
		atomic_store(&rg->limit, limit_frames);
	mutex_unlock(&rg->lock);
	return rc;
}

uint64_t region_host_bytes(const struct region *rg)
{
	struct stat st;

	if (rg->device)
		return region_frames(rg) * PMFS_PAGE_SIZE;
	if (fstat(rg->fd, &st))
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

uint64_t region_host_free(const struct region *rg)
{
	struct statvfs fs;

	if (rg->kind == REGION_MEMFD || rg->device || fstatvfs(rg->fd, &fs))
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/*
 * Space of the host for these bytes.  Where it has no call for that, zeros that are written take
 * their space, too.
 */
static int allocate(struct region *rg, uint64_t byte, uint64_t len, bool fresh)
{
	for (;;) {
		if (fallocate(rg->fd, 0, (off_t)byte, (off_t)len) == 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno == ENOSPC || errno == EDQUOT)
			return -ENOSPC;
		if (errno != EOPNOTSUPP && errno != ENOSYS)
			return -errno;
		break;
	}
	/* Frames that were punched there never were: such a host refuses punching as well. */
	for (uint64_t done = 0; fresh && done < len; ) {
		ssize_t n = pwrite(rg->fd, zero_frame, sizeof(zero_frame), (off_t)(byte + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 || errno == EDQUOT ? -ENOSPC : -errno;
		done += (uint64_t)n;
	}
	return 0;
}

int region_grow(struct region *rg, uint64_t frames)
{
	uint64_t old;
	int rc;

	mutex_lock(&rg->lock);
	old = atomic_load(&rg->frames);
	rc = atomic_load(&rg->error);
	if (rc || frames <= old)
		goto out;
	rc = rg->readonly ? -EROFS : frames > rg->limit ? -ENOSPC : fault_hit("region.grow");
	if (rc)
		goto out;
	if (rg->device)
		rc = -ENOSPC;
	else if (rg->kind == REGION_MEMFD)
		rc = ftruncate(rg->fd, (off_t)(frames * PMFS_PAGE_SIZE)) ? -errno : 0;
	else
		rc = allocate(rg, old * PMFS_PAGE_SIZE, (frames - old) * PMFS_PAGE_SIZE, true);
	if (!rc)
		rc = map_frames(rg, old, frames);
	if (!rc)
		atomic_store(&rg->frames, frames);
	else if (!rg->device && ftruncate(rg->fd, (off_t)(old * PMFS_PAGE_SIZE)))
		log_warn("can't give back what was too much: %s", strerror(errno));
out:
	mutex_unlock(&rg->lock);
	return rc;
}

int region_truncate(struct region *rg, uint64_t frames)
{
	uint64_t old;
	int rc;

	mutex_lock(&rg->lock);
	old = atomic_load(&rg->frames);
	rc = atomic_load(&rg->error);
	if (!rc)
		rc = rg->readonly ? -EROFS : rg->device ? -EOPNOTSUPP : 0;
	if (rc || frames >= old)
		goto out;
	atomic_store(&rg->frames, frames);
	rc = unmap_frames(rg->base, frames, old);
	if (!rc && rg->door)
		rc = unmap_frames(rg->door, frames, old);
	if (!rc && ftruncate(rg->fd, (off_t)(frames * PMFS_PAGE_SIZE)))
		rc = -errno;
out:
	mutex_unlock(&rg->lock);
	return rc;
}

int region_punch(struct region *rg, pfn_t pfn, uint64_t n)
{
	uint64_t byte = pfn * PMFS_PAGE_SIZE, len = n * PMFS_PAGE_SIZE;
	const struct region_tap *tap;
	int rc = region_error(rg);

	if (!rc)
		rc = rg->readonly ? -EROFS : rg->device ? -EOPNOTSUPP : 0;
	if (rc || !n)
		return rc;
	mutex_lock(&rg->lock);
	do {
		rc = fallocate(rg->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)byte,
			       (off_t)len);
		rc = rc ? -errno : 0;
	} while (rc == -EINTR);
	tap = atomic_load(&rg->tap);
	if (!rc && tap && tap->punched)
		tap->punched(tap->arg, byte, len);
	mutex_unlock(&rg->lock);
	return rc;
}

int region_back(struct region *rg, pfn_t pfn, uint64_t n)
{
	int rc = region_error(rg);

	if (!rc)
		rc = rg->readonly ? -EROFS : fault_hit("region.back");
	/* Memory comes with the first store. */
	if (rc || !n || rg->device || rg->kind == REGION_MEMFD)
		return rc;
	mutex_lock(&rg->lock);
	rc = allocate(rg, pfn * PMFS_PAGE_SIZE, n * PMFS_PAGE_SIZE, false);
	mutex_unlock(&rg->lock);
	return rc;
}

int region_next_backed(const struct region *rg, pfn_t from, pfn_t end, pfn_t *start, pfn_t *stop)
{
	off_t data, hole;

	if (from >= end) {
		*start = *stop = end;
		return 0;
	}
	data = rg->device ? (off_t)-1 : lseek(rg->fd, (off_t)(from * PMFS_PAGE_SIZE), SEEK_DATA);
	if (data < 0) {
		/* ENXIO: nothing but holes from here on. */
		*start = !rg->device && errno == ENXIO ? end : from;
		*stop = end;
		return 0;
	}
	hole = lseek(rg->fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*start = MIN(DIV_ROUND_UP((uint64_t)data, PMFS_PAGE_SIZE), end);
	*stop = MAX(*start, MIN((uint64_t)hole / PMFS_PAGE_SIZE, end));
	return 0;
}

/* ------------------------------------------------------------------ reading */

const void *region_at(const struct region *rg, pfn_t pfn)
{
	return rg->base + pfn * PMFS_PAGE_SIZE;
}

static bool frames_in_range(const struct region *rg, pfn_t pfn, uint64_t n)
{
	return range_fits(pfn, n, region_frames(rg));
}

int region_copy_out(const struct region *rg, pfn_t pfn, size_t off, void *buf, size_t len)
{
	if (!frames_in_range(rg, pfn, DIV_ROUND_UP(off + len, PMFS_PAGE_SIZE)))
		return -EIO;
	return guarded(GUARDED_COPY, buf, (const uint8_t *)region_at(rg, pfn) + off, NULL, len);
}

int region_hash(const struct region *rg, pfn_t pfn, uint64_t *hash)
{
	uint64_t h;
	int rc;

	if (!frames_in_range(rg, pfn, 1))
		return -EIO;
	rc = guarded(GUARDED_HASH, &h, region_at(rg, pfn), NULL, PMFS_PAGE_SIZE);
	if (!rc)
		*hash = h;
	return rc;
}

int region_equal(const struct region *rg, pfn_t a, pfn_t b)
{
	int equal = 0, rc;

	if (!frames_in_range(rg, a, 1) || !frames_in_range(rg, b, 1))
		return -EIO;
	rc = guarded(GUARDED_EQUAL, &equal, region_at(rg, a), region_at(rg, b), PMFS_PAGE_SIZE);
	return rc ? rc : equal;
}

int region_probe(const struct region *rg, pfn_t pfn, uint64_t n)
{
	if (!frames_in_range(rg, pfn, n))
		return -EIO;
	return guarded(GUARDED_PROBE, NULL, region_at(rg, pfn), NULL, (size_t)(n * PMFS_PAGE_SIZE));
}

/* ------------------------------------------------------------------ writing */

static int write_file(struct region *rg, uint64_t byte, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(rg->fd, buf + done, len - done, (off_t)(byte + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

static int write_bytes(struct region *rg, uint64_t byte, const void *buf, size_t len)
{
	int rc = fault_hit("region.write");
	uint64_t fresh;

	if (rc)
		return rc;
	if (rg->kind == REGION_IMAGE)
		return write_file(rg, byte, buf, len);
	fresh = atomic_load_explicit(&rg->fresh, memory_order_relaxed);
	if (byte + len > fresh) {
		/* Most often right is enough: it only decides which way is the faster one. */
		atomic_store_explicit(&rg->fresh, byte + len, memory_order_relaxed);
		if (byte >= fresh && len >= PWRITE_MIN)
			return write_file(rg, byte, buf, len);
	}
	/* Where memory has run out, a store faults. */
	return guarded(GUARDED_COPY, rg->door + byte, buf, NULL, len);
}

int region_write(struct region *rg, pfn_t pfn, size_t off, const void *buf, size_t len)
{
	uint64_t byte = pfn * PMFS_PAGE_SIZE + off;
	const struct region_tap *tap = atomic_load(&rg->tap);
	int rc = region_error(rg);

	if (rc)
		return rc;
	if (rg->readonly)
		return -EROFS;
	if (!frames_in_range(rg, pfn, DIV_ROUND_UP(off + len, PMFS_PAGE_SIZE)))
		return -EIO;
	if (tap)
		mutex_lock(&rg->lock);
	rc = write_bytes(rg, byte, buf, len);
	if (tap) {
		if (!rc && tap->wrote)
			tap->wrote(tap->arg, byte, buf, len);
		mutex_unlock(&rg->lock);
	}
	if (rc) {
		region_poison(rg, -EIO);
		return -EIO;
	}
	atomic_fetch_add_explicit(&rg->written, len, memory_order_relaxed);
	return 0;
}

int region_copy_frame(struct region *rg, pfn_t from, pfn_t to)
{
	uint8_t page[PMFS_PAGE_SIZE];
	int rc = region_copy_out(rg, from, 0, page, sizeof(page));

	return rc ? rc : region_write(rg, to, 0, page, sizeof(page));
}

int region_zero(struct region *rg, pfn_t pfn)
{
	return region_write(rg, pfn, 0, zero_frame, sizeof(zero_frame));
}

void region_start_flush(const struct region *rg, pfn_t pfn, uint64_t n)
{
	if (rg->kind == REGION_IMAGE && !rg->readonly)
		(void)sync_file_range(rg->fd, (off_t)(pfn * PMFS_PAGE_SIZE),
				      (off_t)(n * PMFS_PAGE_SIZE), SYNC_FILE_RANGE_WRITE);
}

int region_flush(struct region *rg)
{
	const struct region_tap *tap = atomic_load(&rg->tap);
	int rc = region_error(rg);

	if (rc)
		return rc;
	if (rg->readonly)
		return -EROFS;
	if (tap)
		mutex_lock(&rg->lock);
	rc = fault_hit("region.flush");
	if (!rc && rg->kind == REGION_IMAGE && fdatasync(rg->fd))
		rc = -EIO;
	if (tap) {
		if (!rc && tap->flushed)
			tap->flushed(tap->arg);
		mutex_unlock(&rg->lock);
	}
	if (rc) {
		region_poison(rg, -EIO);
		return -EIO;
	}
	atomic_fetch_add(&rg->flushes, 1);
	return 0;
}

uint64_t region_flushes(const struct region *rg)
{
	return atomic_load(&rg->flushes);
}

uint64_t region_written(const struct region *rg)
{
	return atomic_load(&rg->written);
}

int region_error(const struct region *rg)
{
	return atomic_load(&rg->error);
}

void region_poison(struct region *rg, int error)
{
	int clean = 0;

	atomic_compare_exchange_strong(&rg->error, &clean, error);
}

int region_check(const struct region *rg)
{
	struct stat st;

	if (rg->device)
		return 0;
	if (fstat(rg->fd, &st))
		return -errno;
	return (uint64_t)st.st_size < region_frames(rg) * PMFS_PAGE_SIZE ? -EIO : 0;
}

void region_set_tap(struct region *rg, const struct region_tap *tap)
{
	mutex_lock(&rg->lock);
	atomic_store(&rg->tap, tap);
	mutex_unlock(&rg->lock);
}
