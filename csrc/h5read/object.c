/* Objects: their kind, the links of a group, and the way along a path. */
#include "h5read/object.h"

#include "base/mem.h"
#include "h5read/group.h"
#include "h5read/header.h"

#include <inttypes.h>
#include <string.h>

#define MAX_SOFT_LINKS 16

/* ---- kind ---- */

static scio_h5_kind
kind_of(const scio_h5_header *header)
{
    if (scio_h5_header_find(header, SCIO_H5_MSG_LAYOUT) != NULL)
        return SCIO_H5_KIND_DATASET;
    if (scio_h5_header_find(header, SCIO_H5_MSG_SYMBOL_TABLE) != NULL ||
        scio_h5_header_find(header, SCIO_H5_MSG_LINK_INFO) != NULL ||
        scio_h5_header_find(header, SCIO_H5_MSG_LINK) != NULL)
        return SCIO_H5_KIND_GROUP;
    if (scio_h5_header_find(header, SCIO_H5_MSG_DATATYPE) != NULL)
        return SCIO_H5_KIND_TYPE;
    return SCIO_H5_KIND_UNKNOWN;
}

static const char *
kind_text(scio_h5_kind kind)
{
    switch (kind) {
    case SCIO_H5_KIND_GROUP:
        return "a group";
    case SCIO_H5_KIND_DATASET:
        return "a dataset";
    case SCIO_H5_KIND_TYPE:
        return "a committed datatype";
    case SCIO_H5_KIND_UNKNOWN:
        break;
    }
    return "an object of unknown kind";
}

scio_status
scio_h5_kind_get(const scio_h5_file *file, uint64_t address, scio_h5_kind *out, scio_error *err)
{
    scio_h5_header header;

    SCIO_TRY(scio_h5_header_read(file, address, &header, err));
    *out = kind_of(&header);
    scio_h5_header_clear(&header);
    return SCIO_OK;
}

/* ---- links ---- */

static scio_status
list_links(const scio_h5_file *file, const scio_h5_header *header, scio_h5_link_list *list,
           scio_error *err)
{
    const scio_h5_message *const table = scio_h5_header_find(header, SCIO_H5_MSG_SYMBOL_TABLE);
    bool is_tracked = false;

    if (kind_of(header) != SCIO_H5_KIND_GROUP)
        return scio_fail(err, SCIO_ETYPE, "%s has no members, a group was expected",
                         kind_text(kind_of(header)));
    if (table != NULL)
        SCIO_TRY(scio_h5_group_old_list(file, table, list, err));
    SCIO_TRY(scio_h5_group_new_list(file, header, list, &is_tracked, err));
    return scio_h5_link_list_sort(list, is_tracked, err);
}

scio_status
scio_h5_links_list(const scio_h5_file *file, uint64_t address, scio_h5_links *out, scio_error *err)
{
    scio_h5_link_list list = {{0, NULL, false}, 0, scio_h5_file_limits(file)->n_members};
    scio_h5_header header;
    scio_status status;

    memset(out, 0, sizeof *out);
    SCIO_TRY(scio_h5_header_read(file, address, &header, err));
    status = list_links(file, &header, &list, err);
    scio_h5_header_clear(&header);
    if (status != SCIO_OK) {
        scio_h5_links_clear(&list.links);
        return status;
    }
    *out = list.links;
    return SCIO_OK;
}

/* ---- paths ---- */

/* A walk along a path.  `path` is what is left to go from `at` on, plus what was gone: soft links
 * replace it. */
typedef struct walk {
    const scio_h5_file *file;
    uint64_t at;     /* address of the object reached */
    char *path;      /* owned */
    size_t done;     /* bytes of `path` already walked: its prefix names the object at `at` */
    size_t n_groups; /* depth below the start */
    unsigned n_soft;
} walk;

/* The part of the path that was walked, for messages. */
typedef struct walked {
    int nbytes;
    const char *text;
} walked;

static walked
walked_path(const walk *w)
{
    const walked root = {1, "/"}, path = {w->done > 150 ? 150 : (int)w->done, w->path};

    return w->done == 0 ? root : path;
}

static scio_status
look_up(const walk *w, const scio_h5_header *header, const char *name, scio_h5_link *out,
        scio_error *err)
{
    const scio_h5_message *const table = scio_h5_header_find(header, SCIO_H5_MSG_SYMBOL_TABLE);
    const scio_h5_kind kind = kind_of(header);
    const walked where = walked_path(w);

    memset(out, 0, sizeof *out);
    if (kind != SCIO_H5_KIND_GROUP)
        return scio_fail(err, SCIO_ENOENT, "\"%.*s\" is %s and has no member \"%.150s\"",
                         where.nbytes, where.text, kind_text(kind), name);
    if (table != NULL)
        SCIO_TRY(scio_h5_group_old_find(w->file, table, name, out, err));
    if (out->name == NULL)
        SCIO_TRY(scio_h5_group_new_find(w->file, header, name, out, err));
    if (out->name == NULL)
        return scio_fail(err, SCIO_ENOENT, "there is no \"%.150s\" in \"%.*s\"", name, where.nbytes,
                         where.text);
    return SCIO_OK;
}

/* Puts the target of a soft link in front of what is left of the path.  An absolute one starts
 * again at the root, a relative one at the group that holds the link, where the walk still is. */
static scio_status
follow_soft(walk *w, const scio_h5_link *link, size_t rest_at, scio_error *err)
{
    const bool is_absolute = link->target[0] == '/';
    const size_t head_nbytes = is_absolute ? 0 : w->done;
    const size_t target_nbytes = strlen(link->target);
    const size_t rest_nbytes = strlen(w->path + rest_at);
    size_t nbytes = head_nbytes;
    char *path = NULL;

    if (++w->n_soft > MAX_SOFT_LINKS)
        return scio_fail(err, SCIO_EUNSAFE,
                         "more than %d soft links on the way, the last is \"%.150s\" to \"%.150s\"",
                         MAX_SOFT_LINKS, link->name, link->target);
    SCIO_TRY(scio_mem_alloc(head_nbytes + target_nbytes + rest_nbytes + 3, 1, &path, err));
    memcpy(path, w->path, head_nbytes);
    if (head_nbytes != 0)
        path[nbytes++] = '/';
    memcpy(path + nbytes, link->target, target_nbytes);
    nbytes += target_nbytes;
    path[nbytes++] = '/';
    memcpy(path + nbytes, w->path + rest_at, rest_nbytes + 1);
    scio_mem_free(w->path);
    w->path = path;
    w->done = head_nbytes;
    w->n_groups--; /* the link itself is no group */
    if (is_absolute) {
        w->at = scio_h5_file_superblock(w->file)->root;
        w->n_groups = 0;
    }
    return SCIO_OK;
}

static scio_status
follow(walk *w, const scio_h5_link *link, size_t rest_at, scio_error *err)
{
    switch (link->type) {
    case SCIO_H5_LINK_HARD:
        w->at = link->address;
        w->done = rest_at;
        return SCIO_OK;
    case SCIO_H5_LINK_SOFT:
        return follow_soft(w, link, rest_at, err);
    case SCIO_H5_LINK_EXTERNAL:
        return scio_fail(
            err, SCIO_EUNSAFE,
            "\"%.120s\" is an external link to \"%.120s\" in file \"%.120s\"; scio opens "
            "no other files",
            link->name, link->target, link->target_file);
    case SCIO_H5_LINK_USER:
        break;
    }
    return scio_fail(err, SCIO_EUNSAFE, "\"%.200s\" is a user-defined link, which is not followed",
                     link->name);
}

/* Goes through one name, path[w->done … rest_at) without its slashes. */
static scio_status
step(walk *w, const char *name, size_t rest_at, scio_error *err)
{
    const size_t max_depth = scio_h5_file_limits(w->file)->depth;
    scio_h5_link link = {0};
    scio_h5_header header;
    scio_status status;

    if (++w->n_groups > max_depth)
        return scio_fail(err, SCIO_EUNSAFE,
                         "the path is more than %zu groups deep, the limit depth; raise it if the "
                         "file is trusted",
                         max_depth);
    SCIO_TRY(scio_h5_header_read(w->file, w->at, &header, err));
    status = look_up(w, &header, name, &link, err);
    if (status == SCIO_OK)
        status = follow(w, &link, rest_at, err);
    scio_h5_header_clear(&header);
    scio_h5_link_clear(&link);
    return status;
}

static scio_status
walk_path(walk *w, scio_error *err)
{
    for (;;) {
        size_t start = w->done, end;
        char *name = NULL;
        scio_status status;

        while (w->path[start] == '/')
            start++;
        if (w->path[start] == '\0')
            return SCIO_OK;
        end = start + strcspn(w->path + start, "/");
        if (end - start == 1 && w->path[start] == '.') {
            w->done = end;
            continue;
        }
        SCIO_TRY(scio_mem_strndup(w->path + start, end - start, &name, err));
        status = step(w, name, end, err);
        scio_mem_free(name);
        if (status != SCIO_OK)
            return status;
    }
}

scio_status
scio_h5_resolve(const scio_h5_file *file, uint64_t start, const char *path, uint64_t *address_out,
                scio_error *err)
{
    walk w = {file, start, NULL, 0, 0, 0};
    scio_status status;

    SCIO_TRY(scio_mem_strndup(path, strlen(path), &w.path, err));
    status = walk_path(&w, err);
    if (status == SCIO_OK)
        *address_out = w.at;
    scio_mem_free(w.path);
    return status;
}
