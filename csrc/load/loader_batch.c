/* One batch: find its rows, keep them, collate them. */
#include "load/loader_private.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum {
    PREFETCHED_CELLS = 256, /* rows of more would push one another out of the cache again */
    RESIDENT_STRIDE = 64    /* cells whose places are asked for together */
};

/* The cells of a planned batch as they are found. */
typedef struct finding {
    const scio_loader *loader;
    scio_loader_batch *batch;
    scio_loader_slot *slot;
    size_t n_rows;
    int64_t n_padding;
    bool is_prefetching;
} finding;

static scio_plan_entry
entry_at(const scio_loader *loader, size_t i_window, int64_t pos)
{
    const scio_loader_window *const window = &loader->windows[i_window];
    const int64_t pos0 = loader->plan->windows[i_window].pos0;

    if (window->perm != NULL)
        pos = pos0 + window->perm[pos - pos0];
    return scio_plan_at(loader->plan, i_window, pos);
}

static void
add_row(finding *f, bool is_padding)
{
    const size_t n_tracks = f->loader->n_tracks;

    if (f->is_prefetching)
        for (size_t t = 0; t < n_tracks; t++)
            scio_loader_prefetch_row(&f->slot->rows[t * f->slot->n_room + f->n_rows]);
    f->slot->is_padding[f->n_rows++] = is_padding ? 1 : 0;
    f->n_padding += is_padding ? 1 : 0;
}

/* ---- from windows ---- */

static scio_status
find_decoded(finding *f, const scio_plan_entry *entry, scio_error *err)
{
    const scio_loader *const loader = f->loader;
    const scio_error *const failure = scio_store_failure(&loader->store, entry);
    const int64_t cell = scio_plan_cell(loader->plan, entry->i_sel);

    if (failure != NULL) {
        scio_error_move(err, failure);
        return failure->code;
    }
    if (loader->options.is_skip_errors && scio_store_is_broken(&loader->store, entry)) {
        f->batch->n_skipped += entry->is_padding ? 0 : 1;
        if (loader->compact != NULL)
            scio_compact_put_broken(loader->compact, cell);
        return SCIO_OK;
    }
    for (size_t t = 0; t < loader->n_tracks; t++) {
        scio_row *const row = &f->slot->rows[t * f->slot->n_room + f->n_rows];
        scio_store_row(&loader->store, entry, t, row);
        scio_loader_finish_row(loader, loader->plan->blocks[entry->i_block].i_source, cell, row);
    }
    add_row(f, entry->is_padding);
    return SCIO_OK;
}

static scio_status
find_all_decoded(finding *f, int64_t first, int64_t n_cells, scio_error *err)
{
    const scio_loader_window *const window = &f->loader->windows[f->batch->i_window];

    if (window->failure != NULL) {
        scio_error_move(err, window->failure);
        return window->failure->code;
    }
    for (int64_t i = 0; i < n_cells; i++) {
        const scio_plan_entry entry = entry_at(f->loader, f->batch->i_window, first + i);
        SCIO_TRY(find_decoded(f, &entry, err));
    }
    return SCIO_OK;
}

/* ---- resident ---- */

static scio_status
find_some_resident(finding *f, int64_t first, size_t n_cells, scio_error *err)
{
    const scio_loader *const loader = f->loader;
    scio_plan_entry entries[RESIDENT_STRIDE];
    int64_t cells[RESIDENT_STRIDE] = {0};

    for (size_t i = 0; i < n_cells; i++) {
        entries[i] = entry_at(loader, f->batch->i_window, first + (int64_t)i);
        cells[i] = scio_plan_cell(loader->plan, entries[i].i_sel);
    }
    scio_loader_prefetch_cells(loader, cells, n_cells);
    for (size_t i = 0; i < n_cells; i++) {
        scio_compact_state state;
        SCIO_TRY(scio_loader_find_resident(loader, cells[i], entries[i].i_sel, f->slot->n_room,
                                           &f->slot->rows[f->n_rows], &state, err));
        if (state == SCIO_COMPACT_HELD)
            add_row(f, entries[i].is_padding);
        else if (state == SCIO_COMPACT_BROKEN)
            f->batch->n_skipped += entries[i].is_padding ? 0 : 1;
        else
            return scio_fail(err, SCIO_EINVAL,
                             "cell %" PRId64 " is not resident: an exact plan takes its rows from "
                             "memory, a complete compact store or a mapped file",
                             cells[i]);
    }
    return SCIO_OK;
}

static scio_status
find_all_resident(finding *f, int64_t first, int64_t n_cells, scio_error *err)
{
    for (int64_t i = 0; i < n_cells; i += RESIDENT_STRIDE) {
        const int64_t left = n_cells - i;
        SCIO_TRY(find_some_resident(
            f, first + i, (size_t)(left < RESIDENT_STRIDE ? left : RESIDENT_STRIDE), err));
    }
    return SCIO_OK;
}

/* ---- collating ---- */

static scio_status
mark_padding(const scio_loader_slot *slot, size_t n_rows, scio_batch *out, scio_error *err)
{
    SCIO_TRY(scio_buf_new(n_rows, &out->is_padding, err));
    memcpy(scio_buf_data(out->is_padding), slot->is_padding, n_rows);
    out->is_padding_any = true;
    return SCIO_OK;
}

/* Track k + 1 of the cells of the batch. */
static scio_status
collate_extra(const scio_loader *loader, scio_loader_slot *slot, size_t n_rows, size_t k,
              scio_batch *out, scio_error *err)
{
    scio_row *const rows = &slot->rows[(k + 1) * slot->n_room];

    if (loader->is_layer[k + 1])
        return scio_collate_layer(&loader->spec, out, rows, n_rows, slot->collate, &out->extras[k],
                                  err);
    return scio_collate_dense_rows(rows, n_rows, scio_loader_matrix(loader, 0, k + 1)->n_cols,
                                   loader->spec.value_dtype, &out->extras[k], err);
}

static scio_status
collate_extras(const scio_loader *loader, scio_loader_slot *slot, size_t n_rows, scio_batch *out,
               scio_error *err)
{
    const size_t n_extras = loader->n_tracks - 1;

    if (n_extras == 0)
        return SCIO_OK;
    SCIO_TRY(scio_mem_zalloc(n_extras, sizeof *out->extras, &out->extras, err));
    out->n_extras = n_extras;
    for (size_t k = 0; k < n_extras; k++)
        SCIO_TRY(collate_extra(loader, slot, n_rows, k, out, err));
    return SCIO_OK;
}

static scio_status
collate(const scio_loader *loader, scio_loader_slot *slot, size_t n_rows, bool has_padding,
        scio_batch *out, scio_error *err)
{
    scio_status status;

    if (loader->options.is_fill) {
        *out = (scio_batch){.form = loader->spec.form, .n_cells = (int64_t)n_rows};
        return SCIO_OK;
    }
    SCIO_TRY(scio_collate(&loader->spec, slot->rows, n_rows, slot->collate, out, err));
    status = collate_extras(loader, slot, n_rows, out, err);
    if (status == SCIO_OK && has_padding)
        status = mark_padding(slot, n_rows, out, err);
    if (status != SCIO_OK)
        scio_batch_clear(out);
    return status;
}

static scio_status
make_batch(const scio_loader *loader, scio_loader_batch *batch, scio_loader_slot *slot,
           size_t n_rows, bool has_padding, scio_error *err)
{
    const double start = scio_loader_clock();
    scio_status status;

    scio_loader_keep_rows(loader, slot, n_rows);
    const double middle = scio_loader_clock();
    status = collate(loader, slot, n_rows, has_padding, &batch->batch, err);
    batch->gather_seconds += middle - start;
    batch->collate_seconds += scio_loader_clock() - middle;
    return status;
}

static scio_status
make_planned(const scio_loader *loader, scio_loader_batch *batch, scio_loader_slot *slot,
             scio_error *err)
{
    const int64_t size = loader->options.batch_size, first = batch->seq * size;
    const int64_t left = loader->plan->n_stream - first;
    const int64_t n_cells = left < size ? left : size;
    const double start = scio_loader_clock();
    finding f = {loader, batch, slot, 0, 0, n_cells <= PREFETCHED_CELLS};

    SCIO_TRY(scio_loader_ensure_slot(loader, slot, (size_t)n_cells, err));
    SCIO_TRY((loader->is_resident ? find_all_resident : find_all_decoded)(&f, first, n_cells, err));
    batch->gather_seconds = scio_loader_clock() - start;
    return make_batch(loader, batch, slot, f.n_rows, f.n_padding > 0, err);
}

static scio_status
make_given(const scio_loader *loader, scio_loader_batch *batch, scio_loader_slot *slot,
           scio_error *err)
{
    const size_t n_cells =
        (size_t)(loader->given_offsets[batch->seq + 1] - loader->given_offsets[batch->seq]);
    const double start = scio_loader_clock();
    scio_loader_taken *taken = NULL;
    size_t n_rows = 0;
    scio_status status;

    SCIO_TRY(scio_loader_ensure_slot(loader, slot, n_cells, err));
    SCIO_TRY(scio_loader_take_given(loader, batch->seq, slot, &n_rows, &taken, err));
    batch->n_skipped = (int64_t)(n_cells - n_rows);
    batch->gather_seconds = scio_loader_clock() - start;
    status = make_batch(loader, batch, slot, n_rows, false, err);
    scio_loader_taken_free(taken);
    return status;
}

void
scio_loader_batch_run(scio_job *job, size_t slot)
{
    scio_loader_batch *const batch = (scio_loader_batch *)(void *)job;
    scio_loader *const loader = batch->loader;

    memset(&batch->batch, 0, sizeof batch->batch);
    batch->gather_seconds = batch->collate_seconds = 0;
    if (__atomic_load_n(&loader->cancel, __ATOMIC_RELAXED) != 0)
        batch->status = scio_fail(&batch->failure, SCIO_ECANCEL, "cancelled");
    else if (loader->plan != NULL)
        batch->status = make_planned(loader, batch, &loader->slots[slot], &batch->failure);
    else
        batch->status = make_given(loader, batch, &loader->slots[slot], &batch->failure);
    scio_loader_finish_batch(loader, batch);
}
