/* The data layout message: where and how a dataset's elements are stored. */
#include "h5read/dataset_internal.h"

#define COMPACT 0
#define CONTIGUOUS 1
#define CHUNKED 2
#define VIRTUAL 3

#define FLAG_EDGE_RAW 1u
#define FLAG_SINGLE_FILTERED 2u

static scio_status
parse_compact(scio_cursor *cursor, size_t size_width, scio_h5_layout_message *out, scio_error *err)
{
    uint64_t nbytes = 0;

    SCIO_TRY(scio_cursor_uint(cursor, size_width, &nbytes, err));
    out->compact_position = cursor->position + cursor->at;
    out->compact_nbytes = (size_t)nbytes;
    return scio_cursor_bytes(cursor, out->compact_nbytes, &out->compact, err);
}

/* n_dims counts the chunk dims and, after them, the element size. */
static scio_status
parse_chunk_dims(scio_cursor *cursor, unsigned n_dims, size_t width, scio_h5_layout_message *out,
                 scio_error *err)
{
    if (n_dims < 2 || n_dims > SCIO_H5_MAX_RANK + 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         "layout message: %u dimensions (element size included), expected 2 to %d",
                         n_dims, SCIO_H5_MAX_RANK + 1);
    out->n_chunk_dims = n_dims - 1;
    for (unsigned i = 0; i < out->n_chunk_dims; i++) {
        SCIO_TRY(scio_cursor_uint(cursor, width, &out->chunk_dims[i], err));
        if (out->chunk_dims[i] == 0)
            return scio_fail(err, SCIO_ECORRUPT, "layout message: chunk dimension %u is 0", i);
    }
    return scio_cursor_uint(cursor, width, &out->element_nbytes, err);
}

static scio_status
parse_old(const scio_h5_file *file, scio_cursor *cursor, scio_h5_layout_message *out,
          scio_error *err)
{
    uint8_t n_dims = 0, layout_class = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &n_dims, err));
    SCIO_TRY(scio_cursor_u8(cursor, &layout_class, err));
    SCIO_TRY(scio_cursor_skip(cursor, 5, err));
    if (layout_class > CHUNKED)
        return scio_fail(err, SCIO_ECORRUPT, "layout message: class %u, expected 0 to 2",
                         layout_class);
    if (layout_class != COMPACT)
        SCIO_TRY(scio_cursor_address(cursor, file, &out->address, err));
    if (layout_class == CHUNKED) {
        out->layout = SCIO_H5_CHUNKED;
        out->index = SCIO_H5_INDEX_BTREE1;
        return parse_chunk_dims(cursor, n_dims, 4, out, err);
    }
    /* The dims of the other classes repeat the dataspace. */
    SCIO_TRY(scio_cursor_skip(cursor, (size_t)4 * n_dims, err));
    if (layout_class == CONTIGUOUS) {
        out->layout = SCIO_H5_CONTIGUOUS;
        return SCIO_OK;
    }
    out->layout = SCIO_H5_COMPACT;
    return parse_compact(cursor, 4, out, err);
}

static scio_status
parse_contiguous(const scio_h5_file *file, scio_cursor *cursor, scio_h5_layout_message *out,
                 scio_error *err)
{
    out->layout = SCIO_H5_CONTIGUOUS;
    SCIO_TRY(scio_cursor_address(cursor, file, &out->address, err));
    return scio_cursor_length(cursor, file, &out->nbytes, err);
}

static scio_status
take_unsigned(scio_cursor *cursor, unsigned *out, scio_error *err)
{
    uint8_t value = 0;

    SCIO_TRY(scio_cursor_u8(cursor, &value, err));
    *out = value;
    return SCIO_OK;
}

static scio_status
parse_index_parameters(const scio_h5_file *file, scio_cursor *cursor, uint8_t type,
                       scio_h5_layout_message *out, scio_error *err)
{
    switch (type) {
    case 1:
        out->index = SCIO_H5_INDEX_SINGLE;
        if (out->is_single_filtered) {
            SCIO_TRY(scio_cursor_length(cursor, file, &out->single_nbytes, err));
            SCIO_TRY(scio_cursor_u32(cursor, &out->single_mask, err));
        }
        return SCIO_OK;
    case 2:
        out->index = SCIO_H5_INDEX_IMPLICIT;
        return SCIO_OK;
    case 3:
        out->index = SCIO_H5_INDEX_FIXED;
        return take_unsigned(cursor, &out->page_bits, err);
    case 4:
        out->index = SCIO_H5_INDEX_EXTENSIBLE;
        SCIO_TRY(take_unsigned(cursor, &out->max_bits, err));
        SCIO_TRY(take_unsigned(cursor, &out->n_index_elements, err));
        SCIO_TRY(take_unsigned(cursor, &out->min_pointers, err));
        SCIO_TRY(take_unsigned(cursor, &out->min_elements, err));
        return take_unsigned(cursor, &out->page_bits, err);
    case 5: /* node size, split and merge percent: the tree's own header says them again */
        out->index = SCIO_H5_INDEX_BTREE2;
        return scio_cursor_skip(cursor, 6, err);
    default:
        return scio_fail(err, SCIO_ECORRUPT, "layout message: chunk index type %u, expected 1 to 5",
                         type);
    }
}

static scio_status
parse_chunked(const scio_h5_file *file, scio_cursor *cursor, scio_h5_layout_message *out,
              scio_error *err)
{
    uint8_t flags = 0, n_dims = 0, width = 4, type = 0;

    out->layout = SCIO_H5_CHUNKED;
    if (out->version == 3) {
        out->index = SCIO_H5_INDEX_BTREE1;
        SCIO_TRY(scio_cursor_u8(cursor, &n_dims, err));
        SCIO_TRY(scio_cursor_address(cursor, file, &out->address, err));
        return parse_chunk_dims(cursor, n_dims, width, out, err);
    }
    SCIO_TRY(scio_cursor_u8(cursor, &flags, err));
    SCIO_TRY(scio_cursor_u8(cursor, &n_dims, err));
    SCIO_TRY(scio_cursor_u8(cursor, &width, err));
    if ((flags & ~(FLAG_EDGE_RAW | FLAG_SINGLE_FILTERED)) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED, "layout message: unknown chunk flags 0x%02x",
                         flags);
    if (width < 1 || width > 8)
        return scio_fail(err, SCIO_ECORRUPT,
                         "layout message: dimensions of %u bytes each, expected 1 to 8", width);
    out->is_edge_raw = (flags & FLAG_EDGE_RAW) != 0;
    out->is_single_filtered = (flags & FLAG_SINGLE_FILTERED) != 0;
    SCIO_TRY(parse_chunk_dims(cursor, n_dims, width, out, err));
    SCIO_TRY(scio_cursor_u8(cursor, &type, err));
    SCIO_TRY(parse_index_parameters(file, cursor, type, out, err));
    return scio_cursor_address(cursor, file, &out->address, err);
}

scio_status
scio_h5_layout_parse(const scio_h5_file *file, const scio_h5_message *message,
                     scio_h5_layout_message *out, scio_error *err)
{
    scio_cursor cursor = scio_h5_message_cursor(message, "layout message");
    uint8_t version = 0, layout_class = 0;

    *out = (scio_h5_layout_message){.address = SCIO_H5_UNDEFINED, .nbytes = UINT64_MAX};
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    if (version < 1 || version > 5)
        return scio_fail(err, SCIO_EUNSUPPORTED, "layout message of version %u, read are 1 to 5",
                         version);
    out->version = version;
    if (version <= 2)
        return parse_old(file, &cursor, out, err);
    SCIO_TRY(scio_cursor_u8(&cursor, &layout_class, err));
    switch (layout_class) {
    case COMPACT:
        out->layout = SCIO_H5_COMPACT;
        return parse_compact(&cursor, 2, out, err);
    case CONTIGUOUS:
        return parse_contiguous(file, &cursor, out, err);
    case CHUNKED:
        return parse_chunked(file, &cursor, out, err);
    case VIRTUAL:
        return scio_fail(err, SCIO_EUNSAFE,
                         "a virtual dataset: its elements lie in other datasets or files");
    default:
        return scio_fail(err, SCIO_ECORRUPT, "layout message: class %u, expected 0 to 3",
                         layout_class);
    }
}
