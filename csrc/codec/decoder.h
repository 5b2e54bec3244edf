/* What the decoders of this folder share: the state of one thread, byte loads, match copies. */
#ifndef SCIO_CODEC_DECODER_H
#define SCIO_CODEC_DECODER_H

#include "codec/codec.h"

#include <string.h>

struct libdeflate_decompressor;

/* CHAIN_*: results between two filters of a pipeline; BLOCK: inside one decoder (Blosc,
 * bitshuffle), so that a decoder may use its block scratch while its input or output lies in a
 * chain scratch. */
typedef enum scio_scratch_slot {
    SCIO_SCRATCH_CHAIN_A,
    SCIO_SCRATCH_CHAIN_B,
    SCIO_SCRATCH_BLOCK,
    SCIO_N_SCRATCH
} scio_scratch_slot;

typedef struct scio_scratch {
    uint8_t *data;
    size_t capacity;
} scio_scratch;

struct scio_decoder {
    struct libdeflate_decompressor *deflate; /* made at once: nearly every file needs it */
    void *isal;                              /* struct inflate_state, made at first use */
    void *zstd;                              /* ZSTD_DCtx, made at first use */
    scio_deflate_engine engine;
    scio_scratch scratch[SCIO_N_SCRATCH];
};

/* `*out` = at least nbytes of scratch, content undefined, owned by the decoder and valid until the
 * slot is asked for again.  Grows, never shrinks. */
SCIO_MUST_CHECK scio_status scio_decoder_scratch(scio_decoder *decoder, scio_scratch_slot slot,
                                                 size_t nbytes, uint8_t **out, scio_error *err);

/* deflate.c: frees and measures what scio_deflate_decode_isal keeps in the decoder. */
void scio_isal_free(void *isal);
size_t scio_isal_nbytes(const void *isal);
/* zstd.c: the same for the Zstandard context. */
void scio_zstd_free(void *zstd);
size_t scio_zstd_nbytes(const void *zstd);

/* scio_zstd_decode with the context that the decoder keeps, which saves making one per frame. */
SCIO_MUST_CHECK scio_status scio_zstd_decode_with(scio_decoder *decoder, const void *in,
                                                  size_t in_nbytes, void *out, size_t out_capacity,
                                                  size_t *out_nbytes, scio_error *err);
/* One bare LZ4 block that must give exactly out_nbytes bytes. */
SCIO_MUST_CHECK scio_status scio_lz4_decode_block(const uint8_t *in, size_t in_nbytes, uint8_t *out,
                                                  size_t out_nbytes, scio_error *err);
/* One bare BloscLZ stream (blosc.c's inner codec). */
SCIO_MUST_CHECK scio_status scio_blosclz_decode(const uint8_t *in, size_t in_nbytes, uint8_t *out,
                                                size_t out_capacity, size_t *out_nbytes,
                                                scio_error *err);
/* Undoes the bit transpose of one block: in[8 * itemsize rows][n_items / 8] to
 * out[n_items][itemsize], n_items a multiple of 8.  `planes` is scratch of n_items * itemsize
 * bytes; the three do not overlap. */
SCIO_MUST_CHECK scio_status scio_bit_unshuffle(const uint8_t *in, size_t n_items, size_t itemsize,
                                               uint8_t *planes, uint8_t *out, scio_error *err);

static inline uint32_t
scio_load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t
scio_load_be32(const uint8_t *p)
{
    return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

static inline uint64_t
scio_load_be64(const uint8_t *p)
{
    return (uint64_t)scio_load_be32(p) << 32 | scio_load_be32(p + 4);
}

/* memcpy that allows NULL for zero bytes. */
static inline void
scio_copy_bytes(void *out, const void *in, size_t nbytes)
{
    if (nbytes != 0)
        memcpy(out, in, nbytes);
}

/* Copies a match of an LZ77 format: nbytes bytes from `distance` bytes before `op`, byte by byte in
 * effect, so that a match may overlap what it makes.  The caller has checked that distance bytes
 * exist before op and that nbytes <= room, the bytes that may be written from op on; wide copies
 * run past nbytes but never past room.
 *
 * A match with a distance below 16 repeats a short pattern, so its bytes also stand at every
 * multiple of the distance: once enough single bytes are out, the first multiple of at least 16 is
 * there to copy from in wide steps. */
static inline void
scio_copy_match(uint8_t *op, size_t distance, size_t nbytes, size_t room)
{
    /* the first multiple of each distance that is at least 16 */
    static const uint8_t steps[16] = {0,  16, 16, 18, 16, 20, 18, 21,
                                      16, 18, 20, 22, 24, 26, 28, 30};
    const uint8_t *from = op - distance;

    if (distance < 16) {
        size_t n_single = (size_t)steps[distance] - distance;

        if (n_single > nbytes)
            n_single = nbytes;
        for (size_t i = 0; i < n_single; i++)
            op[i] = from[i];
        op += n_single; /* now steps[distance] ahead of `from` */
        nbytes -= n_single;
        room -= n_single;
    }
    if (room - nbytes < 16) {
        for (size_t i = 0; i < nbytes; i++)
            op[i] = from[i];
    } else {
        for (size_t i = 0; i < nbytes; i += 16)
            memcpy(op + i, from + i, 16);
    }
}

/* Copies `nbytes` <= 32 literals; both rooms count the bytes that may be touched from the pointer
 * on and are at least nbytes. */
static inline void
scio_copy_literals(uint8_t *op, size_t op_room, const uint8_t *ip, size_t ip_room, size_t nbytes)
{
    if (op_room >= 32 && ip_room >= 32)
        memcpy(op, ip, 32);
    else
        memcpy(op, ip, nbytes);
}

#endif
