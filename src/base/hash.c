/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/hash.h"

#include <string.h>

#include <xxhash.h>

uint64_t hash64(const void *buf, size_t len)
{
	return XXH3_64bits(buf, len);
}

uint64_t hash64_seed(const void *buf, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(buf, len, seed);
}

bool mem_is_zero(const void *buf, size_t len)
{
	const unsigned char *p = buf;
	size_t head = len < 16 ? len : 16;

	for (size_t i = 0; i < head; i++)
		if (p[i])
			return false;
	/* The first 16 are zero: comparing the rest with itself, 16 earlier, says the others are. */
	return len <= 16 || memcmp(p, p + 16, len - 16) == 0;
}
