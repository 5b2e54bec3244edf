/* The extension module scio._core: initialisation in two phases, one state, immutable types.
 *
 * One interpreter only: NumPy's C interface is one table per process, and the callables of a File
 * are called from threads of our own by PyGILState, which knows the main interpreter only. */
#define PY_OWNS_NUMPY_TABLE
#include "py/py.h"

#include "base/cpu.h"

/* --- end of the process
 *
 * When the interpreter goes away, a thread that waits for the GIL never gets it.  A job of a loader
 * whose file is a Python callable would wait so, and whoever frees that loader for the job.  So an
 * atexit function closes all loaders while there still is an interpreter, and after it nothing
 * takes the GIL from our threads any more. */

static PyObject *
at_exit(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    py_loaders_close(py_state_of_module(module));
    py_set_exiting();
    Py_RETURN_NONE;
}

static PyMethodDef at_exit_method = {"_at_exit", at_exit, METH_NOARGS, "Close all loaders."};

static int
register_at_exit(PyObject *module)
{
    PyObject *const function = PyCFunction_NewEx(&at_exit_method, module, NULL);
    PyObject *const atexit = PyImport_ImportModule("atexit");
    PyObject *result = NULL;

    if (function != NULL && atexit != NULL)
        result = PyObject_CallMethod(atexit, "register", "O", function);
    Py_XDECREF(function);
    Py_XDECREF(atexit);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* --- initialisation */

int
py_type_add(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    PyObject *const type = PyType_FromModuleAndSpec(module, spec, NULL);

    if (type == NULL)
        return -1;
    *out = (PyTypeObject *)type;
    return PyModule_AddType(module, *out);
}

static int
check_interpreter(void)
{
#if PY_VERSION_HEX < 0x030C0000 /* from 3.12 on a slot says it */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "scio does not support subinterpreters");
        return -1;
    }
#endif
    return 0;
}

/* A misspelt SCIO_CPU stops the import instead of being ignored. */
static int
check_environment(const py_state *state)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_cpu_level level;

    if (scio_cpu_level_get(&level, &err) == SCIO_OK)
        return 0;
    py_raise(state, &err);
    return -1;
}

static int
add_functions(PyObject *module)
{
    PyMethodDef *const families[] = {
        /* a line each, so that branches merge */
        /* clang-format off */
        py_info_methods,
        py_kernel_methods,
        py_csr_methods,
        py_collate_methods,
        py_text_methods,
        py_many_methods,
        py_factor_methods,
        py_hvg_methods,
        py_stats_methods,
        py_transform_methods,
        /* clang-format on */
    };

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (PyModule_AddFunctions(module, families[i]) < 0)
            return -1;
    }
    return PyModule_AddStringConstant(module, "__version__", SCIO_VERSION);
}

static int
module_exec(PyObject *module)
{
    py_state *const state = py_state_of_module(module);

    if (check_interpreter() < 0 || PyArray_ImportNumPyAPI() < 0)
        return -1;
    if (py_errors_load(state) < 0 || check_environment(state) < 0)
        return -1;
    if (py_file_add(module, state) < 0 || py_dataset_add(module, state) < 0 ||
        py_matrix_add(module, state) < 0 || py_loader_add(module, state) < 0 ||
        py_compact_add(module, state) < 0 || py_sink_add(module, state) < 0 ||
        py_stats_add(module, state) < 0)
        return -1;
    return add_functions(module) < 0 ? -1 : register_at_exit(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    const py_state *const state = py_state_of_module(module);

    for (size_t code = 0; code <= SCIO_EBUG; code++)
        Py_VISIT(state->errors[code]);
    Py_VISIT(state->file_type);
    Py_VISIT(state->dataset_type);
    Py_VISIT(state->matrix_type);
    Py_VISIT(state->loader_type);
    Py_VISIT(state->compact_type);
    Py_VISIT(state->sink_type);
    Py_VISIT(state->stats_type);
    return 0;
}

static int
module_clear(PyObject *module)
{
    py_state *const state = py_state_of_module(module);

    for (size_t code = 0; code <= SCIO_EBUG; code++)
        Py_CLEAR(state->errors[code]);
    Py_CLEAR(state->file_type);
    Py_CLEAR(state->dataset_type);
    Py_CLEAR(state->matrix_type);
    Py_CLEAR(state->loader_type);
    Py_CLEAR(state->compact_type);
    Py_CLEAR(state->sink_type);
    Py_CLEAR(state->stats_type);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    PY_SLOT(Py_mod_exec, module_exec),
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "scio._core",
    .m_doc = "The C core of scio.  Private: the public face is in the modules of scio.",
    .m_size = sizeof(py_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void); /* the one symbol that the module exports */

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
