/* The plan of an epoch: which blocks in which order, which cells in which batch.
 *
 * A pure function of the sources' shapes, the selection and the options; nothing is read.  Threads,
 * prefetch and time have no part in it.
 *
 * Tracks.  A source is one or more matrices of the same rows: track 0 is the main one, others are
 * layers and the like.  A track has one or two ARRAYS: data and indices of CSR, data of dense.
 *
 * Blocks.  A cut between two blocks lies where a unit of some array begins; how that array is
 * chosen is told in plan_cut.c.  It splits every array of every track, and a unit belongs to the
 * block in which it begins.  The rows with items in units of both sides, in any array, are the ZONE
 * of the cut; all other rows are interior to one block.  Cuts are set so far apart that zones never
 * overlap: a row longer than a block makes a longer block, and so does a unit.  Hence block b holds
 * rows [row0, row1), and the zone behind it rows [row1, next.row0), and a zone touches exactly two
 * blocks.
 *
 *     units of data    |------|------|------|------|------|------|
 *     units of indices |---------|---------|---------|---------|--
 *     cut                     p..q                 p'=q'
 *     rows               [ r  ][z ][z][ r ][ r ][ z ][ r ]
 *
 * Tracks in memory have no part in this; sources with none in a file are cut into runs of rows.
 *
 * Stream.  Blocks in their order (permuted or not) put their cells one behind the other: the zone
 * in front if both its blocks are now decoded, the interior, the zone behind likewise.  WINDOWS are
 * cut from the stream at multiples of the batch size; the cells of a window are permuted among
 * themselves. So the remainder of a window needs no copy: it is whole blocks (a part of one at
 * most) that simply live one window longer.  At any time the blocks of two neighbouring windows are
 * in memory, in a ring.
 *
 * Ranks.  Runs of blocks are permuted and the row of their cells is cut into equal parts, so ranks
 * differ by one cell at most and share storage units only where their parts meet in a file. */
#ifndef SCIO_LOAD_PLAN_H
#define SCIO_LOAD_PLAN_H

#include "base/error.h"
#include "load/loader.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_plan_track {
    int64_t n_cols;
    const int64_t *indptr;                /* CSR, [n_rows + 1], borrowed; NULL = dense */
    bool is_in_file;                      /* false: nothing to decode, no bytes in windows */
    uint64_t data_unit;                   /* CSR: items of a unit of data; dense: rows of a unit */
    uint64_t index_unit;                  /* CSR: items of a unit of indices */
    uint64_t n_column_units;              /* dense: units side by side */
    size_t data_itemsize, index_itemsize; /* decoded, in the file */
    size_t store_data_itemsize, store_index_itemsize; /* held in a window */
} scio_plan_track;

typedef struct scio_plan_source {
    int64_t n_rows;
    size_t n_tracks;               /* the same for all sources of a plan, 1 or more */
    const scio_plan_track *tracks; /* track 0 is the main matrix */
} scio_plan_source;

typedef struct scio_plan_options {
    int64_t batch_size;
    bool drop_last;
    scio_shuffle_mode shuffle; /* not GIVEN */
    uint64_t seed, epoch;
    int64_t rank, world_size;
    uint64_t block_nbytes; /* 0 = chosen from the budget */
    bool is_dealt_once;    /* a rank has the same cells in every epoch */
} scio_plan_options;

typedef struct scio_plan_block {
    size_t i_source;
    int64_t row0, row1;     /* interior rows */
    int64_t sel0, sel1;     /* the selected ones among them: places in the selection */
    bool is_last_of_source; /* no zone behind */
} scio_plan_block;

/* What begins in a block, of one track; empty for tracks in memory. */
typedef struct scio_plan_units {
    uint64_t data0, data1;   /* units of data (dense: bands) */
    uint64_t index0, index1; /* CSR: units of indices */
} scio_plan_units;

/* A run of cells in the stream: the interior of a block, or the zone behind it. */
typedef struct scio_plan_piece {
    int64_t pos;  /* place of its first cell in the stream */
    int64_t sel0; /* its cells are the selected ones from here on */
    size_t i_block;
    bool is_zone;
} scio_plan_piece;

typedef struct scio_plan_window {
    int64_t pos0, pos1;    /* cells of the stream; pos0 is a multiple of the batch size */
    size_t order0, order1; /* blocks decoded for it, after those of the windows before */
    size_t piece0;         /* the piece with the cell pos0 */
} scio_plan_window;

#define SCIO_PLAN_NEVER UINT32_MAX
/* What a loader keeps while it runs, for each block and its window, and for each track of a block;
 * counted by scio_plan_nbytes. */
#define SCIO_PLAN_BLOCK_STATE_NBYTES 112
#define SCIO_PLAN_TRACK_STATE_NBYTES 144

/* How long the selected rows of a track are. */
typedef struct scio_plan_extent {
    int64_t longest_row;  /* items */
    uint64_t batch_items; /* no batch has more items */
} scio_plan_extent;

typedef struct scio_plan {
    scio_plan_options options;
    scio_plan_source *sources; /* owned copies; their tracks lie in `tracks` */
    scio_plan_track *tracks;
    size_t n_sources, n_tracks;
    int64_t *first_cells; /* [n_sources + 1] global id of each source's row 0 */
    /* The selection of this rank. */
    int64_t n_sel;       /* cells, each once */
    int64_t n_real;      /* n_sel, or 0 for a rank without cells of its own: it repeats one */
    int64_t *sel;        /* global ids, ascending; NULL = all cells */
    int64_t **sel_items; /* with sel: [n_tracks] of [n_sel + 1] items in front of each cell; NULL
                            for tracks that are dense in all sources */
    int64_t *source_sel; /* [n_sources + 1] places in the selection */
    int64_t n_batches, n_stream; /* n_stream > n_real: the last ones are padding */
    int64_t longest_row;         /* of the main track */
    uint64_t batch_items;        /* of the main track */
    scio_plan_extent *extents;   /* [n_tracks] */
    /* Filled by scio_plan_lay; for EXACT no blocks, and one piece and window of all cells. */
    scio_plan_block *blocks;
    scio_plan_units *units; /* [n_blocks][n_tracks] */
    size_t n_blocks;
    size_t *order; /* blocks to decode */
    size_t n_order;
    scio_plan_piece *pieces; /* [n_pieces + 1], the last one only for its pos */
    size_t n_pieces;
    scio_plan_window *windows;
    size_t n_windows;
    uint32_t *block_last;             /* [n_blocks] last window that uses the interior, or NEVER */
    uint32_t *zone_first, *zone_last; /* [n_blocks] zone behind: first window with one of its
                                         blocks, last window that uses it; NEVER = not held */
    uint64_t ring_nbytes;             /* capacity that is enough for the blocks of two windows */
    uint64_t aside_nbytes;            /* most that zones and permutations take beside it */
} scio_plan;

/* Checks options and selection (`cells`: ascending global ids, NULL = all), deals them to ranks. */
SCIO_MUST_CHECK scio_status scio_plan_new(const scio_plan_source *sources, size_t n_sources,
                                          const int64_t *cells, size_t n_cells,
                                          const scio_plan_options *options, scio_plan **out,
                                          scio_error *err);
/* Blocks, order, stream, windows such that scio_plan_needed stays within `budget`; EINVAL when
 * nothing does: *least_out is then the least budget known to work.  EXACT: the permutation only;
 * the rows are elsewhere. */
SCIO_MUST_CHECK scio_status scio_plan_lay(scio_plan *plan, uint64_t budget, uint64_t *least_out,
                                          scio_error *err);
void scio_plan_free(scio_plan *plan); /* NULL allowed */
/* Bytes for blocks, zones, permutations and the plan itself. */
uint64_t scio_plan_needed(const scio_plan *plan);
uint64_t scio_plan_nbytes(const scio_plan *plan);

/* Items of the selected rows [i, j) in a track; the rows lie in one source. */
int64_t scio_plan_items(const scio_plan *plan, size_t i_source, size_t i_track, int64_t i,
                        int64_t j);
int64_t scio_plan_cell(const scio_plan *plan, int64_t i_sel);
/* First place in the selection whose cell is `cell` or later. */
int64_t scio_plan_find(const scio_plan *plan, int64_t cell);
const scio_plan_units *scio_plan_units_of(const scio_plan *plan, size_t i_block, size_t i_track);

/* Where a track of selected rows lies in their piece of a window; both are multiples of 64. */
typedef struct scio_plan_place {
    size_t index_offset, data_offset;
} scio_plan_place;

/* Bytes in a window for the selected rows [i, j): track behind track, indices in front of values.
 */
size_t scio_plan_store_nbytes(const scio_plan *plan, size_t i_source, int64_t i, int64_t j);
scio_plan_place scio_plan_store_place(const scio_plan *plan, size_t i_source, size_t i_track,
                                      int64_t i, int64_t j);
size_t scio_plan_block_nbytes(const scio_plan *plan, size_t i_block);
size_t scio_plan_zone_nbytes(const scio_plan *plan, size_t i_block);

/* The zone behind a block: its selected rows [sel0, sel1); false when there are none. */
bool scio_plan_zone(const scio_plan *plan, size_t i_block, int64_t *sel0_out, int64_t *sel1_out);

/* What stands at a place of the stream. */
typedef struct scio_plan_entry {
    int64_t i_sel;
    size_t i_block; /* 0 for EXACT, which has none */
    bool is_zone, is_padding;
} scio_plan_entry;

/* How many places the permutation of a window has: its cells, and for EXACT also those that
 * drop_last leaves out, or it would leave out the same ones in every epoch. */
int64_t scio_plan_permuted(const scio_plan *plan, size_t i_window);
/* The permutation of window w, perm[scio_plan_permuted], places relative to pos0. */
void scio_plan_permute(const scio_plan *plan, size_t i_window, int64_t *perm);
scio_plan_entry scio_plan_at(const scio_plan *plan, size_t i_window, int64_t pos);
/* The window that holds a place of the stream. */
size_t scio_plan_window_at(const scio_plan *plan, int64_t pos);

/* Between the files of the plan. */
typedef struct scio_plan_cuts {
    scio_plan_block *blocks;
    scio_plan_units *units;
    size_t n_blocks, n_room;
} scio_plan_cuts;
void scio_plan_cuts_clear(scio_plan_cuts *cuts);
/* Appends the blocks of all sources, about block_nbytes decoded each, with their selected rows. */
SCIO_MUST_CHECK scio_status scio_plan_cut(const scio_plan *plan, uint64_t block_nbytes,
                                          scio_plan_cuts *cuts, scio_error *err);
/* Cuts the rank's part out of plan->sel. */
SCIO_MUST_CHECK scio_status scio_plan_deal(scio_plan *plan, int64_t lo, int64_t hi,
                                           scio_error *err);
/* sel_items and source_sel from sel. */
SCIO_MUST_CHECK scio_status scio_plan_index_selection(scio_plan *plan, scio_error *err);

/* Purposes of random streams; a number once used here is never used for something else. */
enum { SCIO_PURPOSE_DEAL = 1, SCIO_PURPOSE_BLOCKS = 2, SCIO_PURPOSE_CELLS = 3 };

#endif
