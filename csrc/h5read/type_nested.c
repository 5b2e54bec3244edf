/* Datatypes with types inside: compound, enum, variable length, array, complex. */
#include "h5read/type_internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "datatype"
#define MEMBER_MIN_NBYTES 8
#define ENUM_MIN_NBYTES 2 /* an empty name and a value */
#define V1_N_DIMS 4

/* The least number of bytes that hold `value`. */
static size_t
width_of(uint32_t value)
{
    size_t width = 1;

    while (width < 4 && value >> (8 * width) != 0)
        width++;
    return width;
}

/* A NUL-terminated name; versions 1 and 2 pad it, NUL included, to a multiple of 8. */
static scio_status
take_name(const scio_type_reader *reader, unsigned version, char **out, scio_error *err)
{
    scio_cursor *const cursor = reader->cursor;
    const size_t left = scio_cursor_left(cursor);
    const uint8_t *const start = cursor->data + cursor->at;
    const uint8_t *const end = left == 0 ? NULL : memchr(start, 0, left);
    size_t nbytes;

    if (end == NULL)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": the name of a member at byte %" PRIu64
                              " does not end in the %zu bytes left",
                         reader->position, cursor->position + cursor->at, left);
    nbytes = (size_t)(end - start) + 1;
    SCIO_TRY(scio_cursor_skip(cursor, version <= 2 ? (nbytes + 7) & ~(size_t)7 : nbytes, err));
    return scio_mem_strndup((const char *)start, nbytes - 1, out, err);
}

static scio_status
check_count(const scio_type_reader *reader, size_t n_members, size_t min_nbytes, scio_error *err)
{
    const size_t left = scio_cursor_left(reader->cursor);

    if (n_members >= 1 && n_members <= left / min_nbytes)
        return SCIO_OK;
    return scio_fail(err, SCIO_ECORRUPT,
                     WHAT " at byte %" PRIu64 ": %zu members in %zu bytes, expected 1 to %zu",
                     reader->position, n_members, left, left / min_nbytes);
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static scio_status
check_names_differ(const scio_type_reader *reader, const char **names, size_t n_names,
                   scio_error *err)
{
    qsort(names, n_names, sizeof *names, compare_names);
    for (size_t i = 1; i < n_names; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64 ": two members are named \"%.100s\"",
                             reader->position, names[i]);
    return SCIO_OK;
}

/* ---- compound ---- */

/* An array type of `n_dims` dimensions around `*inout`. */
static scio_status
wrap_array(const scio_type_reader *reader, unsigned n_dims, const uint32_t *dims,
           scio_h5_type **inout, scio_error *err)
{
    uint64_t nbytes = (*inout)->itemsize;
    scio_h5_type *array = NULL;

    for (unsigned i = 0; i < n_dims; i++)
        if (!scio_mul_u64(nbytes, dims[i], &nbytes) || nbytes == 0 || nbytes > UINT32_MAX)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64
                                  ": array member with dimension %u of %" PRIu32,
                             reader->position, i, dims[i]);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *array, &array, err));
    array->type_class = SCIO_H5_ARRAY;
    array->version = (*inout)->version;
    array->itemsize = (uint32_t)nbytes;
    array->array_rank = n_dims;
    memcpy(array->array_dims, dims, n_dims * sizeof *dims);
    memcpy(array->unsupported, (*inout)->unsupported, sizeof array->unsupported);
    array->base = *inout;
    *inout = array;
    return SCIO_OK;
}

/* Version 1: u8 number of dimensions, 3 + 4 + 4 unused bytes, four dimensions (always there), type.
 */
static scio_status
take_v1_member(const scio_type_reader *reader, scio_h5_member *member, scio_error *err)
{
    uint32_t dims[V1_N_DIMS] = {0};
    uint8_t n_dims = 0;

    SCIO_TRY(scio_cursor_u8(reader->cursor, &n_dims, err));
    if (n_dims > V1_N_DIMS)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64
                              ": array member of %u dimensions, expected at most %d",
                         reader->position, n_dims, V1_N_DIMS);
    SCIO_TRY(scio_cursor_skip(reader->cursor, 11, err));
    for (unsigned i = 0; i < V1_N_DIMS; i++)
        SCIO_TRY(scio_cursor_u32(reader->cursor, &dims[i], err));
    SCIO_TRY(scio_h5_type_read(reader, &member->type, err));
    return n_dims == 0 ? SCIO_OK : wrap_array(reader, n_dims, dims, &member->type, err);
}

static scio_status
take_member(const scio_type_reader *reader, scio_h5_type *type, scio_h5_member *member,
            scio_error *err)
{
    const size_t offset_nbytes = type->version >= 3 ? width_of(type->itemsize) : 4;
    uint64_t offset = 0;

    SCIO_TRY(take_name(reader, type->version, &member->name, err));
    SCIO_TRY(scio_cursor_uint(reader->cursor, offset_nbytes, &offset, err));
    member->offset = (uint32_t)offset;
    if (type->version == 1)
        SCIO_TRY(take_v1_member(reader, member, err));
    else
        SCIO_TRY(scio_h5_type_read(reader, &member->type, err));
    if (member->offset > type->itemsize || member->type->itemsize > type->itemsize - member->offset)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": member \"%.100s\" has bytes %" PRIu32
                              " + %" PRIu32 " of an element of %" PRIu32,
                         reader->position, member->name, member->offset, member->type->itemsize,
                         type->itemsize);
    if (member->type->unsupported[0] != '\0')
        scio_h5_type_refuse(type, "member \"%.30s\": %.60s", member->name,
                            member->type->unsupported);
    return SCIO_OK;
}

static int
compare_offsets(const void *a, const void *b)
{
    const scio_h5_member *const x = *(const scio_h5_member *const *)a;
    const scio_h5_member *const y = *(const scio_h5_member *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static scio_status
check_apart(const scio_type_reader *reader, const scio_h5_member **members, size_t n_members,
            scio_error *err)
{
    qsort(members, n_members, sizeof *members, compare_offsets);
    for (size_t i = 1; i < n_members; i++)
        if (members[i]->offset - members[i - 1]->offset < members[i - 1]->type->itemsize)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64
                                  ": members \"%.100s\" and \"%.100s\" overlap at offset %" PRIu32,
                             reader->position, members[i - 1]->name, members[i]->name,
                             members[i]->offset);
    return SCIO_OK;
}

static scio_status
check_members(const scio_type_reader *reader, const scio_h5_type *type, scio_error *err)
{
    const scio_h5_member **members = NULL;
    const char **names = NULL;
    scio_status status;

    status = scio_mem_alloc(type->n_members, sizeof *members, &members, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_mem_alloc(type->n_members, sizeof *names, &names, err);
    if (status != SCIO_OK)
        goto done;
    for (size_t i = 0; i < type->n_members; i++) {
        members[i] = &type->members[i];
        names[i] = type->members[i].name;
    }
    status = check_names_differ(reader, names, type->n_members, err);
    if (status == SCIO_OK)
        status = check_apart(reader, members, type->n_members, err);
done:
    scio_mem_free(names);
    scio_mem_free(members);
    return status;
}

scio_status
scio_h5_type_read_compound(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const size_t n_members = reader->bits & 0xffff;

    SCIO_TRY(check_count(reader, n_members, MEMBER_MIN_NBYTES, err));
    SCIO_TRY(scio_mem_zalloc(n_members, sizeof *type->members, &type->members, err));
    type->n_members = n_members;
    for (size_t i = 0; i < n_members; i++)
        SCIO_TRY(take_member(reader, type, &type->members[i], err));
    return check_members(reader, type, err);
}

/* ---- enum ---- */

/* {FALSE = 0, TRUE = 1} in one byte, as h5py and NumPy-minded writers store booleans. */
static bool
is_boolean(const scio_h5_type *type)
{
    bool is_false = false, is_true = false;

    if (type->itemsize != 1 || type->n_members != 2)
        return false;
    for (size_t i = 0; i < 2; i++) {
        is_false =
            is_false || (strcmp(type->enum_names[i], "FALSE") == 0 && type->enum_values[i] == 0);
        is_true =
            is_true || (strcmp(type->enum_names[i], "TRUE") == 0 && type->enum_values[i] == 1);
    }
    return is_false && is_true;
}

static scio_status
check_enum_names(const scio_type_reader *reader, const scio_h5_type *type, scio_error *err)
{
    const char **names = NULL;
    scio_status status;

    SCIO_TRY(scio_mem_alloc(type->n_members, sizeof *names, &names, err));
    for (size_t i = 0; i < type->n_members; i++)
        names[i] = type->enum_names[i];
    status = check_names_differ(reader, names, type->n_members, err);
    scio_mem_free(names);
    return status;
}

scio_status
scio_h5_type_read_enum(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const size_t n_members = reader->bits & 0xffff;
    const uint8_t *values = NULL;

    SCIO_TRY(scio_h5_type_read(reader, &type->base, err));
    if (type->base->type_class != SCIO_H5_INTEGER || type->base->itemsize != type->itemsize)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": enum of %" PRIu32
                              " bytes over class %u of %" PRIu32 ", expected an integer as large",
                         reader->position, type->itemsize, (unsigned)type->base->type_class,
                         type->base->itemsize);
    SCIO_TRY(check_count(reader, n_members, ENUM_MIN_NBYTES, err));
    SCIO_TRY(scio_mem_zalloc(n_members, sizeof *type->enum_names, &type->enum_names, err));
    type->n_members = n_members;
    for (size_t i = 0; i < n_members; i++)
        SCIO_TRY(take_name(reader, type->version, &type->enum_names[i], err));
    if (n_members > scio_cursor_left(reader->cursor) / type->itemsize)
        return scio_fail(
            err, SCIO_ECORRUPT,
            WHAT " at byte %" PRIu64 ": %zu enum values of %" PRIu32 " bytes, %zu bytes are left",
            reader->position, n_members, type->itemsize, scio_cursor_left(reader->cursor));
    SCIO_TRY(scio_cursor_bytes(reader->cursor, n_members * type->itemsize, &values, err));
    SCIO_TRY(scio_mem_alloc(n_members, type->itemsize, &type->enum_values, err));
    memcpy(type->enum_values, values, n_members * type->itemsize);
    type->is_big_endian = type->base->is_big_endian;
    type->is_signed = type->base->is_signed;
    if (type->base->unsupported[0] != '\0')
        scio_h5_type_refuse(type, "enum over %.80s", type->base->unsupported);
    type->is_bool = is_boolean(type);
    if (type->is_bool && type->base->dtype != SCIO_DTYPE_NONE)
        type->dtype = SCIO_BOOL;
    return check_enum_names(reader, type, err);
}

/* ---- variable length, array, complex ---- */

scio_status
scio_h5_type_read_vlen(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const unsigned kind = reader->bits & 0xf;
    const uint32_t nbytes = 8 + scio_h5_file_superblock(reader->file)->offset_nbytes;

    if (kind > 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": variable length of kind %u, expected 0 or 1",
                         reader->position, kind);
    if (type->itemsize != nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": variable length of %" PRIu32
                              " bytes, expected %" PRIu32,
                         reader->position, type->itemsize, nbytes);
    SCIO_TRY(scio_h5_type_read(reader, &type->base, err));
    type->is_vlen_string = kind == 1;
    type->padding = reader->bits >> 4 & 0xf;
    type->is_utf8 = (reader->bits >> 8 & 0xf) == 1;
    if (type->is_vlen_string && type->base->itemsize != 1)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": variable-length string of elements of %" PRIu32
                              " bytes, expected 1",
                         reader->position, type->base->itemsize);
    if (type->base->unsupported[0] != '\0')
        scio_h5_type_refuse(type, "variable length of %.70s", type->base->unsupported);
    return SCIO_OK;
}

scio_status
scio_h5_type_read_array(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    uint64_t nbytes;
    uint8_t rank = 0;

    if (type->version < 2)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": array of version 1, expected at least 2",
                         reader->position);
    SCIO_TRY(scio_cursor_u8(reader->cursor, &rank, err));
    if (rank < 1 || rank > SCIO_H5_MAX_RANK)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": array of rank %u, expected 1 to %d",
                         reader->position, rank, SCIO_H5_MAX_RANK);
    SCIO_TRY(scio_cursor_skip(reader->cursor, type->version == 2 ? 3 : 0, err));
    type->array_rank = rank;
    for (unsigned i = 0; i < rank; i++)
        SCIO_TRY(scio_cursor_u32(reader->cursor, &type->array_dims[i], err));
    SCIO_TRY(scio_cursor_skip(reader->cursor, type->version == 2 ? (size_t)4 * rank : 0, err));
    SCIO_TRY(scio_h5_type_read(reader, &type->base, err));
    nbytes = type->base->itemsize;
    for (unsigned i = 0; i < rank; i++)
        if (!scio_mul_u64(nbytes, type->array_dims[i], &nbytes) || nbytes > UINT32_MAX)
            nbytes = 0; /* as a dimension of 0: equal to no size */
    if (nbytes != type->itemsize)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": array of %" PRIu32
                              " bytes, its dimensions and elements of %" PRIu32 " bytes disagree",
                         reader->position, type->itemsize, type->base->itemsize);
    if (type->base->unsupported[0] != '\0')
        scio_h5_type_refuse(type, "array of %.80s", type->base->unsupported);
    return SCIO_OK;
}

scio_status
scio_h5_type_read_complex(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const bool is_homogeneous = (reader->bits & 1) != 0;

    SCIO_TRY(scio_h5_type_read(reader, &type->base, err));
    if (type->base->type_class != SCIO_H5_FLOAT || type->itemsize / 2 != type->base->itemsize ||
        type->itemsize % 2 != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": complex of %" PRIu32
                              " bytes over class %u of %" PRIu32 ", expected two floats",
                         reader->position, type->itemsize, (unsigned)type->base->type_class,
                         type->base->itemsize);
    type->is_big_endian = type->base->is_big_endian;
    type->is_signed = true;
    if (!is_homogeneous)
        scio_h5_type_refuse(type, "complex number of two different parts");
    if (type->base->unsupported[0] != '\0')
        scio_h5_type_refuse(type, "complex of %.80s", type->base->unsupported);
    return SCIO_OK;
}
