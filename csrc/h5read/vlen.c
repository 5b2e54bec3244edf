/* Variable-length values: records that name objects of the global heap.
 *
 *   record   u32 items, A collection, u32 object
 *
 * Payload goes straight to its place, since the records alone say how long it can become. */
#include "h5read/dataset.h"
#include "h5read/global_heap.h"

#include "base/mem.h"

#include <string.h>

#define N_RECENT 64

typedef struct vlen_records {
    const uint8_t *data;
    size_t stride, n_items;
    uint64_t base_itemsize; /* 1 for strings */
    bool is_string;
} vlen_records;

/* The bytes of one record that is not empty. */
static scio_status
resolve(scio_h5_heap *h, const vlen_records *records, size_t i_item, const uint8_t **data_out,
        uint64_t *nbytes_out, scio_error *err)
{
    const uint8_t *record = records->data + i_item * records->stride;
    const size_t width = h->sb->offset_nbytes;
    const uint64_t wanted = scio_h5_load_u32(record) * records->base_itemsize;
    const uint64_t address = scio_h5_load_uint(record + 4, width);
    const uint32_t number = scio_h5_load_u32(record + 4 + width);
    uint64_t nbytes = 0;

    SCIO_TRY(scio_h5_heap_find(h, address, number, data_out, &nbytes, err));
    if (wanted > nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%llu bytes in object %lu of the global heap collection at byte %llu, "
                         "which has %llu",
                         (unsigned long long)wanted, (unsigned long)number,
                         (unsigned long long)(h->sb->base + address), (unsigned long long)nbytes);
    *nbytes_out = wanted;
    return SCIO_OK;
}

/* Offsets and payload of all records; payload NULL only measures. */
static scio_status
gather(scio_h5_heap *h, const vlen_records *records, int64_t *offsets, uint8_t *payload,
       scio_error *err)
{
    uint64_t total = 0;

    for (size_t i = 0; i < records->n_items; i++) {
        const uint8_t *data = NULL;
        uint64_t nbytes = 0;
        scio_status status;

        offsets[i] = (int64_t)total;
        if (scio_h5_load_u32(records->data + i * records->stride) == 0)
            continue; /* empty, whatever the address says */
        status = resolve(h, records, i, &data, &nbytes, err);
        if (status != SCIO_OK) {
            scio_context(err, "value %zu", i);
            return status;
        }
        if (records->is_string) {
            const uint8_t *nul = memchr(data, 0, (size_t)nbytes);

            if (nul != NULL)
                nbytes = (uint64_t)(nul - data);
        }
        if (payload != NULL)
            memcpy(payload + total, data, (size_t)nbytes);
        total += nbytes;
    }
    offsets[records->n_items] = (int64_t)total;
    return SCIO_OK;
}

/* What a first look at the records says. */
typedef struct survey {
    uint64_t nbytes;     /* what they get, or more where strings are cut at a NUL */
    uint64_t *addresses; /* of collections, with repeats */
    size_t n_addresses, capacity;
} survey;

static scio_status
add_address(survey *s, uint64_t address, scio_error *err)
{
    const size_t capacity = s->capacity == 0 ? 256 : 2 * s->capacity;

    if (s->n_addresses == s->capacity) {
        SCIO_TRY(scio_mem_realloc(&s->addresses, capacity, sizeof *s->addresses, err));
        s->capacity = capacity;
    }
    s->addresses[s->n_addresses++] = address;
    return SCIO_OK;
}

static scio_status
look_through(const scio_h5_file *file, const vlen_records *records, survey *out, scio_error *err)
{
    const size_t width = scio_h5_file_superblock(file)->offset_nbytes;
    const uint64_t limit = scio_h5_file_limits(file)->vlen_nbytes;
    uint64_t recent[N_RECENT]; /* addresses met a short time ago need not be listed again */

    for (size_t k = 0; k < N_RECENT; k++)
        recent[k] = SCIO_H5_UNDEFINED;
    for (size_t i = 0; i < records->n_items; i++) {
        const uint8_t *record = records->data + i * records->stride;
        const uint64_t n_items = scio_h5_load_u32(record);
        const uint64_t address = scio_h5_load_uint(record + 4, width);
        uint64_t *last = &recent[address / 4096 % N_RECENT];

        if (n_items == 0)
            continue;
        if (!scio_add_u64(out->nbytes, n_items * records->base_itemsize, &out->nbytes) ||
            out->nbytes > limit)
            return scio_fail(err, SCIO_EUNSAFE,
                             "value %zu: the variable-length values so far have %llu bytes, the "
                             "limit vlen_nbytes is %llu",
                             i, (unsigned long long)out->nbytes, (unsigned long long)limit);
        if (*last != address)
            SCIO_TRY(add_address(out, address, err));
        *last = address;
    }
    return SCIO_OK;
}

/* A copy of the first nbytes of *inout in a buffer of that size. */
static scio_status
shorten(scio_buf **inout, size_t nbytes, scio_error *err)
{
    scio_buf *shorter = NULL;

    if (scio_buf_nbytes(*inout) == nbytes)
        return SCIO_OK;
    SCIO_TRY(scio_buf_new(nbytes, &shorter, err));
    if (nbytes != 0)
        memcpy(scio_buf_data(shorter), scio_buf_data(*inout), nbytes);
    scio_buf_release(*inout);
    *inout = shorter;
    return SCIO_OK;
}

static scio_status
gather_all(scio_h5_heap *h, const vlen_records *records, uint64_t nbytes, int64_t *offsets,
           scio_buf **payload_inout, scio_error *err)
{
    /* Values share objects, or the records lie: look before taking memory. */
    if (nbytes > h->sb->end) {
        SCIO_TRY(gather(h, records, offsets, NULL, err));
        nbytes = (uint64_t)offsets[records->n_items];
    }
    SCIO_TRY(scio_buf_new((size_t)nbytes, payload_inout, err));
    SCIO_TRY(gather(h, records, offsets, scio_buf_data(*payload_inout), err));
    return shorten(payload_inout, (size_t)offsets[records->n_items], err);
}

static scio_status
check_arguments(const scio_h5_file *file, const scio_h5_type *type, size_t stride, size_t n_items,
                vlen_records *out, scio_error *err)
{
    if (type->type_class != SCIO_H5_VLEN)
        return scio_fail(err, SCIO_EINVAL, "the type is not of variable length");
    if (type->itemsize != 8 + scio_h5_file_superblock(file)->offset_nbytes)
        return scio_fail(
            err, SCIO_ECORRUPT, "variable-length records of %lu bytes, expected 8 + %u",
            (unsigned long)type->itemsize, scio_h5_file_superblock(file)->offset_nbytes);
    if (stride < type->itemsize)
        return scio_fail(err, SCIO_EINVAL, "records of %lu bytes at a stride of %zu",
                         (unsigned long)type->itemsize, stride);
    if (n_items >= SIZE_MAX / sizeof(int64_t))
        return scio_fail(err, SCIO_ENOMEM, "%zu variable-length values", n_items);
    out->is_string = type->is_vlen_string;
    out->base_itemsize = 1;
    if (!type->is_vlen_string) {
        if (type->base == NULL)
            return scio_fail(err, SCIO_EINVAL, "the variable-length type has no base type");
        out->base_itemsize = type->base->itemsize;
    }
    return SCIO_OK;
}

scio_status
scio_h5_vlen_read(scio_h5_file *file, const scio_h5_type *vlen_type, const void *records,
                  size_t stride, size_t n_items, scio_buf **offsets_out, scio_buf **payload_out,
                  scio_error *err)
{
    vlen_records r = {.data = records, .stride = stride, .n_items = n_items};
    scio_buf *offsets = NULL, *payload = NULL;
    scio_h5_heap h = {0};
    survey s = {0};
    scio_status status;

    SCIO_TRY(check_arguments(file, vlen_type, stride, n_items, &r, err));
    status = scio_buf_new((n_items + 1) * sizeof(int64_t), &offsets, err);
    if (status == SCIO_OK)
        status = look_through(file, &r, &s, err);
    if (status == SCIO_OK)
        status = scio_h5_heap_init(file, s.addresses, s.n_addresses, &h, err);
    if (status == SCIO_OK)
        status = gather_all(&h, &r, s.nbytes, scio_buf_data(offsets), &payload, err);
    if (status == SCIO_OK) {
        *offsets_out = offsets;
        *payload_out = payload;
        offsets = payload = NULL;
    }
    scio_h5_heap_clear(&h);
    scio_mem_free(s.addresses);
    scio_buf_release(offsets);
    scio_buf_release(payload);
    return status;
}
