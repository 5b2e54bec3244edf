/* Pooled sums, their medians and least squares against the plainest way to the same numbers. */
#include "test.h"

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "preprocess/pooling.h"

#include <math.h>
#include <stdint.h>

enum { MOST_CELLS = 700, MOST_GENES = 90, MOST_SIZES = 5 };

/* A ring with its dense twin. */
typedef struct ring_test {
    int64_t starts[MOST_CELLS], counts[MOST_CELLS];
    int32_t genes[MOST_CELLS * MOST_GENES];
    double values[MOST_CELLS * MOST_GENES];
    double dense[MOST_CELLS][MOST_GENES];
    scio_pooling_ring ring;
} ring_test;

static ring_test t;
static double medians[MOST_SIZES * MOST_CELLS], again[MOST_SIZES * MOST_CELLS];
static double factors[MOST_CELLS];

/* Multiples of 2^-40 up to `largest`, each there with a chance of `percent`. */
static void
make_ring(int64_t n_cells, int64_t n_genes, uint64_t percent, uint64_t largest)
{
    int64_t nnz = 0;

    memset(&t, 0, sizeof t);
    for (int64_t i = 0; i < n_cells; i++) {
        t.starts[i] = nnz;
        for (int64_t g = 0; g < n_genes; g++) {
            const uint64_t at = (uint64_t)(i * n_genes + g);

            if (scio_rng_below(3, 1, at, 100) >= percent)
                continue;
            t.dense[i][g] = (double)(1 + scio_rng_below(3, 2, at, largest << 40)) * 0x1p-40;
            t.genes[nnz] = (int32_t)g;
            t.values[nnz++] = t.dense[i][g];
        }
        t.counts[i] = nnz - t.starts[i];
    }
    t.ring = (scio_pooling_ring){n_cells, n_genes, t.starts, t.counts, t.genes, t.values, nnz};
}

static int
compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double
plain_median(int64_t first, int64_t size)
{
    double sums[MOST_GENES] = {0};
    const int64_t n_genes = t.ring.n_genes;

    for (int64_t i = 0; i < size; i++) {
        for (int64_t g = 0; g < n_genes; g++)
            sums[g] += t.dense[(first + i) % t.ring.n_cells][g];
    }
    qsort(sums, (size_t)n_genes, sizeof(double), compare_doubles);
    return (sums[(n_genes - 1) / 2] + sums[n_genes / 2]) / 2;
}

static void
check_medians(const int64_t *sizes, size_t n_sizes)
{
    const int64_t n = t.ring.n_cells;
    size_t n_wrong = 0;

    CHECK(scio_pooling_medians(&t.ring, sizes, n_sizes, SIZE_MAX, medians, NULL, NULL) == SCIO_OK);
    for (size_t i = 0; i < n_sizes; i++) {
        for (int64_t w = 0; w < n; w++)
            n_wrong += medians[(int64_t)i * n + w] != plain_median(w, sizes[i]);
    }
    CHECK(n_wrong == 0);
}

TEST(medians_are_those_of_sums_made_anew_bit_for_bit)
{
    const int64_t sizes[] = {1, 2, 21, 60};
    const uint64_t percents[] = {0, 3, 30, 60, 100};

    for (size_t i = 0; i < 5; i++) {
        make_ring(100, 41, percents[i], 4);
        check_medians(sizes, 4);
        make_ring(101, 40, percents[i], 100); /* 60 of them come below 2^53 units */
        check_medians(sizes, 4);
    }
}

TEST(medians_of_rings_longer_than_a_block_of_starts)
{
    const int64_t sizes[] = {5, 257, 600};

    make_ring(600, 30, 40, 2);
    check_medians(sizes, 3);
    make_ring(512, 31, 10, 2);
    check_medians(sizes, 2);
}

TEST(one_gene_or_one_cell_is_enough)
{
    const int64_t sizes[] = {1};

    make_ring(50, 1, 70, 9);
    check_medians(sizes, 1);
    make_ring(1, 40, 70, 9);
    check_medians(sizes, 1);
    make_ring(1, 1, 100, 9);
    check_medians(sizes, 1);
}

TEST(medians_where_nearly_all_sums_are_equal)
{
    const int64_t sizes[] = {21, 31};

    make_ring(300, 80, 100, 1);
    for (int64_t i = 0; i < t.ring.nnz; i++)
        t.values[i] = i % 997 == 0 ? 3.0 : 1.0;
    for (int64_t i = 0; i < t.ring.nnz; i++)
        t.dense[i / 80][i % 80] = t.values[i];
    check_medians(sizes, 2);
}

TEST(threads_change_no_bit)
{
    const int64_t sizes[] = {3, 21, 100};
    const size_t n_threads[] = {0, 1, 2, 7};
    scio_pool *pool = NULL;
    size_t before;

    CHECK(scio_pool_shared(&pool, NULL) == SCIO_OK);
    before = scio_pool_n_threads(pool);
    make_ring(700, 60, 35, 50);
    CHECK(scio_pooling_medians(&t.ring, sizes, 3, 0, medians, NULL, NULL) == SCIO_OK);
    CHECK(scio_pooling_solve(medians, sizes, 3, 700, 0.1, 0, factors, NULL, NULL) == SCIO_OK);
    for (size_t i = 0; i < 4; i++) {
        static double other[MOST_CELLS];

        CHECK(scio_pool_resize(pool, n_threads[i], NULL) == SCIO_OK);
        memset(again, 0, sizeof again);
        CHECK(scio_pooling_medians(&t.ring, sizes, 3, 7, again, NULL, NULL) == SCIO_OK);
        CHECK(memcmp(medians, again, 3 * 700 * sizeof(double)) == 0);
        CHECK(scio_pooling_solve(again, sizes, 3, 700, 0.1, 7, other, NULL, NULL) == SCIO_OK);
        CHECK(memcmp(factors, other, 700 * sizeof(double)) == 0);
    }
    CHECK(scio_pool_resize(pool, before, NULL) == SCIO_OK);
}

/* --- least squares */

/* The normal equations by elimination, in long double. */
static void
solve_plainly(const int64_t *sizes, size_t n_sizes, int64_t n, double weak, long double *out)
{
    static long double a[120][121];

    memset(a, 0, sizeof a);
    for (int64_t j = 0; j < n; j++) {
        a[j][j] = 1e-6L;
        a[j][n] = 1e-6L * (long double)weak;
    }
    for (size_t i = 0; i < n_sizes; i++) {
        for (int64_t w = 0; w < n; w++) {
            for (int64_t j = 0; j < sizes[i]; j++) {
                for (int64_t k = 0; k < sizes[i]; k++)
                    a[(w + j) % n][(w + k) % n] += 1;
                a[(w + j) % n][n] += (long double)medians[(int64_t)i * n + w];
            }
        }
    }
    for (int64_t j = 0; j < n; j++) { /* positive definite: no pivots */
        for (int64_t k = j + 1; k < n; k++) {
            const long double factor = a[k][j] / a[j][j];

            for (int64_t m = j; m <= n; m++)
                a[k][m] -= factor * a[j][m];
        }
    }
    for (int64_t j = n - 1; j >= 0; j--) {
        long double rest = a[j][n];

        for (int64_t k = j + 1; k < n; k++)
            rest -= a[j][k] * out[k];
        out[j] = rest / a[j][j];
    }
}

TEST(factors_are_the_least_squares_solution)
{
    const int64_t sizes[] = {5, 8, 21, 26, 31};
    const int64_t lengths[] = {31, 32, 64, 100, 101, 102, 120};

    for (size_t i = 0; i < 7; i++) {
        static long double expected[MOST_CELLS];
        const int64_t n = lengths[i];
        long double worst = 0;

        for (int64_t j = 0; j < 5 * n; j++)
            medians[j] = (double)sizes[j / n] *
                         (0.5 + (double)scio_rng_below(4, 1, (uint64_t)j, 1000) / 1000);
        CHECK(scio_pooling_solve(medians, sizes, 5, n, 0.02, SIZE_MAX, factors, NULL, NULL) ==
              SCIO_OK);
        solve_plainly(sizes, 5, n, 0.02, expected);
        for (int64_t j = 0; j < n; j++)
            worst = fmaxl(worst, fabsl((long double)factors[j] - expected[j]));
        if (!(worst < 1e-12L))
            printf("n = %lld: error %Lg\n", (long long)n, worst);
        CHECK(worst < 1e-12L);
    }
}

TEST(factors_of_a_ring_are_found_again)
{
    const int64_t sizes[] = {21, 26, 31};
    const int64_t n = 333;
    double worst = 0;

    for (size_t i = 0; i < 3; i++) {
        for (int64_t w = 0; w < n; w++) {
            double sum = 0;

            for (int64_t j = 0; j < sizes[i]; j++)
                sum += 1 + (double)((w + j) % n * 7919 % 101) / 50;
            medians[(int64_t)i * n + w] = sum;
        }
    }
    CHECK(scio_pooling_solve(medians, sizes, 3, n, 1.9, 2, factors, NULL, NULL) == SCIO_OK);
    for (int64_t w = 0; w < n; w++)
        worst = fmax(worst, fabs(factors[w] - (1 + (double)(w * 7919 % 101) / 50)));
    CHECK(worst < 1e-5); /* the weak equations pull by their weight */
}

/* --- rows */

static const double dtype_values[] = {2, 1, 3, 5, 4};

TEST(rows_are_put_in_order_and_duplicates_summed)
{
    /* row 0: genes 3, 1, 3 and a zero in gene 0; row 1 is empty; row 2: gene 2 */
    const int64_t indptr[] = {0, 4, 4, 5};
    const int32_t indices[] = {3, 1, 3, 0, 2};
    const int32_t parts[] = {0, 0, 1};
    int16_t data[] = {2, 1, 3, 0, 4};
    const scio_pooling_block block = {
        {3, 4, 5, indptr, indices, SCIO_I32, data, SCIO_I16}, 10, parts, 2};
    double totals[3], sums[8] = {0}, maxima[8] = {0};
    scio_pooling_facts facts = {0};
    const int32_t positions[] = {0, 1, -1, 2, -1, -1, 0, -1};
    const double averages[] = {1, 0.5, 1, 2, 1, 1, 0.25, 1}, magics[8] = {0};
    const scio_pooling_genes genes = {positions, averages, magics};
    int32_t out_genes[4];
    double out_values[4];
    scio_pooling_ratios ratios = {out_genes, out_values, 4, 1};
    int64_t starts[3], counts[3];

    CHECK(scio_pooling_scan(&block, totals, sums, maxima, &facts, NULL, NULL) == SCIO_OK);
    CHECK(totals[0] == 6 && totals[1] == 0 && totals[2] == 4);
    CHECK(sums[0] == 0 && sums[1] == 1.0 / 6 && sums[3] == 5.0 / 6 && sums[6] == 1);
    CHECK(maxima[3] == 5.0 / 6 && maxima[2] == 0 && maxima[6] == 1);
    CHECK(facts.n_values == 3 && facts.n_fractions == 0 && facts.maximum == 5);
    CHECK(scio_pooling_take(&block, totals, &genes, &ratios, starts, counts, NULL, NULL) ==
          SCIO_OK);
    CHECK(ratios.n_used == 4);
    CHECK(starts[0] == 1 && counts[0] == 2 && counts[1] == 0 && starts[2] == 3 && counts[2] == 1);
    CHECK(out_genes[1] == 1 && out_genes[2] == 2 && out_genes[3] == 0);
    CHECK(out_values[1] == 1.0 / 6 / 0.5 && out_values[2] == 5.0 / 6 / 2 && out_values[3] == 4);
}

TEST(a_sum_adds_to_what_is_there_and_fractions_are_noted)
{
    const int64_t indptr[] = {0, 2, 3};
    const int64_t indices[] = {0, 1, 1};
    const int32_t parts[] = {0, 0};
    const float data[] = {1, 3, 0.5F};
    const scio_pooling_block block = {
        {2, 2, 3, indptr, indices, SCIO_I64, data, SCIO_F32}, 7, parts, 1};
    double totals[2], sums[] = {10, 20}, maxima[] = {0.5, 0};
    scio_pooling_facts facts = {.n_values = 5};

    CHECK(scio_pooling_scan(&block, totals, sums, maxima, &facts, NULL, NULL) == SCIO_OK);
    CHECK(sums[0] == 10.25 && sums[1] == 20 + 0.75 + 1 && maxima[0] == 0.5 && maxima[1] == 1);
    CHECK(facts.n_values == 8 && facts.n_fractions == 1 && facts.maximum == 3);
    CHECK(facts.row == 8 && facts.column == 1 && facts.fraction == 0.5);
}

TEST(every_dtype_gives_the_same_numbers)
{
    const int64_t indptr[] = {0, 5};
    const int32_t indices[] = {0, 1, 2, 3, 4};
    const int32_t parts[] = {0};
    double expected[5] = {0};

    for (int dtype = SCIO_I8; dtype < SCIO_N_DTYPES; dtype++) {
        char data[5 * sizeof(double)];
        double total, sums[5] = {0}, maxima[5] = {0};
        scio_pooling_facts facts = {0};
        const scio_pooling_block block = {
            {1, 5, 5, indptr, indices, SCIO_I32, data, (scio_dtype)dtype}, 0, parts, 1};

        CHECK(scio_cast(SCIO_F64, dtype_values, (scio_dtype)dtype, data, 5, NULL) == SCIO_OK);
        CHECK(scio_pooling_scan(&block, &total, sums, maxima, &facts, NULL, NULL) == SCIO_OK);
        CHECK(total == 15 && facts.maximum == 5);
        if (dtype == SCIO_I8)
            memcpy(expected, sums, sizeof sums);
        CHECK(memcmp(expected, sums, sizeof sums) == 0);
    }
}

/* --- what is refused */

static scio_status
scan_bad(double value, int32_t index, int32_t part, int64_t end, scio_error *err)
{
    const int64_t indptr[] = {0, 1, end};
    const int32_t indices[] = {1, index};
    const int32_t parts[] = {0, part};
    const double data[] = {1, value};
    const scio_pooling_block block = {
        {2, 3, 2, indptr, indices, SCIO_I32, data, SCIO_F64}, 100, parts, 1};
    double totals[2], sums[3] = {0}, maxima[3] = {0};
    scio_pooling_facts facts = {0};

    return scio_pooling_scan(&block, totals, sums, maxima, &facts, NULL, err);
}

TEST(a_bad_value_is_named_with_its_cell_and_gene)
{
    const struct {
        double value;
        int32_t index, part;
        int64_t end;
        scio_status status;
        const char *message;
    } cases[] = {
        {1, 2, 0, 2, SCIO_OK, ""},
        {-1, 2, 0, 2, SCIO_EINVAL, "cell 101, gene 2 is -1, expected a count: none is negative"},
        {NAN, 2, 0, 2, SCIO_EINVAL, "nan, expected a count: all are finite"},
        {INFINITY, 0, 0, 2, SCIO_EINVAL, "cell 101, gene 0 is inf, expected a count: all are"},
        {1, 3, 0, 2, SCIO_ECORRUPT, "indices[1] is 3 in row 101, not in [0, 3)"},
        {1, -1, 0, 2, SCIO_ECORRUPT, "indices[1] is -1 in row 101, not in [0, 3)"},
        {1, 2, 1, 2, SCIO_ERANGE, "parts[1] is 1, not below 1"},
        {1, 2, -7, 2, SCIO_OK, ""},
        {1, 2, 0, 3, SCIO_ECORRUPT, "row 101 lies from 1 to 3 of 2 values"},
        {1, 2, 0, 0, SCIO_ECORRUPT, "row 101 lies from 1 to 0 of 2 values"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        scio_error err = SCIO_ERROR_INIT;

        CHECK(scan_bad(cases[i].value, cases[i].index, cases[i].part, cases[i].end, &err) ==
              cases[i].status);
        CHECK_STR(err.message, cases[i].message);
    }
}

TEST(a_total_beyond_all_numbers_is_refused)
{
    const int64_t indptr[] = {0, 2};
    const int32_t indices[] = {0, 1}, parts[] = {0};
    const double data[] = {1.7e308, 1.7e308};
    const scio_pooling_block block = {
        {1, 2, 2, indptr, indices, SCIO_I32, data, SCIO_F64}, 0, parts, 1};
    double total, sums[2] = {0}, maxima[2] = {0};
    scio_pooling_facts facts = {0};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_pooling_scan(&block, &total, sums, maxima, &facts, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "the total of cell 0 is beyond all numbers");
}

TEST(ratios_that_do_not_fit_are_refused)
{
    const int64_t indptr[] = {0, 2};
    const int32_t indices[] = {0, 1}, parts[] = {0}, positions[] = {0, 1};
    const double data[] = {1, 2}, ones[] = {1, 1}, magics[] = {0, 0}, total = 3;
    const scio_pooling_block block = {
        {1, 2, 2, indptr, indices, SCIO_I32, data, SCIO_F64}, 0, parts, 1};
    const scio_pooling_genes genes = {positions, ones, magics};
    int32_t out_genes[1];
    double out_values[1];
    scio_pooling_ratios ratios = {out_genes, out_values, 1, 0};
    int64_t start, count;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_pooling_take(&block, &total, &genes, &ratios, &start, &count, NULL, &err) ==
          SCIO_ERANGE);
    CHECK_STR(err.message, "there is room for 1 ratios only");
}

TEST(a_ring_that_leaves_its_arrays_is_refused)
{
    const int64_t sizes[] = {2}, zero[] = {2, 0}, long_ones[] = {101};
    scio_error err = SCIO_ERROR_INIT;

    make_ring(100, 20, 50, 3);
    t.counts[7] = t.ring.nnz;
    CHECK(scio_pooling_medians(&t.ring, sizes, 1, 1, medians, NULL, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "cell 7 of the ring has ");
    err = (scio_error)SCIO_ERROR_INIT;
    make_ring(100, 20, 50, 3);
    t.genes[t.starts[50]] = 20;
    CHECK(scio_pooling_medians(&t.ring, sizes, 1, 1, medians, NULL, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "is 20");
    make_ring(100, 20, 50, 3);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_pooling_medians(&t.ring, zero, 2, 1, medians, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "sizes[1] is 0, expected 1 to 100, the cells");
    CHECK(scio_pooling_medians(&t.ring, long_ones, 1, 1, medians, NULL, NULL) == SCIO_EINVAL);
    CHECK(scio_pooling_solve(medians, long_ones, 1, 100, 1, 1, factors, NULL, NULL) == SCIO_EINVAL);
    CHECK(scio_pooling_solve(medians, sizes, 0, 100, 1, 1, factors, NULL, NULL) == SCIO_EINVAL);
    t.ring.n_genes = 0;
    CHECK(scio_pooling_medians(&t.ring, sizes, 1, 1, medians, NULL, NULL) == SCIO_EINVAL);
}

TEST(every_step_stops_when_it_is_cancelled)
{
    const int64_t sizes[] = {5}, indptr[] = {0, 0};
    const int32_t parts[] = {0};
    const volatile int cancel = 1;
    const scio_pooling_block block = {
        {1, 1, 0, indptr, parts, SCIO_I32, sizes, SCIO_I64}, 0, parts, 1};
    double total, sums[1] = {0}, maxima[1] = {0};
    scio_pooling_facts facts = {0};

    make_ring(100, 20, 50, 3);
    CHECK(scio_pooling_scan(&block, &total, sums, maxima, &facts, &cancel, NULL) == SCIO_ECANCEL);
    CHECK(scio_pooling_medians(&t.ring, sizes, 1, 1, medians, &cancel, NULL) == SCIO_ECANCEL);
    CHECK(scio_pooling_solve(medians, sizes, 1, 100, 1, 1, factors, &cancel, NULL) == SCIO_ECANCEL);
}

static scio_status
run_all(scio_error *err)
{
    const int64_t sizes[] = {5, 9}, indptr[] = {0, 2};
    const int32_t indices[] = {1, 0}, parts[] = {0};
    const double data[] = {1, 2};
    const scio_pooling_block block = {
        {1, 2, 2, indptr, indices, SCIO_I32, data, SCIO_F64}, 0, parts, 1};
    double total, sums[2] = {0}, maxima[2] = {0};
    scio_pooling_facts facts = {0};

    SCIO_TRY(scio_pooling_scan(&block, &total, sums, maxima, &facts, NULL, err));
    SCIO_TRY(scio_pooling_medians(&t.ring, sizes, 2, 2, medians, NULL, err));
    return scio_pooling_solve(medians, sizes, 2, 100, 1, 2, factors, NULL, err);
}

TEST(every_allocation_may_fail)
{
    size_t k = 0;
    scio_status status;

    make_ring(100, 20, 50, 3);
    do {
        scio_error err = SCIO_ERROR_INIT;

        scio_mem_fail_at(k++);
        status = run_all(&err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
    } while (status != SCIO_OK);
    CHECK(k > 8);
}
