/* One C pass from rows to a batch: map genes, scale, log1p, select, sort, pad, write. */
#ifndef SCIO_LOAD_COLLATE_H
#define SCIO_LOAD_COLLATE_H

#include "base/buf.h"
#include "base/dtype.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum scio_form { SCIO_FORM_TOKENS, SCIO_FORM_DENSE, SCIO_FORM_CSR } scio_form;
typedef enum scio_select {
    SCIO_SELECT_MOST_EXPRESSED,
    SCIO_SELECT_RANDOM_EXPRESSED,
    SCIO_SELECT_FIRST
} scio_select;

/* What happens to a row, fixed for a loader. */
typedef struct scio_collate_spec {
    scio_form form;
    int64_t n_ids;    /* ids are in [0, n_ids): len(vocabulary), special tokens counted */
    int64_t first_id; /* DENSE and CSR columns are id - first_id, n_ids - first_id of them (4) */
    bool is_library_size; /* x * target_sum / total, total over all stored genes of the row */
    double target_sum;
    const double *cell_scale; /* [n_cell_scale] x * cell_scale[cell] (1 / size factor), by global */
    size_t n_cell_scale;      /* cell id; not together with is_library_size; NULL = 1; borrowed */
    bool is_log1p;
    const uint8_t *id_mask; /* [n_ids] 1 = kept (fitted gene selection); NULL = all; borrowed */
    int64_t max_genes;      /* 0 = no limit; TOKENS: also the padded width */
    scio_select select;
    uint64_t seed, epoch;
    int64_t pad_id;
    float pad_value;
    scio_dtype value_dtype; /* of expression: NONE or F32, or F16 (nearest, ties to even) */
    scio_dtype id_dtype;    /* TOKENS, gene_indices and mask: NONE or I64, or I32 */
} scio_collate_spec;

/* A row where it lies: pieces are not needed, rows are whole. `indices` are columns of the source,
 * already range-checked. */
typedef struct scio_row {
    const void *indices; /* index_dtype U16 or U32 / I32 / I64; NULL for a dense row of n_items */
    scio_dtype index_dtype; /* columns 0 … n_items - 1 when indices is NULL */
    const void *values;
    scio_dtype value_dtype; /* any */
    size_t n_items;
    const int32_t *map;     /* source column -> id or -1 */
    bool is_map_increasing; /* map keeps the order of columns (where >= 0): no sort needed */
    int64_t cell;           /* global cell id, for random selection */
    bool is_map_identity; /* map[c] == map_first + c for every column c of the source: the map is */
    int32_t map_first;    /* then not looked at (may be NULL), and counts as increasing */
} scio_row;

/* What a map does to the order of columns. */
typedef enum scio_map_kind {
    SCIO_MAP_ANY,
    SCIO_MAP_INCREASING, /* columns that have an id keep their order */
    SCIO_MAP_IDENTITY    /* map[c] == map[0] + c for all columns */
} scio_map_kind;
scio_map_kind scio_gene_map_kind(const int32_t *map, int64_t n_cols);
/* Gives the row a map and what is known of it. */
void scio_row_set_map(scio_row *row, const int32_t *map, scio_map_kind kind);

/* A further matrix of the same cells (a layer, an embedding) beside a batch; buffers as there. */
typedef struct scio_batch_extra {
    scio_buf *values;  /* value[n_cells, width], or CSR data value[nnz] */
    scio_buf *indices; /* CSR int32[nnz] */
    scio_buf *indptr;  /* CSR int64[n_cells + 1] */
    int64_t width, nnz;
    scio_dtype value_dtype;
} scio_batch_extra;

/* A finished batch: buffers with one reference each, NULL where the form has none.  `value` and
 * `id` are value_dtype and id_dtype. */
typedef struct scio_batch {
    scio_form form;
    scio_dtype value_dtype; /* F32 or F16 */
    scio_dtype id_dtype;    /* I64 or I32 for TOKENS, I32 for CSR, NONE for DENSE */
    int64_t n_cells;
    int64_t width;            /* TOKENS: L; DENSE, CSR: columns */
    int64_t nnz;              /* CSR: length of ids and values */
    scio_buf *expression;     /* TOKENS value[n_cells, L]; DENSE value[n_cells, width]; CSR data */
    scio_buf *gene_indices;   /* TOKENS id[n_cells, L]; CSR indices int32[nnz] */
    scio_buf *attention_mask; /* TOKENS id[n_cells, L] */
    scio_buf *n_genes;        /* TOKENS int64[n_cells] */
    scio_buf *indptr;         /* CSR int64[n_cells + 1] */
    scio_buf *index;          /* int64[n_cells], global cell ids */
    bool is_padding_any;
    scio_buf *is_padding;     /* uint8[n_cells] when is_padding_any: cells repeated to fill ranks */
    scio_batch_extra *extras; /* [n_extras] owned */
    size_t n_extras;
} scio_batch;

void scio_batch_clear(scio_batch *batch);
size_t scio_batch_nbytes(const scio_batch *batch);

/* Scratch of one thread; grows to the longest row. */
typedef struct scio_collate_scratch scio_collate_scratch;
SCIO_MUST_CHECK scio_status scio_collate_scratch_new(scio_collate_scratch **out, scio_error *err);
void scio_collate_scratch_free(scio_collate_scratch *scratch);

/* Collates n_cells rows.  The value rules are those of loader.md 5: totals over all stored genes
 * before alignment (exact integer or double sum); y = fl32(double(x) * (target_sum / total)), total
 * 0 leaves the row; or y = fl32(double(x) * cell_scale[cell]), a finite number above 0 for every
 * cell that is collated; then log1p; expressed = not equal to zero after processing (NaN and
 * negative stay); duplicates in a row summed first; ids ascending; selection by exact top-k. */
SCIO_MUST_CHECK scio_status scio_collate(const scio_collate_spec *spec, const scio_row *rows,
                                         size_t n_cells, scio_collate_scratch *scratch,
                                         scio_batch *out, scio_error *err);

/* A further matrix of the cells of `main` (a batch that scio_collate made with the same spec), as
 * stored: no scaling, no log, no selection of its own; duplicates summed.  The columns are those of
 * the batch:
 *
 *   DENSE   value[n_cells, width], zeros where nothing is stored
 *   CSR     its own data, indices, indptr; ids ascending, no zeros
 *   TOKENS  value[n_cells, width]: what the layer has at main's gene_indices, 0 where nothing is
 *           stored, pad_value behind n_genes
 *
 * id_mask holds here too; max_genes limits TOKENS only, through main.  rows[i] is the row of main's
 * cell i in the layer, with the layer's own map. */
SCIO_MUST_CHECK scio_status scio_collate_layer(const scio_collate_spec *spec,
                                               const scio_batch *main, const scio_row *rows,
                                               size_t n_cells, scio_collate_scratch *scratch,
                                               scio_batch_extra *out, scio_error *err);
/* Rows of n_cols columns as they are, value[n_cells, n_cols]; value_dtype NONE, F32 or F16.  Rows
 * may be dense or sparse (any order, duplicates summed); maps are not looked at. */
SCIO_MUST_CHECK scio_status scio_collate_dense_rows(const scio_row *rows, size_t n_cells,
                                                    int64_t n_cols, scio_dtype value_dtype,
                                                    scio_batch_extra *out, scio_error *err);
void scio_batch_extra_clear(scio_batch_extra *extra);
size_t scio_batch_extra_nbytes(const scio_batch_extra *extra);

#endif
