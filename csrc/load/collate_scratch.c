/* The scratch of a thread, and how much of it a batch needs. */
#include "base/mem.h"
#include "load/collate_row.h"

#include <inttypes.h>
#include <string.h>

scio_status
scio_collate_scratch_new(scio_collate_scratch **out, scio_error *err)
{
    return scio_mem_zalloc(1, sizeof **out, out, err);
}

void
scio_collate_scratch_free(scio_collate_scratch *scratch)
{
    if (scratch == NULL)
        return;
    scio_mem_free(scratch->values);
    scio_mem_free(scratch->columns);
    scio_mem_free(scratch->wide);
    scio_mem_free(scratch->keys);
    scio_mem_free(scratch->flat_ids);
    scio_mem_free(scratch->flat_values);
    scio_mem_free(scratch->ends);
    scio_mem_free(scratch);
}

/* Makes room anew: what was there is not needed any more. */
static scio_status
renew(void *inout, size_t n_items, size_t itemsize, scio_error *err)
{
    void *old;

    memcpy(&old, inout, sizeof old);
    scio_mem_free(old);
    return scio_mem_alloc(n_items, itemsize, inout, err);
}

/* Room is never for nothing, so that pointers into it are not NULL. */
static size_t
at_least_one(size_t n_items)
{
    return n_items > 0 ? n_items : 1;
}

scio_status
scio_collate_room_for_row(scio_collate_scratch *scratch, size_t n_items, scio_error *err)
{
    n_items = at_least_one(n_items);
    if (n_items <= scratch->n_row)
        return SCIO_OK;
    scratch->n_row = 0;
    SCIO_TRY(renew(&scratch->values, n_items, sizeof *scratch->values, err));
    SCIO_TRY(renew(&scratch->columns, n_items, sizeof *scratch->columns, err));
    SCIO_TRY(renew(&scratch->wide, n_items, sizeof *scratch->wide, err));
    SCIO_TRY(renew(&scratch->keys, n_items, 2 * sizeof *scratch->keys, err));
    scratch->n_row = n_items;
    return SCIO_OK;
}

scio_status
scio_collate_room_for_flat(scio_collate_scratch *scratch, size_t n_items, scio_error *err)
{
    n_items = at_least_one(n_items);
    if (n_items <= scratch->n_flat)
        return SCIO_OK;
    scratch->n_flat = 0;
    SCIO_TRY(renew(&scratch->flat_ids, n_items, sizeof *scratch->flat_ids, err));
    SCIO_TRY(renew(&scratch->flat_values, n_items, sizeof *scratch->flat_values, err));
    scratch->n_flat = n_items;
    return SCIO_OK;
}

scio_status
scio_collate_room_for_ends(scio_collate_scratch *scratch, size_t n_cells, scio_error *err)
{
    if (n_cells <= scratch->n_ends)
        return SCIO_OK;
    scratch->n_ends = 0;
    SCIO_TRY(renew(&scratch->ends, n_cells, sizeof *scratch->ends, err));
    scratch->n_ends = n_cells;
    return SCIO_OK;
}

scio_status
scio_collate_measure(const scio_row *rows, size_t n_cells, row_sizes *out, scio_error *err)
{
    *out = (row_sizes){0, 0};
    for (size_t i = 0; i < n_cells; i++) {
        if (rows[i].n_items > SCIO_MAX_ROW_ITEMS)
            return scio_fail(err, SCIO_EUNSUPPORTED,
                             "cell %" PRId64 " has %zu stored values, more than %zu", rows[i].cell,
                             rows[i].n_items, SCIO_MAX_ROW_ITEMS);
        out->longest = rows[i].n_items > out->longest ? rows[i].n_items : out->longest;
        if (!scio_add_size(out->total, rows[i].n_items, &out->total))
            return scio_fail(err, SCIO_ENOMEM, "a batch of more than 2^64 values");
    }
    return SCIO_OK;
}

scio_status
scio_collate_new_matrix(size_t n_rows, size_t n_cols, size_t itemsize, scio_buf **out,
                        scio_error *err)
{
    size_t n_items, nbytes;

    if (!scio_mul_size(n_rows, n_cols, &n_items) || !scio_mul_size(n_items, itemsize, &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "a batch of %zu x %zu items of %zu bytes", n_rows,
                         n_cols, itemsize);
    return scio_buf_new_batch(nbytes, out, err);
}
