/* The casts from one element type to every other.  dtype.c defines SRC as a name of
 * SCIO_DTYPE_LIST and includes this file, which includes itself once per target with DST defined;
 * each such pass makes cast_<SRC>_<DST>, which returns n_items, or the first item that the target
 * cannot hold.
 *
 * Every loop is one pass that converts and, where the target lacks some values of the source,
 * gathers evidence of misfits; it has no exit, so that the compiler makes SIMD of it.  Only when
 * there is evidence does a second loop look for the place.  Elements are loaded and stored through
 * memcpy, which costs nothing and needs no alignment. */

#ifndef DST

#define SRC_VALUE PASTE(value_, SRC)
#define SRC_CLASS PASTE(CLASS_, SRC)
#define SRC_N_BITS PASTE(N_BITS_, SRC)
#define LOAD PASTE(load_, SRC)

static inline SRC_VALUE
LOAD(const unsigned char *from, size_t i)
{
    PASTE(stored_, SRC) stored;

    memcpy(&stored, from + i * sizeof stored, sizeof stored);
    return PASTE(DECODE_, SRC)(stored);
}

#define DST BOOL
#include "base/dtype_template.h"
#define DST I8
#include "base/dtype_template.h"
#define DST I16
#include "base/dtype_template.h"
#define DST I32
#include "base/dtype_template.h"
#define DST I64
#include "base/dtype_template.h"
#define DST U8
#include "base/dtype_template.h"
#define DST U16
#include "base/dtype_template.h"
#define DST U32
#include "base/dtype_template.h"
#define DST U64
#include "base/dtype_template.h"
#define DST F16
#include "base/dtype_template.h"
#define DST F32
#include "base/dtype_template.h"
#define DST F64
#include "base/dtype_template.h"

#undef SRC_VALUE
#undef SRC_CLASS
#undef SRC_N_BITS
#undef LOAD
#undef SRC

#else

#define DST_STORED PASTE(stored_, DST)
#define DST_CLASS PASTE(CLASS_, DST)
#define DST_N_BITS PASTE(N_BITS_, DST)
#define CAST PASTE(PASTE(PASTE(cast_, SRC), _), DST)

#if DST_CLASS == CLASS_IS_BOOL
#define CONVERT(value) ((value) != 0)
#elif DST_CLASS == CLASS_IS_F16 && (SRC_N_BITS <= 16 || SRC_CLASS == CLASS_IS_F32)
#define CONVERT(value) f32_bits_to_f16(f32_bits((float)(value)))
#elif DST_CLASS == CLASS_IS_F16 /* integers beyond 2^53 are rounded twice: both give infinity */
#define CONVERT(value) f64_to_f16((double)(value))
#else
#define CONVERT(value) ((DST_STORED)(value))
#endif

#if DST_CLASS == CLASS_IS_BOOL || DST_CLASS >= CLASS_IS_F16 ||                                     \
    (SRC_CLASS < CLASS_IS_F16 && SRC_N_BITS < DST_N_BITS && SRC_CLASS != CLASS_IS_SIGNED) ||       \
    (SRC_CLASS == DST_CLASS && SRC_N_BITS <= DST_N_BITS)

/* The target has a value for each of the source. */
static size_t
CAST(const unsigned char *restrict from, unsigned char *restrict to, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        const DST_STORED result = CONVERT(LOAD(from, i));

        memcpy(to + i * sizeof result, &result, sizeof result);
    }
    return n_items;
}

#elif SRC_CLASS >= CLASS_IS_F16

/* Where nothing becomes SIMD anyhow, a branch that is never taken is cheaper than a mask. */
#if SRC_CLASS == CLASS_IS_F64 || DST_N_BITS == 64
#define OR_ZERO(condition, value) ((condition) ? (value) : 0)
#else
#define OR_ZERO(condition, value) f32_or_zero(condition, value)
#endif

/* Float to integer.  C does not define the conversion of what is out of range: such values, and
 * NaN, become 0 before it and differ from the result after it, as those with a fraction do.  Both
 * limits are powers of two, hence exact. */
static size_t
CAST(const unsigned char *restrict from, unsigned char *restrict to, size_t n_items)
{
    const SRC_VALUE below = (SRC_VALUE)PASTE(MIN_, DST);
    const SRC_VALUE above = (SRC_VALUE)(PASTE(MAX_, DST) / 2 + 1) * 2;
    unsigned misfits = 0;

    for (size_t i = 0; i < n_items; i++) {
        const SRC_VALUE value = LOAD(from, i);
        const bool is_inside = (value >= below) & (value < above);
        const DST_STORED result = (DST_STORED)OR_ZERO(is_inside, value);

        misfits |= (SRC_VALUE)result != value;
        memcpy(to + i * sizeof result, &result, sizeof result);
    }
    if (misfits == 0)
        return n_items;
    for (size_t i = 0; i < n_items; i++) {
        const SRC_VALUE value = LOAD(from, i);

        if (!(value >= below && value < above && (SRC_VALUE)(DST_STORED)value == value))
            return i;
    }
    return n_items;
}

#undef OR_ZERO

#else

/* Integer to integer.  A value fits when no bit above those of the greatest value of both types is
 * set; where both are signed, a negative one has its bits turned over first.  So the OR of all
 * tells whether all fit. */
#if SRC_CLASS == CLASS_IS_SIGNED && DST_CLASS == CLASS_IS_SIGNED
#define FOLD(value) ((PASTE(unsigned_, SRC))((value) ^ ((value) >> (SRC_N_BITS - 1))))
#else
#define FOLD(value) ((PASTE(unsigned_, SRC))(value))
#endif

static size_t
CAST(const unsigned char *restrict from, unsigned char *restrict to, size_t n_items)
{
    const uint64_t src_max = PASTE(MAX_, SRC), dst_max = PASTE(MAX_, DST);
    const uint64_t fitting = src_max < dst_max ? src_max : dst_max;
    PASTE(unsigned_, SRC) seen = 0;

    for (size_t i = 0; i < n_items; i++) {
        const SRC_VALUE value = LOAD(from, i);
        const DST_STORED result = (DST_STORED)value;

        seen |= FOLD(value);
        memcpy(to + i * sizeof result, &result, sizeof result);
    }
    if (seen <= fitting)
        return n_items;
    for (size_t i = 0; i < n_items; i++) {
        if (FOLD(LOAD(from, i)) > fitting)
            return i;
    }
    return n_items;
}

#undef FOLD
#endif

#undef DST_STORED
#undef DST_CLASS
#undef DST_N_BITS
#undef CAST
#undef CONVERT
#undef DST
#endif
