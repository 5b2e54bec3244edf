/* Collation against a slow second engine: one entry at a time, in double, with a sort for each
 * step. */
#include "collate_rows.h"

#include "base/mem.h"
#include "base/stats.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdint.h>

/* --- the second engine --- */

typedef struct entry {
    int32_t id;
    float value;
} entry;

static int
by_id(const void *a, const void *b)
{
    const entry *const x = a, *const y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static int
by_value(const void *a, const void *b)
{
    const entry *const x = a, *const y = b;
    const bool is_x_nan = x->value != x->value, is_y_nan = y->value != y->value;

    if (is_x_nan != is_y_nan)
        return is_x_nan ? -1 : 1;
    if (!is_x_nan && x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return by_id(a, b);
}

static size_t
plain_select(const scio_collate_spec *spec, int64_t cell, entry *entries, size_t n_items)
{
    const size_t k = (size_t)spec->max_genes;

    if (k == 0 || n_items <= k)
        return n_items;
    if (spec->select == SCIO_SELECT_MOST_EXPRESSED) {
        qsort(entries, n_items, sizeof *entries, by_value);
        qsort(entries, k, sizeof *entries, by_id);
    } else if (spec->select == SCIO_SELECT_RANDOM_EXPRESSED) {
        int32_t ids[N_COLS];
        float values[N_COLS];
        uint64_t scratch[2 * N_COLS];

        for (size_t i = 0; i < n_items; i++) {
            ids[i] = entries[i].id;
            values[i] = entries[i].value;
        }
        CHECK(scio_choose_random(ids, values, n_items, k, spec->seed,
                                 scio_rng_stream(spec->epoch, (uint64_t)cell, 0x67656E6573u),
                                 scratch) == k);
        for (size_t i = 0; i < k; i++)
            entries[i] = (entry){ids[i], values[i]};
    }
    return k;
}

/* entries[N_COLS] of one row by ascending id. */
static size_t
plain_collate(const scio_collate_spec *spec, const plain_row *row, const int32_t *map, int64_t cell,
              entry *entries)
{
    double sums[N_COLS] = {0}, total = 0;
    size_t n_items = 0;

    for (size_t i = 0; i < row->n_items; i++)
        sums[row->columns[i]] += row->values[i];
    for (size_t c = 0; c < N_COLS; c++)
        total += sums[c];
    for (size_t c = 0; c < N_COLS; c++) {
        float y = (float)sums[c];

        if (spec->is_library_size && total != 0)
            y = (float)(sums[c] * (spec->target_sum / total));
        if (spec->cell_scale != NULL)
            y = (float)(sums[c] * spec->cell_scale[cell]);
        if (spec->is_log1p)
            scio_kernels_at(SCIO_CPU_BASE)->log1p_f32(&y, &y, 1);
        if (map[c] < 0 || y == 0.0f || (spec->id_mask != NULL && spec->id_mask[map[c]] == 0))
            continue;
        entries[n_items++] = (entry){map[c], y};
    }
    qsort(entries, n_items, sizeof *entries, by_id);
    return plain_select(spec, cell, entries, n_items);
}

/* --- comparing a batch with it --- */

static bool
has_value(const scio_batch *batch, size_t i, float want)
{
    const uint16_t half = scio_f32_to_f16(want);

    return batch->value_dtype == SCIO_F16
               ? ((const uint16_t *)scio_buf_data(batch->expression))[i] == half
               : memcmp((const float *)scio_buf_data(batch->expression) + i, &want, 4) == 0;
}

static int64_t
id_at(const scio_batch *batch, const scio_buf *ids, size_t i)
{
    return batch->id_dtype == SCIO_I32 ? ((const int32_t *)scio_buf_data(ids))[i]
                                       : ((const int64_t *)scio_buf_data(ids))[i];
}

static void
check_token_row(const scio_collate_spec *spec, const scio_batch *batch, size_t i,
                const entry *entries, size_t n_items)
{
    const size_t width = (size_t)batch->width, first = i * width;

    CHECK(((const int64_t *)scio_buf_data(batch->n_genes))[i] == (int64_t)n_items);
    CHECK(n_items <= width);
    for (size_t j = 0; j < width; j++) {
        CHECK(has_value(batch, first + j, j < n_items ? entries[j].value : spec->pad_value));
        CHECK(id_at(batch, batch->gene_indices, first + j) ==
              (j < n_items ? entries[j].id : spec->pad_id));
        CHECK(id_at(batch, batch->attention_mask, first + j) == (j < n_items ? 1 : 0));
    }
}

static void
check_dense_row(const scio_batch *batch, size_t i, const entry *entries, size_t n_items)
{
    const size_t width = (size_t)batch->width;
    float want[N_IDS] = {0};

    for (size_t j = 0; j < n_items; j++)
        want[entries[j].id - FIRST_ID] = entries[j].value;
    CHECK(width == N_IDS - FIRST_ID);
    for (size_t j = 0; j < width; j++)
        CHECK(has_value(batch, i * width + j, want[j]));
}

static void
check_csr_row(const scio_batch *batch, size_t i, const entry *entries, size_t n_items)
{
    const int64_t *const indptr = scio_buf_data(batch->indptr);

    CHECK(indptr[i + 1] - indptr[i] == (int64_t)n_items);
    for (size_t j = 0; j < n_items && indptr[i] + (int64_t)j < batch->nnz; j++) {
        const size_t at = (size_t)indptr[i] + j;

        CHECK(((const int32_t *)scio_buf_data(batch->gene_indices))[at] ==
              entries[j].id - FIRST_ID);
        CHECK(has_value(batch, at, entries[j].value));
    }
}

static void
check_buffers(const scio_collate_spec *spec, const scio_batch *batch, size_t n_cells)
{
    const bool is_tokens = spec->form == SCIO_FORM_TOKENS, is_csr = spec->form == SCIO_FORM_CSR;
    const scio_dtype ids = spec->id_dtype == SCIO_I32 ? SCIO_I32 : SCIO_I64;

    CHECK(batch->value_dtype == (spec->value_dtype == SCIO_F16 ? SCIO_F16 : SCIO_F32));
    CHECK(batch->id_dtype == (is_tokens ? ids : is_csr ? SCIO_I32 : SCIO_DTYPE_NONE));
    CHECK(batch->form == spec->form && batch->n_cells == (int64_t)n_cells);
    CHECK(!batch->is_padding_any && batch->is_padding == NULL);
    CHECK((batch->attention_mask != NULL) == is_tokens && (batch->n_genes != NULL) == is_tokens);
    CHECK((batch->indptr != NULL) == is_csr &&
          (batch->gene_indices != NULL) == (is_csr || is_tokens));
    CHECK(scio_buf_nbytes(batch->index) == n_cells * sizeof(int64_t));
    CHECK(scio_buf_nbytes(batch->expression) ==
          (is_csr ? (size_t)batch->nnz : n_cells * (size_t)batch->width) *
              scio_dtype_itemsize(batch->value_dtype));
    if (is_csr)
        CHECK(scio_buf_nbytes(batch->gene_indices) == (size_t)batch->nnz * sizeof(int32_t));
    if (is_tokens) {
        const size_t nbytes = n_cells * (size_t)batch->width * scio_dtype_itemsize(ids);

        CHECK(scio_buf_nbytes(batch->gene_indices) == nbytes);
        CHECK(scio_buf_nbytes(batch->attention_mask) == nbytes);
    }
    CHECK(scio_buf_n_refs(batch->expression) == 1);
}

static void
check_batch(const scio_collate_spec *spec, const plain_row *plain, const int32_t *map,
            const scio_row *rows, size_t n_cells, const scio_batch *batch)
{
    size_t most = 0;

    check_buffers(spec, batch, n_cells);
    for (size_t i = 0; i < n_cells; i++) {
        entry entries[N_COLS];
        const size_t n_items = plain_collate(spec, &plain[i], map, rows[i].cell, entries);

        most = n_items > most ? n_items : most;
        CHECK(((const int64_t *)scio_buf_data(batch->index))[i] == rows[i].cell);
        if (spec->form == SCIO_FORM_TOKENS)
            check_token_row(spec, batch, i, entries, n_items);
        else if (spec->form == SCIO_FORM_DENSE)
            check_dense_row(batch, i, entries, n_items);
        else
            check_csr_row(batch, i, entries, n_items);
    }
    if (spec->form == SCIO_FORM_TOKENS)
        CHECK(batch->width == (spec->max_genes > 0 ? spec->max_genes : (int64_t)most));
}

/* --- the same rows in many presentations --- */

static const presentation small_counts[] = {
    {"u16 f32", SCIO_U16, SCIO_F32, .is_fast = true},
    {"u16 u8", SCIO_U16, SCIO_U8, .is_fast = true},
    {"u32 u16", SCIO_U32, SCIO_U16, .is_fast = true},
    {"i32 i32", SCIO_I32, SCIO_I32, .is_fast = true},
    {"i64 f64", SCIO_I64, SCIO_F64, .is_fast = true},
    {"u64 u64", SCIO_U64, SCIO_U64, .is_fast = true},
    {"i16 i64", SCIO_I16, SCIO_I64, .is_fast = true},
    {"u8 u32", SCIO_U8, SCIO_U32, .is_fast = true},
    {"i16 i16", SCIO_I16, SCIO_I16, .is_fast = true},
    {"u8 i8", SCIO_U8, SCIO_I8, .is_fast = true},
    {"u16 f16", SCIO_U16, SCIO_F16, .is_fast = true},
    {"dense f32", SCIO_DTYPE_NONE, SCIO_F32, .is_fast = true},
    {"dense u8", SCIO_DTYPE_NONE, SCIO_U8, .is_fast = true},
    {"dense f64", SCIO_DTYPE_NONE, SCIO_F64, .is_fast = true},
    {"u16 f32 shuffled", SCIO_U16, SCIO_F32, .is_shuffled = true},
    {"i32 u8 shuffled", SCIO_I32, SCIO_U8, .is_shuffled = true},
    {"u16 f32 split", SCIO_U16, SCIO_F32, .is_split = true},
    {"i64 i32 split, shuffled", SCIO_I64, SCIO_I32, .is_split = true, .is_shuffled = true},
    {"u16 f32 with zeros", SCIO_U16, SCIO_F32, .has_zeros = true, .is_shuffled = true},
    {"i32 f64 unaligned", SCIO_I32, SCIO_F64, .is_unaligned = true},
    {"u16 f32 unaligned", SCIO_U16, SCIO_F32, .is_unaligned = true},
    {"u16 f32, unordered map", SCIO_U16, SCIO_F32, .is_map_declared_unordered = true},
};

static const presentation eighths[] = {
    {"u16 f32", SCIO_U16, SCIO_F32, .is_fast = false},
    {"u16 f64", SCIO_U16, SCIO_F64, .is_fast = false},
    {"u16 f16", SCIO_U16, SCIO_F16, .is_fast = false},
    {"dense f64", SCIO_DTYPE_NONE, SCIO_F64, .is_fast = false},
    {"u32 f32 shuffled", SCIO_U32, SCIO_F32, .is_shuffled = true},
    {"i64 f64 split, with zeros", SCIO_I64, SCIO_F64, .is_split = true, .has_zeros = true,
     .is_shuffled = true},
};

static const presentation medium_counts[] = {
    {"u16 i32", SCIO_U16, SCIO_I32, .is_fast = false},
    {"u16 u32", SCIO_U16, SCIO_U32, .is_fast = false},
    {"dense i32", SCIO_DTYPE_NONE, SCIO_I32, .is_fast = false},
};

static const presentation large_counts[] = {
    {"u16 f64", SCIO_U16, SCIO_F64, .is_fast = false},
    {"u16 i64", SCIO_U16, SCIO_I64, .is_fast = false},
    {"u32 u64", SCIO_U32, SCIO_U64, .is_fast = false},
    {"dense i64", SCIO_DTYPE_NONE, SCIO_I64, .is_fast = false},
    {"i32 i64 split, shuffled", SCIO_I32, SCIO_I64, .is_split = true, .is_shuffled = true},
    {"i32 u64 unaligned", SCIO_I32, SCIO_U64, .is_unaligned = true},
};

static void
check_one(const scio_collate_spec *spec, const presentation *as, const plain_row *plain,
          size_t n_cells, int map_kind, scio_collate_scratch *scratch)
{
    static stored_rows stored;
    const int64_t n_fast = scio_stats_get(SCIO_STAT_fast_rows);
    const int64_t n_general = scio_stats_get(SCIO_STAT_general_rows);
    const bool needs_order = spec->form != SCIO_FORM_DENSE || spec->max_genes > 0;
    scio_error err = SCIO_ERROR_INIT;
    scio_batch batch;
    int64_t n_fast_now;
    int32_t map[N_COLS];
    const bool is_map_increasing = make_map(map_kind, map);

    store_rows(as, plain, n_cells, map, is_map_increasing, &stored);
    if (map_kind == IDENTITY_MAP)
        declare_identity(&stored, n_cells);
    if (scio_collate(spec, stored.rows, n_cells, scratch, &batch, &err) != SCIO_OK) {
        printf("%s: %s\n", as->name, err.message);
        CHECK(err.code == SCIO_OK);
        stored_free(&stored);
        return;
    }
    check_batch(spec, plain, map, stored.rows, n_cells, &batch);
    n_fast_now = scio_stats_get(SCIO_STAT_fast_rows) - n_fast;
    CHECK(n_fast_now + scio_stats_get(SCIO_STAT_general_rows) - n_general == (int64_t)n_cells);
    if (as->is_fast && (is_map_increasing || !needs_order) && plain[1].values[0] >= 0 &&
        !(spec->is_library_size && scio_dtype_kind(as->value_dtype) == 'f' &&
          as->index_dtype != SCIO_DTYPE_NONE)) /* made rows may hold zeros */
        CHECK(n_fast_now == (int64_t)n_cells);
    scio_batch_clear(&batch);
    stored_free(&stored);
}

/* Every form, selection and processing. */
static void
check_all_specs(const presentation *as, const plain_row *plain, size_t n_cells)
{
    static uint8_t id_mask[N_IDS];
    static double cell_scale[1000 + 3 * MOST_CELLS];
    static const scio_dtype value_dtypes[] = {SCIO_DTYPE_NONE, SCIO_F32, SCIO_F16, SCIO_F16};
    static const scio_dtype id_dtypes[] = {SCIO_DTYPE_NONE, SCIO_I64, SCIO_I32};
    const int64_t limits[] = {0, 1, 7, 60, 300};
    scio_collate_scratch *scratch = NULL;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    for (size_t i = 0; i < N_IDS; i++)
        id_mask[i] = i % 4 != 0;
    for (size_t i = 1000; i < 1000 + 3 * MOST_CELLS; i++)
        cell_scale[i] = 1.0 / (0.3 + (double)(i % 11) / 7);
    for (uint64_t k = 0; k < 3 * 3 * 5 * 4 * 3; k++) {
        const uint64_t r = random_at(60, k);
        const scio_collate_spec spec = {.form = (scio_form)(k / 3 % 3),
                                        .n_ids = N_IDS,
                                        .first_id = FIRST_ID,
                                        .max_genes = limits[k / 9 % 5],
                                        .is_library_size = k / 45 % 2 != 0,
                                        .is_log1p = k / 90 % 2 != 0,
                                        .id_mask = k % 5 == 0 ? id_mask : NULL,
                                        .select = (scio_select)(k / 180 % 3),
                                        .target_sum = 1e4,
                                        .cell_scale =
                                            k / 45 % 2 == 0 && r / 5 % 2 == 0 ? cell_scale : NULL,
                                        .n_cell_scale = 1000 + 3 * MOST_CELLS,
                                        .seed = 3,
                                        .epoch = 8,
                                        .pad_id = 1,
                                        .pad_value = -2.5f,
                                        .value_dtype = value_dtypes[r % 4],
                                        .id_dtype = id_dtypes[r / 4 % 3]};

        check_one(&spec, as, plain, n_cells, (int)((k + r / 12) % N_MAP_KINDS), scratch);
    }
    scio_collate_scratch_free(scratch);
}

static void
check_presentations(const presentation *list, size_t n_items, value_kind kind)
{
    static plain_row plain[MOST_CELLS];

    make_rows(plain, 12, kind, 100);
    for (size_t i = 0; i < n_items; i++) {
        const bool had_failed = test_has_failed;

        test_has_failed = false;
        check_all_specs(&list[i], plain, 12);
        if (test_has_failed)
            printf("in \"%s\"\n", list[i].name);
        test_has_failed = test_has_failed || had_failed;
    }
}

TEST(small_counts_give_the_same_batch_in_every_presentation)
{
    check_presentations(small_counts, sizeof small_counts / sizeof *small_counts, SMALL_COUNTS);
}

TEST(fractions_and_negative_values_give_the_same_batch_in_every_presentation)
{
    check_presentations(eighths, sizeof eighths / sizeof *eighths, EIGHTHS);
}

TEST(counts_beyond_float32_are_scaled_from_their_exact_values)
{
    check_presentations(medium_counts, sizeof medium_counts / sizeof *medium_counts, MEDIUM_COUNTS);
    check_presentations(large_counts, sizeof large_counts / sizeof *large_counts, LARGE_COUNTS);
}

/* --- totals that a double sum in any order would miss --- */

static float
one_scaled(const scio_row *row, double target_sum)
{
    const scio_collate_spec spec = {
        .form = SCIO_FORM_CSR, .n_ids = 10, .is_library_size = true, .target_sum = target_sum};
    scio_collate_scratch *scratch = NULL;
    scio_batch batch;
    float value = NAN;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(&spec, row, 1, scratch, &batch, NULL) == SCIO_OK);
    if (batch.nnz > 0)
        value = ((const float *)scio_buf_data(batch.expression))[0];
    scio_batch_clear(&batch);
    scio_collate_scratch_free(scratch);
    return value;
}

TEST(totals_of_64_bit_integers_are_exact_and_do_not_overflow)
{
    const int32_t map[4] = {0, 1, 2, 3};
    const uint16_t columns[4] = {0, 1, 2, 3};
    const uint64_t large[4] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    /* the large ones cancel; double would lose the 1 and the 2 */
    const int64_t mixed[4] = {1, INT64_MAX, -INT64_MAX, 2};
    scio_row row = {columns, SCIO_U16, large, SCIO_U64, 4, map, true, 0, false, 0};

    CHECK(one_scaled(&row, 8.0) == 2.0f);
    row.values = mixed;
    row.value_dtype = SCIO_I64;
    CHECK(one_scaled(&row, 9.0) == 3.0f);
}

TEST(the_total_is_over_all_stored_genes_also_those_that_are_not_mapped)
{
    const int32_t map[4] = {0, -1, -1, -1};
    const uint16_t columns[4] = {0, 1, 2, 3};
    const uint8_t values[4] = {2, 3, 4, 1};
    const scio_row row = {columns, SCIO_U16, values, SCIO_U8, 4, map, true, 0, false, 0};

    CHECK(one_scaled(&row, 100.0) == 20.0f);
}

TEST(a_total_of_zero_leaves_the_row)
{
    const int32_t map[4] = {0, 1, 2, 3};
    const uint16_t columns[2] = {1, 3};
    const float values[2] = {-2.5f, 2.5f};
    const scio_row row = {columns, SCIO_U16, values, SCIO_F32, 2, map, true, 0, false, 0};

    CHECK(one_scaled(&row, 100.0) == -2.5f);
}

/* Float totals have fixed lanes: stored zeros and order must not shift them. */
TEST(totals_of_fractions_do_not_depend_on_how_the_row_is_stored)
{
    enum { N = 60 };
    int32_t map[2 * N];
    uint16_t columns[2 * N], reversed_columns[N];
    float values[2 * N], reversed[N], dense[2 * N];
    scio_row row = {columns, SCIO_U16, values, SCIO_F32, N, map, true, 0, false, 0};
    float expected;

    for (int i = 0; i < 2 * N; i++) {
        map[i] = i == 0 ? 0 : -1;
        columns[i] = (uint16_t)(2 * i);
        values[i] = dense[i] = 0.0f;
    }
    for (int i = 0; i < N; i++) {
        /* two large ones cancel and take with them what their lanes hold: the sum tells the lanes
         */
        const float x = i == 1 ? 0x1p70f : i == N - 1 ? -0x1p70f : 1.0f + 0.1f * (float)i;

        reversed[N - 1 - i] = dense[2 * i] = values[i] = x;
        reversed_columns[N - 1 - i] = columns[i];
    }
    expected = one_scaled(&row, 12345.678);
    CHECK(expected > 0);
    row.indices = reversed_columns;
    row.values = reversed;
    CHECK(one_scaled(&row, 12345.678) == expected);
    row.indices = NULL;
    row.values = dense;
    row.n_items = 2 * N;
    CHECK(one_scaled(&row, 12345.678) == expected);
    for (int i = 0; i < 2 * N; i++)
        columns[i] = (uint16_t)i; /* all stored, every second one a zero */
    row.indices = columns;
    CHECK(one_scaled(&row, 12345.678) == expected);
}

/* --- values --- */

TEST(nan_infinity_and_negative_values_stay_zeros_and_cancelled_duplicates_go)
{
    const int32_t map[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    const int32_t columns[9] = {0, 1, 2, 3, 4, 5, 6, 7, 7};
    const float values[9] = {0.0f, NAN, -1.0f, INFINITY, -0.0f, 2.0f, 1e-45f, 3.0f, -3.0f};
    const scio_row row = {columns, SCIO_I32, values, SCIO_F32, 9, map, true, 5, false, 0};
    const scio_collate_spec spec = {.form = SCIO_FORM_CSR, .n_ids = 10};
    scio_collate_scratch *scratch = NULL;
    scio_batch batch;
    const int32_t *ids;
    const float *x;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(&spec, &row, 1, scratch, &batch, NULL) == SCIO_OK);
    ids = scio_buf_data(batch.gene_indices);
    x = scio_buf_data(batch.expression);
    CHECK(batch.nnz == 5);
    CHECK(ids[0] == 1 && ids[1] == 2 && ids[2] == 3 && ids[3] == 5 && ids[4] == 6);
    CHECK(x[0] != x[0] && x[1] == -1.0f && x[2] == INFINITY && x[3] == 2.0f && x[4] == 1e-45f);
    scio_batch_clear(&batch);
    scio_collate_scratch_free(scratch);
}

TEST(float16_is_the_float32_result_rounded_once_more)
{
    /* ties to even, the greatest half and what is beyond, the least, NaN */
    const float values[9] = {1.0f + 0x1p-11f, 1.0f + 0x3p-11f, 65519.0f, 65520.0f, -1e9f,
                             0x1p-24f,        0x1p-25f,        NAN,      3.0f};
    const uint16_t halves[9] = {0x3C00, 0x3C02, 0x7BFF, 0x7C00, 0xFC00, 0x0001, 0, 0x7E00, 0x4200};
    const uint16_t columns[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    const scio_row row = {.indices = columns,
                          .index_dtype = SCIO_U16,
                          .values = values,
                          .value_dtype = SCIO_F32,
                          .n_items = 9,
                          .is_map_identity = true};
    scio_collate_scratch *scratch = NULL;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    for (int form = 0; form < 3; form++) {
        const scio_collate_spec spec = {
            .form = (scio_form)form, .n_ids = 9, .value_dtype = SCIO_F16, .id_dtype = SCIO_I32};
        scio_batch batch;

        CHECK(scio_collate(&spec, &row, 1, scratch, &batch, NULL) == SCIO_OK);
        CHECK(scio_buf_nbytes(batch.expression) == sizeof halves);
        CHECK(memcmp(scio_buf_data(batch.expression), halves, sizeof halves) == 0);
        scio_batch_clear(&batch);
    }
    scio_collate_scratch_free(scratch);
}

/* Rows long enough for every vector width, with the bad id at each place. */
TEST(an_id_out_of_range_is_found_wherever_it_is)
{
    enum { N_ITEMS = 70 };
    uint16_t columns[N_ITEMS];
    uint8_t values[N_ITEMS];
    int32_t map[N_ITEMS];
    scio_row row = {columns, SCIO_U16, values, SCIO_U8, N_ITEMS, map, true, 0, false, 0};
    const scio_collate_spec spec = {.form = SCIO_FORM_DENSE, .n_ids = 100, .first_id = 4};
    scio_collate_scratch *scratch = NULL;
    scio_batch batch;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    for (int i = 0; i < N_ITEMS; i++) {
        columns[i] = (uint16_t)i;
        values[i] = 1;
    }
    for (int bad = 0; bad < N_ITEMS; bad++) {
        scio_error err = SCIO_ERROR_INIT;

        for (int i = 0; i < N_ITEMS; i++)
            map[i] = i == bad ? (bad % 2 == 0 ? 100 : 3) : 4 + i;
        CHECK(scio_collate(&spec, &row, 1, scratch, &batch, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, bad % 2 == 0 ? "to id 100, not in [4, 100)" : "to id 3, not");
    }
    row.is_map_identity = true;
    for (int first = -80; first < 120; first++) {
        scio_error err = SCIO_ERROR_INIT;
        const bool is_legal = first >= 4 && first + N_ITEMS <= 100;

        row.map_first = first;
        CHECK(scio_collate(&spec, &row, 1, scratch, &batch, &err) ==
              (is_legal ? SCIO_OK : SCIO_EINVAL));
        if (is_legal)
            scio_batch_clear(&batch);
        else
            CHECK_STR(err.message, "a map sends a column to id");
    }
    scio_collate_scratch_free(scratch);
}

TEST(identity_of_columns_beyond_int32_is_refused_and_does_not_wrap)
{
    const uint32_t columns[2] = {0, UINT32_MAX};
    const float values[2] = {1, 2};
    const scio_row row = {columns, SCIO_U32, values, SCIO_F32, 2, NULL, true, 0, true, 5};
    const scio_collate_spec spec = {.form = SCIO_FORM_CSR, .n_ids = 10};
    scio_collate_scratch *scratch = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_batch batch;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(&spec, &row, 1, scratch, &batch, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "to id 4294967300");
    scio_collate_scratch_free(scratch);
}

TEST(a_boolean_is_one_whatever_byte_it_is_stored_as)
{
    const int32_t map[4] = {0, 1, 2, 3};
    const uint16_t columns[3] = {0, 1, 3}, shuffled[3] = {3, 1, 0};
    const uint8_t values[3] = {255, 1, 2};
    scio_row row = {columns, SCIO_U16, values, SCIO_BOOL, 3, map, true, 0, false, 0};

    CHECK(one_scaled(&row, 6.0) == 2.0f);
    row.indices = shuffled;
    CHECK(one_scaled(&row, 6.0) == 2.0f);
}

TEST(a_value_that_scaling_takes_to_zero_is_not_expressed)
{
    const int32_t map[2] = {0, 1};
    const uint16_t columns[2] = {0, 1};
    const float values[2] = {1e-45f, 1.0f};
    const scio_row row = {columns, SCIO_U16, values, SCIO_F32, 2, map, true, 5, false, 0};
    const scio_collate_spec spec = {
        .form = SCIO_FORM_TOKENS, .n_ids = 10, .is_library_size = true, .target_sum = 0.125};
    scio_collate_scratch *scratch = NULL;
    scio_batch batch;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(&spec, &row, 1, scratch, &batch, NULL) == SCIO_OK);
    CHECK(batch.width == 1 && ((const int64_t *)scio_buf_data(batch.gene_indices))[0] == 1);
    scio_batch_clear(&batch);
    scio_collate_scratch_free(scratch);
}

/* --- edges --- */

TEST(batches_of_nothing)
{
    const int32_t map[1] = {0};
    const scio_row row = {map, SCIO_U16, map, SCIO_F32, 0, map, true, 9, false, 0};
    scio_collate_scratch *scratch = NULL;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    for (int form = 0; form < 3; form++) {
        for (size_t n_cells = 0; n_cells < 2; n_cells++) {
            const scio_collate_spec spec = {.form = (scio_form)form, .n_ids = 7, .first_id = 7};
            scio_batch batch;

            CHECK(scio_collate(&spec, &row, n_cells, scratch, &batch, NULL) == SCIO_OK);
            CHECK(batch.n_cells == (int64_t)n_cells && batch.width == 0 && batch.nnz == 0);
            if (form == SCIO_FORM_CSR)
                CHECK(((const int64_t *)scio_buf_data(batch.indptr))[n_cells] == 0);
            scio_batch_clear(&batch);
        }
    }
    scio_collate_scratch_free(scratch);
}

TEST(tokens_are_as_wide_as_max_genes_even_when_no_cell_has_so_many)
{
    static plain_row plain[MOST_CELLS];
    int32_t map[N_COLS];
    stored_rows stored;
    const scio_collate_spec spec = {
        .form = SCIO_FORM_TOKENS, .n_ids = N_IDS, .max_genes = 500, .pad_id = 2};
    scio_collate_scratch *scratch = NULL;
    scio_batch batch;

    make_rows(plain, 5, SMALL_COUNTS, 7);
    make_map(0, map);
    store_rows(&small_counts[0], plain, 5, map, true, &stored);
    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(&spec, stored.rows, 5, scratch, &batch, NULL) == SCIO_OK);
    CHECK(batch.width == 500);
    CHECK(((const int64_t *)scio_buf_data(batch.gene_indices))[499] == 2);
    CHECK(scio_batch_nbytes(&batch) == 5 * 500 * 20 + 2 * 5 * 8);
    scio_batch_clear(&batch);
    CHECK(scio_batch_nbytes(&batch) == 0);
    scio_collate_scratch_free(scratch);
    stored_free(&stored);
}

TEST(a_map_that_leaves_most_out_gives_buffers_of_the_size_of_what_is_left)
{
    /* both ways of cutting: much is unused, little is unused */
    for (int32_t n_mapped = 1; n_mapped < 100; n_mapped += 49) {
        int32_t map[100];
        uint16_t columns[100];
        float values[100];
        const scio_row row = {columns, SCIO_U16, values, SCIO_F32, 100, map, true, 0, false, 0};
        const scio_collate_spec spec = {.form = SCIO_FORM_CSR, .n_ids = 100};
        const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
        scio_collate_scratch *scratch = NULL;
        scio_batch batch;

        for (int i = 0; i < 100; i++) {
            map[i] = i < n_mapped ? i : -1;
            columns[i] = (uint16_t)i;
            values[i] = (float)(i + 1);
        }
        CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
        CHECK(scio_collate(&spec, &row, 1, scratch, &batch, NULL) == SCIO_OK);
        CHECK(batch.nnz == n_mapped);
        CHECK(scio_buf_nbytes(batch.expression) == (size_t)n_mapped * 4);
        CHECK(scio_buf_nbytes(batch.gene_indices) == (size_t)n_mapped * 4);
        for (int i = 0; i < n_mapped; i++)
            CHECK(((const float *)scio_buf_data(batch.expression))[i] == (float)(i + 1));
        scio_batch_clear(&batch);
        scio_collate_scratch_free(scratch);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
    }
}

/* --- refusals --- */

static void
check_refused(const scio_collate_spec *spec, const scio_row *row, scio_status status,
              const char *message)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    scio_collate_scratch *scratch = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_batch batch;

    CHECK(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_collate(spec, row, 1, scratch, &batch, &err) == status);
    CHECK_STR(err.message, message);
    CHECK(batch.expression == NULL && batch.index == NULL);
    scio_collate_scratch_free(scratch);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}

TEST(what_cannot_be_is_refused_with_the_numbers)
{
    const int32_t map[2] = {3, 12};
    const uint16_t columns[2] = {0, 1};
    const int64_t beyond[1] = {INT64_C(1) << 33};
    const float values[2] = {1, 2};
    scio_row row = {columns, SCIO_U16, values, SCIO_F32, 2, map, true, 41, false, 0};
    scio_collate_spec spec = {.form = SCIO_FORM_DENSE, .n_ids = 12, .first_id = 2};

    check_refused(&spec, &row, SCIO_EINVAL, "a map sends a column to id 12, not in [2, 12)");
    spec.n_ids = 13;
    spec.first_id = 4;
    check_refused(&spec, &row, SCIO_EINVAL, "a map sends a column to id 3, not in [4, 13)");
    spec.form = SCIO_FORM_CSR;
    check_refused(&spec, &row, SCIO_EINVAL, "a map sends a column to id 3, not in [4, 13)");
    spec.first_id = 14;
    check_refused(&spec, &row, SCIO_EINVAL, "first_id is 14 and n_ids 13");
    spec.first_id = -1;
    check_refused(&spec, &row, SCIO_EINVAL, "first_id is -1");
    spec.first_id = 0;
    spec.n_ids = INT64_C(1) << 31;
    check_refused(&spec, &row, SCIO_EINVAL, "n_ids 2147483648");
    spec.n_ids = 13;
    spec.max_genes = -3;
    check_refused(&spec, &row, SCIO_EINVAL, "max_genes is -3");
    spec.max_genes = 0;
    spec.value_dtype = SCIO_F64;
    check_refused(&spec, &row, SCIO_EINVAL, "value_dtype is float64, expected float32 or float16");
    spec.value_dtype = SCIO_F16;
    spec.id_dtype = SCIO_U32;
    check_refused(&spec, &row, SCIO_EINVAL, "id_dtype is uint32, expected int64 or int32");
    spec.id_dtype = SCIO_I32;
    spec.pad_id = INT64_C(1) << 31;
    check_refused(&spec, &row, SCIO_EINVAL, "pad_id is 2147483648, which int32 cannot hold");
    spec.id_dtype = spec.value_dtype = SCIO_DTYPE_NONE;
    row.indices = beyond;
    row.index_dtype = SCIO_I64;
    row.n_items = 1;
    check_refused(&spec, &row, SCIO_ERANGE, "");
    row.n_items = ((size_t)1 << 29) + 1;
    check_refused(&spec, &row, SCIO_EUNSUPPORTED, "cell 41 has 536870913 stored values");
    row.n_items = 1;
    row.indices = columns;
    row.index_dtype = SCIO_U16;
    spec.form = SCIO_FORM_TOKENS;
    spec.max_genes = INT64_MAX;
    check_refused(&spec, &row, SCIO_ENOMEM, "a batch of 1 x 9223372036854775807 items of 4 bytes");
}

TEST(the_factor_of_a_cell_must_be_there_and_be_one)
{
    const int32_t map[2] = {0, 1};
    const uint16_t columns[2] = {0, 1};
    const float values[2] = {1, 2};
    double factors[5] = {1, 1, 1, 1, 0};
    const scio_row row = {columns, SCIO_U16, values, SCIO_F32, 2, map, true, 4, false, 0};
    scio_collate_spec spec = {
        .form = SCIO_FORM_CSR, .n_ids = 10, .cell_scale = factors, .n_cell_scale = 4};

    check_refused(&spec, &row, SCIO_EINVAL, "cell_scale has 4 entries, none for cell 4");
    spec.n_cell_scale = 5;
    check_refused(&spec, &row, SCIO_EINVAL, "cell_scale[4] is 0, expected a finite number above 0");
    factors[4] = (double)NAN;
    check_refused(&spec, &row, SCIO_EINVAL, "cell_scale[4] is nan");
    factors[4] = (double)INFINITY;
    check_refused(&spec, &row, SCIO_EINVAL, "cell_scale[4] is inf");
    spec.is_library_size = true;
    check_refused(&spec, &row, SCIO_EINVAL, "cell_scale and library_size exclude each other");
}

TEST(every_allocation_may_fail_and_the_scratch_is_good_afterwards)
{
    static plain_row plain[MOST_CELLS];
    int32_t map[N_COLS];
    stored_rows stored;

    make_rows(plain, 6, SMALL_COUNTS, 7);
    make_map(1, map);
    store_rows(&small_counts[0], plain, 6, map, true, &stored);
    for (int kind = 0; kind < 8; kind++) {
        const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
        const scio_collate_spec spec = {.form = (scio_form)(kind % 4 % 3),
                                        .n_ids = N_IDS,
                                        .first_id = FIRST_ID,
                                        .max_genes = kind % 4 == 3 ? 9 : 0,
                                        .value_dtype = kind < 4 ? SCIO_F32 : SCIO_F16,
                                        .id_dtype = kind < 4 ? SCIO_I64 : SCIO_I32};
        scio_status status;
        size_t k = 0;

        do {
            scio_collate_scratch *scratch = NULL;
            scio_batch batch;

            scio_mem_fail_at(k++);
            status = scio_collate_scratch_new(&scratch, NULL);
            if (status == SCIO_OK)
                status = scio_collate(&spec, stored.rows, 6, scratch, &batch, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            if (scratch != NULL) {
                if (status == SCIO_OK)
                    scio_batch_clear(&batch);
                CHECK(scio_collate(&spec, stored.rows, 6, scratch, &batch, NULL) == SCIO_OK);
                check_batch(&spec, plain, map, stored.rows, 6, &batch);
                scio_batch_clear(&batch);
            }
            scio_collate_scratch_free(scratch);
            CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
        } while (status != SCIO_OK);
        CHECK(k > 8);
    }
    stored_free(&stored);
    scio_collate_scratch_free(NULL);
}
