/* Where the rows of a batch lie, and keeping them once they are decoded. */
#include "load/loader_private.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum { PREFETCHED_NBYTES = 2048 /* of each array of a row */ };

scio_status
scio_loader_ensure_slot(const scio_loader *loader, scio_loader_slot *slot, size_t n_cells,
                        scio_error *err)
{
    if (slot->collate == NULL)
        SCIO_TRY(scio_collate_scratch_new(&slot->collate, err));
    if (slot->one == NULL)
        SCIO_TRY(scio_mem_zalloc(loader->n_tracks, sizeof *slot->one, &slot->one, err));
    if (n_cells <= slot->n_room)
        return SCIO_OK;
    slot->n_room = 0;
    SCIO_TRY(scio_mem_realloc(&slot->rows, n_cells, loader->n_tracks * sizeof *slot->rows, err));
    SCIO_TRY(scio_mem_realloc(&slot->cells, n_cells, sizeof *slot->cells, err));
    SCIO_TRY(scio_mem_realloc(&slot->is_padding, n_cells, 1, err));
    slot->n_room = n_cells;
    return SCIO_OK;
}

size_t
scio_loader_source_at(const scio_loader *loader, int64_t cell)
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
scio_loader_finish_row(const scio_loader *loader, size_t i_source, int64_t cell, scio_row *row)
{
    scio_row_set_map(row, loader->maps[i_source], loader->map_kinds[i_source]);
    row->cell = cell;
}

void
scio_loader_point(const scio_matrix *matrix, int64_t i_row, scio_row *row)
{
    const bool is_dense = matrix->kind == SCIO_MATRIX_DENSE;
    const size_t first =
        is_dense ? (size_t)i_row * (size_t)matrix->n_cols : (size_t)matrix->indptr[i_row];

    memset(row, 0, sizeof *row);
    row->n_items = is_dense ? (size_t)matrix->n_cols : (size_t)matrix->indptr[i_row + 1] - first;
    row->value_dtype = matrix->data_dtype;
    row->values =
        (const char *)scio_buf_data(matrix->data) + first * scio_dtype_itemsize(matrix->data_dtype);
    if (is_dense)
        return;
    row->index_dtype = matrix->index_dtype;
    row->indices = (const char *)scio_buf_data(matrix->indices) +
                   first * scio_dtype_itemsize(matrix->index_dtype);
}

bool
scio_loader_is_in_memory(const scio_loader *loader, size_t i_source)
{
    for (size_t t = 0; t < loader->n_tracks; t++)
        if (scio_loader_matrix(loader, i_source, t)->is_in_file)
            return false;
    return true;
}

/* ---- resident rows ---- */

/* The row of a cell among those of its source that are mapped. */
static scio_status
mapped_row(const scio_loader *loader, size_t i_source, int64_t cell, int64_t i_sel,
           int64_t *row_out, scio_error *err)
{
    const int64_t *const cells = loader->mapped_cells;
    size_t low = 0, high = loader->n_mapped_cells;

    if (cells == NULL) {
        *row_out = cell - loader->first_cells[i_source];
        return SCIO_OK;
    }
    if (i_sel >= 0 && (size_t)i_sel < high && cells[i_sel] == cell)
        low = (size_t)i_sel;
    else
        while (low < high) {
            const size_t middle = low + (high - low) / 2;
            if (cells[middle] < cell)
                low = middle + 1;
            else
                high = middle;
        }
    if (low >= loader->n_mapped_cells || cells[low] != cell)
        return scio_fail(err, SCIO_EINVAL, "cell %" PRId64 " is not among those that are mapped",
                         cell);
    *row_out = (int64_t)(low - loader->mapped_first[i_source]);
    return SCIO_OK;
}

scio_status
scio_loader_find_resident(const scio_loader *loader, int64_t cell, int64_t i_sel, size_t n_room,
                          scio_row *rows, scio_compact_state *state_out, scio_error *err)
{
    const size_t s = scio_loader_source_at(loader, cell);
    const bool is_in_memory = scio_loader_is_in_memory(loader, s);
    int64_t i_row = cell - loader->first_cells[s];

    *state_out = SCIO_COMPACT_HELD;
    if (!is_in_memory && loader->mapped != NULL)
        SCIO_TRY(mapped_row(loader, s, cell, i_sel, &i_row, err));
    for (size_t t = 0; t < loader->n_tracks; t++) {
        scio_row *const row = &rows[t * n_room];
        if (is_in_memory || loader->mapped != NULL) {
            const scio_matrix *const matrix = is_in_memory
                                                  ? scio_loader_matrix(loader, s, t)
                                                  : loader->mapped[s * loader->n_tracks + t];
            SCIO_TRY(scio_matrix_check_row(matrix, i_row, err));
            scio_loader_point(matrix, i_row, row);
        } else {
            const scio_compact *const compact =
                loader->resident != NULL ? loader->resident : loader->compact;
            memset(row, 0, sizeof *row);
            *state_out =
                compact != NULL ? scio_compact_find(compact, cell, t, row) : SCIO_COMPACT_MISSING;
            if (*state_out != SCIO_COMPACT_HELD)
                return SCIO_OK;
        }
        scio_loader_finish_row(loader, s, cell, row);
    }
    return SCIO_OK;
}

void
scio_loader_prefetch_cells(const scio_loader *loader, const int64_t *cells, size_t n_cells)
{
    const scio_compact *const compact = loader->resident;

    if (compact == NULL)
        return;
    for (size_t i = 0; i < n_cells; i++)
        scio_compact_prefetch_place(compact, cells[i]);
    for (size_t i = 0; i < n_cells; i++)
        scio_compact_prefetch_row(compact, cells[i]);
}

static void
prefetch(const void *data, size_t nbytes)
{
    for (size_t at = 0; at < nbytes && at < PREFETCHED_NBYTES; at += SCIO_ALIGNMENT)
        __builtin_prefetch((const char *)data + at, 0, 2);
}

/* Rows lie all over the memory: asked for together, they come while the first are collated. */
void
scio_loader_prefetch_row(const scio_row *row)
{
    prefetch(row->values, row->n_items * scio_dtype_itemsize(row->value_dtype));
    if (row->indices != NULL)
        prefetch(row->indices, row->n_items * scio_dtype_itemsize(row->index_dtype));
}

/* ---- keeping ---- */

void
scio_loader_keep_rows(const scio_loader *loader, scio_loader_slot *slot, size_t n_rows)
{
    if (loader->compact == NULL && loader->sink == NULL)
        return;
    for (size_t i = 0; i < n_rows; i++) {
        const int64_t cell = slot->rows[i].cell;
        const size_t s = scio_loader_source_at(loader, cell);
        if (scio_loader_is_in_memory(loader, s))
            continue;
        for (size_t t = 0; t < loader->n_tracks; t++)
            slot->one[t] = slot->rows[t * slot->n_room + i];
        if (loader->compact != NULL)
            scio_compact_put(loader->compact, cell, slot->one);
        if (loader->sink != NULL)
            scio_sink_put(loader->sink, s, cell, slot->one);
    }
}
