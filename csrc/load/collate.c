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

scio_status
scio_collate_scratch_new(scio_collate_scratch **out, scio_error *err)
{
    return scio_mem_zalloc(1, sizeof **out, out, err);
}

void
scio_collate_scratch_free(scio_collate_scratch *scratch)
{
    if (scratch == NULL)
        return;
    scio_mem_free(scratch->values);
    scio_mem_free(scratch->columns);
    scio_mem_free(scratch->wide);
    scio_mem_free(scratch->keys);
    scio_mem_free(scratch->flat_ids);
    scio_mem_free(scratch->flat_values);
    scio_mem_free(scratch->ends);
    scio_mem_free(scratch);
}

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
    memset(batch, 0, sizeof *batch);
}

size_t
scio_batch_nbytes(const scio_batch *batch)
{
    return scio_buf_nbytes(batch->expression) + scio_buf_nbytes(batch->gene_indices) +
           scio_buf_nbytes(batch->attention_mask) + scio_buf_nbytes(batch->n_genes) +
           scio_buf_nbytes(batch->indptr) + scio_buf_nbytes(batch->index) +
           scio_buf_nbytes(batch->is_padding);
}

/* --- scratch --- */

/* Makes room anew: what was there is not needed any more. */
static scio_status
renew(void *inout, size_t n_items, size_t itemsize, scio_error *err)
{
    void *old;

    memcpy(&old, inout, sizeof old);
    scio_mem_free(old);
    return scio_mem_alloc(n_items, itemsize, inout, err);
}

/* Room is never for nothing, so that pointers into it are not NULL. */
static size_t
at_least_one(size_t n_items)
{
    return n_items > 0 ? n_items : 1;
}

static scio_status
room_for_row(scio_collate_scratch *scratch, size_t n_items, scio_error *err)
{
    n_items = at_least_one(n_items);
    if (n_items <= scratch->n_row)
        return SCIO_OK;
    scratch->n_row = 0;
    SCIO_TRY(renew(&scratch->values, n_items, sizeof *scratch->values, err));
    SCIO_TRY(renew(&scratch->columns, n_items, sizeof *scratch->columns, err));
    SCIO_TRY(renew(&scratch->wide, n_items, sizeof *scratch->wide, err));
    SCIO_TRY(renew(&scratch->keys, n_items, 2 * sizeof *scratch->keys, err));
    scratch->n_row = n_items;
    return SCIO_OK;
}

static scio_status
room_for_flat(scio_collate_scratch *scratch, size_t n_items, scio_error *err)
{
    n_items = at_least_one(n_items);
    if (n_items <= scratch->n_flat)
        return SCIO_OK;
    scratch->n_flat = 0;
    SCIO_TRY(renew(&scratch->flat_ids, n_items, sizeof *scratch->flat_ids, err));
    SCIO_TRY(renew(&scratch->flat_values, n_items, sizeof *scratch->flat_values, err));
    scratch->n_flat = n_items;
    return SCIO_OK;
}

static scio_status
room_for_ends(scio_collate_scratch *scratch, size_t n_cells, scio_error *err)
{
    if (n_cells <= scratch->n_ends)
        return SCIO_OK;
    scratch->n_ends = 0;
    SCIO_TRY(renew(&scratch->ends, n_cells, sizeof *scratch->ends, err));
    scratch->n_ends = n_cells;
    return SCIO_OK;
}

typedef struct row_sizes {
    size_t longest, total;
} row_sizes;

static scio_status
measure(const scio_row *rows, size_t n_cells, row_sizes *out, scio_error *err)
{
    *out = (row_sizes){0, 0};
    for (size_t i = 0; i < n_cells; i++) {
        if (rows[i].n_items > SCIO_MAX_ROW_ITEMS)
            return scio_fail(err, SCIO_EUNSUPPORTED,
                             "cell %" PRId64 " has %zu stored values, more than %zu", rows[i].cell,
                             rows[i].n_items, SCIO_MAX_ROW_ITEMS);
        out->longest = rows[i].n_items > out->longest ? rows[i].n_items : out->longest;
        if (!scio_add_size(out->total, rows[i].n_items, &out->total))
            return scio_fail(err, SCIO_ENOMEM, "a batch of more than 2^64 values");
    }
    return SCIO_OK;
}

/* A buffer of n_rows x n_cols items. */
static scio_status
new_matrix(size_t n_rows, size_t n_cols, size_t itemsize, scio_buf **out, scio_error *err)
{
    size_t n_items, nbytes;

    if (!scio_mul_size(n_rows, n_cols, &n_items) || !scio_mul_size(n_items, itemsize, &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "a batch of %zu x %zu items of %zu bytes", n_rows,
                         n_cols, itemsize);
    return scio_buf_new(nbytes, out, err);
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
new_tokens(scio_batch *batch, size_t n_cells, size_t width, scio_error *err)
{
    batch->width = (int64_t)width;
    SCIO_TRY(new_matrix(n_cells, width, sizeof(float), &batch->expression, err));
    SCIO_TRY(new_matrix(n_cells, width, sizeof(int64_t), &batch->gene_indices, err));
    SCIO_TRY(new_matrix(n_cells, width, sizeof(int64_t), &batch->attention_mask, err));
    return new_matrix(n_cells, 1, sizeof(int64_t), &batch->n_genes, err);
}

/* Row i of a token batch, padded to its width; n_items <= width. */
static void
write_tokens(const scio_collate_spec *spec, scio_batch *batch, size_t i, const int32_t *ids,
             const float *values, size_t n_items)
{
    const size_t width = (size_t)batch->width;
    float *const values_out = (float *)scio_buf_data(batch->expression) + i * width;
    int64_t *const ids_out = (int64_t *)scio_buf_data(batch->gene_indices) + i * width;
    int64_t *const mask_out = (int64_t *)scio_buf_data(batch->attention_mask) + i * width;

    if (n_items > 0)
        memcpy(values_out, values, n_items * sizeof *values);
    for (size_t j = 0; j < n_items; j++)
        ids_out[j] = ids[j];
    for (size_t j = 0; j < n_items; j++)
        mask_out[j] = 1;
    for (size_t j = n_items; j < width; j++)
        values_out[j] = spec->pad_value;
    for (size_t j = n_items; j < width; j++)
        ids_out[j] = spec->pad_id;
    for (size_t j = n_items; j < width; j++)
        mask_out[j] = 0;
    ((int64_t *)scio_buf_data(batch->n_genes))[i] = (int64_t)n_items;
}

static scio_status
collate_fixed_tokens(collate_pass *pass, const scio_row *rows, size_t n_cells,
                     const row_sizes *sizes, scio_batch *batch, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;

    SCIO_TRY(room_for_flat(scratch, sizes->longest, err));
    SCIO_TRY(new_tokens(batch, n_cells, (size_t)pass->spec->max_genes, err));
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, scratch->flat_ids, scratch->flat_values, &n_items,
                          err));
        write_tokens(pass->spec, batch, i, scratch->flat_ids, scratch->flat_values, n_items);
    }
    return SCIO_OK;
}

static scio_status
collate_free_tokens(collate_pass *pass, const scio_row *rows, size_t n_cells,
                    const row_sizes *sizes, scio_batch *batch, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    size_t at = 0, width = 0;

    SCIO_TRY(room_for_flat(scratch, sizes->total, err));
    SCIO_TRY(room_for_ends(scratch, n_cells, err));
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, scratch->flat_ids + at, scratch->flat_values + at,
                          &n_items, err));
        width = n_items > width ? n_items : width;
        at += n_items;
        scratch->ends[i] = (int64_t)at;
    }
    SCIO_TRY(new_tokens(batch, n_cells, width, err));
    at = 0;
    for (size_t i = 0; i < n_cells; i++) {
        const size_t end = (size_t)scratch->ends[i];

        write_tokens(pass->spec, batch, i, scratch->flat_ids + at, scratch->flat_values + at,
                     end - at);
        at = end;
    }
    return SCIO_OK;
}

/* --- dense --- */

static scio_status
collate_dense(collate_pass *pass, const scio_row *rows, size_t n_cells, const row_sizes *sizes,
              scio_batch *batch, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    const int64_t first_id = pass->spec->first_id;
    const size_t width = (size_t)(pass->spec->n_ids - first_id);
    float *row_out;

    batch->width = (int64_t)width;
    SCIO_TRY(room_for_flat(scratch, sizes->longest, err));
    SCIO_TRY(new_matrix(n_cells, width, sizeof(float), &batch->expression, err));
    row_out = scio_buf_data(batch->expression);
    for (size_t i = 0; i < n_cells; i++, row_out += width) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, scratch->flat_ids, scratch->flat_values, &n_items,
                          err));
        memset(row_out, 0, width * sizeof *row_out);
        for (size_t j = 0; j < n_items; j++)
            row_out[scratch->flat_ids[j] - first_id] = scratch->flat_values[j];
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
        SCIO_TRY(scio_buf_new(nbytes, &trimmed, err));
        if (nbytes > 0)
            memcpy(scio_buf_data(trimmed), scio_buf_data(*inout), nbytes);
        scio_buf_release(*inout);
    }
    *inout = trimmed;
    return SCIO_OK;
}

static scio_status
collate_csr(collate_pass *pass, const scio_row *rows, size_t n_cells, const row_sizes *sizes,
            scio_batch *batch, scio_error *err)
{
    const int32_t first_id = (int32_t)pass->spec->first_id;
    int64_t *indptr;
    int32_t *indices;
    float *values;
    size_t at = 0;

    batch->width = pass->spec->n_ids - pass->spec->first_id;
    SCIO_TRY(new_matrix(n_cells + 1, 1, sizeof(int64_t), &batch->indptr, err));
    SCIO_TRY(new_matrix(sizes->total, 1, sizeof(int32_t), &batch->gene_indices, err));
    SCIO_TRY(new_matrix(sizes->total, 1, sizeof(float), &batch->expression, err));
    indptr = scio_buf_data(batch->indptr);
    indices = scio_buf_data(batch->gene_indices);
    values = scio_buf_data(batch->expression);
    indptr[0] = 0;
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(next_row(pass, rows, n_cells, i, indices + at, values + at, &n_items, err));
        if (first_id != 0)
            for (size_t j = at; j < at + n_items; j++)
                indices[j] -= first_id;
        at += n_items;
        indptr[i + 1] = (int64_t)at;
    }
    batch->nnz = (int64_t)at;
    SCIO_TRY(trim(&batch->gene_indices, at * sizeof *indices, err));
    return trim(&batch->expression, at * sizeof *values, err);
}

/* --- a batch --- */

static scio_status
check_spec(const scio_collate_spec *spec, scio_error *err)
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
    return SCIO_OK;
}

static scio_status
new_index(const scio_row *rows, size_t n_cells, scio_batch *batch, scio_error *err)
{
    int64_t *index;

    SCIO_TRY(new_matrix(n_cells, 1, sizeof *index, &batch->index, err));
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

    SCIO_TRY(measure(rows, n_cells, &sizes, err));
    SCIO_TRY(room_for_row(pass->scratch, sizes.longest, err));
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
    scio_batch batch = {.form = spec->form, .n_cells = (int64_t)n_cells};
    collate_pass pass = {.spec = spec,
                         .kernels = scio_kernels(),
                         .scratch = scratch,
                         .needs_order = !is_dense || spec->max_genes > 0,
                         .least_id = is_tokens ? 0 : spec->first_id};
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(check_spec(spec, err));
    status = collate_form(&pass, rows, n_cells, &batch, err);
    scio_stats_add(SCIO_STAT_fast_rows, pass.n_fast);
    scio_stats_add(SCIO_STAT_general_rows, pass.n_general);
    if (status == SCIO_OK)
        *out = batch;
    else
        scio_batch_clear(&batch);
    return status;
}
