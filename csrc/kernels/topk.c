/* Exact choice of k entries of a row, and the merge of duplicates.
 *
 * An entry becomes one 64-bit key that orders as wanted: selection needs no comparison function, and
 * the position in the row rides in the low bits.  Quickselect with a median of three finds the k-th key;
 * a second pass over the row keeps what is not above it, so the order of the row stays. */
#include "kernels/kernels.h"

#include "base/rng.h"

#include <string.h>

/* Larger value first: an unsigned number that is smaller for larger floats; NaN comes before all. */
static uint32_t
descending_key(float value)
{
    uint32_t bits, ascending;

    if (value != value)
        return 0;
    if (value == 0.0f)
        value = 0.0f; /* -0.0 equals 0.0 */
    memcpy(&bits, &value, sizeof bits);
    ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static void
swap_keys(uint64_t *a, uint64_t *b)
{
    const uint64_t kept = *a;

    *a = *b;
    *b = kept;
}

static uint64_t
median_of_three(uint64_t a, uint64_t b, uint64_t c)
{
    if (a > b)
        swap_keys(&a, &b);
    if (b > c)
        b = c;
    return a > b ? a : b;
}

/* The key that has exactly k - 1 smaller ones; all keys differ.  keys[] is permuted. */
static uint64_t
kth_key(uint64_t *keys, size_t n_items, size_t k)
{
    size_t low = 0, high = n_items;

    while (high - low > 1) {
        const uint64_t pivot = median_of_three(keys[low], keys[low + (high - low) / 2], keys[high - 1]);
        size_t less = low, at = low;

        for (; at < high; at++) {
            const uint64_t key = keys[at];

            keys[at] = keys[less];
            keys[less] = key;
            less += key < pivot;
        }
        if (k - 1 < less) {
            high = less;
        } else {
            /* the pivot itself is the least of the upper part */
            for (at = less; keys[at] != pivot; at++)
                continue;
            swap_keys(&keys[less], &keys[at]);
            if (k - 1 == less)
                return pivot;
            low = less + 1;
        }
    }
    return keys[low];
}

/* Entries come by ascending id, so the position in the row breaks ties as the id does. */
size_t
scio_topk_by_value(int32_t *ids, float *values, size_t n_items, size_t k, uint64_t *scratch)
{
    uint64_t last;
    size_t n_kept = 0;

    if (n_items <= k)
        return n_items;
    if (k == 0)
        return 0;
    for (size_t i = 0; i < n_items; i++)
        scratch[i] = (uint64_t)descending_key(values[i]) << 32 | (uint32_t)i;
    last = kth_key(scratch, n_items, k);
    for (size_t i = 0; i < n_items; i++) {
        const float value = values[i];
        const uint64_t key = (uint64_t)descending_key(value) << 32 | (uint32_t)i;

        ids[n_kept] = ids[i];
        values[n_kept] = value;
        n_kept += key <= last;
    }
    return n_kept;
}

size_t
scio_choose_random(int32_t *ids, float *values, size_t n_items, size_t k, uint64_t seed, uint64_t stream,
                   uint64_t *scratch)
{
    uint64_t last;
    size_t n_kept = 0;

    if (n_items <= k)
        return n_items;
    if (k == 0)
        return 0;
    /* 32 random bits, the position below: distinct keys, the k smallest are a random choice */
    for (size_t i = 0; i < n_items; i++)
        scratch[i] = (scio_rng_u64(seed, stream, i) & ~UINT64_C(0xFFFFFFFF)) | (uint32_t)i;
    last = kth_key(scratch, n_items, k);
    for (size_t i = 0; i < n_items; i++) {
        const uint64_t key = (scio_rng_u64(seed, stream, i) & ~UINT64_C(0xFFFFFFFF)) | (uint32_t)i;

        ids[n_kept] = ids[i];
        values[n_kept] = values[i];
        n_kept += key <= last;
    }
    return n_kept;
}

/* Bottom-up merge sort of (id << 32 | position): stable, no recursion. */
static uint64_t *
sorted_keys(uint64_t *keys, uint64_t *spare, size_t n_items)
{
    for (size_t width = 1; width < n_items; width *= 2) {
        for (size_t start = 0; start < n_items; start += 2 * width) {
            const size_t middle = start + width < n_items ? start + width : n_items;
            const size_t end = start + 2 * width < n_items ? start + 2 * width : n_items;
            size_t a = start, b = middle;

            for (size_t to = start; to < end; to++) {
                if (a < middle && (b >= end || keys[a] < keys[b]))
                    spare[to] = keys[a++];
                else
                    spare[to] = keys[b++];
            }
        }
        {
            uint64_t *const kept = keys;
            keys = spare;
            spare = kept;
        }
    }
    return keys;
}

size_t
scio_sort_sum_duplicates(int32_t *ids, float *values, size_t n_items, uint64_t *scratch)
{
    uint64_t *sorted, *spare;
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++)
        scratch[i] = (uint64_t)(uint32_t)ids[i] << 32 | (uint32_t)i;
    sorted = sorted_keys(scratch, scratch + n_items, n_items);
    spare = sorted == scratch ? scratch + n_items : scratch;
    /* values in the new order, packed into the half that is free */
    for (size_t i = 0; i < n_items; i++)
        memcpy((char *)spare + i * sizeof(float), &values[(uint32_t)sorted[i]], sizeof(float));
    for (size_t i = 0; i < n_items;) {
        const int32_t id = (int32_t)(uint32_t)(sorted[i] >> 32);
        double sum = 0;
        size_t n_equal = 0;
        float value = 0;

        for (; i < n_items && (int32_t)(uint32_t)(sorted[i] >> 32) == id; i++, n_equal++) {
            memcpy(&value, (const char *)spare + i * sizeof(float), sizeof value);
            sum += (double)value;
        }
        ids[n_kept] = id;
        values[n_kept] = n_equal == 1 ? value : (float)sum;
        n_kept++;
    }
    return n_kept;
}
