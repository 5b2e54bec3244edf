/* Subsetting: count what every row keeps, then fill, both shared out over ranges of rows.
 *
 * Counting looks into a table of one byte a column, which stays in the first cache; filling goes
 * through the kernel of the loader for the types that nearly all matrices have. */
#include "preprocess/subset.h"

#include "base/mem.h"
#include "kernels/kernels.h"

#include <inttypes.h>
#include <string.h>

enum { ROWS_PER_ITEM = 512 };

/* Keeps n_items entries of a row; X(name, type of an index, type of a value's bytes). */
#define KEEP_LIST(X)                                                                               \
    X(i32_1, int32_t, uint8_t)                                                                     \
    X(i32_2, int32_t, uint16_t)                                                                    \
    X(i32_4, int32_t, uint32_t)                                                                    \
    X(i32_8, int32_t, uint64_t)                                                                    \
    X(i64_1, int64_t, uint8_t)                                                                     \
    X(i64_2, int64_t, uint16_t)                                                                    \
    X(i64_4, int64_t, uint32_t)                                                                    \
    X(i64_8, int64_t, uint64_t)

typedef void (*keep_fn)(const void *indices, const void *data, size_t n_items,
                        const int32_t *new_column, void *indices_out, void *data_out);

/* A branch: what is left out is mostly rare, and nothing may be written behind the row's end. */
#define DEFINE_KEEP(NAME, itype, vtype)                                                            \
    static void keep_##NAME(const void *indices, const void *data, size_t n_items,                 \
                            const int32_t *new_column, void *indices_out, void *data_out)          \
    {                                                                                              \
        size_t n_kept = 0;                                                                         \
                                                                                                   \
        for (size_t i = 0; i < n_items; i++) {                                                     \
            const int32_t to = new_column[((const itype *)indices)[i]];                            \
                                                                                                   \
            if (to < 0)                                                                            \
                continue;                                                                          \
            ((itype *)indices_out)[n_kept] = (itype)to;                                            \
            ((vtype *)data_out)[n_kept++] = ((const vtype *)data)[i];                              \
        }                                                                                          \
    }
KEEP_LIST(DEFINE_KEEP)
#undef DEFINE_KEEP

static keep_fn
find_keep(scio_dtype index_dtype, size_t itemsize)
{
#define FIND_KEEP(NAME, itype, vtype)                                                              \
    if ((index_dtype == SCIO_I32 ? 4 : 8) == sizeof(itype) && itemsize == sizeof(vtype))           \
        return keep_##NAME;
    KEEP_LIST(FIND_KEEP)
#undef FIND_KEEP
    return NULL;
}

typedef struct subset_pass {
    const scio_csr_view *csr;
    const int64_t *rows;
    int64_t n_rows;
    const int32_t *new_column;
    uint8_t *is_kept; /* [n_cols] */
    keep_fn keep;
    const scio_kernels_table *kernels;
    bool is_common; /* int32 and 4 bytes */
    size_t index_size, value_size;
    int64_t *indptr; /* [n_rows + 1]: first the length of row i at i + 1 */
    char *indices, *data;
} subset_pass;

static int64_t
source_row(const subset_pass *pass, int64_t i)
{
    return pass->rows == NULL ? i : pass->rows[i];
}

/* --- first pass --- */

#define DEFINE_COUNT(itype)                                                                        \
    static int64_t count_##itype(const subset_pass *pass, int64_t start, int64_t end,              \
                                 int64_t *bad_out)                                                 \
    {                                                                                              \
        const uint64_t n_cols = (uint64_t)pass->csr->n_cols;                                       \
        int64_t n_kept = 0;                                                                        \
                                                                                                   \
        for (int64_t i = start; i < end; i++) {                                                    \
            const int64_t column = ((const itype *)pass->csr->indices)[i];                         \
                                                                                                   \
            if ((uint64_t)column >= n_cols) {                                                      \
                *bad_out = i;                                                                      \
                return 0;                                                                          \
            }                                                                                      \
            n_kept += pass->is_kept[column];                                                       \
        }                                                                                          \
        return n_kept;                                                                             \
    }
DEFINE_COUNT(int32_t)
DEFINE_COUNT(int64_t)
#undef DEFINE_COUNT

static scio_status
count_row(const subset_pass *pass, int64_t i, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const int64_t row = source_row(pass, i);
    int64_t start, end, bad = -1;

    if (row < 0 || row >= csr->n_rows)
        return scio_fail(err, SCIO_ERANGE,
                         "rows[%" PRId64 "] is %" PRId64 ", not in [0, %" PRId64 ")", i, row,
                         csr->n_rows);
    start = csr->indptr[row];
    end = csr->indptr[row + 1];
    if (start < 0 || start > end || end > csr->nnz)
        return scio_fail(err, SCIO_ECORRUPT,
                         "row %" PRId64 " is [%" PRId64 ", %" PRId64
                         "), not an extent in [0, %" PRId64 "]",
                         row, start, end, csr->nnz);
    if (pass->new_column == NULL)
        pass->indptr[i + 1] = end - start;
    else if (csr->index_dtype == SCIO_I32)
        pass->indptr[i + 1] = count_int32_t(pass, start, end, &bad);
    else
        pass->indptr[i + 1] = count_int64_t(pass, start, end, &bad);
    if (bad >= 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "indices[%" PRId64 "] in row %" PRId64 " is not in [0, %" PRId64 ")", bad,
                         row, csr->n_cols);
    return SCIO_OK;
}

static scio_status
count_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const subset_pass *const pass = context;
    const int64_t first = (int64_t)i_item * ROWS_PER_ITEM;
    const int64_t last =
        pass->n_rows - first < ROWS_PER_ITEM ? pass->n_rows : first + ROWS_PER_ITEM;

    (void)slot;
    for (int64_t i = first; i < last; i++)
        SCIO_TRY(count_row(pass, i, err));
    return SCIO_OK;
}

/* --- second pass --- */

/* The kernel may write as many entries as it reads, so it is for rows that have this room before
 * `end`, where the next item's rows begin. */
static void
fill_row(const subset_pass *pass, const char *indices, const char *data, size_t n_items, size_t to,
         size_t end)
{
    void *const indices_out = pass->indices + to * pass->index_size;
    void *const data_out = pass->data + to * pass->value_size;

    if (pass->new_column == NULL) {
        memcpy(indices_out, indices, n_items * pass->index_size);
        memcpy(data_out, data, n_items * pass->value_size);
    } else if (pass->is_common && n_items <= end - to) {
        (void)pass->kernels->gather_map_u32((const uint32_t *)(const void *)indices,
                                            (const float *)(const void *)data, n_items,
                                            pass->new_column, indices_out, data_out);
    } else {
        pass->keep(indices, data, n_items, pass->new_column, indices_out, data_out);
    }
}

static scio_status
fill_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const subset_pass *const pass = context;
    const scio_csr_view *const csr = pass->csr;
    const int64_t first = (int64_t)i_item * ROWS_PER_ITEM;
    const int64_t last =
        pass->n_rows - first < ROWS_PER_ITEM ? pass->n_rows : first + ROWS_PER_ITEM;

    (void)slot;
    (void)err;
    for (int64_t i = first; i < last; i++) {
        const int64_t row = source_row(pass, i);
        const size_t start = (size_t)csr->indptr[row], to = (size_t)pass->indptr[i];
        const size_t n_items = (size_t)(csr->indptr[row + 1] - csr->indptr[row]);
        const char *const indices = (const char *)csr->indices + start * pass->index_size;
        const char *const data = (const char *)csr->data + start * pass->value_size;

        if (n_items > 0 && pass->indptr[i + 1] > pass->indptr[i])
            fill_row(pass, indices, data, n_items, to, (size_t)pass->indptr[last]);
    }
    return SCIO_OK;
}

/* Lengths to places. */
static scio_status
add_up(subset_pass *pass, int64_t *nnz_out, scio_error *err)
{
    pass->indptr[0] = 0;
    for (int64_t i = 0; i < pass->n_rows; i++) {
        if (__builtin_add_overflow(pass->indptr[i], pass->indptr[i + 1], &pass->indptr[i + 1]))
            return scio_fail(err, SCIO_ENOMEM, "the rows hold more than 2^63 values");
    }
    *nnz_out = pass->indptr[pass->n_rows];
    return SCIO_OK;
}

static scio_status
new_array(int64_t n_items, size_t itemsize, scio_buf **out, scio_error *err)
{
    size_t nbytes;

    if (!scio_mul_size((size_t)n_items, itemsize, &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%" PRId64 " items of %zu bytes do not fit in memory",
                         n_items, itemsize);
    return scio_buf_new(nbytes, out, err);
}

scio_status
scio_csr_subset(const scio_csr_view *csr, const int64_t *rows, int64_t n_rows,
                const int32_t *new_column, int64_t n_cols_out, size_t max_parallel,
                const volatile int *cancel, scio_csr *out, scio_error *err)
{
    subset_pass pass = {.csr = csr,
                        .rows = rows,
                        .n_rows = rows == NULL ? csr->n_rows : n_rows,
                        .new_column = new_column,
                        .index_size = scio_dtype_itemsize(csr->index_dtype),
                        .value_size = scio_dtype_itemsize(csr->data_dtype)};
    const size_t n_items = (size_t)((pass.n_rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM);
    scio_csr result = {.n_rows = pass.n_rows,
                       .n_cols = new_column == NULL ? csr->n_cols : n_cols_out,
                       .index_dtype = csr->index_dtype,
                       .data_dtype = csr->data_dtype};
    scio_status status;

    if (csr->index_dtype != SCIO_I32 && csr->index_dtype != SCIO_I64)
        return scio_fail(err, SCIO_ETYPE, "indices are %s, expected int32 or int64",
                         scio_dtype_name(csr->index_dtype));
    pass.kernels = scio_kernels();
    pass.is_common = csr->index_dtype == SCIO_I32 && pass.value_size == 4;
    pass.keep = find_keep(csr->index_dtype, pass.value_size);
    SCIO_BUG_IF(pass.keep == NULL, err);
    if (new_column != NULL) {
        status = scio_mem_alloc((size_t)csr->n_cols, 1, &pass.is_kept, err);
        if (status != SCIO_OK)
            goto done;
        for (int64_t column = 0; column < csr->n_cols; column++)
            pass.is_kept[column] = new_column[column] >= 0;
    }
    status = new_array(pass.n_rows + 1, sizeof(int64_t), &result.indptr, err);
    if (status != SCIO_OK)
        goto done;
    pass.indptr = scio_buf_data(result.indptr);
    status = scio_parallel_for(NULL, max_parallel, n_items, count_item, &pass, cancel, err);
    if (status == SCIO_OK)
        status = add_up(&pass, &result.nnz, err);
    if (status == SCIO_OK)
        status = new_array(result.nnz, pass.index_size, &result.indices, err);
    if (status == SCIO_OK)
        status = new_array(result.nnz, pass.value_size, &result.data, err);
    if (status != SCIO_OK)
        goto done;
    pass.indices = scio_buf_data(result.indices);
    pass.data = scio_buf_data(result.data);
    status = scio_parallel_for(NULL, max_parallel, n_items, fill_item, &pass, cancel, err);
    if (status != SCIO_OK)
        goto done;
    *out = result;
    memset(&result, 0, sizeof result);
done:
    scio_mem_free(pass.is_kept);
    scio_csr_clear(&result);
    return status;
}
