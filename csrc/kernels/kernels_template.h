/* The kernels for one CPU level: plain loops, compiled for the instruction set that KERNEL_TARGET names.
 * Included by kernels.c once per level with KERNEL_NAME(x) and KERNEL_TARGET defined.
 *
 * The bits do not depend on the level: no fused multiply-add (-ffp-contract=off), and reductions have
 * fixed lanes. */

/* Eight lanes whatever the vector width; the tail goes on filling lanes in order. */
KERNEL_TARGET static double
KERNEL_NAME(sum_f32)(const float *values, size_t n_items)
{
    double lanes[8] = {0};
    const size_t n_whole = n_items / 8 * 8;

    for (size_t i = 0; i < n_whole; i += 8)
        for (size_t j = 0; j < 8; j++)
            lanes[j] += (double)values[i + j];
    for (size_t i = n_whole; i < n_items; i++)
        lanes[i - n_whole] += (double)values[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

KERNEL_TARGET static void
KERNEL_NAME(scale_f32)(const float *in, double factor, float *out, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)((double)in[i] * factor);
}

/* ln(1 + x) in double, rounded once.
 *
 * u = 1 + x = 2^k m with m in [sqrt(1/2), sqrt(2)); ln u = k ln 2 + 2 atanh(s), s = (m - 1)/(m + 1), by
 * its series up to s^15: s^2 < 0.0295, so what is left out is below 2^-38 of the result.  What 1 + x
 * lost by rounding, c = x - (u - 1), comes back as c/u (first order is enough: c/u < 2^-53).
 * Source: the identities are standard; coefficients are those of the series itself, 2/(2n + 1). */
KERNEL_TARGET static void
KERNEL_NAME(log1p_f32)(const float *in, float *out, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        const float x = in[i];
        const double u = 1.0 + (double)x;
        const double c = (double)x - (u - 1.0);
        uint64_t bits, k_bits, m_bits;
        double m, k, s, z, p, y;

        memcpy(&bits, &u, sizeof bits);
        bits += LOG_ONE_BITS - LOG_SQRT_HALF_BITS;
        k_bits = bits >> 52 | LOG_TWO_52_BITS;
        m_bits = (bits & LOG_FRACTION_BITS) + LOG_SQRT_HALF_BITS;
        memcpy(&k, &k_bits, sizeof k);
        memcpy(&m, &m_bits, sizeof m);
        k -= 0x1p52 + 1023.0;
        s = (m - 1.0) / (m + 1.0);
        z = s * s;
        p = z * (2.0 / 15.0) + 2.0 / 13.0;
        p = p * z + 2.0 / 11.0;
        p = p * z + 2.0 / 9.0;
        p = p * z + 2.0 / 7.0;
        p = p * z + 2.0 / 5.0;
        p = p * z + 2.0 / 3.0;
        y = k * LOG_LN2 + (s * 2.0 + (s * z * p + c / u));
        y = x == 0.0f ? (double)x : y;
        y = x == -1.0f ? -LOG_INFINITY : y;
        y = x < -1.0f ? LOG_NAN : y;
        y = x > FLT_MAX || x != x ? (double)x : y;
        out[i] = (float)y;
    }
}

KERNEL_TARGET static void
KERNEL_NAME(u8_to_f32)(const uint8_t *in, float *out, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)in[i];
}

KERNEL_TARGET static void
KERNEL_NAME(u16_to_f32)(const uint16_t *in, float *out, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)in[i];
}

KERNEL_TARGET static bool
KERNEL_NAME(is_increasing_u16)(const uint16_t *indices, size_t n_items)
{
    unsigned n_bad = 0;

    for (size_t i = 1; i < n_items; i++)
        n_bad |= (unsigned)(indices[i] <= indices[i - 1]);
    return n_bad == 0;
}

KERNEL_TARGET static bool
KERNEL_NAME(is_increasing_u32)(const uint32_t *indices, size_t n_items)
{
    unsigned n_bad = 0;

    for (size_t i = 1; i < n_items; i++)
        n_bad |= (unsigned)(indices[i] <= indices[i - 1]);
    return n_bad == 0;
}

/* Writes every entry and moves on only past those that are kept: no branch to mispredict. */
KERNEL_TARGET static size_t
KERNEL_NAME(gather_map_u16)(const uint16_t *indices, const float *values, size_t n_items,
                            const int32_t *map, int32_t *ids_out, float *values_out)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++) {
        const int32_t id = map[indices[i]];

        ids_out[n_kept] = id;
        values_out[n_kept] = values[i];
        n_kept += id >= 0;
    }
    return n_kept;
}

KERNEL_TARGET static size_t
KERNEL_NAME(gather_map_u32)(const uint32_t *indices, const float *values, size_t n_items,
                            const int32_t *map, int32_t *ids_out, float *values_out)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++) {
        const int32_t id = map[indices[i]];

        ids_out[n_kept] = id;
        values_out[n_kept] = values[i];
        n_kept += id >= 0;
    }
    return n_kept;
}

KERNEL_TARGET static size_t
KERNEL_NAME(drop_zeros)(int32_t *ids, float *values, size_t n_items)
{
    unsigned n_zeros = 0;
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++)
        n_zeros += (unsigned)(values[i] == 0.0f);
    if (n_zeros == 0)
        return n_items;
    for (size_t i = 0; i < n_items; i++) {
        const float value = values[i];

        ids[n_kept] = ids[i];
        values[n_kept] = value;
        n_kept += value != 0.0f;
    }
    return n_kept;
}

/* A float that is an integer in range has the same bits after the round trip; -0.0 has not. */
KERNEL_TARGET static bool
KERNEL_NAME(f32_to_u8)(const float *in, uint8_t *out, size_t n_items)
{
    uint32_t n_bad = 0;

    for (size_t i = 0; i < n_items; i++) {
        const float x = in[i];
        const bool is_in_range = x >= 0.0f && x <= 255.0f;
        const int32_t y = (int32_t)(is_in_range ? x : 0.0f);
        const float back = (float)y;
        uint32_t x_bits, back_bits;

        memcpy(&x_bits, &x, sizeof x_bits);
        memcpy(&back_bits, &back, sizeof back_bits);
        n_bad |= x_bits ^ back_bits;
        out[i] = (uint8_t)y;
    }
    return n_bad == 0;
}

KERNEL_TARGET static bool
KERNEL_NAME(f32_to_u16)(const float *in, uint16_t *out, size_t n_items)
{
    uint32_t n_bad = 0;

    for (size_t i = 0; i < n_items; i++) {
        const float x = in[i];
        const bool is_in_range = x >= 0.0f && x <= 65535.0f;
        const int32_t y = (int32_t)(is_in_range ? x : 0.0f);
        const float back = (float)y;
        uint32_t x_bits, back_bits;

        memcpy(&x_bits, &x, sizeof x_bits);
        memcpy(&back_bits, &back, sizeof back_bits);
        n_bad |= x_bits ^ back_bits;
        out[i] = (uint16_t)y;
    }
    return n_bad == 0;
}

KERNEL_TARGET static bool
KERNEL_NAME(i32_to_u16_checked)(const int32_t *in, int64_t n_cols, uint16_t *out, size_t n_items)
{
    const uint32_t limit = (uint32_t)n_cols;
    uint32_t n_bad = 0;

    for (size_t i = 0; i < n_items; i++) {
        const uint32_t x = (uint32_t)in[i];

        n_bad |= (uint32_t)(x >= limit);
        out[i] = (uint16_t)x;
    }
    return n_bad == 0;
}

static const scio_kernels_table KERNEL_NAME(table) = {
    KERNEL_NAME(sum_f32),           KERNEL_NAME(scale_f32),
    KERNEL_NAME(log1p_f32),         KERNEL_NAME(u8_to_f32),
    KERNEL_NAME(u16_to_f32),        KERNEL_NAME(is_increasing_u16),
    KERNEL_NAME(is_increasing_u32), KERNEL_NAME(gather_map_u16),
    KERNEL_NAME(gather_map_u32),    KERNEL_NAME(drop_zeros),
    KERNEL_NAME(f32_to_u8),         KERNEL_NAME(f32_to_u16),
    KERNEL_NAME(i32_to_u16_checked)};

#undef KERNEL_TARGET
#undef KERNEL_NAME
