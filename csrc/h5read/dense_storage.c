/* Dense links and attributes: info message, index of names, objects in heap order. */
#include "h5read/dense_storage.h"

#include "base/mem.h"
#include "h5read/btree2.h"
#include "h5read/fractal_heap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINK_ID_NBYTES 7
#define ATTRIBUTE_ID_NBYTES 8
#define FLAG_TRACKED 1u
#define FLAG_INDEXED 2u
#define FLAG_SHARED 2u

static size_t
id_nbytes(scio_h5_dense_kind kind)
{
    return kind == SCIO_H5_DENSE_LINKS ? LINK_ID_NBYTES : ATTRIBUTE_ID_NBYTES;
}

static unsigned
tree_type(scio_h5_dense_kind kind)
{
    return kind == SCIO_H5_DENSE_LINKS ? SCIO_H5_BTREE2_LINK_NAME : SCIO_H5_BTREE2_ATTRIBUTE_NAME;
}

/* u8 version, u8 flags, [largest creation index], heap, tree by name, [tree by order]. */
scio_status
scio_h5_dense_parse(const scio_h5_file *file, scio_h5_dense_kind kind,
                    const scio_h5_message *message, scio_h5_dense *out, scio_error *err)
{
    const bool is_links = kind == SCIO_H5_DENSE_LINKS;
    uint8_t version = 0, flags = 0;
    scio_cursor cursor;

    memset(out, 0, sizeof *out);
    out->kind = kind;
    out->heap = SCIO_H5_UNDEFINED;
    out->name_tree = SCIO_H5_UNDEFINED;
    if (message == NULL)
        return SCIO_OK;
    cursor = scio_h5_message_cursor(message, is_links ? "link info" : "attribute info");
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    if (version != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED, "%s at byte %" PRIu64 ": version %u, read is 0",
                         cursor.what, cursor.position, version);
    SCIO_TRY(scio_cursor_u8(&cursor, &flags, err));
    if ((flags & ~(FLAG_TRACKED | FLAG_INDEXED)) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": flags 0x%02x, expected 0 to 3", cursor.what,
                         cursor.position, flags);
    out->is_tracked = (flags & FLAG_TRACKED) != 0;
    if (out->is_tracked)
        SCIO_TRY(scio_cursor_skip(&cursor, is_links ? 8 : 2, err));
    SCIO_TRY(scio_cursor_address(&cursor, file, &out->heap, err));
    SCIO_TRY(scio_cursor_address(&cursor, file, &out->name_tree, err));
    if (out->heap != SCIO_H5_UNDEFINED && out->name_tree == SCIO_H5_UNDEFINED)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": a heap at address %" PRIu64 " without an index",
                         cursor.what, cursor.position, out->heap);
    return SCIO_OK;
}

/* One record of the index. */
typedef struct dense_entry {
    uint8_t id[8];
    uint8_t message_flags;
    uint32_t hash;
    uint64_t heap_offset;
} dense_entry;

typedef struct dense_reader {
    const scio_h5_file *file;
    scio_h5_dense_kind kind;
    scio_fractal_heap *heap;
    scio_h5_dense_fn visit;
    void *context;
    /* Objects do not overlap in a sound heap, so all of them are smaller than the file: stops many
     * records that name one large object. */
    uint64_t left_nbytes;
    uint32_t wanted_hash; /* finding */
    dense_entry *entries; /* walking */
    size_t n_entries, capacity, max_entries;
} dense_reader;

static uint32_t
take_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

/* Links: hash, id[7].  Attributes: id[8], u8 flags, u32 order, hash.  The tree has checked the
 * size. */
static dense_entry
decode_record(scio_h5_dense_kind kind, const uint8_t *record)
{
    dense_entry entry = {{0}, 0, 0, 0};

    if (kind == SCIO_H5_DENSE_LINKS) {
        entry.hash = take_u32(record);
        memcpy(entry.id, record + 4, LINK_ID_NBYTES);
    } else {
        memcpy(entry.id, record, ATTRIBUTE_ID_NBYTES);
        entry.message_flags = record[ATTRIBUTE_ID_NBYTES];
        entry.hash = take_u32(record + ATTRIBUTE_ID_NBYTES + 5);
    }
    return entry;
}

static scio_status
visit_entry(dense_reader *reader, const dense_entry *entry, scio_error *err)
{
    const uint8_t *data = NULL;
    size_t nbytes = 0;
    uint64_t position = 0;

    if ((entry->message_flags & FLAG_SHARED) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "an attribute lies in the file's heap of shared object header messages, "
                         "which scio does not read; h5repack writes a file without");
    SCIO_TRY(scio_fractal_heap_get(reader->heap, entry->id, &data, &nbytes, &position, err));
    if (nbytes > reader->left_nbytes)
        return scio_fail(
            err, SCIO_ECORRUPT,
            "fractal heap: its objects are larger together than the file, up to the one "
            "at byte %" PRIu64,
            position);
    reader->left_nbytes -= nbytes;
    return reader->visit(reader->context, data, nbytes, position, entry->message_flags, entry->hash,
                         err);
}

/* ---- all ---- */

static scio_status
collect(void *context, const uint8_t *record, size_t record_nbytes, scio_error *err)
{
    dense_reader *const reader = context;
    dense_entry entry = decode_record(reader->kind, record);

    (void)record_nbytes;
    if (reader->n_entries == reader->max_entries)
        return scio_fail(err, SCIO_EUNSAFE,
                         "more than %zu members, the limit n_members; raise it if the file is "
                         "trusted",
                         reader->max_entries);
    if (reader->n_entries == reader->capacity) {
        const size_t capacity = reader->capacity == 0 ? 16 : reader->capacity * 2;

        SCIO_TRY(scio_mem_realloc(&reader->entries, capacity, sizeof entry, err));
        reader->capacity = capacity;
    }
    entry.heap_offset = scio_fractal_heap_offset(reader->heap, entry.id);
    reader->entries[reader->n_entries++] = entry;
    return SCIO_OK;
}

static int
compare_offsets(const void *a, const void *b)
{
    const dense_entry *const x = a, *const y = b;

    if (x->heap_offset != y->heap_offset)
        return x->heap_offset < y->heap_offset ? -1 : 1;
    return memcmp(x->id, y->id, sizeof x->id);
}

scio_status
scio_h5_dense_walk(const scio_h5_file *file, const scio_h5_dense *dense, size_t max_items,
                   scio_h5_dense_fn visit, void *context, scio_error *err)
{
    dense_reader reader = {0};
    scio_status status;

    if (dense->heap == SCIO_H5_UNDEFINED)
        return SCIO_OK;
    reader.file = file;
    reader.kind = dense->kind;
    reader.visit = visit;
    reader.context = context;
    reader.max_entries = max_items;
    reader.left_nbytes = scio_h5_file_superblock(file)->end - scio_h5_file_superblock(file)->base;
    status = scio_fractal_heap_open(file, dense->heap, id_nbytes(dense->kind), &reader.heap, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_h5_btree2_walk(file, dense->name_tree, tree_type(dense->kind), 0, collect,
                                 &reader, err);
    if (status != SCIO_OK)
        goto done;
    /* The index is in the order of hashes, that is in none: by offset each block is read once. */
    if (reader.n_entries > 1)
        qsort(reader.entries, reader.n_entries, sizeof *reader.entries, compare_offsets);
    for (size_t i = 0; i < reader.n_entries && status == SCIO_OK; i++)
        status = visit_entry(&reader, &reader.entries[i], err);
done:
    scio_mem_free(reader.entries);
    scio_fractal_heap_free(reader.heap);
    return status;
}

/* ---- one name ---- */

static int
compare_hash(const void *context, const uint8_t *record, size_t record_nbytes)
{
    const dense_reader *const reader = context;
    const uint32_t hash = decode_record(reader->kind, record).hash;

    (void)record_nbytes;
    return hash < reader->wanted_hash ? -1 : hash > reader->wanted_hash;
}

static scio_status
visit_found(void *context, const uint8_t *record, size_t record_nbytes, scio_error *err)
{
    dense_reader *const reader = context;
    const dense_entry entry = decode_record(reader->kind, record);

    (void)record_nbytes;
    return visit_entry(reader, &entry, err);
}

scio_status
scio_h5_dense_find(const scio_h5_file *file, const scio_h5_dense *dense, const char *name,
                   scio_h5_dense_fn visit, void *context, scio_error *err)
{
    dense_reader reader = {0};
    scio_status status;

    if (dense->heap == SCIO_H5_UNDEFINED)
        return SCIO_OK;
    reader.file = file;
    reader.kind = dense->kind;
    reader.visit = visit;
    reader.context = context;
    reader.wanted_hash = scio_h5_lookup3(name, strlen(name));
    reader.left_nbytes = scio_h5_file_superblock(file)->end - scio_h5_file_superblock(file)->base;
    SCIO_TRY(scio_fractal_heap_open(file, dense->heap, id_nbytes(dense->kind), &reader.heap, err));
    status = scio_h5_btree2_find(file, dense->name_tree, tree_type(dense->kind), compare_hash,
                                 visit_found, &reader, err);
    scio_fractal_heap_free(reader.heap);
    return status;
}

scio_status
scio_h5_dense_check_hash(const char *name, size_t nbytes, uint32_t hash, uint64_t position,
                         scio_error *err)
{
    const uint32_t computed = scio_h5_lookup3(name, nbytes);

    if (computed == hash)
        return SCIO_OK;
    return scio_fail(err, SCIO_ECORRUPT,
                     "\"%.*s\" at byte %" PRIu64 ": the index has hash %08" PRIx32
                     ", the name gives %08" PRIx32,
                     nbytes > 200 ? 200 : (int)nbytes, name, position, hash, computed);
}
