/* One row of a batch: from where it lies to (id, value) entries.  Shared by collate.c and
 * collate_row.c only. */
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
    bool needs_order; /* ids must ascend */
    int64_t least_id; /* ids must be in [least_id, spec->n_ids) */
    int64_t n_fast, n_general;
} collate_pass;

/* Asks for a row's memory ahead of its turn: shuffled rows lie anywhere, and waiting for them costs
 * as much as the work on them.  NULL allowed. */
void scio_collate_prefetch(const scio_row *row);

/* The finished entries of one row into ids_out and values_out (room for row->n_items each), how
 * many into *n_out.  The scratch has room for the row. */
SCIO_MUST_CHECK scio_status scio_collate_row(collate_pass *pass, const scio_row *row,
                                             int32_t *ids_out, float *values_out, size_t *n_out,
                                             scio_error *err);

#endif
