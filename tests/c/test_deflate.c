#include "base/mem.h"
#include "base/stats.h"
#include "codec_testing.h"

#include <libdeflate.h>

static scio_status
decode_libdeflate(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
                  uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)f;
    return scio_deflate_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
}

static scio_status
decode_isal(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
            uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)f;
    return scio_deflate_decode_isal(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
}

static uint8_t *
deflate(const uint8_t *raw, size_t nbytes, size_t *stored_nbytes)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    const size_t capacity = libdeflate_zlib_compress_bound(c, nbytes);
    uint8_t *stored = malloc(capacity);

    *stored_nbytes = libdeflate_zlib_compress(c, raw, nbytes, stored, capacity);
    libdeflate_free_compressor(c);
    return stored;
}

TEST(deflate_gives_what_gzip_filters_stored)
{
    CHECK(check_fixtures("deflate", decode_libdeflate, NULL, 400) == 12);
}

TEST(deflate_by_isal_gives_what_gzip_filters_stored)
{
    CHECK(check_fixtures("deflate", decode_isal, NULL, 400) == 12);
}

TEST(deflate_ignores_bytes_behind_the_stream)
{
    fixture_set set = fixtures_load("deflate");

    for (size_t i = 0; i < set.n_cases; i++) {
        const fixture *f = &set.cases[i];

        for (size_t n_extra = 1; n_extra < 20; n_extra++) {
            uint8_t *longer = malloc(f->stored_nbytes + n_extra);
            bench b = bench_new(f, i % 2 != 0 ? decode_isal : decode_libdeflate);
            size_t out_nbytes = 0;

            memcpy(longer, f->stored, f->stored_nbytes);
            memset(longer + f->stored_nbytes, 0xee, n_extra);
            CHECK(bench_decode(&b, longer, f->stored_nbytes + n_extra, f->raw_nbytes, &out_nbytes,
                               NULL) == SCIO_OK);
            CHECK(out_nbytes == f->raw_nbytes);
            bench_free(&b);
            free(longer);
        }
    }
    fixtures_free(&set);
}

TEST(deflate_says_how_many_bytes_came_out_when_the_limit_is_larger)
{
    const uint8_t raw[] = "a stream may be shorter than its limit";
    size_t stored_nbytes, out_nbytes = 0;
    uint8_t *stored = deflate(raw, sizeof raw, &stored_nbytes), out[100];
    scio_decoder *decoder = NULL;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_deflate_decode(decoder, stored, stored_nbytes, out, sizeof out, &out_nbytes, NULL) ==
          SCIO_OK);
    CHECK(out_nbytes == sizeof raw && memcmp(out, raw, sizeof raw) == 0);
    CHECK(scio_deflate_decode_isal(decoder, stored, stored_nbytes, out, sizeof out, &out_nbytes,
                                   NULL) == SCIO_OK);
    CHECK(out_nbytes == sizeof raw && memcmp(out, raw, sizeof raw) == 0);
    scio_decoder_free(decoder);
    free(stored);
}

/* Decodes by both engines, which must agree on the status; the message is libdeflate's. */
static void
check_refused(const uint8_t *stored, size_t stored_nbytes, size_t capacity, const char *message)
{
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t *out = malloc(capacity + 1);
    size_t out_nbytes = 77;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_deflate_decode(decoder, stored, stored_nbytes, out, capacity, &out_nbytes, &err) ==
          SCIO_ECORRUPT);
    CHECK_STR(err.message, message);
    CHECK(scio_deflate_decode_isal(decoder, stored, stored_nbytes, out, capacity, &out_nbytes,
                                   NULL) == SCIO_ECORRUPT);
    CHECK(out_nbytes == 77);
    scio_decoder_free(decoder);
    free(out);
}

TEST(deflate_names_the_broken_part)
{
    uint8_t raw[5000] = {0};
    size_t n;
    uint8_t *s = deflate(raw, sizeof raw, &n), saved;

    check_refused(s, 0, sizeof raw, "a zlib stream of 0 bytes");
    check_refused(s, 5, sizeof raw, "a zlib stream of 5 bytes");
    check_refused(s, n - 1, sizeof raw, ""); /* 3 bytes of checksum */
    check_refused(s, n, 4999, "inflates to more than the 4999 bytes expected");
    check_refused(s, n, 0, "inflates to more than the 0 bytes expected");
    for (size_t bit = 0; bit < 32; bit++) {
        s[n - 1 - bit / 8] ^= (uint8_t)(1u << bit % 8);
        check_refused(s, n, sizeof raw, "the stream says");
        s[n - 1 - bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    saved = s[n - 1];
    s[n - 1] ^= 1;
    check_refused(s, n, sizeof raw, "Adler-32 of the 5000 inflated bytes is 13880001");
    s[n - 1] = saved;
    s[1] ^= 1;
    check_refused(s, n, sizeof raw, "are no zlib header");
    s[1] ^= 1;
    s[0] = 0x79; /* method 9 */
    check_refused(s, n, sizeof raw, "bytes 79");
    s[0] = 0x78;
    s[1] = 0xbb; /* 0x78bb is a multiple of 31 and announces a dictionary */
    check_refused(s, n, sizeof raw, "preset dictionary");
    free(s);
}

TEST(deflate_takes_streams_of_no_bytes)
{
    size_t n, out_nbytes = 1;
    uint8_t *s = deflate(NULL, 0, &n);
    scio_decoder *decoder = NULL;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_deflate_decode(decoder, s, n, NULL, 0, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 0);
    CHECK(scio_deflate_decode_isal(decoder, s, n, NULL, 0, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 0);
    CHECK(scio_deflate_decode(decoder, NULL, 0, NULL, 0, &out_nbytes, NULL) == SCIO_ECORRUPT);
    scio_decoder_free(decoder);
    free(s);
}

TEST(decoder_new_fails_cleanly_at_every_allocation)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    scio_decoder *decoder = NULL;
    scio_status status;
    size_t k = 0;

    do {
        scio_error err = SCIO_ERROR_INIT;

        scio_mem_fail_at(k++);
        status = scio_decoder_new(&decoder, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && decoder == NULL));
        CHECK(status == SCIO_OK || err.code == SCIO_ENOMEM);
    } while (status == SCIO_ENOMEM);
    CHECK(k > 1);
    CHECK(scio_decoder_nbytes(decoder) > 1000);
    scio_decoder_free(decoder);
    scio_decoder_free(NULL);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}

#ifdef SCIO_HAVE_ISAL
TEST(deflate_by_isal_reports_a_failed_allocation_and_recovers)
{
    const uint8_t raw[] = "isa-l keeps its state in the decoder";
    size_t n, out_nbytes, before;
    uint8_t *s = deflate(raw, sizeof raw, &n), out[sizeof raw];
    scio_decoder *decoder = NULL;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    before = scio_decoder_nbytes(decoder);
    scio_mem_fail_at(0);
    CHECK(scio_deflate_decode_isal(decoder, s, n, out, sizeof out, &out_nbytes, NULL) ==
          SCIO_ENOMEM);
    scio_mem_fail_at(SIZE_MAX);
    CHECK(scio_decoder_nbytes(decoder) == before);
    CHECK(scio_deflate_decode_isal(decoder, s, n, out, sizeof out, &out_nbytes, NULL) == SCIO_OK);
    CHECK(scio_decoder_nbytes(decoder) > before);
    CHECK(memcmp(out, raw, sizeof raw) == 0);
    CHECK(scio_decoder_set_deflate_engine(decoder, SCIO_DEFLATE_ISAL));
    scio_decoder_free(decoder);
    free(s);
}
#endif
