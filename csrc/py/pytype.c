/* HDF5 types as descriptions: plain dicts that Python reads.
 *
 * Each dict, those of members too, carries under "_capsule" the way back to its C type.  The
 * capsule holds a reference to the owner of the whole tree of types, so a member outlives its
 * parent's dict. */
#include "py/py.h"

#include <string.h>

static const char type_capsule_name[] = "scio_h5_type";
static const char owner_capsule_name[] = "scio_h5_type owner";
static const char capsule_key[] = "_capsule";

static const char *const class_names[] = {
    [SCIO_H5_INTEGER] = "integer",   [SCIO_H5_FLOAT] = "float",
    [SCIO_H5_TIME] = "time",         [SCIO_H5_STRING] = "string",
    [SCIO_H5_BITFIELD] = "bitfield", [SCIO_H5_OPAQUE] = "opaque",
    [SCIO_H5_COMPOUND] = "compound", [SCIO_H5_REFERENCE] = "reference",
    [SCIO_H5_ENUM] = "enum",         [SCIO_H5_VLEN] = "vlen",
    [SCIO_H5_ARRAY] = "array",       [SCIO_H5_COMPLEX] = "complex",
};

static void
free_owner(PyObject *capsule)
{
    scio_h5_type_free(PyCapsule_GetPointer(capsule, owner_capsule_name));
}

PyObject *
py_type_owner(scio_h5_type *type)
{
    PyObject *const capsule = PyCapsule_New(type, owner_capsule_name, free_owner);

    if (capsule == NULL)
        scio_h5_type_free(type);
    return capsule;
}

static void
drop_owner(PyObject *capsule)
{
    Py_XDECREF((PyObject *)PyCapsule_GetContext(capsule));
}

int
py_put(PyObject *dict, const char *key, PyObject *value)
{
    int result;

    if (value == NULL)
        return -1;
    result = PyDict_SetItemString(dict, key, value);
    Py_DECREF(value);
    return result;
}

static int
put_capsule(PyObject *dict, const scio_h5_type *type, PyObject *owner)
{
    /* A capsule's pointer is not const; nobody writes through it. */
    PyObject *const capsule = PyCapsule_New((void *)(uintptr_t)type, type_capsule_name, drop_owner);

    if (capsule == NULL)
        return -1;
    if (PyCapsule_SetContext(capsule, owner) < 0) {
        Py_DECREF(capsule);
        return -1;
    }
    Py_INCREF(owner);
    return py_put(dict, capsule_key, capsule);
}

static int
put_common(PyObject *dict, const scio_h5_type *type)
{
    const size_t n_classes = sizeof(class_names) / sizeof(class_names[0]);
    const char *const name =
        (size_t)type->type_class < n_classes ? class_names[type->type_class] : "unknown";
    PyObject *const dtype =
        type->dtype == SCIO_DTYPE_NONE ? Py_NewRef(Py_None) : py_text(scio_dtype_name(type->dtype));

    if (py_put(dict, "dtype", dtype) < 0 || py_put(dict, "class", py_text(name)) < 0 ||
        py_put(dict, "itemsize", PyLong_FromUnsignedLong(type->itemsize)) < 0 ||
        py_put(dict, "order", py_text(type->is_big_endian ? ">" : "<")) < 0 ||
        py_put(dict, "signed", PyBool_FromLong(type->is_signed)) < 0 ||
        py_put(dict, "is_bool", PyBool_FromLong(type->is_bool)) < 0)
        return -1;
    return py_put(dict, "unsupported", py_text(type->unsupported));
}

static int
put_string(PyObject *dict, const scio_h5_type *type)
{
    if (py_put(dict, "padding", PyLong_FromUnsignedLong(type->padding)) < 0 ||
        py_put(dict, "utf8", PyBool_FromLong(type->is_utf8)) < 0)
        return -1;
    return py_put(dict, "vlen", PyBool_FromLong(type->is_vlen_string));
}

static int
put_members(PyObject *dict, const scio_h5_type *type, PyObject *owner)
{
    PyObject *const list = PyList_New((Py_ssize_t)type->n_members);

    for (size_t i = 0; list != NULL && i < type->n_members; i++) {
        const scio_h5_member *const member = &type->members[i];
        PyObject *const name = py_text(member->name);
        PyObject *const base = name == NULL ? NULL : py_type_describe(member->type, owner);
        PyObject *const item =
            base == NULL ? NULL : Py_BuildValue("(OkO)", name, (unsigned long)member->offset, base);

        Py_XDECREF(name);
        Py_XDECREF(base);
        if (item == NULL) {
            Py_DECREF(list);
            return -1;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return py_put(dict, "members", list);
}

/* One value of an enumeration: itemsize bytes in the byte order of its base. */
static PyObject *
enum_value(const scio_h5_type *type, const uint8_t *bytes)
{
    const scio_h5_type *const base = type->base == NULL ? type : type->base;
    uint64_t bits = 0;

    for (uint32_t i = 0; i < type->itemsize && i < sizeof(bits); i++) {
        const uint32_t at = base->is_big_endian ? type->itemsize - 1 - i : i;

        bits |= (uint64_t)bytes[at] << (8 * i);
    }
    if (!base->is_signed)
        return PyLong_FromUnsignedLongLong(bits);
    if (type->itemsize < sizeof(bits) && (bits >> (8 * type->itemsize - 1) & 1) != 0)
        bits |= ~(uint64_t)0 << (8 * type->itemsize);
    return PyLong_FromLongLong((long long)bits);
}

static int
put_enum(PyObject *dict, const scio_h5_type *type)
{
    PyObject *const names = PyList_New((Py_ssize_t)type->n_members);
    PyObject *const values = PyList_New((Py_ssize_t)type->n_members);

    for (size_t i = 0; names != NULL && values != NULL && i < type->n_members; i++) {
        PyObject *const name = py_text(type->enum_names[i]);
        PyObject *const value = enum_value(type, type->enum_values + i * type->itemsize);

        if (name != NULL)
            PyList_SET_ITEM(names, (Py_ssize_t)i, name);
        if (value != NULL)
            PyList_SET_ITEM(values, (Py_ssize_t)i, value);
        if (name == NULL || value == NULL) {
            Py_DECREF(names);
            Py_DECREF(values);
            return -1;
        }
    }
    if (py_put(dict, "names", names) < 0) {
        Py_XDECREF(values);
        return -1;
    }
    return py_put(dict, "values", values);
}

static int
put_base(PyObject *dict, const scio_h5_type *type, PyObject *owner)
{
    if (type->base == NULL)
        return py_put(dict, "base", Py_NewRef(Py_None));
    return py_put(dict, "base", py_type_describe(type->base, owner));
}

static int
put_dims(PyObject *dict, const scio_h5_type *type)
{
    uint64_t dims[SCIO_H5_MAX_RANK];

    for (unsigned i = 0; i < type->array_rank && i < SCIO_H5_MAX_RANK; i++)
        dims[i] = type->array_dims[i];
    return py_put(dict, "dims", py_tuple_from_u64(dims, type->array_rank));
}

/* What only types of one class have. */
static int
put_special(PyObject *dict, const scio_h5_type *type, PyObject *owner)
{
    switch (type->type_class) {
    case SCIO_H5_STRING:
        return put_string(dict, type);
    case SCIO_H5_COMPOUND:
        return put_members(dict, type, owner);
    case SCIO_H5_ENUM:
        return put_enum(dict, type) < 0 ? -1 : put_base(dict, type, owner);
    case SCIO_H5_VLEN:
        return put_string(dict, type) < 0 ? -1 : put_base(dict, type, owner);
    case SCIO_H5_ARRAY:
        return put_dims(dict, type) < 0 ? -1 : put_base(dict, type, owner);
    case SCIO_H5_COMPLEX:
        return put_base(dict, type, owner);
    case SCIO_H5_OPAQUE:
        return py_put(dict, "tag", py_text(type->opaque_tag == NULL ? "" : type->opaque_tag));
    case SCIO_H5_REFERENCE:
        return py_put(dict, "kind", PyLong_FromUnsignedLong(type->reference_kind));
    case SCIO_H5_INTEGER:
    case SCIO_H5_FLOAT:
    case SCIO_H5_TIME:
    case SCIO_H5_BITFIELD:
        break;
    }
    return 0;
}

PyObject *
py_type_describe(const scio_h5_type *type, PyObject *owner)
{
    PyObject *const dict = PyDict_New();

    if (dict == NULL)
        return NULL;
    if (put_capsule(dict, type, owner) < 0 || put_common(dict, type) < 0 ||
        put_special(dict, type, owner) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

PyObject *
py_type_capsule(const py_state *state, PyObject *description)
{
    PyObject *capsule;

    if (!PyDict_Check(description))
        return py_fail(state, SCIO_ETYPE, "type is %s, expected the dict that describes it",
                       Py_TYPE(description)->tp_name);
    capsule = PyDict_GetItemString(description, capsule_key);
    if (capsule == NULL || !PyCapsule_IsValid(capsule, type_capsule_name))
        return py_fail(state, SCIO_EINVAL,
                       "type is a dict of another making, expected one that "
                       "File.type, File.attr or Dataset.type gave");
    return Py_NewRef(capsule);
}

const scio_h5_type *
py_type_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, type_capsule_name);
}
