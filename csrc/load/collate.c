/* Rows to a batch.
 *
 * Pass 1, row by row: widen the values, total, map the genes, drop zeros, scale, log1p, select; what is
 * left goes behind one another into one flat scratch (ids, values, ends of rows).  Pass 2 writes the form.
 * Two passes because the width of a token batch and the size of a CSR batch are known only after the
 * first; the flat scratch of a batch stays in the cache. */
#include "load/collate.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/stats.h"
#include "kernels/kernels.h"

#include <string.h>

struct scio_collate_scratch {
    size_t n_row;      /* room for the longest row so far */
    float *row_values; /* [n_row] */
    int32_t *row_ids;  /* [n_row] */
    double *wide;      /* [n_row] values that float32 cannot hold */
    uint64_t *keys;    /* [2 * n_row] */
    size_t n_flat;     /* room for the entries of a batch */
    float *values;     /* [n_flat] */
    int32_t *ids;      /* [n_flat] */
    size_t n_ends;
    int64_t *ends; /* [n_ends] entries up to and with each row */
};

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
    scio_mem_free(scratch->row_values);
    scio_mem_free(scratch->row_ids);
    scio_mem_free(scratch->wide);
    scio_mem_free(scratch->keys);
    scio_mem_free(scratch->values);
    scio_mem_free(scratch->ids);
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

static scio_status
room_for_row(scio_collate_scratch *scratch, size_t n_items, scio_error *err)
{
    if (n_items <= scratch->n_row)
        return SCIO_OK;
    SCIO_TRY(scio_mem_realloc(&scratch->row_values, n_items, sizeof(float), err));
    SCIO_TRY(scio_mem_realloc(&scratch->row_ids, n_items, sizeof(int32_t), err));
    SCIO_TRY(scio_mem_realloc(&scratch->wide, n_items, sizeof(double), err));
    SCIO_TRY(scio_mem_realloc(&scratch->keys, 2 * n_items, sizeof(uint64_t), err));
    scratch->n_row = n_items;
    return SCIO_OK;
}

static scio_status
room_for_batch(scio_collate_scratch *scratch, const scio_row *rows, size_t n_cells, scio_error *err)
{
    size_t longest = 0, total = 0;

    for (size_t i = 0; i < n_cells; i++) {
        longest = rows[i].n_items > longest ? rows[i].n_items : longest;
        if (!scio_add_size(total, rows[i].n_items, &total))
            return scio_fail(err, SCIO_ENOMEM, "a batch of more than 2^64 values");
    }
    SCIO_TRY(room_for_row(scratch, longest, err));
    if (total > scratch->n_flat) {
        SCIO_TRY(scio_mem_realloc(&scratch->values, total, sizeof(float), err));
        SCIO_TRY(scio_mem_realloc(&scratch->ids, total, sizeof(int32_t), err));
        scratch->n_flat = total;
    }
    if (n_cells > scratch->n_ends) {
        SCIO_TRY(scio_mem_realloc(&scratch->ends, n_cells, sizeof(int64_t), err));
        scratch->n_ends = n_cells;
    }
    return SCIO_OK;
}

/* --- totals --- */

#define SUM_INTEGERS(ctype, wide)                                                                  \
    do {                                                                                           \
        const ctype *const x = row->values;                                                        \
        wide total = 0;                                                                            \
        for (size_t i = 0; i < row->n_items; i++)                                                  \
            total += (wide)x[i];                                                                   \
        return (double)total;                                                                      \
    } while (0)

/* Over all stored values of the row: exact for integers, in fixed lanes of doubles for floats. */
static double
row_total(const scio_row *row, const float *as_f32, const scio_kernels_table *kernels)
{
    switch (row->value_dtype) {
    case SCIO_BOOL:
    case SCIO_U8:
        SUM_INTEGERS(uint8_t, uint64_t);
    case SCIO_U16:
        SUM_INTEGERS(uint16_t, uint64_t);
    case SCIO_U32:
        SUM_INTEGERS(uint32_t, uint64_t);
    case SCIO_U64:
        SUM_INTEGERS(uint64_t, uint64_t);
    case SCIO_I8:
        SUM_INTEGERS(int8_t, int64_t);
    case SCIO_I16:
        SUM_INTEGERS(int16_t, int64_t);
    case SCIO_I32:
        SUM_INTEGERS(int32_t, int64_t);
    case SCIO_I64:
        SUM_INTEGERS(int64_t, int64_t);
    case SCIO_F64: {
        const double *const x = row->values;
        double total = 0;
        for (size_t i = 0; i < row->n_items; i++)
            total += x[i];
        return total;
    }
    default:
        return kernels->sum_f32(as_f32, row->n_items);
    }
}

/* --- one row --- */

/* Float32 holds every value of these dtypes; of the others a value is scaled in double first. */
static bool
fits_f32(scio_dtype dtype)
{
    return dtype == SCIO_BOOL || dtype == SCIO_U8 || dtype == SCIO_U16 || dtype == SCIO_I8 ||
           dtype == SCIO_I16 || dtype == SCIO_F16 || dtype == SCIO_F32;
}

/* Values as float32: borrowed where they are so already, else in the row scratch. */
static scio_status
load_values(const scio_row *row, scio_collate_scratch *scratch, const scio_kernels_table *kernels,
            const float **out, scio_error *err)
{
    *out = scratch->row_values;
    switch (row->value_dtype) {
    case SCIO_F32:
        *out = row->values;
        return SCIO_OK;
    case SCIO_BOOL:
    case SCIO_U8:
        kernels->u8_to_f32(row->values, scratch->row_values, row->n_items);
        return SCIO_OK;
    case SCIO_U16:
        kernels->u16_to_f32(row->values, scratch->row_values, row->n_items);
        return SCIO_OK;
    default:
        return scio_cast(row->value_dtype, row->values, SCIO_F32, scratch->row_values, row->n_items,
                         err);
    }
}

/* y = fl32(double(x) * factor) from the exact x of a wide dtype. */
static scio_status
scale_wide(const scio_row *row, double factor, scio_collate_scratch *scratch, scio_error *err)
{
    SCIO_TRY(scio_cast(row->value_dtype, row->values, SCIO_F64, scratch->wide, row->n_items, err));
    for (size_t i = 0; i < row->n_items; i++)
        scratch->row_values[i] = (float)(scratch->wide[i] * factor);
    return SCIO_OK;
}

#define MAP_ROW(ctype)                                                                             \
    do {                                                                                           \
        const ctype *const columns = row->indices;                                                 \
        for (size_t i = 0; i < row->n_items; i++) {                                                \
            const int32_t id = row->map[columns[i]];                                               \
            ids[n_kept] = id;                                                                      \
            out[n_kept] = values[i];                                                               \
            n_kept += id >= 0;                                                                     \
        }                                                                                          \
    } while (0)

static size_t
map_row(const scio_row *row, const float *values, const scio_kernels_table *kernels, int32_t *ids,
        float *out)
{
    size_t n_kept = 0;

    if (row->indices == NULL) {
        for (size_t i = 0; i < row->n_items; i++) {
            ids[n_kept] = row->map[i];
            out[n_kept] = values[i];
            n_kept += row->map[i] >= 0 && values[i] != 0.0f;
        }
        return n_kept;
    }
    switch (row->index_dtype) {
    case SCIO_U16:
        return kernels->gather_map_u16(row->indices, values, row->n_items, row->map, ids, out);
    case SCIO_U32:
    case SCIO_I32: /* checked: not negative, so the bits are those of an unsigned number */
        return kernels->gather_map_u32(row->indices, values, row->n_items, row->map, ids, out);
    case SCIO_U8:
        MAP_ROW(uint8_t);
        return n_kept;
    case SCIO_I8:
        MAP_ROW(int8_t);
        return n_kept;
    case SCIO_I16:
        MAP_ROW(int16_t);
        return n_kept;
    case SCIO_I64:
        MAP_ROW(int64_t);
        return n_kept;
    default:
        MAP_ROW(uint64_t);
        return n_kept;
    }
}

/* True when ids come out ascending and distinct without sorting. */
static bool
is_row_in_order(const scio_row *row, const int32_t *ids, size_t n_items,
                const scio_kernels_table *kernels)
{
    if (row->indices == NULL && row->is_map_increasing)
        return true;
    if (row->is_map_increasing && row->index_dtype == SCIO_U16)
        return kernels->is_increasing_u16(row->indices, row->n_items);
    return kernels->is_increasing_u32((const uint32_t *)ids, n_items);
}

static size_t
apply_mask(const uint8_t *id_mask, int32_t *ids, float *values, size_t n_items)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++) {
        const int32_t id = ids[i];

        values[n_kept] = values[i];
        ids[n_kept] = id;
        n_kept += id_mask[id] != 0;
    }
    return n_kept;
}

static size_t
select_genes(const scio_collate_spec *spec, int64_t cell, int32_t *ids, float *values, size_t n_items,
             uint64_t *keys)
{
    const size_t k = (size_t)spec->max_genes;
    const uint64_t purpose = 0x67656e6573u; /* "genes": apart from the streams of the shuffle */

    if (spec->max_genes == 0 || n_items <= k)
        return n_items;
    switch (spec->select) {
    case SCIO_SELECT_MOST_EXPRESSED:
        return scio_topk_by_value(ids, values, n_items, k, keys);
    case SCIO_SELECT_RANDOM_EXPRESSED:
        return scio_choose_random(ids, values, n_items, k, spec->seed,
                                  scio_rng_stream(spec->epoch, (uint64_t)cell, purpose), keys);
    default:
        return k;
    }
}

/* The factor of library size; 1 leaves the row as it is. */
static double
row_factor(const scio_collate_spec *spec, const scio_row *row, const float *as_f32,
           const scio_kernels_table *kernels)
{
    double total;

    if (!spec->is_library_size)
        return 1.0;
    total = row_total(row, as_f32, kernels);
    return total == 0.0 ? 1.0 : spec->target_sum / total;
}

/* Entries of one row into ids, values (room for n_items); *n_out of them. */
static scio_status
collate_row(const scio_collate_spec *spec, const scio_row *row, scio_collate_scratch *scratch,
            int32_t *ids, float *values, size_t *n_out, scio_error *err)
{
    const scio_kernels_table *const kernels = scio_kernels();
    const float *as_f32 = NULL;
    double factor;
    size_t n_items;
    bool is_in_order;

    SCIO_TRY(load_values(row, scratch, kernels, &as_f32, err));
    factor = row_factor(spec, row, as_f32, kernels);
    if (!fits_f32(row->value_dtype)) {
        SCIO_TRY(scale_wide(row, factor, scratch, err));
        as_f32 = scratch->row_values;
        factor = 1.0;
    }
    n_items = map_row(row, as_f32, kernels, ids, values);
    is_in_order = is_row_in_order(row, ids, n_items, kernels);
    if (!is_in_order)
        n_items = scio_sort_sum_duplicates(ids, values, n_items, scratch->keys);
    scio_stats_add(is_in_order ? SCIO_STAT_fast_rows : SCIO_STAT_general_rows, 1);
    if (factor != 1.0)
        kernels->scale_f32(values, factor, values, n_items);
    if (spec->is_log1p)
        kernels->log1p_f32(values, values, n_items);
    n_items = kernels->drop_zeros(ids, values, n_items);
    if (spec->id_mask != NULL)
        n_items = apply_mask(spec->id_mask, ids, values, n_items);
    *n_out = select_genes(spec, row->cell, ids, values, n_items, scratch->keys);
    return SCIO_OK;
}

/* --- forms --- */

static scio_status
write_tokens(const scio_collate_spec *spec, const scio_collate_scratch *scratch, size_t n_cells,
             scio_batch *batch, scio_error *err)
{
    int64_t width = spec->max_genes, start = 0;
    size_t n_items;

    if (width == 0)
        for (size_t i = 0; i < n_cells; start = scratch->ends[i++])
            width = scratch->ends[i] - start > width ? scratch->ends[i] - start : width;
    batch->width = width;
    if (!scio_mul_size(n_cells, (size_t)width, &n_items) || n_items > SIZE_MAX / sizeof(int64_t))
        return scio_fail(err, SCIO_ENOMEM, "a token batch of %zu x %lld", n_cells, (long long)width);
    SCIO_TRY(scio_buf_new(n_items * sizeof(float), &batch->expression, err));
    SCIO_TRY(scio_buf_new(n_items * sizeof(int64_t), &batch->gene_indices, err));
    SCIO_TRY(scio_buf_new(n_items * sizeof(int64_t), &batch->attention_mask, err));
    SCIO_TRY(scio_buf_new(n_cells * sizeof(int64_t), &batch->n_genes, err));
    start = 0;
    for (size_t i = 0; i < n_cells; i++) {
        const size_t n_real = (size_t)(scratch->ends[i] - start), n_all = (size_t)width;
        float *const x = (float *)scio_buf_data(batch->expression) + i * n_all;
        int64_t *const ids = (int64_t *)scio_buf_data(batch->gene_indices) + i * n_all;
        int64_t *const mask = (int64_t *)scio_buf_data(batch->attention_mask) + i * n_all;

        if (n_real > 0)
            memcpy(x, scratch->values + start, n_real * sizeof(float));
        for (size_t j = 0; j < n_real; j++)
            ids[j] = scratch->ids[(size_t)start + j];
        for (size_t j = 0; j < n_real; j++)
            mask[j] = 1;
        for (size_t j = n_real; j < n_all; j++)
            x[j] = spec->pad_value;
        for (size_t j = n_real; j < n_all; j++)
            ids[j] = spec->pad_id;
        for (size_t j = n_real; j < n_all; j++)
            mask[j] = 0;
        ((int64_t *)scio_buf_data(batch->n_genes))[i] = (int64_t)n_real;
        start = scratch->ends[i];
    }
    return SCIO_OK;
}

static scio_status
write_dense(const scio_collate_spec *spec, const scio_collate_scratch *scratch, size_t n_cells,
            scio_batch *batch, scio_error *err)
{
    const size_t width = (size_t)(spec->n_ids - spec->first_id);
    size_t n_items, at = 0;
    float *x;

    batch->width = (int64_t)width;
    if (!scio_mul_size(n_cells, width, &n_items) || n_items > SIZE_MAX / sizeof(float))
        return scio_fail(err, SCIO_ENOMEM, "a dense batch of %zu x %zu", n_cells, width);
    SCIO_TRY(scio_buf_new(n_items * sizeof(float), &batch->expression, err));
    x = scio_buf_data(batch->expression);
    for (size_t i = 0; i < n_cells; i++, x += width) {
        memset(x, 0, width * sizeof *x);
        for (; at < (size_t)scratch->ends[i]; at++)
            x[scratch->ids[at] - spec->first_id] = scratch->values[at];
    }
    return SCIO_OK;
}

static scio_status
write_csr(const scio_collate_spec *spec, const scio_collate_scratch *scratch, size_t n_cells,
          scio_batch *batch, scio_error *err)
{
    const int32_t first_id = (int32_t)spec->first_id;
    const size_t nnz = n_cells == 0 ? 0 : (size_t)scratch->ends[n_cells - 1];
    int64_t *indptr;
    int32_t *indices;

    batch->width = spec->n_ids - spec->first_id;
    batch->nnz = (int64_t)nnz;
    SCIO_TRY(scio_buf_new(nnz * sizeof(float), &batch->expression, err));
    SCIO_TRY(scio_buf_new(nnz * sizeof(int32_t), &batch->gene_indices, err));
    SCIO_TRY(scio_buf_new((n_cells + 1) * sizeof(int64_t), &batch->indptr, err));
    if (nnz > 0)
        memcpy(scio_buf_data(batch->expression), scratch->values, nnz * sizeof(float));
    indices = scio_buf_data(batch->gene_indices);
    for (size_t i = 0; i < nnz; i++)
        indices[i] = scratch->ids[i] - first_id;
    indptr = scio_buf_data(batch->indptr);
    indptr[0] = 0;
    if (n_cells > 0)
        memcpy(indptr + 1, scratch->ends, n_cells * sizeof(int64_t));
    return SCIO_OK;
}

static scio_status
write_form(const scio_collate_spec *spec, const scio_row *rows, const scio_collate_scratch *scratch,
           size_t n_cells, scio_batch *batch, scio_error *err)
{
    int64_t *index;

    SCIO_TRY(scio_buf_new(n_cells * sizeof(int64_t), &batch->index, err));
    index = scio_buf_data(batch->index);
    for (size_t i = 0; i < n_cells; i++)
        index[i] = rows[i].cell;
    switch (spec->form) {
    case SCIO_FORM_TOKENS:
        return write_tokens(spec, scratch, n_cells, batch, err);
    case SCIO_FORM_DENSE:
        return write_dense(spec, scratch, n_cells, batch, err);
    default:
        return write_csr(spec, scratch, n_cells, batch, err);
    }
}

scio_status
scio_collate(const scio_collate_spec *spec, const scio_row *rows, size_t n_cells,
             scio_collate_scratch *scratch, scio_batch *out, scio_error *err)
{
    scio_batch batch = {.form = spec->form, .n_cells = (int64_t)n_cells};
    size_t at = 0;
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(room_for_batch(scratch, rows, n_cells, err));
    for (size_t i = 0; i < n_cells; i++) {
        size_t n_items = 0;

        SCIO_TRY(collate_row(spec, &rows[i], scratch, scratch->ids + at, scratch->values + at, &n_items,
                             err));
        at += n_items;
        scratch->ends[i] = (int64_t)at;
    }
    status = write_form(spec, rows, scratch, n_cells, &batch, err);
    if (status == SCIO_OK)
        *out = batch;
    else
        scio_batch_clear(&batch);
    return status;
}
