/* The filters that scio writes, applied to one chunk: byte shuffle, deflate, Fletcher's checksum,
 * in this order, which is that of h5py.
 *
 * The same chunk, spec and build give the same bytes, whatever the encoder did before. */
#ifndef SCIO_CODEC_ENCODER_H
#define SCIO_CODEC_ENCODER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCIO_DEFLATE_NONE = -1, SCIO_DEFLATE_MAX_LEVEL = 9 };

typedef struct scio_encode_spec {
    size_t itemsize; /* of the shuffle; 0 = none */
    int level;       /* of deflate, 0 (stored) to 9; SCIO_DEFLATE_NONE = none */
    bool fletcher32;
} scio_encode_spec;

/* What one thread needs: a compressor of the level used last, scratch of one chunk.  One thread at
 * a time. */
typedef struct scio_encoder scio_encoder;
SCIO_MUST_CHECK scio_status scio_encoder_new(scio_encoder **out, scio_error *err);
void scio_encoder_free(scio_encoder *encoder);
size_t scio_encoder_nbytes(const scio_encoder *encoder); /* of memory that it holds now */

/* Level 1 by ISA-L where that was there at build time, all others by libdeflate; false asks
 * libdeflate for level 1 too (its files are as sound, and other ones).  For tests and measurements;
 * true in a new encoder. */
void scio_encoder_use_isal(scio_encoder *encoder, bool is_used);

/* Bytes that any chunk of nbytes has at most; EINVAL for more than 32 bits of them, which no chunk
 * of HDF5 can have. */
SCIO_MUST_CHECK scio_status scio_encode_bound(const scio_encode_spec *spec, size_t nbytes,
                                              size_t *bound_out, scio_error *err);
/* `out` has room for the bound and does not overlap `in`.  Deflate is always applied, also where it
 * makes a chunk longer: a filter mask is what readers other than libhdf5 get wrong. */
SCIO_MUST_CHECK scio_status scio_encode_chunk(scio_encoder *encoder, const scio_encode_spec *spec,
                                              const void *in, size_t nbytes, void *out,
                                              size_t out_capacity, size_t *out_nbytes,
                                              scio_error *err);

#endif
