/* A power of two is transformed by radix 2; any other length n by Bluestein's identity
 * jk = (j^2 + k^2 - (k - j)^2) / 2, which makes of it a convolution with the chirp e^(pi i j^2 /
 * n), done by transforms of the next power of two from 2n - 1 on. Source: L. Bluestein, IEEE Trans.
 * Audio Electroacoustics 18 (1970) 451. */
#include "preprocess/fft.h"

#include "base/mem.h"

struct scio_fft {
    size_t n;             /* length asked for */
    size_t n_two;         /* the power of two that is transformed */
    scio_complex *roots;  /* [n_two / 2] e^(-2 pi i k / n_two) */
    scio_complex *chirp;  /* [n] e^(-pi i j^2 / n); NULL when n is n_two */
    scio_complex *filter; /* [n_two] transform of the other chirp over n_two; NULL likewise */
};

/* --- roots of unity */

/* sin x / x - 1 and cos x - 1 by x^2, x in [0, pi/4]: Taylor's series as far as a double shows. */
static double
sine_rest(double z)
{
    static const double inverse_factorials[] = {-1.0 / 6,
                                                1.0 / 120,
                                                -1.0 / 5040,
                                                1.0 / 362880,
                                                -1.0 / 39916800,
                                                1.0 / 6227020800.0,
                                                -1.0 / 1307674368000.0,
                                                1.0 / 355687428096000.0};
    double sum = 0;

    for (size_t i = sizeof(inverse_factorials) / sizeof(inverse_factorials[0]); i-- > 0;)
        sum = (sum + inverse_factorials[i]) * z;
    return sum;
}

static double
cosine_rest(double z)
{
    static const double inverse_factorials[] = {
        -1.0 / 2,       1.0 / 24,          -1.0 / 720,           1.0 / 40320,
        -1.0 / 3628800, 1.0 / 479001600.0, -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    double sum = 0;

    for (size_t i = sizeof(inverse_factorials) / sizeof(inverse_factorials[0]); i-- > 0;)
        sum = (sum + inverse_factorials[i]) * z;
    return sum;
}

scio_complex
scio_unit_root(uint64_t k, uint64_t n)
{
    const double quarter_pi = 0x1.921fb54442d18p-1;
    const uint64_t eighths = 8 * (k % n);
    const uint64_t octant = eighths / n, rest = eighths % n;
    /* the angle is octant + rest / n eighths of the circle; odd octants are run through backwards
     */
    const uint64_t part = octant % 2 == 0 ? rest : n - rest;
    const double x = quarter_pi * ((double)part / (double)n);
    const double z = x * x;
    const double sine = x + x * sine_rest(z), cosine = 1.0 + cosine_rest(z);
    const bool is_swapped = (octant + 1) / 2 % 2 == 1;
    scio_complex root = {is_swapped ? sine : cosine, is_swapped ? cosine : sine};

    if (octant >= 2 && octant < 6)
        root.re = -root.re;
    if (octant >= 4)
        root.im = -root.im;
    return root;
}

/* --- transforms */

static inline scio_complex
times(scio_complex a, scio_complex b)
{
    return (scio_complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

static inline scio_complex
conjugate(scio_complex a)
{
    return (scio_complex){a.re, -a.im};
}

static void
reverse_bits(scio_complex *x, size_t n)
{
    for (size_t i = 1, j = 0; i < n; i++) {
        size_t bit = n >> 1;

        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            const scio_complex kept = x[i];

            x[i] = x[j];
            x[j] = kept;
        }
    }
}

/* Forwards, n a power of two. */
static void
run_power_of_two(const scio_complex *roots, scio_complex *x, size_t n)
{
    reverse_bits(x, n);
    for (size_t half = 1; half < n; half *= 2) {
        const size_t step = n / (2 * half);

        for (size_t start = 0; start < n; start += 2 * half) {
            for (size_t i = 0; i < half; i++) {
                scio_complex *const low = &x[start + i], *const high = low + half;
                const scio_complex turned = times(*high, roots[i * step]), kept = *low;

                *low = (scio_complex){kept.re + turned.re, kept.im + turned.im};
                *high = (scio_complex){kept.re - turned.re, kept.im - turned.im};
            }
        }
    }
}

static void
run_chirp(const scio_fft *fft, scio_complex *x, scio_complex *work)
{
    for (size_t i = 0; i < fft->n; i++)
        work[i] = times(x[i], fft->chirp[i]);
    for (size_t i = fft->n; i < fft->n_two; i++)
        work[i] = (scio_complex){0, 0};
    run_power_of_two(fft->roots, work, fft->n_two);
    /* conjugated before and after, the second transform runs backwards */
    for (size_t i = 0; i < fft->n_two; i++)
        work[i] = conjugate(times(work[i], fft->filter[i]));
    run_power_of_two(fft->roots, work, fft->n_two);
    for (size_t i = 0; i < fft->n; i++)
        x[i] = times(conjugate(work[i]), fft->chirp[i]);
}

void
scio_fft_run(const scio_fft *fft, bool is_inverse, scio_complex *x, scio_complex *scratch)
{
    const double n = (double)fft->n;

    for (size_t i = 0; is_inverse && i < fft->n; i++)
        x[i] = conjugate(x[i]);
    if (fft->chirp == NULL)
        run_power_of_two(fft->roots, x, fft->n);
    else
        run_chirp(fft, x, scratch);
    for (size_t i = 0; is_inverse && i < fft->n; i++)
        x[i] = (scio_complex){x[i].re / n, -x[i].im / n};
}

size_t
scio_fft_n_scratch(const scio_fft *fft)
{
    return fft->chirp == NULL ? 0 : fft->n_two;
}

/* --- tables */

static scio_status
fill_chirp(scio_fft *fft, scio_error *err)
{
    const uint64_t period = 2 * (uint64_t)fft->n; /* of e^(pi i m / n) in m */
    const double n_two = (double)fft->n_two;

    SCIO_TRY(scio_mem_alloc(fft->n, sizeof *fft->chirp, &fft->chirp, err));
    SCIO_TRY(scio_mem_zalloc(fft->n_two, sizeof *fft->filter, &fft->filter, err));
    for (uint64_t j = 0, square = 0; j < fft->n; square = (square + 2 * j + 1) % period, j++) {
        const scio_complex root = scio_unit_root(square, period);

        fft->chirp[j] = conjugate(root);
        fft->filter[j] = (scio_complex){root.re / n_two, root.im / n_two};
        if (j > 0)
            fft->filter[fft->n_two - j] = fft->filter[j];
    }
    run_power_of_two(fft->roots, fft->filter, fft->n_two);
    return SCIO_OK;
}

static scio_status
fill_tables(scio_fft *fft, scio_error *err)
{
    bool is_power = (fft->n & (fft->n - 1)) == 0;

    if (fft->n > (size_t)1 << 40)
        return scio_fail(err, SCIO_ENOMEM, "a Fourier transform of %zu values", fft->n);
    fft->n_two = 1;
    while (fft->n_two < (is_power ? fft->n : 2 * fft->n - 1))
        fft->n_two *= 2;
    SCIO_TRY(scio_mem_alloc(fft->n_two / 2, sizeof *fft->roots, &fft->roots, err));
    for (size_t k = 0; k < fft->n_two / 2; k++)
        fft->roots[k] = conjugate(scio_unit_root(k, fft->n_two));
    return is_power ? SCIO_OK : fill_chirp(fft, err);
}

scio_status
scio_fft_new(size_t n, scio_fft **out, scio_error *err)
{
    scio_fft *fft = NULL;
    scio_status status;

    *out = NULL;
    SCIO_BUG_IF(n == 0, err);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *fft, &fft, err));
    fft->n = n;
    status = fill_tables(fft, err);
    if (status == SCIO_OK)
        *out = fft;
    else
        scio_fft_free(fft);
    return status;
}

void
scio_fft_free(scio_fft *fft)
{
    if (fft == NULL)
        return;
    scio_mem_free(fft->roots);
    scio_mem_free(fft->chirp);
    scio_mem_free(fft->filter);
    scio_mem_free(fft);
}
