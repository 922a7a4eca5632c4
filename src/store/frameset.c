/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/frameset.h"

#include "base/bits.h"

static uint64_t *words(const struct frameset *fs, unsigned int level)
{
	return fs->level[level].at;
}

static uint64_t usable_bits(const struct frameset *fs, unsigned int level)
{
	return (uint64_t)fs->level[level].usable * 8;
}

int frameset_init(struct frameset *fs, uint64_t capacity)
{
	uint64_t bits = MAX(capacity, 1);

	*fs = (struct frameset){ 0 };
	for (;;) {
		uint64_t nwords = BITMAP_WORDS(bits);
		int rc = lazy_init(&fs->level[fs->levels], (size_t)(nwords * sizeof(uint64_t)));

		if (rc) {
			frameset_destroy(fs);
			return rc;
		}
		fs->levels++;
		if (nwords == 1)
			return 0;
		bits = nwords;
	}
}

void frameset_destroy(struct frameset *fs)
{
	for (unsigned int i = 0; i < FRAMESET_LEVELS; i++)
		lazy_destroy(&fs->level[i]);
	*fs = (struct frameset){ 0 };
}

int frameset_extend(struct frameset *fs, uint64_t size)
{
	uint64_t bits = size;

	for (unsigned int i = 0; i < fs->levels; i++) {
		uint64_t nwords = BITMAP_WORDS(bits);
		int rc = lazy_extend(&fs->level[i], (size_t)(nwords * sizeof(uint64_t)));

		if (rc)
			return rc;
		bits = nwords;
	}
	return 0;
}

bool frameset_has(const struct frameset *fs, uint64_t n)
{
	return n < usable_bits(fs, 0) && bit_test(words(fs, 0), n);
}

/* The word that holds bit n of level 0 is not zero any more. */
static void note_filled(struct frameset *fs, uint64_t n)
{
	for (unsigned int i = 1; i < fs->levels; i++) {
		uint64_t *w;

		n /= 64;
		w = &words(fs, i)[n / 64];
		if (*w) {
			*w |= UINT64_C(1) << (n % 64);
			return;
		}
		*w = UINT64_C(1) << (n % 64);
	}
}

static void note_emptied(struct frameset *fs, uint64_t n)
{
	for (unsigned int i = 1; i < fs->levels; i++) {
		n /= 64;
		bit_clear(words(fs, i), n);
		if (words(fs, i)[n / 64])
			return;
	}
}

static void add_bits(struct frameset *fs, uint64_t n, uint64_t mask)
{
	uint64_t *w = &words(fs, 0)[n / 64];
	bool was_empty = !*w;

	*w |= mask;
	if (was_empty)
		note_filled(fs, n);
}

static void remove_bits(struct frameset *fs, uint64_t n, uint64_t mask)
{
	uint64_t *w = &words(fs, 0)[n / 64];

	*w &= ~mask;
	if (!*w)
		note_emptied(fs, n);
}

bool frameset_add(struct frameset *fs, uint64_t n)
{
	if (frameset_has(fs, n))
		return false;
	add_bits(fs, n, UINT64_C(1) << (n % 64));
	fs->count++;
	return true;
}

bool frameset_remove(struct frameset *fs, uint64_t n)
{
	if (!frameset_has(fs, n))
		return false;
	remove_bits(fs, n, UINT64_C(1) << (n % 64));
	fs->count--;
	return true;
}

/* The bits of the word of `from` that lie in [from, from + n), n > 0; *len: how many. */
static uint64_t run_mask(uint64_t from, uint64_t n, uint64_t *len)
{
	*len = MIN(64 - from % 64, n);
	return (~UINT64_C(0) >> (64 - *len)) << (from % 64);
}

void frameset_add_run(struct frameset *fs, uint64_t from, uint64_t n)
{
	fs->count += n;
	for (uint64_t len; n; from += len, n -= len)
		add_bits(fs, from, run_mask(from, n, &len));
}

void frameset_remove_run(struct frameset *fs, uint64_t from, uint64_t n)
{
	fs->count -= n;
	for (uint64_t len; n; from += len, n -= len)
		remove_bits(fs, from, run_mask(from, n, &len));
}

void frameset_clear(struct frameset *fs)
{
	uint64_t n = 0;

	while ((n = frameset_next(fs, n)) != FRAMESET_END)
		remove_bits(fs, n, ~UINT64_C(0));
	fs->count = 0;
}

uint64_t frameset_next(const struct frameset *fs, uint64_t from)
{
	unsigned int level = 0;
	uint64_t at = from;

	/* Up until a word has a bit at or behind where we are, then down along the first bits. */
	for (;;) {
		uint64_t word;

		if (level == fs->levels || at >= usable_bits(fs, level))
			return FRAMESET_END;
		word = words(fs, level)[at / 64] & (~UINT64_C(0) << (at % 64));
		if (word) {
			at = ALIGN_DOWN(at, 64) + (uint64_t)__builtin_ctzll(word);
			break;
		}
		at = at / 64 + 1;
		level++;
	}
	while (level--)
		at = at * 64 + (uint64_t)__builtin_ctzll(words(fs, level)[at]);
	return at;
}

uint64_t frameset_run(const struct frameset *fs, uint64_t n, uint64_t max)
{
	uint64_t end = usable_bits(fs, 0);

	if (max < end - n)
		end = n + max;
	return bit_find_zero(words(fs, 0), end, n) - n;
}
