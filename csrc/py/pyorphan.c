/* C loaders that were closed while their storage hangs: a callable that does not return, a mount
 * that does not answer.  Nobody waits for them.  Each is freed, with what it reads, by the first
 * who looks after its last job has ended; at the end of the process the rest is left behind. */
#include "py/py.h"

#include "base/mem.h"
#include "load/loader.h"

#include <time.h>
#include <unistd.h>

#define END_SLICES 100 /* of 10 ms: how long the end of the process waits for all of them */

typedef struct py_orphan {
    struct py_orphan *next;
    scio_loader *loader;
    py_sources sources;
    PyObject *kept; /* may be NULL */
    pid_t pid;
} py_orphan;

void
py_orphan_add(py_state *state, struct scio_loader *loader, py_sources *sources, PyObject **kept)
{
    const py_sources none = PY_SOURCES_INIT;
    py_orphan *orphan = NULL;

    if (state != NULL && scio_mem_alloc(1, sizeof *orphan, &orphan, NULL) == SCIO_OK) {
        *orphan = (py_orphan){state->orphans, loader, *sources, *kept, getpid()};
        state->orphans = orphan;
    }
    /* with nobody to remember them they stay for good: the jobs use them */
    *sources = none;
    *kept = NULL;
}

static void
free_orphan(py_orphan *orphan)
{
    Py_BEGIN_ALLOW_THREADS;
    scio_loader_free(orphan->loader);
    Py_END_ALLOW_THREADS;
    py_sources_clear(&orphan->sources);
    Py_XDECREF(orphan->kept);
    scio_mem_free(orphan);
}

void
py_orphans_reap(py_state *state)
{
    py_orphan **place = &state->orphans, *done = NULL;

    while (*place != NULL) {
        py_orphan *const orphan = *place;

        if (orphan->pid != getpid() || !scio_loader_stop(orphan->loader, 0)) {
            place = &orphan->next;
            continue;
        }
        *place = orphan->next;
        orphan->next = done;
        done = orphan;
    }
    while (done != NULL) { /* off the list: others may come while the GIL is free */
        py_orphan *const orphan = done;

        done = orphan->next;
        free_orphan(orphan);
    }
}

void
py_orphans_end(py_state *state)
{
    const struct timespec slice = {0, 10 * 1000 * 1000};

    py_orphans_reap(state);
    for (int i = 0; i < END_SLICES && state->orphans != NULL; i++) {
        Py_BEGIN_ALLOW_THREADS;
        (void)nanosleep(&slice, NULL);
        Py_END_ALLOW_THREADS;
        py_orphans_reap(state);
    }
}
