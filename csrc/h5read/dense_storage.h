/* Dense storage: objects (link or attribute messages) in a fractal heap, indexed by the hash of
 * their names in a version-2 B-tree. */
#ifndef SCIO_H5READ_DENSE_STORAGE_H
#define SCIO_H5READ_DENSE_STORAGE_H

#include "base/error.h"
#include "h5read/file.h"
#include "h5read/header.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_h5_dense_kind {
    SCIO_H5_DENSE_LINKS,
    SCIO_H5_DENSE_ATTRIBUTES
} scio_h5_dense_kind;

typedef struct scio_h5_dense {
    scio_h5_dense_kind kind;
    uint64_t heap; /* SCIO_H5_UNDEFINED: nothing is stored densely */
    uint64_t name_tree;
    bool is_tracked; /* creation order */
} scio_h5_dense;

/* A link info or attribute info message; `message` NULL gives an undefined heap. */
SCIO_MUST_CHECK scio_status scio_h5_dense_parse(const scio_h5_file *file, scio_h5_dense_kind kind,
                                                const scio_h5_message *message, scio_h5_dense *out,
                                                scio_error *err);

/* `message_flags` are those of the stored message (attributes; 0 for links). `hash` is what the
 * index says its name hashes to. */
typedef scio_status (*scio_h5_dense_fn)(void *context, const uint8_t *data, size_t nbytes,
                                        uint64_t position, uint8_t message_flags, uint32_t hash,
                                        scio_error *err);
/* Visits all objects, in no particular order; EUNSAFE when there are more than max_items. */
SCIO_MUST_CHECK scio_status scio_h5_dense_walk(const scio_h5_file *file, const scio_h5_dense *dense,
                                               size_t max_items, scio_h5_dense_fn visit,
                                               void *context, scio_error *err);
/* Visits the objects whose name has the hash of `name`: nearly always one or none. */
SCIO_MUST_CHECK scio_status scio_h5_dense_find(const scio_h5_file *file, const scio_h5_dense *dense,
                                               const char *name, scio_h5_dense_fn visit,
                                               void *context, scio_error *err);
/* ECORRUPT unless the name hashes to `hash`. */
SCIO_MUST_CHECK scio_status scio_h5_dense_check_hash(const char *name, size_t nbytes, uint32_t hash,
                                                     uint64_t position, scio_error *err);

#endif
