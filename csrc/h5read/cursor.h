/* A bounded reader over bytes already in memory: the only way metadata fields are taken apart. */
#ifndef SCIO_H5READ_CURSOR_H
#define SCIO_H5READ_CURSOR_H

#include "base/error.h"
#include "h5read/file.h"

#include <stddef.h>
#include <stdint.h>

typedef struct scio_cursor {
    const uint8_t *data; /* borrowed */
    size_t nbytes;
    size_t at;         /* next byte; at <= nbytes always */
    uint64_t position; /* absolute file position of data[0], for messages; 0 when unknown */
    const char *what;  /* structure, for messages: "object header" */
} scio_cursor;

scio_cursor scio_cursor_make(const void *data, size_t nbytes, uint64_t position, const char *what);
size_t scio_cursor_left(const scio_cursor *cursor);

/* Each takes its bytes (little-endian) or gives ECORRUPT: what, position, bytes wanted, bytes left.
 */
SCIO_MUST_CHECK scio_status scio_cursor_u8(scio_cursor *cursor, uint8_t *out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_cursor_u16(scio_cursor *cursor, uint16_t *out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_cursor_u32(scio_cursor *cursor, uint32_t *out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_cursor_u64(scio_cursor *cursor, uint64_t *out, scio_error *err);
/* An unsigned of 1 to 8 bytes. */
SCIO_MUST_CHECK scio_status scio_cursor_uint(scio_cursor *cursor, size_t width, uint64_t *out,
                                             scio_error *err);
/* A field of O bytes; all ones in that width gives SCIO_H5_UNDEFINED. */
SCIO_MUST_CHECK scio_status scio_cursor_address(scio_cursor *cursor, const scio_h5_file *file,
                                                uint64_t *out, scio_error *err);
/* A field of L bytes; all ones gives UINT64_MAX (unlimited). */
SCIO_MUST_CHECK scio_status scio_cursor_length(scio_cursor *cursor, const scio_h5_file *file,
                                               uint64_t *out, scio_error *err);
/* Borrowed pointer to the next nbytes. */
SCIO_MUST_CHECK scio_status scio_cursor_bytes(scio_cursor *cursor, size_t nbytes,
                                              const uint8_t **out, scio_error *err);
SCIO_MUST_CHECK scio_status scio_cursor_skip(scio_cursor *cursor, size_t nbytes, scio_error *err);
/* The next four bytes equal `signature`. */
SCIO_MUST_CHECK scio_status scio_cursor_signature(scio_cursor *cursor, const char *signature,
                                                  scio_error *err);

/* lookup3 "hashlittle" with initial value 0. */
uint32_t scio_h5_lookup3(const void *data, size_t nbytes);
/* The last 4 of nbytes are the lookup3 of those before; ECORRUPT naming `what` and position. */
SCIO_MUST_CHECK scio_status scio_h5_check_sum(const void *data, size_t nbytes, uint64_t position,
                                              const char *what, scio_error *err);

#endif
