/* Fractal heaps: from an offset to the block that holds it.
 *
 * The heap is one address space of 2^B bytes in rows of W blocks; rows 0 and 1 have blocks of S
 * bytes, each later row blocks twice as large.  Up to size D a block holds objects, above it holds
 * another table of blocks.
 *
 *   row 0   S S S S           heap offset 0
 *   row 1   S S S S                       W*S
 *   row 2   2S 2S 2S 2S                   2*W*S
 *   row r   2^(r-1)*S ...                 2^(r-1)*W*S
 *
 * The tables of the last way down and the last direct block are kept: offsets that rise need each
 * block once. */
#include "h5read/fractal_internal.h"

#include "base/mem.h"
#include "h5read/checksum.h"
#include "h5read/cursor.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "fractal heap"
#define DIRECT "fractal heap, direct block"
#define INDIRECT "fractal heap, indirect block"
#define HEAD_NBYTES 5 /* signature, version */
#define CHECKSUM_NBYTES 4
#define FLAG_CHECKED_BLOCKS 2u

static uint64_t
row_block_nbytes(const scio_fractal_heap *heap, unsigned row)
{
    return row == 0 ? heap->start_nbytes : heap->start_nbytes << (row - 1);
}

static uint64_t
row_offset(const scio_fractal_heap *heap, unsigned row)
{
    return row == 0 ? 0 : UINT64_C(1) << (heap->row0_bits + row - 1);
}

/* Signature, version, owner and offset in the heap: what direct and indirect blocks start with. */
static scio_status
check_head(const scio_fractal_heap *heap, const scio_fractal_block *block, scio_cursor *cursor,
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
load_block(const scio_fractal_heap *heap, const scio_fractal_block *want, scio_fractal_block *slot,
           scio_error *err)
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
is_loaded(const scio_fractal_block *slot, const scio_fractal_block *want)
{
    return slot->data != NULL && slot->address == want->address && slot->offset == want->offset &&
           slot->nbytes == want->nbytes;
}

size_t
scio_fractal_heap_prefix_nbytes(const scio_fractal_heap *heap)
{
    return HEAD_NBYTES + scio_h5_file_superblock(heap->file)->offset_nbytes + heap->offset_nbytes +
           ((heap->flags & FLAG_CHECKED_BLOCKS) != 0 ? CHECKSUM_NBYTES : 0);
}

/* The checksum of a direct block is over the whole block with its own four bytes as zeros. */
static scio_status
check_direct_sum(const scio_fractal_heap *heap, scio_fractal_block *block, scio_error *err)
{
    const size_t at = scio_fractal_heap_prefix_nbytes(heap) - CHECKSUM_NBYTES;
    const uint64_t position = scio_fractal_heap_position(heap, block->address);
    scio_cursor cursor = scio_cursor_make(block->data + at, CHECKSUM_NBYTES, position, DIRECT);
    uint32_t stored = 0, computed;

    SCIO_TRY(scio_cursor_u32(&cursor, &stored, err));
    memset(block->data + at, 0, CHECKSUM_NBYTES);
    computed = scio_h5_lookup3(block->data, (size_t)block->nbytes);
    return scio_h5_compare_sums(stored, computed, (size_t)block->nbytes, position, DIRECT, err);
}

static scio_status
check_direct(const scio_fractal_heap *heap, scio_fractal_block *block, scio_error *err)
{
    scio_cursor cursor = scio_cursor_make(block->data, (size_t)block->nbytes,
                                          scio_fractal_heap_position(heap, block->address), DIRECT);

    SCIO_TRY(check_head(heap, block, &cursor, "FHDB", err));
    if ((heap->flags & FLAG_CHECKED_BLOCKS) == 0)
        return SCIO_OK;
    SCIO_TRY(scio_cursor_skip(&cursor, CHECKSUM_NBYTES, err));
    return check_direct_sum(heap, block, err);
}

/* A block that fails its checks is not kept. */
static scio_status
ensure_direct(scio_fractal_heap *heap, const scio_fractal_block *want, scio_error *err)
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
check_indirect(const scio_fractal_heap *heap, const scio_fractal_block *block, scio_error *err)
{
    const uint64_t position = scio_fractal_heap_position(heap, block->address);
    scio_cursor cursor = scio_cursor_make(block->data, (size_t)block->nbytes, position, INDIRECT);

    SCIO_TRY(check_head(heap, block, &cursor, "FHIB", err));
    return scio_h5_check_sum(block->data, (size_t)block->nbytes, position, INDIRECT, err);
}

static scio_status
ensure_indirect(scio_fractal_heap *heap, unsigned depth, const scio_fractal_block *want,
                scio_error *err)
{
    scio_fractal_block *const slot = &heap->indirect[depth];
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
indirect_nbytes(const scio_fractal_heap *heap, uint64_t n_rows, uint64_t *out, scio_error *err)
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
choose_entry(const scio_fractal_heap *heap, const scio_fractal_block *parent, uint64_t x,
             scio_fractal_block *out, unsigned *row_out, scio_error *err)
{
    const size_t address_nbytes = scio_h5_file_superblock(heap->file)->offset_nbytes;
    const uint64_t y = x - parent->offset;
    const unsigned row =
        y >> heap->row0_bits == 0 ? 0 : scio_fractal_heap_log2(y) - heap->row0_bits + 1;
    scio_cursor cursor =
        scio_cursor_make(parent->data, (size_t)parent->nbytes,
                         scio_fractal_heap_position(heap, parent->address), INDIRECT);
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
scio_status
scio_fractal_heap_find_direct(scio_fractal_heap *heap, uint64_t x, scio_error *err)
{
    scio_fractal_block block = {heap->root, 0, heap->start_nbytes, heap->root_rows, NULL};

    for (unsigned depth = 0; block.n_rows != 0; depth++) {
        const uint64_t parent_rows = block.n_rows;
        scio_fractal_block child = {0};
        unsigned row = 0;

        /* Ids have at most 6 bytes for an offset, so there are at most 49 rows to start with. */
        SCIO_BUG_IF(depth == SCIO_FRACTAL_MAX_DEPTH, err);
        SCIO_TRY(indirect_nbytes(heap, block.n_rows, &block.nbytes, err));
        SCIO_TRY(ensure_indirect(heap, depth, &block, err));
        SCIO_TRY(choose_entry(heap, &heap->indirect[depth], x, &child, &row, err));
        if (row >= heap->n_direct_rows) {
            const unsigned bits = scio_fractal_heap_log2(child.nbytes);

            child.n_rows = bits < heap->row0_bits ? 0 : bits - heap->row0_bits + 1;
            if (child.n_rows == 0 || child.n_rows >= parent_rows)
                return scio_fail(err, SCIO_ECORRUPT,
                                 INDIRECT " at byte %" PRIu64 ": a table of %" PRIu64
                                          " rows below one of %" PRIu64,
                                 scio_fractal_heap_position(heap, block.address), child.n_rows,
                                 parent_rows);
        }
        block = child;
    }
    return ensure_direct(heap, &block, err);
}
