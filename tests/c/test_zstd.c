#include "codec_testing.h"

#ifdef SCIO_HAVE_ZSTD

#include <zstd.h>

static scio_status
decode_zstd(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
            uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)f, (void)decoder;
    return scio_zstd_decode(in, in_nbytes, out, out_capacity, out_nbytes, err);
}

TEST(zstd_gives_what_the_filter_stored)
{
    CHECK(check_fixtures("zstd", decode_zstd, NULL, 400) == 16);
}

static void
check_refused(const uint8_t *stored, size_t stored_nbytes, size_t capacity, const char *message)
{
    uint8_t *out = malloc(capacity + 1);
    size_t out_nbytes = 77;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_zstd_decode(stored, stored_nbytes, out, capacity, &out_nbytes, &err) ==
          SCIO_ECORRUPT);
    CHECK_STR(err.message, message);
    CHECK(out_nbytes == 77);
    free(out);
}

TEST(zstd_refuses_each_broken_rule_and_names_it)
{
    const uint8_t raw[5000] = {1, 2, 3};
    uint8_t s[200];
    size_t n = ZSTD_compress(s, 100, raw, sizeof raw, 3);

    check_refused(s, 0, 10, "0 bytes, too few for a frame");
    check_refused(s, n, 4999, "announces 5000 bytes, at most 4999 expected");
    check_refused(s, n - 1, 5000, "damaged or cut");
    s[n] = 0;
    check_refused(s, n + 1, 5000, "1 bytes behind the frame");
    n += ZSTD_compress(s + n, 100, raw, 1, 3);
    check_refused(s, n, 5001, "bytes behind the frame"); /* two frames, as no filter writes them */
    s[0] ^= 1;
    check_refused(s, n, 5001, "starts with 29 b5 2f fd");
}

TEST(zstd_refuses_skippable_and_old_frames_by_their_first_bytes)
{
    const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0};
    const uint8_t version_0_5[] = {0x25, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0};

    check_refused(skippable, sizeof skippable, 10, "starts with 50 2a 4d 18");
    check_refused(version_0_5, sizeof version_0_5, 10, "starts with 25 b5 2f fd");
}

TEST(zstd_bounds_a_frame_that_does_not_say_its_size)
{
    static const uint8_t raw[100000] = {7};
    ZSTD_CCtx *c = ZSTD_createCCtx();
    uint8_t s[1000], *out = malloc(sizeof raw);
    ZSTD_inBuffer in = {raw, sizeof raw, 0};
    ZSTD_outBuffer to = {s, sizeof s, 0};
    size_t out_nbytes = 0;

    while (ZSTD_compressStream2(c, &to, &in, ZSTD_e_continue) != 0 || in.pos < in.size)
        continue;
    CHECK(ZSTD_compressStream2(c, &to, &in, ZSTD_e_end) == 0);
    ZSTD_freeCCtx(c);
    CHECK(ZSTD_getFrameContentSize(s, to.pos) == ZSTD_CONTENTSIZE_UNKNOWN);
    CHECK(scio_zstd_decode(s, to.pos, out, sizeof raw, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == sizeof raw && memcmp(out, raw, sizeof raw) == 0);
    check_refused(s, to.pos, sizeof raw - 1, "does not give at most 99999 bytes");
    check_refused(s, to.pos, 0, "does not give at most 0 bytes");
    free(out);
}

TEST(zstd_takes_a_frame_of_nothing)
{
    uint8_t s[100];
    const size_t n = ZSTD_compress(s, sizeof s, NULL, 0, 3);
    size_t out_nbytes = 1;

    CHECK(scio_zstd_decode(s, n, NULL, 0, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 0);
}

#else

TEST(zstd_names_the_library_that_this_build_lacks)
{
    uint8_t out[1];
    size_t out_nbytes = 0;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_zstd_decode("", 0, out, 1, &out_nbytes, &err) == SCIO_EUNSUPPORTED);
    CHECK_STR(err.message, "without libzstd");
}

#endif
