/* scio._core.GeneStats: the tables of one pass, and functions over its exact sums. */
#include "py/py.h"

#include "base/mem.h"
#include "preprocess/gene_stats.h"

#include <string.h>

typedef struct py_stats {
    PyObject_HEAD
    scio_gene_stats *stats;
    scio_stats_spec spec;
    PyObject *flags, *tops; /* arrays that the spec points into; NULL without */
    bool is_busy;           /* guarded by the GIL: a call is at work without it */
} py_stats;

static py_stats *
get(PyObject *op)
{
    return (py_stats *)op;
}

/* Completes the spec by the arrays that it points into, which the object keeps. */
static PyObject *
make(PyTypeObject *type, const py_state *state, scio_stats_spec *spec, const py_view *flags,
     int64_t n_flags, const py_view *tops)
{
    scio_error err = SCIO_ERROR_INIT;
    py_stats *self;

    if (n_flags < 0 || (n_flags > 0 && (int64_t)flags->n_items != spec->n_genes))
        return py_fail(state, SCIO_EINVAL,
                       "flags has %zu entries, expected one for each gene, %lld", flags->n_items,
                       (long long)spec->n_genes);
    spec->flags = flags->data;
    spec->n_flags = (size_t)n_flags;
    spec->tops = tops->data;
    spec->n_tops = tops->n_items;
    self = (py_stats *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->spec = *spec;
    self->flags = Py_XNewRef(flags->array);
    self->tops = Py_XNewRef(tops->array);
    if (scio_gene_stats_new(spec, &self->stats, &err) == SCIO_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    return py_raise(state, &err);
}

static PyObject *
stats_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const transforms[] = {"none", "expm1", NULL};
    py_state *const state = PyType_GetModuleState(type);
    scio_stats_spec spec = {.n_batches = 1, .factor = 1, .max_value_nbytes = (size_t)256 << 20};
    int64_t shape[2] = {0, 1}, n_flags = 0;
    uint64_t max_value_nbytes = (uint64_t)256 << 20;
    int transform = 0;
    py_view flags = {0}, tops = {0};
    const py_param params[] = {
        {.name = "n_genes", .kind = PY_INT64, .out = &shape[0]},
        {.name = "n_batches", .kind = PY_INT64, .out = &shape[1]},
        {.name = "scaled", .kind = PY_BOOL, .is_optional = true, .out = &spec.wants_scaled},
        {.name = "target_sum", .kind = PY_DOUBLE, .is_optional = true, .out = &spec.target_sum},
        {.name = "transform",
         .kind = PY_CHOICE,
         .is_optional = true,
         .out = &transform,
         .choices = transforms},
        {.name = "factor", .kind = PY_DOUBLE, .is_optional = true, .out = &spec.factor},
        {.name = "flags",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &flags,
         .rank = 1,
         .dtype = SCIO_U64},
        {.name = "n_flags", .kind = PY_INT64, .is_optional = true, .out = &n_flags},
        {.name = "tops",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &tops,
         .rank = 1,
         .dtype = SCIO_I64},
        {.name = "max_value_nbytes",
         .kind = PY_UINT64,
         .is_optional = true,
         .out = &max_value_nbytes},
    };

    if (py_parse_tuple(state, "GeneStats", params, PY_N_PARAMS(params), 2, args, kwargs) < 0)
        return NULL;
    spec.n_genes = shape[0];
    spec.n_batches = shape[1];
    spec.transform = (scio_transform)transform;
    spec.max_value_nbytes = (size_t)max_value_nbytes;
    return make(type, state, &spec, &flags, n_flags, &tops);
}

static void
stats_dealloc(PyObject *op)
{
    PyTypeObject *const type = Py_TYPE(op);

    scio_gene_stats_free(get(op)->stats);
    Py_CLEAR(get(op)->flags);
    Py_CLEAR(get(op)->tops);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Two calls at a time would share the tables. */
static int
check_idle(PyObject *op)
{
    if (!get(op)->is_busy)
        return 0;
    py_fail(py_state_of(op), SCIO_EINVAL, "GeneStats is in use by another thread");
    return -1;
}

/* --- adding rows --- */

typedef struct add_call {
    scio_gene_stats *stats;
    scio_csr_view rows;
    const int32_t *batches;
    scio_stats_cells cells;
    size_t max_parallel;
} add_call;

static scio_status
run_add(void *context, const volatile int *cancel, scio_error *err)
{
    const add_call *const call = context;

    SCIO_TRY(scio_csr_validate(&call->rows, SCIO_CHECK_STRUCTURE, NULL, err));
    return scio_gene_stats_add(call->stats, &call->rows, call->batches, &call->cells,
                               call->max_parallel, cancel, err);
}

enum { TOTALS, N_DETECTED, TOP_SUMS, FLAG_SUMS, N_CELL_ARRAYS };

/* Buffers for n_rows rows of width[i] entries of 8 bytes each; none where the width is 0. */
static scio_status
make_cells(const py_stats *self, int64_t n_rows, scio_buf **bufs, scio_stats_cells *out,
           scio_error *err)
{
    const size_t widths[N_CELL_ARRAYS] = {1, 1, self->spec.n_tops, self->spec.n_flags};

    for (size_t i = 0; i < N_CELL_ARRAYS; i++) {
        size_t n_items;

        if (!scio_mul_size((size_t)n_rows, widths[i] * sizeof(double), &n_items))
            return scio_fail(err, SCIO_ENOMEM, "results of %lld cells", (long long)n_rows);
        if (widths[i] > 0)
            SCIO_TRY(scio_buf_new(n_items, &bufs[i], err));
    }
    out->totals = scio_buf_data(bufs[TOTALS]);
    out->n_detected = scio_buf_data(bufs[N_DETECTED]);
    out->top_sums = scio_buf_data(bufs[TOP_SUMS]);
    out->flag_sums = scio_buf_data(bufs[FLAG_SUMS]);
    return SCIO_OK;
}

/* (totals, n_detected, top_sums or None, flag_sums or None); takes the buffers. */
static PyObject *
wrap_cells(const py_stats *self, int64_t n_rows, scio_buf **bufs)
{
    const npy_intp tops[2] = {(npy_intp)n_rows, (npy_intp)self->spec.n_tops};
    const npy_intp flags[2] = {(npy_intp)n_rows, (npy_intp)self->spec.n_flags};
    PyObject *const totals = py_array_1d(bufs[TOTALS], SCIO_F64, n_rows);
    PyObject *const n_detected = py_array_1d(bufs[N_DETECTED], SCIO_I64, n_rows);
    PyObject *const top_sums = bufs[TOP_SUMS] == NULL
                                   ? Py_NewRef(Py_None)
                                   : py_array_from_buf(bufs[TOP_SUMS], SCIO_F64, 2, tops);
    PyObject *const flag_sums = bufs[FLAG_SUMS] == NULL
                                    ? Py_NewRef(Py_None)
                                    : py_array_from_buf(bufs[FLAG_SUMS], SCIO_F64, 2, flags);
    PyObject *result = NULL;

    if (totals != NULL && n_detected != NULL && top_sums != NULL && flag_sums != NULL)
        result = PyTuple_Pack(4, totals, n_detected, top_sums, flag_sums);
    Py_XDECREF(totals);
    Py_XDECREF(n_detected);
    Py_XDECREF(top_sums);
    Py_XDECREF(flag_sums);
    return result;
}

static PyObject *
stats_add(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const py_state *const state = py_state_of(op);
    py_stats *const self = get(op);
    py_view data = {0}, indices = {0}, indptr = {0}, batches = {0};
    add_call call = {.stats = self->stats, .max_parallel = SIZE_MAX};
    const py_param params[] = {
        {.name = "data", .kind = PY_ARRAY, .out = &data, .rank = 1},
        {.name = "indices", .kind = PY_ARRAY, .out = &indices, .rank = 1},
        {.name = "indptr", .kind = PY_ARRAY, .out = &indptr, .rank = 1, .dtype = SCIO_I64},
        {.name = "batches",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &batches,
         .rank = 1,
         .dtype = SCIO_I32},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.max_parallel}};
    scio_buf *bufs[N_CELL_ARRAYS] = {NULL};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    int64_t shape[2];

    if (py_parse(state, "add", params, PY_N_PARAMS(params), 3, args, n_args, kwnames) < 0 ||
        check_idle(op) < 0)
        return NULL;
    shape[0] = (int64_t)indptr.n_items - 1;
    shape[1] = self->spec.n_genes;
    if (py_csr_view_from(state, &data, &indices, &indptr, shape, &call.rows) < 0)
        return NULL;
    if (batches.array != NULL && (int64_t)batches.n_items != shape[0])
        return py_fail(state, SCIO_EINVAL, "batches has %zu entries, the rows are %lld",
                       batches.n_items, (long long)shape[0]);
    call.batches = batches.data;
    self->is_busy = true;
    status = make_cells(self, shape[0], bufs, &call.cells, &err);
    if (status == SCIO_OK)
        status = py_call(run_add, &call, data.n_items * sizeof(double) > PY_SHORT_NBYTES, &err);
    self->is_busy = false;
    if (status == SCIO_OK)
        return wrap_cells(self, shape[0], bufs);
    for (size_t i = 0; i < N_CELL_ARRAYS; i++)
        scio_buf_release(bufs[i]);
    return py_raise(state, &err);
}

/* --- results --- */

static PyObject *
example_tuple(const scio_stats_example *example)
{
    if (example->row < 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(LLd)", (long long)example->row, (long long)example->gene,
                         example->value);
}

static PyObject *
stats_facts(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const scio_stats_facts *facts;

    if (check_idle(op) < 0)
        return NULL;
    facts = scio_gene_stats_facts(get(op)->stats);
    return Py_BuildValue(
        "{s:L,s:L,s:L,s:L,s:L,s:N,s:N,s:N}", "n_rows", (long long)facts->n_rows, "n_nonzero",
        (long long)facts->n_nonzero, "n_fractional", (long long)facts->n_fractional, "n_negative",
        (long long)facts->n_negative, "n_not_finite", (long long)facts->n_not_finite, "fractional",
        example_tuple(&facts->fractional), "negative", example_tuple(&facts->negative),
        "not_finite", example_tuple(&facts->not_finite));
}

/* Puts a copy of `items` (NULL: None) of this shape into the dict. */
static int
put_copy(const py_state *state, PyObject *dict, const char *key, const void *items,
         scio_dtype dtype, int rank, const npy_intp *dims)
{
    size_t n_items = scio_dtype_itemsize(dtype);
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;

    if (items == NULL)
        return py_put(dict, key, Py_NewRef(Py_None));
    for (int i = 0; i < rank; i++)
        n_items *= (size_t)dims[i];
    if (scio_buf_new(n_items, &buf, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    if (n_items > 0)
        memcpy(scio_buf_data(buf), items, n_items);
    return py_put(dict, key, py_array_from_buf(buf, dtype, rank, dims));
}

static int
put_exact(const py_state *state, PyObject *dict, const scio_gene_stats *stats, const npy_intp *dims)
{
    const size_t n = (size_t)(dims[0] * dims[1]);
    const npy_intp halves[3] = {dims[0], dims[1], 2};
    scio_buf *bufs[4] = {NULL};
    const size_t widths[4] = {1, 1, 2, 2};
    scio_error err = SCIO_ERROR_INIT;

    for (size_t i = 0; i < 4; i++) {
        if (scio_buf_new(n * widths[i] * sizeof(uint64_t), &bufs[i], &err) != SCIO_OK) {
            for (size_t j = 0; j < i; j++)
                scio_buf_release(bufs[j]);
            py_raise(state, &err);
            return -1;
        }
    }
    Py_BEGIN_ALLOW_THREADS;
    scio_gene_stats_exact(stats, scio_buf_data(bufs[0]), scio_buf_data(bufs[1]),
                          scio_buf_data(bufs[2]), scio_buf_data(bufs[3]));
    Py_END_ALLOW_THREADS;
    /* each takes its buffer; an exception of one stays set */
    const int results[] = {
        py_put(dict, "exact_n_positive", py_array_from_buf(bufs[0], SCIO_I64, 2, dims)),
        py_put(dict, "exact_maximum", py_array_from_buf(bufs[1], SCIO_F64, 2, dims)),
        py_put(dict, "exact_sums", py_array_from_buf(bufs[2], SCIO_U64, 3, halves)),
        py_put(dict, "exact_squares", py_array_from_buf(bufs[3], SCIO_U64, 3, halves))};
    return results[0] | results[1] | results[2] | results[3];
}

static PyObject *
stats_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const py_state *const state = py_state_of(op);
    py_stats *const self = get(op);
    const npy_intp dims[2] = {(npy_intp)self->spec.n_batches, (npy_intp)self->spec.n_genes};
    scio_stats_result r;
    PyObject *dict;

    if (check_idle(op) < 0)
        return NULL;
    scio_gene_stats_result(self->stats, &r);
    dict = PyDict_New();
    if (dict == NULL)
        return NULL;
    const struct {
        const char *key;
        const void *items;
        scio_dtype dtype;
        int rank;
    } arrays[] = {
        {"n_exact", r.n_exact, SCIO_I64, 1},
        {"n_inexact", r.n_inexact, SCIO_I64, 1},
        {"mean", r.mean, SCIO_F64, 2},
        {"m2", r.m2, SCIO_F64, 2},
        {"sum", r.sum, SCIO_F64, 2},
        {"maximum", r.maximum, SCIO_F64, 2},
        {"n_nonzero", r.n_nonzero, SCIO_I64, 2},
        {"n_positive", r.n_positive, SCIO_I64, 2},
        {"is_fractional", r.is_fractional, SCIO_BOOL, 2},
        {"scaled_mean", r.scaled_mean, SCIO_F64, 2},
        {"scaled_m2", r.scaled_m2, SCIO_F64, 2},
        {"log_mean", r.log_mean, SCIO_F64, 2},
        {"log_m2", r.log_m2, SCIO_F64, 2},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (put_copy(state, dict, arrays[i].key, arrays[i].items, arrays[i].dtype, arrays[i].rank,
                     dims) < 0)
            goto fail;
    }
    if (put_exact(state, dict, self->stats, dims) < 0)
        goto fail;
    return dict;
fail:
    Py_DECREF(dict);
    return NULL;
}

static PyObject *
stats_values(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const py_state *const state = py_state_of(op);
    py_stats *const self = get(op);
    const int64_t n_places = self->spec.n_genes * self->spec.n_batches;
    scio_buf *bufs[3] = {NULL};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    int64_t n_values;

    if (check_idle(op) < 0)
        return NULL;
    n_values = scio_gene_stats_n_values(self->stats);
    if (n_values < 0)
        Py_RETURN_NONE;
    status = scio_buf_new(((size_t)n_places + 1) * sizeof(int64_t), &bufs[0], &err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)n_values * sizeof(uint64_t), &bufs[1], &err);
    if (status == SCIO_OK)
        status = scio_buf_new((size_t)n_values * sizeof(int64_t), &bufs[2], &err);
    if (status == SCIO_OK) {
        self->is_busy = true;
        Py_BEGIN_ALLOW_THREADS;
        status = scio_gene_stats_values(self->stats, scio_buf_data(bufs[0]), scio_buf_data(bufs[1]),
                                        scio_buf_data(bufs[2]), &err);
        Py_END_ALLOW_THREADS;
        self->is_busy = false;
    }
    if (status != SCIO_OK) {
        for (size_t i = 0; i < 3; i++)
            scio_buf_release(bufs[i]);
        return py_raise(state, &err);
    }
    return Py_BuildValue("(NNN)", py_array_1d(bufs[0], SCIO_I64, n_places + 1),
                         py_array_1d(bufs[1], SCIO_U64, n_values),
                         py_array_1d(bufs[2], SCIO_I64, n_values));
}

/* --- over exact sums --- */

static scio_u128
load(const uint64_t *halves)
{
    return (scio_u128)halves[1] << 64 | halves[0];
}

/* out[4][n]: sum, mean, m2, variance of the n = n_batches * n_genes places. */
static void
fill_moments(const py_view *n_rows, const py_view *sums, const py_view *squares, double *out)
{
    const size_t n = sums->n_items / 2, n_genes = (size_t)sums->dims[1];
    const uint64_t *const s = sums->data, *const q = squares->data;
    const int64_t *const counts = n_rows->data;

    for (size_t i = 0; i < n; i++) {
        const int64_t count = counts[i / n_genes];

        out[i] = scio_u128_to_double(load(s + 2 * i));
        scio_exact_moments(count < 0 ? 0 : (uint64_t)count, load(s + 2 * i), load(q + 2 * i),
                           &out[n + i], &out[2 * n + i], &out[3 * n + i]);
    }
}

static PyObject *
exact_moments(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    py_view n_rows = {0}, sums = {0}, squares = {0};
    const py_param params[] = {
        {.name = "n_rows", .kind = PY_ARRAY, .out = &n_rows, .rank = 1, .dtype = SCIO_I64},
        {.name = "sums", .kind = PY_ARRAY, .out = &sums, .rank = 3, .dtype = SCIO_U64},
        {.name = "squares", .kind = PY_ARRAY, .out = &squares, .rank = 3, .dtype = SCIO_U64}};
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;

    if (py_parse(state, "exact_moments", params, 3, 3, args, n_args, NULL) < 0)
        return NULL;
    if (sums.dims[0] != n_rows.dims[0] || sums.dims[2] != 2 || squares.dims[2] != 2 ||
        squares.dims[0] != sums.dims[0] || squares.dims[1] != sums.dims[1])
        return py_fail(state, SCIO_EINVAL,
                       "expected sums and squares of one shape, (batches of n_rows, genes, 2)");
    const npy_intp dims[3] = {4, sums.dims[0], sums.dims[1]};

    if (scio_buf_new(2 * sums.n_items * sizeof(double), &buf, &err) != SCIO_OK)
        return py_raise(state, &err);
    Py_BEGIN_ALLOW_THREADS;
    fill_moments(&n_rows, &sums, &squares, scio_buf_data(buf));
    Py_END_ALLOW_THREADS;
    return py_array_from_buf(buf, SCIO_F64, 3, dims);
}

/* --- the type */

static PyMethodDef stats_methods[] = {
    {"add", PY_METHOD(stats_add), METH_FASTCALL | METH_KEYWORDS,
     "add($self, data, indices, indptr, /, *, batches=None, threads=-1)\n--\n\n"
     "Add the next rows; return (totals, n_detected, top_sums, flag_sums)."},
    {"facts", stats_facts, METH_NOARGS,
     "facts($self, /)\n--\n\nReturn counts of values that are no counts, and the first of each."},
    {"result", stats_result, METH_NOARGS, "result($self, /)\n--\n\nReturn the tables."},
    {"values", stats_values, METH_NOARGS,
     "values($self, /)\n--\n\n"
     "Return (indptr, values, counts) by batch and gene, None when they were given up."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot stats_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "GeneStats(n_genes, n_batches, /, *, scaled=False, "
                                    "target_sum=0.0, transform='none', factor=1.0, flags=None, "
                                    "n_flags=0, tops=None, max_value_nbytes=268435456)\n--\n\n"
                                    "Statistics of genes and cells from one pass over rows."},
    PY_SLOT(Py_tp_new, stats_new),
    PY_SLOT(Py_tp_dealloc, stats_dealloc),
    {Py_tp_methods, stats_methods},
    {0, NULL},
};

static PyType_Spec stats_spec = {
    .name = "scio._core.GeneStats",
    .basicsize = sizeof(py_stats),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = stats_slots,
};

int
py_stats_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &stats_spec, &state->stats_type);
}

PyMethodDef py_stats_methods[] = {
    {"exact_moments", PY_METHOD(exact_moments), METH_FASTCALL,
     "exact_moments($module, n_rows, sums, squares, /)\n--\n\n"
     "Return (sum, mean, m2, variance) of integers from their exact sums, shape (4, B, G)."},
    {NULL, NULL, 0, NULL},
};
