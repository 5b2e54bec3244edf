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
    make_world_of(w, seed, seed % MAX_TRACKS + 1);
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
        make_world_of(&w, seed, 1);
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

/* ---- units ---- */

/* Rows [row0, row1) of a track lie in its units from `first` of one block to `last` of another. */
static bool
is_within(const scio_plan_track *track, int64_t row0, int64_t row1, const scio_plan_units *first,
          const scio_plan_units *last)
{
    if (!track->is_in_file)
        return true;
    const uint64_t begin = (uint64_t)(track->indptr != NULL ? track->indptr[row0] : row0);
    const uint64_t end = (uint64_t)(track->indptr != NULL ? track->indptr[row1] : row1);
    if (begin == end)
        return true;
    if (begin / track->data_unit < first->data0 || (end - 1) / track->data_unit >= last->data1)
        return false;
    return track->indptr == NULL || (begin / track->index_unit >= first->index0 &&
                                     (end - 1) / track->index_unit < last->index1);
}

static uint64_t
n_units_of(uint64_t n_items, uint64_t unit)
{
    return n_items / unit + (n_items % unit != 0 ? 1 : 0);
}

/* The units of a track begin behind those of the block before, and end with those of the source. */
static void
check_units(const scio_plan *plan, size_t b, size_t t)
{
    const scio_plan_source *const source = &plan->sources[plan->blocks[b].i_source];
    const scio_plan_track *const track = &source->tracks[t];
    const scio_plan_units *const units = scio_plan_units_of(plan, b, t);
    const bool is_first = b == 0 || plan->blocks[b - 1].is_last_of_source;

    CHECK(units->data0 <= units->data1 && units->index0 <= units->index1);
    CHECK(units->data0 == (is_first ? 0 : scio_plan_units_of(plan, b - 1, t)->data1));
    CHECK(units->index0 == (is_first ? 0 : scio_plan_units_of(plan, b - 1, t)->index1));
    if (!track->is_in_file)
        CHECK(units->data1 == 0 && units->index1 == 0);
    if (!track->is_in_file || !plan->blocks[b].is_last_of_source)
        return;
    const int64_t n_items = track->indptr != NULL ? track->indptr[source->n_rows] : source->n_rows;
    CHECK(units->data1 == n_units_of((uint64_t)n_items, track->data_unit));
    CHECK(units->index1 ==
          (track->indptr != NULL ? n_units_of((uint64_t)n_items, track->index_unit) : 0));
}

static void
check_block(const scio_plan *plan, size_t b)
{
    const scio_plan_block *const block = &plan->blocks[b];
    const scio_plan_source *const source = &plan->sources[block->i_source];
    const bool is_first = b == 0 || plan->blocks[b - 1].is_last_of_source;
    const int64_t zone1 = block->is_last_of_source ? block->row1 : block[1].row0;

    CHECK(block->row0 <= block->row1 && block->row1 <= zone1);
    CHECK(!is_first || block->row0 == 0);
    CHECK(!block->is_last_of_source || block->row1 == source->n_rows);
    for (size_t t = 0; t < plan->n_tracks; t++) {
        const scio_plan_track *const track = &source->tracks[t];
        const scio_plan_units *const units = scio_plan_units_of(plan, b, t);
        check_units(plan, b, t);
        CHECK(is_within(track, block->row0, block->row1, units, units));
        if (!block->is_last_of_source)
            CHECK(is_within(track, block->row1, zone1, units, scio_plan_units_of(plan, b + 1, t)));
    }
}

TEST(every_unit_begins_in_one_block_and_rows_of_two_blocks_lie_in_a_zone)
{
    for (uint64_t seed = 0; seed < 4000 && !test_has_failed; seed++) {
        world w;
        make_world(&w, seed);
        w.options.world_size = 1;
        if (w.options.shuffle == SCIO_SHUFFLE_EXACT)
            w.options.shuffle = SCIO_SHUFFLE_BLOCK;
        scio_plan *plan = make_plan(&w, 0, draw(BIG));
        for (size_t b = 0; plan != NULL && b < plan->n_blocks; b++)
            check_block(plan, b);
        scio_plan_free(plan);
        if (test_has_failed)
            printf("seed %" PRIu64 "\n", seed);
    }
}

/* The blocks that a cell of the stream comes from are decoded in its window or before. */
TEST(a_cell_comes_when_all_blocks_that_hold_a_part_of_it_are_decoded)
{
    for (uint64_t seed = 0; seed < 2000 && !test_has_failed; seed++) {
        world w;
        uint32_t decoded[4 * MAX_SOURCES * MAX_ROWS];
        make_world(&w, seed);
        if (w.options.shuffle == SCIO_SHUFFLE_EXACT)
            w.options.shuffle = SCIO_SHUFFLE_BLOCK;
        scio_plan *plan = make_plan(&w, (int64_t)draw((uint64_t)w.options.world_size), draw(9000));
        CHECK(plan->n_blocks < sizeof decoded / sizeof *decoded);
        for (size_t b = 0; b < plan->n_blocks; b++)
            decoded[b] = SCIO_PLAN_NEVER;
        for (size_t v = 0; v < plan->n_windows; v++) {
            const scio_plan_window *const window = &plan->windows[v];
            for (size_t i = window->order0; i < window->order1; i++) {
                CHECK(decoded[plan->order[i]] == SCIO_PLAN_NEVER);
                decoded[plan->order[i]] = (uint32_t)v;
            }
            for (int64_t pos = window->pos0; pos < window->pos1; pos++) {
                const scio_plan_entry entry = scio_plan_at(plan, v, pos);
                const scio_plan_block *const block = &plan->blocks[entry.i_block];
                const int64_t row =
                    scio_plan_cell(plan, entry.i_sel) - plan->first_cells[block->i_source];
                CHECK(decoded[entry.i_block] != SCIO_PLAN_NEVER);
                if (!entry.is_zone) {
                    CHECK(row >= block->row0 && row < block->row1);
                    continue;
                }
                CHECK(row >= block->row1 && row < block[1].row0);
                CHECK(decoded[entry.i_block + 1] != SCIO_PLAN_NEVER);
            }
        }
        scio_plan_free(plan);
        if (test_has_failed)
            printf("seed %" PRIu64 "\n", seed);
    }
}

/* ---- by hand ---- */

typedef struct expected_block {
    int64_t row0, row1;
    uint64_t units[2][4]; /* of two tracks: data0, data1, index0, index1 */
} expected_block;

static scio_plan *
plan_by_hand(const scio_plan_track *tracks, size_t n_tracks, int64_t n_rows, uint64_t block_nbytes,
             const int64_t *cells, size_t n_cells)
{
    const scio_plan_source source = {n_rows, n_tracks, tracks};
    const scio_plan_options options = {
        .batch_size = 2, .world_size = 1, .block_nbytes = block_nbytes};
    scio_plan *plan = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint64_t least;

    CHECK(scio_plan_new(&source, 1, cells, n_cells, &options, &plan, &err) == SCIO_OK);
    CHECK(scio_plan_lay(plan, BIG, &least, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    return plan;
}

static void
check_blocks(const scio_plan *plan, const expected_block *expected, size_t n_expected)
{
    CHECK(plan->n_blocks == n_expected);
    for (size_t b = 0; b < plan->n_blocks && b < n_expected; b++) {
        const scio_plan_block *const block = &plan->blocks[b];
        CHECK(block->row0 == expected[b].row0 && block->row1 == expected[b].row1);
        CHECK(block->is_last_of_source == (b + 1 == n_expected));
        for (size_t t = 0; t < plan->n_tracks && t < 2; t++) {
            const scio_plan_units *const u = scio_plan_units_of(plan, b, t);
            const uint64_t *const e = expected[b].units[t];
            CHECK(u->data0 == e[0] && u->data1 == e[1] && u->index0 == e[2] && u->index1 == e[3]);
        }
        if (test_has_failed) {
            printf("block %zu: rows %" PRId64 " to %" PRId64 "\n", b, block->row0, block->row1);
            return;
        }
    }
}

static scio_plan_track
csr_track(const int64_t *indptr, uint64_t data_unit, uint64_t index_unit)
{
    return (scio_plan_track){.n_cols = 9,
                             .indptr = indptr,
                             .is_in_file = true,
                             .data_unit = data_unit,
                             .index_unit = index_unit,
                             .data_itemsize = 4,
                             .index_itemsize = 4,
                             .store_data_itemsize = 4,
                             .store_index_itemsize = 2};
}

/* 12 rows of 4 items: units of 2 and of 3 rows. */
static const int64_t EVEN[] = {0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48};
static const expected_block EVEN_BLOCKS[] = {
    /* wish: row 4.  At 4 the layer is split (4 .. 6), at 3 the main matrix (3 .. 4): 3 */
    {0, 3, {{0, 2, 0, 2}, {0, 1, 0, 1}}},
    /* wish: row 8, where the layer is split; at 6 nothing is */
    {4, 6, {{2, 3, 2, 3}, {1, 2, 1, 2}}},
    /* wish: row 10, where the layer is split in two rows; at 9 the main matrix is in one */
    {6, 9, {{3, 5, 3, 5}, {2, 3, 2, 3}}},
    {10, 12, {{5, 6, 5, 6}, {3, 4, 3, 4}}},
};

TEST(a_layer_with_longer_chunks_by_hand)
{
    const scio_plan_track tracks[] = {csr_track(EVEN, 8, 8), csr_track(EVEN, 12, 12)};
    scio_plan *plan = plan_by_hand(tracks, 2, 12, 256, NULL, 0);

    check_blocks(plan, EVEN_BLOCKS, 4);
    /* three rows: 12 columns of 2 bytes and 12 values of 4 bytes, each array rounded up to 64 */
    CHECK(scio_plan_block_nbytes(plan, 0) == 256);
    const scio_plan_place first = scio_plan_store_place(plan, 0, 0, 0, 3);
    const scio_plan_place second = scio_plan_store_place(plan, 0, 1, 0, 3);
    CHECK(first.index_offset == 0 && first.data_offset == 64);
    CHECK(second.index_offset == 128 && second.data_offset == 192);
    CHECK(scio_plan_zone_nbytes(plan, 0) == 256 && scio_plan_zone_nbytes(plan, 1) == 0);
    scio_plan_free(plan);
}

TEST(a_track_in_memory_changes_neither_blocks_nor_bytes)
{
    scio_plan_track tracks[] = {csr_track(EVEN, 8, 8), csr_track(EVEN, 12, 12),
                                csr_track(EVEN, 5, 5)};
    tracks[2].is_in_file = false;
    scio_plan *plan = plan_by_hand(tracks, 3, 12, 256, NULL, 0);
    check_blocks(plan, EVEN_BLOCKS, 4);
    CHECK(scio_plan_block_nbytes(plan, 0) == 256);
    scio_plan_free(plan);

    /* the main matrix in memory, a layer in the file: the layer's blocks */
    tracks[0].is_in_file = false;
    static const expected_block layer[] = {{0, 6, {{0, 0, 0, 0}, {0, 2, 0, 2}}},
                                           {6, 12, {{0, 0, 0, 0}, {2, 4, 2, 4}}}};
    plan = plan_by_hand(tracks, 3, 12, 256, NULL, 0);
    check_blocks(plan, layer, 2);
    scio_plan_free(plan);
}

TEST(dense_rows_in_long_chunks_beside_csr_by_hand)
{
    const scio_plan_track tracks[] = {csr_track(EVEN, 4, 4),
                                      {.n_cols = 2,
                                       .is_in_file = true,
                                       .data_unit = 5,
                                       .n_column_units = 1,
                                       .data_itemsize = 4,
                                       .store_data_itemsize = 4}};
    /* a block of one row is wished for, but five lie in one chunk; the last cut would leave rows
     * 11 and 12 in a zone, so the rest is one block */
    static const expected_block expected[] = {{0, 5, {{0, 5, 0, 5}, {0, 1, 0, 0}}},
                                              {5, 10, {{5, 10, 5, 10}, {1, 2, 0, 0}}},
                                              {10, 12, {{10, 12, 10, 12}, {2, 3, 0, 0}}}};
    scio_plan *plan = plan_by_hand(tracks, 2, 12, 72, NULL, 0);
    check_blocks(plan, expected, 3);
    CHECK(scio_plan_block_nbytes(plan, 0) == 64 + 128 + 64); /* 20 columns, 20 values, 10 values */
    CHECK(plan->extents[0].longest_row == 4 && plan->extents[1].longest_row == 2);
    CHECK(plan->extents[0].batch_items == 8 && plan->extents[1].batch_items == 4);
    scio_plan_free(plan);

    /* all rows in one chunk: one block */
    scio_plan_track whole[] = {tracks[0], tracks[1]};
    whole[1].data_unit = 12;
    static const expected_block one[] = {{0, 12, {{0, 12, 0, 12}, {0, 1, 0, 0}}}};
    plan = plan_by_hand(whole, 2, 12, 72, NULL, 0);
    check_blocks(plan, one, 1);
    scio_plan_free(plan);
}

TEST(rows_longer_than_chunks_and_empty_ones_by_hand)
{
    static const int64_t main_items[] = {0, 0, 3, 13, 13, 14, 18}; /* units of 4 */
    static const int64_t layer_items[] = {0, 2, 2, 7, 8, 8, 11};   /* units of 3 */
    const scio_plan_track tracks[] = {csr_track(main_items, 4, 4), csr_track(layer_items, 3, 3)};
    /* the first cut: item 4 of the main matrix is in row 2, and so is item 3 of the layer; then
     * items 13 to 16 of the main matrix and 8 of the layer: row 5 is split in both */
    static const expected_block expected[] = {{0, 2, {{0, 1, 0, 1}, {0, 1, 0, 1}}},
                                              {3, 5, {{1, 4, 1, 4}, {1, 3, 1, 3}}},
                                              {6, 6, {{4, 5, 4, 5}, {3, 4, 3, 4}}}};
    scio_plan *plan = plan_by_hand(tracks, 2, 6, 1, NULL, 0);
    check_blocks(plan, expected, 3);
    scio_plan_free(plan);
}

TEST(blocks_without_a_selected_cell_are_not_read_by_hand)
{
    const scio_plan_track tracks[] = {csr_track(EVEN, 8, 8), csr_track(EVEN, 12, 12)};
    const int64_t cells[] = {1, 3, 8};
    scio_plan *plan = plan_by_hand(tracks, 2, 12, 256, cells, 3);

    check_blocks(plan, EVEN_BLOCKS, 4);
    CHECK(plan->n_order == 3); /* row 1 in block 0, row 3 in blocks 0 and 1, row 8 in block 2 */
    for (size_t i = 0; i < plan->n_order; i++)
        CHECK(plan->order[i] == i);
    CHECK(plan->n_pieces == 3 && plan->n_stream == 3);
    CHECK(plan->pieces[0].i_block == 0 && !plan->pieces[0].is_zone && plan->pieces[0].sel0 == 0);
    CHECK(plan->pieces[1].i_block == 0 && plan->pieces[1].is_zone && plan->pieces[1].sel0 == 1);
    CHECK(plan->pieces[2].i_block == 2 && !plan->pieces[2].is_zone && plan->pieces[2].sel0 == 2);
    CHECK(scio_plan_items(plan, 0, 1, 0, 3) == 12);
    scio_plan_free(plan);
}

TEST(a_track_without_items_does_not_hold_the_others_up)
{
    static const int64_t none[13] = {0};
    static const int64_t first_only[] = {0, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48, 48};
    const scio_plan_track with_none[] = {csr_track(EVEN, 8, 8), csr_track(none, 100, 100)};
    const scio_plan_track with_first[] = {csr_track(EVEN, 8, 8), csr_track(first_only, 4, 4)};
    const scio_plan_track none_leads[] = {csr_track(none, 8, 8), csr_track(EVEN, 8, 8)};
    scio_plan *plan;

    plan = plan_by_hand(with_none, 2, 12, 64, NULL, 0);
    CHECK(plan->n_blocks == 6);
    scio_plan_free(plan);
    plan = plan_by_hand(with_first, 2, 12, 64, NULL, 0);
    CHECK(plan->n_blocks == 6);
    scio_plan_free(plan);
    plan = plan_by_hand(none_leads, 2, 12, 64, NULL, 0);
    CHECK(plan->n_blocks == 6);
    scio_plan_free(plan);
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

TEST(exact_is_one_permutation_of_the_cells_that_the_rank_had_in_epoch_0)
{
    for (uint64_t seed = 0; seed < 1000 && !test_has_failed; seed++) {
        world w;
        make_world(&w, seed);
        const int64_t rank = (int64_t)draw((uint64_t)w.options.world_size);
        w.options.shuffle = SCIO_SHUFFLE_BLOCK;
        w.options.epoch = 0;
        scio_plan *decoded = make_plan(&w, rank, 1000);
        w.options.shuffle = SCIO_SHUFFLE_EXACT;
        w.options.epoch = draw(5);
        scio_plan *plan = make_plan(&w, rank, 0);
        if (plan == NULL || decoded == NULL)
            return;
        CHECK(plan->n_sel == decoded->n_sel && plan->n_stream == decoded->n_stream);
        CHECK(plan->n_batches == decoded->n_batches && plan->n_real == decoded->n_real);
        for (int64_t i = 0; i < plan->n_sel; i++)
            CHECK(scio_plan_cell(plan, i) == scio_plan_cell(decoded, i));
        CHECK(plan->n_blocks == 0 && plan->n_order == 0 && plan->ring_nbytes == 0);
        const int64_t n_permuted = plan->n_windows > 0 ? scio_plan_permuted(plan, 0) : 0;
        CHECK(n_permuted >= plan->n_stream || plan->n_windows == 0);
        CHECK(plan->aside_nbytes == (uint64_t)n_permuted * sizeof(int64_t));
        CHECK(plan->n_windows == (plan->n_stream > 0 ? 1 : 0));
        for (int64_t pos = 0; pos < plan->n_stream; pos++) {
            const scio_plan_entry entry = scio_plan_at(plan, 0, pos);
            CHECK(entry.i_block == 0 && !entry.is_zone);
            CHECK(entry.i_sel == (pos < plan->n_sel ? pos : plan->n_sel - 1));
            CHECK(entry.is_padding == (pos >= plan->n_real));
        }
        scio_plan_free(plan);
        scio_plan_free(decoded);
    }
}

TEST(exact_epochs_differ_and_repeat)
{
    const scio_plan_track track = csr_track(EVEN, 8, 8);
    const scio_plan_source source = {12, 1, &track};
    int64_t perms[3][12];

    for (uint64_t i = 0; i < 3; i++) {
        const scio_plan_options options = {.batch_size = 5,
                                           .shuffle = SCIO_SHUFFLE_EXACT,
                                           .seed = 8,
                                           .epoch = i % 2,
                                           .world_size = 1};
        scio_plan *plan = NULL;
        scio_error err = SCIO_ERROR_INIT;
        uint64_t least = 0;
        CHECK(scio_plan_new(&source, 1, NULL, 0, &options, &plan, &err) == SCIO_OK);
        CHECK(scio_plan_lay(plan, 10, &least, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, "the permutation needs");
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_plan_lay(plan, least, &least, &err) == SCIO_OK);
        scio_plan_permute(plan, 0, perms[i]);
        scio_plan_free(plan);
    }
    CHECK(memcmp(perms[0], perms[2], sizeof perms[0]) == 0);
    CHECK(memcmp(perms[0], perms[1], sizeof perms[0]) != 0);
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
            uint64_t n_items[MAX_TRACKS] = {0};
            scio_plan_permute(plan, v, perm);
            for (int64_t i = 0; i < window->pos1 - window->pos0; i++) {
                const scio_plan_entry entry = scio_plan_at(plan, v, window->pos0 + perm[i]);
                const size_t s = w.options.shuffle == SCIO_SHUFFLE_EXACT
                                     ? source_of(plan, scio_plan_cell(plan, entry.i_sel))
                                     : plan->blocks[entry.i_block].i_source;
                for (size_t t = 0; t < w.n_tracks; t++) {
                    if (i % plan->options.batch_size == 0)
                        n_items[t] = 0;
                    const int64_t n = scio_plan_items(plan, s, t, entry.i_sel, entry.i_sel + 1);
                    n_items[t] += (uint64_t)n;
                    CHECK(n_items[t] <= plan->extents[t].batch_items);
                    CHECK(n <= plan->extents[t].longest_row);
                }
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
    const scio_plan_source uneven[] = {{2, 1, &track}, {2, 0, &track}};
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_plan_new(uneven, 2, NULL, 0, &options, &plan, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "source 1 has 0 tracks, source 0 has 1");
    CHECK(plan == NULL);
}

TEST(every_failing_allocation_is_an_error_and_nothing_leaks)
{
    world w;
    size_t k = 0;
    scio_status status = SCIO_ENOMEM;

    make_world_of(&w, 5, 3);
    w.options.shuffle = SCIO_SHUFFLE_BLOCK;
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
