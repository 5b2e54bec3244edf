/* Selection, ranks and blocks; the stream and its windows are in plan_stream.c. */
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
scio_plan_items(const scio_plan *plan, size_t i_source, int64_t i, int64_t j)
{
    const scio_plan_source *const source = &plan->sources[i_source];
    const int64_t first = plan->first_cells[i_source];

    if (plan->sel != NULL)
        return plan->sel_items[j] - plan->sel_items[i];
    if (source->indptr != NULL)
        return source->indptr[j - first] - source->indptr[i - first];
    return (j - i) * source->n_cols;
}

static size_t
round_up_64(size_t nbytes)
{
    return (nbytes + 63) & ~(size_t)63;
}

size_t
scio_plan_store_nbytes(const scio_plan *plan, size_t i_source, int64_t i, int64_t j,
                       size_t *data_offset_out)
{
    const scio_plan_source *const source = &plan->sources[i_source];

    if (data_offset_out != NULL)
        *data_offset_out = 0;
    if (!source->is_in_file || i >= j)
        return 0;
    const size_t n_items = (size_t)scio_plan_items(plan, i_source, i, j);
    const size_t index_nbytes = round_up_64(n_items * source->store_index_itemsize);
    if (data_offset_out != NULL)
        *data_offset_out = index_nbytes;
    return index_nbytes + round_up_64(n_items * source->store_data_itemsize);
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
    return scio_plan_store_nbytes(plan, block->i_source, block->sel0, block->sel1, NULL);
}

size_t
scio_plan_zone_nbytes(const scio_plan *plan, size_t i_block)
{
    int64_t sel0, sel1;
    if (!scio_plan_zone(plan, i_block, &sel0, &sel1))
        return 0;
    return scio_plan_store_nbytes(plan, plan->blocks[i_block].i_source, sel0, sel1, NULL);
}

/* ---- blocks ---- */

static scio_status
add_block(scio_plan_cuts *cuts, const scio_plan_block *block, scio_error *err)
{
    if (cuts->n_blocks == cuts->n_room) {
        const size_t n_room = cuts->n_room * 2 + 16;
        SCIO_TRY(scio_mem_realloc(&cuts->blocks, n_room, sizeof *block, err));
        cuts->n_room = n_room;
    }
    cuts->blocks[cuts->n_blocks++] = *block;
    return SCIO_OK;
}

/* First row in [low, n_rows] with indptr[row + shift] beyond (or, at_least, at) `item`. */
static int64_t
first_row(const scio_plan_source *source, int64_t low, int64_t shift, int64_t item)
{
    int64_t high = source->n_rows;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (source->indptr[middle + shift] >= item)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint64_t
round_up(uint64_t item, uint64_t unit)
{
    return item / unit * unit + (item % unit != 0 ? unit : 0);
}

static scio_status
cut_csr(const scio_plan_source *source, size_t i_source, uint64_t block_nbytes,
        scio_plan_cuts *cuts, scio_error *err)
{
    const uint64_t nnz = (uint64_t)source->indptr[source->n_rows];
    const uint64_t du = source->data_unit, iu = source->index_unit;
    const uint64_t unit = du > iu ? du : iu;
    const uint64_t item_nbytes = source->data_itemsize + source->index_itemsize;
    uint64_t step = block_nbytes / item_nbytes / unit;
    uint64_t cut = 0;
    scio_plan_block block = {.i_source = i_source};

    step = step == 0 ? unit : step > nnz / unit ? nnz + 1 : step * unit;
    for (;;) {
        int64_t zone0 = source->n_rows, zone1 = source->n_rows;
        uint64_t next = cut < nnz && step < nnz - cut ? cut + step : nnz;
        for (; next < nnz; next = unit < nnz - next ? next + unit : nnz) {
            const uint64_t ends = round_up(next, du == unit ? iu : du);
            const int64_t reach = (int64_t)(ends < nnz ? ends : nnz);
            zone0 = first_row(source, block.row0, 1, (int64_t)next + 1);
            zone1 = first_row(source, zone0, 0, reach);
            /* the row before row0 may reach over `next`: then the zones would overlap */
            if (source->indptr[block.row0] <= (int64_t)next)
                break;
            zone0 = zone1 = source->n_rows;
        }
        if (next >= nnz) {
            zone0 = zone1 = source->n_rows;
            next = nnz;
        }
        block.row1 = zone0;
        block.data1 = round_up(next, du) / du;
        block.index1 = round_up(next, iu) / iu;
        block.is_last_of_source = next == nnz;
        SCIO_TRY(add_block(cuts, &block, err));
        if (next == nnz)
            return SCIO_OK;
        block.row0 = zone1;
        block.data0 = block.data1;
        block.index0 = block.index1;
        cut = next;
    }
}

static scio_status
cut_rows(const scio_plan_source *source, size_t i_source, uint64_t block_nbytes,
         scio_plan_cuts *cuts, scio_error *err)
{
    const uint64_t unit = source->is_in_file && source->data_unit > 0 ? source->data_unit : 1;
    const uint64_t row_nbytes = (uint64_t)source->n_cols * source->data_itemsize;
    const uint64_t n_rows = (uint64_t)source->n_rows;
    uint64_t step = 1024; /* in memory: fine enough to mix, coarse enough to cost nothing */

    if (source->is_in_file)
        step = block_nbytes / (row_nbytes > 0 ? row_nbytes : 1) / unit;
    step = step == 0 ? unit : step > n_rows / unit ? n_rows + 1 : step * unit;
    for (uint64_t row = 0; row < n_rows;) {
        const uint64_t next = step < n_rows - row ? row + step : n_rows;
        const scio_plan_block block = {.i_source = i_source,
                                       .row0 = (int64_t)row,
                                       .row1 = (int64_t)next,
                                       .data0 = row / unit,
                                       .data1 = round_up(next, unit) / unit,
                                       .is_last_of_source = next == n_rows};
        SCIO_TRY(add_block(cuts, &block, err));
        row = next;
    }
    return SCIO_OK;
}

scio_status
scio_plan_cut(const scio_plan *plan, uint64_t block_nbytes, scio_plan_cuts *cuts, scio_error *err)
{
    size_t i_block = 0;

    for (size_t i = 0; i < plan->n_sources; i++) {
        const scio_plan_source *const source = &plan->sources[i];
        if (source->n_rows == 0)
            continue;
        if (source->is_in_file && source->indptr != NULL)
            SCIO_TRY(cut_csr(source, i, block_nbytes, cuts, err));
        else
            SCIO_TRY(cut_rows(source, i, block_nbytes, cuts, err));
        for (; i_block < cuts->n_blocks; i_block++) {
            scio_plan_block *const block = &cuts->blocks[i_block];
            block->sel0 = scio_plan_find(plan, plan->first_cells[i] + block->row0);
            block->sel1 = scio_plan_find(plan, plan->first_cells[i] + block->row1);
        }
    }
    return SCIO_OK;
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
    scio_plan_source *copy = NULL;
    int64_t n_cells = 0;

    SCIO_TRY(scio_mem_alloc(n_sources, sizeof *sources, &copy, err));
    if (n_sources > 0)
        memcpy(copy, sources, n_sources * sizeof *sources);
    plan->sources = copy;
    plan->n_sources = n_sources;
    SCIO_TRY(scio_mem_alloc(n_sources + 1, sizeof(int64_t), &plan->first_cells, err));
    SCIO_TRY(scio_mem_alloc(n_sources + 1, sizeof(int64_t), &plan->source_sel, err));
    for (size_t i = 0; i < n_sources; i++) {
        plan->first_cells[i] = n_cells;
        if (sources[i].n_rows > INT64_MAX - n_cells)
            return scio_fail(err, SCIO_EINVAL, "too many cells");
        n_cells += sources[i].n_rows;
    }
    plan->first_cells[n_sources] = n_cells;
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

static int64_t
row_items(const scio_plan_source *source, int64_t row)
{
    return source->indptr != NULL ? source->indptr[row + 1] - source->indptr[row] : source->n_cols;
}

scio_status
scio_plan_index_selection(scio_plan *plan, scio_error *err)
{
    scio_mem_free(plan->sel_items);
    plan->sel_items = NULL;
    for (size_t i = 0; i <= plan->n_sources; i++)
        plan->source_sel[i] = scio_plan_find(plan, plan->first_cells[i]);
    if (plan->sel == NULL)
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc((size_t)plan->n_sel + 1, sizeof(int64_t), &plan->sel_items, err));
    int64_t n_items = 0;
    for (size_t i = 0; i < plan->n_sources; i++)
        for (int64_t j = plan->source_sel[i]; j < plan->source_sel[i + 1]; j++) {
            plan->sel_items[j] = n_items;
            n_items += row_items(&plan->sources[i], plan->sel[j] - plan->first_cells[i]);
        }
    plan->sel_items[plan->n_sel] = n_items;
    return SCIO_OK;
}

/* An upper bound for the items of any batch: the batch_size longest rows, by a histogram of
 * lengths. */
static scio_status
measure_rows(scio_plan *plan, scio_error *err)
{
    int64_t *counts = NULL;
    int64_t left = plan->options.batch_size;

    plan->longest_row = 0;
    plan->batch_items = 0;
    for (size_t i = 0; i < plan->n_sources; i++)
        for (int64_t j = plan->source_sel[i]; j < plan->source_sel[i + 1]; j++) {
            const int64_t n = scio_plan_items(plan, i, j, j + 1);
            plan->longest_row = n > plan->longest_row ? n : plan->longest_row;
        }
    SCIO_TRY(scio_mem_zalloc(N_LENGTH_BUCKETS, sizeof *counts, &counts, err));
    const int64_t width = plan->longest_row / N_LENGTH_BUCKETS + 1;
    for (size_t i = 0; i < plan->n_sources; i++)
        for (int64_t j = plan->source_sel[i]; j < plan->source_sel[i + 1]; j++)
            counts[scio_plan_items(plan, i, j, j + 1) / width]++;
    for (size_t b = N_LENGTH_BUCKETS; b-- > 0 && left > 0;) {
        const int64_t n = counts[b] < left ? counts[b] : left;
        plan->batch_items += (uint64_t)n * (uint64_t)((int64_t)(b + 1) * width - 1);
        left -= n;
    }
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
    scio_mem_free((void *)(uintptr_t)plan->sources);
    scio_mem_free(plan->first_cells);
    scio_mem_free(plan->sel);
    scio_mem_free(plan->sel_items);
    scio_mem_free(plan->source_sel);
    scio_mem_free(plan->blocks);
    scio_mem_free(plan->order);
    scio_mem_free(plan->pieces);
    scio_mem_free(plan->windows);
    scio_mem_free(plan->block_last);
    scio_mem_free(plan->zone_first);
    scio_mem_free(plan->zone_last);
    scio_mem_free(plan);
}
