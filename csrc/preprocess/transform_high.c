/* Genes that hold more than a share of the counts of some cell. */
#include "preprocess/transform.h"

#include <string.h>

enum { STRETCH = 256 };

typedef struct high_pass {
    const scio_csr_view *csr;
    const double *totals;
    double max_fraction;
    int64_t rows_per_item;
    uint8_t *is_high;
} high_pass;

static scio_status
mark_stretch(const high_pass *pass, int64_t row, int64_t at, size_t n_items, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const double limit = pass->max_fraction * pass->totals[row];
    double wide[STRETCH];
    int64_t column;

    SCIO_TRY(scio_cast(csr->data_dtype,
                       (const char *)csr->data + (size_t)at * scio_dtype_itemsize(csr->data_dtype),
                       SCIO_F64, wide, n_items, err));
    for (size_t i = 0; i < n_items; i++) {
        const size_t place = (size_t)at + i;

        if (!(wide[i] > limit))
            continue;
        column = (int64_t)place - scio_row_start(csr, row);
        if (csr->indptr != NULL)
            SCIO_TRY(scio_cast(csr->index_dtype,
                               (const char *)csr->indices +
                                   place * scio_dtype_itemsize(csr->index_dtype),
                               SCIO_I64, &column, 1, err));
        if (column < 0 || column >= csr->n_cols)
            return scio_fail(err, SCIO_ECORRUPT, "row %lld holds the index %lld, not in [0, %lld)",
                             (long long)row, (long long)column, (long long)csr->n_cols);
        /* several threads may say so of one column */
        __atomic_store_n(&pass->is_high[column], 1, __ATOMIC_RELAXED);
    }
    return SCIO_OK;
}

static scio_status
mark_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const high_pass *const pass = context;
    const int64_t first = (int64_t)i_item * pass->rows_per_item;
    const int64_t left = pass->csr->n_rows - first;
    const int64_t n_rows = left < pass->rows_per_item ? left : pass->rows_per_item;

    (void)slot;
    for (int64_t row = first; row < first + n_rows; row++) {
        const int64_t end = scio_row_start(pass->csr, row + 1);

        for (int64_t at = scio_row_start(pass->csr, row); at < end; at += STRETCH)
            SCIO_TRY(mark_stretch(pass, row, at,
                                  end - at < STRETCH ? (size_t)(end - at) : (size_t)STRETCH, err));
    }
    return SCIO_OK;
}

scio_status
scio_high_columns(const scio_csr_view *csr, const double *totals, double max_fraction,
                  size_t max_parallel, const volatile int *cancel, uint8_t *is_high_out,
                  scio_error *err)
{
    high_pass pass = {.csr = csr,
                      .totals = totals,
                      .max_fraction = max_fraction,
                      .rows_per_item = scio_rows_per_item(csr),
                      .is_high = is_high_out};
    const size_t n_items = (size_t)((csr->n_rows + pass.rows_per_item - 1) / pass.rows_per_item);

    memset(is_high_out, 0, (size_t)csr->n_cols);
    return scio_parallel_for(NULL, max_parallel, n_items, mark_item, &pass, cancel, err);
}
