/* Further matrices of the cells of a batch: layers in its columns or at its tokens, and dense rows
 * of their own (embeddings). */
#include "base/mem.h"
#include "base/stats.h"
#include "load/collate_row.h"

#include <inttypes.h>
#include <string.h>

enum { CHUNK = 256 }; /* items that wait on the stack: at most 3 KiB */

void
scio_batch_extra_clear(scio_batch_extra *extra)
{
    scio_buf_release(extra->values);
    scio_buf_release(extra->indices);
    scio_buf_release(extra->indptr);
    memset(extra, 0, sizeof *extra);
}

size_t
scio_batch_extra_nbytes(const scio_batch_extra *extra)
{
    return scio_buf_nbytes(extra->values) + scio_buf_nbytes(extra->indices) +
           scio_buf_nbytes(extra->indptr);
}

/* --- dense and CSR: a batch of their own --- */

/* Moves a buffer out of a batch. */
static scio_buf *
taken(scio_buf **buf)
{
    scio_buf *const out = *buf;

    *buf = NULL;
    return out;
}

static scio_status
collate_columns(const scio_collate_spec *as_stored, const scio_row *rows, size_t n_cells,
                scio_collate_scratch *scratch, scio_batch_extra *out, scio_error *err)
{
    scio_batch batch;

    SCIO_TRY(scio_collate(as_stored, rows, n_cells, scratch, &batch, err));
    out->values = taken(&batch.expression);
    out->indices = taken(&batch.gene_indices);
    out->indptr = taken(&batch.indptr);
    out->width = batch.width;
    out->nnz = batch.nnz;
    scio_batch_clear(&batch);
    return SCIO_OK;
}

/* --- tokens: what the layer has at ids that are given --- */

/* Both sides ascend.  `wanted` is an array of int32 or int64 with the index j. */
#define MERGE(ctype)                                                                               \
    do {                                                                                           \
        const ctype *const wanted = (const ctype *)scio_buf_data(main->gene_indices) + first;      \
        size_t k = 0;                                                                              \
                                                                                                   \
        for (size_t j = 0; j < n_wanted; j++) {                                                    \
            while (k < n_items && ids[k] < wanted[j])                                              \
                k++;                                                                               \
            out[j] = k < n_items && ids[k] == wanted[j] ? values[k] : 0.0f;                        \
        }                                                                                          \
    } while (0)

/* The values at the ids of row i of main; n_items entries of the layer. */
static void
merge_row(const scio_batch *main, size_t i, size_t n_wanted, const int32_t *ids,
          const float *values, size_t n_items, float *out)
{
    const size_t first = i * (size_t)main->width;

    if (main->id_dtype == SCIO_I32)
        MERGE(int32_t);
    else
        MERGE(int64_t);
}

static scio_status
collate_at_tokens(collate_pass *pass, const scio_batch *main, const scio_row *rows, size_t n_cells,
                  scio_batch_extra *out, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    const int64_t *const n_genes = scio_buf_data(main->n_genes);
    const size_t width = (size_t)main->width;
    const scio_dtype dtype = pass->value_dtype;
    row_sizes sizes;

    SCIO_TRY(scio_collate_measure(rows, n_cells, &sizes, err));
    /* the wanted values are put into the row's scratch when the row is finished */
    SCIO_TRY(
        scio_collate_room_for_row(scratch, sizes.longest > width ? sizes.longest : width, err));
    SCIO_TRY(scio_collate_room_for_flat(scratch, sizes.longest, err));
    SCIO_TRY(
        scio_collate_new_matrix(n_cells, width, scio_dtype_itemsize(dtype), &out->values, err));
    out->width = main->width;
    for (size_t i = 0; i < n_cells; i++) {
        const size_t n_wanted = (size_t)n_genes[i];
        size_t n_items = 0;

        scio_collate_prefetch(i + 1 < n_cells ? &rows[i + 1] : NULL);
        SCIO_TRY(scio_collate_row(pass, &rows[i], scratch->flat_ids, scratch->flat_values, &n_items,
                                  err));
        merge_row(main, i, n_wanted, scratch->flat_ids, scratch->flat_values, n_items,
                  scratch->values);
        scio_collate_put_values(pass->kernels, dtype, scratch->values, n_wanted,
                                scio_collate_value_at(out->values, dtype, i * width));
        scio_collate_fill_values(dtype, pass->spec->pad_value, width - n_wanted,
                                 scio_collate_value_at(out->values, dtype, i * width + n_wanted));
    }
    return SCIO_OK;
}

static scio_status
collate_tokens_layer(const scio_collate_spec *as_stored, const scio_batch *main,
                     const scio_row *rows, size_t n_cells, scio_collate_scratch *scratch,
                     scio_batch_extra *out, scio_error *err)
{
    collate_pass pass = {.spec = as_stored,
                         .kernels = scio_kernels(),
                         .scratch = scratch,
                         .value_dtype = scio_collate_value_dtype(as_stored),
                         .needs_order = true};
    const scio_status status = collate_at_tokens(&pass, main, rows, n_cells, out, err);

    scio_stats_add(SCIO_STAT_fast_rows, pass.n_fast);
    scio_stats_add(SCIO_STAT_general_rows, pass.n_general);
    return status;
}

scio_status
scio_collate_layer(const scio_collate_spec *spec, const scio_batch *main, const scio_row *rows,
                   size_t n_cells, scio_collate_scratch *scratch, scio_batch_extra *out,
                   scio_error *err)
{
    scio_collate_spec as_stored = *spec;
    scio_batch_extra extra = {.value_dtype = scio_collate_value_dtype(spec)};
    scio_status status;

    memset(out, 0, sizeof *out);
    as_stored.is_library_size = as_stored.is_log1p = false;
    as_stored.cell_scale = NULL;
    as_stored.max_genes = 0;
    SCIO_TRY(scio_collate_check_spec(spec, err));
    SCIO_BUG_IF(main->form != spec->form || main->n_cells != (int64_t)n_cells, err);
    status = spec->form == SCIO_FORM_TOKENS
                 ? collate_tokens_layer(&as_stored, main, rows, n_cells, scratch, &extra, err)
                 : collate_columns(&as_stored, rows, n_cells, scratch, &extra, err);
    if (status == SCIO_OK)
        *out = extra;
    else
        scio_batch_extra_clear(&extra);
    return status;
}

/* --- rows of n_cols values as they are --- */

/* A dense row; float16 is the float32 rounded once more, as everywhere. */
static scio_status
put_dense_row(const scio_row *row, size_t n_cols, scio_dtype dtype, void *row_out, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(row->value_dtype);
    float chunk[CHUNK];

    if (dtype == SCIO_F32)
        return scio_cast(row->value_dtype, row->values, SCIO_F32, row_out, n_cols, err);
    for (size_t at = 0; at < n_cols; at += CHUNK) {
        const size_t n = n_cols - at < CHUNK ? n_cols - at : CHUNK;

        SCIO_TRY(scio_cast(row->value_dtype, (const char *)row->values + at * itemsize, SCIO_F32,
                           chunk, n, err));
        scio_kernels()->f32_to_f16(chunk, (uint16_t *)row_out + at, n);
    }
    return SCIO_OK;
}

/* Adds the entries of a sparse row up in wide[n_cols]. */
static scio_status
sum_sparse_row(const scio_row *row, size_t n_cols, double *wide, scio_error *err)
{
    const size_t index_size = scio_dtype_itemsize(row->index_dtype);
    const size_t value_size = scio_dtype_itemsize(row->value_dtype);
    uint32_t columns[CHUNK];
    double values[CHUNK];

    memset(wide, 0, n_cols * sizeof *wide);
    for (size_t at = 0; at < row->n_items; at += CHUNK) {
        const size_t n = row->n_items - at < CHUNK ? row->n_items - at : CHUNK;

        SCIO_TRY(scio_cast(row->index_dtype, (const char *)row->indices + at * index_size, SCIO_U32,
                           columns, n, err));
        SCIO_TRY(scio_cast(row->value_dtype, (const char *)row->values + at * value_size, SCIO_F64,
                           values, n, err));
        for (size_t i = 0; i < n; i++) {
            if (columns[i] >= n_cols)
                return scio_fail(err, SCIO_ERANGE,
                                 "cell %" PRId64 " has a value in column %" PRIu32
                                 " of a matrix of %zu columns",
                                 row->cell, columns[i], n_cols);
            wide[columns[i]] += values[i];
        }
    }
    return SCIO_OK;
}

static scio_status
put_sparse_row(const scio_row *row, size_t n_cols, scio_dtype dtype, double *wide, void *row_out,
               scio_error *err)
{
    const scio_row summed = {.values = wide, .value_dtype = SCIO_F64};

    SCIO_TRY(sum_sparse_row(row, n_cols, wide, err));
    return put_dense_row(&summed, n_cols, dtype, row_out, err);
}

static scio_status
put_rows(const scio_row *rows, size_t n_cells, size_t n_cols, double *wide, scio_batch_extra *out,
         scio_error *err)
{
    for (size_t i = 0; i < n_cells; i++) {
        void *const row_out = scio_collate_value_at(out->values, out->value_dtype, i * n_cols);

        scio_collate_prefetch(i + 1 < n_cells ? &rows[i + 1] : NULL);
        if (rows[i].indices != NULL) {
            SCIO_TRY(put_sparse_row(&rows[i], n_cols, out->value_dtype, wide, row_out, err));
            continue;
        }
        if (rows[i].n_items != n_cols)
            return scio_fail(err, SCIO_EINVAL,
                             "cell %" PRId64 " has %zu values in a matrix of %zu columns",
                             rows[i].cell, rows[i].n_items, n_cols);
        SCIO_TRY(put_dense_row(&rows[i], n_cols, out->value_dtype, row_out, err));
    }
    return SCIO_OK;
}

scio_status
scio_collate_dense_rows(const scio_row *rows, size_t n_cells, int64_t n_cols,
                        scio_dtype value_dtype, scio_batch_extra *out, scio_error *err)
{
    const scio_collate_spec spec = {.value_dtype = value_dtype};
    scio_batch_extra extra = {.value_dtype = scio_collate_value_dtype(&spec), .width = n_cols};
    double *wide = NULL;
    scio_status status;
    bool is_any_sparse = false;

    memset(out, 0, sizeof *out);
    SCIO_TRY(scio_collate_check_spec(&spec, err));
    if (n_cols < 0)
        return scio_fail(err, SCIO_EINVAL, "n_cols is %" PRId64 ", expected 0 or more", n_cols);
    for (size_t i = 0; i < n_cells; i++)
        is_any_sparse = is_any_sparse || rows[i].indices != NULL;
    status = scio_collate_new_matrix(n_cells, (size_t)n_cols,
                                     scio_dtype_itemsize(extra.value_dtype), &extra.values, err);
    if (status == SCIO_OK && is_any_sparse)
        status = scio_mem_alloc((size_t)n_cols, sizeof *wide, &wide, err);
    if (status == SCIO_OK)
        status = put_rows(rows, n_cells, (size_t)n_cols, wide, &extra, err);
    scio_mem_free(wide);
    if (status == SCIO_OK)
        *out = extra;
    else
        scio_batch_extra_clear(&extra);
    return status;
}
