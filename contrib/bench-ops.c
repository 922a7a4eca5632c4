/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-ops - one timed operation in a directory, for contrib/bench.
 *
 *   bench-ops OP DIR COUNT        prints: OP UNITS SECONDS
 *
 * UNITS are MiB for write and read-*, operations for the rest.  Preparation is not timed.  Each OP works in files of its own below DIR, and what
 * one of them leaves the next may use (write before read, create before stat, open and unlink).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024 * 1024)
#define PAGE 4096
#define FILES_PER_DIR 1000
#define SMALL 100

static const char *dir;
static long count;
static char *buffer;
static double began;

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void start(void)
{
	began = seconds();
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

static void stream_read(int cold)
{
	int fd = open_in("stream", O_RDONLY);

	if (cold)
		check(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
	start();
	for (long i = 0; i < count; i++)
		check(read(fd, buffer, MIB) == MIB, "read");
	close(fd);
}

static void stream_read_cold(void)
{
	stream_read(1);
}

static void stream_read_warm(void)
{
	stream_read(0);
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

static void random_read(void)
{
	int fd = open_in("stream", O_RDONLY);
	struct stat st;

	check(!fstat(fd, &st) && st.st_size >= MIB, "stream");
	check(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
	check(!posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), "fadvise");
	start();
	for (long i = 0; i < count; i++) {
		const off_t page = (off_t)(next_random() % (uint64_t)(st.st_size / PAGE));

		check(pread(fd, buffer, PAGE, page * PAGE) == PAGE, "pread");
	}
	close(fd);
}

static void map_write(void)
{
	int fd = open_in("map", O_CREAT | O_TRUNC | O_RDWR);
	const size_t len = (size_t)count * PAGE;
	char *map;

	check(!ftruncate(fd, (off_t)len), "ftruncate");
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED, "mmap");
	fill(buffer, PAGE);
	start();
	for (size_t at = 0; at < len; at += PAGE) {
		memcpy(buffer, &at, sizeof(at));
		memcpy(map + at, buffer, PAGE);
	}
	check(!msync(map, len, MS_SYNC), "msync");
	munmap(map, len);
	close(fd);
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

static void open_read(void)
{
	start();
	for (long i = 0; i < count; i++) {
		int fd = open(file_path(i), O_RDONLY);

		check(fd >= 0 && read(fd, buffer, PAGE) == SMALL, "open and read");
		close(fd);
	}
}

static void unlink_files(void)
{
	start();
	for (long i = 0; i < count; i++)
		check(!unlink(file_path(i)), "unlink");
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

static const struct op {
	const char *name;
	void (*run)(void);
} ops[] = {
	{ "write", stream_write },        { "read-warm", stream_read_warm },
	{ "read-cold", stream_read_cold }, { "random-write", random_write },
	{ "random-read", random_read },   { "map-write", map_write },
	{ "create", create_files },       { "create-empty", create_empty },
	{ "stat", stat_files },           { "open-read", open_read },
	{ "unlink", unlink_files },       { "fsync-4k", fsync_4k },
};

int main(int argc, char **argv)
{
	char *end;

	if (argc == 4) {
		dir = argv[2];
		count = strtol(argv[3], &end, 10);
		buffer = aligned_alloc(PAGE, MIB);
		check(buffer != NULL, "memory");
		for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
			if (strcmp(argv[1], ops[i].name) || *end || count <= 0)
				continue;
			ops[i].run();
			printf("%s %ld %.9f\n", ops[i].name, count, seconds() - began);
			free(buffer);
			return 0;
		}
	}
	fprintf(stderr, "usage: bench-ops OP DIR COUNT; OP is one of:");
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		fprintf(stderr, " %s", ops[i].name);
	fprintf(stderr, "\n");
	return 2;
}
