/* Descriptors of files that are read: no more than half of what the process may have stay open.
 * Beyond that those that were not used for longest are closed, and opened again by their owners.
 *
 * Any thread; a fork leaves the child a list of its own. */
#ifndef SCIO_BASE_DESCRIPTOR_H
#define SCIO_BASE_DESCRIPTOR_H

#include <stdbool.h>

typedef struct scio_descriptor {
    int fd;           /* -1 = closed */
    unsigned n_users; /* pinned so often; else it may be closed */
    bool is_in_line;
    struct scio_descriptor *older, *newer; /* in line to be closed */
} scio_descriptor;

#define SCIO_DESCRIPTOR_INIT                                                                       \
    {                                                                                              \
        -1, 0, false, 0, 0                                                                         \
    }

/* The descriptor, which stays open until unpin; -1 when it is closed. */
int scio_descriptor_pin(scio_descriptor *descriptor);
/* As pin, after the owner has opened the file as `fd`; that one is closed if another thread was
 * faster. */
int scio_descriptor_pin_new(scio_descriptor *descriptor, int fd);
void scio_descriptor_unpin(scio_descriptor *descriptor);
/* Nobody uses it any more. */
void scio_descriptor_close(scio_descriptor *descriptor);
/* Before a file is opened.  True when something was closed, so that it is worth trying again after
 * the system has said that there are too many (`is_exhausted`). */
bool scio_descriptor_make_room(bool is_exhausted);

#endif
