/* CSR views and the row gather. */
#include "sparse/csr.h"

#include "base/mem.h"

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
    const scio_csr_view view = {.n_rows = csr->n_rows,
                                .n_cols = csr->n_cols,
                                .nnz = csr->nnz,
                                .indptr = scio_buf_data(csr->indptr),
                                .indices = scio_buf_data(csr->indices),
                                .index_dtype = csr->index_dtype,
                                .data = scio_buf_data(csr->data),
                                .data_dtype = csr->data_dtype};

    return view;
}

scio_dtype
scio_csr_index_width(int64_t n_cols, int64_t nnz)
{
    return n_cols <= INT32_MAX && nnz <= INT32_MAX ? SCIO_I32 : SCIO_I64;
}

/* Count pass: indptr_out[n_rows + 1] of the chosen rows. */
static scio_status
count_rows(const scio_csr_view *csr, const int64_t *rows, size_t n_rows, int64_t *indptr_out,
           scio_error *err)
{
    indptr_out[0] = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const int64_t r = rows[i];

        if (r < 0 || r >= csr->n_rows)
            return scio_fail(err, SCIO_ERANGE, "rows[%zu] is %" PRId64 ", not in [0, %" PRId64 ")",
                             i, r, csr->n_rows);
        if (__builtin_add_overflow(indptr_out[i], csr->indptr[r + 1] - csr->indptr[r],
                                   &indptr_out[i + 1]))
            return scio_fail(err, SCIO_ENOMEM, "the rows hold more than 2^63 values");
    }
    return SCIO_OK;
}

/* Fill pass for one of the two arrays. */
static scio_status
copy_rows(const scio_csr_view *csr, const void *items, size_t itemsize, const int64_t *rows,
          size_t n_rows, const int64_t *indptr, scio_buf **out, scio_error *err)
{
    size_t nbytes;
    char *to;

    if (!scio_mul_size((size_t)indptr[n_rows], itemsize, &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%" PRId64 " values of %zu bytes do not fit in memory",
                         indptr[n_rows], itemsize);
    SCIO_TRY(scio_buf_new(nbytes, out, err));
    to = scio_buf_data(*out);
    for (size_t i = 0; i < n_rows; i++) {
        const size_t n_copied = (size_t)(indptr[i + 1] - indptr[i]) * itemsize;

        if (n_copied == 0)
            continue;
        memcpy(to, (const char *)items + (size_t)csr->indptr[rows[i]] * itemsize, n_copied);
        to += n_copied;
    }
    return SCIO_OK;
}

scio_status
scio_csr_take_rows(const scio_csr_view *csr, const int64_t *rows, size_t n_rows, scio_csr *out,
                   scio_error *err)
{
    scio_csr result = {.n_rows = (int64_t)n_rows,
                       .n_cols = csr->n_cols,
                       .index_dtype = csr->index_dtype,
                       .data_dtype = csr->data_dtype};
    size_t indptr_nbytes;
    scio_status status;
    int64_t *indptr;

    if (!scio_mul_size(n_rows + 1, sizeof *indptr, &indptr_nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%zu rows do not fit in memory", n_rows);
    status = scio_buf_new(indptr_nbytes, &result.indptr, err);
    if (status != SCIO_OK)
        goto done;
    indptr = scio_buf_data(result.indptr);
    status = count_rows(csr, rows, n_rows, indptr, err);
    if (status != SCIO_OK)
        goto done;
    result.nnz = indptr[n_rows];
    status = copy_rows(csr, csr->indices, scio_dtype_itemsize(csr->index_dtype), rows, n_rows,
                       indptr, &result.indices, err);
    if (status == SCIO_OK && csr->data != NULL)
        status = copy_rows(csr, csr->data, scio_dtype_itemsize(csr->data_dtype), rows, n_rows,
                           indptr, &result.data, err);
    if (status != SCIO_OK)
        goto done;
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_csr_clear(&result);
    return status;
}
