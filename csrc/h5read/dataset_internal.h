/* What the files behind dataset.h share: parsed messages, the chunk table and its builders, the
 * fetching and decoding of single units.
 *
 *   layout.c fill.c filters_msg.c   messages of the object header
 *   chunk_*.c                       one chunk index each: every entry goes to scio_h5_sink_add
 *   units.c                         the table those entries make, and units of other layouts
 *   decode.c engine.c               stored bytes of units, coalesced; undoing their filters
 *   box.c read*.c                   boxes of elements, of one dataset or of several at once
 *   vlen.c global_heap.c            variable-length values */
#ifndef SCIO_H5READ_DATASET_INTERNAL_H
#define SCIO_H5READ_DATASET_INTERNAL_H

#include "base/error.h"
#include "codec/pipeline.h"
#include "h5read/cursor.h"
#include "h5read/dataset.h"
#include "h5read/file.h"
#include "h5read/header.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* ---- messages ---- */

typedef enum scio_h5_index {
    SCIO_H5_INDEX_NONE,
    SCIO_H5_INDEX_BTREE1,
    SCIO_H5_INDEX_SINGLE,
    SCIO_H5_INDEX_IMPLICIT,
    SCIO_H5_INDEX_FIXED,
    SCIO_H5_INDEX_EXTENSIBLE,
    SCIO_H5_INDEX_BTREE2
} scio_h5_index;

typedef struct scio_h5_layout_message {
    unsigned version;
    scio_h5_layout layout;
    uint64_t address;       /* data, or the chunk index; SCIO_H5_UNDEFINED = nothing was written */
    uint64_t nbytes;        /* contiguous: stored bytes; UINT64_MAX = not said (versions 1 and 2) */
    const uint8_t *compact; /* borrowed from the message */
    size_t compact_nbytes;
    uint64_t compact_position; /* absolute */
    /* chunked: */
    scio_h5_index index;
    unsigned n_chunk_dims; /* the rank that the message believes in */
    uint64_t chunk_dims[SCIO_H5_MAX_RANK];
    uint64_t element_nbytes;
    bool is_edge_raw; /* chunks that reach over the extent are stored without filters */
    bool is_single_filtered;
    uint64_t single_nbytes; /* index SINGLE with filters: stored bytes and mask */
    uint32_t single_mask;
    unsigned page_bits;                                              /* FIXED, EXTENSIBLE */
    unsigned max_bits, n_index_elements, min_pointers, min_elements; /* EXTENSIBLE */
} scio_h5_layout_message;

SCIO_MUST_CHECK scio_status scio_h5_layout_parse(const scio_h5_file *file,
                                                 const scio_h5_message *message,
                                                 scio_h5_layout_message *out, scio_error *err);
/* The fill value from the messages 05 or, without one, 04; `*fill_out` = itemsize bytes, or NULL
 * when it is undefined, absent or all zeros. */
SCIO_MUST_CHECK scio_status scio_h5_fill_parse(const scio_h5_header *header, size_t itemsize,
                                               uint8_t **fill_out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_pipeline_parse(const scio_h5_message *message,
                                                   scio_pipeline *out, scio_error *err);

/* ---- chunk table ---- */

typedef struct scio_h5_entry {
    uint64_t i_unit;
    scio_h5_unit unit;
} scio_h5_entry;

/* private_state of a dataset. */
typedef struct scio_h5_state {
    scio_h5_layout_message layout; /* `compact` points at the copy below */
    uint8_t *compact;
    _Atomic int engine; /* scio_deflate_engine, -1 = not chosen yet */
    pthread_mutex_t mutex;
    /* Under the mutex until built, constant from then on.  Either the whole grid, or, when the grid
     * is much larger than anything the file could hold, the written chunks by rising i_unit. */
    bool is_built;
    scio_h5_unit *units;
    scio_h5_entry *entries;
    size_t n_entries;
} scio_h5_state;

static inline scio_h5_state *
scio_h5_dataset_state(const scio_h5_dataset *dataset)
{
    return dataset->private_state;
}

/* Collects the chunks that an index names. */
typedef struct scio_h5_sink {
    const scio_h5_dataset *dataset;
    const scio_h5_layout_message *layout;
    uint64_t strides[SCIO_H5_MAX_RANK]; /* of the current grid, in units */
    scio_h5_unit *units;                /* dense table, or NULL: */
    scio_h5_entry *entries;
    size_t n_entries, entries_capacity;
    bool is_sorted; /* entries came by rising i_unit */
    /* Structures of an index do not overlap in a sound file, so all that is read of one is bounded
     * by the file: this stops graphs of blocks that name each other many times. */
    uint64_t budget_nbytes;
    uint8_t *block; /* the block read last */
    size_t block_capacity;
} scio_h5_sink;

/* The chunk at scaled[rank] (offset / chunk dim).  An undefined address and chunks outside the grid
 * are left out; sizes, range and repetition are checked. */
SCIO_MUST_CHECK scio_status scio_h5_sink_add(scio_h5_sink *sink, const uint64_t *scaled,
                                             uint64_t address, uint64_t nbytes,
                                             uint32_t filter_mask, scio_error *err);
/* Reads a block of the index; `*out` is valid until the next call. */
SCIO_MUST_CHECK scio_status scio_h5_sink_block(scio_h5_sink *sink, uint64_t address,
                                               uint64_t nbytes, const char *what, scio_cursor *out,
                                               scio_error *err);
/* As above for a block that ends in a checksum (checked; the cursor ends before it) and starts with
 * a signature, version 0 and, when client < 256, that client id (all taken). */
SCIO_MUST_CHECK scio_status scio_h5_sink_checked_block(scio_h5_sink *sink, uint64_t address,
                                                       uint64_t nbytes, const char *signature,
                                                       unsigned client, const char *what,
                                                       scio_cursor *out, scio_error *err);
static inline bool
scio_h5_is_filtered(const scio_h5_dataset *dataset)
{
    return dataset->pipeline.n_filters != 0;
}

/* The numbering of chunks in the indexes IMPLICIT, FIXED and EXTENSIBLE: row-major over the grid of
 * the maximum dims, an unlimited dimension moved to the front. */
typedef struct scio_h5_linear {
    unsigned rank;
    unsigned axes[SCIO_H5_MAX_RANK]; /* slowest first */
    uint64_t
        extents[SCIO_H5_MAX_RANK]; /* chunks along axes[k]; of the current dims when unlimited */
    uint64_t n_chunks;             /* product; UINT64_MAX when that overflows */
} scio_h5_linear;

/* ECORRUPT when another number of unlimited dimensions than n_unlimited is declared. */
SCIO_MUST_CHECK scio_status scio_h5_linear_init(const scio_h5_dataset *dataset,
                                                unsigned n_unlimited, scio_h5_linear *out,
                                                scio_error *err);
void scio_h5_linear_scaled(const scio_h5_linear *linear, uint64_t i_chunk, uint64_t *scaled_out);
uint64_t scio_h5_linear_number(const scio_h5_linear *linear, const uint64_t *scaled);

#define SCIO_H5_CHECKSUM_NBYTES 4
#define SCIO_H5_PREFIX_NBYTES 6 /* signature, version, client */

/* Elements of FIXED and EXTENSIBLE: address, and with filters stored size and mask. */
typedef struct scio_h5_elements {
    scio_h5_sink *sink;
    scio_h5_linear linear;
    bool is_filtered;
    size_t size_width;     /* bytes of the stored size */
    size_t element_nbytes; /* of one element */
    uint64_t page_items;   /* 1 << page_bits */
} scio_h5_elements;

SCIO_MUST_CHECK scio_status scio_h5_elements_init(scio_h5_sink *sink, unsigned n_unlimited,
                                                  scio_h5_elements *out, scio_error *err);
/* Bytes of the stored size in layouts 4 and 5. */
size_t scio_h5_size_width(const scio_h5_dataset *dataset);
/* Takes n_items elements from the cursor; the first is chunk number i_first. */
SCIO_MUST_CHECK scio_status scio_h5_elements_take(const scio_h5_elements *elements,
                                                  scio_cursor *cursor, uint64_t i_first,
                                                  uint64_t n_items, scio_error *err);
/* The pages of a data block: n_items elements from `address` on, each page with its checksum; pages
 * whose bit in bitmap (from first_bit on) is not set are left out. */
SCIO_MUST_CHECK scio_status scio_h5_elements_pages(const scio_h5_elements *elements,
                                                   uint64_t address, uint64_t i_first,
                                                   uint64_t n_items, const uint8_t *bitmap,
                                                   uint64_t first_bit, scio_error *err);

/* Fields that must repeat what is known already: a number, and the address of the index header. */
SCIO_MUST_CHECK scio_status scio_h5_expect_u8(scio_cursor *cursor, unsigned expected,
                                              const char *field, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_expect_owner(const scio_h5_elements *elements,
                                                 scio_cursor *cursor, scio_error *err);
unsigned scio_h5_log2(uint64_t x); /* floor; 0 for 0 */

SCIO_MUST_CHECK scio_status scio_h5_walk_btree1(scio_h5_sink *sink, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_walk_single(scio_h5_sink *sink, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_walk_implicit(scio_h5_sink *sink, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_walk_fixed(scio_h5_sink *sink, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_walk_extensible(scio_h5_sink *sink, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_walk_btree2(scio_h5_sink *sink, scio_error *err);

/* Makes the table of a chunked dataset if it is not there yet; nothing to do for other layouts. */
SCIO_MUST_CHECK scio_status scio_h5_table_ensure(scio_h5_dataset *dataset, scio_error *err);
/* Unit i_unit < n_units, after scio_h5_table_ensure. */
scio_h5_unit scio_h5_unit_find(const scio_h5_dataset *dataset, uint64_t i_unit);
/* Bytes of a unit as dataset.h hands it out: whole chunks, valid rows of other layouts. */
uint64_t scio_h5_unit_nbytes(const scio_h5_dataset *dataset, uint64_t i_unit);
/* Grid coordinates of a unit: coordinates_out[rank]. */
void scio_h5_unit_coordinates(const scio_h5_dataset *dataset, uint64_t i_unit,
                              uint64_t *coordinates_out);
/* Puts "/X/data: chunk (12,) at byte 183204: " in front of a failure. */
void scio_h5_unit_context(const scio_h5_dataset *dataset, uint64_t i_unit, const scio_h5_unit *unit,
                          scio_error *err);

/* ---- stored bytes, decoding ---- */

#define SCIO_H5_GAP_NBYTES ((uint64_t)256 << 10)
#define SCIO_H5_N_ENTRIES 128 /* units that are looked up and planned at a time */

typedef struct scio_h5_memory {
    uint8_t *data;
    size_t capacity;
} scio_h5_memory;

struct scio_h5_scratch {
    scio_decoder *decoder;
    scio_h5_memory stored; /* one coalesced read */
    scio_h5_memory unit;   /* one decoded unit */
    scio_h5_memory packed; /* values of a box before, */
    scio_h5_memory cast;   /* and after a cast */
    scio_h5_entry entries[SCIO_H5_N_ENTRIES];
};

/* At least nbytes; the content is lost when it grows. */
SCIO_MUST_CHECK scio_status scio_h5_memory_ensure(scio_h5_memory *memory, uint64_t nbytes,
                                                  scio_error *err);

/* `stored` is NULL for units that were never written.  Errors get the unit's context. */
typedef scio_status (*scio_h5_stored_fn)(void *context, const scio_h5_entry *entry,
                                         const uint8_t *stored, scio_error *err);
/* Hands the stored bytes of n_entries units to `visit` in order, neighbours on disk by one read,
 * after a check of their sizes. */
SCIO_MUST_CHECK scio_status scio_h5_fetch(const scio_h5_dataset *dataset,
                                          const scio_h5_entry *entries, size_t n_entries,
                                          scio_h5_scratch *scratch, scio_h5_stored_fn visit,
                                          void *context, scio_error *err);
/* Bytes of a compact or contiguous dataset whose storage is not a hole. */
SCIO_MUST_CHECK scio_status scio_h5_plain_read(const scio_h5_dataset *dataset, uint64_t offset,
                                               size_t nbytes, void *dst, scio_error *err);
/* The bytes of a written unit, as scio_h5_fetch gives them, decoded into out[unit_nbytes].
 * shuffle_itemsize_out NULL = always plain elements; else as scio_pipeline_decode_planes. */
SCIO_MUST_CHECK scio_status scio_h5_unit_decode(const scio_h5_dataset *dataset,
                                                const scio_h5_unit *unit, const uint8_t *stored,
                                                scio_decoder *decoder, void *out,
                                                size_t *shuffle_itemsize_out, scio_error *err);
/* Sets the scratch's decoder to the deflate engine that is faster on this dataset; cannot fail.
 * After scio_h5_table_ensure. */
void scio_h5_engine_set(const scio_h5_dataset *dataset, scio_h5_scratch *scratch);
/* n_items times the same item (NULL = zeros). */
void scio_h5_fill_items(void *dst, const void *item, size_t itemsize, size_t n_items);

/* ---- boxes ---- */

/* A box of elements inside two row-major arrays, as runs that are contiguous in both. */
typedef struct scio_h5_box {
    unsigned n_outer; /* axes that step from run to run, slowest first */
    uint64_t counts[SCIO_H5_MAX_RANK];
    uint64_t src_strides[SCIO_H5_MAX_RANK], dst_strides[SCIO_H5_MAX_RANK]; /* in items */
    uint64_t src_first, dst_first;
    uint64_t run_items, n_runs;
} scio_h5_box;

/* count[rank] > 0 items per axis, at src_start of an array of src_dims and at dst_start of one of
 * dst_dims; NULL starts are zeros. */
void scio_h5_box_init(unsigned rank, const uint64_t *count, const uint64_t *src_dims,
                      const uint64_t *src_start, const uint64_t *dst_dims,
                      const uint64_t *dst_start, scio_h5_box *out);
/* Where run i_run < n_runs starts, in items. */
void scio_h5_box_run(const scio_h5_box *box, uint64_t i_run, uint64_t *src_out, uint64_t *dst_out);
void scio_h5_box_copy(const scio_h5_box *box, size_t itemsize, const uint8_t *src, uint8_t *dst);
/* Fills the runs of dst with one item (NULL = zeros). */
void scio_h5_box_fill(const scio_h5_box *box, size_t itemsize, const void *item, uint8_t *dst);

/* ---- reading ---- */

typedef enum scio_h5_mode {
    SCIO_H5_MODE_COPY, /* the file's bytes are the result */
    SCIO_H5_MODE_SWAP, /* … after reversing each item's bytes */
    SCIO_H5_MODE_CAST
} scio_h5_mode;

/* One scio_h5_dataset_read under way. */
typedef struct scio_h5_reading {
    scio_h5_dataset *dataset;
    scio_h5_mode mode;
    scio_dtype src_dtype, dst_dtype;
    size_t src_itemsize, dst_itemsize;
    const uint64_t *start, *count; /* the box, [rank] */
    uint8_t *out;
    const volatile int *cancel;
    uint8_t *fill;           /* in the result's type; NULL = zeros */
    scio_status fill_status; /* of converting it: matters only when a hole is met */
    scio_error fill_err;
    /* chunked: */
    uint64_t first_unit[SCIO_H5_MAX_RANK], n_touched[SCIO_H5_MAX_RANK];
    uint64_t units_per_job, n_units_touched;
    /* contiguous: */
    scio_h5_box box;
    uint64_t pieces_per_run, runs_per_job;
    scio_h5_scratch **scratches; /* per slot, made by the slot's first job */
} scio_h5_reading;

/* Of a reading with dataset, start, count, out and cancel: checks it, makes the chunk table, fills
 * what is one hole.  *has_jobs_out: jobs must be counted and run.  End it in any case. */
SCIO_MUST_CHECK scio_status scio_h5_reading_start(scio_h5_reading *reading, scio_dtype dtype,
                                                  size_t out_nbytes, bool *has_jobs_out,
                                                  scio_error *err);
/* How many jobs so many threads should have; after it, each may be run once by any thread, with the
 * thread's scratch, which is made when it is NULL. */
size_t scio_h5_reading_jobs(scio_h5_reading *reading, size_t n_slots_wanted);
SCIO_MUST_CHECK scio_status scio_h5_reading_run(const scio_h5_reading *reading, size_t i_job,
                                                scio_h5_scratch **scratch, scio_error *err);
void scio_h5_reading_end(scio_h5_reading *reading);

/* n_items values from the file's type to the result's; src == dst is allowed unless CAST. */
SCIO_MUST_CHECK scio_status scio_h5_convert(const scio_h5_reading *reading, const void *src,
                                            void *dst, size_t n_items, scio_error *err);
/* Prepare a reading (count > 0 in every axis) and say how many jobs it has; run one of them. */
size_t scio_h5_chunked_jobs(scio_h5_reading *reading, size_t n_slots_wanted);
SCIO_MUST_CHECK scio_status scio_h5_chunked_run(const scio_h5_reading *reading, size_t i_job,
                                                scio_h5_scratch *scratch, scio_error *err);
size_t scio_h5_plain_jobs(scio_h5_reading *reading);
/* Items of one job of a run that is cut into pieces. */
uint64_t scio_h5_plain_piece(const scio_h5_reading *reading);
SCIO_MUST_CHECK scio_status scio_h5_plain_run(const scio_h5_reading *reading, size_t i_job,
                                              scio_h5_scratch *scratch, scio_error *err);

#endif
