/* Blocks that were given back and wait for the next buffer of their size.
 *
 * Fresh memory is touched for the first time page by page, which costs as much as decoding what
 * goes into it; batches are made and dropped at a fixed size, so their blocks go round.  Bounded;
 * any thread; no lock, so nothing can be held across a fork. */
#ifndef SCIO_BASE_RECYCLE_H
#define SCIO_BASE_RECYCLE_H

#include <stdbool.h>
#include <stddef.h>

#define SCIO_RECYCLED_MIN_NBYTES ((size_t)64 << 10)
#define SCIO_RECYCLED_MAX_NBYTES ((size_t)32 << 20)  /* of one block */
#define SCIO_RECYCLED_HELD_NBYTES ((size_t)96 << 20) /* of all that wait */

/* True for sizes that go round (never under AddressSanitizer, which must see each block die). */
bool scio_recycle_is_for(size_t nbytes);
/* Size of the block that holds nbytes: at most an eighth larger. */
size_t scio_recycle_capacity(size_t nbytes);
/* A waiting block of exactly this capacity, or NULL. */
void *scio_recycle_take(size_t capacity);
/* True when the block was taken in; else the caller frees it. */
bool scio_recycle_give(void *block, size_t capacity);
/* Bytes that wait now. */
size_t scio_recycle_held(void);

#endif
