/* The compact store: decoded rows of all cells, kept in memory so that later epochs read and decode
 * nothing.
 *
 * Lossless and narrow, row by row: indices as uint16 where all of the row fit, else uint32; values
 * as uint8 or uint16 where all of the row are integers that fit, else as they came.  So the bytes
 * that a cell takes follow from the cell alone, and whether all cells fit does not depend on the
 * order in which they come.
 *
 * Rows come from any thread and are read by any thread; the first one put for a cell stays. */
#ifndef SCIO_LOAD_COMPACT_H
#define SCIO_LOAD_COMPACT_H

#include "base/error.h"
#include "load/collate.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_compact scio_compact; /* refcounted */

typedef enum scio_compact_state {
    SCIO_COMPACT_MISSING,
    SCIO_COMPACT_BROKEN, /* could not be decoded (on_error="skip") */
    SCIO_COMPACT_HELD
} scio_compact_state;

/* For n_cells cells with one row of each of n_tracks matrices.  It never holds more than
 * max_nbytes; EINVAL naming the bytes needed when not even an empty one fits. */
SCIO_MUST_CHECK scio_status scio_compact_new(int64_t n_cells, size_t n_tracks, uint64_t max_nbytes,
                                             scio_compact **out, scio_error *err);
/* What one takes when it is empty: the least limit that works. */
uint64_t scio_compact_empty_nbytes(int64_t n_cells, size_t n_tracks, uint64_t max_nbytes);
scio_compact *scio_compact_retain(scio_compact *compact); /* NULL allowed */
void scio_compact_release(scio_compact *compact);         /* NULL allowed */

/* Keeps rows[n_tracks] of a cell.  When they do not fit, or there is no memory, the store is full:
 * from then on nothing more is kept. */
void scio_compact_put(scio_compact *compact, int64_t cell, const scio_row *rows);
void scio_compact_put_broken(scio_compact *compact, int64_t cell);
bool scio_compact_is_full(const scio_compact *compact);

/* Points `row` at a held row (indices, values, their dtypes, n_items, cell); NULL asks only for the
 * state. */
scio_compact_state scio_compact_find(const scio_compact *compact, int64_t cell, size_t i_track,
                                     scio_row *row);
/* Where the row is written down, then the row itself, are asked for ahead of their turn. */
void scio_compact_prefetch_place(const scio_compact *compact, int64_t cell);
void scio_compact_prefetch_row(const scio_compact *compact, int64_t cell);
/* The cells of `cells` (NULL = all of [0, n_cells)) that are missing, in order, into out (room for
 * as many as asked); returns how many. */
size_t scio_compact_missing(const scio_compact *compact, const int64_t *cells, size_t n_cells,
                            int64_t *out);

int64_t scio_compact_n_cells(const scio_compact *compact);
size_t scio_compact_n_tracks(const scio_compact *compact);
/* Bytes held now, and the limit. */
uint64_t scio_compact_nbytes(const scio_compact *compact);
uint64_t scio_compact_max_nbytes(const scio_compact *compact);
/* Least and most that n_cells rows with n_items stored values of this kind take; rows of several
 * kinds take the sum.  Where the limit is the most and SPARE_NBYTES more, a store is never full. */
#define SCIO_COMPACT_SPARE_NBYTES ((uint64_t)8 << 20)
uint64_t scio_compact_least_nbytes(uint64_t n_cells, uint64_t n_items, bool is_dense);
uint64_t scio_compact_most_nbytes(uint64_t n_cells, uint64_t n_items, bool is_dense,
                                  size_t value_itemsize);

#endif
