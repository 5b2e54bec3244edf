/* What the files of gene_stats share. */
#ifndef SCIO_PREPROCESS_GENE_STATS_PRIVATE_H
#define SCIO_PREPROCESS_GENE_STATS_PRIVATE_H

#include "preprocess/gene_stats.h"
#include "preprocess/value_counts.h"

#include <pthread.h>

/* Sums of values that have no counter: those from 2^32 on, and all above 15 once the table of
 * counts by value was given up. */
typedef struct scio_wide_sums {
    scio_u128 s, q;
    uint64_t n, maximum;
} scio_wide_sums;

/* Values of rows that are no counts; the moment is that of transformed values if there is a
 * transform. */
typedef struct scio_inexact {
    scio_moment moment;
    double maximum; /* of the non-zero values */
    uint32_t n_positive, is_fractional;
} scio_inexact;

/* The doubles of one item; a table is NULL until it is needed and zero between items. */
typedef struct scio_item_tables {
    scio_moment *scaled, *log; /* [n_genes] */
    scio_inexact *inexact;     /* [n_genes] */
} scio_item_tables;

/* A run of rows of one block and one batch. */
typedef struct scio_stats_item {
    int32_t batch;
    int64_t first, n_rows;              /* in the order of rows by batch */
    int64_t n_inexact;                  /* of them, once it has run: rows that are no counts */
    int64_t n_before, n_inexact_before; /* rows of the batch joined before this item's */
} scio_stats_item;

/* One worker's memory. */
typedef struct scio_stats_slot {
    uint16_t *bins; /* [n_genes * SCIO_STATS_BINS] of n_binned rows of one batch */
    int64_t n_binned;
    int32_t batch;
    scio_value_counts values;
    scio_wide_sums *wide; /* [n_genes], NULL until needed; of `batch` */
    bool has_wide;
    size_t n_room;  /* entries of a row */
    int32_t *genes; /* [n_room] of a row that is not taken as it lies */
    double *values_f64, *work;
    float *work_f32;
    uint64_t *keys;  /* [2 * n_room] */
    uint32_t *large; /* [n_room] positions of values without a counter */
    scio_stats_facts facts;
} scio_stats_slot;

struct scio_gene_stats {
    scio_stats_spec spec;
    size_t n_genes, n_batches;
    uint32_t *bins;
    scio_value_counts values;
    size_t max_values;                       /* entries of `values` within the budget */
    bool has_values;                         /* not given up */
    int64_t *n_exact, *n_inexact, *n_joined; /* [n_batches] rows */
    double *mean, *m2, *sum, *maximum;       /* of rows that are no counts, from the first on */
    int64_t *n_nonzero, *n_positive;
    uint8_t *is_fractional;
    double *scaled_mean, *scaled_m2, *log_mean, *log_m2;
    scio_stats_facts facts;
    bool is_broken;
    scio_stats_slot *slots;
    size_t n_slots;
    scio_item_tables *tables;
    size_t n_tables;
    pthread_mutex_t mutex;
    /* guarded by mutex while items run: `bins`, `n_exact` and: */
    scio_wide_sums *wide; /* NULL until needed */
};

/* One row, sorted, every gene once. */
typedef struct scio_stats_row {
    const int32_t *genes;
    const void *values;
    scio_dtype dtype; /* F32, I32, U16 or F64 */
    size_t n_items;
    int64_t row;           /* of the whole matrix */
    double total, maximum; /* the maximum when is_narrow */
    size_t n_detected;
    bool is_exact;  /* non-negative integers below 2^48 */
    bool is_narrow; /* and so small that they fit int32, see the template */
    bool has_not_finite;
} scio_stats_row;

/* Row i of `rows`, checked and made canonical, with its total; positions in messages count from
 * the rows' own beginning. */
SCIO_MUST_CHECK scio_status scio_stats_row_prepare(const scio_gene_stats *stats,
                                                   const scio_csr_view *rows, int64_t i_row,
                                                   scio_stats_slot *slot, scio_stats_row *out,
                                                   scio_error *err);
/* Counts a row into the tables. */
SCIO_MUST_CHECK scio_status scio_stats_row_count(const scio_gene_stats *stats,
                                                 const scio_stats_row *row, scio_stats_slot *slot,
                                                 scio_item_tables *tables, scio_error *err);
/* The values as doubles: where they lie, or in slot->values_f64. */
const double *scio_stats_row_doubles(const scio_stats_row *row, scio_stats_slot *slot);

/* Adds the slot's counters of its batch to those of all and clears them. */
SCIO_MUST_CHECK scio_status scio_stats_flush(scio_gene_stats *stats, scio_stats_slot *slot,
                                             scio_error *err);
/* n times `value` at a place of *tables, which is made with n_places when it is NULL. */
SCIO_MUST_CHECK scio_status scio_stats_wide_add(scio_wide_sums **tables, size_t n_places,
                                                size_t place, uint64_t value, uint64_t n,
                                                scio_error *err);
/* Joins the doubles of items [first, first + n_items) to those of all, in order; their tables are
 * cleared. */
SCIO_MUST_CHECK scio_status scio_stats_join_items(scio_gene_stats *stats, scio_stats_item *items,
                                                  size_t n_items, size_t max_parallel,
                                                  scio_error *err);
/* Joins the slots' values to those of all, and gives them up when they exceed the budget. */
SCIO_MUST_CHECK scio_status scio_stats_join_values(scio_gene_stats *stats, size_t max_parallel,
                                                   scio_error *err);

#endif
