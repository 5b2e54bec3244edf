/* The numbering of chunks that three indexes share, and the two indexes that are no more than that:
 * a single chunk, and chunks one after the other. */
#include "base/mem.h"
#include "h5read/dataset_internal.h"

static uint64_t
ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

scio_status
scio_h5_linear_init(const scio_h5_dataset *dataset, unsigned n_unlimited, scio_h5_linear *out,
                    scio_error *err)
{
    const scio_h5_space *space = &dataset->space;
    unsigned n_found = 0, n_axes = 0;

    *out = (scio_h5_linear){.rank = space->rank, .n_chunks = 1};
    for (unsigned i = 0; i < space->rank; i++) {
        if (space->max_dims[i] != UINT64_MAX)
            continue;
        out->extents[n_axes] = ceil_div(space->dims[i], dataset->unit_dims[i]);
        out->axes[n_axes++] = i;
        n_found++;
    }
    if (n_found != n_unlimited)
        return scio_fail(err, SCIO_ECORRUPT,
                         "chunk index \"%s\": %u dimensions are unlimited, expected %u",
                         dataset->index_name, n_found, n_unlimited);
    for (unsigned i = 0; i < space->rank; i++) {
        if (space->max_dims[i] == UINT64_MAX)
            continue;
        out->extents[n_axes] = ceil_div(space->max_dims[i], dataset->unit_dims[i]);
        out->axes[n_axes++] = i;
    }
    for (unsigned k = 0; k < space->rank; k++)
        if (!scio_mul_u64(out->n_chunks, out->extents[k], &out->n_chunks)) {
            out->n_chunks = UINT64_MAX;
            break;
        }
    return SCIO_OK;
}

void
scio_h5_linear_scaled(const scio_h5_linear *linear, uint64_t i_chunk, uint64_t *scaled_out)
{
    for (unsigned k = linear->rank; k-- > 1;) {
        scaled_out[linear->axes[k]] = i_chunk % linear->extents[k];
        i_chunk /= linear->extents[k];
    }
    if (linear->rank != 0)
        scaled_out[linear->axes[0]] = i_chunk;
}

uint64_t
scio_h5_linear_number(const scio_h5_linear *linear, const uint64_t *scaled)
{
    uint64_t i_chunk = 0;

    for (unsigned k = 0; k < linear->rank; k++)
        i_chunk = i_chunk * linear->extents[k] + scaled[linear->axes[k]];
    return i_chunk;
}

scio_status
scio_h5_walk_single(scio_h5_sink *sink, scio_error *err)
{
    const scio_h5_layout_message *layout = sink->layout;
    const scio_h5_dataset *dataset = sink->dataset;
    const uint64_t scaled[SCIO_H5_MAX_RANK] = {0};

    if (dataset->n_units > 1)
        return scio_fail(err, SCIO_ECORRUPT, "single-chunk index for a dataset of %llu chunks",
                         (unsigned long long)dataset->n_units);
    if (layout->is_single_filtered != scio_h5_is_filtered(dataset))
        return scio_fail(err, SCIO_ECORRUPT,
                         "single-chunk index: the layout message says the chunk is %s, the "
                         "pipeline has %zu filters",
                         layout->is_single_filtered ? "filtered" : "not filtered",
                         dataset->pipeline.n_filters);
    return scio_h5_sink_add(sink, scaled, layout->address,
                            layout->is_single_filtered ? layout->single_nbytes
                                                       : dataset->unit_nbytes,
                            layout->is_single_filtered ? layout->single_mask : 0, err);
}

/* Chunk i lies at the index address + i * chunk bytes; all of them were allocated at once. */
scio_status
scio_h5_walk_implicit(scio_h5_sink *sink, scio_error *err)
{
    const scio_h5_dataset *dataset = sink->dataset;
    uint64_t scaled[SCIO_H5_MAX_RANK], all_nbytes = 0;
    scio_h5_linear linear;

    if (scio_h5_is_filtered(dataset))
        return scio_fail(err, SCIO_ECORRUPT, "implicit chunk index with %zu filters, expected none",
                         dataset->pipeline.n_filters);
    SCIO_TRY(scio_h5_linear_init(dataset, 0, &linear, err));
    if (!scio_mul_u64(linear.n_chunks, dataset->unit_nbytes, &all_nbytes))
        all_nbytes = UINT64_MAX;
    SCIO_TRY(scio_h5_check_range(dataset->file, sink->layout->address, all_nbytes, err));
    for (uint64_t i = 0; i < dataset->n_units; i++) {
        uint64_t i_chunk;

        scio_h5_unit_coordinates(dataset, i, scaled);
        i_chunk = scio_h5_linear_number(&linear, scaled);
        SCIO_TRY(scio_h5_sink_add(sink, scaled,
                                  sink->layout->address + i_chunk * dataset->unit_nbytes,
                                  dataset->unit_nbytes, 0, err));
    }
    return SCIO_OK;
}
