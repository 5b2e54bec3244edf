/* Datasets: description, chunk table, decoding.
 *
 * Everything is read in units: the storage chunks of a chunked dataset; of a contiguous or compact
 * one runs of whole rows (first axis) of about 256 KiB, so that callers see one shape of storage
 * only. */
#ifndef SCIO_H5READ_DATASET_H
#define SCIO_H5READ_DATASET_H

#include "base/buf.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/pool.h"
#include "codec/pipeline.h"
#include "h5read/file.h"
#include "h5read/type.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_h5_layout { SCIO_H5_COMPACT, SCIO_H5_CONTIGUOUS, SCIO_H5_CHUNKED } scio_h5_layout;

typedef struct scio_h5_dataset {
    scio_h5_file *file; /* retained */
    uint64_t address;
    char *path; /* for messages */
    scio_h5_space space;
    scio_h5_type *type;
    uint8_t *fill; /* type->itemsize bytes, NULL = zeros */
    scio_h5_layout layout;
    const char
        *index_name; /* "none", "btree1", "single", "implicit", "fixed", "extensible", "btree2" */
    scio_pipeline pipeline;
    /* Units.  n_units = product of grid; unit i has grid coordinates in row-major order. */
    uint64_t unit_dims[SCIO_H5_MAX_RANK]; /* chunk dims; clipped only by the dataset's edge */
    uint64_t grid[SCIO_H5_MAX_RANK];
    uint64_t n_units;
    uint64_t unit_nbytes; /* decoded bytes of a whole unit in the file's type */
    void *private_state;  /* chunk table and its mutex */
} scio_h5_dataset;

/* Describes the dataset at `address`; reads headers only.  EUNSUPPORTED / EUNSAFE for virtual and
 * external storage.  Filters that are not decodable fail on reading, not here. */
SCIO_MUST_CHECK scio_status scio_h5_dataset_open(scio_h5_file *file, uint64_t address,
                                                 const char *path, scio_h5_dataset **out,
                                                 scio_error *err);
void scio_h5_dataset_free(scio_h5_dataset *dataset);

typedef struct scio_h5_unit {
    uint64_t position; /* absolute file position; SCIO_H5_UNDEFINED = never written: fill value */
    uint64_t nbytes;   /* stored */
    uint32_t filter_mask;
    bool is_raw; /* stored without filters (contiguous, or a partial edge chunk left unfiltered) */
} scio_h5_unit;

/* The table of all units in grid order, built on first use (one pass over the index, thread-safe),
 * borrowed from the dataset. */
SCIO_MUST_CHECK scio_status scio_h5_dataset_units(scio_h5_dataset *dataset,
                                                  const scio_h5_unit **units_out, scio_error *err);

/* Memory for one thread that decodes: decoder, stored bytes, one unit.  Grown on demand. */
typedef struct scio_h5_scratch scio_h5_scratch;
SCIO_MUST_CHECK scio_status scio_h5_scratch_new(scio_h5_scratch **out, scio_error *err);
void scio_h5_scratch_free(scio_h5_scratch *scratch);
size_t scio_h5_scratch_nbytes(const scio_h5_scratch *scratch);

/* One decoded unit.  `data` holds unit_nbytes bytes in row-major order of unit_dims (for the units
 * of contiguous data: only the valid rows), in the file's byte order; valid until the call returns.
 * When shuffle_itemsize > 1 they are still byte planes of that width (only if the caller allowed
 * it). */
typedef scio_status (*scio_h5_unit_fn)(void *context, uint64_t i_unit, const void *data,
                                       size_t nbytes, size_t shuffle_itemsize, scio_error *err);

/* Reads and decodes units [i_first, i_first + n_units) in the calling thread, neighbours on disk
 * (gaps below 256 KiB, at most 8 MiB) with one read, and hands each to `visit` in order.  Holes
 * come as fill values.  `allow_planes`: leave a final unshuffle to the visitor.  Errors name
 * dataset, chunk and byte position.  Counts chunks_decoded. */
SCIO_MUST_CHECK scio_status scio_h5_dataset_decode(scio_h5_dataset *dataset, uint64_t i_first,
                                                   uint64_t n_units, bool allow_planes,
                                                   scio_h5_scratch *scratch, scio_h5_unit_fn visit,
                                                   void *context, scio_error *err);

typedef struct scio_h5_read_options {
    scio_pool *pool;            /* NULL = the shared pool */
    size_t max_parallel;        /* SIZE_MAX = all threads; 0 = in the caller */
    const volatile int *cancel; /* may be NULL */
} scio_h5_read_options;

/* The box [start, start + count) (arrays of space.rank) into `out`, row-major, packed.
 * dtype NONE: the file's own bytes (type->itemsize each, file byte order, vlen records unresolved);
 * else native values cast as scio_cast does (the type must have a dtype).  out_nbytes must be
 * exact. Each touched unit is decoded once, in parallel, straight into place where type and shape
 * allow. */
SCIO_MUST_CHECK scio_status scio_h5_dataset_read(scio_h5_dataset *dataset, const uint64_t *start,
                                                 const uint64_t *count, scio_dtype dtype, void *out,
                                                 size_t out_nbytes,
                                                 const scio_h5_read_options *options,
                                                 scio_error *err);

/* Variable-length values.  `records` = n_items records of type->itemsize bytes each, at `stride`
 * bytes (16 when packed and O = 8), as scio_h5_dataset_read or an attribute gives them. Result:
 * offsets int64[n_items + 1] and the concatenated payload bytes; strings are cut at their first
 * NUL, sequences are count * base itemsize bytes in file byte order.  Collections are parsed once
 * each and cached for the call.  Limits: vlen_nbytes. */
SCIO_MUST_CHECK scio_status scio_h5_vlen_read(scio_h5_file *file, const scio_h5_type *vlen_type,
                                              const void *records, size_t stride, size_t n_items,
                                              scio_buf **offsets_out, scio_buf **payload_out,
                                              scio_error *err);

/* One of several boxes that are read together. */
typedef struct scio_h5_request {
    scio_h5_dataset *dataset;
    const uint64_t *start, *count; /* [rank] */
    /* Variable-length values: `out` is not used, the results are those of scio_h5_vlen_read. */
    bool is_vlen;
    scio_buf *offsets, *payload;
    /* Else as scio_h5_dataset_read. */
    scio_dtype dtype;
    void *out;
    size_t out_nbytes;
    /* Of a dataset of rank 1: sees each stretch of values once, in the thread that has put it in
     * its place.  i_first counts from `start`.  NULL = nobody looks. */
    scio_status (*check)(const void *check_context, const void *items, size_t n_items,
                         uint64_t i_first, scio_error *err);
    const void *check_context;
} scio_h5_request;

/* Reads all of them with one queue of work: the larger first, small ones by the thread that planned
 * them.  The first failure ends it and names the dataset; results are undefined then, buffers that
 * were made are the caller's. */
SCIO_MUST_CHECK scio_status scio_h5_datasets_read(scio_h5_request *requests, size_t n_requests,
                                                  const scio_h5_read_options *options,
                                                  scio_error *err);

#endif
