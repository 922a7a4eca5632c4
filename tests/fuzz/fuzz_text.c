/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What stands on command lines, in mount options, attributes and messages of the kernel, read by
 * the functions that do so.  The first byte says which.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/units.h"
#include "cmd/mountopt.h"
#include "ctl/mountinfo.h"
#include "ctl/pick.h"
#include "fuse/protocol.h"
#include "fuzz/fuzz.h"
#include "tree/acl.h"

const char fuzz_corpus[] = "text";

static void a_size(const char *text)
{
	char buf[UNITS_BUF];
	uint64_t bytes, again;

	if (units_parse_size(text, &bytes))
		return;
	units_format_size(buf, sizeof(buf), bytes);
	units_format_size_exact(buf, sizeof(buf), bytes);
	if (units_parse_size(buf, &again) || again != bytes)
		fuzz_fail("the size \"%s\" is not that of \"%s\"", buf, text);
}

static void a_duration(const char *text)
{
	char buf[UNITS_BUF];
	int64_t ns;

	if (units_parse_duration(text, &ns))
		return;
	if (ns < 0)
		fuzz_fail("the duration \"%s\" is %lld ns", text, (long long)ns);
	units_format_duration(buf, sizeof(buf), ns);
	units_format_rfc3339(buf, sizeof(buf), ns);
	units_format_local(buf, sizeof(buf), ns);
}

static void options(const char *text)
{
	struct mountopt mo;
	char why[200];
	int rc;

	for (int root = 0; root < 2; root++) {
		mountopt_init(&mo);
		why[0] = 0;
		rc = mountopt_parse(&mo, text, root, why, sizeof(why));
		if (rc && !why[0])
			fuzz_fail("\"%s\" is refused without a word", text);
		if (!rc && (mo.threads > MOUNTOPT_THREADS_MAX || (!root && (mo.dev || mo.suid))))
			fuzz_fail("\"%s\" was let pass", text);
	}
}

static void a_pick(const char *text)
{
	static const struct pick_entry entries[] = {
		{"first", 0}, {"@odd", 5 * NS_PER_SEC}, {"last", INT64_MAX}};
	size_t at = 0;

	for (size_t n = 0; n <= ARRAY_SIZE(entries); n++)
		if (!pick_snapshot(entries, n, text, 1000 * NS_PER_SEC, &at) && at >= n)
			fuzz_fail("\"%s\" picks number %zu of %zu", text, at, n);
}

static int a_mount(void *arg, const struct mount_entry *m)
{
	*(size_t *)arg += strlen(m->root) + strlen(m->dir) + strlen(m->type) + strlen(m->source);
	return 0;
}

static void mounts(const uint8_t *data, size_t size)
{
	FILE *f = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
	size_t sum = 0;

	if (!f)
		return;
	mountinfo_each_in(f, a_mount, &sum);
	fclose(f);
}

static void an_acl(const uint8_t *data, size_t size)
{
	uint8_t *list = malloc(MAX(size, 1));
	uint32_t mode = S_IFREG | 0640;
	bool same;

	if (!list)
		return;
	memcpy(list, data, size);
	if (!acl_check(list, size)) {
		acl_to_mode(list, size, mode, &same);
		acl_chmod(list, size, 0751);
		if (acl_check(list, size) || (acl_to_mode(list, size, 0, &same) & 0707) != 0701)
			fuzz_fail("chmod made an access list a bad one");
		acl_create(list, size, &mode, &same);
		if (acl_check(list, size))
			fuzz_fail("creating made an access list a bad one");
	}
	free(list);
}

/* A message of the kernel; those that are looked at are changed in place. */
static void a_request(const uint8_t *data, size_t size)
{
	/* The kernel's part of it is never shorter; libfuse's buffer has room behind it. */
	const size_t room = MAX(size, 256u);
	uint8_t *request = calloc(1, room);
	struct iovec iov[2];

	if (!request || size < 40) {
		free(request);
		return;
	}
	memcpy(request, data, size);
	protocol_unique(request);
	protocol_kills_priv(request, size);
	protocol_kills_sgid(request, size);
	protocol_offers(request, size);
	protocol_setxattr_compat(request, size);
	protocol_tmpfile_to_create(request, size);
	iov[0] = (struct iovec){request, 16};
	iov[1] = (struct iovec){request + 16, size - 16};
	protocol_take(iov, 2, PROTOCOL_KILLPRIV_V2 | PROTOCOL_SETXATTR_EXT);
	free(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = strndup((const char *)data + 1, size - 1);
	if (!text)
		return 0;
	switch (data[0]) {
	case 's':
		a_size(text);
		break;
	case 'd':
		a_duration(text);
		break;
	case 'o':
		options(text);
		break;
	case 'p':
		a_pick(text);
		break;
	case 'm':
		mounts(data + 1, size - 1);
		break;
	case 'a':
		an_acl(data + 1, size - 1);
		break;
	case 'r':
		a_request(data + 1, size - 1);
		break;
	}
	free(text);
	return 0;
}

size_t fuzz_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max)
{
	static const char *const words[] = {"K",
					    "M",
					    "G",
					    "T",
					    "KiB",
					    "B",
					    ".",
					    "-",
					    "ms",
					    "h",
					    "w",
					    "@",
					    "@-",
					    "=",
					    ",",
					    "\\,",
					    "ro",
					    "rw",
					    "size=",
					    "commit=",
					    "threads=",
					    "io_uring=",
					    "views=",
					    "dev",
					    "suid",
					    "allow_other",
					    "\\040",
					    " ",
					    "18446744073709551615",
					    "9223372036854775808",
					    "1e9",
					    "0x",
					    NULL};

	return fuzz_change_bytes(rnd, data, size, max, words);
}
