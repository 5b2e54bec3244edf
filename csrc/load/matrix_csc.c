/* A matrix stored by columns is read whole and turned into rows, within the bytes allowed. */
#include "base/mem.h"
#include "load/matrix_private.h"

#include <inttypes.h>
#include <string.h>

/* Reads a whole 1-D dataset into a new buffer of `dtype`. */
static scio_status
read_whole(scio_h5_dataset *dataset, scio_dtype dtype, scio_buf **out, scio_error *err)
{
    const uint64_t start = 0, count = dataset->space.n_items;
    const scio_h5_read_options options = {.max_parallel = SIZE_MAX};
    scio_buf *buf = NULL;
    size_t nbytes;

    if (!scio_mul_size((size_t)count, scio_dtype_itemsize(dtype), &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%s: %" PRIu64 " items", dataset->path, count);
    SCIO_TRY(scio_buf_new(nbytes, &buf, err));
    const scio_status status = scio_h5_dataset_read(dataset, &start, &count, dtype,
                                                    scio_buf_data(buf), nbytes, &options, err);
    if (status != SCIO_OK) {
        scio_buf_release(buf);
        return status;
    }
    *out = buf;
    return SCIO_OK;
}

static scio_status
check_csc_fits(const scio_matrix *matrix, scio_dtype index_dtype, uint64_t max_nbytes,
               scio_error *err)
{
    const uint64_t item =
        scio_dtype_itemsize(matrix->data_dtype) + scio_dtype_itemsize(index_dtype);
    uint64_t needed, pointers, total;
    /* columns and rows are held at once while they are turned round */
    const bool fits_u64 = scio_mul_u64((uint64_t)matrix->nnz, 2 * item, &needed) &&
                          scio_mul_u64((uint64_t)matrix->n_rows + (uint64_t)matrix->n_cols + 2,
                                       2 * sizeof(int64_t), &pointers) &&
                          scio_add_u64(needed, pointers, &total);
    if (!fits_u64 || total > max_nbytes)
        return scio_fail(err, SCIO_EINVAL,
                         "%s is stored by columns (CSC); turning it into rows needs %" PRIu64
                         " bytes of memory, more than the %" PRIu64
                         " allowed: allow more, or store it as CSR",
                         matrix->name, fits_u64 ? total : UINT64_MAX, max_nbytes);
    return SCIO_OK;
}

scio_status
scio_matrix_convert_csc(scio_matrix *matrix, const int64_t *indptr, uint64_t max_nbytes,
                        scio_error *err)
{
    const scio_dtype index_dtype = scio_csr_index_width(
        matrix->n_rows > matrix->n_cols ? matrix->n_rows : matrix->n_cols, matrix->nnz);
    scio_buf *data = NULL, *indices = NULL;
    scio_csr rows;
    scio_status status;

    memset(&rows, 0, sizeof rows);
    status = check_csc_fits(matrix, index_dtype, max_nbytes, err);
    if (status != SCIO_OK)
        goto done;
    status = read_whole(matrix->data_dataset, matrix->data_dtype, &data, err);
    if (status != SCIO_OK)
        goto done;
    status = read_whole(matrix->indices_dataset, index_dtype, &indices, err);
    if (status != SCIO_OK)
        goto done;
    const scio_csr_view columns = {
        matrix->n_cols,         matrix->n_rows, matrix->nnz,         indptr,
        scio_buf_data(indices), index_dtype,    scio_buf_data(data), matrix->data_dtype};
    status = scio_csr_validate(&columns, SCIO_CHECK_FULL, NULL, err);
    if (status == SCIO_OK)
        status = scio_csr_transpose(&columns, &rows, err);
    if (status != SCIO_OK) {
        scio_context(err, "%s", matrix->name);
        goto done;
    }
    const size_t indptr_nbytes = ((size_t)matrix->n_rows + 1) * sizeof(int64_t);
    status = scio_mem_alloc(indptr_nbytes, 1, &matrix->indptr, err);
    if (status != SCIO_OK)
        goto done;
    memcpy(matrix->indptr, scio_buf_data(rows.indptr), indptr_nbytes);
    matrix->index_dtype = rows.index_dtype;
    matrix->data = scio_buf_retain(rows.data);
    matrix->indices = scio_buf_retain(rows.indices);
    matrix->is_in_file = false;
    matrix->was_csc = true;
    scio_h5_dataset_free(matrix->data_dataset);
    scio_h5_dataset_free(matrix->indices_dataset);
    matrix->data_dataset = matrix->indices_dataset = NULL;
done:
    scio_csr_clear(&rows);
    scio_buf_release(data);
    scio_buf_release(indices);
    return status;
}
