/* A ring of slots; slot seq % capacity belongs to sequence number seq while seq is in the window.
 */
#include "base/queue.h"

#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <time.h>

struct scio_queue {
    size_t capacity;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* guarded by mutex: */
    void **items;    /* [capacity] */
    bool *is_filled; /* [capacity] */
    uint64_t next;   /* sequence number that take gives next */
    uint64_t end;    /* items in all; UINT64_MAX = not known */
    bool is_cancelled;
};

static void
init_sync(scio_queue *queue)
{
    pthread_condattr_t attributes;

    (void)pthread_mutex_init(&queue->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&queue->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

scio_status
scio_queue_new(size_t capacity, scio_queue **out, scio_error *err)
{
    scio_queue *queue = NULL;
    scio_status status;

    *out = NULL;
    if (capacity == 0)
        return scio_fail(err, SCIO_EINVAL, "a queue holds at least one item, not 0");
    status = scio_mem_zalloc(1, sizeof *queue, &queue, err);
    if (status != SCIO_OK)
        return status;
    queue->capacity = capacity;
    queue->end = UINT64_MAX;
    status = scio_mem_zalloc(capacity, sizeof *queue->items, &queue->items, err);
    if (status == SCIO_OK)
        status = scio_mem_zalloc(capacity, sizeof *queue->is_filled, &queue->is_filled, err);
    if (status != SCIO_OK) {
        scio_mem_free(queue->items);
        scio_mem_free(queue);
        return status;
    }
    init_sync(queue);
    *out = queue;
    return SCIO_OK;
}

void
scio_queue_free(scio_queue *queue, void (*drop)(void *item))
{
    if (queue == NULL)
        return;
    for (size_t i = 0; i < queue->capacity; i++)
        if (queue->is_filled[i] && drop != NULL)
            drop(queue->items[i]);
    (void)pthread_cond_destroy(&queue->changed);
    (void)pthread_mutex_destroy(&queue->mutex);
    scio_mem_free(queue->items);
    scio_mem_free(queue->is_filled);
    scio_mem_free(queue);
}

scio_status
scio_queue_put(scio_queue *queue, uint64_t seq, void *item, scio_error *err)
{
    scio_status status = SCIO_OK;

    (void)pthread_mutex_lock(&queue->mutex);
    if (queue->is_cancelled)
        status = scio_fail(err, SCIO_ECANCEL, "the queue was cancelled");
    else if (seq < queue->next || seq - queue->next >= queue->capacity ||
             queue->is_filled[seq % queue->capacity])
        status = scio_fail(err, SCIO_EBUG,
                           "item %" PRIu64 " put into a queue that holds %zu from %" PRIu64 " on",
                           seq, queue->capacity, queue->next);
    else {
        queue->items[seq % queue->capacity] = item;
        queue->is_filled[seq % queue->capacity] = true;
        if (seq == queue->next)
            (void)pthread_cond_broadcast(&queue->changed);
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return status;
}

bool
scio_queue_has_room(scio_queue *queue, uint64_t seq)
{
    bool has_room;

    (void)pthread_mutex_lock(&queue->mutex);
    has_room = seq >= queue->next && seq - queue->next < queue->capacity;
    (void)pthread_mutex_unlock(&queue->mutex);
    return has_room;
}

/* Absolute time on the monotonic clock, timeout_ms from now. */
static struct timespec
deadline_after(unsigned timeout_ms)
{
    struct timespec at;

    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(timeout_ms / 1000);
    at.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000L;
    }
    return at;
}

/* What take would answer now; TIMEOUT = nothing yet. */
static scio_take
look_locked(scio_queue *queue, void **item_out)
{
    const size_t slot = (size_t)(queue->next % queue->capacity);

    if (queue->is_cancelled)
        return SCIO_TAKE_CANCELLED;
    if (queue->next >= queue->end)
        return SCIO_TAKE_END;
    if (!queue->is_filled[slot])
        return SCIO_TAKE_TIMEOUT;
    *item_out = queue->items[slot];
    queue->is_filled[slot] = false;
    queue->items[slot] = NULL;
    queue->next++;
    return SCIO_TAKE_ITEM;
}

scio_take
scio_queue_take(scio_queue *queue, unsigned timeout_ms, void **item_out)
{
    const struct timespec deadline = deadline_after(timeout_ms);
    scio_take answer;

    *item_out = NULL;
    (void)pthread_mutex_lock(&queue->mutex);
    while ((answer = look_locked(queue, item_out)) == SCIO_TAKE_TIMEOUT) {
        if (timeout_ms == 0 ||
            pthread_cond_timedwait(&queue->changed, &queue->mutex, &deadline) == ETIMEDOUT) {
            answer = look_locked(queue, item_out);
            break;
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return answer;
}

void
scio_queue_set_end(scio_queue *queue, uint64_t n_items)
{
    (void)pthread_mutex_lock(&queue->mutex);
    queue->end = n_items;
    (void)pthread_cond_broadcast(&queue->changed);
    (void)pthread_mutex_unlock(&queue->mutex);
}

void
scio_queue_cancel(scio_queue *queue)
{
    (void)pthread_mutex_lock(&queue->mutex);
    queue->is_cancelled = true;
    (void)pthread_cond_broadcast(&queue->changed);
    (void)pthread_mutex_unlock(&queue->mutex);
}
