/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * litmus - are the stores of one process the loads of another?  For the scripts of tests/mount.
 *
 *	each WRITABLE READABLE COUNT     every one of COUNT stores is seen, in their order
 *	order WRITABLE READABLE COUNT    stores that wait for nobody: none is seen before an
 *	                                 earlier one, and the last is there at the end
 *
 * Both are paths of one file, which is made as long as it has to be.  Two processes map it, each
 * for itself: one stores through WRITABLE, the other loads through READABLE.  What was seen is
 * printed; a store that is missing, late, older than one before, or of a value that nobody has
 * stored, is one line on standard error and exit status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The first page has what the reader tells the writer; stores go to the others in turn. */
#define WORDS	   512u
#define PAGES	   16u
#define SLOTS	   (PAGES * WORDS)
#define FILE_BYTES ((1 + PAGES) * WORDS * 8)
#define REPORT	   256u /* the reader tells how far it is after that many */

static int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("litmus: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

static _Atomic uint64_t *map(const char *path, bool writable)
{
	int fd = open(path, writable ? O_RDWR : O_RDONLY);
	void *at = MAP_FAILED;

	if (fd >= 0)
		at = mmap(NULL, FILE_BYTES, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd,
			  0);
	if (at == MAP_FAILED)
		fail("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return at == MAP_FAILED ? NULL : at;
}

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* Where store number n goes: never to the page of the one before. */
static size_t slot(uint64_t n)
{
	return (size_t)(WORDS * (1 + n % PAGES) + n / PAGES % WORDS);
}

/* The other process may want this processor. */
static void pause_a_bit(unsigned int *spins)
{
	if (++*spins % 128 == 0)
		sched_yield();
}

/* ------------------------------------------------------------------ each */

static int each_writer(const char *writable, uint64_t count)
{
	_Atomic uint64_t *w = map(writable, true);
	unsigned int spins = 0;

	if (!w)
		return 1;
	for (uint64_t n = 1; n <= count; n++) {
		/* A value stays until the reader has seen it, and the one after it. */
		while (n - load(&w[0]) > SLOTS - 2)
			pause_a_bit(&spins);
		store(&w[slot(n)], n);
	}
	return 0;
}

static int each_reader(const char *writable, const char *readable, uint64_t count)
{
	const _Atomic uint64_t *r = map(readable, false);
	_Atomic uint64_t *w = map(writable, true);
	unsigned int spins = 0;

	if (!w || !r)
		return 1;
	for (uint64_t n = 1; n <= count; n++) {
		const uint64_t before = n > SLOTS ? n - SLOTS : 0;

		for (;;) {
			const uint64_t after = load(&r[slot(n + 1)]);
			const uint64_t seen = load(&r[slot(n)]);

			if (after == n + 1 && seen != n)
				return fail("store %" PRIu64 " is seen before store %" PRIu64,
					    n + 1, n);
			if (seen == n)
				break;
			if (seen != before)
				return fail("%" PRIu64 " instead of %" PRIu64 " or %" PRIu64, seen,
					    before, n);
			pause_a_bit(&spins);
		}
		if (n % REPORT == 0)
			store(&w[0], n);
	}
	printf("%" PRIu64 " stores, each seen\n", count);
	return fflush(stdout) ? 1 : 0;
}

/* ------------------------------------------------------------------ order */

static int order_writer(const char *writable, uint64_t count)
{
	_Atomic uint64_t *w = map(writable, true);

	if (!w)
		return 1;
	for (uint64_t n = 1; n <= count; n++) {
		atomic_store_explicit(&w[slot(0)], n, memory_order_relaxed);
		store(&w[slot(1)], n);
	}
	return 0;
}

/* Nobody waits for it, so it sees what it is fast enough for; and, in the end, the last. */
static int order_reader(const char *readable, uint64_t count)
{
	const _Atomic uint64_t *r = map(readable, false);
	uint64_t last = 0, values = 0;
	unsigned int spins = 0;

	if (!r)
		return 1;
	while (last < count) {
		const uint64_t second = load(&r[slot(1)]);
		const uint64_t first = load(&r[slot(0)]);

		if (second < last || first < second)
			return fail("%" PRIu64 " is seen after %" PRIu64 ", and before %" PRIu64,
				    second, last, first);
		if (second == last)
			pause_a_bit(&spins);
		values += second != last;
		last = second;
	}
	if (last != count)
		return fail("the last store is %" PRIu64, last);
	printf("%" PRIu64 " stores, %" PRIu64 " values seen in order\n", count, values);
	return fflush(stdout) ? 1 : 0;
}

/* ------------------------------------------------------------------ both processes */

static pid_t start(bool each, bool reader, char **argv, uint64_t count)
{
	const pid_t parent = getpid();
	pid_t pid = fork();
	int rc;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	if (reader)
		rc = each ? each_reader(argv[2], argv[3], count) : order_reader(argv[3], count);
	else
		rc = each ? each_writer(argv[2], count) : order_writer(argv[2], count);
	_exit(rc);
}

/* Zeros, so that no value of an earlier run is taken for one of this. */
static int prepare(const char *path)
{
	static const char zeros[FILE_BYTES];
	int fd = open(path, O_RDWR | O_CREAT, 0666);

	if (fd < 0 || pwrite(fd, zeros, sizeof(zeros), 0) != (ssize_t)sizeof(zeros) || fsync(fd))
		return fail("%s: %s", path, strerror(errno));
	return close(fd);
}

int main(int argc, char **argv)
{
	const bool each = argc == 5 && !strcmp(argv[1], "each");
	const uint64_t count = argc == 5 ? strtoull(argv[4], NULL, 10) : 0;
	int status, rc = 0;
	pid_t pids[2], pid;

	if (!count || (!each && strcmp(argv[1], "order"))) {
		fail("usage: see the top of its source");
		return 2;
	}
	if (prepare(argv[2]))
		return 1;
	for (int i = 0; i < 2; i++) {
		pids[i] = start(each, i == 1, argv, count);
		if (pids[i] < 0)
			return fail("%s", strerror(errno));
	}
	for (int left = 2; left; left--) {
		pid = wait(&status);
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			continue;
		if (!rc && WIFSIGNALED(status))
			fail("signal %d", WTERMSIG(status));
		if (!rc && left == 2)
			kill(pid == pids[0] ? pids[1] : pids[0], SIGKILL);
		rc = 1;
	}
	return rc;
}
