/* The comparison behind every metadata checksum. */
#ifndef SCIO_H5READ_CHECKSUM_H
#define SCIO_H5READ_CHECKSUM_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* ECORRUPT unless the two are equal; `nbytes` were summed, `position` is where the structure
 * starts. */
SCIO_MUST_CHECK scio_status scio_h5_compare_sums(uint32_t stored, uint32_t computed, size_t nbytes,
                                                 uint64_t position, const char *what,
                                                 scio_error *err);

#endif
