/* Genes brought to mean 0 and standard deviation 1; how often and how much each gene is seen. */
#ifndef SCIO_PREPROCESS_SCALE_H
#define SCIO_PREPROCESS_SCALE_H

#include "base/error.h"
#include "sparse/csr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Matrices as in transform.h: without indptr they are dense. */

typedef struct scio_scaling {
    const double *mean;       /* [n_cols]; NULL = no centring */
    const double *std;        /* [n_cols], none 0 */
    const uint8_t *is_scaled; /* [n_rows] rows with 0 stay as they are; NULL = all are scaled */
    double max_value;         /* y above it becomes it; centred also below its negative */
} scio_scaling;

/* out[i] = (x - mean) / std in double, limited, rounded once to F32 or F64.  One value for each
 * stored one, but dense out[n_rows * n_cols] where a sparse matrix is centred; the columns of a row
 * must be distinct then.  Indices are checked: ECORRUPT. */
SCIO_MUST_CHECK scio_status scio_scale_values(const scio_csr_view *csr, const scio_scaling *scaling,
                                              size_t max_parallel, const volatile int *cancel,
                                              scio_dtype out_dtype, void *out, scio_error *err);

/* Of every column, over all rows: how many values are above 0, or (sums_out) their sum, exact for
 * integers of any type, else in double by blocks of 4,096 rows in order; the other pointer is NULL.
 * *is_canonical_out: whether columns strictly increased in all rows; where they did not, duplicates
 * were taken one by one.  Indices are checked: ECORRUPT; NaN and infinity are EINVAL. */
SCIO_MUST_CHECK scio_status scio_column_sums(const scio_csr_view *csr, size_t max_parallel,
                                             const volatile int *cancel, int64_t *n_positive_out,
                                             double *sums_out, bool *is_canonical_out,
                                             scio_error *err);

#endif
