#include "codec_testing.h"

/* The definition, byte by byte: plane j holds byte j of every element, tail bytes stay. */
static void
shuffle_plainly(const uint8_t *in, size_t nbytes, size_t itemsize, uint8_t *out)
{
    const size_t n_items = nbytes / itemsize;

    memcpy(out, in, nbytes);
    for (size_t i = 0; i < n_items; i++)
        for (size_t j = 0; j < itemsize; j++)
            out[j * n_items + i] = in[i * itemsize + j];
}

static void
check_round_trip(const guarded *a, const guarded *b, size_t nbytes, size_t itemsize)
{
    uint8_t *raw = malloc(nbytes + 1), *planes = malloc(nbytes + 1);
    uint8_t *in = guarded_end(a, nbytes), *out = guarded_end(b, nbytes);

    for (size_t i = 0; i < nbytes; i++)
        raw[i] = (uint8_t)splitmix64(itemsize, i);
    shuffle_plainly(raw, nbytes, itemsize, planes);
    memcpy(in, planes, nbytes);
    memset(out, 0, nbytes);
    CHECK(scio_unshuffle(in, nbytes, itemsize, out, NULL) == SCIO_OK);
    CHECK(memcmp(out, raw, nbytes) == 0);
    memcpy(in, raw, nbytes);
    memset(out, 0, nbytes);
    CHECK(scio_shuffle(in, nbytes, itemsize, out, NULL) == SCIO_OK);
    CHECK(memcmp(out, planes, nbytes) == 0);
    /* the same at the other end of the pages: nothing before the buffers is touched */
    memcpy(a->base, planes, nbytes);
    CHECK(scio_unshuffle(a->base, nbytes, itemsize, b->base, NULL) == SCIO_OK);
    CHECK(memcmp(b->base, raw, nbytes) == 0);
    free(raw);
    free(planes);
}

TEST(unshuffle_undoes_the_definition_for_every_itemsize_and_tail)
{
    guarded a = guarded_new(40000), b = guarded_new(40000);

    for (size_t itemsize = 1; itemsize <= 40; itemsize++)
        for (size_t nbytes = 0; nbytes <= 700; nbytes += itemsize % 2 + 1)
            check_round_trip(&a, &b, nbytes, itemsize);
    for (size_t itemsize = 1; itemsize <= 300; itemsize++)
        for (size_t n_items = 127; n_items <= 129; n_items++)
            check_round_trip(&a, &b, n_items * itemsize + itemsize / 3, itemsize);
    guarded_free(&a);
    guarded_free(&b);
}

TEST(unshuffle_is_right_beyond_the_tile_of_the_plain_loop)
{
    guarded a = guarded_new(70000), b = guarded_new(70000);

    for (size_t itemsize = 1; itemsize <= 17; itemsize++)
        check_round_trip(&a, &b, 4099 * itemsize - 1, itemsize);
    guarded_free(&a);
    guarded_free(&b);
}

TEST(unshuffle_copies_when_there_is_at_most_one_element)
{
    const uint8_t in[] = {1, 2, 3, 4, 5};
    uint8_t out[5] = {0};

    CHECK(scio_unshuffle(in, 5, 5, out, NULL) == SCIO_OK);
    CHECK(memcmp(in, out, 5) == 0);
    memset(out, 0, 5);
    CHECK(scio_unshuffle(in, 5, SIZE_MAX, out, NULL) == SCIO_OK);
    CHECK(memcmp(in, out, 5) == 0);
    CHECK(scio_unshuffle(NULL, 0, 4, NULL, NULL) == SCIO_OK);
}

TEST(unshuffle_refuses_an_itemsize_of_zero)
{
    const uint8_t in[4] = {0};
    uint8_t out[4];
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_unshuffle(in, 4, 0, out, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "element size is 0");
    CHECK(scio_shuffle(in, 4, 0, out, NULL) == SCIO_ECORRUPT);
}
