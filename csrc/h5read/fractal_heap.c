/* Fractal heaps (hdf5_format.md 1.7): the header, and what an id leads to: a place in the heap's
 * blocks (managed), a place in the file (huge), or the id itself (tiny). */
#include "h5read/fractal_internal.h"

#include "base/mem.h"
#include "h5read/btree2.h"
#include "h5read/cursor.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "fractal heap"
#define DIRECT "fractal heap, direct block"
#define MAX_ID_NBYTES 8

enum { ID_MANAGED = 0, ID_HUGE = 1, ID_TINY = 2 };

static bool
is_power_of_2(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static size_t
width_of(uint64_t value)
{
    return scio_fractal_heap_log2(value | 1) / 8 + 1;
}

/* ---- header ---- */

static scio_status
derive(scio_fractal_heap *heap, scio_error *err)
{
    const uint64_t position = scio_fractal_heap_position(heap, heap->address);
    size_t direct_nbytes;

    if (!is_power_of_2(heap->width) || !is_power_of_2(heap->start_nbytes) ||
        !is_power_of_2(heap->max_direct) || heap->start_nbytes > heap->max_direct ||
        heap->heap_bits > 64 || heap->heap_bits == 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": width %u, blocks of %" PRIu64 " to %" PRIu64
                              " bytes, %u bits: expected powers of two, at most 64 bits",
                         position, heap->width, heap->start_nbytes, heap->max_direct,
                         heap->heap_bits);
    heap->row0_bits =
        scio_fractal_heap_log2(heap->width) + scio_fractal_heap_log2(heap->start_nbytes);
    if (heap->row0_bits > heap->heap_bits ||
        scio_fractal_heap_log2(heap->max_direct) > heap->heap_bits ||
        heap->root_rows > heap->heap_bits - heap->row0_bits + 1)
        return scio_fail(
            err, SCIO_ECORRUPT,
            WHAT " at byte %" PRIu64 ": %u rows of %u blocks from %" PRIu64 " bytes on in %u bits",
            position, heap->root_rows, heap->width, heap->start_nbytes, heap->heap_bits);
    heap->n_direct_rows =
        scio_fractal_heap_log2(heap->max_direct) - scio_fractal_heap_log2(heap->start_nbytes) + 2;
    heap->offset_nbytes = (heap->heap_bits + 7) / 8;
    direct_nbytes = (scio_fractal_heap_log2(heap->max_direct) + 7) / 8;
    heap->length_nbytes = width_of(heap->max_managed);
    if (direct_nbytes < heap->length_nbytes)
        heap->length_nbytes = direct_nbytes;
    if (heap->length_nbytes == 0 || 1 + heap->offset_nbytes + heap->length_nbytes > heap->id_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": ids of %zu bytes for offsets of %zu and "
                              "lengths of %zu",
                         position, heap->id_nbytes, heap->offset_nbytes, heap->length_nbytes);
    return SCIO_OK;
}

/* Between the free-space manager and the doubling table stand numbers that only writers need. */
static scio_status
take_fields(scio_fractal_heap *heap, scio_cursor *cursor, scio_error *err)
{
    const scio_h5_file *const file = heap->file;
    uint64_t unused = 0;
    uint16_t heap_bits = 0, root_rows = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &heap->flags, err));
    SCIO_TRY(scio_cursor_u32(cursor, &heap->max_managed, err));
    SCIO_TRY(scio_cursor_length(cursor, file, &unused, err)); /* next huge id */
    SCIO_TRY(scio_cursor_address(cursor, file, &heap->huge_tree, err));
    SCIO_TRY(scio_cursor_length(cursor, file, &unused, err));  /* free space */
    SCIO_TRY(scio_cursor_address(cursor, file, &unused, err)); /* its manager */
    SCIO_TRY(scio_cursor_length(cursor, file, &heap->managed_nbytes, err));
    for (unsigned i = 0; i < 7; i++) /* allocated, iterator, counts and sizes of objects */
        SCIO_TRY(scio_cursor_length(cursor, file, &unused, err));
    SCIO_TRY(scio_cursor_u16(cursor, &heap->width, err));
    SCIO_TRY(scio_cursor_length(cursor, file, &heap->start_nbytes, err));
    SCIO_TRY(scio_cursor_length(cursor, file, &heap->max_direct, err));
    SCIO_TRY(scio_cursor_u16(cursor, &heap_bits, err));
    SCIO_TRY(scio_cursor_skip(cursor, 2, err)); /* rows to start with */
    SCIO_TRY(scio_cursor_address(cursor, file, &heap->root, err));
    SCIO_TRY(scio_cursor_u16(cursor, &root_rows, err));
    heap->heap_bits = heap_bits;
    heap->root_rows = root_rows;
    return derive(heap, err);
}

static scio_status
read_header(scio_fractal_heap *heap, scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(heap->file);
    const size_t nbytes = 26 + 3 * superblock->offset_nbytes + 12 * superblock->length_nbytes;
    uint8_t bytes[26 + 3 * 8 + 12 * 8], version = 0;
    uint16_t id_nbytes = 0, filter_nbytes = 0;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_read(heap->file, heap->address, nbytes, bytes, err));
    cursor = scio_cursor_make(bytes, nbytes, scio_fractal_heap_position(heap, heap->address), WHAT);
    SCIO_TRY(scio_cursor_signature(&cursor, "FRHP", err));
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    if (version != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED, WHAT " at byte %" PRIu64 ": version %u, read is 0",
                         cursor.position, version);
    SCIO_TRY(scio_cursor_u16(&cursor, &id_nbytes, err));
    SCIO_TRY(scio_cursor_u16(&cursor, &filter_nbytes, err));
    if (filter_nbytes != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": it is filtered, which scio does not read; "
                              "h5repack writes a file without",
                         cursor.position);
    SCIO_TRY(scio_h5_check_sum(bytes, nbytes, cursor.position, WHAT, err));
    if (id_nbytes != heap->id_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": ids of %u bytes, expected %zu",
                         cursor.position, id_nbytes, heap->id_nbytes);
    return take_fields(heap, &cursor, err);
}

scio_status
scio_fractal_heap_open(const scio_h5_file *file, uint64_t address, size_t expected_id_nbytes,
                       scio_fractal_heap **out, scio_error *err)
{
    scio_fractal_heap *heap = NULL;
    scio_status status;

    *out = NULL;
    SCIO_BUG_IF(expected_id_nbytes > MAX_ID_NBYTES, err);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *heap, &heap, err));
    heap->file = file;
    heap->address = address;
    heap->id_nbytes = expected_id_nbytes;
    status = read_header(heap, err);
    if (status != SCIO_OK) {
        scio_fractal_heap_free(heap);
        return status;
    }
    *out = heap;
    return SCIO_OK;
}

void
scio_fractal_heap_free(scio_fractal_heap *heap)
{
    if (heap == NULL)
        return;
    for (unsigned i = 0; i < SCIO_FRACTAL_MAX_DEPTH; i++)
        scio_mem_free(heap->indirect[i].data);
    scio_mem_free(heap->direct.data);
    scio_mem_free(heap->huge);
    scio_mem_free(heap);
}

/* ---- managed objects ---- */

static scio_status
get_managed(scio_fractal_heap *heap, scio_cursor *id, const uint8_t **data_out, size_t *nbytes_out,
            uint64_t *position_out, scio_error *err)
{
    uint64_t offset = 0, nbytes = 0, at;

    SCIO_TRY(scio_cursor_uint(id, heap->offset_nbytes, &offset, err));
    SCIO_TRY(scio_cursor_uint(id, heap->length_nbytes, &nbytes, err));
    if (nbytes == 0 || offset >= heap->managed_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": an object of %" PRIu64
                              " bytes at offset %" PRIu64 ", the heap has %" PRIu64,
                         scio_fractal_heap_position(heap, heap->address), nbytes, offset,
                         heap->managed_nbytes);
    SCIO_TRY(scio_fractal_heap_find_direct(heap, offset, err));
    /* With a direct block as root nothing has compared the offset with its size yet. */
    at = offset - heap->direct.offset;
    if (at < scio_fractal_heap_prefix_nbytes(heap) || at > heap->direct.nbytes ||
        nbytes > heap->direct.nbytes - at)
        return scio_fail(err, SCIO_ECORRUPT,
                         DIRECT " at byte %" PRIu64 ": an object of %" PRIu64 " bytes at %" PRIu64
                                " in a block of %" PRIu64,
                         scio_fractal_heap_position(heap, heap->direct.address), nbytes, at,
                         heap->direct.nbytes);
    *data_out = heap->direct.data + at;
    *nbytes_out = (size_t)nbytes;
    *position_out = scio_fractal_heap_position(heap, heap->direct.address) + at;
    return SCIO_OK;
}

/* ---- huge and tiny objects ---- */

typedef struct huge_object {
    const scio_fractal_heap *heap;
    uint64_t wanted_id;
    bool is_found;
    uint64_t address;
    uint64_t nbytes;
} huge_object;

static scio_status
take_huge(const scio_fractal_heap *heap, scio_cursor *cursor, uint64_t *address_out,
          uint64_t *nbytes_out, uint64_t *id_out, scio_error *err)
{
    SCIO_TRY(scio_cursor_address(cursor, heap->file, address_out, err));
    SCIO_TRY(scio_cursor_length(cursor, heap->file, nbytes_out, err));
    return id_out == NULL ? SCIO_OK : scio_cursor_length(cursor, heap->file, id_out, err);
}

static int
compare_huge(const void *context, const uint8_t *record, size_t record_nbytes)
{
    const huge_object *const want = context;
    scio_cursor cursor = scio_cursor_make(record, record_nbytes, 0, WHAT);
    uint64_t address = 0, nbytes = 0, id = 0;

    /* A record has exactly the bytes of the three fields: nothing can fail. */
    if (take_huge(want->heap, &cursor, &address, &nbytes, &id, NULL) != SCIO_OK)
        return 0;
    return id < want->wanted_id ? -1 : id > want->wanted_id;
}

static scio_status
visit_huge(void *context, const uint8_t *record, size_t record_nbytes, scio_error *err)
{
    huge_object *const want = context;
    scio_cursor cursor = scio_cursor_make(record, record_nbytes, 0, WHAT);
    uint64_t id = 0;

    want->is_found = true;
    return take_huge(want->heap, &cursor, &want->address, &want->nbytes, &id, err);
}

/* Address and length stand in the id when it is long enough for them, else in a tree by number. */
static scio_status
find_huge(scio_fractal_heap *heap, scio_cursor *id, huge_object *out, scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(heap->file);
    const size_t room = heap->id_nbytes - 1;

    out->heap = heap;
    if (superblock->offset_nbytes + superblock->length_nbytes <= room) {
        out->is_found = true;
        return take_huge(heap, id, &out->address, &out->nbytes, NULL, err);
    }
    SCIO_TRY(scio_cursor_uint(id, room, &out->wanted_id, err));
    return scio_h5_btree2_find(heap->file, heap->huge_tree, SCIO_H5_BTREE2_HUGE, compare_huge,
                               visit_huge, out, err);
}

static scio_status
get_huge(scio_fractal_heap *heap, scio_cursor *id, const uint8_t **data_out, size_t *nbytes_out,
         uint64_t *position_out, scio_error *err)
{
    const uint64_t max_nbytes = scio_h5_file_limits(heap->file)->attribute_nbytes;
    huge_object object = {0};

    SCIO_TRY(find_huge(heap, id, &object, err));
    if (!object.is_found)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": no huge object %" PRIu64,
                         scio_fractal_heap_position(heap, heap->address), object.wanted_id);
    if (object.nbytes == 0)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": a huge object of 0 bytes",
                         scio_fractal_heap_position(heap, heap->address));
    SCIO_TRY(scio_h5_check_range(heap->file, object.address, object.nbytes, err));
    if (object.nbytes > max_nbytes)
        return scio_fail(err, SCIO_EUNSAFE,
                         "an attribute of %" PRIu64 " bytes at byte %" PRIu64 " is over the limit "
                         "attribute_nbytes of %" PRIu64 "; raise it if the file is trusted",
                         object.nbytes, scio_fractal_heap_position(heap, object.address),
                         max_nbytes);
    scio_mem_free(heap->huge);
    heap->huge = NULL;
    SCIO_TRY(scio_mem_alloc((size_t)object.nbytes, 1, &heap->huge, err));
    SCIO_TRY(scio_h5_read(heap->file, object.address, (size_t)object.nbytes, heap->huge, err));
    *data_out = heap->huge;
    *nbytes_out = (size_t)object.nbytes;
    *position_out = scio_fractal_heap_position(heap, object.address);
    return SCIO_OK;
}

/* The object stands in the id itself, after the byte that says its length. */
static scio_status
get_tiny(scio_fractal_heap *heap, const uint8_t *id, const uint8_t **data_out, size_t *nbytes_out,
         uint64_t *position_out, scio_error *err)
{
    const size_t nbytes = (size_t)(id[0] & 15) + 1;

    if (nbytes > heap->id_nbytes - 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": a tiny object of %zu bytes in an id of %zu",
                         scio_fractal_heap_position(heap, heap->address), nbytes, heap->id_nbytes);
    scio_mem_free(heap->huge);
    heap->huge = NULL;
    SCIO_TRY(scio_mem_alloc(nbytes, 1, &heap->huge, err));
    memcpy(heap->huge, id + 1, nbytes);
    *data_out = heap->huge;
    *nbytes_out = nbytes;
    *position_out = scio_fractal_heap_position(heap, heap->address);
    return SCIO_OK;
}

/* ---- ids ---- */

static unsigned
id_type(const uint8_t *id)
{
    return id[0] >> 4 & 3;
}

scio_status
scio_fractal_heap_get(scio_fractal_heap *heap, const uint8_t *id, const uint8_t **data_out,
                      size_t *nbytes_out, uint64_t *position_out, scio_error *err)
{
    scio_cursor cursor = scio_cursor_make(id + 1, heap->id_nbytes - 1, 0, "fractal heap id");

    if (id[0] >> 6 != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": an id of version %u, read is 0",
                         scio_fractal_heap_position(heap, heap->address), id[0] >> 6);
    switch (id_type(id)) {
    case ID_MANAGED:
        return get_managed(heap, &cursor, data_out, nbytes_out, position_out, err);
    case ID_HUGE:
        return get_huge(heap, &cursor, data_out, nbytes_out, position_out, err);
    case ID_TINY:
        return get_tiny(heap, id, data_out, nbytes_out, position_out, err);
    default:
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": an id of type 3, expected 0 to 2",
                         scio_fractal_heap_position(heap, heap->address));
    }
}

uint64_t
scio_fractal_heap_offset(const scio_fractal_heap *heap, const uint8_t *id)
{
    uint64_t offset = 0;

    if (id_type(id) != ID_MANAGED)
        return UINT64_MAX;
    for (size_t i = heap->offset_nbytes; i-- > 0;)
        offset = offset << 8 | id[1 + i];
    return offset;
}
