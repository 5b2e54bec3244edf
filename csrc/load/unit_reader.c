/* Units for random rows: those in the cache are visited at once, runs of others are decoded. */
#include "base/mem.h"
#include "load/matrix_private.h"

#include <string.h>

typedef struct decode_context {
    const scio_unit_reader *reader;
    const volatile int *cancel;
} decode_context;

static void
keep_unit(const scio_unit_reader *reader, uint64_t i_unit, const void *data, size_t nbytes)
{
    scio_unit_cache *const cache = scio_matrix_private(reader->matrix)->cache;
    scio_buf *buf = NULL;

    if (nbytes > scio_unit_cache_cap(cache) || scio_buf_new(nbytes, &buf, NULL) != SCIO_OK)
        return; /* not remembered, that is all */
    memcpy(scio_buf_data(buf), data, nbytes);
    scio_unit_cache_put(cache, reader->which, i_unit, buf);
    scio_buf_release(buf);
}

static scio_status
visit_decoded(void *context, uint64_t i_unit, const void *data, size_t nbytes,
              size_t shuffle_itemsize, scio_error *err)
{
    const decode_context *const decode = context;
    const scio_unit_reader *const reader = decode->reader;

    if (decode->cancel != NULL && *decode->cancel != 0)
        return scio_fail(err, SCIO_ECANCEL, "cancelled");
    if (reader->is_cached)
        keep_unit(reader, i_unit, data, nbytes);
    return reader->visit(reader->context, i_unit, data, nbytes, shuffle_itemsize, err);
}

scio_status
scio_unit_reader_run(const scio_unit_reader *reader, uint64_t i_first, uint64_t n_units,
                     scio_h5_scratch **scratch, const volatile int *cancel, scio_error *err)
{
    scio_unit_cache *const cache = scio_matrix_private(reader->matrix)->cache;
    decode_context context = {reader, cancel};
    uint64_t i_unit = i_first, i_missing = i_first; /* [i_missing, i_unit) are not in the cache */
    const uint64_t i_end = i_first + n_units;

    if (*scratch == NULL)
        SCIO_TRY(scio_h5_scratch_new(scratch, err));
    for (;; i_unit++) {
        scio_buf *const buf = i_unit < i_end && reader->is_cached
                                  ? scio_unit_cache_get(cache, reader->which, i_unit)
                                  : NULL;
        if (buf == NULL && i_unit < i_end)
            continue;
        scio_status status = SCIO_OK;
        if (i_missing < i_unit)
            status = scio_h5_dataset_decode(reader->dataset, i_missing, i_unit - i_missing, false,
                                            *scratch, visit_decoded, &context, err);
        if (status == SCIO_OK && buf != NULL)
            status = reader->visit(reader->context, i_unit, scio_buf_data(buf),
                                   scio_buf_nbytes(buf), 1, err);
        scio_buf_release(buf);
        if (status != SCIO_OK || i_unit >= i_end)
            return status;
        i_missing = i_unit + 1;
    }
}

scio_status
scio_scratches_new(size_t n_slots, scio_h5_scratch ***out, scio_error *err)
{
    return scio_mem_zalloc(n_slots, sizeof(scio_h5_scratch *), out, err);
}

void
scio_scratches_free(scio_h5_scratch **scratches, size_t n_slots)
{
    if (scratches == NULL)
        return;
    for (size_t i = 0; i < n_slots; i++)
        scio_h5_scratch_free(scratches[i]);
    scio_mem_free(scratches);
}
