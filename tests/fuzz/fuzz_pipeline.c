/* A chain of up to 4 filters on arbitrary bytes.  Input: u8 filters, u8 mask, u16 chunk bytes, u8
 * engine; per filter u8 which, u8 client values, u16 for each of them; then the stored bytes.
 *
 * The chain is undone twice by one decoder, over different old contents of the output, and once
 * more up to the planes, which are then unshuffled here: all three must agree. */
#include "codec/pipeline.h"
#include "fuzz_guard.h"

static const uint16_t filter_ids[] = {
    SCIO_FILTER_DEFLATE, SCIO_FILTER_SHUFFLE,    SCIO_FILTER_FLETCHER32,
    SCIO_FILTER_LZF,     SCIO_FILTER_ZSTD,       SCIO_FILTER_LZ4,
    SCIO_FILTER_BLOSC,   SCIO_FILTER_BITSHUFFLE, SCIO_FILTER_SZIP,
};

static scio_pipeline
take_pipeline(fuzz_input *input, size_t n_filters)
{
    scio_pipeline p = {n_filters, {{0}}};

    for (size_t i = 0; i < n_filters; i++) {
        scio_filter *filter = &p.filters[i];

        filter->id = filter_ids[fuzz_take(input, 1) % (sizeof filter_ids / sizeof filter_ids[0])];
        filter->n_client = (uint16_t)(fuzz_take(input, 1) % (SCIO_MAX_CLIENT + 1));
        for (size_t k = 0; k < filter->n_client; k++)
            filter->client[k] = fuzz_take(input, 2);
    }
    return p;
}

static void
check_planes(const scio_pipeline *p, uint32_t mask, scio_decoder *decoder, const uint8_t *in,
             size_t in_nbytes, uint8_t *planes, uint8_t *plain, const uint8_t *expected,
             size_t out_nbytes, scio_status expected_status)
{
    size_t itemsize = 0;
    const scio_status status = scio_pipeline_decode_planes(p, mask, decoder, in, in_nbytes, planes,
                                                           out_nbytes, &itemsize, NULL);

    guard_check(planes);
    if (status != expected_status)
        abort();
    if (status != SCIO_OK)
        return;
    if (itemsize == 0 || scio_unshuffle(planes, out_nbytes, itemsize, plain, NULL) != SCIO_OK ||
        memcmp(plain, expected, out_nbytes) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static guard_area areas[5];
    fuzz_input input = {data, nbytes};
    const size_t n_filters = fuzz_take(&input, 1) % 5;
    const uint32_t mask = fuzz_take(&input, 1);
    const size_t out_nbytes = fuzz_take(&input, 2);
    const unsigned engine = fuzz_take(&input, 1) % 2;
    const scio_pipeline p = take_pipeline(&input, n_filters);
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status[2];
    uint8_t *in, *out[4];

    for (size_t k = 0; k < 5; k++)
        if (areas[k].end == NULL)
            areas[k] = guard_area_new();
    if (input.nbytes > GUARD_AREA_NBYTES / 2 || scio_decoder_new(&decoder, NULL) != SCIO_OK)
        return 0;
    if (engine != 0)
        scio_decoder_set_deflate_engine(decoder, SCIO_DEFLATE_ISAL);
    in = guard_buffer(&areas[4], input.nbytes, 0);
    if (input.nbytes != 0)
        memcpy(in, input.data, input.nbytes);
    for (size_t k = 0; k < 4; k++)
        out[k] = guard_buffer(&areas[k], out_nbytes, k == 0 ? 0 : 0xff);
    for (size_t k = 0; k < 2; k++) {
        status[k] = scio_pipeline_decode(&p, mask, decoder, in, input.nbytes, out[k], out_nbytes,
                                         k == 0 ? &err : NULL);
        guard_check(out[k]);
    }
    if (status[0] != status[1] || (status[0] != SCIO_OK && err.message[0] == '\0') ||
        status[0] == SCIO_EBUG)
        abort();
    if (status[0] == SCIO_OK && memcmp(out[0], out[1], out_nbytes) != 0)
        abort();
    check_planes(&p, mask, decoder, in, input.nbytes, out[2], out[3], out[0], out_nbytes,
                 status[0]);
    /* both ping-pong buffers, and one block's bytes and planes */
    if (scio_decoder_nbytes(decoder) > 6 * out_nbytes + 6 * 65536 + 1000000)
        abort();
    scio_decoder_free(decoder);
    return 0;
}
