/* (x - mean) / std, one row at a time in stretches of doubles. */
#include "preprocess/scale.h"

#include "preprocess/transform.h"

#include <inttypes.h>
#include <string.h>

enum { STRETCH = 256 };

typedef struct scale_pass {
    const scio_csr_view *csr;
    const scio_scaling *scaling;
    int64_t rows_per_item;
    scio_dtype out_dtype;
    char *out;
    bool is_filling; /* a sparse row becomes a dense one */
} scale_pass;

static double
limited(const scio_scaling *scaling, double y)
{
    y = y > scaling->max_value ? scaling->max_value : y;
    return scaling->mean != NULL && y < -scaling->max_value ? -scaling->max_value : y;
}

static double
scaled(const scio_scaling *scaling, double x, int64_t column)
{
    const double mean = scaling->mean == NULL ? 0.0 : scaling->mean[column];

    return limited(scaling, (x - mean) / scaling->std[column]);
}

static void
put(const scale_pass *pass, int64_t place, double y)
{
    if (pass->out_dtype == SCIO_F32)
        ((float *)(void *)pass->out)[place] = (float)y;
    else
        ((double *)(void *)pass->out)[place] = y;
}

static void
put_all(const scale_pass *pass, int64_t place, const double *y, size_t n_items)
{
    if (pass->out_dtype == SCIO_F64) {
        memcpy((double *)(void *)pass->out + place, y, n_items * sizeof *y);
        return;
    }
    for (size_t i = 0; i < n_items; i++)
        ((float *)(void *)pass->out)[place + (int64_t)i] = (float)y[i];
}

/* Consecutive columns: loops of their own, which become SIMD. */
static void
scale_dense(const scio_scaling *scaling, int64_t column, size_t n_items, double *values)
{
    const double *const std = scaling->std + column;
    const double most = scaling->max_value;

    if (scaling->mean != NULL) {
        const double *const mean = scaling->mean + column;

        for (size_t i = 0; i < n_items; i++)
            values[i] = (values[i] - mean[i]) / std[i];
        for (size_t i = 0; i < n_items; i++)
            values[i] = values[i] < -most ? -most : values[i];
    } else {
        for (size_t i = 0; i < n_items; i++)
            values[i] /= std[i];
    }
    for (size_t i = 0; i < n_items; i++)
        values[i] = values[i] > most ? most : values[i];
}

/* What a sparse row holds where nothing is stored. */
static void
fill_row(const scale_pass *pass, int64_t row, bool is_scaled)
{
    const int64_t n_cols = pass->csr->n_cols;
    double wide[STRETCH];

    for (int64_t column = 0; column < n_cols; column += STRETCH) {
        const size_t n_items = n_cols - column < STRETCH ? (size_t)(n_cols - column) : STRETCH;

        memset(wide, 0, sizeof wide);
        if (is_scaled)
            scale_dense(pass->scaling, column, n_items, wide);
        put_all(pass, row * n_cols + column, wide, n_items);
    }
}

static scio_status
scale_sparse(const scale_pass *pass, int64_t row, int64_t at, size_t n_items, bool is_scaled,
             const double *values, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    int64_t columns[STRETCH];

    SCIO_TRY(
        scio_cast(csr->index_dtype,
                  (const char *)csr->indices + (size_t)at * scio_dtype_itemsize(csr->index_dtype),
                  SCIO_I64, columns, n_items, err));
    for (size_t i = 0; i < n_items; i++) {
        const int64_t column = columns[i];

        if (column < 0 || column >= csr->n_cols)
            return scio_fail(err, SCIO_ECORRUPT,
                             "indices[%" PRId64 "] is %" PRId64 " in row %" PRId64
                             ", not in [0, %" PRId64 ")",
                             at + (int64_t)i, column, row, csr->n_cols);
        put(pass, pass->is_filling ? row * csr->n_cols + column : at + (int64_t)i,
            is_scaled ? scaled(pass->scaling, values[i], column) : values[i]);
    }
    return SCIO_OK;
}

static scio_status
scale_row(const scale_pass *pass, int64_t row, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const int64_t start = scio_row_start(csr, row), end = scio_row_start(csr, row + 1);
    const bool is_scaled = pass->scaling->is_scaled == NULL || pass->scaling->is_scaled[row] != 0;
    double wide[STRETCH];

    if (pass->is_filling)
        fill_row(pass, row, is_scaled);
    for (int64_t at = start; at < end; at += STRETCH) {
        const size_t n_items = end - at < STRETCH ? (size_t)(end - at) : (size_t)STRETCH;

        SCIO_TRY(
            scio_cast(csr->data_dtype,
                      (const char *)csr->data + (size_t)at * scio_dtype_itemsize(csr->data_dtype),
                      SCIO_F64, wide, n_items, err));
        if (csr->indptr != NULL) {
            SCIO_TRY(scale_sparse(pass, row, at, n_items, is_scaled, wide, err));
            continue;
        }
        if (is_scaled)
            scale_dense(pass->scaling, at - start, n_items, wide);
        put_all(pass, at, wide, n_items);
    }
    return SCIO_OK;
}

static scio_status
scale_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const scale_pass *const pass = context;
    const int64_t first = (int64_t)i_item * pass->rows_per_item;
    const int64_t left = pass->csr->n_rows - first;
    const int64_t n_rows = left < pass->rows_per_item ? left : pass->rows_per_item;

    (void)slot;
    for (int64_t row = first; row < first + n_rows; row++)
        SCIO_TRY(scale_row(pass, row, err));
    return SCIO_OK;
}

scio_status
scio_scale_values(const scio_csr_view *csr, const scio_scaling *scaling, size_t max_parallel,
                  const volatile int *cancel, scio_dtype out_dtype, void *out, scio_error *err)
{
    scale_pass pass = {.csr = csr,
                       .scaling = scaling,
                       .rows_per_item = scio_rows_per_item(csr),
                       .out_dtype = out_dtype,
                       .out = out,
                       .is_filling = csr->indptr != NULL && scaling->mean != NULL};
    const size_t n_items = (size_t)((csr->n_rows + pass.rows_per_item - 1) / pass.rows_per_item);

    SCIO_BUG_IF(out_dtype != SCIO_F32 && out_dtype != SCIO_F64, err);
    return scio_parallel_for(NULL, max_parallel, n_items, scale_item, &pass, cancel, err);
}
