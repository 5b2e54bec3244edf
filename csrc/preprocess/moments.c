/* Means and variances; see moments.h. */
#include "preprocess/moments.h"

#include <math.h>

void
scio_moments_join(const scio_moment *block, size_t n_genes, uint64_t n_rows, uint64_t n_before,
                  double *mean, double *m2)
{
    for (size_t g = 0; g < n_genes; g++) {
        const scio_moment *const b = &block[g];
        const double k = (double)b->k;
        scio_spread stored = {k, 0, 0}, joined;

        if (b->k == 0 && mean[g] == 0 && m2[g] == 0)
            continue; /* zeros and zeros */
        if (b->k > 0) {
            const double shift = b->d1 / k, m2_stored = b->d2 - b->d1 * shift;

            stored.mean = b->pivot + shift;
            stored.m2 = m2_stored > 0 ? m2_stored : 0;
        }
        joined = scio_spread_join(stored, (scio_spread){(double)(n_rows - b->k), 0, 0});
        joined = scio_spread_join((scio_spread){(double)n_before, mean[g], m2[g]}, joined);
        mean[g] = joined.mean;
        m2[g] = joined.m2;
    }
}

/* --- integers of 192 bits, least limb first --- */

typedef struct u192 {
    uint64_t limb[3];
} u192;

static u192
multiply(uint64_t a, scio_u128 b)
{
    const scio_u128 low = (scio_u128)a * (uint64_t)b;
    const scio_u128 high = (scio_u128)a * (uint64_t)(b >> 64) + (uint64_t)(low >> 64);

    return (u192){{(uint64_t)low, (uint64_t)high, (uint64_t)(high >> 64)}};
}

static u192
square(scio_u128 a)
{
    const uint64_t low = (uint64_t)a, high = (uint64_t)(a >> 64);
    const scio_u128 ll = (scio_u128)low * low, lh = (scio_u128)low * high;
    const scio_u128 middle = (scio_u128)(uint64_t)(ll >> 64) + (uint64_t)lh + (uint64_t)lh;
    const uint64_t top =
        (uint64_t)(middle >> 64) + 2 * (uint64_t)(lh >> 64) + high * high; /* high < 2^32 */

    return (u192){{(uint64_t)ll, (uint64_t)middle, top}};
}

/* a >= b */
static u192
subtract(u192 a, u192 b)
{
    u192 out;
    uint64_t borrow = 0;

    for (size_t i = 0; i < 3; i++) {
        const scio_u128 d = (scio_u128)a.limb[i] - b.limb[i] - borrow;

        out.limb[i] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) != 0;
    }
    return out;
}

/* The upper 64 bits that count, the lowest of them set when any bit below is: rounding those to 53
 * is rounding the whole. */
static double
u192_to_double(u192 a)
{
    int top = 2, shift;
    uint64_t head;
    uint64_t rest = 0;

    while (top > 0 && a.limb[top] == 0)
        top--;
    head = a.limb[top];
    if (head == 0 || top == 0)
        return (double)head;
    shift = __builtin_clzll(head);
    if (shift > 0) {
        head = head << shift | a.limb[top - 1] >> (64 - shift);
        rest = a.limb[top - 1] << shift;
    } else {
        rest = a.limb[top - 1];
    }
    if (top == 2)
        rest |= a.limb[0];
    return ldexp((double)(head | (rest != 0)), 64 * top - shift);
}

double
scio_u128_to_double(scio_u128 value)
{
    return u192_to_double((u192){{(uint64_t)value, (uint64_t)(value >> 64), 0}});
}

void
scio_exact_moments(uint64_t n_values, scio_u128 s, scio_u128 q, double *mean_out, double *m2_out,
                   double *variance_out)
{
    const double n = (double)n_values;
    double numerator;

    *mean_out = *m2_out = *variance_out = 0;
    if (n_values == 0)
        return;
    *mean_out = scio_u128_to_double(s) / n;
    if (s >> 32 == 0 && q >> 62 == 0 && n_values >> 32 == 0)
        numerator = scio_u128_to_double((scio_u128)n_values * q - s * s);
    else
        numerator = u192_to_double(subtract(multiply(n_values, q), square(s)));
    *m2_out = numerator / n;
    if (n_values > 1)
        *variance_out = numerator / scio_u128_to_double((scio_u128)n_values * (n_values - 1));
}
