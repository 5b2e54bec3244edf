/* Functions of gene selection: loess, sums of residuals, clipped sums.
 *
 * Sums are added into arrays of the caller, block of rows by block of rows. */
#include "py/py.h"

#include "kernels/exp_f64.h"
#include "preprocess/clipped.h"
#include "preprocess/loess.h"
#include "preprocess/log_f64.h"
#include "preprocess/poisson.h"
#include "preprocess/residuals.h"

/* --- loess */

typedef struct loess_call {
    py_view x, y;
    double span;
    double *fit;
    uint8_t *flags;
    scio_loess_facts facts;
} loess_call;

static scio_status
run_loess(void *context, const volatile int *Py_UNUSED(cancel), scio_error *err)
{
    loess_call *const call = context;

    return scio_loess_fit(call->x.data, call->y.data, call->x.n_items, call->span, call->fit,
                          call->flags, &call->facts, err);
}

/* (fit, flags, facts); takes both buffers. */
static PyObject *
loess_result(const loess_call *call, scio_buf *fit, scio_buf *flags)
{
    const int64_t n_points = (int64_t)call->x.n_items;
    PyObject *const fit_array = py_array_1d(fit, SCIO_F64, n_points);
    PyObject *const flags_array = py_array_1d(flags, SCIO_U8, n_points);

    if (fit_array == NULL || flags_array == NULL) {
        Py_XDECREF(fit_array);
        Py_XDECREF(flags_array);
        return NULL;
    }
    return Py_BuildValue("(NN(nnnn))", fit_array, flags_array, (Py_ssize_t)call->facts.n_vertices,
                         (Py_ssize_t)call->facts.n_pseudo_inverses,
                         (Py_ssize_t)call->facts.n_enlarged, (Py_ssize_t)call->facts.n_lowered);
}

static PyObject *
loess(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    loess_call call = {.span = 0};
    const py_param params[] = {
        {.name = "x", .kind = PY_ARRAY, .out = &call.x, .rank = 1, .dtype = SCIO_F64},
        {.name = "y", .kind = PY_ARRAY, .out = &call.y, .rank = 1, .dtype = SCIO_F64},
        {.name = "span", .kind = PY_DOUBLE, .out = &call.span}};
    scio_buf *fit = NULL, *flags = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "loess", params, 3, 3, args, n_args, NULL) < 0)
        return NULL;
    if (call.x.n_items != call.y.n_items)
        return py_fail(state, SCIO_EINVAL, "x has %zu items, y has %zu", call.x.n_items,
                       call.y.n_items);
    if (scio_buf_new(call.x.n_items * sizeof(double), &fit, &err) != SCIO_OK ||
        scio_buf_new(call.x.n_items, &flags, &err) != SCIO_OK) {
        scio_buf_release(fit);
        return py_raise(state, &err);
    }
    call.fit = scio_buf_data(fit);
    call.flags = scio_buf_data(flags);
    if (py_call(run_loess, &call, false, &err) != SCIO_OK) {
        scio_buf_release(fit);
        scio_buf_release(flags);
        return py_raise(state, &err);
    }
    return loess_result(&call, fit, flags);
}

/* --- elementary functions, whose last bits libm does not promise */

static PyObject *
elementary(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    enum { LN, LN_1P, EXP };
    static const char *const functions[] = {"ln", "ln_1p", "exp", NULL};
    const py_state *const state = py_state_of_module(module);
    int function = LN;
    py_view x = {0};
    const py_param params[] = {
        {.name = "function", .kind = PY_CHOICE, .out = &function, .choices = functions},
        {.name = "x", .kind = PY_ARRAY, .out = &x, .rank = 1, .dtype = SCIO_F64}};
    scio_buf *buf = NULL;
    scio_error err = SCIO_ERROR_INIT;
    double *out;

    if (py_parse(state, "elementary", params, 2, 2, args, n_args, NULL) < 0)
        return NULL;
    if (scio_buf_new(x.n_items * sizeof(double), &buf, &err) != SCIO_OK)
        return py_raise(state, &err);
    out = scio_buf_data(buf);
    Py_BEGIN_ALLOW_THREADS;
    for (size_t i = 0; i < x.n_items; i++) {
        const double value = ((const double *)x.data)[i];

        out[i] = function == LN      ? scio_ln_f64(value)
                 : function == LN_1P ? scio_ln_1p_f64(value)
                                     : scio_exp_f64(value);
    }
    Py_END_ALLOW_THREADS;
    return py_array_1d(buf, SCIO_F64, (int64_t)x.n_items);
}

/* --- a block of rows */

typedef struct block_call {
    py_view data, indices, indptr, cell_totals, batches, fractions, shifts, means, clips, inout;
    int64_t shape[2];
    double clip, inverse_theta;
    size_t n_threads;
    scio_csr_view csr;
} block_call;

#define CSR_PARAMS(call)                                                                           \
    {.name = "data", .kind = PY_ARRAY, .out = &(call).data, .rank = 1},                            \
        {.name = "indices", .kind = PY_ARRAY, .out = &(call).indices, .rank = 1},                  \
    {                                                                                              \
        .name = "indptr", .kind = PY_ARRAY, .out = &(call).indptr, .rank = 1, .dtype = SCIO_I64    \
    }
#define F64_PARAM(call, field, n_dims)                                                             \
    {                                                                                              \
        .name = #field, .kind = PY_ARRAY, .out = &(call).field, .rank = (n_dims),                  \
        .dtype = SCIO_F64                                                                          \
    }
#define BATCHES_PARAM(call)                                                                        \
    {                                                                                              \
        .name = "batches", .kind = PY_ARRAY, .is_nullable = true, .out = &(call).batches,          \
        .rank = 1, .dtype = SCIO_I32                                                               \
    }
#define SHAPE_PARAM(call)                                                                          \
    {                                                                                              \
        .name = "shape", .kind = PY_SHAPE, .out = (call).shape                                     \
    }
#define THREADS_PARAM(call)                                                                        \
    {                                                                                              \
        .name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &(call).n_threads       \
    }

static int
check_length(const py_state *state, const char *name, const py_view *view, size_t expected)
{
    if (view->array == NULL || view->n_items == expected)
        return 0;
    py_fail(state, SCIO_EINVAL, "%s has %zu items, expected %zu", name, view->n_items, expected);
    return -1;
}

/* The view of the matrix, checked but for its indices, and the lengths of what all calls have. */
static int
borrow_block(const py_state *state, block_call *call)
{
    const size_t n_rows = (size_t)call->shape[0];
    scio_error err = SCIO_ERROR_INIT;

    if (py_csr_view_from(state, &call->data, &call->indices, &call->indptr, call->shape,
                         &call->csr) < 0)
        return -1;
    if (call->csr.index_dtype != SCIO_I32 && call->csr.index_dtype != SCIO_I64) {
        py_fail(state, SCIO_ETYPE, "indices are %s, expected int32 or int64",
                scio_dtype_name(call->csr.index_dtype));
        return -1;
    }
    if (scio_csr_validate(&call->csr, SCIO_CHECK_STRUCTURE, NULL, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    if (check_length(state, "cell_totals", &call->cell_totals, n_rows) < 0 ||
        check_length(state, "batches", &call->batches, n_rows) < 0)
        return -1;
    if (!PyArray_ISWRITEABLE((PyArrayObject *)call->inout.array)) {
        py_fail(state, SCIO_EINVAL, "the array for the result is read-only");
        return -1;
    }
    return 0;
}

/* How many batches tables[n_batches, n_genes] have; -1 when one is of another shape. */
static Py_ssize_t
n_batches_of(const py_state *state, const block_call *call, const py_view *const *tables,
             size_t n_tables)
{
    const npy_intp n_batches = tables[0]->dims[0];

    for (size_t i = 0; i < n_tables; i++) {
        if (tables[i]->dims[0] != n_batches || tables[i]->dims[1] != call->shape[1]) {
            py_fail(state, SCIO_EINVAL, "a table of %zd x %zd, expected batches x %lld genes",
                    (Py_ssize_t)tables[i]->dims[0], (Py_ssize_t)tables[i]->dims[1],
                    (long long)call->shape[1]);
            return -1;
        }
    }
    return (Py_ssize_t)n_batches;
}

static PyObject *
none_or_raise(const py_state *state, scio_status status, const scio_error *err)
{
    if (status != SCIO_OK)
        return py_raise(state, err);
    Py_RETURN_NONE;
}

/* So few stored values are over before anybody wants to interrupt them. */
#define SHORT_NNZ (1 << 18)

static scio_status
run_corrections(void *context, const volatile int *cancel, scio_error *err)
{
    block_call *const call = context;
    const scio_residual_model model = {
        .n_genes = (size_t)call->shape[1],
        .n_batches = (size_t)call->fractions.dims[0],
        .fractions = call->fractions.data,
        .shifts = call->shifts.data,
        .clips = call->clips.data,
        .inverse_theta = call->inverse_theta,
    };

    return scio_residual_corrections(&call->csr, call->cell_totals.data,
                                     call->batches.array == NULL ? NULL : call->batches.data,
                                     &model, call->n_threads, call->inout.data, cancel, err);
}

static PyObject *
residual_corrections(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    block_call call = {.n_threads = SIZE_MAX};
    const py_param params[] = {
        CSR_PARAMS(call),
        F64_PARAM(call, cell_totals, 1),
        BATCHES_PARAM(call),
        F64_PARAM(call, fractions, 2),
        F64_PARAM(call, shifts, 2),
        F64_PARAM(call, clips, 1),
        F64_PARAM(call, inout, 3),
        SHAPE_PARAM(call),
        {.name = "inverse_theta", .kind = PY_DOUBLE, .out = &call.inverse_theta},
        THREADS_PARAM(call)};
    const py_view *const tables[] = {&call.fractions, &call.shifts};
    scio_error err = SCIO_ERROR_INIT;
    Py_ssize_t n_batches;

    if (py_parse(state, "residual_corrections", params, PY_N_PARAMS(params), 9, args, n_args,
                 kwnames) < 0 ||
        borrow_block(state, &call) < 0)
        return NULL;
    n_batches = n_batches_of(state, &call, tables, 2);
    if (n_batches < 0 || check_length(state, "clips", &call.clips, (size_t)n_batches) < 0 ||
        check_length(state, "sums", &call.inout, 2 * call.fractions.n_items) < 0)
        return NULL;
    return none_or_raise(state, py_call(run_corrections, &call, call.csr.nnz > SHORT_NNZ, &err),
                         &err);
}

static scio_status
run_clipped_sums(void *context, const volatile int *cancel, scio_error *err)
{
    block_call *const call = context;

    return scio_clipped_sums(&call->csr, call->batches.array == NULL ? NULL : call->batches.data,
                             (size_t)call->means.dims[0], call->means.data, call->clips.data,
                             call->n_threads, call->inout.data, cancel, err);
}

static PyObject *
clipped_sums(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    block_call call = {.n_threads = SIZE_MAX};
    const py_param params[] = {CSR_PARAMS(call),          BATCHES_PARAM(call),
                               F64_PARAM(call, means, 2), F64_PARAM(call, clips, 2),
                               F64_PARAM(call, inout, 2), SHAPE_PARAM(call),
                               THREADS_PARAM(call)};
    const py_view *const tables[] = {&call.means, &call.clips, &call.inout};
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "clipped_sums", params, PY_N_PARAMS(params), 7, args, n_args, kwnames) <
            0 ||
        borrow_block(state, &call) < 0 || n_batches_of(state, &call, tables, 3) < 0)
        return NULL;
    return none_or_raise(state, py_call(run_clipped_sums, &call, call.csr.nnz > SHORT_NNZ, &err),
                         &err);
}

static scio_status
run_rows(void *context, const volatile int *cancel, scio_error *err)
{
    block_call *const call = context;

    return scio_residual_rows(&call->csr, call->cell_totals.data, call->fractions.data, call->clip,
                              call->inverse_theta, call->n_threads, call->inout.data,
                              call->inout.dtype, cancel, err);
}

static PyObject *
residual_rows(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    block_call call = {.n_threads = SIZE_MAX};
    const py_param params[] = {
        CSR_PARAMS(call),
        F64_PARAM(call, cell_totals, 1),
        F64_PARAM(call, fractions, 1),
        {.name = "out", .kind = PY_ARRAY, .out = &call.inout, .rank = 2},
        SHAPE_PARAM(call),
        {.name = "clip", .kind = PY_DOUBLE, .out = &call.clip},
        {.name = "inverse_theta", .kind = PY_DOUBLE, .out = &call.inverse_theta},
        THREADS_PARAM(call)};
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "residual_rows", params, PY_N_PARAMS(params), 6, args, n_args, kwnames) <
            0 ||
        borrow_block(state, &call) < 0)
        return NULL;
    if (check_length(state, "fractions", &call.fractions, (size_t)call.shape[1]) < 0)
        return NULL;
    if (call.inout.dtype != SCIO_F32 && call.inout.dtype != SCIO_F64)
        return py_fail(state, SCIO_ETYPE, "out is %s, expected float32 or float64",
                       scio_dtype_name(call.inout.dtype));
    if (call.inout.dims[0] != call.shape[0] || call.inout.dims[1] != call.shape[1])
        return py_fail(state, SCIO_EINVAL, "out is of another shape than the rows");
    return none_or_raise(state, py_call(run_rows, &call, call.inout.n_items > SHORT_NNZ, &err),
                         &err);
}

/* --- sums over distinct totals */

typedef struct totals_call {
    py_view fractions, totals, n_cells;
    double shift_total, clip, inverse_theta;
    size_t n_threads;
    double *shifts, *sums, *absence;
} totals_call;

#define TOTALS_PARAMS(call)                                                                        \
    F64_PARAM(call, fractions, 1), F64_PARAM(call, totals, 1), F64_PARAM(call, n_cells, 1)

static bool
is_long_call(const totals_call *call)
{
    return call->totals.n_items > 0 && call->fractions.n_items > SHORT_NNZ / call->totals.n_items;
}

static scio_status
run_zero_sums(void *context, const volatile int *cancel, scio_error *err)
{
    totals_call *const call = context;

    return scio_residual_zero_sums(call->fractions.data, call->fractions.n_items, call->totals.data,
                                   call->n_cells.data, call->totals.n_items, call->shift_total,
                                   call->clip, call->inverse_theta, call->n_threads, call->shifts,
                                   call->sums, cancel, err);
}

static PyObject *
residual_zero_sums(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    totals_call call = {.n_threads = SIZE_MAX};
    const py_param params[] = {
        TOTALS_PARAMS(call),
        {.name = "shift_total", .kind = PY_DOUBLE, .out = &call.shift_total},
        {.name = "clip", .kind = PY_DOUBLE, .out = &call.clip},
        {.name = "inverse_theta", .kind = PY_DOUBLE, .out = &call.inverse_theta},
        THREADS_PARAM(call)};
    scio_buf *shifts = NULL, *sums = NULL;
    scio_error err = SCIO_ERROR_INIT;
    PyObject *shifts_array, *sums_array;
    npy_intp dims[2];

    if (py_parse(state, "residual_zero_sums", params, PY_N_PARAMS(params), 3, args, n_args,
                 kwnames) < 0 ||
        check_length(state, "n_cells", &call.n_cells, call.totals.n_items) < 0)
        return NULL;
    if (scio_buf_new(call.fractions.n_items * sizeof(double), &shifts, &err) != SCIO_OK ||
        scio_buf_new(call.fractions.n_items * 2 * sizeof(double), &sums, &err) != SCIO_OK)
        goto failed;
    call.shifts = scio_buf_data(shifts);
    call.sums = scio_buf_data(sums);
    if (py_call(run_zero_sums, &call, is_long_call(&call), &err) != SCIO_OK)
        goto failed;
    dims[0] = (npy_intp)call.fractions.n_items;
    dims[1] = 2;
    shifts_array = py_array_from_buf(shifts, SCIO_F64, 1, dims);
    sums_array = py_array_from_buf(sums, SCIO_F64, 2, dims);
    if (shifts_array != NULL && sums_array != NULL)
        return Py_BuildValue("(NN)", shifts_array, sums_array);
    Py_XDECREF(shifts_array);
    Py_XDECREF(sums_array);
    return NULL;
failed:
    scio_buf_release(shifts);
    scio_buf_release(sums);
    return py_raise(state, &err);
}

static scio_status
run_absence(void *context, const volatile int *cancel, scio_error *err)
{
    totals_call *const call = context;

    return scio_poisson_absence(call->fractions.data, call->fractions.n_items, call->totals.data,
                                call->n_cells.data, call->totals.n_items, call->n_threads,
                                call->absence, cancel, err);
}

static PyObject *
poisson_absence(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of_module(module);
    totals_call call = {.n_threads = SIZE_MAX};
    const py_param params[] = {TOTALS_PARAMS(call), THREADS_PARAM(call)};
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *out = NULL;

    if (py_parse(state, "poisson_absence", params, PY_N_PARAMS(params), 3, args, n_args, kwnames) <
            0 ||
        check_length(state, "n_cells", &call.n_cells, call.totals.n_items) < 0)
        return NULL;
    if (scio_buf_new(call.fractions.n_items * sizeof(double), &out, &err) != SCIO_OK)
        return py_raise(state, &err);
    call.absence = scio_buf_data(out);
    if (py_call(run_absence, &call, is_long_call(&call), &err) == SCIO_OK)
        return py_array_1d(out, SCIO_F64, (int64_t)call.fractions.n_items);
    scio_buf_release(out);
    return py_raise(state, &err);
}

PyMethodDef py_hvg_methods[] = {
    {"loess", PY_METHOD(loess), METH_FASTCALL,
     "loess($module, x, y, span, /)\n--\n\n"
     "Return the fit at every x, flags per point, and counts of what happened."},
    {"elementary", PY_METHOD(elementary), METH_FASTCALL,
     "elementary($module, function, x, /)\n--\n\n"
     "Return ln, ln_1p or exp of every x, the same bits on every machine."},
    {"residual_zero_sums", PY_METHOD(residual_zero_sums), METH_FASTCALL | METH_KEYWORDS,
     "residual_zero_sums($module, fractions, totals, n_cells, /, *, shift_total, clip, "
     "inverse_theta, threads=-1)\n--\n\n"
     "Return shifts and the sums of residuals of zeros over distinct totals."},
    {"residual_corrections", PY_METHOD(residual_corrections), METH_FASTCALL | METH_KEYWORDS,
     "residual_corrections($module, data, indices, indptr, cell_totals, batches, fractions, "
     "shifts, clips, sums, /, *, shape, inverse_theta, threads=-1)\n--\n\n"
     "Add to sums what the stored values of a block of rows change."},
    {"residual_rows", PY_METHOD(residual_rows), METH_FASTCALL | METH_KEYWORDS,
     "residual_rows($module, data, indices, indptr, cell_totals, fractions, out, /, *, shape, "
     "clip, inverse_theta, threads=-1)\n--\n\n"
     "Fill out with the dense Pearson residuals of a block of rows."},
    {"poisson_absence", PY_METHOD(poisson_absence), METH_FASTCALL | METH_KEYWORDS,
     "poisson_absence($module, fractions, totals, n_cells, /, *, threads=-1)\n--\n\n"
     "Return the mean probability of a zero of every fraction over all cells."},
    {"clipped_sums", PY_METHOD(clipped_sums), METH_FASTCALL | METH_KEYWORDS,
     "clipped_sums($module, data, indices, indptr, batches, means, clips, sums, /, *, shape, "
     "threads=-1)\n--\n\n"
     "Add to sums the squares about the mean of clipped stored values."},
    {NULL, NULL, 0, NULL},
};
