/* Kernels that keep some entries of a row and move them together; included by kernels_template.h.
 *
 * Plain: every entry is written, and the place to write moves on only past those that are kept, so
 * there is no branch to mispredict.
 * Vectors (KERNEL_LANES > 0, with the types and operations of kernels.c): the kept lanes are moved
 * to the front of the vector, which is then stored whole at the place to write.  That place is
 * never behind the entries just read, so the store ends within n_items, and what it overwrites has
 * been read or is written again. */

#if KERNEL_LANES > 0
#define COMPACT_VECTORS(keep_mask)                                                                 \
    for (; i + KERNEL_LANES <= n_items; i += KERNEL_LANES) {                                       \
        const unsigned keep = (keep_mask);                                                         \
                                                                                                   \
        if (keep != KERNEL_ALL_LANES || n_kept != i)                                               \
            KERNEL_NAME(store_kept)(ids + i, values + i, keep, ids + n_kept, values + n_kept);     \
        n_kept += (size_t)__builtin_popcount(keep);                                                \
    }
#else
#define COMPACT_VECTORS(keep_mask)
#endif

#define GATHER_MAP(ctype, lookup)                                                                  \
    size_t n_kept = 0, i = 0;                                                                      \
                                                                                                   \
    GATHER_VECTORS(lookup)                                                                         \
    for (; i < n_items; i++) {                                                                     \
        const int32_t id = map[indices[i]];                                                        \
                                                                                                   \
        ids_out[n_kept] = id;                                                                      \
        values_out[n_kept] = values[i];                                                            \
        n_kept += id >= 0;                                                                         \
    }                                                                                              \
    return n_kept

#if KERNEL_LANES > 0
#define GATHER_VECTORS(lookup)                                                                     \
    for (; i + KERNEL_LANES <= n_items; i += KERNEL_LANES)                                         \
        n_kept += KERNEL_NAME(store_mapped)(lookup(map, indices + i), values + i,                  \
                                            ids_out + n_kept, values_out + n_kept);
#else
#define GATHER_VECTORS(lookup)
#endif

KERNEL_TARGET static size_t
KERNEL_NAME(gather_map_u16)(const uint16_t *indices, const float *values, size_t n_items,
                            const int32_t *map, int32_t *ids_out, float *values_out)
{
    GATHER_MAP(uint16_t, KERNEL_NAME(lookup_u16));
}

KERNEL_TARGET static size_t
KERNEL_NAME(gather_map_u32)(const uint32_t *indices, const float *values, size_t n_items,
                            const int32_t *map, int32_t *ids_out, float *values_out)
{
    GATHER_MAP(uint32_t, KERNEL_NAME(lookup_u32));
}

KERNEL_TARGET static size_t
KERNEL_NAME(drop_zeros)(int32_t *ids, float *values, size_t n_items)
{
    size_t n_kept = 0, i = 0;

    COMPACT_VECTORS(KERNEL_NAME(mask_nonzero)(values + i))
    for (; i < n_items; i++) {
        const float value = values[i];

        ids[n_kept] = ids[i];
        values[n_kept] = value;
        n_kept += value != 0.0f;
    }
    return n_kept;
}

KERNEL_TARGET static size_t
KERNEL_NAME(keep_above_u32)(int32_t *ids, float *values, const uint32_t *keys, size_t n_items,
                            uint32_t threshold)
{
    size_t n_kept = 0, i = 0;

    COMPACT_VECTORS(KERNEL_NAME(mask_above)(keys + i, threshold))
    for (; i < n_items; i++) {
        ids[n_kept] = ids[i];
        values[n_kept] = values[i];
        n_kept += keys[i] > threshold;
    }
    return n_kept;
}

/* A byte for each id: looked up one by one at every level. */
KERNEL_TARGET static size_t
KERNEL_NAME(keep_masked)(int32_t *ids, float *values, size_t n_items, const uint8_t *id_mask)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++) {
        const int32_t id = ids[i];

        values[n_kept] = values[i];
        ids[n_kept] = id;
        n_kept += id_mask[id] != 0;
    }
    return n_kept;
}

#undef COMPACT_VECTORS
#undef GATHER_MAP
#undef GATHER_VECTORS
