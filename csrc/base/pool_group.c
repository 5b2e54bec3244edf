/* Groups: queues of jobs with a limit of parallelism, and those who wait for them.
 *
 * A group that has a job queued and a slot free stands in its pool's line, from which the workers
 * take turns.  A group with no worker to serve it is run by whoever waits for it. */
#include "base/pool_private.h"

#include "base/mem.h"

#include <errno.h>
#include <time.h>

static bool
has_run_out(const scio_group *group)
{
    return group->n_queued == 0 && group->n_running == 0;
}

static bool
can_run(const scio_group *group)
{
    return group->n_queued > 0 && group->n_free > 0;
}

static void
leave_line_locked(scio_group *group)
{
    scio_pool *const pool = group->pool;

    if (!group->is_ready)
        return;
    *(group->previous != NULL ? &group->previous->next : &pool->first_ready) = group->next;
    *(group->next != NULL ? &group->next->previous : &pool->last_ready) = group->previous;
    group->previous = group->next = NULL;
    group->is_ready = false;
}

/* At the end of the line, if it has its reasons to stand there. */
static void
join_line_locked(scio_group *group)
{
    scio_pool *const pool = group->pool;

    if (group->is_ready || group->is_made_inline || !can_run(group))
        return;
    group->previous = pool->last_ready;
    *(pool->last_ready != NULL ? &pool->last_ready->next : &pool->first_ready) = group;
    pool->last_ready = group;
    group->is_ready = true;
}

static scio_job *
pop_job_locked(scio_group *group)
{
    scio_job_list *const list =
        &group->queued[group->queued[SCIO_PRIORITY_HIGH].first != NULL ? SCIO_PRIORITY_HIGH
                                                                       : SCIO_PRIORITY_LOW];
    scio_job *const job = list->first;

    list->first = job->next;
    if (list->first == NULL)
        list->last = NULL;
    job->next = NULL;
    group->n_queued--;
    return job;
}

void
scio_group_run_one_locked(scio_group *group)
{
    scio_pool *const pool = group->pool;
    const size_t slot = group->free_slots[--group->n_free];
    scio_job *const job = pop_job_locked(group);

    group->n_running++;
    leave_line_locked(group);
    join_line_locked(group);
    scio_pool_wake_worker_locked(pool);
    scio_pool_unlock(pool);
    job->run(job, slot);
    scio_pool_lock(pool);
    group->n_running--;
    group->free_slots[group->n_free++] = slot;
    if (group->is_abandoned) { /* the worker that came in its place may go */
        pool->n_lost--;
        (void)pthread_cond_broadcast(&pool->has_work);
    }
    join_line_locked(group);
    if ((group->n_waiting > 0 && has_run_out(group)) || (group->n_helping > 0 && can_run(group)))
        (void)pthread_cond_broadcast(&pool->has_changed);
}

/* --- groups --- */

scio_status
scio_group_new(scio_pool *pool, size_t max_parallel, scio_group **out, scio_error *err)
{
    const size_t n_threads = scio_pool_n_threads(pool);
    size_t n_slots = max_parallel < n_threads ? max_parallel : n_threads;
    scio_group *group;

    *out = NULL;
    if (scio_pool_is_foreign(pool))
        return scio_fail(err, SCIO_EINVAL, "the pool was made before a fork");
    n_slots = n_slots > 0 ? n_slots : 1;
    SCIO_TRY(
        scio_mem_zalloc(1, sizeof *group + n_slots * sizeof group->free_slots[0], &group, err));
    group->pool = pool;
    group->n_slots = group->n_free = n_slots;
    group->is_made_inline = max_parallel == 0 || n_threads == 0;
    for (size_t i = 0; i < n_slots; i++)
        group->free_slots[i] = n_slots - 1 - i; /* slot 0 is taken first */
    *out = group;
    return SCIO_OK;
}

static size_t
cancel_locked(scio_group *group)
{
    const size_t n_dropped = group->n_queued;

    for (int i = 0; i < SCIO_N_PRIORITIES; i++)
        group->queued[i] = (scio_job_list){NULL, NULL};
    group->n_queued = 0;
    leave_line_locked(group);
    if (group->n_waiting > 0 && has_run_out(group))
        (void)pthread_cond_broadcast(&group->pool->has_changed);
    return n_dropped;
}

size_t
scio_group_cancel(scio_group *group)
{
    size_t n_dropped;

    if (scio_pool_is_foreign(group->pool))
        return 0;
    scio_pool_lock(group->pool);
    n_dropped = cancel_locked(group);
    scio_pool_unlock(group->pool);
    return n_dropped;
}

void
scio_group_abandon(scio_group *group)
{
    scio_pool *const pool = group->pool;

    if (group->is_made_inline || scio_pool_is_foreign(pool))
        return;
    scio_pool_lock(pool);
    (void)cancel_locked(group);
    if (!group->is_abandoned && group->n_running > 0) {
        group->is_abandoned = true;
        scio_pool_replace_workers_locked(pool, group->n_running);
    }
    scio_pool_unlock(pool);
}

void
scio_group_free(scio_group *group)
{
    if (group == NULL)
        return;
    if (!scio_pool_is_foreign(group->pool)) {
        scio_pool_lock(group->pool);
        (void)cancel_locked(group);
        group->n_waiting++;
        while (group->n_running > 0)
            (void)pthread_cond_wait(&group->pool->has_changed, &group->pool->mutex);
        scio_pool_unlock(group->pool);
    }
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

    if (group->is_made_inline || scio_pool_is_foreign(group->pool))
        return true;
    scio_pool_lock(group->pool);
    is_inline = scio_pool_has_no_workers_locked(group->pool);
    scio_pool_unlock(group->pool);
    return is_inline;
}

void
scio_group_submit(scio_group *group, scio_job *job, scio_priority priority)
{
    scio_pool *const pool = group->pool;
    scio_job_list *const list = &group->queued[priority];

    if (scio_pool_is_foreign(pool))
        return;
    job->next = NULL;
    scio_pool_lock(pool);
    *(list->last != NULL ? &list->last->next : &list->first) = job;
    list->last = job;
    group->n_queued++;
    join_line_locked(group);
    if (pool->may_start && !group->is_made_inline)
        scio_pool_start_missing_locked(pool);
    scio_pool_wake_worker_locked(pool);
    if (group->n_helping > 0)
        (void)pthread_cond_broadcast(&pool->has_changed);
    scio_pool_unlock(pool);
}

bool
scio_group_help(scio_group *group)
{
    bool has_helped;

    if (scio_pool_is_foreign(group->pool))
        return false;
    scio_pool_lock(group->pool);
    has_helped = can_run(group);
    if (has_helped)
        scio_group_run_one_locked(group);
    scio_pool_wake_worker_locked(group->pool);
    scio_pool_unlock(group->pool);
    return has_helped;
}

static bool
is_over(const struct timespec *deadline)
{
    struct timespec now;

    if (deadline == NULL)
        return false;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec ||
           (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

/* Sleeps until something changes for the group; false when the time is over. */
static bool
sleep_locked(scio_group *group, bool is_helper, const struct timespec *deadline)
{
    scio_pool *const pool = group->pool;
    int code = 0;

    group->n_waiting++;
    group->n_helping += is_helper;
    if (deadline == NULL)
        (void)pthread_cond_wait(&pool->has_changed, &pool->mutex);
    else
        code = pthread_cond_timedwait(&pool->has_changed, &pool->mutex, deadline);
    group->n_waiting--;
    group->n_helping -= is_helper;
    return code != ETIMEDOUT;
}

/* A worker that waits for a group of its own pool runs the group's jobs itself: the others may all
 * be waiting just so. */
static bool
wait_until(scio_group *group, const struct timespec *deadline)
{
    scio_pool *const pool = group->pool;
    bool is_idle;

    if (scio_pool_is_foreign(pool))
        return true;
    scio_pool_lock(pool);
    while (!has_run_out(group)) {
        const bool is_helper = group->is_made_inline || scio_pool_is_worker(pool) ||
                               scio_pool_has_no_workers_locked(pool);

        if (is_helper && can_run(group)) {
            scio_group_run_one_locked(group);
            scio_pool_wake_worker_locked(pool);
            if (is_over(deadline))
                break;
        } else if (!sleep_locked(group, is_helper, deadline)) {
            break;
        }
    }
    is_idle = has_run_out(group);
    scio_pool_unlock(pool);
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
