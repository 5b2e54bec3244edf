/* Groups of both kinds, link messages, and the way along paths. */
#include "h5_image.h"
#include "h5read/link.h"
#include "h5read/object.h"

static image im;

static void
start(void)
{
    image_new_superblock(&im, 2, 8, 8, 48);
}

static scio_status
list_at(uint64_t address, const scio_h5_limits *limits, scio_h5_links *out, scio_error *err)
{
    scio_h5_file *file = NULL;
    scio_status status;

    image_finish(&im);
    memset(out, 0, sizeof *out);
    status = image_open_with(&im, limits, &file, err);
    if (status == SCIO_OK)
        status = scio_h5_links_list(file, address, out, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
try_list(uint64_t address, scio_error *err)
{
    scio_h5_links links;
    const scio_status status = list_at(address, NULL, &links, err);

    CHECK(status == SCIO_OK || links.links == NULL);
    scio_h5_links_clear(&links);
    return status;
}

static scio_status
resolve_at(uint64_t address, const char *path, uint64_t *out, scio_error *err)
{
    scio_h5_file *file;
    scio_status status;

    image_finish(&im);
    file = image_open(&im);
    status = scio_h5_resolve(file, address, path, out, err);
    scio_h5_file_release(file);
    return status;
}

/* ---- old groups ---- */

typedef struct old_group {
    uint64_t header, heap, data, tree;
    uint64_t leaves[8];
    size_t name_offsets[64];
    size_t n_leaves, n_names;
} old_group;

static old_group old;

static void
add_symbol_table(uint64_t tree, uint64_t heap)
{
    const size_t at = image_header_v1(&im);

    image_message_v1(&im, SCIO_H5_MSG_SYMBOL_TABLE, 0, "0123456789abcdef", 16);
    image_header_v1_end(&im);
    image_patch(&im, at + 24, 8, tree);
    image_patch(&im, at + 32, 8, heap);
    old.header = at;
}

/* A local heap with "" at 0 and the names behind it; extra bytes at its end. */
static void
add_heap(const char *const *names, size_t n_names, size_t n_extra)
{
    old.heap = im.nbytes;
    image_text(&im, "HEAP");
    image_zeros(&im, 4);
    image_u64(&im, 0);
    image_u64(&im, 1);
    image_u64(&im, im.nbytes + 8);
    old.data = im.nbytes;
    image_zeros(&im, 8);
    for (size_t i = 0; i < n_names; i++) {
        old.name_offsets[i] = im.nbytes - old.data;
        image_bytes(&im, names[i], strlen(names[i]) + 1);
        image_pad8(&im, old.data);
    }
    image_zeros(&im, n_extra);
    image_patch(&im, old.heap + 8, 8, im.nbytes - old.data);
}

/* An entry for name i whose object is at 1000 + i. */
static void
add_entry(size_t i_name)
{
    image_u64(&im, old.name_offsets[i_name]);
    image_u64(&im, 1000 + i_name);
    image_zeros(&im, 24);
}

static void
add_leaf(size_t i_first, size_t n)
{
    old.leaves[old.n_leaves++] = im.nbytes;
    image_text(&im, "SNOD");
    image_u8(&im, 1);
    image_u8(&im, 0);
    image_u16(&im, (unsigned)n);
    for (size_t i = 0; i < n; i++)
        add_entry(i_first + i);
}

static uint64_t
begin_tree(unsigned level, unsigned n)
{
    const uint64_t at = im.nbytes;

    image_text(&im, "TREE");
    image_u8(&im, 0);
    image_u8(&im, level);
    image_u16(&im, n);
    image_u64(&im, UNDEFINED);
    image_u64(&im, UNDEFINED);
    return at;
}

/* Nodes have room for 32 children, whatever they hold. */
static void
end_tree(uint64_t at)
{
    image_zeros(&im, (size_t)at + 24 + 32 * 8 + 33 * 8 - im.nbytes);
}

/* Names in strcmp order, four to a leaf, two leaves to a node, two nodes below the root. */
static void
make_old(const char *const *names, size_t n_names)
{
    uint64_t nodes[4];
    size_t n_nodes = 0;

    memset(&old, 0, sizeof old);
    start();
    add_heap(names, n_names, 0);
    for (size_t i = 0; i < n_names; i += 4)
        add_leaf(i, n_names - i < 4 ? n_names - i : 4);
    for (size_t i = 0; i < old.n_leaves; i += 2) {
        const size_t n = old.n_leaves - i < 2 ? 1 : 2;

        nodes[n_nodes++] = begin_tree(0, (unsigned)n);
        image_u64(&im, i == 0 ? 0 : old.name_offsets[4 * i - 1]);
        for (size_t k = i; k < i + n; k++) {
            const size_t last = 4 * k + 3 < n_names ? 4 * k + 3 : n_names - 1;

            image_u64(&im, old.leaves[k]);
            image_u64(&im, old.name_offsets[last]);
        }
        end_tree(nodes[n_nodes - 1]);
    }
    old.tree = begin_tree(1, (unsigned)n_nodes);
    image_u64(&im, 0);
    for (size_t i = 0; i < n_nodes; i++) {
        const size_t last = 8 * i + 7 < n_names ? 8 * i + 7 : n_names - 1;

        image_u64(&im, nodes[i]);
        image_u64(&im, old.name_offsets[last]);
    }
    end_tree(old.tree);
    add_symbol_table(old.tree, old.heap);
}

static const char *const names[] = {"a", "b", "cc", "d", "e", "f", "g", "hat", "i", "j", "k", "l"};
enum { N_NAMES = sizeof names / sizeof *names };

TEST(an_old_group_lists_in_order_and_finds_each_name)
{
    static const char *const absent[] = {"", "A", "aa", "c", "ccc", "ha", "hatt", "ll", "z"};
    scio_h5_links links;
    uint64_t found = 0;

    make_old(names, N_NAMES);
    CHECK(list_at(old.header, NULL, &links, NULL) == SCIO_OK);
    CHECK(links.n_links == N_NAMES && !links.is_tracked);
    for (size_t i = 0; i < links.n_links; i++) {
        CHECK(strcmp(links.links[i].name, names[i]) == 0);
        CHECK(links.links[i].type == SCIO_H5_LINK_HARD && links.links[i].address == 1000 + i);
        CHECK(links.links[i].creation_order == UINT64_MAX);
        CHECK(resolve_at(old.header, names[i], &found, NULL) == SCIO_OK && found == 1000 + i);
    }
    scio_h5_links_clear(&links);
    for (size_t i = 1; i < sizeof absent / sizeof *absent; i++)
        CHECK_FAILS(resolve_at(old.header, absent[i], &found, &err), SCIO_ENOENT, "there is no ");
    CHECK(resolve_at(old.header, "", &found, NULL) == SCIO_OK && found == old.header);
}

TEST(an_old_group_finds_names_of_any_length)
{
    static char longest[3][3001];
    const char *const texts[] = {longest[0], longest[1], longest[2]};
    uint64_t found = 0;

    for (size_t i = 0; i < 3; i++)
        memset(longest[i], (int)('p' + i), 3000);
    make_old(texts, 3);
    for (size_t i = 0; i < 3; i++)
        CHECK(resolve_at(old.header, texts[i], &found, NULL) == SCIO_OK && found == 1000 + i);
    longest[1][2999] = 'x';
    CHECK_FAILS(resolve_at(old.header, texts[1], &found, &err), SCIO_ENOENT, "there is no \"qqq");
}

TEST(an_old_group_can_be_empty)
{
    scio_h5_links links;
    uint64_t tree, found;

    memset(&old, 0, sizeof old);
    start();
    add_heap(NULL, 0, 0);
    tree = begin_tree(0, 0);
    image_u64(&im, 0);
    end_tree(tree);
    add_symbol_table(tree, old.heap);
    CHECK(list_at(old.header, NULL, &links, NULL) == SCIO_OK && links.n_links == 0);
    scio_h5_links_clear(&links);
    CHECK_FAILS(resolve_at(old.header, "x", &found, &err), SCIO_ENOENT,
                "there is no \"x\" in \"/\"");
}

TEST(an_old_soft_link_has_its_path_in_the_heap)
{
    static const char *const texts[] = {"soft", "/the/path"};
    scio_h5_links links;
    uint64_t found;
    size_t entry;

    make_old(texts, 1);
    start();
    memset(&old, 0, sizeof old);
    add_heap(texts, 2, 0);
    add_leaf(0, 1);
    entry = old.leaves[0] + 8;
    image_patch(&im, entry + 8, 8, UNDEFINED);
    image_patch(&im, entry + 16, 4, 2);
    image_patch(&im, entry + 24, 4, old.name_offsets[1]);
    old.tree = begin_tree(0, 1);
    image_u64(&im, 0);
    image_u64(&im, old.leaves[0]);
    image_u64(&im, old.name_offsets[0]);
    end_tree(old.tree);
    add_symbol_table(old.tree, old.heap);
    image_patch(&im, 36, 8, old.header); /* root */
    CHECK(list_at(old.header, NULL, &links, NULL) == SCIO_OK && links.n_links == 1);
    CHECK(links.links[0].type == SCIO_H5_LINK_SOFT);
    CHECK(links.links[0].address == UNDEFINED);
    CHECK(strcmp(links.links[0].target, "/the/path") == 0);
    scio_h5_links_clear(&links);
    CHECK_FAILS(resolve_at(old.header, "soft", &found, &err), SCIO_ENOENT, "no \"the\" in \"/\"");
    image_patch(&im, entry + 24, 4, 1 << 20);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "a name at offset 1048576");
    image_patch(&im, entry + 24, 4, 0);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "soft link \"soft\": its path is empty");
    CHECK_FAILS(resolve_at(old.header, "soft", &found, &err), SCIO_ECORRUPT, "its path is empty");
    image_patch(&im, entry + 24, 4, old.name_offsets[1] + 8); /* "h", then zeros */
    CHECK_FAILS(resolve_at(old.header, "soft", &found, &err), SCIO_ENOENT, "no \"h\" in \"/\"");
    memset(im.data + old.data + old.name_offsets[1], 'p', 16);
    CHECK_FAILS(resolve_at(old.header, "soft", &found, &err), SCIO_ECORRUPT, "does not end");
}

TEST(an_old_soft_link_can_be_long)
{
    static char target[5000];
    const char *const texts[] = {"soft", target};
    uint64_t found = 0;

    for (size_t nbytes = 250; nbytes < 4900; nbytes += 251) {
        memset(target, '/', nbytes); /* the root, at length */
        target[nbytes] = '\0';
        memset(&old, 0, sizeof old);
        start();
        add_heap(texts, 2, 0);
        add_leaf(0, 1);
        image_patch(&im, old.leaves[0] + 24, 4, 2);
        image_patch(&im, old.leaves[0] + 32, 4, old.name_offsets[1]);
        old.tree = begin_tree(0, 1);
        image_u64(&im, 0);
        image_u64(&im, old.leaves[0]);
        image_u64(&im, old.name_offsets[0]);
        end_tree(old.tree);
        add_symbol_table(old.tree, old.heap);
        image_patch(&im, 36, 8, old.header);
        CHECK(resolve_at(old.header, "soft", &found, NULL) == SCIO_OK && found == old.header);
    }
}

TEST(names_lie_in_the_heap_and_end_there)
{
    uint64_t found;

    make_old(names, N_NAMES);
    image_patch(&im, old.leaves[1] + 8, 8, UINT64_MAX);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT,
                "local heap at byte 80: a name at offset 18446744073709551615");
    make_old(names, N_NAMES);
    image_patch(&im, old.data + old.name_offsets[11], 8, UINT64_C(0x6161616161616161));
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "does not end in the heap's");
    CHECK_FAILS(resolve_at(old.header, "kk", &found, &err), SCIO_ENOENT, "there is no");
    image_patch(&im, old.data + old.name_offsets[11], 8, UINT64_C(0x7a7a7a7a7a7a7a7a));
    CHECK_FAILS(resolve_at(old.header, "zzzzzzzzz", &found, &err), SCIO_ECORRUPT, "does not end");
    make_old(names, N_NAMES);
    image_patch(&im, old.data + old.name_offsets[3], 1, 0);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "its name is empty");
    make_old(names, N_NAMES);
    image_patch(&im, old.data + old.name_offsets[3], 1, '/');
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "link \"/\" at byte ");
    make_old(names, N_NAMES);
    image_patch(&im, old.data + old.name_offsets[3], 1, 'a');
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "two links named \"a\"");
}

TEST(many_entries_of_one_long_name_cost_no_more_than_the_heap)
{
    static char name[2000];
    const char *const texts[] = {name};

    memset(name, 'n', sizeof name - 1);
    make_old(texts, 1);
    memset(&old, 0, sizeof old);
    start();
    add_heap(texts, 1, 0);
    old.leaves[old.n_leaves++] = im.nbytes;
    image_text(&im, "SNOD");
    image_u16(&im, 1);
    image_u16(&im, 8);
    for (size_t i = 0; i < 8; i++)
        add_entry(0);
    old.tree = begin_tree(0, 1);
    image_u64(&im, 0);
    image_u64(&im, old.leaves[0]);
    image_u64(&im, old.name_offsets[0]);
    end_tree(old.tree);
    add_symbol_table(old.tree, old.heap);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "longer together than its");
}

TEST(the_local_heap_is_checked)
{
    make_old(names, N_NAMES);
    im.data[old.heap] = 'X';
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "local heap at byte 48: signature");
    make_old(names, N_NAMES);
    im.data[old.heap + 4] = 1;
    CHECK_FAILS(try_list(old.header, &err), SCIO_EUNSUPPORTED, "local heap at byte 48: version 1");
    make_old(names, N_NAMES);
    image_patch(&im, old.heap + 8, 8, UINT64_MAX - 10);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "beyond the end");
    make_old(names, N_NAMES);
    image_patch(&im, old.heap + 24, 8, UNDEFINED);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "undefined");
    make_old(names, N_NAMES);
    image_patch(&im, old.header + 32, 8, UNDEFINED);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "undefined");
}

TEST(tree_nodes_are_checked)
{
    uint64_t found;

    make_old(names, N_NAMES);
    im.data[old.tree] = 'X';
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "group B-tree at byte ");
    make_old(names, N_NAMES);
    im.data[old.tree + 4] = 1; /* a tree of chunks */
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "type 1, expected 0");
    CHECK_FAILS(resolve_at(old.header, "a", &found, &err), SCIO_ECORRUPT, "type 1, expected 0");
    make_old(names, N_NAMES);
    im.data[old.tree + 5] = 2; /* children are of level 0 */
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT,
                "level 0, expected one below the parent, 1");
    CHECK_FAILS(resolve_at(old.header, "a", &found, &err), SCIO_ECORRUPT,
                "one below the parent, 1");
    make_old(names, N_NAMES);
    im.data[old.tree + 5] = 200;
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "level 200, expected at most 64");
    CHECK_FAILS(resolve_at(old.header, "a", &found, &err), SCIO_ECORRUPT, "level 200");
    make_old(names, N_NAMES);
    image_patch(&im, old.tree + 6, 2, 33);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "33 entries, expected at most 32");
    make_old(names, N_NAMES);
    image_patch(&im, old.header + 24, 8, im.nbytes - 200); /* the part in use would fit */
    memcpy(im.data + im.nbytes - 200, im.data + old.tree, 100);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "544 bytes at address");
    make_old(names, N_NAMES);
    image_patch(&im, old.header + 24, 8, UNDEFINED);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "undefined");
    make_old(names, N_NAMES);
    image_patch(&im, old.tree + 32, 8, UNDEFINED);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "undefined");
}

TEST(a_tree_that_comes_back_to_itself_ends)
{
    uint64_t found;

    make_old(names, N_NAMES);
    image_patch(&im, old.tree + 32, 8, old.tree);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "is met twice");
    CHECK_FAILS(resolve_at(old.header, "a", &found, &err), SCIO_ECORRUPT, "one below the parent");
    make_old(names, N_NAMES); /* the same child twice */
    memcpy(im.data + old.tree + 48, im.data + old.tree + 32, 8);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "is met twice");
}

TEST(leaves_are_checked)
{
    uint64_t found;

    make_old(names, N_NAMES);
    im.data[old.leaves[0]] = 'X';
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "symbol table node at byte");
    make_old(names, N_NAMES);
    im.data[old.leaves[0] + 4] = 2;
    CHECK_FAILS(try_list(old.header, &err), SCIO_EUNSUPPORTED, "version 2, read is 1");
    make_old(names, N_NAMES);
    image_patch(&im, old.leaves[0] + 8 + 16, 4, 3);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "cache type 3, expected at most 2");
    CHECK_FAILS(resolve_at(old.header, "a", &found, &err), SCIO_ECORRUPT, "cache type 3");
    make_old(names, N_NAMES);
    image_patch(&im, old.leaves[0] + 6, 2, 9);
    CHECK_FAILS(try_list(old.header, &err), SCIO_ECORRUPT, "9 entries, expected at most 8");
    CHECK_FAILS(resolve_at(old.header, "a", &found, &err), SCIO_ECORRUPT, "9 entries");
    CHECK(resolve_at(old.header, "k", &found, NULL) == SCIO_OK); /* another leaf */
}

TEST(every_truncation_of_an_old_group_is_an_error)
{
    size_t end;

    make_old(names, N_NAMES);
    for (end = im.nbytes; end > 49; end--) {
        im.nbytes = end - 1;
        CHECK(try_list(old.header, NULL) == SCIO_ECORRUPT);
    }
}

/* ---- link messages ---- */

static uint8_t link_bytes[256];
static size_t link_nbytes;

static void
put(const void *bytes, size_t nbytes)
{
    memcpy(link_bytes + link_nbytes, bytes, nbytes);
    link_nbytes += nbytes;
}

/* version 1, flags, optional parts, name length in one byte, name */
static void
begin_link(unsigned flags, unsigned type, const char *name)
{
    const uint8_t head[] = {1, (uint8_t)flags};
    const uint8_t order[8] = {77}, charset = 1;
    const uint8_t type_byte = (uint8_t)type, length = (uint8_t)strlen(name);

    link_nbytes = 0;
    put(head, 2);
    if ((flags & 8) != 0)
        put(&type_byte, 1);
    if ((flags & 4) != 0)
        put(order, 8);
    if ((flags & 16) != 0)
        put(&charset, 1);
    put(&length, 1);
    for (unsigned i = 1; i < 1u << (flags & 3); i++)
        put("", 1);
    put(name, strlen(name));
}

static scio_status
parse(scio_h5_link *out, scio_error *err)
{
    scio_h5_file *file;
    scio_status status;

    start();
    image_zeros(&im, 8);
    image_finish(&im);
    file = image_open(&im);
    status = scio_h5_link_parse(file, link_bytes, link_nbytes, 300, out, err);
    scio_h5_file_release(file);
    return status;
}

static scio_status
try_parse(scio_error *err)
{
    scio_h5_link link;
    const scio_status status = parse(&link, err);

    CHECK(status == SCIO_OK || link.name == NULL);
    scio_h5_link_clear(&link);
    return status;
}

TEST(link_messages_of_all_flags_and_types)
{
    const uint8_t address[8] = {0x34, 0x12};

    for (unsigned flags = 0; flags < 32; flags++) {
        scio_h5_link link;
        size_t end;

        begin_link(flags, 0, "name");
        put(address, 8);
        CHECK(parse(&link, NULL) == SCIO_OK);
        CHECK(link.type == SCIO_H5_LINK_HARD && link.address == 0x1234);
        CHECK(strcmp(link.name, "name") == 0);
        CHECK(link.creation_order == ((flags & 4) != 0 ? 77 : UINT64_MAX));
        scio_h5_link_clear(&link);
        for (end = link_nbytes; end > 0; end--) {
            link_nbytes = end - 1;
            CHECK(try_parse(NULL) == SCIO_ECORRUPT);
        }
    }
}

TEST(soft_external_and_user_defined_links)
{
    scio_h5_link link;

    begin_link(8, 1, "soft");
    put("\5\0/a/bc", 7);
    CHECK(parse(&link, NULL) == SCIO_OK && link.type == SCIO_H5_LINK_SOFT);
    CHECK(strcmp(link.target, "/a/bc") == 0 && link.target_file == NULL);
    scio_h5_link_clear(&link);
    begin_link(8, 64, "out");
    put("\12\0\0b.h5\0/x\0", 12);
    CHECK(parse(&link, NULL) == SCIO_OK && link.type == SCIO_H5_LINK_EXTERNAL);
    CHECK(strcmp(link.target, "/x") == 0 && strcmp(link.target_file, "b.h5") == 0);
    scio_h5_link_clear(&link);
    begin_link(8, 200, "mine");
    put("\3\0abc", 5);
    CHECK(parse(&link, NULL) == SCIO_OK && link.type == SCIO_H5_LINK_USER);
    scio_h5_link_clear(&link);
}

TEST(link_messages_are_checked)
{
    begin_link(8, 1, "soft");
    put("\0\0", 2);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT,
                "soft link \"soft\" at byte 300: a path of 0 bytes");
    begin_link(8, 1, "soft");
    put("\3\0a\0b", 5);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "has a NUL");
    begin_link(8, 1, "soft");
    put("\xff\xff/a", 4);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "65535 bytes expected, 2 are left");
    begin_link(8, 64, "out");
    put("\6\0\0b.h5x", 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "external link \"out\" at byte ");
    begin_link(8, 64, "out");
    put("\7\0\0b.h5\0x", 9);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "does not end in the 1 bytes left");
    begin_link(8, 64, "out");
    put("\0\0", 2);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "external link");
    begin_link(8, 63, "odd");
    put("\0\0", 2);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "link \"odd\" at byte 300: type 63");
    begin_link(0x20, 0, "x");
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "flags 0x20");
    begin_link(0, 0, "x");
    link_bytes[0] = 2;
    CHECK_FAILS(try_parse(&err), SCIO_EUNSUPPORTED,
                "link message at byte 300: version 2, read is 1");
    begin_link(3, 0, "name");
    memset(link_bytes + 2, 0xff, 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "a name of 18446744073709551615 bytes, 4 are left");
    begin_link(0, 0, "");
    put("12345678", 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "its name is empty");
    begin_link(0, 0, "a/b");
    put("12345678", 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "link \"a/b\" at byte 303: a '/' in its name");
    begin_link(0, 0, "aXb");
    link_bytes[4] = 0;
    put("12345678", 8);
    CHECK_FAILS(try_parse(&err), SCIO_ECORRUPT, "a NUL among the 3 bytes of its name");
}

/* ---- new groups with compact links ---- */

/* Appends a link message to a version-2 header under construction. */
static void
add_link(void)
{
    image_message_v2(&im, SCIO_H5_MSG_LINK, 0, link_bytes, link_nbytes);
}

static void
add_hard(const char *name, uint64_t address)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(address >> (8 * i));
    begin_link(0, 0, name);
    put(bytes, 8);
    add_link();
}

static void
add_soft(const char *name, const char *target)
{
    const uint8_t length[2] = {(uint8_t)strlen(target), 0};

    begin_link(8, 1, name);
    put(length, 2);
    put(target, strlen(target));
    add_link();
}

/* A link info message without dense storage. */
static void
add_link_info(unsigned flags)
{
    uint8_t bytes[34];

    memset(bytes, 0xff, sizeof bytes);
    bytes[0] = 0;
    bytes[1] = (uint8_t)flags;
    image_message_v2(&im, SCIO_H5_MSG_LINK_INFO, 0, bytes, (flags & 1) != 0 ? 26 : 18);
}

TEST(a_new_group_is_listed_by_name_or_by_creation_order)
{
    for (unsigned flags = 0; flags < 2; flags++) {
        const char *const expected = flags == 0 ? "abc" : "cab";
        scio_h5_links links;
        uint64_t at;

        start();
        at = image_header_v2(&im);
        add_link_info(flags);
        for (unsigned i = 0; i < 3; i++) {
            const char name[2] = {"cab"[i], 0};

            begin_link(flags == 0 ? 0 : 4, 0, name);
            if (flags != 0)
                link_bytes[2] = (uint8_t)i;
            put("12345678", 8);
            add_link();
        }
        image_header_v2_end(&im);
        CHECK(list_at(at, NULL, &links, NULL) == SCIO_OK && links.n_links == 3);
        CHECK(links.is_tracked == (flags != 0));
        for (size_t i = 0; i < links.n_links; i++)
            CHECK(links.links[i].name[0] == expected[i]);
        scio_h5_links_clear(&links);
    }
}

TEST(links_of_one_creation_order_are_in_the_order_of_names)
{
    scio_h5_links links;
    uint64_t at;

    start();
    at = image_header_v2(&im);
    add_link_info(1);
    for (unsigned i = 0; i < 3; i++) {
        const char name[2] = {"cab"[i], 0};

        begin_link(4, 0, name);
        put("12345678", 8);
        add_link();
    }
    image_header_v2_end(&im);
    CHECK(list_at(at, NULL, &links, NULL) == SCIO_OK && links.n_links == 3);
    for (size_t i = 0; i < links.n_links; i++)
        CHECK(links.links[i].name[0] == "abc"[i]);
    scio_h5_links_clear(&links);
}

TEST(new_groups_are_checked)
{
    uint64_t at;

    start();
    at = image_header_v2(&im);
    add_hard("x", 1);
    add_hard("y", 2);
    add_hard("x", 3);
    image_header_v2_end(&im);
    CHECK_FAILS(try_list(at, &err), SCIO_ECORRUPT, "two links named \"x\"");

    start();
    at = image_header_v2(&im);
    image_message_v2(&im, SCIO_H5_MSG_LINK_INFO, 0, "\1\0", 2);
    image_header_v2_end(&im);
    CHECK_FAILS(try_list(at, &err), SCIO_EUNSUPPORTED,
                "link info at byte 62: version 1, read is 0");

    start();
    at = image_header_v2(&im);
    image_message_v2(&im, SCIO_H5_MSG_LINK_INFO, 0, "\0\4", 2);
    image_header_v2_end(&im);
    CHECK_FAILS(try_list(at, &err), SCIO_ECORRUPT, "flags 0x04");

    start(); /* a heap without index */
    at = image_header_v2(&im);
    add_link_info(0);
    image_patch(&im, im.nbytes - 16, 8, 48);
    image_header_v2_end(&im);
    CHECK_FAILS(try_list(at, &err), SCIO_ECORRUPT, "without an index");

    start();
    at = image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_DATATYPE, 0, "12345678", 8);
    image_header_v1_end(&im);
    CHECK_FAILS(try_list(at, &err), SCIO_ETYPE, "a committed datatype has no members");

    start();
    at = image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_DATASPACE, 0, "12345678", 8);
    image_header_v1_end(&im);
    CHECK_FAILS(try_list(at, &err), SCIO_ETYPE, "an object of unknown kind has no members");
}

TEST(a_group_with_more_links_than_the_limit_is_refused)
{
    scio_h5_limits limits;
    scio_h5_links links;
    uint64_t at;

    scio_h5_limits_default(&limits);
    limits.n_members = 2;
    start();
    at = image_header_v2(&im);
    add_hard("x", 1);
    add_hard("y", 2);
    image_header_v2_end(&im);
    CHECK(list_at(at, &limits, &links, NULL) == SCIO_OK);
    scio_h5_links_clear(&links);
    limits.n_members = 1;
    CHECK_FAILS(list_at(at, &limits, &links, &err), SCIO_EUNSAFE, "the limit n_members");
    make_old(names, N_NAMES);
    CHECK_FAILS(list_at(old.header, &limits, &links, &err), SCIO_EUNSAFE, "the limit n_members");
}

/* ---- new groups with dense links: a file of the library, changed ---- */

enum { N_MANY = 12, RECORD_NBYTES = 11 };

/* The corpus file with 12 dense links; `*leaf_out` = the first record of their index. */
static uint64_t
load_many(size_t *leaf_out)
{
    FILE *const stream = fopen("tests/fuzz/corpus/h5file/many.h5", "rb");
    scio_h5_file *file;
    uint64_t root;

    if (stream == NULL)
        exit(EXIT_FAILURE);
    memset(&im, 0, sizeof im);
    im.nbytes = fread(im.data, 1, sizeof im.data, stream);
    (void)fclose(stream);
    im.o = im.l = 8;
    im.end_at = 28;
    im.sum_at = 44;
    for (size_t at = 0; at + 6 < im.nbytes; at++)
        if (memcmp(im.data + at, "BTLF\0\5", 6) == 0)
            *leaf_out = at + 6;
    file = image_open(&im);
    root = scio_h5_file_superblock(file)->root;
    scio_h5_file_release(file);
    return root;
}

static void
resum_leaf(size_t leaf)
{
    image_resum(&im, leaf - 6, leaf + (size_t)N_MANY * RECORD_NBYTES);
}

TEST(dense_links_are_listed_and_found)
{
    scio_h5_limits limits;
    scio_h5_links links;
    size_t leaf = 0;
    const uint64_t root = load_many(&leaf);
    uint64_t found;

    CHECK(list_at(root, NULL, &links, NULL) == SCIO_OK && links.n_links == N_MANY);
    for (size_t i = 0; i < links.n_links; i++) {
        CHECK(links.links[i].type == SCIO_H5_LINK_SOFT);
        CHECK(strcmp(links.links[i].target, "/target") == 0);
        CHECK_FAILS(resolve_at(root, links.links[i].name, &found, &err), SCIO_ENOENT,
                    "no \"target\"");
    }
    scio_h5_links_clear(&links);
    CHECK_FAILS(resolve_at(root, "link", &found, &err), SCIO_ENOENT, "no \"link\" in \"/\"");
    scio_h5_limits_default(&limits);
    limits.n_members = N_MANY - 1;
    CHECK_FAILS(list_at(root, &limits, &links, &err), SCIO_EUNSAFE,
                "more than 11 members, the limit n_members");
}

TEST(a_dense_link_has_the_hash_that_its_index_says)
{
    size_t leaf = 0;
    const uint64_t root = load_many(&leaf);
    uint64_t found;

    im.data[leaf] ^= 1;
    CHECK_FAILS(try_list(root, &err), SCIO_ECORRUPT, "leaf at byte ");
    resum_leaf(leaf);
    CHECK_FAILS(try_list(root, &err), SCIO_ECORRUPT, "the index has hash ");
    (void)load_many(&leaf);
    memcpy(im.data + leaf + RECORD_NBYTES, im.data + leaf, RECORD_NBYTES);
    resum_leaf(leaf);
    CHECK_FAILS(try_list(root, &err), SCIO_ECORRUPT, "two links named ");
    (void)load_many(&leaf);
    memcpy(im.data + leaf + RECORD_NBYTES + 4, im.data + leaf + 4, 7);
    resum_leaf(leaf);
    CHECK_FAILS(try_list(root, &err), SCIO_ECORRUPT, "the index has hash ");
    for (unsigned i = 0, n_broken = 0; i < N_MANY; i++) {
        char name[32];

        (void)snprintf(name, sizeof name, "link %u", i);
        n_broken += resolve_at(root, name, &found, NULL) == SCIO_ECORRUPT;
        CHECK(i < N_MANY - 1 || n_broken == 1);
    }
}

TEST(kinds_of_objects)
{
    static const struct {
        unsigned types[2];
        scio_h5_kind kind;
    } cases[] = {
        {{SCIO_H5_MSG_LAYOUT, SCIO_H5_MSG_DATATYPE}, SCIO_H5_KIND_DATASET},
        {{SCIO_H5_MSG_LINK_INFO, SCIO_H5_MSG_ATTRIBUTE}, SCIO_H5_KIND_GROUP},
        {{SCIO_H5_MSG_SYMBOL_TABLE, SCIO_H5_MSG_ATTRIBUTE}, SCIO_H5_KIND_GROUP},
        {{SCIO_H5_MSG_DATATYPE, SCIO_H5_MSG_ATTRIBUTE}, SCIO_H5_KIND_TYPE},
        {{SCIO_H5_MSG_DATASPACE, SCIO_H5_MSG_ATTRIBUTE}, SCIO_H5_KIND_UNKNOWN},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scio_h5_kind kind = SCIO_H5_KIND_UNKNOWN;
        scio_h5_file *file;
        uint64_t at;

        start();
        at = image_header_v1(&im);
        image_message_v1(&im, cases[i].types[0], 0, "12345678", 8);
        image_message_v1(&im, cases[i].types[1], 0, "12345678", 8);
        image_header_v1_end(&im);
        image_finish(&im);
        file = image_open(&im);
        CHECK(scio_h5_kind_get(file, at, &kind, NULL) == SCIO_OK && kind == cases[i].kind);
        scio_h5_file_release(file);
    }
}

/* ---- paths ---- */

/* Root: inner (a group), data (a dataset), and links of all sorts. */
static uint64_t
make_tree(void)
{
    uint64_t data, inner, root;

    start();
    data = image_header_v1(&im);
    image_message_v1(&im, SCIO_H5_MSG_LAYOUT, 0, "12345678", 8);
    image_header_v1_end(&im);
    inner = image_header_v2(&im);
    add_link_info(0);
    add_hard("data", data);
    add_soft("up", "/inner/data");
    add_soft("beside", "./data");
    add_soft("group", "/inner");
    image_header_v2_end(&im);
    root = image_header_v2(&im);
    add_hard("inner", inner);
    add_hard("self", root);
    add_soft("loop", "loop");
    add_soft("dangling", "/inner/none");
    add_soft("here", "inner/");
    begin_link(8, 64, "external");
    put("\12\0\0b.h5\0/x\0", 12);
    add_link();
    begin_link(8, 99, "user");
    put("\0\0", 2);
    add_link();
    begin_link(0, 0, "broken");
    link_bytes[0] = 9;
    add_link();
    add_hard("nowhere", UNDEFINED);
    image_header_v2_end(&im);
    image_patch(&im, 36, 8, root);
    return root;
}

TEST(paths_lead_through_hard_and_soft_links)
{
    static const char *const same[] = {"inner/data",
                                       "/inner/data",
                                       "//inner///data/",
                                       "./inner/././data",
                                       "self/inner/data",
                                       "self/self/inner/data",
                                       "here/data",
                                       "inner/up",
                                       "inner/beside",
                                       "inner/group/data",
                                       "here/group/group/beside",
                                       "inner/group/group/up"};
    const uint64_t root = make_tree();
    uint64_t expected = 0, found = 0;

    CHECK(resolve_at(root, same[0], &expected, NULL) == SCIO_OK && expected == 48);
    for (size_t i = 1; i < sizeof same / sizeof *same; i++) {
        found = 0;
        CHECK(resolve_at(root, same[i], &found, NULL) == SCIO_OK && found == expected);
    }
    CHECK(resolve_at(root, "/", &found, NULL) == SCIO_OK && found == root);
    CHECK(resolve_at(root, ".", &found, NULL) == SCIO_OK && found == root);
}

TEST(what_stops_a_path_is_named)
{
    const uint64_t root = make_tree();
    uint64_t found = 7;

    CHECK_FAILS(resolve_at(root, "inner/nothing", &found, &err), SCIO_ENOENT,
                "there is no \"nothing\" in \"inner\"");
    CHECK_FAILS(resolve_at(root, "inner/data/x", &found, &err), SCIO_ENOENT,
                "\"inner/data\" is a dataset and has no member \"x\"");
    CHECK_FAILS(resolve_at(root, "dangling", &found, &err), SCIO_ENOENT,
                "there is no \"none\" in \"/inner\"");
    CHECK_FAILS(resolve_at(root, "loop", &found, &err), SCIO_EUNSAFE,
                "more than 16 soft links on the way, the last is \"loop\"");
    CHECK_FAILS(resolve_at(root, "external/deeper", &found, &err), SCIO_EUNSAFE,
                "\"external\" is an external link to \"/x\" in file \"b.h5\"");
    CHECK_FAILS(resolve_at(root, "user", &found, &err), SCIO_EUNSAFE, "user-defined link");
    CHECK_FAILS(resolve_at(root, "nowhere/x", &found, &err), SCIO_ECORRUPT, "undefined");
    CHECK(found == 7);
}

TEST(a_broken_link_hides_no_other)
{
    const uint64_t root = make_tree();
    uint64_t found = 0;

    CHECK(resolve_at(root, "inner", &found, NULL) == SCIO_OK);
    /* It may be the one that is asked for. */
    CHECK_FAILS(resolve_at(root, "absent", &found, &err), SCIO_EUNSUPPORTED, "version 9");
    CHECK_FAILS(try_list(root, &err), SCIO_EUNSUPPORTED, "version 9");
}

TEST(paths_go_at_most_64_groups_deep)
{
    static char path[65 * 5 + 1];
    const uint64_t root = make_tree();
    uint64_t found = 0;

    for (unsigned i = 0; i < 64; i++)
        memcpy(path + 5 * i, "self/", 6);
    CHECK(resolve_at(root, path, &found, NULL) == SCIO_OK && found == root);
    memcpy(path + 5 * 64, "self", 5);
    CHECK_FAILS(resolve_at(root, path, &found, &err), SCIO_EUNSAFE, "more than 64 groups deep");
}

TEST(listing_and_resolving_survive_every_failing_allocation)
{
    const uint64_t root = make_tree();
    scio_h5_file *file;
    scio_status status;
    uint64_t found = 0;

    image_finish(&im);
    file = image_open(&im);
    CHECK_EVERY_ALLOCATION(status = scio_h5_resolve(file, root, "here/group/up", &found, NULL),
                           status);
    CHECK(found == 48);
    scio_h5_file_release(file);

    make_old(names, N_NAMES);
    image_finish(&im);
    file = image_open(&im);
    CHECK_EVERY_ALLOCATION(
        {
            scio_h5_links links;

            status = scio_h5_links_list(file, old.header, &links, NULL);
            CHECK(links.n_links == (status == SCIO_OK ? (size_t)N_NAMES : 0));
            scio_h5_links_clear(&links);
        },
        status);
    CHECK_EVERY_ALLOCATION(status = scio_h5_resolve(file, old.header, "hat", &found, NULL), status);
    scio_h5_file_release(file);
}
