/* The fill value: what elements hold that were never written. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <string.h>

#define V3_FLAG_UNDEFINED 0x10u
#define V3_FLAG_PRESENT 0x20u

/* Size and bytes; a size of zero or below (the field is signed) means zeros. */
static scio_status
take_value(scio_cursor *cursor, const uint8_t **value_out, size_t *nbytes_out, scio_error *err)
{
    uint32_t nbytes = 0;

    SCIO_TRY(scio_cursor_u32(cursor, &nbytes, err));
    if (nbytes == 0 || nbytes > INT32_MAX)
        return SCIO_OK;
    *nbytes_out = nbytes;
    return scio_cursor_bytes(cursor, nbytes, value_out, err);
}

static scio_status
parse_new(scio_cursor *cursor, const uint8_t **value_out, size_t *nbytes_out, scio_error *err)
{
    uint8_t version = 0, flags = 0, is_defined = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &version, err));
    if (version < 1 || version > 3)
        return scio_fail(err, SCIO_EUNSUPPORTED, "fill value of version %u, read are 1 to 3",
                         version);
    if (version == 3) {
        SCIO_TRY(scio_cursor_u8(cursor, &flags, err));
        if ((flags & V3_FLAG_UNDEFINED) != 0 && (flags & V3_FLAG_PRESENT) != 0)
            return scio_fail(err, SCIO_ECORRUPT, "fill value: flags 0x%02x say undefined and given",
                             flags);
        return (flags & V3_FLAG_PRESENT) != 0 ? take_value(cursor, value_out, nbytes_out, err)
                                              : SCIO_OK;
    }
    SCIO_TRY(scio_cursor_skip(cursor, 2, err)); /* times of allocation and of writing */
    SCIO_TRY(scio_cursor_u8(cursor, &is_defined, err));
    if (version == 2 && is_defined != 1)
        return SCIO_OK;
    return take_value(cursor, value_out, nbytes_out, err);
}

static bool
is_all_zero(const uint8_t *bytes, size_t nbytes)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, nbytes - 1) == 0;
}

scio_status
scio_h5_fill_parse(const scio_h5_header *header, size_t itemsize, uint8_t **fill_out,
                   scio_error *err)
{
    const scio_h5_message *message = scio_h5_header_find(header, SCIO_H5_MSG_FILL);
    const bool is_new = message != NULL;
    const uint8_t *value = NULL;
    size_t nbytes = 0;
    scio_cursor cursor;

    *fill_out = NULL;
    if (!is_new)
        message = scio_h5_header_find(header, SCIO_H5_MSG_OLD_FILL);
    if (message == NULL)
        return SCIO_OK;
    if ((message->flags & 2) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "the fill value is in a shared object header message");
    cursor = scio_h5_message_cursor(message, "fill value");
    SCIO_TRY(is_new ? parse_new(&cursor, &value, &nbytes, err)
                    : take_value(&cursor, &value, &nbytes, err));
    if (value == NULL)
        return SCIO_OK;
    if (nbytes != itemsize)
        return scio_fail(err, SCIO_ECORRUPT, "fill value at byte %llu: %zu bytes, the type has %zu",
                         (unsigned long long)message->position, nbytes, itemsize);
    if (is_all_zero(value, nbytes))
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc(nbytes, 1, fill_out, err));
    memcpy(*fill_out, value, nbytes);
    return SCIO_OK;
}
