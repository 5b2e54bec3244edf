/* The plan, over thousands of small random sources: nothing is read, so every rule can be counted.
 */
#include "load/plan.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/stats.h"
#include "test.h"

#include <inttypes.h>

enum { MAX_SOURCES = 3, MAX_TRACKS = 4, MAX_ROWS = 60, BIG = 1 << 28 };

typedef struct world {
    scio_plan_source sources[MAX_SOURCES];
    size_t n_sources, n_tracks;
    scio_plan_track tracks[MAX_SOURCES][MAX_TRACKS];
    int64_t indptr[MAX_SOURCES][MAX_TRACKS][MAX_ROWS + 1];
    int64_t n_all;
    int64_t cells[MAX_SOURCES * MAX_ROWS];
    size_t n_cells;
    bool has_cells;
    scio_plan_options options;
} world;

static uint64_t draw_seed, draw_at;

static uint64_t
draw(uint64_t bound)
{
    return scio_rng_below(draw_seed, 77, draw_at++, bound);
}

static void
make_track(world *w, size_t i, size_t t, int64_t n_rows, uint64_t kind)
{
    scio_plan_track *const track = &w->tracks[i][t];
    int64_t *const indptr = w->indptr[i][t];

    *track = (scio_plan_track){.n_cols = (int64_t)draw(20) + 1, .is_in_file = kind != 3};
    track->data_itemsize = track->store_data_itemsize = (size_t)1 << draw(4);
    if (kind == 0) { /* dense in a file */
        track->data_unit = draw(7) + 1;
        track->n_column_units = draw(3) + 1;
        return;
    }
    track->data_unit = draw(12) + 1;
    track->index_unit = draw(2) == 0 ? track->data_unit : draw(12) + 1;
    track->index_itemsize = 4;
    track->store_index_itemsize = 2;
    track->indptr = indptr;
    indptr[0] = 0;
    for (int64_t row = 0; row < n_rows; row++) {
        const uint64_t shape = draw(10); /* some empty rows, some longer than several units */
        const int64_t n = shape < 2 ? 0 : shape == 9 ? (int64_t)draw(60) : (int64_t)draw(6);
        indptr[row + 1] = indptr[row] + n;
    }
}

static void
make_source(world *w, size_t i)
{
    const uint64_t kind = draw(4);

    w->sources[i] = (scio_plan_source){(int64_t)draw(MAX_ROWS + 1), w->n_tracks, w->tracks[i]};
    make_track(w, i, 0, w->sources[i].n_rows, kind);
    for (size_t t = 1; t < w->n_tracks; t++) {
        make_track(w, i, t, w->sources[i].n_rows, draw(4));
        if (draw(8) == 0) /* longer than all blocks */
            w->tracks[i][t].data_unit = draw(200) + 1;
        if (w->tracks[i][t].indptr != NULL && draw(3) == 0) /* a layer with the rows of the first */
            memcpy(w->indptr[i][t], w->indptr[i][0], sizeof w->indptr[i][t]);
    }
}

static void
make_world_of(world *w, uint64_t seed, size_t n_tracks)
{
    draw_seed = seed;
    draw_at = 0;
    memset(w, 0, sizeof *w);
    w->n_tracks = n_tracks;
    w->n_sources = draw(MAX_SOURCES) + 1;
    for (size_t i = 0; i < w->n_sources; i++) {
        make_source(w, i);
        w->n_all += w->sources[i].n_rows;
    }
    w->has_cells = draw(2) == 0;
    const uint64_t share = draw(10) + 1;
    for (int64_t cell = 0; cell < w->n_all; cell++)
        if (!w->has_cells || draw(10) < share)
            w->cells[w->n_cells++] = cell;
    w->options.batch_size = (int64_t)draw(9) + 1;
    w->options.drop_last = draw(2) == 0;
    w->options.shuffle = (scio_shuffle_mode)draw(3);
    w->options.seed = draw(1000);
    w->options.epoch = draw(5);
    w->options.world_size = draw(2) == 0 ? 1 : (int64_t)draw(4) + 1;
    w->options.block_nbytes = draw(3) == 0 ? 0 : draw(300) + 1;
}

static void
make_world(world *w, uint64_t seed)
{
    make_world_of(w, seed, 1);
}

/* The plan of a rank within the least budget that works, or `extra` above it. */
static scio_plan *
make_plan(const world *w, int64_t rank, uint64_t extra)
{
    scio_plan_options options = w->options;
    scio_plan *plan = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint64_t least = 0;

    options.rank = rank;
    CHECK(scio_plan_new(w->sources, w->n_sources, w->has_cells ? w->cells : NULL, w->n_cells,
                        &options, &plan, &err) == SCIO_OK);
    if (plan == NULL)
        return NULL;
    if (scio_plan_lay(plan, 0, &least, &err) != SCIO_OK) {
        CHECK(err.code == SCIO_EINVAL);
        const uint64_t budget = least + extra;
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_plan_lay(plan, budget, &least, &err) == SCIO_OK);
        CHECK(scio_plan_needed(plan) <= budget);
    }
    return plan;
}

static int64_t
n_in(const world *w, int64_t cell)
{
    for (size_t i = 0; i < w->n_cells; i++)
        if (w->cells[i] == cell)
            return 1;
    return 0;
}

/* Adds each cell of the rank's batches to counts; returns the batches. */
static int64_t
count_cells(const scio_plan *plan, int64_t *counts, int64_t *n_padding)
{
    int64_t perm[MAX_SOURCES * MAX_ROWS + 8], n_pos = 0;

    for (size_t v = 0; v < plan->n_windows; v++) {
        const scio_plan_window *const window = &plan->windows[v];
        CHECK(window->pos0 == n_pos && window->pos1 > window->pos0);
        CHECK(window->pos0 % plan->options.batch_size == 0);
        scio_plan_permute(plan, v, perm);
        for (int64_t i = 0; i < window->pos1 - window->pos0; i++) {
            const scio_plan_entry entry = scio_plan_at(plan, v, window->pos0 + perm[i]);
            CHECK(scio_plan_window_at(plan, window->pos0 + i) == v);
            *n_padding += entry.is_padding;
            counts[scio_plan_cell(plan, entry.i_sel)] += entry.is_padding ? 0 : 1;
        }
        n_pos = window->pos1;
    }
    CHECK(n_pos == plan->n_stream);
    return plan->n_batches;
}

TEST(every_selected_cell_comes_once_over_all_ranks_and_ranks_have_as_many_batches)
{
    for (uint64_t seed = 0; seed < 4000 && !test_has_failed; seed++) {
        world w;
        int64_t counts[MAX_SOURCES * MAX_ROWS + 1] = {0}, n_padding = 0, n_batches = -1, n_seen = 0;
        make_world(&w, seed);
        for (int64_t rank = 0; rank < w.options.world_size; rank++) {
            scio_plan *plan = make_plan(&w, rank, draw(3) == 0 ? 0 : draw(BIG));
            if (plan == NULL)
                return;
            const int64_t n = count_cells(plan, counts, &n_padding);
            CHECK(n_batches == -1 || n == n_batches);
            CHECK(!w.options.drop_last || plan->n_stream == n * w.options.batch_size);
            n_batches = n;
            scio_plan_free(plan);
        }
        for (int64_t cell = 0; cell < w.n_all; cell++) {
            CHECK(counts[cell] <= n_in(&w, cell));
            n_seen += counts[cell];
        }
        if (w.options.drop_last)
            CHECK(n_seen == n_batches * w.options.batch_size * w.options.world_size);
        else
            CHECK(n_seen == (int64_t)w.n_cells);
        CHECK(!w.options.drop_last || n_padding == 0);
        CHECK(n_padding < w.options.world_size);
        if (test_has_failed)
            printf("seed %" PRIu64 "\n", seed);
    }
}

/* ---- one-track plans are what they were before there were tracks ---- */

static uint64_t
mix_in(uint64_t hash, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        hash = (hash ^ (value >> (8 * i) & 0xff)) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t
hash_plan(uint64_t h, const scio_plan *plan)
{
    h = mix_in(h, (uint64_t)plan->n_stream);
    h = mix_in(h, plan->batch_items);
    for (int64_t i = 0; i < plan->n_sel; i++)
        h = mix_in(h, (uint64_t)scio_plan_cell(plan, i));
    for (size_t b = 0; b < plan->n_blocks; b++) {
        const scio_plan_block *const block = &plan->blocks[b];
        h = mix_in(mix_in(h, block->i_source), block->is_last_of_source);
        h = mix_in(mix_in(h, (uint64_t)block->row0), (uint64_t)block->row1);
        h = mix_in(mix_in(h, (uint64_t)block->sel0), (uint64_t)block->sel1);
        h = mix_in(mix_in(h, plan->zone_first[b]), plan->zone_last[b]);
        h = mix_in(h, plan->block_last[b]);
        if (plan->sources[block->i_source].tracks->is_in_file) {
            const scio_plan_units *const units = scio_plan_units_of(plan, b, 0);
            h = mix_in(mix_in(h, units->data0), units->data1);
            if (plan->sources[block->i_source].tracks->indptr != NULL)
                h = mix_in(mix_in(h, units->index0), units->index1);
        }
    }
    for (size_t i = 0; i < plan->n_order; i++)
        h = mix_in(h, plan->order[i]);
    for (size_t p = 0; p < plan->n_pieces; p++) {
        const scio_plan_piece *const piece = &plan->pieces[p];
        h = mix_in(mix_in(h, (uint64_t)piece->pos), (uint64_t)piece->sel0);
        h = mix_in(mix_in(h, piece->i_block), piece->is_zone);
    }
    for (size_t v = 0; v < plan->n_windows; v++) {
        const scio_plan_window *const window = &plan->windows[v];
        h = mix_in(mix_in(h, (uint64_t)window->pos0), (uint64_t)window->pos1);
        h = mix_in(mix_in(mix_in(h, window->order0), window->order1), window->piece0);
    }
    return mix_in(mix_in(h, plan->ring_nbytes), plan->aside_nbytes);
}

TEST(plans_of_one_track_are_what_they_were_before_there_were_more)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (uint64_t seed = 0; seed < 1500; seed++) {
        world w;
        make_world(&w, seed);
        w.options.block_nbytes = w.options.block_nbytes != 0 ? w.options.block_nbytes : 50;
        if (w.options.shuffle == SCIO_SHUFFLE_EXACT)
            w.options.shuffle = SCIO_SHUFFLE_BLOCK;
        for (int64_t rank = 0; rank < w.options.world_size; rank++) {
            scio_plan *plan = NULL;
            scio_error err = SCIO_ERROR_INIT;
            uint64_t least;
            w.options.rank = rank;
            CHECK(scio_plan_new(w.sources, w.n_sources, w.has_cells ? w.cells : NULL, w.n_cells,
                                &w.options, &plan, &err) == SCIO_OK);
            CHECK(scio_plan_lay(plan, 0, &least, &err) == SCIO_EINVAL);
            h = hash_plan(h, plan); /* the shortest windows */
            err = (scio_error)SCIO_ERROR_INIT;
            CHECK(scio_plan_lay(plan, BIG, &least, &err) == SCIO_OK);
            h = hash_plan(h, plan);
            scio_plan_free(plan);
        }
    }
    CHECK(h == UINT64_C(0x35f50a42641a561a));
}

/* Walks the windows as the loader does and adds up what is held, byte for byte. */
static uint64_t
walk_memory(const scio_plan *plan)
{
    uint64_t most = 0;

    for (size_t v = 0; v < plan->n_windows; v++) {
        uint64_t now = 0;
        for (size_t i = 0; i < plan->n_order; i++) {
            const size_t b = plan->order[i];
            size_t first = 0;
            while (plan->windows[first].order1 <= i)
                first++;
            if (plan->block_last[b] != SCIO_PLAN_NEVER && first <= v + 1 &&
                plan->block_last[b] >= v)
                now += scio_plan_block_nbytes(plan, b);
        }
        for (size_t b = 0; b < plan->n_blocks; b++)
            if (plan->zone_last[b] != SCIO_PLAN_NEVER && plan->zone_first[b] <= v + 1 &&
                plan->zone_last[b] >= v)
                now += scio_plan_zone_nbytes(plan, b);
        most = now > most ? now : most;
    }
    return most;
}

TEST(what_two_windows_hold_is_within_what_the_plan_says)
{
    for (uint64_t seed = 0; seed < 1500 && !test_has_failed; seed++) {
        world w;
        make_world(&w, seed);
        scio_plan *plan = make_plan(&w, 0, draw(2) == 0 ? 0 : draw(20000));
        if (plan != NULL)
            CHECK(walk_memory(plan) <= plan->ring_nbytes + plan->aside_nbytes);
        scio_plan_free(plan);
        if (test_has_failed)
            printf("seed %" PRIu64 "\n", seed);
    }
}

TEST(the_same_arguments_give_the_same_plan_and_another_epoch_another)
{
    world w;
    int64_t a[MAX_ROWS * 2], b[MAX_ROWS * 2];
    size_t n_other = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        make_world(&w, seed);
        w.options.shuffle = SCIO_SHUFFLE_BLOCK;
        w.options.drop_last = false;
        scio_plan *first = make_plan(&w, 0, 5000), *again = make_plan(&w, 0, 5000);
        w.options.epoch++;
        scio_plan *next = make_plan(&w, 0, 5000);
        for (size_t v = 0; v < first->n_windows; v++) {
            const int64_t n = first->windows[v].pos1 - first->windows[v].pos0;
            CHECK(again->windows[v].pos1 == first->windows[v].pos1);
            if (n > MAX_ROWS * 2)
                continue;
            scio_plan_permute(first, v, a);
            scio_plan_permute(again, v, b);
            CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        }
        for (size_t i = 0; i < first->n_order; i++)
            CHECK(first->order[i] == again->order[i]);
        if (first->n_order > 4 && next->n_order == first->n_order)
            n_other +=
                memcmp(first->order, next->order, first->n_order * sizeof *first->order) != 0;
        scio_plan_free(first);
        scio_plan_free(again);
        scio_plan_free(next);
    }
    CHECK(n_other > 20);
}

TEST(without_shuffle_the_stream_is_ascending)
{
    for (uint64_t seed = 0; seed < 1000 && !test_has_failed; seed++) {
        world w;
        make_world(&w, seed);
        w.options.shuffle = SCIO_SHUFFLE_NONE;
        scio_plan *plan = make_plan(&w, 0, draw(3000));
        int64_t last = -1;
        for (size_t v = 0; plan != NULL && v < plan->n_windows; v++)
            for (int64_t pos = plan->windows[v].pos0; pos < plan->windows[v].pos1; pos++) {
                const scio_plan_entry entry = scio_plan_at(plan, v, pos);
                if (entry.is_padding)
                    continue;
                CHECK(scio_plan_cell(plan, entry.i_sel) > last);
                last = scio_plan_cell(plan, entry.i_sel);
            }
        scio_plan_free(plan);
    }
}

TEST(exact_makes_one_window_of_all_cells)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        world w;
        make_world(&w, seed);
        w.options.shuffle = SCIO_SHUFFLE_EXACT;
        scio_plan *plan = make_plan(&w, 0, 0);
        if (plan != NULL)
            CHECK(plan->n_windows == (plan->n_stream > 0 ? 1 : 0));
        scio_plan_free(plan);
    }
}

static size_t
source_of(const scio_plan *plan, int64_t cell)
{
    size_t s = 0;
    while (plan->first_cells[s + 1] <= cell)
        s++;
    return s;
}

TEST(a_batch_never_has_more_items_than_the_plan_says)
{
    for (uint64_t seed = 0; seed < 500; seed++) {
        world w;
        make_world(&w, seed);
        scio_plan *plan = make_plan(&w, 0, draw(BIG));
        int64_t perm[MAX_SOURCES * MAX_ROWS + 8];
        for (size_t v = 0; plan != NULL && v < plan->n_windows; v++) {
            const scio_plan_window *const window = &plan->windows[v];
            uint64_t n_items = 0;
            scio_plan_permute(plan, v, perm);
            for (int64_t i = 0; i < window->pos1 - window->pos0; i++) {
                const scio_plan_entry entry = scio_plan_at(plan, v, window->pos0 + perm[i]);
                const size_t s = w.options.shuffle == SCIO_SHUFFLE_EXACT
                                     ? source_of(plan, scio_plan_cell(plan, entry.i_sel))
                                     : plan->blocks[entry.i_block].i_source;
                if (i % plan->options.batch_size == 0)
                    n_items = 0;
                n_items += (uint64_t)scio_plan_items(plan, s, 0, entry.i_sel, entry.i_sel + 1);
                CHECK(n_items <= plan->batch_items);
            }
        }
        scio_plan_free(plan);
    }
}

TEST(arguments_outside_their_range_are_named)
{
    const int64_t indptr[] = {0, 1, 3};
    const scio_plan_track track = {.n_cols = 4,
                                   .indptr = indptr,
                                   .is_in_file = true,
                                   .data_unit = 2,
                                   .index_unit = 2,
                                   .data_itemsize = 4,
                                   .index_itemsize = 4,
                                   .store_data_itemsize = 4,
                                   .store_index_itemsize = 2};
    const scio_plan_source source = {2, 1, &track};
    scio_plan_options options = {.batch_size = 0, .world_size = 1};
    const int64_t outside[] = {0, 2}, twice[] = {1, 1};
    scio_plan *plan = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_plan_new(&source, 1, NULL, 0, &options, &plan, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "batch_size is 0, must be 1 or more");
    options.batch_size = 1;
    options.rank = 2;
    options.world_size = 2;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_plan_new(&source, 1, NULL, 0, &options, &plan, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "rank is 2, not in [0, 2)");
    options.rank = 0;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_plan_new(&source, 1, outside, 2, &options, &plan, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "cells[1] is 2, not in [0, 2)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_plan_new(&source, 1, twice, 2, &options, &plan, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "cells[1] is 1, not greater than cells[0], which is 1");
    CHECK(plan == NULL);
}

TEST(every_failing_allocation_is_an_error_and_nothing_leaks)
{
    world w;
    size_t k = 0;
    scio_status status = SCIO_ENOMEM;

    make_world(&w, 5);
    w.options.world_size = 2;
    for (; status != SCIO_OK && k < 1000; k++) {
        scio_plan *plan = NULL;
        scio_error err = SCIO_ERROR_INIT;
        uint64_t least;
        scio_mem_fail_at(k);
        status = scio_plan_new(w.sources, w.n_sources, NULL, 0, &w.options, &plan, &err);
        if (status == SCIO_OK)
            status = scio_plan_lay(plan, BIG, &least, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        scio_plan_free(plan);
    }
    CHECK(k > 10 && k < 1000);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}
