/* HDF5's byte shuffle: plane j holds byte j of every element, planes in order, and the bytes beyond
 * the last whole element stay at the end.
 *
 * Undoing it transposes itemsize rows of n_items bytes.  Read naively that takes one byte at a
 * time. Here 16 bytes of each of 2, 4 or 8 planes are interleaved by log2(planes) rounds of SSE2
 * unpacks, which every x86-64 has; wider elements are done in groups of 8 planes, whose 8-byte
 * pieces are stored at a stride of itemsize.  Whatever a group or a step of 16 elements leaves
 * over, and every other CPU, takes the plain loop. */
#include "codec/decoder.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Elements per step of the SSE2 loops. */
#define STEP_N_ITEMS 16
/* Elements per tile of the plain loops, so that the lines of the wide side stay in the L1 cache
 * while the planes are visited one after the other. */
#define TILE_N_ITEMS 256

/* Elements [i_begin, i_end), bytes [j_begin, itemsize) of each. */
static void
unshuffle_plain(const uint8_t *in, size_t n_items, size_t itemsize, size_t i_begin, size_t i_end,
                size_t j_begin, uint8_t *out)
{
    for (size_t i_tile = i_begin; i_tile < i_end; i_tile += TILE_N_ITEMS) {
        const size_t n_left = i_end - i_tile;
        const size_t n_tile = n_left < TILE_N_ITEMS ? n_left : TILE_N_ITEMS;

        for (size_t j = j_begin; j < itemsize; j++) {
            const uint8_t *plane = in + j * n_items + i_tile;
            uint8_t *to = out + i_tile * itemsize + j;

            for (size_t i = 0; i < n_tile; i++)
                to[i * itemsize] = plane[i];
        }
    }
}

#ifdef __SSE2__

static inline __m128i
load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline void
store16(uint8_t *p, __m128i x)
{
    _mm_storeu_si128((__m128i *)(void *)p, x);
}

static void
unshuffle_2(const uint8_t *in, size_t n_items, size_t n_stepped, uint8_t *out)
{
    for (size_t i = 0; i < n_stepped; i += STEP_N_ITEMS) {
        const __m128i a = load16(in + i);
        const __m128i b = load16(in + n_items + i);

        store16(out + 2 * i, _mm_unpacklo_epi8(a, b));
        store16(out + 2 * i + 16, _mm_unpackhi_epi8(a, b));
    }
}

static void
unshuffle_4(const uint8_t *in, size_t n_items, size_t n_stepped, uint8_t *out)
{
    for (size_t i = 0; i < n_stepped; i += STEP_N_ITEMS) {
        const __m128i a = load16(in + i);
        const __m128i b = load16(in + n_items + i);
        const __m128i c = load16(in + 2 * n_items + i);
        const __m128i d = load16(in + 3 * n_items + i);
        const __m128i ab_lo = _mm_unpacklo_epi8(a, b), ab_hi = _mm_unpackhi_epi8(a, b);
        const __m128i cd_lo = _mm_unpacklo_epi8(c, d), cd_hi = _mm_unpackhi_epi8(c, d);

        store16(out + 4 * i, _mm_unpacklo_epi16(ab_lo, cd_lo));
        store16(out + 4 * i + 16, _mm_unpackhi_epi16(ab_lo, cd_lo));
        store16(out + 4 * i + 32, _mm_unpacklo_epi16(ab_hi, cd_hi));
        store16(out + 4 * i + 48, _mm_unpackhi_epi16(ab_hi, cd_hi));
    }
}

/* Interleaves 16 bytes of 8 planes: piece[k] = the 8 bytes of element 2k, then of 2k + 1. */
static inline void
interleave_8(const uint8_t *in, size_t plane_stride, __m128i piece[8])
{
    __m128i plane[8], pair[8], quad[8];

    for (size_t j = 0; j < 8; j++)
        plane[j] = load16(in + j * plane_stride);
    for (size_t j = 0; j < 8; j += 2) { /* bytes of 2 planes: 8 elements each */
        pair[j] = _mm_unpacklo_epi8(plane[j], plane[j + 1]);
        pair[j + 1] = _mm_unpackhi_epi8(plane[j], plane[j + 1]);
    }
    for (size_t j = 0; j < 8; j += 4) { /* bytes of 4 planes: 4 elements each */
        quad[j] = _mm_unpacklo_epi16(pair[j], pair[j + 2]);
        quad[j + 1] = _mm_unpackhi_epi16(pair[j], pair[j + 2]);
        quad[j + 2] = _mm_unpacklo_epi16(pair[j + 1], pair[j + 3]);
        quad[j + 3] = _mm_unpackhi_epi16(pair[j + 1], pair[j + 3]);
    }
    for (size_t k = 0; k < 4; k++) {
        piece[2 * k] = _mm_unpacklo_epi32(quad[k], quad[k + 4]);
        piece[2 * k + 1] = _mm_unpackhi_epi32(quad[k], quad[k + 4]);
    }
}

static void
unshuffle_8(const uint8_t *in, size_t n_items, size_t n_stepped, uint8_t *out)
{
    __m128i piece[8];

    for (size_t i = 0; i < n_stepped; i += STEP_N_ITEMS) {
        interleave_8(in + i, n_items, piece);
        for (size_t k = 0; k < 8; k++)
            store16(out + 8 * i + 16 * k, piece[k]);
    }
}

/* Bytes [0, itemsize rounded down to 8) of elements [0, n_stepped). */
static void
unshuffle_groups(const uint8_t *in, size_t n_items, size_t n_stepped, size_t itemsize, uint8_t *out)
{
    __m128i piece[8];

    for (size_t i = 0; i < n_stepped; i += STEP_N_ITEMS) {
        for (size_t j = 0; j + 8 <= itemsize; j += 8) {
            uint8_t *to = out + i * itemsize + j;

            interleave_8(in + j * n_items + i, n_items, piece);
            for (size_t k = 0; k < 8; k++) {
                const __m128i second = _mm_unpackhi_epi64(piece[k], piece[k]);

                _mm_storel_epi64((__m128i *)(void *)(to + 2 * k * itemsize), piece[k]);
                _mm_storel_epi64((__m128i *)(void *)(to + (2 * k + 1) * itemsize), second);
            }
        }
    }
}

static void
unshuffle_items(const uint8_t *in, size_t n_items, size_t itemsize, uint8_t *out)
{
    const size_t n_stepped = n_items - n_items % STEP_N_ITEMS;
    size_t j_done = itemsize; /* bytes of the stepped elements that are done */

    if (itemsize == 2) {
        unshuffle_2(in, n_items, n_stepped, out);
    } else if (itemsize == 4) {
        unshuffle_4(in, n_items, n_stepped, out);
    } else if (itemsize == 8) {
        unshuffle_8(in, n_items, n_stepped, out);
    } else {
        unshuffle_groups(in, n_items, n_stepped, itemsize, out);
        j_done = itemsize - itemsize % 8;
    }
    unshuffle_plain(in, n_items, itemsize, 0, n_stepped, j_done, out);
    unshuffle_plain(in, n_items, itemsize, n_stepped, n_items, 0, out);
}

#else

static void
unshuffle_items(const uint8_t *in, size_t n_items, size_t itemsize, uint8_t *out)
{
    unshuffle_plain(in, n_items, itemsize, 0, n_items, 0, out);
}

#endif

static inline void
shuffle_items(const uint8_t *in, size_t n_items, size_t itemsize, uint8_t *out)
{
    for (size_t i_tile = 0; i_tile < n_items; i_tile += TILE_N_ITEMS) {
        const size_t n_left = n_items - i_tile;
        const size_t n_tile = n_left < TILE_N_ITEMS ? n_left : TILE_N_ITEMS;

        for (size_t j = 0; j < itemsize; j++) {
            const uint8_t *from = in + i_tile * itemsize + j;
            uint8_t *plane = out + j * n_items + i_tile;

            for (size_t i = 0; i < n_tile; i++)
                plane[i] = from[i * itemsize];
        }
    }
}

/* The rules that both directions share; `*n_items_out` is 0 when the bytes are to be copied. */
static scio_status
count_items(size_t nbytes, size_t itemsize, size_t *n_items_out, scio_error *err)
{
    if (itemsize == 0)
        return scio_fail(err, SCIO_ECORRUPT, "shuffle: the element size is 0, expected at least 1");
    *n_items_out = itemsize == 1 || nbytes / itemsize <= 1 ? 0 : nbytes / itemsize;
    return SCIO_OK;
}

scio_status
scio_unshuffle(const void *in, size_t nbytes, size_t itemsize, void *out, scio_error *err)
{
    const uint8_t *from = in;
    uint8_t *to = out;
    size_t n_items = 0, n_planed;

    SCIO_TRY(count_items(nbytes, itemsize, &n_items, err));
    n_planed = n_items * itemsize;
    if (n_items != 0)
        unshuffle_items(from, n_items, itemsize, to);
    if (n_planed != nbytes)
        memcpy(to + n_planed, from + n_planed, nbytes - n_planed);
    return SCIO_OK;
}

scio_status
scio_shuffle(const void *in, size_t nbytes, size_t itemsize, void *out, scio_error *err)
{
    const uint8_t *from = in;
    uint8_t *to = out;
    size_t n_items = 0, n_planed;

    SCIO_TRY(count_items(nbytes, itemsize, &n_items, err));
    n_planed = n_items * itemsize;
    switch (n_items != 0 ? itemsize : 0) { /* constants let the compiler vectorise the stride */
    case 0:
        break;
    case 2:
        shuffle_items(from, n_items, 2, to);
        break;
    case 4:
        shuffle_items(from, n_items, 4, to);
        break;
    case 8:
        shuffle_items(from, n_items, 8, to);
        break;
    default:
        shuffle_items(from, n_items, itemsize, to);
    }
    if (n_planed != nbytes)
        memcpy(to + n_planed, from + n_planed, nbytes - n_planed);
    return SCIO_OK;
}
