/* What workers found is put together: counters by addition, doubles in the order of blocks. */
#include "preprocess/gene_stats_private.h"

#include "base/mem.h"
#include "base/pool.h"

#include <string.h>

enum { GENES_PER_JOB = 2048 };

/* --- integers --- */

scio_status
scio_stats_wide_add(scio_wide_sums **tables, size_t n_places, size_t place, uint64_t value,
                    uint64_t n, scio_error *err)
{
    scio_wide_sums *wide;

    if (*tables == NULL)
        SCIO_TRY(scio_mem_zalloc(n_places, sizeof **tables, tables, err));
    wide = *tables + place;
    wide->s += (scio_u128)value * n;
    wide->q += (scio_u128)value * value * n;
    wide->n += n;
    wide->maximum = value > wide->maximum ? value : wide->maximum;
    return SCIO_OK;
}

static scio_status
flush_wide_locked(scio_gene_stats *stats, scio_stats_slot *slot, scio_error *err)
{
    scio_wide_sums *to;

    if (stats->wide == NULL)
        SCIO_TRY(scio_mem_zalloc(stats->n_genes * stats->n_batches, sizeof *stats->wide,
                                 &stats->wide, err));
    to = stats->wide + (size_t)slot->batch * stats->n_genes;
    for (size_t g = 0; g < stats->n_genes; g++) {
        const scio_wide_sums *const from = &slot->wide[g];

        to[g].s += from->s;
        to[g].q += from->q;
        to[g].n += from->n;
        to[g].maximum = from->maximum > to[g].maximum ? from->maximum : to[g].maximum;
    }
    memset(slot->wide, 0, stats->n_genes * sizeof *slot->wide);
    slot->has_wide = false;
    return SCIO_OK;
}

scio_status
scio_stats_flush(scio_gene_stats *stats, scio_stats_slot *slot, scio_error *err)
{
    const size_t n_bins = stats->n_genes * SCIO_STATS_BINS;
    scio_status status = SCIO_OK;

    if (slot->n_binned == 0)
        return SCIO_OK;
    (void)pthread_mutex_lock(&stats->mutex);
    uint32_t *const to = stats->bins + (size_t)slot->batch * n_bins;
    for (size_t i = 0; i < n_bins; i++)
        to[i] += slot->bins[i];
    stats->n_exact[slot->batch] += slot->n_binned;
    if (slot->has_wide)
        status = flush_wide_locked(stats, slot, err);
    (void)pthread_mutex_unlock(&stats->mutex);
    memset(slot->bins, 0, n_bins * sizeof *slot->bins);
    slot->n_binned = 0;
    return status;
}

/* --- values --- */

static scio_status
join_part(void *context, size_t i_part, size_t slot, scio_error *err)
{
    scio_gene_stats *const stats = context;

    (void)slot;
    for (size_t i = 0; i < stats->n_slots; i++)
        SCIO_TRY(scio_value_counts_join(&stats->values, &stats->slots[i].values, i_part, err));
    return SCIO_OK;
}

/* From now on large values are summed only; those that were counted are added to the sums. */
static scio_status
give_up_values(scio_gene_stats *stats, scio_error *err)
{
    const size_t n_places = stats->n_genes * stats->n_batches;

    for (size_t i = 0; i < SCIO_VALUE_PARTS; i++) {
        const scio_value_part *const part = &stats->values.parts[i];

        for (size_t j = 0; j < part->n_places; j++) {
            const uint64_t key = part->keys[j];

            if (key != 0)
                SCIO_TRY(scio_stats_wide_add(&stats->wide, n_places, (size_t)(key >> 32),
                                             key & UINT32_MAX, part->counts[j], err));
        }
    }
    scio_value_counts_clear(&stats->values);
    stats->has_values = false;
    return SCIO_OK;
}

scio_status
scio_stats_join_values(scio_gene_stats *stats, size_t max_parallel, scio_error *err)
{
    size_t n_used = 0;

    if (!stats->has_values)
        return SCIO_OK;
    for (size_t i = 0; i < stats->n_slots; i++)
        n_used += scio_value_counts_n_used(&stats->slots[i].values);
    if (n_used == 0)
        return SCIO_OK;
    SCIO_TRY(scio_parallel_for(NULL, max_parallel, SCIO_VALUE_PARTS, join_part, stats, NULL, err));
    return scio_value_counts_n_used(&stats->values) > stats->max_values ? give_up_values(stats, err)
                                                                        : SCIO_OK;
}

/* --- doubles --- */

typedef struct join {
    scio_gene_stats *stats;
    const scio_stats_item *items;
    size_t n_items;
} join;

/* Adds and clears one kind of moments of some genes. */
static void
join_moments(scio_moment *block, size_t first, size_t n_genes, size_t place, int64_t n_rows,
             int64_t n_before, double *mean, double *m2)
{
    if (block == NULL || mean == NULL)
        return;
    scio_moments_join(block + first, n_genes, (uint64_t)n_rows, (uint64_t)n_before, mean + place,
                      m2 + place);
}

static void
join_inexact(scio_gene_stats *stats, const scio_inexact *inexact, size_t n_genes, size_t place,
             const scio_stats_item *item)
{
    for (size_t g = 0; g < n_genes; g++) {
        const scio_inexact *const x = &inexact[g];
        const scio_moment *const moment = &x->moment;
        const size_t at = place + g;

        scio_moments_join(moment, 1, (uint64_t)item->n_inexact, (uint64_t)item->n_inexact_before,
                          &stats->mean[at], &stats->m2[at]);
        if (moment->k == 0)
            continue;
        if (stats->n_nonzero[at] == 0 || x->maximum > stats->maximum[at])
            stats->maximum[at] = x->maximum;
        stats->sum[at] += moment->pivot * (double)moment->k + moment->d1;
        stats->n_nonzero[at] += (int64_t)moment->k;
        stats->n_positive[at] += x->n_positive;
        stats->is_fractional[at] |= (uint8_t)x->is_fractional;
    }
}

static scio_status
join_genes(void *context, size_t i_job, size_t slot, scio_error *err)
{
    const join *const j = context;
    scio_gene_stats *const stats = j->stats;
    const size_t first = i_job * GENES_PER_JOB;
    const size_t left = stats->n_genes - first;
    const size_t n = left < GENES_PER_JOB ? left : GENES_PER_JOB;

    (void)slot;
    (void)err;
    for (size_t i = 0; i < j->n_items; i++) {
        const scio_stats_item *const item = &j->items[i];
        const scio_item_tables *const t = &stats->tables[i];
        const size_t place = (size_t)item->batch * stats->n_genes + first;

        join_moments(t->scaled, first, n, place, item->n_rows, item->n_before, stats->scaled_mean,
                     stats->scaled_m2);
        join_moments(t->log, first, n, place, item->n_rows, item->n_before, stats->log_mean,
                     stats->log_m2);
        if (t->scaled != NULL)
            memset(t->scaled + first, 0, n * sizeof *t->scaled);
        if (t->log != NULL)
            memset(t->log + first, 0, n * sizeof *t->log);
        if (item->n_inexact == 0)
            continue;
        join_inexact(stats, t->inexact + first, n, place, item);
        memset(t->inexact + first, 0, n * sizeof *t->inexact);
    }
    return SCIO_OK;
}

/* The tables of all rows that are no counts, on the first of them. */
static scio_status
make_inexact(scio_gene_stats *stats, scio_error *err)
{
    const size_t n = stats->n_genes * stats->n_batches;

    if (stats->is_fractional != NULL)
        return SCIO_OK;
    SCIO_TRY(scio_mem_zalloc(n, sizeof *stats->mean, &stats->mean, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *stats->m2, &stats->m2, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *stats->sum, &stats->sum, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *stats->maximum, &stats->maximum, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *stats->n_nonzero, &stats->n_nonzero, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *stats->n_positive, &stats->n_positive, err));
    return scio_mem_zalloc(n, sizeof *stats->is_fractional, &stats->is_fractional, err);
}

scio_status
scio_stats_join_items(scio_gene_stats *stats, scio_stats_item *items, size_t n_items,
                      size_t max_parallel, scio_error *err)
{
    const join j = {stats, items, n_items};
    const size_t n_jobs = (stats->n_genes + GENES_PER_JOB - 1) / GENES_PER_JOB;
    int64_t n_inexact = 0;

    for (size_t i = 0; i < n_items; i++) {
        scio_stats_item *const item = &items[i];

        item->n_before = stats->n_joined[item->batch];
        item->n_inexact_before = stats->n_inexact[item->batch];
        stats->n_joined[item->batch] += item->n_rows;
        stats->n_inexact[item->batch] += item->n_inexact;
        n_inexact += item->n_inexact;
    }
    if (n_inexact > 0)
        SCIO_TRY(make_inexact(stats, err));
    if (n_inexact == 0 && stats->scaled_mean == NULL && stats->log_mean == NULL)
        return SCIO_OK;
    return scio_parallel_for(NULL, max_parallel, n_jobs, join_genes, (void *)(uintptr_t)&j, NULL,
                             err);
}
