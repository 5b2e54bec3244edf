/* Conversions of CSR, against loops that take one entry at a time. */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/stats.h"
#include "sparse/csr.h"

#include <math.h>
#include <stdint.h>

enum { N_ROWS = 37, N_COLS = 120, MOST = N_ROWS * N_COLS };

static const scio_dtype index_dtypes[] = {SCIO_I8, SCIO_I16, SCIO_I32, SCIO_I64,
                                          SCIO_U8, SCIO_U16, SCIO_U32, SCIO_U64};
enum { N_INDEX_DTYPES = sizeof index_dtypes / sizeof *index_dtypes };

static uint64_t
random_at(uint64_t stream, size_t i)
{
    return scio_rng_u64(23, stream, i);
}

/* A matrix whose columns are in `columns` too; row 5 is empty, one row is longer than a stretch. */
typedef struct matrix {
    int64_t indptr[N_ROWS + 1];
    int64_t columns[MOST];
    uint64_t indices[MOST], data[MOST];
    scio_csr_view view;
} matrix;

/* Distinct columns in random order unless has_duplicates. */
static void
make_matrix(matrix *m, scio_dtype index_dtype, scio_dtype data_dtype, bool has_duplicates)
{
    double values[MOST];
    size_t nnz = 0;

    for (size_t r = 0; r < N_ROWS; r++) {
        size_t n_items = r == 5 ? 0 : r == 7 && has_duplicates ? 300 : random_at(1, r) % N_COLS;

        m->indptr[r] = (int64_t)nnz;
        for (size_t i = 0; i < n_items; i++, nnz++) {
            m->columns[nnz] = has_duplicates ? (int64_t)(random_at(2, nnz) % N_COLS)
                                             : (int64_t)((i * 77 + r) % N_COLS);
            values[nnz] = (double)(random_at(3, nnz) % 4);
        }
    }
    m->indptr[N_ROWS] = (int64_t)nnz;
    CHECK(scio_cast(SCIO_I64, m->columns, index_dtype, m->indices, nnz, NULL) == SCIO_OK);
    CHECK(scio_cast(SCIO_F64, values, data_dtype, m->data, nnz, NULL) == SCIO_OK);
    m->view = (scio_csr_view){N_ROWS,     N_COLS,      (int64_t)nnz, m->indptr,
                              m->indices, index_dtype, m->data,      data_dtype};
}

/* --- transpose --- */

static void
check_transpose(const matrix *m)
{
    const size_t itemsize = scio_dtype_itemsize(m->view.data_dtype);
    scio_csr out;
    const int64_t *indptr;
    const int32_t *rows;
    size_t at = 0;

    CHECK(scio_csr_transpose(&m->view, &out, NULL) == SCIO_OK);
    CHECK(out.n_rows == N_COLS && out.n_cols == N_ROWS && out.nnz == m->view.nnz);
    CHECK(out.index_dtype == SCIO_I32 && out.data_dtype == m->view.data_dtype);
    indptr = scio_buf_data(out.indptr);
    rows = scio_buf_data(out.indices);
    for (int64_t c = 0; c < N_COLS; c++) {
        CHECK(indptr[c] == (int64_t)at);
        for (int64_t r = 0; r < N_ROWS; r++) {
            for (size_t i = (size_t)m->indptr[r]; i < (size_t)m->indptr[r + 1]; i++) {
                if (m->columns[i] != c)
                    continue;
                CHECK(rows[at] == r);
                CHECK(memcmp((const char *)scio_buf_data(out.data) + at * itemsize,
                             (const char *)m->data + i * itemsize, itemsize) == 0);
                at++;
            }
        }
    }
    CHECK(indptr[N_COLS] == (int64_t)at);
    scio_csr_clear(&out);
}

TEST(transpose_is_stable_for_every_pair_of_dtypes)
{
    static matrix m;

    for (int i = 0; i < N_INDEX_DTYPES; i++) {
        for (int d = 1; d < SCIO_N_DTYPES; d++) {
            make_matrix(&m, index_dtypes[i], (scio_dtype)d, (i + d) % 2 == 0);
            check_transpose(&m);
        }
    }
}

TEST(transposing_twice_sorts_the_rows_and_keeps_the_rest)
{
    static matrix m;
    scio_csr once, twice;
    scio_csr_facts facts = {false, true};

    make_matrix(&m, SCIO_U16, SCIO_F32, false);
    CHECK(scio_csr_transpose(&m.view, &once, NULL) == SCIO_OK);
    const scio_csr_view columns = scio_csr_as_view(&once);
    CHECK(scio_csr_transpose(&columns, &twice, NULL) == SCIO_OK);
    const scio_csr_view rows = scio_csr_as_view(&twice);
    CHECK(scio_csr_validate(&rows, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    CHECK(facts.is_sorted && !facts.has_duplicates);
    CHECK(memcmp(rows.indptr, m.indptr, sizeof m.indptr) == 0);
    scio_csr_clear(&once);
    scio_csr_clear(&twice);
}

TEST(transpose_takes_the_structure_alone_and_matrices_of_nothing)
{
    static matrix m;
    const int64_t zeros[3] = {0, 0, 0};
    const scio_csr_view empty = {2, 3, 0, zeros, NULL, SCIO_I32, NULL, SCIO_F32};
    const scio_csr_view none = {0, 0, 0, zeros, NULL, SCIO_I32, NULL, SCIO_F32};
    scio_csr out;

    make_matrix(&m, SCIO_I32, SCIO_F32, false);
    m.view.data = NULL;
    CHECK(scio_csr_transpose(&m.view, &out, NULL) == SCIO_OK);
    CHECK(out.data == NULL && out.nnz == m.view.nnz);
    scio_csr_clear(&out);
    CHECK(scio_csr_transpose(&empty, &out, NULL) == SCIO_OK);
    CHECK(out.n_rows == 3 && out.n_cols == 2 && ((int64_t *)scio_buf_data(out.indptr))[3] == 0);
    scio_csr_clear(&out);
    CHECK(scio_csr_transpose(&none, &out, NULL) == SCIO_OK);
    scio_csr_clear(&out);
}

/* --- to dense --- */

/* The sum of the entries at one place, as a double; booleans are joined. */
static double
plain_at(const matrix *m, int64_t row, int64_t column)
{
    double sum = 0;

    for (int64_t i = m->indptr[row]; i < m->indptr[row + 1]; i++) {
        double value = 0;
        const char *const at =
            (const char *)m->data + (size_t)i * scio_dtype_itemsize(m->view.data_dtype);

        CHECK(scio_cast(m->view.data_dtype, at, SCIO_F64, &value, 1, NULL) == SCIO_OK);
        if (m->columns[i] == column)
            sum += value;
    }
    return m->view.data_dtype == SCIO_BOOL ? sum != 0 : sum;
}

TEST(to_dense_sums_duplicates_in_every_dtype)
{
    static matrix m;
    static uint64_t dense[MOST];
    static double values[MOST];

    for (int d = 1; d < SCIO_N_DTYPES; d++) {
        const size_t nbytes = MOST * scio_dtype_itemsize((scio_dtype)d);

        make_matrix(&m, index_dtypes[d % N_INDEX_DTYPES], (scio_dtype)d, true);
        memset(dense, 0xAA, sizeof dense);
        CHECK(scio_csr_to_dense(&m.view, dense, nbytes, NULL) == SCIO_OK);
        CHECK(scio_cast((scio_dtype)d, dense, SCIO_F64, values, MOST, NULL) == SCIO_OK);
        for (size_t i = 0; d == SCIO_BOOL && i < MOST; i++)
            CHECK(((const uint8_t *)dense)[i] <= 1);
        for (int64_t r = 0; r < N_ROWS; r++)
            for (int64_t c = 0; c < N_COLS; c++)
                CHECK(values[r * N_COLS + c] == plain_at(&m, r, c));
    }
}

TEST(to_dense_keeps_the_bits_of_a_single_entry)
{
    const int64_t indptr[] = {0, 4};
    const uint8_t indices[] = {3, 1, 0, 2};
    const uint16_t halves[] = {0x8000, 0x7E01, 0xFC00, 0x0001}; /* -0, NaN, -inf, least subnormal */
    const scio_csr_view csr = {1, 4, 4, indptr, indices, SCIO_U8, halves, SCIO_F16};
    uint16_t dense[4];

    CHECK(scio_csr_to_dense(&csr, dense, sizeof dense, NULL) == SCIO_OK);
    CHECK(dense[3] == 0x8000 && dense[1] == 0x7E01 && dense[0] == 0xFC00 && dense[2] == 0x0001);
}

TEST(to_dense_wraps_integers_around_as_arrays_do)
{
    const int64_t indptr[] = {0, 2};
    const int32_t indices[] = {0, 0};
    const int8_t bytes[] = {127, 1};
    const int32_t words[] = {INT32_MAX, 1};
    const int64_t longs[] = {INT64_MIN, -1};
    scio_csr_view csr = {1, 1, 2, indptr, indices, SCIO_I32, bytes, SCIO_I8};
    int8_t byte;
    int32_t word;
    int64_t l;

    CHECK(scio_csr_to_dense(&csr, &byte, 1, NULL) == SCIO_OK && byte == -128);
    csr.data = words;
    csr.data_dtype = SCIO_I32;
    CHECK(scio_csr_to_dense(&csr, &word, 4, NULL) == SCIO_OK && word == INT32_MIN);
    csr.data = longs;
    csr.data_dtype = SCIO_I64;
    CHECK(scio_csr_to_dense(&csr, &l, 8, NULL) == SCIO_OK && l == INT64_MAX);
}

TEST(to_dense_wants_the_exact_number_of_bytes)
{
    static matrix m;
    static float dense[MOST + 1];
    scio_error err = SCIO_ERROR_INIT;

    make_matrix(&m, SCIO_I32, SCIO_F32, false);
    CHECK(scio_csr_to_dense(&m.view, dense, sizeof dense, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "17764 bytes for a dense matrix of 37 x 120 values of 4 bytes");
    CHECK(scio_csr_to_dense(&m.view, dense, MOST * 4 - 1, NULL) == SCIO_EINVAL);
    m.view.n_rows = m.view.n_cols = INT64_C(1) << 40; /* the product overflows */
    CHECK(scio_csr_to_dense(&m.view, dense, 0, NULL) == SCIO_EINVAL);
    m.view.data_dtype = SCIO_DTYPE_NONE;
    CHECK(scio_csr_to_dense(&m.view, dense, 0, NULL) == SCIO_ETYPE);
    m.view.n_rows = 0;
    m.view.data_dtype = SCIO_F32;
    CHECK(scio_csr_to_dense(&m.view, NULL, 0, NULL) == SCIO_OK);
}

/* --- from dense --- */

TEST(from_dense_and_back_is_the_same_in_every_dtype)
{
    static uint64_t dense[MOST], back[MOST];
    static double values[MOST];

    for (size_t i = 0; i < MOST; i++) /* row 3 is full, row 4 empty, the rest a third full */
        values[i] = i / N_COLS == 3 ? 1.0
                    : i / N_COLS == 4
                        ? 0.0
                        : (double)(random_at(9, i) % 3 == 0 ? random_at(10, i) % 100 : 0);
    for (int d = 1; d < SCIO_N_DTYPES; d++) {
        const size_t nbytes = MOST * scio_dtype_itemsize((scio_dtype)d);
        scio_csr out;
        scio_csr_facts facts = {false, true};
        int64_t nnz = 0;

        CHECK(scio_cast(SCIO_F64, values, (scio_dtype)d, dense, MOST, NULL) == SCIO_OK);
        for (size_t i = 0; i < MOST; i++)
            nnz += values[i] != 0;
        CHECK(scio_csr_from_dense(dense, (scio_dtype)d, N_ROWS, N_COLS, &out, NULL) == SCIO_OK);
        CHECK(out.nnz == nnz && out.index_dtype == SCIO_I32 && out.data_dtype == (scio_dtype)d);
        CHECK(scio_buf_nbytes(out.data) == (size_t)nnz * scio_dtype_itemsize((scio_dtype)d));
        const scio_csr_view view = scio_csr_as_view(&out);
        CHECK(scio_csr_validate(&view, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
        CHECK(facts.is_sorted && !facts.has_duplicates);
        CHECK(scio_csr_to_dense(&view, back, nbytes, NULL) == SCIO_OK);
        CHECK(memcmp(back, dense, nbytes) == 0);
        scio_csr_clear(&out);
    }
}

TEST(from_dense_drops_zeros_of_both_signs_and_keeps_nan)
{
    const float dense[2][3] = {{0.0f, -0.0f, NAN}, {-INFINITY, 0.0f, 1e-45f}};
    const uint16_t halves[4] = {0x8000, 0x0000, 0x0001, 0x7E00};
    scio_csr out;
    const int32_t *columns;

    CHECK(scio_csr_from_dense(dense, SCIO_F32, 2, 3, &out, NULL) == SCIO_OK);
    CHECK(out.nnz == 3);
    columns = scio_buf_data(out.indices);
    CHECK(columns[0] == 2 && columns[1] == 0 && columns[2] == 2);
    scio_csr_clear(&out);
    CHECK(scio_csr_from_dense(halves, SCIO_F16, 1, 4, &out, NULL) == SCIO_OK);
    columns = scio_buf_data(out.indices);
    CHECK(out.nnz == 2 && columns[0] == 2 && columns[1] == 3);
    scio_csr_clear(&out);
}

TEST(from_dense_takes_matrices_of_nothing_and_refuses_wrong_arguments)
{
    const float dense[1] = {1};
    scio_csr out;

    CHECK(scio_csr_from_dense(dense, SCIO_F32, 0, 7, &out, NULL) == SCIO_OK);
    CHECK(out.nnz == 0 && out.n_cols == 7);
    scio_csr_clear(&out);
    CHECK(scio_csr_from_dense(dense, SCIO_F32, 3, 0, &out, NULL) == SCIO_OK);
    CHECK(out.nnz == 0 && ((int64_t *)scio_buf_data(out.indptr))[3] == 0);
    scio_csr_clear(&out);
    CHECK(scio_csr_from_dense(dense, SCIO_DTYPE_NONE, 1, 1, &out, NULL) == SCIO_EINVAL);
    CHECK(scio_csr_from_dense(dense, SCIO_F32, -1, 1, &out, NULL) == SCIO_EINVAL);
    CHECK(scio_csr_from_dense(dense, SCIO_F32, 1, -1, &out, NULL) == SCIO_EINVAL);
    CHECK(scio_csr_from_dense(dense, SCIO_F32, INT64_C(1) << 40, INT64_C(1) << 40, &out, NULL) ==
          SCIO_EINVAL);
}

/* --- memory --- */

static scio_status
convert_all(const matrix *m, const float *dense)
{
    scio_csr transposed, packed;
    scio_status status = scio_csr_transpose(&m->view, &transposed, NULL);

    if (status != SCIO_OK)
        return status;
    scio_csr_clear(&transposed);
    status = scio_csr_from_dense(dense, SCIO_F32, 2, 3, &packed, NULL);
    if (status == SCIO_OK)
        scio_csr_clear(&packed);
    return status;
}

TEST(every_allocation_may_fail)
{
    static matrix m;
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    const float dense[6] = {1, 0, 2, 0, 0, 3};
    scio_status status;
    size_t k = 0;

    make_matrix(&m, SCIO_I32, SCIO_F32, false);
    do {
        scio_mem_fail_at(k++);
        status = convert_all(&m, dense);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
    } while (status != SCIO_OK);
    CHECK(k > 12); /* two a buffer, six buffers, the room of transpose */
}
