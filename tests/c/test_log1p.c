/* log1p: error against a wider logarithm, and the same bits at every level, length and place.
 *
 * `test_log1p exhaustive` runs all 2^32 patterns against the double log1p of libm, and those that
 * look worst against the long double one: about two minutes. */
#include "test.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdint.h>

/* 0.5 for the one rounding and 2^-6.2 for the polynomial, as log1p_template.h derives. */
#define BOUND_ULP 0.5137

enum { BLOCK = 4099 }; /* no multiple of a vector */

static float
from_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t
to_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The distance from `exact` in units of the last place of a float32 as large as `exact`. */
static double
error_in_ulp(long double exact, float got)
{
    int exponent;

    if (exact == 0.0L || !isfinite(exact))
        return (long double)got == exact ? 0.0 : HUGE_VAL;
    (void)frexpl(exact, &exponent); /* exact = 0.1… x 2^exponent */
    exponent = exponent - 24 < -149 ? -149 : exponent - 24;
    return (double)fabsl(ldexpl((long double)got - exact, -exponent));
}

/* Runs every level and compares bits; y[BLOCK] is what comes out. */
static void
run_levels(const float *x, float *y)
{
    static float other[BLOCK];

    scio_kernels_at(SCIO_CPU_BASE)->log1p_f32(x, y, BLOCK);
    for (int level = 1; level <= (int)scio_cpu(); level++) {
        scio_kernels_at((scio_cpu_level)level)->log1p_f32(x, other, BLOCK);
        CHECK(memcmp(y, other, sizeof other) == 0);
    }
}

static double
worst_of_block(const float *x)
{
    static float y[BLOCK];
    double worst = 0;

    run_levels(x, y);
    for (size_t i = 0; i < BLOCK; i++) {
        if (x[i] < -1.0f || x[i] != x[i]) {
            CHECK(y[i] != y[i]);
        } else {
            worst = fmax(worst, error_in_ulp(log1pl((long double)x[i]), y[i]));
        }
    }
    return worst;
}

TEST(ten_million_random_patterns_are_within_the_bound)
{
    static float x[BLOCK];
    double worst = 0;

    for (uint64_t block = 0; block < 2440; block++) {
        for (size_t i = 0; i < BLOCK; i += 2) {
            const uint64_t two = scio_rng_u64(11, block, i);

            x[i] = from_bits((uint32_t)two);
            if (i + 1 < BLOCK)
                x[i + 1] = from_bits((uint32_t)(two >> 32));
        }
        worst = fmax(worst, worst_of_block(x));
    }
    printf("largest error of 10^7 random patterns: %.4f ulp\n", worst);
    CHECK(worst <= BOUND_ULP);
}

TEST(counts_and_values_near_zero_one_and_minus_one_are_within_the_bound)
{
    static float x[BLOCK];
    double worst = 0;

    for (uint32_t block = 0; block < 80; block++) {
        for (uint32_t i = 0; i < BLOCK; i++) {
            const uint32_t n = block / 5 * BLOCK + i;

            x[i] = block % 5 == 0   ? (float)n
                   : block % 5 == 1 ? from_bits(0x3F800000u - 30000u + n)
                   : block % 5 == 2 ? from_bits(n) /* subnormal */
                   : block % 5 == 3 ? from_bits(0x80000000u + n)
                                    : from_bits(0xBF7FFFFFu - n);
        }
        worst = fmax(worst, worst_of_block(x));
    }
    CHECK(worst <= BOUND_ULP);
}

TEST(small_numbers_come_back_as_they_are)
{
    for (uint32_t bits = 1; bits < 0x32800000u; bits += 997) { /* up to 2^-26 */
        const float in[2] = {from_bits(bits), from_bits(0x80000000u | bits)};
        float out[2];

        scio_kernels()->log1p_f32(in, out, 2);
        CHECK(fabsf(out[0] - in[0]) <= in[0] * 0x1p-24f && out[0] <= in[0]);
        CHECK(fabsf(out[1] - in[1]) <= in[0] * 0x1p-24f && out[1] <= in[1]);
    }
}

TEST(special_values)
{
    const uint32_t in_bits[] = {0,           0x80000000u, 0xBF800000u, 0xC0000000u,
                                0xBF800001u, 0x7F800000u, 0xFF800000u, 0x7FC00000u,
                                0x7F800001u, 0xFFC12345u, 0x7F7FFFFFu};
    const uint32_t out_bits[] = {0,           0x80000000u, 0xFF800000u, 0x7FC00000u,
                                 0x7FC00000u, 0x7F800000u, 0x7FC00000u, 0x7FC00000u,
                                 0x7FC00001u, 0xFFC12345u, 0x42B17218u};
    enum { N_CASES = sizeof in_bits / sizeof *in_bits };

    for (int level = 0; level <= (int)scio_cpu(); level++) {
        float in[N_CASES], out[N_CASES];

        memcpy(in, in_bits, sizeof in);
        scio_kernels_at((scio_cpu_level)level)->log1p_f32(in, out, N_CASES);
        for (size_t i = 0; i < N_CASES; i++) {
            if (to_bits(out[i]) != out_bits[i])
                printf("level %d: %08x gives %08x, not %08x\n", level, (unsigned)in_bits[i],
                       (unsigned)to_bits(out[i]), (unsigned)out_bits[i]);
            CHECK(to_bits(out[i]) == out_bits[i]);
        }
    }
}

TEST(the_result_depends_on_the_value_alone_not_on_its_place_nor_on_its_neighbours)
{
    /* a special value takes a block of 1024 through the other loop */
    static float x[3000], whole[3000], part[3000];

    for (size_t i = 0; i < 3000; i++)
        x[i] = (float)(scio_rng_u64(5, 5, i) % 10000) * 0.37f;
    for (int level = 0; level <= (int)scio_cpu(); level++) {
        const scio_kernels_table *const kernels = scio_kernels_at((scio_cpu_level)level);

        kernels->log1p_f32(x, whole, 3000);
        for (size_t start = 0; start < 40; start++) {
            for (size_t n = 0; n < 70; n++) {
                kernels->log1p_f32(x + start, part, n);
                CHECK(memcmp(part, whole + start, n * sizeof *part) == 0);
            }
        }
        memcpy(part, x, sizeof part);
        part[1500] = NAN;
        kernels->log1p_f32(part, part, 3000);
        CHECK(part[1500] != part[1500]);
        part[1500] = whole[1500];
        CHECK(memcmp(part, whole, sizeof whole) == 0);
    }
}

/* --- the slow mode --- */

static bool
is_exhaustive_asked_for(void)
{
    char line[4096];
    size_t nbytes;
    FILE *const file = fopen("/proc/self/cmdline", "rb");

    if (file == NULL)
        return false;
    nbytes = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[nbytes] = '\0';
    for (size_t i = 0; i < nbytes; i += strlen(line + i) + 1)
        if (strcmp(line + i, "exhaustive") == 0)
            return true;
    return false;
}

/* As error_in_ulp, from a double reference; only for results that are normal float32 numbers. */
static double
quick_error_in_ulp(double exact, float got)
{
    uint64_t bits;
    double per_ulp;

    memcpy(&bits, &exact, sizeof bits);
    bits = ((uint64_t)(2 * 1023 + 23) << 52) - (bits & UINT64_C(0x7FF0000000000000));
    memcpy(&per_ulp, &bits, sizeof per_ulp);
    return fabs(((double)got - exact) * per_ulp);
}

TEST(exhaustive_all_patterns_when_the_argument_asks_for_it)
{
    static float x[BLOCK], y[BLOCK];
    double worst = 0;
    uint64_t next = 0, n_beyond_half = 0;
    uint32_t worst_bits = 0;

    if (!is_exhaustive_asked_for())
        return;
    while (next <= UINT32_MAX) {
        for (size_t i = 0; i < BLOCK; i++, next++)
            x[i] = from_bits((uint32_t)next);
        run_levels(x, y);
        for (size_t i = 0; i < BLOCK; i++) {
            double error;

            if (!(x[i] > -1.0f) || x[i] == HUGE_VALF) {
                CHECK(x[i] == -1.0f       ? y[i] == -HUGE_VALF
                      : x[i] == HUGE_VALF ? y[i] == x[i]
                                          : y[i] != y[i]);
                continue;
            }
            error = fabsf(x[i]) < 0x1p-100f ? error_in_ulp(log1pl((long double)x[i]), y[i])
                                            : quick_error_in_ulp(log1p((double)x[i]), y[i]);
            if (error <= 0.5)
                continue;
            n_beyond_half++;
            if (error <= worst)
                continue;
            error = error_in_ulp(log1pl((long double)x[i]), y[i]);
            if (error > worst) {
                worst = error;
                worst_bits = to_bits(x[i]);
            }
        }
    }
    printf("all 2^32 patterns: largest error %.6f ulp at %08x; %llu not the nearest float32\n",
           worst, (unsigned)worst_bits, (unsigned long long)n_beyond_half);
    CHECK(worst <= BOUND_ULP);
}
