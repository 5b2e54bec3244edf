/* Least squares of the pooled equations by Fourier transforms.
 *
 * The windows of one size make a circulant matrix, which the transform turns into a diagonal: with
 * D_s[k] the sum of e^(2 pi i j k / n) over j < s, the transform of the medians of size s should be
 * D_s[k] F[k], F that of the factors.  So F[k] is the sum over sizes of conj(D_s[k]) B_s[k], plus
 * the weak equations' share, over the sum of |D_s[k]|^2 plus their weight.  Each size is
 * transformed on its own: adding the medians up before would bury small frequencies in rounding. */
#include "preprocess/pooling.h"

#include "base/mem.h"
#include "base/pool.h"
#include "preprocess/fft.h"

#define WEIGHT 1e-6 /* of the weak equations, which make the system regular */

typedef struct solve_call {
    const double *medians;
    const int64_t *sizes;
    size_t n;
    const scio_fft *fft;
    scio_complex *spectra; /* [n_sizes, n] */
    scio_complex *scratch; /* [n_slots, n_scratch] */
} solve_call;

/* D_s[k] = e^(pi i k (s - 1) / n) sin(pi k s / n) / sin(pi k / n); its first factor is left to the
 * caller. */
static double
box_height(size_t k, uint64_t size, size_t n)
{
    if (k == 0)
        return (double)size;
    return scio_unit_root(k * size % (2 * n), 2 * n).im / scio_unit_root(k, 2 * n).im;
}

/* The share of one size: spectrum[k] = conj(D_s[k]) B_s[k]. */
static scio_status
transform_size(void *context, size_t i_size, size_t slot, scio_error *err)
{
    const solve_call *const call = context;
    const size_t n = call->n;
    const uint64_t size = (uint64_t)call->sizes[i_size];
    const double *const medians = &call->medians[i_size * n];
    scio_complex *const spectrum = &call->spectra[i_size * n];

    (void)err;
    for (size_t w = 0; w < n; w++)
        spectrum[w] = (scio_complex){medians[w], 0};
    scio_fft_run(call->fft, false, spectrum, &call->scratch[slot * scio_fft_n_scratch(call->fft)]);
    for (size_t k = 0; k < n; k++) {
        const double height = box_height(k, size, n);
        const scio_complex turn = scio_unit_root(k * (size - 1) % (2 * n), 2 * n);
        const scio_complex b = spectrum[k];

        spectrum[k].re = height * (turn.re * b.re + turn.im * b.im);
        spectrum[k].im = height * (turn.re * b.im - turn.im * b.re);
    }
    return SCIO_OK;
}

/* Into the first spectrum: the transform of the factors. */
static void
divide(const solve_call *call, size_t n_sizes, double weak)
{
    const size_t n = call->n;

    for (size_t k = 0; k < n; k++) {
        /* a constant has one frequency */
        scio_complex upper = {k == 0 ? WEIGHT * weak * (double)n : 0.0, 0};
        double lower = WEIGHT;

        for (size_t i = 0; i < n_sizes; i++) {
            const double height = box_height(k, (uint64_t)call->sizes[i], n);

            upper.re += call->spectra[i * n + k].re;
            upper.im += call->spectra[i * n + k].im;
            lower += height * height;
        }
        call->spectra[k] = (scio_complex){upper.re / lower, upper.im / lower};
    }
}

static scio_status
run_solve(solve_call *call, size_t n_sizes, double weak, size_t max_parallel, double *factors_out,
          const volatile int *cancel, scio_error *err)
{
    const size_t n_slots = scio_parallel_n_slots(NULL, max_parallel, n_sizes);
    size_t n_spectra, n_scratch;
    scio_status status;

    if (!scio_mul_size(n_sizes, call->n, &n_spectra) ||
        !scio_mul_size(n_slots, scio_fft_n_scratch(call->fft), &n_scratch))
        return scio_fail(err, SCIO_ENOMEM, "%zu transforms of %zu values", n_sizes, call->n);
    status = scio_mem_alloc(n_spectra, sizeof *call->spectra, &call->spectra, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_mem_alloc(n_scratch, sizeof *call->scratch, &call->scratch, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_parallel_for(NULL, n_slots, n_sizes, transform_size, call, cancel, err);
    if (status != SCIO_OK)
        goto done;
    divide(call, n_sizes, weak);
    scio_fft_run(call->fft, true, call->spectra, call->scratch);
    for (size_t i = 0; i < call->n; i++)
        factors_out[i] = call->spectra[i].re;
done:
    scio_mem_free(call->spectra);
    scio_mem_free(call->scratch);
    return status;
}

scio_status
scio_pooling_solve(const double *medians, const int64_t *sizes, size_t n_sizes, int64_t n_cells,
                   double weak, size_t max_parallel, double *factors_out,
                   const volatile int *cancel, scio_error *err)
{
    solve_call call = {.medians = medians, .sizes = sizes, .n = (size_t)n_cells};
    scio_fft *fft = NULL;
    scio_status status;

    SCIO_TRY(scio_pooling_check_sizes(sizes, n_sizes, n_cells, err));
    if (n_sizes == 0 || n_cells < 1)
        return scio_fail(err, SCIO_EINVAL, "%zu sizes for %lld cells, expected one of each or more",
                         n_sizes, (long long)n_cells);
    SCIO_TRY(scio_fft_new(call.n, &fft, err));
    call.fft = fft;
    status = run_solve(&call, n_sizes, weak, max_parallel, factors_out, cancel, err);
    scio_fft_free(fft);
    return status;
}
