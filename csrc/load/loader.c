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

void
scio_loader_attach(scio_loader *loader, scio_compact *compact, scio_sink *sink)
{
    scio_compact_release(loader->compact);
    scio_sink_release(loader->sink);
    loader->compact = scio_compact_retain(compact);
    loader->sink = scio_sink_retain(sink);
}

scio_loader_keep
scio_loader_keep_of(const scio_loader *loader)
{
    return loader->keep;
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
    scio_loader_release_sources(loader);
    scio_mem_free(loader->id_mask);
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
