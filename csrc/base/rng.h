/* Counter-based random numbers: value = f(seed, stream, index), never a hidden state.
 * Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32-10). */
#ifndef SCIO_BASE_RNG_H
#define SCIO_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* One block of the generator itself. */
void scio_rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* 64 random bits; the same on every machine. */
uint64_t scio_rng_u64(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in [0, bound), bound > 0, without bias (rejection uses sub-counters of `index`). */
uint64_t scio_rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound);
/* items[n_items] is shuffled in place (Fisher-Yates, draw i of the stream at step i). */
void scio_rng_shuffle_i64(uint64_t seed, uint64_t stream, int64_t *items, size_t n_items);
/* Mixes several numbers (epoch, rank, purpose …) into one stream id. */
uint64_t scio_rng_stream(uint64_t a, uint64_t b, uint64_t c);

#endif
