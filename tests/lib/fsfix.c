/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/fsfix.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"

#define DEFAULT_LIMIT (UINT64_C(64) << 20)

static void must(const char *what, int rc)
{
	if (rc)
		fail_msg("%s: %s", what, strerror(-rc));
}

int fsfix_try_start(struct fsfix *fx, struct store_error *err)
{
	struct fs_config cfg = { 0 };
	int rc;

	memset(err, 0, sizeof(*err));
	cfg.store.path = fx->ram ? NULL : fx->image;
	cfg.store.limit_bytes = fx->ram ? fx->limit : 0;
	cfg.store.read_only = fx->read_only;
	rc = fs_open(&fx->fs, &cfg, err);
	if (rc) {
		fx->fs = NULL;
		return rc;
	}
	fx->root = fs_root(fx->fs);
	if (!fx->unscanned)
		while (!(rc = store_scan(fs_store(fx->fs), UINT64_MAX)))
			;
	return MIN(rc, 0);
}

void fsfix_start(struct fsfix *fx)
{
	struct store_error err;
	int rc = fsfix_try_start(fx, &err);

	if (rc)
		fail_msg("fs_open: %s (%s)", strerror(-rc), err.text);
}

void fsfix_ram(struct fsfix *fx, uint64_t limit_bytes)
{
	memset(fx, 0, sizeof(*fx));
	fx->ram = true;
	fx->limit = limit_bytes ? limit_bytes : DEFAULT_LIMIT;
	fsfix_start(fx);
}

void fsfix_image(struct fsfix *fx, uint64_t limit_bytes)
{
	const char *tmp = getenv("TMPDIR");
	struct store_format how = { 0 };
	struct store_error err = { 0 };
	int rc;

	memset(fx, 0, sizeof(*fx));
	fx->limit = limit_bytes ? limit_bytes : DEFAULT_LIMIT;
	if (!tmp || strlen(tmp) > sizeof(fx->dir) - sizeof("/pmfs-XXXXXX"))
		tmp = "/tmp";
	snprintf(fx->dir, sizeof(fx->dir), "%s/pmfs-XXXXXX", tmp);
	if (!mkdtemp(fx->dir))
		fail_msg("mkdtemp %s", fx->dir);
	snprintf(fx->image, sizeof(fx->image), "%s/image", fx->dir);
	how.limit_bytes = fx->limit;
	rc = store_format(fx->image, &how, &err);
	if (rc)
		fail_msg("store_format: %s (%s)", strerror(-rc), err.text);
	fsfix_start(fx);
}

void fsfix_stop(struct fsfix *fx)
{
	struct fs *fs = fx->fs;

	fx->fs = NULL;
	if (fs)
		must("fs_close", fs_close(fs));
}

void fsfix_crash(struct fsfix *fx)
{
	if (fx->fs)
		fs_abandon(fx->fs);
	fx->fs = NULL;
}

void fsfix_reopen(struct fsfix *fx)
{
	fsfix_stop(fx);
	fsfix_start(fx);
}

void fsfix_free(struct fsfix *fx)
{
	fsfix_stop(fx);
	if (fx->ram)
		return;
	unlink(fx->image);
	rmdir(fx->dir);
}

static void print_finding(void *arg, const char *what)
{
	(void)arg;
	print_error("check: %s\n", what);
}

void fsfix_check(struct fsfix *fx)
{
	const int rc = fs_check(fx->fs, true, print_finding, NULL);

	if (rc < 0)
		fail_msg("fs_check: %s", strerror(-rc));
	if (rc)
		fail_msg("fs_check: %d findings", rc);
}

/* ------------------------------------------------------------------ names and contents */

static const struct fs_cred nobody = { 0, 0 };

uint64_t fsfix_file(struct fsfix *fx, uint64_t dir, const char *name)
{
	struct fs_attr attr = { 0 };

	must("fs_mknod", fs_mknod(fx->fs, dir, name, strlen(name), S_IFREG | 0644, 0, &nobody,
				  &attr));
	return attr.id;
}

uint64_t fsfix_mkdir(struct fsfix *fx, uint64_t dir, const char *name)
{
	struct fs_attr attr = { 0 };

	must("fs_mkdir", fs_mkdir(fx->fs, dir, name, strlen(name), 0755, &nobody, &attr));
	return attr.id;
}

uint64_t fsfix_find(struct fsfix *fx, uint64_t dir, const char *name)
{
	struct fs_attr attr = { 0 };
	const int rc = fs_lookup(fx->fs, dir, name, strlen(name), &attr);

	if (rc == -ENOENT)
		return 0;
	must("fs_lookup", rc);
	return attr.id;
}

void fsfix_write(struct fsfix *fx, uint64_t id, uint64_t off, const void *buf, size_t len)
{
	const ssize_t n = fs_write(fx->fs, id, off, buf, len, 0);

	if (n < 0)
		must("fs_write", (int)n);
	assert_int_equal(n, len);
}

void fsfix_expect(struct fsfix *fx, uint64_t id, uint64_t off, const void *buf, size_t len)
{
	uint8_t *got = malloc(len ? len : 1);
	ssize_t n;

	assert_non_null(got);
	n = fs_read(fx->fs, id, off, got, len);
	if (n < 0)
		must("fs_read", (int)n);
	assert_int_equal(n, len);
	assert_memory_equal(got, buf, len);
	free(got);
}

uint64_t fsfix_size(struct fsfix *fx, uint64_t id)
{
	struct fs_attr attr = { 0 };

	must("fs_getattr", fs_getattr(fx->fs, id, &attr));
	return attr.size;
}

/* ------------------------------------------------------------------ chance */

uint64_t fsfix_env(const char *name, uint64_t by_default)
{
	const char *text = getenv(name);
	const char *share = getenv("PMFS_TEST_SHARE");
	uint64_t n = text ? strtoull(text, NULL, 0) : 0;
	uint64_t percent = share ? strtoull(share, NULL, 0) : 0;

	if (n)
		return n;
	/* The sanitizers make everything several times as slow; a seed is no amount of work. */
	if (percent && strcmp(name, "PMFS_SEED"))
		return MAX(by_default * percent / 100, 1);
	return by_default;
}

void fsfix_seed(struct fsfix_random *rnd, uint64_t by_default)
{
	const uint64_t seed = fsfix_env("PMFS_SEED", by_default);

	print_message("PMFS_SEED=%llu\n", (unsigned long long)seed);
	rnd->state = seed;
}

/* splitmix64 */
uint64_t fsfix_random(struct fsfix_random *rnd)
{
	uint64_t z = (rnd->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t fsfix_below(struct fsfix_random *rnd, uint64_t n)
{
	return fsfix_random(rnd) % n;
}

void fsfix_fill(struct fsfix_random *rnd, void *buf, size_t len)
{
	uint8_t *to = buf;

	while (len) {
		const uint64_t word = fsfix_random(rnd);
		const size_t k = len < sizeof(word) ? len : sizeof(word);

		memcpy(to, &word, k);
		to += k;
		len -= k;
	}
}
