/* exp and expm1 in double against long double, at special values and at random ones. */
#include "test.h"

#include "base/rng.h"
#include "kernels/exp_f64.h"
#include "kernels/kernels.h"

/* Distance of y from the exact value, in units of the last place of y. */
static double
ulps(double y, long double exact)
{
    const double unit = nextafter(fabs(y), HUGE_VAL) - fabs(y);

    return fabs((double)(((long double)y - exact) / (long double)unit));
}

static double
random_in(uint64_t stream, uint64_t i, double low, double high)
{
    return low + (high - low) * ((double)(scio_rng_u64(9, stream, i) >> 11) * 0x1p-53);
}

TEST(special_values)
{
    CHECK(scio_exp_f64(0) == 1 && scio_expm1_f64(0) == 0);
    CHECK(signbit(scio_expm1_f64(-0.0)));
    CHECK(scio_exp_f64(710) == HUGE_VAL && scio_expm1_f64(710) == HUGE_VAL);
    CHECK(scio_exp_f64(HUGE_VAL) == HUGE_VAL && scio_expm1_f64(HUGE_VAL) == HUGE_VAL);
    CHECK(scio_exp_f64(-HUGE_VAL) == 0 && scio_expm1_f64(-HUGE_VAL) == -1);
    CHECK(isnan(scio_exp_f64(NAN)) && isnan(scio_expm1_f64(NAN)));
    CHECK(scio_expm1_f64(0x1p-1074) == 0x1p-1074 && scio_expm1_f64(-0x1p-60) == -0x1p-60);
    CHECK(isfinite(scio_exp_f64(709.78)) && isfinite(scio_expm1_f64(709.78)));
    CHECK(scio_exp_f64(-745) > 0 && scio_exp_f64(-746) == 0);
}

TEST(errors_stay_below_their_bounds)
{
    const double ranges[][2] = {{-1, 1},     {-0.4, 0.4},   {-40, 0},     {0, 20},
                                {-700, 709}, {-1e-3, 1e-3}, {-1e-8, 1e-8}};
    double worst_exp = 0, worst_expm1 = 0;

    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        for (uint64_t i = 0; i < 200000; i++) {
            const double x = random_in(r, i, ranges[r][0], ranges[r][1]);
            const double e = ulps(scio_exp_f64(x), expl((long double)x));
            const double m = ulps(scio_expm1_f64(x), expm1l((long double)x));

            worst_exp = e > worst_exp ? e : worst_exp;
            worst_expm1 = m > worst_expm1 ? m : worst_expm1;
        }
    }
    printf("worst: exp %.3f ulp, expm1 %.3f ulp\n", worst_exp, worst_expm1);
    CHECK(worst_exp < 1);
    CHECK(worst_expm1 < 1.5);
}

TEST(arrays_have_the_bits_of_single_values_at_every_level)
{
    enum { N = 1000 };
    static const double special[] = {0,   -0.0, 35.9, 36,     36.1,      -36, -41,      700,
                                     710, -800, NAN,  1e-300, 0x1p-1074, 52,  HUGE_VAL, -HUGE_VAL};
    static double in[N], out[N];

    for (int level = 0; level <= (int)scio_cpu(); level++) {
        for (size_t n_items = 0; n_items <= N; n_items = n_items * 2 + 1) {
            for (size_t i = 0; i < n_items; i++)
                in[i] = i % 5 == 4 ? special[i / 5 % 16] : random_in(70, i, -30, 30);
            scio_kernels_at((scio_cpu_level)level)->expm1_f64(in, 0.75, out, n_items);
            for (size_t i = 0; i < n_items; i++) {
                const double expected = scio_expm1_f64(in[i] * 0.75);

                CHECK(memcmp(&out[i], &expected, sizeof expected) == 0 ||
                      (isnan(out[i]) && isnan(expected)));
            }
        }
    }
}
