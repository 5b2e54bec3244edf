/* The loader: plan -> windows decoded ahead by the pool -> batches collated by the pool -> in
 * order.
 *
 * Rows that are RESIDENT need no decoding: those of matrices in memory, those of a compact store
 * that is complete, those of a mapped file.  Where rows come from never changes which cells are in
 * which batch.
 *
 * Thread use: scio_loader_next by one thread at a time; close from any.  All waiting happens in
 * scio_loader_next, in slices of the timeout, so that the caller can look at signals. */
#ifndef SCIO_LOAD_LOADER_H
#define SCIO_LOAD_LOADER_H

#include "base/error.h"
#include "base/pool.h"
#include "load/collate.h"
#include "load/compact.h"
#include "load/matrix.h"
#include "load/sink.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_shuffle_mode {
    SCIO_SHUFFLE_NONE,  /* file order */
    SCIO_SHUFFLE_BLOCK, /* blocks in random order, cells permuted inside a window */
    SCIO_SHUFFLE_EXACT, /* one permutation of all cells, which must be resident */
    SCIO_SHUFFLE_GIVEN  /* an explicit list of batches: `given_*` below (samplers) */
} scio_shuffle_mode;

typedef struct scio_loader_options {
    scio_pool *pool;  /* NULL = shared */
    size_t n_threads; /* limit of parallel jobs; 0 = inline in scio_loader_next */
    int64_t batch_size;
    bool drop_last;
    scio_shuffle_mode shuffle;
    uint64_t seed, epoch;
    int64_t rank, world_size;
    uint64_t
        max_memory; /* hard cap over windows, carry, batches in the queue, scratch; 0 = 1 GiB */
    uint64_t block_nbytes; /* decoded bytes of a block; 0 = chosen from the cap */
    size_t n_prefetch;     /* batches made ahead; 0 = 8 */
    bool is_skip_errors;   /* on_error="skip": cells of a broken chunk are left out and counted */
    int64_t first_batch;   /* resume: batches of the epoch already handed out */
    const int64_t *given_cells;   /* GIVEN: global cell ids of all batches, concatenated */
    const int64_t *given_offsets; /* [n_given + 1] */
    size_t n_given;
    /* Further matrices of the same cells: extras[i * n_extras + k] belongs to source i (retained).
     */
    scio_matrix *const *extras;
    size_t n_extras;
    const bool *is_extra_layer; /* [n_extras] columns are those of the main matrix; else obsm */
    bool
        is_keeping; /* max_memory leaves room for a compact store of all cells, where that can be */
    bool is_fill;   /* batches are put (see scio_loader_attach) and not collated: empty ones come */
    uint64_t kept_nbytes; /* max_memory leaves room for a store that was made already and takes up
                             to so much; 0 = none.  `resident` is counted without being told. */
    /* All cells are resident: in `resident`, or in mapped[i * (1 + n_extras) + track] for source i,
     * where row j is the j-th of mapped_cells (ascending global ids, NULL = all cells) that lies in
     * the source. Retained; mapped_cells is copied. */
    scio_compact *resident;
    scio_matrix *const *mapped;
    const int64_t *mapped_cells;
    size_t n_mapped_cells;
} scio_loader_options;

typedef struct scio_loader_stats {
    int64_t cells, batches, skipped_cells;
    double seconds, seconds_wait;                           /* wait: the consumer waited for us */
    double seconds_decode, seconds_gather, seconds_collate; /* summed over threads */
    int64_t nbytes_read, chunks_decoded, chunks_total, n_windows, n_blocks;
    int64_t peak_nbytes; /* largest accounted memory at any time */
    int64_t cap_nbytes;
} scio_loader_stats;

typedef struct scio_loader scio_loader;

/* matrices[n_matrices] (retained) make one global cell index in order; maps[i] is int32[n_cols of
 * matrix i] (copied); `cells` (copied) are the selected global ids in ascending order, NULL = all.
 * Makes the plan; reads nothing.  EINVAL naming the least cap that works when max_memory is too
 * small, the legal range for other arguments. */
SCIO_MUST_CHECK scio_status scio_loader_new(scio_matrix *const *matrices, size_t n_matrices,
                                            const int32_t *const *maps, const int64_t *cells,
                                            size_t n_cells, const scio_collate_spec *spec,
                                            const scio_loader_options *options, scio_loader **out,
                                            scio_error *err);
/* What max_memory leaves for a compact store (0: not asked for, or not even the least fits), and
 * the least and most bytes that one of all the rank's cells takes. */
typedef struct scio_loader_keep {
    uint64_t nbytes, least_nbytes, most_nbytes;
} scio_loader_keep;
scio_loader_keep scio_loader_keep_of(const scio_loader *loader);
/* Before the first batch: every row that is decoded is also put there (each may be NULL; retained).
 * In GIVEN mode rows that the store holds are not decoded.  EINVAL for one of other cells or
 * tracks. */
SCIO_MUST_CHECK scio_status scio_loader_attach(scio_loader *loader, scio_compact *compact,
                                               scio_sink *sink, scio_error *err);
/* Cancels and waits at most timeout_ms for the jobs that run.  False: some go on, their storage may
 * hang; other threads take their place in the pool, and scio_loader_free would wait for them. */
bool scio_loader_stop(scio_loader *loader, unsigned timeout_ms);
/* Stops, waits for running jobs (each ends at its next chunk), frees. NULL allowed. */
void scio_loader_free(scio_loader *loader);
/* Batches this rank will hand out in the epoch (first_batch included). */
int64_t scio_loader_n_batches(const scio_loader *loader);
/* The next batch in order: ITEM fills *out (its buffers belong to the caller); TIMEOUT: call again;
 * END.  CANCELLED after scio_loader_cancel.  A failed job gives its error in place of its batch,
 * and the loader is closed then. */
SCIO_MUST_CHECK scio_status scio_loader_next(scio_loader *loader, unsigned timeout_ms,
                                             int *take_out, /* scio_take */
                                             scio_batch *out, scio_error *err);
void scio_loader_cancel(scio_loader *loader);
void scio_loader_stats_read(scio_loader *loader, scio_loader_stats *out);

/* The plan's cells per batch, without reading any data: global ids in the order in which the loader
 * hands them out; offsets[n_batches + 1].  mixing() is computed from this. */
SCIO_MUST_CHECK scio_status scio_loader_plan_cells(const scio_loader *loader, scio_buf **cells_out,
                                                   scio_buf **offsets_out, scio_error *err);

#endif
