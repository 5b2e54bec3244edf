/* The loader against values computed from row and column, over every storage, order and thread
 * count. */
#include "loader_testing.h"

#include <sys/stat.h>
#include <unistd.h>

static epoch one, two;

TEST(every_storage_gives_its_values_in_every_order)
{
    for (size_t i = 0; i < N_FIXTURES; i++)
        for (int in_memory = 0; in_memory < 2; in_memory++)
            for (int shuffle = 0; shuffle < 3; shuffle++) {
                data_set d;
                const char *const names[] = {fixtures[i].name};
                set_up(&d, names, 1, in_memory);
                d.options.shuffle = (scio_shuffle_mode)shuffle;
                run_all(&d, NULL, 0, &one);
                CHECK(has_each_once(&one, NULL, (size_t)d.first[1]));
                CHECK(one.stats.chunks_decoded == one.stats.chunks_total);
                for (int64_t k = 0; shuffle == SCIO_SHUFFLE_NONE && k < one.n_cells; k++)
                    CHECK(one.cells[k] == k);
                tear_down(&d);
            }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(every_chunk_is_decoded_once_whatever_the_blocks_and_windows)
{
    const uint64_t blocks[] = {1, 800, 1500, 5000, 0};
    for (size_t b = 0; b < 5; b++)
        for (int64_t size = 1; size < 40; size += 19) {
            data_set d;
            set_up(&d, MIXED, 4, false);
            d.options.block_nbytes = blocks[b];
            d.options.batch_size = size;
            int64_t n_units = 0;
            for (size_t s = 0; s < 4; s++) {
                n_units += (int64_t)d.matrices[s]->data_dataset->n_units;
                if (d.matrices[s]->indices_dataset != NULL)
                    n_units += (int64_t)d.matrices[s]->indices_dataset->n_units;
            }
            const int64_t before = scio_stats_get(SCIO_STAT_chunks_decoded);
            run_all(&d, NULL, 0, &one);
            CHECK(one.stats.chunks_total == n_units);
            CHECK(one.stats.chunks_decoded == n_units);
            CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) - before == n_units);
            CHECK(has_each_once(&one, NULL, (size_t)d.first[4]));
            tear_down(&d);
        }
}

TEST(the_least_cap_that_a_refusal_names_works_and_is_kept)
{
    for (int shuffle = 0; shuffle < 3; shuffle++)
        for (int64_t size = 1; size < 60; size += 13) {
            data_set d;
            set_up(&d, MIXED, 4, false);
            d.options.shuffle = (scio_shuffle_mode)shuffle;
            d.options.batch_size = size;
            d.options.max_memory = least_cap(&d, NULL, 0);
            run_all(&d, NULL, 0, &one);
            CHECK(has_each_once(&one, NULL, (size_t)d.first[4]));
            CHECK(one.stats.chunks_decoded == one.stats.chunks_total);
            CHECK(shuffle == SCIO_SHUFFLE_EXACT || size > 13 || one.stats.n_windows > 2);
            d.options.max_memory -= 16384; /* the message rounds up by two pages at most */
            scio_loader *loader = NULL;
            scio_error err = SCIO_ERROR_INIT;
            if (shuffle == SCIO_SHUFFLE_EXACT)
                hold(&d);
            CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
            tear_down(&d);
        }
}

TEST(threads_and_prefetch_do_not_change_a_byte)
{
    const size_t threads[] = {1, 2, 7};
    const size_t prefetch[] = {1, 3, 40};
    scio_error err = SCIO_ERROR_INIT;

    for (int form = 0; form < 3; form++)
        for (int tight = 0; tight < 2; tight++) {
            data_set d;
            set_up(&d, MIXED, 4, false);
            d.spec.form = (scio_form)form;
            d.spec.is_log1p = d.spec.is_library_size = true;
            d.spec.target_sum = 1e4;
            d.spec.max_genes = 12;
            if (tight)
                d.options.max_memory = least_cap(&d, NULL, 0);
            d.options.n_threads = 0;
            run_all(&d, NULL, 0, &one);
            CHECK(one.n_cells == d.first[4]);
            for (size_t t = 0; t < 3; t++) {
                scio_pool *pool = NULL;
                CHECK(scio_pool_new(threads[t], &pool, &err) == SCIO_OK);
                d.options.pool = pool;
                d.options.n_threads = threads[t];
                d.options.n_prefetch = prefetch[t];
                run_all(&d, NULL, 0, &two);
                CHECK(two.hash == one.hash && two.n_cells == one.n_cells);
                scio_pool_free(pool);
            }
            tear_down(&d);
        }
}

TEST(selections_are_read_and_nothing_else)
{
    for (uint64_t seed = 0; seed < 12; seed++) {
        data_set d;
        int64_t cells[MAX_CELLS];
        size_t n_cells = 0;
        set_up(&d, MIXED, 4, seed % 3 == 2);
        for (int64_t cell = 0; cell < d.first[4]; cell++)
            if (scio_rng_below(seed, 5, (uint64_t)cell, 100) < 1 + seed * 8)
                cells[n_cells++] = cell;
        d.options.shuffle = (scio_shuffle_mode)(seed % 3);
        d.options.drop_last = false;
        run_all(&d, cells, n_cells, &one);
        CHECK(has_each_once(&one, cells, n_cells));
        CHECK(one.stats.chunks_decoded == one.stats.chunks_total);
        tear_down(&d);
    }
    data_set d; /* the cells of one file: the others are not touched */
    int64_t cells[45];
    set_up(&d, MIXED, 4, false);
    for (int64_t i = 0; i < 45; i++)
        cells[i] = d.first[1] + i;
    run_all(&d, cells, 45, &one);
    CHECK(one.stats.chunks_total == (int64_t)d.matrices[1]->data_dataset->n_units);
    CHECK(one.stats.chunks_decoded == one.stats.chunks_total);
    tear_down(&d);
}

TEST(ranks_share_the_cells_and_have_as_many_batches)
{
    for (int64_t world = 2; world < 8; world += 2)
        for (int drop = 0; drop < 2; drop++)
            for (int shuffle = 0; shuffle < 3; shuffle++) {
                static uint8_t seen[MAX_CELLS];
                data_set d;
                int64_t n_batches = -1, n_seen = 0;
                set_up(&d, MIXED, 4, false);
                memset(seen, 0, sizeof seen);
                d.options.world_size = world;
                d.options.drop_last = drop;
                d.options.shuffle = (scio_shuffle_mode)shuffle;
                for (int64_t rank = 0; rank < world; rank++) {
                    d.options.rank = rank;
                    run_all(&d, NULL, 0, &one);
                    CHECK(n_batches < 0 || one.n_batches == n_batches);
                    n_batches = one.n_batches;
                    for (int64_t i = 0; i < one.n_cells; i++)
                        if (one.cells[i] >= 0)
                            CHECK(seen[one.cells[i]]++ == 0);
                    n_seen += one.n_cells - one.n_padding;
                    CHECK(one.n_padding <= 1);
                }
                CHECK(drop ? n_seen == n_batches * 7 * world : n_seen == d.first[4]);
                tear_down(&d);
            }
}

TEST(more_ranks_than_cells_repeat_a_cell_and_say_so)
{
    data_set d;
    const int64_t cells[] = {3, 9};
    int64_t n_real = 0;

    set_up(&d, MIXED, 2, false);
    d.options.world_size = 5;
    for (d.options.rank = 0; d.options.rank < 5; d.options.rank++) {
        run_all(&d, cells, 2, &one);
        CHECK(one.n_batches == 1 && one.n_cells == 1);
        n_real += one.n_cells - one.n_padding;
    }
    CHECK(n_real == 2);
    tear_down(&d);
}

TEST(an_epoch_goes_on_at_any_batch)
{
    for (int shuffle = 0; shuffle < 3; shuffle++)
        for (int tight = 0; tight < 2; tight++) {
            data_set d;
            set_up(&d, MIXED, 4, false);
            d.options.shuffle = (scio_shuffle_mode)shuffle;
            d.options.batch_size = 11;
            if (tight)
                d.options.max_memory = least_cap(&d, NULL, 0);
            run_all(&d, NULL, 0, &one);
            for (int64_t first = 0; first <= one.n_batches; first++) {
                d.options.first_batch = first;
                run_all(&d, NULL, 0, &two);
                CHECK(two.n_batches == one.n_batches - first);
                CHECK(memcmp(two.cells, one.cells + one.offsets[first],
                             (size_t)two.n_cells * sizeof(int64_t)) == 0);
                CHECK(two.stats.chunks_decoded == two.stats.chunks_total);
            }
            tear_down(&d);
        }
}

TEST(given_batches_come_as_given)
{
    int64_t cells[300], offsets[] = {0, 10, 10, 150, 300};

    for (int in_memory = 0; in_memory < 2; in_memory++) {
        data_set d;
        set_up(&d, MIXED, 4, in_memory);
        for (size_t i = 0; i < 300; i++)
            cells[i] = (int64_t)scio_rng_below(1, 2, i, (uint64_t)d.first[4]);
        d.options.shuffle = SCIO_SHUFFLE_GIVEN;
        d.options.given_cells = cells;
        d.options.given_offsets = offsets;
        d.options.n_given = 4;
        run_all(&d, NULL, 0, &one);
        CHECK(one.n_batches == 4 && one.n_cells == 300);
        CHECK(memcmp(one.cells, cells, sizeof cells) == 0);
        CHECK(memcmp(one.offsets, offsets, sizeof offsets) == 0);
        d.options.n_threads = 0;
        run_all(&d, NULL, 0, &two);
        CHECK(two.hash == one.hash);
        d.options.first_batch = 2;
        run_all(&d, NULL, 0, &two);
        CHECK(two.n_cells == 290);
        d.options.first_batch = 0;
        d.options.max_memory = least_cap(&d, NULL, 0);
        run_all(&d, NULL, 0, &two);
        CHECK(two.hash == one.hash);
        cells[7] = d.first[4];
        scio_loader *loader = NULL;
        scio_error err = SCIO_ERROR_INIT;
        CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_ERANGE);
        CHECK_STR(err.message, "given_cells[7] is 395, not in [0, 395)");
        tear_down(&d);
    }
}

TEST(the_cells_of_the_plan_are_those_that_come)
{
    for (int shuffle = 0; shuffle < 3; shuffle++) {
        data_set d;
        scio_buf *cells = NULL, *offsets = NULL;
        scio_error err = SCIO_ERROR_INIT;
        set_up(&d, MIXED, 4, false);
        d.options.shuffle = (scio_shuffle_mode)shuffle;
        d.options.drop_last = shuffle == 1;
        hold(&d);
        scio_loader *loader = must_make(&d, NULL, 0);
        CHECK(scio_loader_plan_cells(loader, &cells, &offsets, &err) == SCIO_OK);
        run_epoch(&d, loader, &one);
        CHECK(scio_buf_nbytes(cells) == (size_t)one.n_cells * 8);
        CHECK(memcmp(scio_buf_data(cells), one.cells, scio_buf_nbytes(cells)) == 0);
        CHECK(scio_buf_nbytes(offsets) == (size_t)(one.n_batches + 1) * 8);
        CHECK(memcmp(scio_buf_data(offsets), one.offsets, scio_buf_nbytes(offsets)) == 0);
        scio_buf_release(cells);
        scio_buf_release(offsets);
        scio_loader_free(loader);
        tear_down(&d);
    }
}

static double
factor_of_cell(int64_t cell)
{
    return 1.0 / (0.7 + (double)(cell % 13) / 3);
}

static void
check_scaled(const data_set *d, const scio_batch *batch)
{
    static float by_id[N_IDS];

    for (int64_t i = 0; i < batch->n_cells; i++) {
        const int64_t cell = ((const int64_t *)scio_buf_data(batch->index))[i];
        const size_t s = set_of(d, cell);

        expect_row(d->sets[s], s, cell - d->first[s], by_id);
        for (size_t id = 0; id < N_IDS; id++)
            by_id[id] = (float)((double)by_id[id] * factor_of_cell(cell));
        check_csr_row(cell, batch->indptr, batch->gene_indices, batch->expression, i, by_id);
    }
}

/* How many cells come until the end or an error. */
static int64_t
run_scaled(const data_set *d, scio_loader *loader, scio_error *err)
{
    int64_t n_cells = 0;

    for (int take = SCIO_TAKE_ITEM; take != SCIO_TAKE_END;) {
        scio_batch batch;

        if (scio_loader_next(loader, 100, &take, &batch, err) != SCIO_OK)
            break;
        if (take == SCIO_TAKE_ITEM) {
            n_cells += batch.n_cells;
            check_scaled(d, &batch);
        }
        scio_batch_clear(&batch);
    }
    return n_cells;
}

TEST(factors_of_cells_go_by_global_id_and_are_the_loaders_own)
{
    const char *const names[] = {"f8", "dense", "f4"};

    for (int in_memory = 0; in_memory < 2; in_memory++) {
        data_set d;
        double *factors = NULL;
        scio_error err = SCIO_ERROR_INIT;

        set_up(&d, names, 3, in_memory);
        const size_t n_all = (size_t)d.first[3];
        CHECK(scio_mem_alloc(n_all, sizeof *factors, &factors, NULL) == SCIO_OK);
        for (size_t i = 0; i < n_all; i++)
            factors[i] = factor_of_cell((int64_t)i);
        d.spec.cell_scale = factors;
        d.spec.n_cell_scale = n_all;
        scio_loader *const loader = must_make(&d, NULL, 0);
        d.spec.n_cell_scale = n_all - 1; /* the last cell has none */
        scio_loader *const lacking = must_make(&d, NULL, 0);
        scio_mem_free(factors);
        CHECK(run_scaled(&d, loader, &err) == (int64_t)n_all);
        CHECK_CLEAR(err.message);
        CHECK(run_scaled(&d, lacking, &err) < (int64_t)n_all);
        CHECK(err.code == SCIO_EINVAL);
        CHECK_STR(err.message, "none for cell");
        scio_loader_free(loader);
        scio_loader_free(lacking);
        tear_down(&d);
    }
}

/* ---- faults ---- */

TEST(a_corrupt_chunk_is_an_error_at_its_batch_or_its_cells_are_left_out)
{
    for (int indices = 0; indices < 2; indices++)
        for (int shuffle = 0; shuffle < 2; shuffle++) {
            data_set d;
            const char *const names[] = {"f8", "f4"};
            set_up(&d, names, 2, false);
            scio_matrix_release(d.matrices[1]);
            d.matrices[1] = open_spoilt(d.sets[1], indices, 9);
            /* items [576, 640) of f4 are lost */
            const int64_t *const indptr = d.matrices[1]->indptr;
            int64_t n_lost = 0;
            for (int64_t row = 0; row < 150; row++)
                n_lost += indptr[row] < 640 && indptr[row + 1] > 576;
            CHECK(n_lost > 1);
            d.options.shuffle = (scio_shuffle_mode)shuffle;
            scio_loader *loader = must_make(&d, NULL, 0);
            run_epoch(&d, loader, &one);
            CHECK(one.status == SCIO_ECORRUPT);
            CHECK_STR(one.err.message, indices ? "/f4/indices" : "/f4/data");
            CHECK(one.n_batches < scio_loader_n_batches(loader));
            int take = 0;
            scio_batch batch;
            CHECK(scio_loader_next(loader, 10, &take, &batch, &one.err) == SCIO_OK);
            CHECK(take == SCIO_TAKE_CANCELLED); /* closed */
            scio_loader_free(loader);
            loader = must_make(&d, NULL, 0);
            d.options.n_threads = 0;
            scio_loader *inline_loader = must_make(&d, NULL, 0);
            run_epoch(&d, loader, &one);
            run_epoch(&d, inline_loader, &two);
            CHECK(one.n_batches == two.n_batches && one.hash == two.hash);
            CHECK(strcmp(one.err.message, two.err.message) == 0);
            scio_loader_free(loader);
            scio_loader_free(inline_loader);
            d.options.n_threads = 2;
            d.options.is_skip_errors = true;
            run_all(&d, NULL, 0, &one);
            CHECK(one.stats.skipped_cells == n_lost);
            CHECK(one.n_cells == d.first[2] - n_lost);
            tear_down(&d);
        }
}

TEST(a_column_out_of_range_names_file_dataset_and_place)
{
    const fixture broken = {"column_out_of_range", 20, 30, 10, SMALL, false, false};
    data_set d;
    const char *const names[] = {"plain"};
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, names, 1, false);
    scio_matrix_release(d.matrices[0]);
    CHECK(open_fixture(&broken, &d.matrices[0], &err) == SCIO_OK);
    d.sets[0] = &broken;
    d.first[1] = 20;
    for (int threads = 0; threads < 2; threads++) {
        d.options.n_threads = (size_t)threads;
        scio_loader *loader = must_make(&d, NULL, 0);
        run_epoch(&d, loader, &one);
        CHECK(one.status == SCIO_ECORRUPT);
        CHECK_STR(one.err.message, "load_matrices.h5");
        CHECK_STR(one.err.message, "/column_out_of_range");
        CHECK_STR(one.err.message, "indices[17] is 30, not in [0, 30)");
        scio_loader_free(loader);
    }
    tear_down(&d);
}

TEST(a_file_that_changes_under_us_is_an_error)
{
    data_set d;
    const char *const names[] = {"f4"};
    char path[] = "/tmp/scio_test_loader_XXXXXX";
    scio_source *source = NULL, *copy = NULL;
    scio_buf *buf = NULL;
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, names, 1, false);
    CHECK(scio_source_open_file(FIXTURE, &source, &err) == SCIO_OK);
    CHECK(scio_buf_new((size_t)scio_source_nbytes(source), &buf, &err) == SCIO_OK);
    CHECK(scio_source_read(source, 0, scio_buf_nbytes(buf), scio_buf_data(buf), &err) == SCIO_OK);
    const int descriptor = mkstemp(path);
    CHECK(write(descriptor, scio_buf_data(buf), scio_buf_nbytes(buf)) ==
          (ssize_t)scio_buf_nbytes(buf));
    CHECK(scio_source_open_file(path, &copy, &err) == SCIO_OK);
    scio_matrix_release(d.matrices[0]);
    CHECK(open_fixture_in(copy, d.sets[0], &d.matrices[0], &err) == SCIO_OK);
    scio_loader *loader = must_make(&d, NULL, 0);
    CHECK(write(descriptor, "x", 1) == 1); /* longer by one byte */
    (void)close(descriptor);
    run_epoch(&d, loader, &one);
    CHECK(one.status == SCIO_EFORMAT);
    CHECK(one.n_batches == 0);
    scio_loader_free(loader);
    (void)unlink(path);
    scio_source_release(source);
    scio_source_release(copy);
    scio_buf_release(buf);
    tear_down(&d);
}

TEST(a_thousand_loaders_dropped_on_the_way_leave_nothing)
{
    data_set d;
    scio_pool *pool = NULL;
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, MIXED, 4, false);
    CHECK(scio_pool_new(2, &pool, &err) == SCIO_OK);
    d.options.pool = pool;
    const int64_t n_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    const int64_t nbytes = scio_stats_get(SCIO_STAT_live_buf_nbytes);
    for (int64_t i = 0; i < 1000; i++) {
        d.options.n_threads = (size_t)i % 3;
        scio_loader *loader = must_make(&d, NULL, 0);
        for (int64_t k = 0; k < i % 5; k++) {
            scio_batch batch;
            int take;
            CHECK(scio_loader_next(loader, 1, &take, &batch, &err) == SCIO_OK);
            scio_batch_clear(&batch);
        }
        if (i % 2 == 0)
            scio_loader_cancel(loader);
        scio_loader_free(loader);
    }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_bufs);
    CHECK(scio_stats_get(SCIO_STAT_live_buf_nbytes) == nbytes);
    scio_pool_free(pool);
    tear_down(&d);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(arguments_outside_their_range_are_named)
{
    data_set d;
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, MIXED, 1, false);
    d.options.first_batch = 19; /* of 120 / 7 -> 18 */
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "first_batch is 19, not in [0, 18]");
    d.options.first_batch = 0;
    d.maps[0][4] = 3;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "map[4] is 3, neither -1 nor in [4, 1000)");
    CHECK(loader == NULL);
    tear_down(&d);
}

TEST(no_cells_are_an_epoch_without_batches)
{
    data_set d;
    const int64_t none[1] = {0};

    set_up(&d, MIXED, 2, false);
    for (int shuffle = 0; shuffle < 3; shuffle++) {
        d.options.shuffle = (scio_shuffle_mode)shuffle;
        run_all(&d, none, 0, &one);
        CHECK(one.n_batches == 0 && one.stats.chunks_decoded == 0);
    }
    tear_down(&d);
}

TEST(every_failing_allocation_is_an_error_and_nothing_leaks_or_hangs)
{
    static double ones[MAX_CELLS];

    for (size_t i = 0; i < MAX_CELLS; i++)
        ones[i] = 1;
    for (int round = 0; round < 4; round++) { /* inline and with threads */
        const int given = round % 2;
        const int64_t cells[] = {3, 9, 130, 3, 200, 160}, offsets[] = {0, 2, 6};
        const char *const names[] = {"f8", "dense", "f4"};
        data_set d;
        scio_status status = SCIO_ENOMEM;
        size_t k = 0;
        set_up(&d, names, 3, false);
        d.options.n_threads = round < 2 ? 0 : 2;
        d.options.block_nbytes = 8000;
        if (given) {
            d.options.shuffle = SCIO_SHUFFLE_GIVEN;
            d.options.given_cells = cells;
            d.options.given_offsets = offsets;
            d.options.n_given = 2;
        } else {
            d.spec.cell_scale = ones;
            d.spec.n_cell_scale = MAX_CELLS;
        }
        const int64_t n_bufs = scio_stats_get(SCIO_STAT_live_bufs);
        for (; status != SCIO_OK && k < 20000; k++) {
            scio_loader *loader = NULL;
            scio_error err = SCIO_ERROR_INIT;
            scio_mem_fail_at(k);
            status = make_loader(&d, NULL, 0, &loader, &err);
            if (status == SCIO_OK) {
                run_epoch(&d, loader, &one);
                status = one.status;
            }
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            scio_loader_free(loader);
            if (!given) /* take keeps decoded chunks with the matrix */
                CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_bufs);
        }
        CHECK(k > 100 && k < 20000);
        tear_down(&d);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
    }
}
