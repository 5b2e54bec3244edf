/* Version-2 B-trees (hdf5_format.md 1.6).
 *
 * The number of records in a node stands in its parent, and how wide that number is follows from
 * the node size; so the limits of every level are computed once from the header, and each count
 * read is held against them before it sizes anything. */
#include "h5read/btree2.h"

#include "base/mem.h"
#include "h5read/address_set.h"

#include <inttypes.h>
#include <string.h>

#define WHAT "version-2 B-tree"
#define MAX_DEPTH 32
#define MAX_NODE_NBYTES (1u << 20)
#define NODE_HEAD_NBYTES 6   /* signature, version, type */
#define NODE_EXTRA_NBYTES 10 /* with the checksum */

typedef struct level_limits {
    uint64_t max_records;  /* of a node on this level */
    uint64_t max_subtree;  /* of it and all below */
    size_t pointer_nbytes; /* of one child pointer in it; 0 in leaves */
    size_t subtree_nbytes; /* of the subtree count in such a pointer; 0 on levels 0 and 1 */
} level_limits;

typedef struct tree {
    const scio_h5_file *file;
    unsigned type;
    uint32_t node_nbytes;
    size_t record_nbytes;
    unsigned depth;
    uint64_t root;
    uint64_t n_root_records;
    uint64_t n_records;
    size_t count_nbytes; /* of the record count in a child pointer, on every level */
    level_limits levels[MAX_DEPTH + 1];
    scio_address_set visited;
    scio_h5_record_compare_fn compare; /* NULL: visit all */
    scio_h5_record_fn visit;
    void *context;
    uint64_t n_visited;
} tree;

/* 0 when the type leaves it to the caller (chunks: it depends on the rank). */
static size_t
record_nbytes_of(const scio_h5_file *file, unsigned type)
{
    const size_t o = scio_h5_file_superblock(file)->offset_nbytes;
    const size_t l = scio_h5_file_superblock(file)->length_nbytes;

    switch (type) {
    case 1: /* huge object: address, length, id */
        return o + 2 * l;
    case 2: /* the same filtered: address, stored length, mask, length, id */
        return o + 3 * l + 4;
    case 3: /* as 1 and 2 without id */
        return o + l;
    case 4:
        return o + 2 * l + 4;
    case 5: /* link by name: hash, heap id */
        return 4 + 7;
    case 6: /* link by order: order, heap id */
        return 8 + 7;
    case 8: /* attribute by name: heap id, flags, order, hash */
        return 8 + 1 + 4 + 4;
    case 9: /* attribute by order: heap id, flags, order */
        return 8 + 1 + 4;
    default:
        return 0;
    }
}

static size_t
width_of(uint64_t value)
{
    size_t width = 1;

    while (width < 8 && value >> (8 * width) != 0)
        width++;
    return width;
}

/* Levels too far up to be reached by 2^64 records saturate. */
static uint64_t
subtree_of(uint64_t max_records, uint64_t max_below)
{
    uint64_t children = 0, all = 0;

    if (!scio_mul_u64(max_records + 1, max_below, &children) ||
        !scio_add_u64(children, max_records, &all))
        return UINT64_MAX;
    return all;
}

static scio_status
set_limits(tree *t, uint64_t position, scio_error *err)
{
    const size_t offset_nbytes = scio_h5_file_superblock(t->file)->offset_nbytes;
    const uint64_t room = t->node_nbytes - NODE_EXTRA_NBYTES;

    t->levels[0].max_records = room / t->record_nbytes;
    t->levels[0].max_subtree = t->levels[0].max_records;
    t->count_nbytes = width_of(t->levels[0].max_records);
    for (unsigned d = 1; d <= t->depth; d++) {
        level_limits *const level = &t->levels[d];

        level->subtree_nbytes = d > 1 ? width_of(t->levels[d - 1].max_subtree) : 0;
        level->pointer_nbytes = offset_nbytes + t->count_nbytes + level->subtree_nbytes;
        if (room < level->pointer_nbytes + t->record_nbytes + level->pointer_nbytes)
            return scio_fail(err, SCIO_ECORRUPT,
                             WHAT " at byte %" PRIu64 ": nodes of %" PRIu32
                                  " bytes have no room for two children",
                             position, t->node_nbytes);
        level->max_records =
            (room - level->pointer_nbytes) / (t->record_nbytes + level->pointer_nbytes);
        level->max_subtree = subtree_of(level->max_records, t->levels[d - 1].max_subtree);
    }
    return SCIO_OK;
}

static scio_status
check_header(tree *t, unsigned expected_type, size_t expected_record_nbytes, uint64_t position,
             scio_error *err)
{
    if (t->type != expected_type)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": type %u, expected %u",
                         position, t->type, expected_type);
    if (expected_record_nbytes == 0)
        expected_record_nbytes = record_nbytes_of(t->file, t->type);
    if (t->record_nbytes == 0 ||
        (expected_record_nbytes != 0 && t->record_nbytes != expected_record_nbytes))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": records of %zu bytes, expected %zu", position,
                         t->record_nbytes, expected_record_nbytes);
    if (t->node_nbytes > MAX_NODE_NBYTES || t->node_nbytes < NODE_EXTRA_NBYTES + t->record_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": nodes of %" PRIu32
                              " bytes with records of %zu, expected %zu to %u",
                         position, t->node_nbytes, t->record_nbytes,
                         NODE_EXTRA_NBYTES + t->record_nbytes, MAX_NODE_NBYTES);
    if (t->depth > MAX_DEPTH)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": depth %u, expected at most %d", position,
                         t->depth, MAX_DEPTH);
    SCIO_TRY(set_limits(t, position, err));
    /* An inner node has at least one record and two children. */
    if (t->n_root_records > t->n_records || t->n_records > t->levels[t->depth].max_subtree ||
        (t->depth == 0 && t->n_root_records != t->n_records) ||
        (t->depth > 0 && t->n_root_records == 0) ||
        (t->root == SCIO_H5_UNDEFINED && t->n_records != 0))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": %" PRIu64 " records, %" PRIu64
                              " in the root, depth %u, root at %" PRIu64 " do not fit together",
                         position, t->n_records, t->n_root_records, t->depth, t->root);
    return SCIO_OK;
}

/* BTHD, version, type, node size, record size, depth, split, merge, root, records in it, in all. */
static scio_status
read_header(tree *t, uint64_t address, unsigned expected_type, size_t expected_record_nbytes,
            scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(t->file);
    const size_t nbytes = 22 + superblock->offset_nbytes + superblock->length_nbytes;
    uint8_t bytes[22 + 8 + 8], version = 0, type = 0;
    uint16_t record_nbytes = 0, depth = 0, n_root_records = 0;
    scio_cursor cursor;

    SCIO_TRY(scio_h5_read(t->file, address, nbytes, bytes, err));
    cursor = scio_cursor_make(bytes, nbytes, superblock->base + address, WHAT);
    SCIO_TRY(scio_cursor_signature(&cursor, "BTHD", err));
    SCIO_TRY(scio_h5_check_sum(bytes, nbytes, cursor.position, WHAT, err));
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    if (version != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED, WHAT " at byte %" PRIu64 ": version %u, read is 0",
                         cursor.position, version);
    SCIO_TRY(scio_cursor_u8(&cursor, &type, err));
    SCIO_TRY(scio_cursor_u32(&cursor, &t->node_nbytes, err));
    SCIO_TRY(scio_cursor_u16(&cursor, &record_nbytes, err));
    SCIO_TRY(scio_cursor_u16(&cursor, &depth, err));
    SCIO_TRY(scio_cursor_skip(&cursor, 2, err));
    SCIO_TRY(scio_cursor_address(&cursor, t->file, &t->root, err));
    SCIO_TRY(scio_cursor_u16(&cursor, &n_root_records, err));
    SCIO_TRY(scio_cursor_length(&cursor, t->file, &t->n_records, err));
    t->type = type;
    t->record_nbytes = record_nbytes;
    t->depth = depth;
    t->n_root_records = n_root_records;
    return check_header(t, expected_type, expected_record_nbytes, cursor.position, err);
}

/* Reads a node of n_records and checks what frames them; the cursor is left at the first record. */
static scio_status
read_node(tree *t, uint64_t address, unsigned level, uint64_t n_records, uint8_t **data_out,
          scio_cursor *out, scio_error *err)
{
    const level_limits *const limits = &t->levels[level];
    uint8_t version = 0, type = 0;
    size_t nbytes;

    SCIO_TRY(scio_address_set_add(&t->visited, address, WHAT, err));
    if (n_records > limits->max_records)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT ": the node at address %" PRIu64 " on level %u has %" PRIu64
                              " records, expected at most %" PRIu64,
                         address, level, n_records, limits->max_records);
    nbytes = NODE_EXTRA_NBYTES + (size_t)n_records * t->record_nbytes;
    if (level > 0)
        nbytes += (size_t)(n_records + 1) * limits->pointer_nbytes;
    SCIO_TRY(scio_h5_check_range(t->file, address, nbytes, err));
    SCIO_TRY(scio_mem_alloc(nbytes, 1, data_out, err));
    SCIO_TRY(scio_h5_read(t->file, address, nbytes, *data_out, err));
    *out = scio_cursor_make(*data_out, nbytes, scio_h5_file_superblock(t->file)->base + address,
                            level == 0 ? WHAT ", leaf" : WHAT ", inner node");
    SCIO_TRY(scio_cursor_signature(out, level == 0 ? "BTLF" : "BTIN", err));
    SCIO_TRY(scio_h5_check_sum(*data_out, nbytes, out->position, out->what, err));
    SCIO_TRY(scio_cursor_u8(out, &version, err));
    SCIO_TRY(scio_cursor_u8(out, &type, err));
    if (version != 0 || type != t->type)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": version %u of type %u, expected version 0 of %u",
                         out->what, out->position, version, type, t->type);
    return SCIO_OK;
}

typedef struct child_pointer {
    uint64_t address;
    uint64_t n_records;
    uint64_t n_subtree; /* UINT64_MAX when it is not stored */
} child_pointer;

static scio_status
take_child(const tree *t, unsigned level, scio_cursor *cursor, child_pointer *out, scio_error *err)
{
    out->n_subtree = UINT64_MAX;
    SCIO_TRY(scio_cursor_address(cursor, t->file, &out->address, err));
    SCIO_TRY(scio_cursor_uint(cursor, t->count_nbytes, &out->n_records, err));
    if (t->levels[level].subtree_nbytes != 0)
        SCIO_TRY(scio_cursor_uint(cursor, t->levels[level].subtree_nbytes, &out->n_subtree, err));
    if (out->address == SCIO_H5_UNDEFINED || (level > 1 && out->n_records == 0))
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": child at address %" PRIu64 " with %" PRIu64
                         " records",
                         cursor->what, cursor->position, out->address, out->n_records);
    return SCIO_OK;
}

static scio_status
visit_record(tree *t, const uint8_t *record, scio_error *err)
{
    if (t->n_visited >= t->n_records)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT ": more records than the %" PRIu64 " that its header says",
                         t->n_records);
    t->n_visited++;
    return t->visit(t->context, record, t->record_nbytes, err);
}

static scio_status walk_node(tree *t, uint64_t address, unsigned level, uint64_t n_records,
                             scio_error *err);

/* Child and its subtree, whose count must come out as the parent says. */
static scio_status
walk_child(tree *t, unsigned level, scio_cursor *pointers, bool is_wanted, scio_error *err)
{
    const uint64_t n_before = t->n_visited;
    child_pointer child = {0};

    SCIO_TRY(take_child(t, level, pointers, &child, err));
    if (!is_wanted)
        return SCIO_OK;
    SCIO_TRY(walk_node(t, child.address, level - 1, child.n_records, err));
    if (t->compare == NULL && child.n_subtree != UINT64_MAX &&
        t->n_visited - n_before != child.n_subtree)
        return scio_fail(err, SCIO_ECORRUPT,
                         "%s at byte %" PRIu64 ": the child at address %" PRIu64 " has %" PRIu64
                         " records below it, expected %" PRIu64,
                         pointers->what, pointers->position, child.address, t->n_visited - n_before,
                         child.n_subtree);
    return SCIO_OK;
}

/* In order: child 0, record 0, child 1, record 1, … A child holds keys from the record on its left
 * to the one on its right, both included: equal keys may lie on either side of an equal record. */
static scio_status
walk_records(tree *t, unsigned level, uint64_t n_records, const scio_cursor *node, scio_error *err)
{
    scio_cursor records = *node, pointers = *node;
    int left_order = -1;

    SCIO_TRY(scio_cursor_skip(&pointers, (size_t)n_records * t->record_nbytes, err));
    for (uint64_t i = 0; i <= n_records; i++) {
        const bool is_last = i == n_records;
        const uint8_t *record = NULL;
        int order = 1;

        if (!is_last)
            SCIO_TRY(scio_cursor_bytes(&records, t->record_nbytes, &record, err));
        if (t->compare != NULL && !is_last)
            order = t->compare(t->context, record, t->record_nbytes);
        if (level > 0)
            SCIO_TRY(walk_child(t, level, &pointers,
                                t->compare == NULL || (left_order <= 0 && order >= 0), err));
        if (!is_last && (t->compare == NULL || order == 0))
            SCIO_TRY(visit_record(t, record, err));
        if (t->compare != NULL && order > 0)
            break;
        left_order = order;
    }
    return SCIO_OK;
}

/* Recursion ends: the level falls by one a step, from at most MAX_DEPTH. */
static scio_status
walk_node(tree *t, uint64_t address, unsigned level, uint64_t n_records, scio_error *err)
{
    uint8_t *data = NULL;
    scio_cursor cursor = {0};
    scio_status status;

    status = read_node(t, address, level, n_records, &data, &cursor, err);
    if (status == SCIO_OK)
        status = walk_records(t, level, n_records, &cursor, err);
    scio_mem_free(data);
    return status;
}

static scio_status
walk(tree *t, scio_error *err)
{
    if (t->root != SCIO_H5_UNDEFINED)
        SCIO_TRY(walk_node(t, t->root, t->depth, t->n_root_records, err));
    if (t->compare == NULL && t->n_visited != t->n_records)
        return scio_fail(err, SCIO_ECORRUPT, WHAT ": %" PRIu64 " records, its header says %" PRIu64,
                         t->n_visited, t->n_records);
    return SCIO_OK;
}

static scio_status
open_and_walk(tree *t, uint64_t address, unsigned expected_type, size_t expected_record_nbytes,
              scio_error *err)
{
    scio_status status;

    status = read_header(t, address, expected_type, expected_record_nbytes, err);
    if (status == SCIO_OK)
        status = walk(t, err);
    scio_address_set_clear(&t->visited);
    return status;
}

scio_status
scio_h5_btree2_walk(const scio_h5_file *file, uint64_t address, unsigned expected_type,
                    size_t expected_record_nbytes, scio_h5_record_fn visit, void *context,
                    scio_error *err)
{
    tree t = {0};

    t.file = file;
    t.visit = visit;
    t.context = context;
    return open_and_walk(&t, address, expected_type, expected_record_nbytes, err);
}

scio_status
scio_h5_btree2_find(const scio_h5_file *file, uint64_t address, unsigned expected_type,
                    scio_h5_record_compare_fn compare, scio_h5_record_fn visit, void *context,
                    scio_error *err)
{
    tree t = {0};

    t.file = file;
    t.compare = compare;
    t.visit = visit;
    t.context = context;
    return open_and_walk(&t, address, expected_type, 0, err);
}
