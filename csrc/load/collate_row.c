/* One row, from where it lies to (id, value) entries.
 *
 *   columns, values --> map to ids --> order, mask --> scale, log1p --> drop zeros --> select
 *
 * The fast path takes rows whose columns strictly increase and whose values float32 holds exactly;
 * it never leaves float32 but inside the kernels, and reads float32 rows in place.  The general
 * path brings any other row into that form first: sorted by column, duplicates summed in double,
 * zeros left out, values scaled in double.  Both give the same bits for the same matrix, since sums
 * have fixed lanes over the same values and each value is rounded once. */
#include "load/collate_row.h"

#include "base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Wide enough for the sum of SCIO_MAX_ROW_ITEMS values of 64 bits. */
__extension__ typedef __int128 wide_int;

/* A row on its way. */
typedef struct row_entries {
    const void *columns; /* U16, or U32 in the source's place or in the scratch */
    bool are_columns_u16;
    const float *values;
    size_t n_items;
    double factor; /* still to be applied to the values */
} row_entries;

static bool
is_aligned(const void *pointer, scio_dtype dtype)
{
    return (uintptr_t)pointer % scio_dtype_itemsize(dtype) == 0;
}

static void
prefetch(const void *pointer, size_t nbytes)
{
    const size_t line = 64, most = 16384; /* no more than the first caches hold beside the work */
    const char *const bytes = pointer;

    nbytes = nbytes < most ? nbytes : most;
    for (size_t i = 0; i < nbytes; i += line)
        __builtin_prefetch(bytes + i);
}

void
scio_collate_prefetch(const scio_row *row)
{
    if (row == NULL)
        return;
    if (row->indices != NULL)
        prefetch(row->indices, row->n_items * scio_dtype_itemsize(row->index_dtype));
    prefetch(row->values, row->n_items * scio_dtype_itemsize(row->value_dtype));
}

/* --- columns --- */

static scio_status
load_columns(const scio_row *row, scio_collate_scratch *scratch, row_entries *out, scio_error *err)
{
    const bool is_in_place = is_aligned(row->indices, row->index_dtype);

    out->are_columns_u16 = is_in_place && row->index_dtype == SCIO_U16;
    out->columns = row->indices;
    /* I32 was checked not to be negative: the bits are those of an unsigned number */
    if (is_in_place && (row->index_dtype == SCIO_U16 || row->index_dtype == SCIO_U32 ||
                        row->index_dtype == SCIO_I32))
        return SCIO_OK;
    out->columns = scratch->columns;
    return scio_cast(row->index_dtype, row->indices, SCIO_U32, scratch->columns, row->n_items, err);
}

static bool
are_columns_increasing(const row_entries *entries, const scio_kernels_table *kernels)
{
    return entries->are_columns_u16
               ? kernels->is_increasing_u16(entries->columns, entries->n_items)
               : kernels->is_increasing_u32(entries->columns, entries->n_items);
}

/* --- values as float32, where it holds all of them --- */

#define ALL_WITHIN(ctype, is_within)                                                               \
    do {                                                                                           \
        const ctype *const values = row->values;                                                   \
        unsigned n_beyond = 0;                                                                     \
                                                                                                   \
        for (size_t i = 0; i < row->n_items; i++) {                                                \
            const ctype x = values[i];                                                             \
                                                                                                   \
            n_beyond |= (unsigned)!(is_within);                                                    \
        }                                                                                          \
        return n_beyond == 0;                                                                      \
    } while (0)

/* Whether float32 holds the values exactly; "no" is always safe. */
static bool
fits_f32(const scio_row *row)
{
    const uint32_t limit = 1u << 24; /* every integer up to here */

    switch (row->value_dtype) {
    case SCIO_I32:
        ALL_WITHIN(int32_t, (uint32_t)x + limit <= 2 * limit);
    case SCIO_I64:
        ALL_WITHIN(int64_t, (uint64_t)x + limit <= 2 * limit);
    case SCIO_U32:
        ALL_WITHIN(uint32_t, x <= limit);
    case SCIO_U64:
        ALL_WITHIN(uint64_t, x <= limit);
    case SCIO_F64:
        ALL_WITHIN(double, (double)(float)x == x);
    default:
        return true;
    }
}

/* Float32 rows stay where they are; others go to `values`. */
static scio_status
load_f32(const collate_pass *pass, const scio_row *row, float *values, const float **out,
         scio_error *err)
{
    *out = values;
    switch (is_aligned(row->values, row->value_dtype) ? row->value_dtype : SCIO_DTYPE_NONE) {
    case SCIO_F32:
        *out = row->values;
        return SCIO_OK;
    case SCIO_U8:
        pass->kernels->u8_to_f32(row->values, values, row->n_items);
        return SCIO_OK;
    case SCIO_U16:
        pass->kernels->u16_to_f32(row->values, values, row->n_items);
        return SCIO_OK;
    default:
        return scio_cast(row->value_dtype, row->values, SCIO_F32, values, row->n_items, err);
    }
}

/* --- totals --- */

#define SUM_EXACTLY(ctype)                                                                         \
    do {                                                                                           \
        const unsigned char *const bytes = row->values;                                            \
        wide_int total = 0;                                                                        \
                                                                                                   \
        for (size_t i = 0; i < row->n_items; i++) {                                                \
            ctype x;                                                                               \
                                                                                                   \
            memcpy(&x, bytes + i * sizeof x, sizeof x);                                            \
            total += x;                                                                            \
        }                                                                                          \
        return (double)total;                                                                      \
    } while (0)

/* Over all stored values: exact for integers that double may not hold, whatever the order. */
static double
general_total(const scio_row *row, const double *values, size_t n_items)
{
    switch (row->value_dtype) {
    case SCIO_I32:
        SUM_EXACTLY(int32_t);
    case SCIO_U32:
        SUM_EXACTLY(uint32_t);
    case SCIO_I64:
        SUM_EXACTLY(int64_t);
    case SCIO_U64:
        SUM_EXACTLY(uint64_t);
    default:
        return scio_sum_f64(values, n_items);
    }
}

/* A total of 0 leaves the row as it is. */
static double
factor_of(const collate_pass *pass, double total)
{
    return total == 0.0 ? 1.0 : pass->spec->target_sum / total;
}

/* What the caller gives for each cell; 1 where there is nothing of the kind. */
static scio_status
cell_factor(const collate_pass *pass, const scio_row *row, double *out, scio_error *err)
{
    const scio_collate_spec *const spec = pass->spec;

    *out = 1.0;
    if (spec->cell_scale == NULL)
        return SCIO_OK;
    if (row->cell < 0 || (uint64_t)row->cell >= spec->n_cell_scale)
        return scio_fail(err, SCIO_EINVAL, "cell_scale has %zu entries, none for cell %" PRId64,
                         spec->n_cell_scale, row->cell);
    *out = spec->cell_scale[row->cell];
    if (!(*out > 0.0 && isfinite(*out)))
        return scio_fail(err, SCIO_EINVAL,
                         "cell_scale[%" PRId64 "] is %g, expected a finite number above 0",
                         row->cell, *out);
    return SCIO_OK;
}

/* --- fast path --- */

static bool
is_float(scio_dtype dtype)
{
    return scio_dtype_kind(dtype) == 'f';
}

static bool
has_zero(const float *values, size_t n_items)
{
    unsigned n_zeros = 0;

    for (size_t i = 0; i < n_items; i++)
        n_zeros |= (unsigned)(values[i] == 0.0f);
    return n_zeros != 0;
}

/* A dense row: what is not zero, with its columns. */
static scio_status
load_dense_fast(const collate_pass *pass, const scio_row *row, row_entries *out, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    const float *values = NULL;

    SCIO_TRY(load_f32(pass, row, scratch->values, &values, err));
    if (values != scratch->values)
        memcpy(scratch->values, values, row->n_items * sizeof *values);
    for (size_t i = 0; i < row->n_items; i++)
        scratch->columns[i] = (uint32_t)i;
    out->n_items = pass->kernels->drop_zeros((int32_t *)(void *)scratch->columns, scratch->values,
                                             row->n_items);
    out->columns = scratch->columns;
    out->are_columns_u16 = false;
    out->values = scratch->values;
    return SCIO_OK;
}

/* Fills *out and says true, or says false: the row needs the general path.  Where all entries stay,
 * values are converted right to where they go. */
static scio_status
try_fast(const collate_pass *pass, const scio_row *row, float *values_out, row_entries *out,
         bool *is_fast_out, scio_error *err)
{
    const bool is_scaled = pass->spec->is_library_size;

    *is_fast_out = false;
    *out = (row_entries){.n_items = row->n_items};
    SCIO_TRY(cell_factor(pass, row, &out->factor, err));
    if (!is_aligned(row->values, row->value_dtype) || !fits_f32(row))
        return SCIO_OK;
    if (row->indices == NULL) {
        SCIO_TRY(load_dense_fast(pass, row, out, err));
    } else {
        SCIO_TRY(load_columns(row, pass->scratch, out, err));
        if (!are_columns_increasing(out, pass->kernels))
            return SCIO_OK;
        SCIO_TRY(load_f32(pass, row, row->is_map_identity ? values_out : pass->scratch->values,
                          &out->values, err));
        /* stored zeros would move the others to other lanes of the sum */
        if (is_scaled && is_float(row->value_dtype) && has_zero(out->values, out->n_items))
            return SCIO_OK;
    }
    if (is_scaled)
        out->factor = factor_of(pass, pass->kernels->sum_f32(out->values, out->n_items));
    *is_fast_out = true;
    return SCIO_OK;
}

/* --- general path --- */

static scio_status
load_wide(const scio_row *row, scio_collate_scratch *scratch, scio_error *err)
{
    if (row->indices == NULL) {
        for (size_t i = 0; i < row->n_items; i++)
            scratch->columns[i] = (uint32_t)i;
    } else {
        SCIO_TRY(scio_cast(row->index_dtype, row->indices, SCIO_U32, scratch->columns, row->n_items,
                           err));
    }
    return scio_cast(row->value_dtype, row->values, SCIO_F64, scratch->wide, row->n_items, err);
}

static scio_status
load_general(const collate_pass *pass, const scio_row *row, row_entries *out, scio_error *err)
{
    scio_collate_scratch *const scratch = pass->scratch;
    size_t n_items = row->n_items;
    double factor;

    SCIO_TRY(cell_factor(pass, row, &factor, err));
    SCIO_TRY(load_wide(row, scratch, err));
    if (!pass->kernels->is_increasing_u32(scratch->columns, n_items))
        n_items = scio_sort_sum_wide(scratch->columns, scratch->wide, n_items, scratch->keys);
    n_items = scio_drop_zeros_wide(scratch->columns, scratch->wide, n_items);
    if (pass->spec->is_library_size)
        factor = factor_of(pass, general_total(row, scratch->wide, n_items));
    for (size_t i = 0; i < n_items; i++)
        scratch->values[i] = (float)(scratch->wide[i] * factor); /* factor 1 changes nothing */
    *out = (row_entries){
        .columns = scratch->columns, .values = scratch->values, .n_items = n_items, .factor = 1.0};
    return SCIO_OK;
}

/* --- ids, values, selection --- */

static scio_status
fail_id(const collate_pass *pass, int64_t id, scio_error *err)
{
    return scio_fail(err, SCIO_EINVAL,
                     "a map sends a column to id %" PRId64 ", not in [%" PRId64 ", %" PRId64 ")",
                     id, pass->least_id, pass->spec->n_ids);
}

static bool
is_legal(const collate_pass *pass, int64_t id)
{
    return id >= pass->least_id && id < pass->spec->n_ids;
}

static int64_t
column_at(const row_entries *entries, size_t i)
{
    return entries->are_columns_u16 ? ((const uint16_t *)entries->columns)[i]
                                    : ((const uint32_t *)entries->columns)[i];
}

/* Maps are made by our callers, but an id is an address further on. */
static scio_status
check_ids(const collate_pass *pass, const int32_t *ids, size_t n_items, scio_error *err)
{
    if (pass->kernels->are_within_i32(ids, n_items, (int32_t)pass->least_id,
                                      (int32_t)pass->spec->n_ids))
        return SCIO_OK;
    for (size_t i = 0; i < n_items; i++) {
        if (!is_legal(pass, ids[i]))
            return fail_id(pass, ids[i], err);
    }
    return SCIO_OK;
}

/* Whether id_base is taken off together with the shift: nothing asks for the ids in between. */
static bool
is_based(const collate_pass *pass, const scio_row *row)
{
    return row->is_map_identity && pass->spec->id_mask == NULL;
}

/* Every column stays and none is looked up; they ascend, so the first and the last tell of all. */
static scio_status
shift_columns(const collate_pass *pass, const scio_row *row, const row_entries *entries,
              int32_t *ids_out, float *values_out, scio_error *err)
{
    const size_t n_items = entries->n_items;
    const int64_t shift = (int64_t)row->map_first - (is_based(pass, row) ? pass->id_base : 0);

    if (n_items == 0)
        return SCIO_OK;
    for (int end = 0; end < 2; end++) {
        const int64_t id = column_at(entries, end == 0 ? 0 : n_items - 1) + row->map_first;

        if (!is_legal(pass, id))
            return fail_id(pass, id, err);
    }
    if (entries->are_columns_u16)
        pass->kernels->shift_u16(entries->columns, (int32_t)shift, ids_out, n_items);
    else
        pass->kernels->shift_u32(entries->columns, (int32_t)shift, ids_out, n_items);
    if (entries->values != values_out)
        memcpy(values_out, entries->values, n_items * sizeof *values_out);
    return SCIO_OK;
}

/* Ids and values of the entries that the map keeps. */
static scio_status
map_columns(const collate_pass *pass, const scio_row *row, const row_entries *entries,
            int32_t *ids_out, float *values_out, size_t *n_out, scio_error *err)
{
    const scio_kernels_table *const kernels = pass->kernels;

    *n_out = entries->n_items;
    if (row->is_map_identity)
        return shift_columns(pass, row, entries, ids_out, values_out, err);
    *n_out = entries->are_columns_u16
                 ? kernels->gather_map_u16(entries->columns, entries->values, entries->n_items,
                                           row->map, ids_out, values_out)
                 : kernels->gather_map_u32(entries->columns, entries->values, entries->n_items,
                                           row->map, ids_out, values_out);
    return check_ids(pass, ids_out, *n_out, err);
}

static size_t
select_entries(const collate_pass *pass, int64_t cell, int32_t *ids, float *values, size_t n_items)
{
    const scio_collate_spec *const spec = pass->spec;
    const size_t k = (size_t)spec->max_genes;
    const uint64_t purpose = 0x67656E6573u; /* "genes": apart from the streams of the shuffle */

    if (spec->max_genes == 0 || n_items <= k)
        return n_items;
    switch (spec->select) {
    case SCIO_SELECT_MOST_EXPRESSED:
        return scio_topk_by_value(ids, values, n_items, k, pass->scratch->keys);
    case SCIO_SELECT_RANDOM_EXPRESSED:
        return scio_choose_random(ids, values, n_items, k, spec->seed,
                                  scio_rng_stream(spec->epoch, (uint64_t)cell, purpose),
                                  pass->scratch->keys);
    default:
        return k;
    }
}

scio_status
scio_collate_row(collate_pass *pass, const scio_row *row, int32_t *ids_out, float *values_out,
                 size_t *n_out, scio_error *err)
{
    const scio_kernels_table *const kernels = pass->kernels;
    const scio_collate_spec *const spec = pass->spec;
    row_entries entries;
    size_t n_items = 0;
    bool is_fast = false, needs_sort;

    SCIO_TRY(try_fast(pass, row, values_out, &entries, &is_fast, err));
    if (!is_fast)
        SCIO_TRY(load_general(pass, row, &entries, err));
    SCIO_TRY(map_columns(pass, row, &entries, ids_out, values_out, &n_items, err));
    if (spec->id_mask != NULL)
        n_items = kernels->keep_masked(ids_out, values_out, n_items, spec->id_mask);
    needs_sort = pass->needs_order && !row->is_map_increasing && !row->is_map_identity;
    if (needs_sort)
        n_items = scio_sort_sum_duplicates(ids_out, values_out, n_items, pass->scratch->keys);
    if (entries.factor != 1.0)
        kernels->scale_f32(values_out, entries.factor, values_out, n_items);
    if (spec->is_log1p)
        kernels->log1p_f32(values_out, values_out, n_items);
    n_items = kernels->drop_zeros(ids_out, values_out, n_items);
    n_items = select_entries(pass, row->cell, ids_out, values_out, n_items);
    if (pass->id_base != 0 && !is_based(pass, row))
        kernels->shift_u32((const uint32_t *)(const void *)ids_out, -pass->id_base, ids_out,
                           n_items);
    *n_out = n_items;
    *(is_fast && !needs_sort ? &pass->n_fast : &pass->n_general) += 1;
    return SCIO_OK;
}
