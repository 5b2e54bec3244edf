/* Global heap collections.
 *
 *   collection   "GCOL", u8 1, 3 unused, N bytes in all, to a multiple of 8; objects:
 *                u16 number, u16 references, 4 unused, N bytes, to a multiple of 8; data, to a
 *                multiple of 8.  Number 0 is the free space, up to the end.
 *
 * A collection is read and parsed when it is first asked for, then kept: its bytes, and of each
 * object the place.  Collections mostly lie one after the other, so reads run ahead. */
#include "h5read/global_heap.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Collections with smaller gaps are read together, up to MAX_WINDOW_NBYTES (huge pages serve it).
 */
#define GAP_NBYTES ((uint64_t)256 << 10)
#define MAX_WINDOW_NBYTES ((uint64_t)4 << 20)
/* How long the last collection of a window is taken to be: as libhdf5 makes the smallest. */
#define TAIL_NBYTES ((uint64_t)4096)

#define NO_COLLECTION SIZE_MAX

static size_t
pad8(size_t nbytes)
{
    return (nbytes + 7) & ~(size_t)7;
}

static uint16_t
load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* ---- windows ---- */

static int
compare_u64(const void *a, const void *b)
{
    const uint64_t i = *(const uint64_t *)a, j = *(const uint64_t *)b;

    return (i > j) - (i < j);
}

/* Sorts, drops repeats and what is not in the file; the number of those that are left. */
static size_t
sort_addresses(const scio_h5_heap *h, uint64_t *addresses, size_t n_addresses)
{
    const uint64_t hdf5_nbytes = h->sb->end - h->sb->base;
    size_t n = 0;

    if (n_addresses != 0) /* qsort takes no NULL */
        qsort(addresses, n_addresses, sizeof *addresses, compare_u64);
    for (size_t i = 0; i < n_addresses && addresses[i] < hdf5_nbytes; i++)
        if (n == 0 || addresses[i] != addresses[n - 1])
            addresses[n++] = addresses[i];
    return n;
}

/* Windows are disjoint and start at a collection. */
static void
plan_windows(scio_h5_heap *h)
{
    scio_h5_window *w = NULL;

    for (size_t i = 0; i < h->n_collections; i++) {
        const uint64_t address = h->collections[i].address;
        const bool is_last = i + 1 == h->n_collections;
        /* The file's end is the end of the last. */
        const uint64_t next = is_last ? h->sb->end - h->sb->base : h->collections[i + 1].address;
        const uint64_t nbytes = !is_last && next - address <= GAP_NBYTES ? next - address
                                : next - address < TAIL_NBYTES           ? next - address
                                                                         : TAIL_NBYTES;

        if (w == NULL || w->address + w->nbytes != address ||
            address - w->address + nbytes > MAX_WINDOW_NBYTES) {
            w = &h->windows[h->n_windows++];
            *w = (scio_h5_window){.address = address};
        }
        h->collections[i].i_window = h->n_windows - 1;
        w->nbytes = address - w->address + nbytes;
    }
}

static scio_status
read_window(const scio_h5_heap *h, scio_h5_window *w, scio_error *err)
{
    scio_buf *buf = NULL;
    scio_status status;

    SCIO_TRY(scio_buf_new((size_t)w->nbytes, &buf, err));
    status = scio_h5_read(h->file, w->address, (size_t)w->nbytes, scio_buf_data(buf), err);
    if (status == SCIO_OK)
        w->buf = buf;
    else
        scio_buf_release(buf);
    return status;
}

/* The first nbytes of a collection, which lie in the file. */
static scio_status
view(scio_h5_heap *h, const scio_h5_collection *c, uint64_t nbytes, const uint8_t **out,
     scio_error *err)
{
    scio_h5_window *w = &h->windows[c->i_window];
    scio_h5_window own = {.address = c->address, .nbytes = nbytes};
    scio_buf **extra = &h->extra[c - h->collections];

    if (nbytes > w->nbytes - (c->address - w->address)) {
        SCIO_TRY(read_window(h, &own, err));
        scio_buf_release(*extra);
        *extra = own.buf;
        *out = scio_buf_data(own.buf);
        return SCIO_OK;
    }
    if (w->buf == NULL)
        SCIO_TRY(read_window(h, w, err));
    *out = (const uint8_t *)scio_buf_data(w->buf) + (c->address - w->address);
    return SCIO_OK;
}

/* ---- collections ---- */

static scio_status
grow_objects(scio_h5_heap *h, scio_error *err)
{
    const size_t capacity = h->objects_capacity == 0 ? 256 : 2 * h->objects_capacity;

    if (h->n_objects < h->objects_capacity)
        return SCIO_OK;
    SCIO_TRY(scio_mem_realloc(&h->objects, capacity, sizeof *h->objects, err));
    h->objects_capacity = capacity;
    return SCIO_OK;
}

/* Checks the objects of a collection and puts their places into heap.objects. */
static scio_status
list_objects(scio_h5_heap *h, scio_h5_collection *c, const uint8_t *data, size_t nbytes_all,
             bool *is_sorted_out, scio_error *err)
{
    const uint64_t position = h->sb->base + c->address;
    size_t at = h->head_nbytes;
    unsigned last = 0;

    c->i_first = h->n_objects;
    *is_sorted_out = true;
    while (nbytes_all - at >= h->head_nbytes) {
        const uint8_t *head = data + at;
        const unsigned number = load_u16(head);
        const uint64_t nbytes = scio_h5_load_uint(head + 8, h->sb->length_nbytes);
        const size_t room = nbytes_all - at - h->head_nbytes;

        if (number == 0)
            break;
        if (nbytes > room)
            return scio_fail(err, SCIO_ECORRUPT,
                             "global heap collection at byte %llu: object %u has %llu bytes, the "
                             "collection has room for %zu",
                             (unsigned long long)position, number, (unsigned long long)nbytes,
                             room);
        SCIO_TRY(grow_objects(h, err));
        h->objects[h->n_objects++] = (uint32_t)at;
        *is_sorted_out = *is_sorted_out && number > last;
        last = number;
        at += h->head_nbytes + (pad8((size_t)nbytes) < room ? pad8((size_t)nbytes) : room);
    }
    c->n_objects = h->n_objects - c->i_first;
    return SCIO_OK;
}

/* By number, after objects were removed and others took their place. */
static scio_status
sort_objects(scio_h5_heap *h, const scio_h5_collection *c, const uint8_t *data, scio_error *err)
{
    uint32_t *objects = h->objects + c->i_first;
    uint64_t *keys = NULL;
    scio_status status = SCIO_OK;

    SCIO_TRY(scio_mem_alloc(c->n_objects, sizeof *keys, &keys, err));
    for (size_t i = 0; i < c->n_objects; i++)
        keys[i] = (uint64_t)load_u16(data + objects[i]) << 32 | objects[i];
    qsort(keys, c->n_objects, sizeof *keys, compare_u64);
    for (size_t i = 0; i < c->n_objects && status == SCIO_OK; i++) {
        objects[i] = (uint32_t)keys[i];
        if (i != 0 && keys[i] >> 32 == keys[i - 1] >> 32)
            status = scio_fail(
                err, SCIO_ECORRUPT, "global heap collection at byte %llu: object %u is there twice",
                (unsigned long long)(h->sb->base + c->address), (unsigned)(keys[i] >> 32));
    }
    scio_mem_free(keys);
    return status;
}

static scio_status
read_head(scio_h5_heap *h, const scio_h5_collection *c, uint64_t *nbytes_out, scio_error *err)
{
    const uint64_t position = h->sb->base + c->address;
    const uint8_t *head = NULL;
    uint64_t nbytes;

    if (scio_h5_check_range(h->file, c->address, h->head_nbytes, err) != SCIO_OK) {
        scio_context(err, "global heap collection");
        return SCIO_ECORRUPT;
    }
    SCIO_TRY(view(h, c, h->head_nbytes, &head, err));
    if (memcmp(head, "GCOL", 4) != 0 || head[4] != 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         "no global heap collection at byte %llu: bytes %02x %02x %02x %02x, "
                         "version %u; expected \"GCOL\", version 1",
                         (unsigned long long)position, head[0], head[1], head[2], head[3], head[4]);
    nbytes = scio_h5_load_uint(head + 8, h->sb->length_nbytes);
    if (nbytes < h->head_nbytes || nbytes > h->sb->end - position)
        return scio_fail(err, SCIO_ECORRUPT,
                         "global heap collection at byte %llu: %llu bytes, expected %zu to %llu",
                         (unsigned long long)position, (unsigned long long)nbytes, h->head_nbytes,
                         (unsigned long long)(h->sb->end - position));
    if (nbytes > UINT32_MAX)
        return scio_fail(err, SCIO_EUNSAFE,
                         "global heap collection at byte %llu: %llu bytes, at most 4 GiB are read",
                         (unsigned long long)position, (unsigned long long)nbytes);
    if (nbytes > h->nbytes_left)
        return scio_fail(err, SCIO_ECORRUPT, "global heap collection at byte %llu overlaps others",
                         (unsigned long long)position);
    *nbytes_out = nbytes;
    return SCIO_OK;
}

static scio_status
parse_collection(scio_h5_heap *h, scio_h5_collection *c, scio_error *err)
{
    const uint8_t *data = NULL;
    uint64_t nbytes = 0;
    bool is_sorted = true;

    SCIO_TRY(read_head(h, c, &nbytes, err));
    SCIO_TRY(view(h, c, nbytes, &data, err));
    SCIO_TRY(list_objects(h, c, data, (size_t)nbytes, &is_sorted, err));
    if (!is_sorted)
        SCIO_TRY(sort_objects(h, c, data, err));
    h->nbytes_left -= nbytes;
    c->data = data;
    return SCIO_OK;
}

static size_t
first_slot(const scio_h5_heap *h, uint64_t address)
{
    /* 2^64 / golden ratio (Knuth, TAOCP 6.4): addresses are multiples of 8 and often of 4096. */
    return (size_t)((address * 0x9e3779b97f4a7c15u) >> 32) & (h->n_slots - 1);
}

/* A table at most half full. */
static scio_status
make_slots(scio_h5_heap *h, scio_error *err)
{
    h->n_slots = 2;
    while (h->n_slots < 2 * h->n_collections)
        h->n_slots *= 2;
    SCIO_TRY(scio_mem_alloc(h->n_slots, sizeof *h->slots, &h->slots, err));
    for (size_t i = 0; i < h->n_slots; i++)
        h->slots[i] = NO_COLLECTION;
    for (size_t i = 0; i < h->n_collections; i++) {
        size_t slot = first_slot(h, h->collections[i].address);

        while (h->slots[slot] != NO_COLLECTION)
            slot = (slot + 1) & (h->n_slots - 1);
        h->slots[slot] = i;
    }
    return SCIO_OK;
}

/* Makes heap.i_last the collection at `address`, parsed. */
static scio_status
find_collection(scio_h5_heap *h, uint64_t address, scio_error *err)
{
    size_t slot = first_slot(h, address);

    for (; h->slots[slot] != NO_COLLECTION; slot = (slot + 1) & (h->n_slots - 1)) {
        scio_h5_collection *c = &h->collections[h->slots[slot]];

        if (c->address != address)
            continue;
        if (c->data == NULL)
            SCIO_TRY(parse_collection(h, c, err));
        h->i_last = h->slots[slot];
        return SCIO_OK;
    }
    SCIO_TRY(scio_h5_check_range(h->file, address, h->head_nbytes, err));
    return scio_fail(err, SCIO_EBUG, "a global heap collection that was not announced");
}

/* The head of object `number`, or NULL. Objects of a collection that nothing was removed from have
 * the numbers 1, 2, 3 … */
static const uint8_t *
find_object(const scio_h5_heap *h, const scio_h5_collection *c, uint32_t number)
{
    const uint32_t *objects;
    size_t low = 0, high = c->n_objects;

    if (c->n_objects == 0)
        return NULL;
    objects = h->objects + c->i_first;
    if (number != 0 && number <= c->n_objects && load_u16(c->data + objects[number - 1]) == number)
        return c->data + objects[number - 1];
    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (load_u16(c->data + objects[middle]) < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == c->n_objects || load_u16(c->data + objects[low]) != number)
        return NULL;
    return c->data + objects[low];
}

scio_status
scio_h5_heap_init(const scio_h5_file *file, uint64_t *addresses, size_t n_addresses,
                  scio_h5_heap *out, scio_error *err)
{
    const scio_h5_superblock *sb = scio_h5_file_superblock(file);
    size_t n;

    *out = (scio_h5_heap){.file = file, .sb = sb, .nbytes_left = sb->end, .i_last = NO_COLLECTION};
    out->head_nbytes = pad8(8 + (size_t)sb->length_nbytes);
    n = sort_addresses(out, addresses, n_addresses);
    SCIO_TRY(scio_mem_zalloc(n, sizeof *out->extra, &out->extra, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *out->collections, &out->collections, err));
    out->n_collections = n;
    for (size_t i = 0; i < n; i++)
        out->collections[i].address = addresses[i];
    SCIO_TRY(scio_mem_zalloc(n, sizeof *out->windows, &out->windows, err));
    plan_windows(out);
    return make_slots(out, err);
}

void
scio_h5_heap_clear(scio_h5_heap *heap)
{
    for (size_t i = 0; i < heap->n_windows; i++)
        scio_buf_release(heap->windows[i].buf);
    for (size_t i = 0; i < heap->n_collections; i++)
        scio_buf_release(heap->extra[i]);
    scio_mem_free(heap->windows);
    scio_mem_free(heap->collections);
    scio_mem_free(heap->extra);
    scio_mem_free(heap->objects);
    scio_mem_free(heap->slots);
    *heap = (scio_h5_heap){0};
}

scio_status
scio_h5_heap_find(scio_h5_heap *heap, uint64_t address, uint32_t number, const uint8_t **data_out,
                  uint64_t *nbytes_out, scio_error *err)
{
    const uint8_t *head;

    if (heap->i_last == NO_COLLECTION || heap->collections[heap->i_last].address != address)
        SCIO_TRY(find_collection(heap, address, err));
    head = find_object(heap, &heap->collections[heap->i_last], number);
    if (head == NULL)
        return scio_fail(err, SCIO_ECORRUPT,
                         "global heap collection at byte %llu has no object %lu",
                         (unsigned long long)(heap->sb->base + address), (unsigned long)number);
    *data_out = head + heap->head_nbytes;
    *nbytes_out = scio_h5_load_uint(head + 8, heap->sb->length_nbytes);
    return SCIO_OK;
}
