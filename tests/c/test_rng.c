#include "base/rng.h"

#include "test.h"

/* Known answers published with Random123 (kat_vectors, philox4x32 with 10 rounds). */
TEST(philox_gives_the_published_answers)
{
    static const uint32_t cases[][10] = {
        /* counter, key, result */
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t got[4];

        scio_rng_philox(cases[i], cases[i] + 4, got);
        CHECK(memcmp(got, cases[i] + 6, sizeof got) == 0);
    }
}

TEST(the_64_bits_are_the_first_two_words_and_every_argument_counts)
{
    CHECK(scio_rng_u64(0, 0, 0) == UINT64_C(0xe169c58d6627e8d5));
    CHECK(scio_rng_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == UINT64_C(0x41c83b0e408f276d));
    /* index is the low half of the counter, stream the high one, seed the key */
    CHECK(scio_rng_u64(UINT64_C(0x299f31d0a4093822), UINT64_C(0x0370734413198a2e),
                       UINT64_C(0x85a308d3243f6a88)) == UINT64_C(0x94fdccebd16cfe09));
    for (int bit = 0; bit < 64; bit++) {
        const uint64_t one = UINT64_C(1) << bit;

        CHECK(scio_rng_u64(one, 0, 0) != scio_rng_u64(0, 0, 0));
        CHECK(scio_rng_u64(0, one, 0) != scio_rng_u64(0, 0, 0));
        CHECK(scio_rng_u64(0, 0, one) != scio_rng_u64(0, 0, 0));
    }
}

TEST(below_stays_below_and_is_uniform)
{
    static const uint64_t bounds[] = {1, 2, 3, 7, 10, 100};

    for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++) {
        enum { N_DRAWS = 100000 };
        const double expected = (double)N_DRAWS / (double)bounds[b];
        size_t counts[100] = {0};
        double chi2 = 0;

        for (uint64_t i = 0; i < N_DRAWS; i++) {
            const uint64_t draw = scio_rng_below(11, 22, i, bounds[b]);

            CHECK(draw < bounds[b]);
            counts[draw < 100 ? draw : 99]++;
        }
        for (size_t i = 0; i < bounds[b]; i++)
            chi2 += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
        /* mean bounds - 1, variance twice that: six standard deviations are never reached */
        CHECK(chi2 <= (double)(bounds[b] - 1) + 6 * 14.1 * (double)(bounds[b] > 1));
    }
}

/* With bound = 3 * 2^62 a plain multiplication would hit every third result twice as often as the
 * others, which the rejection, taken by one draw in four, evens out. */
TEST(below_is_unbiased_where_a_quarter_of_the_draws_is_rejected)
{
    enum { N_DRAWS = 60000 };
    const uint64_t bound = UINT64_C(3) << 62;
    size_t by_residue[3] = {0}, n_same = 0;

    for (uint64_t i = 0; i < N_DRAWS; i++) {
        const uint64_t draw = scio_rng_below(5, 6, i, bound);
        __extension__ const unsigned __int128 plain =
            (unsigned __int128)scio_rng_u64(5, 6, i) * bound;

        CHECK(draw < bound);
        by_residue[draw % 3]++;
        n_same += draw == (uint64_t)(plain >> 64);
    }
    for (int i = 0; i < 3; i++) /* 20000 expected, standard deviation 115 */
        CHECK(by_residue[i] > 19200 && by_residue[i] < 20800);
    CHECK(n_same > 44000 && n_same < 46000); /* three in four: the rejection was reached */
}

TEST(below_of_a_bound_that_leaves_no_choice_is_zero)
{
    CHECK(scio_rng_below(1, 2, 3, 1) == 0);
    CHECK(scio_rng_below(1, 2, 3, 0) == 0);
}

TEST(a_shuffle_is_a_permutation_and_a_function_of_its_seed)
{
    enum { N = 1000 };
    int64_t items[N], again[N], other[N];
    bool seen[N] = {false};
    size_t n_fixed = 0;

    for (int64_t i = 0; i < N; i++)
        items[i] = again[i] = other[i] = i;
    scio_rng_shuffle_i64(3, 4, items, N);
    scio_rng_shuffle_i64(3, 4, again, N);
    scio_rng_shuffle_i64(3, 5, other, N);
    CHECK(memcmp(items, again, sizeof items) == 0);
    CHECK(memcmp(items, other, sizeof items) != 0);
    for (size_t i = 0; i < N; i++) {
        CHECK(items[i] >= 0 && items[i] < N && !seen[items[i]]);
        seen[items[i]] = true;
        n_fixed += items[i] == (int64_t)i;
    }
    CHECK(n_fixed < 10);
    scio_rng_shuffle_i64(3, 4, NULL, 0);
    scio_rng_shuffle_i64(3, 4, items, 1);
    CHECK(items[0] == again[0]);
}

TEST(every_permutation_of_four_is_as_frequent_as_the_others)
{
    enum { N_SHUFFLES = 48000 };
    size_t counts[256] = {0}, n_seen = 0;

    for (uint64_t stream = 0; stream < N_SHUFFLES; stream++) {
        int64_t items[] = {0, 1, 2, 3};

        scio_rng_shuffle_i64(9, stream, items, 4);
        counts[items[0] * 64 + items[1] * 16 + items[2] * 4 + items[3]]++;
    }
    for (size_t i = 0; i < 256; i++) {
        n_seen += counts[i] > 0;
        CHECK(counts[i] == 0 || (counts[i] > 1750 && counts[i] < 2250)); /* 2000 +- 44 */
    }
    CHECK(n_seen == 24);
}

TEST(streams_of_neighbouring_numbers_differ)
{
    enum { N = 12 };
    uint64_t streams[N * N * N];
    size_t n = 0, n_equal = 0;

    for (uint64_t a = 0; a < N; a++)
        for (uint64_t b = 0; b < N; b++)
            for (uint64_t c = 0; c < N; c++)
                streams[n++] = scio_rng_stream(a, b, c);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            n_equal += streams[i] == streams[j];
    CHECK(n_equal == 0);
}

/* What a seed gave once it must give for ever: plans that were saved are replayed. */
TEST(the_numbers_of_this_version_are_the_numbers_of_every_version)
{
    int64_t items[] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int64_t expected[] = {1, 3, 4, 0, 6, 5, 2, 7};

    scio_rng_shuffle_i64(42, 7, items, 8);
    CHECK(memcmp(items, expected, sizeof items) == 0);
    CHECK(scio_rng_below(42, 7, 1, 1000) == 375);
    CHECK(scio_rng_stream(1, 2, 3) == UINT64_C(0x6ae515c1c0ac7e37));
}
