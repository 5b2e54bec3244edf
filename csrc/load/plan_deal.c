/* Which cells a rank has.  The selection is cut into runs (whole blocks where there are enough of
 * them), the runs are permuted, and the cells, run behind run, are dealt in equal parts.  Only
 * sources, selection, seed and epoch decide, so every rank sees the same deal. */
#include "load/plan.h"

#include "base/mem.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { RUNS_OF_A_RANK = 16 }; /* at least, so that each rank gets cells from all over */

typedef struct cell_runs {
    int64_t *starts; /* [n_runs + 1] places in the selection */
    size_t n_runs;
} cell_runs;

/* One run for each block with a selected cell; the zone behind goes with its block. */
static scio_status
runs_of_blocks(const scio_plan *plan, const scio_plan_cuts *cuts, cell_runs *runs, scio_error *err)
{
    SCIO_TRY(scio_mem_alloc(cuts->n_blocks + 1, sizeof(int64_t), &runs->starts, err));
    runs->n_runs = 0;
    for (size_t i = 0; i < cuts->n_blocks; i++) {
        const int64_t sel0 = cuts->blocks[i].sel0;
        if (i == 0 || sel0 > runs->starts[runs->n_runs - 1]) {
            const bool is_first = runs->n_runs == 0;
            runs->starts[runs->n_runs++] = is_first ? 0 : sel0;
        }
    }
    if (runs->n_runs > 0 && runs->starts[runs->n_runs - 1] >= plan->n_sel)
        runs->n_runs--;
    runs->starts[runs->n_runs] = plan->n_sel;
    return SCIO_OK;
}

static scio_status
runs_of_cells(const scio_plan *plan, size_t n_wanted, cell_runs *runs, scio_error *err)
{
    int64_t length = plan->n_sel / (int64_t)n_wanted;

    length = length > 0 ? length : 1;
    runs->n_runs = (size_t)(plan->n_sel / length + (plan->n_sel % length != 0 ? 1 : 0));
    SCIO_TRY(scio_mem_alloc(runs->n_runs + 1, sizeof(int64_t), &runs->starts, err));
    for (size_t i = 0; i < runs->n_runs; i++)
        runs->starts[i] = (int64_t)i * length;
    runs->starts[runs->n_runs] = plan->n_sel;
    return SCIO_OK;
}

static scio_status
make_runs(const scio_plan *plan, cell_runs *runs, scio_error *err)
{
    static const uint64_t lengths[] = {UINT64_C(8) << 20, UINT64_C(1) << 20, UINT64_C(1) << 18, 1};
    const size_t n_wanted = (size_t)plan->options.world_size * RUNS_OF_A_RANK;

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        scio_plan_cuts cuts = {NULL, NULL, 0, 0};
        scio_status status = scio_plan_cut(plan, lengths[i], &cuts, err);
        if (status == SCIO_OK)
            status = runs_of_blocks(plan, &cuts, runs, err);
        scio_plan_cuts_clear(&cuts);
        if (status != SCIO_OK || runs->n_runs >= n_wanted)
            return status;
        scio_mem_free(runs->starts);
        runs->starts = NULL;
    }
    return runs_of_cells(plan, n_wanted, runs, err);
}

typedef struct cell_range {
    int64_t sel0, sel1;
} cell_range;

static int
compare_ranges(const void *a, const void *b)
{
    const cell_range *const x = a, *const y = b;
    return x->sel0 < y->sel0 ? -1 : x->sel0 > y->sel0;
}

/* The parts of the runs, in the order `order`, that lie in [lo, hi) of the dealt row; ascending. */
static size_t
cut_ranges(const cell_runs *runs, const int64_t *order, int64_t lo, int64_t hi, cell_range *ranges)
{
    size_t n_ranges = 0;
    int64_t at = 0;

    for (size_t i = 0; i < runs->n_runs && at < hi; i++) {
        const int64_t start = runs->starts[order[i]];
        const int64_t length = runs->starts[order[i] + 1] - start;
        const int64_t from = lo > at ? lo - at : 0;
        const int64_t to = hi - at < length ? hi - at : length;
        if (from < to)
            ranges[n_ranges++] = (cell_range){start + from, start + to};
        at += length;
    }
    qsort(ranges, n_ranges, sizeof *ranges, compare_ranges);
    return n_ranges;
}

/* An exact epoch has its rows from epoch 0, when they were decoded: a rank keeps its cells.  So do
 * the ranks whose cells turn out not to fit, as others of the same epoch may be exact. */
static uint64_t
deal_epoch(const scio_plan *plan)
{
    const scio_plan_options *const options = &plan->options;

    return options->shuffle == SCIO_SHUFFLE_EXACT || options->is_dealt_once ? 0 : options->epoch;
}

scio_status
scio_plan_deal(scio_plan *plan, int64_t lo, int64_t hi, scio_error *err)
{
    cell_runs runs = {NULL, 0};
    int64_t *order = NULL, *sel = NULL, n_sel = 0;
    cell_range *ranges = NULL;
    scio_status status;

    status = make_runs(plan, &runs, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_mem_alloc(runs.n_runs, sizeof *order, &order, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_mem_alloc(runs.n_runs, sizeof *ranges, &ranges, err);
    if (status != SCIO_OK)
        goto done;
    status = scio_mem_alloc((size_t)(hi - lo), sizeof *sel, &sel, err);
    if (status != SCIO_OK)
        goto done;
    for (size_t i = 0; i < runs.n_runs; i++)
        order[i] = (int64_t)i;
    if (plan->options.shuffle != SCIO_SHUFFLE_NONE)
        scio_rng_shuffle_i64(plan->options.seed,
                             scio_rng_stream(deal_epoch(plan), SCIO_PURPOSE_DEAL, 0), order,
                             runs.n_runs);
    const size_t n_ranges = cut_ranges(&runs, order, lo, hi, ranges);
    for (size_t i = 0; i < n_ranges; i++)
        for (int64_t j = ranges[i].sel0; j < ranges[i].sel1; j++)
            sel[n_sel++] = scio_plan_cell(plan, j);
    scio_mem_free(plan->sel);
    plan->sel = sel;
    plan->n_sel = n_sel;
    sel = NULL;
done:
    scio_mem_free(sel);
    scio_mem_free(ranges);
    scio_mem_free(order);
    scio_mem_free(runs.starts);
    return status;
}
