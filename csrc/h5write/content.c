/* Groups, attributes and contiguous datasets.  One function per thing that is made; each opens the
 * ids it needs and closes them again, whatever happens between, since an id that is left open may
 * crash libhdf5 at the end of the process. */
#include "h5write/writer_private.h"

#include "base/pwrite.h"

static scio_status
make_group(const scio_h5_writer *writer, const char *path, bool is_wide, scio_error *err)
{
    const unsigned order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
    const hid_t create = H5Pcreate(H5P_GROUP_CREATE), link = scio_h5_make_link_list();
    hid_t group = -1;
    scio_status status;

    /* tracking the order gives the newer header, which may keep large attributes outside */
    if (create >= 0 && link >= 0 && H5Pset_obj_track_times(create, 0) >= 0 &&
        (!is_wide || (H5Pset_link_creation_order(create, order) >= 0 &&
                      H5Pset_attr_creation_order(create, order) >= 0)))
        group = H5Gcreate2(writer->file, path, link, create, H5P_DEFAULT);
    status = group < 0 ? scio_h5_library_error("making the group", err) : SCIO_OK;
    if (group >= 0)
        (void)H5Gclose(group);
    if (link >= 0)
        (void)H5Pclose(link);
    if (create >= 0)
        (void)H5Pclose(create);
    return status;
}

scio_status
scio_h5_writer_group(scio_h5_writer *writer, const char *path, bool is_wide, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT;
    scio_h5_turn turn;

    SCIO_TRY(scio_h5_writer_check(writer, err));
    scio_h5_turn_begin(&turn);
    (void)make_group(writer, path, is_wide, &own);
    scio_h5_turn_end(&turn);
    return scio_h5_writer_settle(writer, &own, path, err);
}

/* No times in the file: the same content gives the same bytes.  Space set aside is not filled, for
 * text libhdf5 insists on it. */
static hid_t
make_dataset_list(bool is_text, bool is_reserved)
{
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);

    if (list >= 0 &&
        (H5Pset_obj_track_times(list, 0) < 0 || H5Pset_layout(list, H5D_CONTIGUOUS) < 0 ||
         (!is_text && H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) < 0) ||
         (is_reserved && H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) < 0))) {
        (void)H5Pclose(list);
        return -1;
    }
    return list;
}

static const void *
memory_of(const scio_h5_value *value)
{
    return value->texts != NULL ? (const void *)value->texts : value->data;
}

static scio_status
make_attr(const scio_h5_writer *writer, const char *path, const char *name,
          const scio_h5_value *value, scio_error *err)
{
    const scio_h5_element element = scio_h5_element_of(value);
    hid_t create = -1, type = -1, space = -1, object = -1, attr = -1;
    uint64_t n_items = 0;
    scio_status status;

    SCIO_TRY(scio_h5_check_value(value, &n_items, err));
    create = H5Pcreate(H5P_ATTRIBUTE_CREATE);
    type = scio_h5_make_type(&element);
    space = scio_h5_make_space(value);
    object = H5Oopen(writer->file, path, H5P_DEFAULT);
    if (create >= 0 && type >= 0 && space >= 0 && object >= 0 &&
        H5Pset_char_encoding(create, H5T_CSET_UTF8) >= 0)
        attr = H5Acreate2(object, name, type, space, create, H5P_DEFAULT);
    if (attr < 0 || (n_items > 0 && H5Awrite(attr, type, memory_of(value)) < 0))
        status = scio_h5_library_error("writing the attribute", err);
    else
        status = SCIO_OK;
    if (attr >= 0)
        (void)H5Aclose(attr);
    if (object >= 0)
        (void)H5Oclose(object);
    if (space >= 0)
        (void)H5Sclose(space);
    if (type >= 0)
        (void)H5Tclose(type);
    if (create >= 0)
        (void)H5Pclose(create);
    return status;
}

scio_status
scio_h5_writer_attr(scio_h5_writer *writer, const char *path, const char *name,
                    const scio_h5_value *value, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT;
    scio_h5_turn turn;

    SCIO_TRY(scio_h5_writer_check(writer, err));
    scio_h5_turn_begin(&turn);
    if (make_attr(writer, path, name, value, &own) != SCIO_OK)
        scio_context(&own, "@%s", name);
    scio_h5_turn_end(&turn);
    return scio_h5_writer_settle(writer, &own, path, err);
}

/* offset_out: set the space aside and say where; NULL: write the data. */
static scio_status
make_dataset(const scio_h5_writer *writer, const char *path, const scio_h5_value *value,
             uint64_t *offset_out, scio_error *err)
{
    const scio_h5_element element = scio_h5_element_of(value);
    hid_t create = -1, link = -1, type = -1, space = -1, dataset = -1;
    uint64_t n_items = 0;
    scio_status status = SCIO_OK;

    SCIO_TRY(scio_h5_check_value(value, &n_items, err));
    create = make_dataset_list(scio_h5_has_text(&element), offset_out != NULL);
    link = scio_h5_make_link_list();
    type = scio_h5_make_type(&element);
    space = scio_h5_make_space(value);
    if (create >= 0 && link >= 0 && type >= 0 && space >= 0)
        dataset = H5Dcreate2(writer->file, path, type, space, link, create, H5P_DEFAULT);
    if (dataset < 0) {
        status = scio_h5_library_error("making the dataset", err);
    } else if (offset_out != NULL) {
        const haddr_t offset = n_items > 0 ? H5Dget_offset(dataset) : 0;
        if (offset == HADDR_UNDEF)
            status = scio_h5_library_error("asking where the dataset lies", err);
        *offset_out = offset;
    } else if (n_items > 0 &&
               H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, memory_of(value)) < 0) {
        status = scio_h5_library_error("writing the dataset", err);
    }
    if (dataset >= 0 && H5Dclose(dataset) < 0)
        status = scio_h5_library_error("closing the dataset", err);
    if (space >= 0)
        (void)H5Sclose(space);
    if (type >= 0)
        (void)H5Tclose(type);
    if (link >= 0)
        (void)H5Pclose(link);
    if (create >= 0)
        (void)H5Pclose(create);
    return status;
}

static scio_status
add_dataset(scio_h5_writer *writer, const char *path, const scio_h5_value *value,
            uint64_t *offset_out, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT;
    scio_h5_turn turn;

    SCIO_TRY(scio_h5_writer_check(writer, err));
    scio_h5_turn_begin(&turn);
    (void)make_dataset(writer, path, value, offset_out, &own);
    scio_h5_turn_end(&turn);
    return scio_h5_writer_settle(writer, &own, path, err);
}

/* So large a dataset takes long enough that somebody may want to stop it. */
#define LARGE_NBYTES ((uint64_t)16 << 20)
#define PIECE_NBYTES ((size_t)8 << 20)

/* Space from libhdf5, bytes from us: without the library's lock, a piece at a time. */
static scio_status
write_large(scio_h5_writer *writer, const char *path, const scio_h5_value *value, uint64_t nbytes,
            const volatile int *cancel, scio_error *err)
{
    const uint8_t *bytes = value->data;
    scio_error own = SCIO_ERROR_INIT;
    uint64_t offset = 0;

    SCIO_TRY(add_dataset(writer, path, value, &offset, err));
    while (nbytes > 0 && writer->latch.saved_errno == 0 && own.code == SCIO_OK) {
        const size_t piece = nbytes < PIECE_NBYTES ? (size_t)nbytes : PIECE_NBYTES;

        writer->latch.saved_errno = scio_pwrite(writer->latch.fd, bytes, piece, offset);
        bytes += piece;
        offset += piece;
        nbytes -= piece;
        if (cancel != NULL && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0)
            (void)scio_fail(&own, SCIO_EWRITE, "interrupted, the dataset is not whole");
    }
    return scio_h5_writer_settle(writer, &own, path, err);
}

scio_status
scio_h5_writer_dataset(scio_h5_writer *writer, const char *path, const scio_h5_value *value,
                       const volatile int *cancel, scio_error *err)
{
    const scio_h5_element element = scio_h5_element_of(value);
    uint64_t n_items = 0;

    if (scio_h5_has_text(&element) || scio_h5_check_value(value, &n_items, NULL) != SCIO_OK ||
        n_items * element.nbytes < LARGE_NBYTES) /* checked: no overflow */
        return add_dataset(writer, path, value, NULL, err);
    return write_large(writer, path, value, n_items * element.nbytes, cancel, err);
}

scio_status
scio_h5_writer_reserve(scio_h5_writer *writer, const char *path, const scio_h5_value *value,
                       uint64_t *offset_out, scio_error *err)
{
    const scio_h5_element element = scio_h5_element_of(value);

    *offset_out = 0;
    if (scio_h5_has_text(&element))
        return scio_fail(err, SCIO_EINVAL, "%s: no space can be set aside for text", path);
    return add_dataset(writer, path, value, offset_out, err);
}
