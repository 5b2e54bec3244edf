/* How often each value above 15 was met, per gene and batch: open addressing in 16 parts, so that
 * the tables of several threads are joined part by part, in parallel and without locks. */
#ifndef SCIO_PREPROCESS_VALUE_COUNTS_H
#define SCIO_PREPROCESS_VALUE_COUNTS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { SCIO_VALUE_PARTS = 16 };

typedef struct scio_value_part {
    uint64_t *keys;   /* [n_places], 0 = free */
    uint64_t *counts; /* [n_places] */
    size_t n_places;  /* 0 or a power of two */
    size_t n_used;
} scio_value_part;

typedef struct scio_value_counts {
    scio_value_part parts[SCIO_VALUE_PARTS];
} scio_value_counts; /* zeroed: empty */

/* `place` is gene + batch * n_genes, below 2^32; `value` in [1, 2^32). */
static inline uint64_t
scio_value_key(uint64_t place, uint64_t value)
{
    return place << 32 | value;
}

SCIO_MUST_CHECK scio_status scio_value_counts_add(scio_value_counts *counts, uint64_t key,
                                                  uint64_t n, scio_error *err);
/* Adds part i of `from` to the same part of `to` and empties it. */
SCIO_MUST_CHECK scio_status scio_value_counts_join(scio_value_counts *to, scio_value_counts *from,
                                                   size_t i_part, scio_error *err);
size_t scio_value_counts_n_used(const scio_value_counts *counts);
void scio_value_counts_clear(scio_value_counts *counts);

/* All entries by place and value, ascending: indptr_out[n_places + 1], and for each entry its value
 * and count, both of scio_value_counts_n_used entries. */
SCIO_MUST_CHECK scio_status scio_value_counts_sorted(const scio_value_counts *counts,
                                                     size_t n_places, int64_t *indptr_out,
                                                     uint64_t *values_out, int64_t *counts_out,
                                                     scio_error *err);

#endif
