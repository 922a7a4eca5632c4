/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz.h - what a fuzzer is made of.
 *
 * A fuzzer is one source file with LLVMFuzzerTestOneInput(), fuzz_corpus and fuzz_change().  With
 * driver.c it is a program that runs the corpus and changes of it, always the same ones for a seed;
 * with clang's libFuzzer (configure --enable-fuzzers) it is one that looks for inputs that reach
 * new code.  What is found ends the program: a crash, a sanitizer's report, fuzz_fail(), an input
 * that takes longer than FUZZ_SECONDS.
 */
#ifndef PMFS_TESTS_FUZZ_H
#define PMFS_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#define FUZZ_MAX     65536u /* bytes of an input */
#define FUZZ_SECONDS 120u   /* for one, on a slow machine with sanitizers */

/* The folder below tests/fuzz/corpus. */
extern const char fuzz_corpus[];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed);

/* Pseudo random numbers, the same everywhere. */
struct fuzz_random {
	uint64_t state;
};
uint64_t fuzz_random(struct fuzz_random *rnd);
uint64_t fuzz_below(struct fuzz_random *rnd, uint64_t n); /* n > 0 */

/* Change an input in place, at most to max bytes; returns its new size.  The fuzzer's own. */
size_t fuzz_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max);
/* For those whose inputs are just bytes.  words: NULL at the end; they are put in now and then. */
size_t fuzz_change_bytes(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max,
			 const char *const *words);
/* A number that is likely to be taken wrongly. */
uint64_t fuzz_number(struct fuzz_random *rnd);

/* Something that must hold does not. */
__attribute__((format(printf, 1, 2), noreturn)) void fuzz_fail(const char *fmt, ...);
/* No messages of the engine. */
void fuzz_quiet(void);

#endif
