/* log1p in double: error against the long double of libm, special values, place in the array. */
#include "test.h"

#include "base/rng.h"
#include "preprocess/log1p_f64.h"

#include <float.h>
#include <math.h>
#include <stdint.h>

static double
from_bits(uint64_t bits)
{
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static bool
has_bits_of(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static double
error_in_ulp(long double exact, double got)
{
    int exponent;

    if (exact == 0.0L || !isfinite(exact))
        return (long double)got == exact ? 0.0 : HUGE_VAL;
    (void)frexpl(exact, &exponent);
    exponent = exponent - 53 < -1074 ? -1074 : exponent - 53;
    return (double)fabsl(ldexpl((long double)got - exact, -exponent));
}

static double
worst_of(double worst, double x)
{
    const double error = error_in_ulp(log1pl((long double)x), scio_log1p(x));

    if (error > 1.0)
        printf("%a: %.3f ulp\n", x, error);
    return fmax(worst, error);
}

TEST(a_million_random_patterns_are_within_one_ulp)
{
    double worst = 0;

    for (uint64_t i = 0; i < 1000000; i++) {
        const double x = from_bits(scio_rng_u64(1, 2, i));

        if (x > -1.0)
            worst = worst_of(worst, x);
        else
            CHECK(scio_log1p(x) != scio_log1p(x));
    }
    printf("largest error of random patterns: %.4f ulp\n", worst);
    CHECK(worst < 1.0);
}

TEST(values_where_terms_cancel_are_within_one_ulp)
{
    double worst = 0;

    for (uint64_t i = 0; i < 400000; i++) {
        const double u = (double)(scio_rng_u64(3, 4, i) >> 11) * 0x1p-53; /* [0, 1) */

        worst = worst_of(worst, 4 * u - 0.999);                       /* around the change of k */
        worst = worst_of(worst, ldexp(u + 0.5, (int)(i % 120) - 60)); /* every k */
        worst = worst_of(worst, -ldexp(u, -(int)(i % 60)));           /* down to -1 and up to 0 */
        worst = worst_of(worst, (double)(i * 7 % 100003));            /* counts */
    }
    for (uint64_t i = 0; i < 4000; i++) {
        worst = worst_of(worst, from_bits(0xBFEFFFFFFFFFFFFFu - i)); /* just above -1 */
        worst = worst_of(worst, from_bits(i));                       /* subnormal */
        worst = worst_of(worst, from_bits(0x7FEFFFFFFFFFFFFFu - i * 1000003 * 1000003));
    }
    printf("largest error of chosen values: %.4f ulp\n", worst);
    CHECK(worst < 1.0);
}

TEST(special_values)
{
    CHECK(has_bits_of(scio_log1p(0.0), 0.0));
    CHECK(has_bits_of(scio_log1p(-0.0), -0.0));
    CHECK(scio_log1p(-1.0) == -HUGE_VAL);
    CHECK(scio_log1p(HUGE_VAL) == HUGE_VAL);
    CHECK(scio_log1p(-1.5) != scio_log1p(-1.5));
    CHECK(scio_log1p(-HUGE_VAL) != scio_log1p(-HUGE_VAL));
    CHECK(scio_log1p((double)NAN) != scio_log1p((double)NAN));
    CHECK(has_bits_of(scio_log1p(0x1p-1074), 0x1p-1074));
    CHECK(fabs(scio_log1p(DBL_MAX) - 709.782712893384) < 1e-9);
}

TEST(the_logarithm_of_a_base)
{
    const double bases[] = {2.0, 10.0, 2.718281828459045, 0.5, 1.5, 0.1, 1e300};

    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++)
        CHECK(error_in_ulp(logl((long double)bases[i]), scio_log_of_base(bases[i])) < 2.0);
}

TEST(an_array_has_the_bits_of_single_values_in_any_place_and_in_place)
{
    static double x[1500], y[1500];

    for (size_t i = 0; i < 1500; i++)
        x[i] = (double)(scio_rng_u64(5, 6, i) % 10000) * 0.37;
    x[1200] = (double)NAN; /* this block goes through the other function */
    scio_log1p_f64(x, y, 1500);
    for (size_t i = 0; i < 1500; i++)
        CHECK(i == 1200 ? y[i] != y[i] : has_bits_of(y[i], scio_log1p(x[i])));
    for (size_t start = 0; start < 20; start++) {
        double part[40];

        scio_log1p_f64(x + start, part, 40);
        CHECK(memcmp(part, y + start, sizeof part) == 0);
    }
    scio_log1p_f64(x, x, 1500);
    CHECK(memcmp(x, y, 1200 * sizeof *x) == 0);
}
