/* One pass of statistics: rows in items, items in waves; see gene_stats.h.
 *
 * An item is the rows of one batch in one block.  Items of a wave run in parallel, each with tables
 * of doubles of its own (where it needs any) and with the counters of its worker; after the wave
 * the doubles are joined in order, gene ranges in parallel.  Counters stay with their worker until
 * it changes to another batch or they could overflow. */
#include "preprocess/gene_stats_private.h"

#include "base/mem.h"
#include "base/pool.h"
#include "preprocess/qc.h"

#include <inttypes.h>
#include <string.h>

enum {
    COUNTER_ROWS = UINT16_MAX, /* a counter grows by at most 1 with a row */
    WAVE_ITEMS = 32,           /* of a wave that is not expected to need doubles */
    WAVE_ITEMS_PER_SLOT = 2    /* of one that is: its tables are held until the wave ends */
};

/* --- life --- */

static scio_status
check_spec(const scio_stats_spec *spec, scio_error *err)
{
    if (spec->n_genes < 0 || spec->n_batches < 1)
        return scio_fail(err, SCIO_EINVAL, "%" PRId64 " genes and %" PRId64 " batches",
                         spec->n_genes, spec->n_batches);
    if (spec->n_genes > INT32_MAX || spec->n_batches > INT32_MAX ||
        spec->n_genes * spec->n_batches > UINT32_MAX)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "%" PRId64 " genes x %" PRId64 " batches, expected a product below 2^32",
                         spec->n_genes, spec->n_batches);
    if (spec->n_flags > SCIO_STATS_MAX_FLAGS)
        return scio_fail(err, SCIO_EUNSUPPORTED, "%zu sets of genes, expected at most %d",
                         spec->n_flags, SCIO_STATS_MAX_FLAGS);
    for (size_t i = 0; i < spec->n_tops; i++) {
        const int64_t least = i == 0 ? 1 : spec->tops[i - 1];

        if (spec->tops[i] < least || spec->tops[i] > spec->n_genes)
            return scio_fail(err, SCIO_EINVAL,
                             "top %" PRId64 " is not in [%" PRId64 ", %" PRId64 "], ascending",
                             spec->tops[i], least, spec->n_genes);
    }
    return SCIO_OK;
}

static scio_status
make_moments(size_t n_places, double **mean_out, double **m2_out, scio_error *err)
{
    SCIO_TRY(scio_mem_zalloc(n_places, sizeof **mean_out, mean_out, err));
    return scio_mem_zalloc(n_places, sizeof **m2_out, m2_out, err);
}

scio_status
scio_gene_stats_new(const scio_stats_spec *spec, scio_gene_stats **out, scio_error *err)
{
    const scio_stats_example none = {-1, -1, 0};
    const size_t n_genes = (size_t)spec->n_genes, n_batches = (size_t)spec->n_batches;
    const size_t n_places = n_genes * n_batches;
    scio_gene_stats *stats = NULL;
    scio_status status;

    SCIO_TRY(check_spec(spec, err));
    SCIO_TRY(scio_mem_zalloc(1, sizeof *stats, &stats, err));
    (void)pthread_mutex_init(&stats->mutex, NULL);
    stats->spec = *spec;
    stats->n_genes = n_genes;
    stats->n_batches = n_batches;
    stats->has_values = true;
    stats->max_values = spec->max_value_nbytes / (2 * sizeof(uint64_t));
    stats->facts.fractional = stats->facts.negative = stats->facts.not_finite = none;
    status = scio_mem_zalloc(n_places * SCIO_STATS_BINS, sizeof *stats->bins, &stats->bins, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_batches, sizeof *stats->n_exact, &stats->n_exact, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_batches, sizeof *stats->n_inexact, &stats->n_inexact, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_batches, sizeof *stats->n_joined, &stats->n_joined, err);
    if (status == SCIO_OK && spec->wants_scaled)
        status = make_moments(n_places, &stats->scaled_mean, &stats->scaled_m2, err);
    if (status == SCIO_OK && spec->target_sum > 0)
        status = make_moments(n_places, &stats->log_mean, &stats->log_m2, err);
    if (status != SCIO_OK) {
        scio_gene_stats_free(stats);
        return status;
    }
    *out = stats;
    return SCIO_OK;
}

static void
clear_slot(scio_stats_slot *slot)
{
    scio_value_counts_clear(&slot->values);
    scio_mem_free(slot->bins);
    scio_mem_free(slot->wide);
    scio_mem_free(slot->genes);
    scio_mem_free(slot->values_f64);
    scio_mem_free(slot->work);
    scio_mem_free(slot->work_f32);
    scio_mem_free(slot->keys);
    scio_mem_free(slot->large);
}

void
scio_gene_stats_free(scio_gene_stats *stats)
{
    if (stats == NULL)
        return;
    for (size_t i = 0; i < stats->n_slots; i++)
        clear_slot(&stats->slots[i]);
    for (size_t i = 0; i < stats->n_tables; i++) {
        scio_mem_free(stats->tables[i].scaled);
        scio_mem_free(stats->tables[i].log);
        scio_mem_free(stats->tables[i].inexact);
    }
    void *const owned[] = {
        stats->slots,     stats->tables,        stats->bins,     stats->n_exact, stats->n_inexact,
        stats->n_joined,  stats->mean,          stats->m2,       stats->sum,     stats->maximum,
        stats->n_nonzero, stats->n_positive,    stats->log_mean, stats->log_m2,  stats->scaled_mean,
        stats->scaled_m2, stats->is_fractional, stats->wide};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        scio_mem_free(owned[i]);
    scio_value_counts_clear(&stats->values);
    (void)pthread_mutex_destroy(&stats->mutex);
    scio_mem_free(stats);
}

/* --- memory of workers --- */

static scio_status
make_room(scio_gene_stats *stats, scio_stats_slot *slot, size_t n_room, scio_error *err)
{
    const bool needs_f32 = stats->spec.target_sum > 0;

    if (slot->bins == NULL)
        SCIO_TRY(scio_mem_zalloc(stats->n_genes * SCIO_STATS_BINS, sizeof *slot->bins, &slot->bins,
                                 err));
    if (slot->n_room >= n_room && slot->genes != NULL)
        return SCIO_OK;
    slot->n_room = 0;
    SCIO_TRY(scio_mem_realloc(&slot->genes, n_room, sizeof *slot->genes, err));
    SCIO_TRY(scio_mem_realloc(&slot->values_f64, n_room, sizeof *slot->values_f64, err));
    SCIO_TRY(scio_mem_realloc(&slot->work, n_room, sizeof *slot->work, err));
    if (needs_f32)
        SCIO_TRY(scio_mem_realloc(&slot->work_f32, n_room, sizeof *slot->work_f32, err));
    SCIO_TRY(scio_mem_realloc(&slot->keys, n_room, 2 * sizeof *slot->keys, err));
    SCIO_TRY(scio_mem_realloc(&slot->large, n_room, sizeof *slot->large, err));
    slot->n_room = n_room;
    return SCIO_OK;
}

static scio_status
make_slots(scio_gene_stats *stats, const scio_csr_view *rows, size_t n_slots, size_t n_tables,
           scio_error *err)
{
    int64_t longest = 0;

    for (int64_t r = 0; r < rows->n_rows; r++) {
        const int64_t n_items = rows->indptr[r + 1] - rows->indptr[r];

        longest = n_items > longest ? n_items : longest;
    }
    if (longest > UINT32_MAX)
        return scio_fail(err, SCIO_EUNSUPPORTED, "a row of %" PRId64 " entries", longest);
    if (n_slots > stats->n_slots) {
        SCIO_TRY(scio_mem_realloc(&stats->slots, n_slots, sizeof *stats->slots, err));
        memset(stats->slots + stats->n_slots, 0, (n_slots - stats->n_slots) * sizeof *stats->slots);
        stats->n_slots = n_slots;
    }
    if (n_tables > stats->n_tables) {
        SCIO_TRY(scio_mem_realloc(&stats->tables, n_tables, sizeof *stats->tables, err));
        memset(stats->tables + stats->n_tables, 0,
               (n_tables - stats->n_tables) * sizeof *stats->tables);
        stats->n_tables = n_tables;
    }
    for (size_t i = 0; i < n_slots; i++) {
        SCIO_TRY(make_room(stats, &stats->slots[i], (size_t)longest, err));
        stats->slots[i].facts = (scio_stats_facts){.n_rows = stats->facts.n_rows,
                                                   .fractional = {-1, -1, 0},
                                                   .negative = {-1, -1, 0},
                                                   .not_finite = {-1, -1, 0}};
    }
    return SCIO_OK;
}

static scio_status
make_tables(const scio_gene_stats *stats, scio_item_tables *tables, bool is_inexact,
            scio_error *err)
{
    const size_t n = stats->n_genes;

    if (stats->scaled_mean != NULL && tables->scaled == NULL)
        SCIO_TRY(scio_mem_zalloc(n, sizeof *tables->scaled, &tables->scaled, err));
    if (stats->log_mean != NULL && tables->log == NULL)
        SCIO_TRY(scio_mem_zalloc(n, sizeof *tables->log, &tables->log, err));
    if (is_inexact && tables->inexact == NULL)
        SCIO_TRY(scio_mem_zalloc(n, sizeof *tables->inexact, &tables->inexact, err));
    return SCIO_OK;
}

/* --- items --- */

typedef struct adding {
    scio_gene_stats *stats;
    const scio_csr_view *rows;
    const int64_t *order; /* rows by batch; NULL: as they come */
    const scio_stats_cells *cells;
    scio_stats_item *items;
    size_t n_items, first_item; /* first_item: of the wave */
} adding;

static void
put_cell(const adding *a, int64_t i_row, const scio_stats_row *row, scio_stats_slot *slot)
{
    const scio_stats_spec *const spec = &a->stats->spec;
    const scio_stats_cells *const cells = a->cells;
    const size_t i = (size_t)i_row;

    if (cells->totals != NULL)
        cells->totals[i] = row->total;
    if (cells->n_detected != NULL)
        cells->n_detected[i] = (int64_t)row->n_detected;
    if (cells->top_sums != NULL && !row->has_not_finite)
        scio_row_top_sums(scio_stats_row_doubles(row, slot), row->n_items, a->stats->n_genes,
                          row->is_exact, spec->tops, spec->n_tops, slot->work,
                          cells->top_sums + i * spec->n_tops);
    if (cells->flag_sums != NULL)
        scio_row_flag_sums(scio_stats_row_doubles(row, slot), row->genes, row->n_items, spec->flags,
                           spec->n_flags, cells->flag_sums + i * spec->n_flags);
}

static scio_status
run_item(void *context, size_t i_item, size_t i_slot, scio_error *err)
{
    const adding *const a = context;
    scio_gene_stats *const stats = a->stats;
    scio_stats_slot *const slot = &stats->slots[i_slot];
    scio_stats_item *const item = &a->items[a->first_item + i_item];
    scio_item_tables *const tables = &stats->tables[i_item];

    if (slot->batch != item->batch || slot->n_binned + item->n_rows > COUNTER_ROWS)
        SCIO_TRY(scio_stats_flush(stats, slot, err));
    slot->batch = item->batch;
    SCIO_TRY(make_tables(stats, tables, false, err));
    for (int64_t i = item->first; i < item->first + item->n_rows; i++) {
        const int64_t i_row = a->order == NULL ? i : a->order[i];
        scio_stats_row row;

        SCIO_TRY(scio_stats_row_prepare(stats, a->rows, i_row, slot, &row, err));
        put_cell(a, i_row, &row, slot);
        if (!row.is_exact || stats->spec.transform != SCIO_TRANSFORM_NONE) {
            SCIO_TRY(make_tables(stats, tables, true, err));
            item->n_inexact++;
        }
        SCIO_TRY(scio_stats_row_count(stats, &row, slot, tables, err));
    }
    return SCIO_OK;
}

/* Rows in the order of batches, each batch's ascending; NULL for one batch. */
static scio_status
order_rows(const scio_gene_stats *stats, int64_t n_rows, const int32_t *batches,
           int64_t **order_out, scio_error *err)
{
    int64_t *next = NULL, *order = NULL;
    scio_status status;

    *order_out = NULL;
    for (int64_t r = 0; batches != NULL && r < n_rows; r++) {
        if (batches[r] < 0 || (size_t)batches[r] >= stats->n_batches)
            return scio_fail(err, SCIO_ERANGE,
                             "batch of row %" PRId64 " is %" PRId32 ", not in [0, %zu)",
                             stats->facts.n_rows + r, batches[r], stats->n_batches);
    }
    if (batches == NULL || stats->n_batches == 1)
        return SCIO_OK;
    status = scio_mem_zalloc(stats->n_batches + 1, sizeof *next, &next, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc((size_t)n_rows, sizeof *order, &order, err);
    if (status == SCIO_OK) {
        for (int64_t r = 0; r < n_rows; r++)
            next[batches[r] + 1]++;
        for (size_t b = 0; b < stats->n_batches; b++)
            next[b + 1] += next[b];
        for (int64_t r = 0; r < n_rows; r++)
            order[next[batches[r]]++] = r;
        *order_out = order;
    }
    scio_mem_free(next);
    return status;
}

/* Cuts the order of rows where the batch or the block changes; items NULL: counts only. */
static size_t
cut_items(const int32_t *batches, const int64_t *order, int64_t n_rows, scio_stats_item *items)
{
    size_t n_items = 0;
    int64_t stop;

    for (int64_t start = 0; start < n_rows; start = stop) {
        const int64_t row = order == NULL ? start : order[start];
        const int32_t batch = order == NULL ? 0 : batches[row];

        for (stop = start + 1; stop < n_rows; stop++) {
            const int64_t other = order == NULL ? stop : order[stop];

            if (other / SCIO_BLOCK_ROWS != row / SCIO_BLOCK_ROWS ||
                (order != NULL && batches[other] != batch))
                break;
        }
        if (items != NULL)
            items[n_items] =
                (scio_stats_item){.batch = batch, .first = start, .n_rows = stop - start};
        n_items++;
    }
    return n_items;
}

/* --- waves --- */

static void
keep_first(scio_stats_example *to, const scio_stats_example *from)
{
    if (from->row >= 0 && (to->row < 0 || from->row < to->row))
        *to = *from;
}

static scio_status
finish_add(scio_gene_stats *stats, int64_t n_rows, scio_error *err)
{
    scio_stats_facts *const all = &stats->facts;

    for (size_t i = 0; i < stats->n_slots; i++) {
        const scio_stats_facts *const f = &stats->slots[i].facts;

        SCIO_TRY(scio_stats_flush(stats, &stats->slots[i], err));
        all->n_nonzero += f->n_nonzero;
        all->n_fractional += f->n_fractional;
        all->n_negative += f->n_negative;
        all->n_not_finite += f->n_not_finite;
        keep_first(&all->fractional, &f->fractional);
        keep_first(&all->negative, &f->negative);
        keep_first(&all->not_finite, &f->not_finite);
        memset(&stats->slots[i].facts, 0, sizeof stats->slots[i].facts);
        stats->slots[i].facts.fractional.row = stats->slots[i].facts.negative.row =
            stats->slots[i].facts.not_finite.row = -1;
    }
    all->n_rows += n_rows;
    return SCIO_OK;
}

static scio_status
run_waves(adding *a, size_t n_slots, size_t max_parallel, const volatile int *cancel,
          scio_error *err)
{
    scio_gene_stats *const stats = a->stats;
    const bool is_inline = max_parallel == 0;

    while (a->first_item < a->n_items) {
        const bool has_doubles = stats->scaled_mean != NULL || stats->log_mean != NULL ||
                                 stats->mean != NULL || stats->spec.transform != 0;
        const size_t most = has_doubles ? n_slots * WAVE_ITEMS_PER_SLOT : WAVE_ITEMS;
        const size_t left = a->n_items - a->first_item, n = left < most ? left : most;

        SCIO_TRY(scio_parallel_for(NULL, is_inline ? 0 : n_slots, n, run_item, a, cancel, err));
        SCIO_TRY(scio_stats_join_items(stats, a->items + a->first_item, n, is_inline ? 0 : n_slots,
                                       err));
        SCIO_TRY(scio_stats_join_values(stats, is_inline ? 0 : n_slots, err));
        a->first_item += n;
    }
    return finish_add(stats, a->rows->n_rows, err);
}

scio_status
scio_gene_stats_add(scio_gene_stats *stats, const scio_csr_view *rows, const int32_t *batches,
                    const scio_stats_cells *cells, size_t max_parallel, const volatile int *cancel,
                    scio_error *err)
{
    const scio_stats_cells no_cells = {0};
    adding a = {.stats = stats, .rows = rows, .cells = cells == NULL ? &no_cells : cells};
    int64_t *order = NULL;
    size_t n_slots, n_tables;
    scio_status status;

    SCIO_BUG_IF(stats->is_broken, err);
    if (rows->n_cols != (int64_t)stats->n_genes)
        return scio_fail(err, SCIO_EINVAL, "rows of %" PRId64 " genes, expected %zu", rows->n_cols,
                         stats->n_genes);
    if (stats->facts.n_rows % SCIO_BLOCK_ROWS != 0)
        return scio_fail(err, SCIO_EINVAL, "rows from %" PRId64 " on, expected a multiple of %d",
                         stats->facts.n_rows, SCIO_BLOCK_ROWS);
    if (stats->facts.n_rows > UINT32_MAX - rows->n_rows)
        return scio_fail(err, SCIO_EUNSUPPORTED, "more than 2^32 rows");
    stats->is_broken = true;
    status = order_rows(stats, rows->n_rows, batches, &order, err);
    if (status != SCIO_OK)
        goto done;
    a.order = order;
    a.n_items = cut_items(batches, order, rows->n_rows, NULL);
    status = scio_mem_alloc(a.n_items, sizeof *a.items, &a.items, err);
    if (status != SCIO_OK)
        goto done;
    (void)cut_items(batches, order, rows->n_rows, a.items);
    n_slots = scio_parallel_n_slots(NULL, max_parallel, a.n_items);
    n_tables =
        n_slots * WAVE_ITEMS_PER_SLOT > WAVE_ITEMS ? n_slots * WAVE_ITEMS_PER_SLOT : WAVE_ITEMS;
    status = make_slots(stats, rows, n_slots, n_tables, err);
    if (status == SCIO_OK)
        status = run_waves(&a, n_slots, max_parallel, cancel, err);
    stats->is_broken = status != SCIO_OK;
done:
    scio_mem_free(order);
    scio_mem_free(a.items);
    return status;
}
