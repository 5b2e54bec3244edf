#include "load/compact_row.h"

#include "base/dtype.h"

#include <math.h>
#include <string.h>

static uint64_t
round_up(uint64_t nbytes, uint64_t unit)
{
    return (nbytes + unit - 1) / unit * unit;
}

/* ---- how narrow a row is ---- */

#define ALL_FIT(name, ctype)                                                                       \
    static bool name(const void *values, size_t n_items, ctype most)                               \
    {                                                                                              \
        const ctype *const in = values;                                                            \
        bool is_bad = false;                                                                       \
        for (size_t i = 0; i < n_items; i++)                                                       \
            is_bad |= !(in[i] >= 0 && in[i] <= most);                                              \
        return !is_bad;                                                                            \
    }
#define ALL_FIT_UNSIGNED(name, ctype)                                                              \
    static bool name(const void *values, size_t n_items, ctype most)                               \
    {                                                                                              \
        const ctype *const in = values;                                                            \
        bool is_bad = false;                                                                       \
        for (size_t i = 0; i < n_items; i++)                                                       \
            is_bad |= in[i] > most;                                                                \
        return !is_bad;                                                                            \
    }
ALL_FIT(fit_i16, int16_t)
ALL_FIT(fit_i32, int32_t)
ALL_FIT(fit_i64, int64_t)
ALL_FIT_UNSIGNED(fit_u16, uint16_t)
ALL_FIT_UNSIGNED(fit_u32, uint32_t)
ALL_FIT_UNSIGNED(fit_u64, uint64_t)

/* Integers from 0 to `most`; -0.0 is none of them, or it would come back as 0.0. */
#define ALL_FIT_FLOAT(name, ctype)                                                                 \
    static bool name(const void *values, size_t n_items, ctype most)                               \
    {                                                                                              \
        const ctype *const in = values;                                                            \
        bool is_bad = false;                                                                       \
        for (size_t i = 0; i < n_items; i++) {                                                     \
            const ctype value = in[i] >= 0 && in[i] <= most ? in[i] : (ctype)0.5;                  \
            is_bad |= (ctype)(int32_t)value != value || signbit(value);                            \
        }                                                                                          \
        return !is_bad;                                                                            \
    }
ALL_FIT_FLOAT(fit_f32, float)
ALL_FIT_FLOAT(fit_f64, double)

static bool
do_values_fit(const scio_row *row, uint16_t most)
{
    switch (row->value_dtype) {
    case SCIO_I16:
        return fit_i16(row->values, row->n_items, most > INT16_MAX ? INT16_MAX : (int16_t)most);
    case SCIO_I32:
        return fit_i32(row->values, row->n_items, most);
    case SCIO_I64:
        return fit_i64(row->values, row->n_items, most);
    case SCIO_U16:
        return fit_u16(row->values, row->n_items, most);
    case SCIO_U32:
        return fit_u32(row->values, row->n_items, most);
    case SCIO_U64:
        return fit_u64(row->values, row->n_items, most);
    case SCIO_F32:
        return fit_f32(row->values, row->n_items, most);
    case SCIO_F64:
        return fit_f64(row->values, row->n_items, most);
    default:
        return false;
    }
}

static scio_dtype
value_dtype_of(const scio_row *row)
{
    const size_t itemsize = scio_dtype_itemsize(row->value_dtype);

    if (itemsize > 1 && do_values_fit(row, UINT8_MAX))
        return SCIO_U8;
    if (itemsize > 2 && do_values_fit(row, UINT16_MAX))
        return SCIO_U16;
    return row->value_dtype;
}

static scio_dtype
index_dtype_of(const scio_row *row)
{
    bool is_narrow = true;

    if (row->indices == NULL)
        return SCIO_DTYPE_NONE;
    if (row->index_dtype == SCIO_U32)
        is_narrow = fit_u32(row->indices, row->n_items, UINT16_MAX);
    else if (row->index_dtype == SCIO_I32)
        is_narrow = fit_i32(row->indices, row->n_items, UINT16_MAX);
    else if (row->index_dtype == SCIO_I64)
        is_narrow = fit_i64(row->indices, row->n_items, UINT16_MAX);
    return is_narrow ? SCIO_U16 : SCIO_U32;
}

/* ---- writing ---- */

#define COPY(name, from, to)                                                                       \
    static void name(const void *restrict src, void *restrict dst, size_t n_items)                 \
    {                                                                                              \
        const from *restrict in = src;                                                             \
        to *restrict out = dst;                                                                    \
        for (size_t i = 0; i < n_items; i++)                                                       \
            out[i] = (to)in[i];                                                                    \
    }
COPY(u16_to_u8, uint16_t, uint8_t)
COPY(f32_to_u8, float, uint8_t)
COPY(f32_to_u16, float, uint16_t)
COPY(u32_to_u16, uint32_t, uint16_t)
COPY(i32_to_u16, int32_t, uint16_t)
COPY(i64_to_u16, int64_t, uint16_t)
COPY(i64_to_u32, int64_t, uint32_t)

/* The items fit, as was found out before. */
static void
copy_items(scio_dtype from, const void *src, scio_dtype to, void *dst, size_t n_items)
{
    if (from == to || (from == SCIO_I32 && to == SCIO_U32))
        memcpy(dst, src, n_items * scio_dtype_itemsize(to));
    else if (from == SCIO_U16 && to == SCIO_U8)
        u16_to_u8(src, dst, n_items);
    else if (from == SCIO_F32 && to == SCIO_U8)
        f32_to_u8(src, dst, n_items);
    else if (from == SCIO_F32 && to == SCIO_U16)
        f32_to_u16(src, dst, n_items);
    else if (from == SCIO_U32 && to == SCIO_U16)
        u32_to_u16(src, dst, n_items);
    else if (from == SCIO_I32 && to == SCIO_U16)
        i32_to_u16(src, dst, n_items);
    else if (from == SCIO_I64 && to == SCIO_U16)
        i64_to_u16(src, dst, n_items);
    else if (from == SCIO_I64 && to == SCIO_U32)
        i64_to_u32(src, dst, n_items);
    else
        (void)!scio_cast(from, src, to, dst, n_items, NULL);
}

scio_row_layout
scio_row_lay(const scio_row *row)
{
    scio_row_layout layout = {value_dtype_of(row), index_dtype_of(row), 0, 0};

    layout.index_offset =
        round_up(sizeof(scio_row_head) + row->n_items * scio_dtype_itemsize(layout.value_dtype), 4);
    layout.nbytes =
        round_up(layout.index_offset + row->n_items * scio_dtype_itemsize(layout.index_dtype), 8);
    return layout;
}

scio_row_head *
scio_row_write(const scio_row *row, const scio_row_layout *layout, char *memory)
{
    scio_row_head *const head = (scio_row_head *)(void *)memory;

    *head = (scio_row_head){(uint32_t)row->n_items, (uint8_t)layout->value_dtype,
                            (uint8_t)layout->index_dtype, 0};
    copy_items(row->value_dtype, row->values, layout->value_dtype, head + 1, row->n_items);
    if (row->indices != NULL)
        copy_items(row->index_dtype, row->indices, layout->index_dtype,
                   memory + layout->index_offset, row->n_items);
    return head;
}

/* ---- reading ---- */

void
scio_row_read(const scio_row_head *head, scio_row *row)
{
    row->value_dtype = (scio_dtype)head->value_dtype;
    row->index_dtype = (scio_dtype)head->index_dtype;
    row->n_items = head->n_items;
    row->values = head + 1;
    row->indices = NULL;
    if (row->index_dtype != SCIO_DTYPE_NONE)
        row->indices =
            (const char *)head +
            round_up(sizeof *head + row->n_items * scio_dtype_itemsize(row->value_dtype), 4);
}
