/* CSR to CSC and back, to and from dense.
 *
 * Indices come in eight dtypes and values in twelve.  Instead of a loop for each of the 96 pairs, a
 * stretch of a row's indices is widened to int64 first, by the casts of base/dtype, and each loop
 * then knows the type of the values only. */
#include "sparse/csr.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

/* Indices widened at a time: 2 KiB of the stack. */
enum { STRETCH = 256 };

/* Columns of the stored entries [start, start + n_items), n_items <= STRETCH. */
static scio_status
load_columns(const scio_csr_view *csr, int64_t start, size_t n_items, int64_t *columns_out,
             scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(csr->index_dtype);

    return scio_cast(csr->index_dtype, (const char *)csr->indices + (size_t)start * itemsize,
                     SCIO_I64, columns_out, n_items, err);
}

static size_t
stretch_at(int64_t start, int64_t end)
{
    return end - start < STRETCH ? (size_t)(end - start) : (size_t)STRETCH;
}

/* --- transpose: count, then fill; rows are met in order, so those of the result are sorted --- */

/* indptr_out[n_cols + 1] of the transpose. */
static scio_status
count_columns(const scio_csr_view *csr, int64_t *indptr_out, scio_error *err)
{
    int64_t columns[STRETCH];

    memset(indptr_out, 0, ((size_t)csr->n_cols + 1) * sizeof *indptr_out);
    for (int64_t start = 0; start < csr->nnz; start += STRETCH) {
        const size_t n_items = stretch_at(start, csr->nnz);

        SCIO_TRY(load_columns(csr, start, n_items, columns, err));
        for (size_t i = 0; i < n_items; i++)
            indptr_out[columns[i] + 1]++;
    }
    for (int64_t c = 0; c < csr->n_cols; c++)
        indptr_out[c + 1] += indptr_out[c];
    return SCIO_OK;
}

/* Where the entries of a row go. */
typedef struct scatter {
    int64_t *next; /* [n_cols] first free place of each column */
    void *indices; /* int32 or int64 */
    char *data;    /* NULL: there is none */
} scatter;

/* X(bytes of an index, bytes of a value); a constant size makes memcpy one move. */
#define SCATTER_LIST(X)                                                                            \
    X(4, 0) X(4, 1) X(4, 2) X(4, 4) X(4, 8) X(8, 0) X(8, 1) X(8, 2) X(8, 4) X(8, 8)

#define DEFINE_SCATTER(index_nbytes, nbytes)                                                       \
    static void scatter_##index_nbytes##_##nbytes(const scatter *to, int64_t row,                  \
                                                  const int64_t *columns, const char *values,      \
                                                  size_t n_items)                                  \
    {                                                                                              \
        for (size_t i = 0; i < n_items; i++) {                                                     \
            const size_t at = (size_t)to->next[columns[i]]++;                                      \
                                                                                                   \
            if (index_nbytes == 4)                                                                 \
                ((int32_t *)to->indices)[at] = (int32_t)row;                                       \
            else                                                                                   \
                ((int64_t *)to->indices)[at] = row;                                                \
            if (nbytes > 0)                                                                        \
                memcpy(to->data + at * (nbytes), values + i * (nbytes), (nbytes));                 \
        }                                                                                          \
    }
SCATTER_LIST(DEFINE_SCATTER)
#undef DEFINE_SCATTER

typedef void (*scatter_fn)(const scatter *to, int64_t row, const int64_t *columns,
                           const char *values, size_t n_items);

static scatter_fn
find_scatter(size_t index_nbytes, size_t nbytes)
{
#define FIND_SCATTER(i, n)                                                                         \
    if (index_nbytes == (i) && nbytes == (n))                                                      \
        return scatter_##i##_##n;
    SCATTER_LIST(FIND_SCATTER)
#undef FIND_SCATTER
    return NULL;
}

static scio_status
fill_columns(const scio_csr_view *csr, const scatter *to, size_t index_nbytes, scio_error *err)
{
    const size_t nbytes = csr->data == NULL ? 0 : scio_dtype_itemsize(csr->data_dtype);
    const scatter_fn put = find_scatter(index_nbytes, nbytes);
    int64_t columns[STRETCH];

    SCIO_BUG_IF(put == NULL, err);
    for (int64_t row = 0; row < csr->n_rows; row++) {
        const int64_t end = csr->indptr[row + 1];

        for (int64_t start = csr->indptr[row]; start < end; start += STRETCH) {
            const size_t n_items = stretch_at(start, end);
            const char *const values =
                nbytes == 0 ? NULL : (const char *)csr->data + (size_t)start * nbytes;

            SCIO_TRY(load_columns(csr, start, n_items, columns, err));
            put(to, row, columns, values, n_items);
        }
    }
    return SCIO_OK;
}

/* Buffers for a matrix of result->nnz entries with the dtypes that it names. */
static scio_status
new_entries(scio_csr *result, bool has_data, scio_error *err)
{
    size_t nbytes;

    if (!scio_mul_size((size_t)result->nnz, scio_dtype_itemsize(result->index_dtype), &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%" PRId64 " indices do not fit in memory", result->nnz);
    SCIO_TRY(scio_buf_new(nbytes, &result->indices, err));
    if (!has_data)
        return SCIO_OK;
    if (!scio_mul_size((size_t)result->nnz, scio_dtype_itemsize(result->data_dtype), &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%" PRId64 " values do not fit in memory", result->nnz);
    return scio_buf_new(nbytes, &result->data, err);
}

static scio_status
new_indptr(int64_t n_rows, scio_buf **out, scio_error *err)
{
    size_t nbytes;

    if (!scio_mul_size((size_t)n_rows + 1, sizeof(int64_t), &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%" PRId64 " rows do not fit in memory", n_rows);
    return scio_buf_new(nbytes, out, err);
}

scio_status
scio_csr_transpose(const scio_csr_view *csr, scio_csr *out, scio_error *err)
{
    scio_csr result = {.n_rows = csr->n_cols,
                       .n_cols = csr->n_rows,
                       .nnz = csr->nnz,
                       .index_dtype = scio_csr_index_width(csr->n_rows, csr->nnz),
                       .data_dtype = csr->data_dtype};
    scatter to = {NULL, NULL, NULL};
    scio_status status;

    status = new_indptr(csr->n_cols, &result.indptr, err);
    if (status == SCIO_OK)
        status = new_entries(&result, csr->data != NULL, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc((size_t)csr->n_cols + 1, sizeof *to.next, &to.next, err);
    if (status == SCIO_OK)
        status = count_columns(csr, scio_buf_data(result.indptr), err);
    if (status != SCIO_OK)
        goto done;
    memcpy(to.next, scio_buf_data(result.indptr), scio_buf_nbytes(result.indptr));
    to.indices = scio_buf_data(result.indices);
    to.data = scio_buf_data(result.data);
    status = fill_columns(csr, &to, scio_dtype_itemsize(result.index_dtype), err);
    if (status != SCIO_OK)
        goto done;
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_mem_free(to.next);
    scio_csr_clear(&result);
    return status;
}

/* --- to dense --- */

/* What an entry does to its place.  The place holds 0 before the first one, which is then stored
 * with its bits; booleans are joined by "or", integers wrap around, float16 is added as float32. */
#define JOIN_BOOL(x, y) ((uint8_t)((x) | (y)))
#define JOIN_I8(x, y) ((int8_t)(uint8_t)((uint8_t)(x) + (uint8_t)(y)))
#define JOIN_I16(x, y) ((int16_t)(uint16_t)((uint16_t)(x) + (uint16_t)(y)))
#define JOIN_I32(x, y) ((int32_t)((uint32_t)(x) + (uint32_t)(y)))
#define JOIN_I64(x, y) ((int64_t)((uint64_t)(x) + (uint64_t)(y)))
#define JOIN_U8(x, y) ((uint8_t)((x) + (y)))
#define JOIN_U16(x, y) ((uint16_t)((x) + (y)))
#define JOIN_U32(x, y) ((x) + (y))
#define JOIN_U64(x, y) ((x) + (y))
#define JOIN_F16(x, y) scio_f32_to_f16(scio_f16_to_f32(x) + scio_f16_to_f32(y))
#define JOIN_F32(x, y) ((x) + (y))
#define JOIN_F64(x, y) ((x) + (y))

#define DEFINE_ADD(name, ctype, kind, text)                                                        \
    static void add_##name(char *row, const int64_t *columns, const char *values, size_t n_items)  \
    {                                                                                              \
        for (size_t i = 0; i < n_items; i++) {                                                     \
            char *const place = row + (size_t)columns[i] * sizeof(ctype);                          \
            ctype x, y;                                                                            \
                                                                                                   \
            memcpy(&x, place, sizeof x);                                                           \
            memcpy(&y, values + i * sizeof y, sizeof y);                                           \
            x = x == 0 ? y : JOIN_##name(x, y);                                                    \
            memcpy(place, &x, sizeof x);                                                           \
        }                                                                                          \
    }
SCIO_DTYPE_LIST(DEFINE_ADD)
#undef DEFINE_ADD

typedef void (*add_fn)(char *row, const int64_t *columns, const char *values, size_t n_items);

static const add_fn adds[SCIO_N_DTYPES] = {
#define NAME_ADD(name, ctype, kind, text) [SCIO_##name] = add_##name,
    SCIO_DTYPE_LIST(NAME_ADD)
#undef NAME_ADD
};

scio_status
scio_csr_to_dense(const scio_csr_view *csr, void *out, size_t out_nbytes, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    int64_t columns[STRETCH];
    size_t n_items, nbytes;

    if (itemsize == 0)
        return scio_fail(err, SCIO_ETYPE, "a matrix without numeric values has no dense form");
    if (!scio_mul_size((size_t)csr->n_rows, (size_t)csr->n_cols, &n_items) ||
        !scio_mul_size(n_items, itemsize, &nbytes) || nbytes != out_nbytes)
        return scio_fail(err, SCIO_EINVAL,
                         "%zu bytes for a dense matrix of %" PRId64 " x %" PRId64
                         " values of %zu bytes",
                         out_nbytes, csr->n_rows, csr->n_cols, itemsize);
    if (nbytes == 0)
        return SCIO_OK;
    memset(out, 0, nbytes);
    for (int64_t r = 0; r < csr->n_rows; r++) {
        char *const row = (char *)out + (size_t)r * (size_t)csr->n_cols * itemsize;
        const int64_t end = csr->indptr[r + 1];

        for (int64_t start = csr->indptr[r]; start < end; start += STRETCH) {
            n_items = stretch_at(start, end);
            SCIO_TRY(load_columns(csr, start, n_items, columns, err));
            adds[csr->data_dtype](row, columns, (const char *)csr->data + (size_t)start * itemsize,
                                  n_items);
        }
    }
    return SCIO_OK;
}

/* --- from dense --- */

/* Zeros of both signs are left out, NaN is kept. */
#define IS_STORED_INT(x) ((x) != 0)
#define IS_STORED_BOOL IS_STORED_INT
#define IS_STORED_I8 IS_STORED_INT
#define IS_STORED_I16 IS_STORED_INT
#define IS_STORED_I32 IS_STORED_INT
#define IS_STORED_I64 IS_STORED_INT
#define IS_STORED_U8 IS_STORED_INT
#define IS_STORED_U16 IS_STORED_INT
#define IS_STORED_U32 IS_STORED_INT
#define IS_STORED_U64 IS_STORED_INT
#define IS_STORED_F16(x) (((x)&0x7FFFu) != 0)
#define IS_STORED_F32(x) ((x) != 0.0f)
#define IS_STORED_F64(x) ((x) != 0.0)

/* Every value of the row is written and the place moves on past those that are stored; the loop
 * ends with the last of them (n_stored, known from counting), so nothing is written behind it. */
#define FILL(index_ctype, is_stored)                                                               \
    do {                                                                                           \
        index_ctype *const indices = (index_ctype *)indices_out + at;                              \
        char *const data = data_out + at * sizeof x;                                               \
                                                                                                   \
        for (size_t c = 0, n = 0; n < n_stored; c++) {                                             \
            memcpy(&x, row + c * sizeof x, sizeof x);                                              \
            indices[n] = (index_ctype)c;                                                           \
            memcpy(data + n * sizeof x, &x, sizeof x);                                             \
            n += is_stored(x);                                                                     \
        }                                                                                          \
    } while (0)

#define DEFINE_PACK(name, ctype, kind, text)                                                       \
    static int64_t count_##name(const char *row, size_t n_cols)                                    \
    {                                                                                              \
        int64_t n_stored = 0;                                                                      \
                                                                                                   \
        for (size_t c = 0; c < n_cols; c++) {                                                      \
            ctype x;                                                                               \
                                                                                                   \
            memcpy(&x, row + c * sizeof x, sizeof x);                                              \
            n_stored += IS_STORED_##name(x);                                                       \
        }                                                                                          \
        return n_stored;                                                                           \
    }                                                                                              \
    static void fill_##name(const char *row, size_t n_stored, bool is_wide, void *indices_out,     \
                            char *data_out, size_t at)                                             \
    {                                                                                              \
        ctype x;                                                                                   \
                                                                                                   \
        if (is_wide)                                                                               \
            FILL(int64_t, IS_STORED_##name);                                                       \
        else                                                                                       \
            FILL(int32_t, IS_STORED_##name);                                                       \
    }
SCIO_DTYPE_LIST(DEFINE_PACK)
#undef DEFINE_PACK

typedef struct pack {
    int64_t (*count)(const char *row, size_t n_cols);
    void (*fill)(const char *row, size_t n_stored, bool is_wide, void *indices_out, char *data_out,
                 size_t at);
} pack;

static const pack packs[SCIO_N_DTYPES] = {
#define NAME_PACK(name, ctype, kind, text) [SCIO_##name] = {count_##name, fill_##name},
    SCIO_DTYPE_LIST(NAME_PACK)
#undef NAME_PACK
};

/* indptr of the stored values; returns how many there are. */
static int64_t
count_rows(const char *dense, const scio_csr *result, size_t row_nbytes, int64_t *indptr_out)
{
    indptr_out[0] = 0;
    for (int64_t r = 0; r < result->n_rows; r++)
        indptr_out[r + 1] =
            indptr_out[r] +
            packs[result->data_dtype].count(dense + (size_t)r * row_nbytes, (size_t)result->n_cols);
    return indptr_out[result->n_rows];
}

scio_status
scio_csr_from_dense(const void *dense, scio_dtype dtype, int64_t n_rows, int64_t n_cols,
                    scio_csr *out, scio_error *err)
{
    scio_csr result = {.n_rows = n_rows, .n_cols = n_cols, .data_dtype = dtype};
    size_t row_nbytes, nbytes;
    const int64_t *indptr;
    scio_status status;

    if (scio_dtype_itemsize(dtype) == 0 || n_rows < 0 || n_cols < 0)
        return scio_fail(err, SCIO_EINVAL, "a dense matrix needs a numeric type and sizes >= 0");
    if (!scio_mul_size((size_t)n_cols, scio_dtype_itemsize(dtype), &row_nbytes) ||
        !scio_mul_size(row_nbytes, (size_t)n_rows, &nbytes))
        return scio_fail(err, SCIO_EINVAL,
                         "a dense matrix of %" PRId64 " x %" PRId64 " is too large", n_rows,
                         n_cols);
    status = new_indptr(n_rows, &result.indptr, err);
    if (status != SCIO_OK)
        goto done;
    result.nnz = count_rows(dense, &result, row_nbytes, scio_buf_data(result.indptr));
    result.index_dtype = scio_csr_index_width(n_cols, result.nnz);
    status = new_entries(&result, true, err);
    if (status != SCIO_OK)
        goto done;
    indptr = scio_buf_data(result.indptr);
    for (int64_t r = 0; r < n_rows; r++)
        packs[dtype].fill((const char *)dense + (size_t)r * row_nbytes,
                          (size_t)(indptr[r + 1] - indptr[r]), result.index_dtype == SCIO_I64,
                          scio_buf_data(result.indices), scio_buf_data(result.data),
                          (size_t)indptr[r]);
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_csr_clear(&result);
    return status;
}
