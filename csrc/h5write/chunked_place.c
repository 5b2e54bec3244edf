/* A batch of chunks at a time: any thread compresses the next one, and whoever finds the chunk that
 * is due ready places it and those behind it, while the others go on compressing. */
#include "base/mem.h"
#include "base/pool.h"
#include "h5write/scratch.h"
#include "h5write/writer_private.h"

#include <pthread.h>
#include <string.h>

/* Of chunks in work, unless a chunk is so large that the threads need more. */
#define BATCH_NBYTES ((size_t)16 << 20)
#define BATCH_MAX_CHUNKS ((size_t)256)

typedef struct ready_chunk {
    const void *data; /* NULL until it may be placed */
    size_t nbytes;
} ready_chunk;

typedef struct batch {
    scio_h5_chunked *chunked;
    scio_h5_write_scratch *scratch;
    const uint8_t *rows; /* of the first band of all batches */
    uint64_t n_valid;    /* rows from there on */
    uint64_t i_band;     /* of the dataset, where `rows` begins */
    size_t i_first, n_chunks;
    ready_chunk *ready; /* [n_chunks], guarded by mutex */
    size_t n_placed;    /* guarded by mutex */
    bool is_placing;    /* guarded by mutex: a thread is in libhdf5 for this batch */
    pthread_mutex_t mutex;
} batch;

/* ---- one chunk ---- */

/* Where chunk i_column of a band begins, in items of each axis; [0] is the band's own. */
static void
chunk_start(const scio_h5_chunked *c, uint64_t i_band, size_t i_column,
            hsize_t start[SCIO_H5_WRITER_MAX_RANK])
{
    for (unsigned i = c->rank - 1; i > 0; i--) {
        const uint64_t chunk = c->chunk_dims[i];
        const uint64_t n_grid = c->dims[i] / chunk + (c->dims[i] % chunk != 0);

        start[i] = i_column % n_grid * chunk;
        i_column /= (size_t)n_grid;
    }
    start[0] = i_band * c->chunk_dims[0];
}

/* The chunk at `start` (whose [0] counts from `rows`) as it is stored, zeros where the dataset has
 * no items. */
static void
gather(const scio_h5_chunked *c, const uint8_t *rows, uint64_t n_rows, const hsize_t *start,
       uint8_t *out)
{
    const unsigned last = c->rank - 1;
    uint64_t count[SCIO_H5_WRITER_MAX_RANK], at[SCIO_H5_WRITER_MAX_RANK] = {0};
    uint64_t n_runs = 1;
    size_t run_nbytes;

    for (unsigned i = 0; i < c->rank; i++) {
        const uint64_t left = i == 0 ? n_rows : c->dims[i] - start[i];

        count[i] = left < c->chunk_dims[i] ? left : c->chunk_dims[i];
        n_runs *= i < last ? count[i] : 1;
    }
    run_nbytes = (size_t)count[last] * c->itemsize;
    memset(out, 0, c->chunk_nbytes);
    for (uint64_t i_run = 0; i_run < n_runs; i_run++) {
        uint64_t from = 0, to = 0;

        for (unsigned i = 0; i < c->rank; i++) {
            from = from * (i == 0 ? 1 : c->dims[i]) + at[i] + (i == 0 ? 0 : start[i]);
            to = to * c->chunk_dims[i] + at[i];
        }
        memcpy(out + (size_t)to * c->itemsize, rows + (size_t)from * c->itemsize, run_nbytes);
        for (unsigned i = last; i-- > 0;) { /* the next run */
            if (++at[i] < count[i])
                break;
            at[i] = 0;
        }
    }
}

static bool
has_filters(const scio_h5_chunked *c)
{
    return c->filters.itemsize > 0 || c->filters.level != SCIO_DEFLATE_NONE ||
           c->filters.fletcher32;
}

/* Makes what is to be stored: in `out`, or nothing is made where the rows are it. */
static scio_status
encode(batch *b, size_t i_chunk, size_t slot, ready_chunk *made, scio_error *err)
{
    const scio_h5_chunked *const c = b->chunked;
    const size_t i_column = (b->i_first + i_chunk) % c->n_columns;
    const uint64_t i_row = (b->i_first + i_chunk) / c->n_columns * c->chunk_dims[0];
    const uint64_t n_left = b->n_valid - i_row;
    const uint8_t *chunk = b->rows + (size_t)i_row * c->row_nbytes;
    scio_h5_piece *const out = &b->scratch->outs[i_chunk];
    hsize_t start[SCIO_H5_WRITER_MAX_RANK];

    if (has_filters(c))
        SCIO_TRY(scio_h5_piece_room(out, c->bound_nbytes, err));
    if (!c->is_plain || n_left < c->chunk_dims[0]) {
        scio_h5_piece *const room = has_filters(c) ? &b->scratch->gathered[slot] : out;

        SCIO_TRY(scio_h5_piece_room(room, c->chunk_nbytes, err));
        chunk_start(c, 0, i_column, start);
        gather(c, chunk, n_left, start, room->data);
        chunk = room->data;
    }
    *made = (ready_chunk){chunk, c->chunk_nbytes};
    if (!has_filters(c))
        return SCIO_OK;
    made->data = out->data;
    return scio_encode_chunk(b->scratch->encoders[slot], &c->filters, chunk, c->chunk_nbytes,
                             out->data, out->capacity, &made->nbytes, err);
}

/* ---- placing ---- */

/* Chunks [i_begin, i_end) of the batch.  An error of the disk ends it too: nobody reads on. */
static scio_status
place_run(batch *b, size_t i_begin, size_t i_end, scio_error *err)
{
    scio_h5_chunked *const c = b->chunked;
    scio_status status = SCIO_OK;
    scio_h5_turn turn;

    scio_h5_turn_begin(&turn);
    for (size_t i = i_begin; i < i_end && status == SCIO_OK; i++) {
        const size_t i_chunk = b->i_first + i;
        hsize_t start[SCIO_H5_WRITER_MAX_RANK];

        chunk_start(c, b->i_band + i_chunk / c->n_columns, i_chunk % c->n_columns, start);
        if (H5Dwrite_chunk(c->dataset, H5P_DEFAULT, 0, start, b->ready[i].nbytes,
                           b->ready[i].data) < 0)
            status = scio_h5_library_error("writing a chunk", err);
        else if (c->writer->latch.saved_errno != 0)
            status = scio_fail_errno(err, SCIO_EWRITE, c->writer->latch.saved_errno, "writing");
        c->stored_nbytes += b->ready[i].nbytes;
    }
    scio_h5_turn_end(&turn);
    return status;
}

/* Places all that is ready and due, unless another thread is at it, which then sees this one's. */
static scio_status
place_ready(batch *b, scio_error *err)
{
    scio_status status = SCIO_OK;

    (void)pthread_mutex_lock(&b->mutex);
    if (!b->is_placing) {
        b->is_placing = true;
        while (status == SCIO_OK && b->n_placed < b->n_chunks &&
               b->ready[b->n_placed].data != NULL) {
            const size_t i_begin = b->n_placed;
            size_t i_end = i_begin + 1;

            while (i_end < b->n_chunks && b->ready[i_end].data != NULL)
                i_end++;
            (void)pthread_mutex_unlock(&b->mutex);
            status = place_run(b, i_begin, i_end, err);
            (void)pthread_mutex_lock(&b->mutex);
            b->n_placed = i_end;
        }
        b->is_placing = status != SCIO_OK; /* after a failure nobody places what is behind it */
    }
    (void)pthread_mutex_unlock(&b->mutex);
    return status;
}

static scio_status
do_chunk(void *context, size_t i_chunk, size_t slot, scio_error *err)
{
    batch *const b = context;
    ready_chunk made = {NULL, 0};

    SCIO_TRY(encode(b, i_chunk, slot, &made, err));
    (void)pthread_mutex_lock(&b->mutex);
    b->ready[i_chunk] = made;
    (void)pthread_mutex_unlock(&b->mutex);
    return place_ready(b, err);
}

/* libhdf5 takes no chunk beyond the dataset's size. */
static scio_status
grow(scio_h5_chunked *c, uint64_t n_rows, scio_error *err)
{
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK];
    scio_status status = SCIO_OK;
    scio_h5_turn turn;

    if (n_rows <= c->dims[0])
        return SCIO_OK;
    c->dims[0] = n_rows;
    for (unsigned i = 0; i < c->rank; i++)
        dims[i] = c->dims[i];
    scio_h5_turn_begin(&turn);
    if (H5Dset_extent(c->dataset, dims) < 0)
        status = scio_h5_library_error("growing the dataset", err);
    scio_h5_turn_end(&turn);
    return status;
}

static size_t
batch_n_chunks(const scio_h5_chunked *c, size_t n_slots, size_t n_chunks)
{
    size_t n = BATCH_NBYTES / c->chunk_nbytes;

    n = n < BATCH_MAX_CHUNKS ? n : BATCH_MAX_CHUNKS;
    n = n > 2 * n_slots ? n : 2 * n_slots;
    return n < n_chunks ? n : n_chunks;
}

scio_status
scio_h5_chunked_place(scio_h5_chunked *c, const uint8_t *rows, uint64_t n_valid,
                      size_t max_parallel, const volatile int *cancel, scio_error *err)
{
    const uint64_t n_bands = n_valid / c->chunk_dims[0] + (n_valid % c->chunk_dims[0] != 0);
    const size_t n_chunks = (size_t)n_bands * c->n_columns;
    const size_t n_slots = scio_parallel_n_slots(NULL, max_parallel, n_chunks);
    const size_t n_batch = batch_n_chunks(c, n_slots, n_chunks);
    const uint64_t i_row = c->n_placed_rows;
    batch b = {.chunked = c, .rows = rows, .n_valid = n_valid, .i_band = i_row / c->chunk_dims[0]};
    scio_status status;

    SCIO_TRY(scio_h5_write_scratch_ready(&c->writer->scratch, n_slots, n_batch, err));
    SCIO_TRY(grow(c, i_row + n_valid, err));
    SCIO_TRY(scio_mem_alloc(n_batch, sizeof *b.ready, &b.ready, err));
    b.scratch = c->writer->scratch;
    (void)pthread_mutex_init(&b.mutex, NULL);
    status = SCIO_OK;
    while (status == SCIO_OK && b.i_first < n_chunks) {
        b.n_chunks = n_batch < n_chunks - b.i_first ? n_batch : n_chunks - b.i_first;
        b.n_placed = 0;
        memset(b.ready, 0, b.n_chunks * sizeof *b.ready);
        status = scio_parallel_for(NULL, n_slots, b.n_chunks, do_chunk, &b, cancel, err);
        b.i_first += b.n_chunks;
    }
    (void)pthread_mutex_destroy(&b.mutex);
    scio_mem_free(b.ready);
    c->n_placed_rows += n_valid;
    return status;
}
