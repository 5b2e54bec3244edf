/* What the files of the loader share; nobody else includes this.
 *
 * There is no driver thread.  Every job, when it ends, and every take calls `advance`, which
 * submits what became possible: decoding of the next window as soon as the one before the current
 * one is over (its memory is free then), batches of the current window while the queue has room.
 * Batches go before decoding, so a consumer that waits is served first and all threads decode the
 * rest of the time. */
#ifndef SCIO_LOAD_LOADER_PRIVATE_H
#define SCIO_LOAD_LOADER_PRIVATE_H

#include "base/queue.h"
#include "load/loader.h"
#include "load/plan.h"
#include "load/window.h"

#include <pthread.h>

typedef struct scio_loader_batch {
    scio_job job;
    scio_loader *loader;
    int64_t seq;
    size_t i_window;
    uint64_t reserved_nbytes;
    scio_batch batch;
    int64_t n_skipped;
    double gather_seconds, collate_seconds;
    scio_status status;
    scio_error failure;
} scio_loader_batch;

typedef struct scio_loader_window {
    scio_job prepare;
    scio_loader *loader;
    int64_t *perm;       /* NULL: in order */
    scio_error *failure; /* every batch of the window gives it */
    size_t n_pending;    /* jobs before its batches may be made */
    int64_t n_batches_left;
    bool is_ready;
} scio_loader_window;

typedef struct scio_loader_slot {
    scio_h5_scratch *h5;
    scio_collate_scratch *collate;
    /* The rows of one batch; grow to the longest. */
    size_t n_room;
    scio_row *rows;      /* [n_tracks * n_room], track t from t * n_room */
    scio_row *one;       /* [n_tracks] of one cell */
    int64_t *cells;      /* [n_room] */
    uint8_t *is_padding; /* [n_room] */
} scio_loader_slot;

struct scio_loader {
    /* [n_matrices * n_tracks], retained: track 0 of a source is its main matrix. */
    scio_matrix **matrices;
    size_t n_matrices, n_tracks;
    bool *is_layer; /* [n_tracks] columns are those of the main matrix */
    int32_t **maps; /* copies */
    scio_map_kind *map_kinds;
    int64_t *first_cells; /* [n_matrices + 1] */
    scio_collate_spec spec;
    uint8_t *id_mask;   /* copy */
    double *cell_scale; /* copy */
    scio_loader_options options;
    int64_t *given_cells, *given_offsets; /* copies */
    scio_plan *plan;                      /* NULL for GIVEN */
    int64_t n_batches;
    bool is_resident;       /* nothing is decoded */
    scio_compact *resident; /* retained, may be NULL */
    scio_matrix **mapped;   /* [n_matrices * n_tracks] retained; NULL = none */
    int64_t *mapped_cells;  /* copy; NULL = all */
    size_t n_mapped_cells;
    size_t *mapped_first;  /* [n_matrices] place in mapped_cells of the source's first */
    scio_compact *compact; /* rows are put there; retained, may be NULL */
    scio_sink *sink;       /* likewise */
    scio_loader_keep keep;
    scio_store store;            /* blocks are NULL when resident */
    scio_loader_window *windows; /* [plan->n_windows] */
    scio_loader_slot *slots;     /* [n_slots] */
    size_t n_slots;
    scio_loader_batch *batches; /* [n_queue], batch seq lies in seq % n_queue */
    size_t n_queue;
    scio_queue *queue;
    scio_group *group;
    uint64_t worst_nbytes; /* of a batch */
    uint64_t fixed_nbytes; /* plan, scratch, ring: accounted from start to end */
    uint64_t queue_nbytes; /* budget of batches */
    size_t waiting_nbytes; /* of dropped batches that may wait for the next ones */
    uint64_t h5_nbytes;    /* of a thread's scratch for decoding, as planned */
    int cancel;            /* atomic */
    pthread_mutex_t mutex;
    bool has_mutex;
    /* guarded by mutex: */
    bool is_started, is_closed, is_reserved;
    int64_t next_batch, n_taken;      /* next to submit, next to take */
    size_t batch_window, next_window; /* of next_batch; next to decode */
    size_t oldest_window;             /* not over yet */
    uint64_t reserved_nbytes;         /* batches made or being made */
    uint64_t perm_nbytes;
    uint64_t excess_nbytes; /* scratch beyond h5_nbytes; 0 unless the plan is wrong */
    double started_at, ended_at;
    scio_loader_stats stats;
};

double scio_loader_clock(void);
void scio_loader_account_locked(scio_loader *loader);
/* Submits what can run now. */
void scio_loader_advance_locked(scio_loader *loader);
void scio_loader_batch_run(scio_job *job, size_t slot);
/* A copy of `failure` on the heap, or a constant that says out of memory. */
scio_error *scio_loader_failure_new(const scio_error *failure);
void scio_loader_failure_free(scio_error *failure);
/* A batch is done: into the queue, its window one batch further. */
void scio_loader_finish_batch(scio_loader *loader, scio_loader_batch *batch);
/* Most bytes of a batch in the spec's form: n_cells rows with n_items items, the longest `longest`.
 */
uint64_t scio_loader_batch_bound(const scio_collate_spec *spec, uint64_t n_cells, uint64_t n_items,
                                 uint64_t longest);
/* `cells` as scio_loader_new had them. */
SCIO_MUST_CHECK scio_status scio_loader_plan_budget(scio_loader *loader, const int64_t *cells,
                                                    size_t n_cells, scio_error *err);
SCIO_MUST_CHECK scio_status scio_loader_plan_given(scio_loader *loader, const int64_t *cells,
                                                   size_t n_cells, scio_error *err);
/* Retains matrices, maps and what is resident. */
SCIO_MUST_CHECK scio_status scio_loader_keep_sources(scio_loader *loader,
                                                     scio_matrix *const *matrices,
                                                     const int32_t *const *maps, scio_error *err);
void scio_loader_release_sources(scio_loader *loader);
/* A store has the loader's cells and tracks. */
SCIO_MUST_CHECK scio_status scio_loader_check_compact(const scio_loader *loader,
                                                      const scio_compact *compact, scio_error *err);
SCIO_MUST_CHECK scio_status scio_loader_copy(const void *src, size_t n_items, size_t itemsize,
                                             void *out, scio_error *err);

static inline scio_matrix *
scio_loader_matrix(const scio_loader *loader, size_t i_source, size_t i_track)
{
    return loader->matrices[i_source * loader->n_tracks + i_track];
}

/* The files of a source are still those that were opened. */
SCIO_MUST_CHECK scio_status scio_loader_check_unchanged(const scio_loader *loader, size_t i_source,
                                                        scio_error *err);

/* ---- rows ---- */

/* Room for a batch of n_cells. */
SCIO_MUST_CHECK scio_status scio_loader_ensure_slot(const scio_loader *loader,
                                                    scio_loader_slot *slot, size_t n_cells,
                                                    scio_error *err);
size_t scio_loader_source_at(const scio_loader *loader, int64_t cell);
/* What collation needs of a row besides where it lies: map and cell. */
void scio_loader_finish_row(const scio_loader *loader, size_t i_source, int64_t cell,
                            scio_row *row);
/* Points at row `row` of a matrix in memory. */
void scio_loader_point(const scio_matrix *matrix, int64_t i_row, scio_row *row);
bool scio_loader_is_in_memory(const scio_loader *loader, size_t i_source);
/* rows[t * n_room] for the tracks of a cell, if it is resident; `i_sel` is a guess at its place
 * among mapped_cells. */
SCIO_MUST_CHECK scio_status scio_loader_find_resident(const scio_loader *loader, int64_t cell,
                                                      int64_t i_sel, size_t n_room, scio_row *rows,
                                                      scio_compact_state *state_out,
                                                      scio_error *err);
/* Asks for the memory of resident cells ahead of scio_loader_find_resident. */
void scio_loader_prefetch_cells(const scio_loader *loader, const int64_t *cells, size_t n_cells);
void scio_loader_prefetch_row(const scio_row *row);
/* Puts the rows found for a batch where rows are kept. */
void scio_loader_keep_rows(const scio_loader *loader, scio_loader_slot *slot, size_t n_rows);
/* GIVEN: the rows of batch `seq` into the slot; *n_rows_out of them are there. */
typedef struct scio_loader_taken scio_loader_taken;
SCIO_MUST_CHECK scio_status scio_loader_take_given(const scio_loader *loader, int64_t seq,
                                                   scio_loader_slot *slot, size_t *n_rows_out,
                                                   scio_loader_taken **taken_out, scio_error *err);
void scio_loader_taken_free(scio_loader_taken *taken);

#endif
