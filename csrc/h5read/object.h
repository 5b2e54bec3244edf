/* Groups, links and attributes: what a file contains and where. */
#ifndef SCIO_H5READ_OBJECT_H
#define SCIO_H5READ_OBJECT_H

#include "base/error.h"
#include "h5read/file.h"
#include "h5read/type.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_h5_kind {
    SCIO_H5_KIND_GROUP,
    SCIO_H5_KIND_DATASET,
    SCIO_H5_KIND_TYPE, /* committed datatype */
    SCIO_H5_KIND_UNKNOWN
} scio_h5_kind;

typedef enum scio_h5_link_type {
    SCIO_H5_LINK_HARD,
    SCIO_H5_LINK_SOFT,
    SCIO_H5_LINK_EXTERNAL,
    SCIO_H5_LINK_USER
} scio_h5_link_type;

typedef struct scio_h5_link {
    char *name; /* UTF-8, NUL-terminated, no inner NUL */
    scio_h5_link_type type;
    uint64_t address; /* HARD */
    char *target;     /* SOFT: path; EXTERNAL: path in target_file; else NULL */
    char *target_file;
    uint64_t creation_order; /* UINT64_MAX when not tracked */
} scio_h5_link;

typedef struct scio_h5_links {
    size_t n_links;
    scio_h5_link *links; /* by name bytes, or by creation order when the group tracks it */
    bool is_tracked;
} scio_h5_links;

SCIO_MUST_CHECK scio_status scio_h5_kind_get(const scio_h5_file *file, uint64_t address,
                                             scio_h5_kind *out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_links_list(const scio_h5_file *file, uint64_t address,
                                               scio_h5_links *out, scio_error *err);
void scio_h5_links_clear(scio_h5_links *links);

/* Follows `path` ("/" and empty parts ignored) from the group at `start` through hard links and
 * soft links inside the file (at most 16).  One name is looked up without listing the group. ENOENT
 * names the missing part and its parent; EUNSAFE for external and user-defined links. */
SCIO_MUST_CHECK scio_status scio_h5_resolve(const scio_h5_file *file, uint64_t start,
                                            const char *path, uint64_t *address_out,
                                            scio_error *err);

typedef struct scio_h5_attr {
    char *name;
    scio_h5_type *type;
    scio_h5_space space;
    uint8_t
        *value; /* n_items * type->itemsize bytes as stored; vlen not resolved; NULL when empty */
    size_t value_nbytes;
} scio_h5_attr;

typedef struct scio_h5_attrs {
    size_t n_attrs;
    scio_h5_attr *attrs; /* by name bytes */
} scio_h5_attrs;

/* Names only, without parsing values. */
SCIO_MUST_CHECK scio_status scio_h5_attr_names(const scio_h5_file *file, uint64_t address,
                                               char ***names_out, size_t *n_names_out,
                                               scio_error *err);
void scio_h5_names_free(char **names, size_t n_names);
/* One attribute; ENOENT when the object has none of that name. Broken siblings do not matter. */
SCIO_MUST_CHECK scio_status scio_h5_attr_get(const scio_h5_file *file, uint64_t address,
                                             const char *name, scio_h5_attr *out, scio_error *err);
void scio_h5_attr_clear(scio_h5_attr *attr);

#endif
