/* Small functions of the core that Python needs as they are: random numbers, permutations, log1p.
 */
#include "py/py.h"

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"

static PyObject *
philox_u64(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    uint64_t seed = 0, stream = 0, index = 0;
    const py_param params[] = {{.name = "seed", .kind = PY_UINT64, .out = &seed},
                               {.name = "stream", .kind = PY_UINT64, .out = &stream},
                               {.name = "index", .kind = PY_UINT64, .out = &index}};

    if (py_parse(py_state_of_module(module), "philox_u64", params, 3, 3, args, n_args, NULL) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(scio_rng_u64(seed, stream, index));
}

static PyObject *
permutation(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    uint64_t seed = 0, stream = 0;
    int64_t n_items = 0;
    const py_param params[] = {{.name = "seed", .kind = PY_UINT64, .out = &seed},
                               {.name = "stream", .kind = PY_UINT64, .out = &stream},
                               {.name = "n_items", .kind = PY_INT64, .out = &n_items}};
    scio_buf *buf = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t nbytes = 0;
    int64_t *items;

    if (py_parse(state, "permutation", params, 3, 3, args, n_args, NULL) < 0)
        return NULL;
    if (n_items < 0)
        return py_fail(state, SCIO_EINVAL, "n_items is %lld, expected 0 or more",
                       (long long)n_items);
    if (!scio_mul_size((size_t)n_items, sizeof(*items), &nbytes))
        return py_fail(state, SCIO_ENOMEM, "a permutation of %lld items", (long long)n_items);
    if (scio_buf_new(nbytes, &buf, &err) != SCIO_OK)
        return py_raise(state, &err);
    items = scio_buf_data(buf);
    Py_BEGIN_ALLOW_THREADS;
    for (int64_t i = 0; i < n_items; i++)
        items[i] = i;
    scio_rng_shuffle_i64(seed, stream, items, (size_t)n_items);
    Py_END_ALLOW_THREADS;
    return py_array_1d(buf, SCIO_I64, n_items);
}

static PyObject *
random_below(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    uint64_t seed = 0, stream = 0;
    int64_t bound = 0, n_items = 0;
    const py_param params[] = {{.name = "seed", .kind = PY_UINT64, .out = &seed},
                               {.name = "stream", .kind = PY_UINT64, .out = &stream},
                               {.name = "bound", .kind = PY_INT64, .out = &bound},
                               {.name = "n_items", .kind = PY_INT64, .out = &n_items}};
    scio_buf *buf = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t nbytes = 0;
    int64_t *items;

    if (py_parse(state, "random_below", params, 4, 4, args, n_args, NULL) < 0)
        return NULL;
    if (n_items < 0 || bound < 1)
        return py_fail(state, SCIO_EINVAL,
                       "n_items is %lld and bound %lld, expected 0 and 1 or more",
                       (long long)n_items, (long long)bound);
    if (!scio_mul_size((size_t)n_items, sizeof(*items), &nbytes))
        return py_fail(state, SCIO_ENOMEM, "%lld random numbers", (long long)n_items);
    if (scio_buf_new(nbytes, &buf, &err) != SCIO_OK)
        return py_raise(state, &err);
    items = scio_buf_data(buf);
    Py_BEGIN_ALLOW_THREADS;
    for (int64_t i = 0; i < n_items; i++)
        items[i] = (int64_t)scio_rng_below(seed, stream, (uint64_t)i, (uint64_t)bound);
    Py_END_ALLOW_THREADS;
    return py_array_1d(buf, SCIO_I64, n_items);
}

static PyObject *
log1p_array(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const py_state *const state = py_state_of_module(module);
    py_view x = {0};
    const py_param params[] = {
        {.name = "x", .kind = PY_ARRAY, .out = &x, .rank = -1, .dtype = SCIO_F32}};
    scio_buf *buf = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (py_parse(state, "log1p", params, 1, 1, args, n_args, NULL) < 0)
        return NULL;
    if (scio_buf_new(x.n_items * sizeof(float), &buf, &err) != SCIO_OK)
        return py_raise(state, &err);
    Py_BEGIN_ALLOW_THREADS;
    scio_kernels()->log1p_f32(x.data, scio_buf_data(buf), x.n_items);
    Py_END_ALLOW_THREADS;
    return py_array_from_buf(buf, SCIO_F32, x.rank, x.dims);
}

PyMethodDef py_kernel_methods[] = {
    {"philox_u64", PY_METHOD(philox_u64), METH_FASTCALL,
     "philox_u64($module, seed, stream, index, /)\n--\n\n"
     "Return one value of the counter-based generator."},
    {"permutation", PY_METHOD(permutation), METH_FASTCALL,
     "permutation($module, seed, stream, n_items, /)\n--\n\n"
     "Return a seeded permutation of range(n_items)."},
    {"random_below", PY_METHOD(random_below), METH_FASTCALL,
     "random_below($module, seed, stream, bound, n_items, /)\n--\n\n"
     "Return n_items seeded integers, uniform in [0, bound)."},
    {"log1p", PY_METHOD(log1p_array), METH_FASTCALL,
     "log1p($module, x, /)\n--\n\n"
     "Return ln(1 + x), the kernel of the loader (new array)."},
    {NULL, NULL, 0, NULL},
};
