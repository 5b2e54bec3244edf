/* The global heap: objects of any length, which records name by collection and number.
 *
 * Not for several threads at once. */
#ifndef SCIO_H5READ_GLOBAL_HEAP_H
#define SCIO_H5READ_GLOBAL_HEAP_H

#include "base/buf.h"
#include "base/error.h"
#include "h5read/file.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of the file, kept until the heap is cleared. */
typedef struct scio_h5_window {
    scio_buf *buf;
    uint64_t address; /* of its first byte */
    uint64_t nbytes;
} scio_h5_window;

typedef struct scio_h5_collection {
    uint64_t address;
    const uint8_t *data; /* in a window */
    uint32_t nbytes;
    size_t i_first, n_objects; /* in heap.objects, by rising number */
} scio_h5_collection;

typedef struct scio_h5_heap {
    const scio_h5_file *file; /* borrowed */
    const scio_h5_superblock *sb;
    size_t head_nbytes, object_head_nbytes;
    scio_h5_window *windows;
    size_t n_windows, windows_capacity;
    uint64_t next_window_nbytes, read_ahead_left;
    scio_h5_collection *collections;
    size_t n_collections, collections_capacity;
    uint32_t *objects; /* positions of object heads in their collection */
    size_t n_objects, objects_capacity;
    size_t *slots; /* hash table by address: number of a collection */
    size_t n_slots;
    uint64_t nbytes_left; /* sound collections do not overlap, so all of them fit in the file */
    size_t i_last;        /* the collection that was found last */
} scio_h5_heap;

void scio_h5_heap_init(const scio_h5_file *file, scio_h5_heap *out);
void scio_h5_heap_clear(scio_h5_heap *heap);
/* The object `number` of the collection at `address`; its bytes are valid until the heap is
 * cleared. ECORRUPT when there is none; every collection is checked when it is met. */
SCIO_MUST_CHECK scio_status scio_h5_heap_find(scio_h5_heap *heap, uint64_t address, uint32_t number,
                                              const uint8_t **data_out, uint64_t *nbytes_out,
                                              scio_error *err);

/* A little-endian unsigned of `width` <= 8 bytes. */
static inline uint64_t
scio_h5_load_uint(const uint8_t *p, size_t width)
{
    uint64_t x = 0;

    for (size_t i = width; i-- > 0;)
        x = x << 8 | p[i];
    return x;
}

#endif
