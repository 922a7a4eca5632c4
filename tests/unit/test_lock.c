/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/lock.h"
#include "base/thread.h"

static void test_lock_rank_names(void **state)
{
	(void)state;
	assert_string_equal(lock_rank_name(LOCK_LEAF), "LOCK_LEAF");
	assert_string_equal(lock_rank_name(LOCK_RANK_COUNT), "LOCK_?");
}

static void test_lock_mutex_trylock(void **state)
{
	struct mutex m;

	(void)state;
	mutex_init(&m, LOCK_LEAF);
	assert_true(mutex_trylock(&m));
	mutex_assert_held(&m);
	assert_false(mutex_trylock(&m));
	mutex_unlock(&m);
	assert_true(mutex_trylock(&m));
	mutex_unlock(&m);
	mutex_destroy(&m);
}

static void *try_both(void *arg)
{
	struct rwlock *rw = arg;
	uintptr_t got = 0;

	if (rw_tryrdlock(rw)) {
		got |= 1;
		rw_unlock(rw);
	}
	if (rw_trywrlock(rw)) {
		got |= 2;
		rw_unlock(rw);
	}
	return (void *)got;
}

/* What another thread can have of rw: 1 shared, 2 exclusive. */
static uintptr_t other_can_have(struct rwlock *rw)
{
	pthread_t thread;
	void *got;

	assert_int_equal(thread_start(&thread, "try", try_both, rw), 0);
	assert_int_equal(pthread_join(thread, &got), 0);
	return (uintptr_t)got;
}

static void test_lock_rwlock_excludes(void **state)
{
	struct rwlock rw;

	(void)state;
	rw_init(&rw, LOCK_TXN);
	assert_int_equal(other_can_have(&rw), 3);
	rw_rdlock(&rw);
	rw_assert_held(&rw);
	assert_int_equal(other_can_have(&rw), 1);
	rw_unlock(&rw);
	rw_wrlock(&rw);
	rw_assert_held(&rw);
	rw_assert_wrheld(&rw);
	assert_int_equal(other_can_have(&rw), 0);
	rw_unlock(&rw);
	rw_destroy(&rw);
}

struct queue {
	struct mutex lock;
	struct cond changed;
	unsigned int given;	/* guarded by lock */
	unsigned int taken;	/* guarded by lock */
};

static void *take_all(void *arg)
{
	struct queue *q = arg;

	mutex_lock(&q->lock);
	while (q->taken < 1000) {
		while (q->taken == q->given)
			cond_wait(&q->changed, &q->lock);
		q->taken++;
		cond_broadcast(&q->changed);
	}
	mutex_unlock(&q->lock);
	return NULL;
}

static void test_lock_cond_hands_over(void **state)
{
	struct queue q = { .given = 0 };
	pthread_t thread;

	(void)state;
	mutex_init(&q.lock, LOCK_CTL);
	cond_init(&q.changed);
	assert_int_equal(thread_start(&thread, "a name longer than fifteen", take_all, &q), 0);
	mutex_lock(&q.lock);
	for (int i = 0; i < 1000; i++) {
		q.given++;
		cond_signal(&q.changed);
		while (q.taken < q.given)
			cond_wait(&q.changed, &q.lock);
	}
	mutex_unlock(&q.lock);
	thread_join(thread);
	assert_int_equal(q.taken, 1000);
	cond_destroy(&q.changed);
	mutex_destroy(&q.lock);
}

static void test_lock_timedwait_times_out_with_the_mutex_held(void **state)
{
	struct mutex m;
	struct cond c;
	int rc;

	(void)state;
	mutex_init(&m, LOCK_CTL);
	cond_init(&c);
	mutex_lock(&m);
	do {
		rc = cond_timedwait_ms(&c, &m, 1);
	} while (rc == 0);
	assert_int_equal(rc, -ETIMEDOUT);
	mutex_assert_held(&m);
	mutex_unlock(&m);
	cond_destroy(&c);
	mutex_destroy(&m);
}

static void *report_mask(void *arg)
{
	pthread_sigmask(SIG_SETMASK, NULL, arg);
	return NULL;
}

static void test_lock_threads_block_signals_from_outside(void **state)
{
	sigset_t before, after, inside;
	pthread_t thread;

	(void)state;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	assert_int_equal(thread_start(&thread, "mask", report_mask, &inside), 0);
	thread_join(thread);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	assert_true(sigismember(&inside, SIGTERM));
	assert_true(sigismember(&inside, SIGINT));
	assert_true(sigismember(&inside, SIGHUP));
	assert_false(sigismember(&inside, SIGBUS));
	assert_false(sigismember(&inside, SIGSEGV));
	assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

#ifdef PMFS_DEBUG

/*
 * Run fn in a child and return what it wrote to stderr, when the child aborted; "" when it ended
 * by itself.
 */
static const char *aborts_with(void (*fn)(void))
{
	static char text[512];
	int fds[2], status;
	size_t got = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit no_core = { 0, 0 };

		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while (got < sizeof(text) - 1 &&
	       (n = read(fds[0], text + got, sizeof(text) - 1 - got)) > 0)
		got += (size_t)n;
	text[got] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
		return text;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return "";
}

static struct mutex low, high, same1, same2;
static struct rwlock txn;
static struct cond cond;

static int setup_ranks(void **state)
{
	(void)state;
	mutex_init(&low, LOCK_CTL);
	mutex_init(&high, LOCK_LEAF);
	mutex_init(&same1, LOCK_INODE);
	mutex_init(&same2, LOCK_INODE);
	rw_init(&txn, LOCK_TXN);
	cond_init(&cond);
	return 0;
}

static void right_order(void)
{
	mutex_lock(&low);
	mutex_lock(&same1);
	mutex_lock(&same2);
	rw_rdlock(&txn);
	mutex_lock(&high);
	/* Released in any order. */
	mutex_unlock(&same1);
	mutex_unlock(&high);
	mutex_unlock(&low);
	mutex_lock(&high);
	mutex_unlock(&high);
	rw_unlock(&txn);
	mutex_unlock(&same2);
	mutex_lock(&low);
	mutex_unlock(&low);
}

static void wrong_order(void)
{
	mutex_lock(&high);
	mutex_lock(&low);
}

static void wrong_order_rwlock(void)
{
	rw_rdlock(&txn);
	mutex_lock(&same1);
}

static void one_rank_twice(void)
{
	struct mutex other;

	mutex_init(&other, LOCK_LEAF);
	mutex_lock(&high);
	mutex_lock(&other);
}

static void one_lock_twice(void)
{
	mutex_lock(&same1);
	mutex_lock(&same1);
}

static void shared_twice(void)
{
	rw_rdlock(&txn);
	rw_rdlock(&txn);
}

static void release_not_held(void)
{
	mutex_lock(&low);
	mutex_unlock(&high);
}

static void trylock_is_exempt(void)
{
	mutex_lock(&high);
	if (!mutex_trylock(&low))
		_exit(1);
	mutex_unlock(&low);
	mutex_unlock(&high);
}

static void trylock_counts_as_held(void)
{
	if (!mutex_trylock(&high))
		_exit(1);
	mutex_lock(&low);
}

static void assert_not_held(void)
{
	mutex_assert_held(&low);
}

static void assert_shared_is_not_exclusive(void)
{
	rw_rdlock(&txn);
	rw_assert_held(&txn);
	rw_assert_wrheld(&txn);
}

static void wait_without_the_mutex(void)
{
	cond_wait(&cond, &low);
}

static void wait_below_another(void)
{
	mutex_lock(&low);
	mutex_lock(&high);
	cond_wait(&cond, &low);
}

static void test_lock_debug_accepts_the_right_order(void **state)
{
	(void)state;
	assert_string_equal(aborts_with(right_order), "");
	assert_string_equal(aborts_with(trylock_is_exempt), "");
}

static void test_lock_debug_aborts_and_names_both_ranks(void **state)
{
	static const struct { void (*fn)(void); const char *first, *second; } cases[] = {
		{ wrong_order, "taking LOCK_CTL", "holding LOCK_LEAF" },
		{ wrong_order_rwlock, "taking LOCK_INODE", "holding LOCK_TXN" },
		{ one_rank_twice, "taking LOCK_LEAF", "holding LOCK_LEAF" },
		{ one_lock_twice, "taking LOCK_INODE", "which this thread holds" },
		{ shared_twice, "taking LOCK_TXN", "which this thread holds" },
		{ release_not_held, "releasing LOCK_LEAF", "it holds LOCK_CTL" },
		{ trylock_counts_as_held, "taking LOCK_CTL", "holding LOCK_LEAF" },
		{ assert_not_held, "LOCK_CTL is needed", "not held" },
		{ assert_shared_is_not_exclusive, "LOCK_TXN is needed", "held shared" },
		{ wait_without_the_mutex, "LOCK_CTL is needed", "not held" },
		{ wait_below_another, "waiting with LOCK_CTL", "holding LOCK_LEAF" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *text = aborts_with(cases[i].fn);

		assert_non_null(strstr(text, cases[i].first));
		assert_non_null(strstr(text, cases[i].second));
	}
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lock_rank_names),
		cmocka_unit_test(test_lock_mutex_trylock),
		cmocka_unit_test(test_lock_rwlock_excludes),
		cmocka_unit_test(test_lock_cond_hands_over),
		cmocka_unit_test(test_lock_timedwait_times_out_with_the_mutex_held),
		cmocka_unit_test(test_lock_threads_block_signals_from_outside),
#ifdef PMFS_DEBUG
		cmocka_unit_test_setup(test_lock_debug_accepts_the_right_order, setup_ranks),
		cmocka_unit_test_setup(test_lock_debug_aborts_and_names_both_ranks, setup_ranks),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
