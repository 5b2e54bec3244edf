/* The plan's cells, without reading any data. */
#include "base/mem.h"
#include "load/loader_private.h"

#include <string.h>

static scio_status
planned_cells(const scio_loader *loader, int64_t *cells, int64_t *offsets, scio_error *err)
{
    const scio_plan *const plan = loader->plan;
    const int64_t size = loader->options.batch_size;

    for (size_t w = 0; w < plan->n_windows; w++) {
        const scio_plan_window *const window = &plan->windows[w];
        const int64_t n_cells = window->pos1 - window->pos0;
        int64_t *perm = NULL;
        SCIO_TRY(scio_mem_alloc((size_t)scio_plan_permuted(plan, w), sizeof *perm, &perm, err));
        scio_plan_permute(plan, w, perm);
        for (int64_t i = 0; i < n_cells; i++) {
            const scio_plan_entry entry = scio_plan_at(plan, w, window->pos0 + perm[i]);
            cells[window->pos0 + i] = scio_plan_cell(plan, entry.i_sel);
        }
        scio_mem_free(perm);
    }
    for (int64_t i = 0; i <= loader->n_batches; i++)
        offsets[i] = i * size < plan->n_stream ? i * size : plan->n_stream;
    return SCIO_OK;
}

scio_status
scio_loader_plan_cells(const scio_loader *loader, scio_buf **cells_out, scio_buf **offsets_out,
                       scio_error *err)
{
    const int64_t n_cells =
        loader->plan != NULL ? loader->plan->n_stream : loader->given_offsets[loader->n_batches];
    scio_buf *cells = NULL, *offsets = NULL;
    scio_status status;

    status = scio_buf_new((size_t)n_cells * sizeof(int64_t), &cells, err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)(loader->n_batches + 1) * sizeof(int64_t), &offsets, err);
    if (status == SCIO_OK && loader->plan != NULL)
        status = planned_cells(loader, scio_buf_data(cells), scio_buf_data(offsets), err);
    else if (status == SCIO_OK) {
        if (n_cells > 0)
            memcpy(scio_buf_data(cells), loader->given_cells, scio_buf_nbytes(cells));
        memcpy(scio_buf_data(offsets), loader->given_offsets, scio_buf_nbytes(offsets));
    }
    if (status != SCIO_OK) {
        scio_buf_release(cells);
        scio_buf_release(offsets);
        return status;
    }
    *cells_out = cells;
    *offsets_out = offsets;
    return SCIO_OK;
}
