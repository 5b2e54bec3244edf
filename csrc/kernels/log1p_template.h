/* ln(1 + x) of a float32, in double and rounded once; included by kernels_template.h for each
 * level.
 *
 * Method.  u = 1 + x lies in [2^k sqrt(1/2), 2^k sqrt(2)) for one k, which is read off the bits of
 * u. Then ln u = k ln 2 + ln(1 + f) with f = u / 2^k - 1, and f is made from x rather than from u,
 * f = x 2^-k - (1 - 2^-k), because 1 + x may lose bits of a small x: for k = 0 this is x itself,
 * and otherwise what is rounded away is below 2^-53 while the result is above 1/3.  With t = f / (1
 * + f/2), ln(1 + f) = 2 atanh(t/2) = t + t z P(z), z = t^2 <= 4 (3 - 2 sqrt(2))^2 = 0.1178.
 *
 * Error.  P has degree 2; relative to the whole it is off by at most 2^-30.2, and the few roundings
 * of double add about 2^-51.  A float32 has a unit of at least 2^-24 of its value, so the result is
 * within 0.5 + 2^-6.2 = 0.514 ulp.  (Degree 3 would give 0.5001 for a tenth more time.)
 *
 * Signs and small numbers.  For x = +-0 every step keeps the sign (hence "minus (1 - 2^-k)" and
 * "minus
 * (-k) ln 2"); a subnormal float is a normal double.
 *
 * Source: the identities are in any table of functions; the coefficients are ours, a minimax fit by
 * Remez exchange in 50 digits of (2 atanh(t/2)/t - 1)/z on [0, 0.1178], weighted so that the
 * relative error of the whole is what is least.  They lie next to the series 1/12, 1/80, 1/448. */

/* x above -1 and finite; of others some number. */
KERNEL_TARGET static inline float
KERNEL_NAME(log1p_ordinary)(double x)
{
    const double u = 1.0 + x;
    uint64_t bits, exponent, scale_bits, minus_k_bits;
    double scale, minus_k, f, t, z, p;

    memcpy(&bits, &u, sizeof bits);
    /* the exponent field becomes k + 1023 when fractions from sqrt(2) on carry into it */
    exponent = (bits + (LOG_ONE_BITS - LOG_SQRT_HALF_BITS)) & LOG_EXPONENT_BITS;
    scale_bits = 2 * LOG_ONE_BITS - exponent;                     /* 2^-k */
    minus_k_bits = LOG_TWO_52_BITS + 2 * 1023 - (exponent >> 52); /* 2^52 + 1023 - k */
    memcpy(&scale, &scale_bits, sizeof scale);
    memcpy(&minus_k, &minus_k_bits, sizeof minus_k);
    minus_k -= 0x1p52 + 1023.0;
    f = x * scale - (1.0 - scale);
    t = f / (1.0 + 0.5 * f);
    z = t * t;
    p = (z * 0x1.31e0df607d0c3p-9 + 0x1.995ecfc3f053ep-7) * z + 0x1.55557a0c53355p-4;
    return (float)((t + t * z * p) - minus_k * LOG_LN2);
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

/* Any x.  Chooses by masks: of a `?:` with results of floating-point arithmetic gcc makes branches
 * and no vectors, because the arithmetic might trap. */
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
