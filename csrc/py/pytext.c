/* Text of a file as Python strings, made once, straight from its bytes.
 *
 * Columns of labels repeat few strings many times: a small table of the strings met last hands out
 * the same object again, which costs a comparison instead of an allocation.  Where nothing repeats
 * it is given up soon. */
#include "py/py.h"

#include "base/mem.h"

#include <string.h>

#define N_RECENT 256 /* a power of two */
#define N_TRIALS 4096
#define MIN_HITS (N_TRIALS / 16)
#define MAX_SHARED_NBYTES 64
#define SHOWN_NBYTES 40
#define ROWS_PER_LOOK 65536 /* at signals */

typedef struct text_maker {
    const py_state *state;
    const char *where;          /* of the element, for messages */
    PyObject *recent[N_RECENT]; /* borrowed from the array that is being filled; ASCII */
    size_t n_looked, n_hits;
} text_maker;

static size_t
hash_bytes(const char *data, size_t nbytes)
{
    uint64_t hash = 14695981039346656037U; /* FNV-1a */

    for (size_t i = 0; i < nbytes; i++)
        hash = (hash ^ (uint8_t)data[i]) * 1099511628211U;
    return (size_t)(hash ^ hash >> 29) & (N_RECENT - 1);
}

/* "X.h5ad: /obs/x[7] is not UTF-8: b'\xff' (invalid start byte)" in place of UnicodeDecodeError. */
static void
raise_position(const text_maker *maker, const char *data, size_t nbytes, size_t position)
{
    PyObject *type, *error, *traceback, *bytes, *shown, *reason;
    const char *shown_text, *reason_text;

    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    bytes = PyBytes_FromStringAndSize(data,
                                      (Py_ssize_t)(nbytes < SHOWN_NBYTES ? nbytes : SHOWN_NBYTES));
    shown = bytes == NULL ? NULL : PyObject_Repr(bytes);
    reason = error == NULL ? NULL : PyUnicodeDecodeError_GetReason(error);
    shown_text = shown == NULL ? NULL : PyUnicode_AsUTF8(shown);
    reason_text = reason == NULL ? NULL : PyUnicode_AsUTF8(reason);
    PyErr_Clear();
    py_fail(maker->state, SCIO_ECORRUPT, "%s[%zu] is not UTF-8: %s (%s)", maker->where, position,
            shown_text == NULL ? "?" : shown_text, reason_text == NULL ? "?" : reason_text);
    Py_XDECREF(bytes);
    Py_XDECREF(shown);
    Py_XDECREF(reason);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
}

static PyObject *
make_new(const text_maker *maker, const char *data, size_t nbytes, size_t position)
{
    PyObject *const text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)nbytes, "strict");

    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        raise_position(maker, data, nbytes, position);
    return text;
}

static PyObject *
make_text(text_maker *maker, const char *data, size_t nbytes, size_t position)
{
    PyObject *known, *text;
    size_t slot;

    if (nbytes > MAX_SHARED_NBYTES ||
        (maker->n_looked >= N_TRIALS && maker->n_hits < maker->n_looked / (N_TRIALS / MIN_HITS)))
        return make_new(maker, data, nbytes, position);
    slot = hash_bytes(data, nbytes);
    known = maker->recent[slot];
    maker->n_looked++;
    if (known != NULL && (size_t)PyUnicode_GET_LENGTH(known) == nbytes &&
        memcmp(PyUnicode_DATA(known), data, nbytes) == 0) {
        maker->n_hits++;
        return Py_NewRef(known);
    }
    text = make_new(maker, data, nbytes, position);
    if (text != NULL && PyUnicode_IS_ASCII(text))
        maker->recent[slot] = text;
    return text;
}

static int
look_at_signals(size_t i)
{
    return i % ROWS_PER_LOOK == ROWS_PER_LOOK - 1 ? PyErr_CheckSignals() : 0;
}

/* An array of objects, all absent. */
static PyObject *
new_objects(int rank, const npy_intp *dims)
{
    return PyArray_New(&PyArray_Type, rank, dims, NPY_OBJECT, NULL, NULL, 0, 0, NULL);
}

PyObject *
py_text_array(const py_state *state, const char *where, int rank, const npy_intp *dims,
              const int64_t *offsets, const char *payload)
{
    text_maker maker = {.state = state, .where = where};
    PyObject *const array = new_objects(rank, dims);
    PyObject **items;
    size_t n_items;

    if (array == NULL)
        return NULL;
    items = PyArray_DATA((PyArrayObject *)array);
    n_items = (size_t)PyArray_SIZE((PyArrayObject *)array);
    for (size_t i = 0; i < n_items; i++) {
        PyObject *const text =
            make_text(&maker, payload + offsets[i], (size_t)(offsets[i + 1] - offsets[i]), i);

        if (text == NULL || look_at_signals(i) < 0) {
            Py_XDECREF(text);
            Py_DECREF(array);
            return NULL;
        }
        Py_XSETREF(items[i], text);
    }
    return array;
}

/* Bytes of a field without what fills it up: padding 0 = ends at the first NUL, 1 = NULs behind,
 * 2 = spaces behind. */
static size_t
field_nbytes(const char *field, size_t itemsize, int padding)
{
    const char fill = padding == 2 ? ' ' : '\0';
    const char *nul;
    size_t n = itemsize;

    if (padding == 0) {
        nul = memchr(field, 0, itemsize);
        return nul == NULL ? itemsize : (size_t)(nul - field);
    }
    if (padding == 2) /* some writers say spaces and put NULs */
        while (n > 0 && field[n - 1] == '\0')
            n--;
    while (n > 0 && field[n - 1] == fill)
        n--;
    return n;
}

PyObject *
py_fixed_text_array(const py_state *state, const char *where, int rank, const npy_intp *dims,
                    const char *fields, size_t itemsize, int padding)
{
    text_maker maker = {.state = state, .where = where};
    PyObject *const array = new_objects(rank, dims);
    PyObject **items;
    size_t n_items;

    if (array == NULL)
        return NULL;
    items = PyArray_DATA((PyArrayObject *)array);
    n_items = (size_t)PyArray_SIZE((PyArrayObject *)array);
    for (size_t i = 0; i < n_items; i++) {
        const char *const field = fields + i * itemsize;
        PyObject *const text = make_text(&maker, field, field_nbytes(field, itemsize, padding), i);

        if (text == NULL || look_at_signals(i) < 0) {
            Py_XDECREF(text);
            Py_DECREF(array);
            return NULL;
        }
        Py_XSETREF(items[i], text);
    }
    return array;
}

/* --- functions of the module */

static int
check_offsets(const py_state *state, const py_view *offsets, const py_view *payload)
{
    const int64_t *const x = offsets->data;

    if (offsets->n_items == 0) {
        py_fail(state, SCIO_EINVAL, "offsets is empty, n strings need n + 1");
        return -1;
    }
    for (size_t i = 0; i + 1 < offsets->n_items; i++) {
        if (x[i] < 0 || x[i] > x[i + 1] || (uint64_t)x[i + 1] > payload->n_items) {
            py_fail(state, SCIO_EINVAL,
                    "offsets[%zu] is %lld and offsets[%zu] is %lld, not an "
                    "extent of %zu bytes",
                    i, (long long)x[i], i + 1, (long long)x[i + 1], payload->n_items);
            return -1;
        }
    }
    return 0;
}

static PyObject *
text_array(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    py_view offsets = {0}, payload = {0};
    const char *where;
    const py_param params[] = {
        {.name = "offsets", .kind = PY_ARRAY, .out = &offsets, .rank = 1, .dtype = SCIO_I64},
        {.name = "payload", .kind = PY_ARRAY, .out = &payload, .rank = 1, .dtype = SCIO_U8},
        {.name = "where", .kind = PY_TEXT, .out = &where}};
    npy_intp dims[1];

    if (py_parse(state, "text_array", params, PY_N_PARAMS(params), 3, args, n_args, NULL) < 0 ||
        check_offsets(state, &offsets, &payload) < 0)
        return NULL;
    dims[0] = (npy_intp)offsets.n_items - 1;
    return py_text_array(state, where, 1, dims, offsets.data, payload.data);
}

static PyObject *
fixed_text_array(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    py_view fields = {0};
    int64_t padding;
    const char *where;
    const py_param params[] = {
        {.name = "fields", .kind = PY_ARRAY, .out = &fields, .rank = 2, .dtype = SCIO_U8},
        {.name = "padding", .kind = PY_INT64, .out = &padding},
        {.name = "where", .kind = PY_TEXT, .out = &where}};

    if (py_parse(state, "fixed_text_array", params, PY_N_PARAMS(params), 3, args, n_args, NULL) < 0)
        return NULL;
    return py_fixed_text_array(state, where, 1, fields.dims, fields.data, (size_t)fields.dims[1],
                               (int)padding);
}

/* --- the text of one attribute */

/* NULL without an exception when the attribute is no single string. */
static PyObject *
text_of_attr(const py_state *state, scio_h5_file *file, const char *where, const scio_h5_attr *attr)
{
    const scio_h5_type *const type = attr->type;
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *offsets = NULL, *payload = NULL;
    const text_maker maker = {.state = state, .where = where};
    PyObject *text;

    if (attr->space.space_class == SCIO_H5_NULL || attr->space.n_items != 1)
        return NULL;
    if (type->type_class == SCIO_H5_STRING)
        return make_new(&maker, (const char *)attr->value,
                        field_nbytes((const char *)attr->value, type->itemsize, (int)type->padding),
                        0);
    if (type->type_class != SCIO_H5_VLEN || !type->is_vlen_string)
        return NULL;
    if (scio_h5_vlen_read(file, type, attr->value, type->itemsize, 1, &offsets, &payload, &err) !=
        SCIO_OK)
        return py_raise(state, &err);
    text = make_new(&maker, scio_buf_data(payload), scio_buf_nbytes(payload), 0);
    scio_buf_release(offsets);
    scio_buf_release(payload);
    return text;
}

/* As of text_of_attr; None when the object has no such attribute. */
PyObject *
py_file_text_attr(const py_state *state, scio_h5_file *file, const char *path, const char *name,
                  scio_error *err)
{
    scio_h5_attr attr = {0};
    PyObject *result;
    scio_status status;
    uint64_t address;
    bool is_found;

    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, err);
    is_found = status == SCIO_OK;
    if (is_found)
        status = scio_h5_attr_get(file, address, name, &attr, err);
    Py_END_ALLOW_THREADS;
    if (is_found && status == SCIO_ENOENT)
        return Py_NewRef(Py_None);
    if (status != SCIO_OK)
        return NULL;
    result = text_of_attr(state, file, name, &attr);
    scio_h5_attr_clear(&attr);
    return result;
}

PyMethodDef py_text_methods[] = {
    {"text_array", PY_METHOD(text_array), METH_FASTCALL,
     "text_array($module, offsets, payload, where, /)\n--\n\n"
     "Return the strings payload[offsets[i]:offsets[i + 1]] as an array of objects."},
    {"fixed_text_array", PY_METHOD(fixed_text_array), METH_FASTCALL,
     "fixed_text_array($module, fields, padding, where, /)\n--\n\n"
     "Return fields of shape (n, itemsize) as an array of strings; padding as HDF5 numbers it."},
    {NULL, NULL, 0, NULL},
};
