/* CSR to CSC and back, to and from dense.  One template instance per data dtype. */
#include "sparse/csr.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

static inline int64_t
column_at(const void *indices, scio_dtype dtype, int64_t i)
{
    switch (dtype) {
    case SCIO_I32:
        return ((const int32_t *)indices)[i];
    case SCIO_I64:
        return ((const int64_t *)indices)[i];
    case SCIO_U32:
        return ((const uint32_t *)indices)[i];
    case SCIO_U16:
        return ((const uint16_t *)indices)[i];
    case SCIO_U8:
        return ((const uint8_t *)indices)[i];
    case SCIO_I16:
        return ((const int16_t *)indices)[i];
    case SCIO_I8:
        return ((const int8_t *)indices)[i];
    default:
        return (int64_t)((const uint64_t *)indices)[i];
    }
}

/* --- transpose: count, then fill; rows are met in order, so the result's rows are sorted --- */

static void
count_columns(const scio_csr_view *csr, int64_t *indptr_out)
{
    memset(indptr_out, 0, ((size_t)csr->n_cols + 1) * sizeof *indptr_out);
    for (int64_t i = 0; i < csr->nnz; i++)
        indptr_out[column_at(csr->indices, csr->index_dtype, i) + 1]++;
    for (int64_t c = 0; c < csr->n_cols; c++)
        indptr_out[c + 1] += indptr_out[c];
}

static void
put_index(void *indices, scio_dtype dtype, int64_t at, int64_t value)
{
    if (dtype == SCIO_I32)
        ((int32_t *)indices)[at] = (int32_t)value;
    else
        ((int64_t *)indices)[at] = value;
}

static void
fill_columns(const scio_csr_view *csr, int64_t *next, scio_dtype index_dtype, void *indices_out,
             char *data_out)
{
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);

    for (int64_t r = 0; r < csr->n_rows; r++) {
        for (int64_t i = csr->indptr[r]; i < csr->indptr[r + 1]; i++) {
            const int64_t to = next[column_at(csr->indices, csr->index_dtype, i)]++;

            put_index(indices_out, index_dtype, to, r);
            memcpy(data_out + (size_t)to * itemsize, (const char *)csr->data + (size_t)i * itemsize,
                   itemsize);
        }
    }
}

scio_status
scio_csr_transpose(const scio_csr_view *csr, scio_csr *out, scio_error *err)
{
    scio_csr result = {.n_rows = csr->n_cols,
                       .n_cols = csr->n_rows,
                       .nnz = csr->nnz,
                       .index_dtype = scio_csr_index_width(csr->n_rows, csr->nnz),
                       .data_dtype = csr->data_dtype};
    const size_t indptr_nbytes = ((size_t)csr->n_cols + 1) * sizeof(int64_t);
    int64_t *next = NULL;
    scio_status status;

    status = scio_buf_new(indptr_nbytes, &result.indptr, err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)csr->nnz * scio_dtype_itemsize(result.index_dtype),
                              &result.indices, err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)csr->nnz * scio_dtype_itemsize(csr->data_dtype), &result.data,
                              err);
    if (status == SCIO_OK)
        status = scio_mem_alloc((size_t)csr->n_cols + 1, sizeof *next, &next, err);
    if (status != SCIO_OK)
        goto done;
    count_columns(csr, scio_buf_data(result.indptr));
    memcpy(next, scio_buf_data(result.indptr), indptr_nbytes);
    fill_columns(csr, next, result.index_dtype, scio_buf_data(result.indices),
                 scio_buf_data(result.data));
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_mem_free(next);
    scio_csr_clear(&result);
    return status;
}

/* --- dense --- */

/* Adds entry i of a row to its place.  Booleans are joined by "or"; float16 is added as float32. */
#define ADD_PLAIN(ctype) ((ctype *)row)[c] = (ctype)(((ctype *)row)[c] + ((const ctype *)data)[i])

static void
add_entry(scio_dtype dtype, void *row, int64_t c, const void *data, int64_t i)
{
    switch (dtype) {
    case SCIO_BOOL:
        ((uint8_t *)row)[c] |= ((const uint8_t *)data)[i];
        break;
    case SCIO_F16:
        ((uint16_t *)row)[c] = scio_f32_to_f16(scio_f16_to_f32(((uint16_t *)row)[c]) +
                                               scio_f16_to_f32(((const uint16_t *)data)[i]));
        break;
    case SCIO_I8:
        ((uint8_t *)row)[c] = (uint8_t)(((uint8_t *)row)[c] + ((const uint8_t *)data)[i]);
        break;
    case SCIO_I16:
        ((uint16_t *)row)[c] = (uint16_t)(((uint16_t *)row)[c] + ((const uint16_t *)data)[i]);
        break;
    case SCIO_I32:
        ((uint32_t *)row)[c] += ((const uint32_t *)data)[i];
        break;
    case SCIO_I64:
        ((uint64_t *)row)[c] += ((const uint64_t *)data)[i];
        break;
    case SCIO_U8:
        ADD_PLAIN(uint8_t);
        break;
    case SCIO_U16:
        ADD_PLAIN(uint16_t);
        break;
    case SCIO_U32:
        ADD_PLAIN(uint32_t);
        break;
    case SCIO_U64:
        ADD_PLAIN(uint64_t);
        break;
    case SCIO_F32:
        ADD_PLAIN(float);
        break;
    case SCIO_F64:
        ADD_PLAIN(double);
        break;
    default:
        break;
    }
}

scio_status
scio_csr_to_dense(const scio_csr_view *csr, void *out, size_t out_nbytes, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    size_t n_items, nbytes;

    if (!scio_mul_size((size_t)csr->n_rows, (size_t)csr->n_cols, &n_items) ||
        !scio_mul_size(n_items, itemsize, &nbytes) || nbytes != out_nbytes)
        return scio_fail(err, SCIO_EINVAL, "the dense matrix does not have %zu bytes", out_nbytes);
    memset(out, 0, out_nbytes);
    for (int64_t r = 0; r < csr->n_rows; r++) {
        char *const row = (char *)out + (size_t)r * (size_t)csr->n_cols * itemsize;

        for (int64_t i = csr->indptr[r]; i < csr->indptr[r + 1]; i++)
            add_entry(csr->data_dtype, row, column_at(csr->indices, csr->index_dtype, i), csr->data, i);
    }
    return SCIO_OK;
}

/* True unless the value is zero; -0.0 is zero, NaN is not. */
static inline bool
is_stored(scio_dtype dtype, const char *value)
{
    switch (dtype) {
    case SCIO_F16: {
        uint16_t bits;
        memcpy(&bits, value, sizeof bits);
        return (bits & 0x7FFFu) != 0;
    }
    case SCIO_F32: {
        float x;
        memcpy(&x, value, sizeof x);
        return x != 0;
    }
    case SCIO_F64: {
        double x;
        memcpy(&x, value, sizeof x);
        return x != 0;
    }
    default: {
        uint64_t bits = 0;
        memcpy(&bits, value, scio_dtype_itemsize(dtype));
        return bits != 0;
    }
    }
}

static int64_t
count_stored(const char *dense, scio_dtype dtype, int64_t n_rows, int64_t n_cols, int64_t *indptr)
{
    const size_t itemsize = scio_dtype_itemsize(dtype);

    indptr[0] = 0;
    for (int64_t r = 0; r < n_rows; r++) {
        int64_t n_stored = 0;

        for (int64_t c = 0; c < n_cols; c++, dense += itemsize)
            n_stored += is_stored(dtype, dense);
        indptr[r + 1] = indptr[r] + n_stored;
    }
    return indptr[n_rows];
}

scio_status
scio_csr_from_dense(const void *dense, scio_dtype dtype, int64_t n_rows, int64_t n_cols, scio_csr *out,
                    scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(dtype);
    scio_csr result = {.n_rows = n_rows, .n_cols = n_cols, .data_dtype = dtype};
    const char *value = dense;
    scio_status status;
    char *data;
    int64_t at = 0;

    if (dtype == SCIO_DTYPE_NONE || n_rows < 0 || n_cols < 0)
        return scio_fail(err, SCIO_EINVAL, "a dense matrix needs a numeric type and sizes >= 0");
    status = scio_buf_new(((size_t)n_rows + 1) * sizeof(int64_t), &result.indptr, err);
    if (status != SCIO_OK)
        goto done;
    result.nnz = count_stored(dense, dtype, n_rows, n_cols, scio_buf_data(result.indptr));
    result.index_dtype = scio_csr_index_width(n_cols, result.nnz);
    status = scio_buf_new((size_t)result.nnz * scio_dtype_itemsize(result.index_dtype), &result.indices,
                          err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)result.nnz * itemsize, &result.data, err);
    if (status != SCIO_OK)
        goto done;
    data = scio_buf_data(result.data);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t c = 0; c < n_cols; c++, value += itemsize) {
            if (!is_stored(dtype, value))
                continue;
            put_index(scio_buf_data(result.indices), result.index_dtype, at, c);
            memcpy(data + (size_t)at * itemsize, value, itemsize);
            at++;
        }
    }
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_csr_clear(&result);
    return status;
}
