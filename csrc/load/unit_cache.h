/* Decoded storage units kept for the next call: least recently used goes first, bytes bounded. */
#ifndef SCIO_LOAD_UNIT_CACHE_H
#define SCIO_LOAD_UNIT_CACHE_H

#include "base/buf.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_unit_cache scio_unit_cache; /* any number of threads */

SCIO_MUST_CHECK scio_status scio_unit_cache_new(size_t cap_nbytes, scio_unit_cache **out,
                                                scio_error *err);
void scio_unit_cache_free(scio_unit_cache *cache); /* NULL allowed */
/* The unit with one more reference, or NULL. `which` tells arrays apart (0 data, 1 indices). */
scio_buf *scio_unit_cache_get(scio_unit_cache *cache, unsigned which, uint64_t i_unit);
/* Keeps `buf` (retained) if it fits; a cache that cannot keep it is no error. */
void scio_unit_cache_put(scio_unit_cache *cache, unsigned which, uint64_t i_unit, scio_buf *buf);
/* Another cap; what is too much for it goes. */
void scio_unit_cache_limit(scio_unit_cache *cache, size_t cap_nbytes);
size_t scio_unit_cache_cap(const scio_unit_cache *cache);
size_t scio_unit_cache_nbytes(scio_unit_cache *cache);

#endif
