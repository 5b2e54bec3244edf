/* The store without a loader round it: blocks are opened, decoded, read and closed window by
 * window. */
#include "load/window.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/stats.h"
#include "load/narrow.h"
#include "load_testing.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

static int no_cancel;

static scio_plan_track
describe(const scio_matrix *matrix)
{
    scio_plan_track track = {.n_cols = matrix->n_cols,
                             .indptr = matrix->indptr,
                             .is_in_file = matrix->is_in_file,
                             .data_itemsize = scio_dtype_itemsize(matrix->data_dtype),
                             .store_data_itemsize = scio_dtype_itemsize(matrix->data_dtype)};

    if (!matrix->is_in_file)
        return track;
    track.data_unit = matrix->data_dataset->unit_dims[0];
    if (matrix->kind == SCIO_MATRIX_DENSE) {
        track.n_column_units = matrix->data_dataset->grid[1];
        return track;
    }
    track.index_unit = matrix->indices_dataset->unit_dims[0];
    track.index_itemsize = scio_dtype_itemsize(matrix->index_dtype);
    track.store_index_itemsize = scio_dtype_itemsize(scio_store_index_dtype(matrix));
    return track;
}

typedef struct work {
    const fixture *f;
    scio_matrix *matrix;
    scio_plan *plan;
    scio_store store;
} work;

static void
set_up(work *w, const char *name, int64_t batch_size, uint64_t block_nbytes, uint64_t more)
{
    scio_error err = SCIO_ERROR_INIT;
    uint64_t least = 0;

    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < N_FIXTURES; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            w->f = &fixtures[i];
    CHECK(open_fixture(w->f, &w->matrix, &err) == SCIO_OK);
    const scio_plan_track track = describe(w->matrix);
    const scio_plan_source source = {w->matrix->n_rows, 1, &track};
    const scio_plan_options options = {.batch_size = batch_size,
                                       .shuffle = SCIO_SHUFFLE_BLOCK,
                                       .seed = 9,
                                       .world_size = 1,
                                       .block_nbytes = block_nbytes};
    CHECK(scio_plan_new(&source, 1, NULL, 0, &options, &w->plan, &err) == SCIO_OK);
    CHECK(scio_plan_lay(w->plan, 0, &least, &err) == SCIO_EINVAL);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_plan_lay(w->plan, least + more, &least, &err) == SCIO_OK);
    CHECK(scio_store_init(&w->store, w->plan, &w->matrix, 0, false, &no_cancel, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
}

static void
tear_down(work *w)
{
    scio_store_clear(&w->store);
    scio_plan_free(w->plan);
    scio_matrix_release(w->matrix);
}

static scio_status
fill_window(work *w, size_t i_window, scio_h5_scratch **scratch, scio_error *err)
{
    size_t begin, end;

    scio_store_window_order(&w->store, i_window, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t b = w->plan->order[i];
        SCIO_TRY(scio_store_open(&w->store, b, err));
        for (unsigned which = 0; which < scio_store_n_jobs(&w->store, b); which++) {
            scio_store_count count;
            SCIO_TRY(scio_store_decode(&w->store, b, which, scratch, &count, err));
        }
    }
    return SCIO_OK;
}

static void
check_row(const work *w, const scio_row *row)
{
    size_t at = 0;

    for (int64_t col = 0; col < w->f->n_cols; col++) {
        double got = 0;
        const double value = value_at(w->f, row->cell, col);
        if (value == 0)
            continue;
        const size_t itemsize = scio_dtype_itemsize(row->value_dtype);
        CHECK(at < row->n_items);
        CHECK(scio_cast(row->value_dtype, (const char *)row->values + at * itemsize, SCIO_F64, &got,
                        1, NULL) == SCIO_OK);
        CHECK(row->index_dtype == SCIO_U16);
        CHECK(got == value && ((const uint16_t *)row->indices)[at] == col);
        at++;
    }
    CHECK(at == row->n_items);
}

TEST(windows_hold_their_rows_while_the_next_one_is_filled_and_give_all_back)
{
    const char *const names[] = {"f8", "f4", "wide", "swapped", "plain"};
    scio_h5_scratch *scratch = NULL;

    for (size_t i = 0; i < 5; i++)
        for (uint64_t more = 0; more < 6000; more += 2500) {
            work w;
            scio_error err = SCIO_ERROR_INIT;
            size_t n_cells = 0;
            set_up(&w, names[i], 4, 900, more);
            CHECK(fill_window(&w, 0, &scratch, &err) == SCIO_OK);
            for (size_t v = 0; v < w.plan->n_windows; v++) {
                if (v + 1 < w.plan->n_windows)
                    CHECK(fill_window(&w, v + 1, &scratch, &err) == SCIO_OK);
                for (int64_t pos = w.plan->windows[v].pos0; pos < w.plan->windows[v].pos1; pos++) {
                    const scio_plan_entry entry = scio_plan_at(w.plan, v, pos);
                    scio_row row;
                    scio_store_row(&w.store, &entry, 0, &row);
                    check_row(&w, &row);
                    n_cells++;
                }
                scio_store_close_window(&w.store, v);
            }
            CHECK_CLEAR(err.message);
            CHECK(n_cells == (size_t)w.f->n_rows);
            CHECK(w.plan->n_windows > 2 || more > 0 || i == 4); /* `plain` is one unit */
            CHECK(w.store.n_live == 0 && w.store.zone_nbytes == 0);
            tear_down(&w);
        }
    scio_h5_scratch_free(scratch);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(blocks_are_as_narrow_as_their_values_allow)
{
    const char *const names[] = {"f4", "wide", "f8"};
    size_t n_blocks[3][SCIO_N_DTYPES] = {{0}};
    scio_h5_scratch *scratch = NULL;

    for (size_t i = 0; i < 3; i++) {
        work w;
        scio_error err = SCIO_ERROR_INIT;
        set_up(&w, names[i], 4, 900, 10 << 20);
        for (size_t v = 0; v < w.plan->n_windows; v++)
            CHECK(fill_window(&w, v, &scratch, &err) == SCIO_OK);
        for (size_t b = 0; b < w.plan->n_blocks; b++)
            if (w.store.blocks[b].memory != NULL)
                n_blocks[i][w.store.blocks[b].parts[0].value_dtype]++;
        tear_down(&w);
    }
    scio_h5_scratch_free(scratch);
    CHECK(n_blocks[0][SCIO_U8] > 0 && n_blocks[0][SCIO_F32] == 0);
    CHECK(n_blocks[1][SCIO_U8] > 0 && n_blocks[1][SCIO_U16] > 0 && n_blocks[1][SCIO_F32] > 0);
    CHECK(n_blocks[2][SCIO_F64] > 0 && n_blocks[2][SCIO_U8] == 0);
}

/* ---- several tracks ---- */

#define TRACKS_FIXTURE "tests/c/data/load_tracks.h5"

enum { N_ROWS = 150, MOST_TRACKS = 4 };

static const fixture track_fixtures[] = {
    {"layer", N_ROWS, 300, 2, EIGHTHS, false, false},
    {"spliced", N_ROWS, 90, 14, SMALL, false, false},
    {"embedding", N_ROWS, 20, 11, SMALL, true, false},
    {"embedding_plain", N_ROWS, 5, 12, SMALL, true, false},
    {"bands", N_ROWS, 20, 13, SMALL, true, false},
};
enum { N_TRACK_FIXTURES = sizeof track_fixtures / sizeof *track_fixtures };

/* One source of several tracks of 150 rows. */
typedef struct tracks_work {
    size_t n_tracks;
    const fixture *sets[MOST_TRACKS];
    scio_matrix *matrices[MOST_TRACKS];
    scio_plan *plan;
    scio_store store;
    scio_h5_scratch *scratch;
    int64_t n_decoded;
} tracks_work;

static const fixture *
find_fixture(const char *name, bool *is_track)
{
    for (size_t i = 0; i < N_TRACK_FIXTURES; i++)
        if (strcmp(track_fixtures[i].name, name) == 0) {
            *is_track = true;
            return &track_fixtures[i];
        }
    *is_track = false;
    for (size_t i = 0; i < N_FIXTURES; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    return NULL;
}

/* The whole file in memory, to be spoilt; the caller owns the buffer. */
static scio_buf *
read_file(const char *path)
{
    scio_source *source = NULL;
    scio_buf *buf = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_source_open_file(path, &source, &err) == SCIO_OK);
    CHECK(scio_buf_new((size_t)scio_source_nbytes(source), &buf, &err) == SCIO_OK);
    CHECK(scio_source_read(source, 0, scio_buf_nbytes(buf), scio_buf_data(buf), &err) == SCIO_OK);
    scio_source_release(source);
    return buf;
}

/* `name` with a leading '-': in memory. */
static void
open_tracks(tracks_work *w, const char *const *names, size_t n_tracks)
{
    memset(w, 0, sizeof *w);
    w->n_tracks = n_tracks;
    for (size_t t = 0; t < n_tracks; t++) {
        const bool in_memory = names[t][0] == '-';
        scio_source *source = NULL;
        scio_error err = SCIO_ERROR_INIT;
        bool is_track;
        w->sets[t] = find_fixture(names[t] + in_memory, &is_track);
        CHECK(w->sets[t] != NULL && w->sets[t]->n_rows == N_ROWS);
        if (in_memory) {
            w->matrices[t] = fixture_in_memory(w->sets[t]);
            continue;
        }
        CHECK(scio_source_open_file(is_track ? TRACKS_FIXTURE : FIXTURE, &source, &err) == SCIO_OK);
        CHECK(open_fixture_in(source, w->sets[t], &w->matrices[t], &err) == SCIO_OK);
        CHECK_CLEAR(err.message);
        scio_source_release(source);
    }
}

static scio_status
lay_tracks(tracks_work *w, const int64_t *cells, size_t n_cells, scio_shuffle_mode shuffle,
           uint64_t block_nbytes, uint64_t more, scio_error *err)
{
    scio_plan_track tracks[MOST_TRACKS];
    const scio_plan_source source = {N_ROWS, w->n_tracks, tracks};
    const scio_plan_options options = {.batch_size = 4,
                                       .shuffle = shuffle,
                                       .seed = 9,
                                       .world_size = 1,
                                       .block_nbytes = block_nbytes};
    scio_error refusal = SCIO_ERROR_INIT;
    uint64_t least = 0;

    for (size_t t = 0; t < w->n_tracks; t++)
        tracks[t] = describe(w->matrices[t]);
    SCIO_TRY(scio_plan_new(&source, 1, cells, n_cells, &options, &w->plan, err));
    const scio_status status = scio_plan_lay(w->plan, 0, &least, &refusal);
    if (status != SCIO_EINVAL) {
        scio_error_move(err, &refusal);
        return status;
    }
    return scio_plan_lay(w->plan, least + more, &least, err);
}

static void
close_tracks(tracks_work *w)
{
    scio_store_clear(&w->store);
    scio_plan_free(w->plan);
    scio_h5_scratch_free(w->scratch);
    for (size_t t = 0; t < w->n_tracks; t++)
        scio_matrix_release(w->matrices[t]);
}

static scio_status
fill_tracks(tracks_work *w, size_t i_window, scio_error *err)
{
    size_t begin, end;

    scio_store_window_order(&w->store, i_window, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t b = w->plan->order[i];
        SCIO_TRY(scio_store_open(&w->store, b, err));
        for (unsigned job = 0; job < scio_store_n_jobs(&w->store, b); job++) {
            scio_store_count count;
            SCIO_TRY(scio_store_decode(&w->store, b, job, &w->scratch, &count, err));
            w->n_decoded += count.n_units;
        }
    }
    return SCIO_OK;
}

static void
check_track_row(const fixture *f, const scio_row *row)
{
    const size_t itemsize = scio_dtype_itemsize(row->value_dtype);
    size_t at = 0;

    for (int64_t col = 0; col < f->n_cols; col++) {
        const double value = value_at(f, row->cell, col);
        double got = -1;
        if (value == 0 && !f->is_dense)
            continue;
        if (at >= row->n_items) {
            CHECK(at < row->n_items);
            return;
        }
        CHECK(scio_cast(row->value_dtype, (const char *)row->values + at * itemsize, SCIO_F64, &got,
                        1, NULL) == SCIO_OK);
        CHECK(got == value);
        if (!f->is_dense)
            CHECK(row->index_dtype == SCIO_U16 ? ((const uint16_t *)row->indices)[at] == col
                                               : ((const int32_t *)row->indices)[at] == col);
        at++;
    }
    CHECK(at == row->n_items);
    CHECK(row->n_items == 0 || (row->indices == NULL) == f->is_dense);
}

static void
mark(uint8_t *units, uint64_t n_units, uint64_t begin, uint64_t end, uint64_t unit,
     uint64_t n_columns)
{
    for (uint64_t i = begin / unit; begin < end && i * unit < end; i++)
        for (uint64_t c = 0; c < n_columns; c++) {
            CHECK(i * n_columns + c < n_units);
            units[i * n_columns + c] = 1;
        }
}

/* Units of an array that hold a selected row which a window from first_window on keeps in memory:
 * found row by row, in another way than the store does. */
static int64_t
count_needed(const tracks_work *w, size_t t, const scio_h5_dataset *dataset, size_t first_window)
{
    const int64_t *const indptr = w->matrices[t]->indptr;
    const uint64_t n_columns = indptr != NULL ? 1 : dataset->grid[1];
    uint8_t units[4096] = {0};
    int64_t n_needed = 0;

    CHECK(dataset->n_units <= sizeof units);
    for (size_t b = 0; b < w->plan->n_blocks; b++)
        for (int zone = 0; zone < 2; zone++) {
            const uint32_t last = (zone ? w->plan->zone_last : w->plan->block_last)[b];
            int64_t sel0 = w->plan->blocks[b].sel0, sel1 = w->plan->blocks[b].sel1;
            if (last == SCIO_PLAN_NEVER || last < first_window)
                continue;
            if (zone)
                (void)scio_plan_zone(w->plan, b, &sel0, &sel1);
            for (int64_t j = sel0; j < sel1; j++) {
                const int64_t row = scio_plan_cell(w->plan, j);
                mark(units, dataset->n_units, (uint64_t)(indptr != NULL ? indptr[row] : row),
                     (uint64_t)(indptr != NULL ? indptr[row + 1] : row + 1), dataset->unit_dims[0],
                     n_columns);
            }
        }
    for (size_t i = 0; i < dataset->n_units; i++)
        n_needed += units[i];
    return n_needed;
}

/* Runs the epoch from a window on: values, and how often what is decoded. */
static void
run_from(tracks_work *w, size_t first_window)
{
    scio_error err = SCIO_ERROR_INIT;
    int64_t n_units = 0, n_needed = 0;

    w->n_decoded = 0;
    CHECK(scio_store_init(&w->store, w->plan, w->matrices, first_window, false, &no_cancel, &err) ==
          SCIO_OK);
    for (size_t b = 0; b < w->plan->n_blocks; b++)
        n_units += scio_store_n_units(&w->store, b);
    CHECK(fill_tracks(w, first_window, &err) == SCIO_OK);
    for (size_t v = first_window; v < w->plan->n_windows; v++) {
        if (v + 1 < w->plan->n_windows)
            CHECK(fill_tracks(w, v + 1, &err) == SCIO_OK);
        for (int64_t pos = w->plan->windows[v].pos0; pos < w->plan->windows[v].pos1; pos++) {
            const scio_plan_entry entry = scio_plan_at(w->plan, v, pos);
            for (size_t t = 0; t < w->n_tracks; t++) {
                scio_row row;
                scio_store_row(&w->store, &entry, t, &row);
                check_track_row(w->sets[t], &row);
            }
        }
        scio_store_close_window(&w->store, v);
    }
    CHECK_CLEAR(err.message);
    CHECK(w->store.n_live == 0 && w->store.zone_nbytes == 0);
    for (size_t t = 0; t < w->n_tracks; t++) {
        if (!w->matrices[t]->is_in_file)
            continue;
        n_needed += count_needed(w, t, w->matrices[t]->data_dataset, first_window);
        if (w->matrices[t]->kind == SCIO_MATRIX_CSR)
            n_needed += count_needed(w, t, w->matrices[t]->indices_dataset, first_window);
    }
    CHECK(w->n_decoded == n_units && w->n_decoded == n_needed);
    scio_store_clear(&w->store);
}

static const char *const TRACK_SETS[][MOST_TRACKS] = {
    {"f4", "layer"},
    {"f4", "spliced", "embedding"},
    {"layer", "wide", "bands", "f4"},
    {"embedding", "f4"},
    {"bands", "embedding"},
    {"-f4", "layer", "bands"},
    {"spliced", "-embedding", "embedding_plain"},
    {"-layer", "-bands"},
};
enum { N_TRACK_SETS = sizeof TRACK_SETS / sizeof *TRACK_SETS };

static size_t
n_tracks_of(size_t i_set)
{
    size_t n = 0;
    while (n < MOST_TRACKS && TRACK_SETS[i_set][n] != NULL)
        n++;
    return n;
}

TEST(all_tracks_of_every_row_come_and_each_unit_is_decoded_once_from_any_window_on)
{
    size_t n_windows = 0;

    for (size_t i = 0; i < N_TRACK_SETS; i++)
        for (int round = 0; round < 12; round++) {
            tracks_work w;
            scio_error err = SCIO_ERROR_INIT;
            int64_t cells[N_ROWS];
            size_t n_cells = 0;
            const uint64_t block_nbytes = round % 3 == 0 ? 1 : round % 3 == 1 ? 900 : 4000;
            for (int64_t row = 0; row < N_ROWS; row++) /* all, or runs and single ones */
                if (round < 6 || row % 50 < 20 || row % 7 == 3)
                    cells[n_cells++] = row;
            open_tracks(&w, TRACK_SETS[i], n_tracks_of(i));
            CHECK(lay_tracks(&w, cells, n_cells,
                             round % 2 == 0 ? SCIO_SHUFFLE_BLOCK : SCIO_SHUFFLE_NONE, block_nbytes,
                             round % 4 == 0 ? 20000 : 0, &err) == SCIO_OK);
            CHECK_CLEAR(err.message);
            n_windows += w.plan->n_windows;
            for (size_t v = 0; v < w.plan->n_windows && !test_has_failed; v++)
                run_from(&w, v);
            if (test_has_failed)
                printf("set %zu, round %d\n", i, round);
            close_tracks(&w);
            if (test_has_failed)
                return;
        }
    CHECK(n_windows > 300);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(every_unit_of_every_array_is_decoded_in_a_full_epoch)
{
    for (size_t i = 0; i < N_TRACK_SETS; i++) {
        tracks_work w;
        scio_error err = SCIO_ERROR_INIT;
        int64_t n_units = 0;
        open_tracks(&w, TRACK_SETS[i], n_tracks_of(i));
        CHECK(lay_tracks(&w, NULL, 0, SCIO_SHUFFLE_BLOCK, 900, 0, &err) == SCIO_OK);
        run_from(&w, 0);
        for (size_t t = 0; t < w.n_tracks; t++) {
            if (!w.matrices[t]->is_in_file)
                continue;
            n_units += (int64_t)w.matrices[t]->data_dataset->n_units;
            if (w.matrices[t]->kind == SCIO_MATRIX_CSR)
                n_units += (int64_t)w.matrices[t]->indices_dataset->n_units;
        }
        CHECK(w.n_decoded == n_units);
        close_tracks(&w);
    }
}

/* The second track again, from a file with one stored chunk spoilt. */
static void
spoil(tracks_work *w, bool is_indices, uint64_t i_unit)
{
    const scio_h5_unit *units = NULL;
    scio_source *source = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *const buf = read_file(TRACKS_FIXTURE);

    CHECK(scio_h5_dataset_units(is_indices ? w->matrices[1]->indices_dataset
                                           : w->matrices[1]->data_dataset,
                                &units, &err) == SCIO_OK);
    memset((char *)scio_buf_data(buf) + units[i_unit].position, 0xee, (size_t)units[i_unit].nbytes);
    scio_matrix_release(w->matrices[1]);
    w->matrices[1] = NULL;
    CHECK(scio_source_from_buf(buf, "spoilt.h5", &source, &err) == SCIO_OK);
    CHECK(open_fixture_in(source, w->sets[1], &w->matrices[1], &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    scio_source_release(source);
    scio_buf_release(buf);
}

static bool
is_lost(const tracks_work *w, int64_t row, bool is_indices, uint64_t i_unit)
{
    const scio_matrix *const matrix = w->matrices[1];
    const scio_h5_dataset *const dataset =
        is_indices ? matrix->indices_dataset : matrix->data_dataset;
    const int64_t unit = (int64_t)dataset->unit_dims[0];
    const int64_t *const indptr = matrix->indptr;

    if (indptr == NULL)
        return row / unit == (int64_t)(i_unit / dataset->grid[1]);
    /* an empty row between items of the chunk counts as well */
    return indptr[row] < ((int64_t)i_unit + 1) * unit && indptr[row + 1] > (int64_t)i_unit * unit;
}

TEST(a_broken_chunk_of_a_second_track_is_named_or_its_cells_are_left_out)
{
    const struct {
        const char *names[2];
        bool is_indices;
        uint64_t i_unit;
        const char *message;
    } cases[] = {{{"f4", "layer"}, false, 7, "/layer/data"},
                 {{"f4", "layer"}, true, 3, "/layer/indices"},
                 {{"-f4", "layer"}, true, 5, "/layer/indices"},
                 {{"f4", "embedding"}, false, 4, "/embedding"}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int skip = 0; skip < 2; skip++) {
            tracks_work w;
            scio_error err = SCIO_ERROR_INIT;
            size_t n_lost = 0, n_expected = 0;
            scio_status status = SCIO_OK;
            open_tracks(&w, cases[i].names, 2);
            spoil(&w, cases[i].is_indices, cases[i].i_unit);
            for (int64_t row = 0; row < N_ROWS; row++)
                n_expected += is_lost(&w, row, cases[i].is_indices, cases[i].i_unit);
            CHECK(n_expected > 1 && n_expected < N_ROWS);
            CHECK(lay_tracks(&w, NULL, 0, SCIO_SHUFFLE_BLOCK, 900, 0, &err) == SCIO_OK);
            CHECK(scio_store_init(&w.store, w.plan, w.matrices, 0, skip, &no_cancel, &err) ==
                  SCIO_OK);
            for (size_t v = 0; v < w.plan->n_windows && status == SCIO_OK; v++) {
                const scio_plan_window *const window = &w.plan->windows[v];
                status = fill_tracks(&w, v, &err);
                for (int64_t pos = window->pos0; pos < window->pos1 && status == SCIO_OK; pos++) {
                    const scio_plan_entry entry = scio_plan_at(w.plan, v, pos);
                    const bool is_broken = scio_store_is_broken(&w.store, &entry);
                    scio_row row;
                    CHECK(is_broken == is_lost(&w, scio_plan_cell(w.plan, entry.i_sel),
                                               cases[i].is_indices, cases[i].i_unit));
                    n_lost += is_broken;
                    for (size_t t = 0; t < 2 && !is_broken; t++) {
                        scio_store_row(&w.store, &entry, t, &row);
                        check_track_row(w.sets[t], &row);
                    }
                }
                scio_store_close_window(&w.store, v);
            }
            CHECK(status == (skip ? SCIO_OK : SCIO_ECORRUPT));
            CHECK_STR(err.message, skip ? "" : cases[i].message);
            CHECK_STR(err.message, skip ? "" : "cells ");
            if (skip)
                CHECK(n_lost == n_expected);
            close_tracks(&w);
        }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

/* ---- the jobs of tracks in threads ---- */

typedef struct threads_work {
    tracks_work *tracks;
    scio_h5_scratch *scratch[3];
    int n_failed;
} threads_work;

static void
run_job(scio_job *job, size_t slot)
{
    const scio_store_job *const decode = (const scio_store_job *)(const void *)job;
    threads_work *const threads = decode->owner;
    scio_error err = SCIO_ERROR_INIT;
    scio_store_count count;

    if (scio_store_decode(&threads->tracks->store, decode->i_block, decode->which,
                          &threads->scratch[slot], &count, &err) != SCIO_OK)
        __atomic_fetch_add(&threads->n_failed, 1, __ATOMIC_RELAXED);
}

TEST(the_jobs_of_all_tracks_run_side_by_side)
{
    const char *const names[] = {"f4", "layer", "embedding", "spliced"};
    scio_pool *pool = NULL;
    scio_group *group = NULL;
    scio_error err = SCIO_ERROR_INIT;
    tracks_work w;
    threads_work threads = {.tracks = &w};

    open_tracks(&w, names, 4);
    CHECK(lay_tracks(&w, NULL, 0, SCIO_SHUFFLE_BLOCK, 900, 0, &err) == SCIO_OK);
    CHECK(scio_store_init(&w.store, w.plan, w.matrices, 0, false, &no_cancel, &err) == SCIO_OK);
    CHECK(scio_pool_new(3, &pool, &err) == SCIO_OK);
    CHECK(scio_group_new(pool, 3, &group, &err) == SCIO_OK);
    for (size_t v = 0; v < w.plan->n_windows; v++) {
        const scio_plan_window *const window = &w.plan->windows[v];
        for (size_t i = window->order0; i < window->order1; i++) {
            const size_t b = w.plan->order[i];
            CHECK(scio_store_open(&w.store, b, &err) == SCIO_OK);
            CHECK(scio_store_n_jobs(&w.store, b) == 7);
            for (unsigned k = 0; k < 7; k++) {
                scio_store_job *const job = &w.store.blocks[b].jobs[k];
                *job = (scio_store_job){{run_job, NULL}, &threads, b, k};
                scio_group_submit(group, &job->job, SCIO_PRIORITY_LOW);
            }
        }
        scio_group_wait(group);
        for (int64_t pos = window->pos0; pos < window->pos1; pos++) {
            const scio_plan_entry entry = scio_plan_at(w.plan, v, pos);
            for (size_t t = 0; t < 4; t++) {
                scio_row row;
                scio_store_row(&w.store, &entry, t, &row);
                check_track_row(w.sets[t], &row);
            }
        }
        scio_store_close_window(&w.store, v);
    }
    CHECK(threads.n_failed == 0);
    scio_group_free(group);
    scio_pool_free(pool);
    for (size_t i = 0; i < 3; i++)
        scio_h5_scratch_free(threads.scratch[i]);
    close_tracks(&w);
}

TEST(every_failing_allocation_is_an_error_and_nothing_leaks)
{
    const char *const names[] = {"f4", "layer", "embedding"};
    scio_status status = SCIO_ENOMEM;
    size_t k = 0;

    for (; status != SCIO_OK && k < 20000; k++) {
        tracks_work w;
        scio_error err = SCIO_ERROR_INIT;
        open_tracks(&w, names, 3);
        scio_mem_fail_at(k);
        status = lay_tracks(&w, NULL, 0, SCIO_SHUFFLE_BLOCK, 2500, 0, &err);
        if (status == SCIO_OK)
            status = scio_store_init(&w.store, w.plan, w.matrices, 0, true, &no_cancel, &err);
        for (size_t v = 0; status == SCIO_OK && v < w.plan->n_windows; v++) {
            status = fill_tracks(&w, v, &err);
            scio_store_close_window(&w.store, v);
        }
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        close_tracks(&w);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
    }
    CHECK(k > 50 && k < 20000);
}

/* Room for nbytes right in front of a page that faults. */
static char *
guarded(size_t nbytes, size_t *mapped_out)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t size = (nbytes + page - 1) / page * page + page;
    char *const base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    CHECK(mprotect(base + size - page, page, PROT_NONE) == 0);
    *mapped_out = size;
    return base + size - page - nbytes;
}

TEST(values_widen_in_place_without_loss_and_stay_in_their_room)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        float values[300];
        size_t mapped, at = 0;
        const uint64_t n_items = scio_rng_below(seed, 1, 0, 300) + 1;
        const uint64_t limit = seed % 3 == 0 ? 200 : seed % 3 == 1 ? 40000 : 90000;
        char *const dst = guarded(n_items * sizeof(float), &mapped);
        const scio_item_type type = {SCIO_F32, 4, false};
        scio_narrow_values narrow = scio_narrow_values_make(&type, true);
        for (size_t i = 0; i < n_items; i++) {
            const bool is_rare = scio_rng_below(seed, 2, i, 40) == 0;
            values[i] = (float)scio_rng_below(seed, 3, i, is_rare ? limit : 9);
        }
        if (seed % 7 == 0)
            values[n_items / 2] = -0.0f;
        while (at < n_items) {
            size_t n = (size_t)scio_rng_below(seed, 4, at, 50) + 1;
            n = n < n_items - at ? n : n_items - at;
            scio_narrow_values_put(&narrow, values + at, n, dst, at);
            at += n;
        }
        for (size_t i = 0; i < n_items; i++) {
            float got = -1;
            const size_t itemsize = scio_dtype_itemsize(narrow.now);
            CHECK(scio_cast(narrow.now, dst + i * itemsize, SCIO_F32, &got, 1, NULL) == SCIO_OK);
            CHECK(memcmp(&got, &values[i], sizeof got) == 0);
        }
        CHECK(munmap(dst + n_items * sizeof(float) + (size_t)sysconf(_SC_PAGESIZE) - mapped,
                     mapped) == 0);
    }
}

TEST(indices_of_every_dtype_are_checked_and_the_first_wrong_one_is_named)
{
    const scio_dtype dtypes[] = {SCIO_I8, SCIO_I16, SCIO_I32, SCIO_I64,
                                 SCIO_U8, SCIO_U16, SCIO_U32, SCIO_U64};
    const int64_t good[] = {0, 99, 5, 17, 98, 3};

    for (size_t i = 0; i < 8; i++)
        for (int swapped = 0; swapped < 2; swapped++)
            for (int is_u16 = 0; is_u16 < 2; is_u16++) {
                char src[6 * 8], dst[6 * 4];
                const size_t itemsize = scio_dtype_itemsize(dtypes[i]);
                const scio_item_type type = {dtypes[i], itemsize, swapped};
                scio_error err = SCIO_ERROR_INIT;
                CHECK(scio_cast(SCIO_I64, good, dtypes[i], src, 6, &err) == SCIO_OK);
                if (swapped)
                    scio_byteswap(src, itemsize, 6);
                CHECK(scio_narrow_indices(&type, src, 6, 100, 1000, is_u16, dst, &err) == SCIO_OK);
                for (size_t k = 0; k < 6; k++) {
                    uint16_t narrow;
                    uint32_t wide;
                    memcpy(&narrow, dst + k * 2, 2);
                    memcpy(&wide, dst + k * 4, 4);
                    CHECK((is_u16 ? narrow : wide) == (uint32_t)good[k]);
                }
                CHECK(scio_narrow_indices(&type, src, 6, 98, 1000, is_u16, dst, &err) ==
                      SCIO_ECORRUPT);
                CHECK_STR(err.message, "indices[1001] is 99, not in [0, 98)");
            }
    const int64_t wide[] = {4, INT64_MIN, 70000};
    const int32_t negative[] = {4, -1};
    const scio_item_type i64 = {SCIO_I64, 8, false}, i32 = {SCIO_I32, 4, false};
    uint32_t out[3];
    scio_error err = SCIO_ERROR_INIT;
    CHECK(scio_narrow_indices(&i64, wide, 3, 100000, 0, false, out, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[1] is -9223372036854775808");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_narrow_indices(&i32, negative, 2, 60000, 0, true, out, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[1] is -1");
}
