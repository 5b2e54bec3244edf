/* Boxes of contiguous and compact datasets.
 *
 * A box is a number of runs that are contiguous in the file and in the result.  Long runs are cut
 * into pieces, one job each; short ones are put together, several to a job and to a read. */
#include "h5read/dataset_internal.h"

#include <string.h>

#define PIECE_NBYTES ((uint64_t)4 << 20)
#define JOB_NBYTES ((uint64_t)1 << 20)
#define RUN_COST_NBYTES 4096 /* of placing a run, in bytes copied meanwhile */
/* Runs with smaller gaps are read together, up to a span that stays in the cache. */
#define GAP_NBYTES ((uint64_t)8 << 10)
#define SPAN_NBYTES ((uint64_t)512 << 10)
#define CAST_NBYTES ((uint64_t)256 << 10) /* what is cast at a time of a long run */

static uint64_t
run_nbytes(const scio_h5_reading *reading)
{
    return reading->box.run_items * reading->src_itemsize;
}

uint64_t
scio_h5_plain_piece(const scio_h5_reading *reading)
{
    return reading->src_itemsize < PIECE_NBYTES ? PIECE_NBYTES / reading->src_itemsize : 1;
}

size_t
scio_h5_plain_jobs(scio_h5_reading *reading)
{
    const scio_h5_space *space = &reading->dataset->space;
    uint64_t nbytes;

    scio_h5_box_init(space->rank, reading->count, space->dims, reading->start, reading->count, NULL,
                     &reading->box);
    nbytes = run_nbytes(reading);
    reading->pieces_per_run = (reading->box.run_items - 1) / scio_h5_plain_piece(reading) + 1;
    reading->runs_per_job = nbytes < JOB_NBYTES ? JOB_NBYTES / (nbytes + RUN_COST_NBYTES) + 1 : 1;
    if (reading->pieces_per_run > 1)
        return (size_t)(reading->box.n_runs * reading->pieces_per_run);
    return (size_t)((reading->box.n_runs - 1) / reading->runs_per_job + 1);
}

/* n_items contiguous items: straight into the result, or through the scratch when they are cast. */
static scio_status
read_items(const scio_h5_reading *reading, uint64_t src_at, uint64_t dst_at, uint64_t n_items,
           scio_h5_scratch *scratch, scio_error *err)
{
    const scio_h5_dataset *dataset = reading->dataset;
    const size_t itemsize = reading->src_itemsize;
    uint8_t *to = reading->out + dst_at * reading->dst_itemsize;
    const uint64_t step = itemsize < CAST_NBYTES ? CAST_NBYTES / itemsize : 1;

    if (reading->mode != SCIO_H5_MODE_CAST) {
        SCIO_TRY(
            scio_h5_plain_read(dataset, src_at * itemsize, (size_t)n_items * itemsize, to, err));
        return scio_h5_convert(reading, to, to, (size_t)n_items, err);
    }
    SCIO_TRY(scio_h5_memory_ensure(&scratch->stored, step * itemsize, err));
    for (uint64_t i = 0; i < n_items; i += step) {
        const size_t n_here = (size_t)(n_items - i < step ? n_items - i : step);

        SCIO_TRY(scio_h5_plain_read(dataset, (src_at + i) * itemsize, n_here * itemsize,
                                    scratch->stored.data, err));
        SCIO_TRY(scio_h5_convert(reading, scratch->stored.data, to + i * reading->dst_itemsize,
                                 n_here, err));
    }
    return SCIO_OK;
}

/* End of the runs that one read can fetch together with run i_first. */
static uint64_t
find_span(const scio_h5_reading *reading, uint64_t i_first, uint64_t i_end, uint64_t *end_out)
{
    const uint64_t nbytes = run_nbytes(reading);
    uint64_t src_at, dst_at, start, end, i = i_first + 1;

    scio_h5_box_run(&reading->box, i_first, &src_at, &dst_at);
    start = src_at * reading->src_itemsize;
    end = start + nbytes;
    for (; i < i_end; i++) {
        uint64_t next;

        scio_h5_box_run(&reading->box, i, &src_at, &dst_at);
        next = src_at * reading->src_itemsize;
        if (next - end > GAP_NBYTES || next - start + nbytes > SPAN_NBYTES)
            break;
        end = next + nbytes;
    }
    *end_out = end;
    return i;
}

static scio_status
read_runs(const scio_h5_reading *reading, uint64_t i_first, uint64_t i_end,
          scio_h5_scratch *scratch, scio_error *err)
{
    const size_t itemsize = reading->src_itemsize;
    uint64_t src_first, src_at, dst_at, end, i_next;

    for (uint64_t i = i_first; i < i_end; i = i_next) {
        i_next = find_span(reading, i, i_end, &end);
        scio_h5_box_run(&reading->box, i, &src_first, &dst_at);
        if (i_next == i + 1) {
            SCIO_TRY(read_items(reading, src_first, dst_at, reading->box.run_items, scratch, err));
            continue;
        }
        SCIO_TRY(scio_h5_memory_ensure(&scratch->stored, SPAN_NBYTES, err));
        SCIO_TRY(scio_h5_plain_read(reading->dataset, src_first * itemsize,
                                    (size_t)(end - src_first * itemsize), scratch->stored.data,
                                    err));
        for (uint64_t j = i; j < i_next; j++) {
            scio_h5_box_run(&reading->box, j, &src_at, &dst_at);
            SCIO_TRY(scio_h5_convert(reading,
                                     scratch->stored.data + (src_at - src_first) * itemsize,
                                     reading->out + dst_at * reading->dst_itemsize,
                                     (size_t)reading->box.run_items, err));
        }
    }
    return SCIO_OK;
}

static scio_status
run_job(const scio_h5_reading *reading, size_t i_job, scio_h5_scratch *scratch, scio_error *err)
{
    const uint64_t run_items = reading->box.run_items, n_items = scio_h5_plain_piece(reading);
    uint64_t i_first, i_end, at, src_at, dst_at;

    if (reading->pieces_per_run == 1) {
        i_first = i_job * reading->runs_per_job;
        i_end = i_first + reading->runs_per_job;
        return read_runs(reading, i_first,
                         i_end < reading->box.n_runs ? i_end : reading->box.n_runs, scratch, err);
    }
    scio_h5_box_run(&reading->box, i_job / reading->pieces_per_run, &src_at, &dst_at);
    at = i_job % reading->pieces_per_run * n_items;
    return read_items(reading, src_at + at, dst_at + at,
                      run_items - at < n_items ? run_items - at : n_items, scratch, err);
}

scio_status
scio_h5_plain_run(const scio_h5_reading *reading, size_t i_job, scio_h5_scratch *scratch,
                  scio_error *err)
{
    const scio_status status = run_job(reading, i_job, scratch, err);

    if (status != SCIO_OK)
        scio_context(err, "%s", reading->dataset->path);
    return status;
}
