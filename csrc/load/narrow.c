/* Tight loops where the layout is the usual one (int32 or int64 columns, float32 values, this
 * machine's byte order), one general loop for the rest. */
#include "load/narrow.h"

#include "kernels/kernels.h"

#include <inttypes.h>
#include <string.h>

/* ---- indices ---- */

static int64_t
load_index(scio_dtype dtype, const char *src)
{
    switch (dtype) {
#define CASE(name, ctype)                                                                          \
    case SCIO_##name: {                                                                            \
        ctype value;                                                                               \
        memcpy(&value, src, sizeof value);                                                         \
        return (int64_t)value;                                                                     \
    }
        CASE(I8, int8_t)
        CASE(I16, int16_t)
        CASE(I32, int32_t)
        CASE(I64, int64_t)
        CASE(U8, uint8_t)
        CASE(U16, uint16_t)
        CASE(U32, uint32_t)
        CASE(U64, uint64_t) /* beyond int64: negative, refused as such */
#undef CASE
    default:
        return -1;
    }
}

#define NARROW(name, src_type, dst_type)                                                           \
    static bool name(const void *restrict src, size_t n_items, uint64_t n_cols,                    \
                     void *restrict dst)                                                           \
    {                                                                                              \
        const src_type *restrict in = src;                                                         \
        dst_type *restrict out = dst;                                                              \
        uint64_t is_bad = 0;                                                                       \
        for (size_t i = 0; i < n_items; i++) {                                                     \
            const uint64_t value = (uint64_t)(int64_t)in[i];                                       \
            is_bad |= value >= n_cols;                                                             \
            out[i] = (dst_type)value;                                                              \
        }                                                                                          \
        return is_bad == 0;                                                                        \
    }
NARROW(i64_to_u16, int64_t, uint16_t)
NARROW(i64_to_u32, int64_t, uint32_t)
NARROW(i32_to_u32, int32_t, uint32_t)
NARROW(u32_to_u16, uint32_t, uint16_t)
NARROW(u32_to_u32, uint32_t, uint32_t)
#undef NARROW

static int64_t
native_index(const scio_item_type *type, const char *src)
{
    char native[8];

    memcpy(native, src, type->itemsize);
    if (type->is_big_endian)
        scio_byteswap(native, type->itemsize, 1);
    return load_index(type->dtype, native);
}

static bool
narrow_any(const scio_item_type *type, const char *src, size_t n_items, uint64_t n_cols,
           bool is_u16, char *dst)
{
    for (size_t i = 0; i < n_items; i++) {
        const int64_t value = native_index(type, src + i * type->itemsize);
        const uint32_t wide = (uint32_t)value;
        const uint16_t narrow = (uint16_t)value;
        if ((uint64_t)value >= n_cols)
            return false;
        if (is_u16)
            memcpy(dst + i * sizeof narrow, &narrow, sizeof narrow);
        else
            memcpy(dst + i * sizeof wide, &wide, sizeof wide);
    }
    return true;
}

static scio_status
index_failure(const scio_item_type *type, const char *src, size_t n_items, int64_t n_cols,
              int64_t first_item, scio_error *err)
{
    for (size_t i = 0; i < n_items; i++) {
        const int64_t value = native_index(type, src + i * type->itemsize);
        if ((uint64_t)value >= (uint64_t)n_cols)
            return scio_fail(err, SCIO_ECORRUPT,
                             "indices[%" PRId64 "] is %" PRId64 ", not in [0, %" PRId64 ")",
                             first_item + (int64_t)i, value, n_cols);
    }
    return scio_fail(err, SCIO_EBUG, "an index was refused without reason");
}

scio_status
scio_narrow_indices(const scio_item_type *type, const void *src, size_t n_items, int64_t n_cols,
                    int64_t first_item, bool is_u16, void *dst, scio_error *err)
{
    const uint64_t end = (uint64_t)n_cols;
    bool is_good;

    switch (type->is_big_endian ? SCIO_DTYPE_NONE : type->dtype) {
    case SCIO_I32:
        is_good = is_u16 ? scio_kernels()->i32_to_u16_checked(src, n_cols, dst, n_items)
                         : i32_to_u32(src, n_items, end, dst);
        break;
    case SCIO_I64:
        is_good = (is_u16 ? i64_to_u16 : i64_to_u32)(src, n_items, end, dst);
        break;
    case SCIO_U32:
        is_good = (is_u16 ? u32_to_u16 : u32_to_u32)(src, n_items, end, dst);
        break;
    default:
        is_good = narrow_any(type, src, n_items, end, is_u16, dst);
        break;
    }
    return is_good ? SCIO_OK : index_failure(type, src, n_items, n_cols, first_item, err);
}

/* ---- values ---- */

scio_narrow_values
scio_narrow_values_make(const scio_item_type *type, bool is_narrowing)
{
    scio_narrow_values values = {*type, false, type->dtype, 0};

    values.is_narrowing = is_narrowing && type->dtype == SCIO_F32 && !type->is_big_endian;
    if (values.is_narrowing)
        values.now = SCIO_U8;
    return values;
}

/* From the back, so that nothing is overwritten before it is read. */
static void
widen(scio_narrow_values *values, void *dst)
{
    const uint8_t *const u8 = dst;
    uint16_t *const u16 = dst;
    float *const f32 = dst;

    if (values->now == SCIO_U8) {
        for (size_t i = values->n_items; i-- > 0;)
            u16[i] = u8[i];
        values->now = SCIO_U16;
    } else {
        for (size_t i = values->n_items; i-- > 0;) {
            const uint16_t value = u16[i];
            f32[i] = value;
        }
        values->now = SCIO_F32;
    }
}

void
scio_narrow_values_put(scio_narrow_values *values, const void *src, size_t n_items, void *dst,
                       size_t at)
{
    const size_t itemsize = values->type.itemsize;

    if (values->is_narrowing && values->now == SCIO_U8 &&
        !scio_kernels()->f32_to_u8(src, (uint8_t *)dst + at, n_items))
        widen(values, dst);
    if (values->is_narrowing && values->now == SCIO_U16 &&
        !scio_kernels()->f32_to_u16(src, (uint16_t *)dst + at, n_items))
        widen(values, dst);
    if (values->now == values->type.dtype) {
        memcpy((char *)dst + at * itemsize, src, n_items * itemsize);
        if (values->type.is_big_endian)
            scio_byteswap((char *)dst + at * itemsize, itemsize, n_items);
    }
    values->n_items = at + n_items;
}
