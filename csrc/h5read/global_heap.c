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

#define MIN_WINDOW_NBYTES ((uint64_t)4096) /* a collection of libhdf5 */
#define MAX_WINDOW_NBYTES ((uint64_t)4 << 20)
#define MIN_SLOTS 64
#define NO_COLLECTION SIZE_MAX
#define READ_AHEAD_FACTOR 4 /* of the file's size may be read ahead in all */

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

/* Room for one more item. */
static scio_status
grow(void *inout, size_t *capacity, size_t n_items, size_t itemsize, scio_error *err)
{
    const size_t wanted = *capacity == 0 ? 64 : 2 * *capacity;

    if (n_items < *capacity)
        return SCIO_OK;
    SCIO_TRY(scio_mem_realloc(inout, wanted, itemsize, err));
    *capacity = wanted;
    return SCIO_OK;
}

/* ---- windows ---- */

/* Reads at least nbytes from `address` on.  Reads that follow one another double, others start
 * small. */
static scio_status
open_window(scio_h5_heap *h, uint64_t address, uint64_t nbytes, scio_error *err)
{
    const uint64_t room = h->sb->end - h->sb->base - address; /* > 0: the caller has checked */
    const scio_h5_window *last = h->n_windows == 0 ? NULL : &h->windows[h->n_windows - 1];
    scio_h5_window w = {.address = address};
    scio_status status;

    if (last != NULL && address >= last->address &&
        address - last->address <= last->nbytes + MIN_WINDOW_NBYTES)
        h->next_window_nbytes *= 2;
    else
        h->next_window_nbytes = MIN_WINDOW_NBYTES;
    if (h->next_window_nbytes > MAX_WINDOW_NBYTES)
        h->next_window_nbytes = MAX_WINDOW_NBYTES;
    if (h->next_window_nbytes > h->read_ahead_left) /* tiny collections in no order */
        h->next_window_nbytes = 0;
    w.nbytes = nbytes > h->next_window_nbytes ? nbytes : h->next_window_nbytes;
    if (w.nbytes > room)
        w.nbytes = room;
    h->read_ahead_left -= w.nbytes < h->read_ahead_left ? w.nbytes : h->read_ahead_left;
    SCIO_TRY(grow(&h->windows, &h->windows_capacity, h->n_windows, sizeof *h->windows, err));
    SCIO_TRY(scio_buf_new((size_t)w.nbytes, &w.buf, err));
    status = scio_h5_read(h->file, address, (size_t)w.nbytes, scio_buf_data(w.buf), err);
    if (status != SCIO_OK) {
        scio_buf_release(w.buf);
        return status;
    }
    h->windows[h->n_windows++] = w;
    return SCIO_OK;
}

/* nbytes at `address`, which lie in the file, from the last window or a new one. */
static scio_status
view(scio_h5_heap *h, uint64_t address, uint64_t nbytes, const uint8_t **out, scio_error *err)
{
    const scio_h5_window *w = h->n_windows == 0 ? NULL : &h->windows[h->n_windows - 1];

    if (w == NULL || address < w->address || address - w->address > w->nbytes ||
        nbytes > w->nbytes - (address - w->address)) {
        SCIO_TRY(open_window(h, address, nbytes, err));
        w = &h->windows[h->n_windows - 1];
    }
    *out = (const uint8_t *)scio_buf_data(w->buf) + (address - w->address);
    return SCIO_OK;
}

/* ---- collections ---- */

/* Checks the objects of a collection and puts their places into heap.objects. */
static scio_status
list_objects(scio_h5_heap *h, scio_h5_collection *c, bool *is_sorted_out, scio_error *err)
{
    const uint64_t position = h->sb->base + c->address;
    size_t at = h->head_nbytes;
    unsigned last = 0;

    c->i_first = h->n_objects;
    *is_sorted_out = true;
    while (c->nbytes - at >= h->object_head_nbytes) {
        const uint8_t *head = c->data + at;
        const unsigned number = load_u16(head);
        const uint64_t nbytes = scio_h5_load_uint(head + 8, h->sb->length_nbytes);
        const size_t room = c->nbytes - at - h->object_head_nbytes;

        if (number == 0)
            break;
        if (nbytes > room)
            return scio_fail(err, SCIO_ECORRUPT,
                             "global heap collection at byte %llu: object %u has %llu bytes, the "
                             "collection has room for %zu",
                             (unsigned long long)position, number, (unsigned long long)nbytes,
                             room);
        SCIO_TRY(grow(&h->objects, &h->objects_capacity, h->n_objects, sizeof *h->objects, err));
        h->objects[h->n_objects++] = (uint32_t)at;
        *is_sorted_out = *is_sorted_out && number > last;
        last = number;
        at += h->object_head_nbytes + (pad8((size_t)nbytes) < room ? pad8((size_t)nbytes) : room);
    }
    c->n_objects = h->n_objects - c->i_first;
    return SCIO_OK;
}

static int
compare_keys(const void *a, const void *b)
{
    const uint64_t i = *(const uint64_t *)a, j = *(const uint64_t *)b;

    return (i > j) - (i < j);
}

/* By number, after objects were removed and others took their place. */
static scio_status
sort_objects(scio_h5_heap *h, const scio_h5_collection *c, scio_error *err)
{
    uint32_t *objects = h->objects + c->i_first;
    uint64_t *keys = NULL;
    scio_status status = SCIO_OK;

    SCIO_TRY(scio_mem_alloc(c->n_objects, sizeof *keys, &keys, err));
    for (size_t i = 0; i < c->n_objects; i++)
        keys[i] = (uint64_t)load_u16(c->data + objects[i]) << 32 | objects[i];
    qsort(keys, c->n_objects, sizeof *keys, compare_keys);
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
read_head(scio_h5_heap *h, uint64_t address, uint64_t *nbytes_out, scio_error *err)
{
    const uint64_t position = h->sb->base + address;
    const uint8_t *head = NULL;
    uint64_t nbytes;

    if (scio_h5_check_range(h->file, address, h->head_nbytes, err) != SCIO_OK) {
        scio_context(err, "global heap collection");
        return SCIO_ECORRUPT;
    }
    SCIO_TRY(view(h, address, h->head_nbytes, &head, err));
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

static size_t
first_slot(const scio_h5_heap *h, uint64_t address)
{
    /* 2^64 / golden ratio (Knuth, TAOCP 6.4): addresses are multiples of 8 and often of 4096. */
    return (size_t)((address * 0x9e3779b97f4a7c15u) >> 32) & (h->n_slots - 1);
}

static void
insert(scio_h5_heap *h, size_t i_collection)
{
    size_t slot = first_slot(h, h->collections[i_collection].address);

    while (h->slots[slot] != NO_COLLECTION)
        slot = (slot + 1) & (h->n_slots - 1);
    h->slots[slot] = i_collection;
}

/* Keeps the hash table at most half full with one more collection. */
static scio_status
grow_slots(scio_h5_heap *h, scio_error *err)
{
    const size_t n_slots = h->n_slots == 0 ? MIN_SLOTS : 2 * h->n_slots;
    size_t *slots = NULL;

    if (2 * (h->n_collections + 1) <= h->n_slots)
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc(n_slots, sizeof *slots, &slots, err));
    for (size_t i = 0; i < n_slots; i++)
        slots[i] = NO_COLLECTION;
    scio_mem_free(h->slots);
    h->slots = slots;
    h->n_slots = n_slots;
    for (size_t i = 0; i < h->n_collections; i++)
        insert(h, i);
    return SCIO_OK;
}

static scio_status
parse_collection(scio_h5_heap *h, uint64_t address, scio_error *err)
{
    scio_h5_collection c = {.address = address};
    uint64_t nbytes = 0;
    bool is_sorted = true;

    SCIO_TRY(read_head(h, address, &nbytes, err));
    SCIO_TRY(view(h, address, nbytes, &c.data, err));
    c.nbytes = (uint32_t)nbytes;
    SCIO_TRY(list_objects(h, &c, &is_sorted, err));
    if (!is_sorted)
        SCIO_TRY(sort_objects(h, &c, err));
    SCIO_TRY(grow(&h->collections, &h->collections_capacity, h->n_collections,
                  sizeof *h->collections, err));
    SCIO_TRY(grow_slots(h, err));
    h->nbytes_left -= nbytes;
    h->collections[h->n_collections] = c;
    insert(h, h->n_collections);
    h->i_last = h->n_collections++;
    return SCIO_OK;
}

/* Makes heap.i_last the collection at `address`. */
static scio_status
find_collection(scio_h5_heap *h, uint64_t address, scio_error *err)
{
    if (h->n_collections != 0 && h->collections[h->i_last].address == address)
        return SCIO_OK;
    if (h->n_slots != 0) {
        size_t slot = first_slot(h, address);

        for (; h->slots[slot] != NO_COLLECTION; slot = (slot + 1) & (h->n_slots - 1))
            if (h->collections[h->slots[slot]].address == address) {
                h->i_last = h->slots[slot];
                return SCIO_OK;
            }
    }
    return parse_collection(h, address, err);
}

/* The head of object `number`, or NULL. Objects of a collection that nothing was removed from have
 * the numbers 1, 2, 3 … */
static const uint8_t *
find_object(const scio_h5_heap *h, const scio_h5_collection *c, uint32_t number)
{
    const uint32_t *objects = h->objects + c->i_first;
    size_t low = 0, high = c->n_objects;

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

void
scio_h5_heap_init(const scio_h5_file *file, scio_h5_heap *out)
{
    const scio_h5_superblock *sb = scio_h5_file_superblock(file);

    *out = (scio_h5_heap){.file = file, .sb = sb, .nbytes_left = sb->end};
    out->head_nbytes = out->object_head_nbytes = pad8(8 + (size_t)sb->length_nbytes);
    if (!scio_mul_u64(sb->end, READ_AHEAD_FACTOR, &out->read_ahead_left))
        out->read_ahead_left = UINT64_MAX;
}

void
scio_h5_heap_clear(scio_h5_heap *heap)
{
    for (size_t i = 0; i < heap->n_windows; i++)
        scio_buf_release(heap->windows[i].buf);
    scio_mem_free(heap->windows);
    scio_mem_free(heap->collections);
    scio_mem_free(heap->objects);
    scio_mem_free(heap->slots);
    *heap = (scio_h5_heap){0};
}

scio_status
scio_h5_heap_find(scio_h5_heap *heap, uint64_t address, uint32_t number, const uint8_t **data_out,
                  uint64_t *nbytes_out, scio_error *err)
{
    const uint8_t *head;

    SCIO_TRY(find_collection(heap, address, err));
    head = find_object(heap, &heap->collections[heap->i_last], number);
    if (head == NULL)
        return scio_fail(err, SCIO_ECORRUPT,
                         "global heap collection at byte %llu has no object %lu",
                         (unsigned long long)(heap->sb->base + address), (unsigned long)number);
    *data_out = head + heap->object_head_nbytes;
    *nbytes_out = scio_h5_load_uint(head + 8, heap->sb->length_nbytes);
    return SCIO_OK;
}
