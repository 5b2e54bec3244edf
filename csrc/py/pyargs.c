/* Arguments by table: each parameter says its name, its kind and where it goes, so that one parser
 * serves every function and every message names the parameter and what came. */
#include "py/py.h"

#include "base/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define MAX_PARAMS 40

static int
wrong_type(const py_state *state, const char *name, const char *expected, PyObject *object)
{
    py_fail(state, SCIO_ETYPE, "%s is %s, expected %s", name, Py_TYPE(object)->tp_name, expected);
    return -1;
}

/* An int, or what has __index__ (NumPy's integers); bool is no number here. */
static PyObject *
index_of(const py_state *state, const py_param *param, PyObject *object)
{
    if (PyBool_Check(object) || !PyIndex_Check(object)) {
        wrong_type(state, param->name, "int", object);
        return NULL;
    }
    return PyNumber_Index(object);
}

/* OverflowError becomes a ValueError that names parameter and range. */
static int
finish_int(const py_state *state, const char *name, const char *range)
{
    if (!PyErr_Occurred())
        return 0;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        py_fail(state, SCIO_EINVAL, "%s is out of range, expected %s", name, range);
    }
    return -1;
}

static int
convert_int64(const py_state *state, const py_param *param, PyObject *object, int64_t *out)
{
    PyObject *const number = index_of(state, param, object);

    if (number == NULL)
        return -1;
    *out = PyLong_AsLongLong(number);
    Py_DECREF(number);
    return finish_int(state, param->name, "an int of 64 bits");
}

static int
convert_uint64(const py_state *state, const py_param *param, PyObject *object)
{
    PyObject *const number = index_of(state, param, object);

    if (number == NULL)
        return -1;
    *(uint64_t *)param->out = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    return finish_int(state, param->name, "an int in [0, 2**64)");
}

static int
convert_threads(const py_state *state, const py_param *param, PyObject *object)
{
    int64_t n_threads;

    if (convert_int64(state, param, object, &n_threads) < 0)
        return -1;
    if (n_threads < -1) {
        py_fail(state, SCIO_EINVAL, "%s is %lld, expected -1 (all), 0 (in the caller) or more",
                param->name, (long long)n_threads);
        return -1;
    }
    *(size_t *)param->out = n_threads < 0 ? SIZE_MAX : (size_t)n_threads;
    return 0;
}

static int
convert_double(const py_state *state, const py_param *param, PyObject *object)
{
    if (PyBool_Check(object) || !PyNumber_Check(object) || PyComplex_Check(object))
        return wrong_type(state, param->name, "float", object);
    *(double *)param->out = PyFloat_AsDouble(object);
    return PyErr_Occurred() ? -1 : 0;
}

static int
convert_bool(const py_state *state, const py_param *param, PyObject *object)
{
    if (!PyBool_Check(object))
        return wrong_type(state, param->name, "bool", object);
    *(bool *)param->out = object == Py_True;
    return 0;
}

static int
convert_text(const py_state *state, const py_param *param, PyObject *object)
{
    const char *text;
    Py_ssize_t nbytes;

    if (!PyUnicode_Check(object))
        return wrong_type(state, param->name, "str", object);
    text = PyUnicode_AsUTF8AndSize(object, &nbytes);
    if (text == NULL)
        return -1;
    if (strlen(text) != (size_t)nbytes) {
        py_fail(state, SCIO_EINVAL, "%s holds a NUL character", param->name);
        return -1;
    }
    *(const char **)param->out = text;
    return 0;
}

/* ", "-separated list of what is allowed. */
static void
append_name(char *list, size_t list_nbytes, const char *name)
{
    const size_t used = strlen(list);

    snprintf(list + used, list_nbytes - used, "%s\"%s\"", used == 0 ? "" : ", ", name);
}

static int
convert_dtype(const py_state *state, const py_param *param, PyObject *object)
{
    char legal[200] = "";
    const char *name = NULL;
    py_param as_text = *param;

    if (object == Py_None) {
        *(scio_dtype *)param->out = SCIO_DTYPE_NONE;
        return 0;
    }
    as_text.out = &name;
    if (convert_text(state, &as_text, object) < 0)
        return -1;
    *(scio_dtype *)param->out = scio_dtype_from_name(name);
    if (*(scio_dtype *)param->out != SCIO_DTYPE_NONE)
        return 0;
    for (int dtype = SCIO_DTYPE_NONE + 1; dtype < SCIO_N_DTYPES; dtype++)
        append_name(legal, sizeof(legal), scio_dtype_name((scio_dtype)dtype));
    py_fail(state, SCIO_EINVAL, "%s is \"%s\", expected one of %s", param->name, name, legal);
    return -1;
}

static int
convert_choice(const py_state *state, const py_param *param, PyObject *object)
{
    char legal[200] = "";
    const char *name = NULL;
    py_param as_text = *param;

    as_text.out = &name;
    if (convert_text(state, &as_text, object) < 0)
        return -1;
    for (int i = 0; param->choices[i] != NULL; i++) {
        if (strcmp(param->choices[i], name) == 0) {
            *(int *)param->out = i;
            return 0;
        }
        append_name(legal, sizeof(legal), param->choices[i]);
    }
    py_fail(state, SCIO_EINVAL, "%s is \"%s\", expected one of %s", param->name, name, legal);
    return -1;
}

static int
convert_shape(const py_state *state, const py_param *param, PyObject *object)
{
    uint64_t sizes[2];

    if (py_sizes_from(state, object, param->name, sizes, 2) < 0)
        return -1;
    for (size_t i = 0; i < 2; i++)
        ((int64_t *)param->out)[i] = (int64_t)sizes[i];
    return 0;
}

int
py_sizes_from(const py_state *state, PyObject *object, const char *name, uint64_t *sizes_out,
              size_t n_sizes)
{
    PyObject *items;
    const py_param param = {.name = name};
    int result = -1;

    if (!PySequence_Check(object) || PyUnicode_Check(object))
        return wrong_type(state, name, "a sequence of int", object);
    items = PySequence_Tuple(object);
    if (items == NULL)
        return -1;
    if ((size_t)PyTuple_GET_SIZE(items) != n_sizes) {
        py_fail(state, SCIO_EINVAL, "%s has %zd numbers, expected %zu", name,
                PyTuple_GET_SIZE(items), n_sizes);
        goto done;
    }
    for (size_t i = 0; i < n_sizes; i++) {
        int64_t size;

        if (convert_int64(state, &param, PyTuple_GET_ITEM(items, (Py_ssize_t)i), &size) < 0)
            goto done;
        if (size < 0) {
            py_fail(state, SCIO_EINVAL, "%s[%zu] is %lld, expected 0 or more", name, i,
                    (long long)size);
            goto done;
        }
        sizes_out[i] = (uint64_t)size;
    }
    result = 0;
done:
    Py_DECREF(items);
    return result;
}

static int
convert(const py_state *state, const py_param *param, PyObject *object)
{
    switch (param->kind) {
    case PY_OBJECT:
        *(PyObject **)param->out = object;
        return 0;
    case PY_INT64:
        return convert_int64(state, param, object, param->out);
    case PY_UINT64:
        return convert_uint64(state, param, object);
    case PY_DOUBLE:
        return convert_double(state, param, object);
    case PY_BOOL:
        return convert_bool(state, param, object);
    case PY_TEXT:
        return convert_text(state, param, object);
    case PY_DTYPE:
        return convert_dtype(state, param, object);
    case PY_THREADS:
        return convert_threads(state, param, object);
    case PY_SHAPE:
        return convert_shape(state, param, object);
    case PY_CHOICE:
        return convert_choice(state, param, object);
    case PY_ARRAY:
        if (param->is_nullable && object == Py_None)
            return 0;
        return py_view_from(state, object, param->name, param->rank, param->dtype, param->out);
    }
    return -1;
}

static int
convert_all(const py_state *state, const char *function, const py_param *params, size_t n_params,
            PyObject *const *values)
{
    for (size_t i = 0; i < n_params; i++) {
        if (values[i] != NULL) {
            if (convert(state, &params[i], values[i]) < 0)
                return -1;
        } else if (!params[i].is_optional) {
            py_fail(state, SCIO_ETYPE, "%s() lacks the argument %s", function, params[i].name);
            return -1;
        }
    }
    return 0;
}

static int
place_keyword(const py_state *state, const char *function, const py_param *params, size_t n_params,
              size_t n_positional, PyObject *keyword, PyObject *value, PyObject **values)
{
    const char *const name = PyUnicode_AsUTF8(keyword);

    if (name == NULL)
        return -1;
    for (size_t i = 0; i < n_params; i++) {
        if ((i < n_positional && !params[i].is_named) || strcmp(params[i].name, name) != 0)
            continue;
        if (values[i] != NULL) {
            py_fail(state, SCIO_ETYPE, "%s() got %s twice", function, name);
            return -1;
        }
        values[i] = value;
        return 0;
    }
    py_fail(state, SCIO_ETYPE, "%s() has no keyword argument %s", function, name);
    return -1;
}

static int
place_positional(const py_state *state, const char *function, size_t n_positional,
                 PyObject *const *args, size_t n_args, PyObject **values)
{
    if (n_args > n_positional) {
        py_fail(state, SCIO_ETYPE, "%s() takes %zu positional arguments, %zu were given", function,
                n_positional, n_args);
        return -1;
    }
    for (size_t i = 0; i < n_args; i++)
        values[i] = args[i];
    return 0;
}

int
py_parse(const py_state *state, const char *function, const py_param *params, size_t n_params,
         size_t n_positional, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    PyObject *values[MAX_PARAMS] = {NULL};
    const Py_ssize_t n_keywords = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);

    if (place_positional(state, function, n_positional, args, (size_t)n_args, values) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < n_keywords; i++) {
        if (place_keyword(state, function, params, n_params, n_positional,
                          PyTuple_GET_ITEM(kwnames, i), args[n_args + i], values) < 0)
            return -1;
    }
    return convert_all(state, function, params, n_params, values);
}

int
py_parse_tuple(const py_state *state, const char *function, const py_param *params, size_t n_params,
               size_t n_positional, PyObject *args, PyObject *kwargs)
{
    PyObject *values[MAX_PARAMS] = {NULL};
    PyObject *given[MAX_PARAMS];
    const size_t n_args = (size_t)PyTuple_GET_SIZE(args);
    PyObject *keyword, *value;
    Py_ssize_t position = 0;

    for (size_t i = 0; i < n_args && i < MAX_PARAMS; i++)
        given[i] = PyTuple_GET_ITEM(args, (Py_ssize_t)i);
    if (place_positional(state, function, n_positional, given, n_args, values) < 0)
        return -1;
    while (kwargs != NULL && PyDict_Next(kwargs, &position, &keyword, &value)) {
        if (place_keyword(state, function, params, n_params, n_positional, keyword, value, values) <
            0)
            return -1;
    }
    return convert_all(state, function, params, n_params, values);
}
