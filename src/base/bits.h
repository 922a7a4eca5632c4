/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bits.h - alignment, bitmaps over 64-bit words, and arithmetic that says when it overflows.
 * Nothing here takes a lock or allocates.
 */
#ifndef PMFS_BASE_BITS_H
#define PMFS_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Both evaluate an operand twice.  Spelled exactly as in <sys/param.h>, so that including that
 * as well is no redefinition.
 */
#ifndef MIN
#define MIN(a,b) (((a)<(b))?(a):(b))
#endif
#ifndef MAX
#define MAX(a,b) (((a)>(b))?(a):(b))
#endif

/* a is a power of two; x and a are unsigned, and the result has the type of x. */
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a) - 1))
#define ALIGN_UP(x, a) (((x) + ((__typeof__(x))(a) - 1)) & ~((__typeof__(x))(a) - 1))
#define IS_ALIGNED(x, a) (((x) & ((__typeof__(x))(a) - 1)) == 0)

/* n is unsigned and d is not zero; n + d - 1 never has to fit. */
#define DIV_ROUND_UP(n, d) ((n) / (d) + ((n) % (d) != 0))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* True when x is a power of two; zero is none. */
static inline bool is_pow2(uint64_t x)
{
	return x && !(x & (x - 1));
}

/* Position of the highest set bit, 0..63; x is not zero. */
static inline unsigned int log2_floor(uint64_t x)
{
	return 63U - (unsigned int)__builtin_clzll(x);
}

/* *sum = a + b and true, or false with *sum untouched when the sum does not fit. */
static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *sum)
{
	uint64_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*sum = r;
	return true;
}

/* *product = a * b and true, or false with *product untouched when it does not fit. */
static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *product)
{
	uint64_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*product = r;
	return true;
}

/* True when [start, start + len) lies in [0, limit), whatever the three are. */
static inline bool range_fits(uint64_t start, uint64_t len, uint64_t limit)
{
	return start <= limit && len <= limit - start;
}

/*
 * Bitmaps.  Bit n is bit n % 64 of word n / 64.  None of these is atomic.
 */
#define BITMAP_WORDS(nbits) DIV_ROUND_UP((nbits), 64)

static inline bool bit_test(const uint64_t *map, uint64_t bit)
{
	return (map[bit / 64] >> (bit % 64)) & 1;
}

static inline void bit_set(uint64_t *map, uint64_t bit)
{
	map[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void bit_clear(uint64_t *map, uint64_t bit)
{
	map[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

/* invert is 0 to look for a set bit, ~0 to look for a clear one. */
static inline uint64_t bit_find_from(const uint64_t *map, uint64_t nbits, uint64_t from,
				     uint64_t invert)
{
	uint64_t at = ALIGN_DOWN(from, 64);
	uint64_t word;

	if (from >= nbits)
		return nbits;
	word = (map[at / 64] ^ invert) & (~UINT64_C(0) << (from % 64));
	while (!word) {
		at += 64;
		if (at >= nbits)
			return nbits;
		word = map[at / 64] ^ invert;
	}
	at += (uint64_t)__builtin_ctzll(word);
	return MIN(at, nbits);
}

/* The first set bit in [from, nbits), or nbits when there is none. */
static inline uint64_t bit_find_set(const uint64_t *map, uint64_t nbits, uint64_t from)
{
	return bit_find_from(map, nbits, from, 0);
}

/* The first clear bit in [from, nbits), or nbits when there is none. */
static inline uint64_t bit_find_zero(const uint64_t *map, uint64_t nbits, uint64_t from)
{
	return bit_find_from(map, nbits, from, ~UINT64_C(0));
}

static inline unsigned int bit_count(uint64_t word)
{
	return (unsigned int)__builtin_popcountll(word);
}

#endif
