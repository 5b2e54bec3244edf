/* Where the bytes of max_memory go.
 *
 *   plan and state | scratch of the threads | batches made ahead | ring of blocks | zones,
 * permutations | compact store
 *
 * The compact store gets what a quarter of the cap for windows, two batches and the scratch leave,
 * if all cells might fit there; else nothing.  One that is there already has what it was given.
 * The plan must not depend on threads or prefetch, so its budget follows from the cap and the batch
 * alone; threads and queue then get what is left, one of each at least. */
#include "load/loader_private.h"

#include "base/mem.h"
#include "base/recycle.h"

#include <inttypes.h>
#include <string.h>

enum {
    RUN_NBYTES = 1 << 20,       /* of one coalesced read (window_decode.c) */
    QUEUE_STATES = 4,           /* the part of what is left that batches' states may take: 1 / 4 */
    DECODER_NBYTES = 128 << 10, /* state of the decoders of a thread */
    ROW_ITEM_NBYTES = 32,       /* scratch of collation for an item of the longest row */
    FLAT_ITEM_NBYTES = 8        /* and for each finished one that waits for its place */
};

static uint64_t
less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

uint64_t
scio_loader_batch_bound(const scio_collate_spec *spec, uint64_t n_cells, uint64_t n_items,
                        uint64_t longest)
{
    const uint64_t n_ids = (uint64_t)spec->n_ids, max_genes = (uint64_t)spec->max_genes;
    const uint64_t each = scio_mul_capped(n_cells, 2 * sizeof(int64_t) + 1) + 4096;
    uint64_t width = longest < n_ids ? longest : n_ids;

    switch (spec->form) {
    case SCIO_FORM_TOKENS:
        width = max_genes > 0 ? max_genes : width;
        return each + scio_mul_capped(scio_mul_capped(n_cells, width),
                                      sizeof(float) + 2 * sizeof(int64_t));
    case SCIO_FORM_DENSE:
        return each + scio_mul_capped(n_cells, (n_ids - (uint64_t)spec->first_id) * sizeof(float));
    default:
        return each + sizeof(int64_t) + scio_mul_capped(n_items, sizeof(float) + sizeof(int32_t));
    }
}

/* The same for a track beside the main one. */
static uint64_t
extra_bound(const scio_loader *loader, size_t i_track, uint64_t n_cells, uint64_t n_items,
            uint64_t longest)
{
    const scio_collate_spec *const spec = &loader->spec;
    const uint64_t bound = scio_loader_batch_bound(spec, n_cells, n_items, longest);

    if (!loader->is_layer[i_track])
        return 4096 +
               scio_mul_capped(n_cells, (uint64_t)scio_loader_matrix(loader, 0, i_track)->n_cols *
                                            sizeof(float));
    return spec->form == SCIO_FORM_TOKENS ? bound / 4 + 4096 : bound; /* one array of those */
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

    for (size_t i = 0; i < loader->n_matrices * loader->n_tracks; i++) {
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
    const uint64_t fixed =
        loader->h5_nbytes + sizeof(scio_loader_slot) +
        scio_mul_capped(n_cells, loader->n_tracks * sizeof(scio_row) + sizeof(int64_t) + 1);
    if (loader->options.is_fill) /* nothing is collated */
        return fixed;
    /* only token rows as wide as the longest of them wait for one another */
    const bool has_all = loader->spec.form == SCIO_FORM_TOKENS && loader->spec.max_genes == 0;
    const uint64_t n_flat = has_all ? n_items : longest_row;
    return fixed + scio_mul_capped(longest_row, ROW_ITEM_NBYTES) +
           scio_mul_capped(n_flat, FLAT_ITEM_NBYTES);
}

static scio_status
too_small(const scio_loader *loader, uint64_t least, scio_error *err)
{
    return scio_fail(
        err, SCIO_EINVAL,
        "max_memory is %" PRIu64 " bytes, too small%s; at least %" PRIu64 " are needed",
        loader->options.max_memory,
        loader->options.shuffle == SCIO_SHUFFLE_EXACT ? " for the permutation of all cells" : "",
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

/* Memory of dropped batches waits for the next ones.  For batches too large for what waits anyway,
 * a part of the queue's share is set aside for that. */
static void
reserve_waiting(scio_loader *loader)
{
    const uint64_t spare = loader->queue_nbytes - loader->worst_nbytes;

    loader->waiting_nbytes = 0;
    if (loader->worst_nbytes <= SCIO_RECYCLED_MAX_NBYTES)
        return;
    loader->waiting_nbytes =
        (size_t)(2 * loader->worst_nbytes < spare / 2 ? 2 * loader->worst_nbytes : spare / 2);
    loader->queue_nbytes -= loader->waiting_nbytes;
    loader->fixed_nbytes += loader->waiting_nbytes;
}

/* Threads and queue out of what the plan leaves of `cap`. */
static void
share_rest(scio_loader *loader, uint64_t cap, uint64_t used, uint64_t slot)
{
    const uint64_t rest = cap - used - loader->worst_nbytes;
    const uint64_t slot_room = less(rest, QUEUE_STATES * sizeof(scio_loader_batch)) / slot;
    uint64_t queue;

    if (loader->n_slots > slot_room)
        loader->n_slots = slot_room > 0 ? (size_t)slot_room : 1;
    queue = (rest - loader->n_slots * slot) / QUEUE_STATES / sizeof(scio_loader_batch);
    if (loader->n_queue > queue)
        loader->n_queue = queue > 0 ? (size_t)queue : 1;
    loader->fixed_nbytes = used + loader->n_slots * slot;
    loader->queue_nbytes = cap - loader->fixed_nbytes;
    loader->fixed_nbytes += loader->n_queue * sizeof(scio_loader_batch);
    loader->queue_nbytes -= loader->n_queue * sizeof(scio_loader_batch);
    reserve_waiting(loader);
}

/* ---- the compact store ---- */

/* What one track of the selected cells of a source takes. */
static void
add_bounds(const scio_loader *loader, size_t i_source, size_t i_track, const int64_t *cells,
           size_t n_cells, scio_loader_keep *bounds)
{
    const scio_matrix *const matrix = scio_loader_matrix(loader, i_source, i_track);
    const int64_t first = loader->first_cells[i_source];
    const bool is_dense = matrix->kind == SCIO_MATRIX_DENSE;
    uint64_t n_items = 0;

    if (is_dense)
        n_items = scio_mul_capped(n_cells, (uint64_t)matrix->n_cols);
    else if (cells == NULL)
        n_items = (uint64_t)matrix->nnz;
    else
        for (size_t i = 0; i < n_cells; i++)
            n_items +=
                (uint64_t)(matrix->indptr[cells[i] - first + 1] - matrix->indptr[cells[i] - first]);
    /* rows of given lists come as CSR, also those of a dense matrix: they may be empty or full */
    const bool is_taken = loader->options.shuffle == SCIO_SHUFFLE_GIVEN;
    const uint64_t least =
        scio_compact_least_nbytes(n_cells, is_dense && is_taken ? 0 : n_items, is_dense);
    const uint64_t most = scio_compact_most_nbytes(n_cells, n_items, is_dense && !is_taken,
                                                   scio_dtype_itemsize(matrix->data_dtype));
    bounds->least_nbytes = scio_add_capped(bounds->least_nbytes, least);
    bounds->most_nbytes = scio_add_capped(bounds->most_nbytes, most);
}

/* Least and most bytes of a store of all cells of a rank.  Its table has a place for every cell. */
static scio_loader_keep
bound_keep(const scio_loader *loader, const int64_t *cells, size_t n_cells)
{
    const uint64_t n_all = (uint64_t)loader->first_cells[loader->n_matrices];
    const int64_t world_size = loader->options.world_size;
    const uint64_t n_ranks = world_size > 1 ? (uint64_t)world_size : 1;
    scio_loader_keep bounds = {0, 0, 0};
    size_t at = 0;

    for (size_t s = 0; s < loader->n_matrices; s++) {
        size_t end = at;
        if (cells == NULL)
            end += (size_t)(loader->first_cells[s + 1] - loader->first_cells[s]);
        else
            while (end < n_cells && cells[end] < loader->first_cells[s + 1])
                end++;
        if (!scio_loader_is_in_memory(loader, s))
            for (size_t t = 0; t < loader->n_tracks; t++)
                add_bounds(loader, s, t, cells == NULL ? NULL : cells + at, end - at, &bounds);
        at = end;
    }
    if (bounds.least_nbytes == 0)
        return bounds;
    bounds.least_nbytes /= n_ranks;
    /* parts of ranks differ: a tenth more is a guess that costs nothing but certainty */
    bounds.most_nbytes = n_ranks > 1 ? bounds.most_nbytes / n_ranks / 10 * 11 : bounds.most_nbytes;
    bounds.most_nbytes +=
        scio_mul_capped(n_all, loader->n_tracks * sizeof(void *)) + SCIO_COMPACT_SPARE_NBYTES;
    bounds.least_nbytes +=
        scio_mul_capped(n_all - n_all / n_ranks, loader->n_tracks * sizeof(void *));
    return bounds;
}

/* A function of sources, selection, cap and batch alone, so that every epoch has the same windows.
 */
static void
choose_keep(scio_loader *loader, const int64_t *cells, size_t n_cells, uint64_t slot)
{
    const uint64_t cap = loader->options.max_memory;
    const uint64_t room = less(cap, cap / 4 + 2 * loader->worst_nbytes + 2 * slot);
    const int64_t n_all = loader->first_cells[loader->n_matrices];

    if (!loader->options.is_keeping && loader->options.kept_nbytes == 0)
        return;
    loader->keep = bound_keep(loader, cells, n_cells);
    if (loader->options.kept_nbytes > 0) {
        loader->keep.nbytes = loader->options.kept_nbytes;
        return;
    }
    const uint64_t least = loader->keep.least_nbytes;
    if (least == 0 || least + room / 32 > room ||
        room < scio_compact_empty_nbytes(n_all, loader->n_tracks, room))
        return;
    loader->keep.nbytes = room;
}

/* What stores that are there already may take: their own limit, so that no race between threads
 * decides how much that is. */
static uint64_t
held_nbytes(const scio_loader *loader)
{
    const uint64_t resident =
        loader->resident != NULL ? scio_compact_max_nbytes(loader->resident) : 0;
    const uint64_t kept = loader->options.kept_nbytes;

    return resident > kept ? resident : kept;
}

/* ---- the plan ---- */

static scio_plan_extent
longest_extent(const scio_plan *plan)
{
    scio_plan_extent most = plan->extents[0];

    for (size_t t = 1; t < plan->n_tracks; t++) {
        const scio_plan_extent *const extent = &plan->extents[t];
        most.longest_row =
            extent->longest_row > most.longest_row ? extent->longest_row : most.longest_row;
        most.batch_items =
            extent->batch_items > most.batch_items ? extent->batch_items : most.batch_items;
    }
    return most;
}

/* Most bytes of a batch with all its tracks. */
static uint64_t
planned_bound(const scio_loader *loader, uint64_t n_cells)
{
    const scio_plan_extent *const extents = loader->plan->extents;
    uint64_t nbytes = scio_loader_batch_bound(&loader->spec, n_cells, extents[0].batch_items,
                                              (uint64_t)extents[0].longest_row);

    for (size_t t = 1; t < loader->n_tracks; t++)
        nbytes = scio_add_capped(nbytes, sizeof(scio_batch_extra) +
                                             extra_bound(loader, t, n_cells, extents[t].batch_items,
                                                         (uint64_t)extents[0].longest_row));
    return nbytes;
}

static scio_status
lay_within(scio_loader *loader, uint64_t cap, uint64_t least_rest, uint64_t *least_out,
           scio_error *err)
{
    scio_plan *const plan = loader->plan;
    scio_error failure = SCIO_ERROR_INIT;
    uint64_t rest = cap / 4 < (UINT64_C(256) << 20) ? cap / 4 : UINT64_C(256) << 20;
    scio_status status;

    rest = rest > least_rest ? rest : least_rest;
    status = scio_plan_lay(plan, cap > rest ? cap - rest : 0, least_out, &failure);
    if (status == SCIO_EINVAL && cap > least_rest) {
        failure = (scio_error)SCIO_ERROR_INIT;
        status = scio_plan_lay(plan, cap - least_rest, least_out, &failure);
    }
    if (status != SCIO_OK)
        scio_error_move(err, &failure);
    return status;
}

scio_status
scio_loader_plan_budget(scio_loader *loader, const int64_t *cells, size_t n_cells, scio_error *err)
{
    scio_plan *const plan = loader->plan;
    const uint64_t size = (uint64_t)loader->options.batch_size;
    const uint64_t n_of_batch = plan->n_stream < (int64_t)size ? (uint64_t)plan->n_stream : size;
    const scio_plan_extent most = longest_extent(plan);
    const uint64_t slot =
        slot_nbytes(loader, (uint64_t)most.longest_row, most.batch_items, n_of_batch);
    scio_error failure = SCIO_ERROR_INIT;
    const uint64_t cap = loader->options.max_memory, held = held_nbytes(loader);
    uint64_t least_windows = 0;
    scio_status status;

    loader->worst_nbytes =
        loader->options.is_fill ? sizeof(scio_batch) : planned_bound(loader, n_of_batch);
    const uint64_t least_rest =
        loader->worst_nbytes + slot + QUEUE_STATES * sizeof(scio_loader_batch);
    choose_keep(loader, cells, n_cells, slot);
    status =
        lay_within(loader, less(cap, loader->keep.nbytes), least_rest, &least_windows, &failure);
    if (status == SCIO_EINVAL && loader->keep.nbytes > 0 && loader->options.kept_nbytes == 0) {
        loader->keep.nbytes = 0;
        failure = (scio_error)SCIO_ERROR_INIT;
        status = lay_within(loader, cap, least_rest, &least_windows, &failure);
    }
    if (status == SCIO_EINVAL)
        return too_small(
            loader, in_whole_pages(held + least_rest + least_that_lays(plan, least_windows)), err);
    if (status != SCIO_OK) {
        scio_error_move(err, &failure);
        return status;
    }
    /* the ring is there from start to end, or, when rows are resident, not at all */
    const uint64_t ring = loader->is_resident ? 0 : plan->ring_nbytes;
    const uint64_t used = scio_plan_nbytes(plan) + ring + plan->aside_nbytes;
    /* the windows follow from the cap alone, also where rows are resident; the rest gives way */
    const uint64_t left = less(cap, held > loader->keep.nbytes ? held : loader->keep.nbytes);
    if (left < used + least_rest)
        return too_small(loader, in_whole_pages(held + used + least_rest), err);
    share_rest(loader, left, used, slot);
    loader->fixed_nbytes -= plan->aside_nbytes; /* accounted as it comes and goes */
    return SCIO_OK;
}

/* ---- given lists ---- */

typedef struct given_sizes {
    uint64_t n_cells, n_items, longest, held;
} given_sizes;

/* Whether the row is read into memory of the batch, with all its tracks. */
static bool
will_be_taken(const scio_loader *loader, size_t i_source, int64_t cell)
{
    if (loader->mapped != NULL || scio_loader_is_in_memory(loader, i_source))
        return false;
    return loader->resident == NULL ||
           scio_compact_find(loader->resident, cell, 0, NULL) == SCIO_COMPACT_MISSING;
}

static void
measure_given(const scio_loader *loader, size_t i_batch, given_sizes *most)
{
    const int64_t begin = loader->given_offsets[i_batch], end = loader->given_offsets[i_batch + 1];
    given_sizes sizes = {(uint64_t)(end - begin), 0, 0, 0};

    for (int64_t i = begin; i < end; i++) {
        const int64_t cell = loader->given_cells[i];
        const size_t s = scio_loader_source_at(loader, cell);
        const int64_t row = cell - loader->first_cells[s];
        const bool is_taken = will_be_taken(loader, s, cell);
        for (size_t t = 0; t < loader->n_tracks; t++) {
            const scio_matrix *const matrix = scio_loader_matrix(loader, s, t);
            const uint64_t n = matrix->indptr != NULL
                                   ? (uint64_t)(matrix->indptr[row + 1] - matrix->indptr[row])
                                   : (uint64_t)matrix->n_cols;
            sizes.n_items = scio_add_capped(sizes.n_items, n);
            sizes.longest = n > sizes.longest ? n : sizes.longest;
            if (is_taken)
                sizes.held += n * (scio_dtype_itemsize(matrix->data_dtype) + 8) + 24;
        }
    }
    most->n_cells = sizes.n_cells > most->n_cells ? sizes.n_cells : most->n_cells;
    most->n_items = sizes.n_items > most->n_items ? sizes.n_items : most->n_items;
    most->longest = sizes.longest > most->longest ? sizes.longest : most->longest;
    most->held = sizes.held > most->held ? sizes.held : most->held;
}

/* Chunks that are kept for the next batches count too: a quarter of what is left is for them. */
static uint64_t
share_units(const scio_loader *loader, const given_sizes *most, uint64_t left)
{
    const size_t n_tracks = loader->n_matrices * loader->n_tracks;
    uint64_t nbytes = 0;

    if (most->held == 0)
        return 0;
    for (size_t i = 0; i < n_tracks; i++)
        nbytes += scio_matrix_limit_cache(
            scio_loader_matrix(loader, i / loader->n_tracks, i % loader->n_tracks),
            left / 4 / n_tracks);
    return nbytes;
}

scio_status
scio_loader_plan_given(scio_loader *loader, const int64_t *cells, size_t n_cells, scio_error *err)
{
    given_sizes most = {0, 0, 0, 0};

    for (size_t b = 0; b < loader->options.n_given; b++)
        measure_given(loader, b, &most);
    const uint64_t slot = slot_nbytes(loader, most.longest, most.n_items, most.n_cells);
    const uint64_t lists =
        ((uint64_t)loader->given_offsets[loader->options.n_given] + loader->options.n_given + 1) *
        sizeof(int64_t);
    loader->worst_nbytes =
        scio_loader_batch_bound(&loader->spec, most.n_cells, most.n_items, most.longest) +
        most.held + most.n_cells * 24;
    for (size_t t = 1; t < loader->n_tracks; t++)
        loader->worst_nbytes = scio_add_capped(
            loader->worst_nbytes, extra_bound(loader, t, most.n_cells, most.n_items, most.longest));
    const uint64_t cap = loader->options.max_memory, held = held_nbytes(loader);
    const uint64_t least =
        lists + slot + loader->worst_nbytes + QUEUE_STATES * sizeof(scio_loader_batch);
    if (less(cap, held) < least)
        return too_small(loader, held + least, err);
    choose_keep(loader, cells, n_cells, slot);
    if (less(cap, loader->keep.nbytes) < least)
        loader->keep.nbytes = 0;
    const uint64_t left = cap - (held > 0 ? held : loader->keep.nbytes);
    share_rest(loader, left, lists + share_units(loader, &most, left - least), slot);
    return SCIO_OK;
}
