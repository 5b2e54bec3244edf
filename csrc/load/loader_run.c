/* The state machine: windows are prepared and decoded, batches follow, memory goes back. */
#include "load/loader_private.h"

#include "base/mem.h"

#include <string.h>
#include <time.h>

static const scio_error OUT_OF_MEMORY = {SCIO_ENOMEM, 0,
                                         "out of memory while another error was kept"};

double
scio_loader_clock(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

scio_error *
scio_loader_failure_new(const scio_error *failure)
{
    scio_error *copy = NULL;

    if (scio_mem_alloc(1, sizeof *copy, &copy, NULL) != SCIO_OK)
        return (scio_error *)(uintptr_t)&OUT_OF_MEMORY;
    *copy = *failure;
    return copy;
}

void
scio_loader_failure_free(scio_error *failure)
{
    if (failure != &OUT_OF_MEMORY)
        scio_mem_free(failure);
}

static bool
is_cancelled(const scio_loader *loader)
{
    return __atomic_load_n(&loader->cancel, __ATOMIC_RELAXED) != 0;
}

/* Compact stores count, whether they are being filled or read. */
static uint64_t
kept_nbytes(const scio_loader *loader)
{
    const scio_compact *const compact = loader->compact, *const resident = loader->resident;
    uint64_t nbytes = compact != NULL ? scio_compact_nbytes(compact) : 0;

    if (resident != NULL && resident != compact)
        nbytes += scio_compact_nbytes(resident);
    return nbytes;
}

void
scio_loader_account_locked(scio_loader *loader)
{
    const uint64_t nbytes = loader->fixed_nbytes + loader->reserved_nbytes + loader->perm_nbytes +
                            loader->store.zone_nbytes + loader->excess_nbytes + kept_nbytes(loader);
    if ((int64_t)nbytes > loader->stats.peak_nbytes)
        loader->stats.peak_nbytes = (int64_t)nbytes;
}

/* ---- windows ---- */

/* A file that was replaced under us is an error, never wrong data. */
static scio_status
check_sources(const scio_loader *loader, size_t i_window, scio_error *err)
{
    const scio_plan *const plan = loader->plan;
    uint8_t *is_checked = NULL;
    size_t begin, end;
    scio_status status = SCIO_OK;

    if (loader->is_resident)
        return SCIO_OK;
    SCIO_TRY(scio_mem_zalloc(loader->n_matrices, 1, &is_checked, err));
    scio_store_window_order(&loader->store, i_window, &begin, &end);
    for (size_t i = begin; i < end && status == SCIO_OK; i++) {
        const size_t s = plan->blocks[plan->order[i]].i_source;
        if (is_checked[s])
            continue;
        is_checked[s] = 1;
        status = scio_loader_check_unchanged(loader, s, err);
    }
    scio_mem_free(is_checked);
    return status;
}

static void
fail_window_locked(scio_loader *loader, size_t i_window, const scio_error *failure)
{
    if (loader->windows[i_window].failure == NULL)
        loader->windows[i_window].failure = scio_loader_failure_new(failure);
}

/* A job of the window has ended; the last one looks at the files once more. */
static void
finish_part(scio_loader *loader, size_t i_window)
{
    scio_loader_window *const window = &loader->windows[i_window];
    scio_error failure = SCIO_ERROR_INIT;

    pthread_mutex_lock(&loader->mutex);
    const bool is_last = --window->n_pending == 0;
    pthread_mutex_unlock(&loader->mutex);
    if (!is_last)
        return;
    const scio_status status = check_sources(loader, i_window, &failure);
    pthread_mutex_lock(&loader->mutex);
    if (status != SCIO_OK)
        fail_window_locked(loader, i_window, &failure);
    window->is_ready = true;
    scio_loader_advance_locked(loader);
    pthread_mutex_unlock(&loader->mutex);
}

static void
run_prepare(scio_job *job, size_t slot)
{
    scio_loader_window *const window = (scio_loader_window *)(void *)job;
    scio_loader *const loader = window->loader;
    const size_t i_window = (size_t)(window - loader->windows);
    const size_t n_cells = (size_t)scio_plan_permuted(loader->plan, i_window);
    scio_error failure = SCIO_ERROR_INIT;
    int64_t *perm = NULL;
    scio_status status;

    (void)slot;
    status = is_cancelled(loader) ? scio_fail(&failure, SCIO_ECANCEL, "cancelled")
                                  : check_sources(loader, i_window, &failure);
    if (status == SCIO_OK && loader->options.shuffle != SCIO_SHUFFLE_NONE) {
        status = scio_mem_alloc(n_cells, sizeof *perm, &perm, &failure);
        if (status == SCIO_OK)
            scio_plan_permute(loader->plan, i_window, perm);
    }
    pthread_mutex_lock(&loader->mutex);
    window->perm = perm;
    if (perm != NULL)
        loader->perm_nbytes += n_cells * sizeof *perm;
    if (status != SCIO_OK)
        fail_window_locked(loader, i_window, &failure);
    scio_loader_account_locked(loader);
    pthread_mutex_unlock(&loader->mutex);
    finish_part(loader, i_window);
}

/* The plan counts a bound for the scratch; more than that would show as a peak above the cap. */
static void
account_scratch_locked(scio_loader *loader, size_t slot)
{
    const scio_h5_scratch *const scratch = loader->slots[slot].h5;
    const uint64_t nbytes = scratch != NULL ? scio_h5_scratch_nbytes(scratch) : 0;

    if (nbytes > loader->h5_nbytes && nbytes - loader->h5_nbytes > loader->excess_nbytes) {
        loader->excess_nbytes = nbytes - loader->h5_nbytes;
        scio_loader_account_locked(loader);
    }
}

static void
run_decode(scio_job *job, size_t slot)
{
    const scio_store_job *const decode = (const scio_store_job *)(const void *)job;
    scio_loader_window *const window = decode->owner;
    scio_loader *const loader = window->loader;
    scio_store_block *const block = &loader->store.blocks[decode->i_block];
    const size_t i_window = (size_t)(window - loader->windows);
    scio_error failure = SCIO_ERROR_INIT;
    scio_store_count count = {0, 0};
    const double start = scio_loader_clock();
    scio_status status;

    if (is_cancelled(loader))
        status = scio_fail(&failure, SCIO_ECANCEL, "cancelled");
    else
        status = scio_store_decode(&loader->store, decode->i_block, decode->which,
                                   &loader->slots[slot].h5, &count, &failure);
    pthread_mutex_lock(&loader->mutex);
    loader->stats.seconds_decode += scio_loader_clock() - start;
    loader->stats.chunks_decoded += count.n_units;
    loader->stats.nbytes_read += count.nbytes;
    account_scratch_locked(loader, slot);
    if (status != SCIO_OK && block->failure == NULL)
        block->failure = scio_loader_failure_new(&failure);
    pthread_mutex_unlock(&loader->mutex);
    finish_part(loader, i_window);
}

/* Memory for the blocks of the window, their jobs behind it.  What cannot be opened is not decoded:
 * the window fails, and every batch of it says why. */
static void
decode_window_locked(scio_loader *loader, size_t i_window)
{
    const scio_plan *const plan = loader->plan;
    scio_loader_window *const window = &loader->windows[i_window];
    scio_error failure = SCIO_ERROR_INIT;
    scio_status status = SCIO_OK;
    size_t begin, end;

    scio_store_window_order(&loader->store, i_window, &begin, &end);
    for (size_t i = begin; i < end && status == SCIO_OK; i++) {
        const size_t b = plan->order[i];
        const unsigned n_jobs = scio_store_n_jobs(&loader->store, b);
        if (!loader->store.blocks[b].is_live)
            continue;
        loader->stats.n_blocks++;
        status = scio_store_open(&loader->store, b, &failure);
        for (unsigned which = 0; which < n_jobs && status == SCIO_OK; which++) {
            scio_store_job *const job = &loader->store.blocks[b].jobs[which];
            *job = (scio_store_job){{run_decode, NULL}, window, b, which};
            window->n_pending++;
            scio_group_submit(loader->group, &job->job, SCIO_PRIORITY_LOW);
        }
    }
    if (status != SCIO_OK)
        fail_window_locked(loader, i_window, &failure);
}

static void
start_window_locked(scio_loader *loader, size_t i_window)
{
    scio_loader_window *const window = &loader->windows[i_window];

    window->n_pending = 1;
    window->prepare.run = run_prepare;
    scio_group_submit(loader->group, &window->prepare, SCIO_PRIORITY_LOW);
    if (!loader->is_resident)
        decode_window_locked(loader, i_window);
    loader->stats.n_windows++;
    scio_loader_account_locked(loader);
}

static void
end_windows_locked(scio_loader *loader)
{
    const scio_plan *const plan = loader->plan;

    while (loader->oldest_window < loader->next_window) {
        scio_loader_window *const window = &loader->windows[loader->oldest_window];
        if (!window->is_ready || window->n_batches_left > 0)
            return;
        if (window->perm != NULL)
            loader->perm_nbytes -=
                (uint64_t)scio_plan_permuted(plan, loader->oldest_window) * sizeof(int64_t);
        scio_mem_free(window->perm);
        window->perm = NULL;
        if (!loader->is_resident)
            scio_store_close_window(&loader->store, loader->oldest_window);
        loader->oldest_window++;
    }
}

/* ---- batches ---- */

static bool
is_next_batch_possible_locked(scio_loader *loader)
{
    if (loader->next_batch >= loader->n_batches ||
        loader->next_batch - loader->n_taken >= (int64_t)loader->n_queue)
        return false;
    if (loader->reserved_nbytes > 0 &&
        loader->reserved_nbytes + loader->worst_nbytes > loader->queue_nbytes)
        return false;
    if (loader->plan == NULL)
        return true;
    while (loader->plan->windows[loader->batch_window].pos1 <=
           loader->next_batch * loader->options.batch_size)
        loader->batch_window++;
    return loader->batch_window < loader->next_window &&
           loader->windows[loader->batch_window].is_ready;
}

void
scio_loader_advance_locked(scio_loader *loader)
{
    if (is_cancelled(loader) || loader->is_closed)
        return;
    if (loader->plan != NULL) {
        end_windows_locked(loader);
        while (loader->next_window < loader->plan->n_windows &&
               loader->next_window <= loader->oldest_window + 1)
            start_window_locked(loader, loader->next_window++);
    }
    while (is_next_batch_possible_locked(loader)) {
        scio_loader_batch *const batch =
            &loader->batches[(size_t)loader->next_batch % loader->n_queue];
        batch->job.run = scio_loader_batch_run;
        batch->loader = loader;
        batch->seq = loader->next_batch++;
        batch->i_window = loader->batch_window;
        batch->reserved_nbytes = loader->worst_nbytes;
        batch->status = SCIO_OK;
        batch->n_skipped = 0;
        batch->failure = (scio_error)SCIO_ERROR_INIT;
        loader->reserved_nbytes += batch->reserved_nbytes;
        scio_loader_account_locked(loader);
        scio_group_submit(loader->group, &batch->job, SCIO_PRIORITY_HIGH);
    }
}

void
scio_loader_finish_batch(scio_loader *loader, scio_loader_batch *batch)
{
    pthread_mutex_lock(&loader->mutex);
    loader->stats.seconds_gather += batch->gather_seconds;
    loader->stats.seconds_collate += batch->collate_seconds;
    loader->stats.skipped_cells += batch->n_skipped;
    if (batch->status == SCIO_OK) {
        const uint64_t nbytes = scio_batch_nbytes(&batch->batch);
        loader->reserved_nbytes = loader->reserved_nbytes - batch->reserved_nbytes + nbytes;
        batch->reserved_nbytes = nbytes;
        scio_loader_account_locked(loader);
    }
    if (loader->plan != NULL)
        loader->windows[batch->i_window].n_batches_left--;
    /* from here on the consumer may have the batch, but not before we let go of the mutex */
    const scio_status status = scio_queue_put(
        loader->queue, (uint64_t)(batch->seq - loader->options.first_batch), batch, NULL);
    if (status != SCIO_OK) /* cancelled */
        scio_batch_clear(&batch->batch);
    scio_loader_advance_locked(loader);
    pthread_mutex_unlock(&loader->mutex);
}
