/* Making, taking from, and ending a loader; the work itself is in loader_run.c and loader_batch.c.
 */
#include "load/loader.h"

#include "base/mem.h"
#include "load/loader_private.h"

#include <inttypes.h>
#include <string.h>

enum { DEFAULT_PREFETCH = 8 };

#define DEFAULT_MEMORY (UINT64_C(1) << 30)

/* ---- arguments ---- */

static scio_status
check_given(const scio_loader_options *options, int64_t n_cells, scio_error *err)
{
    if (options->given_offsets == NULL || options->given_offsets[0] != 0)
        return scio_fail(err, SCIO_EINVAL, "given_offsets must begin with 0");
    for (size_t i = 0; i < options->n_given; i++)
        if (options->given_offsets[i + 1] < options->given_offsets[i])
            return scio_fail(err, SCIO_EINVAL, "given_offsets[%zu] is less than the one before",
                             i + 1);
    for (int64_t i = 0; i < options->given_offsets[options->n_given]; i++)
        if (options->given_cells[i] < 0 || options->given_cells[i] >= n_cells)
            return scio_fail(err, SCIO_ERANGE,
                             "given_cells[%" PRId64 "] is %" PRId64 ", not in [0, %" PRId64 ")", i,
                             options->given_cells[i], n_cells);
    return SCIO_OK;
}

static scio_status
check_spec(const scio_collate_spec *spec, scio_error *err)
{
    if (spec->n_ids < 0 || spec->n_ids > INT32_MAX || spec->first_id < 0 ||
        spec->first_id > spec->n_ids || spec->max_genes < 0)
        return scio_fail(err, SCIO_EINVAL,
                         "n_ids %" PRId64 ", first_id %" PRId64 ", max_genes %" PRId64
                         ": expected 0 <= first_id <= n_ids <= %d and max_genes >= 0",
                         spec->n_ids, spec->first_id, spec->max_genes, INT32_MAX);
    return SCIO_OK;
}

/* ---- parts ---- */

scio_status
scio_loader_attach(scio_loader *loader, scio_compact *compact, scio_sink *sink, scio_error *err)
{
    if (compact != NULL)
        SCIO_TRY(scio_loader_check_compact(loader, compact, err));
    if (sink != NULL && scio_sink_n_tracks(sink) != loader->n_tracks)
        return scio_fail(err, SCIO_EINVAL, "the sink has %zu tracks, the loader %zu",
                         scio_sink_n_tracks(sink), loader->n_tracks);
    scio_compact_release(loader->compact);
    scio_sink_release(loader->sink);
    loader->compact = scio_compact_retain(compact);
    loader->sink = scio_sink_retain(sink);
    return SCIO_OK;
}

scio_loader_keep
scio_loader_keep_of(const scio_loader *loader)
{
    return loader->keep;
}

static scio_plan_track
describe(const scio_matrix *matrix)
{
    scio_plan_track track = {
        .n_cols = matrix->n_cols, .indptr = matrix->indptr, .is_in_file = matrix->is_in_file};

    track.data_itemsize = track.store_data_itemsize = scio_dtype_itemsize(matrix->data_dtype);
    if (matrix->kind == SCIO_MATRIX_CSR) {
        track.index_itemsize = scio_dtype_itemsize(matrix->index_dtype);
        track.store_index_itemsize = scio_dtype_itemsize(scio_store_index_dtype(matrix));
    }
    if (!matrix->is_in_file)
        return track;
    const scio_h5_dataset *const data = matrix->data_dataset, *const indices =
                                                                  matrix->indices_dataset;
    track.data_unit = data->unit_dims[0] > 0 ? data->unit_dims[0] : 1;
    if (indices != NULL)
        track.index_unit = indices->unit_dims[0] > 0 ? indices->unit_dims[0] : 1;
    else
        track.n_column_units = data->grid[1];
    return track;
}

static scio_status
plan_sources(scio_loader *loader, scio_plan_source *sources, scio_plan_track *tracks,
             const int64_t *cells, size_t n_cells, scio_error *err)
{
    const scio_loader_options *const options = &loader->options;
    const size_t n_tracks = loader->n_tracks;
    const scio_plan_options plan_options = {.batch_size = options->batch_size,
                                            .drop_last = options->drop_last,
                                            .shuffle = options->shuffle,
                                            .seed = options->seed,
                                            .epoch = options->epoch,
                                            .rank = options->rank,
                                            .world_size = options->world_size,
                                            .block_nbytes = options->block_nbytes,
                                            .is_dealt_once = options->is_keeping};

    for (size_t i = 0; i < loader->n_matrices; i++) {
        for (size_t t = 0; t < n_tracks; t++)
            tracks[i * n_tracks + t] = describe(scio_loader_matrix(loader, i, t));
        sources[i] = (scio_plan_source){scio_loader_matrix(loader, i, 0)->n_rows, n_tracks,
                                        &tracks[i * n_tracks]};
    }
    return scio_plan_new(sources, loader->n_matrices, cells, n_cells, &plan_options, &loader->plan,
                         err);
}

static scio_status
make_plan(scio_loader *loader, const int64_t *cells, size_t n_cells, scio_error *err)
{
    scio_plan_source *sources = NULL;
    scio_plan_track *tracks = NULL;
    scio_status status;

    status = scio_mem_alloc(loader->n_matrices, sizeof *sources, &sources, err);
    if (status == SCIO_OK)
        status =
            scio_mem_alloc(loader->n_matrices, loader->n_tracks * sizeof *tracks, &tracks, err);
    if (status == SCIO_OK)
        status = plan_sources(loader, sources, tracks, cells, n_cells, err);
    scio_mem_free(tracks);
    scio_mem_free(sources);
    SCIO_TRY(status);
    loader->n_batches = loader->plan->n_batches;
    return scio_loader_plan_budget(loader, cells, n_cells, err);
}

static scio_status
make_given(scio_loader *loader, const int64_t *cells, size_t n_cells, scio_error *err)
{
    scio_loader_options *const options = &loader->options;

    SCIO_TRY(check_given(options, loader->first_cells[loader->n_matrices], err));
    SCIO_TRY(scio_loader_copy(options->given_cells,
                              (size_t)options->given_offsets[options->n_given], sizeof(int64_t),
                              &loader->given_cells, err));
    SCIO_TRY(scio_loader_copy(options->given_offsets, options->n_given + 1, sizeof(int64_t),
                              &loader->given_offsets, err));
    loader->n_batches = (int64_t)options->n_given;
    return scio_loader_plan_given(loader, cells, n_cells, err);
}

static scio_status
make_windows(scio_loader *loader, scio_error *err)
{
    const scio_plan *const plan = loader->plan;
    const int64_t size = loader->options.batch_size, first = loader->options.first_batch;
    size_t first_window = 0;

    if (first < loader->n_batches)
        first_window = scio_plan_window_at(plan, first * size);
    SCIO_TRY(scio_mem_zalloc(plan->n_windows, sizeof *loader->windows, &loader->windows, err));
    if (!loader->is_resident)
        SCIO_TRY(scio_store_init(&loader->store, plan, loader->matrices, first_window,
                                 loader->options.is_skip_errors, &loader->cancel, err));
    for (size_t w = 0; w < plan->n_windows; w++) {
        const scio_plan_window *const window = &plan->windows[w];
        const int64_t begin = window->pos0 / size;
        const int64_t end = window->pos1 / size + (window->pos1 % size != 0 ? 1 : 0);
        loader->windows[w].loader = loader;
        loader->windows[w].n_batches_left = end - (begin > first ? begin : first);
    }
    loader->batch_window = loader->next_window = loader->oldest_window = first_window;
    if (first >= loader->n_batches)
        loader->next_window = loader->oldest_window = loader->batch_window = plan->n_windows;
    else if (!loader->is_resident)
        for (size_t b = 0; b < plan->n_blocks; b++)
            loader->stats.chunks_total += scio_store_n_units(&loader->store, b);
    return SCIO_OK;
}

static scio_status
make_machine(scio_loader *loader, scio_error *err)
{
    scio_loader_options *const options = &loader->options;

    SCIO_TRY(scio_mem_zalloc(loader->n_slots, sizeof *loader->slots, &loader->slots, err));
    SCIO_TRY(scio_mem_zalloc(loader->n_queue, sizeof *loader->batches, &loader->batches, err));
    SCIO_TRY(scio_queue_new(loader->n_queue, &loader->queue, err));
    scio_queue_set_end(loader->queue, (uint64_t)(loader->n_batches - options->first_batch));
    const int code = pthread_mutex_init(&loader->mutex, NULL);
    if (code != 0)
        return scio_fail_errno(err, SCIO_ENOMEM, code, "mutex of a loader");
    loader->has_mutex = true;
    const size_t n_parallel = options->n_threads == 0 ? 0 : loader->n_slots;
    SCIO_TRY(scio_group_new(options->pool, n_parallel, &loader->group, err));
    loader->next_batch = loader->n_taken = options->first_batch;
    loader->stats.cap_nbytes = (int64_t)options->max_memory;
    return SCIO_OK;
}

static scio_status
keep_options(scio_loader *loader, const scio_collate_spec *spec, const scio_loader_options *options,
             scio_error *err)
{
    loader->spec = *spec;
    loader->options = *options;
    if (loader->options.max_memory == 0)
        loader->options.max_memory = DEFAULT_MEMORY;
    if (loader->options.pool == NULL)
        SCIO_TRY(scio_pool_shared(&loader->options.pool, err));
    SCIO_TRY(check_spec(spec, err));
    if (spec->id_mask != NULL) {
        SCIO_TRY(scio_loader_copy(spec->id_mask, (size_t)spec->n_ids, 1, &loader->id_mask, err));
        loader->spec.id_mask = loader->id_mask;
    }
    if (spec->cell_scale != NULL) {
        SCIO_TRY(scio_loader_copy(spec->cell_scale, spec->n_cell_scale, sizeof *spec->cell_scale,
                                  &loader->cell_scale, err));
        loader->spec.cell_scale = loader->cell_scale;
    }
    const size_t n_threads = scio_pool_n_threads(loader->options.pool);
    loader->n_slots = options->n_threads < n_threads ? options->n_threads : n_threads;
    loader->n_slots = loader->n_slots > 0 ? loader->n_slots : 1;
    loader->n_queue = options->n_prefetch > 0 ? options->n_prefetch : DEFAULT_PREFETCH;
    return SCIO_OK;
}

static scio_status
loader_init(scio_loader *loader, scio_matrix *const *matrices, const int32_t *const *maps,
            const int64_t *cells, size_t n_cells, const scio_collate_spec *spec,
            const scio_loader_options *options, scio_error *err)
{
    SCIO_TRY(keep_options(loader, spec, options, err));
    SCIO_TRY(scio_loader_keep_sources(loader, matrices, maps, err));
    if (options->shuffle == SCIO_SHUFFLE_GIVEN)
        SCIO_TRY(make_given(loader, cells, n_cells, err));
    else
        SCIO_TRY(make_plan(loader, cells, n_cells, err));
    if (options->first_batch < 0 || options->first_batch > loader->n_batches)
        return scio_fail(err, SCIO_EINVAL, "first_batch is %" PRId64 ", not in [0, %" PRId64 "]",
                         options->first_batch, loader->n_batches);
    if (loader->plan != NULL)
        SCIO_TRY(make_windows(loader, err));
    return make_machine(loader, err);
}

scio_status
scio_loader_new(scio_matrix *const *matrices, size_t n_matrices, const int32_t *const *maps,
                const int64_t *cells, size_t n_cells, const scio_collate_spec *spec,
                const scio_loader_options *options, scio_loader **out, scio_error *err)
{
    scio_loader *loader = NULL;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *loader, &loader, err));
    loader->n_matrices = n_matrices;
    const scio_status status =
        loader_init(loader, matrices, maps, cells, n_cells, spec, options, err);
    if (status != SCIO_OK) {
        scio_loader_free(loader);
        return status;
    }
    *out = loader;
    return SCIO_OK;
}

/* ---- end ---- */

void
scio_loader_cancel(scio_loader *loader)
{
    __atomic_store_n(&loader->cancel, 1, __ATOMIC_RELAXED);
    if (loader->queue != NULL)
        scio_queue_cancel(loader->queue);
    if (loader->group != NULL)
        (void)scio_group_cancel(loader->group);
}

bool
scio_loader_stop(scio_loader *loader, unsigned timeout_ms)
{
    scio_loader_cancel(loader);
    if (loader->group == NULL || scio_group_wait_ms(loader->group, timeout_ms))
        return true;
    scio_group_abandon(loader->group);
    return false;
}

void
scio_loader_free(scio_loader *loader)
{
    if (loader == NULL)
        return;
    scio_loader_cancel(loader);
    scio_group_free(loader->group); /* waits: from here on no job runs */
    scio_queue_free(loader->queue, NULL);
    for (size_t i = 0; loader->batches != NULL && i < loader->n_queue; i++)
        scio_batch_clear(&loader->batches[i].batch);
    for (size_t i = 0; loader->slots != NULL && i < loader->n_slots; i++) {
        scio_h5_scratch_free(loader->slots[i].h5);
        scio_collate_scratch_free(loader->slots[i].collate);
        scio_mem_free(loader->slots[i].rows);
        scio_mem_free(loader->slots[i].one);
        scio_mem_free(loader->slots[i].cells);
        scio_mem_free(loader->slots[i].is_padding);
    }
    for (size_t i = 0; loader->windows != NULL && i < loader->plan->n_windows; i++) {
        scio_mem_free(loader->windows[i].perm);
        scio_loader_failure_free(loader->windows[i].failure);
    }
    if (loader->store.blocks != NULL)
        for (size_t i = 0; i < loader->plan->n_blocks; i++) {
            scio_loader_failure_free(loader->store.blocks[i].failure);
            loader->store.blocks[i].failure = NULL;
        }
    scio_store_clear(&loader->store);
    if (loader->is_reserved)
        scio_buf_unreserve(loader->waiting_nbytes);
    scio_loader_release_sources(loader);
    scio_mem_free(loader->id_mask);
    scio_mem_free(loader->cell_scale);
    scio_mem_free(loader->given_cells);
    scio_mem_free(loader->given_offsets);
    scio_mem_free(loader->windows);
    scio_mem_free(loader->slots);
    scio_mem_free(loader->batches);
    scio_plan_free(loader->plan);
    if (loader->has_mutex)
        pthread_mutex_destroy(&loader->mutex);
    scio_mem_free(loader);
}

/* ---- taking ---- */

static void
start(scio_loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    if (!loader->is_started) {
        loader->is_started = true;
        loader->is_reserved = true;
        scio_buf_reserve(loader->waiting_nbytes);
        loader->started_at = scio_loader_clock();
        scio_loader_account_locked(loader);
        scio_loader_advance_locked(loader);
    }
    pthread_mutex_unlock(&loader->mutex);
}

/* An inline group's jobs are run here until a batch is ready or the time is over. */
static scio_take
take_inline(scio_loader *loader, unsigned timeout_ms, void **item, scio_error *err)
{
    const double deadline = scio_loader_clock() + timeout_ms * 1e-3;

    for (;;) {
        const scio_take take = scio_queue_take(loader->queue, 0, item);
        if (take != SCIO_TAKE_TIMEOUT)
            return take;
        if (!scio_group_help(loader->group)) {
            (void)scio_fail(err, SCIO_EBUG, "the loader has nothing to do and no batch");
            return SCIO_TAKE_TIMEOUT;
        }
        if (scio_loader_clock() >= deadline)
            return scio_queue_take(loader->queue, 0, item);
    }
}

/* Moves the batch out and lets its place be used again. */
static scio_status
hand_out(scio_loader *loader, scio_loader_batch *batch, scio_batch *out, scio_error *err)
{
    scio_status status;

    pthread_mutex_lock(&loader->mutex);
    status = batch->status;
    if (status == SCIO_OK) {
        *out = batch->batch;
        loader->stats.batches++;
        loader->stats.cells += out->n_cells;
    } else {
        scio_error_move(err, &batch->failure);
        loader->is_closed = true;
    }
    memset(&batch->batch, 0, sizeof batch->batch);
    loader->reserved_nbytes -= batch->reserved_nbytes;
    loader->n_taken++;
    scio_loader_advance_locked(loader);
    pthread_mutex_unlock(&loader->mutex);
    if (status != SCIO_OK)
        scio_loader_cancel(loader);
    return status;
}

scio_status
scio_loader_next(scio_loader *loader, unsigned timeout_ms, int *take_out, scio_batch *out,
                 scio_error *err)
{
    void *item = NULL;
    scio_error failure = SCIO_ERROR_INIT;
    scio_take take;

    memset(out, 0, sizeof *out);
    start(loader);
    const double begin = scio_loader_clock();
    if (scio_group_is_inline(loader->group))
        take = take_inline(loader, timeout_ms, &item, &failure);
    else
        take = scio_queue_take(loader->queue, timeout_ms, &item);
    const double end = scio_loader_clock();
    pthread_mutex_lock(&loader->mutex);
    loader->stats.seconds_wait += end - begin;
    if (take == SCIO_TAKE_END && loader->ended_at == 0)
        loader->ended_at = end;
    pthread_mutex_unlock(&loader->mutex);
    *take_out = (int)take;
    if (failure.code != SCIO_OK) {
        scio_error_move(err, &failure);
        return failure.code;
    }
    if (take != SCIO_TAKE_ITEM)
        return SCIO_OK;
    return hand_out(loader, item, out, err);
}

int64_t
scio_loader_n_batches(const scio_loader *loader)
{
    return loader->n_batches;
}

void
scio_loader_stats_read(scio_loader *loader, scio_loader_stats *out)
{
    pthread_mutex_lock(&loader->mutex);
    *out = loader->stats;
    if (loader->is_started)
        out->seconds =
            (loader->ended_at > 0 ? loader->ended_at : scio_loader_clock()) - loader->started_at;
    pthread_mutex_unlock(&loader->mutex);
}
