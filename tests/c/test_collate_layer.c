/* Layers and embeddings beside a batch, against a plain double per column. */
#include "collate_rows.h"

#include "base/mem.h"
#include "base/stats.h"

#include <math.h>

enum { N_CELLS = 9 };

/* value i of values is the float32 `want`, rounded to float16 where that is the dtype. */
static bool
is_value(const scio_batch_extra *extra, size_t i, float want)
{
    const uint16_t half = scio_f32_to_f16(want);

    return extra->value_dtype == SCIO_F16
               ? ((const uint16_t *)scio_buf_data(extra->values))[i] == half
               : memcmp((const float *)scio_buf_data(extra->values) + i, &want, 4) == 0;
}

/* What the layer has at each id, 0 where it has nothing. */
static void
plain_layer(const scio_collate_spec *spec, const plain_row *row, const int32_t *map, float *at_ids)
{
    double sums[N_IDS] = {0};

    for (size_t j = 0; j < row->n_items; j++) {
        const int32_t id = map[row->columns[j]];

        if (id >= 0 && (spec->id_mask == NULL || spec->id_mask[id] != 0))
            sums[id] += row->values[j];
    }
    for (size_t id = 0; id < N_IDS; id++)
        at_ids[id] = (float)sums[id];
}

static void
check_tokens(const scio_collate_spec *spec, const scio_batch *main, size_t i, const float *at_ids,
             const scio_batch_extra *extra)
{
    const int64_t n_genes = ((const int64_t *)scio_buf_data(main->n_genes))[i];

    CHECK(extra->width == main->width && extra->indices == NULL && extra->indptr == NULL);
    for (int64_t j = 0; j < main->width; j++) {
        const size_t at = i * (size_t)main->width + (size_t)j;
        const int64_t id = main->id_dtype == SCIO_I32
                               ? ((const int32_t *)scio_buf_data(main->gene_indices))[at]
                               : ((const int64_t *)scio_buf_data(main->gene_indices))[at];

        CHECK(is_value(extra, at, j < n_genes ? at_ids[id] : spec->pad_value));
    }
}

static void
check_csr(size_t i, const float *at_ids, const scio_batch_extra *extra)
{
    const int64_t *const indptr = scio_buf_data(extra->indptr);
    int64_t at = indptr[i];

    for (int32_t id = FIRST_ID; id < N_IDS; id++) {
        if (at_ids[id] == 0.0f)
            continue;
        CHECK(at < indptr[i + 1]);
        if (at == indptr[i + 1])
            return;
        CHECK(((const int32_t *)scio_buf_data(extra->indices))[at] == id - FIRST_ID);
        CHECK(is_value(extra, (size_t)at++, at_ids[id]));
    }
    CHECK(at == indptr[i + 1]);
}

static void
check_extra(const scio_collate_spec *spec, const scio_batch *main, const plain_row *plain,
            const int32_t *map, const scio_batch_extra *extra)
{
    float at_ids[N_IDS];

    CHECK(extra->value_dtype == (spec->value_dtype == SCIO_F16 ? SCIO_F16 : SCIO_F32));
    CHECK(scio_buf_nbytes(extra->values) ==
          (spec->form == SCIO_FORM_CSR ? (size_t)extra->nnz : N_CELLS * (size_t)extra->width) *
              scio_dtype_itemsize(extra->value_dtype));
    for (size_t i = 0; i < N_CELLS; i++) {
        plain_layer(spec, &plain[i], map, at_ids);
        if (spec->form == SCIO_FORM_TOKENS)
            check_tokens(spec, main, i, at_ids, extra);
        else if (spec->form == SCIO_FORM_CSR)
            check_csr(i, at_ids, extra);
        for (int32_t id = FIRST_ID; spec->form == SCIO_FORM_DENSE && id < N_IDS; id++)
            CHECK(is_value(extra, i * (N_IDS - FIRST_ID) + (size_t)(id - FIRST_ID), at_ids[id]));
    }
    CHECK(spec->form == SCIO_FORM_TOKENS || extra->width == N_IDS - FIRST_ID);
}

static const presentation presentations[] = {
    {"u16 f32", SCIO_U16, SCIO_F32, .is_fast = true},
    {"u16 u8", SCIO_U16, SCIO_U8, .is_fast = true},
    {"u32 u16", SCIO_U32, SCIO_U16, .is_fast = true},
    {"i32 f64", SCIO_I32, SCIO_F64, .is_fast = true},
    {"i64 i64", SCIO_I64, SCIO_I64, .is_fast = true},
    {"dense f32", SCIO_DTYPE_NONE, SCIO_F32, .is_fast = true},
    {"dense f64", SCIO_DTYPE_NONE, SCIO_F64, .is_fast = true},
    {"u16 f32 shuffled", SCIO_U16, SCIO_F32, .is_shuffled = true},
    {"i64 i32 split, shuffled", SCIO_I64, SCIO_I32, .is_split = true, .is_shuffled = true},
    {"u16 f16 with zeros", SCIO_U16, SCIO_F16, .has_zeros = true, .is_shuffled = true},
    {"i32 u8 unaligned", SCIO_I32, SCIO_U8, .is_unaligned = true},
};

/* The layer of one batch; its rows are other cells' data with a map of its own. */
static void
check_layer(const scio_collate_spec *spec, const presentation *as, int main_kind, int layer_kind)
{
    static plain_row main_plain[MOST_CELLS], layer_plain[MOST_CELLS];
    stored_rows main_rows, layer_rows;
    int32_t main_map[N_COLS], layer_map[N_COLS];
    const bool is_main_increasing = make_map(main_kind, main_map);
    const bool is_layer_increasing = make_map(layer_kind, layer_map);
    const presentation plain = {"main", SCIO_U16, SCIO_F32, .is_fast = true};
    scio_collate_scratch *scratch = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_batch main;
    scio_batch_extra extra;

    make_rows(main_plain, N_CELLS, SMALL_COUNTS, 300);
    make_rows(layer_plain, N_CELLS, SMALL_COUNTS, 400);
    store_rows(&plain, main_plain, N_CELLS, main_map, is_main_increasing, &main_rows);
    store_rows(as, layer_plain, N_CELLS, layer_map, is_layer_increasing, &layer_rows);
    if (layer_kind == IDENTITY_MAP)
        declare_identity(&layer_rows, N_CELLS);
    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(spec, main_rows.rows, N_CELLS, scratch, &main, &err) == SCIO_OK);
    CHECK(scio_collate_layer(spec, &main, layer_rows.rows, N_CELLS, scratch, &extra, &err) ==
          SCIO_OK);
    CHECK_CLEAR(err.message);
    check_extra(spec, &main, layer_plain, layer_map, &extra);
    CHECK(scio_batch_extra_nbytes(&extra) >= scio_buf_nbytes(extra.values));
    scio_batch_extra_clear(&extra);
    CHECK(scio_batch_extra_nbytes(&extra) == 0);
    scio_batch_clear(&main);
    scio_collate_scratch_free(scratch);
    stored_free(&main_rows);
    stored_free(&layer_rows);
}

TEST(a_layer_has_its_stored_values_in_the_columns_of_the_batch)
{
    static uint8_t id_mask[N_IDS];
    static const scio_dtype ids[] = {SCIO_DTYPE_NONE, SCIO_I32, SCIO_I64};
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);

    for (size_t i = 0; i < N_IDS; i++)
        id_mask[i] = i % 5 != 0;
    for (size_t p = 0; p < sizeof presentations / sizeof *presentations; p++) {
        const bool had_failed = test_has_failed;

        test_has_failed = false;
        for (uint64_t k = 0; k < 3 * 2 * 2 * 2 * 4; k++) {
            const scio_collate_spec spec = {.form = (scio_form)(k % 3),
                                            .n_ids = N_IDS,
                                            .first_id = FIRST_ID,
                                            .value_dtype =
                                                k / 3 % 2 == 0 ? SCIO_DTYPE_NONE : SCIO_F16,
                                            .id_mask = k / 6 % 2 == 0 ? NULL : id_mask,
                                            .max_genes = k / 12 % 2 == 0 ? 0 : 30,
                                            .is_library_size = true, /* of main alone */
                                            .is_log1p = true,
                                            .target_sum = 1e4,
                                            .pad_id = 1,
                                            .pad_value = -2.5f,
                                            .id_dtype = ids[(k + p) % 3]};

            check_layer(&spec, &presentations[p], (int)((k + p) % N_MAP_KINDS), (int)(k / 24));
        }
        if (test_has_failed)
            printf("in \"%s\"\n", presentations[p].name);
        test_has_failed = test_has_failed || had_failed;
    }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}

TEST(layers_of_batches_of_nothing)
{
    for (int form = 0; form < 3; form++) {
        const scio_collate_spec spec = {.form = (scio_form)form, .n_ids = 7, .first_id = 7};
        scio_collate_scratch *scratch = NULL;
        scio_batch main;
        scio_batch_extra extra;

        CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
        CHECK(scio_collate(&spec, NULL, 0, scratch, &main, NULL) == SCIO_OK);
        CHECK(scio_collate_layer(&spec, &main, NULL, 0, scratch, &extra, NULL) == SCIO_OK);
        CHECK(scio_buf_nbytes(extra.values) == 0 && extra.nnz == 0);
        scio_batch_extra_clear(&extra);
        scio_batch_clear(&main);
        scio_collate_scratch_free(scratch);
    }
}

TEST(a_batch_of_another_form_or_size_is_a_bug_and_a_bad_map_an_error)
{
    const scio_collate_spec spec = {.form = SCIO_FORM_TOKENS, .n_ids = 10};
    const scio_batch other = {.form = SCIO_FORM_CSR, .n_cells = 1};
    const scio_batch longer = {.form = SCIO_FORM_TOKENS, .n_cells = 2};
    const uint16_t columns[1] = {0};
    const float values[1] = {1};
    const int32_t map[1] = {3}, bad_map[1] = {10};
    scio_row row = {columns, SCIO_U16, values, SCIO_F32, 1, map, true, 0, false, 0};
    scio_collate_scratch *scratch = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_batch main;
    scio_batch_extra extra;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate_layer(&spec, &other, &row, 1, scratch, &extra, &err) == SCIO_EBUG);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_collate_layer(&spec, &longer, &row, 1, scratch, &extra, &err) == SCIO_EBUG);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_collate(&spec, &row, 1, scratch, &main, &err) == SCIO_OK);
    row.map = bad_map;
    CHECK(scio_collate_layer(&spec, &main, &row, 1, scratch, &extra, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "to id 10, not in [0, 10)");
    CHECK(extra.values == NULL);
    scio_batch_clear(&main);
    scio_collate_scratch_free(scratch);
}

/* --- dense rows --- */

TEST(dense_rows_come_as_they_are_in_float32_or_float16)
{
    static plain_row plain[MOST_CELLS];
    int32_t map[N_COLS];

    for (size_t p = 0; p < 2 * sizeof presentations / sizeof *presentations; p++) {
        const presentation *const as = &presentations[p / 2];
        const scio_dtype dtype = p % 2 == 0 ? SCIO_F32 : SCIO_F16;
        scio_batch_extra extra;
        stored_rows stored;

        make_rows(plain, N_CELLS, SMALL_COUNTS, 500);
        make_map(2, map); /* of no consequence */
        store_rows(as, plain, N_CELLS, map, false, &stored);
        CHECK(scio_collate_dense_rows(stored.rows, N_CELLS, N_COLS, dtype, &extra, NULL) ==
              SCIO_OK);
        CHECK(extra.width == N_COLS && extra.value_dtype == dtype);
        CHECK(scio_buf_nbytes(extra.values) == N_CELLS * N_COLS * scio_dtype_itemsize(dtype));
        for (size_t i = 0; i < N_CELLS; i++) {
            double want[N_COLS] = {0};

            for (size_t j = 0; j < plain[i].n_items; j++)
                want[plain[i].columns[j]] += plain[i].values[j];
            for (size_t c = 0; c < N_COLS; c++)
                CHECK(is_value(&extra, i * N_COLS + c, (float)want[c]));
        }
        scio_batch_extra_clear(&extra);
        stored_free(&stored);
    }
}

TEST(float64_embeddings_are_rounded_to_float32_first)
{
    enum { N = 700 }; /* more than a chunk */
    static double values[N];
    const scio_row row = {.values = values, .value_dtype = SCIO_F64, .n_items = N};
    scio_batch_extra extra;

    for (size_t i = 0; i < N; i++)
        values[i] = ((double)random_at(70, i) / 0x1p63 - 1.0) * 100.0;
    values[1] = 1.0 + 0x1p-11 + 0x1p-40; /* up as a double, a tie as float32: to even */
    values[2] = NAN;
    values[3] = -0.0;
    values[N - 1] = 1e300;
    CHECK(scio_collate_dense_rows(&row, 1, N, SCIO_DTYPE_NONE, &extra, NULL) == SCIO_OK);
    CHECK(extra.value_dtype == SCIO_F32);
    for (size_t i = 0; i < N; i++)
        CHECK(is_value(&extra, i, (float)values[i]));
    scio_batch_extra_clear(&extra);
    CHECK(scio_collate_dense_rows(&row, 1, N, SCIO_F16, &extra, NULL) == SCIO_OK);
    for (size_t i = 0; i < N; i++)
        CHECK(is_value(&extra, i, (float)values[i]));
    CHECK(((const uint16_t *)scio_buf_data(extra.values))[1] == 0x3C00);
    scio_batch_extra_clear(&extra);
}

static void
check_refused(const scio_row *row, int64_t n_cols, scio_dtype dtype, scio_status status,
              const char *message)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    scio_error err = SCIO_ERROR_INIT;
    scio_batch_extra extra;

    CHECK(scio_collate_dense_rows(row, 1, n_cols, dtype, &extra, &err) == status);
    CHECK_STR(err.message, message);
    CHECK(extra.values == NULL);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}

TEST(dense_rows_of_another_width_are_refused)
{
    const float values[3] = {1, 2, 3};
    const int32_t columns[3] = {0, 1, 3}, negative[3] = {0, -1, 2};
    scio_row row = {.values = values, .value_dtype = SCIO_F32, .n_items = 3, .cell = 8};

    check_refused(&row, 4, SCIO_F32, SCIO_EINVAL, "cell 8 has 3 values in a matrix of 4 columns");
    check_refused(&row, -1, SCIO_F32, SCIO_EINVAL, "n_cols is -1");
    check_refused(&row, 3, SCIO_I32, SCIO_EINVAL, "value_dtype is int32");
    check_refused(&row, INT64_MAX, SCIO_F32, SCIO_ENOMEM, "a batch of 1 x");
    row.indices = columns;
    row.index_dtype = SCIO_I32;
    check_refused(&row, 3, SCIO_F32, SCIO_ERANGE,
                  "cell 8 has a value in column 3 of a matrix of 3 columns");
    row.indices = negative;
    check_refused(&row, 3, SCIO_F32, SCIO_ERANGE, "");
}

/* --- allocation failures --- */

static scio_status
one_of_each(const scio_collate_spec *spec, const scio_batch *main, const scio_row *rows,
            scio_batch_extra *layer, scio_batch_extra *dense)
{
    scio_collate_scratch *scratch = NULL;
    scio_status status = scio_collate_scratch_new(&scratch, NULL);

    memset(layer, 0, sizeof *layer);
    memset(dense, 0, sizeof *dense);
    if (status == SCIO_OK)
        status = scio_collate_layer(spec, main, rows, N_CELLS, scratch, layer, NULL);
    if (status == SCIO_OK)
        status = scio_collate_dense_rows(rows, N_CELLS, N_COLS, spec->value_dtype, dense, NULL);
    scio_collate_scratch_free(scratch);
    return status;
}

TEST(every_allocation_may_fail)
{
    static plain_row plain[MOST_CELLS];
    int32_t map[N_COLS];
    stored_rows stored;

    make_rows(plain, N_CELLS, SMALL_COUNTS, 7);
    make_map(1, map);
    store_rows(&presentations[8], plain, N_CELLS, map, true, &stored);
    for (int kind = 0; kind < 6; kind++) {
        const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
        const scio_collate_spec spec = {.form = (scio_form)(kind % 3),
                                        .n_ids = N_IDS,
                                        .first_id = FIRST_ID,
                                        .value_dtype = kind < 3 ? SCIO_F32 : SCIO_F16};
        scio_collate_scratch *scratch = NULL;
        scio_batch main;
        scio_status status;
        size_t k = 0;

        CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
        CHECK(scio_collate(&spec, stored.rows, N_CELLS, scratch, &main, NULL) == SCIO_OK);
        do {
            scio_batch_extra layer, dense;

            scio_mem_fail_at(k++);
            status = one_of_each(&spec, &main, stored.rows, &layer, &dense);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            if (status == SCIO_OK)
                check_extra(&spec, &main, plain, map, &layer);
            scio_batch_extra_clear(&layer);
            scio_batch_extra_clear(&dense);
        } while (status != SCIO_OK);
        CHECK(k > 8);
        scio_batch_clear(&main);
        scio_collate_scratch_free(scratch);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
    }
    stored_free(&stored);
}
