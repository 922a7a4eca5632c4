/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
	struct fuzz_random rnd = {seed};
	uint64_t n = 1 + fuzz_below(&rnd, fuzz_below(&rnd, 3) ? 3 : 12);

	while (n--)
		size = fuzz_change(&rnd, data, size, max);
	return size;
}
