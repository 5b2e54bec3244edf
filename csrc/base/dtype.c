/* The table of element types and the casts between them. */
#include "base/dtype.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What dtype_template.h asks of a type: its class, its bits, how it is stored, which C type
 * computes with it and, of integers, its range. */
#define CLASS_IS_BOOL 0
#define CLASS_IS_UNSIGNED 1
#define CLASS_IS_SIGNED 2
#define CLASS_IS_F16 3
#define CLASS_IS_F32 4
#define CLASS_IS_F64 5

#define CLASS_BOOL CLASS_IS_BOOL
#define CLASS_I8 CLASS_IS_SIGNED
#define CLASS_I16 CLASS_IS_SIGNED
#define CLASS_I32 CLASS_IS_SIGNED
#define CLASS_I64 CLASS_IS_SIGNED
#define CLASS_U8 CLASS_IS_UNSIGNED
#define CLASS_U16 CLASS_IS_UNSIGNED
#define CLASS_U32 CLASS_IS_UNSIGNED
#define CLASS_U64 CLASS_IS_UNSIGNED
#define CLASS_F16 CLASS_IS_F16
#define CLASS_F32 CLASS_IS_F32
#define CLASS_F64 CLASS_IS_F64

#define N_BITS_BOOL 1
#define N_BITS_I8 8
#define N_BITS_I16 16
#define N_BITS_I32 32
#define N_BITS_I64 64
#define N_BITS_U8 8
#define N_BITS_U16 16
#define N_BITS_U32 32
#define N_BITS_U64 64
#define N_BITS_F16 16
#define N_BITS_F32 32
#define N_BITS_F64 64

#define MIN_I8 INT8_MIN
#define MIN_I16 INT16_MIN
#define MIN_I32 INT32_MIN
#define MIN_I64 INT64_MIN
#define MIN_U8 0
#define MIN_U16 0
#define MIN_U32 0
#define MIN_U64 0
#define MAX_I8 INT8_MAX
#define MAX_I16 INT16_MAX
#define MAX_I32 INT32_MAX
#define MAX_I64 INT64_MAX
#define MAX_U8 UINT8_MAX
#define MAX_U16 UINT16_MAX
#define MAX_U32 UINT32_MAX
#define MAX_U64 UINT64_MAX

#define STORED_TYPE(name, ctype, kind, text) typedef ctype stored_##name;
SCIO_DTYPE_LIST(STORED_TYPE)
#undef STORED_TYPE

typedef bool value_BOOL;
typedef int8_t value_I8;
typedef int16_t value_I16;
typedef int32_t value_I32;
typedef int64_t value_I64;
typedef uint8_t value_U8;
typedef uint16_t value_U16;
typedef uint32_t value_U32;
typedef uint64_t value_U64;
typedef float value_F16;
typedef float value_F32;
typedef double value_F64;

typedef uint8_t unsigned_I8, unsigned_U8;
typedef uint16_t unsigned_I16, unsigned_U16;
typedef uint32_t unsigned_I32, unsigned_U32;
typedef uint64_t unsigned_I64, unsigned_U64;

#define DECODE_BOOL(stored) ((stored) != 0)
#define DECODE_I8(stored) (stored)
#define DECODE_I16(stored) (stored)
#define DECODE_I32(stored) (stored)
#define DECODE_I64(stored) (stored)
#define DECODE_U8(stored) (stored)
#define DECODE_U16(stored) (stored)
#define DECODE_U32(stored) (stored)
#define DECODE_U64(stored) (stored)
#define DECODE_F16(stored) f16_to_f32(stored)
#define DECODE_F32(stored) (stored)
#define DECODE_F64(stored) (stored)

#define PASTE(a, b) PASTE_EXPANDED(a, b)
#define PASTE_EXPANDED(a, b) a##b

static inline uint32_t
f32_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float
f32_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The two below choose by masks: gcc makes branches, and no SIMD, of a `?:` that chooses among
 * results of floating-point arithmetic, which may trap. */
static inline uint32_t
pick_u32(bool condition, uint32_t yes, uint32_t no)
{
    return no ^ ((yes ^ no) & (0 - (uint32_t)condition));
}

static inline float
f32_or_zero(bool condition, float value)
{
    return f32_from_bits(f32_bits(value) & (0 - (uint32_t)condition));
}

/* Half precision has 5 bits of exponent (bias 15) and 10 of fraction, single 8 (bias 127) and 23.
 * Moved 13 places up, a half is a single whose exponent is 112 too low: the product with 2^112 is
 * exact and makes subnormal halves normal too.  Infinities and NaNs get the full exponent. */
static inline float
f16_to_f32(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    const uint32_t moved = (uint32_t)(bits & 0x7fffu) << 13;
    const uint32_t scaled = f32_bits(f32_from_bits(moved) * 0x1p112f);
    const uint32_t special = pick_u32(moved >= 0x7c00u << 13, 0x7f800000u, 0);

    return f32_from_bits(sign | scaled | special);
}

/* Rounds to nearest, ties to even.  In the normal range half a unit of the last place kept, less
 * one when that place is even, is added before the 13 places are cut; a carry moves on into the
 * exponent and at last to infinity.  Below 2^-14 the sum with 0.5, whose last place is 2^-24, is
 * rounded by the adder just where a subnormal half is. A NaN stays one and keeps its upper bits. */
static inline uint16_t
f32_bits_to_f16(uint32_t bits)
{
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    const uint32_t subnormal = f32_bits(f32_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    uint32_t half = pick_u32(magnitude < 113u << 23, subnormal, normal);

    half = pick_u32(magnitude >= 143u << 23, 0x7c00u, half);
    half = pick_u32(magnitude > 255u << 23, nan, half);
    return (uint16_t)(sign | half);
}

/* Through a single that was rounded to odd: cut towards zero, last bit set when that lost anything.
 * It has 13 places more than a half, so rounding it once more is rounding the double.
 * Source: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008. */
static inline uint16_t
f64_to_f16(double value)
{
    const float nearest = (float)value;
    const double back = (double)nearest;
    const bool is_above = __builtin_fabs(back) > __builtin_fabs(value);
    const uint32_t cut = f32_bits(nearest) - is_above;

    return f32_bits_to_f16(cut | (back != value));
}

#define SRC BOOL
#include "base/dtype_template.h"
#define SRC I8
#include "base/dtype_template.h"
#define SRC I16
#include "base/dtype_template.h"
#define SRC I32
#include "base/dtype_template.h"
#define SRC I64
#include "base/dtype_template.h"
#define SRC U8
#include "base/dtype_template.h"
#define SRC U16
#include "base/dtype_template.h"
#define SRC U32
#include "base/dtype_template.h"
#define SRC U64
#include "base/dtype_template.h"
#define SRC F16
#include "base/dtype_template.h"
#define SRC F32
#include "base/dtype_template.h"
#define SRC F64
#include "base/dtype_template.h"

typedef size_t (*cast_fn)(const unsigned char *restrict from, unsigned char *restrict to,
                          size_t n_items);

#define CAST_ROW(name, ctype, kind, text)                                                          \
    [SCIO_##name] = {                                                                              \
        [SCIO_BOOL] = cast_##name##_BOOL, [SCIO_I8] = cast_##name##_I8,                            \
        [SCIO_I16] = cast_##name##_I16,   [SCIO_I32] = cast_##name##_I32,                          \
        [SCIO_I64] = cast_##name##_I64,   [SCIO_U8] = cast_##name##_U8,                            \
        [SCIO_U16] = cast_##name##_U16,   [SCIO_U32] = cast_##name##_U32,                          \
        [SCIO_U64] = cast_##name##_U64,   [SCIO_F16] = cast_##name##_F16,                          \
        [SCIO_F32] = cast_##name##_F32,   [SCIO_F64] = cast_##name##_F64,                          \
    },
static const cast_fn casts[SCIO_N_DTYPES][SCIO_N_DTYPES] = {SCIO_DTYPE_LIST(CAST_ROW)};
#undef CAST_ROW

typedef struct dtype_info {
    size_t itemsize;
    char kind;
    const char *name;
} dtype_info;

static const dtype_info infos[SCIO_N_DTYPES] = {[SCIO_DTYPE_NONE] = {0, 0, "none"},
#define DTYPE_INFO(name, ctype, kind, text) [SCIO_##name] = {sizeof(ctype), kind, text},
                                                SCIO_DTYPE_LIST(DTYPE_INFO)
#undef DTYPE_INFO
};

/* A number that is none of the enum's is NONE. */
static const dtype_info *
info_of(scio_dtype dtype)
{
    return &infos[dtype < SCIO_N_DTYPES ? dtype : SCIO_DTYPE_NONE];
}

size_t
scio_dtype_itemsize(scio_dtype dtype)
{
    return info_of(dtype)->itemsize;
}

char
scio_dtype_kind(scio_dtype dtype)
{
    return info_of(dtype)->kind;
}

const char *
scio_dtype_name(scio_dtype dtype)
{
    return info_of(dtype)->name;
}

scio_dtype
scio_dtype_from_name(const char *name)
{
    for (int i = SCIO_DTYPE_NONE + 1; i < SCIO_N_DTYPES; i++) {
        if (name != NULL && strcmp(infos[i].name, name) == 0)
            return (scio_dtype)i;
    }
    return SCIO_DTYPE_NONE;
}

float
scio_f16_to_f32(uint16_t bits)
{
    return f16_to_f32(bits);
}

uint16_t
scio_f32_to_f16(float value)
{
    return f32_bits_to_f16(f32_bits(value));
}

/* Says which value at which position does not fit; the value goes through the cast to the widest
 * type of its kind, which cannot fail. */
static scio_status
fail_misfit(scio_dtype src_dtype, const unsigned char *item, scio_dtype dst_dtype, size_t i_item,
            scio_error *err)
{
    unsigned char wide[8];
    char text[48];
    int64_t i64;
    uint64_t u64;
    double f64;

    switch (scio_dtype_kind(src_dtype)) {
    case 'i':
        (void)casts[src_dtype][SCIO_I64](item, wide, 1);
        memcpy(&i64, wide, sizeof i64);
        (void)snprintf(text, sizeof text, "%" PRId64, i64);
        break;
    case 'f':
        (void)casts[src_dtype][SCIO_F64](item, wide, 1);
        memcpy(&f64, wide, sizeof f64);
        (void)snprintf(text, sizeof text, "%.17g", f64);
        break;
    default:
        (void)casts[src_dtype][SCIO_U64](item, wide, 1);
        memcpy(&u64, wide, sizeof u64);
        (void)snprintf(text, sizeof text, "%" PRIu64, u64);
        break;
    }
    return scio_fail(err, SCIO_ERANGE, "the %s value %s at position %zu does not fit into %s",
                     scio_dtype_name(src_dtype), text, i_item, scio_dtype_name(dst_dtype));
}

static scio_status
check_dtypes(scio_dtype src_dtype, scio_dtype dst_dtype, scio_error *err)
{
    if (scio_dtype_itemsize(src_dtype) == 0 || scio_dtype_itemsize(dst_dtype) == 0)
        return scio_fail(err, SCIO_ETYPE, "no cast from %s to %s", scio_dtype_name(src_dtype),
                         scio_dtype_name(dst_dtype));
    return SCIO_OK;
}

static void
normalise_bools(unsigned char *data, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++)
        data[i] = data[i] != 0;
}

scio_status
scio_cast(scio_dtype src_dtype, const void *src, scio_dtype dst_dtype, void *dst, size_t n_items,
          scio_error *err)
{
    size_t i_misfit;

    SCIO_TRY(check_dtypes(src_dtype, dst_dtype, err));
    if (n_items == 0)
        return SCIO_OK;
    if (src_dtype == dst_dtype) {
        if (dst != src)
            memcpy(dst, src, n_items * scio_dtype_itemsize(src_dtype));
        if (src_dtype == SCIO_BOOL)
            normalise_bools(dst, n_items);
        return SCIO_OK;
    }
    i_misfit = casts[src_dtype][dst_dtype](src, dst, n_items);
    if (i_misfit < n_items)
        return fail_misfit(src_dtype,
                           (const unsigned char *)src + i_misfit * scio_dtype_itemsize(src_dtype),
                           dst_dtype, i_misfit, err);
    return SCIO_OK;
}

/* Elements turned at a time: 2 KiB of the widest. */
#define SWAP_N_ITEMS 256

scio_status
scio_cast_swapped(scio_dtype src_dtype, const void *src, scio_dtype dst_dtype, void *dst,
                  size_t n_items, scio_error *err)
{
    const size_t src_itemsize = scio_dtype_itemsize(src_dtype);
    const size_t dst_itemsize = scio_dtype_itemsize(dst_dtype);
    const unsigned char *from = src;
    unsigned char *to = dst;
    unsigned char turned[SWAP_N_ITEMS * sizeof(uint64_t)];

    if (src_itemsize <= 1 || src_dtype == dst_dtype) {
        SCIO_TRY(scio_cast(src_dtype, src, dst_dtype, dst, n_items, err));
        scio_byteswap(dst, src_itemsize, n_items);
        return SCIO_OK;
    }
    SCIO_TRY(check_dtypes(src_dtype, dst_dtype, err));
    for (size_t i = 0; i < n_items; i += SWAP_N_ITEMS) {
        const size_t n_block = n_items - i < SWAP_N_ITEMS ? n_items - i : SWAP_N_ITEMS;
        size_t i_misfit;

        memcpy(turned, from + i * src_itemsize, n_block * src_itemsize);
        scio_byteswap(turned, src_itemsize, n_block);
        i_misfit = casts[src_dtype][dst_dtype](turned, to + i * dst_itemsize, n_block);
        if (i_misfit < n_block)
            return fail_misfit(src_dtype, turned + i_misfit * src_itemsize, dst_dtype, i + i_misfit,
                               err);
    }
    return SCIO_OK;
}

static void
byteswap_2(unsigned char *data, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        uint16_t item;

        memcpy(&item, data + 2 * i, sizeof item);
        item = __builtin_bswap16(item);
        memcpy(data + 2 * i, &item, sizeof item);
    }
}

static void
byteswap_4(unsigned char *data, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        uint32_t item;

        memcpy(&item, data + 4 * i, sizeof item);
        item = __builtin_bswap32(item);
        memcpy(data + 4 * i, &item, sizeof item);
    }
}

static void
byteswap_8(unsigned char *data, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        uint64_t item;

        memcpy(&item, data + 8 * i, sizeof item);
        item = __builtin_bswap64(item);
        memcpy(data + 8 * i, &item, sizeof item);
    }
}

static void
byteswap_any(unsigned char *data, size_t itemsize, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        unsigned char *low = data + i * itemsize, *high = low + itemsize - 1;

        for (; low < high; low++, high--) {
            const unsigned char byte = *low;

            *low = *high;
            *high = byte;
        }
    }
}

void
scio_byteswap(void *data, size_t itemsize, size_t n_items)
{
    switch (itemsize) {
    case 0:
    case 1:
        break;
    case 2:
        byteswap_2(data, n_items);
        break;
    case 4:
        byteswap_4(data, n_items);
        break;
    case 8:
        byteswap_8(data, n_items);
        break;
    default:
        byteswap_any(data, itemsize, n_items);
        break;
    }
}
