/* Transforms against the sum that defines them, in long double. */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "preprocess/fft.h"

#include <math.h>
#include <stdint.h>

static double
random_value(uint64_t i)
{
    return (double)(scio_rng_u64(5, 1, i) >> 11) * 0x1p-53 - 0.5;
}

static void
fill_random(scio_complex *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (scio_complex){random_value(2 * i), random_value(2 * i + 1)};
}

/* The largest error of out = transform of x, over the norm of x. */
static double
error_of(const scio_complex *x, const scio_complex *out, size_t n, bool is_inverse)
{
    const long double pi = 3.14159265358979323846264338327950288L;
    long double worst = 0, norm = 0;

    for (size_t k = 0; k < n; k++) {
        long double re = 0, im = 0;

        for (size_t j = 0; j < n; j++) {
            const long double angle = 2 * pi * (long double)(j * k % n) / (long double)n;
            const long double c = cosl(angle), s = is_inverse ? sinl(angle) : -sinl(angle);

            re += (long double)x[j].re * c - (long double)x[j].im * s;
            im += (long double)x[j].re * s + (long double)x[j].im * c;
        }
        if (is_inverse) {
            re /= (long double)n;
            im /= (long double)n;
        }
        worst = fmaxl(
            worst, fmaxl(fabsl((long double)out[k].re - re), fabsl((long double)out[k].im - im)));
        norm += (long double)x[k].re * (long double)x[k].re +
                (long double)x[k].im * (long double)x[k].im;
    }
    return (double)(worst / sqrtl(norm));
}

static void
check_length(size_t n)
{
    static scio_complex x[2048], out[2048], scratch[4096];
    scio_fft *fft = NULL;
    double forwards, backwards;

    CHECK(scio_fft_new(n, &fft, NULL) == SCIO_OK);
    if (fft == NULL)
        return;
    CHECK(scio_fft_n_scratch(fft) <= 4096);
    CHECK((scio_fft_n_scratch(fft) == 0) == ((n & (n - 1)) == 0));
    fill_random(x, n);
    memcpy(out, x, n * sizeof *x);
    scio_fft_run(fft, false, out, scratch);
    forwards = error_of(x, out, n, false);
    memcpy(out, x, n * sizeof *x);
    scio_fft_run(fft, true, out, scratch);
    backwards = error_of(x, out, n, true);
    /* about a rounding for each of the up to 2 * 12 stages */
    if (!(forwards < 3e-15) || !(backwards < 3e-15))
        printf("n = %zu: errors %g, %g\n", n, forwards, backwards);
    CHECK(forwards < 3e-15 && backwards < 3e-15);
    scio_fft_free(fft);
}

TEST(a_transform_of_any_length_is_the_sum_that_defines_it)
{
    const size_t longer[] = {127, 128, 129, 255, 256, 300, 509, 512, 600};

    for (size_t n = 1; n <= 70; n++)
        check_length(n);
    for (size_t i = 0; i < sizeof(longer) / sizeof(longer[0]); i++)
        check_length(longer[i]);
}

TEST(roots_of_unity_are_right_to_two_ulp)
{
    const long double pi = 3.14159265358979323846264338327950288L;
    const uint64_t lengths[] = {
        1, 2, 3, 4, 5, 7, 8, 12, 100, 101, 8192, 1000003, (uint64_t)1 << 40};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const uint64_t n = lengths[i];

        for (uint64_t j = 0; j < 1500; j++) {
            const uint64_t k = n < 1500 ? j : scio_rng_below(1, i, j, n);
            const long double angle = 2 * pi * ((long double)(k % n) / (long double)n);
            const scio_complex root = scio_unit_root(k, n);

            /* of a part near 0 the reference is off by pi's own rounding */
            CHECK(fabsl((long double)root.re - cosl(angle)) <=
                  2 * 0x1p-52L * fabsl(cosl(angle)) + 1e-18L);
            CHECK(fabsl((long double)root.im - sinl(angle)) <=
                  2 * 0x1p-52L * fabsl(sinl(angle)) + 1e-18L);
        }
    }
}

TEST(quarters_of_the_circle_are_exact)
{
    for (uint64_t n = 4; n < 4000; n += 4) {
        const scio_complex quarter = scio_unit_root(n / 4, n), half = scio_unit_root(n / 2, n);

        CHECK(quarter.re == 0 && quarter.im == 1 && half.re == -1 && half.im == 0);
        CHECK(scio_unit_root(3 * n / 4, n).im == -1 && scio_unit_root(n, n).re == 1);
    }
}

TEST(there_and_back_again)
{
    static scio_complex x[1999], out[1999], scratch[4096];
    scio_fft *fft = NULL;
    double worst = 0;

    CHECK(scio_fft_new(1999, &fft, NULL) == SCIO_OK);
    fill_random(x, 1999);
    memcpy(out, x, sizeof x);
    scio_fft_run(fft, false, out, scratch);
    scio_fft_run(fft, true, out, scratch);
    for (size_t i = 0; i < 1999; i++)
        worst = fmax(worst, fmax(fabs(out[i].re - x[i].re), fabs(out[i].im - x[i].im)));
    CHECK(worst < 1e-14);
    scio_fft_free(fft);
}

/* Another compiler, CPU or library must not change one bit of this. */
TEST(the_bits_of_a_transform_are_known)
{
    static scio_complex x[101], scratch[256];
    scio_fft *fft = NULL;
    uint64_t hash = 14695981039346656037U;

    CHECK(scio_fft_new(101, &fft, NULL) == SCIO_OK);
    fill_random(x, 101);
    scio_fft_run(fft, false, x, scratch);
    for (size_t i = 0; i < 101; i++) {
        uint64_t bits[2];

        memcpy(bits, &x[i], sizeof bits);
        hash = (hash ^ bits[0]) * 1099511628211U;
        hash = (hash ^ bits[1]) * 1099511628211U;
    }
    if (hash != UINT64_C(0xf047b19e4f0e6912))
        printf("hash 0x%llx\n", (unsigned long long)hash);
    CHECK(hash == UINT64_C(0xf047b19e4f0e6912));
    scio_fft_free(fft);
}

TEST(a_transform_without_memory_is_an_error)
{
    size_t k = 0;
    scio_status status;

    do {
        scio_fft *fft = NULL;
        scio_error err = SCIO_ERROR_INIT;

        scio_mem_fail_at(k++);
        status = scio_fft_new(100, &fft, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK ? fft != NULL : (status == SCIO_ENOMEM && fft == NULL));
        scio_fft_free(fft);
    } while (status != SCIO_OK);
    CHECK(k == 5); /* the struct and three tables */
}

TEST(a_length_that_no_memory_holds_is_refused)
{
    scio_fft *fft = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_fft_new(SIZE_MAX / 2, &fft, &err) == SCIO_ENOMEM && fft == NULL);
    CHECK_STR(err.message, "a Fourier transform of 9223372036854775807 values");
}
