/* e^x - 1 over an array: the steps of scio_expm1_f64 for what lies in (-36, 36) and is not 0, where
 * 2^k - 1 is a double and nothing needs a branch; the rest is done again, one by one.  Included by
 * kernels_template.h for each level. */

KERNEL_TARGET static inline double
KERNEL_NAME(expm1_ordinary)(double x)
{
    const double shifted = x * 0x1.71547652b82fep0 + 0x1.8p52; /* its low bits hold k */
    const double k = shifted - 0x1.8p52;
    const double high = x - k * 0x1.62e42feep-1, low = k * 0x1.a39ef35793c76p-33;
    const double r = high - low, tail = (high - r - low) + scio_expm1_rest(r);
    uint64_t bits;
    double scale;

    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&scale, &bits, sizeof scale);
    {
        const double a = scale - 1.0, b = scale * r, sum = a + b;
        const double b_part = sum - a, error = (a - (sum - b_part)) + (b - b_part);

        return sum + (error + scale * tail);
    }
}

KERNEL_TARGET static void
KERNEL_NAME(expm1_f64)(const double *in, double factor, double *out, size_t n_items)
{
    uint64_t n_others = 0;

    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++) {
        const double x = in[i] * factor;

        out[i] = KERNEL_NAME(expm1_ordinary)(x);
    }
    for (size_t i = 0; i < n_items; i++) {
        const double x = in[i] * factor;

        n_others += (uint64_t) !((x < 36) & (x > -36) & (x != 0));
    }
    for (size_t i = 0; n_others > 0 && i < n_items; i++) {
        const double x = in[i] * factor;

        if (!((x < 36) & (x > -36) & (x != 0)))
            out[i] = scio_expm1_f64(x);
    }
}
