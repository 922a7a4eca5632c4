/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-ops - one timed operation in a directory, for contrib/bench.
 *
 *   bench-ops OP DIR COUNT [CLIENTS]        prints: OP UNITS SECONDS [NAME=VALUE...]
 *
 * UNITS are MiB for streams, operations for the rest.  Preparation is not timed.  What one OP leaves
 * below DIR the next may use (write before read, create before stat and open-read).  Several
 * CLIENTS are as many processes, each with a directory of its own (DIR/c0, DIR/c1, ...), that begin
 * together; UNITS are those of all, SECONDS go from the first start to the last end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024 * 1024)
#define PAGE 4096
#define FILES_PER_DIR 1000
#define SMALL 100
#define CLIENTS_MAX 64
#define BUSY_MIB 256
#define BUSY_SECONDS 3

/* What the clients and their parent share. */
struct shared {
	pthread_barrier_t begin;
	double began[CLIENTS_MAX], ended[CLIENTS_MAX];
	char extra[256];
};

static const char *dir;
static long count;
static char *buffer;
static struct shared *shared;
static long client;
static volatile uint64_t sink;	/* what is read must go somewhere */

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Everything is prepared: the clock runs from here. */
static void start(void)
{
	pthread_barrier_wait(&shared->begin);
	shared->began[client] = seconds();
}

static void check(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench-ops: %s in %s: %s\n", what, dir, strerror(errno));
	exit(1);
}

static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Other contents for each MiB, or a filesystem that merges or compresses would win by not storing them. */
static void fill(char *buf, size_t len)
{
	for (size_t i = 0; i + 8 <= len; i += 8) {
		const uint64_t v = next_random();

		memcpy(buf + i, &v, 8);
	}
}

static int open_in(const char *name, int flags)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags, 0644);
	check(fd >= 0, name);
	return fd;
}

static const char *file_path(long i)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/d%ld/f%ld", dir, i / FILES_PER_DIR, i);
	return path;
}

static void stream_write(void)
{
	int fd = open_in("stream", O_CREAT | O_TRUNC | O_WRONLY);

	fill(buffer, MIB);
	start();
	for (long i = 0; i < count; i++) {
		memcpy(buffer, &i, sizeof(i));
		for (size_t at = 0; at < MIB; at += PAGE)
			memcpy(buffer + at, &i, sizeof(i));
		check(write(fd, buffer, MIB) == MIB, "write");
	}
	check(!fsync(fd), "fsync");
	close(fd);
}

static void read_all(int fd)
{
	for (long i = 0; i < count; i++)
		check(pread(fd, buffer, MIB, (off_t)i * MIB) == MIB, "read");
}

static void stream_read_cold(void)
{
	int fd = open_in("stream", O_RDONLY);

	check(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
	start();
	read_all(fd);
	close(fd);
}

static void stream_read_warm(void)
{
	int fd = open_in("stream", O_RDONLY);

	read_all(fd);
	start();
	read_all(fd);
	close(fd);
}

/* A mapping of its own for the timed pass, so its page faults count. */
static void map_read(void)
{
	const size_t len = (size_t)count * MIB;
	int fd = open_in("stream", O_RDONLY);

	read_all(fd);
	start();
	const uint64_t *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);

	check(map != MAP_FAILED, "mmap");
	for (size_t i = 0; i < len / sizeof(*map); i += 8) {
		uint64_t line = 0;

		for (size_t k = 0; k < 8; k++)
			line += map[i + k];
		sink += line;
	}
	munmap((void *)(uintptr_t)map, len);
	close(fd);
}

static void random_write(void)
{
	int fd = open_in("stream", O_WRONLY);
	struct stat st;

	check(!fstat(fd, &st) && st.st_size >= MIB, "stream");
	fill(buffer, PAGE);
	start();
	for (long i = 0; i < count; i++) {
		const off_t page = (off_t)(next_random() % (uint64_t)(st.st_size / PAGE));

		memcpy(buffer, &i, sizeof(i));
		check(pwrite(fd, buffer, PAGE, page * PAGE) == PAGE, "pwrite");
	}
	check(!fsync(fd), "fsync");
	close(fd);
}

static void random_reads(int warm)
{
	int fd = open_in("stream", O_RDONLY);
	struct stat st;

	check(!fstat(fd, &st) && st.st_size >= MIB, "stream");
	if (warm) {
		for (off_t at = 0; at < st.st_size; at += MIB)
			check(pread(fd, buffer, MIB, at) == MIB, "read");
	} else {
		check(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
		check(!posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), "fadvise");
	}
	start();
	for (long i = 0; i < count; i++) {
		const off_t page = (off_t)(next_random() % (uint64_t)(st.st_size / PAGE));

		check(pread(fd, buffer, PAGE, page * PAGE) == PAGE, "pread");
	}
	close(fd);
}

static void random_read_warm(void)
{
	random_reads(1);
}

static void random_read_cold(void)
{
	random_reads(0);
}

/*
 * Each of COUNT pages of "stream" once, in an order that no readahead or write-out likes: i times an odd number
 * modulo a power of two goes through all of them.
 */
static void page_write(void)
{
	int fd = open_in("stream", O_WRONLY);
	struct stat st;

	check(!fstat(fd, &st) && (count & (count - 1)) == 0 && st.st_size >= count * PAGE, "stream");
	fill(buffer, PAGE);
	start();
	for (long i = 0; i < count; i++) {
		const off_t page = (off_t)((uint64_t)i * 40503u % (uint64_t)count);

		memcpy(buffer, &i, sizeof(i));
		check(pwrite(fd, buffer, PAGE, page * PAGE) == PAGE, "pwrite");
	}
	close(fd);
}

/* Every COUNTth page of "stream" written again after a clone has made the file's extents shared. */
static void fragment(void)
{
	int fd = open_in("stream", O_WRONLY);
	struct stat st;

	check(!fstat(fd, &st), "stream");
	fill(buffer, PAGE);
	start();
	for (off_t at = 0; at < st.st_size; at += count * PAGE) {
		memcpy(buffer, &at, sizeof(at));
		check(pwrite(fd, buffer, PAGE, at) == PAGE, "pwrite");
	}
	check(!fsync(fd), "fsync");
	close(fd);
}

/* FICLONE where the filesystem has it, else copy_file_range: only the one that works is timed. */
static void clone_file(void)
{
	int from = open_in("stream", O_RDONLY);
	int to = open_in("clone", O_CREAT | O_TRUNC | O_WRONLY);
	off_t at = 0, out = 0;
	struct stat st;

	check(!fstat(from, &st) && !fsync(from) && !fsync(to), "stream");
	start();
	if (ioctl(to, FICLONE, from)) {
		shared->began[client] = seconds();
		while (at < st.st_size)
			check(copy_file_range(from, &at, to, &out, (size_t)(st.st_size - at), 0) > 0,
			      "copy_file_range");
	}
	shared->ended[client] = seconds();
	close(from);
	close(to);
}

static void make_dirs(void)
{
	char path[4096];

	for (long i = 0; i < count; i += FILES_PER_DIR) {
		snprintf(path, sizeof(path), "%s/d%ld", dir, i / FILES_PER_DIR);
		check(!mkdir(path, 0755) || errno == EEXIST, "mkdir");
	}
}

static void create_files(void)
{
	make_dirs();
	fill(buffer, SMALL);
	start();
	for (long i = 0; i < count; i++) {
		int fd = open(file_path(i), O_CREAT | O_WRONLY, 0644);

		check(fd >= 0, "create");
		check(write(fd, buffer, SMALL) == SMALL, "write");
		close(fd);
	}
}

static void create_empty(void)
{
	make_dirs();
	start();
	for (long i = 0; i < count; i++)
		check(!mknod(file_path(i), S_IFREG | 0644, 0), "mknod");
}

static void stat_files(void)
{
	struct stat st;

	start();
	for (long i = 0; i < count; i++)
		check(!stat(file_path(i), &st), "stat");
}

static void open_read_all(void)
{
	for (long i = 0; i < count; i++) {
		int fd = open(file_path(i), O_RDONLY);

		check(fd >= 0 && read(fd, buffer, PAGE) == SMALL, "open and read");
		close(fd);
	}
}

static void open_read(void)
{
	open_read_all();
	start();
	open_read_all();
}

static void fsync_4k(void)
{
	int fd = open_in("log", O_CREAT | O_TRUNC | O_WRONLY);

	fill(buffer, PAGE);
	start();
	for (long i = 0; i < count; i++) {
		memcpy(buffer, &i, sizeof(i));
		check(write(fd, buffer, PAGE) == PAGE, "write");
		check(!fsync(fd), "fsync");
	}
	close(fd);
}

/* A process that ends with its parent, so that nothing goes on when bench-ops is killed. */
static pid_t fork_child(void)
{
	const pid_t parent = getpid();
	const pid_t pid = fork();

	check(pid >= 0, "fork");
	if (!pid) {
		check(!prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static int compare_doubles(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Writes 4 KiB and flushes, up to n times; seconds[] are sorted afterwards.  Returns how many. */
static long flushes(int fd, long n, double limit, double *took)
{
	const double end = seconds() + limit;
	long done = 0;

	while (done < n && (done < 20 || seconds() < end)) {
		const double t0 = seconds();

		memcpy(buffer, &t0, sizeof(t0));
		check(pwrite(fd, buffer, PAGE, (off_t)(done % 256) * PAGE) == PAGE, "pwrite");
		check(!fsync(fd), "fsync");
		took[done++] = seconds() - t0;
	}
	qsort(took, (size_t)done, sizeof(*took), compare_doubles);
	return done;
}

/* The other client: 1 MiB writes, without end, through a file of BUSY_MIB. */
static _Noreturn void stream_for_ever(int fd)
{
	for (long i = 0;; i++) {
		for (size_t at = 0; at < MIB; at += PAGE)
			memcpy(buffer + at, &i, sizeof(i));
		check(pwrite(fd, buffer, MIB, (off_t)(i % BUSY_MIB) * MIB) == MIB, "write");
	}
}

static void fsync_busy(void)
{
	int fd = open_in("log", O_CREAT | O_TRUNC | O_WRONLY);
	int busy = open_in("busy", O_CREAT | O_TRUNC | O_WRONLY);
	double *took = calloc((size_t)count, sizeof(*took)), idle;
	struct stat st;
	pid_t pid;
	long n;

	check(took != NULL, "memory");
	fill(buffer, MIB);
	n = flushes(fd, count, BUSY_SECONDS, took);
	idle = took[n / 2];
	pid = fork_child();
	if (!pid)
		stream_for_ever(busy);
	/* It has to be in full swing. */
	while (fstat(busy, &st) || st.st_size < 16 * MIB) {
		check(!waitpid(pid, NULL, WNOHANG), "the other client ended");
		usleep(1000);
	}
	start();
	n = flushes(fd, count, BUSY_SECONDS, took);
	shared->ended[client] = seconds();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	snprintf(shared->extra, sizeof(shared->extra),
		 " idle_us=%.1f busy_us=%.1f p99_us=%.1f flushes=%ld", idle * 1e6, took[n / 2] * 1e6,
		 took[(n * 99 + 99) / 100 - 1] * 1e6, n);
	free(took);
	close(busy);
	close(fd);
}

static const struct op {
	const char *name;
	void (*run)(void);
} ops[] = {
	{ "write", stream_write },
	{ "read-warm", stream_read_warm },
	{ "read-cold", stream_read_cold },
	{ "random-read-warm", random_read_warm },
	{ "random-read-cold", random_read_cold },
	{ "map-read", map_read },
	{ "random-write", random_write },
	{ "page-write", page_write },
	{ "fragment", fragment },
	{ "clone", clone_file },
	{ "create", create_files },
	{ "create-empty", create_empty },
	{ "stat", stat_files },
	{ "open-read", open_read },
	{ "fsync-4k", fsync_4k },
	{ "fsync-busy", fsync_busy },
};

static const struct op *find_op(const char *name)
{
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	}
	return NULL;
}

/* One client, in the directory that is its current one when it has it for itself. */
static void run_client(const struct op *op, long which, long clients)
{
	char name[32];

	client = which;
	if (clients > 1) {
		snprintf(name, sizeof(name), "c%ld", which);
		check(!chdir(dir), "chdir");
		check(!mkdir(name, 0755) || errno == EEXIST, "mkdir");
		check(!chdir(name), "chdir");
		dir = ".";
	}
	buffer = aligned_alloc(PAGE, MIB);
	check(buffer != NULL, "memory");
	op->run();
	if (shared->ended[client] == 0)
		shared->ended[client] = seconds();
	free(buffer);
}

static void run_clients(const struct op *op, long clients)
{
	int status, failed = 0;

	for (long i = 0; i < clients; i++) {
		if (!fork_child()) {
			run_client(op, i, clients);
			_exit(0);
		}
	}
	/* The others would wait at the barrier for one that failed. */
	while (wait(&status) > 0) {
		if (status && !failed) {
			failed = 1;
			signal(SIGTERM, SIG_IGN);
			kill(0, SIGTERM);
		}
	}
	if (failed)
		exit(1);
}

static int usage(void)
{
	fprintf(stderr, "usage: bench-ops OP DIR COUNT [CLIENTS]; OP is one of:");
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		fprintf(stderr, " %s", ops[i].name);
	fprintf(stderr, "\n");
	return 2;
}

int main(int argc, char **argv)
{
	const struct op *op = argc == 4 || argc == 5 ? find_op(argv[1]) : NULL;
	char *end_count = NULL, *end_clients = NULL;
	double began, ended;
	long clients;
	pthread_barrierattr_t attr;

	if (!op)
		return usage();
	dir = argv[2];
	count = strtol(argv[3], &end_count, 10);
	clients = argc == 5 ? strtol(argv[4], &end_clients, 10) : 1;
	if (*end_count || count <= 0 || (end_clients && *end_clients) || clients < 1 ||
	    clients > CLIENTS_MAX)
		return usage();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED, "mmap");
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->begin, &attr, (unsigned)clients);
	setpgid(0, 0);
	run_clients(op, clients);
	began = shared->began[0];
	ended = shared->ended[0];
	for (long i = 1; i < clients; i++) {
		began = shared->began[i] < began ? shared->began[i] : began;
		ended = shared->ended[i] > ended ? shared->ended[i] : ended;
	}
	printf("%s %ld %.9f%s\n", op->name, count * clients, ended - began, shared->extra);
	return 0;
}
