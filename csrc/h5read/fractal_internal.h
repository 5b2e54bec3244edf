/* What fractal_heap.c and fractal_blocks.c share. */
#ifndef SCIO_H5READ_FRACTAL_INTERNAL_H
#define SCIO_H5READ_FRACTAL_INTERNAL_H

#include "h5read/fractal_heap.h"

#define SCIO_FRACTAL_MAX_DEPTH 64

/* A block in memory; data NULL = none. */
typedef struct scio_fractal_block {
    uint64_t address;
    uint64_t offset; /* in the heap */
    uint64_t nbytes;
    uint64_t n_rows; /* indirect blocks */
    uint8_t *data;
} scio_fractal_block;

struct scio_fractal_heap {
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
    scio_fractal_block indirect[SCIO_FRACTAL_MAX_DEPTH];
    scio_fractal_block direct;
    uint8_t *huge; /* the last huge or tiny object */
};

static inline uint64_t
scio_fractal_heap_position(const scio_fractal_heap *heap, uint64_t address)
{
    return scio_h5_file_superblock(heap->file)->base + address;
}

/* Floor of the logarithm; value > 0. */
static inline unsigned
scio_fractal_heap_log2(uint64_t value)
{
    unsigned bits = 0;

    while (value >>= 1)
        bits++;
    return bits;
}

/* Leaves the direct block that holds heap offset x in heap->direct, checked. */
SCIO_MUST_CHECK scio_status scio_fractal_heap_find_direct(scio_fractal_heap *heap, uint64_t x,
                                                          scio_error *err);
/* Bytes of a direct block in front of its objects. */
size_t scio_fractal_heap_prefix_nbytes(const scio_fractal_heap *heap);

#endif
