/* Writing at an offset and syncing, whole or with the reason why not. */
#ifndef SCIO_BASE_PWRITE_H
#define SCIO_BASE_PWRITE_H

#include <stddef.h>
#include <stdint.h>

/* All nbytes at `offset` of `fd`; interrupted and short writes are continued.  0, or the errno of
 * the write that failed; some of the bytes may then be in the file. */
int scio_pwrite(int fd, const void *data, size_t nbytes, uint64_t offset);

/* fsync, begun again when a signal interrupted it; any other failure is never tried again, since
 * the kernel may have dropped what it could not write.  0 or an errno. */
int scio_fsync(int fd);

#endif
