/* Sources, selection and ranks; blocks are cut in plan_cut.c, the stream in plan_stream.c. */
#include "load/plan.h"

#include "base/mem.h"
#include "base/rng.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { N_LENGTH_BUCKETS = 4096 };

int64_t
scio_plan_cell(const scio_plan *plan, int64_t i_sel)
{
    return plan->sel != NULL ? plan->sel[i_sel] : i_sel;
}

int64_t
scio_plan_find(const scio_plan *plan, int64_t cell)
{
    int64_t low = 0, high = plan->n_sel;

    if (plan->sel == NULL)
        return cell;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (plan->sel[middle] < cell)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int64_t
scio_plan_items(const scio_plan *plan, size_t i_source, size_t i_track, int64_t i, int64_t j)
{
    const scio_plan_track *const track = &plan->sources[i_source].tracks[i_track];
    const int64_t first = plan->first_cells[i_source];

    if (track->indptr == NULL)
        return (j - i) * track->n_cols;
    if (plan->sel != NULL)
        return plan->sel_items[i_track][j] - plan->sel_items[i_track][i];
    return track->indptr[j - first] - track->indptr[i - first];
}

const scio_plan_units *
scio_plan_units_of(const scio_plan *plan, size_t i_block, size_t i_track)
{
    return &plan->units[i_block * plan->n_tracks + i_track];
}

static size_t
round_up_64(size_t nbytes)
{
    return (nbytes + 63) & ~(size_t)63;
}

/* What the track takes behind `at`; *place_out says where its arrays are. */
static size_t
place_track(const scio_plan *plan, size_t i_source, size_t i_track, int64_t i, int64_t j, size_t at,
            scio_plan_place *place_out)
{
    const scio_plan_track *const track = &plan->sources[i_source].tracks[i_track];

    *place_out = (scio_plan_place){at, at};
    if (!track->is_in_file || i >= j)
        return at;
    const size_t n_items = (size_t)scio_plan_items(plan, i_source, i_track, i, j);
    place_out->data_offset = at + round_up_64(n_items * track->store_index_itemsize);
    return place_out->data_offset + round_up_64(n_items * track->store_data_itemsize);
}

size_t
scio_plan_store_nbytes(const scio_plan *plan, size_t i_source, int64_t i, int64_t j)
{
    scio_plan_place place;
    size_t nbytes = 0;

    for (size_t t = 0; t < plan->n_tracks; t++)
        nbytes = place_track(plan, i_source, t, i, j, nbytes, &place);
    return nbytes;
}

scio_plan_place
scio_plan_store_place(const scio_plan *plan, size_t i_source, size_t i_track, int64_t i, int64_t j)
{
    scio_plan_place place = {0, 0};
    size_t nbytes = 0;

    for (size_t t = 0; t <= i_track; t++)
        nbytes = place_track(plan, i_source, t, i, j, nbytes, &place);
    return place;
}

bool
scio_plan_zone(const scio_plan *plan, size_t i_block, int64_t *sel0_out, int64_t *sel1_out)
{
    const scio_plan_block *const block = &plan->blocks[i_block];

    *sel0_out = *sel1_out = block->sel1;
    if (!block->is_last_of_source)
        *sel1_out = plan->blocks[i_block + 1].sel0;
    return *sel0_out < *sel1_out;
}

size_t
scio_plan_block_nbytes(const scio_plan *plan, size_t i_block)
{
    const scio_plan_block *const block = &plan->blocks[i_block];
    return scio_plan_store_nbytes(plan, block->i_source, block->sel0, block->sel1);
}

size_t
scio_plan_zone_nbytes(const scio_plan *plan, size_t i_block)
{
    int64_t sel0, sel1;
    if (!scio_plan_zone(plan, i_block, &sel0, &sel1))
        return 0;
    return scio_plan_store_nbytes(plan, plan->blocks[i_block].i_source, sel0, sel1);
}

/* ---- the selection ---- */

static scio_status
check_options(const scio_plan_options *options, scio_error *err)
{
    if (options->batch_size < 1)
        return scio_fail(err, SCIO_EINVAL, "batch_size is %" PRId64 ", must be 1 or more",
                         options->batch_size);
    if (options->world_size < 1)
        return scio_fail(err, SCIO_EINVAL, "world_size is %" PRId64 ", must be 1 or more",
                         options->world_size);
    if (options->rank < 0 || options->rank >= options->world_size)
        return scio_fail(err, SCIO_EINVAL, "rank is %" PRId64 ", not in [0, %" PRId64 ")",
                         options->rank, options->world_size);
    if (options->shuffle != SCIO_SHUFFLE_NONE && options->shuffle != SCIO_SHUFFLE_BLOCK &&
        options->shuffle != SCIO_SHUFFLE_EXACT)
        return scio_fail(err, SCIO_EINVAL, "shuffle is %d, not a mode with a plan",
                         (int)options->shuffle);
    return SCIO_OK;
}

static scio_status
copy_sources(scio_plan *plan, const scio_plan_source *sources, size_t n_sources, scio_error *err)
{
    const size_t n_tracks = n_sources > 0 ? sources[0].n_tracks : 1;
    scio_plan_source *copy = NULL;
    scio_plan_track *tracks = NULL;
    size_t n_all = 0;

    for (size_t i = 0; i < n_sources; i++)
        if (sources[i].n_tracks != n_tracks || n_tracks == 0)
            return scio_fail(err, SCIO_EINVAL,
                             "source %zu has %zu tracks, source 0 has %zu; expected as many, and 1 "
                             "or more",
                             i, sources[i].n_tracks, n_tracks);
    if (!scio_mul_size(n_sources, n_tracks, &n_all))
        return scio_fail(err, SCIO_EINVAL, "too many tracks");
    SCIO_TRY(scio_mem_alloc(n_sources, sizeof *copy, &copy, err));
    plan->sources = copy;
    SCIO_TRY(scio_mem_alloc(n_all, sizeof *tracks, &tracks, err));
    plan->tracks = tracks;
    for (size_t i = 0; i < n_sources; i++) {
        copy[i] = sources[i];
        copy[i].tracks = tracks + i * n_tracks;
        memcpy(tracks + i * n_tracks, sources[i].tracks, n_tracks * sizeof *tracks);
    }
    plan->n_sources = n_sources;
    plan->n_tracks = n_tracks;
    return SCIO_OK;
}

static scio_status
number_cells(scio_plan *plan, scio_error *err)
{
    int64_t n_cells = 0;

    SCIO_TRY(scio_mem_alloc(plan->n_sources + 1, sizeof(int64_t), &plan->first_cells, err));
    SCIO_TRY(scio_mem_alloc(plan->n_sources + 1, sizeof(int64_t), &plan->source_sel, err));
    for (size_t i = 0; i < plan->n_sources; i++) {
        plan->first_cells[i] = n_cells;
        if (plan->sources[i].n_rows > INT64_MAX - n_cells)
            return scio_fail(err, SCIO_EINVAL, "too many cells");
        n_cells += plan->sources[i].n_rows;
    }
    plan->first_cells[plan->n_sources] = n_cells;
    return SCIO_OK;
}

static scio_status
copy_selection(scio_plan *plan, const int64_t *cells, size_t n_cells, scio_error *err)
{
    const int64_t n_all = plan->first_cells[plan->n_sources];

    plan->n_sel = n_all;
    if (cells == NULL)
        return SCIO_OK;
    for (size_t i = 0; i < n_cells; i++) {
        if (cells[i] < 0 || cells[i] >= n_all)
            return scio_fail(err, SCIO_ERANGE, "cells[%zu] is %" PRId64 ", not in [0, %" PRId64 ")",
                             i, cells[i], n_all);
        if (i > 0 && cells[i] <= cells[i - 1])
            return scio_fail(err, SCIO_EINVAL,
                             "cells[%zu] is %" PRId64
                             ", not greater than cells[%zu], which is %" PRId64
                             " (must be ascending, each once)",
                             i, cells[i], i - 1, cells[i - 1]);
    }
    plan->n_sel = (int64_t)n_cells;
    if (plan->n_sel == n_all)
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc(n_cells, sizeof *cells, &plan->sel, err));
    if (n_cells > 0)
        memcpy(plan->sel, cells, n_cells * sizeof *cells);
    return SCIO_OK;
}

static void
free_sel_items(scio_plan *plan)
{
    for (size_t t = 0; plan->sel_items != NULL && t < plan->n_tracks; t++)
        scio_mem_free(plan->sel_items[t]);
    scio_mem_free(plan->sel_items);
    plan->sel_items = NULL;
}

static scio_status
index_track(scio_plan *plan, size_t i_track, scio_error *err)
{
    bool is_dense = true;
    int64_t n_items = 0, *items = NULL;

    for (size_t i = 0; i < plan->n_sources; i++)
        is_dense = is_dense && plan->sources[i].tracks[i_track].indptr == NULL;
    if (is_dense)
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc((size_t)plan->n_sel + 1, sizeof(int64_t), &items, err));
    plan->sel_items[i_track] = items;
    for (size_t i = 0; i < plan->n_sources; i++) {
        const int64_t *const indptr = plan->sources[i].tracks[i_track].indptr;
        for (int64_t j = plan->source_sel[i]; j < plan->source_sel[i + 1]; j++) {
            const int64_t row = plan->sel[j] - plan->first_cells[i];
            items[j] = n_items;
            n_items += indptr != NULL ? indptr[row + 1] - indptr[row] : 0;
        }
    }
    items[plan->n_sel] = n_items;
    return SCIO_OK;
}

scio_status
scio_plan_index_selection(scio_plan *plan, scio_error *err)
{
    free_sel_items(plan);
    for (size_t i = 0; i <= plan->n_sources; i++)
        plan->source_sel[i] = scio_plan_find(plan, plan->first_cells[i]);
    if (plan->sel == NULL)
        return SCIO_OK;
    SCIO_TRY(scio_mem_zalloc(plan->n_tracks, sizeof *plan->sel_items, &plan->sel_items, err));
    for (size_t t = 0; t < plan->n_tracks; t++)
        SCIO_TRY(index_track(plan, t, err));
    return SCIO_OK;
}

/* An upper bound for the items of any batch: the batch_size longest rows, by a histogram of
 * lengths. */
static void
measure_track(const scio_plan *plan, size_t i_track, int64_t *counts, scio_plan_extent *extent)
{
    int64_t left = plan->options.batch_size;

    *extent = (scio_plan_extent){0, 0};
    memset(counts, 0, N_LENGTH_BUCKETS * sizeof *counts);
    for (size_t i = 0; i < plan->n_sources; i++)
        for (int64_t j = plan->source_sel[i]; j < plan->source_sel[i + 1]; j++) {
            const int64_t n = scio_plan_items(plan, i, i_track, j, j + 1);
            extent->longest_row = n > extent->longest_row ? n : extent->longest_row;
        }
    const int64_t width = extent->longest_row / N_LENGTH_BUCKETS + 1;
    for (size_t i = 0; i < plan->n_sources; i++)
        for (int64_t j = plan->source_sel[i]; j < plan->source_sel[i + 1]; j++)
            counts[scio_plan_items(plan, i, i_track, j, j + 1) / width]++;
    for (size_t b = N_LENGTH_BUCKETS; b-- > 0 && left > 0;) {
        const int64_t n = counts[b] < left ? counts[b] : left;
        extent->batch_items += (uint64_t)n * (uint64_t)((int64_t)(b + 1) * width - 1);
        left -= n;
    }
}

static scio_status
measure_rows(scio_plan *plan, scio_error *err)
{
    int64_t *counts = NULL;

    SCIO_TRY(scio_mem_alloc(plan->n_tracks, sizeof *plan->extents, &plan->extents, err));
    SCIO_TRY(scio_mem_alloc(N_LENGTH_BUCKETS, sizeof *counts, &counts, err));
    for (size_t t = 0; t < plan->n_tracks; t++)
        measure_track(plan, t, counts, &plan->extents[t]);
    plan->longest_row = plan->extents[0].longest_row;
    plan->batch_items = plan->extents[0].batch_items;
    scio_mem_free(counts);
    return SCIO_OK;
}

/* Rank r of W has the places [r * N / W, (r + 1) * N / W) of the dealt row of cells. */
static int64_t
share(int64_t n_cells, int64_t rank, int64_t world_size)
{
    const int64_t whole = n_cells / world_size, rest = n_cells % world_size;
    return whole * rank + (rank < rest ? rank : rest);
}

static scio_status
deal_ranks(scio_plan *plan, scio_error *err)
{
    const scio_plan_options *const options = &plan->options;
    const int64_t n_cells = plan->n_sel, n_ranks = options->world_size;
    const int64_t least = n_cells / n_ranks, most = least + (n_cells % n_ranks != 0 ? 1 : 0);
    const int64_t size = options->batch_size;

    SCIO_TRY(scio_plan_index_selection(plan, err));
    if (n_ranks > 1 && n_cells > 0) {
        const int64_t lo = share(n_cells, options->rank, n_ranks);
        const int64_t hi = share(n_cells, options->rank + 1, n_ranks);
        plan->n_real = hi - lo;
        /* a rank without a cell of its own repeats the first one of all */
        SCIO_TRY(scio_plan_deal(plan, lo < n_cells ? lo : 0,
                                hi > lo        ? hi
                                : lo < n_cells ? lo + 1
                                               : 1,
                                err));
        SCIO_TRY(scio_plan_index_selection(plan, err));
    } else {
        plan->n_real = n_cells;
    }
    plan->n_batches = options->drop_last ? least / size : most / size + (most % size != 0 ? 1 : 0);
    plan->n_stream = options->drop_last ? plan->n_batches * size : most;
    return SCIO_OK;
}

scio_status
scio_plan_new(const scio_plan_source *sources, size_t n_sources, const int64_t *cells,
              size_t n_cells, const scio_plan_options *options, scio_plan **out, scio_error *err)
{
    scio_plan *plan = NULL;
    scio_status status;

    *out = NULL;
    SCIO_TRY(check_options(options, err));
    SCIO_TRY(scio_mem_zalloc(1, sizeof *plan, &plan, err));
    plan->options = *options;
    status = copy_sources(plan, sources, n_sources, err);
    if (status == SCIO_OK)
        status = number_cells(plan, err);
    if (status == SCIO_OK)
        status = copy_selection(plan, cells, n_cells, err);
    if (status == SCIO_OK)
        status = deal_ranks(plan, err);
    if (status == SCIO_OK)
        status = measure_rows(plan, err);
    if (status != SCIO_OK) {
        scio_plan_free(plan);
        return status;
    }
    *out = plan;
    return SCIO_OK;
}

void
scio_plan_free(scio_plan *plan)
{
    if (plan == NULL)
        return;
    free_sel_items(plan);
    scio_mem_free(plan->sources);
    scio_mem_free(plan->tracks);
    scio_mem_free(plan->first_cells);
    scio_mem_free(plan->sel);
    scio_mem_free(plan->extents);
    scio_mem_free(plan->source_sel);
    scio_mem_free(plan->blocks);
    scio_mem_free(plan->units);
    scio_mem_free(plan->order);
    scio_mem_free(plan->pieces);
    scio_mem_free(plan->windows);
    scio_mem_free(plan->block_last);
    scio_mem_free(plan->zone_first);
    scio_mem_free(plan->zone_last);
    scio_mem_free(plan);
}
