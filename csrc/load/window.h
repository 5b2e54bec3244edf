/* Decoded rows in memory: the ring with the blocks of two windows, the zones between blocks.
 *
 * A block is opened (memory for it and for its zones), decoded (a job for each array of each track:
 * two for CSR, data and indices, one for dense; in any thread), read by collation, and closed with
 * the last window that uses it.
 * Opening and closing are serialised by the owner's lock; decoding and reading take no lock: the
 * jobs of a block write disjoint memory, and nobody reads before all of them are done.
 *
 * Compact: indices as uint16 where the source has at most 65,536 columns, else uint32; float32
 * values of a block's interior as uint8 or uint16 while all of them fit, else, and in zones, as
 * stored. */
#ifndef SCIO_LOAD_WINDOW_H
#define SCIO_LOAD_WINDOW_H

#include "base/error.h"
#include "base/pool.h"
#include "load/collate.h"
#include "load/plan.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_item_range {
    int64_t begin, end;
} scio_item_range;

typedef struct scio_store_job {
    scio_job job;
    void *owner;
    size_t i_block;
    unsigned which;
} scio_store_job;

/* A track of a block. */
typedef struct scio_store_part {
    scio_plan_place place; /* in the block's memory */
    scio_dtype value_dtype;
    /* on_error="skip": items (dense: rows) that could not be decoded, of data and of indices. */
    scio_item_range *broken[2];
    size_t n_broken[2];
} scio_store_part;

typedef struct scio_store_block {
    char *memory;                   /* track behind track; in the ring; NULL when empty */
    scio_store_part *parts;         /* [plan->n_tracks] */
    bool is_live;                   /* is decoded at all */
    bool has_interior;              /* its interior is used */
    bool covers_left, covers_right; /* also decodes the other block's part of that zone */
    char *zone;                     /* the zone behind it; NULL when not held */
    scio_error *failure;            /* the owner's */
    scio_store_job *jobs;           /* [scio_store_n_jobs], the owner's */
} scio_store_block;

typedef struct scio_store {
    const scio_plan *plan;
    scio_matrix *const *matrices; /* [source][track] */
    const volatile int *cancel;
    bool is_skip_errors;
    scio_store_block *blocks; /* [plan->n_blocks] */
    scio_store_part *parts;   /* [block][track] */
    scio_store_job *jobs;     /* [block][2 * track] */
    size_t first_window;
    /* The ring; guarded by the owner's lock. */
    scio_buf *ring;
    size_t head, tail, n_live;
    bool is_wrapped;
    size_t oldest;        /* place in the order of the oldest block that may be open */
    uint64_t zone_nbytes; /* held now */
} scio_store;

/* What the store holds of a matrix. */
scio_dtype scio_store_index_dtype(const scio_matrix *matrix);

/* For an epoch that starts in window `first_window` (0, or later when resumed).  `matrices`
 * (borrowed): the tracks of source 0, of source 1 and so on. */
SCIO_MUST_CHECK scio_status scio_store_init(scio_store *store, const scio_plan *plan,
                                            scio_matrix *const *matrices, size_t first_window,
                                            bool is_skip_errors, const volatile int *cancel,
                                            scio_error *err);
void scio_store_clear(scio_store *store);
/* The places in the order that window w decodes. */
void scio_store_window_order(const scio_store *store, size_t i_window, size_t *begin_out,
                             size_t *end_out);
/* For each track 2 for CSR, 1 for dense, 0 in memory; 0 for a block that is not decoded. */
unsigned scio_store_n_jobs(const scio_store *store, size_t i_block);
/* Units that decoding the block will touch. */
int64_t scio_store_n_units(const scio_store *store, size_t i_block);
SCIO_MUST_CHECK scio_status scio_store_open(scio_store *store, size_t i_block, scio_error *err);
typedef struct scio_store_count {
    int64_t n_units; /* decoded */
    int64_t nbytes;  /* stored bytes read */
} scio_store_count;

/* Job `which` (of scio_store_n_jobs) of an open block: one array of one track. */
SCIO_MUST_CHECK scio_status scio_store_decode(scio_store *store, size_t i_block, unsigned which,
                                              scio_h5_scratch **scratch,
                                              scio_store_count *count_out, scio_error *err);
/* Gives back what no window after i_window uses. */
void scio_store_close_window(scio_store *store, size_t i_window);
/* Points `row` at a track of a cell of a decoded window (all but map). */
void scio_store_row(const scio_store *store, const scio_plan_entry *entry, size_t i_track,
                    scio_row *row);
/* The block whose decoding failed for the cell, or NULL. */
const scio_error *scio_store_failure(const scio_store *store, const scio_plan_entry *entry);
/* A cell is broken when any of its tracks is. */
bool scio_store_is_broken(const scio_store *store, const scio_plan_entry *entry);

#endif
