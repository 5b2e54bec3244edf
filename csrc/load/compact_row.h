/* Rows as the compact store has them: a head, the values behind it, then the indices.  Other files
 * than compact.c do not include this. */
#ifndef SCIO_LOAD_COMPACT_ROW_H
#define SCIO_LOAD_COMPACT_ROW_H

#include "load/collate.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_row_head {
    uint32_t n_items;
    uint8_t value_dtype, index_dtype; /* index_dtype NONE: a dense row */
    uint16_t unused;
} scio_row_head; /* values behind it, then indices */

_Static_assert(sizeof(scio_row_head) == 8, "values behind it are aligned for 8 bytes");

/* How narrow a row may be, without loss, and what it takes then: a multiple of 8. */
typedef struct scio_row_layout {
    scio_dtype value_dtype, index_dtype;
    uint64_t index_offset, nbytes;
} scio_row_layout;

scio_row_layout scio_row_lay(const scio_row *row);
/* Into layout->nbytes of memory, aligned for 8 bytes. */
scio_row_head *scio_row_write(const scio_row *row, const scio_row_layout *layout, char *memory);
/* Points `row` at it: indices, values, their dtypes, n_items. */
void scio_row_read(const scio_row_head *head, scio_row *row);

#endif
