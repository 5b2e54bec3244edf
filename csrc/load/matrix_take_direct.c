/* Random rows of arrays that are stored without filters: their own bytes are read and no others.  A
 * chunk of 64 KiB for a row of 3 would cost twenty times the copying. */
#include "base/mem.h"
#include "load/matrix_private.h"

#include <inttypes.h>

/* Requests of a stretch: enough to be worth a job. */
enum { STRETCH = 16 };
/* Whole units are read unless the rows are a smaller part of them. */
enum { LEAST_WASTE = 4 };

static bool
is_plain(const scio_h5_dataset *dataset, const scio_h5_unit *unit)
{
    const bool is_whole =
        dataset->layout == SCIO_H5_CONTIGUOUS || unit->nbytes == dataset->unit_nbytes;

    return unit->position != SCIO_H5_UNDEFINED && is_whole &&
           (unit->is_raw || dataset->pipeline.n_filters == 0);
}

/* Bytes of the rows, and whether every unit that they touch can be read in parts. */
static bool
are_plain(const scio_matrix_taking *take, const scio_h5_dataset *dataset, const scio_h5_unit *units,
          uint64_t *nbytes_out)
{
    const int64_t *const indptr = take->matrix->indptr;
    uint64_t n_items = 0;

    for (size_t i = 0; i < take->n_requests; i++) {
        const int64_t row = take->requests[i].row;
        if (indptr[row] == indptr[row + 1])
            continue;
        const uint64_t last = (uint64_t)(indptr[row + 1] - 1) / dataset->unit_dims[0];
        for (uint64_t k = (uint64_t)indptr[row] / dataset->unit_dims[0]; k <= last; k++)
            if (!is_plain(dataset, &units[k]))
                return false;
        n_items += (uint64_t)(indptr[row + 1] - indptr[row]);
    }
    *nbytes_out = n_items * dataset->type->itemsize;
    return true;
}

scio_status
scio_matrix_count_direct(const scio_matrix_taking *take, unsigned which, uint64_t n_units,
                         size_t *n_out, scio_error *err)
{
    scio_h5_dataset *const dataset = scio_matrix_dataset(take->matrix, which);
    const scio_h5_unit *units = NULL;
    uint64_t nbytes = 0;

    *n_out = 0;
    if (n_units == 0 || dataset->layout == SCIO_H5_COMPACT || dataset->unit_dims[0] == 0 ||
        !scio_source_is_local(scio_h5_file_source(dataset->file)))
        return SCIO_OK;
    SCIO_TRY(scio_h5_dataset_units(dataset, &units, err));
    if (are_plain(take, dataset, units, &nbytes) &&
        nbytes / n_units < dataset->unit_nbytes / LEAST_WASTE)
        *n_out = (take->n_requests - 1) / STRETCH + 1;
    return SCIO_OK;
}

/* One row, unit by unit; unit_dims and the table were checked when they were read, the source
 * checks that the bytes lie within it. */
static scio_status
take_row(const scio_matrix_taking *take, unsigned which, const scio_h5_unit *units,
         scio_matrix_request request, char *scratch, scio_error *err)
{
    const scio_h5_dataset *const dataset = scio_matrix_dataset(take->matrix, which);
    const size_t itemsize = dataset->type->itemsize;
    const uint64_t unit = dataset->unit_dims[0];
    const uint64_t begin = (uint64_t)take->matrix->indptr[request.row];
    const uint64_t end = (uint64_t)take->matrix->indptr[request.row + 1];
    const int64_t *const out_indptr = scio_buf_data(take->out->indptr);

    for (uint64_t from = begin; from < end;) {
        const uint64_t i_unit = from / unit, inside = from % unit;
        const uint64_t count = end - from < unit - inside ? end - from : unit - inside;

        SCIO_TRY(scio_source_read(scio_h5_file_source(dataset->file),
                                  units[i_unit].position + inside * itemsize,
                                  (size_t)count * itemsize, scratch, err));
        SCIO_TRY(scio_matrix_put_items(take, which, scratch, from, (size_t)count,
                                       out_indptr[request.i] + (int64_t)(from - begin), err));
        from += count;
    }
    return SCIO_OK;
}

scio_status
scio_matrix_take_direct(const scio_matrix_taking *take, unsigned which, size_t i_stretch,
                        scio_error *err)
{
    scio_h5_dataset *const dataset = scio_matrix_dataset(take->matrix, which);
    const size_t first = i_stretch * STRETCH;
    const size_t left = take->n_requests - first, n = left < STRETCH ? left : STRETCH;
    const int64_t *const indptr = take->matrix->indptr;
    const scio_h5_unit *units = NULL;
    uint64_t most = 0;
    char *scratch = NULL;
    scio_status status;

    for (size_t i = first; i < first + n; i++) {
        const int64_t row = take->requests[i].row;
        const uint64_t n_items = (uint64_t)(indptr[row + 1] - indptr[row]);
        most = n_items > most ? n_items : most;
    }
    most = most < dataset->unit_dims[0] ? most : dataset->unit_dims[0];
    status = scio_h5_dataset_units(dataset, &units, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc((size_t)most, dataset->type->itemsize, &scratch, err);
    for (size_t i = first; status == SCIO_OK && i < first + n; i++)
        status = take_row(take, which, units, take->requests[i], scratch, err);
    scio_mem_free(scratch);
    return status;
}
