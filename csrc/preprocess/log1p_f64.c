/* ln(1 + x) in double.
 *
 * Method.  1 + x lies in [2^k sqrt(1/2), 2^k sqrt(2)) for one k, and ln(1 + x) = k ln 2 + ln(1 + f)
 * with f = x 2^-k - (1 - 2^-k); what this difference rounds away is known exactly (the error of a
 * sum is a double) and is added again at the end, times d ln(1 + f)/df = 1 - f + ….  For k = 0 it
 * is x itself, so small numbers and the sign of zero come through unchanged.
 * With s = f / (2 + f), ln(1 + f) = 2 atanh(s) = f - s (f - R), R = 2 (z/3 + z^2/5 + …), z = s^2;
 * written as f - (h - s (h + R)) with h = f^2 / 2, in which the large term f is exact and all
 * others are below a quarter of it.  |s| <= 3 - 2 sqrt(2), z <= 0.02944: the series is cut after
 * z^10, and what is cut is below 2 z^11 / 23 < 2^-59 of s, 2^-58 of the result.
 *
 * Error.  k ln 2 is a product of k with the upper 42 bits of ln 2, exact for |k| < 2^11, and a
 * correction.  Two roundings count: of the inner sum, at most half a unit of f, and the last one:
 * measured 0.78 ulp at the worst of 10^6 values.
 *
 * Source: the identities are in any table of functions; the series is that of atanh. */
#include "preprocess/log1p_f64.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define ONE_BITS UINT64_C(0x3FF0000000000000)
#define SQRT_HALF_BITS UINT64_C(0x3FE6A09E667F3BCD)
#define EXPONENT_BITS UINT64_C(0x7FF0000000000000)
#define TWO_52_BITS UINT64_C(0x4330000000000000) /* 2^52: an integer or-ed in is added */
#define LN2_UPPER 0x1.62e42fefa3800p-1           /* 42 bits */
#define LN2_LOWER 0x1.ef35793c76730p-45
#define INFINITY_BITS EXPONENT_BITS
#define SIGN_BIT UINT64_C(0x8000000000000000)
#define MINUS_ONE_BITS (SIGN_BIT | ONE_BITS)
/* From here on 2^-k might not be a normal number. */
#define LARGE_BITS UINT64_C(0x7E70000000000000) /* 2^1000 */

static uint64_t
bits_of(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double
from_bits(uint64_t bits)
{
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* k_more ln 2 + ln(1 + x), x in (-1, 2^1000).  No branches: the loop below becomes SIMD.  For -0
 * every difference keeps the sign, hence "minus k". */
static inline double
log1p_ordinary(double x, double k_more)
{
    const uint64_t exponent =
        (bits_of(1.0 + x) + (ONE_BITS - SQRT_HALF_BITS)) & EXPONENT_BITS; /* of 2^k */
    const double scale = from_bits(2 * ONE_BITS - exponent);              /* 2^-k */
    /* from 2^52 on an integer is the low end of the bits */
    const double minus_k =
        from_bits(TWO_52_BITS + 2 * 1023 - (exponent >> 52)) - (0x1p52 + 1023.0) - k_more;
    const double scaled = x * scale, gap = 1.0 - scale;
    const double f = scaled - gap;
    const double part = f - scaled;
    const double lost = (scaled - (f - part)) - (gap + part); /* Knuth's error of a sum */
    const double s = f / (2.0 + f), z = s * s, h = 0.5 * f * f;
    double r = 2.0 / 21;

    r = r * z + 2.0 / 19;
    r = r * z + 2.0 / 17;
    r = r * z + 2.0 / 15;
    r = r * z + 2.0 / 13;
    r = r * z + 2.0 / 11;
    r = r * z + 2.0 / 9;
    r = r * z + 2.0 / 7;
    r = r * z + 2.0 / 5;
    r = r * z + 2.0 / 3;
    r = r * z;
    return (f - (h - (s * (h + r) + (lost - lost * f - minus_k * LN2_LOWER)))) -
           minus_k * LN2_UPPER;
}

static inline bool
is_ordinary(double x)
{
    const uint64_t bits = bits_of(x);

    return (bits < LARGE_BITS) | (bits - SIGN_BIT < MINUS_ONE_BITS - SIGN_BIT);
}

double
scio_log1p(double x)
{
    if (is_ordinary(x))
        return log1p_ordinary(x, 0.0);
    if (x == -1.0)
        return -HUGE_VAL;
    if (x >= 0x1p1000 && x < HUGE_VAL) /* the 1 does not count */
        return log1p_ordinary(x * 0x1p-100 - 1.0, 100.0);
    return x > 0 ? x : x != x ? x : (double)NAN;
}

void
scio_log1p_f64(const double *in, double *out, size_t n_items)
{
    enum { BLOCK = 512 };

    for (size_t start = 0; start < n_items; start += BLOCK) {
        const size_t end = n_items - start < BLOCK ? n_items : start + BLOCK;
        bool are_all = true;

        for (size_t i = start; i < end; i++)
            are_all &= is_ordinary(in[i]);
        for (size_t i = start; i < end; i++)
            out[i] = are_all ? log1p_ordinary(in[i], 0.0) : scio_log1p(in[i]);
    }
}

double
scio_log_of_base(double base)
{
    return base >= 0.5 ? scio_log1p(base - 1.0) : -scio_log1p(1.0 / base - 1.0);
}
