/* Ordered, bounded queue: items are put by sequence number in any order and taken in order. */
#ifndef SCIO_BASE_QUEUE_H
#define SCIO_BASE_QUEUE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_queue scio_queue;

typedef enum scio_take {
    SCIO_TAKE_ITEM,
    SCIO_TAKE_TIMEOUT,
    SCIO_TAKE_CANCELLED,
    SCIO_TAKE_END
} scio_take;

/* Holds the items with sequence numbers [next, next + capacity). */
SCIO_MUST_CHECK scio_status scio_queue_new(size_t capacity, scio_queue **out, scio_error *err);
/* Items still inside are given to `drop` (may be NULL).  NULL queue allowed. */
void scio_queue_free(scio_queue *queue, void (*drop)(void *item));
/* EBUG when seq lies outside the window or is already filled; ECANCEL after cancel (the caller
 * keeps the item in both cases).  Never blocks: whoever makes items asks scio_queue_has_room first.
 */
SCIO_MUST_CHECK scio_status scio_queue_put(scio_queue *queue, uint64_t seq, void *item,
                                           scio_error *err);
bool scio_queue_has_room(scio_queue *queue, uint64_t seq);
/* Waits at most timeout_ms for the next item in order. */
scio_take scio_queue_take(scio_queue *queue, unsigned timeout_ms, void **item_out);
/* No item has a number >= n_items: take answers END there. */
void scio_queue_set_end(scio_queue *queue, uint64_t n_items);
/* Wakes all takers; items already inside stay until free. */
void scio_queue_cancel(scio_queue *queue);

#endif
