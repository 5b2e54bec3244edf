/* Long calls that Ctrl-C can stop.
 *
 * Python runs signal handlers in the main thread only, and only when that thread asks.  The core
 * cannot ask: it knows nothing of Python.  So a long call of the main thread runs as one job in a
 * pool of one thread that lives for this call, and the main thread sleeps in slices of 100 ms, asks
 * for signals between them and sets the cancel flag, which the core looks at once per chunk.
 * A thread costs about 50 microseconds, a long call many milliseconds; and nothing stays behind
 * that a fork or the end of the process would have to think of. */
#include "py/py.h"

#include "base/pool.h"

#include <unistd.h>

#define SIGNAL_SLICE_MS 100

typedef struct long_call {
    scio_job job; /* first: the pool hands it back */
    py_core_fn fn;
    void *context;
    volatile int cancel;
    scio_status status;
    scio_error err;
} long_call;

static bool
is_main_thread(void)
{
#if defined(__linux__)
    return gettid() == getpid();
#else
    return true;
#endif
}

static void
run_long_call(scio_job *job, size_t Py_UNUSED(slot))
{
    long_call *const call = (long_call *)job;

    call->status = call->fn(call->context, &call->cancel, &call->err);
}

static scio_status
call_here(py_core_fn fn, void *context, scio_error *err)
{
    scio_status status;

    Py_BEGIN_ALLOW_THREADS;
    status = fn(context, NULL, err);
    Py_END_ALLOW_THREADS;
    return status;
}

/* Waits for the job; true when a signal handler raised. */
static bool
wait_for_call(scio_group *group, long_call *call)
{
    bool is_interrupted = false, is_done;

    do {
        Py_BEGIN_ALLOW_THREADS;
        is_done = scio_group_wait_ms(group, SIGNAL_SLICE_MS);
        Py_END_ALLOW_THREADS;
        if (!is_interrupted && PyErr_CheckSignals() < 0) {
            is_interrupted = true;
            __atomic_store_n(&call->cancel, 1, __ATOMIC_RELAXED);
        }
    } while (!is_done);
    return is_interrupted;
}

/* Whether calls of this thread are worth a thread of their own; its pool then. */
static bool
start_runner(scio_pool **pool_out, scio_group **group_out)
{
    scio_pool *shared;

    if (!is_main_thread())
        return false;
    if (scio_pool_shared(&shared, NULL) != SCIO_OK || scio_pool_n_threads(shared) == 0)
        return false;
    if (scio_pool_new(1, pool_out, NULL) != SCIO_OK)
        return false;
    if (scio_group_new(*pool_out, 1, group_out, NULL) == SCIO_OK)
        return true;
    scio_pool_free(*pool_out);
    return false;
}

scio_status
py_call(py_core_fn fn, void *context, bool is_long, scio_error *err)
{
    long_call call = {.job = {run_long_call, NULL}, .fn = fn, .context = context};
    scio_pool *pool;
    scio_group *group;
    bool is_interrupted;

    if (!is_long || !start_runner(&pool, &group))
        return call_here(fn, context, err);
    scio_group_submit(group, &call.job, SCIO_PRIORITY_HIGH);
    is_interrupted = wait_for_call(group, &call);
    Py_BEGIN_ALLOW_THREADS;
    scio_group_free(group);
    scio_pool_free(pool);
    Py_END_ALLOW_THREADS;
    if (is_interrupted)
        return scio_fail(err, SCIO_ECANCEL, "interrupted");
    scio_error_move(err, &call.err);
    return call.status;
}
