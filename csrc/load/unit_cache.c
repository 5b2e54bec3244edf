/* A hash table of chains whose entries also hang in a list by age.  One mutex: an entry is a few
 * pointers, the bytes are shared by reference, so the lock is never held while anything is copied.
 */
#include "load/unit_cache.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>

enum { N_BUCKETS = 1024 };

typedef struct cache_entry {
    struct cache_entry *chain;         /* same bucket */
    struct cache_entry *newer, *older; /* by last use */
    uint64_t i_unit;
    unsigned which;
    scio_buf *buf;
} cache_entry;

struct scio_unit_cache {
    atomic_size_t cap_nbytes; /* written under the mutex */
    pthread_mutex_t mutex;
    /* guarded by mutex: */
    size_t nbytes;
    cache_entry *newest, *oldest;
    cache_entry *buckets[N_BUCKETS];
};

scio_status
scio_unit_cache_new(size_t cap_nbytes, scio_unit_cache **out, scio_error *err)
{
    scio_unit_cache *cache = NULL;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *cache, &cache, err));
    atomic_init(&cache->cap_nbytes, cap_nbytes);
    const int code = pthread_mutex_init(&cache->mutex, NULL);
    if (code != 0) {
        scio_mem_free(cache);
        return scio_fail_errno(err, SCIO_ENOMEM, code, "mutex of a chunk cache");
    }
    *out = cache;
    return SCIO_OK;
}

void
scio_unit_cache_free(scio_unit_cache *cache)
{
    if (cache == NULL)
        return;
    for (cache_entry *entry = cache->newest, *older; entry != NULL; entry = older) {
        older = entry->older;
        scio_buf_release(entry->buf);
        scio_mem_free(entry);
    }
    pthread_mutex_destroy(&cache->mutex);
    scio_mem_free(cache);
}

static cache_entry **
bucket_of(scio_unit_cache *cache, unsigned which, uint64_t i_unit)
{
    const uint64_t hash = (i_unit * 2 + which) * UINT64_C(0x9E3779B97F4A7C15);
    return &cache->buckets[hash >> 54]; /* the top ten bits: N_BUCKETS */
}

static void
unlink_age_locked(scio_unit_cache *cache, cache_entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void
make_newest_locked(scio_unit_cache *cache, cache_entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static cache_entry *
find_locked(scio_unit_cache *cache, unsigned which, uint64_t i_unit)
{
    cache_entry *entry = *bucket_of(cache, which, i_unit);
    while (entry != NULL && (entry->i_unit != i_unit || entry->which != which))
        entry = entry->chain;
    return entry;
}

static void
drop_oldest_locked(scio_unit_cache *cache)
{
    cache_entry *const entry = cache->oldest;
    cache_entry **link = bucket_of(cache, entry->which, entry->i_unit);

    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    unlink_age_locked(cache, entry);
    cache->nbytes -= scio_buf_nbytes(entry->buf);
    scio_buf_release(entry->buf);
    scio_mem_free(entry);
}

static void
shrink_locked(scio_unit_cache *cache, size_t most_nbytes)
{
    while (cache->nbytes > most_nbytes)
        drop_oldest_locked(cache);
}

void
scio_unit_cache_limit(scio_unit_cache *cache, size_t cap_nbytes)
{
    pthread_mutex_lock(&cache->mutex);
    atomic_store_explicit(&cache->cap_nbytes, cap_nbytes, memory_order_relaxed);
    shrink_locked(cache, cap_nbytes);
    pthread_mutex_unlock(&cache->mutex);
}

scio_buf *
scio_unit_cache_get(scio_unit_cache *cache, unsigned which, uint64_t i_unit)
{
    scio_buf *buf = NULL;

    pthread_mutex_lock(&cache->mutex);
    cache_entry *const entry = find_locked(cache, which, i_unit);
    if (entry != NULL) {
        unlink_age_locked(cache, entry);
        make_newest_locked(cache, entry);
        buf = scio_buf_retain(entry->buf);
    }
    pthread_mutex_unlock(&cache->mutex);
    return buf;
}

void
scio_unit_cache_put(scio_unit_cache *cache, unsigned which, uint64_t i_unit, scio_buf *buf)
{
    const size_t nbytes = scio_buf_nbytes(buf);
    cache_entry *entry = NULL;

    if (nbytes > scio_unit_cache_cap(cache) ||
        scio_mem_alloc(1, sizeof *entry, &entry, NULL) != SCIO_OK)
        return;
    pthread_mutex_lock(&cache->mutex);
    const size_t cap_nbytes = scio_unit_cache_cap(cache);
    /* another thread was faster, or has set a limit */
    if (find_locked(cache, which, i_unit) != NULL || nbytes > cap_nbytes) {
        pthread_mutex_unlock(&cache->mutex);
        scio_mem_free(entry);
        return;
    }
    shrink_locked(cache, cap_nbytes - nbytes);
    cache_entry **const bucket = bucket_of(cache, which, i_unit);
    *entry = (cache_entry){.chain = *bucket, .i_unit = i_unit, .which = which};
    entry->buf = scio_buf_retain(buf);
    *bucket = entry;
    make_newest_locked(cache, entry);
    cache->nbytes += nbytes;
    pthread_mutex_unlock(&cache->mutex);
}

size_t
scio_unit_cache_cap(const scio_unit_cache *cache)
{
    return atomic_load_explicit(&cache->cap_nbytes, memory_order_relaxed);
}

size_t
scio_unit_cache_nbytes(scio_unit_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    const size_t nbytes = cache->nbytes;
    pthread_mutex_unlock(&cache->mutex);
    return nbytes;
}
