/* Each cell is claimed in a bitmap before it is written, so two loaders may bring the same cell;
 * the count of finished cells goes up behind the write.  A thread that puts is counted while it
 * does, and whoever closes waits for that count: a descriptor is never closed under a write, where
 * its number could belong to another file by then. */
#include "load/sink.h"

#include "base/mem.h"
#include "base/pwrite.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct sink_array {
    scio_sink_array spec;
    int64_t *indptr; /* owned */
} sink_array;

typedef struct sink_source {
    int fd; /* -1 when there is none */
    char *path;
    int64_t *cells; /* NULL = first_cell … */
    int64_t n_cells, first_cell;
    sink_array *arrays; /* [n_tracks] */
    _Atomic uint64_t *claimed;
} sink_source;

struct scio_sink {
    atomic_size_t n_refs;
    size_t n_sources, n_tracks;
    sink_source *sources;
    int64_t n_cells;
    pid_t pid;
    _Atomic int64_t n_put;
    atomic_bool is_closed;
    atomic_size_t n_busy; /* threads inside put */
    pthread_mutex_t mutex;
    scio_error failure; /* guarded by the mutex, as the descriptors are */
};

enum { BITS = 64 };

/* ---- making ---- */

static scio_status
copy_items(const int64_t *items, size_t n_items, int64_t **out, scio_error *err)
{
    SCIO_TRY(scio_mem_alloc(n_items, sizeof *items, out, err));
    if (n_items > 0)
        memcpy(*out, items, n_items * sizeof *items);
    return SCIO_OK;
}

/* The end of an array must be a place that a file can have. */
static scio_status
check_extent(const char *path, const char *what, uint64_t offset, uint64_t n_items,
             scio_dtype dtype, scio_error *err)
{
    uint64_t nbytes, end;

    if (scio_dtype_itemsize(dtype) == 0)
        return scio_fail(err, SCIO_EINVAL, "%s: the dtype of %s is not a number", path, what);
    if (!scio_mul_u64(n_items, scio_dtype_itemsize(dtype), &nbytes) ||
        !scio_add_u64(offset, nbytes, &end) || end > INT64_MAX)
        return scio_fail(err, SCIO_EINVAL,
                         "%s: %" PRIu64 " items of %s at offset %" PRIu64 " do not fit a file",
                         path, n_items, what, offset);
    return SCIO_OK;
}

static scio_status
check_indptr(const char *path, const int64_t *indptr, int64_t n_cells, scio_error *err)
{
    if (indptr == NULL || indptr[0] != 0)
        return scio_fail(err, SCIO_EINVAL, "%s: indptr does not begin with 0", path);
    for (int64_t i = 0; i < n_cells; i++)
        if (indptr[i + 1] < indptr[i])
            return scio_fail(err, SCIO_EINVAL,
                             "%s: indptr[%" PRId64 "] is %" PRId64 ", less than the one before",
                             path, i + 1, indptr[i + 1]);
    return SCIO_OK;
}

static scio_status
array_init(sink_array *array, const scio_sink_array *spec, const char *path, int64_t n_cells,
           scio_error *err)
{
    uint64_t n_items;

    array->spec = *spec;
    array->spec.indptr = NULL;
    if (spec->n_cols < 0)
        return scio_fail(err, SCIO_EINVAL, "%s: n_cols is %" PRId64, path, spec->n_cols);
    if (spec->is_dense) {
        if (!scio_mul_u64((uint64_t)n_cells, (uint64_t)spec->n_cols, &n_items))
            return scio_fail(err, SCIO_EINVAL, "%s: %" PRId64 " x %" PRId64 " values", path,
                             n_cells, spec->n_cols);
        return check_extent(path, "data", spec->data_offset, n_items, spec->data_dtype, err);
    }
    SCIO_TRY(check_indptr(path, spec->indptr, n_cells, err));
    n_items = (uint64_t)spec->indptr[n_cells];
    SCIO_TRY(check_extent(path, "data", spec->data_offset, n_items, spec->data_dtype, err));
    SCIO_TRY(
        check_extent(path, "indices", spec->indices_offset, n_items, spec->indices_dtype, err));
    SCIO_TRY(copy_items(spec->indptr, (size_t)n_cells + 1, &array->indptr, err));
    array->spec.indptr = array->indptr;
    return SCIO_OK;
}

static uint64_t
end_of(const scio_sink_array *array, int64_t n_cells)
{
    const uint64_t n_items =
        (uint64_t)(array->is_dense ? n_cells * array->n_cols : array->indptr[n_cells]);
    const uint64_t data = array->data_offset + n_items * scio_dtype_itemsize(array->data_dtype);
    const uint64_t indices =
        array->is_dense
            ? 0
            : array->indices_offset + n_items * scio_dtype_itemsize(array->indices_dtype);

    return data > indices ? data : indices;
}

/* A disk that is too small says so now and not in the middle of an epoch; where the file system
 * cannot set space aside, it says so then. */
static scio_status
set_space_aside(const sink_source *source, size_t n_tracks, scio_error *err)
{
    uint64_t end = 0;
    int result;

    for (size_t i = 0; i < n_tracks; i++) {
        const uint64_t own = end_of(&source->arrays[i].spec, source->n_cells);
        end = own > end ? own : end;
    }
    if (end == 0)
        return SCIO_OK;
    do {
        result = fallocate(source->fd, 0, 0, (off_t)end);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return scio_fail_errno(err, SCIO_EWRITE, errno, "setting aside %" PRIu64 " bytes for %s",
                               end, source->path);
    return SCIO_OK;
}

static scio_status
source_init(sink_source *source, const scio_sink_source *spec, size_t n_tracks, scio_error *err)
{
    source->n_cells = spec->n_cells;
    source->first_cell = spec->first_cell;
    if (spec->n_cells < 0 || spec->first_cell < 0)
        return scio_fail(err, SCIO_EINVAL, "%s: n_cells is %" PRId64 ", first_cell %" PRId64,
                         spec->path, spec->n_cells, spec->first_cell);
    for (int64_t i = 1; spec->cells != NULL && i < spec->n_cells; i++)
        if (spec->cells[i] <= spec->cells[i - 1])
            return scio_fail(err, SCIO_EINVAL, "%s: cells do not ascend at %" PRId64, spec->path,
                             i);
    SCIO_TRY(scio_mem_strndup(spec->path, strlen(spec->path), &source->path, err));
    if (spec->cells != NULL)
        SCIO_TRY(copy_items(spec->cells, (size_t)spec->n_cells, &source->cells, err));
    SCIO_TRY(scio_mem_zalloc((size_t)spec->n_cells / BITS + 1, sizeof *source->claimed,
                             &source->claimed, err));
    SCIO_TRY(scio_mem_zalloc(n_tracks, sizeof *source->arrays, &source->arrays, err));
    for (size_t i = 0; i < n_tracks; i++)
        SCIO_TRY(array_init(&source->arrays[i], &spec->arrays[i], spec->path, spec->n_cells, err));
    do {
        source->fd = open(spec->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } while (source->fd < 0 && errno == EINTR);
    if (source->fd < 0)
        return scio_fail_errno(err, SCIO_EWRITE, errno, "cannot open %s for writing", spec->path);
    return set_space_aside(source, n_tracks, err);
}

static void
sink_free(scio_sink *sink)
{
    for (size_t i = 0; sink->sources != NULL && i < sink->n_sources; i++) {
        sink_source *const source = &sink->sources[i];
        for (size_t j = 0; source->arrays != NULL && j < sink->n_tracks; j++)
            scio_mem_free(source->arrays[j].indptr);
        scio_mem_free(source->arrays);
        scio_mem_free(source->claimed);
        scio_mem_free(source->cells);
        scio_mem_free(source->path);
    }
    scio_mem_free(sink->sources);
    (void)pthread_mutex_destroy(&sink->mutex);
    scio_mem_free(sink);
}

scio_status
scio_sink_new(const scio_sink_source *sources, size_t n_sources, size_t n_tracks, scio_sink **out,
              scio_error *err)
{
    scio_sink *sink = NULL;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *sink, &sink, err));
    atomic_init(&sink->n_refs, 1);
    atomic_init(&sink->n_put, 0);
    atomic_init(&sink->is_closed, false);
    atomic_init(&sink->n_busy, 0);
    (void)pthread_mutex_init(&sink->mutex, NULL);
    sink->n_sources = n_sources;
    sink->n_tracks = n_tracks;
    sink->pid = getpid();
    status = scio_mem_zalloc(n_sources, sizeof *sink->sources, &sink->sources, err);
    for (size_t i = 0; status == SCIO_OK && i < n_sources; i++)
        sink->sources[i].fd = -1;
    for (size_t i = 0; status == SCIO_OK && i < n_sources; i++) {
        status = source_init(&sink->sources[i], &sources[i], n_tracks, err);
        sink->n_cells += sources[i].n_cells;
    }
    if (status != SCIO_OK) {
        scio_sink_release(sink);
        return status;
    }
    *out = sink;
    return SCIO_OK;
}

scio_sink *
scio_sink_retain(scio_sink *sink)
{
    if (sink != NULL)
        atomic_fetch_add_explicit(&sink->n_refs, 1, memory_order_relaxed);
    return sink;
}

void
scio_sink_release(scio_sink *sink)
{
    if (sink == NULL || atomic_fetch_sub_explicit(&sink->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    scio_sink_close(sink);
    sink_free(sink);
}

/* ---- putting ---- */

/* The first failure is kept; from now on nothing is written. */
static void
close_with(scio_sink *sink, const scio_error *failure)
{
    (void)pthread_mutex_lock(&sink->mutex);
    scio_error_move(&sink->failure, failure);
    (void)pthread_mutex_unlock(&sink->mutex);
    atomic_store(&sink->is_closed, true);
}

/* Row of the file that the cell is, -1 when it is none. */
static int64_t
row_of(const sink_source *source, int64_t cell)
{
    int64_t low = 0, high = source->n_cells;

    if (source->cells == NULL)
        return cell >= source->first_cell && cell - source->first_cell < source->n_cells
                   ? cell - source->first_cell
                   : -1;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (source->cells[middle] < cell)
            low = middle + 1;
        else
            high = middle;
    }
    return low < source->n_cells && source->cells[low] == cell ? low : -1;
}

static scio_status
write_bytes(const sink_source *source, const void *data, size_t nbytes, uint64_t offset,
            scio_error *err)
{
    const int cause = scio_pwrite(source->fd, data, nbytes, offset);

    if (cause != 0)
        return scio_fail_errno(err, SCIO_EWRITE, cause, "writing %zu bytes at %" PRIu64, nbytes,
                               offset);
    return SCIO_OK;
}

/* n_items of `from_dtype` as `to_dtype` to the offset; in place where the dtypes are equal. */
static scio_status
write_items(const sink_source *source, scio_dtype from_dtype, const void *from, scio_dtype to_dtype,
            size_t n_items, uint64_t offset, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(to_dtype);
    void *converted = NULL;
    scio_status status;

    if (n_items == 0)
        return SCIO_OK;
    if (from_dtype == to_dtype)
        return write_bytes(source, from, n_items * itemsize, offset, err);
    SCIO_TRY(scio_mem_alloc(n_items, itemsize, &converted, err));
    status = scio_cast(from_dtype, from, to_dtype, converted, n_items, err);
    if (status != SCIO_OK)
        scio_context(err, "as %s", scio_dtype_name(to_dtype));
    else
        status = write_bytes(source, converted, n_items * itemsize, offset, err);
    scio_mem_free(converted);
    return status;
}

/* A row that came sparse (what is zero was left out) into its place in a dense matrix. */
static scio_status
write_scattered(const sink_source *source, const scio_sink_array *array, const scio_row *row,
                uint64_t offset, scio_error *err)
{
    const size_t itemsize = scio_dtype_itemsize(array->data_dtype), n_cols = (size_t)array->n_cols;
    char *dense = NULL, *values = NULL;
    int64_t *columns = NULL;
    scio_status status;

    status = scio_mem_zalloc(n_cols, itemsize, &dense, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(row->n_items, itemsize, &values, err);
    if (status == SCIO_OK)
        status = scio_mem_alloc(row->n_items, sizeof *columns, &columns, err);
    if (status == SCIO_OK)
        status =
            scio_cast(row->value_dtype, row->values, array->data_dtype, values, row->n_items, err);
    if (status == SCIO_OK)
        status = scio_cast(row->index_dtype, row->indices, SCIO_I64, columns, row->n_items, err);
    for (size_t i = 0; status == SCIO_OK && i < row->n_items; i++) {
        if (columns[i] < 0 || columns[i] >= array->n_cols)
            status = scio_fail(err, SCIO_EBUG, "column %" PRId64 " of %" PRId64, columns[i],
                               array->n_cols);
        else
            memcpy(dense + (size_t)columns[i] * itemsize, values + i * itemsize, itemsize);
    }
    if (status == SCIO_OK)
        status = write_bytes(source, dense, n_cols * itemsize, offset, err);
    scio_mem_free(columns);
    scio_mem_free(values);
    scio_mem_free(dense);
    return status;
}

static scio_status
write_row(const sink_source *source, const scio_sink_array *array, int64_t i_row,
          const scio_row *row, scio_error *err)
{
    const bool is_dense = array->is_dense;
    const uint64_t first = (uint64_t)(is_dense ? i_row * array->n_cols : array->indptr[i_row]);
    const uint64_t n_expected =
        is_dense ? (uint64_t)array->n_cols : (uint64_t)array->indptr[i_row + 1] - first;
    const uint64_t data_at = array->data_offset + first * scio_dtype_itemsize(array->data_dtype);

    if (is_dense && row->indices != NULL)
        return write_scattered(source, array, row, data_at, err);
    if (row->n_items != n_expected || (!is_dense && row->indices == NULL && n_expected > 0))
        return scio_fail(err, SCIO_EBUG, "%zu %s values came, %" PRIu64 " were announced",
                         row->n_items, row->indices == NULL ? "dense" : "sparse", n_expected);
    SCIO_TRY(write_items(source, row->value_dtype, row->values, array->data_dtype, row->n_items,
                         data_at, err));
    if (is_dense)
        return SCIO_OK;
    return write_items(source, row->index_dtype, row->indices, array->indices_dtype, row->n_items,
                       array->indices_offset + first * scio_dtype_itemsize(array->indices_dtype),
                       err);
}

static void
put_busy(scio_sink *sink, sink_source *source, int64_t cell, const scio_row *rows)
{
    const int64_t i_row = row_of(source, cell);
    scio_error failure = SCIO_ERROR_INIT;
    scio_status status = SCIO_OK;

    if (i_row < 0)
        return;
    const uint64_t bit = UINT64_C(1) << ((uint64_t)i_row % BITS);
    if ((atomic_fetch_or(&source->claimed[i_row / BITS], bit) & bit) != 0)
        return;
    for (size_t i = 0; i < sink->n_tracks && status == SCIO_OK; i++)
        status = write_row(source, &source->arrays[i].spec, i_row, &rows[i], &failure);
    if (status == SCIO_OK) {
        atomic_fetch_add(&sink->n_put, 1);
        return;
    }
    scio_context(&failure, "%s: cell %" PRId64, source->path, cell);
    close_with(sink, &failure);
}

void
scio_sink_put(scio_sink *sink, size_t i_source, int64_t cell, const scio_row *rows)
{
    if (sink->pid != getpid() || i_source >= sink->n_sources)
        return;
    /* Counted first, looked at then: whoever closes sets the flag first and looks at the count
     * then, so that one of the two sees the other. */
    atomic_fetch_add(&sink->n_busy, 1);
    if (!atomic_load(&sink->is_closed))
        put_busy(sink, &sink->sources[i_source], cell, rows);
    atomic_fetch_sub(&sink->n_busy, 1);
}

/* ---- looking, ending ---- */

bool
scio_sink_is_closed(const scio_sink *sink)
{
    return atomic_load(&sink->is_closed);
}

int64_t
scio_sink_n_put(const scio_sink *sink)
{
    return atomic_load(&sink->n_put);
}

int64_t
scio_sink_n_cells(const scio_sink *sink)
{
    return sink->n_cells;
}

size_t
scio_sink_n_tracks(const scio_sink *sink)
{
    return sink->n_tracks;
}

bool
scio_sink_failure(const scio_sink *sink, scio_error *out)
{
    scio_sink *const mutable = (scio_sink *)(uintptr_t)sink; /* the mutex is no part of its value */

    (void)pthread_mutex_lock(&mutable->mutex);
    *out = sink->failure;
    (void)pthread_mutex_unlock(&mutable->mutex);
    return out->code != SCIO_OK;
}

size_t
scio_sink_missing(const scio_sink *sink, int64_t *cells_out, size_t n_room)
{
    size_t n_missing = 0;

    for (size_t i = 0; i < sink->n_sources; i++) {
        const sink_source *const source = &sink->sources[i];
        for (int64_t row = 0; row < source->n_cells && n_missing < n_room; row++) {
            const uint64_t bits = atomic_load(&source->claimed[row / BITS]);
            if ((bits >> ((uint64_t)row % BITS) & 1) == 0)
                cells_out[n_missing++] =
                    source->cells != NULL ? source->cells[row] : source->first_cell + row;
        }
    }
    return n_missing;
}

scio_status
scio_sink_sync(scio_sink *sink, scio_error *err)
{
    scio_error failure = SCIO_ERROR_INIT;

    (void)pthread_mutex_lock(&sink->mutex);
    scio_error_move(&failure, &sink->failure);
    for (size_t i = 0; i < sink->n_sources && failure.code == SCIO_OK; i++) {
        if (sink->sources[i].fd < 0)
            (void)scio_fail(&failure, SCIO_EINVAL, "the sink was closed");
        else {
            const int cause = scio_fsync(sink->sources[i].fd);

            if (cause != 0)
                (void)scio_fail_errno(&failure, SCIO_EWRITE, cause, "fsync of %s",
                                      sink->sources[i].path);
        }
    }
    (void)pthread_mutex_unlock(&sink->mutex);
    if (failure.code == SCIO_OK)
        return SCIO_OK;
    if (failure.code == SCIO_EWRITE)
        close_with(sink, &failure);
    scio_error_move(err, &failure);
    return failure.code;
}

static void
close_files(scio_sink *sink)
{
    for (size_t i = 0; sink->sources != NULL && i < sink->n_sources; i++) {
        if (sink->sources[i].fd >= 0)
            (void)close(sink->sources[i].fd);
        sink->sources[i].fd = -1;
    }
}

void
scio_sink_close(scio_sink *sink)
{
    const struct timespec pause = {0, 50000};

    atomic_store(&sink->is_closed, true);
    if (sink->pid != getpid()) { /* nobody else is here, and the mutex may have come over locked */
        close_files(sink);
        return;
    }
    while (atomic_load(&sink->n_busy) > 0)
        (void)nanosleep(&pause, NULL);
    (void)pthread_mutex_lock(&sink->mutex);
    close_files(sink);
    (void)pthread_mutex_unlock(&sink->mutex);
}
