/* What the files of a matrix share; nobody else includes this. */
#ifndef SCIO_LOAD_MATRIX_PRIVATE_H
#define SCIO_LOAD_MATRIX_PRIVATE_H

#include "load/matrix.h"
#include "load/unit_cache.h"

#include <stdatomic.h>

typedef struct scio_matrix_state {
    atomic_size_t n_refs;
    scio_unit_cache *cache; /* in a file; NULL in memory */
} scio_matrix_state;

static inline scio_matrix_state *
scio_matrix_private(const scio_matrix *matrix)
{
    return matrix->private_state;
}

/* Rows asked for: a list, or n_rows rows from `first` on when rows is NULL. */
typedef struct scio_matrix_rows {
    const int64_t *rows;
    int64_t first;
    size_t n_rows;
} scio_matrix_rows;

static inline int64_t
scio_matrix_row_at(const scio_matrix_rows *rows, size_t i)
{
    return rows->rows != NULL ? rows->rows[i] : rows->first + (int64_t)i;
}

SCIO_MUST_CHECK scio_status scio_matrix_check_range(const scio_matrix *matrix, int64_t start,
                                                    int64_t stop, scio_error *err);
/* Buffers for n_rows rows with nnz entries; content undefined. */
SCIO_MUST_CHECK scio_status scio_matrix_csr_new(const scio_matrix *matrix, int64_t n_rows,
                                                int64_t nnz, scio_dtype data_dtype, scio_csr *out,
                                                scio_error *err);
/* Puts the place in front of a failed index check; a cast out of range is a corrupt file. */
scio_status scio_matrix_index_error(const scio_matrix *matrix, scio_status status, scio_error *err);
/* The arrays of an opened matrix are columns (indptr[n_cols + 1], checked): reads them, turns them
 * round; the matrix lives in memory from then on.  EINVAL naming the bytes needed beyond
 * max_nbytes. */
SCIO_MUST_CHECK scio_status scio_matrix_convert_csc(scio_matrix *matrix, const int64_t *indptr,
                                                    uint64_t max_nbytes, scio_error *err);
/* The rows of a dense matrix (checked) as CSR. */
SCIO_MUST_CHECK scio_status scio_matrix_take_dense(scio_matrix *matrix,
                                                   const scio_matrix_rows *rows,
                                                   scio_dtype data_dtype, size_t max_parallel,
                                                   const volatile int *cancel, scio_csr *out,
                                                   scio_error *err);

/* Requests in ascending order of their rows; `i` is the place in the caller's list. */
typedef struct scio_matrix_request {
    int64_t row;
    size_t i;
} scio_matrix_request;

SCIO_MUST_CHECK scio_status scio_matrix_sort_requests(const scio_matrix_rows *rows,
                                                      scio_matrix_request **out, scio_error *err);

/* Rows of a CSR matrix on their way into `out`, whose indptr is there. */
typedef struct scio_matrix_taking {
    scio_matrix *matrix;
    const scio_matrix_request *requests; /* by row */
    size_t n_requests;
    scio_csr *out;
    const volatile int *cancel;
} scio_matrix_taking;

/* 0 the values, 1 the indices. */
static inline scio_h5_dataset *
scio_matrix_dataset(const scio_matrix *matrix, unsigned which)
{
    return which == 0 ? matrix->data_dataset : matrix->indices_dataset;
}

/* Items [first, first + count) of the matrix, as they lie in the file, to place `at` of the result;
 * indices are checked. */
SCIO_MUST_CHECK scio_status scio_matrix_put_items(const scio_matrix_taking *take, unsigned which,
                                                  const void *src, uint64_t first, size_t count,
                                                  int64_t at, scio_error *err);
/* Where units are stored without filters and the rows are a small part of the n_units that they
 * touch, their bytes are read as they lie.  In how many stretches; 0: in whole units. */
SCIO_MUST_CHECK scio_status scio_matrix_count_direct(const scio_matrix_taking *take, unsigned which,
                                                     uint64_t n_units, size_t *n_out,
                                                     scio_error *err);
SCIO_MUST_CHECK scio_status scio_matrix_take_direct(const scio_matrix_taking *take, unsigned which,
                                                    size_t i_stretch, scio_error *err);

/* Decoded units of one array of a matrix in a file, through the cache where that is of use. */
typedef struct scio_unit_reader {
    scio_matrix *matrix;
    scio_h5_dataset *dataset;
    unsigned which;        /* 0 data, 1 indices */
    bool is_cached;        /* false for reads too large to be remembered */
    scio_h5_unit_fn visit; /* gets bytes in file order */
    void *context;
} scio_unit_reader;

SCIO_MUST_CHECK scio_status scio_unit_reader_run(const scio_unit_reader *reader, uint64_t i_first,
                                                 uint64_t n_units, scio_h5_scratch **scratch,
                                                 const volatile int *cancel, scio_error *err);
/* One pointer for each slot of a loop; the scratch itself is made where it is used. */
SCIO_MUST_CHECK scio_status scio_scratches_new(size_t n_slots, scio_h5_scratch ***out,
                                               scio_error *err);
void scio_scratches_free(scio_h5_scratch **scratches, size_t n_slots);

#endif
