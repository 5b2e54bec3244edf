/* What follows from the tables; see gene_stats.h. */
#include "preprocess/gene_stats_private.h"

#include "base/mem.h"

#include <string.h>

const scio_stats_facts *
scio_gene_stats_facts(const scio_gene_stats *stats)
{
    return &stats->facts;
}

void
scio_gene_stats_result(const scio_gene_stats *stats, scio_stats_result *out)
{
    *out = (scio_stats_result){
        .n_exact = stats->n_exact,
        .bins = stats->bins,
        .n_inexact = stats->n_inexact,
        .mean = stats->mean,
        .m2 = stats->m2,
        .sum = stats->sum,
        .maximum = stats->maximum,
        .n_nonzero = stats->n_nonzero,
        .n_positive = stats->n_positive,
        .is_fractional = stats->is_fractional,
        .scaled_mean = stats->scaled_mean,
        .scaled_m2 = stats->scaled_m2,
        .log_mean = stats->log_mean,
        .log_m2 = stats->log_m2,
    };
}

/* --- exact sums --- */

/* Adds n times `value` to what is known of a place; sums as (low, high). */
static void
add_value(uint64_t value, uint64_t n, int64_t *n_positive, double *maximum, scio_u128 *s,
          scio_u128 *q)
{
    *n_positive += (int64_t)n;
    *maximum = (double)value > *maximum ? (double)value : *maximum;
    *s += (scio_u128)value * n;
    *q += (scio_u128)value * value * n;
}

static scio_u128
load(const uint64_t *halves)
{
    return (scio_u128)halves[1] << 64 | halves[0];
}

static void
store(scio_u128 value, uint64_t *halves)
{
    halves[0] = (uint64_t)value;
    halves[1] = (uint64_t)(value >> 64);
}

static void
add_large_values(const scio_gene_stats *stats, int64_t *n_positive, double *maximum, uint64_t *sums,
                 uint64_t *squares)
{
    for (size_t i = 0; i < SCIO_VALUE_PARTS; i++) {
        const scio_value_part *const part = &stats->values.parts[i];

        for (size_t j = 0; j < part->n_places; j++) {
            const size_t p = (size_t)(part->keys[j] >> 32);
            scio_u128 s, q;

            if (part->keys[j] == 0)
                continue;
            s = load(sums + 2 * p);
            q = load(squares + 2 * p);
            add_value(part->keys[j] & UINT32_MAX, part->counts[j], &n_positive[p], &maximum[p], &s,
                      &q);
            store(s, sums + 2 * p);
            store(q, squares + 2 * p);
        }
    }
}

void
scio_gene_stats_exact(const scio_gene_stats *stats, int64_t *n_positive_out, double *maximum_out,
                      uint64_t *sums_out, uint64_t *squares_out)
{
    const size_t n_places = stats->n_genes * stats->n_batches;

    for (size_t p = 0; p < n_places; p++) {
        const uint32_t *const bins = stats->bins + p * SCIO_STATS_BINS;
        scio_u128 s = 0, q = 0;

        n_positive_out[p] = 0;
        maximum_out[p] = 0;
        for (uint64_t v = 1; v < SCIO_STATS_BINS; v++) {
            if (bins[v] != 0)
                add_value(v, bins[v], &n_positive_out[p], &maximum_out[p], &s, &q);
        }
        if (stats->wide != NULL && stats->wide[p].n != 0) {
            const scio_wide_sums *const wide = &stats->wide[p];
            const double most = (double)wide->maximum;

            s += wide->s;
            q += wide->q;
            n_positive_out[p] += (int64_t)wide->n;
            maximum_out[p] = most > maximum_out[p] ? most : maximum_out[p];
        }
        store(s, sums_out + 2 * p);
        store(q, squares_out + 2 * p);
    }
    add_large_values(stats, n_positive_out, maximum_out, sums_out, squares_out);
}

/* --- values and how often they are there --- */

static size_t
n_set_bins(const uint32_t *bins)
{
    size_t n = 0;

    for (size_t v = 1; v < SCIO_STATS_BINS; v++)
        n += bins[v] != 0;
    return n;
}

int64_t
scio_gene_stats_n_values(const scio_gene_stats *stats)
{
    const size_t n_places = stats->n_genes * stats->n_batches;
    size_t n = scio_value_counts_n_used(&stats->values);

    if (!stats->has_values || stats->wide != NULL || stats->is_fractional != NULL)
        return -1;
    for (size_t p = 0; p < n_places; p++)
        n += n_set_bins(stats->bins + p * SCIO_STATS_BINS);
    return (int64_t)n;
}

scio_status
scio_gene_stats_values(const scio_gene_stats *stats, int64_t *indptr_out, uint64_t *values_out,
                       int64_t *counts_out, scio_error *err)
{
    const size_t n_places = stats->n_genes * stats->n_batches;
    const size_t n_large = scio_value_counts_n_used(&stats->values);
    uint64_t *large = NULL;
    int64_t *large_counts = NULL, *large_indptr = NULL;
    size_t n = 0;
    scio_status status;

    SCIO_BUG_IF(scio_gene_stats_n_values(stats) < 0, err);
    status = scio_mem_alloc(n_places + 1, sizeof *large_indptr, &large_indptr, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_large, sizeof *large, &large, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_large, sizeof *large_counts, &large_counts, err);
    if (status == SCIO_OK)
        status = scio_value_counts_sorted(&stats->values, n_places, large_indptr, large,
                                          large_counts, err);
    for (size_t p = 0; status == SCIO_OK && p < n_places; p++) {
        const uint32_t *const bins = stats->bins + p * SCIO_STATS_BINS;

        indptr_out[p] = (int64_t)n;
        for (uint64_t v = 1; v < SCIO_STATS_BINS; v++) {
            if (bins[v] != 0) {
                values_out[n] = v;
                counts_out[n++] = bins[v];
            }
        }
        for (int64_t i = large_indptr[p]; i < large_indptr[p + 1]; i++) {
            values_out[n] = large[i];
            counts_out[n++] = large_counts[i];
        }
    }
    indptr_out[n_places] = (int64_t)n;
    scio_mem_free(large_indptr);
    scio_mem_free(large);
    scio_mem_free(large_counts);
    return status;
}
