/* The state that one decoding thread keeps between chunks. */
#include "codec/decoder.h"

#include "base/mem.h"

#include <libdeflate.h>

/* libdeflate keeps its tables inside the object and does not tell their size; 12 KiB is what
 * version 1.14 asks malloc for on x86-64, rounded up.  Used for budgets only. */
#define DEFLATE_STATE_NBYTES (12 * 1024)

scio_status
scio_decoder_new(scio_decoder **out, scio_error *err)
{
    scio_decoder *decoder = NULL;

    SCIO_TRY(scio_mem_zalloc(1, sizeof *decoder, &decoder, err));
    decoder->deflate = libdeflate_alloc_decompressor();
    if (decoder->deflate == NULL) {
        scio_decoder_free(decoder);
        return scio_fail(err, SCIO_ENOMEM, "no memory for a libdeflate decompressor");
    }
    *out = decoder;
    return SCIO_OK;
}

void
scio_decoder_free(scio_decoder *decoder)
{
    if (decoder == NULL)
        return;
    libdeflate_free_decompressor(decoder->deflate);
    scio_isal_free(decoder->isal);
    scio_zstd_free(decoder->zstd);
    for (size_t i = 0; i < SCIO_N_SCRATCH; i++)
        scio_mem_free(decoder->scratch[i].data);
    scio_mem_free(decoder);
}

size_t
scio_decoder_nbytes(const scio_decoder *decoder)
{
    size_t nbytes = sizeof *decoder + DEFLATE_STATE_NBYTES + scio_isal_nbytes(decoder->isal) +
                    scio_zstd_nbytes(decoder->zstd);

    for (size_t i = 0; i < SCIO_N_SCRATCH; i++)
        nbytes += decoder->scratch[i].capacity;
    return nbytes;
}

scio_status
scio_decoder_scratch(scio_decoder *decoder, scio_scratch_slot slot, size_t nbytes, uint8_t **out,
                     scio_error *err)
{
    scio_scratch *scratch = &decoder->scratch[slot];

    if (scratch->data == NULL || scratch->capacity < nbytes) {
        /* Freed first: nothing in it is wanted any more, and chunks may be large. */
        scio_mem_free(scratch->data);
        scratch->data = NULL;
        scratch->capacity = 0;
        SCIO_TRY(scio_mem_alloc(nbytes, 1, &scratch->data, err));
        scratch->capacity = nbytes;
    }
    *out = scratch->data;
    return SCIO_OK;
}

bool
scio_decoder_set_deflate_engine(scio_decoder *decoder, scio_deflate_engine engine)
{
#ifdef SCIO_HAVE_ISAL
    const bool is_built = true;
#else
    const bool is_built = engine == SCIO_DEFLATE_LIBDEFLATE;
#endif
    if (is_built)
        decoder->engine = engine;
    return is_built;
}
