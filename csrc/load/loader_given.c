/* Batches from given lists: rows that are resident are pointed at, the others taken from the files.
 */
#include "load/loader_private.h"

#include "base/mem.h"

#include <string.h>

struct scio_loader_taken {
    scio_csr *csrs; /* [n_room] hold the rows until the batch is made */
    size_t n_csrs, n_room;
};

typedef struct given_work {
    const scio_loader *loader;
    const int64_t *cells;
    size_t n_cells;
    scio_loader_slot *slot;
    scio_compact_state *states; /* [n_cells] */
    int64_t *rows;              /* [n_cells] of the source at hand */
    size_t *places;             /* [n_cells] where they stand in the batch */
    scio_loader_taken *taken;
} given_work;

void
scio_loader_taken_free(scio_loader_taken *taken)
{
    if (taken == NULL)
        return;
    for (size_t i = 0; i < taken->n_csrs; i++)
        scio_csr_clear(&taken->csrs[i]);
    scio_mem_free(taken->csrs);
    scio_mem_free(taken);
}

static bool
is_skippable(scio_status status)
{
    return status == SCIO_ECORRUPT || status == SCIO_EIO || status == SCIO_EFORMAT ||
           status == SCIO_EUNSUPPORTED || status == SCIO_ERANGE;
}

static scio_status
new_csr(scio_loader_taken *taken, scio_csr **out, scio_error *err)
{
    if (taken->n_csrs == taken->n_room) {
        const size_t n_room = taken->n_room * 2 + 4;
        SCIO_TRY(scio_mem_realloc(&taken->csrs, n_room, sizeof *taken->csrs, err));
        taken->n_room = n_room;
    }
    *out = &taken->csrs[taken->n_csrs];
    return SCIO_OK;
}

/* Takes rows [begin, begin + n_rows) of work->rows of one track and points their places at them. */
static scio_status
take_track(given_work *work, size_t i_source, size_t i_track, size_t begin, size_t n_rows,
           scio_error *err)
{
    const scio_loader *const loader = work->loader;
    scio_matrix *const matrix = scio_loader_matrix(loader, i_source, i_track);
    scio_csr *csr = NULL;

    SCIO_TRY(new_csr(work->taken, &csr, err));
    SCIO_TRY(
        scio_matrix_take(matrix, work->rows + begin, n_rows, SCIO_DTYPE_NONE, 0, NULL, csr, err));
    work->taken->n_csrs++;
    const int64_t *const indptr = scio_buf_data(csr->indptr);
    for (size_t i = 0; i < n_rows; i++) {
        const size_t place = work->places[begin + i], first = (size_t)indptr[i];
        scio_row *const row = &work->slot->rows[i_track * work->slot->n_room + place];
        memset(row, 0, sizeof *row);
        row->n_items = (size_t)(indptr[i + 1] - indptr[i]);
        row->index_dtype = csr->index_dtype;
        row->value_dtype = csr->data_dtype;
        row->indices = (const char *)scio_buf_data(csr->indices) +
                       first * scio_dtype_itemsize(csr->index_dtype);
        row->values =
            (const char *)scio_buf_data(csr->data) + first * scio_dtype_itemsize(csr->data_dtype);
        scio_loader_finish_row(loader, i_source, work->cells[place], row);
    }
    return SCIO_OK;
}

static scio_status
take_rows(given_work *work, size_t i_source, size_t begin, size_t n_rows, scio_error *err)
{
    for (size_t t = 0; t < work->loader->n_tracks; t++)
        SCIO_TRY(take_track(work, i_source, t, begin, n_rows, err));
    for (size_t i = begin; i < begin + n_rows; i++)
        work->states[work->places[i]] = SCIO_COMPACT_HELD;
    return SCIO_OK;
}

/* One by one, to leave out no more than the broken ones. */
static scio_status
take_each(given_work *work, size_t i_source, size_t n_rows, scio_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        scio_error failure = SCIO_ERROR_INIT;
        const scio_status status = take_rows(work, i_source, i, 1, &failure);
        if (status == SCIO_OK)
            continue;
        if (!is_skippable(status)) {
            scio_error_move(err, &failure);
            return status;
        }
        work->states[work->places[i]] = SCIO_COMPACT_BROKEN;
    }
    return SCIO_OK;
}

static scio_status
take_source(given_work *work, size_t i_source, scio_error *err)
{
    const scio_loader *const loader = work->loader;
    const int64_t first = loader->first_cells[i_source], end = loader->first_cells[i_source + 1];
    scio_error failure = SCIO_ERROR_INIT;
    size_t n_rows = 0;
    scio_status status;

    for (size_t i = 0; i < work->n_cells; i++) {
        const int64_t cell = work->cells[i];
        if (cell < first || cell >= end || work->states[i] != SCIO_COMPACT_MISSING)
            continue;
        work->rows[n_rows] = cell - first;
        work->places[n_rows++] = i;
    }
    if (n_rows == 0)
        return SCIO_OK;
    SCIO_TRY(scio_loader_check_unchanged(loader, i_source, err));
    status = take_rows(work, i_source, 0, n_rows, &failure);
    if (status != SCIO_OK && loader->options.is_skip_errors && is_skippable(status)) {
        failure = (scio_error)SCIO_ERROR_INIT;
        status = take_each(work, i_source, n_rows, &failure);
    }
    if (status != SCIO_OK) {
        scio_error_move(err, &failure);
        return status;
    }
    return scio_loader_check_unchanged(loader, i_source, err);
}

static scio_status
find_held(given_work *work, scio_error *err)
{
    for (size_t i = 0; i < work->n_cells; i++)
        SCIO_TRY(scio_loader_find_resident(work->loader, work->cells[i], -1, work->slot->n_room,
                                           &work->slot->rows[i], &work->states[i], err));
    return SCIO_OK;
}

/* Rows that are there, moved together; the others are noted as broken where rows are kept. */
static size_t
close_ranks(given_work *work)
{
    scio_loader_slot *const slot = work->slot;
    size_t n_rows = 0;

    for (size_t i = 0; i < work->n_cells; i++) {
        if (work->states[i] != SCIO_COMPACT_HELD) {
            if (work->loader->compact != NULL)
                scio_compact_put_broken(work->loader->compact, work->cells[i]);
            continue;
        }
        for (size_t t = 0; t < work->loader->n_tracks; t++)
            slot->rows[t * slot->n_room + n_rows] = slot->rows[t * slot->n_room + i];
        n_rows++;
    }
    return n_rows;
}

static scio_status
take_all(given_work *work, scio_error *err)
{
    SCIO_TRY(find_held(work, err));
    for (size_t i = 0; i < work->n_cells; i++)
        if (work->states[i] == SCIO_COMPACT_MISSING)
            SCIO_TRY(take_source(work, scio_loader_source_at(work->loader, work->cells[i]), err));
    return SCIO_OK;
}

scio_status
scio_loader_take_given(const scio_loader *loader, int64_t seq, scio_loader_slot *slot,
                       size_t *n_rows_out, scio_loader_taken **taken_out, scio_error *err)
{
    const int64_t first = loader->given_offsets[seq];
    const size_t n_cells = (size_t)(loader->given_offsets[seq + 1] - first);
    given_work work = {
        .loader = loader, .cells = loader->given_cells + first, .n_cells = n_cells, .slot = slot};
    scio_status status;

    status = scio_mem_zalloc(1, sizeof *work.taken, &work.taken, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(n_cells, sizeof *work.states, &work.states, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_cells, sizeof *work.rows, &work.rows, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_cells, sizeof *work.places, &work.places, err);
    if (status == SCIO_OK)
        status = take_all(&work, err);
    if (status == SCIO_OK) {
        *n_rows_out = close_ranks(&work);
        *taken_out = work.taken;
        work.taken = NULL;
    }
    scio_loader_taken_free(work.taken);
    scio_mem_free(work.places);
    scio_mem_free(work.rows);
    scio_mem_free(work.states);
    return status;
}
