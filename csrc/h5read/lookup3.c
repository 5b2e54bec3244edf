/* Checksum of HDF5 metadata: Bob Jenkins' lookup3 "hashlittle" (burtleburtle.net/bob/c/lookup3.c,
 * in the public domain), initial value 0, bytes taken little-endian on every machine.
 *
 * Twelve bytes at a time are added to three words and mixed; the last 1 to 12 bytes, zero-extended,
 * go through a final mix that lets every input bit reach every bit of the result. */
#include "h5read/checksum.h"
#include "h5read/cursor.h"

#include <inttypes.h>
#include <string.h>

#define BLOCK_NBYTES 12

/* clang sets this in builds for libFuzzer, where a mutation that must also hit a checksum would
 * hardly ever get past it. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define IS_CHECKED false
#else
#define IS_CHECKED true
#endif

static uint32_t
rotate(uint32_t x, unsigned n_bits)
{
    return (x << n_bits) | (x >> (32 - n_bits));
}

static uint32_t
take_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static void
add_block(uint32_t state[3], const uint8_t *bytes)
{
    state[0] += take_u32(bytes);
    state[1] += take_u32(bytes + 4);
    state[2] += take_u32(bytes + 8);
}

static void
mix(uint32_t state[3])
{
    static const unsigned turns[6] = {4, 6, 8, 16, 19, 4};

    for (unsigned i = 0; i < 6; i++) {
        uint32_t *const x = &state[i % 3];
        uint32_t *const y = &state[(i + 1) % 3];
        uint32_t *const z = &state[(i + 2) % 3];

        *x -= *z;
        *x ^= rotate(*z, turns[i]);
        *z += *y;
    }
}

static void
mix_last(uint32_t state[3])
{
    static const unsigned turns[7] = {14, 11, 25, 16, 4, 14, 24};

    for (unsigned i = 0; i < 7; i++) { /* c from b, a from c, b from a, and again */
        uint32_t *const to = &state[(i + 2) % 3];
        const uint32_t from = state[(i + 1) % 3];

        *to ^= from;
        *to -= rotate(from, turns[i]);
    }
}

uint32_t
scio_h5_lookup3(const void *data, size_t nbytes)
{
    const uint8_t *bytes = data;
    const uint32_t start = 0xdeadbeefu + (uint32_t)nbytes;
    uint32_t state[3] = {start, start, start};
    uint8_t tail[BLOCK_NBYTES] = {0};

    if (nbytes == 0)
        return start;
    for (; nbytes > BLOCK_NBYTES; nbytes -= BLOCK_NBYTES, bytes += BLOCK_NBYTES) {
        add_block(state, bytes);
        mix(state);
    }
    memcpy(tail, bytes, nbytes);
    add_block(state, tail);
    mix_last(state);
    return state[2];
}

scio_status
scio_h5_check_sum(const void *data, size_t nbytes, uint64_t position, const char *what,
                  scio_error *err)
{
    uint32_t stored, computed;

    if (nbytes < 4)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": %zu bytes leave no room for a checksum", what,
                         position, nbytes);
    stored = take_u32((const uint8_t *)data + nbytes - 4);
    computed = scio_h5_lookup3(data, nbytes - 4);
    return scio_h5_compare_sums(stored, computed, nbytes - 4, position, what, err);
}

scio_status
scio_h5_compare_sums(uint32_t stored, uint32_t computed, size_t nbytes, uint64_t position,
                     const char *what, scio_error *err)
{
    if (!IS_CHECKED || stored == computed)
        return SCIO_OK;
    return scio_fail(err, SCIO_ECORRUPT,
                     "%s at byte %" PRIu64 ": checksum %08" PRIx32
                     ", its %zu bytes give %08" PRIx32,
                     what, position, stored, nbytes, computed);
}
