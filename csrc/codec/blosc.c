/* Blosc 1 chunks (HDF5 filter 32001), decoded here and not by libblosc: every number of the frame
 * is checked before use, and the inner codecs get exact limits.
 *
 *   byte 0   u8 format (2)        4  u32 raw bytes
 *        1   u8 codec format (1)  8  u32 block bytes
 *        2   u8 flags            12  u32 stored bytes = the whole chunk
 *        3   u8 element size     16  i32 start of each block, counted from byte 0
 *
 * flags: bit 0 byte shuffle, 1 stored raw from byte 16 on, 2 bit shuffle, 3 reserved, 4 blocks are
 * not split, 5 to 7 codec.  A block is one stream, or `element size` streams of equal raw size when
 * it may be split; a stream is i32 stored bytes, data, and raw when stored = raw size.  The shuffle
 * is undone per block. */
#include "base/mem.h"
#include "codec/decoder.h"

#define HEADER_NBYTES 16
#define SIZE_NBYTES 4
#define FORMAT_VERSION 2
#define CODEC_VERSION 1

/* A block is split only into streams of at least this many bytes, and into at most so many. */
#define SPLIT_MIN_NBYTES 128
#define SPLIT_MAX_STREAMS 16

enum {
    FLAG_SHUFFLE = 1,
    FLAG_STORED = 2,
    FLAG_BITSHUFFLE = 4,
    FLAG_RESERVED = 8,
    FLAG_NOT_SPLIT = 16
};

enum { CODEC_BLOSCLZ, CODEC_LZ4, CODEC_SNAPPY, CODEC_ZLIB, CODEC_ZSTD };

typedef struct frame {
    const uint8_t *in;
    size_t in_nbytes;
    size_t raw_nbytes;
    size_t block_nbytes;
    size_t n_blocks;
    size_t itemsize;
    unsigned flags;
    unsigned codec;
    size_t n_streams; /* of every block but a short last one, which has 1 */
} frame;

static scio_status
check_codec(const frame *f, scio_error *err)
{
    static const char *const names[] = {"BloscLZ", "LZ4", "Snappy", "zlib", "zstd"};

    if (f->codec == CODEC_SNAPPY)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "Blosc: the chunk uses Snappy, which scio does "
                         "not read");
    if (f->codec > CODEC_ZSTD)
        return scio_fail(err, SCIO_EUNSUPPORTED, "Blosc: codec %u is unknown", f->codec);
    if (f->in[1] != CODEC_VERSION)
        return scio_fail(err, SCIO_EUNSUPPORTED, "Blosc: format %u of %s, scio reads format %d",
                         f->in[1], names[f->codec], CODEC_VERSION);
    return SCIO_OK;
}

static scio_status
check_sizes(const frame *f, size_t out_capacity, scio_error *err)
{
    const size_t stored_nbytes = scio_load_le32(f->in + 12);

    if (stored_nbytes != f->in_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: the header says %zu bytes stored, found %zu",
                         stored_nbytes, f->in_nbytes);
    if (f->raw_nbytes > out_capacity)
        return scio_fail(err, SCIO_ECORRUPT,
                         "Blosc: the header announces %zu bytes, at most %zu expected",
                         f->raw_nbytes, out_capacity);
    if (f->itemsize == 0)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: the element size is 0");
    if ((f->flags & FLAG_STORED) && f->raw_nbytes != f->in_nbytes - HEADER_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT,
                         "Blosc: %zu bytes stored raw behind the header, expected %zu",
                         f->in_nbytes - HEADER_NBYTES, f->raw_nbytes);
    /* A chunk of nothing has no block, and its block size, which then means nothing, is not used.
     */
    if (f->raw_nbytes != 0 && (f->block_nbytes == 0 || f->block_nbytes > f->raw_nbytes))
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: blocks of %zu bytes in a chunk of %zu",
                         f->block_nbytes, f->raw_nbytes);
    return SCIO_OK;
}

/* How blocks are cut; the frame is sound afterwards but for the block starts and stream sizes. */
static scio_status
plan_blocks(frame *f, scio_error *err)
{
    f->n_blocks = 0;
    if (f->raw_nbytes == 0 || (f->flags & FLAG_STORED))
        return SCIO_OK;
    f->n_blocks = (f->raw_nbytes - 1) / f->block_nbytes + 1;
    if (f->n_blocks > (f->in_nbytes - HEADER_NBYTES) / SIZE_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: %zu blocks cannot start in %zu bytes",
                         f->n_blocks, f->in_nbytes);
    f->n_streams = 1;
    if (!(f->flags & FLAG_NOT_SPLIT) && f->itemsize <= SPLIT_MAX_STREAMS &&
        f->block_nbytes / f->itemsize >= SPLIT_MIN_NBYTES)
        f->n_streams = f->itemsize;
    if (f->block_nbytes % f->n_streams != 0)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: blocks of %zu bytes split into %zu streams",
                         f->block_nbytes, f->n_streams);
    return SCIO_OK;
}

static scio_status
parse_frame(const uint8_t *in, size_t in_nbytes, size_t out_capacity, frame *f, scio_error *err)
{
    if (in_nbytes < HEADER_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: %zu bytes, fewer than the header's %d",
                         in_nbytes, HEADER_NBYTES);
    if (in[0] != FORMAT_VERSION)
        return scio_fail(err, SCIO_EUNSUPPORTED, "Blosc: format version %u, scio reads %d", in[0],
                         FORMAT_VERSION);
    f->in = in;
    f->in_nbytes = in_nbytes;
    f->flags = in[2] & 31u;
    f->codec = (unsigned)in[2] >> 5;
    f->itemsize = in[3];
    f->raw_nbytes = scio_load_le32(in + 4);
    f->block_nbytes = scio_load_le32(in + 8);
    if (f->flags & FLAG_RESERVED)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: reserved flag bit 3 is set");
    if ((f->flags & FLAG_SHUFFLE) && (f->flags & FLAG_BITSHUFFLE))
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: byte shuffle and bit shuffle are both set");
    SCIO_TRY(check_sizes(f, out_capacity, err));
    if (!(f->flags & FLAG_STORED))
        SCIO_TRY(check_codec(f, err));
    return plan_blocks(f, err);
}

/* BloscLZ.  A control below 32 is followed by control + 1 literals.  Else it starts a match: the
 * top 3 bits are length - 2, where 7 is continued by bytes that are added as long as they are 255
 * and once more; the low 5 bits are the high part of distance - 1, the next byte its low part, and
 * the largest such value, 0x1fff, announces 16 more bits (big-endian) that are added to the
 * distance. In the first control the top bits mean something else: it is always a literal run. */

/* Reads the rest of a match; false when the stream ends in it. */
static bool
read_match(const uint8_t *in, size_t in_nbytes, unsigned control, size_t *i_inout,
           size_t *nbytes_out, size_t *distance_out)
{
    size_t i = *i_inout;
    size_t nbytes = (control >> 5) + 2, distance;

    if (control >> 5 == 7) {
        unsigned more = 255;

        while (more == 255) {
            if (i == in_nbytes)
                return false;
            more = in[i++];
            nbytes += more;
        }
    }
    if (i == in_nbytes)
        return false;
    distance = ((size_t)(control & 31) << 8 | in[i++]) + 1;
    if (distance == 0x1fff + 1) {
        if (in_nbytes - i < 2)
            return false;
        distance += (size_t)in[i] << 8 | in[i + 1];
        i += 2;
    }
    *i_inout = i;
    *nbytes_out = nbytes;
    *distance_out = distance;
    return true;
}

scio_status
scio_blosclz_decode(const uint8_t *in, size_t in_nbytes, uint8_t *out, size_t out_capacity,
                    size_t *out_nbytes, scio_error *err)
{
    size_t i = 0, o = 0;
    unsigned mask = 31;

    while (i < in_nbytes) {
        const size_t i_item = i;
        const unsigned control = in[i++] & mask;
        size_t nbytes = control + 1, distance = 0;
        bool is_whole;

        mask = 255;
        if (control < 32)
            is_whole = nbytes <= in_nbytes - i;
        else
            is_whole = read_match(in, in_nbytes, control, &i, &nbytes, &distance);
        if (!is_whole || distance > o || nbytes > out_capacity - o)
            return scio_fail(err, SCIO_ECORRUPT,
                             "BloscLZ: the item at byte %zu of %zu is cut, goes back before the "
                             "start or runs past the %zu bytes expected",
                             i_item, in_nbytes, out_capacity);
        if (control < 32) {
            scio_copy_literals(out + o, out_capacity - o, in + i, in_nbytes - i, nbytes);
            i += nbytes;
        } else {
            scio_copy_match(out + o, distance, nbytes, out_capacity - o);
        }
        o += nbytes;
    }
    *out_nbytes = o;
    return SCIO_OK;
}

static scio_status
decode_stream(scio_decoder *decoder, const frame *f, const uint8_t *in, size_t in_nbytes,
              uint8_t *out, size_t out_nbytes, scio_error *err)
{
    size_t n_made = out_nbytes;

    if (in_nbytes == out_nbytes) {
        memcpy(out, in, out_nbytes);
        return SCIO_OK;
    }
    switch (f->codec) {
    case CODEC_BLOSCLZ:
        SCIO_TRY(scio_blosclz_decode(in, in_nbytes, out, out_nbytes, &n_made, err));
        break;
    case CODEC_LZ4:
        SCIO_TRY(scio_lz4_decode_block(in, in_nbytes, out, out_nbytes, err));
        break;
    case CODEC_ZLIB:
        SCIO_TRY(scio_deflate_decode(decoder, in, in_nbytes, out, out_nbytes, &n_made, err));
        break;
    default:
        SCIO_TRY(scio_zstd_decode_with(decoder, in, in_nbytes, out, out_nbytes, &n_made, err));
    }
    if (n_made != out_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: a stream of %zu bytes gave %zu, expected %zu",
                         in_nbytes, n_made, out_nbytes);
    return SCIO_OK;
}

/* The streams of block i_block, joined in raw[n_raw]. */
static scio_status
decode_block(scio_decoder *decoder, const frame *f, size_t i_block, uint8_t *raw, size_t n_raw,
             scio_error *err)
{
    const size_t n_streams = n_raw == f->block_nbytes ? f->n_streams : 1;
    const size_t stream_nbytes = n_raw / n_streams;
    const size_t i_table_end = HEADER_NBYTES + SIZE_NBYTES * f->n_blocks;
    size_t i = scio_load_le32(f->in + HEADER_NBYTES + SIZE_NBYTES * i_block);

    if (i < i_table_end || i > f->in_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "Blosc: starts at byte %zu, expected %zu to %zu", i,
                         i_table_end, f->in_nbytes);
    for (size_t k = 0; k < n_streams; k++) {
        size_t n_stored;

        if (f->in_nbytes - i < SIZE_NBYTES)
            return scio_fail(err, SCIO_ECORRUPT, "Blosc: cut at byte %zu", i);
        n_stored = scio_load_le32(f->in + i);
        i += SIZE_NBYTES;
        if (n_stored > f->in_nbytes - i)
            return scio_fail(err, SCIO_ECORRUPT,
                             "Blosc: the stream at byte %zu has %zu bytes, %zu are left", i,
                             n_stored, f->in_nbytes - i);
        SCIO_TRY(decode_stream(decoder, f, f->in + i, n_stored, raw + k * stream_nbytes,
                               stream_nbytes, err));
        i += n_stored;
    }
    return SCIO_OK;
}

/* Bit-shuffled blocks are transposed only when they hold a multiple of 8 elements. */
static scio_status
undo_shuffle(const frame *f, uint8_t *raw, size_t n_raw, uint8_t *planes, uint8_t *out,
             scio_error *err)
{
    const size_t n_items = n_raw / f->itemsize;
    const size_t n_whole = n_items * f->itemsize;

    if (f->flags & FLAG_SHUFFLE)
        return scio_unshuffle(raw, n_raw, f->itemsize, out, err);
    if (n_items % 8 != 0) {
        memcpy(out, raw, n_raw);
        return SCIO_OK;
    }
    SCIO_TRY(scio_bit_unshuffle(raw, n_items, f->itemsize, planes, out, err));
    scio_copy_bytes(out + n_whole, raw + n_whole, n_raw - n_whole);
    return SCIO_OK;
}

static scio_status
decode_blocks(scio_decoder *decoder, const frame *f, uint8_t *out, scio_error *err)
{
    const bool is_shuffled =
        (f->flags & FLAG_BITSHUFFLE) != 0 || ((f->flags & FLAG_SHUFFLE) != 0 && f->itemsize > 1);
    uint8_t *scratch = NULL;
    size_t scratch_nbytes;

    /* One block of raw bytes, and one of planes for the bit shuffle. */
    if (is_shuffled && f->n_blocks != 0) {
        if (!scio_mul_size(f->block_nbytes, 2, &scratch_nbytes))
            return scio_fail(err, SCIO_ENOMEM, "Blosc: a block is too large for this machine");
        SCIO_TRY(scio_decoder_scratch(decoder, SCIO_SCRATCH_BLOCK, scratch_nbytes, &scratch, err));
    }
    for (size_t i_block = 0, o = 0; i_block < f->n_blocks; i_block++) {
        const size_t n_left = f->raw_nbytes - o;
        const size_t n_raw = n_left < f->block_nbytes ? n_left : f->block_nbytes;
        uint8_t *raw = is_shuffled ? scratch : out + o;
        scio_status status = decode_block(decoder, f, i_block, raw, n_raw, err);

        if (status == SCIO_OK && is_shuffled)
            status = undo_shuffle(f, raw, n_raw, scratch + f->block_nbytes, out + o, err);
        if (status != SCIO_OK) {
            scio_context(err, "block %zu of %zu", i_block, f->n_blocks);
            return status;
        }
        o += n_raw;
    }
    return SCIO_OK;
}

scio_status
scio_blosc_decode(scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                  size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    frame f = {0};

    SCIO_TRY(parse_frame(in, in_nbytes, out_capacity, &f, err));
    if (f.flags & FLAG_STORED)
        scio_copy_bytes(out, f.in + HEADER_NBYTES, f.raw_nbytes);
    else
        SCIO_TRY(decode_blocks(decoder, &f, out, err));
    *out_nbytes = f.raw_nbytes;
    return SCIO_OK;
}
