/* The version-2 B-tree of chunks: datasets with two or more unlimited dimensions.
 *
 *   record   A address, [stored bytes, u32 filter mask: filtered], rank x u64 scaled offset */
#include "h5read/dataset_internal.h"

#define TYPE_PLAIN 10
#define TYPE_FILTERED 11

typedef struct record_reader {
    scio_h5_sink *sink;
    bool is_filtered;
    size_t size_width;
} record_reader;

static scio_status
take_record(void *context, const uint8_t *record, size_t record_nbytes, scio_error *err)
{
    const record_reader *reader = context;
    const scio_h5_dataset *dataset = reader->sink->dataset;
    scio_cursor cursor = scio_cursor_make(record, record_nbytes, 0, "chunk record");
    uint64_t scaled[SCIO_H5_MAX_RANK] = {0}, address = 0, nbytes = dataset->unit_nbytes;
    uint32_t mask = 0;

    SCIO_TRY(scio_cursor_address(&cursor, dataset->file, &address, err));
    if (reader->is_filtered) {
        SCIO_TRY(scio_cursor_uint(&cursor, reader->size_width, &nbytes, err));
        SCIO_TRY(scio_cursor_u32(&cursor, &mask, err));
    }
    for (unsigned i = 0; i < dataset->space.rank; i++)
        SCIO_TRY(scio_cursor_u64(&cursor, &scaled[i], err));
    return scio_h5_sink_add(reader->sink, scaled, address, nbytes, mask, err);
}

scio_status
scio_h5_walk_btree2(scio_h5_sink *sink, scio_error *err)
{
    const scio_h5_dataset *dataset = sink->dataset;
    const size_t address_nbytes = scio_h5_file_superblock(dataset->file)->offset_nbytes;
    record_reader reader = {sink, scio_h5_is_filtered(dataset), scio_h5_size_width(dataset)};
    const size_t record_nbytes = address_nbytes + (reader.is_filtered ? reader.size_width + 4 : 0) +
                                 (size_t)8 * dataset->space.rank;

    return scio_h5_btree2_walk(dataset->file, sink->layout->address,
                               reader.is_filtered ? TYPE_FILTERED : TYPE_PLAIN, record_nbytes,
                               take_record, &reader, err);
}
