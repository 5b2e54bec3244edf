/* Chunked datasets that rows are appended to: our threads shuffle and compress whole chunks,
 * libhdf5 places them, in order, so that neither the number of threads nor how the rows were cut
 * into appends shows in the dataset.
 *
 * One call at a time on one writer and all its datasets.  Memory: one row of chunks, and a bounded
 * batch of chunks in work, which all datasets of a writer share. */
#ifndef SCIO_H5WRITE_CHUNKED_H
#define SCIO_H5WRITE_CHUNKED_H

#include "base/error.h"
#include "codec/encoder.h"
#include "h5write/writer.h"

#include <stddef.h>
#include <stdint.h>

#define SCIO_H5_UNLIMITED UINT64_MAX

typedef struct scio_h5_chunked scio_h5_chunked;

typedef struct scio_h5_chunked_spec {
    scio_h5_element
        element;   /* without text of any length; what it points to is needed by new only */
    unsigned rank; /* at least 1 */
    uint64_t dims[SCIO_H5_WRITER_MAX_RANK];       /* [0] may be UNLIMITED: as many rows as come */
    uint64_t max_dims[SCIO_H5_WRITER_MAX_RANK];   /* at least dims, or UNLIMITED */
    uint64_t chunk_dims[SCIO_H5_WRITER_MAX_RANK]; /* at least 1; cut to a fixed max_dims */
    bool shuffle, fletcher32;
    int level; /* of deflate, or SCIO_DEFLATE_NONE */
} scio_h5_chunked_spec;

/* A dataset without rows, to be appended to.  It is the writer's: gone with it, or when finished.
 */
SCIO_MUST_CHECK scio_status scio_h5_chunked_new(scio_h5_writer *writer, const char *path,
                                                const scio_h5_chunked_spec *spec,
                                                scio_h5_chunked **out, scio_error *err);
/* n_rows rows, packed, of all axes but the first.  At most max_parallel threads of the shared pool;
 * 0 = in the caller.  Interrupted by `cancel` (may be NULL), the writer has failed. */
SCIO_MUST_CHECK scio_status scio_h5_chunked_append(scio_h5_chunked *chunked, const void *rows,
                                                   uint64_t n_rows, size_t max_parallel,
                                                   const volatile int *cancel, scio_error *err);
/* Places what is left; the dataset is not to be used again, also on failure.  That fewer rows came
 * than were said is one.
 * `*stored_nbytes_out` (may be NULL) = bytes of all its chunks in the file. */
SCIO_MUST_CHECK scio_status scio_h5_chunked_finish(scio_h5_chunked *chunked,
                                                   uint64_t *stored_nbytes_out, scio_error *err);

#endif
