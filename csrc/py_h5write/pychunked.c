/* ChunkedDataset: rows appended to a dataset of a Writer.  The C object is the writer's; what is
 * here asks the writer first whether there still is one. */
#include "py_h5write/pyh5write.h"

typedef struct py_chunked {
    PyObject_HEAD
    py_writer *writer;
    scio_h5_chunked *chunked; /* NULL once it was finished; gone with the C writer too */
    PyArray_Descr *descr;     /* whose names the element has */
    scio_h5_element element;
    int rank;
    uint64_t dims[SCIO_H5_WRITER_MAX_RANK];
    uint64_t stored_nbytes; /* once it was finished */
} py_chunked;

/* --- making one */

/* A tuple of sizes; None is UNLIMITED where allowed.  -1 with an exception. */
static int
dims_from(const py_state *state, PyObject *object, const char *name, bool is_none_allowed,
          unsigned n_dims, uint64_t *out)
{
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != (Py_ssize_t)n_dims) {
        py_fail(state, SCIO_ETYPE, "%s is not a tuple of %u sizes", name, n_dims);
        return -1;
    }
    for (unsigned i = 0; i < n_dims; i++) {
        PyObject *const item = PyTuple_GET_ITEM(object, (Py_ssize_t)i);
        Py_ssize_t size;

        if (item == Py_None && is_none_allowed) {
            out[i] = SCIO_H5_UNLIMITED;
            continue;
        }
        size = PyNumber_AsSsize_t(item, PyExc_OverflowError);
        if (size == -1 && PyErr_Occurred())
            return -1;
        if (size < 0) {
            py_fail(state, SCIO_EINVAL, "%s[%u] is %zd, expected 0 or more", name, i, size);
            return -1;
        }
        out[i] = (uint64_t)size;
    }
    return 0;
}

static int
level_from(const py_state *state, PyObject *object, int *out)
{
    long level;

    *out = SCIO_DEFLATE_NONE;
    if (object == Py_None)
        return 0;
    level = PyLong_AsLong(object);
    if (level == -1 && PyErr_Occurred())
        return -1;
    if (level < 0 || level > SCIO_DEFLATE_MAX_LEVEL) {
        py_fail(state, SCIO_EINVAL, "deflate is %ld, expected None or 0 to %d", level,
                SCIO_DEFLATE_MAX_LEVEL);
        return -1;
    }
    *out = (int)level;
    return 0;
}

typedef struct chunked_args {
    const char *path;
    PyObject *shape, *dtype, *chunks, *maxshape, *deflate;
    scio_h5_chunked_spec spec;
} chunked_args;

static int
spec_from(const py_state *state, chunked_args *a)
{
    const Py_ssize_t rank = PyTuple_Check(a->shape) ? PyTuple_GET_SIZE(a->shape) : 0;
    scio_h5_chunked_spec *const spec = &a->spec;

    if (rank < 1 || rank > SCIO_H5_WRITER_MAX_RANK) {
        py_fail(state, SCIO_ETYPE, "shape is no tuple of 1 to %d sizes", SCIO_H5_WRITER_MAX_RANK);
        return -1;
    }
    spec->rank = (unsigned)rank;
    if (dims_from(state, a->shape, "shape", true, spec->rank, spec->dims) < 0 ||
        dims_from(state, a->chunks, "chunks", false, spec->rank, spec->chunk_dims) < 0 ||
        dims_from(state, a->maxshape == Py_None ? a->shape : a->maxshape, "maxshape", true,
                  spec->rank, spec->max_dims) < 0)
        return -1;
    return level_from(state, a->deflate, &spec->level);
}

/* Takes `descr` and, on success, what `spec->element` owns. */
static py_chunked *
make_object(PyTypeObject *type, py_writer *writer, PyArray_Descr *descr,
            const scio_h5_chunked_spec *spec)
{
    py_chunked *const self = (py_chunked *)type->tp_alloc(type, 0);

    if (self == NULL)
        return NULL;
    self->writer = (py_writer *)Py_NewRef(writer);
    self->descr = (PyArray_Descr *)Py_NewRef(descr);
    self->element = spec->element;
    self->rank = (int)spec->rank;
    for (int i = 0; i < self->rank; i++)
        self->dims[i] = spec->dims[i];
    return self;
}

static PyObject *
chunked_from(PyObject *op, chunked_args *a)
{
    const writer_state *const state = PyType_GetModuleState(Py_TYPE(op));
    PyArray_Descr *descr = NULL;
    py_chunked *self = NULL;
    scio_h5_writer *writer;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (spec_from(&state->shared, a) < 0 || PyArray_DescrConverter(a->dtype, &descr) != NPY_SUCCEED)
        return NULL;
    if (py_element_from(&state->shared, descr, &a->spec.element) == 0) {
        self = make_object(state->chunked_type, (py_writer *)op, descr, &a->spec);
        if (self == NULL)
            py_element_clear(&a->spec.element);
    }
    Py_DECREF(descr);
    writer = self == NULL ? NULL : py_writer_borrow((py_writer *)op);
    if (writer == NULL) {
        Py_XDECREF(self);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_chunked_new(writer, a->path, &a->spec, &self->chunked, &err);
    Py_END_ALLOW_THREADS;
    py_writer_return((py_writer *)op);
    if (status == SCIO_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    return py_raise(&state->shared, &err);
}

PyObject *
py_writer_chunked(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    chunked_args a = {.maxshape = Py_None, .spec = {.shuffle = true}};
    const py_param params[] = {
        {.name = "path", .kind = PY_TEXT, .out = &a.path},
        {.name = "shape", .kind = PY_OBJECT, .out = &a.shape},
        {.name = "dtype", .kind = PY_OBJECT, .out = &a.dtype},
        {.name = "chunks", .kind = PY_OBJECT, .out = &a.chunks},
        {.name = "maxshape", .kind = PY_OBJECT, .is_optional = true, .out = &a.maxshape},
        {.name = "shuffle", .kind = PY_BOOL, .is_optional = true, .out = &a.spec.shuffle},
        {.name = "deflate", .kind = PY_OBJECT, .is_optional = true, .out = &a.deflate},
        {.name = "fletcher32", .kind = PY_BOOL, .is_optional = true, .out = &a.spec.fletcher32}};
    PyObject *const one = PyLong_FromLong(1), *result = NULL;

    a.deflate = one;
    if (one != NULL && py_parse(py_state_of(op), "chunked", params, PY_N_PARAMS(params), 1, args,
                                n_args, kwnames) == 0)
        result = chunked_from(op, &a);
    Py_XDECREF(one);
    return result;
}

/* --- using it */

/* The C writer, borrowed, of a dataset that is not finished; NULL with an exception. */
static scio_h5_writer *
borrow(py_chunked *self)
{
    if (self->writer->writer != NULL && self->chunked == NULL) {
        py_fail(py_state_of((PyObject *)self), SCIO_EINVAL, "the dataset was finished");
        return NULL;
    }
    return py_writer_borrow(self->writer);
}

/* Rows that fit the dataset; -1 with an exception. */
static int
check_array(const py_chunked *self, const py_state *state, PyArrayObject *array)
{
    scio_h5_element element;
    bool is_same;

    if (PyArray_NDIM(array) != self->rank) {
        py_fail(state, SCIO_EINVAL, "array has %d dimensions, the dataset %d", PyArray_NDIM(array),
                self->rank);
        return -1;
    }
    for (int i = 1; i < self->rank; i++) {
        if ((uint64_t)PyArray_DIM(array, i) == self->dims[i])
            continue;
        py_fail(state, SCIO_EINVAL, "array.shape[%d] is %zd, the dataset's is %llu", i,
                (Py_ssize_t)PyArray_DIM(array, i), (unsigned long long)self->dims[i]);
        return -1;
    }
    if (py_element_from(state, PyArray_DESCR(array), &element) < 0)
        return -1;
    is_same = py_element_equal(&element, &self->element);
    py_element_clear(&element);
    if (is_same)
        return 0;
    PyErr_Format(PyExc_TypeError, "array is %S, the dataset is %S", PyArray_DESCR(array),
                 self->descr);
    return -1;
}

typedef struct append_call {
    scio_h5_chunked *chunked;
    const void *rows;
    uint64_t n_rows;
    size_t max_parallel;
} append_call;

static scio_status
run_append(void *context, const volatile int *cancel, scio_error *err)
{
    const append_call *const call = context;

    return scio_h5_chunked_append(call->chunked, call->rows, call->n_rows, call->max_parallel,
                                  cancel, err);
}

static PyObject *
append_array(py_chunked *self, PyArrayObject *array, size_t max_parallel)
{
    const writer_state *const state = PyType_GetModuleState(Py_TYPE(self));
    const uint64_t nbytes = (uint64_t)PyArray_SIZE(array) * self->element.nbytes;
    py_items items = {NULL, NULL, NULL};
    append_call call = {.n_rows = (uint64_t)PyArray_DIM(array, 0), .max_parallel = max_parallel};
    scio_error err = SCIO_ERROR_INIT;
    PyObject *result = NULL;
    scio_status status;

    if (py_items_from(&state->shared, array, &self->element, &items) == 0 &&
        py_writer_match_threads(state) == 0 && borrow(self) != NULL) {
        call.chunked = self->chunked;
        call.rows = items.data;
        status = py_call(run_append, &call, nbytes > PY_SHORT_NBYTES, &err);
        py_writer_return(self->writer);
        result = status == SCIO_OK ? Py_NewRef(Py_None) : py_raise(&state->shared, &err);
    }
    py_items_clear(&items);
    return result;
}

static PyObject *
chunked_append(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_chunked *const self = (py_chunked *)op;
    const py_state *const state = py_state_of(op);
    PyObject *object = NULL;
    size_t max_parallel = SIZE_MAX;
    const py_param params[] = {
        {.name = "array", .kind = PY_OBJECT, .out = &object},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &max_parallel}};

    if (py_parse(state, "append", params, PY_N_PARAMS(params), 1, args, n_args, kwnames) < 0)
        return NULL;
    if (!PyArray_Check(object))
        return py_fail(state, SCIO_ETYPE, "array is %s, expected a numpy.ndarray",
                       Py_TYPE(object)->tp_name);
    if (check_array(self, state, (PyArrayObject *)object) < 0)
        return NULL;
    return append_array(self, (PyArrayObject *)object, max_parallel);
}

static PyObject *
chunked_finish(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_chunked *const self = (py_chunked *)op;
    const writer_state *const state = PyType_GetModuleState(Py_TYPE(op));
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_writer_match_threads(state) < 0 || borrow(self) == NULL)
        return NULL;
    scio_h5_chunked *const chunked = self->chunked;
    self->chunked = NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_chunked_finish(chunked, &self->stored_nbytes, &err);
    Py_END_ALLOW_THREADS;
    py_writer_return(self->writer);
    if (status != SCIO_OK)
        return py_raise(&state->shared, &err);
    return PyLong_FromUnsignedLongLong(self->stored_nbytes);
}

static void
chunked_dealloc(PyObject *op)
{
    PyTypeObject *const type = Py_TYPE(op);
    py_chunked *const self = (py_chunked *)op;

    py_element_clear(&self->element);
    Py_XDECREF(self->descr);
    Py_XDECREF(self->writer);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef chunked_methods[] = {
    {"append", PY_METHOD(chunked_append), METH_FASTCALL | METH_KEYWORDS,
     "append($self, array, /, *, threads=-1)\n--\n\nAdd rows behind those that are there."},
    {"finish", chunked_finish, METH_NOARGS,
     "finish($self, /)\n--\n\nWrite what is left; return the bytes stored in the file."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot chunked_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "A chunked dataset of a Writer, to which rows are appended."},
    PY_SLOT(Py_tp_dealloc, chunked_dealloc),
    {Py_tp_methods, chunked_methods},
    {0, NULL},
};

PyType_Spec py_chunked_spec = {
    .name = "scio._h5write.ChunkedDataset",
    .basicsize = sizeof(py_chunked),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = chunked_slots,
};
