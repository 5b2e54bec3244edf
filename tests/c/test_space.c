/* Dataspaces of both versions. */
#include "h5_image.h"
#include "h5read/shared.h"

static image im;
static size_t from;

/* Opens a file with lengths of l bytes and parses what was appended after `start`. */
static scio_status
parse(scio_h5_space *out, scio_error *err)
{
    static image empty;
    scio_cursor cursor = scio_cursor_make(im.data + from, im.nbytes - from, from, "dataspace");
    scio_h5_file *file;
    scio_status status;

    image_new_superblock(&empty, 2, 8, im.l, 4);
    image_finish(&empty);
    file = image_open(&empty);
    status = scio_h5_space_parse(file, &cursor, out, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
try_parse(scio_error *err)
{
    scio_h5_space space;

    return parse(&space, err);
}

static void
start(unsigned l, unsigned version, unsigned rank, unsigned flags, unsigned kind)
{
    image_new_superblock(&im, 2, 8, l, 48);
    from = im.nbytes;
    image_u8(&im, version);
    image_u8(&im, rank);
    image_u8(&im, flags);
    image_u8(&im, version == 1 ? 0 : kind);
    image_zeros(&im, version == 1 ? 4 : 0);
}

static void
add(uint64_t a, uint64_t b)
{
    image_length(&im, a);
    image_length(&im, b);
}

TEST(scalar_simple_and_null)
{
    scio_h5_space space;

    start(8, 1, 0, 0, 0);
    CHECK(parse(&space, NULL) == SCIO_OK);
    CHECK(space.space_class == SCIO_H5_SCALAR && space.rank == 0 && space.n_items == 1);
    start(8, 2, 0, 0, 0);
    CHECK(parse(&space, NULL) == SCIO_OK && space.space_class == SCIO_H5_SCALAR);
    start(8, 2, 0, 0, 2);
    CHECK(parse(&space, NULL) == SCIO_OK);
    CHECK(space.space_class == SCIO_H5_NULL && space.n_items == 0);
    for (unsigned version = 1; version <= 2; version++) {
        start(8, version, 2, 1, 1);
        add(3, 5);
        add(UINT64_MAX, 5);
        CHECK(parse(&space, NULL) == SCIO_OK);
        CHECK(space.space_class == SCIO_H5_SIMPLE && space.rank == 2 && space.n_items == 15);
        CHECK(space.dims[0] == 3 && space.dims[1] == 5);
        CHECK(space.max_dims[0] == UINT64_MAX && space.max_dims[1] == 5);
        for (im.nbytes--; im.nbytes > from; im.nbytes--)
            CHECK(try_parse(NULL) == SCIO_ECORRUPT);
    }
    start(4, 2, 2, 0, 1);
    add(3, 0);
    CHECK(parse(&space, NULL) == SCIO_OK && space.n_items == 0 && space.max_dims[0] == 3);
}

TEST(unlimited_is_all_ones_in_the_width_of_the_file)
{
    const unsigned widths[] = {2, 4, 8};

    for (size_t i = 0; i < 3; i++) {
        scio_h5_space space;

        start(widths[i], 2, 1, 1, 1);
        add(7, UINT64_MAX);
        CHECK(parse(&space, NULL) == SCIO_OK);
        CHECK(space.dims[0] == 7 && space.max_dims[0] == UINT64_MAX);
    }
}

TEST(ranks_flags_and_kinds_are_checked)
{
    start(8, 3, 0, 0, 0);
    CHECK_FAILS(try_parse(&err), SCIO_EUNSUPPORTED, "dataspace at byte 48: version 3");
    start(8, 1, 33, 0, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "rank 33, expected at most 32");
    start(8, 1, 1, 2, 0);
    CHECK_FAILS(try_parse(&err), SCIO_EUNSUPPORTED, "permutation");
    start(8, 2, 1, 4, 1);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "flags 0x04");
    start(8, 2, 0, 0, 3);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "type 3 with rank 0");
    start(8, 2, 1, 0, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "type 0 with rank 1");
    start(8, 2, 2, 0, 2);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "type 2 with rank 2");
}

TEST(dimensions_fit_their_maximum_and_63_bits)
{
    start(8, 2, 1, 1, 1);
    add(4, 3);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "dimension 0 is 4, its maximum 3");
    start(8, 2, 2, 0, 1);
    add(UINT64_C(1) << 32, UINT64_C(1) << 31);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "more than 2^63 elements");
    start(8, 2, 2, 0, 1);
    add(UINT64_C(1) << 32, UINT64_C(1) << 32); /* 2^64 is 0 in 64 bits */
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "more than 2^63 elements");
    start(8, 2, 2, 0, 1);
    add(UINT64_MAX, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "more than 2^63 elements with dimension 0");
    start(8, 2, 2, 0, 1);
    add(UINT64_C(1) << 31, UINT64_C(1) << 31);
    CHECK(try_parse(NULL) == SCIO_OK);
}

TEST(a_shared_dataspace_is_read_from_the_object_that_has_it)
{
    const uint8_t scalar[] = {2, 0, 0, 0, 0, 0, 0, 0};
    uint8_t shared[10] = {2, 2};
    const scio_h5_message message = {SCIO_H5_MSG_DATASPACE, 2, sizeof shared, shared, 0};
    scio_h5_file *file;
    scio_h5_space space;

    image_new_superblock(&im, 2, 8, 8, 48);
    shared[2] = (uint8_t)image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_DATASPACE, 0, scalar, sizeof scalar);
    image_header_v1_end(&im);
    image_finish(&im);
    file = image_open(&im);
    CHECK(scio_h5_space_from_message(file, &message, &space, NULL) == SCIO_OK);
    CHECK(space.space_class == SCIO_H5_SCALAR);
    scio_h5_file_release(file);
}
