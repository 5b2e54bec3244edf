#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/exp_f64.h"
#include "preprocess/clipped.h"
#include "preprocess/log_f64.h"
#include "preprocess/poisson.h"
#include "preprocess/residuals.h"

#include <math.h>

enum { N_ROWS = 5000, N_GENES = 40, N_BATCHES = 2 };

static int64_t indptr[N_ROWS + 1];
static int32_t indices[N_ROWS * N_GENES];
static float values[N_ROWS * N_GENES];
static double dense[N_ROWS][N_GENES], totals[N_ROWS], n_of_one[N_ROWS];
static int32_t batches[N_ROWS];
static double fractions[N_BATCHES * N_GENES], shifts[N_BATCHES * N_GENES], sums[1000];

/* Counts of which half are 0, some of them stored; batch -1 for the last row. */
static scio_csr_view
make_rows(void)
{
    int64_t nnz = 0;

    for (size_t i = 0; i < N_ROWS; i++) {
        totals[i] = 0;
        batches[i] = i == N_ROWS - 1 ? -1 : (int32_t)(i % N_BATCHES);
        n_of_one[i] = 1;
        for (size_t g = 0; g < N_GENES; g++) {
            const uint64_t draw = scio_rng_u64(3, i, g);

            dense[i][g] = draw % 2 == 0 ? (double)(draw / 2 % 8) : 0;
            totals[i] += dense[i][g];
            if (draw % 2 != 0)
                continue;
            indices[nnz] = (int32_t)g;
            values[nnz++] = (float)dense[i][g];
        }
        indptr[i + 1] = nnz;
    }
    return (scio_csr_view){.n_rows = N_ROWS,
                           .n_cols = N_GENES,
                           .nnz = nnz,
                           .indptr = indptr,
                           .indices = indices,
                           .index_dtype = SCIO_I32,
                           .data = values,
                           .data_dtype = SCIO_F32};
}

static double
plain_residual(double x, double mu, double clip)
{
    const double r = mu > 0 ? (x - mu) / sqrt(mu + mu * mu * 0.01) : 0;

    return fmax(-clip, fmin(r, clip));
}

static void
fill_tables(void)
{
    for (size_t i = 0; i < N_BATCHES * N_GENES; i++) {
        fractions[i] = 0.01 + 0.001 * (double)i;
        shifts[i] = -0.1 * (double)i;
    }
    memset(sums, 0, sizeof sums);
}

TEST(zeros_are_summed_over_totals)
{
    scio_error err = SCIO_ERROR_INIT;
    double got_shifts[N_GENES], got[2 * N_GENES];

    make_rows();
    fill_tables();
    CHECK(scio_residual_zero_sums(fractions, N_GENES, totals, n_of_one, N_ROWS, 70, 2, 0.01, 2,
                                  got_shifts, got, NULL, &err) == SCIO_OK);
    for (size_t g = 0; g < N_GENES; g++) {
        double sum = 0, squares = 0;

        CHECK(fabs(got_shifts[g] - plain_residual(0, fractions[g] * 70, 2)) < 1e-14);
        for (size_t i = 0; i < N_ROWS; i++) {
            const double d = plain_residual(0, fractions[g] * totals[i], 2) - got_shifts[g];

            sum += d;
            squares += d * d;
        }
        CHECK(fabs(got[2 * g] - sum) < 1e-9);
        CHECK(fabs(got[2 * g + 1] - squares) < 1e-9);
    }
}

TEST(stored_values_add_what_they_change)
{
    const scio_csr_view csr = make_rows();
    const double clips[] = {2, 3};
    scio_error err = SCIO_ERROR_INIT;
    const scio_residual_model model = {N_GENES, N_BATCHES, fractions, shifts, clips, 0.01};
    double again[2 * N_BATCHES * N_GENES] = {0};

    fill_tables();
    CHECK(scio_residual_corrections(&csr, totals, batches, &model, 2, sums, NULL, &err) == SCIO_OK);
    for (size_t b = 0; b < N_BATCHES; b++) {
        for (size_t g = 0; g < N_GENES; g++) {
            const double *const got = sums + 2 * (b * N_GENES + g);
            double sum = 0, squares = 0;

            for (size_t i = b; i + 1 < N_ROWS; i += N_BATCHES) {
                const double mu = totals[i] * fractions[b * N_GENES + g];
                const double r = plain_residual(dense[i][g], mu, clips[b]);
                const double zero = plain_residual(0, mu, clips[b]);
                const double shift = shifts[b * N_GENES + g];

                sum += r - zero;
                squares += (r - shift) * (r - shift) - (zero - shift) * (zero - shift);
            }
            CHECK(fabs(got[0] - sum) < 1e-9 * (1 + fabs(sum)));
            CHECK(fabs(got[1] - squares) < 1e-9 * (1 + fabs(squares)));
        }
    }
    for (size_t n_threads = 0; n_threads <= 7; n_threads += 7) {
        memset(again, 0, sizeof again);
        CHECK(scio_residual_corrections(&csr, totals, batches, &model, n_threads, again, NULL,
                                        &err) == SCIO_OK);
        CHECK(memcmp(again, sums, sizeof again) == 0);
    }
}

TEST(dense_rows)
{
    const scio_csr_view csr = make_rows();
    scio_error err = SCIO_ERROR_INIT;
    static double out[N_ROWS * N_GENES];
    static float narrow[N_ROWS * N_GENES];

    fill_tables();
    CHECK(scio_residual_rows(&csr, totals, fractions, 2, 0.01, 2, out, SCIO_F64, NULL, &err) ==
          SCIO_OK);
    CHECK(scio_residual_rows(&csr, totals, fractions, 2, 0.01, 2, narrow, SCIO_F32, NULL, &err) ==
          SCIO_OK);
    for (size_t i = 0; i < N_ROWS; i++) {
        for (size_t g = 0; g < N_GENES; g++) {
            const double expected = plain_residual(dense[i][g], totals[i] * fractions[g], 2);

            if (fabs(out[i * N_GENES + g] - expected) > 1e-14 ||
                narrow[i * N_GENES + g] != (float)out[i * N_GENES + g]) {
                CHECK(!"residual");
                return;
            }
        }
    }
}

TEST(clipped_squares)
{
    const scio_csr_view csr = make_rows();
    scio_error err = SCIO_ERROR_INIT;

    fill_tables();
    CHECK(scio_clipped_sums(&csr, batches, N_BATCHES, fractions, fractions, 2, sums, NULL, &err) ==
          SCIO_OK);
    CHECK(sums[0] == 0); /* everything is clipped to the mean */
    for (size_t i = 0; i < N_BATCHES * N_GENES; i++)
        shifts[i] = 4;
    CHECK(scio_clipped_sums(&csr, batches, N_BATCHES, fractions, shifts, 2, sums, NULL, &err) ==
          SCIO_OK);
    for (size_t b = 0; b < N_BATCHES; b++) {
        double sum = 0;

        for (size_t i = b; i + 1 < N_ROWS; i += N_BATCHES) {
            const double d = fmin(dense[i][5], 4) - fractions[b * N_GENES + 5];

            sum += dense[i][5] != 0 ? d * d : 0;
        }
        CHECK(fabs(sums[b * N_GENES + 5] - sum) < 1e-9 * sum);
    }
}

TEST(absence)
{
    const double some_fractions[] = {0, 0.5, 2}, some_totals[] = {1, 2}, n_cells[] = {3, 1};
    scio_error err = SCIO_ERROR_INIT;
    double out[3];

    CHECK(scio_poisson_absence(some_fractions, 3, some_totals, n_cells, 2, 1, out, NULL, &err) ==
          SCIO_OK);
    CHECK(out[0] == 1);
    for (size_t g = 1; g < 3; g++) {
        const double f = some_fractions[g];

        CHECK(fabs(out[g] - (3 * exp(-f) + exp(-2 * f)) / 4) < 1e-15);
    }
}

TEST(logarithms)
{
    for (int i = -1074; i < 1024; i++)
        CHECK(fabs(scio_ln_f64(ldexp(1, i)) - log(ldexp(1, i))) <= 3e-16 * abs(i));
    for (double x = 0.5; x < 2; x += 0x1p-12) {
        CHECK(fabs(scio_ln_f64(x) - log(x)) <= 4e-16 * fabs(log(x)));
        CHECK(fabs(scio_ln_1p_f64(x * 1e-9) - log1p(x * 1e-9)) <= 4e-16 * log1p(x * 1e-9));
    }
    CHECK(scio_ln_f64(1) == 0 && isnan(scio_ln_f64(-1)) && scio_ln_f64(0) == -INFINITY);
}

TEST(columns_out_of_place_are_refused)
{
    const int32_t wrong[][2] = {{0, N_GENES}, {1, 1}, {5, 2}, {-1, 3}};
    const int64_t row[] = {0, 2};
    const float two[] = {1, 1};
    scio_csr_view csr = {.n_rows = 1,
                         .n_cols = N_GENES,
                         .nnz = 2,
                         .indptr = row,
                         .index_dtype = SCIO_I32,
                         .data = two,
                         .data_dtype = SCIO_F32};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        scio_error err = SCIO_ERROR_INIT;

        csr.indices = wrong[i];
        CHECK(scio_clipped_sums(&csr, NULL, 1, fractions, fractions, 1, sums, NULL, &err) ==
              SCIO_ECORRUPT);
        CHECK_STR(err.message, "row 0: columns do not strictly increase within [0, 40)");
    }
}

TEST(batches_out_of_range_are_refused)
{
    const int32_t wrong[] = {0, -1, 2};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_batches_validate(NULL, 3, 2, &err) == SCIO_OK);
    CHECK(scio_batches_validate(wrong, 2, 2, &err) == SCIO_OK);
    CHECK(scio_batches_validate(wrong, 3, 2, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "batch 2 of cell 2, there are 2");
}

TEST(a_cancelled_pass_stops)
{
    const scio_csr_view csr = make_rows();
    scio_error err = SCIO_ERROR_INIT;
    volatile int cancel = 1;

    CHECK(scio_clipped_sums(&csr, batches, N_BATCHES, fractions, fractions, 2, sums, &cancel,
                            &err) == SCIO_ECANCEL);
}

TEST(failing_allocations_are_reported)
{
    const scio_csr_view csr = make_rows();
    scio_status status = SCIO_ENOMEM;
    size_t k = 0;

    for (; status != SCIO_OK && k < 50; k++) {
        scio_error err = SCIO_ERROR_INIT;

        fill_tables();
        scio_mem_fail_at(k);
        status =
            scio_clipped_sums(&csr, batches, N_BATCHES, fractions, shifts, 4, sums, NULL, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
    }
    CHECK(status == SCIO_OK);
}
