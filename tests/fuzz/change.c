/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "fuzz/fuzz.h"

/* splitmix64 */
uint64_t fuzz_random(struct fuzz_random *rnd)
{
	uint64_t z = rnd->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t fuzz_below(struct fuzz_random *rnd, uint64_t n)
{
	return fuzz_random(rnd) % n;
}

uint64_t fuzz_number(struct fuzz_random *rnd)
{
	static const uint64_t special[] = {
		0,
		1,
		2,
		3,
		15,
		16,
		255,
		256,
		4095,
		4096,
		65535,
		INT32_MAX,
		UINT32_MAX,
		INT64_MAX,
		UINT64_MAX,
		UINT64_C(1) << 36,
		UINT64_C(1) << 40,
		UINT64_C(1) << 60,
		UINT64_C(1) << 63,
	};

	switch (fuzz_below(rnd, 3)) {
	case 0:
		return special[fuzz_below(rnd, ARRAY_SIZE(special))];
	case 1:
		return fuzz_below(rnd, 600);
	default:
		return fuzz_random(rnd) >> fuzz_below(rnd, 64);
	}
}

static size_t insert(uint8_t *data, size_t size, size_t max, size_t at, const void *what, size_t n)
{
	if (n > max - size)
		return size;
	memmove(data + at + n, data + at, size - at);
	memcpy(data + at, what, n);
	return size + n;
}

size_t fuzz_change_bytes(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max,
			 const char *const *words)
{
	const size_t at = fuzz_below(rnd, size + 1);
	uint8_t piece[64];
	size_t n = 0;

	switch (fuzz_below(rnd, 7)) {
	case 0:
		if (at < size)
			data[at] ^= (uint8_t)(1u << fuzz_below(rnd, 8));
		return size;
	case 1:
		if (at < size)
			data[at] = (uint8_t)fuzz_random(rnd);
		return size;
	case 2: /* take some out */
		n = 1 + fuzz_below(rnd, fuzz_below(rnd, 4) ? 4 : 200);
		n = MIN(n, size - at);
		memmove(data + at, data + at + n, size - at - n);
		return size - n;
	case 3: /* repeat some, elsewhere */
		n = 1 + fuzz_below(rnd, sizeof(piece));
		n = MIN(n, size - at);
		memcpy(piece, data + at, n);
		return insert(data, size, max, fuzz_below(rnd, size + 1), piece, n);
	case 4: /* a number in digits */
		n = (size_t)snprintf((char *)piece, sizeof(piece), "%lld",
				     (long long)fuzz_number(rnd));
		return insert(data, size, max, at, piece, n);
	case 5:
		piece[0] = (uint8_t)fuzz_random(rnd);
		return insert(data, size, max, at, piece, 1);
	default:
		while (words && words[n])
			n++;
		if (!n)
			return size;
		words += fuzz_below(rnd, n);
		return insert(data, size, max, at, *words, strlen(*words));
	}
}

void fuzz_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("fuzz: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

/* What the sanitizers ask for. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

/* A size that can't be had is an error of calloc(3), as it is without them. */
const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
	return "allocator_may_return_null=1";
}

static void drop(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

void fuzz_quiet(void)
{
	log_to_function(drop, NULL);
}
