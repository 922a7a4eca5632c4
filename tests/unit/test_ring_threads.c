/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings between threads; the place where the thread sanitizer looks at the orders of the atomics.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "lib/ringfix.h"

#if defined(__SANITIZE_THREAD__)
#define MESSAGES 20000u
#else
#define MESSAGES 100000u
#endif
#define WRITERS 4u

struct side {
	pthread_t thread;
	struct pmfs_ring *ring;
	const char *path;
	uint64_t writer, seed;
	int failed; /* line */
};

#define NEED(side, condition)                      \
	do {                                       \
		if (!(condition)) {                \
			(side)->failed = __LINE__; \
			return NULL;               \
		}                                  \
	} while (0)

/* Lengths that both ends can work out. */
static size_t length_of(uint64_t writer, uint64_t n)
{
	uint64_t state = writer << 40 | n;

	return 16 + (size_t)(ringfix_random(&state) % 200);
}

static void *produce(void *arg)
{
	struct side *s = arg;
	uint64_t n = 0, head[2] = {s->writer, 0};
	void *message;

	while (n < MESSAGES) {
		uint64_t batch = 1 + ringfix_random(&s->seed) % 5;

		NEED(s, !pmfs_ring_wait_space(s->ring, 300, PMFS_FOREVER));
		for (; batch && n < MESSAGES; batch--) {
			size_t length = length_of(s->writer, n);
			int rc = pmfs_ring_reserve(s->ring, length, &message);

			if (rc == -EAGAIN)
				break;
			NEED(s, !rc);
			head[1] = n;
			memcpy(message, head, 16);
			ringfix_fill((char *)message + 16, length - 16, s->writer, n);
			n++;
		}
		NEED(s, !pmfs_ring_commit(s->ring));
	}
	return NULL;
}

static void *consume(void *arg)
{
	struct side *s = arg;
	uint64_t next[WRITERS] = {0}, total = 0, head[2];
	const uint64_t all = MESSAGES * s->writer; /* how many there are */
	const void *message;
	ssize_t got;

	while (total < all) {
		uint64_t batch = 1 + ringfix_random(&s->seed) % 8;

		NEED(s, !pmfs_ring_wait_data(s->ring, PMFS_FOREVER));
		for (; batch; batch--) {
			got = pmfs_ring_peek(s->ring, &message);
			if (got == -EAGAIN)
				break;
			NEED(s, got >= 16);
			memcpy(head, message, 16);
			NEED(s, head[0] < s->writer && head[1] == next[head[0]]);
			NEED(s, (size_t)got == length_of(head[0], head[1]));
			NEED(s, ringfix_holds((const char *)message + 16, (size_t)got - 16, head[0],
					      head[1]));
			next[head[0]]++;
			total++;
		}
		NEED(s, !pmfs_ring_release(s->ring));
	}
	NEED(s, pmfs_ring_peek(s->ring, &message) == -EAGAIN);
	return NULL;
}

static void run_sides(struct side *producers, unsigned int count, struct side *consumer)
{
	assert_int_equal(pthread_create(&consumer->thread, NULL, consume, consumer), 0);
	for (unsigned int i = 0; i < count; i++)
		assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]),
				 0);
	for (unsigned int i = 0; i < count; i++) {
		pthread_join(producers[i].thread, NULL);
		assert_int_equal(producers[i].failed, 0);
	}
	pthread_join(consumer->thread, NULL);
	assert_int_equal(consumer->failed, 0);
}

/* One handle, two threads: both ends use the same addresses. */
static void test_ring_threads_share_a_handle(void **state)
{
	struct ringfix *f = *state;
	struct side producer = {.seed = ringfix_seed()}, consumer = {.writer = 1, .seed = 1};

	assert_int_equal(pmfs_ring_create(f->path, 8192, 0600, 0), 0);
	producer.ring = consumer.ring =
		ringfix_open(f->path, PMFS_RING_PRODUCER | PMFS_RING_CONSUMER);
	run_sides(&producer, 1, &consumer);
	pmfs_ring_close(producer.ring);
}

static void test_ring_threads_many_producers(void **state)
{
	struct ringfix *f = *state;
	struct side producers[WRITERS] = {0}, consumer = {.writer = WRITERS, .seed = 1};
	uint64_t seed = ringfix_seed();

	assert_int_equal(pmfs_ring_create(f->path, 16384, 0600, PMFS_RING_MULTI), 0);
	consumer.ring = ringfix_open(f->path, PMFS_RING_CONSUMER);
	for (unsigned int i = 0; i < WRITERS; i++) {
		producers[i].writer = i;
		producers[i].seed = ringfix_random(&seed);
		producers[i].ring = ringfix_open(f->path, PMFS_RING_PRODUCER);
	}
	run_sides(producers, WRITERS, &consumer);
	for (unsigned int i = 0; i < WRITERS; i++)
		pmfs_ring_close(producers[i].ring);
	pmfs_ring_close(consumer.ring);
}

/* A message at a time to and fro: each waits for the other all the time. */
static void *echo(void *arg)
{
	struct side *s = arg;
	struct pmfs_ring *back;
	uint64_t n;

	NEED(s, !pmfs_ring_open(s->path, PMFS_RING_PRODUCER, &back));
	for (uint64_t i = 0; i < MESSAGES / 10; i++) {
		NEED(s, pmfs_ring_read(s->ring, &n, sizeof(n), PMFS_FOREVER) == sizeof(n));
		NEED(s, n == i);
		NEED(s, !pmfs_ring_write(back, &n, sizeof(n), PMFS_FOREVER));
	}
	pmfs_ring_close(back);
	return NULL;
}

static void test_ring_threads_ping_pong(void **state)
{
	struct ringfix *f = *state;
	char back_path[320];
	struct pmfs_ring *there, *back;
	struct side s = {0};
	uint64_t got;

	snprintf(back_path, sizeof(back_path), "%s/back", f->dir);
	assert_int_equal(pmfs_ring_create(f->path, 4096, 0600, 0), 0);
	assert_int_equal(pmfs_ring_create(back_path, 4096, 0600, 0), 0);
	there = ringfix_open(f->path, PMFS_RING_PRODUCER);
	back = ringfix_open(back_path, PMFS_RING_CONSUMER);
	s.ring = ringfix_open(f->path, PMFS_RING_CONSUMER);
	s.path = back_path;
	assert_int_equal(pthread_create(&s.thread, NULL, echo, &s), 0);
	for (uint64_t i = 0; i < MESSAGES / 10; i++) {
		assert_int_equal(pmfs_ring_write(there, &i, sizeof(i), PMFS_FOREVER), 0);
		assert_int_equal(pmfs_ring_read(back, &got, sizeof(got), PMFS_FOREVER),
				 sizeof(got));
		assert_int_equal(got, i);
	}
	pthread_join(s.thread, NULL);
	assert_int_equal(s.failed, 0);
	pmfs_ring_close(s.ring);
	pmfs_ring_close(there);
	pmfs_ring_close(back);
	unlink(back_path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ringfix_setup, ringfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_threads_share_a_handle),
		TEST(test_ring_threads_many_producers),
		TEST(test_ring_threads_ping_pong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
