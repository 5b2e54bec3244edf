/* Functions over CSR arrays of the caller: the gate, row gather, conversions.
 *
 * The arrays are the caller's and can change between two calls, so what a function indexes with is
 * checked in that call: the extents of the rows it gathers, all indices where it scatters by them.
 */
#include "py/py.h"

#include "base/mem.h"

int
py_csr_view_from(const py_state *state, const py_view *data, const py_view *indices,
                 const py_view *indptr, const int64_t shape[2], scio_csr_view *out)
{
    if (indptr->n_items == 0 || (int64_t)indptr->n_items - 1 != shape[0]) {
        py_fail(state, SCIO_ECORRUPT, "indptr has %zu entries, %lld rows need %lld",
                indptr->n_items, (long long)shape[0], (long long)shape[0] + 1);
        return -1;
    }
    if (data->array != NULL && data->n_items != indices->n_items) {
        py_fail(state, SCIO_ECORRUPT, "data has %zu entries, indices has %zu", data->n_items,
                indices->n_items);
        return -1;
    }
    *out = (scio_csr_view){
        .n_rows = shape[0],
        .n_cols = shape[1],
        .nnz = (int64_t)indices->n_items,
        .indptr = indptr->data,
        .indices = indices->data,
        .index_dtype = indices->dtype,
        .data = data->array == NULL ? NULL : data->data,
        .data_dtype = data->dtype,
    };
    return 0;
}

typedef struct csr_args {
    py_view data, indices, indptr, rows;
    int64_t shape[2];
    int level;
    scio_csr_view csr;
} csr_args;

/* (data, indices, indptr[, rows], /, *, shape[, level]) */
static int
parse_csr(const py_state *state, const char *function, bool is_data_nullable, bool has_rows,
          const char *const *levels, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames,
          csr_args *out)
{
    py_param params[6] = {
        {.name = "data", .kind = PY_ARRAY, .out = &out->data, .rank = 1},
        {.name = "indices", .kind = PY_ARRAY, .out = &out->indices, .rank = 1},
        {.name = "indptr", .kind = PY_ARRAY, .out = &out->indptr, .rank = 1, .dtype = SCIO_I64},
    };
    size_t n_params = 3, n_positional;

    params[0].is_nullable = is_data_nullable;
    if (has_rows)
        params[n_params++] = (py_param){
            .name = "rows", .kind = PY_ARRAY, .out = &out->rows, .rank = 1, .dtype = SCIO_I64};
    n_positional = n_params;
    params[n_params++] = (py_param){.name = "shape", .kind = PY_SHAPE, .out = out->shape};
    if (levels != NULL)
        params[n_params++] = (py_param){.name = "level",
                                        .kind = PY_CHOICE,
                                        .is_optional = true,
                                        .out = &out->level,
                                        .choices = levels};
    if (py_parse(state, function, params, n_params, n_positional, args, n_args, kwnames) < 0)
        return -1;
    return py_csr_view_from(state, &out->data, &out->indices, &out->indptr, out->shape, &out->csr);
}

static PyObject *
csr_validate(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const levels[] = {"shape", "structure", "full", NULL};
    const py_state *const state = py_state_of_module(module);
    csr_args a = {.level = SCIO_CHECK_FULL};
    scio_csr_facts facts = {false, false};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (parse_csr(state, "csr_validate", true, false, levels, args, n_args, kwnames, &a) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_csr_validate(&a.csr, (scio_check)a.level, &facts, &err);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_raise(state, &err);
    if (a.level != SCIO_CHECK_FULL)
        facts = (scio_csr_facts){false, false};
    return Py_BuildValue("(NN)", PyBool_FromLong(facts.is_sorted),
                         PyBool_FromLong(facts.has_duplicates));
}

/* The extents of the rows that will be gathered; a row out of range is left to the gather. */
static scio_status
check_extents(const scio_csr_view *csr, const int64_t *rows, size_t n_rows, scio_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        const int64_t row = rows[i];

        if (row < 0 || row >= csr->n_rows)
            continue;
        if (csr->indptr[row] < 0 || csr->indptr[row] > csr->indptr[row + 1] ||
            csr->indptr[row + 1] > csr->nnz)
            return scio_fail(err, SCIO_ECORRUPT,
                             "indptr[%lld] is %lld and indptr[%lld] is %lld, not an extent in "
                             "[0, %lld]",
                             (long long)row, (long long)csr->indptr[row], (long long)row + 1,
                             (long long)csr->indptr[row + 1], (long long)csr->nnz);
    }
    return SCIO_OK;
}

static PyObject *
csr_take(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    csr_args a = {0};
    scio_csr out = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (parse_csr(state, "csr_take", false, true, NULL, args, n_args, kwnames, &a) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_csr_validate(&a.csr, SCIO_CHECK_SHAPE, NULL, &err);
    if (status == SCIO_OK)
        status = check_extents(&a.csr, a.rows.data, a.rows.n_items, &err);
    if (status == SCIO_OK)
        status = scio_csr_take_rows(&a.csr, a.rows.data, a.rows.n_items, &out, &err);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? py_csr_arrays(&out) : py_raise(state, &err);
}

static PyObject *
csr_transpose(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    csr_args a = {0};
    scio_csr out = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (parse_csr(state, "csr_transpose", false, false, NULL, args, n_args, kwnames, &a) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_csr_validate(&a.csr, SCIO_CHECK_FULL, NULL, &err);
    if (status == SCIO_OK)
        status = scio_csr_transpose(&a.csr, &out, &err);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? py_csr_arrays(&out) : py_raise(state, &err);
}

/* A buffer for n_rows * n_cols values. */
static scio_status
new_dense(const int64_t shape[2], scio_dtype dtype, scio_buf **out, scio_error *err)
{
    size_t n_items, nbytes;

    if (!scio_mul_size((size_t)shape[0], (size_t)shape[1], &n_items) ||
        !scio_mul_size(n_items, scio_dtype_itemsize(dtype), &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "a dense matrix of %lld x %lld", (long long)shape[0],
                         (long long)shape[1]);
    return scio_buf_new(nbytes, out, err);
}

static PyObject *
csr_to_dense(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    csr_args a = {0};
    npy_intp dims[2];
    scio_buf *out = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (parse_csr(state, "csr_to_dense", false, false, NULL, args, n_args, kwnames, &a) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_csr_validate(&a.csr, SCIO_CHECK_FULL, NULL, &err);
    if (status == SCIO_OK)
        status = new_dense(a.shape, a.csr.data_dtype, &out, &err);
    if (status == SCIO_OK)
        status = scio_csr_to_dense(&a.csr, scio_buf_data(out), scio_buf_nbytes(out), &err);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK) {
        scio_buf_release(out);
        return py_raise(state, &err);
    }
    dims[0] = (npy_intp)a.shape[0];
    dims[1] = (npy_intp)a.shape[1];
    return py_array_from_buf(out, a.csr.data_dtype, 2, dims);
}

static PyObject *
csr_from_dense(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    py_view dense = {0};
    const py_param params[] = {{.name = "dense", .kind = PY_ARRAY, .out = &dense, .rank = 2}};
    scio_csr out = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    int64_t n_rows, n_cols;

    if (py_parse(state, "csr_from_dense", params, 1, 1, args, n_args, NULL) < 0)
        return NULL;
    n_rows = (int64_t)dense.dims[0];
    n_cols = (int64_t)dense.dims[1];
    Py_BEGIN_ALLOW_THREADS;
    status = scio_csr_from_dense(dense.data, dense.dtype, n_rows, n_cols, &out, &err);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? py_csr_arrays(&out) : py_raise(state, &err);
}

PyMethodDef py_csr_methods[] = {
    {"csr_validate", PY_METHOD(csr_validate), METH_FASTCALL | METH_KEYWORDS,
     "csr_validate($module, data, indices, indptr, /, *, shape, level='full')\n--\n\n"
     "Run the gate; return (is_sorted, has_duplicates) ((False, False) below \"full\")."},
    {"csr_take", PY_METHOD(csr_take), METH_FASTCALL | METH_KEYWORDS,
     "csr_take($module, data, indices, indptr, rows, /, *, shape)\n--\n\n"
     "Gather rows of validated arrays."},
    {"csr_transpose", PY_METHOD(csr_transpose), METH_FASTCALL | METH_KEYWORDS,
     "csr_transpose($module, data, indices, indptr, /, *, shape)\n--\n\n"
     "Return the arrays of the transpose."},
    {"csr_to_dense", PY_METHOD(csr_to_dense), METH_FASTCALL | METH_KEYWORDS,
     "csr_to_dense($module, data, indices, indptr, /, *, shape)\n--\n\n"
     "Return the dense matrix; duplicates are summed."},
    {"csr_from_dense", PY_METHOD(csr_from_dense), METH_FASTCALL,
     "csr_from_dense($module, dense, /)\n--\n\n"
     "Return data, indices, indptr of the values that are not zero."},
    {NULL, NULL, 0, NULL},
};
