/* Matrices of fast-layout files: contiguous arrays are mapped and used where they lie, as if they
 * were in memory.  indptr is read and checked as for any file; column indices are checked row by
 * row when they are touched, since looking at all of them would read the file. */
#include "base/mem.h"
#include "load/matrix_private.h"

#include <inttypes.h>

/* A dataset as memory: contiguous, native, aligned. */
static scio_status
map_dataset(scio_h5_dataset *dataset, scio_buf **out, scio_error *err)
{
    const scio_h5_type *const type = dataset->type;
    const size_t itemsize = scio_dtype_itemsize(type->dtype);
    const scio_h5_unit *units = NULL;
    size_t nbytes;

    if (dataset->layout != SCIO_H5_CONTIGUOUS)
        return scio_fail(err, SCIO_EUNSUPPORTED, "%s is %s; only a contiguous array can be mapped",
                         dataset->path, dataset->layout == SCIO_H5_CHUNKED ? "chunked" : "compact");
    if (type->is_big_endian || type->itemsize != itemsize)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "%s is not stored as native %s; it cannot be mapped", dataset->path,
                         scio_dtype_name(type->dtype));
    if (!scio_mul_size((size_t)dataset->space.n_items, itemsize, &nbytes))
        return scio_fail(err, SCIO_ECORRUPT, "%s has %" PRIu64 " items", dataset->path,
                         dataset->space.n_items);
    if (nbytes == 0)
        return scio_buf_new(0, out, err);
    SCIO_TRY(scio_h5_dataset_units(dataset, &units, err));
    if (units[0].position == SCIO_H5_UNDEFINED || units[0].position % itemsize != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED, "%s %s; it cannot be mapped", dataset->path,
                         units[0].position == SCIO_H5_UNDEFINED ? "was never written"
                                                                : "is not aligned in the file");
    const scio_status status =
        scio_source_map(scio_h5_file_source(dataset->file), units[0].position, nbytes, out, err);
    if (status != SCIO_OK)
        scio_context(err, "%s", dataset->path);
    return status;
}

/* The matrix lives in mapped memory from now on. */
static scio_status
map_arrays(scio_matrix *matrix, scio_error *err)
{
    scio_matrix_state *const state = scio_matrix_private(matrix);
    const scio_dtype dtype = matrix->index_dtype;

    if (matrix->kind == SCIO_MATRIX_CSR && dtype != SCIO_U16 && dtype != SCIO_U32 &&
        dtype != SCIO_I32 && dtype != SCIO_I64)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "%s/indices is %s; uint16, uint32, int32 and int64 can be mapped",
                         matrix->name, scio_dtype_name(dtype));
    SCIO_TRY(map_dataset(matrix->data_dataset, &matrix->data, err));
    if (matrix->kind == SCIO_MATRIX_CSR)
        SCIO_TRY(map_dataset(matrix->indices_dataset, &matrix->indices, err));
    scio_h5_dataset_free(matrix->data_dataset);
    scio_h5_dataset_free(matrix->indices_dataset);
    matrix->data_dataset = matrix->indices_dataset = NULL;
    scio_unit_cache_free(state->cache);
    state->cache = NULL;
    matrix->is_in_file = false;
    matrix->is_mapped = true;
    return SCIO_OK;
}

static scio_status
finish(scio_matrix *matrix, scio_matrix **out, scio_error *err)
{
    const scio_status status = map_arrays(matrix, err);

    if (status != SCIO_OK) {
        (void)scio_matrix_blame(matrix, status, err);
        scio_matrix_release(matrix);
        return status;
    }
    *out = matrix;
    return SCIO_OK;
}

scio_status
scio_matrix_map_sparse(scio_h5_file *file, uint64_t group_address, const char *path, int64_t n_rows,
                       int64_t n_cols, scio_matrix **out, scio_error *err)
{
    scio_matrix *matrix = NULL;

    *out = NULL;
    SCIO_TRY(
        scio_matrix_open_sparse(file, group_address, path, n_rows, n_cols, false, 0, &matrix, err));
    return finish(matrix, out, err);
}

scio_status
scio_matrix_map_dense(scio_h5_file *file, uint64_t address, const char *path, scio_matrix **out,
                      scio_error *err)
{
    scio_matrix *matrix = NULL;

    *out = NULL;
    SCIO_TRY(scio_matrix_open_dense(file, address, path, &matrix, err));
    return finish(matrix, out, err);
}

scio_status
scio_matrix_check_row(const scio_matrix *matrix, int64_t row, scio_error *err)
{
    if (!matrix->is_mapped || matrix->kind != SCIO_MATRIX_CSR)
        return SCIO_OK;
    const int64_t first = matrix->indptr[row];
    const size_t n_items = (size_t)(matrix->indptr[row + 1] - first);
    const char *const indices = scio_buf_data(matrix->indices);
    const scio_status status =
        scio_indices_validate(indices + (size_t)first * scio_dtype_itemsize(matrix->index_dtype),
                              matrix->index_dtype, n_items, matrix->n_cols, first, err);

    return status == SCIO_OK ? status : scio_matrix_index_error(matrix, status, err);
}
