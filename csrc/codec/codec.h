/* Decoders of single formats: pure functions over buffers, no state, no allocation unless said.
 *
 * Every decoder has a hard output limit and never reads outside [in, in + in_nbytes) nor writes
 * outside [out, out + out_capacity).  On success `*out_nbytes` bytes were written; anything
 * malformed is ECORRUPT with what was found and expected. */
#ifndef SCIO_CODEC_CODEC_H
#define SCIO_CODEC_CODEC_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Per-thread decoder state (libdeflate decompressor, ISA-L state, scratch that grows to the largest
 * chunk met).  One thread at a time.  `_nbytes` = memory it holds now. */
typedef struct scio_decoder scio_decoder;
SCIO_MUST_CHECK scio_status scio_decoder_new(scio_decoder **out, scio_error *err);
void scio_decoder_free(scio_decoder *decoder);
size_t scio_decoder_nbytes(const scio_decoder *decoder);

/* One zlib stream (RFC 1950), Adler-32 checked, that must end; bytes after its end are ignored.
 * Output longer than out_capacity is ECORRUPT. */
SCIO_MUST_CHECK scio_status scio_deflate_decode(scio_decoder *decoder, const void *in,
                                                size_t in_nbytes, void *out, size_t out_capacity,
                                                size_t *out_nbytes, scio_error *err);
/* The same by ISA-L, whose inflate is faster on some data; by libdeflate where ISA-L was absent at
 * build time or the chunk is 4 GiB or longer.  The bytes are the same. */
SCIO_MUST_CHECK scio_status scio_deflate_decode_isal(scio_decoder *decoder, const void *in,
                                                     size_t in_nbytes, void *out,
                                                     size_t out_capacity, size_t *out_nbytes,
                                                     scio_error *err);
/* Which of the two pipelines use from now on; libdeflate in a new decoder.  False, and no change,
 * when the engine was absent at build time. */
typedef enum scio_deflate_engine { SCIO_DEFLATE_LIBDEFLATE, SCIO_DEFLATE_ISAL } scio_deflate_engine;
bool scio_decoder_set_deflate_engine(scio_decoder *decoder, scio_deflate_engine engine);

/* shuffle.c: undoes HDF5's byte shuffle of elements of `itemsize` client bytes (0 is ECORRUPT). in
 * and out must not overlap; out has nbytes. */
SCIO_MUST_CHECK scio_status scio_unshuffle(const void *in, size_t nbytes, size_t itemsize,
                                           void *out, scio_error *err);
/* The forward direction, for tests and the writer. */
SCIO_MUST_CHECK scio_status scio_shuffle(const void *in, size_t nbytes, size_t itemsize, void *out,
                                         scio_error *err);
/* fletcher32.c: sum as HDF5 stores it; checks the last 4 bytes and gives the length without them.
 */
uint32_t scio_fletcher32(const void *data, size_t nbytes);
SCIO_MUST_CHECK scio_status scio_fletcher32_check(const void *in, size_t in_nbytes,
                                                  size_t *payload_nbytes, scio_error *err);
SCIO_MUST_CHECK scio_status scio_lzf_decode(const void *in, size_t in_nbytes, void *out,
                                            size_t out_capacity, size_t *out_nbytes,
                                            scio_error *err);
/* The containers of the registered HDF5 filters; EUNSUPPORTED naming the library when it was absent
 * at build time.  `client` are the filter's client values. */
SCIO_MUST_CHECK scio_status scio_zstd_decode(const void *in, size_t in_nbytes, void *out,
                                             size_t out_capacity, size_t *out_nbytes,
                                             scio_error *err);
SCIO_MUST_CHECK scio_status scio_lz4_decode(const void *in, size_t in_nbytes, void *out,
                                            size_t out_capacity, size_t *out_nbytes,
                                            scio_error *err);
SCIO_MUST_CHECK scio_status scio_blosc_decode(scio_decoder *decoder, const void *in,
                                              size_t in_nbytes, void *out, size_t out_capacity,
                                              size_t *out_nbytes, scio_error *err);
SCIO_MUST_CHECK scio_status scio_bitshuffle_decode(scio_decoder *decoder, const uint32_t *client,
                                                   size_t n_client, const void *in,
                                                   size_t in_nbytes, void *out, size_t out_capacity,
                                                   size_t *out_nbytes, scio_error *err);

#endif
