/* Links: the message of new groups, and the list that both kinds of groups fill. */
#include "h5read/link.h"

#include "base/mem.h"
#include "h5read/cursor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "link message"

#define FLAG_NAME_WIDTH 0x03u
#define FLAG_CREATION_ORDER 0x04u
#define FLAG_TYPE 0x08u
#define FLAG_CHARSET 0x10u
#define FLAG_RESERVED 0xe0u

#define TYPE_HARD 0
#define TYPE_SOFT 1
#define TYPE_EXTERNAL 64
#define TYPE_FIRST_USER 65

void
scio_h5_link_clear(scio_h5_link *link)
{
    scio_mem_free(link->name);
    scio_mem_free(link->target);
    scio_mem_free(link->target_file);
    memset(link, 0, sizeof *link);
}

void
scio_h5_links_clear(scio_h5_links *links)
{
    for (size_t i = 0; i < links->n_links; i++)
        scio_h5_link_clear(&links->links[i]);
    scio_mem_free(links->links);
    memset(links, 0, sizeof *links);
}

scio_status
scio_h5_link_list_add(scio_h5_link_list *list, scio_h5_link *link, scio_error *err)
{
    scio_status status = SCIO_OK;

    if (list->links.n_links >= list->max_links) {
        status =
            scio_fail(err, SCIO_EUNSAFE,
                      "the group has more than %zu links, the limit n_members; raise it if the "
                      "file is trusted",
                      list->max_links);
        goto done;
    }
    if (list->links.n_links == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 8 : list->capacity * 2;

        status = scio_mem_realloc(&list->links.links, capacity, sizeof *link, err);
        if (status != SCIO_OK)
            goto done;
        list->capacity = capacity;
    }
    list->links.links[list->links.n_links++] = *link;
    memset(link, 0, sizeof *link);
done:
    scio_h5_link_clear(link);
    return status;
}

static int
compare_by_name(const void *a, const void *b)
{
    return strcmp(((const scio_h5_link *)a)->name, ((const scio_h5_link *)b)->name);
}

static int
compare_by_order(const void *a, const void *b)
{
    const scio_h5_link *const x = a, *const y = b;

    if (x->creation_order != y->creation_order)
        return x->creation_order < y->creation_order ? -1 : 1;
    return strcmp(x->name, y->name);
}

scio_status
scio_h5_link_list_sort(scio_h5_link_list *list, bool is_tracked, scio_error *err)
{
    scio_h5_link *const links = list->links.links;
    const size_t n_links = list->links.n_links;

    list->links.is_tracked = is_tracked;
    if (n_links < 2)
        return SCIO_OK;
    qsort(links, n_links, sizeof *links, compare_by_name);
    for (size_t i = 1; i < n_links; i++)
        if (strcmp(links[i - 1].name, links[i].name) == 0)
            return scio_fail(err, SCIO_ECORRUPT, "the group has two links named \"%.200s\"",
                             links[i].name);
    if (is_tracked)
        qsort(links, n_links, sizeof *links, compare_by_order);
    return SCIO_OK;
}

scio_status
scio_h5_link_name_check(const char *name, size_t nbytes, uint64_t position, scio_error *err)
{
    if (nbytes == 0)
        return scio_fail(err, SCIO_ECORRUPT, "link at byte %" PRIu64 ": its name is empty",
                         position);
    if (memchr(name, '\0', nbytes) != NULL)
        return scio_fail(err, SCIO_ECORRUPT,
                         "link \"%.200s\" at byte %" PRIu64
                         ": a NUL among the %zu bytes of its name",
                         name, position, nbytes);
    if (memchr(name, '/', nbytes) != NULL)
        return scio_fail(err, SCIO_ECORRUPT, "link \"%.*s\" at byte %" PRIu64 ": a '/' in its name",
                         nbytes > 200 ? 200 : (int)nbytes, name, position);
    return SCIO_OK;
}

static scio_status
take_name(scio_cursor *cursor, size_t width, char **out, scio_error *err)
{
    const uint8_t *name = NULL;
    uint64_t nbytes = 0, position;

    SCIO_TRY(scio_cursor_uint(cursor, width, &nbytes, err));
    if (nbytes > scio_cursor_left(cursor))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": a name of %" PRIu64 " bytes, %zu are left",
                         cursor->position, nbytes, scio_cursor_left(cursor));
    position = cursor->position + cursor->at;
    SCIO_TRY(scio_cursor_bytes(cursor, (size_t)nbytes, &name, err));
    SCIO_TRY(scio_h5_link_name_check((const char *)name, (size_t)nbytes, position, err));
    return scio_mem_strndup((const char *)name, (size_t)nbytes, out, err);
}

/* u16 length and the path, which has no NUL. */
static scio_status
take_soft(scio_cursor *cursor, scio_h5_link *link, scio_error *err)
{
    const uint8_t *path = NULL;
    uint16_t nbytes = 0;

    link->type = SCIO_H5_LINK_SOFT;
    SCIO_TRY(scio_cursor_u16(cursor, &nbytes, err));
    SCIO_TRY(scio_cursor_bytes(cursor, nbytes, &path, err));
    if (nbytes == 0 || memchr(path, '\0', nbytes) != NULL)
        return scio_fail(err, SCIO_ECORRUPT,
                         "soft link \"%.200s\" at byte %" PRIu64
                         ": a path of %u bytes that is empty or has a NUL",
                         link->name, cursor->position, nbytes);
    return scio_mem_strndup((const char *)path, nbytes, &link->target, err);
}

/* One NUL-terminated text among the bytes left. */
static scio_status
take_text(scio_cursor *cursor, const char *link_name, char **out, scio_error *err)
{
    const size_t left = scio_cursor_left(cursor);
    const uint8_t *const start = cursor->data + cursor->at;
    const uint8_t *const end = left == 0 ? NULL : memchr(start, '\0', left);

    if (end == NULL)
        return scio_fail(err, SCIO_ECORRUPT,
                         "external link \"%.200s\" at byte %" PRIu64
                         ": its file or path does not end in the %zu bytes left",
                         link_name, cursor->position, left);
    SCIO_TRY(scio_cursor_skip(cursor, (size_t)(end - start) + 1, err));
    return scio_mem_strndup((const char *)start, (size_t)(end - start), out, err);
}

/* u16 length; then u8 version and flags, the file, the path. */
static scio_status
take_external(scio_cursor *cursor, scio_h5_link *link, scio_error *err)
{
    const uint8_t *bytes = NULL;
    uint16_t nbytes = 0;
    uint64_t position;
    scio_cursor value;

    link->type = SCIO_H5_LINK_EXTERNAL;
    SCIO_TRY(scio_cursor_u16(cursor, &nbytes, err));
    position = cursor->position + cursor->at;
    SCIO_TRY(scio_cursor_bytes(cursor, nbytes, &bytes, err));
    value = scio_cursor_make(bytes, nbytes, position, "external link");
    SCIO_TRY(scio_cursor_skip(&value, 1, err));
    SCIO_TRY(take_text(&value, link->name, &link->target_file, err));
    return take_text(&value, link->name, &link->target, err);
}

static scio_status
take_value(const scio_h5_file *file, scio_cursor *cursor, unsigned type, scio_h5_link *link,
           scio_error *err)
{
    uint16_t nbytes = 0;

    if (type == TYPE_HARD) {
        link->type = SCIO_H5_LINK_HARD;
        return scio_cursor_address(cursor, file, &link->address, err);
    }
    if (type == TYPE_SOFT)
        return take_soft(cursor, link, err);
    if (type == TYPE_EXTERNAL)
        return take_external(cursor, link, err);
    if (type < TYPE_FIRST_USER)
        return scio_fail(err, SCIO_ECORRUPT,
                         "link \"%.200s\" at byte %" PRIu64
                         ": type %u, expected 0, 1 or from 64 on",
                         link->name, cursor->position, type);
    link->type = SCIO_H5_LINK_USER;
    SCIO_TRY(scio_cursor_u16(cursor, &nbytes, err));
    return scio_cursor_skip(cursor, nbytes, err);
}

static scio_status
parse(const scio_h5_file *file, scio_cursor *cursor, scio_h5_link *link, scio_error *err)
{
    uint8_t version = 0, flags = 0, type = TYPE_HARD;

    link->address = SCIO_H5_UNDEFINED;
    link->creation_order = UINT64_MAX;
    SCIO_TRY(scio_cursor_u8(cursor, &version, err));
    if (version != 1)
        return scio_fail(err, SCIO_EUNSUPPORTED, WHAT " at byte %" PRIu64 ": version %u, read is 1",
                         cursor->position, version);
    SCIO_TRY(scio_cursor_u8(cursor, &flags, err));
    if ((flags & FLAG_RESERVED) != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": flags 0x%02x, expected at most 0x1f",
                         cursor->position, flags);
    if ((flags & FLAG_TYPE) != 0)
        SCIO_TRY(scio_cursor_u8(cursor, &type, err));
    if ((flags & FLAG_CREATION_ORDER) != 0)
        SCIO_TRY(scio_cursor_u64(cursor, &link->creation_order, err));
    if ((flags & FLAG_CHARSET) != 0) /* often 0 on UTF-8 names: no help */
        SCIO_TRY(scio_cursor_skip(cursor, 1, err));
    SCIO_TRY(take_name(cursor, (size_t)1 << (flags & FLAG_NAME_WIDTH), &link->name, err));
    return take_value(file, cursor, type, link, err);
}

scio_status
scio_h5_link_parse(const scio_h5_file *file, const uint8_t *data, size_t nbytes, uint64_t position,
                   scio_h5_link *out, scio_error *err)
{
    scio_cursor cursor = scio_cursor_make(data, nbytes, position, WHAT);
    scio_h5_link link = {0};
    scio_status status;

    memset(out, 0, sizeof *out);
    status = parse(file, &cursor, &link, err);
    if (status == SCIO_OK) {
        *out = link;
        memset(&link, 0, sizeof link);
    }
    scio_h5_link_clear(&link);
    return status;
}
