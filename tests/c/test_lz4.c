#include "codec_testing.h"

#ifdef SCIO_HAVE_LZ4

static scio_status
decode_lz4(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
           uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)f, (void)decoder;
    return scio_lz4_decode(in, in_nbytes, out, out_capacity, out_nbytes, err);
}

TEST(lz4_gives_what_the_filter_stored)
{
    CHECK(check_fixtures("lz4", decode_lz4, NULL, 400) == 12);
}

/* A container of two raw blocks, 4 bytes and 3 bytes. */
static const uint8_t two_blocks[] = {0, 0, 0,   0,   0,   0,   0, 7, 0, 0, 0,   4,   0,  0,
                                     0, 4, 'a', 'b', 'c', 'd', 0, 0, 0, 3, 'e', 'f', 'g'};

static void
check_refused(const uint8_t *stored, size_t stored_nbytes, size_t capacity, const char *message)
{
    uint8_t out[64];
    size_t out_nbytes = 77;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_lz4_decode(stored, stored_nbytes, out, capacity, &out_nbytes, &err) ==
          SCIO_ECORRUPT);
    CHECK_STR(err.message, message);
    CHECK(out_nbytes == 77);
}

TEST(lz4_raw_blocks_and_a_shorter_last_block_follow_the_format)
{
    uint8_t out[7];
    size_t out_nbytes = 0;

    CHECK(scio_lz4_decode(two_blocks, sizeof two_blocks, out, 7, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 7 && memcmp(out, "abcdefg", 7) == 0);
}

TEST(lz4_takes_a_block_size_larger_than_the_total)
{
    uint8_t stored[] = {0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 'h', 'i'};
    uint8_t out[2];
    size_t out_nbytes = 0;

    CHECK(scio_lz4_decode(stored, sizeof stored, out, 2, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 2 && memcmp(out, "hi", 2) == 0);
}

TEST(lz4_takes_a_container_of_nothing)
{
    const uint8_t stored[12] = {0};
    size_t out_nbytes = 1;

    CHECK(scio_lz4_decode(stored, 12, NULL, 0, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 0);
}

TEST(lz4_refuses_each_broken_rule_and_names_it)
{
    uint8_t s[sizeof two_blocks + 1];

    memcpy(s, two_blocks, sizeof two_blocks);
    s[sizeof two_blocks] = 0;
    check_refused(s, 11, 7, "11 bytes, fewer than the header's 12");
    check_refused(s, sizeof two_blocks, 6, "announces 7 bytes, at most 6 expected");
    check_refused(s, sizeof two_blocks + 1, 7, "1 bytes behind the last block");
    check_refused(s, 22, 7, "cut at byte 20, 4 of 7 bytes made");
    check_refused(s, 18, 7, "the block at byte 16 has 4 bytes; 2 are left");
    s[15] = 5; /* more than the block's raw size */
    check_refused(s, sizeof two_blocks, 7, "the block at byte 16 has 5 bytes");
    s[15] = 3; /* then it must be LZ4, and is not */
    check_refused(s, sizeof two_blocks, 7, "LZ4: a block of 3 bytes is damaged");
    s[15] = 0;
    check_refused(s, sizeof two_blocks, 7, "LZ4: a block of 0 bytes is damaged");
    s[15] = 4;
    s[11] = 0;
    check_refused(s, sizeof two_blocks, 7, "block size is 0");
    s[11] = 4;
    s[0] = 0x80; /* 2^63 bytes */
    check_refused(s, sizeof two_blocks, 7, "announces 9223372036854775815 bytes");
}

#else

TEST(lz4_names_the_library_that_this_build_lacks)
{
    uint8_t out[1];
    size_t out_nbytes = 0;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_lz4_decode("", 0, out, 1, &out_nbytes, &err) == SCIO_EUNSUPPORTED);
    CHECK_STR(err.message, "without liblz4");
}

#endif
