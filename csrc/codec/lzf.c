/* LZF, the small LZ77 format of h5py's "lzf" filter.
 *
 *   control < 32     control + 1 literal bytes follow
 *   control >= 32    a match: length = (control >> 5) + 2, where 7 in the top bits means that one
 *                    more byte of length follows; then the low byte of the distance
 *   distance         ((control & 31) << 8 | low byte) + 1, so at most 8192
 *
 * The stream has no length and no end mark: it ends with its bytes. */
#include "codec/decoder.h"

static scio_status
fail_cut(size_t i_in, scio_error *err)
{
    return scio_fail(err, SCIO_ECORRUPT, "LZF: the stream ends inside the item at byte %zu", i_in);
}

static scio_status
fail_long(size_t i_in, size_t out_capacity, scio_error *err)
{
    return scio_fail(err, SCIO_ECORRUPT,
                     "LZF: the item at byte %zu runs past the %zu bytes expected", i_in,
                     out_capacity);
}

scio_status
scio_lzf_decode(const void *in, size_t in_nbytes, void *out, size_t out_capacity,
                size_t *out_nbytes, scio_error *err)
{
    const uint8_t *ip = in;
    uint8_t *op = out;
    size_t i = 0, o = 0;

    while (i < in_nbytes) {
        const size_t i_item = i;
        const unsigned control = ip[i++];
        size_t nbytes = control >> 5, distance;

        if (nbytes == 0) {
            nbytes = control + 1;
            if (nbytes > in_nbytes - i)
                return fail_cut(i_item, err);
            if (nbytes > out_capacity - o)
                return fail_long(i_item, out_capacity, err);
            scio_copy_literals(op + o, out_capacity - o, ip + i, in_nbytes - i, nbytes);
            i += nbytes;
            o += nbytes;
            continue;
        }
        if (nbytes == 7) {
            if (i == in_nbytes)
                return fail_cut(i_item, err);
            nbytes += ip[i++];
        }
        nbytes += 2;
        if (i == in_nbytes)
            return fail_cut(i_item, err);
        distance = ((size_t)(control & 31) << 8 | ip[i++]) + 1;
        if (distance > o)
            return scio_fail(err, SCIO_ECORRUPT,
                             "LZF: the match at byte %zu goes back %zu bytes, only %zu exist",
                             i_item, distance, o);
        if (nbytes > out_capacity - o)
            return fail_long(i_item, out_capacity, err);
        scio_copy_match(op + o, distance, nbytes, out_capacity - o);
        o += nbytes;
    }
    *out_nbytes = o;
    return SCIO_OK;
}
