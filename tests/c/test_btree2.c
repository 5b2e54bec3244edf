/* Version-2 B-trees: all records in order, records of one key, and every rule of nodes and header.
 */
#include "h5_image.h"
#include "h5read/btree2.h"

enum { NODE_NBYTES = 64, RECORD_NBYTES = 11, MAX_RECORDS = 200 };

static image im;

/* What build() made, for tests that break it. */
static struct {
    uint64_t header, nodes[40];
    size_t ends[40]; /* of the nodes: their checksum is the last four bytes */
    size_t n_nodes;
    unsigned n_leaf, n_inner; /* records per node */
    unsigned divisor;         /* key of record i = i / divisor */
} built;

static void
add_record(unsigned number)
{
    image_u32(&im, number / built.divisor);
    image_zeros(&im, 3);
    image_u32(&im, number);
}

static size_t
end_node(uint64_t at)
{
    image_sum(&im);
    built.nodes[built.n_nodes] = at;
    built.ends[built.n_nodes++] = im.nbytes;
    return built.n_nodes - 1;
}

static void
begin_node(const char *signature)
{
    (void)image_begin(&im, signature);
    image_u8(&im, 0);
    image_u8(&im, SCIO_H5_BTREE2_LINK_NAME);
}

/* Children are written before their parent; records get numbers in order. */
static uint64_t
build_node(unsigned level, unsigned *next, uint64_t *n_subtree)
{
    uint64_t children[8], subtrees[8], at;
    unsigned first_of[8];

    *n_subtree = 0;
    if (level == 0) {
        begin_node("BTLF");
        at = im.block;
        for (unsigned i = 0; i < built.n_leaf; i++)
            add_record((*next)++);
        *n_subtree = built.n_leaf;
        (void)end_node(at);
        return at;
    }
    for (unsigned i = 0; i <= built.n_inner; i++) {
        children[i] = build_node(level - 1, next, &subtrees[i]);
        *n_subtree += subtrees[i];
        first_of[i] = *next;
        if (i < built.n_inner)
            (*next)++;
    }
    *n_subtree += built.n_inner;
    begin_node("BTIN");
    at = im.block;
    for (unsigned i = 0; i < built.n_inner; i++)
        add_record(first_of[i]);
    for (unsigned i = 0; i <= built.n_inner; i++) {
        image_u64(&im, children[i]);
        image_u8(&im, level == 1 ? built.n_leaf : built.n_inner);
        if (level > 1)
            image_u8(&im, (unsigned)subtrees[i]);
    }
    (void)end_node(at);
    return at;
}

static void
add_header(uint64_t root, unsigned depth, unsigned n_root, uint64_t n_all)
{
    built.header = image_begin(&im, "BTHD");
    image_u8(&im, 0);
    image_u8(&im, SCIO_H5_BTREE2_LINK_NAME);
    image_u32(&im, NODE_NBYTES);
    image_u16(&im, RECORD_NBYTES);
    image_u16(&im, depth);
    image_u16(&im, 40 << 8 | 100);
    image_u64(&im, root);
    image_u16(&im, n_root);
    image_u64(&im, n_all);
    image_sum(&im);
}

/* A tree of full leaves; returns the number of records. */
static unsigned
build(unsigned depth, unsigned n_leaf, unsigned n_inner, unsigned divisor)
{
    unsigned next = 0;
    uint64_t n_all = 0, root;

    memset(&built, 0, sizeof built);
    built.n_leaf = n_leaf;
    built.n_inner = n_inner;
    built.divisor = divisor;
    image_new_superblock(&im, 2, 8, 8, 48);
    root = build_node(depth, &next, &n_all);
    add_header(root, depth, depth == 0 ? n_leaf : n_inner, n_all);
    CHECK(next == n_all && next <= MAX_RECORDS);
    return next;
}

typedef struct seen {
    unsigned n;
    unsigned numbers[MAX_RECORDS];
    uint32_t wanted;
    unsigned stop_after;
} seen;

static scio_status
visit(void *context, const uint8_t *record, size_t record_nbytes, scio_error *err)
{
    seen *const s = context;

    CHECK(record_nbytes == RECORD_NBYTES);
    if (s->stop_after != 0 && s->n == s->stop_after)
        return scio_fail(err, SCIO_ECANCEL, "enough");
    if (s->n < MAX_RECORDS)
        s->numbers[s->n++] = (unsigned)record[7] | (unsigned)record[8] << 8;
    return SCIO_OK;
}

static int
compare(const void *context, const uint8_t *record, size_t record_nbytes)
{
    const seen *const s = context;
    const uint32_t key = (uint32_t)record[0] | (uint32_t)record[1] << 8;

    CHECK(record_nbytes == RECORD_NBYTES);
    return key < s->wanted ? -1 : key > s->wanted;
}

static scio_status
walk(seen *s, scio_error *err)
{
    scio_h5_file *file;
    scio_status status;

    memset(s, 0, sizeof *s);
    image_finish(&im);
    file = image_open(&im);
    status = scio_h5_btree2_walk(file, built.header, SCIO_H5_BTREE2_LINK_NAME, 0, visit, s, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
try_walk(scio_error *err)
{
    static seen s;

    return walk(&s, err);
}

static scio_status
find(uint32_t wanted, seen *s, scio_error *err)
{
    scio_h5_file *file;
    scio_status status;

    memset(s, 0, sizeof *s);
    s->wanted = wanted;
    image_finish(&im);
    file = image_open(&im);
    status =
        scio_h5_btree2_find(file, built.header, SCIO_H5_BTREE2_LINK_NAME, compare, visit, s, err);
    scio_h5_file_release(file);
    return status;
}

/* Changes bytes of node or header and makes its checksum right again. */
static void
patch_node(size_t i_node, size_t at, size_t width, uint64_t value)
{
    image_patch(&im, built.nodes[i_node] + at, width, value);
    image_resum(&im, built.nodes[i_node], built.ends[i_node] - 4);
}

static void
patch_header(size_t at, size_t width, uint64_t value)
{
    image_patch(&im, built.header + at, width, value);
    image_resum(&im, built.header, built.header + 34);
}

TEST(records_come_in_order_from_trees_of_depth_0_to_3)
{
    static seen s;

    for (unsigned depth = 0; depth <= 3; depth++)
        for (unsigned n_leaf = 1; n_leaf <= 4; n_leaf++)
            for (unsigned n_inner = 1; n_inner <= 2; n_inner++) {
                const unsigned n = build(depth, n_leaf, n_inner, 1);

                CHECK(walk(&s, NULL) == SCIO_OK && s.n == n);
                for (unsigned i = 0; i < s.n; i++)
                    CHECK(s.numbers[i] == i);
            }
}

TEST(an_empty_tree_has_no_root_or_an_empty_one)
{
    static seen s;

    memset(&built, 0, sizeof built);
    built.divisor = 1;
    image_new_superblock(&im, 2, 8, 8, 48);
    add_header(UNDEFINED, 0, 0, 0);
    CHECK(walk(&s, NULL) == SCIO_OK && s.n == 0);
    CHECK(find(3, &s, NULL) == SCIO_OK && s.n == 0);
    CHECK(build(0, 0, 0, 1) == 0);
    CHECK(walk(&s, NULL) == SCIO_OK && s.n == 0);
}

TEST(all_records_of_a_key_are_found_on_both_sides_of_inner_records)
{
    static seen s;

    for (unsigned divisor = 1; divisor <= 9; divisor++) {
        const unsigned n = build(2, 3, 2, divisor);

        for (uint32_t key = 0; key <= n / divisor + 1; key++) {
            const unsigned first = key * divisor;
            const unsigned end = first + divisor < n ? first + divisor : n;

            CHECK(find(key, &s, NULL) == SCIO_OK);
            CHECK(s.n == (first < n ? end - first : 0));
            for (unsigned i = 0; i < s.n; i++)
                CHECK(s.numbers[i] == first + i);
        }
    }
}

TEST(finding_reads_only_the_nodes_on_the_way)
{
    static seen s;

    (void)build(2, 3, 2, 1);
    im.data[built.ends[0] - 1] ^= 1; /* the leaf of records 0 to 2 */
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "version-2 B-tree, leaf at byte 48: checksum");
    CHECK_FAILS(find(1, &s, &err), SCIO_ECORRUPT, "checksum");
    CHECK(find(30, &s, NULL) == SCIO_OK && s.n == 1);
}

TEST(a_failing_visit_ends_the_walk)
{
    static seen s;
    scio_h5_file *file;

    (void)build(2, 3, 2, 1);
    image_finish(&im);
    file = image_open(&im);
    memset(&s, 0, sizeof s);
    s.stop_after = 7;
    CHECK_FAILS(
        scio_h5_btree2_walk(file, built.header, SCIO_H5_BTREE2_LINK_NAME, 0, visit, &s, &err),
        SCIO_ECANCEL, "enough");
    CHECK(s.n == 7);
    scio_h5_file_release(file);
}

TEST(the_header_is_checked)
{
    (void)build(1, 3, 2, 1);
    im.data[built.header + 10] ^= 1;
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "version-2 B-tree at byte");
    (void)build(1, 3, 2, 1);
    patch_header(0, 1, 'X');
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "expected \"BTHD\"");
    (void)build(1, 3, 2, 1);
    patch_header(4, 1, 1);
    CHECK_FAILS(try_walk(&err), SCIO_EUNSUPPORTED, "version 1, read is 0");
    (void)build(1, 3, 2, 1);
    patch_header(5, 1, 8);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "type 8, expected 5");
    (void)build(1, 3, 2, 1);
    patch_header(6, 4, RECORD_NBYTES + 9);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "nodes of 20 bytes with records of 11, expected 21");
    patch_header(6, 4, (1 << 20) + 1);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "nodes of 1048577 bytes");
    patch_header(6, 4, 38);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "nodes of 38 bytes have no room for two children");
}

TEST(sizes_of_records_are_those_of_their_type)
{
    scio_h5_file *file;
    static seen s;

    (void)build(1, 3, 2, 1);
    patch_header(10, 2, 12);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "records of 12 bytes, expected 11");
    patch_header(10, 2, 0);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "records of 0 bytes, expected 11");
    for (unsigned type = 1; type <= 9; type++) { /* O = L = 8 */
        static const unsigned nbytes[] = {24, 36, 16, 28, 11, 15, 0, 17, 13};
        char text[64];

        if (type == 7)
            continue;
        (void)build(0, 3, 0, 1);
        patch_header(5, 1, type);
        patch_header(10, 2, 99);
        (void)snprintf(text, sizeof text, "records of 99 bytes, expected %u", nbytes[type - 1]);
        image_finish(&im);
        file = image_open(&im);
        CHECK_FAILS(scio_h5_btree2_walk(file, built.header, type, 0, visit, &s, &err),
                    SCIO_ECORRUPT, text);
        scio_h5_file_release(file);
    }
    (void)build(0, 3, 0, 1);
    patch_header(5, 1, 10); /* chunks: only the caller knows */
    patch_node(0, 5, 1, 10);
    image_finish(&im);
    file = image_open(&im);
    memset(&s, 0, sizeof s);
    CHECK(scio_h5_btree2_walk(file, built.header, 10, RECORD_NBYTES, visit, &s, NULL) == SCIO_OK);
    CHECK(scio_h5_btree2_walk(file, built.header, 10, 0, visit, &s, NULL) == SCIO_OK);
    CHECK_FAILS(scio_h5_btree2_walk(file, built.header, 10, 16, visit, &s, &err), SCIO_ECORRUPT,
                "records of 11 bytes, expected 16");
    scio_h5_file_release(file);
}

TEST(counts_and_depth_fit_together)
{
    (void)build(1, 3, 2, 1); /* 11 records, 2 in the root */
    patch_header(12, 2, 33);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "depth 33, expected at most 32");
    patch_header(12, 2, 0);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "do not fit together");
    patch_header(12, 2, 32); /* children that are no inner nodes */
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "version-2 B-tree");
    patch_header(12, 2, 1);
    patch_header(24, 2, 0);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "0 in the root");
    patch_header(24, 2, 3);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "has 3 records, expected at most 2");
    patch_header(24, 2, 1);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "checksum"); /* the root is shorter then */
    patch_header(24, 2, 2);
    patch_header(26, 8, 12);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "11 records, its header says 12");
    patch_header(26, 8, 10);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "more records than the 10");
    patch_header(26, 8, UINT64_MAX);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "do not fit together");
    patch_header(26, 8, 1);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "do not fit together");
    patch_header(26, 8, 11);
    patch_header(16, 8, UNDEFINED);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "do not fit together");
    patch_header(16, 8, 1 << 20);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "beyond the end");
}

TEST(nodes_are_checked)
{
    const size_t pointers = 6 + 2 * RECORD_NBYTES;
    size_t root;

    (void)build(1, 3, 2, 1);
    root = built.n_nodes - 1;
    patch_node(0, 0, 1, 'X');
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "expected \"BTLF\"");
    (void)build(1, 3, 2, 1);
    patch_node(root, 0, 1, 'X');
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "expected \"BTIN\"");
    (void)build(1, 3, 2, 1);
    patch_node(0, 4, 1, 1);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "version 1 of type 5, expected version 0 of 5");
    (void)build(1, 3, 2, 1);
    patch_node(0, 5, 1, 6);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "version 0 of type 6, expected version 0 of 5");
    (void)build(1, 3, 2, 1);
    patch_node(root, pointers + 8, 1, 5);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "on level 0 has 5 records, expected at most 4");
    (void)build(1, 3, 2, 1);
    patch_node(root, pointers, 8, UNDEFINED);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "child at address 18446744073709551615");
    (void)build(1, 3, 2, 1);
    patch_node(root, pointers, 8, built.header + 100);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "beyond the end");
}

TEST(a_tree_with_a_loop_or_a_child_twice_ends)
{
    const size_t pointers = 6 + 2 * RECORD_NBYTES;
    size_t root;

    (void)build(2, 3, 2, 1);
    root = built.n_nodes - 1;
    patch_node(root, pointers, 8, built.nodes[root]);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "is met twice");
    (void)build(1, 3, 2, 1);
    root = built.n_nodes - 1;
    patch_node(root, pointers + 9, 8, built.nodes[0]);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "is met twice");
}

TEST(counts_below_inner_nodes_are_checked)
{
    const size_t pointers = 6 + 2 * RECORD_NBYTES;
    size_t root;

    (void)build(2, 3, 2, 1);
    root = built.n_nodes - 1;
    patch_node(root, pointers + 9, 1, 12);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "has 11 records below it, expected 12");
    (void)build(2, 3, 2, 1);
    patch_node(root, pointers + 8, 1, 0);
    CHECK_FAILS(try_walk(&err), SCIO_ECORRUPT, "with 0 records");
}

TEST(every_truncation_of_a_tree_is_an_error)
{
    (void)build(1, 3, 2, 1);
    for (im.nbytes--; im.nbytes > 49; im.nbytes--)
        CHECK(try_walk(NULL) == SCIO_ECORRUPT);
}

TEST(walking_survives_every_failing_allocation)
{
    scio_h5_file *file;
    scio_status status;
    static seen s;

    (void)build(2, 3, 2, 1);
    image_finish(&im);
    file = image_open(&im);
    CHECK_EVERY_ALLOCATION(
        {
            memset(&s, 0, sizeof s);
            status = scio_h5_btree2_walk(file, built.header, SCIO_H5_BTREE2_LINK_NAME, 0, visit, &s,
                                         NULL);
        },
        status);
    CHECK(s.n == 35);
    scio_h5_file_release(file);
}
