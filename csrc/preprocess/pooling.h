/* Size factors by pooling (Lun, Bach and Marioni, Genome Biology 17 (2016) 75), one cluster of
 * cells at a time: cells on a ring by size, medians over genes of sums over windows of that ring,
 * and the factors that explain them best.
 *
 * Ratios are rounded to multiples of a power of two for each gene so that no sum over a window is
 * ever rounded: sums do not depend on the order of their terms, and taking a cell out undoes
 * putting it in. */
#ifndef SCIO_PREPROCESS_POOLING_H
#define SCIO_PREPROCESS_POOLING_H

#include "base/error.h"
#include "sparse/csr.h"

#include <stddef.h>
#include <stdint.h>

/* --- rows of counts; one at a time, so that what comes is the same for any blocks of rows.  A row
 * is put in order of its columns, values of equal columns are summed in the order they are stored
 * in and zeros left out.  EINVAL names the cell and gene of a negative value, NaN or infinity,
 * ECORRUPT an index out of range. */

typedef struct scio_pooling_block {
    scio_csr_view rows; /* indptr need not begin at 0 */
    int64_t first_row;  /* of the whole matrix; for messages */
    const int32_t
        *parts; /* [n_rows] which part a cell belongs to, in [0, n_parts); negative: none */
    int64_t n_parts;
} scio_pooling_block;

/* What was met on the way, added up over blocks; begins as zeros. */
typedef struct scio_pooling_facts {
    int64_t n_values, n_fractions; /* values above 0, those of them that are no integers */
    double maximum;
    int64_t row, column; /* of the first fraction */
    double fraction;
} scio_pooling_facts;

/* totals[n_rows] = sum of each row; for cells of a part with a total above 0, sums and maxima
 * [n_parts, n_cols] take the values over that total.  O(nnz); looks at `cancel` (may be NULL). */
SCIO_MUST_CHECK scio_status scio_pooling_scan(const scio_pooling_block *block, double *totals_out,
                                              double *sums_inout, double *maxima_inout,
                                              scio_pooling_facts *facts_inout,
                                              const volatile int *cancel, scio_error *err);

typedef struct scio_pooling_genes {
    const int32_t *positions; /* [n_parts, n_cols] among the kept genes of a part; negative: not */
    const double *averages;   /* [n_parts, n_cols] what a value over its total is divided by */
    const double *magics; /* [n_parts, n_cols] adding and subtracting this rounds the quotient */
} scio_pooling_genes;

/* Ratios of the kept genes, written one row after another. */
typedef struct scio_pooling_ratios {
    int32_t *genes; /* [capacity] */
    double *values; /* [capacity] */
    size_t capacity, n_used;
} scio_pooling_ratios;

/* Appends the rows that have a part and a total above 0; starts[n_rows], counts[n_rows] say where
 * they lie (counts 0 for the others).  ERANGE when they do not fit. */
SCIO_MUST_CHECK scio_status scio_pooling_take(const scio_pooling_block *block, const double *totals,
                                              const scio_pooling_genes *genes,
                                              scio_pooling_ratios *ratios_inout,
                                              int64_t *starts_out, int64_t *counts_out,
                                              const volatile int *cancel, scio_error *err);

/* --- one cluster */

typedef struct scio_pooling_ring {
    int64_t n_cells, n_genes;
    const int64_t *starts; /* [n_cells] where the row of a cell begins, in the order of the ring */
    const int64_t *counts; /* [n_cells] */
    const int32_t *genes;  /* [nnz] in [0, n_genes) */
    const double *values;  /* [nnz] */
    int64_t nnz;
} scio_pooling_ring;

/* medians[n_sizes, n_cells]: of the sums over genes of sizes[i] cells from each on, the middle one
 * or the mean of the two middle ones.  Sizes in [1, n_cells], else EINVAL; n_genes >= 1.
 * O(n_sizes * n_cells * (n_genes + values of a cell)), parallel; 2 * n_genes doubles a thread. */
SCIO_MUST_CHECK scio_status scio_pooling_medians(const scio_pooling_ring *ring,
                                                 const int64_t *sizes, size_t n_sizes,
                                                 size_t max_parallel, double *medians_out,
                                                 const volatile int *cancel, scio_error *err);

/* factors[n_cells] that minimise the sum over sizes and windows of (sum of factors - median)^2 plus
 * 1e-6 times the sum over cells of (factor - weak)^2.  O(n_sizes n log n), parallel. */
SCIO_MUST_CHECK scio_status scio_pooling_solve(const double *medians, const int64_t *sizes,
                                               size_t n_sizes, int64_t n_cells, double weak,
                                               size_t max_parallel, double *factors_out,
                                               const volatile int *cancel, scio_error *err);

/* EINVAL names the first size outside [1, n_cells]. */
SCIO_MUST_CHECK scio_status scio_pooling_check_sizes(const int64_t *sizes, size_t n_sizes,
                                                     int64_t n_cells, scio_error *err);

#endif
