/* Memory that chunks in work need, kept by the writer from one dataset to the next. */
#ifndef SCIO_H5WRITE_SCRATCH_H
#define SCIO_H5WRITE_SCRATCH_H

#include "base/error.h"
#include "codec/encoder.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_h5_piece {
    uint8_t *data;
    size_t capacity;
} scio_h5_piece;

typedef struct scio_h5_write_scratch {
    size_t n_slots; /* one for each thread */
    scio_encoder **encoders;
    scio_h5_piece *gathered; /* chunks whose rows do not lie together */
    size_t n_outs;           /* one for each chunk of a batch */
    scio_h5_piece *outs;
} scio_h5_write_scratch;

/* At least so many of both; what is there already stays. */
SCIO_MUST_CHECK scio_status scio_h5_write_scratch_ready(scio_h5_write_scratch **inout,
                                                        size_t n_slots, size_t n_outs,
                                                        scio_error *err);
void scio_h5_write_scratch_free(scio_h5_write_scratch *scratch);
/* At least nbytes of room; what was in it is gone when it had to grow. */
SCIO_MUST_CHECK scio_status scio_h5_piece_room(scio_h5_piece *piece, size_t nbytes,
                                               scio_error *err);

#endif
