/* Fletcher's checksum as HDF5 computes and stores it: sums modulo 65535 over big-endian 16-bit
 * words, stored as a little-endian u32 behind the data. */
#include "codec/decoder.h"

/* sum2 grows by at most 65535 * k in word k, so n words from sums below 2^16 reach at most
 * 65535 * n * (n + 1) / 2 + 65535 * (n + 1); for n = 2^18 that is below 2^52, far from overflow. */
#define BLOCK_N_WORDS ((size_t)1 << 18)
#define SUM_NBYTES 4

/* Subtracts multiples of 65535.  A sum other than 0 stays other than 0 (65535 stands for 0), which
 * is why the block length does not show in the result. */
static uint64_t
fold(uint64_t sum)
{
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

uint32_t
scio_fletcher32(const void *data, size_t nbytes)
{
    const uint8_t *p = data;
    size_t n_words = nbytes / 2;
    uint64_t sum1 = 0, sum2 = 0;

    while (n_words != 0) {
        const size_t n_block = n_words < BLOCK_N_WORDS ? n_words : BLOCK_N_WORDS;

        for (size_t i = 0; i < n_block; i++) {
            sum1 += (uint64_t)((unsigned)p[2 * i] << 8 | p[2 * i + 1]);
            sum2 += sum1;
        }
        sum1 = fold(sum1);
        sum2 = fold(sum2);
        p += 2 * n_block;
        n_words -= n_block;
    }
    if (nbytes % 2 != 0) { /* the last byte is the high one of a word */
        sum1 = fold(sum1 + ((uint64_t)p[0] << 8));
        sum2 = fold(sum2 + sum1);
    }
    return (uint32_t)(sum2 << 16 | sum1);
}

/* HDF5 before 1.6.3 stored the sum with the two bytes of each half exchanged. */
static uint32_t
swap_halves(uint32_t sum)
{
    return (sum & 0x00ff00ffu) << 8 | (sum >> 8 & 0x00ff00ffu);
}

scio_status
scio_fletcher32_check(const void *in, size_t in_nbytes, size_t *payload_nbytes, scio_error *err)
{
    uint32_t stored, found;

    if (in_nbytes < SUM_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT,
                         "fletcher32: %zu bytes, fewer than the %d of the checksum", in_nbytes,
                         SUM_NBYTES);
    stored = scio_load_le32((const uint8_t *)in + in_nbytes - SUM_NBYTES);
    found = scio_fletcher32(in, in_nbytes - SUM_NBYTES);
    if (found != stored && swap_halves(found) != stored)
        return scio_fail(err, SCIO_ECORRUPT,
                         "fletcher32: the checksum of %zu bytes is %08x, stored is %08x",
                         in_nbytes - SUM_NBYTES, (unsigned)found, (unsigned)stored);
    *payload_nbytes = in_nbytes - SUM_NBYTES;
    return SCIO_OK;
}
