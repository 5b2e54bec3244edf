/* The row gather, and what owns the arrays. */
#include "test.h"

#include "base/mem.h"
#include "base/stats.h"
#include "sparse/csr.h"

#include <stdint.h>

/* 4 rows, 5 columns; row 2 is empty. */
static const int64_t indptr[] = {0, 2, 3, 3, 6};
static const int32_t indices[] = {0, 4, 2, 1, 2, 3};
static const float data[] = {1, 2, 3, 4, 5, 6};
static const scio_csr_view csr = {4, 5, 6, indptr, indices, SCIO_I32, data, SCIO_F32};

TEST(rows_come_in_the_order_asked_for_with_repeats)
{
    const int64_t rows[] = {3, 2, 0, 3};
    const int64_t want_indptr[] = {0, 3, 3, 5, 8};
    const int32_t want_indices[] = {1, 2, 3, 0, 4, 1, 2, 3};
    const float want_data[] = {4, 5, 6, 1, 2, 4, 5, 6};
    scio_csr out;

    CHECK(scio_csr_take_rows(&csr, rows, 4, &out, NULL) == SCIO_OK);
    CHECK(out.n_rows == 4 && out.n_cols == 5 && out.nnz == 8);
    CHECK(out.index_dtype == SCIO_I32 && out.data_dtype == SCIO_F32);
    CHECK(scio_buf_nbytes(out.indptr) == sizeof want_indptr);
    CHECK(scio_buf_nbytes(out.indices) == sizeof want_indices);
    CHECK(memcmp(scio_buf_data(out.indptr), want_indptr, sizeof want_indptr) == 0);
    CHECK(memcmp(scio_buf_data(out.indices), want_indices, sizeof want_indices) == 0);
    CHECK(memcmp(scio_buf_data(out.data), want_data, sizeof want_data) == 0);
    scio_csr_clear(&out);
    CHECK(out.indptr == NULL && out.nnz == 0);
}

TEST(every_pair_of_dtypes_is_gathered_byte_by_byte)
{
    const int64_t rows[] = {3, 0};
    unsigned char raw_indices[48], raw_data[48];

    for (int i = 0; i < 48; i++) {
        raw_indices[i] = (unsigned char)(i * 3);
        raw_data[i] = (unsigned char)(i * 5);
    }
    for (int i = 1; i < SCIO_N_DTYPES; i++) {
        for (int d = 1; d < SCIO_N_DTYPES; d++) {
            const size_t a = scio_dtype_itemsize((scio_dtype)i);
            const size_t b = scio_dtype_itemsize((scio_dtype)d);
            const scio_csr_view view = {
                4, 5, 6, indptr, raw_indices, (scio_dtype)i, raw_data, (scio_dtype)d};
            scio_csr out;

            CHECK(scio_csr_take_rows(&view, rows, 2, &out, NULL) == SCIO_OK);
            CHECK(memcmp(scio_buf_data(out.indices), raw_indices + 3 * a, 3 * a) == 0);
            CHECK(memcmp((char *)scio_buf_data(out.indices) + 3 * a, raw_indices, 2 * a) == 0);
            CHECK(memcmp(scio_buf_data(out.data), raw_data + 3 * b, 3 * b) == 0);
            CHECK(memcmp((char *)scio_buf_data(out.data) + 3 * b, raw_data, 2 * b) == 0);
            scio_csr_clear(&out);
        }
    }
}

TEST(no_rows_give_an_empty_matrix)
{
    scio_csr out;

    CHECK(scio_csr_take_rows(&csr, NULL, 0, &out, NULL) == SCIO_OK);
    CHECK(out.n_rows == 0 && out.n_cols == 5 && out.nnz == 0);
    CHECK(((const int64_t *)scio_buf_data(out.indptr))[0] == 0);
    scio_csr_clear(&out);
}

TEST(the_structure_alone_is_gathered_when_there_are_no_data)
{
    const int64_t rows[] = {1, 3};
    scio_csr_view view = csr;
    scio_csr out;

    view.data = NULL;
    CHECK(scio_csr_take_rows(&view, rows, 2, &out, NULL) == SCIO_OK);
    CHECK(out.nnz == 4 && out.data == NULL && scio_buf_nbytes(out.indices) == 16);
    scio_csr_clear(&out);
}

TEST(a_row_that_does_not_exist_is_named)
{
    const int64_t above[] = {0, 3, 4, 9}, below[] = {-1};
    scio_csr out = {.nnz = 77};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_csr_take_rows(&csr, above, 4, &out, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "rows[2] is 4, not in [0, 4)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_csr_take_rows(&csr, below, 1, &out, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "rows[0] is -1, not in [0, 4)");
    CHECK(out.nnz == 77); /* not touched */
}

TEST(more_entries_than_memory_can_hold_are_refused_before_anything_is_copied)
{
    /* rows that claim 2^62 entries each; nothing of them is read */
    const int64_t long_indptr[] = {0, INT64_C(1) << 62};
    const int64_t rows[] = {0, 0};
    const scio_csr_view view = {1,        5,    INT64_C(1) << 62, long_indptr, indices,
                                SCIO_I32, data, SCIO_F32};
    scio_csr out;

    CHECK(scio_csr_take_rows(&view, rows, 2, &out, NULL) == SCIO_ENOMEM);
    CHECK(scio_csr_take_rows(&view, rows, 1, &out, NULL) == SCIO_ENOMEM);
}

TEST(a_view_borrows)
{
    const int64_t rows[] = {0};
    scio_csr out;
    scio_csr_view view;

    CHECK(scio_csr_take_rows(&csr, rows, 1, &out, NULL) == SCIO_OK);
    view = scio_csr_as_view(&out);
    CHECK(view.n_rows == 1 && view.n_cols == 5 && view.nnz == 2);
    CHECK(view.indptr == scio_buf_data(out.indptr) && view.data == scio_buf_data(out.data));
    CHECK(scio_buf_n_refs(out.data) == 1);
    CHECK(scio_csr_validate(&view, SCIO_CHECK_FULL, NULL, NULL) == SCIO_OK);
    scio_csr_clear(&out);
}

TEST(indices_are_as_narrow_as_columns_and_entries_allow)
{
    CHECK(scio_csr_index_width(INT32_MAX, INT32_MAX) == SCIO_I32);
    CHECK(scio_csr_index_width((int64_t)INT32_MAX + 1, 0) == SCIO_I64);
    CHECK(scio_csr_index_width(0, (int64_t)INT32_MAX + 1) == SCIO_I64);
}

TEST(every_allocation_may_fail)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    const int64_t rows[] = {3, 0};
    scio_csr out;
    scio_status status;
    size_t k = 0;

    do {
        memset(&out, 0, sizeof out);
        scio_mem_fail_at(k++);
        status = scio_csr_take_rows(&csr, rows, 2, &out, NULL);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && out.indptr == NULL));
    } while (status != SCIO_OK);
    CHECK(k > 3);
    scio_csr_clear(&out);
    scio_csr_clear(&out); /* safe on a cleared one */
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}
