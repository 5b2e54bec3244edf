/* Buffers of the codec fuzzers.  The libraries below us are not instrumented, so the sanitizer's
 * red zones do not see their writes: buffers end at a page that faults and begin behind a canary.
 */
#ifndef SCIO_TESTS_FUZZ_FUZZ_GUARD_H
#define SCIO_TESTS_FUZZ_FUZZ_GUARD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD_AREA_NBYTES ((size_t)1 << 20)
#define GUARD_PAGE_NBYTES ((size_t)1 << 16) /* a multiple of the page of any CPU */
#define CANARY_NBYTES ((size_t)64)
#define CANARY 0xc5

typedef struct guard_area {
    uint8_t *end; /* the byte here faults */
} guard_area;

static inline guard_area
guard_area_new(void)
{
    guard_area area;
    uint8_t *base = mmap(NULL, GUARD_AREA_NBYTES + GUARD_PAGE_NBYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (base == MAP_FAILED || mprotect(base + GUARD_AREA_NBYTES, GUARD_PAGE_NBYTES, PROT_NONE) != 0)
        abort();
    area.end = base + GUARD_AREA_NBYTES;
    return area;
}

/* The last nbytes of the area (at most its size less the canary), filled with `fill`. */
static inline uint8_t *
guard_buffer(const guard_area *area, size_t nbytes, int fill)
{
    uint8_t *buffer = area->end - nbytes;

    memset(buffer - CANARY_NBYTES, CANARY, CANARY_NBYTES);
    memset(buffer, fill, nbytes);
    return buffer;
}

static inline void
guard_check(const uint8_t *buffer)
{
    for (size_t i = 1; i <= CANARY_NBYTES; i++)
        if (buffer[-(ptrdiff_t)i] != CANARY)
            abort();
}

/* A cursor over the fuzzer's bytes: parameters are bought from the front, the rest is payload. */
typedef struct fuzz_input {
    const uint8_t *data;
    size_t nbytes;
} fuzz_input;

static inline unsigned
fuzz_take(fuzz_input *input, size_t n_bytes)
{
    unsigned value = 0;

    while (n_bytes-- != 0 && input->nbytes != 0) {
        value = value << 8 | *input->data++;
        input->nbytes--;
    }
    return value;
}

#endif
