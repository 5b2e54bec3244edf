/* The superblock: for file.c only. */
#ifndef SCIO_H5READ_SUPERBLOCK_H
#define SCIO_H5READ_SUPERBLOCK_H

#include "h5read/block_cache.h"
#include "h5read/file.h"

/* Looks for the signature at 0, 512, 1024, 2048 …; EFORMAT says what the file looks like instead.
 */
SCIO_MUST_CHECK scio_status scio_h5_superblock_find(scio_source *source, scio_block_cache *cache,
                                                    uint64_t *base_out, scio_error *err);
/* Reads and checks the superblock and its extension.  `inout` is the file's own: base and a
 * provisional end are set, the rest is filled in as it becomes known. */
SCIO_MUST_CHECK scio_status scio_h5_superblock_read(const scio_h5_file *file,
                                                    scio_h5_superblock *inout, scio_error *err);

#endif
