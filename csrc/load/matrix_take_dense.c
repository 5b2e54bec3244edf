/* Rows of a dense matrix as CSR: groups of requests in ascending order are gathered densely (each
 * band of chunks decoded once), made sparse, and put together in the order asked for. */
#include "base/mem.h"
#include "load/matrix_private.h"

#include <string.h>

enum { GROUP_NBYTES = 32 << 20 }; /* dense bytes held at a time, one band of chunks at the least */

typedef struct dense_group {
    scio_matrix *matrix;
    const scio_matrix_request *requests; /* of this group, by row */
    size_t n_requests;
    char *dense; /* [n_requests, n_cols] as stored, native */
    const uint64_t *bands;
    bool is_cached;
    scio_h5_scratch **scratches;
    const volatile int *cancel;
} dense_group;

static scio_status
visit_unit(void *context, uint64_t i_unit, const void *data, size_t nbytes, size_t shuffle_itemsize,
           scio_error *err)
{
    const dense_group *const group = context;
    const scio_h5_dataset *const dataset = group->matrix->data_dataset;
    const size_t itemsize = dataset->type->itemsize, n_cols = (size_t)group->matrix->n_cols;
    const uint64_t row0 = i_unit / dataset->grid[1] * dataset->unit_dims[0];
    const size_t col0 = (size_t)(i_unit % dataset->grid[1] * dataset->unit_dims[1]);
    const size_t stride = (size_t)dataset->unit_dims[1];
    const size_t width = stride < n_cols - col0 ? stride : n_cols - col0;

    (void)nbytes;
    SCIO_BUG_IF(shuffle_itemsize > 1, err);
    for (size_t i = 0; i < group->n_requests; i++) {
        const uint64_t row = (uint64_t)group->requests[i].row;
        if (row < row0 || row - row0 >= dataset->unit_dims[0])
            continue;
        char *const dst = group->dense + (i * n_cols + col0) * itemsize;
        memcpy(dst, (const char *)data + (size_t)(row - row0) * stride * itemsize,
               width * itemsize);
        if (dataset->type->is_big_endian)
            scio_byteswap(dst, itemsize, width);
    }
    return SCIO_OK;
}

static scio_status
run_band(void *context, size_t i_item, size_t slot, scio_error *err)
{
    dense_group *const group = context;
    const uint64_t n_columns = group->matrix->data_dataset->grid[1];
    const scio_unit_reader reader = {
        group->matrix, group->matrix->data_dataset, 0, group->is_cached, visit_unit, group};

    return scio_unit_reader_run(&reader, group->bands[i_item] * n_columns, n_columns,
                                &group->scratches[slot], group->cancel, err);
}

static scio_status
gather_from_file(dense_group *group, size_t max_parallel, scio_error *err)
{
    const scio_h5_dataset *const dataset = group->matrix->data_dataset;
    const size_t cap = scio_unit_cache_cap(scio_matrix_private(group->matrix)->cache);
    uint64_t *bands = NULL;
    size_t n_bands = 0, n_slots = 0;
    scio_status status;

    if (dataset->space.n_items == 0)
        return SCIO_OK;
    status = scio_mem_alloc(group->n_requests, sizeof *bands, &bands, err);
    if (status != SCIO_OK)
        goto done;
    for (size_t i = 0; i < group->n_requests; i++) {
        const uint64_t band = (uint64_t)group->requests[i].row / dataset->unit_dims[0];
        if (n_bands == 0 || bands[n_bands - 1] != band)
            bands[n_bands++] = band;
    }
    n_slots = scio_parallel_n_slots(NULL, max_parallel, n_bands);
    status = scio_scratches_new(n_slots, &group->scratches, err);
    if (status != SCIO_OK)
        goto done;
    const uint64_t most = cap / 2 / (dataset->unit_nbytes > 0 ? dataset->unit_nbytes : 1);
    group->is_cached = n_bands <= most / (dataset->grid[1] > 0 ? dataset->grid[1] : 1);
    group->bands = bands;
    /* not max_parallel: the pool may have grown since the scratches were counted */
    status = scio_parallel_for(NULL, max_parallel == 0 ? 0 : n_slots, n_bands, run_band, group,
                               group->cancel, err);
done:
    scio_scratches_free(group->scratches, n_slots);
    scio_mem_free(bands);
    return status;
}

static scio_status
gather_group(dense_group *group, size_t max_parallel, scio_error *err)
{
    const scio_matrix *const matrix = group->matrix;
    const size_t row_nbytes = (size_t)matrix->n_cols * scio_dtype_itemsize(matrix->data_dtype);

    if (matrix->is_in_file)
        return gather_from_file(group, max_parallel, err);
    for (size_t i = 0; i < group->n_requests; i++)
        memcpy(group->dense + i * row_nbytes,
               (const char *)scio_buf_data(matrix->data) +
                   (size_t)group->requests[i].row * row_nbytes,
               row_nbytes);
    return SCIO_OK;
}

/* How many of the requests make one group: whole bands of chunks until the bytes are used up. */
static size_t
group_length(const scio_matrix *matrix, const scio_matrix_request *requests, size_t n_requests)
{
    const size_t row_nbytes = (size_t)matrix->n_cols * scio_dtype_itemsize(matrix->data_dtype);
    const size_t most = row_nbytes < GROUP_NBYTES ? GROUP_NBYTES / (row_nbytes + 1) + 1 : 1;
    const int64_t band = matrix->is_in_file && matrix->data_dataset->unit_dims[0] > 0
                             ? (int64_t)matrix->data_dataset->unit_dims[0]
                             : 1;
    size_t n = n_requests < most ? n_requests : most;

    while (n < n_requests && requests[n].row / band == requests[n - 1].row / band)
        n++;
    return n;
}

typedef struct sparse_pieces {
    scio_csr *pieces;
    size_t n_pieces, n_room;
} sparse_pieces;

static scio_status
add_piece(sparse_pieces *pieces, const dense_group *group, scio_error *err)
{
    const scio_matrix *const matrix = group->matrix;

    if (pieces->n_pieces == pieces->n_room) {
        const size_t n_room = pieces->n_room * 2 + 4;
        SCIO_TRY(scio_mem_realloc(&pieces->pieces, n_room, sizeof(scio_csr), err));
        pieces->n_room = n_room;
    }
    scio_csr *const piece = &pieces->pieces[pieces->n_pieces];
    memset(piece, 0, sizeof *piece);
    SCIO_TRY(scio_csr_from_dense(group->dense, matrix->data_dtype, (int64_t)group->n_requests,
                                 matrix->n_cols, piece, err));
    pieces->n_pieces++;
    return SCIO_OK;
}

static scio_status
copy_rows(const scio_csr *piece, const scio_matrix_request *requests, scio_csr *out,
          scio_error *err)
{
    const int64_t *const from = scio_buf_data(piece->indptr);
    const int64_t *const to = scio_buf_data(out->indptr);

    for (int64_t i = 0; i < piece->n_rows; i++) {
        const size_t first = (size_t)from[i], count = (size_t)(from[i + 1] - from[i]);
        const size_t at = (size_t)to[requests[i].i];
        SCIO_TRY(scio_cast(piece->index_dtype,
                           (const char *)scio_buf_data(piece->indices) +
                               first * scio_dtype_itemsize(piece->index_dtype),
                           out->index_dtype,
                           (char *)scio_buf_data(out->indices) +
                               at * scio_dtype_itemsize(out->index_dtype),
                           count, err));
        SCIO_TRY(
            scio_cast(piece->data_dtype,
                      (const char *)scio_buf_data(piece->data) +
                          first * scio_dtype_itemsize(piece->data_dtype),
                      out->data_dtype,
                      (char *)scio_buf_data(out->data) + at * scio_dtype_itemsize(out->data_dtype),
                      count, err));
    }
    return SCIO_OK;
}

static scio_status
join_pieces(const scio_matrix *matrix, const sparse_pieces *pieces,
            const scio_matrix_request *requests, size_t n_requests, scio_dtype data_dtype,
            scio_csr *out, scio_error *err)
{
    scio_csr csr;
    int64_t nnz = 0;
    scio_status status = SCIO_OK;

    for (size_t i = 0; i < pieces->n_pieces; i++)
        nnz += pieces->pieces[i].nnz;
    SCIO_TRY(scio_matrix_csr_new(matrix, (int64_t)n_requests, nnz, data_dtype, &csr, err));
    int64_t *const indptr = scio_buf_data(csr.indptr);
    indptr[0] = 0;
    size_t i_request = 0;
    for (size_t i = 0; i < pieces->n_pieces; i++) {
        const int64_t *const from = scio_buf_data(pieces->pieces[i].indptr);
        for (int64_t j = 0; j < pieces->pieces[i].n_rows; j++)
            indptr[requests[i_request++].i + 1] = from[j + 1] - from[j];
    }
    for (size_t i = 0; i < n_requests; i++)
        indptr[i + 1] += indptr[i];
    i_request = 0;
    for (size_t i = 0; i < pieces->n_pieces && status == SCIO_OK; i++) {
        status = copy_rows(&pieces->pieces[i], requests + i_request, &csr, err);
        i_request += (size_t)pieces->pieces[i].n_rows;
    }
    if (status != SCIO_OK) {
        scio_context(err, "%s", matrix->name);
        scio_csr_clear(&csr);
        return status;
    }
    *out = csr;
    return SCIO_OK;
}

scio_status
scio_matrix_take_dense(scio_matrix *matrix, const scio_matrix_rows *rows, scio_dtype data_dtype,
                       size_t max_parallel, const volatile int *cancel, scio_csr *out,
                       scio_error *err)
{
    const size_t row_nbytes = (size_t)matrix->n_cols * scio_dtype_itemsize(matrix->data_dtype);
    scio_matrix_request *requests = NULL;
    sparse_pieces pieces = {NULL, 0, 0};
    size_t n_room = 0;
    char *dense = NULL;
    scio_status status;

    status = scio_matrix_sort_requests(rows, &requests, err);
    for (size_t i = 0; status == SCIO_OK && i < rows->n_rows;) {
        const size_t n_rows = group_length(matrix, requests + i, rows->n_rows - i);
        if (n_rows > n_room) {
            scio_mem_free(dense);
            dense = NULL;
            status = scio_mem_alloc(n_rows, row_nbytes, &dense, err);
            n_room = n_rows;
        }
        dense_group group = {.matrix = matrix,
                             .requests = requests + i,
                             .n_requests = n_rows,
                             .dense = dense,
                             .cancel = cancel};
        if (status == SCIO_OK)
            status = gather_group(&group, max_parallel, err);
        if (status == SCIO_OK)
            status = add_piece(&pieces, &group, err);
        i += n_rows;
    }
    if (status == SCIO_OK)
        status = join_pieces(matrix, &pieces, requests, rows->n_rows, data_dtype, out, err);
    for (size_t i = 0; i < pieces.n_pieces; i++)
        scio_csr_clear(&pieces.pieces[i]);
    scio_mem_free(pieces.pieces);
    scio_mem_free(dense);
    scio_mem_free(requests);
    return status;
}
