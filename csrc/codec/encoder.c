/* One chunk through the filters of a spec; deflate by ISA-L at level 1, since it is three times as
 * fast there as libdeflate at the same size, and by libdeflate elsewhere, where ISA-L has no
 * level that compresses as well. */
#include "codec/encoder.h"

#include "base/mem.h"
#include "codec/codec.h"
#include "codec/decoder.h"

#include <libdeflate.h>
#include <string.h>
#ifdef SCIO_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#define SUM_NBYTES 4
/* Of a chunk with its filters: HDF5 counts in 32 bits. */
#define MAX_NBYTES ((size_t)UINT32_MAX)

struct scio_encoder {
    struct libdeflate_compressor *deflate; /* of `deflate_level`, made at first use */
    int deflate_level;
    void *isal; /* isal_state, made at first use */
    bool is_isal_used;
    scio_scratch planes; /* a shuffled chunk */
};

scio_status
scio_encoder_new(scio_encoder **out, scio_error *err)
{
    SCIO_TRY(scio_mem_zalloc(1, sizeof **out, out, err));
    (*out)->is_isal_used = true;
    return SCIO_OK;
}

void
scio_encoder_free(scio_encoder *encoder)
{
    if (encoder == NULL)
        return;
    libdeflate_free_compressor(encoder->deflate);
    scio_mem_free(encoder->isal);
    scio_mem_free(encoder->planes.data);
    scio_mem_free(encoder);
}

void
scio_encoder_use_isal(scio_encoder *encoder, bool is_used)
{
    encoder->is_isal_used = is_used;
}

scio_status
scio_encode_bound(const scio_encode_spec *spec, size_t nbytes, size_t *bound_out, scio_error *err)
{
    /* stored blocks of ISA-L hold 65,535 bytes behind a head of 5; libdeflate's bound is its own */
    const size_t stored = nbytes / 65535 * 5 + 5 + 2 + 4;
    size_t bound = nbytes;

    if (nbytes <= MAX_NBYTES && spec->level != SCIO_DEFLATE_NONE) {
        const size_t other = libdeflate_zlib_compress_bound(NULL, nbytes);

        bound = nbytes + stored > other ? nbytes + stored : other;
    }
    bound += spec->fletcher32 ? SUM_NBYTES : 0;
    if (nbytes > MAX_NBYTES || bound > MAX_NBYTES)
        return scio_fail(err, SCIO_EINVAL,
                         "a chunk of %zu bytes, which may have %zu when stored; at most %zu fit",
                         nbytes, bound, MAX_NBYTES);
    *bound_out = bound;
    return SCIO_OK;
}

/* ---- deflate ---- */

static scio_status
no_room(size_t nbytes, size_t capacity, scio_error *err)
{
    return scio_fail(err, SCIO_EBUG, "deflate: %zu bytes do not fit in %zu", nbytes, capacity);
}

static scio_status
deflate_libdeflate(scio_encoder *encoder, int level, const void *in, size_t nbytes, void *out,
                   size_t capacity, size_t *out_nbytes, scio_error *err)
{
    if (encoder->deflate == NULL || encoder->deflate_level != level) {
        libdeflate_free_compressor(encoder->deflate);
        encoder->deflate = scio_mem_ask_fails() ? NULL : libdeflate_alloc_compressor(level);
        encoder->deflate_level = level;
    }
    if (encoder->deflate == NULL)
        return scio_fail(err, SCIO_ENOMEM, "a compressor of level %d", level);
    *out_nbytes = libdeflate_zlib_compress(encoder->deflate, in, nbytes, out, capacity);
    return *out_nbytes == 0 ? no_room(nbytes, capacity, err) : SCIO_OK;
}

#ifdef SCIO_HAVE_ISAL

typedef struct isal_state {
    struct isal_zstream stream;
    uint8_t level_buf[ISAL_DEF_LVL1_DEFAULT];
} isal_state;

static size_t
isal_nbytes(const scio_encoder *encoder)
{
    return encoder->isal == NULL ? 0 : sizeof(isal_state);
}

/* ISA-L 2.30 takes bits 16 to 47 of the state's address for data when it enters the third position
 * of a stream into its hash table (its AVX2 loop: where there is no history yet, a register is not
 * loaded).  What it makes is sound, but differs from one process and thread to the next.  So the
 * first bytes are a block of their own, which other code of ISA-L makes, and the loop starts with a
 * history. */
#define FIRST_NBYTES ((uint32_t)8)
#define ISAL_MIN_NBYTES ((size_t)256)

/* False when there was no room. */
static bool
run_isal(isal_state *state, const uint8_t *in, size_t nbytes, void *out, size_t capacity)
{
    struct isal_zstream *const stream = &state->stream;

    isal_deflate_init(stream);
    stream->level = 1;
    stream->level_buf = state->level_buf;
    stream->level_buf_size = sizeof state->level_buf;
    stream->gzip_flag = IGZIP_ZLIB;
    stream->next_in = (uint8_t *)(uintptr_t)in;
    stream->avail_in = FIRST_NBYTES;
    stream->next_out = out;
    stream->avail_out = (uint32_t)capacity;
    stream->flush = SYNC_FLUSH;
    if (isal_deflate(stream) != COMP_OK || stream->avail_in != 0)
        return false;
    stream->avail_in = (uint32_t)nbytes - FIRST_NBYTES;
    stream->flush = NO_FLUSH;
    stream->end_of_stream = 1;
    return isal_deflate(stream) == COMP_OK && stream->internal_state.state == ZSTATE_END;
}

static scio_status
deflate_isal(scio_encoder *encoder, const void *in, size_t nbytes, void *out, size_t capacity,
             size_t *out_nbytes, scio_error *err)
{
    isal_state *state;

    if (encoder->isal == NULL)
        SCIO_TRY(scio_mem_zalloc(1, sizeof *state, &encoder->isal, err));
    state = encoder->isal;
    if (!run_isal(state, in, nbytes, out, capacity)) /* noise */
        return deflate_libdeflate(encoder, 1, in, nbytes, out, capacity, out_nbytes, err);
    *out_nbytes = capacity - state->stream.avail_out;
    return SCIO_OK;
}

static bool
is_for_isal(const scio_encoder *encoder, int level, size_t nbytes)
{
    return level == 1 && encoder->is_isal_used && nbytes >= ISAL_MIN_NBYTES;
}

#else

static size_t
isal_nbytes(const scio_encoder *encoder)
{
    (void)encoder;
    return 0;
}

static scio_status
deflate_isal(scio_encoder *encoder, const void *in, size_t nbytes, void *out, size_t capacity,
             size_t *out_nbytes, scio_error *err)
{
    return deflate_libdeflate(encoder, 1, in, nbytes, out, capacity, out_nbytes, err);
}

static bool
is_for_isal(const scio_encoder *encoder, int level, size_t nbytes)
{
    (void)encoder;
    (void)level;
    (void)nbytes;
    return false;
}

#endif

/* ---- the chain ---- */

static scio_status
shuffle(scio_encoder *encoder, size_t itemsize, const void *in, size_t nbytes, void *out,
        scio_error *err)
{
    scio_scratch *const planes = &encoder->planes;

    if (out == NULL && planes->capacity < nbytes) {
        SCIO_TRY(scio_mem_realloc(&planes->data, nbytes, 1, err));
        planes->capacity = nbytes;
    }
    return scio_shuffle(in, nbytes, itemsize, out == NULL ? planes->data : out, err);
}

size_t
scio_encoder_nbytes(const scio_encoder *encoder)
{
    return sizeof *encoder + encoder->planes.capacity + isal_nbytes(encoder);
}

static void
append_sum(uint8_t *out, size_t *out_nbytes)
{
    const uint32_t sum = scio_fletcher32(out, *out_nbytes);

    for (unsigned i = 0; i < SUM_NBYTES; i++)
        out[(*out_nbytes)++] = (uint8_t)(sum >> 8 * i);
}

scio_status
scio_encode_chunk(scio_encoder *encoder, const scio_encode_spec *spec, const void *in,
                  size_t nbytes, void *out, size_t out_capacity, size_t *out_nbytes,
                  scio_error *err)
{
    const bool is_deflated = spec->level != SCIO_DEFLATE_NONE;
    const size_t sum_nbytes = spec->fletcher32 ? SUM_NBYTES : 0;
    size_t bound = 0, n_made = nbytes;

    SCIO_TRY(scio_encode_bound(spec, nbytes, &bound, err));
    if (out_capacity < bound)
        return no_room(nbytes, out_capacity, err);
    if (spec->itemsize > 1) {
        SCIO_TRY(shuffle(encoder, spec->itemsize, in, nbytes, is_deflated ? NULL : out, err));
        in = encoder->planes.data;
    } else if (!is_deflated) {
        scio_copy_bytes(out, in, nbytes);
    }
    if (is_deflated && is_for_isal(encoder, spec->level, nbytes))
        SCIO_TRY(deflate_isal(encoder, in, nbytes, out, bound - sum_nbytes, &n_made, err));
    else if (is_deflated)
        SCIO_TRY(deflate_libdeflate(encoder, spec->level, in, nbytes, out, bound - sum_nbytes,
                                    &n_made, err));
    if (spec->fletcher32)
        append_sum(out, &n_made);
    *out_nbytes = n_made;
    return SCIO_OK;
}
