/* The extension module scio._h5write: one type, Writer, over h5write/writer.h.
 *
 * A module of its own, since importing it loads libhdf5; it shares the helpers of py/ by their
 * objects, not by symbols, so both modules can be there at once. */
#define PY_OWNS_NUMPY_TABLE
#include "py_h5write/pyh5write.h"

#include "base/pool.h"

/* --- what the types share */

scio_h5_writer *
py_writer_borrow(py_writer *self)
{
    const py_state *const state = py_state_of((PyObject *)self);

    if (self->writer == NULL || self->is_busy) {
        py_fail(state, SCIO_EINVAL, "the writer %s",
                self->is_busy ? "is at work in another thread" : "was closed");
        return NULL;
    }
    self->is_busy = true;
    return self->writer;
}

void
py_writer_return(py_writer *self)
{
    self->is_busy = false;
}

int
py_writer_match_threads(const writer_state *state)
{
    PyObject *const number = PyObject_CallNoArgs(state->get_threads);
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool = NULL;
    scio_status status;
    size_t n_threads;

    if (number == NULL)
        return -1;
    n_threads = PyLong_AsSize_t(number);
    Py_DECREF(number);
    if (n_threads == (size_t)-1 && PyErr_Occurred())
        return -1;
    status = scio_pool_shared(&pool, &err);
    if (status == SCIO_OK && scio_pool_n_threads(pool) != n_threads)
        status = scio_pool_resize(pool, n_threads, &err);
    if (status == SCIO_OK)
        return 0;
    py_raise(&state->shared, &err);
    return -1;
}

/* --- the writer */

static PyObject *
writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    const py_state *const state = PyType_GetModuleState(type);
    PyObject *object = NULL, *bytes = NULL;
    const char *path, *mark = NULL;
    const py_param params[] = {
        {.name = "path", .kind = PY_OBJECT, .out = &object},
        {.name = "user_block", .kind = PY_TEXT, .is_optional = true, .out = &mark}};
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    py_writer *self;
    scio_status status;

    if (py_parse_tuple(state, "Writer", params, PY_N_PARAMS(params), 1, args, kwargs) < 0 ||
        !PyUnicode_FSConverter(object, &bytes))
        return NULL;
    self = (py_writer *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_DECREF(bytes);
        return NULL;
    }
    path = PyBytes_AS_STRING(bytes);
    Py_BEGIN_ALLOW_THREADS;
    status = mark == NULL ? scio_h5_writer_new(path, &writer, &err)
                          : scio_h5_writer_new_marked(path, mark, &writer, &err);
    Py_END_ALLOW_THREADS;
    Py_DECREF(bytes);
    self->writer = writer;
    if (status == SCIO_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    return py_raise_path(state, &err, object);
}

static void
free_writer(py_writer *self)
{
    scio_h5_writer *const writer = self->writer;

    self->writer = NULL;
    Py_BEGIN_ALLOW_THREADS;
    scio_h5_writer_free(writer);
    Py_END_ALLOW_THREADS;
}

static void
writer_dealloc(PyObject *op)
{
    PyTypeObject *const type = Py_TYPE(op);

    free_writer((py_writer *)op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
done(PyObject *op, scio_status status, const scio_error *err)
{
    ((py_writer *)op)->is_busy = false;
    return status == SCIO_OK ? Py_NewRef(Py_None) : py_raise(py_state_of(op), err);
}

static PyObject *
writer_group(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const char *path = NULL;
    bool is_wide = false;
    const py_param params[] = {
        {.name = "path", .kind = PY_TEXT, .out = &path},
        {.name = "wide", .kind = PY_BOOL, .is_optional = true, .out = &is_wide}};
    scio_h5_writer *writer = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_parse(py_state_of(op), "group", params, PY_N_PARAMS(params), 1, args, n_args, kwnames) <
        0)
        return NULL;
    writer = py_writer_borrow((py_writer *)op);
    if (writer == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_writer_group(writer, path, is_wide, &err);
    Py_END_ALLOW_THREADS;
    return done(op, status, &err);
}

static PyObject *
writer_attr(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of(op);
    const char *path = NULL, *name = NULL;
    PyObject *object = NULL, *result = NULL;
    const py_param params[] = {{.name = "path", .kind = PY_TEXT, .out = &path},
                               {.name = "name", .kind = PY_TEXT, .out = &name},
                               {.name = "value", .kind = PY_OBJECT, .out = &object}};
    scio_h5_writer *writer = NULL;
    py_value value = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_parse(state, "attr", params, PY_N_PARAMS(params), 3, args, n_args, NULL) < 0)
        return NULL;
    if (py_value_from(state, object, &value) == 0)
        writer = py_writer_borrow((py_writer *)op);
    if (writer != NULL) {
        Py_BEGIN_ALLOW_THREADS;
        status = scio_h5_writer_attr(writer, path, name, &value.c, &err);
        Py_END_ALLOW_THREADS;
        result = done(op, status, &err);
    }
    py_value_clear(&value);
    return result;
}

typedef struct dataset_call {
    scio_h5_writer *writer;
    const char *path;
    const scio_h5_value *value;
} dataset_call;

static scio_status
run_dataset(void *context, const volatile int *cancel, scio_error *err)
{
    const dataset_call *const call = context;

    return scio_h5_writer_dataset(call->writer, call->path, call->value, cancel, err);
}

static PyObject *
writer_dataset(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of(op);
    dataset_call call = {NULL, NULL, NULL};
    PyObject *object = NULL, *result = NULL;
    const py_param params[] = {{.name = "path", .kind = PY_TEXT, .out = &call.path},
                               {.name = "value", .kind = PY_OBJECT, .out = &object}};
    py_value value = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    bool is_long;

    if (py_parse(state, "dataset", params, PY_N_PARAMS(params), 2, args, n_args, NULL) < 0)
        return NULL;
    if (py_value_from(state, object, &value) == 0 &&
        py_writer_match_threads(PyType_GetModuleState(Py_TYPE(op))) == 0)
        call.writer = py_writer_borrow((py_writer *)op);
    if (call.writer != NULL) {
        call.value = &value.c;
        is_long = PyArray_Check(object) &&
                  PyArray_NBYTES((PyArrayObject *)object) > (npy_intp)PY_SHORT_NBYTES;
        status = py_call(run_dataset, &call, is_long, &err);
        result = done(op, status, &err);
    }
    py_value_clear(&value);
    return result;
}

static PyObject *
writer_reserve(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of(op);
    const char *path = NULL;
    PyObject *shape = NULL;
    scio_h5_value value = {0};
    const py_param params[] = {{.name = "path", .kind = PY_TEXT, .out = &path},
                               {.name = "shape", .kind = PY_OBJECT, .out = &shape},
                               {.name = "dtype", .kind = PY_DTYPE, .out = &value.dtype}};
    scio_h5_writer *writer = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint64_t offset = 0;
    scio_status status;

    if (py_parse(state, "reserve", params, PY_N_PARAMS(params), 1, args, n_args, kwnames) < 0)
        return NULL;
    if (!PyTuple_Check(shape) || PyTuple_GET_SIZE(shape) > SCIO_H5_WRITER_MAX_RANK)
        return py_fail(state, SCIO_ETYPE, "shape is no tuple of at most %d sizes",
                       SCIO_H5_WRITER_MAX_RANK);
    value.rank = (unsigned)PyTuple_GET_SIZE(shape);
    if (py_sizes_from(state, shape, "shape", value.dims, value.rank) < 0)
        return NULL;
    writer = py_writer_borrow((py_writer *)op);
    if (writer == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_writer_reserve(writer, path, &value, &offset, &err);
    Py_END_ALLOW_THREADS;
    PyObject *const result = done(op, status, &err);
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    return PyLong_FromUnsignedLongLong(offset);
}

static PyObject *
writer_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_writer *writer;
    scio_status status;

    if (py_writer_match_threads(PyType_GetModuleState(Py_TYPE(op))) < 0)
        return NULL;
    writer = py_writer_borrow((py_writer *)op);
    if (writer == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_writer_close(writer, &err);
    Py_END_ALLOW_THREADS;
    free_writer((py_writer *)op);
    return done(op, status, &err);
}

static PyObject *
writer_discard(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_writer *const self = (py_writer *)op;

    if (self->writer != NULL && py_writer_borrow(self) == NULL)
        return NULL;
    free_writer(self);
    self->is_busy = false;
    Py_RETURN_NONE;
}

/* --- the module */

static PyMethodDef writer_methods[] = {
    {"group", PY_METHOD(writer_group), METH_FASTCALL | METH_KEYWORDS,
     "group($self, path, /, *, wide=False)\n--\n\nMake a group; wide: attributes beyond 64 KiB."},
    {"attr", PY_METHOD(writer_attr), METH_FASTCALL,
     "attr($self, path, name, value, /)\n--\n\nWrite an attribute."},
    {"dataset", PY_METHOD(writer_dataset), METH_FASTCALL,
     "dataset($self, path, value, /)\n--\n\nWrite a contiguous dataset."},
    {"reserve", PY_METHOD(writer_reserve), METH_FASTCALL | METH_KEYWORDS,
     "reserve($self, path, /, *, shape, dtype)\n--\n\n"
     "Set a contiguous dataset's space aside; return its offset in the file."},
    {"chunked", PY_METHOD(py_writer_chunked), METH_FASTCALL | METH_KEYWORDS,
     "chunked($self, path, /, *, shape, dtype, chunks, maxshape=None, shuffle=True, deflate=1, "
     "fletcher32=False)\n--\n\nMake a chunked dataset to append rows to."},
    {"close", writer_close, METH_NOARGS,
     "close($self, /)\n--\n\nEnd the file, finishing what is open, and sync it; raises the first "
     "failure."},
    {"discard", writer_discard, METH_NOARGS,
     "discard($self, /)\n--\n\nLet go of the file, which is of no use then."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "Writer(path, /, *, user_block=...)\n--\n\n"
                                    "A new HDF5 file being written."},
    PY_SLOT(Py_tp_new, writer_new),
    PY_SLOT(Py_tp_dealloc, writer_dealloc),
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "scio._h5write.Writer",
    .basicsize = sizeof(py_writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writer_slots,
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out == NULL ? -1 : PyModule_AddType(module, *out);
}

static int
module_exec(PyObject *module)
{
    writer_state *const state = PyModule_GetState(module);
    PyObject *core;
    char version[32];

    if (PyArray_ImportNumPyAPI() < 0 || py_errors_load(&state->shared) < 0)
        return -1;
    core = PyImport_ImportModule("scio._core");
    if (core == NULL)
        return -1;
    state->get_threads = PyObject_GetAttrString(core, "get_threads");
    Py_DECREF(core);
    if (state->get_threads == NULL || add_type(module, &writer_spec, &state->writer_type) < 0 ||
        add_type(module, &py_chunked_spec, &state->chunked_type) < 0)
        return -1;
    scio_h5_writer_version(version, sizeof version);
    return PyModule_AddStringConstant(module, "hdf5_version", version);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    const writer_state *const state = PyModule_GetState(module);

    for (size_t code = 0; code <= SCIO_EBUG; code++)
        Py_VISIT(state->shared.errors[code]);
    Py_VISIT(state->writer_type);
    Py_VISIT(state->chunked_type);
    Py_VISIT(state->get_threads);
    return 0;
}

static int
module_clear(PyObject *module)
{
    writer_state *const state = PyModule_GetState(module);

    for (size_t code = 0; code <= SCIO_EBUG; code++)
        Py_CLEAR(state->shared.errors[code]);
    Py_CLEAR(state->writer_type);
    Py_CLEAR(state->chunked_type);
    Py_CLEAR(state->get_threads);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    PY_SLOT(Py_mod_exec, module_exec),
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "scio._h5write",
    .m_doc = "Writing HDF5 through libhdf5.  Private: scio.io.writer is its face.",
    .m_size = sizeof(writer_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__h5write(void); /* the one symbol that the module exports */

PyMODINIT_FUNC
PyInit__h5write(void)
{
    return PyModuleDef_Init(&module_def);
}
