/* Sorting the entries of a row by id: least significant digit first, 8 bits at a time.
 *
 * A row has some thousand entries and ids of two bytes, so two passes without a comparison beat
 * anything that compares; short rows are sorted by insertion. */
#include "kernels/kernels.h"

#include <string.h>

enum { N_DIGITS = 256, N_SHORT = 24 };

static void
sort_short(uint64_t *keys, size_t n_items)
{
    for (size_t i = 1; i < n_items; i++) {
        const uint64_t key = keys[i];
        size_t to = i;

        for (; to > 0 && keys[to - 1] >> 32 > key >> 32; to--)
            keys[to] = keys[to - 1];
        keys[to] = key;
    }
}

/* Counting sort by the byte at bit `shift`; n_items < 2^32. */
static void
sort_by_digit(const uint64_t *keys, uint64_t *out, size_t n_items, unsigned shift)
{
    uint32_t starts[N_DIGITS] = {0};
    uint32_t start = 0;

    for (size_t i = 0; i < n_items; i++)
        starts[keys[i] >> shift & 0xFF]++;
    for (size_t d = 0; d < N_DIGITS; d++) {
        const uint32_t count = starts[d];

        starts[d] = start;
        start += count;
    }
    for (size_t i = 0; i < n_items; i++)
        out[starts[keys[i] >> shift & 0xFF]++] = keys[i];
}

uint64_t *
scio_sort_by_upper(uint64_t *keys, uint64_t *scratch, size_t n_items)
{
    uint64_t any = 0;

    if (n_items <= N_SHORT) {
        sort_short(keys, n_items);
        return keys;
    }
    for (size_t i = 0; i < n_items; i++)
        any |= keys[i];
    for (unsigned shift = 32; shift < 64 && any >> shift != 0; shift += 8) {
        uint64_t *const spare = keys;

        sort_by_digit(keys, scratch, n_items, shift);
        keys = scratch;
        scratch = spare;
    }
    return keys;
}

static float
value_of(uint64_t key)
{
    const uint32_t bits = (uint32_t)key;
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool
has_equal_neighbours(const uint64_t *sorted, size_t n_items)
{
    unsigned n_equal = 0;

    for (size_t i = 1; i < n_items; i++)
        n_equal |= (unsigned)(sorted[i] >> 32 == sorted[i - 1] >> 32);
    return n_equal != 0;
}

/* Equal ids follow one another in stored order and are added in it. */
static size_t
sum_equal(const uint64_t *sorted, size_t n_items, int32_t *ids, float *values)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items;) {
        const uint32_t id = (uint32_t)(sorted[i] >> 32);
        const float first = value_of(sorted[i++]);
        double sum = (double)first;
        bool is_alone = true;

        for (; i < n_items && sorted[i] >> 32 == id; i++) {
            sum += (double)value_of(sorted[i]);
            is_alone = false;
        }
        ids[n_kept] = (int32_t)id;
        values[n_kept++] = is_alone ? first : (float)sum;
    }
    return n_kept;
}

size_t
scio_sort_sum_duplicates(int32_t *ids, float *values, size_t n_items, uint64_t *scratch)
{
    const uint64_t *sorted;

    for (size_t i = 0; i < n_items; i++) {
        uint32_t bits;

        memcpy(&bits, &values[i], sizeof bits);
        scratch[i] = (uint64_t)(uint32_t)ids[i] << 32 | bits;
    }
    sorted = scio_sort_by_upper(scratch, scratch + n_items, n_items);
    if (has_equal_neighbours(sorted, n_items))
        return sum_equal(sorted, n_items, ids, values);
    for (size_t i = 0; i < n_items; i++)
        ids[i] = (int32_t)(uint32_t)(sorted[i] >> 32);
    for (size_t i = 0; i < n_items; i++)
        values[i] = value_of(sorted[i]);
    return n_items;
}
