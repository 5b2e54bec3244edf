/* Exact moments against long division by hand, joined moments against a two-pass sum. */
#include "test.h"

#include "base/rng.h"
#include "preprocess/moments.h"

#include <math.h>

static bool
is_near(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b);
}

TEST(exact_moments_of_small_integers)
{
    double mean, m2, variance;

    scio_exact_moments(4, 10, 30, &mean, &m2, &variance); /* 1 2 3 4 */
    CHECK(mean == 2.5 && m2 == 5 && variance == 5.0 / 3);
    scio_exact_moments(1, 7, 49, &mean, &m2, &variance);
    CHECK(mean == 7 && m2 == 0 && variance == 0);
    scio_exact_moments(0, 0, 0, &mean, &m2, &variance);
    CHECK(mean == 0 && m2 == 0 && variance == 0);
    scio_exact_moments(1000, 3000, 9000, &mean, &m2, &variance); /* constant */
    CHECK(mean == 3 && m2 == 0 && variance == 0);
}

TEST(exact_moments_where_products_leave_128_bits)
{
    /* a values of 0 and b of 2^48 - 1, n = a + b: m2 = v^2 a b / n */
    const uint64_t v = ((uint64_t)1 << 48) - 1, counts[] = {1, 3, 1000003, 4000000007};

    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 4; j++) {
            const uint64_t a = counts[i], b = counts[j], n = a + b;
            const scio_u128 s = (scio_u128)v * b, q = (scio_u128)v * v * b;
            const double expected = (double)v * (double)v * (double)a * (double)b / (double)n;
            double mean, m2, variance;

            scio_exact_moments(n, s, q, &mean, &m2, &variance);
            CHECK(is_near(mean, (double)v * (double)b / (double)n, 1e-15));
            CHECK(is_near(m2, expected, 1e-14));
            CHECK(is_near(variance, expected / (double)(n - 1), 1e-14));
        }
    }
}

TEST(exact_moments_see_one_in_two_to_the_fifty)
{
    /* 2^32 and 2^32 + 1: E[x^2] - mean^2 in double would be 0 */
    const uint64_t a = (uint64_t)1 << 32, b = a + 1;
    double mean, m2, variance;

    scio_exact_moments(2, (scio_u128)a + b, (scio_u128)a * a + (scio_u128)b * b, &mean, &m2,
                       &variance);
    CHECK(m2 == 0.5 && variance == 0.5);
}

TEST(a_wide_integer_is_rounded_to_the_nearest_even)
{
    const scio_u128 one = 1;

    CHECK(scio_u128_to_double(0) == 0 && scio_u128_to_double(1) == 1);
    CHECK(scio_u128_to_double(one << 127) == 0x1p127);
    CHECK(scio_u128_to_double((one << 53) + 1) == 0x1p53);               /* a tie: even */
    CHECK(scio_u128_to_double((one << 53) + 3) == 0x1.0000000000002p53); /* a tie: up */
    CHECK(scio_u128_to_double((one << 120) + (one << 67)) == 0x1p120);   /* a tie */
    CHECK(scio_u128_to_double((one << 120) + (one << 67) + 1) == 0x1.0000000000001p120);
    CHECK(scio_u128_to_double((one << 64) + 1) == 0x1p64);
}

TEST(joined_blocks_are_the_whole)
{
    enum { N_ROWS = 1000, N_GENES = 3 };
    static double x[N_ROWS][N_GENES];
    double mean[N_GENES] = {0}, m2[N_GENES] = {0};
    const size_t cuts[] = {0, 1, 7, 300, 301, 900, N_ROWS};

    for (size_t r = 0; r < N_ROWS; r++) {
        x[r][0] = scio_rng_u64(1, 0, r) % 3 == 0 ? 1e6 + (double)(scio_rng_u64(1, 1, r) % 100) : 0;
        x[r][1] = 0.1; /* constant */
        x[r][2] = r < 300 ? 0 : (double)r;
    }
    for (size_t c = 0; c + 1 < sizeof cuts / sizeof *cuts; c++) {
        scio_moment block[N_GENES] = {{0, 0, 0, 0}};

        for (size_t r = cuts[c]; r < cuts[c + 1]; r++)
            for (size_t g = 0; g < N_GENES; g++)
                if (x[r][g] != 0)
                    scio_moment_add(&block[g], x[r][g]);
        scio_moments_join(block, N_GENES, cuts[c + 1] - cuts[c], cuts[c], mean, m2);
    }
    CHECK(mean[1] == 0.1 && m2[1] == 0);
    for (size_t g = 0; g < N_GENES; g++) {
        double sum = 0, squares = 0;

        for (size_t r = 0; r < N_ROWS; r++)
            sum += x[r][g];
        for (size_t r = 0; r < N_ROWS; r++)
            squares += (x[r][g] - sum / N_ROWS) * (x[r][g] - sum / N_ROWS);
        CHECK(is_near(mean[g], sum / N_ROWS, 1e-13));
        CHECK(g == 1 || is_near(m2[g], squares, 1e-12));
    }
}
