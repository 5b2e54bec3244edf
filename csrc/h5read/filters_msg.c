/* The filter pipeline message. */
#include "h5read/dataset_internal.h"

#include <string.h>

#define FIRST_NAMED_ID 256 /* version 2 stores no name for the filters of the library itself */

static scio_status
take_client(scio_cursor *cursor, uint16_t n_values, scio_filter *out, scio_error *err)
{
    for (uint16_t i = 0; i < n_values; i++) {
        uint32_t value = 0;

        SCIO_TRY(scio_cursor_u32(cursor, &value, err));
        if (i < SCIO_MAX_CLIENT)
            out->client[i] = value;
    }
    out->n_client = n_values < SCIO_MAX_CLIENT ? n_values : SCIO_MAX_CLIENT;
    return SCIO_OK;
}

/* The name is for messages only: cut at its first NUL, at the room, and freed of what no terminal
 * should see. */
static void
copy_name(const uint8_t *name, size_t nbytes, char *out, size_t capacity)
{
    size_t n = 0;

    for (; n < nbytes && n + 1 < capacity && name[n] != 0; n++)
        out[n] = name[n] >= ' ' && name[n] < 127 ? (char)name[n] : '?';
    out[n] = '\0';
}

static scio_status
parse_filter(scio_cursor *cursor, unsigned version, scio_filter *out, scio_error *err)
{
    uint16_t name_nbytes = 0, n_values = 0;
    const uint8_t *name = NULL;

    SCIO_TRY(scio_cursor_u16(cursor, &out->id, err));
    if (version == 1 || out->id >= FIRST_NAMED_ID)
        SCIO_TRY(scio_cursor_u16(cursor, &name_nbytes, err));
    SCIO_TRY(scio_cursor_u16(cursor, &out->flags, err));
    SCIO_TRY(scio_cursor_u16(cursor, &n_values, err));
    if (version == 1 && name_nbytes % 8 != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "filter message: a name of %u bytes, expected a multiple of 8",
                         name_nbytes);
    SCIO_TRY(scio_cursor_bytes(cursor, name_nbytes, &name, err));
    copy_name(name, name_nbytes, out->name, sizeof out->name);
    SCIO_TRY(take_client(cursor, n_values, out, err));
    if (version == 1 && n_values % 2 != 0)
        SCIO_TRY(scio_cursor_skip(cursor, 4, err));
    return SCIO_OK;
}

scio_status
scio_h5_pipeline_parse(const scio_h5_message *message, scio_pipeline *out, scio_error *err)
{
    scio_cursor cursor = scio_h5_message_cursor(message, "filter message");
    uint8_t version = 0, n_filters = 0;

    memset(out, 0, sizeof *out);
    if ((message->flags & 2) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "the filter list is in a shared object header message");
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    SCIO_TRY(scio_cursor_u8(&cursor, &n_filters, err));
    if (version < 1 || version > 2)
        return scio_fail(err, SCIO_EUNSUPPORTED, "filter message of version %u, read are 1 and 2",
                         version);
    if (n_filters > SCIO_MAX_FILTERS)
        return scio_fail(err, SCIO_ECORRUPT, "filter message: %u filters, at most %d are allowed",
                         n_filters, SCIO_MAX_FILTERS);
    if (version == 1)
        SCIO_TRY(scio_cursor_skip(&cursor, 6, err));
    for (unsigned i = 0; i < n_filters; i++)
        SCIO_TRY(parse_filter(&cursor, version, &out->filters[i], err));
    out->n_filters = n_filters;
    return SCIO_OK;
}
