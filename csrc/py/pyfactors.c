/* Size factors by pooling: the four steps of preprocess/pooling.h over arrays of the caller.
 *
 * Indices and extents are checked by the core in the same call; here only the lengths of arrays
 * that belong together are. */
#include "py/py.h"

#include "base/mem.h"
#include "preprocess/pooling.h"

#include <string.h>

/* Length `n_items`, and writable when it is written to. */
static int
check_array(const py_state *state, const py_view *view, const char *name, int64_t n_items,
            bool is_written)
{
    if ((int64_t)view->n_items != n_items) {
        py_fail(state, SCIO_EINVAL, "%s has %zu items, expected %lld", name, view->n_items,
                (long long)n_items);
        return -1;
    }
    if (is_written && !PyArray_ISWRITEABLE((PyArrayObject *)view->array)) {
        py_fail(state, SCIO_EINVAL, "%s is read-only, expected an array to write into", name);
        return -1;
    }
    return 0;
}

/* --- rows */

typedef struct block_args {
    py_view data, indices, indptr, parts;
    int64_t shape[2];
    scio_pooling_block block;
} block_args;

#define N_BLOCK_ARRAYS 4

static void
block_params(block_args *a, py_param params[N_BLOCK_ARRAYS])
{
    params[0] = (py_param){.name = "data", .kind = PY_ARRAY, .out = &a->data, .rank = 1};
    params[1] = (py_param){.name = "indices", .kind = PY_ARRAY, .out = &a->indices, .rank = 1};
    params[2] = (py_param){
        .name = "indptr", .kind = PY_ARRAY, .out = &a->indptr, .rank = 1, .dtype = SCIO_I64};
    params[3] = (py_param){
        .name = "parts", .kind = PY_ARRAY, .out = &a->parts, .rank = 1, .dtype = SCIO_I32};
}

/* `table`: an array [n_parts, n_cols], which says how many parts there are. */
static int
finish_block(const py_state *state, block_args *a, const py_view *table, const char *name)
{
    if (py_csr_view_from(state, &a->data, &a->indices, &a->indptr, a->shape, &a->block.rows) < 0)
        return -1;
    if (check_array(state, &a->parts, "parts", a->shape[0], false) < 0)
        return -1;
    if (table->dims[1] != (npy_intp)a->shape[1]) {
        py_fail(state, SCIO_EINVAL, "%s has %lld columns, expected %lld", name,
                (long long)table->dims[1], (long long)a->shape[1]);
        return -1;
    }
    a->block.parts = a->parts.data;
    a->block.n_parts = (int64_t)table->dims[0];
    return 0;
}

typedef struct scan_call {
    const scio_pooling_block *block;
    double *totals, *sums, *maxima;
    scio_pooling_facts facts;
} scan_call;

static scio_status
run_scan(void *context, const volatile int *cancel, scio_error *err)
{
    scan_call *const c = context;

    return scio_pooling_scan(c->block, c->totals, c->sums, c->maxima, &c->facts, cancel, err);
}

/* (totals, n_values, n_fractions, maximum, (row, column, value) of the first fraction) */
static PyObject *
wrap_scan(const scio_pooling_facts *facts, scio_buf *totals, int64_t n_rows)
{
    PyObject *const array = py_array_1d(totals, SCIO_F64, n_rows);

    if (array == NULL)
        return NULL;
    return Py_BuildValue("NLLd(LLd)", array, (long long)facts->n_values,
                         (long long)facts->n_fractions, facts->maximum, (long long)facts->row,
                         (long long)facts->column, facts->fraction);
}

static PyObject *
pooling_scan(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    block_args a = {0};
    py_view sums = {0}, maxima = {0};
    py_param params[N_BLOCK_ARRAYS + 4] = {
        [4] = {.name = "sums", .kind = PY_ARRAY, .out = &sums, .rank = 2, .dtype = SCIO_F64},
        [5] = {.name = "maxima", .kind = PY_ARRAY, .out = &maxima, .rank = 2, .dtype = SCIO_F64},
        [6] = {.name = "shape", .kind = PY_SHAPE, .out = a.shape},
        [7] = {.name = "first_row", .kind = PY_INT64, .out = &a.block.first_row}};
    scio_buf *totals = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scan_call call;

    block_params(&a, params);
    if (py_parse(state, "pooling_scan", params, 8, 6, args, n_args, kwnames) < 0 ||
        finish_block(state, &a, &sums, "sums") < 0 ||
        check_array(state, &sums, "sums", (int64_t)sums.n_items, true) < 0 ||
        check_array(state, &maxima, "maxima", (int64_t)sums.n_items, true) < 0)
        return NULL;
    if (scio_buf_new(a.parts.n_items * sizeof(double), &totals, &err) != SCIO_OK)
        return py_raise(state, &err);
    call = (scan_call){.block = &a.block,
                       .totals = scio_buf_data(totals),
                       .sums = sums.data,
                       .maxima = maxima.data};
    if (py_call(run_scan, &call, a.data.n_items >= PY_SHORT_NBYTES, &err) == SCIO_OK)
        return wrap_scan(&call.facts, totals, a.shape[0]);
    scio_buf_release(totals);
    return py_raise(state, &err);
}

typedef struct take_call {
    const scio_pooling_block *block;
    const double *totals;
    scio_pooling_genes genes;
    scio_pooling_ratios ratios;
    int64_t *starts, *counts;
} take_call;

static scio_status
run_take(void *context, const volatile int *cancel, scio_error *err)
{
    take_call *const c = context;

    return scio_pooling_take(c->block, c->totals, &c->genes, &c->ratios, c->starts, c->counts,
                             cancel, err);
}

/* The arrays of pooling_take beside those of the block. */
typedef struct take_args {
    py_view totals, positions, averages, magics, genes, values;
    int64_t n_used;
} take_args;

static int
check_take(const py_state *state, const block_args *a, const take_args *t)
{
    const int64_t n_table = (int64_t)t->positions.n_items;

    if (check_array(state, &t->totals, "totals", a->shape[0], false) < 0 ||
        check_array(state, &t->averages, "averages", n_table, false) < 0 ||
        check_array(state, &t->magics, "magics", n_table, false) < 0 ||
        check_array(state, &t->genes, "genes", (int64_t)t->values.n_items, true) < 0 ||
        check_array(state, &t->values, "values", (int64_t)t->values.n_items, true) < 0)
        return -1;
    if (t->n_used >= 0 && t->n_used <= (int64_t)t->values.n_items)
        return 0;
    py_fail(state, SCIO_EINVAL, "n_used is %lld of %zu ratios", (long long)t->n_used,
            t->values.n_items);
    return -1;
}

static PyObject *
wrap_take(const take_call *call, scio_buf *starts, scio_buf *counts, int64_t n_rows)
{
    PyObject *const starts_array = py_array_1d(starts, SCIO_I64, n_rows);
    PyObject *const counts_array = py_array_1d(counts, SCIO_I64, n_rows);
    PyObject *const result =
        starts_array == NULL || counts_array == NULL
            ? NULL
            : Py_BuildValue("OOn", starts_array, counts_array, (Py_ssize_t)call->ratios.n_used);

    Py_XDECREF(starts_array);
    Py_XDECREF(counts_array);
    return result;
}

static PyObject *
take_rows(const py_state *state, const block_args *a, const take_args *t)
{
    take_call call = {
        .block = &a->block,
        .totals = t->totals.data,
        .genes = {t->positions.data, t->averages.data, t->magics.data},
        .ratios = {t->genes.data, t->values.data, t->values.n_items, (size_t)t->n_used}};
    const size_t nbytes = a->parts.n_items * sizeof(int64_t);
    scio_buf *starts = NULL, *counts = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status = scio_buf_new(nbytes, &starts, &err);

    if (status == SCIO_OK)
        status = scio_buf_new(nbytes, &counts, &err);
    if (status == SCIO_OK) {
        call.starts = scio_buf_data(starts);
        call.counts = scio_buf_data(counts);
        status = py_call(run_take, &call, a->data.n_items >= PY_SHORT_NBYTES, &err);
    }
    if (status == SCIO_OK)
        return wrap_take(&call, starts, counts, a->shape[0]);
    scio_buf_release(starts);
    scio_buf_release(counts);
    return py_raise(state, &err);
}

static PyObject *
pooling_take(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    block_args a = {0};
    take_args t = {0};
    py_param params[N_BLOCK_ARRAYS + 9] = {
        [4] = {.name = "totals", .kind = PY_ARRAY, .out = &t.totals, .rank = 1, .dtype = SCIO_F64},
        [5] = {.name = "positions",
               .kind = PY_ARRAY,
               .out = &t.positions,
               .rank = 2,
               .dtype = SCIO_I32},
        [6] = {.name = "averages",
               .kind = PY_ARRAY,
               .out = &t.averages,
               .rank = 2,
               .dtype = SCIO_F64},
        [7] = {.name = "magics", .kind = PY_ARRAY, .out = &t.magics, .rank = 2, .dtype = SCIO_F64},
        [8] = {.name = "genes", .kind = PY_ARRAY, .out = &t.genes, .rank = 1, .dtype = SCIO_I32},
        [9] = {.name = "values", .kind = PY_ARRAY, .out = &t.values, .rank = 1, .dtype = SCIO_F64},
        [10] = {.name = "shape", .kind = PY_SHAPE, .out = a.shape},
        [11] = {.name = "first_row", .kind = PY_INT64, .out = &a.block.first_row},
        [12] = {.name = "n_used", .kind = PY_INT64, .out = &t.n_used}};

    block_params(&a, params);
    if (py_parse(state, "pooling_take", params, 13, 10, args, n_args, kwnames) < 0 ||
        finish_block(state, &a, &t.positions, "positions") < 0 || check_take(state, &a, &t) < 0)
        return NULL;
    return take_rows(state, &a, &t);
}

/* --- one cluster */

typedef struct cluster_call {
    scio_pooling_ring ring;
    const int64_t *sizes;
    size_t n_sizes, n_threads;
    int64_t n_cells;
    double weak;
    const double *medians;
    double *out;
} cluster_call;

static scio_status
run_medians(void *context, const volatile int *cancel, scio_error *err)
{
    const cluster_call *const c = context;

    return scio_pooling_medians(&c->ring, c->sizes, c->n_sizes, c->n_threads, c->out, cancel, err);
}

static PyObject *
pooling_medians(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    py_view starts = {0}, counts = {0}, genes = {0}, values = {0}, sizes = {0};
    cluster_call c = {.n_threads = SIZE_MAX};
    const py_param params[] = {
        {.name = "starts", .kind = PY_ARRAY, .out = &starts, .rank = 1, .dtype = SCIO_I64},
        {.name = "counts", .kind = PY_ARRAY, .out = &counts, .rank = 1, .dtype = SCIO_I64},
        {.name = "genes", .kind = PY_ARRAY, .out = &genes, .rank = 1, .dtype = SCIO_I32},
        {.name = "values", .kind = PY_ARRAY, .out = &values, .rank = 1, .dtype = SCIO_F64},
        {.name = "sizes", .kind = PY_ARRAY, .out = &sizes, .rank = 1, .dtype = SCIO_I64},
        {.name = "n_genes", .kind = PY_INT64, .out = &c.ring.n_genes},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &c.n_threads}};
    scio_buf *medians = NULL;
    scio_error err = SCIO_ERROR_INIT;
    npy_intp dims[2];
    size_t nbytes;

    if (py_parse(state, "pooling_medians", params, 7, 5, args, n_args, kwnames) < 0 ||
        check_array(state, &counts, "counts", (int64_t)starts.n_items, false) < 0 ||
        check_array(state, &genes, "genes", (int64_t)values.n_items, false) < 0)
        return NULL;
    if (!scio_mul_size(sizes.n_items, starts.n_items, &nbytes) ||
        !scio_mul_size(nbytes, sizeof(double), &nbytes))
        return py_fail(state, SCIO_ENOMEM, "medians of %zu sizes and %zu cells", sizes.n_items,
                       starts.n_items);
    if (scio_buf_new(nbytes, &medians, &err) != SCIO_OK)
        return py_raise(state, &err);
    c.ring = (scio_pooling_ring){.n_cells = (int64_t)starts.n_items,
                                 .n_genes = c.ring.n_genes,
                                 .starts = starts.data,
                                 .counts = counts.data,
                                 .genes = genes.data,
                                 .values = values.data,
                                 .nnz = (int64_t)values.n_items};
    c.sizes = sizes.data;
    c.n_sizes = sizes.n_items;
    c.out = scio_buf_data(medians);
    dims[0] = (npy_intp)sizes.n_items;
    dims[1] = (npy_intp)starts.n_items;
    if (py_call(run_medians, &c, true, &err) == SCIO_OK)
        return py_array_from_buf(medians, SCIO_F64, 2, dims);
    scio_buf_release(medians);
    return py_raise(state, &err);
}

static scio_status
run_solve(void *context, const volatile int *cancel, scio_error *err)
{
    const cluster_call *const c = context;

    return scio_pooling_solve(c->medians, c->sizes, c->n_sizes, c->n_cells, c->weak, c->n_threads,
                              c->out, cancel, err);
}

static PyObject *
pooling_solve(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    py_view medians = {0}, sizes = {0};
    cluster_call c = {.n_threads = SIZE_MAX};
    const py_param params[] = {
        {.name = "medians", .kind = PY_ARRAY, .out = &medians, .rank = 2, .dtype = SCIO_F64},
        {.name = "sizes", .kind = PY_ARRAY, .out = &sizes, .rank = 1, .dtype = SCIO_I64},
        {.name = "weak", .kind = PY_DOUBLE, .out = &c.weak},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &c.n_threads}};
    scio_buf *factors = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "pooling_solve", params, 4, 2, args, n_args, kwnames) < 0)
        return NULL;
    c.n_cells = (int64_t)medians.dims[1];
    if (check_array(state, &sizes, "sizes", (int64_t)medians.dims[0], false) < 0)
        return NULL;
    if (scio_buf_new((size_t)c.n_cells * sizeof(double), &factors, &err) != SCIO_OK)
        return py_raise(state, &err);
    c.medians = medians.data;
    c.sizes = sizes.data;
    c.n_sizes = sizes.n_items;
    c.out = scio_buf_data(factors);
    if (py_call(run_solve, &c, medians.n_items >= PY_SHORT_NBYTES, &err) == SCIO_OK)
        return py_array_1d(factors, SCIO_F64, c.n_cells);
    scio_buf_release(factors);
    return py_raise(state, &err);
}

PyMethodDef py_factor_methods[] = {
    {"pooling_scan", PY_METHOD(pooling_scan), METH_FASTCALL | METH_KEYWORDS,
     "pooling_scan($module, data, indices, indptr, parts, sums, maxima, /, *, shape, first_row)\n"
     "--\n\n"
     "Return totals of rows and facts; adds values over totals to sums, raises maxima."},
    {"pooling_take", PY_METHOD(pooling_take), METH_FASTCALL | METH_KEYWORDS,
     "pooling_take($module, data, indices, indptr, parts, totals, positions, averages, magics,\n"
     "             genes, values, /, *, shape, first_row, n_used)\n--\n\n"
     "Append ratios of kept genes to genes and values; return starts, counts, n_used."},
    {"pooling_medians", PY_METHOD(pooling_medians), METH_FASTCALL | METH_KEYWORDS,
     "pooling_medians($module, starts, counts, genes, values, sizes, /, *, n_genes, threads=-1)\n"
     "--\n\n"
     "Return the medians over genes of the sums over windows of the ring, by size."},
    {"pooling_solve", PY_METHOD(pooling_solve), METH_FASTCALL | METH_KEYWORDS,
     "pooling_solve($module, medians, sizes, /, *, weak, threads=-1)\n--\n\n"
     "Return the least squares solution of the pooled equations."},
    {NULL, NULL, 0, NULL},
};
