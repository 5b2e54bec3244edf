/* Where the bytes of a File come from: a path, an object in memory, a Python callable.
 *
 * A callable is called from whatever thread of the core reads, with the GIL taken for it.  The File
 * owns it, so that the garbage collector sees a cycle through it; the source of the core holds only
 * the py_callback, whose `read` is NULL once the File is gone. */
#include "py/py.h"

#include "base/mem.h"
#include "base/source.h"

#include <stdio.h>
#include <string.h>

struct py_callback {
    PyObject *read; /* owned by the File; guarded by the GIL */
    char name[128]; /* for messages */
};

/* What went wrong in the callable becomes text.  An interrupt must not be lost in it: it is sent
 * again, to be raised by the main thread. */
static scio_status
callback_raised(const py_callback *callback, uint64_t offset, size_t nbytes, scio_error *err)
{
    char text[256];
    const bool is_interrupt = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);

    py_exception_text(text, sizeof(text));
    if (is_interrupt)
        PyErr_SetInterrupt();
    return scio_fail(err, SCIO_EIO, "%s: read(%llu, %zu) raised %s", callback->name,
                     (unsigned long long)offset, nbytes, text);
}

static scio_status
copy_result(const py_callback *callback, PyObject *result, uint64_t offset, size_t nbytes,
            void *dst, scio_error *err)
{
    Py_buffer view;
    scio_status status = SCIO_OK;

    if (PyObject_GetBuffer(result, &view, PyBUF_SIMPLE) < 0)
        return callback_raised(callback, offset, nbytes, err);
    if ((size_t)view.len != nbytes)
        status = scio_fail(err, SCIO_EIO, "%s: read(%llu, %zu) gave %zd bytes", callback->name,
                           (unsigned long long)offset, nbytes, view.len);
    else if (nbytes > 0)
        memcpy(dst, view.buf, nbytes);
    PyBuffer_Release(&view);
    return status;
}

static scio_status
callback_read_locked(const py_callback *callback, uint64_t offset, size_t nbytes, void *dst,
                     scio_error *err)
{
    PyObject *read = callback->read, *result;
    scio_status status;

    if (read == NULL)
        return scio_fail(err, SCIO_EIO, "%s: the file object is gone", callback->name);
    Py_INCREF(read);
    result =
        PyObject_CallFunction(read, "KK", (unsigned long long)offset, (unsigned long long)nbytes);
    Py_DECREF(read);
    if (result == NULL)
        return callback_raised(callback, offset, nbytes, err);
    status = copy_result(callback, result, offset, nbytes, dst, err);
    Py_DECREF(result);
    return status;
}

static scio_status
callback_read(void *context, uint64_t offset, size_t nbytes, void *dst, scio_error *err)
{
    PyGILState_STATE gil;
    scio_status status;

    if (py_is_exiting())
        return scio_fail(err, SCIO_EIO, "the interpreter is shutting down");
    gil = PyGILState_Ensure();
    status = callback_read_locked(context, offset, nbytes, dst, err);
    PyGILState_Release(gil);
    return status;
}

static void
callback_free(void *context)
{
    scio_mem_free(context);
}

void
py_callback_clear(py_callback *callback)
{
    Py_CLEAR(callback->read);
}

int
py_callback_visit(py_callback *callback, visitproc visit, void *arg)
{
    Py_VISIT(callback->read);
    return 0;
}

/* The py_callback goes with the source; the File keeps one reference of the source as long as it
 * lives, so that it can clear `read`. */
static int
open_callable(const py_state *state, PyObject *read, int64_t nbytes, const char *name,
              scio_source **source_out, py_callback **callback_out)
{
    scio_error err = SCIO_ERROR_INIT;
    py_callback *callback = NULL;

    if (nbytes < 0 || name[0] == '\0') {
        py_fail(state, SCIO_EINVAL, "a callable source needs %s=", nbytes < 0 ? "nbytes" : "name");
        return -1;
    }
    if (scio_mem_zalloc(1, sizeof(*callback), &callback, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    snprintf(callback->name, sizeof(callback->name), "%s", name);
    if (scio_source_from_callback((uint64_t)nbytes, name, callback_read, callback_free, callback,
                                  source_out, &err) != SCIO_OK) {
        scio_mem_free(callback);
        py_raise(state, &err);
        return -1;
    }
    callback->read = Py_NewRef(read);
    *callback_out = callback;
    return 0;
}

static int
open_memory(const py_state *state, PyObject *object, const char *name, scio_source **source_out)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;
    char default_name[64];
    scio_status status;

    if (py_buf_from_object(state, object, &buf) < 0)
        return -1;
    snprintf(default_name, sizeof(default_name), "<%zu bytes in memory>", scio_buf_nbytes(buf));
    status = scio_source_from_buf(buf, name[0] == '\0' ? default_name : name, source_out, &err);
    scio_buf_release(buf);
    if (status == SCIO_OK)
        return 0;
    py_raise(state, &err);
    return -1;
}

static int
open_path(const py_state *state, PyObject *path, scio_source **source_out)
{
    scio_error err = SCIO_ERROR_INIT;
    PyObject *bytes = NULL;
    const char *c_path;
    scio_status status;

    if (!PyUnicode_FSConverter(path, &bytes))
        return -1;
    c_path = PyBytes_AS_STRING(bytes);
    Py_BEGIN_ALLOW_THREADS;
    status = scio_source_open_file(c_path, source_out, &err);
    Py_END_ALLOW_THREADS;
    Py_DECREF(bytes);
    if (status == SCIO_OK)
        return 0;
    py_raise_path(state, &err, path);
    return -1;
}

int
py_source_open(const py_state *state, PyObject *object, int64_t nbytes, const char *name,
               scio_source **source_out, py_callback **callback_out)
{
    const bool is_callable = !PyUnicode_Check(object) && !PyObject_CheckBuffer(object);

    if (is_callable && PyCallable_Check(object))
        return open_callable(state, object, nbytes, name, source_out, callback_out);
    if (is_callable) {
        py_fail(state, SCIO_ETYPE,
                "source is %s, expected a path (str), bytes or a callable read(offset, nbytes)",
                Py_TYPE(object)->tp_name);
        return -1;
    }
    if (nbytes >= 0) {
        py_fail(state, SCIO_EINVAL,
                "nbytes= belongs to a callable source, this one knows its size");
        return -1;
    }
    if (!PyUnicode_Check(object))
        return open_memory(state, object, name, source_out);
    if (name[0] != '\0') {
        py_fail(state, SCIO_EINVAL, "name= belongs to a source without a path");
        return -1;
    }
    return open_path(state, object, source_out);
}
