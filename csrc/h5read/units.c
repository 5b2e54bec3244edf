/* The units of a dataset: the table that a chunk index fills, and runs of rows of other layouts. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A dense table takes 24 bytes a unit.  This many units are always allowed (24 MiB); more when the
 * file could hold an index of that size, up to MAX_DENSE_UNITS. */
#define FREE_DENSE_UNITS ((uint64_t)1 << 20)
#define MAX_DENSE_UNITS ((uint64_t)1 << 26)
#define LEAST_NBYTES_PER_CHUNK 8 /* an address in the index */

/* What may be read of an index beyond four times the file: nodes are read at full size, and writers
 * other than libhdf5 need not store them so. */
#define BUDGET_NBYTES ((uint64_t)64 << 10)

static const scio_h5_unit HOLE = {SCIO_H5_UNDEFINED, 0, 0, false};

static uint64_t
max_dense_units(const scio_h5_dataset *dataset)
{
    const uint64_t n_units = scio_h5_file_superblock(dataset->file)->end / LEAST_NBYTES_PER_CHUNK;

    if (n_units < FREE_DENSE_UNITS)
        return FREE_DENSE_UNITS;
    return n_units < MAX_DENSE_UNITS ? n_units : MAX_DENSE_UNITS;
}

void
scio_h5_unit_coordinates(const scio_h5_dataset *dataset, uint64_t i_unit, uint64_t *coordinates_out)
{
    for (unsigned k = dataset->space.rank; k-- > 0;) {
        coordinates_out[k] = i_unit % dataset->grid[k];
        i_unit /= dataset->grid[k];
    }
}

void
scio_h5_unit_context(const scio_h5_dataset *dataset, uint64_t i_unit, const scio_h5_unit *unit,
                     scio_error *err)
{
    uint64_t coordinates[SCIO_H5_MAX_RANK] = {0};
    const unsigned rank = dataset->space.rank;
    char place[SCIO_H5_MAX_RANK * 22 + 8] = "";
    size_t at = 0;

    scio_h5_unit_coordinates(dataset, i_unit, coordinates);
    for (unsigned k = 0; k < rank; k++)
        at += (size_t)snprintf(place + at, sizeof place - at, "%s%" PRIu64 "%s", k == 0 ? "" : ", ",
                               coordinates[k], rank == 1 ? "," : "");
    if (unit->position == SCIO_H5_UNDEFINED)
        scio_context(err, "%s: chunk (%s)", dataset->path, place);
    else if (dataset->layout == SCIO_H5_CHUNKED)
        scio_context(err, "%s: chunk (%s) at byte %" PRIu64, dataset->path, place, unit->position);
    else
        scio_context(err, "%s: data at byte %" PRIu64, dataset->path, unit->position);
}

/* ---- collecting chunks ---- */

static scio_status
add_sparse(scio_h5_sink *sink, uint64_t i_unit, const scio_h5_unit *unit, scio_error *err)
{
    if (sink->n_entries == sink->entries_capacity) {
        const size_t capacity = sink->entries_capacity == 0 ? 64 : 2 * sink->entries_capacity;

        SCIO_TRY(scio_mem_realloc(&sink->entries, capacity, sizeof *sink->entries, err));
        sink->entries_capacity = capacity;
    }
    if (sink->n_entries != 0 && sink->entries[sink->n_entries - 1].i_unit >= i_unit)
        sink->is_sorted = false;
    sink->entries[sink->n_entries++] = (scio_h5_entry){i_unit, *unit};
    return SCIO_OK;
}

static scio_status
fail_twice(const scio_h5_sink *sink, uint64_t i_unit, const scio_h5_unit *unit, scio_error *err)
{
    const scio_status status =
        scio_fail(err, SCIO_ECORRUPT, "the index names this chunk more than once");

    scio_h5_unit_context(sink->dataset, i_unit, unit, err);
    return status;
}

/* True when the chunk reaches over the extent of the dataset. */
static bool
is_partial(const scio_h5_dataset *dataset, const uint64_t *scaled)
{
    for (unsigned i = 0; i < dataset->space.rank; i++)
        if (dataset->space.dims[i] - scaled[i] * dataset->unit_dims[i] < dataset->unit_dims[i])
            return true;
    return false;
}

scio_status
scio_h5_sink_add(scio_h5_sink *sink, const uint64_t *scaled, uint64_t address, uint64_t nbytes,
                 uint32_t filter_mask, scio_error *err)
{
    const scio_h5_dataset *dataset = sink->dataset;
    scio_h5_unit unit = {SCIO_H5_UNDEFINED, nbytes, filter_mask, !scio_h5_is_filtered(dataset)};
    uint64_t i_unit = 0;
    scio_status status;

    if (address == SCIO_H5_UNDEFINED)
        return SCIO_OK;
    for (unsigned i = 0; i < dataset->space.rank; i++) {
        if (scaled[i] >= dataset->grid[i]) /* left over from a time when the extent was larger */
            return SCIO_OK;
        i_unit += scaled[i] * sink->strides[i];
    }
    status = nbytes == 0 ? scio_fail(err, SCIO_ECORRUPT, "the index says that it has 0 bytes")
                         : scio_h5_check_range(dataset->file, address, nbytes, err);
    if (status != SCIO_OK) {
        scio_h5_unit_context(dataset, i_unit, &HOLE, err);
        return status;
    }
    unit.position = scio_h5_file_superblock(dataset->file)->base + address;
    if (sink->layout->is_edge_raw && is_partial(dataset, scaled))
        unit.is_raw = true;
    if (sink->units == NULL)
        return add_sparse(sink, i_unit, &unit, err);
    if (sink->units[i_unit].position != SCIO_H5_UNDEFINED)
        return fail_twice(sink, i_unit, &unit, err);
    sink->units[i_unit] = unit;
    return SCIO_OK;
}

scio_status
scio_h5_sink_block(scio_h5_sink *sink, uint64_t address, uint64_t nbytes, const char *what,
                   scio_cursor *out, scio_error *err)
{
    const scio_h5_file *file = sink->dataset->file;
    const uint64_t base = scio_h5_file_superblock(file)->base;

    if (scio_h5_check_range(file, address, nbytes, err) != SCIO_OK) {
        scio_context(err, "%s", what);
        return SCIO_ECORRUPT;
    }
    if (nbytes > sink->budget_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": blocks of the chunk index overlap", what,
                         base + address);
    sink->budget_nbytes -= nbytes;
    if (nbytes > sink->block_capacity) {
        SCIO_TRY(scio_mem_realloc(&sink->block, (size_t)nbytes, 1, err));
        sink->block_capacity = (size_t)nbytes;
    }
    SCIO_TRY(scio_h5_read(file, address, (size_t)nbytes, sink->block, err));
    *out = scio_cursor_make(sink->block, (size_t)nbytes, base + address, what);
    return SCIO_OK;
}

scio_status
scio_h5_sink_checked_block(scio_h5_sink *sink, uint64_t address, uint64_t nbytes,
                           const char *signature, unsigned client, const char *what,
                           scio_cursor *out, scio_error *err)
{
    SCIO_TRY(scio_h5_sink_block(sink, address, nbytes, what, out, err));
    if (signature != NULL)
        SCIO_TRY(scio_cursor_signature(out, signature, err));
    SCIO_TRY(scio_h5_check_sum(out->data, out->nbytes, out->position, what, err));
    out->nbytes -= SCIO_H5_CHECKSUM_NBYTES;
    if (signature == NULL)
        return SCIO_OK;
    SCIO_TRY(scio_h5_expect_u8(out, 0, "version", err));
    return scio_h5_expect_u8(out, client, "client", err);
}

/* ---- the table ---- */

static scio_status
walk_index(scio_h5_sink *sink, scio_error *err)
{
    if (sink->layout->address == SCIO_H5_UNDEFINED)
        return SCIO_OK;
    switch (sink->layout->index) {
    case SCIO_H5_INDEX_BTREE1:
        return scio_h5_walk_btree1(sink, err);
    case SCIO_H5_INDEX_SINGLE:
        return scio_h5_walk_single(sink, err);
    case SCIO_H5_INDEX_IMPLICIT:
        return scio_h5_walk_implicit(sink, err);
    case SCIO_H5_INDEX_FIXED:
        return scio_h5_walk_fixed(sink, err);
    case SCIO_H5_INDEX_EXTENSIBLE:
        return scio_h5_walk_extensible(sink, err);
    case SCIO_H5_INDEX_BTREE2:
        return scio_h5_walk_btree2(sink, err);
    case SCIO_H5_INDEX_NONE:
        break;
    }
    return scio_fail(err, SCIO_EBUG, "a chunked dataset without an index");
}

/* When a file is salvaged, the chunks that were found before the index broke off are enough. */
static scio_status
walk_what_is_there(scio_h5_sink *sink, scio_error *err)
{
    scio_error walk_err = SCIO_ERROR_INIT;
    const scio_status status = walk_index(sink, &walk_err);

    if (status == SCIO_OK || scio_h5_skips(sink->dataset->file, status))
        return SCIO_OK;
    scio_error_move(err, &walk_err);
    return status;
}

static int
compare_entries(const void *a, const void *b)
{
    const uint64_t i = ((const scio_h5_entry *)a)->i_unit;
    const uint64_t j = ((const scio_h5_entry *)b)->i_unit;

    return (i > j) - (i < j);
}

static scio_status
sort_sparse(scio_h5_sink *sink, scio_error *err)
{
    if (sink->is_sorted)
        return SCIO_OK;
    qsort(sink->entries, sink->n_entries, sizeof *sink->entries, compare_entries);
    for (size_t i = 1; i < sink->n_entries; i++)
        if (sink->entries[i].i_unit == sink->entries[i - 1].i_unit)
            return fail_twice(sink, sink->entries[i].i_unit, &sink->entries[i].unit, err);
    return SCIO_OK;
}

static scio_status
new_dense(uint64_t n_units, scio_h5_unit **out, scio_error *err)
{
    SCIO_TRY(scio_mem_alloc((size_t)n_units, sizeof **out, out, err));
    for (uint64_t i = 0; i < n_units; i++)
        (*out)[i] = HOLE;
    return SCIO_OK;
}

static scio_status
build_locked(const scio_h5_dataset *dataset, scio_h5_state *state, scio_error *err)
{
    scio_h5_sink sink = {.dataset = dataset, .layout = &state->layout, .is_sorted = true};
    uint64_t stride = 1;
    scio_status status = SCIO_OK;

    sink.budget_nbytes = BUDGET_NBYTES + 4 * scio_h5_file_superblock(dataset->file)->end;
    for (unsigned k = dataset->space.rank; k-- > 0;) {
        sink.strides[k] = stride;
        stride *= dataset->grid[k];
    }
    if (dataset->n_units <= max_dense_units(dataset))
        status = new_dense(dataset->n_units, &sink.units, err);
    if (status == SCIO_OK && dataset->n_units != 0)
        status = walk_what_is_there(&sink, err);
    if (status == SCIO_OK)
        status = sort_sparse(&sink, err);
    scio_mem_free(sink.block);
    if (status != SCIO_OK) {
        scio_mem_free(sink.units);
        scio_mem_free(sink.entries);
        return status;
    }
    state->units = sink.units;
    state->entries = sink.entries;
    state->n_entries = sink.n_entries;
    state->is_built = true;
    return SCIO_OK;
}

/* "/X/data: " in front, unless a chunk was named already. */
static void
add_path(const scio_h5_dataset *dataset, scio_error *err)
{
    const size_t n = strlen(dataset->path);

    if (err != NULL && (strncmp(err->message, dataset->path, n) != 0 || err->message[n] != ':'))
        scio_context(err, "%s", dataset->path);
}

scio_status
scio_h5_table_ensure(scio_h5_dataset *dataset, scio_error *err)
{
    scio_h5_state *state = scio_h5_dataset_state(dataset);
    scio_status status = SCIO_OK;

    if (dataset->layout != SCIO_H5_CHUNKED)
        return SCIO_OK;
    pthread_mutex_lock(&state->mutex);
    if (!state->is_built)
        status = build_locked(dataset, state, err);
    pthread_mutex_unlock(&state->mutex);
    if (status != SCIO_OK)
        add_path(dataset, err);
    return status;
}

uint64_t
scio_h5_unit_nbytes(const scio_h5_dataset *dataset, uint64_t i_unit)
{
    const uint64_t offset = i_unit * dataset->unit_nbytes;
    uint64_t left;

    if (dataset->layout == SCIO_H5_CHUNKED)
        return dataset->unit_nbytes;
    left = dataset->space.n_items * dataset->type->itemsize - offset;
    return left < dataset->unit_nbytes ? left : dataset->unit_nbytes;
}

static scio_h5_unit
find_rows(const scio_h5_dataset *dataset, uint64_t i_unit)
{
    const scio_h5_layout_message *layout = &scio_h5_dataset_state(dataset)->layout;
    const uint64_t offset = i_unit * dataset->unit_nbytes;
    scio_h5_unit unit = HOLE;

    if (dataset->layout == SCIO_H5_COMPACT)
        unit.position = layout->compact_position + offset;
    else if (layout->address != SCIO_H5_UNDEFINED)
        unit.position = scio_h5_file_superblock(dataset->file)->base + layout->address + offset;
    if (unit.position != SCIO_H5_UNDEFINED) {
        unit.nbytes = scio_h5_unit_nbytes(dataset, i_unit);
        unit.is_raw = true;
    }
    return unit;
}

scio_h5_unit
scio_h5_unit_find(const scio_h5_dataset *dataset, uint64_t i_unit)
{
    const scio_h5_state *state = scio_h5_dataset_state(dataset);
    size_t low = 0, high = state->n_entries;

    if (dataset->layout != SCIO_H5_CHUNKED)
        return find_rows(dataset, i_unit);
    if (state->units != NULL)
        return state->units[i_unit];
    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (state->entries[middle].i_unit < i_unit)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < state->n_entries && state->entries[low].i_unit == i_unit)
        return state->entries[low].unit;
    return HOLE;
}

/* The dense table of a layout whose units need no index. */
static scio_status
list_rows_locked(const scio_h5_dataset *dataset, scio_h5_state *state, scio_error *err)
{
    SCIO_TRY(scio_mem_alloc((size_t)dataset->n_units, sizeof *state->units, &state->units, err));
    for (uint64_t i = 0; i < dataset->n_units; i++)
        state->units[i] = find_rows(dataset, i);
    state->is_built = true;
    return SCIO_OK;
}

scio_status
scio_h5_dataset_units(scio_h5_dataset *dataset, const scio_h5_unit **units_out, scio_error *err)
{
    scio_h5_state *state = scio_h5_dataset_state(dataset);
    scio_status status = SCIO_OK;

    if (dataset->n_units > max_dense_units(dataset))
        return scio_fail(err, SCIO_EUNSAFE,
                         "%s: %" PRIu64 " units; a table has at most %" PRIu64 " for this file",
                         dataset->path, dataset->n_units, max_dense_units(dataset));
    pthread_mutex_lock(&state->mutex);
    if (!state->is_built)
        status = dataset->layout == SCIO_H5_CHUNKED ? build_locked(dataset, state, err)
                                                    : list_rows_locked(dataset, state, err);
    pthread_mutex_unlock(&state->mutex);
    if (status != SCIO_OK) {
        add_path(dataset, err);
        return status;
    }
    *units_out = state->units;
    return SCIO_OK;
}
