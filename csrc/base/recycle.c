/* A few dozen slots.  Whoever exchanges a slot's pointer for `in_work` has the slot to itself, and
 * whoever finds that there goes on to the next: nobody waits. */
#include "base/recycle.h"

#include <stdatomic.h>
#include <stdint.h>

enum { N_SLOTS = 64, N_SPARE = 8, CLASSES_PER_OCTAVE = 8 };

typedef struct recycle_slot {
    _Atomic(void *) block;         /* NULL: none; &in_work: a thread is at it */
    atomic_size_t capacity, stamp; /* of the block; when it came.  Hints until the slot is ours */
} recycle_slot;

static char in_work;
static recycle_slot slots[N_SLOTS];
static atomic_size_t held_nbytes, n_blocks, reserved_nbytes, n_given;

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
scio_recycle_is_for(size_t nbytes, bool is_batch)
{
    return IS_RECYCLING && nbytes >= SCIO_RECYCLED_MIN_NBYTES &&
           nbytes <= (is_batch ? SIZE_MAX / 2 : SCIO_RECYCLED_MAX_NBYTES);
}

size_t
scio_recycle_capacity(size_t nbytes)
{
    size_t octave = SCIO_RECYCLED_MIN_NBYTES, step;

    if (nbytes > SIZE_MAX / 2)
        return nbytes;
    while (octave <= nbytes / 2)
        octave *= 2;
    step = octave / CLASSES_PER_OCTAVE;
    return (nbytes + step - 1) / step * step;
}

/* Takes the slot's block out and owns the slot until it is stored to; false when the slot holds
 * none, or another than was looked at. */
static bool
lock_slot(recycle_slot *slot, void **block_out)
{
    *block_out = atomic_load(&slot->block);
    return *block_out != NULL && *block_out != &in_work &&
           atomic_compare_exchange_strong(&slot->block, block_out, &in_work);
}

static void
empty_slot(recycle_slot *slot)
{
    atomic_fetch_sub(&held_nbytes, atomic_load_explicit(&slot->capacity, memory_order_relaxed));
    atomic_fetch_sub(&n_blocks, 1);
    atomic_store(&slot->block, NULL);
}

static bool
is_of(const recycle_slot *slot, size_t capacity)
{
    return atomic_load_explicit(&slot->capacity, memory_order_relaxed) == capacity;
}

void *
scio_recycle_take(size_t capacity)
{
    for (size_t i = 0; i < N_SLOTS; i++) {
        void *block;

        if (!is_of(&slots[i], capacity) || !lock_slot(&slots[i], &block))
            continue;
        if (is_of(&slots[i], capacity)) {
            empty_slot(&slots[i]);
            return block;
        }
        atomic_store(&slots[i].block, block); /* filled anew since it was looked at */
    }
    return NULL;
}

bool
scio_recycle_give(void *block, size_t capacity)
{
    if (capacity > scio_recycle_limit())
        return false;
    for (size_t i = 0; i < N_SLOTS; i++) {
        void *expected = NULL;

        if (!atomic_compare_exchange_strong(&slots[i].block, &expected, (void *)&in_work))
            continue;
        atomic_store_explicit(&slots[i].capacity, capacity, memory_order_relaxed);
        atomic_store_explicit(&slots[i].stamp, atomic_fetch_add(&n_given, 1), memory_order_relaxed);
        atomic_fetch_add(&held_nbytes, capacity);
        atomic_fetch_add(&n_blocks, 1);
        atomic_store(&slots[i].block, block);
        return true;
    }
    return false;
}

/* The slot that was filled first, or NULL when no slot has a block. */
static recycle_slot *
oldest_slot(void)
{
    recycle_slot *oldest = NULL;
    size_t oldest_stamp = SIZE_MAX;

    for (size_t i = 0; i < N_SLOTS; i++) {
        const size_t stamp = atomic_load_explicit(&slots[i].stamp, memory_order_relaxed);
        void *const block = atomic_load(&slots[i].block);

        if (block != NULL && block != &in_work && stamp <= oldest_stamp) {
            oldest = &slots[i];
            oldest_stamp = stamp;
        }
    }
    return oldest;
}

/* A few slots are kept free, so that whoever gives a block finds one. */
static bool
is_over_limit(void)
{
    return atomic_load(&held_nbytes) > scio_recycle_limit() ||
           atomic_load(&n_blocks) > N_SLOTS - N_SPARE;
}

void *
scio_recycle_evict(size_t *capacity_out)
{
    while (is_over_limit()) {
        recycle_slot *const slot = oldest_slot();
        void *block;

        if (slot == NULL)
            return NULL; /* all are in other hands for a moment */
        if (!lock_slot(slot, &block))
            continue;
        *capacity_out = atomic_load_explicit(&slot->capacity, memory_order_relaxed);
        empty_slot(slot);
        return block;
    }
    return NULL;
}

void
scio_recycle_reserve(size_t nbytes)
{
    atomic_fetch_add(&reserved_nbytes, nbytes);
}

void
scio_recycle_unreserve(size_t nbytes)
{
    atomic_fetch_sub(&reserved_nbytes, nbytes);
}

size_t
scio_recycle_held(void)
{
    return atomic_load(&held_nbytes);
}

size_t
scio_recycle_limit(void)
{
    const size_t reserved = atomic_load(&reserved_nbytes);

    return reserved > SIZE_MAX - SCIO_RECYCLED_HELD_NBYTES ? SIZE_MAX
                                                           : SCIO_RECYCLED_HELD_NBYTES + reserved;
}
