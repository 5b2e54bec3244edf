/* Reading a box of elements: what is asked for is checked, cut into jobs and run in the pool. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#include <string.h>

/* ---- checks ---- */

static scio_status
check_box(const scio_h5_dataset *dataset, const uint64_t *start, const uint64_t *count,
          uint64_t *n_items_out, scio_error *err)
{
    const scio_h5_space *space = &dataset->space;
    uint64_t n_items = space->space_class == SCIO_H5_NULL ? 0 : 1;

    for (unsigned k = 0; k < space->rank; k++) {
        if (start[k] > space->dims[k] || count[k] > space->dims[k] - start[k])
            return scio_fail(err, SCIO_ERANGE, "%llu items from %llu on of axis %u, which has %llu",
                             (unsigned long long)count[k], (unsigned long long)start[k], k,
                             (unsigned long long)space->dims[k]);
        n_items *= count[k]; /* at most the dataset's elements, or 0 in the end */
    }
    *n_items_out = n_items;
    return SCIO_OK;
}

static scio_status
check_types(scio_h5_reading *reading, scio_dtype dtype, scio_error *err)
{
    const scio_h5_type *type = reading->dataset->type;

    if (type->unsupported[0] != '\0')
        return scio_fail(err, SCIO_EUNSUPPORTED, "values of type \"%s\" are not read",
                         type->unsupported);
    reading->src_itemsize = reading->dst_itemsize = type->itemsize;
    reading->mode = SCIO_H5_MODE_COPY;
    if (dtype == SCIO_DTYPE_NONE)
        return SCIO_OK;
    if (dtype < SCIO_DTYPE_NONE || dtype >= SCIO_N_DTYPES)
        return scio_fail(err, SCIO_EINVAL, "dtype %d does not exist", (int)dtype);
    if (type->dtype == SCIO_DTYPE_NONE)
        return scio_fail(err, SCIO_ETYPE, "the elements are no numbers: they have no %s value",
                         scio_dtype_name(dtype));
    SCIO_BUG_IF(type->itemsize != scio_dtype_itemsize(type->dtype), err);
    reading->src_dtype = type->dtype;
    reading->dst_dtype = dtype;
    reading->dst_itemsize = scio_dtype_itemsize(dtype);
    if (dtype == SCIO_BOOL && type->dtype == SCIO_BOOL) {
        reading->src_dtype = SCIO_U8; /* bytes other than 0 and 1 are no bool: non-zero is true */
        reading->mode = SCIO_H5_MODE_CAST;
    } else if (dtype != type->dtype) {
        reading->mode = SCIO_H5_MODE_CAST;
    } else if (type->is_big_endian && type->itemsize > 1) {
        reading->mode = SCIO_H5_MODE_SWAP;
    }
    return SCIO_OK;
}

static scio_status
check_nbytes(const scio_h5_reading *reading, uint64_t n_items, size_t out_nbytes, scio_error *err)
{
    const uint64_t limit = scio_h5_file_limits(reading->dataset->file)->element_nbytes;
    uint64_t nbytes = 0;

    if (!scio_mul_u64(n_items, reading->dst_itemsize, &nbytes) || nbytes > limit)
        return scio_fail(
            err, SCIO_EUNSAFE, "%llu items of %zu bytes, the limit element_nbytes is %llu",
            (unsigned long long)n_items, reading->dst_itemsize, (unsigned long long)limit);
    if (nbytes != out_nbytes)
        return scio_fail(err, SCIO_EINVAL, "the result has %zu bytes, expected %llu", out_nbytes,
                         (unsigned long long)nbytes);
    return SCIO_OK;
}

scio_status
scio_h5_convert(const scio_h5_reading *reading, const void *src, void *dst, size_t n_items,
                scio_error *err)
{
    if (reading->mode == SCIO_H5_MODE_CAST)
        return reading->dataset->type->is_big_endian
                   ? scio_cast_swapped(reading->src_dtype, src, reading->dst_dtype, dst, n_items,
                                       err)
                   : scio_cast(reading->src_dtype, src, reading->dst_dtype, dst, n_items, err);
    if (src != dst)
        memcpy(dst, src, n_items * reading->src_itemsize);
    if (reading->mode == SCIO_H5_MODE_SWAP)
        scio_byteswap(dst, reading->src_itemsize, n_items);
    return SCIO_OK;
}

/* The fill value as an item of the result.  One that does not fit matters only where it is met. */
static scio_status
convert_fill(scio_h5_reading *reading, scio_error *err)
{
    const uint8_t *fill = reading->dataset->fill;

    if (fill == NULL)
        return SCIO_OK;
    SCIO_TRY(scio_mem_alloc(reading->dst_itemsize, 1, &reading->fill, err));
    reading->fill_status = scio_h5_convert(reading, fill, reading->fill, 1, &reading->fill_err);
    if (reading->fill_status != SCIO_OK)
        scio_context(&reading->fill_err, "fill value");
    return SCIO_OK;
}

/* ---- jobs ---- */

scio_status
scio_h5_reading_run(const scio_h5_reading *reading, size_t i_job, scio_h5_scratch **scratch,
                    scio_error *err)
{
    if (*scratch == NULL)
        SCIO_TRY(scio_h5_scratch_new(scratch, err));
    return reading->dataset->layout == SCIO_H5_CHUNKED
               ? scio_h5_chunked_run(reading, i_job, *scratch, err)
               : scio_h5_plain_run(reading, i_job, *scratch, err);
}

static scio_status
run_job(void *context, size_t i_job, size_t slot, scio_error *err)
{
    const scio_h5_reading *reading = context;

    return scio_h5_reading_run(reading, i_job, &reading->scratches[slot], err);
}

static scio_status
run_here(scio_h5_reading *reading, size_t n_jobs, scio_error *err)
{
    for (size_t i = 0; i < n_jobs; i++) {
        if (reading->cancel != NULL && *reading->cancel)
            return scio_fail(err, SCIO_ECANCEL, "%s: cancelled", reading->dataset->path);
        SCIO_TRY(run_job(reading, i, 0, err));
    }
    return SCIO_OK;
}

size_t
scio_h5_reading_jobs(scio_h5_reading *reading, size_t n_slots_wanted)
{
    return reading->dataset->layout == SCIO_H5_CHUNKED
               ? scio_h5_chunked_jobs(reading, n_slots_wanted)
               : scio_h5_plain_jobs(reading);
}

static scio_status
run_jobs(scio_h5_reading *reading, const scio_h5_read_options *options, scio_error *err)
{
    scio_pool *pool = options->pool;
    size_t n_jobs, n_slots = 1;
    scio_status status;

    n_jobs = scio_h5_reading_jobs(reading, 1);
    if (n_jobs > 1 && options->max_parallel != 0) {
        if (pool == NULL)
            SCIO_TRY(scio_pool_shared(&pool, err));
        n_slots = scio_parallel_n_slots(pool, options->max_parallel, n_jobs);
        n_jobs = scio_h5_reading_jobs(reading, n_slots);
        n_slots = scio_parallel_n_slots(pool, options->max_parallel, n_jobs);
    }
    SCIO_TRY(scio_mem_zalloc(n_slots, sizeof *reading->scratches, &reading->scratches, err));
    status = pool == NULL || n_jobs == 1 || options->max_parallel == 0
                 ? run_here(reading, n_jobs, err)
                 : scio_parallel_for(pool, n_slots, n_jobs, run_job, reading, reading->cancel, err);
    for (size_t i = 0; i < n_slots; i++)
        scio_h5_scratch_free(reading->scratches[i]);
    scio_mem_free(reading->scratches);
    return status;
}

/* Contiguous data of which nothing was written. */
static scio_status
fill_all(const scio_h5_reading *reading, uint64_t n_items, scio_error *err)
{
    if (reading->fill_status != SCIO_OK) {
        scio_error_move(err, &reading->fill_err);
        scio_context(err, "%s", reading->dataset->path);
        return reading->fill_status;
    }
    scio_h5_fill_items(reading->out, reading->fill, reading->dst_itemsize, (size_t)n_items);
    return SCIO_OK;
}

static bool
is_hole(const scio_h5_dataset *dataset)
{
    return dataset->layout == SCIO_H5_CONTIGUOUS &&
           scio_h5_dataset_state(dataset)->layout.address == SCIO_H5_UNDEFINED;
}

static scio_status
check_reading(scio_h5_reading *reading, scio_dtype dtype, size_t out_nbytes, uint64_t *n_items_out,
              scio_error *err)
{
    SCIO_TRY(check_types(reading, dtype, err));
    SCIO_TRY(check_box(reading->dataset, reading->start, reading->count, n_items_out, err));
    SCIO_TRY(check_nbytes(reading, *n_items_out, out_nbytes, err));
    return convert_fill(reading, err);
}

scio_status
scio_h5_reading_start(scio_h5_reading *reading, scio_dtype dtype, size_t out_nbytes,
                      bool *has_jobs_out, scio_error *err)
{
    uint64_t n_items = 0;
    const scio_status status = check_reading(reading, dtype, out_nbytes, &n_items, err);

    *has_jobs_out = false;
    if (status != SCIO_OK) {
        scio_context(err, "%s", reading->dataset->path);
        return status;
    }
    if (n_items == 0)
        return SCIO_OK;
    SCIO_TRY(scio_h5_table_ensure(reading->dataset, err));
    if (is_hole(reading->dataset))
        return fill_all(reading, n_items, err);
    *has_jobs_out = true;
    return SCIO_OK;
}

void
scio_h5_reading_end(scio_h5_reading *reading)
{
    scio_mem_free(reading->fill);
    reading->fill = NULL;
}

scio_status
scio_h5_dataset_read(scio_h5_dataset *dataset, const uint64_t *start, const uint64_t *count,
                     scio_dtype dtype, void *out, size_t out_nbytes,
                     const scio_h5_read_options *options, scio_error *err)
{
    const scio_h5_read_options defaults = {NULL, SIZE_MAX, NULL};
    scio_h5_reading reading = {.dataset = dataset, .start = start, .count = count, .out = out};
    bool has_jobs = false;
    scio_status status;

    if (options == NULL)
        options = &defaults;
    reading.cancel = options->cancel;
    status = scio_h5_reading_start(&reading, dtype, out_nbytes, &has_jobs, err);
    if (status == SCIO_OK && has_jobs)
        status = run_jobs(&reading, options, err);
    scio_h5_reading_end(&reading);
    return status;
}
