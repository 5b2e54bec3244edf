/* Chunked datasets: made, appended to, finished.  Rows are handed on in whole bands; what does not
 * fill one waits in `band`, so that where appends were cut does not show in the chunks. */
#include "h5write/chunked.h"

#include "base/mem.h"
#include "h5write/scratch.h"
#include "h5write/writer_private.h"

#include <string.h>

/* ---- making ---- */

static scio_status
check_spec(const scio_h5_chunked_spec *spec, scio_error *err)
{
    if (spec->rank < 1 || spec->rank > SCIO_H5_WRITER_MAX_RANK)
        return scio_fail(err, SCIO_EINVAL, "rank %u, expected 1 to %d", spec->rank,
                         SCIO_H5_WRITER_MAX_RANK);
    if (scio_h5_has_text(&spec->element))
        return scio_fail(err, SCIO_ETYPE, "text of any length is not written in chunks");
    if (spec->level < SCIO_DEFLATE_NONE || spec->level > SCIO_DEFLATE_MAX_LEVEL)
        return scio_fail(err, SCIO_EINVAL, "deflate level %d, expected 0 to %d", spec->level,
                         SCIO_DEFLATE_MAX_LEVEL);
    for (unsigned i = 0; i < spec->rank; i++) {
        if (spec->chunk_dims[i] == 0)
            return scio_fail(err, SCIO_EINVAL, "chunks[%u] is 0, expected at least 1", i);
        if (i > 0 && spec->dims[i] == SCIO_H5_UNLIMITED)
            return scio_fail(err, SCIO_EINVAL, "shape[%u] is not known; only the first may be so",
                             i);
        if (spec->dims[i] != SCIO_H5_UNLIMITED && spec->max_dims[i] < spec->dims[i])
            return scio_fail(err, SCIO_EINVAL, "maxshape[%u] is %llu, less than shape[%u], %llu", i,
                             (unsigned long long)spec->max_dims[i], i,
                             (unsigned long long)spec->dims[i]);
    }
    return SCIO_OK;
}

/* libhdf5 wants no chunk beyond a fixed size and none of size 0: an axis without items may grow. */
static uint64_t
max_dim_of(const scio_h5_chunked_spec *spec, unsigned axis)
{
    return spec->max_dims[axis] == 0 || spec->dims[axis] == SCIO_H5_UNLIMITED
               ? SCIO_H5_UNLIMITED
               : spec->max_dims[axis];
}

/* Sizes in bytes and chunks; everything that could overflow is found here. */
static scio_status
measure(const scio_h5_chunked_spec *spec, scio_h5_chunked *c, scio_error *err)
{
    uint64_t row_n = 1, chunk_n = 1, n_columns = 1, nbytes;
    bool is_ok = true;

    c->is_plain = true;
    for (unsigned i = 0; i < c->rank; i++) {
        const uint64_t limit = max_dim_of(spec, i);

        c->chunk_dims[i] = spec->chunk_dims[i] < limit ? spec->chunk_dims[i] : limit;
        c->dims[i] = i == 0 && spec->dims[0] == SCIO_H5_UNLIMITED ? 0 : spec->dims[i];
        is_ok = is_ok && scio_mul_u64(chunk_n, c->chunk_dims[i], &chunk_n);
        if (i == 0)
            continue;
        is_ok = is_ok && scio_mul_u64(row_n, c->dims[i], &row_n);
        n_columns *= c->dims[i] / c->chunk_dims[i] + (c->dims[i] % c->chunk_dims[i] != 0);
        c->is_plain = c->is_plain && c->dims[i] == c->chunk_dims[i];
    }
    is_ok = is_ok && scio_mul_u64(row_n, c->itemsize, &row_n) &&
            scio_mul_u64(chunk_n, c->itemsize, &chunk_n) && row_n <= INT64_MAX &&
            scio_mul_u64(row_n, c->dims[0] + 1, &nbytes) && nbytes <= INT64_MAX;
    if (!is_ok || !scio_mul_u64(row_n, c->chunk_dims[0], &nbytes) || nbytes > INT64_MAX)
        return scio_fail(err, SCIO_EINVAL, "more items than a file has bytes");
    c->row_nbytes = (size_t)row_n;
    c->chunk_nbytes = (size_t)chunk_n;
    c->n_columns = row_n == 0 ? 0 : (size_t)n_columns;
    return scio_encode_bound(&c->filters, c->chunk_nbytes, &c->bound_nbytes, err);
}

/* No times in the file; filters in h5py's order.  The fill time stays: it costs nothing, since
 * whole chunks are written, and whoever makes the dataset longer later on finds zeros there. */
static hid_t
make_create_list(const scio_h5_chunked *c, const scio_h5_chunked_spec *spec)
{
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK];

    for (unsigned i = 0; i < c->rank; i++)
        dims[i] = c->chunk_dims[i];
    if (list >= 0 &&
        (H5Pset_obj_track_times(list, 0) < 0 || H5Pset_chunk(list, (int)c->rank, dims) < 0 ||
         (spec->shuffle && H5Pset_shuffle(list) < 0) ||
         (spec->level >= 0 && H5Pset_deflate(list, (unsigned)spec->level) < 0) ||
         (spec->fletcher32 && H5Pset_fletcher32(list) < 0))) {
        (void)H5Pclose(list);
        return -1;
    }
    return list;
}

static hid_t
make_chunked_space(const scio_h5_chunked *c, const scio_h5_chunked_spec *spec)
{
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK], max_dims[SCIO_H5_WRITER_MAX_RANK];

    for (unsigned i = 0; i < c->rank; i++) {
        const uint64_t limit = max_dim_of(spec, i);

        dims[i] = c->dims[i];
        max_dims[i] = limit == SCIO_H5_UNLIMITED ? H5S_UNLIMITED : limit;
    }
    return H5Screate_simple((int)c->rank, dims, max_dims);
}

static scio_status
make_chunked(scio_h5_chunked *c, const scio_h5_chunked_spec *spec, scio_error *err)
{
    const hid_t create = make_create_list(c, spec), link = scio_h5_make_link_list();
    const hid_t type = scio_h5_make_type(&spec->element), space = make_chunked_space(c, spec);
    scio_status status;

    if (create >= 0 && link >= 0 && type >= 0 && space >= 0)
        c->dataset = H5Dcreate2(c->writer->file, c->path, type, space, link, create, H5P_DEFAULT);
    status = c->dataset < 0 ? scio_h5_library_error("making the dataset", err) : SCIO_OK;
    if (space >= 0)
        (void)H5Sclose(space);
    if (type >= 0)
        (void)H5Tclose(type);
    if (link >= 0)
        (void)H5Pclose(link);
    if (create >= 0)
        (void)H5Pclose(create);
    return status;
}

static void
free_chunked(scio_h5_chunked *c)
{
    if (c == NULL)
        return;
    scio_mem_free(c->band);
    scio_mem_free(c->path);
    scio_mem_free(c);
}

static scio_status
new_chunked(scio_h5_writer *writer, const char *path, const scio_h5_chunked_spec *spec,
            scio_h5_chunked **out, scio_error *err)
{
    scio_h5_chunked *c;

    SCIO_TRY(check_spec(spec, err));
    SCIO_TRY(scio_mem_zalloc(1, sizeof *c, out, err));
    c = *out;
    c->writer = writer;
    c->dataset = -1;
    c->rank = spec->rank;
    c->itemsize = spec->element.nbytes;
    c->n_expected = spec->dims[0];
    c->max_parallel = SIZE_MAX;
    c->filters = (scio_encode_spec){.itemsize = spec->shuffle ? c->itemsize : 0,
                                    .level = spec->level,
                                    .fletcher32 = spec->fletcher32};
    SCIO_TRY(scio_mem_strndup(path, strlen(path), &c->path, err));
    return measure(spec, c, err);
}

scio_status
scio_h5_chunked_new(scio_h5_writer *writer, const char *path, const scio_h5_chunked_spec *spec,
                    scio_h5_chunked **out, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT;
    scio_h5_chunked *c = NULL;
    scio_h5_turn turn;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_h5_writer_check(writer, err));
    status = new_chunked(writer, path, spec, &c, err);
    if (status != SCIO_OK) { /* nothing has happened to the file */
        free_chunked(c);
        scio_context(err, "%s: %s", writer->path, path);
        return status;
    }
    scio_h5_turn_begin(&turn);
    (void)make_chunked(c, spec, &own);
    scio_h5_turn_end(&turn);
    c->next = writer->chunked;
    writer->chunked = c;
    SCIO_TRY(scio_h5_writer_settle(writer, &own, path, err));
    *out = c;
    return SCIO_OK;
}

/* ---- appending ---- */

/* Adds to the band what fits; hands it on when it is full. */
static scio_status
fill_band(scio_h5_chunked *c, const uint8_t **rows, uint64_t *n_rows, size_t max_parallel,
          const volatile int *cancel, scio_error *err)
{
    const uint64_t n_band = c->chunk_dims[0], n_room = n_band - c->n_waiting;
    const uint64_t n_taken = *n_rows < n_room ? *n_rows : n_room;
    const size_t nbytes = (size_t)n_taken * c->row_nbytes;

    if (c->band == NULL)
        SCIO_TRY(scio_mem_alloc((size_t)n_band, c->row_nbytes, &c->band, err));
    memcpy(c->band + (size_t)c->n_waiting * c->row_nbytes, *rows, nbytes);
    *rows += nbytes;
    *n_rows -= n_taken;
    c->n_waiting += n_taken;
    if (c->n_waiting < n_band)
        return SCIO_OK;
    c->n_waiting = 0;
    return scio_h5_chunked_place(c, c->band, n_band, max_parallel, cancel, err);
}

static scio_status
append(scio_h5_chunked *c, const uint8_t *rows, uint64_t n_rows, size_t max_parallel,
       const volatile int *cancel, scio_error *err)
{
    uint64_t n_whole;

    if (c->n_waiting > 0)
        SCIO_TRY(fill_band(c, &rows, &n_rows, max_parallel, cancel, err));
    n_whole = n_rows - n_rows % c->chunk_dims[0];
    if (n_whole > 0)
        SCIO_TRY(scio_h5_chunked_place(c, rows, n_whole, max_parallel, cancel, err));
    rows += (size_t)n_whole * c->row_nbytes;
    n_rows -= n_whole;
    return n_rows > 0 ? fill_band(c, &rows, &n_rows, max_parallel, cancel, err) : SCIO_OK;
}

scio_status
scio_h5_chunked_append(scio_h5_chunked *c, const void *rows, uint64_t n_rows, size_t max_parallel,
                       const volatile int *cancel, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT, cause = SCIO_ERROR_INIT;
    uint64_t n_after = 0, nbytes;

    SCIO_TRY(scio_h5_writer_check(c->writer, err));
    if (!scio_add_u64(c->n_rows, n_rows, &n_after) ||
        !scio_mul_u64(n_after, c->row_nbytes, &nbytes) || nbytes > INT64_MAX ||
        (c->n_expected != SCIO_H5_UNLIMITED && n_after > c->n_expected))
        return scio_fail(err, SCIO_EINVAL,
                         "%s: %s: %llu rows after %llu are more than the %llu of the dataset",
                         c->writer->path, c->path, (unsigned long long)n_rows,
                         (unsigned long long)c->n_rows, (unsigned long long)c->n_expected);
    c->n_rows = n_after;
    c->max_parallel = max_parallel;
    if (n_rows > 0 && c->row_nbytes > 0 &&
        append(c, rows, n_rows, max_parallel, cancel, &cause) == SCIO_ECANCEL)
        (void)scio_fail(&own, SCIO_EWRITE, "an append was interrupted, the dataset is not whole");
    scio_error_move(&own, &cause);
    return scio_h5_writer_settle(c->writer, &own, c->path, err);
}

/* ---- ending ---- */

static void
unlist(scio_h5_chunked *c)
{
    scio_h5_chunked **at = &c->writer->chunked;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

/* Rows without bytes are placed nowhere, so the size of such a dataset is set here. */
static scio_status
set_rows(scio_h5_chunked *c, scio_error *err)
{
    hsize_t dims[SCIO_H5_WRITER_MAX_RANK];

    if (c->dims[0] == c->n_rows)
        return SCIO_OK;
    c->dims[0] = c->n_rows;
    for (unsigned i = 0; i < c->rank; i++)
        dims[i] = c->dims[i];
    return H5Dset_extent(c->dataset, dims) < 0
               ? scio_h5_library_error("setting the dataset's size", err)
               : SCIO_OK;
}

static scio_status
finish(scio_h5_chunked *c, scio_error *err)
{
    scio_status status = SCIO_OK;
    scio_h5_turn turn;

    if (c->n_expected != SCIO_H5_UNLIMITED && c->n_rows < c->n_expected)
        status = scio_fail(err, SCIO_EINVAL, "%llu rows were appended to a dataset of %llu",
                           (unsigned long long)c->n_rows, (unsigned long long)c->n_expected);
    else if (c->n_waiting > 0)
        status = scio_h5_chunked_place(c, c->band, c->n_waiting, c->max_parallel, NULL, err);
    scio_h5_turn_begin(&turn);
    if (status == SCIO_OK)
        status = set_rows(c, err);
    if (H5Dclose(c->dataset) < 0)
        status = scio_h5_library_error("closing the dataset", err);
    scio_h5_turn_end(&turn);
    c->dataset = -1;
    return status;
}

scio_status
scio_h5_chunked_finish(scio_h5_chunked *c, uint64_t *stored_nbytes_out, scio_error *err)
{
    scio_h5_writer *const writer = c->writer;
    scio_error own = SCIO_ERROR_INIT;
    scio_status status;

    SCIO_TRY(scio_h5_writer_check(writer, err)); /* libhdf5's part ends with the writer */
    (void)finish(c, &own);
    if (stored_nbytes_out != NULL)
        *stored_nbytes_out = c->stored_nbytes;
    status = scio_h5_writer_settle(writer, &own, c->path, err);
    unlist(c);
    free_chunked(c);
    return status;
}

scio_status
scio_h5_chunked_finish_all(scio_h5_writer *writer, scio_error *err)
{
    while (writer->chunked != NULL) {
        scio_h5_chunked *oldest = writer->chunked;

        while (oldest->next != NULL)
            oldest = oldest->next;
        SCIO_TRY(scio_h5_chunked_finish(oldest, NULL, err));
    }
    return SCIO_OK;
}

void
scio_h5_chunked_free_all(scio_h5_writer *writer, bool is_ours)
{
    while (writer->chunked != NULL) {
        scio_h5_chunked *const c = writer->chunked;

        writer->chunked = c->next;
        if (is_ours && c->dataset >= 0)
            (void)H5Dclose(c->dataset);
        free_chunked(c);
    }
}
