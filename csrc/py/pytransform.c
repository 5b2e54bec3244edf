/* Functions of scio.pp over the values of a matrix: totals, transforms, scaling, subsets.
 *
 * A matrix is (data, indices, indptr) or, with None for the last two, a C-ordered array of two
 * dimensions. indptr is checked here, indices in the core where they are used. */
#include "py/py.h"

#include "preprocess/log1p_f64.h"
#include "preprocess/scale.h"
#include "preprocess/subset.h"
#include "preprocess/transform.h"

#include <math.h>

#define PY_LONG_N_VALUES ((int64_t)1 << 22) /* some ten milliseconds */

typedef struct matrix_args {
    py_view data, indices, indptr;
    int64_t shape[2];
    size_t n_threads;
    scio_csr_view csr;
} matrix_args;

#define MATRIX_PARAMS(a)                                                                           \
    {.name = "data", .kind = PY_ARRAY, .out = &(a)->data, .rank = -1},                             \
        {.name = "indices",                                                                        \
         .kind = PY_ARRAY,                                                                         \
         .is_nullable = true,                                                                      \
         .out = &(a)->indices,                                                                     \
         .rank = 1},                                                                               \
    {                                                                                              \
        .name = "indptr", .kind = PY_ARRAY, .is_nullable = true, .out = &(a)->indptr, .rank = 1,   \
        .dtype = SCIO_I64                                                                          \
    }

#define NAMED_PARAMS(a)                                                                            \
    {.name = "shape", .kind = PY_SHAPE, .out = (a)->shape},                                        \
    {                                                                                              \
        .name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &(a)->n_threads         \
    }

static bool
is_long(const matrix_args *a)
{
    return (int64_t)a->data.n_items >= PY_LONG_N_VALUES;
}

static int
check_indptr(const py_state *state, const py_view *indptr, int64_t n_rows, int64_t nnz)
{
    scio_error err = SCIO_ERROR_INIT;

    if ((int64_t)indptr->n_items - 1 != n_rows) {
        py_fail(state, SCIO_ECORRUPT, "indptr has %zu entries, %lld rows need %lld",
                indptr->n_items, (long long)n_rows, (long long)n_rows + 1);
        return -1;
    }
    if (scio_indptr_validate(indptr->data, n_rows, nnz, &err) == SCIO_OK)
        return 0;
    py_raise(state, &err);
    return -1;
}

static int
finish_dense(const py_state *state, matrix_args *a)
{
    if (a->data.rank != 2 || a->indices.array != NULL) {
        py_fail(state, SCIO_EINVAL,
                "without indptr the matrix is dense: data needs 2 dimensions (it has %d) and "
                "indices must be None",
                a->data.rank);
        return -1;
    }
    if ((int64_t)a->data.dims[0] != a->shape[0] || (int64_t)a->data.dims[1] != a->shape[1]) {
        py_fail(state, SCIO_EINVAL, "data is %lld x %lld, shape says %lld x %lld",
                (long long)a->data.dims[0], (long long)a->data.dims[1], (long long)a->shape[0],
                (long long)a->shape[1]);
        return -1;
    }
    a->csr = (scio_csr_view){.n_rows = a->shape[0],
                             .n_cols = a->shape[1],
                             .nnz = (int64_t)a->data.n_items,
                             .data = a->data.data,
                             .data_dtype = a->data.dtype};
    return 0;
}

/* The C view over what was parsed. */
static int
finish_matrix(const py_state *state, matrix_args *a)
{
    if (a->indptr.array == NULL)
        return finish_dense(state, a);
    if (a->indices.array == NULL || a->data.rank != 1) {
        py_fail(state, SCIO_EINVAL, "with indptr, indices and a data of 1 dimension are needed");
        return -1;
    }
    if (py_csr_view_from(state, &a->data, &a->indices, &a->indptr, a->shape, &a->csr) < 0)
        return -1;
    return check_indptr(state, &a->indptr, a->shape[0], a->csr.nnz);
}

static int
check_length(const py_state *state, const char *name, const py_view *view, int64_t n_expected)
{
    if (view->array == NULL || (int64_t)view->n_items == n_expected)
        return 0;
    py_fail(state, SCIO_EINVAL, "%s has %zu entries, expected %lld", name, view->n_items,
            (long long)n_expected);
    return -1;
}

/* n_items values of `itemsize` bytes; NULL with an exception. */
static scio_buf *
new_buf(const py_state *state, int64_t n_items, size_t itemsize)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;

    if (n_items > (int64_t)(PTRDIFF_MAX / (ptrdiff_t)itemsize))
        py_fail(state, SCIO_ENOMEM, "%lld values of %zu bytes", (long long)n_items, itemsize);
    else if (scio_buf_new((size_t)n_items * itemsize, &buf, &err) != SCIO_OK)
        py_raise(state, &err);
    return buf;
}

/* --- where a result goes: into an array of the caller or a new one */

typedef struct result_args {
    PyObject *given; /* borrowed; NULL or None = a new array */
    scio_dtype dtype;
    py_view view;
    scio_buf *buf;
    void *data;
} result_args;

static int
take_given(const py_state *state, int64_t n_items, result_args *r)
{
    if (py_view_from(state, r->given, "out", -1, r->dtype, &r->view) < 0 ||
        check_length(state, "out", &r->view, n_items) < 0)
        return -1;
    if (!PyArray_ISWRITEABLE((PyArrayObject *)r->given)) {
        py_fail(state, SCIO_EINVAL, "out is read-only");
        return -1;
    }
    r->data = r->view.data;
    return 0;
}

/* The type is `dtype`, or follows the input: float64 for float64, else float32. */
static int
prepare_result(const py_state *state, scio_dtype in_dtype, int64_t n_items, result_args *r)
{
    if (r->dtype == SCIO_DTYPE_NONE)
        r->dtype = in_dtype == SCIO_F64 ? SCIO_F64 : SCIO_F32;
    if (r->dtype != SCIO_F32 && r->dtype != SCIO_F64) {
        py_fail(state, SCIO_EINVAL, "dtype is %s, expected float32 or float64",
                scio_dtype_name(r->dtype));
        return -1;
    }
    if (r->given != NULL && r->given != Py_None)
        return take_given(state, n_items, r);
    r->buf = new_buf(state, n_items, scio_dtype_itemsize(r->dtype));
    r->data = r->buf == NULL ? NULL : scio_buf_data(r->buf);
    return r->buf == NULL ? -1 : 0;
}

static PyObject *
finish_result(const py_state *state, result_args *r, scio_status status, const scio_error *err,
              int rank, const npy_intp *dims)
{
    if (status != SCIO_OK) {
        scio_buf_release(r->buf);
        return py_raise(state, err);
    }
    if (r->buf == NULL)
        return Py_NewRef(r->given);
    return py_array_from_buf(r->buf, r->dtype, rank, dims);
}

/* --- row_totals */

typedef struct totals_call {
    matrix_args matrix;
    py_view left_out;
    double *totals;
    int64_t *n_positive;
    scio_value_facts facts;
} totals_call;

static scio_status
run_totals(void *context, const volatile int *cancel, scio_error *err)
{
    totals_call *const call = context;

    return scio_row_totals(&call->matrix.csr, call->left_out.data, call->matrix.n_threads, cancel,
                           call->totals, call->n_positive, &call->facts, err);
}

static PyObject *
row_totals(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    totals_call call = {.matrix = {.n_threads = SIZE_MAX}};
    const py_param params[] = {MATRIX_PARAMS(&call.matrix),
                               NAMED_PARAMS(&call.matrix),
                               {.name = "left_out",
                                .kind = PY_ARRAY,
                                .is_optional = true,
                                .is_nullable = true,
                                .out = &call.left_out,
                                .rank = 1,
                                .dtype = SCIO_BOOL}};
    const scio_value_facts *const f = &call.facts;
    scio_buf *totals = NULL, *n_positive = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_parse(state, "row_totals", params, PY_N_PARAMS(params), 3, args, n_args, kwnames) < 0 ||
        finish_matrix(state, &call.matrix) < 0 ||
        check_length(state, "left_out", &call.left_out, call.matrix.shape[1]) < 0)
        return NULL;
    totals = new_buf(state, call.matrix.shape[0], sizeof(double));
    n_positive = totals == NULL ? NULL : new_buf(state, call.matrix.shape[0], sizeof(int64_t));
    if (n_positive == NULL) {
        scio_buf_release(totals);
        return NULL;
    }
    call.totals = scio_buf_data(totals);
    call.n_positive = scio_buf_data(n_positive);
    status = py_call(run_totals, &call, is_long(&call.matrix), &err);
    if (status != SCIO_OK) {
        scio_buf_release(totals);
        scio_buf_release(n_positive);
        return py_raise(state, &err);
    }
    return Py_BuildValue(
        "(NN{s:O,s:O,s:L,s:L,s:L,s:L,s:d})", py_array_1d(totals, SCIO_F64, call.matrix.shape[0]),
        py_array_1d(n_positive, SCIO_I64, call.matrix.shape[0]), "is_canonical",
        f->is_canonical ? Py_True : Py_False, "has_duplicates",
        f->has_duplicates ? Py_True : Py_False, "first_infinite", (long long)f->first_infinite,
        "first_negative", (long long)f->first_negative, "first_fraction",
        (long long)f->first_fraction, "n_fractions", (long long)f->n_fractions, "maximum",
        f->maximum);
}

/* --- high_columns */

typedef struct high_call {
    matrix_args matrix;
    py_view totals;
    double max_fraction;
    uint8_t *is_high;
} high_call;

static scio_status
run_high(void *context, const volatile int *cancel, scio_error *err)
{
    const high_call *const call = context;

    return scio_high_columns(&call->matrix.csr, call->totals.data, call->max_fraction,
                             call->matrix.n_threads, cancel, call->is_high, err);
}

static PyObject *
high_columns(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    high_call call = {.matrix = {.n_threads = SIZE_MAX}};
    const py_param params[] = {
        MATRIX_PARAMS(&call.matrix),
        {.name = "totals", .kind = PY_ARRAY, .out = &call.totals, .rank = 1, .dtype = SCIO_F64},
        {.name = "max_fraction", .kind = PY_DOUBLE, .out = &call.max_fraction},
        NAMED_PARAMS(&call.matrix)};
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf;

    if (py_parse(state, "high_columns", params, PY_N_PARAMS(params), 5, args, n_args, kwnames) <
            0 ||
        finish_matrix(state, &call.matrix) < 0 ||
        check_length(state, "totals", &call.totals, call.matrix.shape[0]) < 0)
        return NULL;
    buf = new_buf(state, call.matrix.shape[1], 1);
    if (buf == NULL)
        return NULL;
    call.is_high = scio_buf_data(buf);
    if (py_call(run_high, &call, is_long(&call.matrix), &err) == SCIO_OK)
        return py_array_1d(buf, SCIO_BOOL, call.matrix.shape[1]);
    scio_buf_release(buf);
    return py_raise(state, &err);
}

/* --- normalize_log1p */

typedef struct transform_call {
    scio_csr_view csr;
    scio_value_transform transform;
    size_t n_threads;
    scio_dtype dtype;
    void *out;
} transform_call;

static scio_status
run_transform(void *context, const volatile int *cancel, scio_error *err)
{
    const transform_call *const call = context;

    return scio_transform_values(&call->csr, &call->transform, call->n_threads, cancel, call->dtype,
                                 call->out, err);
}

/* The view without indices: none are looked at. */
static int
view_of_values(const py_state *state, const py_view *data, const py_view *indptr,
               scio_csr_view *out)
{
    *out = (scio_csr_view){
        .nnz = (int64_t)data->n_items, .data = data->data, .data_dtype = data->dtype};
    if (indptr->array == NULL && data->rank == 2) {
        out->n_rows = (int64_t)data->dims[0];
        out->n_cols = (int64_t)data->dims[1];
        return 0;
    }
    if (indptr->array == NULL || data->rank != 1 || indptr->n_items == 0) {
        py_fail(state, SCIO_EINVAL,
                "data has %d dimensions: expected 1 and an indptr, or 2 and None", data->rank);
        return -1;
    }
    out->n_rows = (int64_t)indptr->n_items - 1;
    out->indptr = indptr->data;
    return check_indptr(state, indptr, out->n_rows, out->nnz);
}

static PyObject *
normalize_log1p(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    py_view data = {0}, indptr = {0}, totals = {0};
    double base = 0;
    transform_call call = {.n_threads = SIZE_MAX};
    result_args result = {0};
    const py_param params[] = {
        {.name = "data", .kind = PY_ARRAY, .out = &data, .rank = -1},
        {.name = "indptr",
         .kind = PY_ARRAY,
         .is_nullable = true,
         .out = &indptr,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "totals",
         .kind = PY_ARRAY,
         .is_nullable = true,
         .out = &totals,
         .rank = 1,
         .dtype = SCIO_F64},
        {.name = "target", .kind = PY_DOUBLE, .out = &call.transform.target},
        {.name = "log", .kind = PY_BOOL, .out = &call.transform.is_log1p},
        {.name = "base", .kind = PY_DOUBLE, .is_optional = true, .out = &base},
        {.name = "dtype", .kind = PY_DTYPE, .is_optional = true, .out = &result.dtype},
        {.name = "out", .kind = PY_OBJECT, .is_optional = true, .out = &result.given},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.n_threads}};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_parse(state, "normalize_log1p", params, PY_N_PARAMS(params), 5, args, n_args, kwnames) <
            0 ||
        view_of_values(state, &data, &indptr, &call.csr) < 0 ||
        check_length(state, "totals", &totals, call.csr.n_rows) < 0)
        return NULL;
    if (!(base >= 0) || base == 1.0 || isinf(base))
        return py_fail(state, SCIO_EINVAL, "base is %g, expected a number above 0 that is not 1",
                       base);
    if (prepare_result(state, data.dtype, call.csr.nnz, &result) < 0)
        return NULL;
    call.transform.totals = totals.array == NULL ? NULL : totals.data;
    call.transform.log_base = base > 0 && call.transform.is_log1p ? scio_log_of_base(base) : 0;
    call.dtype = result.dtype;
    call.out = result.data;
    status = py_call(run_transform, &call, call.csr.nnz >= PY_LONG_N_VALUES, &err);
    return finish_result(state, &result, status, &err, data.rank, data.dims);
}

/* --- scale_values */

typedef struct scale_call {
    matrix_args matrix;
    py_view mean, std, rows;
    scio_scaling scaling;
    scio_dtype dtype;
    void *out;
} scale_call;

static scio_status
run_scale(void *context, const volatile int *cancel, scio_error *err)
{
    const scale_call *const call = context;

    return scio_scale_values(&call->matrix.csr, &call->scaling, call->matrix.n_threads, cancel,
                             call->dtype, call->out, err);
}

static int
finish_scaling(const py_state *state, scale_call *call)
{
    const int64_t *const shape = call->matrix.shape;

    if (check_length(state, "mean", &call->mean, shape[1]) < 0 ||
        check_length(state, "std", &call->std, shape[1]) < 0 ||
        check_length(state, "rows", &call->rows, shape[0]) < 0)
        return -1;
    if (!(call->scaling.max_value >= 0)) {
        py_fail(state, SCIO_EINVAL, "max_value is %g, expected 0 or more", call->scaling.max_value);
        return -1;
    }
    call->scaling.mean = call->mean.array == NULL ? NULL : call->mean.data;
    call->scaling.std = call->std.data;
    call->scaling.is_scaled = call->rows.array == NULL ? NULL : call->rows.data;
    return 0;
}

static PyObject *
scale_values(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    scale_call call = {.matrix = {.n_threads = SIZE_MAX}, .scaling = {.max_value = HUGE_VAL}};
    result_args result = {0};
    const py_param params[] = {
        MATRIX_PARAMS(&call.matrix),
        {.name = "mean",
         .kind = PY_ARRAY,
         .is_nullable = true,
         .out = &call.mean,
         .rank = 1,
         .dtype = SCIO_F64},
        {.name = "std", .kind = PY_ARRAY, .out = &call.std, .rank = 1, .dtype = SCIO_F64},
        NAMED_PARAMS(&call.matrix),
        {.name = "rows",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &call.rows,
         .rank = 1,
         .dtype = SCIO_BOOL},
        {.name = "max_value",
         .kind = PY_DOUBLE,
         .is_optional = true,
         .out = &call.scaling.max_value},
        {.name = "dtype", .kind = PY_DTYPE, .is_optional = true, .out = &result.dtype},
        {.name = "out", .kind = PY_OBJECT, .is_optional = true, .out = &result.given}};
    npy_intp dims[2];
    int64_t n_items;
    bool is_dense;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_parse(state, "scale_values", params, PY_N_PARAMS(params), 5, args, n_args, kwnames) <
            0 ||
        finish_matrix(state, &call.matrix) < 0 || finish_scaling(state, &call) < 0)
        return NULL;
    is_dense = call.scaling.mean != NULL || call.matrix.indptr.array == NULL;
    n_items = call.matrix.csr.nnz;
    if (is_dense && __builtin_mul_overflow(call.matrix.shape[0], call.matrix.shape[1], &n_items))
        return py_fail(state, SCIO_ENOMEM, "a dense matrix of %lld x %lld",
                       (long long)call.matrix.shape[0], (long long)call.matrix.shape[1]);
    if (prepare_result(state, call.matrix.data.dtype, n_items, &result) < 0)
        return NULL;
    dims[0] = (npy_intp)(is_dense ? call.matrix.shape[0] : n_items);
    dims[1] = (npy_intp)call.matrix.shape[1];
    call.dtype = result.dtype;
    call.out = result.data;
    status = py_call(run_scale, &call, n_items >= PY_LONG_N_VALUES, &err);
    return finish_result(state, &result, status, &err, is_dense ? 2 : 1, dims);
}

/* --- column_sums */

typedef struct sums_call {
    matrix_args matrix;
    int64_t *n_positive;
    double *sums;
    bool is_canonical;
} sums_call;

static scio_status
run_sums(void *context, const volatile int *cancel, scio_error *err)
{
    sums_call *const call = context;

    return scio_column_sums(&call->matrix.csr, call->matrix.n_threads, cancel, call->n_positive,
                            call->sums, &call->is_canonical, err);
}

static PyObject *
column_sums(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const choices[] = {"positive", "sum", NULL};
    const py_state *const state = py_state_of_module(module);
    sums_call call = {.matrix = {.n_threads = SIZE_MAX}};
    int what = 0;
    const py_param params[] = {
        MATRIX_PARAMS(&call.matrix),
        {.name = "what", .kind = PY_CHOICE, .out = &what, .choices = choices},
        NAMED_PARAMS(&call.matrix)};
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf;

    if (py_parse(state, "column_sums", params, PY_N_PARAMS(params), 4, args, n_args, kwnames) < 0 ||
        finish_matrix(state, &call.matrix) < 0)
        return NULL;
    buf = new_buf(state, call.matrix.shape[1], sizeof(double));
    if (buf == NULL)
        return NULL;
    if (what == 0)
        call.n_positive = scio_buf_data(buf);
    else
        call.sums = scio_buf_data(buf);
    if (py_call(run_sums, &call, is_long(&call.matrix), &err) != SCIO_OK) {
        scio_buf_release(buf);
        return py_raise(state, &err);
    }
    return Py_BuildValue("(NO)",
                         py_array_1d(buf, what == 0 ? SCIO_I64 : SCIO_F64, call.matrix.shape[1]),
                         call.is_canonical ? Py_True : Py_False);
}

/* --- csr_subset */

typedef struct subset_call {
    matrix_args matrix;
    py_view rows, columns;
    int64_t n_cols;
    scio_csr out;
} subset_call;

static scio_status
run_subset(void *context, const volatile int *cancel, scio_error *err)
{
    subset_call *const call = context;

    return scio_csr_subset(&call->matrix.csr, call->rows.array == NULL ? NULL : call->rows.data,
                           (int64_t)call->rows.n_items,
                           call->columns.array == NULL ? NULL : call->columns.data, call->n_cols,
                           call->matrix.n_threads, cancel, &call->out, err);
}

/* Where the columns go: nobody else looks at the map. */
static int
check_map(const py_state *state, const subset_call *call)
{
    const int32_t *const map = call->columns.data;

    if (check_length(state, "columns", &call->columns, call->matrix.shape[1]) < 0)
        return -1;
    for (size_t i = 0; call->columns.array != NULL && i < call->columns.n_items; i++) {
        if (map[i] >= -1 && map[i] < call->n_cols)
            continue;
        py_fail(state, SCIO_EINVAL, "columns[%zu] is %lld, expected -1 or a place in [0, %lld)", i,
                (long long)map[i], (long long)call->n_cols);
        return -1;
    }
    return 0;
}

static PyObject *
csr_subset(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    subset_call call = {.matrix = {.n_threads = SIZE_MAX}};
    const py_param params[] = {MATRIX_PARAMS(&call.matrix),
                               {.name = "rows",
                                .kind = PY_ARRAY,
                                .is_nullable = true,
                                .out = &call.rows,
                                .rank = 1,
                                .dtype = SCIO_I64},
                               {.name = "columns",
                                .kind = PY_ARRAY,
                                .is_nullable = true,
                                .out = &call.columns,
                                .rank = 1,
                                .dtype = SCIO_I32},
                               {.name = "n_cols", .kind = PY_INT64, .out = &call.n_cols},
                               NAMED_PARAMS(&call.matrix)};
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "csr_subset", params, PY_N_PARAMS(params), 6, args, n_args, kwnames) < 0)
        return NULL;
    if (call.matrix.indptr.array == NULL)
        return py_fail(state, SCIO_EINVAL, "indptr is None, only sparse matrices are subset");
    if (finish_matrix(state, &call.matrix) < 0 || check_map(state, &call) < 0)
        return NULL;
    if (py_call(run_subset, &call, is_long(&call.matrix), &err) != SCIO_OK)
        return py_raise(state, &err);
    return py_csr_arrays(&call.out);
}

PyMethodDef py_transform_methods[] = {
    {"row_totals", PY_METHOD(row_totals), METH_FASTCALL | METH_KEYWORDS,
     "row_totals($module, data, indices, indptr, /, *, shape, left_out=None, threads=-1)\n--\n\n"
     "Return the sums of rows, how many values are above 0, and facts about the values."},
    {"high_columns", PY_METHOD(high_columns), METH_FASTCALL | METH_KEYWORDS,
     "high_columns($module, data, indices, indptr, totals, max_fraction, /, *, shape, "
     "threads=-1)\n--\n\n"
     "Return which columns exceed max_fraction of the total of some row."},
    {"normalize_log1p", PY_METHOD(normalize_log1p), METH_FASTCALL | METH_KEYWORDS,
     "normalize_log1p($module, data, indptr, totals, target, log, /, *, base=0.0, dtype=None, "
     "out=None, threads=-1)\n--\n\n"
     "Return x * (target / total) of its row, then ln(1 + that); totals None: no scaling."},
    {"scale_values", PY_METHOD(scale_values), METH_FASTCALL | METH_KEYWORDS,
     "scale_values($module, data, indices, indptr, mean, std, /, *, shape, rows=None, "
     "max_value=inf, dtype=None, out=None, threads=-1)\n--\n\n"
     "Return (x - mean) / std of its column; a sparse matrix with a mean becomes dense."},
    {"column_sums", PY_METHOD(column_sums), METH_FASTCALL | METH_KEYWORDS,
     "column_sums($module, data, indices, indptr, what, /, *, shape, threads=-1)\n--\n\n"
     "Return \"positive\" counts or the \"sum\" of columns, and whether rows are canonical."},
    {"csr_subset", PY_METHOD(csr_subset), METH_FASTCALL | METH_KEYWORDS,
     "csr_subset($module, data, indices, indptr, rows, columns, n_cols, /, *, shape, "
     "threads=-1)\n--\n\n"
     "Return rows (None: all) with columns sent to new places (-1: left out; None: all stay)."},
    {NULL, NULL, 0, NULL},
};
