/* Datasets of a hostile file: the input is the bytes of an HDF5 file.
 *
 * Nothing may crash, hang or take more memory than the limits below allow, and what is read in
 * different ways must be the same: at once and in two halves, chunk by chunk with and without the
 * final unshuffle, as stored and as float64.  Checksums do not count in a fuzzing build
 * (csrc/h5read/lookup3.c). */
#include "base/mem.h"
#include "h5read/dataset.h"
#include "h5read/object.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NBYTES = 1 << 20, MAX_UNITS = 512, MAX_DATASETS = 4, MAX_SIDE = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* Failures end in a text and are never bugs of ours. */
static bool
is_ok(scio_status status, const scio_error *err)
{
    if (status == SCIO_OK)
        return true;
    if (status == SCIO_EBUG || err->code != status || err->message[0] == '\0')
        abort();
    return false;
}

static void
expect(bool condition)
{
    if (!condition)
        abort();
}

typedef struct box {
    uint64_t start[SCIO_H5_MAX_RANK], count[SCIO_H5_MAX_RANK];
    uint64_t n_items;
} box;

/* The whole dataset when it is small, else a corner or a middle of it. */
static box
choose_box(const scio_h5_dataset *dataset, uint64_t seed)
{
    const scio_h5_space *space = &dataset->space;
    const bool is_whole = dataset->n_units <= MAX_UNITS && dataset->type->itemsize != 0 &&
                          space->n_items <= MAX_NBYTES / dataset->type->itemsize;
    box b = {.n_items = space->space_class == SCIO_H5_NULL ? 0 : 1};

    for (unsigned k = 0; k < space->rank; k++) {
        const uint64_t dim = space->dims[k];

        b.count[k] = is_whole || dim < MAX_SIDE ? dim : MAX_SIDE;
        if (b.n_items != 0 && b.count[k] > MAX_NBYTES / dataset->type->itemsize / b.n_items)
            b.count[k] = 1;
        b.start[k] = (seed >> k % 32) % (dim - b.count[k] + 1);
        b.n_items *= b.count[k];
    }
    return b;
}

static scio_status
read_box(scio_h5_dataset *dataset, const box *b, scio_dtype dtype, uint8_t *out, scio_error *err)
{
    const scio_h5_read_options options = {NULL, 0, NULL};
    const size_t itemsize =
        dtype == SCIO_DTYPE_NONE ? dataset->type->itemsize : scio_dtype_itemsize(dtype);

    return scio_h5_dataset_read(dataset, b->start, b->count, dtype, out,
                                (size_t)b->n_items * itemsize, &options, err);
}

/* Reads `whole` in two halves and compares. */
static void
check_halves(scio_h5_dataset *dataset, const box *whole, scio_dtype dtype, const uint8_t *expected)
{
    const size_t itemsize =
        dtype == SCIO_DTYPE_NONE ? dataset->type->itemsize : scio_dtype_itemsize(dtype);
    box half = *whole;
    uint64_t row_items;
    uint8_t *out = NULL;
    size_t at = 0;

    if (dataset->space.rank == 0 || whole->n_items == 0)
        return;
    row_items = whole->n_items / whole->count[0];
    expect(scio_mem_alloc((size_t)whole->n_items, itemsize, &out, NULL) == SCIO_OK);
    for (int i = 0; i < 2; i++) {
        scio_error err = SCIO_ERROR_INIT;

        half.start[0] = whole->start[0] + (i == 0 ? 0 : whole->count[0] / 2);
        half.count[0] = i == 0 ? whole->count[0] / 2 : whole->count[0] - whole->count[0] / 2;
        half.n_items = half.count[0] * row_items;
        expect(read_box(dataset, &half, dtype, out + at, &err) == SCIO_OK);
        at += (size_t)half.n_items * itemsize;
    }
    expect(memcmp(out, expected, at) == 0);
    scio_mem_free(out);
}

typedef struct digest {
    uint64_t value;
    uint8_t *room; /* for one unshuffled unit */
    uint64_t i_next;
} digest;

static scio_status
add_unit(void *context, uint64_t i_unit, const void *data, size_t nbytes, size_t shuffle_itemsize,
         scio_error *err)
{
    digest *d = context;
    const uint8_t *bytes = data;

    expect(i_unit == d->i_next++);
    if (shuffle_itemsize > 1) {
        SCIO_TRY(scio_unshuffle(data, nbytes, shuffle_itemsize, d->room, err));
        bytes = d->room;
    }
    for (size_t i = 0; i < nbytes; i++) /* FNV-1a */
        d->value = (d->value ^ bytes[i]) * UINT64_C(0x100000001b3);
    return SCIO_OK;
}

static void
check_units(scio_h5_dataset *dataset, scio_h5_scratch *scratch)
{
    const uint64_t n_units = dataset->n_units < MAX_UNITS ? dataset->n_units : MAX_UNITS;
    digest digests[2] = {{0, NULL, 0}, {0, NULL, 0}};
    scio_status status[2];
    uint8_t *room = NULL;

    if (dataset->unit_nbytes > MAX_NBYTES || n_units * dataset->unit_nbytes > 4 * MAX_NBYTES)
        return;
    expect(scio_mem_alloc((size_t)dataset->unit_nbytes, 1, &room, NULL) == SCIO_OK);
    for (int i = 0; i < 2; i++) {
        scio_error err = SCIO_ERROR_INIT;

        digests[i].room = room;
        status[i] = scio_h5_dataset_decode(dataset, 0, n_units, i == 1, scratch, add_unit,
                                           &digests[i], &err);
        (void)is_ok(status[i], &err);
    }
    expect(status[0] == status[1] && digests[0].value == digests[1].value);
    scio_mem_free(room);
}

static void
check_vlen(scio_h5_dataset *dataset, const uint8_t *records, size_t n_items)
{
    scio_buf *offsets = NULL, *payload = NULL;
    scio_error err = SCIO_ERROR_INIT;
    const scio_status status =
        scio_h5_vlen_read(dataset->file, dataset->type, records, dataset->type->itemsize, n_items,
                          &offsets, &payload, &err);

    if (is_ok(status, &err)) {
        const int64_t *ends = scio_buf_data(offsets);

        expect(ends[0] == 0 && (size_t)ends[n_items] == scio_buf_nbytes(payload));
        for (size_t i = 0; i < n_items; i++)
            expect(ends[i] <= ends[i + 1]);
    } else {
        expect(offsets == NULL && payload == NULL);
    }
    scio_buf_release(offsets);
    scio_buf_release(payload);
}

static void
check_dataset(scio_h5_dataset *dataset, scio_h5_scratch *scratch, uint64_t seed)
{
    const box b = choose_box(dataset, seed);
    const scio_h5_unit *units = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t *out = NULL;

    if (dataset->type->itemsize > MAX_NBYTES)
        return;
    expect(scio_mem_alloc((size_t)b.n_items + 1, dataset->type->itemsize + 8, &out, NULL) ==
           SCIO_OK);
    if (is_ok(read_box(dataset, &b, SCIO_DTYPE_NONE, out, &err), &err)) {
        check_halves(dataset, &b, SCIO_DTYPE_NONE, out);
        if (dataset->type->type_class == SCIO_H5_VLEN)
            check_vlen(dataset, out, (size_t)b.n_items);
    }
    memset(&err, 0, sizeof err);
    if (is_ok(read_box(dataset, &b, SCIO_F64, out, &err), &err))
        check_halves(dataset, &b, SCIO_F64, out);
    check_units(dataset, scratch);
    memset(&err, 0, sizeof err);
    (void)is_ok(scio_h5_dataset_units(dataset, &units, &err), &err);
    scio_mem_free(out);
}

static void
check_file(scio_h5_file *file, uint64_t seed)
{
    scio_h5_scratch *scratch = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_links links = {0};

    if (!is_ok(scio_h5_links_list(file, scio_h5_file_superblock(file)->root, &links, &err), &err))
        return;
    expect(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    for (size_t i = 0; i < links.n_links && i < MAX_DATASETS; i++) {
        scio_h5_dataset *dataset = NULL;

        memset(&err, 0, sizeof err);
        if (links.links[i].type != SCIO_H5_LINK_HARD ||
            !is_ok(scio_h5_dataset_open(file, links.links[i].address, links.links[i].name, &dataset,
                                        &err),
                   &err))
            continue;
        check_dataset(dataset, scratch, seed);
        scio_h5_dataset_free(dataset);
    }
    scio_h5_scratch_free(scratch);
    scio_h5_links_clear(&links);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;
    scio_h5_file *file = NULL;
    scio_h5_limits limits;
    scio_buf *buf = NULL;
    uint64_t seed = nbytes;

    for (size_t i = 0; i < nbytes; i += 61)
        seed = (seed ^ data[i]) * UINT64_C(0x100000001b3);
    scio_h5_limits_default(&limits);
    limits.chunk_nbytes = limits.element_nbytes = limits.vlen_nbytes = 4 * MAX_NBYTES;
    expect(scio_buf_new(nbytes, &buf, NULL) == SCIO_OK);
    if (nbytes != 0)
        memcpy(scio_buf_data(buf), data, nbytes);
    expect(scio_source_from_buf(buf, "input", &source, NULL) == SCIO_OK);
    if (is_ok(scio_h5_file_open(source, &limits, &file, &err), &err))
        check_file(file, seed);
    scio_h5_file_release(file);
    scio_source_release(source);
    scio_buf_release(buf);
    return 0;
}
