/* Shared messages (hdf5_format.md 1.11): versions 2 and 3, kind "in another object's header". */
#include "h5read/shared.h"

#include <inttypes.h>

#define WHAT "shared message"
#define FLAG_SHARED 2u
#define KIND_HEAP 1
#define KIND_COMMITTED 2

bool
scio_h5_message_is_shared(const scio_h5_message *message)
{
    return (message->flags & FLAG_SHARED) != 0;
}

static scio_status
take_address(const scio_h5_file *file, const scio_h5_message *message, uint64_t *address_out,
             scio_error *err)
{
    scio_cursor cursor = scio_h5_message_cursor(message, WHAT);
    uint8_t version = 0, kind = 0;

    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    SCIO_TRY(scio_cursor_u8(&cursor, &kind, err));
    if (version != 2 && version != 3)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": version %u, read are 2 and 3",
                         message->position, version);
    if (version == 3 && kind == KIND_HEAP)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": it lies in the file's heap of shared object "
                              "header messages, which scio does not read; h5repack writes a file "
                              "without",
                         message->position);
    if (version == 3 && kind != KIND_COMMITTED)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": kind %u, expected 1 or 2",
                         message->position, kind);
    return scio_cursor_address(&cursor, file, address_out, err);
}

scio_status
scio_h5_shared_follow(const scio_h5_file *file, const scio_h5_message *message,
                      scio_h5_header *header_out, const scio_h5_message **target_out,
                      scio_error *err)
{
    const scio_h5_message *target;
    uint64_t address = 0;

    SCIO_TRY(take_address(file, message, &address, err));
    SCIO_TRY(scio_h5_header_read(file, address, header_out, err));
    target = scio_h5_header_find(header_out, message->type);
    if (target != NULL && !scio_h5_message_is_shared(target)) {
        *target_out = target;
        return SCIO_OK;
    }
    scio_h5_header_clear(header_out);
    return scio_fail(err, SCIO_ECORRUPT,
                     WHAT " at byte %" PRIu64 ": the object at address %" PRIu64
                          " has %s message of type 0x%02x",
                     message->position, address, target == NULL ? "no" : "only a shared",
                     message->type);
}
