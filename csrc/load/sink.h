/* Rows of cells, in any order and from any thread, into files whose skeleton is there already.
 *
 * The files are fast-layout .h5ad files in the making (loader.md 4): everything but the values of
 * the matrices has been written, and where those go is known.  A sink never fails its caller: what
 * goes wrong closes it, and `failure` says why. */
#ifndef SCIO_LOAD_SINK_H
#define SCIO_LOAD_SINK_H

#include "base/dtype.h"
#include "base/error.h"
#include "load/collate.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_sink scio_sink; /* refcounted; any number of threads may put */

/* One matrix (track) of one source, in its file. */
typedef struct scio_sink_array {
    bool is_dense; /* n_cols values a row; else CSR */
    int64_t n_cols;
    const int64_t *indptr;    /* CSR: of the file to be, [n_cells + 1]; copied */
    uint64_t data_offset;     /* where values (CSR: and indices) begin in the file */
    uint64_t indices_offset;  /* CSR */
    scio_dtype data_dtype;    /* as the file stores them, native byte order */
    scio_dtype indices_dtype; /* CSR */
} scio_sink_array;

typedef struct scio_sink_source {
    const char *path;     /* of the temporary file, which is there; opened for writing here */
    const int64_t *cells; /* [n_cells] global ids, ascending: row i of the file is cells[i]; copied;
                             NULL = first_cell, first_cell + 1, … */
    int64_t n_cells;
    int64_t first_cell;
    const scio_sink_array *arrays; /* [n_tracks] */
} scio_sink_source;

/* EWRITE with errno when a file cannot be opened or its space cannot be set aside. */
SCIO_MUST_CHECK scio_status scio_sink_new(const scio_sink_source *sources, size_t n_sources,
                                          size_t n_tracks, scio_sink **out, scio_error *err);
scio_sink *scio_sink_retain(scio_sink *sink); /* NULL allowed */
void scio_sink_release(scio_sink *sink);      /* NULL allowed; the last one closes */

/* rows[n_tracks] of one cell.  A cell put twice is written once, one that the source does not have
 * is left out.  Values are converted to the file's dtype; one that does not fit, or a write that
 * fails, closes the sink.  In a forked child nothing happens. */
void scio_sink_put(scio_sink *sink, size_t i_source, int64_t cell, const scio_row *rows);

bool scio_sink_is_closed(const scio_sink *sink);
/* Cells whose writing has ended well, and cells that there are. */
int64_t scio_sink_n_put(const scio_sink *sink);
int64_t scio_sink_n_cells(const scio_sink *sink);
size_t scio_sink_n_tracks(const scio_sink *sink);
/* Copies why the sink closed; false when nothing failed. */
bool scio_sink_failure(const scio_sink *sink, scio_error *out);
/* Global ids of the cells that nobody has put yet, at most n_room of them; returns how many. */
size_t scio_sink_missing(const scio_sink *sink, int64_t *cells_out, size_t n_room);
/* What was put is on the disk after this.  EINVAL naming the failure when the sink has one. */
SCIO_MUST_CHECK scio_status scio_sink_sync(scio_sink *sink, scio_error *err);
/* Waits for the puts at work and closes the files; nothing is written any more. */
void scio_sink_close(scio_sink *sink);

#endif
