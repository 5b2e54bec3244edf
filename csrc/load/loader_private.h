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
    scio_row *rows; /* [batch size] */
    size_t n_rows;  /* room */
} scio_loader_slot;

struct scio_loader {
    scio_matrix **matrices; /* retained */
    size_t n_matrices;
    int32_t **maps; /* copies */
    bool *is_map_increasing;
    int64_t *first_cells; /* [n_matrices + 1] */
    scio_collate_spec spec;
    uint8_t *id_mask; /* copy */
    scio_loader_options options;
    int64_t *given_cells, *given_offsets; /* copies */
    scio_plan *plan;                      /* NULL for GIVEN */
    int64_t n_batches;
    scio_store store;
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
    uint64_t h5_nbytes;    /* of a thread's scratch for decoding, as planned */
    int cancel;            /* atomic */
    pthread_mutex_t mutex;
    bool has_mutex;
    /* guarded by mutex: */
    bool is_started, is_closed;
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
void scio_loader_finish_batch(scio_loader *loader, scio_loader_batch *batch, double seconds);
/* Most bytes of a batch in the spec's form: n_cells rows with n_items items, the longest `longest`.
 */
uint64_t scio_loader_batch_bound(const scio_collate_spec *spec, uint64_t n_cells, uint64_t n_items,
                                 uint64_t longest);
SCIO_MUST_CHECK scio_status scio_loader_plan_budget(scio_loader *loader, scio_error *err);
SCIO_MUST_CHECK scio_status scio_loader_plan_given(scio_loader *loader, scio_error *err);
/* The row of a matrix for collation: map and cell filled in. */
void scio_loader_finish_row(const scio_loader *loader, size_t i_matrix, scio_row *row);
size_t scio_loader_matrix_at(const scio_loader *loader, int64_t cell);

#endif
