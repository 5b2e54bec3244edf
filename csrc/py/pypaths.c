/* The paths of all objects of a file, for object references: one walk through all groups, breadth
 * first, so that the shortest path wins; each object counts once, so that cycles end. */
#include "py/py.h"

#include "base/mem.h"
#include "h5read/object.h"

#define MAX_MAPPED_OBJECTS 1000000 /* the walk stops there: a bound for hostile files */

typedef struct group_listing {
    scio_h5_links links;
    scio_h5_kind *kinds; /* [links.n_links], UNKNOWN where a link leads nowhere we can read */
} group_listing;

static void
group_listing_clear(group_listing *listing)
{
    scio_h5_links_clear(&listing->links);
    scio_mem_free(listing->kinds);
    listing->kinds = NULL;
}

/* Called without the GIL. */
static scio_status
list_group(const scio_h5_file *file, uint64_t address, group_listing *out, scio_error *err)
{
    SCIO_TRY(scio_h5_links_list(file, address, &out->links, err));
    SCIO_TRY(scio_mem_zalloc(out->links.n_links, sizeof(*out->kinds), &out->kinds, err));
    for (size_t i = 0; i < out->links.n_links; i++) {
        const scio_h5_link *const link = &out->links.links[i];

        out->kinds[i] = SCIO_H5_KIND_UNKNOWN;
        if (link->type == SCIO_H5_LINK_HARD &&
            scio_h5_kind_get(file, link->address, &out->kinds[i], NULL) != SCIO_OK)
            out->kinds[i] = SCIO_H5_KIND_UNKNOWN; /* a broken neighbour hides nothing else */
    }
    return SCIO_OK;
}

/* Adds the members of one group to `paths`, its new groups to `queue`. */
static int
map_members(const group_listing *listing, PyObject *parent, PyObject *paths, PyObject *queue)
{
    for (size_t i = 0; i < listing->links.n_links; i++) {
        const scio_h5_link *const link = &listing->links.links[i];
        PyObject *address, *name, *path;
        int result;

        if (link->type != SCIO_H5_LINK_HARD || PyDict_GET_SIZE(paths) >= MAX_MAPPED_OBJECTS)
            continue;
        address = PyLong_FromUnsignedLongLong(link->address);
        name = py_text(link->name);
        path = name == NULL
                   ? NULL
                   : PyUnicode_FromFormat(PyUnicode_GetLength(parent) == 1 ? "%U%U" : "%U/%U",
                                          parent, name);
        result = address == NULL || path == NULL ? -1 : PyDict_Contains(paths, address);
        if (result == 0) {
            result = PyDict_SetItem(paths, address, path);
            if (result == 0 && listing->kinds[i] == SCIO_H5_KIND_GROUP)
                result = PyList_Append(queue, address);
        }
        Py_XDECREF(address);
        Py_XDECREF(name);
        Py_XDECREF(path);
        if (result < 0)
            return -1;
    }
    return 0;
}

/* One group of the queue; one that cannot be listed is left out. */
static int
map_group(const py_state *state, const scio_h5_file *file, PyObject *address, PyObject *paths,
          PyObject *queue)
{
    const uint64_t c_address = PyLong_AsUnsignedLongLong(address);
    group_listing listing = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    int result = 0;

    Py_BEGIN_ALLOW_THREADS;
    status = list_group(file, c_address, &listing, &err);
    Py_END_ALLOW_THREADS;
    if (status == SCIO_ENOMEM) {
        py_raise(state, &err);
        result = -1;
    } else if (status == SCIO_OK) {
        result = map_members(&listing, PyDict_GetItemWithError(paths, address), paths, queue);
    }
    group_listing_clear(&listing);
    return result < 0 ? -1 : PyErr_CheckSignals();
}

PyObject *
py_paths_map(const py_state *state, const scio_h5_file *file)
{
    PyObject *const root = PyLong_FromUnsignedLongLong(scio_h5_file_superblock(file)->root);
    PyObject *const queue = PyList_New(0), *paths = PyDict_New(), *slash = py_text("/");
    int result = -1;

    if (root != NULL && queue != NULL && paths != NULL && slash != NULL &&
        PyDict_SetItem(paths, root, slash) == 0)
        result = PyList_Append(queue, root);
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(queue); i++)
        result = map_group(state, file, PyList_GET_ITEM(queue, i), paths, queue);
    Py_XDECREF(root);
    Py_XDECREF(queue);
    Py_XDECREF(slash);
    if (result < 0)
        Py_CLEAR(paths);
    return paths;
}
