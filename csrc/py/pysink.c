/* scio._core.Sink: rows of cells into files whose skeleton is there (load/sink.h).
 *
 * Thread-safe: the sink has atomics and a mutex of its own, and the GIL is released while it works.
 */
#include "py/py.h"

#include "base/mem.h"

#include <string.h>
#include <unistd.h>

/* --- making: a list of dicts becomes an array of structs */

typedef struct sink_specs {
    scio_sink_source *sources; /* [n_sources] */
    scio_sink_array *arrays;   /* [n_sources * n_tracks] */
    size_t n_sources, n_tracks;
} sink_specs;

static void
specs_clear(sink_specs *specs)
{
    scio_mem_free(specs->sources);
    scio_mem_free(specs->arrays);
}

/* Parameters out of a dict, with the checks and messages of keyword arguments. */
static int
parse_dict(const py_state *state, const char *what, PyObject *dict, const py_param *params,
           size_t n_params)
{
    PyObject *const none = PyTuple_New(0);
    int result;

    if (none == NULL)
        return -1;
    if (!PyDict_Check(dict)) {
        py_fail(state, SCIO_ETYPE, "%s is %s, expected dict", what, Py_TYPE(dict)->tp_name);
        result = -1;
    } else {
        result = py_parse_tuple(state, what, params, n_params, 0, none, dict);
    }
    Py_DECREF(none);
    return result;
}

static int
parse_array(const py_state *state, PyObject *dict, int64_t n_cells, scio_sink_array *out)
{
    py_view indptr = {0};
    int64_t data_offset = 0, indices_offset = 0;
    const py_param params[] = {
        {.name = "is_dense", .kind = PY_BOOL, .out = &out->is_dense},
        {.name = "n_cols", .kind = PY_INT64, .out = &out->n_cols},
        {.name = "indptr",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &indptr,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "data_offset", .kind = PY_INT64, .out = &data_offset},
        {.name = "indices_offset", .kind = PY_INT64, .is_optional = true, .out = &indices_offset},
        {.name = "data_dtype", .kind = PY_DTYPE, .out = &out->data_dtype},
        {.name = "indices_dtype",
         .kind = PY_DTYPE,
         .is_optional = true,
         .out = &out->indices_dtype}};

    if (parse_dict(state, "Sink array", dict, params, PY_N_PARAMS(params)) < 0)
        return -1;
    if (!out->is_dense && indptr.n_items != (size_t)n_cells + 1) {
        py_fail(state, SCIO_EINVAL, "indptr has %zu entries, expected %lld (n_cells + 1)",
                indptr.n_items, (long long)n_cells + 1);
        return -1;
    }
    if (data_offset < 0 || indices_offset < 0) {
        py_fail(state, SCIO_EINVAL, "an offset is negative");
        return -1;
    }
    out->indptr = indptr.data;
    out->data_offset = (uint64_t)data_offset;
    out->indices_offset = (uint64_t)indices_offset;
    return 0;
}

/* Arrays are borrowed from the dict, which the caller's list holds. */
static int
parse_source(const py_state *state, PyObject *dict, size_t n_tracks, scio_sink_source *out,
             scio_sink_array *arrays)
{
    py_view cells = {0};
    PyObject *list = NULL;
    const py_param params[] = {
        {.name = "path", .kind = PY_TEXT, .out = &out->path},
        {.name = "cells",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &cells,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "n_cells", .kind = PY_INT64, .out = &out->n_cells},
        {.name = "first_cell", .kind = PY_INT64, .is_optional = true, .out = &out->first_cell},
        {.name = "arrays", .kind = PY_OBJECT, .out = &list}};

    if (parse_dict(state, "Sink source", dict, params, PY_N_PARAMS(params)) < 0)
        return -1;
    if (out->n_cells < 0 || (cells.array != NULL && (int64_t)cells.n_items != out->n_cells)) {
        py_fail(state, SCIO_EINVAL, "cells has %zu entries, n_cells is %lld", cells.n_items,
                (long long)out->n_cells);
        return -1;
    }
    if (!PyList_Check(list) || (size_t)PyList_GET_SIZE(list) != n_tracks) {
        py_fail(state, SCIO_ETYPE, "arrays is no list of %zu dicts, one for each track", n_tracks);
        return -1;
    }
    for (size_t i = 0; i < n_tracks; i++)
        if (parse_array(state, PyList_GET_ITEM(list, (Py_ssize_t)i), out->n_cells, &arrays[i]) < 0)
            return -1;
    out->cells = cells.data;
    out->arrays = arrays;
    return 0;
}

static int
parse_specs(const py_state *state, PyObject *list, int64_t n_tracks, sink_specs *out)
{
    scio_error err = SCIO_ERROR_INIT;

    if (!PyList_Check(list) || n_tracks < 1 || n_tracks > 1000) {
        py_fail(state, SCIO_ETYPE, "sources is no list, or n_tracks (%lld) is not in [1, 1000]",
                (long long)n_tracks);
        return -1;
    }
    out->n_sources = (size_t)PyList_GET_SIZE(list);
    out->n_tracks = (size_t)n_tracks;
    if (scio_mem_zalloc(out->n_sources, sizeof *out->sources, &out->sources, &err) != SCIO_OK ||
        scio_mem_zalloc(out->n_sources * out->n_tracks, sizeof *out->arrays, &out->arrays, &err) !=
            SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    for (size_t i = 0; i < out->n_sources; i++)
        if (parse_source(state, PyList_GET_ITEM(list, (Py_ssize_t)i), out->n_tracks,
                         &out->sources[i], &out->arrays[i * out->n_tracks]) < 0)
            return -1;
    return 0;
}

static PyObject *
sink_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    const py_state *const state = PyType_GetModuleState(type);
    PyObject *list = NULL;
    int64_t n_tracks = 1;
    const py_param params[] = {
        {.name = "sources", .kind = PY_OBJECT, .out = &list},
        {.name = "n_tracks", .kind = PY_INT64, .is_optional = true, .out = &n_tracks}};
    sink_specs specs = {0};
    scio_sink *sink = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status = SCIO_EINVAL;
    py_sink *self = NULL;

    if (py_parse_tuple(state, "Sink", params, PY_N_PARAMS(params), 0, args, kwargs) == 0 &&
        parse_specs(state, list, n_tracks, &specs) == 0) {
        Py_BEGIN_ALLOW_THREADS;
        status = scio_sink_new(specs.sources, specs.n_sources, specs.n_tracks, &sink, &err);
        Py_END_ALLOW_THREADS;
        if (status != SCIO_OK)
            py_raise(state, &err);
    }
    specs_clear(&specs);
    if (status == SCIO_OK)
        self = (py_sink *)type->tp_alloc(type, 0);
    if (self == NULL) {
        scio_sink_release(sink);
        return NULL;
    }
    self->sink = sink;
    self->pid = getpid();
    return (PyObject *)self;
}

static void
sink_dealloc(PyObject *op)
{
    PyTypeObject *const type = Py_TYPE(op);
    scio_sink *const sink = ((py_sink *)op)->sink;

    Py_BEGIN_ALLOW_THREADS; /* the last one waits for the puts at work */
    scio_sink_release(sink);
    Py_END_ALLOW_THREADS;
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- putting from Python */

/* One track of some cells: three arrays of CSR, or one dense. */
typedef struct put_track {
    py_view data, indices, indptr;
} put_track;

static int
parse_track(const py_state *state, PyObject *object, size_t n_cells, put_track *out)
{
    const bool is_csr = PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 3;
    scio_csr_view csr;
    scio_error err = SCIO_ERROR_INIT;

    if (!is_csr) {
        if (py_view_from(state, object, "dense rows", 2, SCIO_DTYPE_NONE, &out->data) < 0)
            return -1;
        if ((size_t)out->data.dims[0] == n_cells)
            return 0;
        py_fail(state, SCIO_EINVAL, "%lld dense rows for %zu cells", (long long)out->data.dims[0],
                n_cells);
        return -1;
    }
    if (py_view_from(state, PyTuple_GET_ITEM(object, 0), "data", 1, SCIO_DTYPE_NONE, &out->data) <
            0 ||
        py_view_from(state, PyTuple_GET_ITEM(object, 1), "indices", 1, SCIO_DTYPE_NONE,
                     &out->indices) < 0 ||
        py_view_from(state, PyTuple_GET_ITEM(object, 2), "indptr", 1, SCIO_I64, &out->indptr) < 0)
        return -1;
    const int64_t shape[2] = {(int64_t)n_cells, INT64_MAX};
    if (py_csr_view_from(state, &out->data, &out->indices, &out->indptr, shape, &csr) < 0)
        return -1;
    if (scio_csr_validate(&csr, SCIO_CHECK_STRUCTURE, NULL, &err) == SCIO_OK)
        return 0;
    py_raise(state, &err);
    return -1;
}

static void
point_at(const put_track *track, size_t i, scio_row *row)
{
    const size_t itemsize = scio_dtype_itemsize(track->data.dtype);
    const char *const data = track->data.data;

    memset(row, 0, sizeof *row);
    row->value_dtype = track->data.dtype;
    if (track->indptr.array == NULL) {
        row->n_items = (size_t)track->data.dims[1];
        row->values = data + i * row->n_items * itemsize;
        return;
    }
    const int64_t *const indptr = track->indptr.data;
    const size_t first = (size_t)indptr[i];
    row->n_items = (size_t)indptr[i + 1] - first;
    row->values = data + first * itemsize;
    row->index_dtype = track->indices.dtype;
    row->indices =
        (const char *)track->indices.data + first * scio_dtype_itemsize(row->index_dtype);
}

static void
put_all(scio_sink *sink, size_t i_source, const py_view *cells, const put_track *tracks,
        scio_row *rows)
{
    for (size_t i = 0; i < cells->n_items; i++) {
        for (size_t j = 0; j < scio_sink_n_tracks(sink); j++)
            point_at(&tracks[j], i, &rows[j]);
        scio_sink_put(sink, i_source, ((const int64_t *)cells->data)[i], rows);
    }
}

static int
check_here(py_sink *self)
{
    return py_check_pid(self->pid, "scio._core.Sink");
}

static PyObject *
sink_put(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    py_sink *const self = (py_sink *)op;
    const py_state *const state = py_state_of(op);
    const size_t n_tracks = scio_sink_n_tracks(self->sink);
    int64_t i_source = 0;
    py_view cells = {0};
    PyObject *list = NULL;
    const py_param params[] = {
        {.name = "i_source", .kind = PY_INT64, .out = &i_source},
        {.name = "cells", .kind = PY_ARRAY, .out = &cells, .rank = 1, .dtype = SCIO_I64},
        {.name = "tracks", .kind = PY_OBJECT, .out = &list}};
    put_track *tracks = NULL;
    scio_row *rows = NULL;
    scio_error err = SCIO_ERROR_INIT;
    int result = -1;

    if (py_parse(state, "put", params, PY_N_PARAMS(params), 3, args, n_args, NULL) < 0 ||
        check_here(self) < 0)
        return NULL;
    if (!PyList_Check(list) || (size_t)PyList_GET_SIZE(list) != n_tracks || i_source < 0)
        return py_fail(state, SCIO_EINVAL, "tracks is no list of %zu, or i_source (%lld) negative",
                       n_tracks, (long long)i_source);
    if (scio_mem_zalloc(n_tracks, sizeof *tracks, &tracks, &err) != SCIO_OK ||
        scio_mem_zalloc(n_tracks, sizeof *rows, &rows, &err) != SCIO_OK) {
        py_raise(state, &err);
        goto done;
    }
    for (size_t i = 0; i < n_tracks; i++)
        if (parse_track(state, PyList_GET_ITEM(list, (Py_ssize_t)i), cells.n_items, &tracks[i]) < 0)
            goto done;
    Py_BEGIN_ALLOW_THREADS;
    put_all(self->sink, (size_t)i_source, &cells, tracks, rows);
    Py_END_ALLOW_THREADS;
    result = 0;
done:
    scio_mem_free(tracks);
    scio_mem_free(rows);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* --- looking, ending */

static PyObject *
sink_get_n_put(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(scio_sink_n_put(((py_sink *)op)->sink));
}

static PyObject *
sink_get_n_cells(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(scio_sink_n_cells(((py_sink *)op)->sink));
}

static PyObject *
sink_get_is_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(scio_sink_is_closed(((py_sink *)op)->sink));
}

static PyObject *
sink_get_failure(PyObject *op, void *Py_UNUSED(closure))
{
    scio_error failure = SCIO_ERROR_INIT;

    if (check_here((py_sink *)op) < 0)
        return NULL;
    if (!scio_sink_failure(((py_sink *)op)->sink, &failure))
        Py_RETURN_NONE;
    return py_text(failure.message);
}

static PyObject *
sink_missing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const scio_sink *const sink = ((py_sink *)op)->sink;
    const size_t n_cells = (size_t)scio_sink_n_cells(sink);
    int64_t *cells = NULL;
    scio_buf *buf = NULL;
    size_t n_missing = 0;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    Py_BEGIN_ALLOW_THREADS;
    status = scio_mem_alloc(n_cells, sizeof *cells, &cells, &err);
    if (status == SCIO_OK) {
        n_missing = scio_sink_missing(sink, cells, n_cells);
        status = scio_buf_new(n_missing * sizeof *cells, &buf, &err);
    }
    if (status == SCIO_OK && n_missing > 0)
        memcpy(scio_buf_data(buf), cells, n_missing * sizeof *cells);
    scio_mem_free(cells);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_raise(py_state_of(op), &err);
    return py_array_1d(buf, SCIO_I64, (int64_t)n_missing);
}

static PyObject *
sink_sync(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    scio_sink *const sink = ((py_sink *)op)->sink;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (check_here((py_sink *)op) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_sink_sync(sink, &err);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? Py_NewRef(Py_None) : py_raise(py_state_of(op), &err);
}

static PyObject *
sink_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    scio_sink *const sink = ((py_sink *)op)->sink;

    Py_BEGIN_ALLOW_THREADS;
    scio_sink_close(sink);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

/* --- the type */

static PyMethodDef sink_methods[] = {
    {"put", PY_METHOD(sink_put), METH_FASTCALL,
     "put($self, i_source, cells, tracks, /)\n--\n\n"
     "Put cells of one source: for each track (data, indices, indptr) or a 2-D array."},
    {"missing", sink_missing, METH_NOARGS,
     "missing($self, /)\n--\n\nReturn the global ids of the cells that nobody has put yet."},
    {"sync", sink_sync, METH_NOARGS,
     "sync($self, /)\n--\n\nBring what was put to the disk; raises if anything failed so far."},
    {"close", sink_close, METH_NOARGS,
     "close($self, /)\n--\n\nWait for the puts at work and close the files."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef sink_members[] = {
    {"n_put", sink_get_n_put, NULL, "Cells whose writing has ended well.", NULL},
    {"n_cells", sink_get_n_cells, NULL, "Cells that there are.", NULL},
    {"is_closed", sink_get_is_closed, NULL, "Whether nothing is written any more.", NULL},
    {"failure", sink_get_failure, NULL, "Why it closed, None when nothing failed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot sink_slots[] = {
    {Py_tp_doc,
     (void *)(uintptr_t) "Sink(*, sources, n_tracks=1)\n--\n\n"
                         "Rows of cells, in any order, into files whose skeleton is there.\n\n"
                         "Thread-safe."},
    PY_SLOT(Py_tp_new, sink_new),
    PY_SLOT(Py_tp_dealloc, sink_dealloc),
    {Py_tp_methods, sink_methods},
    {Py_tp_getset, sink_members},
    {0, NULL},
};

static PyType_Spec sink_spec = {
    .name = "scio._core.Sink",
    .basicsize = sizeof(py_sink),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sink_slots,
};

int
py_sink_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &sink_spec, &state->sink_type);
}
