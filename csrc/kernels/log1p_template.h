/* ln(1 + x) of one float32, in double and rounded once; included by kernels_template.h for each level.
 *
 * Method.  u = 1 + x lies in [2^k sqrt(1/2), 2^k sqrt(2)) for one k, which is read off the bits of u.
 * Then ln u = k ln 2 + ln(1 + f) with f = u / 2^k - 1, and f is made from x rather than from u,
 * f = x 2^-k - (1 - 2^-k), because 1 + x may lose bits of a small x: for k = 0 this is x itself, and
 * otherwise what is rounded away is below 2^-53 while the result is above 1/3.  With s = f / (2 + f),
 * ln(1 + f) = 2 atanh(s) = 2 s (1 + z P(z)), z = s^2 <= (3 - 2 sqrt(2))^2 = 0.0295.
 *
 * Error.  P has degree 3; relative to the whole it is off by at most 2^-37.6, and the few roundings of
 * double add about 2^-51.  That is 2^-13 units of float32, so the result is within 0.5002 ulp.
 *
 * Signs and small numbers.  For x = +-0 every step keeps the sign (hence "minus (1 - 2^-k)" and "minus
 * k times -ln 2"); a subnormal float is a normal double.
 *
 * Source: the identities are in any table of functions; the coefficients are ours, a minimax fit by
 * Remez exchange in 50 digits of (atanh(s)/s - 1)/z on [0, 0.02944], weight z s/atanh(s).  They lie
 * next to the series 1/3, 1/5, 1/7, 1/9. */

KERNEL_TARGET static inline float
KERNEL_NAME(log1p_ordinary)(double x)
{
    const double u = 1.0 + x;
    uint64_t bits, exponent, scale_bits, minus_k_bits;
    double scale, minus_k, f, s, z, p;

    memcpy(&bits, &u, sizeof bits);
    /* the exponent field becomes k + 1023 when fractions from sqrt(2) on carry into it */
    exponent = (bits + (LOG_ONE_BITS - LOG_SQRT_HALF_BITS)) & LOG_EXPONENT_BITS;
    scale_bits = 2 * LOG_ONE_BITS - exponent; /* 2^-k */
    minus_k_bits = LOG_TWO_52_BITS + 1023 - (exponent >> 52) + 1023;
    memcpy(&scale, &scale_bits, sizeof scale);
    memcpy(&minus_k, &minus_k_bits, sizeof minus_k);
    minus_k -= 0x1p52 + 1023.0;
    f = x * scale - (1.0 - scale);
    s = f / (2.0 + f);
    z = s * s;
    p = ((z * 0x1.e2f2d872010f6p-4 + 0x1.2438f141daa4bp-3) * z + 0x1.999a7a1a95645p-3) * z +
        0x1.555554fde2b73p-2;
    s = s + s;
    return (float)((s + s * (z * p)) - minus_k * LOG_LN2);
}

/* All ones for what log1p_ordinary takes: finite and above -1. */
KERNEL_TARGET static inline uint32_t
KERNEL_NAME(log1p_is_ordinary)(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return 0 - ((uint32_t)(bits < LOG_F32_INFINITY) |
                (uint32_t)(bits - LOG_F32_SIGN < LOG_F32_MINUS_ONE - LOG_F32_SIGN));
}

/* Any x.  Chooses by masks: of a `?:` with results of floating-point arithmetic gcc makes branches and
 * no vectors, because the arithmetic might trap. */
KERNEL_TARGET static inline float
KERNEL_NAME(log1p_any)(float x)
{
    const float ordinary = KERNEL_NAME(log1p_ordinary)((double)x);
    uint32_t x_bits, y_bits, special;
    float y;

    memcpy(&x_bits, &x, sizeof x_bits);
    memcpy(&y_bits, &ordinary, sizeof y_bits);
    special = x_bits == LOG_F32_MINUS_ONE ? LOG_F32_SIGN | LOG_F32_INFINITY
                                          : LOG_F32_INFINITY | LOG_F32_QUIET;
    special = x_bits == LOG_F32_INFINITY ? LOG_F32_INFINITY : special;
    special = (x_bits & ~LOG_F32_SIGN) > LOG_F32_INFINITY ? x_bits | LOG_F32_QUIET : special;
    y_bits = special ^ ((special ^ y_bits) & KERNEL_NAME(log1p_is_ordinary)(x));
    memcpy(&y, &y_bits, sizeof y);
    return y;
}

/* A block is looked at first: that costs a twentieth of the logarithm, the choosing a third. */
KERNEL_TARGET static void
KERNEL_NAME(log1p_f32)(const float *in, float *out, size_t n_items)
{
    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t all = UINT32_MAX;

        for (size_t i = start; i < end; i++)
            all &= KERNEL_NAME(log1p_is_ordinary)(in[i]);
        if (all != 0) {
            KERNEL_INDEPENDENT
            for (size_t i = start; i < end; i++)
                out[i] = KERNEL_NAME(log1p_ordinary)((double)in[i]);
        } else {
            KERNEL_INDEPENDENT
            for (size_t i = start; i < end; i++)
                out[i] = KERNEL_NAME(log1p_any)(in[i]);
        }
    }
}
