/* The compact store: every row comes back as it was, in as few bytes as it may, within its limit.
 */
#include "load/compact.h"

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/stats.h"
#include "test.h"

#include <math.h>

enum { MAX_ITEMS = 20000, SLAB = 64 << 10 };

static scio_compact *
must_make(int64_t n_cells, size_t n_tracks, uint64_t max_nbytes)
{
    scio_compact *compact = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_compact_new(n_cells, n_tracks, max_nbytes, &compact, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    if (compact == NULL)
        abort();
    CHECK(scio_compact_n_cells(compact) == n_cells && scio_compact_n_tracks(compact) == n_tracks);
    CHECK(scio_compact_max_nbytes(compact) == max_nbytes);
    return compact;
}

/* ---- what a row is stored as ---- */

typedef struct value_case {
    double value;
    scio_dtype narrow; /* NONE: as it came */
} value_case;

static const value_case VALUES[] = {{0, SCIO_U8},
                                    {1, SCIO_U8},
                                    {254, SCIO_U8},
                                    {255, SCIO_U8},
                                    {256, SCIO_U16},
                                    {65534, SCIO_U16},
                                    {65535, SCIO_U16},
                                    {65536, SCIO_DTYPE_NONE},
                                    {-1, SCIO_DTYPE_NONE},
                                    {-0.0, SCIO_DTYPE_NONE},
                                    {NAN, SCIO_DTYPE_NONE},
                                    {0.5, SCIO_DTYPE_NONE},
                                    {INFINITY, SCIO_DTYPE_NONE},
                                    {-INFINITY, SCIO_DTYPE_NONE},
                                    {255.5, SCIO_DTYPE_NONE},
                                    {65535.5, SCIO_DTYPE_NONE},
                                    {1e30, SCIO_DTYPE_NONE},
                                    {127, SCIO_U8},
                                    {32767, SCIO_U16},
                                    {4294967295.0, SCIO_DTYPE_NONE}};

static const scio_dtype DTYPES[] = {SCIO_BOOL, SCIO_I8,  SCIO_I16, SCIO_I32, SCIO_I64, SCIO_U8,
                                    SCIO_U16,  SCIO_U32, SCIO_U64, SCIO_F16, SCIO_F32, SCIO_F64};

static bool
is_float(scio_dtype dtype)
{
    return dtype == SCIO_F16 || dtype == SCIO_F32 || dtype == SCIO_F64;
}

/* What the dtype can hold at all: else there is no such row. */
static bool
can_hold(scio_dtype dtype, double value)
{
    char stored[8];
    double back;

    if (!is_float(dtype) && (isnan(value) || signbit(value) || value != floor(value)))
        return value == -1 &&
               (dtype == SCIO_I8 || dtype == SCIO_I16 || dtype == SCIO_I32 || dtype == SCIO_I64);
    if (!is_float(dtype) && isinf(value))
        return false;
    return scio_cast(SCIO_F64, &value, dtype, stored, 1, NULL) == SCIO_OK &&
           scio_cast(dtype, stored, SCIO_F64, &back, 1, NULL) == SCIO_OK &&
           (back == value || isnan(value));
}

/* Every item of the row found is bit for bit the one put, once both are what was put. */
static void
check_row(const scio_row *put, const scio_row *found, int64_t cell)
{
    static char back[MAX_ITEMS * 8];
    static int64_t columns[MAX_ITEMS], found_columns[MAX_ITEMS];
    const size_t n = put->n_items;

    CHECK(found->n_items == n && found->cell == cell);
    CHECK((found->indices == NULL) == (put->indices == NULL));
    if (found->n_items != n)
        return;
    CHECK(scio_cast(found->value_dtype, found->values, put->value_dtype, back, n, NULL) == SCIO_OK);
    CHECK(memcmp(back, put->values, n * scio_dtype_itemsize(put->value_dtype)) == 0);
    if (put->indices == NULL)
        return;
    CHECK(scio_cast(put->index_dtype, put->indices, SCIO_I64, columns, n, NULL) == SCIO_OK);
    CHECK(scio_cast(found->index_dtype, found->indices, SCIO_I64, found_columns, n, NULL) ==
          SCIO_OK);
    CHECK(memcmp(columns, found_columns, n * sizeof *columns) == 0);
    CHECK((uintptr_t)found->values % 8 == 0 && (uintptr_t)found->indices % 4 == 0);
}

/* The value stands at one of several places, so that vector loops and their tails both see it. */
static void
try_value(scio_dtype dtype, const value_case *c, size_t n_items, size_t place)
{
    double values[40];
    char stored[40 * 8];
    uint16_t columns[40];
    scio_row found = {0};
    scio_dtype expected = c->narrow;
    scio_compact *const compact = must_make(1, 1, 1 << 20);

    for (size_t i = 0; i < n_items; i++) {
        values[i] = i == place ? c->value : 1;
        columns[i] = (uint16_t)(i * 3);
    }
    CHECK(scio_cast(SCIO_F64, values, dtype, stored, n_items, NULL) == SCIO_OK);
    const scio_row row = {.indices = columns,
                          .index_dtype = SCIO_U16,
                          .values = stored,
                          .value_dtype = dtype,
                          .n_items = n_items};
    if (expected == SCIO_DTYPE_NONE || dtype == SCIO_F16 ||
        scio_dtype_itemsize(expected) >= scio_dtype_itemsize(dtype))
        expected = dtype;
    scio_compact_put(compact, 0, &row);
    CHECK(scio_compact_find(compact, 0, 0, &found) == SCIO_COMPACT_HELD);
    CHECK(found.value_dtype == expected);
    if (found.value_dtype != expected)
        printf("%g as %s came as %s\n", c->value, scio_dtype_name(dtype),
               scio_dtype_name(found.value_dtype));
    check_row(&row, &found, 0);
    scio_compact_release(compact);
}

TEST(values_of_every_dtype_come_back_and_are_narrow_where_all_fit)
{
    int n_tried = 0;

    for (size_t d = 0; d < sizeof DTYPES / sizeof *DTYPES; d++)
        for (size_t v = 0; v < sizeof VALUES / sizeof *VALUES; v++) {
            if (!can_hold(DTYPES[d], VALUES[v].value))
                continue;
            n_tried++;
            try_value(DTYPES[d], &VALUES[v], 1, 0);
            for (size_t place = 0; place < 40; place += 13)
                try_value(DTYPES[d], &VALUES[v], 40, place);
        }
    CHECK(n_tried > 90);
}

TEST(indices_of_every_dtype_come_back_and_are_narrow_where_all_fit)
{
    const scio_dtype dtypes[] = {SCIO_U16, SCIO_U32, SCIO_I32, SCIO_I64};
    const int64_t lasts[] = {0, 7, 65534, 65535, 65536, INT32_MAX};
    const uint8_t values[5] = {1, 2, 3, 4, 5};

    for (size_t d = 0; d < 4; d++)
        for (size_t l = 0; l < 6; l++) {
            const int64_t columns[5] = {0, 0, 1, 2, lasts[l]};
            char stored[5 * 8];
            scio_row found = {0};
            if (scio_cast(SCIO_I64, columns, dtypes[d], stored, 5, NULL) != SCIO_OK ||
                (dtypes[d] == SCIO_U16 && lasts[l] > 65535))
                continue;
            scio_compact *const compact = must_make(1, 1, 1 << 20);
            const scio_row row = {.indices = stored,
                                  .index_dtype = dtypes[d],
                                  .values = values,
                                  .value_dtype = SCIO_U8,
                                  .n_items = 5};
            scio_compact_put(compact, 0, &row);
            CHECK(scio_compact_find(compact, 0, 0, &found) == SCIO_COMPACT_HELD);
            CHECK(found.index_dtype == (lasts[l] > 65535 ? SCIO_U32 : SCIO_U16));
            check_row(&row, &found, 0);
            scio_compact_release(compact);
        }
}

/* ---- rows by number ---- */

/* Row `cell` of track `t`: every kind of length, some dense, some longer than a slab. */
typedef struct made_row {
    scio_row row;
    uint32_t columns[MAX_ITEMS];
    float values[MAX_ITEMS];
} made_row;

static void
make_row(made_row *made, int64_t cell, size_t t)
{
    const uint32_t kind = (uint32_t)(cell * 7 + (int64_t)t * 3) % 23;
    const size_t n = kind == 5    ? 0
                     : kind == 11 ? MAX_ITEMS
                     : kind == 17 ? 900
                                  : (size_t)(kind * 9 + 1);

    for (size_t i = 0; i < n; i++) {
        made->columns[i] = (uint32_t)(i * (kind % 4 == 1 ? 40 : 3));
        made->values[i] = (float)((cell + (int64_t)i * 5) % (kind % 3 == 0 ? 200 : 3000));
        if (kind % 5 == 4)
            made->values[i] /= 8;
    }
    made->row = (scio_row){.indices = kind % 6 == 2 ? NULL : made->columns,
                           .index_dtype = kind % 6 == 2 ? SCIO_DTYPE_NONE : SCIO_U32,
                           .values = made->values,
                           .value_dtype = SCIO_F32,
                           .n_items = n};
}

static void
put_cell(scio_compact *compact, int64_t cell)
{
    made_row *const made = calloc(3, sizeof *made);
    scio_row rows[3];

    if (made == NULL)
        abort();
    for (size_t t = 0; t < scio_compact_n_tracks(compact); t++) {
        make_row(&made[t], cell, t);
        rows[t] = made[t].row;
    }
    scio_compact_put(compact, cell, rows);
    free(made);
    CHECK(scio_compact_nbytes(compact) <= scio_compact_max_nbytes(compact));
}

/* False when the cell is not there. */
static bool
check_cell(const scio_compact *compact, int64_t cell)
{
    static made_row made;
    scio_row found = {0};

    if (scio_compact_find(compact, cell, 0, NULL) != SCIO_COMPACT_HELD)
        return false;
    for (size_t t = 0; t < scio_compact_n_tracks(compact); t++) {
        CHECK(scio_compact_find(compact, cell, t, &found) == SCIO_COMPACT_HELD);
        make_row(&made, cell, t);
        check_row(&made.row, &found, cell);
    }
    return true;
}

TEST(rows_of_any_length_and_several_tracks_come_back_in_any_order)
{
    scio_compact *const compact = must_make(200, 3, 64 << 20);
    int64_t out[200];

    CHECK(scio_compact_missing(compact, NULL, 0, out) == 200 && out[199] == 199);
    for (int64_t i = 0; i < 200; i++)
        put_cell(compact, i * 77 % 200);
    CHECK(scio_compact_missing(compact, NULL, 0, out) == 0);
    for (int64_t cell = 0; cell < 200; cell++) {
        scio_compact_prefetch_place(compact, cell);
        scio_compact_prefetch_row(compact, cell);
        CHECK(check_cell(compact, cell));
    }
    CHECK(!scio_compact_is_full(compact));
    scio_compact_release(compact);
}

TEST(the_first_row_put_for_a_cell_stays)
{
    scio_compact *const compact = must_make(4, 1, 1 << 20);
    const uint8_t values[2] = {3, 4};
    const scio_row other = {.values = values, .value_dtype = SCIO_U8, .n_items = 2};
    const int64_t asked[] = {3, 1, 0, 1};
    scio_row found = {0};
    int64_t out[4];

    put_cell(compact, 0);
    const uint64_t nbytes = scio_compact_nbytes(compact);
    scio_compact_put(compact, 0, &other);
    scio_compact_put_broken(compact, 0);
    CHECK(check_cell(compact, 0) && scio_compact_nbytes(compact) == nbytes);
    scio_compact_put_broken(compact, 1);
    scio_compact_put(compact, 1, &other);
    CHECK(scio_compact_find(compact, 1, 0, &found) == SCIO_COMPACT_BROKEN);
    CHECK(scio_compact_find(compact, 2, 0, &found) == SCIO_COMPACT_MISSING);
    CHECK(scio_compact_missing(compact, NULL, 0, out) == 2 && out[0] == 2 && out[1] == 3);
    CHECK(scio_compact_missing(compact, asked, 4, out) == 1 && out[0] == 3);
    CHECK(scio_compact_missing(compact, asked, 0, out) == 0); /* none of none */
    scio_compact *const same = scio_compact_retain(compact);
    scio_compact_release(compact);
    CHECK(check_cell(same, 0));
    scio_compact_release(same);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

/* ---- the limit ---- */

static bool
does_all_fit(int64_t n_cells, uint64_t max_nbytes, uint64_t seed)
{
    int64_t order[200];
    int64_t out[200];

    scio_compact *const compact = must_make(n_cells, 2, max_nbytes);
    for (int64_t i = 0; i < n_cells; i++)
        order[i] = i;
    if (seed > 0)
        scio_rng_shuffle_i64(seed, 1, order, (size_t)n_cells);
    for (int64_t i = 0; i < n_cells; i++)
        put_cell(compact, order[i]);
    const bool is_full = scio_compact_is_full(compact);
    CHECK(is_full == (scio_compact_missing(compact, NULL, 0, out) > 0));
    for (int64_t cell = 0; cell < n_cells; cell++)
        if (!check_cell(compact, cell))
            CHECK(is_full);
    scio_compact_release(compact);
    return !is_full;
}

TEST(whether_all_fit_does_not_depend_on_the_order)
{
    const int64_t n_cells[] = {9, 60, 200};

    for (size_t n = 0; n < 3; n++) {
        uint64_t low = (uint64_t)n_cells[n] * 16 + SLAB + 4096, high = 64 << 20;
        CHECK(does_all_fit(n_cells[n], high, 0) && !does_all_fit(n_cells[n], low, 0));
        while (high - low > 1) { /* the least limit at which all fit in file order */
            const uint64_t middle = low + (high - low) / 2;
            if (does_all_fit(n_cells[n], middle, 0))
                high = middle;
            else
                low = middle;
        }
        for (uint64_t seed = 1; seed < 8; seed++) {
            CHECK(does_all_fit(n_cells[n], high, seed));
            CHECK(!does_all_fit(n_cells[n], low, seed));
        }
    }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(a_full_store_keeps_what_it_has_and_takes_no_more)
{
    scio_compact *const compact = must_make(200, 1, 200 * 8 + 2 * SLAB);
    int64_t n_held = 0;

    for (int64_t cell = 0; cell < 200; cell++)
        put_cell(compact, cell);
    CHECK(scio_compact_is_full(compact));
    const uint64_t nbytes = scio_compact_nbytes(compact);
    for (int64_t cell = 0; cell < 200; cell++) {
        n_held += check_cell(compact, cell);
        put_cell(compact, cell);
    }
    CHECK(n_held > 10 && n_held < 200 && scio_compact_nbytes(compact) == nbytes);
    scio_compact_put_broken(compact, 199);
    CHECK(scio_compact_find(compact, 199, 0, NULL) == SCIO_COMPACT_BROKEN);
    scio_compact_release(compact);
}

TEST(bounds_hold_for_rows_of_any_kind)
{
    for (int dense = 0; dense < 2; dense++)
        for (int wide = 0; wide < 2; wide++)
            for (size_t n_items = 0; n_items < MAX_ITEMS; n_items = n_items * 3 + 1) {
                const uint64_t least = scio_compact_least_nbytes(300, 300 * n_items, dense);
                const uint64_t most = scio_compact_most_nbytes(300, 300 * n_items, dense, 4) +
                                      SCIO_COMPACT_SPARE_NBYTES;
                scio_compact *const compact = must_make(300, 1, most);
                made_row *const made = calloc(1, sizeof *made);
                if (made == NULL)
                    abort();
                for (size_t i = 0; i < n_items; i++) {
                    made->columns[i] = (uint32_t)(i * (wide ? 100000 : 2));
                    made->values[i] = wide ? 0.5f : 1;
                }
                made->row = (scio_row){.indices = dense ? NULL : made->columns,
                                       .index_dtype = dense ? SCIO_DTYPE_NONE : SCIO_U32,
                                       .values = made->values,
                                       .value_dtype = SCIO_F32,
                                       .n_items = n_items};
                for (int64_t cell = 0; cell < 300; cell++)
                    scio_compact_put(compact, cell, &made->row);
                CHECK(!scio_compact_is_full(compact));
                CHECK(least <= scio_compact_nbytes(compact));
                CHECK(scio_compact_nbytes(compact) <= most);
                free(made);
                scio_compact_release(compact);
            }
}

/* ---- threads ---- */

typedef struct shared_work {
    scio_compact *compact;
    const int64_t *order;
    int64_t n_cells;
} shared_work;

static scio_status
put_and_find(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const shared_work *const work = context;
    const int64_t cell = work->order[i_item % (size_t)work->n_cells];
    const int64_t other = work->order[(i_item * 7 + 3) % (size_t)work->n_cells];
    scio_row found[2];

    (void)slot;
    (void)err;
    put_cell(work->compact, cell);
    for (size_t t = 0; t < 2; t++)
        if (scio_compact_find(work->compact, other, t, &found[t]) == SCIO_COMPACT_HELD) {
            /* read all of it: a race would show here */
            uint64_t sum = 0;
            const size_t nbytes = found[t].n_items * scio_dtype_itemsize(found[t].value_dtype);
            for (size_t i = 0; i < nbytes; i++)
                sum += ((const uint8_t *)found[t].values)[i];
            if (sum == UINT64_MAX)
                return SCIO_EBUG;
        }
    return SCIO_OK;
}

TEST(any_number_of_threads_put_and_find)
{
    int64_t order[300], out[300];
    scio_pool *pool = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_pool_new(6, &pool, &err) == SCIO_OK);
    for (int64_t i = 0; i < 300; i++)
        order[i] = i;
    for (uint64_t round = 0; round < 6; round++) {
        const bool is_tight = round % 2 == 1;
        scio_compact *const compact = must_make(300, 2, is_tight ? 1 << 20 : 64 << 20);
        shared_work work = {compact, order, 300};
        scio_rng_shuffle_i64(round, 1, order, 300);
        CHECK(scio_parallel_for(pool, 6, 900, put_and_find, &work, NULL, &err) == SCIO_OK);
        CHECK(scio_compact_is_full(compact) == is_tight);
        CHECK((scio_compact_missing(compact, NULL, 0, out) > 0) == is_tight);
        for (int64_t cell = 0; cell < 300; cell++)
            CHECK(check_cell(compact, cell) || is_tight);
        CHECK(scio_compact_nbytes(compact) <= scio_compact_max_nbytes(compact));
        scio_compact_release(compact);
    }
    scio_pool_free(pool);
}

/* ---- failures ---- */

TEST(arguments_outside_their_range_are_named)
{
    scio_compact *compact = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_compact_new(-1, 1, 1 << 30, &compact, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "-1 cells and 1 tracks");
    CHECK(scio_compact_new(5, 0, 1 << 30, &compact, &err) == SCIO_EINVAL);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_compact_new(1000, 2, 16000, &compact, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "allowed are 16000");
    const int64_t huge[] = {INT64_MAX, INT64_MAX / 8 + 1, INT64_C(1) << 61, INT64_C(1) << 60};
    for (size_t i = 0; i < 4; i++) { /* the table's bytes do not fit a number */
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_compact_new(huge[i], 8, UINT64_MAX, &compact, &err) == SCIO_EINVAL);
        CHECK(scio_compact_new(huge[i], 8, 1 << 30, &compact, &err) == SCIO_EINVAL);
    }
    CHECK(compact == NULL);
    scio_compact_release(NULL);
    CHECK(scio_compact_retain(NULL) == NULL);
    CHECK(scio_compact_least_nbytes(UINT64_C(1) << 60, UINT64_C(1) << 63, false) > 1u << 30);
    CHECK(scio_compact_most_nbytes(UINT64_C(1) << 60, UINT64_C(1) << 61, true, 8) > 1u << 30);
    compact = must_make(0, 1, 1 << 20);
    int64_t out[1];
    CHECK(scio_compact_missing(compact, NULL, 0, out) == 0);
    scio_compact_release(compact);
}

TEST(a_row_longer_than_its_count_can_say_makes_the_store_full)
{
    scio_compact *const compact = must_make(2, 1, UINT64_C(1) << 50);
    const uint8_t value = 1;
    const scio_row row = {.values = &value, .value_dtype = SCIO_U8, .n_items = SIZE_MAX / 16};

    scio_compact_put(compact, 0, &row);
    CHECK(scio_compact_is_full(compact));
    CHECK(scio_compact_find(compact, 0, 0, NULL) == SCIO_COMPACT_MISSING);
    scio_compact_release(compact);
}

TEST(every_allocation_may_fail)
{
    scio_status status = SCIO_ENOMEM;
    size_t k = 0;

    for (; status != SCIO_OK && k < 100; k++) {
        scio_compact *compact = NULL;
        scio_error err = SCIO_ERROR_INIT;
        scio_mem_fail_at(k);
        status = scio_compact_new(100, 2, 1 << 20, &compact, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        scio_compact_release(compact);
    }
    CHECK(k > 2 && k < 100);
    bool is_full = true;
    for (k = 0; is_full && k < 1000; k++) { /* inside put: the store is full, no more */
        scio_compact *const compact = must_make(100, 2, 32 << 20);
        scio_mem_fail_at(k);
        for (int64_t cell = 0; cell < 100; cell++)
            put_cell(compact, cell);
        scio_mem_fail_at(SIZE_MAX);
        is_full = scio_compact_is_full(compact);
        for (int64_t cell = 0; cell < 100; cell++)
            CHECK(check_cell(compact, cell) || is_full);
        put_cell(compact, 5); /* still works, and still says no */
        scio_compact_release(compact);
    }
    CHECK(k > 5 && k < 1000);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}
