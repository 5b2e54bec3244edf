/* Object headers (hdf5_format.md 1.2): block 0, then the blocks that continuation messages name, in
 * the order met.  What a header may cost is bounded: messages, bytes in all, no block twice. */
#include "h5read/header.h"

#include "base/mem.h"
#include "h5read/address_set.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "object header"
#define MAX_MESSAGES 65536
#define MAX_NBYTES ((uint64_t)64 << 20)
#define V1_PREFIX_NBYTES 16
#define V2_MAX_PREFIX_NBYTES 34 /* OHDR, version, flags, 16 of times, 4 of limits, 8 of size */
#define CHECKSUM_NBYTES 4
#define MSG_BOGUS 0x09
#define MSG_LAST 0x18

/* flags of a version-2 header */
#define FLAG_SIZE_WIDTH 0x03u
#define FLAG_CREATION_INDEX 0x04u
#define FLAG_LIMITS 0x10u
#define FLAG_TIMES 0x20u
#define FLAG_RESERVED 0xc0u

/* flags of a message */
#define FLAG_SHARED 0x02u
#define FLAG_REFUSE_UNKNOWN 0x80u

typedef struct header_block {
    uint64_t address;
    uint64_t nbytes;
    uint8_t *data; /* NULL until it is read */
} header_block;

typedef struct header_blocks {
    size_t n_blocks, capacity;
    header_block *items;
} header_blocks;

typedef struct header_reader {
    const scio_h5_file *file;
    scio_h5_header *header;
    header_blocks *blocks;
    size_t message_capacity;
    size_t n_seen; /* messages of every type */
    uint64_t nbytes_seen;
    uint32_t single_types; /* bit i: the type i, which occurs once, was met */
    bool has_creation_index;
    scio_address_set addresses;
} header_reader;

static scio_status
add_block(header_reader *reader, uint64_t address, uint64_t nbytes, scio_error *err)
{
    const uint64_t file_nbytes =
        scio_h5_file_superblock(reader->file)->end - scio_h5_file_superblock(reader->file)->base;
    const uint64_t max_nbytes = file_nbytes < MAX_NBYTES ? file_nbytes : MAX_NBYTES;
    header_blocks *const blocks = reader->blocks;

    SCIO_TRY(scio_h5_check_range(reader->file, address, nbytes, err));
    if (nbytes > max_nbytes - reader->nbytes_seen)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT ": blocks of more than %" PRIu64 " bytes in all, up to the one at "
                              "address %" PRIu64,
                         max_nbytes, address);
    reader->nbytes_seen += nbytes;
    SCIO_TRY(scio_address_set_add(&reader->addresses, address, WHAT, err));
    if (blocks->n_blocks == blocks->capacity) {
        const size_t capacity = blocks->capacity == 0 ? 2 : blocks->capacity * 2;

        SCIO_TRY(scio_mem_realloc(&blocks->items, capacity, sizeof *blocks->items, err));
        blocks->capacity = capacity;
    }
    blocks->items[blocks->n_blocks++] = (header_block){address, nbytes, NULL};
    return SCIO_OK;
}

static bool
is_shareable(uint16_t type)
{
    return type == SCIO_H5_MSG_DATASPACE || type == SCIO_H5_MSG_DATATYPE ||
           type == SCIO_H5_MSG_OLD_FILL || type == SCIO_H5_MSG_FILL ||
           type == SCIO_H5_MSG_PIPELINE || type == SCIO_H5_MSG_ATTRIBUTE;
}

static bool
is_single(uint16_t type)
{
    return type == SCIO_H5_MSG_DATASPACE || type == SCIO_H5_MSG_DATATYPE ||
           type == SCIO_H5_MSG_FILL || type == SCIO_H5_MSG_LAYOUT || type == SCIO_H5_MSG_PIPELINE ||
           type == SCIO_H5_MSG_SYMBOL_TABLE || type == SCIO_H5_MSG_LINK_INFO ||
           type == SCIO_H5_MSG_ATTRIBUTE_INFO;
}

static scio_status
check_message(header_reader *reader, const scio_h5_message *message, scio_error *err)
{
    const bool is_known = message->type <= MSG_LAST && message->type != MSG_BOGUS;

    if (!is_known && (message->flags & FLAG_REFUSE_UNKNOWN) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": message of type 0x%02x, which is unknown and "
                              "marked as needed",
                         message->position, message->type);
    if (is_known && (message->flags & FLAG_SHARED) != 0 && !is_shareable(message->type))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64
                              ": message of type 0x%02x is flagged as shared, which this type "
                              "cannot be",
                         message->position, message->type);
    if (!is_single(message->type))
        return SCIO_OK;
    if ((reader->single_types >> message->type & 1) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": a second message of type 0x%02x, expected one",
                         message->position, message->type);
    reader->single_types |= UINT32_C(1) << message->type;
    return SCIO_OK;
}

static scio_status
follow(header_reader *reader, const scio_h5_message *message, scio_error *err)
{
    scio_cursor cursor = scio_h5_message_cursor(message, "continuation message");
    uint64_t address = 0, nbytes = 0;

    SCIO_TRY(scio_cursor_address(&cursor, reader->file, &address, err));
    SCIO_TRY(scio_cursor_length(&cursor, reader->file, &nbytes, err));
    return add_block(reader, address, nbytes, err);
}

static scio_status
add_message(header_reader *reader, const scio_h5_message *message, scio_error *err)
{
    scio_h5_header *const header = reader->header;

    if (++reader->n_seen > MAX_MESSAGES)
        return scio_fail(err, SCIO_ECORRUPT, WHAT ": more than %d messages", MAX_MESSAGES);
    if (message->type == SCIO_H5_MSG_NIL)
        return SCIO_OK;
    SCIO_TRY(check_message(reader, message, err));
    if (message->type == SCIO_H5_MSG_CONTINUATION)
        return follow(reader, message, err);
    if (header->n_messages == reader->message_capacity) {
        const size_t capacity = reader->message_capacity == 0 ? 8 : reader->message_capacity * 2;

        SCIO_TRY(scio_mem_realloc(&header->messages, capacity, sizeof *header->messages, err));
        reader->message_capacity = capacity;
    }
    header->messages[header->n_messages++] = *message;
    return SCIO_OK;
}

/* Takes the messages between the cursor and its end. */
static scio_status
take_messages(header_reader *reader, scio_cursor *cursor, scio_error *err)
{
    const bool is_old = reader->header->version == 1;
    const size_t head_nbytes = is_old ? 8 : reader->has_creation_index ? 6 : 4;

    /* In version 2 a rest too small for a message is a gap. */
    while (scio_cursor_left(cursor) >= (is_old ? 1 : head_nbytes)) {
        scio_h5_message message = {0};
        uint16_t nbytes = 0;
        uint8_t type = 0;

        message.position = cursor->position + cursor->at;
        if (is_old) {
            SCIO_TRY(scio_cursor_u16(cursor, &message.type, err));
        } else {
            SCIO_TRY(scio_cursor_u8(cursor, &type, err));
            message.type = type;
        }
        SCIO_TRY(scio_cursor_u16(cursor, &nbytes, err));
        SCIO_TRY(scio_cursor_u8(cursor, &message.flags, err));
        SCIO_TRY(scio_cursor_skip(cursor, is_old ? 3 : head_nbytes - 4, err));
        if (is_old && nbytes % 8 != 0)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64
                                  ": message of %u bytes, expected a multiple of 8",
                             message.position, nbytes);
        message.position = cursor->position + cursor->at;
        message.nbytes = nbytes;
        SCIO_TRY(scio_cursor_bytes(cursor, nbytes, &message.data, err));
        SCIO_TRY(add_message(reader, &message, err));
    }
    return SCIO_OK;
}

/* Reads block i and leaves a cursor over it, in version 2 without its checksum. */
static scio_status
read_block(header_reader *reader, size_t i_block, scio_cursor *out, scio_error *err)
{
    header_block *const block = &reader->blocks->items[i_block];
    const uint64_t position = scio_h5_file_superblock(reader->file)->base + block->address;
    size_t nbytes = (size_t)block->nbytes;

    SCIO_TRY(scio_mem_alloc(nbytes, 1, &block->data, err));
    SCIO_TRY(scio_h5_read(reader->file, block->address, nbytes, block->data, err));
    if (reader->header->version != 1) {
        SCIO_TRY(scio_h5_check_sum(block->data, nbytes, position, WHAT, err));
        nbytes -= CHECKSUM_NBYTES;
    }
    *out = scio_cursor_make(block->data, nbytes, position, WHAT);
    return SCIO_OK;
}

static scio_status
read_continuations(header_reader *reader, scio_error *err)
{
    for (size_t i = 1; i < reader->blocks->n_blocks; i++) {
        scio_error block_err = SCIO_ERROR_INIT;
        scio_cursor cursor = {0};
        const scio_status status = read_block(reader, i, &cursor, &block_err);

        if (scio_h5_skips(reader->file, status)) /* attributes, most often: the object stays */
            continue;
        if (status != SCIO_OK) {
            scio_error_move(err, &block_err);
            return status;
        }
        if (reader->header->version != 1)
            SCIO_TRY(scio_cursor_signature(&cursor, "OCHK", err));
        SCIO_TRY(take_messages(reader, &cursor, err));
    }
    return SCIO_OK;
}

static scio_status
read_v1(header_reader *reader, scio_cursor *prefix, scio_error *err)
{
    uint16_t n_messages = 0;
    uint32_t nbytes = 0;
    scio_cursor cursor = {0};

    SCIO_TRY(scio_cursor_skip(prefix, 2, err)); /* version, reserved */
    SCIO_TRY(scio_cursor_u16(prefix, &n_messages, err));
    SCIO_TRY(scio_cursor_skip(prefix, 4, err)); /* reference count */
    SCIO_TRY(scio_cursor_u32(prefix, &nbytes, err));
    if (nbytes == 0 && n_messages != 0)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": no bytes for %u messages",
                         prefix->position, n_messages);
    SCIO_TRY(add_block(reader, reader->header->address + V1_PREFIX_NBYTES, nbytes, err));
    SCIO_TRY(read_block(reader, 0, &cursor, err));
    return take_messages(reader, &cursor, err);
}

static scio_status
read_v2(header_reader *reader, scio_cursor *prefix, scio_error *err)
{
    uint8_t version = 0, flags = 0;
    uint64_t nbytes = 0, total = 0;
    scio_cursor cursor = {0};

    SCIO_TRY(scio_cursor_signature(prefix, "OHDR", err));
    SCIO_TRY(scio_cursor_u8(prefix, &version, err));
    if (version != 2)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": version %u, read are 1 and 2",
                         prefix->position, version);
    SCIO_TRY(scio_cursor_u8(prefix, &flags, err));
    if ((flags & FLAG_RESERVED) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": flags 0x%02x, expected at most 0x3f",
                         prefix->position, flags);
    SCIO_TRY(scio_cursor_skip(prefix, (flags & FLAG_TIMES) != 0 ? 16 : 0, err));
    SCIO_TRY(scio_cursor_skip(prefix, (flags & FLAG_LIMITS) != 0 ? 4 : 0, err));
    SCIO_TRY(scio_cursor_uint(prefix, (size_t)1 << (flags & FLAG_SIZE_WIDTH), &nbytes, err));
    if (!scio_add_u64(nbytes, prefix->at + CHECKSUM_NBYTES, &total))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": block of %" PRIu64 " bytes", prefix->position,
                         nbytes);
    reader->header->version = version;
    reader->has_creation_index = (flags & FLAG_CREATION_INDEX) != 0;
    SCIO_TRY(add_block(reader, reader->header->address, total, err));
    SCIO_TRY(read_block(reader, 0, &cursor, err));
    SCIO_TRY(scio_cursor_skip(&cursor, prefix->at, err));
    return take_messages(reader, &cursor, err);
}

static scio_status
read_header(header_reader *reader, scio_error *err)
{
    const uint64_t address = reader->header->address;
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(reader->file);
    uint8_t bytes[V2_MAX_PREFIX_NBYTES];
    scio_cursor prefix;
    uint64_t left;

    SCIO_TRY(scio_h5_check_range(reader->file, address, 1, err));
    left = superblock->end - superblock->base - address;
    if (left > sizeof bytes)
        left = sizeof bytes;
    SCIO_TRY(scio_h5_read(reader->file, address, (size_t)left, bytes, err));
    prefix = scio_cursor_make(bytes, (size_t)left, superblock->base + address, WHAT);
    if (bytes[0] == 1) {
        reader->header->version = 1;
        SCIO_TRY(read_v1(reader, &prefix, err));
    } else if (bytes[0] == 'O') {
        SCIO_TRY(read_v2(reader, &prefix, err));
    } else {
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": starts with 0x%02x, expected version 1 or "
                              "signature \"OHDR\"",
                         prefix.position, bytes[0]);
    }
    return read_continuations(reader, err);
}

scio_status
scio_h5_header_read(const scio_h5_file *file, uint64_t address, scio_h5_header *out,
                    scio_error *err)
{
    scio_h5_header header = {0};
    header_reader reader = {0};
    scio_status status;

    memset(out, 0, sizeof *out);
    status = scio_mem_zalloc(1, sizeof *reader.blocks, &reader.blocks, err);
    if (status != SCIO_OK)
        goto done;
    header.address = address;
    header.blocks = reader.blocks;
    reader.file = file;
    reader.header = &header;
    status = read_header(&reader, err);
    if (status != SCIO_OK) {
        scio_context(err, "object at address %" PRIu64, address);
        goto done;
    }
    *out = header;
    memset(&header, 0, sizeof header);
done:
    scio_address_set_clear(&reader.addresses);
    scio_h5_header_clear(&header);
    return status;
}

void
scio_h5_header_clear(scio_h5_header *header)
{
    header_blocks *const blocks = header->blocks;

    if (blocks != NULL) {
        for (size_t i = 0; i < blocks->n_blocks; i++)
            scio_mem_free(blocks->items[i].data);
        scio_mem_free(blocks->items);
        scio_mem_free(blocks);
    }
    scio_mem_free(header->messages);
    memset(header, 0, sizeof *header);
}

const scio_h5_message *
scio_h5_header_find(const scio_h5_header *header, uint16_t type)
{
    for (size_t i = 0; i < header->n_messages; i++)
        if (header->messages[i].type == type)
            return &header->messages[i];
    return NULL;
}

scio_cursor
scio_h5_message_cursor(const scio_h5_message *message, const char *what)
{
    return scio_cursor_make(message->data, message->nbytes, message->position, what);
}
