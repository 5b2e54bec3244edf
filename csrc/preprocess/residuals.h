/* Analytic Pearson residuals of counts: r = (x - mu) / sqrt(mu + mu^2 / theta), mu = s_c s_g / N.
 *
 * Model: Lause, Berens and Kobak, Genome Biology 22 (2021) 258.  A cell whose total or a gene whose
 * sum is 0 has mu = 0 and residual 0.  The variance of a gene is taken in O(stored values +
 * distinct totals): what a zero contributes depends on the cell only through its total, so zero
 * residuals are summed over distinct totals for all cells, and stored values add what they differ
 * by.  All sums are of r less a shift, the residual of a zero at the median total. */
#ifndef SCIO_PREPROCESS_RESIDUALS_H
#define SCIO_PREPROCESS_RESIDUALS_H

#include "sparse/csr.h"

typedef struct scio_residual_model {
    size_t n_genes, n_batches;
    const double *fractions; /* [n_batches * n_genes] s_g / N of the batch */
    const double *shifts;    /* [n_batches * n_genes] */
    const double *clips;     /* [n_batches] |r| is at most that */
    double inverse_theta;    /* 1 / theta, 0 for Poisson */
} scio_residual_model;

/* For every fraction the sums over all cells as if nothing was counted:
 * sums_out[2 n_fractions] = sum of m (r - shift) and of m (r - shift)^2, in the order of
 * totals[n_totals], m = n_cells[n_totals] cells of that total; shifts_out[n_fractions] = r at
 * shift_total.  O(n_fractions * n_totals), threaded over fractions. */
SCIO_MUST_CHECK scio_status scio_residual_zero_sums(
    const double *fractions, size_t n_fractions, const double *totals, const double *n_cells,
    size_t n_totals, double shift_total, double clip, double inverse_theta, size_t max_parallel,
    double *shifts_out, double *sums_out, const volatile int *cancel, scio_error *err);

/* Adds to sums_inout[n_batches * n_genes * 2] what the stored values of a block of rows change.
 * cell_totals[n_rows] and batches[n_rows] (NULL: all 0; -1: a cell left out, else below n_batches,
 * which is checked) are of these rows.  In row order for every gene, see gene_ranges.h. */
SCIO_MUST_CHECK scio_status scio_residual_corrections(const scio_csr_view *csr,
                                                      const double *cell_totals,
                                                      const int32_t *batches,
                                                      const scio_residual_model *model,
                                                      size_t max_parallel, double *sums_inout,
                                                      const volatile int *cancel, scio_error *err);

/* Dense residuals of a block of rows: out[n_rows * n_cols] of out_dtype, F32 or F64 (rounded once).
 * fractions[n_cols]; indices are checked.  Threaded over rows. */
SCIO_MUST_CHECK scio_status scio_residual_rows(const scio_csr_view *csr, const double *cell_totals,
                                               const double *fractions, double clip,
                                               double inverse_theta, size_t max_parallel, void *out,
                                               scio_dtype out_dtype, const volatile int *cancel,
                                               scio_error *err);

/* batches[n_rows] lie in [-1, n_batches); NULL is fine. */
SCIO_MUST_CHECK scio_status scio_batches_validate(const int32_t *batches, size_t n_rows,
                                                  size_t n_batches, scio_error *err);

#endif
