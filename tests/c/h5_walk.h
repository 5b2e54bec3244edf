/* Reads all that a file says about itself, and a bounded part of its data: for tests and fuzzers.
 *
 * Whatever the file holds, each call must end in success or in an error with a text; a bug of ours
 * (SCIO_EBUG) ends the program.  Everything that comes out goes into one number, so that two walks
 * can be compared. */
#ifndef SCIO_TESTS_C_H5_WALK_H
#define SCIO_TESTS_C_H5_WALK_H

#include "base/mem.h"
#include "h5read/dataset.h"
#include "h5read/object.h"
#include "h5read/shared.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WALK_MAX_OBJECTS = 300, WALK_MAX_NAMES = 40 };

typedef struct h5_walk {
    scio_h5_file *file;
    uint64_t digest;
    size_t max_data_nbytes; /* of one dataset; 0 = datasets are not read */
    size_t n_objects, n_errors, n_links, n_attrs, n_read;
    uint64_t seen[WALK_MAX_OBJECTS];
} h5_walk;

static inline void
walk_add(h5_walk *w, const void *data, size_t nbytes)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < nbytes; i++) /* FNV-1a */
        w->digest = (w->digest ^ bytes[i]) * UINT64_C(0x100000001b3);
}

static inline void
walk_add_number(h5_walk *w, uint64_t value)
{
    walk_add(w, &value, sizeof value);
}

static inline void
walk_add_text(h5_walk *w, const char *text)
{
    if (text != NULL)
        walk_add(w, text, strlen(text) + 1);
}

/* True on success; counts and checks a failure and empties `err`. */
static inline bool
walk_ok(h5_walk *w, scio_status status, scio_error *err)
{
    if (status == SCIO_OK)
        return true;
    if (status == SCIO_EBUG || err->code != status || err->message[0] == '\0') {
        (void)fprintf(stderr, "%s: %s\n", scio_status_name(status), err->message);
        abort();
    }
    w->n_errors++;
    walk_add_number(w, status);
    memset(err, 0, sizeof *err);
    return false;
}

static inline void
walk_type(h5_walk *w, const scio_h5_type *type)
{
    walk_add_number(w, (uint64_t)type->type_class << 32 | type->itemsize);
    walk_add_number(w, type->dtype);
    walk_add_text(w, type->unsupported);
    walk_add_text(w, type->opaque_tag);
    walk_add(w, type->array_dims, type->array_rank * sizeof *type->array_dims);
    if (type->base != NULL)
        walk_type(w, type->base);
    for (size_t i = 0; i < type->n_members; i++) {
        if (type->members != NULL) {
            walk_add_text(w, type->members[i].name);
            walk_add_number(w, type->members[i].offset);
            walk_type(w, type->members[i].type);
        }
        if (type->enum_names != NULL)
            walk_add_text(w, type->enum_names[i]);
    }
    if (type->enum_values != NULL)
        walk_add(w, type->enum_values, type->n_members * type->itemsize);
}

static inline void
walk_vlen(h5_walk *w, const scio_h5_type *type, const void *records, size_t n_items)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *offsets = NULL, *payload = NULL;

    if (walk_ok(w,
                scio_h5_vlen_read(w->file, type, records, type->itemsize, n_items, &offsets,
                                  &payload, &err),
                &err)) {
        walk_add(w, scio_buf_data(offsets), scio_buf_nbytes(offsets));
        walk_add(w, scio_buf_data(payload), scio_buf_nbytes(payload));
    }
    scio_buf_release(offsets);
    scio_buf_release(payload);
}

static inline void
walk_attrs(h5_walk *w, uint64_t address)
{
    scio_error err = SCIO_ERROR_INIT;
    char **names = NULL;
    size_t n_names = 0;

    if (!walk_ok(w, scio_h5_attr_names(w->file, address, &names, &n_names, &err), &err))
        return;
    for (size_t i = 0; i < n_names && i < WALK_MAX_NAMES; i++) {
        scio_h5_attr attr;

        walk_add_text(w, names[i]);
        if (!walk_ok(w, scio_h5_attr_get(w->file, address, names[i], &attr, &err), &err))
            continue;
        w->n_attrs++;
        walk_type(w, attr.type);
        walk_add(w, attr.space.dims, attr.space.rank * sizeof *attr.space.dims);
        walk_add(w, attr.value, attr.value_nbytes);
        if (attr.type->type_class == SCIO_H5_VLEN && attr.value != NULL)
            walk_vlen(w, attr.type, attr.value, attr.space.n_items);
        scio_h5_attr_clear(&attr);
    }
    scio_h5_names_free(names, n_names);
}

/* Type and dataspace of a dataset or committed type, without the rest of it. */
static inline void
walk_header(h5_walk *w, uint64_t address)
{
    scio_error err = SCIO_ERROR_INIT;
    const scio_h5_message *message;
    scio_h5_header header;
    scio_h5_type *type = NULL;
    scio_h5_space space;

    if (!walk_ok(w, scio_h5_header_read(w->file, address, &header, &err), &err))
        return;
    message = scio_h5_header_find(&header, SCIO_H5_MSG_DATATYPE);
    if (message != NULL &&
        walk_ok(w, scio_h5_type_from_message(w->file, message, &type, &err), &err))
        walk_type(w, type);
    message = scio_h5_header_find(&header, SCIO_H5_MSG_DATASPACE);
    if (message != NULL &&
        walk_ok(w, scio_h5_space_from_message(w->file, message, &space, &err), &err))
        walk_add_number(w, space.n_items);
    scio_h5_type_free(type);
    scio_h5_header_clear(&header);
}

/* The whole of a small dataset, the first element of a large one. */
static inline void
walk_data(h5_walk *w, const scio_h5_dataset *dataset, scio_h5_dataset *mutable_dataset)
{
    const scio_h5_read_options options = {NULL, 0, NULL};
    const uint64_t zeros[SCIO_H5_MAX_RANK] = {0};
    uint64_t count[SCIO_H5_MAX_RANK], nbytes = 0, n_items = dataset->space.n_items;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t *data = NULL;

    memcpy(count, dataset->space.dims, sizeof count);
    if (n_items == 0 || dataset->unit_nbytes > w->max_data_nbytes)
        return;
    if (!scio_mul_u64(n_items, dataset->type->itemsize, &nbytes) || nbytes > w->max_data_nbytes) {
        for (unsigned i = 0; i < dataset->space.rank; i++)
            count[i] = 1;
        n_items = 1;
        nbytes = dataset->type->itemsize;
    }
    if (nbytes > w->max_data_nbytes || scio_mem_alloc((size_t)nbytes, 1, &data, NULL) != SCIO_OK)
        return;
    if (walk_ok(w,
                scio_h5_dataset_read(mutable_dataset, zeros, count, SCIO_DTYPE_NONE, data,
                                     (size_t)nbytes, &options, &err),
                &err)) {
        w->n_read++;
        walk_add(w, data, (size_t)nbytes);
        if (dataset->type->type_class == SCIO_H5_VLEN)
            walk_vlen(w, dataset->type, data, (size_t)n_items);
    }
    scio_mem_free(data);
}

static inline void
walk_dataset(h5_walk *w, uint64_t address)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_dataset *dataset = NULL;

    if (w->max_data_nbytes == 0 ||
        !walk_ok(w, scio_h5_dataset_open(w->file, address, "/data", &dataset, &err), &err))
        return;
    walk_data(w, dataset, dataset);
    scio_h5_dataset_free(dataset);
}

static inline void walk_object(h5_walk *w, uint64_t address, unsigned depth);

static inline void
walk_links(h5_walk *w, uint64_t address, unsigned depth)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_links links;

    if (!walk_ok(w, scio_h5_links_list(w->file, address, &links, &err), &err))
        return;
    for (size_t i = 0; i < links.n_links; i++) {
        const scio_h5_link *const link = &links.links[i];
        uint64_t found = 0;

        w->n_links++;
        walk_add_text(w, link->name);
        walk_add_text(w, link->target);
        walk_add_text(w, link->target_file);
        if (i < WALK_MAX_NAMES &&
            walk_ok(w, scio_h5_resolve(w->file, address, link->name, &found, &err), &err))
            walk_add_number(w, found);
        if (link->type == SCIO_H5_LINK_HARD)
            walk_object(w, link->address, depth + 1);
    }
    scio_h5_links_clear(&links);
}

static inline void
walk_object(h5_walk *w, uint64_t address, unsigned depth)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_kind kind = SCIO_H5_KIND_UNKNOWN;

    for (size_t i = 0; i < w->n_objects; i++)
        if (w->seen[i] == address)
            return;
    if (depth > 64 || w->n_objects == WALK_MAX_OBJECTS)
        return;
    w->seen[w->n_objects++] = address;
    if (!walk_ok(w, scio_h5_kind_get(w->file, address, &kind, &err), &err))
        return;
    walk_add_number(w, kind);
    walk_attrs(w, address);
    if (kind == SCIO_H5_KIND_GROUP)
        walk_links(w, address, depth);
    if (kind == SCIO_H5_KIND_DATASET || kind == SCIO_H5_KIND_TYPE)
        walk_header(w, address);
    if (kind == SCIO_H5_KIND_DATASET)
        walk_dataset(w, address);
}

/* Walks a whole file that lies in memory; `err` tells why it was not opened. */
static inline scio_status
walk_image(const void *image, size_t nbytes, size_t max_data_nbytes, h5_walk *out, scio_error *err)
{
    scio_buf *buf = NULL;
    scio_source *source = NULL;
    scio_h5_limits limits;
    scio_status status;
    union { /* the image is only read */
        const void *in;
        void *out;
    } data = {image};

    memset(out, 0, sizeof *out);
    out->digest = UINT64_C(0xcbf29ce484222325);
    out->max_data_nbytes = max_data_nbytes;
    scio_h5_limits_default(&limits);
    limits.chunk_nbytes = (uint64_t)16 << 20;
    limits.vlen_nbytes = (uint64_t)1 << 20;
    status = scio_buf_wrap(data.out, nbytes, NULL, NULL, &buf, err);
    if (status == SCIO_OK)
        status = scio_source_from_buf(buf, "image", &source, err);
    if (status == SCIO_OK)
        status = scio_h5_file_open(source, &limits, &out->file, err);
    if (status == SCIO_OK)
        walk_object(out, scio_h5_file_superblock(out->file)->root, 0);
    scio_h5_file_release(out->file);
    out->file = NULL;
    scio_source_release(source);
    scio_buf_release(buf);
    return status;
}

#endif
