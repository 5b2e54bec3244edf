/* Worker threads take jobs from groups in round robin: a list of groups with work, one mutex. */
#include "base/pool.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/stats.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, N_PRIORITIES = 2 };

typedef struct job_list {
    scio_job *first, *last;
} job_list;

struct scio_pool {
    pthread_mutex_t mutex;
    pthread_cond_t has_work; /* a worker may find a job, or must end */
    /* guarded by mutex: */
    size_t n_wanted;  /* threads that there shall be */
    size_t n_running; /* threads that there are */
    scio_group *groups; /* ring of all groups, for round robin */
    bool is_ending;
    pthread_cond_t has_ended; /* a thread has left */
};

struct scio_group {
    scio_pool *pool;
    size_t max_parallel;
    size_t n_slots;
    scio_group *next, *previous; /* ring of the pool's groups */
    pthread_cond_t is_idle;
    /* guarded by the pool's mutex: */
    job_list queued[N_PRIORITIES];
    size_t n_queued, n_running;
    bool *is_slot_taken; /* [n_slots] */
};

/* True in a thread of a pool: loops inside a job run inline, since waiting there could starve. */
static _Thread_local bool is_worker;

/* --- jobs of a group, all _locked: the caller holds the pool's mutex --- */

static scio_job *
pop_locked(scio_group *group)
{
    for (size_t p = 0; p < N_PRIORITIES; p++) {
        job_list *list = &group->queued[p];
        scio_job *job = list->first;

        if (job == NULL)
            continue;
        list->first = job->next;
        if (list->first == NULL)
            list->last = NULL;
        job->next = NULL;
        group->n_queued--;
        return job;
    }
    return NULL;
}

static size_t
take_slot_locked(scio_group *group)
{
    for (size_t slot = 0; slot < group->n_slots; slot++) {
        if (!group->is_slot_taken[slot]) {
            group->is_slot_taken[slot] = true;
            return slot;
        }
    }
    return SIZE_MAX;
}

static bool
is_inline_locked(const scio_group *group)
{
    return group->max_parallel == 0 || group->pool->n_wanted == 0;
}

static bool
may_run_locked(const scio_group *group)
{
    return group->n_queued > 0 && group->n_running < group->n_slots;
}

/* The next group in the ring that a worker may serve; the ring moves on so that all get their turn. */
static scio_group *
next_group_locked(scio_pool *pool)
{
    scio_group *const first = pool->groups;

    if (first == NULL)
        return NULL;
    for (scio_group *group = first;; group = group->next) {
        if (group->max_parallel > 0 && may_run_locked(group)) {
            pool->groups = group->next;
            return group;
        }
        if (group->next == first)
            return NULL;
    }
}

/* Runs one job of the group in the calling thread; the mutex is released meanwhile. */
static void
run_one_locked(scio_group *group)
{
    scio_pool *const pool = group->pool;
    const size_t slot = take_slot_locked(group);
    scio_job *const job = pop_locked(group);

    group->n_running++;
    (void)pthread_mutex_unlock(&pool->mutex);
    job->run(job, slot);
    (void)pthread_mutex_lock(&pool->mutex);
    group->is_slot_taken[slot] = false;
    group->n_running--;
    if (group->n_queued == 0 && group->n_running == 0)
        (void)pthread_cond_broadcast(&group->is_idle);
}

/* --- threads --- */

static void *
work(void *argument)
{
    scio_pool *const pool = argument;

    is_worker = true;
    (void)pthread_mutex_lock(&pool->mutex);
    for (;;) {
        scio_group *group;

        if (pool->is_ending || pool->n_running > pool->n_wanted)
            break;
        group = next_group_locked(pool);
        if (group != NULL) {
            run_one_locked(group);
            continue;
        }
        (void)pthread_cond_wait(&pool->has_work, &pool->mutex);
    }
    pool->n_running--;
    scio_stats_add(SCIO_STAT_live_threads, -1);
    (void)pthread_cond_broadcast(&pool->has_ended);
    (void)pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* Threads are detached: the pool counts them and waits for the count.  All signals are blocked in them,
 * so that Python's handlers run in Python's main thread. */
static bool
start_thread_locked(scio_pool *pool)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    int code;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    code = pthread_create(&thread, &attributes, work, pool);
    (void)pthread_attr_destroy(&attributes);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0)
        return false;
    pool->n_running++;
    scio_stats_add(SCIO_STAT_live_threads, 1);
#if defined(__linux__)
    (void)pthread_setname_np(thread, "scio");
#endif
    return true;
}

/* Wakes a worker for one more job; the first submits start the threads, one each. */
static void
call_worker_locked(scio_pool *pool)
{
    if (pool->n_running < pool->n_wanted)
        (void)start_thread_locked(pool);
    (void)pthread_cond_signal(&pool->has_work);
}

static void
init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;

    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

/* --- pool --- */

static scio_status
check_count(size_t n_threads, scio_error *err)
{
    if (n_threads > MAX_THREADS)
        return scio_fail(err, SCIO_EINVAL, "%zu threads; the range is 0 to %d", n_threads, MAX_THREADS);
    return SCIO_OK;
}

scio_status
scio_pool_new(size_t n_threads, scio_pool **out, scio_error *err)
{
    scio_pool *pool = NULL;

    *out = NULL;
    SCIO_TRY(check_count(n_threads, err));
    SCIO_TRY(scio_mem_zalloc(1, sizeof *pool, &pool, err));
    (void)pthread_mutex_init(&pool->mutex, NULL);
    init_condition(&pool->has_work);
    init_condition(&pool->has_ended);
    pool->n_wanted = n_threads;
    *out = pool;
    return SCIO_OK;
}

void
scio_pool_free(scio_pool *pool)
{
    if (pool == NULL)
        return;
    (void)pthread_mutex_lock(&pool->mutex);
    pool->is_ending = true;
    (void)pthread_cond_broadcast(&pool->has_work);
    while (pool->n_running > 0)
        (void)pthread_cond_wait(&pool->has_ended, &pool->mutex);
    (void)pthread_mutex_unlock(&pool->mutex);
    (void)pthread_cond_destroy(&pool->has_work);
    (void)pthread_cond_destroy(&pool->has_ended);
    (void)pthread_mutex_destroy(&pool->mutex);
    scio_mem_free(pool);
}

size_t
scio_pool_n_threads(const scio_pool *pool)
{
    pthread_mutex_t *const mutex = (pthread_mutex_t *)&pool->mutex;
    size_t n_threads;

    (void)pthread_mutex_lock(mutex);
    n_threads = pool->n_wanted;
    (void)pthread_mutex_unlock(mutex);
    return n_threads;
}

scio_status
scio_pool_resize(scio_pool *pool, size_t n_threads, scio_error *err)
{
    SCIO_TRY(check_count(n_threads, err));
    (void)pthread_mutex_lock(&pool->mutex);
    pool->n_wanted = n_threads;
    while (pool->groups != NULL && pool->n_running < pool->n_wanted && start_thread_locked(pool))
        continue;
    (void)pthread_cond_broadcast(&pool->has_work);
    if (pool->groups != NULL && n_threads == 0) {
        /* whoever waits for a group must wake to run its jobs */
        scio_group *group = pool->groups;
        do {
            (void)pthread_cond_broadcast(&group->is_idle);
            group = group->next;
        } while (group != pool->groups);
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return SCIO_OK;
}

/* --- the shared pool --- */

static pthread_mutex_t shared_mutex = PTHREAD_MUTEX_INITIALIZER;
static scio_pool *shared_pool; /* guarded by shared_mutex */
static pthread_once_t fork_handler_once = PTHREAD_ONCE_INIT;

/* In a child the parent's pool has no threads and its mutex may be held for ever: forget it. */
static void
forget_in_child(void)
{
    (void)pthread_mutex_init(&shared_mutex, NULL);
    shared_pool = NULL;
    is_worker = false;
}

static void
install_fork_handler(void)
{
    (void)pthread_atfork(NULL, NULL, forget_in_child);
}

static scio_status
wanted_threads(size_t *out, scio_error *err)
{
    const char *text = getenv("SCIO_THREADS");
    char *end = NULL;
    unsigned long value;

    *out = scio_cpu_count();
    if (text == NULL || text[0] == '\0')
        return SCIO_OK;
    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9' || value > MAX_THREADS)
        return scio_fail(err, SCIO_EINVAL, "SCIO_THREADS is \"%s\"; it is a number from 0 to %d", text,
                         MAX_THREADS);
    *out = (size_t)value;
    return SCIO_OK;
}

scio_status
scio_pool_shared(scio_pool **out, scio_error *err)
{
    scio_status status = SCIO_OK;
    size_t n_threads = 0;

    *out = NULL;
    (void)pthread_once(&fork_handler_once, install_fork_handler);
    (void)pthread_mutex_lock(&shared_mutex);
    if (shared_pool == NULL) {
        status = wanted_threads(&n_threads, err);
        if (status == SCIO_OK)
            status = scio_pool_new(n_threads, &shared_pool, err);
    }
    *out = shared_pool;
    (void)pthread_mutex_unlock(&shared_mutex);
    return status;
}

/* --- groups --- */

scio_status
scio_group_new(scio_pool *pool, size_t max_parallel, scio_group **out, scio_error *err)
{
    scio_group *group = NULL;
    const size_t n_threads = scio_pool_n_threads(pool);
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *group, &group, err));
    group->pool = pool;
    group->max_parallel = max_parallel;
    group->n_slots = max_parallel < n_threads ? max_parallel : n_threads;
    if (group->n_slots == 0)
        group->n_slots = 1;
    status = scio_mem_zalloc(group->n_slots, sizeof *group->is_slot_taken, &group->is_slot_taken, err);
    if (status != SCIO_OK) {
        scio_mem_free(group);
        return status;
    }
    init_condition(&group->is_idle);
    (void)pthread_mutex_lock(&pool->mutex);
    if (pool->groups == NULL) {
        group->next = group->previous = group;
        pool->groups = group;
    } else {
        group->next = pool->groups;
        group->previous = pool->groups->previous;
        group->previous->next = group;
        group->next->previous = group;
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    *out = group;
    return SCIO_OK;
}

size_t
scio_group_cancel(scio_group *group)
{
    size_t n_dropped = 0;

    (void)pthread_mutex_lock(&group->pool->mutex);
    while (pop_locked(group) != NULL)
        n_dropped++;
    if (group->n_running == 0)
        (void)pthread_cond_broadcast(&group->is_idle);
    (void)pthread_mutex_unlock(&group->pool->mutex);
    return n_dropped;
}

void
scio_group_free(scio_group *group)
{
    scio_pool *pool;

    if (group == NULL)
        return;
    pool = group->pool;
    (void)scio_group_cancel(group);
    (void)pthread_mutex_lock(&pool->mutex);
    while (group->n_running > 0)
        (void)pthread_cond_wait(&group->is_idle, &pool->mutex);
    group->previous->next = group->next;
    group->next->previous = group->previous;
    if (pool->groups == group)
        pool->groups = group->next == group ? NULL : group->next;
    (void)pthread_mutex_unlock(&pool->mutex);
    (void)pthread_cond_destroy(&group->is_idle);
    scio_mem_free(group->is_slot_taken);
    scio_mem_free(group);
}

size_t
scio_group_n_slots(const scio_group *group)
{
    return group->n_slots;
}

bool
scio_group_is_inline(const scio_group *group)
{
    bool is_inline;

    (void)pthread_mutex_lock(&group->pool->mutex);
    is_inline = is_inline_locked(group);
    (void)pthread_mutex_unlock(&group->pool->mutex);
    return is_inline;
}

void
scio_group_submit(scio_group *group, scio_job *job, scio_priority priority)
{
    scio_pool *const pool = group->pool;
    job_list *const list = &group->queued[priority];

    job->next = NULL;
    (void)pthread_mutex_lock(&pool->mutex);
    if (list->last == NULL)
        list->first = job;
    else
        list->last->next = job;
    list->last = job;
    group->n_queued++;
    if (!is_inline_locked(group) && may_run_locked(group))
        call_worker_locked(pool);
    (void)pthread_mutex_unlock(&pool->mutex);
}

/* A group whose pool has no thread at all (none could be started) is helped as an inline one. */
static bool
needs_help_locked(const scio_group *group)
{
    return may_run_locked(group) && (is_inline_locked(group) || group->pool->n_running == 0);
}

bool
scio_group_help(scio_group *group)
{
    bool has_run = false;

    (void)pthread_mutex_lock(&group->pool->mutex);
    if (needs_help_locked(group)) {
        run_one_locked(group);
        has_run = true;
    }
    (void)pthread_mutex_unlock(&group->pool->mutex);
    return has_run;
}

static bool
wait_until(scio_group *group, const struct timespec *deadline)
{
    scio_pool *const pool = group->pool;
    bool is_idle;

    (void)pthread_mutex_lock(&pool->mutex);
    for (;;) {
        is_idle = group->n_queued == 0 && group->n_running == 0;
        if (is_idle)
            break;
        if (needs_help_locked(group)) {
            struct timespec now;

            run_one_locked(group);
            (void)clock_gettime(CLOCK_MONOTONIC, &now);
            if (deadline != NULL &&
                (now.tv_sec > deadline->tv_sec ||
                 (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec))) {
                is_idle = group->n_queued == 0 && group->n_running == 0;
                break;
            }
        } else if (deadline == NULL) {
            (void)pthread_cond_wait(&group->is_idle, &pool->mutex);
        } else if (pthread_cond_timedwait(&group->is_idle, &pool->mutex, deadline) == ETIMEDOUT) {
            is_idle = group->n_queued == 0 && group->n_running == 0;
            break;
        }
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return is_idle;
}

void
scio_group_wait(scio_group *group)
{
    (void)wait_until(group, NULL);
}

bool
scio_group_wait_ms(scio_group *group, unsigned timeout_ms)
{
    struct timespec deadline;

    (void)clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += (time_t)(timeout_ms / 1000);
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000L;
    }
    return wait_until(group, &deadline);
}

/* --- loops --- */

typedef struct loop {
    scio_item_fn fn;
    void *context;
    size_t n_items;
    const volatile int *cancel;
    _Atomic size_t next;
    _Atomic bool has_failed;
    pthread_mutex_t mutex;
    /* guarded by mutex: the failure of the lowest item that failed */
    scio_error error;
    size_t i_failed;
} loop;

typedef struct loop_job {
    scio_job job; /* first: the pool hands it back */
    loop *loop;
} loop_job;

static void
note_failure(loop *l, size_t i_item, const scio_error *error)
{
    (void)pthread_mutex_lock(&l->mutex);
    if (l->error.code == SCIO_OK || i_item < l->i_failed) {
        l->error = *error;
        l->i_failed = i_item;
    }
    (void)pthread_mutex_unlock(&l->mutex);
    atomic_store(&l->has_failed, true);
}

static void
run_loop(loop *l, size_t slot)
{
    while (!atomic_load_explicit(&l->has_failed, memory_order_relaxed)) {
        const size_t i_item = atomic_fetch_add(&l->next, 1);
        scio_error error = SCIO_ERROR_INIT;

        if (i_item >= l->n_items)
            return;
        if (l->cancel != NULL && *l->cancel != 0)
            (void)scio_fail(&error, SCIO_ECANCEL, "cancelled");
        else if (l->fn(l->context, i_item, slot, &error) == SCIO_OK)
            continue;
        if (error.code == SCIO_OK)
            (void)scio_fail(&error, SCIO_EBUG, "item %zu failed without a message", i_item);
        note_failure(l, i_item, &error);
    }
}

static void
run_loop_job(scio_job *job, size_t slot)
{
    run_loop(((loop_job *)job)->loop, slot);
}

/* The shared pool for NULL; NULL when that cannot be made. */
static scio_pool *
or_shared(const scio_pool *pool, scio_error *err)
{
    scio_pool *shared = NULL;

    if (pool != NULL)
        return (scio_pool *)pool;
    return scio_pool_shared(&shared, err) == SCIO_OK ? shared : NULL;
}

size_t
scio_parallel_n_slots(const scio_pool *pool, size_t max_parallel, size_t n_items)
{
    const scio_pool *const real = or_shared(pool, NULL);
    size_t n_slots = real == NULL ? 1 : scio_pool_n_threads(real);

    if (max_parallel < n_slots)
        n_slots = max_parallel;
    if (n_items < n_slots)
        n_slots = n_items;
    return n_slots == 0 ? 1 : n_slots;
}

static scio_status
run_loop_in_pool(scio_pool *pool, size_t n_slots, loop *l, scio_error *err)
{
    scio_group *group = NULL;
    loop_job *jobs = NULL;
    scio_status status;

    status = scio_mem_zalloc(n_slots, sizeof *jobs, &jobs, err);
    if (status == SCIO_OK)
        status = scio_group_new(pool, n_slots, &group, err);
    if (status == SCIO_OK) {
        for (size_t i = 0; i < n_slots; i++) {
            jobs[i].job.run = run_loop_job;
            jobs[i].loop = l;
            scio_group_submit(group, &jobs[i].job, SCIO_PRIORITY_HIGH);
        }
        scio_group_wait(group);
    }
    scio_group_free(group);
    scio_mem_free(jobs);
    return status;
}

scio_status
scio_parallel_for(scio_pool *pool, size_t max_parallel, size_t n_items, scio_item_fn fn, void *context,
                  const volatile int *cancel, scio_error *err)
{
    scio_pool *const real = or_shared(pool, err);
    const size_t n_slots = scio_parallel_n_slots(real, max_parallel, n_items);
    loop l = {.fn = fn, .context = context, .n_items = n_items, .cancel = cancel};
    scio_status status = SCIO_OK;

    if (real == NULL)
        return err != NULL ? err->code : SCIO_EINVAL;
    (void)pthread_mutex_init(&l.mutex, NULL);
    if (n_slots == 1 || is_worker)
        run_loop(&l, 0);
    else
        status = run_loop_in_pool(real, n_slots, &l, err);
    if (status == SCIO_OK && l.error.code != SCIO_OK) {
        scio_error_move(err, &l.error);
        status = l.error.code;
    }
    (void)pthread_mutex_destroy(&l.mutex);
    return status;
}
