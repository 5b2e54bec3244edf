/* Inflates every chunk of a file once, in n threads, from memory into one reused buffer per thread:
 * the decode limit of the file.  Compiled by bench_decode_limit.py. */
#include <libdeflate.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

struct work {
    const uint8_t *stored;
    const int64_t *offsets, *decoded;
    long n_chunks, first, step;
    int failed;
};

static void *
run(void *argument)
{
    struct work *w = argument;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    int64_t largest = 1;
    for (long i = 0; i < w->n_chunks; i++)
        if (w->decoded[i] > largest)
            largest = w->decoded[i];
    void *out = aligned_alloc(64, ((size_t)largest + 63) / 64 * 64);
    for (long i = w->first; i < w->n_chunks; i += w->step) {
        size_t n = 0;
        const size_t stored = (size_t)(w->offsets[i + 1] - w->offsets[i]);
        if (libdeflate_zlib_decompress(d, w->stored + w->offsets[i], stored, out,
                                       (size_t)w->decoded[i], &n) != LIBDEFLATE_SUCCESS)
            w->failed = 1;
    }
    free(out);
    libdeflate_free_decompressor(d);
    return NULL;
}

int
decode_all(const uint8_t *stored, const int64_t *offsets, const int64_t *decoded, long n_chunks,
           int n_threads)
{
    pthread_t threads[64];
    struct work works[64];
    int failed = 0;
    if (n_threads < 1 || n_threads > 64)
        return 2;
    for (int t = 0; t < n_threads; t++) {
        works[t] = (struct work){stored, offsets, decoded, n_chunks, t, n_threads, 0};
        if (pthread_create(&threads[t], NULL, run, &works[t]) != 0)
            return 3;
    }
    for (int t = 0; t < n_threads; t++) {
        pthread_join(threads[t], NULL);
        failed |= works[t].failed;
    }
    return failed;
}
