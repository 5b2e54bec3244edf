#include "preprocess/residuals.h"

#include "preprocess/gene_ranges.h"

#include <inttypes.h>
#include <math.h>

/* Stands for 0 where a loop has no branches: the residual of a zero is -1e-150 then, which is lost
 * in any sum. */
#define LEAST_MU 1e-300
/* Fractions, or rows, that a thread takes at a time. */
#define N_FRACTIONS_PER_ITEM 16
#define N_ROWS_PER_ITEM 64

static inline double
clipped(double r, double clip)
{
    r = r > clip ? clip : r;
    return r < -clip ? -clip : r;
}

/* 1 / standard deviation, for mu > 0. */
static inline double
precision(double mu, double inverse_theta)
{
    return 1 / sqrt(mu + mu * mu * inverse_theta);
}

static inline double
residual(double x, double mu, double clip, double inverse_theta)
{
    return mu > 0 ? clipped((x - mu) * precision(mu, inverse_theta), clip) : 0;
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

/* N_FRACTIONS_PER_ITEM genes side by side, so that the loop over them is a loop of vectors; each
 * has its own sums in the order of totals. */
static void
sum_zeros_of_genes(const zero_sums *z, const double *fractions, const double *shifts,
                   double *restrict sum, double *restrict sum_squares)
{
    const double least = -z->clip, inverse_theta = z->inverse_theta;

    for (size_t t = 0; t < z->n_totals; t++) {
        const double total = z->totals[t], n_cells = z->n_cells[t];

        for (size_t j = 0; j < N_FRACTIONS_PER_ITEM; j++) {
            const double product = fractions[j] * total;
            const double mu = product > LEAST_MU ? product : LEAST_MU;
            const double ordinary = (0 - mu) * precision(mu, inverse_theta);
            const double r = ordinary < least ? least : ordinary;
            const double d = r - shifts[j];
            const double weighted = n_cells * d;

            sum[j] += weighted;
            sum_squares[j] += weighted * d;
        }
    }
}

static scio_status
sum_zeros(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const zero_sums *const z = context;
    const size_t begin = i_item * N_FRACTIONS_PER_ITEM;
    double fractions[N_FRACTIONS_PER_ITEM], shifts[N_FRACTIONS_PER_ITEM];
    double sum[N_FRACTIONS_PER_ITEM] = {0}, sum_squares[N_FRACTIONS_PER_ITEM] = {0};

    (void)slot;
    (void)err;
    for (size_t j = 0; j < N_FRACTIONS_PER_ITEM; j++) {
        fractions[j] = begin + j < z->n_fractions ? z->fractions[begin + j] : 0;
        shifts[j] = residual(0, fractions[j] * z->shift_total, z->clip, z->inverse_theta);
    }
    sum_zeros_of_genes(z, fractions, shifts, sum, sum_squares);
    for (size_t j = 0; j < N_FRACTIONS_PER_ITEM && begin + j < z->n_fractions; j++) {
        z->shifts_out[begin + j] = shifts[j];
        z->sums_out[2 * (begin + j)] = sum[j];
        z->sums_out[2 * (begin + j) + 1] = sum_squares[j];
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
    double *sums, clip, mus[SCIO_GENE_STRETCH], precisions[SCIO_GENE_STRETCH];

    if (batch < 0)
        return;
    fractions = model->fractions + (size_t)batch * model->n_genes;
    shifts = model->shifts + (size_t)batch * model->n_genes;
    sums = c->sums + 2 * (size_t)batch * model->n_genes;
    clip = model->clips[batch];
    /* two loops: the first, where roots and quotients are, is one of vectors */
    for (size_t i = 0; i < n_items; i++)
        mus[i] = total * fractions[genes[i]];
    for (size_t i = 0; i < n_items; i++)
        precisions[i] = precision(mus[i], inverse_theta);
    for (size_t i = 0; i < n_items; i++) {
        const size_t g = (size_t)genes[i];
        const double r = clipped((values[i] - mus[i]) * precisions[i], clip);
        const double zero = clipped((0 - mus[i]) * precisions[i], clip);

        if (!(mus[i] > 0))
            continue;
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
    int64_t genes[SCIO_GENE_STRETCH];
    double values[SCIO_GENE_STRETCH];

    for (size_t g = 0; g < n_genes; g++)
        put(d, i_row * n_genes + g,
            residual(0, total * d->fractions[g], d->clip, d->inverse_theta));
    for (size_t first = (size_t)csr->indptr[i_row]; first < end; first += SCIO_GENE_STRETCH) {
        const size_t n_items = min_size(SCIO_GENE_STRETCH, end - first);

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
