/* Where the bytes of max_memory go.
 *
 *   plan and state | scratch of the threads | batches made ahead | ring of blocks | zones,
 * permutations
 *
 * The plan must not depend on threads or prefetch, so its budget follows from the cap and the batch
 * alone; threads and queue then get what is left, one of each at least. */
#include "load/loader_private.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum {
    RUN_NBYTES = 1 << 20,       /* of one coalesced read (window_decode.c) */
    DECODER_NBYTES = 128 << 10, /* state of the decoders of a thread */
    ROW_ITEM_NBYTES = 32,       /* scratch of collation for an item of the longest row */
    BATCH_ITEM_NBYTES = 8       /* and for each item of a batch */
};

uint64_t
scio_loader_batch_bound(const scio_collate_spec *spec, uint64_t n_cells, uint64_t n_items,
                        uint64_t longest)
{
    const uint64_t n_ids = (uint64_t)spec->n_ids, max_genes = (uint64_t)spec->max_genes;
    const uint64_t each = n_cells * (2 * sizeof(int64_t) + 1) + 4096;
    uint64_t width = longest < n_ids ? longest : n_ids;

    switch (spec->form) {
    case SCIO_FORM_TOKENS:
        width = max_genes > 0 ? max_genes : width;
        return each + n_cells * width * (sizeof(float) + 2 * sizeof(int64_t));
    case SCIO_FORM_DENSE:
        return each + n_cells * (n_ids - (uint64_t)spec->first_id) * sizeof(float);
    default:
        return each + sizeof(int64_t) + n_items * (sizeof(float) + sizeof(int32_t));
    }
}

static uint64_t
unit_nbytes(const scio_matrix *matrix)
{
    uint64_t nbytes = matrix->data_dataset->unit_nbytes;
    if (matrix->indices_dataset != NULL && matrix->indices_dataset->unit_nbytes > nbytes)
        nbytes = matrix->indices_dataset->unit_nbytes;
    return nbytes;
}

/* One thread: stored bytes of a read, a decoded unit, another one for filters before the last. */
static uint64_t
slot_nbytes(scio_loader *loader, uint64_t longest_row, uint64_t n_items, uint64_t n_cells)
{
    uint64_t unit = 0, run = 0;

    for (size_t i = 0; i < loader->n_matrices; i++) {
        const scio_matrix *const matrix = loader->matrices[i];
        if (!matrix->is_in_file)
            continue;
        const uint64_t nbytes = unit_nbytes(matrix);
        unit = nbytes > unit ? nbytes : unit;
        /* a read holds whole units; a small source is never read beyond its size */
        const uint64_t all =
            matrix->data_dataset->n_units * matrix->data_dataset->unit_nbytes +
            (matrix->indices_dataset != NULL
                 ? matrix->indices_dataset->n_units * matrix->indices_dataset->unit_nbytes
                 : 0) +
            4096;
        const uint64_t most = RUN_NBYTES + nbytes / 4 + 4096;
        const uint64_t read = nbytes + nbytes / 4 > most ? nbytes + nbytes / 4 : most;
        run = (all < read ? all : read) > run ? (all < read ? all : read) : run;
    }
    loader->h5_nbytes = run + 2 * unit + DECODER_NBYTES;
    return loader->h5_nbytes + longest_row * ROW_ITEM_NBYTES + n_items * BATCH_ITEM_NBYTES +
           n_cells * (sizeof(scio_row) + sizeof(int64_t)) + sizeof(scio_loader_slot);
}

static scio_status
too_small(const scio_loader *loader, uint64_t least, scio_error *err)
{
    return scio_fail(
        err, SCIO_EINVAL,
        "max_memory is %" PRIu64 " bytes, too small%s; at least %" PRIu64 " are needed",
        loader->options.max_memory,
        loader->options.shuffle == SCIO_SHUFFLE_EXACT ? " to hold all cells for an exact shuffle"
                                                      : "",
        least);
}

/* A round number a little above: the plan's own tables differ by some bytes from budget to budget.
 */
static uint64_t
in_whole_pages(uint64_t nbytes)
{
    enum { PAGE = 4096 };

    return (nbytes / PAGE + 2) * PAGE;
}

/* The wish for a block size follows from the budget, so what one budget was told to need is tried,
 * and the answer to that, until one works: the message must not name a cap that fails as well. */
static uint64_t
least_that_lays(scio_plan *plan, uint64_t budget)
{
    enum { MOST_TRIES = 32 };

    for (int i = 0; i < MOST_TRIES; i++) {
        scio_error ignored = SCIO_ERROR_INIT;
        uint64_t needed = 0;

        if (scio_plan_lay(plan, budget, &needed, &ignored) == SCIO_OK)
            break;
        budget = needed > budget ? needed : budget + budget / 8 + 64;
    }
    return budget;
}

/* Threads and queue out of what the plan leaves. */
static void
share_rest(scio_loader *loader, uint64_t used, uint64_t slot)
{
    const uint64_t rest = loader->options.max_memory - used - loader->worst_nbytes;
    const uint64_t slot_room = rest / slot;
    uint64_t queue;

    if (loader->n_slots > slot_room)
        loader->n_slots = slot_room > 0 ? (size_t)slot_room : 1;
    queue = (rest - loader->n_slots * slot) / 4 / sizeof(scio_loader_batch);
    if (loader->n_queue > queue)
        loader->n_queue = queue > 0 ? (size_t)queue : 1;
    loader->fixed_nbytes = used + loader->n_slots * slot;
    loader->queue_nbytes = loader->options.max_memory - loader->fixed_nbytes;
    loader->fixed_nbytes += loader->n_queue * sizeof(scio_loader_batch);
    loader->queue_nbytes -= loader->n_queue * sizeof(scio_loader_batch);
}

scio_status
scio_loader_plan_budget(scio_loader *loader, scio_error *err)
{
    scio_plan *const plan = loader->plan;
    const uint64_t cap = loader->options.max_memory;
    const uint64_t size = (uint64_t)loader->options.batch_size;
    const uint64_t n_cells = plan->n_stream < (int64_t)size ? (uint64_t)plan->n_stream : size;
    const uint64_t slot =
        slot_nbytes(loader, (uint64_t)plan->longest_row, plan->batch_items, n_cells);
    scio_error failure = SCIO_ERROR_INIT;
    uint64_t least_windows = 0;

    loader->worst_nbytes = scio_loader_batch_bound(&loader->spec, n_cells, plan->batch_items,
                                                   (uint64_t)plan->longest_row);
    const uint64_t least_rest = loader->worst_nbytes + slot + sizeof(scio_loader_batch) * 4;
    uint64_t rest = cap / 4 < (UINT64_C(256) << 20) ? cap / 4 : UINT64_C(256) << 20;
    rest = rest > least_rest ? rest : least_rest;
    scio_status status = scio_plan_lay(plan, cap > rest ? cap - rest : 0, &least_windows, &failure);
    if (status == SCIO_EINVAL && cap > least_rest) {
        failure = (scio_error)SCIO_ERROR_INIT;
        status = scio_plan_lay(plan, cap - least_rest, &least_windows, &failure);
    }
    if (status == SCIO_EINVAL)
        return too_small(loader, in_whole_pages(least_rest + least_that_lays(plan, least_windows)),
                         err);
    if (status != SCIO_OK) {
        scio_error_move(err, &failure);
        return status;
    }
    const uint64_t fixed =
        scio_plan_nbytes(plan) + plan->ring_nbytes; /* the ring is there from start to end */
    share_rest(loader, fixed + plan->aside_nbytes, slot);
    loader->fixed_nbytes -= plan->aside_nbytes; /* accounted as it comes and goes */
    return SCIO_OK;
}

scio_status
scio_loader_plan_given(scio_loader *loader, scio_error *err)
{
    uint64_t most_cells = 0, most_items = 0, longest = 0, most_held = 0;

    for (size_t b = 0; b < loader->options.n_given; b++) {
        const int64_t begin = loader->given_offsets[b], end = loader->given_offsets[b + 1];
        uint64_t n_items = 0, n_held = 0;
        for (int64_t i = begin; i < end; i++) {
            const size_t m = scio_loader_matrix_at(loader, loader->given_cells[i]);
            const scio_matrix *const matrix = loader->matrices[m];
            const int64_t row = loader->given_cells[i] - loader->first_cells[m];
            const uint64_t n = matrix->indptr != NULL
                                   ? (uint64_t)(matrix->indptr[row + 1] - matrix->indptr[row])
                                   : (uint64_t)matrix->n_cols;
            n_items += n;
            n_held +=
                matrix->is_in_file ? n * (scio_dtype_itemsize(matrix->data_dtype) + 8) + 24 : 0;
            longest = n > longest ? n : longest;
        }
        most_items = n_items > most_items ? n_items : most_items;
        most_held = n_held > most_held ? n_held : most_held;
        most_cells = (uint64_t)(end - begin) > most_cells ? (uint64_t)(end - begin) : most_cells;
    }
    const uint64_t slot = slot_nbytes(loader, longest, most_items, most_cells);
    const uint64_t lists =
        ((uint64_t)loader->given_offsets[loader->options.n_given] + loader->options.n_given + 1) *
        sizeof(int64_t);
    loader->worst_nbytes = scio_loader_batch_bound(&loader->spec, most_cells, most_items, longest) +
                           most_held + most_cells * 24;
    const uint64_t least = lists + slot + loader->worst_nbytes + 4 * sizeof(scio_loader_batch);
    if (least > loader->options.max_memory)
        return too_small(loader, least, err);
    share_rest(loader, lists, slot);
    return SCIO_OK;
}
