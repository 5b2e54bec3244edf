/* The kernels for one CPU level: plain loops, compiled for the instruction set that KERNEL_TARGET
 * names. Included by kernels.c once per level with KERNEL_NAME(x), KERNEL_TARGET and KERNEL_LANES
 * defined.
 *
 * The bits do not depend on the level: no fused multiply-add (-ffp-contract=off), and reductions
 * have fixed lanes.
 *
 * KERNEL_INDEPENDENT stands before loops in which no iteration reads what another one writes, also
 * when in == out: without it compilers test for overlap, and take the scalar loop for in == out.
 * Checks gather their evidence over a block and leave after the first bad one. */

#include "kernels/log1p_template.h"

#include "kernels/compact_template.h"

#include "kernels/f16_template.h"

#include "kernels/expm1_template.h"

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

/* As f32_to_u8: what is out of range becomes the limit, and so differs from itself. */
KERNEL_TARGET static bool
KERNEL_NAME(are_counts_f32)(const float *values, size_t n_items, uint32_t *maximum_out,
                            uint32_t *n_positive_out)
{
    uint32_t n_positive = 0;
    int32_t maximum = 0;

    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t n_bad = 0;

        for (size_t i = start; i < end; i++) {
            uint32_t x_bits, back_bits;
            float limited, back;
            int32_t y;

            memcpy(&x_bits, &values[i], sizeof x_bits);
            x_bits = x_bits < F32_BITS_BELOW_2_31 ? x_bits : F32_BITS_BELOW_2_31;
            memcpy(&limited, &x_bits, sizeof limited);
            y = (int32_t)limited;
            back = (float)y;
            memcpy(&x_bits, &values[i], sizeof x_bits);
            memcpy(&back_bits, &back, sizeof back_bits);
            n_bad |= x_bits ^ back_bits;
            maximum = y > maximum ? y : maximum;
            n_positive += (uint32_t)(x_bits != 0);
        }
        if (n_bad != 0)
            return false;
    }
    *maximum_out = (uint32_t)maximum;
    *n_positive_out = n_positive;
    return true;
}

KERNEL_TARGET static void
KERNEL_NAME(scale_f32)(const float *in, double factor, float *out, size_t n_items)
{
    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)((double)in[i] * factor);
}

/* |x| + 2^52 has no room for a fraction, and from 2^52 on there is none. */
KERNEL_TARGET static void
KERNEL_NAME(count_kinds_f64)(const double *in, size_t n_items, scio_value_kinds *out)
{
    uint64_t n_zero = 0, n_not_finite = 0, n_not_whole = 0, n_negative = 0, n_huge = 0;

    for (size_t i = 0; i < n_items; i++) {
        const double size = fabs(in[i]);

        n_zero += in[i] == 0;
        n_not_finite += !(size <= DBL_MAX);
        n_not_whole += (size < 0x1p52) & ((size + 0x1p52) - 0x1p52 != size);
        n_negative += in[i] < 0;
        n_huge += size >= SCIO_HUGE_SIZE;
    }
    *out = (scio_value_kinds){n_zero, n_not_finite, n_not_whole, n_negative, n_huge};
}

KERNEL_TARGET static void
KERNEL_NAME(u8_to_f32)(const uint8_t *in, float *out, size_t n_items)
{
    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)in[i];
}

KERNEL_TARGET static void
KERNEL_NAME(u16_to_f32)(const uint16_t *in, float *out, size_t n_items)
{
    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)in[i];
}

KERNEL_TARGET static void
KERNEL_NAME(shift_u16)(const uint16_t *in, int32_t shift, int32_t *out, size_t n_items)
{
    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++)
        out[i] = (int32_t)((uint32_t)in[i] + (uint32_t)shift);
}

KERNEL_TARGET static void
KERNEL_NAME(shift_u32)(const uint32_t *in, int32_t shift, int32_t *out, size_t n_items)
{
    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++)
        out[i] = (int32_t)(in[i] + (uint32_t)shift);
}

KERNEL_TARGET static bool
KERNEL_NAME(are_within_i32)(const int32_t *in, size_t n_items, int32_t least, int32_t end)
{
    const uint32_t n_legal = (uint32_t)end - (uint32_t)least;

    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t stop = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t n_bad = 0;

        for (size_t i = start; i < stop; i++)
            n_bad |= (uint32_t)((uint32_t)in[i] - (uint32_t)least >= n_legal);
        if (n_bad != 0)
            return false;
    }
    return true;
}

KERNEL_TARGET static bool
KERNEL_NAME(is_increasing_u16)(const uint16_t *indices, size_t n_items)
{
    for (size_t start = 1; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        unsigned n_bad = 0;

        for (size_t i = start; i < end; i++)
            n_bad |= (unsigned)(indices[i] <= indices[i - 1]);
        if (n_bad != 0)
            return false;
    }
    return true;
}

KERNEL_TARGET static bool
KERNEL_NAME(is_increasing_u32)(const uint32_t *indices, size_t n_items)
{
    for (size_t start = 1; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        unsigned n_bad = 0;

        for (size_t i = start; i < end; i++)
            n_bad |= (unsigned)(indices[i] <= indices[i - 1]);
        if (n_bad != 0)
            return false;
    }
    return true;
}

/* A float that is an integer in range has the same bits after the round trip; -0.0 has not. */
KERNEL_TARGET static bool
KERNEL_NAME(f32_to_u8)(const float *in, uint8_t *out, size_t n_items)
{
    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t n_bad = 0;

        KERNEL_INDEPENDENT
        for (size_t i = start; i < end; i++) {
            uint32_t x_bits, back_bits;
            float limited, back;
            int32_t y;

            memcpy(&x_bits, &in[i], sizeof x_bits);
            /* floats from 0 on order as their bits do, negative ones and NaN lie above */
            x_bits = x_bits < F32_BITS_255 ? x_bits : F32_BITS_255;
            memcpy(&limited, &x_bits, sizeof limited);
            y = (int32_t)limited;
            back = (float)y;
            memcpy(&x_bits, &in[i], sizeof x_bits);
            memcpy(&back_bits, &back, sizeof back_bits);
            n_bad |= x_bits ^ back_bits;
            out[i] = (uint8_t)y;
        }
        if (n_bad != 0)
            return false;
    }
    return true;
}

KERNEL_TARGET static bool
KERNEL_NAME(f32_to_u16)(const float *in, uint16_t *out, size_t n_items)
{
    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t n_bad = 0;

        KERNEL_INDEPENDENT
        for (size_t i = start; i < end; i++) {
            uint32_t x_bits, back_bits;
            float limited, back;
            int32_t y;

            memcpy(&x_bits, &in[i], sizeof x_bits);
            /* floats from 0 on order as their bits do, negative ones and NaN lie above */
            x_bits = x_bits < F32_BITS_65535 ? x_bits : F32_BITS_65535;
            memcpy(&limited, &x_bits, sizeof limited);
            y = (int32_t)limited;
            back = (float)y;
            memcpy(&x_bits, &in[i], sizeof x_bits);
            memcpy(&back_bits, &back, sizeof back_bits);
            n_bad |= x_bits ^ back_bits;
            out[i] = (uint16_t)y;
        }
        if (n_bad != 0)
            return false;
    }
    return true;
}

KERNEL_TARGET static bool
KERNEL_NAME(i32_to_u16_checked)(const int32_t *in, int64_t n_cols, uint16_t *out, size_t n_items)
{
    const uint32_t n_legal = (uint32_t)n_cols;

    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t n_bad = 0;

        KERNEL_INDEPENDENT
        for (size_t i = start; i < end; i++) {
            const uint32_t x = (uint32_t)in[i];

            n_bad |= (uint32_t)(x >= n_legal);
            out[i] = (uint16_t)x;
        }
        if (n_bad != 0)
            return false;
    }
    return true;
}

/* Larger number for larger value; NaN is the largest, -0.0 equals 0.0; never 0. */
KERNEL_TARGET static void
KERNEL_NAME(order_keys_f32)(const float *values, uint32_t *keys_out, size_t n_items)
{
    KERNEL_INDEPENDENT
    for (size_t i = 0; i < n_items; i++) {
        const float value = values[i] + 0.0f;
        uint32_t bits, key;

        memcpy(&bits, &value, sizeof bits);
        /* the sign bit is flipped; of negative numbers all bits are */
        key = bits ^ ((uint32_t) - (int32_t)(bits >> 31) | 0x80000000u);
        keys_out[i] = (bits & 0x7FFFFFFFu) > 0x7F800000u ? UINT32_MAX : key;
    }
}

KERNEL_TARGET static void
KERNEL_NAME(range_u32)(const uint32_t *keys, size_t n_items, uint32_t *least_out,
                       uint32_t *greatest_out)
{
    uint32_t least = UINT32_MAX, greatest = 0;

    for (size_t i = 0; i < n_items; i++) {
        least = keys[i] < least ? keys[i] : least;
        greatest = keys[i] > greatest ? keys[i] : greatest;
    }
    *least_out = least;
    *greatest_out = greatest;
}

KERNEL_TARGET static size_t
KERNEL_NAME(count_above_u32)(const uint32_t *keys, size_t n_items, uint32_t threshold)
{
    size_t n_above = 0;

    for (size_t start = 0; start < n_items; start += KERNEL_BLOCK) {
        const size_t end = n_items - start < KERNEL_BLOCK ? n_items : start + KERNEL_BLOCK;
        uint32_t n_block = 0;

        for (size_t i = start; i < end; i++)
            n_block += (uint32_t)(keys[i] > threshold);
        n_above += n_block;
    }
    return n_above;
}

static const scio_kernels_table KERNEL_NAME(table) = {
    .sum_f32 = KERNEL_NAME(sum_f32),
    .are_counts_f32 = KERNEL_NAME(are_counts_f32),
    .scale_f32 = KERNEL_NAME(scale_f32),
    .log1p_f32 = KERNEL_NAME(log1p_f32),
    .expm1_f64 = KERNEL_NAME(expm1_f64),
    .count_kinds_f64 = KERNEL_NAME(count_kinds_f64),
    .u8_to_f32 = KERNEL_NAME(u8_to_f32),
    .u16_to_f32 = KERNEL_NAME(u16_to_f32),
    .f32_to_f16 = KERNEL_NAME(f32_to_f16),
    .shift_u16 = KERNEL_NAME(shift_u16),
    .shift_u32 = KERNEL_NAME(shift_u32),
    .are_within_i32 = KERNEL_NAME(are_within_i32),
    .is_increasing_u16 = KERNEL_NAME(is_increasing_u16),
    .is_increasing_u32 = KERNEL_NAME(is_increasing_u32),
    .gather_map_u16 = KERNEL_NAME(gather_map_u16),
    .gather_map_u32 = KERNEL_NAME(gather_map_u32),
    .drop_zeros = KERNEL_NAME(drop_zeros),
    .f32_to_u8 = KERNEL_NAME(f32_to_u8),
    .f32_to_u16 = KERNEL_NAME(f32_to_u16),
    .i32_to_u16_checked = KERNEL_NAME(i32_to_u16_checked),
    .order_keys_f32 = KERNEL_NAME(order_keys_f32),
    .range_u32 = KERNEL_NAME(range_u32),
    .count_above_u32 = KERNEL_NAME(count_above_u32),
    .keep_above_u32 = KERNEL_NAME(keep_above_u32),
    .keep_masked = KERNEL_NAME(keep_masked),
};

#undef KERNEL_LANES
#undef KERNEL_TARGET
#undef KERNEL_NAME
