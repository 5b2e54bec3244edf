#include "base/dtype.h"

#include "base/rng.h"
#include "test.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_ITEMSIZE 8
#define N_VALUES 160

__extension__ typedef __int128 big_int;

/* --- the oracle: one value at a time, through types wider than any that is cast --- */

/* A value of any dtype: a whole number if is_whole, else a floating-point one. */
typedef struct any_value {
    bool is_whole;
    big_int whole;
    long double real; /* holds every int64, uint64 and double */
} any_value;

static long double
half_value(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const long double sign = bits >> 15 ? -1 : 1;

    if (exponent == 31)
        return fraction != 0 ? (long double)NAN : sign * (long double)INFINITY;
    if (exponent == 0)
        return sign * ldexpl(fraction, -24);
    return sign * ldexpl(1024 + fraction, exponent - 25);
}

/* The nearest half, ties to even, by scaling so that rintl rounds at the right place. */
static uint16_t
nearest_half(long double value)
{
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    const long double magnitude = fabsl(value);
    int exponent;
    long double scaled;

    if (isnan(value))
        return 0x7e00;
    if (magnitude >= 65520)
        return (uint16_t)(sign | 0x7c00);
    (void)frexpl(magnitude, &exponent); /* magnitude in [2^(exponent - 1), 2^exponent) */
    exponent = magnitude < ldexpl(1, -14) ? -13 : exponent;
    scaled = rintl(ldexpl(magnitude, 11 - exponent)); /* units of the last place, at most 2048 */
    if (exponent == -13)
        return (uint16_t)(sign | (uint16_t)scaled); /* 1024 is the smallest normal one */
    return (uint16_t)(sign | (uint16_t)((exponent + 13) * 1024 + (int)scaled));
}

static any_value
value_at(scio_dtype dtype, const unsigned char *item)
{
    any_value v = {false, 0, 0};

#define READ_WHOLE(name, ctype)                                                                    \
    case SCIO_##name: {                                                                            \
        ctype x;                                                                                   \
        memcpy(&x, item, sizeof x);                                                                \
        v.is_whole = true;                                                                         \
        v.whole = x;                                                                               \
        v.real = x;                                                                                \
        break;                                                                                     \
    }
    switch (dtype) {
        READ_WHOLE(I8, int8_t)
        READ_WHOLE(I16, int16_t)
        READ_WHOLE(I32, int32_t)
        READ_WHOLE(I64, int64_t)
        READ_WHOLE(U8, uint8_t)
        READ_WHOLE(U16, uint16_t)
        READ_WHOLE(U32, uint32_t)
        READ_WHOLE(U64, uint64_t)
    case SCIO_BOOL:
        v.is_whole = true;
        v.whole = item[0] != 0;
        v.real = item[0] != 0;
        break;
    case SCIO_F16:
        v.real = half_value((uint16_t)(item[0] | item[1] << 8));
        break;
    case SCIO_F32: {
        float x;
        memcpy(&x, item, sizeof x);
        v.real = x;
        break;
    }
    default: {
        double x;
        memcpy(&x, item, sizeof x);
        v.real = x;
        break;
    }
    }
    if (!v.is_whole && isfinite(v.real) && fabsl(v.real) < 0x1p100L && truncl(v.real) == v.real) {
        v.is_whole = true;
        v.whole = (big_int)v.real;
    }
    return v;
}

/* Writes what the cast should give; false when the value does not fit. */
static bool
expected_cast(any_value v, scio_dtype dtype, unsigned char *out)
{
#define WRITE_WHOLE(name, ctype, least, greatest)                                                  \
    case SCIO_##name: {                                                                            \
        const ctype x = (ctype)v.whole;                                                            \
        memcpy(out, &x, sizeof x);                                                                 \
        return v.is_whole && v.whole >= (least) && v.whole <= (greatest);                          \
    }
    switch (dtype) {
        WRITE_WHOLE(I8, int8_t, INT8_MIN, INT8_MAX)
        WRITE_WHOLE(I16, int16_t, INT16_MIN, INT16_MAX)
        WRITE_WHOLE(I32, int32_t, INT32_MIN, INT32_MAX)
        WRITE_WHOLE(I64, int64_t, INT64_MIN, INT64_MAX)
        WRITE_WHOLE(U8, uint8_t, 0, UINT8_MAX)
        WRITE_WHOLE(U16, uint16_t, 0, UINT16_MAX)
        WRITE_WHOLE(U32, uint32_t, 0, UINT32_MAX)
        WRITE_WHOLE(U64, uint64_t, 0, (big_int)UINT64_MAX)
    case SCIO_BOOL:
        out[0] = !(v.real == 0);
        return true;
    case SCIO_F16: {
        const uint16_t x = nearest_half(v.real);
        memcpy(out, &x, sizeof x);
        return true;
    }
    case SCIO_F32: {
        const float x = (float)v.real;
        memcpy(out, &x, sizeof x);
        return true;
    }
    default: {
        const double x = (double)v.real;
        memcpy(out, &x, sizeof x);
        return true;
    }
    }
}

static bool
is_same_item(scio_dtype dtype, const unsigned char *a, const unsigned char *b)
{
    if (scio_dtype_kind(dtype) == 'f' && isnan(value_at(dtype, a).real))
        return isnan(value_at(dtype, b).real);
    return memcmp(a, b, scio_dtype_itemsize(dtype)) == 0;
}

/* --- values worth casting --- */

/* Fills values[N_VALUES] of the dtype: those around every power of two that it has, special ones
 * and random bits. */
static void
make_values(scio_dtype dtype, unsigned char *values)
{
    static const double reals[] = {
        0.0,    -0.0,    0.5,     -0.5,    1.5,         1e-8,  65504,   65519.99, 65520,
        65536,  -65504,  -65520,  2049,    2051,        1e300, -1e300,  INFINITY, -INFINITY,
        NAN,    0x1p-24, 0x1p-25, 0x1p-26, 0x1.8p-24,   1e-40, -1e-310, 127.5,    -128.5,
        0x1p63, -0x1p63, 0x1p64,  0x1p31,  -0x1p31 - 1, 255,   0x1p32,  0x1p53,   0x1p62,
        -129,   -128,    127,     128,     256,         3e38,  4e38,    0x1p-14,  0x1p-15,
    };
    const size_t itemsize = scio_dtype_itemsize(dtype);

    for (size_t i = 0; i < N_VALUES; i++) {
        unsigned char *item = values + i * itemsize;
        uint64_t bits = scio_rng_u64(1, (uint64_t)dtype, i);

        if (scio_dtype_kind(dtype) == 'f' && i < sizeof reals / sizeof reals[0]) {
            if (!expected_cast((any_value){false, 0, reals[i]}, dtype, item))
                memset(item, 0, itemsize);
            continue;
        }
        if (scio_dtype_kind(dtype) != 'f' && i < 6 * 8 * itemsize && i < 130)
            bits = (UINT64_C(1) << (i / 6 % (8 * itemsize))) * (i % 2 == 0 ? 1 : UINT64_MAX) +
                   i % 3 - 1;
        memcpy(item, &bits, itemsize); /* little-endian: the low bytes */
    }
}

TEST(every_cast_of_every_value_agrees_with_the_oracle)
{
    for (int s = SCIO_DTYPE_NONE + 1; s < SCIO_N_DTYPES; s++) {
        const scio_dtype src_dtype = (scio_dtype)s;
        const size_t src_itemsize = scio_dtype_itemsize(src_dtype);
        unsigned char values[N_VALUES * MAX_ITEMSIZE];

        make_values(src_dtype, values);
        for (int d = SCIO_DTYPE_NONE + 1; d < SCIO_N_DTYPES; d++) {
            const scio_dtype dst_dtype = (scio_dtype)d;

            for (size_t i = 0; i < N_VALUES; i++) {
                const unsigned char *item = values + i * src_itemsize;
                unsigned char got[MAX_ITEMSIZE], expected[MAX_ITEMSIZE];
                const bool fits = expected_cast(value_at(src_dtype, item), dst_dtype, expected);
                const scio_status status = scio_cast(src_dtype, item, dst_dtype, got, 1, NULL);

                if (status != (fits ? SCIO_OK : SCIO_ERANGE) ||
                    (fits && !is_same_item(dst_dtype, expected, got)))
                    printf("%s %.20Lg to %s: ", scio_dtype_name(src_dtype),
                           value_at(src_dtype, item).real, scio_dtype_name(dst_dtype));
                CHECK(status == (fits ? SCIO_OK : SCIO_ERANGE));
                CHECK(!fits || is_same_item(dst_dtype, expected, got));
            }
        }
    }
}

/* The items of `values` that fit, n_items of them, by going round. */
static void
fill_fitting(scio_dtype src_dtype, const unsigned char *values, scio_dtype dst_dtype,
             unsigned char *src, unsigned char *expected, size_t n_items)
{
    const size_t src_itemsize = scio_dtype_itemsize(src_dtype);
    const size_t dst_itemsize = scio_dtype_itemsize(dst_dtype);

    for (size_t n = 0, i = 0; n < n_items; i++) {
        const unsigned char *item = values + i % N_VALUES * src_itemsize;

        if (!expected_cast(value_at(src_dtype, item), dst_dtype, expected + n * dst_itemsize))
            continue;
        memcpy(src + n * src_itemsize, item, src_itemsize);
        n++;
    }
}

/* Two arrays that end where memory ends, at odd addresses when is_odd. */
enum { N_ARRAY = 611, PAGE_ROOM = 3 * 4096 };

static unsigned char *
guarded_pages(void)
{
    unsigned char *pages =
        mmap(NULL, PAGE_ROOM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(pages != MAP_FAILED && mprotect(pages + PAGE_ROOM, 4096, PROT_NONE) == 0);
    return pages;
}

static void
check_array_cast(scio_dtype src_dtype, const unsigned char *values, scio_dtype dst_dtype,
                 unsigned char *src_pages, unsigned char *dst_pages)
{
    const size_t src_itemsize = scio_dtype_itemsize(src_dtype);
    const size_t dst_itemsize = scio_dtype_itemsize(dst_dtype);
    static unsigned char expected[N_ARRAY * MAX_ITEMSIZE];
    bool is_equal = true;

    for (size_t shift = 0; shift < 2; shift++) {
        unsigned char *src = src_pages + PAGE_ROOM - N_ARRAY * src_itemsize - shift;
        unsigned char *dst = dst_pages + PAGE_ROOM - N_ARRAY * dst_itemsize - shift;

        fill_fitting(src_dtype, values, dst_dtype, src, expected, N_ARRAY);
        memset(dst_pages, 0xee, PAGE_ROOM);
        CHECK(scio_cast(src_dtype, src, dst_dtype, dst, N_ARRAY, NULL) == SCIO_OK);
        for (size_t i = 0; i < N_ARRAY; i++)
            is_equal &=
                is_same_item(dst_dtype, expected + i * dst_itemsize, dst + i * dst_itemsize);
        CHECK(is_equal && dst[-1] == 0xee && (shift == 0 || dst_pages[PAGE_ROOM - 1] == 0xee));
        /* the same from swapped bytes */
        scio_byteswap(src, src_itemsize, N_ARRAY);
        memset(dst_pages, 0xee, PAGE_ROOM);
        CHECK(scio_cast_swapped(src_dtype, src, dst_dtype, dst, N_ARRAY, NULL) == SCIO_OK);
        for (size_t i = 0; i < N_ARRAY; i++)
            is_equal &=
                is_same_item(dst_dtype, expected + i * dst_itemsize, dst + i * dst_itemsize);
        CHECK(is_equal && dst[-1] == 0xee && (shift == 0 || dst_pages[PAGE_ROOM - 1] == 0xee));
    }
}

TEST(arrays_are_cast_at_odd_addresses_up_to_the_last_byte_and_no_further)
{
    unsigned char *src_pages = guarded_pages(), *dst_pages = guarded_pages();
    unsigned char values[N_VALUES * MAX_ITEMSIZE];

    for (int s = SCIO_DTYPE_NONE + 1; s < SCIO_N_DTYPES; s++) {
        make_values((scio_dtype)s, values);
        for (int d = SCIO_DTYPE_NONE + 1; d < SCIO_N_DTYPES; d++)
            check_array_cast((scio_dtype)s, values, (scio_dtype)d, src_pages, dst_pages);
    }
    (void)munmap(src_pages, PAGE_ROOM + 4096);
    (void)munmap(dst_pages, PAGE_ROOM + 4096);
}

TEST(the_first_misfit_is_named_wherever_it_stands)
{
    static const size_t places[] = {0, 1, 7, 16, 255, 256, 257, 511, 512, 610};

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        static int32_t items[N_ARRAY];
        static uint8_t bytes[N_ARRAY];
        char expected[80];
        scio_error err = SCIO_ERROR_INIT, swapped_err = SCIO_ERROR_INIT;

        memset(items, 0, sizeof items);
        items[places[i]] = 300;
        items[N_ARRAY - 1] = -1;
        (void)snprintf(expected, sizeof expected,
                       places[i] == N_ARRAY - 1
                           ? "the int32 value -1 at position %zu does not fit into uint8"
                           : "the int32 value 300 at position %zu does not fit into uint8",
                       places[i]);
        CHECK(scio_cast(SCIO_I32, items, SCIO_U8, bytes, N_ARRAY, &err) == SCIO_ERANGE);
        CHECK_STR(err.message, expected);
        scio_byteswap(items, sizeof items[0], N_ARRAY);
        CHECK(scio_cast_swapped(SCIO_I32, items, SCIO_U8, bytes, N_ARRAY, &swapped_err) ==
              SCIO_ERANGE);
        CHECK(strcmp(swapped_err.message, err.message) == 0);
    }
}

TEST(misfits_are_shown_as_what_they_are)
{
    const double reals[] = {1, 0.5, NAN};
    const uint64_t wholes[] = {UINT64_MAX};
    const uint16_t halves[] = {0x7c00};
    int64_t out[3];

    for (size_t i = 0; i < 4; i++) {
        static const char *const messages[] = {
            "the float64 value 0.5 at position 1 does not fit into int64",
            "the float64 value nan at position 0 does not fit into int64",
            "the uint64 value 18446744073709551615 at position 0 does not fit into int64",
            "the float16 value inf at position 0 does not fit into int64",
        };
        const scio_dtype dtypes[] = {SCIO_F64, SCIO_F64, SCIO_U64, SCIO_F16};
        const void *sources[] = {reals, reals + 2, wholes, halves};
        scio_error err = SCIO_ERROR_INIT;

        CHECK(scio_cast(dtypes[i], sources[i], SCIO_I64, out, i == 0 ? 3 : 1, &err) == SCIO_ERANGE);
        CHECK_STR(err.message, messages[i]);
    }
}

TEST(equal_dtypes_may_share_memory)
{
    uint8_t bools[] = {0, 1, 2, 255};
    float reals[] = {1, NAN, -0.0f};
    const float kept[] = {1, NAN, -0.0f};

    CHECK(scio_cast(SCIO_BOOL, bools, SCIO_BOOL, bools, 4, NULL) == SCIO_OK);
    CHECK(bools[0] == 0 && bools[1] == 1 && bools[2] == 1 && bools[3] == 1);
    CHECK(scio_cast(SCIO_F32, reals, SCIO_F32, reals, 3, NULL) == SCIO_OK);
    CHECK(memcmp(reals, kept, sizeof kept) == 0);
    CHECK(scio_cast_swapped(SCIO_F32, reals, SCIO_F32, reals, 3, NULL) == SCIO_OK);
    CHECK(scio_cast_swapped(SCIO_F32, reals, SCIO_F32, reals, 3, NULL) == SCIO_OK);
    CHECK(memcmp(reals, kept, sizeof kept) == 0);
}

TEST(a_cast_of_nothing_works_and_one_of_no_dtype_does_not)
{
    scio_error err = SCIO_ERROR_INIT;
    char memory[8] = {0};

    CHECK(scio_cast(SCIO_I8, NULL, SCIO_F64, NULL, 0, NULL) == SCIO_OK);
    CHECK(scio_cast(SCIO_I8, NULL, SCIO_I8, NULL, 0, NULL) == SCIO_OK);
    CHECK(scio_cast_swapped(SCIO_I32, NULL, SCIO_F64, NULL, 0, NULL) == SCIO_OK);
    CHECK(scio_cast(SCIO_DTYPE_NONE, memory, SCIO_F64, memory, 1, &err) == SCIO_ETYPE);
    CHECK_STR(err.message, "no cast from none to float64");
    CHECK(scio_cast(SCIO_I8, memory, (scio_dtype)99, memory, 1, NULL) == SCIO_ETYPE);
    CHECK(scio_cast_swapped(SCIO_I32, memory, SCIO_DTYPE_NONE, memory, 1, NULL) == SCIO_ETYPE);
    CHECK(scio_cast_swapped(SCIO_DTYPE_NONE, memory, SCIO_I8, memory, 1, NULL) == SCIO_ETYPE);
}

TEST(every_half_becomes_its_value_and_comes_back)
{
    size_t n_wrong = 0;

    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float value = scio_f16_to_f32((uint16_t)bits);
        const long double expected = half_value((uint16_t)bits);
        const uint16_t back = scio_f32_to_f16(value);

        if (isnan(expected)) /* keeps sign and upper payload; a signalling one becomes quiet */
            n_wrong += !isnan(value) || back != (bits | 0x200);
        else
            n_wrong += (long double)value != expected ||
                       (signbit(value) != 0) != (bits >> 15 != 0) || back != bits;
    }
    CHECK(n_wrong == 0);
}

/* Around the middle between two neighbouring halves, where rounding turns over. */
TEST(singles_and_doubles_round_to_the_nearest_half_on_every_edge)
{
    size_t n_wrong = 0;

    for (uint16_t bits = 0; bits < 0x7c00; bits++) {
        const double low = scio_f16_to_f32(bits);
        const double high = bits == 0x7bff ? 65536 : scio_f16_to_f32((uint16_t)(bits + 1));
        const double middle = (low + high) / 2;
        const double doubles[] = {middle,  nextafter(middle, 0), nextafter(middle, 1e9),
                                  -middle, middle * (1 + 1e-12), middle * (1 - 1e-12)};
        const float singles[] = {(float)middle, nextafterf((float)middle, 0),
                                 nextafterf((float)middle, 1e9f), -(float)middle};

        for (size_t i = 0; i < sizeof doubles / sizeof doubles[0]; i++) {
            uint16_t half;

            n_wrong += scio_cast(SCIO_F64, &doubles[i], SCIO_F16, &half, 1, NULL) != SCIO_OK ||
                       half != nearest_half(doubles[i]);
        }
        for (size_t i = 0; i < sizeof singles / sizeof singles[0]; i++)
            n_wrong += scio_f32_to_f16(singles[i]) != nearest_half(singles[i]);
    }
    CHECK(n_wrong == 0);
}

TEST(random_singles_and_doubles_round_to_the_nearest_half)
{
    size_t n_wrong = 0;

    for (uint64_t i = 0; i < 300000; i++) {
        const uint64_t random = scio_rng_u64(8, 0, i);
        const uint32_t word = (uint32_t)random;
        const double wide = ldexp((double)(int64_t)random, (int)(i % 60) - 90);
        uint16_t half;
        float value;

        memcpy(&value, &word, sizeof value);
        half = scio_f32_to_f16(value);
        n_wrong += (isnan(value) ? !isnan(half_value(half)) : half != nearest_half(value)) ? 1 : 0;
        n_wrong += scio_cast(SCIO_F64, &wide, SCIO_F16, &half, 1, NULL) != SCIO_OK ||
                   half != nearest_half(wide);
    }
    CHECK(n_wrong == 0);
}

TEST(bytes_are_reversed_for_every_itemsize)
{
    for (size_t itemsize = 0; itemsize <= 17; itemsize++) {
        unsigned char memory[17 * 5 + 1], before[17 * 5 + 1];
        bool is_right = true;

        for (size_t i = 0; i < sizeof memory; i++)
            memory[i] = before[i] = (unsigned char)i;
        scio_byteswap(memory + 1, itemsize, 5);
        for (size_t i = 0; i < itemsize * 5; i++)
            is_right &=
                memory[1 + i] == before[1 + i / itemsize * itemsize + itemsize - 1 - i % itemsize];
        CHECK(is_right && memory[0] == 0);
        CHECK(memcmp(memory + 1 + itemsize * 5, before + 1 + itemsize * 5, 17 * 5 - itemsize * 5) ==
              0);
    }
}

TEST(the_table_knows_names_kinds_and_sizes)
{
    CHECK(scio_dtype_itemsize(SCIO_DTYPE_NONE) == 0 && scio_dtype_kind(SCIO_DTYPE_NONE) == 0);
    CHECK(strcmp(scio_dtype_name(SCIO_DTYPE_NONE), "none") == 0);
    CHECK(scio_dtype_itemsize((scio_dtype)77) == 0);
    CHECK(scio_dtype_itemsize(SCIO_F16) == 2 && scio_dtype_kind(SCIO_F16) == 'f');
    CHECK(scio_dtype_itemsize(SCIO_BOOL) == 1 && scio_dtype_kind(SCIO_BOOL) == 'b');
    CHECK(scio_dtype_kind(SCIO_U64) == 'u' && scio_dtype_kind(SCIO_I8) == 'i');
    for (int i = SCIO_DTYPE_NONE + 1; i < SCIO_N_DTYPES; i++)
        CHECK(scio_dtype_from_name(scio_dtype_name((scio_dtype)i)) == (scio_dtype)i);
    CHECK(scio_dtype_from_name("none") == SCIO_DTYPE_NONE);
    CHECK(scio_dtype_from_name("float") == SCIO_DTYPE_NONE);
    CHECK(scio_dtype_from_name("") == SCIO_DTYPE_NONE);
    CHECK(scio_dtype_from_name(NULL) == SCIO_DTYPE_NONE);
}
