/* What the files of the binding share: module state, raising, arguments, arrays, long calls.
 *
 * Every function of the module has four beats: parse, borrow, one core call without the GIL, raise
 * or wrap.  Helpers that can fail return NULL or -1 with a Python exception set, as Python's own
 * do. */
#ifndef SCIO_PY_PY_H
#define SCIO_PY_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* NumPy's table of functions is one pointer for all files; module.c fills it. */
#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL scio_py_numpy_table
#ifndef PY_OWNS_NUMPY_TABLE
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "base/buf.h"
#include "base/dtype.h"
#include "base/error.h"
#include "h5read/dataset.h"
#include "h5read/file.h"
#include "h5read/object.h"
#include "h5read/type.h"
#include "load/collate.h"
#include "load/compact.h"
#include "load/matrix.h"
#include "load/sink.h"
#include "sparse/csr.h"

#include <sys/types.h>

/* A function pointer as the `void *` of a slot: POSIX allows it, ISO C needs the silencer. */
#define PY_SLOT(id, function)                                                                      \
    {                                                                                              \
        (id), __extension__(void *)(function)                                                      \
    }
#define PY_METHOD(function) ((PyCFunction)(void (*)(void))(function))

#ifndef SCIO_VERSION /* setup.py says it */
#define SCIO_VERSION "0+unknown"
#endif

struct py_loader;
struct py_orphan;
struct scio_loader;

/* What the module owns; one per interpreter that imported it. */
typedef struct py_state {
    PyObject *errors[SCIO_EBUG + 1]; /* exception class of each status code */
    PyTypeObject *file_type, *dataset_type, *matrix_type, *loader_type, *compact_type, *sink_type,
        *stats_type;
    struct py_loader *loaders; /* all that are alive, for the end of the process */
    struct py_orphan *orphans; /* C loaders whose storage hangs, see pyorphan.c */
} py_state;

static inline py_state *
py_state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

/* Of an instance of one of our types, none of which can be subclassed. */
static inline py_state *
py_state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* The same while an instance dies: the garbage collector may have cleared its type before. */
static inline py_state *
py_state_or_null(PyObject *self)
{
    PyObject *type, *value, *traceback;
    py_state *state;

    PyErr_Fetch(&type, &value, &traceback);
    state = PyType_GetModuleState(Py_TYPE(self));
    PyErr_Restore(type, value, traceback);
    return state;
}

/* --- pyerror.c: the only place that raises */

int py_errors_load(py_state *state);
/* Raises what `err` says; an exception that is already set stays.  Always NULL. */
PyObject *py_raise(const py_state *state, const scio_error *err);
/* The same for a path that could not be opened: an OSError gets it as `filename`. */
PyObject *py_raise_path(const py_state *state, const scio_error *err, PyObject *path);
/* Raises for `code` with a message of our own. */
PyObject *py_fail(const py_state *state, scio_status code, const char *format, ...)
    SCIO_PRINTF(3, 4);
/* RuntimeError unless this is the process in which `what` was made. */
int py_check_pid(pid_t pid, const char *what);
/* `__reduce__` of our types: TypeError that says what to do instead. */
PyObject *py_refuse_pickle(PyObject *self, PyObject *ignored);
/* Text of a file or a message: UTF-8, other bytes as lone surrogates. */
PyObject *py_text(const char *text);
/* Takes the exception that is set and writes "TypeName: text" of it. */
void py_exception_text(char *out, size_t out_nbytes);
/* From now on nothing may wait for the interpreter: see module.c. */
void py_set_exiting(void);
bool py_is_exiting(void);

/* --- pyarray.c */

/* An array of the caller: valid while the arguments of the call are. */
typedef struct py_view {
    PyObject *array; /* borrowed; NULL = absent */
    void *data;
    int rank;
    const npy_intp *dims;
    size_t n_items;
    scio_dtype dtype;
} py_view;

int py_view_from(const py_state *state, PyObject *object, const char *name, int rank,
                 scio_dtype dtype, py_view *out);
/* A new array over `buf`, whose reference it takes (also on failure).  It is writable when nobody
 * else holds the buffer. */
PyObject *py_array_from_buf(scio_buf *buf, scio_dtype dtype, int rank, const npy_intp *dims);
/* The same with one dimension of n_items. */
PyObject *py_array_1d(scio_buf *buf, scio_dtype dtype, int64_t n_items);
/* A buffer over an array of the caller, which it keeps alive. */
scio_status py_buf_from_view(const py_view *view, scio_buf **out, scio_error *err);
/* A buffer over an object with the buffer protocol (an image of a file). */
int py_buf_from_object(const py_state *state, PyObject *object, scio_buf **out);
PyObject *py_tuple_from_u64(const uint64_t *items, size_t n_items);
/* (data, indices, indptr); takes the buffers of `csr`, also on failure. */
PyObject *py_csr_arrays(scio_csr *csr);

/* --- pyargs.c */

typedef enum py_kind {
    PY_OBJECT,  /* PyObject *, borrowed */
    PY_INT64,   /* int64_t */
    PY_UINT64,  /* uint64_t */
    PY_DOUBLE,  /* double */
    PY_BOOL,    /* bool; only True and False */
    PY_TEXT,    /* const char *: UTF-8 without NUL, borrowed from the str */
    PY_DTYPE,   /* scio_dtype; None = NONE */
    PY_THREADS, /* size_t; -1 = SIZE_MAX */
    PY_SHAPE,   /* int64_t[2], neither negative */
    PY_CHOICE,  /* int: position in `choices` */
    PY_ARRAY    /* py_view */
} py_kind;

typedef struct py_param {
    const char *name;
    py_kind kind;
    bool is_optional; /* may be absent: `out` keeps its value */
    bool is_nullable; /* PY_ARRAY: may be None, which leaves the view absent */
    bool is_named;    /* a positional parameter that may also be given by name */
    void *out;
    const char *const *choices; /* PY_CHOICE: ends with NULL */
    int rank;                   /* PY_ARRAY: -1 = any */
    scio_dtype dtype;           /* PY_ARRAY: NONE = any that scio computes with */
} py_param;

/* The first n_positional parameters are positional (only, unless is_named), the others keyword
 * only. Messages name function and parameter. */
int py_parse(const py_state *state, const char *function, const py_param *params, size_t n_params,
             size_t n_positional, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames);
/* For tp_new. */
int py_parse_tuple(const py_state *state, const char *function, const py_param *params,
                   size_t n_params, size_t n_positional, PyObject *args, PyObject *kwargs);
/* A sequence of at most SCIO_H5_MAX_RANK sizes; `name` for messages. */
int py_sizes_from(const py_state *state, PyObject *object, const char *name, uint64_t *sizes_out,
                  size_t n_sizes);

#define PY_N_PARAMS(params) (sizeof(params) / sizeof((params)[0]))

/* --- pycall.c */

typedef scio_status (*py_core_fn)(void *context, const volatile int *cancel, scio_error *err);

/* Runs fn(context, cancel, err) without the GIL; the caller holds it.  A call that `is_long` and
 * was made by the main thread, the only one that sees signals, runs in a thread of its own while
 * the caller looks at signals every 100 ms: an exception of a handler cancels the call, and
 * SCIO_ECANCEL comes back with that exception set.  Without pool threads (set_threads(0)) it runs
 * in the caller. */
scio_status py_call(py_core_fn fn, void *context, bool is_long, scio_error *err);
/* Reading so many bytes is over before anybody wants to interrupt it. */
#define PY_SHORT_NBYTES ((uint64_t)4 << 20)
/* So few rows, anywhere in a file, decode in some ten milliseconds. */
#define PY_SHORT_N_ROWS 256

/* --- pytype.c */

/* Puts `value` (taken; NULL = it failed with an exception) under `key`. */
int py_put(PyObject *dict, const char *key, PyObject *value);
/* The description of `type`, which lives as long as `owner` does. */
PyObject *py_type_describe(const scio_h5_type *type, PyObject *owner);
/* An owner that frees `type` (also on failure: then NULL). */
PyObject *py_type_owner(scio_h5_type *type);
/* The capsule behind a description (a new reference), and the C type that it keeps alive. */
PyObject *py_type_capsule(const py_state *state, PyObject *description);
const scio_h5_type *py_type_of(PyObject *capsule);

/* --- pysource.c */

typedef struct py_callback py_callback; /* a Python callable as a source */

/* Opens a path (str), an image in memory (buffer) or a callable; `*callback_out` only for the last.
 */
int py_source_open(const py_state *state, PyObject *object, int64_t nbytes, const char *name,
                   scio_source **source_out, py_callback **callback_out);
void py_callback_clear(py_callback *callback);
int py_callback_visit(py_callback *callback, visitproc visit, void *arg);

/* --- pyobject.c */

const char *py_kind_name(scio_h5_kind kind);
/* The datatype of the committed type at `path`.  Called without the GIL. */
scio_status py_file_read_type(scio_h5_file *file, const char *path, scio_h5_type **out,
                              scio_error *err);
PyObject *py_links_list(const scio_h5_links *links);
PyObject *py_names_list(char *const *names, size_t n_names);
/* (type, shape, raw bytes); takes the value and the type out of `attr`. */
PyObject *py_attr_tuple(const py_state *state, scio_h5_attr *attr);
/* (offsets, payload); takes both buffers. */
PyObject *py_vlen_tuple(scio_buf *offsets, scio_buf *payload, int64_t n_items);

/* --- pytext.c */

/* Arrays of str, not more than one object for a string that repeats often.  CorruptFileError names
 * `where` and the position of what is no UTF-8. */
PyObject *py_text_array(const py_state *state, const char *where, int rank, const npy_intp *dims,
                        const int64_t *offsets, const char *payload);
PyObject *py_fixed_text_array(const py_state *state, const char *where, int rank,
                              const npy_intp *dims, const char *fields, size_t itemsize,
                              int padding);
/* The text of an attribute that is one string; None when the object has none of that name; NULL
 * without an exception and with err empty when it is something else. */
PyObject *py_file_text_attr(const py_state *state, scio_h5_file *file, const char *path,
                            const char *name, scio_error *err);

/* --- the types; each file adds its own to the module */

typedef struct py_file {
    PyObject_HEAD
    scio_h5_file *file;    /* NULL once closed */
    scio_source *source;   /* kept with `callback`, whose memory it owns */
    py_callback *callback; /* NULL unless the bytes come from a Python callable */
    PyObject *name;        /* str */
    PyObject *paths;       /* dict: address -> path, NULL until path_of was asked */
    pid_t pid;
} py_file;

typedef struct py_matrix {
    PyObject_HEAD
    scio_matrix *matrix;
    PyObject *file; /* py_file, which owns a Python source; NULL in memory */
    bool is_callback;
    pid_t pid;
} py_matrix;

typedef struct py_compact {
    PyObject_HEAD
    scio_compact *compact;
} py_compact;

int py_compact_add(PyObject *module, py_state *state);
typedef struct py_sink {
    PyObject_HEAD
    scio_sink *sink;
    pid_t pid;
} py_sink;

int py_file_add(PyObject *module, py_state *state);
int py_dataset_add(PyObject *module, py_state *state);
int py_matrix_add(PyObject *module, py_state *state);
int py_loader_add(PyObject *module, py_state *state);
int py_sink_add(PyObject *module, py_state *state);
int py_stats_add(PyObject *module, py_state *state);
/* Adds a type made from `spec` under `name`; the state keeps a reference. */
int py_type_add(PyObject *module, PyType_Spec *spec, PyTypeObject **out);

extern PyMethodDef py_collate_methods[];
extern PyMethodDef py_csr_methods[];
extern PyMethodDef py_factor_methods[];
extern PyMethodDef py_hvg_methods[];
extern PyMethodDef py_info_methods[];
extern PyMethodDef py_kernel_methods[];
extern PyMethodDef py_many_methods[];
extern PyMethodDef py_stats_methods[];
extern PyMethodDef py_transform_methods[];
extern PyMethodDef py_text_methods[];

/* The C file, retained; NULL with an exception when it was closed or belongs to another process. */
scio_h5_file *py_file_borrow(py_file *self);
/* py_raise with the name of the file and the path (may be NULL) in front, unless the message names
 * them already. */
PyObject *py_file_raise(const py_file *self, const py_state *state, const char *path,
                        scio_error *err);
/* Follows a path from the root.  Called without the GIL. */
scio_status py_file_resolve(scio_h5_file *file, const char *path, uint64_t *address_out,
                            scio_error *err);
/* pypaths.c: dict from address to path of every object that can be reached. */
PyObject *py_paths_map(const py_state *state, const scio_h5_file *file);
PyObject *py_dataset_make(py_state *state, py_file *file, scio_h5_dataset *dataset);
/* The C dataset of a scio._core.Dataset; NULL with an exception when it is something else or of
 * another process. */
scio_h5_dataset *py_dataset_borrow(const py_state *state, PyObject *object);
PyObject *py_dataset_file(PyObject *dataset);      /* py_file, borrowed */
PyObject *py_dataset_file_name(PyObject *dataset); /* str, borrowed */
bool py_dataset_is_callback(PyObject *dataset);
/* As py_file_raise, with a path that the message has already. */
PyObject *py_dataset_raise(PyObject *dataset, const py_state *state, scio_error *err);
int py_dataset_require_numbers(const py_state *state, const scio_h5_dataset *dataset);
/* start_out[rank] (zeros before) and count_out[rank]; None = from the start, to the end. */
int py_dataset_box(const py_state *state, const scio_h5_dataset *dataset, PyObject *start,
                   PyObject *count, uint64_t *start_out, uint64_t *count_out);
int py_dataset_measure(const py_state *state, const scio_h5_dataset *dataset, const uint64_t *count,
                       size_t itemsize, size_t *nbytes_out);
/* pycsr.c: the view over three arrays, whose lengths are checked; `data` may be absent. */
int py_csr_view_from(const py_state *state, const py_view *data, const py_view *indices,
                     const py_view *indptr, const int64_t shape[2], scio_csr_view *out);
/* 0 when the matrix may be used in this process. */
int py_matrix_check(py_matrix *self);
/* Stops and frees every loader that is alive. */
void py_loaders_close(py_state *state);

/* --- pycollate.c: what collate and Loader share */

/* The C view of (matrices, maps); holds references while a call or a loader needs them. */
typedef struct py_sources {
    PyObject *matrices, *maps; /* tuples */
    size_t n_matrices;
    scio_matrix **c_matrices; /* [n_matrices] borrowed from the tuple */
    const int32_t **c_maps;   /* [n_matrices] borrowed from the tuple */
    int64_t n_cells;          /* rows of all matrices */
    bool is_long;             /* some matrix is read from a file */
} py_sources;

/* Keeps a stopped C loader, some of whose jobs still run, and moves what they use here: from
 * *sources and *kept.  `state` may be NULL. */
void py_orphan_add(py_state *state, struct scio_loader *loader, py_sources *sources,
                   PyObject **kept);
/* Frees those whose jobs have ended. */
void py_orphans_reap(py_state *state);
/* The same, waiting for them, but not for long. */
void py_orphans_end(py_state *state);

#define PY_SOURCES_INIT                                                                            \
    {                                                                                              \
        NULL, NULL, 0, NULL, NULL, 0, false                                                        \
    }

int py_sources_take(py_state *state, PyObject *matrices, PyObject *maps, int64_t n_ids,
                    py_sources *out);
void py_sources_clear(py_sources *sources);
/* A tuple of the matrices of a sequence (a new reference), n_expected of them, and the C ones,
 * which the caller frees and which live as long as the tuple. */
PyObject *py_matrices_take(const py_state *state, PyObject *sequence, const char *name,
                           size_t n_expected, scio_matrix ***out);

typedef struct py_spec {
    scio_collate_spec c;
    int form, select;
    double pad_value;
    py_view id_mask, cell_scale;
} py_spec;

#define PY_N_SPEC_PARAMS 16
/* The parameters that write into `spec`. */
void py_spec_params(py_spec *spec, py_param params[PY_N_SPEC_PARAMS]);
/* Checks what was parsed and completes spec->c. */
int py_spec_finish(const py_state *state, py_spec *spec);
/* The dict of a batch; takes its buffers, also on failure. */
PyObject *py_batch_dict(scio_batch *batch);

#endif
