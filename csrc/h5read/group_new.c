/* New groups (hdf5_format.md 1.5): link messages in the header and in dense storage. */
#include "h5read/group.h"

#include "base/mem.h"
#include "h5read/dense_storage.h"

#include <inttypes.h>
#include <string.h>

typedef struct link_reader {
    const scio_h5_file *file;
    scio_h5_link_list *list; /* listing */
    const char *name;        /* finding: */
    scio_h5_link *found;
} link_reader;

static scio_status
parse_dense(const link_reader *reader, const uint8_t *data, size_t nbytes, uint64_t position,
            uint32_t hash, scio_h5_link *out, scio_error *err)
{
    scio_status status;

    SCIO_TRY(scio_h5_link_parse(reader->file, data, nbytes, position, out, err));
    status = scio_h5_dense_check_hash(out->name, strlen(out->name), hash, position, err);
    if (status != SCIO_OK)
        scio_h5_link_clear(out);
    return status;
}

static scio_status
add_dense(void *context, const uint8_t *data, size_t nbytes, uint64_t position,
          uint8_t message_flags, uint32_t hash, scio_error *err)
{
    link_reader *const reader = context;
    scio_h5_link link = {0};

    (void)message_flags;
    SCIO_TRY(parse_dense(reader, data, nbytes, position, hash, &link, err));
    return scio_h5_link_list_add(reader->list, &link, err);
}

scio_status
scio_h5_group_new_list(const scio_h5_file *file, const scio_h5_header *header,
                       scio_h5_link_list *list, bool *is_tracked_out, scio_error *err)
{
    link_reader reader = {file, list, NULL, NULL};
    scio_h5_dense dense;

    SCIO_TRY(scio_h5_dense_parse(file, SCIO_H5_DENSE_LINKS,
                                 scio_h5_header_find(header, SCIO_H5_MSG_LINK_INFO), &dense, err));
    *is_tracked_out = dense.is_tracked;
    for (size_t i = 0; i < header->n_messages; i++) {
        const scio_h5_message *const message = &header->messages[i];
        scio_h5_link link = {0};

        if (message->type != SCIO_H5_MSG_LINK)
            continue;
        SCIO_TRY(scio_h5_link_parse(file, message->data, message->nbytes, message->position, &link,
                                    err));
        SCIO_TRY(scio_h5_link_list_add(list, &link, err));
    }
    return scio_h5_dense_walk(file, &dense, list->max_links, add_dense, &reader, err);
}

/* Moves `link` to the result when it has the wanted name, else drops it. */
static void
take_if_wanted(link_reader *reader, scio_h5_link *link)
{
    if (reader->found->name == NULL && strcmp(link->name, reader->name) == 0) {
        *reader->found = *link;
        memset(link, 0, sizeof *link);
    }
    scio_h5_link_clear(link);
}

static scio_status
find_dense(void *context, const uint8_t *data, size_t nbytes, uint64_t position,
           uint8_t message_flags, uint32_t hash, scio_error *err)
{
    link_reader *const reader = context;
    scio_h5_link link = {0};

    (void)message_flags;
    SCIO_TRY(parse_dense(reader, data, nbytes, position, hash, &link, err));
    take_if_wanted(reader, &link);
    return SCIO_OK;
}

/* A broken sibling matters only when the name is not found: the first such failure goes to
 * `broken`. */
static scio_status
find_compact(link_reader *reader, const scio_h5_header *header, scio_error *broken, scio_error *err)
{
    for (size_t i = 0; i < header->n_messages && reader->found->name == NULL; i++) {
        const scio_h5_message *const message = &header->messages[i];
        scio_error one = SCIO_ERROR_INIT;
        scio_h5_link link = {0};
        scio_status status;

        if (message->type != SCIO_H5_MSG_LINK)
            continue;
        status = scio_h5_link_parse(reader->file, message->data, message->nbytes, message->position,
                                    &link, &one);
        if (status == SCIO_OK) {
            take_if_wanted(reader, &link);
        } else if (status == SCIO_ENOMEM) {
            scio_error_move(err, &one);
            return status;
        } else {
            scio_error_move(broken, &one);
        }
    }
    return SCIO_OK;
}

scio_status
scio_h5_group_new_find(const scio_h5_file *file, const scio_h5_header *header, const char *name,
                       scio_h5_link *out, scio_error *err)
{
    link_reader reader = {file, NULL, name, out};
    scio_error broken = SCIO_ERROR_INIT;
    scio_h5_dense dense;
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(scio_h5_dense_parse(file, SCIO_H5_DENSE_LINKS,
                                 scio_h5_header_find(header, SCIO_H5_MSG_LINK_INFO), &dense, err));
    SCIO_TRY(find_compact(&reader, header, &broken, err));
    if (out->name != NULL)
        return SCIO_OK;
    status = scio_h5_dense_find(file, &dense, name, find_dense, &reader, err);
    if (status != SCIO_OK)
        scio_h5_link_clear(out);
    if (status == SCIO_OK && out->name == NULL && broken.code != SCIO_OK) {
        scio_error_move(err, &broken);
        return broken.code;
    }
    return status;
}
