/* A set of addresses: tells walkers of trees and chains that a block was already met. */
#ifndef SCIO_H5READ_ADDRESS_SET_H
#define SCIO_H5READ_ADDRESS_SET_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_address_set {
    uint64_t *slots; /* open addressing; UINT64_MAX = free */
    size_t n_slots;  /* 0 or a power of two */
    size_t n_items;
} scio_address_set; /* all zero = empty */

/* Adds `address` (not SCIO_H5_UNDEFINED); ECORRUPT "what ... is met twice" when it is in the set.
 */
SCIO_MUST_CHECK scio_status scio_address_set_add(scio_address_set *set, uint64_t address,
                                                 const char *what, scio_error *err);
void scio_address_set_clear(scio_address_set *set);

#endif
