/* ln(x) in double: + - * / only, so the same bits on every machine, which libm's are not.
 *
 * Within a few units of the last place; called per gene, so a plain series is fast enough.  Source:
 * any table of functions. */
#ifndef SCIO_PREPROCESS_LOG_F64_H
#define SCIO_PREPROCESS_LOG_F64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SCIO_LN2_HIGH 0x1.62e42fefap-1            /* 36 bits: times any exponent it is exact */
#define SCIO_LN2_LOW 0x1.cf79abc9e3b39803f2f7p-40 /* ln 2 less that */

/* x in (0, infinity); 0 gives -infinity, infinity itself, what is negative or NaN gives NaN.
 *
 * x = 2^k m with m in [sqrt(1/2), sqrt(2)), f = m - 1 exactly, s = f / (2 + f), and
 * ln m = 2 atanh s = 2 (s + s^3/3 + s^5/5 ...) with |s| < 0.1716: the term of s^23 is below 2^-61
 * of the first. */
static inline double
scio_ln_f64(double x)
{
    const uint64_t one = 0x3ff0000000000000u, sqrt_half = 0x3fe6a09e667f3bcdu;
    double k = 0, f, s, z, p = 0;
    uint64_t bits;

    if (!(x > 0 && x < INFINITY))
        return x == 0 ? -INFINITY : x > 0 ? x : NAN;
    if (x < 0x1p-1022) { /* subnormal */
        x *= 0x1p54;
        k = -54;
    }
    memcpy(&bits, &x, sizeof bits);
    bits += one - sqrt_half; /* carries into the exponent from sqrt(2) on */
    k += (double)((int64_t)(bits >> 52) - 1023);
    bits = (bits & 0x000fffffffffffffu) + sqrt_half;
    memcpy(&f, &bits, sizeof f);
    f -= 1;
    s = f / (2 + f);
    z = s * s;
    for (int i = 21; i >= 3; i -= 2)
        p = (p + 1.0 / i) * z;
    /* 2s = f - s f, which keeps the first term exact */
    return k * SCIO_LN2_HIGH + (f - (s * f - (2 * s * p + k * SCIO_LN2_LOW)));
}

/* ln(1 + x), x > -1: what 1 + x lost is put back to first order. */
static inline double
scio_ln_1p_f64(double x)
{
    const double u = 1 + x;

    return x < INFINITY && u > 0 ? scio_ln_f64(u) + (x - (u - 1)) / u : scio_ln_f64(u);
}

#endif
