/* zlib streams (RFC 1950): our own two-byte header and Adler-32 trailer around a raw inflate.
 *
 * The wrapper is read here and not by the library, so that an error can say which part is broken
 * and what the checksum is; the checksum itself is libdeflate's, which is vectorised. */
#include "base/mem.h"
#include "codec/decoder.h"

#include <libdeflate.h>
#ifdef SCIO_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#define HEADER_NBYTES 2
#define ADLER_NBYTES 4

/* CMF: low 4 bits method (8), high 4 bits log2(window) - 8 (at most 7).  FLG: CMF * 256 + FLG is a
 * multiple of 31; bit 5 announces a preset dictionary, which HDF5 has no place to store. */
static scio_status
check_header(const uint8_t *in, size_t in_nbytes, scio_error *err)
{
    if (in_nbytes < HEADER_NBYTES + ADLER_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT,
                         "a zlib stream of %zu bytes; the header and the checksum alone have %d",
                         in_nbytes, HEADER_NBYTES + ADLER_NBYTES);
    if ((in[0] & 15) != 8 || in[0] >> 4 > 7 || ((unsigned)in[0] << 8 | in[1]) % 31 != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "bytes %02x %02x are no zlib header (a usual one is 78 9c)", in[0], in[1]);
    if (in[1] & 32)
        return scio_fail(err, SCIO_ECORRUPT, "the zlib stream wants a preset dictionary");
    return SCIO_OK;
}

/* Compares the Adler-32 at `trailer` with that of the data. */
static scio_status
check_adler(const uint8_t *trailer, const void *data, size_t nbytes, scio_error *err)
{
    const uint32_t stored = scio_load_be32(trailer);
    const uint32_t found = libdeflate_adler32(1, data, nbytes);

    if (found != stored)
        return scio_fail(err, SCIO_ECORRUPT,
                         "Adler-32 of the %zu inflated bytes is %08x, the stream says %08x", nbytes,
                         (unsigned)found, (unsigned)stored);
    return SCIO_OK;
}

scio_status
scio_deflate_decode(scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                    size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    const uint8_t *ip = in;
    uint8_t nothing = 0; /* a library need not take NULL, even for zero bytes */
    uint8_t *op = out_capacity != 0 ? out : &nothing;
    size_t n_used = 0, n_made = 0;
    enum libdeflate_result result;

    SCIO_TRY(check_header(ip, in_nbytes, err));
    result = libdeflate_deflate_decompress_ex(decoder->deflate, ip + HEADER_NBYTES,
                                              in_nbytes - HEADER_NBYTES - ADLER_NBYTES, op,
                                              out_capacity, &n_used, &n_made);
    if (result == LIBDEFLATE_INSUFFICIENT_SPACE)
        return scio_fail(err, SCIO_ECORRUPT,
                         "the zlib stream inflates to more than the %zu bytes expected",
                         out_capacity);
    if (result != LIBDEFLATE_SUCCESS)
        return scio_fail(
            err, SCIO_ECORRUPT,
            "the zlib stream is cut or damaged (%zu bytes stored, at most %zu expected "
            "from them)",
            in_nbytes, out_capacity);
    SCIO_TRY(check_adler(ip + HEADER_NBYTES + n_used, op, n_made, err));
    *out_nbytes = n_made;
    return SCIO_OK;
}

#ifdef SCIO_HAVE_ISAL

void
scio_isal_free(void *isal)
{
    scio_mem_free(isal);
}

size_t
scio_isal_nbytes(const void *isal)
{
    return isal == NULL ? 0 : sizeof(struct inflate_state);
}

/* ISA-L counts in 32 bits; a longer chunk goes to libdeflate. */
static bool
fits_isal(size_t in_nbytes, size_t out_capacity)
{
    return in_nbytes <= UINT32_MAX && out_capacity <= UINT32_MAX;
}

scio_status
scio_deflate_decode_isal(scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                         size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    struct inflate_state *state;
    uint8_t nothing = 0;
    uint8_t *op = out_capacity != 0 ? out : &nothing;
    int result;

    if (!fits_isal(in_nbytes, out_capacity))
        return scio_deflate_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
    SCIO_TRY(check_header(in, in_nbytes, err));
    if (decoder->isal == NULL)
        SCIO_TRY(scio_mem_alloc(1, sizeof *state, &decoder->isal, err));
    state = decoder->isal;
    isal_inflate_init(state);
    state->crc_flag = ISAL_ZLIB; /* reads header and trailer, checks the Adler-32 */
    state->next_in = (uint8_t *)(uintptr_t)in;
    state->avail_in = (uint32_t)in_nbytes;
    state->next_out = op;
    state->avail_out = (uint32_t)out_capacity;
    result = isal_inflate_stateless(state);
    /* The verdict on a bad stream is libdeflate's, so that it does not depend on the engine: it
     * takes some damaged streams (incomplete prefix codes) that ISA-L and zlib refuse although the
     * bytes come out right by their checksum. */
    if (result != ISAL_DECOMP_OK || state->block_state != ISAL_BLOCK_FINISH)
        return scio_deflate_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
    *out_nbytes = out_capacity - state->avail_out;
    return SCIO_OK;
}

#else

void
scio_isal_free(void *isal)
{
    (void)isal;
}

size_t
scio_isal_nbytes(const void *isal)
{
    (void)isal;
    return 0;
}

scio_status
scio_deflate_decode_isal(scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                         size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    return scio_deflate_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
}

#endif
