/* Writing HDF5 files through libhdf5; nothing of it shows here, and nobody else includes <hdf5.h>.
 *
 * A writer makes one new file.  Its first failure is latched: every later call gives it again,
 * close included, and what was written so far is no file of use.  All writers of a process take
 * turns (one lock); a writer belongs to the process that made it.
 *
 * libhdf5 never sees an I/O error (h5write/latch.h), since from one on it may crash, in some
 * versions as late as at the exit of the process. */
#ifndef SCIO_H5WRITE_WRITER_H
#define SCIO_H5WRITE_WRITER_H

#include "base/dtype.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCIO_H5_WRITER_MAX_RANK = 8, SCIO_H5_USER_BLOCK_NBYTES = 512 };

typedef struct scio_h5_writer scio_h5_writer;

/* What one item is, in memory and in the file. */
typedef enum scio_h5_element_kind {
    SCIO_H5_ITEM_NUMBER,  /* of `dtype`; BOOL becomes the enumeration that h5py and anndata write */
    SCIO_H5_ITEM_COMPLEX, /* two of `dtype`, which become a compound {r, i}, as h5py's */
    SCIO_H5_ITEM_FIXED_TEXT, /* `nbytes` bytes, filled up with NUL */
    SCIO_H5_ITEM_TEXT,       /* a pointer to UTF-8, which has any length in the file */
    SCIO_H5_ITEM_RECORD,     /* `fields` */
    SCIO_H5_ITEM_TUPLE       /* an array of `dims` of the only one of `fields` */
} scio_h5_element_kind;

typedef struct scio_h5_field scio_h5_field;

typedef struct scio_h5_element {
    scio_h5_element_kind kind;
    scio_dtype dtype;
    size_t nbytes; /* of one in memory; fields lie in it without gaps that matter */
    const scio_h5_field *fields;
    size_t n_fields;
    unsigned rank;
    uint64_t dims[SCIO_H5_WRITER_MAX_RANK];
} scio_h5_element;

struct scio_h5_field {
    const char *name; /* UTF-8; of a record's */
    size_t offset;
    scio_h5_element element;
};

/* Items with a shape: row-major, packed, native. */
typedef struct scio_h5_value {
    scio_dtype dtype;         /* of numbers; NONE = text, or what `element` says */
    const void *data;         /* numbers, and items of `element` */
    const char *const *texts; /* text: UTF-8, variable length in the file */
    unsigned rank;            /* 0 = scalar */
    uint64_t dims[SCIO_H5_WRITER_MAX_RANK];
    const scio_h5_element *element; /* NULL: `dtype` says it all */
    bool is_null;                   /* a null dataspace: a type and no item */
} scio_h5_value;

/* Makes the file, which must not exist; a format that libhdf5 1.8 and everything after it reads. */
SCIO_MUST_CHECK scio_status scio_h5_writer_new(const char *path, scio_h5_writer **out,
                                               scio_error *err);
/* The same with a user block: SCIO_H5_USER_BLOCK_NBYTES in front of all that is HDF5, which begin
 * with `mark` (shorter than that) and are zeros behind it. */
SCIO_MUST_CHECK scio_status scio_h5_writer_new_marked(const char *path, const char *mark,
                                                      scio_h5_writer **out, scio_error *err);
/* Discards the file's handle unless it was closed; the path is the caller's to remove. */
void scio_h5_writer_free(scio_h5_writer *writer);

/* Paths are absolute; missing groups on the way are made.  is_wide: attributes beyond 64 KiB, such
 * as the names of 4,000 columns and more. */
SCIO_MUST_CHECK scio_status scio_h5_writer_group(scio_h5_writer *writer, const char *path,
                                                 bool is_wide, scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_writer_attr(scio_h5_writer *writer, const char *path,
                                                const char *name, const scio_h5_value *value,
                                                scio_error *err);
/* A contiguous dataset with its data.  Interrupted by `cancel` (may be NULL), the writer has
 * failed.
 */
SCIO_MUST_CHECK scio_status scio_h5_writer_dataset(scio_h5_writer *writer, const char *path,
                                                   const scio_h5_value *value,
                                                   const volatile int *cancel, scio_error *err);
/* A contiguous dataset of numbers whose space is set aside and not filled: value->data is not
 * looked at.  Its bytes go to *offset_out of the file, by whoever likes, once the writer was
 * closed; 0 when it has none. */
SCIO_MUST_CHECK scio_status scio_h5_writer_reserve(scio_h5_writer *writer, const char *path,
                                                   const scio_h5_value *value, uint64_t *offset_out,
                                                   scio_error *err);
/* Ends the file, finishing chunked datasets that are open, and brings it to the disk.  EWRITE with
 * the first failure's errno when anything failed since the beginning.  Only free may follow. */
SCIO_MUST_CHECK scio_status scio_h5_writer_close(scio_h5_writer *writer, scio_error *err);

/* "1.10.8" of the library that is loaded. */
void scio_h5_writer_version(char *out, size_t out_nbytes);

#endif
