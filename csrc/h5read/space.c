/* Dataspaces (hdf5_format.md 1.8). */
#include "h5read/shared.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "dataspace"
#define FLAG_MAX_DIMS 1u
#define FLAG_PERMUTATION 2u
#define V2_SCALAR 0
#define V2_NULL 2

static scio_status
take_head(scio_cursor *cursor, uint8_t *flags_out, scio_h5_space *out, scio_error *err)
{
    const uint64_t position = cursor->position + cursor->at;
    uint8_t version = 0, rank = 0, kind = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &version, err));
    if (version != 1 && version != 2)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": version %u, read are 1 and 2", position,
                         version);
    SCIO_TRY(scio_cursor_u8(cursor, &rank, err));
    if (rank > SCIO_H5_MAX_RANK)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": rank %u, expected at most %d", position, rank,
                         SCIO_H5_MAX_RANK);
    SCIO_TRY(scio_cursor_u8(cursor, flags_out, err));
    if (version == 1 && (*flags_out & FLAG_PERMUTATION) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": a permutation of the dimensions", position);
    if ((*flags_out & ~FLAG_MAX_DIMS) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": flags 0x%02x, expected 0 or 1", position,
                         *flags_out);
    if (version == 1) {
        out->space_class = rank == 0 ? SCIO_H5_SCALAR : SCIO_H5_SIMPLE;
        out->rank = rank;
        return scio_cursor_skip(cursor, 5, err);
    }
    SCIO_TRY(scio_cursor_u8(cursor, &kind, err));
    if (kind > V2_NULL || (rank != 0 && (kind == V2_SCALAR || kind == V2_NULL)))
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": type %u with rank %u",
                         position, kind, rank);
    out->space_class = kind == V2_NULL ? SCIO_H5_NULL : rank == 0 ? SCIO_H5_SCALAR : SCIO_H5_SIMPLE;
    out->rank = rank;
    return SCIO_OK;
}

/* Also of dims with a zero among them the others must multiply to what fits: strides are made of
 * them. */
static scio_status
count_items(const scio_cursor *cursor, scio_h5_space *out, scio_error *err)
{
    uint64_t product = 1;
    bool is_empty = out->space_class == SCIO_H5_NULL;

    for (unsigned i = 0; i < out->rank; i++) {
        is_empty = is_empty || out->dims[i] == 0;
        if (!scio_mul_u64(product, out->dims[i] == 0 ? 1 : out->dims[i], &product) ||
            product > INT64_MAX)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64
                                  ": more than 2^63 elements with dimension %u of "
                                  "%" PRIu64,
                             cursor->position, i, out->dims[i]);
    }
    out->n_items = is_empty ? 0 : product;
    return SCIO_OK;
}

scio_status
scio_h5_space_parse(const scio_h5_file *file, scio_cursor *cursor, scio_h5_space *out,
                    scio_error *err)
{
    uint8_t flags = 0;

    memset(out, 0, sizeof *out);
    SCIO_TRY(take_head(cursor, &flags, out, err));
    for (unsigned i = 0; i < out->rank; i++) {
        SCIO_TRY(scio_cursor_length(cursor, file, &out->dims[i], err));
        out->max_dims[i] = out->dims[i];
    }
    for (unsigned i = 0; i < out->rank && (flags & FLAG_MAX_DIMS) != 0; i++) {
        SCIO_TRY(scio_cursor_length(cursor, file, &out->max_dims[i], err));
        if (out->dims[i] > out->max_dims[i])
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64 ": dimension %u is %" PRIu64
                                  ", its maximum %" PRIu64,
                             cursor->position, i, out->dims[i], out->max_dims[i]);
    }
    return count_items(cursor, out, err);
}

scio_status
scio_h5_space_from_message(const scio_h5_file *file, const scio_h5_message *message,
                           scio_h5_space *out, scio_error *err)
{
    const scio_h5_message *target = message;
    scio_h5_header header = {0};
    scio_cursor cursor;
    scio_status status;

    if (scio_h5_message_is_shared(message))
        SCIO_TRY(scio_h5_shared_follow(file, message, &header, &target, err));
    cursor = scio_h5_message_cursor(target, WHAT);
    status = scio_h5_space_parse(file, &cursor, out, err);
    scio_h5_header_clear(&header);
    return status;
}
