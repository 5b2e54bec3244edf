/* What the files of scio._h5write share. */
#ifndef SCIO_PY_H5WRITE_H
#define SCIO_PY_H5WRITE_H

#include "py/py.h"

#include "h5write/chunked.h"
#include "h5write/writer.h"

/* The helpers of py/ see the first member only. */
typedef struct writer_state {
    py_state shared;
    PyTypeObject *writer_type, *chunked_type;
    PyObject *get_threads; /* scio._core's: this module has a pool of its own, of the same size */
} writer_state;

typedef struct py_writer {
    PyObject_HEAD
    scio_h5_writer *writer; /* NULL once it was closed or discarded */
    bool is_busy;           /* a thread is inside; guarded by the GIL */
} py_writer;

/* --- pyvalue.c */

/* What a dtype is in a file; it lives as long as the dtype does.  -1 with a TypeError that names
 * the dtype when it has no form there. */
int py_element_from(const py_state *state, PyArray_Descr *descr, scio_h5_element *out);
void py_element_clear(scio_h5_element *element);
/* The same items in the same bytes: field names count, byte order does not. */
bool py_element_equal(const scio_h5_element *a, const scio_h5_element *b);

/* The items of an array as the file takes them: row-major, native, packed. */
typedef struct py_items {
    const void *data;
    PyObject *kept; /* list of what owns the data, or the text that they point to */
    void *packed;   /* NULL unless they had to be put together here */
} py_items;

int py_items_from(const py_state *state, PyArrayObject *array, const scio_h5_element *element,
                  py_items *out);
void py_items_clear(py_items *items);

/* Anything that can be a dataset or an attribute. */
typedef struct py_value {
    scio_h5_value c;
    scio_h5_element element;
    py_items items;
    const char **texts; /* [n_items] */
    union {
        int64_t integer;
        double real;
        double parts[2];
        uint8_t truth;
        const char *text;
    } lone;
} py_value;

int py_value_from(const py_state *state, PyObject *object, py_value *out);
void py_value_clear(py_value *value);

/* --- pyh5write.c */

/* The C writer, for one thread at a time; NULL with an exception. */
scio_h5_writer *py_writer_borrow(py_writer *self);
void py_writer_return(py_writer *self);
/* Our pool gets as many threads as scio has now; -1 with an exception. */
int py_writer_match_threads(const writer_state *state);

/* --- pychunked.c */

extern PyType_Spec py_chunked_spec;
PyObject *py_writer_chunked(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                            PyObject *kwnames);

#endif
