#include "base/descriptor.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LEAST_OPEN = 8 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
/* Guarded by mutex; the line holds those that are open and not pinned. */
static scio_descriptor *oldest, *newest;
static size_t n_open;

static void
lock(void)
{
    (void)pthread_mutex_lock(&mutex);
}

static void
unlock(void)
{
    (void)pthread_mutex_unlock(&mutex);
}

static void
register_handlers(void)
{
    (void)pthread_atfork(lock, unlock, unlock);
}

static void
join_line_locked(scio_descriptor *d)
{
    d->older = newest;
    d->newer = NULL;
    *(newest != NULL ? &newest->newer : &oldest) = d;
    newest = d;
    d->is_in_line = true;
}

static void
leave_line_locked(scio_descriptor *d)
{
    if (!d->is_in_line)
        return;
    *(d->older != NULL ? &d->older->newer : &oldest) = d->newer;
    *(d->newer != NULL ? &d->newer->older : &newest) = d->older;
    d->older = d->newer = NULL;
    d->is_in_line = false;
}

static void
close_locked(scio_descriptor *d)
{
    leave_line_locked(d);
    (void)close(d->fd);
    d->fd = -1;
    n_open--;
}

static void
pin_locked(scio_descriptor *d)
{
    leave_line_locked(d);
    d->n_users++;
}

int
scio_descriptor_pin(scio_descriptor *d)
{
    int fd;

    lock();
    fd = d->fd;
    if (fd >= 0)
        pin_locked(d);
    unlock();
    return fd;
}

int
scio_descriptor_pin_new(scio_descriptor *d, int fd)
{
    int spare = -1;

    lock();
    if (d->fd < 0) {
        d->fd = fd;
        n_open++;
    } else {
        spare = fd;
    }
    pin_locked(d);
    fd = d->fd;
    unlock();
    if (spare >= 0)
        (void)close(spare);
    return fd;
}

void
scio_descriptor_unpin(scio_descriptor *d)
{
    lock();
    if (--d->n_users == 0)
        join_line_locked(d);
    unlock();
}

void
scio_descriptor_close(scio_descriptor *d)
{
    lock();
    if (d->fd >= 0)
        close_locked(d);
    unlock();
}

/* How many may stay open. */
static size_t
most_open(void)
{
    struct rlimit limit;
    size_t n_most = LEAST_OPEN;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 > LEAST_OPEN)
        n_most = (size_t)(limit.rlim_cur / 2);
    return n_most;
}

bool
scio_descriptor_make_room(bool is_exhausted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t n_most = most_open();
    bool is_any = false;

    (void)pthread_once(&once, register_handlers);
    lock();
    if (is_exhausted && n_open / 2 < n_most)
        n_most = n_open / 2;
    while (oldest != NULL && n_open >= n_most) {
        close_locked(oldest);
        is_any = true;
    }
    unlock();
    return is_any;
}
