/* HDF5's bitshuffle filter (32008), bare or with LZ4 or Zstandard behind it.
 *
 *   bare     blocks back to back
 *   coded    u64 total bytes, u32 block bytes (big-endian), then per block: u32 stored bytes, data
 *
 * A block of n elements (n a multiple of 8) is a bit matrix of 8 * itemsize rows: row 8j + k holds
 * bit k of byte j of every element, n / 8 bytes, element i at bit i % 8 of byte i / 8.  The last
 * block has what is left, rounded down to 8 elements; the fewer than 8 elements behind it are raw.
 *
 * Undoing it, done naively, moves single bits.  Here the 8 rows of one byte plane are first put
 * through the byte unshuffle with itemsize 8: then each u64 holds, for 8 elements, an 8 x 8 bit
 * matrix that only has to be transposed within the word.  What results is the byte-shuffled block,
 * so the byte unshuffle finishes the work. */
#include "base/mem.h"
#include "codec/decoder.h"

#define HEADER_NBYTES 12
#define SIZE_NBYTES 4

enum { CODEC_NONE = 0, CODEC_LZ4 = 2, CODEC_ZSTD = 3 };

/* Byte 0 of memory is the low byte of the word, on every CPU; on the little-endian ones this is a
 * plain load, which lets the compiler do several words at once. */
static inline uint64_t
load_le64(const uint8_t *p)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t x;

    memcpy(&x, p, sizeof x);
    return x;
#else
    return (uint64_t)scio_load_le32(p + 4) << 32 | scio_load_le32(p);
#endif
}

static inline void
store_le64(uint8_t *p, uint64_t x)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(p, &x, sizeof x);
#else
    for (int k = 0; k < 8; k++)
        p[k] = (uint8_t)(x >> 8 * k);
#endif
}

/* Transposes the 8 x 8 bits of every word of `words`: bit c of byte r becomes bit r of byte c.
 * Three rounds exchange the off-diagonal quarters of 2 x 2, 4 x 4 and 8 x 8 blocks (H. S. Warren,
 * Hacker's Delight, 2nd ed., section 7-3). */
static void
transpose_bits(uint8_t *words, size_t n_words)
{
    for (size_t i = 0; i < n_words; i++) {
        uint64_t x = load_le64(words + 8 * i), t;

        t = (x ^ x >> 7) & 0x00aa00aa00aa00aau;
        x ^= t ^ t << 7;
        t = (x ^ x >> 14) & 0x0000cccc0000ccccu;
        x ^= t ^ t << 14;
        t = (x ^ x >> 28) & 0x00000000f0f0f0f0u;
        x ^= t ^ t << 28;
        store_le64(words + 8 * i, x);
    }
}

scio_status
scio_bit_unshuffle(const uint8_t *in, size_t n_items, size_t itemsize, uint8_t *planes,
                   uint8_t *out, scio_error *err)
{
    uint8_t *to = itemsize == 1 ? out : planes;

    SCIO_BUG_IF(n_items % 8 != 0, err);
    for (size_t j = 0; j < itemsize; j++) {
        uint8_t *plane = to + j * n_items;

        SCIO_TRY(scio_unshuffle(in + j * n_items, n_items, 8, plane, err));
        transpose_bits(plane, n_items / 8);
    }
    if (itemsize == 1)
        return SCIO_OK;
    return scio_unshuffle(planes, n_items * itemsize, itemsize, out, err);
}

typedef struct frame {
    size_t itemsize;
    size_t total_nbytes;
    size_t block_n_items;
    uint32_t codec;
    size_t i_data; /* where the first block begins */
} frame;

static scio_status
parse_client(const uint32_t *client, size_t n_client, frame *f, scio_error *err)
{
    if (n_client < 3)
        return scio_fail(err, SCIO_ECORRUPT, "bitshuffle: %zu client values, expected at least 3",
                         n_client);
    f->itemsize = client[2];
    f->block_n_items = n_client > 3 ? client[3] : 0;
    f->codec = n_client > 4 ? client[4] : CODEC_NONE;
    if (f->itemsize == 0)
        return scio_fail(err, SCIO_ECORRUPT, "bitshuffle: the element size is 0");
    if (f->block_n_items % 8 != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bitshuffle: blocks of %zu elements, expected a multiple of 8",
                         f->block_n_items);
    if (f->codec != CODEC_NONE && f->codec != CODEC_LZ4 && f->codec != CODEC_ZSTD)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "bitshuffle: codec %u; scio reads 0 (none), 2 (LZ4) and 3 (zstd)",
                         (unsigned)f->codec);
    if (f->block_n_items == 0) { /* the filter's default: 8 KiB, at least 128 elements */
        f->block_n_items = 8192 / f->itemsize / 8 * 8;
        if (f->block_n_items < 128)
            f->block_n_items = 128;
    }
    return SCIO_OK;
}

/* The coded container says its sizes itself; they override the client values. */
static scio_status
parse_header(const uint8_t *in, size_t in_nbytes, size_t out_capacity, frame *f, scio_error *err)
{
    uint64_t total = in_nbytes;
    size_t block_nbytes;

    f->i_data = 0;
    if (f->codec != CODEC_NONE) {
        if (in_nbytes < HEADER_NBYTES)
            return scio_fail(err, SCIO_ECORRUPT,
                             "bitshuffle: %zu bytes, fewer than the header's %d", in_nbytes,
                             HEADER_NBYTES);
        total = scio_load_be64(in);
        block_nbytes = scio_load_be32(in + 8);
        f->i_data = HEADER_NBYTES;
        /* 8 * itemsize must divide it; written so that no product can wrap */
        if (block_nbytes == 0 || block_nbytes % f->itemsize != 0 ||
            block_nbytes / f->itemsize % 8 != 0)
            return scio_fail(err, SCIO_ECORRUPT,
                             "bitshuffle: blocks of %zu bytes, expected a multiple of 8 elements "
                             "of %zu bytes",
                             block_nbytes, f->itemsize);
        f->block_n_items = block_nbytes / f->itemsize;
    }
    if (total > out_capacity)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bitshuffle: the container announces %llu bytes, at most %zu expected",
                         (unsigned long long)total, out_capacity);
    if (total % f->itemsize != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bitshuffle: %llu bytes are no whole number of elements of %zu bytes",
                         (unsigned long long)total, f->itemsize);
    f->total_nbytes = (size_t)total;
    return SCIO_OK;
}

/* Decodes the stored bytes of a block at `*i_inout` into raw[n_raw] and moves behind them. */
static scio_status
decode_coded_block(scio_decoder *decoder, const frame *f, const uint8_t *in, size_t in_nbytes,
                   size_t *i_inout, uint8_t *raw, size_t n_raw, scio_error *err)
{
    const size_t i_block = *i_inout;
    size_t n_stored, n_made = n_raw;

    if (in_nbytes - i_block < SIZE_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT, "bitshuffle: cut at byte %zu", i_block);
    n_stored = scio_load_be32(in + i_block);
    if (n_stored > in_nbytes - i_block - SIZE_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bitshuffle: the block at byte %zu has %zu bytes, %zu are left", i_block,
                         n_stored, in_nbytes - i_block - SIZE_NBYTES);
    in += i_block + SIZE_NBYTES;
    if (f->codec == CODEC_LZ4)
        SCIO_TRY(scio_lz4_decode_block(in, n_stored, raw, n_raw, err));
    else
        SCIO_TRY(scio_zstd_decode_with(decoder, in, n_stored, raw, n_raw, &n_made, err));
    if (n_made != n_raw)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bitshuffle: the block at byte %zu gave %zu bytes, expected %zu", i_block,
                         n_made, n_raw);
    *i_inout = i_block + SIZE_NBYTES + n_stored;
    return SCIO_OK;
}

/* All blocks of 8 or more elements; `*i_inout` is moved behind them. */
static scio_status
decode_blocks(scio_decoder *decoder, const frame *f, const uint8_t *in, size_t in_nbytes,
              size_t *i_inout, uint8_t *out, scio_error *err)
{
    const size_t n_blocked = f->total_nbytes / f->itemsize / 8 * 8;
    const size_t n_max = n_blocked < f->block_n_items ? n_blocked : f->block_n_items;
    size_t scratch_nbytes;
    uint8_t *planes, *raw;

    if (!scio_mul_size(n_max * f->itemsize, 2, &scratch_nbytes))
        return scio_fail(err, SCIO_ENOMEM, "bitshuffle: a block is too large for this machine");
    SCIO_TRY(scio_decoder_scratch(decoder, SCIO_SCRATCH_BLOCK, scratch_nbytes, &planes, err));
    raw = planes + n_max * f->itemsize;
    for (size_t i_item = 0; i_item < n_blocked;) {
        const size_t n_left = n_blocked - i_item;
        const size_t n_items = n_left < f->block_n_items ? n_left : f->block_n_items;
        const size_t n_raw = n_items * f->itemsize;
        const uint8_t *rows = raw;

        if (f->codec == CODEC_NONE) { /* total_nbytes is in_nbytes, so the block is there */
            rows = in + *i_inout;
            *i_inout += n_raw;
        } else {
            SCIO_TRY(decode_coded_block(decoder, f, in, in_nbytes, i_inout, raw, n_raw, err));
        }
        SCIO_TRY(scio_bit_unshuffle(rows, n_items, f->itemsize, planes, out + i_item * f->itemsize,
                                    err));
        i_item += n_items;
    }
    return SCIO_OK;
}

scio_status
scio_bitshuffle_decode(scio_decoder *decoder, const uint32_t *client, size_t n_client,
                       const void *in, size_t in_nbytes, void *out, size_t out_capacity,
                       size_t *out_nbytes, scio_error *err)
{
    const uint8_t *ip = in;
    uint8_t *op = out;
    size_t i_in, n_rest;
    frame f = {0};

    SCIO_TRY(parse_client(client, n_client, &f, err));
    SCIO_TRY(parse_header(ip, in_nbytes, out_capacity, &f, err));
    i_in = f.i_data;
    n_rest = f.total_nbytes / f.itemsize % 8 * f.itemsize;
    if (n_rest != f.total_nbytes)
        SCIO_TRY(decode_blocks(decoder, &f, ip, in_nbytes, &i_in, op, err));
    if (in_nbytes - i_in != n_rest)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bitshuffle: %zu bytes behind the last block, expected %zu",
                         in_nbytes - i_in, n_rest);
    if (n_rest != 0)
        memcpy(op + (f.total_nbytes - n_rest), ip + i_in, n_rest);
    *out_nbytes = f.total_nbytes;
    return SCIO_OK;
}
