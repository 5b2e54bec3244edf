/* Runs of rows, decoded straight into place. */
#include "load/matrix.h"

#include "base/mem.h"
#include "load/matrix_private.h"

#include <inttypes.h>
#include <string.h>

scio_status
scio_matrix_check_range(const scio_matrix *matrix, int64_t start, int64_t stop, scio_error *err)
{
    if (start < 0 || stop < start || stop > matrix->n_rows)
        return scio_fail(err, SCIO_ERANGE,
                         "%s: rows [%" PRId64 ", %" PRId64 ") are not inside [0, %" PRId64 ")",
                         matrix->name, start, stop, matrix->n_rows);
    return SCIO_OK;
}

scio_status
scio_matrix_csr_new(const scio_matrix *matrix, int64_t n_rows, int64_t nnz, scio_dtype data_dtype,
                    scio_csr *out, scio_error *err)
{
    scio_csr csr;
    size_t index_nbytes, data_nbytes, indptr_nbytes;
    scio_status status = SCIO_OK;

    memset(&csr, 0, sizeof csr);
    csr.n_rows = n_rows;
    csr.n_cols = matrix->n_cols;
    csr.nnz = nnz;
    csr.data_dtype = data_dtype == SCIO_DTYPE_NONE ? matrix->data_dtype : data_dtype;
    csr.index_dtype = scio_csr_index_width(matrix->n_cols, nnz);
    if (!scio_mul_size((size_t)nnz, scio_dtype_itemsize(csr.index_dtype), &index_nbytes) ||
        !scio_mul_size((size_t)nnz, scio_dtype_itemsize(csr.data_dtype), &data_nbytes) ||
        !scio_mul_size((size_t)n_rows + 1, sizeof(int64_t), &indptr_nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%s: %" PRId64 " rows with %" PRId64 " entries",
                         matrix->name, n_rows, nnz);
    status = scio_buf_new(indptr_nbytes, &csr.indptr, err);
    if (status == SCIO_OK)
        status = scio_buf_new(index_nbytes, &csr.indices, err);
    if (status == SCIO_OK)
        status = scio_buf_new(data_nbytes, &csr.data, err);
    if (status != SCIO_OK) {
        scio_csr_clear(&csr);
        return status;
    }
    *out = csr;
    return SCIO_OK;
}

scio_status
scio_matrix_index_error(const scio_matrix *matrix, scio_status status, scio_error *err)
{
    /* an index that the narrow type cannot hold is out of range of the columns, too */
    if (status == SCIO_ERANGE) {
        status = SCIO_ECORRUPT;
        if (err != NULL)
            err->code = status;
    }
    scio_context(err, "%s/indices", matrix->name);
    return status;
}

static scio_status
read_csr_arrays(scio_matrix *matrix, int64_t start, int64_t stop,
                const scio_h5_read_options *options, scio_csr *csr, scio_error *err)
{
    const uint64_t first = (uint64_t)matrix->indptr[start];
    const uint64_t count = (uint64_t)(matrix->indptr[stop] - matrix->indptr[start]);
    scio_status status;

    if (matrix->is_in_file) {
        SCIO_TRY(scio_h5_dataset_read(matrix->data_dataset, &first, &count, csr->data_dtype,
                                      scio_buf_data(csr->data), scio_buf_nbytes(csr->data), options,
                                      err));
        status = scio_h5_dataset_read(matrix->indices_dataset, &first, &count, csr->index_dtype,
                                      scio_buf_data(csr->indices), scio_buf_nbytes(csr->indices),
                                      options, err);
        if (status == SCIO_OK)
            status = scio_indices_validate(scio_buf_data(csr->indices), csr->index_dtype,
                                           (size_t)count, matrix->n_cols, (int64_t)first, err);
        return status == SCIO_OK ? status : scio_matrix_index_error(matrix, status, err);
    }
    const char *const data = scio_buf_data(matrix->data);
    const char *const indices = scio_buf_data(matrix->indices);
    status = scio_cast(matrix->data_dtype, data + first * scio_dtype_itemsize(matrix->data_dtype),
                       csr->data_dtype, scio_buf_data(csr->data), (size_t)count, err);
    if (status != SCIO_OK) {
        scio_context(err, "%s", matrix->name);
        return status;
    }
    status =
        scio_cast(matrix->index_dtype, indices + first * scio_dtype_itemsize(matrix->index_dtype),
                  csr->index_dtype, scio_buf_data(csr->indices), (size_t)count, err);
    if (status == SCIO_OK && matrix->is_mapped)
        status = scio_indices_validate(scio_buf_data(csr->indices), csr->index_dtype, (size_t)count,
                                       matrix->n_cols, (int64_t)first, err);
    return status == SCIO_OK ? status : scio_matrix_index_error(matrix, status, err);
}

scio_status
scio_matrix_read(scio_matrix *matrix, int64_t start, int64_t stop, scio_dtype data_dtype,
                 size_t max_parallel, const volatile int *cancel, scio_csr *out, scio_error *err)
{
    scio_csr csr;
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(scio_matrix_check_range(matrix, start, stop, err));
    const scio_matrix_rows rows = {NULL, start, (size_t)(stop - start)};
    if (matrix->kind == SCIO_MATRIX_DENSE)
        return scio_matrix_take_dense(matrix, &rows, data_dtype, max_parallel, cancel, out, err);
    const int64_t *const indptr = matrix->indptr;
    SCIO_TRY(scio_matrix_csr_new(matrix, stop - start, indptr[stop] - indptr[start], data_dtype,
                                 &csr, err));
    int64_t *const out_indptr = scio_buf_data(csr.indptr);
    for (int64_t row = start; row <= stop; row++)
        out_indptr[row - start] = indptr[row] - indptr[start];
    const scio_h5_read_options options = {NULL, max_parallel, cancel};
    status = csr.nnz == 0 ? SCIO_OK : read_csr_arrays(matrix, start, stop, &options, &csr, err);
    if (status != SCIO_OK) {
        scio_csr_clear(&csr);
        return scio_matrix_blame(matrix, status, err);
    }
    *out = csr;
    return SCIO_OK;
}

scio_status
scio_matrix_read_dense(scio_matrix *matrix, int64_t start, int64_t stop, scio_dtype data_dtype,
                       void *out, size_t out_nbytes, size_t max_parallel,
                       const volatile int *cancel, scio_error *err)
{
    const scio_dtype dtype = data_dtype == SCIO_DTYPE_NONE ? matrix->data_dtype : data_dtype;
    size_t n_items, nbytes;
    scio_csr csr;
    scio_status status;

    SCIO_TRY(scio_matrix_check_range(matrix, start, stop, err));
    if (!scio_mul_size((size_t)(stop - start), (size_t)matrix->n_cols, &n_items) ||
        !scio_mul_size(n_items, scio_dtype_itemsize(dtype), &nbytes) || nbytes != out_nbytes)
        return scio_fail(err, SCIO_EINVAL,
                         "out has %zu bytes, expected those of (%" PRId64 ", %" PRId64 ") %s",
                         out_nbytes, stop - start, matrix->n_cols, scio_dtype_name(dtype));
    if (n_items == 0)
        return SCIO_OK;
    if (matrix->kind == SCIO_MATRIX_CSR) {
        SCIO_TRY(scio_matrix_read(matrix, start, stop, dtype, max_parallel, cancel, &csr, err));
        const scio_csr_view view = scio_csr_as_view(&csr);
        status = scio_csr_to_dense(&view, out, out_nbytes, err);
        scio_csr_clear(&csr);
    } else if (matrix->is_in_file) {
        const uint64_t first[2] = {(uint64_t)start, 0};
        const uint64_t count[2] = {(uint64_t)(stop - start), (uint64_t)matrix->n_cols};
        const scio_h5_read_options options = {NULL, max_parallel, cancel};
        status = scio_h5_dataset_read(matrix->data_dataset, first, count, dtype, out, out_nbytes,
                                      &options, err);
    } else {
        const size_t row_nbytes = (size_t)matrix->n_cols * scio_dtype_itemsize(matrix->data_dtype);
        const char *const data = scio_buf_data(matrix->data);
        status = scio_cast(matrix->data_dtype, data + (size_t)start * row_nbytes, dtype, out,
                           n_items, err);
        if (status != SCIO_OK)
            scio_context(err, "%s", matrix->name);
    }
    return scio_matrix_blame(matrix, status, err);
}
