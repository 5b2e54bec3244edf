/* Superblock versions 0 to 3, the superblock extension, the driver block (hdf5_format.md 1.1). */
#include "h5read/superblock.h"

#include "h5read/cursor.h"
#include "h5read/header.h"
#include "h5read/sniff.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "superblock"
#define SIGNATURE_NBYTES 8
#define MAX_NBYTES 128 /* version 1 with O = L = 8 has 100 */
#define MSG_K_VALUES 0x13

/* Defaults of the library, for what a superblock does not say. */
#define DEFAULT_CHUNK_K 32
#define DEFAULT_GROUP_LEAF_K 4
#define DEFAULT_GROUP_INTERNAL_K 16

/* The end that a truncated file may claim when it is salvaged: what is allocated by it stays within
 * bounds. */
#define MAX_SALVAGE_RATIO 1024

#define FLAG_OPEN_FOR_WRITE 1u
#define FLAG_UNUSED 2u
#define FLAG_SWMR 4u

static const uint8_t signature[SIGNATURE_NBYTES] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

scio_status
scio_h5_superblock_find(scio_source *source, scio_block_cache *cache, uint64_t *base_out,
                        scio_error *err)
{
    const uint64_t source_nbytes = scio_source_nbytes(source);
    const size_t start_nbytes =
        source_nbytes < SCIO_SNIFF_NBYTES ? (size_t)source_nbytes : SCIO_SNIFF_NBYTES;
    uint8_t start[SCIO_SNIFF_NBYTES], bytes[SIGNATURE_NBYTES];
    uint64_t at = 0;

    while (at < source_nbytes && source_nbytes - at >= SIGNATURE_NBYTES) {
        SCIO_TRY(scio_block_cache_read(cache, at, sizeof bytes, bytes, err));
        if (memcmp(bytes, signature, sizeof bytes) == 0) {
            *base_out = at;
            return SCIO_OK;
        }
        if (at > UINT64_MAX / 2)
            break;
        at = at == 0 ? 512 : at * 2;
    }
    SCIO_TRY(scio_block_cache_read(cache, 0, start_nbytes, start, err));
    return scio_fail(err, SCIO_EFORMAT, "not an HDF5 file: it looks like %s",
                     scio_sniff(start, start_nbytes));
}

static scio_status
expect_zero(scio_cursor *cursor, const char *field, scio_error *err)
{
    const uint64_t position = cursor->position + cursor->at;
    uint8_t value = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &value, err));
    if (value != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": %s has version %u, read is 0", position, field,
                         value);
    return SCIO_OK;
}

static scio_status
take_widths(scio_cursor *cursor, scio_h5_superblock *inout, scio_error *err)
{
    uint8_t widths[2] = {0};
    static const char *const names[2] = {"offsets", "lengths"};

    for (unsigned i = 0; i < 2; i++) {
        SCIO_TRY(scio_cursor_u8(cursor, &widths[i], err));
        if (widths[i] == 16 || widths[i] == 32)
            return scio_fail(err, SCIO_EUNSUPPORTED, WHAT ": %s of %u bytes, read are 2, 4 and 8",
                             names[i], widths[i]);
        if (widths[i] != 2 && widths[i] != 4 && widths[i] != 8)
            return scio_fail(err, SCIO_ECORRUPT, WHAT ": %s of %u bytes, expected 2, 4 or 8",
                             names[i], widths[i]);
    }
    inout->offset_nbytes = widths[0];
    inout->length_nbytes = widths[1];
    return SCIO_OK;
}

static scio_status
take_k(scio_cursor *cursor, const char *name, unsigned *out, scio_error *err)
{
    uint16_t k = 0;

    SCIO_TRY(scio_cursor_u16(cursor, &k, err));
    if (k == 0)
        return scio_fail(err, SCIO_ECORRUPT, "%s: %s K is 0, expected at least 1", cursor->what,
                         name);
    *out = k;
    return SCIO_OK;
}

/* Sets the real end from the stored one, which is absolute and, like the stored base, stale in a
 * file that was put behind other bytes. */
static scio_status
set_end(const scio_h5_file *file, uint64_t stored_base, uint64_t stored_end,
        scio_h5_superblock *inout, scio_error *err)
{
    const uint64_t source_nbytes = inout->end;
    uint64_t nbytes;

    if (stored_base == SCIO_H5_UNDEFINED || stored_end == SCIO_H5_UNDEFINED ||
        stored_end < stored_base)
        return scio_fail(err, SCIO_ECORRUPT, WHAT ": end of file %" PRIu64 " with base %" PRIu64,
                         stored_end, stored_base);
    nbytes = stored_end - stored_base;
    if (nbytes > source_nbytes - inout->base && !scio_h5_file_limits(file)->is_salvage)
        return scio_fail(err, SCIO_ECORRUPT,
                         "truncated: %" PRIu64 " bytes from the superblock on, which says %" PRIu64,
                         source_nbytes - inout->base, nbytes);
    if (nbytes / MAX_SALVAGE_RATIO > source_nbytes)
        nbytes = MAX_SALVAGE_RATIO * source_nbytes;
    inout->end = inout->base + nbytes;
    return SCIO_OK;
}

static scio_status
check_flags(const scio_h5_file *file, unsigned version, uint32_t flags, scio_error *err)
{
    if ((flags & ~(FLAG_OPEN_FOR_WRITE | FLAG_UNUSED | FLAG_SWMR)) != 0)
        return scio_fail(err, SCIO_ECORRUPT, WHAT ": consistency flags 0x%02x, expected 0 to 7",
                         (unsigned)flags);
    if (version >= 3 && (flags & (FLAG_OPEN_FOR_WRITE | FLAG_SWMR)) != 0 &&
        !scio_h5_file_limits(file)->is_salvage)
        return scio_fail(
            err, SCIO_EUNSUPPORTED,
            "the file is marked as open for writing, by a live or a crashed process "
            "(flags 0x%02x); once nobody writes to it, `h5clear -s FILE` takes the mark "
            "away",
            (unsigned)flags);
    return SCIO_OK;
}

static scio_status
refuse_driver(const uint8_t *name, scio_error *err)
{
    char text[9] = {0};

    for (unsigned i = 0; i < 8 && name[i] >= 0x20 && name[i] < 0x7f; i++)
        text[i] = (char)name[i];
    return scio_fail(err, SCIO_EUNSUPPORTED,
                     "the file is stored by HDF5 driver \"%s\" (family or multi-file storage); "
                     "h5repack makes one plain file of it",
                     text);
}

/* The driver block: u8 version, 3 reserved, u32 size, 8 characters of the driver's name. */
static scio_status
refuse_driver_block(const scio_h5_file *file, uint64_t address, scio_error *err)
{
    uint8_t block[16];

    SCIO_TRY(scio_h5_read(file, address, sizeof block, block, err));
    return refuse_driver(block + 8, err);
}

static scio_status
read_old(const scio_h5_file *file, scio_cursor *cursor, scio_h5_superblock *inout, scio_error *err)
{
    uint64_t base = 0, unused = 0, end = 0, driver = 0;
    uint32_t flags = 0;

    SCIO_TRY(expect_zero(cursor, "free space", err));
    SCIO_TRY(expect_zero(cursor, "root entry", err));
    SCIO_TRY(scio_cursor_skip(cursor, 1, err));
    SCIO_TRY(expect_zero(cursor, "shared header", err));
    SCIO_TRY(take_widths(cursor, inout, err));
    SCIO_TRY(scio_cursor_skip(cursor, 1, err));
    SCIO_TRY(take_k(cursor, "group leaf", &inout->group_leaf_k, err));
    SCIO_TRY(take_k(cursor, "group internal", &inout->group_internal_k, err));
    SCIO_TRY(scio_cursor_u32(cursor, &flags, err));
    if (inout->version == 1) {
        SCIO_TRY(take_k(cursor, "chunk", &inout->chunk_k, err));
        SCIO_TRY(scio_cursor_skip(cursor, 2, err));
    }
    SCIO_TRY(scio_cursor_address(cursor, file, &base, err));
    SCIO_TRY(scio_cursor_address(cursor, file, &unused, err)); /* free space */
    SCIO_TRY(scio_cursor_address(cursor, file, &end, err));
    SCIO_TRY(scio_cursor_address(cursor, file, &driver, err));
    SCIO_TRY(scio_cursor_length(cursor, file, &unused, err)); /* name of the root entry */
    SCIO_TRY(scio_cursor_address(cursor, file, &inout->root, err));
    SCIO_TRY(set_end(file, base, end, inout, err));
    SCIO_TRY(check_flags(file, inout->version, flags, err));
    return driver == SCIO_H5_UNDEFINED ? SCIO_OK : refuse_driver_block(file, driver, err);
}

static scio_status
read_k_values(const scio_h5_message *message, scio_h5_superblock *inout, scio_error *err)
{
    scio_cursor cursor = scio_h5_message_cursor(message, "superblock extension, K values");

    SCIO_TRY(expect_zero(&cursor, "K values", err));
    SCIO_TRY(take_k(&cursor, "chunk", &inout->chunk_k, err));
    SCIO_TRY(take_k(&cursor, "group internal", &inout->group_internal_k, err));
    return take_k(&cursor, "group leaf", &inout->group_leaf_k, err);
}

static scio_status
read_extension(const scio_h5_file *file, uint64_t address, scio_h5_superblock *inout,
               scio_error *err)
{
    const scio_h5_message *message;
    scio_h5_header header;
    scio_status status;

    status = scio_h5_header_read(file, address, &header, err);
    if (status != SCIO_OK) {
        scio_context(err, "superblock extension");
        return status;
    }
    if (scio_h5_header_find(&header, SCIO_H5_MSG_CACHE_IMAGE) != NULL) {
        status = scio_fail(err, SCIO_EUNSUPPORTED,
                           "the file has a metadata cache image; h5repack writes one without");
        goto done;
    }
    message = scio_h5_header_find(&header, SCIO_H5_MSG_DRIVER);
    if (message != NULL) {
        uint8_t name[8] = {0};

        if (message->nbytes >= 1 + sizeof name)
            memcpy(name, message->data + 1, sizeof name);
        status = refuse_driver(name, err);
        goto done;
    }
    message = scio_h5_header_find(&header, MSG_K_VALUES);
    if (message != NULL)
        status = read_k_values(message, inout, err);
done:
    scio_h5_header_clear(&header);
    return status;
}

static scio_status
read_new(const scio_h5_file *file, scio_cursor *cursor, scio_h5_superblock *inout, scio_error *err)
{
    uint64_t base = 0, extension = 0, end = 0;
    uint8_t flags = 0;

    SCIO_TRY(take_widths(cursor, inout, err));
    SCIO_TRY(scio_cursor_u8(cursor, &flags, err));
    SCIO_TRY(scio_cursor_address(cursor, file, &base, err));
    SCIO_TRY(scio_cursor_address(cursor, file, &extension, err));
    SCIO_TRY(scio_cursor_address(cursor, file, &end, err));
    SCIO_TRY(scio_cursor_address(cursor, file, &inout->root, err));
    SCIO_TRY(scio_cursor_skip(cursor, 4, err));
    SCIO_TRY(scio_h5_check_sum(cursor->data, cursor->at, cursor->position, WHAT, err));
    SCIO_TRY(set_end(file, base, end, inout, err));
    SCIO_TRY(check_flags(file, inout->version, flags, err));
    return extension == SCIO_H5_UNDEFINED ? SCIO_OK : read_extension(file, extension, inout, err);
}

scio_status
scio_h5_superblock_read(const scio_h5_file *file, scio_h5_superblock *inout, scio_error *err)
{
    const uint64_t left = inout->end - inout->base;
    const size_t nbytes = left < MAX_NBYTES ? (size_t)left : MAX_NBYTES;
    uint8_t bytes[MAX_NBYTES], version = 0;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_read(file, 0, nbytes, bytes, err));
    cursor = scio_cursor_make(bytes, nbytes, inout->base, WHAT);
    SCIO_TRY(scio_cursor_skip(&cursor, SIGNATURE_NBYTES, err));
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    if (version > 3)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": version %u, read are 0 to 3", inout->base,
                         version);
    inout->version = version;
    inout->chunk_k = DEFAULT_CHUNK_K;
    inout->group_leaf_k = DEFAULT_GROUP_LEAF_K;
    inout->group_internal_k = DEFAULT_GROUP_INTERNAL_K;
    if (version <= 1)
        SCIO_TRY(read_old(file, &cursor, inout, err));
    else
        SCIO_TRY(read_new(file, &cursor, inout, err));
    if (inout->root >= inout->end - inout->base)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT ": root group at address %" PRIu64 ", the file ends at %" PRIu64,
                         inout->root, inout->end - inout->base);
    return SCIO_OK;
}
