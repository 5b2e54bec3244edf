/* read_datasets: boxes of several datasets of one file in one call.
 *
 * A request is a tuple (dataset, form, start, count, limit); form None = numbers as stored, a
 * dtype's name = numbers cast to it, "raw" = the stored bytes, "text" = strings as objects. */
#include "py/py.h"

#include "base/mem.h"

#include <string.h>

enum { REQUEST_N_FIELDS = 5 };

typedef struct request {
    scio_h5_request core;
    PyObject *dataset; /* borrowed from the tuple of requests */
    uint64_t start[SCIO_H5_MAX_RANK], count[SCIO_H5_MAX_RANK];
    bool is_raw, is_text;
    scio_buf *out;
    int64_t limit; /* values lie in [0, limit); -1 = not looked at */
} request;

typedef struct many_call {
    request *requests;
    scio_h5_request *core;
    size_t n_requests, n_threads;
} many_call;

/* --- what is asked for */

static scio_status
check_values(const void *context, const void *items, size_t n_items, uint64_t i_first,
             scio_error *err)
{
    const request *const r = context;

    return scio_indices_validate(items, r->core.dtype, n_items, r->limit, (int64_t)i_first, err);
}

static int
parse_form(const py_state *state, PyObject *form, request *r)
{
    const scio_h5_dataset *const dataset = r->core.dataset;
    const char *text;

    if (form == Py_None) {
        r->core.dtype = dataset->type->dtype;
        return py_dataset_require_numbers(state, dataset);
    }
    text = PyUnicode_Check(form) ? PyUnicode_AsUTF8(form) : NULL;
    if (text == NULL) {
        py_fail(state, SCIO_ETYPE, "form is %s, expected None or a str", Py_TYPE(form)->tp_name);
        return -1;
    }
    r->is_raw = strcmp(text, "raw") == 0;
    r->is_text = strcmp(text, "text") == 0;
    if (r->is_text && dataset->type->type_class != SCIO_H5_STRING &&
        !(dataset->type->type_class == SCIO_H5_VLEN && dataset->type->is_vlen_string)) {
        py_fail(state, SCIO_ETYPE, "%s does not hold strings", dataset->path);
        return -1;
    }
    r->core.is_vlen = r->is_text && dataset->type->type_class == SCIO_H5_VLEN;
    if (r->is_raw || r->is_text)
        return 0;
    r->core.dtype = scio_dtype_from_name(text);
    if (r->core.dtype != SCIO_DTYPE_NONE)
        return py_dataset_require_numbers(state, dataset);
    py_fail(state, SCIO_EINVAL, "form is '%s', expected a dtype, 'raw' or 'text'", text);
    return -1;
}

static int
parse_request(py_state *state, PyObject *tuple, request *r)
{
    PyObject *const *field;

    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != REQUEST_N_FIELDS) {
        py_fail(state, SCIO_ETYPE,
                "a request is %s, expected a tuple (dataset, form, start, "
                "count, limit)",
                Py_TYPE(tuple)->tp_name);
        return -1;
    }
    field = PySequence_Fast_ITEMS(tuple);
    r->dataset = field[0];
    r->core.dataset = py_dataset_borrow(state, field[0]);
    if (r->core.dataset == NULL || parse_form(state, field[1], r) < 0 ||
        py_dataset_box(state, r->core.dataset, field[2], field[3], r->start, r->count) < 0)
        return -1;
    r->limit = PyLong_AsLongLong(field[4]);
    if (r->limit == -1 && PyErr_Occurred())
        return -1;
    r->core.start = r->start;
    r->core.count = r->count;
    if (r->limit >= 0) {
        r->core.check = check_values;
        r->core.check_context = r;
    }
    if (r->core.is_vlen)
        return 0;
    return py_dataset_measure(state, r->core.dataset, r->count,
                              r->core.dtype == SCIO_DTYPE_NONE ? r->core.dataset->type->itemsize
                                                               : scio_dtype_itemsize(r->core.dtype),
                              &r->core.out_nbytes);
}

/* All of one file: failures are told with its name. */
static int
parse_requests(py_state *state, PyObject *tuple, many_call *call)
{
    for (size_t i = 0; i < call->n_requests; i++) {
        if (parse_request(state, PyTuple_GET_ITEM(tuple, (Py_ssize_t)i), &call->requests[i]) < 0)
            return -1;
        if (py_dataset_file(call->requests[i].dataset) !=
            py_dataset_file(call->requests[0].dataset)) {
            py_fail(state, SCIO_EINVAL, "the datasets of one call belong to one file");
            return -1;
        }
    }
    return 0;
}

/* --- the call */

static scio_status
run_many(void *context, const volatile int *cancel, scio_error *err)
{
    many_call *const call = context;
    const scio_h5_read_options options = {NULL, call->n_threads, cancel};
    scio_status status = SCIO_OK;

    for (size_t i = 0; i < call->n_requests && status == SCIO_OK; i++) {
        request *const r = &call->requests[i];

        if (!r->core.is_vlen) {
            status = scio_buf_new(r->core.out_nbytes, &r->out, err);
            r->core.out = scio_buf_data(r->out);
        }
        call->core[i] = r->core;
    }
    if (status == SCIO_OK)
        status = scio_h5_datasets_read(call->core, call->n_requests, &options, err);
    return status;
}

static bool
is_long(const many_call *call)
{
    uint64_t nbytes = 0;

    for (size_t i = 0; i < call->n_requests; i++) {
        const request *const r = &call->requests[i];

        if (py_dataset_is_callback(r->dataset) || r->core.dataset->unit_nbytes > PY_SHORT_NBYTES ||
            !scio_add_u64(nbytes, r->core.out_nbytes + r->core.dataset->space.n_items, &nbytes) ||
            nbytes > PY_SHORT_NBYTES)
            return true;
    }
    return false;
}

static PyObject *
wrap_text(const py_state *state, request *r, const scio_h5_request *core, int rank,
          const npy_intp *dims)
{
    const scio_h5_type *const type = core->dataset->type;
    PyObject *const where =
        PyUnicode_FromFormat("%U: %s", py_dataset_file_name(r->dataset), core->dataset->path);
    const char *const text = where == NULL ? NULL : PyUnicode_AsUTF8(where);
    PyObject *array = NULL;

    if (text == NULL && where != NULL)
        PyErr_Clear(); /* a file name that is no UTF-8 */
    if (where != NULL)
        array =
            core->is_vlen
                ? py_text_array(state, text == NULL ? core->dataset->path : text, rank, dims,
                                scio_buf_data(core->offsets), scio_buf_data(core->payload))
                : py_fixed_text_array(state, text == NULL ? core->dataset->path : text, rank, dims,
                                      scio_buf_data(r->out), type->itemsize, (int)type->padding);
    Py_XDECREF(where);
    return array;
}

static PyObject *
wrap(const py_state *state, request *r, const scio_h5_request *core)
{
    const int rank = (int)core->dataset->space.rank;
    npy_intp dims[SCIO_H5_MAX_RANK + 1];
    scio_buf *buf;

    for (int i = 0; i < rank; i++)
        dims[i] = (npy_intp)r->count[i];
    if (r->is_text)
        return wrap_text(state, r, core, rank, dims);
    buf = r->out;
    r->out = NULL;
    if (!r->is_raw)
        return py_array_from_buf(buf, core->dtype, rank, dims);
    dims[rank] = (npy_intp)core->dataset->type->itemsize;
    return py_array_from_buf(buf, SCIO_U8, rank + 1, dims);
}

static void
release(request *r, scio_h5_request *core)
{
    scio_buf_release(r->out);
    scio_buf_release(core->offsets);
    scio_buf_release(core->payload);
    r->out = core->offsets = core->payload = NULL;
}

static PyObject *
run_call(py_state *state, many_call *call)
{
    scio_error err = SCIO_ERROR_INIT;
    PyObject *list;

    if (py_call(run_many, call, is_long(call), &err) != SCIO_OK)
        return py_dataset_raise(call->requests[0].dataset, state, &err);
    list = PyList_New((Py_ssize_t)call->n_requests);
    for (size_t i = 0; list != NULL && i < call->n_requests; i++) {
        PyObject *const array = wrap(state, &call->requests[i], &call->core[i]);

        release(&call->requests[i], &call->core[i]);
        if (array == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, array);
    }
    return list;
}

static PyObject *
read_datasets(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_state *const state = py_state_of_module(module);
    many_call call = {.n_threads = SIZE_MAX};
    PyObject *sequence = NULL, *tuple, *result = NULL;
    const py_param params[] = {
        {.name = "requests", .kind = PY_OBJECT, .out = &sequence},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.n_threads}};
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "read_datasets", params, PY_N_PARAMS(params), 1, args, n_args, kwnames) < 0)
        return NULL;
    tuple = PySequence_Tuple(sequence);
    if (tuple == NULL)
        return NULL;
    call.n_requests = (size_t)PyTuple_GET_SIZE(tuple);
    if (call.n_requests == 0) {
        Py_DECREF(tuple);
        return PyList_New(0);
    }
    if (scio_mem_zalloc(call.n_requests, sizeof *call.requests, &call.requests, &err) != SCIO_OK ||
        scio_mem_zalloc(call.n_requests, sizeof *call.core, &call.core, &err) != SCIO_OK)
        py_raise(state, &err);
    else if (parse_requests(state, tuple, &call) == 0)
        result = run_call(state, &call);
    for (size_t i = 0; call.core != NULL && i < call.n_requests; i++)
        release(&call.requests[i], &call.core[i]);
    scio_mem_free(call.core);
    scio_mem_free(call.requests);
    Py_DECREF(tuple);
    return result;
}

PyMethodDef py_many_methods[] = {
    {"read_datasets", PY_METHOD(read_datasets), METH_FASTCALL | METH_KEYWORDS,
     "read_datasets($module, requests, /, *, threads=-1)\n--\n\n"
     "Read boxes of datasets of one file together; see scio/_core.pyi."},
    {NULL, NULL, 0, NULL},
};
