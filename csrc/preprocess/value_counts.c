/* Counts of large values; see value_counts.h. */
#include "preprocess/value_counts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_PLACES = 64 };

static uint64_t
hash_of(uint64_t key)
{
    return key * 0x9E3779B97F4A7C15u;
}

/* The place of a key: that which holds it, or the free one where it belongs. */
static size_t
find(const scio_value_part *part, uint64_t key)
{
    const size_t mask = part->n_places - 1;
    size_t at = (size_t)(hash_of(key) >> 20) & mask;

    while (part->keys[at] != 0 && part->keys[at] != key)
        at = (at + 1) & mask;
    return at;
}

static scio_status
grow(scio_value_part *part, scio_error *err)
{
    const size_t n_places = part->n_places > 0 ? part->n_places * 2 : FIRST_PLACES;
    scio_value_part larger = {NULL, NULL, n_places, part->n_used};
    scio_status status;

    status = scio_mem_zalloc(n_places, sizeof *larger.keys, &larger.keys, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(n_places, sizeof *larger.counts, &larger.counts, err);
    if (status != SCIO_OK) {
        scio_mem_free(larger.keys);
        return status;
    }
    for (size_t i = 0; i < part->n_places; i++) {
        if (part->keys[i] != 0) {
            const size_t at = find(&larger, part->keys[i]);

            larger.keys[at] = part->keys[i];
            larger.counts[at] = part->counts[i];
        }
    }
    scio_mem_free(part->keys);
    scio_mem_free(part->counts);
    *part = larger;
    return SCIO_OK;
}

static scio_status
part_add(scio_value_part *part, uint64_t key, uint64_t n, scio_error *err)
{
    size_t at;

    if (part->n_used >= part->n_places / 2)
        SCIO_TRY(grow(part, err));
    at = find(part, key);
    if (part->keys[at] == 0) {
        part->keys[at] = key;
        part->counts[at] = 0;
        part->n_used++;
    }
    part->counts[at] += n;
    return SCIO_OK;
}

scio_status
scio_value_counts_add(scio_value_counts *counts, uint64_t key, uint64_t n, scio_error *err)
{
    return part_add(&counts->parts[hash_of(key) >> 60], key, n, err);
}

scio_status
scio_value_counts_join(scio_value_counts *to, scio_value_counts *from, size_t i_part,
                       scio_error *err)
{
    scio_value_part *const part = &from->parts[i_part];

    if (part->n_used == 0)
        return SCIO_OK;
    for (size_t i = 0; i < part->n_places; i++) {
        if (part->keys[i] != 0)
            SCIO_TRY(part_add(&to->parts[i_part], part->keys[i], part->counts[i], err));
    }
    memset(part->keys, 0, part->n_places * sizeof *part->keys);
    part->n_used = 0;
    return SCIO_OK;
}

size_t
scio_value_counts_n_used(const scio_value_counts *counts)
{
    size_t n_used = 0;

    for (size_t i = 0; i < SCIO_VALUE_PARTS; i++)
        n_used += counts->parts[i].n_used;
    return n_used;
}

void
scio_value_counts_clear(scio_value_counts *counts)
{
    for (size_t i = 0; i < SCIO_VALUE_PARTS; i++) {
        scio_mem_free(counts->parts[i].keys);
        scio_mem_free(counts->parts[i].counts);
    }
    memset(counts, 0, sizeof *counts);
}

/* --- sorting: by place by counting, within a place by value --- */

typedef struct entry {
    uint64_t value, count;
} entry;

static int
compare_values(const void *a, const void *b)
{
    const uint64_t x = ((const entry *)a)->value, y = ((const entry *)b)->value;

    return (x > y) - (x < y);
}

/* Calls for every entry of the table, in the order of the table. */
#define FOR_EACH_ENTRY(counts, part, i)                                                            \
    for (const scio_value_part *part = (counts)->parts; part < (counts)->parts + SCIO_VALUE_PARTS; \
         part++)                                                                                   \
        for (size_t i = 0; i < part->n_places; i++)                                                \
            if (part->keys[i] != 0)

scio_status
scio_value_counts_sorted(const scio_value_counts *counts, size_t n_places, int64_t *indptr_out,
                         uint64_t *values_out, int64_t *counts_out, scio_error *err)
{
    const size_t n_used = scio_value_counts_n_used(counts);
    entry *entries = NULL;
    scio_status status;

    memset(indptr_out, 0, (n_places + 1) * sizeof *indptr_out);
    status = scio_mem_alloc(n_used, sizeof *entries, &entries, err);
    if (status != SCIO_OK)
        return status;
    FOR_EACH_ENTRY(counts, part, i) indptr_out[part->keys[i] >> 32]++;
    /* indptr_out[p] = end of place p; filling from the end leaves its beginning there */
    for (size_t p = 1; p <= n_places; p++)
        indptr_out[p] += indptr_out[p - 1];
    FOR_EACH_ENTRY(counts, part, i)
    {
        const int64_t at = --indptr_out[part->keys[i] >> 32];

        entries[at] = (entry){part->keys[i] & UINT32_MAX, part->counts[i]};
    }
    for (size_t p = 0; p < n_places; p++) {
        const size_t n = (size_t)(indptr_out[p + 1] - indptr_out[p]);

        if (n > 1)
            qsort(entries + indptr_out[p], n, sizeof *entries, compare_values);
    }
    for (size_t i = 0; i < n_used; i++) {
        values_out[i] = entries[i].value;
        counts_out[i] = (int64_t)entries[i].count;
    }
    scio_mem_free(entries);
    return SCIO_OK;
}
