/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-ring-ops - one timed operation, for contrib/bench-ring.
 *
 *	bench-ring-ops rate KIND DIR BYTES COUNT     messages per second to another process
 *	bench-ring-ops delay KIND DIR BYTES COUNT    microseconds for one way of a round trip
 *
 * KIND: ring (messages made and read in place), ring-copy (pmfs_ring_write and pmfs_ring_read),
 * modulo (a ring in shared memory that copies around its end, with the same way to wait), pipe,
 * unix, mqueue.  Both ends touch all bytes of a message.  A kind that this system does not offer in
 * that size prints "-".  OP: map-write map-read write read write-4k read-4k.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <pmfs.h>

#define MIB	   ((size_t)1 << 20)
#define RING_BYTES (4 * MIB)
#define PIPE_BYTES ((int)MIB)
#define SPIN_NS	   20000

static void die(const char *what)
{
	fprintf(stderr, "bench-ring-ops: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void check(int rc, const char *what)
{
	if (rc >= 0)
		return;
	errno = -rc;
	die(what);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------ the ring that copies */

struct modulo {
	alignas(64) _Atomic uint64_t head;
	alignas(64) _Atomic uint64_t tail;
	alignas(64) _Atomic uint32_t waits[2]; /* for data, for room */
	alignas(64) uint8_t data[RING_BYTES];
};

static bool modulo_ready(struct modulo *m, uint64_t need, bool room)
{
	uint64_t used = atomic_load(&m->head) - atomic_load(&m->tail);

	return room ? RING_BYTES - used >= need : used > 0;
}

static void modulo_wait(struct modulo *m, uint64_t need, bool room)
{
	double end = seconds() + SPIN_NS / 1e9;
	_Atomic uint32_t *word = &m->waits[room];

	do {
		for (int i = 0; i < 16; i++) {
			if (modulo_ready(m, need, room))
				return;
		}
	} while (seconds() < end);
	for (;;) {
		atomic_store(word, 1);
		if (modulo_ready(m, need, room))
			return;
		syscall(SYS_futex, word, FUTEX_WAIT, 1, NULL, NULL, 0);
	}
}

static void modulo_wake(struct modulo *m, bool room)
{
	_Atomic uint32_t *word = &m->waits[room];

	if (atomic_load(word) && atomic_exchange(word, 0))
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void modulo_copy(struct modulo *m, uint64_t at, void *bytes, size_t length, bool in)
{
	size_t from = (size_t)(at % RING_BYTES);
	size_t first = length < RING_BYTES - from ? length : RING_BYTES - from;

	if (in) {
		memcpy(m->data + from, bytes, first);
		memcpy(m->data, (uint8_t *)bytes + first, length - first);
	} else {
		memcpy(bytes, m->data + from, first);
		memcpy((uint8_t *)bytes + first, m->data, length - first);
	}
}

/* ------------------------------------------------------------------ one end of a way */

enum kind { RING, RING_COPY, MODULO, PIPE, UNIX, MQUEUE, KINDS };
static const char *const kind_names[KINDS] = {"ring", "ring-copy", "modulo",
					      "pipe", "unix",	   "mqueue"};

struct way {
	enum kind kind;
	size_t bytes;
	char name[300];
	int fds[2]; /* to read from, to write to */
	mqd_t queue;
	struct modulo *modulo;
	struct pmfs_ring *ring;
	uint8_t *buffer;
};

/* 0, or 1 when it is not to be had here. */
static int way_make(struct way *w, enum kind kind, const char *dir, size_t bytes, int number)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct mq_attr attr = {.mq_maxmsg = bytes > 65536 ? 4 : 10, .mq_msgsize = (long)bytes};
	int size = PIPE_BYTES;

	*w = (struct way){.kind = kind, .bytes = bytes, .queue = (mqd_t)-1};
	w->buffer = malloc(bytes);
	if (!w->buffer)
		die("malloc");
	switch (kind) {
	case RING:
	case RING_COPY:
		snprintf(w->name, sizeof(w->name), "%s/bench-ring-%d", dir, number);
		unlink(w->name);
		check(pmfs_ring_create(w->name, RING_BYTES, 0600, 0), w->name);
		break;
	case MODULO:
		w->modulo = mmap(NULL, sizeof(*w->modulo), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (w->modulo == MAP_FAILED)
			die("mmap");
		memset(w->modulo->data, 1, RING_BYTES);
		break;
	case PIPE:
		if (pipe(w->fds))
			die("pipe");
		fcntl(w->fds[1], F_SETPIPE_SZ, PIPE_BYTES);
		break;
	case UNIX:
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, w->fds))
			die("socketpair");
		setsockopt(w->fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
		break;
	case MQUEUE:
		setrlimit(RLIMIT_MSGQUEUE, &unlimited);
		snprintf(w->name, sizeof(w->name), "/pmfs-bench-ring-%d-%d", (int)getpid(), number);
		w->queue = mq_open(w->name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
		if (w->queue == (mqd_t)-1)
			return 1;
		mq_unlink(w->name);
		break;
	default:
		break;
	}
	return 0;
}

static void way_enter(struct way *w, unsigned int role)
{
	if (w->kind == RING || w->kind == RING_COPY)
		check(pmfs_ring_open(w->name, role, &w->ring), w->name);
}

static void way_end(struct way *w)
{
	if (w->kind == RING || w->kind == RING_COPY)
		unlink(w->name);
}

static uint64_t use(const void *message, size_t length)
{
	const uint64_t *words = message;
	uint64_t sum = 0;

	for (size_t i = 0; i < length / 8; i++)
		sum += words[i];
	return sum;
}

static void all_of(int fd, uint8_t *at, size_t length, bool out)
{
	while (length) {
		ssize_t n = out ? write(fd, at, length) : read(fd, at, length);

		if (n <= 0)
			die(out ? "write" : "read");
		at += n;
		length -= (size_t)n;
	}
}

static void send_one(struct way *w, unsigned long n)
{
	void *room;

	if (w->kind == RING) {
		while (pmfs_ring_reserve(w->ring, w->bytes, &room))
			check(pmfs_ring_wait_space(w->ring, w->bytes, PMFS_FOREVER), "wait_space");
		memset(room, (int)n, w->bytes);
		check(pmfs_ring_commit(w->ring), "commit");
		return;
	}
	memset(w->buffer, (int)n, w->bytes);
	switch (w->kind) {
	case RING_COPY:
		check(pmfs_ring_write(w->ring, w->buffer, w->bytes, PMFS_FOREVER), "ring_write");
		break;
	case MODULO:
		if (!modulo_ready(w->modulo, w->bytes, true))
			modulo_wait(w->modulo, w->bytes, true);
		modulo_copy(w->modulo, atomic_load(&w->modulo->head), w->buffer, w->bytes, true);
		atomic_fetch_add(&w->modulo->head, w->bytes);
		modulo_wake(w->modulo, false);
		break;
	case MQUEUE:
		if (mq_send(w->queue, (const char *)w->buffer, w->bytes, 0))
			die("mq_send");
		break;
	default:
		all_of(w->fds[1], w->buffer, w->bytes, true);
	}
}

static uint64_t receive_one(struct way *w)
{
	const void *message = w->buffer;
	uint64_t sum;

	switch (w->kind) {
	case RING:
		while (pmfs_ring_peek(w->ring, &message) < 0)
			check(pmfs_ring_wait_data(w->ring, PMFS_FOREVER), "wait_data");
		sum = use(message, w->bytes);
		check(pmfs_ring_release(w->ring), "release");
		return sum;
	case RING_COPY:
		check((int)pmfs_ring_read(w->ring, w->buffer, w->bytes, PMFS_FOREVER), "ring_read");
		break;
	case MODULO:
		if (!modulo_ready(w->modulo, 0, false))
			modulo_wait(w->modulo, 0, false);
		modulo_copy(w->modulo, atomic_load(&w->modulo->tail), w->buffer, w->bytes, false);
		atomic_fetch_add(&w->modulo->tail, w->bytes);
		modulo_wake(w->modulo, true);
		break;
	case MQUEUE:
		if (mq_receive(w->queue, (char *)w->buffer, w->bytes, NULL) < 0)
			die("mq_receive");
		break;
	default:
		all_of(w->fds[0], w->buffer, w->bytes, false);
	}
	return use(w->buffer, w->bytes);
}

static uint64_t expected(unsigned long n, size_t bytes)
{
	return (n & 0xff) * UINT64_C(0x0101010101010101) * (bytes / 8);
}

static void measure(bool rate, enum kind kind, const char *dir, size_t bytes, unsigned long count)
{
	/* Once around, so that all memory is there before the clock starts. */
	unsigned long warm = rate ? RING_BYTES / bytes + 1 : 100, n;
	struct way there, back;
	double begin = 0;
	int status;
	pid_t pid;

	if (way_make(&there, kind, dir, bytes, 0) ||
	    way_make(&back, kind, dir, rate ? 8 : bytes, 1)) {
		puts("-");
		return;
	}
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		way_enter(&there, PMFS_RING_CONSUMER);
		way_enter(&back, PMFS_RING_PRODUCER);
		for (n = 0; n < warm + count; n++) {
			if (receive_one(&there) != expected(n, bytes)) {
				fprintf(stderr, "bench-ring-ops: a wrong message\n");
				_exit(1);
			}
			/* For the rate only when all is warm, and at the end. */
			if (!rate || n == warm - 1 || n == warm + count - 1)
				send_one(&back, n);
		}
		_exit(0);
	}
	way_enter(&there, PMFS_RING_PRODUCER);
	way_enter(&back, PMFS_RING_CONSUMER);
	for (n = 0; n < warm + count; n++) {
		if (n == warm) {
			if (rate)
				receive_one(&back);
			begin = seconds();
		}
		send_one(&there, n);
		if (!rate)
			receive_one(&back);
	}
	if (rate)
		receive_one(&back);
	begin = seconds() - begin;
	if (waitpid(pid, &status, 0) != pid || status)
		die("the other process");
	way_end(&there);
	way_end(&back);
	printf("%.6g\n", rate ? (double)count / begin : begin * 1e6 / (double)count / 2);
}

int main(int argc, char **argv)
{
	for (unsigned int kind = 0; argc == 6 && kind < KINDS; kind++) {
		if (strcmp(argv[2], kind_names[kind]))
			continue;
		measure(!strcmp(argv[1], "rate"), (enum kind)kind, argv[3],
			strtoul(argv[4], NULL, 10), strtoul(argv[5], NULL, 10));
		return 0;
	}
	fprintf(stderr, "usage: see the top of bench-ring-ops.c\n");
	return 2;
}
