/* Fixtures as a fast-layout file has them: contiguous, native, to be mapped. */
#ifndef SCIO_TESTS_C_FAST_TESTING_H
#define SCIO_TESTS_C_FAST_TESTING_H

#include "h5write/writer.h"
#include "load_testing.h"

#include <unistd.h>

/* The matrix of a fixture, as that file has it, in a file of our own writer at /m. */
static inline void
write_fast(char path[40], const fixture *f, scio_dtype data_dtype, scio_dtype index_dtype)
{
    static char data[64 << 10], indices[64 << 10];
    scio_matrix *matrix = NULL;
    scio_h5_writer *writer = NULL;
    scio_csr csr = {0};
    scio_error err = SCIO_ERROR_INIT;
    const uint64_t n_rows = (uint64_t)f->n_rows, n_cols = (uint64_t)f->n_cols;

    strcpy(path, "/tmp/scio-map-XXXXXX");
    const int fd = mkstemp(path);
    CHECK(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
    CHECK(open_fixture(f, &matrix, &err) == SCIO_OK);
    CHECK(scio_h5_writer_new(path, &writer, &err) == SCIO_OK);
    if (f->is_dense) {
        const size_t nbytes = (size_t)(n_rows * n_cols) * scio_dtype_itemsize(data_dtype);
        const scio_h5_value value = {
            .dtype = data_dtype, .data = data, .rank = 2, .dims = {n_rows, n_cols}};
        CHECK(nbytes <= sizeof data);
        CHECK(scio_matrix_read_dense(matrix, 0, f->n_rows, data_dtype, data, nbytes, 0, NULL,
                                     &err) == SCIO_OK);
        CHECK(scio_h5_writer_dataset(writer, "/m", &value, NULL, &err) == SCIO_OK);
    } else {
        CHECK(scio_matrix_read(matrix, 0, f->n_rows, data_dtype, 0, NULL, &csr, &err) == SCIO_OK);
        const uint64_t nnz = (uint64_t)csr.nnz;
        const scio_h5_value values = {
            .dtype = data_dtype, .data = scio_buf_data(csr.data), .rank = 1, .dims = {nnz}};
        const scio_h5_value columns = {
            .dtype = index_dtype, .data = indices, .rank = 1, .dims = {nnz}};
        const scio_h5_value pointers = {
            .dtype = SCIO_I64, .data = scio_buf_data(csr.indptr), .rank = 1, .dims = {n_rows + 1}};
        CHECK(nnz * scio_dtype_itemsize(index_dtype) <= sizeof indices);
        CHECK(scio_cast(csr.index_dtype, scio_buf_data(csr.indices), index_dtype, indices,
                        (size_t)nnz, &err) == SCIO_OK);
        CHECK(scio_h5_writer_dataset(writer, "/m/data", &values, NULL, &err) == SCIO_OK);
        CHECK(scio_h5_writer_dataset(writer, "/m/indices", &columns, NULL, &err) == SCIO_OK);
        CHECK(scio_h5_writer_dataset(writer, "/m/indptr", &pointers, NULL, &err) == SCIO_OK);
    }
    CHECK(scio_h5_writer_close(writer, &err) == SCIO_OK);
    if (err.code != SCIO_OK)
        printf("%s\n", err.message);
    scio_h5_writer_free(writer);
    scio_csr_clear(&csr);
    scio_matrix_release(matrix);
}

static inline scio_status
map_in(scio_source *source, const fixture *f, const char *path, scio_matrix **out, scio_error *err)
{
    scio_h5_file *file = NULL;
    uint64_t address;
    scio_status status = scio_h5_file_open(source, NULL, &file, err);

    if (status == SCIO_OK)
        status = scio_h5_resolve(file, scio_h5_file_superblock(file)->root, path, &address, err);
    if (status == SCIO_OK && f->is_dense)
        status = scio_matrix_map_dense(file, address, path, out, err);
    else if (status == SCIO_OK)
        status = scio_matrix_map_sparse(file, address, path, f->n_rows, f->n_cols, out, err);
    scio_h5_file_release(file);
    return status;
}

static inline scio_status
map_at(const char *name, const fixture *f, const char *path, scio_matrix **out, scio_error *err)
{
    scio_source *source = NULL;
    scio_status status = scio_source_open_file(name, &source, err);

    if (status == SCIO_OK)
        status = map_in(source, f, path, out, err);
    scio_source_release(source);
    return status;
}

#endif
