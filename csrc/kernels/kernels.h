/* Tight loops over plain arrays: no allocation, no failure, checked input.
 *
 * Variants for AVX2 and AVX-512 give the same bits as the plain C ones (no fused multiply-add, the
 * same operations in the same order).  One table per CPU level; scio_kernels() is the one in force.
 */
#ifndef SCIO_KERNELS_KERNELS_H
#define SCIO_KERNELS_KERNELS_H

#include "base/cpu.h"
#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of values; huge ones have a size from SCIO_HUGE_SIZE on. */
#define SCIO_HUGE_SIZE 0x1p48
typedef struct scio_value_kinds {
    uint64_t n_zero, n_not_finite, n_fractional, n_negative, n_huge;
} scio_value_kinds;

typedef struct scio_kernels_table {
    /* Sum of values[n_items] in double, exact for integers below 2^53 in every partial sum: eight
     * lanes, item i into lane i % 8, lanes added pairwise at the end, so every variant has the same
     * bits. */
    double (*sum_f32)(const float *values, size_t n_items);
    /* True when all values are integers in [0, 2^31), -0.0 apart; the greatest and how many are
     * above 0 then. */
    bool (*are_counts_f32)(const float *values, size_t n_items, uint32_t *maximum_out,
                           uint32_t *n_positive_out);
    /* out[i] = (float)((double)in[i] * factor).  in == out allowed. */
    void (*scale_f32)(const float *in, double factor, float *out, size_t n_items);
    /* out[i] = ln(1 + in[i]) within 1 ulp; -1 gives -inf, below -1 NaN; in == out allowed.
     * Source: own double polynomial, see log1p_template.h. */
    void (*log1p_f32)(const float *in, float *out, size_t n_items);
    /* out[i] = e^(in[i] * factor) - 1 within 1.5 ulp, the bits of scio_expm1_f64 (exp_f64.h); in
     * and out apart. */
    void (*expm1_f64)(const double *in, double factor, double *out, size_t n_items);
    /* What the values of a row are, for messages and for exact sums. */
    void (*count_kinds_f64)(const double *in, size_t n_items, scio_value_kinds *out);
    /* uint8 and uint16 to float32. */
    void (*u8_to_f32)(const uint8_t *in, float *out, size_t n_items);
    void (*u16_to_f32)(const uint16_t *in, float *out, size_t n_items);
    /* float32 to float16, nearest, ties to even; beyond 65504 infinity; NaN stays one. */
    void (*f32_to_f16)(const float *in, uint16_t *out, size_t n_items);
    /* out[i] = in[i] + shift modulo 2^32; shift_u32 also in place. */
    void (*shift_u16)(const uint16_t *in, int32_t shift, int32_t *out, size_t n_items);
    void (*shift_u32)(const uint32_t *in, int32_t shift, int32_t *out, size_t n_items);
    /* True when all are in [least, end), 0 <= least. */
    bool (*are_within_i32)(const int32_t *in, size_t n_items, int32_t least, int32_t end);
    /* True when indices strictly increase. */
    bool (*is_increasing_u16)(const uint16_t *indices, size_t n_items);
    bool (*is_increasing_u32)(const uint32_t *indices, size_t n_items);
    /* ids_out[j], values_out[j] = the entries whose map[indices[i]] >= 0, in order; returns how
     * many. map[n_cols]; every index < n_cols.  Outputs need room for n_items. */
    size_t (*gather_map_u16)(const uint16_t *indices, const float *values, size_t n_items,
                             const int32_t *map, int32_t *ids_out, float *values_out);
    size_t (*gather_map_u32)(const uint32_t *indices, const float *values, size_t n_items,
                             const int32_t *map, int32_t *ids_out, float *values_out);
    /* Drops entries whose value is 0 (NaN stays), in place; returns how many are left. */
    size_t (*drop_zeros)(int32_t *ids, float *values, size_t n_items);
    /* Narrowing for the compact store: true and out filled when every value fits, else false (out
     * is then undefined).  float32 -> uint8/uint16 needs integral values. -0.0 does not fit. */
    bool (*f32_to_u8)(const float *in, uint8_t *out, size_t n_items);
    bool (*f32_to_u16)(const float *in, uint16_t *out, size_t n_items);
    /* int32 -> uint16 with a range check against n_cols: returns false when some index is outside
     * [0, n_cols).  n_cols <= 65536. */
    bool (*i32_to_u16_checked)(const int32_t *in, int64_t n_cols, uint16_t *out, size_t n_items);
    /* keys_out[i]: larger for larger values; NaN has the largest, -0.0 that of 0.0, nothing has 0.
     */
    void (*order_keys_f32)(const float *values, uint32_t *keys_out, size_t n_items);
    /* The least and the greatest key, n_items >= 1. */
    void (*range_u32)(const uint32_t *keys, size_t n_items, uint32_t *least_out,
                      uint32_t *greatest_out);
    /* How many keys are above the threshold. */
    size_t (*count_above_u32)(const uint32_t *keys, size_t n_items, uint32_t threshold);
    /* Keeps entries whose key is above the threshold, in place; returns how many (see
     * count_above_u32). */
    size_t (*keep_above_u32)(int32_t *ids, float *values, const uint32_t *keys, size_t n_items,
                             uint32_t threshold);
    /* Keeps entries with id_mask[id] != 0, in place; returns how many. */
    size_t (*keep_masked)(int32_t *ids, float *values, size_t n_items, const uint8_t *id_mask);
} scio_kernels_table;

/* The table for the level in force (base/cpu), or for a level that the CPU has. */
const scio_kernels_table *scio_kernels(void);
const scio_kernels_table *scio_kernels_at(scio_cpu_level level);

/* Exact top-k: keeps the k entries that come first by (value descending, id ascending; NaN counts
 * as the largest), in ascending id order as they came (ids[n_items] ascending, distinct), in place;
 * returns min(k, n_items).  scratch[n_items].  O(n) expected (selection, no sort). */
size_t scio_topk_by_value(int32_t *ids, float *values, size_t n_items, size_t k, uint64_t *scratch);
/* A seeded choice of k entries without replacement, ascending ids kept. stream = per cell and
 * epoch. */
size_t scio_choose_random(int32_t *ids, float *values, size_t n_items, size_t k, uint64_t seed,
                          uint64_t stream, uint64_t *scratch);
/* Sorts entries by id (stable) and adds the values of equal ids in double; returns how many are
 * left. scratch[2 * n_items]. */
size_t scio_sort_sum_duplicates(int32_t *ids, float *values, size_t n_items, uint64_t *scratch);
/* The same for rows whose values are doubles already: entries by ascending column (stable), equal
 * columns summed in stored order; returns how many are left.  keys[2 * n_items]. */
size_t scio_sort_sum_wide(uint32_t *columns, double *values, size_t n_items, uint64_t *keys);
/* Drops entries whose value is 0 (NaN stays), in place; returns how many are left. */
size_t scio_drop_zeros_wide(uint32_t *columns, double *values, size_t n_items);
/* Sum in the lanes of sum_f32, so that float32 and float64 of the same numbers agree. */
double scio_sum_f64(const double *values, size_t n_items);
/* Sorts keys[n_items] by their upper 32 bits, stable, and returns where they are then: keys or
 * scratch[n_items].  The lower half rides along.  O(n_items) for each 8 bits of the largest upper
 * half. */
uint64_t *scio_sort_by_upper(uint64_t *keys, uint64_t *scratch, size_t n_items);

#endif
