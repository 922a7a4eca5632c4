/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log-follower FILE [LINES]: print what is appended to a file, LINES whole lines or without end.
 * It needs no library.  A ring log cuts off its oldest part when it is full, and the file is then
 * shorter than it was: what was read already is found again by its last bytes, and only what is new
 * is printed.  When they are gone as well, lines were lost, and it says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* How many bytes are remembered, to find the place again. */
#define TRAIL	  4096u
#define TRAIL_MIN 16u
#define CHUNK	  65536u

struct follower {
	int fd;
	off_t at;	   /* all before it is printed */
	char trail[TRAIL]; /* the bytes just before it */
	size_t trail_length;
	unsigned long left; /* lines to print; 0: no limit */
	bool limited;
};

static void remember(struct follower *f, const char *bytes, size_t length)
{
	size_t keep;

	if (length >= TRAIL) {
		memcpy(f->trail, bytes + length - TRAIL, TRAIL);
		f->trail_length = TRAIL;
		return;
	}
	keep = f->trail_length + length > TRAIL ? TRAIL - length : f->trail_length;
	memmove(f->trail, f->trail + f->trail_length - keep, keep);
	memcpy(f->trail + keep, bytes, length);
	f->trail_length = keep + length;
}

/* Where the bytes after the trail are now; -1: nowhere. */
static off_t find_trail(const struct follower *f, off_t size)
{
	char *all = malloc((size_t)size + 1), *hit, *from;
	off_t found = -1;
	ssize_t have = all ? pread(f->fd, all, (size_t)size, 0) : -1;

	from = all;
	/* The last place where it is: lines may repeat. */
	while (have > 0 &&
	       (hit = memmem(from, (size_t)(have - (from - all)), f->trail, f->trail_length))) {
		found = (off_t)(hit - all) + (off_t)f->trail_length;
		from = hit + 1;
	}
	/* Or the cut went through the trail, and what is left of that is the beginning. */
	for (size_t k = f->trail_length; have > 0 && found < 0 && k >= TRAIL_MIN; k--) {
		if (k <= (size_t)have && !memcmp(all, f->trail + f->trail_length - k, k))
			found = (off_t)k;
	}
	free(all);
	return found;
}

/* Find the place again after a cut. */
static int find_place(struct follower *f)
{
	struct stat st;
	off_t found;

	if (fstat(f->fd, &st))
		return -errno;
	found = find_trail(f, st.st_size);
	if (found < 0) {
		fprintf(stderr, "log-follower: lines were cut off before they were read\n");
		f->trail_length = 0;
	}
	f->at = found < 0 ? 0 : found;
	/* No more of it than is still before that place. */
	if (f->trail_length > (size_t)f->at) {
		memmove(f->trail, f->trail + f->trail_length - (size_t)f->at, (size_t)f->at);
		f->trail_length = (size_t)f->at;
	}
	return 0;
}

/* 1: enough. */
static int print_new(struct follower *f)
{
	static char bytes[TRAIL + CHUNK];

	while (!f->limited || f->left) {
		/* The trail is read again with what is new: the size alone does not tell of a cut, as
		 * the file may have grown again meanwhile. */
		ssize_t n = pread(f->fd, bytes, f->trail_length + CHUNK, f->at - (off_t)f->trail_length);
		size_t trail = f->trail_length, use;
		int rc;

		if (n < 0)
			return -errno;
		if ((size_t)n < trail || memcmp(bytes, f->trail, trail) != 0) {
			rc = find_place(f);
			if (rc)
				return rc;
			continue;
		}
		if ((size_t)n == trail)
			break;
		use = (size_t)n - trail;
		if (f->limited) {
			size_t all = use;

			for (use = 0; use < all && f->left; use++)
				f->left -= bytes[trail + use] == '\n';
		}
		fwrite(bytes + trail, 1, use, stdout);
		remember(f, bytes + trail, use);
		f->at += (off_t)use;
	}
	if (fflush(stdout))
		return -errno;
	return f->limited && !f->left;
}

int main(int argc, char **argv)
{
	static struct follower f;
	char events[4096];
	int watch, rc;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: log-follower FILE [LINES]\n");
		return 2;
	}
	f.limited = argc == 3;
	f.left = f.limited ? strtoul(argv[2], NULL, 10) : 0;
	f.fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	watch = inotify_init1(IN_CLOEXEC);
	/* The watch first, so that nothing appended after the first look is missed. */
	if (f.fd < 0 || watch < 0 || inotify_add_watch(watch, argv[1], IN_MODIFY) < 0) {
		fprintf(stderr, "log-follower: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	while (!(rc = print_new(&f))) {
		if (read(watch, events, sizeof(events)) < 0 && errno != EINTR) {
			rc = -errno;
			break;
		}
	}
	if (rc < 0)
		fprintf(stderr, "log-follower: %s: %s\n", argv[1], strerror(-rc));
	close(watch);
	close(f.fd);
	return rc < 0;
}
