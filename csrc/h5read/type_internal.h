/* What type.c and type_nested.c share. */
#ifndef SCIO_H5READ_TYPE_INTERNAL_H
#define SCIO_H5READ_TYPE_INTERNAL_H

#include "h5read/type.h"

#define SCIO_H5_MAX_NESTING 16

typedef struct scio_type_reader {
    const scio_h5_file *file;
    scio_cursor *cursor;
    unsigned depth;    /* of the type being read: 1 = outermost */
    uint32_t bits;     /* the 24-bit field of the type being read */
    uint64_t position; /* absolute, of the type being read */
} scio_type_reader;

/* The next type of the cursor, one level further in; the reader itself is not changed. */
SCIO_MUST_CHECK scio_status scio_h5_type_read(const scio_type_reader *outer, scio_h5_type **out,
                                              scio_error *err);

/* The properties of these classes, into `type` (class, version, itemsize are set; what was made
 * before an error is freed by the caller with the type). */
SCIO_MUST_CHECK scio_status scio_h5_type_read_compound(const scio_type_reader *reader,
                                                       scio_h5_type *type, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_type_read_enum(const scio_type_reader *reader,
                                                   scio_h5_type *type, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_type_read_vlen(const scio_type_reader *reader,
                                                   scio_h5_type *type, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_type_read_array(const scio_type_reader *reader,
                                                    scio_h5_type *type, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_type_read_complex(const scio_type_reader *reader,
                                                      scio_h5_type *type, scio_error *err);

/* Says why no values can be given; the first reason stays. */
void scio_h5_type_refuse(scio_h5_type *type, const char *format, ...) SCIO_PRINTF(2, 3);

#endif
