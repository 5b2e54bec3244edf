/* Discrete Fourier transforms of any length, the same bits on every machine. */
#ifndef SCIO_PREPROCESS_FFT_H
#define SCIO_PREPROCESS_FFT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct scio_complex {
    double re, im;
} scio_complex;

/* e^(2 pi i k / n), n in [1, 2^60]; within 2 ulp of each part, by additions, products and quotients
 * only, so that no library's sine can change a bit. */
scio_complex scio_unit_root(uint64_t k, uint64_t n);

typedef struct scio_fft scio_fft; /* the tables of one length; shared by any number of threads */

/* n >= 1.  O(n log n), up to 13 n complex numbers of memory. */
SCIO_MUST_CHECK scio_status scio_fft_new(size_t n, scio_fft **out, scio_error *err);
void scio_fft_free(scio_fft *fft); /* NULL allowed */
/* Complex numbers of scratch that a transform needs; 0 for powers of two. */
size_t scio_fft_n_scratch(const scio_fft *fft);
/* In place: x[k] = sum over j of x[j] e^(-+2 pi i j k / n), with - and no factor forwards, with +
 * and 1/n backwards.  O(n log n); scratch[scio_fft_n_scratch] is one call's alone. */
void scio_fft_run(const scio_fft *fft, bool is_inverse, scio_complex *x, scio_complex *scratch);

#endif
