/* HDF5 files made byte by byte in memory, so that a test can break one rule and nothing else. */
#ifndef SCIO_TESTS_C_H5_IMAGE_H
#define SCIO_TESTS_C_H5_IMAGE_H

#include "base/mem.h"
#include "base/stats.h"
#include "h5read/cursor.h"
#include "h5read/file.h"
#include "h5read/header.h"
#include "test.h"

#include <stdint.h>

#define UNDEFINED UINT64_MAX

typedef struct image {
    uint8_t data[1 << 19];
    size_t nbytes;
    unsigned o, l; /* bytes of an address and of a length */
    size_t end_at; /* where the superblock says how long the file is */
    size_t sum_at; /* its checksum, 0 in versions 0 and 1 */
    size_t block;  /* start of the structure that image_sum ends */
} image;

static inline void
image_uint(image *im, size_t width, uint64_t value)
{
    for (size_t i = 0; i < width; i++)
        im->data[im->nbytes++] = (uint8_t)(value >> (8 * i));
}

static inline void
image_u8(image *im, unsigned value)
{
    image_uint(im, 1, value);
}

static inline void
image_u16(image *im, unsigned value)
{
    image_uint(im, 2, value);
}

static inline void
image_u32(image *im, uint32_t value)
{
    image_uint(im, 4, value);
}

static inline void
image_u64(image *im, uint64_t value)
{
    image_uint(im, 8, value);
}

static inline void
image_address(image *im, uint64_t value)
{
    image_uint(im, im->o, value);
}

static inline void
image_length(image *im, uint64_t value)
{
    image_uint(im, im->l, value);
}

static inline void
image_zeros(image *im, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        im->data[im->nbytes++] = 0;
}

static inline void
image_bytes(image *im, const void *bytes, size_t nbytes)
{
    memcpy(im->data + im->nbytes, bytes, nbytes);
    im->nbytes += nbytes;
}

/* Without its NUL. */
static inline void
image_text(image *im, const char *text)
{
    image_bytes(im, text, strlen(text));
}

static inline void
image_pad8(image *im, size_t from)
{
    while ((im->nbytes - from) % 8 != 0)
        image_u8(im, 0);
}

/* Overwrites bytes that are there already. */
static inline void
image_patch(image *im, size_t at, size_t width, uint64_t value)
{
    const size_t nbytes = im->nbytes;

    im->nbytes = at;
    image_uint(im, width, value);
    im->nbytes = nbytes;
}

/* Starts a structure with a signature; its address is returned. */
static inline uint64_t
image_begin(image *im, const char *signature)
{
    im->block = im->nbytes;
    image_text(im, signature);
    return im->block;
}

/* The checksum over all since image_begin. */
static inline void
image_sum(image *im)
{
    image_u32(im, scio_h5_lookup3(im->data + im->block, im->nbytes - im->block));
}

/* Of a structure that was patched. */
static inline void
image_resum(image *im, size_t from, size_t sum_at)
{
    image_patch(im, sum_at, 4, scio_h5_lookup3(im->data + from, sum_at - from));
}

/* ---- superblock ---- */

/* Versions 0 and 1, O = o and L = l; the root group's header is at address `root`. */
static inline void
image_old_superblock(image *im, unsigned version, unsigned o, unsigned l, uint64_t root)
{
    memset(im, 0, sizeof *im);
    im->o = o;
    im->l = l;
    image_bytes(im, "\x89HDF\r\n\x1a\n", 8);
    image_u8(im, version);
    image_zeros(im, 4); /* versions, reserved */
    image_u8(im, o);
    image_u8(im, l);
    image_u8(im, 0);
    image_u16(im, 4);  /* leaf K */
    image_u16(im, 16); /* internal K */
    image_u32(im, 0);
    if (version == 1) {
        image_u16(im, 32);
        image_u16(im, 0);
    }
    image_address(im, 0);
    image_address(im, UNDEFINED);
    im->end_at = im->nbytes;
    image_address(im, 0);
    image_address(im, UNDEFINED);
    image_length(im, 0);
    image_address(im, root);
    image_zeros(im, 24);
}

/* Versions 2 and 3. */
static inline void
image_new_superblock(image *im, unsigned version, unsigned o, unsigned l, uint64_t root)
{
    memset(im, 0, sizeof *im);
    im->o = o;
    im->l = l;
    image_bytes(im, "\x89HDF\r\n\x1a\n", 8);
    image_u8(im, version);
    image_u8(im, o);
    image_u8(im, l);
    image_u8(im, 0);
    image_address(im, 0);
    image_address(im, UNDEFINED);
    im->end_at = im->nbytes;
    image_address(im, 0);
    image_address(im, root);
    im->sum_at = im->nbytes;
    image_u32(im, 0);
}

/* The superblock now says that the file ends where the image does. */
static inline void
image_finish(image *im)
{
    image_patch(im, im->end_at, im->o, im->nbytes);
    if (im->sum_at != 0)
        image_resum(im, 0, im->sum_at);
}

/* ---- object headers ---- */

/* Version 1: image_header_v1, messages, image_header_v1_end. */
static inline uint64_t
image_header_v1(image *im)
{
    im->block = im->nbytes;
    image_u8(im, 1);
    image_zeros(im, 15);
    return im->block;
}

static inline void
image_header_v1_end(image *im)
{
    image_patch(im, im->block + 2, 2, 1);
    image_patch(im, im->block + 4, 4, 1);
    image_patch(im, im->block + 8, 4, im->nbytes - im->block - 16);
}

static inline void
image_message_v1(image *im, unsigned type, unsigned flags, const void *data, size_t nbytes)
{
    const size_t at = im->nbytes;

    image_u16(im, type);
    image_u16(im, (unsigned)((nbytes + 7) & ~(size_t)7));
    image_u8(im, flags);
    image_zeros(im, 3);
    image_bytes(im, data, nbytes);
    image_pad8(im, at);
}

/* Version 2, block size in four bytes. */
static inline uint64_t
image_header_v2(image *im)
{
    (void)image_begin(im, "OHDR");
    image_u8(im, 2);
    image_u8(im, 2);
    image_u32(im, 0);
    return im->block;
}

static inline void
image_header_v2_end(image *im)
{
    image_patch(im, im->block + 6, 4, im->nbytes - im->block - 10);
    image_sum(im);
}

static inline void
image_message_v2(image *im, unsigned type, unsigned flags, const void *data, size_t nbytes)
{
    image_u8(im, type);
    image_u16(im, (unsigned)nbytes);
    image_u8(im, flags);
    image_bytes(im, data, nbytes);
}

/* ---- opening ---- */

static inline scio_status
image_open_with(const image *im, const scio_h5_limits *limits, scio_h5_file **out, scio_error *err)
{
    scio_buf *buf = NULL;
    scio_source *source = NULL;
    scio_status status;

    *out = NULL;
    status = scio_buf_new(im->nbytes, &buf, err);
    if (status == SCIO_OK) {
        memcpy(scio_buf_data(buf), im->data, im->nbytes);
        status = scio_source_from_buf(buf, "image", &source, err);
    }
    if (status == SCIO_OK)
        status = scio_h5_file_open(source, limits, out, err);
    scio_source_release(source);
    scio_buf_release(buf);
    return status;
}

/* An image that must open. */
static inline scio_h5_file *
image_open(const image *im)
{
    scio_h5_file *file = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (image_open_with(im, NULL, &file, &err) != SCIO_OK) {
        test_has_failed = true;
        printf("image does not open: %s\n", err.message);
        exit(EXIT_FAILURE);
    }
    return file;
}

/* The call fails with this code and a message that has this text. */
#define CHECK_FAILS(call, expected_code, expected_text)                                            \
    do {                                                                                           \
        scio_error err = SCIO_ERROR_INIT;                                                          \
        const scio_status check_status = (call);                                                   \
        CHECK(check_status == (expected_code));                                                    \
        CHECK(err.code == check_status);                                                           \
        CHECK_STR(err.message, expected_text);                                                     \
    } while (0)

/* Raises k until `statement` sets `status` to SCIO_OK; every failure is ENOMEM. */
#define CHECK_EVERY_ALLOCATION(statement, status)                                                  \
    do {                                                                                           \
        const int64_t n_bufs = scio_stats_get(SCIO_STAT_live_bufs);                                \
        const int64_t n_sources = scio_stats_get(SCIO_STAT_live_sources);                          \
        size_t k = 0;                                                                              \
        do {                                                                                       \
            scio_mem_fail_at(k++);                                                                 \
            statement;                                                                             \
            scio_mem_fail_at(SIZE_MAX);                                                            \
            CHECK((status) == SCIO_OK || (status) == SCIO_ENOMEM);                                 \
        } while ((status) != SCIO_OK && k < 10000);                                                \
        CHECK(k > 1);                                                                              \
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_bufs);                                      \
        CHECK(scio_stats_get(SCIO_STAT_live_sources) == n_sources);                                \
    } while (0)

#endif
