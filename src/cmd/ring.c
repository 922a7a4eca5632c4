/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "pmfs/ring.h"

#define RINGLOG		 "user.pmfs.ringlog"
#define RINGLOG_CUT	 "user.pmfs.ringlog.cut"
#define DEFAULT_SIZE	 (UINT64_C(1) << 20)
#define DEFAULT_LOG_SIZE (UINT64_C(64) << 20)

static int fail_errno(struct cli *cli, const char *what, const char *path)
{
	return cli_fail(cli, (int)outcome_of_errno(-errno), "can't %s %s: %s", what, path,
			strerror(errno));
}

/* ------------------------------------------------------------------ create */

/* The magic goes last: who looks before sees no ring. */
static int fill_ring(int fd, uint64_t size, bool multi)
{
	struct pmfs_ring_header h = {
		.version = PMFS_RING_VERSION,
		.flags = multi ? PMFS_RING_F_MULTI : 0,
		.size = size,
		.data_offset = PMFS_RING_HEADER_BYTES,
	};
	const uint64_t magic = PMFS_RING_MAGIC;
	int rc;

	rc = posix_fallocate(fd, 0, (off_t)(size + PMFS_RING_HEADER_BYTES));
	if (rc) {
		errno = rc;
		return -1;
	}
	if (pwrite(fd, &h, sizeof(h), 0) != sizeof(h))
		return -1;
	return pwrite(fd, &magic, sizeof(magic), offsetof(struct pmfs_ring_header, magic)) ==
			       sizeof(magic)
		       ? 0
		       : -1;
}

static int fill_log(int fd, uint64_t size)
{
	char text[UNITS_BUF];

	units_format_size_exact(text, sizeof(text), size);
	return fsetxattr(fd, RINGLOG, text, strlen(text), 0);
}

struct options {
	bool log, multi;
	uint64_t size; /* 0: not given */
};

static int create(struct cli *cli, const char *path, const struct options *opt)
{
	const char *doing = opt->log ? "make the ring log" : "make the ring";
	uint64_t size = opt->size;
	int fd, status;

	if (!size)
		size = opt->log ? DEFAULT_LOG_SIZE : DEFAULT_SIZE;
	if (!opt->log)
		size = ALIGN_UP(size, (uint64_t)PMFS_RING_HEADER_BYTES);
	if (!opt->log && size > PMFS_RING_SIZE_MAX)
		return cli_usage(cli, "a ring has at most 2G");
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return fail_errno(cli, doing, path);
	if (!(opt->log ? fill_log(fd, size) : fill_ring(fd, size, opt->multi))) {
		close(fd);
		return cli_done(cli, json_pack("{s:s, s:s, s:I}", "path", path, "kind",
					       opt->log ? "ring-log" : "ring", "size_bytes",
					       (json_int_t)size));
	}
	if (opt->log && errno == EINVAL)
		status = cli_usage(cli, "a ring log has 64K to 16G");
	else if (opt->log && errno == EOPNOTSUPP)
		status = cli_fail(cli, OUTCOME_FAILED,
				  "can't make the ring log %s: that takes an ordinary file in a "
				  "pmfs mount without the option writeback",
				  path);
	else
		status = fail_errno(cli, doing, path);
	unlink(path);
	close(fd);
	return status;
}

/* ------------------------------------------------------------------ stat */

static int stat_log(struct cli *cli, const char *path, int fd, const char *limit_text)
{
	char text[32] = "0", buf[UNITS_BUF];
	uint64_t limit = 0, dropped;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return fail_errno(cli, "look at", path);
	n = fgetxattr(fd, RINGLOG_CUT, text, sizeof(text) - 1);
	text[MAX(n, 0)] = '\0';
	dropped = strtoull(text, NULL, 10);
	if (units_parse_size(limit_text, &limit))
		return cli_fail(cli, OUTCOME_DAMAGED, "%s: its limit is no size", path);
	if (!cli->json && !cli->quiet) {
		printf("kind       ring log\n");
		printf("limit      %s\n", units_format_size(buf, sizeof(buf), limit));
		printf("size       %s\n",
		       units_format_size(buf, sizeof(buf), (uint64_t)st.st_size));
		printf("cut off    %s\n", units_format_size(buf, sizeof(buf), dropped));
	}
	return cli_done(cli, json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", path, "kind",
				       "ring-log", "limit_bytes", (json_int_t)limit, "size_bytes",
				       (json_int_t)st.st_size, "cut_bytes", (json_int_t)dropped));
}

static int stat_ring(struct cli *cli, const char *path, const struct pmfs_ring_header *h,
		     uint64_t length)
{
	uint64_t used = h->head - h->tail;
	unsigned int writers = 0;
	char buf[UNITS_BUF];
	bool reader;

	if (!pmfs_ring_looks_right(h, length))
		return cli_fail(cli, OUTCOME_DAMAGED,
				"%s is a ring of another version, or cut short", path);
	if (used > h->size || h->head % 8 || h->tail % 8)
		return cli_fail(cli, OUTCOME_DAMAGED,
				"%s: the positions of this ring contradict each other", path);
	reader = (uint32_t)h->slots[0].state == PMFS_RING_LIVE;
	for (size_t i = 1; i < PMFS_RING_SLOTS; i++)
		writers += (uint32_t)h->slots[i].state == PMFS_RING_LIVE;
	if (!cli->json && !cli->quiet) {
		printf("kind       ring, %s\n",
		       h->flags & PMFS_RING_F_MULTI ? "several writers" : "one writer");
		printf("size       %s\n", units_format_size(buf, sizeof(buf), h->size));
		printf("unread     %s\n", units_format_size(buf, sizeof(buf), used));
		printf("written    %s\n", units_format_size(buf, sizeof(buf), h->head));
		printf("released   %s\n", units_format_size(buf, sizeof(buf), h->tail));
		printf("writers    %u\n", writers);
		printf("reader     %s\n", reader ? "yes" : "no");
	}
	return cli_done(cli, json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:b}", "path", path,
				       "kind", "ring", "multi", (h->flags & PMFS_RING_F_MULTI) != 0,
				       "size_bytes", (json_int_t)h->size, "head",
				       (json_int_t)h->head, "tail", (json_int_t)h->tail, "writers",
				       (json_int_t)writers, "reader", reader));
}

static int show(struct cli *cli, const char *path)
{
	struct pmfs_ring_header h;
	char limit[32];
	struct stat st;
	int fd, status;
	ssize_t n;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(cli, "open", path);
	n = fgetxattr(fd, RINGLOG, limit, sizeof(limit) - 1);
	if (n > 0) {
		limit[n] = '\0';
		status = stat_log(cli, path, fd, limit);
	} else if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && h.magic == PMFS_RING_MAGIC &&
		   !fstat(fd, &st)) {
		status = stat_ring(cli, path, &h, (uint64_t)st.st_size);
	} else {
		status = cli_fail(cli, OUTCOME_NOT_FOUND, "%s is neither a ring nor a ring log",
				  path);
	}
	close(fd);
	return status;
}

int ring_run(struct cli *cli, int argc, char **argv)
{
	enum { OPT_LOG = CLI_OPT_FIRST, OPT_SIZE, OPT_MULTI };
	static const struct option longs[] = {
		CLI_LONG,
		{"log", no_argument, NULL, OPT_LOG},
		{"size", required_argument, NULL, OPT_SIZE},
		{"multi", no_argument, NULL, OPT_MULTI},
		{0},
	};
	struct options o = {0};
	bool making;
	int opt;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT, longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		if (opt == OPT_LOG)
			o.log = true;
		else if (opt == OPT_MULTI)
			o.multi = true;
		else if (units_parse_size(optarg, &o.size) || !o.size)
			return cli_usage(cli, "%s is not a size such as 64K or 16M", optarg);
	}
	if (argc - optind != 2)
		return cli_usage(cli, "ring takes create or stat, and one PATH");
	making = !strcmp(argv[optind], "create");
	if (!making && strcmp(argv[optind], "stat"))
		return cli_usage(cli, "ring %s is neither create nor stat", argv[optind]);
	snprintf(cli->command, sizeof(cli->command), "pmfs-ctl ring %s", argv[optind]);
	if (!making && (o.log || o.multi || o.size))
		return cli_usage(cli, "ring stat has no such option");
	if (o.log && o.multi)
		return cli_usage(cli, "--multi is for rings; any number may append to a log");
	return making ? create(cli, argv[optind + 1], &o) : show(cli, argv[optind + 1]);
}
