#include "codec_testing.h"

static scio_status
decode_lzf(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
           uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)f, (void)decoder;
    return scio_lzf_decode(in, in_nbytes, out, out_capacity, out_nbytes, err);
}

TEST(lzf_gives_what_h5py_stored)
{
    CHECK(check_fixtures("lzf", decode_lzf, NULL, 400) == 7); /* 4 of 11 are masked */
}

/* Decodes a stream written by hand with both buffers at a faulting page. */
static void
check_lzf(const uint8_t *stored, size_t stored_nbytes, size_t capacity, const char *expected,
          const char *message)
{
    guarded in = guarded_new(stored_nbytes), out = guarded_new(capacity);
    uint8_t *from = guarded_end(&in, stored_nbytes), *to = guarded_end(&out, capacity);
    scio_error err = SCIO_ERROR_INIT;
    size_t out_nbytes = 0;
    scio_status status;

    memcpy(from, stored, stored_nbytes);
    status = scio_lzf_decode(from, stored_nbytes, to, capacity, &out_nbytes, &err);
    if (expected != NULL) {
        CHECK(status == SCIO_OK && out_nbytes == strlen(expected));
        CHECK(memcmp(to, expected, out_nbytes) == 0);
    } else {
        CHECK(status == SCIO_ECORRUPT);
        CHECK_STR(err.message, message);
    }
    guarded_free(&in);
    guarded_free(&out);
}

TEST(lzf_literals_and_matches_follow_the_format)
{
    check_lzf((const uint8_t *)"\x02"
                               "abc",
              4, 3, "abc", NULL);
    /* distance 1, length 3 and length 9 + 2 */
    check_lzf((const uint8_t *)"\x00"
                               "a\x20\x00",
              4, 4, "aaaa", NULL);
    check_lzf((const uint8_t *)"\x00"
                               "a\xe0\x02\x00",
              5, 12, "aaaaaaaaaaaa", NULL);
    /* distance 2 overlaps its own output */
    check_lzf((const uint8_t *)"\x01"
                               "ab\x60\x01",
              5, 7, "abababa", NULL);
    check_lzf((const uint8_t *)"", 0, 0, "", NULL);
}

TEST(lzf_copies_far_and_long_matches_exactly)
{
    /* 8192 distinct-ish bytes in literal runs of 32, then a match over the whole distance */
    const size_t n_literal = 8192, n_match = 7 + 255 + 2;
    uint8_t *stored = malloc(8192 / 32 * 33 + 3), *expected = malloc(n_literal + n_match);
    guarded out = guarded_new(n_literal + n_match);
    uint8_t *to = guarded_end(&out, n_literal + n_match);
    size_t n = 0, out_nbytes = 0;

    for (size_t i = 0; i < n_literal; i++)
        expected[i] = (uint8_t)splitmix64(1, i);
    memcpy(expected + n_literal, expected, n_match);
    for (size_t i = 0; i < n_literal; i += 32) {
        stored[n++] = 31;
        memcpy(stored + n, expected + i, 32);
        n += 32;
    }
    stored[n++] = 0xff;
    stored[n++] = 0xff;
    stored[n++] = 0xff;
    CHECK(scio_lzf_decode(stored, n, to, n_literal + n_match, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == n_literal + n_match && memcmp(to, expected, out_nbytes) == 0);
    guarded_free(&out);
    free(stored);
    free(expected);
}

/* Appends a random item to both the stream and, byte by byte, to what it means. */
static void
add_item(random_source *r, uint8_t *stored, size_t *n_stored, uint8_t *expected, size_t *n_made)
{
    size_t nbytes, distance;

    if (*n_made == 0 || random_below(r, 2) == 0) {
        nbytes = 1 + random_below(r, 32);
        stored[(*n_stored)++] = (uint8_t)(nbytes - 1);
        for (size_t k = 0; k < nbytes; k++)
            stored[(*n_stored)++] = expected[(*n_made)++] = (uint8_t)random_below(r, 256);
        return;
    }
    nbytes = 3 + random_below(r, random_below(r, 2) != 0 ? 262 : 9);
    distance = 1 + random_below(r, random_below(r, 2) != 0 && *n_made > 40 ? 40 : *n_made);
    if (distance > 8192)
        distance = 8192;
    stored[(*n_stored)++] = (uint8_t)((nbytes < 9 ? nbytes - 2 : 7) << 5 | (distance - 1) >> 8);
    if (nbytes >= 9)
        stored[(*n_stored)++] = (uint8_t)(nbytes - 9);
    stored[(*n_stored)++] = (uint8_t)(distance - 1);
    for (size_t k = 0; k < nbytes; k++, ++*n_made)
        expected[*n_made] = expected[*n_made - distance];
}

TEST(lzf_means_the_same_as_copying_byte_by_byte)
{
    uint8_t *stored = malloc(20000), *expected = malloc(20000);
    random_source r = {77, 0};

    for (size_t round = 0; round < 4000; round++) {
        const size_t n_items = 1 + random_below(&r, 60);
        size_t n_stored = 0, n_made = 0, out_nbytes = 0;
        guarded out;

        for (size_t k = 0; k < n_items; k++)
            add_item(&r, stored, &n_stored, expected, &n_made);
        out = guarded_new(n_made + 20);
        for (size_t n_room = 0; n_room < 20; n_room += 19) { /* at the limit, and below it */
            uint8_t *to = guarded_end(&out, n_made + n_room);

            memset(to, 0, n_made);
            CHECK(scio_lzf_decode(stored, n_stored, to, n_made + n_room, &out_nbytes, NULL) ==
                  SCIO_OK);
            CHECK(out_nbytes == n_made && memcmp(to, expected, n_made) == 0);
        }
        guarded_free(&out);
    }
    free(stored);
    free(expected);
}

TEST(lzf_refuses_each_broken_item_and_says_where)
{
    check_lzf((const uint8_t *)"\x03"
                               "abc",
              4, 9, NULL, "ends inside the item at byte 0");
    check_lzf((const uint8_t *)"\x00"
                               "a\x20",
              3, 9, NULL, "ends inside the item at byte 2");
    check_lzf((const uint8_t *)"\x00"
                               "a\xe0",
              3, 99, NULL, "ends inside the item at byte 2");
    check_lzf((const uint8_t *)"\x00"
                               "a\xe0\x01",
              4, 99, NULL, "ends inside the item at byte 2");
    check_lzf((const uint8_t *)"\x00"
                               "a\x20\x01",
              4, 9, NULL, "match at byte 2 goes back 2 bytes, only 1 exist");
    check_lzf((const uint8_t *)"\x20\x00", 2, 9, NULL, "goes back 1 bytes, only 0 exist");
    check_lzf((const uint8_t *)"\x02"
                               "abc",
              4, 2, NULL, "runs past the 2 bytes expected");
    check_lzf((const uint8_t *)"\x00"
                               "a\x20\x00",
              4, 3, NULL, "runs past the 3 bytes expected");
    check_lzf((const uint8_t *)"\x00"
                               "a",
              2, 0, NULL, "runs past the 0 bytes expected");
}
