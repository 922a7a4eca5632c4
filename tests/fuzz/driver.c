/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROGRAM [FILE|DIRECTORY...]: run a fuzzer's inputs (none: its corpus) as they are, then changes
 * of them.  PMFS_SEED (1) decides which changes, PMFS_OPS (of which PMFS_TEST_SHARE is the share to
 * do, in percent) how many, PMFS_FUZZ_SECONDS for how long instead.  What ends the program stays
 * behind in PROGRAM.found, in the folder that PMFS_FUZZ_FOUND names (none: it is not kept).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "fuzz/fuzz.h"

#define CHANGES	   300 /* unless PMFS_OPS says */
#define INPUTS_MAX 4096u

struct input {
	size_t size;
	uint8_t *data;
};

static struct input inputs[INPUTS_MAX];
static size_t n_inputs;
static uint64_t executions;
static uint8_t *kept; /* what is being run, in a file, so that it outlives us */
static size_t *kept_size;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(99);
}

static void load_file(const char *path)
{
	FILE *f = fopen(path, "re");
	struct input *in = &inputs[n_inputs];

	if (!f)
		die(path);
	if (n_inputs == INPUTS_MAX)
		return;
	in->data = malloc(FUZZ_MAX);
	if (!in->data)
		die(path);
	in->size = fread(in->data, 1, FUZZ_MAX, f);
	fclose(f);
	n_inputs++;
}

static void load(const char *path)
{
	struct dirent **names;
	struct stat st;
	int n;

	if (stat(path, &st))
		die(path);
	if (!S_ISDIR(st.st_mode)) {
		load_file(path);
		return;
	}
	n = scandir(path, &names, NULL, alphasort);
	if (n < 0)
		die(path);
	for (int i = 0; i < n; i++) {
		char name[4096];

		snprintf(name, sizeof(name), "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			load_file(name);
		free(names[i]);
	}
	free(names);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Where the current input is, so that it can be looked at when we are gone. */
static char *keep_open(const char *program)
{
	const char *dir = getenv("PMFS_FUZZ_FOUND"), *base = strrchr(program, '/');
	char path[4096];
	int fd;

	if (!dir || !*dir)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s.found", dir, base ? base + 1 : program);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, FUZZ_MAX + 8))
		die(path);
	kept_size = mmap(NULL, FUZZ_MAX + 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (kept_size == MAP_FAILED)
		die(path);
	kept = (uint8_t *)kept_size + 8;
	close(fd);
	return strdup(path);
}

static void run(const uint8_t *data, size_t size)
{
	/* An exact copy: what is behind the end is not ours. */
	uint8_t *copy = malloc(MAX(size, 1));

	if (!copy)
		die("malloc");
	memcpy(copy, data, size);
	if (kept) {
		memcpy(kept, data, size);
		*kept_size = size;
	}
	alarm(FUZZ_SECONDS);
	LLVMFuzzerTestOneInput(copy, size);
	alarm(0);
	executions++;
	free(copy);
}

int main(int argc, char **argv)
{
	static uint8_t data[FUZZ_MAX];
	const char *src = getenv("PMFS_SRCDIR");
	const uint64_t seed = number("PMFS_SEED", 1), seconds = number("PMFS_FUZZ_SECONDS", 0);
	const uint64_t n = number("PMFS_OPS", CHANGES * number("PMFS_TEST_SHARE", 100) / 100);
	const int64_t end = units_monotonic_ns() + (int64_t)seconds * NS_PER_SEC;
	struct fuzz_random rnd = {seed};
	char path[4096], *found = keep_open(argv[0]);

	if (argc < 2) {
		snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", src ? src : ".",
			 fuzz_corpus);
		load(path);
	}
	for (int i = 1; i < argc; i++)
		load(argv[i]);
	if (!n_inputs) {
		fprintf(stderr, "%s: there is no input\n", argv[0]);
		return 99;
	}
	printf("PMFS_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	for (size_t i = 0; i < n_inputs; i++)
		run(inputs[i].data, inputs[i].size);
	for (uint64_t i = 0; seconds ? units_monotonic_ns() < end : i < n; i++) {
		const struct input *in = &inputs[fuzz_below(&rnd, n_inputs)];
		size_t size = in->size;

		memcpy(data, in->data, size);
		size = LLVMFuzzerCustomMutator(data, size, sizeof(data),
					       (unsigned int)fuzz_random(&rnd));
		run(data, size);
	}
	printf("%s: %zu inputs, %" PRIu64 " executions, 0 failures\n", fuzz_corpus, n_inputs,
	       executions);
	for (size_t i = 0; i < n_inputs; i++)
		free(inputs[i].data);
	if (found)
		unlink(found);
	free(found);
	return 0;
}
