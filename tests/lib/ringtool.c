/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ringtool - rings for the scripts of tests/mount.
 *
 *	create PATH BYTES [multi]
 *	write PATH WRITER FIRST COUNT    messages FIRST.. of a writer; COUNT 0: until killed
 *	read PATH COUNT                  check that many, in order of each writer; the last of each
 *	                                 writer is printed; COUNT 0: what is there
 *	check PATH                       the same for what is there, without taking it or a role
 *
 * Message n of a writer says so and has bytes and a length that go with it, so that one that is
 * torn, lost, doubled or out of order is noticed; "read" and "check" begin with any number.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmfs.h"
#include "pmfs/ring.h"

#define WRITERS 8u

static int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("ringtool: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

static size_t length_of(uint64_t n)
{
	return 16 + (size_t)(n * n * 2654435761u % (n % 32 ? 300 : 5000));
}

static uint8_t byte_of(uint64_t writer, uint64_t n, size_t i)
{
	return (uint8_t)((n + i * 7 + writer * 31) ^ (n >> 8) ^ i >> 8);
}

/* What was seen of each writer. */
struct seen {
	uint64_t next[WRITERS];
	bool begun[WRITERS];
	uint64_t count;
};

static int look_at(struct seen *s, const uint8_t *message, size_t length)
{
	uint64_t head[2];

	if (length < sizeof(head))
		return fail("a message of %zu bytes", length);
	memcpy(head, message, sizeof(head));
	if (head[0] >= WRITERS || length != length_of(head[1]))
		return fail("message %" PRIu64 " of writer %" PRIu64 " has %zu bytes", head[1],
			    head[0], length);
	for (size_t i = sizeof(head); i < length; i++) {
		if (message[i] != byte_of(head[0], head[1], i))
			return fail("message %" PRIu64 " of writer %" PRIu64 " is torn at %zu",
				    head[1], head[0], i);
	}
	if (s->begun[head[0]] && s->next[head[0]] != head[1])
		return fail("message %" PRIu64 " of writer %" PRIu64 " comes instead of %" PRIu64,
			    head[1], head[0], s->next[head[0]]);
	s->begun[head[0]] = true;
	s->next[head[0]] = head[1] + 1;
	s->count++;
	return 0;
}

static int report(const struct seen *s)
{
	printf("%" PRIu64, s->count);
	for (unsigned int i = 0; i < WRITERS; i++) {
		if (s->begun[i])
			printf(" %u:%" PRIu64, i, s->next[i] - 1);
	}
	putchar('\n');
	return 0;
}

static int do_write(const char *path, uint64_t writer, uint64_t n, uint64_t count)
{
	struct pmfs_ring *r;
	uint64_t head[2] = {writer, 0};
	uint8_t *at;
	int rc = pmfs_ring_open(path, PMFS_RING_PRODUCER, &r);

	if (rc)
		return fail("%s: %s", path, strerror(-rc));
	for (uint64_t i = 0; !count || i < count; i++, n++) {
		size_t length = length_of(n);

		while ((rc = pmfs_ring_reserve(r, length, (void **)(void *)&at)) == -EAGAIN) {
			rc = pmfs_ring_wait_space(r, length, PMFS_FOREVER);
			if (rc && rc != -EOWNERDEAD)
				break;
		}
		if (rc)
			return fail("%s: message %" PRIu64 ": %s", path, n, strerror(-rc));
		head[1] = n;
		memcpy(at, head, sizeof(head));
		for (size_t k = sizeof(head); k < length; k++)
			at[k] = byte_of(writer, n, k);
		rc = pmfs_ring_commit(r);
		if (rc)
			return fail("%s: message %" PRIu64 ": %s", path, n, strerror(-rc));
	}
	pmfs_ring_close(r);
	return 0;
}

static int do_read(const char *path, uint64_t count)
{
	struct seen s = {.count = 0};
	struct pmfs_ring *r;
	const void *at;
	ssize_t length;
	int rc = pmfs_ring_open(path, PMFS_RING_CONSUMER, &r);

	if (rc)
		return fail("%s: %s", path, strerror(-rc));
	while (!count || s.count < count) {
		rc = pmfs_ring_wait_data(r, count ? PMFS_FOREVER : 0);
		if (rc == -ETIMEDOUT)
			break;
		if (rc == -EOWNERDEAD)
			continue;
		if (rc)
			return fail("%s: %s", path, strerror(-rc));
		length = pmfs_ring_peek(r, &at);
		if (length < 0)
			return fail("%s: %s", path, strerror((int)-length));
		if (look_at(&s, at, (size_t)length))
			return 1;
		pmfs_ring_release(r);
	}
	pmfs_ring_close(r);
	return report(&s);
}

static int do_check(const char *path)
{
	struct seen s = {.count = 0};
	struct pmfs_ring_info info;
	struct pmfs_ring *r;
	const uint8_t *base;
	uint64_t record;
	size_t size;
	int rc = pmfs_ring_open(path, 0, &r);

	if (!rc)
		rc = pmfs_ring_stat(r, &info);
	if (rc)
		return fail("%s: %s", path, strerror(-rc));
	base = pmfs_ring_base(r, &size);
	if (info.head - info.tail > size)
		return fail("%s: head %" PRIu64 ", tail %" PRIu64, path, info.head, info.tail);
	for (uint64_t at = info.tail; at < info.head;
	     at += PMFS_RING_STRIDE(PMFS_RING_RECORD_LENGTH(record))) {
		memcpy(&record, base + at % size, sizeof(record));
		if (PMFS_RING_STRIDE(PMFS_RING_RECORD_LENGTH(record)) > info.head - at)
			return fail("%s: a record that is too long at %" PRIu64, path, at);
		if (PMFS_RING_RECORD_STATE(record) == PMFS_RING_SKIP)
			continue;
		if (PMFS_RING_RECORD_STATE(record) != PMFS_RING_DONE)
			return fail("%s: a record in state %u at %" PRIu64, path,
				    PMFS_RING_RECORD_STATE(record), at);
		if (look_at(&s, base + at % size + 8, PMFS_RING_RECORD_LENGTH(record)))
			return 1;
	}
	pmfs_ring_close(r);
	return report(&s);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int rc;

	if (!strcmp(what, "create") && argc >= 4) {
		rc = pmfs_ring_create(argv[2], strtoull(argv[3], NULL, 10), 0666,
				      argc > 4 ? PMFS_RING_MULTI : 0);
		return rc ? fail("%s: %s", argv[2], strerror(-rc)) : 0;
	}
	if (!strcmp(what, "write") && argc == 6)
		return do_write(argv[2], strtoull(argv[3], NULL, 10) % WRITERS,
				strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	if (!strcmp(what, "read") && argc == 4)
		return do_read(argv[2], strtoull(argv[3], NULL, 10));
	if (!strcmp(what, "check") && argc == 3)
		return do_check(argv[2]);
	fail("usage: see the top of its source");
	return 2;
}
