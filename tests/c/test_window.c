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
    CHECK_STR(err.message, "");
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
            CHECK_STR(err.message, "");
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
