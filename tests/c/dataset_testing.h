/* What the tests of datasets share: the files of tests/fuzz/corpus/dataset (made by
 * tools/make_fuzz_corpus_dataset.py) in memory, so that a test can break one field of them. */
#ifndef SCIO_TESTS_C_DATASET_TESTING_H
#define SCIO_TESTS_C_DATASET_TESTING_H

#include "base/mem.h"
#include "base/stats.h"
#include "h5read/cursor.h"
#include "h5read/dataset.h"
#include "h5read/dataset_internal.h"
#include "h5read/object.h"
#include "test.h"

#include <stdint.h>

#ifndef SCIO_DATASET_CORPUS
#define SCIO_DATASET_CORPUS "tests/fuzz/corpus/dataset"
#endif

#define IMAGE_CAPACITY ((size_t)8 << 20)

/* A file in memory. */
typedef struct image {
    uint8_t *data;
    size_t nbytes;
} image;

static inline void
image_free(image *im)
{
    free(im->data);
    *im = (image){NULL, 0};
}

static inline image
image_load(const char *name)
{
    image im = {calloc(IMAGE_CAPACITY, 1), 0};
    char path[256];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s.h5", SCIO_DATASET_CORPUS, name);
    file = fopen(path, "rb");
    if (file == NULL || im.data == NULL) {
        printf("cannot read %s\n", path);
        abort();
    }
    im.nbytes = fread(im.data, 1, IMAGE_CAPACITY, file);
    (void)fclose(file);
    return im;
}

/* Position of the k-th occurrence of some bytes; aborts when there is none. */
static inline size_t
image_find(const image *im, const void *bytes, size_t nbytes, size_t k)
{
    for (size_t i = 0; i + nbytes <= im->nbytes; i++)
        if (memcmp(im->data + i, bytes, nbytes) == 0 && k-- == 0)
            return i;
    printf("the bytes to change are not in the file\n");
    abort();
}

static inline size_t
image_find_text(const image *im, const char *text)
{
    return image_find(im, text, strlen(text), 0);
}

static inline void
image_put(image *im, size_t at, size_t width, uint64_t value)
{
    for (size_t i = 0; i < width; i++)
        im->data[at + i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t
image_get(const image *im, size_t at, size_t width)
{
    uint64_t value = 0;

    for (size_t i = width; i-- > 0;)
        value = value << 8 | im->data[at + i];
    return value;
}

/* Makes the checksum behind [at, at + nbytes) right again. */
static inline void
image_sum(image *im, size_t at, size_t nbytes)
{
    image_put(im, at + nbytes, 4, scio_h5_lookup3(im->data + at, nbytes));
}

/* Appends bytes (NULL = zeros) to a file of superblock 0 or 1 and says so in it; their position. */
static inline size_t
image_append(image *im, const void *bytes, size_t nbytes)
{
    const size_t at = im->nbytes;

    if (nbytes > IMAGE_CAPACITY - at)
        abort();
    if (bytes != NULL)
        memcpy(im->data + at, bytes, nbytes);
    else
        memset(im->data + at, 0, nbytes);
    im->nbytes += nbytes;
    image_put(im, im->data[8] == 0 ? 40 : 44, 8, im->nbytes);
    return at;
}

/* Opens a copy of the image. */
static inline scio_h5_file *
image_open_limited(const image *im, const scio_h5_limits *limits)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;
    scio_h5_file *file = NULL;
    scio_buf *buf = NULL;

    if (scio_buf_new(im->nbytes, &buf, &err) != SCIO_OK)
        abort();
    memcpy(scio_buf_data(buf), im->data, im->nbytes);
    if (scio_source_from_buf(buf, "image", &source, &err) != SCIO_OK ||
        scio_h5_file_open(source, limits, &file, &err) != SCIO_OK) {
        printf("image_open: %s\n", err.message);
        abort();
    }
    scio_source_release(source);
    scio_buf_release(buf);
    return file;
}

static inline scio_h5_file *
image_open(const image *im)
{
    return image_open_limited(im, NULL);
}

/* Opens the dataset "d" of a file, which is released. */
static inline scio_status
open_d(scio_h5_file *file, scio_h5_dataset **out, scio_error *err)
{
    uint64_t address = 0;
    scio_status status;

    *out = NULL;
    status = scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "d", &address, err);
    if (status == SCIO_OK)
        status = scio_h5_dataset_open(file, address, "/d", out, err);
    scio_h5_file_release(file);
    return status;
}

static inline scio_status
image_dataset(const image *im, scio_h5_dataset **out, scio_error *err)
{
    return open_d(image_open(im), out, err);
}

/* The dataset "d" of a file of the corpus, which must be sound. */
static inline scio_h5_dataset *
corpus_dataset(const char *name)
{
    image im = image_load(name);
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_dataset *dataset = NULL;

    if (image_dataset(&im, &dataset, &err) != SCIO_OK) {
        printf("%s: %s\n", name, err.message);
        abort();
    }
    image_free(&im);
    return dataset;
}

/* Reads all elements as `dtype` in the calling thread. */
static inline scio_status
read_all(scio_h5_dataset *dataset, scio_dtype dtype, void *out, size_t capacity, scio_error *err)
{
    static const uint64_t zeros[SCIO_H5_MAX_RANK];
    const scio_h5_read_options options = {NULL, 0, NULL};
    const size_t itemsize =
        dtype == SCIO_DTYPE_NONE ? dataset->type->itemsize : scio_dtype_itemsize(dtype);
    const size_t nbytes = (size_t)dataset->space.n_items * itemsize;

    if (nbytes > capacity)
        abort();
    return scio_h5_dataset_read(dataset, zeros, dataset->space.dims, dtype, out, nbytes, &options,
                                err);
}

/* What tools/make_fuzz_corpus_dataset.py writes. */
static inline int
expected_value(uint64_t i_item)
{
    return (int)(i_item * 7 % 101);
}

/* Opens and reads "d" of an image, which must fail with this status and a text that has `part`. */
static inline void
check_fails(const image *im, scio_status expected, const char *part)
{
    static uint8_t out[1 << 20];
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_dataset *dataset = NULL;
    scio_status status = image_dataset(im, &dataset, &err);

    if (status == SCIO_OK)
        status = read_all(dataset, SCIO_DTYPE_NONE, out, sizeof out, &err);
    CHECK(status == expected);
    if (status != expected)
        printf("    status %s: %s\n", scio_status_name(status), err.message);
    CHECK_STR(err.message, part);
    scio_h5_dataset_free(dataset);
}

#endif
