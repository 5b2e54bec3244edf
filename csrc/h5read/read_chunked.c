/* Boxes of chunked datasets.
 *
 * The touched chunks are cut into jobs of about JOB_NBYTES.  A chunk that is a contiguous piece of
 * the result, needs no cast and is read whole is decoded straight into it; others are decoded into
 * the slot's scratch, and the part that was asked for is copied or cast from there. */
#include "base/stats.h"
#include "h5read/dataset_internal.h"

#include <string.h>

#define MAX_JOB_NBYTES ((uint64_t)2 << 20)
#define MIN_JOB_NBYTES ((uint64_t)128 << 10)
#define JOBS_PER_SLOT 8
#define UNIT_COST_NBYTES 4096    /* of looking up and reading a chunk, in bytes decoded meanwhile */
#define DIRECT_NBYTES (64 << 10) /* unfiltered chunks from here on are read by a call each */
#define MIN_CONVERT_RUN_ITEMS 64

typedef struct placing {
    const scio_h5_reading *reading;
    scio_h5_scratch *scratch;
} placing;

size_t
scio_h5_chunked_jobs(scio_h5_reading *reading, size_t n_slots_wanted)
{
    const scio_h5_dataset *dataset = reading->dataset;
    const uint64_t unit_cost = dataset->unit_nbytes + UNIT_COST_NBYTES;
    uint64_t job_nbytes;

    reading->n_units_touched = 1;
    for (unsigned k = 0; k < dataset->space.rank; k++) {
        const uint64_t dim = dataset->unit_dims[k];
        const uint64_t first = reading->start[k] / dim;
        const uint64_t last = (reading->start[k] + reading->count[k] - 1) / dim;

        reading->first_unit[k] = first;
        reading->n_touched[k] = last - first + 1;
        reading->n_units_touched *= last - first + 1; /* at most the items of the box */
    }
    /* A product that overflows only makes for shorter jobs. */
    job_nbytes = reading->n_units_touched * unit_cost / (n_slots_wanted * JOBS_PER_SLOT + 1);
    if (job_nbytes > MAX_JOB_NBYTES)
        job_nbytes = MAX_JOB_NBYTES;
    if (job_nbytes < MIN_JOB_NBYTES)
        job_nbytes = MIN_JOB_NBYTES;
    reading->units_per_job = unit_cost < job_nbytes ? job_nbytes / unit_cost : 1;
    return (size_t)((reading->n_units_touched - 1) / reading->units_per_job + 1);
}

/* The part of a unit that belongs to the result. */
typedef struct part {
    uint64_t count[SCIO_H5_MAX_RANK];
    uint64_t src_start[SCIO_H5_MAX_RANK]; /* in the unit */
    uint64_t dst_start[SCIO_H5_MAX_RANK]; /* in the result */
    scio_h5_box box;
} part;

static void
find_part(const scio_h5_reading *reading, uint64_t i_unit, part *out)
{
    const scio_h5_dataset *dataset = reading->dataset;
    uint64_t coordinates[SCIO_H5_MAX_RANK];

    scio_h5_unit_coordinates(dataset, i_unit, coordinates);
    for (unsigned k = 0; k < dataset->space.rank; k++) {
        const uint64_t dim = dataset->unit_dims[k];
        const uint64_t unit_start = coordinates[k] * dim;
        const uint64_t start = reading->start[k];
        const uint64_t low = unit_start > start ? unit_start : start;
        const uint64_t left = start + reading->count[k] - low; /* to the end of the box */
        const uint64_t room = dim - (low - unit_start);        /* to the end of the unit */

        out->src_start[k] = low - unit_start;
        out->dst_start[k] = low - start;
        out->count[k] = left < room ? left : room;
    }
    scio_h5_box_init(dataset->space.rank, out->count, dataset->unit_dims, out->src_start,
                     reading->count, out->dst_start, &out->box);
}

static bool
is_direct(const scio_h5_reading *reading, const part *where)
{
    return reading->mode != SCIO_H5_MODE_CAST && where->box.n_runs == 1 &&
           where->box.run_items == reading->dataset->unit_nbytes / reading->src_itemsize;
}

/* Values outside the range of the result's type are looked for where the result wants them only:
 * what lies beyond the edge of the dataset is anything. */
static scio_status
convert_runs(const scio_h5_reading *reading, const scio_h5_box *box, const uint8_t *src,
             scio_error *err)
{
    for (uint64_t i = 0; i < box->n_runs; i++) {
        uint64_t src_at, dst_at;

        scio_h5_box_run(box, i, &src_at, &dst_at);
        SCIO_TRY(scio_h5_convert(reading, src + src_at * reading->src_itemsize,
                                 reading->out + dst_at * reading->dst_itemsize,
                                 (size_t)box->run_items, err));
    }
    return SCIO_OK;
}

/* Many short runs: gathered, converted at once, spread. */
static scio_status
convert_packed(const placing *p, const part *where, const uint8_t *src, scio_error *err)
{
    const scio_h5_reading *reading = p->reading;
    const scio_h5_dataset *dataset = reading->dataset;
    const unsigned rank = dataset->space.rank;
    const uint64_t n_items = where->box.run_items * where->box.n_runs;
    scio_h5_memory *packed = &p->scratch->packed, *cast = &p->scratch->cast;
    scio_h5_box box;

    SCIO_TRY(scio_h5_memory_ensure(packed, n_items * reading->src_itemsize, err));
    SCIO_TRY(scio_h5_memory_ensure(cast, n_items * reading->dst_itemsize, err));
    scio_h5_box_init(rank, where->count, dataset->unit_dims, where->src_start, where->count, NULL,
                     &box);
    scio_h5_box_copy(&box, reading->src_itemsize, src, packed->data);
    SCIO_TRY(scio_h5_convert(reading, packed->data, cast->data, (size_t)n_items, err));
    scio_h5_box_init(rank, where->count, where->count, NULL, reading->count, where->dst_start,
                     &box);
    scio_h5_box_copy(&box, reading->dst_itemsize, cast->data, reading->out);
    return SCIO_OK;
}

static scio_status
place(const placing *p, const part *where, const uint8_t *src, scio_error *err)
{
    const scio_h5_reading *reading = p->reading;

    if (reading->mode == SCIO_H5_MODE_COPY) {
        scio_h5_box_copy(&where->box, reading->src_itemsize, src, reading->out);
        return SCIO_OK;
    }
    if (where->box.run_items >= MIN_CONVERT_RUN_ITEMS || where->box.n_runs == 1)
        return convert_runs(reading, &where->box, src, err);
    return convert_packed(p, where, src, err);
}

static scio_status
place_hole(const scio_h5_reading *reading, const part *where, scio_error *err)
{
    if (reading->fill_status != SCIO_OK) {
        scio_error_move(err, &reading->fill_err);
        return reading->fill_status;
    }
    scio_h5_box_fill(&where->box, reading->dst_itemsize, reading->fill, reading->out);
    return SCIO_OK;
}

static scio_status
place_stored(const placing *p, const scio_h5_unit *unit, const part *where, const uint8_t *stored,
             scio_error *err)
{
    const scio_h5_reading *reading = p->reading;
    const scio_h5_dataset *dataset = reading->dataset;
    const size_t n_items = (size_t)where->box.run_items;
    scio_h5_memory *decoded = &p->scratch->unit;

    if (is_direct(reading, where)) {
        uint8_t *to = reading->out + where->box.dst_first * reading->dst_itemsize;

        SCIO_TRY(scio_h5_unit_decode(dataset, unit, stored, p->scratch->decoder, to, NULL, err));
        if (reading->mode == SCIO_H5_MODE_SWAP)
            scio_byteswap(to, reading->dst_itemsize, n_items);
        return SCIO_OK;
    }
    if (unit->is_raw) {
        scio_stats_add(SCIO_STAT_chunks_decoded, 1);
        return place(p, where, stored, err);
    }
    SCIO_TRY(scio_h5_memory_ensure(decoded, dataset->unit_nbytes, err));
    SCIO_TRY(
        scio_h5_unit_decode(dataset, unit, stored, p->scratch->decoder, decoded->data, NULL, err));
    return place(p, where, decoded->data, err);
}

static scio_status
place_unit(void *context, const scio_h5_entry *entry, const uint8_t *stored, scio_error *err)
{
    const placing *p = context;
    const scio_h5_reading *reading = p->reading;
    scio_status status;
    part where;

    if (reading->cancel != NULL && *reading->cancel)
        return scio_fail(err, SCIO_ECANCEL, "%s: cancelled", reading->dataset->path);
    find_part(reading, entry->i_unit, &where);
    status = stored == NULL ? place_hole(reading, &where, err)
                            : place_stored(p, &entry->unit, &where, stored, err);
    if (status != SCIO_OK)
        scio_h5_unit_context(reading->dataset, entry->i_unit, &entry->unit, err);
    return status;
}

/* A long unfiltered chunk that is a contiguous piece of the result is read into it, past the
 * scratch; `*is_done_out` says whether that was so. */
static scio_status
read_direct(const placing *p, const scio_h5_entry *entry, bool *is_done_out, scio_error *err)
{
    const scio_h5_reading *reading = p->reading;
    const scio_h5_dataset *dataset = reading->dataset;
    scio_status status;
    uint8_t *to;
    part where;

    *is_done_out = false;
    if (!entry->unit.is_raw || entry->unit.nbytes < DIRECT_NBYTES ||
        entry->unit.nbytes != dataset->unit_nbytes)
        return SCIO_OK;
    find_part(reading, entry->i_unit, &where);
    if (!is_direct(reading, &where))
        return SCIO_OK;
    to = reading->out + where.box.dst_first * reading->dst_itemsize;
    status = scio_source_read(scio_h5_file_source(dataset->file), entry->unit.position,
                              (size_t)entry->unit.nbytes, to, err);
    if (status != SCIO_OK) {
        scio_h5_unit_context(dataset, entry->i_unit, &entry->unit, err);
        return status;
    }
    if (reading->mode == SCIO_H5_MODE_SWAP)
        scio_byteswap(to, reading->dst_itemsize, (size_t)where.box.run_items);
    scio_stats_add(SCIO_STAT_chunks_decoded, 1);
    *is_done_out = true;
    return SCIO_OK;
}

/* Number in the dataset's grid of the i-th touched unit. */
static uint64_t
touched_unit(const scio_h5_reading *reading, uint64_t i_touched)
{
    uint64_t i_unit = 0, stride = 1;

    for (unsigned k = reading->dataset->space.rank; k-- > 0;) {
        i_unit += (reading->first_unit[k] + i_touched % reading->n_touched[k]) * stride;
        i_touched /= reading->n_touched[k];
        stride *= reading->dataset->grid[k];
    }
    return i_unit;
}

scio_status
scio_h5_chunked_run(const scio_h5_reading *reading, size_t i_job, scio_h5_scratch *scratch,
                    scio_error *err)
{
    placing p = {reading, scratch};
    uint64_t i = i_job * reading->units_per_job, i_end = i + reading->units_per_job;

    if (i_end > reading->n_units_touched)
        i_end = reading->n_units_touched;
    scio_h5_engine_set(reading->dataset, scratch);
    while (i < i_end) {
        size_t n_entries = 0;

        for (; i < i_end && n_entries < SCIO_H5_N_ENTRIES; i++) {
            scio_h5_entry *entry = &scratch->entries[n_entries];
            bool is_done = false;

            entry->i_unit = touched_unit(reading, i);
            entry->unit = scio_h5_unit_find(reading->dataset, entry->i_unit);
            SCIO_TRY(read_direct(&p, entry, &is_done, err));
            n_entries += !is_done;
        }
        SCIO_TRY(scio_h5_fetch(reading->dataset, scratch->entries, n_entries, scratch, place_unit,
                               &p, err));
    }
    return SCIO_OK;
}
