/* One decoder on arbitrary bytes.  Input: u8 decoder, u16 limit of the output (big-endian, as all),
 * for bitshuffle u8 client values, u16 element size, u16 block elements, u8 codec, for unshuffle
 * u16 element size; then the stored bytes.
 *
 * Each input is decoded twice over different old contents of the output: status, length and bytes
 * must agree, nothing outside the buffers may change, and the two inflaters must agree. */
#include "codec/codec.h"
#include "codec/decoder.h"
#include "fuzz_guard.h"

enum {
    DEFLATE,
    DEFLATE_ISAL,
    UNSHUFFLE,
    FLETCHER32,
    LZF,
    ZSTD,
    LZ4,
    BLOSC,
    BITSHUFFLE,
    BLOSCLZ,
    N_DECODERS
};

typedef struct job {
    unsigned decoder;
    size_t capacity;
    uint32_t client[5];
    size_t n_client;
    size_t itemsize;
    const uint8_t *in;
    size_t in_nbytes;
} job;

static scio_status
run(const job *j, scio_decoder *d, uint8_t *out, size_t *n, scio_error *err)
{
    switch (j->decoder) {
    case DEFLATE:
        return scio_deflate_decode(d, j->in, j->in_nbytes, out, j->capacity, n, err);
    case DEFLATE_ISAL:
        return scio_deflate_decode_isal(d, j->in, j->in_nbytes, out, j->capacity, n, err);
    case UNSHUFFLE:
        *n = j->in_nbytes;
        return scio_unshuffle(j->in, j->in_nbytes, j->itemsize, out, err);
    case FLETCHER32:
        SCIO_TRY(scio_fletcher32_check(j->in, j->in_nbytes, n, err));
        scio_copy_bytes(out, j->in, *n);
        return SCIO_OK;
    case LZF:
        return scio_lzf_decode(j->in, j->in_nbytes, out, j->capacity, n, err);
    case ZSTD:
        return scio_zstd_decode(j->in, j->in_nbytes, out, j->capacity, n, err);
    case LZ4:
        return scio_lz4_decode(j->in, j->in_nbytes, out, j->capacity, n, err);
    case BLOSC:
        return scio_blosc_decode(d, j->in, j->in_nbytes, out, j->capacity, n, err);
    case BITSHUFFLE:
        return scio_bitshuffle_decode(d, j->client, j->n_client, j->in, j->in_nbytes, out,
                                      j->capacity, n, err);
    default:
        return scio_blosclz_decode(j->in, j->in_nbytes, out, j->capacity, n, err);
    }
}

static job
take_job(fuzz_input *input)
{
    job j = {0};

    j.decoder = fuzz_take(input, 1) % N_DECODERS;
    j.capacity = fuzz_take(input, 2);
    if (j.decoder == BITSHUFFLE) {
        j.n_client = fuzz_take(input, 1) % 6;
        j.client[2] = fuzz_take(input, 2);
        j.client[3] = fuzz_take(input, 2);
        j.client[4] = fuzz_take(input, 1);
    } else if (j.decoder == UNSHUFFLE) {
        j.itemsize = fuzz_take(input, 2);
    }
    if (input->nbytes > GUARD_AREA_NBYTES / 2)
        input->nbytes = GUARD_AREA_NBYTES / 2;
    if (j.decoder == UNSHUFFLE || j.decoder == FLETCHER32)
        j.capacity = input->nbytes;
    j.in_nbytes = input->nbytes;
    return j;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static guard_area areas[3];
    fuzz_input input = {data, nbytes};
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t n_made[2] = {0, 0};
    scio_status status[2];
    uint8_t *in, *out[2];
    job j;

    for (size_t k = 0; k < 3; k++)
        if (areas[k].end == NULL)
            areas[k] = guard_area_new();
    j = take_job(&input);
    in = guard_buffer(&areas[2], j.in_nbytes, 0);
    scio_copy_bytes(in, input.data, j.in_nbytes);
    j.in = in;
    if (scio_decoder_new(&decoder, NULL) != SCIO_OK)
        return 0;
    for (size_t k = 0; k < 2; k++) {
        out[k] = guard_buffer(&areas[k], j.capacity, k == 0 ? 0 : 0xff);
        status[k] = run(&j, decoder, out[k], &n_made[k], k == 0 ? &err : NULL);
        guard_check(out[k]);
        if (k == 0 && j.decoder <= DEFLATE_ISAL)
            j.decoder = DEFLATE + DEFLATE_ISAL - j.decoder; /* the second time by the other one */
    }
    if (status[0] != status[1] || (status[0] != SCIO_OK && err.message[0] == '\0'))
        abort();
    if (status[0] == SCIO_OK && (n_made[0] != n_made[1] || n_made[0] > j.capacity ||
                                 memcmp(out[0], out[1], n_made[0]) != 0))
        abort();
    guard_check(in);
    if (scio_decoder_nbytes(decoder) > 4 * j.capacity + 1000000)
        abort(); /* scratch is bounded by the limit of the output, not by what the input says */
    if (j.in_nbytes != 0 && memcmp(in, input.data, j.in_nbytes) != 0)
        abort();
    scio_decoder_free(decoder);
    return 0;
}
