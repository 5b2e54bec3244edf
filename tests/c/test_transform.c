/* Totals, transforms, scaling and column sums against plain loops; threads; every allocation fails.
 */
#include "test.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "preprocess/log1p_f64.h"
#include "preprocess/scale.h"
#include "preprocess/transform.h"

#include <math.h>

enum { N_ROWS = 9000, N_COLS = 40, MOST = N_ROWS * N_COLS };

/* A matrix whose row r has r % 11 entries, increasing columns. */
typedef struct matrix {
    float data[MOST];
    int32_t indices[MOST];
    int64_t indptr[N_ROWS + 1];
    scio_csr_view view;
} matrix;

static void
fill(matrix *m, float factor)
{
    int64_t nnz = 0;

    m->indptr[0] = 0;
    for (int64_t r = 0; r < N_ROWS; r++) {
        for (int32_t i = 0; i < (int32_t)(r % 11); i++) {
            m->indices[nnz] = i * 3 + (int32_t)(r % 5);
            m->data[nnz] = (float)(scio_rng_u64(1, 2, (uint64_t)nnz) % 50) * factor;
            if (factor != 1 && nnz % 3 == 0)
                m->data[nnz] *= 1e-12f; /* so that sums depend on their order */
            nnz++;
        }
        m->indptr[r + 1] = nnz;
    }
    m->view = (scio_csr_view){.n_rows = N_ROWS,
                              .n_cols = N_COLS,
                              .nnz = nnz,
                              .indptr = m->indptr,
                              .indices = m->indices,
                              .index_dtype = SCIO_I32,
                              .data = m->data,
                              .data_dtype = SCIO_F32};
}

static matrix *
new_matrix(float factor)
{
    matrix *m = NULL;

    if (scio_mem_alloc(1, sizeof *m, &m, NULL) != SCIO_OK)
        abort();
    fill(m, factor);
    return m;
}

TEST(totals_of_counts_are_their_sums)
{
    matrix *const m = new_matrix(1);
    static double totals[N_ROWS];
    static int64_t n_positive[N_ROWS];
    scio_value_facts facts;

    CHECK(scio_row_totals(&m->view, NULL, 3, NULL, totals, n_positive, &facts, NULL) == SCIO_OK);
    for (int64_t r = 0; r < N_ROWS; r++) {
        double sum = 0;
        int64_t n = 0;

        for (int64_t i = m->indptr[r]; i < m->indptr[r + 1]; i++) {
            sum += (double)m->data[i];
            n += m->data[i] > 0;
        }
        CHECK(totals[r] == sum && n_positive[r] == n);
    }
    CHECK(facts.is_canonical && !facts.has_duplicates && facts.n_fractions == 0);
    CHECK(facts.first_fraction == -1 && facts.maximum == 49);
    scio_mem_free(m);
}

TEST(counts_are_told_from_other_numbers_at_every_level)
{
    const float others[] = {0.5f, -1.0f, -0.0f, (float)NAN, HUGE_VALF, 0x1p31f, 1e-40f};
    static float x[2500];

    for (int level = 0; level <= (int)scio_cpu(); level++) {
        const scio_kernels_table *const kernels = scio_kernels_at((scio_cpu_level)level);
        uint32_t maximum = 9, n_positive = 9;

        for (size_t i = 0; i < 2500; i++)
            x[i] = (float)(i % 7);
        x[1300] = 2147483520.0f;
        for (size_t n_items = 0; n_items < 2500; n_items += 113) {
            CHECK(kernels->are_counts_f32(x, n_items, &maximum, &n_positive));
            CHECK(n_positive == n_items - (n_items + 6) / 7 || n_items > 1300);
            CHECK(maximum == (n_items > 1300 ? 2147483520u : n_items > 6 ? 6u : 0u));
        }
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            x[1111] = others[i];
            CHECK(!kernels->are_counts_f32(x, 2500, &maximum, &n_positive));
            CHECK(kernels->are_counts_f32(x, 1111, &maximum, &n_positive));
        }
    }
}

TEST(facts_name_the_first_of_each_kind)
{
    matrix *const m = new_matrix(1);
    static double totals[N_ROWS];
    scio_value_facts facts;

    m->data[700] = 0.5f;
    m->data[701] = 1.5f;
    m->data[650] = -2.0f;
    m->data[9000] = (float)NAN;
    m->data[9001] = HUGE_VALF;
    m->data[20] = 1e10f; /* an integer beyond the quick loop */
    CHECK(scio_row_totals(&m->view, NULL, 2, NULL, totals, NULL, &facts, NULL) == SCIO_OK);
    CHECK(facts.first_fraction == 700 && facts.n_fractions == 2);
    CHECK(facts.first_negative == 650 && facts.first_infinite == 9000);
    CHECK(facts.maximum == 1e10);
    scio_mem_free(m);
}

TEST(duplicates_are_seen_and_count_once)
{
    const float data[] = {1, 2, 3, 4};
    const int32_t indices[] = {2, 2, 1, 0};
    const int64_t indptr[] = {0, 2, 4};
    const scio_csr_view view = {.n_rows = 2,
                                .n_cols = 3,
                                .nnz = 4,
                                .indptr = indptr,
                                .indices = indices,
                                .index_dtype = SCIO_I32,
                                .data = data,
                                .data_dtype = SCIO_F32};
    const uint8_t left_out[] = {0, 0, 1};
    double totals[2];
    int64_t n_positive[2];
    scio_value_facts facts;

    CHECK(scio_row_totals(&view, NULL, 1, NULL, totals, n_positive, &facts, NULL) == SCIO_OK);
    CHECK(totals[0] == 3 && totals[1] == 7 && n_positive[0] == 1 && n_positive[1] == 2);
    CHECK(!facts.is_canonical && facts.has_duplicates);
    CHECK(scio_row_totals(&view, left_out, 1, NULL, totals, n_positive, &facts, NULL) == SCIO_OK);
    CHECK(totals[0] == 0 && totals[1] == 7 && n_positive[0] == 0);
}

TEST(indices_out_of_range_are_corrupt)
{
    const float data[] = {1};
    int32_t indices[] = {3};
    const int64_t indptr[] = {0, 1};
    const scio_csr_view view = {.n_rows = 1,
                                .n_cols = 3,
                                .nnz = 1,
                                .indptr = indptr,
                                .indices = indices,
                                .index_dtype = SCIO_I32,
                                .data = data,
                                .data_dtype = SCIO_F32};
    const double ones[] = {1, 1, 1};
    const scio_scaling scaling = {.std = ones, .max_value = HUGE_VAL};
    double totals[1], sums[3];
    float out[1];
    uint8_t is_high[3];
    bool is_canonical;
    scio_value_facts facts;

    for (int i = 0; i < 2; i++) {
        CHECK(scio_row_totals(&view, NULL, 1, NULL, totals, NULL, &facts, NULL) == SCIO_ECORRUPT);
        totals[0] = 1;
        CHECK(scio_high_columns(&view, totals, 0.1, 1, NULL, is_high, NULL) == SCIO_ECORRUPT);
        CHECK(scio_scale_values(&view, &scaling, 1, NULL, SCIO_F32, out, NULL) == SCIO_ECORRUPT);
        CHECK(scio_column_sums(&view, 1, NULL, NULL, sums, &is_canonical, NULL) == SCIO_ECORRUPT);
        indices[0] = -1;
    }
}

TEST(transforms_equal_the_kernels_for_every_number_of_threads)
{
    matrix *const m = new_matrix(0.7f);
    static double totals[N_ROWS];
    static float expected[MOST], out[MOST];
    scio_value_facts facts;
    scio_value_transform transform = {.totals = totals, .target = 1e4, .is_log1p = true};

    CHECK(scio_row_totals(&m->view, NULL, 0, NULL, totals, NULL, &facts, NULL) == SCIO_OK);
    for (int64_t r = 0; r < N_ROWS; r++) {
        for (int64_t i = m->indptr[r]; i < m->indptr[r + 1]; i++)
            expected[i] =
                totals[r] == 0 ? m->data[i] : (float)((double)m->data[i] * (1e4 / totals[r]));
    }
    scio_kernels()->log1p_f32(expected, expected, (size_t)m->view.nnz);
    for (size_t n_threads = 0; n_threads < 8; n_threads += 3) {
        memset(out, 0xFF, sizeof out);
        CHECK(scio_transform_values(&m->view, &transform, n_threads, NULL, SCIO_F32, out, NULL) ==
              SCIO_OK);
        CHECK(memcmp(out, expected, (size_t)m->view.nnz * sizeof *out) == 0);
    }
    transform = (scio_value_transform){.is_log1p = true, .log_base = scio_log_of_base(2)};
    CHECK(scio_transform_values(&m->view, &transform, 2, NULL, SCIO_F32, out, NULL) == SCIO_OK);
    for (int64_t i = 0; i < m->view.nnz; i++)
        CHECK(out[i] == (float)(scio_log1p((double)m->data[i]) / scio_log_of_base(2)));
    scio_mem_free(m);
}

TEST(a_result_that_is_not_finite_names_the_first)
{
    const double data[] = {1, 2, -1, 5, -3, 0};
    const scio_csr_view view = {
        .n_rows = 3, .n_cols = 2, .nnz = 6, .data = data, .data_dtype = SCIO_F64};
    const scio_value_transform transform = {.is_log1p = true};
    double out[6];
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_transform_values(&view, &transform, 2, NULL, SCIO_F64, out, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "position 2 (row 1) gives -inf");
}

TEST(column_sums_of_integers_and_of_fractions)
{
    for (int is_fraction = 0; is_fraction < 2; is_fraction++) {
        matrix *const m = new_matrix(is_fraction ? 0.1f : 1.0f);
        static double sums[N_COLS], again[N_COLS], expected[N_COLS];
        static int64_t n_positive[N_COLS], n_expected[N_COLS];
        bool is_canonical = false;

        memset(expected, 0, sizeof expected);
        memset(n_expected, 0, sizeof n_expected);
        for (int64_t block = 0; block < N_ROWS; block += 4096) {
            const int64_t end = block + 4096 < N_ROWS ? block + 4096 : N_ROWS;
            double part[N_COLS] = {0};

            for (int64_t i = m->indptr[block]; i < m->indptr[end]; i++) {
                part[m->indices[i]] += (double)m->data[i];
                n_expected[m->indices[i]] += m->data[i] > 0;
            }
            for (int c = 0; c < N_COLS; c++)
                expected[c] += part[c];
        }
        CHECK(scio_column_sums(&m->view, 3, NULL, NULL, sums, &is_canonical, NULL) == SCIO_OK);
        CHECK(is_canonical && memcmp(sums, expected, sizeof sums) == 0);
        CHECK(scio_column_sums(&m->view, 0, NULL, NULL, again, &is_canonical, NULL) == SCIO_OK);
        CHECK(memcmp(sums, again, sizeof sums) == 0);
        CHECK(scio_column_sums(&m->view, 2, NULL, n_positive, NULL, &is_canonical, NULL) ==
              SCIO_OK);
        CHECK(memcmp(n_positive, n_expected, sizeof n_positive) == 0);
        m->data[100] = (float)NAN;
        CHECK(scio_column_sums(&m->view, 2, NULL, n_positive, NULL, &is_canonical, NULL) ==
              SCIO_EINVAL);
        scio_mem_free(m);
    }
}

TEST(scaling_fills_a_dense_matrix)
{
    const float data[] = {2, 8};
    const int32_t indices[] = {1, 0};
    const int64_t indptr[] = {0, 1, 2};
    const scio_csr_view view = {.n_rows = 2,
                                .n_cols = 2,
                                .nnz = 2,
                                .indptr = indptr,
                                .indices = indices,
                                .index_dtype = SCIO_I32,
                                .data = data,
                                .data_dtype = SCIO_F32};
    const double mean[] = {4, 1}, std[] = {2, 0.25};
    const uint8_t rows[] = {1, 0};
    scio_scaling scaling = {.mean = mean, .std = std, .max_value = 1.5};
    float out[4];

    CHECK(scio_scale_values(&view, &scaling, 2, NULL, SCIO_F32, out, NULL) == SCIO_OK);
    CHECK(out[0] == -1.5f && out[1] == 1.5f && out[2] == 1.5f && out[3] == -1.5f);
    scaling.is_scaled = rows;
    CHECK(scio_scale_values(&view, &scaling, 1, NULL, SCIO_F32, out, NULL) == SCIO_OK);
    CHECK(out[0] == -1.5f && out[1] == 1.5f && out[2] == 8.0f && out[3] == 0.0f);
    scaling = (scio_scaling){.std = std, .max_value = HUGE_VAL};
    CHECK(scio_scale_values(&view, &scaling, 1, NULL, SCIO_F32, out, NULL) == SCIO_OK);
    CHECK(out[0] == 8.0f && out[1] == 4.0f);
}

TEST(every_allocation_may_fail)
{
    matrix *const m = new_matrix(0.1f);
    static double totals[N_ROWS], sums[N_COLS];
    bool is_canonical;
    scio_value_facts facts;
    size_t n_failures = 0;

    for (int what = 0; what < 2; what++) {
        for (size_t k = 0; k < 60; k++) {
            scio_status status;

            scio_mem_fail_at(k);
            status = what == 0
                         ? scio_row_totals(&m->view, NULL, 2, NULL, totals, NULL, &facts, NULL)
                         : scio_column_sums(&m->view, 2, NULL, NULL, sums, &is_canonical, NULL);
            scio_mem_fail_at(SIZE_MAX);
            if (status == SCIO_OK)
                break;
            CHECK(status == SCIO_ENOMEM);
            n_failures++;
        }
    }
    CHECK(n_failures > 4);
    scio_mem_free(m);
}
