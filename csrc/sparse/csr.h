/* Compressed sparse rows: views, the validation gate, row gather, conversions. */
#ifndef SCIO_SPARSE_CSR_H
#define SCIO_SPARSE_CSR_H

#include "base/buf.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/pool.h"

#include <stddef.h>
#include <stdint.h>

/* Borrowed arrays.  `indices` may be of any integer dtype; `data` of any dtype. */
typedef struct scio_csr_view {
    int64_t n_rows, n_cols, nnz;
    const int64_t *indptr; /* [n_rows + 1] */
    const void *indices;   /* [nnz] */
    scio_dtype index_dtype;
    const void *data; /* [nnz]; NULL when only the structure matters */
    scio_dtype data_dtype;
} scio_csr_view;

/* Owned arrays: one reference on each buffer. */
typedef struct scio_csr {
    int64_t n_rows, n_cols, nnz;
    scio_buf *indptr;  /* int64[n_rows + 1] */
    scio_buf *indices; /* index_dtype[nnz] */
    scio_buf *data;    /* data_dtype[nnz] */
    scio_dtype index_dtype, data_dtype;
} scio_csr;

void scio_csr_clear(scio_csr *csr); /* releases; safe on a zeroed struct */
scio_csr_view scio_csr_as_view(const scio_csr *csr);

typedef enum scio_check {
    SCIO_CHECK_SHAPE,     /* dtypes and lengths only */
    SCIO_CHECK_STRUCTURE, /* + indptr: O(n_rows) */
    SCIO_CHECK_FULL       /* + every index in its stored width: O(nnz), threaded */
} scio_check;

typedef struct scio_csr_facts {
    bool is_sorted;      /* indices of every row never decrease */
    bool has_duplicates; /* some row holds an index twice (exact also for unsorted rows) */
} scio_csr_facts;

/* The one gate for sparse arrays.  ECORRUPT names array, position and rule, with the row:
 * "indptr[2] is 1, less than indptr[1], which is 2 (must not decrease)",
 * "indices[17] is 40 in row 3, not in [0, 40)".  facts may be NULL; filled at FULL only. */
SCIO_MUST_CHECK scio_status scio_csr_validate(const scio_csr_view *csr, scio_check level,
                                              scio_csr_facts *facts_out, scio_error *err);
/* Only indptr[n_rows + 1] against nnz, the STRUCTURE level on its own. */
SCIO_MUST_CHECK scio_status scio_indptr_validate(const int64_t *indptr, int64_t n_rows, int64_t nnz,
                                                 scio_error *err);
/* Only n_items indices of any integer dtype against [0, n_cols); `first_item` is added to positions
 * in messages. */
SCIO_MUST_CHECK scio_status scio_indices_validate(const void *indices, scio_dtype index_dtype,
                                                  size_t n_items, int64_t n_cols,
                                                  int64_t first_item, scio_error *err);

/* Rows in the order asked for, repeats allowed: a count pass, then a fill pass.  ERANGE names the
 * first row outside [0, n_rows). */
SCIO_MUST_CHECK scio_status scio_csr_take_rows(const scio_csr_view *csr, const int64_t *rows,
                                               size_t n_rows, scio_csr *out, scio_error *err);
/* The transpose as CSR, that is CSR -> CSC of the same matrix or back.  Stable: rows of the result
 * are sorted.  O(nnz + n_cols). */
SCIO_MUST_CHECK scio_status scio_csr_transpose(const scio_csr_view *csr, scio_csr *out,
                                               scio_error *err);
/* Dense row-major [n_rows, n_cols] of data_dtype into out (exact nbytes); duplicates are summed. */
SCIO_MUST_CHECK scio_status scio_csr_to_dense(const scio_csr_view *csr, void *out,
                                              size_t out_nbytes, scio_error *err);
/* Dense row-major to CSR: values not equal to zero (NaN kept). */
SCIO_MUST_CHECK scio_status scio_csr_from_dense(const void *dense, scio_dtype dtype, int64_t n_rows,
                                                int64_t n_cols, scio_csr *out, scio_error *err);
/* Index width: I32 when n_cols and nnz allow, else I64. */
scio_dtype scio_csr_index_width(int64_t n_cols, int64_t nnz);

#endif
