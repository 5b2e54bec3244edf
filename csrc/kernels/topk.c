/* Exact choice of k entries of a row.
 *
 * By value: values become unsigned keys that order as they do, and the k-th largest key is found by
 * halving the interval it can lie in, from the least to the greatest, each time counting the keys
 * above the middle.  Counting has no branches and runs over 8 or 16 keys at a time, so at most 32
 * counts cost less than one quickselect, whose branches cannot be predicted, and ties, which are
 * the rule in counts, cost nothing. At random: Floyd's choice of a subset draws as many numbers as
 * entries are taken or left out, whichever are fewer. Both then pass over the row once, so that the
 * order of the row stays.
 */
#include "kernels/kernels.h"

#include "base/rng.h"

#include <string.h>

/* The k-th largest key (1 <= k < n_items): the least key that has fewer than k keys above it.
 * Returns in *n_above_out how many those are. */
static uint32_t
kth_largest(const scio_kernels_table *kernels, const uint32_t *keys, size_t n_items, size_t k,
            size_t *n_above_out)
{
    uint32_t low = 0, high = 0; /* it lies in [low, high] */
    size_t n_above_high = 0, n_above_low;

    kernels->range_u32(keys, n_items, &low, &high);
    /* of counts, often more than n_items - k are the least there is */
    n_above_low = kernels->count_above_u32(keys, n_items, low);
    if (n_above_low < k) {
        *n_above_out = n_above_low;
        return low;
    }
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const size_t n_above = kernels->count_above_u32(keys, n_items, middle);

        if (n_above >= k) {
            low = middle + 1;
        } else {
            high = middle;
            n_above_high = n_above;
        }
    }
    *n_above_out = n_above_high;
    return high;
}

/* The position behind the n-th key that equals `wanted` (n >= 1, and there are so many). */
static size_t
behind_nth_equal(const uint32_t *keys, uint32_t wanted, size_t n)
{
    size_t i = 0;

    for (;; i++) {
        n -= keys[i] == wanted;
        if (n == 0)
            return i + 1;
    }
}

/* Entries come by ascending id, so of equal values the first ones are kept. */
size_t
scio_topk_by_value(int32_t *ids, float *values, size_t n_items, size_t k, uint64_t *scratch)
{
    const scio_kernels_table *const kernels = scio_kernels();
    uint32_t *const keys = (uint32_t *)(void *)scratch;
    size_t n_above = 0, n_front, n_kept, n_behind;
    uint32_t last;

    if (n_items <= k)
        return n_items;
    if (k == 0)
        return 0;
    kernels->order_keys_f32(values, keys, n_items);
    last = kth_largest(kernels, keys, n_items, k, &n_above);
    n_front = behind_nth_equal(keys, last, k - n_above);
    /* no key is 0, so "from `last` on" is "above last - 1" */
    n_kept = kernels->keep_above_u32(ids, values, keys, n_front, last - 1);
    n_behind = kernels->keep_above_u32(ids + n_front, values + n_front, keys + n_front,
                                       n_items - n_front, last);
    memmove(ids + n_kept, ids + n_front, n_behind * sizeof *ids);
    memmove(values + n_kept, values + n_front, n_behind * sizeof *values);
    return n_kept + n_behind;
}

/* Marks n_marks of the n_items flags, each set of that size with the same probability.
 * Source: Floyd's algorithm F2 in Bentley and Floyd, "A sample of brilliance", CACM 30 (1987). */
static void
mark_random(uint8_t *flags, size_t n_items, size_t n_marks, uint64_t seed, uint64_t stream)
{
    memset(flags, 0, n_items);
    for (size_t j = n_items - n_marks; j < n_items; j++) {
        const size_t pick = (size_t)scio_rng_below(seed, stream, j, (uint64_t)j + 1);

        if (flags[pick] == 0)
            flags[pick] = 1;
        else
            flags[j] = 1;
    }
}

size_t
scio_choose_random(int32_t *ids, float *values, size_t n_items, size_t k, uint64_t seed,
                   uint64_t stream, uint64_t *scratch)
{
    const bool marks_kept = k <= n_items / 2;
    uint8_t *const flags = (uint8_t *)(void *)scratch;
    size_t n_kept = 0;

    if (n_items <= k)
        return n_items;
    if (k == 0)
        return 0;
    mark_random(flags, n_items, marks_kept ? k : n_items - k, seed, stream);
    for (size_t i = 0; i < n_items; i++) {
        ids[n_kept] = ids[i];
        values[n_kept] = values[i];
        n_kept += (flags[i] != 0) == marks_kept;
    }
    return n_kept;
}
