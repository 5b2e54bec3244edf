/* What pool.c, pool_group.c and pool_loop.c share.  The caller of a _locked function holds the
 * mutex of the pool, which guards its groups too. */
#ifndef SCIO_BASE_POOL_PRIVATE_H
#define SCIO_BASE_POOL_PRIVATE_H

#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>

#define SCIO_N_PRIORITIES 2

typedef struct scio_worker {
    scio_pool *pool;
    size_t index; /* it leaves when the pool wants no more than that many threads */
    /* guarded by the pool's mutex: */
    pthread_t thread; /* to be joined if is_there */
    bool is_there;
} scio_worker;

struct scio_pool {
    unsigned age;            /* of the process that made it, in forks */
    atomic_size_t n_threads; /* wanted; written under the mutex */
    scio_pool *older;        /* forgotten pools: the next of them */
    pthread_mutex_t mutex;
    /* guarded by mutex: */
    pthread_cond_t has_work;    /* for idle workers */
    pthread_cond_t has_changed; /* for those who wait for a group */
    scio_worker **workers;      /* [n_workers] */
    size_t n_workers, n_live, n_idle;
    size_t n_lost;  /* jobs of abandoned groups that still run, each in a worker of its own */
    bool is_ending; /* threads are joined, not detached */
    bool may_start; /* there may be workers to start: none were tried since new or resize */
    scio_group *first_ready, *last_ready;
};

typedef struct scio_job_list {
    scio_job *first, *last;
} scio_job_list;

struct scio_group {
    scio_pool *pool;
    size_t n_slots;
    bool is_made_inline; /* never served by workers */
    /* guarded by the pool's mutex: */
    scio_job_list queued[SCIO_N_PRIORITIES];
    size_t n_queued, n_running;
    size_t n_waiting; /* threads asleep until it is idle */
    size_t n_helping; /* those of them that would run its jobs */
    bool is_abandoned;
    bool is_ready; /* it stands in the pool's line, between the next two */
    scio_group *previous, *next;
    size_t n_free;
    size_t free_slots[]; /* [n_slots], the first n_free are free */
};

void scio_pool_lock(scio_pool *pool);
void scio_pool_unlock(scio_pool *pool);
/* True in a child of the process that made the pool: its threads are not here, and its mutex may
 * have been held by one of them. */
bool scio_pool_is_foreign(const scio_pool *pool);
/* True in the pool's own threads. */
bool scio_pool_is_worker(const scio_pool *pool);
/* To be called by whoever leaves groups in the line. */
void scio_pool_wake_worker_locked(scio_pool *pool);
/* Makes room for so many workers more, wanted from now on. */
void scio_pool_replace_workers_locked(scio_pool *pool, size_t n_lost);
/* Starts the workers that are wanted and not there; when the system gives no more threads the pool
 * works with those that it has. */
void scio_pool_start_missing_locked(scio_pool *pool);
/* No worker is there and none will come with the next job. */
bool scio_pool_has_no_workers_locked(const scio_pool *pool);
/* Runs one job of a group that has one queued and a slot free in the calling thread; the mutex is
 * free meanwhile.  The job may be gone when it has run, the group when the mutex is next released.
 */
void scio_group_run_one_locked(scio_group *group);

#endif
