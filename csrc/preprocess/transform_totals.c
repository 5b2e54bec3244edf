/* Totals of rows, and what there is to know about values before they are normalised.
 *
 * Nearly all rows hold non-negative integers below 2^31: one loop without branches proves that, and
 * then the sum is exact in any order, zeros and duplicates or not.  Every other row is brought into
 * the form in which the loader sums it: widened, by ascending column, duplicates summed, zeros out.
 */
#include "base/mem.h"
#include "kernels/kernels.h"
#include "preprocess/transform.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Sums of so many values below 2^31 are exact in double. */
#define MAX_SIMPLE_ITEMS ((int64_t)1 << 22)

__extension__ typedef __int128 wide_int;

/* Room for the longest row, one for each slot. */
typedef struct row_scratch {
    uint32_t *columns; /* [n_row] */
    double *wide;      /* [n_row] */
    uint64_t *keys;    /* [2 * n_row] */
} row_scratch;

typedef struct totals_pass {
    const scio_csr_view *csr;
    const uint8_t *is_left_out;
    const scio_kernels_table *kernels;
    int64_t rows_per_item;
    row_scratch *scratch;    /* [n_slots] */
    scio_value_facts *facts; /* [n_items] */
    double *totals;
    int64_t *n_positive;
} totals_pass;

static scio_value_facts
no_facts(void)
{
    return (scio_value_facts){.is_canonical = true,
                              .first_infinite = -1,
                              .first_negative = -1,
                              .first_fraction = -1,
                              .maximum = -HUGE_VAL};
}

static void
merge_facts(scio_value_facts *into, const scio_value_facts *next)
{
    into->is_canonical &= next->is_canonical;
    into->has_duplicates |= next->has_duplicates;
    if (into->first_infinite < 0)
        into->first_infinite = next->first_infinite;
    if (into->first_negative < 0)
        into->first_negative = next->first_negative;
    if (into->first_fraction < 0)
        into->first_fraction = next->first_fraction;
    into->n_fractions += next->n_fractions;
    into->maximum = next->maximum > into->maximum ? next->maximum : into->maximum;
}

/* --- rows of small integers */

/* Sum, maximum and the number above 0 of non-negative integers below 2^31. */
typedef struct simple_sums {
    double total;
    uint32_t maximum, n_positive;
} simple_sums;

#define DEFINE_SIMPLE(NAME, ctype, to_u32, is_within)                                              \
    static bool simple_##NAME(const void *data, size_t n_items, simple_sums *out)                  \
    {                                                                                              \
        const ctype *const values = data;                                                          \
        uint64_t total = 0;                                                                        \
        uint32_t maximum = 0, n_positive = 0, n_beyond = 0;                                        \
                                                                                                   \
        for (size_t i = 0; i < n_items; i++) {                                                     \
            const ctype x = values[i];                                                             \
            const bool is_inside = (is_within);                                                    \
            const uint32_t y = to_u32;                                                             \
                                                                                                   \
            n_beyond |= (uint32_t)!is_inside;                                                      \
            total += y;                                                                            \
            maximum = y > maximum ? y : maximum;                                                   \
            n_positive += (uint32_t)(y > 0);                                                       \
        }                                                                                          \
        *out = (simple_sums){(double)total, maximum, n_positive};                                  \
        return n_beyond == 0;                                                                      \
    }
DEFINE_SIMPLE(U8, uint8_t, x, true)
DEFINE_SIMPLE(U16, uint16_t, x, true)
DEFINE_SIMPLE(U32, uint32_t, x, x <= INT32_MAX)
DEFINE_SIMPLE(U64, uint64_t, (uint32_t)x, x <= INT32_MAX)
DEFINE_SIMPLE(I8, int8_t, (uint32_t)x, x >= 0)
DEFINE_SIMPLE(I16, int16_t, (uint32_t)x, x >= 0)
DEFINE_SIMPLE(I32, int32_t, (uint32_t)x, x >= 0)
DEFINE_SIMPLE(I64, int64_t, (uint32_t)x, (x >= 0) & (x <= INT32_MAX))

static bool
simple_F32(const scio_kernels_table *kernels, const float *values, size_t n_items, simple_sums *out)
{
    if (!kernels->are_counts_f32(values, n_items, &out->maximum, &out->n_positive))
        return false;
    out->total = kernels->sum_f32(values, n_items);
    return true;
}

/* The same for doubles, which are rarer. */
static bool
simple_F64(const double *values, size_t n_items, simple_sums *out)
{
    double total = 0, maximum = 0;
    uint32_t n_positive = 0;

    for (size_t i = 0; i < n_items; i++) {
        const double x = values[i];

        if (!(x >= 0 && x < 0x1p31) || (double)(int32_t)x != x)
            return false;
        total += x;
        maximum = x > maximum ? x : maximum;
        n_positive += x > 0;
    }
    *out = (simple_sums){total, (uint32_t)maximum, n_positive};
    return true;
}

static bool
try_simple(const totals_pass *pass, int64_t start, int64_t n_items, simple_sums *out)
{
    const scio_csr_view *const csr = pass->csr;
    const void *const data =
        (const char *)csr->data + (size_t)start * scio_dtype_itemsize(csr->data_dtype);
    const size_t n = (size_t)n_items;

    if (n_items > MAX_SIMPLE_ITEMS)
        return false;
    switch (csr->data_dtype) {
    case SCIO_BOOL:
    case SCIO_U8:
        return simple_U8(data, n, out);
    case SCIO_U16:
        return simple_U16(data, n, out);
    case SCIO_U32:
        return simple_U32(data, n, out);
    case SCIO_U64:
        return simple_U64(data, n, out);
    case SCIO_I8:
        return simple_I8(data, n, out);
    case SCIO_I16:
        return simple_I16(data, n, out);
    case SCIO_I32:
        return simple_I32(data, n, out);
    case SCIO_I64:
        return simple_I64(data, n, out);
    case SCIO_F32:
        return simple_F32(pass->kernels, data, n, out);
    case SCIO_F64:
        return simple_F64(data, n, out);
    default:
        return false;
    }
}

/* --- any row */

static void
note_values(const double *wide, int64_t start, size_t n_items, scio_value_facts *facts)
{
    for (size_t i = 0; i < n_items; i++) {
        const double x = wide[i];
        const int64_t place = start + (int64_t)i;

        if (!(fabs(x) < HUGE_VAL)) {
            facts->first_infinite = facts->first_infinite < 0 ? place : facts->first_infinite;
            continue;
        }
        if (x < 0 && facts->first_negative < 0)
            facts->first_negative = place;
        if (x != floor(x)) {
            facts->first_fraction = facts->first_fraction < 0 ? place : facts->first_fraction;
            facts->n_fractions++;
        }
        facts->maximum = x > facts->maximum ? x : facts->maximum;
    }
}

#define SUM_INTEGERS(ctype)                                                                        \
    for (size_t i = 0; i < n_items; i++) {                                                         \
        const ctype x = ((const ctype *)csr->data)[start + (int64_t)i];                            \
                                                                                                   \
        sum += is_left_out != NULL && is_left_out[columns[i]] ? 0 : (wide_int)x;                   \
    }                                                                                              \
    break

/* Integers that double might not hold: their exact sum, rounded once. */
static double
sum_integers(const scio_csr_view *csr, const uint8_t *is_left_out, const uint32_t *columns,
             int64_t start, size_t n_items)
{
    wide_int sum = 0;

    switch (csr->data_dtype) {
    case SCIO_I64:
        SUM_INTEGERS(int64_t);
    case SCIO_U64:
        SUM_INTEGERS(uint64_t);
    case SCIO_I32:
        SUM_INTEGERS(int32_t);
    default:
        SUM_INTEGERS(uint32_t);
    }
    return (double)sum;
}

static bool
is_wide_integer(scio_dtype dtype)
{
    return dtype == SCIO_I64 || dtype == SCIO_U64 || dtype == SCIO_I32 || dtype == SCIO_U32;
}

/* What counts of the row, with `scratch->columns` loaded: wide values by ascending column. */
static scio_status
sum_any(const totals_pass *pass, int64_t row, int64_t start, size_t n_items, bool is_increasing,
        const row_scratch *scratch, scio_value_facts *facts, scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    uint32_t *const columns = scratch->columns;
    double *const wide = scratch->wide;
    int64_t n_positive = 0;
    size_t n_kept = n_items;

    SCIO_TRY(scio_cast(csr->data_dtype, (const char *)csr->data + (size_t)start * itemsize,
                       SCIO_F64, wide, n_items, err));
    note_values(wide, start, n_items, facts);
    if (is_wide_integer(csr->data_dtype))
        pass->totals[row] = sum_integers(csr, pass->is_left_out, columns, start, n_items);
    if (!is_increasing) {
        n_kept = scio_sort_sum_wide(columns, wide, n_items, scratch->keys);
        facts->has_duplicates |= n_kept < n_items;
    }
    for (size_t i = 0; i < n_kept; i++) {
        if (pass->is_left_out != NULL && pass->is_left_out[columns[i]])
            wide[i] = 0;
        n_positive += wide[i] > 0;
    }
    n_kept = scio_drop_zeros_wide(columns, wide, n_kept);
    if (!is_wide_integer(csr->data_dtype))
        pass->totals[row] = scio_sum_f64(wide, n_kept);
    if (pass->n_positive != NULL)
        pass->n_positive[row] = n_positive;
    return SCIO_OK;
}

static scio_status
load_columns(const scio_csr_view *csr, int64_t row, int64_t start, size_t n_items,
             uint32_t *columns, scio_error *err)
{
    if (csr->indptr == NULL) {
        for (size_t i = 0; i < n_items; i++)
            columns[i] = (uint32_t)i;
        return SCIO_OK;
    }
    if (scio_cast(csr->index_dtype,
                  (const char *)csr->indices +
                      (size_t)start * scio_dtype_itemsize(csr->index_dtype),
                  SCIO_U32, columns, n_items, NULL) != SCIO_OK)
        return scio_fail(err, SCIO_ECORRUPT, "row %" PRId64 " holds an index below 0 or above 2^32",
                         row);
    return SCIO_OK;
}

static scio_status
check_columns(const scio_csr_view *csr, int64_t row, const uint32_t *columns, size_t n_items,
              scio_error *err)
{
    uint32_t greatest = 0;

    for (size_t i = 0; i < n_items; i++)
        greatest = columns[i] > greatest ? columns[i] : greatest;
    if (n_items > 0 && (int64_t)greatest >= csr->n_cols)
        return scio_fail(err, SCIO_ECORRUPT,
                         "row %" PRId64 " holds the index %" PRIu32 ", not in [0, %" PRId64 ")",
                         row, greatest, csr->n_cols);
    return SCIO_OK;
}

static scio_status
sum_row(const totals_pass *pass, int64_t row, const row_scratch *scratch, scio_value_facts *facts,
        scio_error *err)
{
    const scio_csr_view *const csr = pass->csr;
    const int64_t start = scio_row_start(csr, row);
    const size_t n_items = (size_t)(scio_row_start(csr, row + 1) - start);
    const bool is_dense = csr->indptr == NULL;
    bool is_increasing = true;
    simple_sums sums;

    if (is_dense && pass->is_left_out == NULL) {
        /* no columns are needed unless it comes to sum_any */
    } else if (!is_dense && csr->index_dtype == SCIO_I32 && pass->is_left_out == NULL) {
        const uint32_t *const in_place = (const uint32_t *)csr->indices + start;

        if (csr->n_cols > INT32_MAX ||
            !pass->kernels->are_within_i32((const int32_t *)in_place, n_items, 0,
                                           (int32_t)csr->n_cols))
            SCIO_TRY(check_columns(csr, row, in_place, n_items, err));
        is_increasing = pass->kernels->is_increasing_u32(in_place, n_items);
    } else {
        SCIO_TRY(load_columns(csr, row, start, n_items, scratch->columns, err));
        SCIO_TRY(check_columns(csr, row, scratch->columns, n_items, err));
        is_increasing = pass->kernels->is_increasing_u32(scratch->columns, n_items);
    }
    facts->is_canonical &= is_increasing;
    if (is_increasing && pass->is_left_out == NULL &&
        try_simple(pass, start, (int64_t)n_items, &sums)) {
        const double maximum = (double)sums.maximum;

        pass->totals[row] = sums.total;
        if (pass->n_positive != NULL)
            pass->n_positive[row] = sums.n_positive;
        if (n_items > 0)
            facts->maximum = maximum > facts->maximum ? maximum : facts->maximum;
        return SCIO_OK;
    }
    if (pass->is_left_out == NULL)
        SCIO_TRY(load_columns(csr, row, start, n_items, scratch->columns, err));
    return sum_any(pass, row, start, n_items, is_increasing, scratch, facts, err);
}

static scio_status
sum_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const totals_pass *const pass = context;
    const int64_t first = (int64_t)i_item * pass->rows_per_item;
    const int64_t left = pass->csr->n_rows - first;
    const int64_t n_rows = left < pass->rows_per_item ? left : pass->rows_per_item;
    scio_value_facts facts = no_facts();

    for (int64_t row = first; row < first + n_rows; row++)
        SCIO_TRY(sum_row(pass, row, &pass->scratch[slot], &facts, err));
    pass->facts[i_item] = facts;
    return SCIO_OK;
}

/* --- the pass */

static size_t
longest_row(const scio_csr_view *csr)
{
    int64_t longest = 0;

    if (csr->indptr == NULL)
        return (size_t)csr->n_cols;
    for (int64_t row = 0; row < csr->n_rows; row++) {
        const int64_t n_items = csr->indptr[row + 1] - csr->indptr[row];

        longest = n_items > longest ? n_items : longest;
    }
    return (size_t)longest;
}

static scio_status
new_scratch(size_t n_slots, size_t n_row, row_scratch *scratch, scio_error *err)
{
    if (n_row > UINT32_MAX)
        return scio_fail(err, SCIO_EUNSUPPORTED, "a row of %zu values, at most 2^32 are summed",
                         n_row);
    for (size_t i = 0; i < n_slots; i++) {
        SCIO_TRY(scio_mem_alloc(n_row, sizeof *scratch->columns, &scratch[i].columns, err));
        SCIO_TRY(scio_mem_alloc(n_row, sizeof *scratch->wide, &scratch[i].wide, err));
        SCIO_TRY(scio_mem_alloc(n_row, 2 * sizeof *scratch->keys, &scratch[i].keys, err));
    }
    return SCIO_OK;
}

static void
free_scratch(size_t n_slots, row_scratch *scratch)
{
    for (size_t i = 0; scratch != NULL && i < n_slots; i++) {
        scio_mem_free(scratch[i].columns);
        scio_mem_free(scratch[i].wide);
        scio_mem_free(scratch[i].keys);
    }
    scio_mem_free(scratch);
}

scio_status
scio_row_totals(const scio_csr_view *csr, const uint8_t *is_left_out, size_t max_parallel,
                const volatile int *cancel, double *totals_out, int64_t *n_positive_out,
                scio_value_facts *facts_out, scio_error *err)
{
    totals_pass pass = {.csr = csr,
                        .is_left_out = is_left_out,
                        .kernels = scio_kernels(),
                        .rows_per_item = scio_rows_per_item(csr),
                        .totals = totals_out,
                        .n_positive = n_positive_out};
    const size_t n_items = (size_t)((csr->n_rows + pass.rows_per_item - 1) / pass.rows_per_item);
    const size_t n_slots = scio_parallel_n_slots(NULL, max_parallel, n_items);
    scio_value_facts facts = no_facts();
    scio_status status;

    status = scio_mem_zalloc(n_slots, sizeof *pass.scratch, &pass.scratch, err);
    if (status == SCIO_OK)
        status = new_scratch(n_slots, longest_row(csr), pass.scratch, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_items, sizeof *pass.facts, &pass.facts, err);
    if (status == SCIO_OK)
        status = scio_parallel_for(NULL, n_slots, n_items, sum_item, &pass, cancel, err);
    if (status != SCIO_OK)
        goto done;
    for (size_t i = 0; i < n_items; i++)
        merge_facts(&facts, &pass.facts[i]);
    *facts_out = facts;
done:
    free_scratch(n_slots, pass.scratch);
    scio_mem_free(pass.facts);
    return status;
}
