/* Loops whose items are shared out among the workers of a pool. */
#include "base/pool_private.h"

#include "base/mem.h"

typedef struct loop {
    scio_item_fn fn;
    void *context;
    size_t n_items;
    const volatile int *cancel;
    atomic_size_t next;
    atomic_bool has_failed;
    pthread_mutex_t mutex;
    /* guarded by mutex: */
    size_t i_failed; /* the lowest item that failed */
    scio_error failure;
} loop;

typedef struct loop_job {
    scio_job job; /* first: the pool hands it back */
    loop *loop;
} loop_job;

static void
note_failure(loop *l, size_t i_item, const scio_error *failure)
{
    (void)pthread_mutex_lock(&l->mutex);
    if (i_item < l->i_failed) {
        l->i_failed = i_item;
        l->failure = *failure;
    }
    (void)pthread_mutex_unlock(&l->mutex);
    atomic_store_explicit(&l->has_failed, true, memory_order_relaxed);
}

/* Items are taken in order and each that was taken is run to its end, so the lowest item that fails
 * is always among those that ran: which failure is reported does not depend on the threads. */
static void
run_loop(loop *l, size_t slot)
{
    scio_error failure = SCIO_ERROR_INIT;

    while (!atomic_load_explicit(&l->has_failed, memory_order_relaxed)) {
        const size_t i_item = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
        scio_status status;

        if (i_item >= l->n_items)
            return;
        if (l->cancel != NULL && __atomic_load_n(l->cancel, __ATOMIC_RELAXED) != 0)
            status = scio_fail(&failure, SCIO_ECANCEL, "cancelled");
        else
            status = l->fn(l->context, i_item, slot, &failure);
        if (status == SCIO_OK)
            continue;
        (void)scio_fail(&failure, status, "item %zu failed", i_item); /* unless it said more */
        note_failure(l, i_item, &failure);
    }
}

static void
run_loop_job(scio_job *job, size_t slot)
{
    run_loop(((loop_job *)job)->loop, slot);
}

static scio_status
run_loop_in_pool(scio_pool *pool, size_t n_slots, loop *l, scio_error *err)
{
    scio_group *group = NULL;
    loop_job *jobs = NULL;
    scio_status status;

    status = scio_mem_zalloc(n_slots, sizeof *jobs, &jobs, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_group_new(pool, n_slots, &group, err);
    if (status != SCIO_OK)
        goto done;
    for (size_t i = 0; i < n_slots; i++) {
        jobs[i].job.run = run_loop_job;
        jobs[i].loop = l;
        scio_group_submit(group, &jobs[i].job, SCIO_PRIORITY_HIGH);
    }
    scio_group_wait(group);
done:
    scio_group_free(group);
    scio_mem_free(jobs);
    return status;
}

/* 1 for loops that run in the caller: in a worker of the pool, waiting for the others could last
 * for ever, since they may all do the same. */
static size_t
loop_n_slots(const scio_pool *pool, size_t max_parallel, size_t n_items)
{
    size_t n_slots = scio_pool_n_threads(pool);

    if (scio_pool_is_worker(pool) || scio_pool_is_foreign(pool))
        return 1;
    n_slots = max_parallel < n_slots ? max_parallel : n_slots;
    n_slots = n_items < n_slots ? n_items : n_slots;
    return n_slots > 0 ? n_slots : 1;
}

size_t
scio_parallel_n_slots(const scio_pool *pool, size_t max_parallel, size_t n_items)
{
    scio_pool *shared;

    if (pool != NULL)
        return loop_n_slots(pool, max_parallel, n_items);
    if (scio_pool_shared(&shared, NULL) != SCIO_OK)
        return 1;
    return loop_n_slots(shared, max_parallel, n_items);
}

scio_status
scio_parallel_for(scio_pool *pool, size_t max_parallel, size_t n_items, scio_item_fn fn,
                  void *context, const volatile int *cancel, scio_error *err)
{
    loop l = {.fn = fn, .context = context, .n_items = n_items, .cancel = cancel};
    scio_status status = SCIO_OK;
    size_t n_slots;

    if (pool == NULL)
        SCIO_TRY(scio_pool_shared(&pool, err));
    n_slots = loop_n_slots(pool, max_parallel, n_items);
    l.i_failed = SIZE_MAX;
    (void)pthread_mutex_init(&l.mutex, NULL);
    if (n_slots == 1)
        run_loop(&l, 0);
    else
        status = run_loop_in_pool(pool, n_slots, &l, err);
    if (status == SCIO_OK && l.failure.code != SCIO_OK) {
        scio_error_move(err, &l.failure);
        status = l.failure.code;
    }
    (void)pthread_mutex_destroy(&l.mutex);
    return status;
}
