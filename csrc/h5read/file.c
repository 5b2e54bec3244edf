/* Opening a file: find the signature, take the superblock apart, believe nothing of it unchecked.
 */
#include "h5read/file.h"

#include "base/mem.h"
#include "h5read/block_cache.h"
#include "h5read/superblock.h"

#include <inttypes.h>
#include <stdatomic.h>

struct scio_h5_file {
    _Atomic size_t n_refs;
    scio_source *source;
    scio_block_cache *cache;
    scio_h5_limits limits;
    scio_h5_superblock superblock;
};

void
scio_h5_limits_default(scio_h5_limits *out)
{
    out->chunk_nbytes = (uint64_t)1 << 30;
    out->element_nbytes = UINT64_MAX;
    out->attribute_nbytes = (uint64_t)64 << 20;
    out->vlen_nbytes = (uint64_t)4 << 30;
    out->n_members = 1000000;
    out->depth = 64;
    out->is_salvage = false;
}

scio_status
scio_h5_file_open(scio_source *source, const scio_h5_limits *limits, scio_h5_file **out,
                  scio_error *err)
{
    scio_h5_file *file = NULL;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *file, &file, err));
    atomic_init(&file->n_refs, 1);
    file->source = scio_source_retain(source);
    if (limits != NULL)
        file->limits = *limits;
    else
        scio_h5_limits_default(&file->limits);
    status = scio_block_cache_new(source, &file->cache, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_h5_superblock_find(source, file->cache, &file->superblock.base, err);
    if (status != SCIO_OK)
        goto done;
    /* From here on scio_h5_read works, up to the end of the source until the real end is known. */
    file->superblock.end = scio_source_nbytes(source);
    status = scio_h5_superblock_read(file, &file->superblock, err);
    if (status != SCIO_OK)
        goto done;
    *out = file;
    file = NULL;
done:
    scio_h5_file_release(file);
    return status;
}

scio_h5_file *
scio_h5_file_retain(scio_h5_file *file)
{
    if (file != NULL)
        (void)atomic_fetch_add_explicit(&file->n_refs, 1, memory_order_relaxed);
    return file;
}

void
scio_h5_file_release(scio_h5_file *file)
{
    if (file == NULL || atomic_fetch_sub_explicit(&file->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    scio_block_cache_free(file->cache);
    scio_source_release(file->source);
    scio_mem_free(file);
}

scio_source *
scio_h5_file_source(const scio_h5_file *file)
{
    return file->source;
}

const scio_h5_limits *
scio_h5_file_limits(const scio_h5_file *file)
{
    return &file->limits;
}

const scio_h5_superblock *
scio_h5_file_superblock(const scio_h5_file *file)
{
    return &file->superblock;
}

bool
scio_h5_skips(const scio_h5_file *file, scio_status failure)
{
    return file->limits.is_salvage && (failure == SCIO_ECORRUPT || failure == SCIO_EUNSUPPORTED);
}

scio_status
scio_h5_check_range(const scio_h5_file *file, uint64_t address, uint64_t nbytes, scio_error *err)
{
    const uint64_t base = file->superblock.base, end = file->superblock.end;

    if (address == SCIO_H5_UNDEFINED)
        return scio_fail(err, SCIO_ECORRUPT,
                         "the address is undefined, one in the file was expected");
    if (address > end - base || nbytes > end - base - address)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%" PRIu64 " bytes at address %" PRIu64 " + base %" PRIu64
                         " reach beyond the end of the file at byte %" PRIu64,
                         nbytes, address, base, end);
    return SCIO_OK;
}

scio_status
scio_h5_read(const scio_h5_file *file, uint64_t address, size_t nbytes, void *dst, scio_error *err)
{
    SCIO_TRY(scio_h5_check_range(file, address, nbytes, err));
    return scio_block_cache_read(file->cache, file->superblock.base + address, nbytes, dst, err);
}
