/* Quality control of one row; see qc.h. */
#include "preprocess/qc.h"

#include <stdlib.h>
#include <string.h>

enum {
    N_BINS = 256, /* most counts of a cell are smaller */
    MOST_LARGE = 48
};

/* The sums asked for, filled as values come in descending order. */
typedef struct top_sums {
    const int64_t *tops;
    size_t n_tops, i_top;
    int64_t n_taken;
    double sum;
    double *out;
} top_sums;

/* n times the next smaller value. */
static void
take(top_sums *t, double value, int64_t n)
{
    while (t->i_top < t->n_tops && t->n_taken + n >= t->tops[t->i_top]) {
        t->out[t->i_top] = t->sum + (double)(t->tops[t->i_top] - t->n_taken) * value;
        t->i_top++;
    }
    t->n_taken += n;
    t->sum += (double)n * value;
}

/* The values that are left are zeros. */
static void
finish(top_sums *t)
{
    while (t->i_top < t->n_tops)
        t->out[t->i_top++] = t->sum;
}

static int
compare_descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x < y) - (x > y);
}

/* Counts how often each small value is there; false when too many are large. */
static bool
take_by_counting(const double *values, size_t n_items, double *large, top_sums *t)
{
    uint32_t counts[N_BINS];
    size_t n_large = 0;

    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < n_items; i++) {
        if (values[i] < N_BINS) {
            counts[(int)values[i]]++;
        } else {
            if (n_large == MOST_LARGE)
                return false;
            large[n_large++] = values[i];
        }
    }
    qsort(large, n_large, sizeof *large, compare_descending);
    for (size_t i = 0; i < n_large; i++)
        take(t, large[i], 1);
    for (size_t v = N_BINS - 1; v > 0 && t->i_top < t->n_tops; v--)
        take(t, (double)v, counts[v]);
    finish(t);
    return true;
}

/* One round: splits values[0, n) by a pivot so that those before the returned position are not
 * smaller and those from it on not larger; the position is in [1, n - 1]. */
static size_t
split(double *values, size_t n)
{
    const double a = values[0], b = values[n / 2], c = values[n - 1];
    const double pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
    size_t i = 0, j = n - 1;

    for (;;) {
        while (values[i] > pivot)
            i++;
        while (values[j] < pivot)
            j--;
        if (i >= j)
            break;
        const double swapped = values[i];
        values[i++] = values[j];
        values[j--] = swapped;
    }
    /* all equal to the pivot on one side would not get smaller */
    return i == 0 ? 1 : i >= n ? n - 1 : i;
}

/* Puts the k largest of values[n] first. */
static void
select_largest(double *values, size_t n, size_t k)
{
    size_t n_rounds = 64;

    while (k > 0 && k < n && n > 1) {
        size_t at;

        if (n_rounds-- == 0) { /* bad luck with the pivots */
            qsort(values, n, sizeof *values, compare_descending);
            return;
        }
        at = split(values, n);
        if (k <= at) {
            n = at;
        } else {
            values += at;
            n -= at;
            k -= at;
        }
    }
}

/* Positive values, of which the largest tops are selected from the largest group down. */
static void
take_by_selection(double *values, size_t n_items, top_sums *t)
{
    size_t first = 0, n = n_items;

    for (size_t j = t->n_tops; j-- > 0;) {
        const size_t k = (size_t)t->tops[j];

        if (k < n) {
            select_largest(values, n, k);
            n = k;
        }
    }
    for (size_t j = 0; j < t->n_tops; j++) {
        const size_t k = (size_t)t->tops[j] < n_items ? (size_t)t->tops[j] : n_items;

        for (; first < k; first++)
            t->sum += values[first];
        t->out[j] = t->sum;
    }
}

void
scio_row_top_sums(const double *values, size_t n_items, size_t n_genes, bool is_exact,
                  const int64_t *tops, size_t n_tops, double *scratch, double *sums_out)
{
    top_sums t = {tops, n_tops, 0, 0, 0, sums_out};
    size_t n_positive = 0, n_negative = 0;

    if (n_tops == 0 || (is_exact && take_by_counting(values, n_items, scratch, &t)))
        return;
    for (size_t i = 0; i < n_items; i++) {
        n_negative += values[i] < 0;
        if (values[i] > 0)
            scratch[n_positive++] = values[i];
    }
    if (n_negative == 0 || (size_t)tops[n_tops - 1] <= n_genes - n_negative) {
        take_by_selection(scratch, n_positive, &t);
        return;
    }
    /* so many that negative values are among them: rare, so sorted */
    n_positive = 0;
    for (size_t i = 0; i < n_items; i++) {
        if (values[i] != 0)
            scratch[n_positive++] = values[i];
    }
    qsort(scratch, n_positive, sizeof *scratch, compare_descending);
    for (size_t i = 0; i < n_positive; i++) {
        if (scratch[i] < 0 && (i == 0 || scratch[i - 1] > 0))
            take(&t, 0, (int64_t)(n_genes - n_positive));
        take(&t, scratch[i], 1);
    }
    finish(&t);
}

void
scio_row_flag_sums(const double *values, const int32_t *genes, size_t n_items,
                   const uint64_t *flags, size_t n_flags, double *sums_out)
{
    memset(sums_out, 0, n_flags * sizeof *sums_out);
    for (size_t i = 0; i < n_items; i++) {
        uint64_t left = flags[genes[i]];

        for (; left != 0; left &= left - 1)
            sums_out[__builtin_ctzll(left)] += values[i];
    }
}
