/* A whole HDF5 file: the input is its bytes.  Every object is described and every small dataset
 * read; see tests/c/h5_walk.h for what may not happen.
 *
 * Checksums do not count in a fuzzing build (csrc/h5read/lookup3.c), else hardly any mutation would
 * get past them. */
#include "../c/h5_walk.h"

enum { MAX_DATA_NBYTES = 1 << 18 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static h5_walk walks[2];
    scio_error err = SCIO_ERROR_INIT;
    scio_status status[2];

    status[0] = walk_image(data, nbytes, MAX_DATA_NBYTES, &walks[0], &err);
    if (status[0] != SCIO_OK && (err.message[0] == '\0' || status[0] == SCIO_EBUG))
        abort();
    if (nbytes % 8 != 0) /* the second walk costs as much as the first: some inputs are enough */
        return 0;
    status[1] = walk_image(data, nbytes, MAX_DATA_NBYTES, &walks[1], NULL);
    if (status[0] != status[1] || walks[0].digest != walks[1].digest)
        abort();
    return 0;
}
