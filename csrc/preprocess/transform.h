/* Per cell: totals, the facts about its values, and the transforms that replace its values.
 *
 * A matrix comes as a scio_csr_view.  One without `indptr` is dense: row-major, n_rows * n_cols
 * values, no indices.  Values are of any dtype; results are float32 or float64.  Loops are shared
 * out over ranges of rows, and what they write depends on the row alone. */
#ifndef SCIO_PREPROCESS_TRANSFORM_H
#define SCIO_PREPROCESS_TRANSFORM_H

#include "base/error.h"
#include "sparse/csr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- totals */

/* What a pass over all values found; positions are places in `data`, -1 = none. */
typedef struct scio_value_facts {
    bool is_canonical;      /* columns of every row strictly increase */
    bool has_duplicates;    /* some row holds a column twice */
    int64_t first_infinite; /* NaN counts */
    int64_t first_negative;
    int64_t first_fraction; /* finite and not an integer */
    int64_t n_fractions;
    double maximum; /* of finite values; -inf when there are none */
} scio_value_facts;

/* totals_out[r] = sum of row r: exact for integers of any type (rounded once), else in double over
 * the values that are not 0, by ascending column, duplicates summed, in the lanes of the loader.
 * n_positive_out[r] (may be NULL) = how many values are above 0, duplicates summed.
 * is_left_out[n_cols] (may be NULL): columns with 1 do not count, here and in n_positive.
 * Indices are checked: ECORRUPT.  28 bytes of scratch for each item of the longest row and thread.
 */
SCIO_MUST_CHECK scio_status scio_row_totals(const scio_csr_view *csr, const uint8_t *is_left_out,
                                            size_t max_parallel, const volatile int *cancel,
                                            double *totals_out, int64_t *n_positive_out,
                                            scio_value_facts *facts_out, scio_error *err);

/* is_high_out[c] = 1 when some x_rc > max_fraction * totals[r], in double; no duplicates. */
SCIO_MUST_CHECK scio_status scio_high_columns(const scio_csr_view *csr, const double *totals,
                                              double max_fraction, size_t max_parallel,
                                              const volatile int *cancel, uint8_t *is_high_out,
                                              scio_error *err);

/* --- transforms */

typedef struct scio_value_transform {
    const double *totals; /* [n_rows] y = x * (target / total), total 0 leaves the row; NULL = no */
    double target;
    bool is_log1p;   /* then ln(1 + y), y rounded to the output type before */
    double log_base; /* ln of the base, by which the logarithm is divided; 0 = natural */
} scio_value_transform;

/* out[i] for every stored value, F32 or F64 (out_dtype); the product is made in double and rounded
 * once.  float32: the kernels of the loader, bit for bit.  With a base the logarithm is taken in
 * double, divided, and rounded once.  `out` may be the data when the dtypes are equal.  A result
 * that is not finite is EINVAL naming the lowest row's first one; out is then undefined.  Indices
 * are not looked at. */
SCIO_MUST_CHECK scio_status scio_transform_values(const scio_csr_view *csr,
                                                  const scio_value_transform *transform,
                                                  size_t max_parallel, const volatile int *cancel,
                                                  scio_dtype out_dtype, void *out, scio_error *err);

/* --- shared by the files of this folder that walk over rows */

/* Place of the first value of a row in data; row n_rows gives the end. */
static inline int64_t
scio_row_start(const scio_csr_view *csr, int64_t row)
{
    return csr->indptr == NULL ? row * csr->n_cols : csr->indptr[row];
}

/* Rows for one item of a parallel loop: some hundred thousand values. */
int64_t scio_rows_per_item(const scio_csr_view *csr);

#endif
