/* An HDF5 file opened for reading: superblock, limits, bounded reads.  No libhdf5, no global state.
 *
 * All objects are named by the address of their object header (relative to the superblock's base,
 * as stored in the file).  A file may be used by any number of threads at once. */
#ifndef SCIO_H5READ_FILE_H
#define SCIO_H5READ_FILE_H

#include "base/error.h"
#include "base/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCIO_H5_UNDEFINED UINT64_MAX /* "undefined address", whatever its width in the file */
#define SCIO_H5_MAX_RANK 32

typedef struct scio_h5_limits {
    uint64_t chunk_nbytes;     /* decoded bytes of one chunk: 1 GiB */
    uint64_t element_nbytes;   /* bytes of one read: UINT64_MAX = only memory bounds it */
    uint64_t attribute_nbytes; /* 64 MiB */
    uint64_t vlen_nbytes;      /* bytes of all variable-length payload of one read: 4 GiB */
    size_t n_members;          /* links of a group, attributes of an object: 1,000,000 */
    size_t depth;              /* groups inside groups, types inside types: 64 and 16 */
    /* Take what is left of a truncated file: its end may lie beyond the source, every read of which
     * stays checked; indexes and groups that are there in part are read in part. */
    bool is_salvage;
} scio_h5_limits;

void scio_h5_limits_default(scio_h5_limits *out);

typedef struct scio_h5_file scio_h5_file; /* refcounted */

/* Retains `source`; reads and checks the superblock.  `limits` NULL = default.  EFORMAT when it is
 * no HDF5 file (saying what it looks like: empty, text, gzip, zip …), ECORRUPT when truncated or
 * broken, EUNSUPPORTED for versions and drivers that are not read. */
SCIO_MUST_CHECK scio_status scio_h5_file_open(scio_source *source, const scio_h5_limits *limits,
                                              scio_h5_file **out, scio_error *err);
scio_h5_file *scio_h5_file_retain(scio_h5_file *file);
void scio_h5_file_release(scio_h5_file *file);              /* NULL allowed */
scio_source *scio_h5_file_source(const scio_h5_file *file); /* borrowed */
const scio_h5_limits *scio_h5_file_limits(const scio_h5_file *file);

typedef struct scio_h5_superblock {
    unsigned version;
    unsigned offset_nbytes, length_nbytes; /* O and L: 2, 4 or 8 */
    uint64_t base;                         /* position of the signature = user block size */
    uint64_t end;                          /* absolute end of the HDF5 part */
    uint64_t root;                         /* address of the root group's object header */
    unsigned chunk_k, group_leaf_k, group_internal_k;
} scio_h5_superblock;

const scio_h5_superblock *scio_h5_file_superblock(const scio_h5_file *file);

/* Reads nbytes at base + address; ECORRUPT when any byte lies beyond the end of file. */
SCIO_MUST_CHECK scio_status scio_h5_read(const scio_h5_file *file, uint64_t address, size_t nbytes,
                                         void *dst, scio_error *err);
/* True when a part of an index that could not be read is left out: the file is being salvaged, and
 * the failure is the file's and not ours. */
bool scio_h5_skips(const scio_h5_file *file, scio_status failure);
/* ECORRUPT unless [address, address + nbytes) lies in the file; names the absolute position. */
SCIO_MUST_CHECK scio_status scio_h5_check_range(const scio_h5_file *file, uint64_t address,
                                                uint64_t nbytes, scio_error *err);

#endif
