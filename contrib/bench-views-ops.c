/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-views-ops - one timed operation on a file, for contrib/bench-views.
 *
 *	bench-views-ops store FILE 0 MIB        through a mapping of all of it
 *	bench-views-ops load FILE 0 MIB
 *	bench-views-ops write FILE BYTES MIB    by calls of that many bytes
 *	bench-views-ops read FILE BYTES MIB
 *	bench-views-ops append FILE BYTES MIB   to the end of what may be there, then fsync
 *
 * Prints MiB per second.  Before the clock starts all of FILE is there, save for append.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB	  ((size_t)1 << 20)
#define PASSES	  16
#define MAX_BYTES (4 * MIB)

static void die(const char *what)
{
	fprintf(stderr, "bench-views-ops: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void fill(int fd, const uint8_t *buffer, size_t size)
{
	for (size_t at = 0; at < size; at += MIB) {
		if (pwrite(fd, buffer, MIB, (off_t)at) != (ssize_t)MIB)
			die("write");
	}
}

static double by_mapping(int fd, size_t size, int store)
{
	uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	volatile uint64_t sum = 0;
	double begin;

	if (map == MAP_FAILED)
		die("mmap");
	memset(map, 2, size);
	begin = seconds();
	for (int pass = 0; pass < PASSES; pass++) {
		uint64_t part = 0;

		if (store) {
			memset(map, pass, size);
			/* Or the compiler would see that only the last pass matters. */
			__asm__ volatile("" : : "r"(map) : "memory");
			continue;
		}
		for (size_t i = 0; i < size / 8; i++)
			part += ((const uint64_t *)(const void *)map)[i];
		sum += part;
	}
	return seconds() - begin;
}

static double by_calls(int fd, uint8_t *buffer, size_t size, size_t bytes, int out)
{
	double begin = seconds();

	for (int pass = 0; pass < PASSES; pass++) {
		for (size_t at = 0; at < size; at += bytes) {
			const ssize_t n = out ? pwrite(fd, buffer, bytes, (off_t)at)
					      : pread(fd, buffer, bytes, (off_t)at);

			if (n != (ssize_t)bytes)
				die(out ? "write" : "read");
		}
	}
	return seconds() - begin;
}

static double by_appends(int fd, const uint8_t *buffer, size_t size, size_t bytes)
{
	double begin = seconds();

	for (size_t done = 0; done < size; done += bytes) {
		if (write(fd, buffer, bytes) != (ssize_t)bytes)
			die("append");
	}
	if (fsync(fd))
		die("fsync");
	return seconds() - begin;
}

int main(int argc, char **argv)
{
	const char *what = argc == 5 ? argv[1] : "";
	const size_t bytes = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
	const size_t mib = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
	const int append = !strcmp(what, "append");
	uint8_t *buffer = malloc(MAX_BYTES);
	double took, passes = PASSES;
	int fd;

	if (!mib || !buffer || (strcmp(what, "store") && strcmp(what, "load") && !bytes) ||
	    bytes > MAX_BYTES) {
		fprintf(stderr, "usage: see the top of bench-views-ops.c\n");
		return 2;
	}
	memset(buffer, 1, MAX_BYTES);
	fd = open(argv[2], O_RDWR | O_CREAT | (append ? O_APPEND : 0), 0600);
	if (fd < 0)
		die(argv[2]);
	if (!append)
		fill(fd, buffer, mib * MIB);
	if (append) {
		took = by_appends(fd, buffer, mib * MIB, bytes);
		passes = 1;
	} else if (!strcmp(what, "store") || !strcmp(what, "load")) {
		took = by_mapping(fd, mib * MIB, *what == 's');
	} else if (!strcmp(what, "write") || !strcmp(what, "read")) {
		took = by_calls(fd, buffer, mib * MIB, bytes, *what == 'w');
	} else {
		fprintf(stderr, "usage: see the top of bench-views-ops.c\n");
		return 2;
	}
	printf("%.6g\n", (double)mib * passes / took);
	return 0;
}
