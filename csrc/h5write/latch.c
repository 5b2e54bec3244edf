/* Measured on 1.10.8: an EIO on any of the writes of a file ends in a crash at exit unless libhdf5
 * never hears of it.  So this driver answers as a disk without end would, and the writer, who asks
 * the latch after every call, fails in its place. */
#include "h5write/latch.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include "base/mem.h"
#include "base/pwrite.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

typedef struct latch_info { /* what travels in the property list */
    scio_latch *latch;
} latch_info;

typedef struct latch_file {
    H5FD_t base; /* libhdf5's, first */
    scio_latch *latch;
    haddr_t end_allocated, end_written;
} latch_file;

static latch_file *
file_of(H5FD_t *base)
{
    return (latch_file *)(void *)base;
}

static const latch_file *
const_file_of(const H5FD_t *base)
{
    return (const latch_file *)(const void *)base;
}

static void
latch_errno(scio_latch *latch, int cause)
{
    if (latch->saved_errno == 0)
        latch->saved_errno = cause;
}

static H5FD_t *
driver_open(const char *name, unsigned flags, hid_t fapl, haddr_t max_address)
{
    const latch_info *const info = H5Pget_driver_info(fapl);
    latch_file *file = NULL;

    (void)name;
    (void)flags;
    (void)max_address;
    if (info == NULL)
        return NULL;
    if (scio_mem_zalloc(1, sizeof *file, &file, NULL) != SCIO_OK) {
        latch_errno(info->latch, ENOMEM); /* libhdf5 would say only that opening failed */
        return NULL;
    }
    file->latch = info->latch;
    return &file->base;
}

static herr_t
driver_close(H5FD_t *base)
{
    scio_mem_free(file_of(base)); /* the descriptor is the writer's, which syncs it */
    return 0;
}

static int
driver_compare(const H5FD_t *a, const H5FD_t *b)
{
    const uintptr_t x = (uintptr_t)const_file_of(a)->latch, y = (uintptr_t)const_file_of(b)->latch;

    return x < y ? -1 : x > y;
}

/* Small data are not put together in blocks: each array is aligned on its own. */
static herr_t
driver_query(const H5FD_t *base, unsigned long *flags)
{
    (void)base;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t
driver_get_eoa(const H5FD_t *base, H5FD_mem_t type)
{
    (void)type;
    return const_file_of(base)->end_allocated;
}

static herr_t
driver_set_eoa(H5FD_t *base, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    file_of(base)->end_allocated = address;
    return 0;
}

static haddr_t
driver_get_eof(const H5FD_t *base, H5FD_mem_t type)
{
    (void)type;
    return const_file_of(base)->end_written;
}

/* What was never written is zeros, as is everything once the latch has closed. */
static herr_t
driver_read(H5FD_t *base, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t nbytes, void *out)
{
    scio_latch *const latch = file_of(base)->latch;
    char *bytes = out;

    (void)type;
    (void)dxpl;
    while (nbytes > 0 && latch->saved_errno == 0) {
        const ssize_t n_read = pread(latch->fd, bytes, nbytes, (off_t)address);

        if (n_read < 0 && errno == EINTR)
            continue;
        if (n_read < 0)
            latch_errno(latch, errno);
        if (n_read <= 0)
            break;
        bytes += n_read;
        nbytes -= (size_t)n_read;
        address += (haddr_t)n_read;
    }
    memset(bytes, 0, nbytes);
    return 0;
}

static herr_t
driver_write(H5FD_t *base, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t nbytes,
             const void *data)
{
    latch_file *const file = file_of(base);

    (void)type;
    (void)dxpl;
    if (file->latch->saved_errno == 0)
        latch_errno(file->latch, scio_pwrite(file->latch->fd, data, nbytes, address));
    if (address + nbytes > file->end_written)
        file->end_written = address + nbytes;
    return 0;
}

/* The file gets its whole length, so that arrays set aside at its end are inside. */
static herr_t
driver_truncate(H5FD_t *base, hid_t dxpl, hbool_t is_closing)
{
    latch_file *const file = file_of(base);
    int result = 0;

    (void)dxpl;
    (void)is_closing;
    if (file->end_written == file->end_allocated)
        return 0;
    if (file->latch->saved_errno == 0) {
        do {
            result = ftruncate(file->latch->fd, (off_t)file->end_allocated);
        } while (result != 0 && errno == EINTR);
        if (result != 0)
            latch_errno(file->latch, errno);
    }
    file->end_written = file->end_allocated;
    return 0;
}

static const H5FD_class_t latch_class = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = 577, /* of the range that is for trying things out; it is in no file */
#endif
    .name = "scio_latch",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(latch_info),
    .open = driver_open,
    .close = driver_close,
    .cmp = driver_compare,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

herr_t
scio_latch_use(hid_t fapl, scio_latch *latch, hid_t *driver_out)
{
    const latch_info info = {latch};
    const hid_t driver = H5FDregister(&latch_class);

    if (driver < 0)
        return -1;
    if (H5Pset_driver(fapl, driver, &info) < 0) {
        (void)H5FDunregister(driver);
        return -1;
    }
    *driver_out = driver;
    return 0;
}
