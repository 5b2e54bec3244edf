/* What the tests of the pool share: a job that tells what happened to it, and children to run in.
 */
#ifndef SCIO_TESTS_C_POOL_TESTING_H
#define SCIO_TESTS_C_POOL_TESTING_H

#include "base/pool.h"
#include "base/stats.h"
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline double
seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void
sleep_ms(long ms)
{
    (void)nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static inline scio_pool *
new_pool(size_t n_threads)
{
    scio_pool *pool = NULL;

    CHECK(scio_pool_new(n_threads, &pool, NULL) == SCIO_OK);
    return pool;
}

static inline scio_group *
new_group(scio_pool *pool, size_t max_parallel)
{
    scio_group *group = NULL;

    CHECK(scio_group_new(pool, max_parallel, &group, NULL) == SCIO_OK);
    return group;
}

static inline int64_t
live_threads(void)
{
    return scio_stats_get(SCIO_STAT_live_threads);
}

/* Waits, at most ten seconds, until the number of threads is what it should be. */
static inline bool
threads_become(int64_t n_threads)
{
    const double begin = seconds();

    while (live_threads() != n_threads && seconds() - begin < 10)
        sleep_ms(1);
    return live_threads() == n_threads;
}

/* --- a job that tells what happened to it --- */

enum { MAX_SLOTS = 64 };

typedef struct record {
    scio_group *group;
    atomic_int in_slot[MAX_SLOTS];
    atomic_int n_running, n_running_most, n_run, n_shared_slots, n_bad_slots;
    atomic_int is_held;      /* jobs wait until it is 0 */
    char order[64];          /* names of the jobs as they ran: for one slot only */
    pthread_t threads[2000]; /* who ran which */
} record;

typedef struct test_job {
    scio_job job;
    record *record;
    int sleep_us;
    char name;
} test_job;

static inline void
run_test_job(scio_job *job, size_t slot)
{
    test_job *const self = (test_job *)job;
    record *const r = self->record;
    const int n_running = atomic_fetch_add(&r->n_running, 1) + 1;
    int n_most = atomic_load(&r->n_running_most), n_run;

    while (n_running > n_most &&
           !atomic_compare_exchange_weak(&r->n_running_most, &n_most, n_running))
        continue;
    if (slot >= MAX_SLOTS || slot >= scio_group_n_slots(r->group))
        atomic_fetch_add(&r->n_bad_slots, 1);
    else if (atomic_fetch_add(&r->in_slot[slot], 1) != 0)
        atomic_fetch_add(&r->n_shared_slots, 1);
    while (atomic_load(&r->is_held))
        sleep_ms(1);
    if (self->sleep_us > 0)
        (void)nanosleep(&(struct timespec){0, self->sleep_us * 1000L}, NULL);
    if (slot < MAX_SLOTS)
        atomic_fetch_sub(&r->in_slot[slot], 1);
    atomic_fetch_sub(&r->n_running, 1);
    n_run = atomic_fetch_add(&r->n_run, 1);
    if (self->name != 0 && n_run < 60)
        r->order[n_run] = self->name;
    if (n_run < 2000)
        r->threads[n_run] = pthread_self();
}

static inline void
submit(test_job *job, record *r, char name, scio_priority priority)
{
    job->job.run = run_test_job;
    job->record = r;
    job->name = name;
    scio_group_submit(r->group, &job->job, priority);
}

static inline void
check_record(record *r, int n_run)
{
    CHECK(atomic_load(&r->n_run) == n_run);
    CHECK(atomic_load(&r->n_shared_slots) == 0);
    CHECK(atomic_load(&r->n_bad_slots) == 0);
    CHECK(atomic_load(&r->n_running) == 0);
}

static inline void *
wait_for_group(void *group)
{
    scio_group_wait(group);
    return NULL;
}

/* Exit code of a child that runs the function; -1 when it hung (20 s) or died. */
static inline int
in_child(int (*fn)(void))
{
    const double begin = seconds();
    const pid_t child = fork();
    int how = 0;
    pid_t ended;

    if (child == 0)
        _exit(fn());
    CHECK(child > 0);
    while ((ended = waitpid(child, &how, WNOHANG)) == 0 && seconds() - begin < 20)
        sleep_ms(2);
    if (ended != child) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &how, 0);
        return -1;
    }
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static inline scio_status
do_nothing(void *context, size_t i_item, size_t slot, scio_error *err)
{
    (void)i_item;
    (void)slot;
    (void)err;
    if (context != NULL)
        atomic_fetch_add((atomic_int *)context, 1);
    return SCIO_OK;
}

#endif
