/* Blocks that were given back and wait for the next buffer of their size.
 *
 * Fresh memory is touched for the first time page by page, which costs as much as decoding what
 * goes into it; batches are made and dropped at a fixed size, so their blocks go round.  Bounded;
 * any thread; no lock, so nothing can be held across a fork.
 *
 * The bound is a small fixed one, and what those who make batches reserve beside it for as long as
 * they do.  Where a block would exceed it, those that wait longest go: blocks of sizes that nobody
 * asks for any more do not keep others out. */
#ifndef SCIO_BASE_RECYCLE_H
#define SCIO_BASE_RECYCLE_H

#include <stdbool.h>
#include <stddef.h>

#define SCIO_RECYCLED_MIN_NBYTES ((size_t)64 << 10)
#define SCIO_RECYCLED_MAX_NBYTES ((size_t)32 << 20)  /* of a block that is not a batch's */
#define SCIO_RECYCLED_HELD_NBYTES ((size_t)96 << 20) /* of all that wait, nothing reserved */

/* True for sizes that go round (never under AddressSanitizer, which must see each block die);
 * buffers of a batch do at any size. */
bool scio_recycle_is_for(size_t nbytes, bool is_batch);
/* Size of the block that holds nbytes: at most an eighth larger, or nbytes where that overflows. */
size_t scio_recycle_capacity(size_t nbytes);
/* A waiting block of exactly this capacity, or NULL. */
void *scio_recycle_take(size_t capacity);
/* True when the block was taken in; else the caller frees it.  Afterwards the caller frees what
 * scio_recycle_evict hands out. */
bool scio_recycle_give(void *block, size_t capacity);
/* While more waits than may: the block that waits longest, for the caller to free; then NULL. */
void *scio_recycle_evict(size_t *capacity_out);
/* So many bytes more may wait, until given back by the same number. */
void scio_recycle_reserve(size_t nbytes);
void scio_recycle_unreserve(size_t nbytes);
/* Bytes that wait now, and that may. */
size_t scio_recycle_held(void);
size_t scio_recycle_limit(void);

#endif
