#include "codec_testing.h"

/* The rule as the format text gives it: fold both sums every 360 words, after an odd byte, and once
 * more at the end. */
static uint32_t
fletcher32_plainly(const uint8_t *p, size_t nbytes)
{
    uint32_t sum1 = 0, sum2 = 0;
    size_t n_words = nbytes / 2;

    while (n_words != 0) {
        for (size_t n = n_words < 360 ? n_words : 360; n != 0; n--, n_words--) {
            sum1 += (uint32_t)p[0] << 8 | p[1];
            sum2 += sum1;
            p += 2;
        }
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    if (nbytes % 2 != 0) {
        sum1 += (uint32_t)p[0] << 8;
        sum2 += sum1;
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    sum1 = (sum1 & 0xffff) + (sum1 >> 16);
    sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    return sum2 << 16 | sum1;
}

TEST(fletcher32_gives_the_known_sums)
{
    uint8_t bytes[2048];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    CHECK(scio_fletcher32("", 0) == 0);
    CHECK(scio_fletcher32("a", 1) == 0x61006100u);
    CHECK(scio_fletcher32("abcde", 5) == 0x4ff029c7u);
    CHECK(scio_fletcher32("abcdef", 6) == 0x50562a2du);
    CHECK(scio_fletcher32("abcdefgh", 8) == 0xe1eb9195u);
    CHECK(scio_fletcher32(bytes, sizeof bytes) == 0x282e01feu);
}

TEST(fletcher32_equals_the_definition_whatever_the_block_length)
{
    const size_t nbytes = (size_t)3 << 19; /* more than two of its blocks of 2^18 words */
    uint8_t *bytes = malloc(nbytes);

    for (size_t i = 0; i < nbytes; i++)
        bytes[i] = (uint8_t)splitmix64(5, i);
    for (size_t n = 0; n < 3000; n += 7)
        CHECK(scio_fletcher32(bytes, n) == fletcher32_plainly(bytes, n));
    CHECK(scio_fletcher32(bytes, nbytes) == fletcher32_plainly(bytes, nbytes));
    CHECK(scio_fletcher32(bytes, nbytes - 1) == fletcher32_plainly(bytes, nbytes - 1));
    memset(bytes, 0xff, nbytes); /* the largest sums, and a total that is 0 modulo 65535 */
    CHECK(scio_fletcher32(bytes, nbytes) == fletcher32_plainly(bytes, nbytes));
    CHECK(scio_fletcher32(bytes, nbytes) == 0xffffffffu);
    memset(bytes, 0, nbytes);
    CHECK(scio_fletcher32(bytes, nbytes) == 0);
    free(bytes);
}

TEST(fletcher32_check_takes_the_stored_sum_and_the_swapped_one_of_old_libraries)
{
    uint8_t chunk[12] = "abcdefgh";
    size_t payload_nbytes = 0;

    store_le32(chunk + 8, 0xe1eb9195u);
    CHECK(scio_fletcher32_check(chunk, 12, &payload_nbytes, NULL) == SCIO_OK);
    CHECK(payload_nbytes == 8);
    store_le32(chunk + 8, 0xebe19591u);
    payload_nbytes = 0;
    CHECK(scio_fletcher32_check(chunk, 12, &payload_nbytes, NULL) == SCIO_OK);
    CHECK(payload_nbytes == 8);
    store_le32(chunk + 8, 0x9195e1ebu);
    CHECK(scio_fletcher32_check(chunk, 12, &payload_nbytes, NULL) == SCIO_ECORRUPT);
}

TEST(fletcher32_check_finds_every_changed_byte_and_says_both_sums)
{
    uint8_t chunk[12] = "abcdefgh";
    scio_error err = SCIO_ERROR_INIT;
    size_t payload_nbytes = 77;

    store_le32(chunk + 8, 0xe1eb9195u);
    for (size_t i = 0; i < 12; i++) {
        chunk[i] ^= 4;
        CHECK(scio_fletcher32_check(chunk, 12, &payload_nbytes, NULL) == SCIO_ECORRUPT);
        chunk[i] ^= 4;
    }
    chunk[8] = 0;
    CHECK(scio_fletcher32_check(chunk, 12, &payload_nbytes, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "of 8 bytes is e1eb9195, stored is e1eb9100");
    CHECK(payload_nbytes == 77);
}

TEST(fletcher32_check_refuses_fewer_bytes_than_a_sum)
{
    const uint8_t chunk[4] = {0};
    size_t payload_nbytes = 77;

    for (size_t n = 0; n < 4; n++)
        CHECK(scio_fletcher32_check(chunk, n, &payload_nbytes, NULL) == SCIO_ECORRUPT);
    CHECK(payload_nbytes == 77);
    CHECK(scio_fletcher32_check(chunk, 4, &payload_nbytes, NULL) == SCIO_OK); /* sum of nothing */
    CHECK(payload_nbytes == 0);
}
