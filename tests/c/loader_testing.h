/* A loader over fixtures, everything that its epoch gave, and what it should have given, computed
 * from row and column. */
#ifndef SCIO_TESTS_C_LOADER_TESTING_H
#define SCIO_TESTS_C_LOADER_TESTING_H

#include "load/loader.h"

#include "base/mem.h"
#include "base/queue.h"
#include "base/rng.h"
#include "base/stats.h"
#include "load_testing.h"

#include <inttypes.h>

#define TRACKS_FIXTURE "tests/c/data/load_tracks.h5"

enum { MAX_SETS = 4, MAX_EXTRAS = 3, MAX_CELLS = 1000, FIRST_ID = 4, N_IDS = 1000 };

/* Some fixtures behind one another, mapped to one vocabulary: column c of set s to id c * 3 + s +
 * 4, every seventh column to none. */
typedef struct data_set {
    const fixture *sets[MAX_SETS];
    scio_matrix *matrices[MAX_SETS];
    size_t n_sets;
    int32_t maps[MAX_SETS][MAX_COLS];
    int64_t first[MAX_SETS + 1];
    scio_compact *compact; /* what `hold` made */
    const fixture *extra_sets[MAX_SETS * MAX_EXTRAS];
    scio_matrix *extras[MAX_SETS * MAX_EXTRAS];
    bool is_layer[MAX_EXTRAS];
    scio_collate_spec spec;
    scio_loader_options options;
} data_set;

static inline int32_t
id_of(size_t s, int64_t col)
{
    return col % 7 == 6 ? -1 : (int32_t)(col * 3 + (int64_t)s + FIRST_ID);
}

static inline const fixture *
fixture_named(const char *name)
{
    for (size_t i = 0; i < N_FIXTURES; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    abort();
}

static inline void
set_up(data_set *d, const char *const *names, size_t n_sets, bool in_memory)
{
    scio_error err = SCIO_ERROR_INIT;

    memset(d, 0, sizeof *d);
    d->n_sets = n_sets;
    for (size_t s = 0; s < n_sets; s++) {
        d->sets[s] = fixture_named(names[s]);
        if (in_memory)
            d->matrices[s] = fixture_in_memory(d->sets[s]);
        else
            CHECK(open_fixture(d->sets[s], &d->matrices[s], &err) == SCIO_OK);
        CHECK_CLEAR(err.message);
        d->first[s + 1] = d->first[s] + d->sets[s]->n_rows;
        for (int64_t col = 0; col < d->sets[s]->n_cols; col++)
            d->maps[s][col] = id_of(s, col);
    }
    d->spec = (scio_collate_spec){.form = SCIO_FORM_CSR, .n_ids = N_IDS, .first_id = FIRST_ID};
    d->options = (scio_loader_options){.n_threads = 2,
                                       .batch_size = 7,
                                       .shuffle = SCIO_SHUFFLE_BLOCK,
                                       .seed = 3,
                                       .world_size = 1,
                                       .block_nbytes = 1500,
                                       .max_memory = 64 << 20};
}

static inline void
tear_down(data_set *d)
{
    for (size_t s = 0; s < d->n_sets; s++)
        scio_matrix_release(d->matrices[s]);
    for (size_t i = 0; i < d->n_sets * d->options.n_extras; i++)
        scio_matrix_release(d->extras[i]);
    scio_compact_release(d->compact);
}

static inline scio_status
make_loader(data_set *d, const int64_t *cells, size_t n_cells, scio_loader **out, scio_error *err)
{
    const int32_t *maps[MAX_SETS];

    for (size_t s = 0; s < d->n_sets; s++)
        maps[s] = d->maps[s];
    d->options.extras = d->extras;
    d->options.is_extra_layer = d->is_layer;
    return scio_loader_new(d->matrices, d->n_sets, maps, cells, n_cells, &d->spec, &d->options, out,
                           err);
}

static inline scio_loader *
must_make(data_set *d, const int64_t *cells, size_t n_cells)
{
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;
    CHECK(make_loader(d, cells, n_cells, &loader, &err) == SCIO_OK);
    if (err.code != SCIO_OK) {
        printf("%s\n", err.message);
        (void)fflush(stdout);
        abort(); /* nothing after this would tell more */
    }
    return loader;
}

static inline scio_compact *
must_make_compact(const data_set *d, uint64_t max_nbytes)
{
    scio_compact *compact = NULL;
    scio_error err = SCIO_ERROR_INIT;
    CHECK(scio_compact_new(d->first[d->n_sets], 1 + d->options.n_extras, max_nbytes, &compact,
                           &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    return compact;
}

/* ---- an epoch ---- */

/* Everything that one epoch gave. */
typedef struct epoch {
    int64_t n_cells, n_batches, n_padding;
    int64_t cells[2 * MAX_CELLS], offsets[2 * MAX_CELLS];
    uint64_t hash;                  /* of all bytes of all batches, in order */
    uint64_t hashes[2 * MAX_CELLS]; /* of each batch */
    scio_status status;
    scio_error err;
    scio_loader_stats stats;
} epoch;

static inline uint64_t
hash_bytes(uint64_t hash, const void *data, size_t nbytes)
{
    const uint8_t *const bytes = data;
    for (size_t i = 0; i < nbytes; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static inline uint64_t
hash_buf(uint64_t hash, const scio_buf *buf)
{
    return buf == NULL ? hash : hash_bytes(hash, scio_buf_data(buf), scio_buf_nbytes(buf));
}

static inline uint64_t
hash_batch(const scio_batch *batch)
{
    uint64_t hash = 0;
    hash = hash_buf(hash, batch->expression);
    hash = hash_buf(hash, batch->gene_indices);
    hash = hash_buf(hash, batch->attention_mask);
    hash = hash_buf(hash, batch->indptr);
    hash = hash_buf(hash, batch->index);
    hash = hash_buf(hash, batch->is_padding);
    for (size_t k = 0; k < batch->n_extras; k++) {
        hash = hash_buf(hash, batch->extras[k].values);
        hash = hash_buf(hash, batch->extras[k].indices);
        hash = hash_buf(hash, batch->extras[k].indptr);
    }
    return hash;
}

static inline size_t
set_of(const data_set *d, int64_t cell)
{
    size_t s = 0;
    while (d->first[s + 1] <= cell)
        s++;
    return s;
}

static inline void
blame_cell(int64_t cell, const char *what, int64_t at)
{
    printf("cell %" PRId64 ": %s %" PRId64 "\n", cell, what, at);
    test_has_failed = true;
}

/* A row as it should be, by id. */
static inline void
expect_row(const fixture *f, size_t s, int64_t row, float *by_id)
{
    memset(by_id, 0, N_IDS * sizeof *by_id);
    for (int64_t col = 0; col < f->n_cols; col++)
        if (id_of(s, col) >= 0)
            by_id[id_of(s, col)] = (float)value_at(f, row, col);
}

static inline void
check_csr_row(int64_t cell, const scio_buf *indptr_buf, const scio_buf *ids_buf,
              const scio_buf *values_buf, int64_t i, const float *by_id)
{
    const int64_t *const indptr = scio_buf_data(indptr_buf);
    const int32_t *const ids = scio_buf_data(ids_buf);
    const float *const values = scio_buf_data(values_buf);
    int64_t at = indptr[i];

    for (int32_t id = FIRST_ID; id < N_IDS; id++) {
        if (by_id[id] == 0)
            continue;
        if (at >= indptr[i + 1] || ids[at] != id - FIRST_ID || values[at] != by_id[id]) {
            blame_cell(cell, "id", id);
            return;
        }
        at++;
    }
    CHECK(at == indptr[i + 1]);
}

static inline void
check_dense_row(int64_t cell, const float *values, int64_t width, const float *expected)
{
    for (int64_t i = 0; i < width; i++)
        if (values[i] != expected[i]) {
            blame_cell(cell, "column", i);
            return;
        }
}

/* The tokens of a row are the main row's ids; `by_id` may be those of a layer. */
static inline void
check_token_row(int64_t cell, const scio_batch *batch, const scio_buf *values_buf, int64_t i,
                const float *main_by_id, const float *by_id, float pad_value)
{
    const int64_t *const ids =
        (const int64_t *)scio_buf_data(batch->gene_indices) + i * batch->width;
    const float *const values = (const float *)scio_buf_data(values_buf) + i * batch->width;
    int64_t at = 0;

    for (int64_t id = FIRST_ID; id < N_IDS; id++) {
        if (main_by_id[id] == 0)
            continue;
        if (at >= batch->width || ids[at] != id || values[at] != by_id[id]) {
            blame_cell(cell, "id", id);
            return;
        }
        at++;
    }
    CHECK(at == ((const int64_t *)scio_buf_data(batch->n_genes))[i]);
    for (; at < batch->width; at++)
        CHECK(values[at] == pad_value);
}

/* What the batch says of matrix `f` (main or layer) in cell i; values as stored. */
static inline void
check_form(const data_set *d, const scio_batch *batch, int64_t i, const scio_batch_extra *extra,
           const float *main_by_id, const float *by_id)
{
    const int64_t cell = ((const int64_t *)scio_buf_data(batch->index))[i];
    const scio_buf *const values = extra != NULL ? extra->values : batch->expression;

    if (d->spec.form == SCIO_FORM_CSR)
        check_csr_row(cell, extra != NULL ? extra->indptr : batch->indptr,
                      extra != NULL ? extra->indices : batch->gene_indices, values, i, by_id);
    else if (d->spec.form == SCIO_FORM_DENSE)
        check_dense_row(cell, (const float *)scio_buf_data(values) + i * (N_IDS - FIRST_ID),
                        N_IDS - FIRST_ID, by_id + FIRST_ID);
    else
        check_token_row(cell, batch, values, i, main_by_id, by_id, d->spec.pad_value);
}

static inline void
check_cell(const data_set *d, const scio_batch *batch, int64_t i)
{
    static float main_by_id[N_IDS], by_id[N_IDS], plain[MAX_COLS];
    const int64_t cell = ((const int64_t *)scio_buf_data(batch->index))[i];
    const size_t s = set_of(d, cell);
    const int64_t row = cell - d->first[s];

    expect_row(d->sets[s], s, row, main_by_id);
    check_form(d, batch, i, NULL, main_by_id, main_by_id);
    CHECK(batch->n_extras == d->options.n_extras);
    for (size_t k = 0; k < batch->n_extras; k++) {
        const fixture *const f = d->extra_sets[s * d->options.n_extras + k];
        const scio_batch_extra *const extra = &batch->extras[k];
        if (d->is_layer[k]) {
            expect_row(f, s, row, by_id);
            check_form(d, batch, i, extra, main_by_id, by_id);
            continue;
        }
        for (int64_t col = 0; col < f->n_cols; col++)
            plain[col] = (float)value_at(f, row, col);
        CHECK(extra->width == f->n_cols);
        check_dense_row(cell, (const float *)scio_buf_data(extra->values) + i * f->n_cols,
                        f->n_cols, plain);
    }
}

static inline bool
is_as_stored(const data_set *d)
{
    return !d->spec.is_log1p && !d->spec.is_library_size && d->spec.max_genes == 0 &&
           (d->spec.value_dtype == SCIO_DTYPE_NONE || d->spec.value_dtype == SCIO_F32);
}

static inline void
note_batch(const data_set *d, epoch *e, const scio_batch *batch)
{
    const int64_t *const index = scio_buf_data(batch->index);

    for (int64_t i = 0; i < batch->n_cells && index != NULL; i++) {
        const bool is_padding =
            batch->is_padding_any && ((const uint8_t *)scio_buf_data(batch->is_padding))[i] != 0;
        e->n_padding += is_padding;
        e->cells[e->n_cells + i] = is_padding ? -1 : index[i];
        if (is_as_stored(d))
            check_cell(d, batch, i);
    }
    e->offsets[e->n_batches] = e->n_cells;
    e->n_cells += batch->n_cells;
    e->hashes[e->n_batches++] = hash_batch(batch);
    e->offsets[e->n_batches] = e->n_cells;
    e->hash = hash_bytes(e->hash, &e->hashes[e->n_batches - 1], sizeof *e->hashes);
}

static inline void
run_epoch(const data_set *d, scio_loader *loader, epoch *e)
{
    memset(e, 0, sizeof *e);
    for (int take = SCIO_TAKE_ITEM; loader != NULL && take != SCIO_TAKE_END;) {
        scio_batch batch;
        e->status = scio_loader_next(loader, 100, &take, &batch, &e->err);
        if (e->status != SCIO_OK || take == SCIO_TAKE_CANCELLED)
            break;
        if (take == SCIO_TAKE_ITEM)
            note_batch(d, e, &batch);
        scio_batch_clear(&batch);
    }
    if (loader != NULL)
        scio_loader_stats_read(loader, &e->stats);
}

/* Decodes the rows (NULL: all) into a store. */
static inline void
fill(data_set *d, const int64_t *cells, size_t n_cells, scio_compact *compact, scio_sink *sink)
{
    const scio_loader_options options = d->options;
    scio_error err = SCIO_ERROR_INIT;
    scio_loader *loader;

    d->options = (scio_loader_options){.n_threads = options.n_threads,
                                       .pool = options.pool,
                                       .batch_size = 50,
                                       .world_size = 1,
                                       .is_fill = true,
                                       .is_skip_errors = options.is_skip_errors,
                                       .n_extras = options.n_extras};
    loader = must_make(d, cells, n_cells);
    CHECK(scio_loader_attach(loader, compact, sink, &err) == SCIO_OK);
    for (int take = SCIO_TAKE_ITEM; take != SCIO_TAKE_END && err.code == SCIO_OK;) {
        scio_batch batch;
        CHECK(scio_loader_next(loader, 100, &take, &batch, &err) == SCIO_OK);
        scio_batch_clear(&batch);
    }
    CHECK_CLEAR(err.message);
    scio_loader_free(loader);
    d->options = options;
}

/* Makes all rows of the set resident for the loaders that follow. */
static inline void
hold(data_set *d)
{
    if (d->compact == NULL) {
        d->compact = must_make_compact(d, 4 << 20);
        fill(d, NULL, 0, d->compact, NULL);
        CHECK(!scio_compact_is_full(d->compact));
    }
    d->options.resident = d->compact;
}

/* An exact epoch gets the rows of `hold` unless it has others. */
static inline void
run_all(data_set *d, const int64_t *cells, size_t n_cells, epoch *e)
{
    scio_compact *const resident = d->options.resident;
    scio_loader *loader;

    if (d->options.shuffle == SCIO_SHUFFLE_EXACT && d->options.mapped == NULL && resident == NULL)
        hold(d);
    loader = must_make(d, cells, n_cells);
    run_epoch(d, loader, e);
    CHECK(e->status == SCIO_OK);
    CHECK_CLEAR(e->err.message);
    if (loader != NULL)
        CHECK(e->n_batches == scio_loader_n_batches(loader) - d->options.first_batch);
    CHECK(e->stats.peak_nbytes <= e->stats.cap_nbytes);
    scio_loader_free(loader);
    d->options.resident = resident;
}

static inline bool
has_each_once(const epoch *e, const int64_t *cells, size_t n_cells)
{
    static uint8_t seen[MAX_CELLS];
    memset(seen, 0, sizeof seen);
    for (int64_t i = 0; i < e->n_cells; i++)
        if (e->cells[i] >= 0 && seen[e->cells[i]]++ != 0)
            return false;
    for (size_t i = 0; i < n_cells; i++)
        if (seen[cells == NULL ? (int64_t)i : cells[i]] != 1)
            return false;
    return e->n_cells - e->n_padding == (int64_t)n_cells;
}

/* The least cap from the message of a refusal. */
static inline uint64_t
least_cap(data_set *d, const int64_t *cells, size_t n_cells)
{
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;
    unsigned long long least = 0;

    if (d->options.shuffle == SCIO_SHUFFLE_EXACT && d->options.mapped == NULL)
        hold(d);
    d->options.max_memory = 1;
    CHECK(make_loader(d, cells, n_cells, &loader, &err) == SCIO_EINVAL);
    const char *const text = strstr(err.message, "at least ");
    CHECK(text != NULL && sscanf(text, "at least %llu are needed", &least) == 1);
    return least;
}

static const char *const MIXED[] = {"f8", "dense", "f4", "swapped"};

/* ---- faults ---- */

/* A copy of the fixture file in memory with one stored chunk of f4 spoilt. */
static inline scio_matrix *
open_spoilt(const fixture *f, bool spoil_indices, uint64_t i_unit)
{
    scio_source *source = NULL, *copy = NULL;
    scio_matrix *matrix = NULL;
    scio_buf *buf = NULL;
    const scio_h5_unit *units = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(open_fixture(f, &matrix, &err) == SCIO_OK);
    CHECK(scio_h5_dataset_units(spoil_indices ? matrix->indices_dataset : matrix->data_dataset,
                                &units, &err) == SCIO_OK);
    const uint64_t position = units[i_unit].position, nbytes = units[i_unit].nbytes;
    scio_matrix_release(matrix);
    CHECK(scio_source_open_file(FIXTURE, &source, &err) == SCIO_OK);
    CHECK(scio_buf_new((size_t)scio_source_nbytes(source), &buf, &err) == SCIO_OK);
    CHECK(scio_source_read(source, 0, scio_buf_nbytes(buf), scio_buf_data(buf), &err) == SCIO_OK);
    memset((char *)scio_buf_data(buf) + position, 0xee, (size_t)nbytes);
    CHECK(scio_source_from_buf(buf, "spoilt.h5", &copy, &err) == SCIO_OK);
    matrix = NULL;
    CHECK(open_fixture_in(copy, f, &matrix, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    scio_source_release(source);
    scio_source_release(copy);
    scio_buf_release(buf);
    return matrix;
}

/* ---- further matrices ---- */

/* Of the rows of f4, wide and csc (tests/c/data/load_tracks.h5). */
static const fixture track_fixtures[] = {
    {"layer", 150, 300, 2, EIGHTHS, false, false},
    {"spliced", 150, 90, 14, SMALL, false, false},
    {"embedding", 150, 20, 11, SMALL, true, false},
    {"embedding_plain", 150, 5, 12, SMALL, true, false},
    {"bands", 150, 20, 13, SMALL, true, false},
};

static inline scio_matrix *
open_track(const fixture *f)
{
    scio_source *source = NULL;
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_source_open_file(TRACKS_FIXTURE, &source, &err) == SCIO_OK);
    CHECK(open_fixture_in(source, f, &matrix, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    scio_source_release(source);
    return matrix;
}

/* f4 and wide (or csc, whose own rows are in memory), each with one layer and two dense ones. */
static inline void
set_up_tracks(data_set *d, const char *second, bool in_memory)
{
    static const int kinds[2][MAX_EXTRAS] = {{0, 2, 3}, {1, 4, 3}};
    const char *const names[] = {"f4", second};

    set_up(d, names, 2, in_memory);
    d->options.n_extras = MAX_EXTRAS;
    d->options.block_nbytes = 6000;
    d->is_layer[0] = true;
    for (size_t s = 0; s < 2; s++)
        for (size_t k = 0; k < MAX_EXTRAS; k++) {
            const fixture *const f = &track_fixtures[kinds[s][k]];
            d->extra_sets[s * MAX_EXTRAS + k] = f;
            d->extras[s * MAX_EXTRAS + k] = in_memory ? fixture_in_memory(f) : open_track(f);
        }
}

#endif
