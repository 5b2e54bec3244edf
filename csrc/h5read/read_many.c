/* Boxes of several datasets, read together.
 *
 * Two loops over the pool.  The first plans: every dataset's chunk table is made, and what is small
 * is read at once.  The second runs the jobs of all the others, those of the largest dataset first,
 * so that no thread is left with a long one at the end. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <stdlib.h>
#include <string.h>

#define SMALL_NBYTES ((uint64_t)64 << 10) /* read by whoever planned it */

typedef struct item {
    scio_h5_request *request;
    uint64_t nbytes; /* of the result; of variable-length values: of their records */
    scio_h5_reading reading;
    size_t n_jobs, i_first_job;
} item;

typedef struct many {
    item *items;
    size_t n_items, n_slots;
    scio_h5_scratch **scratches; /* per slot */
    const volatile int *cancel;
} many;

/* ---- one dataset ---- */

/* The stretch of the result that a job of a dataset of rank 1 filled. */
static void
find_stretch(const scio_h5_reading *reading, size_t i_job, uint64_t *first_out, uint64_t *n_out)
{
    const uint64_t n_items = reading->count[0];
    uint64_t first = 0, end = n_items;

    if (reading->dataset->layout == SCIO_H5_CHUNKED) {
        const uint64_t dim = reading->dataset->unit_dims[0];
        const uint64_t i_unit = reading->first_unit[0] + i_job * reading->units_per_job;

        first = i_job == 0 ? 0 : i_unit * dim - reading->start[0];
        if (i_unit + reading->units_per_job < reading->first_unit[0] + reading->n_units_touched)
            end = (i_unit + reading->units_per_job) * dim - reading->start[0];
    } else if (reading->pieces_per_run > 1) {
        const uint64_t n_here = scio_h5_plain_piece(reading);

        first = i_job * n_here;
        end = n_items - first < n_here ? n_items : first + n_here;
    }
    *first_out = first;
    *n_out = end - first;
}

static scio_status
look_at(const item *it, uint64_t first, uint64_t n_items, scio_error *err)
{
    const scio_h5_request *request = it->request;
    const uint8_t *values = request->out;
    scio_status status;

    if (request->check == NULL || n_items == 0)
        return SCIO_OK;
    status = request->check(request->check_context, values + first * it->reading.dst_itemsize,
                            (size_t)n_items, first, err);
    if (status != SCIO_OK)
        scio_context(err, "%s", request->dataset->path);
    return status;
}

/* The records of variable-length values, then the values, in the calling thread. */
static scio_status
read_vlen(const many *m, const item *it, scio_error *err)
{
    scio_h5_request *request = it->request;
    scio_h5_dataset *dataset = request->dataset;
    const scio_h5_read_options options = {NULL, 0, m->cancel};
    const size_t itemsize = dataset->type->itemsize;
    uint8_t *records = NULL;
    scio_status status;

    SCIO_TRY(scio_mem_alloc((size_t)it->nbytes + 1, 1, &records, err));
    status = scio_h5_dataset_read(dataset, request->start, request->count, SCIO_DTYPE_NONE, records,
                                  (size_t)it->nbytes, &options, err);
    if (status == SCIO_OK) {
        status = scio_h5_vlen_read(dataset->file, dataset->type, records, itemsize,
                                   (size_t)it->nbytes / itemsize, &request->offsets,
                                   &request->payload, err);
        if (status != SCIO_OK)
            scio_context(err, "%s", dataset->path);
    }
    scio_mem_free(records);
    return status;
}

static scio_status
run_item_job(const many *m, const item *it, size_t i_job, size_t slot, scio_error *err)
{
    uint64_t first, n_items;

    if (it->request->is_vlen)
        return read_vlen(m, it, err);
    SCIO_TRY(scio_h5_reading_run(&it->reading, i_job, &m->scratches[slot], err));
    if (it->request->check == NULL)
        return SCIO_OK;
    find_stretch(&it->reading, i_job, &first, &n_items);
    return look_at(it, first, n_items, err);
}

/* ---- the two loops ---- */

static scio_status
plan_reading(const many *m, item *it, scio_error *err)
{
    const scio_h5_request *request = it->request;
    bool has_jobs = false;

    it->reading = (scio_h5_reading){.dataset = request->dataset,
                                    .start = request->start,
                                    .count = request->count,
                                    .out = request->out,
                                    .cancel = m->cancel};
    SCIO_TRY(
        scio_h5_reading_start(&it->reading, request->dtype, request->out_nbytes, &has_jobs, err));
    if (!has_jobs) /* nothing, or one hole */
        return request->check == NULL ? SCIO_OK : look_at(it, 0, request->count[0], err);
    it->n_jobs = scio_h5_reading_jobs(&it->reading, it->nbytes <= SMALL_NBYTES ? 1 : m->n_slots);
    return SCIO_OK;
}

static scio_status
plan_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const many *m = context;
    item *it = &m->items[i_item];

    if (it->request->is_vlen)
        it->n_jobs = 1;
    else
        SCIO_TRY(plan_reading(m, it, err));
    if (it->nbytes > SMALL_NBYTES)
        return SCIO_OK;
    for (size_t i = 0; i < it->n_jobs; i++)
        SCIO_TRY(run_item_job(m, it, i, slot, err));
    it->n_jobs = 0;
    return SCIO_OK;
}

static scio_status
run_job(void *context, size_t i_job, size_t slot, scio_error *err)
{
    const many *m = context;
    size_t low = 0, high = m->n_items; /* the last item whose first job is not behind i_job */

    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;

        if (m->items[middle].i_first_job <= i_job)
            low = middle;
        else
            high = middle;
    }
    return run_item_job(m, &m->items[low], i_job - m->items[low].i_first_job, slot, err);
}

/* ---- all ---- */

/* Largest first; equal ones in the order in which they were asked for. */
static int
compare_items(const void *a, const void *b)
{
    const item *x = a, *y = b;

    if (x->nbytes != y->nbytes)
        return x->nbytes < y->nbytes ? 1 : -1;
    return (x->request > y->request) - (x->request < y->request);
}

static scio_status
measure(item *it, scio_error *err)
{
    const scio_h5_request *request = it->request;
    const scio_h5_space *space = &request->dataset->space;
    uint64_t nbytes = request->dataset->type->itemsize;

    if (!request->is_vlen) {
        it->nbytes = request->out_nbytes;
        return space->rank == 1 || request->check == NULL
                   ? SCIO_OK
                   : scio_fail(err, SCIO_EINVAL, "%s: values of %u dimensions cannot be looked at",
                               request->dataset->path, space->rank);
    }
    for (unsigned k = 0; k < space->rank; k++)
        if (!scio_mul_u64(nbytes, request->count[k], &nbytes))
            return scio_fail(err, SCIO_ENOMEM, "%s: a box of more bytes than an address can tell",
                             request->dataset->path);
    it->nbytes = space->space_class == SCIO_H5_NULL ? 0 : nbytes;
    return nbytes < SIZE_MAX ? SCIO_OK : scio_fail(err, SCIO_ENOMEM, "%s", request->dataset->path);
}

static scio_status
run_all(many *m, const scio_h5_read_options *options, scio_error *err)
{
    size_t n_jobs = 0, n_done = 0;

    SCIO_TRY(
        scio_parallel_for(options->pool, m->n_slots, m->n_items, plan_item, m, m->cancel, err));
    for (size_t i = 0; i < m->n_items; i++) { /* items without jobs leave the list */
        if (m->items[i].n_jobs == 0) {
            scio_h5_reading_end(&m->items[i].reading);
            continue;
        }
        if (n_done != i) {
            m->items[n_done] = m->items[i];
            m->items[i].reading.fill = NULL;
        }
        m->items[n_done].i_first_job = n_jobs;
        n_jobs += m->items[n_done++].n_jobs;
    }
    m->n_items = n_done;
    if (n_jobs == 0)
        return SCIO_OK;
    return scio_parallel_for(options->pool, m->n_slots, n_jobs, run_job, m, m->cancel, err);
}

scio_status
scio_h5_datasets_read(scio_h5_request *requests, size_t n_requests,
                      const scio_h5_read_options *options, scio_error *err)
{
    const scio_h5_read_options defaults = {NULL, SIZE_MAX, NULL};
    many m = {.n_items = n_requests};
    scio_status status;

    if (n_requests == 0)
        return SCIO_OK;
    if (options == NULL)
        options = &defaults;
    m.cancel = options->cancel;
    m.n_slots = scio_parallel_n_slots(options->pool, options->max_parallel, SIZE_MAX);
    SCIO_TRY(scio_mem_zalloc(n_requests, sizeof *m.items, &m.items, err));
    status = scio_mem_zalloc(m.n_slots, sizeof(scio_h5_scratch *), &m.scratches, err);
    for (size_t i = 0; i < n_requests && status == SCIO_OK; i++) {
        m.items[i].request = &requests[i];
        status = measure(&m.items[i], err);
    }
    if (status == SCIO_OK) {
        qsort(m.items, n_requests, sizeof *m.items, compare_items);
        status = run_all(&m, options, err);
    }
    for (size_t i = 0; i < n_requests; i++)
        scio_h5_reading_end(&m.items[i].reading);
    for (size_t i = 0; m.scratches != NULL && i < m.n_slots; i++)
        scio_h5_scratch_free(m.scratches[i]);
    scio_mem_free(m.scratches);
    scio_mem_free(m.items);
    return status;
}
