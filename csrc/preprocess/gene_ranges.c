#include "preprocess/gene_ranges.h"

#include <inttypes.h>

/* Ranges per thread: genes are not alike, and a thread that is done takes another range. */
#define N_RANGES_PER_SLOT 4
/* A cancel flag is looked at once in so many rows. */
#define N_ROWS_PER_LOOK 4096

typedef struct visit {
    const scio_csr_view *csr;
    size_t n_ranges;
    scio_gene_fn fn;
    void *context;
    const volatile int *cancel;
} visit;

static inline int64_t
index_at(const scio_csr_view *csr, size_t i)
{
    return csr->index_dtype == SCIO_I32 ? ((const int32_t *)csr->indices)[i]
                                        : ((const int64_t *)csr->indices)[i];
}

/* First position in [begin, end) whose column is not below `gene`. */
static size_t
find_gene(const scio_csr_view *csr, size_t begin, size_t end, int64_t gene)
{
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;

        if (index_at(csr, middle) < gene)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* Drops zeros; how many are left, or SIZE_MAX when a column is out of its range or order. */
static size_t
keep_values(const scio_csr_view *csr, size_t first, size_t n_items, int64_t least, int64_t end,
            int64_t *genes, double *values)
{
    size_t n_kept = 0;

    for (size_t i = 0; i < n_items; i++) {
        const int64_t gene = index_at(csr, first + i);

        if (gene < least || gene >= end)
            return SIZE_MAX;
        least = gene + 1;
        genes[n_kept] = gene;
        values[n_kept] = values[i];
        n_kept += values[i] != 0;
    }
    return n_kept;
}

static scio_status
visit_row(const visit *v, size_t i_row, int64_t gene_begin, int64_t gene_end, scio_error *err)
{
    const scio_csr_view *const csr = v->csr;
    const size_t begin = (size_t)csr->indptr[i_row], end = (size_t)csr->indptr[i_row + 1];
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);
    const size_t last = gene_end == csr->n_cols ? end : find_gene(csr, begin, end, gene_end);
    size_t first = gene_begin == 0 ? begin : find_gene(csr, begin, end, gene_begin);
    int64_t genes[SCIO_GENE_STRETCH], least = gene_begin;
    double values[SCIO_GENE_STRETCH];

    while (first < last) {
        const size_t n_items = last - first < SCIO_GENE_STRETCH ? last - first : SCIO_GENE_STRETCH;
        size_t n_kept;

        SCIO_TRY(scio_cast(csr->data_dtype, (const char *)csr->data + first * itemsize, SCIO_F64,
                           values, n_items, err));
        n_kept = keep_values(csr, first, n_items, least, gene_end, genes, values);
        if (n_kept == SIZE_MAX)
            return scio_fail(err, SCIO_ECORRUPT,
                             "row %zu: columns do not strictly increase within [0, %" PRId64 ")",
                             i_row, csr->n_cols);
        if (n_kept > 0)
            v->fn(v->context, i_row, genes, values, n_kept);
        least = index_at(csr, first + n_items - 1) + 1;
        first += n_items;
    }
    return SCIO_OK;
}

static scio_status
visit_range(void *context, size_t i_range, size_t slot, scio_error *err)
{
    const visit *const v = context;
    const uint64_t n_genes = (uint64_t)v->csr->n_cols;
    const uint64_t width = n_genes / v->n_ranges, rest = n_genes % v->n_ranges;
    const uint64_t begin = i_range * width + (i_range < rest ? i_range : rest);
    const uint64_t end = begin + width + (i_range < rest);

    (void)slot;
    for (int64_t i = 0; i < v->csr->n_rows; i++) {
        if (i % N_ROWS_PER_LOOK == 0 && v->cancel != NULL && *v->cancel)
            return scio_fail(err, SCIO_ECANCEL, "cancelled");
        SCIO_TRY(visit_row(v, (size_t)i, (int64_t)begin, (int64_t)end, err));
    }
    return SCIO_OK;
}

scio_status
scio_gene_ranges_visit(const scio_csr_view *csr, size_t max_parallel, scio_gene_fn fn,
                       void *context, const volatile int *cancel, scio_error *err)
{
    visit v = {.csr = csr, .fn = fn, .context = context, .cancel = cancel};
    const size_t n_genes = (size_t)csr->n_cols;
    size_t n_slots;

    SCIO_BUG_IF(csr->index_dtype != SCIO_I32 && csr->index_dtype != SCIO_I64, err);
    if (csr->nnz == 0)
        return SCIO_OK;
    if (n_genes == 0)
        return scio_fail(err, SCIO_ECORRUPT, "%" PRId64 " values in 0 columns", csr->nnz);
    n_slots = scio_parallel_n_slots(NULL, max_parallel, n_genes);
    v.n_ranges = n_slots == 1 ? 1 : n_slots * N_RANGES_PER_SLOT;
    v.n_ranges = v.n_ranges < n_genes ? v.n_ranges : n_genes;
    return scio_parallel_for(NULL, max_parallel, v.n_ranges, visit_range, &v, cancel, err);
}
