/* The bounded reader: every field goes through take(), which is the one bounds check. */
#include "h5read/cursor.h"

#include <inttypes.h>
#include <string.h>

scio_cursor
scio_cursor_make(const void *data, size_t nbytes, uint64_t position, const char *what)
{
    const scio_cursor cursor = {data, nbytes, 0, position, what};

    return cursor;
}

size_t
scio_cursor_left(const scio_cursor *cursor)
{
    return cursor->nbytes - cursor->at;
}

static scio_status
take(scio_cursor *cursor, size_t nbytes, const uint8_t **out, scio_error *err)
{
    if (nbytes > scio_cursor_left(cursor))
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": %zu bytes expected, %zu are left of %zu",
                         cursor->what, cursor->position + cursor->at, nbytes,
                         scio_cursor_left(cursor), cursor->nbytes);
    *out = cursor->data + cursor->at;
    cursor->at += nbytes;
    return SCIO_OK;
}

scio_status
scio_cursor_uint(scio_cursor *cursor, size_t width, uint64_t *out, scio_error *err)
{
    const uint8_t *bytes = NULL;
    uint64_t value = 0;

    SCIO_BUG_IF(width < 1 || width > 8, err);
    SCIO_TRY(take(cursor, width, &bytes, err));
    for (size_t i = width; i-- > 0;)
        value = value << 8 | bytes[i];
    *out = value;
    return SCIO_OK;
}

scio_status
scio_cursor_u8(scio_cursor *cursor, uint8_t *out, scio_error *err)
{
    uint64_t value = 0;

    SCIO_TRY(scio_cursor_uint(cursor, sizeof *out, &value, err));
    *out = (uint8_t)value;
    return SCIO_OK;
}

scio_status
scio_cursor_u16(scio_cursor *cursor, uint16_t *out, scio_error *err)
{
    uint64_t value = 0;

    SCIO_TRY(scio_cursor_uint(cursor, sizeof *out, &value, err));
    *out = (uint16_t)value;
    return SCIO_OK;
}

scio_status
scio_cursor_u32(scio_cursor *cursor, uint32_t *out, scio_error *err)
{
    uint64_t value = 0;

    SCIO_TRY(scio_cursor_uint(cursor, sizeof *out, &value, err));
    *out = (uint32_t)value;
    return SCIO_OK;
}

scio_status
scio_cursor_u64(scio_cursor *cursor, uint64_t *out, scio_error *err)
{
    return scio_cursor_uint(cursor, sizeof *out, out, err);
}

/* All ones in `width` bytes stand for UINT64_MAX: "undefined" and "unlimited" are as wide as the
 * field. */
static scio_status
take_widened(scio_cursor *cursor, size_t width, uint64_t *out, scio_error *err)
{
    uint64_t value = 0;

    SCIO_TRY(scio_cursor_uint(cursor, width, &value, err));
    *out = value == UINT64_MAX >> (64 - 8 * width) ? UINT64_MAX : value;
    return SCIO_OK;
}

scio_status
scio_cursor_address(scio_cursor *cursor, const scio_h5_file *file, uint64_t *out, scio_error *err)
{
    return take_widened(cursor, scio_h5_file_superblock(file)->offset_nbytes, out, err);
}

scio_status
scio_cursor_length(scio_cursor *cursor, const scio_h5_file *file, uint64_t *out, scio_error *err)
{
    return take_widened(cursor, scio_h5_file_superblock(file)->length_nbytes, out, err);
}

scio_status
scio_cursor_bytes(scio_cursor *cursor, size_t nbytes, const uint8_t **out, scio_error *err)
{
    return take(cursor, nbytes, out, err);
}

scio_status
scio_cursor_skip(scio_cursor *cursor, size_t nbytes, scio_error *err)
{
    const uint8_t *skipped = NULL;

    return take(cursor, nbytes, &skipped, err);
}

scio_status
scio_cursor_signature(scio_cursor *cursor, const char *signature, scio_error *err)
{
    const uint64_t position = cursor->position + cursor->at;
    const uint8_t *bytes = NULL;

    SCIO_TRY(take(cursor, 4, &bytes, err));
    if (memcmp(bytes, signature, 4) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": signature %02x %02x %02x %02x, expected \"%s\"",
                         cursor->what, position, bytes[0], bytes[1], bytes[2], bytes[3], signature);
    return SCIO_OK;
}
