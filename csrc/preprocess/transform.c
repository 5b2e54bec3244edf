/* Transforms of single values, row by row while a row is in the first cache.
 *
 * float32 goes through the kernels of the loader.  Other dtypes are widened to double in stretches
 * of 2 KiB: that costs little beside the division and the logarithm, and needs one loop instead of
 * one for each dtype. */
#include "preprocess/transform.h"

#include "kernels/kernels.h"
#include "preprocess/log1p_f64.h"

#include <inttypes.h>
#include <string.h>

/* Values widened at a time: 2 KiB of the stack. */
enum { STRETCH = 256 };

#define VALUES_PER_ITEM ((int64_t)1 << 18)

int64_t
scio_rows_per_item(const scio_csr_view *csr)
{
    const int64_t n_values = scio_row_start(csr, csr->n_rows) - scio_row_start(csr, 0);
    const int64_t per_row = csr->n_rows > 0 ? n_values / csr->n_rows + 1 : 1;

    return per_row >= VALUES_PER_ITEM ? 1 : VALUES_PER_ITEM / per_row;
}

typedef struct transform_pass {
    const scio_csr_view *csr;
    const scio_value_transform *transform;
    const scio_kernels_table *kernels;
    int64_t rows_per_item;
    scio_dtype out_dtype;
    void *out;
} transform_pass;

static double
factor_of_row(const scio_value_transform *transform, int64_t row)
{
    if (transform->totals == NULL || transform->totals[row] == 0.0)
        return 1.0;
    return transform->target / transform->totals[row];
}

static void
divide(double *values, size_t n_items, double divisor)
{
    for (size_t i = 0; i < n_items; i++)
        values[i] /= divisor;
}

/* --- results */

static bool
are_finite_f32(const float *values, size_t n_items)
{
    uint32_t n_bad = 0;

    for (size_t i = 0; i < n_items; i++) {
        uint32_t bits;

        memcpy(&bits, &values[i], sizeof bits);
        n_bad += (uint32_t)((bits & 0x7F800000u) == 0x7F800000u);
    }
    return n_bad == 0;
}

static bool
is_finite_f64(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return (bits & UINT64_C(0x7FF0000000000000)) != UINT64_C(0x7FF0000000000000);
}

static bool
are_finite_f64(const double *values, size_t n_items)
{
    uint64_t n_bad = 0;

    for (size_t i = 0; i < n_items; i++)
        n_bad += !is_finite_f64(values[i]);
    return n_bad == 0;
}

static double
result_at(const transform_pass *pass, int64_t i)
{
    return pass->out_dtype == SCIO_F32 ? (double)((const float *)pass->out)[i]
                                       : ((const double *)pass->out)[i];
}

static scio_status
check_row(const transform_pass *pass, int64_t row, int64_t start, int64_t end, scio_error *err)
{
    const size_t n_items = (size_t)(end - start);
    const bool are_finite = pass->out_dtype == SCIO_F32
                                ? are_finite_f32((const float *)pass->out + start, n_items)
                                : are_finite_f64((const double *)pass->out + start, n_items);

    if (are_finite)
        return SCIO_OK;
    for (int64_t i = start; i < end; i++) {
        if (!is_finite_f64(result_at(pass, i)))
            return scio_fail(err, SCIO_EINVAL,
                             "the value at position %" PRId64 " (row %" PRId64
                             ") gives %g, which is not finite",
                             i, row, result_at(pass, i));
    }
    return SCIO_OK;
}

/* --- one row */

/* float32 without a base: what the loader does with a row. */
static void
transform_f32(const transform_pass *pass, const float *in, double factor, float *out,
              size_t n_items)
{
    if (factor != 1.0)
        pass->kernels->scale_f32(in, factor, out, n_items);
    else if (in != out)
        memcpy(out, in, n_items * sizeof *out);
    if (pass->transform->is_log1p)
        pass->kernels->log1p_f32(out, out, n_items);
}

/* wide[n_items] to the output; the scaled value is rounded to the output type before the log. */
static void
finish_wide(const transform_pass *pass, double *wide, double factor, int64_t start, size_t n_items)
{
    const double log_base = pass->transform->log_base;

    for (size_t i = 0; i < n_items; i++)
        wide[i] *= factor; /* 1 changes nothing */
    if (pass->out_dtype == SCIO_F64) {
        if (pass->transform->is_log1p)
            scio_log1p_f64(wide, wide, n_items);
        if (log_base != 0)
            divide(wide, n_items, log_base);
        memcpy((double *)pass->out + start, wide, n_items * sizeof *wide);
        return;
    }
    for (size_t i = 0; i < n_items; i++)
        ((float *)pass->out)[start + (int64_t)i] = (float)wide[i];
    if (!pass->transform->is_log1p)
        return;
    if (log_base == 0) {
        float *const out = (float *)pass->out + start;

        pass->kernels->log1p_f32(out, out, n_items);
        return;
    }
    for (size_t i = 0; i < n_items; i++)
        wide[i] = (double)((const float *)pass->out)[start + (int64_t)i];
    scio_log1p_f64(wide, wide, n_items);
    divide(wide, n_items, log_base);
    for (size_t i = 0; i < n_items; i++)
        ((float *)pass->out)[start + (int64_t)i] = (float)wide[i];
}

static scio_status
transform_row(const transform_pass *pass, int64_t row, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const int64_t start = scio_row_start(csr, row), end = scio_row_start(csr, row + 1);
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    const double factor = factor_of_row(pass->transform, row);
    double wide[STRETCH];

    if (csr->data_dtype == SCIO_F32 && pass->out_dtype == SCIO_F32 &&
        pass->transform->log_base == 0) {
        transform_f32(pass, (const float *)csr->data + start, factor, (float *)pass->out + start,
                      (size_t)(end - start));
        return check_row(pass, row, start, end, err);
    }
    for (int64_t at = start; at < end; at += STRETCH) {
        const size_t n_items = end - at < STRETCH ? (size_t)(end - at) : (size_t)STRETCH;

        SCIO_TRY(scio_cast(csr->data_dtype, (const char *)csr->data + (size_t)at * itemsize,
                           SCIO_F64, wide, n_items, err));
        finish_wide(pass, wide, factor, at, n_items);
    }
    return check_row(pass, row, start, end, err);
}

static scio_status
transform_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const transform_pass *const pass = context;
    const int64_t first = (int64_t)i_item * pass->rows_per_item;
    const int64_t left = pass->csr->n_rows - first;
    const int64_t n_rows = left < pass->rows_per_item ? left : pass->rows_per_item;

    (void)slot;
    for (int64_t row = first; row < first + n_rows; row++)
        SCIO_TRY(transform_row(pass, row, err));
    return SCIO_OK;
}

scio_status
scio_transform_values(const scio_csr_view *csr, const scio_value_transform *transform,
                      size_t max_parallel, const volatile int *cancel, scio_dtype out_dtype,
                      void *out, scio_error *err)
{
    transform_pass pass = {.csr = csr,
                           .transform = transform,
                           .kernels = scio_kernels(),
                           .rows_per_item = scio_rows_per_item(csr),
                           .out_dtype = out_dtype,
                           .out = out};
    const size_t n_items = (size_t)((csr->n_rows + pass.rows_per_item - 1) / pass.rows_per_item);

    SCIO_BUG_IF(out_dtype != SCIO_F32 && out_dtype != SCIO_F64, err);
    return scio_parallel_for(NULL, max_parallel, n_items, transform_item, &pass, cancel, err);
}
