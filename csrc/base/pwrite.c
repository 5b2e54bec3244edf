#include "base/pwrite.h"

#include <errno.h>
#include <unistd.h>

int
scio_pwrite(int fd, const void *data, size_t nbytes, uint64_t offset)
{
    const unsigned char *bytes = data;

    if (offset > INT64_MAX || nbytes > (uint64_t)INT64_MAX - offset)
        return EFBIG;
    while (nbytes > 0) {
        const ssize_t n_written = pwrite(fd, bytes, nbytes, (off_t)offset);

        if (n_written < 0 && errno == EINTR)
            continue;
        if (n_written <= 0) /* a file that takes nothing and says nothing is full */
            return n_written < 0 ? errno : ENOSPC;
        bytes += n_written;
        offset += (uint64_t)n_written;
        nbytes -= (size_t)n_written;
    }
    return 0;
}

int
scio_fsync(int fd)
{
    int result;

    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}
