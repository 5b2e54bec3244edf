/* CSR views and the row gather. */
#include "sparse/csr.h"

#include <inttypes.h>
#include <string.h>

void
scio_csr_clear(scio_csr *csr)
{
    scio_buf_release(csr->indptr);
    scio_buf_release(csr->indices);
    scio_buf_release(csr->data);
    memset(csr, 0, sizeof *csr);
}

scio_csr_view
scio_csr_as_view(const scio_csr *csr)
{
    const scio_csr_view view = {csr->n_rows,
                                csr->n_cols,
                                csr->nnz,
                                scio_buf_data(csr->indptr),
                                scio_buf_data(csr->indices),
                                csr->index_dtype,
                                scio_buf_data(csr->data),
                                csr->data_dtype};

    return view;
}

scio_dtype
scio_csr_index_width(int64_t n_cols, int64_t nnz)
{
    return n_cols <= INT32_MAX && nnz <= INT32_MAX ? SCIO_I32 : SCIO_I64;
}

/* First pass: lengths of the chosen rows. */
static scio_status
count_rows(const scio_csr_view *csr, const int64_t *rows, size_t n_rows, int64_t *indptr,
           scio_error *err)
{
    indptr[0] = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const int64_t r = rows[i];

        if (r < 0 || r >= csr->n_rows)
            return scio_fail(err, SCIO_ERANGE, "row %" PRId64 " does not exist: there are %" PRId64, r,
                             csr->n_rows);
        if (__builtin_add_overflow(indptr[i], csr->indptr[r + 1] - csr->indptr[r], &indptr[i + 1]))
            return scio_fail(err, SCIO_ENOMEM, "the rows hold more than 2^63 values");
    }
    return SCIO_OK;
}

static void
fill_rows(const scio_csr_view *csr, const int64_t *rows, size_t n_rows, const int64_t *indptr,
          char *indices_out, char *data_out)
{
    const size_t index_nbytes = scio_dtype_itemsize(csr->index_dtype);
    const size_t data_nbytes = scio_dtype_itemsize(csr->data_dtype);

    for (size_t i = 0; i < n_rows; i++) {
        const size_t from = (size_t)csr->indptr[rows[i]], to = (size_t)indptr[i];
        const size_t n_items = (size_t)(indptr[i + 1] - indptr[i]);

        if (n_items == 0)
            continue;
        memcpy(indices_out + to * index_nbytes, (const char *)csr->indices + from * index_nbytes,
               n_items * index_nbytes);
        memcpy(data_out + to * data_nbytes, (const char *)csr->data + from * data_nbytes,
               n_items * data_nbytes);
    }
}

scio_status
scio_csr_take_rows(const scio_csr_view *csr, const int64_t *rows, size_t n_rows, scio_csr *out,
                   scio_error *err)
{
    scio_csr result = {.n_rows = (int64_t)n_rows,
                       .n_cols = csr->n_cols,
                       .index_dtype = csr->index_dtype,
                       .data_dtype = csr->data_dtype};
    scio_status status;
    int64_t *indptr;

    status = scio_buf_new((n_rows + 1) * sizeof(int64_t), &result.indptr, err);
    if (status != SCIO_OK)
        goto done;
    indptr = scio_buf_data(result.indptr);
    status = count_rows(csr, rows, n_rows, indptr, err);
    if (status != SCIO_OK)
        goto done;
    result.nnz = indptr[n_rows];
    status = scio_buf_new((size_t)result.nnz * scio_dtype_itemsize(csr->index_dtype), &result.indices,
                          err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)result.nnz * scio_dtype_itemsize(csr->data_dtype), &result.data,
                              err);
    if (status != SCIO_OK)
        goto done;
    fill_rows(csr, rows, n_rows, indptr, scio_buf_data(result.indices), scio_buf_data(result.data));
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_csr_clear(&result);
    return status;
}
