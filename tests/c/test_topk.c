/* The choice of k entries: by value against a sort, at random against what a fair choice must look
 * like. */
#include "test.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdint.h>

enum { MOST = 700 };

typedef struct row {
    int32_t ids[MOST];
    float values[MOST];
    uint64_t scratch[2 * MOST];
} row;

static uint64_t
random_at(uint64_t stream, size_t i)
{
    return scio_rng_u64(21, stream, i);
}

/* --- by value --- */

typedef struct entry {
    int32_t id;
    float value;
} entry;

/* Value descending, NaN first, then id ascending. */
static int
compare_by_value(const void *a, const void *b)
{
    const entry *const x = a, *const y = b;
    const bool is_x_nan = x->value != x->value, is_y_nan = y->value != y->value;

    if (is_x_nan != is_y_nan)
        return is_x_nan ? -1 : 1;
    if (!is_x_nan && x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int
compare_by_id(const void *a, const void *b)
{
    const entry *const x = a, *const y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static float
value_of(int kind, uint64_t r)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, -1.0f, 1.0f, 1e-45f};

    switch (kind) {
    case 0: /* counts: mostly ties */
        return (float)(r % 4 + 1);
    case 1:
        return (float)(r % 100000) * 0.001f;
    case 2:
        return special[r % 8];
    case 3:
        return -(float)(r % 1000);
    default: /* all the same */
        return 2.5f;
    }
}

static void
check_topk(int kind, size_t n_items, size_t k, uint64_t stream)
{
    static row got;
    static entry all[MOST];
    const size_t n_expected = n_items < k ? n_items : k;
    size_t n_kept;

    for (size_t i = 0; i < n_items; i++) {
        all[i].id = got.ids[i] = (int32_t)(7 * i + random_at(stream, i) % 7);
        all[i].value = got.values[i] = value_of(kind, random_at(stream, i) >> 8);
    }
    n_kept = scio_topk_by_value(got.ids, got.values, n_items, k, got.scratch);
    qsort(all, n_items, sizeof *all, compare_by_value);
    qsort(all, n_expected, sizeof *all, compare_by_id);
    CHECK(n_kept == n_expected);
    for (size_t i = 0; i < n_expected; i++) {
        CHECK(got.ids[i] == all[i].id);
        CHECK(memcmp(&got.values[i], &all[i].value, sizeof(float)) == 0);
    }
}

TEST(topk_is_what_a_sort_gives_for_ties_nan_infinities_and_negative_values)
{
    uint64_t stream = 0;

    for (int kind = 0; kind < 5; kind++) {
        for (size_t n_items = 0; n_items <= MOST; n_items = n_items * 3 / 2 + 1) {
            const size_t ks[] = {
                0, 1, 2, n_items / 3, n_items / 2, n_items - (n_items > 0), n_items, n_items + 1};

            for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
                check_topk(kind, n_items, ks[i], stream++);
        }
    }
}

TEST(topk_of_equal_values_keeps_the_smallest_ids)
{
    row r = {.ids = {3, 5, 8, 9}, .values = {1, 2, 1, 1}};

    CHECK(scio_topk_by_value(r.ids, r.values, 4, 3, r.scratch) == 3);
    CHECK(r.ids[0] == 3 && r.ids[1] == 5 && r.ids[2] == 8);
}

/* --- at random --- */

static size_t
choose(row *r, size_t n_items, size_t k, uint64_t seed, uint64_t stream)
{
    for (size_t i = 0; i < n_items; i++) {
        r->ids[i] = (int32_t)(10 * i);
        r->values[i] = (float)i + 0.5f;
    }
    return scio_choose_random(r->ids, r->values, n_items, k, seed, stream, r->scratch);
}

TEST(a_random_choice_has_k_entries_in_their_order_each_with_its_value)
{
    static row r;

    for (size_t n_items = 0; n_items < 40; n_items++) {
        for (size_t k = 0; k < 45; k++) {
            const size_t n_kept = choose(&r, n_items, k, 1, n_items * 100 + k);

            CHECK(n_kept == (n_items < k ? n_items : k));
            for (size_t i = 0; i < n_kept; i++) {
                CHECK(i == 0 || r.ids[i] > r.ids[i - 1]);
                CHECK(r.values[i] == (float)(r.ids[i] / 10) + 0.5f);
            }
        }
    }
}

TEST(a_random_choice_depends_on_seed_and_stream_and_on_nothing_else)
{
    static row a, b;

    CHECK(choose(&a, 300, 100, 5, 6) == 100 && choose(&b, 300, 100, 5, 6) == 100);
    CHECK(memcmp(a.ids, b.ids, 100 * sizeof *a.ids) == 0);
    CHECK(choose(&b, 300, 100, 5, 7) == 100);
    CHECK(memcmp(a.ids, b.ids, 100 * sizeof *a.ids) != 0);
    CHECK(choose(&b, 300, 100, 4, 6) == 100);
    CHECK(memcmp(a.ids, b.ids, 100 * sizeof *a.ids) != 0);
}

/* All subsets of 3 of 6 (20 of them) must come equally often: chi-square with 19 degrees of freedom
 * is below 43.8 with probability 0.999.  Both ways are taken: marks of what stays, marks of what
 * goes. */
static double
chi_square_of_subsets(size_t k, size_t n_subsets)
{
    enum { N = 6, ROUNDS = 20000 };
    size_t counts[1 << N] = {0};
    static row r;
    double chi = 0;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        size_t subset = 0;
        const size_t n_kept = choose(&r, N, k, 77, round);

        for (size_t i = 0; i < n_kept; i++)
            subset |= (size_t)1 << (r.ids[i] / 10);
        counts[subset]++;
    }
    for (size_t s = 0; s < (size_t)1 << N; s++) {
        const double expected = (double)ROUNDS / (double)n_subsets;
        const double off = (double)counts[s] - expected;

        if ((size_t)__builtin_popcountll(s) == k)
            chi += off * off / expected;
        else
            CHECK(counts[s] == 0);
    }
    return chi;
}

TEST(every_subset_is_as_likely_as_any_other)
{
    CHECK(chi_square_of_subsets(3, 20) < 43.8);
    CHECK(chi_square_of_subsets(2, 15) < 36.1);
    CHECK(chi_square_of_subsets(4, 15) < 36.1);
}
