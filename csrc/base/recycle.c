/* A few dozen slots; a block is put in and taken out by one atomic exchange.  Its size stands in
 * its own first bytes while it waits. */
#include "base/recycle.h"

#include <stdatomic.h>
#include <string.h>

enum { N_SLOTS = 64, CLASSES_PER_OCTAVE = 8 };

static _Atomic(void *) slots[N_SLOTS];
static atomic_size_t held_nbytes;
/* Blocks in slots or taken out to be looked at: never more than there are slots, so that whoever
 * looked at one always finds a slot to put it back into. */
static atomic_size_t n_blocks;

#if defined(__SANITIZE_ADDRESS__)
#define IS_RECYCLING false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_RECYCLING false
#endif
#endif
#if !defined(IS_RECYCLING)
#define IS_RECYCLING true
#endif

bool
scio_recycle_is_for(size_t nbytes)
{
    return IS_RECYCLING && nbytes >= SCIO_RECYCLED_MIN_NBYTES && nbytes <= SCIO_RECYCLED_MAX_NBYTES;
}

size_t
scio_recycle_capacity(size_t nbytes)
{
    size_t octave = SCIO_RECYCLED_MIN_NBYTES, step;

    while (octave <= nbytes / 2)
        octave *= 2;
    step = octave / CLASSES_PER_OCTAVE;
    return (nbytes + step - 1) / step * step;
}

static size_t
capacity_of(const void *block)
{
    size_t capacity;

    memcpy(&capacity, block, sizeof capacity);
    return capacity;
}

/* Into any free slot; false when all are taken. */
static bool
put_in_slot(void *block)
{
    for (size_t i = 0; i < N_SLOTS; i++) {
        void *expected = NULL;

        if (atomic_load_explicit(&slots[i], memory_order_relaxed) == NULL &&
            atomic_compare_exchange_strong(&slots[i], &expected, block))
            return true;
    }
    return false;
}

/* A block is looked at only by the thread that has taken it out: two threads never hold one. */
void *
scio_recycle_take(size_t capacity)
{
    for (size_t i = 0; i < N_SLOTS; i++) {
        void *block, *expected = NULL;

        if (atomic_load_explicit(&slots[i], memory_order_relaxed) == NULL)
            continue;
        block = atomic_exchange(&slots[i], NULL);
        if (block == NULL)
            continue;
        if (capacity_of(block) == capacity) {
            atomic_fetch_sub(&held_nbytes, capacity);
            atomic_fetch_sub(&n_blocks, 1);
            return block;
        }
        if (!atomic_compare_exchange_strong(&slots[i], &expected, block))
            while (!put_in_slot(block))
                continue;
    }
    return NULL;
}

bool
scio_recycle_give(void *block, size_t capacity)
{
    const size_t held = atomic_fetch_add(&held_nbytes, capacity) + capacity;
    const size_t n_here = atomic_fetch_add(&n_blocks, 1) + 1;

    if (held > SCIO_RECYCLED_HELD_NBYTES || n_here > N_SLOTS) {
        atomic_fetch_sub(&held_nbytes, capacity);
        atomic_fetch_sub(&n_blocks, 1);
        return false;
    }
    memcpy(block, &capacity, sizeof capacity);
    while (!put_in_slot(block))
        continue;
    return true;
}

size_t
scio_recycle_held(void)
{
    return atomic_load(&held_nbytes);
}
