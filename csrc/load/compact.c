#include "load/compact.h"

#include "base/buf.h"
#include "base/mem.h"
#include "load/compact_row.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>

/* Below the size from which buffers have huge pages: to clear one of these puts two megabytes
 * through the caches, and a first epoch that fills the store was a sixth slower (D2). */
#define MAX_SLAB_NBYTES ((uint64_t)1 << 20)
#define MIN_SLAB_NBYTES ((uint64_t)64 << 10)

enum {
    SLABS_AT_LEAST = 32, /* in a store that is full */
    ROWS_OF_A_SLAB = 32  /* a longer row gets memory of its own: little is left over at the end */
};

struct scio_compact {
    atomic_size_t n_refs;
    int64_t n_cells;
    size_t n_tracks;
    uint64_t max_nbytes, max_row_nbytes; /* of all; of the rows, without what slabs leave over */
    uint64_t slab_nbytes;
    _Atomic(scio_row_head *) *places; /* [n_cells * n_tracks] NULL = missing */
    atomic_bool is_full;
    pthread_mutex_t mutex;
    bool has_mutex;
    /* guarded by mutex: */
    uint64_t row_nbytes, nbytes;
    scio_buf **slabs; /* [n_room] */
    size_t n_slabs, n_room;
    char *slab; /* the one that is being filled */
    uint64_t slab_left;
};

/* Rows that are being written, and cells that could not be decoded. */
static scio_row_head CLAIMED, BROKEN;

/* ---- life ---- */

/* A power of two: blocks of other sizes are a little larger than asked for (base/recycle). */
static uint64_t
choose_slab(uint64_t max_nbytes)
{
    uint64_t nbytes = MIN_SLAB_NBYTES;

    while (nbytes < MAX_SLAB_NBYTES && nbytes * 2 <= max_nbytes / SLABS_AT_LEAST)
        nbytes *= 2;
    return nbytes;
}

/* The first slab counts as there; UINT64_MAX when no number can say. */
uint64_t
scio_compact_empty_nbytes(int64_t n_cells, size_t n_tracks, uint64_t max_nbytes)
{
    uint64_t nbytes;

    if (!scio_mul_u64((uint64_t)n_cells, n_tracks, &nbytes) ||
        !scio_mul_u64(nbytes, sizeof(scio_row_head *), &nbytes) ||
        !scio_add_u64(nbytes, choose_slab(max_nbytes) + sizeof(scio_compact), &nbytes))
        return UINT64_MAX;
    return nbytes;
}

scio_status
scio_compact_new(int64_t n_cells, size_t n_tracks, uint64_t max_nbytes, scio_compact **out,
                 scio_error *err)
{
    const uint64_t slab_nbytes = choose_slab(max_nbytes);
    const uint64_t fixed = scio_compact_empty_nbytes(n_cells, n_tracks, max_nbytes);
    scio_compact *compact = NULL;
    scio_status status;

    if (n_cells < 0 || n_tracks == 0)
        return scio_fail(err, SCIO_EINVAL, "a compact store of %" PRId64 " cells and %zu tracks",
                         n_cells, n_tracks);
    if (max_nbytes < fixed || fixed == UINT64_MAX)
        return scio_fail(err, SCIO_EINVAL,
                         "a compact store of %" PRId64 " cells takes %" PRIu64
                         " bytes when empty, allowed are %" PRIu64,
                         n_cells, fixed, max_nbytes);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *compact, &compact, err));
    atomic_init(&compact->n_refs, 1);
    compact->n_cells = n_cells;
    compact->n_tracks = n_tracks;
    compact->max_nbytes = max_nbytes;
    compact->slab_nbytes = slab_nbytes;
    compact->nbytes = fixed - slab_nbytes;
    compact->max_row_nbytes = (max_nbytes - fixed) / ROWS_OF_A_SLAB * (ROWS_OF_A_SLAB - 1);
    status =
        scio_mem_zalloc((size_t)n_cells, n_tracks * sizeof *compact->places, &compact->places, err);
    if (status == SCIO_OK) {
        const int code = pthread_mutex_init(&compact->mutex, NULL);
        if (code != 0)
            status = scio_fail_errno(err, SCIO_ENOMEM, code, "mutex of a compact store");
        compact->has_mutex = code == 0;
    }
    if (status != SCIO_OK) {
        scio_compact_release(compact);
        return status;
    }
    *out = compact;
    return SCIO_OK;
}

scio_compact *
scio_compact_retain(scio_compact *compact)
{
    if (compact != NULL)
        atomic_fetch_add_explicit(&compact->n_refs, 1, memory_order_relaxed);
    return compact;
}

void
scio_compact_release(scio_compact *compact)
{
    if (compact == NULL ||
        atomic_fetch_sub_explicit(&compact->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < compact->n_slabs; i++)
        scio_buf_release(compact->slabs[i]);
    scio_mem_free(compact->slabs);
    scio_mem_free(compact->places);
    if (compact->has_mutex)
        pthread_mutex_destroy(&compact->mutex);
    scio_mem_free(compact);
}

/* ---- writing ---- */

static char *
new_slab_locked(scio_compact *compact, uint64_t nbytes)
{
    scio_buf *slab = NULL;

    if (compact->n_slabs == compact->n_room) {
        const size_t n_room = compact->n_room * 2 + 16;
        if (scio_mem_realloc(&compact->slabs, n_room, sizeof(scio_buf *), NULL) != SCIO_OK)
            return NULL;
        compact->n_room = n_room;
    }
    if (scio_buf_new((size_t)nbytes, &slab, NULL) != SCIO_OK)
        return NULL;
    compact->slabs[compact->n_slabs++] = slab;
    compact->nbytes += nbytes;
    return scio_buf_data(slab);
}

static char *
take_place_locked(scio_compact *compact, uint64_t nbytes)
{
    char *place;

    if (nbytes > compact->max_row_nbytes - compact->row_nbytes)
        return NULL;
    if (nbytes > compact->slab_nbytes / ROWS_OF_A_SLAB) {
        place = new_slab_locked(compact, nbytes);
    } else {
        if (nbytes > compact->slab_left) {
            compact->slab = new_slab_locked(compact, compact->slab_nbytes);
            compact->slab_left = compact->slab != NULL ? compact->slab_nbytes : 0;
        }
        place = compact->slab;
        if (place != NULL) {
            compact->slab += nbytes;
            compact->slab_left -= nbytes;
        }
    }
    if (place != NULL)
        compact->row_nbytes += nbytes;
    return place;
}

static char *
take_place(scio_compact *compact, uint64_t nbytes)
{
    pthread_mutex_lock(&compact->mutex);
    char *const place = scio_compact_is_full(compact) ? NULL : take_place_locked(compact, nbytes);
    if (place == NULL)
        atomic_store_explicit(&compact->is_full, true, memory_order_relaxed);
    pthread_mutex_unlock(&compact->mutex);
    return place;
}

static _Atomic(scio_row_head *) *
places_of(const scio_compact *compact, int64_t cell)
{
    return &compact->places[(size_t)cell * compact->n_tracks];
}

static bool
claim(scio_compact *compact, int64_t cell)
{
    scio_row_head *expected = NULL;

    return atomic_compare_exchange_strong(places_of(compact, cell), &expected, &CLAIMED);
}

/* NULL when it does not fit. */
static scio_row_head *
keep_row(scio_compact *compact, const scio_row *row)
{
    if (row->n_items > UINT32_MAX) { /* a head could not say how long it is */
        atomic_store_explicit(&compact->is_full, true, memory_order_relaxed);
        return NULL;
    }
    const scio_row_layout layout = scio_row_lay(row);
    char *const place = take_place(compact, layout.nbytes);

    return place != NULL ? scio_row_write(row, &layout, place) : NULL;
}

/* The row of the first track comes last: who finds it finds all. */
void
scio_compact_put(scio_compact *compact, int64_t cell, const scio_row *rows)
{
    if (scio_compact_is_full(compact) || !claim(compact, cell))
        return;
    for (size_t t = compact->n_tracks; t-- > 0;) {
        scio_row_head *const head = keep_row(compact, &rows[t]);
        if (head == NULL) {
            atomic_store_explicit(places_of(compact, cell), NULL, memory_order_release);
            return;
        }
        atomic_store_explicit(&places_of(compact, cell)[t], head, memory_order_release);
    }
}

void
scio_compact_put_broken(scio_compact *compact, int64_t cell)
{
    if (claim(compact, cell))
        atomic_store_explicit(places_of(compact, cell), &BROKEN, memory_order_release);
}

/* ---- reading ---- */

bool
scio_compact_is_full(const scio_compact *compact)
{
    return atomic_load_explicit(&compact->is_full, memory_order_relaxed);
}

scio_compact_state
scio_compact_find(const scio_compact *compact, int64_t cell, size_t i_track, scio_row *row)
{
    const scio_row_head *head =
        atomic_load_explicit(places_of(compact, cell), memory_order_acquire);

    if (head == NULL || head == &CLAIMED)
        return SCIO_COMPACT_MISSING;
    if (head == &BROKEN)
        return SCIO_COMPACT_BROKEN;
    if (row == NULL)
        return SCIO_COMPACT_HELD;
    if (i_track > 0)
        head = atomic_load_explicit(&places_of(compact, cell)[i_track], memory_order_relaxed);
    scio_row_read(head, row);
    row->cell = cell;
    return SCIO_COMPACT_HELD;
}

void
scio_compact_prefetch_place(const scio_compact *compact, int64_t cell)
{
    __builtin_prefetch((const void *)places_of(compact, cell), 0, 2);
}

void
scio_compact_prefetch_row(const scio_compact *compact, int64_t cell)
{
    __builtin_prefetch(atomic_load_explicit(places_of(compact, cell), memory_order_relaxed), 0, 2);
}

size_t
scio_compact_missing(const scio_compact *compact, const int64_t *cells, size_t n_cells,
                     int64_t *out)
{
    const size_t n = cells != NULL ? n_cells : (size_t)compact->n_cells;
    size_t n_missing = 0;

    for (size_t i = 0; i < n; i++) {
        const int64_t cell = cells != NULL ? cells[i] : (int64_t)i;
        if (scio_compact_find(compact, cell, 0, NULL) == SCIO_COMPACT_MISSING)
            out[n_missing++] = cell;
    }
    return n_missing;
}

int64_t
scio_compact_n_cells(const scio_compact *compact)
{
    return compact->n_cells;
}

size_t
scio_compact_n_tracks(const scio_compact *compact)
{
    return compact->n_tracks;
}

uint64_t
scio_compact_nbytes(const scio_compact *compact)
{
    scio_compact *const unlocked = (scio_compact *)(uintptr_t)compact;

    pthread_mutex_lock(&unlocked->mutex);
    const uint64_t nbytes = compact->nbytes;
    pthread_mutex_unlock(&unlocked->mutex);
    return nbytes;
}

uint64_t
scio_compact_max_nbytes(const scio_compact *compact)
{
    return compact->max_nbytes;
}

/* ---- bounds ---- */

uint64_t
scio_compact_least_nbytes(uint64_t n_cells, uint64_t n_items, bool is_dense)
{
    return scio_mul_capped(n_cells, sizeof(scio_row_head *) + sizeof(scio_row_head)) +
           scio_mul_capped(n_items, is_dense ? 1 : 3);
}

uint64_t
scio_compact_most_nbytes(uint64_t n_cells, uint64_t n_items, bool is_dense, size_t value_itemsize)
{
    const uint64_t rows =
        scio_mul_capped(n_cells, sizeof(scio_row_head) + 12) +
        scio_mul_capped(n_items, value_itemsize + (is_dense ? 0 : sizeof(uint32_t)));

    return scio_mul_capped(n_cells, sizeof(scio_row_head *)) + rows + rows / 32;
}
