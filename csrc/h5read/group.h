/* The two kinds of groups: both are listed into a link list, or asked for one name. */
#ifndef SCIO_H5READ_GROUP_H
#define SCIO_H5READ_GROUP_H

#include "base/error.h"
#include "h5read/header.h"
#include "h5read/link.h"

#define SCIO_H5_UNNAMED                                                                            \
    "unnamed-" /* and the place: a member whose name is lost, when salvaging                       \
                */

/* Old groups: a version-1 B-tree of names that stand in a local heap.  `message` is a symbol table
 * message. */
SCIO_MUST_CHECK scio_status scio_h5_group_old_list(const scio_h5_file *file,
                                                   const scio_h5_message *message,
                                                   scio_h5_link_list *list, scio_error *err);
/* Fills `*out` when the name is there, else out->name stays NULL.  One descent of the tree. */
SCIO_MUST_CHECK scio_status scio_h5_group_old_find(const scio_h5_file *file,
                                                   const scio_h5_message *message, const char *name,
                                                   scio_h5_link *out, scio_error *err);

/* New groups: link messages in the header (compact), and, when there are many, in a fractal heap
 * with an index by name (dense). */
SCIO_MUST_CHECK scio_status scio_h5_group_new_list(const scio_h5_file *file,
                                                   const scio_h5_header *header,
                                                   scio_h5_link_list *list, bool *is_tracked_out,
                                                   scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_group_new_find(const scio_h5_file *file,
                                                   const scio_h5_header *header, const char *name,
                                                   scio_h5_link *out, scio_error *err);

#endif
