/* Linear probing, at most half full. */
#include "h5read/address_set.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define FREE UINT64_MAX
#define FIRST_N_SLOTS 16

/* The slot that holds `address` or where it belongs. */
static size_t
find_slot(const uint64_t *slots, size_t n_slots, uint64_t address)
{
    /* Addresses are multiples of 8 more often than not: the multiplication (by 2^64 / golden ratio)
     * spreads them over the high bits. */
    size_t i = (size_t)((address * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (n_slots - 1);

    while (slots[i] != FREE && slots[i] != address)
        i = (i + 1) & (n_slots - 1);
    return i;
}

static scio_status
grow(scio_address_set *set, scio_error *err)
{
    const size_t n_slots = set->n_slots == 0 ? FIRST_N_SLOTS : set->n_slots * 2;
    uint64_t *slots = NULL;

    SCIO_TRY(scio_mem_alloc(n_slots, sizeof *slots, &slots, err));
    memset(slots, 0xff, n_slots * sizeof *slots);
    for (size_t i = 0; i < set->n_slots; i++)
        if (set->slots[i] != FREE)
            slots[find_slot(slots, n_slots, set->slots[i])] = set->slots[i];
    scio_mem_free(set->slots);
    set->slots = slots;
    set->n_slots = n_slots;
    return SCIO_OK;
}

scio_status
scio_address_set_add(scio_address_set *set, uint64_t address, const char *what, scio_error *err)
{
    size_t i;

    SCIO_BUG_IF(address == FREE, err);
    if (set->n_items >= set->n_slots / 2)
        SCIO_TRY(grow(set, err));
    i = find_slot(set->slots, set->n_slots, address);
    if (set->slots[i] == address)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s: the block at address %" PRIu64 " is met twice, expected once", what,
                         address);
    set->slots[i] = address;
    set->n_items++;
    return SCIO_OK;
}

void
scio_address_set_clear(scio_address_set *set)
{
    scio_mem_free(set->slots);
    memset(set, 0, sizeof *set);
}
