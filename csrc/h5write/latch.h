/* A driver under libhdf5 that writes with pwrite, keeps the first errno, and always says success.
 *
 * Shared by the files of h5write/ only. */
#ifndef SCIO_H5WRITE_LATCH_H
#define SCIO_H5WRITE_LATCH_H

#include <hdf5.h>

/* The check behind this macro aborts the process when the library is of another release than the
 * header; writer.c compares the versions and fails as everything else does. */
#undef H5CHECK
#define H5CHECK

typedef struct scio_latch {
    int fd;
    int saved_errno; /* of the first call that failed; from then on nothing is read or written */
} scio_latch;

/* Registers the driver and sets it in a file access property list; *driver_out must be given back
 * to H5FDunregister when the file is closed.  Negative on failure. */
herr_t scio_latch_use(hid_t fapl, scio_latch *latch, hid_t *driver_out);

#endif
