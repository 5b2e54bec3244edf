/* exp and expm1 in double: the same operations on every machine, where those of libm differ in the
 * last bits between versions.  Within 1 ulp for exp; expm1 within 1.5 ulp (tests/c/test_exp_f64.c).
 *
 * x = k ln 2 + r with |r| <= ln 2 / 2, k ln 2 taken away in two parts of which the first product is
 * exact; e^r - 1 = r + r^2 q(r) with Taylor's q up to r^13, whose rest is below 2^-56 of the
 * result; e^x - 1 = 2^k (e^r - 1) + (2^k - 1).  kernels->expm1_f64 has the loop over arrays, which
 * takes the same steps with vectors. */
#ifndef SCIO_KERNELS_EXP_F64_H
#define SCIO_KERNELS_EXP_F64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SCIO_EXP_MAX 709.782712893384   /* e^x overflows above */
#define SCIO_EXP_MIN (-745.13321910194) /* and is 0 below */

/* e^r - 1 - r, |r| <= 0.35 */
static inline double
scio_expm1_rest(double r)
{
    double q = 1.0 / 6227020800.0; /* 1 / 13! */

    q = q * r + 1.0 / 479001600.0;
    q = q * r + 1.0 / 39916800.0;
    q = q * r + 1.0 / 3628800.0;
    q = q * r + 1.0 / 362880.0;
    q = q * r + 1.0 / 40320.0;
    q = q * r + 1.0 / 5040.0;
    q = q * r + 1.0 / 720.0;
    q = q * r + 1.0 / 120.0;
    q = q * r + 1.0 / 24.0;
    q = q * r + 1.0 / 6.0;
    q = q * r + 0.5;
    return r * r * q;
}

/* 2^k, -1022 <= k <= 1023 */
static inline double
scio_exp2_int(int64_t k)
{
    const uint64_t bits = (uint64_t)(k + 1023) << 52;
    double out;

    memcpy(&out, &bits, sizeof out);
    return out;
}

/* k and e^r - 1 as head + tail, where head is r rounded; |x| < 746. */
static inline int64_t
scio_exp_reduce(double x, double *head_out, double *tail_out)
{
    const double to_int = 0x1.8p52;
    const double k = (x * 0x1.71547652b82fep0 + to_int) - to_int;
    const double high = x - k * 0x1.62e42feep-1, low = k * 0x1.a39ef35793c76p-33;
    const double r = high - low;

    *head_out = r;
    *tail_out = (high - r - low) + scio_expm1_rest(r);
    return (int64_t)k;
}

static inline double
scio_exp_f64(double x)
{
    double head, tail, y;
    int64_t k;

    if (!(x <= SCIO_EXP_MAX))
        return x > 0 ? HUGE_VAL : x; /* NaN */
    if (x < SCIO_EXP_MIN)
        return 0;
    k = scio_exp_reduce(x, &head, &tail);
    y = 1.0 + (head + tail);
    /* two factors, since 2^1024 and 2^-1074 are no normal numbers */
    return y * scio_exp2_int(k / 2) * scio_exp2_int(k - k / 2);
}

static inline double
scio_expm1_f64(double x)
{
    double head, tail, scale;
    int64_t k;

    if (!(x <= SCIO_EXP_MAX))
        return x > 0 ? HUGE_VAL : x;
    if (x < -40)
        return -1;
    if (x > -0x1p-54 && x < 0x1p-54)
        return x; /* keeps -0.0 and what is subnormal */
    k = scio_exp_reduce(x, &head, &tail);
    if (k == 0)
        return head + tail;
    if (k > 52) { /* 2^k - 1 is no double; k - 1, since 2^1024 is none */
        scale = scio_exp2_int(k - 1);
        return 2 * (scale * (head + tail) + (scale - 0.5));
    }
    scale = scio_exp2_int(k);
    /* the larger two first, their rounding error is kept */
    {
        const double a = scale - 1.0, b = scale * head, sum = a + b;
        const double b_part = sum - a, error = (a - (sum - b_part)) + (b - b_part);

        return sum + (error + scale * tail);
    }
}

#endif
