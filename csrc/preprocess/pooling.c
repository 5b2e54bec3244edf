/* Medians of the sums over windows of a ring of cells.
 *
 * A task is one size and RESTART starts in a row.  Its first window is summed anew; then each step
 * takes one cell out and puts one in.  The median of a window is near that of the one before: one
 * pass counts what lies below a bracket around the old one and collects what lies in it, and only
 * the few collected values are selected from.  A bracket that misses costs a selection from all.
 * Neither bracket nor order of tasks can change a bit, since sums are exact and a median is a
 * value, not a way to it. */
#include "preprocess/pooling.h"

#include "base/mem.h"
#include "base/pool.h"

#include <math.h>
#include <string.h>

#define RESTART 256

/* --- selection */

static inline void
swap_values(double *values, ptrdiff_t i, ptrdiff_t j)
{
    const double kept = values[i];

    values[i] = values[j];
    values[j] = kept;
}

static double
middle_of_three(double a, double b, double c)
{
    const double low = a < b ? a : b, high = a < b ? b : a;

    return c < low ? low : (c > high ? high : c);
}

/* The value that stands at `rank` when values[n] are sorted; they are moved.  Hoare's selection;
 * the pivot's candidates lie where no order of the input can foresee. */
static double
select_rank(double *values, size_t n, size_t rank)
{
    ptrdiff_t low = 0, high = (ptrdiff_t)n - 1;
    const ptrdiff_t wanted = (ptrdiff_t)rank;
    uint32_t mixed = 12345;

    while (low < high) {
        ptrdiff_t i = low, j = high;
        double candidates[3], pivot;

        for (int k = 0; k < 3; k++) {
            mixed = mixed * 1664525U + 1013904223U;
            candidates[k] =
                values[low + (ptrdiff_t)(((uint64_t)mixed * (uint64_t)(high - low + 1)) >> 32)];
        }
        pivot = middle_of_three(candidates[0], candidates[1], candidates[2]);
        do {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i <= j)
                swap_values(values, i++, j--);
        } while (i <= j);
        /* up to j nothing is above the pivot, from i on nothing below it, between them it is */
        if (j < wanted)
            low = i;
        if (wanted < i)
            high = j;
    }
    return values[wanted];
}

/* Mean of the values at `rank` and, when is_even, the next one. */
static double
select_middle(double *values, size_t n, size_t rank, bool is_even)
{
    const double first = select_rank(values, n, rank);
    double next = INFINITY;

    if (!is_even)
        return first;
    for (size_t i = rank + 1; i < n; i++) /* selection left what is not below behind it */
        next = values[i] < next ? values[i] : next;
    return (first + next) / 2;
}

typedef struct bracket {
    double low, high, width; /* width: of each side */
} bracket;

static double
find_median(const double *sums, size_t n, bracket *near, double *work)
{
    const size_t rank = (n - 1) / 2;
    const bool is_even = n % 2 == 0;
    const double low = near->low, high = near->high;
    size_t n_below = 0, n_inside = 0;
    double median;

    for (size_t i = 0; i < n; i++) {
        work[n_inside] = sums[i];
        n_below += sums[i] < low;
        n_inside += (size_t)((sums[i] >= low) & (sums[i] <= high));
    }
    if (rank >= n_below && n / 2 < n_below + n_inside) {
        median = select_middle(work, n_inside, rank - n_below, is_even);
        near->width *= n_inside > n / 8 ? 0.5 : n_inside < n / 32 ? 1.25 : 1.0;
    } else {
        memcpy(work, sums, n * sizeof *work);
        median = select_middle(work, n, rank, is_even);
        near->width = near->width > 0 ? 2 * near->width : median / 16;
    }
    near->low = median - near->width;
    near->high = median + near->width;
    return median;
}

/* --- windows */

typedef struct medians_call {
    const scio_pooling_ring *ring;
    const int64_t *sizes;
    size_t n_blocks; /* of starts, for each size */
    double *medians;
    double *scratch; /* [n_slots, 2, n_genes] */
} medians_call;

static inline void
put_in(const scio_pooling_ring *ring, int64_t i_cell, double *sums)
{
    const int32_t *const genes = &ring->genes[ring->starts[i_cell]];
    const double *const values = &ring->values[ring->starts[i_cell]];

    for (int64_t i = 0; i < ring->counts[i_cell]; i++)
        sums[genes[i]] += values[i];
}

static inline void
take_out(const scio_pooling_ring *ring, int64_t i_cell, double *sums)
{
    const int32_t *const genes = &ring->genes[ring->starts[i_cell]];
    const double *const values = &ring->values[ring->starts[i_cell]];

    for (int64_t i = 0; i < ring->counts[i_cell]; i++)
        sums[genes[i]] -= values[i];
}

static scio_status
run_windows(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const medians_call *const call = context;
    const scio_pooling_ring *const ring = call->ring;
    const int64_t n = ring->n_cells, size = call->sizes[i_item / call->n_blocks];
    const int64_t first = (int64_t)(i_item % call->n_blocks) * RESTART;
    const int64_t last = first + RESTART < n ? first + RESTART : n;
    double *const out = &call->medians[(int64_t)(i_item / call->n_blocks) * n];
    double *const sums = &call->scratch[slot * 2 * (size_t)ring->n_genes];
    bracket near = {1, -1, 0}; /* nothing is in it */

    (void)err;
    memset(sums, 0, (size_t)ring->n_genes * sizeof *sums);
    for (int64_t i = 0; i < size; i++)
        put_in(ring, (first + i) % n, sums);
    for (int64_t w = first; w < last; w++) {
        if (w > first) {
            take_out(ring, w - 1, sums);
            put_in(ring, (w - 1 + size) % n, sums);
        }
        out[w] = find_median(sums, (size_t)ring->n_genes, &near, sums + ring->n_genes);
    }
    return SCIO_OK;
}

/* --- the arrays of the caller */

scio_status
scio_pooling_check_sizes(const int64_t *sizes, size_t n_sizes, int64_t n_cells, scio_error *err)
{
    for (size_t i = 0; i < n_sizes; i++) {
        if (sizes[i] < 1 || sizes[i] > n_cells)
            return scio_fail(err, SCIO_EINVAL, "sizes[%zu] is %lld, expected 1 to %lld, the cells",
                             i, (long long)sizes[i], (long long)n_cells);
    }
    return SCIO_OK;
}

static scio_status
check_ring(const scio_pooling_ring *ring, scio_error *err)
{
    if (ring->n_genes < 1)
        return scio_fail(err, SCIO_EINVAL, "n_genes is %lld, expected 1 or more",
                         (long long)ring->n_genes);
    for (int64_t i = 0; i < ring->n_cells; i++) {
        const int64_t start = ring->starts[i], count = ring->counts[i];

        if (start < 0 || count < 0 || start > ring->nnz || count > ring->nnz - start)
            return scio_fail(err, SCIO_ERANGE,
                             "cell %lld of the ring has %lld values from %lld on, there are %lld",
                             (long long)i, (long long)count, (long long)start,
                             (long long)ring->nnz);
        /* row by row: the values of other rows may be of other genes */
        SCIO_TRY(scio_indices_validate(&ring->genes[start], SCIO_I32, (size_t)count, ring->n_genes,
                                       start, err));
    }
    return SCIO_OK;
}

scio_status
scio_pooling_medians(const scio_pooling_ring *ring, const int64_t *sizes, size_t n_sizes,
                     size_t max_parallel, double *medians_out, const volatile int *cancel,
                     scio_error *err)
{
    medians_call call = {.ring = ring, .sizes = sizes, .medians = medians_out};
    size_t n_items, n_slots, n_scratch;
    scio_status status;

    SCIO_TRY(check_ring(ring, err));
    SCIO_TRY(scio_pooling_check_sizes(sizes, n_sizes, ring->n_cells, err));
    call.n_blocks = ((size_t)ring->n_cells + RESTART - 1) / RESTART;
    n_items = call.n_blocks * n_sizes;
    n_slots = scio_parallel_n_slots(NULL, max_parallel, n_items);
    if (!scio_mul_size(n_slots * 2, (size_t)ring->n_genes, &n_scratch))
        return scio_fail(err, SCIO_ENOMEM, "sums of %lld genes", (long long)ring->n_genes);
    SCIO_TRY(scio_mem_alloc(n_scratch, sizeof *call.scratch, &call.scratch, err));
    status = scio_parallel_for(NULL, n_slots, n_items, run_windows, &call, cancel, err);
    scio_mem_free(call.scratch);
    return status;
}
