/* Means and variances: exact from integer sums, by pivot and Chan's formula from doubles.
 *
 * Sums of doubles are taken per block of SCIO_BLOCK_ROWS rows, in row order, about the first value
 * that was met, and blocks join in block order; so the bits depend on the data only, a constant
 * gene has variance exactly 0, and no variance is negative.
 * Source: T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37 (1983) 242. */
#ifndef SCIO_PREPROCESS_MOMENTS_H
#define SCIO_PREPROCESS_MOMENTS_H

#include <stddef.h>
#include <stdint.h>

enum { SCIO_BLOCK_ROWS = 4096 };

__extension__ typedef unsigned __int128 scio_u128;

/* The non-zero values of one gene in one block; all 0: none yet. */
typedef struct scio_moment {
    double pivot, d1, d2; /* first value p, sum of v - p, sum of (v - p)^2 */
    uint64_t k;           /* how many */
} scio_moment;

static inline void
scio_moment_add(scio_moment *moment, double value)
{
    double d;

    if (moment->k == 0)
        moment->pivot = value;
    d = value - moment->pivot;
    moment->d1 += d;
    moment->d2 += d * d;
    moment->k++;
}

/* What is known of a set of numbers: how many, their mean, the sum of squares about it. */
typedef struct scio_spread {
    double n, mean, m2;
} scio_spread;

/* Both sets together. */
static inline scio_spread
scio_spread_join(scio_spread a, scio_spread b)
{
    const double n = a.n + b.n, delta = b.mean - a.mean;

    if (a.n == 0)
        return b;
    if (b.n == 0)
        return a;
    return (scio_spread){n, a.mean + delta * (b.n / n),
                         a.m2 + b.m2 + delta * delta * (a.n * b.n / n)};
}

/* Joins the rows of a block to those before: for each of n_genes, n_before numbers with mean and m2
 * become n_before + n_rows of them.  Values that are not stored are zeros. */
void scio_moments_join(const scio_moment *block, size_t n_genes, uint64_t n_rows, uint64_t n_before,
                       double *mean, double *m2);

/* From n integers with sum s and sum of squares q: mean = s / n, m2 = (n q - s^2) / n,
 * variance = (n q - s^2) / (n (n - 1)), 0 for n = 1, all 0 for n = 0.  The numerator is exact while
 * n < 2^64, s < 2^96 and n q < 2^192, and is rounded once. */
void scio_exact_moments(uint64_t n_values, scio_u128 s, scio_u128 q, double *mean_out,
                        double *m2_out, double *variance_out);
/* The nearest double. */
double scio_u128_to_double(scio_u128 value);

#endif
