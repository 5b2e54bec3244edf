/* collate: cells of several matrices into one batch, and what the Loader parses in the same way.
 *
 * This is the batch path of map-style access (a sampler hands over cells); the Loader's own threads
 * do the same work in load/. */
#include "py/py.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

/* --- matrices and maps */

static int
check_map(const py_state *state, const py_view *map, size_t i_matrix, const scio_matrix *matrix,
          int64_t n_ids)
{
    const int32_t *const ids = map->data;

    if ((int64_t)map->n_items != matrix->n_cols) {
        py_fail(state, SCIO_EINVAL, "maps[%zu] has %zu entries, the matrix %lld columns", i_matrix,
                map->n_items, (long long)matrix->n_cols);
        return -1;
    }
    for (size_t i = 0; i < map->n_items; i++) {
        if (ids[i] < -1 || ids[i] >= n_ids) {
            py_fail(state, SCIO_EINVAL, "maps[%zu][%zu] is %ld, expected -1 or an id in [0, %lld)",
                    i_matrix, i, (long)ids[i], (long long)n_ids);
            return -1;
        }
    }
    return 0;
}

static int
take_source(py_state *state, py_sources *sources, size_t i, int64_t n_ids)
{
    PyObject *const item = PyTuple_GET_ITEM(sources->matrices, (Py_ssize_t)i);
    const py_matrix *const matrix = (const py_matrix *)item;
    py_view map = {0};
    char name[40];

    snprintf(name, sizeof(name), "maps[%zu]", i);
    if (!Py_IS_TYPE(item, state->matrix_type)) {
        py_fail(state, SCIO_ETYPE, "matrices[%zu] is %s, expected scio._core.Matrix", i,
                Py_TYPE(item)->tp_name);
        return -1;
    }
    if (py_matrix_check((py_matrix *)item) < 0 ||
        py_view_from(state, PyTuple_GET_ITEM(sources->maps, (Py_ssize_t)i), name, 1, SCIO_I32,
                     &map) < 0 ||
        check_map(state, &map, i, matrix->matrix, n_ids) < 0)
        return -1;
    if (matrix->matrix->n_rows > INT64_MAX - sources->n_cells) {
        py_fail(state, SCIO_EINVAL, "the matrices have more than 2**63 cells");
        return -1;
    }
    sources->c_matrices[i] = matrix->matrix;
    sources->c_maps[i] = map.data;
    sources->n_cells += matrix->matrix->n_rows;
    sources->is_long = sources->is_long || matrix->matrix->is_in_file;
    return 0;
}

/* A tuple, so that nobody can change it while we use it without the GIL. */
static PyObject *
tuple_of(const py_state *state, PyObject *object, const char *name)
{
    if (PySequence_Check(object) && !PyUnicode_Check(object))
        return PySequence_Tuple(object);
    return py_fail(state, SCIO_ETYPE, "%s is %s, expected a sequence", name,
                   Py_TYPE(object)->tp_name);
}

static int
take_sources(py_state *state, PyObject *matrices, PyObject *maps, int64_t n_ids, py_sources *out)
{
    scio_error err = SCIO_ERROR_INIT;

    out->matrices = tuple_of(state, matrices, "matrices");
    out->maps = out->matrices == NULL ? NULL : tuple_of(state, maps, "maps");
    if (out->maps == NULL)
        return -1;
    out->n_matrices = (size_t)PyTuple_GET_SIZE(out->matrices);
    if (out->n_matrices == 0 || (size_t)PyTuple_GET_SIZE(out->maps) != out->n_matrices) {
        py_fail(state, SCIO_EINVAL, "there are %zu matrices and %zd maps, expected one map each",
                out->n_matrices, PyTuple_GET_SIZE(out->maps));
        return -1;
    }
    if (scio_mem_zalloc(out->n_matrices, sizeof(*out->c_matrices), &out->c_matrices, &err) !=
            SCIO_OK ||
        scio_mem_zalloc(out->n_matrices, sizeof(*out->c_maps), &out->c_maps, &err) != SCIO_OK) {
        py_raise(state, &err);
        return -1;
    }
    for (size_t i = 0; i < out->n_matrices; i++) {
        if (take_source(state, out, i, n_ids) < 0)
            return -1;
    }
    return 0;
}

int
py_sources_take(py_state *state, PyObject *matrices, PyObject *maps, int64_t n_ids, py_sources *out)
{
    *out = (py_sources)PY_SOURCES_INIT;
    if (take_sources(state, matrices, maps, n_ids, out) == 0)
        return 0;
    py_sources_clear(out);
    return -1;
}

void
py_sources_clear(py_sources *sources)
{
    scio_mem_free(sources->c_matrices);
    scio_mem_free((void *)(uintptr_t)sources->c_maps);
    Py_CLEAR(sources->matrices);
    Py_CLEAR(sources->maps);
    *sources = (py_sources)PY_SOURCES_INIT;
}

PyObject *
py_matrices_take(const py_state *state, PyObject *sequence, const char *name, size_t n_expected,
                 scio_matrix ***out)
{
    PyObject *tuple = tuple_of(state, sequence, name);
    scio_matrix **matrices = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (tuple == NULL)
        return NULL;
    if ((size_t)PyTuple_GET_SIZE(tuple) != n_expected) {
        py_fail(state, SCIO_EINVAL, "%s has %zd matrices, expected %zu", name,
                PyTuple_GET_SIZE(tuple), n_expected);
        goto fail;
    }
    if (scio_mem_zalloc(n_expected, sizeof(*matrices), &matrices, &err) != SCIO_OK) {
        py_raise(state, &err);
        goto fail;
    }
    for (size_t i = 0; i < n_expected; i++) {
        PyObject *const item = PyTuple_GET_ITEM(tuple, (Py_ssize_t)i);

        if (!Py_IS_TYPE(item, state->matrix_type)) {
            py_fail(state, SCIO_ETYPE, "%s[%zu] is %s, expected scio._core.Matrix", name, i,
                    Py_TYPE(item)->tp_name);
            goto fail;
        }
        if (py_matrix_check((py_matrix *)item) < 0)
            goto fail;
        matrices[i] = ((py_matrix *)item)->matrix;
    }
    *out = matrices;
    return tuple;
fail:
    scio_mem_free(matrices);
    Py_DECREF(tuple);
    return NULL;
}

/* --- the specification of a batch */

void
py_spec_params(py_spec *spec, py_param params[PY_N_SPEC_PARAMS])
{
    static const char *const forms[] = {"tokens", "dense", "csr", NULL};
    static const char *const selects[] = {"most_expressed", "random_expressed", "first", NULL};
    const py_param all[PY_N_SPEC_PARAMS] = {
        {.name = "form", .kind = PY_CHOICE, .out = &spec->form, .choices = forms},
        {.name = "n_ids", .kind = PY_INT64, .out = &spec->c.n_ids},
        {.name = "first_id", .kind = PY_INT64, .out = &spec->c.first_id},
        {.name = "library_size", .kind = PY_BOOL, .out = &spec->c.is_library_size},
        {.name = "target_sum", .kind = PY_DOUBLE, .out = &spec->c.target_sum},
        {.name = "log1p", .kind = PY_BOOL, .out = &spec->c.is_log1p},
        {.name = "id_mask",
         .kind = PY_ARRAY,
         .is_nullable = true,
         .out = &spec->id_mask,
         .rank = 1,
         .dtype = SCIO_U8},
        {.name = "max_genes", .kind = PY_INT64, .out = &spec->c.max_genes},
        {.name = "select", .kind = PY_CHOICE, .out = &spec->select, .choices = selects},
        {.name = "seed", .kind = PY_UINT64, .out = &spec->c.seed},
        {.name = "epoch", .kind = PY_UINT64, .out = &spec->c.epoch},
        {.name = "pad_id", .kind = PY_INT64, .out = &spec->c.pad_id},
        {.name = "pad_value", .kind = PY_DOUBLE, .out = &spec->pad_value},
        {.name = "dtype", .kind = PY_DTYPE, .is_optional = true, .out = &spec->c.value_dtype},
        {.name = "index_dtype", .kind = PY_DTYPE, .is_optional = true, .out = &spec->c.id_dtype},
        {.name = "cell_scale",
         .kind = PY_ARRAY,
         .is_optional = true,
         .is_nullable = true,
         .out = &spec->cell_scale,
         .rank = 1,
         .dtype = SCIO_F64},
    };

    memset(spec, 0, sizeof(*spec));
    memcpy(params, all, sizeof(all));
}

int
py_spec_finish(const py_state *state, py_spec *spec)
{
    scio_collate_spec *const c = &spec->c;

    c->form = (scio_form)spec->form;
    c->select = (scio_select)spec->select;
    c->pad_value = (float)spec->pad_value;
    c->id_mask = spec->id_mask.array == NULL ? NULL : spec->id_mask.data;
    c->cell_scale = spec->cell_scale.array == NULL ? NULL : spec->cell_scale.data;
    c->n_cell_scale = spec->cell_scale.n_items;
    if (c->n_ids < 0 || c->n_ids > INT32_MAX)
        py_fail(state, SCIO_EINVAL, "n_ids is %lld, expected [0, 2**31)", (long long)c->n_ids);
    else if (c->first_id < 0 || c->first_id > c->n_ids)
        py_fail(state, SCIO_EINVAL, "first_id is %lld, expected [0, %lld]", (long long)c->first_id,
                (long long)c->n_ids);
    else if (c->max_genes < 0)
        py_fail(state, SCIO_EINVAL, "max_genes is %lld, expected 0 (no limit) or more",
                (long long)c->max_genes);
    else if (c->is_library_size && !(c->target_sum > 0 && isfinite(c->target_sum)))
        py_fail(state, SCIO_EINVAL, "target_sum is %g, expected a positive number", c->target_sum);
    else if (c->cell_scale != NULL && c->is_library_size)
        py_fail(state, SCIO_EINVAL, "cell_scale and library_size exclude each other");
    else if (c->id_mask != NULL && (int64_t)spec->id_mask.n_items != c->n_ids)
        py_fail(state, SCIO_EINVAL, "id_mask has %zu entries, expected n_ids = %lld",
                spec->id_mask.n_items, (long long)c->n_ids);
    else if (c->value_dtype != SCIO_DTYPE_NONE && c->value_dtype != SCIO_F32 &&
             c->value_dtype != SCIO_F16)
        py_fail(state, SCIO_EINVAL, "dtype is %s, expected float32 or float16",
                scio_dtype_name(c->value_dtype));
    else if (c->id_dtype != SCIO_DTYPE_NONE && c->id_dtype != SCIO_I64 && c->id_dtype != SCIO_I32)
        py_fail(state, SCIO_EINVAL, "index_dtype is %s, expected int64 or int32",
                scio_dtype_name(c->id_dtype));
    else
        return 0;
    return -1;
}

/* --- the batch as a dict */

/* Puts an array over *buf (taken; None when there is none) under `key`; rank 1 ignores n_cols. */
static int
put_array(PyObject *dict, const char *key, scio_buf **buf, scio_dtype dtype, int rank,
          int64_t n_rows, int64_t n_cols)
{
    const npy_intp dims[2] = {(npy_intp)n_rows, (npy_intp)n_cols};
    scio_buf *const taken = *buf;

    *buf = NULL;
    return py_put(dict, key,
                  taken == NULL ? Py_NewRef(Py_None) : py_array_from_buf(taken, dtype, rank, dims));
}

static int
put_form(PyObject *dict, scio_batch *b)
{
    switch (b->form) {
    case SCIO_FORM_TOKENS:
        if (put_array(dict, "expression", &b->expression, b->value_dtype, 2, b->n_cells, b->width) <
                0 ||
            put_array(dict, "gene_indices", &b->gene_indices, b->id_dtype, 2, b->n_cells,
                      b->width) < 0 ||
            put_array(dict, "attention_mask", &b->attention_mask, b->id_dtype, 2, b->n_cells,
                      b->width) < 0)
            return -1;
        return put_array(dict, "n_genes", &b->n_genes, SCIO_I64, 1, b->n_cells, 0);
    case SCIO_FORM_DENSE:
        return put_array(dict, "expression", &b->expression, b->value_dtype, 2, b->n_cells,
                         b->width);
    case SCIO_FORM_CSR:
        if (put_array(dict, "data", &b->expression, b->value_dtype, 1, b->nnz, 0) < 0 ||
            put_array(dict, "indices", &b->gene_indices, SCIO_I32, 1, b->nnz, 0) < 0 ||
            put_array(dict, "indptr", &b->indptr, SCIO_I64, 1, b->n_cells + 1, 0) < 0)
            return -1;
        return py_put(dict, "shape",
                      Py_BuildValue("(LL)", (long long)b->n_cells, (long long)b->width));
    }
    return 0;
}

/* A layer or an embedding: an array, or the three of a CSR as a dict. */
static PyObject *
extra_object(scio_batch_extra *extra, int64_t n_cells)
{
    const npy_intp dims[2] = {(npy_intp)n_cells, (npy_intp)extra->width};
    scio_buf *const values = extra->values;
    PyObject *dict;

    if (extra->indptr == NULL) {
        extra->values = NULL;
        return py_array_from_buf(values, extra->value_dtype, 2, dims);
    }
    dict = PyDict_New();
    if (dict != NULL &&
        (put_array(dict, "data", &extra->values, extra->value_dtype, 1, extra->nnz, 0) < 0 ||
         put_array(dict, "indices", &extra->indices, SCIO_I32, 1, extra->nnz, 0) < 0 ||
         put_array(dict, "indptr", &extra->indptr, SCIO_I64, 1, n_cells + 1, 0) < 0))
        Py_CLEAR(dict);
    return dict;
}

/* A tuple, in the order of the loader's tracks; empty when there are none. */
static PyObject *
extras_tuple(scio_batch *batch)
{
    PyObject *const tuple = PyTuple_New((Py_ssize_t)batch->n_extras);

    for (size_t k = 0; tuple != NULL && k < batch->n_extras; k++) {
        PyObject *const item = extra_object(&batch->extras[k], batch->n_cells);
        if (item == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)k, item);
    }
    return tuple;
}

PyObject *
py_batch_dict(scio_batch *batch)
{
    static const char *const forms[] = {"tokens", "dense", "csr"};
    PyObject *dict = PyDict_New();

    if (!batch->is_padding_any) {
        scio_buf_release(batch->is_padding);
        batch->is_padding = NULL;
    }
    if (dict != NULL &&
        (py_put(dict, "form", py_text(forms[batch->form])) < 0 ||
         py_put(dict, "n_cells", PyLong_FromLongLong(batch->n_cells)) < 0 ||
         py_put(dict, "width", PyLong_FromLongLong(batch->width)) < 0 ||
         put_array(dict, "index", &batch->index, SCIO_I64, 1, batch->n_cells, 0) < 0 ||
         put_array(dict, "is_padding", &batch->is_padding, SCIO_BOOL, 1, batch->n_cells, 0) < 0 ||
         put_form(dict, batch) < 0 ||
         (batch->n_extras > 0 && py_put(dict, "extras", extras_tuple(batch)) < 0)))
        Py_CLEAR(dict);
    scio_batch_clear(batch);
    return dict;
}

/* --- collate: the core side, which knows nothing of Python */

typedef struct collate_call {
    const py_sources *sources;
    const scio_collate_spec *spec;
    const int64_t *cells;
    size_t n_cells, n_threads;
    scio_batch batch;
} collate_call;

/* The cells of one matrix within the batch. */
typedef struct cell_group {
    int64_t first_cell; /* global id of its row 0 */
    size_t start, n;    /* its part of `local` */
    scio_map_kind map_kind;
    scio_csr csr;
} cell_group;

/* The matrix of a global cell: the last group that does not begin behind it. */
static size_t
group_of(const cell_group *groups, size_t n_groups, int64_t cell)
{
    size_t low = 0, high = n_groups;

    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;

        if (groups[middle].first_cell <= cell)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Sorts the cells by matrix: local[groups[g].start + k] is a row of matrix g; where[i] is the place
 * of cell i in `local`. */
static scio_status
group_cells(const collate_call *call, cell_group *groups, int64_t *local, size_t *where,
            scio_error *err)
{
    const py_sources *const sources = call->sources;
    const size_t n_groups = sources->n_matrices;
    int64_t first_cell = 0;

    for (size_t g = 0; g < n_groups; g++) {
        groups[g].first_cell = first_cell;
        first_cell += sources->c_matrices[g]->n_rows;
    }
    for (size_t i = 0; i < call->n_cells; i++) {
        if (call->cells[i] < 0 || call->cells[i] >= sources->n_cells)
            return scio_fail(err, SCIO_ERANGE, "cells[%zu] is %lld, the matrices have %lld cells",
                             i, (long long)call->cells[i], (long long)sources->n_cells);
        groups[group_of(groups, n_groups, call->cells[i])].n++;
    }
    for (size_t g = 1; g < n_groups; g++)
        groups[g].start = groups[g - 1].start + groups[g - 1].n;
    for (size_t g = 0; g < n_groups; g++)
        groups[g].n = 0;
    for (size_t i = 0; i < call->n_cells; i++) {
        cell_group *const group = &groups[group_of(groups, n_groups, call->cells[i])];

        where[i] = group->start + group->n++;
        local[where[i]] = call->cells[i] - group->first_cell;
    }
    return SCIO_OK;
}

static scio_status
read_groups(const collate_call *call, cell_group *groups, const int64_t *local,
            const volatile int *cancel, scio_error *err)
{
    scio_status status;

    for (size_t g = 0; g < call->sources->n_matrices; g++) {
        scio_matrix *const matrix = call->sources->c_matrices[g];

        if (groups[g].n == 0)
            continue;
        groups[g].map_kind = scio_gene_map_kind(call->sources->c_maps[g], matrix->n_cols);
        status = scio_matrix_take(matrix, local + groups[g].start, groups[g].n, SCIO_DTYPE_NONE,
                                  call->n_threads, cancel, &groups[g].csr, err);
        if (status != SCIO_OK) {
            if (err != NULL && strstr(err->message, matrix->name) == NULL)
                scio_context(err, "%s", matrix->name);
            return status;
        }
    }
    return SCIO_OK;
}

static void
make_rows(const collate_call *call, const cell_group *groups, const size_t *where, scio_row *rows)
{
    for (size_t i = 0; i < call->n_cells; i++) {
        const size_t g = group_of(groups, call->sources->n_matrices, call->cells[i]);
        const scio_csr *const csr = &groups[g].csr;
        const size_t i_row = where[i] - groups[g].start;
        const int64_t *const indptr = scio_buf_data(csr->indptr);
        const char *const indices = scio_buf_data(csr->indices);
        const char *const values = scio_buf_data(csr->data);
        const size_t begin = (size_t)indptr[i_row];

        rows[i] = (scio_row){
            .indices = indices + begin * scio_dtype_itemsize(csr->index_dtype),
            .index_dtype = csr->index_dtype,
            .values = values + begin * scio_dtype_itemsize(csr->data_dtype),
            .value_dtype = csr->data_dtype,
            .n_items = (size_t)indptr[i_row + 1] - begin,
            .cell = call->cells[i],
        };
        scio_row_set_map(&rows[i], call->sources->c_maps[g], groups[g].map_kind);
    }
}

static scio_status
run_collate(void *context, const volatile int *cancel, scio_error *err)
{
    collate_call *const call = context;
    const size_t n_groups = call->sources->n_matrices;
    scio_collate_scratch *scratch = NULL;
    cell_group *groups = NULL;
    int64_t *local = NULL;
    size_t *where = NULL;
    scio_row *rows = NULL;
    scio_status status;

    status = scio_mem_zalloc(n_groups, sizeof(*groups), &groups, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(call->n_cells, sizeof(*local), &local, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(call->n_cells, sizeof(*where), &where, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(call->n_cells, sizeof(*rows), &rows, err);
    if (status == SCIO_OK)
        status = scio_collate_scratch_new(&scratch, err);
    if (status == SCIO_OK)
        status = group_cells(call, groups, local, where, err);
    if (status == SCIO_OK)
        status = read_groups(call, groups, local, cancel, err);
    if (status != SCIO_OK)
        goto done;
    make_rows(call, groups, where, rows);
    status = scio_collate(call->spec, rows, call->n_cells, scratch, &call->batch, err);
done:
    for (size_t g = 0; groups != NULL && g < n_groups; g++)
        scio_csr_clear(&groups[g].csr);
    scio_collate_scratch_free(scratch);
    scio_mem_free(groups);
    scio_mem_free(local);
    scio_mem_free(where);
    scio_mem_free(rows);
    return status;
}

static PyObject *
collate(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    py_state *const state = py_state_of_module(module);
    PyObject *matrices = NULL, *maps = NULL;
    py_view cells = {0};
    py_spec spec;
    py_sources sources;
    collate_call call = {.sources = &sources, .spec = &spec.c, .n_threads = SIZE_MAX};
    py_param params[4 + PY_N_SPEC_PARAMS] = {
        {.name = "matrices", .kind = PY_OBJECT, .out = &matrices},
        {.name = "maps", .kind = PY_OBJECT, .out = &maps},
        {.name = "cells", .kind = PY_ARRAY, .out = &cells, .rank = 1, .dtype = SCIO_I64},
        {.name = "threads", .kind = PY_THREADS, .is_optional = true, .out = &call.n_threads}};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    py_spec_params(&spec, params + 4);
    if (py_parse(state, "collate", params, PY_N_PARAMS(params), 3, args, n_args, kwnames) < 0 ||
        py_spec_finish(state, &spec) < 0 ||
        py_sources_take(state, matrices, maps, spec.c.n_ids, &sources) < 0)
        return NULL;
    call.cells = cells.data;
    call.n_cells = cells.n_items;
    status = py_call(run_collate, &call, sources.is_long && cells.n_items > PY_SHORT_N_ROWS, &err);
    py_sources_clear(&sources);
    if (status == SCIO_OK)
        return py_batch_dict(&call.batch);
    scio_batch_clear(&call.batch);
    return py_raise(state, &err);
}

PyMethodDef py_collate_methods[] = {
    {"collate", PY_METHOD(collate), METH_FASTCALL | METH_KEYWORDS,
     "collate($module, matrices, maps, cells, /, *, form, n_ids, first_id, library_size, "
     "target_sum, log1p, id_mask, max_genes, select, seed, epoch, pad_id, pad_value, "
     "dtype=None, index_dtype=None, cell_scale=None, threads=-1)\n--\n\n"
     "Read the cells (global ids over the matrices) and collate them into one batch."},
    {NULL, NULL, 0, NULL},
};
