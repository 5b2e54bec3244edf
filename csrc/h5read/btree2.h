/* Version-2 B-trees: looking records up by key (walking all of them is in header.h). */
#ifndef SCIO_H5READ_BTREE2_H
#define SCIO_H5READ_BTREE2_H

#include "base/error.h"
#include "h5read/header.h"

enum { SCIO_H5_BTREE2_HUGE = 1, SCIO_H5_BTREE2_LINK_NAME = 5, SCIO_H5_BTREE2_ATTRIBUTE_NAME = 8 };

/* Order of a record against the wanted key: negative = before it, 0 = equal, positive = after. */
typedef int (*scio_h5_record_compare_fn)(const void *context, const uint8_t *record,
                                         size_t record_nbytes);

/* Visits the records that compare equal, in order; all others are stepped over by their order. */
SCIO_MUST_CHECK scio_status scio_h5_btree2_find(const scio_h5_file *file, uint64_t address,
                                                unsigned expected_type,
                                                scio_h5_record_compare_fn compare,
                                                scio_h5_record_fn visit, void *context,
                                                scio_error *err);

#endif
