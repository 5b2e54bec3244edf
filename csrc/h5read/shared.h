/* Shared messages: a message that stands in another object's header. */
#ifndef SCIO_H5READ_SHARED_H
#define SCIO_H5READ_SHARED_H

#include "base/error.h"
#include "h5read/header.h"
#include "h5read/type.h"

/* Follows `message`, whose flags say that it is shared, to the header of the committed object:
 * `*header_out` holds it (clear it after use) and `*target_out` points to the message of the same
 * type in it, which is not shared itself.  EUNSUPPORTED for shared-message heaps. */
SCIO_MUST_CHECK scio_status scio_h5_shared_follow(const scio_h5_file *file,
                                                  const scio_h5_message *message,
                                                  scio_h5_header *header_out,
                                                  const scio_h5_message **target_out,
                                                  scio_error *err);
bool scio_h5_message_is_shared(const scio_h5_message *message);

/* A dataspace message, followed when it is shared. */
SCIO_MUST_CHECK scio_status scio_h5_space_from_message(const scio_h5_file *file,
                                                       const scio_h5_message *message,
                                                       scio_h5_space *out, scio_error *err);

#endif
