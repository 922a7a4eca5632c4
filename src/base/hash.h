/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hash.h - the one hash of pmfs: XXH3-64, as checksum of everything on disk and as dedup key.
 * It is not cryptographic: equal hashes are a reason to compare bytes, never a proof.
 * The values are part of the disk format.
 */
#ifndef PMFS_BASE_HASH_H
#define PMFS_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* XXH3-64 with seed 0.  len may be 0; then buf is not read and may be NULL. */
uint64_t hash64(const void *buf, size_t len);

uint64_t hash64_seed(const void *buf, size_t len, uint64_t seed);

/* True when all len bytes are zero (and when len is 0).  buf needs no alignment. */
bool mem_is_zero(const void *buf, size_t len);

#endif
