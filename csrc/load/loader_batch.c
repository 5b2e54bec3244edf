/* One batch: find its rows, collate them. */
#include "load/loader_private.h"

#include "base/mem.h"

#include <string.h>

enum {
    PREFETCHED_CELLS = 256,  /* rows of more would push one another out of the cache again */
    PREFETCHED_NBYTES = 2048 /* of each array of a row */
};

size_t
scio_loader_matrix_at(const scio_loader *loader, int64_t cell)
{
    size_t low = 0, high = loader->n_matrices;

    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (loader->first_cells[middle] <= cell)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void
scio_loader_finish_row(const scio_loader *loader, size_t i_matrix, scio_row *row)
{
    row->map = loader->maps[i_matrix];
    row->is_map_increasing = loader->is_map_increasing[i_matrix];
}

static scio_status
ensure_slot(scio_loader_slot *slot, size_t n_rows, scio_error *err)
{
    if (slot->collate == NULL)
        SCIO_TRY(scio_collate_scratch_new(&slot->collate, err));
    if (n_rows > slot->n_rows) {
        SCIO_TRY(scio_mem_realloc(&slot->rows, n_rows, sizeof *slot->rows, err));
        slot->n_rows = n_rows;
    }
    return SCIO_OK;
}

/* ---- from windows ---- */

static scio_plan_entry
entry_at(const scio_loader *loader, size_t i_window, int64_t pos)
{
    const scio_loader_window *const window = &loader->windows[i_window];
    const int64_t pos0 = loader->plan->windows[i_window].pos0;

    if (window->perm != NULL)
        pos = pos0 + window->perm[pos - pos0];
    return scio_plan_at(loader->plan, i_window, pos);
}

/* Rows lie all over the window: asked for together, they come from memory while the first are
 * collated. */
static void
prefetch(const void *data, size_t nbytes)
{
    for (size_t at = 0; at < nbytes && at < PREFETCHED_NBYTES; at += SCIO_ALIGNMENT)
        __builtin_prefetch((const char *)data + at, 0, 2);
}

static void
prefetch_row(const scio_row *row)
{
    prefetch(row->values, row->n_items * scio_dtype_itemsize(row->value_dtype));
    if (row->indices != NULL)
        prefetch(row->indices, row->n_items * scio_dtype_itemsize(row->index_dtype));
}

/* The rows of the cells [first, first + n_cells) of the stream order, without those left out. */
static scio_status
find_rows(const scio_loader *loader, scio_loader_batch *batch, scio_row *rows, int64_t first,
          int64_t n_cells, size_t *n_rows_out, int64_t *n_padding_out, scio_error *err)
{
    const scio_loader_window *const window = &loader->windows[batch->i_window];
    size_t n_rows = 0;
    int64_t n_padding = 0;

    if (window->failure != NULL) {
        scio_error_move(err, window->failure);
        return window->failure->code;
    }
    SCIO_BUG_IF(loader->plan->n_blocks == 0, err); /* EXACT: the rows are not in windows */
    for (int64_t i = 0; i < n_cells; i++) {
        const scio_plan_entry entry = entry_at(loader, batch->i_window, first + i);
        const scio_error *const failure = scio_store_failure(&loader->store, &entry);
        if (failure != NULL) {
            scio_error_move(err, failure);
            return failure->code;
        }
        if (loader->options.is_skip_errors && scio_store_is_broken(&loader->store, &entry)) {
            batch->n_skipped += entry.is_padding ? 0 : 1;
            continue;
        }
        scio_store_row(&loader->store, &entry, 0, &rows[n_rows]);
        if (n_cells <= PREFETCHED_CELLS)
            prefetch_row(&rows[n_rows]);
        scio_loader_finish_row(loader, loader->plan->blocks[entry.i_block].i_source,
                               &rows[n_rows++]);
        n_padding += entry.is_padding ? 1 : 0;
    }
    *n_rows_out = n_rows;
    *n_padding_out = n_padding;
    return SCIO_OK;
}

static scio_status
mark_padding(const scio_loader *loader, const scio_loader_batch *batch, int64_t first,
             int64_t n_cells, size_t n_rows, scio_batch *out, scio_error *err)
{
    size_t at = 0;

    SCIO_TRY(scio_buf_new(n_rows, &out->is_padding, err));
    uint8_t *const flags = scio_buf_data(out->is_padding);
    for (int64_t i = 0; i < n_cells; i++) {
        const scio_plan_entry entry = entry_at(loader, batch->i_window, first + i);
        if (loader->options.is_skip_errors && scio_store_is_broken(&loader->store, &entry))
            continue;
        flags[at++] = entry.is_padding ? 1 : 0;
    }
    out->is_padding_any = true;
    return SCIO_OK;
}

static scio_status
make_planned(const scio_loader *loader, scio_loader_batch *batch, scio_loader_slot *slot,
             scio_error *err)
{
    const int64_t size = loader->options.batch_size, first = batch->seq * size;
    const int64_t left = loader->plan->n_stream - first;
    const int64_t n_cells = left < size ? left : size;
    size_t n_rows = 0;
    int64_t n_padding = 0;
    scio_status status;

    SCIO_TRY(ensure_slot(slot, (size_t)n_cells, err));
    SCIO_TRY(find_rows(loader, batch, slot->rows, first, n_cells, &n_rows, &n_padding, err));
    SCIO_TRY(scio_collate(&loader->spec, slot->rows, n_rows, slot->collate, &batch->batch, err));
    if (n_padding == 0)
        return SCIO_OK;
    status = mark_padding(loader, batch, first, n_cells, n_rows, &batch->batch, err);
    if (status != SCIO_OK)
        scio_batch_clear(&batch->batch);
    return status;
}

/* ---- from given lists ---- */

typedef struct given_work {
    const scio_loader *loader;
    const int64_t *cells;
    size_t n_cells;
    int64_t *rows;   /* [n_cells] of the matrix at hand */
    size_t *places;  /* [n_cells] where they stand in the batch */
    scio_row *out;   /* [n_cells] */
    bool *is_there;  /* [n_cells] */
    scio_csr *taken; /* grows */
    size_t n_taken, n_room;
} given_work;

static bool
is_skippable(scio_status status)
{
    return status == SCIO_ECORRUPT || status == SCIO_EIO || status == SCIO_EFORMAT ||
           status == SCIO_EUNSUPPORTED || status == SCIO_ERANGE;
}

static void
point_at_memory(const scio_matrix *matrix, int64_t row, scio_row *out)
{
    const bool is_dense = matrix->kind == SCIO_MATRIX_DENSE;
    const size_t first =
        is_dense ? (size_t)row * (size_t)matrix->n_cols : (size_t)matrix->indptr[row];

    out->n_items = is_dense ? (size_t)matrix->n_cols : (size_t)matrix->indptr[row + 1] - first;
    out->value_dtype = matrix->data_dtype;
    out->values =
        (const char *)scio_buf_data(matrix->data) + first * scio_dtype_itemsize(matrix->data_dtype);
    if (is_dense)
        return;
    out->index_dtype = matrix->index_dtype;
    out->indices = (const char *)scio_buf_data(matrix->indices) +
                   first * scio_dtype_itemsize(matrix->index_dtype);
}

/* Takes rows [begin, begin + n_rows) of work->rows and points their places at them. */
static scio_status
take_some(given_work *work, size_t i_matrix, size_t begin, size_t n_rows, scio_error *err)
{
    if (work->n_taken == work->n_room) {
        const size_t n_room = work->n_room * 2 + 4;
        SCIO_TRY(scio_mem_realloc(&work->taken, n_room, sizeof *work->taken, err));
        work->n_room = n_room;
    }
    scio_csr *const csr = &work->taken[work->n_taken];
    SCIO_TRY(scio_matrix_take(work->loader->matrices[i_matrix], work->rows + begin, n_rows,
                              SCIO_DTYPE_NONE, 0, NULL, csr, err));
    work->n_taken++;
    const int64_t *const indptr = scio_buf_data(csr->indptr);
    for (size_t i = 0; i < n_rows; i++) {
        scio_row *const row = &work->out[work->places[begin + i]];
        const size_t first = (size_t)indptr[i];
        row->n_items = (size_t)(indptr[i + 1] - indptr[i]);
        row->index_dtype = csr->index_dtype;
        row->value_dtype = csr->data_dtype;
        row->indices = (const char *)scio_buf_data(csr->indices) +
                       first * scio_dtype_itemsize(csr->index_dtype);
        row->values =
            (const char *)scio_buf_data(csr->data) + first * scio_dtype_itemsize(csr->data_dtype);
        work->is_there[work->places[begin + i]] = true;
    }
    return SCIO_OK;
}

static scio_status
take_matrix(given_work *work, size_t i_matrix, scio_error *err)
{
    const scio_loader *const loader = work->loader;
    const scio_matrix *const matrix = loader->matrices[i_matrix];
    const int64_t first = loader->first_cells[i_matrix], end = loader->first_cells[i_matrix + 1];
    scio_error failure = SCIO_ERROR_INIT;
    size_t n_rows = 0;

    for (size_t i = 0; i < work->n_cells; i++) {
        const int64_t cell = work->cells[i];
        if (cell < first || cell >= end)
            continue;
        memset(&work->out[i], 0, sizeof work->out[i]);
        work->out[i].cell = cell;
        scio_loader_finish_row(loader, i_matrix, &work->out[i]);
        work->rows[n_rows] = cell - first;
        work->places[n_rows++] = i;
        if (!matrix->is_in_file) {
            point_at_memory(matrix, cell - first, &work->out[i]);
            work->is_there[i] = true;
        }
    }
    if (!matrix->is_in_file)
        return SCIO_OK;
    scio_source *const source = scio_h5_file_source(matrix->data_dataset->file);
    SCIO_TRY(scio_source_check_unchanged(source, err));
    scio_status status = take_some(work, i_matrix, 0, n_rows, &failure);
    if (status != SCIO_OK && loader->options.is_skip_errors && is_skippable(status)) {
        status = SCIO_OK; /* one by one, to leave out no more than the broken ones */
        for (size_t i = 0; i < n_rows && status == SCIO_OK; i++) {
            scio_error one = SCIO_ERROR_INIT;
            status = take_some(work, i_matrix, i, 1, &one);
            if (status != SCIO_OK && !is_skippable(status))
                failure = one;
            else
                status = SCIO_OK;
        }
    }
    if (status != SCIO_OK) {
        scio_error_move(err, &failure);
        return status;
    }
    return scio_source_check_unchanged(source, err);
}

static scio_status
take_all(given_work *work, scio_error *err)
{
    for (size_t i = 0; i < work->n_cells; i++) {
        const size_t m = scio_loader_matrix_at(work->loader, work->cells[i]);
        bool is_first = true;
        for (size_t j = 0; j < i && is_first; j++)
            is_first = scio_loader_matrix_at(work->loader, work->cells[j]) != m;
        if (is_first)
            SCIO_TRY(take_matrix(work, m, err));
    }
    return SCIO_OK;
}

static scio_status
make_given(const scio_loader *loader, scio_loader_batch *batch, scio_loader_slot *slot,
           scio_error *err)
{
    const int64_t first = loader->given_offsets[batch->seq];
    const size_t n_cells = (size_t)(loader->given_offsets[batch->seq + 1] - first);
    given_work work = {.loader = loader, .cells = loader->given_cells + first, .n_cells = n_cells};
    size_t n_rows = 0;
    scio_status status;

    SCIO_TRY(ensure_slot(slot, n_cells, err));
    work.out = slot->rows;
    status = scio_mem_alloc(n_cells, sizeof *work.rows, &work.rows, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_cells, sizeof *work.places, &work.places, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_cells, sizeof *work.is_there, &work.is_there, err);
    if (status == SCIO_OK)
        status = take_all(&work, err);
    if (status == SCIO_OK) {
        for (size_t i = 0; i < n_cells; i++)
            if (work.is_there[i])
                slot->rows[n_rows++] = slot->rows[i];
        batch->n_skipped = (int64_t)(n_cells - n_rows);
        status = scio_collate(&loader->spec, slot->rows, n_rows, slot->collate, &batch->batch, err);
    }
    for (size_t i = 0; i < work.n_taken; i++)
        scio_csr_clear(&work.taken[i]);
    scio_mem_free(work.taken);
    scio_mem_free(work.is_there);
    scio_mem_free(work.places);
    scio_mem_free(work.rows);
    return status;
}

void
scio_loader_batch_run(scio_job *job, size_t slot)
{
    scio_loader_batch *const batch = (scio_loader_batch *)(void *)job;
    scio_loader *const loader = batch->loader;
    const double start = scio_loader_clock();

    memset(&batch->batch, 0, sizeof batch->batch);
    if (__atomic_load_n(&loader->cancel, __ATOMIC_RELAXED) != 0)
        batch->status = scio_fail(&batch->failure, SCIO_ECANCEL, "cancelled");
    else if (loader->plan != NULL)
        batch->status = make_planned(loader, batch, &loader->slots[slot], &batch->failure);
    else
        batch->status = make_given(loader, batch, &loader->slots[slot], &batch->failure);
    scio_loader_finish_batch(loader, batch, scio_loader_clock() - start);
}
