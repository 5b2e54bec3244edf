/* Types, spaces and property lists of libhdf5, made from ours. */
#include "h5write/writer_private.h"

#include "base/mem.h"

static hid_t
native_type(scio_dtype dtype)
{
    switch (dtype) {
    case SCIO_I8:
    case SCIO_BOOL:
        return H5T_NATIVE_INT8;
    case SCIO_I16:
        return H5T_NATIVE_INT16;
    case SCIO_I32:
        return H5T_NATIVE_INT32;
    case SCIO_I64:
        return H5T_NATIVE_INT64;
    case SCIO_U8:
        return H5T_NATIVE_UINT8;
    case SCIO_U16:
        return H5T_NATIVE_UINT16;
    case SCIO_U32:
        return H5T_NATIVE_UINT32;
    case SCIO_U64:
        return H5T_NATIVE_UINT64;
    case SCIO_F16:
    case SCIO_F32:
        return H5T_NATIVE_FLOAT;
    case SCIO_F64:
        return H5T_NATIVE_DOUBLE;
    default:
        return -1;
    }
}

static hid_t
make_bool(void)
{
    const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
    const int8_t no = 0, yes = 1;

    if (type < 0 || H5Tenum_insert(type, "FALSE", &no) < 0 ||
        H5Tenum_insert(type, "TRUE", &yes) < 0) {
        (void)H5Tclose(type);
        return -1;
    }
    return type;
}

static hid_t
make_number(scio_dtype dtype)
{
    hid_t type;

    if (dtype == SCIO_BOOL)
        return make_bool();
    type = H5Tcopy(native_type(dtype));
    if (dtype != SCIO_F16 || type < 0)
        return type;
    /* sign, exponent and mantissa of IEEE's half precision; libhdf5 has no name for it */
    if (H5Tset_fields(type, 15, 10, 5, 0, 10) < 0 || H5Tset_size(type, 2) < 0 ||
        H5Tset_ebias(type, 15) < 0) {
        (void)H5Tclose(type);
        return -1;
    }
    return type;
}

static hid_t
make_complex(scio_dtype dtype)
{
    const size_t nbytes = scio_dtype_itemsize(dtype);
    const hid_t part = make_number(dtype), type = H5Tcreate(H5T_COMPOUND, 2 * nbytes);
    const bool is_made = part >= 0 && type >= 0 && H5Tinsert(type, "r", 0, part) >= 0 &&
                         H5Tinsert(type, "i", nbytes, part) >= 0;

    if (part >= 0)
        (void)H5Tclose(part);
    if (!is_made && type >= 0)
        (void)H5Tclose(type);
    return is_made ? type : -1;
}

/* Fixed length: bytes, filled up with NUL, as h5py has them; any length: UTF-8 that ends with NUL.
 */
static hid_t
make_text(bool is_fixed, size_t nbytes)
{
    const hid_t type = H5Tcopy(H5T_C_S1);

    if (type >= 0 && (H5Tset_size(type, is_fixed ? nbytes : H5T_VARIABLE) < 0 ||
                      (is_fixed && H5Tset_strpad(type, H5T_STR_NULLPAD) < 0) ||
                      (!is_fixed && H5Tset_cset(type, H5T_CSET_UTF8) < 0))) {
        (void)H5Tclose(type);
        return -1;
    }
    return type;
}

static hid_t
make_record(const scio_h5_element *element)
{
    const hid_t type = H5Tcreate(H5T_COMPOUND, element->nbytes);
    bool is_made = type >= 0;

    for (size_t i = 0; is_made && i < element->n_fields; i++) {
        const scio_h5_field *const field = &element->fields[i];
        const hid_t inner = scio_h5_make_type(&field->element);

        is_made = inner >= 0 && H5Tinsert(type, field->name, field->offset, inner) >= 0;
        if (inner >= 0)
            (void)H5Tclose(inner);
    }
    if (!is_made && type >= 0)
        (void)H5Tclose(type);
    return is_made ? type : -1;
}

static hid_t
make_tuple(const scio_h5_element *element)
{
    const hid_t item = scio_h5_make_type(&element->fields[0].element);
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK];
    hid_t type = -1;

    for (unsigned i = 0; i < element->rank; i++)
        dims[i] = element->dims[i];
    if (item >= 0) {
        type = H5Tarray_create2(item, element->rank, dims);
        (void)H5Tclose(item);
    }
    return type;
}

hid_t
scio_h5_make_type(const scio_h5_element *element)
{
    switch (element->kind) {
    case SCIO_H5_ITEM_NUMBER:
        return make_number(element->dtype);
    case SCIO_H5_ITEM_COMPLEX:
        return make_complex(element->dtype);
    case SCIO_H5_ITEM_FIXED_TEXT:
    case SCIO_H5_ITEM_TEXT:
        return make_text(element->kind == SCIO_H5_ITEM_FIXED_TEXT, element->nbytes);
    case SCIO_H5_ITEM_RECORD:
        return make_record(element);
    case SCIO_H5_ITEM_TUPLE:
        return make_tuple(element);
    }
    return -1;
}

scio_h5_element
scio_h5_element_of(const scio_h5_value *value)
{
    if (value->element != NULL)
        return *value->element;
    if (value->dtype == SCIO_DTYPE_NONE)
        return (scio_h5_element){.kind = SCIO_H5_ITEM_TEXT, .nbytes = sizeof(char *)};
    return (scio_h5_element){.kind = SCIO_H5_ITEM_NUMBER,
                             .dtype = value->dtype,
                             .nbytes = scio_dtype_itemsize(value->dtype)};
}

bool
scio_h5_has_text(const scio_h5_element *element)
{
    for (size_t i = 0; i < element->n_fields; i++)
        if (scio_h5_has_text(&element->fields[i].element))
            return true;
    return element->kind == SCIO_H5_ITEM_TEXT;
}

hid_t
scio_h5_make_space(const scio_h5_value *value)
{
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK];

    if (value->is_null)
        return H5Screate(H5S_NULL);
    for (unsigned i = 0; i < value->rank; i++)
        dims[i] = value->dims[i];
    return value->rank == 0 ? H5Screate(H5S_SCALAR)
                            : H5Screate_simple((int)value->rank, dims, NULL);
}

hid_t
scio_h5_make_link_list(void)
{
    const hid_t list = H5Pcreate(H5P_LINK_CREATE);

    if (list >= 0 && (H5Pset_create_intermediate_group(list, 1) < 0 ||
                      H5Pset_char_encoding(list, H5T_CSET_UTF8) < 0)) {
        (void)H5Pclose(list);
        return -1;
    }
    return list;
}

scio_status
scio_h5_check_value(const scio_h5_value *value, uint64_t *n_items_out, scio_error *err)
{
    const scio_h5_element element = scio_h5_element_of(value);
    const uint64_t itemsize = element.nbytes < 16 ? 16 : element.nbytes;
    uint64_t n_items = value->is_null ? 0 : 1, nbytes;

    if (value->rank > SCIO_H5_WRITER_MAX_RANK)
        return scio_fail(err, SCIO_EINVAL, "rank %u, more than %d", value->rank,
                         SCIO_H5_WRITER_MAX_RANK);
    for (unsigned i = 0; i < value->rank; i++)
        if (!scio_mul_u64(n_items, value->dims[i], &n_items))
            n_items = UINT64_MAX;
    if (!scio_mul_u64(n_items, itemsize, &nbytes) || nbytes > INT64_MAX)
        return scio_fail(err, SCIO_EINVAL, "more items than a file has bytes");
    *n_items_out = n_items;
    return SCIO_OK;
}
