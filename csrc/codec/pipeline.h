/* A dataset's filter chain applied to one chunk. */
#ifndef SCIO_CODEC_PIPELINE_H
#define SCIO_CODEC_PIPELINE_H

#include "base/error.h"
#include "codec/codec.h"

#include <stddef.h>
#include <stdint.h>

#define SCIO_MAX_FILTERS 32
#define SCIO_MAX_CLIENT 16

enum {
    SCIO_FILTER_DEFLATE = 1,
    SCIO_FILTER_SHUFFLE = 2,
    SCIO_FILTER_FLETCHER32 = 3,
    SCIO_FILTER_SZIP = 4,
    SCIO_FILTER_NBIT = 5,
    SCIO_FILTER_SCALEOFFSET = 6,
    SCIO_FILTER_BZIP2 = 307,
    SCIO_FILTER_LZF = 32000,
    SCIO_FILTER_BLOSC = 32001,
    SCIO_FILTER_LZ4 = 32004,
    SCIO_FILTER_BITSHUFFLE = 32008,
    SCIO_FILTER_ZSTD = 32015
};

typedef struct scio_filter {
    uint16_t id;
    uint16_t flags;                   /* bit 0: optional */
    uint16_t n_client;                /* values kept, at most SCIO_MAX_CLIENT */
    uint32_t client[SCIO_MAX_CLIENT]; /* the rest of a longer list is dropped; no known filter needs
                                         it */
    char name[32];                    /* as stored, cut; "" when absent: for messages only */
} scio_filter;

typedef struct scio_pipeline {
    size_t n_filters;
    scio_filter filters[SCIO_MAX_FILTERS]; /* in the order in which a writer applies them */
} scio_pipeline;

/* "deflate", "zstd" …; "unknown" for ids that scio does not know. */
const char *scio_filter_name(uint16_t id);
/* True when this build decodes the filter. */
bool scio_filter_is_supported(uint16_t id);
/* EUNSUPPORTED naming id, stored name, position and whether it is optional, when a filter that this
 * mask does not skip cannot be decoded. */
SCIO_MUST_CHECK scio_status scio_pipeline_check(const scio_pipeline *pipeline, uint32_t filter_mask,
                                                scio_error *err);
/* Undoes the chain from last to first, skipping filter i where bit i of the mask is set.  The
 * result is exactly out_nbytes bytes in `out`, else ECORRUPT.  `in` and `out` must not overlap;
 * `in` may be used as scratch by nobody.  A chain of one deflate inflates straight into `out`
 * (counted in direct_chunks).  O(out_nbytes), scratch from `decoder`. */
SCIO_MUST_CHECK scio_status scio_pipeline_decode(const scio_pipeline *pipeline,
                                                 uint32_t filter_mask, scio_decoder *decoder,
                                                 const void *in, size_t in_nbytes, void *out,
                                                 size_t out_nbytes, scio_error *err);
/* The same, but stops before undoing a shuffle that is the first filter of the chain: then
 * `*shuffle_itemsize_out` > 1 and `out` holds byte planes, so that the caller can fuse the
 * unshuffle with its cast; else it is 1 and `out` holds plain elements. */
SCIO_MUST_CHECK scio_status scio_pipeline_decode_planes(
    const scio_pipeline *pipeline, uint32_t filter_mask, scio_decoder *decoder, const void *in,
    size_t in_nbytes, void *out, size_t out_nbytes, size_t *shuffle_itemsize_out, scio_error *err);

#endif
