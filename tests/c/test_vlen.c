/* Variable-length values: records, global heap collections, and each of their rules. */
#include "dataset_testing.h"

#define N_OF(array) (sizeof(array) / sizeof *(array))
#define RECORD_NBYTES 16

typedef struct values {
    scio_buf *offsets, *payload;
} values;

static void
values_free(values *v)
{
    scio_buf_release(v->offsets);
    scio_buf_release(v->payload);
    *v = (values){NULL, NULL};
}

/* True when value i is `text`. */
static bool
is_value(const values *v, size_t i, const char *text)
{
    const int64_t *offsets = scio_buf_data(v->offsets);
    const size_t nbytes = (size_t)(offsets[i + 1] - offsets[i]);
    const char *payload = scio_buf_data(v->payload);

    return nbytes == strlen(text) && memcmp(payload + offsets[i], text, nbytes) == 0;
}

static scio_status
read_values(scio_h5_dataset *d, values *out, scio_error *err)
{
    const size_t n_items = (size_t)d->space.n_items;
    uint8_t records[1024];

    CHECK(read_all(d, SCIO_DTYPE_NONE, records, sizeof records, err) == SCIO_OK);
    return scio_h5_vlen_read(d->file, d->type, records, d->type->itemsize, n_items, &out->offsets,
                             &out->payload, err);
}

/* ---- files ---- */

TEST(strings_are_read)
{
    scio_h5_dataset *d = corpus_dataset("vlen");
    values v = {NULL, NULL};
    char expected[64];

    CHECK(read_values(d, &v, NULL) == SCIO_OK);
    for (int i = 0; i < 20; i++) {
        expected[0] = '\0';
        for (int k = 0; k < i % 4; k++)
            (void)snprintf(expected + strlen(expected), sizeof expected - strlen(expected),
                           "value %d", i);
        CHECK(is_value(&v, (size_t)i, expected));
    }
    values_free(&v);
    scio_h5_dataset_free(d);
}

TEST(the_fill_value_of_strings_is_a_record)
{
    scio_h5_dataset *d = corpus_dataset("vlen_fill");
    values v = {NULL, NULL};

    CHECK(read_values(d, &v, NULL) == SCIO_OK);
    for (size_t i = 0; i < 20; i++)
        CHECK(is_value(&v, i, i == 3 ? "x" : i == 8 || i == 9 ? "yy" : "fill"));
    values_free(&v);
    scio_h5_dataset_free(d);
}

TEST(sequences_are_items_of_their_base)
{
    scio_h5_dataset *d = corpus_dataset("vlen_sequences");
    values v = {NULL, NULL};
    const int64_t *offsets;
    int32_t item;

    CHECK(read_values(d, &v, NULL) == SCIO_OK);
    offsets = scio_buf_data(v.offsets);
    for (int i = 0; i < 6; i++)
        CHECK(offsets[i + 1] - offsets[i] == (i < 5 ? 4 * i : 0));
    memcpy(&item, (const uint8_t *)scio_buf_data(v.payload) + offsets[4] + 12, sizeof item);
    CHECK(item == expected_value(3));
    values_free(&v);
    scio_h5_dataset_free(d);
}

TEST(members_of_compounds_are_read_at_a_stride)
{
    scio_h5_dataset *d = corpus_dataset("vlen_compound"); /* addresses of 4 bytes */
    const scio_h5_member *member = &d->type->members[1];
    uint8_t records[6 * 16];
    values v = {NULL, NULL};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(d->type->itemsize == 16 && member->type->itemsize == 12);
    CHECK(read_all(d, SCIO_DTYPE_NONE, records, sizeof records, &err) == SCIO_OK);
    CHECK(scio_h5_vlen_read(d->file, member->type, records + member->offset, 16, 6, &v.offsets,
                            &v.payload, &err) == SCIO_OK);
    CHECK(is_value(&v, 0, "") && is_value(&v, 5, "sssss"));
    values_free(&v);
    scio_h5_dataset_free(d);
}

TEST(no_values_are_read)
{
    scio_h5_dataset *d = corpus_dataset("vlen");
    values v = {NULL, NULL};

    CHECK(scio_h5_vlen_read(d->file, d->type, NULL, 16, 0, &v.offsets, &v.payload, NULL) ==
          SCIO_OK);
    CHECK(scio_buf_nbytes(v.offsets) == 8 && *(const int64_t *)scio_buf_data(v.offsets) == 0);
    CHECK(scio_buf_nbytes(v.payload) == 0);
    values_free(&v);
    scio_h5_dataset_free(d);
}

/* ---- collections made here ---- */

typedef struct object {
    unsigned number;
    const char *text;
    uint64_t nbytes; /* 0 = of the text */
} object;

/* Appends a collection of nbytes (0 = as long as its objects) to the image; its address. */
static size_t
add_collection(image *im, const object *objects, size_t n_objects, uint64_t nbytes)
{
    const size_t at = image_append(im, "GCOL\1\0\0\0\0\0\0\0\0\0\0\0", 16);

    for (size_t i = 0; i < n_objects; i++) {
        const size_t text_nbytes = strlen(objects[i].text);
        const size_t head = image_append(im, NULL, 16 + (text_nbytes + 7) / 8 * 8);

        image_put(im, head, 2, objects[i].number);
        image_put(im, head + 8, 8, objects[i].nbytes != 0 ? objects[i].nbytes : text_nbytes);
        memcpy(im->data + head + 16, objects[i].text, text_nbytes);
    }
    image_put(im, at + 8, 8, nbytes != 0 ? nbytes : im->nbytes - at);
    return at;
}

static void
put_record(uint8_t *records, size_t i, uint32_t n_items, uint64_t address, uint32_t number)
{
    image im = {records, 0};

    image_put(&im, i * RECORD_NBYTES, 4, n_items);
    image_put(&im, i * RECORD_NBYTES + 4, 8, address);
    image_put(&im, i * RECORD_NBYTES + 12, 4, number);
}

static scio_status
resolve(const image *im, const scio_h5_limits *limits, const uint8_t *records, size_t n_items,
        values *out, scio_error *err)
{
    scio_h5_dataset *d = NULL;
    scio_status status;

    *err = (scio_error)SCIO_ERROR_INIT;
    if (open_d(image_open_limited(im, limits), &d, err) != SCIO_OK)
        abort();
    status = scio_h5_vlen_read(d->file, d->type, records, RECORD_NBYTES, n_items, &out->offsets,
                               &out->payload, err);
    scio_h5_dataset_free(d);
    return status;
}

TEST(tiny_collections_and_objects_in_any_order_are_read)
{
    static const object objects[] = {{7, "seven", 0}, {2, "two", 0}, {300, "three hundred", 0}};
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 3, 0);
    uint8_t records[4 * RECORD_NBYTES];
    values v = {NULL, NULL};
    scio_error err;

    put_record(records, 0, 13, at, 300);
    put_record(records, 1, 3, at, 2);
    put_record(records, 2, 5, at, 7);
    put_record(records, 3, 4, at, 7); /* less than the object has */
    CHECK(resolve(&im, NULL, records, 4, &v, &err) == SCIO_OK);
    CHECK(is_value(&v, 0, "three hundred") && is_value(&v, 1, "two"));
    CHECK(is_value(&v, 2, "seven") && is_value(&v, 3, "seve"));
    values_free(&v);
    image_free(&im);
}

TEST(objects_behind_the_free_space_are_none)
{
    static const object objects[] = {{1, "one", 0}, {0, "free", 0}, {2, "two", 0}};
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 3, 0);
    uint8_t records[RECORD_NBYTES];
    values v = {NULL, NULL};
    scio_error err;

    put_record(records, 0, 3, at, 2);
    CHECK(resolve(&im, NULL, records, 1, &v, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "has no object 2");
    image_free(&im);
}

TEST(a_collection_may_end_with_less_than_an_object_head)
{
    static const object objects[] = {{1, "one", 0}};
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 1, 16 + 24 + 8);
    uint8_t records[RECORD_NBYTES];
    values v = {NULL, NULL};
    scio_error err;

    (void)image_append(&im, "\1\0\0\0\0\0\0\0", 8);
    put_record(records, 0, 3, at, 1);
    CHECK(resolve(&im, NULL, records, 1, &v, &err) == SCIO_OK && is_value(&v, 0, "one"));
    values_free(&v);
    image_free(&im);
}

TEST(strings_end_at_their_first_nul)
{
    static const object objects[] = {{1, "ab", 8}, {2, "cd", 0}};
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 2, 0);
    uint8_t records[2 * RECORD_NBYTES];
    values v = {NULL, NULL};
    scio_error err;

    put_record(records, 0, 8, at, 1); /* "ab" and six NUL */
    put_record(records, 1, 2, at, 2);
    CHECK(resolve(&im, NULL, records, 2, &v, &err) == SCIO_OK);
    CHECK(is_value(&v, 0, "ab") && is_value(&v, 1, "cd"));
    CHECK(scio_buf_nbytes(v.payload) == 4);
    values_free(&v);
    image_free(&im);
}

TEST(the_address_of_an_empty_value_is_never_followed)
{
    static const uint64_t addresses[] = {0, UINT64_MAX, UINT64_MAX - 1, 1, 96};
    image im = image_load("vlen");
    uint8_t records[RECORD_NBYTES];
    scio_error err;

    for (size_t i = 0; i < N_OF(addresses); i++) {
        values v = {NULL, NULL};

        put_record(records, 0, 0, addresses[i], 77);
        CHECK(resolve(&im, NULL, records, 1, &v, &err) == SCIO_OK && is_value(&v, 0, ""));
        values_free(&v);
    }
    image_free(&im);
}

TEST(each_rule_of_records_and_collections_is_checked)
{
    static const object good[] = {{1, "one", 0}}, twice[] = {{1, "a", 0}, {1, "b", 0}};
    static const object too_long[] = {{1, "one", 9}}, far_too_long[] = {{1, "one", UINT64_MAX}};
    static const struct {
        const object *objects;
        size_t n_objects;
        uint64_t nbytes;
        size_t patch_at, patch_width; /* in the collection */
        uint64_t patch;
        uint32_t n_items, number;
        uint64_t address; /* 0 = of the collection */
        const char *part;
    } cases[] = {
        {good, 1, 0, 0, 1, 'X', 3, 1, 0, "value 0: no global heap collection at byte "},
        {good, 1, 0, 4, 1, 2, 3, 1, 0, "version 2; expected \"GCOL\", version 1"},
        {good, 1, 15, 16, 0, 0, 3, 1, 0, "15 bytes, expected 16 to 40"},
        {good, 1, 41, 16, 0, 0, 3, 1, 0, "41 bytes, expected 16 to 40"},
        {good, 1, UINT64_MAX, 16, 0, 0, 3, 1, 0, "18446744073709551615 bytes, expected"},
        {twice, 2, 0, 16, 0, 0, 1, 1, 0, "object 1 is there twice"},
        {too_long, 1, 0, 16, 0, 0, 3, 1, 0, "object 1 has 9 bytes, the collection has room for 8"},
        {far_too_long, 1, 0, 16, 0, 0, 3, 1, 0, "object 1 has 18446744073709551615 bytes"},
        {NULL, 0, 0, 16, 0, 0, 3, 1, 0, "has no object 1"},
        {good, 1, 0, 16, 0, 0, 3, 2, 0, "has no object 2"},
        {good, 1, 0, 16, 0, 0, 3, 0, 0, "has no object 0"},
        {good, 1, 0, 16, 0, 0, 3, 65537, 0, "has no object 65537"},
        {good, 1, 0, 16, 0, 0, 4, 1, 0, "4 bytes in object 1 of the global heap collection"},
        {good, 1, 0, 16, 0, 0, 3, 1, UINT64_MAX, "value 0: "},
        {good, 1, 0, 16, 0, 0, 3, 1, UINT64_MAX - 8, "value 0: "},
        {good, 1, 0, 16, 0, 0, 3, 1, 1 << 30, "value 0: "},
        {good, 1, 0, 16, 0, 0, 3, 1, 8, "value 0: no global heap collection at byte 8"},
    };

    for (size_t i = 0; i < N_OF(cases); i++) {
        image im = image_load("vlen");
        const size_t at =
            add_collection(&im, cases[i].objects, cases[i].n_objects, cases[i].nbytes);
        uint8_t records[RECORD_NBYTES];
        values v = {NULL, NULL};
        scio_error err;

        image_put(&im, at + cases[i].patch_at, cases[i].patch_width, cases[i].patch);
        put_record(records, 0, cases[i].n_items, cases[i].address != 0 ? cases[i].address : at,
                   cases[i].number);
        CHECK(resolve(&im, NULL, records, 1, &v, &err) == SCIO_ECORRUPT);
        CHECK_STR(err.message, cases[i].part);
        CHECK(v.offsets == NULL && v.payload == NULL);
        image_free(&im);
    }
}

TEST(the_end_of_the_file_cuts_a_collection_head)
{
    image im = image_load("vlen");
    const size_t at = image_append(&im, "GCOL\1\0\0\0\x10\0\0\0", 12);
    uint8_t records[RECORD_NBYTES];
    values v = {NULL, NULL};
    scio_error err;

    put_record(records, 0, 1, at, 1);
    CHECK(resolve(&im, NULL, records, 1, &v, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "beyond the end of the file");
    image_free(&im);
}

TEST(many_records_may_name_one_object)
{
    static const object objects[] = {{1, "the same text for all of them", 0}};
    enum { N = 2000 };
    static uint8_t records[N * RECORD_NBYTES];
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 1, 0);
    values v = {NULL, NULL};
    scio_h5_limits limits;
    scio_error err;

    for (size_t i = 0; i < N; i++)
        put_record(records, i, 29, at, 1);
    CHECK(resolve(&im, NULL, records, N, &v, &err) == SCIO_OK);
    CHECK(scio_buf_nbytes(v.payload) == (size_t)N * 29);
    CHECK(is_value(&v, 0, objects[0].text) && is_value(&v, N - 1, objects[0].text));
    values_free(&v);
    scio_h5_limits_default(&limits);
    limits.vlen_nbytes = 290;
    CHECK(resolve(&im, &limits, records, N, &v, &err) == SCIO_EUNSAFE);
    CHECK_STR(err.message, "value 10: the variable-length values so far have 319 bytes, the limit "
                           "vlen_nbytes is 290");
    image_free(&im);
}

TEST(records_that_lie_about_their_length_take_no_memory)
{
    static const object objects[] = {{1, "one", 0}};
    static uint8_t records[100 * RECORD_NBYTES];
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 1, 0);
    const int64_t before = scio_stats_get(SCIO_STAT_live_buf_nbytes);
    values v = {NULL, NULL};
    scio_error err;

    for (size_t i = 0; i < 100; i++) /* together 4.1 of the 4.3 GB allowed */
        put_record(records, i, 41000000, at, 1);
    CHECK(resolve(&im, NULL, records, 100, &v, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "value 0: 41000000 bytes in object 1");
    CHECK(scio_stats_get(SCIO_STAT_live_buf_nbytes) == before);
    image_free(&im);
}

TEST(collections_inside_one_another_are_refused)
{
    enum { N = 64 };
    static uint8_t records[N * RECORD_NBYTES];
    image im = image_load("vlen");
    const size_t at = im.nbytes;
    values v = {NULL, NULL};
    scio_error err;

    (void)image_append(&im, NULL, 32 * N + 8);
    for (size_t i = 0; i < N; i++) { /* each reaches to the end of the file, with one object */
        const size_t head = at + 32 * i;

        memcpy(im.data + head, "GCOL\1", 5);
        image_put(&im, head + 8, 8, im.nbytes - head);
        image_put(&im, head + 16, 2, 1);
        image_put(&im, head + 24, 8, im.nbytes - head - 32);
        put_record(records, i, 1, head, 1);
    }
    CHECK(resolve(&im, NULL, records, N, &v, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "overlaps others");
    image_free(&im);
}

TEST(each_collection_is_read_once_whatever_the_order)
{
    enum { N_COLLECTIONS = 40, N = 400 };
    static uint8_t records[N * RECORD_NBYTES];
    image im = image_load("vlen");
    size_t at[N_COLLECTIONS];
    values v = {NULL, NULL};
    scio_h5_dataset *d = NULL;
    int64_t n_reads;

    for (size_t i = 0; i < N_COLLECTIONS; i++) {
        char text[16];
        object o = {1, text, 0};

        (void)snprintf(text, sizeof text, "text %zu", i);
        at[i] = add_collection(&im, &o, 1, 0);
        (void)image_append(&im, NULL, 5000); /* other data between them */
    }
    for (size_t i = 0; i < N; i++)
        put_record(records, i, i * 13 % N_COLLECTIONS < 10 ? 6 : 7, at[i * 13 % N_COLLECTIONS], 1);
    CHECK(image_dataset(&im, &d, NULL) == SCIO_OK);
    n_reads = scio_stats_get(SCIO_STAT_n_reads);
    CHECK(scio_h5_vlen_read(d->file, d->type, records, RECORD_NBYTES, N, &v.offsets, &v.payload,
                            NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_n_reads) - n_reads <= 1);
    for (size_t i = 0; i < N; i++) {
        char text[16];

        (void)snprintf(text, sizeof text, "text %zu", i * 13 % N_COLLECTIONS);
        CHECK(is_value(&v, i, text));
    }
    values_free(&v);
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(collections_far_apart_are_read_by_themselves)
{
    static const object objects[] = {{1, "text", 0}};
    static uint8_t records[6 * RECORD_NBYTES];
    image im = image_load("vlen");
    size_t at[6];
    values v = {NULL, NULL};
    scio_h5_dataset *d = NULL;
    int64_t nbytes;

    for (size_t i = 0; i < 6; i++) {
        /* the odd ones are longer than the read that is planned for them */
        at[i] = add_collection(&im, objects, 1, i % 2 == 0 ? 0 : 100000);
        (void)image_append(&im, NULL, (size_t)1 << 20);
    }
    for (size_t i = 0; i < 6; i++)
        put_record(records, i, 4, at[5 - i], 1);
    CHECK(image_dataset(&im, &d, NULL) == SCIO_OK);
    nbytes = scio_stats_get(SCIO_STAT_nbytes_read);
    CHECK(scio_h5_vlen_read(d->file, d->type, records, RECORD_NBYTES, 6, &v.offsets, &v.payload,
                            NULL) == SCIO_OK);
    /* of more than 6 MiB: a block of the metadata cache for each short one, the long ones */
    CHECK(scio_stats_get(SCIO_STAT_nbytes_read) - nbytes < 2000000);
    for (size_t i = 0; i < 6; i++)
        CHECK(is_value(&v, i, "text"));
    values_free(&v);
    scio_h5_dataset_free(d);
    image_free(&im);
}

/* ---- arguments, memory ---- */

TEST(other_types_and_short_strides_are_refused)
{
    scio_h5_dataset *d = corpus_dataset("vlen"), *numbers = corpus_dataset("line");
    uint8_t records[RECORD_NBYTES] = {0};
    values v = {NULL, NULL};

    CHECK(scio_h5_vlen_read(d->file, numbers->type, records, 16, 1, &v.offsets, &v.payload, NULL) ==
          SCIO_EINVAL);
    CHECK(scio_h5_vlen_read(d->file, d->type, records, 15, 1, &v.offsets, &v.payload, NULL) ==
          SCIO_EINVAL);
    CHECK(scio_h5_vlen_read(d->file, d->type, records, 16, SIZE_MAX / 8, &v.offsets, &v.payload,
                            NULL) == SCIO_ENOMEM);
    scio_h5_dataset_free(d);
    scio_h5_dataset_free(numbers);
}

TEST(resolving_survives_every_failing_allocation)
{
    static const object objects[] = {{7, "seven", 0}, {2, "two", 0}};
    image im = image_load("vlen");
    const size_t at = add_collection(&im, objects, 2, 0);
    uint8_t records[2 * RECORD_NBYTES];
    scio_h5_dataset *d = NULL;
    values v = {NULL, NULL};
    scio_status status;
    int64_t live;
    size_t k = 0;

    put_record(records, 0, 5, at, 7);
    put_record(records, 1, 3, at, 2);
    CHECK(image_dataset(&im, &d, NULL) == SCIO_OK);
    live = scio_stats_get(SCIO_STAT_live_bufs);
    do {
        scio_mem_fail_at(k++);
        status = scio_h5_vlen_read(d->file, d->type, records, RECORD_NBYTES, 2, &v.offsets,
                                   &v.payload, NULL);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && v.offsets == NULL));
        CHECK(status == SCIO_OK || scio_stats_get(SCIO_STAT_live_bufs) == live);
    } while (status != SCIO_OK && k < 1000);
    CHECK(k > 8);
    values_free(&v);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live);
    scio_h5_dataset_free(d);
    image_free(&im);
}
