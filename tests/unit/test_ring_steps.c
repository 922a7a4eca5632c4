/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings whose users are killed between two machine instructions, chosen at random: a child runs up
 * to one of its calls, and a debugger's single steps take it on from there, into the library.
 *
 * PMFS_RING_KILLS is the number of children of each kind (KILLS).
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "lib/ringfix.h"

#define SIZE	16384u
#define KILLS	24u
#define STEPS	500u  /* at most; a call takes up to 200 without a sanitizer */
#define OPENING 2000u /* ... of opening, which takes some thousands */
#define CALLS	60u   /* so many come before the steps, at most */
#define BATCH	3u

/* What a child says of itself, in memory that outlives it. */
struct said {
	_Atomic uint64_t done;	/* messages that a call has published, or released */
	_Atomic uint64_t begun; /* ... that a call may have */
};

enum kind { PRODUCER, CONSUMER };

static size_t length_of(uint64_t n)
{
	return 16 + (size_t)(n * 7 % 40);
}

static int put(struct pmfs_ring *r, uint64_t writer, uint64_t n)
{
	uint64_t head[2] = {writer, n};
	void *message;
	int rc = pmfs_ring_reserve(r, length_of(n), &message);

	if (rc)
		return rc;
	memcpy(message, head, sizeof(head));
	ringfix_fill((char *)message + 16, length_of(n) - 16, writer, n);
	return 0;
}

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

/* ------------------------------------------------------------------ the child */

/* Steps are counted from here. */
static void stop_here(void)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) || raise(SIGSTOP))
		_exit(77);
}

static void before_call(uint64_t *calls)
{
	if (*calls && !--*calls)
		stop_here();
}

/* Batches from n on; every third is given up first, and every fifth ends with a new handle. */
static int produce(const char *path, struct pmfs_ring *r, struct said *said, uint64_t n,
		   uint64_t calls)
{
	for (uint64_t batch = 1;; batch++) {
		for (uint64_t i = 0; i < BATCH; i++) {
			before_call(&calls);
			if (put(r, 1, n + i))
				return 2;
		}
		before_call(&calls);
		if (batch % 3 == 0) {
			if (pmfs_ring_cancel(r))
				return 3;
			continue;
		}
		atomic_store(&said->begun, n + BATCH);
		if (pmfs_ring_commit(r))
			return 4;
		n += BATCH;
		atomic_store(&said->done, n);
		if (batch % 5 == 0) {
			before_call(&calls);
			pmfs_ring_close(r);
			if (pmfs_ring_open(path, PMFS_RING_PRODUCER, &r))
				return 5;
		}
	}
}

static int consume(const char *path, struct pmfs_ring *r, struct said *said, uint64_t n,
		   uint64_t calls)
{
	const void *message;

	for (uint64_t batch = 1;; batch++) {
		for (uint64_t i = 0; i < BATCH; i++) {
			before_call(&calls);
			if (pmfs_ring_peek(r, &message) <= 0)
				return 2;
		}
		before_call(&calls);
		if (batch % 3 == 0) {
			if (pmfs_ring_rewind(r))
				return 3;
			continue;
		}
		atomic_store(&said->begun, n + BATCH);
		if (pmfs_ring_release(r))
			return 4;
		n += BATCH;
		atomic_store(&said->done, n);
		if (batch % 5 == 0) {
			before_call(&calls);
			pmfs_ring_close(r);
			if (pmfs_ring_open(path, PMFS_RING_CONSUMER, &r))
				return 5;
		}
	}
}

/* Where a child dies. */
struct point {
	uint64_t calls; /* 0: in the first call of all, which opens the ring */
	uint64_t steps;
};

static struct point choose(uint64_t *seed)
{
	struct point p = {.calls = 0};

	if (ringfix_random(seed) % 4)
		p.calls = 1 + ringfix_random(seed) % CALLS;
	p.steps = ringfix_random(seed) % (p.calls ? STEPS : OPENING);
	return p;
}

static int child(const char *path, enum kind kind, const struct point *p, struct said *said,
		 uint64_t n)
{
	struct pmfs_ring *r = NULL;

	if (!p->calls)
		stop_here();
	if (pmfs_ring_open(path, kind == PRODUCER ? PMFS_RING_PRODUCER : PMFS_RING_CONSUMER, &r))
		return 1;
	return kind == PRODUCER ? produce(path, r, said, n, p->calls)
				: consume(path, r, said, n, p->calls);
}

/* Both on one processor, as only one runs at a time: a step is many times faster then. */
static void share_processor(cpu_set_t *before)
{
	const int cpu = sched_getcpu();
	cpu_set_t one;

	assert_int_equal(sched_getaffinity(0, sizeof(*before), before), 0);
	CPU_ZERO(&one);
	if (cpu >= 0 && cpu < CPU_SETSIZE) {
		CPU_SET((size_t)cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
	}
}

/* 0, or -ENOTSUP where nobody may look at a child's steps. */
static int run_and_kill(const char *path, enum kind kind, const struct point *p, struct said *said,
			uint64_t n)
{
	int status;
	pid_t pid;

	atomic_store(&said->done, n);
	atomic_store(&said->begun, n);
	pid = fork();
	if (!pid)
		_exit(child(path, kind, p, said, n));
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		return -ENOTSUP;
	assert_true(WIFSTOPPED(status));
	for (uint64_t i = 0; i < p->steps; i++) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL)) {
			assert_int_equal(i, 0);
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return -ENOTSUP;
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		/* Not by itself. */
		if (!WIFSTOPPED(status))
			fail_msg("the child ended with %x", (unsigned int)status);
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	return 0;
}

/* ------------------------------------------------------------------ the other side */

static struct said *said_new(void)
{
	struct said *said = mmap(NULL, sizeof(*said), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(said != MAP_FAILED);
	return said;
}

/* All that is there, until nothing is and nobody's death is still to be told. */
static void drain(struct pmfs_ring *r, uint64_t *next, uint64_t *live_next)
{
	const void *message;
	uint64_t writer, n;
	ssize_t got;
	int rc;

	while ((rc = pmfs_ring_wait_data(r, 0)) != -ETIMEDOUT) {
		if (rc == -EOWNERDEAD)
			continue;
		assert_int_equal(rc, 0);
		while ((got = pmfs_ring_peek(r, &message)) > 0) {
			n = check(message, got, &writer);
			assert_true(writer < 2);
			assert_int_equal(n, (*(writer ? next : live_next))++);
		}
		assert_int_equal(got, -EAGAIN);
		assert_int_equal(pmfs_ring_release(r), 0);
	}
}

static void producers_die(struct ringfix *f, unsigned int flags)
{
	uint64_t seed = ringfix_seed(), next = 0, live_next = 0, live_n = 0, most = 0;
	struct said *said = said_new();
	struct pmfs_ring *r, *live = NULL;
	const unsigned int rounds = ringfix_kills(KILLS);
	struct pmfs_ring_info info;
	cpu_set_t cpus;
	int rc = 0;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, flags), 0);
	r = ringfix_open(f->path, PMFS_RING_CONSUMER);
	if (flags)
		live = ringfix_open(f->path, PMFS_RING_PRODUCER);
	share_processor(&cpus);
	for (unsigned int round = 0; round < rounds && !rc; round++) {
		const struct point point = choose(&seed);
		const uint64_t before = next;

		rc = run_and_kill(f->path, PRODUCER, &point, said, next);
		/* Room that the dead one has taken, and its lock, stop nobody. */
		for (unsigned int i = 0; live && i < BATCH; i++)
			assert_int_equal(put(live, 0, live_n++), 0);
		if (live)
			assert_int_equal(pmfs_ring_commit(live), 0);
		drain(r, &next, &live_next);
		assert_int_equal(live_next, live_n);
		assert_in_range(next, atomic_load(&said->done), atomic_load(&said->begun));
		most = next - before > most ? next - before : most;
		assert_int_equal(pmfs_ring_stat(r, &info), 0);
		assert_int_equal(info.head, info.tail);
		assert_int_equal(info.producers, live ? 1 : 0);
	}
	pmfs_ring_close(live);
	pmfs_ring_close(r);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	munmap(said, sizeof(*said));
	if (rc)
		skip();
	print_message("%llu messages\n", (unsigned long long)next);
	assert_true(!rounds || most > 0);
}

static void test_ring_producer_dies_anywhere(void **state)
{
	producers_die(*state, 0);
}

static void test_ring_multi_producer_dies_anywhere(void **state)
{
	producers_die(*state, PMFS_RING_MULTI);
}

static void consumers_die(struct ringfix *f, unsigned int flags)
{
	uint64_t seed = ringfix_seed(), n = 0, writer, first, most = 0;
	struct said *said = said_new();
	struct pmfs_ring *r, *c;
	const unsigned int rounds = ringfix_kills(KILLS);
	struct pmfs_ring_info info;
	cpu_set_t cpus;
	const void *message;
	ssize_t got;
	int rc = 0;

	assert_int_equal(pmfs_ring_create(f->path, SIZE, 0600, flags), 0);
	r = ringfix_open(f->path, PMFS_RING_PRODUCER);
	share_processor(&cpus);
	for (unsigned int round = 0; round < rounds && !rc; round++) {
		const struct point point = choose(&seed);
		const uint64_t from = n;

		while (!put(r, 1, n)) {
			n++;
			assert_int_equal(pmfs_ring_commit(r), 0);
		}
		rc = run_and_kill(f->path, CONSUMER, &point, said, from);
		/* What it has not released is there, whole. */
		c = ringfix_open(f->path, PMFS_RING_CONSUMER);
		first = n;
		while ((got = pmfs_ring_peek(c, &message)) > 0) {
			if (first == n) {
				first = check(message, got, &writer);
				assert_in_range(first, atomic_load(&said->done),
						atomic_load(&said->begun));
				most = first - from > most ? first - from : most;
				continue;
			}
			assert_int_equal(check(message, got, &writer), ++first);
		}
		assert_int_equal(first, n - 1);
		assert_int_equal(pmfs_ring_release(c), 0);
		pmfs_ring_close(c);
		assert_int_equal(pmfs_ring_stat(r, &info), 0);
		assert_int_equal(info.head, info.tail);
		assert_int_equal(info.consumer_pid, 0);
	}
	pmfs_ring_close(r);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	munmap(said, sizeof(*said));
	if (rc)
		skip();
	assert_true(!rounds || most > 0);
}

static void test_ring_consumer_dies_anywhere(void **state)
{
	consumers_die(*state, 0);
}

static void test_ring_multi_consumer_dies_anywhere(void **state)
{
	consumers_die(*state, PMFS_RING_MULTI);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ringfix_setup, ringfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_producer_dies_anywhere),
		TEST(test_ring_multi_producer_dies_anywhere),
		TEST(test_ring_consumer_dies_anywhere),
		TEST(test_ring_multi_consumer_dies_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
