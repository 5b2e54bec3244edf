/* Opening matrices: what is claimed is checked here once, so that readers can trust indptr, lengths
 * and dtypes; column indices are checked where they are decoded. */
#include "load/matrix.h"

#include "base/mem.h"
#include "h5read/object.h"
#include "load/matrix_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CACHE_NBYTES = 32 << 20 };

/* "pbmc3k.h5ad: /X": the last part of the file's path says enough. */
static scio_status
make_name(const scio_h5_file *file, const char *path, char **out, scio_error *err)
{
    const char *source_name = scio_source_name(scio_h5_file_source(file));
    const char *slash = strrchr(source_name, '/');
    const char *base = slash != NULL ? slash + 1 : source_name;
    const size_t n_base = strlen(base), n_path = strlen(path);
    char *name = NULL;

    SCIO_TRY(scio_mem_alloc(n_base + n_path + 3, 1, &name, err));
    memcpy(name, base, n_base);
    memcpy(name + n_base, ": ", 2);
    memcpy(name + n_base + 2, path, n_path + 1);
    *out = name;
    return SCIO_OK;
}

static scio_status
matrix_new(int64_t n_rows, int64_t n_cols, scio_matrix_kind kind, bool is_in_file,
           scio_matrix **out, scio_error *err)
{
    scio_matrix *matrix = NULL;
    scio_matrix_state *state = NULL;
    scio_status status;

    *out = NULL;
    if (n_rows < 0 || n_cols < 0)
        return scio_fail(err, SCIO_EINVAL,
                         "shape (%" PRId64 ", %" PRId64 "): both must be 0 or more", n_rows,
                         n_cols);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *matrix, &matrix, err));
    status = scio_mem_zalloc(1, sizeof *state, &state, err);
    if (status == SCIO_OK && is_in_file)
        status = scio_unit_cache_new(CACHE_NBYTES, &state->cache, err);
    if (status != SCIO_OK) {
        scio_mem_free(state);
        scio_mem_free(matrix);
        return status;
    }
    atomic_init(&state->n_refs, 1);
    matrix->n_rows = n_rows;
    matrix->n_cols = n_cols;
    matrix->kind = kind;
    matrix->is_in_file = is_in_file;
    matrix->private_state = state;
    *out = matrix;
    return SCIO_OK;
}

scio_matrix *
scio_matrix_retain(scio_matrix *matrix)
{
    if (matrix != NULL)
        atomic_fetch_add_explicit(&scio_matrix_private(matrix)->n_refs, 1, memory_order_relaxed);
    return matrix;
}

void
scio_matrix_release(scio_matrix *matrix)
{
    if (matrix == NULL)
        return;
    scio_matrix_state *const state = scio_matrix_private(matrix);
    if (atomic_fetch_sub_explicit(&state->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    scio_unit_cache_free(state->cache);
    scio_mem_free(state);
    scio_h5_dataset_free(matrix->data_dataset);
    scio_h5_dataset_free(matrix->indices_dataset);
    scio_buf_release(matrix->data);
    scio_buf_release(matrix->indices);
    scio_mem_free(matrix->indptr);
    scio_mem_free(matrix->name);
    scio_mem_free(matrix);
}

size_t
scio_matrix_nbytes(const scio_matrix *matrix)
{
    const scio_matrix_state *const state = scio_matrix_private(matrix);
    size_t nbytes = sizeof *matrix + sizeof *state;

    if (matrix->indptr != NULL)
        nbytes += ((size_t)matrix->n_rows + 1) * sizeof(int64_t);
    if (!matrix->is_mapped)
        nbytes += scio_buf_nbytes(matrix->data) + scio_buf_nbytes(matrix->indices);
    if (state->cache != NULL)
        nbytes += scio_unit_cache_nbytes(state->cache);
    return nbytes;
}

size_t
scio_matrix_limit_cache(scio_matrix *matrix, uint64_t nbytes)
{
    scio_unit_cache *const cache = scio_matrix_private(matrix)->cache;
    const size_t cap_nbytes = nbytes < CACHE_NBYTES ? (size_t)nbytes : CACHE_NBYTES;

    if (cache == NULL)
        return 0;
    scio_unit_cache_limit(cache, cap_nbytes);
    return cap_nbytes;
}

scio_status
scio_matrix_blame(const scio_matrix *matrix, scio_status status, scio_error *err)
{
    const char *const end = strstr(matrix->name, ": ");
    const int n_name = (int)(end != NULL ? (size_t)(end - matrix->name) : strlen(matrix->name));
    char file[128];

    if (status == SCIO_OK || err == NULL || status == SCIO_ECANCEL)
        return status;
    (void)snprintf(file, sizeof file, "%.*s", n_name, matrix->name);
    if (strstr(err->message, file) == NULL)
        scio_context(err, "%s", file);
    return status;
}

/* One 1-D member of a sparse group. */
static scio_status
open_member(scio_h5_file *file, uint64_t group_address, const char *path, const char *member,
            bool is_integer, scio_h5_dataset **out, scio_error *err)
{
    scio_h5_dataset *dataset = NULL;
    char *full = NULL;
    uint64_t address;
    const size_t n_path = strlen(path), n_member = strlen(member);
    scio_status status;

    SCIO_TRY(scio_mem_alloc(n_path + n_member + 2, 1, &full, err));
    memcpy(full, path, n_path);
    full[n_path] = '/';
    memcpy(full + n_path + 1, member, n_member + 1);
    status = scio_h5_resolve(file, group_address, member, &address, err);
    if (status != SCIO_OK) {
        scio_context(err, "%s", path);
        goto done;
    }
    status = scio_h5_dataset_open(file, address, full, &dataset, err);
    if (status != SCIO_OK)
        goto done;
    const scio_h5_space *const space = &dataset->space;
    const char kind = scio_dtype_kind(dataset->type->dtype);
    if (space->space_class != SCIO_H5_SIMPLE || space->rank != 1)
        status = scio_fail(err, SCIO_ECORRUPT, "%s has rank %u, expected 1", full, space->rank);
    else if (dataset->type->dtype == SCIO_DTYPE_NONE)
        status = scio_fail(err, SCIO_EUNSUPPORTED, "%s holds no numbers (HDF5 class %d%s%s)", full,
                           (int)dataset->type->type_class,
                           dataset->type->unsupported[0] != '\0' ? ": " : "",
                           dataset->type->unsupported);
    else if (is_integer && kind != 'i' && kind != 'u')
        status = scio_fail(err, SCIO_ECORRUPT, "%s has dtype %s, expected integers", full,
                           scio_dtype_name(dataset->type->dtype));
    if (status != SCIO_OK)
        goto done;
    *out = dataset;
    dataset = NULL;
done:
    scio_h5_dataset_free(dataset);
    scio_mem_free(full);
    return status;
}

/* indptr of n_major + 1 entries, read and checked against the length of data. */
static scio_status
read_indptr(scio_h5_dataset *dataset, int64_t n_major, bool is_csc, int64_t nnz, int64_t **out,
            scio_error *err)
{
    const uint64_t n_entries = dataset->space.n_items, start = 0;
    int64_t *indptr = NULL;
    scio_status status;

    if (n_entries != (uint64_t)n_major + 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s has %" PRIu64 " entries, expected %" PRIu64 " (%s + 1)", dataset->path,
                         n_entries, (uint64_t)n_major + 1, is_csc ? "n_cols" : "n_rows");
    SCIO_TRY(scio_mem_alloc((size_t)n_entries, sizeof *indptr, &indptr, err));
    const scio_h5_read_options options = {.max_parallel = SIZE_MAX};
    status = scio_h5_dataset_read(dataset, &start, &n_entries, SCIO_I64, indptr,
                                  (size_t)n_entries * sizeof *indptr, &options, err);
    if (status == SCIO_OK) {
        status = scio_indptr_validate(indptr, n_major, nnz, err);
        if (status != SCIO_OK)
            scio_context(err, "%s", dataset->path);
    }
    if (status != SCIO_OK) {
        scio_mem_free(indptr);
        return status;
    }
    *out = indptr;
    return SCIO_OK;
}

scio_status
scio_matrix_open_sparse(scio_h5_file *file, uint64_t group_address, const char *path,
                        int64_t n_rows, int64_t n_cols, bool is_csc, uint64_t max_nbytes,
                        scio_matrix **out, scio_error *err)
{
    scio_matrix *matrix = NULL;
    scio_h5_dataset *indptr_dataset = NULL;
    int64_t *indptr = NULL;
    scio_status status;

    *out = NULL;
    status = matrix_new(n_rows, n_cols, SCIO_MATRIX_CSR, true, &matrix, err);
    if (status != SCIO_OK)
        goto done;
    status = make_name(file, path, &matrix->name, err);
    if (status != SCIO_OK)
        goto done;
    status = open_member(file, group_address, path, "data", false, &matrix->data_dataset, err);
    if (status != SCIO_OK)
        goto done;
    status = open_member(file, group_address, path, "indices", true, &matrix->indices_dataset, err);
    if (status != SCIO_OK)
        goto done;
    status = open_member(file, group_address, path, "indptr", true, &indptr_dataset, err);
    if (status != SCIO_OK)
        goto done;
    const uint64_t n_data = matrix->data_dataset->space.n_items;
    const uint64_t n_indices = matrix->indices_dataset->space.n_items;
    if (n_data != n_indices) {
        status = scio_fail(err, SCIO_ECORRUPT,
                           "%s/data has %" PRIu64 " items and %s/indices has %" PRIu64
                           ", expected the same number",
                           path, n_data, path, n_indices);
        goto done;
    }
    matrix->nnz = (int64_t)n_data;
    matrix->data_dtype = matrix->data_dataset->type->dtype;
    matrix->index_dtype = matrix->indices_dataset->type->dtype;
    status =
        read_indptr(indptr_dataset, is_csc ? n_cols : n_rows, is_csc, matrix->nnz, &indptr, err);
    if (status != SCIO_OK)
        goto done;
    if (is_csc) {
        status = scio_matrix_convert_csc(matrix, indptr, max_nbytes, err);
        if (status != SCIO_OK)
            goto done;
    } else {
        matrix->indptr = indptr;
        indptr = NULL;
    }
    *out = matrix;
    matrix = NULL;
done:
    if (status != SCIO_OK && matrix != NULL && matrix->name != NULL && err != NULL &&
        strstr(err->message, matrix->name) == NULL)
        scio_context(err, "%s", matrix->name);
    scio_mem_free(indptr);
    scio_h5_dataset_free(indptr_dataset);
    scio_matrix_release(matrix);
    return status;
}

scio_status
scio_matrix_open_dense(scio_h5_file *file, uint64_t address, const char *path, scio_matrix **out,
                       scio_error *err)
{
    scio_matrix *matrix = NULL;
    scio_h5_dataset *dataset = NULL;
    scio_status status;

    *out = NULL;
    status = scio_h5_dataset_open(file, address, path, &dataset, err);
    if (status != SCIO_OK)
        goto done;
    if (dataset->space.space_class != SCIO_H5_SIMPLE || dataset->space.rank != 2) {
        status = scio_fail(err, SCIO_ECORRUPT, "%s has rank %u, expected 2 (cells, genes)", path,
                           dataset->space.rank);
        goto done;
    }
    if (dataset->type->dtype == SCIO_DTYPE_NONE) {
        status = scio_fail(err, SCIO_EUNSUPPORTED, "%s holds no numbers (HDF5 class %d%s%s)", path,
                           (int)dataset->type->type_class,
                           dataset->type->unsupported[0] != '\0' ? ": " : "",
                           dataset->type->unsupported);
        goto done;
    }
    status = matrix_new((int64_t)dataset->space.dims[0], (int64_t)dataset->space.dims[1],
                        SCIO_MATRIX_DENSE, true, &matrix, err);
    if (status != SCIO_OK)
        goto done;
    status = make_name(file, path, &matrix->name, err);
    if (status != SCIO_OK)
        goto done;
    matrix->nnz = (int64_t)dataset->space.n_items;
    matrix->data_dtype = dataset->type->dtype;
    matrix->data_dataset = dataset;
    dataset = NULL;
    *out = matrix;
    matrix = NULL;
done:
    scio_h5_dataset_free(dataset);
    scio_matrix_release(matrix);
    return status;
}

/* Collation reads U16, U32, I32 and I64 columns where they lie; others are widened once. */
static scio_status
keep_indices(scio_matrix *matrix, scio_buf *indices, scio_dtype dtype, scio_error *err)
{
    scio_buf *wide = NULL;

    if (dtype == SCIO_U16 || dtype == SCIO_U32 || dtype == SCIO_I32 || dtype == SCIO_I64) {
        matrix->indices = scio_buf_retain(indices);
        matrix->index_dtype = dtype;
        return SCIO_OK;
    }
    matrix->index_dtype = scio_csr_index_width(matrix->n_cols, matrix->nnz);
    SCIO_TRY(
        scio_buf_new((size_t)matrix->nnz * scio_dtype_itemsize(matrix->index_dtype), &wide, err));
    const scio_status status = scio_cast(dtype, scio_buf_data(indices), matrix->index_dtype,
                                         scio_buf_data(wide), (size_t)matrix->nnz, err);
    if (status != SCIO_OK) {
        scio_buf_release(wide);
        return status;
    }
    matrix->indices = wide;
    return SCIO_OK;
}

scio_status
scio_matrix_from_csr(const char *name, int64_t n_rows, int64_t n_cols, scio_buf *indptr_i64,
                     scio_buf *indices, scio_dtype index_dtype, scio_buf *data,
                     scio_dtype data_dtype, scio_matrix **out, scio_error *err)
{
    scio_matrix *matrix = NULL;
    const size_t index_itemsize = scio_dtype_itemsize(index_dtype);
    const size_t data_itemsize = scio_dtype_itemsize(data_dtype);
    scio_status status;

    *out = NULL;
    status = matrix_new(n_rows, n_cols, SCIO_MATRIX_CSR, false, &matrix, err);
    if (status != SCIO_OK)
        goto done;
    if (index_itemsize == 0 || data_itemsize == 0) {
        status = scio_fail(err, SCIO_ETYPE, "dtype of %s is not a number",
                           data_itemsize == 0 ? "data" : "indices");
        goto done;
    }
    const size_t nnz = scio_buf_nbytes(indices) / index_itemsize;
    if (scio_buf_nbytes(indptr_i64) != ((size_t)n_rows + 1) * sizeof(int64_t)) {
        status =
            scio_fail(err, SCIO_EINVAL, "indptr has %zu entries, expected %" PRId64 " (n_rows + 1)",
                      scio_buf_nbytes(indptr_i64) / sizeof(int64_t), n_rows + 1);
        goto done;
    }
    if (scio_buf_nbytes(indices) % index_itemsize != 0 ||
        scio_buf_nbytes(data) != nnz * data_itemsize) {
        status = scio_fail(err, SCIO_EINVAL,
                           "data has %zu items and indices has %zu, expected the same number",
                           scio_buf_nbytes(data) / data_itemsize, nnz);
        goto done;
    }
    const scio_csr_view view = {n_rows,
                                n_cols,
                                (int64_t)nnz,
                                scio_buf_data(indptr_i64),
                                scio_buf_data(indices),
                                index_dtype,
                                scio_buf_data(data),
                                data_dtype};
    status = scio_csr_validate(&view, SCIO_CHECK_FULL, NULL, err);
    if (status != SCIO_OK)
        goto done;
    matrix->nnz = (int64_t)nnz;
    matrix->data_dtype = data_dtype;
    status = scio_mem_strndup(name, strlen(name), &matrix->name, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_mem_alloc((size_t)n_rows + 1, sizeof(int64_t), &matrix->indptr, err);
    if (status != SCIO_OK)
        goto done;
    memcpy(matrix->indptr, view.indptr, ((size_t)n_rows + 1) * sizeof(int64_t));
    status = keep_indices(matrix, indices, index_dtype, err);
    if (status != SCIO_OK)
        goto done;
    matrix->data = scio_buf_retain(data);
    *out = matrix;
    matrix = NULL;
done:
    if (status != SCIO_OK)
        scio_context(err, "%s", name);
    scio_matrix_release(matrix);
    return status;
}

scio_status
scio_matrix_from_dense(const char *name, int64_t n_rows, int64_t n_cols, scio_buf *data,
                       scio_dtype data_dtype, scio_matrix **out, scio_error *err)
{
    scio_matrix *matrix = NULL;
    const size_t itemsize = scio_dtype_itemsize(data_dtype);
    size_t n_items, nbytes;
    scio_status status;

    *out = NULL;
    status = matrix_new(n_rows, n_cols, SCIO_MATRIX_DENSE, false, &matrix, err);
    if (status != SCIO_OK)
        goto done;
    if (itemsize == 0) {
        status = scio_fail(err, SCIO_ETYPE, "dtype of data is not a number");
        goto done;
    }
    if (!scio_mul_size((size_t)n_rows, (size_t)n_cols, &n_items) ||
        !scio_mul_size(n_items, itemsize, &nbytes) || nbytes != scio_buf_nbytes(data)) {
        status = scio_fail(err, SCIO_EINVAL,
                           "data has %zu items, expected n_rows * n_cols = %" PRId64 " * %" PRId64,
                           scio_buf_nbytes(data) / itemsize, n_rows, n_cols);
        goto done;
    }
    matrix->nnz = (int64_t)n_items;
    matrix->data_dtype = data_dtype;
    status = scio_mem_strndup(name, strlen(name), &matrix->name, err);
    if (status != SCIO_OK)
        goto done;
    matrix->data = scio_buf_retain(data);
    *out = matrix;
    matrix = NULL;
done:
    if (status != SCIO_OK)
        scio_context(err, "%s", name);
    scio_matrix_release(matrix);
    return status;
}
