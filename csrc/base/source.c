/* Sources: one struct, one read function per kind. */
#include "base/source.h"

#include "base/mem.h"
#include "base/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scio_source {
    _Atomic size_t n_refs;
    char *name;
    uint64_t nbytes;
    int fd; /* -1 when not a file */
    uint64_t identity[3];
    uint64_t device;
    scio_buf *buf;
    scio_source_read_fn read;
    scio_source_release_fn release;
    void *context;
};

static scio_status
new_source(const char *name, uint64_t nbytes, scio_source **out, scio_error *err)
{
    scio_source *source = NULL;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *source, &source, err));
    status = scio_mem_strndup(name, strlen(name), &source->name, err);
    if (status != SCIO_OK) {
        scio_mem_free(source);
        return status;
    }
    atomic_init(&source->n_refs, 1);
    source->nbytes = nbytes;
    source->fd = -1;
    scio_stats_add(SCIO_STAT_live_sources, 1);
    *out = source;
    return SCIO_OK;
}

static void
identity_of(const struct stat *st, uint64_t identity_out[3])
{
    identity_out[0] = (uint64_t)st->st_size;
    identity_out[1] = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
    identity_out[2] = (uint64_t)st->st_ino;
}

scio_status
scio_source_open_file(const char *path, scio_source **out, scio_error *err)
{
    struct stat st;
    scio_source *source = NULL;
    scio_status status;
    int fd;

    *out = NULL;
    do
        fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return scio_fail_errno(err, SCIO_EIO, errno, "%s", path);
    if (fstat(fd, &st) != 0) {
        status = scio_fail_errno(err, SCIO_EIO, errno, "%s", path);
        goto done;
    }
    if (S_ISDIR(st.st_mode)) {
        status = scio_fail_errno(err, SCIO_EIO, EISDIR, "%s", path);
        goto done;
    }
    status = new_source(path, (uint64_t)st.st_size, &source, err);
    if (status != SCIO_OK)
        goto done;
    source->fd = fd;
    fd = -1;
    identity_of(&st, source->identity);
    source->device = (uint64_t)st.st_dev;
    *out = source;
done:
    if (fd >= 0)
        (void)close(fd);
    return status;
}

scio_status
scio_source_from_buf(scio_buf *buf, const char *name, scio_source **out, scio_error *err)
{
    SCIO_TRY(new_source(name, scio_buf_nbytes(buf), out, err));
    (*out)->buf = scio_buf_retain(buf);
    return SCIO_OK;
}

scio_status
scio_source_from_callback(uint64_t nbytes, const char *name, scio_source_read_fn read,
                          scio_source_release_fn release, void *context, scio_source **out,
                          scio_error *err)
{
    SCIO_TRY(new_source(name, nbytes, out, err));
    (*out)->read = read;
    (*out)->release = release;
    (*out)->context = context;
    return SCIO_OK;
}

scio_source *
scio_source_retain(scio_source *source)
{
    if (source != NULL)
        (void)atomic_fetch_add_explicit(&source->n_refs, 1, memory_order_relaxed);
    return source;
}

void
scio_source_release(scio_source *source)
{
    if (source == NULL ||
        atomic_fetch_sub_explicit(&source->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    scio_stats_add(SCIO_STAT_live_sources, -1);
    if (source->fd >= 0)
        (void)close(source->fd);
    if (source->release != NULL)
        source->release(source->context);
    scio_buf_release(source->buf);
    scio_mem_free(source->name);
    scio_mem_free(source);
}

static scio_status
read_file(scio_source *source, uint64_t offset, size_t nbytes, char *dst, scio_error *err)
{
    while (nbytes > 0) {
        const ssize_t got = pread(source->fd, dst, nbytes, (off_t)offset);

        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got < 0)
            return scio_fail_errno(err, SCIO_EIO, errno, "%s", source->name);
        if (got == 0)
            return scio_fail(err, SCIO_ECORRUPT,
                             "%s: truncated while open: byte %" PRIu64 " is gone, the file had %" PRIu64,
                             source->name, offset, source->nbytes);
        dst += got;
        offset += (uint64_t)got;
        nbytes -= (size_t)got;
    }
    return SCIO_OK;
}

scio_status
scio_source_read(scio_source *source, uint64_t offset, size_t nbytes, void *dst, scio_error *err)
{
    if (offset > source->nbytes || nbytes > source->nbytes - offset)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s: truncated: bytes %" PRIu64 " to %" PRIu64
                         " wanted, the file has %" PRIu64,
                         source->name, offset, offset + nbytes, source->nbytes);
    if (nbytes == 0)
        return SCIO_OK;
    scio_stats_add(SCIO_STAT_n_reads, 1);
    scio_stats_add(SCIO_STAT_nbytes_read, (int64_t)nbytes);
    if (source->fd >= 0)
        return read_file(source, offset, nbytes, dst, err);
    if (source->read != NULL)
        return source->read(source->context, offset, nbytes, dst, err);
    memcpy(dst, (const char *)scio_buf_data(source->buf) + offset, nbytes);
    return SCIO_OK;
}

uint64_t
scio_source_nbytes(const scio_source *source)
{
    return source->nbytes;
}

const char *
scio_source_name(const scio_source *source)
{
    return source->name;
}

void
scio_source_advise(scio_source *source, uint64_t offset, uint64_t nbytes)
{
    if (source->fd >= 0)
        (void)posix_fadvise(source->fd, (off_t)offset, (off_t)nbytes, POSIX_FADV_WILLNEED);
}

scio_status
scio_source_check_unchanged(scio_source *source, scio_error *err)
{
    struct stat by_path, by_fd;
    uint64_t now[3];

    if (source->fd < 0)
        return SCIO_OK;
    if (stat(source->name, &by_path) != 0 || fstat(source->fd, &by_fd) != 0)
        return scio_fail(err, SCIO_EFORMAT, "%s: changed while open: the file is gone (%s)",
                         source->name, strerror(errno));
    identity_of(&by_path, now);
    if (memcmp(now, source->identity, sizeof now) != 0 ||
        (uint64_t)by_path.st_dev != source->device)
        return scio_fail(err, SCIO_EFORMAT,
                         "%s: changed while open: it was replaced or written to (%" PRIu64
                         " bytes then, %" PRIu64 " now)",
                         source->name, source->identity[0], now[0]);
    identity_of(&by_fd, now);
    if (memcmp(now, source->identity, sizeof now) != 0)
        return scio_fail(err, SCIO_EFORMAT, "%s: changed while open", source->name);
    return SCIO_OK;
}

void
scio_source_identity(const scio_source *source, uint64_t identity_out[3])
{
    memcpy(identity_out, source->identity, sizeof source->identity);
}
