/* From decoded units into the store: where each item goes, narrowed on the way while it is in
 * cache. */
#include "base/mem.h"
#include "load/narrow.h"
#include "load/window.h"

#include <inttypes.h>
#include <string.h>

enum {
    RUN_NBYTES = 1 << 20 /* decoded bytes, and span in the file, of one coalesced read */
};

/* Selected rows that lie together in memory: an interior or a zone. */
typedef struct target {
    int64_t sel0, sel1;
    char *dst;
    bool is_interior;
    scio_narrow_values values;
} target;

typedef struct decode_context {
    const scio_store *store;
    const scio_plan *plan;
    size_t i_source, i_track;
    const scio_matrix *matrix;
    scio_h5_dataset *dataset;
    unsigned which; /* array of the track: 0 data, 1 indices */
    scio_store_part *part;
    target targets[3];
    size_t n_targets;
    uint64_t i_next; /* unit after the last one visited */
    scio_item_type type;
    scio_store_count *count;
} decode_context;

/* ---- geometry ---- */

static bool
is_dense(const decode_context *decode)
{
    return decode->matrix->kind == SCIO_MATRIX_DENSE;
}

static const int64_t *
indptr_of(const decode_context *decode)
{
    return decode->plan->sources[decode->i_source].tracks[decode->i_track].indptr;
}

static int64_t
row_of(const decode_context *decode, int64_t i_sel)
{
    return scio_plan_cell(decode->plan, i_sel) - decode->plan->first_cells[decode->i_source];
}

/* First selected row of the target that ends behind `item`. */
static int64_t
first_touching(const decode_context *decode, const target *t, int64_t item)
{
    const int64_t *const indptr = indptr_of(decode);
    int64_t low = t->sel0, high = t->sel1;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (indptr[row_of(decode, middle) + 1] > item)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool
is_needed(const decode_context *decode, const target *t, uint64_t i_unit)
{
    const int64_t unit = (int64_t)decode->dataset->unit_dims[0];
    const int64_t begin = (int64_t)i_unit * unit;

    if (indptr_of(decode) == NULL) {
        const int64_t first = decode->plan->first_cells[decode->i_source];
        const int64_t j = scio_plan_find(decode->plan, first + begin);
        return j < t->sel1 && row_of(decode, j > t->sel0 ? j : t->sel0) < begin + unit;
    }
    int64_t j = first_touching(decode, t, begin);
    while (j < t->sel1 &&
           indptr_of(decode)[row_of(decode, j)] == indptr_of(decode)[row_of(decode, j) + 1])
        j++; /* empty rows need no unit */
    return j < t->sel1 && indptr_of(decode)[row_of(decode, j)] < begin + unit;
}

static bool
is_unit_needed(const decode_context *decode, uint64_t i_unit)
{
    for (size_t i = 0; i < decode->n_targets; i++)
        if (is_needed(decode, &decode->targets[i], i_unit))
            return true;
    return false;
}

static void
add_target(decode_context *decode, int64_t sel0, int64_t sel1, char *memory, scio_plan_place place,
           bool is_interior)
{
    const size_t offset = decode->which == 1 ? place.index_offset : place.data_offset;

    if (sel0 >= sel1)
        return;
    decode->targets[decode->n_targets++] =
        (target){sel0, sel1, memory == NULL ? NULL : memory + offset, is_interior,
                 scio_narrow_values_make(&decode->type, is_interior && !is_dense(decode))};
}

/* The units that hold the selected rows [sel0, sel1) of the array. */
static void
units_of_rows(const decode_context *decode, int64_t sel0, int64_t sel1, uint64_t *begin_out,
              uint64_t *end_out)
{
    const int64_t *const indptr = indptr_of(decode);
    const uint64_t unit = decode->dataset->unit_dims[0];
    const int64_t row0 = row_of(decode, sel0), row1 = row_of(decode, sel1 - 1) + 1;
    const uint64_t begin = (uint64_t)(indptr != NULL ? indptr[row0] : row0);
    const uint64_t end = (uint64_t)(indptr != NULL ? indptr[row1] : row1);

    *begin_out = begin / unit;
    *end_out = end / unit + (end % unit != 0 ? 1 : 0);
}

/* Adds the zone behind block `i` and widens the units to it when its other block is not decoded. */
static void
add_zone(decode_context *decode, size_t i, bool covers, uint64_t *begin, uint64_t *end)
{
    const scio_plan *const plan = decode->plan;
    int64_t sel0, sel1;
    uint64_t first, last;

    if (plan->zone_last[i] == SCIO_PLAN_NEVER || plan->zone_last[i] < decode->store->first_window ||
        !scio_plan_zone(plan, i, &sel0, &sel1))
        return;
    add_target(decode, sel0, sel1, decode->store->blocks[i].zone,
               scio_plan_store_place(plan, decode->i_source, decode->i_track, sel0, sel1), false);
    if (!covers)
        return;
    units_of_rows(decode, sel0, sel1, &first, &last);
    *begin = first < *begin ? first : *begin;
    *end = last > *end ? last : *end;
}

/* Which array of which track a job of the source is. */
static void
find_array(const scio_plan_source *source, unsigned i_job, size_t *i_track_out, unsigned *which_out)
{
    size_t t = 0;

    for (;; t++) {
        const scio_plan_track *const track = &source->tracks[t];
        const unsigned n_arrays = !track->is_in_file ? 0 : track->indptr != NULL ? 2 : 1;
        if (i_job < n_arrays)
            break;
        i_job -= n_arrays;
    }
    *i_track_out = t;
    *which_out = i_job;
}

/* The context of one job of a block and its units [*begin_out, *end_out) (dense: bands). */
static decode_context
make_context(const scio_store *store, size_t i_block, unsigned i_job, uint64_t *begin_out,
             uint64_t *end_out)
{
    const scio_plan *const plan = store->plan;
    const scio_plan_block *const planned = &plan->blocks[i_block];
    scio_store_block *const block = &store->blocks[i_block];
    decode_context decode = {.store = store, .plan = plan, .i_source = planned->i_source};

    find_array(&plan->sources[planned->i_source], i_job, &decode.i_track, &decode.which);
    decode.matrix = store->matrices[planned->i_source * plan->n_tracks + decode.i_track];
    decode.part = &block->parts[decode.i_track];
    decode.dataset =
        decode.which == 0 ? decode.matrix->data_dataset : decode.matrix->indices_dataset;
    decode.type = (scio_item_type){decode.dataset->type->dtype, decode.dataset->type->itemsize,
                                   decode.dataset->type->is_big_endian};
    const scio_plan_units *const units = scio_plan_units_of(plan, i_block, decode.i_track);
    *begin_out = decode.which == 0 ? units->data0 : units->index0;
    *end_out = decode.which == 0 ? units->data1 : units->index1;
    if (i_block > 0 && !plan->blocks[i_block - 1].is_last_of_source)
        add_zone(&decode, i_block - 1, block->covers_left, begin_out, end_out);
    if (block->has_interior)
        add_target(&decode, planned->sel0, planned->sel1, block->memory, decode.part->place, true);
    if (!planned->is_last_of_source)
        add_zone(&decode, i_block, block->covers_right, begin_out, end_out);
    return decode;
}

/* ---- visiting ---- */

static scio_status
put_run(const decode_context *decode, target *t, const char *src, size_t n_items, int64_t first,
        size_t at, scio_error *err)
{
    if (decode->which == 1) {
        const scio_dtype dtype = scio_store_index_dtype(decode->matrix);
        return scio_narrow_indices(&decode->type, src, n_items, decode->matrix->n_cols, first,
                                   dtype == SCIO_U16, t->dst + at * scio_dtype_itemsize(dtype),
                                   err);
    }
    scio_narrow_values_put(&t->values, src, n_items, t->dst, at);
    return SCIO_OK;
}

/* The items of unit [begin, end) that belong to the target. */
static scio_status
put_target(const decode_context *decode, target *t, const char *src, int64_t begin, int64_t end,
           scio_error *err)
{
    const scio_plan *const plan = decode->plan;
    const int64_t *const indptr = indptr_of(decode);
    const size_t itemsize = decode->dataset->type->itemsize;
    int64_t j = plan->sel == NULL ? t->sel0 : first_touching(decode, t, begin);

    while (j < t->sel1) {
        int64_t k = j + 1; /* selected rows [j, k) are neighbours: one run of items */
        const int64_t row = row_of(decode, j);
        if (plan->sel == NULL)
            k = t->sel1;
        while (k < t->sel1 && row_of(decode, k) == row + (k - j) && indptr[row + (k - j)] < end)
            k++;
        const int64_t run_begin = indptr[row], run_end = indptr[row + (k - j)];
        if (run_begin >= end)
            break;
        const int64_t from = run_begin > begin ? run_begin : begin;
        const int64_t to = run_end < end ? run_end : end;
        if (from < to)
            SCIO_TRY(put_run(
                decode, t, src + (size_t)(from - begin) * itemsize, (size_t)(to - from), from,
                (size_t)(scio_plan_items(plan, decode->i_source, decode->i_track, t->sel0, j) +
                         (from - run_begin)),
                err));
        j = k;
    }
    return SCIO_OK;
}

static void
put_dense(const decode_context *decode, const target *t, uint64_t i_unit, const char *src)
{
    const scio_h5_dataset *const dataset = decode->dataset;
    const size_t itemsize = dataset->type->itemsize, n_cols = (size_t)decode->matrix->n_cols;
    const int64_t n_unit_rows = (int64_t)dataset->unit_dims[0];
    const int64_t row0 = (int64_t)(i_unit / dataset->grid[1]) * n_unit_rows;
    const size_t stride = (size_t)dataset->unit_dims[1];
    const size_t col0 = (size_t)(i_unit % dataset->grid[1]) * stride;
    const size_t width = stride < n_cols - col0 ? stride : n_cols - col0;
    const int64_t first = decode->plan->first_cells[decode->i_source];
    int64_t j = scio_plan_find(decode->plan, first + row0);

    for (j = j > t->sel0 ? j : t->sel0; j < t->sel1; j++) {
        const int64_t row = row_of(decode, j);
        if (row - row0 >= n_unit_rows)
            return;
        char *const dst = t->dst + ((size_t)(j - t->sel0) * n_cols + col0) * itemsize;
        memcpy(dst, src + (size_t)(row - row0) * stride * itemsize, width * itemsize);
        if (dataset->type->is_big_endian)
            scio_byteswap(dst, itemsize, width);
    }
}

static scio_status
visit_unit(void *context, uint64_t i_unit, const void *data, size_t nbytes, size_t shuffle_itemsize,
           scio_error *err)
{
    decode_context *const decode = context;
    const scio_h5_dataset *const dataset = decode->dataset;
    scio_status status = SCIO_OK;

    SCIO_BUG_IF(shuffle_itemsize > 1, err);
    if (__atomic_load_n(decode->store->cancel, __ATOMIC_RELAXED) != 0)
        return scio_fail(err, SCIO_ECANCEL, "cancelled");
    decode->count->n_units++;
    decode->i_next = i_unit + 1;
    for (size_t i = 0; i < decode->n_targets && status == SCIO_OK; i++) {
        if (indptr_of(decode) == NULL) {
            put_dense(decode, &decode->targets[i], i_unit, data);
            continue;
        }
        const int64_t begin = (int64_t)(i_unit * dataset->unit_dims[0]);
        const int64_t end = begin + (int64_t)(nbytes / dataset->type->itemsize);
        status = put_target(decode, &decode->targets[i], data, begin,
                            end < decode->matrix->nnz ? end : decode->matrix->nnz, err);
        if (status != SCIO_OK) {
            decode->i_next = i_unit; /* the broken one */
            scio_context(err, "%s, chunk %" PRIu64, decode->matrix->name, i_unit);
        }
    }
    return status;
}

/* ---- a block ---- */

static bool
is_skippable(scio_status status)
{
    return status == SCIO_ECORRUPT || status == SCIO_EIO || status == SCIO_EFORMAT ||
           status == SCIO_EUNSUPPORTED || status == SCIO_ERANGE;
}

static scio_status
mark_broken(decode_context *decode, uint64_t i_unit, scio_error *err)
{
    scio_store_part *const part = decode->part;
    const unsigned which = decode->which;
    const uint64_t unit = decode->dataset->unit_dims[0];
    const uint64_t band = indptr_of(decode) == NULL ? i_unit / decode->dataset->grid[1] : i_unit;

    SCIO_TRY(scio_mem_realloc(&part->broken[which], part->n_broken[which] + 1,
                              sizeof(scio_item_range), err));
    part->broken[which][part->n_broken[which]++] =
        (scio_item_range){(int64_t)(band * unit), (int64_t)((band + 1) * unit)};
    return SCIO_OK;
}

/* Says which file and which of its cells a broken unit holds a part of. */
static void
name_cells(const decode_context *decode, scio_status status, scio_error *failure)
{
    const scio_matrix *const matrix = decode->matrix;
    const int64_t *const indptr = indptr_of(decode);
    const int64_t unit = (int64_t)decode->dataset->unit_dims[0];
    int64_t first = (int64_t)decode->i_next * unit, last = first + unit;

    if (indptr == NULL) {
        first = (int64_t)(decode->i_next / decode->dataset->grid[1]) * unit;
        last = first + unit - 1;
    } else {
        const int64_t begin = first, end = last;

        for (first = 0; first < matrix->n_rows - 1 && indptr[first + 1] <= begin;)
            first++;
        for (last = first; last < matrix->n_rows - 1 && indptr[last + 1] < end;)
            last++;
    }
    if (status != SCIO_ECANCEL)
        scio_context(failure, "cells %" PRId64 " to %" PRId64, first,
                     last < matrix->n_rows ? last : matrix->n_rows - 1);
    (void)scio_matrix_blame(matrix, status, failure);
}

/* Units [i_first, i_first + n_units).  In skip mode a run that fails goes on unit by unit, since
 * the failure may be that of any of them. */
static scio_status
decode_run(decode_context *decode, uint64_t i_first, uint64_t n_units, scio_h5_scratch *scratch,
           scio_error *err)
{
    const uint64_t i_end = i_first + n_units;
    uint64_t n_once = n_units;

    for (decode->i_next = i_first; decode->i_next < i_end;) {
        scio_error failure = SCIO_ERROR_INIT;
        const scio_status status = scio_h5_dataset_decode(
            decode->dataset, decode->i_next, n_once, false, scratch, visit_unit, decode, &failure);
        if (status != SCIO_OK && (!decode->store->is_skip_errors || !is_skippable(status))) {
            name_cells(decode, status, &failure);
            scio_error_move(err, &failure);
            return status;
        }
        if (status != SCIO_OK && n_once == 1)
            SCIO_TRY(mark_broken(decode, decode->i_next++, err));
        n_once = 1;
    }
    return SCIO_OK;
}

/* How many units from i_first on make one read: needed ones, near each other in the file. */
static uint64_t
run_length(const decode_context *decode, const scio_h5_unit *units, uint64_t i_first,
           uint64_t n_columns, uint64_t i_end)
{
    const uint64_t unit_nbytes =
        decode->dataset->unit_nbytes > 0 ? decode->dataset->unit_nbytes : 1;
    const uint64_t most = RUN_NBYTES / unit_nbytes;
    uint64_t low = units[i_first].position, high = low, i = i_first;

    for (; i < i_end; i++) {
        const scio_h5_unit *const unit = &units[i];
        if (i > i_first && i - i_first >= most)
            break;
        if (i > i_first && i % n_columns == 0 && !is_unit_needed(decode, i / n_columns))
            break;
        if (unit->position == SCIO_H5_UNDEFINED)
            continue;
        if (low == SCIO_H5_UNDEFINED)
            low = high = unit->position;
        const uint64_t begin = unit->position < low ? unit->position : low;
        const uint64_t end =
            unit->position + unit->nbytes > high ? unit->position + unit->nbytes : high;
        if (i > i_first && end - begin > RUN_NBYTES)
            break;
        low = begin;
        high = end;
    }
    return i - i_first;
}

static uint64_t
columns_of(const decode_context *decode)
{
    return indptr_of(decode) == NULL ? decode->dataset->grid[1] : 1;
}

scio_status
scio_store_decode(scio_store *store, size_t i_block, unsigned which, scio_h5_scratch **scratch,
                  scio_store_count *count_out, scio_error *err)
{
    uint64_t begin, end;
    decode_context decode = make_context(store, i_block, which, &begin, &end);
    const uint64_t n_columns = columns_of(&decode);
    const scio_h5_unit *units = NULL;
    scio_status status = SCIO_OK;

    *count_out = (scio_store_count){0, 0};
    decode.count = count_out;
    if (*scratch == NULL)
        SCIO_TRY(scio_h5_scratch_new(scratch, err));
    if (decode.n_targets > 0 && begin < end)
        status = scio_h5_dataset_units(decode.dataset, &units, err);
    for (uint64_t i = begin * n_columns; status == SCIO_OK && i < end * n_columns;) {
        if (decode.n_targets == 0 ||
            (i % n_columns == 0 && !is_unit_needed(&decode, i / n_columns))) {
            i += n_columns - i % n_columns;
            continue;
        }
        const uint64_t n_units = run_length(&decode, units, i, n_columns, end * n_columns);
        status = decode_run(&decode, i, n_units, *scratch, err);
        for (const uint64_t i_end = i + n_units; i < i_end; i++)
            count_out->nbytes += (int64_t)units[i].nbytes;
    }
    for (size_t i = 0; decode.which == 0 && i < decode.n_targets; i++)
        if (decode.targets[i].is_interior)
            decode.part->value_dtype = decode.targets[i].values.now;
    return status;
}

int64_t
scio_store_n_units(const scio_store *store, size_t i_block)
{
    const scio_plan *const plan = store->plan;
    const unsigned n_jobs = scio_store_n_jobs(store, i_block);
    const bool is_all = plan->sel == NULL && plan->n_stream >= plan->n_sel &&
                        store->first_window == 0; /* then every unit is needed */
    int64_t n_units = 0;

    for (unsigned which = 0; which < n_jobs; which++) {
        uint64_t begin, end;
        const decode_context decode = make_context(store, i_block, which, &begin, &end);
        if (is_all)
            n_units += (int64_t)((end - begin) * columns_of(&decode));
        for (uint64_t i = begin; !is_all && decode.n_targets > 0 && i < end; i++)
            if (is_unit_needed(&decode, i))
                n_units += (int64_t)columns_of(&decode);
    }
    return n_units;
}
