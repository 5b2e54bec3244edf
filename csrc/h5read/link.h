/* Lists of links under construction, and link messages. */
#ifndef SCIO_H5READ_LINK_H
#define SCIO_H5READ_LINK_H

#include "base/error.h"
#include "h5read/file.h"
#include "h5read/object.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_h5_link_list {
    scio_h5_links links;
    size_t capacity;
    size_t max_links; /* limit n_members */
} scio_h5_link_list;

void scio_h5_link_clear(scio_h5_link *link);
/* Takes the content of `link` over, also on failure; leaves it empty.  EUNSAFE beyond the limit. */
SCIO_MUST_CHECK scio_status scio_h5_link_list_add(scio_h5_link_list *list, scio_h5_link *link,
                                                  scio_error *err);
/* By creation order when `is_tracked`, else by name bytes; ECORRUPT when a name occurs twice. */
SCIO_MUST_CHECK scio_status scio_h5_link_list_sort(scio_h5_link_list *list, bool is_tracked,
                                                   scio_error *err);

/* Not empty, no '/' and no NUL inside nbytes. */
SCIO_MUST_CHECK scio_status scio_h5_link_name_check(const char *name, size_t nbytes,
                                                    uint64_t position, scio_error *err);
/* A link message (hdf5_format.md 1.5). */
SCIO_MUST_CHECK scio_status scio_h5_link_parse(const scio_h5_file *file, const uint8_t *data,
                                               size_t nbytes, uint64_t position, scio_h5_link *out,
                                               scio_error *err);

#endif
