/* Fractal heaps: where the links and attributes of large groups and objects are kept. */
#ifndef SCIO_H5READ_FRACTAL_HEAP_H
#define SCIO_H5READ_FRACTAL_HEAP_H

#include "base/error.h"
#include "h5read/file.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_fractal_heap scio_fractal_heap; /* one thread at a time */

/* Reads the header.  ECORRUPT unless its ids have expected_id_nbytes (at most 8); EUNSUPPORTED when
 * it is filtered. */
SCIO_MUST_CHECK scio_status scio_fractal_heap_open(const scio_h5_file *file, uint64_t address,
                                                   size_t expected_id_nbytes,
                                                   scio_fractal_heap **out, scio_error *err);
void scio_fractal_heap_free(scio_fractal_heap *heap); /* NULL allowed */

/* The object of an id of expected_id_nbytes bytes: borrowed until the next call.  Blocks on the way
 * to it stay in memory, so ids are best asked for by rising scio_fractal_heap_offset. */
SCIO_MUST_CHECK scio_status scio_fractal_heap_get(scio_fractal_heap *heap, const uint8_t *id,
                                                  const uint8_t **data_out, size_t *nbytes_out,
                                                  uint64_t *position_out, scio_error *err);
/* Where the object lies inside the heap; UINT64_MAX when outside of its blocks. */
uint64_t scio_fractal_heap_offset(const scio_fractal_heap *heap, const uint8_t *id);

#endif
