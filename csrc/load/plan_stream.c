/* The order of the blocks, the stream of cells that follows from it, its windows and their memory.
 */
#include "load/plan.h"

#include "base/mem.h"
#include "base/rng.h"

#include <string.h>

#define FULL_WINDOW_NBYTES (UINT64_C(48) << 20)

enum {
    MIN_BLOCKS_OF_A_WINDOW = 64, /* that the first window has where the budget allows */
    BLOCKS_OF_A_WINDOW = 128,    /* that a full one is meant to have */
    N_TRIES = 40                 /* window lengths tried, each an eighth shorter */
};

/* ---- order ---- */

/* A block is read when a selected row has items in it: inside, or in a zone beside it. */
static bool
is_block_wanted(const scio_plan *plan, size_t i_block)
{
    const scio_plan_block *const block = &plan->blocks[i_block];
    int64_t sel0, sel1;

    if (block->sel0 < block->sel1 || scio_plan_zone(plan, i_block, &sel0, &sel1))
        return true;
    return i_block > 0 && !plan->blocks[i_block - 1].is_last_of_source &&
           scio_plan_zone(plan, i_block - 1, &sel0, &sel1);
}

static scio_status
order_blocks(scio_plan *plan, scio_error *err)
{
    int64_t *order = NULL;
    size_t n_order = 0;

    scio_mem_free(plan->order);
    plan->order = NULL;
    SCIO_TRY(scio_mem_alloc(plan->n_blocks, sizeof *plan->order, &plan->order, err));
    SCIO_TRY(scio_mem_alloc(plan->n_blocks, sizeof *order, &order, err));
    for (size_t i = 0; i < plan->n_blocks; i++)
        if (is_block_wanted(plan, i))
            order[n_order++] = (int64_t)i;
    if (plan->options.shuffle == SCIO_SHUFFLE_BLOCK)
        scio_rng_shuffle_i64(plan->options.seed,
                             scio_rng_stream(plan->options.epoch, SCIO_PURPOSE_BLOCKS, 0), order,
                             n_order);
    for (size_t i = 0; i < n_order; i++)
        plan->order[i] = (size_t)order[i];
    plan->n_order = n_order;
    scio_mem_free(order);
    return SCIO_OK;
}

/* ---- stream ---- */

typedef struct stream_state {
    scio_plan *plan;
    uint8_t *seen; /* [n_blocks] */
    int64_t pos;
} stream_state;

static void
add_piece(stream_state *stream, size_t i_block, bool is_zone, int64_t sel0, int64_t sel1)
{
    scio_plan *const plan = stream->plan;
    const int64_t left = plan->n_stream - stream->pos;

    if (sel0 >= sel1 || left <= 0)
        return; /* what drop_last leaves out is not held either */
    plan->pieces[plan->n_pieces++] = (scio_plan_piece){stream->pos, sel0, i_block, is_zone};
    stream->pos += sel1 - sel0 < left ? sel1 - sel0 : left;
}

static void
add_zone(stream_state *stream, size_t i_block)
{
    int64_t sel0, sel1;
    if (scio_plan_zone(stream->plan, i_block, &sel0, &sel1))
        add_piece(stream, i_block, true, sel0, sel1);
}

/* Pieces in the order of the blocks; blocks behind the end of the stream are dropped from the
 * order. order_pos[n_order + 1]: cells in the stream before block i of the order is added. */
static scio_status
make_stream(scio_plan *plan, int64_t *order_pos, scio_error *err)
{
    stream_state stream = {plan, NULL, 0};
    size_t i;

    scio_mem_free(plan->pieces);
    plan->pieces = NULL;
    plan->n_pieces = 0;
    SCIO_TRY(scio_mem_alloc(2 * plan->n_blocks + 1, sizeof *plan->pieces, &plan->pieces, err));
    SCIO_TRY(scio_mem_zalloc(plan->n_blocks, 1, &stream.seen, err));
    for (i = 0; i < plan->n_order && stream.pos < plan->n_stream; i++) {
        const size_t b = plan->order[i];
        const scio_plan_block *const block = &plan->blocks[b];
        order_pos[i] = stream.pos;
        stream.seen[b] = 1;
        if (b > 0 && !plan->blocks[b - 1].is_last_of_source && stream.seen[b - 1])
            add_zone(&stream, b - 1);
        add_piece(&stream, b, false, block->sel0, block->sel1);
        if (!block->is_last_of_source && stream.seen[b + 1])
            add_zone(&stream, b);
        if (stream.pos == plan->n_sel) { /* all cells are there; only padding may follow */
            i++;
            break;
        }
    }
    plan->n_order = i;
    order_pos[i] = stream.pos;
    plan->pieces[plan->n_pieces] = (scio_plan_piece){stream.pos, 0, 0, false};
    scio_mem_free(stream.seen);
    return SCIO_OK;
}

/* ---- windows ---- */

static uint64_t
permutation_nbytes(const scio_plan *plan, int64_t n_cells)
{
    return plan->options.shuffle == SCIO_SHUFFLE_NONE ? 0 : (uint64_t)n_cells * sizeof(int64_t);
}

/* Windows grow from an eighth of the full length, so that the first batch comes early. */
static uint64_t
window_limit(size_t i_window, uint64_t target, uint64_t mean)
{
    uint64_t limit = i_window < 3 ? target >> (3 - i_window) : target;

    if (limit < mean * MIN_BLOCKS_OF_A_WINDOW)
        limit = mean * MIN_BLOCKS_OF_A_WINDOW;
    return limit < target ? limit : target;
}

static uint64_t
held_nbytes(const scio_plan *plan, size_t i_order, const int64_t *order_pos)
{
    return scio_plan_block_nbytes(plan, plan->order[i_order]) +
           permutation_nbytes(plan, order_pos[i_order + 1] - order_pos[i_order]);
}

static void
cut_windows(scio_plan *plan, uint64_t target, uint64_t mean, const int64_t *order_pos)
{
    const int64_t size = plan->options.batch_size;
    scio_plan_window window = {0, 0, 0, 0, 0};
    uint64_t nbytes = 0;

    plan->n_windows = 0;
    for (size_t i = 0; i < plan->n_order; i++) {
        const int64_t n_cells = order_pos[i] - window.pos0;
        const uint64_t more = held_nbytes(plan, i, order_pos);
        const uint64_t limit = window_limit(plan->n_windows, target, mean);
        if (n_cells >= size && more > (nbytes < limit ? limit - nbytes : 0)) {
            window.pos1 = window.pos0 + n_cells / size * size;
            window.order1 = i;
            plan->windows[plan->n_windows++] = window;
            window.pos0 = window.pos1;
            window.order0 = i;
            nbytes = 0;
            for (size_t j = i; j-- > 0 && order_pos[j + 1] > window.pos0;)
                nbytes += held_nbytes(plan, j, order_pos);
        }
        nbytes += more;
    }
    if (plan->n_stream > window.pos0) {
        window.pos1 = plan->n_stream;
        window.order1 = plan->n_order;
        plan->windows[plan->n_windows++] = window;
    }
}

/* The last window that uses each block and zone, and the first that has one of a zone's blocks. */
static void
find_lifetimes(scio_plan *plan)
{
    size_t w = 0;

    for (size_t i = 0; i < plan->n_blocks; i++)
        plan->block_last[i] = plan->zone_first[i] = plan->zone_last[i] = SCIO_PLAN_NEVER;
    for (size_t p = 0; p < plan->n_pieces; p++) {
        const scio_plan_piece *const piece = &plan->pieces[p];
        while (plan->windows[w].pos1 <= piece->pos)
            w++;
        if (plan->windows[w].pos0 == piece->pos || p == 0)
            plan->windows[w].piece0 = p;
        while (plan->windows[w].pos1 < piece[1].pos) /* the piece goes on in the next window */
            plan->windows[++w].piece0 = p;
        (piece->is_zone ? plan->zone_last : plan->block_last)[piece->i_block] = (uint32_t)w;
    }
    for (w = plan->n_windows; w-- > 0;)
        for (size_t i = plan->windows[w].order0; i < plan->windows[w].order1; i++) {
            const size_t b = plan->order[i];
            plan->zone_first[b] = (uint32_t)w;
            if (b > 0 && !plan->blocks[b - 1].is_last_of_source)
                plan->zone_first[b - 1] = (uint32_t)w;
        }
}

/* Adds nbytes to the phases in which something is held that is decoded in window `first` and used
 * until window `last`; in phase w window w is consumed and window w + 1 decoded. */
static void
hold(int64_t *changes, size_t first, size_t last, uint64_t nbytes)
{
    changes[first > 0 ? first - 1 : 0] += (int64_t)nbytes;
    changes[last + 1] -= (int64_t)nbytes;
}

static uint64_t
highest(const int64_t *changes, size_t n_windows)
{
    int64_t now = 0, most = 0;
    for (size_t w = 0; w < n_windows; w++) {
        now += changes[w];
        most = now > most ? now : most;
    }
    return (uint64_t)most;
}

static void
measure_memory(scio_plan *plan, int64_t *ring, int64_t *aside)
{
    uint64_t total = 0, largest = 0;

    memset(ring, 0, (plan->n_windows + 1) * sizeof *ring);
    memset(aside, 0, (plan->n_windows + 1) * sizeof *aside);
    for (size_t w = 0; w < plan->n_windows; w++) {
        const scio_plan_window *const window = &plan->windows[w];
        for (size_t i = window->order0; i < window->order1; i++) {
            const size_t b = plan->order[i];
            const uint64_t nbytes = scio_plan_block_nbytes(plan, b);
            if (plan->block_last[b] == SCIO_PLAN_NEVER)
                continue;
            hold(ring, w, plan->block_last[b], nbytes);
            total += nbytes;
            largest = nbytes > largest ? nbytes : largest;
        }
        hold(aside, w, w, permutation_nbytes(plan, window->pos1 - window->pos0));
    }
    for (size_t b = 0; b < plan->n_blocks; b++)
        if (plan->zone_last[b] != SCIO_PLAN_NEVER)
            hold(aside, plan->zone_first[b], plan->zone_last[b], scio_plan_zone_nbytes(plan, b));
    /* a block that does not fit before the end of the ring leaves a gap shorter than itself */
    const uint64_t live = highest(ring, plan->n_windows) + largest;
    plan->ring_nbytes = live < total ? live : total;
    plan->aside_nbytes = highest(aside, plan->n_windows);
}

uint64_t
scio_plan_nbytes(const scio_plan *plan)
{
    const uint64_t n_tracks = plan->n_tracks;
    uint64_t nbytes = sizeof *plan + plan->n_sources * sizeof *plan->sources +
                      2 * (plan->n_sources + 1) * sizeof(int64_t) +
                      n_tracks * (plan->n_sources * sizeof *plan->tracks + sizeof *plan->extents);

    if (plan->sel != NULL)
        nbytes += ((uint64_t)plan->n_sel + n_tracks) * sizeof(int64_t);
    for (size_t t = 0; plan->sel != NULL && t < n_tracks; t++)
        if (plan->sel_items[t] != NULL)
            nbytes += ((uint64_t)plan->n_sel + 1) * sizeof(int64_t);
    nbytes +=
        plan->n_blocks * (sizeof *plan->blocks + sizeof *plan->order + 2 * sizeof *plan->pieces +
                          3 * sizeof(uint32_t) + SCIO_PLAN_BLOCK_STATE_NBYTES +
                          n_tracks * (sizeof *plan->units + SCIO_PLAN_TRACK_STATE_NBYTES));
    return nbytes + (plan->n_order + 1) * sizeof *plan->windows;
}

uint64_t
scio_plan_needed(const scio_plan *plan)
{
    return plan->ring_nbytes + plan->aside_nbytes + scio_plan_nbytes(plan);
}

/* ---- fitting ---- */

typedef struct fit_scratch {
    int64_t *order_pos, *ring, *aside;
} fit_scratch;

static void
fit_scratch_clear(fit_scratch *scratch)
{
    scio_mem_free(scratch->order_pos);
    scio_mem_free(scratch->ring);
    scio_mem_free(scratch->aside);
}

static scio_status
alloc_layout(scio_plan *plan, fit_scratch *scratch, scio_error *err)
{
    const size_t n = plan->n_order + 2;

    scio_mem_free(plan->windows);
    scio_mem_free(plan->block_last);
    scio_mem_free(plan->zone_first);
    scio_mem_free(plan->zone_last);
    plan->windows = NULL;
    plan->block_last = plan->zone_first = plan->zone_last = NULL;
    SCIO_TRY(scio_mem_alloc(n, sizeof(int64_t), &scratch->order_pos, err));
    SCIO_TRY(scio_mem_alloc(n, sizeof(int64_t), &scratch->ring, err));
    SCIO_TRY(scio_mem_alloc(n, sizeof(int64_t), &scratch->aside, err));
    SCIO_TRY(scio_mem_alloc(n, sizeof *plan->windows, &plan->windows, err));
    SCIO_TRY(scio_mem_alloc(plan->n_blocks, sizeof(uint32_t), &plan->block_last, err));
    SCIO_TRY(scio_mem_alloc(plan->n_blocks, sizeof(uint32_t), &plan->zone_first, err));
    return scio_mem_alloc(plan->n_blocks, sizeof(uint32_t), &plan->zone_last, err);
}

static void
lay_windows(scio_plan *plan, uint64_t target, uint64_t mean, const fit_scratch *scratch)
{
    cut_windows(plan, target, mean, scratch->order_pos);
    find_lifetimes(plan);
    measure_memory(plan, scratch->ring, scratch->aside);
}

/* Blocks of one length: the longest windows within the budget; *needed_out is what the layout
 * takes, *least_out what the one with the shortest windows takes. */
static scio_status
lay_blocks(scio_plan *plan, uint64_t block_nbytes, uint64_t target, uint64_t budget,
           uint64_t *least_out, scio_error *err)
{
    scio_plan_cuts cuts = {NULL, NULL, 0, 0};
    fit_scratch scratch = {NULL, NULL, NULL};
    scio_status status;

    status = scio_plan_cut(plan, block_nbytes, &cuts, err);
    if (status != SCIO_OK) {
        scio_plan_cuts_clear(&cuts);
        return status;
    }
    scio_mem_free(plan->blocks);
    scio_mem_free(plan->units);
    plan->blocks = cuts.blocks;
    plan->units = cuts.units;
    plan->n_blocks = cuts.n_blocks;
    status = order_blocks(plan, err);
    if (status == SCIO_OK)
        status = alloc_layout(plan, &scratch, err);
    if (status == SCIO_OK)
        status = make_stream(plan, scratch.order_pos, err);
    if (status != SCIO_OK) {
        fit_scratch_clear(&scratch);
        return status;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < plan->n_order; i++)
        total += scio_plan_block_nbytes(plan, plan->order[i]);
    const uint64_t mean = plan->n_order > 0 ? total / plan->n_order : 0;
    lay_windows(plan, 0, mean, &scratch);
    *least_out = scio_plan_needed(plan);
    if (*least_out <= budget) {
        for (int i = 0; i < N_TRIES; i++, target -= target / 8) {
            lay_windows(plan, target, mean, &scratch);
            if (scio_plan_needed(plan) <= budget)
                break;
        }
        if (scio_plan_needed(plan) > budget)
            lay_windows(plan, 0, mean, &scratch);
    }
    fit_scratch_clear(&scratch);
    return SCIO_OK;
}

/* The first touch of memory costs as much as decoding into it, so a window is not longer than a
 * sixteenth of all there is, unless that is little: then the ring goes round several times. */
static uint64_t
window_target(const scio_plan *plan, uint64_t budget)
{
    uint64_t total = 0;

    for (size_t i = 0; i < plan->n_sources; i++)
        total += scio_plan_store_nbytes(plan, i, plan->source_sel[i], plan->source_sel[i + 1]);
    total = total / 16 > FULL_WINDOW_NBYTES ? total / 16 : FULL_WINDOW_NBYTES;
    return total < budget / 2 ? total : budget / 2;
}

/* One permutation of all cells, which lie elsewhere: one window, one piece, no blocks. */
static scio_status
lay_exact(scio_plan *plan, uint64_t budget, uint64_t *least_out, scio_error *err)
{
    scio_mem_free(plan->pieces);
    scio_mem_free(plan->windows);
    plan->pieces = NULL;
    plan->windows = NULL;
    plan->n_pieces = plan->n_windows = plan->n_stream > 0 ? 1 : 0;
    SCIO_TRY(scio_mem_zalloc(plan->n_pieces + 1, sizeof *plan->pieces, &plan->pieces, err));
    SCIO_TRY(scio_mem_zalloc(plan->n_windows, sizeof *plan->windows, &plan->windows, err));
    plan->pieces[plan->n_pieces].pos = plan->n_stream;
    if (plan->n_windows > 0)
        plan->windows[0].pos1 = plan->n_stream;
    plan->ring_nbytes = 0;
    plan->aside_nbytes =
        plan->n_windows > 0 ? permutation_nbytes(plan, scio_plan_permuted(plan, 0)) : 0;
    *least_out = scio_plan_needed(plan);
    if (*least_out > budget)
        return scio_fail(err, SCIO_EINVAL, "the permutation needs %llu bytes",
                         (unsigned long long)*least_out);
    return SCIO_OK;
}

scio_status
scio_plan_lay(scio_plan *plan, uint64_t budget, uint64_t *least_out, scio_error *err)
{
    /* the first is the wish; the others do not depend on the budget, so that `least` is a fact */
    const uint64_t target = window_target(plan, budget);
    uint64_t lengths[] = {target / BLOCKS_OF_A_WINDOW, UINT64_C(1) << 20,  UINT64_C(1) << 18, 1,
                          UINT64_C(4) << 20,           UINT64_C(16) << 20, UINT64_C(64) << 20};
    size_t n_lengths = sizeof lengths / sizeof *lengths;
    uint64_t least = UINT64_MAX;

    if (plan->options.shuffle == SCIO_SHUFFLE_EXACT)
        return lay_exact(plan, budget, least_out, err);
    lengths[0] = lengths[0] < (UINT64_C(1) << 16) ? UINT64_C(1) << 16 : lengths[0];
    lengths[0] = lengths[0] > (UINT64_C(1) << 20) ? UINT64_C(1) << 20 : lengths[0];
    if (plan->options.block_nbytes != 0) {
        lengths[0] = plan->options.block_nbytes;
        n_lengths = 1;
    }
    for (size_t i = 0; i < n_lengths; i++) {
        uint64_t needed = UINT64_MAX;
        SCIO_TRY(lay_blocks(plan, lengths[i], target, budget, &needed, err));
        if (i > 0 || n_lengths == 1)
            least = needed < least ? needed : least;
        if (needed <= budget) {
            *least_out = needed;
            return SCIO_OK;
        }
    }
    *least_out = least;
    return scio_fail(err, SCIO_EINVAL, "the windows need at least %llu bytes",
                     (unsigned long long)least);
}

/* ---- questions ---- */

int64_t
scio_plan_permuted(const scio_plan *plan, size_t i_window)
{
    const scio_plan_window *const window = &plan->windows[i_window];
    const int64_t n_cells = window->pos1 - window->pos0;

    return plan->options.shuffle == SCIO_SHUFFLE_EXACT && n_cells < plan->n_real ? plan->n_real
                                                                                 : n_cells;
}

void
scio_plan_permute(const scio_plan *plan, size_t i_window, int64_t *perm)
{
    const int64_t n_cells = scio_plan_permuted(plan, i_window);

    for (int64_t i = 0; i < n_cells; i++)
        perm[i] = i;
    if (plan->options.shuffle != SCIO_SHUFFLE_NONE)
        scio_rng_shuffle_i64(plan->options.seed,
                             scio_rng_stream(plan->options.epoch, SCIO_PURPOSE_CELLS, i_window),
                             perm, (size_t)n_cells);
}

scio_plan_entry
scio_plan_at(const scio_plan *plan, size_t i_window, int64_t pos)
{
    scio_plan_entry entry = {0, 0, false, pos >= plan->n_real};
    size_t low = plan->windows[i_window].piece0;
    size_t high =
        i_window + 1 < plan->n_windows ? plan->windows[i_window + 1].piece0 + 1 : plan->n_pieces;

    if (pos >= plan->n_sel) /* padding repeats the last cell, which the last window holds */
        pos = plan->n_sel - 1;
    while (high - low > 1) { /* the last piece that begins at or before pos */
        const size_t middle = low + (high - low) / 2;
        if (plan->pieces[middle].pos <= pos)
            low = middle;
        else
            high = middle;
    }
    const scio_plan_piece *const piece = &plan->pieces[low];
    entry.i_sel = piece->sel0 + (pos - piece->pos);
    entry.i_block = piece->i_block;
    entry.is_zone = piece->is_zone;
    return entry;
}

size_t
scio_plan_window_at(const scio_plan *plan, int64_t pos)
{
    size_t low = 0, high = plan->n_windows;

    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (plan->windows[middle].pos0 <= pos)
            low = middle;
        else
            high = middle;
    }
    return low;
}
