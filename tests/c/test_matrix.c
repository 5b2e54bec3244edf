/* Opening, reading and taking: every form of storage against values computed from row and column.
 */
#include "load/matrix.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/stats.h"
#include "load_testing.h"

static int64_t
index_at(const scio_csr *csr, int64_t i)
{
    if (csr->index_dtype == SCIO_I32)
        return ((const int32_t *)scio_buf_data(csr->indices))[i];
    return ((const int64_t *)scio_buf_data(csr->indices))[i];
}

static double
data_at(const scio_csr *csr, int64_t i)
{
    double value = 0;
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    CHECK(scio_cast(csr->data_dtype, (const char *)scio_buf_data(csr->data) + (size_t)i * itemsize,
                    SCIO_F64, &value, 1, NULL) == SCIO_OK);
    return value;
}

static void
check_row(const scio_csr *csr, int64_t i, const fixture *f, int64_t row)
{
    const int64_t *const indptr = scio_buf_data(csr->indptr);
    int64_t at = indptr[i];

    for (int64_t col = 0; col < f->n_cols; col++) {
        const double value = value_at(f, row, col);
        if (value == 0)
            continue;
        if (at >= indptr[i + 1] || index_at(csr, at) != col || data_at(csr, at) != value) {
            printf("%s: row %lld, column %lld\n", f->name, (long long)row, (long long)col);
            test_has_failed = true;
            return;
        }
        at++;
    }
    CHECK(at == indptr[i + 1]);
}

static const fixture *
named(const char *name)
{
    for (size_t i = 0; i < N_FIXTURES; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    return NULL;
}

static scio_matrix *
must_open(const fixture *f)
{
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    CHECK(open_fixture(f, &matrix, &err) == SCIO_OK);
    if (err.code != SCIO_OK)
        printf("%s\n", err.message);
    return matrix;
}

TEST(take_gives_rows_in_any_order_with_repeats_of_every_storage)
{
    for (size_t i = 0; i < N_FIXTURES; i++) {
        const fixture *const f = &fixtures[i];
        for (int in_memory = 0; in_memory < 2; in_memory++) {
            scio_matrix *matrix = in_memory ? fixture_in_memory(f) : must_open(f);
            for (uint64_t seed = 0; matrix != NULL && seed < 6; seed++) {
                int64_t rows[200];
                const size_t n_rows = seed == 0 ? 0 : seed == 1 ? 1 : 200;
                for (size_t k = 0; k < n_rows; k++)
                    rows[k] = (int64_t)scio_rng_below(seed, i, k, (uint64_t)f->n_rows);
                scio_csr csr;
                scio_error err = SCIO_ERROR_INIT;
                const size_t max_parallel = seed % 2 == 0 ? 0 : SIZE_MAX;
                CHECK(scio_matrix_take(matrix, rows, n_rows, SCIO_DTYPE_NONE, max_parallel, NULL,
                                       &csr, &err) == SCIO_OK);
                CHECK_CLEAR(err.message);
                if (err.code == SCIO_OK)
                    for (size_t k = 0; k < n_rows; k++)
                        check_row(&csr, (int64_t)k, f, rows[k]);
                scio_csr_clear(&csr);
            }
            scio_matrix_release(matrix);
        }
    }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(read_gives_runs_of_rows_and_the_dtype_asked_for)
{
    for (size_t i = 0; i < N_FIXTURES; i++) {
        const fixture *const f = &fixtures[i];
        for (int in_memory = 0; in_memory < 2; in_memory++) {
            scio_matrix *matrix = in_memory ? fixture_in_memory(f) : must_open(f);
            const int64_t cuts[] = {0, 1, 17, 30, f->n_rows};
            for (size_t c = 0; matrix != NULL && c < 4; c++) {
                scio_csr csr;
                scio_error err = SCIO_ERROR_INIT;
                CHECK(scio_matrix_read(matrix, cuts[c], cuts[c + 1], SCIO_F64, SIZE_MAX, NULL, &csr,
                                       &err) == SCIO_OK);
                CHECK_CLEAR(err.message);
                CHECK(csr.data_dtype == SCIO_F64 && csr.n_rows == cuts[c + 1] - cuts[c]);
                for (int64_t row = cuts[c]; err.code == SCIO_OK && row < cuts[c + 1]; row++)
                    check_row(&csr, row - cuts[c], f, row);
                scio_csr_clear(&csr);
            }
            scio_matrix_release(matrix);
        }
    }
}

TEST(read_dense_gives_every_kind_row_major)
{
    static float dense[150 * MAX_COLS];

    for (size_t i = 0; i < N_FIXTURES; i++) {
        const fixture *const f = &fixtures[i];
        scio_matrix *matrix = must_open(f);
        scio_error err = SCIO_ERROR_INIT;
        const size_t nbytes = (size_t)((f->n_rows - 5) * f->n_cols) * sizeof(float);
        if (matrix == NULL)
            continue;
        CHECK(scio_matrix_read_dense(matrix, 5, f->n_rows, SCIO_F32, dense, nbytes, 2, NULL,
                                     &err) == SCIO_OK);
        CHECK_CLEAR(err.message);
        size_t n_wrong = 0;
        for (int64_t row = 5; row < f->n_rows; row++)
            for (int64_t col = 0; col < f->n_cols; col++)
                n_wrong += dense[(row - 5) * f->n_cols + col] != (float)value_at(f, row, col);
        CHECK(n_wrong == 0);
        CHECK(scio_matrix_read_dense(matrix, 5, f->n_rows, SCIO_F32, dense, nbytes - 4, 2, NULL,
                                     &err) == SCIO_EINVAL);
        scio_matrix_release(matrix);
    }
}

TEST(take_decodes_each_touched_chunk_once_and_remembers_it)
{
    scio_matrix *matrix = must_open(named("f4"));
    const int64_t rows[] = {140, 3, 3, 77, 0, 140, 149, 5, 6, 7};
    scio_error err = SCIO_ERROR_INIT;
    scio_csr csr;

    const int64_t before = scio_stats_get(SCIO_STAT_chunks_decoded);
    CHECK(scio_matrix_take(matrix, rows, 10, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_OK);
    scio_csr_clear(&csr);
    const int64_t first = scio_stats_get(SCIO_STAT_chunks_decoded) - before;
    CHECK(first > 10 && first <= 2 * 10 + 2 * 6 * 2); /* row 5 is full: five chunks of each array */
    CHECK(scio_matrix_take(matrix, rows, 10, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_OK);
    scio_csr_clear(&csr);
    CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) - before == first);
    scio_matrix_release(matrix);
}

TEST(what_take_remembers_can_be_limited)
{
    scio_matrix *matrix = must_open(named("f4"));
    const size_t limits[] = {SIZE_MAX, SIZE_MAX, 0, 0, 4000, SIZE_MAX, SIZE_MAX};
    const size_t caps[] = {32 << 20, 32 << 20, 0, 0, 4000, 32 << 20, 32 << 20};
    const bool is_known[] = {false, true, false, false, false, false, true};
    const int64_t rows[] = {140, 3, 77, 0, 149, 5, 6, 7};
    const size_t least = scio_matrix_nbytes(matrix);
    int64_t first = 0;

    for (size_t i = 0; i < 7; i++) {
        scio_error err = SCIO_ERROR_INIT;
        scio_csr csr;
        CHECK(scio_matrix_limit_cache(matrix, limits[i]) == caps[i]);
        CHECK(scio_matrix_nbytes(matrix) <= least + caps[i]);
        const int64_t before = scio_stats_get(SCIO_STAT_chunks_decoded);
        CHECK(scio_matrix_take(matrix, rows, 8, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_OK);
        scio_csr_clear(&csr);
        const int64_t n_decoded = scio_stats_get(SCIO_STAT_chunks_decoded) - before;
        first = i == 0 ? n_decoded : first;
        CHECK(is_known[i] ? n_decoded == 0 : n_decoded > 0 && n_decoded <= first);
        CHECK(scio_matrix_nbytes(matrix) <= least + caps[i]);
    }
    scio_matrix_release(matrix);
}

TEST(csc_is_turned_into_rows_within_the_bytes_allowed)
{
    scio_source *source = NULL;
    scio_h5_file *file = NULL;
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint64_t address = 0;

    CHECK(scio_source_open_file(FIXTURE, &source, &err) == SCIO_OK);
    CHECK(scio_h5_file_open(source, NULL, &file, &err) == SCIO_OK);
    CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "csc", &address, &err) ==
          SCIO_OK);
    CHECK(scio_matrix_open_sparse(file, address, "/csc", 150, 90, true, 1000, &matrix, &err) ==
          SCIO_EINVAL);
    CHECK_STR(err.message,
              "load_matrices.h5: /csc is stored by columns (CSC); turning it into rows "
              "needs ");
    CHECK_STR(err.message, "more than the 1000 allowed");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_open_sparse(file, address, "/csc", 150, 90, true, 1 << 20, &matrix, &err) ==
          SCIO_OK);
    CHECK(matrix != NULL && matrix->was_csc && !matrix->is_in_file);
    scio_matrix_release(matrix);
    scio_h5_file_release(file);
    scio_source_release(source);
}

static void
check_refused(const char *name, int64_t n_rows, int64_t n_cols, scio_status expected,
              const char *message)
{
    const fixture f = {name, n_rows, n_cols, 0, SMALL, false, false};
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(open_fixture(&f, &matrix, &err) == expected);
    CHECK_STR(err.message, message);
    CHECK(matrix == NULL);
}

TEST(what_breaks_a_rule_is_named_at_opening)
{
    check_refused("short_indptr", 20, 30, SCIO_ECORRUPT,
                  "short_indptr/indptr has 20 entries, expected 21 (n_rows + 1)");
    check_refused("uneven", 20, 30, SCIO_ECORRUPT, "uneven/data has ");
    check_refused("falling", 20, 30, SCIO_ECORRUPT, "less than indptr[4]");
    check_refused("f4", 149, 300, SCIO_ECORRUPT, "f4/indptr has 151 entries, expected 150");
    check_refused("dense", 45, 20, SCIO_ENOENT, "data");
}

TEST(a_column_out_of_range_is_found_when_it_is_decoded)
{
    const fixture f = {"column_out_of_range", 20, 30, 10, SMALL, false, false};
    const int64_t all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_csr csr;

    CHECK(open_fixture(&f, &matrix, &err) == SCIO_OK);
    CHECK(scio_matrix_take(matrix, all, 20, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "/column_out_of_range");
    CHECK_STR(err.message, "indices[17] is 30");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_read(matrix, 0, 20, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[17] is 30");
    scio_matrix_release(matrix);
}

TEST(rows_outside_the_matrix_are_named)
{
    scio_matrix *matrix = must_open(named("plain"));
    const int64_t rows[] = {3, 80};
    scio_error err = SCIO_ERROR_INIT;
    scio_csr csr;

    CHECK(scio_matrix_take(matrix, rows, 2, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "load_matrices.h5: /plain: row 80 is not in [0, 80)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_read(matrix, 5, 81, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "rows [5, 81) are not inside [0, 80)");
    scio_matrix_release(matrix);
}

TEST(arrays_in_memory_pass_the_whole_gate)
{
    const int64_t indptr[] = {0, 1, 2};
    const int32_t indices[] = {1, 7};
    const float data[] = {1, 2};
    scio_buf *p = NULL, *i = NULL, *d = NULL;
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_buf_new(sizeof indptr, &p, &err) == SCIO_OK);
    CHECK(scio_buf_new(sizeof indices, &i, &err) == SCIO_OK);
    CHECK(scio_buf_new(sizeof data, &d, &err) == SCIO_OK);
    memcpy(scio_buf_data(p), indptr, sizeof indptr);
    memcpy(scio_buf_data(i), indices, sizeof indices);
    memcpy(scio_buf_data(d), data, sizeof data);
    CHECK(scio_matrix_from_csr("m", 2, 7, p, i, SCIO_I32, d, SCIO_F32, &matrix, &err) ==
          SCIO_ECORRUPT);
    CHECK_STR(err.message, "m: indices[1] is 7");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_from_csr("m", 3, 8, p, i, SCIO_I32, d, SCIO_F32, &matrix, &err) ==
          SCIO_EINVAL);
    CHECK_STR(err.message, "indptr has 3 entries, expected 4 (n_rows + 1)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_from_dense("m", 2, 2, d, SCIO_F32, &matrix, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "data has 2 items, expected n_rows * n_cols = 2 * 2");
    scio_buf_release(p);
    scio_buf_release(i);
    scio_buf_release(d);
}

static scio_status
open_and_use(const fixture *f, scio_error *err)
{
    scio_matrix *matrix = NULL;
    const int64_t rows[] = {5, 1, 30, 5};
    scio_csr csr;
    scio_status status = open_fixture(f, &matrix, err);

    memset(&csr, 0, sizeof csr);
    if (status == SCIO_OK)
        status = scio_matrix_take(matrix, rows, 4, SCIO_F32, 0, NULL, &csr, err);
    scio_csr_clear(&csr);
    if (status == SCIO_OK)
        status = scio_matrix_read(matrix, 2, 40, SCIO_DTYPE_NONE, 0, NULL, &csr, err);
    scio_csr_clear(&csr);
    scio_matrix_release(matrix);
    return status;
}

TEST(every_failing_allocation_is_an_error_and_nothing_leaks)
{
    const char *const names[] = {"f4", "dense", "csc"};

    for (size_t i = 0; i < 3; i++) {
        scio_status status = SCIO_ENOMEM;
        size_t k = 0;
        for (; status != SCIO_OK && k < 5000; k++) {
            scio_error err = SCIO_ERROR_INIT;
            scio_mem_fail_at(k);
            status = open_and_use(named(names[i]), &err);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
            CHECK(scio_stats_get(SCIO_STAT_live_sources) == 0);
        }
        CHECK(k > 20 && k < 5000);
    }
}
