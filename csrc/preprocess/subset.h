/* Rows and columns of a CSR matrix chosen at once. */
#ifndef SCIO_PREPROCESS_SUBSET_H
#define SCIO_PREPROCESS_SUBSET_H

#include "base/error.h"
#include "sparse/csr.h"

#include <stddef.h>
#include <stdint.h>

/* The matrix of n_rows rows rows[i] (NULL = all rows in order; repeats allowed) with the columns
 * that new_column[n_cols] sends to a place in [0, n_cols_out) (-1 = left out; NULL = all stay). The
 * entries of a row keep their order.  Two threaded passes, one to count and one to fill; indices
 * must be I32 or I64 and keep their type.  ERANGE names a row that does not exist, ECORRUPT an
 * index outside [0, n_cols) (not looked at without new_column) or an extent beyond nnz. */
SCIO_MUST_CHECK scio_status scio_csr_subset(const scio_csr_view *csr, const int64_t *rows,
                                            int64_t n_rows, const int32_t *new_column,
                                            int64_t n_cols_out, size_t max_parallel,
                                            const volatile int *cancel, scio_csr *out,
                                            scio_error *err);

#endif
