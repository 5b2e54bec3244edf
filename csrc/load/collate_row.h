/* One row of a batch: from where it lies to (id, value) entries.  Shared by collate*.c only. */
#ifndef SCIO_LOAD_COLLATE_ROW_H
#define SCIO_LOAD_COLLATE_ROW_H

#include "base/error.h"
#include "kernels/kernels.h"
#include "load/collate.h"

#include <stddef.h>
#include <stdint.h>

/* Entries of a row: sums of that many integers up to 2^24 are exact in double. */
#define SCIO_MAX_ROW_ITEMS ((size_t)1 << 29)

/* 32 bytes for each item of the longest row, 8 for each entry that `flat` holds: the loader's
 * budget (loader_budget.c) counts on these. */
struct scio_collate_scratch {
    size_t n_row;      /* room for the longest row so far */
    float *values;     /* [n_row] of the row as float32 */
    uint32_t *columns; /* [n_row] of the source */
    double *wide;      /* [n_row] values in double, for the general path */
    uint64_t *keys;    /* [2 * n_row] for sorting and selecting */
    size_t n_flat;
    int32_t *flat_ids;  /* [n_flat] finished entries of one row or of all */
    float *flat_values; /* [n_flat] */
    size_t n_ends;
    int64_t *ends; /* [n_ends] entries up to and with each row */
};

/* What is the same for all rows of a batch. */
typedef struct collate_pass {
    const scio_collate_spec *spec;
    const scio_kernels_table *kernels;
    scio_collate_scratch *scratch;
    scio_dtype value_dtype; /* of the batch: F32 or F16 */
    bool needs_order;       /* ids must ascend */
    int64_t least_id;       /* ids must be in [least_id, spec->n_ids) */
    int32_t id_base;        /* taken off finished ids: first_id where they are columns */
    int64_t n_fast, n_general;
} collate_pass;

typedef struct row_sizes {
    size_t longest, total;
} row_sizes;

SCIO_MUST_CHECK scio_status scio_collate_measure(const scio_row *rows, size_t n_cells,
                                                 row_sizes *out, scio_error *err);
/* Room of the scratch; what was in it is gone where it grows. */
SCIO_MUST_CHECK scio_status scio_collate_room_for_row(scio_collate_scratch *scratch, size_t n_items,
                                                      scio_error *err);
SCIO_MUST_CHECK scio_status scio_collate_room_for_flat(scio_collate_scratch *scratch,
                                                       size_t n_items, scio_error *err);
SCIO_MUST_CHECK scio_status scio_collate_room_for_ends(scio_collate_scratch *scratch,
                                                       size_t n_cells, scio_error *err);
/* A buffer of n_rows x n_cols items. */
SCIO_MUST_CHECK scio_status scio_collate_new_matrix(size_t n_rows, size_t n_cols, size_t itemsize,
                                                    scio_buf **out, scio_error *err);

SCIO_MUST_CHECK scio_status scio_collate_check_spec(const scio_collate_spec *spec, scio_error *err);
/* What a dtype of the spec means when it is NONE. */
static inline scio_dtype
scio_collate_value_dtype(const scio_collate_spec *spec)
{
    return spec->value_dtype == SCIO_DTYPE_NONE ? SCIO_F32 : spec->value_dtype;
}

/* Where item i_item of `values` (F32 or F16) lies. */
static inline void *
scio_collate_value_at(const scio_buf *values, scio_dtype dtype, size_t i_item)
{
    return (char *)scio_buf_data(values) + i_item * scio_dtype_itemsize(dtype);
}

/* float32 to float32 or float16. */
void scio_collate_put_values(const scio_kernels_table *kernels, scio_dtype dtype,
                             const float *values, size_t n_items, void *out);
void scio_collate_fill_values(scio_dtype dtype, float value, size_t n_items, void *out);

/* Asks for a row's memory ahead of its turn: shuffled rows lie anywhere, and waiting for them costs
 * as much as the work on them.  NULL allowed. */
void scio_collate_prefetch(const scio_row *row);

/* The finished entries of one row, ids less id_base, into ids_out and values_out (room for
 * row->n_items each), how many into *n_out.  The scratch has room for the row. */
SCIO_MUST_CHECK scio_status scio_collate_row(collate_pass *pass, const scio_row *row,
                                             int32_t *ids_out, float *values_out, size_t *n_out,
                                             scio_error *err);

#endif
