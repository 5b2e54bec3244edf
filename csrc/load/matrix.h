/* A matrix whose rows (cells) can be read: CSR or dense, in a file or in memory. */
#ifndef SCIO_LOAD_MATRIX_H
#define SCIO_LOAD_MATRIX_H

#include "base/buf.h"
#include "base/dtype.h"
#include "base/error.h"
#include "h5read/dataset.h"
#include "sparse/csr.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_matrix_kind { SCIO_MATRIX_CSR, SCIO_MATRIX_DENSE } scio_matrix_kind;

typedef struct scio_matrix {
    int64_t n_rows, n_cols;
    int64_t nnz; /* stored entries; n_rows * n_cols when dense */
    scio_matrix_kind kind;
    bool is_in_file;
    bool is_mapped;                     /* in memory that is a file: indices of a row are checked
                                           when it is touched (scio_matrix_check_row) */
    bool was_csc;                       /* converted from columns when it was opened */
    scio_dtype data_dtype, index_dtype; /* as stored */
    char *name;                         /* "pbmc3k.h5ad: /X", for messages */
    int64_t *indptr;                    /* CSR: [n_rows + 1], checked; owned */
    /* in a file: */
    scio_h5_dataset *data_dataset;    /* owned */
    scio_h5_dataset *indices_dataset; /* CSR; owned */
    /* in memory: */
    scio_buf *data, *indices; /* retained */
    void *private_state;      /* cache of decoded units for take, with its mutex */
} scio_matrix;                /* refcounted: any number of threads may read */

/* CSR group (members data, indices, indptr) at `group_address`; the shape comes from the caller,
 * who read the attributes.  Reads indptr, runs the gate up to STRUCTURE; indices are checked as
 * they are decoded.  is_csc: the arrays are columns; they are read whole and converted, EINVAL
 * naming the bytes needed when that exceeds max_nbytes. */
SCIO_MUST_CHECK scio_status scio_matrix_open_sparse(scio_h5_file *file, uint64_t group_address,
                                                    const char *path, int64_t n_rows,
                                                    int64_t n_cols, bool is_csc,
                                                    uint64_t max_nbytes, scio_matrix **out,
                                                    scio_error *err);
/* A 2-D numeric dataset. */
SCIO_MUST_CHECK scio_status scio_matrix_open_dense(scio_h5_file *file, uint64_t address,
                                                   const char *path, scio_matrix **out,
                                                   scio_error *err);
/* Arrays in memory; buffers are retained.  Runs the FULL gate. */
SCIO_MUST_CHECK scio_status scio_matrix_from_csr(const char *name, int64_t n_rows, int64_t n_cols,
                                                 scio_buf *indptr_i64, scio_buf *indices,
                                                 scio_dtype index_dtype, scio_buf *data,
                                                 scio_dtype data_dtype, scio_matrix **out,
                                                 scio_error *err);
SCIO_MUST_CHECK scio_status scio_matrix_from_dense(const char *name, int64_t n_rows, int64_t n_cols,
                                                   scio_buf *data, scio_dtype data_dtype,
                                                   scio_matrix **out, scio_error *err);
/* The same of a file that nobody changes in place (a fast-layout file): contiguous, native arrays
 * are mapped, the matrix counts as one in memory (is_in_file is false) and needs the file no more.
 * indptr passes the gate; indices do so when they are read.  EUNSUPPORTED for other storage. */
SCIO_MUST_CHECK scio_status scio_matrix_map_sparse(scio_h5_file *file, uint64_t group_address,
                                                   const char *path, int64_t n_rows, int64_t n_cols,
                                                   scio_matrix **out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_matrix_map_dense(scio_h5_file *file, uint64_t address,
                                                  const char *path, scio_matrix **out,
                                                  scio_error *err);
/* The column indices of one row of a mapped matrix; whoever uses them where they lie asks first.
 * Others were checked when they were opened: OK at once. */
SCIO_MUST_CHECK scio_status scio_matrix_check_row(const scio_matrix *matrix, int64_t row,
                                                  scio_error *err);
scio_matrix *scio_matrix_retain(scio_matrix *matrix);
void scio_matrix_release(scio_matrix *matrix);
/* Puts the name of the matrix's file in front of a failure that does not say it yet; returns
 * status. */
scio_status scio_matrix_blame(const scio_matrix *matrix, scio_status status, scio_error *err);
/* Bytes held in memory; what is mapped is the page cache's. */
size_t scio_matrix_nbytes(const scio_matrix *matrix);

/* Keeps no more than so many bytes of decoded chunks for the next `scio_matrix_take` (at first, and
 * at most, 32 MiB); returns how many it will be.  0 for matrices in memory. */
size_t scio_matrix_limit_cache(scio_matrix *matrix, uint64_t nbytes);

/* Rows in the order asked for, repeats allowed, as CSR in the source's columns with data of
 * `data_dtype` (NONE = as stored) and the narrowest of I32 / I64 indices.  A dense matrix gives its
 * non-zero values.  Each touched chunk is decoded once per call; decoded chunks are kept in a
 * bounded LRU (32 MiB) for the next call.  Parallel over chunks (max_parallel as in base/pool). */
SCIO_MUST_CHECK scio_status scio_matrix_take(scio_matrix *matrix, const int64_t *rows,
                                             size_t n_rows, scio_dtype data_dtype,
                                             size_t max_parallel, const volatile int *cancel,
                                             scio_csr *out, scio_error *err);
/* Rows [start, stop) as CSR, decoded straight into place. */
SCIO_MUST_CHECK scio_status scio_matrix_read(scio_matrix *matrix, int64_t start, int64_t stop,
                                             scio_dtype data_dtype, size_t max_parallel,
                                             const volatile int *cancel, scio_csr *out,
                                             scio_error *err);
/* Rows [start, stop) dense, row-major, into out (exact nbytes); any kind. */
SCIO_MUST_CHECK scio_status scio_matrix_read_dense(scio_matrix *matrix, int64_t start, int64_t stop,
                                                   scio_dtype data_dtype, void *out,
                                                   size_t out_nbytes, size_t max_parallel,
                                                   const volatile int *cancel, scio_error *err);

#endif
