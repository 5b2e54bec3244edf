/* scio._core.Dataset: the description of one dataset, and reading boxes of it.
 *
 * Thread-safe: nothing changes after it was made but the core's chunk table, which has its own
 * lock. */
#include "py/py.h"

#include "base/mem.h"

#include <string.h>
#include <unistd.h>

typedef struct py_dataset {
    PyObject_HEAD
    scio_h5_dataset *dataset; /* owned; holds the C file */
    PyObject *file;           /* py_file: owns a Python source */
    pid_t pid;
} py_dataset;

/* --- helpers */

static const scio_h5_dataset *
get(PyObject *op)
{
    return ((py_dataset *)op)->dataset;
}

static bool
is_callback(const py_dataset *self)
{
    return self->file != NULL && ((const py_file *)self->file)->callback != NULL;
}

/* With the name of the file, as long as it is known. */
static PyObject *
raise_from(py_dataset *self, scio_error *err)
{
    const py_state *const state = py_state_of((PyObject *)self);

    if (self->file == NULL)
        return py_raise(state, err);
    return py_file_raise((const py_file *)self->file, state, self->dataset->path, err);
}

scio_h5_dataset *
py_dataset_borrow(const py_state *state, PyObject *object)
{
    if (!Py_IS_TYPE(object, state->dataset_type)) {
        py_fail(state, SCIO_ETYPE, "%s where a scio._core.Dataset was expected",
                Py_TYPE(object)->tp_name);
        return NULL;
    }
    if (py_check_pid(((py_dataset *)object)->pid, "scio._core.Dataset") < 0)
        return NULL;
    return ((py_dataset *)object)->dataset;
}

PyObject *
py_dataset_file(PyObject *op)
{
    return ((py_dataset *)op)->file;
}

PyObject *
py_dataset_file_name(PyObject *op)
{
    return ((const py_file *)((py_dataset *)op)->file)->name;
}

bool
py_dataset_is_callback(PyObject *op)
{
    return is_callback((py_dataset *)op);
}

PyObject *
py_dataset_raise(PyObject *op, const py_state *state, scio_error *err)
{
    return py_file_raise((const py_file *)((py_dataset *)op)->file, state, NULL, err);
}

PyObject *
py_dataset_make(py_state *state, py_file *file, scio_h5_dataset *dataset)
{
    PyTypeObject *const type = state->dataset_type;
    py_dataset *const self = (py_dataset *)type->tp_alloc(type, 0);

    if (self == NULL) {
        scio_h5_dataset_free(dataset);
        return NULL;
    }
    self->dataset = dataset;
    self->file = Py_NewRef((PyObject *)file);
    self->pid = getpid();
    return (PyObject *)self;
}

static int
dataset_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((py_dataset *)op)->file);
    return 0;
}

static int
dataset_clear(PyObject *op)
{
    Py_CLEAR(((py_dataset *)op)->file);
    return 0;
}

/* In a forked child the chunk table may have been caught half made: it is left alone. */
static void
dataset_dealloc(PyObject *op)
{
    py_dataset *const self = (py_dataset *)op;
    PyTypeObject *const type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    if (self->pid == getpid())
        scio_h5_dataset_free(self->dataset);
    dataset_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- description */

static PyObject *
dataset_get_path(PyObject *op, void *Py_UNUSED(closure))
{
    return py_text(get(op)->path);
}

static PyObject *
dataset_get_shape(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_h5_space *const space = &get(op)->space;

    if (space->space_class == SCIO_H5_NULL)
        Py_RETURN_NONE;
    return py_tuple_from_u64(space->dims, space->rank);
}

static PyObject *
dataset_get_maxshape(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_h5_space *const space = &get(op)->space;
    PyObject *tuple;

    if (space->space_class == SCIO_H5_NULL)
        Py_RETURN_NONE;
    tuple = py_tuple_from_u64(space->max_dims, space->rank);
    for (unsigned i = 0; tuple != NULL && i < space->rank; i++) {
        if (space->max_dims[i] == UINT64_MAX) {
            Py_DECREF(PyTuple_GET_ITEM(tuple, i));
            PyTuple_SET_ITEM(tuple, i, Py_NewRef(Py_None));
        }
    }
    return tuple;
}

static PyObject *
dataset_get_dtype(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_dtype dtype = get(op)->type->dtype;

    if (dtype == SCIO_DTYPE_NONE)
        Py_RETURN_NONE;
    return py_text(scio_dtype_name(dtype));
}

static PyObject *
dataset_get_type(PyObject *op, void *Py_UNUSED(closure))
{
    return py_type_describe(get(op)->type, op);
}

static PyObject *
dataset_get_chunks(PyObject *op, void *Py_UNUSED(closure))
{
    if (get(op)->layout != SCIO_H5_CHUNKED)
        Py_RETURN_NONE;
    return py_tuple_from_u64(get(op)->unit_dims, get(op)->space.rank);
}

static PyObject *
dataset_get_layout(PyObject *op, void *Py_UNUSED(closure))
{
    static const char *const names[] = {
        [SCIO_H5_COMPACT] = "compact",
        [SCIO_H5_CONTIGUOUS] = "contiguous",
        [SCIO_H5_CHUNKED] = "chunked",
    };

    return py_text(names[get(op)->layout]);
}

static PyObject *
dataset_get_index(PyObject *op, void *Py_UNUSED(closure))
{
    return py_text(get(op)->index_name);
}

/* scio's name of a filter, else the one that the file gives. */
static PyObject *
filter_tuple(const scio_filter *filter)
{
    const char *const known = scio_filter_name(filter->id);
    const bool is_known = strcmp(known, "unknown") != 0;
    PyObject *const name = py_text(is_known || filter->name[0] == '\0' ? known : filter->name);
    uint64_t client[SCIO_MAX_CLIENT];
    PyObject *values, *result = NULL;

    for (size_t i = 0; i < filter->n_client; i++)
        client[i] = filter->client[i];
    values = py_tuple_from_u64(client, filter->n_client);
    if (name != NULL && values != NULL)
        result = Py_BuildValue("(iOiO)", (int)filter->id, name, (int)filter->flags, values);
    Py_XDECREF(name);
    Py_XDECREF(values);
    return result;
}

static PyObject *
dataset_get_filters(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_pipeline *const pipeline = &get(op)->pipeline;
    PyObject *const list = PyList_New((Py_ssize_t)pipeline->n_filters);

    for (size_t i = 0; list != NULL && i < pipeline->n_filters; i++) {
        PyObject *const item = filter_tuple(&pipeline->filters[i]);

        if (item == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *
dataset_get_fill(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_h5_dataset *const dataset = get(op);

    if (dataset->fill == NULL)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)dataset->fill,
                                     (Py_ssize_t)dataset->type->itemsize);
}

static PyObject *
dataset_get_n_units(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(get(op)->n_units);
}

/* --- the chunk table */

typedef struct units_call {
    scio_h5_dataset *dataset;
    const scio_h5_unit *units;
} units_call;

static scio_status
run_units(void *context, const volatile int *Py_UNUSED(cancel), scio_error *err)
{
    units_call *const call = context;

    return scio_h5_dataset_units(call->dataset, &call->units, err);
}

static const scio_h5_unit *
load_units(py_dataset *self)
{
    units_call call = {self->dataset, NULL};
    scio_error err = SCIO_ERROR_INIT;

    if (py_check_pid(self->pid, "scio._core.Dataset") < 0)
        return NULL;
    if (py_call(run_units, &call, is_callback(self), &err) != SCIO_OK)
        raise_from(self, &err);
    return call.units;
}

static PyObject *
dataset_get_stored_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_h5_unit *const units = load_units((py_dataset *)op);
    uint64_t nbytes = 0;

    if (units == NULL && PyErr_Occurred())
        return NULL;
    for (uint64_t i = 0; i < get(op)->n_units; i++) {
        if (units[i].position != SCIO_H5_UNDEFINED)
            nbytes += units[i].nbytes;
    }
    return PyLong_FromUnsignedLongLong(nbytes);
}

static PyObject *
dataset_units(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const scio_h5_unit *const units = load_units((py_dataset *)op);
    const uint64_t n_units = get(op)->n_units;
    const npy_intp dims[2] = {(npy_intp)n_units, 4};
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;
    size_t nbytes = 0;
    int64_t *rows;

    if (units == NULL && PyErr_Occurred())
        return NULL;
    if (!scio_mul_size((size_t)n_units, 4 * sizeof(*rows), &nbytes))
        return py_fail(py_state_of(op), SCIO_ENOMEM, "the table of %llu chunks",
                       (unsigned long long)n_units);
    if (scio_buf_new(nbytes, &buf, &err) != SCIO_OK)
        return py_raise(py_state_of(op), &err);
    rows = scio_buf_data(buf);
    for (uint64_t i = 0; i < n_units; i++) {
        rows[4 * i] = (int64_t)units[i].position; /* all ones, the undefined one, is -1 */
        rows[4 * i + 1] = (int64_t)units[i].nbytes;
        rows[4 * i + 2] = (int64_t)units[i].filter_mask;
        rows[4 * i + 3] = units[i].is_raw;
    }
    return py_array_from_buf(buf, SCIO_I64, 2, dims);
}

/* --- reading */

typedef struct read_call {
    scio_h5_dataset *dataset;
    uint64_t start[SCIO_H5_MAX_RANK], count[SCIO_H5_MAX_RANK];
    scio_dtype dtype; /* NONE = as stored */
    size_t n_threads;
    size_t nbytes;
    scio_buf *out;
} read_call;

static scio_status
run_read(void *context, const volatile int *cancel, scio_error *err)
{
    read_call *const call = context;
    const scio_h5_read_options options = {NULL, call->n_threads, cancel};

    SCIO_TRY(scio_buf_new(call->nbytes, &call->out, err));
    return scio_h5_dataset_read(call->dataset, call->start, call->count, call->dtype,
                                scio_buf_data(call->out), call->nbytes, &options, err);
}

int
py_dataset_box(const py_state *state, const scio_h5_dataset *dataset, PyObject *start,
               PyObject *count, uint64_t *start_out, uint64_t *count_out)
{
    const scio_h5_space *const space = &dataset->space;

    if (space->space_class == SCIO_H5_NULL) {
        py_fail(state, SCIO_EINVAL, "%s has a null dataspace: there is nothing to read",
                dataset->path);
        return -1;
    }
    if (start != Py_None && py_sizes_from(state, start, "start", start_out, space->rank) < 0)
        return -1;
    if (count != Py_None && py_sizes_from(state, count, "count", count_out, space->rank) < 0)
        return -1;
    for (unsigned i = 0; i < space->rank; i++) {
        const uint64_t left = start_out[i] <= space->dims[i] ? space->dims[i] - start_out[i] : 0;

        if (count == Py_None)
            count_out[i] = left;
        if (start_out[i] > space->dims[i] || count_out[i] > left) {
            py_fail(state, SCIO_ERANGE, "%s: items [%llu, %llu + %llu) of axis %u, which has %llu",
                    dataset->path, (unsigned long long)start_out[i],
                    (unsigned long long)start_out[i], (unsigned long long)count_out[i], i,
                    (unsigned long long)space->dims[i]);
            return -1;
        }
    }
    return 0;
}

int
py_dataset_measure(const py_state *state, const scio_h5_dataset *dataset, const uint64_t *count,
                   size_t itemsize, size_t *nbytes_out)
{
    *nbytes_out = itemsize;
    for (unsigned i = 0; i < dataset->space.rank; i++) {
        if (!scio_mul_size(*nbytes_out, (size_t)count[i], nbytes_out)) {
            py_fail(state, SCIO_ENOMEM, "%s: a box of more bytes than an address can tell",
                    dataset->path);
            return -1;
        }
    }
    return 0;
}

static int
parse_box(const py_state *state, PyObject *start, PyObject *count, read_call *call)
{
    return py_dataset_box(state, call->dataset, start, count, call->start, call->count);
}

static int
measure_box(const py_state *state, read_call *call, size_t itemsize)
{
    return py_dataset_measure(state, call->dataset, call->count, itemsize, &call->nbytes);
}

/* Runs the call and wraps what came; `itemsize` > 0 adds a last axis of so many bytes. */
static PyObject *
read_box(py_dataset *self, read_call *call, scio_dtype dtype, size_t itemsize)
{
    const unsigned rank = call->dataset->space.rank;
    const bool is_long = is_callback(self) || call->nbytes > PY_SHORT_NBYTES ||
                         call->dataset->unit_nbytes > PY_SHORT_NBYTES;
    npy_intp dims[SCIO_H5_MAX_RANK + 1];
    scio_error err = SCIO_ERROR_INIT;

    if (py_call(run_read, call, is_long, &err) != SCIO_OK) {
        scio_buf_release(call->out);
        return raise_from(self, &err);
    }
    for (unsigned i = 0; i < rank; i++)
        dims[i] = (npy_intp)call->count[i];
    dims[rank] = (npy_intp)itemsize;
    return py_array_from_buf(call->out, dtype, (int)rank + (itemsize > 0), dims);
}

int
py_dataset_require_numbers(const py_state *state, const scio_h5_dataset *dataset)
{
    if (dataset->type->dtype != SCIO_DTYPE_NONE)
        return 0;
    if (dataset->type->unsupported[0] != '\0')
        py_fail(state, SCIO_EUNSUPPORTED, "%s: %s", dataset->path, dataset->type->unsupported);
    else
        py_fail(state, SCIO_ETYPE, "%s does not hold numbers: read_raw gives its bytes",
                dataset->path);
    return -1;
}

static PyObject *
dataset_read(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_dataset *const self = (py_dataset *)op;
    const py_state *const state = py_state_of(op);
    read_call call = {.dataset = self->dataset, .n_threads = SIZE_MAX};
    PyObject *start = Py_None, *count = Py_None;
    const py_param params[] = {
        {.name = "start", .kind = PY_OBJECT, .is_optional = true, .is_named = true, .out = &start},
        {.name = "count", .kind = PY_OBJECT, .is_optional = true, .is_named = true, .out = &count},
        {.name = "dtype", .kind = PY_DTYPE, .is_optional = true, .out = &call.dtype},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.n_threads}};

    if (py_parse(state, "read", params, PY_N_PARAMS(params), 2, args, n_args, kwnames) < 0)
        return NULL;
    if (py_check_pid(self->pid, "scio._core.Dataset") < 0 ||
        py_dataset_require_numbers(state, self->dataset) < 0 ||
        parse_box(state, start, count, &call) < 0)
        return NULL;
    if (call.dtype == SCIO_DTYPE_NONE)
        call.dtype = self->dataset->type->dtype;
    if (measure_box(state, &call, scio_dtype_itemsize(call.dtype)) < 0)
        return NULL;
    return read_box(self, &call, call.dtype, 0);
}

static PyObject *
dataset_read_raw(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_dataset *const self = (py_dataset *)op;
    const py_state *const state = py_state_of(op);
    read_call call = {.dataset = self->dataset, .n_threads = SIZE_MAX};
    PyObject *start = Py_None, *count = Py_None;
    const py_param params[] = {
        {.name = "start", .kind = PY_OBJECT, .is_optional = true, .is_named = true, .out = &start},
        {.name = "count", .kind = PY_OBJECT, .is_optional = true, .is_named = true, .out = &count},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.n_threads}};
    const size_t itemsize = self->dataset->type->itemsize;

    if (py_parse(state, "read_raw", params, PY_N_PARAMS(params), 2, args, n_args, kwnames) < 0)
        return NULL;
    if (py_check_pid(self->pid, "scio._core.Dataset") < 0 ||
        parse_box(state, start, count, &call) < 0 || measure_box(state, &call, itemsize) < 0)
        return NULL;
    return read_box(self, &call, SCIO_U8, itemsize);
}

/* --- the type */

static PyMethodDef dataset_methods[] = {
    {"units", dataset_units, METH_NOARGS,
     "units($self)\n--\n\n"
     "Return (n_units, 4) int64: position (-1 = never written), nbytes, mask, is_raw."},
    {"read", PY_METHOD(dataset_read), METH_FASTCALL | METH_KEYWORDS,
     "read($self, start=None, count=None, *, dtype=None, threads=-1)\n--\n\n"
     "Read a box as numbers: native byte order, the stored dtype unless `dtype` is given."},
    {"read_raw", PY_METHOD(dataset_read_raw), METH_FASTCALL | METH_KEYWORDS,
     "read_raw($self, start=None, count=None, *, threads=-1)\n--\n\n"
     "Read a box as stored: uint8 of shape count + (itemsize,)."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef dataset_members[] = {
    {"path", dataset_get_path, NULL, "Path by which it was opened.", NULL},
    {"shape", dataset_get_shape, NULL, "Sizes; None for a null dataspace.", NULL},
    {"maxshape", dataset_get_maxshape, NULL, "Largest sizes, None where unlimited.", NULL},
    {"dtype", dataset_get_dtype, NULL, "NumPy name, None when it holds no numbers.", NULL},
    {"type", dataset_get_type, NULL, "Description of the datatype.", NULL},
    {"chunks", dataset_get_chunks, NULL, "Sizes of a chunk, None when not chunked.", NULL},
    {"layout", dataset_get_layout, NULL, "\"compact\", \"contiguous\" or \"chunked\".", NULL},
    {"index", dataset_get_index, NULL, "Kind of the chunk index.", NULL},
    {"filters", dataset_get_filters, NULL, "List of (id, name, flags, client values).", NULL},
    {"fill", dataset_get_fill, NULL, "Bytes of the fill value, None = zeros.", NULL},
    {"n_units", dataset_get_n_units, NULL, "Number of chunks, written or not.", NULL},
    {"stored_nbytes", dataset_get_stored_nbytes, NULL, "Bytes of all written chunks.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot dataset_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "One dataset; keeps its file alive.  Thread-safe."},
    PY_SLOT(Py_tp_dealloc, dataset_dealloc),
    PY_SLOT(Py_tp_traverse, dataset_traverse),
    PY_SLOT(Py_tp_clear, dataset_clear),
    {Py_tp_methods, dataset_methods},
    {Py_tp_getset, dataset_members},
    {0, NULL},
};

static PyType_Spec dataset_spec = {
    .name = "scio._core.Dataset",
    .basicsize = sizeof(py_dataset),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = dataset_slots,
};

int
py_dataset_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &dataset_spec, &state->dataset_type);
}
