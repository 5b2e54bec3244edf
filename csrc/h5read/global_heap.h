/* The global heap: objects of any length, which records name by collection and number.
 *
 * The addresses of all collections that will be asked for are given first, so that what lies close
 * together is read at once and nothing is read twice, in whatever order it is asked for.  Not for
 * several threads at once. */
#ifndef SCIO_H5READ_GLOBAL_HEAP_H
#define SCIO_H5READ_GLOBAL_HEAP_H

#include "base/buf.h"
#include "base/error.h"
#include "h5read/file.h"

#include <stddef.h>
#include <stdint.h>

/* A stretch of the file, read when it is first needed and kept. */
typedef struct scio_h5_window {
    uint64_t address; /* of its first byte */
    uint64_t nbytes;
    scio_buf *buf; /* NULL = not read yet */
} scio_h5_window;

typedef struct scio_h5_collection {
    uint64_t address;
    size_t i_window;
    const uint8_t *data;       /* NULL = not parsed yet */
    size_t i_first, n_objects; /* in heap.objects, by rising number */
} scio_h5_collection;

typedef struct scio_h5_heap {
    const scio_h5_file *file; /* borrowed */
    const scio_h5_superblock *sb;
    size_t head_nbytes; /* of a collection and of an object */
    scio_h5_window *windows;
    size_t n_windows;
    scio_h5_collection *collections; /* by rising address */
    size_t n_collections;
    scio_buf **extra;  /* collections that reach beyond their window, by collection; mostly NULL */
    uint32_t *objects; /* positions of object heads in their collection */
    size_t n_objects, objects_capacity;
    size_t *slots; /* hash table by address: number of a collection */
    size_t n_slots;
    uint64_t nbytes_left; /* sound collections do not overlap, so all of them fit in the file */
    size_t i_last;        /* the collection that was found last */
} scio_h5_heap;

/* Sorts `addresses` (repeats are allowed, those outside the file too) and plans the reads. */
SCIO_MUST_CHECK scio_status scio_h5_heap_init(const scio_h5_file *file, uint64_t *addresses,
                                              size_t n_addresses, scio_h5_heap *out,
                                              scio_error *err);
void scio_h5_heap_clear(scio_h5_heap *heap); /* also after a failed init, or on zeros */
/* The object `number` of the collection at `address`, one of those given; its bytes are valid until
 * the heap is cleared.  ECORRUPT when there is none; every collection is checked when it is met. */
SCIO_MUST_CHECK scio_status scio_h5_heap_find(scio_h5_heap *heap, uint64_t address, uint32_t number,
                                              const uint8_t **data_out, uint64_t *nbytes_out,
                                              scio_error *err);

/* A little-endian unsigned of `width` <= 8 bytes. */
static inline uint64_t
scio_h5_load_uint(const uint8_t *p, size_t width)
{
    uint64_t x = 0;

    if (width == 8) /* the compiler makes one load of this */
        return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
               (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
               (uint64_t)p[7] << 56;
    for (size_t i = width; i-- > 0;)
        x = x << 8 | p[i];
    return x;
}

static inline uint32_t
scio_h5_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

#endif
