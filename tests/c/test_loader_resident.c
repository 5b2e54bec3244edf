/* Epochs over rows that are resident: in a compact store, mapped, or in memory. */
#include "fast_testing.h"
#include "h5write/writer.h"
#include "loader_testing.h"

static epoch one, two;

/* The selection of every test that takes one: about 60 % of the cells. */
static size_t
select_cells(const data_set *d, int64_t *cells)
{
    size_t n_cells = 0;
    for (int64_t cell = 0; cell < d->first[d->n_sets]; cell++)
        if (scio_rng_below(17, 5, (uint64_t)cell, 100) < 60)
            cells[n_cells++] = cell;
    return n_cells;
}

static void
run_attached(data_set *d, const int64_t *cells, size_t n_cells, scio_compact *compact, epoch *e)
{
    scio_loader *const loader = must_make(d, cells, n_cells);
    scio_error err = SCIO_ERROR_INIT;
    CHECK(scio_loader_attach(loader, compact, NULL, &err) == SCIO_OK);
    run_epoch(d, loader, e);
    CHECK(e->status == SCIO_OK);
    CHECK_CLEAR(e->err.message);
    scio_loader_free(loader);
}

static size_t
n_missing(const scio_compact *compact, const int64_t *cells, size_t n_cells)
{
    int64_t out[MAX_CELLS];
    return scio_compact_missing(compact, cells, n_cells, out);
}

TEST(an_epoch_of_windows_and_the_same_of_resident_rows_are_the_same_bytes)
{
    for (int shuffle = 0; shuffle < 2; shuffle++)
        for (int form = 0; form < 3; form++)
            for (int selected = 0; selected < 2; selected++) {
                data_set d;
                int64_t list[MAX_CELLS];
                set_up(&d, MIXED, 4, false);
                const size_t n_list = select_cells(&d, list);
                const int64_t *const cells = selected ? list : NULL;
                const size_t n_cells = selected ? n_list : 0;
                d.options.shuffle = (scio_shuffle_mode)shuffle;
                d.spec.form = (scio_form)form;
                d.compact = must_make_compact(&d, 4 << 20);
                run_attached(&d, cells, n_cells, d.compact, &one);
                CHECK(one.stats.chunks_decoded == one.stats.chunks_total);
                CHECK(one.stats.chunks_decoded > 0);
                CHECK(n_missing(d.compact, cells, n_cells) == 0);
                CHECK(selected == 0 ||
                      n_missing(d.compact, NULL, 0) == (size_t)d.first[4] - n_cells);
                d.options.resident = d.compact;
                for (size_t threads = 0; threads < 3; threads++) {
                    const int64_t before = scio_stats_get(SCIO_STAT_chunks_decoded);
                    d.options.n_threads = threads;
                    d.options.resident = d.compact;
                    run_all(&d, cells, n_cells, &two);
                    CHECK(two.hash == one.hash && two.n_cells == one.n_cells);
                    CHECK(two.stats.chunks_decoded == 0 && two.stats.chunks_total == 0);
                    CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) == before);
                }
                tear_down(&d);
            }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

/* ---- mapped ---- */

/* The rows of `cells` (NULL: all) that lie in set s, as a matrix of their own in memory. */
static scio_matrix *
rows_of_set(const data_set *d, size_t s, const int64_t *cells, size_t n_cells)
{
    const fixture *const f = d->sets[s];
    scio_matrix *const all = fixture_in_memory(f);
    scio_matrix *some = NULL;
    scio_error err = SCIO_ERROR_INIT;
    int64_t rows[MAX_CELLS];
    size_t n_rows = 0;
    scio_csr csr;
    scio_buf *dense = NULL;

    if (cells == NULL)
        return all;
    for (size_t i = 0; i < n_cells; i++)
        if (cells[i] >= d->first[s] && cells[i] < d->first[s + 1])
            rows[n_rows++] = cells[i] - d->first[s];
    if (f->is_dense) {
        const size_t nbytes = (size_t)f->n_cols * sizeof(float);
        CHECK(scio_buf_new(n_rows * nbytes, &dense, &err) == SCIO_OK);
        for (size_t i = 0; i < n_rows; i++)
            memcpy((char *)scio_buf_data(dense) + i * nbytes,
                   (const char *)scio_buf_data(all->data) + (size_t)rows[i] * nbytes, nbytes);
        CHECK(scio_matrix_from_dense("mapped", (int64_t)n_rows, f->n_cols, dense, SCIO_F32, &some,
                                     &err) == SCIO_OK);
        scio_buf_release(dense);
    } else {
        CHECK(scio_matrix_take(all, rows, n_rows, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_OK);
        CHECK(scio_matrix_from_csr("mapped", (int64_t)n_rows, f->n_cols, csr.indptr, csr.indices,
                                   csr.index_dtype, csr.data, csr.data_dtype, &some,
                                   &err) == SCIO_OK);
        scio_csr_clear(&csr);
    }
    CHECK_CLEAR(err.message);
    scio_matrix_release(all);
    return some;
}

TEST(an_exact_epoch_is_the_same_wherever_its_rows_are_and_whoever_works)
{
    const size_t threads[] = {0, 1, 2, 7};

    for (int form = 0; form < 3; form++)
        for (int selected = 0; selected < 2; selected++) {
            data_set d;
            scio_matrix *mapped[MAX_SETS], *in_file[MAX_SETS], *in_memory[MAX_SETS];
            scio_matrix *some[MAX_SETS];
            int64_t list[MAX_CELLS];
            scio_error err = SCIO_ERROR_INIT;
            uint64_t hash = 0;

            set_up(&d, MIXED, 4, false);
            const size_t n_list = select_cells(&d, list);
            const int64_t *const cells = selected ? list : NULL;
            const size_t n_cells = selected ? n_list : 0, n_all = selected ? n_list : 395;
            d.options.shuffle = SCIO_SHUFFLE_EXACT;
            d.options.epoch = 2;
            d.spec.form = (scio_form)form;
            for (size_t s = 0; s < 4; s++) {
                mapped[s] = rows_of_set(&d, s, cells, n_cells);
                in_memory[s] = fixture_in_memory(d.sets[s]);
                in_file[s] = d.matrices[s];
                some[s] = mapped[s];
            }
            for (int where = 0; where < 4; where++)
                for (size_t t = 0; t < 4; t++) {
                    scio_pool *pool = NULL;
                    CHECK(scio_pool_new(7, &pool, &err) == SCIO_OK);
                    d.options.pool = pool;
                    d.options.n_threads = threads[t];
                    d.options.mapped = where == 1 || where == 2 ? some : NULL;
                    d.options.mapped_cells = d.options.mapped != NULL ? cells : NULL;
                    d.options.n_mapped_cells = d.options.mapped != NULL ? n_cells : 0;
                    memcpy(d.matrices, where == 3 ? in_memory : in_file, sizeof in_file);
                    some[1] = where == 2 ? NULL : mapped[1];
                    if (where == 2) /* one source of four is in memory: it needs none */
                        d.matrices[1] = in_memory[1];
                    run_all(&d, cells, n_cells, &one);
                    CHECK(has_each_once(&one, cells, n_all));
                    CHECK(one.stats.chunks_total == 0);
                    hash = hash == 0 ? one.hash : hash;
                    CHECK(one.hash == hash);
                    scio_pool_free(pool);
                    d.options.pool = NULL;
                }
            for (size_t s = 0; s < 4; s++) {
                scio_matrix_release(mapped[s]);
                scio_matrix_release(in_memory[s]);
                d.matrices[s] = in_file[s];
            }
            tear_down(&d);
        }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(rows_of_a_mapped_file_come_in_every_order)
{
    for (int shuffle = 0; shuffle < 3; shuffle++) {
        data_set d;
        scio_matrix *mapped[MAX_SETS] = {NULL};
        scio_error err = SCIO_ERROR_INIT;

        set_up(&d, MIXED, 4, false);
        d.options.shuffle = (scio_shuffle_mode)shuffle;
        run_all(&d, NULL, 0, &one);
        for (size_t s = 0; s < 4; s++) {
            char path[40];
            write_fast(path, d.sets[s], d.sets[s]->kind == EIGHTHS ? SCIO_F32 : SCIO_U8, SCIO_U16);
            CHECK(map_at(path, d.sets[s], "/m", &mapped[s], &err) == SCIO_OK);
            (void)unlink(path);
        }
        CHECK_CLEAR(err.message);
        d.options.mapped = mapped;
        d.options.resident = NULL;
        run_all(&d, NULL, 0, &two);
        CHECK(two.hash == one.hash && two.stats.chunks_decoded == 0);
        CHECK(has_each_once(&two, NULL, (size_t)d.first[4]));
        for (size_t s = 0; s < 4; s++)
            scio_matrix_release(mapped[s]);
        tear_down(&d);
    }
}

TEST(mapped_matrices_that_do_not_belong_are_refused)
{
    const char *const names[] = {"plain", "dense_plain"};
    const int64_t bad[][2] = {{5, 3}, {5, 5}, {-1, 3}, {3, 125}};
    data_set d;
    scio_matrix *mapped[2];
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, names, 2, false);
    mapped[0] = fixture_in_memory(d.sets[0]);
    mapped[1] = fixture_in_memory(d.sets[1]);
    d.options.shuffle = SCIO_SHUFFLE_EXACT;
    d.options.mapped = mapped;
    for (size_t i = 0; i < 4; i++) {
        err = (scio_error)SCIO_ERROR_INIT;
        d.options.mapped_cells = bad[i];
        d.options.n_mapped_cells = 2;
        CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, "mapped_cells[");
    }
    d.options.mapped_cells = NULL;
    scio_matrix *const first = mapped[0];
    mapped[0] = mapped[1];
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "expected a mapped matrix of 80 x 90");
    mapped[0] = NULL;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "no mapped matrix for");
    mapped[0] = d.matrices[0];
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
    CHECK(loader == NULL);
    /* a cell that is not among those that are mapped */
    const int64_t some[] = {1, 2};
    const int64_t asked[] = {1, 3};
    scio_matrix_release(first);
    scio_matrix_release(mapped[1]);
    mapped[0] = rows_of_set(&d, 0, some, 2);
    mapped[1] = rows_of_set(&d, 1, some, 2);
    d.options.mapped_cells = some;
    loader = must_make(&d, asked, 2);
    run_epoch(&d, loader, &one);
    CHECK(one.status == SCIO_EINVAL);
    CHECK_STR(one.err.message, "cell 3 is not among those that are mapped");
    scio_loader_free(loader);
    scio_matrix_release(mapped[0]);
    scio_matrix_release(mapped[1]);
    tear_down(&d);
}

/* ---- exact ---- */

TEST(rows_that_are_not_there_are_an_error_that_names_the_cell)
{
    data_set d;
    int64_t cells[MAX_CELLS];
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, MIXED, 4, false);
    d.options.shuffle = SCIO_SHUFFLE_EXACT;
    scio_loader *loader = must_make(&d, NULL, 0); /* its plan may be looked at */
    scio_buf *planned = NULL, *offsets = NULL;
    CHECK(scio_loader_plan_cells(loader, &planned, &offsets, &err) == SCIO_OK);
    const int64_t first = *(const int64_t *)scio_buf_data(planned);
    scio_buf_release(planned);
    scio_buf_release(offsets);
    run_epoch(&d, loader, &one);
    CHECK(one.status == SCIO_EINVAL && one.n_batches == 0);
    CHECK_STR(one.err.message, "is not resident");
    scio_loader_free(loader);
    d.compact = must_make_compact(&d, 4 << 20);
    size_t n_cells = 0;
    for (int64_t cell = 0; cell < d.first[4]; cell++)
        if (cell != first)
            cells[n_cells++] = cell;
    fill(&d, cells, n_cells, d.compact, NULL);
    d.options.resident = d.compact;
    loader = must_make(&d, NULL, 0);
    run_epoch(&d, loader, &one);
    CHECK(one.status == SCIO_EINVAL);
    char text[64];
    (void)snprintf(text, sizeof text, "cell %" PRId64 " is not resident", first);
    CHECK_STR(one.err.message, text);
    scio_loader_free(loader);
    tear_down(&d);
}

TEST(drop_last_leaves_out_other_cells_in_other_epochs)
{
    static int n_left_out[MAX_CELLS];
    data_set d;
    int n_different = 0;

    memset(n_left_out, 0, sizeof n_left_out);
    set_up(&d, MIXED, 4, false);
    d.options.shuffle = SCIO_SHUFFLE_EXACT;
    d.options.batch_size = 60; /* 395 = 6 * 60 + 35 */
    d.options.drop_last = true;
    for (d.options.epoch = 1; d.options.epoch <= 8; d.options.epoch++) {
        run_all(&d, NULL, 0, &one);
        CHECK(one.n_cells == 360 && one.n_batches == 6);
        for (int64_t i = 0; i < 395; i++)
            n_left_out[i]++;
        for (int64_t i = 0; i < one.n_cells; i++)
            n_left_out[one.cells[i]]--;
    }
    for (int64_t i = 0; i < 395; i++) {
        n_different += n_left_out[i] > 0;
        CHECK(n_left_out[i] < 6); /* 8 * 35 / 395 on average */
    }
    CHECK(n_different > 150);
    tear_down(&d);
}

static int
compare_cells(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

TEST(ranks_of_an_exact_epoch_keep_the_cells_of_the_first_block_epoch)
{
    for (int64_t world = 2; world < 6; world++)
        for (int drop = 0; drop < 2; drop++) {
            static uint8_t seen[MAX_CELLS];
            data_set d;
            int64_t n_batches = -1;
            set_up(&d, MIXED, 4, false);
            hold(&d);
            memset(seen, 0, sizeof seen);
            d.options.world_size = world;
            for (d.options.rank = 0; d.options.rank < world; d.options.rank++) {
                d.options.shuffle = SCIO_SHUFFLE_BLOCK;
                d.options.drop_last = false;
                d.options.epoch = 0;
                d.options.resident = NULL;
                run_all(&d, NULL, 0, &two);
                qsort(two.cells, (size_t)two.n_cells, sizeof *two.cells, compare_cells);
                d.options.shuffle = SCIO_SHUFFLE_EXACT;
                d.options.drop_last = drop;
                for (d.options.epoch = 1; d.options.epoch < 4; d.options.epoch++) {
                    run_all(&d, NULL, 0, &one);
                    CHECK(n_batches < 0 || one.n_batches == n_batches);
                    n_batches = one.n_batches;
                    for (int64_t i = 0; i < one.n_cells; i++) {
                        CHECK(bsearch(&one.cells[i], two.cells, (size_t)two.n_cells,
                                      sizeof *two.cells, compare_cells) != NULL ||
                              one.cells[i] < 0);
                        if (one.cells[i] >= 0 && !drop)
                            CHECK(seen[one.cells[i]]++ == d.options.epoch - 1);
                    }
                }
            }
            for (int64_t i = 0; i < d.first[4] && !drop; i++)
                CHECK(seen[i] == 3);
            tear_down(&d);
        }
}

TEST(an_epoch_of_resident_rows_goes_on_at_any_batch)
{
    for (int shuffle = 0; shuffle < 3; shuffle++)
        for (int drop = 0; drop < 2; drop++) {
            data_set d;
            set_up(&d, MIXED, 4, false);
            hold(&d);
            d.options.shuffle = (scio_shuffle_mode)shuffle;
            d.options.drop_last = drop;
            d.options.batch_size = 13;
            run_all(&d, NULL, 0, &one);
            for (int64_t first = 0; first <= one.n_batches; first++) {
                d.options.first_batch = first;
                d.options.resident = d.compact;
                d.options.n_threads = (size_t)first % 3;
                run_all(&d, NULL, 0, &two);
                CHECK(two.n_batches == one.n_batches - first);
                CHECK(memcmp(two.hashes, one.hashes + first,
                             (size_t)two.n_batches * sizeof *two.hashes) == 0);
                CHECK(two.stats.chunks_total == 0);
            }
            tear_down(&d);
        }
}

/* ---- given ---- */

TEST(given_batches_take_from_the_store_what_it_has)
{
    int64_t cells[400], offsets[] = {0, 10, 10, 150, 300, 400};

    for (size_t threads = 0; threads < 3; threads++) {
        data_set d;
        set_up(&d, MIXED, 4, false);
        for (size_t i = 0; i < 400; i++)
            cells[i] = (int64_t)scio_rng_below(1, 2, i % 210, (uint64_t)d.first[4]); /* repeated */
        d.options.n_threads = threads;
        d.options.shuffle = SCIO_SHUFFLE_GIVEN;
        d.options.given_cells = cells;
        d.options.given_offsets = offsets;
        d.options.n_given = 5;
        run_all(&d, NULL, 0, &one); /* nothing attached */
        CHECK(one.n_cells == 400 && memcmp(one.cells, cells, sizeof cells) == 0);
        d.compact = must_make_compact(&d, 4 << 20);
        for (int round = 0; round < 3; round++) {
            run_attached(&d, NULL, 0, d.compact, &two);
            CHECK(two.hash == one.hash);
            CHECK(n_missing(d.compact, cells, 400) == 0);
        }
        d.options.max_memory = least_cap(&d, NULL, 0); /* without a store: rows are held apart */
        const uint64_t least = d.options.max_memory;
        d.options.resident = d.compact;
        d.options.max_memory = least_cap(&d, NULL, 0);
        CHECK(d.options.max_memory < least + (4 << 20));
        const int64_t before = scio_stats_get(SCIO_STAT_chunks_decoded);
        run_all(&d, NULL, 0, &two);
        CHECK(two.hash == one.hash);
        CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) == before);
        /* cells that the resident store does not have are taken, and counted */
        scio_compact *const half = must_make_compact(&d, 1 << 20);
        fill(&d, cells, 0, half, NULL);
        CHECK(n_missing(half, NULL, 0) == (size_t)d.first[4]);
        d.options.resident = half;
        d.options.max_memory = least_cap(&d, NULL, 0);
        CHECK(d.options.max_memory == least + (1 << 20));
        run_all(&d, NULL, 0, &two);
        CHECK(two.hash == one.hash);
        d.options.resident = NULL;
        scio_compact_release(half);
        tear_down(&d);
    }
}

/* ---- a store of another shape ---- */

TEST(a_store_of_other_cells_or_tracks_is_refused)
{
    data_set d;
    scio_compact *cells = NULL, *tracks = NULL;
    scio_loader *loader = NULL;
    scio_error err = SCIO_ERROR_INIT;

    set_up(&d, MIXED, 4, false);
    CHECK(scio_compact_new(394, 1, 1 << 20, &cells, &err) == SCIO_OK);
    CHECK(scio_compact_new(395, 2, 1 << 20, &tracks, &err) == SCIO_OK);
    for (int i = 0; i < 2; i++) {
        err = (scio_error)SCIO_ERROR_INIT;
        d.options.resident = i == 0 ? cells : tracks;
        CHECK(make_loader(&d, NULL, 0, &loader, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, "the loader 395 and 1");
        d.options.resident = NULL;
        loader = must_make(&d, NULL, 0);
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_loader_attach(loader, i == 0 ? cells : tracks, NULL, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, "the loader 395 and 1");
        scio_loader_free(loader);
        loader = NULL;
    }
    scio_compact_release(cells);
    scio_compact_release(tracks);
    tear_down(&d);
}
