/* Describing a dataset: every message of its header that matters is checked here, once. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <string.h>

#define ROWS_NBYTES                                                                                \
    ((uint64_t)256 << 10) /* units of compact and contiguous data are about this                   \
                           */

static const char *const INDEX_NAMES[] = {
    [SCIO_H5_INDEX_NONE] = "none",     [SCIO_H5_INDEX_BTREE1] = "btree1",
    [SCIO_H5_INDEX_SINGLE] = "single", [SCIO_H5_INDEX_IMPLICIT] = "implicit",
    [SCIO_H5_INDEX_FIXED] = "fixed",   [SCIO_H5_INDEX_EXTENSIBLE] = "extensible",
    [SCIO_H5_INDEX_BTREE2] = "btree2",
};

/* ---- messages ---- */

static scio_status
find_message(const scio_h5_header *header, uint16_t type, const char *name,
             const scio_h5_message **out, scio_error *err)
{
    *out = scio_h5_header_find(header, type);
    if (*out != NULL)
        return SCIO_OK;
    if (scio_h5_header_find(header, SCIO_H5_MSG_SYMBOL_TABLE) != NULL ||
        scio_h5_header_find(header, SCIO_H5_MSG_LINK_INFO) != NULL)
        return scio_fail(err, SCIO_ETYPE, "a group, not a dataset");
    return scio_fail(err, SCIO_ECORRUPT, "a dataset without a %s message", name);
}

static scio_status
read_space(const scio_h5_file *file, const scio_h5_header *header, scio_h5_space *out,
           scio_error *err)
{
    const scio_h5_message *message = NULL;
    scio_cursor cursor;

    SCIO_TRY(find_message(header, SCIO_H5_MSG_DATASPACE, "dataspace", &message, err));
    if ((message->flags & 2) != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "the dataspace is in a shared object header message");
    cursor = scio_h5_message_cursor(message, "dataspace");
    return scio_h5_space_parse(file, &cursor, out, err);
}

static scio_status
read_layout(scio_h5_dataset *dataset, const scio_h5_header *header, scio_error *err)
{
    scio_h5_state *state = scio_h5_dataset_state(dataset);
    scio_h5_layout_message *layout = &state->layout;
    const scio_h5_message *message = NULL;

    SCIO_TRY(find_message(header, SCIO_H5_MSG_LAYOUT, "layout", &message, err));
    if ((message->flags & 2) != 0)
        return scio_fail(err, SCIO_ECORRUPT, "the layout message is flagged shared");
    if (scio_h5_header_find(header, SCIO_H5_MSG_EXTERNAL_FILES) != NULL)
        return scio_fail(err, SCIO_EUNSAFE,
                         "external file storage: its elements lie in other files");
    SCIO_TRY(scio_h5_layout_parse(dataset->file, message, layout, err));
    dataset->layout = layout->layout;
    dataset->index_name = INDEX_NAMES[layout->index];
    if (layout->layout != SCIO_H5_COMPACT)
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc(layout->compact_nbytes, 1, &state->compact, err));
    if (layout->compact_nbytes != 0)
        memcpy(state->compact, layout->compact, layout->compact_nbytes);
    layout->compact = state->compact;
    return SCIO_OK;
}

static scio_status
read_messages(scio_h5_dataset *dataset, scio_error *err)
{
    const scio_h5_message *message = NULL;
    scio_h5_header header = {0};
    scio_status status;

    SCIO_TRY(scio_h5_header_read(dataset->file, dataset->address, &header, err));
    status = find_message(&header, SCIO_H5_MSG_DATATYPE, "datatype", &message, err);
    if (status == SCIO_OK)
        status = scio_h5_type_from_message(dataset->file, message, &dataset->type, err);
    if (status == SCIO_OK)
        status = read_space(dataset->file, &header, &dataset->space, err);
    if (status == SCIO_OK)
        status = read_layout(dataset, &header, err);
    if (status == SCIO_OK)
        status = scio_h5_fill_parse(&header, dataset->type->itemsize, &dataset->fill, err);
    message = scio_h5_header_find(&header, SCIO_H5_MSG_PIPELINE);
    if (status == SCIO_OK && message != NULL)
        status = scio_h5_pipeline_parse(message, &dataset->pipeline, err);
    scio_h5_header_clear(&header);
    return status;
}

/* ---- consistency of the messages with one another ---- */

static scio_status
check_plain(const scio_h5_dataset *dataset, scio_error *err)
{
    const scio_h5_layout_message *layout = &scio_h5_dataset_state(dataset)->layout;
    const uint64_t itemsize = dataset->type->itemsize;
    uint64_t nbytes = 0;

    if (!scio_mul_u64(dataset->space.n_items, itemsize, &nbytes) || nbytes > INT64_MAX)
        return scio_fail(err, SCIO_ECORRUPT, "%llu elements of %llu bytes: the size overflows",
                         (unsigned long long)dataset->space.n_items, (unsigned long long)itemsize);
    if (layout->layout == SCIO_H5_COMPACT) {
        if (layout->compact_nbytes != nbytes && dataset->space.space_class != SCIO_H5_NULL)
            return scio_fail(err, SCIO_ECORRUPT,
                             "compact data of %zu bytes, shape and type need %llu",
                             layout->compact_nbytes, (unsigned long long)nbytes);
        return SCIO_OK;
    }
    if (layout->layout == SCIO_H5_CHUNKED || layout->address == SCIO_H5_UNDEFINED || nbytes == 0)
        return SCIO_OK;
    if (layout->nbytes < nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         "contiguous data of %llu bytes, shape and type need %llu",
                         (unsigned long long)layout->nbytes, (unsigned long long)nbytes);
    return scio_h5_check_range(dataset->file, layout->address, nbytes, err);
}

static scio_status
check_chunked(const scio_h5_dataset *dataset, scio_error *err)
{
    const scio_h5_layout_message *layout = &scio_h5_dataset_state(dataset)->layout;

    if (dataset->space.space_class == SCIO_H5_NULL)
        return SCIO_OK;
    if (dataset->space.rank != layout->n_chunk_dims)
        return scio_fail(err, SCIO_ECORRUPT, "chunks of rank %u in a dataspace of rank %u",
                         layout->n_chunk_dims, dataset->space.rank);
    if (layout->element_nbytes != dataset->type->itemsize)
        return scio_fail(
            err, SCIO_ECORRUPT, "layout message: elements of %llu bytes, the type has %lu",
            (unsigned long long)layout->element_nbytes, (unsigned long)dataset->type->itemsize);
    return SCIO_OK;
}

/* ---- units ---- */

/* Whole rows of the first axis, about ROWS_NBYTES of them. */
static void
set_row_units(scio_h5_dataset *dataset)
{
    const scio_h5_space *space = &dataset->space;
    uint64_t row_nbytes = dataset->type->itemsize, n_rows;

    for (unsigned k = 0; k < space->rank; k++) {
        dataset->unit_dims[k] = space->dims[k] != 0 ? space->dims[k] : 1;
        dataset->grid[k] = space->dims[k] != 0;
    }
    dataset->unit_nbytes = row_nbytes;
    dataset->n_units = space->n_items != 0;
    if (space->n_items == 0 || space->rank == 0)
        return;
    for (unsigned k = 1; k < space->rank; k++)
        row_nbytes *= space->dims[k]; /* below the dataset's size, which was checked */
    n_rows = ROWS_NBYTES / row_nbytes;
    if (n_rows > space->dims[0])
        n_rows = space->dims[0];
    if (n_rows == 0)
        n_rows = 1;
    dataset->unit_dims[0] = n_rows;
    dataset->grid[0] = space->dims[0] / n_rows + (space->dims[0] % n_rows != 0);
    dataset->unit_nbytes = n_rows * row_nbytes;
    dataset->n_units = dataset->grid[0];
}

static scio_status
set_chunk_units(scio_h5_dataset *dataset, scio_error *err)
{
    const scio_h5_layout_message *layout = &scio_h5_dataset_state(dataset)->layout;
    const scio_h5_space *space = &dataset->space;

    dataset->n_units = space->space_class == SCIO_H5_NULL ? 0 : 1;
    dataset->unit_nbytes = dataset->type->itemsize;
    for (unsigned k = 0; k < space->rank; k++) {
        const uint64_t dim = layout->chunk_dims[k];

        dataset->unit_dims[k] = dim;
        dataset->grid[k] = space->dims[k] / dim + (space->dims[k] % dim != 0);
        dataset->n_units *= dataset->grid[k]; /* at most the number of elements */
        if (!scio_mul_u64(dataset->unit_nbytes, dim, &dataset->unit_nbytes) ||
            dataset->unit_nbytes > INT64_MAX)
            return scio_fail(err, SCIO_ECORRUPT, "the size of a chunk overflows");
    }
    return SCIO_OK;
}

static scio_status
describe(scio_h5_dataset *dataset, scio_error *err)
{
    SCIO_TRY(read_messages(dataset, err));
    SCIO_TRY(check_plain(dataset, err));
    if (dataset->layout == SCIO_H5_CHUNKED) {
        SCIO_TRY(check_chunked(dataset, err));
        return set_chunk_units(dataset, err);
    }
    set_row_units(dataset);
    return SCIO_OK;
}

/* ---- life ---- */

static scio_status
new_state(scio_h5_state **out, scio_error *err)
{
    scio_h5_state *state = NULL;

    SCIO_TRY(scio_mem_zalloc(1, sizeof *state, &state, err));
    if (pthread_mutex_init(&state->mutex, NULL) != 0) {
        scio_mem_free(state);
        return scio_fail(err, SCIO_ENOMEM, "a mutex could not be made");
    }
    atomic_init(&state->engine, -1);
    *out = state;
    return SCIO_OK;
}

scio_status
scio_h5_dataset_open(scio_h5_file *file, uint64_t address, const char *path, scio_h5_dataset **out,
                     scio_error *err)
{
    scio_h5_dataset *dataset = NULL;
    scio_h5_state *state = NULL;
    scio_status status;

    status = scio_mem_zalloc(1, sizeof *dataset, &dataset, err);
    if (status != SCIO_OK)
        goto done;
    dataset->file = scio_h5_file_retain(file);
    dataset->address = address;
    status = scio_mem_strndup(path, strlen(path), &dataset->path, err);
    if (status != SCIO_OK)
        goto done;
    status = new_state(&state, err);
    if (status != SCIO_OK)
        goto done;
    dataset->private_state = state;
    status = describe(dataset, err);
    if (status != SCIO_OK)
        scio_context(err, "%s", path);
done:
    if (status == SCIO_OK)
        *out = dataset;
    else
        scio_h5_dataset_free(dataset);
    return status;
}

void
scio_h5_dataset_free(scio_h5_dataset *dataset)
{
    scio_h5_state *state;

    if (dataset == NULL)
        return;
    state = dataset->private_state;
    if (state != NULL) {
        pthread_mutex_destroy(&state->mutex);
        scio_mem_free(state->compact);
        scio_mem_free(state->units);
        scio_mem_free(state->entries);
        scio_mem_free(state);
    }
    scio_h5_type_free(dataset->type);
    scio_mem_free(dataset->fill);
    scio_mem_free(dataset->path);
    scio_h5_file_release(dataset->file);
    scio_mem_free(dataset);
}
