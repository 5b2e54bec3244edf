/* One row: checked, made canonical, classified, counted. */
#include "preprocess/gene_stats_private.h"

#include "base/dtype.h"
#include "kernels/kernels.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* --- loops by type --- */

/* Of a row that holds counts only. */
typedef struct row_class {
    double sum, maximum;
    size_t n_nonzero;
} row_class;

/* Whether all are counts; what is known of them then.  The sum is exact in whatever order it is
 * taken. */
static bool
classify_f32(const void *values, size_t n_items, row_class *out)
{
    uint32_t maximum = 0, n_positive = 0;

    if (!scio_kernels()->are_counts_f32(values, n_items, &maximum, &n_positive))
        return false;
    *out = (row_class){scio_kernels()->sum_f32(values, n_items), maximum, n_positive};
    return true;
}

#define STATS_NAME(x) x##_f32
#define STATS_TYPE float
#include "preprocess/gene_stats_template.h"

/* v + 2^52 has no room for a fraction, so only an integer comes back. */
#define STATS_NAME(x) x##_f64
#define STATS_TYPE double
#define STATS_SUM double
#define STATS_IS_COUNT(v) (((v) >= 0) & ((v) < 0x1p31) & (((v) + 0x1p52) - 0x1p52 == (v)))
#include "preprocess/gene_stats_template.h"

#define STATS_NAME(x) x##_i32
#define STATS_TYPE int32_t
#define STATS_SUM int64_t
#define STATS_IS_COUNT(v) ((v) >= 0)
#include "preprocess/gene_stats_template.h"

#define STATS_NAME(x) x##_u16
#define STATS_TYPE uint16_t
#define STATS_SUM int64_t
#define STATS_IS_COUNT(v) true
#include "preprocess/gene_stats_template.h"

typedef struct loops {
    bool (*classify)(const void *values, size_t n_items, row_class *out);
    size_t (*count)(const void *values, const int32_t *genes, size_t n_items, uint16_t *bins,
                    uint32_t *large);
    void (*count_small)(const void *values, const int32_t *genes, size_t n_items, uint16_t *bins);
    void (*to_double)(const void *values, size_t n_items, double *out);
    void (*divide)(const void *values, size_t n_items, double divisor, double *out);
    void (*scale)(const void *values, size_t n_items, double factor, float *out);
} loops;

#define LOOPS(x)                                                                                   \
    {                                                                                              \
        classify_##x, count_##x, count_small_##x, to_double_##x, divide_##x, scale_##x             \
    }

static const loops *
loops_of(scio_dtype dtype)
{
    static const loops f32 = LOOPS(f32), f64 = LOOPS(f64), i32 = LOOPS(i32), u16 = LOOPS(u16);

    switch (dtype) {
    case SCIO_F32:
        return &f32;
    case SCIO_F64:
        return &f64;
    case SCIO_I32:
        return &i32;
    case SCIO_U16:
        return &u16;
    default:
        return NULL;
    }
}

/* --- canonical rows --- */

static scio_status
load_genes(const scio_gene_stats *stats, const scio_csr_view *rows, int64_t first, size_t n_items,
           scio_stats_slot *slot, const int32_t **out, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(rows->index_dtype);
    const char *const indices = (const char *)rows->indices + (size_t)first * itemsize;
    const int32_t n_genes = (int32_t)stats->n_genes;

    if (rows->index_dtype == SCIO_I32) {
        *out = (const int32_t *)(const void *)indices;
        if (scio_kernels()->are_within_i32(*out, n_items, 0, n_genes))
            return SCIO_OK;
    } else {
        *out = slot->genes;
        if (scio_cast(rows->index_dtype, indices, SCIO_I32, slot->genes, n_items, NULL) ==
                SCIO_OK &&
            scio_kernels()->are_within_i32(*out, n_items, 0, n_genes))
            return SCIO_OK;
    }
    /* names position and value */
    SCIO_TRY(scio_indices_validate(indices, rows->index_dtype, n_items, rows->n_cols, first, err));
    return scio_fail(err, SCIO_EBUG, "indices from %" PRId64 " on are out of range", first);
}

/* Keeps the lowest row; of one row, what is noted last. */
static void
note(scio_stats_example *example, const scio_stats_row *row, size_t i, double value)
{
    if (example->row < 0 || row->row <= example->row)
        *example = (scio_stats_example){row->row, row->genes[i], value};
}

/* |x| + 2^52 has no room for a fraction. */
#define ROUNDED(size) (((size) + 0x1p52) - 0x1p52)

static bool
is_integral(double value)
{
    const double size = fabs(value);

    return size >= 0x1p52 || ROUNDED(size) == size;
}

static bool
is_news(const scio_stats_example *example, const scio_stats_row *row, uint64_t n)
{
    return n > 0 && (example->row < 0 || row->row < example->row);
}

/* The first value of each kind; looked for in rows only that come before the one that is known. */
static void
note_examples(const scio_stats_row *row, const double *v, const scio_value_kinds *n,
              scio_stats_facts *facts)
{
    facts->n_not_finite += (int64_t)n->n_not_finite;
    facts->n_fractional += (int64_t)n->n_fractional;
    facts->n_negative += (int64_t)n->n_negative;
    if (!is_news(&facts->not_finite, row, n->n_not_finite) &&
        !is_news(&facts->fractional, row, n->n_fractional) &&
        !is_news(&facts->negative, row, n->n_negative))
        return;
    for (size_t i = row->n_items; i-- > 0;) { /* backwards: the first one stays */
        if (!(fabs(v[i]) <= DBL_MAX))
            note(&facts->not_finite, row, i, v[i]);
        else if (!is_integral(v[i]))
            note(&facts->fractional, row, i, v[i]);
        if (v[i] < 0)
            note(&facts->negative, row, i, v[i]);
    }
}

/* Over the values that are not 0 in the lanes of kernels->sum_f32, so that it is the total that
 * normalising divides by. */
static double
sum_nonzero(const double *v, size_t n_items, uint64_t n_zero)
{
    double l[8] = {0};
    size_t n = 0;

    if (n_zero == 0)
        return scio_sum_f64(v, n_items);
    for (size_t i = 0; i < n_items; i++)
        if (v[i] != 0)
            l[n++ % 8] += v[i];
    return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

/* What the quick look did not take for counts. */
static void
classify_slowly(scio_stats_row *row, scio_stats_slot *slot)
{
    const double *const v = scio_stats_row_doubles(row, slot);
    scio_value_kinds n;
    scio_u128 exact = 0;

    scio_kernels()->count_kinds_f64(v, row->n_items, &n);
    row->n_detected = row->n_items - n.n_zero;
    row->has_not_finite = n.n_not_finite > 0;
    /* huge integers are summed as doubles: their squares would leave 128 bits */
    row->is_exact = n.n_not_finite + n.n_fractional + n.n_negative + n.n_huge == 0;
    if (!row->is_exact) {
        note_examples(row, v, &n, &slot->facts);
        row->total = sum_nonzero(v, row->n_items, n.n_zero);
        return;
    }
    for (size_t i = 0; i < row->n_items; i++)
        exact += (uint64_t)v[i];
    row->total = scio_u128_to_double(exact);
}

scio_status
scio_stats_row_prepare(const scio_gene_stats *stats, const scio_csr_view *rows, int64_t i_row,
                       scio_stats_slot *slot, scio_stats_row *out, scio_error *err)
{
    const int64_t first = rows->indptr[i_row];
    const size_t n_items = (size_t)(rows->indptr[i_row + 1] - first);
    const char *const values =
        (const char *)rows->data + (size_t)first * scio_dtype_itemsize(rows->data_dtype);
    scio_stats_row row = {
        .values = values, .dtype = rows->data_dtype, .n_items = n_items, .row = i_row};

    row_class found;

    row.row += slot->facts.n_rows; /* of those before these rows */
    SCIO_TRY(load_genes(stats, rows, first, n_items, slot, &row.genes, err));
    const bool is_canonical =
        scio_kernels()->is_increasing_u32((const uint32_t *)row.genes, n_items);
    if (!is_canonical || loops_of(row.dtype) == NULL) {
        SCIO_TRY(scio_cast(row.dtype, values, SCIO_F64, slot->values_f64, n_items, err));
        row.values = slot->values_f64;
        row.dtype = SCIO_F64;
    }
    if (!is_canonical) {
        if (row.genes != slot->genes && n_items > 0)
            memcpy(slot->genes, row.genes, n_items * sizeof *slot->genes);
        row.n_items =
            scio_sort_sum_wide((uint32_t *)slot->genes, slot->values_f64, n_items, slot->keys);
        row.genes = slot->genes;
    }
    row.is_narrow = row.is_exact = loops_of(row.dtype)->classify(row.values, row.n_items, &found);
    if (row.is_exact) {
        row.total = found.sum;
        row.maximum = found.maximum;
        row.n_detected = found.n_nonzero;
    } else {
        classify_slowly(&row, slot);
    }
    slot->facts.n_nonzero += (int64_t)row.n_detected;
    *out = row;
    return SCIO_OK;
}

const double *
scio_stats_row_doubles(const scio_stats_row *row, scio_stats_slot *slot)
{
    if (row->dtype == SCIO_F64)
        return row->values;
    loops_of(row->dtype)->to_double(row->values, row->n_items, slot->values_f64);
    return slot->values_f64;
}

/* --- counting --- */

static scio_status
count_large(const scio_gene_stats *stats, const scio_stats_row *row, size_t i, uint64_t value,
            scio_stats_slot *slot, scio_error *err)
{
    const size_t gene = (size_t)row->genes[i];

    if (stats->has_values && value <= UINT32_MAX) {
        const uint64_t place = gene + (uint64_t)slot->batch * stats->n_genes;

        return scio_value_counts_add(&slot->values, scio_value_key(place, value), 1, err);
    }
    slot->has_wide = true;
    return scio_stats_wide_add(&slot->wide, stats->n_genes, gene, value, 1, err);
}

static scio_status
count_exact(const scio_gene_stats *stats, const scio_stats_row *row, scio_stats_slot *slot,
            scio_error *err)
{
    const double *v;
    size_t n_large;

    slot->n_binned++;
    if (row->is_narrow && row->maximum < SCIO_STATS_BINS) {
        loops_of(row->dtype)->count_small(row->values, row->genes, row->n_items, slot->bins);
        return SCIO_OK;
    }
    if (row->is_narrow) {
        n_large = loops_of(row->dtype)
                      ->count(row->values, row->genes, row->n_items, slot->bins, slot->large);
        v = scio_stats_row_doubles(row, slot);
        for (size_t i = 0; i < n_large; i++)
            SCIO_TRY(
                count_large(stats, row, slot->large[i], (uint64_t)v[slot->large[i]], slot, err));
        return SCIO_OK;
    }
    v = scio_stats_row_doubles(row, slot);
    for (size_t i = 0; i < row->n_items; i++) {
        if (v[i] < SCIO_STATS_BINS)
            slot->bins[(size_t)row->genes[i] * SCIO_STATS_BINS + (size_t)v[i]]++;
        else
            SCIO_TRY(count_large(stats, row, i, (uint64_t)v[i], slot, err));
    }
    return SCIO_OK;
}

static void
add_values(const scio_gene_stats *stats, const scio_stats_row *row, scio_stats_slot *slot,
           scio_inexact *tables)
{
    const double *const v = scio_stats_row_doubles(row, slot);
    const double *numbers = v;

    if (stats->spec.transform == SCIO_TRANSFORM_EXPM1) {
        scio_kernels()->expm1_f64(v, stats->spec.factor, slot->work, row->n_items);
        numbers = slot->work;
    }
    for (size_t i = 0; i < row->n_items; i++) {
        scio_inexact *const x = &tables[row->genes[i]];

        if (i + 16 < row->n_items)
            __builtin_prefetch(&tables[row->genes[i + 16]], 1);
        if (v[i] == 0)
            continue;
        x->maximum = x->moment.k == 0 || v[i] > x->maximum ? v[i] : x->maximum;
        x->n_positive += v[i] > 0;
        x->is_fractional |= (uint32_t)!is_integral(v[i]);
        scio_moment_add(&x->moment, numbers[i]);
    }
}

/* A quotient of a non-zero value is not 0 (but for underflow, which is one), so it stands for the
 * stored value. */
static void
add_scaled(const scio_stats_row *row, scio_stats_slot *slot, scio_moment *moments)
{
    double *const y = slot->work;

    loops_of(row->dtype)->divide(row->values, row->n_items, row->total, y);
    for (size_t i = 0; i < row->n_items; i++) {
        if (y[i] != 0)
            scio_moment_add(&moments[row->genes[i]], y[i]);
    }
}

static void
add_log(const scio_gene_stats *stats, const scio_stats_row *row, scio_stats_slot *slot,
        scio_moment *moments)
{
    const double factor = row->total == 0 ? 1 : stats->spec.target_sum / row->total;
    float *const y = slot->work_f32;

    loops_of(row->dtype)->scale(row->values, row->n_items, factor, y);
    scio_kernels()->log1p_f32(y, y, row->n_items);
    for (size_t i = 0; i < row->n_items; i++) {
        if (y[i] != 0)
            scio_moment_add(&moments[row->genes[i]], (double)y[i]);
    }
}

scio_status
scio_stats_row_count(const scio_gene_stats *stats, const scio_stats_row *row, scio_stats_slot *slot,
                     scio_item_tables *tables, scio_error *err)
{
    if (row->has_not_finite)
        return SCIO_OK;
    if (row->is_exact && stats->spec.transform == SCIO_TRANSFORM_NONE)
        SCIO_TRY(count_exact(stats, row, slot, err));
    else
        add_values(stats, row, slot, tables->inexact);
    if (tables->scaled != NULL && row->total != 0)
        add_scaled(row, slot, tables->scaled);
    if (tables->log != NULL)
        add_log(stats, row, slot, tables->log);
    return SCIO_OK;
}
