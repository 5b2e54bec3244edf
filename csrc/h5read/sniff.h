/* What a file that is no HDF5 file looks like, in words for a message. */
#ifndef SCIO_H5READ_SNIFF_H
#define SCIO_H5READ_SNIFF_H

#include <stddef.h>
#include <stdint.h>

#define SCIO_SNIFF_NBYTES 512 /* so many bytes of the start are enough */

/* "a gzip-compressed file (gunzip it first)"; "binary data" when nothing is recognised. */
const char *scio_sniff(const uint8_t *start, size_t nbytes);

#endif
