/* scio._core.Compact: decoded rows that stay in memory from epoch to epoch. */
#include "py/py.h"

#include "base/mem.h"

#include <string.h>

static PyObject *
compact_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    py_state *const state = PyType_GetModuleState(type);
    int64_t n_cells = 0, n_tracks = 0;
    uint64_t max_nbytes = 0;
    const py_param params[] = {
        {.name = "n_cells", .kind = PY_INT64, .out = &n_cells},
        {.name = "n_tracks", .kind = PY_INT64, .out = &n_tracks},
        {.name = "max_nbytes", .kind = PY_UINT64, .out = &max_nbytes},
    };
    scio_error err = SCIO_ERROR_INIT;
    py_compact *self;

    if (py_parse_tuple(state, "Compact", params, PY_N_PARAMS(params), 3, args, kwargs) < 0)
        return NULL;
    self = (py_compact *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (scio_compact_new(n_cells, n_tracks < 0 ? 0 : (size_t)n_tracks, max_nbytes, &self->compact,
                         &err) == SCIO_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    return py_raise(state, &err);
}

static void
compact_dealloc(PyObject *op)
{
    PyTypeObject *const type = Py_TYPE(op);

    scio_compact_release(((py_compact *)op)->compact);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Cells are checked here: the core reads its table without asking. */
static int
check_cells(const py_state *state, const py_view *cells, int64_t n_cells)
{
    const int64_t *const ids = cells->data;

    for (size_t i = 0; cells->array != NULL && i < cells->n_items; i++)
        if (ids[i] < 0 || ids[i] >= n_cells) {
            py_fail(state, SCIO_ERANGE, "cells[%zu] is %lld, the store has %lld cells", i,
                    (long long)ids[i], (long long)n_cells);
            return -1;
        }
    return 0;
}

static PyObject *
compact_missing(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of(op);
    const scio_compact *const compact = ((py_compact *)op)->compact;
    py_view cells = {0};
    const py_param params[] = {{.name = "cells",
                                .kind = PY_ARRAY,
                                .is_optional = true,
                                .is_nullable = true,
                                .out = &cells,
                                .rank = 1,
                                .dtype = SCIO_I64}};
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;
    int64_t *missing = NULL;
    size_t n_missing;
    scio_status status;

    if (py_parse(state, "missing", params, 1, 1, args, n_args, kwnames) < 0 ||
        check_cells(state, &cells, scio_compact_n_cells(compact)) < 0)
        return NULL;
    const size_t n_asked =
        cells.array != NULL ? cells.n_items : (size_t)scio_compact_n_cells(compact);
    status = scio_mem_alloc(n_asked, sizeof *missing, &missing, &err);
    if (status == SCIO_OK) {
        n_missing = scio_compact_missing(compact, cells.array != NULL ? cells.data : NULL, n_asked,
                                         missing);
        status = scio_buf_new(n_missing * sizeof *missing, &buf, &err);
        if (status == SCIO_OK && n_missing > 0)
            memcpy(scio_buf_data(buf), missing, n_missing * sizeof *missing);
    }
    scio_mem_free(missing);
    if (status != SCIO_OK)
        return py_raise(state, &err);
    return py_array_1d(buf, SCIO_I64, (int64_t)n_missing);
}

static PyObject *
get_n_cells(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(scio_compact_n_cells(((py_compact *)op)->compact));
}

static PyObject *
get_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(scio_compact_nbytes(((py_compact *)op)->compact));
}

static PyObject *
get_max_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(scio_compact_max_nbytes(((py_compact *)op)->compact));
}

static PyObject *
get_is_full(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(scio_compact_is_full(((py_compact *)op)->compact));
}

static PyMethodDef compact_methods[] = {
    {"missing", PY_METHOD(compact_missing), METH_FASTCALL | METH_KEYWORDS,
     "missing($self, cells=None, /)\n--\n\nReturn which of the cells (all) are not held."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef compact_members[] = {
    {"n_cells", get_n_cells, NULL, "Cells it has places for.", NULL},
    {"nbytes", get_nbytes, NULL, "Bytes held now.", NULL},
    {"max_nbytes", get_max_nbytes, NULL, "Bytes it never exceeds.", NULL},
    {"is_full", get_is_full, NULL, "Whether some row did not fit.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot compact_slots[] = {
    {Py_tp_doc,
     (void *)(uintptr_t) "Compact(n_cells, n_tracks, max_nbytes, /)\n--\n\n"
                         "Decoded rows that stay in memory; a Loader fills and reads it."},
    PY_SLOT(Py_tp_new, compact_new),
    PY_SLOT(Py_tp_dealloc, compact_dealloc),
    {Py_tp_methods, compact_methods},
    {Py_tp_getset, compact_members},
    {0, NULL},
};

static PyType_Spec compact_spec = {
    .name = "scio._core.Compact",
    .basicsize = sizeof(py_compact),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = compact_slots,
};

int
py_compact_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &compact_spec, &state->compact_type);
}
