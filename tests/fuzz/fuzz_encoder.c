/* What the encoder makes of any chunk, our decoder takes back.  Input: u8 level, u8 item size, u8
 * flags (1: checksum, 2: encode with an encoder that was used before); then the chunk.
 *
 * The chunk is encoded twice, by a fresh encoder and by one with a history: the bytes must agree.
 */
#include "base/mem.h"
#include "codec/encoder.h"
#include "codec/pipeline.h"
#include "fuzz_guard.h"

static scio_pipeline
pipeline_of(const scio_encode_spec *spec)
{
    scio_pipeline p = {0};

    if (spec->itemsize > 0)
        p.filters[p.n_filters++] = (scio_filter){
            .id = SCIO_FILTER_SHUFFLE, .n_client = 1, .client = {(uint32_t)spec->itemsize}};
    if (spec->level != SCIO_DEFLATE_NONE)
        p.filters[p.n_filters++] = (scio_filter){.id = SCIO_FILTER_DEFLATE};
    if (spec->fletcher32)
        p.filters[p.n_filters++] = (scio_filter){.id = SCIO_FILTER_FLETCHER32};
    return p;
}

/* Into the last bytes before a page that faults. */
static size_t
encode(scio_encoder *encoder, const scio_encode_spec *spec, const uint8_t *in, size_t nbytes,
       const guard_area *area, uint8_t **out)
{
    size_t bound = 0, stored_nbytes = 0;

    if (scio_encode_bound(spec, nbytes, &bound, NULL) != SCIO_OK)
        abort();
    *out = guard_buffer(area, bound, 0xff);
    if (scio_encode_chunk(encoder, spec, in, nbytes, *out, bound, &stored_nbytes, NULL) !=
            SCIO_OK ||
        stored_nbytes > bound)
        abort();
    guard_check(*out);
    return stored_nbytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static guard_area areas[4];
    static scio_encoder *used;
    static const size_t itemsizes[] = {0, 1, 2, 3, 4, 8, 12, 16};
    fuzz_input input = {data, nbytes};
    const unsigned level = fuzz_take(&input, 1) % 11;
    const unsigned i_itemsize = fuzz_take(&input, 1) % 8, has_checksum = fuzz_take(&input, 1) & 1;
    const scio_encode_spec spec = {
        .level = level == 10 ? SCIO_DEFLATE_NONE : (int)level,
        .itemsize = itemsizes[i_itemsize],
        .fletcher32 = has_checksum != 0,
    };
    const scio_pipeline pipeline = pipeline_of(&spec);
    scio_encoder *fresh = NULL;
    scio_decoder *decoder = NULL;
    uint8_t *in, *stored[2], *back;
    size_t stored_nbytes[2];

    for (size_t k = 0; k < 4; k++)
        if (areas[k].end == NULL)
            areas[k] = guard_area_new();
    if (input.nbytes == 0 || input.nbytes > GUARD_AREA_NBYTES / 2)
        return 0;
    if (used == NULL && scio_encoder_new(&used, NULL) != SCIO_OK)
        abort();
    if (scio_encoder_new(&fresh, NULL) != SCIO_OK || scio_decoder_new(&decoder, NULL) != SCIO_OK)
        abort();
    in = guard_buffer(&areas[0], input.nbytes, 0);
    memcpy(in, input.data, input.nbytes);
    stored_nbytes[0] = encode(fresh, &spec, in, input.nbytes, &areas[1], &stored[0]);
    stored_nbytes[1] = encode(used, &spec, in, input.nbytes, &areas[2], &stored[1]);
    if (stored_nbytes[0] != stored_nbytes[1] ||
        memcmp(stored[0], stored[1], stored_nbytes[0]) != 0 ||
        memcmp(in, input.data, input.nbytes) != 0)
        abort();
    back = guard_buffer(&areas[3], input.nbytes, 0);
    if (scio_pipeline_decode(&pipeline, 0, decoder, stored[0], stored_nbytes[0], back, input.nbytes,
                             NULL) != SCIO_OK ||
        memcmp(back, in, input.nbytes) != 0)
        abort();
    guard_check(back);
    scio_encoder_free(fresh);
    scio_decoder_free(decoder);
    return 0;
}
