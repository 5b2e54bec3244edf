/* The elements of the chunk indexes that are arrays, and the simpler of the two, the fixed array.
 *
 *   element   A address, [stored bytes, u32 filter mask: filtered]
 *
 *   FAHD   header: element size, page bits, number of elements, A data block
 *   FADB   data block: all elements, or a bitmap and pages of elements with a checksum each */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <string.h>

#define CHECKSUM_NBYTES SCIO_H5_CHECKSUM_NBYTES
#define PREFIX_NBYTES SCIO_H5_PREFIX_NBYTES

unsigned
scio_h5_log2(uint64_t x)
{
    unsigned n = 0;

    while (x >>= 1)
        n++;
    return n;
}

size_t
scio_h5_size_width(const scio_h5_dataset *dataset)
{
    const size_t width = 1 + (scio_h5_log2(dataset->unit_nbytes) + 8) / 8;

    if (scio_h5_dataset_state(dataset)->layout.version >= 5)
        return scio_h5_file_superblock(dataset->file)->length_nbytes;
    return width < 8 ? width : 8;
}

scio_status
scio_h5_elements_init(scio_h5_sink *sink, unsigned n_unlimited, scio_h5_elements *out,
                      scio_error *err)
{
    const unsigned page_bits = sink->layout->page_bits;

    *out = (scio_h5_elements){.sink = sink, .is_filtered = scio_h5_is_filtered(sink->dataset)};
    if (page_bits < 1 || page_bits > 31)
        return scio_fail(err, SCIO_ECORRUPT, "chunk index: %u page bits, expected 1 to 31",
                         page_bits);
    out->page_items = (uint64_t)1 << page_bits;
    out->size_width = scio_h5_size_width(sink->dataset);
    out->element_nbytes = scio_h5_file_superblock(sink->dataset->file)->offset_nbytes +
                          (out->is_filtered ? out->size_width + 4 : 0);
    return scio_h5_linear_init(sink->dataset, n_unlimited, &out->linear, err);
}

scio_status
scio_h5_elements_take(const scio_h5_elements *elements, scio_cursor *cursor, uint64_t i_first,
                      uint64_t n_items, scio_error *err)
{
    const scio_h5_dataset *dataset = elements->sink->dataset;
    uint64_t scaled[SCIO_H5_MAX_RANK] = {0};

    for (uint64_t i = 0; i < n_items; i++) {
        uint64_t address = 0, nbytes = dataset->unit_nbytes;
        uint32_t mask = 0;

        SCIO_TRY(scio_cursor_address(cursor, dataset->file, &address, err));
        if (elements->is_filtered) {
            SCIO_TRY(scio_cursor_uint(cursor, elements->size_width, &nbytes, err));
            SCIO_TRY(scio_cursor_u32(cursor, &mask, err));
        }
        if (address == SCIO_H5_UNDEFINED || i_first + i >= elements->linear.n_chunks)
            continue;
        scio_h5_linear_scaled(&elements->linear, i_first + i, scaled);
        SCIO_TRY(scio_h5_sink_add(elements->sink, scaled, address, nbytes, mask, err));
    }
    return SCIO_OK;
}

static bool
is_bit_set(const uint8_t *bitmap, uint64_t i)
{
    return (bitmap[i / 8] & (0x80u >> i % 8)) != 0;
}

scio_status
scio_h5_elements_pages(const scio_h5_elements *elements, uint64_t address, uint64_t i_first,
                       uint64_t n_items, const uint8_t *bitmap, uint64_t first_bit, scio_error *err)
{
    const uint64_t page_items = elements->page_items;
    const uint64_t page_nbytes = page_items * elements->element_nbytes + CHECKSUM_NBYTES;

    for (uint64_t i_page = 0; n_items != 0; i_page++) {
        const uint64_t n_here = n_items < page_items ? n_items : page_items;
        scio_cursor cursor;

        if (is_bit_set(bitmap, first_bit + i_page)) {
            SCIO_TRY(scio_h5_sink_checked_block(elements->sink, address,
                                                n_here * elements->element_nbytes + CHECKSUM_NBYTES,
                                                NULL, 0, "chunk index page", &cursor, err));
            SCIO_TRY(scio_h5_elements_take(elements, &cursor, i_first, n_here, err));
        }
        i_first += n_here;
        n_items -= n_here;
        if (n_items != 0 && !scio_add_u64(address, page_nbytes, &address))
            return scio_fail(err, SCIO_ECORRUPT, "chunk index page: its address overflows");
    }
    return SCIO_OK;
}

scio_status
scio_h5_expect_u8(scio_cursor *cursor, unsigned expected, const char *field, scio_error *err)
{
    const uint64_t position = cursor->position + cursor->at;
    uint8_t found = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &found, err));
    if (found != expected)
        return scio_fail(err, SCIO_ECORRUPT, "%s at byte %llu: %s is %u, expected %u", cursor->what,
                         (unsigned long long)position, field, found, expected);
    return SCIO_OK;
}

scio_status
scio_h5_expect_owner(const scio_h5_elements *elements, scio_cursor *cursor, scio_error *err)
{
    const uint64_t expected = elements->sink->layout->address;
    uint64_t found = 0;

    SCIO_TRY(scio_cursor_address(cursor, elements->sink->dataset->file, &found, err));
    if (found != expected)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %llu: belongs to the header at address %llu, expected %llu",
                         cursor->what, (unsigned long long)cursor->position,
                         (unsigned long long)found, (unsigned long long)expected);
    return SCIO_OK;
}

/* ---- fixed array ---- */

/* Before any product of n_items is made. */
static scio_status
check_n_items(const scio_h5_elements *elements, uint64_t n_items, scio_error *err)
{
    const scio_h5_superblock *sb = scio_h5_file_superblock(elements->sink->dataset->file);

    if (n_items > sb->end / elements->element_nbytes)
        return scio_fail(
            err, SCIO_ECORRUPT, "chunk index: %llu elements of %zu bytes in a file of %llu bytes",
            (unsigned long long)n_items, elements->element_nbytes, (unsigned long long)sb->end);
    return SCIO_OK;
}

static scio_status
read_fixed_header(const scio_h5_elements *elements, uint64_t *block_address_out, scio_error *err)
{
    const scio_h5_dataset *dataset = elements->sink->dataset;
    const scio_h5_superblock *sb = scio_h5_file_superblock(dataset->file);
    uint64_t n_items = 0;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_sink_checked_block(
        elements->sink, elements->sink->layout->address,
        PREFIX_NBYTES + 2 + sb->length_nbytes + sb->offset_nbytes + CHECKSUM_NBYTES, "FAHD",
        elements->is_filtered, "fixed array header", &cursor, err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, (unsigned)elements->element_nbytes, "element size", err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, elements->sink->layout->page_bits, "page bits", err));
    SCIO_TRY(scio_cursor_length(&cursor, dataset->file, &n_items, err));
    if (n_items != elements->linear.n_chunks)
        return scio_fail(err, SCIO_ECORRUPT,
                         "fixed array header at byte %llu: %llu elements, the dataspace has room "
                         "for %llu chunks",
                         (unsigned long long)cursor.position, (unsigned long long)n_items,
                         (unsigned long long)elements->linear.n_chunks);
    return scio_cursor_address(&cursor, dataset->file, block_address_out, err);
}

/* The data block up to its elements (short block) or to the end of its bitmap (paged). */
static scio_status
read_fixed_block(const scio_h5_elements *elements, uint64_t address, uint64_t body_nbytes,
                 scio_cursor *out, scio_error *err)
{
    const scio_h5_superblock *sb = scio_h5_file_superblock(elements->sink->dataset->file);
    const uint64_t nbytes = PREFIX_NBYTES + sb->offset_nbytes + body_nbytes + CHECKSUM_NBYTES;

    SCIO_TRY(scio_h5_sink_checked_block(elements->sink, address, nbytes, "FADB",
                                        elements->is_filtered, "fixed array data block", out, err));
    return scio_h5_expect_owner(elements, out, err);
}

static scio_status
walk_fixed_pages(const scio_h5_elements *elements, uint64_t address, uint64_t n_items,
                 scio_error *err)
{
    const uint64_t n_pages = (n_items - 1) / elements->page_items + 1;
    const uint64_t bitmap_nbytes = (n_pages + 7) / 8;
    uint8_t *bitmap = NULL;
    const uint8_t *bits = NULL;
    scio_cursor cursor;
    scio_status status;

    SCIO_TRY(read_fixed_block(elements, address, bitmap_nbytes, &cursor, err));
    SCIO_TRY(scio_cursor_bytes(&cursor, (size_t)bitmap_nbytes, &bits, err));
    SCIO_TRY(scio_mem_alloc((size_t)bitmap_nbytes, 1, &bitmap, err));
    memcpy(bitmap, bits, (size_t)bitmap_nbytes); /* the pages reuse the block's memory */
    address += cursor.at + CHECKSUM_NBYTES;
    status = scio_h5_elements_pages(elements, address, 0, n_items, bitmap, 0, err);
    scio_mem_free(bitmap);
    return status;
}

scio_status
scio_h5_walk_fixed(scio_h5_sink *sink, scio_error *err)
{
    uint64_t address = 0, n_items;
    scio_h5_elements elements;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_elements_init(sink, 0, &elements, err));
    SCIO_TRY(read_fixed_header(&elements, &address, err));
    n_items = elements.linear.n_chunks;
    if (address == SCIO_H5_UNDEFINED || n_items == 0)
        return SCIO_OK;
    SCIO_TRY(check_n_items(&elements, n_items, err));
    if (n_items > elements.page_items)
        return walk_fixed_pages(&elements, address, n_items, err);
    SCIO_TRY(read_fixed_block(&elements, address, n_items * elements.element_nbytes, &cursor, err));
    return scio_h5_elements_take(&elements, &cursor, 0, n_items, err);
}
