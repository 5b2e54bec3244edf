/* Arrays in and out.
 *
 * In: dtype, order, alignment and byte order are demanded, never converted; the message says what
 * came.  Out: an ndarray whose base is a capsule that holds one reference of a scio_buf. */
#include "py/py.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const char buf_capsule_name[] = "scio_buf";

static const int numpy_types[SCIO_N_DTYPES] = {
    [SCIO_DTYPE_NONE] = NPY_NOTYPE, [SCIO_BOOL] = NPY_BOOL,   [SCIO_I8] = NPY_INT8,
    [SCIO_I16] = NPY_INT16,         [SCIO_I32] = NPY_INT32,   [SCIO_I64] = NPY_INT64,
    [SCIO_U8] = NPY_UINT8,          [SCIO_U16] = NPY_UINT16,  [SCIO_U32] = NPY_UINT32,
    [SCIO_U64] = NPY_UINT64,        [SCIO_F16] = NPY_FLOAT16, [SCIO_F32] = NPY_FLOAT32,
    [SCIO_F64] = NPY_FLOAT64,
};

/* NumPy has several types of one width (long, long long), so kind and size decide, not the number.
 */
static scio_dtype
dtype_of_array(PyArrayObject *array)
{
    const char kind = PyArray_DESCR(array)->kind;

    for (int dtype = SCIO_DTYPE_NONE + 1; dtype < SCIO_N_DTYPES; dtype++) {
        if (scio_dtype_kind((scio_dtype)dtype) == kind &&
            scio_dtype_itemsize((scio_dtype)dtype) == (size_t)PyArray_ITEMSIZE(array))
            return (scio_dtype)dtype;
    }
    return SCIO_DTYPE_NONE;
}

/* "<f8" and the like, as NumPy prints the dtype. */
static void
describe_dtype(PyArrayObject *array, char *out, size_t out_nbytes)
{
    PyObject *const text = PyObject_Str((PyObject *)PyArray_DESCR(array));
    const char *const utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);

    snprintf(out, out_nbytes, "%s", utf8 == NULL ? "an unknown dtype" : utf8);
    Py_XDECREF(text);
    PyErr_Clear();
}

static int
check_dtype(const py_state *state, PyArrayObject *array, const char *name, scio_dtype wanted,
            scio_dtype found)
{
    char text[96];

    if (found != SCIO_DTYPE_NONE && (wanted == SCIO_DTYPE_NONE || wanted == found) &&
        PyArray_ISNOTSWAPPED(array))
        return 0;
    describe_dtype(array, text, sizeof(text));
    if (!PyArray_ISNOTSWAPPED(array))
        py_fail(state, SCIO_ETYPE, "%s is %s, which is not in native byte order", name, text);
    else if (wanted != SCIO_DTYPE_NONE)
        py_fail(state, SCIO_ETYPE, "%s is %s, expected %s", name, text, scio_dtype_name(wanted));
    else
        py_fail(state, SCIO_ETYPE, "%s is %s, expected bool, an integer or a float up to 64 bits",
                name, text);
    return -1;
}

int
py_view_from(const py_state *state, PyObject *object, const char *name, int rank, scio_dtype dtype,
             py_view *out)
{
    PyArrayObject *array;

    if (!PyArray_Check(object)) {
        py_fail(state, SCIO_ETYPE, "%s is %s, expected a numpy.ndarray", name,
                Py_TYPE(object)->tp_name);
        return -1;
    }
    array = (PyArrayObject *)object;
    out->dtype = dtype_of_array(array);
    if (check_dtype(state, array, name, dtype, out->dtype) < 0)
        return -1;
    if (rank >= 0 && PyArray_NDIM(array) != rank) {
        py_fail(state, SCIO_EINVAL, "%s has %d dimensions, expected %d", name, PyArray_NDIM(array),
                rank);
        return -1;
    }
    if (!PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISALIGNED(array)) {
        py_fail(state, SCIO_EINVAL, "%s is %s, expected an aligned array in C order (%s)", name,
                PyArray_ISALIGNED(array) ? "not C-contiguous" : "not aligned",
                "numpy.ascontiguousarray makes one");
        return -1;
    }
    out->array = object;
    out->data = PyArray_DATA(array);
    out->rank = PyArray_NDIM(array);
    out->dims = PyArray_DIMS(array);
    out->n_items = (size_t)PyArray_SIZE(array);
    return 0;
}

static void
release_buf_capsule(PyObject *capsule)
{
    scio_buf_release(PyCapsule_GetPointer(capsule, buf_capsule_name));
}

PyObject *
py_array_from_buf(scio_buf *buf, scio_dtype dtype, int rank, const npy_intp *dims)
{
    const int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED |
                      (scio_buf_n_refs(buf) == 1 ? NPY_ARRAY_WRITEABLE : 0);
    PyObject *capsule = PyCapsule_New(buf, buf_capsule_name, release_buf_capsule);
    PyObject *array;

    if (capsule == NULL) {
        scio_buf_release(buf);
        return NULL;
    }
    array = PyArray_New(&PyArray_Type, rank, dims, numpy_types[dtype], NULL, scio_buf_data(buf), 0,
                        flags, NULL);
    if (array == NULL) {
        Py_DECREF(capsule);
        return NULL;
    }
    if (PyArray_SetBaseObject((PyArrayObject *)array, capsule) < 0) /* takes the capsule */
        Py_CLEAR(array);
    return array;
}

PyObject *
py_array_1d(scio_buf *buf, scio_dtype dtype, int64_t n_items)
{
    const npy_intp dims[1] = {(npy_intp)n_items};

    return py_array_from_buf(buf, dtype, 1, dims);
}

PyObject *
py_csr_arrays(scio_csr *csr)
{
    PyObject *const data = py_array_1d(csr->data, csr->data_dtype, csr->nnz);
    PyObject *const indices = py_array_1d(csr->indices, csr->index_dtype, csr->nnz);
    PyObject *const indptr = py_array_1d(csr->indptr, SCIO_I64, csr->n_rows + 1);
    PyObject *result = NULL;

    csr->data = csr->indices = csr->indptr = NULL;
    if (data != NULL && indices != NULL && indptr != NULL)
        result = PyTuple_Pack(3, data, indices, indptr);
    Py_XDECREF(data);
    Py_XDECREF(indices);
    Py_XDECREF(indptr);
    return result;
}

/* Runs in any thread, with or without the GIL.  Once the interpreter is going away nobody can take
 * the GIL any more, and the object goes with the process. */
static void
release_object(void *context, void *Py_UNUSED(data), size_t Py_UNUSED(nbytes))
{
    PyGILState_STATE gil;

    if (!PyGILState_Check() && py_is_exiting())
        return;
    gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)context);
    PyGILState_Release(gil);
}

scio_status
py_buf_from_view(const py_view *view, scio_buf **out, scio_error *err)
{
    const size_t nbytes = view->n_items * scio_dtype_itemsize(view->dtype);
    scio_status status;

    Py_INCREF(view->array);
    status = scio_buf_wrap(view->data, nbytes, release_object, view->array, out, err);
    if (status != SCIO_OK)
        Py_DECREF(view->array);
    return status;
}

/* A memoryview holds the export of the buffer, so that its memory can neither move nor go. */
int
py_buf_from_object(const py_state *state, PyObject *object, scio_buf **out)
{
    scio_error err = SCIO_ERROR_INIT;
    PyObject *const memory = PyMemoryView_FromObject(object);
    const Py_buffer *buffer;

    if (memory == NULL)
        return -1;
    buffer = PyMemoryView_GET_BUFFER(memory);
    if (!PyBuffer_IsContiguous(buffer, 'C')) {
        Py_DECREF(memory);
        py_fail(state, SCIO_EINVAL, "source is a buffer that is not contiguous");
        return -1;
    }
    if (scio_buf_wrap(buffer->buf, (size_t)buffer->len, release_object, memory, out, &err) ==
        SCIO_OK)
        return 0;
    Py_DECREF(memory);
    py_raise(state, &err);
    return -1;
}

PyObject *
py_tuple_from_u64(const uint64_t *items, size_t n_items)
{
    PyObject *const tuple = PyTuple_New((Py_ssize_t)n_items);

    for (size_t i = 0; tuple != NULL && i < n_items; i++) {
        PyObject *const item = PyLong_FromUnsignedLongLong(items[i]);

        if (item == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    return tuple;
}
