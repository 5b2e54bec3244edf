/* What the encoder makes, our decoder takes back; the bytes depend on nothing but chunk and spec.
 */
#include "codec/encoder.h"

#include "base/mem.h"
#include "codec/pipeline.h"
#include "test.h"

#include <stdlib.h>

enum { N_KINDS = 4, MAX_N = 300000 };

/* Zeros, noise, small counts in 32 bits, a ramp. */
static void
fill(int kind, uint8_t *out, size_t nbytes)
{
    uint32_t state = 12345;

    for (size_t i = 0; i < nbytes; i++) {
        state = state * 1664525u + 1013904223u;
        const uint32_t values[N_KINDS] = {0, state >> 24, i % 4 == 0 ? state >> 30 : 0,
                                          (uint32_t)(i / 4 >> 8 * (i % 4))};
        out[i] = (uint8_t)values[kind];
    }
}

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

/* Encodes into memory of exactly the bound, where a sanitizer sees each byte too many. */
static uint8_t *
encode(scio_encoder *encoder, const scio_encode_spec *spec, const uint8_t *in, size_t nbytes,
       size_t *out_nbytes)
{
    scio_error err = SCIO_ERROR_INIT;
    size_t bound = 0;
    uint8_t *out;

    CHECK(scio_encode_bound(spec, nbytes, &bound, &err) == SCIO_OK);
    out = malloc(bound);
    CHECK(scio_encode_chunk(encoder, spec, in, nbytes, out, bound, out_nbytes, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    CHECK(*out_nbytes <= bound);
    return out;
}

static void
check_round_trip(scio_encoder *encoder, scio_decoder *decoder, const scio_encode_spec *spec,
                 const uint8_t *in, size_t nbytes)
{
    const scio_pipeline pipeline = pipeline_of(spec);
    scio_error err = SCIO_ERROR_INIT;
    size_t stored_nbytes = 0;
    uint8_t *const stored = encode(encoder, spec, in, nbytes, &stored_nbytes);
    uint8_t *const back = malloc(nbytes);

    CHECK(scio_pipeline_decode(&pipeline, 0, decoder, stored, stored_nbytes, back, nbytes, &err) ==
          SCIO_OK);
    CHECK_CLEAR(err.message);
    CHECK(memcmp(back, in, nbytes) == 0);
    free(stored);
    free(back);
}

TEST(every_chunk_comes_back)
{
    static const size_t sizes[] = {1, 2, 3, 4, 7, 64, 4095, 65534, 65535, 65536, MAX_N};
    static const size_t itemsizes[] = {0, 1, 2, 3, 4, 8, 12, 16};
    uint8_t *const in = malloc(MAX_N);
    scio_encoder *encoder = NULL;
    scio_decoder *decoder = NULL;
    unsigned n = 0;

    CHECK(scio_encoder_new(&encoder, NULL) == SCIO_OK &&
          scio_decoder_new(&decoder, NULL) == SCIO_OK);
    for (int kind = 0; kind < N_KINDS; kind++) {
        fill(kind, in, MAX_N);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (int level = SCIO_DEFLATE_NONE; level <= 9; level++) {
                /* all levels at small sizes, the fast ones at large */
                if (sizes[i] > 5000 && level > 2)
                    continue;
                const scio_encode_spec spec = {
                    .itemsize = itemsizes[n++ % 8], .level = level, .fletcher32 = n % 3 == 0};
                check_round_trip(encoder, decoder, &spec, in, sizes[i]);
                scio_encoder_use_isal(encoder, n % 5 != 0);
            }
        }
    }
    CHECK(n > 200);
    scio_encoder_free(encoder);
    scio_decoder_free(decoder);
    free(in);
}

TEST(the_bytes_do_not_depend_on_what_was_encoded_before)
{
    uint8_t *const in = malloc(MAX_N), *const other = malloc(MAX_N);
    scio_encoder *used = NULL;

    fill(2, in, MAX_N);
    fill(1, other, MAX_N);
    CHECK(scio_encoder_new(&used, NULL) == SCIO_OK);
    for (int level = 0; level <= 6; level++) {
        const scio_encode_spec spec = {.itemsize = 4, .level = level};
        size_t dirty_nbytes = 0, first_nbytes = 0, later_nbytes = 0;
        scio_encoder *fresh = NULL;

        CHECK(scio_encoder_new(&fresh, NULL) == SCIO_OK);
        uint8_t *const dirty = encode(used, &spec, other, MAX_N - (size_t)level, &dirty_nbytes);
        uint8_t *const first = encode(fresh, &spec, in, 100000, &first_nbytes);
        uint8_t *const later = encode(used, &spec, in, 100000, &later_nbytes);
        CHECK(first_nbytes == later_nbytes && memcmp(first, later, first_nbytes) == 0);
        CHECK(level == 0 || first_nbytes < 40000); /* it did compress */
        free(dirty);
        free(first);
        free(later);
        scio_encoder_free(fresh);
    }
    CHECK(scio_encoder_nbytes(used) >= MAX_N);
    scio_encoder_free(used);
    free(in);
    free(other);
}

/* ISA-L 2.30 hashes a part of an address as if it were data; a ramp, whose low bytes repeat, shows
 * it in one chunk of some hundred. */
TEST(the_bytes_do_not_depend_on_where_the_encoder_lies)
{
    enum { N_ENCODERS = 80, N_CHUNKS = 256, N_ITEMS = 999 };
    const scio_encode_spec spec = {.itemsize = 4, .level = 1};
    scio_encoder *encoders[N_ENCODERS] = {NULL};
    int32_t chunk[N_ITEMS];
    int n_other = 0;

    for (int32_t i = 0; i < N_CHUNKS; i++) {
        uint8_t *first = NULL;
        size_t first_nbytes = 0;
        for (int32_t k = 0; k < N_ITEMS; k++)
            chunk[k] = i * N_ITEMS + k;
        for (size_t e = 0; e < N_ENCODERS; e++) { /* alive together: no two at one address */
            size_t nbytes = 0;
            if (encoders[e] == NULL)
                CHECK(scio_encoder_new(&encoders[e], NULL) == SCIO_OK);
            uint8_t *const out =
                encode(encoders[e], &spec, (const uint8_t *)chunk, sizeof chunk, &nbytes);
            if (first == NULL) {
                first = out;
                first_nbytes = nbytes;
                continue;
            }
            n_other += nbytes != first_nbytes || memcmp(out, first, nbytes) != 0;
            free(out);
        }
        free(first);
    }
    CHECK(n_other == 0);
    for (size_t e = 0; e < N_ENCODERS; e++)
        scio_encoder_free(encoders[e]);
}

TEST(noise_grows_by_less_than_a_thousandth)
{
    uint8_t *const in = malloc(MAX_N);
    scio_encoder *encoder = NULL;

    fill(1, in, MAX_N);
    CHECK(scio_encoder_new(&encoder, NULL) == SCIO_OK);
    for (int level = 0; level <= 9; level++) {
        const scio_encode_spec spec = {.itemsize = 0, .level = level};
        size_t nbytes = 0;
        free(encode(encoder, &spec, in, MAX_N, &nbytes));
        CHECK(nbytes < MAX_N + MAX_N / 1000);
    }
    scio_encoder_free(encoder);
    free(in);
}

TEST(what_cannot_be_a_chunk_is_refused)
{
    const scio_encode_spec deflate = {.level = 1}, plain = {.level = SCIO_DEFLATE_NONE},
                           summed = {.level = SCIO_DEFLATE_NONE, .fletcher32 = true};
    scio_error err = SCIO_ERROR_INIT;
    scio_encoder *encoder = NULL;
    uint8_t out[8];
    size_t n = 0;

    CHECK(scio_encode_bound(&plain, UINT32_MAX, &n, NULL) == SCIO_OK && n == UINT32_MAX);
    CHECK(scio_encode_bound(&summed, UINT32_MAX - 3, &n, NULL) == SCIO_EINVAL);
    CHECK(scio_encode_bound(&deflate, UINT32_MAX, &n, NULL) == SCIO_EINVAL);
    CHECK(scio_encode_bound(&deflate, SIZE_MAX, &n, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "at most 4294967295 fit");
    CHECK(scio_encoder_new(&encoder, NULL) == SCIO_OK);
    CHECK(scio_encode_chunk(encoder, &deflate, "12345678", 8, out, sizeof out, &n, NULL) ==
          SCIO_EBUG);
    scio_encoder_free(encoder);
}

TEST(every_allocation_may_fail)
{
    static const scio_encode_spec specs[] = {{.itemsize = 4, .level = 1},
                                             {.itemsize = 4, .level = 4}};
    uint8_t in[4096], out[8192];
    int n_failed = 0;

    fill(2, in, sizeof in);
    for (size_t i = 0; i < 2; i++) {
        scio_status status = SCIO_ENOMEM;
        for (size_t k = 0; status != SCIO_OK && k < 20; k++) {
            scio_encoder *encoder = NULL;
            size_t n = 0;

            scio_mem_fail_at(k);
            status = scio_encoder_new(&encoder, NULL);
            if (status == SCIO_OK)
                status =
                    scio_encode_chunk(encoder, &specs[i], in, sizeof in, out, sizeof out, &n, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            n_failed += status == SCIO_ENOMEM;
            if (encoder != NULL) { /* it can still be used */
                CHECK(scio_encode_chunk(encoder, &specs[i], in, sizeof in, out, sizeof out, &n,
                                        NULL) == SCIO_OK);
            }
            scio_encoder_free(encoder);
        }
        CHECK(status == SCIO_OK);
    }
    CHECK(n_failed >= 6); /* encoder, planes, compressor, twice */
}
