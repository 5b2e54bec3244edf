/* Rows put away while they are decoded: room for them in the cap, broken ones, sinks. */
#include "loader_testing.h"

#include <fcntl.h>
#include <unistd.h>

static epoch one, two;

static uint64_t
plan_hash(const scio_loader *loader)
{
    scio_buf *cells = NULL, *offsets = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_loader_plan_cells(loader, &cells, &offsets, &err) == SCIO_OK);
    const uint64_t hash = hash_buf(hash_buf(1, cells), offsets);
    scio_buf_release(cells);
    scio_buf_release(offsets);
    return hash;
}

/* ---- room in the cap ---- */

/* An epoch with a store, one of the same plan over it, an exact one, one of given lists: all keep
 * to the cap.  True when all cells fit. */
static bool
run_in_cap(data_set *d)
{
    const int64_t given[] = {0, 7, 300, 7, 120, 121, 394}, offsets[] = {0, 3, 7};
    const scio_loader_options options = d->options;
    scio_error err = SCIO_ERROR_INIT;
    int64_t out[MAX_CELLS];
    scio_loader *loader = must_make(d, NULL, 0);
    const scio_loader_keep keep = scio_loader_keep_of(loader);
    const uint64_t hash = plan_hash(loader);

    CHECK(keep.nbytes < options.max_memory);
    CHECK(keep.least_nbytes <= keep.most_nbytes);
    if (keep.nbytes == 0) {
        run_epoch(d, loader, &one);
        CHECK(one.status == SCIO_OK && one.stats.peak_nbytes <= one.stats.cap_nbytes);
        scio_loader_free(loader);
        return false;
    }
    CHECK(keep.least_nbytes <= keep.nbytes);
    scio_compact *const compact = must_make_compact(d, keep.nbytes);
    CHECK(scio_loader_attach(loader, compact, NULL, &err) == SCIO_OK);
    CHECK(plan_hash(loader) == hash);
    run_epoch(d, loader, &one);
    CHECK(one.status == SCIO_OK && one.stats.peak_nbytes <= one.stats.cap_nbytes);
    CHECK(one.stats.peak_nbytes >= (int64_t)scio_compact_nbytes(compact));
    scio_loader_free(loader);
    const bool is_full = scio_compact_is_full(compact);
    CHECK(is_full == (scio_compact_missing(compact, NULL, 0, out) > 0));
    CHECK(!is_full || keep.nbytes < keep.most_nbytes);
    if (!is_full) {
        CHECK(keep.least_nbytes <= scio_compact_nbytes(compact));
        CHECK(scio_compact_nbytes(compact) <= keep.most_nbytes);
        d->options.resident = compact;
        loader = must_make(d, NULL, 0);
        CHECK(plan_hash(loader) == hash);
        CHECK(scio_loader_keep_of(loader).nbytes == keep.nbytes);
        run_epoch(d, loader, &two);
        CHECK(two.hash == one.hash && two.stats.chunks_total == 0);
        CHECK(two.stats.peak_nbytes <= two.stats.cap_nbytes);
        CHECK(two.stats.peak_nbytes >= (int64_t)scio_compact_nbytes(compact));
        scio_loader_free(loader);
        d->options.shuffle = SCIO_SHUFFLE_EXACT;
        d->options.epoch = 1;
        run_all(d, NULL, 0, &two);
        CHECK(two.stats.peak_nbytes >= (int64_t)scio_compact_nbytes(compact));
        CHECK(has_each_once(&two, NULL, (size_t)d->first[d->n_sets]));
        d->options.resident = compact;
        d->options.shuffle = SCIO_SHUFFLE_GIVEN;
        d->options.given_cells = given;
        d->options.given_offsets = offsets;
        d->options.n_given = 2;
        run_all(d, NULL, 0, &two);
        CHECK(two.n_cells == 7);
    }
    /* what a resumed epoch left out, decoded beside the store that is there */
    d->options = options;
    d->options.shuffle = SCIO_SHUFFLE_NONE;
    d->options.is_keeping = false;
    d->options.is_fill = true;
    d->options.kept_nbytes = keep.nbytes;
    loader = must_make(d, NULL, 0);
    CHECK(scio_loader_attach(loader, compact, NULL, &err) == SCIO_OK);
    run_epoch(d, loader, &two);
    CHECK(two.status == SCIO_OK && two.stats.peak_nbytes <= two.stats.cap_nbytes);
    CHECK(two.stats.chunks_decoded == two.stats.chunks_total);
    scio_loader_free(loader);
    scio_compact_release(compact);
    d->options = options;
    return !is_full;
}

TEST(the_peak_stays_within_every_cap_with_a_store)
{
    const int64_t sizes[] = {3, 30};

    for (int form = 0; form < 3; form += 2)
        for (size_t i = 0; i < 2; i++) {
            data_set d;
            int n_fitting = 0, n_kept = 0, n_none = 0;
            set_up(&d, MIXED, 4, false);
            d.spec.form = (scio_form)form;
            d.options.batch_size = sizes[i];
            d.options.is_keeping = true;
            const uint64_t least = least_cap(&d, NULL, 0);
            for (uint64_t cap = least; cap < (64 << 20); cap += cap < 4 * least ? 6000 : cap / 2) {
                d.options.max_memory = cap;
                scio_loader *const loader = must_make(&d, NULL, 0);
                const bool is_kept = scio_loader_keep_of(loader).nbytes > 0;
                scio_loader_free(loader);
                n_none += !is_kept;
                n_kept += is_kept;
                n_fitting += run_in_cap(&d);
            }
            CHECK(n_none > 2 && n_fitting > 10 && n_kept > n_fitting);
            tear_down(&d);
        }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(a_store_with_tracks_stays_within_the_cap)
{
    data_set d;
    int n_fitting = 0;

    set_up_tracks(&d, "csc", false);
    d.options.is_keeping = true;
    const uint64_t least = least_cap(&d, NULL, 0);
    for (uint64_t cap = least; cap < (64 << 20); cap += cap / 16) {
        scio_error err = SCIO_ERROR_INIT;
        d.options.max_memory = cap;
        scio_loader *const loader = must_make(&d, NULL, 0);
        const scio_loader_keep keep = scio_loader_keep_of(loader);
        scio_compact *compact = keep.nbytes > 0 ? must_make_compact(&d, keep.nbytes) : NULL;
        CHECK(scio_loader_attach(loader, compact, NULL, &err) == SCIO_OK);
        run_epoch(&d, loader, &one);
        CHECK(one.status == SCIO_OK && one.stats.peak_nbytes <= one.stats.cap_nbytes);
        if (compact != NULL && !scio_compact_is_full(compact)) {
            n_fitting++;
            CHECK(keep.least_nbytes <= scio_compact_nbytes(compact));
            CHECK(scio_compact_nbytes(compact) <= keep.most_nbytes);
        }
        scio_loader_free(loader);
        scio_compact_release(compact);
    }
    CHECK(n_fitting > 5);
    tear_down(&d);
}

TEST(the_bounds_of_a_part_are_those_of_the_part)
{
    data_set d;
    int64_t cells[MAX_CELLS];
    scio_loader_keep all, some, rank, given;
    const int64_t offsets[] = {0, 1};

    set_up(&d, MIXED, 4, false);
    d.options.is_keeping = true;
    for (int64_t i = 0; i < 100; i++)
        cells[i] = i * 3;
    scio_loader *loader = must_make(&d, NULL, 0);
    all = scio_loader_keep_of(loader);
    scio_loader_free(loader);
    loader = must_make(&d, cells, 100);
    some = scio_loader_keep_of(loader);
    scio_loader_free(loader);
    d.options.world_size = 2;
    loader = must_make(&d, NULL, 0);
    rank = scio_loader_keep_of(loader);
    scio_loader_free(loader);
    CHECK(some.least_nbytes < all.least_nbytes && some.most_nbytes < all.most_nbytes);
    CHECK(rank.least_nbytes < all.least_nbytes && rank.most_nbytes < all.most_nbytes);
    d.options.world_size = 1;
    d.options.shuffle = SCIO_SHUFFLE_GIVEN;
    d.options.given_cells = cells;
    d.options.given_offsets = offsets;
    d.options.n_given = 1;
    loader = must_make(&d, NULL, 0);
    given = scio_loader_keep_of(loader);
    scio_loader_free(loader);
    /* dense rows come as sparse ones: perhaps empty, perhaps with an index for each value */
    CHECK(given.least_nbytes < all.least_nbytes && given.most_nbytes > all.most_nbytes);
    tear_down(&d);
    set_up(&d, MIXED, 4, true);
    d.options.is_keeping = true;
    loader = must_make(&d, NULL, 0); /* nothing is decoded, nothing needs a store */
    CHECK(scio_loader_keep_of(loader).nbytes == 0);
    scio_loader_free(loader);
    tear_down(&d);
}

/* ---- broken cells ---- */

TEST(cells_that_could_not_be_decoded_are_counted_again_in_later_epochs)
{
    const char *const names[] = {"f8", "f4"};

    for (int indices = 0; indices < 2; indices++)
        for (int filled = 0; filled < 2; filled++) {
            data_set d;
            scio_error err = SCIO_ERROR_INIT;
            int64_t out[MAX_CELLS], lost[MAX_CELLS], offsets[] = {0, 0, 0};
            int64_t n_lost = 0;

            set_up(&d, names, 2, false);
            scio_matrix_release(d.matrices[1]);
            d.matrices[1] = open_spoilt(d.sets[1], indices, 9);
            const int64_t *const indptr = d.matrices[1]->indptr;
            for (int64_t row = 0; row < 150; row++) /* items [576, 640) of f4 are lost */
                if (indptr[row] < 640 && indptr[row + 1] > 576)
                    lost[n_lost++] = d.first[1] + row;
            CHECK(n_lost > 1);
            d.options.is_skip_errors = true;
            d.compact = must_make_compact(&d, 4 << 20);
            run_all(&d, NULL, 0, &one);
            CHECK(one.stats.skipped_cells == n_lost && one.n_cells == 270 - n_lost);
            if (filled) {
                fill(&d, NULL, 0, d.compact, NULL);
            } else {
                scio_loader *const loader = must_make(&d, NULL, 0);
                CHECK(scio_loader_attach(loader, d.compact, NULL, &err) == SCIO_OK);
                run_epoch(&d, loader, &two);
                CHECK(two.hash == one.hash);
                scio_loader_free(loader);
            }
            CHECK(scio_compact_missing(d.compact, NULL, 0, out) == 0);
            for (int64_t i = 0; i < n_lost; i++)
                CHECK(scio_compact_find(d.compact, lost[i], 0, NULL) == SCIO_COMPACT_BROKEN);
            for (int shuffle = 0; shuffle < 3; shuffle++) {
                d.options.shuffle = (scio_shuffle_mode)shuffle;
                d.options.resident = d.compact;
                run_all(&d, NULL, 0, &two);
                CHECK(two.stats.skipped_cells == n_lost && two.n_cells == 270 - n_lost);
                CHECK(shuffle != SCIO_SHUFFLE_BLOCK || two.hash == one.hash);
            }
            /* twice in one batch and once in the next, beside one that is not broken */
            int64_t full[2] = {0, 0}; /* of the lost ones with entries: empty rows need no chunk */
            for (int64_t i = 0, n = 0; i < n_lost && n < 2; i++)
                if (indptr[lost[i] - d.first[1]] < indptr[lost[i] - d.first[1] + 1])
                    full[n++] = lost[i];
            const int64_t given[] = {full[0], 5, full[0], full[1], 6};
            offsets[1] = 3;
            offsets[2] = 5;
            d.options.shuffle = SCIO_SHUFFLE_GIVEN;
            d.options.given_cells = given;
            d.options.given_offsets = offsets;
            d.options.n_given = 2;
            for (int resident = 0; resident < 3; resident++) {
                scio_compact *const fresh = must_make_compact(&d, 1 << 20);
                d.options.resident = resident == 1 ? d.compact : NULL;
                scio_loader *const loader = must_make(&d, NULL, 0);
                if (resident == 2)
                    CHECK(scio_loader_attach(loader, fresh, NULL, &err) == SCIO_OK);
                run_epoch(&d, loader, &two);
                CHECK(two.status == SCIO_OK && two.n_cells == 2 && two.stats.skipped_cells == 3);
                CHECK(two.cells[0] == 5 && two.cells[1] == 6);
                if (resident == 2)
                    CHECK(scio_compact_find(fresh, full[1], 0, NULL) == SCIO_COMPACT_BROKEN);
                scio_loader_free(loader);
                scio_compact_release(fresh);
            }
            tear_down(&d);
        }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

/* ---- filling ---- */

TEST(a_fill_gives_empty_batches_and_decodes_each_chunk_once)
{
    for (size_t threads = 0; threads < 3; threads++) {
        data_set d;
        scio_error err = SCIO_ERROR_INIT;
        int64_t n_cells = 0, n_batches = 0;

        set_up(&d, MIXED, 4, false);
        d.options.n_threads = threads;
        d.options.shuffle = SCIO_SHUFFLE_NONE;
        d.options.is_fill = true;
        d.compact = must_make_compact(&d, 4 << 20);
        scio_loader *const loader = must_make(&d, NULL, 0);
        CHECK(scio_loader_attach(loader, d.compact, NULL, &err) == SCIO_OK);
        for (int take = 0; take != SCIO_TAKE_END && err.code == SCIO_OK;) {
            scio_batch batch;
            CHECK(scio_loader_next(loader, 100, &take, &batch, &err) == SCIO_OK);
            CHECK(batch.expression == NULL && batch.index == NULL && batch.gene_indices == NULL);
            CHECK(scio_batch_nbytes(&batch) == 0);
            n_cells += batch.n_cells;
            n_batches += take == SCIO_TAKE_ITEM;
        }
        CHECK_CLEAR(err.message);
        CHECK(n_cells == 395 && n_batches == scio_loader_n_batches(loader));
        scio_loader_stats_read(loader, &one.stats);
        CHECK(one.stats.chunks_decoded == one.stats.chunks_total && one.stats.chunks_total > 20);
        CHECK(one.stats.cells == 395 && one.stats.peak_nbytes <= one.stats.cap_nbytes);
        scio_loader_free(loader);
        int64_t out[MAX_CELLS];
        CHECK(scio_compact_missing(d.compact, NULL, 0, out) == 0);
        tear_down(&d);
    }
}

/* ---- sinks ---- */

enum { MAX_TRACKS = 1 + MAX_EXTRAS };

/* Files of the selected rows of every source, track behind track. */
typedef struct made_files {
    char paths[MAX_SETS][32];
    int64_t cells[MAX_SETS][MAX_CELLS], n_cells[MAX_SETS];
    int64_t indptr[MAX_SETS][MAX_TRACKS][MAX_CELLS + 1];
    scio_sink_array arrays[MAX_SETS][MAX_TRACKS];
    scio_sink_source sources[MAX_SETS];
} made_files;

static const fixture *
fixture_of(const data_set *d, size_t s, size_t t)
{
    return t == 0 ? d->sets[s] : d->extra_sets[s * d->options.n_extras + t - 1];
}

static void
lay_track(const data_set *d, made_files *made, size_t s, size_t t, uint64_t *at)
{
    const fixture *const f = fixture_of(d, s, t);
    scio_sink_array *const array = &made->arrays[s][t];
    const uint64_t n_rows = (uint64_t)made->n_cells[s];

    *array = (scio_sink_array){.is_dense = f->is_dense,
                               .n_cols = f->n_cols,
                               .data_dtype = SCIO_F32,
                               .indices_dtype = f->is_dense ? SCIO_DTYPE_NONE : SCIO_U16,
                               .data_offset = *at};
    if (f->is_dense) {
        *at += n_rows * (uint64_t)f->n_cols * sizeof(float);
        return;
    }
    int64_t *const indptr = made->indptr[s][t];
    for (uint64_t i = 0; i < n_rows; i++) {
        indptr[i + 1] = indptr[i];
        for (int64_t col = 0; col < f->n_cols; col++)
            indptr[i + 1] += value_at(f, made->cells[s][i] - d->first[s], col) != 0;
    }
    array->indptr = indptr;
    array->indices_offset = *at + (uint64_t)indptr[n_rows] * sizeof(float);
    *at = array->indices_offset + ((uint64_t)indptr[n_rows] * 2 + 63) / 64 * 64;
}

static scio_sink *
make_sink(const data_set *d, made_files *made, const int64_t *cells, size_t n_cells)
{
    scio_sink *sink = NULL;
    scio_error err = SCIO_ERROR_INIT;

    memset(made, 0, sizeof *made);
    for (size_t s = 0; s < d->n_sets; s++) {
        uint64_t at = 128;
        for (size_t i = 0; i < n_cells; i++)
            if (cells[i] >= d->first[s] && cells[i] < d->first[s + 1])
                made->cells[s][made->n_cells[s]++] = cells[i];
        for (size_t t = 0; t <= d->options.n_extras; t++)
            lay_track(d, made, s, t, &at);
        strcpy(made->paths[s], "/tmp/scio-keep-XXXXXX");
        const int fd = mkstemp(made->paths[s]);
        CHECK(fd >= 0 && close(fd) == 0);
        made->sources[s] = (scio_sink_source){made->paths[s], made->cells[s], made->n_cells[s],
                                              d->first[s], made->arrays[s]};
    }
    CHECK(scio_sink_new(made->sources, d->n_sets, 1 + d->options.n_extras, &sink, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    return sink;
}

static void
check_track(const data_set *d, const made_files *made, int fd, size_t s, size_t t)
{
    const fixture *const f = fixture_of(d, s, t);
    const scio_sink_array *const array = &made->arrays[s][t];

    for (int64_t i = 0; i < made->n_cells[s]; i++) {
        const int64_t row = made->cells[s][i] - d->first[s];
        float values[MAX_COLS];
        uint16_t columns[MAX_COLS];
        int64_t first = f->is_dense ? i * f->n_cols : array->indptr[i], n = 0;
        const size_t n_items =
            f->is_dense ? (size_t)f->n_cols : (size_t)(array->indptr[i + 1] - first);
        CHECK(pread(fd, values, n_items * 4, (off_t)array->data_offset + first * 4) ==
              (ssize_t)n_items * 4);
        if (!f->is_dense)
            CHECK(pread(fd, columns, n_items * 2, (off_t)array->indices_offset + first * 2) ==
                  (ssize_t)n_items * 2);
        for (int64_t col = 0; col < f->n_cols; col++) {
            const float value = (float)value_at(f, row, col);
            if (!f->is_dense && value == 0)
                continue;
            CHECK(values[n] == value && (f->is_dense || columns[n] == col));
            n++;
        }
        CHECK(n == (int64_t)n_items);
    }
}

static void
check_files(const data_set *d, const made_files *made)
{
    for (size_t s = 0; s < d->n_sets; s++) {
        const int fd = open(made->paths[s], O_RDONLY);
        CHECK(fd >= 0);
        for (size_t t = 0; t <= d->options.n_extras && fd >= 0; t++)
            check_track(d, made, fd, s, t);
        (void)close(fd);
        (void)unlink(made->paths[s]);
    }
}

TEST(what_a_sink_has_after_an_epoch_is_what_the_files_have)
{
    static made_files made;

    for (int tracks = 0; tracks < 2; tracks++)
        for (int shuffle = 0; shuffle < 4; shuffle++) {
            data_set d;
            int64_t cells[MAX_CELLS], offsets[3] = {0, 30, 0};
            size_t n_cells = 0;
            scio_error err = SCIO_ERROR_INIT;
            scio_sink *sink;

            if (tracks)
                set_up_tracks(&d, "wide", false);
            else
                set_up(&d, MIXED, 4, false);
            for (int64_t cell = 0; cell < d.first[d.n_sets]; cell++)
                if (scio_rng_below(5, 5, (uint64_t)cell, 10) < 7)
                    cells[n_cells++] = cell;
            offsets[2] = (int64_t)n_cells;
            sink = make_sink(&d, &made, cells, n_cells);
            if (shuffle == SCIO_SHUFFLE_EXACT) { /* through a fill */
                fill(&d, cells, n_cells, NULL, sink);
            } else {
                d.options.shuffle = (scio_shuffle_mode)shuffle;
                if (shuffle == SCIO_SHUFFLE_GIVEN) {
                    d.options.given_cells = cells;
                    d.options.given_offsets = offsets;
                    d.options.n_given = 2;
                }
                scio_loader *const loader = must_make(&d, cells, n_cells);
                CHECK(scio_loader_attach(loader, NULL, sink, &err) == SCIO_OK);
                run_epoch(&d, loader, &one);
                CHECK(one.status == SCIO_OK && one.n_cells == (int64_t)n_cells);
                scio_loader_free(loader);
            }
            CHECK(!scio_sink_failure(sink, &err));
            CHECK_CLEAR(err.message);
            CHECK(scio_sink_n_put(sink) == (int64_t)n_cells);
            CHECK(scio_sink_sync(sink, &err) == SCIO_OK);
            check_files(&d, &made);
            scio_sink_release(sink);
            tear_down(&d);
        }
}

TEST(a_sink_of_other_tracks_is_refused_and_a_closed_one_stops_nothing)
{
    static made_files made;
    data_set d;
    int64_t cells[MAX_CELLS];
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, MIXED, 4, false);
    for (int64_t i = 0; i < 395; i++)
        cells[i] = i;
    scio_sink *const sink = make_sink(&d, &made, cells, 395);
    for (size_t s = 0; s < 4; s++)
        (void)unlink(made.paths[s]);
    scio_loader *loader = must_make(&d, NULL, 0);
    scio_sink_close(sink);
    CHECK(scio_loader_attach(loader, NULL, sink, &err) == SCIO_OK);
    run_epoch(&d, loader, &one);
    CHECK(one.status == SCIO_OK && one.n_cells == 395 && scio_sink_n_put(sink) == 0);
    scio_loader_free(loader);
    tear_down(&d);
    set_up_tracks(&d, "wide", false);
    loader = must_make(&d, NULL, 0);
    CHECK(scio_loader_attach(loader, NULL, sink, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "the sink has 1 tracks, the loader 4");
    scio_loader_free(loader);
    scio_sink_release(sink);
    tear_down(&d);
}
