/* A thing that can be read at an offset.  Files are read by pread, which has no shared position, so
 * any number of threads read one descriptor at once. */
#include "base/source.h"

#include "base/descriptor.h"
#include "base/mem.h"
#include "base/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum source_kind { SOURCE_FILE, SOURCE_BUF, SOURCE_CALLBACK } source_kind;

/* What makes a file the same file as before. */
typedef struct file_identity {
    uint64_t nbytes;
    uint64_t mtime_ns;
    uint64_t inode;
    uint64_t device;
} file_identity;

struct scio_source {
    atomic_size_t n_refs;
    source_kind kind;
    uint64_t nbytes;
    char *name;
    scio_descriptor file;     /* file: may be closed while nobody reads */
    char *path;               /* file: absolute, so that a chdir does not make it vanish */
    file_identity identity;   /* file: at opening */
    scio_buf *buf;            /* buf */
    scio_source_read_fn read; /* callback, as the two below */
    scio_source_release_fn release;
    void *context;
};

static void
source_free(scio_source *source)
{
    scio_descriptor_close(&source->file);
    scio_buf_release(source->buf);
    if (source->release != NULL)
        source->release(source->context);
    scio_mem_free(source->path);
    scio_mem_free(source->name);
    scio_mem_free(source);
    scio_stats_add(SCIO_STAT_live_sources, -1);
}

static scio_status
source_new(source_kind kind, const char *name, scio_source **out, scio_error *err)
{
    scio_source *source;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *source, &source, err));
    atomic_init(&source->n_refs, 1);
    source->kind = kind;
    source->file = (scio_descriptor)SCIO_DESCRIPTOR_INIT;
    status = scio_mem_strndup(name, strlen(name), &source->name, err);
    if (status != SCIO_OK) {
        scio_mem_free(source);
        return status;
    }
    scio_stats_add(SCIO_STAT_live_sources, 1);
    *out = source;
    return SCIO_OK;
}

static file_identity
identity_of(const struct stat *st)
{
    return (file_identity){
        .nbytes = (uint64_t)st->st_size,
        .mtime_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec,
        .inode = (uint64_t)st->st_ino,
        .device = (uint64_t)st->st_dev,
    };
}

/* Opens without waiting (a FIFO without a writer would hang) and refuses what has no size. */
static scio_status
open_regular(const char *path, int *fd_out, file_identity *identity_out, scio_error *err)
{
    struct stat st;
    int fd, cause = 0;

    (void)scio_descriptor_make_room(false);
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    } while (fd < 0 && (errno == EINTR ||
                        ((errno == EMFILE || errno == ENFILE) && scio_descriptor_make_room(true))));
    if (fd < 0)
        return scio_fail_errno(err, SCIO_EIO, errno, "cannot open %s", path);
    if (fstat(fd, &st) != 0)
        cause = errno;
    else if (S_ISDIR(st.st_mode))
        cause = EISDIR;
    else if (!S_ISREG(st.st_mode))
        cause = ESPIPE;
    if (cause != 0) {
        (void)close(fd);
        return scio_fail_errno(err, SCIO_EIO, cause, "cannot open %s as a regular file", path);
    }
    *fd_out = fd;
    *identity_out = identity_of(&st);
    return SCIO_OK;
}

/* `path`, behind the working directory unless it is absolute already. */
static scio_status
absolute_path(const char *path, char **out, scio_error *err)
{
    const size_t path_nbytes = strlen(path);
    size_t directory_nbytes;
    char directory[PATH_MAX / 2];

    if (path[0] == '/' || getcwd(directory, sizeof directory - 1) == NULL)
        return scio_mem_strndup(path, path_nbytes, out, err);
    directory_nbytes = strlen(directory);
    directory[directory_nbytes++] = '/';
    SCIO_TRY(scio_mem_alloc(directory_nbytes + path_nbytes + 1, 1, out, err));
    memcpy(*out, directory, directory_nbytes);
    memcpy(*out + directory_nbytes, path, path_nbytes + 1);
    return SCIO_OK;
}

scio_status
scio_source_open_file(const char *path, scio_source **out, scio_error *err)
{
    scio_source *source = NULL;
    scio_status status;
    int fd;

    *out = NULL;
    status = source_new(SOURCE_FILE, path, &source, err);
    if (status != SCIO_OK)
        goto done;
    status = absolute_path(path, &source->path, err);
    if (status != SCIO_OK)
        goto done;
    status = open_regular(path, &fd, &source->identity, err);
    if (status != SCIO_OK)
        goto done;
    (void)scio_descriptor_pin_new(&source->file, fd);
    scio_descriptor_unpin(&source->file);
    source->nbytes = source->identity.nbytes;
    *out = source;
    source = NULL;
done:
    scio_source_release(source);
    return status;
}

scio_status
scio_source_from_buf(scio_buf *buf, const char *name, scio_source **out, scio_error *err)
{
    SCIO_TRY(source_new(SOURCE_BUF, name, out, err));
    (*out)->buf = scio_buf_retain(buf);
    (*out)->nbytes = scio_buf_nbytes(buf);
    return SCIO_OK;
}

scio_status
scio_source_from_callback(uint64_t nbytes, const char *name, scio_source_read_fn read,
                          scio_source_release_fn release, void *context, scio_source **out,
                          scio_error *err)
{
    SCIO_TRY(source_new(SOURCE_CALLBACK, name, out, err));
    (*out)->nbytes = nbytes;
    (*out)->read = read;
    (*out)->release = release;
    (*out)->context = context;
    return SCIO_OK;
}

scio_source *
scio_source_retain(scio_source *source)
{
    if (source != NULL)
        atomic_fetch_add_explicit(&source->n_refs, 1, memory_order_relaxed);
    return source;
}

void
scio_source_release(scio_source *source)
{
    if (source == NULL || atomic_fetch_sub_explicit(&source->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    source_free(source);
}

static scio_status
compare_identity(const char *name, const file_identity *then, const file_identity *now,
                 scio_error *err)
{
    if (now->inode != then->inode || now->device != then->device)
        return scio_fail(err, SCIO_EFORMAT, "%s: changed while open: replaced by another file",
                         name);
    if (now->nbytes != then->nbytes)
        return scio_fail(err, SCIO_EFORMAT,
                         "%s: changed while open: it had %llu bytes and now has %llu", name,
                         (unsigned long long)then->nbytes, (unsigned long long)now->nbytes);
    if (now->mtime_ns != then->mtime_ns)
        return scio_fail(err, SCIO_EFORMAT, "%s: changed while open: written to", name);
    return SCIO_OK;
}

/* The descriptor, pinned; a file that was closed meanwhile is opened again, if it is the same. */
static scio_status
pin_file(scio_source *source, int *fd_out, scio_error *err)
{
    file_identity now;
    scio_status status;

    *fd_out = scio_descriptor_pin(&source->file);
    if (*fd_out >= 0)
        return SCIO_OK;
    SCIO_TRY(open_regular(source->path, fd_out, &now, err));
    status = compare_identity(source->name, &source->identity, &now, err);
    if (status != SCIO_OK)
        (void)close(*fd_out);
    else
        *fd_out = scio_descriptor_pin_new(&source->file, *fd_out);
    return status;
}

static scio_status
read_pinned(int fd, uint64_t offset, size_t nbytes, unsigned char *dst, scio_error *err)
{
    size_t n_done = 0;

    while (n_done < nbytes) {
        const ssize_t n_read = pread(fd, dst + n_done, nbytes - n_done, (off_t)(offset + n_done));

        if (n_read < 0 && errno == EINTR)
            continue;
        if (n_read < 0)
            return scio_fail_errno(err, SCIO_EIO, errno, "reading bytes %llu to %llu",
                                   (unsigned long long)offset,
                                   (unsigned long long)(offset + nbytes));
        if (n_read == 0)
            return scio_fail(err, SCIO_ECORRUPT,
                             "truncated while open: bytes %llu to %llu wanted, the file now ends "
                             "before byte %llu",
                             (unsigned long long)offset, (unsigned long long)(offset + nbytes),
                             (unsigned long long)(offset + n_done + 1));
        n_done += (size_t)n_read;
    }
    return SCIO_OK;
}

static scio_status
read_file(scio_source *source, uint64_t offset, size_t nbytes, unsigned char *dst, scio_error *err)
{
    scio_status status;
    int fd;

    SCIO_TRY(pin_file(source, &fd, err));
    status = read_pinned(fd, offset, nbytes, dst, err);
    scio_descriptor_unpin(&source->file);
    return status;
}

/* "the end" of a range that may lie beyond 2^64 is shown as the greatest number there is. */
static unsigned long long
range_end(uint64_t offset, size_t nbytes)
{
    uint64_t end;

    return scio_add_u64(offset, nbytes, &end) ? end : UINT64_MAX;
}

scio_status
scio_source_read(scio_source *source, uint64_t offset, size_t nbytes, void *dst, scio_error *err)
{
    scio_status status = SCIO_OK;

    if (offset > source->nbytes || nbytes > source->nbytes - offset)
        return scio_fail(err, SCIO_ECORRUPT,
                         "truncated: bytes %llu to %llu wanted, the file has %llu",
                         (unsigned long long)offset, range_end(offset, nbytes),
                         (unsigned long long)source->nbytes);
    scio_stats_add(SCIO_STAT_n_reads, 1);
    if (nbytes == 0)
        return SCIO_OK;
    switch (source->kind) {
    case SOURCE_FILE:
        status = read_file(source, offset, nbytes, dst, err);
        break;
    case SOURCE_BUF:
        memcpy(dst, (const unsigned char *)scio_buf_data(source->buf) + offset, nbytes);
        break;
    case SOURCE_CALLBACK:
        status = source->read(source->context, offset, nbytes, dst, err);
        break;
    }
    if (status != SCIO_OK) /* a callback may have failed without a word */
        return scio_fail(err, status, "reading bytes %llu to %llu failed",
                         (unsigned long long)offset, range_end(offset, nbytes));
    scio_stats_add(SCIO_STAT_nbytes_read, (int64_t)nbytes);
    return SCIO_OK;
}

/* A mapping begins at a page; `context` says where, since the buffer begins at the offset. */
static void
unmap(void *context, void *data, size_t nbytes)
{
    char *const begin = context;

    (void)munmap(begin, (size_t)((char *)data - begin) + nbytes);
}

/* More than half of the memory is not kept by the page cache from epoch to epoch: there, reading
 * ahead around each row only pushes out what is needed. */
static bool
is_large(size_t nbytes)
{
    const long n_pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    return n_pages > 0 && page > 0 && nbytes / (size_t)page > (size_t)n_pages / 2;
}

static scio_status
map_pinned(const scio_source *source, int fd, uint64_t offset, size_t nbytes, scio_buf **out,
           scio_error *err)
{
    const size_t before = (size_t)(offset % (uint64_t)sysconf(_SC_PAGESIZE));
    struct stat st;
    scio_status status;

    if (fstat(fd, &st) != 0)
        return scio_fail_errno(err, SCIO_EIO, errno, "cannot look at %s", source->name);
    if ((uint64_t)st.st_size < offset + nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "truncated: bytes %llu to %llu wanted, %lld are there",
                         (unsigned long long)offset, (unsigned long long)(offset + nbytes),
                         (long long)st.st_size);
    char *const begin = scio_mem_ask_fails() ? MAP_FAILED
                                             : mmap(NULL, before + nbytes, PROT_READ, MAP_SHARED,
                                                    fd, (off_t)(offset - before));
    if (begin == MAP_FAILED)
        return scio_fail(err, SCIO_ENOMEM, "mapping %zu bytes of %s", nbytes, source->name);
    if (is_large(nbytes))
        (void)madvise(begin, before + nbytes, MADV_RANDOM);
    status = scio_buf_wrap(begin + before, nbytes, unmap, begin, out, err);
    if (status != SCIO_OK)
        (void)munmap(begin, before + nbytes);
    return status;
}

static scio_status
map_file(scio_source *source, uint64_t offset, size_t nbytes, scio_buf **out, scio_error *err)
{
    scio_status status;
    int fd;

    SCIO_TRY(pin_file(source, &fd, err));
    status = map_pinned(source, fd, offset, nbytes, out, err);
    scio_descriptor_unpin(&source->file);
    return status;
}

static void
return_memory(void *context, void *data, size_t nbytes)
{
    (void)data;
    (void)nbytes;
    scio_buf_release(context);
}

static scio_status
lend_memory(const scio_source *source, uint64_t offset, size_t nbytes, scio_buf **out,
            scio_error *err)
{
    char *const data = scio_buf_data(source->buf);
    scio_status status;

    status = scio_buf_wrap(data + offset, nbytes, return_memory, source->buf, out, err);
    if (status == SCIO_OK)
        (void)scio_buf_retain(source->buf);
    return status;
}

scio_status
scio_source_map(scio_source *source, uint64_t offset, size_t nbytes, scio_buf **out,
                scio_error *err)
{
    *out = NULL;
    if (offset > source->nbytes || nbytes > source->nbytes - offset)
        return scio_fail(err, SCIO_ECORRUPT,
                         "truncated: bytes %llu to %llu wanted, the file has %llu",
                         (unsigned long long)offset, range_end(offset, nbytes),
                         (unsigned long long)source->nbytes);
    if (nbytes == 0)
        return scio_buf_new(0, out, err);
    switch (source->kind) {
    case SOURCE_FILE:
        return map_file(source, offset, nbytes, out, err);
    case SOURCE_BUF:
        return lend_memory(source, offset, nbytes, out, err);
    case SOURCE_CALLBACK:
        break;
    }
    return scio_fail(err, SCIO_EUNSUPPORTED, "%s is read through a callable, it cannot be mapped",
                     source->name);
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

bool
scio_source_is_local(const scio_source *source)
{
    return source->kind != SOURCE_CALLBACK;
}

void
scio_source_advise(scio_source *source, uint64_t offset, uint64_t nbytes)
{
#ifdef POSIX_FADV_WILLNEED
    if (source->kind != SOURCE_FILE || offset >= source->nbytes || nbytes == 0)
        return;
    if (nbytes > source->nbytes - offset)
        nbytes = source->nbytes - offset;
    const int fd = scio_descriptor_pin(&source->file);
    if (fd < 0)
        return;
    (void)posix_fadvise(fd, (off_t)offset, (off_t)nbytes, POSIX_FADV_WILLNEED);
    scio_descriptor_unpin(&source->file);
#else
    (void)source;
    (void)offset;
    (void)nbytes;
#endif
}

scio_status
scio_source_check_unchanged(scio_source *source, scio_error *err)
{
    struct stat st;
    file_identity now;
    int fd;

    if (source->kind != SOURCE_FILE)
        return SCIO_OK;
    if (stat(source->path, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return scio_fail_errno(err, SCIO_EFORMAT, errno, "%s: changed while open: vanished",
                                   source->name);
        return scio_fail_errno(err, SCIO_EIO, errno, "cannot look at %s", source->name);
    }
    now = identity_of(&st);
    SCIO_TRY(compare_identity(source->name, &source->identity, &now, err));
    fd = scio_descriptor_pin(&source->file);
    if (fd < 0) /* closed: what is opened again is compared then */
        return SCIO_OK;
    const int code = fstat(fd, &st) == 0 ? 0 : errno;
    scio_descriptor_unpin(&source->file);
    if (code != 0)
        return scio_fail_errno(err, SCIO_EIO, code, "cannot look at the open file %s",
                               source->name);
    now = identity_of(&st);
    return compare_identity(source->name, &source->identity, &now, err);
}

void
scio_source_identity(const scio_source *source, uint64_t identity_out[3])
{
    identity_out[0] = source->identity.nbytes;
    identity_out[1] = source->identity.mtime_ns;
    identity_out[2] = source->identity.inode;
}
