/* Rows to a batch: scratch, the three forms, and the loop over rows.
 *
 * Where the size of the result is known, rows go straight to their place: dense rows, token rows of
 * max_genes, and the entries of a CSR batch, whose number is bounded by the stored ones.  Only
 * token rows as wide as the longest of them wait in the scratch until that is known. */
#include "load/collate.h"

#include "base/mem.h"
#include "base/stats.h"
#include "kernels/kernels.h"
#include "load/collate_row.h"

#include <inttypes.h>
#include <string.h>

void
scio_batch_clear(scio_batch *batch)
{
    scio_buf_release(batch->expression);
    scio_buf_release(batch->gene_indices);
    scio_buf_release(batch->attention_mask);
    scio_buf_release(batch->n_genes);
    scio_buf_release(batch->indptr);
    scio_buf_release(batch->index);
    scio_buf_release(batch->is_padding);
    for (size_t k = 0; k < batch->n_extras; k++)
        scio_batch_extra_clear(&batch->extras[k]);
    scio_mem_free(batch->extras);
    memset(batch, 0, sizeof *batch);
}

size_t
scio_batch_nbytes(const scio_batch *batch)
{
    size_t nbytes = 0;

    for (size_t k = 0; k < batch->n_extras; k++)
        nbytes += scio_batch_extra_nbytes(&batch->extras[k]);
    return nbytes + scio_buf_nbytes(batch->expression) + scio_buf_nbytes(batch->gene_indices) +
           scio_buf_nbytes(batch->attention_mask) + scio_buf_nbytes(batch->n_genes) +
           scio_buf_nbytes(batch->indptr) + scio_buf_nbytes(batch->index) +
           scio_buf_nbytes(batch->is_padding);
}

/* --- maps --- */

scio_map_kind
scio_gene_map_kind(const int32_t *map, int64_t n_cols)
{
    bool is_identity = n_cols > 0;
    int32_t last = -1;

    for (int64_t i = 0; i < n_cols; i++) {
        is_identity = is_identity && map[i] >= 0 && map[i] == map[0] + i;
        if (map[i] < 0)
            continue;
        if (map[i] <= last)
            return SCIO_MAP_ANY;
        last = map[i];
    }
    return is_identity ? SCIO_MAP_IDENTITY : SCIO_MAP_INCREASING;
}

void
scio_row_set_map(scio_row *row, const int32_t *map, scio_map_kind kind)
{
    row->map = map;
    row->is_map_increasing = kind != SCIO_MAP_ANY;
    row->is_map_identity = kind == SCIO_MAP_IDENTITY;
    row->map_first = row->is_map_identity ? map[0] : 0;
}

/* --- values in the dtype of the batch --- */

void
scio_collate_put_values(const scio_kernels_table *kernels, scio_dtype dtype, const float *values,
                        size_t n_items, void *out)
{
    if (dtype == SCIO_F16)
        kernels->f32_to_f16(values, out, n_items);
    else if (n_items > 0)
        memcpy(out, values, n_items * sizeof *values);
}

void
scio_collate_fill_values(scio_dtype dtype, float value, size_t n_items, void *out)
{
    if (dtype == SCIO_F16) {
        const uint16_t half = scio_f32_to_f16(value);

        for (size_t i = 0; i < n_items; i++)
            ((uint16_t *)out)[i] = half;
    } else {
        for (size_t i = 0; i < n_items; i++)
            ((float *)out)[i] = value;
    }
}

/* Row i of n_cells, with the next one asked for. */
static scio_status
next_row(collate_pass *pass, const scio_row *rows, size_t n_cells, size_t i, int32_t *ids_out,
         float *values_out, size_t *n_out, scio_error *err)
{
    scio_collate_prefetch(i + 1 < n_cells ? &rows[i + 1] : NULL);
    return scio_collate_row(pass, &rows[i], ids_out, values_out, n_out, err);
}

/* --- tokens --- */

static scio_status
new_tokens(const collate_pass *pass, scio_batch *batch, size_t n_cells, size_t width,
           scio_error *err)
{
    const size_t value_size = scio_dtype_itemsize(pass->value_dtype);
    const size_t id_size = scio_dtype_itemsize(batch->id_dtype);

    batch->width = (int64_t)width;
    SCIO_TRY(scio_collate_new_matrix(n_cells, width, value_size, &batch->expression, err));
    SCIO_TRY(scio_collate_new_matrix(n_cells, width, id_size, &batch->gene_indices, err));
    SCIO_TRY(scio_collate_new_matrix(n_cells, width, id_size, &batch->attention_mask, err));
    return scio_collate_new_matrix(n_cells, 1, sizeof(int64_t), &batch->n_genes, err);
}

/* ids, then pad_id; as many ones, then zeros. */
#define WRITE_IDS(ctype)                                                                           \
    do {                                                                                           \
        ctype *const ids_out = (ctype *)scio_buf_data(batch->gene_indices) + i * width;            \
        ctype *const mask_out = (ctype *)scio_buf_data(batch->attention_mask) + i * width;         \
                                                                                                   \
        for (size_t j = 0; j < n_items; j++)                                                       \
            ids_out[j] = ids[j];                                                                   \
        for (size_t j = n_items; j < width; j++)                                                   \
            ids_out[j] = (ctype)spec->pad_id;                                                      \
        for (size_t j = 0; j < n_items; j++)                                                       \
            mask_out[j] = 1;                                                                       \
        for (size_t j = n_items; j < width; j++)                                                   \
            mask_out[j] = 0;                                                                       \
    } while (0)

/* Row i of a token batch, padded to its width; n_items <= width. */
static void
write_tokens(const collate_pass *pass, scio_batch *batch, size_t i, const int32_t *ids,
             const float *values, size_t n_items)
{
    const scio_collate_spec *const spec = pass->spec;
    const size_t width = (size_t)batch->width;

    scio_collate_put_values(pass->kernels, pass->value_dtype, values, n_items,
                            scio_collate_value_at(batch->expression, pass->value_dtype, i * width));
    scio_collate_fill_values(
        pass->value_dtype, spec->pad_value, width - n_items,
        scio_collate_value_at(batch->expression, pass->value_dtype, i * width + n_items));
    if (batch->id_dtype == SCIO_I32)
        WRITE_IDS(int32_t);
    else
        WRITE_IDS(int64_t);
    ((int64_t *)scio_buf_data(batch->n_genes))[i] = (int64_t)n_items;
}

static scio_status
collate_fixed_tokens(collate_pass *pass, const scio_row *rows, size_t n_cells,
                     const row_sizes *sizes, scio_batch *batch, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;

    SCIO_TRY(scio_collate_room_for_flat(scratch, sizes->longest, err));
    SCIO_TRY(new_tokens(pass, batch, n_cells, (size_t)pass->spec->max_genes, err));
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, scratch->flat_ids, scratch->flat_values, &n_items,
                          err));
        write_tokens(pass, batch, i, scratch->flat_ids, scratch->flat_values, n_items);
    }
    return SCIO_OK;
}

static scio_status
collate_free_tokens(collate_pass *pass, const scio_row *rows, size_t n_cells,
                    const row_sizes *sizes, scio_batch *batch, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    size_t at = 0, width = 0;

    SCIO_TRY(scio_collate_room_for_flat(scratch, sizes->total, err));
    SCIO_TRY(scio_collate_room_for_ends(scratch, n_cells, err));
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, scratch->flat_ids + at, scratch->flat_values + at,
                          &n_items, err));
        width = n_items > width ? n_items : width;
        at += n_items;
        scratch->ends[i] = (int64_t)at;
    }
    SCIO_TRY(new_tokens(pass, batch, n_cells, width, err));
    at = 0;
    for (size_t i = 0; i < n_cells; i++) {
        const size_t end = (size_t)scratch->ends[i];

        write_tokens(pass, batch, i, scratch->flat_ids + at, scratch->flat_values + at, end - at);
        at = end;
    }
    return SCIO_OK;
}

/* --- dense --- */

/* Finished entries to their columns of a row of zeros. */
static void
scatter(const collate_pass *pass, size_t n_items, size_t width, void *row_out)
{
    const scio_collate_scratch *const scratch = pass->scratch;
    const int32_t *const columns = scratch->flat_ids;

    memset(row_out, 0, width * scio_dtype_itemsize(pass->value_dtype));
    if (pass->value_dtype == SCIO_F16) {
        uint16_t *const halves = (uint16_t *)(void *)scratch->keys; /* free between rows */

        pass->kernels->f32_to_f16(scratch->flat_values, halves, n_items);
        for (size_t j = 0; j < n_items; j++)
            ((uint16_t *)row_out)[columns[j]] = halves[j];
    } else {
        for (size_t j = 0; j < n_items; j++)
            ((float *)row_out)[columns[j]] = scratch->flat_values[j];
    }
}

static scio_status
collate_dense(collate_pass *pass, const scio_row *rows, size_t n_cells, const row_sizes *sizes,
              scio_batch *batch, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    const size_t width = (size_t)(pass->spec->n_ids - pass->spec->first_id);

    batch->width = (int64_t)width;
    SCIO_TRY(scio_collate_room_for_flat(scratch, sizes->longest, err));
    SCIO_TRY(scio_collate_new_matrix(n_cells, width, scio_dtype_itemsize(pass->value_dtype),
                                     &batch->expression, err));
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, scratch->flat_ids, scratch->flat_values, &n_items,
                          err));
        scatter(pass, n_items, width,
                scio_collate_value_at(batch->expression, pass->value_dtype, i * width));
    }
    return SCIO_OK;
}

/* --- csr --- */

static void
release_inner(void *context, void *data, size_t nbytes)
{
    (void)data;
    (void)nbytes;
    scio_buf_release(context);
}

/* Cuts *inout to nbytes: as a view of it, or, where much of it is unused, as a copy. */
static scio_status
trim(scio_buf **inout, size_t nbytes, scio_error *err)
{
    const size_t nbytes_now = scio_buf_nbytes(*inout);
    scio_buf *trimmed = NULL;

    if (nbytes == nbytes_now)
        return SCIO_OK;
    if (nbytes_now - nbytes <= nbytes_now / 8) {
        SCIO_TRY(
            scio_buf_wrap(scio_buf_data(*inout), nbytes, release_inner, *inout, &trimmed, err));
    } else {
        SCIO_TRY(scio_buf_new_batch(nbytes, &trimmed, err));
        if (nbytes > 0)
            memcpy(scio_buf_data(trimmed), scio_buf_data(*inout), nbytes);
        scio_buf_release(*inout);
    }
    *inout = trimmed;
    return SCIO_OK;
}

/* float32 values go straight to their place, others through the scratch. */
static scio_status
collate_csr(collate_pass *pass, const scio_row *rows, size_t n_cells, const row_sizes *sizes,
            scio_batch *batch, scio_error *err)
{
    const bool is_f32 = pass->value_dtype == SCIO_F32;
    const size_t value_size = scio_dtype_itemsize(pass->value_dtype);
    int64_t *indptr;
    int32_t *indices;
    size_t at = 0;

    batch->width = pass->spec->n_ids - pass->spec->first_id;
    SCIO_TRY(scio_collate_room_for_flat(pass->scratch, is_f32 ? 0 : sizes->longest, err));
    SCIO_TRY(scio_collate_new_matrix(n_cells + 1, 1, sizeof(int64_t), &batch->indptr, err));
    SCIO_TRY(scio_collate_new_matrix(sizes->total, 1, sizeof(int32_t), &batch->gene_indices, err));
    SCIO_TRY(scio_collate_new_matrix(sizes->total, 1, value_size, &batch->expression, err));
    indptr = scio_buf_data(batch->indptr);
    indices = scio_buf_data(batch->gene_indices);
    indptr[0] = 0;
    for (size_t i = 0; i < n_cells; i++) {
        void *const place = scio_collate_value_at(batch->expression, pass->value_dtype, at);
        float *const values = is_f32 ? place : pass->scratch->flat_values;
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, indices + at, values, &n_items, err));
        if (!is_f32)
            scio_collate_put_values(pass->kernels, pass->value_dtype, values, n_items, place);
        at += n_items;
        indptr[i + 1] = (int64_t)at;
    }
    batch->nnz = (int64_t)at;
    SCIO_TRY(trim(&batch->gene_indices, at * sizeof *indices, err));
    return trim(&batch->expression, at * value_size, err);
}

/* --- a batch --- */

scio_status
scio_collate_check_spec(const scio_collate_spec *spec, scio_error *err)
{
    if (spec->n_ids < 0 || spec->n_ids > INT32_MAX || spec->first_id < 0 ||
        spec->first_id > spec->n_ids)
        return scio_fail(err, SCIO_EINVAL,
                         "first_id is %" PRId64 " and n_ids %" PRId64
                         ", expected 0 <= first_id <= n_ids < 2^31",
                         spec->first_id, spec->n_ids);
    if (spec->max_genes < 0)
        return scio_fail(err, SCIO_EINVAL,
                         "max_genes is %" PRId64 ", expected 0 (no limit) or more",
                         spec->max_genes);
    if (spec->cell_scale != NULL && spec->is_library_size)
        return scio_fail(err, SCIO_EINVAL, "cell_scale and library_size exclude each other");
    if (spec->value_dtype != SCIO_DTYPE_NONE && spec->value_dtype != SCIO_F32 &&
        spec->value_dtype != SCIO_F16)
        return scio_fail(err, SCIO_EINVAL, "value_dtype is %s, expected float32 or float16",
                         scio_dtype_name(spec->value_dtype));
    if (spec->id_dtype != SCIO_DTYPE_NONE && spec->id_dtype != SCIO_I64 &&
        spec->id_dtype != SCIO_I32)
        return scio_fail(err, SCIO_EINVAL, "id_dtype is %s, expected int64 or int32",
                         scio_dtype_name(spec->id_dtype));
    if (spec->id_dtype == SCIO_I32 && (spec->pad_id < INT32_MIN || spec->pad_id > INT32_MAX))
        return scio_fail(err, SCIO_EINVAL, "pad_id is %" PRId64 ", which int32 cannot hold",
                         spec->pad_id);
    return SCIO_OK;
}

static scio_dtype
id_dtype_of(const scio_collate_spec *spec)
{
    switch (spec->form) {
    case SCIO_FORM_TOKENS:
        return spec->id_dtype == SCIO_DTYPE_NONE ? SCIO_I64 : spec->id_dtype;
    case SCIO_FORM_CSR:
        return SCIO_I32;
    default:
        return SCIO_DTYPE_NONE;
    }
}

static scio_status
new_index(const scio_row *rows, size_t n_cells, scio_batch *batch, scio_error *err)
{
    int64_t *index;

    SCIO_TRY(scio_collate_new_matrix(n_cells, 1, sizeof *index, &batch->index, err));
    index = scio_buf_data(batch->index);
    for (size_t i = 0; i < n_cells; i++)
        index[i] = rows[i].cell;
    return SCIO_OK;
}

static scio_status
collate_form(collate_pass *pass, const scio_row *rows, size_t n_cells, scio_batch *batch,
             scio_error *err)
{
    row_sizes sizes;

    SCIO_TRY(scio_collate_measure(rows, n_cells, &sizes, err));
    SCIO_TRY(scio_collate_room_for_row(pass->scratch, sizes.longest, err));
    SCIO_TRY(new_index(rows, n_cells, batch, err));
    switch (pass->spec->form) {
    case SCIO_FORM_TOKENS:
        return pass->spec->max_genes > 0
                   ? collate_fixed_tokens(pass, rows, n_cells, &sizes, batch, err)
                   : collate_free_tokens(pass, rows, n_cells, &sizes, batch, err);
    case SCIO_FORM_DENSE:
        return collate_dense(pass, rows, n_cells, &sizes, batch, err);
    default:
        return collate_csr(pass, rows, n_cells, &sizes, batch, err);
    }
}

scio_status
scio_collate(const scio_collate_spec *spec, const scio_row *rows, size_t n_cells,
             scio_collate_scratch *scratch, scio_batch *out, scio_error *err)
{
    const bool is_dense = spec->form == SCIO_FORM_DENSE, is_tokens = spec->form == SCIO_FORM_TOKENS;
    scio_batch batch = {.form = spec->form,
                        .value_dtype = scio_collate_value_dtype(spec),
                        .id_dtype = id_dtype_of(spec),
                        .n_cells = (int64_t)n_cells};
    collate_pass pass = {.spec = spec,
                         .kernels = scio_kernels(),
                         .scratch = scratch,
                         .value_dtype = batch.value_dtype,
                         .needs_order = !is_dense || spec->max_genes > 0,
                         .least_id = is_tokens ? 0 : spec->first_id,
                         .id_base = is_tokens ? 0 : (int32_t)spec->first_id};
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(
        scio_collate_check_spec(spec, err)); /* nothing was taken from it that could be wrong */
    status = collate_form(&pass, rows, n_cells, &batch, err);
    scio_stats_add(SCIO_STAT_fast_rows, pass.n_fast);
    scio_stats_add(SCIO_STAT_general_rows, pass.n_general);
    if (status == SCIO_OK)
        *out = batch;
    else
        scio_batch_clear(&batch);
    return status;
}
