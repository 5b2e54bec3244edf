/* Refcounted memory: the owner of everything that lives long or travels to Python. */
#ifndef SCIO_BASE_BUF_H
#define SCIO_BASE_BUF_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_buf scio_buf; /* opaque; count is atomic */

/* Called once, when the last reference goes, from any thread, without the GIL. */
typedef void (*scio_buf_release_fn)(void *context, void *data, size_t nbytes);

/* New memory of nbytes (content undefined): below 4 MiB from base/mem, from there on an anonymous
 * mapping aligned to 2 MiB and advised for huge pages, because the first touch of 4 KiB pages costs
 * as much as decoding.  `*out` holds one reference. */
SCIO_MUST_CHECK scio_status scio_buf_new(size_t nbytes, scio_buf **out, scio_error *err);
/* The same for buffers that are made again and again at about one size: memory of any size waits
 * for the next one when the last reference goes (base/recycle), as far as what is reserved allows.
 */
SCIO_MUST_CHECK scio_status scio_buf_new_batch(size_t nbytes, scio_buf **out, scio_error *err);
/* Lets nbytes more of released memory wait, for as long as batches of that size are made;
 * unreserve with the same number ends it and frees what is too much then. */
void scio_buf_reserve(size_t nbytes);
void scio_buf_unreserve(size_t nbytes);
/* Wraps memory of somebody else; `release` may be NULL. */
SCIO_MUST_CHECK scio_status scio_buf_wrap(void *data, size_t nbytes, scio_buf_release_fn release,
                                          void *context, scio_buf **out, scio_error *err);
scio_buf *scio_buf_retain(scio_buf *buf); /* returns buf; NULL allowed */
void scio_buf_release(scio_buf *buf);     /* NULL allowed */
void *scio_buf_data(const scio_buf *buf); /* NULL for NULL */
size_t scio_buf_nbytes(const scio_buf *buf);
/* References now held; 1 = only the caller's. */
size_t scio_buf_n_refs(const scio_buf *buf);

#endif
