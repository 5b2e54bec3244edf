/* The bounded reader and the checksum. */
#include "h5_image.h"

static scio_h5_file *
file_with_widths(unsigned o, unsigned l)
{
    static image im;

    image_new_superblock(&im, 2, o, l, 4);
    image_finish(&im);
    return image_open(&im);
}

TEST(integers_are_little_endian_and_move_the_cursor)
{
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
    scio_cursor cursor = scio_cursor_make(bytes, sizeof bytes, 100, "block");
    scio_error err = SCIO_ERROR_INIT;
    uint8_t a = 0;
    uint16_t b = 0;
    uint32_t c = 0;
    uint64_t d = 0, e = 0;

    CHECK(scio_cursor_u8(&cursor, &a, &err) == SCIO_OK && a == 1);
    CHECK(scio_cursor_u16(&cursor, &b, &err) == SCIO_OK && b == 0x0302);
    CHECK(scio_cursor_u32(&cursor, &c, &err) == SCIO_OK && c == 0x07060504);
    CHECK(scio_cursor_u64(&cursor, &d, &err) == SCIO_OK && d == UINT64_C(0x0f0e0d0c0b0a0908));
    CHECK(scio_cursor_uint(&cursor, 3, &e, &err) == SCIO_OK && e == 0x121110);
    CHECK(scio_cursor_left(&cursor) == 0);
}

TEST(a_field_beyond_the_end_names_structure_position_and_bytes)
{
    const uint8_t bytes[] = {1, 2, 3};
    scio_cursor cursor = scio_cursor_make(bytes, sizeof bytes, 100, "local heap");
    uint32_t value = 7;
    const uint8_t *borrowed = NULL;

    CHECK_FAILS(scio_cursor_u32(&cursor, &value, &err), SCIO_ECORRUPT,
                "local heap at byte 100: 4 bytes expected, 3 are left of 3");
    CHECK(value == 7 && cursor.at == 0);
    CHECK_FAILS(scio_cursor_skip(&cursor, SIZE_MAX, &err), SCIO_ECORRUPT, "are left");
    CHECK_FAILS(scio_cursor_bytes(&cursor, 4, &borrowed, &err), SCIO_ECORRUPT, "are left");
    CHECK(scio_cursor_skip(&cursor, 2, NULL) == SCIO_OK);
    CHECK_FAILS(scio_cursor_u32(&cursor, &value, &err), SCIO_ECORRUPT, "at byte 102");
    CHECK(scio_cursor_bytes(&cursor, 1, &borrowed, NULL) == SCIO_OK && *borrowed == 3);
    CHECK(scio_cursor_bytes(&cursor, 0, &borrowed, NULL) == SCIO_OK);
}

TEST(a_width_of_0_or_9_bytes_is_a_bug_of_ours)
{
    const uint8_t bytes[16] = {0};
    scio_cursor cursor = scio_cursor_make(bytes, sizeof bytes, 0, "block");
    uint64_t value = 0;

    CHECK_FAILS(scio_cursor_uint(&cursor, 0, &value, &err), SCIO_EBUG, "width");
    CHECK_FAILS(scio_cursor_uint(&cursor, 9, &value, &err), SCIO_EBUG, "width");
}

TEST(all_ones_is_undefined_in_the_width_of_the_file)
{
    const unsigned widths[] = {2, 4, 8};
    uint8_t bytes[17];

    memset(bytes, 0xff, sizeof bytes);
    for (size_t i = 0; i < 3; i++) {
        scio_h5_file *file = file_with_widths(widths[i], widths[2 - i]);
        scio_cursor cursor = scio_cursor_make(bytes, sizeof bytes, 0, "block");
        uint64_t address = 0, length = 0;

        CHECK(scio_cursor_address(&cursor, file, &address, NULL) == SCIO_OK);
        CHECK(address == SCIO_H5_UNDEFINED && cursor.at == widths[i]);
        CHECK(scio_cursor_length(&cursor, file, &length, NULL) == SCIO_OK);
        CHECK(length == UINT64_MAX && cursor.at == widths[i] + widths[2 - i]);
        bytes[0] = 0xfe;
        cursor.at = 0;
        CHECK(scio_cursor_address(&cursor, file, &address, NULL) == SCIO_OK);
        CHECK(address == (UINT64_MAX >> (64 - 8 * widths[i])) - 1);
        bytes[0] = 0xff;
        scio_h5_file_release(file);
    }
}

TEST(a_wrong_signature_is_shown)
{
    scio_cursor cursor = scio_cursor_make("TREEX", 5, 64, "node");

    CHECK_FAILS(scio_cursor_signature(&cursor, "SNOD", &err), SCIO_ECORRUPT,
                "node at byte 64: signature 54 52 45 45, expected \"SNOD\"");
    cursor.at = 0;
    CHECK(scio_cursor_signature(&cursor, "TREE", NULL) == SCIO_OK && cursor.at == 4);
    CHECK_FAILS(scio_cursor_signature(&cursor, "TREE", &err), SCIO_ECORRUPT, "1 are left");
}

TEST(lookup3_gives_the_published_vectors)
{
    uint8_t bytes[25];

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    CHECK(scio_h5_lookup3("", 0) == 0xdeadbeef);
    CHECK(scio_h5_lookup3("a", 1) == 0x58d68708);
    CHECK(scio_h5_lookup3("obs", 3) == 0x7381fd22);
    CHECK(scio_h5_lookup3("column-order", 12) == 0x02f1a539);
    CHECK(scio_h5_lookup3("encoding-type", 13) == 0xa65e2d12);
    CHECK(scio_h5_lookup3("Four score and seven years ago", 30) == 0x17770551);
    CHECK(scio_h5_lookup3(bytes, 24) == 0x9c0add53);
    CHECK(scio_h5_lookup3(bytes, 25) == 0x3a882244);
}

TEST(a_wrong_checksum_names_structure_and_both_values)
{
    uint8_t bytes[] = {'a', 0x08, 0x87, 0xd6, 0x58};

    CHECK(scio_h5_check_sum(bytes, sizeof bytes, 10, "block", NULL) == SCIO_OK);
    bytes[4] = 0x59;
    CHECK_FAILS(scio_h5_check_sum(bytes, sizeof bytes, 10, "block", &err), SCIO_ECORRUPT,
                "block at byte 10: checksum 59d68708, its 1 bytes give 58d68708");
    CHECK_FAILS(scio_h5_check_sum(bytes, 3, 10, "block", &err), SCIO_ECORRUPT, "no room");
}
