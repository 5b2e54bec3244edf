/* The gate for sparse arrays: what passes it, kernels may trust.
 *
 * FULL runs over fixed blocks of rows in the shared pool.  A block with an index out of range does
 * not end the loop: it lowers the first bad position of all, and blocks behind that position are
 * skipped. So the position that is reported is the lowest one, whatever the threads did. */
#include "sparse/csr.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
    ROWS_PER_BLOCK = 4096,
    ITEMS_PER_LOOK = 4096 /* indices between two looks at what was found */
};

/* --- indptr --- */

/* The first row whose end is less than its beginning, or n_rows. */
static int64_t
find_decrease(const int64_t *indptr, int64_t n_rows)
{
    unsigned n_bad = 0;

    for (int64_t r = 0; r < n_rows; r++)
        n_bad |= (unsigned)(indptr[r + 1] < indptr[r]);
    if (n_bad == 0)
        return n_rows;
    for (int64_t r = 0; r < n_rows; r++)
        if (indptr[r + 1] < indptr[r])
            return r;
    return n_rows;
}

scio_status
scio_indptr_validate(const int64_t *indptr, int64_t n_rows, int64_t nnz, scio_error *err)
{
    int64_t r;

    if (indptr[0] != 0)
        return scio_fail(err, SCIO_ECORRUPT, "indptr[0] is %" PRId64 ", expected 0", indptr[0]);
    r = find_decrease(indptr, n_rows);
    if (r < n_rows)
        return scio_fail(err, SCIO_ECORRUPT,
                         "indptr[%" PRId64 "] is %" PRId64 ", less than indptr[%" PRId64
                         "], which is %" PRId64 " (must not decrease)",
                         r + 1, indptr[r + 1], r, indptr[r]);
    if (indptr[n_rows] != nnz)
        return scio_fail(err, SCIO_ECORRUPT,
                         "indptr[%" PRId64 "] is %" PRId64
                         ", expected the number of stored values, %" PRId64,
                         n_rows, indptr[n_rows], nnz);
    return SCIO_OK;
}

/* --- the range of indices --- */

#define INDEX_DTYPE_LIST(X)                                                                        \
    X(I8, int8_t)                                                                                  \
    X(I16, int16_t)                                                                                \
    X(I32, int32_t)                                                                                \
    X(I64, int64_t)                                                                                \
    X(U8, uint8_t)                                                                                 \
    X(U16, uint16_t)                                                                               \
    X(U32, uint32_t)                                                                               \
    X(U64, uint64_t)

/* Position of the first index outside [0, n_cols), or n_items.  Least and largest of a stretch are
 * found in the stored width, which is what SIMD does well; only they are compared with the range.
 */
#define DEFINE_FIND_BAD(name, ctype)                                                               \
    static size_t find_bad_##name(const void *indices, size_t n_items, uint64_t n_cols)            \
    {                                                                                              \
        const ctype *const x = indices;                                                            \
                                                                                                   \
        for (size_t start = 0; start < n_items; start += ITEMS_PER_LOOK) {                         \
            const size_t left = n_items - start;                                                   \
            const size_t end = left < ITEMS_PER_LOOK ? n_items : start + ITEMS_PER_LOOK;           \
            ctype least = x[start], largest = x[start];                                            \
                                                                                                   \
            for (size_t i = start; i < end; i++) {                                                 \
                least = x[i] < least ? x[i] : least;                                               \
                largest = x[i] > largest ? x[i] : largest;                                         \
            }                                                                                      \
            /* widened, a negative number is larger than any n_cols */                             \
            if ((uint64_t)least < n_cols && (uint64_t)largest < n_cols)                            \
                continue;                                                                          \
            for (size_t i = start; i < end; i++)                                                   \
                if ((uint64_t)x[i] >= n_cols)                                                      \
                    return i;                                                                      \
        }                                                                                          \
        return n_items;                                                                            \
    }
INDEX_DTYPE_LIST(DEFINE_FIND_BAD)
#undef DEFINE_FIND_BAD

/* What the neighbours in rows [row0, row1) tell: sorted or not, and equal ones. */
typedef struct order_facts {
    bool is_unsorted, has_equal;
} order_facts;

#define DEFINE_LOOK_AT_ORDER(name, ctype)                                                          \
    static order_facts look_at_order_##name(const scio_csr_view *csr, int64_t row0, int64_t row1)  \
    {                                                                                              \
        const ctype *const x = csr->indices;                                                       \
        unsigned n_less = 0, n_equal = 0;                                                          \
                                                                                                   \
        for (int64_t r = row0; r < row1; r++) {                                                    \
            for (int64_t i = csr->indptr[r] + 1; i < csr->indptr[r + 1]; i++) {                    \
                n_less |= (unsigned)(x[i] < x[i - 1]);                                             \
                n_equal |= (unsigned)(x[i] == x[i - 1]);                                           \
            }                                                                                      \
        }                                                                                          \
        return (order_facts){n_less != 0, n_equal != 0};                                           \
    }
INDEX_DTYPE_LIST(DEFINE_LOOK_AT_ORDER)
#undef DEFINE_LOOK_AT_ORDER

typedef struct index_functions {
    size_t (*find_bad)(const void *indices, size_t n_items, uint64_t n_cols);
    order_facts (*look_at_order)(const scio_csr_view *csr, int64_t row0, int64_t row1);
} index_functions;

/* NULL functions for what is no integer. */
static const index_functions functions_of[SCIO_N_DTYPES] = {
#define NAME_FUNCTIONS(name, ctype) [SCIO_##name] = {find_bad_##name, look_at_order_##name},
    INDEX_DTYPE_LIST(NAME_FUNCTIONS)
#undef NAME_FUNCTIONS
};

static scio_status
check_index_dtype(scio_dtype index_dtype, scio_error *err)
{
    if (functions_of[index_dtype].find_bad == NULL)
        return scio_fail(err, SCIO_ECORRUPT, "indices are %s, expected integers",
                         scio_dtype_name(index_dtype));
    return SCIO_OK;
}

/* "indices[17] is 40 in row 3, not in [0, 40)"; row < 0: not known. */
static scio_status
fail_index(const void *index, scio_dtype index_dtype, int64_t position, int64_t row, int64_t n_cols,
           scio_error *err)
{
    char value[24] = "?", place[40] = "";
    uint64_t positive;
    int64_t negative;

    if (scio_cast(index_dtype, index, SCIO_U64, &positive, 1, NULL) == SCIO_OK)
        (void)snprintf(value, sizeof value, "%" PRIu64, positive);
    else if (scio_cast(index_dtype, index, SCIO_I64, &negative, 1, NULL) == SCIO_OK)
        (void)snprintf(value, sizeof value, "%" PRId64, negative);
    if (row >= 0)
        (void)snprintf(place, sizeof place, " in row %" PRId64, row);
    return scio_fail(err, SCIO_ECORRUPT, "indices[%" PRId64 "] is %s%s, not in [0, %" PRId64 ")",
                     position, value, place, n_cols);
}

scio_status
scio_indices_validate(const void *indices, scio_dtype index_dtype, size_t n_items, int64_t n_cols,
                      int64_t first_item, scio_error *err)
{
    size_t i;

    SCIO_TRY(check_index_dtype(index_dtype, err));
    i = functions_of[index_dtype].find_bad(indices, n_items, (uint64_t)n_cols);
    if (i == n_items)
        return SCIO_OK;
    return fail_index((const char *)indices + i * scio_dtype_itemsize(index_dtype), index_dtype,
                      first_item + (int64_t)i, -1, n_cols, err);
}

/* --- FULL --- */

typedef struct full_check {
    const scio_csr_view *csr;
    bool wants_facts;
    order_facts *facts;        /* [n_blocks] */
    _Atomic int64_t first_bad; /* position in indices, nnz when there is none */
} full_check;

static void
lower(_Atomic int64_t *first, int64_t position)
{
    int64_t now = atomic_load(first);

    while (position < now && !atomic_compare_exchange_weak(first, &now, position))
        continue;
}

static scio_status
check_block(void *context, size_t i_item, size_t slot, scio_error *err)
{
    full_check *const check = context;
    const scio_csr_view *const csr = check->csr;
    const index_functions *const functions = &functions_of[csr->index_dtype];
    const int64_t row0 = (int64_t)i_item * ROWS_PER_BLOCK;
    const int64_t row1 = csr->n_rows - row0 < ROWS_PER_BLOCK ? csr->n_rows : row0 + ROWS_PER_BLOCK;
    const int64_t start = csr->indptr[row0];
    const size_t n_items = (size_t)(csr->indptr[row1] - start);
    const char *indices;
    size_t i;

    (void)slot;
    (void)err;
    if (n_items == 0 || start >= atomic_load(&check->first_bad))
        return SCIO_OK;
    indices = (const char *)csr->indices + (size_t)start * scio_dtype_itemsize(csr->index_dtype);
    i = functions->find_bad(indices, n_items, (uint64_t)csr->n_cols);
    if (i < n_items)
        lower(&check->first_bad, start + (int64_t)i);
    else if (check->wants_facts)
        check->facts[i_item] = functions->look_at_order(csr, row0, row1);
    return SCIO_OK;
}

/* The row that holds a position: the last one that begins at or before it. */
static int64_t
row_of(const scio_csr_view *csr, int64_t position)
{
    int64_t low = 0, high = csr->n_rows;

    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;

        if (csr->indptr[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* --- duplicates in rows that are not sorted --- */

enum { STRETCH = 256 };

/* Marks say in which row a column was met last: one pass, n_cols marks. */
static scio_status
find_by_marks(const scio_csr_view *csr, int64_t *last_row, bool *has_duplicates_out,
              scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(csr->index_dtype);
    int64_t columns[STRETCH];

    memset(last_row, 0xFF, (size_t)csr->n_cols * sizeof *last_row); /* -1 */
    for (int64_t r = 0; r < csr->n_rows && !*has_duplicates_out; r++) {
        const int64_t end = csr->indptr[r + 1];

        for (int64_t start = csr->indptr[r]; start < end; start += STRETCH) {
            const size_t n_items = end - start < STRETCH ? (size_t)(end - start) : STRETCH;

            SCIO_TRY(scio_cast(csr->index_dtype,
                               (const char *)csr->indices + (size_t)start * itemsize, SCIO_I64,
                               columns, n_items, err));
            for (size_t i = 0; i < n_items; i++) {
                *has_duplicates_out |= last_row[columns[i]] == r;
                last_row[columns[i]] = r;
            }
        }
    }
    return SCIO_OK;
}

/* Bottom-up merge sort; the result is in items or in spare. */
static int64_t *
sorted(int64_t *items, int64_t *spare, size_t n_items)
{
    for (size_t width = 1; width < n_items; width *= 2) {
        int64_t *const from = items;

        for (size_t start = 0; start < n_items; start += 2 * width) {
            const size_t middle = n_items - start < width ? n_items : start + width;
            const size_t end = n_items - middle < width ? n_items : middle + width;
            size_t a = start, b = middle;

            for (size_t to = start; to < end; to++)
                spare[to] = a < middle && (b >= end || from[a] <= from[b]) ? from[a++] : from[b++];
        }
        items = spare;
        spare = from;
    }
    return items;
}

/* Each row is sorted aside: memory for the longest row, whatever n_cols is. */
static scio_status
find_by_sorting(const scio_csr_view *csr, int64_t *room, size_t longest, bool *has_duplicates_out,
                scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(csr->index_dtype);

    for (int64_t r = 0; r < csr->n_rows && !*has_duplicates_out; r++) {
        const size_t start = (size_t)csr->indptr[r], n_items = (size_t)csr->indptr[r + 1] - start;
        const int64_t *columns;

        SCIO_TRY(scio_cast(csr->index_dtype, (const char *)csr->indices + start * itemsize,
                           SCIO_I64, room, n_items, err));
        columns = sorted(room, room + longest, n_items);
        for (size_t i = 1; i < n_items; i++)
            *has_duplicates_out |= columns[i] == columns[i - 1];
    }
    return SCIO_OK;
}

/* A declared n_cols costs nothing in a file, so marks are used only where there are about as many
 * entries as columns. */
static scio_status
find_duplicates(const scio_csr_view *csr, bool *has_duplicates_out, scio_error *err)
{
    const bool is_narrow = csr->n_cols / 4 <= csr->nnz;
    int64_t *room = NULL, longest = 0;
    scio_status status;

    for (int64_t r = 0; r < csr->n_rows; r++) {
        const int64_t n_items = csr->indptr[r + 1] - csr->indptr[r];

        longest = n_items > longest ? n_items : longest;
    }
    status = is_narrow ? scio_mem_alloc((size_t)csr->n_cols, sizeof *room, &room, err)
                       : scio_mem_alloc((size_t)longest, 2 * sizeof *room, &room, err);
    if (status == SCIO_OK)
        status = is_narrow ? find_by_marks(csr, room, has_duplicates_out, err)
                           : find_by_sorting(csr, room, (size_t)longest, has_duplicates_out, err);
    scio_mem_free(room);
    return status;
}

static scio_status
gather_facts(const full_check *check, size_t n_blocks, scio_csr_facts *out, scio_error *err)
{
    scio_csr_facts facts = {true, false};

    for (size_t i = 0; i < n_blocks; i++) {
        facts.is_sorted = facts.is_sorted && !check->facts[i].is_unsorted;
        facts.has_duplicates = facts.has_duplicates || check->facts[i].has_equal;
    }
    if (!facts.is_sorted && !facts.has_duplicates)
        SCIO_TRY(find_duplicates(check->csr, &facts.has_duplicates, err));
    *out = facts;
    return SCIO_OK;
}

static scio_status
check_full(const scio_csr_view *csr, scio_csr_facts *facts_out, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(csr->index_dtype);
    const size_t n_blocks = ((size_t)csr->n_rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
    full_check check = {.csr = csr, .wants_facts = facts_out != NULL};
    scio_status status;
    int64_t first_bad;

    atomic_init(&check.first_bad, csr->nnz);
    status = scio_mem_zalloc(n_blocks, sizeof *check.facts, &check.facts, err);
    if (status == SCIO_OK)
        status = scio_parallel_for(NULL, SIZE_MAX, n_blocks, check_block, &check, NULL, err);
    if (status != SCIO_OK)
        goto done;
    first_bad = atomic_load(&check.first_bad);
    if (first_bad < csr->nnz)
        status = fail_index((const char *)csr->indices + (size_t)first_bad * itemsize,
                            csr->index_dtype, first_bad, row_of(csr, first_bad), csr->n_cols, err);
    else if (facts_out != NULL)
        status = gather_facts(&check, n_blocks, facts_out, err);
done:
    scio_mem_free(check.facts);
    return status;
}

static scio_status
check_shape(const scio_csr_view *csr, scio_error *err)
{
    if (csr->n_rows < 0 || csr->n_cols < 0 || csr->nnz < 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "shape (%" PRId64 ", %" PRId64 ") with %" PRId64
                         " values: none may be negative",
                         csr->n_rows, csr->n_cols, csr->nnz);
    SCIO_TRY(check_index_dtype(csr->index_dtype, err));
    if (csr->data != NULL && scio_dtype_itemsize(csr->data_dtype) == 0)
        return scio_fail(err, SCIO_ETYPE, "data have no numeric type");
    return SCIO_OK;
}

scio_status
scio_csr_validate(const scio_csr_view *csr, scio_check level, scio_csr_facts *facts_out,
                  scio_error *err)
{
    SCIO_TRY(check_shape(csr, err));
    if (level == SCIO_CHECK_SHAPE)
        return SCIO_OK;
    SCIO_TRY(scio_indptr_validate(csr->indptr, csr->n_rows, csr->nnz, err));
    if (level == SCIO_CHECK_STRUCTURE)
        return SCIO_OK;
    return check_full(csr, facts_out, err);
}
