/* Rows as (column, double): what the general path of the loader and of preprocessing share. */
#include "kernels/kernels.h"

#include <string.h>

double
scio_sum_f64(const double *values, size_t n_items)
{
    const size_t n_whole = n_items / 8 * 8;
    double lanes[8] = {0};

    for (size_t i = 0; i < n_whole; i += 8)
        for (size_t j = 0; j < 8; j++)
            lanes[j] += values[i + j];
    for (size_t i = n_whole; i < n_items; i++)
        lanes[i - n_whole] += values[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

size_t
scio_sort_sum_wide(uint32_t *columns, double *values, size_t n_items, uint64_t *keys)
{
    const uint64_t *sorted;
    double *unsorted;
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++)
        keys[i] = (uint64_t)columns[i] << 32 | (uint32_t)i;
    sorted = scio_sort_by_upper(keys, keys + n_items, n_items);
    unsorted =
        (double *)(void *)(sorted == keys ? keys + n_items : keys); /* the half that is free */
    memcpy(unsorted, values, n_items * sizeof *unsorted);
    for (size_t i = 0; i < n_items;) {
        const uint32_t column = (uint32_t)(sorted[i] >> 32);
        double sum = unsorted[(uint32_t)sorted[i++]];

        for (; i < n_items && sorted[i] >> 32 == column; i++)
            sum += unsorted[(uint32_t)sorted[i]];
        columns[n_kept] = column;
        values[n_kept++] = sum;
    }
    return n_kept;
}

size_t
scio_drop_zeros_wide(uint32_t *columns, double *values, size_t n_items)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++) {
        const double value = values[i];

        columns[n_kept] = columns[i];
        values[n_kept] = value;
        n_kept += value != 0.0;
    }
    return n_kept;
}
