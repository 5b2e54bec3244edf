/* What the files of h5write/ share: a writer's inside, turns in the library, failures, types. */
#ifndef SCIO_H5WRITE_WRITER_PRIVATE_H
#define SCIO_H5WRITE_WRITER_PRIVATE_H

#include "codec/encoder.h"
#include "h5write/chunked.h"
#include "h5write/latch.h"
#include "h5write/writer.h"

#include <sys/types.h>

struct scio_h5_write_scratch;

struct scio_h5_writer {
    char *path;
    scio_latch latch;
    hid_t file, driver; /* negative when there is none */
    pid_t pid;
    bool is_closed;
    scio_error failure;                    /* the first one */
    scio_h5_chunked *chunked;              /* those that are not finished, newest first */
    struct scio_h5_write_scratch *scratch; /* of chunks in work; NULL until there are any */
};

/* ---- library.c: one thread at a time in libhdf5, and none across a fork ---- */

/* Whoever else uses the library in this thread keeps its way of printing errors. */
typedef struct scio_h5_turn {
    H5E_auto2_t print;
    void *context;
} scio_h5_turn;

void scio_h5_turn_begin(scio_h5_turn *turn);
void scio_h5_turn_end(const scio_h5_turn *turn);
/* A call of libhdf5 has failed; what it says, in our words. */
scio_status scio_h5_library_error(const char *what, scio_error *err);
/* The library behind the name must be the one that we were compiled for. */
SCIO_MUST_CHECK scio_status scio_h5_check_version(scio_error *err);

/* ---- writer.c ---- */

/* The beginning of every call: the writer is of this process, has not failed and is open. */
SCIO_MUST_CHECK scio_status scio_h5_writer_check(const scio_h5_writer *writer, scio_error *err);
/* The end of every call: an error of the disk is the cause of whatever else failed.  `own` is what
 * the call itself says; `place` goes in front.  What failed stays failed. */
SCIO_MUST_CHECK scio_status scio_h5_writer_settle(scio_h5_writer *writer, scio_error *own,
                                                  const char *place, scio_error *err);

/* ---- types.c: every id is new, so that every one is closed; negative on failure ---- */

scio_h5_element scio_h5_element_of(const scio_h5_value *value);
/* Text of any length, at any depth: its bytes lie elsewhere in the file. */
bool scio_h5_has_text(const scio_h5_element *element);
hid_t scio_h5_make_type(const scio_h5_element *element);
hid_t scio_h5_make_space(const scio_h5_value *value);
hid_t scio_h5_make_link_list(void);
/* Items of the value, and whether their bytes can be counted. */
SCIO_MUST_CHECK scio_status scio_h5_check_value(const scio_h5_value *value, uint64_t *n_items_out,
                                                scio_error *err);

/* ---- chunked.c, chunked_place.c ---- */

struct scio_h5_chunked {
    scio_h5_writer *writer;
    scio_h5_chunked *next; /* older one of the writer */
    char *path;
    hid_t dataset;
    unsigned rank;
    uint64_t dims[SCIO_H5_WRITER_MAX_RANK];       /* [0]: rows that libhdf5 knows of */
    uint64_t chunk_dims[SCIO_H5_WRITER_MAX_RANK]; /* [0]: rows of a band, a row of chunks */
    uint64_t n_expected;                          /* rows, or UNLIMITED */
    uint64_t n_rows;                              /* appended, those in `band` too */
    uint64_t n_placed_rows;                       /* handed to libhdf5 */
    size_t itemsize, row_nbytes, chunk_nbytes, bound_nbytes;
    size_t n_columns; /* chunks of a band */
    bool is_plain;    /* a full band is one chunk as it lies in memory */
    scio_encode_spec filters;
    uint8_t *band; /* rows that do not fill one yet; NULL until there are any */
    uint64_t n_waiting;
    size_t max_parallel; /* of the last append */
    uint64_t stored_nbytes;
};

/* Compresses and places n_valid rows that begin a band; only the last band may be cut short. */
SCIO_MUST_CHECK scio_status scio_h5_chunked_place(scio_h5_chunked *chunked, const uint8_t *rows,
                                                  uint64_t n_valid, size_t max_parallel,
                                                  const volatile int *cancel, scio_error *err);
/* Finishes all, oldest first; the first failure is the writer's. */
SCIO_MUST_CHECK scio_status scio_h5_chunked_finish_all(scio_h5_writer *writer, scio_error *err);
/* Lets go of all; libhdf5's part is closed when `is_ours`. */
void scio_h5_chunked_free_all(scio_h5_writer *writer, bool is_ours);

#endif
