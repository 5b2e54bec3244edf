/* Rows and columns chosen at once, against a plain loop, for every width of index and value. */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "preprocess/subset.h"

enum { N_ROWS = 3000, N_COLS = 50, MOST = N_ROWS * N_COLS };

static unsigned char data[MOST * 8];
static int64_t indices[MOST], indptr[N_ROWS + 1];
static int32_t narrow[MOST];

static scio_csr_view
make(scio_dtype index_dtype, scio_dtype data_dtype)
{
    int64_t nnz = 0;

    for (int64_t r = 0; r < N_ROWS; r++) {
        for (int32_t c = 0; c < N_COLS; c++) {
            if (scio_rng_u64(1, (uint64_t)r, (uint64_t)c) % 3 != 0)
                continue;
            indices[nnz] = narrow[nnz] = c;
            nnz++;
        }
        indptr[r + 1] = nnz;
    }
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)scio_rng_u64(2, 3, i);
    return (scio_csr_view){.n_rows = N_ROWS,
                           .n_cols = N_COLS,
                           .nnz = nnz,
                           .indptr = indptr,
                           .indices = index_dtype == SCIO_I32 ? (void *)narrow : (void *)indices,
                           .index_dtype = index_dtype,
                           .data = data,
                           .data_dtype = data_dtype};
}

static void
check_subset(const scio_csr_view *csr, const int64_t *rows, int64_t n_rows, const int32_t *map,
             const scio_csr *out)
{
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    const int64_t *const out_indptr = scio_buf_data(out->indptr);
    const char *const out_data = scio_buf_data(out->data);
    int64_t at = 0;

    CHECK(out->n_rows == n_rows && out_indptr[0] == 0);
    for (int64_t i = 0; i < n_rows; i++) {
        const int64_t row = rows == NULL ? i : rows[i];

        for (int64_t j = indptr[row]; j < indptr[row + 1]; j++) {
            const int64_t to = map == NULL ? indices[j] : map[indices[j]];
            int64_t got;

            if (to < 0)
                continue;
            got = csr->index_dtype == SCIO_I32 ? ((int32_t *)scio_buf_data(out->indices))[at]
                                               : ((int64_t *)scio_buf_data(out->indices))[at];
            CHECK(got == to);
            CHECK(memcmp(out_data + (size_t)at * itemsize, data + (size_t)j * itemsize, itemsize) ==
                  0);
            at++;
        }
        CHECK(out_indptr[i + 1] == at);
    }
    CHECK(out->nnz == at);
}

TEST(rows_and_columns_for_every_width)
{
    const scio_dtype index_dtypes[] = {SCIO_I32, SCIO_I64};
    const scio_dtype data_dtypes[] = {SCIO_U8, SCIO_I16, SCIO_F32, SCIO_I64};
    static int64_t rows[1700];
    static int32_t map[N_COLS];

    for (int64_t i = 0; i < 1700; i++)
        rows[i] = (int64_t)scio_rng_below(4, 5, (uint64_t)i, N_ROWS);
    for (int32_t c = 0, to = 0; c < N_COLS; c++)
        map[c] = c % 4 == 1 ? -1 : to++;
    for (int i = 0; i < 8; i++) {
        const scio_csr_view csr = make(index_dtypes[i / 4], data_dtypes[i % 4]);

        for (int choice = 0; choice < 4; choice++) {
            const int64_t *const chosen = choice & 1 ? rows : NULL;
            const int32_t *const columns = choice & 2 ? map : NULL;
            scio_csr out = {0};

            CHECK(scio_csr_subset(&csr, chosen, 1700, columns, N_COLS, 3, NULL, &out, NULL) ==
                  SCIO_OK);
            check_subset(&csr, chosen, chosen == NULL ? N_ROWS : 1700, columns, &out);
            scio_csr_clear(&out);
        }
    }
}

TEST(what_does_not_exist_is_refused)
{
    const int64_t rows[] = {1, N_ROWS};
    static int32_t map[N_COLS];
    scio_csr_view csr = make(SCIO_I32, SCIO_F32);
    scio_csr out = {0};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_csr_subset(&csr, rows, 2, NULL, 0, 1, NULL, &out, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "rows[1] is 3000");
    narrow[40] = N_COLS;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_csr_subset(&csr, NULL, 0, map, 1, 1, NULL, &out, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[40]");
    csr.index_dtype = SCIO_U16;
    CHECK(scio_csr_subset(&csr, NULL, 0, map, 1, 1, NULL, &out, NULL) == SCIO_ETYPE);
    csr = make(SCIO_I32, SCIO_F32);
    csr.nnz = 10;
    CHECK(scio_csr_subset(&csr, NULL, 0, NULL, 1, 1, NULL, &out, NULL) == SCIO_ECORRUPT);
    CHECK(out.data == NULL);
}

TEST(every_allocation_may_fail)
{
    const scio_csr_view csr = make(SCIO_I32, SCIO_F32);
    static int32_t map[N_COLS];
    scio_csr out = {0};
    size_t n_failures = 0;

    for (size_t k = 0; k < 60; k++) {
        scio_status status;

        scio_mem_fail_at(k);
        status = scio_csr_subset(&csr, NULL, 0, map, 1, 2, NULL, &out, NULL);
        scio_mem_fail_at(SIZE_MAX);
        if (status == SCIO_OK)
            break;
        CHECK(status == SCIO_ENOMEM && out.data == NULL);
        n_failures++;
    }
    CHECK(n_failures > 3);
    scio_csr_clear(&out);
}
