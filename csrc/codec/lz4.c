/* The container of HDF5's LZ4 filter (32004), all numbers big-endian:
 *
 *   u64 total bytes, u32 block bytes, then per block: u32 stored bytes, data
 *
 * Blocks hold `block bytes` each, the last one the rest.  A block whose stored size equals its raw
 * size is raw; every other one is a bare LZ4 block. */
#include "codec/decoder.h"

#ifdef SCIO_HAVE_LZ4

#include <limits.h>
#include <lz4.h>

#define HEADER_NBYTES 12
#define SIZE_NBYTES 4

scio_status
scio_lz4_decode_block(const uint8_t *in, size_t in_nbytes, uint8_t *out, size_t out_nbytes,
                      scio_error *err)
{
    int n_made;

    if (in_nbytes > INT_MAX || out_nbytes > INT_MAX)
        return scio_fail(err, SCIO_ECORRUPT,
                         "LZ4: a block of %zu bytes for %zu; an LZ4 block is below 2 GiB",
                         in_nbytes, out_nbytes);
    n_made = LZ4_decompress_safe((const char *)in, (char *)out, (int)in_nbytes, (int)out_nbytes);
    if (n_made < 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "LZ4: a block of %zu bytes is damaged or holds more than %zu bytes",
                         in_nbytes, out_nbytes);
    if ((size_t)n_made != out_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "LZ4: a block gave %d bytes, expected %zu", n_made,
                         out_nbytes);
    return SCIO_OK;
}

static scio_status
check_total(uint64_t total, size_t block_nbytes, size_t out_capacity, scio_error *err)
{
    if (total > out_capacity)
        return scio_fail(err, SCIO_ECORRUPT,
                         "LZ4: the container announces %llu bytes, at most %zu expected",
                         (unsigned long long)total, out_capacity);
    if (total != 0 && block_nbytes == 0)
        return scio_fail(err, SCIO_ECORRUPT, "LZ4: the container's block size is 0");
    return SCIO_OK;
}

scio_status
scio_lz4_decode(const void *in, size_t in_nbytes, void *out, size_t out_capacity,
                size_t *out_nbytes, scio_error *err)
{
    const uint8_t *ip = in;
    uint8_t *op = out;
    uint64_t total;
    size_t block_nbytes, i = HEADER_NBYTES;

    if (in_nbytes < HEADER_NBYTES)
        return scio_fail(err, SCIO_ECORRUPT, "LZ4: %zu bytes, fewer than the header's %d",
                         in_nbytes, HEADER_NBYTES);
    total = scio_load_be64(ip);
    block_nbytes = scio_load_be32(ip + 8);
    SCIO_TRY(check_total(total, block_nbytes, out_capacity, err));
    for (size_t o = 0; o < total;) {
        const size_t n_raw = total - o < block_nbytes ? (size_t)total - o : block_nbytes;
        size_t n_stored;

        if (in_nbytes - i < SIZE_NBYTES)
            return scio_fail(err, SCIO_ECORRUPT, "LZ4: cut at byte %zu, %zu of %zu bytes made", i,
                             o, (size_t)total);
        n_stored = scio_load_be32(ip + i);
        i += SIZE_NBYTES;
        if (n_stored > in_nbytes - i || n_stored > n_raw)
            return scio_fail(err, SCIO_ECORRUPT,
                             "LZ4: the block at byte %zu has %zu bytes; %zu are left, %zu are the "
                             "block's raw size",
                             i, n_stored, in_nbytes - i, n_raw);
        if (n_stored == n_raw)
            memcpy(op + o, ip + i, n_raw);
        else
            SCIO_TRY(scio_lz4_decode_block(ip + i, n_stored, op + o, n_raw, err));
        i += n_stored;
        o += n_raw;
    }
    if (i != in_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "LZ4: %zu bytes behind the last block", in_nbytes - i);
    *out_nbytes = (size_t)total;
    return SCIO_OK;
}

#else

scio_status
scio_lz4_decode_block(const uint8_t *in, size_t in_nbytes, uint8_t *out, size_t out_nbytes,
                      scio_error *err)
{
    (void)in, (void)in_nbytes, (void)out, (void)out_nbytes;
    return scio_fail(err, SCIO_EUNSUPPORTED, "LZ4: this scio was built without liblz4");
}

scio_status
scio_lz4_decode(const void *in, size_t in_nbytes, void *out, size_t out_capacity,
                size_t *out_nbytes, scio_error *err)
{
    (void)in, (void)in_nbytes, (void)out, (void)out_capacity, (void)out_nbytes;
    return scio_fail(err, SCIO_EUNSUPPORTED, "LZ4: this scio was built without liblz4");
}

#endif
