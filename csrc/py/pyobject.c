/* What the core found in a file, as Python objects: kinds, types, links, attributes,
 * variable-length values. */
#include "py/py.h"

#include "base/mem.h"
#include "h5read/header.h"
#include "h5read/object.h"

const char *
py_kind_name(scio_h5_kind kind)
{
    static const char *const names[] = {
        [SCIO_H5_KIND_GROUP] = "group",
        [SCIO_H5_KIND_DATASET] = "dataset",
        [SCIO_H5_KIND_TYPE] = "type",
        [SCIO_H5_KIND_UNKNOWN] = "unknown",
    };

    return names[kind];
}

scio_status
py_file_read_type(scio_h5_file *file, const char *path, scio_h5_type **out, scio_error *err)
{
    scio_h5_header header = {0};
    const scio_h5_message *message;
    scio_h5_kind kind;
    uint64_t address;
    scio_status status;

    SCIO_TRY(py_file_resolve(file, path, &address, err));
    SCIO_TRY(scio_h5_kind_get(file, address, &kind, err));
    if (kind != SCIO_H5_KIND_TYPE)
        return scio_fail(err, SCIO_EINVAL, "%s is a %s, expected a committed datatype", path,
                         py_kind_name(kind));
    SCIO_TRY(scio_h5_header_read(file, address, &header, err));
    message = scio_h5_header_find(&header, SCIO_H5_MSG_DATATYPE);
    status = message == NULL ? scio_fail(err, SCIO_ECORRUPT, "%s has no datatype message", path)
                             : scio_h5_type_from_message(file, message, out, err);
    scio_h5_header_clear(&header);
    return status;
}

static PyObject *
link_tuple(const scio_h5_link *link)
{
    static const char *const type_names[] = {
        [SCIO_H5_LINK_HARD] = "hard",
        [SCIO_H5_LINK_SOFT] = "soft",
        [SCIO_H5_LINK_EXTERNAL] = "external",
        [SCIO_H5_LINK_USER] = "user",
    };
    PyObject *const address = link->type == SCIO_H5_LINK_HARD
                                  ? PyLong_FromUnsignedLongLong(link->address)
                                  : Py_NewRef(Py_None);
    PyObject *const target = link->target == NULL ? Py_NewRef(Py_None) : py_text(link->target);
    PyObject *const target_file =
        link->target_file == NULL ? Py_NewRef(Py_None) : py_text(link->target_file);
    PyObject *const type = py_text(type_names[link->type]);
    PyObject *const name = py_text(link->name);
    PyObject *result = NULL;

    if (name != NULL && type != NULL && address != NULL && target != NULL && target_file != NULL)
        result = PyTuple_Pack(5, name, type, address, target, target_file);
    Py_XDECREF(name);
    Py_XDECREF(type);
    Py_XDECREF(address);
    Py_XDECREF(target);
    Py_XDECREF(target_file);
    return result;
}

PyObject *
py_links_list(const scio_h5_links *links)
{
    PyObject *const list = PyList_New((Py_ssize_t)links->n_links);

    for (size_t i = 0; list != NULL && i < links->n_links; i++) {
        PyObject *const item = link_tuple(&links->links[i]);

        if (item == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

PyObject *
py_names_list(char *const *names, size_t n_names)
{
    PyObject *list = PyList_New((Py_ssize_t)n_names);

    for (size_t i = 0; list != NULL && i < n_names; i++) {
        PyObject *const name = py_text(names[i]);

        if (name == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, name);
    }
    return list;
}

static void
free_value(void *Py_UNUSED(context), void *data, size_t Py_UNUSED(nbytes))
{
    scio_mem_free(data);
}

PyObject *
py_attr_tuple(const py_state *state, scio_h5_attr *attr)
{
    const npy_intp dims[2] = {(npy_intp)attr->space.n_items, (npy_intp)attr->type->itemsize};
    const scio_h5_type *const type = attr->type;
    scio_error err = SCIO_ERROR_INIT;
    scio_buf *buf = NULL;
    PyObject *owner, *described, *shape, *raw, *result = NULL;
    scio_status status;

    status = attr->value == NULL || attr->value_nbytes == 0
                 ? scio_buf_new(0, &buf, &err)
                 : scio_buf_wrap(attr->value, attr->value_nbytes, free_value, NULL, &buf, &err);
    if (status != SCIO_OK)
        return py_raise(state, &err);
    if (attr->value_nbytes != 0)
        attr->value = NULL;
    raw = py_array_from_buf(buf, SCIO_U8, 2, dims);
    attr->type = NULL;
    owner = py_type_owner((scio_h5_type *)(uintptr_t)type);
    described = owner == NULL ? NULL : py_type_describe(type, owner);
    shape = attr->space.space_class == SCIO_H5_NULL
                ? Py_NewRef(Py_None)
                : py_tuple_from_u64(attr->space.dims, attr->space.rank);
    if (raw != NULL && described != NULL && shape != NULL)
        result = PyTuple_Pack(3, described, shape, raw);
    Py_XDECREF(raw);
    Py_XDECREF(owner);
    Py_XDECREF(described);
    Py_XDECREF(shape);
    return result;
}

PyObject *
py_vlen_tuple(scio_buf *offsets, scio_buf *payload, int64_t n_items)
{
    const int64_t nbytes = ((const int64_t *)scio_buf_data(offsets))[n_items];
    PyObject *const first = py_array_1d(offsets, SCIO_I64, n_items + 1);
    PyObject *const second = py_array_1d(payload, SCIO_U8, nbytes);
    PyObject *const result =
        first == NULL || second == NULL ? NULL : PyTuple_Pack(2, first, second);

    Py_XDECREF(first);
    Py_XDECREF(second);
    return result;
}
