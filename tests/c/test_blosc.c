#include "codec_testing.h"

#include "base/mem.h"
#include "base/stats.h"
#include "codec/decoder.h"

#ifdef SCIO_HAVE_BLOSC
#include <blosc.h>
#endif

static scio_status
decode_blosc(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
             uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    (void)f;
    return scio_blosc_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
}

/* As decode_blosc, with the header's stored size made right first: what was cut or changed then
 * reaches the blocks instead of ending at that one comparison. */
static scio_status
decode_blosc_resized(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
                     uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    uint8_t *copy = malloc(in_nbytes + 1);
    scio_status status;

    memcpy(copy, in, in_nbytes);
    if (in_nbytes >= 16)
        store_le32(copy + 12, (uint32_t)in_nbytes);
    status = decode_blosc(f, decoder, copy, in_nbytes, out, out_capacity, out_nbytes, err);
    free(copy);
    return status;
}

/* Inner codec of a stored chunk: 0 BloscLZ, 1 LZ4, 3 zlib, 4 Zstandard. */
static bool
is_decodable(const fixture *f)
{
    bool has_codec = f->filter_mask == 0;

#ifndef SCIO_HAVE_LZ4
    has_codec = has_codec && f->stored[2] >> 5 != 1;
#endif
#ifndef SCIO_HAVE_ZSTD
    has_codec = has_codec && f->stored[2] >> 5 != 4;
#endif
    return has_codec;
}

TEST(blosc_gives_what_the_filter_stored)
{
    CHECK(check_fixtures("blosc", decode_blosc, is_decodable, 60) >= 30);
}

TEST(blosc_blocks_cut_behind_a_sound_header_are_refused)
{
    CHECK(check_fixtures("blosc", decode_blosc_resized, is_decodable, 60) >= 30);
}

/* ---- chunks by hand ---- */

typedef struct chunk {
    uint8_t bytes[1000];
    size_t nbytes;
} chunk;

static chunk
chunk_new(unsigned flags, unsigned itemsize, uint32_t raw_nbytes, uint32_t block_nbytes)
{
    chunk c = {{2, 1, (uint8_t)flags, (uint8_t)itemsize}, 16};

    store_le32(c.bytes + 4, raw_nbytes);
    store_le32(c.bytes + 8, block_nbytes);
    store_le32(c.bytes + 12, 16);
    return c;
}

static void
chunk_add(chunk *c, const void *data, size_t nbytes)
{
    memcpy(c->bytes + c->nbytes, data, nbytes);
    c->nbytes += nbytes;
    store_le32(c->bytes + 12, (uint32_t)c->nbytes);
}

static void
chunk_add_u32(chunk *c, uint32_t x)
{
    uint8_t bytes[4];

    store_le32(bytes, x);
    chunk_add(c, bytes, 4);
}

static scio_status
decode(const chunk *c, size_t capacity, uint8_t *out, size_t *out_nbytes, scio_error *err)
{
    scio_decoder *decoder = NULL;
    guarded in = guarded_new(c->nbytes), to = guarded_new(capacity);
    scio_status status;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    memcpy(guarded_end(&in, c->nbytes), c->bytes, c->nbytes);
    status = scio_blosc_decode(decoder, guarded_end(&in, c->nbytes), c->nbytes,
                               guarded_end(&to, capacity), capacity, out_nbytes, err);
    if (status == SCIO_OK)
        memcpy(out, guarded_end(&to, capacity), *out_nbytes);
    scio_decoder_free(decoder);
    guarded_free(&in);
    guarded_free(&to);
    return status;
}

static void
check_gives(const chunk *c, const char *expected)
{
    uint8_t out[1000];
    size_t out_nbytes = 0;
    scio_error err = SCIO_ERROR_INIT;

    if (decode(c, strlen(expected), out, &out_nbytes, &err) != SCIO_OK)
        printf("%s\n", err.message);
    CHECK(err.code == SCIO_OK);
    CHECK(out_nbytes == strlen(expected) && memcmp(out, expected, out_nbytes) == 0);
}

static void
check_refused(const chunk *c, size_t capacity, scio_status code, const char *message)
{
    uint8_t out[1000];
    size_t out_nbytes = 77;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(decode(c, capacity, out, &out_nbytes, &err) == code);
    CHECK_STR(err.message, message);
    CHECK(out_nbytes == 77);
}

/* Two blocks of 4 and 2 raw bytes in one-stream BloscLZ chunk. */
static chunk
two_blocks(void)
{
    chunk c = chunk_new(16, 1, 6, 4);

    chunk_add_u32(&c, 24);
    chunk_add_u32(&c, 32);
    chunk_add_u32(&c, 4);
    chunk_add(&c, "abcd", 4);
    chunk_add_u32(&c, 2);
    chunk_add(&c, "ef", 2);
    return c;
}

TEST(blosc_takes_a_chunk_that_is_stored_raw)
{
    chunk c = chunk_new(2, 4, 5, 5);

    chunk_add(&c, "hello", 5);
    check_gives(&c, "hello");
    c.bytes[2] = 2 | 1 | 2 << 5; /* the shuffle and codec bits then mean nothing */
    check_gives(&c, "hello");
    chunk_add(&c, "!", 1);
    check_refused(&c, 5, SCIO_ECORRUPT, "6 bytes stored raw behind the header, expected 5");
}

TEST(blosc_joins_blocks_wherever_they_lie)
{
    chunk c = two_blocks();

    check_gives(&c, "abcdef");
    c = chunk_new(16, 1, 6, 4); /* second block first */
    chunk_add_u32(&c, 30);
    chunk_add_u32(&c, 24);
    chunk_add_u32(&c, 2);
    chunk_add(&c, "ef", 2);
    chunk_add_u32(&c, 4);
    chunk_add(&c, "abcd", 4);
    check_gives(&c, "abcdef");
}

TEST(blosc_takes_a_chunk_of_nothing)
{
    chunk c = chunk_new(0, 1, 0, 0);

    check_gives(&c, "");
}

/* Found by fuzzing: twice the block size, 2 GiB, was allocated for a chunk without blocks. */
TEST(blosc_a_chunk_of_nothing_takes_no_memory_whatever_its_block_size)
{
    chunk c = chunk_new(1, 4, 0, 0x7fffffff);
    scio_decoder *decoder = NULL;
    size_t out_nbytes = 1, before;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    before = scio_decoder_nbytes(decoder);
    CHECK(scio_blosc_decode(decoder, c.bytes, c.nbytes, NULL, 0, &out_nbytes, NULL) == SCIO_OK);
    CHECK(out_nbytes == 0);
    CHECK(scio_decoder_nbytes(decoder) == before);
    scio_decoder_free(decoder);
}

TEST(blosc_refuses_each_broken_rule_of_the_header)
{
    chunk c = two_blocks();

    c.nbytes = 15;
    check_refused(&c, 6, SCIO_ECORRUPT, "15 bytes, fewer than the header's 16");
    c = two_blocks();
    check_refused(&c, 5, SCIO_ECORRUPT, "announces 6 bytes, at most 5 expected");
    c.bytes[0] = 5;
    check_refused(&c, 6, SCIO_EUNSUPPORTED, "format version 5, scio reads 2");
    c = two_blocks();
    c.bytes[1] = 2;
    check_refused(&c, 6, SCIO_EUNSUPPORTED, "format 2 of BloscLZ");
    c = two_blocks();
    c.bytes[2] |= 8;
    check_refused(&c, 6, SCIO_ECORRUPT, "reserved flag bit 3");
    c = two_blocks();
    c.bytes[2] |= 5;
    check_refused(&c, 6, SCIO_ECORRUPT, "byte shuffle and bit shuffle are both set");
    c = two_blocks();
    c.bytes[2] |= 2 << 5;
    check_refused(&c, 6, SCIO_EUNSUPPORTED, "Snappy");
    c.bytes[2] |= 7 << 5;
    check_refused(&c, 6, SCIO_EUNSUPPORTED, "codec 7 is unknown");
    c = two_blocks();
    c.bytes[3] = 0;
    check_refused(&c, 6, SCIO_ECORRUPT, "element size is 0");
    c = two_blocks();
    store_le32(c.bytes + 12, 39);
    check_refused(&c, 6, SCIO_ECORRUPT, "says 39 bytes stored, found 38");
}

TEST(blosc_refuses_each_broken_rule_of_the_blocks)
{
    chunk c = two_blocks();

    store_le32(c.bytes + 8, 0);
    check_refused(&c, 6, SCIO_ECORRUPT, "blocks of 0 bytes in a chunk of 6");
    store_le32(c.bytes + 8, 7);
    check_refused(&c, 6, SCIO_ECORRUPT, "blocks of 7 bytes in a chunk of 6");
    store_le32(c.bytes + 8, 1);
    check_refused(&c, 6, SCIO_ECORRUPT, "6 blocks cannot start in 38 bytes");
    c = two_blocks();
    store_le32(c.bytes + 16, 23); /* inside the table of starts */
    check_refused(&c, 6, SCIO_ECORRUPT,
                  "block 0 of 2: Blosc: starts at byte 23, expected 24 to 38");
    store_le32(c.bytes + 16, 0xffffffff);
    check_refused(&c, 6, SCIO_ECORRUPT, "starts at byte 4294967295");
    store_le32(c.bytes + 16, 35);
    check_refused(&c, 6, SCIO_ECORRUPT, "cut at byte 35");
    c = two_blocks();
    store_le32(c.bytes + 32, 3);
    check_refused(&c, 6, SCIO_ECORRUPT, "stream at byte 36 has 3 bytes, 2 are left");
    store_le32(c.bytes + 32, 0xfffffffe);
    check_refused(&c, 6, SCIO_ECORRUPT, "has 4294967294 bytes, 2 are left");
    c = two_blocks();
    store_le32(c.bytes + 24, 2); /* "ab" as BloscLZ: a literal run that is cut */
    check_refused(&c, 6, SCIO_ECORRUPT, "BloscLZ: the item at byte 0 of 2");
    store_le32(c.bytes + 24, 0);
    check_refused(&c, 6, SCIO_ECORRUPT, "gave 0, expected 4");
}

TEST(blosc_refuses_split_blocks_that_the_streams_do_not_divide)
{
    chunk c = chunk_new(0, 3, 400, 400); /* 400 / 3 >= 128 elements: three streams */

    chunk_add_u32(&c, 20);
    check_refused(&c, 400, SCIO_ECORRUPT, "blocks of 400 bytes split into 3 streams");
}

TEST(blosc_announced_sizes_cost_nothing_before_they_are_checked)
{
    chunk c = chunk_new(0, 1, 0xffffffff, 1);

    check_refused(&c, 900, SCIO_ECORRUPT, "announces 4294967295 bytes");
}

TEST(blosc_decode_fails_cleanly_at_every_allocation)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    fixture_set set = fixtures_load("blosc");
    size_t n_shuffled = 0;

    for (size_t i = 0; i < set.n_cases; i++) {
        const fixture *f = &set.cases[i];
        uint8_t *out = malloc(f->raw_nbytes);
        size_t k = 0, out_nbytes = 0;
        scio_decoder *decoder = NULL;
        scio_status status;

        if (!is_decodable(f)) {
            free(out);
            continue;
        }
        CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
        do {
            scio_mem_fail_at(k++);
            status = decode_blosc(f, decoder, f->stored, f->stored_nbytes, out, f->raw_nbytes,
                                  &out_nbytes, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        } while (status == SCIO_ENOMEM);
        n_shuffled += k > 1;
        CHECK(memcmp(out, f->raw, f->raw_nbytes) == 0);
        scio_decoder_free(decoder);
        free(out);
    }
    CHECK(n_shuffled > 20);
    fixtures_free(&set);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}

/* ---- BloscLZ ---- */

static void
check_blosclz(const char *stored, size_t stored_nbytes, size_t capacity, const char *expected)
{
    guarded in = guarded_new(stored_nbytes), out = guarded_new(capacity);
    uint8_t *from = guarded_end(&in, stored_nbytes), *to = guarded_end(&out, capacity);
    size_t out_nbytes = 0;
    scio_status status;

    memcpy(from, stored, stored_nbytes);
    status = scio_blosclz_decode(from, stored_nbytes, to, capacity, &out_nbytes, NULL);
    CHECK(status == (expected != NULL ? SCIO_OK : SCIO_ECORRUPT));
    if (expected != NULL)
        CHECK(out_nbytes == strlen(expected) && memcmp(to, expected, out_nbytes) == 0);
    guarded_free(&in);
    guarded_free(&out);
}

TEST(blosclz_items_follow_the_format)
{
    check_blosclz("", 0, 0, "");
    check_blosclz("\x02"
                  "abc",
                  4, 3, "abc");
    check_blosclz("\xe2"
                  "abc",
                  4, 3, "abc"); /* the top bits of the first control mean nothing */
    check_blosclz("\x00"
                  "a\x20\x00",
                  4, 4, "aaaa"); /* length 1 + 2 */
    check_blosclz("\x00"
                  "a\xc0\x00",
                  4, 9, "aaaaaaaaa"); /* length 6 + 2 */
    check_blosclz("\x00"
                  "a\xe0\x00\x00",
                  5, 10, "aaaaaaaaaa"); /* length 7 + 2 + 0 */
    check_blosclz("\x01"
                  "ab\xe0\x01\x01"
                  "\x00"
                  "c",
                  8, 13,
                  "abababababab"
                  "c");
    check_blosclz("\x03"
                  "abcd\x20\x03",
                  7, 7, "abcdabc");
}

TEST(blosclz_refuses_broken_items)
{
    check_blosclz("\x03"
                  "abc",
                  4, 9, NULL);
    check_blosclz("\x02"
                  "abc",
                  4, 2, NULL);
    check_blosclz("\x00"
                  "a\x20",
                  3, 9, NULL);
    check_blosclz("\x00"
                  "a\xe0",
                  3, 99, NULL);
    check_blosclz("\x00"
                  "a\xe0\xff",
                  4, 999, NULL);
    check_blosclz("\x00"
                  "a\xe0\x00",
                  4, 99, NULL);
    check_blosclz("\x00"
                  "a\x20\x01",
                  4, 9, NULL);
    check_blosclz("\x00"
                  "a\x20\x00",
                  4, 3, NULL);
    check_blosclz("\x00"
                  "a\x3f\xff",
                  4, 9, NULL);
    check_blosclz("\x00"
                  "a\x3f\xff\x00",
                  5, 9, NULL);
    check_blosclz("\x00"
                  "a\x3f\xff\x00\x00",
                  6, 9, NULL);
}

TEST(blosclz_reaches_back_8192_bytes_and_more)
{
    /* 300 literal bytes, a run of zeros by long matches, then a far match of 290 bytes */
    for (size_t distance = 8191; distance <= 8194; distance++) {
        uint8_t stored[500], *expected = calloc(1, 20000);
        guarded out = guarded_new(distance + 290);
        uint8_t *to = guarded_end(&out, distance + 290);
        size_t n = 0, n_left = distance - 301, out_nbytes = 0;

        for (size_t i = 0; i < 300; i++)
            expected[i] = (uint8_t)splitmix64(9, i);
        for (size_t i = 0; i < 300; i += 30) {
            stored[n++] = 29;
            memcpy(stored + n, expected + i, 30);
            n += 30;
        }
        memcpy(stored + n, "\x00\x00", 2); /* one zero as a literal */
        memcpy(stored + n + 2, "\xe0", 1); /* then n_left more from distance 1 */
        n += 3;
        n_left -= 9;
        for (; n_left >= 255; n_left -= 255)
            stored[n++] = 255;
        stored[n++] = (uint8_t)n_left;
        stored[n++] = 0;
        memcpy(stored + n, "\xff\xff\x1a", 3); /* length 7 + 2 + 255 + 26 */
        n += 3;
        if (distance < 8192) {
            stored[n++] = (uint8_t)(distance - 1);
            stored[n - 4] = (uint8_t)(0xe0 | (distance - 1) >> 8);
        } else {
            stored[n++] = 255;
            stored[n++] = (uint8_t)((distance - 8192) >> 8);
            stored[n++] = (uint8_t)(distance - 8192);
        }
        memcpy(expected + distance, expected, 290);
        CHECK(scio_blosclz_decode(stored, n, to, distance + 290, &out_nbytes, NULL) == SCIO_OK);
        CHECK(out_nbytes == distance + 290 && memcmp(to, expected, out_nbytes) == 0);
        guarded_free(&out);
        free(expected);
    }
}

/* ---- against the library, where it is installed ---- */

#ifdef SCIO_HAVE_BLOSC

static void
fill(uint8_t *raw, size_t nbytes, random_source *r)
{
    const size_t kind = random_below(r, 4);

    for (size_t i = 0; i < nbytes; i++) {
        const size_t x = random_below(r, 1000);

        if (kind == 0)
            raw[i] = (uint8_t)x;
        else if (kind == 1)
            raw[i] = x < 900 ? 0 : (uint8_t)(x % 5);
        else
            raw[i] = i > 300 && x < 970 ? raw[i - (kind == 2 ? 4 : 297)] : (uint8_t)x;
    }
}

/* Makes one chunk with random settings and decodes it; false when libblosc cannot read it back
 * itself (1.21.3 with BLOSC_ALWAYS_SPLIT splits blocks that its own decoder takes for whole ones).
 */
static bool
check_against_library(random_source *r, const char *codec)
{
    const size_t nbytes = random_below(r, random_below(r, 2) != 0 ? 70000 : 700);
    const size_t itemsize = 1 + random_below(r, random_below(r, 2) != 0 ? 255 : 17);
    const size_t block_nbytes = random_below(r, 3) != 0 ? random_below(r, 9000) : 0;
    const int level = (int)random_below(r, 10), shuffle = (int)random_below(r, 3);
    const size_t capacity = nbytes + BLOSC_MAX_OVERHEAD;
    uint8_t *raw = malloc(nbytes + 1), *stored = malloc(capacity), *out = malloc(nbytes + 1);
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t out_nbytes = 0;
    bool is_sound;
    int n;

    blosc_set_splitmode(1 + (int)random_below(r, 4));
    fill(raw, nbytes, r);
    n = blosc_compress_ctx(level, shuffle, itemsize, nbytes, raw, stored, capacity, codec,
                           block_nbytes, 1);
    CHECK(n > 0);
    is_sound = n > 0 && blosc_decompress_ctx(stored, out, nbytes, 1) == (int)nbytes;
    if (is_sound) {
        memset(out, 0, nbytes);
        CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
        if (scio_blosc_decode(decoder, stored, (size_t)n, out, nbytes, &out_nbytes, &err) !=
            SCIO_OK)
            printf("%s level %d shuffle %d size %zu bytes %zu block %zu: %s\n", codec, level,
                   shuffle, itemsize, nbytes, block_nbytes, err.message);
        CHECK(err.code == SCIO_OK && out_nbytes == nbytes && memcmp(out, raw, nbytes) == 0);
        scio_decoder_free(decoder);
    }
    free(raw);
    free(stored);
    free(out);
    return is_sound;
}

TEST(blosc_decodes_whatever_the_library_encodes)
{
    static const char *const codecs[] = {
        "blosclz", "zlib",
#ifdef SCIO_HAVE_LZ4
        "lz4",     "lz4hc",
#endif
#ifdef SCIO_HAVE_ZSTD
        "zstd",
#endif
    };
    const size_t n_codecs = sizeof codecs / sizeof codecs[0], n_rounds = 1500;
    random_source r = {20240611, 0};
    size_t n_compared = 0;

    for (size_t i = 0; i < n_rounds; i++)
        n_compared += check_against_library(&r, codecs[i % n_codecs]);
    CHECK(n_compared > n_rounds / 10 * 9);
}

#endif
