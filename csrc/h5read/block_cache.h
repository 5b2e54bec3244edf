/* The metadata of a file in a few aligned blocks: structures are small and lie close together, so
 * most reads of them need no system call, and of a remote file no request.
 *
 * Any number of threads; the mutex guards the table only and is not held while reading. */
#ifndef SCIO_H5READ_BLOCK_CACHE_H
#define SCIO_H5READ_BLOCK_CACHE_H

#include "base/error.h"
#include "base/source.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_block_cache scio_block_cache;

/* Borrows `source`, which must outlive the cache. */
SCIO_MUST_CHECK scio_status scio_block_cache_new(scio_source *source, scio_block_cache **out,
                                                 scio_error *err);
void scio_block_cache_free(scio_block_cache *cache); /* NULL allowed */
/* Reads up to a block's length through the cache, more straight from the source. */
SCIO_MUST_CHECK scio_status scio_block_cache_read(scio_block_cache *cache, uint64_t position,
                                                  size_t nbytes, void *dst, scio_error *err);

#endif
