#include "preprocess/clipped.h"

#include "preprocess/gene_ranges.h"
#include "preprocess/residuals.h"

typedef struct clipped_sums {
    const int32_t *batches;
    size_t n_genes;
    const double *means, *clips;
    double *sums;
} clipped_sums;

static void
add_stretch(void *context, size_t i_row, const int64_t *genes, const double *values, size_t n_items)
{
    const clipped_sums *const c = context;
    const int32_t batch = c->batches == NULL ? 0 : c->batches[i_row];

    for (size_t i = 0; batch >= 0 && i < n_items; i++) {
        const size_t g = (size_t)batch * c->n_genes + (size_t)genes[i];
        const double x = values[i] < c->clips[g] ? values[i] : c->clips[g];

        c->sums[g] += (x - c->means[g]) * (x - c->means[g]);
    }
}

scio_status
scio_clipped_sums(const scio_csr_view *csr, const int32_t *batches, size_t n_batches,
                  const double *means, const double *clips, size_t max_parallel, double *sums_inout,
                  const volatile int *cancel, scio_error *err)
{
    clipped_sums c = {batches, (size_t)csr->n_cols, means, clips, sums_inout};

    SCIO_TRY(scio_batches_validate(batches, (size_t)csr->n_rows, n_batches, err));
    return scio_gene_ranges_visit(csr, max_parallel, add_stretch, &c, cancel, err);
}
