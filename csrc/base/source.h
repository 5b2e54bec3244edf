/* A thing that can be read at an offset: a file (pread), memory, or a callback. */
#ifndef SCIO_BASE_SOURCE_H
#define SCIO_BASE_SOURCE_H

#include "base/buf.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_source scio_source; /* refcounted; any number of threads may read at once */

/* Reads exactly nbytes at offset into dst or fails; called from any thread. */
typedef scio_status (*scio_source_read_fn)(void *context, uint64_t offset, size_t nbytes, void *dst,
                                           scio_error *err);
typedef void (*scio_source_release_fn)(void *context);

/* ENOENT-like causes are EIO with errno (ENOENT, EISDIR, EACCES …); a directory is refused. */
SCIO_MUST_CHECK scio_status scio_source_open_file(const char *path, scio_source **out,
                                                  scio_error *err);
/* Retains buf. `name` is for messages. */
SCIO_MUST_CHECK scio_status scio_source_from_buf(scio_buf *buf, const char *name, scio_source **out,
                                                 scio_error *err);
SCIO_MUST_CHECK scio_status scio_source_from_callback(uint64_t nbytes, const char *name,
                                                      scio_source_read_fn read,
                                                      scio_source_release_fn release, void *context,
                                                      scio_source **out, scio_error *err);
scio_source *scio_source_retain(scio_source *source);
void scio_source_release(scio_source *source);

/* Reads [offset, offset + nbytes); ECORRUPT "truncated" when that is not wholly inside.  EINTR and
 * short reads are retried.  Counts bytes in scio_stats. */
SCIO_MUST_CHECK scio_status scio_source_read(scio_source *source, uint64_t offset, size_t nbytes,
                                             void *dst, scio_error *err);
/* [offset, offset + nbytes) as read-only memory that outlives the source: a file is mapped, memory
 * is lent.  ECORRUPT when that is not wholly inside the file as it is now; EUNSUPPORTED for a
 * callback.  For files that nobody changes in place: a mapped one that is cut short ends the
 * process. */
SCIO_MUST_CHECK scio_status scio_source_map(scio_source *source, uint64_t offset, size_t nbytes,
                                            scio_buf **out, scio_error *err);
uint64_t scio_source_nbytes(const scio_source *source);
const char *scio_source_name(const scio_source *source);
/* Whether small reads are cheap: of a file or of memory, but not of a callback. */
bool scio_source_is_local(const scio_source *source);
/* Hint that the range will be read soon (posix_fadvise WILLNEED for files); never fails. */
void scio_source_advise(scio_source *source, uint64_t offset, uint64_t nbytes);
/* Files: size, mtime (ns) and inode of the path against those at opening; EFORMAT "changed while
 * open" (replaced, truncated or vanished) when they differ.  Others: always OK. */
SCIO_MUST_CHECK scio_status scio_source_check_unchanged(scio_source *source, scio_error *err);
/* Size, mtime in ns and inode as found at opening (zeros when not a file). */
void scio_source_identity(const scio_source *source, uint64_t identity_out[3]);

#endif
