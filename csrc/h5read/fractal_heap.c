/* Fractal heaps (hdf5_format.md 1.7).
 *
 * The heap is one address space of 2^B bytes in rows of W blocks; rows 0 and 1 have blocks of S
 * bytes, each later row blocks twice as large.  Up to size D a block holds objects, above it holds
 * another table of blocks.  An id gives offset and length, and the way to the block is arithmetic.
 *
 *   row 0   S S S S           heap offset 0
 *   row 1   S S S S                       W*S
 *   row 2   2S 2S 2S 2S                   2*W*S
 *   row r   2^(r-1)*S ...                 2^(r-1)*W*S
 */
#include "h5read/fractal_heap.h"

#include "base/mem.h"
#include "h5read/btree2.h"
#include "h5read/cursor.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "fractal heap"
#define DIRECT "fractal heap, direct block"
#define INDIRECT "fractal heap, indirect block"
#define MAX_ID_NBYTES 8
#define MAX_DEPTH 64
#define HEAD_NBYTES 5 /* signature, version */
#define CHECKSUM_NBYTES 4
#define FLAG_CHECKED_BLOCKS 2u

enum { ID_MANAGED = 0, ID_HUGE = 1, ID_TINY = 2 };

/* A block in memory; data NULL = none. */
typedef struct heap_block {
    uint64_t address;
    uint64_t offset; /* in the heap */
    uint64_t nbytes;
    uint64_t n_rows; /* indirect blocks */
    uint8_t *data;
} heap_block;

struct scio_h5_heap {
    const scio_h5_file *file;
    uint64_t address;
    size_t id_nbytes;
    uint8_t flags;
    uint32_t max_managed;
    uint64_t huge_tree;
    uint64_t managed_nbytes; /* the address space in use */
    uint16_t width;          /* W */
    uint64_t start_nbytes;   /* S */
    uint64_t max_direct;     /* D */
    unsigned heap_bits;      /* B */
    uint64_t root;
    unsigned root_rows; /* 0: the root is a direct block */
    /* derived: */
    unsigned row0_bits; /* log2(S*W) */
    unsigned n_direct_rows;
    size_t offset_nbytes; /* of a heap offset */
    size_t length_nbytes; /* of a length in an id */
    /* the last way down: */
    heap_block indirect[MAX_DEPTH];
    heap_block direct;
    uint8_t *huge; /* the last huge or tiny object */
};

static uint64_t
absolute(const scio_h5_heap *heap, uint64_t address)
{
    return scio_h5_file_superblock(heap->file)->base + address;
}

static bool
is_power_of_2(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Floor of the logarithm; value > 0. */
static unsigned
log2_of(uint64_t value)
{
    unsigned bits = 0;

    while (value >>= 1)
        bits++;
    return bits;
}

static size_t
width_of(uint64_t value)
{
    return log2_of(value | 1) / 8 + 1;
}

/* ---- header ---- */

static scio_status
derive(scio_h5_heap *heap, scio_error *err)
{
    const uint64_t position = absolute(heap, heap->address);
    size_t direct_nbytes;

    if (!is_power_of_2(heap->width) || !is_power_of_2(heap->start_nbytes) ||
        !is_power_of_2(heap->max_direct) || heap->start_nbytes > heap->max_direct ||
        heap->heap_bits > 64 || heap->heap_bits == 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": width %u, blocks of %" PRIu64 " to %" PRIu64
                              " bytes, %u bits: expected powers of two, at most 64 bits",
                         position, heap->width, heap->start_nbytes, heap->max_direct,
                         heap->heap_bits);
    heap->row0_bits = log2_of(heap->width) + log2_of(heap->start_nbytes);
    if (heap->row0_bits > heap->heap_bits || log2_of(heap->max_direct) > heap->heap_bits ||
        heap->root_rows > heap->heap_bits - heap->row0_bits + 1)
        return scio_fail(
            err, SCIO_ECORRUPT,
            WHAT " at byte %" PRIu64 ": %u rows of %u blocks from %" PRIu64 " bytes on in %u bits",
            position, heap->root_rows, heap->width, heap->start_nbytes, heap->heap_bits);
    heap->n_direct_rows = log2_of(heap->max_direct) - log2_of(heap->start_nbytes) + 2;
    heap->offset_nbytes = (heap->heap_bits + 7) / 8;
    direct_nbytes = (log2_of(heap->max_direct) + 7) / 8;
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
take_fields(scio_h5_heap *heap, scio_cursor *cursor, scio_error *err)
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
read_header(scio_h5_heap *heap, scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(heap->file);
    const size_t nbytes = 26 + 3 * superblock->offset_nbytes + 12 * superblock->length_nbytes;
    uint8_t bytes[26 + 3 * 8 + 12 * 8], version = 0;
    uint16_t id_nbytes = 0, filter_nbytes = 0;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_read(heap->file, heap->address, nbytes, bytes, err));
    cursor = scio_cursor_make(bytes, nbytes, absolute(heap, heap->address), WHAT);
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
scio_h5_heap_open(const scio_h5_file *file, uint64_t address, size_t expected_id_nbytes,
                  scio_h5_heap **out, scio_error *err)
{
    scio_h5_heap *heap = NULL;
    scio_status status;

    *out = NULL;
    SCIO_BUG_IF(expected_id_nbytes > MAX_ID_NBYTES, err);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *heap, &heap, err));
    heap->file = file;
    heap->address = address;
    heap->id_nbytes = expected_id_nbytes;
    status = read_header(heap, err);
    if (status != SCIO_OK) {
        scio_h5_heap_free(heap);
        return status;
    }
    *out = heap;
    return SCIO_OK;
}

void
scio_h5_heap_free(scio_h5_heap *heap)
{
    if (heap == NULL)
        return;
    for (unsigned i = 0; i < MAX_DEPTH; i++)
        scio_mem_free(heap->indirect[i].data);
    scio_mem_free(heap->direct.data);
    scio_mem_free(heap->huge);
    scio_mem_free(heap);
}

/* ---- blocks ---- */

static uint64_t
row_block_nbytes(const scio_h5_heap *heap, unsigned row)
{
    return row == 0 ? heap->start_nbytes : heap->start_nbytes << (row - 1);
}

static uint64_t
row_offset(const scio_h5_heap *heap, unsigned row)
{
    return row == 0 ? 0 : UINT64_C(1) << (heap->row0_bits + row - 1);
}

/* Signature, version, owner and offset in the heap: what direct and indirect blocks start with. */
static scio_status
check_head(const scio_h5_heap *heap, const heap_block *block, scio_cursor *cursor,
           const char *signature, scio_error *err)
{
    uint64_t owner = 0, offset = 0;
    uint8_t version = 0;

    SCIO_TRY(scio_cursor_signature(cursor, signature, err));
    SCIO_TRY(scio_cursor_u8(cursor, &version, err));
    SCIO_TRY(scio_cursor_address(cursor, heap->file, &owner, err));
    SCIO_TRY(scio_cursor_uint(cursor, heap->offset_nbytes, &offset, err));
    if (version != 0 || owner != heap->address || offset != block->offset)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": version %u, heap at address %" PRIu64
                         ", offset %" PRIu64 ", expected 0, %" PRIu64 ", %" PRIu64,
                         cursor->what, cursor->position, version, owner, offset, heap->address,
                         block->offset);
    return SCIO_OK;
}

/* Replaces `*slot` by the bytes of `want`, not checked yet; the slot is empty after an error. */
static scio_status
load_block(const scio_h5_heap *heap, const heap_block *want, heap_block *slot, scio_error *err)
{
    uint8_t *data = NULL;
    scio_status status;

    scio_mem_free(slot->data);
    memset(slot, 0, sizeof *slot);
    SCIO_TRY(scio_h5_check_range(heap->file, want->address, want->nbytes, err));
    SCIO_TRY(scio_mem_alloc((size_t)want->nbytes, 1, &data, err));
    status = scio_h5_read(heap->file, want->address, (size_t)want->nbytes, data, err);
    if (status != SCIO_OK) {
        scio_mem_free(data);
        return status;
    }
    *slot = *want;
    slot->data = data;
    return SCIO_OK;
}

static bool
is_loaded(const heap_block *slot, const heap_block *want)
{
    return slot->data != NULL && slot->address == want->address && slot->offset == want->offset &&
           slot->nbytes == want->nbytes;
}

static size_t
direct_prefix_nbytes(const scio_h5_heap *heap)
{
    return HEAD_NBYTES + scio_h5_file_superblock(heap->file)->offset_nbytes + heap->offset_nbytes +
           ((heap->flags & FLAG_CHECKED_BLOCKS) != 0 ? CHECKSUM_NBYTES : 0);
}

/* The checksum of a direct block is over the whole block with its own four bytes as zeros. */
static scio_status
check_direct_sum(const scio_h5_heap *heap, heap_block *block, scio_error *err)
{
    const size_t at = direct_prefix_nbytes(heap) - CHECKSUM_NBYTES;
    const uint64_t position = absolute(heap, block->address);
    scio_cursor cursor = scio_cursor_make(block->data + at, CHECKSUM_NBYTES, position, DIRECT);
    uint32_t stored = 0, computed;

    SCIO_TRY(scio_cursor_u32(&cursor, &stored, err));
    memset(block->data + at, 0, CHECKSUM_NBYTES);
    computed = scio_h5_lookup3(block->data, (size_t)block->nbytes);
    if (stored != computed)
        return scio_fail(err, SCIO_ECORRUPT,
                         DIRECT " at byte %" PRIu64 ": checksum %08" PRIx32 ", its %" PRIu64
                                " bytes give %08" PRIx32,
                         position, stored, block->nbytes, computed);
    return SCIO_OK;
}

static scio_status
check_direct(const scio_h5_heap *heap, heap_block *block, scio_error *err)
{
    scio_cursor cursor = scio_cursor_make(block->data, (size_t)block->nbytes,
                                          absolute(heap, block->address), DIRECT);

    SCIO_TRY(check_head(heap, block, &cursor, "FHDB", err));
    if ((heap->flags & FLAG_CHECKED_BLOCKS) == 0)
        return SCIO_OK;
    SCIO_TRY(scio_cursor_skip(&cursor, CHECKSUM_NBYTES, err));
    return check_direct_sum(heap, block, err);
}

/* A block that fails its checks is not kept. */
static scio_status
ensure_direct(scio_h5_heap *heap, const heap_block *want, scio_error *err)
{
    scio_status status;

    if (is_loaded(&heap->direct, want))
        return SCIO_OK;
    SCIO_TRY(load_block(heap, want, &heap->direct, err));
    status = check_direct(heap, &heap->direct, err);
    if (status != SCIO_OK) {
        scio_mem_free(heap->direct.data);
        heap->direct.data = NULL;
    }
    return status;
}

static scio_status
check_indirect(const scio_h5_heap *heap, const heap_block *block, scio_error *err)
{
    const uint64_t position = absolute(heap, block->address);
    scio_cursor cursor = scio_cursor_make(block->data, (size_t)block->nbytes, position, INDIRECT);

    SCIO_TRY(check_head(heap, block, &cursor, "FHIB", err));
    return scio_h5_check_sum(block->data, (size_t)block->nbytes, position, INDIRECT, err);
}

static scio_status
ensure_indirect(scio_h5_heap *heap, unsigned depth, const heap_block *want, scio_error *err)
{
    heap_block *const slot = &heap->indirect[depth];
    scio_status status;

    if (is_loaded(slot, want))
        return SCIO_OK;
    SCIO_TRY(load_block(heap, want, slot, err));
    status = check_indirect(heap, slot, err);
    if (status != SCIO_OK) {
        scio_mem_free(slot->data);
        slot->data = NULL;
    }
    return status;
}

/* ---- the way to an offset ---- */

static scio_status
indirect_nbytes(const scio_h5_heap *heap, uint64_t n_rows, uint64_t *out, scio_error *err)
{
    const size_t address_nbytes = scio_h5_file_superblock(heap->file)->offset_nbytes;

    /* At most 65 rows of 2^15 addresses: nothing overflows. */
    SCIO_BUG_IF(n_rows > 65, err);
    *out = HEAD_NBYTES + address_nbytes + heap->offset_nbytes +
           n_rows * heap->width * address_nbytes + CHECKSUM_NBYTES;
    return SCIO_OK;
}

/* The block of the table `parent` that holds heap offset x: its address, offset, bytes, row. */
static scio_status
choose_entry(const scio_h5_heap *heap, const heap_block *parent, uint64_t x, heap_block *out,
             unsigned *row_out, scio_error *err)
{
    const size_t address_nbytes = scio_h5_file_superblock(heap->file)->offset_nbytes;
    const uint64_t y = x - parent->offset;
    const unsigned row = y >> heap->row0_bits == 0 ? 0 : log2_of(y) - heap->row0_bits + 1;
    scio_cursor cursor = scio_cursor_make(parent->data, (size_t)parent->nbytes,
                                          absolute(heap, parent->address), INDIRECT);
    uint64_t column;

    if (row >= parent->n_rows)
        return scio_fail(err, SCIO_ECORRUPT,
                         INDIRECT " at byte %" PRIu64 ": heap offset %" PRIu64
                                  " would be in row %u, it has %" PRIu64 " rows",
                         cursor.position, x, row, parent->n_rows);
    out->nbytes = row_block_nbytes(heap, row);
    column = (y - row_offset(heap, row)) / out->nbytes;
    out->offset = parent->offset + row_offset(heap, row) + column * out->nbytes;
    *row_out = row;
    SCIO_TRY(scio_cursor_skip(&cursor, HEAD_NBYTES + address_nbytes + heap->offset_nbytes, err));
    SCIO_TRY(scio_cursor_skip(
        &cursor, (size_t)(row * (uint64_t)heap->width + column) * address_nbytes, err));
    return scio_cursor_address(&cursor, heap->file, &out->address, err);
}

/* Leaves the direct block that holds heap offset x in heap->direct.  Ends: a child table covers one
 * block of its parent's row and so has fewer rows than the parent. */
static scio_status
find_direct(scio_h5_heap *heap, uint64_t x, scio_error *err)
{
    heap_block block = {heap->root, 0, heap->start_nbytes, heap->root_rows, NULL};

    for (unsigned depth = 0; block.n_rows != 0; depth++) {
        const uint64_t parent_rows = block.n_rows;
        heap_block child = {0};
        unsigned row = 0;

        if (depth == MAX_DEPTH)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64 ": more than %d tables deep",
                             absolute(heap, heap->address), MAX_DEPTH);
        SCIO_TRY(indirect_nbytes(heap, block.n_rows, &block.nbytes, err));
        SCIO_TRY(ensure_indirect(heap, depth, &block, err));
        SCIO_TRY(choose_entry(heap, &heap->indirect[depth], x, &child, &row, err));
        if (row >= heap->n_direct_rows) {
            const unsigned bits = log2_of(child.nbytes);

            child.n_rows = bits < heap->row0_bits ? 0 : bits - heap->row0_bits + 1;
            if (child.n_rows == 0 || child.n_rows >= parent_rows)
                return scio_fail(err, SCIO_ECORRUPT,
                                 INDIRECT " at byte %" PRIu64 ": a table of %" PRIu64
                                          " rows below one of %" PRIu64,
                                 absolute(heap, block.address), child.n_rows, parent_rows);
        }
        block = child;
    }
    return ensure_direct(heap, &block, err);
}

static scio_status
get_managed(scio_h5_heap *heap, scio_cursor *id, const uint8_t **data_out, size_t *nbytes_out,
            uint64_t *position_out, scio_error *err)
{
    uint64_t offset = 0, nbytes = 0, at;

    SCIO_TRY(scio_cursor_uint(id, heap->offset_nbytes, &offset, err));
    SCIO_TRY(scio_cursor_uint(id, heap->length_nbytes, &nbytes, err));
    if (nbytes == 0 || offset >= heap->managed_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": an object of %" PRIu64
                              " bytes at offset %" PRIu64 ", the heap has %" PRIu64,
                         absolute(heap, heap->address), nbytes, offset, heap->managed_nbytes);
    SCIO_TRY(find_direct(heap, offset, err));
    /* With a direct block as root nothing has compared the offset with its size yet. */
    at = offset - heap->direct.offset;
    if (at < direct_prefix_nbytes(heap) || at > heap->direct.nbytes ||
        nbytes > heap->direct.nbytes - at)
        return scio_fail(err, SCIO_ECORRUPT,
                         DIRECT " at byte %" PRIu64 ": an object of %" PRIu64 " bytes at %" PRIu64
                                " in a block of %" PRIu64,
                         absolute(heap, heap->direct.address), nbytes, at, heap->direct.nbytes);
    *data_out = heap->direct.data + at;
    *nbytes_out = (size_t)nbytes;
    *position_out = absolute(heap, heap->direct.address) + at;
    return SCIO_OK;
}

/* ---- huge and tiny objects ---- */

typedef struct huge_object {
    const scio_h5_heap *heap;
    uint64_t wanted_id;
    bool is_found;
    uint64_t address;
    uint64_t nbytes;
} huge_object;

static scio_status
take_huge(const scio_h5_heap *heap, scio_cursor *cursor, uint64_t *address_out,
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
find_huge(scio_h5_heap *heap, scio_cursor *id, huge_object *out, scio_error *err)
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
get_huge(scio_h5_heap *heap, scio_cursor *id, const uint8_t **data_out, size_t *nbytes_out,
         uint64_t *position_out, scio_error *err)
{
    const uint64_t max_nbytes = scio_h5_file_limits(heap->file)->attribute_nbytes;
    huge_object object = {0};

    SCIO_TRY(find_huge(heap, id, &object, err));
    if (!object.is_found)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": no huge object %" PRIu64,
                         absolute(heap, heap->address), object.wanted_id);
    if (object.nbytes == 0)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": a huge object of 0 bytes",
                         absolute(heap, heap->address));
    SCIO_TRY(scio_h5_check_range(heap->file, object.address, object.nbytes, err));
    if (object.nbytes > max_nbytes)
        return scio_fail(err, SCIO_EUNSAFE,
                         "an attribute of %" PRIu64 " bytes at byte %" PRIu64 " is over the limit "
                         "attribute_nbytes of %" PRIu64 "; raise it if the file is trusted",
                         object.nbytes, absolute(heap, object.address), max_nbytes);
    scio_mem_free(heap->huge);
    heap->huge = NULL;
    SCIO_TRY(scio_mem_alloc((size_t)object.nbytes, 1, &heap->huge, err));
    SCIO_TRY(scio_h5_read(heap->file, object.address, (size_t)object.nbytes, heap->huge, err));
    *data_out = heap->huge;
    *nbytes_out = (size_t)object.nbytes;
    *position_out = absolute(heap, object.address);
    return SCIO_OK;
}

/* The object stands in the id itself, after the byte that says its length. */
static scio_status
get_tiny(scio_h5_heap *heap, const uint8_t *id, const uint8_t **data_out, size_t *nbytes_out,
         uint64_t *position_out, scio_error *err)
{
    const size_t nbytes = (size_t)(id[0] & 15) + 1;

    if (nbytes > heap->id_nbytes - 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": a tiny object of %zu bytes in an id of %zu",
                         absolute(heap, heap->address), nbytes, heap->id_nbytes);
    scio_mem_free(heap->huge);
    heap->huge = NULL;
    SCIO_TRY(scio_mem_alloc(nbytes, 1, &heap->huge, err));
    memcpy(heap->huge, id + 1, nbytes);
    *data_out = heap->huge;
    *nbytes_out = nbytes;
    *position_out = absolute(heap, heap->address);
    return SCIO_OK;
}

/* ---- ids ---- */

static unsigned
id_type(const uint8_t *id)
{
    return id[0] >> 4 & 3;
}

scio_status
scio_h5_heap_get(scio_h5_heap *heap, const uint8_t *id, const uint8_t **data_out,
                 size_t *nbytes_out, uint64_t *position_out, scio_error *err)
{
    scio_cursor cursor = scio_cursor_make(id + 1, heap->id_nbytes - 1, 0, "fractal heap id");

    if (id[0] >> 6 != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": an id of version %u, read is 0",
                         absolute(heap, heap->address), id[0] >> 6);
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
                         absolute(heap, heap->address));
    }
}

uint64_t
scio_h5_heap_offset(const scio_h5_heap *heap, const uint8_t *id)
{
    uint64_t offset = 0;

    if (id_type(id) != ID_MANAGED)
        return UINT64_MAX;
    for (size_t i = heap->offset_nbytes; i-- > 0;)
        offset = offset << 8 | id[1 + i];
    return offset;
}
