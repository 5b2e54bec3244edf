/* Counts and sums of columns for the filters.
 *
 * Integers are added up in a table of each thread, whose order does not matter.  Only when a value
 * is no integer are doubles added: by blocks of 4,096 rows, a window of blocks at a time, and the
 * windows' tables are added in the order of the blocks. */
#include "base/mem.h"
#include "kernels/kernels.h"
#include "preprocess/scale.h"
#include "preprocess/transform.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { STRETCH = 256, BLOCK_ROWS = 4096 };

__extension__ typedef __int128 wide_int;

typedef struct sums_pass {
    const scio_csr_view *csr;
    const scio_kernels_table *kernels;
    bool is_counting;
    size_t n_slots;
    size_t i_window;       /* doubles: the first block of this window */
    int64_t *counts;       /* [n_slots, n_cols] numbers of values, or sums of plain counts */
    wide_int **wide;       /* [n_slots] sums of other integers, [n_cols], made when they come */
    double *doubles;       /* [n_slots, n_cols] sums of blocks */
    atomic_bool has_other; /* a value that is no integer below 2^62 */
    atomic_bool is_canonical;
} sums_pass;

static scio_status
load_columns(const sums_pass *pass, int64_t row, int64_t at, size_t n_items, int64_t *columns,
             scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;

    if (csr->indptr == NULL) {
        for (size_t i = 0; i < n_items; i++)
            columns[i] = at - row * csr->n_cols + (int64_t)i;
        return SCIO_OK;
    }
    SCIO_TRY(
        scio_cast(csr->index_dtype,
                  (const char *)csr->indices + (size_t)at * scio_dtype_itemsize(csr->index_dtype),
                  SCIO_I64, columns, n_items, err));
    for (size_t i = 0; i < n_items; i++) {
        if (columns[i] < 0 || columns[i] >= csr->n_cols)
            return scio_fail(err, SCIO_ECORRUPT,
                             "indices[%" PRId64 "] is %" PRId64 " in row %" PRId64
                             ", not in [0, %" PRId64 ")",
                             at + (int64_t)i, columns[i], row, csr->n_cols);
    }
    return SCIO_OK;
}

/* Whether the columns go on increasing from `before`. */
static bool
are_increasing(int64_t before, const int64_t *columns, size_t n_items)
{
    unsigned n_bad = columns[0] <= before;

    for (size_t i = 1; i < n_items; i++)
        n_bad |= (unsigned)(columns[i] <= columns[i - 1]);
    return n_bad == 0;
}

/* EINVAL for NaN and infinity. */
static scio_status
check_finite(const sums_pass *pass, int64_t row, int64_t at, const double *values, size_t n_items,
             scio_error *err)
{
    unsigned n_bad = 0;

    for (size_t i = 0; i < n_items; i++)
        n_bad |= (unsigned)!(fabs(values[i]) < HUGE_VAL);
    if (n_bad == 0 || scio_dtype_kind(pass->csr->data_dtype) != 'f')
        return SCIO_OK;
    return scio_fail(err, SCIO_EINVAL,
                     "row %" PRId64 " holds NaN or infinity among the values from %" PRId64 " on",
                     row, at);
}

static void
add_integers(sums_pass *pass, const int64_t *columns, const double *values, size_t n_items,
             wide_int *sums)
{
    bool has_other = false;

    for (size_t i = 0; i < n_items; i++) {
        const bool is_integer = fabs(values[i]) < 0x1p62 && values[i] == floor(values[i]);

        has_other |= !is_integer;
        sums[columns[i]] += is_integer ? (int64_t)values[i] : 0;
    }
    if (has_other)
        atomic_store_explicit(&pass->has_other, true, memory_order_relaxed);
}

/* 64-bit integers, which double may not hold. */
static void
add_i64(const scio_csr_view *csr, int64_t at, const int64_t *columns, size_t n_items,
        wide_int *sums)
{
    if (csr->data_dtype == SCIO_I64) {
        for (size_t i = 0; i < n_items; i++)
            sums[columns[i]] += ((const int64_t *)csr->data)[at + (int64_t)i];
    } else {
        for (size_t i = 0; i < n_items; i++)
            sums[columns[i]] += ((const uint64_t *)csr->data)[at + (int64_t)i];
    }
}

static scio_status
add_stretch(sums_pass *pass, int64_t row, int64_t at, size_t n_items, size_t slot,
            int64_t *last_column, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const size_t n_cols = (size_t)csr->n_cols;
    int64_t columns[STRETCH / 2];
    double values[STRETCH / 2];

    SCIO_TRY(load_columns(pass, row, at, n_items, columns, err));
    SCIO_TRY(scio_cast(csr->data_dtype,
                       (const char *)csr->data + (size_t)at * scio_dtype_itemsize(csr->data_dtype),
                       SCIO_F64, values, n_items, err));
    SCIO_TRY(check_finite(pass, row, at, values, n_items, err));
    if (!are_increasing(*last_column, columns, n_items))
        atomic_store_explicit(&pass->is_canonical, false, memory_order_relaxed);
    *last_column = columns[n_items - 1];
    if (pass->is_counting) {
        int64_t *const counts = pass->counts + slot * n_cols;

        for (size_t i = 0; i < n_items; i++)
            counts[columns[i]] += values[i] > 0;
    } else if (pass->doubles != NULL) {
        double *const sums = pass->doubles + slot * n_cols;

        for (size_t i = 0; i < n_items; i++)
            sums[columns[i]] += values[i];
    } else {
        if (pass->wide[slot] == NULL)
            SCIO_TRY(scio_mem_zalloc(n_cols, sizeof(wide_int), &pass->wide[slot], err));
        if (csr->data_dtype == SCIO_I64 || csr->data_dtype == SCIO_U64)
            add_i64(csr, at, columns, n_items, pass->wide[slot]);
        else
            add_integers(pass, columns, values, n_items, pass->wide[slot]);
    }
    return SCIO_OK;
}

/* The common case in plain loops: counts as float32.  *is_done_out: whether the row was one. */
static scio_status
add_row_f32(sums_pass *pass, int64_t row, size_t slot, bool *is_done_out, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const int64_t start = csr->indptr[row];
    const size_t n_items = (size_t)(csr->indptr[row + 1] - start);
    const int32_t *const columns = (const int32_t *)csr->indices + start;
    const float *const values = (const float *)csr->data + start;
    int64_t *const sums = pass->counts + slot * (size_t)csr->n_cols;
    uint32_t maximum, n_positive;

    *is_done_out = pass->kernels->are_counts_f32(values, n_items, &maximum, &n_positive);
    if (!*is_done_out)
        return SCIO_OK;
    if (!pass->kernels->are_within_i32(columns, n_items, 0, (int32_t)csr->n_cols))
        return scio_fail(err, SCIO_ECORRUPT,
                         "row %" PRId64 " holds an index that is not in [0, %" PRId64 ")", row,
                         csr->n_cols);
    if (!pass->kernels->is_increasing_u32((const uint32_t *)columns, n_items))
        atomic_store_explicit(&pass->is_canonical, false, memory_order_relaxed);
    if (pass->is_counting) {
        for (size_t i = 0; i < n_items; i++)
            sums[columns[i]] += values[i] > 0;
    } else {
        for (size_t i = 0; i < n_items; i++)
            sums[columns[i]] += (int32_t)values[i];
    }
    return SCIO_OK;
}

static scio_status
add_block(void *context, size_t i_item, size_t slot, scio_error *err)
{
    sums_pass *const pass = context;
    const scio_csr_view *const csr = pass->csr;
    const int64_t first = (int64_t)(pass->i_window + i_item) * BLOCK_ROWS;
    const int64_t last = csr->n_rows - first < BLOCK_ROWS ? csr->n_rows : first + BLOCK_ROWS;
    const size_t table = pass->doubles == NULL ? slot : i_item;
    const bool is_plain = pass->doubles == NULL && csr->indptr != NULL &&
                          csr->index_dtype == SCIO_I32 && csr->data_dtype == SCIO_F32 &&
                          csr->n_cols <= INT32_MAX;

    for (int64_t row = first; row < last; row++) {
        const int64_t end = scio_row_start(csr, row + 1);
        int64_t last_column = -1;

        bool is_done = false;

        if (is_plain)
            SCIO_TRY(add_row_f32(pass, row, slot, &is_done, err));
        if (is_done)
            continue;
        for (int64_t at = scio_row_start(csr, row); at < end; at += STRETCH / 2)
            SCIO_TRY(add_stretch(pass, row, at,
                                 end - at < STRETCH / 2 ? (size_t)(end - at) : STRETCH / 2, table,
                                 &last_column, err));
    }
    return SCIO_OK;
}

static scio_status
new_tables(size_t n_slots, int64_t n_cols, size_t itemsize, void *out, scio_error *err)
{
    size_t n_items;

    if (!scio_mul_size(n_slots, (size_t)n_cols, &n_items))
        return scio_fail(err, SCIO_ENOMEM, "%zu tables of %" PRId64 " columns", n_slots, n_cols);
    return scio_mem_zalloc(n_items, itemsize, out, err);
}

static scio_status
sum_integers(sums_pass *pass, size_t n_blocks, const volatile int *cancel, int64_t *n_positive_out,
             double *sums_out, scio_error *err)
{
    const size_t n_cols = (size_t)pass->csr->n_cols;

    SCIO_TRY(scio_parallel_for(NULL, pass->n_slots, n_blocks, add_block, pass, cancel, err));
    for (size_t column = 0; column < n_cols; column++) {
        wide_int sum = 0;

        for (size_t slot = 0; slot < pass->n_slots; slot++)
            sum += pass->counts[slot * n_cols + column] +
                   (pass->wide[slot] == NULL ? 0 : pass->wide[slot][column]);
        if (pass->is_counting)
            n_positive_out[column] = (int64_t)sum;
        else
            sums_out[column] = (double)sum;
    }
    return SCIO_OK;
}

static scio_status
sum_doubles(sums_pass *pass, size_t n_blocks, const volatile int *cancel, double *sums_out,
            scio_error *err)
{
    const size_t n_cols = (size_t)pass->csr->n_cols;

    memset(sums_out, 0, n_cols * sizeof *sums_out);
    for (pass->i_window = 0; pass->i_window < n_blocks; pass->i_window += pass->n_slots) {
        const size_t left = n_blocks - pass->i_window;
        const size_t n_window = left < pass->n_slots ? left : pass->n_slots;

        memset(pass->doubles, 0, pass->n_slots * n_cols * sizeof *pass->doubles);
        SCIO_TRY(scio_parallel_for(NULL, pass->n_slots, n_window, add_block, pass, cancel, err));
        for (size_t i = 0; i < n_window; i++)
            for (size_t column = 0; column < n_cols; column++)
                sums_out[column] += pass->doubles[i * n_cols + column];
    }
    return SCIO_OK;
}

scio_status
scio_column_sums(const scio_csr_view *csr, size_t max_parallel, const volatile int *cancel,
                 int64_t *n_positive_out, double *sums_out, bool *is_canonical_out, scio_error *err)
{
    sums_pass pass = {.csr = csr, .kernels = scio_kernels(), .is_counting = n_positive_out != NULL};
    const size_t n_blocks = (size_t)((csr->n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS);
    scio_status status;

    atomic_init(&pass.has_other, false);
    atomic_init(&pass.is_canonical, true);
    pass.n_slots = scio_parallel_n_slots(NULL, max_parallel, n_blocks);
    status = scio_mem_zalloc(pass.n_slots, sizeof *pass.wide, &pass.wide, err);
    if (status == SCIO_OK)
        status = new_tables(pass.n_slots, csr->n_cols, sizeof *pass.counts, &pass.counts, err);
    if (status == SCIO_OK)
        status = sum_integers(&pass, n_blocks, cancel, n_positive_out, sums_out, err);
    if (status == SCIO_OK && atomic_load(&pass.has_other)) {
        status = new_tables(pass.n_slots, csr->n_cols, sizeof *pass.doubles, &pass.doubles, err);
        if (status == SCIO_OK)
            status = sum_doubles(&pass, n_blocks, cancel, sums_out, err);
    }
    if (status == SCIO_OK)
        *is_canonical_out = atomic_load(&pass.is_canonical);
    for (size_t slot = 0; pass.wide != NULL && slot < pass.n_slots; slot++)
        scio_mem_free(pass.wide[slot]);
    scio_mem_free(pass.counts);
    scio_mem_free(pass.wide);
    scio_mem_free(pass.doubles);
    return status;
}
