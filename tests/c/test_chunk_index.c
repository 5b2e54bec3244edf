/* Chunk indexes: each finds every chunk, and each rule of each structure is checked. */
#include "base/pool.h"
#include "dataset_testing.h"

static const char *const GRIDS[] = {
    "btree1",
    "single_v110",
    "single_latest",
    "single_plain",
    "implicit",
    "implicit_larger",
    "fixed_v110",
    "fixed_latest",
    "btree2_v110",
    "btree2_latest",
    "extensible_filtered_v110",
    "extensible_filtered_latest",
    "sizes4_btree1",
    "sizes4_fixed",
    "userblock",
    "edge_raw",
};

static const char *const LINES[] = {"btree1_levels", "extensible_v110", "extensible_latest",
                                    "btree2_deep"};

#define N_OF(array) (sizeof(array) / sizeof *(array))

/* ---- every index finds its chunks ---- */

TEST(every_index_gives_every_element)
{
    static int32_t out[23 * 31];

    for (size_t i = 0; i < N_OF(GRIDS); i++) {
        scio_h5_dataset *d = corpus_dataset(GRIDS[i]);
        scio_error err = SCIO_ERROR_INIT;
        size_t n_wrong = 0;

        CHECK(read_all(d, SCIO_I32, out, sizeof out, &err) == SCIO_OK);
        for (size_t k = 0; k < N_OF(out); k++)
            n_wrong += out[k] != expected_value(k);
        CHECK(n_wrong == 0);
        if (test_has_failed)
            printf("    %s: %zu wrong; %s\n", GRIDS[i], n_wrong, err.message);
        scio_h5_dataset_free(d);
    }
}

TEST(one_byte_chunks_are_found_in_deep_indexes)
{
    static uint8_t out[144];

    for (size_t i = 0; i < N_OF(LINES); i++) {
        scio_h5_dataset *d = corpus_dataset(LINES[i]);
        const scio_h5_unit *units = NULL;
        scio_error err = SCIO_ERROR_INIT;
        size_t n_wrong = 0;

        CHECK(scio_h5_dataset_units(d, &units, &err) == SCIO_OK);
        for (size_t k = 0; k < d->n_units; k++)
            n_wrong +=
                units[k].position == SCIO_H5_UNDEFINED || units[k].nbytes != 1 || !units[k].is_raw;
        CHECK(read_all(d, SCIO_U8, out, sizeof out, &err) == SCIO_OK);
        for (size_t k = 0; k < d->n_units; k++)
            n_wrong += out[k] != expected_value(k);
        CHECK(n_wrong == 0);
        scio_h5_dataset_free(d);
    }
}

TEST(pages_that_were_never_written_are_holes)
{
    static uint8_t out[131060 + 3100];
    static const struct {
        const char *file;
        size_t n_items, at[2], value[2], n_set[2];
    } cases[] = {
        {"fixed_paged", 1030, {5, 1024}, {1, 2}, {1, 6}},
        {"extensible_paged", 131060 + 3100, {2, 131060 + 3078}, {1, 2}, {1, 1}},
    };

    for (size_t i = 0; i < N_OF(cases); i++) {
        scio_h5_dataset *d = corpus_dataset(cases[i].file);
        scio_error err = SCIO_ERROR_INIT;
        size_t n_wrong = 0;

        CHECK(d->n_units == cases[i].n_items);
        CHECK(read_all(d, SCIO_U8, out, sizeof out, &err) == SCIO_OK);
        for (size_t k = 0; k < cases[i].n_items; k++) {
            size_t expected = 9;

            for (int j = 0; j < 2; j++)
                if (k - cases[i].at[j] < cases[i].n_set[j])
                    expected = cases[i].value[j];
            n_wrong += out[k] != expected;
        }
        CHECK(n_wrong == 0);
        scio_h5_dataset_free(d);
    }
}

TEST(holes_hold_the_fill_value)
{
    scio_h5_dataset *d = corpus_dataset("btree1_holes");
    const scio_h5_unit *units = NULL;
    int32_t out[100];
    scio_error err = SCIO_ERROR_INIT;

    CHECK(read_all(d, SCIO_I32, out, sizeof out, &err) == SCIO_OK);
    for (int k = 0; k < 100; k++)
        CHECK(out[k] == (k >= 30 && k < 40 ? 5 : k >= 98 ? 1 : -3));
    CHECK(scio_h5_dataset_units(d, &units, &err) == SCIO_OK);
    CHECK(units[0].position == SCIO_H5_UNDEFINED && units[4].position != SCIO_H5_UNDEFINED);
    scio_h5_dataset_free(d);
}

TEST(a_grid_beyond_all_memory_is_kept_as_its_few_chunks)
{
    static const char *const files[] = {"sparse_btree1", "sparse_btree2"};

    for (size_t i = 0; i < N_OF(files); i++) {
        scio_h5_dataset *d = corpus_dataset(files[i]);
        const uint64_t starts[3][2] = {
            {0, 0}, {(UINT64_C(1) << 39) - 4, 0}, {UINT64_C(1) << 38, 9}};
        const uint64_t count[2] = {20, 20};
        const scio_h5_unit *units = NULL;
        int32_t out[400];
        scio_error err = SCIO_ERROR_INIT;

        for (int j = 0; j < 3; j++) {
            size_t n_wrong = 0;

            CHECK(scio_h5_dataset_read(d, starts[j], count, SCIO_I32, out, sizeof out, NULL,
                                       &err) == SCIO_OK);
            for (size_t k = 0; k < 400; k++) {
                const uint64_t row = starts[j][0] + k / 20, column = starts[j][1] + k % 20;
                int expected = 8;

                if (row >= 5 && row < 15 && column >= 5 && column < 15)
                    expected = 3;
                else if (row == UINT64_C(1) << 39 && column == 7)
                    expected = 4;
                n_wrong += out[k] != expected;
            }
            CHECK(n_wrong == 0);
        }
        CHECK(scio_h5_dataset_state(d)->n_entries == 5);
        CHECK(scio_h5_dataset_units(d, &units, &err) == SCIO_EUNSAFE);
        CHECK_STR(err.message, "/d: 11324969766134 units; a table has at most 1048576");
        scio_h5_dataset_free(d);
    }
}

/* ---- threads, memory ---- */

static scio_status
ask_units(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const scio_h5_unit *units = NULL;

    (void)i_item;
    (void)slot;
    SCIO_TRY(scio_h5_dataset_units(context, &units, err));
    return units[24].position != SCIO_H5_UNDEFINED
               ? SCIO_OK
               : scio_fail(err, SCIO_ECORRUPT, "a chunk is missing");
}

TEST(the_table_may_be_asked_for_by_several_threads)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool = NULL;

    CHECK(scio_pool_new(4, &pool, &err) == SCIO_OK);
    for (int round = 0; round < 20; round++) {
        scio_h5_dataset *d = corpus_dataset("fixed_latest");

        CHECK(scio_parallel_for(pool, 4, 16, ask_units, d, NULL, &err) == SCIO_OK);
        scio_h5_dataset_free(d);
    }
    scio_pool_free(pool);
}

TEST(building_the_table_survives_every_failing_allocation)
{
    static const char *const files[] = {"btree1_levels", "fixed_paged",   "extensible_paged",
                                        "btree2_deep",   "sparse_btree2", "sparse_btree1",
                                        "implicit"};

    for (size_t i = 0; i < N_OF(files); i++) {
        scio_h5_dataset *d = corpus_dataset(files[i]);
        const int64_t live = scio_stats_get(SCIO_STAT_live_bufs);
        scio_status status;
        size_t k = 0;

        do {
            scio_mem_fail_at(k++);
            status = scio_h5_table_ensure(d, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        } while (status != SCIO_OK && k < 1000);
        CHECK(k > 1);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live);
        scio_h5_dataset_free(d);
    }
}

/* ---- rules: version-1 B-tree ---- */

/* line_plain.h5: 105 elements of 4 bytes in 11 chunks of 10, one node.
 *   node: "TREE", type +4, level +5, entries +6, left +8, right +16, then key 0 at +24:
 *   size, mask +4, offset +8, 0 +16, and child 0 at +48 */
TEST(each_rule_of_the_old_tree_is_checked)
{
    static const struct {
        size_t at, width;
        uint64_t value;
        const char *part;
    } cases[] = {
        {0, 1, 'X', "chunk B-tree node"},
        {4, 1, 0, "type 0, expected 1"},
        {6, 2, 65, "65 entries, at most 64"},
        {24, 4, 0, "/d: chunk (0,): the index says that it has 0 bytes"},
        {24, 4, 41, "/d: chunk (0,) at byte "},
        {32, 8, 5, "offset 5 of axis 0 is no multiple of the chunk's 10"},
        {32, 8, 10, "/d: chunk (1,) at byte "}, /* twice */
        {40, 8, 4, "last offset 4, expected 0"},
        {48, 8, 1 << 20, "/d: chunk (0,): 40 bytes at address 1048576"},
        {48, 8, UINT64_MAX - 7, "/d: chunk (0,): 40 bytes at address"},
    };

    for (size_t i = 0; i < N_OF(cases); i++) {
        image im = image_load("line_plain");

        image_put(&im, image_find(&im, "TREE\1", 5, 0) + cases[i].at, cases[i].width,
                  cases[i].value);
        check_fails(&im, SCIO_ECORRUPT, cases[i].part);
        image_free(&im);
    }
}

TEST(the_same_chunk_twice_says_so)
{
    image im = image_load("line_plain");

    image_put(&im, image_find(&im, "TREE\1", 5, 0) + 32, 8, 10);
    check_fails(&im, SCIO_ECORRUPT, "the index names this chunk more than once");
    image_free(&im);
}

/* The root of btree1_levels.h5 (nodes of 4 entries), which has level 2 or more. */
static size_t
find_tree_of_level(const image *im, unsigned level)
{
    for (size_t k = 0;; k++) {
        const size_t at = image_find(im, "TREE\1", 5, k);

        if (im->data[at + 5] == level)
            return at;
    }
}

TEST(a_tree_that_names_a_node_above_ends)
{
    image im = image_load("btree1_levels");
    const size_t inner = find_tree_of_level(&im, 2), leaf = find_tree_of_level(&im, 0);

    image_put(&im, inner + 48, 8, inner);
    check_fails(&im, SCIO_ECORRUPT, "level 2 below level 2");
    image_put(&im, inner + 48, 8, leaf);
    check_fails(&im, SCIO_ECORRUPT, "level 0 below level 2");
    image_free(&im);
}

TEST(a_tree_that_names_one_node_many_times_ends)
{
    image im = image_load("btree1_levels");
    const size_t leaf = find_tree_of_level(&im, 0);

    image_put(&im, leaf + 6, 2, 0); /* without entries nothing is there twice */
    for (unsigned k = 0;; k++) {
        const size_t at = image_find(&im, "TREE\1", 5, k);

        if (im.data[at + 5] != 1)
            continue;
        for (unsigned j = 0; j < im.data[at + 6]; j++)
            image_put(&im, at + 48 + (size_t)32 * j, 8, leaf);
        break;
    }
    {
        scio_h5_dataset *d = NULL;
        scio_error err = SCIO_ERROR_INIT;
        uint8_t out[60];

        CHECK(image_dataset(&im, &d, &err) == SCIO_OK);
        CHECK(read_all(d, SCIO_U8, out, sizeof out, &err) == SCIO_OK); /* holes, and an end */
        scio_h5_dataset_free(d);
    }
    image_free(&im);
}

TEST(a_tree_whose_levels_all_branch_into_one_node_ends)
{
    enum { N_LEVELS = 40, NODE_NBYTES = 24 + 24 + 4 * 32 };
    image im = image_load("btree1_levels");
    const size_t layout = image_find(&im, "\x03\x02\x02", 3, 0);
    const size_t root = image_append(&im, NULL, (size_t)N_LEVELS * NODE_NBYTES);

    for (size_t i = 0; i < N_LEVELS; i++) { /* 4^39 ways to a leaf without entries */
        const size_t node = root + i * NODE_NBYTES;

        memcpy(im.data + node, "TREE\1", 5);
        im.data[node + 5] = (uint8_t)(N_LEVELS - 1 - i);
        im.data[node + 6] = i + 1 < N_LEVELS ? 4 : 0;
        for (size_t k = 0; k < 4; k++)
            image_put(&im, node + 48 + 32 * k, 8, node + NODE_NBYTES);
    }
    image_put(&im, layout + 3, 8, root);
    check_fails(&im, SCIO_ECORRUPT, "/d: chunk B-tree");
    image_free(&im);
}

TEST(chunks_outside_the_extent_are_left_out)
{
    image im = image_load("line_plain");
    const size_t space = image_find(&im, "\x69\0\0\0\0\0\0\0", 8, 0); /* 105 */
    scio_h5_dataset *d = NULL;
    scio_error err = SCIO_ERROR_INIT;
    int32_t out[33];

    image_put(&im, space, 8, 33);
    CHECK(image_dataset(&im, &d, &err) == SCIO_OK);
    CHECK(read_all(d, SCIO_I32, out, sizeof out, &err) == SCIO_OK);
    for (size_t k = 0; k < 33; k++)
        CHECK(out[k] == expected_value(k));
    scio_h5_dataset_free(d);
    image_free(&im);
}

/* ---- rules: structures with checksums ---- */

typedef struct rule {
    const char *file, *signature;
    size_t at, width; /* of the field from the signature on */
    uint64_t value;
    size_t summed; /* bytes before the checksum, 0 = leave the checksum wrong */
    const char *part;
} rule;

static void
check_rules(const rule *rules, size_t n_rules)
{
    for (size_t i = 0; i < n_rules; i++) {
        image im = image_load(rules[i].file);
        const size_t at = image_find_text(&im, rules[i].signature);

        image_put(&im, at + rules[i].at, rules[i].width, rules[i].value);
        if (rules[i].summed != 0)
            image_sum(&im, at, rules[i].summed);
        check_fails(&im, SCIO_ECORRUPT, rules[i].part);
        image_free(&im);
    }
}

/* FAHD: version +4, client +5, element size +6, page bits +7, elements +8, data block +16.
 * fixed_v110.h5 has 6 x 6 elements of 8 + 2 + 4 bytes; FADB: header address +6. */
TEST(each_rule_of_the_fixed_array_is_checked)
{
    static const rule rules[] = {
        {"fixed_v110", "FAHD", 4, 1, 1, 24, "version is 1, expected 0"},
        {"fixed_v110", "FAHD", 5, 1, 0, 24, "client is 0, expected 1"},
        {"fixed_v110", "FAHD", 6, 1, 8, 24, "element size is 8, expected 14"},
        {"fixed_v110", "FAHD", 7, 1, 9, 24, "page bits is 9, expected 10"},
        {"fixed_v110", "FAHD", 8, 8, 35, 24, "35 elements, the dataspace has room for 36"},
        {"fixed_v110", "FAHD", 16, 8, 1 << 30, 24, "fixed array data block: "},
        {"fixed_v110", "FAHD", 7, 1, 9, 0, "fixed array header"},
        {"fixed_v110", "FADB", 5, 1, 0, 14 + 36 * 14, "client is 0, expected 1"},
        {"fixed_v110", "FADB", 6, 8, 48, 14 + 36 * 14, "belongs to the header at address 48"},
        {"fixed_v110", "FADB", 14, 8, 1 << 30, 14 + 36 * 14, "/d: chunk (0, 0): "},
        {"fixed_v110", "FADB", 22, 2, 0, 14 + 36 * 14, "it has 0 bytes"},
        {"fixed_v110", "FADB", 20, 1, 99, 0, "fixed array data block"},
        {"fixed_paged", "FADB", 6, 8, 48, 14 + 1, "belongs to the header at address 48"},
        {"fixed_paged", "FADB", 19 + 40, 1, 7, 0, "chunk index page"},
    };

    check_rules(rules, N_OF(rules));
}

/* EAHD: client +5, element size +6, bits +7, index elements +8, least elements +9, least pointers
 * +10, page bits +11, six statistics, index block +60, checksum +68.
 * extensible_latest.h5: 60 elements of 8 bytes; EAIB: header +6, elements +14, 6 data blocks. */
TEST(each_rule_of_the_extensible_array_is_checked)
{
    static const rule rules[] = {
        {"extensible_latest", "EAHD", 5, 1, 1, 68, "client is 1, expected 0"},
        {"extensible_latest", "EAHD", 6, 1, 9, 68, "element size is 9, expected 8"},
        {"extensible_latest", "EAHD", 7, 1, 31, 68, "bits is 31, expected 32"},
        {"extensible_latest", "EAHD", 8, 1, 5, 68, "elements in the index block is 5, expected 4"},
        {"extensible_latest", "EAHD", 9, 1, 8, 68, "least elements is 8, expected 16"},
        {"extensible_latest", "EAHD", 10, 1, 2, 68, "least pointers is 2, expected 4"},
        {"extensible_latest", "EAHD", 11, 1, 11, 68, "page bits is 11, expected 10"},
        {"extensible_latest", "EAHD", 60, 8, 1 << 30, 68, "extensible array index block: "},
        {"extensible_latest", "EAHD", 20, 1, 77, 0, "extensible array header"},
        {"extensible_latest", "EAIB", 6, 8, 48, 14 + 10 * 8 + 25 * 8, "belongs to the header"},
        {"extensible_latest", "EAIB", 14, 8, 1 << 30, 14 + 10 * 8 + 25 * 8, "/d: chunk (0,): "},
        {"extensible_latest", "EAIB", 46, 8, 1 << 30, 14 + 10 * 8 + 25 * 8,
         "extensible array data block: "},
        {"extensible_latest", "EADB", 0, 1, 'X', 14 + 4 + 16 * 8, "extensible array data block"},
        {"extensible_latest", "EADB", 6, 8, 48, 14 + 4 + 16 * 8, "belongs to the header"},
        {"extensible_paged", "EASB", 6, 8, 48, 14 + 4 + 64 + 64 * 8, "belongs to the header"},
        {"extensible_paged", "EASB", 20, 1, 1, 0, "extensible array super block"},
    };

    check_rules(rules, N_OF(rules));
}

TEST(statistics_of_the_extensible_array_do_not_matter)
{
    image im = image_load("extensible_latest");
    const size_t at = image_find_text(&im, "EAHD");
    scio_h5_dataset *d = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t out[60];

    for (size_t i = 0; i < 6; i++)
        image_put(&im, at + 12 + 8 * i, 8, UINT64_MAX - i);
    image_sum(&im, at, 68);
    CHECK(image_dataset(&im, &d, &err) == SCIO_OK);
    CHECK(read_all(d, SCIO_U8, out, sizeof out, &err) == SCIO_OK && out[59] == expected_value(59));
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(an_array_whose_blocks_are_all_the_same_ends)
{
    image im = image_load("extensible_paged");
    const size_t index = image_find_text(&im, "EAIB"), super = image_find_text(&im, "EASB");

    /* Every super block that the index block names is the one that is there, and so on. */
    for (size_t i = 0; i < 25; i++)
        image_put(&im, index + 14 + 10 * 8 + 8 * i, 8, super);
    image_sum(&im, index, 14 + 10 * 8 + 25 * 8);
    check_fails(&im, SCIO_ECORRUPT, "/d: extensible array super block");
    image_free(&im);
}

/* ---- parameters in the layout message ---- */

static scio_status
walk_with(const char *file, void (*change)(scio_h5_layout_message *, uint64_t), uint64_t value,
          scio_error *err)
{
    scio_h5_dataset *d = corpus_dataset(file);
    scio_status status;

    change(&scio_h5_dataset_state(d)->layout, value);
    *err = (scio_error)SCIO_ERROR_INIT;
    status = scio_h5_table_ensure(d, err);
    scio_h5_dataset_free(d);
    return status;
}

static void
change_page_bits(scio_h5_layout_message *l, uint64_t value)
{
    l->page_bits = (unsigned)value;
}

static void
change_max_bits(scio_h5_layout_message *l, uint64_t value)
{
    l->max_bits = (unsigned)value;
}

static void
change_min_elements(scio_h5_layout_message *l, uint64_t value)
{
    l->min_elements = (unsigned)value;
}

static void
change_min_pointers(scio_h5_layout_message *l, uint64_t value)
{
    l->min_pointers = (unsigned)value;
}

TEST(shifts_and_divisors_of_the_arrays_are_checked_before_use)
{
    static const struct {
        void (*change)(scio_h5_layout_message *, uint64_t);
        uint64_t value;
        const char *part;
    } cases[] = {
        {change_page_bits, 0, "0 page bits, expected 1 to 31"},
        {change_page_bits, 32, "32 page bits"},
        {change_page_bits, 255, "255 page bits"},
        {change_page_bits, 3, "pages of 8 elements are shorter than the first data block"},
        {change_max_bits, 0, "0 bits"},
        {change_max_bits, 65, "65 bits"},
        {change_max_bits, 255, "255 bits"},
        {change_max_bits, 3, "do not fit in 3 bits"},
        {change_max_bits, 2, "do not fit in 2 bits"}, /* fewer than the least elements need */
        {change_min_elements, 0, "0 elements"},
        {change_min_elements, 15, "15 elements"},
        {change_min_pointers, 0, "0 pointers"},
        {change_min_pointers, 6, "6 pointers"},
    };

    for (size_t i = 0; i < N_OF(cases); i++) {
        scio_error err;

        CHECK(walk_with("extensible_latest", cases[i].change, cases[i].value, &err) ==
              SCIO_ECORRUPT);
        CHECK_STR(err.message, cases[i].part);
    }
}

static void
change_index(scio_h5_layout_message *l, uint64_t value)
{
    l->index = (scio_h5_index)value;
}

TEST(an_index_must_suit_the_dataspace_and_the_filters)
{
    static const struct {
        const char *file;
        scio_h5_index index;
        const char *part;
    } cases[] = {
        {"fixed_v110", SCIO_H5_INDEX_SINGLE, "single-chunk index for a dataset of 25 chunks"},
        {"fixed_v110", SCIO_H5_INDEX_IMPLICIT, "implicit chunk index with 1 filters"},
        {"fixed_v110", SCIO_H5_INDEX_EXTENSIBLE, "page bits"},
        {"extensible_latest", SCIO_H5_INDEX_FIXED, "1 dimensions are unlimited, expected 0"},
        {"implicit", SCIO_H5_INDEX_BTREE2, "/d: "},
        {"implicit", SCIO_H5_INDEX_BTREE1, "/d: "},
    };

    for (size_t i = 0; i < N_OF(cases); i++) {
        scio_error err;
        const scio_status status = walk_with(cases[i].file, change_index, cases[i].index, &err);

        if (i == 2) /* max bits are 0 there: whichever rule is met first */
            CHECK(status == SCIO_ECORRUPT);
        else
            CHECK_STR(err.message, cases[i].part);
        CHECK(status == SCIO_ECORRUPT);
    }
}

static void
change_single_filtered(scio_h5_layout_message *l, uint64_t value)
{
    l->is_single_filtered = value != 0;
}

TEST(a_single_chunk_is_filtered_when_there_are_filters)
{
    scio_error err;

    CHECK(walk_with("single_latest", change_single_filtered, 0, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "says the chunk is not filtered, the pipeline has 1 filters");
    CHECK(walk_with("single_plain", change_single_filtered, 1, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "says the chunk is filtered, the pipeline has 0 filters");
}

static void
change_address(scio_h5_layout_message *l, uint64_t value)
{
    l->address = value;
}

TEST(an_index_outside_the_file_is_named)
{
    static const char *const files[] = {"line_plain", "single_latest",     "implicit",
                                        "fixed_v110", "extensible_latest", "btree2_latest"};
    static const uint64_t addresses[] = {UINT64_C(1) << 20, UINT64_MAX - 1, UINT64_MAX - 4096};

    for (size_t i = 0; i < N_OF(files); i++)
        for (size_t k = 0; k < N_OF(addresses); k++) {
            scio_error err;

            CHECK(walk_with(files[i], change_address, addresses[k], &err) == SCIO_ECORRUPT);
            CHECK_STR(err.message, "/d: ");
        }
}

TEST(an_undefined_index_is_all_holes)
{
    static const char *const files[] = {"line_plain", "single_latest",     "implicit",
                                        "fixed_v110", "extensible_latest", "btree2_latest"};

    for (size_t i = 0; i < N_OF(files); i++) {
        scio_h5_dataset *d = corpus_dataset(files[i]);
        const scio_h5_unit *units = NULL;
        scio_error err = SCIO_ERROR_INIT;

        scio_h5_dataset_state(d)->layout.address = SCIO_H5_UNDEFINED;
        CHECK(scio_h5_dataset_units(d, &units, &err) == SCIO_OK);
        for (size_t k = 0; k < d->n_units; k++)
            CHECK(units[k].position == SCIO_H5_UNDEFINED);
        scio_h5_dataset_free(d);
    }
}

/* ---- arithmetic ---- */

TEST(the_width_of_stored_sizes_follows_the_layout_version)
{
    static const struct {
        uint64_t unit_nbytes;
        size_t width;
    } cases[] = {{1, 2},
                 {255, 2},
                 {256, 3},
                 {65535, 3},
                 {65536, 4},
                 {(1 << 24) - 1, 4},
                 {1 << 24, 5},
                 {UINT32_MAX, 5},
                 {UINT64_C(1) << 32, 6},
                 {UINT64_C(1) << 55, 8},
                 {UINT64_C(1) << 62, 8}};
    scio_h5_dataset *d = corpus_dataset("fixed_v110");

    for (size_t i = 0; i < N_OF(cases); i++) {
        d->unit_nbytes = cases[i].unit_nbytes;
        scio_h5_dataset_state(d)->layout.version = 4;
        CHECK(scio_h5_size_width(d) == cases[i].width);
        scio_h5_dataset_state(d)->layout.version = 5;
        CHECK(scio_h5_size_width(d) == 8);
    }
    scio_h5_dataset_free(d);
}

TEST(chunk_numbers_put_the_unlimited_dimension_first)
{
    scio_h5_dataset *d = corpus_dataset("extensible_filtered_v110"); /* 5 x 5 chunks, (23, None) */
    scio_h5_linear linear;
    uint64_t scaled[SCIO_H5_MAX_RANK];

    CHECK(scio_h5_linear_init(d, 1, &linear, NULL) == SCIO_OK);
    CHECK(linear.axes[0] == 1 && linear.axes[1] == 0 && linear.n_chunks == 25);
    for (uint64_t i = 0; i < 25; i++) {
        scio_h5_linear_scaled(&linear, i, scaled);
        CHECK(scaled[1] == i / 5 && scaled[0] == i % 5);
        CHECK(scio_h5_linear_number(&linear, scaled) == i);
    }
    scio_h5_dataset_free(d);
}
