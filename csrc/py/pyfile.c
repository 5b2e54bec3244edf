/* scio._core.File: an HDF5 file whose objects are named by path.
 *
 * Thread-safe at method level: a method retains the C file, so that `close` in another thread only
 * takes away the name.  Datasets and matrices hold the C file too and outlive `close`. */
#include "py/py.h"

#include "base/source.h"
#include "h5read/object.h"

#include <string.h>
#include <unistd.h>

/* --- helpers */

/* For messages; a path that is no UTF-8 is not shown. */
static const char *
name_of(const py_file *self)
{
    const char *const name = self->name == NULL ? NULL : PyUnicode_AsUTF8(self->name);

    if (name == NULL)
        PyErr_Clear();
    return name == NULL ? "the file" : name;
}

scio_h5_file *
py_file_borrow(py_file *self)
{
    if (py_check_pid(self->pid, "scio._core.File") < 0)
        return NULL;
    if (self->file == NULL) {
        py_fail(py_state_of((PyObject *)self), SCIO_EINVAL, "%s is closed", name_of(self));
        return NULL;
    }
    return scio_h5_file_retain(self->file);
}

/* Puts `place` in front unless the message names it already. */
static void
add_place(scio_error *err, const char *place)
{
    if (place != NULL && strstr(err->message, place) == NULL)
        scio_context(err, "%s", place);
}

/* The core names a matrix by the last part of its file's path: then that says enough. */
static bool
is_named(const scio_error *err, const char *name)
{
    const char *const slash = strrchr(name, '/');
    const char *const found = strstr(err->message, slash == NULL ? name : slash + 1);

    return found != NULL && strncmp(found + strlen(slash == NULL ? name : slash + 1), ": ", 2) == 0;
}

PyObject *
py_file_raise(const py_file *self, const py_state *state, const char *path, scio_error *err)
{
    if (PyErr_Occurred())
        return NULL;
    add_place(err, path);
    if (!is_named(err, name_of(self)))
        add_place(err, name_of(self));
    return py_raise(state, err);
}

scio_status
py_file_resolve(scio_h5_file *file, const char *path, uint64_t *address_out, scio_error *err)
{
    return scio_h5_resolve(file, scio_h5_file_superblock(file)->root, path, address_out, err);
}

/* The first half of the methods that take one path: parse it, borrow the file. */
static scio_h5_file *
parse_path(PyObject *op, const char *function, PyObject *const *args, Py_ssize_t n_args,
           const char **path_out)
{
    const py_param params[] = {{.name = "path", .kind = PY_TEXT, .out = path_out}};

    if (py_parse(py_state_of(op), function, params, PY_N_PARAMS(params), 1, args, n_args, NULL) < 0)
        return NULL;
    return py_file_borrow((py_file *)op);
}

/* --- new, dealloc */

static int
file_open(py_file *self, const py_state *state, PyObject *source, bool is_salvage)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_limits limits;
    scio_status status;

    scio_h5_limits_default(&limits);
    limits.is_salvage = is_salvage;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_file_open(self->source, &limits, &self->file, &err);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK) {
        add_place(&err, scio_source_name(self->source));
        py_raise_path(state, &err, PyUnicode_Check(source) ? source : NULL);
        return -1;
    }
    self->name = py_text(scio_source_name(self->source));
    if (self->name == NULL)
        return -1;
    if (self->callback == NULL) { /* the C file holds it; `close` must be able to let it go */
        scio_source_release(self->source);
        self->source = NULL;
    }
    return 0;
}

static PyObject *
file_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    const py_state *const state = PyType_GetModuleState(type);
    PyObject *source = NULL;
    int64_t nbytes = -1;
    const char *name = "";
    bool is_salvage = false;
    const py_param params[] = {
        {.name = "source", .kind = PY_OBJECT, .out = &source},
        {.name = "nbytes", .kind = PY_INT64, .is_optional = true, .out = &nbytes},
        {.name = "name", .kind = PY_TEXT, .is_optional = true, .out = &name},
        {.name = "salvage", .kind = PY_BOOL, .is_optional = true, .out = &is_salvage},
    };
    py_file *self;

    if (py_parse_tuple(state, "File", params, PY_N_PARAMS(params), 1, args, kwargs) < 0)
        return NULL;
    self = (py_file *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->pid = getpid();
    if (py_source_open(state, source, nbytes, name, &self->source, &self->callback) < 0 ||
        file_open(self, state, source, is_salvage) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int
file_traverse(PyObject *op, visitproc visit, void *arg)
{
    py_file *const self = (py_file *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->paths);
    return self->callback == NULL ? 0 : py_callback_visit(self->callback, visit, arg);
}

static int
file_clear(PyObject *op)
{
    py_file *const self = (py_file *)op;

    Py_CLEAR(self->paths);
    if (self->callback != NULL)
        py_callback_clear(self->callback);
    return 0;
}

static void
file_dealloc(PyObject *op)
{
    py_file *const self = (py_file *)op;
    PyTypeObject *const type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    file_clear(op);
    Py_CLEAR(self->name);
    scio_h5_file_release(self->file);
    scio_source_release(self->source);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- what the file is */

static PyObject *
file_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((py_file *)op)->name);
}

static PyObject *
file_get_pid(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong((long)((py_file *)op)->pid);
}

static PyObject *
file_get_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    scio_h5_file *const file = py_file_borrow((py_file *)op);
    uint64_t nbytes;

    if (file == NULL)
        return NULL;
    nbytes = scio_source_nbytes(scio_h5_file_source(file));
    scio_h5_file_release(file);
    return PyLong_FromUnsignedLongLong(nbytes);
}

static PyObject *
file_get_identity(PyObject *op, void *Py_UNUSED(closure))
{
    scio_h5_file *const file = py_file_borrow((py_file *)op);
    uint64_t identity[3];

    if (file == NULL)
        return NULL;
    scio_source_identity(scio_h5_file_source(file), identity);
    scio_h5_file_release(file);
    return py_tuple_from_u64(identity, 3);
}

static PyObject *
file_get_superblock(PyObject *op, void *Py_UNUSED(closure))
{
    scio_h5_file *const file = py_file_borrow((py_file *)op);
    scio_h5_superblock block;

    if (file == NULL)
        return NULL;
    block = *scio_h5_file_superblock(file);
    scio_h5_file_release(file);
    return Py_BuildValue("{sI sI sI sK sK sK sI sI sI}", "version", block.version, "offset_nbytes",
                         block.offset_nbytes, "length_nbytes", block.length_nbytes, "base",
                         (unsigned long long)block.base, "end", (unsigned long long)block.end,
                         "root", (unsigned long long)block.root, "chunk_k", block.chunk_k,
                         "group_leaf_k", block.group_leaf_k, "group_internal_k",
                         block.group_internal_k);
}

static PyObject *
file_check_unchanged(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    scio_h5_file *const file = py_file_borrow((py_file *)op);
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_source_check_unchanged(scio_h5_file_source(file), &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_file_raise((py_file *)op, py_state_of(op), NULL, &err);
    Py_RETURN_NONE;
}

static PyObject *
file_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_file *const self = (py_file *)op;
    scio_h5_file *const file = self->file;

    self->file = NULL;
    Py_CLEAR(self->paths);
    Py_BEGIN_ALLOW_THREADS;
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

/* --- objects */

static PyObject *
file_address(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    const char *path;
    uint64_t address = 0;

    file = parse_path(op, "address", args, n_args, &path);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? PyLong_FromUnsignedLongLong(address)
                             : py_file_raise((py_file *)op, py_state_of(op), path, &err);
}

static PyObject *
file_kind(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    scio_h5_kind kind = SCIO_H5_KIND_UNKNOWN;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    const char *path;
    uint64_t address;

    file = parse_path(op, "kind", args, n_args, &path);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_h5_kind_get(file, address, &kind, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? py_text(py_kind_name(kind))
                             : py_file_raise((py_file *)op, py_state_of(op), path, &err);
}

static PyObject *
file_links(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    scio_h5_links links = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    const char *path;
    uint64_t address;
    PyObject *result;

    file = parse_path(op, "links", args, n_args, &path);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_h5_links_list(file, address, &links, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_file_raise((py_file *)op, py_state_of(op), path, &err);
    result = py_links_list(&links);
    scio_h5_links_clear(&links);
    return result;
}

static PyObject *
file_dataset(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    scio_h5_dataset *dataset = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    const char *path;
    uint64_t address;

    file = parse_path(op, "dataset", args, n_args, &path);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_h5_dataset_open(file, address, path, &dataset, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    return status == SCIO_OK ? py_dataset_make(py_state_of(op), (py_file *)op, dataset)
                             : py_file_raise((py_file *)op, py_state_of(op), path, &err);
}

/* --- attributes and types */

static PyObject *
file_attr_names(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    char **names = NULL;
    size_t n_names = 0;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    const char *path;
    uint64_t address;
    PyObject *list;

    file = parse_path(op, "attr_names", args, n_args, &path);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_h5_attr_names(file, address, &names, &n_names, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_file_raise((py_file *)op, py_state_of(op), path, &err);
    list = py_names_list(names, n_names);
    scio_h5_names_free(names, n_names);
    return list;
}

static PyObject *
file_attr(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    py_file *const self = (py_file *)op;
    const py_state *const state = py_state_of(op);
    const char *path, *name;
    const py_param params[] = {{.name = "path", .kind = PY_TEXT, .out = &path},
                               {.name = "name", .kind = PY_TEXT, .out = &name}};
    scio_h5_attr attr = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    uint64_t address;
    PyObject *result;

    if (py_parse(state, "attr", params, PY_N_PARAMS(params), 2, args, n_args, NULL) < 0)
        return NULL;
    file = py_file_borrow(self);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_resolve(file, path, &address, &err);
    if (status == SCIO_OK)
        status = scio_h5_attr_get(file, address, name, &attr, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_file_raise(self, state, path, &err);
    result = py_attr_tuple(state, &attr);
    scio_h5_attr_clear(&attr);
    return result;
}

static PyObject *
file_text_attr(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of(op);
    const char *path, *name;
    const py_param params[] = {{.name = "path", .kind = PY_TEXT, .out = &path},
                               {.name = "name", .kind = PY_TEXT, .out = &name}};
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_file *file;
    PyObject *result;

    if (py_parse(state, "text_attr", params, PY_N_PARAMS(params), 2, args, n_args, NULL) < 0)
        return NULL;
    file = py_file_borrow((py_file *)op);
    if (file == NULL)
        return NULL;
    result = py_file_text_attr(state, file, path, name, &err);
    scio_h5_file_release(file);
    if (result != NULL || PyErr_Occurred())
        return result;
    if (err.code != SCIO_OK)
        return py_file_raise((py_file *)op, state, path, &err);
    return py_fail(state, SCIO_ETYPE, "%s@%s is not one string", path, name);
}

static PyObject *
file_type(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    scio_h5_type *type = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    scio_h5_file *file;
    const char *path;
    PyObject *owner, *result;

    file = parse_path(op, "type", args, n_args, &path);
    if (file == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = py_file_read_type(file, path, &type, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_file_raise((py_file *)op, py_state_of(op), path, &err);
    owner = py_type_owner(type);
    if (owner == NULL)
        return NULL;
    result = py_type_describe(type, owner);
    Py_DECREF(owner);
    return result;
}

static int
check_records(const py_state *state, const scio_h5_type *type, const py_view *records)
{
    if (type->type_class != SCIO_H5_VLEN) {
        py_fail(state, SCIO_EINVAL, "type is not of variable length: there is nothing to resolve");
        return -1;
    }
    if ((uint64_t)records->dims[1] != type->itemsize) {
        py_fail(state, SCIO_EINVAL, "records has rows of %zd bytes, a record has %u",
                (Py_ssize_t)records->dims[1], (unsigned)type->itemsize);
        return -1;
    }
    return 0;
}

static PyObject *
file_vlen(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of(op);
    PyObject *description = NULL, *capsule;
    py_view records = {0};
    const py_param params[] = {
        {.name = "type", .kind = PY_OBJECT, .out = &description},
        {.name = "records", .kind = PY_ARRAY, .out = &records, .rank = 2, .dtype = SCIO_U8}};
    scio_buf *offsets = NULL, *payload = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    const scio_h5_type *type;
    scio_h5_file *file = NULL;

    if (py_parse(state, "vlen", params, PY_N_PARAMS(params), 2, args, n_args, NULL) < 0)
        return NULL;
    capsule = py_type_capsule(state, description);
    if (capsule == NULL)
        return NULL;
    type = py_type_of(capsule);
    if (check_records(state, type, &records) == 0)
        file = py_file_borrow((py_file *)op);
    if (file == NULL) {
        Py_DECREF(capsule);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    status = scio_h5_vlen_read(file, type, records.data, type->itemsize, (size_t)records.dims[0],
                               &offsets, &payload, &err);
    scio_h5_file_release(file);
    Py_END_ALLOW_THREADS;
    Py_DECREF(capsule);
    return status == SCIO_OK ? py_vlen_tuple(offsets, payload, (int64_t)records.dims[0])
                             : py_file_raise((py_file *)op, state, NULL, &err);
}

static PyObject *
file_path_of(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    py_file *const self = (py_file *)op;
    const py_state *const state = py_state_of(op);
    uint64_t address = 0;
    const py_param params[] = {{.name = "address", .kind = PY_UINT64, .out = &address}};
    scio_h5_file *file;
    PyObject *key, *path;

    if (py_parse(state, "path_of", params, PY_N_PARAMS(params), 1, args, n_args, NULL) < 0)
        return NULL;
    file = py_file_borrow(self);
    if (file == NULL)
        return NULL;
    if (self->paths == NULL)
        Py_XSETREF(self->paths, py_paths_map(state, file));
    scio_h5_file_release(file);
    if (self->paths == NULL)
        return NULL;
    key = PyLong_FromUnsignedLongLong(address);
    if (key == NULL)
        return NULL;
    path = PyDict_GetItemWithError(self->paths, key);
    Py_DECREF(key);
    if (path == NULL && PyErr_Occurred())
        return NULL;
    return Py_NewRef(path == NULL ? Py_None : path);
}

/* --- the type */

static PyMethodDef file_methods[] = {
    {"check_unchanged", file_check_unchanged, METH_NOARGS,
     "check_unchanged($self)\n--\n\n"
     "Raise IOFormatError when the path no longer is the file that was opened."},
    {"address", PY_METHOD(file_address), METH_FASTCALL,
     "address($self, path, /)\n--\n\n"
     "Return the identity of an object: equal addresses are one object."},
    {"kind", PY_METHOD(file_kind), METH_FASTCALL,
     "kind($self, path, /)\n--\n\nReturn \"group\", \"dataset\", \"type\" or \"unknown\"."},
    {"path_of", PY_METHOD(file_path_of), METH_FASTCALL,
     "path_of($self, address, /)\n--\n\n"
     "Return a path that leads to the object (for object references), or None."},
    {"links", PY_METHOD(file_links), METH_FASTCALL,
     "links($self, path, /)\n--\n\n"
     "Return (name, \"hard\" | \"soft\" | \"external\" | \"user\", address, target, target_file)."},
    {"attr_names", PY_METHOD(file_attr_names), METH_FASTCALL,
     "attr_names($self, path, /)\n--\n\nReturn the names of the attributes, by name."},
    {"attr", PY_METHOD(file_attr), METH_FASTCALL,
     "attr($self, path, name, /)\n--\n\n"
     "Return (type description, shape or None for a null space, raw bytes)."},
    {"text_attr", PY_METHOD(file_text_attr), METH_FASTCALL,
     "text_attr($self, path, name, /)\n--\n\n"
     "Return an attribute that is one string, None when there is none; TypeError else."},
    {"dataset", PY_METHOD(file_dataset), METH_FASTCALL,
     "dataset($self, path, /)\n--\n\nDescribe the dataset at path; reads headers only."},
    {"type", PY_METHOD(file_type), METH_FASTCALL,
     "type($self, path, /)\n--\n\nReturn the description of a committed datatype."},
    {"vlen", PY_METHOD(file_vlen), METH_FASTCALL,
     "vlen($self, type, records, /)\n--\n\n"
     "Resolve records of shape (n, itemsize): offsets (n + 1) and payload bytes."},
    {"close", file_close, METH_NOARGS,
     "close($self)\n--\n\nClose the file; datasets and matrices made from it stay usable."},
    {"__reduce__", py_refuse_pickle, METH_NOARGS, "Refuse to be pickled."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef file_members[] = {
    {"name", file_get_name, NULL, "Path, or the name that was given.", NULL},
    {"nbytes", file_get_nbytes, NULL, "Size in bytes.", NULL},
    {"identity", file_get_identity, NULL, "Size, modification time in ns, inode.", NULL},
    {"superblock", file_get_superblock, NULL, "Fields of the superblock.", NULL},
    {"pid", file_get_pid, NULL, "Process that opened it; others must open their own.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot file_slots[] = {
    {Py_tp_doc,
     (void *)(uintptr_t) "File(source, /, *, nbytes=-1, name='', salvage=False)\n--\n\n"
                         "An HDF5 file opened by scio's own parser; objects are named by path.\n\n"
                         "Thread-safe at method level."},
    PY_SLOT(Py_tp_new, file_new),
    PY_SLOT(Py_tp_dealloc, file_dealloc),
    PY_SLOT(Py_tp_traverse, file_traverse),
    PY_SLOT(Py_tp_clear, file_clear),
    {Py_tp_methods, file_methods},
    {Py_tp_getset, file_members},
    {0, NULL},
};

static PyType_Spec file_spec = {
    .name = "scio._core.File",
    .basicsize = sizeof(py_file),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = file_slots,
};

int
py_file_add(PyObject *module, py_state *state)
{
    return py_type_add(module, &file_spec, &state->file_type);
}
