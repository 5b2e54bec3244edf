/* scio._core.Matrix: rows of a CSR or dense matrix, in a file or in memory.
 *
 * Thread-safe: the matrix does not change; its cache of decoded chunks has its own lock. */
#include "py/py.h"

#include "base/mem.h"

#include <unistd.h>

/* --- helpers */

static const scio_matrix *
get(PyObject *op)
{
    return ((py_matrix *)op)->matrix;
}

int
py_matrix_check(py_matrix *self)
{
    return self->matrix->is_in_file ? py_check_pid(self->pid, "scio._core.Matrix") : 0;
}

/* Takes `matrix`. */
static PyObject *
make(PyTypeObject *type, scio_matrix *matrix, PyObject *file)
{
    py_matrix *const self = (py_matrix *)type->tp_alloc(type, 0);

    if (self == NULL) {
        scio_matrix_release(matrix);
        return NULL;
    }
    self->matrix = matrix;
    self->file = Py_XNewRef(file);
    self->is_callback = file != NULL && ((py_file *)file)->callback != NULL;
    self->pid = getpid();
    return (PyObject *)self;
}

static int
matrix_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((py_matrix *)op)->file);
    return 0;
}

static int
matrix_clear(PyObject *op)
{
    Py_CLEAR(((py_matrix *)op)->file);
    return 0;
}

/* In a forked child the cache may have been caught half changed: it is left alone. */
static void
matrix_dealloc(PyObject *op)
{
    py_matrix *const self = (py_matrix *)op;
    PyTypeObject *const type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    if (!self->matrix->is_in_file || self->pid == getpid())
        scio_matrix_release(self->matrix);
    matrix_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- opening */

static py_file *
check_file(const py_state *state, PyObject *file)
{
    if (Py_IS_TYPE(file, state->file_type))
        return (py_file *)file;
    py_fail(state, SCIO_ETYPE, "file is %s, expected scio._core.File", Py_TYPE(file)->tp_name);
    return NULL;
}

static PyObject *
matrix_open_sparse(PyObject *type, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *object = NULL;
    const char *path = NULL;
    int64_t shape[2] = {0, 0}, max_nbytes = -1;
    bool is_csc = false;
    const py_param params[] = {
        {.name = "file", .kind = PY_OBJECT, .out = &object},
        {.name = "path", .kind = PY_TEXT, .out = &path},
        {.name = "shape", .kind = PY_SHAPE, .out = shape},
        {.name = "is_csc", .kind = PY_BOOL, .is_optional = true, .out = &is_csc},
        {.name = "max_nbytes", .kind = PY_INT64, .is_optional = true, .out = &max_nbytes}};
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    py_file *owner;
    uint64_t address;

    if (py_parse(state, "open_sparse", params, PY_N_PARAMS(params), 2, args, n_args, kwnames) < 0)
        return NULL;
    owner = check_file(state, object);
    file = owner == NULL ? NULL : py_file_borrow(owner);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_matrix_open_sparse(file, address, path, shape[0], shape[1], is_csc,
                                         max_nbytes < 0 ? UINT64_MAX : (uint64_t)max_nbytes,
                                         &matrix, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? make((PyTypeObject *)type, matrix, object)
                             : py_file_raise(owner, state, path, &err);
}

static PyObject *
matrix_open_dense(PyObject *type, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *object = NULL;
    const char *path = NULL;
    const py_param params[] = {{.name = "file", .kind = PY_OBJECT, .out = &object},
                               {.name = "path", .kind = PY_TEXT, .out = &path}};
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    py_file *owner;
    uint64_t address;

    if (py_parse(state, "open_dense", params, PY_N_PARAMS(params), 2, args, n_args, NULL) < 0)
        return NULL;
    owner = check_file(state, object);
    file = owner == NULL ? NULL : py_file_borrow(owner);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_matrix_open_dense(file, address, path, &matrix, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? make((PyTypeObject *)type, matrix, object)
                             : py_file_raise(owner, state, path, &err);
}

/* map_sparse with a shape, map_dense without. */
static PyObject *
map_matrix(PyObject *type, const char *function, bool is_sparse, PyObject *const *args,
           Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *object = NULL;
    const char *path = NULL;
    int64_t shape[2] = {0, 0};
    const py_param params[] = {{.name = "file", .kind = PY_OBJECT, .out = &object},
                               {.name = "path", .kind = PY_TEXT, .out = &path},
                               {.name = "shape", .kind = PY_SHAPE, .out = shape}};
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    py_file *owner;
    uint64_t address;

    if (py_parse(state, function, params, is_sparse ? 3 : 2, 2, args, n_args, kwnames) < 0)
        return NULL;
    owner = check_file(state, object);
    file = owner == NULL ? NULL : py_file_borrow(owner);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK && is_sparse)
        status = scio_matrix_map_sparse(file, address, path, shape[0], shape[1], &matrix, &err);
    else if (status == SCIO_OK)
        status = scio_matrix_map_dense(file, address, path, &matrix, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    /* what is mapped needs no file any more, and so no descriptor */
    return status == SCIO_OK ? make((PyTypeObject *)type, matrix, NULL)
                             : py_file_raise(owner, state, path, &err);
}

static PyObject *
matrix_map_sparse(PyObject *type, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    return map_matrix(type, "map_sparse", true, args, n_args, kwnames);
}

static PyObject *
matrix_map_dense(PyObject *type, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    return map_matrix(type, "map_dense", false, args, n_args, kwnames);
}

static PyObject *
matrix_from_csr(PyObject *type, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = PyType_GetModuleState((PyTypeObject *)type);
    py_view data = {0}, indices = {0}, indptr = {0};
    int64_t shape[2] = {0, 0};
    const char *name = "matrix in memory";
    const py_param params[] = {
        {.name = "data", .kind = PY_ARRAY, .out = &data, .rank = 1},
        {.name = "indices", .kind = PY_ARRAY, .out = &indices, .rank = 1},
        {.name = "indptr", .kind = PY_ARRAY, .out = &indptr, .rank = 1, .dtype = SCIO_I64},
        {.name = "shape", .kind = PY_SHAPE, .out = shape},
        {.name = "name", .kind = PY_TEXT, .is_optional = true, .out = &name}};
    scio_buf *bufs[3] = {NULL, NULL, NULL};
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_csr_view csr;
    scio_status status;

    if (py_parse(state, "from_csr", params, PY_N_PARAMS(params), 3, args, n_args, kwnames) < 0 ||
        py_csr_view_from(state, &data, &indices, &indptr, shape, &csr) < 0)
        return NULL;
    status = py_buf_from_view(&data, &bufs[0], &err);
    if (status == SCIO_OK)
        status = py_buf_from_view(&indices, &bufs[1], &err);
    if (status == SCIO_OK)
        status = py_buf_from_view(&indptr, &bufs[2], &err);
    Py_BEGIN_ALLOW_THREADS;
    if (status == SCIO_OK)
        status = scio_matrix_from_csr(name, shape[0], shape[1], bufs[2], bufs[1], csr.index_dtype,
                                      bufs[0], csr.data_dtype, &matrix, &err);
    for (size_t i = 0; i < 3; i++)
        scio_buf_release(bufs[i]);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? make((PyTypeObject *)type, matrix, NULL) : py_raise(state, &err);
}

static PyObject *
matrix_from_dense(PyObject *type, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = PyType_GetModuleState((PyTypeObject *)type);
    py_view data = {0};
    const char *name = "matrix in memory";
    const py_param params[] = {
        {.name = "data", .kind = PY_ARRAY, .out = &data, .rank = 2},
        {.name = "name", .kind = PY_TEXT, .is_optional = true, .out = &name}};
    scio_buf *buf = NULL;
    scio_matrix *matrix = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (py_parse(state, "from_dense", params, PY_N_PARAMS(params), 1, args, n_args, kwnames) < 0)
        return NULL;
    status = py_buf_from_view(&data, &buf, &err);
    if (status == SCIO_OK)
        status = scio_matrix_from_dense(name, (int64_t)data.dims[0], (int64_t)data.dims[1], buf,
                                        data.dtype, &matrix, &err);
    scio_buf_release(buf);
    return status == SCIO_OK ? make((PyTypeObject *)type, matrix, NULL) : py_raise(state, &err);
}

/* --- description */

static PyObject *
matrix_get_shape(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_BuildValue("(LL)", (long long)get(op)->n_rows, (long long)get(op)->n_cols);
}

static PyObject *
matrix_get_nnz(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(get(op)->nnz);
}

static PyObject *
matrix_get_dtype(PyObject *op, void *Py_UNUSED(closure))
{
    return py_text(scio_dtype_name(get(op)->data_dtype));
}

static PyObject *
matrix_get_index_dtype(PyObject *op, void *Py_UNUSED(closure))
{
    return py_text(scio_dtype_name(get(op)->index_dtype));
}

static PyObject *
matrix_get_kind(PyObject *op, void *Py_UNUSED(closure))
{
    return py_text(get(op)->kind == SCIO_MATRIX_CSR ? "csr" : "dense");
}

static PyObject *
matrix_get_was_csc(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(get(op)->was_csc);
}

static PyObject *
matrix_get_is_in_file(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(get(op)->is_in_file);
}

static PyObject *
matrix_get_is_mapped(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(get(op)->is_mapped);
}

static PyObject *
matrix_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return py_text(get(op)->name);
}

static PyObject *
matrix_get_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(scio_matrix_nbytes(get(op)));
}

static PyObject *
matrix_get_indptr(PyObject *op, void *Py_UNUSED(closure))
{
    const scio_matrix *const matrix = get(op);
    const npy_intp dims[1] = {(npy_intp)matrix->n_rows + 1};
    PyObject *array;

    if (matrix->kind != SCIO_MATRIX_CSR)
        return py_fail(py_state_of(op), SCIO_EINVAL, "%s is dense: it has no indptr", matrix->name);
    array = PyArray_New(&PyArray_Type, 1, dims, NPY_INT64, NULL, matrix->indptr, 0,
                        NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED, NULL);
    if (array != NULL && PyArray_SetBaseObject((PyArrayObject *)array, Py_NewRef(op)) < 0)
        Py_CLEAR(array);
    return array;
}

/* --- reading */

static PyObject *
raise_from(py_matrix *self, scio_error *err)
{
    const py_state *const state = py_state_of((PyObject *)self);

    if (self->file == NULL)
        return py_raise(state, err);
    return py_file_raise((const py_file *)self->file, state, NULL, err);
}

typedef struct rows_call {
    scio_matrix *matrix;
    const int64_t *rows; /* take; NULL for a range */
    size_t n_rows;
    int64_t start, stop;
    scio_dtype dtype;
    size_t n_threads;
    scio_csr csr;
    scio_buf *dense;
} rows_call;

static scio_status
run_take(void *context, const volatile int *cancel, scio_error *err)
{
    rows_call *const call = context;

    return scio_matrix_take(call->matrix, call->rows, call->n_rows, call->dtype, call->n_threads,
                            cancel, &call->csr, err);
}

static scio_status
run_read(void *context, const volatile int *cancel, scio_error *err)
{
    rows_call *const call = context;

    return scio_matrix_read(call->matrix, call->start, call->stop, call->dtype, call->n_threads,
                            cancel, &call->csr, err);
}

static scio_status
run_read_dense(void *context, const volatile int *cancel, scio_error *err)
{
    rows_call *const call = context;
    size_t n_items, nbytes;

    if (!scio_mul_size((size_t)(call->stop - call->start), (size_t)call->matrix->n_cols,
                       &n_items) ||
        !scio_mul_size(n_items, scio_dtype_itemsize(call->dtype), &nbytes))
        return scio_fail(err, SCIO_ENOMEM, "%s: rows [%lld, %lld) dense", call->matrix->name,
                         (long long)call->start, (long long)call->stop);
    SCIO_TRY(scio_buf_new(nbytes, &call->dense, err));
    return scio_matrix_read_dense(call->matrix, call->start, call->stop, call->dtype,
                                  scio_buf_data(call->dense), nbytes, call->n_threads, cancel, err);
}

static PyObject *
matrix_take(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_matrix *const self = (py_matrix *)op;
    const py_state *const state = py_state_of(op);
    rows_call call = {.matrix = self->matrix, .n_threads = SIZE_MAX};
    py_view rows = {0};
    const py_param params[] = {
        {.name = "rows", .kind = PY_ARRAY, .out = &rows, .rank = 1, .dtype = SCIO_I64},
        {.name = "dtype", .kind = PY_DTYPE, .is_optional = true, .out = &call.dtype},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.n_threads}};
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "take", params, PY_N_PARAMS(params), 1, args, n_args, kwnames) < 0 ||
        py_matrix_check(self) < 0)
        return NULL;
    call.rows = rows.data;
    call.n_rows = rows.n_items;
    if (py_call(run_take, &call, self->is_callback || rows.n_items > PY_SHORT_N_ROWS, &err) ==
        SCIO_OK)
        return py_csr_arrays(&call.csr);
    scio_csr_clear(&call.csr);
    return raise_from(self, &err);
}

/* (start, stop, /, *, dtype, threads), and whether reading them takes long. */
static int
parse_range(py_matrix *self, const char *function, PyObject *const *args, Py_ssize_t n_args,
            PyObject *kwnames, rows_call *call, bool *is_long_out)
{
    const py_state *const state = py_state_of((PyObject *)self);
    const scio_matrix *const matrix = self->matrix;
    const py_param params[] = {
        {.name = "start", .kind = PY_INT64, .out = &call->start},
        {.name = "stop", .kind = PY_INT64, .out = &call->stop},
        {.name = "dtype", .kind = PY_DTYPE, .is_optional = true, .out = &call->dtype},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call->n_threads}};
    double n_items;

    *call = (rows_call){.matrix = self->matrix, .n_threads = SIZE_MAX};
    if (py_parse(state, function, params, PY_N_PARAMS(params), 2, args, n_args, kwnames) < 0 ||
        py_matrix_check(self) < 0)
        return -1;
    if (call->start < 0 || call->start > call->stop || call->stop > matrix->n_rows) {
        py_fail(state, SCIO_ERANGE, "%s: rows [%lld, %lld) do not lie in [0, %lld)", matrix->name,
                (long long)call->start, (long long)call->stop, (long long)matrix->n_rows);
        return -1;
    }
    n_items = matrix->kind == SCIO_MATRIX_CSR
                  ? (double)(matrix->indptr[call->stop] - matrix->indptr[call->start])
                  : (double)(call->stop - call->start) * (double)matrix->n_cols;
    *is_long_out = self->is_callback || n_items * sizeof(float) > (double)PY_SHORT_NBYTES;
    return 0;
}

static PyObject *
matrix_read(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    scio_error err = SCIO_ERROR_INIT;
    rows_call call;
    bool is_long;

    if (parse_range((py_matrix *)op, "read", args, n_args, kwnames, &call, &is_long) < 0)
        return NULL;
    if (py_call(run_read, &call, is_long, &err) == SCIO_OK)
        return py_csr_arrays(&call.csr);
    scio_csr_clear(&call.csr);
    return raise_from((py_matrix *)op, &err);
}

static PyObject *
matrix_read_dense(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    scio_error err = SCIO_ERROR_INIT;
    rows_call call;
    npy_intp dims[2];
    bool is_long;

    if (parse_range((py_matrix *)op, "read_dense", args, n_args, kwnames, &call, &is_long) < 0)
        return NULL;
    if (call.dtype == SCIO_DTYPE_NONE)
        call.dtype = call.matrix->data_dtype;
    if (py_call(run_read_dense, &call, is_long, &err) != SCIO_OK) {
        scio_buf_release(call.dense);
        return raise_from((py_matrix *)op, &err);
    }
    dims[0] = (npy_intp)(call.stop - call.start);
    dims[1] = (npy_intp)call.matrix->n_cols;
    return py_array_from_buf(call.dense, call.dtype, 2, dims);
}

/* --- the type */

#define MAKER_FLAGS (METH_CLASS | METH_FASTCALL)

static PyMethodDef matrix_methods[] = {
    {"open_sparse", PY_METHOD(matrix_open_sparse), MAKER_FLAGS | METH_KEYWORDS,
     "open_sparse($type, file, path, /, *, shape, is_csc=False, max_nbytes=-1)\n--\n\n"
     "Open a CSR group (or a CSC one, converted within max_nbytes)."},
    {"open_dense", PY_METHOD(matrix_open_dense), MAKER_FLAGS,
     "open_dense($type, file, path, /)\n--\n\nOpen a 2-D numeric dataset."},
    {"map_sparse", PY_METHOD(matrix_map_sparse), MAKER_FLAGS | METH_KEYWORDS,
     "map_sparse($type, file, path, /, *, shape)\n--\n\n"
     "Map a CSR group whose arrays are contiguous; it counts as a matrix in memory."},
    {"map_dense", PY_METHOD(matrix_map_dense), MAKER_FLAGS | METH_KEYWORDS,
     "map_dense($type, file, path, /)\n--\n\nMap a contiguous 2-D dataset."},
    {"from_csr", PY_METHOD(matrix_from_csr), MAKER_FLAGS | METH_KEYWORDS,
     "from_csr($type, data, indices, indptr, /, *, shape, name='matrix in memory')\n--\n\n"
     "Take arrays in memory, kept and not copied; runs the full gate."},
    {"from_dense", PY_METHOD(matrix_from_dense), MAKER_FLAGS | METH_KEYWORDS,
     "from_dense($type, data, /, *, name='matrix in memory')\n--\n\n"
     "Take a 2-D array in memory, kept and not copied."},
    {"take", PY_METHOD(matrix_take), METH_FASTCALL | METH_KEYWORDS,
     "take($self, rows, /, *, dtype=None, threads=-1)\n--\n\n"
     "Return data, indices, indptr of rows in any order."},
    {"read", PY_METHOD(matrix_read), METH_FASTCALL | METH_KEYWORDS,
     "read($self, start, stop, /, *, dtype=None, threads=-1)\n--\n\n"
     "Return data, indices, indptr of rows [start, stop)."},
    {"read_dense", PY_METHOD(matrix_read_dense), METH_FASTCALL | METH_KEYWORDS,
     "read_dense($self, start, stop, /, *, dtype=None, threads=-1)\n--\n\n"
     "Return rows [start, stop) dense."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef matrix_members[] = {
    {"shape", matrix_get_shape, NULL, "(rows, columns).", NULL},
    {"nnz", matrix_get_nnz, NULL, "Stored entries.", NULL},
    {"dtype", matrix_get_dtype, NULL, "NumPy name of the values as stored.", NULL},
    {"index_dtype", matrix_get_index_dtype, NULL, "NumPy name of the indices as stored.", NULL},
    {"kind", matrix_get_kind, NULL, "\"csr\" or \"dense\".", NULL},
    {"was_csc", matrix_get_was_csc, NULL, "Whether it was converted from columns.", NULL},
    {"is_in_file", matrix_get_is_in_file, NULL, "Whether reading decodes a file.", NULL},
    {"is_mapped", matrix_get_is_mapped, NULL, "Whether its memory is a file's.", NULL},
    {"name", matrix_get_name, NULL, "For messages.", NULL},
    {"nbytes", matrix_get_nbytes, NULL, "Bytes held in memory.", NULL},
    {"indptr", matrix_get_indptr, NULL, "Read-only view of the row extents; CSR only.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot matrix_slots[] = {
    {Py_tp_doc,
     (void *)(uintptr_t) "A row-readable matrix (cells x genes), in a file or in memory.\n\n"
                         "Thread-safe."},
    PY_SLOT(Py_tp_dealloc, matrix_dealloc),
    PY_SLOT(Py_tp_traverse, matrix_traverse),
    PY_SLOT(Py_tp_clear, matrix_clear),
    {Py_tp_methods, matrix_methods},
    {Py_tp_getset, matrix_members},
    {0, NULL},
};

static PyType_Spec matrix_spec = {
    .name = "scio._core.Matrix",
    .basicsize = sizeof(py_matrix),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = matrix_slots,
};

int
py_matrix_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &matrix_spec, &state->matrix_type);
}
