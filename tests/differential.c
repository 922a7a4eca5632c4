/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The differential tester: does the same random operations in a directory of pmfs and in one of
 * another filesystem (tmpfs or ext4), and compares all that a program could notice.  It prints the
 * seed; after a difference it leaves operations out for as long as there is still a difference, and
 * prints what is left as a script that --replay takes.
 *
 *     differential [--ops N] [--seed S] [--piece N] [--threads T] --reference DIR DIR
 *     differential --replay FILE --reference DIR DIR
 *     differential --compare --reference DIR DIR
 *
 * The operations come in pieces (2000), each in fresh directories and with a seed of its own, which
 * is one more than that of the piece before.  With --threads each of T threads has its own
 * directories, and two more read all of them meanwhile.  --keep leaves the files of the last piece.
 * --compare only looks at what is there.  The exit status is 1 after a difference, 2 for bad usage.
 *
 * What is not compared, and why (doc/posix.md has the same list):
 *   - blocks, inode numbers, device numbers, sizes of directories, access times: each filesystem
 *     has its own.
 *   - times of now: only that they are of now.  The time of the last change of a file that has been
 *     stored to through a shared mapping: tmpfs never stamps that, ext4 when a page is first
 *     stored to, FUSE when it is written back.
 *   - where the holes are, in a file that fallocate, copy_file_range, a shared mapping or written
 *     zeros have been at, or that was cut to less than a page: tmpfs has no unwritten extents and
 *     fills holes that are looked at through a mapping, and for pmfs written zeros may be a hole, and
 *     a file so short that it is in its inode is all data.  Holes read as zeros in any case.
 *   - SEEK_DATA and SEEK_HOLE see what was stored through a shared mapping only after msync or munmap:
 *     the kernel does not write it back before it asks a FUSE daemon.  With the mount option
 *     writeback there are no holes to be seen at all, for the same reason.
 *   - the time of the last write to a fifo: FUSE kernels do not set it.
 *   - chown(2) to no owner and no group: nothing for a FUSE daemon, the end of setuid for others.
 *   - truncate(2) to the size that a file has: a change for ext4, none for tmpfs.
 *   - the time of the last change of a directory after a failing rename that would have left a whiteout
 *     there: ext4 stamps it.
 *   - setgid without group execution, on files: FUSE kernels leave it when somebody else writes.
 *   - offsets and lengths of O_DIRECT that are no multiples of a page: ext4 refuses them.
 *   - a removed directory that is open: tmpfs lists nothing, others answer ENOENT.
 *   - which error it is, when something immutable or append-only is one of several reasons to refuse:
 *     FUSE kernels do not know of the flag.  open and write beside it are not tried for that reason.
 *   - a handle of a file without a name that is open somewhere: still good for ext4.
 *   - leases with several threads: whoever looks at the files of all would break them.
 *   - sendfile from a file to itself or to a fifo: pages go by reference.
 *   - how much one copy_file_range or sendfile copies; only how much can be copied.
 *   - what only one of both filesystems can do at all; see features_known in lib/diffops.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/diffops.h"

/* Between two surveys of the whole tree. */
#define SURVEY_OPS   250u
#define SHRINK_RUNS  600u
#define THREADS_MAX  32
#define READERS	     2
#define SHARED_FILES 8u
#define NONE	     SIZE_MAX

static struct options {
	uint64_t ops;
	uint64_t seed;
	size_t piece;
	unsigned threads;
	bool keep;
	bool compare;
	const char *replay;
	const char *reference;
	const char *dir;
	unsigned features;
} opt = {.ops = 30000, .seed = 1, .piece = 2000};

/* One sequence of operations and what came of it. */
struct trace {
	struct diff_op *op;
	size_t count;
	size_t failed; /* index of the operation after which they differed; NONE */
	char why[8192];
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "differential: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void join(char to[PATH_MAX], const char *dir, const char *name)
{
	if (snprintf(to, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		die(dir);
	}
}

static struct world *fresh(const char *parent, const char *name)
{
	struct world *w;
	char dir[PATH_MAX];

	join(dir, parent, name);
	if (mkdir(dir, 0777) || chmod(dir, 0777))
		die(dir);
	w = world_new(dir, opt.features);
	if (!w)
		die(dir);
	return w;
}

static void scrap(const char *parent, const char *name)
{
	char dir[PATH_MAX];
	int rc;

	join(dir, parent, name);
	rc = diff_remove(dir);
	if (rc) {
		errno = -rc;
		die(dir);
	}
}

static bool equal_surveys(struct world *here, struct world *there, char *why, size_t size)
{
	struct diff_outcome a, b;

	diff_survey(here, &a);
	diff_survey(there, &b);
	return diff_equal(&a, &b, why, size);
}

/* Does the operations in two fresh directories of this name. */
static void run_trace(struct trace *t, const char *name, bool keep)
{
	struct world *here = fresh(opt.dir, name), *there = fresh(opt.reference, name);
	struct diff_outcome a, b;

	t->failed = NONE;
	for (size_t i = 0; i < t->count && t->failed == NONE; i++) {
		diff_run(here, &t->op[i], &a);
		diff_run(there, &t->op[i], &b);
		if (!diff_equal(&a, &b, t->why, sizeof(t->why)) ||
		    ((i % SURVEY_OPS == SURVEY_OPS - 1 || i + 1 == t->count) &&
		     !equal_surveys(here, there, t->why, sizeof(t->why))))
			t->failed = i;
	}
	world_free(here);
	world_free(there);
	if (!keep) {
		scrap(opt.dir, name);
		scrap(opt.reference, name);
	}
}

static void draw_trace(struct trace *t, uint64_t seed)
{
	/* Seeds that are neighbours shall have nothing in common. */
	uint64_t state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);

	for (size_t i = 0; i < t->count; i++)
		t->op[i] = diff_draw(&state, opt.features);
}

static void print_trace(const struct trace *t)
{
	for (size_t i = 0; i < t->count; i++)
		diff_print(stdout, &t->op[i]);
}

/* Leaves out what the difference does not need. */
static void shrink(struct trace *t, const char *name)
{
	struct trace *less = malloc(sizeof(*less));
	unsigned runs = 0;

	if (!less)
		die("shrinking");
	less->op = calloc(t->count, sizeof(*less->op));
	if (!less->op)
		die("shrinking");
	t->count = t->failed + 1;
	for (size_t chunk = t->count / 2; chunk && runs < SHRINK_RUNS;) {
		bool shorter = false;

		for (size_t at = 0; at < t->count && runs < SHRINK_RUNS;) {
			const size_t n = chunk < t->count - at ? chunk : t->count - at;

			less->count = t->count - n;
			memcpy(less->op, t->op, at * sizeof(*t->op));
			memcpy(less->op + at, t->op + at + n, (t->count - at - n) * sizeof(*t->op));
			run_trace(less, name, false);
			runs++;
			if (less->failed == NONE) {
				at += n;
				continue;
			}
			t->count = less->failed + 1;
			memcpy(t->op, less->op, t->count * sizeof(*t->op));
			memcpy(t->why, less->why, sizeof(t->why));
			shorter = true;
		}
		if (chunk > 1 || !shorter)
			chunk /= 2;
	}
	free(less->op);
	free(less);
}

static int report(struct trace *t, uint64_t seed, const char *name)
{
	printf("difference with seed %" PRIu64 ", operation %zu: %s\n  ", seed, t->failed, t->why);
	diff_print(stdout, &t->op[t->failed]);
	fflush(stdout);
	shrink(t, name);
	printf("the shortest sequence found has %zu operations; its difference: %s\n", t->count,
	       t->why);
	print_trace(t);
	return 1;
}

/* ------------------------------------------------------------------ one thread */

static int run_pieces(void)
{
	struct trace t = {.op = calloc(opt.piece, sizeof(*t.op))};
	uint64_t seed = opt.seed;
	int rc = 0;

	if (!t.op)
		die("operations");
	for (uint64_t done = 0; done < opt.ops && !rc; done += t.count, seed++) {
		const uint64_t left = opt.ops - done;

		t.count = left < opt.piece ? (size_t)left : opt.piece;
		draw_trace(&t, seed);
		run_trace(&t, "piece", opt.keep && left <= opt.piece);
		if (t.failed != NONE) {
			/* A kept directory would be in the way. */
			if (opt.keep && left <= opt.piece) {
				scrap(opt.dir, "piece");
				scrap(opt.reference, "piece");
			}
			rc = report(&t, seed, "piece");
		}
	}
	free(t.op);
	return rc;
}

static int run_replay(void)
{
	FILE *f = strcmp(opt.replay, "-") ? fopen(opt.replay, "re") : stdin;
	struct trace t = {0};
	size_t room = 0, size = 0;
	char *line = NULL;

	if (!f)
		die(opt.replay);
	while (getline(&line, &size, f) > 0) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (t.count == room) {
			room = room ? 2 * room : 64;
			t.op = realloc(t.op, room * sizeof(*t.op));
			if (!t.op)
				die("operations");
		}
		if (!diff_parse(line, &t.op[t.count++])) {
			fprintf(stderr, "differential: no operation: %s", line);
			return 2;
		}
	}
	free(line);
	fclose(f);
	if (!t.count)
		return 0;
	run_trace(&t, "replay", opt.keep);
	if (t.failed != NONE) {
		printf("difference after operation %zu: %s\n  ", t.failed + 1, t.why);
		diff_print(stdout, &t.op[t.failed]);
	}
	free(t.op);
	return t.failed != NONE;
}

static int run_compare(void)
{
	struct diff_outcome a, b;
	uint8_t *data = malloc(2 * (size_t)DIFF_DATA_BYTES);
	static char why[8192];
	size_t names;
	bool equal;

	if (!data)
		die("comparing");
	names = diff_survey_dir(opt.dir, &a, data);
	diff_survey_dir(opt.reference, &b, data + DIFF_DATA_BYTES);
	equal = diff_equal(&a, &b, why, sizeof(why));
	if (equal)
		printf("%zu names, no difference\n", names);
	else
		printf("difference: %s\n", why);
	free(data);
	return !equal;
}

/* ------------------------------------------------------------------ several threads */

struct worker {
	pthread_t thread;
	struct trace trace;
	uint64_t seed;
	char name[32];
};

struct reader {
	pthread_t thread;
	const char *dir;
	uint64_t looked;
	char why[512]; /* empty when all was well */
};

static _Atomic bool stop;

static void *work(void *arg)
{
	struct worker *wk = arg;

	/* A umask of its own. */
	if (unshare(CLONE_FS))
		die("unshare");
	run_trace(&wk->trace, wk->name, true);
	if (wk->trace.failed != NONE)
		atomic_store(&stop, true);
	return NULL;
}

static void shared_name(char to[PATH_MAX], const char *dir, unsigned n)
{
	char name[32];

	snprintf(name, sizeof(name), "shared%u", n);
	join(to, dir, name);
}

/* A file that nobody changes says the same to all. */
static bool shared_right(const char *dir, unsigned n, char *why, size_t size)
{
	unsigned char buf[8192];
	char path[PATH_MAX];
	ssize_t len;
	int fd;

	shared_name(path, dir, n);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
	if (len != 5000 + (ssize_t)n) {
		snprintf(why, size, "shared%u: %zd bytes: %s", n, len, strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	close(fd);
	for (ssize_t i = 0; i < len; i++) {
		if (buf[i] != (unsigned char)(i * 7 + (ssize_t)n)) {
			snprintf(why, size, "shared%u: wrong byte at %zd", n, i);
			return false;
		}
	}
	return true;
}

static void make_shared(const char *dir)
{
	unsigned char buf[8192];
	char path[PATH_MAX];

	for (unsigned n = 0; n < SHARED_FILES; n++) {
		const size_t len = 5000 + n;
		int fd;

		for (size_t i = 0; i < len; i++)
			buf[i] = (unsigned char)(i * 7 + n);
		shared_name(path, dir, n);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, buf, len) != (ssize_t)len || close(fd))
			die(path);
	}
}

/* Reads the files of all while they change: nothing may fail but by a name that has gone, or open
 * with what a type of file or a moved directory brings with it. */
static void *look(void *arg)
{
	struct reader *rd = arg;
	uint8_t *data = malloc(DIFF_DATA_BYTES);
	struct diff_outcome out;

	if (!data)
		die("reading");
	while (!atomic_load(&stop) && !rd->why[0]) {
		static const int bad[] = {EIO, EBADMSG, EUCLEAN, ENOTCONN, EFAULT, ENOMEM};

		for (unsigned n = 0; n < SHARED_FILES && !rd->why[0]; n++)
			shared_right(rd->dir, n, rd->why, sizeof(rd->why));
		diff_survey_dir(rd->dir, &out, data);
		data[out.len < DIFF_DATA_BYTES ? out.len : DIFF_DATA_BYTES - 1] = '\0';
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			static const char *const call[] = {"open", "lstat", "read", "opendir"};

			for (size_t j = 0; j < sizeof(call) / sizeof(call[0]); j++) {
				char word[32];

				snprintf(word, sizeof(word), "%s:%d ", call[j], bad[i]);
				if (strstr((char *)data, word))
					snprintf(rd->why, sizeof(rd->why), "a reader got %s", word);
			}
		}
		rd->looked++;
	}
	if (rd->why[0])
		atomic_store(&stop, true);
	free(data);
	return NULL;
}

static int run_round(struct worker *worker, uint64_t seed, size_t count)
{
	static struct reader reader[READERS];
	int rc = 0;

	atomic_store(&stop, false);
	for (unsigned i = 0; i < READERS; i++) {
		reader[i] = (struct reader){.dir = opt.dir};
		if (pthread_create(&reader[i].thread, NULL, look, &reader[i]))
			die("thread");
	}
	for (unsigned i = 0; i < opt.threads; i++) {
		struct worker *wk = &worker[i];

		wk->seed = seed + i;
		wk->trace.count = count;
		snprintf(wk->name, sizeof(wk->name), "thread%u", i);
		draw_trace(&wk->trace, wk->seed);
		if (pthread_create(&wk->thread, NULL, work, wk))
			die("thread");
	}
	for (unsigned i = 0; i < opt.threads; i++)
		pthread_join(worker[i].thread, NULL);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(reader[i].thread, NULL);
		if (reader[i].why[0]) {
			printf("%s, beside seeds %" PRIu64 " to %" PRIu64 "\n", reader[i].why, seed,
			       seed + opt.threads - 1);
			rc = 1;
		}
	}
	for (unsigned i = 0; i < opt.threads; i++) {
		struct worker *wk = &worker[i];

		scrap(opt.dir, wk->name);
		scrap(opt.reference, wk->name);
		if (wk->trace.failed != NONE && !rc) {
			printf("with %u threads: ", opt.threads);
			rc = report(&wk->trace, wk->seed, "alone");
		}
	}
	return rc;
}

static int run_threads(void)
{
	struct worker *worker = calloc(opt.threads, sizeof(*worker));
	uint64_t done = 0, seed = opt.seed;
	int rc = 0;

	if (!worker)
		die("threads");
	for (unsigned i = 0; i < opt.threads; i++) {
		worker[i].trace.op = calloc(opt.piece, sizeof(struct diff_op));
		if (!worker[i].trace.op)
			die("operations");
	}
	make_shared(opt.dir);
	while (done < opt.ops && !rc) {
		const uint64_t left = (opt.ops - done + opt.threads - 1) / opt.threads;
		const size_t count = left < opt.piece ? (size_t)left : opt.piece;

		rc = run_round(worker, seed, count);
		seed += opt.threads;
		done += count * opt.threads;
	}
	for (unsigned n = 0; n < SHARED_FILES; n++) {
		char name[32];

		snprintf(name, sizeof(name), "shared%u", n);
		scrap(opt.dir, name);
	}
	for (unsigned i = 0; i < opt.threads; i++)
		free(worker[i].trace.op);
	free(worker);
	return rc;
}

/* ------------------------------------------------------------------ the program */

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (errno || end == text || *end || n < min || n > max) {
		fprintf(stderr, "differential: %s: not a number from %" PRIu64 " to %" PRIu64 "\n",
			text, min, max);
		exit(2);
	}
	return n;
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"ops", required_argument, NULL, 'o'},	 {"seed", required_argument, NULL, 's'},
		{"piece", required_argument, NULL, 'p'}, {"threads", required_argument, NULL, 't'},
		{"keep", no_argument, NULL, 'k'},	 {"compare", no_argument, NULL, 'c'},
		{"replay", required_argument, NULL, 'r'}, {"reference", required_argument, NULL, 'R'},
		{0},
	};
	const char *seed = getenv("PMFS_SEED");
	int c;

	if (seed)
		opt.seed = number(seed, 0, UINT64_MAX);
	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'o':
			opt.ops = number(optarg, 1, UINT64_MAX);
			break;
		case 's':
			opt.seed = number(optarg, 0, UINT64_MAX);
			break;
		case 'p':
			opt.piece = (size_t)number(optarg, 1, 1000000);
			break;
		case 't':
			opt.threads = (unsigned)number(optarg, 1, THREADS_MAX);
			break;
		case 'k':
			opt.keep = true;
			break;
		case 'c':
			opt.compare = true;
			break;
		case 'r':
			opt.replay = optarg;
			break;
		case 'R':
			opt.reference = optarg;
			break;
		default:
			exit(2);
		}
	}
	if (optind + 1 != argc || !opt.reference) {
		fprintf(stderr, "usage: differential [--ops N] [--seed S] [--piece N] [--threads T] "
				"[--keep] [--replay FILE | --compare] --reference DIR DIR\n");
		exit(2);
	}
	opt.dir = argv[optind];
}

int main(int argc, char **argv)
{
	unsigned here, there;
	int rc;

	parse(argc, argv);
	if (opt.compare)
		return run_compare();
	/* Somebody writes to a fifo that nobody reads, opens what there is a lease on. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGIO, SIG_IGN);
	/* The other user of the operations is in no group of ours. */
	if (geteuid() == 0 && setgroups(0, NULL))
		die("setgroups");
	here = diff_probe(opt.dir);
	there = diff_probe(opt.reference);
	opt.features = here & there;
	/* Whoever reads the files of all would break their leases. */
	if (opt.threads)
		opt.features &= ~(unsigned)CAN_LEASE;
	if (here & ~there) {
		printf("not in %s:\n", opt.reference);
		diff_explain(stdout, here & ~there, "  ");
	}
	if (there & ~here) {
		printf("not in %s:\n", opt.dir);
		diff_explain(stdout, there & ~here, "  ");
	}
	if (opt.replay)
		return run_replay();
	printf("seed %" PRIu64 ", %" PRIu64 " operations\n", opt.seed, opt.ops);
	fflush(stdout);
	rc = opt.threads ? run_threads() : run_pieces();
	if (!rc)
		printf("no difference\n");
	return rc;
}
