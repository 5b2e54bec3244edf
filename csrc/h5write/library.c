/* Turns in libhdf5, what it says when something fails, and its version. */
#include "h5write/writer_private.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t library_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void
before_fork(void)
{
    (void)pthread_mutex_lock(&library_mutex);
}

static void
after_fork(void)
{
    (void)pthread_mutex_unlock(&library_mutex);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork);
}

void
scio_h5_turn_begin(scio_h5_turn *turn)
{
    (void)pthread_once(&fork_once, watch_forks);
    (void)pthread_mutex_lock(&library_mutex);
    *turn = (scio_h5_turn){NULL, NULL};
    (void)H5Eget_auto2(H5E_DEFAULT, &turn->print, &turn->context);
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void
scio_h5_turn_end(const scio_h5_turn *turn)
{
    (void)H5Eclear2(H5E_DEFAULT);
    (void)H5Eset_auto2(H5E_DEFAULT, turn->print, turn->context);
    (void)pthread_mutex_unlock(&library_mutex);
}

static herr_t
keep_innermost(unsigned depth, const H5E_error2_t *entry, void *context)
{
    const char **const text = context;

    (void)depth;
    if (*text == NULL && entry->desc != NULL)
        *text = entry->desc;
    return 0;
}

scio_status
scio_h5_library_error(const char *what, scio_error *err)
{
    const char *text = NULL;

    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
    return scio_fail(err, SCIO_EWRITE, "%s: libhdf5 says \"%s\"", what,
                     text != NULL ? text : "nothing");
}

scio_status
scio_h5_check_version(scio_error *err)
{
    unsigned major = 0, minor = 0, release = 0;

    if (H5get_libversion(&major, &minor, &release) < 0)
        return scio_h5_library_error("asking for its version", err);
    if (major != H5_VERS_MAJOR || minor != H5_VERS_MINOR)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "scio was built for libhdf5 %d.%d and found %u.%u.%u: build it again",
                         H5_VERS_MAJOR, H5_VERS_MINOR, major, minor, release);
    return SCIO_OK;
}

void
scio_h5_writer_version(char *out, size_t out_nbytes)
{
    unsigned major = 0, minor = 0, release = 0;
    scio_h5_turn turn;

    scio_h5_turn_begin(&turn);
    (void)H5get_libversion(&major, &minor, &release);
    scio_h5_turn_end(&turn);
    (void)snprintf(out, out_nbytes, "%u.%u.%u", major, minor, release);
}
