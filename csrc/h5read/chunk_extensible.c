/* The extensible array: the chunk index of datasets with one unlimited dimension.
 *
 *   EAHD   header: parameters, statistics, A index block
 *   EAIB   index block: the first elements, A data blocks of the first super blocks, A super blocks
 *   EASB   super block u: 2^(u/2) data blocks of min_elements * 2^((u+1)/2) elements each
 *   EADB   data block, in pages when it is longer than one
 *
 * All sizes are computed from the parameters; the statistics are not looked at.  Blocks that lie
 * wholly beyond the present extent are not read. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <string.h>

#define CHECKSUM_NBYTES SCIO_H5_CHECKSUM_NBYTES
#define PREFIX_NBYTES SCIO_H5_PREFIX_NBYTES
#define N_STATISTICS 6

typedef struct ext_array {
    scio_h5_elements elements;
    unsigned offset_nbytes;  /* of an address */
    size_t position_nbytes;  /* of the field "block offset" */
    unsigned n_direct;       /* super blocks whose data blocks the index block names */
    unsigned n_super_blocks; /* in all */
    uint64_t i_next;         /* number of the first element not passed yet */
} ext_array;

static uint64_t
n_data_blocks(unsigned u)
{
    return (uint64_t)1 << (u / 2);
}

static uint64_t
n_block_items(const ext_array *a, unsigned u)
{
    return (uint64_t)a->elements.sink->layout->min_elements << ((u + 1) / 2);
}

static bool
is_done(const ext_array *a)
{
    return a->i_next >= a->elements.linear.n_chunks;
}

/* Passes n_blocks * n_items elements; beyond 2^64 there are none. */
static void
advance(ext_array *a, uint64_t n_blocks, uint64_t n_items)
{
    uint64_t n;

    if (!scio_mul_u64(n_blocks, n_items, &n) || !scio_add_u64(a->i_next, n, &a->i_next))
        a->i_next = UINT64_MAX;
}

static bool
is_power_of_two(unsigned x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

static scio_status
array_init(scio_h5_sink *sink, ext_array *a, scio_error *err)
{
    const scio_h5_layout_message *p = sink->layout;
    unsigned q_bits, first;

    *a = (ext_array){
        .offset_nbytes = scio_h5_file_superblock(sink->dataset->file)->offset_nbytes,
        .position_nbytes = ((size_t)p->max_bits + 7) / 8,
    };
    SCIO_TRY(scio_h5_elements_init(sink, 1, &a->elements, err));
    if (p->max_bits < 1 || p->max_bits > 64 || !is_power_of_two(p->min_pointers) ||
        !is_power_of_two(p->min_elements))
        return scio_fail(err, SCIO_ECORRUPT,
                         "extensible array: %u bits, %u elements and %u pointers at least; "
                         "expected 1 to 64 bits and powers of two",
                         p->max_bits, p->min_elements, p->min_pointers);
    q_bits = scio_h5_log2(p->min_elements);
    first = 2 * scio_h5_log2(p->min_pointers);
    if (q_bits > p->max_bits || first > 1 + p->max_bits - q_bits)
        return scio_fail(err, SCIO_ECORRUPT,
                         "extensible array: %u elements and %u pointers at least do not fit in %u "
                         "bits",
                         p->min_elements, p->min_pointers, p->max_bits);
    a->n_super_blocks = 1 + p->max_bits - q_bits;
    a->n_direct = first;
    /* Only data blocks below super blocks have a bitmap of pages. */
    if (n_block_items(a, first) > a->elements.page_items)
        return scio_fail(err, SCIO_ECORRUPT,
                         "extensible array: pages of %llu elements are shorter than the first data "
                         "block below a super block, which has %llu",
                         (unsigned long long)a->elements.page_items,
                         (unsigned long long)n_block_items(a, first));
    return SCIO_OK;
}

static scio_status
read_header(const ext_array *a, uint64_t *index_block_out, scio_error *err)
{
    const scio_h5_sink *sink = a->elements.sink;
    const scio_h5_layout_message *p = sink->layout;
    const size_t length_nbytes = scio_h5_file_superblock(sink->dataset->file)->length_nbytes;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_sink_checked_block(
        a->elements.sink, p->address,
        PREFIX_NBYTES + 6 + N_STATISTICS * length_nbytes + a->offset_nbytes + CHECKSUM_NBYTES,
        "EAHD", a->elements.is_filtered, "extensible array header", &cursor, err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, (unsigned)a->elements.element_nbytes, "element size", err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, p->max_bits, "bits", err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, p->n_index_elements, "elements in the index block", err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, p->min_elements, "least elements", err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, p->min_pointers, "least pointers", err));
    SCIO_TRY(scio_h5_expect_u8(&cursor, p->page_bits, "page bits", err));
    SCIO_TRY(scio_cursor_skip(&cursor, N_STATISTICS * length_nbytes, err));
    return scio_cursor_address(&cursor, sink->dataset->file, index_block_out, err);
}

/* A data block of n_items elements; bitmap NULL = not paged. */
static scio_status
read_data_block(ext_array *a, uint64_t address, uint64_t n_items, const uint8_t *bitmap,
                uint64_t first_bit, scio_error *err)
{
    const scio_h5_elements *elements = &a->elements;
    const uint64_t body_nbytes = bitmap == NULL ? n_items * elements->element_nbytes : 0;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_sink_checked_block(
        elements->sink, address,
        PREFIX_NBYTES + a->offset_nbytes + a->position_nbytes + body_nbytes + CHECKSUM_NBYTES,
        "EADB", elements->is_filtered, "extensible array data block", &cursor, err));
    SCIO_TRY(scio_h5_expect_owner(elements, &cursor, err));
    SCIO_TRY(scio_cursor_skip(&cursor, a->position_nbytes, err));
    if (bitmap == NULL)
        return scio_h5_elements_take(elements, &cursor, a->i_next, n_items, err);
    return scio_h5_elements_pages(elements, address + cursor.at + CHECKSUM_NBYTES, a->i_next,
                                  n_items, bitmap, first_bit, err);
}

/* The data blocks of super block u, whose addresses (and page bitmap) are in `body`. */
static scio_status
read_data_blocks(ext_array *a, unsigned u, const uint8_t *bitmap, scio_cursor *body,
                 scio_error *err)
{
    const scio_h5_file *file = a->elements.sink->dataset->file;
    const uint64_t n_items = n_block_items(a, u);
    const uint64_t n_pages = n_items / a->elements.page_items;

    for (uint64_t k = 0; k < n_data_blocks(u) && !is_done(a); k++) {
        uint64_t address = 0;

        SCIO_TRY(scio_cursor_address(body, file, &address, err));
        if (address != SCIO_H5_UNDEFINED)
            SCIO_TRY(read_data_block(a, address, n_items, bitmap, k * n_pages, err));
        advance(a, 1, n_items);
    }
    return SCIO_OK;
}

/* Copies what follows in `from`: reading data blocks reuses the memory it lies in. */
static scio_status
keep_rest(const scio_cursor *from, uint8_t **copy_out, scio_cursor *out, scio_error *err)
{
    const size_t nbytes = scio_cursor_left(from);

    SCIO_TRY(scio_mem_alloc(nbytes, 1, copy_out, err));
    memcpy(*copy_out, from->data + from->at, nbytes);
    *out = scio_cursor_make(*copy_out, nbytes, from->position + from->at, from->what);
    return SCIO_OK;
}

static scio_status
read_super_block(ext_array *a, unsigned u, uint64_t address, scio_error *err)
{
    const bool is_paged = n_block_items(a, u) > a->elements.page_items;
    const uint64_t n_pages = is_paged ? n_block_items(a, u) / a->elements.page_items : 0;
    uint64_t bitmap_nbytes, nbytes;
    uint8_t *copy = NULL;
    const uint8_t *bitmap = NULL;
    scio_cursor cursor, body;
    scio_status status;

    /* 2^32 data blocks of 2^39 elements at most, so only the product can overflow. */
    if (!scio_mul_u64(n_data_blocks(u), (n_pages + 7) / 8, &bitmap_nbytes) ||
        !scio_add_u64(bitmap_nbytes,
                      PREFIX_NBYTES + a->offset_nbytes + a->position_nbytes +
                          n_data_blocks(u) * a->offset_nbytes + CHECKSUM_NBYTES,
                      &nbytes))
        nbytes = UINT64_MAX;
    SCIO_TRY(scio_h5_sink_checked_block(a->elements.sink, address, nbytes, "EASB",
                                        a->elements.is_filtered, "extensible array super block",
                                        &cursor, err));
    SCIO_TRY(scio_h5_expect_owner(&a->elements, &cursor, err));
    SCIO_TRY(scio_cursor_skip(&cursor, a->position_nbytes, err));
    SCIO_TRY(keep_rest(&cursor, &copy, &body, err));
    status = is_paged ? scio_cursor_bytes(&body, (size_t)bitmap_nbytes, &bitmap, err) : SCIO_OK;
    if (status == SCIO_OK)
        status = read_data_blocks(a, u, bitmap, &body, err);
    scio_mem_free(copy);
    return status;
}

static scio_status
read_super_blocks(ext_array *a, scio_cursor *pointers, scio_error *err)
{
    for (unsigned u = 0; u < a->n_super_blocks && !is_done(a); u++) {
        uint64_t address = 0;

        if (u < a->n_direct) {
            SCIO_TRY(read_data_blocks(a, u, NULL, pointers, err));
            continue;
        }
        SCIO_TRY(scio_cursor_address(pointers, a->elements.sink->dataset->file, &address, err));
        if (address == SCIO_H5_UNDEFINED)
            advance(a, n_data_blocks(u), n_block_items(a, u));
        else
            SCIO_TRY(read_super_block(a, u, address, err));
    }
    return SCIO_OK;
}

scio_status
scio_h5_walk_extensible(scio_h5_sink *sink, scio_error *err)
{
    const scio_h5_layout_message *p = sink->layout;
    uint64_t address = 0, n_pointers;
    uint8_t *copy = NULL;
    scio_cursor cursor, pointers;
    scio_status status;
    ext_array a;

    SCIO_TRY(array_init(sink, &a, err));
    SCIO_TRY(read_header(&a, &address, err));
    if (address == SCIO_H5_UNDEFINED)
        return SCIO_OK;
    n_pointers = 2 * ((uint64_t)p->min_pointers - 1) + (a.n_super_blocks - a.n_direct);
    SCIO_TRY(scio_h5_sink_checked_block(
        sink, address,
        PREFIX_NBYTES + a.offset_nbytes + p->n_index_elements * a.elements.element_nbytes +
            n_pointers * a.offset_nbytes + CHECKSUM_NBYTES,
        "EAIB", a.elements.is_filtered, "extensible array index block", &cursor, err));
    SCIO_TRY(scio_h5_expect_owner(&a.elements, &cursor, err));
    SCIO_TRY(scio_h5_elements_take(&a.elements, &cursor, 0, p->n_index_elements, err));
    advance(&a, 1, p->n_index_elements);
    SCIO_TRY(keep_rest(&cursor, &copy, &pointers, err));
    status = read_super_blocks(&a, &pointers, err);
    scio_mem_free(copy);
    return status;
}
