/* Attributes: messages of all versions, dense storage, and that a broken one hides no other. */
#include "h5_image.h"
#include "h5read/object.h"

static image im;

static const uint8_t i4_type[] = {0x10, 8, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0};
static const uint8_t scalar_space[] = {2, 0, 0, 0};

static uint8_t message[512];
static size_t message_nbytes;

static void
put(const void *bytes, size_t nbytes, bool is_padded)
{
    memcpy(message + message_nbytes, bytes, nbytes);
    message_nbytes += nbytes;
    while (is_padded && message_nbytes % 8 != 0)
        message[message_nbytes++] = 0;
}

/* An attribute message; `name_nbytes` counts its NUL. */
static void
make_attr(unsigned version, unsigned flags, const char *name, size_t name_nbytes, const void *type,
          size_t type_nbytes, const void *space, size_t space_nbytes, const void *value,
          size_t value_nbytes)
{
    const uint8_t head[] = {(uint8_t)version,      (uint8_t)flags,
                            (uint8_t)name_nbytes,  0,
                            (uint8_t)type_nbytes,  0,
                            (uint8_t)space_nbytes, 0};

    message_nbytes = 0;
    memset(message, 0, sizeof message);
    put(head, sizeof head, false);
    if (version == 3)
        put("", 1, false);
    put(name, name_nbytes, version == 1);
    put(type, type_nbytes, version == 1);
    put(space, space_nbytes, version == 1);
    put(value, value_nbytes, false);
}

static void
make_i4(unsigned version, const char *name, uint8_t value)
{
    const uint8_t bytes[4] = {value};

    make_attr(version, 0, name, strlen(name) + 1, i4_type, sizeof i4_type, scalar_space,
              sizeof scalar_space, bytes, 4);
}

static uint64_t
begin_object(void)
{
    image_new_superblock(&im, 2, 8, 8, 48);
    return image_header_v2(&im);
}

static void
add_message(void)
{
    image_message_v2(&im, SCIO_H5_MSG_ATTRIBUTE, 0, message, message_nbytes);
}

/* An object with the one attribute of `message`. */
static uint64_t
one_object(void)
{
    const uint64_t at = begin_object();

    add_message();
    image_header_v2_end(&im);
    return at;
}

static scio_status
get_with(uint64_t at, const scio_h5_limits *limits, const char *name, scio_h5_attr *out,
         scio_error *err)
{
    scio_h5_file *file = NULL;
    scio_status status;

    memset(out, 0, sizeof *out);
    image_finish(&im);
    status = image_open_with(&im, limits, &file, err);
    if (status == SCIO_OK)
        status = scio_h5_attr_get(file, at, name, out, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
try_get(uint64_t at, const char *name, scio_error *err)
{
    scio_h5_attr attr;
    const scio_status status = get_with(at, NULL, name, &attr, err);

    CHECK(status == SCIO_OK || (attr.name == NULL && attr.value == NULL));
    scio_h5_attr_clear(&attr);
    return status;
}

/* The names as one text, "a b c". */
static scio_status
names_at(uint64_t at, char *text, size_t text_nbytes, scio_error *err)
{
    scio_h5_file *file;
    char **names = NULL;
    size_t n_names = 0, used = 0;
    scio_status status;

    image_finish(&im);
    file = image_open(&im);
    status = scio_h5_attr_names(file, at, &names, &n_names, err);
    text[0] = '\0';
    for (size_t i = 0; i < n_names && used < text_nbytes; i++)
        used += (size_t)snprintf(text + used, text_nbytes - used, i == 0 ? "%s" : " %s", names[i]);
    scio_h5_names_free(names, n_names);
    scio_h5_file_release(file);
    return status;
}

TEST(messages_of_versions_1_2_and_3)
{
    for (unsigned version = 1; version <= 3; version++) {
        const char *const names[] = {"a", "seven77", "eight888"};

        for (size_t i = 0; i < 3; i++) {
            scio_h5_attr attr;
            size_t end;
            uint64_t at;

            make_i4(version, names[i], 42);
            at = one_object();
            CHECK(get_with(at, NULL, names[i], &attr, NULL) == SCIO_OK);
            CHECK(attr.name != NULL && strcmp(attr.name, names[i]) == 0);
            CHECK(attr.type != NULL && attr.type->dtype == SCIO_I32);
            CHECK(attr.space.space_class == SCIO_H5_SCALAR && attr.value_nbytes == 4);
            CHECK(attr.value != NULL && attr.value[0] == 42 && attr.value[1] == 0);
            scio_h5_attr_clear(&attr);
            for (end = message_nbytes; end > 0; end--) {
                message_nbytes = end - 1;
                CHECK(try_get(one_object(), names[i], NULL) == SCIO_ECORRUPT);
            }
        }
    }
}

TEST(an_attribute_without_elements_has_no_value)
{
    const uint8_t null_space[] = {2, 0, 0, 2};
    const uint8_t empty_space[] = {2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    scio_h5_attr attr;

    make_attr(3, 0, "x", 2, i4_type, sizeof i4_type, null_space, sizeof null_space, "", 0);
    CHECK(get_with(one_object(), NULL, "x", &attr, NULL) == SCIO_OK);
    CHECK(attr.space.space_class == SCIO_H5_NULL && attr.value == NULL && attr.value_nbytes == 0);
    scio_h5_attr_clear(&attr);
    make_attr(3, 0, "x", 2, i4_type, sizeof i4_type, empty_space, sizeof empty_space, "", 0);
    CHECK(get_with(one_object(), NULL, "x", &attr, NULL) == SCIO_OK);
    CHECK(attr.space.n_items == 0 && attr.value == NULL);
    scio_h5_attr_clear(&attr);
}

TEST(messages_are_checked)
{
    const uint8_t many[] = {2, 2, 0,   1,   255, 255, 255, 255, 0, 0,
                            0, 0, 255, 255, 255, 127, 0,   0,   0, 0};
    const uint8_t six[] = {2, 1, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0};

    make_i4(4, "x", 1);
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_EUNSUPPORTED,
                "attribute message at byte 62: version 4, read are 1 to 3");
    make_i4(3, "x", 1);
    message[1] = 4;
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_ECORRUPT, "flags 0x04");
    make_i4(1, "x", 1);
    message[1] = 4; /* reserved in version 1 */
    CHECK(try_get(one_object(), "x", NULL) == SCIO_OK);
    make_attr(3, 0, "xy", 2, i4_type, sizeof i4_type, scalar_space, 4, "1234", 4);
    CHECK_FAILS(try_get(one_object(), "xy", &err), SCIO_ECORRUPT,
                "a name of 2 bytes that does not end");
    make_attr(3, 0, "x\0y", 4, i4_type, sizeof i4_type, scalar_space, 4, "1234", 4);
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_ECORRUPT, "a name of 4 bytes");
    make_attr(3, 0, "", 0, i4_type, sizeof i4_type, scalar_space, 4, "1234", 4);
    CHECK_FAILS(try_get(one_object(), "", &err), SCIO_ECORRUPT, "a name of 0 bytes");
    make_i4(3, "x", 1);
    message[4] = 255; /* type beyond the message */
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_ECORRUPT,
                "attribute \"x\": attribute message at byte 73: 255 bytes expected");
    make_i4(3, "x", 1);
    message[4] = 11; /* type cut short */
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_ECORRUPT,
                "attribute \"x\": datatype at byte");
    make_attr(3, 0, "x", 2, i4_type, sizeof i4_type, many, sizeof many, "1234", 4);
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_ECORRUPT,
                "elements of 4 bytes, 4 bytes are left");
    make_attr(3, 0, "x", 2, i4_type, sizeof i4_type, six, sizeof six, "12345678901234567890123",
              23);
    CHECK_FAILS(try_get(one_object(), "x", &err), SCIO_ECORRUPT,
                "6 elements of 4 bytes, 23 bytes are left");
}

TEST(a_value_beyond_the_limit_is_refused)
{
    scio_h5_limits limits;
    scio_h5_attr attr;

    scio_h5_limits_default(&limits);
    limits.attribute_nbytes = 3;
    make_i4(3, "x", 1);
    CHECK_FAILS(get_with(one_object(), &limits, "x", &attr, &err), SCIO_EUNSAFE,
                "its 4 bytes are over the limit attribute_nbytes of 3");
}

TEST(a_broken_attribute_hides_no_other)
{
    char text[64];
    uint64_t at = begin_object();

    make_i4(3, "odd_type", 1);
    message[9 + 9] = 0x1c; /* class 12 */
    add_message();
    make_i4(3, "good", 2);
    add_message();
    image_header_v2_end(&im);
    CHECK(try_get(at, "good", NULL) == SCIO_OK);
    CHECK_FAILS(try_get(at, "odd_type", &err), SCIO_EUNSUPPORTED, "attribute \"odd_type\"");
    CHECK_FAILS(try_get(at, "none", &err), SCIO_ENOENT, "there is no attribute \"none\"");
    CHECK(names_at(at, text, sizeof text, NULL) == SCIO_OK);
    CHECK_STR(text, "good odd_type");

    at = begin_object();
    make_i4(3, "nameless", 1);
    message[2] = 200; /* the name reaches over the message */
    add_message();
    make_i4(3, "good", 2);
    add_message();
    image_header_v2_end(&im);
    CHECK(try_get(at, "good", NULL) == SCIO_OK);
    /* The broken one may be what is asked for, and cannot be listed. */
    CHECK_FAILS(try_get(at, "none", &err), SCIO_ECORRUPT, "200 bytes expected");
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_ECORRUPT, "200 bytes expected");
}

TEST(names_are_sorted_and_differ)
{
    char text[64];
    uint64_t at = begin_object();

    for (size_t i = 0; i < 4; i++) {
        const char name[] = {"dbca"[i], '\0'};

        make_i4(3, name, 0);
        add_message();
    }
    image_header_v2_end(&im);
    CHECK(names_at(at, text, sizeof text, NULL) == SCIO_OK);
    CHECK(strcmp(text, "a b c d") == 0);
    at = begin_object();
    make_i4(3, "twice", 0);
    add_message();
    add_message();
    image_header_v2_end(&im);
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_ECORRUPT,
                "two attributes named \"twice\"");
    at = begin_object();
    image_header_v2_end(&im);
    CHECK(names_at(at, text, sizeof text, NULL) == SCIO_OK && text[0] == '\0');
}

TEST(more_names_than_the_limit_are_refused)
{
    scio_h5_limits limits;
    scio_h5_file *file = NULL;
    char **names = NULL;
    size_t n_names = 0;
    uint64_t at;

    scio_h5_limits_default(&limits);
    limits.n_members = 0;
    make_i4(3, "x", 0);
    at = one_object();
    image_finish(&im);
    CHECK(image_open_with(&im, &limits, &file, NULL) == SCIO_OK);
    CHECK_FAILS(scio_h5_attr_names(file, at, &names, &n_names, &err), SCIO_EUNSAFE,
                "the limit n_members");
    CHECK(names == NULL && n_names == 0);
    scio_h5_file_release(file);
}

TEST(an_attribute_in_the_heap_of_shared_messages_is_refused)
{
    char text[64];
    uint64_t at = begin_object();

    make_i4(3, "good", 2);
    add_message();
    image_message_v2(&im, SCIO_H5_MSG_ATTRIBUTE, 2, "\3\1\0\0\0\0\0\0\0\0", 10);
    image_header_v2_end(&im);
    CHECK(try_get(at, "good", NULL) == SCIO_OK);
    CHECK_FAILS(try_get(at, "other", &err), SCIO_EUNSUPPORTED, "shared object header messages");
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_EUNSUPPORTED, "shared object header");
}

TEST(a_type_can_be_a_committed_one)
{
    uint8_t shared[] = {2, 2, 48, 0, 0, 0, 0, 0, 0, 0};
    scio_h5_attr attr;
    uint64_t at;

    image_new_superblock(&im, 2, 8, 8, 48);
    CHECK(image_header_v2(&im) == 48);
    image_message_v2(&im, SCIO_H5_MSG_DATATYPE, 0, i4_type, sizeof i4_type);
    image_header_v2_end(&im);
    at = image_header_v2(&im);
    make_attr(2, 1, "x", 2, shared, sizeof shared, scalar_space, 4, "\5\0\0", 4);
    add_message();
    image_header_v2_end(&im);
    CHECK(get_with(at, NULL, "x", &attr, NULL) == SCIO_OK);
    CHECK(attr.type->dtype == SCIO_I32 && attr.value[0] == 5);
    scio_h5_attr_clear(&attr);
    im.data[48 + 14] = 0x1c; /* now of an unknown class */
    image_resum(&im, 48, (size_t)at - 4);
    CHECK_FAILS(try_get(at, "x", &err), SCIO_EUNSUPPORTED, "attribute \"x\": datatype");
}

/* ---- dense storage, as the library writes it ---- */

static scio_h5_file *
open_corpus(const char *path)
{
    scio_source *source = NULL;
    scio_h5_file *file = NULL;
    scio_error err = SCIO_ERROR_INIT;

    if (scio_source_open_file(path, &source, &err) != SCIO_OK ||
        scio_h5_file_open(source, NULL, &file, &err) != SCIO_OK) {
        printf("%s\n", err.message);
        exit(EXIT_FAILURE);
    }
    scio_source_release(source);
    return file;
}

/* "attribute i" of the corpus is int16 0, 1, 2 …, i * 7 % 10 of them. */
static void
check_many(const char *path)
{
    scio_h5_file *file = open_corpus(path);
    const uint64_t root = scio_h5_file_superblock(file)->root;
    char **names = NULL;
    size_t n_names = 0;

    CHECK(scio_h5_attr_names(file, root, &names, &n_names, NULL) == SCIO_OK && n_names == 10);
    for (unsigned i = 0; i < n_names; i++) {
        scio_h5_attr attr;
        char expected[32];

        (void)snprintf(expected, sizeof expected, "attribute %u", i);
        CHECK(strcmp(names[i], expected) == 0);
        CHECK(scio_h5_attr_get(file, root, expected, &attr, NULL) == SCIO_OK);
        CHECK(attr.space.n_items == i * 7 % 10 && attr.value_nbytes == 2 * attr.space.n_items);
        for (size_t k = 0; 2 * k < attr.value_nbytes; k++)
            CHECK(attr.value[2 * k] == k);
        scio_h5_attr_clear(&attr);
    }
    scio_h5_names_free(names, n_names);
    CHECK_FAILS(scio_h5_attr_get(file, root, "attribute", &(scio_h5_attr){0}, &err), SCIO_ENOENT,
                "there is no attribute \"attribute\"");
    scio_h5_file_release(file);
}

TEST(dense_attributes_of_real_files)
{
    check_many("tests/fuzz/corpus/h5file/many.h5");
    check_many("tests/fuzz/corpus/h5file/many_o4_l8.h5");
}

TEST(an_attribute_too_large_for_its_heap)
{
    scio_h5_file *file = open_corpus("tests/fuzz/corpus/h5file/tracked.h5");
    scio_h5_attr attr;
    uint64_t at = 0;

    CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "tracked", &at, NULL) ==
          SCIO_OK);
    CHECK(scio_h5_attr_get(file, at, "column-order", &attr, NULL) == SCIO_OK);
    CHECK(attr.value_nbytes == 4200);
    for (size_t i = 0; i < attr.value_nbytes; i++)
        CHECK(attr.value[i] == (i & 0xff));
    scio_h5_attr_clear(&attr);
    scio_h5_file_release(file);
}

enum { N_TRACKED = 10, RECORD_NBYTES = 17 };

/* The corpus file with ten dense attributes, one of them huge, into the image; `*leaf_out` = the
 * first record of their index by name. */
static uint64_t
load_tracked(size_t *leaf_out)
{
    FILE *const stream = fopen("tests/fuzz/corpus/h5file/tracked.h5", "rb");
    scio_h5_file *file;
    uint64_t at = 0;

    if (stream == NULL)
        exit(EXIT_FAILURE);
    memset(&im, 0, sizeof im);
    im.nbytes = fread(im.data, 1, sizeof im.data, stream);
    (void)fclose(stream);
    im.o = im.l = 8;
    im.end_at = 40;
    for (size_t i = 0; i + 6 < im.nbytes; i++)
        if (memcmp(im.data + i, "BTLF\0\x8", 6) == 0)
            *leaf_out = i + 6;
    file = image_open(&im);
    CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "tracked", &at, NULL) ==
          SCIO_OK);
    scio_h5_file_release(file);
    return at;
}

static void
resum_leaf(size_t leaf)
{
    image_resum(&im, leaf - 6, leaf + (size_t)N_TRACKED * RECORD_NBYTES);
}

TEST(many_records_of_one_object_cost_no_more_than_the_file)
{
    char text[64];
    size_t leaf = 0, huge = 0;
    const uint64_t at = load_tracked(&leaf);

    for (size_t i = 0; i < N_TRACKED; i++)
        if (im.data[leaf + i * RECORD_NBYTES] == 0x10)
            huge = leaf + i * RECORD_NBYTES;
    CHECK(huge != 0);
    for (size_t i = 0; i < N_TRACKED; i++) /* 4.2 KB each, in a file of 9 KB */
        memmove(im.data + leaf + i * RECORD_NBYTES, im.data + huge, RECORD_NBYTES);
    resum_leaf(leaf);
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_ECORRUPT,
                "its objects are larger together than the file");
}

TEST(dense_attributes_are_checked)
{
    char text[64];
    size_t leaf = 0;
    uint64_t at = load_tracked(&leaf);

    im.data[leaf + 8] = 2; /* flagged as shared */
    resum_leaf(leaf);
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_EUNSUPPORTED,
                "shared object header messages");
    at = load_tracked(&leaf);
    im.data[leaf + 13] ^= 1; /* the hash */
    resum_leaf(leaf);
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_ECORRUPT, "the index has hash");
    at = load_tracked(&leaf);
    memcpy(im.data + leaf, im.data + leaf + RECORD_NBYTES, RECORD_NBYTES);
    resum_leaf(leaf);
    CHECK_FAILS(names_at(at, text, sizeof text, &err), SCIO_ECORRUPT, "two attributes named");
}

static scio_status
read_dense(scio_h5_file *file, uint64_t at)
{
    char **names = NULL;
    size_t n_names = 0;
    scio_h5_attr attr;
    scio_status status = scio_h5_attr_names(file, at, &names, &n_names, NULL);

    CHECK(status == SCIO_OK ? n_names == 10 : names == NULL);
    scio_h5_names_free(names, n_names);
    if (status == SCIO_OK)
        status = scio_h5_attr_get(file, at, "column-order", &attr, NULL);
    if (status == SCIO_OK)
        scio_h5_attr_clear(&attr);
    return status;
}

TEST(attributes_survive_every_failing_allocation)
{
    scio_h5_file *file = open_corpus("tests/fuzz/corpus/h5file/tracked.h5");
    scio_status status;
    uint64_t at = 0;

    CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "tracked", &at, NULL) ==
          SCIO_OK);
    CHECK_EVERY_ALLOCATION(status = read_dense(file, at), status);
    scio_h5_file_release(file);

    make_i4(1, "x", 1);
    at = one_object();
    image_finish(&im);
    file = image_open(&im);
    CHECK_EVERY_ALLOCATION(
        {
            scio_h5_attr attr;

            status = scio_h5_attr_get(file, at, "x", &attr, NULL);
            scio_h5_attr_clear(&attr);
        },
        status);
    scio_h5_file_release(file);
}
