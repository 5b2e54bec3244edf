/* The element types that scio computes with: one table, everything else is derived from it. */
#ifndef SCIO_BASE_DTYPE_H
#define SCIO_BASE_DTYPE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* X(NAME, C type, kind as NumPy's type character, numpy name).  BOOL is stored as uint8 0 or 1; F16
 * as its 16 bits. */
#define SCIO_DTYPE_LIST(X)                                                                         \
    X(BOOL, uint8_t, 'b', "bool")                                                                  \
    X(I8, int8_t, 'i', "int8")                                                                     \
    X(I16, int16_t, 'i', "int16")                                                                  \
    X(I32, int32_t, 'i', "int32")                                                                  \
    X(I64, int64_t, 'i', "int64")                                                                  \
    X(U8, uint8_t, 'u', "uint8")                                                                   \
    X(U16, uint16_t, 'u', "uint16")                                                                \
    X(U32, uint32_t, 'u', "uint32")                                                                \
    X(U64, uint64_t, 'u', "uint64")                                                                \
    X(F16, uint16_t, 'f', "float16")                                                               \
    X(F32, float, 'f', "float32")                                                                  \
    X(F64, double, 'f', "float64")

typedef enum scio_dtype {
    SCIO_DTYPE_NONE = 0, /* not a type that scio computes with: compound, string, reference … */
#define SCIO_DTYPE_ENUM(name, ctype, kind, text) SCIO_##name,
    SCIO_DTYPE_LIST(SCIO_DTYPE_ENUM)
#undef SCIO_DTYPE_ENUM
        SCIO_N_DTYPES
} scio_dtype;

size_t scio_dtype_itemsize(scio_dtype dtype);      /* 0 for NONE */
char scio_dtype_kind(scio_dtype dtype);            /* 'b' 'i' 'u' 'f', 0 for NONE */
const char *scio_dtype_name(scio_dtype dtype);     /* "float32"; "none" for NONE */
scio_dtype scio_dtype_from_name(const char *name); /* NONE when unknown */

/* Converts n_items values; the native fast path of every cast that is offered.  Integer to integer:
 * each value is checked against the range of the target; float to integer: only integral values in
 * range; anything to bool: non-zero = 1; integer to float and float to float: nearest, ties to
 * even. `src` and `dst` may be the same pointer only when the dtypes are equal; neither needs
 * alignment. ERANGE names the first position whose value does not fit; dst is then undefined. */
SCIO_MUST_CHECK scio_status scio_cast(scio_dtype src_dtype, const void *src, scio_dtype dst_dtype,
                                      void *dst, size_t n_items, scio_error *err);
/* As scio_cast, with the source's bytes swapped first (big-endian files). */
SCIO_MUST_CHECK scio_status scio_cast_swapped(scio_dtype src_dtype, const void *src,
                                              scio_dtype dst_dtype, void *dst, size_t n_items,
                                              scio_error *err);
/* Reverses the bytes of each of n_items elements in place. */
void scio_byteswap(void *data, size_t itemsize, size_t n_items);
float scio_f16_to_f32(uint16_t bits);
uint16_t scio_f32_to_f16(float value); /* nearest, ties to even */

#endif
