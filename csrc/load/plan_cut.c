/* Where a source is cut into blocks.
 *
 * Every track in the file proposes the cut that suits it: a multiple of the longer unit of its
 * arrays, about block_nbytes behind the cut before.  Each proposal splits all other tracks too, at
 * the row in which it lies, and what their units hold of both sides makes its zone.  The proposal
 * nearest to the wished length wins, where a row of the zone counts as several: so a track with
 * units much longer than a block leads (its units cannot be split), and one that has no more items
 * does not hold the others up. */
#include "load/plan.h"

#include "base/mem.h"

#include <string.h>

enum {
    ZONE_ROW_COST = 8,    /* rows off the wished length that a row of the zone is worth */
    ROWS_IN_MEMORY = 1024 /* of a block: fine enough to mix, coarse enough to cost nothing */
};

typedef struct cutter {
    const scio_plan_source *source;
    size_t i_source;
    uint64_t block_nbytes;
    bool is_alone; /* one track in the file: the block length is then counted in its items */
} cutter;

/* Between items item - 1 and item of the leading track; the zone is the rows [row0, row1). */
typedef struct cut_point {
    size_t i_track;
    uint64_t item;
    int64_t row0, row1;
} cut_point;

/* ---- geometry; the items of a dense track are its rows ---- */

static uint64_t
first_item(const scio_plan_track *track, int64_t row)
{
    return track->indptr != NULL ? (uint64_t)track->indptr[row] : (uint64_t)row;
}

/* First row in [low, n_rows] whose first item (shift 1: whose end) is `item` or later. */
static int64_t
first_row(const scio_plan_track *track, int64_t n_rows, int64_t low, int64_t shift, uint64_t item)
{
    int64_t high = n_rows;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (first_item(track, middle + shift) >= item)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint64_t
round_up(uint64_t item, uint64_t unit)
{
    return item / unit * unit + (item % unit != 0 ? unit : 0);
}

static uint64_t
item_nbytes(const scio_plan_track *track)
{
    const uint64_t nbytes = track->indptr != NULL ? track->data_itemsize + track->index_itemsize
                                                  : (uint64_t)track->n_cols * track->data_itemsize;
    return nbytes > 0 ? nbytes : 1;
}

/* Where the units end of which one begins before `item`. */
static uint64_t
reach_of(const scio_plan_track *track, uint64_t item, uint64_t n_items)
{
    uint64_t reach = round_up(item, track->data_unit);

    if (track->indptr != NULL && round_up(item, track->index_unit) > reach)
        reach = round_up(item, track->index_unit);
    return reach < n_items ? reach : n_items;
}

/* The last row of which all rows from row0 on have block_nbytes at most; row0 + 1 at least. */
static int64_t
row_after_block(const cutter *c, int64_t row0)
{
    int64_t low = row0 + 1, high = c->source->n_rows;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2 + 1;
        uint64_t nbytes = 0;
        for (size_t t = 0; t < c->source->n_tracks; t++) {
            const scio_plan_track *const track = &c->source->tracks[t];
            if (track->is_in_file)
                nbytes +=
                    (first_item(track, middle) - first_item(track, row0)) * item_nbytes(track);
        }
        if (nbytes <= c->block_nbytes)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* ---- proposals ---- */

/* The rows that the cut splits, in any track. */
static void
measure_zone(const cutter *c, int64_t row0, cut_point *cut)
{
    const scio_plan_source *const source = c->source;

    cut->row0 = first_row(&source->tracks[cut->i_track], source->n_rows, row0, 1, cut->item + 1);
    cut->row1 = cut->row0;
    for (size_t t = 0; t < source->n_tracks; t++) {
        const scio_plan_track *const track = &source->tracks[t];
        if (!track->is_in_file)
            continue;
        const uint64_t item = t == cut->i_track ? cut->item : first_item(track, cut->row0);
        const uint64_t reach = reach_of(track, item, first_item(track, source->n_rows));
        cut->row1 = first_row(track, source->n_rows, cut->row1, 0, reach);
    }
}

/* The cut that suits a track, about row `wish` of several tracks, behind a block that begins with
 * row0 and with `units` of the track; the end of the source when it has no unit to cut at. */
static cut_point
propose(const cutter *c, size_t i_track, const scio_plan_units *units, int64_t row0, int64_t wish)
{
    const scio_plan_source *const source = c->source;
    const scio_plan_track *const track = &source->tracks[i_track];
    const uint64_t n_items = first_item(track, source->n_rows);
    const bool is_by_data = track->indptr == NULL || track->data_unit >= track->index_unit;
    const uint64_t unit = is_by_data ? track->data_unit : track->index_unit;
    const uint64_t begin = (is_by_data ? units->data0 : units->index0) * unit;
    cut_point cut = {i_track, n_items, source->n_rows, source->n_rows};
    uint64_t least, n_wanted = 0; /* items; units */

    if (c->is_alone) {
        n_wanted = c->block_nbytes / item_nbytes(track) / unit;
        least = first_item(track, row0); /* a row before that may reach behind it: zones overlap */
    } else {
        const uint64_t end = first_item(track, wish);
        n_wanted = end > begin ? (end - begin) / unit : 0;
        least = first_item(track, row0 + 1); /* several tracks: no block without a row */
    }
    n_wanted = n_wanted > 0 ? n_wanted : 1;
    if (begin >= n_items || n_wanted > (n_items - begin) / unit)
        return cut;
    cut.item = begin + n_wanted * unit;
    if (cut.item < least)
        cut.item = round_up(least, unit);
    if (cut.item < n_items)
        measure_zone(c, row0, &cut);
    else
        cut.item = n_items;
    return cut;
}

static uint64_t
cost_of(const cut_point *cut, int64_t wish)
{
    const int64_t off = cut->row0 < wish ? wish - cut->row0 : cut->row0 - wish;
    return (uint64_t)off + ZONE_ROW_COST * (uint64_t)(cut->row1 - cut->row0);
}

static cut_point
choose_cut(const cutter *c, const scio_plan_units *units, int64_t row0)
{
    const int64_t n_rows = c->source->n_rows;
    cut_point best = {SIZE_MAX, 0, n_rows, n_rows};

    if (row0 >= n_rows)
        return best;
    const int64_t wish = c->is_alone ? row0 : row_after_block(c, row0);
    for (size_t t = 0; t < c->source->n_tracks; t++) {
        if (!c->source->tracks[t].is_in_file)
            continue;
        const cut_point cut = propose(c, t, &units[t], row0, wish);
        if (best.i_track == SIZE_MAX || cost_of(&cut, wish) < cost_of(&best, wish))
            best = cut;
    }
    return best;
}

/* ---- blocks ---- */

void
scio_plan_cuts_clear(scio_plan_cuts *cuts)
{
    scio_mem_free(cuts->blocks);
    scio_mem_free(cuts->units);
    *cuts = (scio_plan_cuts){NULL, NULL, 0, 0};
}

/* A block of the source at the end of the list, its units empty and behind those of the one before;
 * only the first one begins with row 0. */
static scio_status
add_block(scio_plan_cuts *cuts, const cutter *c, int64_t row0, scio_error *err)
{
    const size_t n_tracks = c->source->n_tracks;

    if (cuts->n_blocks == cuts->n_room) {
        const size_t n_room = cuts->n_room * 2 + 16;
        size_t n_units;
        if (!scio_mul_size(n_room, n_tracks, &n_units))
            return scio_fail(err, SCIO_ENOMEM, "too many tracks");
        SCIO_TRY(scio_mem_realloc(&cuts->blocks, n_room, sizeof *cuts->blocks, err));
        SCIO_TRY(scio_mem_realloc(&cuts->units, n_units, sizeof *cuts->units, err));
        cuts->n_room = n_room;
    }
    scio_plan_units *const units = cuts->units + cuts->n_blocks * n_tracks;
    memset(units, 0, n_tracks * sizeof *units);
    for (size_t t = 0; row0 > 0 && t < n_tracks; t++) {
        const scio_plan_units *const before = units + t - n_tracks;
        units[t] = (scio_plan_units){before->data1, before->data1, before->index1, before->index1};
    }
    cuts->blocks[cuts->n_blocks++] = (scio_plan_block){.i_source = c->i_source, .row0 = row0};
    return SCIO_OK;
}

static scio_status
cut_file(const cutter *c, scio_plan_cuts *cuts, scio_error *err)
{
    const scio_plan_source *const source = c->source;
    bool is_last = false;
    int64_t row0 = 0;

    while (!is_last) {
        SCIO_TRY(add_block(cuts, c, row0, err));
        scio_plan_units *const units = cuts->units + (cuts->n_blocks - 1) * source->n_tracks;
        const cut_point cut = choose_cut(c, units, row0);
        is_last = cut.row0 == source->n_rows;
        for (size_t t = 0; t < source->n_tracks; t++) {
            const scio_plan_track *const track = &source->tracks[t];
            if (!track->is_in_file)
                continue;
            const uint64_t item = t == cut.i_track ? cut.item : first_item(track, cut.row0);
            units[t].data1 = round_up(item, track->data_unit) / track->data_unit;
            if (track->indptr != NULL)
                units[t].index1 = round_up(item, track->index_unit) / track->index_unit;
        }
        cuts->blocks[cuts->n_blocks - 1].row1 = cut.row0;
        cuts->blocks[cuts->n_blocks - 1].is_last_of_source = is_last;
        row0 = cut.row1;
    }
    return SCIO_OK;
}

static scio_status
cut_memory(const cutter *c, scio_plan_cuts *cuts, scio_error *err)
{
    const int64_t n_rows = c->source->n_rows;

    for (int64_t row = 0; row < n_rows;) {
        const int64_t next = ROWS_IN_MEMORY < n_rows - row ? row + ROWS_IN_MEMORY : n_rows;
        SCIO_TRY(add_block(cuts, c, row, err));
        cuts->blocks[cuts->n_blocks - 1].row1 = next;
        cuts->blocks[cuts->n_blocks - 1].is_last_of_source = next == n_rows;
        row = next;
    }
    return SCIO_OK;
}

scio_status
scio_plan_cut(const scio_plan *plan, uint64_t block_nbytes, scio_plan_cuts *cuts, scio_error *err)
{
    size_t i_block = 0;

    for (size_t i = 0; i < plan->n_sources; i++) {
        const scio_plan_source *const source = &plan->sources[i];
        size_t n_in_file = 0;
        if (source->n_rows == 0)
            continue;
        for (size_t t = 0; t < source->n_tracks; t++)
            n_in_file += source->tracks[t].is_in_file ? 1 : 0;
        const cutter c = {source, i, block_nbytes, n_in_file == 1};
        SCIO_TRY((n_in_file > 0 ? cut_file : cut_memory)(&c, cuts, err));
        for (; i_block < cuts->n_blocks; i_block++) {
            scio_plan_block *const block = &cuts->blocks[i_block];
            block->sel0 = scio_plan_find(plan, plan->first_cells[i] + block->row0);
            block->sel1 = scio_plan_find(plan, plan->first_cells[i] + block->row1);
        }
    }
    return SCIO_OK;
}
