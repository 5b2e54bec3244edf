/* Statistics of every gene (and batch) and every cell from one pass over rows.
 *
 * Rows of non-negative integers (below 2^48) are counted: how often each gene has each value up to
 * 15 in a table of counters, larger values in a table of counts by value.  Sums, sums of squares,
 * numbers of cells and maxima follow from these tables, exactly, whatever the order of rows.
 * Other rows, and values that are divided by the cell's total, are summed in double per block of
 * SCIO_BLOCK_ROWS rows and batch, and blocks join in order (moments.h).
 * So the bits of a result do not depend on threads, windows, storage or dtype.
 *
 * An object takes rows in order, by blocks that begin at multiples of SCIO_BLOCK_ROWS.  After an
 * error it is only good for being freed.  One thread at a time; the work is shared by the pool. */
#ifndef SCIO_PREPROCESS_GENE_STATS_H
#define SCIO_PREPROCESS_GENE_STATS_H

#include "base/error.h"
#include "preprocess/moments.h"
#include "sparse/csr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SCIO_STATS_BINS = 16,     /* a counter for each value below */
    SCIO_STATS_MAX_FLAGS = 64 /* sets of genes whose totals are asked for */
};

typedef enum scio_transform { SCIO_TRANSFORM_NONE, SCIO_TRANSFORM_EXPM1 } scio_transform;

typedef struct scio_stats_spec {
    int64_t n_genes, n_batches; /* n_genes * n_batches < 2^32 */
    bool wants_scaled;          /* moments of x / total of the cell */
    double target_sum;          /* > 0: moments of log1p(x * target_sum / total), both factors'
                                   result rounded to float32 as normalize_total and log1p do */
    scio_transform transform;   /* EXPM1: moments of expm1(x * factor) instead of those of x */
    double factor;
    const uint64_t *flags; /* [n_genes], bit j: in set j; borrowed while rows are added */
    size_t n_flags;
    const int64_t *tops; /* [n_tops] ascending, in [1, n_genes]; borrowed likewise */
    size_t n_tops;
    size_t max_value_nbytes; /* budget of the table of counts by value */
} scio_stats_spec;

/* Where the results of cells go, one entry (or n_tops, n_flags of them) per row that is added;
 * pointers may be NULL. */
typedef struct scio_stats_cells {
    double *totals;
    int64_t *n_detected;
    double *top_sums, *flag_sums;
} scio_stats_cells;

/* The first value of a kind: lowest row, then lowest gene; row -1: there is none. */
typedef struct scio_stats_example {
    int64_t row, gene;
    double value;
} scio_stats_example;

typedef struct scio_stats_facts {
    int64_t n_rows;
    int64_t n_nonzero, n_fractional, n_negative, n_not_finite; /* stored values */
    scio_stats_example fractional, negative, not_finite;
} scio_stats_facts;

typedef struct scio_gene_stats scio_gene_stats;

SCIO_MUST_CHECK scio_status scio_gene_stats_new(const scio_stats_spec *spec, scio_gene_stats **out,
                                                scio_error *err);
void scio_gene_stats_free(scio_gene_stats *stats);

/* Adds the rows that follow those before; all calls but the last bring a multiple of
 * SCIO_BLOCK_ROWS.  batches[n_rows] in [0, n_batches), NULL: all 0.  Rows may be unsorted and hold
 * a gene twice; indptr must have passed the STRUCTURE gate, indices are checked here (ECORRUPT).
 * Values that are not finite are noted in the facts and left out. */
SCIO_MUST_CHECK scio_status scio_gene_stats_add(scio_gene_stats *stats, const scio_csr_view *rows,
                                                const int32_t *batches,
                                                const scio_stats_cells *cells, size_t max_parallel,
                                                const volatile int *cancel, scio_error *err);

const scio_stats_facts *scio_gene_stats_facts(const scio_gene_stats *stats);

/* Results, all [n_batches * n_genes] unless said; borrowed arrays are valid until the object is
 * freed, and NULL when nothing of that kind was asked for or met. */
typedef struct scio_stats_result {
    /* rows of integers */
    const int64_t *n_exact; /* [n_batches] rows */
    const uint32_t *bins;   /* [n_batches * n_genes * SCIO_STATS_BINS], bin 0 has no meaning */
    /* rows of other numbers */
    const int64_t *n_inexact; /* [n_batches] rows */
    const double *mean, *m2, *sum, *maximum;
    const int64_t *n_nonzero, *n_positive;
    const uint8_t *is_fractional;
    /* all rows */
    const double *scaled_mean, *scaled_m2, *log_mean, *log_m2;
} scio_stats_result;

void scio_gene_stats_result(const scio_gene_stats *stats, scio_stats_result *out);

/* Of the rows of integers: numbers of values > 0, maxima, sums and sums of squares as (low, high)
 * 64-bit halves.  All [n_batches * n_genes], the last two times 2. */
void scio_gene_stats_exact(const scio_gene_stats *stats, int64_t *n_positive_out,
                           double *maximum_out, uint64_t *sums_out, uint64_t *squares_out);

/* How many (value, count) pairs there are, values 1 to 15 included; -1 when they were given up
 * because of the budget, values from 2^32 on, or rows that are no integers. */
int64_t scio_gene_stats_n_values(const scio_gene_stats *stats);
/* The pairs by gene (and batch), values ascending: indptr_out[n_batches * n_genes + 1]. */
SCIO_MUST_CHECK scio_status scio_gene_stats_values(const scio_gene_stats *stats,
                                                   int64_t *indptr_out, uint64_t *values_out,
                                                   int64_t *counts_out, scio_error *err);

#endif
