/* Mapped matrices: the same rows as those read from the file, bad indices found when touched. */
#include "load/matrix.h"

#include "base/mem.h"
#include "base/stats.h"
#include "load_testing.h"

#include <unistd.h>

static const fixture *
named(const char *name)
{
    for (size_t i = 0; i < N_FIXTURES; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    abort();
}

static scio_status
map_fixture_in(scio_source *source, const fixture *f, scio_matrix **out, scio_error *err)
{
    scio_h5_file *file = NULL;
    uint64_t address;
    char path[64];
    scio_status status = scio_h5_file_open(source, NULL, &file, err);

    (void)snprintf(path, sizeof path, "/%s", f->name);
    if (status == SCIO_OK)
        status = scio_h5_resolve(file, scio_h5_file_superblock(file)->root, path, &address, err);
    if (status == SCIO_OK && f->is_dense)
        status = scio_matrix_map_dense(file, address, path, out, err);
    else if (status == SCIO_OK)
        status = scio_matrix_map_sparse(file, address, path, f->n_rows, f->n_cols, out, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
map_fixture(const fixture *f, scio_matrix **out, scio_error *err)
{
    scio_source *source = NULL;
    scio_status status = scio_source_open_file(FIXTURE, &source, err);

    if (status == SCIO_OK)
        status = map_fixture_in(source, f, out, err);
    scio_source_release(source);
    return status;
}

/* The fixture in memory; its buffer may be changed. */
static scio_source *
image(scio_buf **buf_out)
{
    scio_source *file = NULL, *source = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_source_open_file(FIXTURE, &file, &err) == SCIO_OK);
    const size_t nbytes = (size_t)scio_source_nbytes(file);
    CHECK(scio_buf_new(nbytes, buf_out, &err) == SCIO_OK);
    CHECK(scio_source_read(file, 0, nbytes, scio_buf_data(*buf_out), &err) == SCIO_OK);
    CHECK(scio_source_from_buf(*buf_out, "image", &source, &err) == SCIO_OK);
    scio_source_release(file);
    return source;
}

static uint64_t
position_of_indices(const fixture *f)
{
    scio_matrix *matrix = NULL;
    const scio_h5_unit *units = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(open_fixture(f, &matrix, &err) == SCIO_OK);
    CHECK(scio_h5_dataset_units(matrix->indices_dataset, &units, &err) == SCIO_OK);
    const uint64_t position = units[0].position;
    scio_matrix_release(matrix);
    return position;
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
    const char *const names[] = {"plain", "dense_plain"};
    const int64_t bufs = scio_stats_get(SCIO_STAT_live_bufs);

    for (size_t i = 0; i < 2; i++) {
        const fixture *const f = named(names[i]);
        const int64_t rows[] = {f->n_rows - 1, 0, 7, 7, 3};
        scio_matrix *mapped = NULL, *read = NULL;
        scio_csr a, b;
        scio_error err = SCIO_ERROR_INIT;

        CHECK(map_fixture(f, &mapped, &err) == SCIO_OK);
        CHECK(open_fixture(f, &read, &err) == SCIO_OK);
        if (mapped == NULL || read == NULL) {
            printf("%s\n", err.message);
            return;
        }
        CHECK(mapped->is_mapped && !mapped->is_in_file && mapped->data_dataset == NULL);
        CHECK(scio_matrix_nbytes(mapped) < 4096);
        CHECK(scio_matrix_take(mapped, rows, 5, SCIO_DTYPE_NONE, 0, NULL, &a, &err) == SCIO_OK);
        CHECK(scio_matrix_take(read, rows, 5, SCIO_DTYPE_NONE, 0, NULL, &b, &err) == SCIO_OK);
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

TEST(a_bad_index_is_found_in_its_row_and_in_no_other)
{
    const fixture *const f = named("plain");
    const uint64_t position = position_of_indices(f);
    const int32_t bad[] = {-1, (int32_t)f->n_cols, INT32_MAX};

    for (size_t i = 0; i < 3; i++) {
        scio_buf *buf = NULL;
        scio_source *const source = image(&buf);
        scio_matrix *matrix = NULL;
        scio_error err = SCIO_ERROR_INIT, none = SCIO_ERROR_INIT;
        scio_csr csr;
        int64_t row = 0;

        CHECK(map_fixture_in(source, f, &matrix, &err) == SCIO_OK);
        if (matrix == NULL)
            return;
        const int64_t at = matrix->indptr[10];
        while (matrix->indptr[row + 1] <= at)
            row++;
        memcpy((char *)scio_buf_data(buf) + position + (size_t)at * 4, &bad[i], 4);
        CHECK(scio_matrix_check_row(matrix, row, &err) == SCIO_ECORRUPT);
        CHECK_STR(err.message, "/plain/indices");
        CHECK(scio_matrix_check_row(matrix, row + 1, &none) == SCIO_OK);
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_matrix_take(matrix, &row, 1, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) ==
              SCIO_ECORRUPT);
        CHECK_STR(err.message, "/plain/indices");
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_matrix_read(matrix, 0, f->n_rows, SCIO_DTYPE_NONE, 0, NULL, &csr, &err) ==
              SCIO_ECORRUPT);
        CHECK_STR(err.message, "/plain/indices");
        CHECK(scio_matrix_read(matrix, row + 1, f->n_rows, SCIO_DTYPE_NONE, 0, NULL, &csr, &none) ==
              SCIO_OK);
        scio_csr_clear(&csr);
        scio_matrix_release(matrix);
        scio_source_release(source);
        scio_buf_release(buf);
    }
}

TEST(what_cannot_be_mapped_is_refused_by_name)
{
    const char *const names[] = {"f4", "swapped", "dense", "dense_swapped"};
    const char *const texts[] = {"chunked", "native", "chunked", "native"};

    for (size_t i = 0; i < 4; i++) {
        scio_matrix *matrix = NULL;
        scio_error err = SCIO_ERROR_INIT;
        CHECK(map_fixture(named(names[i]), &matrix, &err) == SCIO_EUNSUPPORTED);
        CHECK(matrix == NULL);
        CHECK_STR(err.message, texts[i]);
        CHECK_STR(err.message, names[i]);
    }
}

TEST(a_file_that_ends_before_its_array_is_refused)
{
    char path[] = "/tmp/scio-map-XXXXXX";
    const int fd = mkstemp(path);
    scio_buf *buf = NULL, *mapped = NULL;
    scio_source *memory = image(&buf), *source = NULL;
    scio_error err = SCIO_ERROR_INIT;
    const size_t nbytes = scio_buf_nbytes(buf);

    CHECK(fd >= 0 && write(fd, scio_buf_data(buf), nbytes) == (ssize_t)nbytes);
    CHECK(scio_source_open_file(path, &source, &err) == SCIO_OK);
    CHECK(scio_source_map(source, 100, nbytes - 100, &mapped, &err) == SCIO_OK);
    CHECK(memcmp(scio_buf_data(mapped), (char *)scio_buf_data(buf) + 100, nbytes - 100) == 0);
    scio_buf_release(mapped);
    CHECK(scio_source_map(source, 1, nbytes, &mapped, &err) == SCIO_ECORRUPT);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(ftruncate(fd, (off_t)nbytes - 1) == 0);
    CHECK(scio_source_map(source, 0, nbytes, &mapped, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "truncated");
    scio_source_release(source);
    scio_source_release(memory);
    scio_buf_release(buf);
    (void)close(fd);
    (void)unlink(path);
}

TEST(every_allocation_of_mapping_may_fail)
{
    const int64_t bufs = scio_stats_get(SCIO_STAT_live_bufs);
    size_t k = 0;

    for (scio_status status = SCIO_ENOMEM; status != SCIO_OK && k < 1000; k++) {
        scio_matrix *matrix = NULL;
        scio_error err = SCIO_ERROR_INIT;
        scio_mem_fail_at(k);
        status = map_fixture(named("plain"), &matrix, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        CHECK((status == SCIO_OK) == (matrix != NULL));
        scio_matrix_release(matrix);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == bufs);
    }
    CHECK(k > 10 && k < 1000);
}
