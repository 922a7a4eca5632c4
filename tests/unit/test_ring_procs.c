/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings between processes that are killed: nothing published is lost, doubled or torn.
 *
 * PMFS_RING_KILLS is the number of processes that each of the first three tests kills (ROUNDS).
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "lib/ringfix.h"

#define SIZE   16384u
#define ROUNDS 60u

static size_t length_of(uint64_t n)
{
	uint64_t state = n;

	return 16 + (size_t)(ringfix_random(&state) % (n % 16 ? 100 : 4000));
}

/* Message n of a writer: its number, who wrote it, and bytes that go with both. */
static int put(struct pmfs_ring *r, uint64_t writer, uint64_t n)
{
	uint64_t head[2] = {writer, n};
	size_t length = length_of(n);
	void *message;
	int rc;

	while ((rc = pmfs_ring_reserve(r, length, &message)) == -EAGAIN) {
		rc = pmfs_ring_wait_space(r, length, PMFS_FOREVER);
		if (rc && rc != -EOWNERDEAD)
			return rc;
	}
	if (rc)
		return rc;
	memcpy(message, head, sizeof(head));
	ringfix_fill((char *)message + 16, length - 16, writer, n);
	return pmfs_ring_commit(r);
}

/* The number of a message that is whole. */
static uint64_t check(const void *message, ssize_t length, uint64_t *writer)
{
	uint64_t head[2];

	assert_true(length >= 16);
	memcpy(head, message, sizeof(head));
	assert_int_equal(length, length_of(head[1]));
	assert_true(
		ringfix_holds((const char *)message + 16, (size_t)length - 16, head[0], head[1]));
	*writer = head[0];
	return head[1];
}

/* A child that writes from n on until it is killed. */
static pid_t start_writer(const char *path, uint64_t writer, uint64_t n)
{
	pid_t pid = fork();

	if (!pid) {
		struct pmfs_ring *r;

		if (pmfs_ring_open(path, PMFS_RING_PRODUCER, &r))
			_exit(1);
		while (!put(r, writer, n))
			n++;
		_exit(1);
	}
	assert_true(pid > 0);
	return pid;
}

static void kill_and_reap(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

/* Some work that takes a while that is not known, and nobody waits. */
static void dawdle(uint64_t *seed)
{
	for (uint64_t n = ringfix_random(seed) % 20000; n; n--)
		__asm__ volatile("");
}

static void test_ring_producer_killed(void **state)
{
	struct ringfix *f = *state;
	uint64_t seed = ringfix_seed(), next = 0, writer;
	const unsigned int rounds = ringfix_kills(ROUNDS);
	struct pmfs_ring *r;
	const void *message;
	ssize_t got;
	pid_t pid;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, 0), 0);
	r = ringfix_open(f->path, PMFS_RING_CONSUMER);
	for (unsigned int round = 0; round < rounds; round++) {
		uint64_t until = next + 1 + ringfix_random(&seed) % 300;
		int rc;

		pid = start_writer(f->path, 0, next);
		while (next < until) {
			assert_int_equal(pmfs_ring_wait_data(r, PMFS_FOREVER), 0);
			while ((got = pmfs_ring_peek(r, &message)) > 0)
				assert_int_equal(check(message, got, &writer), next++);
			assert_int_equal(got, -EAGAIN);
			assert_int_equal(pmfs_ring_release(r), 0);
		}
		dawdle(&seed);
		kill_and_reap(pid);
		while (!(rc = pmfs_ring_wait_data(r, PMFS_FOREVER))) {
			got = pmfs_ring_peek(r, &message);
			assert_int_equal(check(message, got, &writer), next++);
			assert_int_equal(pmfs_ring_release(r), 0);
		}
		assert_int_equal(rc, -EOWNERDEAD);
		/* Once. */
		assert_int_equal(pmfs_ring_wait_data(r, 0), -ETIMEDOUT);
	}
	pmfs_ring_close(r);
}

static void test_ring_producers_killed(void **state)
{
	struct ringfix *f = *state;
	uint64_t seed = ringfix_seed(), next[3] = {0}, writer, n;
	const unsigned int rounds = ringfix_kills(ROUNDS);
	struct pmfs_ring *r;
	const void *message;
	pid_t pids[3];
	ssize_t got;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, PMFS_RING_MULTI), 0);
	r = ringfix_open(f->path, PMFS_RING_CONSUMER);
	for (unsigned int i = 0; i < 3; i++)
		pids[i] = start_writer(f->path, i, 0);
	for (unsigned int round = 0; round < rounds; round++) {
		unsigned int victim = (unsigned int)(ringfix_random(&seed) % 3), dead = 0;
		uint64_t count = 1 + ringfix_random(&seed) % 300;

		/* Until its death is told; the others go on all the while, and so a writer that is
		 * killed with room taken must not stop them. */
		while (dead < 2 || count) {
			int rc = pmfs_ring_wait_data(r, PMFS_FOREVER);

			assert_true(!rc || (rc == -EOWNERDEAD && dead == 1));
			while (!rc && (got = pmfs_ring_peek(r, &message)) > 0) {
				n = check(message, got, &writer);
				assert_true(writer < 3);
				assert_int_equal(n, next[writer]++);
				if (count && !--count)
					break;
			}
			assert_int_equal(pmfs_ring_release(r), 0);
			if (!count && !dead) {
				dawdle(&seed);
				kill_and_reap(pids[victim]);
				dead = 1;
				count = 2000;
			} else if (!count && dead == 1) {
				/* They are faster than we are, so no wait was long enough to tell.
				 */
				dead = 2;
			} else if (rc == -EOWNERDEAD) {
				dead = 2;
				count = 0;
			}
		}
		/* Messages of the dead one that are still there come before those of the new one.
		 */
		{
			struct pmfs_ring_info info;
			uint64_t end;

			assert_int_equal(pmfs_ring_stat(r, &info), 0);
			end = info.head;
			while (info.tail < end) {
				int rc = pmfs_ring_wait_data(r, PMFS_FOREVER);

				assert_true(!rc || rc == -EOWNERDEAD);
				while (!rc && (got = pmfs_ring_peek(r, &message)) > 0) {
					n = check(message, got, &writer);
					assert_int_equal(n, next[writer]++);
				}
				assert_int_equal(pmfs_ring_release(r), 0);
				assert_int_equal(pmfs_ring_stat(r, &info), 0);
			}
		}
		pids[victim] = start_writer(f->path, victim, next[victim]);
	}
	for (unsigned int i = 0; i < 3; i++)
		kill_and_reap(pids[i]);
	pmfs_ring_close(r);
}

/* A child that reads, checks, and tells of each message it is about to release by a byte. */
static pid_t start_reader(const char *path, uint64_t from)
{
	pid_t pid = fork();

	if (!pid) {
		struct pmfs_ring *r;
		const void *message;
		uint64_t writer, n, next = from;
		ssize_t got;

		if (pmfs_ring_open(path, PMFS_RING_CONSUMER, &r))
			_exit(1);
		for (;;) {
			if (pmfs_ring_wait_data(r, PMFS_FOREVER))
				_exit(2);
			while ((got = pmfs_ring_peek(r, &message)) > 0) {
				n = check(message, got, &writer);
				/* The first may come again, of those that were not released. */
				if (n != next && (next != from || n > next))
					_exit(3);
				next = n + 1;
			}
			pmfs_ring_release(r);
		}
	}
	assert_true(pid > 0);
	return pid;
}

static void test_ring_consumer_killed(void **state)
{
	struct ringfix *f = *state;
	uint64_t seed = ringfix_seed(), n = 0, writer;
	const unsigned int rounds = ringfix_kills(ROUNDS);
	struct pmfs_ring *r, *drain;
	struct pmfs_ring_info info;
	const void *message;
	ssize_t got;
	pid_t pid;
	int rc;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, 0), 0);
	r = ringfix_open(f->path, PMFS_RING_PRODUCER);
	for (unsigned int round = 0; round < rounds; round++) {
		uint64_t until = n + 1 + ringfix_random(&seed) % 300, next;

		pid = start_reader(f->path, n);
		while (n < until) {
			assert_int_equal(put(r, 0, n), 0);
			n++;
		}
		dawdle(&seed);
		kill_and_reap(pid);
		/* Fill it up: the death is told, and what was not released is not overwritten. */
		while (!(rc = pmfs_ring_wait_space(r, 4016, 0))) {
			assert_int_equal(put(r, 0, n), 0);
			n++;
		}
		if (rc != -EOWNERDEAD)
			assert_int_equal(rc, -ETIMEDOUT); /* it had not yet come in */
		assert_int_equal(pmfs_ring_wait_space(r, SIZE - 8, 0), -ETIMEDOUT);
		drain = ringfix_open(f->path, PMFS_RING_CONSUMER);
		got = pmfs_ring_peek(drain, &message);
		next = check(message, got, &writer);
		for (next++; (got = pmfs_ring_peek(drain, &message)) > 0; next++)
			assert_int_equal(check(message, got, &writer), next);
		assert_int_equal(next, n);
		assert_int_equal(pmfs_ring_release(drain), 0);
		pmfs_ring_close(drain);
		assert_int_equal(pmfs_ring_stat(r, &info), 0);
		assert_int_equal(info.head, info.tail);
		assert_int_equal(info.consumer_pid, 0);
	}
	pmfs_ring_close(r);
}

/* The points at which a producer can die, one by one and on purpose. */
static void test_ring_multi_dies_with_room_taken(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring *r, *live;
	uint64_t writer;
	const void *message;
	ssize_t got;
	int status;
	pid_t pid;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, PMFS_RING_MULTI), 0);
	r = ringfix_open(f->path, PMFS_RING_CONSUMER);
	live = ringfix_open(f->path, PMFS_RING_PRODUCER);
	for (unsigned int point = 0; point < 3; point++) {
		assert_int_equal(put(live, 0, 10), 0);
		pid = fork();
		if (!pid) {
			struct pmfs_ring *mine;
			void *room;

			if (pmfs_ring_open(f->path, PMFS_RING_PRODUCER, &mine) ||
			    pmfs_ring_reserve(mine, 1000, &room) ||
			    pmfs_ring_reserve(mine, 50, &room))
				_exit(1);
			if (point == 1 && pmfs_ring_trim(mine, 1))
				_exit(1);
			if (point == 2) {
				/* With the lock. */
				size_t length;
				struct pmfs_ring_header *h = ringfix_raw(f->path, &length);

				h->claim_lock = 3 | (uint32_t)(h->slots[2].state >> 32) << 16;
			}
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(put(live, 0, 11), 0);
		for (uint64_t n = 10; n < 12; n++) {
			assert_int_equal(pmfs_ring_wait_data(r, PMFS_FOREVER), 0);
			got = pmfs_ring_peek(r, &message);
			assert_int_equal(check(message, got, &writer), n);
		}
		assert_int_equal(pmfs_ring_wait_data(r, PMFS_FOREVER), -EOWNERDEAD);
		assert_int_equal(pmfs_ring_wait_data(r, 0), -ETIMEDOUT);
		assert_int_equal(pmfs_ring_release(r), 0);
	}
	pmfs_ring_close(live);
	pmfs_ring_close(r);
}

/* A process number alone is nobody: it can be used again, and after a reboot it will be. */
static void test_ring_owner_is_more_than_a_number(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_ring_header *h;
	struct pmfs_ring *look;
	struct pmfs_ring_info info;
	struct pmfs_ring *r;
	struct pmfs_ring_slot kept;
	size_t length;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, 0), 0);
	h = ringfix_raw(f->path, &length);
	r = ringfix_open(f->path, PMFS_RING_CONSUMER);
	look = ringfix_open(f->path, 0);
	kept = h->slots[0];
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.consumer_pid, getpid());
	h->slots[0].start++;
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.consumer_pid, 0);
	h->slots[0] = kept;
	h->slots[0].boot++;
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.consumer_pid, 0);
	/* From a namespace of which we can't see the numbers: what counts is that it has the file.
	 */
	h->slots[0] = kept;
	h->slots[0].pidns++;
	h->slots[0].pid = 0x7fffffff;
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.consumer_pid, 0x7fffffff);
	h->slots[0] = kept;
	pmfs_ring_close(r);
	h->slots[0] = kept;
	h->slots[0].pidns++;
	assert_int_equal(pmfs_ring_stat(look, &info), 0);
	assert_int_equal(info.consumer_pid, 0);
	pmfs_ring_close(look);
	munmap(h, length);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ringfix_setup, ringfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_producer_killed),
		TEST(test_ring_producers_killed),
		TEST(test_ring_consumer_killed),
		TEST(test_ring_multi_dies_with_room_taken),
		TEST(test_ring_owner_is_more_than_a_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
