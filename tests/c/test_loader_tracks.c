/* Layers and dense matrices beside the main one, through the same plan. */
#include "loader_testing.h"

static epoch one, two;

static const char *const SECONDS[] = {"wide", "csc"};

/* Storage units of all tracks that are in a file. */
static int64_t
n_units_of(const data_set *d)
{
    int64_t n_units = 0;

    for (size_t i = 0; i < d->n_sets * (1 + d->options.n_extras); i++) {
        const scio_matrix *const matrix = i < d->n_sets ? d->matrices[i] : d->extras[i - d->n_sets];
        if (!matrix->is_in_file)
            continue;
        n_units += (int64_t)matrix->data_dataset->n_units;
        if (matrix->indices_dataset != NULL)
            n_units += (int64_t)matrix->indices_dataset->n_units;
    }
    return n_units;
}

TEST(tracks_have_their_values_in_every_form_and_order)
{
    for (size_t second = 0; second < 2; second++)
        for (int form = 0; form < 3; form++)
            for (int shuffle = 0; shuffle < 3; shuffle++)
                for (int in_memory = 0; in_memory < 2; in_memory++) {
                    data_set d;
                    set_up_tracks(&d, SECONDS[second], in_memory);
                    d.spec.form = (scio_form)form;
                    d.spec.pad_value = -2;
                    d.options.shuffle = (scio_shuffle_mode)shuffle;
                    run_all(&d, NULL, 0, &one);
                    CHECK(has_each_once(&one, NULL, 300));
                    CHECK(one.stats.chunks_decoded == one.stats.chunks_total);
                    if (shuffle < 2)
                        CHECK(one.stats.chunks_total == n_units_of(&d));
                    d.options.n_threads = 0;
                    d.options.resident = NULL;
                    run_all(&d, NULL, 0, &two);
                    CHECK(two.hash == one.hash);
                    tear_down(&d);
                }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(tracks_of_given_batches_too)
{
    int64_t cells[200], offsets[] = {0, 20, 20, 150, 200};

    for (size_t second = 0; second < 2; second++)
        for (int form = 0; form < 3; form++) {
            data_set d;
            scio_error err = SCIO_ERROR_INIT;
            set_up_tracks(&d, SECONDS[second], false);
            for (size_t i = 0; i < 200; i++)
                cells[i] = (int64_t)scio_rng_below(1, 2, i % 120, 300);
            d.spec.form = (scio_form)form;
            d.options.shuffle = SCIO_SHUFFLE_GIVEN;
            d.options.given_cells = cells;
            d.options.given_offsets = offsets;
            d.options.n_given = 4;
            run_all(&d, NULL, 0, &one);
            CHECK(one.n_cells == 200 && memcmp(one.cells, cells, sizeof cells) == 0);
            d.options.max_memory = least_cap(&d, NULL, 0);
            run_all(&d, NULL, 0, &two);
            CHECK(two.hash == one.hash);
            d.options.max_memory = 64 << 20;
            d.compact = must_make_compact(&d, 4 << 20);
            for (int round = 0; round < 2; round++) { /* taken and put; then found */
                scio_loader *const loader = must_make(&d, NULL, 0);
                CHECK(scio_loader_attach(loader, d.compact, NULL, &err) == SCIO_OK);
                run_epoch(&d, loader, &two);
                CHECK(two.status == SCIO_OK && two.hash == one.hash);
                scio_loader_free(loader);
            }
            hold(&d); /* rows that were decoded: the dense ones are stored dense */
            run_all(&d, NULL, 0, &two);
            CHECK(two.hash == one.hash);
            tear_down(&d);
        }
}

TEST(rows_without_entries_taken_alone_are_rows_of_zeros)
{
    int64_t cells[] = {3, 153, 20, 170}, offsets[] = {0, 1, 2, 2, 4}; /* all are 3 modulo 17 */

    for (int form = 0; form < 3; form++) {
        data_set d;
        scio_error err = SCIO_ERROR_INIT;
        set_up_tracks(&d, "wide", false);
        d.spec.form = (scio_form)form;
        d.options.shuffle = SCIO_SHUFFLE_GIVEN;
        d.options.given_cells = cells;
        d.options.given_offsets = offsets;
        d.options.n_given = 4;
        d.compact = must_make_compact(&d, 4 << 20);
        scio_loader *const loader = must_make(&d, NULL, 0);
        CHECK(scio_loader_attach(loader, d.compact, NULL, &err) == SCIO_OK);
        run_epoch(&d, loader, &one);
        CHECK(one.status == SCIO_OK && one.n_cells == 4);
        CHECK_CLEAR(one.err.message);
        scio_loader_free(loader);
        d.options.resident = d.compact;
        run_all(&d, NULL, 0, &two);
        CHECK(two.hash == one.hash);
        tear_down(&d);
    }
}

/* Blocks of such rows alone take no memory at all. */
TEST(sparse_rows_beside_the_main_one_may_all_be_empty)
{
    const char *const names[] = {"f4", "wide"};
    const int64_t empty[] = {3, 20, 37, 54, 122, 153, 170, 187, 289};

    for (int shuffle = 0; shuffle < 3; shuffle++)
        for (int form = 0; form < 3; form++)
            for (int selected = 0; selected < 2; selected++) {
                data_set d;
                scio_error err = SCIO_ERROR_INIT;
                set_up(&d, names, 2, false);
                d.options.n_extras = 1; /* 90 columns that are no genes */
                for (size_t s = 0; s < 2; s++) {
                    d.extra_sets[s] = &track_fixtures[1];
                    d.extras[s] = open_track(&track_fixtures[1]);
                }
                d.spec.form = (scio_form)form;
                d.options.shuffle = (scio_shuffle_mode)shuffle;
                run_all(&d, selected ? empty : NULL, selected ? 9 : 0, &one);
                CHECK(one.n_cells == (selected ? 9 : 300));
                if (shuffle != SCIO_SHUFFLE_EXACT) {
                    scio_compact *const compact = must_make_compact(&d, 4 << 20);
                    scio_loader *const loader =
                        must_make(&d, selected ? empty : NULL, selected ? 9 : 0);
                    CHECK(scio_loader_attach(loader, compact, NULL, &err) == SCIO_OK);
                    run_epoch(&d, loader, &two);
                    CHECK(two.status == SCIO_OK && two.hash == one.hash);
                    scio_loader_free(loader);
                    d.options.resident = compact;
                    run_all(&d, selected ? empty : NULL, selected ? 9 : 0, &two);
                    CHECK(two.hash == one.hash);
                    scio_compact_release(compact);
                }
                tear_down(&d);
            }
}

TEST(a_store_filled_by_batches_gives_the_same_bytes)
{
    for (size_t second = 0; second < 2; second++)
        for (int form = 0; form < 3; form++) {
            data_set d;
            scio_error err = SCIO_ERROR_INIT;
            int64_t out[MAX_CELLS];
            set_up_tracks(&d, SECONDS[second], false);
            d.spec.form = (scio_form)form;
            d.compact = must_make_compact(&d, 4 << 20);
            scio_loader *const loader = must_make(&d, NULL, 0);
            CHECK(scio_loader_attach(loader, d.compact, NULL, &err) == SCIO_OK);
            run_epoch(&d, loader, &one);
            scio_loader_free(loader);
            CHECK(scio_compact_missing(d.compact, NULL, 0, out) == 0);
            d.options.resident = d.compact;
            run_all(&d, NULL, 0, &two);
            CHECK(two.hash == one.hash && two.stats.chunks_total == 0);
            tear_down(&d);
        }
}

TEST(an_epoch_with_tracks_goes_on_at_any_batch_under_the_least_cap)
{
    for (int form = 0; form < 3; form++) {
        data_set d;
        set_up_tracks(&d, "wide", false);
        d.spec.form = (scio_form)form;
        d.options.batch_size = 23;
        d.options.max_memory = least_cap(&d, NULL, 0);
        run_all(&d, NULL, 0, &one);
        for (int64_t first = 0; first <= one.n_batches; first++) {
            d.options.first_batch = first;
            run_all(&d, NULL, 0, &two);
            CHECK(memcmp(two.hashes, one.hashes + first,
                         (size_t)two.n_batches * sizeof *two.hashes) == 0);
            CHECK(two.stats.chunks_decoded == two.stats.chunks_total);
        }
        tear_down(&d);
    }
}

TEST(tracks_that_do_not_belong_are_refused)
{
    data_set d;
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;

    set_up_tracks(&d, "wide", false);
    scio_matrix *const embedding = d.extras[1], *const layer = d.extras[0];
    d.extras[1] = d.extras[2]; /* 5 columns here, 20 there */
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "/bands has 20 columns");
    CHECK_STR(err.message, "/embedding_plain has 5");
    d.extras[1] = embedding;
    d.extras[0] = d.extras[MAX_EXTRAS]; /* spliced has 90 columns, f4 300 */
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "/spliced has 90 columns");
    d.extras[0] = d.matrices[0];
    scio_matrix *const main = d.matrices[0];
    CHECK(open_fixture(fixture_named("f8"), &d.matrices[0], &err) == SCIO_EINVAL ||
          d.matrices[0] != main);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "/f4 has 150 rows");
    CHECK(loader == NULL);
    scio_matrix_release(d.matrices[0]);
    d.matrices[0] = main;
    d.extras[0] = layer;
    tear_down(&d);
}

/* A loader with tracks and a store that is filled, then one over the store: everything may fail,
 * and only the store may fail silently (it is full then). */
static scio_status
fill_and_run(data_set *d, bool *has_filled_out)
{
    scio_compact *compact = NULL;
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;
    int64_t out[MAX_CELLS];

    scio_status status =
        scio_compact_new(d->first[d->n_sets], 1 + d->options.n_extras, 4 << 20, &compact, &err);
    if (status == SCIO_OK)
        status = make_loader(d, NULL, 0, &loader, &err);
    if (status == SCIO_OK)
        status = scio_loader_attach(loader, compact, NULL, &err);
    if (status == SCIO_OK) {
        run_epoch(d, loader, &one);
        status = one.status;
    }
    scio_loader_free(loader);
    loader = NULL;
    *has_filled_out = status == SCIO_OK && scio_compact_missing(compact, NULL, 0, out) == 0;
    if (*has_filled_out) {
        const scio_loader_options options = d->options;
        d->options.resident = compact;
        d->options.shuffle = SCIO_SHUFFLE_EXACT;
        status = make_loader(d, NULL, 0, &loader, &err);
        if (status == SCIO_OK) {
            run_epoch(d, loader, &two);
            status = two.status;
            CHECK(status != SCIO_OK || has_each_once(&two, NULL, (size_t)d->first[d->n_sets]));
        }
        scio_loader_free(loader);
        d->options = options;
    }
    scio_compact_release(compact);
    return status;
}

TEST(every_failing_allocation_is_an_error_and_nothing_leaks_or_hangs)
{
    for (size_t threads = 0; threads < 3; threads += 2) {
        data_set d;
        bool has_filled = false;
        size_t k = 0;
        set_up_tracks(&d, "csc", false);
        d.options.n_threads = threads;
        d.options.batch_size = 60;
        const int64_t n_bufs = scio_stats_get(SCIO_STAT_live_bufs);
        for (; !has_filled && k < 20000; k++) {
            scio_mem_fail_at(k);
            scio_status status = fill_and_run(&d, &has_filled);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_bufs);
            has_filled = has_filled && status == SCIO_OK;
        }
        CHECK(k > 100 && k < 20000);
        tear_down(&d);
    }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}
