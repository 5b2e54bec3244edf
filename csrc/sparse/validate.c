/* The gate for sparse arrays: what passes it, kernels may trust. */
#include "sparse/csr.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Rows per job of the full check: the first offending place is the lowest, whatever the threads. */
enum { ROWS_PER_JOB = 4096 };

scio_status
scio_indptr_validate(const int64_t *indptr, int64_t n_rows, int64_t nnz, scio_error *err)
{
    if (indptr[0] != 0)
        return scio_fail(err, SCIO_ECORRUPT, "indptr[0] is %" PRId64 ", expected 0", indptr[0]);
    for (int64_t r = 1; r <= n_rows; r++) {
        if (indptr[r] < indptr[r - 1])
            return scio_fail(err, SCIO_ECORRUPT,
                             "indptr[%" PRId64 "] is %" PRId64 ", less than indptr[%" PRId64
                             "], which is %" PRId64 " (must not decrease)",
                             r, indptr[r], r - 1, indptr[r - 1]);
    }
    if (indptr[n_rows] != nnz)
        return scio_fail(err, SCIO_ECORRUPT,
                         "indptr[%" PRId64 "] is %" PRId64 ", expected the number of stored values, %" PRId64,
                         n_rows, indptr[n_rows], nnz);
    return SCIO_OK;
}

/* Position of the first index outside [0, n_cols), or n_items. */
#define FIND_BAD(CTYPE, TEST)                                                                      \
    do {                                                                                           \
        const CTYPE *const values = indices;                                                       \
        unsigned n_bad = 0;                                                                        \
        for (size_t i = 0; i < n_items; i++)                                                       \
            n_bad |= (unsigned)(TEST);                                                             \
        if (n_bad == 0)                                                                            \
            return n_items;                                                                        \
        for (size_t i = 0; i < n_items; i++)                                                       \
            if (TEST)                                                                              \
                return i;                                                                          \
        return n_items;                                                                            \
    } while (0)

static size_t
find_bad(const void *indices, scio_dtype dtype, size_t n_items, int64_t n_cols)
{
    const uint64_t limit = (uint64_t)n_cols;

    switch (dtype) {
    case SCIO_I8:
        FIND_BAD(int8_t, values[i] < 0 || (uint64_t)values[i] >= limit);
    case SCIO_I16:
        FIND_BAD(int16_t, values[i] < 0 || (uint64_t)values[i] >= limit);
    case SCIO_I32:
        FIND_BAD(int32_t, values[i] < 0 || (uint64_t)values[i] >= limit);
    case SCIO_I64:
        FIND_BAD(int64_t, values[i] < 0 || (uint64_t)values[i] >= limit);
    case SCIO_U8:
        FIND_BAD(uint8_t, values[i] >= limit);
    case SCIO_U16:
        FIND_BAD(uint16_t, values[i] >= limit);
    case SCIO_U32:
        FIND_BAD(uint32_t, values[i] >= limit);
    case SCIO_U64:
        FIND_BAD(uint64_t, values[i] >= limit);
    default:
        return 0;
    }
}

scio_status
scio_indices_validate(const void *indices, scio_dtype index_dtype, size_t n_items, int64_t n_cols,
                      int64_t first_item, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(index_dtype);
    size_t i_bad;
    char text[24];

    if (scio_dtype_kind(index_dtype) != 'i' && scio_dtype_kind(index_dtype) != 'u')
        return scio_fail(err, SCIO_ECORRUPT, "indices are %s, expected integers",
                         scio_dtype_name(index_dtype));
    i_bad = find_bad(indices, index_dtype, n_items, n_cols);
    if (i_bad == n_items)
        return SCIO_OK;
    if (scio_dtype_kind(index_dtype) == 'u') {
        uint64_t value = 0;

        memcpy(&value, (const char *)indices + i_bad * itemsize, itemsize);
        (void)snprintf(text, sizeof text, "%" PRIu64, value);
    } else {
        int64_t value = 0;
        scio_status ignored = scio_cast(index_dtype, (const char *)indices + i_bad * itemsize, SCIO_I64,
                                        &value, 1, NULL);
        (void)ignored;
        (void)snprintf(text, sizeof text, "%" PRId64, value);
    }
    return scio_fail(err, SCIO_ECORRUPT, "indices[%" PRId64 "] is %s, not in [0, %" PRId64 ")",
                     first_item + (int64_t)i_bad, text, n_cols);
}

typedef struct full_check {
    const scio_csr_view *csr;
    uint8_t *is_unsorted; /* [n_jobs] */
    uint8_t *has_equal;   /* [n_jobs]: equal neighbours in a sorted row */
} full_check;

static int64_t
index_at(const scio_csr_view *csr, int64_t i)
{
    switch (csr->index_dtype) {
#define INDEX_AT(name, ctype, kind, text)                                                          \
    case SCIO_##name:                                                                              \
        return (int64_t)((const ctype *)csr->indices)[i];
        SCIO_DTYPE_LIST(INDEX_AT)
#undef INDEX_AT
    default:
        return 0;
    }
}

/* Looks at neighbours only: enough to know whether rows are sorted, and for duplicates in sorted rows. */
static void
look_at_order(const scio_csr_view *csr, int64_t row0, int64_t row1, uint8_t *is_unsorted_out,
              uint8_t *has_equal_out)
{
    for (int64_t r = row0; r < row1; r++) {
        for (int64_t i = csr->indptr[r] + 1; i < csr->indptr[r + 1]; i++) {
            const int64_t before = index_at(csr, i - 1), here = index_at(csr, i);

            *is_unsorted_out |= here < before;
            *has_equal_out |= here == before;
        }
    }
}

static scio_status
check_rows(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const full_check *const check = context;
    const scio_csr_view *const csr = check->csr;
    const int64_t row0 = (int64_t)i_item * ROWS_PER_JOB;
    const int64_t row1 = csr->n_rows - row0 < ROWS_PER_JOB ? csr->n_rows : row0 + ROWS_PER_JOB;
    const int64_t first = csr->indptr[row0];
    const size_t n_items = (size_t)(csr->indptr[row1] - first);
    const size_t itemsize = scio_dtype_itemsize(csr->index_dtype);

    (void)slot;
    SCIO_TRY(scio_indices_validate((const char *)csr->indices + (size_t)first * itemsize,
                                   csr->index_dtype, n_items, csr->n_cols, first, err));
    look_at_order(csr, row0, row1, &check->is_unsorted[i_item], &check->has_equal[i_item]);
    return SCIO_OK;
}

/* Unsorted rows: a mark per column says in which row it was met last. */
static scio_status
find_duplicates(const scio_csr_view *csr, bool *has_duplicates_out, scio_error *err)
{
    int64_t *last_row = NULL;

    SCIO_TRY(scio_mem_alloc((size_t)csr->n_cols, sizeof *last_row, &last_row, err));
    for (int64_t c = 0; c < csr->n_cols; c++)
        last_row[c] = -1;
    *has_duplicates_out = false;
    for (int64_t r = 0; r < csr->n_rows && !*has_duplicates_out; r++) {
        for (int64_t i = csr->indptr[r]; i < csr->indptr[r + 1]; i++) {
            const int64_t c = index_at(csr, i);

            *has_duplicates_out |= last_row[c] == r;
            last_row[c] = r;
        }
    }
    scio_mem_free(last_row);
    return SCIO_OK;
}

static scio_status
check_full(const scio_csr_view *csr, scio_csr_facts *facts_out, scio_error *err)
{
    const size_t n_jobs = ((size_t)csr->n_rows + ROWS_PER_JOB - 1) / ROWS_PER_JOB;
    full_check check = {csr, NULL, NULL};
    scio_csr_facts facts = {true, false};
    scio_pool *pool = NULL;
    scio_status status;

    status = scio_pool_shared(&pool, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_jobs, 1, &check.is_unsorted, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_jobs, 1, &check.has_equal, err);
    if (status == SCIO_OK)
        status = scio_parallel_for(pool, SIZE_MAX, n_jobs, check_rows, &check, NULL, err);
    if (status == SCIO_OK) {
        for (size_t i = 0; i < n_jobs; i++) {
            facts.is_sorted &= check.is_unsorted[i] == 0;
            facts.has_duplicates |= check.has_equal[i] != 0;
        }
        if (!facts.is_sorted && !facts.has_duplicates && facts_out != NULL)
            status = find_duplicates(csr, &facts.has_duplicates, err);
    }
    if (status == SCIO_OK && facts_out != NULL)
        *facts_out = facts;
    scio_mem_free(check.is_unsorted);
    scio_mem_free(check.has_equal);
    return status;
}

static scio_status
check_shape(const scio_csr_view *csr, scio_error *err)
{
    const char kind = scio_dtype_kind(csr->index_dtype);

    if (csr->n_rows < 0 || csr->n_cols < 0 || csr->nnz < 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "shape (%" PRId64 ", %" PRId64 ") with %" PRId64 " values: none may be negative",
                         csr->n_rows, csr->n_cols, csr->nnz);
    if (kind != 'i' && kind != 'u')
        return scio_fail(err, SCIO_ECORRUPT, "indices are %s, expected integers",
                         scio_dtype_name(csr->index_dtype));
    if (csr->data != NULL && csr->data_dtype == SCIO_DTYPE_NONE)
        return scio_fail(err, SCIO_ETYPE, "data have no numeric type");
    return SCIO_OK;
}

scio_status
scio_csr_validate(const scio_csr_view *csr, scio_check level, scio_csr_facts *facts_out,
                  scio_error *err)
{
    SCIO_TRY(check_shape(csr, err));
    if (level == SCIO_CHECK_SHAPE)
        return SCIO_OK;
    SCIO_TRY(scio_indptr_validate(csr->indptr, csr->n_rows, csr->nnz, err));
    if (level == SCIO_CHECK_STRUCTURE)
        return SCIO_OK;
    return check_full(csr, facts_out, err);
}
