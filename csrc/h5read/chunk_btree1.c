/* The version-1 B-tree of chunks, which nearly every file has: one pass over all nodes, level by
 * level, one read a node.
 *
 *   node   "TREE", u8 type 1, u8 level, u16 entries n, A left, A right,
 *          key 0, A child 0, key 1, …, child n - 1, key n
 *   key    u32 stored bytes, u32 filter mask, (rank + 1) x u64 element offsets, the last 0
 *
 * A child of a node of level 0 is a chunk, and the key before it is its own.  Siblings and the last
 * key are not needed. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

#define TYPE_CHUNKS 1

typedef struct node_list {
    uint64_t *addresses;
    size_t n_nodes, capacity;
} node_list;

typedef struct tree {
    scio_h5_sink *sink;
    const scio_h5_file *file;
    unsigned rank, offset_nbytes;
    unsigned max_entries; /* of a node: 2 K */
    size_t head_nbytes, node_nbytes;
    uint64_t n_nodes_left; /* more cannot be in the file */
    node_list level, next; /* nodes of the level that is read, and of the one below */
} tree;

static scio_status
push(tree *t, uint64_t address, scio_error *err)
{
    node_list *list = &t->next;

    if (t->n_nodes_left == 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "chunk B-tree: more nodes than the file has room for (a cycle?)");
    t->n_nodes_left--;
    if (list->n_nodes == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;

        SCIO_TRY(scio_mem_realloc(&list->addresses, capacity, sizeof *list->addresses, err));
        list->capacity = capacity;
    }
    list->addresses[list->n_nodes++] = address;
    return SCIO_OK;
}

/* Reads a whole node, or what the file has of it: the entries in use decide what is needed. */
static scio_status
read_node(tree *t, uint64_t address, scio_cursor *out, unsigned *level_out, unsigned *n_entries_out,
          scio_error *err)
{
    const scio_h5_superblock *sb = scio_h5_file_superblock(t->file);
    uint64_t nbytes = t->node_nbytes, position;
    uint8_t type = 0, level = 0;
    uint16_t n_entries = 0;

    if (!scio_add_u64(sb->base, address, &position) || position >= sb->end)
        return scio_fail(err, SCIO_ECORRUPT, "chunk B-tree: node address %llu is outside the file",
                         (unsigned long long)address);
    if (nbytes > sb->end - position)
        nbytes = sb->end - position;
    SCIO_TRY(scio_h5_sink_block(t->sink, address, nbytes, "chunk B-tree node", out, err));
    SCIO_TRY(scio_cursor_signature(out, "TREE", err));
    SCIO_TRY(scio_cursor_u8(out, &type, err));
    SCIO_TRY(scio_cursor_u8(out, &level, err));
    SCIO_TRY(scio_cursor_u16(out, &n_entries, err));
    if (type != TYPE_CHUNKS)
        return scio_fail(err, SCIO_ECORRUPT, "chunk B-tree node at byte %llu: type %u, expected %d",
                         (unsigned long long)position, type, TYPE_CHUNKS);
    if (n_entries > t->max_entries)
        return scio_fail(err, SCIO_ECORRUPT,
                         "chunk B-tree node at byte %llu: %u entries, at most %u are allowed",
                         (unsigned long long)position, n_entries, t->max_entries);
    *level_out = level;
    *n_entries_out = n_entries;
    return scio_cursor_skip(out, (size_t)2 * t->offset_nbytes, err);
}

static scio_status
take_chunk(tree *t, scio_cursor *cursor, scio_error *err)
{
    const uint64_t position = cursor->position + cursor->at;
    uint64_t scaled[SCIO_H5_MAX_RANK] = {0}, offset = 0, address = 0;
    uint32_t nbytes = 0, mask = 0;

    SCIO_TRY(scio_cursor_u32(cursor, &nbytes, err));
    SCIO_TRY(scio_cursor_u32(cursor, &mask, err));
    for (unsigned i = 0; i < t->rank; i++) {
        const uint64_t dim = t->sink->layout->chunk_dims[i];

        SCIO_TRY(scio_cursor_u64(cursor, &offset, err));
        if (offset % dim != 0)
            return scio_fail(err, SCIO_ECORRUPT,
                             "chunk B-tree key at byte %llu: offset %llu of axis %u is no multiple "
                             "of the chunk's %llu",
                             (unsigned long long)position, (unsigned long long)offset, i,
                             (unsigned long long)dim);
        scaled[i] = offset / dim;
    }
    SCIO_TRY(scio_cursor_u64(cursor, &offset, err));
    if (offset != 0)
        return scio_fail(err, SCIO_ECORRUPT,
                         "chunk B-tree key at byte %llu: last offset %llu, expected 0",
                         (unsigned long long)position, (unsigned long long)offset);
    SCIO_TRY(scio_cursor_address(cursor, t->file, &address, err));
    return scio_h5_sink_add(t->sink, scaled, address, nbytes, mask, err);
}

static scio_status
take_child(tree *t, scio_cursor *cursor, scio_error *err)
{
    uint64_t address = 0;

    SCIO_TRY(scio_cursor_skip(cursor, 8 + (size_t)8 * (t->rank + 1), err));
    SCIO_TRY(scio_cursor_address(cursor, t->file, &address, err));
    return push(t, address, err);
}

/* All nodes of one level; `*level` is 256 before the root is read. */
static scio_status
read_level(tree *t, unsigned *level, scio_error *err)
{
    const unsigned above = *level;

    for (size_t i = 0; i < t->level.n_nodes; i++) {
        scio_error node_err = SCIO_ERROR_INIT;
        scio_cursor cursor;
        unsigned n_entries = 0;
        const scio_status status =
            read_node(t, t->level.addresses[i], &cursor, level, &n_entries, &node_err);

        if (scio_h5_skips(t->file, status))
            continue;
        if (status != SCIO_OK) {
            scio_error_move(err, &node_err);
            return status;
        }
        if (above != 256 && *level + 1 != above)
            return scio_fail(err, SCIO_ECORRUPT,
                             "chunk B-tree node at byte %llu: level %u below level %u",
                             (unsigned long long)cursor.position, *level, above);
        for (unsigned k = 0; k < n_entries; k++)
            SCIO_TRY(*level == 0 ? take_chunk(t, &cursor, err) : take_child(t, &cursor, err));
    }
    return SCIO_OK;
}

scio_status
scio_h5_walk_btree1(scio_h5_sink *sink, scio_error *err)
{
    const scio_h5_file *file = sink->dataset->file;
    const scio_h5_superblock *sb = scio_h5_file_superblock(file);
    const unsigned rank = sink->dataset->space.rank;
    const size_t key_nbytes = 8 + (size_t)8 * (rank + 1);
    tree t = {.sink = sink, .file = file, .rank = rank, .offset_nbytes = sb->offset_nbytes};
    unsigned level = 256;
    scio_status status;

    t.max_entries = 2 * sb->chunk_k;
    t.head_nbytes = 8 + (size_t)2 * sb->offset_nbytes;
    t.node_nbytes = t.head_nbytes + key_nbytes + t.max_entries * (key_nbytes + sb->offset_nbytes);
    t.n_nodes_left = sb->end / t.head_nbytes;
    status = push(&t, sink->layout->address, err);
    while (status == SCIO_OK && t.next.n_nodes != 0) {
        const node_list done = t.level;

        t.level = t.next;
        t.next = done;
        t.next.n_nodes = 0;
        status = read_level(&t, &level, err);
    }
    scio_mem_free(t.level.addresses);
    scio_mem_free(t.next.addresses);
    return status;
}
