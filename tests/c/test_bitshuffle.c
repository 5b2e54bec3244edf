#include "codec_testing.h"

#include "base/mem.h"
#include "base/stats.h"
#include "codec/decoder.h"

static scio_status
decode_bitshuffle(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
                  uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    const scio_filter *filter = &f->pipeline.filters[0];

    return scio_bitshuffle_decode(decoder, filter->client, filter->n_client, in, in_nbytes, out,
                                  out_capacity, out_nbytes, err);
}

static bool
is_decodable(const fixture *f)
{
    bool has_codec = f->filter_mask == 0;

#ifndef SCIO_HAVE_LZ4
    has_codec = has_codec && f->pipeline.filters[0].client[4] != 2;
#endif
#ifndef SCIO_HAVE_ZSTD
    has_codec = has_codec && f->pipeline.filters[0].client[4] != 3;
#endif
    return has_codec;
}

TEST(bitshuffle_gives_what_the_filter_stored)
{
    CHECK(check_fixtures("bitshuffle", decode_bitshuffle, is_decodable, 100) >= 16);
}

TEST(bitshuffle_refuses_bytes_behind_the_container)
{
    fixture_set set = fixtures_load("bitshuffle");

    for (size_t i = 0; i < set.n_cases; i++) {
        const fixture *f = &set.cases[i];
        uint8_t *longer = malloc(f->stored_nbytes + 1);
        bench b = bench_new(f, decode_bitshuffle);
        size_t out_nbytes = 0;

        memcpy(longer, f->stored, f->stored_nbytes);
        longer[f->stored_nbytes] = 0;
        CHECK(!is_decodable(f) || bench_decode(&b, longer, f->stored_nbytes + 1, f->raw_nbytes,
                                               &out_nbytes, NULL) == SCIO_ECORRUPT);
        bench_free(&b);
        free(longer);
    }
    fixtures_free(&set);
}

/* The definition, bit by bit. */
static void
bit_shuffle_plainly(const uint8_t *in, size_t n_items, size_t itemsize, uint8_t *out)
{
    memset(out, 0, n_items * itemsize);
    for (size_t i = 0; i < n_items; i++)
        for (size_t j = 0; j < itemsize; j++)
            for (size_t k = 0; k < 8; k++)
                if (in[i * itemsize + j] >> k & 1)
                    out[(j * 8 + k) * (n_items / 8) + i / 8] |= (uint8_t)(1u << i % 8);
}

TEST(bit_unshuffle_undoes_the_definition_for_every_itemsize)
{
    uint8_t *raw = malloc(30000);

    for (size_t i = 0; i < 30000; i++)
        raw[i] = (uint8_t)splitmix64(3, i);
    for (size_t itemsize = 1; itemsize <= 24; itemsize++) {
        for (size_t n_items = 8; n_items <= 1200; n_items += n_items < 300 ? 8 : 296) {
            const size_t nbytes = n_items * itemsize;
            guarded in = guarded_new(nbytes), out = guarded_new(nbytes), tmp = guarded_new(nbytes);

            bit_shuffle_plainly(raw, n_items, itemsize, guarded_end(&in, nbytes));
            CHECK(scio_bit_unshuffle(guarded_end(&in, nbytes), n_items, itemsize,
                                     guarded_end(&tmp, nbytes), guarded_end(&out, nbytes),
                                     NULL) == SCIO_OK);
            CHECK(memcmp(guarded_end(&out, nbytes), raw, nbytes) == 0);
            guarded_free(&in);
            guarded_free(&out);
            guarded_free(&tmp);
        }
    }
    free(raw);
}

static void
check_refused(const uint32_t *client, size_t n_client, const void *stored, size_t stored_nbytes,
              size_t capacity, scio_status code, const char *message)
{
    scio_decoder *decoder = NULL;
    uint8_t out[256];
    size_t out_nbytes = 77;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_bitshuffle_decode(decoder, client, n_client, stored, stored_nbytes, out, capacity,
                                 &out_nbytes, &err) == code);
    CHECK_STR(err.message, message);
    CHECK(out_nbytes == 77);
    scio_decoder_free(decoder);
}

TEST(bitshuffle_refuses_client_values_that_break_a_rule)
{
    const uint8_t in[64] = {0};

    check_refused((const uint32_t[]){0, 4}, 2, in, 64, 64, SCIO_ECORRUPT, "2 client values");
    check_refused((const uint32_t[]){0, 4, 0}, 3, in, 64, 64, SCIO_ECORRUPT, "element size is 0");
    check_refused((const uint32_t[]){0, 4, 4, 12}, 4, in, 64, 64, SCIO_ECORRUPT,
                  "blocks of 12 elements");
    check_refused((const uint32_t[]){0, 4, 4, 8, 1}, 5, in, 64, 64, SCIO_EUNSUPPORTED, "codec 1");
    check_refused((const uint32_t[]){0, 4, 4, 8, 0}, 5, in, 63, 64, SCIO_ECORRUPT,
                  "63 bytes are no whole number of elements of 4 bytes");
    check_refused((const uint32_t[]){0, 4, 4, 8, 0}, 5, in, 64, 60, SCIO_ECORRUPT,
                  "announces 64 bytes, at most 60 expected");
}

TEST(bitshuffle_refuses_containers_that_break_a_rule)
{
    const uint32_t client[] = {0, 4, 4, 8, 2};
    uint8_t s[32] = {0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 32};

    check_refused(client, 5, s, 11, 64, SCIO_ECORRUPT, "11 bytes, fewer than the header's 12");
    check_refused(client, 5, s, 12, 31, SCIO_ECORRUPT, "announces 32 bytes, at most 31");
    check_refused(client, 5, s, 15, 32, SCIO_ECORRUPT, "cut at byte 12");
    store_be32(s + 12, 17);
    check_refused(client, 5, s, 32, 32, SCIO_ECORRUPT,
                  "block at byte 12 has 17 bytes, 16 are left");
    s[7] = 30;
    check_refused(client, 5, s, 32, 32, SCIO_ECORRUPT, "30 bytes are no whole number");
    s[7] = 32;
    s[11] = 0;
    check_refused(client, 5, s, 32, 32, SCIO_ECORRUPT, "blocks of 0 bytes");
    s[11] = 16; /* 4 elements */
    check_refused(client, 5, s, 32, 32, SCIO_ECORRUPT, "blocks of 16 bytes");
    s[11] = 34;
    check_refused(client, 5, s, 32, 32, SCIO_ECORRUPT, "blocks of 34 bytes");
    s[11] = 32;
    s[7] = 28; /* fewer than 8 elements: raw behind the header */
    check_refused(client, 5, s, 32, 32, SCIO_ECORRUPT,
                  "20 bytes behind the last block, expected 28");
}

TEST(bitshuffle_takes_element_sizes_near_the_limit_of_32_bits)
{
    const uint32_t client[] = {0, 4, 0xffffffff, 0xfffffff8, 0};
    const uint8_t in[64] = {0};
    scio_decoder *decoder = NULL;
    size_t out_nbytes = 1;

    check_refused(client, 5, in, 64, 64, SCIO_ECORRUPT, "64 bytes are no whole number");
    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_bitshuffle_decode(decoder, client, 5, in, 0, NULL, 0, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 0);
    scio_decoder_free(decoder);
}

TEST(bitshuffle_decode_fails_cleanly_at_every_allocation)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    const uint32_t client[] = {0, 4, 2, 8, 0};
    const uint8_t in[64] = {1};
    uint8_t out[64];
    scio_decoder *decoder = NULL;
    size_t k = 0, out_nbytes = 0;
    scio_status status;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    do {
        scio_mem_fail_at(k++);
        status = scio_bitshuffle_decode(decoder, client, 5, in, 64, out, 64, &out_nbytes, NULL);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
    } while (status == SCIO_ENOMEM);
    CHECK(k > 1 && out_nbytes == 64);
    scio_decoder_free(decoder);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}
