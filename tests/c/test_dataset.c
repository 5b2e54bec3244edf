/* Describing datasets: the messages of the object header, one by one and against each other. */
#include "dataset_testing.h"

/* ---- whole files ---- */

typedef struct description {
    const char *file, *index_name;
    scio_h5_layout layout;
    unsigned rank;
    uint64_t n_units, unit_nbytes, n_filters;
} description;

TEST(every_layout_and_index_is_described)
{
    static const description cases[] = {
        {"btree1", "btree1", SCIO_H5_CHUNKED, 2, 25, 140, 2},
        {"btree1_levels", "btree1", SCIO_H5_CHUNKED, 1, 60, 1, 0},
        {"single_v110", "single", SCIO_H5_CHUNKED, 2, 1, 2852, 1},
        {"single_latest", "single", SCIO_H5_CHUNKED, 2, 1, 2852, 1},
        {"implicit", "implicit", SCIO_H5_CHUNKED, 2, 25, 140, 0},
        {"fixed_v110", "fixed", SCIO_H5_CHUNKED, 2, 25, 140, 1},
        {"fixed_latest", "fixed", SCIO_H5_CHUNKED, 2, 25, 140, 1},
        {"extensible_latest", "extensible", SCIO_H5_CHUNKED, 1, 60, 1, 0},
        {"btree2_latest", "btree2", SCIO_H5_CHUNKED, 2, 25, 140, 1},
        {"contiguous", "none", SCIO_H5_CONTIGUOUS, 2, 1, 2852, 0},
        {"compact", "none", SCIO_H5_COMPACT, 1, 1, 80, 0},
        {"scalar", "none", SCIO_H5_CONTIGUOUS, 0, 1, 4, 0},
        {"empty", "extensible", SCIO_H5_CHUNKED, 2, 0, 32, 0},
        {"null", "none", SCIO_H5_CONTIGUOUS, 0, 0, 4, 0},
        {"sparse_btree2", "btree2", SCIO_H5_CHUNKED, 2, UINT64_C(109951162778) * 103, 400, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scio_h5_dataset *d = corpus_dataset(cases[i].file);

        CHECK_STR(d->index_name, cases[i].index_name);
        CHECK(d->layout == cases[i].layout);
        CHECK(d->space.rank == cases[i].rank);
        CHECK(d->n_units == cases[i].n_units);
        CHECK(d->unit_nbytes == cases[i].unit_nbytes);
        CHECK(d->pipeline.n_filters == cases[i].n_filters);
        if (test_has_failed)
            printf("    in %s: %llu units of %llu bytes\n", cases[i].file,
                   (unsigned long long)d->n_units, (unsigned long long)d->unit_nbytes);
        scio_h5_dataset_free(d);
    }
}

TEST(a_group_is_no_dataset)
{
    image im = image_load("contiguous");
    scio_h5_file *file = image_open(&im);
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_dataset *dataset = NULL;

    CHECK(scio_h5_dataset_open(file, scio_h5_file_superblock(file)->root, "/", &dataset, &err) ==
          SCIO_ETYPE);
    CHECK_STR(err.message, "/: a group, not a dataset");
    CHECK(dataset == NULL);
    scio_h5_file_release(file);
    image_free(&im);
}

/* The layout message of contiguous.h5: version 3, class 1, address, size. */
static size_t
find_contiguous_layout(const image *im)
{
    for (size_t k = 0;; k++) {
        const size_t at = image_find(im, "\x03\x01", 2, k);

        if (image_get(im, at + 10, 8) == 23 * 31 * 4)
            return at;
    }
}

/* Header of the OH version 1 message whose data are at `at`: type at - 8, flags at - 4. */
TEST(external_storage_is_refused)
{
    image im = image_load("contiguous");
    const size_t layout = find_contiguous_layout(&im);

    for (size_t at = layout; at-- > 0;) /* the fill value message before it */
        if (image_get(&im, at, 2) == SCIO_H5_MSG_FILL && image_get(&im, at + 2, 2) == 8) {
            image_put(&im, at, 2, SCIO_H5_MSG_EXTERNAL_FILES);
            break;
        }
    check_fails(&im, SCIO_EUNSAFE, "/d: external file storage");
    image_free(&im);
}

TEST(a_dataset_without_a_needed_message_names_it)
{
    image im = image_load("contiguous");
    const size_t layout = find_contiguous_layout(&im);

    image_put(&im, layout - 8, 2, 0x16);
    check_fails(&im, SCIO_ECORRUPT, "/d: a dataset without a layout message");
    image_free(&im);
}

TEST(contiguous_data_must_be_as_long_as_shape_and_type_say)
{
    image im = image_load("contiguous");
    const size_t layout = find_contiguous_layout(&im);

    image_put(&im, layout + 10, 8, 23 * 31 * 4 - 1);
    check_fails(&im, SCIO_ECORRUPT, "contiguous data of 2851 bytes, shape and type need 2852");
    image_put(&im, layout + 10, 8, 23 * 31 * 4 + 1);
    image_put(&im, layout + 2, 8, im.nbytes - 2851);
    check_fails(&im, SCIO_ECORRUPT, "beyond the end of the file");
    image_put(&im, layout + 2, 8, UINT64_MAX - 1);
    check_fails(&im, SCIO_ECORRUPT, "/d: ");
    image_free(&im);
}

TEST(compact_data_must_be_as_long_as_shape_and_type_say)
{
    image im = image_load("compact");

    image_put(&im, image_find(&im, "\x03\x00\x50\x00", 4, 0) + 2, 2, 79);
    check_fails(&im, SCIO_ECORRUPT, "compact data of 79 bytes, shape and type need 80");
    image_free(&im);
}

TEST(chunks_must_fit_dataspace_and_type)
{
    image im = image_load("line_plain");
    const size_t layout = image_find(&im, "\x03\x02\x02", 3, 0); /* then A, 10, 4 */

    CHECK(image_get(&im, layout + 11, 4) == 10 && image_get(&im, layout + 15, 4) == 4);
    image_put(&im, layout + 15, 4, 8);
    check_fails(&im, SCIO_ECORRUPT, "layout message: elements of 8 bytes, the type has 4");
    image_put(&im, layout + 15, 4, 4);
    image_put(&im, layout + 2, 1, 3);
    check_fails(&im, SCIO_ECORRUPT, "/d: ");
    image_put(&im, layout + 2, 1, 2);
    image_put(&im, layout + 11, 4, 0);
    check_fails(&im, SCIO_ECORRUPT, "chunk dimension 0 is 0");
    image_free(&im);
}

TEST(opening_survives_every_failing_allocation)
{
    static const char *const files[] = {"btree1", "compact", "compound", "btree1_holes"};

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        image im = image_load(files[i]);
        scio_h5_file *file = image_open(&im);
        const int64_t live = scio_stats_get(SCIO_STAT_live_bufs);
        scio_h5_dataset *dataset = NULL;
        uint64_t address = 0;
        scio_status status;
        size_t k = 0;

        CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "d", &address, NULL) ==
              SCIO_OK);
        do {
            scio_mem_fail_at(k++);
            status = scio_h5_dataset_open(file, address, "/d", &dataset, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && dataset == NULL));
        } while (status != SCIO_OK && k < 1000);
        CHECK(k > 4);
        scio_h5_dataset_free(dataset);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live);
        scio_h5_file_release(file);
        image_free(&im);
    }
}

/* ---- single messages ---- */

static scio_h5_message
make_message(const uint8_t *data, size_t nbytes)
{
    return (scio_h5_message){SCIO_H5_MSG_LAYOUT, 0, nbytes, data, 1000};
}

static scio_status
parse_layout(const uint8_t *data, size_t nbytes, scio_h5_layout_message *out, scio_error *err)
{
    const scio_h5_message message = make_message(data, nbytes);
    image im = image_load("contiguous");
    scio_h5_file *file = image_open(&im);
    uint8_t *exact = malloc(nbytes == 0 ? 1 : nbytes); /* so that ASan sees a byte too many */
    scio_h5_message own = message;
    scio_status status;

    memcpy(exact, data, nbytes);
    own.data = exact;
    *err = (scio_error)SCIO_ERROR_INIT;
    status = scio_h5_layout_parse(file, &own, out, err);
    free(exact);
    scio_h5_file_release(file);
    image_free(&im);
    return status;
}

#define A8(x) x, 0, 0, 0, 0, 0, 0, 0

TEST(layout_versions_1_and_2_are_read)
{
    static const uint8_t contiguous[] = {1, 2, 1, 0, 0, 0, 0, 0, A8(96), 5, 0, 0, 0, 6, 0, 0, 0};
    static const uint8_t compact[] = {2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 7, 8, 9};
    static const uint8_t chunked[] = {2, 3, 2, 0, 0, 0, 0, 0, A8(96), 5, 0,
                                      0, 0, 6, 0, 0, 0, 4, 0, 0,      0};
    scio_h5_layout_message l;
    scio_error err;

    CHECK(parse_layout(contiguous, sizeof contiguous, &l, &err) == SCIO_OK);
    CHECK(l.layout == SCIO_H5_CONTIGUOUS && l.address == 96 && l.nbytes == UINT64_MAX);
    CHECK(parse_layout(compact, sizeof compact, &l, &err) == SCIO_OK);
    CHECK(l.layout == SCIO_H5_COMPACT && l.compact_nbytes == 3);
    CHECK(l.compact_position == 1000 + 16);
    CHECK(parse_layout(compact, sizeof compact - 1, &l, &err) == SCIO_ECORRUPT);
    CHECK(parse_layout(chunked, sizeof chunked, &l, &err) == SCIO_OK);
    CHECK(l.layout == SCIO_H5_CHUNKED && l.index == SCIO_H5_INDEX_BTREE1 && l.n_chunk_dims == 2);
    CHECK(l.chunk_dims[0] == 5 && l.chunk_dims[1] == 6 && l.element_nbytes == 4);
}

/* The vector of hdf5_format.md, section 7. */
TEST(layout_version_4_with_an_extensible_array_is_read)
{
    static const uint8_t data[] = {4, 2, 1, 2, 1, 0x0a, 4, 4, 0x20, 4, 4, 0x10, 0x0a, A8(77)};
    scio_h5_layout_message l;
    scio_error err;

    CHECK(parse_layout(data, sizeof data, &l, &err) == SCIO_OK);
    CHECK(l.index == SCIO_H5_INDEX_EXTENSIBLE && l.is_edge_raw && !l.is_single_filtered);
    CHECK(l.n_chunk_dims == 1 && l.chunk_dims[0] == 10 && l.element_nbytes == 4);
    CHECK(l.max_bits == 32 && l.n_index_elements == 4 && l.min_pointers == 4);
    CHECK(l.min_elements == 16 && l.page_bits == 10 && l.address == 77);
    for (size_t n = 0; n < sizeof data; n++) /* cut anywhere */
        CHECK(parse_layout(data, n, &l, &err) == SCIO_ECORRUPT);
}

TEST(layout_version_5_with_a_filtered_single_chunk_is_read)
{
    static const uint8_t data[] = {5, 2, 2, 2, 1, 0x14, 8, 1, A8(48), 0, 0, 0, 0, A8(77)};
    scio_h5_layout_message l;
    scio_error err;

    CHECK(parse_layout(data, sizeof data, &l, &err) == SCIO_OK);
    CHECK(l.index == SCIO_H5_INDEX_SINGLE && l.is_single_filtered && l.single_nbytes == 48);
}

TEST(each_rule_of_the_layout_message_is_checked)
{
    static const struct {
        uint8_t data[24];
        size_t nbytes;
        scio_status status;
        const char *part;
    } cases[] = {
        {{0}, 1, SCIO_EUNSUPPORTED, "layout message of version 0"},
        {{6}, 1, SCIO_EUNSUPPORTED, "layout message of version 6"},
        {{1, 1, 3, 0, 0, 0, 0, 0}, 8, SCIO_ECORRUPT, "class 3, expected 0 to 2"},
        {{3, 3}, 2, SCIO_EUNSAFE, "virtual dataset"},
        {{3, 4}, 2, SCIO_ECORRUPT, "class 4, expected 0 to 3"},
        {{3, 0, 5, 0, 1}, 5, SCIO_ECORRUPT, "5 bytes expected"},
        {{3, 2, 1, A8(0), 4}, 15, SCIO_ECORRUPT, "1 dimensions"},
        {{3, 2, 34, A8(0), 4}, 15, SCIO_ECORRUPT, "34 dimensions"},
        {{3, 2, 2, A8(0), 0, 0, 0, 0, 4}, 19, SCIO_ECORRUPT, "chunk dimension 0 is 0"},
        {{4, 2, 4, 2, 1, 9, 4, 1}, 8, SCIO_EUNSUPPORTED, "unknown chunk flags 0x04"},
        {{4, 2, 0, 2, 0, 9, 4, 1}, 8, SCIO_ECORRUPT, "dimensions of 0 bytes each"},
        {{4, 2, 0, 2, 9, 9, 4, 1}, 8, SCIO_ECORRUPT, "dimensions of 9 bytes each"},
        {{4, 2, 0, 2, 1, 9, 4, 0}, 8, SCIO_ECORRUPT, "chunk index type 0"},
        {{4, 2, 0, 2, 1, 9, 4, 6}, 8, SCIO_ECORRUPT, "chunk index type 6"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scio_h5_layout_message l;
        scio_error err;

        CHECK(parse_layout(cases[i].data, cases[i].nbytes, &l, &err) == cases[i].status);
        CHECK_STR(err.message, cases[i].part);
    }
}

static scio_status
parse_fill(uint16_t type, const uint8_t *data, size_t nbytes, size_t itemsize, uint8_t **out,
           scio_error *err)
{
    scio_h5_message message = make_message(data, nbytes);
    const scio_h5_header header = {.n_messages = 1, .messages = &message};

    message.type = type;
    *err = (scio_error)SCIO_ERROR_INIT;
    return scio_h5_fill_parse(&header, itemsize, out, err);
}

TEST(fill_values_of_every_version_are_read)
{
    static const struct {
        uint16_t type;
        uint8_t data[16];
        size_t nbytes;
        uint8_t first; /* 0 = no value */
    } cases[] = {
        {SCIO_H5_MSG_FILL, {1, 2, 0, 1, 2, 0, 0, 0, 5, 6}, 10, 5},
        {SCIO_H5_MSG_FILL, {1, 2, 0, 0, 0, 0, 0, 0}, 8, 0},
        {SCIO_H5_MSG_FILL, {2, 2, 0, 1, 2, 0, 0, 0, 5, 6}, 10, 5},
        {SCIO_H5_MSG_FILL, {2, 2, 0, 0}, 4, 0},
        {SCIO_H5_MSG_FILL, {2, 2, 0, 1, 0, 0, 0, 0}, 8, 0},
        {SCIO_H5_MSG_FILL, {2, 2, 0, 1, 0xff, 0xff, 0xff, 0xff}, 8, 0}, /* size -1: undefined */
        {SCIO_H5_MSG_FILL, {3, 0x20, 2, 0, 0, 0, 5, 6}, 8, 5},
        {SCIO_H5_MSG_FILL, {3, 0x10}, 2, 0},
        {SCIO_H5_MSG_FILL, {3, 0x09}, 2, 0},
        {SCIO_H5_MSG_FILL, {3, 0x20, 2, 0, 0, 0, 0, 0}, 8, 0}, /* zeros need no copy */
        {SCIO_H5_MSG_OLD_FILL, {2, 0, 0, 0, 5, 6}, 6, 5},
        {SCIO_H5_MSG_OLD_FILL, {0, 0, 0, 0}, 4, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *fill = NULL;
        scio_error err;

        CHECK(parse_fill(cases[i].type, cases[i].data, cases[i].nbytes, 2, &fill, &err) == SCIO_OK);
        CHECK((fill == NULL) == (cases[i].first == 0));
        CHECK(fill == NULL || (fill[0] == cases[i].first && fill[1] == 6));
        scio_mem_free(fill);
    }
}

TEST(each_rule_of_the_fill_value_is_checked)
{
    static const struct {
        uint8_t data[16];
        size_t nbytes;
        scio_status status;
        const char *part;
    } cases[] = {
        {{0, 2, 0, 0}, 4, SCIO_EUNSUPPORTED, "fill value of version 0"},
        {{4, 0x20}, 2, SCIO_EUNSUPPORTED, "fill value of version 4"},
        {{3, 0x30, 2, 0, 0, 0, 5, 6}, 8, SCIO_ECORRUPT, "say undefined and given"},
        {{3, 0x20, 1, 0, 0, 0, 5}, 7, SCIO_ECORRUPT, "1 bytes, the type has 2"},
        {{3, 0x20, 2, 0, 0, 0, 5}, 7, SCIO_ECORRUPT, "2 bytes expected, 1 are left"},
        {{1, 2, 0, 1, 0xff, 0xff, 0xff, 0x7f}, 8, SCIO_ECORRUPT, "2147483647 bytes expected"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *fill = NULL;
        scio_error err;

        CHECK(parse_fill(SCIO_H5_MSG_FILL, cases[i].data, cases[i].nbytes, 2, &fill, &err) ==
              cases[i].status);
        CHECK_STR(err.message, cases[i].part);
        CHECK(fill == NULL);
    }
}

static scio_status
parse_pipeline(const uint8_t *data, size_t nbytes, scio_pipeline *out, scio_error *err)
{
    const scio_h5_message message = make_message(data, nbytes);

    *err = (scio_error)SCIO_ERROR_INIT;
    return scio_h5_pipeline_parse(&message, out, err);
}

/* The vector of hdf5_format.md, section 7: shuffle 8, gzip 4, Fletcher32. */
TEST(pipeline_version_2_is_read)
{
    static const uint8_t data[] = {2, 3, 2, 0, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0,
                                   1, 0, 1, 0, 4, 0, 0, 0, 3, 0, 0, 0, 0, 0};
    scio_pipeline p;
    scio_error err;

    CHECK(parse_pipeline(data, sizeof data, &p, &err) == SCIO_OK);
    CHECK(p.n_filters == 3 && p.filters[0].id == SCIO_FILTER_SHUFFLE);
    CHECK(p.filters[0].n_client == 1 && p.filters[0].client[0] == 8 && p.filters[0].flags == 1);
    CHECK(p.filters[1].id == SCIO_FILTER_DEFLATE && p.filters[1].client[0] == 4);
    CHECK(p.filters[2].id == SCIO_FILTER_FLETCHER32 && p.filters[2].n_client == 0);
    for (size_t n = 0; n < sizeof data; n++)
        CHECK(parse_pipeline(data, n, &p, &err) == SCIO_ECORRUPT);
}

TEST(pipeline_version_1_pads_odd_client_data_and_names)
{
    static const uint8_t data[] = {
        1, 2,    0, 0, 0, 0, 0, 0, /* filter 32000, 8 bytes of name */
        0, 0x7d, 8, 0, 1, 0, 3, 0, 'l', 'z', '\n', 0, 'x', 0, 0, 0,
        4, 0,    0, 0, 5, 0, 0, 0, 6,   0,   0,    0, 0,   0, 0, 0, /* padding */
        1, 0,    0, 0, 0, 0, 0, 0};
    scio_pipeline p;
    scio_error err;

    CHECK(parse_pipeline(data, sizeof data, &p, &err) == SCIO_OK);
    CHECK(p.n_filters == 2 && p.filters[0].id == SCIO_FILTER_LZF && p.filters[0].n_client == 3);
    CHECK(strcmp(p.filters[0].name, "lz?") == 0);
    CHECK(p.filters[1].id == SCIO_FILTER_DEFLATE);
}

TEST(client_data_beyond_what_any_filter_needs_are_dropped)
{
    uint8_t data[8 + 4 * 20] = {2, 1, 1, 0, 0, 0, 20, 0};
    scio_pipeline p;
    scio_error err;

    for (size_t i = 0; i < 20; i++)
        data[8 + 4 * i] = (uint8_t)(i + 1);
    CHECK(parse_pipeline(data, sizeof data, &p, &err) == SCIO_OK);
    CHECK(p.filters[0].n_client == SCIO_MAX_CLIENT && p.filters[0].client[15] == 16);
}

TEST(each_rule_of_the_pipeline_message_is_checked)
{
    static const struct {
        uint8_t data[16];
        size_t nbytes;
        scio_status status;
        const char *part;
    } cases[] = {
        {{0, 0}, 2, SCIO_EUNSUPPORTED, "filter message of version 0"},
        {{3, 0}, 2, SCIO_EUNSUPPORTED, "filter message of version 3"},
        {{2, 33}, 2, SCIO_ECORRUPT, "33 filters, at most 32"},
        {{1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0}, 16, SCIO_ECORRUPT, "a name of 7 bytes"},
        {{2, 1, 0, 1, 9, 0, 0, 0, 0, 0}, 10, SCIO_ECORRUPT, "9 bytes expected, 0 are left"},
        {{2, 1, 1, 0, 0, 0, 0xff, 0xff}, 8, SCIO_ECORRUPT, "4 bytes expected, 0 are left"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scio_pipeline p;
        scio_error err;

        CHECK(parse_pipeline(cases[i].data, cases[i].nbytes, &p, &err) == cases[i].status);
        CHECK_STR(err.message, cases[i].part);
    }
}
