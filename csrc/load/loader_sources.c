/* The matrices of a loader, their maps, and where rows are resident. */
#include "load/loader_private.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

scio_status
scio_loader_copy(const void *src, size_t n_items, size_t itemsize, void *out, scio_error *err)
{
    void *copy = NULL;

    SCIO_TRY(scio_mem_alloc(n_items, itemsize, &copy, err));
    if (n_items > 0)
        memcpy(copy, src, n_items * itemsize);
    memcpy(out, &copy, sizeof copy);
    return SCIO_OK;
}

static scio_status
check_n_cols(const scio_matrix *matrix, scio_error *err)
{
    if (matrix->n_cols > INT32_MAX)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "%s has %" PRId64 " columns; a loader takes up to %d", matrix->name,
                         matrix->n_cols, INT32_MAX);
    return SCIO_OK;
}

static scio_status
check_matrix(const scio_matrix *matrix, const int32_t *map, const scio_collate_spec *spec,
             scio_error *err)
{
    SCIO_TRY(check_n_cols(matrix, err));
    /* columns of these forms are id - first_id: a smaller id would lie before the first one */
    const int64_t least = spec->form == SCIO_FORM_TOKENS ? 0 : spec->first_id;
    for (int64_t i = 0; i < matrix->n_cols; i++)
        if (map[i] != -1 && (map[i] < least || map[i] >= spec->n_ids))
            return scio_fail(err, SCIO_EINVAL,
                             "%s: map[%" PRId64 "] is %" PRId32 ", neither -1 nor in [%" PRId64
                             ", %" PRId64 ")",
                             matrix->name, i, map[i], least, spec->n_ids);
    return SCIO_OK;
}

/* All sources must agree in what a batch has one width for. */
static scio_status
check_widths(const scio_loader *loader, scio_error *err)
{
    for (size_t t = 1; t < loader->n_tracks; t++) {
        const scio_matrix *const first = scio_loader_matrix(loader, 0, t);
        for (size_t i = 1; i < loader->n_matrices && !loader->is_layer[t]; i++) {
            const scio_matrix *const other = scio_loader_matrix(loader, i, t);
            if (other->n_cols != first->n_cols)
                return scio_fail(err, SCIO_EINVAL, "%s has %" PRId64 " columns, %s has %" PRId64,
                                 other->name, other->n_cols, first->name, first->n_cols);
        }
    }
    return SCIO_OK;
}

static scio_status
check_extra(const scio_matrix *main, const scio_matrix *extra, bool is_layer, scio_error *err)
{
    SCIO_TRY(check_n_cols(extra, err));
    if (extra->n_rows != main->n_rows)
        return scio_fail(err, SCIO_EINVAL, "%s has %" PRId64 " rows, %s has %" PRId64, extra->name,
                         extra->n_rows, main->name, main->n_rows);
    if (is_layer && extra->n_cols != main->n_cols)
        return scio_fail(err, SCIO_EINVAL, "%s has %" PRId64 " columns, %s has %" PRId64,
                         extra->name, extra->n_cols, main->name, main->n_cols);
    return SCIO_OK;
}

/* The matrices of one source: the main one and those beside it. */
static scio_status
keep_source(scio_loader *loader, size_t i, scio_matrix *main, const int32_t *map, scio_error *err)
{
    const scio_loader_options *const options = &loader->options;
    scio_matrix **const tracks = &loader->matrices[i * loader->n_tracks];

    SCIO_TRY(check_matrix(main, map, &loader->spec, err));
    tracks[0] = scio_matrix_retain(main);
    for (size_t k = 0; k < options->n_extras; k++) {
        scio_matrix *const extra = options->extras[i * options->n_extras + k];
        SCIO_TRY(check_extra(main, extra, options->is_extra_layer[k], err));
        tracks[1 + k] = scio_matrix_retain(extra);
    }
    /* shapes of datasets that were never written are whatever their file says */
    if (main->n_rows > INT64_MAX / 2 - loader->first_cells[i])
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "%s has %" PRId64 " rows, more than a loader can count", main->name,
                         main->n_rows);
    loader->first_cells[i + 1] = loader->first_cells[i] + main->n_rows;
    SCIO_TRY(scio_loader_copy(map, (size_t)main->n_cols, sizeof(int32_t), &loader->maps[i], err));
    loader->map_kinds[i] = scio_gene_map_kind(map, main->n_cols);
    return SCIO_OK;
}

static scio_status
keep_matrices(scio_loader *loader, scio_matrix *const *matrices, const int32_t *const *maps,
              scio_error *err)
{
    const size_t n = loader->n_matrices;

    loader->n_tracks = 1 + loader->options.n_extras;
    SCIO_TRY(
        scio_mem_zalloc(n, loader->n_tracks * sizeof *loader->matrices, &loader->matrices, err));
    SCIO_TRY(scio_mem_zalloc(loader->n_tracks, sizeof(bool), &loader->is_layer, err));
    for (size_t t = 0; t < loader->n_tracks; t++)
        loader->is_layer[t] = t == 0 || loader->options.is_extra_layer[t - 1];
    SCIO_TRY(scio_mem_zalloc(n, sizeof *loader->maps, &loader->maps, err));
    SCIO_TRY(scio_mem_zalloc(n, sizeof *loader->map_kinds, &loader->map_kinds, err));
    SCIO_TRY(scio_mem_zalloc(n + 1, sizeof(int64_t), &loader->first_cells, err));
    for (size_t i = 0; i < n; i++)
        SCIO_TRY(keep_source(loader, i, matrices[i], maps[i], err));
    return check_widths(loader, err);
}

/* ---- what is resident ---- */

scio_status
scio_loader_check_compact(const scio_loader *loader, const scio_compact *compact, scio_error *err)
{
    const int64_t n_cells = loader->first_cells[loader->n_matrices];

    if (scio_compact_n_cells(compact) == n_cells &&
        scio_compact_n_tracks(compact) == loader->n_tracks)
        return SCIO_OK;
    return scio_fail(
        err, SCIO_EINVAL,
        "the compact store has %" PRId64 " cells and %zu tracks, the loader %" PRId64 " and %zu",
        scio_compact_n_cells(compact), scio_compact_n_tracks(compact), n_cells, loader->n_tracks);
}

static scio_status
check_mapped(const scio_loader *loader, size_t i_source, int64_t n_rows, scio_error *err)
{
    for (size_t t = 0; t < loader->n_tracks; t++) {
        const scio_matrix *const matrix = scio_loader_matrix(loader, i_source, t);
        const scio_matrix *const mapped = loader->mapped[i_source * loader->n_tracks + t];
        if (mapped == NULL && scio_loader_is_in_memory(loader, i_source))
            continue; /* not looked at */
        if (mapped == NULL)
            return scio_fail(err, SCIO_EINVAL, "there is no mapped matrix for %s", matrix->name);
        if (mapped->is_in_file || mapped->n_rows != n_rows || mapped->n_cols != matrix->n_cols ||
            mapped->kind != matrix->kind)
            return scio_fail(err, SCIO_EINVAL,
                             "%s is %" PRId64 " x %" PRId64 ", expected a mapped matrix of %" PRId64
                             " x %" PRId64,
                             mapped->name, mapped->n_rows, mapped->n_cols, n_rows, matrix->n_cols);
    }
    return SCIO_OK;
}

/* Rows are found by bisection, and counted off from the first one of their source. */
static scio_status
check_mapped_cells(const int64_t *cells, size_t n_cells, int64_t n_all, scio_error *err)
{
    for (size_t i = 0; i < n_cells; i++)
        if (cells[i] < 0 || cells[i] >= n_all || (i > 0 && cells[i] <= cells[i - 1]))
            return scio_fail(err, SCIO_EINVAL,
                             "mapped_cells[%zu] is %" PRId64
                             ": expected ascending cells in [0, %" PRId64 ")",
                             i, cells[i], n_all);
    return SCIO_OK;
}

static scio_status
keep_mapped(scio_loader *loader, scio_error *err)
{
    const scio_loader_options *const options = &loader->options;
    const size_t n = loader->n_matrices * loader->n_tracks;
    size_t at = 0;

    SCIO_TRY(scio_mem_zalloc(n, sizeof *loader->mapped, &loader->mapped, err));
    SCIO_TRY(scio_mem_zalloc(loader->n_matrices, sizeof(size_t), &loader->mapped_first, err));
    for (size_t i = 0; i < n; i++)
        loader->mapped[i] = scio_matrix_retain(options->mapped[i]);
    if (options->mapped_cells != NULL) {
        SCIO_TRY(check_mapped_cells(options->mapped_cells, options->n_mapped_cells,
                                    loader->first_cells[loader->n_matrices], err));
        loader->n_mapped_cells = options->n_mapped_cells;
        SCIO_TRY(scio_loader_copy(options->mapped_cells, options->n_mapped_cells, sizeof(int64_t),
                                  &loader->mapped_cells, err));
    }
    for (size_t i = 0; i < loader->n_matrices; i++) {
        int64_t n_rows = loader->first_cells[i + 1] - loader->first_cells[i];
        if (loader->mapped_cells != NULL) {
            loader->mapped_first[i] = at;
            while (at < loader->n_mapped_cells &&
                   loader->mapped_cells[at] < loader->first_cells[i + 1])
                at++;
            n_rows = (int64_t)(at - loader->mapped_first[i]);
        }
        SCIO_TRY(check_mapped(loader, i, n_rows, err));
    }
    return SCIO_OK;
}

static scio_status
keep_resident(scio_loader *loader, scio_error *err)
{
    const scio_loader_options *const options = &loader->options;
    bool is_all_in_memory = true;

    for (size_t i = 0; i < loader->n_matrices; i++)
        is_all_in_memory = is_all_in_memory && scio_loader_is_in_memory(loader, i);
    /* an exact plan may be made, to be looked at, before its rows are resident */
    loader->is_resident = options->resident != NULL || options->mapped != NULL ||
                          is_all_in_memory || options->shuffle == SCIO_SHUFFLE_EXACT;
    if (options->mapped != NULL)
        return keep_mapped(loader, err);
    if (options->resident == NULL)
        return SCIO_OK;
    SCIO_TRY(scio_loader_check_compact(loader, options->resident, err));
    loader->resident = scio_compact_retain(options->resident);
    return SCIO_OK;
}

scio_status
scio_loader_keep_sources(scio_loader *loader, scio_matrix *const *matrices,
                         const int32_t *const *maps, scio_error *err)
{
    SCIO_TRY(keep_matrices(loader, matrices, maps, err));
    return keep_resident(loader, err);
}

scio_status
scio_loader_check_unchanged(const scio_loader *loader, size_t i_source, scio_error *err)
{
    const scio_h5_file *last = NULL;

    for (size_t t = 0; t < loader->n_tracks; t++) {
        const scio_matrix *const matrix = scio_loader_matrix(loader, i_source, t);
        if (!matrix->is_in_file || matrix->data_dataset->file == last)
            continue;
        last = matrix->data_dataset->file;
        SCIO_TRY(scio_source_check_unchanged(scio_h5_file_source(last), err));
    }
    return SCIO_OK;
}

void
scio_loader_release_sources(scio_loader *loader)
{
    const size_t n_all = loader->n_matrices * loader->n_tracks;
    for (size_t i = 0; loader->matrices != NULL && i < n_all; i++)
        scio_matrix_release(loader->matrices[i]);
    for (size_t i = 0; loader->mapped != NULL && i < n_all; i++)
        scio_matrix_release(loader->mapped[i]);
    scio_compact_release(loader->resident);
    scio_compact_release(loader->compact);
    scio_sink_release(loader->sink);
    scio_mem_free(loader->mapped);
    scio_mem_free(loader->mapped_cells);
    scio_mem_free(loader->mapped_first);
    scio_mem_free(loader->is_layer);
    for (size_t i = 0; loader->maps != NULL && i < loader->n_matrices; i++)
        scio_mem_free(loader->maps[i]);
    scio_mem_free(loader->matrices);
    scio_mem_free(loader->maps);
    scio_mem_free(loader->map_kinds);
    scio_mem_free(loader->first_cells);
}
