/* One function per thing that is made; each opens the ids it needs and closes them again, whatever
 * happens between, since an id that is left open may crash libhdf5 at the end of the process. */
#include "h5write/writer.h"

#include "base/mem.h"
#include "h5write/latch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 64 }; /* of every array: mapped ones are used where they lie */

struct scio_h5_writer {
    char *path;
    scio_latch latch;
    hid_t file, driver; /* negative when there is none */
    pid_t pid;
    bool is_closed;
    scio_error failure; /* the first one */
};

/* ---- the lock: one thread at a time in libhdf5, and none across a fork ---- */

static pthread_mutex_t library_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void
before_fork(void)
{
    (void)pthread_mutex_lock(&library_mutex);
}

static void
after_fork(void)
{
    (void)pthread_mutex_unlock(&library_mutex);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork);
}

/* Whoever else uses the library in this thread keeps its way of printing errors. */
typedef struct library_turn {
    H5E_auto2_t print;
    void *context;
} library_turn;

static void
begin_turn(library_turn *turn)
{
    (void)pthread_once(&fork_once, watch_forks);
    (void)pthread_mutex_lock(&library_mutex);
    *turn = (library_turn){NULL, NULL};
    (void)H5Eget_auto2(H5E_DEFAULT, &turn->print, &turn->context);
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static void
end_turn(const library_turn *turn)
{
    (void)H5Eclear2(H5E_DEFAULT);
    (void)H5Eset_auto2(H5E_DEFAULT, turn->print, turn->context);
    (void)pthread_mutex_unlock(&library_mutex);
}

/* ---- failing ---- */

static herr_t
keep_innermost(unsigned depth, const H5E_error2_t *entry, void *context)
{
    const char **const text = context;

    (void)depth;
    if (*text == NULL && entry->desc != NULL)
        *text = entry->desc;
    return 0;
}

/* A call of libhdf5 has failed; what it says, in our words. */
static scio_status
library_error(const char *what, scio_error *err)
{
    const char *text = NULL;

    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
    return scio_fail(err, SCIO_EWRITE, "%s: libhdf5 says \"%s\"", what,
                     text != NULL ? text : "nothing");
}

static scio_status
check_usable(const scio_h5_writer *writer, scio_error *err)
{
    if (writer->pid != getpid())
        return scio_fail(err, SCIO_EINVAL, "%s is being written by process %ld, this is %ld",
                         writer->path, (long)writer->pid, (long)getpid());
    if (writer->failure.code != SCIO_OK) {
        scio_error_move(err, &writer->failure);
        return writer->failure.code;
    }
    if (writer->is_closed)
        return scio_fail(err, SCIO_EINVAL, "%s was closed", writer->path);
    return SCIO_OK;
}

/* The end of every call: an error of the disk is the cause of whatever else failed.  `own` is what
 * the call itself says; `place` goes in front. */
static scio_status
settle(scio_h5_writer *writer, scio_error *own, const char *place, scio_error *err)
{
    scio_error failure = SCIO_ERROR_INIT;

    if (writer->latch.saved_errno != 0)
        (void)scio_fail_errno(&failure, SCIO_EWRITE, writer->latch.saved_errno, "writing");
    else
        scio_error_move(&failure, own);
    if (failure.code == SCIO_OK)
        return SCIO_OK;
    if (place != NULL)
        scio_context(&failure, "%s", place);
    scio_context(&failure, "%s", writer->path);
    writer->failure = failure;
    scio_error_move(err, &failure);
    return failure.code;
}

/* ---- types, spaces, property lists ---- */

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

/* A new id in every case, so that every one is closed. */
static hid_t
make_type(scio_dtype dtype)
{
    hid_t type;

    if (dtype == SCIO_BOOL)
        return make_bool();
    if (dtype != SCIO_DTYPE_NONE) {
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
    type = H5Tcopy(H5T_C_S1);
    if (type >= 0 &&
        (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        (void)H5Tclose(type);
        return -1;
    }
    return type;
}

static hid_t
make_space(const scio_h5_value *value)
{
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK];

    for (unsigned i = 0; i < value->rank; i++)
        dims[i] = value->dims[i];
    return value->rank == 0 ? H5Screate(H5S_SCALAR)
                            : H5Screate_simple((int)value->rank, dims, NULL);
}

static hid_t
make_link_list(void)
{
    const hid_t list = H5Pcreate(H5P_LINK_CREATE);

    if (list >= 0 && (H5Pset_create_intermediate_group(list, 1) < 0 ||
                      H5Pset_char_encoding(list, H5T_CSET_UTF8) < 0)) {
        (void)H5Pclose(list);
        return -1;
    }
    return list;
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

static scio_status
check_value(const scio_h5_value *value, uint64_t *n_items_out, scio_error *err)
{
    uint64_t n_items = 1, nbytes;

    if (value->rank > SCIO_H5_WRITER_MAX_RANK)
        return scio_fail(err, SCIO_EINVAL, "rank %u, more than %d", value->rank,
                         SCIO_H5_WRITER_MAX_RANK);
    for (unsigned i = 0; i < value->rank; i++)
        if (!scio_mul_u64(n_items, value->dims[i], &n_items))
            n_items = UINT64_MAX;
    if (!scio_mul_u64(n_items, 16, &nbytes) || nbytes > INT64_MAX) /* 16: the largest element */
        return scio_fail(err, SCIO_EINVAL, "more items than a file has bytes");
    *n_items_out = n_items;
    return SCIO_OK;
}

/* ---- the file ---- */

static hid_t
make_access_list(scio_latch *latch, hid_t *driver_out)
{
    const hid_t list = H5Pcreate(H5P_FILE_ACCESS);

    if (list < 0)
        return -1;
    /* what every release from 1.8 on reads; a later default of the library changes nothing */
    if (H5Pset_libver_bounds(list, H5F_LIBVER_EARLIEST, H5F_LIBVER_V18) < 0 ||
        H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) < 0 ||
        H5Pset_alignment(list, 1, ALIGNMENT) < 0 || scio_latch_use(list, latch, driver_out) < 0) {
        (void)H5Pclose(list);
        return -1;
    }
    return list;
}

/* The library behind the name must be the one that we were compiled for. */
static scio_status
check_version(scio_error *err)
{
    unsigned major = 0, minor = 0, release = 0;

    if (H5get_libversion(&major, &minor, &release) < 0)
        return library_error("asking for its version", err);
    if (major != H5_VERS_MAJOR || minor != H5_VERS_MINOR)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "scio was built for libhdf5 %d.%d and found %u.%u.%u: build it again",
                         H5_VERS_MAJOR, H5_VERS_MINOR, major, minor, release);
    return SCIO_OK;
}

static scio_status
create_file(scio_h5_writer *writer, scio_error *err)
{
    hid_t access = -1, create = -1;
    scio_status status;

    SCIO_TRY(check_version(err));
    access = make_access_list(&writer->latch, &writer->driver);
    create = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && create >= 0 && H5Pset_obj_track_times(create, 0) >= 0)
        writer->file = H5Fcreate(writer->path, H5F_ACC_TRUNC, create, access);
    status = writer->file < 0 ? library_error("making the file", err) : SCIO_OK;
    if (create >= 0)
        (void)H5Pclose(create);
    if (access >= 0)
        (void)H5Pclose(access);
    return status;
}

scio_status
scio_h5_writer_new(const char *path, scio_h5_writer **out, scio_error *err)
{
    scio_h5_writer *writer = NULL;
    scio_error own = SCIO_ERROR_INIT;
    library_turn turn;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *writer, &writer, err));
    writer->file = writer->driver = -1;
    writer->latch.fd = -1;
    writer->pid = getpid();
    status = scio_mem_strndup(path, strlen(path), &writer->path, err);
    if (status != SCIO_OK)
        goto done;
    do {
        writer->latch.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
    } while (writer->latch.fd < 0 && errno == EINTR);
    if (writer->latch.fd < 0) {
        status = scio_fail_errno(err, SCIO_EWRITE, errno, "cannot make %s", path);
        goto done;
    }
    begin_turn(&turn);
    (void)create_file(writer, &own);
    end_turn(&turn);
    status = settle(writer, &own, NULL, err);
    if (status != SCIO_OK)
        goto done;
    *out = writer;
    writer = NULL;
done:
    scio_h5_writer_free(writer);
    return status;
}

/* Ends what libhdf5 has of the file. */
static void
close_library(scio_h5_writer *writer, scio_error *err)
{
    if (writer->file >= 0 && H5Fclose(writer->file) < 0)
        (void)library_error("closing", err);
    if (writer->driver >= 0 && H5FDunregister(writer->driver) < 0)
        (void)library_error("closing", err);
    writer->file = writer->driver = -1;
}

scio_status
scio_h5_writer_close(scio_h5_writer *writer, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT;
    library_turn turn;

    SCIO_TRY(check_usable(writer, err));
    begin_turn(&turn);
    close_library(writer, &own);
    end_turn(&turn);
    writer->is_closed = true;
    if (writer->latch.saved_errno == 0 && fsync(writer->latch.fd) != 0)
        writer->latch.saved_errno = errno;
    if (close(writer->latch.fd) != 0 && errno != EINTR && writer->latch.saved_errno == 0)
        writer->latch.saved_errno = errno;
    writer->latch.fd = -1;
    return settle(writer, &own, "closing", err);
}

void
scio_h5_writer_free(scio_h5_writer *writer)
{
    library_turn turn;

    if (writer == NULL)
        return;
    /* In a forked child the library's part belongs to the parent. */
    if ((writer->file >= 0 || writer->driver >= 0) && writer->pid == getpid()) {
        if (writer->latch.saved_errno == 0)
            writer->latch.saved_errno = ECANCELED; /* nothing more is written */
        begin_turn(&turn);
        close_library(writer, NULL);
        end_turn(&turn);
    }
    if (writer->latch.fd >= 0)
        (void)close(writer->latch.fd);
    scio_mem_free(writer->path);
    scio_mem_free(writer);
}

void
scio_h5_writer_version(char *out, size_t out_nbytes)
{
    unsigned major = 0, minor = 0, release = 0;
    library_turn turn;

    begin_turn(&turn);
    (void)H5get_libversion(&major, &minor, &release);
    end_turn(&turn);
    (void)snprintf(out, out_nbytes, "%u.%u.%u", major, minor, release);
}

/* ---- what is in it ---- */

static scio_status
make_group(const scio_h5_writer *writer, const char *path, bool is_wide, scio_error *err)
{
    const unsigned order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
    const hid_t create = H5Pcreate(H5P_GROUP_CREATE), link = make_link_list();
    hid_t group = -1;
    scio_status status;

    /* tracking the order gives the newer header, which may keep large attributes outside */
    if (create >= 0 && link >= 0 && H5Pset_obj_track_times(create, 0) >= 0 &&
        (!is_wide || (H5Pset_link_creation_order(create, order) >= 0 &&
                      H5Pset_attr_creation_order(create, order) >= 0)))
        group = H5Gcreate2(writer->file, path, link, create, H5P_DEFAULT);
    status = group < 0 ? library_error("making the group", err) : SCIO_OK;
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
    library_turn turn;

    SCIO_TRY(check_usable(writer, err));
    begin_turn(&turn);
    (void)make_group(writer, path, is_wide, &own);
    end_turn(&turn);
    return settle(writer, &own, path, err);
}

static const void *
memory_of(const scio_h5_value *value)
{
    return value->dtype == SCIO_DTYPE_NONE ? (const void *)value->texts : value->data;
}

static scio_status
make_attr(const scio_h5_writer *writer, const char *path, const char *name,
          const scio_h5_value *value, scio_error *err)
{
    hid_t create = -1, type = -1, space = -1, object = -1, attr = -1;
    uint64_t n_items = 0;
    scio_status status;

    SCIO_TRY(check_value(value, &n_items, err));
    create = H5Pcreate(H5P_ATTRIBUTE_CREATE);
    type = make_type(value->dtype);
    space = make_space(value);
    object = H5Oopen(writer->file, path, H5P_DEFAULT);
    if (create >= 0 && type >= 0 && space >= 0 && object >= 0 &&
        H5Pset_char_encoding(create, H5T_CSET_UTF8) >= 0)
        attr = H5Acreate2(object, name, type, space, create, H5P_DEFAULT);
    if (attr < 0 || (n_items > 0 && H5Awrite(attr, type, memory_of(value)) < 0))
        status = library_error("writing the attribute", err);
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
    library_turn turn;

    SCIO_TRY(check_usable(writer, err));
    begin_turn(&turn);
    if (make_attr(writer, path, name, value, &own) != SCIO_OK)
        scio_context(&own, "@%s", name);
    end_turn(&turn);
    return settle(writer, &own, path, err);
}

/* offset_out: set the space aside and say where; NULL: write the data. */
static scio_status
make_dataset(const scio_h5_writer *writer, const char *path, const scio_h5_value *value,
             uint64_t *offset_out, scio_error *err)
{
    hid_t create = -1, link = -1, type = -1, space = -1, dataset = -1;
    uint64_t n_items = 0;
    scio_status status = SCIO_OK;

    SCIO_TRY(check_value(value, &n_items, err));
    create = make_dataset_list(value->dtype == SCIO_DTYPE_NONE, offset_out != NULL);
    link = make_link_list();
    type = make_type(value->dtype);
    space = make_space(value);
    if (create >= 0 && link >= 0 && type >= 0 && space >= 0)
        dataset = H5Dcreate2(writer->file, path, type, space, link, create, H5P_DEFAULT);
    if (dataset < 0) {
        status = library_error("making the dataset", err);
    } else if (offset_out != NULL) {
        const haddr_t offset = n_items > 0 ? H5Dget_offset(dataset) : 0;
        if (offset == HADDR_UNDEF)
            status = library_error("asking where the dataset lies", err);
        *offset_out = offset;
    } else if (n_items > 0 &&
               H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, memory_of(value)) < 0) {
        status = library_error("writing the dataset", err);
    }
    if (dataset >= 0 && H5Dclose(dataset) < 0)
        status = library_error("closing the dataset", err);
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
    library_turn turn;

    SCIO_TRY(check_usable(writer, err));
    begin_turn(&turn);
    (void)make_dataset(writer, path, value, offset_out, &own);
    end_turn(&turn);
    return settle(writer, &own, path, err);
}

scio_status
scio_h5_writer_dataset(scio_h5_writer *writer, const char *path, const scio_h5_value *value,
                       scio_error *err)
{
    return add_dataset(writer, path, value, NULL, err);
}

scio_status
scio_h5_writer_reserve(scio_h5_writer *writer, const char *path, const scio_h5_value *value,
                       uint64_t *offset_out, scio_error *err)
{
    *offset_out = 0;
    if (value->dtype == SCIO_DTYPE_NONE)
        return scio_fail(err, SCIO_EINVAL, "%s: no space can be set aside for text", path);
    return add_dataset(writer, path, value, offset_out, err);
}
