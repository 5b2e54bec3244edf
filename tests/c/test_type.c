/* Datatypes: every class, every rule, every truncation; committed types. */
#include "h5_image.h"
#include "h5read/shared.h"
#include "h5read/type.h"

static image im;
static scio_h5_file *file;

/* Bytes of a type under construction; image_* append to `im` after `start`. */
static size_t from;

static void
start(void)
{
    image_new_superblock(&im, 2, 8, 8, 48);
    from = im.nbytes;
}

static void
head(unsigned type_class, unsigned version, uint32_t bits, uint32_t itemsize)
{
    image_u8(&im, type_class | version << 4);
    image_uint(&im, 3, bits);
    image_u32(&im, itemsize);
}

static void
add_integer(unsigned bits, uint32_t itemsize, unsigned offset, unsigned precision)
{
    head(SCIO_H5_INTEGER, 1, bits, itemsize);
    image_u16(&im, offset);
    image_u16(&im, precision);
}

static void
add_i4(void)
{
    add_integer(8, 4, 0, 32);
}

static void
add_float(uint32_t bits, uint32_t itemsize, unsigned precision, unsigned exponent_at,
          unsigned exponent_nbits, unsigned mantissa_nbits, uint32_t bias)
{
    head(SCIO_H5_FLOAT, 1, bits, itemsize);
    image_u16(&im, 0);
    image_u16(&im, precision);
    image_u8(&im, exponent_at);
    image_u8(&im, exponent_nbits);
    image_u8(&im, 0);
    image_u8(&im, mantissa_nbits);
    image_u32(&im, bias);
}

/* With its NUL; padded to a multiple of 8 in versions 1 and 2. */
static void
add_name(unsigned version, const char *name)
{
    const size_t at = im.nbytes;

    image_bytes(&im, name, strlen(name) + 1);
    if (version <= 2)
        image_pad8(&im, at);
}

static scio_status
parse(scio_h5_type **out, scio_error *err)
{
    scio_cursor cursor = scio_cursor_make(im.data + from, im.nbytes - from, from, "datatype");

    if (file == NULL) {
        static image empty;

        image_new_superblock(&empty, 2, 8, 8, 4);
        image_finish(&empty);
        file = image_open(&empty);
    }
    return scio_h5_type_parse(file, &cursor, out, err);
}

static scio_status
try_parse(scio_error *err)
{
    scio_h5_type *type = NULL;
    const scio_status status = parse(&type, err);

    CHECK((status == SCIO_OK) == (type != NULL));
    scio_h5_type_free(type);
    return status;
}

/* A type that must be sound. */
static scio_h5_type *
take(void)
{
    scio_h5_type *type = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (parse(&type, &err) != SCIO_OK) {
        test_has_failed = true;
        printf("type does not parse: %s\n", err.message);
        exit(EXIT_FAILURE);
    }
    return type;
}

/* Parses, frees, and tries all shorter versions: each is an error. */
static void
check_truncations(void)
{
    const size_t end = im.nbytes;

    CHECK(try_parse(NULL) == SCIO_OK);
    while (--im.nbytes > from)
        CHECK(try_parse(NULL) == SCIO_ECORRUPT);
    im.nbytes = end;
}

TEST(integers_of_1_2_4_and_8_bytes_have_a_dtype)
{
    const scio_dtype expected[2][4] = {{SCIO_U8, SCIO_U16, SCIO_U32, SCIO_U64},
                                       {SCIO_I8, SCIO_I16, SCIO_I32, SCIO_I64}};

    for (unsigned i = 0; i < 16; i++) {
        const bool is_signed = (i & 1) != 0, is_big = (i & 2) != 0;
        const uint32_t itemsize = UINT32_C(1) << (i >> 2);
        scio_h5_type *type;

        start();
        add_integer((is_signed ? 8u : 0) | (is_big ? 1u : 0), itemsize, 0, 8 * itemsize);
        type = take();
        CHECK(type->type_class == SCIO_H5_INTEGER && type->itemsize == itemsize);
        CHECK(type->dtype == expected[is_signed][i >> 2]);
        CHECK(type->is_big_endian == is_big && type->is_signed == is_signed);
        CHECK(type->unsupported[0] == '\0' && !scio_h5_type_has_vlen(type));
        scio_h5_type_free(type);
        check_truncations();
    }
}

TEST(odd_integers_are_listed_with_their_numbers)
{
    scio_h5_type *type;

    start();
    add_integer(8, 4, 0, 20);
    type = take();
    CHECK(type->dtype == SCIO_DTYPE_NONE);
    CHECK_STR(type->unsupported, "integer of 4 bytes, bit offset 0, precision 20");
    scio_h5_type_free(type);
    start();
    add_integer(8, 16, 0, 128);
    type = take();
    CHECK_STR(type->unsupported, "integer of 16 bytes");
    scio_h5_type_free(type);
    start();
    add_integer(8, 4, 4, 29);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "bits 4 to 4 + 29 of an element of 4 bytes");
    start();
    add_integer(8, 4, 0, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "bits 0 to 0 + 0");
}

TEST(ieee_floats_have_a_dtype_and_others_are_listed)
{
    scio_h5_type *type;

    start();
    add_float(0x0f20, 2, 16, 10, 5, 10, 15);
    type = take();
    CHECK(type->dtype == SCIO_F16 && type->is_signed && !type->is_big_endian);
    scio_h5_type_free(type);
    start();
    add_float(0x1f21, 4, 32, 23, 8, 23, 127);
    type = take();
    CHECK(type->dtype == SCIO_F32 && type->is_big_endian);
    scio_h5_type_free(type);
    start();
    add_float(0x3f20, 8, 64, 52, 11, 52, 1023);
    type = take();
    CHECK(type->dtype == SCIO_F64);
    scio_h5_type_free(type);
    check_truncations();
    start();
    add_float(0x4f20, 16, 80, 64, 15, 64, 16383); /* long double of x86 */
    type = take();
    CHECK(type->dtype == SCIO_DTYPE_NONE);
    CHECK_STR(type->unsupported, "float of 16 bytes, bit offset 0, precision 80");
    scio_h5_type_free(type);
    start();
    add_float(0x0f20, 2, 16, 7, 8, 7, 127); /* bfloat16 */
    type = take();
    CHECK_STR(type->unsupported, "float of 2 bytes");
    scio_h5_type_free(type);
    start();
    add_float(0x1f61, 4, 32, 23, 8, 23, 128);
    type = take();
    CHECK_STR(type->unsupported, "VAX float of 4 bytes");
    scio_h5_type_free(type);
    start();
    add_float(0x1f10, 4, 32, 23, 8, 23, 127); /* leading bit stored */
    type = take();
    CHECK_STR(type->unsupported, "float of 4 bytes");
    scio_h5_type_free(type);
}

TEST(parts_of_a_float_lie_inside_and_apart)
{
    const unsigned cases[][4] = {
        {32, 23, 8, 23}, /* the sign beyond the precision */
        {31, 24, 8, 23}, /* the exponent reaches over the sign */
        {31, 22, 8, 23}, /* exponent and mantissa share a bit */
        {31, 23, 0, 23}, {31, 23, 8, 0}, {31, 255, 255, 23}, {5, 23, 8, 23},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start();
        add_float(cases[i][0] << 8 | 0x20, 4, 32, cases[i][1], cases[i][2], cases[i][3], 127);
        CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "datatype at byte 48: float of precision 32");
    }
    start();
    add_float(0x1f60, 4, 32, 23, 8, 23, 127); /* VAX without its second bit */
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "flags 0x60");
}

TEST(strings_bitfields_opaque_and_time)
{
    scio_h5_type *type;

    start();
    head(SCIO_H5_STRING, 1, 0x12, 5);
    type = take();
    CHECK(type->itemsize == 5 && type->padding == 2 && type->is_utf8);
    scio_h5_type_free(type);
    check_truncations();
    start();
    head(SCIO_H5_STRING, 1, 0x03, 5);
    type = take();
    CHECK_STR(type->unsupported, "string with padding 3");
    scio_h5_type_free(type);
    start();
    head(SCIO_H5_STRING, 1, 0x20, 5);
    type = take();
    CHECK_STR(type->unsupported, "string with character set 2");
    scio_h5_type_free(type);
    start();
    head(SCIO_H5_STRING, 1, 0, UINT32_MAX);
    type = take();
    CHECK_STR(type->unsupported, "limit chunk_nbytes");
    scio_h5_type_free(type);

    start();
    head(SCIO_H5_BITFIELD, 1, 1, 2);
    image_u16(&im, 0);
    image_u16(&im, 16);
    type = take();
    CHECK(type->dtype == SCIO_U16 && type->is_big_endian && !type->is_signed);
    scio_h5_type_free(type);
    check_truncations();

    start();
    head(SCIO_H5_OPAQUE, 1, 8, 7);
    image_bytes(&im, "a tag\0\0\0", 8);
    type = take();
    CHECK(type->itemsize == 7 && strcmp(type->opaque_tag, "a tag") == 0);
    scio_h5_type_free(type);
    check_truncations();
    start();
    head(SCIO_H5_OPAQUE, 1, 0, 7);
    type = take();
    CHECK(strcmp(type->opaque_tag, "") == 0);
    scio_h5_type_free(type);

    start();
    head(SCIO_H5_TIME, 1, 0, 4);
    image_u16(&im, 32);
    type = take();
    CHECK_STR(type->unsupported, "time of 4 bytes, precision 32");
    scio_h5_type_free(type);
}

TEST(references_say_their_kind)
{
    const char *const texts[] = {"", "region reference (kind 1)", "new object reference (kind 2)",
                                 "new region reference", "attribute reference"};

    for (unsigned kind = 0; kind < 5; kind++) {
        scio_h5_type *type;

        start();
        head(SCIO_H5_REFERENCE, kind < 2 ? 1 : 4, kind, kind == 0 ? 8 : 12);
        type = take();
        CHECK(type->reference_kind == kind);
        CHECK_STR(type->unsupported, texts[kind]);
        CHECK((type->unsupported[0] == '\0') == (kind == 0));
        scio_h5_type_free(type);
    }
    start();
    head(SCIO_H5_REFERENCE, 1, 0, 4);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "object reference of 4 bytes with addresses of 8");
    start();
    head(SCIO_H5_REFERENCE, 1, 1, 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "region reference of 8 bytes");
    start();
    head(SCIO_H5_REFERENCE, 4, 5, 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "reference of kind 5");
}

TEST(classes_versions_and_sizes_are_checked)
{
    start();
    head(12, 1, 0, 4);
    CHECK_FAILS(try_parse(&err), SCIO_EUNSUPPORTED, "datatype at byte 48: class 12");
    start();
    head(SCIO_H5_INTEGER, 0, 0, 4);
    CHECK_FAILS(try_parse(&err), SCIO_EUNSUPPORTED, "version 0, read are 1 to 5");
    start();
    head(SCIO_H5_INTEGER, 6, 0, 4);
    CHECK_FAILS(try_parse(&err), SCIO_EUNSUPPORTED, "version 6");
    start();
    head(SCIO_H5_STRING, 1, 0, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "size 0");
}

/* ---- compound ---- */

/* Members x at 0 and y at `y_offset`, both i4; array dims of x only in version 1. */
static void
add_compound(unsigned version, uint32_t itemsize, const char *second, uint32_t y_offset,
             unsigned n_dims, const uint32_t *dims)
{
    start();
    head(SCIO_H5_COMPOUND, version, 2, itemsize);
    for (unsigned i = 0; i < 2; i++) {
        add_name(version, i == 0 ? "x" : second);
        image_uint(&im,
                   version < 3 || itemsize > 0xffff ? 4
                   : itemsize > 0xff                ? 2
                                                    : 1,
                   i == 0 ? 0 : y_offset);
        if (version == 1) {
            image_u8(&im, i == 0 ? n_dims : 0);
            image_zeros(&im, 11);
            for (unsigned k = 0; k < 4; k++)
                image_u32(&im, dims == NULL ? 0 : dims[k]);
        }
        add_i4();
    }
}

TEST(compounds_of_versions_1_2_and_3_are_alike)
{
    for (unsigned version = 1; version <= 5; version++) {
        const uint32_t itemsizes[] = {8, 0xff, 0x100, 0xffff, 0x10000};

        for (size_t i = 0; i < 4; i++) {
            scio_h5_type *type;

            add_compound(version, itemsizes[i], "second", itemsizes[i] - 4, 0, NULL);
            type = take();
            CHECK(type->n_members == 2 && type->itemsize == itemsizes[i]);
            CHECK(strcmp(type->members[0].name, "x") == 0 && type->members[0].offset == 0);
            CHECK(strcmp(type->members[1].name, "second") == 0);
            CHECK(type->members[1].offset == itemsizes[i] - 4);
            CHECK(type->members[1].type->dtype == SCIO_I32 && type->dtype == SCIO_DTYPE_NONE);
            scio_h5_type_free(type);
            check_truncations();
        }
    }
}

TEST(members_do_not_overlap_stick_out_or_share_a_name)
{
    add_compound(3, 8, "y", 3, 0, NULL);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "members \"x\" and \"y\" overlap at offset 3");
    add_compound(3, 8, "y", 5, 0, NULL);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "member \"y\" has bytes 5 + 4 of an element of 8");
    add_compound(1, 8, "y", UINT32_MAX, 0, NULL);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "member \"y\" has bytes 4294967295 + 4");
    add_compound(3, 8, "x", 4, 0, NULL);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "two members are named \"x\"");
    add_compound(2, 3, "y", 0, 0, NULL);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "member \"x\" has bytes 0 + 4 of an element of 3");
}

TEST(member_counts_are_held_against_the_bytes_left)
{
    add_compound(3, 8, "y", 4, 0, NULL);
    image_patch(&im, from + 1, 2, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "0 members in ");
    add_compound(3, 8, "y", 4, 0, NULL);
    image_patch(&im, from + 1, 2, 0xffff);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "65535 members in 30 bytes, expected 1 to 3");
    add_compound(3, 8, "y", 4, 0, NULL);
    image_patch(&im, from + 1, 2, 3);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "name of a member at byte 86 does not end");
}

TEST(version_1_members_can_be_arrays_of_at_most_four_dimensions)
{
    const uint32_t dims[4] = {2, 3, 0, 0}, overflow[4] = {1u << 31, 1u << 31, 1u << 31, 1u << 31};
    scio_h5_type *type;

    add_compound(1, 28, "y", 24, 2, dims);
    type = take();
    CHECK(type->members[0].type->type_class == SCIO_H5_ARRAY);
    CHECK(type->members[0].type->itemsize == 24 && type->members[0].type->array_rank == 2);
    CHECK(type->members[0].type->array_dims[1] == 3);
    CHECK(type->members[0].type->base->dtype == SCIO_I32);
    scio_h5_type_free(type);
    check_truncations();
    add_compound(1, 28, "y", 24, 5, dims);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array member of 5 dimensions, expected at most 4");
    add_compound(1, 28, "y", 24, 255, dims);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array member of 255 dimensions");
    add_compound(1, 28, "y", 24, 3, dims);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array member with dimension 2 of 0");
    add_compound(1, 28, "y", 24, 4, overflow);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array member with dimension 0 of 2147483648");
}

TEST(a_compound_with_a_member_that_is_not_read_says_which)
{
    scio_h5_type *type;

    start();
    head(SCIO_H5_COMPOUND, 3, 1, 4);
    add_name(3, "odd");
    image_u8(&im, 0);
    add_integer(8, 4, 0, 20);
    type = take();
    CHECK_STR(type->unsupported, "member \"odd\": integer of 4 bytes, bit offset 0, precision 20");
    scio_h5_type_free(type);
}

TEST(types_nest_at_most_16_deep)
{
    for (unsigned depth = 15; depth <= 400; depth += depth == 15 ? 1 : 384) {
        start();
        for (unsigned i = 0; i < depth; i++) {
            head(SCIO_H5_COMPOUND, 3, 1, 4);
            add_name(3, "");
            image_u8(&im, 0);
        }
        add_i4();
        if (depth == 15)
            check_truncations();
        else
            CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "types are nested more than 16 deep");
    }
    start();
    for (unsigned i = 0; i < 20000; i++)
        head(SCIO_H5_VLEN, 1, 0, 16);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "types are nested more than 16 deep");
}

/* ---- enum ---- */

static void
add_enum(unsigned version, const char *const *names, const uint8_t *values, unsigned n)
{
    start();
    head(SCIO_H5_ENUM, version, n, 1);
    add_integer(8, 1, 0, 8);
    for (unsigned i = 0; i < n; i++)
        add_name(version, names[i]);
    image_bytes(&im, values, n);
}

TEST(enums_keep_names_and_values_and_know_booleans)
{
    static const char *const bools[] = {"FALSE", "TRUE"}, *const swapped[] = {"TRUE", "FALSE"};
    static const char *const others[] = {"NO", "YES"};
    const uint8_t zero_one[] = {0, 1}, one_zero[] = {1, 0}, zero_two[] = {0, 2};
    scio_h5_type *type;

    for (unsigned version = 1; version <= 3; version++) {
        add_enum(version, bools, zero_one, 2);
        type = take();
        CHECK(type->is_bool && type->dtype == SCIO_BOOL && type->n_members == 2);
        CHECK(strcmp(type->enum_names[1], "TRUE") == 0 && type->enum_values[1] == 1);
        CHECK(type->base->dtype == SCIO_I8 && type->is_signed);
        scio_h5_type_free(type);
        check_truncations();
    }
    add_enum(3, swapped, one_zero, 2);
    type = take();
    CHECK(type->is_bool);
    scio_h5_type_free(type);
    add_enum(3, bools, zero_two, 2);
    type = take();
    CHECK(!type->is_bool && type->dtype == SCIO_DTYPE_NONE);
    scio_h5_type_free(type);
    add_enum(3, others, zero_one, 2);
    type = take();
    CHECK(!type->is_bool);
    scio_h5_type_free(type);
    add_enum(3, bools, zero_one, 2);
    image_patch(&im, from + 18, 2, 7); /* a base of seven bits */
    type = take();
    CHECK(type->dtype == SCIO_DTYPE_NONE);
    CHECK_STR(type->unsupported, "enum over integer of 1 bytes, bit offset 0, precision 7");
    scio_h5_type_free(type);
}

TEST(enums_are_checked)
{
    static const char *const names[] = {"A", "A"};
    const uint8_t values[] = {0, 1};

    add_enum(3, names, values, 2);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "two members are named \"A\"");
    add_enum(3, names, values, 1);
    image_patch(&im, from + 1, 2, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "0 members");
    image_patch(&im, from + 1, 2, 60000);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "60000 members in 3 bytes");
    add_enum(3, names, values, 1);
    image_patch(&im, from + 4, 4, 2); /* larger than its base */
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "enum of 2 bytes over class 0 of 1");
    start();
    head(SCIO_H5_ENUM, 3, 1, 2);
    head(SCIO_H5_STRING, 1, 0, 2);
    add_name(3, "A");
    image_u16(&im, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "enum of 2 bytes over class 3");
    start();
    head(SCIO_H5_ENUM, 3, 2, 4); /* names fit, values do not */
    add_i4();
    add_name(3, "A");
    add_name(3, "B");
    image_u32(&im, 0);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "2 enum values of 4 bytes, 4 bytes are left");
}

/* ---- variable length, array, complex ---- */

TEST(variable_length_is_a_string_or_a_sequence)
{
    scio_h5_type *type;

    start();
    head(SCIO_H5_VLEN, 1, 0x0101, 16);
    add_integer(0, 1, 0, 8);
    type = take();
    CHECK(type->is_vlen_string && type->is_utf8 && scio_h5_type_has_vlen(type));
    scio_h5_type_free(type);
    check_truncations();
    start();
    head(SCIO_H5_VLEN, 1, 0, 16);
    add_i4();
    type = take();
    CHECK(!type->is_vlen_string && type->base->dtype == SCIO_I32);
    scio_h5_type_free(type);
    start();
    head(SCIO_H5_VLEN, 1, 2, 16);
    add_i4();
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "variable length of kind 2");
    start();
    head(SCIO_H5_VLEN, 1, 0, 12);
    add_i4();
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "variable length of 12 bytes, expected 16");
    start();
    head(SCIO_H5_VLEN, 1, 1, 16);
    add_i4();
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "string of elements of 4 bytes, expected 1");
    start();
    head(SCIO_H5_VLEN, 1, 0, 16);
    add_integer(8, 4, 0, 20);
    type = take();
    CHECK_STR(type->unsupported, "variable length of integer of 4 bytes");
    scio_h5_type_free(type);
}

static void
add_array(unsigned version, uint32_t itemsize, unsigned rank, const uint32_t *dims)
{
    start();
    head(SCIO_H5_ARRAY, version, 0, itemsize);
    image_u8(&im, rank);
    image_zeros(&im, version == 2 ? 3 : 0);
    for (unsigned i = 0; i < rank; i++)
        image_u32(&im, dims[i % 4]);
    image_zeros(&im, version == 2 ? 4 * rank : 0);
    add_i4();
}

TEST(arrays_multiply_to_their_size)
{
    const uint32_t dims[4] = {2, 3, 4, 5}, ones[4] = {1, 1, 1, 1}, zero[4] = {2, 0, 4, 5};
    const uint32_t wrap[4] = {1u << 16, 1u << 16, 1u << 16, 1u << 16};
    scio_h5_type *type;

    for (unsigned version = 2; version <= 4; version++) {
        add_array(version, 24, 2, dims);
        type = take();
        CHECK(type->array_rank == 2 && type->array_dims[0] == 2 && type->array_dims[1] == 3);
        CHECK(type->base->dtype == SCIO_I32 && type->itemsize == 24);
        scio_h5_type_free(type);
        check_truncations();
    }
    add_array(3, 4, 32, ones);
    CHECK(try_parse(NULL) == SCIO_OK);
    add_array(3, 4, 33, ones);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array of rank 33, expected 1 to 32");
    add_array(3, 4, 0, ones);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array of rank 0");
    add_array(1, 24, 2, dims);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array of version 1");
    add_array(3, 25, 2, dims);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "array of 25 bytes");
    start();
    head(SCIO_H5_ARRAY, 3, 0, 4);
    image_u8(&im, 1);
    image_u32(&im, 1);
    add_integer(8, 4, 0, 20);
    type = take();
    CHECK_STR(type->unsupported, "array of integer of 4 bytes");
    scio_h5_type_free(type);
    add_array(3, 24, 2, zero);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "disagree");
    add_array(3, 4, 4, wrap); /* 4 * 2^64 bytes, which is 0 in 64 bits */
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "disagree");
}

TEST(complex_is_two_floats)
{
    scio_h5_type *type;

    start();
    head(SCIO_H5_COMPLEX, 5, 1, 8);
    add_float(0x1f20, 4, 32, 23, 8, 23, 127);
    type = take();
    CHECK(type->base->dtype == SCIO_F32 && type->unsupported[0] == '\0');
    scio_h5_type_free(type);
    check_truncations();
    start();
    head(SCIO_H5_COMPLEX, 5, 0, 8);
    add_float(0x1f20, 4, 32, 23, 8, 23, 127);
    type = take();
    CHECK_STR(type->unsupported, "complex number of two different parts");
    scio_h5_type_free(type);
    start();
    head(SCIO_H5_COMPLEX, 5, 1, 4);
    add_float(0x0f20, 2, 16, 7, 8, 7, 127);
    type = take();
    CHECK_STR(type->unsupported, "complex of float of 2 bytes");
    scio_h5_type_free(type);
    start();
    head(SCIO_H5_COMPLEX, 5, 1, 9);
    add_float(0x1f20, 4, 32, 23, 8, 23, 127);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "complex of 9 bytes");
    start();
    head(SCIO_H5_COMPLEX, 5, 1, 8);
    add_i4();
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "complex of 8 bytes over class 0");
}

TEST(variable_length_is_found_however_deep)
{
    const uint32_t dims[4] = {3, 1, 1, 1};
    scio_h5_type *type;

    start();
    head(SCIO_H5_COMPOUND, 3, 1, 48);
    add_name(3, "texts");
    image_u8(&im, 0);
    head(SCIO_H5_ARRAY, 3, 0, 48);
    image_u8(&im, 1);
    image_u32(&im, dims[0]);
    head(SCIO_H5_VLEN, 1, 1, 16);
    add_integer(0, 1, 0, 8);
    type = take();
    CHECK(scio_h5_type_has_vlen(type));
    scio_h5_type_free(type);
    check_truncations();
}

/* ---- committed types ---- */

/* A committed i4 (or what `target` makes of it) and a message that names it. */
static scio_status
follow(unsigned version, unsigned kind, unsigned target_type, unsigned target_flags,
       scio_error *err)
{
    static const uint8_t i4[] = {0x10, 8, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0};
    uint8_t shared[10] = {(uint8_t)version, (uint8_t)kind};
    const scio_h5_message message = {SCIO_H5_MSG_DATATYPE, 2, sizeof shared, shared, 0};
    scio_h5_type *type = NULL;
    scio_h5_file *f;
    scio_status status;

    image_new_superblock(&im, 2, 8, 8, 48);
    shared[2] = (uint8_t)image_header_v1(&im);
    image_message_v1(&im, target_type, target_flags, i4, sizeof i4);
    image_header_v1_end(&im);
    image_finish(&im);
    f = image_open(&im);
    status = scio_h5_type_from_message(f, &message, &type, err);
    CHECK(status != SCIO_OK || type->dtype == SCIO_I32);
    scio_h5_type_free(type);
    scio_h5_file_release(f);
    return status;
}

TEST(a_shared_datatype_is_read_from_the_committed_object)
{
    CHECK(follow(2, 2, SCIO_H5_MSG_DATATYPE, 0, NULL) == SCIO_OK);
    CHECK(follow(2, 0, SCIO_H5_MSG_DATATYPE, 0, NULL) == SCIO_OK);
    CHECK(follow(3, 2, SCIO_H5_MSG_DATATYPE, 0, NULL) == SCIO_OK);
    CHECK_FAILS(follow(1, 0, SCIO_H5_MSG_DATATYPE, 0, &err), SCIO_EUNSUPPORTED, "version 1");
    CHECK_FAILS(follow(3, 1, SCIO_H5_MSG_DATATYPE, 0, &err), SCIO_EUNSUPPORTED,
                "heap of shared object header messages");
    CHECK_FAILS(follow(3, 3, SCIO_H5_MSG_DATATYPE, 0, &err), SCIO_ECORRUPT, "kind 3");
    CHECK_FAILS(follow(2, 2, SCIO_H5_MSG_DATASPACE, 0, &err), SCIO_ECORRUPT,
                "has no message of type 0x03");
    CHECK_FAILS(follow(2, 2, SCIO_H5_MSG_DATATYPE, 2, &err), SCIO_ECORRUPT,
                "has only a shared message of type 0x03");
}

TEST(parsing_survives_every_failing_allocation)
{
    scio_status status;

    add_compound(1, 28, "y", 24, 2, (const uint32_t[]){2, 3, 0, 0});
    CHECK(try_parse(NULL) == SCIO_OK);
    CHECK_EVERY_ALLOCATION(status = try_parse(NULL), status);
    add_enum(3, (const char *const[]){"A", "B"}, (const uint8_t[]){1, 2}, 2);
    CHECK_EVERY_ALLOCATION(status = try_parse(NULL), status);
    start();
    head(SCIO_H5_OPAQUE, 1, 8, 7);
    image_zeros(&im, 8);
    CHECK_EVERY_ALLOCATION(status = try_parse(NULL), status);
    scio_h5_file_release(file);
    file = NULL;
}
