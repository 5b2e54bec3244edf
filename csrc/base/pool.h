/* The worker threads.  One process-wide pool; work comes to it in groups.
 *
 * A group is a queue of jobs of one owner (a read, a loader) with its own limit of parallelism.
 * Jobs are intrusive: the owner embeds scio_job in its own struct, so submitting never allocates
 * and never fails.  A group with max_parallel 0, or any group when the pool has 0 threads, is
 * inline: its jobs run in whoever calls scio_group_wait or scio_group_help.
 *
 * Fork: threads do not survive a fork.  scio_pool_shared() in a child makes a new pool (the
 * parent's is left alone); groups made before the fork must not be used in the child: there, submit
 * drops the job, help and wait find nothing to do, and free frees.
 *
 * Lock order: owner's lock, then the pool's one mutex.  Jobs run with no lock held. */
#ifndef SCIO_BASE_POOL_H
#define SCIO_BASE_POOL_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_pool scio_pool;
typedef struct scio_group scio_group;
typedef struct scio_job scio_job;

struct scio_job {
    /* `slot` is in [0, scio_group_n_slots(group)); no two running jobs of a group share one, so it
     * indexes per-worker scratch. */
    void (*run)(scio_job *job, size_t slot);
    scio_job *next; /* the group's; do not touch */
};

typedef enum scio_priority { SCIO_PRIORITY_HIGH, SCIO_PRIORITY_LOW } scio_priority;

/* Threads start when the first job comes. */
SCIO_MUST_CHECK scio_status scio_pool_new(size_t n_threads, scio_pool **out, scio_error *err);
/* All groups must be freed before; joins the threads.  NULL allowed. */
void scio_pool_free(scio_pool *pool);
size_t scio_pool_n_threads(const scio_pool *pool);
/* Grows at once; shrinks as threads fall idle. */
SCIO_MUST_CHECK scio_status scio_pool_resize(scio_pool *pool, size_t n_threads, scio_error *err);

/* The process-wide pool, made on first use with SCIO_THREADS or scio_cpu_count() threads, remade in
 * a forked child; borrowed, never freed by the caller.  EINVAL when SCIO_THREADS is not a number in
 * [0, 1024]. */
SCIO_MUST_CHECK scio_status scio_pool_shared(scio_pool **out, scio_error *err);

SCIO_MUST_CHECK scio_status scio_group_new(scio_pool *pool, size_t max_parallel, scio_group **out,
                                           scio_error *err);
/* Cancels what is queued, waits for what runs.  NULL allowed. */
void scio_group_free(scio_group *group);
/* max(1, min(max_parallel, threads of the pool when the group was made)). */
size_t scio_group_n_slots(const scio_group *group);
/* True for groups made inline, which stay so, and while the pool has no worker to serve the group.
 */
bool scio_group_is_inline(const scio_group *group);
/* Queues `job` (owned by the caller until it has run or was cancelled).  First in, first out within
 * a priority; HIGH before LOW. */
void scio_group_submit(scio_group *group, scio_job *job, scio_priority priority);
/* Runs one queued job in the caller, of groups that are not inline too; false when none is queued
 * or all slots are taken. */
bool scio_group_help(scio_group *group);
/* Waits until nothing is queued or running; an inline group's jobs are run here. */
void scio_group_wait(scio_group *group);
/* As wait, at most timeout_ms (inline: runs jobs until the time is over); true when idle. */
bool scio_group_wait_ms(scio_group *group, unsigned timeout_ms);
/* Drops the queued jobs without running them and returns how many; running ones go on. */
size_t scio_group_cancel(scio_group *group);

/* Gives up on the jobs that run, whose storage may hang: they keep their threads, and the pool
 * works with others in their place until they end.  Free the group when it is idle. */
void scio_group_abandon(scio_group *group);

/* Loop over [0, n_items) with at most max_parallel jobs of the pool (NULL = the shared one); waits.
 * The error of the lowest item that fails wins, however many threads there are; later items are
 * skipped.  In a worker of the same pool the loop runs in the caller.  `cancel` (may be NULL) is
 * looked at once per item and gives ECANCEL.  `fn` gets the slot for per-worker scratch; slots are
 * below scio_parallel_n_slots. */
typedef scio_status (*scio_item_fn)(void *context, size_t i_item, size_t slot, scio_error *err);
SCIO_MUST_CHECK scio_status scio_parallel_for(scio_pool *pool, size_t max_parallel, size_t n_items,
                                              scio_item_fn fn, void *context,
                                              const volatile int *cancel, scio_error *err);
/* Upper bound of slots for a loop of n_items.  Pass the result to scio_parallel_for as
 * max_parallel: the pool may be resized between the two calls, and slots never reach max_parallel
 * (slot 0 apart). */
size_t scio_parallel_n_slots(const scio_pool *pool, size_t max_parallel, size_t n_items);

#endif
