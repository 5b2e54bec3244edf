/* Rows for the tests of collation: made plain, then stored in many presentations. */
#ifndef SCIO_TESTS_C_COLLATE_ROWS_H
#define SCIO_TESTS_C_COLLATE_ROWS_H

#include "test.h"

#include "base/rng.h"
#include "load/collate.h"

#include <stdint.h>

enum { N_COLS = 160, N_IDS = 220, FIRST_ID = 4, MOST_CELLS = 40, MOST_ITEMS = 400 };

static inline uint64_t
random_at(uint64_t stream, size_t i)
{
    return scio_rng_u64(24, stream, i);
}

/* --- rows in the plain form: (column, value) in stored order --- */

typedef struct plain_row {
    size_t n_items;
    int64_t columns[MOST_ITEMS];
    double values[MOST_ITEMS];
} plain_row;

typedef enum value_kind {
    SMALL_COUNTS,  /* 0 … 9: fit every dtype */
    EIGHTHS,       /* multiples of 1/8, some negative: their sums are exact in double */
    MEDIUM_COUNTS, /* up to 2^31: float32 holds few of them */
    LARGE_COUNTS   /* up to 2^40: float32 does not hold them */
} value_kind;

static inline double
value_of(value_kind kind, uint64_t r)
{
    switch (kind) {
    case SMALL_COUNTS:
        return (double)(r % 10);
    case EIGHTHS:
        return ((double)(r % 100) - 20.0) / 8.0;
    case MEDIUM_COUNTS:
        return (double)(r % (UINT64_C(1) << 31));
    default:
        return (double)(r % (UINT64_C(1) << 40));
    }
}

/* Distinct ascending columns; the first row is empty, the second full. */
static inline void
make_rows(plain_row *rows, size_t n_cells, value_kind kind, uint64_t stream)
{
    for (size_t r = 0; r < n_cells; r++) {
        const uint64_t share = r == 0 ? 0 : r == 1 ? 100 : random_at(stream, r) % 100;

        rows[r].n_items = 0;
        for (int64_t c = 0; c < N_COLS; c++) {
            const uint64_t x = random_at(stream + 1, r * N_COLS + (size_t)c);

            if (x % 100 >= share)
                continue;
            rows[r].columns[rows[r].n_items] = c;
            rows[r].values[rows[r].n_items++] = value_of(kind, x >> 8);
        }
    }
}

/* --- the same rows in many presentations --- */

typedef struct presentation {
    const char *name;
    scio_dtype index_dtype, value_dtype; /* index NONE: dense */
    bool is_shuffled;                    /* entries in random order */
    bool is_split;                       /* one entry in three twice, as two parts */
    bool has_zeros;                      /* stored zeros in between */
    bool is_unaligned;
    bool is_map_declared_unordered;
    bool is_fast;
} presentation;

/* Arrays of a batch's rows; each row's end is the end of its allocation, so that ASan sees
 * overreads. */
typedef struct stored_rows {
    scio_row rows[MOST_CELLS];
    char *blocks[2 * MOST_CELLS];
} stored_rows;

static inline void
stored_free(stored_rows *stored)
{
    for (size_t i = 0; i < 2 * MOST_CELLS; i++)
        free(stored->blocks[i]);
    memset(stored, 0, sizeof *stored);
}

static inline void
swap_items(plain_row *row, size_t i, size_t j)
{
    const int64_t column = row->columns[i];
    const double value = row->values[i];

    row->columns[i] = row->columns[j];
    row->values[i] = row->values[j];
    row->columns[j] = column;
    row->values[j] = value;
}

static inline plain_row
presented(const presentation *as, const plain_row *row, uint64_t stream)
{
    plain_row out = {0};

    for (size_t i = 0; i < row->n_items; i++) {
        const uint64_t r = random_at(stream, i);
        const double part = as->is_split && r % 3 == 0 && row->values[i] > 1 ? 1.0 : 0.0;

        out.columns[out.n_items] = row->columns[i];
        out.values[out.n_items++] = row->values[i] - part;
        if (part == 0.0)
            continue;
        out.columns[out.n_items] = row->columns[i];
        out.values[out.n_items++] = part;
    }
    for (size_t i = 0; as->has_zeros && i < 20 && out.n_items < MOST_ITEMS; i++) {
        out.columns[out.n_items] = (int64_t)(random_at(stream + 1, i) % N_COLS);
        out.values[out.n_items++] = 0.0;
    }
    for (size_t i = out.n_items; as->is_shuffled && i > 1; i--)
        swap_items(&out, i - 1, random_at(stream + 2, i) % i);
    return out;
}

static inline char *
copy_in(scio_dtype from, const void *items, scio_dtype to, size_t n_items, bool is_unaligned,
        char **block_out)
{
    const size_t nbytes = n_items * scio_dtype_itemsize(to);
    char *const block = malloc(nbytes + 1), *const aligned = malloc(nbytes + 1);
    char *const at = is_unaligned ? block + 1 : block;

    CHECK(scio_cast(from, items, to, aligned, n_items, NULL) == SCIO_OK);
    memcpy(at, aligned, nbytes);
    free(aligned);
    *block_out = block;
    return at;
}

static inline void
store_rows(const presentation *as, const plain_row *plain, size_t n_cells, const int32_t *map,
           bool is_map_increasing, stored_rows *out)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n_cells; i++) {
        const plain_row row = presented(as, &plain[i], 1000 + i);
        double dense[N_COLS] = {0};
        const bool is_dense = as->index_dtype == SCIO_DTYPE_NONE;

        for (size_t j = 0; j < row.n_items; j++)
            dense[row.columns[j]] += row.values[j];
        out->rows[i] = (scio_row){
            .indices = is_dense ? NULL
                                : copy_in(SCIO_I64, row.columns, as->index_dtype, row.n_items,
                                          as->is_unaligned, &out->blocks[2 * i]),
            .index_dtype = as->index_dtype,
            .values =
                copy_in(SCIO_F64, is_dense ? dense : row.values, as->value_dtype,
                        is_dense ? N_COLS : row.n_items, as->is_unaligned, &out->blocks[2 * i + 1]),
            .value_dtype = as->value_dtype,
            .n_items = is_dense ? N_COLS : row.n_items,
            .map = map,
            .is_map_increasing = is_map_increasing && !as->is_map_declared_unordered,
            .cell = (int64_t)(1000 + 3 * i)};
    }
}

enum { N_MAP_KINDS = 4, IDENTITY_MAP = 3 };

/* Map kinds: 0 keeps the order, 1 keeps it and leaves out a third, 2 is any order, 3 adds FIRST_ID
 * to the column.  True where the order is kept. */
static inline bool
make_map(int kind, int32_t *map)
{
    const bool has_gaps = kind == 1 || kind == 2;

    for (int32_t c = 0; c < N_COLS; c++)
        map[c] = has_gaps && c % 3 == 1 ? -1 : FIRST_ID + c + (kind == IDENTITY_MAP ? 0 : c / 5);
    for (size_t c = N_COLS; kind == 2 && c > 1; c--) {
        const size_t other = random_at(50, c) % c;
        const int32_t kept = map[c - 1];

        map[c - 1] = map[other];
        map[other] = kept;
    }
    return kind != 2;
}

/* The rows' map adds FIRST_ID to the column, and is not to be looked at. */
static inline void
declare_identity(stored_rows *stored, size_t n_cells)
{
    for (size_t i = 0; i < n_cells; i++) {
        stored->rows[i].map = NULL;
        stored->rows[i].is_map_identity = true;
        stored->rows[i].map_first = FIRST_ID;
        stored->rows[i].is_map_increasing = false; /* follows from the other */
    }
}

#endif
