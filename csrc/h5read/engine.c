/* Which of the two deflate decoders reads a dataset: ISA-L wins on data of literals (indices),
 * libdeflate on data of matches (counts), by up to a third either way.  The bytes are the same.
 *
 * The first chunks of a dataset that is long enough are inflated by both, in processor time of the
 * thread, and the faster one is kept.  Two threads that try at once do the work twice, no more. */
#include "h5read/dataset_internal.h"

#include <time.h>

#define MIN_UNITS 256 /* the trial costs as much as decoding TRIAL_UNITS * N_ROUNDS * 2 of them */
#define TRIAL_UNITS 3
#define N_ROUNDS 2
#define MAX_UNIT_NBYTES ((uint64_t)1 << 20)

typedef scio_status (*inflate_fn)(scio_decoder *, const void *, size_t, void *, size_t, size_t *,
                                  scio_error *);

static double
thread_seconds(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A deflate that a writer applied last: its stream is what is stored. */
static bool
is_deflate_outermost(const scio_h5_dataset *dataset, const scio_h5_unit *unit)
{
    const scio_pipeline *p = &dataset->pipeline;

    return unit->position != SCIO_H5_UNDEFINED && !unit->is_raw && unit->filter_mask == 0 &&
           p->n_filters != 0 && p->filters[p->n_filters - 1].id == SCIO_FILTER_DEFLATE;
}

typedef struct trial {
    const scio_h5_dataset *dataset;
    scio_h5_scratch *scratch;
    double seconds[2]; /* libdeflate, ISA-L */
} trial;

static scio_status
try_unit(void *context, const scio_h5_entry *entry, const uint8_t *stored, scio_error *err)
{
    static const inflate_fn inflate[2] = {scio_deflate_decode, scio_deflate_decode_isal};
    trial *t = context;
    const size_t nbytes = (size_t)t->dataset->unit_nbytes;
    size_t n_made = 0;

    SCIO_TRY(scio_h5_memory_ensure(&t->scratch->unit, nbytes, err));
    for (int round = 0; round < N_ROUNDS; round++)
        for (int k = 0; k < 2; k++) {
            const double start = thread_seconds();

            SCIO_TRY(inflate[k](t->scratch->decoder, stored, (size_t)entry->unit.nbytes,
                                t->scratch->unit.data, nbytes, &n_made, err));
            if (round != 0) /* the first only warms the caches */
                t->seconds[k] += thread_seconds() - start;
        }
    return SCIO_OK;
}

static scio_deflate_engine
choose(const scio_h5_dataset *dataset, scio_h5_scratch *scratch)
{
    trial t = {dataset, scratch, {0, 0}};
    scio_h5_entry entries[TRIAL_UNITS];

    for (size_t i = 0; i < TRIAL_UNITS; i++) { /* at quarter, half and three quarters */
        entries[i].i_unit = dataset->n_units / (TRIAL_UNITS + 1) * (i + 1);
        entries[i].unit = scio_h5_unit_find(dataset, entries[i].i_unit);
        if (!is_deflate_outermost(dataset, &entries[i].unit))
            return SCIO_DEFLATE_LIBDEFLATE;
    }
    /* A broken chunk is found, and named, when it is read. */
    if (scio_h5_fetch(dataset, entries, TRIAL_UNITS, scratch, try_unit, &t, NULL) != SCIO_OK)
        return SCIO_DEFLATE_LIBDEFLATE;
    return t.seconds[1] < t.seconds[0] ? SCIO_DEFLATE_ISAL : SCIO_DEFLATE_LIBDEFLATE;
}

void
scio_h5_engine_set(const scio_h5_dataset *dataset, scio_h5_scratch *scratch)
{
    scio_h5_state *state = scio_h5_dataset_state(dataset);
    int engine = atomic_load_explicit(&state->engine, memory_order_relaxed);

    if (engine < 0) {
        engine = SCIO_DEFLATE_LIBDEFLATE;
        if (dataset->layout == SCIO_H5_CHUNKED && dataset->n_units >= MIN_UNITS &&
            dataset->unit_nbytes <= MAX_UNIT_NBYTES &&
            scio_decoder_set_deflate_engine(scratch->decoder, SCIO_DEFLATE_ISAL))
            engine = (int)choose(dataset, scratch);
        atomic_store_explicit(&state->engine, engine, memory_order_relaxed);
    }
    (void)scio_decoder_set_deflate_engine(scratch->decoder, (scio_deflate_engine)engine);
}
