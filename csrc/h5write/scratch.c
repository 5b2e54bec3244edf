#include "h5write/scratch.h"

#include "base/mem.h"

#include <string.h>

static scio_status
grow_pieces(scio_h5_piece **inout, size_t n_old, size_t n_new, scio_error *err)
{
    SCIO_TRY(scio_mem_realloc(inout, n_new, sizeof **inout, err));
    memset(*inout + n_old, 0, (n_new - n_old) * sizeof **inout);
    return SCIO_OK;
}

static scio_status
grow_slots(scio_h5_write_scratch *scratch, size_t n_slots, scio_error *err)
{
    const size_t n_old = scratch->n_slots;

    if (n_slots <= n_old)
        return SCIO_OK;
    SCIO_TRY(grow_pieces(&scratch->gathered, n_old, n_slots, err));
    SCIO_TRY(scio_mem_realloc(&scratch->encoders, n_slots, sizeof *scratch->encoders, err));
    while (scratch->n_slots < n_slots) {
        SCIO_TRY(scio_encoder_new(&scratch->encoders[scratch->n_slots], err));
        scratch->n_slots++;
    }
    return SCIO_OK;
}

scio_status
scio_h5_write_scratch_ready(scio_h5_write_scratch **inout, size_t n_slots, size_t n_outs,
                            scio_error *err)
{
    if (*inout == NULL)
        SCIO_TRY(scio_mem_zalloc(1, sizeof **inout, inout, err));
    SCIO_TRY(grow_slots(*inout, n_slots, err));
    if (n_outs > (*inout)->n_outs) {
        SCIO_TRY(grow_pieces(&(*inout)->outs, (*inout)->n_outs, n_outs, err));
        (*inout)->n_outs = n_outs;
    }
    return SCIO_OK;
}

scio_status
scio_h5_piece_room(scio_h5_piece *piece, size_t nbytes, scio_error *err)
{
    if (piece->capacity >= nbytes)
        return SCIO_OK;
    scio_mem_free(piece->data);
    *piece = (scio_h5_piece){NULL, 0};
    SCIO_TRY(scio_mem_alloc(nbytes, 1, &piece->data, err));
    piece->capacity = nbytes;
    return SCIO_OK;
}

void
scio_h5_write_scratch_free(scio_h5_write_scratch *scratch)
{
    if (scratch == NULL)
        return;
    for (size_t i = 0; i < scratch->n_slots; i++) {
        scio_encoder_free(scratch->encoders[i]);
        scio_mem_free(scratch->gathered[i].data);
    }
    for (size_t i = 0; i < scratch->n_outs; i++)
        scio_mem_free(scratch->outs[i].data);
    scio_mem_free(scratch->encoders);
    scio_mem_free(scratch->gathered);
    scio_mem_free(scratch->outs);
    scio_mem_free(scratch);
}
