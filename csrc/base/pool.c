/* Worker threads and the pools that they belong to; groups of jobs are in pool_group.c.
 *
 * A worker takes one job of the first group in the pool's line, which then goes to the end of the
 * line.  Whoever leaves work behind wakes one idle worker, so wakings spread like a chain and none
 * is lost.  One mutex guards it all: jobs take longer than a microsecond, by far. */
#include "base/pool_private.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/stats.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_THREADS ((size_t)1024)

/* The pool whose worker this thread is. */
static _Thread_local const scio_pool *worker_of;

/* Counts the forks between the first process and this one. */
static atomic_uint process_age;

bool
scio_pool_is_foreign(const scio_pool *pool)
{
    return pool->age != atomic_load_explicit(&process_age, memory_order_relaxed);
}

bool
scio_pool_is_worker(const scio_pool *pool)
{
    return worker_of == pool;
}

size_t
scio_pool_n_threads(const scio_pool *pool)
{
    return atomic_load_explicit(&pool->n_threads, memory_order_relaxed);
}

void
scio_pool_lock(scio_pool *pool)
{
    (void)pthread_mutex_lock(&pool->mutex);
}

void
scio_pool_unlock(scio_pool *pool)
{
    (void)pthread_mutex_unlock(&pool->mutex);
}

void
scio_pool_wake_worker_locked(scio_pool *pool)
{
    if (pool->first_ready != NULL && pool->n_idle > 0)
        (void)pthread_cond_signal(&pool->has_work);
}

/* --- threads --- */

/* Those that were asked for, and one for each that hangs. */
static size_t
n_wanted_locked(const scio_pool *pool)
{
    return pool->is_ending ? 0 : scio_pool_n_threads(pool) + pool->n_lost;
}

static void
name_thread(size_t index)
{
#ifdef __linux__
    char name[16];

    (void)snprintf(name, sizeof name, "scio-%u", (unsigned)index);
    (void)pthread_setname_np(pthread_self(), name);
#else
    (void)index;
#endif
}

static void *
work(void *argument)
{
    scio_worker *const self = argument;
    scio_pool *const pool = self->pool;

    worker_of = pool;
    name_thread(self->index);
    scio_pool_lock(pool);
    while (self->index < n_wanted_locked(pool)) {
        if (pool->first_ready != NULL) {
            scio_group_run_one_locked(pool->first_ready);
        } else {
            pool->n_idle++;
            (void)pthread_cond_wait(&pool->has_work, &pool->mutex);
            pool->n_idle--;
        }
    }
    if (!pool->is_ending) { /* nobody joins it: its place may be taken by another */
        (void)pthread_detach(pthread_self());
        self->is_there = false;
    }
    pool->n_live--;
    scio_stats_add(SCIO_STAT_live_threads, -1);
    scio_pool_wake_worker_locked(pool); /* in case this one was called for a job */
    if (pool->n_live == 0)              /* who waits must run the jobs from now on */
        (void)pthread_cond_broadcast(&pool->has_changed);
    scio_pool_unlock(pool);
    return NULL;
}

/* Every signal is blocked in a worker but those that its own faults raise: Python's handlers belong
 * to Python's main thread. */
static bool
start_worker_locked(scio_worker *w)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigset_t blocked, before;
    bool is_started;

    (void)sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        (void)sigdelset(&blocked, faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    is_started = pthread_create(&w->thread, NULL, work, w) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!is_started)
        return false;
    w->is_there = true;
    w->pool->n_live++;
    scio_stats_add(SCIO_STAT_live_threads, 1);
    return true;
}

void
scio_pool_start_missing_locked(scio_pool *pool)
{
    pool->may_start = false;
    for (size_t i = 0; i < n_wanted_locked(pool) && i < pool->n_workers; i++) {
        if (!pool->workers[i]->is_there && !start_worker_locked(pool->workers[i]))
            return;
    }
}

bool
scio_pool_has_no_workers_locked(const scio_pool *pool)
{
    return pool->n_live == 0 && !(pool->may_start && scio_pool_n_threads(pool) > 0);
}

static scio_status
reserve_workers(scio_pool *pool, size_t n_threads, scio_error *err)
{
    if (n_threads <= pool->n_workers)
        return SCIO_OK;
    SCIO_TRY(scio_mem_realloc(&pool->workers, n_threads, sizeof *pool->workers, err));
    while (pool->n_workers < n_threads) {
        scio_worker *w;

        SCIO_TRY(scio_mem_zalloc(1, sizeof *w, &w, err));
        w->pool = pool;
        w->index = pool->n_workers;
        pool->workers[pool->n_workers++] = w;
    }
    return SCIO_OK;
}

void
scio_pool_replace_workers_locked(scio_pool *pool, size_t n_lost)
{
    scio_error ignored = SCIO_ERROR_INIT; /* the pool goes on with fewer */

    pool->n_lost += n_lost;
    if (reserve_workers(pool, scio_pool_n_threads(pool) + pool->n_lost, &ignored) == SCIO_OK)
        scio_pool_start_missing_locked(pool);
}

/* --- the shared pool and forks --- */

static pthread_mutex_t shared_mutex = PTHREAD_MUTEX_INITIALIZER;
/* Guarded by shared_mutex; the second is a list of the parents' pools, kept so that they do not
 * look leaked. */
static scio_pool *shared_pool, *forgotten_pools;

static void
lock_shared(void)
{
    (void)pthread_mutex_lock(&shared_mutex);
}

static void
unlock_shared(void)
{
    (void)pthread_mutex_unlock(&shared_mutex);
}

/* Runs in the child with shared_mutex held, by lock_shared. */
static void
forget_in_child(void)
{
    if (shared_pool != NULL) {
        shared_pool->older = forgotten_pools;
        forgotten_pools = shared_pool;
        shared_pool = NULL;
    }
    worker_of = NULL;
    atomic_fetch_add(&process_age, 1);
    scio_stats_add(SCIO_STAT_live_threads, -scio_stats_get(SCIO_STAT_live_threads));
    unlock_shared();
}

static void
register_handlers(void)
{
    (void)pthread_atfork(lock_shared, unlock_shared, forget_in_child);
}

/* Before the first pool is made and before shared_mutex is first taken. */
static void
watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, register_handlers);
}

/* --- pool --- */

static scio_status
check_n_threads(size_t n_threads, scio_error *err)
{
    if (n_threads > MAX_THREADS)
        return scio_fail(err, SCIO_EINVAL, "%zu threads; the range is 0 to %zu", n_threads,
                         MAX_THREADS);
    return SCIO_OK;
}

scio_status
scio_pool_new(size_t n_threads, scio_pool **out, scio_error *err)
{
    scio_pool *pool = NULL;
    pthread_condattr_t attributes;

    *out = NULL;
    watch_forks();
    SCIO_TRY(check_n_threads(n_threads, err));
    SCIO_TRY(scio_mem_zalloc(1, sizeof *pool, &pool, err));
    pool->age = atomic_load(&process_age);
    atomic_init(&pool->n_threads, n_threads);
    pool->may_start = true;
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_cond_init(&pool->has_work, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&pool->has_changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    if (reserve_workers(pool, n_threads, err) != SCIO_OK) {
        scio_pool_free(pool);
        return SCIO_ENOMEM;
    }
    *out = pool;
    return SCIO_OK;
}

static void
end_workers(scio_pool *pool)
{
    scio_pool_lock(pool);
    pool->is_ending = true;
    atomic_store_explicit(&pool->n_threads, 0, memory_order_relaxed);
    (void)pthread_cond_broadcast(&pool->has_work);
    scio_pool_unlock(pool);
    for (size_t i = 0; i < pool->n_workers; i++) {
        if (pool->workers[i]->is_there)
            (void)pthread_join(pool->workers[i]->thread, NULL);
    }
    (void)pthread_cond_destroy(&pool->has_work);
    (void)pthread_cond_destroy(&pool->has_changed);
    (void)pthread_mutex_destroy(&pool->mutex);
}

void
scio_pool_free(scio_pool *pool)
{
    if (pool == NULL)
        return;
    if (!scio_pool_is_foreign(pool))
        end_workers(pool);
    for (size_t i = 0; i < pool->n_workers; i++)
        scio_mem_free(pool->workers[i]);
    scio_mem_free(pool->workers);
    scio_mem_free(pool);
}

scio_status
scio_pool_resize(scio_pool *pool, size_t n_threads, scio_error *err)
{
    scio_status status;

    SCIO_TRY(check_n_threads(n_threads, err));
    if (scio_pool_is_foreign(pool))
        return scio_fail(err, SCIO_EINVAL, "the pool was made before a fork");
    scio_pool_lock(pool);
    status = reserve_workers(pool, n_threads + pool->n_lost, err);
    if (status == SCIO_OK) {
        atomic_store_explicit(&pool->n_threads, n_threads, memory_order_relaxed);
        pool->may_start = true;
        if (pool->n_live > 0 || pool->first_ready != NULL)
            scio_pool_start_missing_locked(pool);
        (void)pthread_cond_broadcast(&pool->has_work);
        (void)pthread_cond_broadcast(&pool->has_changed);
    }
    scio_pool_unlock(pool);
    return status;
}

static scio_status
configured_threads(size_t *out, scio_error *err)
{
    const char *text = getenv("SCIO_THREADS");
    char *end = NULL;
    unsigned long n_threads;

    *out = scio_cpu_count() < MAX_THREADS ? scio_cpu_count() : MAX_THREADS;
    if (text == NULL || text[0] == '\0')
        return SCIO_OK;
    errno = 0;
    n_threads = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n_threads > MAX_THREADS)
        return scio_fail(err, SCIO_EINVAL, "SCIO_THREADS is \"%s\"; it is a number from 0 to %zu",
                         text, MAX_THREADS);
    *out = n_threads;
    return SCIO_OK;
}

scio_status
scio_pool_shared(scio_pool **out, scio_error *err)
{
    scio_status status = SCIO_OK;
    size_t n_threads;

    *out = NULL;
    watch_forks();
    lock_shared();
    if (shared_pool == NULL) {
        status = configured_threads(&n_threads, err);
        if (status == SCIO_OK)
            status = scio_pool_new(n_threads, &shared_pool, err);
    }
    *out = shared_pool;
    unlock_shared();
    return status;
}
