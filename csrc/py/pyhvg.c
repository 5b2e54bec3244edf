/* Functions of gene selection: loess, sums of residuals, clipped sums. */
#include "py/py.h"

#include "preprocess/loess.h"

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

PyMethodDef py_hvg_methods[] = {
    {"loess", PY_METHOD(loess), METH_FASTCALL,
     "loess($module, x, y, span, /)\n--\n\n"
     "Return the fit at every x, flags per point, and counts of what happened."},
    {NULL, NULL, 0, NULL},
};
