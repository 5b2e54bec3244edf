/* From stored bytes to decoded units: coalesced reads, per-thread memory, the filters of one chunk.
 */
#include "base/mem.h"
#include "base/stats.h"
#include "h5read/dataset_internal.h"

#include <string.h>

/* One read fetches neighbours up to this size: larger ones save no time on a file, since the bytes
 * should still be in the cache when they are decoded; a remote source pays by the request. */
#define FILE_RUN_NBYTES ((uint64_t)1 << 20)
#define REMOTE_RUN_NBYTES ((uint64_t)8 << 20)

#define DEFLATE_MAX_RATIO 1032              /* 258 bytes from 2 bits */
#define FILL_STEP_NBYTES ((size_t)16 << 10) /* stays in the L1 cache */
#define DATA_ALIGNMENT 16                   /* of what visitors get */

/* ---- memory of one thread ---- */

scio_status
scio_h5_memory_ensure(scio_h5_memory *memory, uint64_t nbytes, scio_error *err)
{
    if (nbytes <= memory->capacity)
        return SCIO_OK;
    scio_mem_free(memory->data);
    *memory = (scio_h5_memory){NULL, 0};
    if (nbytes > SIZE_MAX)
        return scio_fail(err, SCIO_ENOMEM, "%llu bytes", (unsigned long long)nbytes);
    SCIO_TRY(scio_mem_alloc((size_t)nbytes, 1, &memory->data, err));
    memory->capacity = (size_t)nbytes;
    return SCIO_OK;
}

scio_status
scio_h5_scratch_new(scio_h5_scratch **out, scio_error *err)
{
    scio_h5_scratch *scratch = NULL;
    scio_status status;

    SCIO_TRY(scio_mem_zalloc(1, sizeof *scratch, &scratch, err));
    status = scio_decoder_new(&scratch->decoder, err);
    if (status != SCIO_OK) {
        scio_mem_free(scratch);
        return status;
    }
    *out = scratch;
    return SCIO_OK;
}

void
scio_h5_scratch_free(scio_h5_scratch *scratch)
{
    if (scratch == NULL)
        return;
    scio_decoder_free(scratch->decoder);
    scio_mem_free(scratch->stored.data);
    scio_mem_free(scratch->unit.data);
    scio_mem_free(scratch->packed.data);
    scio_mem_free(scratch->cast.data);
    scio_mem_free(scratch);
}

size_t
scio_h5_scratch_nbytes(const scio_h5_scratch *scratch)
{
    return sizeof *scratch + scio_decoder_nbytes(scratch->decoder) + scratch->stored.capacity +
           scratch->unit.capacity + scratch->packed.capacity + scratch->cast.capacity;
}

/* ---- stored bytes ---- */

scio_status
scio_h5_plain_read(const scio_h5_dataset *dataset, uint64_t offset, size_t nbytes, void *dst,
                   scio_error *err)
{
    const scio_h5_state *state = scio_h5_dataset_state(dataset);
    const scio_h5_superblock *sb = scio_h5_file_superblock(dataset->file);

    if (dataset->layout == SCIO_H5_COMPACT) {
        SCIO_BUG_IF(offset > state->layout.compact_nbytes ||
                        nbytes > state->layout.compact_nbytes - offset,
                    err);
        memcpy(dst, state->compact + offset, nbytes);
        return SCIO_OK;
    }
    return scio_source_read(scio_h5_file_source(dataset->file),
                            sb->base + state->layout.address + offset, nbytes, dst, err);
}

/* The most bytes that the filters can make of nbytes; UINT64_MAX when no bound is known. */
static uint64_t
decoded_bound(const scio_pipeline *pipeline, const scio_h5_unit *unit)
{
    uint64_t bound = unit->nbytes;

    if (unit->is_raw)
        return bound;
    for (size_t i = 0; i < pipeline->n_filters; i++) {
        const uint16_t id = pipeline->filters[i].id;

        if (i < 32 && (unit->filter_mask >> i & 1) != 0)
            continue;
        if (id == SCIO_FILTER_SHUFFLE || id == SCIO_FILTER_FLETCHER32)
            continue;
        if (id != SCIO_FILTER_DEFLATE || !scio_mul_u64(bound, DEFLATE_MAX_RATIO, &bound))
            return UINT64_MAX;
    }
    return bound;
}

static scio_status
check_sizes(const scio_h5_dataset *dataset, const scio_h5_unit *unit, uint64_t expected,
            scio_error *err)
{
    const uint64_t limit = scio_h5_file_limits(dataset->file)->chunk_nbytes;

    if (expected > limit || unit->nbytes > limit)
        return scio_fail(err, SCIO_EUNSAFE,
                         "%llu stored bytes, %llu decoded; the limit chunk_nbytes is %llu",
                         (unsigned long long)unit->nbytes, (unsigned long long)expected,
                         (unsigned long long)limit);
    if (unit->position == SCIO_H5_UNDEFINED)
        return SCIO_OK;
    if (unit->is_raw && unit->nbytes != expected)
        return scio_fail(err, SCIO_ECORRUPT, "%llu bytes are stored without filters, expected %llu",
                         (unsigned long long)unit->nbytes, (unsigned long long)expected);
    if (decoded_bound(&dataset->pipeline, unit) < expected)
        return scio_fail(err, SCIO_ECORRUPT, "%llu stored bytes cannot decode to %llu",
                         (unsigned long long)unit->nbytes, (unsigned long long)expected);
    return SCIO_OK;
}

/* Refuses units that are larger than the limit or than their stored bytes can become, before any
 * memory is taken for them. */
static scio_status
check_unit(const scio_h5_dataset *dataset, const scio_h5_entry *entry, scio_error *err)
{
    const scio_status status =
        check_sizes(dataset, &entry->unit, scio_h5_unit_nbytes(dataset, entry->i_unit), err);

    if (status != SCIO_OK)
        scio_h5_unit_context(dataset, entry->i_unit, &entry->unit, err);
    return status;
}

/* A stretch of the file that holds the units entries[i_first, i_end). */
typedef struct run {
    size_t i_end, n_written;
    uint64_t start, nbytes;
} run;

/* Units that lie in the file in the order in which they come, with small gaps; holes are no
 * obstacle. */
static run
find_run(const scio_h5_entry *entries, size_t n_entries, size_t i_first, uint64_t max_nbytes)
{
    run r = {i_first, 0, 0, 0};

    for (; r.i_end < n_entries; r.i_end++) {
        const scio_h5_unit *unit = &entries[r.i_end].unit;
        const uint64_t end = r.start + r.nbytes;

        if (unit->position == SCIO_H5_UNDEFINED)
            continue;
        if (r.n_written == 0) {
            r.start = unit->position;
            r.nbytes = unit->nbytes;
        } else {
            if (unit->position < end || unit->position - end >= SCIO_H5_GAP_NBYTES ||
                unit->position - r.start > max_nbytes ||
                unit->nbytes > max_nbytes - (unit->position - r.start))
                break;
            r.nbytes = unit->position - r.start + unit->nbytes;
        }
        r.n_written++;
    }
    return r;
}

static scio_status
read_run(const scio_h5_dataset *dataset, const scio_h5_entry *first, const run *r,
         scio_h5_scratch *scratch, scio_error *err)
{
    scio_status status;

    if (r->n_written == 0 || dataset->layout == SCIO_H5_COMPACT)
        return SCIO_OK;
    status = scio_h5_memory_ensure(&scratch->stored, r->nbytes, err);
    if (r->n_written > 1)
        scio_stats_add(SCIO_STAT_coalesced_reads, 1);
    if (status == SCIO_OK)
        status = scio_source_read(scio_h5_file_source(dataset->file), r->start, (size_t)r->nbytes,
                                  scratch->stored.data, err);
    if (status != SCIO_OK)
        scio_h5_unit_context(dataset, first->i_unit, &first->unit, err);
    return status;
}

static uint64_t
max_run_nbytes(const scio_h5_dataset *dataset)
{
    uint64_t identity[3];

    scio_source_identity(scio_h5_file_source(dataset->file), identity);
    return identity[0] != 0 ? FILE_RUN_NBYTES : REMOTE_RUN_NBYTES;
}

scio_status
scio_h5_fetch(const scio_h5_dataset *dataset, const scio_h5_entry *entries, size_t n_entries,
              scio_h5_scratch *scratch, scio_h5_stored_fn visit, void *context, scio_error *err)
{
    const scio_h5_state *state = scio_h5_dataset_state(dataset);
    const uint64_t max_nbytes = max_run_nbytes(dataset);
    scio_status status = SCIO_OK;

    for (size_t i = 0; i < n_entries; i++)
        SCIO_TRY(check_unit(dataset, &entries[i], err));
    for (size_t i = 0; i < n_entries && status == SCIO_OK;) {
        const run r = find_run(entries, n_entries, i, max_nbytes);

        status = read_run(dataset, entries + i, &r, scratch, err);
        if (status != SCIO_OK)
            break;
        for (; i < r.i_end && status == SCIO_OK; i++) {
            const scio_h5_unit *unit = &entries[i].unit;
            const uint8_t *stored = NULL;

            if (unit->position != SCIO_H5_UNDEFINED)
                stored = dataset->layout == SCIO_H5_COMPACT
                             ? state->compact + (unit->position - state->layout.compact_position)
                             : scratch->stored.data + (unit->position - r.start);
            status = visit(context, &entries[i], stored, err);
        }
    }
    return status;
}

/* ---- one unit ---- */

scio_status
scio_h5_unit_decode(const scio_h5_dataset *dataset, const scio_h5_unit *unit, const uint8_t *stored,
                    scio_decoder *decoder, void *out, size_t *shuffle_itemsize_out, scio_error *err)
{
    const size_t nbytes = (size_t)(unit->is_raw ? unit->nbytes : dataset->unit_nbytes);

    if (shuffle_itemsize_out != NULL)
        *shuffle_itemsize_out = 1;
    if (unit->is_raw) {
        memcpy(out, stored, nbytes);
        if (dataset->layout == SCIO_H5_CHUNKED)
            scio_stats_add(SCIO_STAT_chunks_decoded, 1);
        return SCIO_OK;
    }
    if (shuffle_itemsize_out != NULL)
        return scio_pipeline_decode_planes(&dataset->pipeline, unit->filter_mask, decoder, stored,
                                           (size_t)unit->nbytes, out, nbytes, shuffle_itemsize_out,
                                           err);
    return scio_pipeline_decode(&dataset->pipeline, unit->filter_mask, decoder, stored,
                                (size_t)unit->nbytes, out, nbytes, err);
}

void
scio_h5_fill_items(void *dst, const void *item, size_t itemsize, size_t n_items)
{
    const size_t nbytes = n_items * itemsize;
    const size_t step =
        itemsize < FILL_STEP_NBYTES ? FILL_STEP_NBYTES / itemsize * itemsize : itemsize;
    size_t done = itemsize;
    uint8_t *to = dst;

    if (nbytes == 0)
        return;
    if (item == NULL) {
        memset(to, 0, nbytes);
        return;
    }
    memcpy(to, item, itemsize);
    while (done < nbytes) { /* copies what is there already, twice as much each time */
        size_t n = done < step ? done : step;

        if (n > nbytes - done)
            n = nbytes - done;
        memcpy(to + done, to, n);
        done += n;
    }
}

/* ---- a range of units ---- */

typedef struct visit_context {
    const scio_h5_dataset *dataset;
    scio_h5_scratch *scratch;
    bool allow_planes;
    scio_h5_unit_fn visit;
    void *context;
} visit_context;

static scio_status
prepare_unit(const visit_context *v, const scio_h5_entry *entry, const uint8_t *stored,
             const void **data_out, size_t *shuffle_itemsize_out, scio_error *err)
{
    const scio_h5_dataset *dataset = v->dataset;
    const uint64_t nbytes = scio_h5_unit_nbytes(dataset, entry->i_unit);
    const size_t itemsize = dataset->type->itemsize;

    *shuffle_itemsize_out = 1;
    if (stored != NULL && entry->unit.is_raw && (uintptr_t)stored % DATA_ALIGNMENT == 0) {
        if (dataset->layout == SCIO_H5_CHUNKED)
            scio_stats_add(SCIO_STAT_chunks_decoded, 1);
        *data_out = stored;
        return SCIO_OK;
    }
    SCIO_TRY(scio_h5_memory_ensure(&v->scratch->unit, nbytes, err));
    *data_out = v->scratch->unit.data;
    if (stored == NULL) {
        scio_h5_fill_items(v->scratch->unit.data, dataset->fill, itemsize,
                           (size_t)nbytes / itemsize);
        return SCIO_OK;
    }
    return scio_h5_unit_decode(dataset, &entry->unit, stored, v->scratch->decoder,
                               v->scratch->unit.data, v->allow_planes ? shuffle_itemsize_out : NULL,
                               err);
}

static scio_status
visit_unit(void *context, const scio_h5_entry *entry, const uint8_t *stored, scio_error *err)
{
    const visit_context *v = context;
    const void *data = NULL;
    size_t shuffle_itemsize = 1;
    scio_status status = prepare_unit(v, entry, stored, &data, &shuffle_itemsize, err);

    if (status != SCIO_OK) {
        scio_h5_unit_context(v->dataset, entry->i_unit, &entry->unit, err);
        return status;
    }
    return v->visit(v->context, entry->i_unit, data,
                    (size_t)scio_h5_unit_nbytes(v->dataset, entry->i_unit), shuffle_itemsize, err);
}

scio_status
scio_h5_dataset_decode(scio_h5_dataset *dataset, uint64_t i_first, uint64_t n_units,
                       bool allow_planes, scio_h5_scratch *scratch, scio_h5_unit_fn visit,
                       void *context, scio_error *err)
{
    visit_context v = {dataset, scratch, allow_planes, visit, context};

    if (i_first > dataset->n_units || n_units > dataset->n_units - i_first)
        return scio_fail(err, SCIO_ERANGE, "%s: units [%llu, +%llu) of %llu", dataset->path,
                         (unsigned long long)i_first, (unsigned long long)n_units,
                         (unsigned long long)dataset->n_units);
    SCIO_TRY(scio_h5_table_ensure(dataset, err));
    scio_h5_engine_set(dataset, scratch);
    while (n_units != 0) {
        size_t n_here = SCIO_H5_N_ENTRIES;

        if (n_units < n_here)
            n_here = (size_t)n_units;
        for (size_t i = 0; i < n_here; i++)
            scratch->entries[i] =
                (scio_h5_entry){i_first + i, scio_h5_unit_find(dataset, i_first + i)};
        SCIO_TRY(scio_h5_fetch(dataset, scratch->entries, n_here, scratch, visit_unit, &v, err));
        i_first += n_here;
        n_units -= n_here;
    }
    return SCIO_OK;
}
