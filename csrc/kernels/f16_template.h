/* float32 to float16; included by kernels_template.h for each level.
 *
 * With vectors the CPU converts (KERNEL_LANES at a time, what is left over through a vector of its
 * own); without, base/dtype does it in integers.  Both round to nearest, ties to even, whatever the
 * mode of the thread, and keep the upper bits of a NaN, made quiet. */
KERNEL_TARGET static void
KERNEL_NAME(f32_to_f16)(const float *in, uint16_t *out, size_t n_items)
{
    size_t i = 0;

#if KERNEL_LANES > 0
    for (; i + KERNEL_LANES <= n_items; i += KERNEL_LANES)
        KERNEL_NAME(store_halves)(in + i, out + i);
    if (i < n_items) {
        float rest[KERNEL_LANES] = {0};
        uint16_t halves[KERNEL_LANES];

        memcpy(rest, in + i, (n_items - i) * sizeof *rest);
        KERNEL_NAME(store_halves)(rest, halves);
        memcpy(out + i, halves, (n_items - i) * sizeof *out);
    }
#else
    for (; i < n_items; i++)
        out[i] = scio_f32_to_f16(in[i]);
#endif
}
