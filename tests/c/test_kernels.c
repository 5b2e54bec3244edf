/* Kernels: every level against a plain reference, bit for bit, at every length, with pages that
 * fault on both sides of every buffer. */
#include "test.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N = 150, N_LEVELS = 3, N_COLS = 1000 };

/* --- memory between two pages that fault --- */

static size_t
page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* `nbytes` that end at a faulting page; the page before their first one faults too. */
static void *
guarded(size_t nbytes)
{
    const size_t n_pages = nbytes / page() + 1;
    char *const base =
        mmap(NULL, (n_pages + 2) * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (base == MAP_FAILED ||
        mprotect(base + page(), n_pages * page(), PROT_READ | PROT_WRITE) != 0) {
        perror("guarded");
        exit(EXIT_FAILURE);
    }
    return base + (n_pages + 1) * page() - nbytes;
}

static void
guarded_free(void *pointer, size_t nbytes)
{
    const size_t n_pages = nbytes / page() + 1;

    munmap((char *)pointer + nbytes - (n_pages + 1) * page(), (n_pages + 2) * page());
}

/* What a kernel reads and writes: each array has room for n items and not one more. */
typedef struct arrays {
    size_t n;
    float *x, *y;
    int32_t *ids;
    uint8_t *u8;
    uint16_t *u16;
    uint32_t *u32;
} arrays;

static arrays
arrays_new(size_t n)
{
    return (arrays){n,
                    guarded(n * sizeof(float)),
                    guarded(n * sizeof(float)),
                    guarded(n * sizeof(int32_t)),
                    guarded(n),
                    guarded(n * sizeof(uint16_t)),
                    guarded(n * sizeof(uint32_t))};
}

static void
arrays_free(arrays *a)
{
    guarded_free(a->x, a->n * sizeof(float));
    guarded_free(a->y, a->n * sizeof(float));
    guarded_free(a->ids, a->n * sizeof(int32_t));
    guarded_free(a->u8, a->n);
    guarded_free(a->u16, a->n * sizeof(uint16_t));
    guarded_free(a->u32, a->n * sizeof(uint32_t));
}

/* Runs `check` for every level that the machine has and every length up to N. */
static void
at_every_level_and_length(void (*check)(const scio_kernels_table *kernels, arrays *a))
{
    for (size_t n = 0; n <= N; n++) {
        for (int level = 0; level <= (int)scio_cpu(); level++) {
            arrays a = arrays_new(n);

            check(scio_kernels_at((scio_cpu_level)level), &a);
            arrays_free(&a);
        }
    }
}

static uint64_t
random_at(uint64_t stream, size_t i)
{
    return scio_rng_u64(20, stream, i);
}

static bool
same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* Any pattern; every eighth a zero of either sign, NaN or infinity. */
static float
any_float(uint64_t stream, size_t i)
{
    static const float special[] = {0.0f, -0.0f, NAN, INFINITY, -INFINITY, FLT_MIN, -1.0f, 0.0f};
    const uint64_t r = random_at(stream, i);
    const uint32_t bits = (uint32_t)(r >> 32);
    float x;

    memcpy(&x, &bits, sizeof x);
    return r % 8 == 0 ? special[r / 8 % 8] : x;
}

/* --- sums and scaling --- */

static double
plain_sum(const float *x, size_t n)
{
    double lanes[8] = {0};

    for (size_t i = 0; i < n; i++)
        lanes[i % 8] += (double)x[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static void
check_sum(const scio_kernels_table *kernels, arrays *a)
{
    uint64_t exact = 0;
    double got, expected;

    for (size_t i = 0; i < a->n; i++) {
        a->x[i] = (float)(random_at(1, i) % 100000);
        exact += (uint64_t)a->x[i];
    }
    CHECK(kernels->sum_f32(a->x, a->n) == (double)exact);
    for (size_t i = 0; i < a->n; i++)
        a->x[i] = ldexpf((float)(random_at(1, i) % 100000), (int)(random_at(2, i) % 80) - 40);
    got = kernels->sum_f32(a->x, a->n);
    expected = plain_sum(a->x, a->n);
    CHECK(memcmp(&got, &expected, sizeof got) == 0);
}

TEST(sum_is_exact_for_counts_and_has_the_lanes_that_its_declaration_names)
{
    at_every_level_and_length(check_sum);
}

static void
check_scale(const scio_kernels_table *kernels, arrays *a)
{
    const double factor = 1e4 / 3;

    for (size_t i = 0; i < a->n; i++)
        a->x[i] = any_float(2, i);
    kernels->scale_f32(a->x, factor, a->y, a->n);
    for (size_t i = 0; i < a->n; i++) {
        const float expected = (float)((double)a->x[i] * factor);

        CHECK(expected != expected ? a->y[i] != a->y[i] : same_bits(expected, a->y[i]));
    }
    kernels->scale_f32(a->x, factor, a->x, a->n);
    CHECK(memcmp(a->x, a->y, a->n * sizeof *a->x) == 0);
}

TEST(scale_is_one_rounding_of_the_double_product_also_in_place)
{
    at_every_level_and_length(check_scale);
}

static void
check_log1p_in_bounds(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++)
        a->x[i] = any_float(3, i);
    kernels->log1p_f32(a->x, a->y, a->n);
    kernels->log1p_f32(a->x, a->x, a->n);
    CHECK(memcmp(a->x, a->y, a->n * sizeof *a->x) == 0);
}

TEST(log1p_stays_in_its_buffers_and_works_in_place)
{
    at_every_level_and_length(check_log1p_in_bounds);
}

TEST(kinds_of_values_are_counted)
{
    static const double values[] = {0.0,          -0.0,         1.0,      -1.0,      0.5,
                                    -2.25,        NAN,          INFINITY, -INFINITY, 0x1p48,
                                    0x1p48 + 0.5, 0x1p51 + 0.5, -0x1p60,  3.0};
    const size_t n = sizeof values / sizeof values[0];
    double in[sizeof values / sizeof values[0] * 9];

    for (size_t i = 0; i < 9 * n; i++)
        in[i] = values[i % n];
    for (int level = 0; level <= (int)scio_cpu(); level++) {
        const scio_kernels_table *const kernels = scio_kernels_at((scio_cpu_level)level);
        scio_value_kinds kinds;

        kernels->count_kinds_f64(in, 9 * n, &kinds);
        CHECK(kinds.n_zero == 9 * 2 && kinds.n_not_finite == 9 * 3 && kinds.n_negative == 9 * 4);
        CHECK(kinds.n_fractional == 9 * 4); /* the two small ones and the two large ones */
        CHECK(kinds.n_huge == 9 * 6);
        kernels->count_kinds_f64(in, 0, &kinds);
        CHECK(kinds.n_zero + kinds.n_huge == 0);
    }
}

/* --- conversions --- */

static void
check_widen(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++) {
        a->u8[i] = (uint8_t)random_at(4, i);
        a->u16[i] = (uint16_t)random_at(5, i);
    }
    kernels->u8_to_f32(a->u8, a->x, a->n);
    kernels->u16_to_f32(a->u16, a->y, a->n);
    for (size_t i = 0; i < a->n; i++)
        CHECK(a->x[i] == (float)a->u8[i] && a->y[i] == (float)a->u16[i]);
}

TEST(u8_and_u16_widen)
{
    at_every_level_and_length(check_widen);
}

/* --- float16 --- */

/* The half next to x, from the definition: the last place is a power of two, ties go to even. */
static uint16_t
plain_half(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    uint32_t bits;
    int exponent = 0;
    double place, n_places;

    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return (uint16_t)(sign | 0x7E00u | (bits >> 13 & 0x3FFu)); /* quiet, upper bits kept */
    if (isinf(x))
        return (uint16_t)(sign | 0x7C00u);
    (void)frexp(fabs((double)x), &exponent); /* |x| in [2^(exponent - 1), 2^exponent) */
    exponent = exponent - 11 > -24 && x != 0 ? exponent - 11 : -24;
    place = ldexp(1.0, exponent);
    n_places = floor(fabs((double)x) / place);
    if (fabs((double)x) / place - n_places > 0.5 ||
        (fabs((double)x) / place - n_places == 0.5 && fmod(n_places, 2.0) == 1.0))
        n_places += 1.0;
    if (n_places * place >= 65536.0)
        return (uint16_t)(sign | 0x7C00u);
    /* 1,024 places of the next exponent follow on 1,024 of this one */
    return (uint16_t)(sign | (uint32_t)((exponent + 24) * 1024 + (int)n_places));
}

static void
check_half(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++)
        a->x[i] = any_float(30, i);
    kernels->f32_to_f16(a->x, a->u16, a->n);
    for (size_t i = 0; i < a->n; i++)
        CHECK(a->u16[i] == plain_half(a->x[i]));
}

TEST(halves_are_the_nearest_in_bounds)
{
    at_every_level_and_length(check_half);
}

/* Converts 16 floats at every level, so that no vector is partial. */
static void
check_halves_of(const float *x)
{
    for (int level = 0; level <= (int)scio_cpu(); level++) {
        uint16_t got[16];

        scio_kernels_at((scio_cpu_level)level)->f32_to_f16(x, got, 16);
        for (size_t i = 0; i < 16; i++) {
            if (got[i] != plain_half(x[i]))
                printf("level %d, %a\n", level, (double)x[i]);
            CHECK(got[i] == plain_half(x[i]));
        }
    }
}

/* Each half, the float half way to the next one, and their neighbours: every rounding there is. */
TEST(halves_are_right_around_every_half_and_every_tie)
{
    for (uint32_t half = 0; half < 0x10000; half++) {
        const float this = scio_f16_to_f32((uint16_t)half);
        const float next = scio_f16_to_f32((uint16_t)(half + 1));
        float x[16] = {this, next};
        size_t n = 0;

        for (int which = 0; which < 2; which++) {
            const float middle = which == 0 ? this
                                 : isinf(next) && !isinf(this)
                                     ? copysignf(65520.0f, this)
                                     : (float)(((double)this + (double)next) / 2);
            uint32_t bits;

            memcpy(&bits, &middle, sizeof bits);
            for (uint32_t step = 0; step < 7; step++) {
                const uint32_t near = bits + step - 3;

                memcpy(&x[n++], &near, sizeof near);
            }
        }
        check_halves_of(x);
    }
}

TEST(halves_are_right_for_a_sample_of_all_floats)
{
    for (uint64_t k = 0; k < (UINT64_C(1) << 32); k += 16 * 4099) {
        float x[16];

        for (uint64_t i = 0; i < 16; i++) {
            const uint32_t bits = (uint32_t)(k + i * 4099);

            memcpy(&x[i], &bits, sizeof bits);
        }
        check_halves_of(x);
    }
}

/* --- ids --- */

static void
check_shift(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++) {
        a->u16[i] = (uint16_t)random_at(31, i);
        a->u32[i] = (uint32_t)random_at(32, i) >> 2;
    }
    for (int32_t shift = -3; shift < 5; shift += 7) {
        kernels->shift_u16(a->u16, shift, a->ids, a->n);
        for (size_t i = 0; i < a->n; i++)
            CHECK(a->ids[i] == (int32_t)a->u16[i] + shift);
        kernels->shift_u32(a->u32, shift, a->ids, a->n);
        for (size_t i = 0; i < a->n; i++)
            CHECK(a->ids[i] == (int32_t)a->u32[i] + shift);
    }
}

TEST(columns_are_shifted)
{
    at_every_level_and_length(check_shift);
}

static void
check_within(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++)
        a->ids[i] = 4 + (int32_t)(random_at(33, i) % 96);
    CHECK(kernels->are_within_i32(a->ids, a->n, 4, 100));
    CHECK(kernels->are_within_i32(a->ids, a->n, 0, INT32_MAX));
    CHECK(kernels->are_within_i32(a->ids, a->n, 4, 4) == (a->n == 0));
    for (size_t i = 0; i < a->n; i++) {
        const int32_t kept = a->ids[i];
        const int32_t bad[] = {100, 3, -1, INT32_MIN, INT32_MAX};

        a->ids[i] = bad[i % 5];
        CHECK(!kernels->are_within_i32(a->ids, a->n, 4, 100));
        a->ids[i] = kept;
    }
}

TEST(one_id_out_of_range_is_seen_at_any_place)
{
    at_every_level_and_length(check_within);
}

static void
check_narrow(const scio_kernels_table *kernels, arrays *a)
{
    static const float wrong[] = {-0.0f,    -1.0f,     0.5f,  65536.0f, 65535.5f, NAN,
                                  INFINITY, -INFINITY, 1e30f, FLT_MIN,  -1e30f,   4294967296.0f};

    for (size_t i = 0; i < a->n; i++)
        a->x[i] = (float)(random_at(6, i) % 256);
    CHECK(kernels->f32_to_u8(a->x, a->u8, a->n));
    CHECK(kernels->f32_to_u16(a->x, a->u16, a->n));
    for (size_t i = 0; i < a->n; i++)
        CHECK(a->u8[i] == (uint8_t)a->x[i] && a->u16[i] == a->u8[i]);
    if (a->n == 0)
        return;
    const size_t i = random_at(7, a->n) % a->n;
    a->x[i] = 256.0f;
    CHECK(!kernels->f32_to_u8(a->x, a->u8, a->n));
    a->x[i] = 65535.0f;
    CHECK(kernels->f32_to_u16(a->x, a->u16, a->n) && a->u16[i] == 65535);
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        a->x[i] = wrong[k];
        CHECK(!kernels->f32_to_u8(a->x, a->u8, a->n));
        CHECK(!kernels->f32_to_u16(a->x, a->u16, a->n));
    }
}

TEST(narrowing_takes_what_comes_back_with_the_same_bits_and_nothing_else)
{
    at_every_level_and_length(check_narrow);
}

TEST(narrowing_finds_the_one_misfit_of_a_long_array)
{
    enum { LONG = 5000 };
    static float x[LONG];
    static uint8_t u8[LONG];
    static uint16_t u16[LONG];
    static int32_t i32[LONG];

    for (int level = 0; level <= (int)scio_cpu(); level++) {
        const scio_kernels_table *const kernels = scio_kernels_at((scio_cpu_level)level);

        for (size_t bad = 0; bad < LONG; bad += 311) {
            memset(x, 0, sizeof x);
            memset(i32, 0, sizeof i32);
            x[bad] = 0.25f;
            i32[bad] = 7;
            CHECK(!kernels->f32_to_u8(x, u8, LONG) && !kernels->f32_to_u16(x, u16, LONG));
            CHECK(!kernels->i32_to_u16_checked(i32, 7, u16, LONG));
            CHECK(kernels->i32_to_u16_checked(i32, 8, u16, LONG) && u16[bad] == 7);
        }
    }
}

static void
check_narrow_index(const scio_kernels_table *kernels, arrays *a)
{
    int32_t largest = -1;

    for (size_t i = 0; i < a->n; i++) {
        a->ids[i] = (int32_t)(random_at(8, i) % 65536);
        largest = a->ids[i] > largest ? a->ids[i] : largest;
    }
    CHECK(kernels->i32_to_u16_checked(a->ids, 65536, a->u16, a->n));
    for (size_t i = 0; i < a->n; i++)
        CHECK(a->u16[i] == a->ids[i]);
    CHECK(kernels->i32_to_u16_checked(a->ids, largest + 1, a->u16, a->n));
    CHECK(a->n == 0 || !kernels->i32_to_u16_checked(a->ids, largest, a->u16, a->n));
    if (a->n == 0)
        return;
    for (int k = 0; k < 3; k++) {
        a->ids[random_at(9, a->n) % a->n] = k == 0 ? -1 : k == 1 ? INT32_MIN : 65536;
        CHECK(!kernels->i32_to_u16_checked(a->ids, 65536, a->u16, a->n));
    }
}

TEST(index_narrowing_checks_the_range)
{
    at_every_level_and_length(check_narrow_index);
}

/* --- order --- */

static void
check_increasing(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++)
        a->u32[i] = a->u16[i] = (uint16_t)(65535 - 300 * (a->n - i));
    CHECK(kernels->is_increasing_u16(a->u16, a->n) && kernels->is_increasing_u32(a->u32, a->n));
    for (size_t i = 1; i < a->n; i += 5) {
        const uint16_t kept = a->u16[i];

        a->u32[i] = a->u16[i] = a->u16[i - 1];
        CHECK(!kernels->is_increasing_u16(a->u16, a->n));
        CHECK(!kernels->is_increasing_u32(a->u32, a->n));
        a->u32[i] = a->u16[i] = 0;
        CHECK(!kernels->is_increasing_u16(a->u16, a->n));
        CHECK(!kernels->is_increasing_u32(a->u32, a->n));
        a->u32[i] = a->u16[i] = kept;
    }
}

TEST(increasing_is_strict_and_unsigned)
{
    const uint32_t halves[] = {1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};

    at_every_level_and_length(check_increasing);
    for (int level = 0; level <= (int)scio_cpu(); level++)
        CHECK(scio_kernels_at((scio_cpu_level)level)->is_increasing_u32(halves, 4));
}

static void
check_keys(const scio_kernels_table *kernels, arrays *a)
{
    for (size_t i = 0; i < a->n; i++)
        a->x[i] = any_float(10, i);
    kernels->order_keys_f32(a->x, a->u32, a->n);
    for (size_t i = 0; i < a->n; i++) {
        CHECK(a->u32[i] != 0);
        for (size_t j = 0; j < a->n; j++) {
            const bool is_above = (a->x[i] != a->x[i] && a->x[j] == a->x[j]) || a->x[i] > a->x[j];

            CHECK((a->u32[i] > a->u32[j]) == is_above);
        }
    }
    for (size_t j = 0; j < a->n; j += 11) {
        size_t n_above = 0;

        for (size_t i = 0; i < a->n; i++)
            n_above += a->u32[i] > a->u32[j];
        CHECK(kernels->count_above_u32(a->u32, a->n, a->u32[j]) == n_above);
    }
    CHECK(kernels->count_above_u32(a->u32, a->n, 0) == a->n);
    CHECK(kernels->count_above_u32(a->u32, a->n, UINT32_MAX) == 0);
}

TEST(keys_order_as_values_do_with_nan_on_top)
{
    at_every_level_and_length(check_keys);
}

/* --- moving entries together --- */

/* Which entries stay: none, all, or a share of 1/2, 1/8, 7/8. */
static bool
is_kept(int pattern, size_t i)
{
    const uint64_t r = random_at(11, i) % 8;

    return pattern == 0   ? false
           : pattern == 1 ? true
           : pattern == 2 ? r < 4
           : pattern == 3 ? r < 1
                          : r < 7;
}

static void
check_gather(const scio_kernels_table *kernels, arrays *a)
{
    int32_t map[N_COLS];

    for (int pattern = 0; pattern < 5; pattern++) {
        for (size_t c = 0; c < N_COLS; c++)
            map[c] = is_kept(pattern, c) ? (int32_t)(3 * c) : c % 2 == 0 ? -1 : INT32_MIN;
        for (int is_wide = 0; is_wide < 2; is_wide++) {
            size_t n_kept, n_expected = 0;

            for (size_t i = 0; i < a->n; i++) {
                a->u32[i] = a->u16[i] = (uint16_t)(random_at(12, i) % N_COLS);
                a->x[i] = any_float(13, i);
            }
            n_kept = is_wide ? kernels->gather_map_u32(a->u32, a->x, a->n, map, a->ids, a->y)
                             : kernels->gather_map_u16(a->u16, a->x, a->n, map, a->ids, a->y);
            for (size_t i = 0; i < a->n; i++) {
                if (map[a->u32[i]] < 0)
                    continue;
                CHECK(a->ids[n_expected] == map[a->u32[i]]);
                CHECK(same_bits(a->y[n_expected], a->x[i]));
                n_expected++;
            }
            CHECK(n_kept == n_expected);
        }
    }
}

TEST(gather_by_map_keeps_the_order_and_drops_the_unmapped)
{
    at_every_level_and_length(check_gather);
}

/* ids[i] = i before, so that ids tell which entries were kept. */
static void
number(arrays *a)
{
    for (size_t i = 0; i < a->n; i++)
        a->ids[i] = (int32_t)i;
    memcpy(a->y, a->x, a->n * sizeof *a->x);
}

static void
check_drop_zeros(const scio_kernels_table *kernels, arrays *a)
{
    for (int pattern = 0; pattern < 5; pattern++) {
        size_t n_kept, n_expected = 0;

        for (size_t i = 0; i < a->n; i++) {
            const float x = any_float(14, i);

            a->x[i] = !is_kept(pattern, i) ? (i % 2 == 0 ? 0.0f : -0.0f) : x == 0.0f ? NAN : x;
        }
        number(a);
        n_kept = kernels->drop_zeros(a->ids, a->y, a->n);
        for (size_t i = 0; i < a->n; i++) {
            if (!is_kept(pattern, i))
                continue;
            CHECK(a->ids[n_expected] == (int32_t)i && same_bits(a->y[n_expected], a->x[i]));
            n_expected++;
        }
        CHECK(n_kept == n_expected);
    }
}

TEST(drop_zeros_keeps_nan_and_negative_values)
{
    at_every_level_and_length(check_drop_zeros);
}

static void
check_keep_above(const scio_kernels_table *kernels, arrays *a)
{
    /* on both sides of 2^31: the comparison is unsigned */
    const uint32_t thresholds[] = {0, 0x7FFFFFFF, 0x80000000, 0xC0000000, UINT32_MAX};

    for (size_t k = 0; k < sizeof thresholds / sizeof *thresholds; k++) {
        size_t n_kept, n_expected = 0;

        for (size_t i = 0; i < a->n; i++) {
            a->x[i] = any_float(15, i);
            a->u32[i] = i % 9 == 0 ? thresholds[k] : (uint32_t)random_at(16, i);
        }
        number(a);
        n_kept = kernels->keep_above_u32(a->ids, a->y, a->u32, a->n, thresholds[k]);
        for (size_t i = 0; i < a->n; i++) {
            if (a->u32[i] <= thresholds[k])
                continue;
            CHECK(a->ids[n_expected] == (int32_t)i && same_bits(a->y[n_expected], a->x[i]));
            n_expected++;
        }
        CHECK(n_kept == n_expected);
    }
}

TEST(keep_above_takes_what_is_strictly_above)
{
    at_every_level_and_length(check_keep_above);
}

static void
check_keep_masked(const scio_kernels_table *kernels, arrays *a)
{
    for (int pattern = 0; pattern < 5; pattern++) {
        size_t n_kept, n_expected = 0;

        for (size_t i = 0; i < a->n; i++) {
            a->x[i] = any_float(17, i);
            a->u8[i] = is_kept(pattern, i) ? (uint8_t)(1 + i % 255) : 0;
        }
        number(a);
        n_kept = kernels->keep_masked(a->ids, a->y, a->n, a->u8);
        for (size_t i = 0; i < a->n; i++) {
            if (a->u8[i] == 0)
                continue;
            CHECK(a->ids[n_expected] == (int32_t)i && same_bits(a->y[n_expected], a->x[i]));
            n_expected++;
        }
        CHECK(n_kept == n_expected);
    }
}

TEST(keep_masked_takes_ids_that_are_marked)
{
    at_every_level_and_length(check_keep_masked);
}

TEST(the_table_in_force_is_that_of_the_cpu)
{
    CHECK(scio_kernels() == scio_kernels_at(scio_cpu()));
    CHECK(scio_cpu() == SCIO_CPU_BASE || scio_kernels() != scio_kernels_at(SCIO_CPU_BASE));
}
