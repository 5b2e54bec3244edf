/* The matrices of tests/c/data/load_matrices.h5 (made by tools/make_load_fixtures.py), and what
 * must be in them: computed here again from row and column, so the file is not its own witness. */
#ifndef SCIO_TESTS_C_LOAD_TESTING_H
#define SCIO_TESTS_C_LOAD_TESTING_H

#include "h5read/object.h"
#include "load/matrix.h"
#include "test.h"

#define FIXTURE "tests/c/data/load_matrices.h5"

enum { MAX_COLS = 300 };

typedef enum value_kind { SMALL, EIGHTHS, WIDE } value_kind;

typedef struct fixture {
    const char *name;
    int64_t n_rows, n_cols;
    int salt;
    value_kind kind;
    bool is_dense, is_csc;
} fixture;

static const fixture fixtures[] = {
    {"f8", 120, 300, 1, EIGHTHS, false, false},
    {"f4", 150, 300, 2, SMALL, false, false},
    {"wide", 150, 90, 3, WIDE, false, false},
    {"plain", 80, 90, 4, SMALL, false, false},
    {"swapped", 80, 90, 5, SMALL, false, false},
    {"csc", 150, 90, 6, SMALL, false, true},
    {"dense", 45, 20, 7, SMALL, true, false},
    {"dense_plain", 45, 20, 8, SMALL, true, false},
    {"dense_swapped", 45, 20, 9, SMALL, true, false},
};
enum { N_FIXTURES = sizeof fixtures / sizeof *fixtures };

static inline uint32_t
mix(int64_t row, int64_t col, int salt)
{
    uint32_t h =
        (uint32_t)((uint64_t)col * 40503 + (uint64_t)row * 2654435761u + (uint64_t)salt * 97);
    h ^= h >> 15;
    h *= 0x2C1B3C6Du;
    h ^= h >> 12;
    h *= 0x297A2D39u;
    return h ^ (h >> 15);
}

static inline double
value_at(const fixture *f, int64_t row, int64_t col)
{
    const int64_t r = f->is_csc ? col : row, c = f->is_csc ? row : col;
    const uint32_t h = mix(r, c, f->salt);
    const uint32_t fill = r % 17 == 3 ? 0 : r % 29 == 5 ? 1001 : (uint32_t)(40 + r % 50);

    if (h % 1000 >= fill)
        return 0;
    if (f->kind == EIGHTHS)
        return ((h >> 8) % 1000 + 1) / 8.0;
    if (f->kind == WIDE && c % 10 == 3 && r % 20 == 0)
        return 300;
    if (f->kind == WIDE && c % 10 == 5 && r % 31 == 11)
        return 0.5;
    return (h >> 8) % 5 + 1;
}

static inline scio_status
open_fixture_in(scio_source *source, const fixture *f, scio_matrix **out, scio_error *err)
{
    scio_h5_file *file = NULL;
    uint64_t address;
    char path[64];
    scio_status status = scio_h5_file_open(source, NULL, &file, err);

    (void)snprintf(path, sizeof path, "/%s", f->name);
    if (status == SCIO_OK)
        status = scio_h5_resolve(file, scio_h5_file_superblock(file)->root, path, &address, err);
    if (status == SCIO_OK && f->is_dense)
        status = scio_matrix_open_dense(file, address, path, out, err);
    else if (status == SCIO_OK)
        status = scio_matrix_open_sparse(file, address, path, f->n_rows, f->n_cols, f->is_csc,
                                         UINT64_C(1) << 30, out, err);
    scio_h5_file_release(file);
    return status;
}

static inline scio_status
open_fixture(const fixture *f, scio_matrix **out, scio_error *err)
{
    scio_source *source = NULL;
    scio_status status = scio_source_open_file(FIXTURE, &source, err);

    if (status == SCIO_OK)
        status = open_fixture_in(source, f, out, err);
    scio_source_release(source);
    return status;
}

/* The same matrix with its arrays in memory. */
static inline scio_matrix *
fixture_in_memory(const fixture *f)
{
    scio_buf *indptr = NULL, *indices = NULL, *data = NULL;
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    int64_t nnz = 0;

    CHECK(scio_buf_new((size_t)(f->n_rows + 1) * 8, &indptr, &err) == SCIO_OK);
    CHECK(scio_buf_new((size_t)(f->n_rows * f->n_cols) * 4, &indices, &err) == SCIO_OK);
    CHECK(scio_buf_new((size_t)(f->n_rows * f->n_cols) * 4, &data, &err) == SCIO_OK);
    int64_t *const p = scio_buf_data(indptr);
    int32_t *const columns = scio_buf_data(indices);
    float *const values = scio_buf_data(data);
    p[0] = 0;
    for (int64_t row = 0; row < f->n_rows; row++) {
        for (int64_t col = 0; col < f->n_cols; col++) {
            const double value = value_at(f, row, col);
            if (f->is_dense)
                values[row * f->n_cols + col] = (float)value;
            else if (value != 0) {
                columns[nnz] = (int32_t)col;
                values[nnz++] = (float)value;
            }
        }
        p[row + 1] = nnz;
    }
    scio_buf *short_indices = NULL, *short_data = NULL;
    if (f->is_dense) {
        CHECK(scio_matrix_from_dense("memory", f->n_rows, f->n_cols, data, SCIO_F32, &matrix,
                                     &err) == SCIO_OK);
    } else {
        CHECK(scio_buf_new((size_t)nnz * 4, &short_indices, &err) == SCIO_OK);
        CHECK(scio_buf_new((size_t)nnz * 4, &short_data, &err) == SCIO_OK);
        memcpy(scio_buf_data(short_indices), columns, (size_t)nnz * 4);
        memcpy(scio_buf_data(short_data), values, (size_t)nnz * 4);
        CHECK(scio_matrix_from_csr("memory", f->n_rows, f->n_cols, indptr, short_indices, SCIO_I32,
                                   short_data, SCIO_F32, &matrix, &err) == SCIO_OK);
    }
    scio_buf_release(short_indices);
    scio_buf_release(short_data);
    scio_buf_release(indptr);
    scio_buf_release(indices);
    scio_buf_release(data);
    return matrix;
}

#endif
