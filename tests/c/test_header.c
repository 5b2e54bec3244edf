/* Object headers of both versions: messages, continuations, gaps, and what may not stand in them.
 */
#include "h5_image.h"

static image im;

/* Reads the header at `address` of the image; cleared when it is sound. */
static scio_status
read_at(uint64_t address, scio_h5_header *out, scio_error *err)
{
    scio_h5_file *file;
    scio_status status;

    image_finish(&im);
    file = image_open(&im);
    status = scio_h5_header_read(file, address, out, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
try_at(uint64_t address, scio_error *err)
{
    scio_h5_header header;
    const scio_status status = read_at(address, &header, err);

    CHECK(status == SCIO_OK || header.messages == NULL);
    scio_h5_header_clear(&header);
    return status;
}

static void
start(void)
{
    image_new_superblock(&im, 2, 8, 8, 48);
}

static void
add_continuation_v1(uint64_t address, uint64_t nbytes)
{
    uint8_t data[16];

    for (unsigned i = 0; i < 8; i++) {
        data[i] = (uint8_t)(address >> (8 * i));
        data[8 + i] = (uint8_t)(nbytes >> (8 * i));
    }
    image_message_v1(&im, SCIO_H5_MSG_CONTINUATION, 0, data, sizeof data);
}

static void
add_continuation_v2(uint64_t address, uint64_t nbytes)
{
    image_u8(&im, SCIO_H5_MSG_CONTINUATION);
    image_u16(&im, 16);
    image_u8(&im, 0);
    image_u64(&im, address);
    image_u64(&im, nbytes);
}

TEST(version_1_gives_its_messages_in_order_without_nil)
{
    scio_h5_header header;
    uint64_t at;

    start();
    at = image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "first", 5);
    image_message_v1(&im, SCIO_H5_MSG_NIL, 0, "", 0);
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 4, "second!", 7);
    image_message_v1(&im, SCIO_H5_MSG_DATATYPE, 1, "12345678", 8);
    image_header_v1_end(&im);
    CHECK(read_at(at, &header, NULL) == SCIO_OK);
    CHECK(header.version == 1 && header.address == at && header.n_messages == 3);
    CHECK(header.messages[0].nbytes == 8 && memcmp(header.messages[0].data, "first", 6) == 0);
    CHECK(header.messages[1].flags == 4 && memcmp(header.messages[1].data, "second!", 8) == 0);
    CHECK(header.messages[0].position == at + 16 + 8);
    CHECK(scio_h5_header_find(&header, SCIO_H5_MSG_DATATYPE) == &header.messages[2]);
    CHECK(scio_h5_header_find(&header, SCIO_H5_MSG_LAYOUT) == NULL);
    scio_cursor cursor = scio_h5_message_cursor(&header.messages[2], "datatype");
    CHECK(cursor.nbytes == 8 && cursor.position == header.messages[2].position);
    scio_h5_header_clear(&header);
}

TEST(version_2_takes_sizes_of_1_to_8_bytes_times_limits_and_creation_indexes)
{
    for (unsigned flags = 0; flags < 0x40; flags++) {
        const size_t size_nbytes = (size_t)1 << (flags & 3);
        const unsigned gap = flags % 4;
        scio_h5_header header;
        size_t size_at, from;
        uint64_t at;

        start();
        at = image_begin(&im, "OHDR");
        image_u8(&im, 2);
        image_u8(&im, flags);
        image_zeros(&im, (flags & 0x20) != 0 ? 16 : 0);
        image_zeros(&im, (flags & 0x10) != 0 ? 4 : 0);
        size_at = im.nbytes;
        image_uint(&im, size_nbytes, 0);
        from = im.nbytes;
        for (unsigned i = 0; i < 3; i++) {
            image_u8(&im, SCIO_H5_MSG_LINK);
            image_u16(&im, i);
            image_u8(&im, 0);
            image_zeros(&im, (flags & 4) != 0 ? 2 : 0);
            image_bytes(&im, "abc", i);
        }
        image_zeros(&im, gap);
        image_patch(&im, size_at, size_nbytes, im.nbytes - from);
        image_sum(&im);
        CHECK(read_at(at, &header, NULL) == SCIO_OK);
        CHECK(header.version == 2 && header.n_messages == 3);
        if (header.n_messages == 3)
            CHECK(header.messages[2].nbytes == 2 && memcmp(header.messages[2].data, "ab", 2) == 0);
        scio_h5_header_clear(&header);
    }
}

TEST(continuations_are_followed_in_the_order_met)
{
    scio_h5_header header;
    uint64_t at, first, second;

    start();
    first = im.nbytes;
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "c", 1);
    second = im.nbytes;
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "d", 1);
    at = image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "a", 1);
    add_continuation_v1(first, 16);
    add_continuation_v1(second, 16);
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "b", 1);
    image_header_v1_end(&im);
    CHECK(read_at(at, &header, NULL) == SCIO_OK && header.n_messages == 4);
    for (size_t i = 0; i < header.n_messages; i++)
        CHECK(header.messages[i].data[0] == "abcd"[i]);
    scio_h5_header_clear(&header);

    start();
    first = image_begin(&im, "OCHK");
    image_message_v2(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "b", 1);
    image_zeros(&im, 3);
    image_sum(&im);
    second = im.nbytes;
    at = image_header_v2(&im);
    image_message_v2(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "a", 1);
    add_continuation_v2(first, second - first);
    image_header_v2_end(&im);
    CHECK(read_at(at, &header, NULL) == SCIO_OK && header.n_messages == 2);
    CHECK(header.messages[1].data[0] == 'b' && header.messages[1].position == first + 8);
    scio_h5_header_clear(&header);
}

TEST(a_chain_of_continuations_that_comes_back_ends)
{
    uint64_t at, first;

    start();
    first = im.nbytes; /* names itself */
    add_continuation_v1(first, 24);
    at = image_header_v1(&im);
    add_continuation_v1(first, 24);
    image_header_v1_end(&im);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "is met twice");

    start();
    at = image_header_v1(&im);
    add_continuation_v1(at + 16, 24); /* block 0 again */
    image_header_v1_end(&im);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "is met twice");

    start();
    at = image_header_v2(&im);
    add_continuation_v2(at, 34);
    image_header_v2_end(&im);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "is met twice");
}

TEST(blocks_of_one_header_are_not_larger_together_than_the_file)
{
    uint64_t at;

    start();
    image_zeros(&im, 4096);
    at = image_header_v1(&im);
    for (unsigned i = 0; i < 8; i++) /* each in the file, none the same, all overlapping */
        add_continuation_v1(48 + 8 * i, 4000);
    image_header_v1_end(&im);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "bytes in all");
}

TEST(continuations_outside_of_the_file_are_refused)
{
    const uint64_t addresses[] = {UINT64_MAX, UINT64_MAX - 8, 1 << 20, 200};

    for (size_t i = 0; i < 4; i++) {
        uint64_t at;

        start();
        at = image_header_v2(&im);
        add_continuation_v2(addresses[i], i == 3 ? UINT64_MAX - 100 : 16);
        image_header_v2_end(&im);
        CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "object at address 48");
    }
}

TEST(a_continuation_needs_its_signature_and_checksum)
{
    uint64_t at, first;

    for (unsigned broken = 0; broken < 3; broken++) {
        start();
        first = image_begin(&im, broken == 0 ? "OHDR" : "OCHK");
        image_message_v2(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "b", 1);
        image_sum(&im);
        if (broken == 1)
            im.data[im.nbytes - 1] ^= 1;
        at = image_header_v2(&im);
        add_continuation_v2(first, broken == 2 ? 3 : at - first);
        image_header_v2_end(&im);
        if (broken == 0)
            CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "expected \"OCHK\"");
        if (broken == 1)
            CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "checksum");
        if (broken == 2)
            CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "no room for a checksum");
    }
}

TEST(what_is_no_header_is_refused)
{
    start();
    image_text(&im, "TREE");
    image_zeros(&im, 60);
    CHECK_FAILS(try_at(48, &err), SCIO_ECORRUPT,
                "object at address 48: object header at byte 48: starts with 0x54");
    CHECK_FAILS(try_at(im.nbytes - 4, &err), SCIO_ECORRUPT, "starts with 0x00");
    CHECK_FAILS(try_at(im.nbytes, &err), SCIO_ECORRUPT, "beyond the end");
    CHECK_FAILS(try_at(UNDEFINED, &err), SCIO_ECORRUPT, "undefined");
    image_patch(&im, 48, 4, 0x5244484f); /* OHDR */
    image_patch(&im, 52, 1, 3);
    CHECK_FAILS(try_at(48, &err), SCIO_EUNSUPPORTED, "version 3, read are 1 and 2");
    image_patch(&im, 52, 2, 0x4002);
    CHECK_FAILS(try_at(48, &err), SCIO_ECORRUPT, "flags 0x40");
    image_patch(&im, 52, 2, 0x0302); /* a size of eight bytes, all ones */
    image_patch(&im, 54, 8, UINT64_MAX);
    CHECK_FAILS(try_at(48, &err), SCIO_ECORRUPT, "object header at byte 48");
    image_patch(&im, 54, 8, UINT64_MAX - 100);
    CHECK_FAILS(try_at(48, &err), SCIO_ECORRUPT, "beyond the end");
}

TEST(messages_stay_inside_their_block)
{
    uint64_t at;

    start();
    at = image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "12345678", 8);
    image_header_v1_end(&im);
    image_patch(&im, at + 18, 2, 16);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "16 bytes expected, 8 are left");
    image_patch(&im, at + 18, 2, 7);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "message of 7 bytes, expected a multiple of 8");
    image_patch(&im, at + 18, 2, 0); /* then the data are taken for a message */
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "object header at byte");
    image_patch(&im, at + 18, 2, 8);
    image_patch(&im, at + 8, 4, 20); /* a block that ends in the middle */
    image_zeros(&im, 8);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "are left");
    image_patch(&im, at + 8, 4, 0);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "no bytes for 1 messages");
    image_patch(&im, at + 2, 2, 0);
    CHECK(try_at(at, NULL) == SCIO_OK);
    image_patch(&im, at + 8, 4, UINT32_MAX);
    CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "beyond the end");
}

TEST(every_truncation_of_a_header_is_an_error)
{
    for (unsigned version = 1; version <= 2; version++) {
        uint64_t at;
        size_t end;

        start();
        at = version == 1 ? image_header_v1(&im) : image_header_v2(&im);
        if (version == 1)
            image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "12345678", 8);
        else
            image_message_v2(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "12345678", 8);
        if (version == 1)
            image_header_v1_end(&im);
        else
            image_header_v2_end(&im);
        CHECK(try_at(at, NULL) == SCIO_OK);
        for (end = im.nbytes - 1; end > at; end--) {
            im.nbytes = end;
            CHECK(try_at(at, NULL) == SCIO_ECORRUPT);
        }
    }
}

/* One message of a type and flags; version 2 for the small types. */
static uint64_t
make_one(unsigned type, unsigned flags, unsigned n_times)
{
    uint64_t at;

    start();
    at = image_header_v1(&im);
    for (unsigned i = 0; i < n_times; i++)
        image_message_v1(&im, type, flags, "12345678", 8);
    image_header_v1_end(&im);
    return at;
}

TEST(an_unknown_message_counts_only_when_it_is_marked)
{
    CHECK(try_at(make_one(0x19, 0x7d, 1), NULL) == SCIO_OK);
    CHECK(try_at(make_one(0x1234, 0, 2), NULL) == SCIO_OK);
    CHECK_FAILS(try_at(make_one(0x19, 0x80, 1), &err), SCIO_EUNSUPPORTED, "message of type 0x19");
    CHECK_FAILS(try_at(make_one(0x09, 0x80, 1), &err), SCIO_EUNSUPPORTED, "message of type 0x09");
    CHECK(try_at(make_one(SCIO_H5_MSG_FILL, 0x80, 1), NULL) == SCIO_OK);
}

TEST(only_types_that_can_be_shared_are_flagged_so)
{
    const unsigned shareable[] = {0x01, 0x03, 0x04, 0x05, 0x0b, 0x0c};

    for (unsigned type = 1; type <= 0x18; type++) {
        bool is_shareable = false;

        if (type == SCIO_H5_MSG_CONTINUATION || type == 0x09)
            continue;
        for (size_t i = 0; i < sizeof shareable / sizeof *shareable; i++)
            is_shareable = is_shareable || shareable[i] == type;
        CHECK(try_at(make_one(type, 2, 1), NULL) == (is_shareable ? SCIO_OK : SCIO_ECORRUPT));
    }
    CHECK_FAILS(try_at(make_one(SCIO_H5_MSG_LAYOUT, 2, 1), &err), SCIO_ECORRUPT,
                "type 0x08 is flagged as shared");
}

TEST(a_second_message_where_one_belongs_is_refused)
{
    const unsigned single[] = {0x01, 0x02, 0x03, 0x05, 0x08, 0x0b, 0x11, 0x15};

    for (unsigned type = 1; type <= 0x18; type++) {
        bool is_single = false;

        if (type == SCIO_H5_MSG_CONTINUATION)
            continue;
        for (size_t i = 0; i < sizeof single / sizeof *single; i++)
            is_single = is_single || single[i] == type;
        CHECK(try_at(make_one(type, 0, 2), NULL) == (is_single ? SCIO_ECORRUPT : SCIO_OK));
    }
    CHECK_FAILS(try_at(make_one(SCIO_H5_MSG_PIPELINE, 0, 2), &err), SCIO_ECORRUPT,
                "a second message of type 0x0b, expected one");
}

TEST(more_than_65536_messages_are_refused)
{
    for (unsigned n = 65535; n <= 65537; n++) {
        uint64_t at;

        start();
        at = image_header_v2(&im);
        for (unsigned i = 0; i < n; i++)
            image_message_v2(&im, SCIO_H5_MSG_NIL, 0, "", 0);
        image_header_v2_end(&im);
        if (n <= 65536)
            CHECK(try_at(at, NULL) == SCIO_OK);
        else
            CHECK_FAILS(try_at(at, &err), SCIO_ECORRUPT, "more than 65536 messages");
    }
}

TEST(reading_a_header_survives_every_failing_allocation)
{
    scio_h5_file *file;
    scio_status status;
    uint64_t at, first;

    start();
    first = im.nbytes;
    for (unsigned i = 0; i < 20; i++)
        image_message_v1(&im, SCIO_H5_MSG_ATTRIBUTE, 0, "x", 1);
    at = image_header_v1(&im);
    for (unsigned i = 0; i < 4; i++)
        add_continuation_v1(first + 80 * i, 80);
    image_header_v1_end(&im);
    image_finish(&im);
    file = image_open(&im);
    CHECK_EVERY_ALLOCATION(
        {
            scio_h5_header header;

            status = scio_h5_header_read(file, at, &header, NULL);
            CHECK(status == SCIO_OK ? header.n_messages == 20 : header.messages == NULL);
            scio_h5_header_clear(&header);
        },
        status);
    scio_h5_file_release(file);
}
