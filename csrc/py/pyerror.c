/* The one place where a status of the core becomes an exception.
 *
 * The table below is the whole mapping; an error of the operating system becomes the subclass of
 * OSError that its errno stands for (FileNotFoundError …), because OSError chooses it by itself. */
#include "py/py.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct error_class {
    const char *module, *name;
} error_class;

static const error_class error_classes[SCIO_EBUG + 1] = {
    [SCIO_OK] = {"builtins", "RuntimeError"},
    [SCIO_ENOMEM] = {"builtins", "MemoryError"},
    [SCIO_EINVAL] = {"builtins", "ValueError"},
    [SCIO_ETYPE] = {"builtins", "TypeError"},
    [SCIO_ERANGE] = {"builtins", "IndexError"},
    [SCIO_ENOENT] = {"scio.errors", "KeyNotFoundError"},
    [SCIO_EIO] = {"builtins", "OSError"},
    [SCIO_EWRITE] = {"scio.errors", "IOWriteError"},
    [SCIO_EFORMAT] = {"scio.errors", "IOFormatError"},
    [SCIO_ECORRUPT] = {"scio.errors", "CorruptFileError"},
    [SCIO_EUNSUPPORTED] = {"scio.errors", "UnsupportedError"},
    [SCIO_EUNSAFE] = {"scio.errors", "UnsafeFileError"},
    [SCIO_ECANCEL] = {"scio.errors", "LoaderCancelled"},
    [SCIO_EBUG] = {"builtins", "RuntimeError"},
};

static atomic_bool is_exiting;

int
py_errors_load(py_state *state)
{
    for (size_t code = 0; code <= SCIO_EBUG; code++) {
        const error_class *const row = &error_classes[code];
        PyObject *module;

        if (row->name == NULL) {
            PyErr_Format(PyExc_SystemError, "scio: status %zu has no exception class", code);
            return -1;
        }
        module = PyImport_ImportModule(row->module);
        if (module == NULL)
            return -1;
        state->errors[code] = PyObject_GetAttrString(module, row->name);
        Py_DECREF(module);
        if (state->errors[code] == NULL)
            return -1;
    }
    return 0;
}

PyObject *
py_text(const char *text)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
}

/* The arguments of the exception: (message), for system errors (errno, message[, filename]). */
static PyObject *
error_arguments(const scio_error *err, PyObject *path)
{
    /* "replace": a cut message may end inside a character. */
    PyObject *message =
        PyUnicode_DecodeUTF8(err->message, (Py_ssize_t)strlen(err->message), "replace");
    PyObject *arguments = NULL;

    if (message == NULL)
        return NULL;
    if (err->code == SCIO_EBUG || err->code == SCIO_OK)
        Py_SETREF(message, PyUnicode_FromFormat(
                               "%U (a bug in scio: please report it with this message)", message));
    if (message == NULL)
        return NULL;
    if ((err->code != SCIO_EIO && err->code != SCIO_EWRITE) || err->saved_errno == 0)
        arguments = PyTuple_Pack(1, message);
    else if (path == NULL)
        arguments = Py_BuildValue("(iO)", err->saved_errno, message);
    else /* the form that Python's own open gives: the path stands behind the text anyway */
        arguments = Py_BuildValue("(isO)", err->saved_errno, strerror(err->saved_errno), path);
    Py_DECREF(message);
    return arguments;
}

PyObject *
py_raise_path(const py_state *state, const scio_error *err, PyObject *path)
{
    PyObject *arguments, *exception;

    /* What a signal handler raises comes first: the failure may well be its consequence. */
    if (PyErr_Occurred() || PyErr_CheckSignals() < 0)
        return NULL;
    arguments = error_arguments(err, path);
    if (arguments == NULL)
        return NULL;
    exception = PyObject_CallObject(state->errors[err->code], arguments);
    Py_DECREF(arguments);
    if (exception != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    return NULL;
}

PyObject *
py_raise(const py_state *state, const scio_error *err)
{
    return py_raise_path(state, err, NULL);
}

PyObject *
py_fail(const py_state *state, scio_status code, const char *format, ...)
{
    scio_error err = SCIO_ERROR_INIT;
    va_list arguments;

    err.code = code;
    va_start(arguments, format);
    vsnprintf(err.message, sizeof(err.message), format, arguments);
    va_end(arguments);
    return py_raise(state, &err);
}

int
py_check_pid(pid_t pid, const char *what)
{
    const pid_t here = getpid();

    if (pid == here)
        return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "%s was made in process %ld and cannot be used in process %ld: open it again here",
                 what, (long)pid, (long)here);
    return -1;
}

PyObject *
py_refuse_pickle(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_Format(PyExc_TypeError,
                 "cannot pickle %s: it belongs to this process; pickle the path or the object "
                 "of scio that opened it, and open it again there",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

void
py_exception_text(char *out, size_t out_nbytes)
{
    PyObject *type, *value, *traceback, *text;
    const char *utf8 = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    text = value == NULL ? NULL : PyObject_Str(value);
    if (text != NULL)
        utf8 = PyUnicode_AsUTF8(text);
    snprintf(out, out_nbytes, "%s: %s",
             type == NULL ? "no exception" : ((PyTypeObject *)type)->tp_name,
             utf8 == NULL ? "(its text cannot be shown)" : utf8);
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

void
py_set_exiting(void)
{
    atomic_store(&is_exiting, true);
}

bool
py_is_exiting(void)
{
    return atomic_load(&is_exiting);
}
