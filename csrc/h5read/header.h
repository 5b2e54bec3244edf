/* Object headers, versions 1 and 2: a list of messages. */
#ifndef SCIO_H5READ_HEADER_H
#define SCIO_H5READ_HEADER_H

#include "base/error.h"
#include "h5read/cursor.h"
#include "h5read/file.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SCIO_H5_MSG_NIL = 0x00,
    SCIO_H5_MSG_DATASPACE = 0x01,
    SCIO_H5_MSG_LINK_INFO = 0x02,
    SCIO_H5_MSG_DATATYPE = 0x03,
    SCIO_H5_MSG_OLD_FILL = 0x04,
    SCIO_H5_MSG_FILL = 0x05,
    SCIO_H5_MSG_LINK = 0x06,
    SCIO_H5_MSG_EXTERNAL_FILES = 0x07,
    SCIO_H5_MSG_LAYOUT = 0x08,
    SCIO_H5_MSG_PIPELINE = 0x0B,
    SCIO_H5_MSG_ATTRIBUTE = 0x0C,
    SCIO_H5_MSG_CONTINUATION = 0x10,
    SCIO_H5_MSG_SYMBOL_TABLE = 0x11,
    SCIO_H5_MSG_DRIVER = 0x14,
    SCIO_H5_MSG_ATTRIBUTE_INFO = 0x15,
    SCIO_H5_MSG_CACHE_IMAGE = 0x18
};

typedef struct scio_h5_message {
    uint16_t type;
    uint8_t flags;       /* bit 1: the data is a shared message */
    size_t nbytes;       /* OH v1 pads: decoders tolerate trailing bytes */
    const uint8_t *data; /* inside the header's own blocks */
    uint64_t position;   /* absolute, for messages */
} scio_h5_message;

typedef struct scio_h5_header {
    unsigned version;
    uint64_t address;
    size_t n_messages;
    scio_h5_message *messages; /* in file order, continuations followed, NIL left out */
    void *blocks;              /* private: the bytes behind `data` */
} scio_h5_header;

SCIO_MUST_CHECK scio_status scio_h5_header_read(const scio_h5_file *file, uint64_t address,
                                                scio_h5_header *out, scio_error *err);
void scio_h5_header_clear(scio_h5_header *header);
/* The first message of a type, or NULL. */
const scio_h5_message *scio_h5_header_find(const scio_h5_header *header, uint16_t type);
/* A cursor over a message; "what" is the text of the structure. */
scio_cursor scio_h5_message_cursor(const scio_h5_message *message, const char *what);

/* Version-2 B-tree: visits every record in order.  `record` has `record_nbytes`, as the tree's type
 * and the file's O and L demand (checked against expected_record_nbytes unless that is 0).  Every
 * check of hdf5_format.md section 4 is made. */
typedef scio_status (*scio_h5_record_fn)(void *context, const uint8_t *record, size_t record_nbytes,
                                         scio_error *err);
SCIO_MUST_CHECK scio_status scio_h5_btree2_walk(const scio_h5_file *file, uint64_t address,
                                                unsigned expected_type,
                                                size_t expected_record_nbytes,
                                                scio_h5_record_fn visit, void *context,
                                                scio_error *err);

#endif
