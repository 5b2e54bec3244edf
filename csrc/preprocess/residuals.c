#include "preprocess/residuals.h"

#include "preprocess/gene_ranges.h"

#include <inttypes.h>
#include <math.h>

/* Fractions, or rows, that a thread takes at a time. */
#define N_FRACTIONS_PER_ITEM 16
#define N_ROWS_PER_ITEM 64
#define N_STRETCH 128

static inline double
clipped(double r, double clip)
{
    r = r > clip ? clip : r;
    return r < -clip ? -clip : r;
}

/* For mu > 0. */
static inline double
spread(double mu, double inverse_theta)
{
    return sqrt(mu + mu * mu * inverse_theta);
}

static inline double
residual(double x, double mu, double clip, double inverse_theta)
{
    return mu > 0 ? clipped((x - mu) / spread(mu, inverse_theta), clip) : 0;
}

static size_t
min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* --- zeros */

typedef struct zero_sums {
    const double *fractions, *totals, *n_cells;
    size_t n_fractions, n_totals;
    double shift_total, clip, inverse_theta;
    double *shifts_out, *sums_out;
} zero_sums;

static scio_status
sum_zeros(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const zero_sums *const z = context;
    const size_t begin = i_item * N_FRACTIONS_PER_ITEM;
    const size_t end = min_size(begin + N_FRACTIONS_PER_ITEM, z->n_fractions);

    (void)slot;
    (void)err;
    for (size_t g = begin; g < end; g++) {
        const double fraction = z->fractions[g];
        const double shift = residual(0, fraction * z->shift_total, z->clip, z->inverse_theta);
        double sum = 0, sum_squares = 0;

        for (size_t t = 0; t < z->n_totals; t++) {
            const double r = residual(0, fraction * z->totals[t], z->clip, z->inverse_theta);
            const double weighted = z->n_cells[t] * (r - shift);

            sum += weighted;
            sum_squares += weighted * (r - shift);
        }
        z->shifts_out[g] = shift;
        z->sums_out[2 * g] = sum;
        z->sums_out[2 * g + 1] = sum_squares;
    }
    return SCIO_OK;
}

scio_status
scio_residual_zero_sums(const double *fractions, size_t n_fractions, const double *totals,
                        const double *n_cells, size_t n_totals, double shift_total, double clip,
                        double inverse_theta, size_t max_parallel, double *shifts_out,
                        double *sums_out, const volatile int *cancel, scio_error *err)
{
    zero_sums z = {.fractions = fractions,
                   .totals = totals,
                   .n_cells = n_cells,
                   .n_fractions = n_fractions,
                   .n_totals = n_totals,
                   .shift_total = shift_total,
                   .clip = clip,
                   .inverse_theta = inverse_theta,
                   .shifts_out = shifts_out,
                   .sums_out = sums_out};
    const size_t n_items = n_fractions / N_FRACTIONS_PER_ITEM + 1;

    return scio_parallel_for(NULL, max_parallel, n_items, sum_zeros, &z, cancel, err);
}

/* --- stored values */

typedef struct corrections {
    const scio_residual_model *model;
    const double *cell_totals;
    const int32_t *batches;
    double *sums;
} corrections;

static void
correct_stretch(void *context, size_t i_row, const int64_t *genes, const double *values,
                size_t n_items)
{
    const corrections *const c = context;
    const scio_residual_model *const model = c->model;
    const int32_t batch = c->batches == NULL ? 0 : c->batches[i_row];
    const double total = c->cell_totals[i_row], inverse_theta = model->inverse_theta;
    const double *fractions, *shifts;
    double *sums, clip;

    if (batch < 0)
        return;
    fractions = model->fractions + (size_t)batch * model->n_genes;
    shifts = model->shifts + (size_t)batch * model->n_genes;
    sums = c->sums + 2 * (size_t)batch * model->n_genes;
    clip = model->clips[batch];
    for (size_t i = 0; i < n_items; i++) {
        const size_t g = (size_t)genes[i];
        const double mu = total * fractions[g];
        double scale, r, zero;

        if (!(mu > 0))
            continue;
        scale = spread(mu, inverse_theta);
        r = clipped((values[i] - mu) / scale, clip);
        zero = clipped((0 - mu) / scale, clip);
        sums[2 * g] += r - zero;
        /* (r - shift)^2 - (zero - shift)^2 */
        sums[2 * g + 1] += (r - zero) * ((r - shifts[g]) + (zero - shifts[g]));
    }
}

scio_status
scio_batches_validate(const int32_t *batches, size_t n_rows, size_t n_batches, scio_error *err)
{
    if (batches == NULL)
        return SCIO_OK;
    for (size_t i = 0; i < n_rows; i++) {
        if (batches[i] < -1 || (batches[i] >= 0 && (size_t)batches[i] >= n_batches))
            return scio_fail(err, SCIO_ERANGE, "batch %" PRId32 " of cell %zu, there are %zu",
                             batches[i], i, n_batches);
    }
    return SCIO_OK;
}

scio_status
scio_residual_corrections(const scio_csr_view *csr, const double *cell_totals,
                          const int32_t *batches, const scio_residual_model *model,
                          size_t max_parallel, double *sums_inout, const volatile int *cancel,
                          scio_error *err)
{
    corrections c = {model, cell_totals, batches, sums_inout};

    SCIO_BUG_IF((size_t)csr->n_cols != model->n_genes, err);
    SCIO_TRY(scio_batches_validate(batches, (size_t)csr->n_rows, model->n_batches, err));
    return scio_gene_ranges_visit(csr, max_parallel, correct_stretch, &c, cancel, err);
}

/* --- rows */

typedef struct dense_rows {
    const scio_csr_view *csr;
    const double *cell_totals, *fractions;
    double clip, inverse_theta;
    char *out;
    scio_dtype out_dtype;
} dense_rows;

static void
put(const dense_rows *d, size_t i, double r)
{
    if (d->out_dtype == SCIO_F64)
        ((double *)(void *)d->out)[i] = r;
    else
        ((float *)(void *)d->out)[i] = (float)r;
}

static scio_status
fill_row(const dense_rows *d, size_t i_row, scio_error *err)
{
    const scio_csr_view *const csr = d->csr;
    const size_t n_genes = (size_t)csr->n_cols;
    const size_t end = (size_t)csr->indptr[i_row + 1];
    const size_t value_nbytes = scio_dtype_itemsize(csr->data_dtype);
    const size_t index_nbytes = scio_dtype_itemsize(csr->index_dtype);
    const double total = d->cell_totals[i_row];
    int64_t genes[N_STRETCH];
    double values[N_STRETCH];

    for (size_t g = 0; g < n_genes; g++)
        put(d, i_row * n_genes + g,
            residual(0, total * d->fractions[g], d->clip, d->inverse_theta));
    for (size_t first = (size_t)csr->indptr[i_row]; first < end; first += N_STRETCH) {
        const size_t n_items = min_size(N_STRETCH, end - first);

        SCIO_TRY(scio_cast(csr->data_dtype, (const char *)csr->data + first * value_nbytes,
                           SCIO_F64, values, n_items, err));
        SCIO_TRY(scio_cast(csr->index_dtype, (const char *)csr->indices + first * index_nbytes,
                           SCIO_I64, genes, n_items, err));
        SCIO_TRY(scio_indices_validate(genes, SCIO_I64, n_items, csr->n_cols, (int64_t)first, err));
        for (size_t i = 0; i < n_items; i++) {
            const size_t g = (size_t)genes[i];

            put(d, i_row * n_genes + g,
                residual(values[i], total * d->fractions[g], d->clip, d->inverse_theta));
        }
    }
    return SCIO_OK;
}

static scio_status
fill_rows(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const dense_rows *const d = context;
    const size_t begin = i_item * N_ROWS_PER_ITEM;
    const size_t end = min_size(begin + N_ROWS_PER_ITEM, (size_t)d->csr->n_rows);

    (void)slot;
    for (size_t i = begin; i < end; i++)
        SCIO_TRY(fill_row(d, i, err));
    return SCIO_OK;
}

scio_status
scio_residual_rows(const scio_csr_view *csr, const double *cell_totals, const double *fractions,
                   double clip, double inverse_theta, size_t max_parallel, void *out,
                   scio_dtype out_dtype, const volatile int *cancel, scio_error *err)
{
    dense_rows d = {csr, cell_totals, fractions, clip, inverse_theta, out, out_dtype};
    const size_t n_items = (size_t)csr->n_rows / N_ROWS_PER_ITEM + 1;

    SCIO_BUG_IF(out_dtype != SCIO_F32 && out_dtype != SCIO_F64, err);
    return scio_parallel_for(NULL, max_parallel, n_items, fill_rows, &d, cancel, err);
}
