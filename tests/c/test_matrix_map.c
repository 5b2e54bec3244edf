/* Mapped matrices: the same rows as those read from the file, bad indices found when touched. */
#include "load/matrix.h"

#include "base/mem.h"
#include "base/stats.h"
#include "fast_testing.h"
#include "h5write/writer.h"

#include <unistd.h>

static const fixture *
named(const char *name)
{
    for (size_t i = 0; i < N_FIXTURES; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    abort();
}

/* A file in memory; its buffer may be changed. */
static scio_source *
image(const char *path, scio_buf **buf_out)
{
    scio_source *file = NULL, *source = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_source_open_file(path, &file, &err) == SCIO_OK);
    const size_t nbytes = (size_t)scio_source_nbytes(file);
    CHECK(scio_buf_new(nbytes, buf_out, &err) == SCIO_OK);
    CHECK(scio_source_read(file, 0, nbytes, scio_buf_data(*buf_out), &err) == SCIO_OK);
    CHECK(scio_source_from_buf(*buf_out, "image", &source, &err) == SCIO_OK);
    scio_source_release(file);
    return source;
}

static void
check_same(const scio_csr *a, const scio_csr *b)
{
    CHECK(a->n_rows == b->n_rows && a->nnz == b->nnz && a->data_dtype == b->data_dtype &&
          a->index_dtype == b->index_dtype);
    CHECK(memcmp(scio_buf_data(a->indptr), scio_buf_data(b->indptr), (size_t)(a->n_rows + 1) * 8) ==
          0);
    CHECK(memcmp(scio_buf_data(a->data), scio_buf_data(b->data),
                 (size_t)a->nnz * scio_dtype_itemsize(a->data_dtype)) == 0);
    CHECK(memcmp(scio_buf_data(a->indices), scio_buf_data(b->indices),
                 (size_t)a->nnz * scio_dtype_itemsize(a->index_dtype)) == 0);
}

TEST(mapped_rows_are_those_of_the_file)
{
    const int64_t bufs = scio_stats_get(SCIO_STAT_live_bufs);
    const struct {
        const char *name;
        scio_dtype data, index;
    } kinds[] = {{"plain", SCIO_F32, SCIO_I32}, {"plain", SCIO_U16, SCIO_U16},
                 {"wide", SCIO_F64, SCIO_U32},  {"f4", SCIO_U8, SCIO_I64},
                 {"dense", SCIO_F32, SCIO_I32}, {"dense_plain", SCIO_U8, SCIO_I32}};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const fixture *const f = named(kinds[i].name);
        const int64_t rows[] = {f->n_rows - 1, 0, 7, 7, 3};
        char path[40];
        scio_matrix *mapped = NULL, *read = NULL;
        scio_csr a, b;
        scio_error err = SCIO_ERROR_INIT;

        write_fast(path, f, kinds[i].data, kinds[i].index);
        CHECK(map_at(path, f, "/m", &mapped, &err) == SCIO_OK);
        CHECK(open_fixture(f, &read, &err) == SCIO_OK);
        if (mapped == NULL || read == NULL) {
            printf("%s\n", err.message);
            return;
        }
        CHECK(mapped->is_mapped && !mapped->is_in_file && mapped->data_dataset == NULL);
        CHECK(mapped->data_dtype == kinds[i].data);
        CHECK(f->is_dense || mapped->index_dtype == kinds[i].index);
        CHECK(scio_matrix_nbytes(mapped) < 4096);
        (void)unlink(path); /* a mapping needs no name */
        CHECK(scio_matrix_take(mapped, rows, 5, SCIO_F64, 0, NULL, &a, &err) == SCIO_OK);
        CHECK(scio_matrix_take(read, rows, 5, SCIO_F64, 0, NULL, &b, &err) == SCIO_OK);
        check_same(&a, &b);
        scio_csr_clear(&a);
        scio_csr_clear(&b);
        CHECK(scio_matrix_read(mapped, 2, f->n_rows, SCIO_F64, 0, NULL, &a, &err) == SCIO_OK);
        CHECK(scio_matrix_read(read, 2, f->n_rows, SCIO_F64, 0, NULL, &b, &err) == SCIO_OK);
        check_same(&a, &b);
        scio_csr_clear(&a);
        scio_csr_clear(&b);
        for (int64_t row = 0; row < f->n_rows; row++)
            CHECK(scio_matrix_check_row(mapped, row, &err) == SCIO_OK);
        scio_matrix_release(mapped);
        scio_matrix_release(read);
    }
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == bufs);
}

static void
check_bad_index(const char *path, const fixture *f, int64_t bad)
{
    scio_buf *buf = NULL;
    scio_source *const source = image(path, &buf);
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT, none = SCIO_ERROR_INIT;
    scio_csr csr;
    int64_t row = 0;

    CHECK(map_in(source, f, "/m", &matrix, &err) == SCIO_OK);
    if (matrix == NULL)
        return;
    const int64_t at = matrix->indptr[10];
    while (matrix->indptr[row + 1] <= at)
        row++;
    /* the matrix borrows the image, so this is the file */
    memcpy((char *)scio_buf_data(matrix->indices) + (size_t)at * 8, &bad, 8);
    CHECK(scio_matrix_check_row(matrix, row, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "/m/indices");
    CHECK(scio_matrix_check_row(matrix, row + 1, &none) == SCIO_OK);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_take(matrix, &row, 1, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "image: /m/indices");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_matrix_read(matrix, 0, f->n_rows, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) ==
          SCIO_ECORRUPT);
    CHECK_STR(err.message, "image: /m/indices");
    CHECK(scio_matrix_read(matrix, row + 1, f->n_rows, SCIO_DTYPE_NONE, 0, NULL, &csr, &none) ==
          SCIO_OK);
    scio_csr_clear(&csr);
    scio_matrix_release(matrix);
    scio_source_release(source);
    scio_buf_release(buf);
}

TEST(a_bad_index_is_found_in_its_row_and_in_no_other)
{
    const fixture *const f = named("plain");
    char path[40];

    write_fast(path, f, SCIO_F32, SCIO_I64);
    check_bad_index(path, f, -1);
    check_bad_index(path, f, f->n_cols);
    check_bad_index(path, f, INT64_MAX);
    (void)unlink(path);
}

TEST(what_cannot_be_mapped_is_refused_by_name)
{
    const char *const names[] = {"f4", "plain", "dense"};
    const char *const texts[] = {"chunked", "not aligned", "chunked"};
    char path[40];
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;

    for (size_t i = 0; i < 3; i++) {
        char inside[32];
        (void)snprintf(inside, sizeof inside, "/%s", names[i]);
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(map_at(FIXTURE, named(names[i]), inside, &matrix, &err) == SCIO_EUNSUPPORTED);
        CHECK(matrix == NULL);
        CHECK_STR(err.message, texts[i]);
        CHECK_STR(err.message, names[i]);
    }
    write_fast(path, named("plain"), SCIO_F32, SCIO_U8);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(map_at(path, named("plain"), "/m", &matrix, &err) == SCIO_EUNSUPPORTED);
    CHECK_STR(err.message, "uint8");
    (void)unlink(path);
}

TEST(a_file_that_ends_before_its_array_is_refused)
{
    char path[40];
    scio_buf *buf = NULL, *mapped = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;

    write_fast(path, named("plain"), SCIO_F32, SCIO_U16);
    scio_source *const memory = image(path, &buf);
    const size_t nbytes = scio_buf_nbytes(buf);
    CHECK(scio_source_open_file(path, &source, &err) == SCIO_OK);
    CHECK(scio_source_map(source, 100, nbytes - 100, &mapped, &err) == SCIO_OK);
    CHECK(memcmp(scio_buf_data(mapped), (char *)scio_buf_data(buf) + 100, nbytes - 100) == 0);
    scio_buf_release(mapped);
    CHECK(scio_source_map(source, 1, nbytes, &mapped, &err) == SCIO_ECORRUPT);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(truncate(path, (off_t)nbytes - 1) == 0);
    CHECK(scio_source_map(source, 0, nbytes, &mapped, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "truncated");
    scio_source_release(source);
    scio_source_release(memory);
    scio_buf_release(buf);
    (void)unlink(path);
}

TEST(every_allocation_of_mapping_may_fail)
{
    const int64_t bufs = scio_stats_get(SCIO_STAT_live_bufs);
    const fixture *const f = named("plain");
    char path[40];
    size_t k = 0;

    write_fast(path, f, SCIO_F32, SCIO_U16);
    for (scio_status status = SCIO_ENOMEM; status != SCIO_OK && k < 1000; k++) {
        scio_matrix *matrix = NULL;
        scio_error err = SCIO_ERROR_INIT;
        scio_mem_fail_at(k);
        status = map_at(path, f, "/m", &matrix, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        CHECK((status == SCIO_OK) == (matrix != NULL));
        scio_matrix_release(matrix);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == bufs);
    }
    CHECK(k > 10 && k < 1000);
    (void)unlink(path);
}
