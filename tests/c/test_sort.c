/* Sorting entries by id, against an insertion sort and a sum in stored order. */
#include "test.h"

#include "base/rng.h"
#include "kernels/kernels.h"

#include <stdint.h>

enum { MOST = 900 };

static uint64_t
random_at(uint64_t stream, size_t i)
{
    return scio_rng_u64(22, stream, i);
}

static void
insertion_sort(uint64_t *keys, size_t n_items)
{
    for (size_t i = 1; i < n_items; i++)
        for (size_t j = i; j > 0 && keys[j - 1] >> 32 > keys[j] >> 32; j--) {
            const uint64_t kept = keys[j];

            keys[j] = keys[j - 1];
            keys[j - 1] = kept;
        }
}

TEST(sort_by_upper_is_stable_for_every_length_and_width_of_key)
{
    static uint64_t keys[MOST], scratch[MOST], expected[MOST];
    const uint64_t n_ids[] = {1, 2, 200, 256, 257, 65536, 1u << 20, 1u << 31, UINT64_C(1) << 32};

    for (size_t k = 0; k < sizeof n_ids / sizeof *n_ids; k++) {
        for (size_t n_items = 0; n_items <= MOST; n_items = n_items * 5 / 4 + 1) {
            const uint64_t *sorted;

            /* the lower half tells equal ones apart */
            for (size_t i = 0; i < n_items; i++)
                keys[i] = expected[i] = random_at(n_items, i) % n_ids[k] << 32 | (MOST - i);
            insertion_sort(expected, n_items);
            sorted = scio_sort_by_upper(keys, scratch, n_items);
            CHECK(sorted == keys || sorted == scratch);
            CHECK(memcmp(sorted, expected, n_items * sizeof *sorted) == 0);
        }
    }
}

static void
check_sums(size_t n_items, uint64_t n_ids)
{
    static int32_t ids[MOST], plain_ids[MOST];
    static float values[MOST], plain_values[MOST];
    static uint64_t scratch[2 * MOST];
    size_t n_kept, n_plain = 0;

    for (size_t i = 0; i < n_items; i++) {
        ids[i] = (int32_t)(random_at(n_ids, i) % n_ids);
        values[i] = (float)(random_at(3, i) % 1000) * 0.1f - 30;
    }
    for (int32_t id = 0; (uint64_t)id < n_ids; id++) {
        double sum = 0;
        size_t n_equal = 0;

        for (size_t i = 0; i < n_items; i++) {
            if (ids[i] != id)
                continue;
            sum += (double)values[i];
            n_equal++;
        }
        if (n_equal == 0)
            continue;
        plain_ids[n_plain] = id;
        plain_values[n_plain++] = (float)sum;
    }
    n_kept = scio_sort_sum_duplicates(ids, values, n_items, scratch);
    CHECK(n_kept == n_plain);
    CHECK(memcmp(ids, plain_ids, n_plain * sizeof *ids) == 0);
    CHECK(memcmp(values, plain_values, n_plain * sizeof *values) == 0);
}

TEST(equal_ids_become_one_entry_with_the_double_sum)
{
    const size_t n_items[] = {0, 1, 2, 10, 24, 25, 200, MOST};
    const uint64_t n_ids[] = {1, 3, 50, 300, 3000};

    for (size_t i = 0; i < sizeof n_items / sizeof *n_items; i++)
        for (size_t k = 0; k < sizeof n_ids / sizeof *n_ids; k++)
            check_sums(n_items[i], n_ids[k]);
}

TEST(a_single_entry_keeps_its_bits)
{
    int32_t ids[3] = {9, 1, 5};
    float values[3] = {-0.0f, 2, 3};
    uint64_t scratch[6];

    CHECK(scio_sort_sum_duplicates(ids, values, 3, scratch) == 3);
    CHECK(ids[0] == 1 && ids[1] == 5 && ids[2] == 9);
    CHECK(values[2] == 0.0f && __builtin_signbit(values[2]) != 0);
}
