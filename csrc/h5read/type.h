/* Datatypes, dataspaces and shared messages. */
#ifndef SCIO_H5READ_TYPE_H
#define SCIO_H5READ_TYPE_H

#include "base/dtype.h"
#include "base/error.h"
#include "h5read/cursor.h"
#include "h5read/file.h"
#include "h5read/header.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_h5_class {
    SCIO_H5_INTEGER = 0,
    SCIO_H5_FLOAT = 1,
    SCIO_H5_TIME = 2,
    SCIO_H5_STRING = 3,
    SCIO_H5_BITFIELD = 4,
    SCIO_H5_OPAQUE = 5,
    SCIO_H5_COMPOUND = 6,
    SCIO_H5_REFERENCE = 7,
    SCIO_H5_ENUM = 8,
    SCIO_H5_VLEN = 9,
    SCIO_H5_ARRAY = 10,
    SCIO_H5_COMPLEX = 11
} scio_h5_class;

typedef struct scio_h5_type scio_h5_type;

typedef struct scio_h5_member {
    char *name;
    uint32_t offset;
    scio_h5_type *type;
} scio_h5_member;

struct scio_h5_type {
    scio_h5_class type_class;
    unsigned version;
    uint32_t itemsize;
    /* What scio computes with: an integer or IEEE float, the base of a boolean enum as BOOL, a
     * bitfield as unsigned; else SCIO_DTYPE_NONE. */
    scio_dtype dtype;
    bool is_big_endian;
    bool is_signed;
    bool is_bool; /* enum of one byte {FALSE = 0, TRUE = 1} */
    /* STRING, and VLEN when is_vlen_string: */
    unsigned padding; /* 0 NUL-terminated, 1 NUL-padded, 2 space-padded */
    bool is_utf8;
    bool is_vlen_string;
    unsigned reference_kind; /* REFERENCE: 0 object, 1 region, others unsupported */
    /* COMPOUND: members; ENUM: names[i] with values[i * itemsize] in file byte order. */
    size_t n_members;
    scio_h5_member *members;
    char **enum_names;
    uint8_t *enum_values;
    /* ENUM, VLEN, ARRAY, COMPLEX: */
    scio_h5_type *base;
    unsigned array_rank;
    uint32_t array_dims[SCIO_H5_MAX_RANK];
    char *opaque_tag;
    /* A sound type that scio cannot give values of ("float of 16 bytes, precision 80"): "" when it
     * can.  Listing works, reading is EUNSUPPORTED with this text. */
    char unsupported[96];
};

/* Parses one datatype (not shared) from the cursor. */
SCIO_MUST_CHECK scio_status scio_h5_type_parse(const scio_h5_file *file, scio_cursor *cursor,
                                               scio_h5_type **out, scio_error *err);
/* Parses a datatype message of an object, following a shared message to a committed type. */
SCIO_MUST_CHECK scio_status scio_h5_type_from_message(const scio_h5_file *file,
                                                      const scio_h5_message *message,
                                                      scio_h5_type **out, scio_error *err);
void scio_h5_type_free(scio_h5_type *type);
/* True when values of the type hold heap references that must be resolved (vlen anywhere inside).
 */
bool scio_h5_type_has_vlen(const scio_h5_type *type);

typedef enum scio_h5_space_class {
    SCIO_H5_SCALAR,
    SCIO_H5_SIMPLE,
    SCIO_H5_NULL
} scio_h5_space_class;

typedef struct scio_h5_space {
    scio_h5_space_class space_class;
    unsigned rank;
    uint64_t dims[SCIO_H5_MAX_RANK];
    uint64_t max_dims[SCIO_H5_MAX_RANK]; /* UINT64_MAX = unlimited */
    uint64_t n_items;                    /* product; 1 for scalar, 0 for null; fits int64 */
} scio_h5_space;

SCIO_MUST_CHECK scio_status scio_h5_space_parse(const scio_h5_file *file, scio_cursor *cursor,
                                                scio_h5_space *out, scio_error *err);

#endif
