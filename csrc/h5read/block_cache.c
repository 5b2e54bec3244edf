/* Blocks in sets of four; the oldest of a set makes room.  A block is filled before it is put into
 * the table and never changed there, so a reader only needs the mutex to copy out of it. */
#include "h5read/block_cache.h"

#include "base/mem.h"

#include <pthread.h>
#include <string.h>

/* A page costs as much to read as 100 bytes.  Of other sources (memory, callbacks that may go
 * through a network) a request is dear and its length is not: writers put 2 KiB of metadata between
 * pieces of raw data, so a long block saves many requests. */
#define FILE_BLOCK_NBYTES ((size_t)4 << 10)
#define OTHER_BLOCK_NBYTES ((size_t)256 << 10)
#define N_WAYS 4
#define FILE_N_SETS 16
#define OTHER_N_SETS 8

typedef struct cached_block {
    uint8_t *data; /* NULL: empty */
    uint64_t number;
    size_t nbytes;
    uint64_t last_use;
} cached_block;

struct scio_block_cache {
    scio_source *source;
    size_t block_nbytes;
    size_t n_sets;
    pthread_mutex_t mutex;
    /* under the mutex: */
    uint64_t clock;
    cached_block blocks[FILE_N_SETS * N_WAYS];
};

scio_status
scio_block_cache_new(scio_source *source, scio_block_cache **out, scio_error *err)
{
    scio_block_cache *cache = NULL;
    uint64_t identity[3] = {0};
    bool is_file;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *cache, &cache, err));
    if (pthread_mutex_init(&cache->mutex, NULL) != 0) {
        scio_mem_free(cache);
        return scio_fail(err, SCIO_ENOMEM, "no mutex for a file's metadata");
    }
    scio_source_identity(source, identity);
    is_file = identity[2] != 0;
    cache->source = source;
    cache->block_nbytes = is_file ? FILE_BLOCK_NBYTES : OTHER_BLOCK_NBYTES;
    cache->n_sets = is_file ? FILE_N_SETS : OTHER_N_SETS;
    *out = cache;
    return SCIO_OK;
}

void
scio_block_cache_free(scio_block_cache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < FILE_N_SETS * N_WAYS; i++)
        scio_mem_free(cache->blocks[i].data);
    (void)pthread_mutex_destroy(&cache->mutex);
    scio_mem_free(cache);
}

/* Copies from a block that is in the table; false when it is not. */
static bool
copy_cached(scio_block_cache *cache, uint64_t number, size_t at, size_t nbytes, void *dst)
{
    cached_block *const set = &cache->blocks[number % cache->n_sets * N_WAYS];
    bool is_found = false;

    (void)pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < N_WAYS && !is_found; i++) {
        if (set[i].data == NULL || set[i].number != number || nbytes > set[i].nbytes - at)
            continue;
        memcpy(dst, set[i].data + at, nbytes);
        set[i].last_use = ++cache->clock;
        is_found = true;
    }
    (void)pthread_mutex_unlock(&cache->mutex);
    return is_found;
}

/* Takes `data` over. */
static void
keep(scio_block_cache *cache, uint64_t number, uint8_t *data, size_t nbytes)
{
    cached_block *const set = &cache->blocks[number % cache->n_sets * N_WAYS];
    cached_block *victim = set;
    uint8_t *old;

    (void)pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < N_WAYS; i++) {
        if (set[i].data != NULL && set[i].number == number) { /* another thread was faster */
            victim = &set[i];
            break;
        }
        if (set[i].last_use < victim->last_use)
            victim = &set[i];
    }
    old = victim->data;
    victim->data = data;
    victim->number = number;
    victim->nbytes = nbytes;
    victim->last_use = ++cache->clock;
    (void)pthread_mutex_unlock(&cache->mutex);
    scio_mem_free(old);
}

static scio_status
read_in_block(scio_block_cache *cache, uint64_t number, size_t at, size_t nbytes, void *dst,
              scio_error *err)
{
    const uint64_t start = number * cache->block_nbytes;
    const uint64_t left = scio_source_nbytes(cache->source) - start;
    const size_t block_nbytes = left < cache->block_nbytes ? (size_t)left : cache->block_nbytes;
    uint8_t *data = NULL;
    scio_status status;

    if (copy_cached(cache, number, at, nbytes, dst))
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc(block_nbytes, 1, &data, err));
    status = scio_source_read(cache->source, start, block_nbytes, data, err);
    if (status != SCIO_OK) {
        scio_mem_free(data);
        return status;
    }
    memcpy(dst, data + at, nbytes);
    keep(cache, number, data, block_nbytes);
    return SCIO_OK;
}

scio_status
scio_block_cache_read(scio_block_cache *cache, uint64_t position, size_t nbytes, void *dst,
                      scio_error *err)
{
    const uint64_t source_nbytes = scio_source_nbytes(cache->source);
    uint8_t *to = dst;

    if (nbytes > cache->block_nbytes || position > source_nbytes ||
        nbytes > source_nbytes - position) /* the source words the refusal */
        return scio_source_read(cache->source, position, nbytes, dst, err);
    while (nbytes > 0) {
        const size_t at = (size_t)(position % cache->block_nbytes);
        const size_t in_block = cache->block_nbytes - at;
        const size_t part_nbytes = nbytes < in_block ? nbytes : in_block;

        SCIO_TRY(read_in_block(cache, position / cache->block_nbytes, at, part_nbytes, to, err));
        to += part_nbytes;
        position += part_nbytes;
        nbytes -= part_nbytes;
    }
    return SCIO_OK;
}
