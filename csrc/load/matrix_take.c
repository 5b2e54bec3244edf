/* Rows in any order.  Requests are sorted by row; every storage unit that one of them touches is
 * decoded once, in parallel, and its items go from there straight to their places in the result.
 * Memory: the result, the scratch of the threads, the bounded cache. */
#include "load/matrix.h"

#include "base/mem.h"
#include "load/matrix_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_NBYTES = 1 << 20 }; /* decoded bytes of a job: enough to spread, enough to coalesce */

typedef struct take_run {
    unsigned which;
    uint64_t i_first, n_units;
} take_run;

typedef struct take_context {
    scio_matrix_taking taking;
    bool is_cached[2];
    const take_run *runs; /* of whole units; then come the stretches that are read as they lie */
    size_t n_runs, n_direct[2];
    scio_h5_scratch **scratches;
} take_context;

static int
compare_requests(const void *a, const void *b)
{
    const scio_matrix_request *const x = a, *const y = b;
    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

scio_status
scio_matrix_sort_requests(const scio_matrix_rows *rows, scio_matrix_request **out, scio_error *err)
{
    scio_matrix_request *requests = NULL;
    bool is_sorted = true;

    SCIO_TRY(scio_mem_alloc(rows->n_rows, sizeof *requests, &requests, err));
    for (size_t i = 0; i < rows->n_rows; i++) {
        requests[i] = (scio_matrix_request){scio_matrix_row_at(rows, i), i};
        is_sorted = is_sorted && (i == 0 || requests[i - 1].row <= requests[i].row);
    }
    if (!is_sorted)
        qsort(requests, rows->n_rows, sizeof *requests, compare_requests);
    *out = requests;
    return SCIO_OK;
}

/* The runs of units that the requests touch; NULL runs only counts. */
static size_t
list_runs(const scio_matrix_taking *take, unsigned which, take_run *runs, uint64_t *n_units_out)
{
    const scio_h5_dataset *const dataset = scio_matrix_dataset(take->matrix, which);
    const uint64_t unit = dataset->unit_dims[0];
    const uint64_t most = dataset->unit_nbytes < RUN_NBYTES ? RUN_NBYTES / dataset->unit_nbytes : 1;
    const int64_t *const indptr = take->matrix->indptr;
    size_t n_runs = 0;
    uint64_t i_next = 0, n_units = 0, n_in_run = 0;

    for (size_t i = 0; i < take->n_requests; i++) {
        const int64_t row = take->requests[i].row;
        if (indptr[row] == indptr[row + 1])
            continue;
        uint64_t i_unit = (uint64_t)indptr[row] / unit;
        const uint64_t i_last = (uint64_t)(indptr[row + 1] - 1) / unit;
        if (i_unit < i_next)
            i_unit = i_next;
        for (; i_unit <= i_last; i_unit++) {
            const bool joins = n_runs > 0 && i_unit == i_next && n_in_run < most;
            n_in_run = joins ? n_in_run + 1 : 1;
            if (!joins)
                n_runs++;
            if (runs != NULL && joins)
                runs[n_runs - 1].n_units++;
            else if (runs != NULL)
                runs[n_runs - 1] = (take_run){which, i_unit, 1};
            i_next = i_unit + 1;
            n_units++;
        }
    }
    *n_units_out = n_units;
    return n_runs;
}

scio_status
scio_matrix_put_items(const scio_matrix_taking *take, unsigned which, const void *src,
                      uint64_t first, size_t count, int64_t at, scio_error *err)
{
    const scio_csr *const out = take->out;
    const scio_h5_type *const type = scio_matrix_dataset(take->matrix, which)->type;
    const scio_dtype dst_dtype = which == 0 ? out->data_dtype : out->index_dtype;
    char *const dst = (char *)scio_buf_data(which == 0 ? out->data : out->indices) +
                      (size_t)at * scio_dtype_itemsize(dst_dtype);
    scio_status status;

    if (type->is_big_endian)
        status = scio_cast_swapped(type->dtype, src, dst_dtype, dst, count, err);
    else
        status = scio_cast(type->dtype, src, dst_dtype, dst, count, err);
    if (which == 1) {
        if (status == SCIO_OK)
            status = scio_indices_validate(dst, dst_dtype, count, take->matrix->n_cols,
                                           (int64_t)first, err);
        if (status != SCIO_OK)
            status = scio_matrix_index_error(take->matrix, status, err);
    }
    return status;
}

typedef struct visit_context {
    const scio_matrix_taking *take;
    unsigned which;
} visit_context;

static scio_status
visit_unit(void *context, uint64_t i_unit, const void *data, size_t nbytes, size_t shuffle_itemsize,
           scio_error *err)
{
    const visit_context *const visit = context;
    const scio_matrix_taking *const take = visit->take;
    const int64_t *const indptr = take->matrix->indptr;
    const scio_h5_dataset *const dataset = scio_matrix_dataset(take->matrix, visit->which);
    const size_t itemsize = dataset->type->itemsize;
    const int64_t begin = (int64_t)(i_unit * dataset->unit_dims[0]);
    const int64_t end = begin + (int64_t)(nbytes / itemsize);
    size_t low = 0, high = take->n_requests;

    SCIO_BUG_IF(shuffle_itemsize > 1, err);
    while (low < high) { /* the first request whose row ends behind the unit's begin */
        const size_t middle = low + (high - low) / 2;
        if (indptr[take->requests[middle].row + 1] > begin)
            high = middle;
        else
            low = middle + 1;
    }
    for (; low < take->n_requests && indptr[take->requests[low].row] < end; low++) {
        const scio_matrix_request request = take->requests[low];
        const int64_t row_begin = indptr[request.row], row_end = indptr[request.row + 1];
        const int64_t from = row_begin > begin ? row_begin : begin;
        const int64_t to = row_end < end ? row_end : end;
        if (from >= to)
            continue;
        const int64_t *const out_indptr = scio_buf_data(take->out->indptr);
        SCIO_TRY(scio_matrix_put_items(
            take, visit->which, (const char *)data + (size_t)(from - begin) * itemsize,
            (uint64_t)from, (size_t)(to - from), out_indptr[request.i] + (from - row_begin), err));
    }
    return SCIO_OK;
}

static scio_status
run_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const take_context *const take = context;
    scio_matrix *const matrix = take->taking.matrix;

    if (i_item >= take->n_runs) {
        const size_t i = i_item - take->n_runs;
        const unsigned which = i >= take->n_direct[0];

        return scio_matrix_take_direct(&take->taking, which, which ? i - take->n_direct[0] : i,
                                       err);
    }
    const take_run *const run = &take->runs[i_item];
    visit_context visit = {&take->taking, run->which};
    const scio_unit_reader reader = {matrix,     scio_matrix_dataset(matrix, run->which),
                                     run->which, take->is_cached[run->which],
                                     visit_unit, &visit};

    return scio_unit_reader_run(&reader, run->i_first, run->n_units, &take->scratches[slot],
                                take->taking.cancel, err);
}

/* What is asked of each array: runs of whole units, or stretches of rows. */
static scio_status
list_work(take_context *take, take_run **runs_out, scio_error *err)
{
    const scio_matrix_taking *const taking = &take->taking;
    const size_t cap = scio_unit_cache_cap(scio_matrix_private(taking->matrix)->cache);
    size_t n_runs[2] = {0, 0};
    uint64_t n_units;

    for (unsigned which = 0; which < 2; which++) {
        const uint64_t nbytes = scio_matrix_dataset(taking->matrix, which)->unit_nbytes;

        n_runs[which] = list_runs(taking, which, NULL, &n_units);
        /* more than the cache holds would only flush it */
        take->is_cached[which] = nbytes == 0 || n_units <= cap / 2 / nbytes;
        SCIO_TRY(scio_matrix_count_direct(taking, which, n_units, &take->n_direct[which], err));
        if (take->n_direct[which] > 0)
            n_runs[which] = 0;
    }
    take->n_runs = n_runs[0] + n_runs[1];
    SCIO_TRY(scio_mem_alloc(take->n_runs, sizeof **runs_out, runs_out, err));
    if (n_runs[0] > 0)
        (void)list_runs(taking, 0, *runs_out, &n_units);
    if (n_runs[1] > 0)
        (void)list_runs(taking, 1, *runs_out + n_runs[0], &n_units);
    take->runs = *runs_out;
    return SCIO_OK;
}

static scio_status
take_from_file(take_context *take, size_t max_parallel, scio_error *err)
{
    take_run *runs = NULL;
    size_t n_items, n_slots = 0;
    scio_status status = list_work(take, &runs, err);

    if (status != SCIO_OK)
        goto done;
    n_items = take->n_runs + take->n_direct[0] + take->n_direct[1];
    n_slots = scio_parallel_n_slots(NULL, max_parallel, n_items);
    status = scio_scratches_new(n_slots, &take->scratches, err);
    if (status != SCIO_OK)
        goto done;
    /* not max_parallel: the pool may have grown since the scratches were counted */
    status = scio_parallel_for(NULL, max_parallel == 0 ? 0 : n_slots, n_items, run_item, take,
                               take->taking.cancel, err);
done:
    scio_scratches_free(take->scratches, n_slots);
    scio_mem_free(runs);
    return status;
}

static scio_status
take_from_memory(const scio_matrix_taking *take, scio_error *err)
{
    const scio_matrix *const matrix = take->matrix;
    const scio_csr *const out = take->out;
    const int64_t *const out_indptr = scio_buf_data(out->indptr);
    const char *const data = scio_buf_data(matrix->data);
    const char *const indices = scio_buf_data(matrix->indices);
    char *const out_data = scio_buf_data(out->data), *const out_indices =
                                                         scio_buf_data(out->indices);

    for (size_t i = 0; i < take->n_requests; i++) {
        const scio_matrix_request request = take->requests[i];
        const size_t first = (size_t)matrix->indptr[request.row];
        const size_t count = (size_t)matrix->indptr[request.row + 1] - first;
        const size_t at = (size_t)out_indptr[request.i];
        if (take->cancel != NULL && *take->cancel != 0)
            return scio_fail(err, SCIO_ECANCEL, "cancelled");
        SCIO_TRY(scio_cast(matrix->data_dtype,
                           data + first * scio_dtype_itemsize(matrix->data_dtype), out->data_dtype,
                           out_data + at * scio_dtype_itemsize(out->data_dtype), count, err));
        char *const columns = out_indices + at * scio_dtype_itemsize(out->index_dtype);
        scio_status status = scio_cast(matrix->index_dtype,
                                       indices + first * scio_dtype_itemsize(matrix->index_dtype),
                                       out->index_dtype, columns, count, err);
        if (status == SCIO_OK && matrix->is_mapped) /* what was copied is what is checked */
            status = scio_indices_validate(columns, out->index_dtype, count, matrix->n_cols,
                                           (int64_t)first, err);
        if (status != SCIO_OK)
            return scio_matrix_index_error(matrix, status, err);
    }
    return SCIO_OK;
}

static scio_status
take_csr(scio_matrix *matrix, const scio_matrix_rows *rows, scio_dtype data_dtype,
         size_t max_parallel, const volatile int *cancel, scio_csr *out, scio_error *err)
{
    scio_matrix_request *requests = NULL;
    scio_csr csr;
    int64_t nnz = 0;
    scio_status status;

    memset(&csr, 0, sizeof csr);
    for (size_t i = 0; i < rows->n_rows; i++) {
        const int64_t row = scio_matrix_row_at(rows, i);
        const int64_t n_items = matrix->indptr[row + 1] - matrix->indptr[row];
        if (n_items > INT64_MAX - nnz)
            return scio_fail(err, SCIO_ENOMEM, "%s: too many entries asked for", matrix->name);
        nnz += n_items;
    }
    status = scio_matrix_csr_new(matrix, (int64_t)rows->n_rows, nnz, data_dtype, &csr, err);
    if (status != SCIO_OK)
        goto done;
    int64_t *const indptr = scio_buf_data(csr.indptr);
    indptr[0] = 0;
    for (size_t i = 0; i < rows->n_rows; i++) {
        const int64_t row = scio_matrix_row_at(rows, i);
        indptr[i + 1] = indptr[i] + (matrix->indptr[row + 1] - matrix->indptr[row]);
    }
    status = scio_matrix_sort_requests(rows, &requests, err);
    if (status != SCIO_OK)
        goto done;
    take_context take = {.taking = {.matrix = matrix,
                                    .requests = requests,
                                    .n_requests = rows->n_rows,
                                    .out = &csr,
                                    .cancel = cancel}};
    if (matrix->is_in_file)
        status = take_from_file(&take, max_parallel, err);
    else
        status = take_from_memory(&take.taking, err);
    if (status == SCIO_OK) {
        *out = csr;
        memset(&csr, 0, sizeof csr);
    }
done:
    scio_mem_free(requests);
    scio_csr_clear(&csr);
    return status;
}

scio_status
scio_matrix_take(scio_matrix *matrix, const int64_t *rows, size_t n_rows, scio_dtype data_dtype,
                 size_t max_parallel, const volatile int *cancel, scio_csr *out, scio_error *err)
{
    const scio_matrix_rows wanted = {rows, 0, n_rows};

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n_rows; i++)
        if (rows[i] < 0 || rows[i] >= matrix->n_rows)
            return scio_fail(err, SCIO_ERANGE, "%s: row %" PRId64 " is not in [0, %" PRId64 ")",
                             matrix->name, rows[i], matrix->n_rows);
    return scio_matrix_blame(
        matrix,
        matrix->kind == SCIO_MATRIX_DENSE
            ? scio_matrix_take_dense(matrix, &wanted, data_dtype, max_parallel, cancel, out, err)
            : take_csr(matrix, &wanted, data_dtype, max_parallel, cancel, out, err),
        err);
}
