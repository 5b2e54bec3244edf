/* What this build is and does: build_info, counters, threads. */
#include "py/py.h"

#include "base/cpu.h"
#include "base/pool.h"
#include "base/stats.h"
#include "codec/pipeline.h"

#include <libdeflate.h>
#if SCIO_HAVE_ISAL
#include <isa-l.h>
#endif
#if SCIO_HAVE_LZ4
#include <lz4.h>
#endif
#if SCIO_HAVE_ZSTD
#include <zstd.h>
#endif

#include <stdio.h>

/* setup.py says the version; the headers know only that of the interface. */
#ifndef SCIO_NUMPY_VERSION
#define SCIO_NUMPY_VERSION "unknown"
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown"
#endif

/* --- helpers */

/* NULL = no library has a part in it. */
static const char *
filter_library(uint16_t id, char *text, size_t text_nbytes)
{
    switch (id) {
    case SCIO_FILTER_DEFLATE:
#if SCIO_HAVE_ISAL
        snprintf(text, text_nbytes, "libdeflate %s, ISA-L %d.%d.%d", LIBDEFLATE_VERSION_STRING,
                 ISAL_MAJOR_VERSION, ISAL_MINOR_VERSION, ISAL_PATCH_VERSION);
#else
        snprintf(text, text_nbytes, "libdeflate %s", LIBDEFLATE_VERSION_STRING);
#endif
        return text;
#if SCIO_HAVE_ZSTD
    case SCIO_FILTER_ZSTD:
        snprintf(text, text_nbytes, "zstd %s", ZSTD_versionString());
        return text;
#endif
#if SCIO_HAVE_LZ4
    case SCIO_FILTER_LZ4:
        snprintf(text, text_nbytes, "lz4 %s", LZ4_versionString());
        return text;
#endif
    default:
        return NULL;
    }
}

/* Name to False, True (our own code) or "library version". */
static PyObject *
filters_dict(void)
{
    static const uint16_t ids[] = {
        SCIO_FILTER_DEFLATE,     SCIO_FILTER_SHUFFLE, SCIO_FILTER_FLETCHER32, SCIO_FILTER_SZIP,
        SCIO_FILTER_NBIT,        SCIO_FILTER_BZIP2,   SCIO_FILTER_LZF,        SCIO_FILTER_BLOSC,
        SCIO_FILTER_SCALEOFFSET, SCIO_FILTER_LZ4,     SCIO_FILTER_BITSHUFFLE, SCIO_FILTER_ZSTD,
    };
    PyObject *const dict = PyDict_New();
    char text[96];

    for (size_t i = 0; dict != NULL && i < sizeof(ids) / sizeof(ids[0]); i++) {
        const bool is_supported = scio_filter_is_supported(ids[i]);
        const char *const library = filter_library(ids[i], text, sizeof(text));
        PyObject *const value =
            is_supported && library != NULL ? py_text(library) : PyBool_FromLong(is_supported);

        if (py_put(dict, scio_filter_name(ids[i]), value) < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

/* What the CPU offers, whatever SCIO_CPU says. */
static PyObject *
cpu_features(void)
{
    PyObject *const list = PyList_New(0);
#if defined(__x86_64__)
#define ADD_FEATURE(name)                                                                          \
    if (list != NULL && __builtin_cpu_supports(name)) {                                            \
        PyObject *const text = py_text(name);                                                      \
        if (text == NULL || PyList_Append(list, text) < 0) {                                       \
            Py_XDECREF(text);                                                                      \
            Py_DECREF(list);                                                                       \
            return NULL;                                                                           \
        }                                                                                          \
        Py_DECREF(text);                                                                           \
    }
    __builtin_cpu_init();
    ADD_FEATURE("sse4.2")
    ADD_FEATURE("avx")
    ADD_FEATURE("avx2")
    ADD_FEATURE("bmi2")
    ADD_FEATURE("fma")
    ADD_FEATURE("avx512f")
    ADD_FEATURE("avx512bw")
    ADD_FEATURE("avx512dq")
    ADD_FEATURE("avx512vl")
    ADD_FEATURE("avx512vbmi")
#undef ADD_FEATURE
#endif
    return list;
}

/* The shared pool; NULL with an exception when SCIO_THREADS is wrong. */
static scio_pool *
shared_pool(const py_state *state)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool = NULL;

    if (scio_pool_shared(&pool, &err) == SCIO_OK)
        return pool;
    py_raise(state, &err);
    return NULL;
}

/* --- functions */

static PyObject *
build_info(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    const scio_pool *const pool = shared_pool(py_state_of_module(module));
    PyObject *dict = pool == NULL ? NULL : PyDict_New();

    if (dict != NULL &&
        (py_put(dict, "version", py_text(SCIO_VERSION)) < 0 ||
         py_put(dict, "compiler", py_text(COMPILER)) < 0 ||
         py_put(dict, "cpu_level", py_text(scio_cpu_level_name(scio_cpu()))) < 0 ||
         py_put(dict, "cpu_features", cpu_features()) < 0 ||
         py_put(dict, "filters", filters_dict()) < 0 ||
         py_put(dict, "threads", PyLong_FromSize_t(scio_pool_n_threads(pool))) < 0 ||
         py_put(dict, "cpu_count", PyLong_FromSize_t(scio_cpu_count())) < 0 ||
         py_put(dict, "python_build", py_text(PY_VERSION)) < 0 ||
         py_put(dict, "numpy_build", py_text(SCIO_NUMPY_VERSION)) < 0))
        Py_CLEAR(dict);
    return dict;
}

static PyObject *
get_stats(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *const dict = PyDict_New();

    for (int which = 0; dict != NULL && which < SCIO_N_STATS; which++) {
        const scio_stat stat = (scio_stat)which;

        if (py_put(dict, scio_stats_name(stat), PyLong_FromLongLong(scio_stats_get(stat))) < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

static PyObject *
set_threads(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    int64_t n_threads = 0;
    const py_param params[] = {{.name = "n_threads", .kind = PY_INT64, .out = &n_threads}};
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool;
    scio_status status;

    if (py_parse(state, "set_threads", params, 1, 1, args, n_args, NULL) < 0)
        return NULL;
    if (n_threads < 0)
        return py_fail(state, SCIO_EINVAL, "n_threads is %lld, expected 0 or more",
                       (long long)n_threads);
    pool = shared_pool(state);
    if (pool == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = scio_pool_resize(pool, (size_t)n_threads, &err);
    Py_END_ALLOW_THREADS;
    if (status != SCIO_OK)
        return py_raise(state, &err);
    Py_RETURN_NONE;
}

static PyObject *
get_threads(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    const scio_pool *const pool = shared_pool(py_state_of_module(module));

    return pool == NULL ? NULL : PyLong_FromSize_t(scio_pool_n_threads(pool));
}

static PyObject *
cpu_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(scio_cpu_count());
}

PyMethodDef py_info_methods[] = {
    {"build_info", build_info, METH_NOARGS,
     "build_info($module)\n--\n\n"
     "Return compiler, version, CPU level, filters with their libraries, threads."},
    {"stats", get_stats, METH_NOARGS,
     "stats($module)\n--\n\nReturn the counters of ``base/stats.h``."},
    {"set_threads", PY_METHOD(set_threads), METH_FASTCALL,
     "set_threads($module, n_threads, /)\n--\n\n"
     "Resize the process-wide pool; 0 runs everything in the caller."},
    {"get_threads", get_threads, METH_NOARGS,
     "get_threads($module)\n--\n\nReturn the size of the process-wide pool."},
    {"cpu_count", cpu_count, METH_NOARGS,
     "cpu_count($module)\n--\n\nReturn the CPUs that this process may use."},
    {NULL, NULL, 0, NULL},
};
