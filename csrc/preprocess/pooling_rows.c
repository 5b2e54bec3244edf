/* From rows of counts to totals, averages and ratios. */
#include "preprocess/pooling.h"

#include "base/mem.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* Rows between two looks at the cancel flag. */
#define ROWS_PER_LOOK 256

/* One row in order. */
typedef struct row_buffer {
    int64_t *columns; /* [longest] */
    double *values;   /* [longest] */
    uint64_t *keys;   /* [2 * longest] */
    int64_t *sorted_columns;
    double *sorted_values;
    int64_t n_items;
} row_buffer;

static void
clear_row(row_buffer *row)
{
    scio_mem_free(row->columns);
    scio_mem_free(row->values);
    scio_mem_free(row->keys);
    scio_mem_free(row->sorted_columns);
    scio_mem_free(row->sorted_values);
}

static scio_status
alloc_row(const scio_csr_view *rows, row_buffer *row, scio_error *err)
{
    size_t longest = 0;

    for (int64_t i = 0; i < rows->n_rows; i++) {
        const size_t length = (size_t)(rows->indptr[i + 1] - rows->indptr[i]);

        longest = length > longest ? length : longest;
    }
    SCIO_TRY(scio_mem_alloc(longest, sizeof *row->columns, &row->columns, err));
    SCIO_TRY(scio_mem_alloc(longest, sizeof *row->values, &row->values, err));
    SCIO_TRY(scio_mem_alloc(longest, sizeof *row->sorted_columns, &row->sorted_columns, err));
    SCIO_TRY(scio_mem_alloc(longest, sizeof *row->sorted_values, &row->sorted_values, err));
    return scio_mem_alloc(longest, 2 * sizeof *row->keys, &row->keys, err);
}

/* Sorts by column, stable; rows come in order nearly always. */
static void
sort_row(row_buffer *row)
{
    const size_t n = (size_t)row->n_items;
    uint64_t *keys;

    for (size_t i = 0; i < n; i++)
        row->keys[i] = (uint64_t)row->columns[i] << 32 | i;
    keys = scio_sort_by_upper(row->keys, row->keys + n, n);
    for (size_t i = 0; i < n; i++) {
        const size_t from = (size_t)(keys[i] & UINT32_MAX);

        row->sorted_columns[i] = row->columns[from];
        row->sorted_values[i] = row->values[from];
    }
    memcpy(row->columns, row->sorted_columns, n * sizeof *row->columns);
    memcpy(row->values, row->sorted_values, n * sizeof *row->values);
}

/* Sums equal neighbours and drops zeros. */
static void
compact_row(row_buffer *row)
{
    int64_t n = 0;

    for (int64_t i = 0; i < row->n_items;) {
        const int64_t column = row->columns[i];
        double sum = row->values[i++];

        while (i < row->n_items && row->columns[i] == column)
            sum += row->values[i++];
        row->columns[n] = column;
        row->values[n] = sum;
        n += sum != 0;
    }
    row->n_items = n;
}

static scio_status
check_value(const scio_pooling_block *block, int64_t i_row, int64_t column, double value,
            scio_error *err)
{
    if (value >= 0 && value < INFINITY)
        return SCIO_OK;
    return scio_fail(err, SCIO_EINVAL, "cell %lld, gene %lld is %g, expected a count: %s",
                     (long long)(block->first_row + i_row), (long long)column, value,
                     value < 0 ? "none is negative" : "all are finite");
}

static scio_status
read_row(const scio_pooling_block *block, int64_t i_row, row_buffer *row, scio_error *err)
{
    const scio_csr_view *const rows = &block->rows;
    const size_t start = (size_t)rows->indptr[i_row];
    const size_t n = (size_t)rows->indptr[i_row + 1] - start;
    const char *const indices = rows->indices, *const data = rows->data;
    bool is_plain = true; /* columns increase, no zeros */
    int64_t before = -1;

    row->n_items = (int64_t)n;
    SCIO_TRY(scio_cast(rows->index_dtype, indices + start * scio_dtype_itemsize(rows->index_dtype),
                       SCIO_I64, row->columns, n, err));
    SCIO_TRY(scio_cast(rows->data_dtype, data + start * scio_dtype_itemsize(rows->data_dtype),
                       SCIO_F64, row->values, n, err));
    for (size_t i = 0; i < n; i++) {
        const int64_t column = row->columns[i];

        if (column < 0 || column >= rows->n_cols)
            return scio_fail(
                err, SCIO_ECORRUPT, "indices[%zu] is %lld in row %lld, not in [0, %lld)", start + i,
                (long long)column, (long long)(block->first_row + i_row), (long long)rows->n_cols);
        SCIO_TRY(check_value(block, i_row, column, row->values[i], err));
        is_plain &= column > before && row->values[i] != 0;
        before = column;
    }
    if (is_plain)
        return SCIO_OK;
    sort_row(row);
    compact_row(row);
    return SCIO_OK;
}

/* What is done with each row. */
typedef scio_status (*row_fn)(void *context, int64_t i_row, const row_buffer *row, scio_error *err);

static scio_status
check_block(const scio_pooling_block *block, scio_error *err)
{
    const scio_csr_view *const rows = &block->rows;

    if (rows->n_cols > UINT32_MAX || rows->nnz > (int64_t)1 << 60)
        return scio_fail(err, SCIO_EINVAL, "%lld genes, expected at most %llu",
                         (long long)rows->n_cols, (unsigned long long)UINT32_MAX);
    for (int64_t i = 0; i < rows->n_rows; i++) {
        const int64_t start = rows->indptr[i], end = rows->indptr[i + 1];

        if (start < 0 || end < start || end > rows->nnz || end - start > UINT32_MAX)
            return scio_fail(err, SCIO_ECORRUPT, "row %lld lies from %lld to %lld of %lld values",
                             (long long)(block->first_row + i), (long long)start, (long long)end,
                             (long long)rows->nnz);
        if (block->parts[i] >= block->n_parts)
            return scio_fail(err, SCIO_ERANGE, "parts[%lld] is %d, not below %lld", (long long)i,
                             block->parts[i], (long long)block->n_parts);
    }
    return SCIO_OK;
}

static scio_status
for_each_row(const scio_pooling_block *block, row_fn fn, void *context, const volatile int *cancel,
             scio_error *err)
{
    row_buffer row = {0};
    scio_status status;

    SCIO_TRY(check_block(block, err));
    status = alloc_row(&block->rows, &row, err);
    for (int64_t i = 0; status == SCIO_OK && i < block->rows.n_rows; i++) {
        if (i % ROWS_PER_LOOK == 0 && cancel != NULL &&
            __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0)
            status = scio_fail(err, SCIO_ECANCEL, "cancelled");
        else
            status = read_row(block, i, &row, err);
        if (status == SCIO_OK)
            status = fn(context, i, &row, err);
    }
    clear_row(&row);
    return status;
}

/* --- totals, sums, maxima */

typedef struct scan_call {
    const scio_pooling_block *block;
    double *totals, *sums, *maxima;
    scio_pooling_facts *facts;
} scan_call;

static void
note_facts(scan_call *call, int64_t i_row, const row_buffer *row)
{
    scio_pooling_facts *const facts = call->facts;
    int64_t n_fractions = 0;

    for (int64_t i = 0; i < row->n_items; i++) {
        const double value = row->values[i];

        facts->maximum = value > facts->maximum ? value : facts->maximum;
        if (SCIO_LIKELY(value >= 0x1p52 || (double)(int64_t)value == value))
            continue;
        if (facts->n_fractions + n_fractions++ == 0) {
            facts->row = call->block->first_row + i_row;
            facts->column = row->columns[i];
            facts->fraction = value;
        }
    }
    facts->n_values += row->n_items;
    facts->n_fractions += n_fractions;
}

static scio_status
scan_row(void *context, int64_t i_row, const row_buffer *row, scio_error *err)
{
    scan_call *const call = context;
    const int64_t i_part = call->block->parts[i_row];
    const int64_t first = i_part * call->block->rows.n_cols;
    double total = 0;

    for (int64_t i = 0; i < row->n_items; i++)
        total += row->values[i];
    call->totals[i_row] = total;
    if (!(total < INFINITY))
        return scio_fail(err, SCIO_EINVAL, "the total of cell %lld is beyond all numbers",
                         (long long)(call->block->first_row + i_row));
    note_facts(call, i_row, row);
    if (i_part < 0)
        return SCIO_OK;
    for (int64_t i = 0; i < row->n_items; i++) {
        const double share = row->values[i] / total;
        const int64_t at = first + row->columns[i];

        call->sums[at] += share;
        call->maxima[at] = share > call->maxima[at] ? share : call->maxima[at];
    }
    return SCIO_OK;
}

scio_status
scio_pooling_scan(const scio_pooling_block *block, double *totals_out, double *sums_inout,
                  double *maxima_inout, scio_pooling_facts *facts_inout, const volatile int *cancel,
                  scio_error *err)
{
    scan_call call = {block, totals_out, sums_inout, maxima_inout, facts_inout};

    return for_each_row(block, scan_row, &call, cancel, err);
}

/* --- ratios */

typedef struct take_call {
    const scio_pooling_block *block;
    const double *totals;
    const scio_pooling_genes *genes;
    scio_pooling_ratios *ratios;
    int64_t *starts, *counts;
} take_call;

static scio_status
take_row(void *context, int64_t i_row, const row_buffer *row, scio_error *err)
{
    const take_call *const call = context;
    scio_pooling_ratios *const ratios = call->ratios;
    const int64_t i_part = call->block->parts[i_row];
    const double total = call->totals[i_row];

    call->starts[i_row] = (int64_t)ratios->n_used;
    call->counts[i_row] = 0;
    if (i_part < 0 || !(total > 0))
        return SCIO_OK;
    for (int64_t i = 0; i < row->n_items; i++) {
        const int64_t at = i_part * call->block->rows.n_cols + row->columns[i];
        const double magic = call->genes->magics[at];

        if (call->genes->positions[at] < 0)
            continue;
        if (ratios->n_used == ratios->capacity)
            return scio_fail(err, SCIO_ERANGE, "there is room for %zu ratios only",
                             ratios->capacity);
        ratios->genes[ratios->n_used] = call->genes->positions[at];
        ratios->values[ratios->n_used++] =
            (row->values[i] / total / call->genes->averages[at] + magic) - magic;
    }
    call->counts[i_row] = (int64_t)ratios->n_used - call->starts[i_row];
    return SCIO_OK;
}

scio_status
scio_pooling_take(const scio_pooling_block *block, const double *totals,
                  const scio_pooling_genes *genes, scio_pooling_ratios *ratios_inout,
                  int64_t *starts_out, int64_t *counts_out, const volatile int *cancel,
                  scio_error *err)
{
    take_call call = {block, totals, genes, ratios_inout, starts_out, counts_out};

    return for_each_row(block, take_row, &call, cancel, err);
}
