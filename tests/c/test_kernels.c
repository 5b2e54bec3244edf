/* Kernels: every variant against a plain reference, bit for bit, at every length and alignment. */
#include "test.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <sys/mman.h>

enum { N = 300 };

/* A page that faults lies behind the last byte: a kernel that reads or writes past it dies. */
static void *
guarded(size_t nbytes)
{
    static const size_t page = 4096;
    const size_t n_pages = (nbytes + page - 1) / page + 1;
    char *base = mmap(NULL, n_pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(base != MAP_FAILED);
    CHECK(mprotect(base + (n_pages - 1) * page, page, PROT_NONE) == 0);
    return base + (n_pages - 1) * page - nbytes;
}

static float
random_float(uint64_t i)
{
    const uint32_t bits = (uint32_t)scio_rng_u64(1, 2, i);
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static const scio_kernels_table *
each_level(int i)
{
    /* scio_cpu() is what the machine has: a table above it must not be called */
    return i <= (int)scio_cpu() ? scio_kernels_at((scio_cpu_level)i) : NULL;
}

TEST(sum_has_the_same_bits_at_every_level_and_is_exact_for_counts)
{
    float *x = guarded(N * sizeof *x);

    for (size_t n = 0; n <= N; n++) {
        double expected = 0, bits[3] = {0};

        for (size_t i = 0; i < n; i++) {
            x[N - n + i] = (float)(scio_rng_u64(3, 4, i) % 1000);
            expected += (double)x[N - n + i];
        }
        for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
            CHECK(each_level(level)->sum_f32(x + N - n, n) == expected);
            for (size_t i = 0; i < n; i++)
                x[N - n + i] += 0.1f;
            bits[level] = each_level(level)->sum_f32(x + N - n, n);
            CHECK(memcmp(&bits[level], &bits[0], sizeof bits[0]) == 0);
            for (size_t i = 0; i < n; i++)
                x[N - n + i] = (float)(scio_rng_u64(3, 4, i) % 1000);
        }
    }
}

TEST(scale_is_one_rounding_of_the_double_product)
{
    float *x = guarded(N * sizeof *x), *y = guarded(N * sizeof *y);

    for (size_t n = 0; n <= N; n += 7) {
        for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
            for (size_t i = 0; i < n; i++)
                x[N - n + i] = random_float(i);
            each_level(level)->scale_f32(x + N - n, 1e4 / 3, y + N - n, n);
            for (size_t i = 0; i < n; i++) {
                const float expected = (float)((double)x[N - n + i] * (1e4 / 3));

                CHECK(memcmp(&expected, &y[N - n + i], sizeof expected) == 0 || expected != expected);
            }
        }
    }
}

TEST(gather_by_map_keeps_the_order_and_drops_the_unmapped)
{
    uint16_t *narrow = guarded(N * sizeof *narrow);
    uint32_t *wide = guarded(N * sizeof *wide);
    float *x = guarded(N * sizeof *x), *out = guarded(N * sizeof *out);
    int32_t *ids = guarded(N * sizeof *ids), map[1000];

    for (int c = 0; c < 1000; c++)
        map[c] = c % 3 == 0 ? -1 : 5 * c;
    for (size_t n = 0; n <= N; n += 13) {
        for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
            size_t n_kept[2], n_expected = 0;

            for (size_t i = 0; i < n; i++) {
                wide[N - n + i] = narrow[N - n + i] = (uint16_t)(scio_rng_u64(5, 6, i) % 1000);
                x[N - n + i] = (float)i;
            }
            for (int is_wide = 0; is_wide < 2; is_wide++) {
                n_kept[is_wide] =
                    is_wide ? each_level(level)->gather_map_u32(wide + N - n, x + N - n, n, map,
                                                                ids + N - n, out + N - n)
                            : each_level(level)->gather_map_u16(narrow + N - n, x + N - n, n, map,
                                                                ids + N - n, out + N - n);
                n_expected = 0;
                for (size_t i = 0; i < n; i++) {
                    if (map[wide[N - n + i]] < 0)
                        continue;
                    CHECK(ids[N - n + n_expected] == map[wide[N - n + i]]);
                    CHECK(out[N - n + n_expected] == (float)i);
                    n_expected++;
                }
                CHECK(n_kept[is_wide] == n_expected);
            }
        }
    }
}

TEST(increasing_is_strict)
{
    uint16_t narrow[N];
    uint32_t wide[N];

    for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
        for (size_t n = 0; n <= N; n++) {
            for (size_t i = 0; i < n; i++)
                wide[i] = narrow[i] = (uint16_t)(3 * i);
            CHECK(each_level(level)->is_increasing_u16(narrow, n));
            CHECK(each_level(level)->is_increasing_u32(wide, n));
            if (n < 2)
                continue;
            narrow[n - 1] = narrow[n - 2];
            wide[n / 2] = wide[n / 2 - (n / 2 > 0)] - (n / 2 > 0);
            CHECK(!each_level(level)->is_increasing_u16(narrow, n));
            CHECK(n < 4 || !each_level(level)->is_increasing_u32(wide, n));
        }
    }
}

TEST(drop_zeros_keeps_nan_and_negative_values)
{
    const float in[6] = {0.0f, -1.0f, -0.0f, NAN, 5.0f, 0.0f};

    for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
        float x[6];
        int32_t ids[6] = {1, 2, 3, 4, 5, 6};

        memcpy(x, in, sizeof x);
        CHECK(each_level(level)->drop_zeros(ids, x, 6) == 3);
        CHECK(ids[0] == 2 && ids[1] == 4 && ids[2] == 5);
        CHECK(x[0] == -1.0f && x[1] != x[1] && x[2] == 5.0f);
    }
}

TEST(narrowing_takes_what_comes_back_with_the_same_bits_and_nothing_else)
{
    const float wrong[] = {-0.0f, -1.0f, 0.5f, 65536.0f, NAN, INFINITY, -INFINITY, 1e30f, FLT_MIN};

    for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
        float x[N];
        uint8_t u8[N];
        uint16_t u16[N];

        for (size_t i = 0; i < N; i++)
            x[i] = (float)(i % 256);
        CHECK(each_level(level)->f32_to_u8(x, u8, N));
        CHECK(each_level(level)->f32_to_u16(x, u16, N));
        for (size_t i = 0; i < N; i++)
            CHECK(u8[i] == i % 256 && u16[i] == i % 256);
        x[77] = 256.0f;
        CHECK(!each_level(level)->f32_to_u8(x, u8, N));
        x[77] = 65535.0f;
        CHECK(each_level(level)->f32_to_u16(x, u16, N) && u16[77] == 65535);
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            x[77] = wrong[i];
            CHECK(!each_level(level)->f32_to_u8(x, u8, N));
            CHECK(!each_level(level)->f32_to_u16(x, u16, N));
        }
    }
}

TEST(index_narrowing_checks_the_range)
{
    for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
        int32_t x[N];
        uint16_t out[N];

        for (size_t i = 0; i < N; i++)
            x[i] = (int32_t)(i * 200);
        CHECK(each_level(level)->i32_to_u16_checked(x, 65536, out, N));
        for (size_t i = 0; i < N; i++)
            CHECK(out[i] == i * 200);
        CHECK(each_level(level)->i32_to_u16_checked(x, (N - 1) * 200 + 1, out, N));
        CHECK(!each_level(level)->i32_to_u16_checked(x, (N - 1) * 200, out, N));
        x[3] = -1;
        CHECK(!each_level(level)->i32_to_u16_checked(x, 65536, out, N));
    }
}

TEST(u8_and_u16_widen)
{
    for (int level = 0; level < 3 && each_level(level) != NULL; level++) {
        uint8_t u8[N];
        uint16_t u16[N];
        float a[N], b[N];

        for (size_t i = 0; i < N; i++) {
            u8[i] = (uint8_t)i;
            u16[i] = (uint16_t)(i * 211);
        }
        each_level(level)->u8_to_f32(u8, a, N);
        each_level(level)->u16_to_f32(u16, b, N);
        for (size_t i = 0; i < N; i++)
            CHECK(a[i] == (float)u8[i] && b[i] == (float)u16[i]);
    }
}
