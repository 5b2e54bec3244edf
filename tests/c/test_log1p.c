/* log1p: within one ulp of long double, the same bits at every level.
 *
 * SCIO_EXHAUSTIVE=1 runs all 2^32 patterns: minutes. */
#include "test.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdint.h>

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

/* Error in units of the last place of the result, from a reference with 64 bits of fraction. */
static double
error_in_ulp(float x, float got)
{
    const long double exact = log1pl((long double)x);
    const float nearest = (float)exact;
    float above;

    if (nearest == 0.0f || !isfinite(nearest))
        return got == nearest ? 0.0 : INFINITY;
    above = nextafterf(fabsf(nearest), INFINITY);
    return (double)(fabsl((long double)got - exact) /
                    ((long double)above - (long double)fabsf(nearest)));
}

static double
worst_of_block(const float *x)
{
    static float y[3][BLOCK];
    double worst = 0;

    for (int level = 0; level <= (int)scio_cpu(); level++) {
        scio_kernels_at((scio_cpu_level)level)->log1p_f32(x, y[level], BLOCK);
        for (size_t i = 0; i < BLOCK; i++)
            CHECK(to_bits(y[level][i]) == to_bits(y[0][i]) || y[0][i] != y[0][i]);
    }
    for (size_t i = 0; i < BLOCK; i++) {
        if (x[i] < -1.0f || x[i] != x[i]) {
            CHECK(y[0][i] != y[0][i]);
        } else {
            const double error = error_in_ulp(x[i], y[0][i]);

            worst = error > worst ? error : worst;
        }
    }
    return worst;
}

TEST(ten_million_random_patterns_are_within_one_ulp)
{
    static float x[BLOCK];
    double worst = 0;

    for (uint64_t block = 0; block < 2440; block++) {
        for (size_t i = 0; i < BLOCK; i++)
            x[i] = from_bits((uint32_t)scio_rng_u64(11, block, i));
        worst = fmax(worst, worst_of_block(x));
    }
    printf("largest error %.4f ulp\n", worst);
    CHECK(worst <= 1.0);
}

TEST(counts_and_values_near_zero_and_one_are_within_one_ulp)
{
    static float x[BLOCK];
    double worst = 0;

    for (uint32_t block = 0; block < 40; block++) {
        for (uint32_t i = 0; i < BLOCK; i++) {
            const uint32_t n = block * BLOCK + i;

            x[i] = block % 4 == 0   ? (float)n
                   : block % 4 == 1 ? from_bits(0x3F800000u - 80000u + n)
                   : block % 4 == 2 ? from_bits(n)
                                    : -1.0f + from_bits(0x33800000u + n * 64);
        }
        worst = fmax(worst, worst_of_block(x));
    }
    CHECK(worst <= 1.0);
}

TEST(special_values)
{
    const float in[8] = {0.0f, -0.0f, -1.0f, -2.0f, INFINITY, -INFINITY, NAN, 3.4028234664e38f};

    for (int level = 0; level <= (int)scio_cpu(); level++) {
        float y[8];

        scio_kernels_at((scio_cpu_level)level)->log1p_f32(in, y, 8);
        CHECK(to_bits(y[0]) == 0 && to_bits(y[1]) == 0x80000000u);
        CHECK(y[2] == -INFINITY && y[3] != y[3] && y[4] == INFINITY && y[5] != y[5] && y[6] != y[6]);
        CHECK(fabsf(y[7] - 88.722839f) < 1e-4f);
    }
}

TEST(in_place_gives_the_same)
{
    float x[100], y[100];

    for (int i = 0; i < 100; i++)
        x[i] = (float)i / 7;
    scio_kernels()->log1p_f32(x, y, 100);
    scio_kernels()->log1p_f32(x, x, 100);
    CHECK(memcmp(x, y, sizeof x) == 0);
}

TEST(all_patterns_when_asked_for)
{
    static float x[BLOCK];
    double worst = 0;
    uint64_t next = 0;

    if (getenv("SCIO_EXHAUSTIVE") == NULL)
        return;
    while (next <= UINT32_MAX) {
        for (size_t i = 0; i < BLOCK; i++, next++)
            x[i] = from_bits((uint32_t)next);
        worst = fmax(worst, worst_of_block(x));
    }
    printf("largest error over all patterns %.6f ulp\n", worst);
    CHECK(worst <= 1.0);
}
