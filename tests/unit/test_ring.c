/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings in one thread: sizes, batches, refusals, and memory that somebody else has written to. */
#include <errno.h>

#include "lib/ringfix.h"

#define BOTH (PMFS_RING_PRODUCER | PMFS_RING_CONSUMER)

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static void put(struct pmfs_ring *r, size_t length, uint64_t n)
{
	void *message;

	assert_int_equal(pmfs_ring_reserve(r, length, &message), 0);
	assert_int_equal((uintptr_t)message % 8, 0);
	ringfix_fill(message, length, 0, n);
}

static void take(struct pmfs_ring *r, size_t length, uint64_t n)
{
	const void *message;

	assert_int_equal(pmfs_ring_peek(r, &message), (ssize_t)length);
	assert_int_equal((uintptr_t)message % 8, 0);
	assert_true(ringfix_holds(message, length, 0, n));
}

static void take_none(struct pmfs_ring *r)
{
	const void *message;

	assert_int_equal(pmfs_ring_peek(r, &message), -EAGAIN);
}

static void all_lengths(struct ringfix *f, unsigned int flags)
{
	struct pmfs_ring *r;
	size_t max;

	assert_int_equal(pmfs_ring_create(f->path, 2 * page_bytes(), 0600, flags), 0);
	r = ringfix_open(f->path, BOTH);
	max = pmfs_ring_message_max(r);
	assert_int_equal(max, 2 * page_bytes() - 8);
	for (size_t length = 1; length <= max; length++) {
		put(r, length, length);
		take_none(r);
		assert_int_equal(pmfs_ring_commit(r), 0);
		take(r, length, length);
		take_none(r);
		assert_int_equal(pmfs_ring_release(r), 0);
	}
	pmfs_ring_close(r);
}

static void test_ring_carries_every_length(void **state)
{
	all_lengths(*state, 0);
}

static void test_ring_multi_carries_every_length(void **state)
{
	all_lengths(*state, PMFS_RING_MULTI);
}

/* An empty ring's next record lies at `at`, when it lay at `from`. */
static void move_to(struct pmfs_ring *p, struct pmfs_ring *c, size_t from, size_t at, size_t size)
{
	size_t left = (at + size - from) % size;

	/* The smallest record has 16 bytes. */
	if (left == 8)
		left += size;
	while (left) {
		const size_t step = left > size ? size / 2 : left;
		const void *message;
		void *room;

		assert_int_equal(pmfs_ring_reserve(p, step - 8, &room), 0);
		assert_int_equal(pmfs_ring_commit(p), 0);
		assert_int_equal(pmfs_ring_peek(c, &message), (ssize_t)(step - 8));
		assert_int_equal(pmfs_ring_release(c), 0);
		left -= step;
	}
}

/*
 * Each length over the end of the ring, split after its header, before its last bytes, in the
 * middle, at one more place, and not split but ending there; short ones at each place there is.
 */
static void all_wraps(struct ringfix *f, unsigned int flags, uint64_t seed)
{
	const size_t size = page_bytes(), everywhere = 160;
	struct pmfs_ring *p, *c;
	size_t at = 0, split = 0;

	assert_int_equal(pmfs_ring_create(f->path, size, 0600, flags), 0);
	p = ringfix_open(f->path, PMFS_RING_PRODUCER);
	c = ringfix_open(f->path, PMFS_RING_CONSUMER);
	for (size_t length = 1; length <= size - 8; length++) {
		const size_t stride = PMFS_RING_STRIDE(length), steps = stride / 8;
		const size_t some[] = {0, 1, steps / 2, steps - 1,
				       (size_t)ringfix_random(&seed) % steps};
		const size_t places = stride <= everywhere ? steps : sizeof(some) / sizeof(some[0]);

		for (size_t i = 0; i < places; i++) {
			/* So much of the record is behind the end. */
			const size_t behind = 8 * (stride <= everywhere ? i : some[i]);
			const size_t place = (size - stride + behind) % size;

			move_to(p, c, at, place, size);
			put(p, length, length + i);
			take_none(c);
			assert_int_equal(pmfs_ring_commit(p), 0);
			take(c, length, length + i);
			take_none(c);
			assert_int_equal(pmfs_ring_release(c), 0);
			at = behind % size;
			split += behind > 0;
		}
	}
	assert_true(split > 3 * (size - 8));
	pmfs_ring_close(p);
	pmfs_ring_close(c);
}

static void test_ring_wraps_every_length(void **state)
{
	all_wraps(*state, 0, ringfix_seed());
}

static void test_ring_multi_wraps_every_length(void **state)
{
	all_wraps(*state, PMFS_RING_MULTI, ringfix_seed());
}

/* Against a model: a list of the messages between head and tail. */
static void random_batches(struct ringfix *f, unsigned int flags, uint64_t seed)
{
	const size_t size = page_bytes();
	uint64_t written = 0, read = 0, released = 0, committed = 0, used = 0, pending_used = 0,
		 first_used;
	struct {
		size_t length, stride;
	} model[1024];
	struct pmfs_ring *r;
	void *message;
	size_t length;
	int rc;

	assert_int_equal(pmfs_ring_create(f->path, size, 0600, flags), 0);
	r = ringfix_open(f->path, BOTH);
	for (unsigned int step = 0; step < 60000; step++) {
		uint64_t dice = ringfix_random(&seed);

		switch (dice % 16) {
		case 0:
		case 1:
		case 2:
		case 3:
		case 4:
		case 5:
			length = (size_t)(ringfix_random(&seed) % (dice & 64 ? size - 8 : 100)) + 1;
			rc = pmfs_ring_reserve(r, length, &message);
			if (flags && written - committed == 256) {
				assert_int_equal(rc, -ENOBUFS);
				break;
			}
			if (used + PMFS_RING_STRIDE(length) > size) {
				assert_int_equal(rc, -EAGAIN);
				break;
			}
			assert_int_equal(rc, 0);
			first_used = PMFS_RING_STRIDE(length);
			if (dice & 128) {
				length = (size_t)(ringfix_random(&seed) % length) + 1;
				assert_int_equal(pmfs_ring_trim(r, length), 0);
				/* What is not used goes back, or stays until it is passed. */
				if (!flags)
					first_used = PMFS_RING_STRIDE(length);
			}
			ringfix_fill(message, length, 0, written);
			model[written % 1024].length = length;
			model[written % 1024].stride = (size_t)first_used;
			written++;
			used += first_used;
			pending_used += first_used;
			break;
		case 6:
		case 7:
		case 8:
			assert_int_equal(pmfs_ring_commit(r), 0);
			committed = written;
			pending_used = 0;
			break;
		case 9:
			/* Of a MULTI ring's given up room the consumer must learn first. */
			if (flags)
				break;
			assert_int_equal(pmfs_ring_cancel(r), 0);
			written = committed;
			used -= pending_used;
			pending_used = 0;
			break;
		case 10:
		case 11:
		case 12:
			if (read == committed)
				take_none(r);
			else {
				take(r, model[read % 1024].length, read);
				read++;
			}
			break;
		case 13:
		case 14:
			/* A rest that was trimmed off the last message is passed with the next. */
			for (; flags && read < committed; read++)
				take(r, model[read % 1024].length, read);
			if (flags)
				take_none(r);
			assert_int_equal(pmfs_ring_release(r), 0);
			for (; released < read; released++)
				used -= model[released % 1024].stride;
			break;
		case 15:
			assert_int_equal(pmfs_ring_rewind(r), 0);
			read = released;
			break;
		}
	}
	assert_true(released > 1000);
	pmfs_ring_close(r);
}

static void test_ring_random_batches(void **state)
{
	random_batches(*state, 0, ringfix_seed());
}

static void test_ring_multi_random_batches(void **state)
{
	random_batches(*state, PMFS_RING_MULTI, ringfix_seed());
}

static void test_ring_multi_cancel_is_skipped(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring *a, *b;

	assert_int_equal(pmfs_ring_create(f->path, page_bytes(), 0600, PMFS_RING_MULTI), 0);
	a = ringfix_open(f->path, BOTH);
	b = ringfix_open(f->path, PMFS_RING_PRODUCER);
	put(a, 100, 1);
	put(b, 200, 2);
	put(a, 300, 3);
	assert_int_equal(pmfs_ring_commit(b), 0);
	/* In order: b's message waits for a's before it. */
	take_none(a);
	assert_int_equal(pmfs_ring_cancel(a), 0);
	take(a, 200, 2);
	take_none(a);
	assert_int_equal(pmfs_ring_release(a), 0);
	/* One that is closed gives up, too. */
	put(b, 50, 4);
	put(a, 60, 5);
	assert_int_equal(pmfs_ring_commit(a), 0);
	take_none(a);
	pmfs_ring_close(b);
	take(a, 60, 5);
	assert_int_equal(pmfs_ring_release(a), 0);
	/* All room is back. */
	put(a, pmfs_ring_message_max(a), 6);
	pmfs_ring_close(a);
}

static void test_ring_says_when_it_is_full_or_empty(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring *r;
	void *message;
	char buf[64];

	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, 0), 0);
	r = ringfix_open(f->path, BOTH);
	assert_int_equal(pmfs_ring_wait_data(r, 0), -ETIMEDOUT);
	assert_int_equal(pmfs_ring_wait_data(r, 1000000), -ETIMEDOUT);
	assert_int_equal(pmfs_ring_read(r, buf, sizeof(buf), 0), -ETIMEDOUT);
	assert_int_equal(pmfs_ring_reserve(r, 0, &message), -EINVAL);
	assert_int_equal(pmfs_ring_reserve(r, page_bytes() - 7, &message), -EMSGSIZE);
	assert_int_equal(pmfs_ring_reserve(r, SIZE_MAX, &message), -EMSGSIZE);
	assert_int_equal(pmfs_ring_trim(r, 1), -EINVAL);
	put(r, page_bytes() - 8, 1);
	assert_int_equal(pmfs_ring_reserve(r, 1, &message), -EAGAIN);
	assert_int_equal(pmfs_ring_wait_space(r, 1, 0), -EBUSY);
	assert_int_equal(pmfs_ring_write(r, "x", 1, 0), -EBUSY);
	assert_int_equal(pmfs_ring_commit(r), 0);
	assert_int_equal(pmfs_ring_wait_space(r, 1, 0), -ETIMEDOUT);
	assert_int_equal(pmfs_ring_wait_space(r, 1, 1000000), -ETIMEDOUT);
	assert_int_equal(pmfs_ring_write(r, "x", 1, 1000000), -ETIMEDOUT);
	assert_int_equal(pmfs_ring_read(r, buf, sizeof(buf), 0), -EMSGSIZE);
	take(r, page_bytes() - 8, 1);
	assert_int_equal(pmfs_ring_read(r, buf, sizeof(buf), 0), -EBUSY);
	assert_int_equal(pmfs_ring_release(r), 0);
	assert_int_equal(pmfs_ring_wait_space(r, page_bytes() - 8, 0), 0);
	assert_int_equal(pmfs_ring_write(r, "hello", 5, 0), 0);
	assert_int_equal(pmfs_ring_read(r, buf, sizeof(buf), 0), 5);
	assert_memory_equal(buf, "hello", 5);
	pmfs_ring_close(r);
}

static void test_ring_open_refuses(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring *a, *b, *all[PMFS_RING_SLOTS];
	void *message;
	const void *at;
	int fd;

	assert_int_equal(pmfs_ring_open(f->path, 0, &a), -ENOENT);
	assert_int_equal(pmfs_ring_create(f->path, 0, 0600, 0), -EINVAL);
	assert_int_equal(pmfs_ring_create(f->path, (size_t)PMFS_RING_SIZE_MAX + 1, 0600, 0),
			 -EINVAL);
	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, 1), -EINVAL);
	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, 0), 0);
	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, 0), -EEXIST);
	assert_int_equal(pmfs_ring_open(f->path, 1, &a), -EINVAL);
	a = ringfix_open(f->path, PMFS_RING_PRODUCER);
	assert_int_equal(pmfs_ring_open(f->path, PMFS_RING_PRODUCER, &b), -EBUSY);
	assert_int_equal(pmfs_ring_peek(a, &at), -EBADF);
	assert_int_equal(pmfs_ring_release(a), -EBADF);
	assert_int_equal(pmfs_ring_rewind(a), -EBADF);
	assert_int_equal(pmfs_ring_discard(a), -EBADF);
	assert_int_equal(pmfs_ring_wait_data(a, 0), -EBADF);
	b = ringfix_open(f->path, PMFS_RING_CONSUMER);
	assert_int_equal(pmfs_ring_reserve(b, 1, &message), -EBADF);
	assert_int_equal(pmfs_ring_commit(b), -EBADF);
	assert_int_equal(pmfs_ring_cancel(b), -EBADF);
	assert_int_equal(pmfs_ring_wait_space(b, 1, 0), -EBADF);
	pmfs_ring_close(a);
	pmfs_ring_close(b);
	a = ringfix_open(f->path, BOTH);
	pmfs_ring_close(a);
	unlink(f->path);

	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, PMFS_RING_MULTI), 0);
	for (unsigned int i = 1; i < PMFS_RING_SLOTS; i++)
		all[i] = ringfix_open(f->path, PMFS_RING_PRODUCER);
	assert_int_equal(pmfs_ring_open(f->path, PMFS_RING_PRODUCER, &a), -EUSERS);
	pmfs_ring_close(all[7]);
	all[7] = ringfix_open(f->path, PMFS_RING_PRODUCER);
	for (unsigned int i = 1; i < PMFS_RING_SLOTS; i++)
		pmfs_ring_close(all[i]);
	unlink(f->path);

	fd = open(f->path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(pmfs_ring_open(f->path, 0, &a), -EBADMSG);
	assert_int_equal(ftruncate(fd, 100000), 0);
	assert_int_equal(pmfs_ring_open(f->path, 0, &a), -EBADMSG);
	close(fd);
	assert_int_equal(pmfs_ring_open(f->dir, 0, &a), -EBADMSG);
}

static void test_ring_looking_needs_no_role(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring_info info;
	struct pmfs_ring *r, *look;
	size_t size;

	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, 0), 0);
	look = ringfix_open(f->path, 0);
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.producers, 0);
	assert_int_equal(info.consumer_pid, 0);
	assert_int_equal(info.size, page_bytes());
	r = ringfix_open(f->path, BOTH);
	put(r, 1, 0);
	assert_int_equal(pmfs_ring_commit(r), 0);
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.producers, 1);
	assert_int_equal(info.producer_pid, getpid());
	assert_int_equal(info.consumer_pid, getpid());
	assert_int_equal(info.head, 16);
	assert_int_equal(info.tail, 0);
	assert_int_equal(info.multi, 0);
	assert_memory_equal(pmfs_ring_base(look, &size), pmfs_ring_base(r, NULL), page_bytes());
	assert_int_equal(size, page_bytes());
	assert_int_equal(pmfs_ring_sync(look), -EBADF);
	assert_int_equal(pmfs_ring_sync(r), 0);
	pmfs_ring_close(r);
	pmfs_ring_close(look);
	pmfs_ring_close(NULL);
}

/* What was published and not released is there for whoever opens it next. */
static void test_ring_stays_in_its_file(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring *r;
	uint64_t seed = ringfix_seed(), wrote = 0, read = 0;

	assert_int_equal(pmfs_ring_create(f->path, page_bytes(), 0600, 0), 0);
	for (unsigned int round = 0; round < 200; round++) {
		r = ringfix_open(f->path, PMFS_RING_PRODUCER);
		for (uint64_t n = ringfix_random(&seed) % 8; n && wrote - read < 16; n--) {
			put(r, 1 + (size_t)(wrote % 200), wrote);
			wrote++;
		}
		assert_int_equal(pmfs_ring_commit(r), 0);
		if (round % 2 && wrote - read < 16)
			put(r, 5, 999); /* lost: not committed */
		pmfs_ring_close(r);
		r = ringfix_open(f->path, PMFS_RING_CONSUMER);
		for (uint64_t n = ringfix_random(&seed) % 8; n && read < wrote; n--) {
			take(r, 1 + (size_t)(read % 200), read);
			read++;
		}
		assert_int_equal(pmfs_ring_release(r), 0);
		if (read < wrote)
			take(r, 1 + (size_t)(read % 200), read); /* comes again: not released */
		pmfs_ring_close(r);
	}
	assert_true(read > 100);
}

/* pmfs/ring.h is enough to read one. */
static void test_ring_is_a_plain_file(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring_header h;
	uint64_t at, record;
	struct pmfs_ring *r;
	char text[64];
	unsigned int n = 0;
	int fd;

	assert_int_equal(pmfs_ring_create(f->path, page_bytes(), 0640, 0), 0);
	r = ringfix_open(f->path, PMFS_RING_PRODUCER);
	for (unsigned int i = 0; i < 20; i++) {
		int len = snprintf(text, sizeof(text), "message %u", i);

		assert_int_equal(pmfs_ring_write(r, text, (size_t)len, 0), 0);
	}
	fd = open(f->path, O_RDONLY);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	assert_int_equal(h.magic, PMFS_RING_MAGIC);
	for (at = h.tail; at != h.head; at += PMFS_RING_STRIDE(PMFS_RING_RECORD_LENGTH(record))) {
		char want[64];

		memset(text, 0, sizeof(text));
		assert_int_equal(pread(fd, &record, 8, (off_t)(h.data_offset + at % h.size)), 8);
		assert_int_equal(PMFS_RING_RECORD_STATE(record), PMFS_RING_DONE);
		assert_true(pread(fd, text, PMFS_RING_RECORD_LENGTH(record),
				  (off_t)(h.data_offset + at % h.size + 8)) > 0);
		snprintf(want, sizeof(want), "message %u", n++);
		assert_string_equal(text, want);
	}
	assert_int_equal(n, 20);
	close(fd);
	pmfs_ring_close(r);
}

/* ------------------------------------------------------------------ hostile memory */

/* Whatever is in the header: an error, or geometry that fits the file. */
static void test_ring_hostile_geometry(void **state)
{
	struct ringfix *f = *state;
	const uint64_t page = page_bytes();
	const struct {
		uint64_t size, offset;
		int want;
	} cases[] = {
		{0, page, -EUCLEAN},
		{page, 0, -EUCLEAN},
		{page + 8, page, -EUCLEAN},
		{page, page + 8, -EUCLEAN},
		{page, 2048, -EUCLEAN},
		{2 * page, page, -EUCLEAN},
		{page, 2 * page, -EUCLEAN},
		{PMFS_RING_SIZE_MAX, page, -EUCLEAN},
		{UINT64_MAX - page + 1, page, -EUCLEAN},
		{page, UINT64_MAX - page + 1, -EUCLEAN},
		{page, page, 0},
	};
	struct pmfs_ring_header *h;
	struct pmfs_ring *r;
	size_t length;

	assert_int_equal(pmfs_ring_create(f->path, page, 0600, 0), 0);
	h = ringfix_raw(f->path, &length);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		h->size = cases[i].size;
		h->data_offset = cases[i].offset;
		assert_int_equal(pmfs_ring_open(f->path, BOTH, &r), cases[i].want);
		if (!cases[i].want)
			pmfs_ring_close(r);
	}
	h->version = 2;
	assert_int_equal(pmfs_ring_open(f->path, BOTH, &r), -EOPNOTSUPP);
	h->version = 1;
	h->flags = 2;
	assert_int_equal(pmfs_ring_open(f->path, BOTH, &r), -EOPNOTSUPP);
	h->flags = 0;
	h->magic++;
	assert_int_equal(pmfs_ring_open(f->path, BOTH, &r), -EBADMSG);
	munmap(h, length);
}

static void test_ring_hostile_positions(void **state)
{
	struct ringfix *f = *state;
	const uint64_t page = page_bytes();
	const uint64_t bad[] = {
		1, 7, page + 8, 4 * page, UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 63};
	struct pmfs_ring_header *h;
	struct pmfs_ring *r;
	const void *at;
	void *message;
	size_t length;

	assert_int_equal(pmfs_ring_create(f->path, page, 0600, 0), 0);
	h = ringfix_raw(f->path, &length);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		h->head = bad[i];
		h->tail = 0;
		assert_int_equal(pmfs_ring_open(f->path, BOTH, &r), -EUCLEAN);
		/* While it is in use. */
		h->head = 0;
		r = ringfix_open(f->path, BOTH);
		h->head = bad[i];
		assert_int_equal(pmfs_ring_peek(r, &at), -EUCLEAN);
		assert_int_equal(pmfs_ring_wait_data(r, PMFS_FOREVER), -EUCLEAN);
		h->head = 0;
		put(r, page - 8, 1);
		assert_int_equal(pmfs_ring_commit(r), 0);
		h->tail = bad[i];
		/* A tail that is only too far ahead by a little looks like one that is fine. */
		if (bad[i] % 8 || page - bad[i] > page)
			assert_int_equal(pmfs_ring_reserve(r, 8, &message), -EUCLEAN);
		h->tail = 0;
		take(r, page - 8, 1);
		assert_int_equal(pmfs_ring_release(r), 0);
		pmfs_ring_close(r);
		h->head = h->tail = 0;
	}
	munmap(h, length);
}

static void test_ring_hostile_records(void **state)
{
	struct ringfix *f = *state;
	const size_t page = page_bytes();
	const uint64_t bad[] = {
		0,
		UINT64_MAX,
		PMFS_RING_RECORD(0, PMFS_RING_DONE, 1, 1),
		PMFS_RING_RECORD(page, PMFS_RING_DONE, 1, 1),
		PMFS_RING_RECORD(101, PMFS_RING_DONE, 1, 1),
		PMFS_RING_RECORD(UINT32_MAX, PMFS_RING_DONE, 1, 1),
		PMFS_RING_RECORD(UINT32_MAX, PMFS_RING_SKIP, 1, 1),
		PMFS_RING_RECORD(8, 4, 1, 1),
		PMFS_RING_RECORD(8, PMFS_RING_BUSY, 0, 1),
		PMFS_RING_RECORD(8, PMFS_RING_BUSY, PMFS_RING_SLOTS, 1),
		PMFS_RING_RECORD(8, PMFS_RING_BUSY, 255, 1),
	};
	struct pmfs_ring_header *h;
	struct pmfs_ring *r;
	uint64_t *record;
	const void *at;
	size_t length;

	assert_int_equal(pmfs_ring_create(f->path, page, 0600, PMFS_RING_MULTI), 0);
	h = ringfix_raw(f->path, &length);
	r = ringfix_open(f->path, BOTH);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put(r, 96, 1);
		assert_int_equal(pmfs_ring_commit(r), 0);
		record = (uint64_t *)(void *)((char *)h + h->data_offset + h->tail % h->size);
		*record = bad[i];
		assert_int_equal(pmfs_ring_peek(r, &at), -EUCLEAN);
		assert_int_equal(pmfs_ring_wait_data(r, PMFS_FOREVER), -EUCLEAN);
		/* The way out. */
		assert_int_equal(pmfs_ring_discard(r), 0);
		put(r, 50, 2);
		assert_int_equal(pmfs_ring_commit(r), 0);
		take(r, 50, 2);
		assert_int_equal(pmfs_ring_release(r), 0);
	}
	pmfs_ring_close(r);
	munmap(h, length);
}

/* Random bytes over header and data while it is used: any error will do, no access elsewhere. */
static void test_ring_hostile_noise(void **state)
{
	struct ringfix *f = *state;
	const size_t page = page_bytes();
	uint64_t seed = ringfix_seed(), sum = 0;
	struct pmfs_ring_header *h;
	struct pmfs_ring *r;
	const uint8_t *at;
	void *message;
	size_t length, want, ok = 0;
	ssize_t got;

	for (unsigned int round = 0; round < 400; round++) {
		assert_int_equal(
			pmfs_ring_create(f->path, page, 0600, round % 2 ? PMFS_RING_MULTI : 0), 0);
		h = ringfix_raw(f->path, &length);
		r = ringfix_open(f->path, BOTH);
		for (unsigned int step = 0; step < 200; step++) {
			uint64_t dice = ringfix_random(&seed);
			uint8_t *where =
				(uint8_t *)h + (dice & 1 ? 64 + dice / 2 % 448 : dice / 2 % length);

			/* Not the lock: it is waited for, a second at most each time. */
			if ((where < (uint8_t *)&h->claim_lock ||
			     where >= (uint8_t *)(&h->claim_lock + 1)) &&
			    dice >> 20 & 1)
				*where = (uint8_t)(dice >> 40);
			want = (size_t)(ringfix_random(&seed) % (page - 8)) + 1;
			if (!pmfs_ring_reserve(r, want, &message)) {
				memset(message, (int)step, want);
				pmfs_ring_commit(r);
			}
			got = pmfs_ring_peek(r, (const void **)(void *)&at);
			if (got > 0) {
				assert_true((size_t)got <= page - 8);
				for (ssize_t i = 0; i < got; i++)
					sum += at[i];
				ok++;
			}
			if (got == -EUCLEAN)
				pmfs_ring_discard(r);
			pmfs_ring_release(r);
			pmfs_ring_wait_data(r, 0);
		}
		pmfs_ring_close(r);
		munmap(h, length);
		unlink(f->path);
	}
	assert_true(ok > 1000 && sum);
}

/* The lock of several producers in the hands of somebody who can't have it, or does not let go. */
static void test_ring_hostile_lock(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring_header *h;
	struct pmfs_ring *r, *other;
	void *message;
	size_t length;

	assert_int_equal(pmfs_ring_create(f->path, 1, 0600, PMFS_RING_MULTI), 0);
	h = ringfix_raw(f->path, &length);
	r = ringfix_open(f->path, BOTH);
	h->claim_lock = PMFS_RING_SLOTS + 1;
	assert_int_equal(pmfs_ring_reserve(r, 8, &message), -EUCLEAN);
	h->claim_lock = 1; /* the consumer's slot */
	assert_int_equal(pmfs_ring_reserve(r, 8, &message), -EUCLEAN);
	/* A slot that nobody has. */
	h->claim_lock = 20;
	put(r, 8, 1);
	assert_int_equal(h->claim_lock, 0);
	/* A live one, of another epoch. */
	other = ringfix_open(f->path, PMFS_RING_PRODUCER);
	h->claim_lock = 3 | 77u << 16;
	put(r, 8, 2);
	/* A live one. */
	h->claim_lock = 3 | (uint32_t)(h->slots[2].state >> 32) << 16;
	assert_int_equal(pmfs_ring_reserve(r, 8, &message), -EBUSY);
	h->claim_lock = 0;
	assert_int_equal(pmfs_ring_commit(r), 0);
	take(r, 8, 1);
	take(r, 8, 2);
	pmfs_ring_close(other);
	pmfs_ring_close(r);
	munmap(h, length);
}

/* ------------------------------------------------------------------ copies of a ring in use */

static void test_ring_copy_holds_whole_messages(void **state)
{
	struct ringfix *f = *state;
	char copy_path[320];
	uint64_t seed = ringfix_seed(), wrote = 0, read = 0, done, first;
	const size_t lengths[] = {1, 24, 500, 3000};
	struct pmfs_ring_header *h;
	struct pmfs_ring *r, *copied;
	const void *at;
	uint8_t *copy;
	size_t length, whole = 0;
	int fd;

	snprintf(copy_path, sizeof(copy_path), "%s/copy", f->dir);
	assert_int_equal(pmfs_ring_create(f->path, 2 * page_bytes(), 0600, 0), 0);
	h = ringfix_raw(f->path, &length);
	copy = aligned_alloc(8, length);
	r = ringfix_open(f->path, BOTH);
	for (unsigned int round = 0; round < 300; round++) {
		done = pmfs_ring_copy_begin(h, length);
		/* Pages are copied in any order, and the ring goes on between two of them. */
		for (size_t page = 0, n = length / 1024; page < n; page++) {
			size_t from = (page * 7 + round) % n * 1024;
			void *message;

			memcpy(copy + from, (uint8_t *)h + from, 1024);
			if (ringfix_random(&seed) % 3 == 0) {
				size_t len = lengths[wrote % 4];

				if (!pmfs_ring_reserve(r, len, &message)) {
					ringfix_fill(message, len, 0, wrote++);
					assert_int_equal(pmfs_ring_commit(r), 0);
				}
			}
			if (ringfix_random(&seed) % 4 == 0 && read < wrote) {
				take(r, lengths[read % 4], read);
				read++;
				assert_int_equal(pmfs_ring_release(r), 0);
			}
		}
		first = read;
		pmfs_ring_copy_end(h, copy, length, done);
		fd = open(copy_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		assert_int_equal(write(fd, copy, length), (ssize_t)length);
		close(fd);
		copied = ringfix_open(copy_path, BOTH);
		while (pmfs_ring_peek(copied, &at) != -EAGAIN) {
			assert_int_equal(pmfs_ring_rewind(copied), 0);
			take(copied, lengths[first % 4], first);
			assert_int_equal(pmfs_ring_release(copied), 0);
			first++;
			whole++;
		}
		assert_true(first <= wrote);
		pmfs_ring_close(copied);
	}
	assert_true(whole > 100);
	pmfs_ring_close(r);
	munmap(h, length);
	free(copy);
	unlink(copy_path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ringfix_setup, ringfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_carries_every_length),
		TEST(test_ring_multi_carries_every_length),
		TEST(test_ring_wraps_every_length),
		TEST(test_ring_multi_wraps_every_length),
		TEST(test_ring_random_batches),
		TEST(test_ring_multi_random_batches),
		TEST(test_ring_multi_cancel_is_skipped),
		TEST(test_ring_says_when_it_is_full_or_empty),
		TEST(test_ring_open_refuses),
		TEST(test_ring_looking_needs_no_role),
		TEST(test_ring_stays_in_its_file),
		TEST(test_ring_is_a_plain_file),
		TEST(test_ring_hostile_geometry),
		TEST(test_ring_hostile_positions),
		TEST(test_ring_hostile_records),
		TEST(test_ring_hostile_noise),
		TEST(test_ring_hostile_lock),
		TEST(test_ring_copy_holds_whole_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
