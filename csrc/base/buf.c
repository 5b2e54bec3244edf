/* Refcounted memory.  Large buffers are mapped by hand: aligned to the 2 MiB of a huge page and
 * advised for them, one page fault then fills 512 times as much. */
#include "base/buf.h"

#include "base/mem.h"
#include "base/recycle.h"
#include "base/stats.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAPPED_MIN_NBYTES ((size_t)4 << 20)
#define HUGE_PAGE_NBYTES ((size_t)2 << 20)

struct scio_buf {
    atomic_size_t n_refs;
    void *data;
    size_t nbytes;
    scio_buf_release_fn release; /* NULL: nobody is told */
    void *context;
};

static size_t
page_rounded(size_t nbytes)
{
    const size_t page_nbytes = (size_t)sysconf(_SC_PAGESIZE);

    return (nbytes + page_nbytes - 1) / page_nbytes * page_nbytes;
}

/* Maps one huge page more than asked for and gives back what lies before the first boundary and
 * behind the end; only the part that is kept is ever touched. */
static scio_status
map_aligned(size_t nbytes, void **out, scio_error *err)
{
    size_t wanted_nbytes, head_nbytes, tail_nbytes;
    unsigned char *start = MAP_FAILED;

    if (nbytes <= SIZE_MAX / 2 && !scio_mem_ask_fails()) {
        start = mmap(NULL, page_rounded(nbytes) + HUGE_PAGE_NBYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (start == MAP_FAILED)
        return scio_fail(err, SCIO_ENOMEM, "no memory for a buffer of %zu bytes", nbytes);
    wanted_nbytes = page_rounded(nbytes);
    head_nbytes = (HUGE_PAGE_NBYTES - (uintptr_t)start % HUGE_PAGE_NBYTES) % HUGE_PAGE_NBYTES;
    tail_nbytes = HUGE_PAGE_NBYTES - head_nbytes;
    if (head_nbytes != 0)
        (void)munmap(start, head_nbytes);
    if (tail_nbytes != 0)
        (void)munmap(start + head_nbytes + wanted_nbytes, tail_nbytes);
#ifdef MADV_HUGEPAGE
    (void)madvise(start + head_nbytes, wanted_nbytes, MADV_HUGEPAGE);
#endif
    *out = start + head_nbytes;
    return SCIO_OK;
}

static void
release_mapped(void *context, void *data, size_t nbytes)
{
    (void)context;
    (void)munmap(data, page_rounded(nbytes));
}

static void
release_block(void *context, void *data, size_t nbytes)
{
    (void)context;
    (void)nbytes;
    scio_mem_free(data);
}

static void
free_capacity(void *block, size_t capacity)
{
    if (capacity >= MAPPED_MIN_NBYTES)
        release_mapped(NULL, block, capacity);
    else
        release_block(NULL, block, capacity);
}

static void
free_what_waits_too_much(void)
{
    size_t capacity = 0;
    void *block;

    while ((block = scio_recycle_evict(&capacity)) != NULL)
        free_capacity(block, capacity);
}

static void
release_recycled(void *context, void *data, size_t nbytes)
{
    const size_t capacity = scio_recycle_capacity(nbytes);

    (void)context;
    if (!scio_recycle_give(data, capacity))
        free_capacity(data, capacity);
    free_what_waits_too_much();
}

/* A block that went round once, or a new one of the size that will. */
static scio_status
take_block(size_t nbytes, bool is_batch, void **out, scio_buf_release_fn *release_out,
           scio_error *err)
{
    const bool is_recycled = scio_recycle_is_for(nbytes, is_batch);
    const size_t capacity = is_recycled ? scio_recycle_capacity(nbytes) : nbytes;
    const bool is_mapped = capacity >= MAPPED_MIN_NBYTES;

    *release_out = is_recycled ? release_recycled : is_mapped ? release_mapped : release_block;
    *out = is_recycled && !scio_mem_ask_fails() ? scio_recycle_take(capacity) : NULL;
    if (*out != NULL)
        return SCIO_OK;
    return is_mapped ? map_aligned(capacity, out, err) : scio_mem_alloc(capacity, 1, out, err);
}

static scio_status
buf_new(size_t nbytes, bool is_batch, scio_buf **out, scio_error *err)
{
    scio_buf_release_fn release = NULL;
    void *data = NULL;
    scio_status status;

    *out = NULL;
    SCIO_TRY(take_block(nbytes, is_batch, &data, &release, err));
    status = scio_buf_wrap(data, nbytes, release, NULL, out, err);
    if (status != SCIO_OK)
        release(NULL, data, nbytes);
    return status;
}

scio_status
scio_buf_new(size_t nbytes, scio_buf **out, scio_error *err)
{
    return buf_new(nbytes, false, out, err);
}

scio_status
scio_buf_new_batch(size_t nbytes, scio_buf **out, scio_error *err)
{
    return buf_new(nbytes, true, out, err);
}

void
scio_buf_reserve(size_t nbytes)
{
    scio_recycle_reserve(nbytes);
}

void
scio_buf_unreserve(size_t nbytes)
{
    scio_recycle_unreserve(nbytes);
    free_what_waits_too_much();
}

scio_status
scio_buf_wrap(void *data, size_t nbytes, scio_buf_release_fn release, void *context, scio_buf **out,
              scio_error *err)
{
    scio_buf *buf;

    *out = NULL;
    SCIO_TRY(scio_mem_alloc(1, sizeof *buf, &buf, err));
    atomic_init(&buf->n_refs, 1);
    buf->data = data;
    buf->nbytes = nbytes;
    buf->release = release;
    buf->context = context;
    scio_stats_add(SCIO_STAT_live_bufs, 1);
    scio_stats_add(SCIO_STAT_live_buf_nbytes, (int64_t)nbytes);
    *out = buf;
    return SCIO_OK;
}

scio_buf *
scio_buf_retain(scio_buf *buf)
{
    if (buf != NULL)
        atomic_fetch_add_explicit(&buf->n_refs, 1, memory_order_relaxed);
    return buf;
}

void
scio_buf_release(scio_buf *buf)
{
    /* acq_rel: what other holders did to the memory comes before it is given back. */
    if (buf == NULL || atomic_fetch_sub_explicit(&buf->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    if (buf->release != NULL)
        buf->release(buf->context, buf->data, buf->nbytes);
    scio_stats_add(SCIO_STAT_live_bufs, -1);
    scio_stats_add(SCIO_STAT_live_buf_nbytes, -(int64_t)buf->nbytes);
    scio_mem_free(buf);
}

void *
scio_buf_data(const scio_buf *buf)
{
    return buf != NULL ? buf->data : NULL;
}

size_t
scio_buf_nbytes(const scio_buf *buf)
{
    return buf != NULL ? buf->nbytes : 0;
}

size_t
scio_buf_n_refs(const scio_buf *buf)
{
    return buf != NULL ? atomic_load_explicit(&buf->n_refs, memory_order_acquire) : 0;
}
