/* The ring and who lives in it; decoding into it is in window_decode.c. */
#include "load/window.h"

#include "base/mem.h"

#include <string.h>

_Static_assert(sizeof(scio_store_block) <= SCIO_PLAN_BLOCK_STATE_NBYTES - 64,
               "counted in the plan");
_Static_assert(sizeof(scio_store_part) + 2 * sizeof(scio_store_job) <= SCIO_PLAN_TRACK_STATE_NBYTES,
               "counted in the plan");

scio_dtype
scio_store_index_dtype(const scio_matrix *matrix)
{
    return matrix->n_cols <= 65536 ? SCIO_U16 : SCIO_U32;
}

static scio_store_block *
left_of(const scio_store *store, size_t i_block)
{
    if (i_block == 0 || store->plan->blocks[i_block - 1].is_last_of_source)
        return NULL;
    return &store->blocks[i_block - 1];
}

static bool
is_zone_used(const scio_store *store, size_t i_block)
{
    const uint32_t last = store->plan->zone_last[i_block];
    return last != SCIO_PLAN_NEVER && last >= store->first_window;
}

/* Which blocks are decoded, and how far.  In a resumed epoch some blocks of a zone may belong to
 * windows that are over; then the other one decodes the few units of the zone too.  No unit is
 * decoded for two zones: a block between two of them decodes its part of both. */
static void
choose_live(scio_store *store)
{
    const scio_plan *const plan = store->plan;
    const size_t first_new =
        plan->n_windows > 0 ? plan->windows[store->first_window].order0 : plan->n_order;

    for (size_t i = 0; i < plan->n_order; i++) {
        const size_t b = plan->order[i];
        const uint32_t last = plan->block_last[b];
        store->blocks[b].has_interior = last != SCIO_PLAN_NEVER && last >= store->first_window;
        store->blocks[b].is_live = i >= first_new || store->blocks[b].has_interior;
    }
    for (size_t b = 1; b < plan->n_blocks; b++)
        if (is_zone_used(store, b - 1) && is_zone_used(store, b))
            store->blocks[b].is_live = true;
    for (size_t b = 0; b < plan->n_blocks; b++)
        if (is_zone_used(store, b) && !store->blocks[b].is_live && !store->blocks[b + 1].is_live)
            store->blocks[b].is_live = true;
    for (size_t b = 0; b < plan->n_blocks; b++) {
        if (!is_zone_used(store, b))
            continue;
        store->blocks[b].covers_right = !store->blocks[b + 1].is_live;
        store->blocks[b + 1].covers_left = !store->blocks[b].is_live;
    }
}

scio_status
scio_store_init(scio_store *store, const scio_plan *plan, scio_matrix *const *matrices,
                size_t first_window, bool is_skip_errors, const volatile int *cancel,
                scio_error *err)
{
    memset(store, 0, sizeof *store);
    store->plan = plan;
    store->matrices = matrices;
    store->cancel = cancel;
    store->is_skip_errors = is_skip_errors;
    store->first_window = first_window;
    /* n_blocks * n_tracks items are there already: the units of the plan */
    const size_t n_parts = plan->n_blocks * plan->n_tracks;
    SCIO_TRY(scio_mem_zalloc(n_parts, sizeof *store->parts, &store->parts, err));
    SCIO_TRY(scio_mem_zalloc(n_parts, 2 * sizeof *store->jobs, &store->jobs, err));
    SCIO_TRY(scio_mem_zalloc(plan->n_blocks, sizeof *store->blocks, &store->blocks, err));
    for (size_t b = 0; b < plan->n_blocks; b++) {
        store->blocks[b].parts = store->parts + b * plan->n_tracks;
        store->blocks[b].jobs = store->jobs + 2 * b * plan->n_tracks;
    }
    choose_live(store);
    return SCIO_OK;
}

void
scio_store_clear(scio_store *store)
{
    if (store->blocks != NULL)
        for (size_t i = 0; i < store->plan->n_blocks; i++) {
            scio_mem_free(store->blocks[i].zone);
            scio_mem_free(store->blocks[i].failure);
        }
    if (store->parts != NULL)
        for (size_t i = 0; i < store->plan->n_blocks * store->plan->n_tracks; i++) {
            scio_mem_free(store->parts[i].broken[0]);
            scio_mem_free(store->parts[i].broken[1]);
        }
    scio_mem_free(store->blocks);
    scio_mem_free(store->parts);
    scio_mem_free(store->jobs);
    scio_buf_release(store->ring);
    memset(store, 0, sizeof *store);
}

void
scio_store_window_order(const scio_store *store, size_t i_window, size_t *begin_out,
                        size_t *end_out)
{
    const scio_plan_window *const window = &store->plan->windows[i_window];
    *begin_out = i_window > store->first_window ? window->order0 : 0;
    *end_out = window->order1;
}

unsigned
scio_store_n_jobs(const scio_store *store, size_t i_block)
{
    const scio_plan_source *const source =
        &store->plan->sources[store->plan->blocks[i_block].i_source];
    unsigned n_jobs = 0;

    if (!store->blocks[i_block].is_live)
        return 0;
    for (size_t t = 0; t < source->n_tracks; t++)
        if (source->tracks[t].is_in_file)
            n_jobs += source->tracks[t].indptr != NULL ? 2 : 1;
    return n_jobs;
}

/* First in, first out: blocks are opened in the order and closed in it, so the free room is one
 * gap, or two when the end of the ring was too short for a block. */
static bool
ring_take(scio_store *store, size_t nbytes, char **out)
{
    const size_t capacity = scio_buf_nbytes(store->ring);
    size_t at;

    if (store->n_live == 0) {
        store->head = store->tail = 0;
        store->is_wrapped = false;
    }
    if (store->is_wrapped ? nbytes > store->tail - store->head : nbytes > capacity - store->head) {
        if (store->is_wrapped || nbytes > store->tail)
            return false;
        store->is_wrapped = true;
        store->head = 0;
    }
    at = store->head;
    store->head += nbytes;
    store->n_live++;
    *out = (char *)scio_buf_data(store->ring) + at;
    return true;
}

static void
ring_give(scio_store *store, scio_store_block *block)
{
    const scio_plan *const plan = store->plan;

    block->memory = NULL;
    store->n_live--;
    for (size_t i = store->oldest; i < plan->n_order; i++) { /* the next block is the new tail */
        const char *const memory = store->blocks[plan->order[i]].memory;
        if (memory == NULL)
            continue;
        const size_t at = (size_t)(memory - (const char *)scio_buf_data(store->ring));
        store->is_wrapped = store->is_wrapped && at > store->tail;
        store->tail = at;
        return;
    }
}

static scio_status
open_zone(scio_store *store, size_t i_block, scio_error *err)
{
    scio_store_block *const block = &store->blocks[i_block];

    if (!is_zone_used(store, i_block) || block->zone != NULL)
        return SCIO_OK;
    const size_t nbytes = scio_plan_zone_nbytes(store->plan, i_block);
    SCIO_TRY(scio_mem_alloc(nbytes, 1, &block->zone, err));
    store->zone_nbytes += nbytes;
    return SCIO_OK;
}

scio_status
scio_store_open(scio_store *store, size_t i_block, scio_error *err)
{
    const scio_plan *const plan = store->plan;
    const scio_plan_block *const planned = &plan->blocks[i_block];
    scio_store_block *const block = &store->blocks[i_block];

    if (scio_store_n_jobs(store, i_block) == 0)
        return SCIO_OK;
    if (store->ring == NULL)
        SCIO_TRY(scio_buf_new((size_t)plan->ring_nbytes, &store->ring, err));
    for (size_t t = 0; t < plan->n_tracks; t++) {
        const scio_matrix *const matrix = store->matrices[planned->i_source * plan->n_tracks + t];
        block->parts[t].value_dtype = matrix->data_dtype;
        block->parts[t].place =
            scio_plan_store_place(plan, planned->i_source, t, planned->sel0, planned->sel1);
    }
    const size_t nbytes = block->has_interior ? scio_plan_block_nbytes(plan, i_block) : 0;
    if (nbytes > 0)
        SCIO_BUG_IF(!ring_take(store, nbytes, &block->memory), err);
    if (left_of(store, i_block) != NULL)
        SCIO_TRY(open_zone(store, i_block - 1, err));
    return open_zone(store, i_block, err);
}

void
scio_store_close_window(scio_store *store, size_t i_window)
{
    const scio_plan *const plan = store->plan;
    size_t begin, end;

    scio_store_window_order(store, i_window, &begin, &end);
    for (; store->oldest < end; store->oldest++) {
        scio_store_block *const block = &store->blocks[plan->order[store->oldest]];
        if (!block->has_interior || block->memory == NULL)
            continue;
        if (plan->block_last[plan->order[store->oldest]] > i_window)
            break;
        store->oldest++; /* so that the search for the next one starts behind it */
        ring_give(store, block);
        store->oldest--;
    }
    /* zones end where they are used last: look through the pieces of the window */
    const size_t last_piece =
        i_window + 1 < plan->n_windows ? plan->windows[i_window + 1].piece0 : plan->n_pieces - 1;
    for (size_t p = plan->windows[i_window].piece0; p <= last_piece && p < plan->n_pieces; p++) {
        const scio_plan_piece *const piece = &plan->pieces[p];
        scio_store_block *const block = &store->blocks[piece->i_block];
        if (!piece->is_zone || block->zone == NULL || plan->zone_last[piece->i_block] > i_window)
            continue;
        store->zone_nbytes -= scio_plan_zone_nbytes(plan, piece->i_block);
        scio_mem_free(block->zone);
        block->zone = NULL;
    }
}

/* ---- reading ---- */

static void
memory_row(const scio_matrix *matrix, int64_t row, scio_row *out)
{
    const char *const values = scio_buf_data(matrix->data);
    size_t first;

    out->value_dtype = matrix->data_dtype;
    if (matrix->kind == SCIO_MATRIX_CSR) {
        first = (size_t)matrix->indptr[row];
        out->n_items = (size_t)matrix->indptr[row + 1] - first;
        out->index_dtype = matrix->index_dtype;
        out->indices = (const char *)scio_buf_data(matrix->indices) +
                       first * scio_dtype_itemsize(matrix->index_dtype);
    } else {
        first = (size_t)row * (size_t)matrix->n_cols;
        out->n_items = (size_t)matrix->n_cols;
        out->indices = NULL;
    }
    out->values = values + first * scio_dtype_itemsize(matrix->data_dtype);
}

void
scio_store_row(const scio_store *store, const scio_plan_entry *entry, size_t i_track, scio_row *row)
{
    const scio_plan *const plan = store->plan;
    const scio_plan_block *const planned = &plan->blocks[entry->i_block];
    const scio_store_block *const block = &store->blocks[entry->i_block];
    const size_t s = planned->i_source;
    const scio_matrix *const matrix = store->matrices[s * plan->n_tracks + i_track];
    static const uint64_t nothing[1] = {0};
    int64_t sel0 = planned->sel0, sel1 = planned->sel1;
    const void *memory;
    scio_plan_place place;

    memset(row, 0, sizeof *row);
    row->cell = scio_plan_cell(plan, entry->i_sel);
    if (!matrix->is_in_file) {
        memory_row(matrix, row->cell - plan->first_cells[s], row);
        return;
    }
    if (entry->is_zone) {
        (void)scio_plan_zone(plan, entry->i_block, &sel0, &sel1);
        place = scio_plan_store_place(plan, s, i_track, sel0, sel1);
        memory = block->zone;
        row->value_dtype = matrix->data_dtype;
    } else { /* the interior may be gone already when a zone is used, so it is not looked at there
              */
        place = block->parts[i_track].place;
        memory = block->memory;
        row->value_dtype = block->parts[i_track].value_dtype;
    }
    if (memory == NULL) /* a block of empty rows; one without indices would be a dense row */
        memory = nothing;
    const size_t first = (size_t)scio_plan_items(plan, s, i_track, sel0, entry->i_sel);
    row->n_items = (size_t)scio_plan_items(plan, s, i_track, entry->i_sel, entry->i_sel + 1);
    row->values =
        (const char *)memory + place.data_offset + first * scio_dtype_itemsize(row->value_dtype);
    if (matrix->kind == SCIO_MATRIX_CSR) {
        row->index_dtype = scio_store_index_dtype(matrix);
        row->indices = (const char *)memory + place.index_offset +
                       first * scio_dtype_itemsize(row->index_dtype);
    }
}

/* ---- failures ---- */

const scio_error *
scio_store_failure(const scio_store *store, const scio_plan_entry *entry)
{
    const scio_store_block *const block = &store->blocks[entry->i_block];

    if (block->failure != NULL)
        return block->failure;
    return entry->is_zone ? block[1].failure : NULL;
}

static bool
touches(const scio_store_part *part, int64_t begin, int64_t end)
{
    for (unsigned which = 0; which < 2; which++)
        for (size_t i = 0; i < part->n_broken[which]; i++)
            if (part->broken[which][i].begin < end && part->broken[which][i].end > begin)
                return true;
    return false;
}

bool
scio_store_is_broken(const scio_store *store, const scio_plan_entry *entry)
{
    const scio_plan *const plan = store->plan;
    const scio_store_block *const block = &store->blocks[entry->i_block];
    const size_t s = plan->blocks[entry->i_block].i_source;
    const int64_t row = scio_plan_cell(plan, entry->i_sel) - plan->first_cells[s];

    for (size_t t = 0; t < plan->n_tracks; t++) {
        const int64_t *const indptr = plan->sources[s].tracks[t].indptr;
        const int64_t begin = indptr != NULL ? indptr[row] : row;
        const int64_t end = indptr != NULL ? indptr[row + 1] : row + 1;
        if (touches(&block->parts[t], begin, end) ||
            (entry->is_zone && touches(&block[1].parts[t], begin, end)))
            return true;
    }
    return false;
}
