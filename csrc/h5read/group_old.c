/* Old groups (hdf5_format.md 1.4): TREE nodes of type 0, SNOD leaves, names in a local heap.
 *
 * Listing reads the heap's data segment at once; looking one name up reads only the names that it
 * is compared with. */
#include "h5read/group.h"

#include "base/mem.h"
#include "h5read/address_set.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEAP "local heap"
#define TREE "group B-tree"
#define LEAF "symbol table node"

#define TREE_TYPE_GROUP 0
#define MAX_LEVEL 64
#define ANY_LEVEL UINT32_MAX
#define CACHE_SOFT 2
#define LEAF_HEAD_NBYTES 8
#define FIRST_TEXT_NBYTES 256
#define PLACES_PER_LEAF 1000 /* in the names of what lost its name */

typedef struct local_heap {
    const scio_h5_file *file;
    uint64_t data_address;
    uint64_t nbytes;
    uint8_t *data; /* the whole segment, or NULL: read piece by piece */
    /* Names do not overlap in a sound heap, so all of them together are no longer than it: stops
     * many entries that share one long name. */
    uint64_t left_nbytes;
} local_heap;

typedef struct old_group {
    const scio_h5_file *file;
    local_heap heap;
    scio_address_set visited;
    scio_h5_link_list *list;
    size_t n_leaves; /* seen, also those that were left out */
} old_group;

/* The part of a node that is in use, or of a leaf; owns `data`. */
typedef struct node {
    uint8_t *data;
    scio_cursor cursor; /* at the first key or entry */
    unsigned level;
    unsigned n_entries;
} node;

static uint64_t
absolute(const scio_h5_file *file, uint64_t address)
{
    return scio_h5_file_superblock(file)->base + address;
}

/* ---- local heap ---- */

static scio_status
open_heap(const scio_h5_file *file, uint64_t address, local_heap *out, scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(file);
    const size_t nbytes = 8 + 2 * superblock->length_nbytes + superblock->offset_nbytes;
    uint8_t bytes[8 + 2 * 8 + 8], version = 0;
    uint64_t unused = 0;
    scio_cursor cursor;

    out->file = file;
    SCIO_TRY(scio_h5_read(file, address, nbytes, bytes, err));
    cursor = scio_cursor_make(bytes, nbytes, absolute(file, address), HEAP);
    SCIO_TRY(scio_cursor_signature(&cursor, "HEAP", err));
    SCIO_TRY(scio_cursor_u8(&cursor, &version, err));
    if (version != 0)
        return scio_fail(err, SCIO_EUNSUPPORTED, HEAP " at byte %" PRIu64 ": version %u, read is 0",
                         cursor.position, version);
    SCIO_TRY(scio_cursor_skip(&cursor, 3, err));
    SCIO_TRY(scio_cursor_length(&cursor, file, &out->nbytes, err));
    SCIO_TRY(scio_cursor_length(&cursor, file, &unused, err)); /* free list */
    SCIO_TRY(scio_cursor_address(&cursor, file, &out->data_address, err));
    out->left_nbytes = out->nbytes;
    return scio_h5_check_range(file, out->data_address, out->nbytes, err);
}

static scio_status
check_offset(const local_heap *heap, uint64_t offset, scio_error *err)
{
    if (offset < heap->nbytes)
        return SCIO_OK;
    return scio_fail(err, SCIO_ECORRUPT,
                     HEAP " at byte %" PRIu64 ": a name at offset %" PRIu64
                          ", the heap has %" PRIu64 " bytes",
                     absolute(heap->file, heap->data_address), offset, heap->nbytes);
}

static scio_status
fail_no_end(const local_heap *heap, uint64_t offset, scio_error *err)
{
    return scio_fail(err, SCIO_ECORRUPT,
                     HEAP " at byte %" PRIu64 ": the name at offset %" PRIu64
                          " does not end in the heap's %" PRIu64 " bytes",
                     absolute(heap->file, heap->data_address), offset, heap->nbytes);
}

/* Compares as strcmp(name, name in the heap) does; reads no more of the heap than name is long. */
static scio_status
compare(const local_heap *heap, const char *name, uint64_t offset, int *out, scio_error *err)
{
    const size_t name_nbytes = strlen(name) + 1;
    uint8_t small[256], *large = NULL, *bytes = small;
    size_t nbytes = name_nbytes;
    scio_status status = SCIO_OK;

    SCIO_TRY(check_offset(heap, offset, err));
    if (nbytes > heap->nbytes - offset)
        nbytes = (size_t)(heap->nbytes - offset);
    if (nbytes > sizeof small) {
        SCIO_TRY(scio_mem_alloc(nbytes, 1, &large, err));
        bytes = large;
    }
    status = scio_h5_read(heap->file, heap->data_address + offset, nbytes, bytes, err);
    if (status != SCIO_OK)
        goto done;
    *out = strncmp(name, (const char *)bytes, nbytes);
    if (*out == 0 && nbytes < name_nbytes) /* the heap ends before the name does */
        status = fail_no_end(heap, offset, err);
done:
    scio_mem_free(large);
    return status;
}

/* Takes a text of nbytes, NUL included, off the budget and copies it. */
static scio_status
keep_text(local_heap *heap, const char *text, size_t nbytes, char **out, scio_error *err)
{
    if (nbytes > heap->left_nbytes)
        return scio_fail(err, SCIO_ECORRUPT,
                         HEAP " at byte %" PRIu64 ": the names of the group are longer together "
                              "than its %" PRIu64 " bytes",
                         absolute(heap->file, heap->data_address), heap->nbytes);
    heap->left_nbytes -= nbytes;
    return scio_mem_strndup(text, nbytes - 1, out, err);
}

/* The text at an offset of a heap that is not in memory: reads on, twice as much each time, until
 * its end is there. */
static scio_status
read_text(local_heap *heap, uint64_t offset, char **out, scio_error *err)
{
    const uint64_t left = heap->nbytes - offset;
    scio_status status = SCIO_OK;
    const char *end = NULL;
    size_t nbytes = FIRST_TEXT_NBYTES / 2;
    char *text = NULL;

    do {
        nbytes = nbytes < left / 2 ? nbytes * 2 : (size_t)left;
        status = scio_mem_realloc(&text, nbytes, 1, err);
        if (status == SCIO_OK)
            status = scio_h5_read(heap->file, heap->data_address + offset, nbytes, text, err);
        if (status != SCIO_OK)
            goto done;
        end = memchr(text, '\0', nbytes);
    } while (end == NULL && nbytes < left);
    status = end == NULL ? fail_no_end(heap, offset, err)
                         : keep_text(heap, text, (size_t)(end - text) + 1, out, err);
done:
    scio_mem_free(text);
    return status;
}

static scio_status
copy_text(local_heap *heap, uint64_t offset, char **out, scio_error *err)
{
    const char *text, *end;

    SCIO_TRY(check_offset(heap, offset, err));
    if (heap->data == NULL)
        return read_text(heap, offset, out, err);
    text = (const char *)heap->data + offset;
    end = memchr(text, '\0', (size_t)(heap->nbytes - offset));
    if (end == NULL)
        return fail_no_end(heap, offset, err);
    return keep_text(heap, text, (size_t)(end - text) + 1, out, err);
}

static scio_status
load_heap(local_heap *heap, scio_error *err)
{
    SCIO_TRY(scio_mem_alloc((size_t)heap->nbytes, 1, &heap->data, err));
    return scio_h5_read(heap->file, heap->data_address, (size_t)heap->nbytes, heap->data, err);
}

/* ---- nodes ---- */

static scio_status
load(const scio_h5_file *file, uint64_t address, size_t nbytes, const char *what, node *out,
     scio_error *err)
{
    SCIO_TRY(scio_h5_check_range(file, address, nbytes, err));
    SCIO_TRY(scio_mem_alloc(nbytes, 1, &out->data, err));
    SCIO_TRY(scio_h5_read(file, address, nbytes, out->data, err));
    out->cursor = scio_cursor_make(out->data, nbytes, absolute(file, address), what);
    return SCIO_OK;
}

static scio_status
fail_count(const char *what, uint64_t position, unsigned n_entries, unsigned max_entries,
           scio_error *err)
{
    return scio_fail(err, SCIO_ECORRUPT, "%s at byte %" PRIu64 ": %u entries, expected at most %u",
                     what, position, n_entries, max_entries);
}

/* A TREE node of n_entries: head, a key in front of each child and one behind the last. */
static size_t
tree_nbytes(const scio_h5_superblock *superblock, size_t n_entries)
{
    return 8 + 2 * superblock->offset_nbytes + n_entries * superblock->offset_nbytes +
           (n_entries + 1) * superblock->length_nbytes;
}

/* Head of a TREE node: signature, type, level, number of entries, two siblings that nobody needs.
 */
static scio_status
read_tree(const scio_h5_file *file, uint64_t address, node *out, scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(file);
    const size_t head_nbytes = 8 + 2 * superblock->offset_nbytes;
    uint8_t bytes[8 + 2 * 8], type = 0, level = 0;
    uint16_t n_entries = 0;
    scio_cursor head;
    size_t nbytes;

    SCIO_TRY(scio_h5_read(file, address, head_nbytes, bytes, err));
    head = scio_cursor_make(bytes, head_nbytes, absolute(file, address), TREE);
    SCIO_TRY(scio_cursor_signature(&head, "TREE", err));
    SCIO_TRY(scio_cursor_u8(&head, &type, err));
    SCIO_TRY(scio_cursor_u8(&head, &level, err));
    SCIO_TRY(scio_cursor_u16(&head, &n_entries, err));
    if (type != TREE_TYPE_GROUP)
        return scio_fail(err, SCIO_ECORRUPT, TREE " at byte %" PRIu64 ": type %u, expected 0",
                         head.position, type);
    if (n_entries > 2 * superblock->group_internal_k)
        return fail_count(TREE, head.position, n_entries, 2 * superblock->group_internal_k, err);
    out->level = level;
    out->n_entries = n_entries;
    /* The whole node is in the file, though only the part in use is read. */
    SCIO_TRY(scio_h5_check_range(file, address,
                                 tree_nbytes(superblock, 2 * superblock->group_internal_k), err));
    nbytes = tree_nbytes(superblock, n_entries);
    SCIO_TRY(load(file, address, nbytes, TREE, out, err));
    return scio_cursor_skip(&out->cursor, head_nbytes, err);
}

static scio_status
read_leaf(const scio_h5_file *file, uint64_t address, node *out, scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(file);
    const size_t entry_nbytes = superblock->length_nbytes + superblock->offset_nbytes + 24;
    uint8_t bytes[LEAF_HEAD_NBYTES], version = 0;
    uint16_t n_entries = 0;
    scio_cursor head;

    SCIO_TRY(scio_h5_read(file, address, sizeof bytes, bytes, err));
    head = scio_cursor_make(bytes, sizeof bytes, absolute(file, address), LEAF);
    SCIO_TRY(scio_cursor_signature(&head, "SNOD", err));
    SCIO_TRY(scio_cursor_u8(&head, &version, err));
    if (version != 1)
        return scio_fail(err, SCIO_EUNSUPPORTED, LEAF " at byte %" PRIu64 ": version %u, read is 1",
                         head.position, version);
    SCIO_TRY(scio_cursor_skip(&head, 1, err));
    SCIO_TRY(scio_cursor_u16(&head, &n_entries, err));
    if (n_entries > 2 * superblock->group_leaf_k)
        return fail_count(LEAF, head.position, n_entries, 2 * superblock->group_leaf_k, err);
    out->n_entries = n_entries;
    SCIO_TRY(load(file, address, LEAF_HEAD_NBYTES + n_entries * entry_nbytes, LEAF, out, err));
    return scio_cursor_skip(&out->cursor, LEAF_HEAD_NBYTES, err);
}

typedef struct leaf_entry {
    uint64_t name_offset;
    uint64_t address;
    uint32_t cache_type;
    uint32_t soft_offset; /* of the target's path, for CACHE_SOFT */
} leaf_entry;

static scio_status
take_entry(const scio_h5_file *file, node *leaf, leaf_entry *out, scio_error *err)
{
    SCIO_TRY(scio_cursor_length(&leaf->cursor, file, &out->name_offset, err));
    SCIO_TRY(scio_cursor_address(&leaf->cursor, file, &out->address, err));
    SCIO_TRY(scio_cursor_u32(&leaf->cursor, &out->cache_type, err));
    SCIO_TRY(scio_cursor_skip(&leaf->cursor, 4, err));
    SCIO_TRY(scio_cursor_u32(&leaf->cursor, &out->soft_offset, err));
    return scio_cursor_skip(&leaf->cursor, 12, err);
}

/* Of a file that is salvaged, names may be gone while the objects are there.  Those are named by
 * their place among the others, which is the place that their name has in the alphabet. */
static scio_status
take_name(local_heap *heap, const leaf_entry *entry, size_t i_place, char **out, scio_error *err)
{
    scio_error name_err = SCIO_ERROR_INIT;
    const scio_status status = copy_text(heap, entry->name_offset, out, &name_err);
    char text[32] = "";

    if (status == SCIO_OK)
        return SCIO_OK;
    if (!scio_h5_skips(heap->file, status)) {
        scio_error_move(err, &name_err);
        return status;
    }
    (void)snprintf(text, sizeof text, SCIO_H5_UNNAMED "%07zu", i_place);
    return scio_mem_strndup(text, strlen(text), out, err);
}

static scio_status
make_link(local_heap *heap, const leaf_entry *entry, size_t i_place, scio_h5_link *link,
          scio_error *err)
{
    if (entry->cache_type > CACHE_SOFT)
        return scio_fail(err, SCIO_ECORRUPT,
                         LEAF ": the entry of the name at offset %" PRIu64
                              " has cache type %" PRIu32 ", expected at most 2",
                         entry->name_offset, entry->cache_type);
    link->creation_order = UINT64_MAX;
    link->address = entry->cache_type == CACHE_SOFT ? SCIO_H5_UNDEFINED : entry->address;
    link->type = entry->cache_type == CACHE_SOFT ? SCIO_H5_LINK_SOFT : SCIO_H5_LINK_HARD;
    SCIO_TRY(take_name(heap, entry, i_place, &link->name, err));
    SCIO_TRY(scio_h5_link_name_check(link->name, strlen(link->name),
                                     absolute(heap->file, heap->data_address) + entry->name_offset,
                                     err));
    if (entry->cache_type != CACHE_SOFT)
        return SCIO_OK;
    SCIO_TRY(copy_text(heap, entry->soft_offset, &link->target, err));
    if (link->target[0] == '\0')
        return scio_fail(err, SCIO_ECORRUPT, "soft link \"%.200s\": its path is empty", link->name);
    return SCIO_OK;
}

/* ---- listing ---- */

static scio_status
list_leaf(old_group *group, uint64_t address, scio_error *err)
{
    node leaf = {0};
    scio_status status = read_leaf(group->file, address, &leaf, err);

    for (unsigned i = 0; i < leaf.n_entries && status == SCIO_OK; i++) {
        leaf_entry entry = {0};
        scio_h5_link link = {0};

        status = take_entry(group->file, &leaf, &entry, err);
        if (status == SCIO_OK)
            status = make_link(&group->heap, &entry, (group->n_leaves - 1) * PLACES_PER_LEAF + i,
                               &link, err);
        if (status == SCIO_OK)
            status = scio_h5_link_list_add(group->list, &link, err);
        scio_h5_link_clear(&link);
    }
    scio_mem_free(leaf.data);
    return status;
}

/* A leaf, which is left out when it is not there and the file is salvaged. */
static scio_status
list_leaf_if_there(old_group *group, uint64_t address, scio_error *err)
{
    scio_error leaf_err = SCIO_ERROR_INIT;
    scio_status status;

    group->n_leaves++;
    status = list_leaf(group, address, &leaf_err);
    if (status == SCIO_OK || scio_h5_skips(group->file, status))
        return SCIO_OK;
    scio_error_move(err, &leaf_err);
    return status;
}

/* The root has any level up to MAX_LEVEL (expected_level ANY_LEVEL), a child one less than its
 * parent. */
static scio_status
check_level(const node *tree, unsigned expected_level, scio_error *err)
{
    if (expected_level == ANY_LEVEL && tree->level > MAX_LEVEL)
        return scio_fail(err, SCIO_ECORRUPT,
                         TREE " at byte %" PRIu64 ": level %u, expected at most %d",
                         tree->cursor.position, tree->level, MAX_LEVEL);
    if (expected_level != ANY_LEVEL && tree->level != expected_level)
        return scio_fail(err, SCIO_ECORRUPT,
                         TREE " at byte %" PRIu64 ": level %u, expected one below the parent, %u",
                         tree->cursor.position, tree->level, expected_level);
    return SCIO_OK;
}

/* Recursion ends: the level falls by one a step, from at most MAX_LEVEL. */
static scio_status
list_tree(old_group *group, uint64_t address, unsigned expected_level, scio_error *err)
{
    node tree = {0};
    scio_status status;

    status = scio_address_set_add(&group->visited, address, TREE, err);
    if (status == SCIO_OK)
        status = read_tree(group->file, address, &tree, err);
    if (status == SCIO_OK)
        status = check_level(&tree, expected_level, err);
    for (unsigned i = 0; i < tree.n_entries && status == SCIO_OK; i++) {
        uint64_t key = 0, child = 0;

        status = scio_cursor_length(&tree.cursor, group->file, &key, err);
        if (status == SCIO_OK)
            status = scio_cursor_address(&tree.cursor, group->file, &child, err);
        if (status == SCIO_OK)
            status = scio_h5_check_range(group->file, child, LEAF_HEAD_NBYTES, err);
        if (status != SCIO_OK)
            break;
        if (tree.level > 0) {
            status = list_tree(group, child, tree.level - 1, err);
            continue;
        }
        status = scio_address_set_add(&group->visited, child, LEAF, err);
        if (status == SCIO_OK)
            status = list_leaf_if_there(group, child, err);
    }
    scio_mem_free(tree.data);
    return status;
}

static scio_status
open_group(const scio_h5_file *file, const scio_h5_message *message, old_group *out,
           uint64_t *tree_out, scio_error *err)
{
    scio_cursor cursor = scio_h5_message_cursor(message, "symbol table message");
    uint64_t heap = 0;

    out->file = file;
    SCIO_TRY(scio_cursor_address(&cursor, file, tree_out, err));
    SCIO_TRY(scio_cursor_address(&cursor, file, &heap, err));
    SCIO_TRY(scio_h5_check_range(file, *tree_out, 8, err));
    return open_heap(file, heap, &out->heap, err);
}

scio_status
scio_h5_group_old_list(const scio_h5_file *file, const scio_h5_message *message,
                       scio_h5_link_list *list, scio_error *err)
{
    old_group group = {0};
    uint64_t tree = 0;
    scio_status status;

    group.list = list;
    status = open_group(file, message, &group, &tree, err);
    if (status == SCIO_OK && !scio_h5_file_limits(file)->is_salvage) /* there name by name */
        status = load_heap(&group.heap, err);
    if (status == SCIO_OK)
        status = list_tree(&group, tree, ANY_LEVEL, err);
    scio_address_set_clear(&group.visited);
    scio_mem_free(group.heap.data);
    return status;
}

/* ---- one name ---- */

/* The names of child i are in (key i, key i + 1]: takes the first child whose upper key is not
 * below the name; SCIO_H5_UNDEFINED when the name is beyond the last. */
static scio_status
choose_child(const old_group *group, const node *tree, const char *name, uint64_t *child_out,
             scio_error *err)
{
    const scio_h5_superblock *const superblock = scio_h5_file_superblock(group->file);
    const size_t stride = superblock->length_nbytes + superblock->offset_nbytes;
    unsigned low = 0, high = tree->n_entries;

    while (low < high) {
        const unsigned middle = low + (high - low) / 2;
        scio_cursor cursor = tree->cursor;
        uint64_t offset = 0;
        int order = 0;

        SCIO_TRY(scio_cursor_skip(&cursor, (middle + 1) * stride, err));
        SCIO_TRY(scio_cursor_length(&cursor, group->file, &offset, err));
        SCIO_TRY(compare(&group->heap, name, offset, &order, err));
        if (order > 0)
            low = middle + 1;
        else
            high = middle;
    }
    *child_out = SCIO_H5_UNDEFINED;
    if (low < tree->n_entries) {
        scio_cursor cursor = tree->cursor;

        SCIO_TRY(scio_cursor_skip(&cursor, low * stride + superblock->length_nbytes, err));
        SCIO_TRY(scio_cursor_address(&cursor, group->file, child_out, err));
    }
    return SCIO_OK;
}

/* Follows `tree` down to a leaf; SCIO_H5_UNDEFINED when the name cannot be in the group. */
static scio_status
descend(const old_group *group, uint64_t tree_address, const char *name, uint64_t *leaf_out,
        scio_error *err)
{
    unsigned expected_level = ANY_LEVEL;

    for (;;) { /* ends: the level falls by one a step, from at most MAX_LEVEL */
        node tree = {0};
        uint64_t child = SCIO_H5_UNDEFINED;
        scio_status status = read_tree(group->file, tree_address, &tree, err);

        if (status == SCIO_OK)
            status = check_level(&tree, expected_level, err);
        if (status == SCIO_OK)
            status = choose_child(group, &tree, name, &child, err);
        scio_mem_free(tree.data);
        if (status != SCIO_OK)
            return status;
        *leaf_out = child;
        if (tree.level == 0 || child == SCIO_H5_UNDEFINED)
            return SCIO_OK;
        expected_level = tree.level - 1;
        tree_address = child;
    }
}

static scio_status
find_in_leaf(old_group *group, uint64_t address, const char *name, scio_h5_link *out,
             scio_error *err)
{
    node leaf = {0};
    scio_status status = read_leaf(group->file, address, &leaf, err);
    bool is_found = false;

    for (unsigned i = 0; i < leaf.n_entries && status == SCIO_OK && !is_found; i++) {
        leaf_entry entry = {0};
        int order = 1;

        status = take_entry(group->file, &leaf, &entry, err);
        if (status == SCIO_OK)
            status = compare(&group->heap, name, entry.name_offset, &order, err);
        is_found = status == SCIO_OK && order == 0;
        if (is_found)
            status = make_link(&group->heap, &entry, 0, out, err);
    }
    if (status != SCIO_OK)
        scio_h5_link_clear(out);
    scio_mem_free(leaf.data);
    return status;
}

/* The way for a file that is salvaged, whose tree cannot be descended by names that are gone. */
static scio_status
find_in_list(const scio_h5_file *file, const scio_h5_message *message, const char *name,
             scio_h5_link *out, scio_error *err)
{
    scio_h5_link_list list = {.max_links = scio_h5_file_limits(file)->n_members};
    scio_status status = scio_h5_group_old_list(file, message, &list, err);

    for (size_t i = 0; i < list.links.n_links && status == SCIO_OK; i++) {
        if (strcmp(list.links.links[i].name, name) != 0)
            continue;
        *out = list.links.links[i];
        memset(&list.links.links[i], 0, sizeof list.links.links[i]);
        break;
    }
    scio_h5_links_clear(&list.links);
    return status;
}

scio_status
scio_h5_group_old_find(const scio_h5_file *file, const scio_h5_message *message, const char *name,
                       scio_h5_link *out, scio_error *err)
{
    old_group group = {0};
    uint64_t tree = 0, leaf = SCIO_H5_UNDEFINED;

    memset(out, 0, sizeof *out);
    if (scio_h5_file_limits(file)->is_salvage)
        return find_in_list(file, message, name, out, err);
    SCIO_TRY(open_group(file, message, &group, &tree, err));
    SCIO_TRY(descend(&group, tree, name, &leaf, err));
    return leaf == SCIO_H5_UNDEFINED ? SCIO_OK : find_in_leaf(&group, leaf, name, out, err);
}
