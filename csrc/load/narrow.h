/* Items on their way into the compact store: range-checked, and as narrow as they fit. */
#ifndef SCIO_LOAD_NARROW_H
#define SCIO_LOAD_NARROW_H

#include "base/dtype.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* How items lie in a decoded unit. */
typedef struct scio_item_type {
    scio_dtype dtype;
    size_t itemsize;
    bool is_big_endian;
} scio_item_type;

/* Column indices to uint16 (is_u16) or uint32.  ECORRUPT names the first one outside [0, n_cols);
 * `first_item` is added to its place.  dst is undefined then. */
SCIO_MUST_CHECK scio_status scio_narrow_indices(const scio_item_type *type, const void *src,
                                                size_t n_items, int64_t n_cols, int64_t first_item,
                                                bool is_u16, void *dst, scio_error *err);

/* Values that are written from front to back: float32 as uint8 while all of them fit, then as
 * uint16, then as they are; what lies there already is widened in place. Others: as stored, native.
 */
typedef struct scio_narrow_values {
    scio_item_type type;
    bool is_narrowing; /* else always as stored */
    scio_dtype now;    /* how all of them are written at present */
    size_t n_items;    /* written so far */
} scio_narrow_values;

scio_narrow_values scio_narrow_values_make(const scio_item_type *type, bool is_narrowing);
/* Puts n_items values at item `at` of dst, which has room for all of them as stored. */
void scio_narrow_values_put(scio_narrow_values *values, const void *src, size_t n_items, void *dst,
                            size_t at);

#endif
