/* One Zstandard frame, as the HDF5 filter 32015, Blosc and bitshuffle store it. */
#include "codec/decoder.h"

#ifdef SCIO_HAVE_ZSTD

#include <zstd.h>

#define MAGIC_NBYTES 4
#define MAGIC 0xfd2fb528u

void
scio_zstd_free(void *zstd)
{
    ZSTD_freeDCtx(zstd);
}

size_t
scio_zstd_nbytes(const void *zstd)
{
    return ZSTD_sizeof_DCtx(zstd);
}

/* Only plain frames: skippable ones hold no data, and the formats before version 0.8, which some
 * builds of libzstd still decode, were never written into HDF5 files.  Exactly one frame: its end
 * is compared with the end of the input. */
static scio_status
check_frame(const uint8_t *in, size_t in_nbytes, size_t out_capacity, scio_error *err)
{
    unsigned long long content;
    size_t n_frame;

    if (in_nbytes < MAGIC_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT, "zstd: %zu bytes, too few for a frame", in_nbytes);
    if (scio_load_le32(in) != MAGIC)
        return scio_fail(err, SCIO_ECORRUPT,
                         "zstd: the frame starts with %02x %02x %02x %02x, expected 28 b5 2f fd",
                         in[0], in[1], in[2], in[3]);
    content = ZSTD_getFrameContentSize(in, in_nbytes);
    if (content == ZSTD_CONTENTSIZE_ERROR)
        return scio_fail(err, SCIO_ECORRUPT, "zstd: the frame header is damaged");
    if (content != ZSTD_CONTENTSIZE_UNKNOWN && content > out_capacity)
        return scio_fail(err, SCIO_ECORRUPT,
                         "zstd: the frame announces %llu bytes, at most %zu expected", content,
                         out_capacity);
    n_frame = ZSTD_findFrameCompressedSize(in, in_nbytes);
    if (ZSTD_isError(n_frame))
        return scio_fail(err, SCIO_ECORRUPT, "zstd: the frame is damaged or cut (%zu bytes): %s",
                         in_nbytes, ZSTD_getErrorName(n_frame));
    if (n_frame != in_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "zstd: %zu bytes behind the frame",
                         in_nbytes - n_frame);
    return SCIO_OK;
}

static scio_status
decode_frame(ZSTD_DCtx *context, const void *in, size_t in_nbytes, void *out, size_t out_capacity,
             size_t *out_nbytes, scio_error *err)
{
    size_t n_made;

    SCIO_TRY(check_frame(in, in_nbytes, out_capacity, err));
    n_made = ZSTD_decompressDCtx(context, out, out_capacity, in, in_nbytes);
    if (ZSTD_isError(n_made))
        return scio_fail(err, SCIO_ECORRUPT,
                         "zstd: the frame of %zu bytes does not give at most %zu bytes: %s",
                         in_nbytes, out_capacity, ZSTD_getErrorName(n_made));
    *out_nbytes = n_made;
    return SCIO_OK;
}

scio_status
scio_zstd_decode(const void *in, size_t in_nbytes, void *out, size_t out_capacity,
                 size_t *out_nbytes, scio_error *err)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    scio_status status;

    if (context == NULL)
        return scio_fail(err, SCIO_ENOMEM, "no memory for a Zstandard context");
    status = decode_frame(context, in, in_nbytes, out, out_capacity, out_nbytes, err);
    ZSTD_freeDCtx(context);
    return status;
}

scio_status
scio_zstd_decode_with(scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                      size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    if (decoder->zstd == NULL)
        decoder->zstd = ZSTD_createDCtx();
    if (decoder->zstd == NULL)
        return scio_fail(err, SCIO_ENOMEM, "no memory for a Zstandard context");
    return decode_frame(decoder->zstd, in, in_nbytes, out, out_capacity, out_nbytes, err);
}

#else

void
scio_zstd_free(void *zstd)
{
    (void)zstd;
}

size_t
scio_zstd_nbytes(const void *zstd)
{
    (void)zstd;
    return 0;
}

scio_status
scio_zstd_decode(const void *in, size_t in_nbytes, void *out, size_t out_capacity,
                 size_t *out_nbytes, scio_error *err)
{
    (void)in, (void)in_nbytes, (void)out, (void)out_capacity, (void)out_nbytes;
    return scio_fail(err, SCIO_EUNSUPPORTED, "zstd: this scio was built without libzstd");
}

scio_status
scio_zstd_decode_with(scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                      size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)decoder;
    return scio_zstd_decode(in, in_nbytes, out, out_capacity, out_nbytes, err);
}

#endif
