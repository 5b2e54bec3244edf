/* Values of Python and NumPy as the writer takes them.
 *
 * Plain arrays that lie as they should are not copied.  Records are packed field by field: the file
 * gets no gaps, and text of theirs becomes pointers to its UTF-8. */
#include "py_h5write/pyh5write.h"

#include "base/mem.h"

#include <string.h>

enum { MAX_DEPTH = 8 }; /* of records in records */

/* --- elements */

void
py_element_clear(scio_h5_element *element)
{
    scio_h5_field *const fields = (scio_h5_field *)(uintptr_t)element->fields;

    for (size_t i = 0; i < element->n_fields; i++)
        py_element_clear(&fields[i].element);
    scio_mem_free(fields);
    *element = (scio_h5_element){0};
}

static int
refuse_dtype(const py_state *state, PyArray_Descr *descr)
{
    PyObject *const text = PyObject_Str((PyObject *)descr);
    const char *const utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);

    if (utf8 != NULL)
        py_fail(state, SCIO_ETYPE, "dtype %s is not written to HDF5 files", utf8);
    Py_XDECREF(text);
    return -1;
}

static scio_dtype
number_of(char kind, size_t itemsize)
{
    for (int dtype = SCIO_DTYPE_NONE + 1; dtype < SCIO_N_DTYPES; dtype++)
        if (scio_dtype_kind((scio_dtype)dtype) == kind &&
            scio_dtype_itemsize((scio_dtype)dtype) == itemsize)
            return (scio_dtype)dtype;
    return SCIO_DTYPE_NONE;
}

static int element_from(const py_state *state, PyArray_Descr *descr, int depth,
                        scio_h5_element *out);

/* `element` becomes the owner of zeroed fields. */
static int
make_fields(const py_state *state, scio_h5_element *element, size_t n_fields,
            scio_h5_field **fields_out)
{
    scio_error err = SCIO_ERROR_INIT;

    if (scio_mem_zalloc(n_fields, sizeof **fields_out, fields_out, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    element->fields = *fields_out;
    element->n_fields = n_fields;
    return 0;
}

static int
tuple_from(const py_state *state, PyArray_Descr *descr, int depth, scio_h5_element *out)
{
    PyArray_Descr *const base = PyDataType_SUBARRAY(descr)->base;
    PyObject *const shape = PyDataType_SUBARRAY(descr)->shape;
    scio_h5_field *field;

    out->kind = SCIO_H5_ITEM_TUPLE;
    if (PyDataType_HASFIELDS(base) || PyTuple_GET_SIZE(shape) > SCIO_H5_WRITER_MAX_RANK)
        return refuse_dtype(state, descr);
    if (make_fields(state, out, 1, &field) < 0 ||
        element_from(state, base, depth + 1, &field->element) < 0)
        return -1;
    out->rank = (unsigned)PyTuple_GET_SIZE(shape);
    out->nbytes = field->element.nbytes;
    for (unsigned i = 0; i < out->rank; i++) {
        out->dims[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(shape, (Py_ssize_t)i));
        if (out->dims[i] == 0 || !scio_mul_size(out->nbytes, (size_t)out->dims[i], &out->nbytes))
            return refuse_dtype(state, descr);
    }
    return 0;
}

static int
record_from(const py_state *state, PyArray_Descr *descr, int depth, scio_h5_element *out)
{
    PyObject *const names = PyDataType_NAMES(descr);
    const Py_ssize_t n_fields = PyTuple_GET_SIZE(names);
    scio_h5_field *fields;

    out->kind = SCIO_H5_ITEM_RECORD;
    if (n_fields == 0 || depth >= MAX_DEPTH)
        return refuse_dtype(state, descr);
    if (make_fields(state, out, (size_t)n_fields, &fields) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < n_fields; i++) {
        PyObject *const name = PyTuple_GET_ITEM(names, i);
        PyObject *const field = PyDict_GetItemWithError(PyDataType_FIELDS(descr), name);

        fields[i].name = PyUnicode_AsUTF8(name);
        if (field == NULL || fields[i].name == NULL)
            return PyErr_Occurred() ? -1 : refuse_dtype(state, descr);
        if (strlen(fields[i].name) == 0)
            return refuse_dtype(state, descr);
        if (element_from(state, (PyArray_Descr *)PyTuple_GET_ITEM(field, 0), depth + 1,
                         &fields[i].element) < 0)
            return -1;
        fields[i].offset = out->nbytes;
        if (!scio_add_size(out->nbytes, fields[i].element.nbytes, &out->nbytes))
            return refuse_dtype(state, descr);
    }
    return 0;
}

static int
element_from(const py_state *state, PyArray_Descr *descr, int depth, scio_h5_element *out)
{
    const size_t nbytes = (size_t)PyDataType_ELSIZE(descr);

    *out = (scio_h5_element){.kind = SCIO_H5_ITEM_NUMBER, .nbytes = 0};
    if (PyDataType_HASSUBARRAY(descr))
        return tuple_from(state, descr, depth, out);
    if (PyDataType_HASFIELDS(descr))
        return record_from(state, descr, depth, out);
    out->nbytes = nbytes;
    switch (descr->kind) {
    case 'c':
        out->kind = SCIO_H5_ITEM_COMPLEX;
        out->dtype = number_of('f', nbytes / 2);
        break;
    case 'S': /* an empty one has a byte too, as h5py's */
        out->kind = SCIO_H5_ITEM_FIXED_TEXT;
        out->nbytes = nbytes > 0 ? nbytes : 1;
        return 0;
    case 'U':
    case 'O':
    case 'T':
        out->kind = SCIO_H5_ITEM_TEXT;
        out->nbytes = sizeof(char *);
        return 0;
    default:
        out->dtype = number_of(descr->kind, nbytes);
    }
    return out->dtype == SCIO_DTYPE_NONE ? refuse_dtype(state, descr) : 0;
}

int
py_element_from(const py_state *state, PyArray_Descr *descr, scio_h5_element *out)
{
    if (element_from(state, descr, 0, out) == 0)
        return 0;
    py_element_clear(out);
    return -1;
}

bool
py_element_equal(const scio_h5_element *a, const scio_h5_element *b)
{
    if (a->kind != b->kind || a->dtype != b->dtype || a->nbytes != b->nbytes ||
        a->n_fields != b->n_fields || a->rank != b->rank)
        return false;
    for (unsigned i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    for (size_t i = 0; i < a->n_fields; i++) {
        const char *const x = a->fields[i].name, *const y = b->fields[i].name;

        if ((x != NULL && y != NULL && strcmp(x, y) != 0) ||
            !py_element_equal(&a->fields[i].element, &b->fields[i].element))
            return false;
    }
    return true;
}

/* --- text */

/* UTF-8 of a str: none of it hidden behind a NUL, which would end it in the file. */
static int
text_of(const py_state *state, PyObject *object, Py_ssize_t i, const char **out)
{
    Py_ssize_t nbytes;

    if (!PyUnicode_Check(object)) {
        py_fail(state, SCIO_ETYPE, "item %zd is %s, expected str", i, Py_TYPE(object)->tp_name);
        return -1;
    }
    *out = PyUnicode_AsUTF8AndSize(object, &nbytes);
    if (*out == NULL) {
        PyErr_Clear(); /* a lone surrogate */
        py_fail(state, SCIO_EINVAL, "item %zd holds characters that UTF-8 cannot say", i);
        return -1;
    }
    if (strlen(*out) == (size_t)nbytes)
        return 0;
    py_fail(state, SCIO_EINVAL, "item %zd holds a NUL character, which would cut it", i);
    return -1;
}

/* The items of an array of text as a list; a new reference. */
static PyObject *
list_of(PyArrayObject *array)
{
    PyObject *const flat = PyArray_Ravel(array, NPY_CORDER);
    PyObject *const list = flat == NULL ? NULL : PyArray_ToList((PyArrayObject *)flat);

    Py_XDECREF(flat);
    return list;
}

/* --- items of an array */

/* Where the parts of one field go: n_items of them, `stride` bytes apart. */
typedef struct packing {
    const py_state *state;
    PyObject *kept;
    size_t n_items, stride;
} packing;

static int
pack_texts(const packing *p, PyArrayObject *array, size_t n_each, uint8_t *out)
{
    PyObject *const list = list_of(array);
    int result = list == NULL ? -1 : PyList_Append(p->kept, list);

    Py_XDECREF(list); /* `kept` has it */
    for (size_t i = 0; result == 0 && i < p->n_items * n_each; i++) {
        const char *text = NULL;

        result = text_of(p->state, PyList_GET_ITEM(list, (Py_ssize_t)i), (Py_ssize_t)i, &text);
        memcpy(out + i / n_each * p->stride + i % n_each * sizeof text, &text, sizeof text);
    }
    return result;
}

/* A reference to the items, native and in order: the array itself when it is so. */
static PyArrayObject *
plain_array(PyArrayObject *array)
{
    PyArray_Descr *const descr = PyArray_DescrNewByteorder(PyArray_DESCR(array), NPY_NATIVE);

    /* descr goes with the call */
    return descr == NULL ? NULL
                         : (PyArrayObject *)PyArray_FromArray(
                               array, descr, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED);
}

static int
pack_plain(const packing *p, PyArrayObject *array, uint8_t *out)
{
    PyArrayObject *const plain = plain_array(array);

    if (plain == NULL)
        return -1;
    const size_t nbytes = p->n_items == 0 ? 0 : (size_t)PyArray_NBYTES(plain) / p->n_items;
    const uint8_t *const from = PyArray_DATA(plain);
    for (size_t i = 0; i < p->n_items; i++)
        memcpy(out + i * p->stride, from + i * nbytes, nbytes);
    Py_DECREF(plain);
    return 0;
}

/* `array` has n_items items, or that many times those of a tuple. */
static int
pack(const packing *p, PyArrayObject *array, const scio_h5_element *element, uint8_t *out)
{
    const bool is_tuple = element->kind == SCIO_H5_ITEM_TUPLE;
    const scio_h5_element *const item = is_tuple ? &element->fields[0].element : element;

    if (item->kind == SCIO_H5_ITEM_TEXT)
        return pack_texts(p, array, element->nbytes / item->nbytes, out);
    if (item->kind != SCIO_H5_ITEM_RECORD)
        return pack_plain(p, array, out);
    for (size_t i = 0; i < element->n_fields; i++) {
        const scio_h5_field *const field = &element->fields[i];
        PyObject *const name = PyUnicode_FromString(field->name);
        PyObject *const part = name == NULL ? NULL : PyObject_GetItem((PyObject *)array, name);
        const int result =
            part == NULL ? -1
                         : pack(p, (PyArrayObject *)part, &field->element, out + field->offset);
        Py_XDECREF(name);
        Py_XDECREF(part);
        if (result < 0)
            return -1;
    }
    return 0;
}

static bool
is_packed_here(const scio_h5_element *element)
{
    return element->kind == SCIO_H5_ITEM_RECORD || element->kind == SCIO_H5_ITEM_TEXT;
}

int
py_items_from(const py_state *state, PyArrayObject *array, const scio_h5_element *element,
              py_items *out)
{
    const packing p = {state, PyList_New(0), (size_t)PyArray_SIZE(array), element->nbytes};
    scio_error err = SCIO_ERROR_INIT;

    *out = (py_items){NULL, p.kept, NULL};
    if (out->kept == NULL)
        return -1;
    if (!is_packed_here(element) && PyArray_ITEMSIZE(array) > 0) {
        PyArrayObject *const plain = plain_array(array);
        const int result = plain == NULL ? -1 : PyList_Append(out->kept, (PyObject *)plain);

        Py_XDECREF(plain);
        out->data = result == 0 ? PyArray_DATA(plain) : NULL;
        return result;
    }
    if (scio_mem_zalloc(p.n_items, p.stride, &out->packed, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    out->data = out->packed;
    return pack(&p, array, element, out->packed);
}

void
py_items_clear(py_items *items)
{
    Py_CLEAR(items->kept);
    scio_mem_free(items->packed);
    *items = (py_items){NULL, NULL, NULL};
}

/* --- values */

void
py_value_clear(py_value *value)
{
    py_items_clear(&value->items);
    py_element_clear(&value->element);
    scio_mem_free(value->texts);
    value->texts = NULL;
}

static int
texts_from(const py_state *state, PyObject *object, py_value *out)
{
    scio_error err = SCIO_ERROR_INIT;

    out->items.kept = PySequence_Tuple(object);
    if (out->items.kept == NULL)
        return -1;
    const Py_ssize_t n_items = PyTuple_GET_SIZE(out->items.kept);
    if (scio_mem_alloc((size_t)n_items, sizeof *out->texts, &out->texts, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n_items; i++)
        if (text_of(state, PyTuple_GET_ITEM(out->items.kept, i), i, &out->texts[i]) < 0)
            return -1;
    out->c.texts = out->texts;
    out->c.rank = 1;
    out->c.dims[0] = (uint64_t)n_items;
    return 0;
}

static int
array_from(const py_state *state, PyArrayObject *array, py_value *out)
{
    const int rank = PyArray_NDIM(array);

    if (rank > SCIO_H5_WRITER_MAX_RANK) {
        py_fail(state, SCIO_EINVAL, "value has %d dimensions, at most %d are written", rank,
                SCIO_H5_WRITER_MAX_RANK);
        return -1;
    }
    if (py_element_from(state, PyArray_DESCR(array), &out->element) < 0 ||
        py_items_from(state, array, &out->element, &out->items) < 0)
        return -1;
    /* the field names are the dtype's, which belongs to the array */
    if (PyList_Append(out->items.kept, (PyObject *)array) < 0)
        return -1;
    out->c.element = &out->element;
    out->c.data = out->items.data;
    out->c.rank = (unsigned)rank;
    for (int i = 0; i < rank; i++)
        out->c.dims[i] = (uint64_t)PyArray_DIM(array, i);
    return 0;
}

/* h5py's form of bytes: text of that length, of a byte when there are none. */
static int
bytes_from(PyObject *object, py_value *out)
{
    const size_t nbytes = (size_t)PyBytes_GET_SIZE(object);

    out->element =
        (scio_h5_element){.kind = SCIO_H5_ITEM_FIXED_TEXT, .nbytes = nbytes > 0 ? nbytes : 1};
    out->c.element = &out->element;
    out->c.data = PyBytes_AS_STRING(object); /* a NUL stands behind them */
    out->items.kept = Py_NewRef(object);
    return 0;
}

static int
number_from(const py_state *state, PyObject *object, py_value *out)
{
    out->c.data = &out->lone;
    if (PyBool_Check(object)) {
        out->lone.truth = object == Py_True;
        out->c.dtype = SCIO_BOOL;
    } else if (PyLong_Check(object)) {
        out->lone.integer = PyLong_AsLongLong(object);
        out->c.dtype = SCIO_I64;
    } else if (PyFloat_Check(object)) {
        out->lone.real = PyFloat_AsDouble(object);
        out->c.dtype = SCIO_F64;
    } else if (PyComplex_Check(object)) {
        out->lone.parts[0] = PyComplex_RealAsDouble(object);
        out->lone.parts[1] = PyComplex_ImagAsDouble(object);
        out->element =
            (scio_h5_element){.kind = SCIO_H5_ITEM_COMPLEX, .dtype = SCIO_F64, .nbytes = 16};
        out->c.element = &out->element;
    } else {
        py_fail(state, SCIO_ETYPE,
                "value is %s, expected None, str, bytes, bool, int, float, complex, numpy.ndarray "
                "or a list of str",
                Py_TYPE(object)->tp_name);
    }
    return PyErr_Occurred() ? -1 : 0;
}

static int
scalar_from(const py_state *state, PyObject *object, py_value *out)
{
    PyArrayObject *const array = (PyArrayObject *)PyArray_FromAny(object, NULL, 0, 0, 0, NULL);
    const int result = array == NULL ? -1 : array_from(state, array, out);

    Py_XDECREF(array); /* kept */
    return result;
}

int
py_value_from(const py_state *state, PyObject *object, py_value *out)
{
    if (object == Py_None) { /* h5py's Empty("f"), which anndata writes for None */
        out->c = (scio_h5_value){.dtype = SCIO_F32, .is_null = true};
        return 0;
    }
    if (PyArray_Check(object))
        return array_from(state, (PyArrayObject *)object, out);
    if (PyList_Check(object) || PyTuple_Check(object))
        return texts_from(state, object, out);
    if (PyBytes_Check(object))
        return bytes_from(object, out);
    if (PyUnicode_Check(object)) {
        out->c.texts = &out->lone.text;
        out->items.kept = Py_NewRef(object);
        return text_of(state, object, 0, &out->lone.text);
    }
    return PyArray_CheckScalar(object) ? scalar_from(state, object, out)
                                       : number_from(state, object, out);
}
