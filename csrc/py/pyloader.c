/* scio._core.Loader: one epoch of batches.
 *
 * One thread at a time takes batches; `cancel` and `close` may come from any.  The C loader is
 * freed by whoever leaves it last, so that `close` never pulls it from under a `next` that waits.
 * Freeing waits for running jobs, which may need the GIL (a Python source), and so happens without
 * it; when they do not end, because their storage hangs, the C loader is left to pyorphan.c. */
#include "py/py.h"

#include "base/mem.h"
#include "base/queue.h"
#include "load/loader.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

#define SIGNAL_SLICE_MS 100
#define STOP_MS 600     /* how long a closed loader waits for its jobs; storage may hang */
#define EXIT_SLICES 500 /* of 10 ms: how long the end of the process waits for one loader */

typedef struct py_loader {
    PyObject_HEAD
    scio_loader *loader;               /* NULL once closed */
    py_sources sources;                /* what the C loader reads */
    PyObject *kept;                    /* tuple of arrays that the C loader borrows */
    struct py_loader *previous, *next; /* list of all, see py_state */
    scio_loader_stats last_stats;      /* of a closed loader */
    int64_t n_batches;
    unsigned n_users; /* calls inside the C loader now */
    bool is_closing;  /* the last user frees */
    bool is_freeing;  /* some thread waits for the last jobs */
    bool is_taking;   /* some thread is in `next` */
    bool is_used;     /* `next` was called */
    scio_loader_keep keep;
    pid_t pid;
} py_loader;

/* --- life */

static void
link_loader(py_state *state, py_loader *self)
{
    self->next = state->loaders;
    if (self->next != NULL)
        self->next->previous = self;
    state->loaders = self;
}

static void
unlink_loader(py_state *state, py_loader *self)
{
    if (self->previous != NULL)
        self->previous->next = self->next;
    else if (state != NULL && state->loaders == self)
        state->loaders = self->next;
    if (self->next != NULL)
        self->next->previous = self->previous;
    self->previous = self->next = NULL;
}

/* Nobody uses the C loader.  In a forked child it is left alone: its threads are the parent's. */
static void
free_loader(py_loader *self)
{
    scio_loader *const loader = self->loader;
    py_state *const state = py_state_or_null((PyObject *)self);
    bool is_stopped;

    if (loader == NULL)
        return;
    self->loader = NULL;
    unlink_loader(state, self);
    if (self->pid != getpid())
        return;
    scio_loader_stats_read(loader, &self->last_stats);
    self->is_freeing = true;
    Py_BEGIN_ALLOW_THREADS;
    is_stopped = scio_loader_stop(loader, STOP_MS);
    if (is_stopped)
        scio_loader_free(loader);
    Py_END_ALLOW_THREADS;
    if (!is_stopped)
        py_orphan_add(state, loader, &self->sources, &self->kept);
    self->is_freeing = false;
}

static void
close_loader(py_loader *self)
{
    if (self->loader == NULL)
        return;
    self->is_closing = true;
    if (self->pid == getpid())
        scio_loader_cancel(self->loader);
    if (self->n_users == 0)
        free_loader(self);
}

/* A daemon thread may still be inside: it is let out, with the GIL, to free the loader. */
static void
wait_until_free(const py_loader *self)
{
    const struct timespec slice = {0, 10 * 1000 * 1000};

    for (int i = 0; i < EXIT_SLICES && (self->loader != NULL || self->is_freeing); i++) {
        Py_BEGIN_ALLOW_THREADS;
        (void)nanosleep(&slice, NULL);
        Py_END_ALLOW_THREADS;
    }
}

void
py_loaders_close(py_state *state)
{
    while (state->loaders != NULL) {
        py_loader *const self = state->loaders;

        unlink_loader(state, self);
        Py_INCREF(self);
        close_loader(self);
        wait_until_free(self);
        Py_DECREF(self);
    }
    py_orphans_end(state);
}

/* Enters the C loader; NULL with an exception when that cannot be. */
static scio_loader *
enter(py_loader *self)
{
    if (py_check_pid(self->pid, "scio._core.Loader") < 0)
        return NULL;
    if (self->loader == NULL || self->is_closing) {
        py_fail(py_state_of((PyObject *)self), SCIO_EINVAL, "the loader is closed");
        return NULL;
    }
    self->n_users++;
    return self->loader;
}

static void
leave(py_loader *self)
{
    self->n_users--;
    if (self->is_closing && self->n_users == 0)
        free_loader(self);
}

static int
loader_traverse(PyObject *op, visitproc visit, void *arg)
{
    py_loader *const self = (py_loader *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->sources.matrices);
    Py_VISIT(self->sources.maps);
    Py_VISIT(self->kept);
    return 0;
}

static int
loader_clear(PyObject *op)
{
    py_loader *const self = (py_loader *)op;

    close_loader(self);
    if (self->loader == NULL) {
        py_sources_clear(&self->sources);
        Py_CLEAR(self->kept);
    }
    return 0;
}

static void
loader_dealloc(PyObject *op)
{
    PyTypeObject *const type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    loader_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- new */

/* What the constructor takes besides the specification of a batch. */
typedef struct loader_args {
    PyObject *matrices, *maps, *extras, *resident, *mapped; /* the last three may be NULL */
    PyObject *extras_tuple, *mapped_tuple;                  /* owned */
    scio_matrix **c_extras, **c_mapped;                     /* owned */
    py_view cells, given_cells, given_offsets, mapped_cells, extra_is_layer;
    uint64_t max_memory, block_bytes, prefetch;
    int shuffle;
    scio_loader_options options;
} loader_args;

static int
parse_loader(const py_state *state, PyObject *args, PyObject *kwargs, py_spec *spec, loader_args *a)
{
    static const char *const shuffles[] = {"none", "block", "exact", "given", NULL};
    scio_loader_options *const o = &a->options;
    py_param params[] = {
        {.name = "matrices", .kind = PY_OBJECT, .out = &a->matrices},
        {.name = "maps", .kind = PY_OBJECT, .out = &a->maps},
        {.name = "cells",
         .kind = PY_ARRAY,
         .is_nullable = true,
         .out = &a->cells,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "batch_size", .kind = PY_INT64, .out = &o->batch_size},
        {.name = "drop_last", .kind = PY_BOOL, .out = &o->drop_last},
        {.name = "shuffle", .kind = PY_CHOICE, .out = &a->shuffle, .choices = shuffles},
        {.name = "rank", .kind = PY_INT64, .out = &o->rank},
        {.name = "world_size", .kind = PY_INT64, .out = &o->world_size},
        {.name = "max_memory", .kind = PY_UINT64, .out = &a->max_memory},
        {.name = "block_bytes", .kind = PY_UINT64, .out = &a->block_bytes},
        {.name = "threads", .kind = PY_THREADS, .out = &o->n_threads},
        {.name = "prefetch", .kind = PY_UINT64, .out = &a->prefetch},
        {.name = "skip_errors", .kind = PY_BOOL, .out = &o->is_skip_errors},
        {.name = "first_batch", .kind = PY_INT64, .out = &o->first_batch},
        {.name = "given_cells",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &a->given_cells,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "given_offsets",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &a->given_offsets,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "keep", .kind = PY_BOOL, .is_optional = true, .out = &o->is_keeping},
        {.name = "kept", .kind = PY_UINT64, .is_optional = true, .out = &o->kept_nbytes},
        {.name = "fill", .kind = PY_BOOL, .is_optional = true, .out = &o->is_fill},
        {.name = "extras", .kind = PY_OBJECT, .is_optional = true, .out = &a->extras},
        {.name = "extra_is_layer",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &a->extra_is_layer,
         .rank = 1,
         .dtype = SCIO_BOOL},
        {.name = "resident", .kind = PY_OBJECT, .is_optional = true, .out = &a->resident},
        {.name = "mapped", .kind = PY_OBJECT, .is_optional = true, .out = &a->mapped},
        {.name = "mapped_cells",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &a->mapped_cells,
         .rank = 1,
         .dtype = SCIO_I64},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
    };
    const size_t n_own = PY_N_PARAMS(params) - PY_N_SPEC_PARAMS;

    py_spec_params(spec, params + n_own);
    return py_parse_tuple(state, "Loader", params, PY_N_PARAMS(params), 2, args, kwargs);
}

/* The core is told only where the lists lie, so their extents are checked here. */
static int
check_given(const py_state *state, loader_args *a)
{
    const int64_t *const offsets = a->given_offsets.data;
    const int64_t n_cells = (int64_t)a->given_cells.n_items;
    const bool is_given = a->shuffle == SCIO_SHUFFLE_GIVEN;
    const bool has_cells = a->given_cells.array != NULL,
               has_offsets = a->given_offsets.array != NULL;

    if (is_given != has_cells || is_given != has_offsets) {
        py_fail(state, SCIO_EINVAL, "given_cells and given_offsets belong to shuffle=\"given\"");
        return -1;
    }
    if (!is_given)
        return 0;
    if (a->given_offsets.n_items == 0 || offsets[0] != 0 ||
        offsets[a->given_offsets.n_items - 1] != n_cells) {
        py_fail(state, SCIO_EINVAL, "given_offsets goes from 0 to the length of given_cells, %lld",
                (long long)n_cells);
        return -1;
    }
    for (size_t i = 1; i < a->given_offsets.n_items; i++) {
        if (offsets[i] < offsets[i - 1]) {
            py_fail(state, SCIO_EINVAL, "given_offsets[%zu] is %lld, less than the one before", i,
                    (long long)offsets[i]);
            return -1;
        }
    }
    a->options.given_cells = a->given_cells.data;
    a->options.given_offsets = offsets;
    a->options.n_given = a->given_offsets.n_items - 1;
    return 0;
}

static PyObject *
or_none(PyObject *object)
{
    return object == NULL ? Py_None : object;
}

/* What the C loader may go on using; absent things as None. */
static PyObject *
keep_objects(const py_spec *spec, const loader_args *a)
{
    return PyTuple_Pack(7, or_none(spec->id_mask.array), or_none(spec->cell_scale.array),
                        or_none(a->cells.array), or_none(a->given_cells.array),
                        or_none(a->given_offsets.array), or_none(a->extras_tuple),
                        or_none(a->mapped_tuple));
}

static bool
is_there(const PyObject *object)
{
    return object != NULL && object != Py_None;
}

/* Further matrices and resident rows, for sources that were taken before. */
static int
take_tracks(const py_state *state, loader_args *a, size_t n_sources)
{
    scio_loader_options *const o = &a->options;

    o->n_extras = a->extra_is_layer.array != NULL ? a->extra_is_layer.n_items : 0;
    o->is_extra_layer = a->extra_is_layer.data;
    if (is_there(a->extras) || o->n_extras > 0) {
        a->extras_tuple = py_matrices_take(state, or_none(a->extras), "extras",
                                           n_sources * o->n_extras, &a->c_extras);
        if (a->extras_tuple == NULL)
            return -1;
        o->extras = a->c_extras;
    }
    if (is_there(a->mapped)) {
        a->mapped_tuple = py_matrices_take(state, a->mapped, "mapped",
                                           n_sources * (1 + o->n_extras), &a->c_mapped);
        if (a->mapped_tuple == NULL)
            return -1;
        o->mapped = a->c_mapped;
        o->mapped_cells = a->mapped_cells.array != NULL ? a->mapped_cells.data : NULL;
        o->n_mapped_cells = a->mapped_cells.n_items;
    }
    if (!is_there(a->resident))
        return 0;
    if (!Py_IS_TYPE(a->resident, state->compact_type)) {
        py_fail(state, SCIO_ETYPE, "resident is %s, expected scio._core.Compact or None",
                Py_TYPE(a->resident)->tp_name);
        return -1;
    }
    o->resident = ((py_compact *)a->resident)->compact;
    return 0;
}

static void
clear_args(loader_args *a)
{
    scio_mem_free(a->c_extras);
    scio_mem_free(a->c_mapped);
    Py_CLEAR(a->extras_tuple);
    Py_CLEAR(a->mapped_tuple);
}

static int
start_loader(py_loader *self, const py_state *state, const py_spec *spec, const loader_args *a)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    Py_BEGIN_ALLOW_THREADS;
    status = scio_loader_new(self->sources.c_matrices, self->sources.n_matrices,
                             self->sources.c_maps, a->cells.data, a->cells.n_items, &spec->c,
                             &a->options, &self->loader, &err);
    Py_END_ALLOW_THREADS;
    if (status == SCIO_OK)
        return 0;
    self->loader = NULL;
    py_raise(state, &err);
    return -1;
}

static PyObject *
loader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    py_state *const state = PyType_GetModuleState(type);
    loader_args a = {0};
    py_spec spec;
    py_loader *self;

    if (parse_loader(state, args, kwargs, &spec, &a) < 0 || py_spec_finish(state, &spec) < 0 ||
        check_given(state, &a) < 0)
        return NULL;
    a.options.shuffle = (scio_shuffle_mode)a.shuffle;
    a.options.seed = spec.c.seed;
    a.options.epoch = spec.c.epoch;
    a.options.max_memory = a.max_memory;
    a.options.block_nbytes = a.block_bytes;
    a.options.n_prefetch = (size_t)a.prefetch;
    py_orphans_reap(state);
    self = (py_loader *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->pid = getpid();
    if (py_sources_take(state, a.matrices, a.maps, spec.c.n_ids, &self->sources) == 0 &&
        take_tracks(state, &a, self->sources.n_matrices) == 0)
        self->kept = keep_objects(&spec, &a);
    if (self->kept == NULL || start_loader(self, state, &spec, &a) < 0)
        Py_CLEAR(self);
    clear_args(&a);
    if (self == NULL)
        return NULL;
    self->n_batches = scio_loader_n_batches(self->loader);
    self->keep = scio_loader_keep_of(self->loader);
    link_loader(state, self);
    return (PyObject *)self;
}

/* --- methods */

/* Waits for a batch, the end or a failure, asking for signals between slices; an exception of a
 * signal handler cancels the loader. */
static scio_status
wait_next(scio_loader *loader, double timeout, int *take, scio_batch *batch, scio_error *err)
{
    scio_status status;

    for (double waited = 0; waited < timeout; waited += SIGNAL_SLICE_MS * 1e-3) {
        Py_BEGIN_ALLOW_THREADS;
        status = scio_loader_next(loader, SIGNAL_SLICE_MS, take, batch, err);
        Py_END_ALLOW_THREADS;
        if (status != SCIO_OK || *take != SCIO_TAKE_TIMEOUT)
            return status;
        if (PyErr_CheckSignals() < 0) {
            scio_loader_cancel(loader);
            return scio_fail(err, SCIO_ECANCEL, "interrupted");
        }
    }
    return SCIO_OK;
}

static int
parse_next(const py_state *state, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames,
           double *timeout)
{
    PyObject *value = NULL;
    const py_param params[] = {
        {.name = "timeout", .kind = PY_OBJECT, .is_optional = true, .out = &value},
    };

    *timeout = INFINITY;
    if (py_parse(state, "next", params, PY_N_PARAMS(params), 0, args, n_args, kwnames) < 0)
        return -1;
    if (!is_there(value))
        return 0;
    *timeout = PyFloat_AsDouble(value);
    return PyErr_Occurred() != NULL ? -1 : 0;
}

static PyObject *
loader_next(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_loader *const self = (py_loader *)op;
    const py_state *const state = py_state_of(op);
    scio_error err = SCIO_ERROR_INIT;
    scio_batch batch = {0};
    scio_loader *loader;
    scio_status status;
    int take = SCIO_TAKE_TIMEOUT;
    double timeout;

    if (parse_next(state, args, n_args, kwnames, &timeout) < 0)
        return NULL;
    if (self->is_taking)
        return py_fail(state, SCIO_EINVAL, "another thread waits in Loader.next: one at a time");
    loader = enter(self);
    if (loader == NULL)
        return NULL;
    self->is_taking = self->is_used = true;
    status = wait_next(loader, timeout, &take, &batch, &err);
    self->is_taking = false;
    leave(self);
    if (status != SCIO_OK)
        return py_raise(state, &err);
    if (take == SCIO_TAKE_ITEM)
        return py_batch_dict(&batch);
    if (take == SCIO_TAKE_END)
        Py_RETURN_NONE;
    if (take == SCIO_TAKE_TIMEOUT) {
        PyErr_Format(PyExc_TimeoutError, "no batch within the timeout");
        return NULL;
    }
    return py_fail(state, SCIO_ECANCEL, "the loader was cancelled");
}

static PyObject *
stats_dict(const scio_loader_stats *s)
{
    return Py_BuildValue("{sL sL sL sd sd sd sd sd sL sL sL sL sL sL sL}", "cells",
                         (long long)s->cells, "batches", (long long)s->batches, "skipped_cells",
                         (long long)s->skipped_cells, "seconds", s->seconds, "seconds_wait",
                         s->seconds_wait, "seconds_decode", s->seconds_decode, "seconds_gather",
                         s->seconds_gather, "seconds_collate", s->seconds_collate, "nbytes_read",
                         (long long)s->nbytes_read, "chunks_decoded", (long long)s->chunks_decoded,
                         "chunks_total", (long long)s->chunks_total, "n_windows",
                         (long long)s->n_windows, "n_blocks", (long long)s->n_blocks, "peak_nbytes",
                         (long long)s->peak_nbytes, "cap_nbytes", (long long)s->cap_nbytes);
}

static PyObject *
loader_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_loader *const self = (py_loader *)op;

    if (py_check_pid(self->pid, "scio._core.Loader") < 0)
        return NULL;
    if (self->loader != NULL)
        scio_loader_stats_read(self->loader, &self->last_stats);
    return stats_dict(&self->last_stats);
}

static PyObject *
loader_plan(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_loader *const self = (py_loader *)op;
    scio_buf *cells = NULL, *offsets = NULL;
    scio_error err = SCIO_ERROR_INIT;
    PyObject *first, *second, *result;
    scio_loader *const loader = enter(self);
    scio_status status;

    if (loader == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_loader_plan_cells(loader, &cells, &offsets, &err);
    Py_END_ALLOW_THREADS;
    leave(self);
    if (status != SCIO_OK)
        return py_raise(py_state_of(op), &err);
    first = py_array_1d(cells, SCIO_I64, (int64_t)(scio_buf_nbytes(cells) / sizeof(int64_t)));
    second = py_array_1d(offsets, SCIO_I64, (int64_t)(scio_buf_nbytes(offsets) / sizeof(int64_t)));
    result = first == NULL || second == NULL ? NULL : PyTuple_Pack(2, first, second);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return result;
}

/* What is attached must be there before the first job runs. */
static PyObject *
loader_attach(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_loader *const self = (py_loader *)op;
    const py_state *const state = py_state_of(op);
    PyObject *compact = NULL, *sink = NULL;
    const py_param params[] = {
        {.name = "compact", .kind = PY_OBJECT, .is_optional = true, .out = &compact},
        {.name = "sink", .kind = PY_OBJECT, .is_optional = true, .out = &sink},
    };
    scio_error err = SCIO_ERROR_INIT;
    scio_loader *loader;

    if (py_parse(state, "attach", params, PY_N_PARAMS(params), 0, args, n_args, kwnames) < 0)
        return NULL;
    if (is_there(compact) && !Py_IS_TYPE(compact, state->compact_type))
        return py_fail(state, SCIO_ETYPE, "compact is %s, expected scio._core.Compact or None",
                       Py_TYPE(compact)->tp_name);
    if (is_there(sink) && !Py_IS_TYPE(sink, state->sink_type))
        return py_fail(state, SCIO_ETYPE, "sink is %s, expected scio._core.Sink or None",
                       Py_TYPE(sink)->tp_name);
    if (self->is_used)
        return py_fail(state, SCIO_EINVAL, "attach comes before the first batch is asked for");
    loader = enter(self);
    if (loader == NULL)
        return NULL;
    const scio_status status =
        scio_loader_attach(loader, is_there(compact) ? ((py_compact *)compact)->compact : NULL,
                           is_there(sink) ? ((py_sink *)sink)->sink : NULL, &err);
    leave(self);
    if (status != SCIO_OK)
        return py_raise(state, &err);
    Py_RETURN_NONE;
}

static PyObject *
loader_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_loader *const self = (py_loader *)op;

    if (py_check_pid(self->pid, "scio._core.Loader") < 0)
        return NULL;
    if (self->loader != NULL)
        scio_loader_cancel(self->loader);
    Py_RETURN_NONE;
}

static PyObject *
loader_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    loader_clear(op);
    Py_RETURN_NONE;
}

static PyObject *
loader_get_n_batches(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((py_loader *)op)->n_batches);
}

/* The closure says which of the three numbers. */
static PyObject *
loader_get_keep(PyObject *op, void *closure)
{
    const scio_loader_keep *const keep = &((py_loader *)op)->keep;
    const uint64_t numbers[] = {keep->nbytes, keep->least_nbytes, keep->most_nbytes};

    return PyLong_FromUnsignedLongLong(numbers[(uintptr_t)closure]);
}

/* --- the type */

static PyMethodDef loader_methods[] = {
    {"next", PY_METHOD(loader_next), METH_FASTCALL | METH_KEYWORDS,
     "next($self, *, timeout=None)\n--\n\n"
     "Return the next batch, None at the end; waits without the GIL, Ctrl-C within 100 ms."},
    {"stats", loader_stats, METH_NOARGS,
     "stats($self)\n--\n\nReturn counters and times; those of the end once closed."},
    {"plan", loader_plan, METH_NOARGS,
     "plan($self)\n--\n\n"
     "Return (cells, offsets): global ids of every batch, without reading data."},
    {"attach", PY_METHOD(loader_attach), METH_FASTCALL | METH_KEYWORDS,
     "attach($self, *, compact=None, sink=None)\n--\n\nPut every decoded row there too."},
    {"cancel", loader_cancel, METH_NOARGS,
     "cancel($self)\n--\n\nStop: `next` raises LoaderCancelled from now on."},
    {"close", loader_close, METH_NOARGS,
     "close($self)\n--\n\nStop, wait for running jobs and free; may be called twice."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef loader_members[] = {
    {"n_batches", loader_get_n_batches, NULL, "Batches of the epoch for this rank.", NULL},
    {"keep_nbytes", loader_get_keep, NULL, "Bytes left for a Compact; 0: it cannot fit.",
     (void *)(uintptr_t)0},
    {"keep_least_nbytes", loader_get_keep, NULL, "Least bytes of a Compact of all cells.",
     (void *)(uintptr_t)1},
    {"keep_most_nbytes", loader_get_keep, NULL, "Most bytes of a Compact of all cells.",
     (void *)(uintptr_t)2},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot loader_slots[] = {
    {Py_tp_doc,
     (void *)(uintptr_t) "Loader(matrices, maps, /, *, cells, form, n_ids, first_id, library_size, "
                         "target_sum, log1p, id_mask, max_genes, select, seed, epoch, pad_id, "
                         "pad_value, batch_size, drop_last, shuffle, rank, world_size, max_memory, "
                         "block_bytes, threads, prefetch, skip_errors, first_batch, "
                         "given_cells=None, given_offsets=None, dtype=None, "
                         "index_dtype=None, cell_scale=None, keep=False, kept=0, fill=False, "
                         "extras=None, extra_is_layer=None, resident=None, mapped=None, "
                         "mapped_cells=None)\n--\n\n"
                         "One epoch of batches, in order; `close` or dropping it stops everything."
                         "\n\nOne thread at a time takes batches; cancel and close from any."},
    PY_SLOT(Py_tp_new, loader_new),
    PY_SLOT(Py_tp_dealloc, loader_dealloc),
    PY_SLOT(Py_tp_traverse, loader_traverse),
    PY_SLOT(Py_tp_clear, loader_clear),
    {Py_tp_methods, loader_methods},
    {Py_tp_getset, loader_members},
    {0, NULL},
};

static PyType_Spec loader_spec = {
    .name = "scio._core.Loader",
    .basicsize = sizeof(py_loader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loader_slots,
};

int
py_loader_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &loader_spec, &state->loader_type);
}
