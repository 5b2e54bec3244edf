/* Attributes (hdf5_format.md 1.9): in the object's header and in dense storage.  A message is taken
 * apart in two steps, the name first, so that one broken attribute hides no other. */
#include "h5read/object.h"

#include "base/mem.h"
#include "h5read/dense_storage.h"
#include "h5read/shared.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "attribute message"
#define FLAG_TYPE_SHARED 1u
#define FLAG_SPACE_SHARED 2u

/* A message cut into its parts; everything is borrowed from it. */
typedef struct attr_parts {
    scio_cursor cursor; /* behind the name */
    unsigned version, flags;
    const char *name;   /* ends in NUL */
    size_t name_nbytes; /* without it */
    uint16_t type_nbytes, space_nbytes;
} attr_parts;

/* Version 1 pads name, type and space each to a multiple of 8 and states the sizes without. */
static scio_status
take_part(attr_parts *parts, size_t nbytes, const uint8_t **out, scio_error *err)
{
    SCIO_TRY(scio_cursor_bytes(&parts->cursor, nbytes, out, err));
    return scio_cursor_skip(&parts->cursor, parts->version == 1 ? (8 - nbytes % 8) % 8 : 0, err);
}

static scio_status
split(const uint8_t *data, size_t nbytes, uint64_t position, attr_parts *out, scio_error *err)
{
    const uint8_t *name = NULL;
    uint16_t name_nbytes = 0;
    uint8_t version = 0, flags = 0;

    out->cursor = scio_cursor_make(data, nbytes, position, WHAT);
    SCIO_TRY(scio_cursor_u8(&out->cursor, &version, err));
    if (version < 1 || version > 3)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": version %u, read are 1 to 3", position,
                         version);
    SCIO_TRY(scio_cursor_u8(&out->cursor, &flags, err));
    out->version = version;
    out->flags = version == 1 ? 0 : flags;
    if ((out->flags & ~(FLAG_TYPE_SHARED | FLAG_SPACE_SHARED)) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": flags 0x%02x, expected 0 to 3", position,
                         out->flags);
    SCIO_TRY(scio_cursor_u16(&out->cursor, &name_nbytes, err));
    SCIO_TRY(scio_cursor_u16(&out->cursor, &out->type_nbytes, err));
    SCIO_TRY(scio_cursor_u16(&out->cursor, &out->space_nbytes, err));
    SCIO_TRY(
        scio_cursor_skip(&out->cursor, version == 3 ? 1 : 0, err)); /* charset: tells nothing */
    SCIO_TRY(take_part(out, name_nbytes, &name, err));
    if (name_nbytes < 1 || memchr(name, '\0', name_nbytes) != name + name_nbytes - 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": a name of %u bytes that does not end in its "
                              "only NUL",
                         position, name_nbytes);
    out->name = (const char *)name;
    out->name_nbytes = (size_t)name_nbytes - 1;
    return SCIO_OK;
}

static scio_status
take_value(attr_parts *parts, uint64_t max_nbytes, scio_h5_attr *attr, scio_error *err)
{
    const uint8_t *value = NULL;
    uint64_t nbytes = 0;

    if (!scio_mul_u64(attr->space.n_items, attr->type->itemsize, &nbytes) ||
        nbytes > scio_cursor_left(&parts->cursor))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": %" PRIu64 " elements of %" PRIu32
                              " bytes, %zu bytes are left",
                         parts->cursor.position, attr->space.n_items, attr->type->itemsize,
                         scio_cursor_left(&parts->cursor));
    if (nbytes > max_nbytes)
        return scio_fail(err, SCIO_EUNSAFE,
                         "its %" PRIu64 " bytes are over the limit attribute_nbytes of %" PRIu64
                         "; raise it if the file is trusted",
                         nbytes, max_nbytes);
    if (nbytes == 0)
        return SCIO_OK;
    SCIO_TRY(scio_cursor_bytes(&parts->cursor, (size_t)nbytes, &value, err));
    SCIO_TRY(scio_mem_alloc((size_t)nbytes, 1, &attr->value, err));
    memcpy(attr->value, value, (size_t)nbytes);
    attr->value_nbytes = (size_t)nbytes;
    return SCIO_OK;
}

/* Type and space are messages of their own inside the message. */
static scio_status
take_rest(const scio_h5_file *file, attr_parts *parts, scio_h5_attr *attr, scio_error *err)
{
    scio_h5_message type = {SCIO_H5_MSG_DATATYPE, 0, parts->type_nbytes, NULL, 0};
    scio_h5_message space = {SCIO_H5_MSG_DATASPACE, 0, parts->space_nbytes, NULL, 0};

    type.flags = (parts->flags & FLAG_TYPE_SHARED) != 0 ? 2 : 0;
    space.flags = (parts->flags & FLAG_SPACE_SHARED) != 0 ? 2 : 0;
    type.position = parts->cursor.position + parts->cursor.at;
    SCIO_TRY(take_part(parts, type.nbytes, &type.data, err));
    space.position = parts->cursor.position + parts->cursor.at;
    SCIO_TRY(take_part(parts, space.nbytes, &space.data, err));
    SCIO_TRY(scio_h5_type_from_message(file, &type, &attr->type, err));
    SCIO_TRY(scio_h5_space_from_message(file, &space, &attr->space, err));
    return take_value(parts, scio_h5_file_limits(file)->attribute_nbytes, attr, err);
}

static scio_status
make_attr(const scio_h5_file *file, attr_parts *parts, scio_h5_attr *out, scio_error *err)
{
    scio_h5_attr attr;
    scio_status status;

    memset(&attr, 0, sizeof attr);
    status = scio_mem_strndup(parts->name, parts->name_nbytes, &attr.name, err);
    if (status == SCIO_OK)
        status = take_rest(file, parts, &attr, err);
    if (status != SCIO_OK) {
        scio_context(err, "attribute \"%.100s\"", parts->name);
        scio_h5_attr_clear(&attr);
        return status;
    }
    *out = attr;
    return SCIO_OK;
}

void
scio_h5_attr_clear(scio_h5_attr *attr)
{
    scio_mem_free(attr->name);
    scio_h5_type_free(attr->type);
    scio_mem_free(attr->value);
    memset(attr, 0, sizeof *attr);
}

static scio_status
refuse_shared(const scio_h5_message *message, scio_error *err)
{
    return scio_fail(err, SCIO_EUNSUPPORTED,
                     "an attribute at byte %" PRIu64 " lies in the file's heap of shared object "
                     "header messages, which scio does not read; h5repack writes a file without",
                     message->position);
}

/* ---- names ---- */

typedef struct name_list {
    char **names;
    size_t n_names, capacity, max_names;
} name_list;

void
scio_h5_names_free(char **names, size_t n_names)
{
    for (size_t i = 0; i < n_names; i++)
        scio_mem_free(names[i]);
    scio_mem_free(names);
}

static scio_status
add_name(name_list *list, const attr_parts *parts, scio_error *err)
{
    if (list->n_names >= list->max_names)
        return scio_fail(
            err, SCIO_EUNSAFE,
            "the object has more than %zu attributes, the limit n_members; raise it if "
            "the file is trusted",
            list->max_names);
    if (list->n_names == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 8 : list->capacity * 2;

        SCIO_TRY(scio_mem_realloc(&list->names, capacity, sizeof *list->names, err));
        list->capacity = capacity;
    }
    SCIO_TRY(scio_mem_strndup(parts->name, parts->name_nbytes, &list->names[list->n_names], err));
    list->n_names++;
    return SCIO_OK;
}

static scio_status
add_dense_name(void *context, const uint8_t *data, size_t nbytes, uint64_t position,
               uint8_t message_flags, uint32_t hash, scio_error *err)
{
    attr_parts parts;

    (void)message_flags;
    SCIO_TRY(split(data, nbytes, position, &parts, err));
    SCIO_TRY(scio_h5_dense_check_hash(parts.name, parts.name_nbytes, hash, position, err));
    return add_name(context, &parts, err);
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static scio_status
sort_names(name_list *list, scio_error *err)
{
    if (list->n_names < 2)
        return SCIO_OK;
    qsort(list->names, list->n_names, sizeof *list->names, compare_names);
    for (size_t i = 1; i < list->n_names; i++)
        if (strcmp(list->names[i - 1], list->names[i]) == 0)
            return scio_fail(err, SCIO_ECORRUPT, "the object has two attributes named \"%.200s\"",
                             list->names[i]);
    return SCIO_OK;
}

static scio_status
list_names(const scio_h5_file *file, const scio_h5_header *header, name_list *list, scio_error *err)
{
    scio_h5_dense dense;

    for (size_t i = 0; i < header->n_messages; i++) {
        const scio_h5_message *const message = &header->messages[i];
        attr_parts parts;

        if (message->type != SCIO_H5_MSG_ATTRIBUTE)
            continue;
        if (scio_h5_message_is_shared(message))
            return refuse_shared(message, err);
        SCIO_TRY(split(message->data, message->nbytes, message->position, &parts, err));
        SCIO_TRY(add_name(list, &parts, err));
    }
    SCIO_TRY(scio_h5_dense_parse(file, SCIO_H5_DENSE_ATTRIBUTES,
                                 scio_h5_header_find(header, SCIO_H5_MSG_ATTRIBUTE_INFO), &dense,
                                 err));
    SCIO_TRY(scio_h5_dense_walk(file, &dense, list->max_names, add_dense_name, list, err));
    return sort_names(list, err);
}

scio_status
scio_h5_attr_names(const scio_h5_file *file, uint64_t address, char ***names_out,
                   size_t *n_names_out, scio_error *err)
{
    name_list list = {NULL, 0, 0, scio_h5_file_limits(file)->n_members};
    scio_h5_header header;
    scio_status status;

    *names_out = NULL;
    *n_names_out = 0;
    SCIO_TRY(scio_h5_header_read(file, address, &header, err));
    status = list_names(file, &header, &list, err);
    scio_h5_header_clear(&header);
    if (status != SCIO_OK) {
        scio_h5_names_free(list.names, list.n_names);
        return status;
    }
    *names_out = list.names;
    *n_names_out = list.n_names;
    return SCIO_OK;
}

/* ---- one attribute ---- */

typedef struct attr_reader {
    const scio_h5_file *file;
    const char *name;
    scio_h5_attr *found;
} attr_reader;

static scio_status
take_if_wanted(attr_reader *reader, const uint8_t *data, size_t nbytes, uint64_t position,
               scio_error *err)
{
    attr_parts parts;

    SCIO_TRY(split(data, nbytes, position, &parts, err));
    if (reader->found->name != NULL || strcmp(parts.name, reader->name) != 0)
        return SCIO_OK;
    return make_attr(reader->file, &parts, reader->found, err);
}

/* A broken sibling matters only when the name is not found: the first such failure goes to
 * `broken`. */
static scio_status
find_compact(attr_reader *reader, const scio_h5_header *header, scio_error *broken, scio_error *err)
{
    for (size_t i = 0; i < header->n_messages && reader->found->name == NULL; i++) {
        const scio_h5_message *const message = &header->messages[i];
        attr_parts parts;

        if (message->type != SCIO_H5_MSG_ATTRIBUTE)
            continue;
        if (scio_h5_message_is_shared(message)) {
            (void)refuse_shared(message, broken);
            continue;
        }
        if (split(message->data, message->nbytes, message->position, &parts, broken) == SCIO_OK)
            SCIO_TRY(
                take_if_wanted(reader, message->data, message->nbytes, message->position, err));
    }
    return SCIO_OK;
}

static scio_status
find_dense(void *context, const uint8_t *data, size_t nbytes, uint64_t position,
           uint8_t message_flags, uint32_t hash, scio_error *err)
{
    (void)message_flags;
    (void)hash; /* the name itself is compared */
    return take_if_wanted(context, data, nbytes, position, err);
}

static scio_status
find(attr_reader *reader, const scio_h5_header *header, scio_error *err)
{
    scio_error broken = SCIO_ERROR_INIT;
    scio_h5_dense dense;

    SCIO_TRY(find_compact(reader, header, &broken, err));
    if (reader->found->name != NULL)
        return SCIO_OK;
    SCIO_TRY(scio_h5_dense_parse(reader->file, SCIO_H5_DENSE_ATTRIBUTES,
                                 scio_h5_header_find(header, SCIO_H5_MSG_ATTRIBUTE_INFO), &dense,
                                 err));
    SCIO_TRY(scio_h5_dense_find(reader->file, &dense, reader->name, find_dense, reader, err));
    if (reader->found->name != NULL)
        return SCIO_OK;
    if (broken.code != SCIO_OK) {
        scio_error_move(err, &broken);
        return broken.code;
    }
    return scio_fail(err, SCIO_ENOENT, "there is no attribute \"%.200s\"", reader->name);
}

scio_status
scio_h5_attr_get(const scio_h5_file *file, uint64_t address, const char *name, scio_h5_attr *out,
                 scio_error *err)
{
    attr_reader reader = {file, name, out};
    scio_h5_header header;
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(scio_h5_header_read(file, address, &header, err));
    status = find(&reader, &header, err);
    scio_h5_header_clear(&header);
    if (status != SCIO_OK)
        scio_h5_attr_clear(out);
    return status;
}
