/* The dtype table and the casts.
 *
 * A cast goes block by block through one of three wide types (int64, uint64, double) that holds every
 * value of the source exactly: 12 loads and 3 x 12 stores, from cast_template.h, in place of 144 pairs.
 * A store first asks in a loop that vectorises whether any value of the block does not fit; only then the
 * position is searched.  The pairs that big arrays meet have a direct loop besides. */
#include "base/dtype.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct dtype_row {
    size_t itemsize;
    char kind;
    const char *name;
} dtype_row;

static const dtype_row rows[SCIO_N_DTYPES] = {
    [SCIO_DTYPE_NONE] = {0, 0, "none"},
#define DTYPE_ROW(name, ctype, kind, text) [SCIO_##name] = {sizeof(ctype), kind, text},
    SCIO_DTYPE_LIST(DTYPE_ROW)
#undef DTYPE_ROW
};

size_t
scio_dtype_itemsize(scio_dtype dtype)
{
    return rows[dtype].itemsize;
}

char
scio_dtype_kind(scio_dtype dtype)
{
    return rows[dtype].kind;
}

const char *
scio_dtype_name(scio_dtype dtype)
{
    return rows[dtype].name;
}

scio_dtype
scio_dtype_from_name(const char *name)
{
    for (int i = 1; i < SCIO_N_DTYPES; i++)
        if (strcmp(rows[i].name, name) == 0)
            return (scio_dtype)i;
    return SCIO_DTYPE_NONE;
}

/* --- float16: 1 sign, 5 exponent (bias 15), 10 fraction bits --- */

float
scio_f16_to_f32(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    const uint32_t exponent = bits >> 10 & 0x1Fu;
    const uint32_t fraction = bits & 0x3FFu;
    uint32_t out;
    float value;

    if (exponent == 0x1F) { /* infinity, NaN */
        out = sign | 0x7F800000u | fraction << 13;
    } else if (exponent != 0) {
        out = sign | (exponent + 112u) << 23 | fraction << 13; /* 112 = 127 - 15 */
    } else { /* zero, subnormal: fraction * 2^-24 is exact in float32 */
        value = (float)fraction * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    memcpy(&value, &out, sizeof value);
    return value;
}

uint16_t
scio_f32_to_f16(float value)
{
    uint32_t bits, magnitude, rounded;
    uint16_t sign;

    memcpy(&bits, &value, sizeof bits);
    sign = (uint16_t)(bits >> 16 & 0x8000u);
    magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) /* NaN stays NaN, with the upper bits of its payload */
        return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
    if (magnitude >= 0x477FF000u) /* 65520, the first value that rounds to infinity */
        return (uint16_t)(sign | 0x7C00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal, in units of 2^-24 */
        const float scaled = fabsf(value) * 0x1p24f;

        return (uint16_t)(sign | (uint16_t)nearbyintf(scaled));
    }
    /* Half an ulp minus one, plus the last kept bit: ties go to even. */
    rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}

void
scio_byteswap(void *data, size_t itemsize, size_t n_items)
{
    unsigned char *bytes = data;

    for (size_t i = 0; i < n_items; i++, bytes += itemsize) {
        for (size_t a = 0, b = itemsize - 1; a < b; a++, b--) {
            const unsigned char kept = bytes[a];

            bytes[a] = bytes[b];
            bytes[b] = kept;
        }
    }
}

/* --- casts --- */

/* Values per block: two blocks of 8 bytes a value are 4 KiB of stack. */
enum { BLOCK = 256 };

typedef union wide_block {
    int64_t i[BLOCK];
    uint64_t u[BLOCK];
    double f[BLOCK];
} wide_block;

/* Rounds to float32 so that a second rounding, to float16, still gives the nearest: an inexact result
 * gets an odd last bit ("round to odd"; Boldo and Melquiond, IEEE Trans. Computers 57, 2008). */
static float
round_to_odd(double value)
{
    float narrow = (float)value;
    uint32_t bits;

    if ((double)narrow == value || !isfinite(narrow) || value != value)
        return narrow;
    memcpy(&bits, &narrow, sizeof bits);
    if ((bits & 1u) == 0)
        bits = fabs((double)narrow) > fabs(value) ? bits - 1 : bits + 1;
    memcpy(&narrow, &bits, sizeof narrow);
    return narrow;
}

typedef void (*load_fn)(const unsigned char *src, wide_block *wide, size_t n_items);
typedef bool (*store_fn)(const wide_block *wide, unsigned char *dst, size_t n_items, size_t *i_bad_out);

/* WIDE of a source: i for signed, bool and unsigned below 64 bits; u for uint64; f for floats. */
#define CAST_NAME BOOL
#define CAST_CTYPE uint8_t
#define CAST_WIDE i
#define CAST_IS_BOOL
#include "base/cast_template.h"

#define CAST_NAME I8
#define CAST_CTYPE int8_t
#define CAST_WIDE i
#define CAST_MIN INT8_MIN
#define CAST_MAX INT8_MAX
#include "base/cast_template.h"

#define CAST_NAME I16
#define CAST_CTYPE int16_t
#define CAST_WIDE i
#define CAST_MIN INT16_MIN
#define CAST_MAX INT16_MAX
#include "base/cast_template.h"

#define CAST_NAME I32
#define CAST_CTYPE int32_t
#define CAST_WIDE i
#define CAST_MIN INT32_MIN
#define CAST_MAX INT32_MAX
#include "base/cast_template.h"

#define CAST_NAME I64
#define CAST_CTYPE int64_t
#define CAST_WIDE i
#define CAST_MIN INT64_MIN
#define CAST_MAX INT64_MAX
#include "base/cast_template.h"

#define CAST_NAME U8
#define CAST_CTYPE uint8_t
#define CAST_WIDE i
#define CAST_MIN 0
#define CAST_MAX UINT8_MAX
#include "base/cast_template.h"

#define CAST_NAME U16
#define CAST_CTYPE uint16_t
#define CAST_WIDE i
#define CAST_MIN 0
#define CAST_MAX UINT16_MAX
#include "base/cast_template.h"

#define CAST_NAME U32
#define CAST_CTYPE uint32_t
#define CAST_WIDE i
#define CAST_MIN 0
#define CAST_MAX UINT32_MAX
#include "base/cast_template.h"

#define CAST_NAME U64
#define CAST_CTYPE uint64_t
#define CAST_WIDE u
#define CAST_MIN 0
#define CAST_MAX UINT64_MAX
#define CAST_IS_U64
#include "base/cast_template.h"

#define CAST_NAME F16
#define CAST_CTYPE uint16_t
#define CAST_WIDE f
#define CAST_IS_FLOAT
#define CAST_LOAD(x) ((double)scio_f16_to_f32(x))
#define CAST_STORE_INT(x) scio_f32_to_f16(round_to_odd((double)(x)))
#define CAST_STORE_FLOAT(x) scio_f32_to_f16(round_to_odd(x))
#include "base/cast_template.h"

#define CAST_NAME F32
#define CAST_CTYPE float
#define CAST_WIDE f
#define CAST_IS_FLOAT
#define CAST_LOAD(x) ((double)(x))
#define CAST_STORE_INT(x) ((float)(x))
#define CAST_STORE_FLOAT(x) ((float)(x))
#include "base/cast_template.h"

#define CAST_NAME F64
#define CAST_CTYPE double
#define CAST_WIDE f
#define CAST_IS_FLOAT
#define CAST_LOAD(x) (x)
#define CAST_STORE_INT(x) ((double)(x))
#define CAST_STORE_FLOAT(x) (x)
#include "base/cast_template.h"

static const load_fn loads[SCIO_N_DTYPES] = {
#define CAST_LOAD_ROW(name, ctype, kind, text) [SCIO_##name] = load_##name,
    SCIO_DTYPE_LIST(CAST_LOAD_ROW)
#undef CAST_LOAD_ROW
};

/* [dtype][0 from int64, 1 from uint64, 2 from double] */
static const store_fn stores[SCIO_N_DTYPES][3] = {
#define CAST_STORE_ROW(name, ctype, kind, text)                                                    \
    [SCIO_##name] = {store_i_##name, store_u_##name, store_f_##name},
    SCIO_DTYPE_LIST(CAST_STORE_ROW)
#undef CAST_STORE_ROW
};

static size_t
wide_of(scio_dtype dtype)
{
    if (dtype == SCIO_U64)
        return 1;
    return scio_dtype_kind(dtype) == 'f' ? 2 : 0;
}

static scio_status
does_not_fit(scio_dtype src_dtype, const wide_block *wide, size_t i_bad, scio_dtype dst_dtype,
             size_t position, scio_error *err)
{
    const char *const from = scio_dtype_name(src_dtype);
    const char *const to = scio_dtype_name(dst_dtype);

    switch (wide_of(src_dtype)) {
    case 0:
        return scio_fail(err, SCIO_ERANGE, "item %zu is %" PRId64 " (%s), which %s cannot hold",
                         position, wide->i[i_bad], from, to);
    case 1:
        return scio_fail(err, SCIO_ERANGE, "item %zu is %" PRIu64 " (%s), which %s cannot hold",
                         position, wide->u[i_bad], from, to);
    default:
        return scio_fail(err, SCIO_ERANGE, "item %zu is %.17g (%s), which %s cannot hold", position,
                         wide->f[i_bad], from, to);
    }
}

static scio_status
cast_blocks(scio_dtype src_dtype, const unsigned char *src, bool is_swapped, scio_dtype dst_dtype,
            unsigned char *dst, size_t n_items, scio_error *err)
{
    const size_t src_itemsize = scio_dtype_itemsize(src_dtype);
    const size_t dst_itemsize = scio_dtype_itemsize(dst_dtype);
    const store_fn store = stores[dst_dtype][wide_of(src_dtype)];
    unsigned char swapped[BLOCK * sizeof(uint64_t)];
    wide_block wide;

    for (size_t first = 0; first < n_items; first += BLOCK) {
        const size_t n_here = n_items - first < BLOCK ? n_items - first : BLOCK;
        const unsigned char *from = src + first * src_itemsize;
        size_t i_bad = 0;

        if (is_swapped) {
            memcpy(swapped, from, n_here * src_itemsize);
            scio_byteswap(swapped, src_itemsize, n_here);
            from = swapped;
        }
        loads[src_dtype](from, &wide, n_here);
        if (!store(&wide, dst + first * dst_itemsize, n_here, &i_bad))
            return does_not_fit(src_dtype, &wide, i_bad, dst_dtype, first + i_bad, err);
    }
    return SCIO_OK;
}

/* --- direct loops; false when the pair has none --- */

static void
f64_to_f32(const unsigned char *src, unsigned char *dst, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        double x;
        float y;

        memcpy(&x, src + i * sizeof x, sizeof x);
        y = (float)x;
        memcpy(dst + i * sizeof y, &y, sizeof y);
    }
}

static void
i32_to_f32(const unsigned char *src, unsigned char *dst, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        int32_t x;
        float y;

        memcpy(&x, src + i * sizeof x, sizeof x);
        y = (float)x;
        memcpy(dst + i * sizeof y, &y, sizeof y);
    }
}

static void
i32_to_i64(const unsigned char *src, unsigned char *dst, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        int32_t x;
        int64_t y;

        memcpy(&x, src + i * sizeof x, sizeof x);
        y = x;
        memcpy(dst + i * sizeof y, &y, sizeof y);
    }
}

static bool
cast_directly(scio_dtype src_dtype, const void *src, scio_dtype dst_dtype, void *dst, size_t n_items)
{
    if (src_dtype == dst_dtype && src_dtype != SCIO_BOOL) {
        if (n_items > 0 && src != dst)
            memmove(dst, src, n_items * scio_dtype_itemsize(src_dtype));
    } else if (src_dtype == SCIO_F64 && dst_dtype == SCIO_F32) {
        f64_to_f32(src, dst, n_items);
    } else if (src_dtype == SCIO_I32 && dst_dtype == SCIO_F32) {
        i32_to_f32(src, dst, n_items);
    } else if (src_dtype == SCIO_I32 && dst_dtype == SCIO_I64) {
        i32_to_i64(src, dst, n_items);
    } else {
        return false;
    }
    return true;
}

static scio_status
check_dtypes(scio_dtype src_dtype, scio_dtype dst_dtype, scio_error *err)
{
    if (src_dtype == SCIO_DTYPE_NONE || dst_dtype == SCIO_DTYPE_NONE)
        return scio_fail(err, SCIO_ETYPE, "no cast from %s to %s", scio_dtype_name(src_dtype),
                         scio_dtype_name(dst_dtype));
    return SCIO_OK;
}

scio_status
scio_cast(scio_dtype src_dtype, const void *src, scio_dtype dst_dtype, void *dst, size_t n_items,
          scio_error *err)
{
    SCIO_TRY(check_dtypes(src_dtype, dst_dtype, err));
    if (cast_directly(src_dtype, src, dst_dtype, dst, n_items))
        return SCIO_OK;
    return cast_blocks(src_dtype, src, false, dst_dtype, dst, n_items, err);
}

scio_status
scio_cast_swapped(scio_dtype src_dtype, const void *src, scio_dtype dst_dtype, void *dst,
                  size_t n_items, scio_error *err)
{
    SCIO_TRY(check_dtypes(src_dtype, dst_dtype, err));
    return cast_blocks(src_dtype, src, scio_dtype_itemsize(src_dtype) > 1, dst_dtype, dst, n_items, err);
}
