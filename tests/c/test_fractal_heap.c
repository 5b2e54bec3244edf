/* Fractal heaps: objects in direct blocks, below tables of blocks, huge and tiny; every rule. */
#include "h5_image.h"
#include "h5read/fractal_heap.h"

/* Rows of two blocks: 64, 64, 128 bytes with objects, from row 3 on tables. */
enum { WIDTH = 2, START = 64, MAX_DIRECT = 128, HEAP_BITS = 16, N_ROWS = 4, ID_NBYTES = 8 };

static image im;

static struct {
    uint64_t header, root, tree;
    uint64_t blocks[32], offsets[32];
    size_t sizes[32], n_blocks;
    uint64_t child_table;
    bool has_sums;
} heap;

/* Fields of the header, so that a test can set one before it is written. */
static struct {
    unsigned id_nbytes, filter_nbytes, flags, width, heap_bits, root_rows;
    uint32_t max_managed;
    uint64_t managed, start, max_direct, huge_tree;
} fields;

static size_t
prefix_nbytes(void)
{
    return 5 + im.o + 2 + (heap.has_sums ? 4 : 0);
}

/* The heap's header comes last in the file, but its blocks name it: its place is known before. */
static void
set_fields(void)
{
    memset(&heap, 0, sizeof heap);
    fields.id_nbytes = ID_NBYTES;
    fields.filter_nbytes = 0;
    fields.flags = 0;
    fields.width = WIDTH;
    fields.heap_bits = HEAP_BITS;
    fields.root_rows = N_ROWS;
    fields.max_managed = 100;
    fields.managed = 1024;
    fields.start = START;
    fields.max_direct = MAX_DIRECT;
    fields.huge_tree = UNDEFINED;
}

static void
write_header(void)
{
    (void)image_begin(&im, "FRHP");
    image_u8(&im, 0);
    image_u16(&im, fields.id_nbytes);
    image_u16(&im, fields.filter_nbytes);
    image_u8(&im, fields.flags);
    image_u32(&im, fields.max_managed);
    image_length(&im, 0);
    image_address(&im, fields.huge_tree);
    image_length(&im, 0);
    image_address(&im, UNDEFINED);
    image_length(&im, fields.managed);
    for (unsigned i = 0; i < 7; i++)
        image_length(&im, 0);
    image_u16(&im, fields.width);
    image_length(&im, fields.start);
    image_length(&im, fields.max_direct);
    image_u16(&im, fields.heap_bits);
    image_u16(&im, 1);
    image_address(&im, heap.root);
    image_u16(&im, fields.root_rows);
    image_sum(&im);
}

/* The header again at its place, after a change of `fields`. */
static void
rewrite_header(void)
{
    const size_t nbytes = im.nbytes;

    im.nbytes = (size_t)heap.header;
    write_header();
    im.nbytes = nbytes;
}

/* A direct block whose bytes after the prefix are the low byte of their heap offset. */
static uint64_t
add_direct(uint64_t offset, size_t nbytes)
{
    const uint64_t at = image_begin(&im, "FHDB");
    size_t sum_at;

    image_u8(&im, 0);
    image_address(&im, heap.header);
    image_u16(&im, (unsigned)offset);
    sum_at = im.nbytes;
    image_zeros(&im, heap.has_sums ? 4 : 0);
    while (im.nbytes - at < nbytes)
        image_u8(&im, (unsigned)(offset + im.nbytes - at) & 0xff);
    if (heap.has_sums)
        image_patch(&im, sum_at, 4, scio_h5_lookup3(im.data + at, nbytes));
    heap.blocks[heap.n_blocks] = at;
    heap.offsets[heap.n_blocks] = offset;
    heap.sizes[heap.n_blocks++] = nbytes;
    return at;
}

static uint64_t
begin_table(uint64_t offset)
{
    const uint64_t at = image_begin(&im, "FHIB");

    image_u8(&im, 0);
    image_address(&im, heap.header);
    image_u16(&im, (unsigned)offset);
    return at;
}

/* Rows 0 to 2 of direct blocks, row 3 of a table of four blocks and an unused entry. */
static void
make(bool has_sums)
{
    uint64_t direct[6], below[4];

    set_fields();
    heap.has_sums = has_sums;
    fields.flags = has_sums ? 2 : 0;
    image_new_superblock(&im, 2, 8, 8, 48);
    heap.header = im.nbytes;
    write_header();
    for (unsigned i = 0; i < 4; i++)
        direct[i] = add_direct(64 * i, 64);
    for (unsigned i = 0; i < 2; i++)
        direct[4 + i] = add_direct(256 + 128 * i, 128);
    for (unsigned i = 0; i < 4; i++)
        below[i] = add_direct(512 + 64 * i, 64);
    heap.child_table = begin_table(512);
    for (unsigned i = 0; i < 4; i++)
        image_u64(&im, below[i]);
    image_sum(&im);
    heap.root = begin_table(0);
    for (unsigned i = 0; i < 6; i++)
        image_u64(&im, direct[i]);
    image_u64(&im, heap.child_table);
    image_u64(&im, UNDEFINED);
    image_sum(&im);
    rewrite_header();
}

typedef struct object {
    uint8_t bytes[512];
    size_t nbytes;
    uint64_t position;
} object;

static scio_status
get(const uint8_t *id, object *out, scio_error *err)
{
    scio_h5_file *file;
    scio_fractal_heap *h = NULL;
    const uint8_t *data = NULL;
    scio_status status;

    memset(out, 0, sizeof *out);
    image_finish(&im);
    file = image_open(&im);
    status = scio_fractal_heap_open(file, heap.header, ID_NBYTES, &h, err);
    if (status == SCIO_OK)
        status = scio_fractal_heap_get(h, id, &data, &out->nbytes, &out->position, err);
    if (status == SCIO_OK && out->nbytes <= sizeof out->bytes)
        memcpy(out->bytes, data, out->nbytes);
    scio_fractal_heap_free(h);
    scio_h5_file_release(file);
    return status;
}

static scio_status
get_managed(uint64_t offset, unsigned nbytes, object *out, scio_error *err)
{
    const uint8_t id[ID_NBYTES] = {0, (uint8_t)offset, (uint8_t)(offset >> 8), (uint8_t)nbytes};

    return get(id, out, err);
}

static scio_status
try_managed(uint64_t offset, unsigned nbytes, scio_error *err)
{
    static object o;

    return get_managed(offset, nbytes, &o, err);
}

TEST(every_block_gives_its_objects)
{
    static object o;

    for (unsigned has_sums = 0; has_sums < 2; has_sums++) {
        make(has_sums != 0);
        for (size_t i = 0; i < heap.n_blocks; i++) {
            const size_t first = prefix_nbytes(), room = heap.sizes[i] - first;

            CHECK(get_managed(heap.offsets[i] + first, (unsigned)room, &o, NULL) == SCIO_OK);
            CHECK(o.nbytes == room && o.position == heap.blocks[i] + first);
            for (size_t k = 0; k < o.nbytes; k++)
                CHECK(o.bytes[k] == ((heap.offsets[i] + first + k) & 0xff));
            CHECK(get_managed(heap.offsets[i] + first + 3, 2, &o, NULL) == SCIO_OK);
            CHECK(o.nbytes == 2 && o.bytes[0] == ((heap.offsets[i] + first + 3) & 0xff));
        }
    }
}

TEST(one_heap_gives_many_objects_in_any_order)
{
    scio_h5_file *file;
    scio_fractal_heap *h = NULL;

    make(true);
    image_finish(&im);
    file = image_open(&im);
    CHECK(scio_fractal_heap_open(file, heap.header, ID_NBYTES, &h, NULL) == SCIO_OK);
    for (size_t i = 0; i < 3 * heap.n_blocks; i++) {
        const size_t i_block = i * 7 % heap.n_blocks;
        const uint64_t at = heap.offsets[i_block] + prefix_nbytes();
        const uint8_t id[ID_NBYTES] = {0, (uint8_t)at, (uint8_t)(at >> 8), 4};
        const uint8_t *data = NULL;
        uint64_t position = 0;
        size_t nbytes = 0;

        CHECK(scio_fractal_heap_offset(h, id) == at);
        CHECK(scio_fractal_heap_get(h, id, &data, &nbytes, &position, NULL) == SCIO_OK);
        CHECK(nbytes == 4 && data != NULL && data[0] == (at & 0xff));
    }
    CHECK(scio_fractal_heap_offset(h, (const uint8_t *)"\x10\1\0\0\0\0\0") == UINT64_MAX);
    scio_fractal_heap_free(h);
    scio_fractal_heap_free(NULL);
    scio_h5_file_release(file);
}

TEST(the_root_can_be_a_direct_block)
{
    static object o;

    set_fields();
    image_new_superblock(&im, 2, 8, 8, 48);
    heap.header = im.nbytes;
    write_header();
    heap.root = add_direct(0, 64);
    fields.root_rows = 0;
    fields.managed = 64;
    rewrite_header();
    CHECK(get_managed(20, 44, &o, NULL) == SCIO_OK && o.bytes[0] == 20 && o.bytes[43] == 63);
    CHECK_FAILS(try_managed(20, 45, &err), SCIO_ECORRUPT,
                "an object of 45 bytes at 20 in a block of 64");
    CHECK_FAILS(try_managed(64, 1, &err), SCIO_ECORRUPT, "1 bytes at offset 64, the heap has 64");
    fields.managed = 5000; /* claims more than its root holds */
    rewrite_header();
    CHECK_FAILS(try_managed(200, 1, &err), SCIO_ECORRUPT, "at 200 in a block of 64");
    heap.root = UNDEFINED;
    rewrite_header();
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "undefined");
}

TEST(objects_lie_inside_one_block_behind_its_prefix)
{
    make(false);
    CHECK_FAILS(try_managed(14, 1, &err), SCIO_ECORRUPT,
                "an object of 1 bytes at 14 in a block of 64");
    CHECK_FAILS(try_managed(63, 2, &err), SCIO_ECORRUPT, "an object of 2 bytes at 63");
    CHECK_FAILS(try_managed(20, 0, &err), SCIO_ECORRUPT, "an object of 0 bytes");
    CHECK_FAILS(try_managed(1024, 1, &err), SCIO_ECORRUPT, "the heap has 1024");
    CHECK_FAILS(try_managed(800, 1, &err), SCIO_ECORRUPT, "undefined"); /* the unused entry */
    fields.managed = UINT64_MAX;
    rewrite_header();
    CHECK_FAILS(try_managed(1024, 1, &err), SCIO_ECORRUPT, "would be in row 4, it has 4 rows");
    CHECK_FAILS(try_managed(65535, 1, &err), SCIO_ECORRUPT, "would be in row 9");
}

TEST(blocks_say_whose_they_are)
{
    make(false);
    im.data[heap.blocks[0]] = 'X';
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "expected \"FHDB\"");
    make(false);
    im.data[heap.blocks[0] + 4] = 1;
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "fractal heap, direct block at byte ");
    make(false);
    image_patch(&im, heap.blocks[0] + 5, 8, 99);
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "heap at address 99");
    make(false);
    image_patch(&im, heap.blocks[1] + 13, 2, 63);
    CHECK_FAILS(try_managed(84, 1, &err), SCIO_ECORRUPT, "offset 63, expected 0, 48, 64");
    make(true);
    im.data[heap.blocks[0] + 40] ^= 1;
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "direct block at byte 194: checksum");
}

/* Changes the entry of a table and makes its checksum right again. */
static void
patch_table(uint64_t table, size_t i_entry, size_t n_entries, uint64_t value)
{
    image_patch(&im, table + 15 + 8 * i_entry, 8, value);
    image_resum(&im, table, table + 15 + 8 * n_entries);
}

TEST(tables_are_checked)
{
    make(false);
    im.data[heap.root] = 'X';
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "expected \"FHIB\"");
    make(false);
    im.data[heap.root + 20] ^= 1;
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "indirect block at byte ");
    make(false);
    image_patch(&im, heap.child_table + 13, 2, 256);
    image_resum(&im, heap.child_table, heap.child_table + 15 + 32);
    CHECK_FAILS(try_managed(530, 1, &err), SCIO_ECORRUPT, "offset 256, expected 0, 48, 512");
    make(false); /* a block stands for another */
    patch_table(heap.root, 1, 8, heap.blocks[0]);
    CHECK_FAILS(try_managed(84, 1, &err), SCIO_ECORRUPT, "offset 0, expected 0, 48, 64");
    make(false); /* a table below itself */
    patch_table(heap.root, 6, 8, heap.root);
    CHECK_FAILS(try_managed(530, 1, &err), SCIO_ECORRUPT, "indirect block at byte ");
    make(false);
    patch_table(heap.root, 0, 8, UINT64_MAX - 10);
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "beyond the end");
}

TEST(a_block_that_failed_is_not_used_afterwards)
{
    const uint8_t id[ID_NBYTES] = {0, 20, 0, 1};
    scio_h5_file *file;
    scio_fractal_heap *h = NULL;
    const uint8_t *data = NULL;
    uint64_t position = 0;
    size_t nbytes = 0;

    make(true);
    im.data[heap.blocks[0] + 40] ^= 1;
    image_finish(&im);
    file = image_open(&im);
    CHECK(scio_fractal_heap_open(file, heap.header, ID_NBYTES, &h, NULL) == SCIO_OK);
    for (unsigned i = 0; i < 3; i++)
        CHECK_FAILS(scio_fractal_heap_get(h, id, &data, &nbytes, &position, &err), SCIO_ECORRUPT,
                    "checksum");
    CHECK(data == NULL);
    scio_fractal_heap_free(h);
    scio_h5_file_release(file);
}

/* One field set to a value, the rest sound. */
#define CHECK_FIELD(field, value, expected_code, expected_text)                                    \
    do {                                                                                           \
        make(false);                                                                               \
        fields.field = (value);                                                                    \
        rewrite_header();                                                                          \
        CHECK_FAILS(try_managed(20, 1, &err), expected_code, expected_text);                       \
    } while (0)

TEST(the_header_is_checked)
{
    make(false);
    im.data[heap.header + 20] ^= 1;
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "fractal heap at byte 48: checksum");
    make(false);
    im.data[heap.header] = 'X';
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_ECORRUPT, "expected \"FRHP\"");
    make(false);
    im.data[heap.header + 4] = 1;
    CHECK_FAILS(try_managed(20, 1, &err), SCIO_EUNSUPPORTED, "version 1, read is 0");
    CHECK_FIELD(id_nbytes, 7, SCIO_ECORRUPT, "ids of 7 bytes, expected 8");
    CHECK_FIELD(filter_nbytes, 20, SCIO_EUNSUPPORTED, "it is filtered");
    CHECK_FIELD(width, 0, SCIO_ECORRUPT, "width 0");
    CHECK_FIELD(width, 3, SCIO_ECORRUPT, "expected powers of two");
    CHECK_FIELD(start, 0, SCIO_ECORRUPT, "blocks of 0 to 128 bytes");
    CHECK_FIELD(start, 96, SCIO_ECORRUPT, "expected powers of two");
    CHECK_FIELD(start, 256, SCIO_ECORRUPT, "blocks of 256 to 128 bytes");
    CHECK_FIELD(max_direct, 130, SCIO_ECORRUPT, "expected powers of two");
    CHECK_FIELD(max_direct, UINT64_C(1) << 63, SCIO_ECORRUPT, "in 16 bits");
    CHECK_FIELD(heap_bits, 65, SCIO_ECORRUPT, "65 bits");
    CHECK_FIELD(heap_bits, 0, SCIO_ECORRUPT, "0 bits");
    CHECK_FIELD(heap_bits, 6, SCIO_ECORRUPT, "in 6 bits");
    CHECK_FIELD(heap_bits, 64, SCIO_ECORRUPT, "ids of 8 bytes for offsets of 8 and lengths of 1");
    CHECK_FIELD(root_rows, 11, SCIO_ECORRUPT, "11 rows of 2 blocks");
    CHECK_FIELD(root_rows, 65535, SCIO_ECORRUPT, "65535 rows");
}

TEST(lengths_in_ids_are_as_wide_as_a_block_needs)
{
    make(false);
    fields.max_managed = 1 << 20; /* three bytes would hold it, but blocks have 128 at most */
    rewrite_header();
    CHECK(try_managed(20, 3, NULL) == SCIO_OK);
}

TEST(a_table_too_small_for_one_row_is_refused)
{
    set_fields();
    fields.width = 16;
    fields.max_direct = START; /* row 2 has tables of 128 bytes, a row of them 1024 */
    fields.managed = 8192;
    image_new_superblock(&im, 2, 8, 8, 48);
    heap.header = im.nbytes;
    write_header();
    heap.root = begin_table(0);
    for (unsigned i = 0; i < N_ROWS * fields.width; i++)
        image_u64(&im, 48);
    image_sum(&im);
    rewrite_header();
    CHECK_FAILS(try_managed(2048, 1, &err), SCIO_ECORRUPT, "a table of 0 rows below one of 4");
}

TEST(every_truncation_of_a_heap_is_an_error)
{
    make(true);
    while (--im.nbytes > 49)
        CHECK(try_managed(530 + 4, 1, NULL) == SCIO_ECORRUPT);
}

/* ---- huge and tiny ---- */

/* A tree of huge objects: numbers 3, 5 and 8 with 30, 50 and 80 bytes of that value. */
static void
make_huge(void)
{
    const unsigned numbers[] = {3, 5, 8};
    uint64_t addresses[3], leaf;

    make(false);
    for (size_t i = 0; i < 3; i++) {
        addresses[i] = im.nbytes;
        for (unsigned k = 0; k < 10 * numbers[i]; k++)
            image_u8(&im, numbers[i]);
    }
    leaf = image_begin(&im, "BTLF");
    image_u8(&im, 0);
    image_u8(&im, 1);
    for (size_t i = 0; i < 3; i++) {
        image_u64(&im, addresses[i]);
        image_u64(&im, 10 * numbers[i]);
        image_u64(&im, numbers[i]);
    }
    image_sum(&im);
    heap.tree = image_begin(&im, "BTHD");
    image_u8(&im, 0);
    image_u8(&im, 1);
    image_u32(&im, 512);
    image_u16(&im, 24);
    image_u16(&im, 0);
    image_u16(&im, 0);
    image_u64(&im, leaf);
    image_u16(&im, 3);
    image_u64(&im, 3);
    image_sum(&im);
    heap.blocks[20] = leaf;
    fields.huge_tree = heap.tree;
    rewrite_header();
}

static void
patch_huge(size_t i_record, size_t at, uint64_t value)
{
    const uint64_t leaf = heap.blocks[20];

    image_patch(&im, leaf + 6 + 24 * i_record + at, 8, value);
    image_resum(&im, leaf, leaf + 6 + 72);
}

static scio_status
get_huge(unsigned number, object *out, scio_error *err)
{
    const uint8_t id[ID_NBYTES] = {0x10, (uint8_t)number};

    return get(id, out, err);
}

TEST(huge_objects_are_found_by_their_number)
{
    static object o;

    make_huge();
    for (unsigned number = 3; number <= 8; number++) {
        if (number != 3 && number != 5 && number != 8) {
            CHECK_FAILS(get_huge(number, &o, &err), SCIO_ECORRUPT, "no huge object ");
            continue;
        }
        CHECK(get_huge(number, &o, NULL) == SCIO_OK && o.nbytes == 10 * number);
        CHECK(o.bytes[0] == number && o.bytes[o.nbytes - 1] == number);
    }
    patch_huge(1, 8, 0);
    CHECK_FAILS(get_huge(5, &o, &err), SCIO_ECORRUPT, "a huge object of 0 bytes");
    patch_huge(1, 8, UINT64_MAX);
    CHECK_FAILS(get_huge(5, &o, &err), SCIO_ECORRUPT, "beyond the end");
    patch_huge(1, 8, 50);
    patch_huge(1, 0, UNDEFINED);
    CHECK_FAILS(get_huge(5, &o, &err), SCIO_ECORRUPT, "undefined");
    make(false);
    CHECK_FAILS(get_huge(5, &o, &err), SCIO_ECORRUPT, "undefined");
}

TEST(a_huge_object_beyond_the_limit_is_refused)
{
    const uint8_t id[ID_NBYTES] = {0x10, 8};
    scio_h5_limits limits;
    scio_h5_file *file = NULL;
    scio_fractal_heap *h = NULL;
    const uint8_t *data = NULL;
    uint64_t position = 0;
    size_t nbytes = 0;

    make_huge();
    image_finish(&im);
    scio_h5_limits_default(&limits);
    limits.attribute_nbytes = 79;
    CHECK(image_open_with(&im, &limits, &file, NULL) == SCIO_OK);
    CHECK(scio_fractal_heap_open(file, heap.header, ID_NBYTES, &h, NULL) == SCIO_OK);
    CHECK_FAILS(scio_fractal_heap_get(h, id, &data, &nbytes, &position, &err), SCIO_EUNSAFE,
                "the limit attribute_nbytes of 79");
    scio_fractal_heap_free(h);
    scio_h5_file_release(file);
}

TEST(small_addresses_stand_in_the_id_of_a_huge_object)
{
    uint8_t id[ID_NBYTES] = {0x10};
    static object o;
    size_t at;

    set_fields();
    image_new_superblock(&im, 2, 2, 2, 24);
    image_zeros(&im, 10);
    at = im.nbytes;
    image_text(&im, "a huge one");
    heap.header = im.nbytes;
    heap.root = UNDEFINED;
    write_header();
    id[1] = (uint8_t)at;
    id[3] = 10;
    CHECK(get(id, &o, NULL) == SCIO_OK && o.nbytes == 10 && o.position == at);
    CHECK(memcmp(o.bytes, "a huge one", 10) == 0);
    id[4] = 0x40;
    CHECK_FAILS(get(id, &o, &err), SCIO_ECORRUPT, "beyond the end");
}

TEST(tiny_objects_stand_in_the_id)
{
    const uint8_t id[ID_NBYTES] = {0x26, 'a', 'b', 'c', 'd', 'e', 'f', 'g'};
    static object o;

    make(false);
    CHECK(get(id, &o, NULL) == SCIO_OK && o.nbytes == 7 && memcmp(o.bytes, "abcdefg", 7) == 0);
    CHECK_FAILS(get((const uint8_t *)"\x27"
                                     "abcdefg",
                    &o, &err),
                SCIO_ECORRUPT, "a tiny object of 8 bytes in an id of 8");
    CHECK_FAILS(get((const uint8_t *)"\x30"
                                     "abcdefg",
                    &o, &err),
                SCIO_ECORRUPT, "an id of type 3");
    CHECK_FAILS(get((const uint8_t *)"\x40"
                                     "abcdefg",
                    &o, &err),
                SCIO_EUNSUPPORTED, "an id of version 1");
}

/* A managed object below two tables, then a huge one. */
static scio_status
get_two(scio_h5_file *file)
{
    const uint8_t managed[ID_NBYTES] = {0, 22, 2, 1}, huge[ID_NBYTES] = {0x10, 8};
    scio_fractal_heap *h = NULL;
    const uint8_t *data = NULL;
    uint64_t position = 0;
    size_t nbytes = 0;
    scio_status status;

    status = scio_fractal_heap_open(file, heap.header, ID_NBYTES, &h, NULL);
    if (status == SCIO_OK)
        status = scio_fractal_heap_get(h, managed, &data, &nbytes, &position, NULL);
    if (status == SCIO_OK)
        status = scio_fractal_heap_get(h, huge, &data, &nbytes, &position, NULL);
    CHECK(status != SCIO_OK || nbytes == 80);
    scio_fractal_heap_free(h);
    return status;
}

TEST(heaps_survive_every_failing_allocation)
{
    scio_h5_file *file;
    scio_status status;

    make_huge();
    image_finish(&im);
    file = image_open(&im);
    CHECK_EVERY_ALLOCATION(status = get_two(file), status);
    scio_h5_file_release(file);
}
